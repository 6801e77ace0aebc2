"""How connections come to workers: the office takes them, and deals them out in turn.

A descriptor is sent over a socket pair of its own, one for each worker: `Channel` knows only bytes.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_PAUSE: Final = 1.0
"""Seconds in which none is taken after the system had no room for one more, as in asyncio."""
_CROWDED: Final = 0.01
"""Seconds after which one that no worker could take is dealt again."""


class Dealer:
    """Deals to the workers that are seated. While none is, connections wait in the kernel."""

    def __init__(self, sockets: Sequence[socket.socket]) -> None:
        """`sockets` listen, and do not block."""
        self._sockets = sockets
        self._seats: deque[socket.socket] = deque()
        """Our ends; the next one to be dealt to is the first."""
        self._resting: asyncio.TimerHandle | None = None
        self._kept: socket.socket | None = None
        """One that was taken, and that no worker could take; all others wait in the kernel."""

    @property
    def seated(self) -> int:
        """How many workers get their share."""
        return len(self._seats)

    def seat(self, end: socket.socket) -> None:
        """The worker at the other end gets its share from now on."""
        self._seats.append(end)
        self._watch()

    def unseat(self, end: socket.socket) -> None:
        """It gets no more. Idempotent."""
        with suppress(ValueError):
            self._seats.remove(end)
        self._watch()

    def close(self) -> None:
        """Nobody gets any more."""
        self._seats.clear()
        self._watch()
        self._sockets = ()
        if self._kept is not None:
            self._kept.close()
            self._kept = None

    def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        for listening in self._sockets:
            if self._seats and self._resting is None:
                loop.add_reader(listening, self._take, listening)
            else:
                loop.remove_reader(listening)

    def _take(self, listening: socket.socket) -> None:
        try:
            connection, _ = listening.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError:  # no descriptor, or no memory
            self._rest(_PAUSE)
            return
        self._give(connection)

    def _give(self, connection: socket.socket) -> None:
        """A worker has it, or it is kept until one can take it, and meanwhile no other is taken."""
        if any(self._deal(connection) for _ in range(len(self._seats))):
            connection.close()
        else:
            self._kept = connection
            self._rest(_CROWDED)

    def _rest(self, seconds: float) -> None:
        self._resting = asyncio.get_running_loop().call_later(seconds, self._rested)
        self._watch()

    def _rested(self) -> None:
        self._resting = None
        if self._kept is not None:
            connection, self._kept = self._kept, None
            self._give(connection)
        self._watch()

    def _deal(self, connection: socket.socket) -> bool:
        """Whether the next worker has it: one that is dead, or stands still and has many to take, does not."""
        self._seats.rotate(-1)
        try:
            socket.send_fds(self._seats[-1], [b"c"], [connection.fileno()])
        except OSError:
            return False
        return True


class Hand:
    """The worker's end: what is dealt to it."""

    def __init__(self, end: socket.socket, serve: Callable[[], asyncio.Protocol]) -> None:
        """`serve` makes what a connection is served by."""
        self._end = end
        self._serve = serve
        self._beginning: set[asyncio.Future[Any]] = set()
        end.settimeout(0)
        asyncio.get_running_loop().add_reader(end, self._take)

    def close(self) -> None:
        """Nothing is dealt any more; what has been is taken."""
        while self._take():
            pass
        asyncio.get_running_loop().remove_reader(self._end)
        self._end.close()

    def _take(self) -> bool:
        """Whether there was one to take."""
        loop = asyncio.get_running_loop()
        try:
            told, descriptors, _, _ = socket.recv_fds(self._end, 1, 1)
        except BlockingIOError:
            return False
        if not told:  # the office is gone, and so will be this worker
            loop.remove_reader(self._end)
        for descriptor in descriptors:  # none, if there was no room for it
            connection = socket.socket(fileno=descriptor)
            connection.settimeout(0)
            beginning = asyncio.ensure_future(loop.connect_accepted_socket(self._serve, connection))
            self._beginning.add(beginning)
            beginning.add_done_callback(self._beginning.discard)
        return bool(told)


def deal_pair() -> tuple[socket.socket, socket.socket]:
    """The office's end, and the worker's."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(0)
    return ours, theirs
