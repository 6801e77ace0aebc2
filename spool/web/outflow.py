"""Bytes out, with the clock that asyncio does not put on them: who stops taking what it is sent is let go."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from aiohttp import web

    from spool.config import Limits

_LOOKS: Final = 4
"""How often a client is looked at in `idle_timeout`."""
_ACKED: Final = struct.Struct("=120xQ")
"""tcpi_bytes_acked in Linux's struct tcp_info."""


class Outflow:
    """Watches whether a client takes what waits for it.

    A TCP client has taken what its side has acknowledged: the buffers of this side are large, and asyncio is told of
    room in them in lumps of megabytes, which a slow client takes longer over than `idle_timeout`. A client of a unix
    socket has taken what has left this process.
    """

    def __init__(self, transport: asyncio.Transport, limits: Limits, stalled: Callable[[], None]) -> None:
        """`stalled` is called once if nothing is taken for `idle_timeout`, or too little over `min_rate_window`."""
        self._transport = transport
        self._socket: socket.socket = transport.get_extra_info("socket")
        self._loop = asyncio.get_running_loop()
        self._idle = limits.idle_timeout.total_seconds()
        self._window = limits.min_rate_window.total_seconds()
        self._rate = limits.min_rate
        self._stalled = stalled
        self._timer: asyncio.TimerHandle | None = None
        self.sent = 0
        """Bytes that went past the transport's own buffer; whoever sends them counts them."""

    def start(self) -> None:
        """From now on something waits for the client."""
        taken, now = self._taken(), self._loop.time()
        self._last = self._first = (taken, now)
        self._timer = self._loop.call_later(self._idle / _LOOKS, self._look)

    def stop(self) -> None:
        """Nothing waits for the client any more. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        if self._socket.fileno() < 0:  # the connection is lost, and whoever watches is about to learn of it
            return
        taken, now = self._taken(), self._loop.time()
        if taken > self._last[0]:
            self._last = taken, now
        size, elapsed = taken - self._first[0], now - self._first[1]
        slow = elapsed >= self._window and size < self._rate * elapsed
        if slow or now - self._last[1] >= self._idle:
            self._timer = None
            self._stalled()
            return
        if elapsed >= self._window:
            self._first = taken, now
        self._timer = self._loop.call_later(self._idle / _LOOKS, self._look)

    def _taken(self) -> int:
        if self._socket.family == socket.AF_UNIX:
            return self.sent - self._transport.get_write_buffer_size()
        acked: int = _ACKED.unpack_from(self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _ACKED.size))[0]
        return acked


@asynccontextmanager
async def outflow(request: web.Request, limits: Limits) -> AsyncIterator[Outflow]:
    """Watches what is sent meanwhile, which need not go through the transport's buffer.

    Raises ConnectionResetError, and ends the connection, if the client stops taking it.
    """
    transport = request.transport
    if transport is None:
        raise ConnectionResetError("the client has gone")
    try:
        async with asyncio.timeout(None) as deadline:
            watch = Outflow(transport, limits, lambda: deadline.reschedule(0))
            watch.start()
            try:
                yield watch
            finally:
                watch.stop()
    except TimeoutError as error:
        transport.abort()
        raise ConnectionResetError("the client stopped reading") from error
