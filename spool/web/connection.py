"""What aiohttp's connection does not do by itself.

Problem documents for unreadable heads, a time and a size for a head, a time for what is sent to be taken, a limit on
connections, half-closing clients, and bodies that go past the parser, which copies them. `Connection` follows aiohttp's
RequestHandler in its unwritten ways; the dependency is pinned to the minor version.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any, Final, cast

from aiohttp import EMPTY_PAYLOAD, web
from aiohttp.abc import AbstractAccessLogger
from aiohttp.http import HttpProcessingError, HttpRequestParser
from aiohttp.web_protocol import RequestHandler, _ErrInfo

from spool.errors import BadRequest, ExpectationFailed, Internal, RequestTimeout
from spool.web.auth import PRINCIPAL
from spool.web.outflow import Outflow
from spool.web.problems import REQUEST_ID, problem_response
from spool.web.secret_paths import path_to_log
from spool.web.tls import Tls

if TYPE_CHECKING:
    import asyncio
    import ssl
    from collections.abc import Awaitable, Callable

    from aiohttp import StreamReader

    from spool.config import Limits
    from spool.errors import SpoolError
    from spool.web.crowd import Crowd
    from spool.web.site import Addresses

    _Handle = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

_log = logging.getLogger(__name__)
_MAX_HEAD: Final = 128 * 1024
"""Bytes of a request's head. aiohttp limits each line and their number, which together would allow for megabytes."""
_TAIL = 16 * 1024
_LAST_CHUNK = re.compile(rb"0++[ \t]*+(?:;.*)?", re.DOTALL)


class Connection(RequestHandler):
    """One client's connection."""

    __slots__ = ("body", "crowd", "ended", "head", "head_timer", "limits", "outflow", "rest", "tail")

    limits: Limits
    crowd: Crowd
    body: StreamReader | None
    """That of the latest request which was taken up."""
    rest: int
    """Bytes still to come of it that are not parsed; more than that if it ended early while it was read directly."""
    tail: bytes
    """The last bytes that came: aiohttp parses the trailer section after a body, and drops it."""
    head: int
    """Bytes that came of a head that is not complete."""
    head_timer: asyncio.TimerHandle | None
    """Runs while a head is awaited: the first one, or one that has begun."""
    outflow: Outflow | None
    ended: bool
    """The client has closed its side."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Takes the connection, or refuses it: then this object has no more part in it."""
        real = cast("asyncio.Transport", transport)
        if not self.crowd.has_room(len(_server(self)._connections), real.get_extra_info("socket").fileno()):  # noqa: SLF001
            self.crowd.refuse(real)
            return
        super().connection_made(transport)
        self.outflow = Outflow(real, self.limits, real.abort)
        real.set_write_buffer_limits(0)  # an answer is written when the kernel has it: nothing waits unwatched
        self._start_head_timer()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Stops all clocks."""
        self._stop_head_timer()
        if self.outflow is not None:
            self.outflow.stop()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Something waits for the client to take it."""
        super().pause_writing()
        if self.outflow is not None:
            self.outflow.start()

    def resume_writing(self) -> None:
        """Nothing does."""
        super().resume_writing()
        if self.outflow is not None:
            self.outflow.stop()

    def data_received(self, data: bytes) -> None:
        """Notes the last bytes before they are parsed, and then whether they began a head or completed one."""
        if self.rest and not (data := self._take_body(data)):
            return
        self.tail = (self.tail + data if len(data) < _TAIL else data)[-_TAIL:]
        super().data_received(data)
        if self._messages or not self._awaits_request():
            self._stop_head_timer()
            self.head = 0
        elif data:
            self.head += len(data)
            self._start_head_timer()
            if self.head > _MAX_HEAD:
                self._refuse_head(400, f"the request head is larger than {_MAX_HEAD} bytes")

    def pass_body(self, rest: int) -> None:
        """The next `rest` bytes, all that is to come of the latest request's body, go to its reader unparsed."""
        self.rest = rest

    def _take_body(self, data: bytes) -> bytes:
        """What comes after the body."""
        assert self.body is not None
        piece = data[: self.rest]
        self.rest -= len(piece)
        self.body.feed_data(piece)
        if not self.rest:
            self.skip_body()
            self.body.feed_eof()
        return data[len(piece) :]

    def skip_body(self) -> None:
        """The rest of the latest request's body was read past the parser: what comes next is a head."""
        self.rest = 0
        self._parser = HttpRequestParser(
            self,
            self._loop,
            self._read_bufsize,
            max_line_size=self.max_line_size,
            max_field_size=self.max_field_size,
            max_headers=self.max_headers,
            payload_exception=web.RequestPayloadError,
            auto_decompress=False,
            max_msg_queue_size=self._max_msg_queue_size,
        )

    def eof_received(self) -> bool:  # type: ignore[override]  # aiohttp's returns None, which asyncio reads as False
        """Keeps the connection for the answers when the client closed its side after complete requests.

        A client that closes in mid-body has gone: False ends the connection, and with it the handler. So does every
        one that ends its TLS, of which asyncio can keep no half.
        """
        if self.transport is not None and self.transport.get_extra_info("sslcontext") is not None:
            return False
        bodies = [body for _, body in self._messages]
        if self.body is not None and not self._awaits_request():
            bodies.append(self.body)
        if not bodies or not all(body.is_eof() for body in bodies):
            return False
        self.ended = True
        self.close_after_last()
        return True

    def close_after_last(self) -> None:
        """Closes after the answer to the request that was taken up, if the client has closed and it is the last one."""
        if self.ended and not self._messages:
            self.close()

    def _awaits_request(self) -> bool:
        return self._waiter is not None and not self._waiter.done()

    def _start_head_timer(self) -> None:
        if self.head_timer is None:
            patience = self.limits.head_timeout.total_seconds()
            self.head_timer = self._loop.call_later(patience, self._miss_head, patience)

    def _stop_head_timer(self) -> None:
        if self.head_timer is not None:
            self.head_timer.cancel()
            self.head_timer = None

    def _miss_head(self, patience: float) -> None:
        if self.head:
            self._refuse_head(408, f"the request head took longer than {patience:g} seconds")
        else:
            self.force_close()

    def _refuse_head(self, status: int, reason: str) -> None:
        """Has aiohttp answer as it does for a head that it cannot read; from now on it drops what comes."""
        self._stop_head_timer()
        refusal = _ErrInfo(status, HttpProcessingError(code=status, message=reason), reason)
        self._messages.append((refusal, EMPTY_PAYLOAD))
        if self._waiter is not None:
            self._waiter.set_result(None)
        self._close = True

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """Answers for a head that aiohttp could not read, and for errors that passed every middleware."""
        if request.writer.output_size > 0:
            raise ConnectionError("an answer is under way, an error can no longer be sent")
        problem: SpoolError
        match status:
            case 400:
                problem = BadRequest(_first_line(message) or "the request head is malformed")
            case 408:
                problem = RequestTimeout(_first_line(message), limit=int(self.limits.head_timeout.total_seconds()))
            case _:
                _log.error("request.failed", {"path": path_to_log(request)}, exc_info=exc)
                problem = Internal("something went wrong that nobody foresaw")
        response = problem_response(problem, request)
        response.force_close()
        return response


def _first_line(message: str | None) -> str:
    """What is wrong: aiohttp quotes the offending bytes from the second line on: nobody needs them back."""
    return (message or "").strip().partition("\n")[0].rstrip(": ")


def _server(connection: Connection) -> web.Server:
    server = connection._manager  # noqa: SLF001  # aiohttp's name for it
    assert server is not None  # until the connection is lost
    return server


class _Server(web.Server):
    limits: Limits
    crowd: Crowd
    tls: Tls | None

    def __call__(self) -> RequestHandler:
        """A new connection, as asyncio asks for it: with TLS, what is around it."""
        connection = self._connect()
        if self.tls is None:
            return connection
        return cast("RequestHandler", self.tls.around(connection, lambda: len(self._connections)))

    def _connect(self) -> Connection:
        connection = Connection(self, loop=self._loop, **self._kwargs)
        connection.limits, connection.crowd = self.limits, self.crowd
        connection.body = connection.outflow = connection.head_timer = None
        connection.tail, connection.head, connection.rest, connection.ended = b"", 0, 0, False
        return connection

    def note_body(self, make: Callable[..., web.BaseRequest]) -> Callable[..., web.BaseRequest]:
        """Makes requests as `make` does; each is made before its handler runs, and after it left the queue."""

        def make_request(message: object, body: StreamReader, connection: Connection, *rest: object) -> web.BaseRequest:
            connection.body = body
            connection.close_after_last()
            return make(message, body, connection, *rest)

        return make_request


def _refuse_expectations(handle: _Handle) -> _Handle:
    """The handler; where no route matches, aiohttp words its refusal of an Expect itself, before any middleware."""

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await handle(request)
        except (web.HTTPExpectationFailed, UnicodeEncodeError):  # aiohttp quotes it, and cannot if it is not UTF-8
            return problem_response(ExpectationFailed("the only expectation that is met is 100-continue"), request)

    return handler


class Runner(web.AppRunner):
    """An AppRunner whose connections are ours."""

    def __init__(
        self,
        app: web.Application,
        limits: Limits,
        crowd: Crowd,
        context: ssl.SSLContext | None = None,
        **options: Any,  # noqa: ANN401  # as aiohttp's
    ) -> None:
        """`context` makes all connections TLS; `options` are those of aiohttp's AppRunner."""
        super().__init__(app, **options)
        self._tls = Tls(context, limits, crowd) if context else None
        self._limits = limits
        self._crowd = crowd

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        server = _Server(
            _refuse_expectations(made.request_handler),
            handler_cancellation=made.handler_cancellation,
            **made._kwargs,  # noqa: SLF001  # there is no other way to hand them on
        )
        server.limits, server.crowd, server.tls = self._limits, self._crowd, self._tls
        server.request_factory = server.note_body(made.request_factory)
        return server


def parse_trailers(request: web.Request) -> dict[str, str]:
    """The trailer section of a chunked body that has been read to its end, by lower-case name (RFC 9112 §7.1.2)."""
    return parse_trailer_section(getattr(request.protocol, "tail", b""))


def parse_trailer_section(tail: bytes) -> dict[str, str]:
    """The fields of the trailer section with which a chunked body's last bytes end, by lower-case name."""
    lines = tail[:-4].rpartition(b"\r\n\r\n")[2].split(b"\r\n") if tail.endswith(b"\r\n\r\n") else []
    fields: dict[str, str] = {}
    for line in reversed(lines):  # no field line looks like the last chunk, but anything before it may
        if _LAST_CHUNK.fullmatch(line):
            return fields
        name, _, value = line.decode("latin-1").partition(":")
        fields.setdefault(name.strip().lower(), value.strip())
    return {}


def access_log(addresses: Addresses) -> type[AbstractAccessLogger]:
    """What aiohttp makes for each connection to log finished requests with: one line each.

    The query is left out, for it may hold a signature, and so is the secret in a path.
    """

    class AccessLog(AbstractAccessLogger):
        def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
            who = request.get(PRINCIPAL)
            self.logger.info(
                "request.finished",
                {
                    "method": request.method,
                    "path": path_to_log(request),
                    "status": response.status,
                    "bytes": 0 if request.method == "HEAD" else response.content_length or 0,
                    "seconds": time,
                    "client": addresses.client(request) if REQUEST_ID in request else request.remote or "unix",
                    "principal": who.account if who else "-",
                    "request_id": request.get(REQUEST_ID, "-"),
                },
            )

    return AccessLog
