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
from tests.hostile.sockets import at_rest, get, stuck_reader
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
    command = [sys.executable, "-m", "tests.hostile.dribblers", str(server.port), str(EACH * EFFORT), file]
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


def test_crowd_of_slow_clients_is_ended_and_neither_slows_others_nor_leaves_anything(tmp_path: Path) -> None:
    timeouts = ("HEAD_TIMEOUT", "IDLE_TIMEOUT", "MIN_RATE_WINDOW")
    settings = {f"SPOOL_LIMITS_{name}": f"{SECONDS}s" for name in timeouts}
    settings["SPOOL_LIMITS_MAX_UPLOADS"] = "100000"
    with Server(tmp_path / "spool", env=settings) as server, ExitStack() as stack:
        undisturbed, disturbed, afterwards = Client(server.port), Client(server.port), Client(server.port)
        file = server.put("large", LARGE)["id"]
        undisturbed.run(ROUNDS)
        rest, memory = at_rest(server), server.resident()
        for _ in range(READERS * EFFORT):
            stack.enter_context(closing(stuck_reader(server, get(f"/media/{file}/x"))))
        with dribbling(server, file) as process:
            disturbed.run(ROUNDS)
            held, height = len(server.descriptors()) - len(rest), server.resident()
            ended = json.loads(process.communicate(timeout=120)[0])
        assert unexpected(ended) == {}
        assert sum(sum(statuses.values()) for statuses in ended.values()) == EACH * EFFORT * len(WAYS)
        eventually(lambda: at_rest(server) == rest, 3 * SECONDS)
        afterwards.run(ROUNDS // 10)
        left = server.resident()
        print(f"\ndescriptors of the crowd: {held}; resident MiB: {memory >> 20}, {height >> 20}, {left >> 20}")  # noqa: T201
        for what in undisturbed.seconds:
            for name, share in (("median", 0.5), ("p99", 0.99)):
                alone, beside = undisturbed.quantile(what, share), disturbed.quantile(what, share)
                print(f"{name} of small {what}s: alone {alone:.1f} ms, beside the crowd {beside:.1f} ms")  # noqa: T201
        assert left < memory + MEMORY * EFFORT
        assert [line for line in server.log().splitlines() if "Traceback" in line] == []
