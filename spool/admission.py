"""Who may start an upload now: the ledger of slots, of disk space and of quota that running uploads hold."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from spool.errors import QuotaExceeded, StorageFull, TooMany

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_AHEAD: Final = 16 * 1024 * 1024
"""What an upload of unknown size holds beyond what it has written, and takes anew whenever that is used up."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """How much running uploads may take together."""

    max_uploads: int
    min_free_space: int
    """Bytes of disk that uploads leave free."""
    quota: int
    """Bytes that one principal may keep; 0 means as many as there is room for."""


class Admission:
    """Grants reservations so that together they never pass what each alone respects."""

    def __init__(
        self, capacity: Capacity, free: Callable[[], Awaitable[int]], used: Callable[[str], Awaitable[int]]
    ) -> None:
        """`free` tells the bytes free on the disk, `used` those of an owner's files."""
        self._capacity = capacity
        self._free = free
        self._used = used
        self._running: set[Reservation] = set()
        self._released: Counter[str] = Counter()
        """Bytes that each owner wrote under reservations that are over."""

    @property
    def running(self) -> int:
        """Uploads that hold a reservation."""
        return len(self._running)

    async def admit(self, owner: str, size: int | None) -> Reservation:
        """A reservation for an upload of `size` bytes, or of unknown size; to be used as a context manager.

        Raises TooMany, QuotaExceeded or StorageFull.
        """
        reservation = Reservation(self, owner)
        self._check_slots()
        await self.extend(reservation, size or 0, _AHEAD if size is None else size)
        self._check_slots()
        self._running.add(reservation)
        return reservation

    def release(self, reservation: Reservation) -> None:
        """The upload is over: its slot and what it held are free. Idempotent."""
        if reservation in self._running:
            self._running.remove(reservation)
            self._released[reservation.owner] += reservation.written

    async def extend(self, reservation: Reservation, least: int, most: int) -> None:
        """The reservation holds `most` more bytes, or if there is no room for them, `least`.

        Raises QuotaExceeded or StorageFull if there is no room for those either, and holds what it did.
        """
        owner = reservation.owner
        released = self._released[owner]
        used = await self._used(owner) if self._capacity.quota else 0
        free = await self._free()
        # what was committed meanwhile is counted neither in `used` nor among the running
        used += self._released[owner] - released
        try:
            reservation.ahead += self._checked(owner, used, free, most)
        except (QuotaExceeded, StorageFull):
            reservation.ahead += self._checked(owner, used, free, least)

    def _checked(self, owner: str, used: int, free: int, size: int) -> int:
        self._check_quota(owner, used + size)
        self._check_space(free - size)
        return size

    def _check_slots(self) -> None:
        if len(self._running) >= self._capacity.max_uploads:
            raise TooMany("as many uploads as this server takes at once are running", limit=self._capacity.max_uploads)

    def _check_quota(self, owner: str, used: int) -> None:
        quota = self._capacity.quota
        used += sum(r.ahead + r.written for r in self._running if r.owner == owner)
        if quota and used > quota:
            raise QuotaExceeded("this upload would exceed your quota", limit=quota, used=used)

    def _check_space(self, free: int) -> None:
        if free - sum(r.ahead for r in self._running) < self._capacity.min_free_space:
            raise StorageFull("there is not enough free space for this upload")


class Reservation:
    """What one running upload has written and may still write."""

    def __init__(self, admission: Admission, owner: str) -> None:
        self._admission = admission
        self.owner = owner
        self.ahead = 0
        self.written = 0

    async def take(self, size: int) -> None:
        """`size` bytes are about to be written. Raises QuotaExceeded or StorageFull if they may not be."""
        if size > self.ahead:
            needed = size - self.ahead
            await self._admission.extend(self, needed, max(needed, _AHEAD))
        self.ahead -= size
        self.written += size

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._admission.release(self)
