"""Large bodies of quick clients, whose bytes are read past asyncio and aiohttp: every promise holds as ever.

That it is so read is seen by the socket, which the server then has open twice.
"""

from __future__ import annotations

import hashlib
import re
import socket
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from random import Random
from typing import TYPE_CHECKING

import pytest

from tests.e2e.test_cut_off import close, half_close, reset
from tests.process import EFFORT, Server, curl, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

MIB = 1024 * 1024
DATA = Random(7).randbytes(24 * MIB)
SENT = 10 * MIB
"""Of it, when a client stops: less than is read directly, and more than one batch."""
SHA256 = hashlib.sha256(DATA).hexdigest()
BEGIN = b'--B\r\nContent-Disposition: form-data; name="f"; filename="a.bin"\r\n\r\n'
END = b"\r\n--B--\r\n"
TUS = {"Tus-Resumable": "1.0.0", "Content-Type": "application/offset+octet-stream"}


def put(size: int = len(DATA)) -> bytes:
    """What comes before the data."""
    return f"PUT /files/a.bin HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n".encode()


def form() -> bytes:
    """What comes before the data, of a form that ends with `END`."""
    size = len(BEGIN) + len(DATA) + len(END)
    lines = f"Content-Type: multipart/form-data; boundary=B\r\nContent-Length: {size}"
    return f"POST /files HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n\r\n".encode() + BEGIN


def patch(path: str, offset: int = 0) -> bytes:
    """What comes before the rest of the data."""
    lines = [*(f"{name}: {value}" for name, value in TUS.items()), f"Upload-Offset: {offset}"]
    lines += ["Host: localhost", f"Content-Length: {len(DATA) - offset}"]
    return "\r\n".join([f"PATCH {path} HTTP/1.1", *lines, "", ""]).encode()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("direct") / "spool") as running:
        yield running


@pytest.fixture
def idle(server: Server) -> int:
    """How many descriptors the server needs when it does nothing. It has no files."""
    server.delete_all()
    eventually(lambda: sum(target.startswith("socket:") for target in server.descriptors()) == 3)
    return len(server.descriptors())


def is_direct(server: Server, clients: int = 1) -> bool:
    """Whether so many clients are read directly."""
    sockets = Counter(target for target in server.descriptors() if target.startswith("socket:"))
    return sum(count > 1 for count in sockets.values()) >= clients


@contextmanager
def begun(server: Server, head: bytes, data: bytes = DATA[:SENT]) -> Iterator[socket.socket]:
    """A client whose body is being read directly, and which has sent no more than this."""
    with socket.create_connection(("127.0.0.1", server.port), 60) as client:
        client.sendall(head + data)
        eventually(lambda: is_direct(server))
        eventually(lambda: server.has_read(client))
        yield client


def answer(client: socket.socket) -> bytes:
    """The head of what comes."""
    received = b""
    while b"\r\n\r\n" not in received and (data := client.recv(65536)):
        received += data
    return received


def create(server: Server) -> str:
    """The path of a new tus upload for the data."""
    arguments = ("-H", "Tus-Resumable: 1.0.0", "-H", f"Upload-Length: {len(DATA)}", f"{server.url}/tus")
    return curl("-X", "POST", *arguments).headers["location"].removeprefix(server.url)


def offset(server: Server, path: str) -> int:
    return int(curl("-I", "-H", "Tus-Resumable: 1.0.0", server.url + path).headers["upload-offset"])


def assert_kept(server: Server) -> None:
    [file] = server.files()
    assert (file["size"], file["sha256"]) == (len(DATA), SHA256)
    assert hashlib.sha256(curl("-L", file["content_url"]).body).hexdigest() == SHA256


def assert_nothing_is_left(server: Server, idle: int) -> None:
    eventually(lambda: len(server.descriptors()) <= idle)
    eventually(lambda: server.blobs() == {})
    assert server.files() == []


def received(server: Server) -> int:
    match = re.search(rb"^spool_received_bytes_total (\S+)$", curl(f"{server.url}/metrics").body, re.MULTILINE)
    assert match
    return int(float(match[1]))


# what is sent is stored


@pytest.mark.parametrize(("head", "tail"), [(put(), b""), (form(), END)], ids=["put", "form"])
def test_direct_upload_is_stored_as_it_is(server: Server, idle: int, head: bytes, tail: bytes) -> None:
    before = received(server)
    with begun(server, head) as client:
        client.sendall(DATA[SENT:] + tail)
        assert answer(client).startswith(b"HTTP/1.1 201 ")
        assert not is_direct(server)
    assert received(server) - before == len(DATA) + (len(BEGIN) + len(tail) if tail else 0)
    assert_kept(server)
    assert len(server.descriptors()) <= idle + 1


@pytest.mark.usefixtures("idle")
def test_curl_sends_several_large_files_and_fields_after_them(server: Server, tmp_path: Path) -> None:
    sizes = {"a": 20 * MIB + 1, "b": 3, "c": 12 * MIB, "d": 0}
    for name, size in sizes.items():
        (tmp_path / name).write_bytes(DATA[-size:] if size else b"")
    files = [argument for name in sizes for argument in ("-F", f"f=@{tmp_path / name}")]
    assert curl(*files, "-F", "title=Demo", f"{server.url}/files").status == 201
    found = {file["filename"]: file for file in server.files()}
    assert {name: file["size"] for name, file in found.items()} == sizes
    for name, file in found.items():
        assert file["sha256"] == hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
        assert file["metadata"]["title"] == "Demo"


@pytest.mark.usefixtures("idle")
def test_uploads_at_once_are_kept_apart(server: Server) -> None:
    """More than are worth a thread of their own."""
    data = [bytes([number]) + DATA[: 16 * MIB + number] for number in range(12)]
    with ThreadPoolExecutor(len(data)) as pool:
        list(pool.map(lambda number: server.put(str(number), data[number]), range(len(data))))
    found = {file["filename"]: file["sha256"] for file in server.files()}
    assert found == {str(number): hashlib.sha256(each).hexdigest() for number, each in enumerate(data)}


@pytest.mark.usefixtures("idle")
def test_many_at_once_are_all_read_directly(server: Server) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(begun(server, put())) for _ in range(6)]
        assert is_direct(server, len(clients))
        for client in clients:
            client.sendall(DATA[SENT:])
        for client in clients:
            assert answer(client).startswith(b"HTTP/1.1 201 ")
    assert [file["sha256"] for file in server.files()] == [SHA256] * len(clients)


@pytest.mark.parametrize("arguments", [(), ("--workers", "2")], ids=["unix", "unix-workers"])
def test_unix_socket_brings_the_same(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    path, source = tmp_path / "socket", tmp_path / "data"
    source.write_bytes(DATA)
    with Server(tmp_path / "spool", *arguments, env={"SPOOL_SERVER_UNIX": str(path)}):
        sent = curl("--unix-socket", str(path), "-T", str(source), "http://localhost/files/")
        assert (sent.status, sent.json["sha256"]) == (201, SHA256)


def test_workers_read_directly(tmp_path: Path) -> None:
    with Server(tmp_path / "spool", "--workers", "2") as several, begun(several, form()) as client:
        client.sendall(DATA[SENT:] + END)
        assert answer(client).startswith(b"HTTP/1.1 201 ")
        assert_kept(several)


# the connection goes on


@pytest.mark.usefixtures("idle")
def test_connection_is_used_again(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), 60) as client:
        for number in range(3):
            assert server.put(str(number), DATA, client)["sha256"] == SHA256


@pytest.mark.usefixtures("idle")
def test_next_request_that_was_sent_at_once_is_answered(server: Server) -> None:
    with begun(server, put()) as client:
        client.sendall(DATA[SENT:] + put(3) + b"abc" + b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        answers = b"".join(iter(lambda: client.recv(65536), b""))
    assert re.findall(rb"HTTP/1.1 (\d+)", answers) == [b"201", b"201", b"200"]
    assert sorted(file["size"] for file in server.files()) == [3, len(DATA)]


@pytest.mark.usefixtures("idle")
def test_next_head_has_the_same_limits(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), 60) as client:
        for size, status in ((60_000, b"200"), (70_000, b"400")):
            assert server.put("a", DATA, client)["sha256"] == SHA256
            client.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\nX: " + bytes([65]) * size + b"\r\n\r\n")
            assert answer(client).split()[1] == status


@pytest.mark.usefixtures("idle")
def test_half_close_after_the_last_byte_gets_the_answer(server: Server) -> None:
    with begun(server, put()) as client:
        client.sendall(DATA[SENT:])
        client.shutdown(socket.SHUT_WR)
        assert answer(client).startswith(b"HTTP/1.1 201 ")


# clients that go, stop, or are slow


@pytest.mark.parametrize("go", [reset, close, half_close])
@pytest.mark.parametrize("head", [put(), form()], ids=["put", "form"])
def test_client_that_goes_leaves_nothing(
    server: Server, idle: int, head: bytes, go: Callable[[socket.socket], None]
) -> None:
    for sent in (SENT, SENT + 1, len(DATA) - 1):
        with begun(server, head) as client:
            client.sendall(DATA[SENT:sent])
            go(client)
        assert_nothing_is_left(server, idle)
    assert server.put("next", b"hello")["size"] == 5


@pytest.mark.parametrize("go", [reset, close, half_close])
def test_upload_keeps_what_came_before_its_client_went(
    server: Server, idle: int, go: Callable[[socket.socket], None]
) -> None:
    path = create(server)
    with begun(server, patch(path)) as client:
        go(client)
    eventually(lambda: len(server.descriptors()) <= idle)
    assert offset(server, path) == SENT
    with begun(server, patch(path, SENT), DATA[SENT : SENT + MIB]) as client:
        client.sendall(DATA[SENT + MIB :])
        assert answer(client).startswith(b"HTTP/1.1 204 ")
    assert_kept(server)


def test_newcomer_takes_the_upload_over(server: Server, idle: int) -> None:
    path = create(server)
    with begun(server, patch(path)) as client:
        assert offset(server, path) == SENT
        assert answer(client).startswith(b"HTTP/1.1 409 ")
    assert curl("-X", "DELETE", "-H", "Tus-Resumable: 1.0.0", server.url + path).status == 204
    eventually(lambda: len(server.descriptors()) <= idle)


@pytest.mark.parametrize("head", [put(), form()], ids=["put", "form"])
def test_client_that_stops_is_told_so(tmp_path: Path, head: bytes) -> None:
    with Server(tmp_path / "spool", env={"SPOOL_LIMITS_IDLE_TIMEOUT": "1s"}) as hasty, begun(hasty, head) as client:
        assert answer(client).startswith(b"HTTP/1.1 408 ")
        assert_nothing_is_left(hasty, len(hasty.descriptors()))


def test_slow_client_is_told_so(tmp_path: Path) -> None:
    env = {"SPOOL_LIMITS_MIN_RATE": "1 GiB", "SPOOL_LIMITS_MIN_RATE_WINDOW": "1s"}
    with Server(tmp_path / "spool", env=env) as strict, begun(strict, put()) as client:
        client.settimeout(0.02)
        told = b""
        for number in range(1000):
            client.sendall(DATA[SENT + number : SENT + number + 1])
            try:
                told = client.recv(65536)
            except TimeoutError:
                continue
            break
        assert told.startswith(b"HTTP/1.1 408 ")


@pytest.mark.usefixtures("idle")
def test_client_that_becomes_slow_is_read(server: Server) -> None:
    with begun(server, put(SENT + 5)) as client:
        for number in range(5):  # each is read a second later
            client.sendall(DATA[SENT + number : SENT + number + 1])
            eventually(lambda: server.has_read(client))
        assert answer(client).startswith(b"HTTP/1.1 201 ")


# refusals


def test_refusal_is_read_by_a_client_that_sends_first(tmp_path: Path) -> None:
    """The second file is one too many: what still comes is read and dropped, so that the client may read why."""
    body = (BEGIN + DATA[:SENT] + b"\r\n") + (BEGIN + DATA[:SENT]) + END
    lines = f"Content-Type: multipart/form-data; boundary=B\r\nContent-Length: {len(body)}"
    head = f"POST /files HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n\r\n".encode()
    with Server(tmp_path / "spool", env={"SPOOL_LIMITS_MAX_FILES": "1"}) as strict:
        with begun(strict, head, body[: SENT // 2]) as client:
            client.sendall(body[SENT // 2 :])
            assert answer(client).startswith(b"HTTP/1.1 413 ")
        eventually(lambda: strict.blobs() == {})
        assert strict.files() == []


@pytest.mark.usefixtures("idle")
def test_malformed_part_after_a_file_is_refused(server: Server) -> None:
    part = b"\r\n--B\r\nContent-Disposition: attachment\r\n\r\n"
    with begun(server, form()) as client:
        client.sendall(DATA[SENT : -len(part)] + part + END)
        told = answer(client)
        while not told.endswith(b"}"):
            told += client.recv(65536)
        assert told.startswith(b"HTTP/1.1 400 ")
        assert b"form-data with a name" in told
    eventually(lambda: server.blobs() == {})
    assert server.files() == []


def test_file_that_is_too_large_is_refused(tmp_path: Path) -> None:
    with Server(tmp_path / "spool", env={"SPOOL_LIMITS_MAX_FILE_SIZE": str(len(DATA) - 1)}) as strict:
        with begun(strict, form()) as client:
            client.sendall(DATA[SENT:] + END)
            assert answer(client).startswith(b"HTTP/1.1 413 ")
        eventually(lambda: strict.blobs() == {})
        assert strict.files() == []


# stops and crashes


@pytest.mark.parametrize(("head", "tail"), [(put(), b""), (form(), END)], ids=["put", "form"])
def test_stop_lets_it_end(tmp_path: Path, head: bytes, tail: bytes) -> None:
    with Server(tmp_path / "spool") as stopping:
        with begun(stopping, head) as client:
            stopping.terminate()
            eventually(lambda: stopping.events("server.draining"))
            client.sendall(DATA[SENT:] + tail)
            assert answer(client).startswith(b"HTTP/1.1 201 ")
        assert stopping.wait() == 0
        assert_kept(stopping.start())


@pytest.mark.parametrize("kind", ["put", "form", "patch"])
def test_stop_cuts_it_after_the_grace(tmp_path: Path, kind: str) -> None:
    with Server(tmp_path / "spool", env={"SPOOL_SERVER_SHUTDOWN_GRACE": "1s"}) as impatient:
        path = create(impatient)
        head = {"put": put(), "form": form(), "patch": patch(path)}[kind]
        with begun(impatient, head):
            impatient.terminate()
            assert impatient.wait(25) == 0
        assert impatient.events("server.cut_off")
        assert "Traceback" not in impatient.log()
        impatient.start()
        assert offset(impatient, path) == (SENT if kind == "patch" else 0)
        assert impatient.files() == []


@pytest.mark.parametrize("kind", ["put", "form", "patch"])
def test_kill_publishes_nothing_half_done(tmp_path: Path, kind: str) -> None:
    with Server(tmp_path / "spool") as killed:
        for run in range(2 * EFFORT):
            path = create(killed)
            head = {"put": put(), "form": form(), "patch": patch(path)}[kind]
            with begun(killed, head) as client:
                client.sendall(DATA[SENT : SENT + run * MIB])
                killed.kill()
            killed.start()
            assert killed.files() == []
            assert offset(killed, path) <= SENT + run * MIB
            assert len(killed.blobs()) <= run + 1


def test_kill_after_the_answer_loses_nothing(tmp_path: Path) -> None:
    with Server(tmp_path / "spool") as killed:
        with begun(killed, form()) as client:
            client.sendall(DATA[SENT:] + END)
            assert answer(client).startswith(b"HTTP/1.1 201 ")
            killed.kill()
        assert_kept(killed.start())
