from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spool.admission import Admission, Capacity
from spool.errors import QuotaExceeded, SpoolError, StorageFull, TooMany

if TYPE_CHECKING:
    from spool.admission import Reservation

MIB = 2**20
STEP = 16 * MIB
"""What an upload of unknown size holds beyond what it has written."""


@dataclass
class Disk:
    """So much is free, and owners keep so much."""

    available: int
    kept: dict[str, int] = field(default_factory=dict)

    async def free(self) -> int:
        await asyncio.sleep(0)
        return self.available

    async def used(self, owner: str) -> int:
        await asyncio.sleep(0)
        return self.kept.get(owner, 0)


def an_admission(disk: Disk, *, max_uploads: int = 100, min_free_space: int = 0, quota: int = 0) -> Admission:
    return Admission(Capacity(max_uploads, min_free_space, quota), disk.free, disk.used)


async def test_upload_of_known_size_holds_that_much() -> None:
    admission = an_admission(Disk(1000))
    reservation = await admission.admit("ada", 600)
    assert (reservation.ahead, reservation.written, admission.running) == (600, 0, 1)


async def test_slots_are_limited() -> None:
    admission = an_admission(Disk(1000), max_uploads=2)
    await admission.admit("ada", 1)
    await admission.admit("bob", 1)
    with pytest.raises(TooMany) as refusal:
        await admission.admit("eve", 1)
    assert refusal.value.members == {"limit": 2}


async def test_last_slot_goes_to_one_of_two_at_once() -> None:
    admission = an_admission(Disk(1000), max_uploads=1)
    outcomes = await asyncio.gather(admission.admit("ada", 1), admission.admit("bob", 1), return_exceptions=True)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Reservation", "TooMany"]
    assert admission.running == 1


async def test_slot_is_free_when_the_upload_is_over() -> None:
    admission = an_admission(Disk(1000), max_uploads=1)
    with await admission.admit("ada", 1):
        assert admission.running == 1
    with await admission.admit("bob", 1):
        pass
    assert admission.running == 0


async def test_slot_is_free_when_the_upload_failed() -> None:
    admission = an_admission(Disk(1000))
    with pytest.raises(ZeroDivisionError), await admission.admit("ada", 1):
        raise ZeroDivisionError
    assert admission.running == 0


async def test_release_is_idempotent() -> None:
    admission = an_admission(Disk(1000), max_uploads=2)
    first, second = await admission.admit("ada", 1), await admission.admit("bob", 1)
    admission.release(first)
    admission.release(first)
    assert admission.running == 1
    admission.release(second)


async def test_free_space_remains() -> None:
    admission = an_admission(Disk(1000), min_free_space=400)
    await admission.admit("ada", 600)
    with pytest.raises(StorageFull):
        await admission.admit("ada", 1)


async def test_reserved_space_is_not_given_twice() -> None:
    admission = an_admission(Disk(1000))
    outcomes = await asyncio.gather(admission.admit("ada", 600), admission.admit("bob", 600), return_exceptions=True)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Reservation", "StorageFull"]


async def test_space_is_free_again_when_the_upload_is_over() -> None:
    admission = an_admission(Disk(1000))
    admission.release(await admission.admit("ada", 1000))
    await admission.admit("bob", 1000)


async def test_upload_of_known_size_asks_no_more_for_what_it_holds() -> None:
    disk = Disk(1000)
    reservation = await an_admission(disk).admit("ada", 600)
    disk.available = 0
    await reservation.take(400)
    await reservation.take(200)
    assert (reservation.ahead, reservation.written) == (0, 600)


async def test_upload_of_unknown_size_holds_a_step() -> None:
    reservation = await an_admission(Disk(100 * MIB)).admit("ada", None)
    assert reservation.ahead == STEP


async def test_upload_of_unknown_size_takes_a_step_more_when_it_is_used_up() -> None:
    reservation = await an_admission(Disk(100 * MIB)).admit("ada", None)
    await reservation.take(STEP)
    assert (reservation.ahead, reservation.written) == (0, STEP)
    await reservation.take(1)
    assert (reservation.ahead, reservation.written) == (STEP - 1, STEP + 1)


async def test_batch_larger_than_a_step_is_taken_whole() -> None:
    reservation = await an_admission(Disk(100 * MIB)).admit("ada", None)
    await reservation.take(3 * STEP)
    assert (reservation.ahead, reservation.written) == (0, 3 * STEP)


async def test_upload_of_unknown_size_ends_where_space_does() -> None:
    disk = Disk(20 * MIB)
    reservation = await an_admission(disk).admit("ada", None)
    await reservation.take(STEP)
    disk.available -= STEP
    await reservation.take(4 * MIB)
    disk.available -= 4 * MIB
    with pytest.raises(StorageFull):
        await reservation.take(1)
    assert (reservation.ahead, reservation.written) == (0, STEP + 4 * MIB)


async def test_quota_counts_files_and_running_uploads() -> None:
    admission = an_admission(Disk(1000), quota=100)
    admission_with_files = an_admission(Disk(1000, {"ada": 30}), quota=100)
    await admission.admit("ada", 60)
    await admission_with_files.admit("ada", 70)
    for each, used in ((admission, 101), (admission_with_files, 101)):
        with pytest.raises(QuotaExceeded) as refusal:
            await each.admit("ada", 41 if each is admission else 1)
        assert refusal.value.members == {"limit": 100, "used": used}


async def test_quota_counts_what_an_upload_has_written() -> None:
    admission = an_admission(Disk(1000), quota=100)
    reservation = await admission.admit("ada", 60)
    await reservation.take(60)
    with pytest.raises(QuotaExceeded):
        await admission.admit("ada", 41)


async def test_quota_of_one_is_not_anothers() -> None:
    admission = an_admission(Disk(1000, {"ada": 100}), quota=100)
    await admission.admit("bob", 100)


async def test_no_quota_asks_for_no_usage() -> None:
    async def used(_owner: str) -> int:
        raise AssertionError

    disk = Disk(1000)
    await Admission(Capacity(1, 0, 0), disk.free, used).admit("ada", 1000)


async def test_quota_counts_an_upload_that_is_committed_while_another_asks() -> None:
    disk = Disk(1000)

    async def free() -> int:
        if admission.running:
            disk.kept["ada"] = 60
            admission.release(first)
        return disk.available

    admission = Admission(Capacity(100, 0, 100), free, disk.used)
    first = await admission.admit("ada", 60)
    await first.take(60)
    with pytest.raises(QuotaExceeded):
        await admission.admit("ada", 60)


async def test_quota_of_one_does_not_count_an_upload_of_another_that_ends_while_it_asks() -> None:
    disk = Disk(1000)

    async def free() -> int:
        if admission.running:
            admission.release(others)
        return disk.available

    admission = Admission(Capacity(100, 0, 100), free, disk.used)
    others = await admission.admit("bob", 60)
    await others.take(60)
    await admission.admit("ada", 60)


@dataclass(frozen=True)
class Admit:
    owner: str
    size: int | None


@dataclass(frozen=True)
class Take:
    which: int
    size: int


@dataclass(frozen=True)
class Release:
    which: int
    committed: bool


sizes = st.integers(0, 40 * MIB)
steps = st.lists(
    st.builds(Admit, st.sampled_from(["ada", "bob"]), st.none() | sizes)
    | st.builds(Take, st.integers(0, 9), sizes)
    | st.builds(Release, st.integers(0, 9), st.booleans()),
    max_size=40,
)

SPACE, KEEP_FREE, QUOTA, SLOTS = 200 * MIB, 20 * MIB, 120 * MIB, 5


class Ledger:
    """Does the steps, and keeps books of its own."""

    def __init__(self) -> None:
        self.disk = Disk(SPACE)
        self.admission = an_admission(self.disk, max_uploads=SLOTS, min_free_space=KEEP_FREE, quota=QUOTA)
        self.running: list[Reservation] = []

    async def do(self, step: Admit | Take | Release) -> None:
        match step:
            case Admit():
                self.running.append(await self.admission.admit(step.owner, step.size))
            case Take() if self.running:
                reservation = self.running[step.which % len(self.running)]
                await reservation.take(step.size)
                self.disk.available -= step.size
            case Release() if self.running:
                self.end(self.running.pop(step.which % len(self.running)), committed=step.committed)

    def end(self, reservation: Reservation, *, committed: bool) -> None:
        self.admission.release(reservation)
        if committed:
            kept = self.disk.kept
            kept[reservation.owner] = kept.get(reservation.owner, 0) + reservation.written
        else:
            self.disk.available += reservation.written

    def state(self) -> list[tuple[int, int]]:
        return [(reservation.ahead, reservation.written) for reservation in self.running]

    def check(self) -> None:
        assert self.admission.running == len(self.running) <= SLOTS
        assert all(number >= 0 for numbers in self.state() for number in numbers)
        assert self.disk.available - sum(ahead for ahead, _ in self.state()) >= KEEP_FREE
        for owner in ("ada", "bob"):
            held = sum(r.ahead + r.written for r in self.running if r.owner == owner)
            assert self.disk.kept.get(owner, 0) + held <= QUOTA


@given(steps)
async def test_ledger_is_exact_after_any_steps(steps: list[Admit | Take | Release]) -> None:
    ledger = Ledger()
    for step in steps:
        before = ledger.state()
        try:
            await ledger.do(step)
        except SpoolError:
            assert ledger.state() == before
        ledger.check()
    while ledger.running:
        ledger.end(ledger.running.pop(), committed=False)
    room = min(QUOTA - ledger.disk.kept.get("ada", 0), ledger.disk.available - KEEP_FREE)
    with await ledger.admission.admit("ada", room):
        pass
    with pytest.raises(SpoolError):
        await ledger.admission.admit("ada", room + 1)
    assert ledger.admission.running == 0
