"""The scrub over a real store and a real index, on a clock that tests set."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import pytest

from spool.errors import Unavailable
from spool.metrics import Metrics
from spool.model import Key, Scrub
from spool.work import scrub
from tests.clock import NOON, Clock
from tests.store.blobstore_suite import put
from tests.store.index_suite import a_file
from tests.work.test_fsck import DATA, KEY, Bench, Between, a_key, bench, flip

if TYPE_CHECKING:
    from spool.model import File

__all__ = ["bench"]  # a fixture

INTERVAL = timedelta(days=1)
STEP = timedelta(minutes=30)


@pytest.fixture
def clock() -> Clock:
    return Clock()


async def scrubbed(bench: Bench, clock: Clock, gone_by: timedelta, blobs: Any = None) -> int:
    clock.time += gone_by
    return await scrub.run_once(blobs or bench.blobs, bench.index, clock, INTERVAL)


async def passed(bench: Bench, clock: Clock) -> int:
    """How many blobs a whole pass has read."""
    await scrubbed(bench, clock, timedelta())
    return sum([await scrubbed(bench, clock, STEP) for _ in range(INTERVAL // STEP)])


async def spread(bench: Bench, count: int = 64) -> list[File]:
    """Files whose keys are as far apart as can be."""
    return [await bench.add(f"f{n:02}", key=a_key(n, f"{n * 256 // count:02x}")) for n in range(count)]


def events(caplog: pytest.LogCaptureFixture) -> list[tuple[str, Any]]:
    return [(record.msg, record.args) for record in caplog.records if record.name == "spool.work.scrub"]


async def test_pass_over_all_blobs_takes_the_interval_and_never_bursts(bench: Bench, clock: Clock) -> None:
    await spread(bench)
    assert await scrubbed(bench, clock, timedelta()) == 0
    runs = [await scrubbed(bench, clock, STEP) for _ in range(INTERVAL // STEP)]
    assert sum(runs) == 64
    assert max(runs) <= 2
    assert sum(runs[: len(runs) // 2]) in (32, 33)  # shares are rounded up


async def test_passes_follow_one_another(bench: Bench, clock: Clock) -> None:
    await spread(bench)
    assert [await passed(bench, clock) for _ in range(2)] == [64, 64]


async def test_pass_goes_on_where_it_stood_after_a_restart(bench: Bench, clock: Clock) -> None:
    await spread(bench)
    await scrubbed(bench, clock, timedelta())
    before = sum([await scrubbed(bench, clock, STEP) for _ in range(20)])
    await bench.index.aclose()
    await bench.reopen()
    after = sum([await scrubbed(bench, clock, STEP) for _ in range(28)])
    assert 0 < before < 64
    assert before + after == 64


async def test_long_stop_is_not_made_up_for_in_a_burst(bench: Bench, clock: Clock) -> None:
    await spread(bench)
    await scrubbed(bench, clock, timedelta())
    assert await scrubbed(bench, clock, timedelta(days=300)) <= 3


async def test_clock_that_was_set_back_reads_nothing(bench: Bench, clock: Clock) -> None:
    await spread(bench)
    await scrubbed(bench, clock, timedelta())
    assert await scrubbed(bench, clock, -INTERVAL) == 0
    assert await scrubbed(bench, clock, STEP) > 0


@pytest.mark.parametrize("harm", ["missing", "size", "digest"])
async def test_damage_is_marked_and_logged_once(
    bench: Bench, clock: Clock, caplog: pytest.LogCaptureFixture, harm: str
) -> None:
    files = [await bench.add("a"), await bench.add("b"), await bench.add("c", b"other", key=a_key(2))]
    match harm:
        case "missing":
            bench.path(KEY).unlink()
        case "size":
            bench.path(KEY).write_bytes(b"short")
        case _:
            flip(bench.path(KEY))
    with caplog.at_level(logging.INFO):
        await passed(bench, clock)
        await passed(bench, clock)
    assert await bench.damage(*files) == [harm, harm, None]
    found = events(caplog)
    assert found[0] == ("blob.damaged", {"key": KEY, "damage": harm, "files": 2})
    assert [name for name, _ in found] == ["blob.damaged", "scrub.done", "scrub.done"]
    assert caplog.records[0].levelno == logging.ERROR


async def test_end_of_a_pass_is_logged_with_what_it_read(
    bench: Bench, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    await spread(bench)
    flip(bench.path(a_key(0)))
    with caplog.at_level(logging.INFO):
        await passed(bench, clock)
    assert events(caplog)[-1] == ("scrub.done", {"blobs": 64, "size": 64 * len(DATA), "damaged": 1})


async def test_sound_blob_that_was_marked_is_unmarked(
    bench: Bench, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    file = await bench.add()
    await bench.index.mark(KEY, "digest")
    with caplog.at_level(logging.INFO):
        await passed(bench, clock)
    assert await bench.damage(file) == [None]
    assert events(caplog)[0] == ("blob.healed", {"key": KEY, "files": 1})


async def test_shared_blob_is_read_once(bench: Bench, clock: Clock) -> None:
    digest = sha256(DATA).hexdigest()
    many = range(scrub._PAGE + 3)
    await bench.index.finish([a_file(f"f{n}", key=KEY, size=len(DATA), sha256=digest) for n in many])
    await put(bench.blobs, KEY, DATA)
    assert await passed(bench, clock) == 1


async def test_file_that_is_deleted_meanwhile_is_no_damage(
    bench: Bench, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    file = await bench.add()
    await scrubbed(bench, clock, timedelta())
    bench.path(KEY).unlink()

    async def delete() -> None:
        await bench.index.remove(file.id)

    index = Between(bench.index, "by_key", delete)
    with caplog.at_level(logging.INFO):
        for _ in range(24):
            clock.time += timedelta(hours=1)
            await scrub.run_once(bench.blobs, index, clock, INTERVAL)  # type: ignore[arg-type]
    assert events(caplog) == [("scrub.done", {"blobs": 1, "size": 0, "damaged": 0})]


async def test_blob_that_cannot_be_opened_is_passed_over(bench: Bench, clock: Clock) -> None:
    files = await spread(bench, 4)

    class Failing:
        async def open(self, key: Key, *, staged: bool = False) -> Any:
            if key == files[1].key:
                raise Unavailable("the storage fails")
            return await bench.blobs.open(key, staged=staged)

    failures = read = 0
    await scrubbed(bench, clock, timedelta())
    for _ in range(INTERVAL // STEP):
        try:
            read += await scrubbed(bench, clock, STEP, Failing())
        except Unavailable:
            failures += 1
    assert (failures, read) == (1, 3)


async def test_run_that_is_cancelled_reads_its_blob_again(bench: Bench, clock: Clock) -> None:
    await bench.add(key=a_key(0))
    await scrubbed(bench, clock, timedelta())
    asked = asyncio.Event()

    class Stuck:
        async def open(self, key: Key, *, staged: bool = False) -> Any:  # noqa: ARG002
            asked.set()
            await asyncio.Event().wait()

    run = asyncio.ensure_future(scrubbed(bench, clock, STEP, Stuck()))
    await asked.wait()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert await scrubbed(bench, clock, STEP) == 1


async def test_run_ends_when_it_has_read_enough(bench: Bench) -> None:
    await spread(bench, 16)
    run = scrub._Run(bench.blobs, bench.index, Scrub(NOON, NOON, Key("")), Metrics())
    run._left = 10 * len(DATA) - 1
    await run.upto(None)
    assert run.scrub.blobs == 10
    assert not run.is_over


async def test_reading_is_paced(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the scrub waits after each stretch adds up to the time that its rate gives to the bytes."""
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    data = bytes(20 * 1024 * 1024)
    await bench.add(data=data)
    monkeypatch.setattr(asyncio, "sleep", sleep)
    await scrub._Run(bench.blobs, bench.index, Scrub(NOON, NOON, Key("")), Metrics()).upto(None)
    assert len(waited) == 3
    assert sum(waited) == pytest.approx(len(data) / scrub._RATE)


async def test_what_it_reads_and_finds_is_counted(bench: Bench, clock: Clock) -> None:
    await bench.add()
    await bench.add("b", b"other", key=a_key(2))
    flip(bench.path(KEY))
    metrics = Metrics()
    for _ in range(INTERVAL // STEP + 1):
        clock.time += STEP
        await scrub.run_once(bench.blobs, bench.index, clock, INTERVAL, metrics)
    assert (metrics.scrubbed_blobs, metrics.scrubbed_bytes) == (2, len(DATA) + len(b"other"))
    assert metrics.scrub_damaged == 1
