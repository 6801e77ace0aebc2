"""The configuration tree, and the only reader of TOML and of the environment.

Precedence: command-line flag, environment variable (`SPOOL_` + section + `_` + key, in upper case), the TOML file, the
default given here. `doc/config.md` and `config.example.toml` have an entry for every key.
"""

from __future__ import annotations

import os
import re
import tomllib
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from spool.units import (
    COUNT,
    DURATION,
    GRACE,
    INTERVAL,
    LIFETIME,
    LIMIT,
    LIST,
    NETWORKS,
    PATH,
    PORT,
    SIZE,
    SWITCH,
    TEXT,
    URL,
    WORKERS,
    Kind,
    choice,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import timedelta

    from spool.units import Network


class ConfigError(Exception):
    """One line that names the key that is wrong, and the mend."""


def _key(kind: Kind, default: object) -> Any:  # noqa: ANN401  # dataclasses.field is untyped in the same way
    return field(default=kind.parse(default), metadata={"kind": kind})


@dataclass(frozen=True, slots=True)
class Server:
    """Where the server listens, and how the world sees it."""

    host: str = _key(TEXT, "127.0.0.1")
    port: int = _key(PORT, 8080)
    unix: str = _key(TEXT, "")
    workers: int = _key(WORKERS, 1)
    tls_cert: str = _key(TEXT, "")
    tls_key: str = _key(TEXT, "")
    base_url: str = _key(URL, "")
    media_base_url: str = _key(URL, "")
    accel: str = _key(choice("", "x-accel-redirect"), "")
    accel_location: str = _key(TEXT, "/spool-blobs/")
    trusted_proxies: tuple[Network, ...] = _key(NETWORKS, [])
    cors_origins: tuple[str, ...] = _key(LIST, [])
    interim_responses: bool = _key(SWITCH, "true")
    metrics: str = _key(choice("token", "public"), "token")
    shutdown_grace: timedelta = _key(DURATION, "30s")


@dataclass(frozen=True, slots=True)
class Storage:
    """Where everything is kept."""

    dir: Path = _key(PATH, "spool-data")
    dedupe: bool = _key(SWITCH, "true")
    inline_max: int = _key(SIZE, 0)
    sweep_interval: timedelta = _key(DURATION, "10m")
    undo_grace: timedelta = _key(GRACE, "10m")
    scrub_interval: timedelta = _key(INTERVAL, "30d")
    audit_ttl: timedelta = _key(LIFETIME, "365d")


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a client may ask for."""

    max_file_size: int = _key(SIZE, "16 GiB")
    max_files: int = _key(COUNT, 100)
    max_fields: int = _key(COUNT, 100)
    max_fields_size: int = _key(SIZE, "256 KiB")
    max_part_headers: int = _key(COUNT, 16)
    max_part_headers_size: int = _key(SIZE, "8 KiB")
    min_free_space: int = _key(SIZE, "256 MiB")
    quota: int = _key(SIZE, 0)
    quota_files: int = _key(LIMIT, 0)
    requests_per_minute: int = _key(LIMIT, 0)
    upload_ttl: timedelta = _key(DURATION, "24h")
    max_uploads: int = _key(COUNT, 256)
    uploads_per_principal: int = _key(LIMIT, 0)
    max_connections: int = _key(COUNT, 4096)
    head_timeout: timedelta = _key(DURATION, "15s")
    idle_timeout: timedelta = _key(DURATION, "30s")
    min_rate: int = _key(SIZE, "1 KiB")
    min_rate_window: timedelta = _key(DURATION, "60s")


@dataclass(frozen=True, slots=True)
class Policy:
    """What is taken in, and how long it stays."""

    allow_types: tuple[str, ...] = _key(LIST, [])
    deny_types: tuple[str, ...] = _key(LIST, [])
    expire_after: timedelta = _key(LIFETIME, 0)


@dataclass(frozen=True, slots=True)
class Log:
    """What is logged, and how."""

    format: str = _key(choice("text", "json"), "text")
    level: str = _key(choice("debug", "info", "warning", "error"), "info")
    access: bool = _key(SWITCH, "true")


@dataclass(frozen=True, slots=True)
class Config:
    """All of it."""

    server: Server = field(default_factory=Server)
    storage: Storage = field(default_factory=Storage)
    limits: Limits = field(default_factory=Limits)
    policy: Policy = field(default_factory=Policy)
    log: Log = field(default_factory=Log)


class Setting(NamedTuple):
    """One key of the effective configuration."""

    section: str
    key: str
    value: str
    """As it would stand in TOML."""
    origin: str
    """Where it came from: a flag, a variable, a file, or "default"."""


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """What the commands that talk to a server go by."""

    url: str
    """The server's address, or that of a grant; empty if none is named."""
    token: str | None
    passphrase: str | None
    """Of the grant."""
    state: Path
    """Where unfinished uploads are remembered."""


class Supervision(NamedTuple):
    """What a service manager such as systemd has told the process that it started."""

    notify_socket: str = ""
    """Where it wants to be told how the service is; "" if nowhere."""
    sockets: int = 0
    """Listening sockets that it has handed over."""
    watchdog: float = 0
    """Seconds within which it wants to hear that the service is not stuck; 0 if never."""


def supervision(environ: Mapping[str, str] = os.environ) -> Supervision:
    """What this very process was told; what another one was told, and left in the environment, does not count."""
    own = str(os.getpid())
    sockets = environ.get("LISTEN_FDS", "") if environ.get("LISTEN_PID") == own else ""
    watchdog = environ.get("WATCHDOG_USEC", "") if environ.get("WATCHDOG_PID", own) == own else ""
    return Supervision(environ.get("NOTIFY_SOCKET", ""), _to_number(sockets), _to_number(watchdog) / 1_000_000)


def _to_number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() else 0


class _Given(NamedTuple):
    section: str
    key: str
    value: object
    origin: str


def load(
    path: Path | None, flags: Mapping[str, object], environ: Mapping[str, str] = os.environ
) -> tuple[Config, tuple[Setting, ...]]:
    """The effective configuration, and each key's value with where it came from.

    `flags` maps "section.key" to a value; one that is None was not given. Raises ConfigError.
    """
    config = Config()
    origins: dict[tuple[str, str], str] = {}
    for given in (*_from_file(path), *_from_environment(environ), *_from_flags(flags)):
        section = getattr(config, given.section)
        value = _parse(given, _kind(section, given.key))
        config = replace(config, **{given.section: replace(section, **{given.key: value})})
        origins[given.section, given.key] = given.origin
    _require_agreement(config.server)
    return config, tuple(_settings(config, origins))


def _require_agreement(server: Server) -> None:
    """Raises ConfigError for settings that cannot stand together."""
    if bool(server.tls_cert) != bool(server.tls_key):
        given, missing = ("tls_cert", "tls_key") if server.tls_cert else ("tls_key", "tls_cert")
        raise ConfigError(f"server.{given} is set without server.{missing}: TLS needs both")
    if server.tls_cert and server.unix:
        raise ConfigError("server.tls_cert cannot be used with server.unix: there is no TLS on a unix socket")


def _from_file(path: Path | None) -> Iterator[_Given]:
    if path is None:
        return
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {getattr(error, 'strerror', error)}") from error
    for section, keys in document.items():
        known = _keys(section, f"{path}: [{section}]")
        if not isinstance(keys, dict):
            raise ConfigError(f"{path}: {section} is a section: write [{section}] and its keys below")
        for key, value in keys.items():
            if key not in known:
                raise ConfigError(f"{path}: unknown key {section}.{key}{_nearest(key, known)}")
            yield _Given(section, key, value, str(path))


def _from_environment(environ: Mapping[str, str]) -> Iterator[_Given]:
    known = {
        f"SPOOL_{section.name}_{key}".upper(): (section.name, key)
        for section in fields(Config)
        for key in _keys(section.name, "")
    }
    sections = tuple(f"SPOOL_{section.name.upper()}_" for section in fields(Config))
    for name, value in environ.items():
        if name in known:
            yield _Given(*known[name], value, name)
        elif name.startswith(sections) or _looks_misspelt(name, known):
            raise ConfigError(f"unknown environment variable {name}{_nearest(name, known)}")


def _looks_misspelt(name: str, known: Mapping[str, object]) -> bool:
    """Kubernetes sets SPOOL_PORT, SPOOL_SERVICE_HOST and the like for a service that is called spool."""
    if re.fullmatch(r"SPOOL_(SERVICE|PORT)(_.*)?", name):
        return False
    return name.startswith("SPOOL_") and bool(get_close_matches(name, known, 1, 0.9))


def _from_flags(flags: Mapping[str, object]) -> Iterator[_Given]:
    for name, value in flags.items():
        if value is not None:
            section, key = name.split(".")
            yield _Given(section, key, value, f"--{key}")


def _parse(given: _Given, kind: Kind) -> object:
    try:
        return kind.parse(given.value)
    except (ValueError, TypeError) as error:
        name = f"{given.section}.{given.key}"
        raise ConfigError(f"{given.origin}: {name} is {given.value!r}, but must be {kind.description}") from error


def _keys(section: str, where: str) -> dict[str, Kind]:
    """The keys of a section. Raises ConfigError if there is no such section."""
    sections = {f.name: f.default_factory for f in fields(Config)}
    if section not in sections:
        raise ConfigError(f"{where} is no section{_nearest(section, sections)}")
    return {f.name: f.metadata["kind"] for f in fields(sections[section])}  # type: ignore[arg-type]  # a class each


def _kind(section: object, key: str) -> Kind:
    kind: Kind = next(f.metadata["kind"] for f in fields(section) if f.name == key)  # type: ignore[arg-type]
    return kind


def _nearest(word: str, known: Mapping[str, object]) -> str:
    matches = get_close_matches(word, known, 1, 0.5)
    return f"; did you mean {matches[0]}?" if matches else f"; known are {', '.join(known)}"


def _settings(config: Config, origins: Mapping[tuple[str, str], str]) -> Iterator[Setting]:
    for section in fields(config):
        values = getattr(config, section.name)
        for f in fields(values):
            kind: Kind = f.metadata["kind"]
            origin = origins.get((section.name, f.name), "default")
            yield Setting(section.name, f.name, kind.show(getattr(values, f.name)), origin)


def client_settings(to: str | None, environ: Mapping[str, str] = os.environ) -> ClientSettings:
    """The server that a command is to talk to: `to`, SPOOL_URL or that of the login, and the token for it.

    The token is SPOOL_TOKEN, or that of the login if the server is the login's; the pass phrase is SPOOL_PASSPHRASE.
    Raises ConfigError.
    """
    path = _login_path(environ)
    login = _read_login(path) if path.exists() else {}
    named = ((to, "--to"), (environ.get("SPOOL_URL"), "SPOOL_URL"), (login.get("url"), str(path)))
    url, origin = next(((url, origin) for url, origin in named if url), ("", ""))
    try:
        url = URL.parse(url)
    except ValueError as error:
        raise ConfigError(f"{origin}: the server is {url!r}, but must be {URL.description}") from error
    token = environ.get("SPOOL_TOKEN") or (login.get("token") if url == login.get("url") else None)
    if token and not re.fullmatch("[!-~]+", token):
        raise ConfigError("the token holds characters that no token has")
    state = _xdg(environ, "XDG_STATE_HOME", ".local/state") / "uploads"
    return ClientSettings(url, token or None, environ.get("SPOOL_PASSPHRASE") or None, state)


def traced(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether spans are to be sent, by the variables that OpenTelemetry names for it. Raises ConfigError.

    Its SDK reads what else there is: where to send them and how, how many, and of whom.
    """
    endpoint = environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    exporter = environ.get("OTEL_TRACES_EXPORTER") or ("otlp" if endpoint else "none")
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or exporter == "none":
        return False
    if exporter != "otlp":
        raise ConfigError(f"OTEL_TRACES_EXPORTER is {exporter!r}, but must be otlp or none")
    name = "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"
    name = name if environ.get(name) else "OTEL_EXPORTER_OTLP_PROTOCOL"
    if (protocol := environ.get(name) or "http/protobuf") != "http/protobuf":
        raise ConfigError(f"{name} is {protocol!r}, but only http/protobuf is spoken here")
    return True


def names_directory(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether the environment names the directory of a spool, as --dir does."""
    return bool(environ.get("SPOOL_STORAGE_DIR"))


def save_login(url: str, token: str, environ: Mapping[str, str] = os.environ) -> Path:
    """The file, readable by its owner only, that names this server and token from now on. Raises OSError."""
    path = _login_path(environ)
    path.parent.mkdir(0o700, parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.unlink(missing_ok=True)
    new.touch(0o600, exist_ok=False)
    new.write_text(f"url = {TEXT.show(url)}\ntoken = {TEXT.show(token)}\n", "utf-8")
    return new.replace(path)


def _login_path(environ: Mapping[str, str]) -> Path:
    return _xdg(environ, "XDG_CONFIG_HOME", ".config") / "client.toml"


def _xdg(environ: Mapping[str, str], variable: str, default: str) -> Path:
    """Spool's directory among those of the XDG specification, to which a relative path counts as none."""
    home = environ.get(variable, "")
    return (Path(home) if home.startswith("/") else Path.home() / default) / "spool"


def _read_login(path: Path) -> dict[str, str]:
    try:
        return {name: TEXT.parse(value) for name, value in tomllib.loads(path.read_text("utf-8")).items()}
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"cannot read {path}: {getattr(error, 'strerror', error)}; run `spool login` again"
        ) from error
