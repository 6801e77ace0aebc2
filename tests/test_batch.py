from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import spool
from spool.batch import Batcher
from spool.errors import NotFound, Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

PATIENCE = 60  # seconds until a test that hangs fails


class Flush:
    """Doubles numbers, remembers its lots, and holds the first one until told to go on."""

    def __init__(self) -> None:
        self.lots: list[list[int]] = []
        self.begun = threading.Event()
        self.proceed = threading.Event()

    def __call__(self, lot: Sequence[int]) -> list[int | BaseException]:
        self.lots.append(list(lot))
        self.begun.set()
        assert self.proceed.wait(PATIENCE)
        return [self.outcome(item) for item in lot]

    def outcome(self, item: int) -> int | BaseException:
        if item < 0:
            return NotFound(str(item))
        return 2 * item


@pytest.fixture
def flush() -> Flush:
    return Flush()


@pytest.fixture
async def batcher(flush: Flush) -> AsyncIterator[Batcher[int, int]]:
    batcher = Batcher("doubler", flush, most=8)
    yield batcher
    flush.proceed.set()
    await batcher.aclose()


async def begin(batcher: Batcher[int, int], flush: Flush, *items: int) -> list[asyncio.Task[int]]:
    """Submits the first item, and the others once that one is being flushed."""
    tasks = [asyncio.ensure_future(batcher.submit(items[0]))]
    assert await asyncio.to_thread(flush.begun.wait, PATIENCE)
    tasks += [asyncio.ensure_future(batcher.submit(item)) for item in items[1:]]
    await asyncio.sleep(0)  # all have been submitted
    return tasks


async def test_submit_gives_each_its_own_outcome(batcher: Batcher[int, int], flush: Flush) -> None:
    flush.proceed.set()
    assert await asyncio.gather(*map(batcher.submit, range(100))) == list(range(0, 200, 2))
    assert [item for lot in flush.lots for item in lot] == list(range(100))


async def test_a_lot_is_what_queued_up_during_the_last(batcher: Batcher[int, int], flush: Flush) -> None:
    tasks = await begin(batcher, flush, 0, 1, 2, 3)
    flush.proceed.set()
    await asyncio.gather(*tasks)
    assert flush.lots == [[0], [1, 2, 3]]


async def test_a_lot_holds_no_more_than_most(batcher: Batcher[int, int], flush: Flush) -> None:
    tasks = await begin(batcher, flush, *range(20))
    flush.proceed.set()
    await asyncio.gather(*tasks)
    assert [len(lot) for lot in flush.lots] == [1, 8, 8, 3]


async def test_an_outcome_that_is_an_exception_is_raised_to_its_submitter_only(
    batcher: Batcher[int, int], flush: Flush
) -> None:
    tasks = await begin(batcher, flush, 0, 1, -2, 3)
    flush.proceed.set()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [str(outcome) for outcome in outcomes] == ["0", "2", "-2", "6"]
    assert isinstance(outcomes[2], NotFound)


async def test_what_flush_raises_reaches_its_whole_lot_and_no_other() -> None:
    def flush(lot: Sequence[int]) -> list[int | BaseException]:
        if 1 in lot:
            raise OSError("odd")
        return list(lot)

    batcher = Batcher("odd", flush, most=2)
    outcomes = await asyncio.gather(*(batcher.submit(item) for item in (0, 1)), return_exceptions=True)
    assert OSError in map(type, outcomes)
    assert await batcher.submit(2) == 2
    await batcher.aclose()


@pytest.mark.parametrize("outcomes", [[], [1, 2, 3]])
async def test_a_flush_that_loses_count_keeps_nobody_waiting(outcomes: list[int]) -> None:
    batcher: Batcher[int, int] = Batcher("miscount", lambda _: outcomes)
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(RuntimeError, match="outcomes for 1 items"):
            await batcher.submit(0)
    await batcher.aclose()


async def test_stop_iteration_keeps_nobody_waiting(flush: Flush) -> None:
    flush.outcome = lambda item: StopIteration() if item == 1 else item
    batcher = Batcher("stop", flush)
    tasks = await begin(batcher, flush, 0, 1, 2)
    flush.proceed.set()
    async with asyncio.timeout(PATIENCE):
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [int, RuntimeError, int]
    await batcher.aclose()


async def test_an_item_whose_submitter_was_cancelled_is_flushed_all_the_same(
    batcher: Batcher[int, int], flush: Flush
) -> None:
    tasks = await begin(batcher, flush, 0, 1, -2, 3)
    for task in tasks[:3]:
        task.cancel()
    flush.proceed.set()
    async with asyncio.timeout(PATIENCE):
        assert await tasks[3] == 6
    assert flush.lots == [[0], [1, -2, 3]]


async def test_a_lot_wakes_the_loop_once(
    batcher: Batcher[int, int], flush: Flush, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = await begin(batcher, flush, *range(8))
    loop, calls = asyncio.get_running_loop(), []
    wake = loop.call_soon_threadsafe
    monkeypatch.setattr(loop, "call_soon_threadsafe", lambda *call: calls.append(call) or wake(*call))
    flush.proceed.set()
    await asyncio.gather(*tasks)
    assert len(calls) == len(flush.lots) == 2


async def test_aclose_waits_for_what_was_submitted_and_the_loop_goes_on(
    batcher: Batcher[int, int], flush: Flush
) -> None:
    tasks = await begin(batcher, flush, 0, 1, 2)
    closing = asyncio.ensure_future(batcher.aclose())
    _, waiting = await asyncio.wait([closing], timeout=0.1)
    assert waiting == {closing}
    with pytest.raises(Unavailable):
        await batcher.submit(3)
    flush.proceed.set()
    await closing
    assert all(task.done() for task in tasks)
    assert flush.lots == [[0], [1, 2]]


async def test_aclose_leaves_no_thread_and_may_be_repeated(batcher: Batcher[int, int], flush: Flush) -> None:
    flush.proceed.set()
    await batcher.submit(1)
    assert [thread.name for thread in threading.enumerate() if "doubler" in thread.name] == ["doubler_0"]
    await asyncio.gather(batcher.aclose(), batcher.aclose())
    assert [thread.name for thread in threading.enumerate() if "doubler" in thread.name] == []


async def test_aclose_completes_even_if_the_caller_is_cancelled(batcher: Batcher[int, int], flush: Flush) -> None:
    [task] = await begin(batcher, flush, 0)
    closing = asyncio.ensure_future(batcher.aclose())
    await asyncio.sleep(0)  # it has begun
    closing.cancel()
    await asyncio.wait([closing])
    flush.proceed.set()
    await batcher.aclose()
    assert await task == 0


def test_a_loop_that_is_closed_does_not_end_the_thread(flush: Flush) -> None:
    batcher = Batcher("survivor", flush)

    async def leave() -> None:
        await begin(batcher, flush, 0)

    async def come_back() -> int:
        flush.proceed.set()
        try:
            return await asyncio.wait_for(batcher.submit(4), PATIENCE)
        finally:
            await batcher.aclose()

    asyncio.run(leave())
    assert asyncio.run(come_back()) == 8
    assert flush.lots == [[0], [4]]


def test_a_lot_under_way_outlives_the_interpreter_s_last_line() -> None:
    script = """
import asyncio, time
from spool.batch import Batcher

def flush(lot):
    time.sleep(0.2)
    print("flushed", flush=True)
    return lot

async def main():
    asyncio.ensure_future(Batcher("writer", flush).submit(1))
    await asyncio.sleep(0)

asyncio.run(main())
"""
    home = Path(spool.__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", script], cwd=home, capture_output=True, check=True, timeout=PATIENCE)
    assert done.stdout == b"flushed\n"
