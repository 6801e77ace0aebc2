"""The office's side: what is counted once, and what each worker holds of it."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from dataclasses import fields
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from spool.crew.channel import open_channel
from spool.errors import Unavailable
from spool.metrics import Metrics, Tally
from spool.model import Allowance, Grant, GrantId, Key, Principal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from socket import socket

    from spool.admission import Admission, Reservation
    from spool.counting import Attempts, Turns
    from spool.crew.channel import Asks, Channel, Notes
    from spool.rates import Rates

_ALLOWANCE: Final = tuple(field.name for field in fields(Allowance))
"""In the order in which an allowance is told."""
_PATIENCE: Final = 2.0
"""Seconds in which a worker tells its tally."""
_EVER: Final = datetime.max.replace(tzinfo=UTC)


class Counted(NamedTuple):
    """What is counted once, however many processes serve."""

    admission: Admission
    rates: Rates
    turns: Turns
    attempts: Attempts


class Office:
    """Serves workers, each over a channel of its own."""

    def __init__(self, counted: Counted, tally: Callable[[], Tally]) -> None:
        """`tally` is the office's own, whose ledger knows all uploads that run."""
        self._counted = counted
        self._own = tally
        self._desks: set[_Desk] = set()
        self._departed = Metrics()
        """What workers that are gone had last told."""
        self._renewed = False

    async def serve(self, end: socket, ready: Callable[[int], None], leave: Callable[[], None]) -> None:
        """Serves a worker until it is gone, and lets go of what it held.

        `ready` is told, once it answers requests, how many connections it takes; `leave`, when it takes no more.
        """

        def begin(connections: int) -> None:
            if self._renewed:
                desk.renew()
            ready(connections)

        desk, gone = _Desk(self._counted, self._tally, begin, leave), asyncio.Event()
        desk.channel = await open_channel(end, desk.asks, desk.notes, gone.set)
        self._desks.add(desk)
        try:
            await gone.wait()
        finally:
            self._desks.discard(desk)
            self._departed.add(desk.tally.counts)
            desk.channel.close()
            desk.let_go_of_all()

    def renew(self) -> None:
        """The files of the certificate are new, and of use: all workers read them, also one that has just begun."""
        self._renewed = True
        for desk in self._desks:
            desk.renew()

    async def active_keys(self) -> frozenset[Key]:
        """Keys of blobs that are on their way in any worker. Those of a worker that is gone are on no way."""
        answers = await asyncio.gather(*(desk.active_keys() for desk in self._desks))
        return frozenset().union(*answers)

    async def _tally(self) -> Sequence[object]:
        """What all have counted, those too that are gone: as they last told, so that no scrape is told less later."""
        await asyncio.gather(*(desk.look() for desk in self._desks if desk.serves))
        metrics, _, queued, pids = self._own()
        total, waiting = Metrics(), Counter(queued)
        tallies = [desk.tally for desk in self._desks if desk.tally.pid]
        for counts in (metrics.told(), self._departed.told(), *(tally.counts for tally in tallies)):
            total.add(counts)
        for tally in tallies:
            waiting.update(tally.queued)
        running = self._counted.admission.running
        return total.told(), running, waiting, [*pids, *(tally.pid for tally in tallies)]


class _Told(NamedTuple):
    """A worker's tally."""

    counts: Mapping[str, Any] = MappingProxyType({})
    queued: Mapping[str, int] = MappingProxyType({})
    pid: int = 0
    """0 before it has told one."""


class _Desk:
    """What one worker holds, by the numbers that it gave."""

    def __init__(
        self,
        counted: Counted,
        tally: Callable[[], Awaitable[object]],
        ready: Callable[[int], None],
        leave: Callable[[], None],
    ) -> None:
        self.serves = False
        self._serving = ready
        self._leave = leave
        self.channel: Channel
        self.tally = _Told()
        self._admission, self._rates, self._turns, attempts = counted
        self._reservations: dict[int, Reservation] = {}
        self._turns_held: dict[int, Callable[[], None]] = {}
        self.asks: Asks = {
            "admit": self._admit,
            "take": self._take,
            "hold": self._hold,
            "add_file": self._add_file,
            "count": self._count,
            "turn": self._turn,
            "try_turn": self._try_turn,
            "leave": self._take_leave,
            "tally": tally,
            "wait": attempts.wait,
            "failed": attempts.failed,
        }
        self.notes: Notes = {
            "ready": self._ready,
            "taken": self._taken,
            "held": self._held,
            "recorded": self._recorded,
            "release": self._release,
            "let_go": self._let_go,
        }

    def _ready(self, connections: int) -> None:
        self.serves = True
        self._serving(connections)

    async def active_keys(self) -> list[Key]:
        try:
            keys: list[Key] = await self.channel.ask("active")
        except Unavailable:
            return []
        return keys

    def renew(self) -> None:
        self.channel.tell("renew")

    async def look(self) -> None:
        """The tally is what the worker tells now, or told last if it stands still."""
        with suppress(Unavailable, TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                self.tally = _Told(*await self.channel.ask("tally"))

    def let_go_of_all(self) -> None:
        """The worker is gone. Whoever asks in its name now is cancelled."""
        for number in list(self._reservations):
            self._release(number)
        for number in list(self._turns_held):
            self._let_go(number)

    async def _admit(self, number: int, who: Sequence[Any], size: int | None, files: int, least: int | None) -> int:
        reservation = await self._admission.admit(_principal(*who), size, files, least=least)
        self._reservations[number] = reservation
        return reservation.ahead

    def _reservation(self, number: int) -> Reservation:
        """Raises Unavailable if it was released: whoever asked was cancelled, before the ask came to its turn."""
        try:
            return self._reservations[number]
        except KeyError as error:
            raise Unavailable("this upload is over") from error

    async def _take(self, number: int, size: int) -> int:
        reservation = self._reservation(number)
        await reservation.take(size)
        return reservation.ahead

    async def _hold(self, number: int, size: int) -> int:
        reservation = self._reservation(number)
        await reservation.hold(size)
        return reservation.ahead

    async def _add_file(self, number: int) -> None:
        await self._reservation(number).add_file()

    def _taken(self, number: int, size: int) -> None:
        self._reservations[number].taken(size)

    def _held(self, number: int, size: int) -> None:
        self._reservations[number].held(size)

    def _recorded(self, number: int) -> None:
        self._reservations[number].recorded()

    def _release(self, number: int) -> None:
        self._admission.release(self._reservations.pop(number))

    async def _count(self, who: Sequence[Any]) -> list[object] | None:
        rate = await self._rates.count(_principal(*who))
        return None if rate is None else [rate.limit, rate.remaining, rate.reset, rate.exceeded]

    async def _turn(self, number: int, name: str) -> None:
        self._turns_held[number] = await self._turns.take(name, lambda: self.channel.tell("stop", number))

    async def _try_turn(self, number: int, name: str) -> bool:
        let_go = await self._turns.try_take(name)
        if let_go is not None:
            self._turns_held[number] = let_go
        return let_go is not None

    async def _take_leave(self) -> None:
        self._leave()

    def _let_go(self, number: int) -> None:
        self._turns_held.pop(number)()


def told(who: Principal) -> Sequence[object]:
    """Of a principal what is counted by: its name, its allowance, and the bounds of a guest's grant."""
    allowance = [getattr(who.allowance, name) for name in _ALLOWANCE]
    return who.name, allowance, who.grant and (who.grant.id, who.grant.max_files, who.grant.max_size)


def _principal(name: str, allowance: Sequence[int], bounds: tuple[GrantId, int, int] | None) -> Principal:
    """The principal of whom this was told; it has no scopes, and of its grant nothing else is true."""
    grant = bounds and Grant(bounds[0], name, "", _EVER, _EVER, *bounds[1:])
    return Principal(name, frozenset(), Allowance(**dict(zip(_ALLOWANCE, allowance, strict=True))), grant)
