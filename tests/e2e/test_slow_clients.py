"""Clients whose bytes come in small segments: the server wakes up for many of them, and misses none."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.process import Server, eventually, strace, traced

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SEGMENT = 1460
MANY = 400
SOME = 60_000
"""More than what is read as it comes, and less than what is gathered."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("slow") / "spool", env={"SPOOL_LIMITS_IDLE_TIMEOUT": "5s"}) as running:
        yield running


@contextmanager
def connected(server: Server) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", server.port), 60) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield client


def head(size: int) -> bytes:
    return f"PUT /files/slow HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {size}\r\n\r\n".encode()


def status(client: socket.socket) -> bytes:
    return client.recv(65536).partition(b"\r\n")[0]


@contextmanager
def reads(server: Server, log: Path) -> Iterator[list[int]]:
    """How many bytes each read of a socket brings to the event loop; complete when the block has ended."""
    strace("recvfrom", "delay_enter=0")  # it is there
    found: list[int] = []
    tracer = subprocess.Popen(["strace", "-qq", "-o", str(log), "-e", "trace=recvfrom", "-p", str(server.pid)])
    try:
        eventually(lambda: traced(server.pid) == tracer.pid)
        yield found
    finally:
        os.kill(tracer.pid, signal.SIGINT)
        tracer.wait(60)
    found += [int(size) for size in re.findall(r"= (\d+)$", log.read_text("ascii"), re.MULTILINE)]


def test_segments_are_gathered(server: Server, tmp_path: Path) -> None:
    with connected(server) as client, reads(server, tmp_path / "trace") as sizes:
        client.sendall(head(MANY * SEGMENT))
        for _ in range(MANY):
            client.sendall(bytes(SEGMENT))
            time.sleep(0.002)  # or they would be gathered on their way
        assert status(client) == b"HTTP/1.1 201 Created"
    sizes = [size for size in sizes if size >= SEGMENT]
    assert sum(sizes) >= (MANY - 1) * SEGMENT
    assert len(sizes) <= MANY / 4


def test_bytes_of_a_client_that_pauses_are_read(server: Server) -> None:
    with connected(server) as client:
        client.sendall(head(10 * SOME))
        for _ in range(3):
            client.sendall(bytes(SOME))
            eventually(lambda: server.has_read(client))
        client.sendall(bytes(7 * SOME))
        assert status(client) == b"HTTP/1.1 201 Created"


def test_client_that_stops_is_told_so(server: Server) -> None:
    with connected(server) as client:
        client.sendall(head(10 * SOME) + bytes(SOME))
        assert status(client) == b"HTTP/1.1 408 Request Timeout"


def test_next_request_on_the_connection_is_read(server: Server) -> None:
    with connected(server) as client:
        for _ in range(3):
            client.sendall(head(3 * SOME))
            for _ in range(3):
                client.sendall(bytes(SOME))
                eventually(lambda: server.has_read(client))
            assert status(client) == b"HTTP/1.1 201 Created"
            client.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            assert status(client) == b"HTTP/1.1 200 OK"


def test_two_requests_sent_at_once_are_both_answered(server: Server) -> None:
    body = bytes(3 * SOME)
    with connected(server) as client:
        client.sendall(head(len(body)) + body[:SOME])
        eventually(lambda: server.has_read(client))
        client.sendall(body[SOME:] + b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        answers = b"".join(iter(lambda: client.recv(65536), b""))
    assert answers.count(b"HTTP/1.1 201 Created") == 1
    assert answers.count(b"HTTP/1.1 200 OK") == 1


def test_refusal_does_not_wait_for_more(tmp_path: Path) -> None:
    """Whoever sends what is refused hears of it while it has sent no more than the start."""
    gif = b"GIF89a\1\0\1\0" + bytes(8192)
    with Server(tmp_path / "spool", env={"SPOOL_POLICY_DENY_TYPES": "image/*"}) as strict, connected(strict) as client:
        client.sendall(head(10 * SOME) + gif)
        assert status(client) == b"HTTP/1.1 415 Unsupported Media Type"
        assert strict.files() == []
