"""What aiohttp's connection does not do by itself: problem documents for unreadable heads, and half-closing clients.

`Connection` changes two methods of aiohttp's RequestHandler; the dependency is pinned to the minor version it follows.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING

from aiohttp import web
from aiohttp.abc import AbstractAccessLogger
from aiohttp.web_protocol import RequestHandler

from spool.errors import BadRequest, ExpectationFailed, Internal
from spool.web.auth import PRINCIPAL
from spool.web.problems import REQUEST_ID, problem_response

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiohttp import StreamReader

    from spool.web.site import Addresses

    _Handle = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

_log = logging.getLogger(__name__)
_BAD_REQUEST = 400
_TAIL = 16 * 1024
_LAST_CHUNK = re.compile(rb"0++[ \t]*+(?:;.*)?", re.DOTALL)


class Connection(RequestHandler):
    """One client's connection."""

    __slots__ = ("body", "tail")

    body: StreamReader | None
    """That of the latest request which was taken up."""
    tail: bytes
    """The last bytes that came: aiohttp parses the trailer section after a body, and drops it."""

    def data_received(self, data: bytes) -> None:
        """Notes the last bytes before they are parsed."""
        self.tail = (self.tail + data if len(data) < _TAIL else data)[-_TAIL:]
        super().data_received(data)

    def eof_received(self) -> bool:  # type: ignore[override]  # aiohttp's returns None, which asyncio reads as False
        """Keeps the connection for the answer when the client closed its side after a complete request.

        A client that closes in mid-body has gone: False ends the connection, and with it the handler.
        """
        waits_for_a_request = self._waiter is not None and not self._waiter.done()
        bodies = [body for _, body in self._messages]
        if self.body is not None and not waits_for_a_request:
            bodies.append(self.body)
        if not bodies or not all(body.is_eof() for body in bodies):
            return False
        self.close()
        return True

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """Answers for a head that aiohttp could not read, and for errors that passed every middleware."""
        if request.writer.output_size > 0:
            raise ConnectionError("an answer is under way, an error can no longer be sent")
        if status == _BAD_REQUEST:
            response = problem_response(BadRequest(_first_line(message) or "the request head is malformed"), request)
        else:
            _log.error("request.failed", {"path": request.path}, exc_info=exc)
            response = problem_response(Internal("something went wrong that nobody foresaw"), request)
        response.force_close()
        return response


def _first_line(message: str | None) -> str:
    """What is wrong: aiohttp quotes the offending bytes from the second line on: nobody needs them back."""
    return (message or "").strip().partition("\n")[0].rstrip(": ")


class _Server(web.Server):
    def __call__(self) -> RequestHandler:
        connection = Connection(self, loop=self._loop, **self._kwargs)
        connection.body = None
        connection.tail = b""
        return connection

    def note_body(self, make: Callable[..., web.BaseRequest]) -> Callable[..., web.BaseRequest]:
        """Makes requests as `make` does; each is made before its handler runs, and after it left the queue."""

        def make_request(message: object, body: StreamReader, connection: Connection, *rest: object) -> web.BaseRequest:
            connection.body = body
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

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        server = _Server(
            _refuse_expectations(made.request_handler),
            handler_cancellation=made.handler_cancellation,
            **made._kwargs,  # noqa: SLF001  # there is no other way to hand them on
        )
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

    The query is left out, for it may hold a signature.
    """

    class AccessLog(AbstractAccessLogger):
        def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
            who = request.get(PRINCIPAL)
            self.logger.info(
                "request.finished",
                {
                    "method": request.method,
                    "path": request.path,
                    "status": response.status,
                    "bytes": 0 if request.method == "HEAD" else response.content_length or 0,
                    "seconds": time,
                    "client": addresses.client(request) if REQUEST_ID in request else request.remote or "unix",
                    "principal": who.name if who else "-",
                    "request_id": request.get(REQUEST_ID, "-"),
                },
            )

    return AccessLog
