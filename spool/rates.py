"""How often a principal asks: its requests of one minute, counted in memory and kept in the index a little later."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, replace
from datetime import timedelta
from math import ceil
from typing import TYPE_CHECKING, Final, Protocol

from spool.errors import RateLimited, SpoolError
from spool.model import Window

if TYPE_CHECKING:
    from spool.model import Principal
    from spool.ports import Allowances, Clock

_log = logging.getLogger(__name__)

SECONDS: Final = 60
_LENGTH: Final = timedelta(seconds=SECONDS)


@dataclass(frozen=True, slots=True)
class Rate:
    """Where a principal stands in its minute."""

    limit: int
    remaining: int
    reset: int
    """Seconds until all of it may be used again; at least 1."""
    exceeded: bool

    def require(self) -> None:
        """Raises RateLimited if this request was one too many."""
        if self.exceeded:
            detail = f"you may send {self.limit} requests a minute"
            raise RateLimited(detail, self.reset, limit=self.limit, window=SECONDS)


class Counter(Protocol):
    """Counts requests, of all processes together."""

    async def count(self, who: Principal) -> Rate | None:
        """Counts one request, unless it is one too many; None for a principal that may send any number."""


class Rates:
    """Counts requests. A minute begins with the first request after the last minute is over."""

    def __init__(self, index: Allowances, clock: Clock) -> None:
        self._index = index
        self._clock = clock
        self._windows: dict[str, Window] = {}
        self._unsaved: set[str] = set()

    async def restore(self) -> None:
        """Goes on where `save` left off."""
        self._windows = {window.owner: window for window in await self._index.windows()}

    async def count(self, who: Principal) -> Rate | None:
        limit = who.allowance.requests_per_minute
        if not limit:
            return None
        now = self._clock()
        account = who.account
        window = self._windows.get(account)
        if window is None or not window.since <= now < window.since + _LENGTH:
            window = Window(account, now, 0)
        exceeded = window.requests >= limit
        if not exceeded:
            window = self._windows[account] = replace(window, requests=window.requests + 1)
            self._unsaved.add(account)
        reset = ceil((window.since + _LENGTH - now).total_seconds())
        return Rate(limit, max(limit - window.requests, 0), reset, exceeded)

    async def save(self) -> None:
        """The index has what was counted since it last had, in one transaction; nothing is asked of it otherwise."""
        unsaved, self._unsaved = self._unsaved, set()
        if not unsaved:
            return
        over = self._clock() - _LENGTH
        try:
            await self._index.keep_windows([self._windows[owner] for owner in unsaved], over)
        except BaseException:
            self._unsaved |= unsaved
            raise
        ended = [w.owner for w in self._windows.values() if w.since <= over and w.owner not in self._unsaved]
        for owner in ended:
            del self._windows[owner]

    async def save_if_possible(self) -> None:
        """As `save`; what the index cannot take is told to the log, and kept for the next time."""
        try:
            await self.save()
        except SpoolError as error:
            _log.warning("rates.unsaved", {"reason": str(error)})

    async def keep_saving(self) -> None:
        """No request waits for the index to count it: a crash may give back what was counted in the last second."""
        while True:
            await asyncio.sleep(1)
            await self.save_if_possible()


if TYPE_CHECKING:
    _counter: type[Counter] = Rates
