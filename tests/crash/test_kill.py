"""kill -9 at any moment: what was acknowledged is there and whole, and nothing else is but what may be."""

from __future__ import annotations

import hashlib
import time
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import TYPE_CHECKING

from tests.crash.book import Book, check_bytes, listing, settle
from tests.crash.uploader import Uploader
from tests.process import EFFORT, Server, eventually

if TYPE_CHECKING:
    from pathlib import Path

    from tests.crash.book import Upload

KILLS = 50 * EFFORT
UPLOADERS = 8
LATEST = 0.3  # seconds after the uploads have begun


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


def test_kill_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    book = Book()
    with Server(tmp_path / "spool") as server, ThreadPoolExecutor(UPLOADERS) as pool:
        for turn in range(KILLS):
            uploads = upload_until_killed(server, pool, turn)
            server.start()
            settle(server, book, uploads)
        listed = listing(server)
        check_bytes(server, list(book.kept.values()), listed)
        digests = sorted(hashlib.sha256(path.read_bytes()).hexdigest() for path in server.dir.glob("blobs/*/*"))
        assert digests == sorted({record["sha256"] for record in listed.values()})
    print(  # noqa: T201  # the numbers are worth reading
        f"\n{KILLS} kills, {book.acknowledged} uploads acknowledged, 0 lost, "
        f"{book.unknown} unknown of which {book.unknown_kept} were kept, {len(book.kept)} files"
    )
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
