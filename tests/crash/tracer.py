"""Faults in the system calls of a running server, one at a time: a thread, a call, and the how-manieth of it."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.crash.operation import OPERATIONS, ask
from tests.process import eventually, lacking, strace, traced

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.process import Server


@dataclass(frozen=True, order=True)
class Point:
    """Where a fault comes: at the `number`th `call` that one thread makes during an operation."""

    operation: str
    thread: int
    """Its rank among the server's threads, in the order in which they were made; 0 is the event loop."""
    call: str
    number: int


def warm_up(server: Server) -> None:
    """Every thread that an operation needs is there, so that each has the same rank in every life of a server."""
    for make in OPERATIONS.values():
        operation = make(f"warm-up-{server.pid}-{make('').__class__.__name__}")
        operation.prepare(server)
        operation.run(server)
        assert not operation.failed
    for path in ("/files", "/healthz"):
        assert ask(server, "GET", path).status == 200


def threads(server: Server) -> list[int]:
    """The ids of the server's threads, oldest first."""
    return sorted(int(task.name) for task in Path(f"/proc/{server.pid}/task").iterdir())


@contextmanager
def recorded(server: Server, calls: Sequence[str], log: Path) -> Iterator[None]:
    """Writes to `log` every one of these system calls that succeeds or fails inside."""
    command = ["strace", "-f", "-I2", "-qq", "-y", "-o", str(log), "-e", f"trace={','.join(calls)}"]
    with _running([*command, "-p", str(server.pid)], threads(server)):
        yield


def count(server: Server, log: Path) -> Counter[tuple[int, str]]:
    """How often each thread, by rank, made each call."""
    ranks = {thread: rank for rank, thread in enumerate(threads(server))}
    lines = [re.match(r"(\d+) +(\w+)\(", line) for line in log.read_text("utf-8", "replace").splitlines()]
    return Counter((ranks[int(line[1])], line[2]) for line in lines if line and int(line[1]) in ranks)


@contextmanager
def faulty(server: Server, point: Point, effect: str, log: Path) -> Iterator[None]:
    """The server with `effect`, such as signal=SIGKILL or error=EIO, at this point."""
    thread = threads(server)[point.thread]
    command = [*strace(point.call, f"{effect}:when={point.number}"), "-y", "-o", str(log), "-p", str(thread)]
    command.remove("-f")  # this thread alone
    with _running(command, [thread]):
        yield


def struck(log: Path) -> bool:
    """Whether the fault came."""
    return re.search(r"\(INJECTED\)|killed by SIGKILL", log.read_text("utf-8", "replace")) is not None


@contextmanager
def _running(command: list[str], expected: Sequence[int]) -> Iterator[None]:
    tracer = subprocess.Popen(command, stderr=subprocess.PIPE)
    try:
        eventually(lambda: tracer.poll() is not None or all(traced(thread) for thread in expected))
        if tracer.poll() is not None:
            assert tracer.stderr is not None
            lacking(f"strace cannot trace here: {tracer.stderr.read().decode().strip()}")
        yield
    finally:
        tracer.terminate()
        tracer.communicate(timeout=10)


def spread(points: Sequence[Point], amount: int) -> list[Point]:
    """At most `amount` of the points, fairly: of each operation's calls the first, the last, then those between."""
    groups: dict[tuple[str, int, str], list[Point]] = {}
    for point in sorted(points):
        groups.setdefault((point.operation, point.thread, point.call), []).append(point)
    rounds: dict[int, list[Point]] = {}
    for group in groups.values():
        for turn, index in enumerate(_outside_in(len(group))):
            rounds.setdefault(turn, []).append(group[index])
    return [point for turn in sorted(rounds) for point in rounds[turn]][:amount]


def _outside_in(size: int) -> list[int]:
    return sorted(range(size), key=lambda index: (min(index, size - 1 - index), index))
