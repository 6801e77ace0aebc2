from __future__ import annotations

import os
import re
import tomllib
from dataclasses import fields
from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path

import pytest

from spool.config import Config, ConfigError, Supervision, load, supervision

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "config.example.toml"


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "spool.toml"
    path.write_text(text)
    return path


def origins(path: Path | None, flags: dict[str, object], environ: dict[str, str]) -> dict[str, str]:
    _, settings = load(path, flags, environ)
    return {f"{setting.section}.{setting.key}": setting.origin for setting in settings}


def complaint(path: Path | None, flags: dict[str, object], environ: dict[str, str]) -> str:
    """The one line that says what is wrong."""
    with pytest.raises(ConfigError) as error:
        load(path, flags, environ)
    line = str(error.value)
    assert "\n" not in line
    return line


def test_nothing_given_is_the_defaults() -> None:
    config, settings = load(None, {}, {})
    assert config == Config()
    assert {setting.origin for setting in settings} == {"default"}


def test_variable_wins_over_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, "[server]\nport = 1\n")
    config, _ = load(path, {}, {"SPOOL_SERVER_PORT": "2"})
    assert config.server.port == 2


def test_flag_wins_over_the_variable_and_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, "[server]\nport = 1\n")
    config, _ = load(path, {"server.port": "3"}, {"SPOOL_SERVER_PORT": "2"})
    assert config.server.port == 3


def test_file_wins_over_the_default(tmp_path: Path) -> None:
    config, _ = load(written(tmp_path, '[limits]\nquota = "1 GiB"\n'), {}, {})
    assert config.limits.quota == 2**30
    assert config.limits.max_files == Config().limits.max_files


def test_flag_that_was_not_given_changes_nothing() -> None:
    config, _ = load(None, {"server.port": None}, {"SPOOL_SERVER_PORT": "2"})
    assert config.server.port == 2


def test_each_setting_tells_where_it_is_from(tmp_path: Path) -> None:
    path = written(tmp_path, '[server]\nport = 1\nhost = "::1"\n[log]\nlevel = "debug"\n')
    found = origins(path, {"server.port": "3"}, {"SPOOL_SERVER_HOST": "::", "SPOOL_SERVER_PORT": "2"})
    assert found["server.port"] == "--port"
    assert found["server.host"] == "SPOOL_SERVER_HOST"
    assert found["log.level"] == str(path)
    assert found["log.format"] == "default"


def test_values_have_their_types(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        """
        [server]
        trusted_proxies = ["10.0.0.0/8", "::1"]
        shutdown_grace = "2m"
        [storage]
        dir = "/srv/spool"
        [policy]
        allow_types = ["audio/*"]
        expire_after = "7d"
        """,
    )
    config, _ = load(path, {}, {"SPOOL_POLICY_DENY_TYPES": "audio/x-mod,text/*"})
    assert config.server.trusted_proxies == (ip_network("10.0.0.0/8"), ip_network("::1"))
    assert config.server.shutdown_grace == timedelta(minutes=2)
    assert config.storage.dir == Path("/srv/spool")
    assert config.policy.allow_types == ("audio/*",)
    assert config.policy.deny_types == ("audio/x-mod", "text/*")
    assert config.policy.expire_after == timedelta(days=7)


def test_every_key_has_a_variable() -> None:
    _, settings = load(None, {}, {})
    for section, key, value, _ in settings:
        plain = tomllib.loads(f"v = {value}")["v"]
        text = ",".join(plain) if isinstance(plain, list) else str(plain)
        name = f"SPOOL_{section}_{key}".upper()
        assert origins(None, {}, {name: text})[f"{section}.{key}"] == name


def test_settings_are_a_file_that_loads_to_the_same(tmp_path: Path) -> None:
    config, settings = load(None, {}, {"SPOOL_LIMITS_QUOTA": "1536", "SPOOL_POLICY_ALLOW_TYPES": "a/*,b/*"})
    sections = {setting.section: "" for setting in settings}
    for setting in settings:
        sections[setting.section] += f"{setting.key} = {setting.value}\n"
    path = written(tmp_path, "".join(f"[{name}]\n{keys}" for name, keys in sections.items()))
    assert load(path, {}, {})[0] == config


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("[server]\nprot = 1\n", ["server.prot", "did you mean port?"]),
        ("[sever]\nport = 1\n", ["[sever]", "did you mean server?"]),
        ("[limits]\nzzzzzz = 1\n", ["limits.zzzzzz", "max_files", "quota"]),
        ("server = 1\n", ["server is a section", "[server]"]),
        ("port = 1\n", ["[port]", "server"]),
        ("[server]\nport = 70000\n", ["server.port", "70000", "a port from 0 to 65535"]),
        ('[server]\nport = "many"\n', ["server.port", "'many'", "a port"]),
        ("[server]\nhost = 1\n", ["server.host", "a text"]),
        ('[server]\nbase_url = "spool"\n', ["server.base_url", "an address"]),
        ('[server]\naccel = "nginx"\n', ["server.accel", '"x-accel-redirect"']),
        ('[server]\ntrusted_proxies = ["10.0.0.1/8"]\n', ["server.trusted_proxies", "networks"]),
        ('[limits]\nmax_file_size = "huge"\n', ["limits.max_file_size", "'huge'", "a size"]),
        ("[limits]\nmax_files = 0\n", ["limits.max_files", "a number from 1 up"]),
        ('[limits]\nidle_timeout = "0"\n', ["limits.idle_timeout", "a duration"]),
        ('[policy]\nexpire_after = "soon"\n', ["policy.expire_after", "'soon'", "for ever"]),
        ("[policy]\nallow_types = [1]\n", ["policy.allow_types", "a list of texts"]),
        ('[log]\nlevel = "loud"\n', ["log.level", '"debug", "info", "warning", "error"']),
        ("[server\n", ["cannot read"]),
    ],
)
def test_mistake_in_the_file_is_named_with_its_mend(tmp_path: Path, text: str, names: list[str]) -> None:
    path = written(tmp_path, text)
    line = complaint(path, {}, {})
    assert [name for name in [str(path), *names] if name not in line] == []


def test_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert complaint(tmp_path / "spool.toml", {}, {}) == f"cannot read {tmp_path}/spool.toml: No such file or directory"


@pytest.mark.parametrize("content", [b"\xff", b"\x00"])
def test_file_that_is_no_text_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "spool.toml"
    path.write_bytes(content)
    assert str(path) in complaint(path, {}, {})


def test_file_that_is_missing_is_named(tmp_path: Path) -> None:
    assert str(tmp_path / "nowhere.toml") in complaint(tmp_path / "nowhere.toml", {}, {})


def test_unknown_variable_is_named_with_the_nearest() -> None:
    line = complaint(None, {}, {"SPOOL_SERVER_PROT": "1"})
    assert "SPOOL_SERVER_PROT" in line
    assert "did you mean SPOOL_SERVER_PORT?" in line


def test_variable_of_an_unknown_section_is_named_with_the_nearest() -> None:
    line = complaint(None, {}, {"SPOOL_LIMIT_QUOTA": "1 GiB"})
    assert "did you mean SPOOL_LIMITS_QUOTA?" in line


def test_duration_without_end_is_named() -> None:
    assert "policy.expire_after" in complaint(None, {}, {"SPOOL_POLICY_EXPIRE_AFTER": "999999999w"})


def test_variables_that_kubernetes_sets_are_left_alone() -> None:
    variables = {"SPOOL_PORT": "tcp://10.0.0.1:8080", "SPOOL_SERVICE_PORT": "8080", "SPOOL_PORT_8080_TCP_PORT": "8080"}
    assert load(None, {}, variables)[0] == Config()


def test_variables_of_others_are_left_alone() -> None:
    config, _ = load(None, {}, {"PATH": "/bin", "SPOOLER_PORT": "1", "spool_server_port": "1"})
    assert config == Config()


def test_wrong_value_of_a_variable_names_the_variable() -> None:
    line = complaint(None, {}, {"SPOOL_SERVER_PORT": "http"})
    assert "SPOOL_SERVER_PORT: server.port is 'http'" in line


def test_wrong_value_of_a_flag_names_the_flag() -> None:
    assert "--port: server.port is 'http'" in complaint(None, {"server.port": "http"}, {})


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"TLS_CERT": "c.pem"}, ["server.tls_cert is set without server.tls_key"]),
        ({"TLS_KEY": "k.pem"}, ["server.tls_key is set without server.tls_cert"]),
        ({"TLS_CERT": "c.pem", "TLS_KEY": "k.pem", "UNIX": "s"}, ["server.tls_cert", "server.unix"]),
    ],
)
def test_settings_that_cannot_stand_together_are_named(settings: dict[str, str], names: list[str]) -> None:
    line = complaint(None, {}, {f"SPOOL_SERVER_{key}": value for key, value in settings.items()})
    assert [name for name in names if name not in line] == []


def test_no_key_holds_a_secret() -> None:
    _, settings = load(None, {}, {})
    assert [s.key for s in settings if re.search(r"secret|password|passwd|token|credential", s.key)] == []


def test_configuration_cannot_be_changed() -> None:
    config, _ = load(None, {}, {})
    with pytest.raises(AttributeError):
        config.server.port = 1  # type: ignore[misc]  # that is what the test shows


def test_example_loads_and_equals_the_defaults() -> None:
    config, _ = load(EXAMPLE, {}, {})
    assert config == Config()


def test_example_has_every_key() -> None:
    _, settings = load(EXAMPLE, {}, {})
    assert [f"{s.section}.{s.key}" for s in settings if s.origin == "default"] == []


def test_example_says_of_every_key_what_it_means() -> None:
    lines = EXAMPLE.read_text().splitlines()
    keys = [number for number, line in enumerate(lines) if re.match(r"\w+ = ", line)]
    assert len(keys) == sum(len(fields(getattr(Config(), section.name))) for section in fields(Config))
    assert [lines[number] for number in keys if not lines[number - 1].startswith("# ")] == []


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, Supervision()),
        ({"NOTIFY_SOCKET": "/run/systemd/notify"}, Supervision("/run/systemd/notify")),
        ({"LISTEN_FDS": "2", "LISTEN_PID": str(os.getpid())}, Supervision(sockets=2)),
        ({"LISTEN_FDS": "2", "LISTEN_PID": "1"}, Supervision()),
        ({"LISTEN_FDS": "2"}, Supervision()),
        ({"LISTEN_FDS": "-2", "LISTEN_PID": str(os.getpid())}, Supervision()),
        ({"WATCHDOG_USEC": "30000000"}, Supervision(watchdog=30)),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, Supervision()),
        ({"WATCHDOG_USEC": "soon"}, Supervision()),
    ],
)
def test_what_a_service_manager_told_another_process_does_not_count(
    environ: dict[str, str], expected: Supervision
) -> None:
    assert supervision(environ) == expected
