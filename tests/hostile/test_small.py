"""As many small uploads as there are slots, held in memory at once."""

from __future__ import annotations

import json
from contextlib import ExitStack, closing
from http.client import HTTPResponse
from typing import TYPE_CHECKING, Final

import pytest

from tests.hostile.sockets import at_rest, connected
from tests.process import Server, eventually

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator
    from pathlib import Path

SLOTS: Final = 256
SIZE: Final = 64 * 1024
SENT: Final = 60 * 1024
PIECE: Final = 1024
ALLOWED: Final = 3 * SLOTS * SIZE
"""Bytes: the bodies, what aiohttp has of them, and what each connection takes."""


@pytest.fixture(params=["0", "64 KiB"], ids=["blobs", "inline"])
def server(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Server]:
    env = {
        "SPOOL_STORAGE_INLINE_MAX": request.param,
        "SPOOL_LIMITS_MAX_UPLOADS": str(SLOTS),
        "SPOOL_LIMITS_MIN_FREE_SPACE": "1 MiB",
    }
    with Server(tmp_path / "spool", env=env) as server:
        yield server


def begun(server: Server, stack: ExitStack, number: int) -> socket.socket:
    """A client that has sent the head of a PUT."""
    head = f"PUT /files/{number} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {SIZE}\r\n\r\n"
    return stack.enter_context(closing(connected(server, head.encode())))


def hold(server: Server, clients: list[socket.socket]) -> None:
    """All of them have sent most of their bodies, a piece each in turn."""
    for _ in range(SENT // PIECE):
        for client in clients:
            client.sendall(bytes(PIECE))
    for client in clients:
        eventually(lambda client=client: server.has_read(client))  # type: ignore[misc]


def test_small_uploads_in_every_slot_stay_within_their_memory(server: Server) -> None:
    server.put("first", b"data")
    before = server.resident()
    with ExitStack() as stack:
        clients = [begun(server, stack, number) for number in range(SLOTS)]
        hold(server, clients)
        held = server.resident() - before
        print(f"\n{SLOTS} bodies of {SENT} bytes held: {held >> 20} MiB")  # noqa: T201  # worth reading
        assert held < ALLOWED
        for client in clients:
            client.sendall(bytes(SIZE - SENT))
        assert {status(client) for client in clients} == {201}
    print(f"at most {(server.rss() - before) >> 20} MiB more")  # noqa: T201
    assert server.rss() - before < ALLOWED + SLOTS * SIZE
    assert len(server.files()) == SLOTS + 1


def status(client: socket.socket) -> int:
    response = HTTPResponse(client)
    response.begin()
    assert json.loads(response.read())["size"] == SIZE
    return response.status


def test_small_uploads_whose_clients_vanish_leave_nothing(server: Server) -> None:
    rest = at_rest(server)
    with ExitStack() as stack:
        clients = [begun(server, stack, number) for number in range(20)]
        hold(server, clients)
        assert server.staged() == 0
    eventually(lambda: len(server.events("upload.refused")) == len(clients))
    assert at_rest(server).total() <= rest.total() + 10  # threads that answered, and their connections to the index
    assert server.blobs() == {}
    assert server.files() == []
    assert server.put("next", b"data")["size"] == 4
