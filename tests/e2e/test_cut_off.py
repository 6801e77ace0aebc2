"""A client that goes before its upload is complete leaves nothing; one that goes after has its file."""

from __future__ import annotations

import socket
import struct
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.process import Server, curl, eventually, slowed, without_nameless_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FIRST, SECOND = Random(1).randbytes(150_000), Random(2).randbytes(7_000)
SLOW = 1_500_000  # microseconds


class Piece(NamedTuple):
    """One part of a request, and at how many places within it the client is to go."""

    data: bytes
    cuts: int


def head(method: str, path: str, *lines: str) -> Piece:
    return Piece("\r\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", *lines, "", ""]).encode(), 12)


def part(disposition: str, data: bytes) -> list[Piece]:
    header = f"Content-Disposition: form-data; {disposition}\r\n\r\n".encode()
    return [Piece(b"--B\r\n", 3), Piece(header, 4), Piece(data, 4), Piece(b"\r\n", 2)]


def form(first: bytes = FIRST) -> list[Piece]:
    body = [
        *part('name="title"', b"Demo"),
        *part('name="file"; filename="a"', first),
        *part('name="file"; filename="b"', SECOND),
        *part('name="tag"', b"x"),
        Piece(b"--B--\r\n", 7),
    ]
    size = sum(len(piece.data) for piece in body)
    lines = "Content-Type: multipart/form-data; boundary=B", f"Content-Length: {size}"
    return [head("POST", "/files", *lines), *body]


def put(first: bytes = FIRST) -> list[Piece]:
    size = len(first) + len(SECOND)
    return [head("PUT", "/files/a?title=Demo", f"Content-Length: {size}"), Piece(first, 30), Piece(SECOND, 12)]


def chunked(first: bytes = FIRST) -> list[Piece]:
    pieces = [head("PUT", "/files/a", "Transfer-Encoding: chunked")]
    for data in (first, SECOND, b"x"):
        pieces += [Piece(f"{len(data):x}\r\n".encode(), 6), Piece(data, 6), Piece(b"\r\n", 2)]
    return [*pieces, Piece(b"0\r\n", 3), Piece(b"\r\n", 2)]


def whole(pieces: list[Piece]) -> bytes:
    return b"".join(piece.data for piece in pieces)


def cuts(pieces: list[Piece]) -> list[int]:
    """How many bytes the client sends before it goes: within every piece, and all of it but its last byte."""
    found, start = [], 0
    for data, count in pieces:
        found += [start + len(data) * number // count for number in range(count)]
        start += len(data)
        found.append(start - 1)
    return sorted(set(found))


def reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def close(client: socket.socket) -> None:
    client.close()


def half_close(client: socket.socket) -> None:
    client.shutdown(socket.SHUT_WR)
    assert answer(client) == b""


def answer(client: socket.socket) -> bytes:
    """All that comes until the server closes."""
    client.settimeout(60)
    return b"".join(iter(lambda: client.recv(65536), b""))


@pytest.fixture(scope="module", params=["nameless", "named"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("cut-off") / "spool"
    with Server(directory) if request.param == "nameless" else without_nameless_files(directory) as running:
        yield running


@pytest.fixture
def idle(server: Server) -> int:
    """How many descriptors the server needs when it does nothing. It has no files yet."""
    for file in server.files():
        curl("-X", "DELETE", file["url"])
    eventually(lambda: not connections(server))
    return len(server.descriptors())


def connections(server: Server) -> int:
    """How many clients the server has a descriptor for."""
    here, listening = f"0100007F:{server.port:04X}", "0A"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text("ascii").splitlines()]
    return sum(row[1] == here and row[3] != listening and row[9] != "0" for row in rows)


def assert_nothing_is_left(server: Server, idle: int) -> None:
    eventually(lambda: len(server.descriptors()) <= idle)
    eventually(lambda: server.blobs() == {})
    assert server.files() == []


def assert_next_is_served(server: Server) -> None:
    response = curl("-T", "-", f"{server.url}/files/next", stdin=b"hello")
    assert response.status == 201
    assert [file["filename"] for file in server.files()] == ["next"]
    assert list(server.blobs().values()) == [5]


@pytest.mark.parametrize("seen", [True, False], ids=["seen", "at-once"])
@pytest.mark.parametrize("go", [reset, close, half_close])
@pytest.mark.parametrize("make", [form, put, chunked])
def test_cut_off_upload_leaves_nothing(
    server: Server, idle: int, make: Callable[[], list[Piece]], go: Callable[[socket.socket], None], *, seen: bool
) -> None:
    request = whole(make())
    places = cuts(make())
    assert len(places) >= 50
    assert places[-1] == len(request) - 1
    for place in places:
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(request[:place])
            if seen:
                eventually(lambda client=client: server.has_read(client))
            go(client)
        assert_nothing_is_left(server, idle)
    assert_next_is_served(server)


@pytest.mark.parametrize("make", [form, put, chunked])
def test_files_of_a_cut_off_upload_were_on_their_way(
    server: Server, idle: int, make: Callable[[bytes], list[Piece]], request: pytest.FixtureRequest
) -> None:
    named = "named" in request.node.callspec.params.values()
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(whole(make(bytes(6 * 2**20)))[:-1])  # more than a batch; a small file beside it is in memory
        eventually(lambda: server.staged() == 1)
        assert len(server.blobs()) == (server.staged() if named else 0)
        assert server.files() == []
        reset(client)
    assert_nothing_is_left(server, idle)


@pytest.mark.parametrize(
    ("call", "effect"), [("openat", "delay_exit"), ("writev", "delay_enter"), ("fsync", "delay_enter")]
)
def test_client_that_goes_while_the_storage_works_leaves_nothing(
    server: Server, idle: int, call: str, effect: str
) -> None:
    with slowed(server, call, f"{effect}=400000"):
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(whole(form())[:-1])
            eventually(server.staged)
            eventually(lambda: server.has_read(client))
            reset(client)
        assert_nothing_is_left(server, idle)
    assert_next_is_served(server)


@pytest.mark.parametrize("seen", [True, False], ids=["seen", "at-once"])
@pytest.mark.parametrize("make", [form, put, chunked])
def test_half_close_after_a_complete_request_gets_the_answer(
    server: Server, idle: int, make: Callable[[], list[Piece]], *, seen: bool
) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(whole(make()))
        if seen:
            eventually(lambda: server.has_read(client))
        client.shutdown(socket.SHUT_WR)
        assert answer(client).startswith(b"HTTP/1.1 201 ")
    sizes = [len(FIRST), len(SECOND)] if make is form else [len(whole(put()[1:])) + (make is chunked)]
    assert sorted(file["size"] for file in server.files()) == sorted(sizes)
    eventually(lambda: len(server.descriptors()) <= idle)


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_form_without_its_whole_closing_boundary_is_cut_off(server: Server, idle: int, framing: str) -> None:
    body = whole(form()[1:])
    closing = len(b"\r\n--B--")
    for missing in range(1, closing + 1):
        sent = body[: len(body) - len(b"\r\n") - missing]
        response = curl(
            "-H", "Content-Type: multipart/form-data; boundary=B", "--data-binary", "@-",
            *(["-H", "Transfer-Encoding: chunked"] if framing == "chunked" else []),
            f"{server.url}/files", stdin=sent,
        )  # fmt: skip
        assert (response.status, response.json["type"]) == (400, "/problems/cut-off")
        assert_nothing_is_left(server, idle)
    assert_next_is_served(server)


@pytest.mark.parametrize(
    ("call", "effect"), [("linkat", "delay_exit"), ("fsync", "delay_enter"), ("fdatasync", "delay_enter")]
)
def test_commit_runs_to_its_end_without_its_client(server: Server, idle: int, call: str, effect: str) -> None:
    """The delays hold the commit up after its first link, before a directory is synced, in the index transaction."""
    committed = len(server.events("upload.committed"))
    with slowed(server, call, f"{effect}={SLOW}"):
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(whole(form()))
            eventually(lambda: any(path.name for path in server.dir.glob("blobs/*/*")))
            assert server.files() == []
            reset(client)
        files = eventually(server.files)
    contents = {file["filename"]: curl("-L", file["content_url"]).body for file in files}
    assert contents == {"a": FIRST, "b": SECOND}
    events = eventually(lambda: server.events("upload.committed")[committed:])
    assert sorted(event["id"] for event in events) == sorted(file["id"] for file in files)
    eventually(lambda: len(server.descriptors()) <= idle)
    assert sorted(server.blobs().values()) == sorted([len(FIRST), len(SECOND)])
