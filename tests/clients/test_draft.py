"""A client of the IETF's draft that sees what most HTTP libraries hide: the interim responses."""

from __future__ import annotations

import fcntl
import hashlib
import json
import random
import socket
import struct
import termios
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

import pytest

from tests.process import eventually

if TYPE_CHECKING:
    from tests.clients.conftest import Sample
    from tests.process import Server

MIB: Final = 1024 * 1024
TIMEOUT: Final = 15
CHECKPOINT: Final = 64 * MIB
"""The server tells how far it is every so many bytes."""
VERSION: Final = {"Upload-Draft-Interop-Version": "8"}
PARTIAL: Final = {"Content-Type": "application/partial-upload"}


@dataclass(frozen=True)
class Response:
    status: int
    headers: dict[str, str]
    body: bytes = b""

    @property
    def offset(self) -> int:
        return int(self.headers["upload-offset"])


class Connection:
    """One to the server, on which requests are written piece by piece."""

    def __init__(self, server: Server) -> None:
        self.socket = socket.create_connection(("127.0.0.1", server.port), TIMEOUT)
        self._input = self.socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._input.close()
        self.socket.close()

    def reset(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def start(self, method: str, url: str, size: int, **headers: str) -> None:
        """Sends a request's head."""
        _, _, rest = url.partition("//")
        host, _, path = rest.partition("/")
        fields = {"Host": host, "Content-Length": str(size), **headers}
        lines = [f"{method} /{path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
        self.send("\r\n".join([*lines, "", ""]).encode())

    def send(self, data: bytes | memoryview) -> None:
        self.socket.sendall(data)

    def is_sent(self) -> bool:
        """Whether all that was sent has reached the other end."""
        (queued,) = struct.unpack("i", fcntl.ioctl(self.socket, termios.TIOCOUTQ, bytes(4)))
        return queued == 0

    def read(self, method: str = "") -> Response:
        """The next response, interim or final."""
        status = int(self._input.readline().split()[1])
        headers = {}
        while line := self._input.readline().decode("latin-1").strip():
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        bodiless = method == "HEAD" or status < 200 or status == 204
        return Response(status, headers, b"" if bodiless else self._input.read(int(headers["content-length"])))


def ask(server: Server, method: str, url: str, body: bytes | memoryview = b"", **headers: str) -> Response:
    """A request on a connection of its own; its final response."""
    with Connection(server) as connection:
        connection.start(method, url, len(body), **VERSION, **headers)
        connection.send(body)
        while (response := connection.read(method)).status < 200:
            pass
        return response


def fields(**values: str) -> dict[str, str]:
    return {f"Upload-{name.title()}": value for name, value in values.items()}


def assert_is_record(server: Server, response: Response, data: bytes) -> None:
    """The answer is that of a plain upload."""
    assert (response.status, response.headers["upload-complete"]) == (201, "?1")
    record: Any = json.loads(response.body)
    assert (record["size"], record["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    assert response.headers["location"] == record["url"]
    assert [listed["id"] for listed in server.files()] == [record["id"]]


@pytest.fixture(scope="module")
def large() -> bytes:
    return random.Random(4).randbytes(76 * MIB)


@pytest.mark.parametrize("cut", ["close", "reset"])
def test_upload_that_was_cut_off_goes_on(server: Server, sample: Sample, cut: str) -> None:
    half = sample.size // 2
    connection = Connection(server)
    connection.start("POST", f"{server.url}/files", sample.size, **VERSION, **fields(complete="?1"))
    told = connection.read()
    assert (told.status, told.headers["upload-draft-interop-version"]) == (104, "8")
    assert "max-size=" in told.headers["upload-limit"]
    location = told.headers["location"]
    connection.send(sample.data[:half])
    eventually(lambda: connection.is_sent() and server.has_read(connection.socket))
    getattr(connection, cut)()

    state = ask(server, "HEAD", location)
    assert (state.status, state.headers["upload-complete"]) == (204, "?0")
    assert state.headers["upload-length"] == str(sample.size)
    assert state.offset == half
    resumed = fields(complete="?1", offset=str(half))
    assert_is_record(server, ask(server, "PATCH", location, sample.data[half:], **PARTIAL, **resumed), sample.data)
    assert ask(server, "HEAD", location).headers["upload-complete"] == "?1"


def test_upload_whose_connection_still_seems_alive_goes_on(server: Server, sample: Sample) -> None:
    with Connection(server) as stale:
        stale.start("PUT", f"{server.url}/files/a.bin", sample.size, **VERSION, **fields(complete="?1"))
        location = stale.read().headers["location"]
        stale.send(sample.data[:MIB])
        eventually(lambda: stale.is_sent() and server.has_read(stale.socket))
        offset = ask(server, "HEAD", location).offset
        assert offset == MIB
        resumed = fields(complete="?1", offset=str(offset))
        response = ask(server, "PATCH", location, sample.data[offset:], **PARTIAL, **resumed)
        assert_is_record(server, response, sample.data)


def test_last_answer_is_given_again(server: Server, sample: Sample) -> None:
    created = ask(server, "POST", f"{server.url}/files", sample.data, **fields(complete="?0"))
    location = created.headers["location"]
    end = PARTIAL | fields(complete="?1", offset=str(sample.size))
    for _ in range(2):
        assert_is_record(server, ask(server, "PATCH", location, **end), sample.data)


def test_creation_is_told_how_far_it_has_come(server: Server, large: bytes) -> None:
    with Connection(server) as connection:
        connection.start("POST", f"{server.url}/files", len(large), **VERSION, **fields(complete="?1"))
        assert "location" in connection.read().headers
        assert_told_in_between(server, connection, large)


def test_append_is_told_how_far_it_has_come(server: Server, large: bytes) -> None:
    created = ask(server, "POST", f"{server.url}/files", **fields(complete="?0", length=str(len(large))))
    with Connection(server) as connection:
        append = PARTIAL | fields(complete="?1", offset="0")
        connection.start("PATCH", created.headers["location"], len(large), **VERSION, **append)
        assert_told_in_between(server, connection, large)


def assert_told_in_between(server: Server, connection: Connection, data: bytes) -> None:
    """An offset is told before the end is sent, and no address with it."""
    view, almost = memoryview(data), len(data) - 4 * MIB
    connection.send(view[:almost])
    told = connection.read()
    assert (told.status, told.headers["upload-draft-interop-version"]) == (104, "8")
    assert CHECKPOINT <= told.offset <= almost
    assert "location" not in told.headers
    connection.send(view[almost:])
    assert_is_record(server, connection.read(), data)


@pytest.mark.parametrize("version", [None, "5", "11", "?1"])
def test_client_of_another_version_is_sent_no_interim_response(server: Server, version: str | None) -> None:
    headers = {} if version is None else {"Upload-Draft-Interop-Version": version}
    with Connection(server) as connection:
        connection.start("POST", f"{server.url}/files", 5, **headers, **fields(complete="?1"))
        connection.send(b"hello")
        assert_is_record(server, connection.read(), b"hello")


def test_client_that_waits_is_told_to_go_on_as_well(server: Server) -> None:
    with Connection(server) as connection:
        expecting = VERSION | fields(complete="?1") | {"Expect": "100-continue"}
        connection.start("POST", f"{server.url}/files", 5, **expecting)
        assert sorted(connection.read().status for _ in range(2)) == [100, 104]
        connection.send(b"hello")
        assert_is_record(server, connection.read(), b"hello")
