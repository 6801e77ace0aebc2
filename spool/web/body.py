"""A request's body, with the clock and the counter that aiohttp does not put on it."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from time import monotonic
from typing import TYPE_CHECKING, Final

from aiohttp import HttpVersion11, web

from spool.errors import BadRequest, CutOff, ExpectationFailed, RequestTimeout, TooLarge
from spool.web.site import SITE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from spool.config import Limits

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_FAST: Final = 128 * 1024
"""Bytes that came at once from a client that is read from in larger steps from then on."""
_READS: Final = (256 * 1024, 512 * 1024)
"""What asyncio asks of a socket, and twice as much: with still more, what was read has left the processor's cache."""


async def defer_expectation(_request: web.Request) -> None:
    """The expect handler of every route: says nothing yet.

    aiohttp calls it before middlewares and handler. The 100 Continue goes out when the body is first asked for, so
    that whatever refuses the request before keeps the client from sending it (RFC 9110 §10.1.1).
    """


class Body:
    """The bytes of one request, as they arrive."""

    def __init__(self, request: web.Request, limits: Limits, max_size: int) -> None:
        """`max_size` bounds what is read, whatever the client declares. Raises ExpectationFailed, TooLarge."""
        self._request = request
        self._expectation = request.headers.get("Expect")
        if self._expectation is not None and self._expectation.lower() != "100-continue":
            raise ExpectationFailed("the only expectation that is met is 100-continue")
        self._declared = request.content_length
        self._max_size = max_size
        if (self._declared or 0) > max_size:
            raise TooLarge(f"the request is larger than {max_size} bytes", limit=max_size)
        self._pace = _Pace(limits)
        self._metrics = request.app[SITE].metrics
        self._interruption: Exception | None = None
        self.size = 0
        """Bytes that came so far."""

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body to its proper end.

        Raises CutOff or BadRequest if it has none, TooLarge for more than `max_size` bytes, RequestTimeout for a
        client that stalls. A client that vanishes cancels the handler.
        """
        await self._send_continue()
        self._asked_at = monotonic()
        content = self._request.content
        if content.is_eof() and content.exception() is None and (chunk := content.read_nowait()):  # all of it is here
            self._count(chunk)
            yield chunk
        while not content.at_eof():
            ending: Exception | None = None
            try:
                async with self._pace.waiting(), _readable():
                    chunk = await content.readany()  # all that is there: readchunk gives tiny chunks one by one
            except Exception as error:  # noqa: BLE001  # it is raised below
                ending = self._interruption or error
                chunk = content._read_nowait(-1)  # noqa: SLF001  # aiohttp would lose what it has read
            if chunk:
                self._count(chunk)
                yield chunk
            if ending is not None:
                raise ending
        if self._declared is not None and self.size != self._declared:
            raise CutOff(f"{self._declared} bytes were declared, but {self.size} came")

    def interrupt(self, error: Exception) -> None:
        """What has arrived is still given out, and then `error` is raised in the place of the rest."""
        self._interruption = error
        self._request.content.set_exception(TimeoutError())  # of all errors aiohttp expects this one when it lingers

    def _count(self, chunk: bytes) -> None:
        if not self.size:
            self._metrics.first_byte.observe(monotonic() - self._asked_at)
        self.size += len(chunk)
        self._metrics.received_bytes += len(chunk)
        self._pace.received(len(chunk))
        if len(chunk) >= _FAST:
            self._read_more()
        if self.size > self._max_size:
            raise TooLarge(f"the request is larger than {self._max_size} bytes", limit=self._max_size)

    def _read_more(self) -> None:
        """The event loop has less to do for each byte that comes, as long as few uploads share the memory."""
        transport = self._request.transport
        if transport is not None and hasattr(transport, "max_size"):  # what asyncio asks of a socket; TLS has none
            smallest, largest = _READS
            transport.max_size = max(smallest, min(largest, self._request.app[SITE].ingest.batch_size() // 2))

    async def _send_continue(self) -> None:
        if self._expectation is None or self._request.version < HttpVersion11:
            return
        writer = self._request.writer
        await writer.write(_CONTINUE)
        writer.output_size = 0  # aiohttp takes what was written for the start of an answer, and could not send an error


@asynccontextmanager
async def _readable() -> AsyncIterator[None]:
    try:
        yield
    except web.RequestPayloadError as error:
        raise BadRequest("the body is not properly framed") from error
    except ConnectionError as error:
        raise CutOff("the connection was lost") from error


class _Pace:
    """Measures only the time spent waiting for the client: a slow disk of ours is not its fault."""

    def __init__(self, limits: Limits) -> None:
        self._idle = limits.idle_timeout.total_seconds()
        self._window = limits.min_rate_window.total_seconds()
        self._rate = limits.min_rate
        self._waited = 0.0
        self._size = 0

    @asynccontextmanager
    async def waiting(self) -> AsyncIterator[None]:
        clock = asyncio.get_running_loop().time
        start = clock()
        try:
            async with asyncio.timeout(self._idle):
                yield
        except TimeoutError as error:
            raise RequestTimeout(f"nothing came for {self._idle:g} seconds", limit=int(self._idle)) from error
        self._waited += clock() - start

    def received(self, size: int) -> None:
        self._size += size
        if self._waited < self._window:
            return
        if self._size < self._rate * self._waited:
            raise RequestTimeout(f"less than {self._rate} bytes a second came", limit=self._rate)
        self._waited, self._size = 0.0, 0
