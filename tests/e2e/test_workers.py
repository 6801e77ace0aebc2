"""Two processes on one spool: whatever one server promises, they promise together."""

from __future__ import annotations

import base64
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
from urllib.parse import urlsplit

import pytest
from cryptography.x509 import load_pem_x509_certificate

from tests.authority import Authority
from tests.e2e import test_guests as guests
from tests.e2e import test_handover as handover
from tests.e2e.test_handover import DATA, DIALECTS, SENT
from tests.process import Server, curl, descriptors, eventually, slowed, without_nameless_files

if TYPE_CHECKING:
    import ssl
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
        connection = socket.create_connection(("127.0.0.1", server.port), timeout=60)
        if eventually(partial(holder, server, connection)) == worker:
            return connection
        connection.close()
    raise AssertionError(f"no connection came to {worker}")


def replaced(server: Server, worker: int) -> bool:
    """Whether there are two workers, of which this is none."""
    workers = server.workers()
    return len(workers) == 2 and worker not in workers


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
    below: str = "/files"

    def begin(self) -> Request:
        lines = [f"PUT {self.below}/{self.name} HTTP/1.1", "Host: localhost", f"Content-Length: {self.size}"]
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
            self.connection.sendall(os.urandom(self.size))
        return self.refusal()

    def refusal(self) -> tuple[int, dict[str, Any]]:
        """The answer, though not all has been sent."""
        if self.admitted():
            self.connection.recv(len(b"HTTP/1.1 100 Continue\r\n\r\n"))
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


def test_slots_of_a_killed_worker_are_back_and_uploads_elsewhere_go_on(tmp_path: Path) -> None:
    with two(tmp_path / "spool", max_uploads=2, quota="100 KiB") as server:
        one, other = server.workers()
        running = Request(server, connect(server, one), "running", 90 * KIB).begin()
        elsewhere = Request(server, connect(server, other), "elsewhere", 10 * KIB).begin()
        assert running.admitted()
        assert elsewhere.admitted()
        assert problem(put(server, other, "other", 90 * KIB)) == "too-many"
        os.kill(one, signal.SIGKILL)
        eventually(lambda: put(server, other, "other", 90 * KIB)[0] == 201)
        assert elsewhere.finish()[0] == 201
        eventually(lambda: newcomer(server, one, other))
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
    eventually(lambda: replaced(server, one))


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


def test_worker_that_the_system_cannot_start_is_tried_again(tmp_path: Path) -> None:
    with two(tmp_path / "spool") as server:
        killed, other = server.workers()
        with slowed(server, "vfork,clone", "error=EAGAIN", workers=False):
            os.kill(killed, signal.SIGKILL)
            eventually(lambda: len(server.events("worker.unstarted")) >= 2)
            assert server.workers() == [other]
            with closing(connect(server, other)) as connection:
                assert server.put("a", b"a", connection)["size"] == 1
        eventually(lambda: len(server.workers()) == 2)
        assert server.stop() == 0


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
    [lost] = eventually(lambda: [event for event in server.events("worker.lost") if event["pid"] == one])
    assert lost["code"] == 0
    eventually(lambda: replaced(server, one))


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


@pytest.fixture
def secure(tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.trusted))
    with Server(tmp_path / "spool", "--workers", "2", env=authority.environment) as server:
        yield server


@contextmanager
def shaken(server: Server, authority: Authority, worker: int) -> Iterator[tuple[ssl.SSLSocket, str]]:
    """A connection to this worker, and the serial number of the certificate that it shows."""
    plain = connect(server, worker)
    with authority.client().wrap_socket(plain, server_hostname="localhost") as connection:
        shown = connection.getpeercert()
        assert shown
        yield connection, str(shown["serialNumber"])


def test_renewed_certificate_is_shown_by_all_workers_and_connections_stay(secure: Server, authority: Authority) -> None:
    workers = secure.workers()
    with shaken(secure, authority, workers[0]) as one, shaken(secure, authority, workers[1]) as other:
        authority.issue()
        secure.signal(signal.SIGHUP)

        def renewed(worker: int) -> bool:
            with shaken(secure, authority, worker) as (_, serial):
                return serial != one[1]

        for worker in workers:
            eventually(partial(renewed, worker))
        for connection, serial in (one, other):
            assert serial == one[1]
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert connection.recv(KIB).startswith(b"HTTP/1.1 200")
    assert len(secure.events("certificate.loaded")) == 2  # and not once by each process
    assert secure.workers() == workers


def newcomer(server: Server, *known: int) -> int | None:
    """A worker that takes connections, and is none of these."""
    with closing(socket.create_connection(("127.0.0.1", server.port), timeout=60)) as connection:
        worker = eventually(partial(holder, server, connection))
    return worker if worker not in (GONE, *known) else None


def serial_shown(server: Server, authority: Authority, worker: int) -> str:
    with shaken(server, authority, worker) as (_, serial):
        return serial


def test_certificate_of_no_use_is_told_once_and_taken_by_none(secure: Server, authority: Authority) -> None:
    one, other = secure.workers()
    before, key = serial_shown(secure, authority, one), authority.key.read_bytes()
    authority.key.write_text("hello")
    secure.signal(signal.SIGHUP)
    eventually(lambda: secure.events("certificate.kept"))
    assert {serial_shown(secure, authority, worker) for worker in (one, other)} == {before}
    os.kill(one, signal.SIGKILL)
    eventually(lambda: len(secure.events("worker.lost")) == 6)  # five of them in vain, and the other one serves on
    assert serial_shown(secure, authority, other) == before
    authority.key.write_bytes(key)
    another = eventually(lambda: newcomer(secure, other))
    assert serial_shown(secure, authority, another) == before
    assert len(secure.events("certificate.kept")) == 1


def test_sighup_ends_no_worker_that_begins_and_it_shows_the_newest(secure: Server, authority: Authority) -> None:
    one, other = secure.workers()
    os.kill(other, signal.SIGHUP)  # as a terminal that is closed sends it to all
    os.kill(one, signal.SIGKILL)

    def renewed_until_it_serves() -> int | None:
        loaded = len(secure.events("certificate.loaded"))
        authority.issue()
        secure.signal(signal.SIGHUP)
        eventually(lambda: len(secure.events("certificate.loaded")) > loaded)
        return newcomer(secure, one, other)

    another = eventually(renewed_until_it_serves)
    newest = load_pem_x509_certificate(authority.certificate.read_bytes()).serial_number
    for worker in (another, other):
        eventually(lambda worker=worker: int(serial_shown(secure, authority, worker), 16) == newest)
    # Who begins between the two writes of a certificate and its key ends for that, and is replaced.
    assert -signal.SIGHUP not in [lost["code"] for lost in secure.events("worker.lost")]


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
        assert [event["pid"] for event in server.events("worker.orphaned")] == [other]
        assert "Logging error" not in server.log()
        command = [sys.executable, "-m", "spool", "serve", "--dir", str(server.dir), "--port", "0"]
        done = subprocess.run(command, capture_output=True, timeout=60, check=False)
        assert (done.returncode, done.stderr[:21]) == (1, b"spool: another spool ")
        os.kill(one, signal.SIGKILL)
        server.start()


def test_sign_ins_that_failed_are_counted_in_all_workers(tmp_path: Path) -> None:
    head = "POST /login HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\nConnection: close\r\n"
    request = f"{head}Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 7\r\n\r\ntoken=x".encode()
    with two(tmp_path / "spool") as server:
        statuses = []
        for worker in server.workers() * 6:
            with closing(connect(server, worker)) as connection:
                connection.sendall(request)
                statuses.append(int(connection.makefile("rb").readline().split()[1]))
    assert statuses == [401] * 10 + [429] * 2


def test_revoked_grant_ends_the_uploads_that_run_in_all_workers(tmp_path: Path) -> None:
    with two(tmp_path / "spool") as server:
        below = urlsplit(guests.invited(server)).path
        requests = [Request(server, connect(server, pid), "a", KIB, below=below).begin() for pid in server.workers()]
        assert all(request.admitted() for request in requests)
        assert curl("-X", "DELETE", f"{server.url}/grants/{guests.grant_id(server)}").status == 204
        for request in requests:
            with closing(request.connection):
                assert problem(request.refusal()) == "gone"
        eventually(lambda: scraped(server, server.workers()[0])["spool_active_uploads"] == 0)
        assert (server.files(), server.blobs()) == ([], {})


def test_bounds_of_a_grant_are_those_of_all_workers(tmp_path: Path) -> None:
    """Of bytes, while they are only held; and of files, of which many come at once."""
    with two(tmp_path / "spool") as server:
        workers = server.workers()
        below = urlsplit(guests.invited(server, "--max-files=7", "--max-size=7KiB")).path

        def send(number: int) -> tuple[int, dict[str, Any]]:
            connection = connect(server, workers[number % 2])
            return Request(server, connection, f"{number}", KIB, below=below).begin().finish()

        running = Request(server, connect(server, workers[0]), "a", 7 * KIB, below=below).begin()
        assert running.admitted()
        assert [problem(send(number)) for number in (0, 1)] == ["beyond-grant"] * 2
        running.give_up()
        eventually(lambda: scraped(server, workers[0])["spool_active_uploads"] == 0)
        with ThreadPoolExecutor(8) as pool:
            statuses = [status for status, _ in pool.map(send, range(24))]
        assert (statuses.count(201), len(server.files())) == (7, 7)


def test_pass_phrase_is_tried_as_often_as_with_one_process(tmp_path: Path) -> None:
    with two(tmp_path / "spool") as server:
        below = urlsplit(guests.invited(server, "--passphrase", "-", stdin="right\n")).path
        head = f"PUT {below}/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n"
        statuses = []
        for number, worker in enumerate(server.workers() * 7):
            secret = base64.b64encode(f":wrong-{number}".encode()).decode()
            with closing(connect(server, worker)) as connection:
                connection.sendall(f"{head}Authorization: Basic {secret}\r\n\r\n".encode())
                statuses.append(int(connection.makefile("rb").readline().split()[1]))
        assert statuses == [401] * 10 + [429] * 4
