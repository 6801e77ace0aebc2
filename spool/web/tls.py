"""TLS around a connection: asyncio's layer, with the limits and the room that it does not have by itself.

`Secure` follows asyncio's SSLProtocol in its unwritten ways, which are the same from Python 3.11 to 3.13. What it
changes: a handshake counts as a connection and has the time of a head; what waits for a slow client is seen by whoever
watches, also what waits below TLS; and a connection has no buffers of its own, and little in OpenSSL.
"""

from __future__ import annotations

import asyncio
import ssl
from asyncio import sslproto
from typing import TYPE_CHECKING, Any, Final, cast

from spool.errors import BadRequest
from spool.web.crowd import bare_answer

if TYPE_CHECKING:
    from collections.abc import Callable

    from spool.config import Limits
    from spool.web.crowd import Crowd

_READ: Final = 256 * 1024
"""Bytes that are read from a socket at a time, as asyncio does without TLS."""
_MOST_READ: Final = 1024 * 1024
"""The most that `max_size` may be set to."""
_STEP: Final = 64 * 1024
"""Bytes that OpenSSL is given at a time: what it has room for once, it keeps for the connection."""


class Tls:
    """What the connections of one listener share."""

    def __init__(self, context: ssl.SSLContext, limits: Limits, crowd: Crowd) -> None:
        self.context = context
        self.crowd = crowd
        self.handshake = limits.head_timeout.total_seconds()
        self.farewell = limits.idle_timeout.total_seconds()
        self.coded, self.plain = memoryview(bytearray(_MOST_READ)), memoryview(bytearray(_MOST_READ + _STEP))
        """For what is read: the event loop reads from one socket at a time, and leaves nothing here."""

    def around(self, connection: asyncio.Protocol, connections: Callable[[], int]) -> asyncio.BaseProtocol:
        """`connection`, secured. `connections` tells how many there are that are through the handshake."""
        return Secure(connection, self, connections)


_SSLProtocol: Any = sslproto.SSLProtocol  # whose types are not told


class Secure(_SSLProtocol):  # type: ignore[misc]
    """One client's TLS. `max_size` is how much is read at a time."""

    max_size = 0  # SSLProtocol makes a buffer of this size
    _outgoing_high_water: int

    def __init__(self, connection: asyncio.Protocol, tls: Tls, connections: Callable[[], int]) -> None:
        super().__init__(
            asyncio.get_running_loop(),
            connection,
            tls.context,
            None,  # nobody waits for the handshake
            server_side=True,
            ssl_handshake_timeout=tls.handshake,
            ssl_shutdown_timeout=tls.farewell,
        )
        self.max_size = _READ
        self._rest = memoryview(b"")
        """What was read, and OpenSSL has not been given yet."""
        self._tls = tls
        self._connections = connections

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begins the handshake, if there is room for one more."""
        real = cast("asyncio.Transport", transport)
        descriptor = real.get_extra_info("socket").fileno()
        if not self._tls.crowd.greet(self, self._connections(), descriptor):
            real.abort()
            return
        real.set_write_buffer_limits(0)  # what the kernel has not taken waits here, and counts
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Also in mid-handshake."""
        self._tls.crowd.greeted(self)
        super().connection_lost(exc)

    def _on_handshake_complete(self, handshake_exc: BaseException | None) -> None:
        self._tls.crowd.greeted(self)  # before the connection asks whether there is room for it
        if isinstance(handshake_exc, ssl.SSLError) and handshake_exc.reason == "HTTP_REQUEST":
            self._transport.write(bare_answer(BadRequest("this port speaks TLS: the address begins with https")))
        super()._on_handshake_complete(handshake_exc)

    def get_buffer(self, n: int) -> memoryview:  # noqa: ARG002  # as asyncio calls it
        """Where the socket is read to: less while the connection takes nothing, for OpenSSL has to keep it."""
        self._ssl_buffer_view = self._tls.coded[: _READ if self._app_reading_paused else self.max_size]
        return self._ssl_buffer_view

    def buffer_updated(self, nbytes: int) -> None:
        """So many bytes were read."""
        if self._state is sslproto.SSLProtocolState.WRAPPED and not self._app_reading_paused:
            self._rest = self._ssl_buffer_view[_STEP:nbytes]
            nbytes = min(_STEP, nbytes)
        super().buffer_updated(nbytes)

    def _set_app_protocol(self, app_protocol: asyncio.BaseProtocol) -> None:
        """Bytes are put together in one place and given out as one object, not collected record by record."""
        super()._set_app_protocol(app_protocol)
        self._app_protocol_is_buffer = True
        self._receive = cast("asyncio.Protocol", app_protocol).data_received

    def _do_read__buffered(self) -> None:
        plain = self._tls.plain
        size, ended = self._decrypt(plain)
        if size == len(plain):  # there may be more
            self._loop.call_soon(self._do_read)
        if size:
            self._receive(bytes(plain[:size]))
        if ended:
            self._call_eof_received()
            self._start_shutdown()

    def _decrypt(self, plain: memoryview) -> tuple[int, bool]:
        """How much of what has come is in `plain` now, and whether the client has said that no more comes."""
        size, rest = 0, self._rest
        self._rest = rest[:0]
        while size < len(plain):
            try:
                count = self._sslobj.read(len(plain) - size, plain[size:])
            except sslproto.SSLAgainErrors:
                if not rest:
                    break
                self._incoming.write(rest[:_STEP])
                rest = rest[_STEP:]
            else:
                size += count
                if not count:
                    return size, True
        self._incoming.write(rest)  # before anybody is told: who closes on that reads again
        return size, False

    def _get_write_buffer_size(self) -> int:
        size: int = super()._get_write_buffer_size()
        return size if self._transport is None else size + int(self._transport.get_write_buffer_size())

    def _set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        super()._set_write_buffer_limits(high, low)
        self._outgoing_high_water = max(1, self._outgoing_high_water)  # at 0 asyncio takes an empty buffer for full
