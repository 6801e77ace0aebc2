"""The rest of a large body, read from its socket past asyncio and aiohttp.

The event loop waits for the client, as ever. When bytes come quickly and few uploads run, a thread takes what follows
in one go: a few MiB for one round of the event loop; while many run, the event loop takes what they have memory for.
None of it passes through aiohttp's parser, which is replaced when all is here.
The socket is read by a copy of its descriptor, for asyncio may close its own meanwhile. It does not block, and that is
never changed: it is a property of the connection, and not of the descriptor.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from select import POLLIN, poll
from time import monotonic
from typing import TYPE_CHECKING, Final, Generic, NamedTuple, TypeVar

if TYPE_CHECKING:
    from asyncio.trsock import TransportSocket
    from collections.abc import Callable

    from aiohttp import StreamReader

T = TypeVar("T")

_PIECE: Final = 1024 * 1024 - 4096
"""Bytes of one read. With more, the C library gives the memory back each time, and each page then costs a fault."""
_WORTH: Final = 4 * 1024 * 1024
"""Bytes that a thread may take in one go, or it is not worth a thread."""
_PATIENCE: Final = 0.02
"""Seconds that a quick client may need for what is worth waking up for."""
_LONGEST: Final = 0.25
"""Seconds after which the thread gives out what it has."""


class Taken(NamedTuple, Generic[T]):
    """What one read brought."""

    size: int
    """Bytes; none if no more are to be had in this way."""
    made: list[T]
    """What was made of them."""
    error: Exception | None
    """What making it raised."""


class Direct:
    """The bytes that are still to come of a body, of which aiohttp has not seen any."""

    def __init__(self, transport: asyncio.Transport, content: StreamReader, left: int) -> None:
        """`left` bytes are to come. Raises OSError.

        Whatever ends `content` ends this. The transport reads nothing until `close`.
        """
        found: TransportSocket = transport.get_extra_info("socket")
        self._socket = found.dup()
        self._transport = transport
        self.left = left
        """Bytes that were not read yet."""
        self._over = False
        self._quick = False
        self._waiter: asyncio.Future[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._thread: ThreadPoolExecutor | None = None
        self._watch: asyncio.Future[None] = asyncio.ensure_future(_end_of(content))
        self._watch.add_done_callback(self._end)
        transport.pause_reading()

    async def read(self, make: Callable[[bytes], T], most: int, least: int) -> Taken[T]:
        """What comes, up to about `most` bytes, and what `make` makes of each piece, perhaps in a thread.

        `least` is how many the kernel waits for before it tells of any.
        """
        while not self._over:
            if self._quick and most >= _WORTH:
                self._thread = self._thread or ThreadPoolExecutor(1, thread_name_prefix="receive")
                taken = await self._loop.run_in_executor(self._thread, self._take, make, most, least)
                self._quick = taken.size >= most
            else:
                start = self._loop.time()
                await self._readable()
                self._quick = self._loop.time() - start < _PATIENCE
                taken = self._take(make, most, least, once=True)
            if taken.size:
                return taken
        return Taken(0, [], None)

    async def _readable(self) -> None:
        self._waiter, descriptor = self._loop.create_future(), self._socket.fileno()
        self._loop.add_reader(descriptor, self._wake)
        try:
            await self._waiter
        finally:
            self._loop.remove_reader(descriptor)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _end(self, watch: asyncio.Future[None]) -> None:
        if not watch.cancelled():
            watch.exception()  # whoever reads the content is told it
        self._over = True
        self._wake()

    def _take(self, make: Callable[[bytes], T], most: int, least: int, *, once: bool = False) -> Taken[T]:
        """What one read brings; unless it is to be `once`, also what follows without a pause."""
        size, made, until = 0, list[T](), monotonic() + (0 if once else _LONGEST)
        while size < min(most, self.left) and not self._over:
            try:
                piece = self._socket.recv(min(_PIECE, most, self.left - size))
            except BlockingIOError:
                if self.left - size < least or monotonic() >= until or not self._more():
                    break
                continue
            except OSError:  # asyncio will see that the connection is gone
                piece = b""
            if not piece:
                self._over = True
                break
            size += len(piece)
            try:
                made.append(make(piece))
            except Exception as error:  # noqa: BLE001  # it is raised by who asked
                self.left -= size
                return Taken(size, made, error)
            if once:
                break
        self.left -= size
        return Taken(size, made, None)

    def _more(self) -> bool:
        ready = poll()
        ready.register(self._socket, POLLIN)
        return bool(ready.poll(_PATIENCE * 1000))

    def close(self) -> None:
        """The transport reads again."""
        self._watch.cancel()
        self._over = True
        if self._thread is None:
            self._socket.close()
        else:
            self._thread.submit(self._socket.close)  # after what may be running
            self._thread.shutdown(wait=False)
        self._transport.resume_reading()


async def _end_of(content: StreamReader) -> None:
    if content.exception() is None:
        await content.wait_eof()
