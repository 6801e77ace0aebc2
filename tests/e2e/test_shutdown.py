"""SIGTERM: what is in flight ends, what hangs is cut, and the exit code is 0."""

from __future__ import annotations

import hashlib
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection
from random import Random
from typing import TYPE_CHECKING

import pytest

from tests.process import Server, curl, eventually, slowed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future
    from pathlib import Path

    from tests.process import Answer

MIB = 1024 * 1024
DATA = Random(3).randbytes(3 * MIB)
IMPATIENT = {"SPOOL_SERVER_SHUTDOWN_GRACE": "1s"}
PUT = b"PUT /files/stuck HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\nExpect: 100-continue\r\n\r\n"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data"
    path.write_bytes(DATA)
    return path


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor() as running:
        yield running


@pytest.fixture
def impatient(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path / "spool", env=IMPATIENT) as running:
        yield running


def send_slowly(server: Server, pool: ThreadPoolExecutor, *arguments: str) -> Future[Answer]:
    """An upload of about four seconds, which has begun: long enough, also under load."""
    future = pool.submit(curl, "--limit-rate", "750K", *arguments)
    eventually(server.staged)
    return future


def drain(server: Server, number: int = signal.SIGTERM) -> None:
    """The server was told to stop, and has begun to."""
    server.signal(number)
    eventually(lambda: server.events("server.draining"))


def refused(server: Server) -> bool:
    try:
        socket.create_connection(("127.0.0.1", server.port)).close()
    except ConnectionRefusedError:
        return True
    return False


def assert_kept(server: Server) -> None:
    """After a restart the data is there, once."""
    server.restart()
    [file] = server.files()
    assert curl("-L", file["content_url"]).body == DATA
    assert len(server.blobs()) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("form", [True, False], ids=["form", "put"])
def test_stop_lets_an_upload_end(
    server: Server, pool: ThreadPoolExecutor, data: Path, number: int, *, form: bool
) -> None:
    arguments = ["-F", f"file=@{data}", f"{server.url}/files"] if form else ["-T", str(data), f"{server.url}/files/"]
    upload = send_slowly(server, pool, *arguments)
    drain(server, number)
    eventually(lambda: refused(server))
    assert server.staged() == 1
    assert upload.result().status == 201
    assert server.wait() == 0
    assert_kept(server)


def test_stop_refuses_the_next_request_of_a_connection(server: Server, pool: ThreadPoolExecutor, data: Path) -> None:
    with closing(HTTPConnection("127.0.0.1", server.port, timeout=60)) as connection:
        connection.request("GET", "/files")
        assert connection.getresponse().read()
        upload = send_slowly(server, pool, "-T", str(data), f"{server.url}/files/")
        drain(server)
        connection.request("GET", "/files")
        response = connection.getresponse()
        assert (response.status, response.getheader("Connection")) == (503, "close")
        assert int(response.getheader("Retry-After", "0")) > 0
        assert upload.result().status == 201
    assert server.wait() == 0


@pytest.mark.parametrize("body", [b"", b"x", bytes(50_000)], ids=["head", "byte", "half"])
def test_stop_cuts_a_stuck_upload_after_the_grace(impatient: Server, body: bytes) -> None:
    with socket.create_connection(("127.0.0.1", impatient.port)) as client:
        client.sendall(PUT)
        assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(body)
        eventually(lambda: impatient.has_read(client))
        start = time.monotonic()
        drain(impatient)
        assert impatient.wait(25) == 0
        assert 1 <= time.monotonic() - start < 25
    [event] = impatient.events("server.cut_off")
    assert event["uploads"] == 1
    impatient.restart()
    assert impatient.files() == []
    assert impatient.blobs() == {}


@pytest.mark.parametrize(
    ("call", "effect"), [("linkat", "delay_exit"), ("fsync", "delay_enter"), ("fdatasync", "delay_enter")]
)
def test_stop_lets_a_commit_end(server: Server, pool: ThreadPoolExecutor, data: Path, call: str, effect: str) -> None:
    with slowed(server, call, f"{effect}=1500000"):
        upload = pool.submit(curl, "-T", str(data), f"{server.url}/files/")
        eventually(lambda: any(server.dir.glob("blobs/*/*")))
        drain(server)
        assert upload.result().status == 201
        assert server.wait() == 0
    assert_kept(server)


@pytest.mark.parametrize(
    ("call", "effect"), [("linkat", "delay_exit=5000000"), ("fdatasync", "delay_enter=5000000:when=1")]
)
def test_commit_ends_even_after_the_grace(
    impatient: Server, pool: ThreadPoolExecutor, data: Path, call: str, effect: str
) -> None:
    with slowed(impatient, call, effect):
        upload = pool.submit(curl, "-T", str(data), f"{impatient.url}/files/")
        eventually(lambda: any(impatient.dir.glob("blobs/*/*")))
        drain(impatient)
        assert impatient.wait() == 0
        assert upload.result().status in (100, 201)  # its answer is lost where the grace has ended first
    assert len(impatient.events("server.cut_off")) == 1
    assert len(impatient.events("upload.committed")) == 1
    assert_kept(impatient)


def test_stop_does_not_wait_for_an_idle_connection(server: Server) -> None:
    with closing(HTTPConnection("127.0.0.1", server.port, timeout=60)) as used, socket.socket() as fresh:
        used.request("GET", "/files")
        assert used.getresponse().read()
        fresh.connect(("127.0.0.1", server.port))
        start = time.monotonic()
        server.terminate()
        assert server.wait() == 0
        assert time.monotonic() - start < 25


def test_stop_does_not_wait_for_half_a_head(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(PUT[:20])
        start = time.monotonic()
        server.terminate()
        assert server.wait() == 0
        assert time.monotonic() - start < 25


def big_file(server: Server, tmp_path: Path) -> tuple[str, str]:
    """Where the server has a file that no socket's buffers hold, and its SHA-256."""
    path = tmp_path / "big"
    path.write_bytes(DATA * 40)
    record = curl("-T", str(path), f"{server.url}/files/").json
    return record["content_url"], record["sha256"]


def test_stop_lets_a_download_end(server: Server, pool: ThreadPoolExecutor, tmp_path: Path) -> None:
    url, sha256 = big_file(server, tmp_path)
    download = pool.submit(curl, "-L", "--limit-rate", "20M", url)
    eventually(lambda: opened(server))
    drain(server)
    assert not download.done()
    answer = download.result()
    assert (answer.code, hashlib.sha256(answer.body).hexdigest()) == (0, sha256)
    assert server.wait() == 0


def opened(server: Server) -> bool:
    """Whether a blob is being read."""
    keys = server.blobs().keys()
    return any(target.rpartition("/")[2] in keys for target in server.descriptors())


def test_stop_cuts_a_stuck_download_after_the_grace(impatient: Server, tmp_path: Path) -> None:
    url, _ = big_file(impatient, tmp_path)
    media = curl(url).headers["location"].removeprefix(impatient.url)
    with socket.create_connection(("127.0.0.1", impatient.port)) as client:
        client.sendall(f"GET {media} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        eventually(lambda: opened(impatient))
        start = time.monotonic()
        drain(impatient)
        assert impatient.wait(25) == 0
        assert time.monotonic() - start < 25
    assert impatient.events("server.cut_off")


def serve(*arguments: str) -> tuple[int, bytes, bytes]:
    """The exit code and the output of a server that cannot start."""
    command = [sys.executable, "-m", "spool", "serve", *arguments]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False)
    return done.returncode, done.stdout, done.stderr


def test_second_server_of_a_directory_is_refused(server: Server) -> None:
    code, output, errors = serve("--dir", str(server.dir), "--port", "0")
    assert (code, output) == (1, b"")
    [line] = errors.decode().splitlines()
    assert line.startswith("spool: another spool serves ")
    assert str(server.dir) in line
    assert curl("-T", "-", f"{server.url}/files/x", stdin=b"x").status == 201


def test_port_in_use_is_refused(server: Server, tmp_path: Path) -> None:
    code, output, errors = serve("--dir", str(tmp_path / "other"), "--port", str(server.port))
    assert (code, output) == (1, b"")
    [line] = errors.decode().splitlines()
    assert line.startswith(f"spool: cannot listen on 127.0.0.1:{server.port}: ")
    assert line.endswith("Address already in use")


def test_directory_is_free_again_after_a_stop(server: Server) -> None:
    assert server.stop() == 0
    assert server.events("server.stopped")
    server.restart()
    assert server.files() == []
