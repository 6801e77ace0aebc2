"""kill -9 at any moment: what was acknowledged is there and whole, and nothing else is but what may be."""

from __future__ import annotations

import hashlib
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from random import Random
from typing import TYPE_CHECKING

from tests.crash.book import WAYS, Book, check_bytes, listing, settle
from tests.crash.uploader import Uploader
from tests.process import EFFORT, Server, eventually

if TYPE_CHECKING:
    from pathlib import Path

    from tests.crash.book import Upload

KILLS = 50 * EFFORT
UPLOADERS = 8
LATEST = 0.3  # seconds after the uploads have begun
SMALL = 64 * 1024  # what is not staged


def upload_until_killed(server: Server, pool: ThreadPoolExecutor, turn: int) -> list[Upload]:
    """The uploads of one life of the server."""
    random = Random(turn)
    clients = [Uploader(server.port, f"{turn}-{number}", Random(f"{turn} {number}")) for number in range(UPLOADERS)]
    running = [pool.submit(client.run) for client in clients]
    time.sleep(random.uniform(0, LATEST))
    server.kill()
    for future in running:
        future.result(30)
    return [upload for client in clients for upload in client.uploads]


def kept(server: Server) -> tuple[list[str], list[str]]:
    """The SHA-256 of every file in the index, and of every one in a blob."""
    with closing(sqlite3.connect(f"{(server.dir / 'index.db').as_uri()}?mode=ro", uri=True)) as index:
        rows = index.execute("SELECT sha256, body FROM files").fetchall()
    return [digest for digest, body in rows if body is not None], [digest for digest, body in rows if body is None]


def test_kill_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    book = Book()
    uploads: list[Upload] = []
    with ThreadPoolExecutor(UPLOADERS) as pool:
        for turn in range(KILLS):
            with Server(tmp_path / "spool", env=WAYS[turn % 2]) as server:
                settle(server, book, uploads)
                uploads = upload_until_killed(server, pool, turn)
    with Server(tmp_path / "spool") as server:
        settle(server, book, uploads)
        listed = listing(server)
        check_bytes(server, list(book.kept.values()), listed)
        inline, blobs = kept(server)
        found = list(server.dir.glob("blobs/*/*"))
        assert sorted(hashlib.sha256(path.read_bytes()).hexdigest() for path in found) == sorted(set(blobs))
        sizes = [path.stat().st_size for path in found]
    ways = {
        "in the index": len(inline),
        "put": sum(size <= SMALL for size in sizes),
        "staged": sum(size > SMALL for size in sizes),
    }
    print(  # noqa: T201  # the numbers are worth reading
        f"\n{KILLS} kills, {book.acknowledged} uploads acknowledged, 0 lost, "
        f"{book.unknown} unknown of which {book.unknown_kept} were kept, {len(book.kept)} files: {ways}"
    )
    assert all(ways.values())
    assert book.acknowledged >= KILLS
    assert book.unknown > 0


def test_start_that_was_killed_can_be_tried_again(tmp_path: Path) -> None:
    server = Server(tmp_path / "spool")
    for delay in range(0, 600, 30):
        server.spawn()
        time.sleep(delay / 1000)
        server.kill()
    with server:
        assert server.files() == []
        eventually(lambda: server.blobs() == {})
