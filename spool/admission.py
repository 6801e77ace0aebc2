"""Who may start an upload now: the ledger of slots, of disk space and of quota that running uploads hold.

What is held leaves the ledger once the index counts it and the disk shows it. Whoever reads index and disk meanwhile
may have looked too early, so what left since then counts as still held.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, replace
from math import inf
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from spool.errors import QuotaExceeded, StorageFull, TooMany
from spool.model import Usage

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from spool.model import Principal

_AHEAD: Final = 16 * 1024 * 1024
"""What an upload of unknown size holds beyond what it has written, and takes anew whenever that is used up."""
_MOST_HELD: Final = 256 * 1024
"""Bytes that one upload may keep in memory until its commit writes them."""
_LOOKS: Final = 3
"""How often index and disk are read before a refusal that may rest on having looked too early."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """How much running uploads may take together."""

    max_uploads: int
    min_free_space: int
    """Bytes of disk that uploads leave free."""
    look_again: float = 0
    """Seconds after which a look at the disk is too old to admit an upload. A refusal always looks anew."""


class _Disk(NamedTuple):
    """A look at the disk."""

    free: int
    landed: int
    """What had landed before."""
    at: float
    """By the event loop's clock."""


class _View(NamedTuple):
    """What there is beside the running uploads."""

    kept: Usage
    """By the one who asks; never less than it is."""
    free: int
    """On the disk; never more than it is."""
    exact: bool


class Admission:
    """Grants reservations so that together they never pass what each alone respects."""

    def __init__(
        self, capacity: Capacity, free: Callable[[], Awaitable[int]], used: Callable[[str], Awaitable[Usage]]
    ) -> None:
        """`free` tells the bytes free on the disk, `used` what an owner keeps."""
        self._capacity = capacity
        self._free = free
        self._used = used
        self._running: set[Reservation] = set()
        self._left_size: Counter[str] = Counter()
        self._left_files: Counter[str] = Counter()
        """What each owner held that is left to the index to count, ever."""
        self._landed = 0
        """Bytes that are left to the disk to show, ever."""
        self._disk = _Disk(0, 0, -inf)

    @property
    def running(self) -> int:
        """Uploads that hold a reservation."""
        return len(self._running)

    async def admit(self, who: Principal, size: int | None, files: int = 1) -> Reservation:
        """A reservation for an upload of `size` bytes, or of unknown size; to be used as a context manager.

        It may become `files` files that the index does not count yet. Raises TooMany, QuotaExceeded or StorageFull.
        """
        reservation = Reservation(self, who)
        self._check_slots(who)
        await self.extend(reservation, size or 0, _AHEAD if size is None else size, files)
        self._check_slots(who)
        self._running.add(reservation)
        return reservation

    def release(self, reservation: Reservation) -> None:
        """The upload is over: its slot and what it held are free. Idempotent.

        Whatever of it is a record by now, the index counts; whatever of it is on the disk, the disk shows.
        """
        if reservation in self._running:
            self._running.remove(reservation)
            self.leave(reservation, reservation.ahead + reservation.written, reservation.files)
            self.land(reservation.ahead + reservation.arriving)

    def leave(self, reservation: Reservation, size: int, files: int) -> None:
        """So much of what the reservation held is no longer this ledger's to count."""
        self._left_size[reservation.owner] += size
        self._left_files[reservation.owner] += files

    def land(self, size: int) -> None:
        """So many bytes are no longer held, because the disk shows them."""
        self._landed += size

    async def extend(self, reservation: Reservation, least: int, most: int, files: int = 0) -> None:
        """The reservation holds `files` more files and `most` more bytes, or if there is no room for them, `least`.

        Raises QuotaExceeded or StorageFull if there is no room for those either, and holds what it did.
        """
        for look in range(1, _LOOKS + 1):
            view = await self._look(reservation.who, self._capacity.look_again if look == 1 else 0)
            try:
                size = self._choose(reservation.who, view, (most, least), files)
            except (QuotaExceeded, StorageFull):
                if view.exact or look == _LOOKS:
                    raise
            else:
                reservation.ahead += size
                reservation.files += files
                return

    async def _look(self, who: Principal, look_again: float) -> _View:
        owner, allowance, before = who.name, who.allowance, self._disk
        size, files = self._left_size[owner], self._left_files[owner]
        kept = await self._used(owner) if allowance.quota or allowance.quota_files else Usage(0, 0)
        disk = await self._look_at_disk(look_again)
        size, files = self._left_size[owner] - size, self._left_files[owner] - files
        kept = replace(kept, size=kept.size + size, files=kept.files + files)
        landed = self._landed - disk.landed
        return _View(kept, disk.free - landed, exact=disk is not before and not (size or files or landed))

    async def _look_at_disk(self, look_again: float) -> _Disk:
        """A look that is not older than `look_again` seconds."""
        clock = asyncio.get_running_loop().time
        if look_again <= clock() - self._disk.at:
            landed, at = self._landed, clock()
            self._disk = _Disk(await self._free(), landed, at)
        return self._disk

    def _choose(self, who: Principal, view: _View, sizes: tuple[int, int], files: int) -> int:
        """The first of the sizes if there is room for it, else the second."""
        try:
            return self._checked(who, view, sizes[0], files)
        except (QuotaExceeded, StorageFull):
            return self._checked(who, view, sizes[1], files)

    def _checked(self, who: Principal, view: _View, size: int, files: int) -> int:
        self._check_quota(who, view.kept, size, files)
        self._check_space(view.free - size)
        return size

    def _check_slots(self, who: Principal) -> None:
        limit = self._capacity.max_uploads
        if len(self._running) >= limit:
            raise TooMany("as many uploads as this server takes at once are running", limit=limit)
        limit = who.allowance.uploads
        if limit and sum(r.owner == who.name for r in self._running) >= limit:
            raise TooMany("as many of your uploads as you may have at once are running", limit=limit)

    def _check_quota(self, who: Principal, kept: Usage, size: int, files: int) -> None:
        allowance = who.allowance
        if not (allowance.quota or allowance.quota_files):
            return
        running = [r for r in self._running if r.owner == who.name]
        used = kept.size + size + sum(r.ahead + r.written for r in running)
        if allowance.quota and (size or files) and used > allowance.quota:
            raise QuotaExceeded(
                "this upload would exceed the bytes that you may keep", limit=allowance.quota, used=used, unit="bytes"
            )
        used = kept.files + kept.uploads + files + sum(r.files for r in running)
        if allowance.quota_files and files and used > allowance.quota_files:
            raise QuotaExceeded(
                "this upload would exceed the number of files that you may keep",
                limit=allowance.quota_files,
                used=used,
                unit="files",
            )

    def _check_space(self, free: int) -> None:
        if free - sum(r.ahead + r.arriving for r in self._running) < self._capacity.min_free_space:
            raise StorageFull("there is not enough free space for this upload")


class Reservation:
    """What one running upload has written and may still write."""

    def __init__(self, admission: Admission, who: Principal) -> None:
        self._admission = admission
        self.who = who
        self.files = 0
        """Files that it is to become, or has become, without the index counting them."""
        self.ahead = 0
        self.written = 0
        """Bytes that the index does not count yet."""
        self._before = 0
        self._last = 0
        self._held = 0

    @property
    def owner(self) -> str:
        """The principal's name."""
        return self.who.name

    @property
    def arriving(self) -> int:
        """Bytes that were taken, and that the disk may not show yet.

        Those that are held, and of the others those of the last two times: when a writer takes a batch, it has written
        the one before (`BlobWriter.write`).
        """
        return self._before + self._last + self._held

    async def take(self, size: int) -> None:
        """`size` bytes are about to be written. Raises QuotaExceeded or StorageFull if they may not be."""
        await self._draw(size)
        self._admission.land(self._before)
        self._before, self._last = self._last, size

    async def hold(self, size: int) -> bool:
        """Whether `size` bytes may stay in memory until the commit; then they are taken. Raises as `take` does."""
        if self._held + size > _MOST_HELD:
            return False
        await self._draw(size)
        self._held += size
        return True

    async def _draw(self, size: int) -> None:
        if size > self.ahead:
            needed = size - self.ahead
            await self._admission.extend(self, needed, max(needed, _AHEAD))
        self.ahead -= size
        self.written += size

    async def add_file(self) -> None:
        """The upload is to become one file more. Raises QuotaExceeded or StorageFull."""
        await self._admission.extend(self, 0, 0, 1)

    def recorded(self) -> None:
        """All that was taken is on the disk, and the index counts it from now on."""
        self._admission.leave(self, self.written, 0)
        self._admission.land(self.arriving)
        self.written = self._before = self._last = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._admission.release(self)
