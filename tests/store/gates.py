"""Stores and indexes whose verbs wait to be let go on, so that a test decides how tasks interleave."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_TURNS = 20  # of the event loop, in which a task gets from the end of one verb to the next


class Gatekeeper:
    """Holds calls back until they are let through. One at a time runs, if one at a time is let through and settled."""

    def __init__(self) -> None:
        self.waiting: list[asyncio.Future[None]] = []
        self.open = True
        """Nobody has to wait."""
        self.dead = False
        """Nobody is ever let through again, as after a crash."""
        self._running = 0
        self._idle = asyncio.Event()

    async def enter(self) -> None:
        if self.dead:
            await asyncio.get_running_loop().create_future()
        if not self.open:
            gate = asyncio.get_running_loop().create_future()
            self.waiting.append(gate)
            await gate
        self._running += 1
        self._idle.clear()

    def leave(self) -> None:
        self._running -= 1
        if not self._running:
            self._idle.set()

    async def let_through(self, number: int) -> None:
        """One call goes on; returns when all tasks wait again or are done."""
        self.waiting.pop(number % len(self.waiting)).set_result(None)
        await self.settle()

    async def settle(self) -> None:
        for _ in range(_TURNS):
            await asyncio.sleep(0)
        while self._running:
            await self._idle.wait()
            for _ in range(_TURNS):
                await asyncio.sleep(0)


class Gated:
    """Anything whose async verbs pass a gate; a generator is run to its end at once behind it."""

    def __init__(self, inner: Any, gates: Gatekeeper) -> None:
        self._inner = inner
        self._gates = gates

    def __getattr__(self, name: str) -> Any:
        verb = getattr(self._inner, name)
        if inspect.isasyncgenfunction(verb):
            return lambda *values, **options: self._generate(verb, values, options)
        if inspect.iscoroutinefunction(verb):
            return lambda *values, **options: self._call(verb, values, options)
        return verb

    async def _call(self, verb: Any, values: Any, options: Any) -> Any:
        await self._gates.enter()
        try:
            return await verb(*values, **options)
        finally:
            self._gates.leave()

    async def _generate(self, verb: Any, values: Any, options: Any) -> AsyncIterator[Any]:
        await self._gates.enter()
        try:
            items = [item async for item in verb(*values, **options)]
        finally:
            self._gates.leave()
        for item in items:
            yield item
