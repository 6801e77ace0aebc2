"""Connections by the thousand, requests without end, answers that nobody takes."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import time
from contextlib import ExitStack, closing, suppress
from typing import TYPE_CHECKING, Any

import pytest

from tests.crash.tracer import recorded
from tests.hostile.sockets import at_rest, connected, connections, get, stuck_reader, taken, unaccepted
from tests.process import EFFORT, Server, eventually, lacking

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

QUICK = {
    "SPOOL_LIMITS_IDLE_TIMEOUT": "1s",
    "SPOOL_LIMITS_MIN_RATE": "20 KiB",
    "SPOOL_LIMITS_MIN_RATE_WINDOW": "2s",
}
STEADY = {**QUICK, "SPOOL_LIMITS_IDLE_TIMEOUT": "4s", "SPOOL_LIMITS_MIN_RATE_WINDOW": "4s"}
"""For a client that is to be fast enough, also where the machine lets it wait for a second or two."""
LARGE = bytes(16 * 1024 * 1024)
"""More than the buffers of a connection hold."""
MEMORY = 16 * 1024 * 1024
"""Bytes that a server may have resident beyond those before."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path / "spool", env=QUICK) as running:
        yield running


def limited(directory: Path, descriptors: int) -> Server:
    """A server that may have so many."""
    if shutil.which("prlimit") is None:
        lacking("prlimit is not installed")
    return Server(directory, prefix=["prlimit", f"--nofile={descriptors}"])


def answer(client: socket.socket) -> tuple[int, dict[str, str], Any]:
    """Status, headers and JSON of the next answer; the status 0 if the connection ends instead."""
    data = b""
    while not (match := re.match(rb"(?s)(.*?)\r\n\r\n(.*)", data)) or len(match[2]) < length(match[1]):
        received = b""
        with suppress(ConnectionResetError):
            received = client.recv(65536)
        if not received:
            return 0, {}, None
        data += received
    first, *lines = match[1].decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return int(first.split()[1]), headers, json.loads(match[2])


def length(head: bytes) -> int:
    match = re.search(rb"(?i)\r\nContent-Length: (\d+)", head)
    assert match, head
    return int(match[1])


def one_more(server: Server) -> int:
    """The status that one more connection is answered with; 0 for none."""
    with closing(connected(server)) as client:
        with suppress(ConnectionError):
            client.sendall(get("/healthz"))
        status, headers, document = answer(client)
        if status == 503:
            assert document["type"] == "/problems/unavailable"
            assert (headers["connection"], headers["content-type"]) == ("close", "application/problem+json")
            assert int(headers["retry-after"]) > 0
            assert client.recv(1) == b""
        return status


def works(client: socket.socket) -> bool:
    client.sendall(get("/healthz"))
    return answer(client)[0] == 200


def form_parts(files: int) -> bytes:
    """Of files that are too large to be kept in memory."""
    part = b'--b\r\nContent-Disposition: form-data; name="f"; filename="a"\r\n\r\n' + bytes(70_000) + b"\r\n"
    return part * files


def begin_form(server: Server, files: int) -> socket.socket:
    """A client that has sent all of a form but its end."""
    head = (
        "POST /files HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b\r\n"
        f"Content-Length: {len(form_parts(files)) + 7}\r\n\r\n"
    )
    return connected(server, head.encode() + form_parts(files))


class TestDescriptors:
    def test_connections_beyond_them_are_refused_and_those_that_are_there_go_on(self, tmp_path: Path) -> None:
        with limited(tmp_path / "spool", 480) as server, ExitStack() as stack:
            most = server.events("server.started")[0]["connections"]
            assert most == (480 - at_rest(server).total() - 128) // 2
            clients = [stack.enter_context(closing(connected(server))) for _ in range(most)]
            assert all(works(client) for client in clients)
            server.signal(signal.SIGSTOP)  # so that all of the crowd comes at once
            eventually(server.stopped)
            crowd = [stack.enter_context(closing(connected(server))) for _ in range(300)]
            server.signal(signal.SIGCONT)
            eventually(lambda: one_more(server) == 503)
            assert connections(server) < most + 64
            assert all(works(client) for client in clients)
            assert server.put("beside", b"x", clients[0])["size"] == 1
            assert "out of system resource" not in server.log()
            assert len(server.events("connections.refused")) == 1
            for client in (*crowd, clients[-1]):
                client.close()
            eventually(lambda: one_more(server) == 200)

    def test_forms_of_many_files_leave_some(self, tmp_path: Path) -> None:
        with limited(tmp_path / "spool", 700) as server, ExitStack() as stack:
            rest = at_rest(server)
            client = stack.enter_context(closing(connected(server)))
            assert works(client)
            forms = [stack.enter_context(closing(begin_form(server, 100))) for _ in range(3)]
            eventually(lambda: server.staged() >= 3 * 99)  # of the last ones, more may come
            assert one_more(server) == 503
            assert server.put("beside", b"x", client)["size"] == 1
            for form in forms:
                form.sendall(b"--b--\r\n")
            assert [answer(form)[0] for form in forms] == [201] * 3
            eventually(lambda: one_more(server) == 200)
            stack.close()
            eventually(lambda: at_rest(server) <= rest)

    def test_server_that_has_none_for_connections_does_not_start(self, tmp_path: Path) -> None:
        server = limited(tmp_path / "spool", 390).spawn()
        assert server.wait() == 1
        assert "raise it" in server.log()


class TestFlood:
    def test_connections_that_come_and_go_leave_nothing(self, server: Server) -> None:
        def wave() -> None:
            for turn in range(2000 * EFFORT):
                client = connected(server, get("/files") if turn % 2 else b"GET /fi")
                if turn % 10:
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # closes by a reset
                client.close()

        wave()
        rest, memory = at_rest(server), server.resident()
        start = time.monotonic()
        wave()
        print(f"{2000 * EFFORT / (time.monotonic() - start):.0f} connections a second")  # noqa: T201  # worth reading
        eventually(lambda: at_rest(server) <= rest)
        assert server.resident() < memory + MEMORY

    def test_requests_without_reading_are_not_kept_in_memory(self, server: Server) -> None:
        for turn in range(60):
            server.put(f"{turn:0200}", b"x")
        rest, memory = at_rest(server), server.resident()
        flood = get("/files?limit=100") * 100_000
        with closing(stuck_reader(server, b"")) as client:
            with suppress(ConnectionError):
                client.sendall(flood)
            print(f"resident {(server.resident() - memory) >> 10} KiB more")  # noqa: T201  # worth reading
            assert server.resident() < memory + MEMORY
            eventually(lambda: at_rest(server) <= rest)

    def test_heads_that_are_large_are_not_kept_in_memory(self, server: Server) -> None:
        memory = server.resident()
        head = get("/files")[:-2] + b"".join(b"X-%d: %s\r\n" % (n, b"x" * 60_000) for n in range(127))
        with ExitStack() as stack:
            clients = [stack.enter_context(closing(connected(server))) for _ in range(20)]
            for client in clients:
                with suppress(ConnectionError):
                    client.sendall(head)
            print(f"resident {(server.resident() - memory) >> 10} KiB more")  # noqa: T201  # worth reading
            assert server.resident() < memory + MEMORY
        at_rest(server)

    @pytest.mark.parametrize(
        "lines", [b"X: y\r\n" * 10_000, b"X: " + b"y" * 8190 + b"\r\n", b"X: " + b"y" * 70_000 + b"\r\n"], ids=len
    )
    def test_head_at_the_limits_is_answered(self, server: Server, lines: bytes) -> None:
        with closing(connected(server)) as client, suppress(ConnectionError):
            client.sendall(get("/files")[:-2] + lines + b"\r\n")
            assert answer(client)[0] == (200 if len(lines) < 10_000 else 400)
        at_rest(server)


class TestAnswer:
    """That a client does not take, or takes slowly."""

    @pytest.fixture(params=["download", "ranges", "listing"])
    def request_for_much(self, server: Server, request: pytest.FixtureRequest) -> bytes:
        if request.param == "listing":
            for turn in range(60):
                server.put(f"{turn}?m={'x' * 7000}", b"x")
            return get("/files") * 20
        path = f"/media/{server.put('large', LARGE)['id']}/x"
        ranges = b"Range: bytes=0-8000000, 8000002-\r\n" if request.param == "ranges" else b""
        return get(path)[:-2] + ranges + b"\r\n"

    def test_that_is_not_taken_is_given_up(self, server: Server, request_for_much: bytes) -> None:
        rest = at_rest(server)
        with ExitStack() as stack:
            for _ in range(20):
                stack.enter_context(closing(stuck_reader(server, request_for_much)))
            taken(server)
            eventually(lambda: at_rest(server) <= rest)
        assert "Traceback" not in server.log()

    def test_that_is_not_taken_is_given_up_where_there_is_no_least_rate(self, tmp_path: Path) -> None:
        with Server(tmp_path / "free", env={**QUICK, "SPOOL_LIMITS_MIN_RATE": "0"}) as server:
            path = f"/media/{server.put('large', LARGE)['id']}/x"
            with closing(stuck_reader(server, get(path))):
                taken(server)
                at_rest(server)

    def test_that_is_taken_too_slowly_is_given_up(self, server: Server, request_for_much: bytes) -> None:
        with closing(stuck_reader(server, request_for_much)) as client:
            taken(server)
            for _ in slowly(client, 500, 200):
                if not connections(server):
                    break
            assert not connections(server)

    def test_that_is_taken_slowly_but_fast_enough_goes_on(self, tmp_path: Path) -> None:
        with Server(tmp_path / "steady", env=STEADY) as server:
            path = f"/media/{server.put('large', LARGE)['id']}/x"
            with closing(stuck_reader(server, get(path))) as client:
                for _ in slowly(client, 4000, 100):
                    pass
                assert connections(server) == 1


class TestUnixSocket:
    """Where the kernel does not count what was taken."""

    @pytest.fixture
    def client(self, tmp_path: Path) -> Iterator[socket.socket]:
        path = str(tmp_path / "socket")
        upload = f"PUT /files/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(LARGE)}\r\n\r\n".encode() + LARGE
        with (
            Server(tmp_path / "spool", "--unix", path, env=STEADY) as self.server,
            closing(socket.socket(socket.AF_UNIX)) as client,
        ):
            client.settimeout(60)
            client.connect(path)
            client.sendall(upload)
            client.sendall(get(f"/media/{answer(client)[2]['id']}/x"))
            yield client

    def test_answer_that_is_not_taken_is_given_up(self, client: socket.socket) -> None:
        assert client.recv(1)
        at_rest(self.server)

    def test_answer_that_is_taken_slowly_goes_on(self, client: socket.socket) -> None:
        for _ in slowly(client, 100_000, 100):
            pass
        assert connections(self.server) == 1


def slowly(client: socket.socket, size: int, times: int) -> Iterator[bytes]:
    """Reads at most `size` bytes, so many times, every twentieth of a second, until there is no more."""
    client.settimeout(1)
    for _ in range(times):
        time.sleep(0.05)
        try:
            data = client.recv(size)
        except (TimeoutError, ConnectionResetError):
            return
        if not data:
            return
        yield data


def test_burst_of_connections_is_taken_in_steps_between_which_others_are_served(server: Server, tmp_path: Path) -> None:
    log = tmp_path / "calls"
    with recorded(server, ("accept4", "epoll_wait"), log), ExitStack() as stack:
        server.signal(signal.SIGSTOP)
        eventually(server.stopped)
        clients = [stack.enter_context(closing(connected(server, get("/healthz")))) for _ in range(64)]
        assert unaccepted(server) == len(clients)
        server.signal(signal.SIGCONT)
        assert [answer(client)[0] for client in clients] == [200] * len(clients)
    calls = [line.partition(" ")[2] for line in log.read_text().splitlines() if line.startswith(f"{server.pid} ")]
    turns = re.split(r"epoll_wait\(", "\n".join(calls))
    accepted = [len(re.findall(r"(?m)accept4\b.* = \d+$", turn)) for turn in turns]
    assert sum(accepted) == len(clients)
    assert max(accepted) <= 2  # some versions of asyncio take one more than they are told
