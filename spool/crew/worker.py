"""The worker's side: what is counted at the office, as the ports have it.

What is asked for is kept even if its caller is cancelled meanwhile, and is then given back: only the office knows in
which order things happened.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, Self

from spool.admission import MOST_HELD
from spool.crew.channel import open_channel
from spool.crew.office import told
from spool.errors import Unavailable
from spool.metrics import Metrics, Tally
from spool.rates import Rate

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from socket import socket

    from spool import counting, rates
    from spool.crew.channel import Channel, Notes
    from spool.model import Key, Principal


class Worker:
    """This process's part in the crew. Made by `join`."""

    def __init__(self) -> None:
        self._channel: Channel
        self._active: Callable[[], Collection[Key]] = tuple
        self._tally: Callable[[], Tally]
        self.turns = RemoteTurns(self)
        self.ledger = RemoteLedger(self)
        self.rates = RemoteCounter(self)
        self.attempts = RemoteAttempts(self)
        self._numbers = count(1)

    async def join(self, end: socket, orphaned: Callable[[], None], renewed: Callable[[], None]) -> None:
        """The office is there, at the other end. `orphaned` is called when it is gone.

        `renewed` is called when there is a new certificate, once more too often rather than once too seldom.
        """
        asks = {"active": self._tell_active, "tally": self._tell_tally}
        notes: Notes = {"stop": self.turns.stop, "renew": renewed}
        self._channel = await open_channel(end, asks, notes, orphaned)

    def serve(self, active: Callable[[], Collection[Key]], tally: Callable[[], Tally], connections: int) -> None:
        """This worker answers requests from now on, over so many connections.

        `active` tells the keys of blobs that are on their way, and `tally` what this process has counted.
        """
        self._active, self._tally = active, tally
        self.tell("ready", connections)

    async def leave(self) -> None:
        """This worker is dealt no more connections."""
        with suppress(Unavailable):  # then by nobody
            await self.ask("leave")

    async def _tell_active(self) -> list[Key]:
        return list(self._active())

    async def _tell_tally(self) -> Sequence[object]:
        metrics, _, queued, pids = self._tally()
        return metrics.told(), queued, *pids

    async def gather(self) -> Tally:
        """The tally of all processes together."""
        counts, *rest = await self.ask("tally")
        metrics = Metrics()
        metrics.add(counts)
        return Tally(metrics, *rest)

    def tell(self, verb: str, *values: object) -> None:
        """A note to the office."""
        self._channel.tell(verb, *values)

    async def ask(self, verb: str, *values: object) -> Any:  # noqa: ANN401  # each verb has its own
        """What the office answers."""
        return await self._channel.ask(verb, *values)

    def number(self) -> int:
        """One under which nothing was asked for before."""
        return next(self._numbers)

    async def obtain(self, number: int, verb: str, give_back: str, *values: object) -> Any:  # noqa: ANN401
        """What the office answers when it gives something under our number; given back if the caller is cancelled."""
        answer = self._channel.ask(verb, number, *values)
        try:
            return await asyncio.shield(answer)
        except asyncio.CancelledError:
            answer.add_done_callback(partial(self._give_back, give_back, number))
            raise

    def _give_back(self, verb: str, number: int, answer: asyncio.Future[Any]) -> None:
        given = not answer.cancelled() and answer.exception() is None and answer.result() is not False
        if given:
            self.tell(verb, number)


class RemoteTurns:
    """The turns that the office gives out."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._mine: dict[int, tuple[str, Callable[[], None]]] = {}
        """By number: the name, and how its turn is stopped. Also what is only asked for: it may be stopped before."""

    async def take(self, name: str, stop: Callable[[], None]) -> Callable[[], None]:
        number = self._worker.number()
        self._mine[number] = name, stop
        try:
            await self._worker.obtain(number, "turn", "let_go", name)
        except BaseException:
            del self._mine[number]
            raise
        return partial(self._let_go, number)

    async def try_take(self, name: str) -> Callable[[], None] | None:
        number = self._worker.number()
        if not await self._worker.obtain(number, "try_turn", "let_go", name):
            return None
        self._mine[number] = name, _go_on
        return partial(self._let_go, number)

    def taken(self, name: str) -> bool:
        return any(mine == name for mine, _ in self._mine.values())

    def stop(self, number: int) -> None:
        """The turn is to end soon, if it has not ended by now."""
        if number in self._mine:
            self._mine[number][1]()

    def _let_go(self, number: int) -> None:
        if self._mine.pop(number, None) is not None:
            self._worker.tell("let_go", number)


def _go_on() -> None:
    """Nobody stops who took what others do not wait for."""


class RemoteLedger:
    """The ledger that the office keeps."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._running: set[int] = set()

    @property
    def running(self) -> int:
        return len(self._running)

    async def admit(self, who: Principal, size: int | None, files: int = 1, *, least: int | None = None) -> RemoteHold:
        number = self._worker.number()
        values = told(who), size, files, least
        ahead = await self._worker.obtain(number, "admit", "release", *values)
        self._running.add(number)
        return RemoteHold(self._worker, number, ahead, self._running)


class RemoteHold:
    """A reservation at the office."""

    def __init__(self, worker: Worker, number: int, ahead: int, running: set[int]) -> None:
        self._worker = worker
        self._number = number
        self._ahead = ahead
        self._running = running
        self._held = 0
        self._untold: list[tuple[str, int]] = []
        """Notes that are not told yet: what is released soon comes to the same without them, as most uploads are."""

    async def take(self, size: int) -> None:
        self._tell()
        await self._draw("take", "taken", size)

    async def hold(self, size: int) -> bool:
        if self._held + size > MOST_HELD:
            return False
        await self._draw("hold", "held", size)
        self._held += size
        return True

    async def _draw(self, ask: str, note: str, size: int) -> None:
        if size > self._ahead:
            self._tell()
            self._ahead = await self._worker.ask(ask, self._number, size)
        else:
            self._ahead -= size
            self._untold.append((note, size))

    async def add_file(self) -> None:
        self._tell()
        await self._worker.ask("add_file", self._number)

    def recorded(self) -> None:
        self._tell()
        self._worker.tell("recorded", self._number)

    def _tell(self) -> None:
        for note, size in self._untold:
            self._worker.tell(note, self._number, size)
        self._untold.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._number in self._running:
            self._running.remove(self._number)
            self._worker.tell("release", self._number)


class RemoteCounter:
    """The office's count of requests."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    async def count(self, who: Principal) -> Rate | None:
        if not who.allowance.requests_per_minute:
            return None
        rate = await self._worker.ask("count", told(who))
        return None if rate is None else Rate(*rate)


class RemoteAttempts:
    """The office's count of sign-ins that failed."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    async def wait(self, address: str) -> int:
        seconds: int = await self._worker.ask("wait", address)
        return seconds

    async def failed(self, address: str) -> None:
        await self._worker.ask("failed", address)


if TYPE_CHECKING:
    _attempts: type[counting.Attempts] = RemoteAttempts
    _turns: type[counting.Turns] = RemoteTurns
    _ledger: type[counting.Ledger] = RemoteLedger
    _hold: type[counting.Hold] = RemoteHold
    _counter: type[rates.Counter] = RemoteCounter
