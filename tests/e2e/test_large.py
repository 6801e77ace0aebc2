"""Memory does not depend on file size: not for one large file, and not for 64 uploads at once."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from random import Random
from threading import Barrier
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.process import Server, curl, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MIB = 1024 * 1024
SIZE = int(os.environ.get("SPOOL_TEST_LARGE", str(1024 * MIB)))
CLIENTS = 64
BLOCK = Random(5).randbytes(MIB)


class Source(NamedTuple):
    """A file to upload."""

    path: Path
    sha256: str


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path / "spool") as running:
        yield running
    shutil.rmtree(running.dir)  # pytest would keep gigabytes for three runs


@pytest.fixture(scope="module")
def large(on_disk: Path) -> Iterator[Source]:
    """A file of `SIZE` bytes of which no two blocks are the same."""
    path = on_disk / "large.bin"
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for start in range(0, SIZE, MIB):
            block = (start.to_bytes(8, "big") + BLOCK[8:])[: SIZE - start]
            file.write(block)
            digest.update(block)
    yield Source(path, digest.hexdigest())
    path.unlink()


def downloaded(url: str) -> str:
    """The SHA-256 of what curl gets."""
    digest = hashlib.sha256()
    with subprocess.Popen(["curl", "-sSfL", url], stdout=subprocess.PIPE) as process:
        assert process.stdout
        while data := process.stdout.read(MIB):
            digest.update(data)
    assert process.returncode == 0
    return digest.hexdigest()


def report(server: Server, what: str) -> int:
    """The server's peak memory in MB, printed."""
    peak = server.rss() // 1_000_000
    print(f"\n{what}: {peak} MB resident at the peak")  # noqa: T201  # the number is worth reading
    return peak


def test_large_form_takes_little_memory(server: Server, large: Source) -> None:
    answer = curl("-F", f"file=@{large.path}", f"{server.url}/files", timeout=300)
    assert answer.status == 201
    [record] = answer.json["files"]
    assert (record["size"], record["sha256"]) == (SIZE, large.sha256)
    assert downloaded(record["content_url"]) == large.sha256
    assert report(server, f"a form of {SIZE // MIB} MiB, up and down") < 150


def test_large_pipe_takes_little_memory(server: Server, large: Source) -> None:
    command = ["curl", "-sSf", "-T", "-", f"{server.url}/files/large.bin"]
    with large.path.open("rb") as pipe:
        subprocess.run(command, stdin=pipe, stdout=subprocess.DEVNULL, timeout=300, check=True)
    [record] = server.files()
    assert (record["size"], record["sha256"]) == (SIZE, large.sha256)
    assert downloaded(record["content_url"]) == large.sha256
    assert report(server, f"a pipe of {SIZE // MIB} MiB, up and down") < 150


def size_of(number: int) -> int:
    """A few small ones; most are larger than 20 MiB."""
    return (number + 1) * 100_000 if number % 8 == 0 else (20 + number // 4) * MIB + number


def blocks(number: int) -> Iterator[bytes]:
    """The content of one upload, which no other has."""
    size = size_of(number)
    for start in range(0, size, MIB):
        yield (number.to_bytes(4, "big") + start.to_bytes(4, "big") + BLOCK[8:])[: size - start]


def request(number: int) -> Iterator[bytes]:
    """One upload as it goes over the wire: a form, a body of known length, a body in chunks."""
    size, kind = size_of(number), number % 3
    if kind == 0:
        begin = b'--B\r\nContent-Disposition: form-data; name="f"; filename="%d"\r\n\r\n' % number
        end = b"\r\n--B--\r\n"
        lines = f"Content-Type: multipart/form-data; boundary=B\r\nContent-Length: {len(begin) + size + len(end)}"
        yield f"POST /files HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n\r\n".encode() + begin
        yield from blocks(number)
        yield end
    elif kind == 1:
        yield f"PUT /files/{number} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n".encode()
        yield from blocks(number)
    else:
        yield f"PUT /files/{number} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        for block in blocks(number):
            yield b"%x\r\n%b\r\n" % (len(block), block)
        yield b"0\r\n\r\n"


def upload(server: Server, number: int, half_sent: Barrier) -> str:
    """Sends one half, waits until everybody has done so, then sends the other; the SHA-256 of the content."""
    digest = hashlib.sha256()
    for block in blocks(number):
        digest.update(block)
    with socket.create_connection(("127.0.0.1", server.port), timeout=120) as client:
        sent = 0
        for data in request(number):
            if sent <= size_of(number) // 2 < sent + len(data):
                client.sendall(data[: len(data) // 2])
                half_sent.wait(120)
                client.sendall(data[len(data) // 2 :])
            else:
                client.sendall(data)
            sent += len(data)
        assert client.recv(12) == b"HTTP/1.1 201"
    return digest.hexdigest()


def test_many_uploads_at_once_share_their_memory(server: Server) -> None:
    large = sum(size_of(number) > 20 * MIB for number in range(CLIENTS))  # half of a small one may still be in memory
    half_sent = Barrier(CLIENTS, lambda: eventually(lambda: server.staged() >= large))
    with ThreadPoolExecutor(CLIENTS) as pool:
        digests = list(pool.map(lambda number: upload(server, number, half_sent), range(CLIENTS)))
    assert {file["filename"]: file["sha256"] for file in server.files()} == {
        str(number): digest for number, digest in enumerate(digests)
    }
    total = sum(map(size_of, range(CLIENTS))) // MIB
    assert report(server, f"{CLIENTS} uploads at once, {total} MiB in all") < 200
