"""A client that comes back while its old connection seems alive is answered at once, and nothing that came is lost."""

from __future__ import annotations

import fcntl
import socket
import struct
import sys
import termios
import time
import urllib.request
from contextlib import closing, suppress
from dataclasses import dataclass
from hashlib import sha256
from random import Random
from threading import Event, Thread
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from tests.process import Server, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DIALECTS = ["tus", "rufh"]
DATA = Random(3).randbytes(3_000_000)
SENT = 700_000  # of it, by the connection that is taken over
BEARABLE = 20.0
"""Seconds: the first client, which sends nothing more, would be given up after 30."""
HEADERS = {
    "tus": ["Tus-Resumable: 1.0.0", "Content-Type: application/offset+octet-stream"],
    "rufh": ["Upload-Draft-Interop-Version: 8", "Content-Type: application/partial-upload"],
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("handover") / "spool") as server:
        yield server


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    seconds: float

    @property
    def offset(self) -> int:
        return int(self.headers["upload-offset"])


@dataclass
class Client:
    """Speaks one dialect over raw sockets."""

    server: Server
    dialect: str
    path: str = ""

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.server.port), timeout=60)

    def head(self, method: str, path: str, *lines: str) -> bytes:
        every = [f"{method} {path} HTTP/1.1", "Host: localhost", *HEADERS[self.dialect], *lines, "", ""]
        return "\r\n".join(every).encode()

    def create(self, length: int = len(DATA)) -> None:
        more = [] if self.dialect == "tus" else ["Upload-Complete: ?0"]
        path = "/tus" if self.dialect == "tus" else "/files"
        reply = self.ask(self.head("POST", path, f"Upload-Length: {length}", "Content-Length: 0", *more))
        assert reply.status == 201
        self.path = urlsplit(reply.headers["location"]).path

    def patch(self, offset: int, size: int) -> bytes:
        complete = "?1" if offset + size == len(DATA) else "?0"
        return self.head(
            "PATCH",
            self.path,
            f"Upload-Offset: {offset}",
            f"Content-Length: {size}",
            *([] if self.dialect == "tus" else [f"Upload-Complete: {complete}"]),
        )

    def ask(self, request: bytes) -> Reply:
        """The final answer on a connection of its own, and how long it took."""
        with closing(self.connect()) as connection:
            start = time.perf_counter()
            connection.sendall(request)
            return read_reply(connection, start)

    def send_some(self, connection: socket.socket) -> None:
        """The start of a PATCH with all bytes; it has reached the server, and is being received."""
        before = set(self.server.blobs())
        connection.sendall(self.patch(0, len(DATA)) + DATA[:SENT])
        eventually(lambda: _nothing_queued(connection) and self.server.has_read(connection))
        eventually(lambda: begun(self.server, before))

    def inspect(self) -> Reply:
        return self.ask(self.head("HEAD", self.path))

    def finish(self, offset: int) -> None:
        """Sends what is missing; the file is the whole."""
        reply = self.ask(self.patch(offset, len(DATA) - offset) + DATA[offset:])
        assert reply.status in (201, 204)
        assert reply.offset == len(DATA)
        url = urlsplit(self.inspect().headers["content-location"]).path
        record = self.server.get(url)
        assert record["sha256"] == sha256(DATA).hexdigest()
        with urllib.request.urlopen(f"{self.server.url}{url}/content", timeout=60) as answer:
            assert answer.read() == DATA


def begun(server: Server, before: set[str]) -> bool:
    """Whether bytes of an upload are on the disk that was not there before."""
    blobs = server.blobs()
    return any(blobs.get(name) for name in blobs.keys() - before)


def _nothing_queued(connection: socket.socket) -> bool:
    """Whether all that was sent has been acknowledged by the other side's kernel."""
    return not int.from_bytes(fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4)), sys.byteorder)


def read_reply(connection: socket.socket, start: float) -> Reply:
    received = b""
    while True:
        while b"\r\n\r\n" not in received:
            piece = connection.recv(65536)
            assert piece, f"the connection was closed after {received!r}"
            received += piece
        head, _, received = received.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        status = int(first.split()[1])
        if status >= 200:
            pairs = (line.partition(":") for line in lines)
            return Reply(status, {name.lower(): value.strip() for name, _, value in pairs}, time.perf_counter() - start)


@pytest.fixture(params=DIALECTS)
def client(server: Server, request: pytest.FixtureRequest) -> Client:
    client = Client(server, request.param)
    client.create()
    return client


@pytest.fixture
def slow(client: Client) -> Iterator[socket.socket]:
    """A connection that has sent some of a PATCH and now says nothing."""
    with closing(client.connect()) as connection:
        client.send_some(connection)
        yield connection


def tell(what: str, dialect: str, reply: Reply) -> None:
    print(f"\n{dialect}: {what} answered within {reply.seconds * 1000:.1f} ms")  # noqa: T201  # worth reading
    assert reply.seconds < BEARABLE


def assert_taken_over(connection: socket.socket) -> None:
    """The first connection is told, or at least closed."""
    try:
        reply = read_reply(connection, 0)
    except (ConnectionError, AssertionError):
        return
    assert reply.status == 409


def test_head_during_a_slow_patch(client: Client, slow: socket.socket) -> None:
    reply = client.inspect()
    tell("HEAD", client.dialect, reply)
    assert reply.status in (200, 204)
    assert reply.offset == SENT
    assert_taken_over(slow)
    client.finish(reply.offset)


def test_patch_during_a_slow_patch(client: Client, slow: socket.socket) -> None:
    more = 1000
    reply = client.ask(client.patch(SENT, more) + DATA[SENT : SENT + more])
    tell("PATCH at the offset that the bytes have reached", client.dialect, reply)
    assert (reply.status, reply.offset) == (204, SENT + more)
    assert_taken_over(slow)
    client.finish(reply.offset)


def test_patch_at_a_stale_offset_during_a_slow_patch(client: Client, slow: socket.socket) -> None:
    reply = client.ask(client.patch(0, 1000) + DATA[:1000])
    tell("PATCH at a stale offset", client.dialect, reply)
    assert (reply.status, reply.offset) == (409, SENT)
    assert_taken_over(slow)
    client.finish(reply.offset)


def test_delete_during_a_slow_patch(client: Client, slow: socket.socket) -> None:
    reply = client.ask(client.head("DELETE", client.path))
    tell("DELETE", client.dialect, reply)
    assert reply.status == 204
    assert_taken_over(slow)
    assert client.inspect().status == 404
    assert len(client.server.blobs()) == len({file["sha256"] for file in client.server.files()})


def test_many_heads_at_once_are_all_answered(client: Client, slow: socket.socket) -> None:
    replies: list[Reply] = []
    threads = [Thread(target=lambda: replies.append(client.inspect())) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(replies) == 20
    assert {reply.offset for reply in replies} == {SENT}
    tell("the last of 20 HEADs", client.dialect, max(replies, key=lambda reply: reply.seconds))
    assert_taken_over(slow)
    client.finish(SENT)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_head_during_a_fast_patch(server: Server, dialect: str) -> None:
    """The bytes come as fast as they are taken, so that the take-over finds a write or a hash under way."""
    slowest, lost, caught = 0.0, [], 0
    for turn in range(25):
        client = Client(server, dialect)
        client.create(len(FLOOD))
        gone, before = Event(), set(server.blobs())
        sender = Thread(target=flood, args=(client, gone))
        sender.start()
        eventually(lambda gone=gone, before=before: gone.is_set() or begun(server, before))  # type: ignore[misc]
        time.sleep(turn * 0.004)
        caught += not gone.is_set()
        reply = client.inspect()
        slowest = max(slowest, reply.seconds)
        gone.wait(60)
        sender.join(60)
        offset = reply.offset
        data = FLOOD[offset:]
        complete = [] if dialect == "tus" else ["Upload-Complete: ?1"]
        lines = [f"Upload-Offset: {offset}", f"Content-Length: {len(data)}", *complete]
        if data or "content-location" not in client.inspect().headers:  # the draft may still want its completion
            answer = client.ask(client.head("PATCH", client.path, *lines) + data)
            assert answer.status in (201, 204), (turn, offset, answer)
        record = server.get(urlsplit(client.inspect().headers["content-location"]).path)
        if record["sha256"] != FLOOD_SHA256:
            lost.append((turn, offset))
        client.ask(client.head("DELETE", client.path))
    print(f"\n{dialect}: the slowest HEAD of 25, {caught} of them during a fast PATCH, took {slowest * 1000:.1f} ms")  # noqa: T201
    assert not lost, f"a digest that is not that of the bytes: {lost}"
    assert slowest < BEARABLE


FLOOD = Random(5).randbytes(24_000_000)
FLOOD_SHA256 = sha256(FLOOD).hexdigest()


def flood(client: Client, gone: Event) -> None:
    complete = [] if client.dialect == "tus" else ["Upload-Complete: ?1"]
    lines = ["Upload-Offset: 0", f"Content-Length: {len(FLOOD)}", *complete]
    try:
        with closing(client.connect()) as connection:
            connection.sendall(client.head("PATCH", client.path, *lines) + FLOOD)
            read_reply(connection, 0)
    except (OSError, AssertionError):
        pass
    finally:
        gone.set()


@pytest.mark.parametrize("dialect", DIALECTS)
def test_closed_connection_keeps_every_byte_of_a_fast_patch(server: Server, dialect: str) -> None:
    """All of these bytes have reached the server's machine before it learns that there will be no more."""
    missing = []
    for turn in range(8):
        client = Client(server, dialect)
        client.create(len(FLOOD))
        sent = 5_000_000 + turn * 777_777
        complete = [] if dialect == "tus" else ["Upload-Complete: ?1"]
        lines = ["Upload-Offset: 0", f"Content-Length: {len(FLOOD)}", *complete]
        with closing(client.connect()) as connection:
            connection.sendall(client.head("PATCH", client.path, *lines) + FLOOD[:sent])
            connection.shutdown(socket.SHUT_WR)
            with suppress(ConnectionError):
                while connection.recv(65536):
                    pass
        offset = client.inspect().offset
        missing.append(sent - offset)
        client.ask(client.head("DELETE", client.path))
    print(f"\n{dialect}: bytes that were lost with closed connections: {missing}")  # noqa: T201
    assert not any(missing)


def test_dropped_connection_keeps_what_arrived(client: Client) -> None:
    connection = client.connect()
    client.send_some(connection)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()  # RST
    reply = client.inspect()
    tell("HEAD after a reset", client.dialect, reply)
    assert reply.offset == SENT
    client.finish(reply.offset)


def test_offset_survives_a_kill(tmp_path: Path) -> None:
    for dialect in DIALECTS:
        with Server(tmp_path / dialect) as server:
            client = Client(server, dialect)
            client.create()
            with closing(client.connect()) as connection:
                client.send_some(connection)
                assert client.inspect().offset == SENT
            server.kill()
            server.start()
            assert client.inspect().offset == SENT
            client.finish(SENT)
