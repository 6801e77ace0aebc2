"""The rest of a quick client's body, which no parser sees: every promise holds as ever, with TLS and without."""

from __future__ import annotations

import hashlib
import re
import socket
from contextlib import contextmanager
from random import Random
from typing import TYPE_CHECKING

import pytest

from tests.authority import Authority
from tests.e2e.test_cut_off import close, reset
from tests.process import Server, curl, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.process import Answer

MIB = 1024 * 1024
DATA = Random(8).randbytes(7 * MIB + 12345)
SHA256 = hashlib.sha256(DATA).hexdigest()
SENT = 6 * MIB + 1
"""Of it, when a client stops: more than one batch."""
BEGIN = b'--B\r\nContent-Disposition: form-data; name="f"; filename="a.bin"\r\n\r\n'
END = b"\r\n--B--\r\n"
PING = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
LAST = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def put(size: int = len(DATA)) -> bytes:
    """What comes before the data."""
    return f"PUT /files/a.bin HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n".encode()


def form(size: int = len(BEGIN) + len(DATA) + len(END)) -> bytes:
    """What comes before the data, of a form that ends with `END`."""
    lines = f"Content-Type: multipart/form-data; boundary=B\r\nContent-Length: {size}"
    return f"POST /files HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n\r\n".encode() + BEGIN


def half_close(client: socket.socket) -> None:
    """By TLS, too, without a word; what still comes of that is no answer."""
    client.shutdown(socket.SHUT_WR)
    while client.recv(65536):
        pass


class Site:
    """A server, and how it is reached."""

    def __init__(self, server: Server, authority: Authority | None) -> None:
        self.server = server
        self._authority = authority

    @contextmanager
    def client(self) -> Iterator[socket.socket]:
        with socket.create_connection(("127.0.0.1", self.server.port), 30) as plain:
            if self._authority is None:
                yield plain
                return
            with self._authority.client().wrap_socket(plain, server_hostname="127.0.0.1") as secured:
                yield secured

    def curl(self, *arguments: str) -> Answer:
        trust = [] if self._authority is None else ["--cacert", str(self._authority.trusted)]
        return curl(*trust, *arguments)

    def offset(self, address: str) -> int:
        return int(self.curl("-I", "-H", "Tus-Resumable: 1.0.0", address).headers["upload-offset"])

    def assert_nothing_is_left(self) -> None:
        eventually(lambda: self.server.staged() == 0)
        eventually(lambda: self.server.blobs() == {})
        assert self.server.files() == []


@pytest.fixture(scope="module", params=["tcp", "tls"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("unparsed")
    with pytest.MonkeyPatch.context() as patch:
        authority = Authority(directory / "authority") if request.param == "tls" else None
        if authority is not None:
            patch.setenv("SSL_CERT_FILE", str(authority.trusted))  # for what the tests themselves ask
        with Server(directory / "spool", env=authority.environment if authority else {}) as running:
            yield Site(running, authority)


@pytest.fixture(autouse=True)
def empty(site: Site) -> None:
    for file in site.server.files():
        site.curl("-X", "DELETE", file["url"])
    site.assert_nothing_is_left()


def statuses(client: socket.socket) -> list[bytes]:
    """Those of all answers, to the end of the connection."""
    return re.findall(rb"HTTP/1.1 (\d+)", b"".join(iter(lambda: client.recv(65536), b"")))


@pytest.mark.parametrize(("head", "tail"), [(put(), b""), (form(), END)], ids=["put", "form"])
def test_requests_that_follow_are_answered(site: Site, head: bytes, tail: bytes) -> None:
    """Their heads come with the body's last bytes, and each byte belongs to one of them."""
    with site.client() as client:
        client.sendall((head + DATA + tail + PING) * 2 + head + DATA + tail + LAST)
        assert statuses(client) == [b"201", b"200"] * 3
    assert [(file["size"], file["sha256"]) for file in site.server.files()] == [(len(DATA), SHA256)] * 3


def test_next_head_comes_in_pieces(site: Site) -> None:
    with site.client() as client:
        client.sendall(put() + DATA + LAST[:20])
        assert client.recv(65536).startswith(b"HTTP/1.1 201 ")
        client.sendall(LAST[20:])
        assert statuses(client)[-1:] == [b"200"]


@pytest.mark.parametrize("go", [reset, close, half_close])
@pytest.mark.parametrize("head", [put(), form()], ids=["put", "form"])
def test_client_that_goes_leaves_nothing(site: Site, head: bytes, go: Callable[[socket.socket], None]) -> None:
    for sent in (SENT, len(DATA) - 1):
        with site.client() as client:
            client.sendall(head + DATA[:sent])
            eventually(site.server.staged)
            go(client)
            site.assert_nothing_is_left()
    assert site.curl("-T", "/dev/null", f"{site.server.url}/files/next").status == 201


@pytest.mark.parametrize("go", [close, half_close])
def test_upload_keeps_what_came_before_its_client_went(site: Site, go: Callable[[socket.socket], None]) -> None:
    tus = ("-H", "Tus-Resumable: 1.0.0")
    address = site.curl("-X", "POST", *tus, "-H", f"Upload-Length: {len(DATA)}", f"{site.server.url}/tus").headers[
        "location"
    ]
    lines = [
        f"PATCH {address.removeprefix(site.server.url)} HTTP/1.1",
        "Host: localhost",
        "Tus-Resumable: 1.0.0",
        "Content-Type: application/offset+octet-stream",
        "Upload-Offset: 0",
        f"Content-Length: {len(DATA)}",
    ]
    with site.client() as client:
        client.sendall("\r\n".join([*lines, "", ""]).encode() + DATA[:SENT])
        eventually(lambda: site.server.has_read(client))
        go(client)
    assert site.offset(address) == SENT
    assert site.curl("-X", "DELETE", *tus, address).status == 204


def test_refusal_is_read_by_a_client_that_sends_first(site: Site) -> None:
    """What still comes of the body is read and dropped, and no byte of it is taken for a request."""
    part = b"\r\n--B\r\nContent-Disposition: attachment\r\n\r\n"
    body = DATA[:MIB] + part + PING * 50_000 + END
    with site.client() as client:
        client.sendall(form(len(BEGIN) + len(body)) + body)
        assert statuses(client) == [b"400"]
    site.assert_nothing_is_left()
