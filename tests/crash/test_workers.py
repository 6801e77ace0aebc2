"""Several processes on one spool, which are killed and stopped: what was acknowledged is there, the rest goes on."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import RemoteDisconnected
from pathlib import Path
from random import Random

from tests.crash.book import Book, settle
from tests.crash.test_kill import UPLOADERS, upload_until_killed
from tests.crash.test_terminate import KINDS, upload_until_stopped
from tests.crash.uploader import Uploader
from tests.process import EFFORT, Server, eventually

KILLS = 4 * EFFORT
OFFICES = 2 * EFFORT
STOPS = 2 * EFFORT
LATEST = 0.3  # seconds after the uploads have begun
ENV = {
    "SPOOL_SERVER_WORKERS": "2",
    "SPOOL_STORAGE_SWEEP_INTERVAL": "1s",
    "SPOOL_LIMITS_MAX_UPLOADS": str(UPLOADERS),  # so that one that does not come back is missed
    "SPOOL_LIMITS_MIN_FREE_SPACE": "1 MiB",
}


def alive(pid: int) -> bool:
    """Whether the process is there, and is no zombie."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text("ascii")
    except (FileNotFoundError, ProcessLookupError):
        return False


def answers(server: Server) -> bool:
    """Whether the server lives; a connection may still go with a worker that is dying."""
    try:
        return bool(server.get("/healthz"))
    except (ConnectionError, RemoteDisconnected):
        return False


def kill_worker(server: Server, pid: int) -> None:
    """The worker is gone; the other one answers, and a new one comes."""
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: not alive(pid))
    eventually(lambda: answers(server))
    eventually(lambda: len(server.workers()) == 2 and pid not in server.workers(), 20)


def test_killed_workers_lose_nothing_and_give_back_what_they_held(tmp_path: Path) -> None:
    book = Book()
    with ThreadPoolExecutor(UPLOADERS) as pool, Server(tmp_path / "spool", env=ENV) as server:
        for turn in range(KILLS):
            names = [f"{turn}-{number}" for number in range(UPLOADERS)]
            clients = [Uploader(server.port, name, Random(name), (*KINDS[:3], "tus")) for name in names]
            running = [pool.submit(client.run) for client in clients]
            for pid in server.workers():  # each has some of the clients, who go on until theirs is gone
                time.sleep(Random(turn).uniform(0, LATEST))
                kill_worker(server, pid)
            for future in running:
                future.result(30)
            settle(server, book, [upload for client in clients for upload in client.uploads])
        assert len(server.events("worker.lost")) == 2 * KILLS
        assert server.stop() == 0
        assert "Traceback" not in server.log()
    print(  # noqa: T201  # the numbers are worth reading
        f"\n{2 * KILLS} workers killed, {book.acknowledged} uploads acknowledged, 0 lost, "
        f"{book.unknown} unknown of which {book.unknown_kept} were kept"
    )
    assert book.acknowledged >= KILLS


def test_killed_office_takes_its_workers_along_and_loses_nothing(tmp_path: Path) -> None:
    book = Book()
    with ThreadPoolExecutor(UPLOADERS) as pool, Server(tmp_path / "spool", env=ENV) as server:
        for turn in range(OFFICES):
            workers = server.workers()
            assert len(workers) == 2
            uploads = upload_until_killed(server, pool, turn)
            server.start()
            assert not any(map(alive, workers)), "the directory was served again beside an old worker"
            settle(server, book, uploads)
    print(f"\n{OFFICES} offices killed, {book.acknowledged} uploads acknowledged, 0 lost")  # noqa: T201  # as above


def test_stop_of_several_processes_keeps_what_they_answered(tmp_path: Path) -> None:
    book = Book()
    with ThreadPoolExecutor(UPLOADERS) as pool:
        for turn in range(STOPS):
            env = {**ENV, "SPOOL_SERVER_SHUTDOWN_GRACE": ("20s", "1s")[turn % 2]}
            with Server(tmp_path / "spool", env=env) as server:
                workers = server.workers()
                clients = upload_until_stopped(server, pool, turn)
                assert not any(map(alive, workers))
                server.start()
                settle(server, book, [upload for client in clients for upload in client.uploads])
                assert server.stop() == 0
                assert "Traceback" not in server.log()
    print(  # noqa: T201  # as above
        f"\n{STOPS} stops, {book.acknowledged} uploads acknowledged, 0 lost, {book.refused} refused, "
        f"{book.unknown} unknown of which {book.unknown_kept} were kept"
    )
