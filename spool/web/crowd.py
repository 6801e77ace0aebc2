"""How many connections there may be, and what becomes of one too many."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING, Final

from spool.errors import Unavailable
from spool.metrics import Metrics
from spool.protocol.http import problem_document

if TYPE_CHECKING:
    from collections.abc import Callable

_log = logging.getLogger(__name__)

_LINGER: Final = 1
"""Seconds in which a refused client may read why: to close a socket over unread bytes takes back what was sent."""
_MOST_LINGERING: Final = 32
_QUIET: Final = 60
"""Seconds between two lines in the log."""


class Crowd:
    """Refuses connections before descriptors, or the memory for connections, run out."""

    def __init__(self, most: int, highest: int, metrics: Metrics | None = None) -> None:
        """At most `most` connections; and none whose descriptor's number is above `highest`.

        The system gives out the lowest number that is free, so that this one tells how near the limit is, whatever
        holds the others.
        """
        self._most = most
        self._highest = highest
        self._metrics = metrics or Metrics()
        self._lingering: set[Refusal] = set()
        self._refused = 0
        self._next_line = 0.0

    def has_room(self, connections: int, descriptor: int) -> bool:
        """Whether one more is taken beside so many."""
        return connections < self._most and descriptor <= self._highest

    def refuse(self, transport: asyncio.Transport) -> None:
        """Answers 503, whatever the client sends, and closes; many at a time are closed without an answer."""
        self._note()
        if len(self._lingering) >= _MOST_LINGERING:
            transport.abort()
            return
        refusal = Refusal(transport, self._lingering.discard)
        self._lingering.add(refusal)
        transport.set_protocol(refusal)

    def _note(self) -> None:
        self._refused += 1
        self._metrics.connections_refused += 1
        now = asyncio.get_running_loop().time()
        if now >= self._next_line:
            _log.warning("connections.refused", {"count": self._refused, "limit": self._most})
            self._refused, self._next_line = 0, now + _QUIET


class Refusal(asyncio.Protocol):
    """A connection that is one too many. Nothing that it brings is kept."""

    def __init__(self, transport: asyncio.Transport, gone: Callable[[Refusal], None]) -> None:
        self._gone = gone
        self._timer = asyncio.get_running_loop().call_later(_LINGER, transport.abort)
        transport.write(_answer())
        transport.write_eof()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002, D102
        self._timer.cancel()
        self._gone(self)


def _answer() -> bytes:
    error = Unavailable("this server has as many connections as it takes")
    body = json.dumps(problem_document(error, None)).encode()
    head = (
        "HTTP/1.1 503 Service Unavailable\r\n"
        "Content-Type: application/problem+json\r\n"
        f"Content-Length: {len(body)}\r\n"
        "Cache-Control: no-store\r\n"
        "X-Content-Type-Options: nosniff\r\n"
        f"Retry-After: {error.retry_after}\r\n"
        "Connection: close\r\n\r\n"
    )
    return head.encode() + body
