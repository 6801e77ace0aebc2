"""A request's body, with the clock and the counter that aiohttp does not put on it."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager, suppress
from math import inf
from socket import AF_INET, AF_INET6, SO_RCVLOWAT, SOL_SOCKET
from time import monotonic
from typing import TYPE_CHECKING, Final, TypeVar, cast

from aiohttp import HttpVersion11, web

from spool.errors import BadRequest, CutOff, ExpectationFailed, RequestTimeout, TooLarge
from spool.web.direct import Direct, Taken
from spool.web.site import SITE

if TYPE_CHECKING:
    from asyncio.trsock import TransportSocket
    from collections.abc import AsyncIterator, Callable, Iterator

    from spool.config import Limits
    from spool.web.connection import Connection

T = TypeVar("T")

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_FAST: Final = 128 * 1024
"""Bytes that came at once from a client that is read from in larger steps from then on."""
_READ: Final = 256 * 1024
"""What asyncio asks of a socket."""
_LARGE_READ: Final = 512 * 1024
"""With still more, what was read has left the processor's cache."""
_LARGE_TLS_READ: Final = 1024 * 1024
"""By TLS the work for each read costs more than that."""
_PROMPT: Final = 16 * 1024
"""Bytes that are read as they come: a type, for one, is to be refused at once."""
_LARGE: Final = 8 * 1024 * 1024
"""Bytes still to come that are worth reading past asyncio."""
_GATHERED: Final = 256 * 1024
"""Bytes of a slower client that are worth waking up for."""
_LONGEST: Final = 1.0
"""Seconds after which fewer will do."""


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
        self._gathering = _Gathering(request.transport)
        self._direct: Direct | None = None
        self._limits = limits
        self._metrics = request.app[SITE].metrics
        self._interruption: Exception | None = None
        self.size = 0
        """Bytes that came so far."""

    def chunks(self) -> AsyncIterator[bytes]:
        """The body to its proper end; see `parsed`."""
        return self.parsed(bytes)

    async def parsed(self, parse: Callable[[bytes], T]) -> AsyncIterator[T]:
        """What `parse` makes of each piece of the body, to its proper end. It may run in a thread, once at a time.

        Raises CutOff or BadRequest if it has none, TooLarge for more than `max_size` bytes, RequestTimeout for a
        client that stalls. A client that vanishes cancels the handler.
        """
        await self._send_continue()
        self._asked_at = monotonic()
        pace = _Pace(self._limits, self.interrupt, self._gathering.stop)  # not ours: it would be a cycle
        content = self._request.content
        if content.is_eof() and content.exception() is None and (chunk := content.read_nowait()):  # all of it is here
            self._count(len(chunk), pace)
            yield parse(chunk)
        try:
            while not content.at_eof():
                taken = await self._next(parse, pace)
                if taken.size:
                    self._count(taken.size, pace)
                for made in taken.made:
                    yield made
                if taken.error is not None:
                    raise taken.error
        finally:
            pace.stop()
            self.close()
        if self._declared is not None and self.size != self._declared:
            raise CutOff(f"{self._declared} bytes were declared, but {self.size} came")

    async def _next(self, parse: Callable[[bytes], T], pace: _Pace) -> Taken[T]:
        """What comes next; an error of it is to be raised when what was made is given out."""
        least, ending = self._gather(), None
        try:
            with pace.waiting(), _readable():
                if direct := self._direct:
                    taken = await direct.read(parse, self._batch_size(), least)
                    self._join_aiohttp(direct, taken)
                    return taken
                # all that is there: readchunk gives tiny chunks one by one
                chunk = await self._request.content.readany()
        except Exception as error:  # noqa: BLE001  # it is raised after what has arrived
            ending = self._interruption or error
            chunk = self._request.content._read_nowait(-1)  # noqa: SLF001  # aiohttp would lose what it has read
        if ending is None:
            self._leave_aiohttp(len(chunk))
        return Taken(len(chunk), [parse(chunk)] if chunk else [], ending)

    def _leave_aiohttp(self, came: int) -> None:
        """The rest of a quick client's body is not parsed, and that of a large one is read directly."""
        transport, content, connection = self._request.transport, self._request.content, self._request.protocol
        left = (self._declared or 0) - self.size - came
        if transport is None or min(came, left) < _FAST or not hasattr(connection, "pass_body"):
            return
        if content.total_bytes != self.size + came:  # some of the rest is in aiohttp's hands
            return
        connection.pass_body(left)
        if left >= _LARGE and transport.get_extra_info("sslcontext") is None:
            with suppress(OSError):  # no descriptor is left
                self._direct = Direct(transport, content, left)

    def _join_aiohttp(self, direct: Direct, taken: Taken[T]) -> None:
        """All has been read; or aiohttp will tell why no more is to be had."""
        if not direct.left:
            cast("Connection", self._request.protocol).skip_body()
            self.close()
            self._request.content.feed_eof()
        elif not taken.size:
            self.close()

    def close(self) -> None:
        """Nothing more is read directly. Idempotent."""
        self._gathering.stop()
        if self._direct is not None:
            self._direct.close()
            self._direct = None

    def _batch_size(self) -> int:
        return self._request.app[SITE].ingest.batch_size()

    def _gather(self) -> int:
        if self._declared is None or self.size < _PROMPT:
            return 1
        enough = min(_GATHERED, self._batch_size(), self._declared - self.size)
        self._gathering.start(enough)
        return enough

    def interrupt(self, error: Exception) -> None:
        """What has arrived is still given out, and then `error` is raised in the place of the rest."""
        self._interruption = error
        self._request.content.set_exception(TimeoutError())  # of all errors aiohttp expects this one when it lingers

    def _count(self, size: int, pace: _Pace) -> None:
        if not self.size:
            self._metrics.first_byte.observe(monotonic() - self._asked_at)
        self.size += size
        self._metrics.received_bytes += size
        pace.received(size)
        if size >= _FAST:
            self._read_more()
        if self.size > self._max_size:
            raise TooLarge(f"the request is larger than {self._max_size} bytes", limit=self._max_size)

    def _read_more(self) -> None:
        """The event loop has less to do for each byte that comes, as long as few uploads share the memory."""
        transport = self._request.transport
        secure = getattr(transport, "_ssl_protocol", None)
        reader, largest = (secure, _LARGE_TLS_READ) if secure else (transport, _LARGE_READ)
        if reader is not None and hasattr(reader, "max_size"):  # what asyncio asks of a socket
            reader.max_size = max(_READ, min(largest, self._batch_size() // 2))

    async def _send_continue(self) -> None:
        if self._expectation is None or self._request.version < HttpVersion11:
            return
        writer = self._request.writer
        await writer.write(_CONTINUE)
        writer.output_size = 0  # aiohttp takes what was written for the start of an answer, and could not send an error


@contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except web.RequestPayloadError as error:
        raise BadRequest("the body is not properly framed") from error
    except ConnectionError as error:
        raise CutOff("the connection was lost") from error


class _Gathering:
    """Has the kernel wake us only for so many bytes, and not for each segment: SO_RCVLOWAT, socket(7).

    It wakes us as well when the client is gone, or when it has no more room. Only TCP does all of that; and only
    without TLS, of which we may hold half a record, is it known how many bytes are still to come.
    """

    def __init__(self, transport: asyncio.Transport | None) -> None:
        self._socket: TransportSocket | None = None
        self._least = 1
        if transport is not None and transport.get_extra_info("sslcontext") is None:
            found: TransportSocket = transport.get_extra_info("socket")
            if found.family in (AF_INET, AF_INET6):
                self._socket = found

    def start(self, least: int) -> None:
        """From now on `least` bytes wake us; they must be certain to come, if the client does what it should."""
        if self._socket is not None and least not in (0, self._least):
            with suppress(OSError):  # it is closed: there is nothing to wait for
                self._socket.setsockopt(SOL_SOCKET, SO_RCVLOWAT, least)
            self._least = least

    def stop(self) -> None:
        """Any byte does, also those that are there."""
        self.start(1)


class _Pace:
    """Measures only the time spent waiting for the client: a slow disk of ours is not its fault."""

    def __init__(self, limits: Limits, interrupt: Callable[[Exception], None], hurry: Callable[[], None]) -> None:
        """`interrupt` is called when it has waited too long, `hurry` every second before that."""
        self._interrupt = interrupt
        self._hurry = hurry
        self._idle = limits.idle_timeout.total_seconds()
        self._step = min(_LONGEST, self._idle / 4)
        self._window = limits.min_rate_window.total_seconds()
        self._rate = limits.min_rate
        self._waited = 0.0
        self._size = 0
        self._loop = asyncio.get_running_loop()
        self._since = inf
        """When it began to wait; never, if it does not."""
        self._timer: asyncio.TimerHandle | None = None

    def _look(self) -> None:
        """One timer does for all chunks: to set one for each would cost some."""
        now = self._loop.time()
        since = min(self._since, now)
        if since + self._idle <= now:
            self._interrupt(RequestTimeout(f"nothing came for {self._idle:g} seconds", limit=int(self._idle)))
            since = now
        if since + self._step <= now:
            self._hurry()
        self._timer = self._loop.call_at(min(since + self._idle, now + self._step), self._look)

    def stop(self) -> None:
        """Nothing is waited for any more. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Meanwhile the client is waited for."""
        self._since = start = self._loop.time()
        if self._timer is None:
            self._timer = self._loop.call_at(start + self._step, self._look)
        try:
            yield
        finally:
            self._since = inf
        self._waited += self._loop.time() - start

    def received(self, size: int) -> None:
        self._size += size
        if self._waited < self._window:
            return
        if self._size < self._rate * self._waited:
            raise RequestTimeout(f"less than {self._rate} bytes a second came", limit=self._rate)
        self._waited, self._size = 0.0, 0
