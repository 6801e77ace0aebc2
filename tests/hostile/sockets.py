"""Clients that do not behave, by their sockets, and what a server has open."""

from __future__ import annotations

import re
import socket
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from tests.process import eventually

if TYPE_CHECKING:
    from tests.process import Server

LISTENING = 3
"""Sockets of a server without any client: the one it listens on, and the two by which its loop wakes itself."""


def get(path: str) -> bytes:
    """A request."""
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


def connected(server: Server, request: bytes = b"") -> socket.socket:
    """A client that has sent this."""
    client = socket.create_connection(("127.0.0.1", server.port), timeout=60)
    client.sendall(request)
    return client


def stuck_reader(server: Server, request: bytes) -> socket.socket:
    """A client that has sent this, has little room for an answer, and reads nothing."""
    client = socket.socket()
    client.settimeout(60)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(("127.0.0.1", server.port))
    client.sendall(request)
    return client


def connections(server: Server) -> int:
    """How many sockets the server has for its clients."""
    return sum(target.startswith("socket:") for target in server.descriptors()) - LISTENING


def unaccepted(server: Server) -> int:
    """How many clients have connected without the server having taken them."""
    listening = re.search(
        rf"0100007F:{server.port:04X} 00000000:0000 0A \w+:(\w+)", Path("/proc/net/tcp").read_text("ascii")
    )
    assert listening
    return int(listening[1], 16)


def taken(server: Server) -> None:
    """Returns once the server has taken all who connected. Under load the first may be gone before the last comes."""
    eventually(lambda: unaccepted(server) == 0)


def at_rest(server: Server) -> Counter[str]:
    """What the server has open, once it has no connection.

    A file may be closed just after its connection, and the sweep has some open for a moment: look until it is no more
    than before.
    """
    eventually(lambda: connections(server) == 0)
    return Counter(server.descriptors())
