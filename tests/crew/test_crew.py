"""Office and workers over real socket pairs, in one event loop."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from spool.admission import Admission, Capacity
from spool.attempts import Attempts
from spool.crew.office import Counted, Office
from spool.crew.worker import Worker
from spool.errors import BeyondGrant, QuotaExceeded, TooMany, Unavailable
from spool.metrics import Metrics, Tally
from spool.model import Allowance, Grant, GrantId, Key, Principal, Usage
from spool.rates import Rates
from spool.turns import Turns
from tests.clock import NOON, Clock
from tests.test_rates import Index

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ADA = Principal("ada", frozenset(), Allowance(quota=1000, requests_per_minute=3, uploads=2))
KEY = Key("00" * 16)
GUEST = replace(ADA, grant=Grant(GrantId("g"), "ada", "", NOON, NOON, max_files=3, max_size=500))


class Bench:
    """An office, and workers that can die."""

    def __init__(self) -> None:
        async def free() -> int:
            return 10**9

        async def used(_owner: str) -> Usage:
            return Usage(0, 0)

        admission = Admission(Capacity(3, 0), free, used, used)
        self.counted = Counted(admission, Rates(Index(), Clock()), Turns(), Attempts(Clock()))
        self.metrics = Metrics()
        self.office = Office(self.counted, lambda: Tally(self.metrics, 0, {"index": 1}, [1]))
        self.serving: list[asyncio.Future[None]] = []
        self.orphaned: list[Worker] = []
        self.renewed: list[Worker] = []
        self.connections: list[int] = []

    async def hire(self, *active: Key, metrics: Metrics | None = None, pid: int = 2) -> Worker:
        ours, theirs = socket.socketpair()
        self.serving.append(asyncio.ensure_future(self.office.serve(ours, self.connections.append, lambda: None)))
        worker = Worker()
        await worker.join(theirs, lambda: self.orphaned.append(worker), lambda: self.renewed.append(worker))
        worker.serve(lambda: active, lambda: Tally(metrics or Metrics(), 0, {"index": 2}, [pid]), 7)
        await self.settle()
        return worker

    async def die(self, worker: Worker) -> None:
        worker._channel.close()
        await asyncio.wait(self.serving, return_when=asyncio.FIRST_COMPLETED)

    async def settle(self) -> None:
        """What was told by now has been acted on."""
        for _ in range(20):
            await asyncio.sleep(0)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    yield bench
    for serving in bench.serving:
        serving.cancel()
    await asyncio.gather(*bench.serving, return_exceptions=True)


async def test_worker_says_how_many_connections_it_takes(bench: Bench) -> None:
    await bench.hire()
    await bench.hire()
    assert bench.connections == [7, 7]


@pytest.mark.parametrize("draw", ["take", "hold", "add_file"])
async def test_upload_that_is_cancelled_while_it_asks_for_more_is_no_fault(
    bench: Bench, caplog: pytest.LogCaptureFixture, draw: str
) -> None:
    worker = await bench.hire()
    with await worker.ledger.admit(ADA, 10) as hold:
        sizes = () if draw == "add_file" else (20,)
        asking = asyncio.ensure_future(getattr(hold, draw)(*sizes))
        await asyncio.sleep(0)
        asking.cancel()
    await bench.settle()
    assert asking.cancelled()
    assert bench.counted.admission.running == 0
    assert not caplog.records
    with await worker.ledger.admit(ADA, 1000):  # all of the quota
        pass


async def test_slots_of_all_workers_are_counted_together(bench: Bench) -> None:
    one, other = await bench.hire(), await bench.hire()
    with await one.ledger.admit(ADA, 10), await other.ledger.admit(ADA, 10):
        assert (one.ledger.running, other.ledger.running) == (1, 1)
        with pytest.raises(TooMany) as refusal:
            await other.ledger.admit(ADA, 10)
        assert refusal.value.members == {"limit": 2}
    with await one.ledger.admit(ADA, 10):
        assert bench.counted.admission.running == 1


async def test_slot_is_free_for_whoever_asks_after_it_was_let_go_of(bench: Bench) -> None:
    one, other = await bench.hire(), await bench.hire()
    await bench.office.active_keys()
    for first, second in [(one, other), (other, one)] * 20:
        with await first.ledger.admit(ADA, 10), await first.ledger.admit(ADA, 10):
            pass
        with await second.ledger.admit(ADA, 10):
            pass


async def test_quota_is_counted_together(bench: Bench) -> None:
    one, other = await bench.hire(), await bench.hire()
    with await one.ledger.admit(ADA, 600):
        with pytest.raises(QuotaExceeded) as refusal:
            await other.ledger.admit(ADA, 600)
        assert refusal.value.members == {"limit": 1000, "used": 1200, "unit": "bytes"}


async def test_bounds_of_a_grant_are_counted_together(bench: Bench) -> None:
    one, other = await bench.hire(), await bench.hire()
    with await one.ledger.admit(GUEST, 300):
        with pytest.raises(BeyondGrant) as refusal:
            await other.ledger.admit(GUEST, 300)
        assert refusal.value.members == {"limit": 500, "used": 600, "unit": "bytes"}
        with pytest.raises(BeyondGrant) as refusal:
            await other.ledger.admit(GUEST, 1, 3)
        assert refusal.value.members == {"limit": 3, "used": 4, "unit": "files"}


async def test_upload_that_has_no_room_for_all_holds_the_least(bench: Bench) -> None:
    worker = await bench.hire()
    with await worker.ledger.admit(GUEST, 600, least=0):
        [reservation] = bench.counted.admission._running
        assert reservation.ahead == 0
        assert reservation.who.grant_id == "g"


async def test_requests_of_guests_are_not_those_of_the_owner(bench: Bench) -> None:
    worker = await bench.hire()
    rates = [await worker.rates.count(who) for who in (ADA, GUEST, GUEST, ADA)]
    assert [rate.remaining for rate in rates if rate] == [2, 2, 1, 1]


async def test_sign_ins_that_failed_are_counted_together(bench: Bench) -> None:
    one, other = await bench.hire(), await bench.hire()
    for worker in (one, other) * 5:
        assert await worker.attempts.wait("192.0.2.1") == 0
        await worker.attempts.failed("192.0.2.1")
    assert {await worker.attempts.wait("192.0.2.1") > 0 for worker in (one, other)} == {True}
    assert await one.attempts.wait("192.0.2.2") == 0


async def test_tally_is_that_of_all_processes(bench: Bench) -> None:
    mine, theirs = Metrics(), Metrics()
    one, _ = await bench.hire(metrics=mine, pid=2), await bench.hire(metrics=theirs, pid=3)
    bench.metrics.expired_files, mine.committed_files, theirs.committed_files = 1, 2, 3
    with await one.ledger.admit(ADA, 10):
        metrics, running, queued, pids = await one.gather()
    assert (metrics.expired_files, metrics.committed_files, running, queued) == (1, 5, 1, {"index": 5})
    assert (pids[0], sorted(pids)) == (1, [1, 2, 3])


async def test_tally_never_tells_less_than_before(bench: Bench) -> None:
    mine, theirs = Metrics(), Metrics()
    one, other = await bench.hire(metrics=mine), await bench.hire(metrics=theirs, pid=3)
    mine.received_bytes, theirs.received_bytes = 2, 3
    assert (await one.gather()).metrics.received_bytes == 5
    asking = asyncio.ensure_future(one.gather())
    await asyncio.sleep(0)
    await bench.die(other)
    assert (await asking).metrics.received_bytes == 5
    mine.received_bytes = 4
    tally = await one.gather()
    assert (tally.metrics.received_bytes, tally.queued, tally.pids) == (7, {"index": 3}, [1, 2])


async def test_reservation_says_what_was_taken_and_recorded(bench: Bench) -> None:
    worker = await bench.hire()
    with await worker.ledger.admit(ADA, 600) as hold:
        await hold.take(100)
        await hold.take(100)
        [reservation] = bench.counted.admission._running
        await bench.settle()
        assert (reservation.ahead, reservation.written) == (500, 100)
        hold.recorded()
        await bench.settle()
        assert (reservation.ahead, reservation.written) == (400, 0)
        await hold.add_file()
        assert reservation.files == 2


async def test_reservation_that_is_used_up_takes_more_or_is_refused(bench: Bench) -> None:
    worker = await bench.hire()
    with await worker.ledger.admit(ADA, 600) as hold:
        await hold.take(600)
        await hold.take(300)
        [reservation] = bench.counted.admission._running
        assert (reservation.ahead, reservation.written) == (0, 900)
        with pytest.raises(QuotaExceeded):
            await hold.take(200)


async def test_cancelled_request_gives_back_what_it_gets(bench: Bench) -> None:
    worker = await bench.hire()
    asking = [asyncio.ensure_future(worker.ledger.admit(ADA, 10)) for _ in range(2)]
    taking = asyncio.ensure_future(worker.turns.take("name", lambda: None))
    trying = asyncio.ensure_future(worker.turns.try_take("other"))
    await asyncio.sleep(0)
    for task in (*asking, taking, trying):
        task.cancel()
    await asyncio.gather(*asking, taking, trying, return_exceptions=True)
    await bench.settle()
    assert bench.counted.admission.running == 0
    assert not bench.counted.turns.taken("name")
    assert not bench.counted.turns.taken("other")


async def test_turn_is_handed_over_from_worker_to_worker(bench: Bench) -> None:
    one, other = await bench.hire(), await bench.hire()
    stopped = asyncio.Event()
    let_go = await one.turns.take("name", stopped.set)
    next_one = asyncio.ensure_future(other.turns.take("name", lambda: None))
    await stopped.wait()
    await bench.settle()
    assert not next_one.done()
    let_go()
    let_go()
    (await next_one)()
    await bench.settle()
    assert not bench.counted.turns.taken("name")


async def test_turn_that_is_waited_for_is_told_to_stop_at_once(bench: Bench) -> None:
    workers = [await bench.hire() for _ in range(3)]
    told: list[int] = []
    turns = [asyncio.ensure_future(w.turns.take("name", lambda n=n: told.append(n))) for n, w in enumerate(workers)]
    for number, turn in enumerate(turns):
        let_go = await turn
        await bench.settle()
        assert set(told) == set(range(min(number + 1, 2)))
        let_go()


async def test_key_is_had_once(bench: Bench) -> None:
    one, other = await bench.hire(), await bench.hire()
    let_go = await one.turns.try_take("key")
    assert let_go is not None
    assert await other.turns.try_take("key") is None
    let_go()
    assert await other.turns.try_take("key") is not None


async def test_requests_of_all_workers_are_counted_together(bench: Bench) -> None:
    one, other = await bench.hire(), await bench.hire()
    rates = [await worker.rates.count(ADA) for worker in (one, other, one, other)]
    assert [(rate.remaining, rate.exceeded) for rate in rates if rate] == [
        (2, False),
        (1, False),
        (0, False),
        (0, True),
    ]


async def test_death_of_a_worker_frees_what_it_held(bench: Bench) -> None:
    one, other = await bench.hire(), await bench.hire()
    await one.ledger.admit(ADA, 10)
    await one.ledger.admit(ADA, 10)
    await one.turns.take("name", lambda: None)
    await one.turns.try_take("key")
    waiting = asyncio.ensure_future(other.turns.take("name", lambda: None))
    await bench.settle()
    await bench.die(one)
    await waiting
    assert bench.counted.admission.running == 0
    assert await other.turns.try_take("key") is not None


async def test_death_of_a_worker_ends_what_it_waits_for(bench: Bench) -> None:
    one, other = await bench.hire(), await bench.hire()
    let_go = await one.turns.take("name", lambda: None)
    waiting = asyncio.ensure_future(other.turns.take("name", lambda: None))
    await bench.settle()
    await bench.die(other)
    with pytest.raises(Unavailable):
        await waiting
    await bench.settle()
    let_go()
    await bench.settle()
    assert not bench.counted.turns.taken("name")


async def test_keys_on_their_way_are_those_of_all_workers(bench: Bench) -> None:
    another = Key("11" * 16)
    await bench.hire(KEY)
    dying = await bench.hire(another)
    assert await bench.office.active_keys() == {KEY, another}
    asking = asyncio.ensure_future(bench.office.active_keys())
    await asyncio.sleep(0)
    dying._channel.close()
    assert await asking >= {KEY}
    assert await bench.office.active_keys() == {KEY}


async def test_renewed_certificate_is_told_to_all_and_to_those_who_come_later(bench: Bench) -> None:
    workers = [await bench.hire(), await bench.hire()]
    assert bench.renewed == []
    bench.office.renew()
    await bench.settle()
    assert sorted(bench.renewed, key=id) == sorted(workers, key=id)
    assert bench.renewed[2:] == [] != [await bench.hire()]
    assert len(bench.renewed) == 3


async def test_end_of_the_office_is_told(bench: Bench) -> None:
    worker = await bench.hire()
    bench.serving[0].cancel()
    await asyncio.gather(*bench.serving, return_exceptions=True)
    await bench.settle()
    assert bench.orphaned == [worker]
    with pytest.raises(Unavailable):
        await worker.ledger.admit(ADA, 10)
