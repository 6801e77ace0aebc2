"""What a service and systemd tell each other: sockets that it is given (sd_listen_fds(3)), how it is (sd_notify(3)).

Nothing of it does anything where another program, or none, has started the server.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from spool.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spool.config import Supervision

_log = logging.getLogger(__name__)
_FIRST: Final = 3
"""The first descriptor that is handed over."""


def inherited(told: Supervision) -> list[socket.socket]:
    """The listening sockets that were handed over; whoever is started from here does not get them.

    Raises Unavailable if one of them is something else.
    """
    sockets = []
    for descriptor in range(_FIRST, _FIRST + told.sockets):
        try:
            os.set_inheritable(descriptor, False)  # noqa: FBT003
            given = socket.socket(fileno=descriptor)
            listens = given.type == socket.SOCK_STREAM and given.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        except OSError as error:
            raise Unavailable(f"descriptor {descriptor}, which LISTEN_FDS names, is no socket") from error
        if not listens:
            raise Unavailable(f"descriptor {descriptor}, which LISTEN_FDS names, takes no connections")
        sockets.append(given)
    return sockets


def only_this_machine(sockets: Sequence[socket.socket]) -> bool:
    """Whether nobody else can connect to these."""
    return all(s.family == socket.AF_UNIX or ip_address(s.getsockname()[0]).is_loopback for s in sockets)


def tell(told: Supervision, state: str) -> None:
    """Tells the service manager, if there is one that wants to know, such as "READY=1"."""
    if not told.notify_socket:
        return
    address = told.notify_socket
    if address.startswith("@"):  # a name that is in no directory (unix(7))
        address = f"\0{address[1:]}"
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as connection:
            connection.sendto(state.encode(), address)
    except OSError as error:
        _log.warning("systemd.unheard", {"reason": str(error)})


async def beat_for_ever(told: Supervision) -> None:
    """Tells that the event loop still turns, twice in the time after which systemd takes it for stuck."""
    while told.watchdog:
        tell(told, "WATCHDOG=1")
        await asyncio.sleep(told.watchdog / 2)
