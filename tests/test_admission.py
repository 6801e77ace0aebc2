from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spool.admission import Admission, Capacity
from spool.errors import QuotaExceeded, SpoolError, StorageFull, TooMany
from spool.model import Allowance, Principal, Usage
from tests.process import EFFORT

if TYPE_CHECKING:
    from collections.abc import Iterable

    from spool.admission import Reservation

MIB = 2**20
STEP = 16 * MIB
"""What an upload of unknown size holds beyond what it has written."""
NOTHING = Usage(0, 0)


@dataclass
class Disk:
    """So much is free, and owners keep so much."""

    available: int
    kept: dict[str, Usage] = field(default_factory=dict)

    async def free(self) -> int:
        await asyncio.sleep(0)
        return self.available

    async def used(self, owner: str) -> Usage:
        await asyncio.sleep(0)
        return self.kept.get(owner, NOTHING)


def an_admission(disk: Disk, *, max_uploads: int = 100, min_free_space: int = 0) -> Admission:
    return Admission(Capacity(max_uploads, min_free_space), disk.free, disk.used, disk.used)


def a(name: str, *, quota: int = 0, quota_files: int = 0, uploads: int = 0) -> Principal:
    return Principal(name, frozenset(), Allowance(quota=quota, quota_files=quota_files, uploads=uploads))


ADA, BOB, EVE = a("ada"), a("bob"), a("eve")


async def test_upload_of_known_size_holds_that_much() -> None:
    admission = an_admission(Disk(1000))
    reservation = await admission.admit(ADA, 600)
    assert (reservation.ahead, reservation.written, admission.running) == (600, 0, 1)


# slots


async def test_slots_are_limited() -> None:
    admission = an_admission(Disk(1000), max_uploads=2)
    await admission.admit(ADA, 1)
    await admission.admit(BOB, 1)
    with pytest.raises(TooMany) as refusal:
        await admission.admit(EVE, 1)
    assert refusal.value.members == {"limit": 2}


async def test_slots_of_one_principal_are_limited_for_it_alone() -> None:
    admission, ada = an_admission(Disk(1000)), a("ada", uploads=2)
    first = await admission.admit(ada, 1)
    await admission.admit(ada, 1)
    with pytest.raises(TooMany) as refusal:
        await admission.admit(ada, 1)
    assert refusal.value.members == {"limit": 2}
    await admission.admit(a("bob", uploads=2), 1)
    admission.release(first)
    await admission.admit(ada, 1)


async def test_last_slot_goes_to_one_of_two_at_once() -> None:
    for admission, who in (
        (an_admission(Disk(1000), max_uploads=1), (ADA, BOB)),
        (an_admission(Disk(1000)), (a("ada", uploads=1), a("ada", uploads=1))),
    ):
        outcomes = await asyncio.gather(*(admission.admit(each, 1) for each in who), return_exceptions=True)
        assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Reservation", "TooMany"]
        assert admission.running == 1


async def test_slot_is_free_when_the_upload_is_over() -> None:
    admission = an_admission(Disk(1000), max_uploads=1)
    with await admission.admit(ADA, 1):
        assert admission.running == 1
    with await admission.admit(BOB, 1):
        pass
    assert admission.running == 0


async def test_slot_is_free_when_the_upload_failed() -> None:
    admission = an_admission(Disk(1000))
    with pytest.raises(ZeroDivisionError), await admission.admit(ADA, 1):
        raise ZeroDivisionError
    assert admission.running == 0


async def test_release_is_idempotent() -> None:
    admission = an_admission(Disk(1000), max_uploads=2)
    first, second = await admission.admit(ADA, 1), await admission.admit(BOB, 1)
    admission.release(first)
    admission.release(first)
    assert admission.running == 1
    admission.release(second)


# space


async def test_free_space_remains() -> None:
    admission = an_admission(Disk(1000), min_free_space=400)
    await admission.admit(ADA, 600)
    with pytest.raises(StorageFull):
        await admission.admit(ADA, 1)


async def test_reserved_space_is_not_given_twice() -> None:
    admission = an_admission(Disk(1000))
    outcomes = await asyncio.gather(admission.admit(ADA, 600), admission.admit(BOB, 600), return_exceptions=True)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Reservation", "StorageFull"]


async def test_space_is_free_again_when_the_upload_is_over() -> None:
    admission = an_admission(Disk(1000))
    admission.release(await admission.admit(ADA, 1000))
    await admission.admit(BOB, 1000)


async def test_bytes_that_the_disk_does_not_show_yet_are_held() -> None:
    disk = Disk(1000)
    admission = an_admission(disk)
    reservation = await admission.admit(ADA, 600)
    for size in (100, 200, 300):
        await reservation.take(size)
    disk.available -= 100  # the batch before the last two is on the disk
    assert reservation.arriving == 500
    with pytest.raises(StorageFull):
        await admission.admit(BOB, 401)
    await admission.admit(BOB, 400)


async def test_one_look_at_the_disk_serves_several_uploads_but_no_refusal() -> None:
    disk, looks = Disk(1000), 0

    async def free() -> int:
        nonlocal looks
        looks += 1
        return disk.available

    admission = Admission(Capacity(100, 0, look_again=3600), free, disk.used, disk.used)
    for _ in range(5):
        await admission.admit(ADA, 200)
    assert looks == 1
    with pytest.raises(StorageFull):
        await admission.admit(ADA, 1)
    disk.available = 1001
    await admission.admit(ADA, 1)
    assert looks == 3


async def test_what_has_landed_since_the_look_is_not_given_twice() -> None:
    disk = Disk(1000)
    admission = Admission(Capacity(100, 0, look_again=3600), disk.free, disk.used, disk.used)
    with await admission.admit(ADA, 600) as reservation:
        await reservation.take(600)
        disk.available -= 600
    with pytest.raises(StorageFull):
        await admission.admit(ADA, 600)
    await admission.admit(ADA, 400)


async def test_bytes_in_memory_are_held_until_the_upload_is_over() -> None:
    disk = Disk(1000)
    admission = an_admission(disk)
    reservation = await admission.admit(ADA, 600)
    assert await reservation.hold(100)
    for size in (100, 200, 200):
        await reservation.take(size)
    disk.available -= 100  # the batch before the last two is on the disk; what is held is not
    assert (reservation.arriving, reservation.written, reservation.ahead) == (500, 600, 0)
    with pytest.raises(StorageFull):
        await admission.admit(BOB, 401)
    disk.available -= 500
    admission.release(reservation)
    await admission.admit(BOB, 400)


async def test_bytes_in_memory_are_limited_and_count_as_written() -> None:
    admission = an_admission(Disk(10**9))
    reservation = await admission.admit(Principal("ada", frozenset(), Allowance(quota=300_000)), None)
    assert [await reservation.hold(100_000) for _ in range(4)] == [True, True, False, False]
    assert reservation.written == 200_000
    await reservation.take(100_000)
    with pytest.raises(QuotaExceeded):
        await reservation.hold(1)


async def test_bytes_that_land_while_another_asks_are_not_given_twice() -> None:
    disk = Disk(1000)

    async def free() -> int:
        seen = disk.available
        if admission.running:
            disk.available -= first.arriving
            admission.release(first)
        return seen

    admission = Admission(Capacity(100, 0), free, disk.used, disk.used)
    first = await admission.admit(ADA, 600)
    await first.take(600)
    with pytest.raises(StorageFull):
        await admission.admit(BOB, 600)
    await admission.admit(BOB, 400)


async def test_refusal_that_rests_on_a_look_too_early_is_looked_at_again() -> None:
    disk = Disk(1000)

    async def free() -> int:
        if admission.running:
            admission.release(first)  # without a byte on the disk
        return disk.available

    admission = Admission(Capacity(100, 0), free, disk.used, disk.used)
    first = await admission.admit(ADA, 600)
    await admission.admit(BOB, 600)
    assert admission.running == 1


async def test_upload_of_known_size_asks_no_more_for_what_it_holds() -> None:
    disk = Disk(1000)
    reservation = await an_admission(disk).admit(ADA, 600)
    disk.available = 0
    await reservation.take(400)
    await reservation.take(200)
    assert (reservation.ahead, reservation.written) == (0, 600)


async def test_upload_of_unknown_size_holds_a_step() -> None:
    reservation = await an_admission(Disk(100 * MIB)).admit(ADA, None)
    assert reservation.ahead == STEP


async def test_upload_of_unknown_size_takes_a_step_more_when_it_is_used_up() -> None:
    reservation = await an_admission(Disk(100 * MIB)).admit(ADA, None)
    await reservation.take(STEP)
    assert (reservation.ahead, reservation.written) == (0, STEP)
    await reservation.take(1)
    assert (reservation.ahead, reservation.written) == (STEP - 1, STEP + 1)


async def test_batch_larger_than_a_step_is_taken_whole() -> None:
    reservation = await an_admission(Disk(100 * MIB)).admit(ADA, None)
    await reservation.take(3 * STEP)
    assert (reservation.ahead, reservation.written) == (0, 3 * STEP)


async def test_upload_of_unknown_size_ends_where_space_does() -> None:
    reservation = await an_admission(Disk(20 * MIB)).admit(ADA, None)
    await reservation.take(STEP)
    await reservation.take(4 * MIB)
    with pytest.raises(StorageFull):
        await reservation.take(1)
    assert (reservation.ahead, reservation.written) == (0, STEP + 4 * MIB)


# quota


async def test_quota_counts_files_and_running_uploads() -> None:
    ada = a("ada", quota=100)
    for kept in (0, 30):
        admission = an_admission(Disk(1000, {"ada": Usage(1, kept)}))
        await admission.admit(ada, 60)
        with pytest.raises(QuotaExceeded) as refusal:
            await admission.admit(ada, 41 - kept)
        assert refusal.value.members == {"limit": 100, "used": 101, "unit": "bytes"}


async def test_quota_of_files_counts_files_unfinished_and_running_uploads() -> None:
    ada = a("ada", quota_files=6)
    admission = an_admission(Disk(1000, {"ada": Usage(2, 0, 1)}))
    with pytest.raises(QuotaExceeded) as refusal:
        await admission.admit(ada, 0, files=4)
    assert refusal.value.members == {"limit": 6, "used": 7, "unit": "files"}
    form = await admission.admit(ada, 0)
    await form.add_file()
    await admission.admit(ada, 0)
    with pytest.raises(QuotaExceeded):
        await form.add_file()
    with pytest.raises(QuotaExceeded):
        await admission.admit(ada, 0)
    assert form.files == 2


async def test_what_adds_nothing_is_not_refused_for_a_quota_that_was_lowered() -> None:
    ada = a("ada", quota=100, quota_files=1)
    admission = an_admission(Disk(1000, {"ada": Usage(2, 300, 1)}))
    await admission.admit(ada, 0, files=0)
    for size, files in ((1, 0), (0, 1)):
        with pytest.raises(QuotaExceeded):
            await admission.admit(ada, size, files)


async def test_quota_counts_what_an_upload_has_written() -> None:
    ada, admission = a("ada", quota=100), an_admission(Disk(1000))
    reservation = await admission.admit(ada, 60)
    await reservation.take(60)
    with pytest.raises(QuotaExceeded):
        await admission.admit(ada, 41)


async def test_quota_does_not_count_twice_what_the_index_counts_by_now() -> None:
    ada, disk = a("ada", quota=100), Disk(1000)
    admission = an_admission(disk)
    reservation = await admission.admit(ada, 60, files=0)
    await reservation.take(60)
    disk.kept["ada"] = Usage(0, 60, 1)
    reservation.recorded()
    assert (reservation.written, reservation.arriving) == (0, 0)
    await admission.admit(ada, 40)


async def test_quota_of_one_is_not_anothers() -> None:
    admission = an_admission(Disk(1000, {"ada": Usage(1, 100)}))
    await admission.admit(a("bob", quota=100, quota_files=1), 100)


async def test_no_quota_asks_for_no_usage() -> None:
    async def used(_owner: str) -> Usage:
        raise AssertionError

    disk = Disk(1000)
    await Admission(Capacity(1, 0), disk.free, used, used).admit(ADA, 1000)


@pytest.mark.parametrize("ada", [a("ada", quota=100), a("ada", quota_files=1)], ids=["bytes", "files"])
@pytest.mark.parametrize("taken", [60, 0], ids=["a file", "a promise"])
async def test_quota_counts_an_upload_that_is_recorded_while_another_asks(ada: Principal, taken: int) -> None:
    disk = Disk(1000)

    async def free() -> int:
        if admission.running:
            disk.kept["ada"] = Usage(1, 60)
            admission.release(first)
        return disk.available

    admission = Admission(Capacity(100, 0), free, disk.used, disk.used)
    first = await admission.admit(ada, 60)
    await first.take(taken)
    with pytest.raises(QuotaExceeded):
        await admission.admit(ada, 60)


async def test_quota_of_one_does_not_count_an_upload_of_another_that_ends_while_it_asks() -> None:
    disk, looks = Disk(1000), []

    async def free() -> int:
        looks.append(admission.running)
        if admission.running:
            admission.release(others)
        return disk.available

    admission = Admission(Capacity(100, 0), free, disk.used, disk.used)
    others = await admission.admit(a("bob", quota=100), 60)
    await others.take(60)
    await admission.admit(a("ada", quota=100), 60)
    assert looks == [0, 1]


# any steps, one after the other


@dataclass(frozen=True)
class Admit:
    owner: str
    size: int | None
    files: int


@dataclass(frozen=True)
class Take:
    which: int
    size: int


@dataclass(frozen=True)
class AddFile:
    which: int


@dataclass(frozen=True)
class Release:
    which: int
    committed: bool


Step = Admit | Take | AddFile | Release

sizes = st.integers(0, 40 * MIB)
steps = st.lists(
    st.builds(Admit, st.sampled_from(["ada", "bob"]), st.none() | sizes, st.integers(0, 3))
    | st.builds(Take, st.integers(0, 9), sizes)
    | st.builds(AddFile, st.integers(0, 9))
    | st.builds(Release, st.integers(0, 9), st.booleans()),
    max_size=40,
)

SPACE, KEEP_FREE, QUOTA, FILES, SLOTS, OWN_SLOTS = 200 * MIB, 20 * MIB, 120 * MIB, 7, 5, 3


def held(reservations: Iterable[Reservation]) -> list[tuple[int, int, int]]:
    return [(r.ahead, r.written, r.files) for r in reservations]


class Ledger:
    """Does the steps, and keeps books of its own. Its disk shows at once what was taken."""

    def __init__(self) -> None:
        self.disk = Disk(SPACE)
        self.admission = an_admission(self.disk, max_uploads=SLOTS, min_free_space=KEEP_FREE)
        self.running: list[Reservation] = []

    async def do(self, step: Step) -> None:
        match step:
            case Admit():
                who = a(step.owner, quota=QUOTA, quota_files=FILES, uploads=OWN_SLOTS)
                self.running.append(await self.admission.admit(who, step.size, step.files))
            case Take() if self.running:
                reservation = self.running[step.which % len(self.running)]
                await reservation.take(step.size)
                self.disk.available -= step.size
            case AddFile() if self.running:
                await self.running[step.which % len(self.running)].add_file()
            case Release() if self.running:
                self.end(self.running.pop(step.which % len(self.running)), committed=step.committed)

    def end(self, reservation: Reservation, *, committed: bool) -> None:
        self.admission.release(reservation)
        if committed:
            kept = self.disk.kept.get(reservation.owner, NOTHING)
            files, size = kept.files + reservation.files, kept.size + reservation.written
            self.disk.kept[reservation.owner] = Usage(files, size)
        else:
            self.disk.available += reservation.written

    def check(self) -> None:
        assert self.admission.running == len(self.running) <= SLOTS
        assert all(number >= 0 for numbers in held(self.running) for number in numbers)
        assert self.disk.available - sum(r.ahead for r in self.running) >= KEEP_FREE
        for owner in ("ada", "bob"):
            own = [r for r in self.running if r.owner == owner]
            kept = self.disk.kept.get(owner, NOTHING)
            assert len(own) <= OWN_SLOTS
            assert kept.size + sum(r.ahead + r.written for r in own) <= QUOTA
            assert kept.files + sum(r.files for r in own) <= FILES


@given(steps)
async def test_ledger_is_exact_after_any_steps(steps: list[Step]) -> None:
    ledger = Ledger()
    for step in steps:
        before = held(ledger.running)
        try:
            await ledger.do(step)
        except SpoolError:
            assert held(ledger.running) == before
        ledger.check()
    while ledger.running:
        ledger.end(ledger.running.pop(), committed=False)
    kept, ada = ledger.disk.kept.get("ada", NOTHING), a("ada", quota=QUOTA, quota_files=FILES)
    room = min(QUOTA - kept.size, ledger.disk.available - KEEP_FREE)
    with await ledger.admission.admit(ada, room, FILES - kept.files):
        pass
    for size, files in ((room + 1, 0), (0, FILES - kept.files + 1)):
        with pytest.raises(SpoolError):
            await ledger.admission.admit(ada, size, files)
    assert ledger.admission.running == 0


# a hundred at once


class World:
    """A disk and an index that answer late: a look at them, and what is written, takes a random while."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)  # an order of events
        self.on_disk = self.promised = 0
        self.least_free = SPACE
        self.kept = NOTHING

    async def a_while(self) -> None:
        for _ in range(self.chance.randrange(4)):
            await asyncio.sleep(0)

    async def look_at_disk(self) -> int:
        await self.a_while()
        seen = self.free
        await self.a_while()
        return seen

    @property
    def free(self) -> int:
        return SPACE - self.promised - self.on_disk

    async def look_at_index(self, _owner: str) -> Usage:
        await self.a_while()
        seen = self.kept
        await self.a_while()
        return seen

    async def write(self, size: int) -> None:
        await self.a_while()
        self.on_disk += size
        self.least_free = min(self.least_free, self.free)

    def record(self, size: int, files: int) -> None:
        self.kept = Usage(self.kept.files + files, self.kept.size + size)


@dataclass
class Upload:
    """One upload's way, as Ingest and the handlers go it: a batch is written while the next one is taken."""

    size: int
    known: bool
    files: int
    fails: bool
    promise: bool
    """It is the row of a resumable upload, whose bytes come later."""

    async def run(self, world: World, admission: Admission, who: Principal) -> None:
        with await admission.admit(who, self.size if self.known or self.promise else None) as reservation:
            await world.a_while()
            if self.promise:
                world.promised += self.size
                world.record(self.size, 1)
            else:
                await self.store(world, reservation)
            await world.a_while()

    async def store(self, world: World, reservation: Reservation) -> None:
        written = 0
        try:
            for number in range(self.files):
                if number:
                    await reservation.add_file()
                written += await self.receive(world, reservation, self.size // self.files)
            self.check()
        except BaseException:
            world.on_disk -= written
            raise
        world.record(written, self.files)

    def check(self) -> None:
        if self.fails:
            raise ZeroDivisionError

    async def receive(self, world: World, reservation: Reservation, size: int) -> int:
        left, written, writing = size, 0, asyncio.ensure_future(world.write(0))
        try:
            while left:
                batch = min(left, 3 * MIB)
                await reservation.take(batch)
                await writing
                writing = asyncio.ensure_future(world.write(batch))
                written, left = written + batch, left - batch
            await writing
        except BaseException:
            await writing
            world.on_disk -= written
            raise
        return written


uploads = st.lists(
    st.builds(
        Upload,
        st.integers(0, 9 * MIB),
        st.booleans(),
        st.integers(1, 3),
        st.sampled_from([False] * 3 + [True]),
        st.booleans(),
    ),
    min_size=100,
    max_size=100,
)


@settings(max_examples=20 * EFFORT, deadline=None)
@given(
    st.integers(0, 2**32), uploads, st.sampled_from([0, 90 * MIB]), st.sampled_from([0, 40]), st.sampled_from([0, 3600])
)
async def test_a_hundred_at_once_never_pass_what_each_respects(
    seed: int, uploads: list[Upload], quota: int, quota_files: int, look_again: float
) -> None:
    world = World(seed)
    capacity = Capacity(60, KEEP_FREE, look_again)
    admission = Admission(capacity, world.look_at_disk, world.look_at_index, world.look_at_index)
    who = a("ada", quota=quota, quota_files=quota_files, uploads=50)
    outcomes = await asyncio.gather(*(upload.run(world, admission, who) for upload in uploads), return_exceptions=True)
    assert {type(o) for o in outcomes} <= {type(None), QuotaExceeded, StorageFull, TooMany, ZeroDivisionError}
    assert min(world.least_free, world.free) >= KEEP_FREE
    assert not quota or world.kept.size <= quota
    assert not quota_files or world.kept.files <= quota_files
    assert (admission.running, world.kept.size) == (0, world.on_disk + world.promised)
    with await admission.admit(a("ada"), world.free - KEEP_FREE):  # and nothing is held any more
        pass
