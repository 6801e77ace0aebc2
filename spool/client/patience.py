"""How often, and after which time, something is tried again."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Final, TypeVar

from spool.client.failures import Failure, Unreachable, Untrusted
from spool.client.problems import is_passing
from spool.errors import SpoolError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

_FIRST: Final = 0.5
_LONGEST: Final = 30.0
"""Seconds. A server that asks for more is given that."""


class Patience:
    """A number of tries, with a longer wait after each. Progress gives all of them anew."""

    def __init__(self, tries: int) -> None:
        """`tries` counts the first one. Raises ValueError if there is none."""
        if tries < 1:
            raise ValueError("at least one try is needed")
        self._tries = tries
        self.failed = 0
        """How many tries failed since the last progress."""

    def renew(self) -> None:
        """There was progress."""
        self.failed = 0

    async def wait(self, error: SpoolError | Failure) -> None:
        """Returns when it is time for the next try. Raises `error` if no try is left or none would help."""
        self.failed += 1
        if self.failed >= self._tries or not _may_pass(error):
            raise error
        await asyncio.sleep(_delay(error, self.failed))


async def persist(tries: int, action: Callable[[], Awaitable[T]]) -> T:
    """What `action` gives, tried up to `tries` times; it must be harmless to do twice. Raises its last error."""
    patience = Patience(tries)
    while True:
        try:
            return await action()
        except (SpoolError, Failure) as error:
            await patience.wait(error)


def _may_pass(error: SpoolError | Failure) -> bool:
    if isinstance(error, SpoolError):
        return is_passing(error)
    return isinstance(error, Unreachable) and not isinstance(error, Untrusted)


def _delay(error: SpoolError | Failure, failed: int) -> float:
    """Seconds to wait; not the same for all clients that a server has just lost."""
    asked = error.retry_after if isinstance(error, SpoolError) else None
    delay = min(_FIRST * float(1 << min(failed - 1, 10)), _LONGEST)
    return max(float(asked or 0), delay * random.uniform(0.5, 1))  # noqa: S311  # nobody gains by guessing it
