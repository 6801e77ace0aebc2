"""A crowd of clients that dribble, and of clients that stop reading: others do not feel it, and nothing of it stays."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING

from tests.hostile.dribblers import WAYS
from tests.hostile.sockets import at_rest, connections, get, stuck_reader, taken
from tests.process import EFFORT, Server, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Span = tuple[float, float]

EACH = 53
"""Connections for each way of dribbling: a thousand together."""
READERS = 200
SECONDS = 10
"""All the timeouts."""
ALONE = 4
"""Seconds in which a client is timed without a crowd."""
SMALL = bytes(10_000)
LARGE = bytes(16 * 1024 * 1024)
"""More than the buffers of a connection hold."""
MEMORY = 48 * 1024 * 1024
"""Bytes that the server may have resident beyond those before the crowd. CPython keeps the arenas of 1 MiB in which one
small object is left, and most are; the next crowd finds room in them."""


@dataclass
class Client:
    """Stores, lists and fetches small files over one connection, and notes when, and how long each took."""

    port: int
    seconds: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

    def run(self, enough: Callable[[], bool]) -> None:
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)) as connection:
            while not enough():
                file = json.loads(self._timed(connection, "upload", "PUT", "/files/normal", SMALL))["id"]
                self._timed(connection, "listing", "GET", "/files?limit=100")
                assert self._timed(connection, "download", "GET", f"/media/{file}/x") == SMALL

    def run_for(self, seconds: float) -> None:
        end = time.perf_counter() + seconds
        self.run(lambda: time.perf_counter() >= end)

    def _timed(
        self, connection: http.client.HTTPConnection, what: str, method: str, path: str, body: bytes | None = None
    ) -> bytes:
        start = time.perf_counter()
        connection.request(method, path, body)
        answer = connection.getresponse()
        data = answer.read()
        self.seconds.setdefault(what, []).append((start, time.perf_counter() - start))
        assert answer.status in (200, 201), data
        return data

    def figures(self, what: str, span: Span = (0, inf)) -> str:
        """Of what began in this span of time."""
        took = sorted(seconds * 1000 for start, seconds in self.seconds[what] if span[0] <= start < span[1])
        if not took:
            return "none"
        median, p99 = (took[int(len(took) * share)] for share in (0.5, 0.99))
        return f"{median:.1f} / {p99:.1f} / {took[-1]:.1f} of {len(took)}"


@contextmanager
def dribbling(server: Server, file: str) -> Iterator[subprocess.Popen[str]]:
    """The process of the clients that dribble, once all of them do."""
    command = [sys.executable, "-m", "tests.hostile.dribblers", str(server.port), str(EACH), file]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def unexpected(ended: dict[str, dict[str, int]]) -> dict[str, dict[str, int]]:
    """What ended otherwise than its way is to end, or did not end."""
    rest = {
        name: {status: n for status, n in ended.get(name, {}).items() if int(status) not in way.ends_as}
        for name, way in WAYS.items()
    }
    return {name: statuses for name, statuses in rest.items() if statuses or name not in ended}


@dataclass(frozen=True)
class Wave:
    """One crowd, from when it came until it was gone."""

    beside: Client
    """Who was served all that time."""
    steady: Span
    """When all of the crowd was there, and none of it was being ended."""
    held: int
    """The server's descriptors at that time."""
    resident: int
    """Its memory, in bytes."""
    ended: dict[str, dict[str, int]]
    """How the dribbling connections ended: for each way, how many with which status."""


def wave(server: Server, file: str) -> Wave:
    beside, gone = Client(server.port), threading.Event()
    with ThreadPoolExecutor(1) as thread:
        serving = thread.submit(beside.run, gone.is_set)
        try:
            begun = time.perf_counter()
            with ExitStack() as stack:
                for _ in range(READERS):
                    stack.enter_context(closing(stuck_reader(server, get(f"/media/{file}/x"))))
                process = stack.enter_context(dribbling(server, file))
                taken(server)
                steady = time.perf_counter(), begun + SECONDS
                held, resident = len(server.descriptors()), server.resident()
                ended = json.loads(process.communicate(timeout=120)[0])
                eventually(lambda: connections(server) == 1)
        finally:
            gone.set()
    serving.result()
    return Wave(beside, steady, held, resident, ended)


def show(alone: Client, crowd: Wave) -> None:
    for what in alone.seconds:
        figures = alone.figures(what), crowd.beside.figures(what, crowd.steady), crowd.beside.figures(what)
        line = "{} of a small file, median / p99 / longest ms: {}; beside it {}; over its whole time {}"
        print(line.format(what, *figures))  # noqa: T201  # worth reading


def test_crowd_of_slow_clients_is_ended_and_neither_slows_others_nor_leaves_anything(tmp_path: Path) -> None:
    timeouts = ("HEAD_TIMEOUT", "IDLE_TIMEOUT", "MIN_RATE_WINDOW")
    settings = {f"SPOOL_LIMITS_{name}": f"{SECONDS}s" for name in timeouts}
    with Server(tmp_path / "spool", env={**settings, "SPOOL_LIMITS_MAX_UPLOADS": "10000"}) as server:
        file = server.put("large", LARGE)["id"]
        Client(server.port).run_for(ALONE / 4)  # the first requests are slower
        rest, memory = at_rest(server), server.resident()
        for _ in range(EFFORT):
            alone = Client(server.port)
            alone.run_for(ALONE)
            crowd = wave(server, file)
            assert unexpected(crowd.ended) == {}
            assert sum(sum(statuses.values()) for statuses in crowd.ended.values()) == EACH * len(WAYS)
            eventually(lambda: at_rest(server) <= rest)
            left = server.resident()
            print(f"\ndescriptors: {len(rest)}, beside the crowd {crowd.held}")  # noqa: T201  # worth reading
            print(f"resident MiB: {memory >> 20}, beside it {crowd.resident >> 20}, after it {left >> 20}")  # noqa: T201
            show(alone, crowd)
            assert left < memory + MEMORY
        assert "Traceback" not in server.log()
