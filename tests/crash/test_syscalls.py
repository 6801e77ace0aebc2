"""kill -9 before each system call of stage and commit: what was acknowledged is there, and nothing half-done is."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.crash import book
from tests.crash.book import listing, unaccounted, wait_for_accounts
from tests.crash.operation import INLINE_OPERATIONS, OPERATIONS, OneShot, Way
from tests.crash.tracer import LOOP, Point, count, faulty, in_both_stores, recorded, spread, struck, warm_up
from tests.process import EFFORT, Server, slowed

if TYPE_CHECKING:
    from pathlib import Path

    from tests.crash.operation import Operation

CALLS = (
    *("openat", "write", "writev", "pwrite64", "sync_file_range", "fsync", "fdatasync", "utimensat", "linkat"),
    *("unlinkat", "ftruncate", "close", "sendto"),
)
ON_THE_LOOP = ("sendto", "write")
ALL = EFFORT >= 20
ENV = {"SPOOL_SERVER_INTERIM_RESPONSES": "false", "SPOOL_LIMITS_MIN_FREE_SPACE": "1 MiB"}


WAYS = {
    "blobs": Way(book.WAYS[0], OPERATIONS, 10_000 if ALL else 13 * EFFORT),
    "inline": Way(book.WAYS[1], INLINE_OPERATIONS, 10_000 if ALL else 7 * EFFORT),
}


class Sweep:
    """One server that is killed at one point after the other."""

    def __init__(self, server: Server, way: Way) -> None:
        self.server = server
        self.way = way
        self.threads = warm_up(server, "first")
        self.log = server.dir.with_name(f"{server.dir.name}.strace")
        self.killed: Counter[tuple[str, str]] = Counter()
        self.acknowledged = 0
        self.survived = 0
        self.kept: set[str] = set()

    def points(self) -> list[Point]:
        """Every call of every operation; where all are tried, also one more than there are."""
        found = []
        for kind, make in self.way.operations.items():
            operation = make(f"count-{kind}")
            operation.prepare(self.server)
            with recorded(self.server, CALLS, self.log):
                operation.run(self.server)
            assert not operation.failed, (kind, operation.replies)
            for (thread, call), amount in count(self.threads, self.log).items():
                if (thread == LOOP) == (call in ON_THE_LOOP):  # elsewhere a byte sent only wakes the loop
                    found += [Point(kind, thread, call, number) for number in range(1, amount + 1 + ALL)]
        return found

    def strike(self, point: Point) -> None:
        """Kills at this point, restarts, and holds what is there against what the client knows."""
        name = str(point)
        operation = self.way.operations[point.operation](name)
        operation.prepare(self.server)
        with faulty(self.threads, point, "signal=SIGKILL", self.log):
            operation.run(self.server)
        killed = struck(self.log) or operation.failed or self._is_gone()  # strace may not have written it yet
        if killed:
            self.server.wait()
            self.killed[point.operation, point.call] += 1
            self.server.start()
        else:
            self.survived += 1
        self.acknowledged += not operation.failed
        self._settle(operation)
        if killed:
            self.threads = warm_up(self.server, f"{name}-warm-up")

    def _is_gone(self) -> bool:
        try:
            self.server.get("/healthz")
        except OSError:
            return True
        return not self.server.running

    def _settle(self, operation: Operation) -> None:
        wait_for_accounts(self.server)
        operation.check(self.server, listing(self.server))
        operation.go_on(self.server)
        listed = listing(self.server)
        operation.check(self.server, listed)
        assert self.kept <= listed.keys(), f"lost: {self.kept - listed.keys()}"
        self.kept = set(listed)
        assert not unaccounted(self.server)


def sweep(server: Server, way: Way) -> Sweep:
    with server:
        done = Sweep(server, way)
        points = done.points()
        for tried, point in enumerate(spread(points, len(points), server.dir.name)):
            # threads of one role share their work: a point may not come again when it is its turn
            if tried >= way.points and {kind for kind, _ in done.killed} == way.operations.keys():
                break
            done.strike(point)
    return done


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_kill_before_any_call_of_a_commit_leaves_all_or_nothing(tmp_path: Path, way: Way) -> None:
    results = in_both_stores(lambda server: sweep(server, way), tmp_path, {**ENV, **way.env})
    for store, result in results.items():
        assert {kind for kind, _ in result.killed} == way.operations.keys()
        calls: Counter[str] = Counter()
        for (_, call), amount in result.killed.items():
            calls[call] += amount
        print(  # noqa: T201  # the numbers are worth reading
            f"\n{store}: killed at {sum(calls.values())} points, {result.survived} runs went on to their end, "
            f"{result.acknowledged} acknowledged, 0 lost: {json.dumps(calls)}"
        )
        assert sum(calls.values()) > result.survived


def test_start_makes_durable_what_a_killed_commit_had_written(tmp_path: Path) -> None:
    upload = OneShot("unknown", 5_000)
    with Server(tmp_path / "spool", env=ENV) as server, slowed(server, "fdatasync", "signal=SIGKILL"):
        upload.run(server)
        server.wait()
    log = tmp_path / "strace"
    tracing = ["strace", "-f", "-D", "-y", "-qq", "-o", str(log), "-e", "trace=fsync,fdatasync"]
    with Server(tmp_path / "spool", env=ENV, prefix=tracing) as server:
        assert "unknown-0" in listing(server)  # and so it would be after the next crash
        assert re.search(r"index\.db-wal>\) += 0", log.read_text())
