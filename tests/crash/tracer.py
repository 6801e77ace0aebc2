"""Faults in the system calls of a running server, one at a time: a thread, a call, and the how-manieth of it."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Final, TypeVar

from tests.crash.operation import OPERATIONS
from tests.process import Server, eventually, lacking, strace, traced, without_nameless_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence


T = TypeVar("T")

LOOP: Final = "loop"
_ROLES: Final = {"fdatasync": "index", "linkat": "publisher", "writev": "writer", "unlinkat": "reader"}
"""What a thread is, by the first of these calls that it makes."""


@dataclass(frozen=True, order=True)
class Point:
    """Where a fault comes: at the `number`th `call` that one thread makes during an operation."""

    operation: str
    thread: str
    """Its role."""
    call: str
    number: int

    def __str__(self) -> str:
        return f"{self.operation}-{self.thread}-{self.call}-{self.number}"


Threads = dict[str, int]
"""The ids of a server's threads by their role."""


def warm_up(server: Server, name: str) -> Threads:
    """Makes the server start every thread that stores; which is which."""
    for attempt in range(5):
        threads = _look(server, f"{name}-{attempt}")
        if len(threads) > len(_ROLES):
            return threads
    raise AssertionError(f"strace showed only {sorted(threads)}")


def _look(server: Server, name: str) -> Threads:
    log = server.dir.with_name(f"{server.dir.name}.threads")
    with recorded(server, _ROLES, log):
        for kind in ("patch", "tus", "delete"):
            operation = OPERATIONS[kind](f"{name}-{kind}")
            operation.prepare(server)
            operation.run(server)
            assert not operation.failed, operation.replies
    made = _calls(log)
    found = {LOOP: server.pid}
    for call, role in _ROLES.items():
        for thread, its in made:
            if its == call and thread not in found.values():
                found[role] = thread
                break
    return found


@contextmanager
def recorded(server: Server, calls: Iterable[str], log: Path) -> Iterator[None]:
    """Writes to `log` every one of these system calls that is made inside."""
    command = ["strace", "-f", "-I2", "-qq", "-o", str(log), "-e", f"trace={','.join(calls)}", "-p", str(server.pid)]
    threads = [int(task.name) for task in Path(f"/proc/{server.pid}/task").iterdir()]
    with _running(command, threads):
        yield


def _calls(log: Path) -> list[tuple[int, str]]:
    lines = [re.match(r"(\d+) +(\w+)\(", line) for line in log.read_text("utf-8", "replace").splitlines()]
    return [(int(line[1]), line[2]) for line in lines if line]


def count(threads: Threads, log: Path) -> Counter[tuple[str, str]]:
    """How often each thread, by role, made each call."""
    roles = {thread: role for role, thread in threads.items()}
    return Counter((roles[thread], call) for thread, call in _calls(log) if thread in roles)


@contextmanager
def faulty(threads: Threads, point: Point, effect: str, log: Path) -> Iterator[None]:
    """The server with `effect`, such as signal=SIGKILL or error=EIO, at this point."""
    thread = threads[point.thread]
    command = [*strace(point.call, f"{effect}:when={point.number}"), "-y", "-o", str(log), "-p", str(thread)]
    command.remove("-f")  # this thread alone
    with _running(command, [thread]):
        yield


def struck(log: Path) -> bool:
    """Whether the fault came."""
    # a call that a kill kept from running has no result
    return re.search(r"\(INJECTED\)$|= \?$", log.read_text("utf-8", "replace"), re.MULTILINE) is not None


@contextmanager
def _running(command: list[str], expected: Sequence[int]) -> Iterator[None]:
    tracer = subprocess.Popen(command, stderr=subprocess.PIPE)
    try:
        eventually(lambda: tracer.poll() is not None or all(traced(thread) for thread in expected), 30)
        if tracer.poll() is not None:
            assert tracer.stderr is not None
            lacking(f"strace cannot trace here: {tracer.stderr.read().decode().strip()}")
        yield
    finally:
        tracer.terminate()
        tracer.communicate(timeout=10)


def spread(points: Sequence[Point], amount: int, seed: str) -> list[Point]:
    """At most `amount` of the points, the same for the same seed, evenly over operations and then over calls."""
    random = Random(seed)
    ordered: list[tuple[tuple[int, int], Point]] = []
    for operation in sorted({point.operation for point in points}):
        groups: dict[tuple[str, str], list[Point]] = {}
        for point in points:
            if point.operation == operation:
                groups.setdefault((point.thread, point.call), []).append(point)
        names = random.sample(sorted(groups), len(groups))
        for place, name in enumerate(names):
            shuffled = random.sample(groups[name], len(groups[name]))
            ordered += [((turn, place), point) for turn, point in enumerate(shuffled)]
    return [point for _, point in sorted(ordered)][:amount]


def in_both_stores(sweep: Callable[[Server], T], directory: Path, env: Mapping[str, str]) -> dict[str, T]:
    """What `sweep` makes of a server with nameless files, and of one without, at once."""
    stores = {
        "nameless": Server(directory / "nameless", env=env),
        "named": without_nameless_files(directory / "named", env=env),
    }
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(stores, pool.map(sweep, stores.values()), strict=True))
