"""`spool backup` and `spool reindex` as an operator runs them, beside a server that takes and deletes files."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from contextlib import aclosing
from dataclasses import dataclass, field
from http.client import HTTPConnection
from random import Random
from typing import TYPE_CHECKING

import pytest

from spool.labels import to_label
from spool.model import File, Key
from spool.store import open_blobs, open_index
from tests.process import EFFORT, Server, curl, strace
from tests.store.blobstore_suite import put
from tests.store.index_suite import a_file
from tests.test_cli import blob, complaint, environment, spool

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KILLS = 2 * EFFORT
State = dict[str, str]
"""File ids to the SHA-256 of their bytes."""


def make_file(number: int, data: bytes) -> File:
    key = Key(f"{number % 256:02x}{number:030x}")
    return a_file(f"f{number}", key=key, size=len(data), sha256=hashlib.sha256(data).hexdigest())


async def add(directory: Path, *files: tuple[File, bytes]) -> None:
    async with aclosing(await open_blobs(directory)) as blobs, aclosing(await open_index(directory)) as index:
        for file, data in files:
            await put(blobs, file.key, data)
            await blobs.label(file.key, file.id, to_label(file).text)
        await index.finish([file for file, _ in files])


async def remove(directory: Path, file: File) -> None:
    async with aclosing(await open_blobs(directory)) as blobs, aclosing(await open_index(directory)) as index:
        await index.remove(file.id)
        await blobs.delete(file.key)


def fill(directory: Path, amount: int) -> list[File]:
    pairs = [(make_file(number, b"%d" % number), b"%d" % number) for number in range(amount)]
    asyncio.run(add(directory, *pairs))
    return [file for file, _ in pairs]


def state(directory: Path) -> State:
    """What a spool holds, every byte of which was read; its index finds nothing wrong with itself."""

    async def run() -> list[File]:
        async with aclosing(await open_index(directory)) as index:
            assert await index.check() == []
            return list(await index.by_key(None, 1_000_000))

    files = asyncio.run(run())
    for file in files:
        assert hashlib.sha256(blob(directory, file.key).read_bytes()).hexdigest() == file.sha256, file
    return {file.id: file.sha256 for file in files}


def names(directory: Path) -> set[str]:
    return {path.name for path in (*directory.glob("blobs/*/*"), *directory.glob("incoming/*"))}


def backup(source: Path, to: Path, *flags: str, code: int = 0) -> str:
    return spool("backup", to, "--dir", source, *flags, code=code).stdout


# load


@dataclass
class Book:
    """What clients know: ids to digests of what was acknowledged, and what somebody asked to delete."""

    acknowledged: State = field(default_factory=dict)
    doomed: set[str] = field(default_factory=set)


def load(server: Server, book: Book, number: int, stop: threading.Event) -> None:
    random, connection = Random(number), HTTPConnection("127.0.0.1", server.port, timeout=60)
    while not stop.is_set():
        data = random.randbytes(random.choice((1, 2, 5000, 300_000)))  # the short ones are often equal
        connection.request("PUT", f"/files/{number}.bin", data)
        response = connection.getresponse()
        record = json.loads(response.read())
        assert response.status == 201, record
        book.acknowledged[record["id"]] = hashlib.sha256(data).hexdigest()
        if random.random() < 0.4:
            victim = random.choice(list(book.acknowledged))
            book.doomed.add(victim)
            connection.request("DELETE", f"/files/{victim}")
            connection.getresponse().read()
    connection.close()


@pytest.mark.parametrize("flags", [(), ("--copy",)], ids=["link", "copy"])
def test_backup_of_a_busy_server_is_whole_and_can_be_served(tmp_path: Path, flags: tuple[str, ...]) -> None:
    to, book, stop = tmp_path / "copy", Book(), threading.Event()
    with Server(tmp_path / "spool") as server:
        threads = [threading.Thread(target=load, args=(server, book, number, stop)) for number in range(3)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(1 + EFFORT):
                before = dict(list(book.acknowledged.items()))
                print(backup(server.dir, to, *flags), end="")  # noqa: T201  # the numbers are worth reading
                doomed = set(book.doomed)
                copied = state(to)
                assert {name: sha for name, sha in before.items() if name not in doomed}.items() <= copied.items()
                assert names(to) == named(to)
        finally:
            stop.set()
            for thread in threads:
                thread.join(60)
        server.kill()
    assert copied.items() <= book.acknowledged.items()
    with Server(to) as server:
        files = server.files()
        assert {file["id"]: file["sha256"] for file in files} == copied
        for file in files[:20]:  # `state` has read them all
            body = curl(f"{server.url}/media/{file['id']}/x").body
            assert hashlib.sha256(body).hexdigest() == file["sha256"]
        assert curl("-T", __file__, f"{server.url}/files/more.py").status == 201
    print(f"{len(book.acknowledged)} files acknowledged, {len(book.doomed)} deleted, {len(copied)} in the last copy")  # noqa: T201  # the numbers are worth reading


def named(directory: Path) -> set[str]:
    async def run() -> set[str]:
        async with aclosing(await open_index(directory)) as index:
            return {file.key for file in await index.by_key(None, 1_000_000)}

    return asyncio.run(run())


# kills


def points() -> Iterator[tuple[str, int]]:
    yield from (("linkat", 1), ("linkat", 30), ("rename", 1), ("unlink", 1), ("unlink", 4), ("unlinkat", 1))
    if EFFORT > 1:
        for call in ("linkat", "fsync", "fdatasync", "unlink", "unlinkat", "pwrite64", "openat", "ftruncate"):
            yield from ((call, 1 + number * number) for number in range(EFFORT))


@pytest.mark.parametrize("flags", [(), ("--copy",)], ids=["link", "copy"])
def test_backup_that_is_killed_leaves_the_old_copy_or_the_new(tmp_path: Path, flags: tuple[str, ...]) -> None:
    source, to, random = tmp_path / "spool", tmp_path / "copy", Random(7)
    files, killed = fill(source, 200), 0
    now, held = state(source), None
    command = [sys.executable, "-m", "spool", "backup", str(to), "--dir", str(source), *flags]
    for call, when in [*points(), *[("", 0)] * KILLS]:
        prefix = strace(call, f"signal=SIGKILL:when={when}") if call else []
        with subprocess.Popen([*prefix, *command], env=environment(), stdout=subprocess.DEVNULL) as process:
            if not call:
                time.sleep(random.uniform(0.2, 0.9))  # it takes a while until it begins
                process.kill()
        killed += process.returncode != 0
        if held is not None or (to / "index.db").exists():
            there = state(to)
            assert there in (held, now), (call, when)
            held = there
        change(source, files)
        now = state(source)
    backup(source, to, *flags)
    assert state(to) == now
    assert names(to) == named(to)
    print(f"{killed} kills")  # noqa: T201  # the numbers are worth reading
    assert killed > KILLS // 2


def change(source: Path, files: list[File]) -> None:
    """Five files go, five come."""
    newest = int(files[-1].id.removeprefix("id-f"))
    for _ in range(5):
        asyncio.run(remove(source, files.pop(0)))
    pairs = [(make_file(n, b"%d" % n), b"%d" % n) for n in range(newest + 1, newest + 6)]
    asyncio.run(add(source, *pairs))
    files += [file for file, _ in pairs]


# copies


def test_incremental_backup_takes_what_is_new_and_drops_what_is_gone(tmp_path: Path) -> None:
    source, to = tmp_path / "spool", tmp_path / "copy"
    files = fill(source, 10)
    assert backup(source, to) == "10 files in 10 blobs of 10 bytes: 10 linked, 0 copied, 0 already there; 0 removed\n"
    change(source, files)
    assert backup(source, to) == "10 files in 10 blobs of 15 bytes: 5 linked, 0 copied, 5 already there; 5 removed\n"


def test_copy_holds_what_a_spool_holds_and_nothing_that_is_left_of_making_it(tmp_path: Path) -> None:
    source, copy = tmp_path / "spool", tmp_path / "copy"
    fill(source, 3)
    for _ in range(2):
        backup(source, copy)
        assert {path.name for path in copy.iterdir()} <= {"blobs", "incoming", "index.db", "index.db-reserve", "lock"}


def test_copy_has_bytes_labels_and_an_inode_of_its_own(tmp_path: Path) -> None:
    source, to = tmp_path / "spool", tmp_path / "copy"
    [file] = fill(source, 1)
    assert "0 linked, 1 copied" in backup(source, to, "--copy")
    ours, theirs = blob(source, file.key), blob(to, file.key)
    assert ours.stat().st_ino != theirs.stat().st_ino
    assert theirs.stat().st_mode & 0o077 == 0
    assert os.getxattr(theirs, f"user.spool.{file.id}") == to_label(file).text


def test_blob_of_the_wrong_size_in_the_copy_is_replaced(tmp_path: Path) -> None:
    source, to = tmp_path / "spool", tmp_path / "copy"
    [file] = fill(source, 1)
    backup(source, to, "--copy")
    blob(to, file.key).write_bytes(b"too long")
    assert "0 linked, 1 copied" in backup(source, to, "--copy")
    assert state(to) == state(source)


def test_blob_that_is_lost_keeps_its_record_and_fails_the_backup(tmp_path: Path) -> None:
    source, to = tmp_path / "spool", tmp_path / "copy"
    file, _ = fill(source, 2)
    blob(source, file.key).unlink()
    done = spool("backup", to, "--dir", source, code=1)
    assert "1 files of" in done.stderr
    assert done.stdout.startswith("2 files in 1 blobs")
    assert len(spool("ls", "--dir", to).stdout.splitlines()) == 2


def test_log_that_a_crash_left_beside_the_copy_is_not_taken_for_that_of_the_new_index(tmp_path: Path) -> None:
    source, to = tmp_path / "spool", tmp_path / "copy"
    files = fill(source, 300)
    backup(source, to)
    with Server(to) as server:
        assert curl("-T", __file__, f"{server.url}/files/more.py").status == 201
        server.kill()
    assert (to / "index.db-wal").stat().st_size > 0
    change(source, files)
    backup(source, to)
    assert state(to) == state(source)


def test_backup_in_the_middle_of_a_commit_does_not_hinder_it(tmp_path: Path) -> None:
    """A power cut may bring back the staged name of a blob that is live; the copy is then its third name."""
    source, to = tmp_path / "spool", tmp_path / "copy"
    with Server(source) as server:
        head = ("-X", "POST", "-H", "Tus-Resumable: 1.0.0", "-H", "Upload-Length: 4")
        location = curl(*head, f"{server.url}/tus").headers["location"]
        path = location[location.index("/tus/") :]
        step = ("-X", "PATCH", "-H", "Tus-Resumable: 1.0.0", "-H", "Upload-Offset: 0", "--data-binary", "data")
        kind = ("-H", "Content-Type: application/offset+octet-stream")
        assert curl(*step, *kind, server.url + path).status == 204
        [record] = server.files()
        [key] = names(source)
        server.kill()
        os.link(blob(source, Key(key)), source / "incoming" / key)
        backup(source, to)
        assert blob(to, Key(key)).stat().st_nlink == 3
        server.start()
        assert curl(f"{server.url}/media/{record['id']}/x").body == b"data"
        assert curl("-I", "-H", "Tus-Resumable: 1.0.0", server.url + path).headers["upload-offset"] == "4"
        assert curl("-X", "DELETE", f"{server.url}/files/{record['id']}").status == 204
    assert names(source) == set()
    assert state(to).keys() == {record["id"]}


# refusals


def test_places_that_are_no_place_for_a_backup_are_refused(tmp_path: Path) -> None:
    source, other, lost = tmp_path / "spool", tmp_path / "other", tmp_path / "lost"
    fill(source, 1)
    fill(other, 1)
    fill(lost, 1)
    (lost / "index.db").unlink()
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").touch()
    told = {
        to: complaint("backup", to, "--dir", source, code=2)
        for to in (source, source / "copy", tmp_path, other, lost, tmp_path / "photos")
    }
    assert [line for to, line in told.items() if str(to) not in line] == []
    assert state(other) == state(source)
    assert names(lost) == names(source)


def test_copy_that_is_served_is_refused(tmp_path: Path) -> None:
    fill(tmp_path / "spool", 1)
    backup(tmp_path / "spool", tmp_path / "copy")
    with Server(tmp_path / "copy"):
        assert "in use" in complaint("backup", tmp_path / "copy", "--dir", tmp_path / "spool", code=1)


def test_server_does_not_start_on_blobs_without_an_index(tmp_path: Path) -> None:
    """It would make an empty index, and its first sweep would take every blob."""
    fill(tmp_path / "spool", 3)
    (tmp_path / "spool" / "index.db").unlink()
    for _ in range(2):
        assert "spool reindex" in complaint("serve", "--dir", tmp_path / "spool", "--port", "0", code=1)
    assert len(names(tmp_path / "spool")) == 3
    (tmp_path / "spool" / "index.db").touch()
    assert "spool reindex" in complaint("serve", "--dir", tmp_path / "spool", "--port", "0", code=1)


# reindex


def test_reindex_brings_back_a_lost_index(tmp_path: Path) -> None:
    source = tmp_path / "spool"
    fill(source, 20)
    before = spool("ls", "--json", "--dir", source).stdout
    (source / "index.db").unlink()
    done = spool("reindex", "--dir", source)
    assert done.stdout == "20 files from 20 blobs, 0 of them without a usable label; 0 findings\n"
    assert spool("ls", "--json", "--dir", source).stdout == before
    with Server(source) as server:
        assert len(server.files()) == 20


def test_reindex_keeps_the_old_index_aside(tmp_path: Path) -> None:
    source = tmp_path / "spool"
    fill(source, 2)
    assert "--force" in complaint("reindex", "--dir", source, code=1)
    old = (source / "index.db").read_bytes()
    assert "the old index is" in spool("reindex", "--force", "--dir", source).stdout
    [aside] = source.glob("index.db.lost-*")
    assert aside.read_bytes() == old


def test_reindex_replaces_an_index_that_cannot_be_read(tmp_path: Path) -> None:
    source = tmp_path / "spool"
    fill(source, 2)
    (source / "index.db").write_bytes(b"garbage" * 1000)
    spool("reindex", "--dir", source)
    assert len(state(source)) == 2
    [aside] = source.glob("index.db.lost-*")
    assert aside.read_bytes() == b"garbage" * 1000


def test_reindex_beside_a_server_is_refused(tmp_path: Path) -> None:
    with Server(tmp_path / "spool"):
        assert "in use" in complaint("reindex", "--force", "--dir", tmp_path / "spool", code=1)


def test_reindex_where_there_is_no_spool_makes_none(tmp_path: Path) -> None:
    assert "--dir" in complaint("reindex", "--dir", tmp_path / "nowhere", code=2)
    assert list(tmp_path.iterdir()) == []
