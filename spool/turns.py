"""Who is at what: a name is had by one request at a time."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from spool import counting


class _Place:
    """One request's place in the queue for a name."""

    def __init__(self, stop: Callable[[], None]) -> None:
        self.stop = stop
        self.granted = asyncio.Event()


class Turns:
    """Gives names out, each to those who ask in the order in which they asked."""

    def __init__(self) -> None:
        self._queues: dict[str, list[_Place]] = {}
        """The first of each has the name."""

    async def take(self, name: str, stop: Callable[[], None]) -> Callable[[], None]:
        place = _Place(stop)
        queue = self._queues.setdefault(name, [])
        queue.append(place)
        if queue[0] is place:
            return partial(self._let_go, name, place)
        queue[0].stop()
        try:
            await place.granted.wait()
        except BaseException:
            self._let_go(name, place)
            raise
        return partial(self._let_go, name, place)

    async def try_take(self, name: str) -> Callable[[], None] | None:
        return None if self.taken(name) else await self.take(name, _go_on)

    def taken(self, name: str) -> bool:
        return name in self._queues

    def _let_go(self, name: str, place: _Place) -> None:
        queue = self._queues.get(name, [])
        if place not in queue:
            return
        had = queue[0] is place
        queue.remove(place)
        if not queue:
            del self._queues[name]
        elif had:
            queue[0].granted.set()
            if len(queue) > 1:  # they have waited for this one's predecessor, and now wait for this one
                queue[0].stop()


def _go_on() -> None:
    """What has been begun is too short to be stopped."""


if TYPE_CHECKING:
    _turns: type[counting.Turns] = Turns
