"""The commands as a person runs them: what they print, and their exit codes."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from spool import __version__
from spool.model import Key
from spool.store import open_blobs, open_index
from tests.client.command import run
from tests.process import Server, curl, eventually
from tests.store.index_suite import a_file

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spool.model import File

ROOT = Path(__file__).parent.parent
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
ORPHAN = Key("00" + "a" * 30)
DAY = timedelta(days=1)


def environment(**variables: str) -> dict[str, str]:
    """As a shell has it, without settings of ours, and with Spool importable from every directory."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SPOOL_", "PYTHONUNBUFFERED"))}
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**kept, "PYTHONPATH": path, **variables}


def spool(
    *arguments: str | Path | bytes, cwd: Path | None = None, code: int = 0, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Runs the command, which must end with `code`: in this process, as to start one takes longer than what it does.

    A server has a process of its own, and must never end with a traceback.
    """
    if arguments[:1] != ("serve",):
        ended = run(*arguments, environment=environment(**variables), directory=cwd or Path.cwd())
        done = subprocess.CompletedProcess(arguments, ended.code, ended.out, ended.err)
    else:
        done = subprocess.run(
            [sys.executable, "-m", "spool", *arguments],
            cwd=cwd,
            env=environment(**variables),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode == code, done.stderr
    return done


def complaint(*arguments: str | Path | bytes, code: int, **variables: str) -> str:
    """The one line that says what is wrong."""
    done = spool(*arguments, code=code, **variables)
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    assert line.startswith("spool: ")
    return line


def misuse(*arguments: str | Path | bytes) -> str:
    """What is wrong with the command line; the usage stands before it."""
    done = spool(*arguments, code=2)
    usage, *_, line = done.stderr.splitlines()
    assert usage.startswith("usage: spool")
    return line


def fill(directory: Path, *files: File, orphans: tuple[Key, ...] = ()) -> None:
    """Makes a spool that holds these files and blobs."""

    async def run() -> None:
        async with aclosing(await open_blobs(directory)), aclosing(await open_index(directory)) as index:
            await index.finish(files)

    asyncio.run(run())
    for key in orphans:
        blob(directory, key).write_bytes(b"data")


def blob(directory: Path, key: Key) -> Path:
    return directory / "blobs" / key[:2] / key


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    """Three files, the last of them the newest."""
    kinds = (("song.mp3", "audio/mpeg"), ("Clip.mp4", "video/mp4"), ("other song.flac", "audio/flac"))
    files = [
        a_file(f"f{n}", filename=name, media_type=media_type, size=10**n, created_at=NOON + n * timedelta(hours=1))
        for n, (name, media_type) in enumerate(kinds)
    ]
    fill(tmp_path / "spool", *files)
    return tmp_path / "spool"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A live server whose first sweep is over; the next comes in ten minutes."""
    fill(tmp_path / "spool", orphans=(ORPHAN,))
    with Server(tmp_path / "spool") as running:
        eventually(lambda: bool(running.events("sweep.done")))
        yield running


def make_token(directory: Path, *arguments: str) -> str:
    return spool("token", "create", "--dir", directory, *arguments).stdout.strip()


def test_version_is_told() -> None:
    assert spool("--version").stdout == f"spool {__version__}\n"


def test_help_names_every_command() -> None:
    text = spool("--help").stdout
    assert [
        name
        for name in (
            "serve",
            "put",
            "get",
            "rm",
            "login",
            "ls",
            "gc",
            "fsck",
            "backup",
            "reindex",
            "token",
            "limit",
            "grant",
            "audit",
            "config",
        )
        if not re.search(rf"^ +{name} ", text, re.MULTILINE)
    ] == []


@pytest.mark.parametrize(
    "command", [["serve"], ["ls"], ["gc"], ["token"], ["token", "create"], ["limit", "set"], ["config"]]
)
def test_every_command_has_help(command: list[str]) -> None:
    assert spool(*command, "--help").stdout.startswith("usage: spool " + " ".join(command))


def test_help_needs_no_library() -> None:
    program = (
        "import sys; from spool.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\nprint(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment()
    )
    dear = {"aiohttp", "magic", "sqlite3", "aiofiles", "rich", "shtab", "spool.config", "spool.model"}
    assert dear & set(done.stdout.split()) == set()


def test_no_command_is_a_misuse() -> None:
    assert "COMMAND" in misuse()


@pytest.mark.parametrize("command", ["serv", "", "mv"])
def test_unknown_command_is_a_misuse(command: str) -> None:
    assert "invalid choice" in misuse(command)


def test_ls_shows_the_newest_first(filled: Path) -> None:
    assert spool("ls", "--dir", filled).stdout.splitlines() == [
        "2026-03-01T14:00:00Z             100  id-f2  audio/flac                other song.flac",
        "2026-03-01T13:00:00Z              10  id-f1  video/mp4                 Clip.mp4",
        "2026-03-01T12:00:00Z               1  id-f0  audio/mpeg                song.mp3",
    ]


@pytest.mark.parametrize(
    ("filters", "ids"),
    [
        (["--q", "SONG"], ["id-f2", "id-f0"]),
        (["--filename", "*.mp?"], ["id-f1", "id-f0"]),
        (["--filename", "clip*"], []),
        (["--media-type", "audio/*"], ["id-f2", "id-f0"]),
        (["--media-type", "audio/*", "--q", "other"], ["id-f2"]),
        (["--limit", "1"], ["id-f2"]),
        (["--limit", "1", "--media-type", "video/*"], ["id-f1"]),
        (["--limit", "99"], ["id-f2", "id-f1", "id-f0"]),
    ],
)
def test_ls_filters(filled: Path, filters: list[str], ids: list[str]) -> None:
    lines = spool("ls", "--dir", filled, "--json", *filters).stdout.splitlines()
    assert [json.loads(line)["id"] for line in lines] == ids


def test_ls_json_has_the_whole_record(tmp_path: Path) -> None:
    file = a_file("f", expires_at=NOON + 36525 * DAY, metadata={"tag": ["x", "y"]}, filename="Grüße.jpg")
    fill(tmp_path, file)
    assert json.loads(spool("ls", "--dir", tmp_path, "--json").stdout) == {
        "id": "id-f",
        "filename": "Grüße.jpg",
        "size": 100,
        "media_type": "image/jpeg",
        "declared_type": None,
        "sha256": "ab" * 32,
        "owner": "ada",
        "metadata": {"tag": ["x", "y"]},
        "damage": None,
        "grant": None,
        "created_at": file.created_at.isoformat(),
        "expires_at": file.expires_at.isoformat(),
    }


def test_ls_leaves_expired_files_out(tmp_path: Path) -> None:
    fill(tmp_path, a_file("gone", expires_at=NOON))
    assert spool("ls", "--dir", tmp_path).stdout == ""


def test_ls_lists_more_than_one_page(tmp_path: Path) -> None:
    fill(tmp_path, *(a_file(f"f{n}", created_at=NOON + timedelta(seconds=n)) for n in range(2100)))
    lines = spool("ls", "--dir", tmp_path).stdout.splitlines()
    assert [line.split()[2] for line in lines] == [f"id-f{n}" for n in reversed(range(2100))]


def test_ls_takes_the_directory_from_the_environment(filled: Path) -> None:
    assert len(spool("ls", SPOOL_STORAGE_DIR=str(filled)).stdout.splitlines()) == 3


def test_ls_takes_the_directory_from_a_file(filled: Path, tmp_path: Path) -> None:
    config = tmp_path / "spool.toml"
    config.write_text(f'[storage]\ndir = "{filled}"\n')
    assert len(spool("ls", "--config", config).stdout.splitlines()) == 3


def test_ls_works_beside_a_server(server: Server, tmp_path: Path) -> None:
    song = tmp_path / "song.txt"
    song.write_text("la la la")
    assert curl("-F", f"file=@{song}", f"{server.url}/files").status == 201
    assert [line.split()[-1] for line in spool("ls", "--dir", server.dir).stdout.splitlines()] == ["song.txt"]


@pytest.mark.parametrize(
    "command",
    [["ls"], ["gc"], ["backup", "to"], ["reindex"], ["token", "ls"], ["token", "revoke", "x"], ["limit", "ls"]],
)
def test_command_on_a_directory_without_a_spool_makes_none(tmp_path: Path, command: list[str]) -> None:
    line = complaint(*command, "--dir", tmp_path / "nowhere", code=2)
    assert str(tmp_path / "nowhere") in line
    assert "--dir" in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("limit", ["0", "-1", "many", "1.5", "", "\u0661"])
def test_limit_that_is_no_number_is_a_misuse(filled: Path, limit: str) -> None:
    assert "--limit" in misuse("ls", "--dir", filled, f"--limit={limit}")


@pytest.mark.parametrize("arguments", [["ls"], ["ls", "--json"], ["config"]])
def test_reader_that_has_read_enough_ends_the_command_quietly(tmp_path: Path, arguments: list[str]) -> None:
    fill(tmp_path, *(a_file(f"f{n}") for n in range(3000)))
    command = [sys.executable, "-m", "spool", *arguments, "--dir", str(tmp_path)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(), text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode in (0, 1)


def test_reader_that_is_gone_before_anything_was_written_ends_the_command_quietly(filled: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as gone:
        done = subprocess.run(
            [sys.executable, "-m", "spool", "ls", "--dir", filled],
            stdout=gone,
            stderr=subprocess.PIPE,
            env=environment(),
            check=False,
        )
    assert (done.returncode, done.stderr) == (1, b"")


def test_gc_without_a_server_takes_what_nothing_needs(tmp_path: Path) -> None:
    kept = a_file("kept", key=Key("00" + "b" * 30))
    fill(tmp_path, a_file("gone", key=Key("00" + "c" * 30), expires_at=NOON), kept, orphans=(ORPHAN, kept.key))
    assert spool("gc", "--dir", tmp_path).stdout == "1 expired files deleted, 1 blobs reclaimed\n"
    assert not blob(tmp_path, ORPHAN).exists()
    assert blob(tmp_path, kept.key).exists()
    assert [line.split()[2] for line in spool("ls", "--dir", tmp_path).stdout.splitlines()] == ["id-kept"]


def test_gc_with_nothing_to_do_says_so(filled: Path) -> None:
    assert spool("gc", "--dir", filled).stdout == "0 expired files deleted, 0 blobs reclaimed\n"


def test_gc_beside_a_server_leaves_a_day_to_it(server: Server) -> None:
    old = Key("00" + "b" * 30)
    for key, age in ((ORPHAN, 23), (old, 25)):
        blob(server.dir, key).write_bytes(b"data")
        os.utime(blob(server.dir, key), (time.time() - age * 3600,) * 2)
    assert spool("gc", "--dir", server.dir).stdout == "0 expired files deleted, 1 blobs reclaimed\n"
    assert server.blobs().keys() == {ORPHAN}


def test_gc_beside_a_server_takes_nothing_of_a_running_upload(server: Server) -> None:
    half = bytes(range(256)) * 2000
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as client:
        head = f"PUT /files/a.bin HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {2 * len(half)}\r\n\r\n"
        client.sendall(head.encode() + half)
        assert spool("gc", "--dir", server.dir).stdout.endswith("0 blobs reclaimed\n")
        client.sendall(half)
        assert client.recv(65536).startswith(b"HTTP/1.1 201 ")
    [record] = server.files()
    assert record["sha256"] == hashlib.sha256(half * 2).hexdigest()


def test_token_is_printed_once_and_only_its_hash_is_kept(tmp_path: Path) -> None:
    secret = make_token(tmp_path / "spool", "--name", "cam1", "--scope", "upload")
    assert re.fullmatch(r"spool_[\w-]{43}", secret)
    kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert secret.encode() not in kept
    assert secret.removeprefix("spool_").encode() not in kept
    assert hashlib.sha256(secret.encode()).hexdigest().encode() in kept


def test_token_create_makes_a_spool_that_only_its_owner_may_see(tmp_path: Path) -> None:
    make_token(tmp_path / "spool", "--name", "cam1", "--scope", "upload")
    paths = [tmp_path / "spool", *(tmp_path / "spool").rglob("*")]
    assert [path for path in paths if path.stat().st_mode & 0o077] == []


def test_token_create_says_when_it_makes_a_spool(tmp_path: Path) -> None:
    command = ["token", "create", "--name=ada", "--scope=admin"]
    first = spool(*command, cwd=tmp_path)
    assert first.stderr == f"spool: there was no spool in {tmp_path / 'spool-data'}: making one\n"
    assert first.stdout.startswith("spool_")
    assert spool(*command, cwd=tmp_path).stderr == ""


def test_token_ls_tells_what_has_expired(tmp_path: Path) -> None:
    make_token(tmp_path, "--name=cam1", "--scope=upload", "--expires=30d")
    make_token(tmp_path, "--name=cam2", "--scope=upload", "--expires=30d")
    with sqlite3.connect(tmp_path / "index.db") as index:
        index.execute("UPDATE tokens SET expires_at = created_at WHERE name = 'cam1'")
    index.close()
    lines = spool("token", "ls", "--dir", tmp_path).stdout.splitlines()
    assert sorted((line.split()[1], line.split()[4]) for line in lines) == [("cam1", "expired"), ("cam2", "expires")]


def test_token_ls_shows_all_but_the_secret(tmp_path: Path) -> None:
    secret = make_token(tmp_path, "--name", "cam1", "--scope", "upload", "--scope", "read", "--expires", "30d")
    make_token(tmp_path, "--name", "ops", "--scope", "admin")
    first, second = spool("token", "ls", "--dir", tmp_path).stdout.splitlines()
    assert secret not in first
    token_id, name, scopes, created, _, expires = first.split()
    assert re.fullmatch(r"[0-9a-f]{16}", token_id)
    assert (name, scopes) == ("cam1", "read,upload")
    assert datetime.fromisoformat(expires) - datetime.fromisoformat(created) == 30 * DAY
    assert second.split()[1:3] == ["ops", "admin"]
    assert second.endswith("expires never")


def test_revoked_token_is_gone(tmp_path: Path) -> None:
    for name in ("cam1", "cam2"):
        make_token(tmp_path, "--name", name, "--scope", "upload")
    token_id = spool("token", "ls", "--dir", tmp_path).stdout.split()[0]
    assert spool("token", "revoke", "--dir", tmp_path, token_id).stdout == ""
    assert [line.split()[1] for line in spool("token", "ls", "--dir", tmp_path).stdout.splitlines()] == ["cam2"]


def test_revoking_unknown_tokens_fails_and_revokes_the_others(tmp_path: Path) -> None:
    for name in ("cam1", "cam1"):
        make_token(tmp_path, "--name", name, "--scope", "upload")
    first, second = (line.split()[0] for line in spool("token", "ls", "--dir", tmp_path).stdout.splitlines())
    line = complaint("token", "revoke", "--dir", tmp_path, "cam1", first, f"{first}\n{second}", second, code=1)
    unknown = rf"'cam1', '{first}\n{second}'"
    assert line == f"spool: there is no token with the id {unknown}: `spool token ls` shows the id of each"
    assert spool("token", "ls", "--dir", tmp_path).stdout == ""


def test_directory_that_cannot_be_used_is_told_with_what_helps(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert complaint("serve", "--dir", tmp_path / "file", code=1) == f"spool: cannot use {tmp_path}/file: File exists"


def test_token_counts_at_once_for_a_server_that_runs(server: Server) -> None:
    secret = make_token(server.dir, "--name", "cam1", "--scope", "read")
    assert curl(f"{server.url}/files").status == 401
    bearer = ("-H", f"Authorization: Bearer {secret}")
    assert curl(*bearer, f"{server.url}/files").status == 200
    token_id = spool("token", "ls", "--dir", server.dir).stdout.split()[0]
    make_token(server.dir, "--name", "ops", "--scope", "admin")
    spool("token", "revoke", "--dir", server.dir, token_id)
    assert curl(*bearer, f"{server.url}/files").status == 401


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["--scope", "read"], "--name"),
        (["--name", "a"], "--scope"),
        (["--name", "a", "--scope", "write"], "'write'"),
        (["--name", "a", "--scope", "read", "--expires", "soon"], "'soon'"),
    ],
)
def test_token_that_is_not_described_is_a_misuse(tmp_path: Path, arguments: list[str], names: str) -> None:
    assert names in misuse("token", "create", "--dir", tmp_path / "spool", *arguments)
    assert not (tmp_path / "spool").exists()


LIMITS = ("--quota", "10 GiB", "--quota-files", "0", "--requests-per-minute", "600", "--uploads", "4")


@pytest.fixture
def known(tmp_path: Path) -> Path:
    """A spool that knows the principals ada, by a file, and cam1, by a token."""
    fill(tmp_path, a_file("f0", owner="ada"))
    spool("token", "create", "--dir", tmp_path, "--name", "cam1", "--scope", "upload")
    return tmp_path


def test_limit_ls_shows_what_is_set(known: Path) -> None:
    assert spool("limit", "ls", "--dir", known).stdout == ""
    assert spool("limit", "set", "cam1", *LIMITS, "--dir", known).stdout == ""
    spool("limit", "set", "ada", "--quota", "1500000000", "--dir", known)
    lines = [re.split(r"\s{2,}", line) for line in spool("limit", "ls", "--dir", known).stdout.splitlines()]
    usual = ["quota-files as configured", "requests-per-minute as configured", "uploads as configured"]
    assert lines == [
        ["ada", "quota 1500000000", *usual],
        ["cam1", "quota 10 GiB", "quota-files 0", "requests-per-minute 600", "uploads 4"],
    ]


def test_limit_set_keeps_what_it_does_not_name(known: Path) -> None:
    spool("limit", "set", "cam1", *LIMITS, "--dir", known)
    spool("limit", "set", "cam1", "--uploads", "5", "--dir", known)
    shown = spool("limit", "ls", "--dir", known).stdout
    assert "quota 10 GiB" in shown
    assert "uploads 5" in shown


def test_cleared_limit_is_gone(known: Path) -> None:
    spool("limit", "set", "cam1", "--uploads", "1", "--dir", known)
    spool("limit", "clear", "cam1", "--dir", known)
    assert spool("limit", "ls", "--dir", known).stdout == ""
    complaint("limit", "clear", "cam1", "--dir", known, code=1)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--quota", "much"],
        ["--quota", "-1"],
        ["--quota", "9999999999TiB"],
        ["--quota-files", "1.5"],
        ["--requests-per-minute", "ten"],
        ["--uploads", "1k"],
    ],
)
def test_limit_that_cannot_be_read_is_a_misuse(tmp_path: Path, arguments: list[str]) -> None:
    assert arguments[0] in misuse("limit", "set", "cam1", *arguments, "--dir", tmp_path)


def test_limit_set_without_a_limit_is_a_misuse(known: Path) -> None:
    assert "--quota-files" in complaint("limit", "set", "cam1", "--dir", known, code=2)


def test_limit_of_a_name_that_nobody_has_is_refused(known: Path) -> None:
    line = complaint("limit", "set", "cam2", "--uploads", "1", "--dir", known, code=1)
    assert line == "spool: no token, grant or file is of 'cam2': `spool token ls` shows the names"
    assert spool("limit", "ls", "--dir", known).stdout == ""
    spool("grant", "create", "--owner", "cam2", "--dir", known)
    for name in ("cam2", "local"):  # by a grant; and everybody until there is a token
        spool("limit", "set", name, "--uploads", "1", "--dir", known)


def test_limit_of_nobody_is_a_misuse(tmp_path: Path) -> None:
    misuse("limit", "set", " ", "--uploads", "1", "--dir", tmp_path)


def test_lifetime_without_a_unit_is_a_misuse_wherever_there_is_one(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    expires = ("--expires", "30")
    token = ("token", "create", "--dir", tmp_path, "--name", "a", "--scope", "read")
    grant = ("grant", "create", "--dir", tmp_path, "--owner", "a")
    for arguments in (
        (*token, *expires),
        (*grant, *expires),
        ("put", tmp_path / "a", *expires),
        ("link", "x", *expires),
    ):
        assert misuse(*arguments).endswith("argument --expires: '30' has no unit: 30s, 15m, 12h, 7d and 4w have one")
    assert "'30' is neither a duration" in misuse("audit", "--dir", tmp_path, "--since", "30")


@pytest.mark.parametrize("lifetime", ["9999999d", "999999999w", "0s"])
def test_lifetime_beyond_all_time_is_a_misuse(tmp_path: Path, lifetime: str) -> None:
    assert lifetime in misuse(
        "token", "create", "--dir", tmp_path, "--name", "a", "--scope", "read", "--expires", lifetime
    )


@pytest.mark.parametrize("arguments", [["ls", "--q"], ["token", "revoke"]])
def test_argument_that_is_no_utf8_is_a_misuse(filled: Path, arguments: list[str]) -> None:
    assert "UTF-8" in misuse(*arguments, b"\xff", "--dir", filled)


def test_config_shows_every_setting_with_where_it_is_from(tmp_path: Path) -> None:
    file = tmp_path / "spool.toml"
    file.write_text('[limits]\nmax_file_size = "1 GiB"\n')
    lines = spool("config", "--config", file, "--port", "9000", SPOOL_LOG_LEVEL="debug").stdout.splitlines()
    assert lines[0] == "[server]"
    assert 'host = "127.0.0.1"  # default' in lines
    assert "port = 9000  # --port" in lines
    assert f'max_file_size = "1 GiB"  # {file}' in lines
    assert 'level = "debug"  # SPOOL_LOG_LEVEL' in lines


def test_config_is_a_configuration_file(tmp_path: Path) -> None:
    shown = spool("config", "--host", "::1", "--dir", tmp_path / "elsewhere").stdout
    file = tmp_path / "spool.toml"
    file.write_text(shown)
    again = spool("config", "--config", file).stdout
    assert re.sub(r"  # .*", "", again) == re.sub(r"  # .*", "", shown)


def test_config_touches_no_directory(tmp_path: Path) -> None:
    spool("config", cwd=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", [["serve"], ["ls"], ["gc"], ["token", "ls"], ["config"]])
def test_wrong_configuration_is_named_in_one_line(tmp_path: Path, command: list[str]) -> None:
    file = tmp_path / "spool.toml"
    file.write_text("[server]\nprot = 1\n")
    line = complaint(*command, "--config", file, code=2)
    assert line == f"spool: {file}: unknown key server.prot; did you mean port?"


def test_wrong_variable_is_named_in_one_line() -> None:
    line = complaint("config", code=2, SPOOL_LIMITS_QUOTA="plenty")
    assert line.startswith("spool: SPOOL_LIMITS_QUOTA: limits.quota is 'plenty', but must be a size")


def test_port_that_is_none_is_named_in_one_line(tmp_path: Path) -> None:
    line = complaint("serve", "--dir", tmp_path, "--port", "70000", code=2)
    assert line == "spool: --port: server.port is '70000', but must be a port from 0 to 65535"


def test_port_and_unix_exclude_each_other() -> None:
    assert "not allowed with" in misuse("serve", "--port", "1", "--unix", "x")


def test_second_server_of_a_directory_fails(server: Server) -> None:
    line = complaint("serve", "--dir", server.dir, "--port", "0", code=1)
    assert "another spool serves" in line
    assert str(server.dir) in line


def test_port_in_use_fails(server: Server, tmp_path: Path) -> None:
    line = complaint("serve", "--dir", tmp_path / "other", "--port", str(server.port), code=1)
    assert f"cannot listen on 127.0.0.1:{server.port}" in line


def test_host_that_has_no_address_fails(tmp_path: Path) -> None:
    line = spool("serve", "--dir", tmp_path, "--host", "no such host", "--port", "0", code=1).stderr
    assert "cannot listen on no such host:0: " in line
    assert "nknown error" not in line


def test_directory_that_is_a_file_fails(tmp_path: Path) -> None:
    (tmp_path / "spool").touch()
    assert complaint("serve", "--dir", tmp_path / "spool", "--port", "0", code=1)


def test_index_of_a_newer_spool_fails(tmp_path: Path) -> None:
    fill(tmp_path)
    with sqlite3.connect(tmp_path / "index.db") as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    assert "newer Spool" in complaint("ls", "--dir", tmp_path, code=1)


def test_server_that_is_asked_to_stop_ends_well(server: Server) -> None:
    assert server.stop() == 0
    assert [event["event"] for event in map(json.loads, server.log().splitlines())][-2:] == [
        "server.draining",
        "server.stopped",
    ]


def test_server_on_a_unix_socket_answers(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with Server(tmp_path / "spool", "--unix", str(path)) as running:
        assert running.url == f"unix:{path}"
        assert curl("--unix-socket", str(path), "http://localhost/healthz").status == 200


def test_first_start_on_every_address_prints_an_admin_token(tmp_path: Path) -> None:
    with Server(tmp_path / "spool", "--host", "0.0.0.0") as running:
        eventually(lambda: "admin token" in running.log() or not running.running)
        match = re.search(r"^admin token, shown only now: (spool_\S+)$", running.log(), re.MULTILINE)
        assert match
        url = f"http://127.0.0.1:{running.port}/files"
        assert curl(url).status == 401
        assert curl("-H", f"Authorization: Bearer {match[1]}", url).status == 200
        running.restart()
        assert running.log().count("admin token") == 1


def test_audit_tells_who_did_what_in_the_order_it_happened(server: Server) -> None:
    """Last of all that changes this server: it is open no longer."""
    secret = make_token(server.dir, "--name", "cam1", "--scope", "upload", "--scope", "delete")
    bearer = f"Authorization: Bearer {secret}"
    put = curl("-H", bearer, "-H", "X-Request-ID: mine", "-T-", f"{server.url}/files/a.txt", stdin=b"hello")
    change = ("-X", "PATCH", "-H", "Content-Type: application/json", "-d", '{"filename": "b\\u001b.txt"}')
    curl("-H", bearer, *change, f"{server.url}/files/{put.json['id']}")
    kept = curl("-H", bearer, "-T-", f"{server.url}/files/kept.txt", stdin=b"hello").json["id"]
    curl("-H", bearer, "-H", "X-Request-ID: gone", "-X", "DELETE", f"{server.url}/files/{put.json['id']}")
    spool("limit", "set", "cam1", "--quota", "1GiB", "--dir", server.dir)
    events = [json.loads(line) for line in spool("audit", "--json", "--dir", server.dir).stdout.splitlines()]
    ours = [e for e in events if e["who"] == "cam1" or e["detail"].get("name") == "cam1" or e["subject"] == "cam1"]
    assert [(event["act"], event["via"]) for event in ours] == [
        ("token.created", "command"),
        ("file.changed", "http"),
        ("file.stored", "http"),
        ("file.deleted", "http"),
        ("limit.set", "command"),
    ]
    assert (ours[2]["subject"], ours[3]["subject"], ours[3]["request_id"]) == (kept, put.json["id"], "gone")
    assert [event["time"] for event in events] == sorted(event["time"] for event in events)
    assert secret not in json.dumps(events)
    text = spool("audit", "--dir", server.dir).stdout
    assert len(text.splitlines()) == len(events)
    assert "\x1b" not in text
    assert " file.deleted who=cam1 via=http" in text


def test_audit_begins_when_it_is_told_to(tmp_path: Path) -> None:
    make_token(tmp_path, "--name", "a", "--scope", "read")
    for since, lines in (("1h", 1), ("2020-01-01", 1), ("2099-01-01T00:00Z", 0), ("1000w", 1)):
        assert len(spool("audit", "--since", since, "--dir", tmp_path).stdout.splitlines()) == lines
    assert "neither a duration" in spool("audit", "--since", "yesterday", "--dir", tmp_path, code=2).stderr


def test_server_forgets_what_the_audit_log_need_not_keep(tmp_path: Path) -> None:
    make_token(tmp_path / "spool", "--name", "a", "--scope", "read")
    env = {"SPOOL_STORAGE_AUDIT_TTL": "1s", "SPOOL_STORAGE_SWEEP_INTERVAL": "1s"}
    with Server(tmp_path / "spool", env=env):
        eventually(lambda: spool("audit", "--dir", tmp_path / "spool").stdout == "")
