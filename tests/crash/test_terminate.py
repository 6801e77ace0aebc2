"""SIGTERM under load: every upload is answered and there, or it has failed clearly and is not."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import TYPE_CHECKING

from tests.crash.book import WAYS, Book, check_bytes, listing, settle, wait_for_accounts
from tests.crash.uploader import Uploader
from tests.process import EFFORT, Server

if TYPE_CHECKING:
    from pathlib import Path

STOPS = 10 * EFFORT
UPLOADERS = 8
LATEST = 0.3  # seconds after the uploads have begun
KINDS = ("form", "put", "chunked", "tus", "slow")
GRACES = ("20s", "1s")  # the latter is less than a slow upload takes


def upload_until_stopped(server: Server, pool: ThreadPoolExecutor, turn: int) -> list[Uploader]:
    """The clients of one life of the server."""
    clients = [
        Uploader(server.port, f"{turn}-{number}", Random(f"{turn} {number}"), KINDS, may_refuse=True)
        for number in range(UPLOADERS)
    ]
    running = [pool.submit(client.run) for client in clients]
    time.sleep(Random(turn).uniform(0, LATEST))
    assert server.stop() == 0
    for future in running:
        future.result(30)
    return clients


def test_stop_under_load_keeps_what_it_answered_and_leaves_nothing_else(tmp_path: Path) -> None:
    book = Book()
    with ThreadPoolExecutor(UPLOADERS) as pool:
        for turn in range(STOPS):
            env = {
                "SPOOL_SERVER_SHUTDOWN_GRACE": GRACES[turn % len(GRACES)],
                "SPOOL_SERVER_INTERIM_RESPONSES": "false",
                "SPOOL_LIMITS_MIN_FREE_SPACE": "1 MiB",
                **WAYS[turn // len(GRACES) % 2],
            }
            with Server(tmp_path / "spool", env=env) as server:
                clients = upload_until_stopped(server, pool, turn)
                server.start()
                settle(server, book, [upload for client in clients for upload in client.uploads])
                assert server.stop() == 0
    with Server(tmp_path / "spool") as server:
        listed = listing(server)
        check_bytes(server, book.kept.values(), listed)
        wait_for_accounts(server)
        assert "Traceback" not in server.log()
        assert not [line for line in server.log().splitlines() if '"level": "error"' in line]
    print(  # noqa: T201  # the numbers are worth reading
        f"\n{STOPS} stops, {book.acknowledged} uploads acknowledged, 0 lost, {book.refused} refused, "
        f"{book.unknown} unknown of which {book.unknown_kept} were kept"
    )
    assert book.acknowledged >= STOPS
