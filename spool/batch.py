"""Group commit: one thread does, in one go, what has queued up while it did the last lot."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Generic, TypeVar

from spool.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")
R = TypeVar("R")


class Batcher(Generic[T, R]):
    """Hands items to `flush` in lots, in the order submitted, on one thread of its own. Serves one event loop.

    There is no timer: a lot is what queued up meanwhile, at most `most` items. `flush` returns one outcome for each
    item: a result, or the exception its submitter is to see. What `flush` raises, every submitter of the lot sees.
    """

    def __init__(self, name: str, flush: Callable[[Sequence[T]], Sequence[R | BaseException]], most: int = 256) -> None:
        self._flush = flush
        self._most = most
        # Unlike a daemon thread, an executor's is joined when the interpreter exits: no lot is lost half-way.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._lock = threading.Lock()  # guards the three below
        self._waiting: deque[tuple[T, asyncio.Future[R]]] = deque()
        self._working = False
        self._closed = False

    @property
    def waiting(self) -> int:
        """Items that wait for the lot under way to end."""
        return len(self._waiting)

    async def submit(self, item: T) -> R:
        """The item's outcome. The item is flushed even if the caller is cancelled.

        Raises Unavailable after `aclose`.
        """
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        with self._lock:
            if self._closed:
                raise Unavailable("The server is shutting down.")
            self._waiting.append((item, future))
            if not self._working:
                self._thread.submit(self._work)
                self._working = True
        return await future

    async def aclose(self) -> None:
        """What was submitted is done, and the thread is gone. Idempotent; completes even if the caller is cancelled."""
        with self._lock:
            self._closed = True
        await asyncio.shield(asyncio.get_running_loop().run_in_executor(None, self._thread.shutdown))

    def _work(self) -> None:
        while lot := self._next_lot():
            outcomes = self._outcomes([item for item, _ in lot])
            futures = [future for _, future in lot]
            # A loop that is closed has nobody left who waits.
            with contextlib.suppress(RuntimeError):
                futures[0].get_loop().call_soon_threadsafe(_settle, futures, outcomes)

    def _next_lot(self) -> list[tuple[T, asyncio.Future[R]]]:
        with self._lock:
            lot = [self._waiting.popleft() for _ in range(min(self._most, len(self._waiting)))]
            self._working = bool(lot)
        return lot

    def _outcomes(self, items: Sequence[T]) -> Sequence[R | BaseException]:
        try:
            outcomes = self._flush(items)
        except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
            return [error] * len(items)
        if len(outcomes) != len(items):
            return [RuntimeError(f"{len(outcomes)} outcomes for {len(items)} items")] * len(items)
        return outcomes


def _settle(futures: Sequence[asyncio.Future[R]], outcomes: Sequence[R | BaseException]) -> None:
    for future, outcome in zip(futures, outcomes, strict=True):
        if future.done():  # its caller was cancelled
            continue
        if isinstance(outcome, StopIteration):  # no future takes one, and those after it would wait for ever
            future.set_exception(RuntimeError("StopIteration"))
        elif isinstance(outcome, BaseException):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
