"""The storage fails at one system call: a clear answer, nothing half-done, and all is well again right after."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.crash import book
from tests.crash.book import listing, wait_for_accounts
from tests.crash.operation import INLINE_UPLOADS, UPLOADS, OneShot, Resumable, Way
from tests.crash.tracer import Point, count, faulty, in_both_stores, recorded, spread, struck, warm_up
from tests.process import EFFORT, Server, eventually, slowed

if TYPE_CHECKING:
    from pathlib import Path

    from tests.crash.operation import Operation

ENV = {
    "SPOOL_SERVER_INTERIM_RESPONSES": "false",
    "SPOOL_LIMITS_MIN_FREE_SPACE": "1 MiB",
    "SPOOL_STORAGE_SWEEP_INTERVAL": "1s",
}
WRITING = ("openat", "writev", "pwrite64", "sync_file_range", "fsync", "fdatasync", "linkat", "ftruncate")
FAULTS = {"EIO": (*WRITING, "utimensat", "unlinkat", "close"), "ENOSPC": WRITING, "EDQUOT": WRITING}
UNTOLD = {("ENOSPC", "fdatasync"), ("EDQUOT", "fdatasync"), ("EDQUOT", "pwrite64")}
"""What SQLite does not tell from an error of the disk."""
ALL = EFFORT >= 20


WAYS = {
    "blobs": Way(book.WAYS[0], UPLOADS, 10_000 if ALL else 9 * EFFORT),
    "inline": Way(book.WAYS[1], INLINE_UPLOADS, 10_000 if ALL else 5 * EFFORT),
}


class Sweep:
    """One server whose storage fails at one point after the other."""

    def __init__(self, server: Server, way: Way) -> None:
        self.server = server
        self.way = way
        self.threads = warm_up(server, "first")
        self.log = server.dir.with_name(f"{server.dir.name}.strace")
        self.struck: Counter[str] = Counter()
        self.answers: Counter[int] = Counter()
        self.settled: list[Operation] = []
        self.unclosed = 0
        """Descriptors that strace kept from being closed: the system's close closes them even if it fails."""
        self.open = 0

    def points(self) -> list[Point]:
        """Every call by which an upload's storage can fail; where all are tried, also one more than there are."""
        found = []
        for kind, make in self.way.operations.items():
            operation = make(f"count-{kind}")
            with recorded(self.server, FAULTS["EIO"], self.log):
                operation.run(self.server)
            assert not operation.failed, (kind, operation.replies)
            for (thread, call), amount in count(self.threads, self.log).items():
                if thread != "loop":
                    found += [Point(kind, thread, call, number) for number in range(1, amount + 1 + ALL)]
        self.open = len(self.server.descriptors())
        return found

    def strike(self, error: str, point: Point) -> None:
        """The call fails; then the same is asked again without a fault."""
        operation = self.way.operations[point.operation](f"{error}-{point}")
        with faulty(self.threads, point, f"error={error}", self.log):
            operation.run(self.server)
        if struck(self.log):
            self.struck[error] += 1
            self.unclosed += point.call == "close"
            self._check_answers(operation, 503 if error == "EIO" or (error, point.call) in UNTOLD else 507)
        else:
            assert not operation.failed, (point, operation.replies)
        again = self.way.operations[point.operation](f"{error}-{point}-again")
        again.run(self.server)
        assert not again.failed, (point, again.replies)
        operation.check(self.server, listed := listing(self.server))
        again.check(self.server, listed)
        operation.go_on(self.server)
        self.settled += [operation, again]

    def _check_answers(self, operation: Operation, expected: int) -> None:
        assert not operation.lost, operation.name
        last = operation.replies[-1]
        self.answers[last.status] += 1
        if operation.failed:
            last.check_problem()
            assert last.status == expected, (operation.name, last.body)

    def settle(self) -> None:
        """All that was refused has left nothing."""
        wait_for_accounts(self.server)
        listed = listing(self.server)
        for operation in self.settled:
            operation.check(self.server, listed)
        eventually(lambda: len(self.server.descriptors()) <= self.open + self.unclosed)
        broken = [line for line in self.server.log().splitlines() if '"level": "error"' in line or "Traceback" in line]
        assert not broken, broken[:3]


def sweep(server: Server, way: Way) -> Sweep:
    with server:
        done = Sweep(server, way)
        points = done.points()
        for error, calls in FAULTS.items():
            for point in spread([p for p in points if p.call in calls], way.points, server.dir.name + error):
                done.strike(error, point)
        done.settle()
        server.kill()
        server.start()
        done.unclosed = 0
        done.settle()
    return done


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_error_of_any_call_is_told_and_leaves_nothing(tmp_path: Path, way: Way) -> None:
    results = in_both_stores(lambda server: sweep(server, way), tmp_path, {**ENV, **way.env})
    for store, result in results.items():
        print(f"\n{store}: errors {dict(result.struck)}, answers {dict(result.answers)}")  # noqa: T201  # worth reading
        assert result.answers[503]
        assert result.answers[507]


def test_row_whose_sync_failed_does_not_come_back_without_its_bytes(tmp_path: Path) -> None:
    with Server(tmp_path / "spool", env=ENV) as server:
        upload = OneShot("refused", 5_000)
        with slowed(server, "fdatasync", "error=EIO"):
            upload.run(server)
        assert upload.replies[-1].status == 503
        eventually(lambda: server.events("blob.reclaimed"))
        server.kill()  # what was written of the row lies in the log of the index still
        server.start()
        upload.check(server, listing(server))


def test_index_does_not_need_what_a_failed_sync_has_lost(tmp_path: Path) -> None:
    quiet = {"SPOOL_STORAGE_SWEEP_INTERVAL": "1h", "SPOOL_STORAGE_SCRUB_INTERVAL": "0s"}  # nothing else writes
    with Server(tmp_path / "spool", env=quiet) as server:
        before, refused, after = OneShot("before", 5_000), OneShot("refused", 5_000), OneShot("after", 70_000)
        before.run(server)
        durable = (server.dir / "index.db-wal").stat().st_size
        with slowed(server, "fdatasync", "error=EIO"):
            refused.run(server)
        assert refused.replies[-1].status == 503
        lose(server.dir / "index.db-wal", durable)
        after.run(server)
        assert after.replies[-1].status == 201, after.replies
        server.kill()
        server.start()
        listed = listing(server)
        assert {"before-0", "after-0"} <= listed.keys()
        for upload in (before, refused, after):
            upload.check(server, listed)


@pytest.mark.parametrize("dialect", ["tus", "rufh"])
def test_bytes_whose_sync_failed_are_sent_again(tmp_path: Path, dialect: str) -> None:
    with Server(tmp_path / "spool", env=ENV) as server:
        upload = Resumable("upload", dialect)
        half = upload.file.size // 2
        assert upload.create(server)
        assert upload.append(server, upload.file.data[:half])
        with slowed(server, "fsync", "error=EIO"):
            assert not upload.append(server, upload.file.data[half:])
        assert upload.replies[-1].status == 503
        [staged] = server.dir.glob("incoming/*")
        lose(staged, half)
        upload.go_on(server)
        upload.check(server, listing(server))


def lose(path: Path, durable: int) -> None:
    """What lies beyond the first `durable` bytes is not there: so it is where the kernel drops what it cannot write."""
    with path.open("r+b") as file:
        size = file.seek(0, 2)
        assert size > durable
        file.seek(durable)
        file.write(bytes(size - durable))
