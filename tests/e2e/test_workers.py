"""Two processes on one spool: whatever one server promises, they promise together."""

from __future__ import annotations

import hashlib
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e import test_handover as handover
from tests.e2e.test_handover import DATA, DIALECTS, SENT
from tests.process import Server, descriptors, eventually, without_nameless_files

if TYPE_CHECKING:
    from collections.abc import Iterator

KIB = 1024


@contextmanager
def two(directory: Path, **limits: object) -> Iterator[Server]:
    env = {f"SPOOL_LIMITS_{key}".upper(): str(value) for key, value in limits.items()}
    with Server(directory, "--workers", "2", env=env) as server:
        yield server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with two(tmp_path_factory.mktemp("workers") / "spool") as server:
        yield server


def connect(server: Server, worker: int) -> socket.socket:
    """A connection that this worker has."""
    for _ in range(20):
        connection = socket.create_connection(("127.0.0.1", server.port), timeout=20)
        if eventually(partial(holder, server, connection)) == worker:
            return connection
        connection.close()
    raise AssertionError(f"no connection came to {worker}")


GONE = -1


def holder(server: Server, connection: socket.socket) -> int | None:
    """The worker that has the connection, once one has; GONE if it went with a worker that was killed."""
    ends = f"0100007F:{server.port:04X} 0100007F:{connection.getsockname()[1]:04X}"
    match = re.search(rf"{ends} 01(?: +\S+){{5}} +(\d+)", Path("/proc/net/tcp").read_text("ascii"))
    if match is None:
        return GONE
    sought = f"socket:[{match[1]}]"
    return next((pid for pid in server.workers() if sought in descriptors(pid)), None)


@dataclass
class Request:
    """A PUT over one connection; its body may come later."""

    server: Server
    connection: socket.socket
    name: str
    size: int = 0
    key: str = ""

    def begin(self) -> Request:
        lines = [f"PUT /files/{self.name} HTTP/1.1", "Host: localhost", f"Content-Length: {self.size}"]
        lines += ["Expect: 100-continue", *([f'Idempotency-Key: "{self.key}"'] if self.key else [])]
        self.connection.sendall("\r\n".join([*lines, "", ""]).encode())
        return self

    def admitted(self) -> bool:
        """Whether it may send its body."""
        return self.connection.recv(KIB, socket.MSG_PEEK).startswith(b"HTTP/1.1 100")

    def finish(self) -> tuple[int, dict[str, Any]]:
        """The answer; the connection is closed."""
        with closing(self.connection):
            return self.finish_and_stay()

    def finish_and_stay(self) -> tuple[int, dict[str, Any]]:
        if self.admitted():
            self.connection.recv(len(b"HTTP/1.1 100 Continue\r\n\r\n"))
            self.connection.sendall(os.urandom(self.size))
        return read_answer(self.connection)

    def give_up(self) -> None:
        self.connection.close()


def read_answer(connection: socket.socket) -> tuple[int, dict[str, Any]]:
    received = b""
    while b"\r\n\r\n" not in received:
        piece = connection.recv(64 * KIB)
        assert piece, f"closed after {received!r}"
        received += piece
    head, _, body = received.partition(b"\r\n\r\n")
    match = re.search(rb"(?i)content-length: (\d+)", head)
    while match and len(body) < int(match[1]):
        body += connection.recv(64 * KIB)
    return int(head.split()[1]), json.loads(body or b"{}")


def put(server: Server, worker: int, name: str, size: int = KIB, key: str = "") -> tuple[int, dict[str, Any]]:
    return Request(server, connect(server, worker), name, size, key).begin().finish()


def problem(answer: tuple[int, dict[str, Any]]) -> str:
    return str(answer[1].get("type", "")).rpartition("/")[2]


@pytest.mark.parametrize("limit", ["max_uploads", "uploads_per_principal"])
def test_slots_are_those_of_all_workers(tmp_path: Path, limit: str) -> None:
    with two(tmp_path / "spool", **{limit: 2}) as server:
        one, other = server.workers()
        running = [Request(server, connect(server, pid), f"running-{pid}", 10).begin() for pid in (one, other)]
        assert all(request.admitted() for request in running)
        for pid in (one, other):
            assert problem(put(server, pid, "too-many")) == "too-many"
        assert running[0].finish()[0] == 201
        assert put(server, other, "fits")[0] == 201
        running[1].give_up()
        eventually(lambda: put(server, one, "fits-too")[0] == 201)


def test_slot_is_back_when_its_client_has_the_answer(tmp_path: Path) -> None:
    with two(tmp_path / "spool", uploads_per_principal=1) as server:
        connections = [connect(server, pid) for pid in server.workers()]
        with closing(connections[0]), closing(connections[1]):
            requests = [Request(server, connections[n % 2], f"{n}", 10) for n in range(100)]
            assert {request.begin().finish_and_stay()[0] for request in requests} == {201}


def test_slots_of_a_killed_worker_are_back(tmp_path: Path) -> None:
    with two(tmp_path / "spool", max_uploads=1, quota="100 KiB") as server:
        one, other = server.workers()
        running = Request(server, connect(server, one), "running", 90 * KIB).begin()
        assert running.admitted()
        assert problem(put(server, other, "other", 90 * KIB)) == "too-many"
        os.kill(one, signal.SIGKILL)
        eventually(lambda: put(server, other, "other", 90 * KIB)[0] == 201)
        running.give_up()


def test_quota_is_that_of_all_workers(tmp_path: Path) -> None:
    with two(tmp_path / "spool", quota="100 KiB", quota_files=5) as server:
        one, other = server.workers()
        running = Request(server, connect(server, one), "running", 60 * KIB).begin()
        assert running.admitted()
        assert problem(put(server, other, "too-much", 60 * KIB)) == "quota-exceeded"
        assert running.finish()[0] == 201
        assert problem(put(server, other, "too-much", 60 * KIB)) == "quota-exceeded"
        with ThreadPoolExecutor(16) as pool:
            connections = [connect(server, pid) for pid in (one, other) * 8]
            requests = [Request(server, connection, f"{n}") for n, connection in enumerate(connections)]
            statuses = list(pool.map(lambda request: request.begin().finish()[0], requests))
        assert sorted(statuses) == [201] * 4 + [413] * 12
        assert len(server.files()) == 5


def test_requests_a_minute_are_those_of_all_workers(tmp_path: Path) -> None:
    with two(tmp_path / "spool", requests_per_minute=5) as server:
        answers = [put(server, pid, "x") for pid in server.workers() * 4]
        assert [status for status, _ in answers] == [201] * 5 + [429] * 3
        assert problem(answers[-1]) == "rate-limited"


def test_key_is_used_once_in_all_workers(server: Server) -> None:
    one, other = server.workers()
    first = Request(server, connect(server, one), "keyed", 10, "the key").begin()
    assert first.admitted()
    assert problem(put(server, other, "keyed", 10, "the key")) == "key-in-use"
    status, record = first.finish()
    assert status == 201
    for pid in (one, other):
        status, again = put(server, pid, "keyed", 10, "the key")
        assert (status, again["id"]) == (201, record["id"])
    assert len([file for file in server.files() if file["filename"] == "keyed"]) == 1


@dataclass
class Client(handover.Client):
    """One whose connections a certain worker takes."""

    worker: int = 0

    def connect(self) -> socket.socket:
        return connect(self.server, self.worker)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_upload_goes_on_in_another_worker(server: Server, dialect: str) -> None:
    one, other = server.workers()
    client = Client(server, dialect, worker=one)
    client.create()
    assert client.ask(client.patch(0, SENT) + DATA[:SENT]).offset == SENT
    client.worker = other
    assert client.inspect().offset == SENT
    client.finish(SENT)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("verb", ["HEAD", "PATCH", "DELETE"])
def test_turn_is_taken_from_a_request_in_another_worker(server: Server, dialect: str, verb: str) -> None:
    one, other = server.workers()
    client = Client(server, dialect, worker=one)
    client.create()
    with closing(client.connect()) as slow:
        client.send_some(slow)
        client.worker = other
        if verb == "DELETE":
            assert client.ask(client.head("DELETE", client.path)).status == 204
            assert client.inspect().status == 404
        else:
            more = 1000 if verb == "PATCH" else 0
            reply = client.ask(client.patch(SENT, more) + DATA[SENT : SENT + more]) if more else client.inspect()
            assert (reply.status in (200, 204), reply.offset) == (True, SENT + more)
            client.worker = one
            client.finish(SENT + more)
        handover.assert_taken_over(slow)


def test_turn_of_a_killed_worker_is_free(server: Server) -> None:
    one, other = server.workers()
    client = Client(server, "tus", worker=one)
    client.create()
    with closing(client.connect()) as slow:
        client.send_some(slow)
        os.kill(one, signal.SIGKILL)
        client.worker = other
        offset = client.inspect().offset
        assert offset <= SENT
        client.finish(offset)
    eventually(lambda: len(server.workers()) == 2 and one not in server.workers(), 20)


def scraped(server: Server, worker: int) -> dict[str, float]:
    """What this worker tells of all, but for the requests themselves that ask."""
    with closing(connect(server, worker)) as connection:
        connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        text = b"".join(iter(lambda: connection.recv(64 * KIB), b"")).decode()
    return {name: float(value) for name, value in re.findall(r"^([a-z][^ ]*) (\S+)$", text, re.MULTILINE)}


def test_metrics_are_those_of_all_workers_whichever_is_asked(tmp_path: Path) -> None:
    with two(tmp_path / "spool") as server:
        one, other = server.workers()
        uploads = [(server, (one, other)[number % 3 % 2], f"{number}") for number in range(30)]
        with ThreadPoolExecutor(8) as pool:
            assert [answer[0] for answer in pool.map(put, *zip(*uploads, strict=True))] == [201] * 30
        swept = 'spool_sweeps_total{outcome="done"}'
        eventually(lambda: scraped(server, one).get(swept))
        for worker in (one, other):
            counts = scraped(server, worker)
            assert counts["spool_committed_files_total"] == counts["spool_files"] == 30
            assert counts["spool_committed_bytes_total"] == counts["spool_received_bytes_total"] == 30 * KIB
            assert counts['spool_requests_total{code="201",method="PUT"}'] == counts["spool_commit_seconds_count"] == 30
            assert counts[swept] == 1
            pids = {pid for name in counts for pid in re.findall(r'process_cpu_seconds_total{pid="(\d+)"}', name)}
            assert pids == {str(server.pid), str(one), str(other)}
        os.kill(one, signal.SIGKILL)
        eventually(lambda: server.events("worker.lost"))
        counts = scraped(server, other)
        assert (counts["spool_committed_files_total"], counts["spool_received_bytes_total"]) == (30, 30 * KIB)


def test_running_uploads_of_all_workers_are_told(tmp_path: Path) -> None:
    with two(tmp_path / "spool") as server:
        workers = server.workers()
        requests = [Request(server, connect(server, worker), "a", KIB).begin() for worker in workers]
        for request in requests:
            assert request.admitted()
        assert [scraped(server, worker)["spool_active_uploads"] for worker in workers] == [2, 2]
        for request in requests:
            request.give_up()
        eventually(lambda: scraped(server, workers[0])["spool_active_uploads"] == 0)


def test_background_steps_run_once_and_spare_what_workers_receive(tmp_path: Path) -> None:
    env = {"SPOOL_STORAGE_SWEEP_INTERVAL": "1s", "SPOOL_SERVER_WORKERS": "2", "SPOOL_POLICY_EXPIRE_AFTER": "1s"}
    with without_nameless_files(tmp_path / "spool", env=env) as server:
        connections = [connect(server, pid) for pid in server.workers()]
        running = [Request(server, connection, "running", 6000 * KIB).begin() for connection in connections]
        assert all(request.admitted() for request in running)
        for request in running:
            request.connection.recv(KIB)
            request.connection.sendall(bytes(5000 * KIB))  # more than a batch
        eventually(lambda: server.staged() == 2)
        orphan = server.dir / "incoming" / ("00" * 16)
        stored = {put(server, pid, "expires")[1]["id"] for pid in server.workers() * 2}
        orphan.touch()
        eventually(lambda: len(server.events("file.expired")) == len(stored))
        eventually(lambda: server.events("blob.reclaimed"))
        assert {event["id"] for event in server.events("file.expired")} == stored
        assert [event["key"] for event in server.events("blob.reclaimed")] == [orphan.name]
        swept = [e for e in server.events("file.expired") + server.events("sweep.done") if "pid" in e]
        assert swept == [], "a worker did what the office does"
        for request in running:
            request.connection.sendall(bytes(1000 * KIB))
            assert read_answer(request.connection)[0] == 201
            request.give_up()


def test_worker_that_is_told_to_stop_drains_and_is_replaced(server: Server) -> None:
    one, _ = server.workers()
    running = Request(server, connect(server, one), "last", 10).begin()
    assert running.admitted()
    os.kill(one, signal.SIGTERM)
    eventually(lambda: any(event.get("pid") == one for event in server.events("server.draining")))
    assert running.finish()[0] == 201
    eventually(lambda: len(server.workers()) == 2 and one not in server.workers(), 20)
    assert server.events("worker.lost")[-1]["code"] == 0


def test_worker_that_cannot_start_ends_the_server(tmp_path: Path) -> None:
    """Its descriptors leave none for connections; the office takes none."""
    command = [sys.executable, "-m", "spool", "serve", "--dir", str(tmp_path / "spool"), "--port", "0"]
    done = subprocess.run(
        [*command, "--workers", "2"],
        capture_output=True,
        timeout=60,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (400, 400)),
    )
    assert done.returncode == 1
    assert b"limit of 400 open files" in done.stderr
    assert done.stderr.splitlines()[-1] == b"spool: a worker cannot start; the log says why"


def test_two_workers_listen_on_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with Server(tmp_path / "spool", "--workers", "2", "--unix", str(path)) as server:
        assert path.stat().st_mode & 0o777 == 0o660
        for _ in range(4):
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(str(path))
                connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert read_answer(connection) == (200, {"status": "alive"})
        assert server.stop() == 0


def test_one_worker_is_one_process(tmp_path: Path) -> None:
    with Server(tmp_path / "spool", "--workers", "1") as server:
        record = server.put("alone", b"alone")
        assert record["sha256"] == hashlib.sha256(b"alone").hexdigest()
        assert server.workers() == []
        assert not (server.dir / "index.db-queue").exists()


def test_directory_is_not_free_while_a_worker_lives_that_has_lost_its_office(tmp_path: Path) -> None:
    with two(tmp_path / "spool") as server:
        one, other = server.workers()
        os.kill(one, signal.SIGSTOP)
        server.kill()
        eventually(lambda: not Path(f"/proc/{other}").exists())
        command = [sys.executable, "-m", "spool", "serve", "--dir", str(server.dir), "--port", "0"]
        done = subprocess.run(command, capture_output=True, timeout=60, check=False)
        assert (done.returncode, done.stderr[:21]) == (1, b"spool: another spool ")
        os.kill(one, signal.SIGKILL)
        server.start()
