"""A whole spool against dictionaries: whatever clients, sweeps and crashes do, it holds what it said that it holds."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from spool.errors import NotFound
from spool.model import FileQuery

from .model.book import ALL, Book, Seen
from .model.operations import (
    LONG,
    OWNERS,
    Append,
    Begin,
    Operation,
    Put,
    Sweep,
    appends,
    batches,
    begins,
    cancels,
    deletes,
    edits,
    endings,
    hides,
    puts,
    undone,
)
from .model.process import Clock, Process
from .process import EFFORT

if TYPE_CHECKING:
    from collections.abc import Coroutine

RUNS = 8 * EFFORT
STEPS = 50
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
MEMORY = Path("/dev/shm")  # where a sync costs nothing

limits = st.sampled_from([0, 1, 16 * 1024])
picks = st.lists(st.integers(0, 5), max_size=8)
"""Which of the calls that wait goes on, over and over."""


class Spool(RuleBasedStateMachine):
    """Each rule ends when all is quiet again; then what is there is compared with the book."""

    def __init__(self, runner: asyncio.Runner, counts: Counter[str], *, nameless: bool) -> None:
        super().__init__()
        self.runner = runner
        self.counts = counts
        self.nameless = nameless
        self.directory = tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None)
        self.root = Path(self.directory.name)
        self.clock = Clock(NOON)
        self.book = Book(self.clock)
        self.inline_max = 0
        """Of the processes that are started from now on."""
        self.process: Process
        self.run(self._start())

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(work)

    async def _start(self) -> None:
        self.process = await Process.start(self.root, self.clock, nameless=self.nameless, inline_max=self.inline_max)
        self.counts["starts that keep small files in the index"] += self.inline_max > 0

    @initialize(operations=st.tuples(puts, begins, begins, begins), inline_max=limits)
    def fill(self, operations: list[Operation], inline_max: int) -> None:
        if inline_max:
            self.inline_max = inline_max
            self.run(self._restart())
        for operation in operations:
            self.run(self._calmly(operation))

    # No rule has a precondition, which would make what is drawn depend on how fast threads are.
    @rule(operation=puts)
    def put(self, operation: Operation) -> None:
        self.run(self._calmly(operation))

    @rule(operation=begins | appends | appends | endings)
    def resume(self, operation: Operation) -> None:
        self.run(self._calmly(operation))

    @rule(operation=deletes | edits | cancels | hides | undone)
    def change(self, operation: Operation) -> None:
        self.run(self._calmly(operation))

    @rule(operations=batches, picks=picks)
    def together(self, operations: list[Operation], picks: list[int]) -> None:
        self.run(self._together(operations, picks))

    @rule(operation=puts, calls=st.integers(0, 6))
    def vanish(self, operation: Put, calls: int) -> None:
        self.run(self._vanish(operation, calls))

    @rule(
        operations=batches,
        picks=picks,
        calls=st.integers(0, 32),
        power=st.booleans(),
    )
    def crash(self, operations: list[Operation], picks: list[int], calls: int, power: bool) -> None:  # noqa: FBT001
        self.run(self._crash(operations, picks, calls, power=power))

    @rule(operation=puts | appends | endings | endings, calls=st.integers(0, 19), power=st.booleans())
    def crash_one(self, operation: Operation, calls: int, power: bool) -> None:  # noqa: FBT001
        self.run(self._crash([operation], [], calls, power=power))

    @rule(operation=deletes | edits | cancels | hides | undone, calls=st.integers(0, 4), power=st.booleans())
    def crash_change(self, operation: Operation, calls: int, power: bool) -> None:  # noqa: FBT001
        self.run(self._crash([operation], [], calls, power=power))

    @rule(begin=begins, size=st.sampled_from([1, 3000, 5000]), calls=st.none() | st.integers(9, 16))
    def complete(self, begin: Begin, size: int, calls: int | None) -> None:
        self.run(self._calmly(begin))
        newest = len(self.book.coming) - 1
        self.run(self._calmly(Append(newest, size, cut=False)))
        last = Append(newest, LONG, cut=False)
        self.run(self._calmly(last) if calls is None else self._crash([last], [], calls, power=False))

    @rule(minutes=st.sampled_from([1, 2, 2, 11, 25 * 60]))
    def wait(self, minutes: int) -> None:
        self.clock.now += timedelta(minutes=minutes)
        self.run(self._check())

    @rule(restarts=st.booleans(), inline_max=limits)
    def tend(self, restarts: bool, inline_max: int) -> None:  # noqa: FBT001
        self.inline_max = inline_max  # the next start may come by a crash
        self.run(self._restart() if restarts else self._sweep())

    async def _calmly(self, operation: Operation) -> None:
        if operation.aim(self.book):
            await operation.run(self.process)
            await self._settle([operation])

    async def _together(self, operations: list[Operation], picks: list[int]) -> None:
        aimed = [operation for operation in operations if operation.aim(self.book)]
        tasks = await self._start_all(aimed)
        await self._let_through(picks, 200)
        await self._finish(tasks)
        await self._settle(aimed)

    async def _start_all(self, operations: list[Operation]) -> list[asyncio.Task[None]]:
        self.counts["operations that ran together"] += len(operations)
        self.process.gates.open = False
        loop = asyncio.get_running_loop()
        tasks = [loop.create_task(operation.run(self.process)) for operation in operations]
        await self.process.gates.settle()
        return tasks

    async def _let_through(self, picks: list[int], calls: int) -> None:
        gates = self.process.gates
        for number in range(calls):
            if not gates.waiting:
                return
            await gates.let_through(picks[number % len(picks)] if picks else 0)

    async def _finish(self, tasks: list[asyncio.Task[None]]) -> None:
        gates = self.process.gates
        gates.open = True
        while gates.waiting:
            await gates.let_through(0)
        await asyncio.gather(*tasks)

    async def _vanish(self, operation: Put, calls: int) -> None:
        operation.aim(self.book)
        tasks = await self._start_all([operation])
        await self._let_through([], calls)
        if operation.cancellable and not tasks[0].done():
            self.counts["clients that vanished"] += 1
            tasks[0].cancel()
            await self.process.gates.settle()
            self.process.gates.forget()
            tasks = [asyncio.ensure_future(asyncio.wait(tasks))]
        await self._finish(tasks)
        await self._settle([operation])

    async def _crash(self, operations: list[Operation], picks: list[int], calls: int, *, power: bool) -> None:
        aimed = [operation for operation in operations if operation.aim(self.book)]
        if not aimed:
            return
        if len(aimed) == 1:
            self.process.gates.left = calls
            tasks = [asyncio.get_running_loop().create_task(aimed[0].run(self.process))]
            blown = asyncio.ensure_future(self.process.gates.blown.wait())
            await asyncio.wait([*tasks, blown], return_when=asyncio.FIRST_COMPLETED)
        else:
            await self._start_all(aimed)
            await self._let_through(picks, calls)
        self.counts["power cuts" if power else "kills"] += 1
        self.counts["of those in the middle of an operation"] += not all(op.done or op.refusal for op in aimed)
        await self.process.kill(power=power)
        await self._start()
        await self.process.sweep()
        await self.book.settle(self.process, aimed, crashed=True)
        await self._check()
        await self._check_disk()

    async def _settle(self, operations: list[Operation]) -> None:
        await self.book.settle(self.process, operations, crashed=False)
        await self._check()

    async def _sweep(self) -> None:
        operation = Sweep()
        await self._calmly(operation)
        assert operation.done
        await self._check_disk()
        assert await self.process.fsck() == []

    async def _restart(self) -> None:
        self.counts["restarts"] += 1
        await self.process.stop()
        await self._start()
        await self._check()

    async def _check(self) -> None:
        """Listings, bytes, usage, uploads and answers are those of the book."""
        self.counts["comparisons"] += 1
        seen, process, book = await Seen.look(self.process), self.process, self.book
        assert seen.files.keys() == book.files.keys()
        for tag, file in seen.files.items():
            assert book.files[tag].agrees(file), f"{file} should be {book.files[tag]}"
            assert await process.content(file) == book.files[tag].content, f"{tag} has lost its bytes"
        listed = [file.id async for file in process.catalog.walk(FileQuery(limit=4))]
        assert Counter(listed) == Counter(kept.id for kept in book.files.values() if not book.over(kept.expires_at))
        await self._check_hidden(seen)
        await self._check_uploads(seen)
        await self._check_answers()
        for owner, who in OWNERS.items():
            usage = await process.db.usage(owner)
            assert usage == book.usage(owner)
            assert not who.allowance.quota or usage.size <= who.allowance.quota
        assert not process.ingest.active
        assert not process.admission.running
        assert not process.resumption._turns._queues

    async def _check_hidden(self, seen: Seen) -> None:
        book, process = self.book, self.process
        assert seen.hidden.keys() == book.hidden.keys()
        self.counts["hidden files compared"] += len(book.hidden)
        for tag, (file, until) in seen.hidden.items():
            assert book.hidden[tag].file.agrees(file), f"{file} should be {book.hidden[tag].file}"
            assert until == book.hidden[tag].until
            with pytest.raises(NotFound):
                await process.catalog.file(file.id)
            if not file.inline:
                with await process.store.open(file.key) as blob:
                    assert blob.read() == book.hidden[tag].file.content, f"{tag} is hidden, and has lost its bytes"
        told = [(until, file.id) for file, until in await process.catalog.hidden(ALL)]
        undoable = [(hid.until, hid.file.id) for hid in book.hidden.values() if not book.over(hid.until)]
        assert Counter(told) == Counter(undoable)
        assert [until for until, _ in told] == sorted((until for until, _ in told), reverse=True)

    async def _check_uploads(self, seen: Seen) -> None:
        coming = {upload.tag: upload for upload in self.book.coming.values()}
        assert seen.uploads.keys() == coming.keys()
        for tag, row in seen.uploads.items():
            told = coming[tag].told
            assert (row.id, row.staged.offset, row.state) == (coming[tag].id, told, "open")
            if told:
                with await self.process.store.open(row.key, staged=True) as blob:
                    assert blob.read(told) == coming[tag].content[:told], f"the upload {tag} has lost its bytes"

    async def _check_answers(self) -> None:
        idempotency = self.process.idempotency
        for owner in OWNERS:
            for key in ("key 0", "key 1"):
                told = self.book.answer(owner, key)
                answer = await idempotency.earlier(idempotency.draft(owner, key, told.request if told else "this"))
                assert (answer and [file.id for file in answer.files]) == (told and told.ids)

    async def _check_disk(self) -> None:
        """After a sweep there is exactly what files, hidden or not, and uploads name."""
        seen = await Seen.look(self.process)
        live = Counter(name for _, _, names in os.walk(self.root / "blobs") for name in names)
        hidden = [file for file, _ in seen.hidden.values()]
        blobs = [file for file in (*seen.files.values(), *hidden) if not file.inline]
        assert live == Counter({file.key for file in blobs}), "bytes without a record, or none"
        self.counts["files in the index"] += len(seen.files) + len(hidden) - len(blobs)
        self.counts["files in blobs"] += len(blobs)
        staged = {path.name for path in self.root.glob("incoming/*")}
        assert {row.key for row in seen.uploads.values() if row.staged.offset} <= staged
        assert staged <= {row.key for row in seen.uploads.values()}, "staged bytes without a record"

    def teardown(self) -> None:
        try:
            self.run(self._sweep())
        finally:
            self.run(self.process.stop())
            self.directory.cleanup()


@pytest.mark.parametrize("nameless", [True, False], ids=["nameless", "named"])
def test_spool_holds_what_it_said_that_it_holds(nameless: bool) -> None:  # noqa: FBT001
    counts: Counter[str] = Counter()
    with asyncio.Runner() as runner:
        run_state_machine_as_test(
            lambda: Spool(runner, counts, nameless=nameless),
            settings=settings(
                max_examples=RUNS,
                stateful_step_count=STEPS,
                deadline=None,
                derandomize=True,
                database=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            ),
        )
    print(f"\n{RUNS} runs: " + ", ".join(f"{count} {what}" for what, count in counts.items()))  # noqa: T201  # worth reading
