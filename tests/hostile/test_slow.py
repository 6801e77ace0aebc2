"""A crowd of clients that dribble, and of clients that stop reading: others do not feel it, and nothing of it stays."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import time
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.hostile.dribblers import WAYS
from tests.hostile.sockets import at_rest, connections, get, stuck_reader
from tests.process import EFFORT, Server, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

EACH = 53
"""Connections for each way of dribbling: a thousand together."""
READERS = 200
SECONDS = 8
"""All the timeouts: all of the crowd is there while others are timed."""
ROUNDS = 100
SMALL = bytes(10_000)
LARGE = bytes(16 * 1024 * 1024)
"""More than the buffers of a connection hold."""
MEMORY = 48 * 1024 * 1024
"""Bytes that the server may have resident beyond those before the crowd: the allocator keeps some of the height."""


@dataclass
class Client:
    """Stores, lists and fetches small files over one connection, and notes how long each took."""

    port: int
    seconds: dict[str, list[float]] = field(default_factory=dict)

    def run(self, rounds: int) -> None:
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)) as connection:
            for _ in range(rounds):
                file = json.loads(self._timed(connection, "upload", "PUT", "/files/normal", SMALL))["id"]
                self._timed(connection, "listing", "GET", "/files?limit=100")
                assert self._timed(connection, "download", "GET", f"/media/{file}/x") == SMALL

    def _timed(
        self, connection: http.client.HTTPConnection, what: str, method: str, path: str, body: bytes | None = None
    ) -> bytes:
        start = time.perf_counter()
        connection.request(method, path, body)
        answer = connection.getresponse()
        data = answer.read()
        self.seconds.setdefault(what, []).append(time.perf_counter() - start)
        assert answer.status in (200, 201), data
        return data

    def quantile(self, what: str, share: float) -> float:
        """In milliseconds."""
        return sorted(self.seconds[what])[int(len(self.seconds[what]) * share)] * 1000


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
    """Who was served while it was there."""
    held: int
    """The server's descriptors at that time."""
    resident: int
    """Its memory, in bytes."""
    ended: dict[str, dict[str, int]]
    """How the dribbling connections ended: for each way, how many with which status."""


def wave(server: Server, file: str) -> Wave:
    with ExitStack() as stack:
        for _ in range(READERS):
            stack.enter_context(closing(stuck_reader(server, get(f"/media/{file}/x"))))
        process = stack.enter_context(dribbling(server, file))
        held, resident = len(server.descriptors()), server.resident()
        beside = Client(server.port)
        beside.run(ROUNDS)
        ended = json.loads(process.communicate(timeout=120)[0])
        eventually(lambda: connections(server) == 0, 3 * SECONDS)
    return Wave(beside, held, resident, ended)


def test_crowd_of_slow_clients_is_ended_and_neither_slows_others_nor_leaves_anything(tmp_path: Path) -> None:
    timeouts = ("HEAD_TIMEOUT", "IDLE_TIMEOUT", "MIN_RATE_WINDOW")
    settings = {f"SPOOL_LIMITS_{name}": f"{SECONDS}s" for name in timeouts}
    with Server(tmp_path / "spool", env={**settings, "SPOOL_LIMITS_MAX_UPLOADS": "10000"}) as server:
        alone = Client(server.port)
        file = server.put("large", LARGE)["id"]
        alone.run(ROUNDS)
        rest, memory = at_rest(server), server.resident()
        for _ in range(EFFORT):
            crowd = wave(server, file)
            assert unexpected(crowd.ended) == {}
            assert sum(sum(statuses.values()) for statuses in crowd.ended.values()) == EACH * len(WAYS)
            assert at_rest(server) == rest
            Client(server.port).run(ROUNDS // 10)
            left = server.resident()
            print(f"\ndescriptors: {len(rest)}, beside the crowd {crowd.held}")  # noqa: T201  # worth reading
            print(f"resident MiB: {memory >> 20}, beside it {crowd.resident >> 20}, after it {left >> 20}")  # noqa: T201
            for what in alone.seconds:
                for name, share in (("median", 0.5), ("p99", 0.99)):
                    quantiles = [client.quantile(what, share) for client in (alone, crowd.beside)]
                    print(f"{name} of small {what}s, ms: {quantiles[0]:.1f}, beside it {quantiles[1]:.1f}")  # noqa: T201
            assert left < memory + MEMORY
        assert "Traceback" not in server.log()
