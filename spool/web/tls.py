"""TLS around a connection: asyncio's layer, with the limits and the room that it does not have by itself.

`Secure` follows asyncio's SSLProtocol in its unwritten ways, which are the same from Python 3.11 to 3.13. What it
changes: a handshake counts as a connection and has the time of a head; what waits for a slow client is seen by whoever
watches, also what waits below TLS; and a connection has no buffers of its own.
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
_MOST_READ: Final = 512 * 1024
"""The most that `max_size` may be set to."""


class Tls:
    """What the connections of one listener share."""

    def __init__(self, context: ssl.SSLContext, limits: Limits, crowd: Crowd) -> None:
        self.context = context
        self.crowd = crowd
        self.handshake = limits.head_timeout.total_seconds()
        self.farewell = limits.idle_timeout.total_seconds()
        self.coded, self.plain = memoryview(bytearray(_MOST_READ)), memoryview(bytearray(_MOST_READ))
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
        """Where the socket is read to."""
        self._ssl_buffer_view = self._tls.coded[: self.max_size]
        return self._ssl_buffer_view

    def _set_app_protocol(self, app_protocol: asyncio.BaseProtocol) -> None:
        """Bytes are put together in one place and given out as one object, not collected record by record."""
        super()._set_app_protocol(app_protocol)
        receiver = cast("asyncio.Protocol", app_protocol)
        self._app_protocol_is_buffer = True
        self._app_protocol_get_buffer = lambda _: self._tls.plain[: self.max_size]
        self._app_protocol_buffer_updated = lambda size: receiver.data_received(bytes(self._tls.plain[:size]))

    def _get_write_buffer_size(self) -> int:
        size: int = super()._get_write_buffer_size()
        return size if self._transport is None else size + int(self._transport.get_write_buffer_size())

    def _set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        super()._set_write_buffer_limits(high, low)
        self._outgoing_high_water = max(1, self._outgoing_high_water)  # at 0 asyncio takes an empty buffer for full
