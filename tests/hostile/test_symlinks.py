"""Links that somebody has planted in the spool's directory: nothing outside it is read, written or deleted.

Only the user of Spool can write there, so this is for whoever runs a command as root on a directory that is not root's.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.process import START_TIMEOUT, Server, curl, lacking

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CANARY = b"nobody but its owner may read, write or delete this"
PLACES = ("lock", "blobs", "incoming", "blobs/00", "index.db", "index.db-wal", "index.db-shm", "index.db-reserve")
COMMANDS = (("gc",), ("fsck", "--deep", "--repair"), ("ls",), ("token", "create", "--name=a", "--scope=read"))


class Done(NamedTuple):
    """What a command did."""

    code: int
    out: str
    err: str


Spool = Callable[..., Done]

COMMANDS_IN_TURN = """
import contextlib, io, json, sys
from spool import cli
for line in sys.stdin:
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        code = cli.main(json.loads(line))
    print(json.dumps([code, out.getvalue(), err.getvalue()]), flush=True)
"""
"""A process for all commands, which is quicker than one for each."""


@pytest.fixture(scope="module")
def spool() -> Iterator[Spool]:
    command = [sys.executable, "-c", COMMANDS_IN_TURN]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        say, hear = process.stdin, process.stdout

        def run(*arguments: str | Path) -> Done:
            say.write(json.dumps([str(argument) for argument in arguments]) + "\n")
            say.flush()
            return Done(*json.loads(hear.readline()))

        yield run
        say.close()


def seen(root: Path) -> dict[str, Any]:
    """All that there is at and below `root`, with its bytes, times, mode, number of names and attributes."""
    found: dict[str, Any] = {}
    for path in (root, *sorted(root.rglob("*"))):
        status = path.lstat()
        found[str(path.relative_to(root))] = (
            path.read_bytes() if path.is_file() else sorted(entry.name for entry in path.iterdir()),
            (status.st_mtime_ns, status.st_ctime_ns, status.st_mode, status.st_nlink),
            {name: os.getxattr(path, name) for name in os.listxattr(path)},
        )
    return found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A spool with a file and half an upload, that no server runs on."""
    directory = tmp_path_factory.mktemp("made") / "spool"
    with Server(directory) as server:
        server.put("a", CANARY)
        started = curl("-X", "POST", "-H", "Upload-Complete: ?0", "--data-binary", "half", server.url + "/files")
        assert started.status == 201
        server.stop()
    return directory


@pytest.fixture
def home(made: Path, tmp_path: Path) -> Path:
    """A copy of that spool, as good as the original."""
    shutil.copytree(made, tmp_path / "spool")
    return tmp_path / "spool"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    directory = tmp_path / "outside"
    directory.mkdir()
    (directory / "canary").write_bytes(CANARY)
    return directory


def plant(home: Path, outside: Path, place: str) -> None:
    """What is at `place` lies outside, and a link leads there."""
    target = outside / "moved"
    if (home / place).exists():
        shutil.move(home / place, target)
    else:
        target.write_bytes(CANARY)
    (home / place).symlink_to(target)


def blob(home: Path) -> Path:
    (found,) = home.glob("blobs/*/*")
    return found


@pytest.mark.parametrize("place", PLACES)
def test_link_in_the_place_of_an_own_name_leads_no_command_outside(
    spool: Spool, home: Path, outside: Path, place: str
) -> None:
    plant(home, outside, place)
    before = seen(outside)
    for command in COMMANDS:
        spool(*command, "--dir", home)
    spool("backup", home.with_name("copy"), "--dir", home)
    spool("reindex", "--force", "--dir", home)
    assert seen(outside) == before


@pytest.mark.parametrize("place", [place for place in PLACES if place != "index.db-reserve"])
def test_link_in_the_place_of_an_own_name_keeps_the_server_from_starting(home: Path, outside: Path, place: str) -> None:
    plant(home, outside, place)
    before = seen(outside)
    server = Server(home).spawn()
    try:
        assert server.wait(START_TIMEOUT) == 1
    finally:
        if server.running:
            server.kill()
    assert "Traceback" not in server.log()
    assert seen(outside) == before


@pytest.mark.parametrize("place", PLACES)
def test_link_to_nothing_makes_nothing_outside(spool: Spool, home: Path, outside: Path, place: str) -> None:
    plant(home, outside, place)
    moved = outside / "moved"
    shutil.rmtree(moved) if moved.is_dir() else moved.unlink()
    before = seen(outside)
    for command in COMMANDS:
        spool(*command, "--dir", home)
    assert seen(outside) == before


def test_blob_that_is_a_link_is_damaged_and_never_read(spool: Spool, home: Path, outside: Path) -> None:
    key = blob(home)
    key.unlink()
    key.symlink_to(outside / "canary")
    before = seen(outside)
    done = spool("fsck", "--deep", "--repair", "--dir", home)
    assert done.code == 3
    assert "missing" in done.out
    spool("gc", "--dir", home)
    assert spool("reindex", "--force", "--deep", "--dir", home).code == 0
    assert seen(outside) == before


@pytest.mark.parametrize("flags", [(), ("--copy",)])
def test_backup_takes_no_link_for_a_blob(spool: Spool, home: Path, outside: Path, flags: tuple[str, ...]) -> None:
    key, copy = blob(home), home.with_name("copy")
    key.unlink()
    way = os.path.relpath(outside / "canary", key.parent)
    key.symlink_to(way.replace("../", ".." + "/" * (1 + len(CANARY) - len(way)), 1))
    assert (key.lstat().st_size, key.read_bytes()) == (len(CANARY), CANARY)
    before = seen(outside)
    done = spool("backup", copy, *flags, "--dir", home)
    assert (done.code, "1 files" in done.err) == (1, True), done
    assert [path for path in copy.rglob("*") if path.is_symlink()] == []
    assert seen(outside) == before


def test_link_in_the_place_of_a_backup_s_blob_is_replaced(spool: Spool, home: Path, outside: Path) -> None:
    copy = home.with_name("copy")
    assert spool("backup", copy, "--copy", "--dir", home).code == 0
    kept = blob(copy)
    kept.unlink()
    kept.symlink_to(outside / "canary")
    before = seen(outside)
    assert spool("backup", copy, "--copy", "--dir", home).code == 0
    assert (kept.is_symlink(), kept.read_bytes()) == (False, CANARY)
    assert seen(outside) == before


@pytest.mark.parametrize("place", ["index.db.backup", "index.db", "blobs", "incoming", "lock"])
def test_link_in_a_backup_leads_nowhere(spool: Spool, home: Path, outside: Path, place: str) -> None:
    copy = home.with_name("copy")
    copy.mkdir()
    plant(copy, outside, place)
    before = seen(outside)
    done = spool("backup", copy, "--dir", home)
    assert done.code != 0
    assert seen(outside) == before


def test_link_in_the_place_of_a_new_index_leads_nowhere(spool: Spool, home: Path, outside: Path) -> None:
    plant(home, outside, "index.db.rebuilt")
    before = seen(outside)
    assert spool("reindex", "--force", "--dir", home).code == 1
    assert seen(outside) == before


class TestServing:
    """Links that appear under a running server."""

    @pytest.fixture
    def server(self, home: Path) -> Iterator[Server]:
        with Server(home) as server:
            yield server

    def test_blob_that_became_a_link_is_neither_sent_nor_labelled(self, server: Server, outside: Path) -> None:
        if "user.spool" not in str(os.listxattr(blob(server.dir))):
            lacking("the file system keeps no attributes")
        key = blob(server.dir)
        key.unlink()
        key.symlink_to(outside / "canary")
        before = seen(outside)
        (record,) = server.files()
        answer = curl(f"{server.url}/media/{record['id']}/x")
        assert (answer.status >= 400, CANARY in answer.body) == (True, False)
        change = ("-X", "PATCH", "-H", "Content-Type: application/json", "-d", '{"filename": "other"}')
        assert curl(*change, f"{server.url}/files/{record['id']}").status == 200
        assert curl("-X", "DELETE", f"{server.url}/files/{record['id']}").status == 204
        assert not key.is_symlink()
        assert seen(outside) == before

    @pytest.mark.parametrize("method", ["PATCH", "DELETE"])
    def test_staged_bytes_that_became_a_link_are_let_alone(self, server: Server, outside: Path, method: str) -> None:
        url = curl("-X", "POST", "-H", "Upload-Complete: ?0", "--data-binary", "half", server.url + "/files").headers
        (staged,) = [path for path in server.dir.glob("incoming/*") if path.stat().st_mtime_ns == newest(server.dir)]
        staged.unlink()
        staged.symlink_to(outside / "canary")
        before = seen(outside)
        type_ = "Content-Type: application/partial-upload"
        more = ("-H", type_, "-H", "Upload-Offset: 4", "-H", "Upload-Complete: ?1", "--data-binary", "more")
        answer = curl("-X", method, *(more if method == "PATCH" else ()), url["location"])
        assert answer.status == (503 if method == "PATCH" else 204), answer
        assert seen(outside) == before

    def test_directory_that_became_a_link_is_not_entered(self, server: Server, outside: Path) -> None:
        (record,) = server.files()
        key = blob(server.dir)
        (outside / key.name).write_bytes(CANARY)
        for name in (key.parent, server.dir / "incoming"):
            shutil.move(name, name.with_name(name.name + ".moved"))
            name.symlink_to(outside)
        before = seen(outside)
        assert curl("-X", "DELETE", f"{server.url}/files/{record['id']}").status == 204
        curl("-X", "POST", "-H", "Upload-Complete: ?0", "--data-binary", "half", server.url + "/files")
        assert server.put("b", b"more")["sha256"] == hashlib.sha256(b"more").hexdigest()
        assert seen(outside) == before


def newest(home: Path) -> int:
    return max(path.stat().st_mtime_ns for path in home.glob("incoming/*"))
