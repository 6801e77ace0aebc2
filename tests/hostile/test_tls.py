"""Clients of TLS that do not finish their handshake, come in crowds, or do not take what they asked for."""

from __future__ import annotations

from contextlib import ExitStack, closing, suppress
from typing import TYPE_CHECKING

import pytest

from tests.authority import Authority
from tests.hostile.sockets import at_rest, connected, connections, get, stuck_reader, taken
from tests.hostile.test_connections import LARGE, QUICK, STEADY, answer, slowly
from tests.process import Server, curl, eventually

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Iterator
    from pathlib import Path

HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
"""How a ClientHello begins."""


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


@pytest.fixture
def settings() -> dict[str, str]:
    return {**QUICK, "SPOOL_LIMITS_HEAD_TIMEOUT": "2s"}


@pytest.fixture
def server(tmp_path: Path, authority: Authority, settings: dict[str, str]) -> Iterator[Server]:
    with Server(tmp_path / "spool", env={**authority.environment, **settings}) as running:
        yield running


@pytest.fixture
def large(server: Server, tmp_path: Path) -> bytes:
    """A request for a large file."""
    (tmp_path / "large").write_bytes(LARGE)
    record = curl("-k", "-T", str(tmp_path / "large"), f"{server.url}/files/").json
    return get(f"/media/{record['id']}/x")


@pytest.fixture
def listing(server: Server, tmp_path: Path) -> bytes:
    """All but the end of a request for an answer that is larger than the buffers of a connection."""
    (tmp_path / "long").write_text("x" * 200_000)
    files = [f"-Ff=@{tmp_path / 'long'};filename={number}" for number in range(40)]
    assert curl("-k", *files, "-F", f"m=<{tmp_path / 'long'}", f"{server.url}/files").status == 201
    return get("/files?limit=40")[:-2]


def secured(client: socket.socket, authority: Authority) -> ssl.SSLSocket:
    """The client after its handshake."""
    return authority.client().wrap_socket(client, server_hostname="localhost")


def ended(client: socket.socket) -> bool:
    """Whether the server ends the connection."""
    with suppress(ConnectionError):
        return client.recv(1) == b""
    return True


class TestHandshake:
    @pytest.mark.parametrize("sent", [b"", b"\x16", HELLO, HELLO + bytes(200)], ids=len)
    def test_that_is_never_finished_is_given_up(self, server: Server, sent: bytes) -> None:
        rest = at_rest(server)
        with ExitStack() as stack:
            clients = [stack.enter_context(closing(connected(server, sent))) for _ in range(20)]
            taken(server)
            assert all(ended(client) for client in clients)
            eventually(lambda: at_rest(server) <= rest)
        assert "Traceback" not in server.log()

    def test_head_that_never_comes_after_it_is_given_up(self, server: Server, authority: Authority) -> None:
        with secured(connected(server), authority) as client:
            assert ended(client)
            at_rest(server)

    @pytest.mark.parametrize("settings", [{"SPOOL_LIMITS_MAX_CONNECTIONS": "20", "SPOOL_LIMITS_HEAD_TIMEOUT": "5s"}])
    def test_that_is_not_finished_counts_as_a_connection(self, server: Server, authority: Authority) -> None:
        with ExitStack() as stack:
            for _ in range(200):
                stack.enter_context(closing(connected(server)))
            eventually(lambda: server.events("connections.refused"))
            eventually(lambda: connections(server) == 20 + 32)
            with closing(connected(server)) as one_more:
                assert ended(one_more)
            assert connections(server) <= 20 + 32
            at_rest(server)
        with secured(connected(server, b""), authority) as client:
            client.sendall(get("/healthz"))
            assert answer(client)[0] == 200


@pytest.mark.parametrize("settings", [{"SPOOL_LIMITS_MAX_CONNECTIONS": "60"}])
def test_connection_that_is_one_too_many_is_told_so_by_tls(server: Server, authority: Authority) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(secured(connected(server), authority)) for _ in range(60)]
        for client in clients:
            client.sendall(get("/healthz"))
            assert answer(client)[0] == 200
        with secured(connected(server), authority) as one_more:
            status, headers, problem = answer(one_more)
            assert (status, problem["type"]) == (503, "/problems/unavailable")
            assert headers["connection"] == "close"
        clients[0].sendall(get("/healthz"))
        assert answer(clients[0])[0] == 200
        clients.pop().close()
        eventually(lambda: connections(server) == 59)
        with secured(connected(server), authority) as another:
            another.sendall(get("/healthz"))
            assert answer(another)[0] == 200
    assert "Traceback" not in server.log()


class TestAnswer:
    """That a client does not take, or takes slowly."""

    def test_that_is_not_taken_is_given_up(self, server: Server, authority: Authority, large: bytes) -> None:
        rest = at_rest(server)
        with ExitStack() as stack:
            for _ in range(20):
                client = stack.enter_context(secured(stuck_reader(server, b""), authority))
                client.sendall(large)
            taken(server)
            eventually(lambda: at_rest(server) <= rest)
        assert "Traceback" not in server.log()

    def test_that_was_written_as_a_whole_and_is_not_taken_is_given_up(
        self, server: Server, authority: Authority, listing: bytes
    ) -> None:
        with secured(stuck_reader(server, b""), authority) as client:
            client.sendall(listing + b"\r\n")
            taken(server)
            at_rest(server)

    @pytest.mark.parametrize("settings", [{**QUICK, "SPOOL_LIMITS_IDLE_TIMEOUT": "2s"}])
    def test_that_is_the_last_one_and_taken_slowly_is_whole(
        self, server: Server, authority: Authority, listing: bytes
    ) -> None:
        with secured(stuck_reader(server, b""), authority) as client:
            client.sendall(listing + b"Connection: close\r\n\r\n")
            came = b"".join(slowly(client, 16384, 120))  # three times as long as the server waits for a farewell
            client.settimeout(60)
            while data := client.recv(65536):
                came += data
        head, _, body = came.partition(b"\r\n\r\n")
        assert f"Content-Length: {len(body)}\r\n".encode() in head
        assert len(body) > 40 * 200_000

    def test_that_is_taken_too_slowly_is_given_up(self, server: Server, authority: Authority, large: bytes) -> None:
        with secured(stuck_reader(server, b""), authority) as client:
            client.sendall(large)
            taken(server)
            for _ in slowly(client, 500, 200):
                if not connections(server):
                    break
            assert not connections(server)

    @pytest.mark.parametrize("settings", [STEADY])
    def test_that_is_taken_slowly_but_fast_enough_goes_on(
        self, server: Server, authority: Authority, large: bytes
    ) -> None:
        with secured(stuck_reader(server, b""), authority) as client:
            client.sendall(large)
            for _ in slowly(client, 16384, 100):
                pass
            assert connections(server) == 1
