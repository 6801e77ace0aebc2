"""The server with a certificate, and the real curl, which checks it."""

from __future__ import annotations

import hashlib
import http.client
import os
import signal
import socket
import ssl
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from tests import process
from tests.authority import Authority
from tests.process import Server, eventually, slowed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MIB = 1024 * 1024


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Authority:
    authority = Authority(tmp_path / "authority")
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.trusted))  # for what the tests themselves ask
    return authority


@pytest.fixture
def server(tmp_path: Path, authority: Authority) -> Iterator[Server]:
    with Server(tmp_path / "spool", env=authority.environment) as running:
        yield running


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """No multiple of anything that is read or sent in one go."""
    path = tmp_path / "film.bin"
    path.write_bytes(os.urandom(5 * MIB + 12345))
    return path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def serial(connection: http.client.HTTPSConnection) -> str:
    """The serial number of the certificate that it was shown."""
    assert isinstance(connection.sock, ssl.SSLSocket)
    shown = connection.sock.getpeercert()
    assert shown
    return str(shown["serialNumber"])


class TestTls:
    @pytest.fixture(autouse=True)
    def trust(self, authority: Authority) -> None:
        self.authority = authority

    def curl(self, *arguments: str) -> process.Answer:
        return process.curl("--cacert", str(self.authority.trusted), *arguments)

    def connect(self, server: Server) -> http.client.HTTPSConnection:
        connection = http.client.HTTPSConnection("127.0.0.1", server.port, timeout=60, context=self.authority.client())
        connection.connect()
        return connection

    def alive(self, connection: http.client.HTTPSConnection) -> bool:
        connection.request("GET", "/healthz")
        answer = connection.getresponse()
        answer.read()
        return answer.status == 200

    def test_server_says_that_it_speaks_https(self, server: Server) -> None:
        assert server.url.startswith("https://127.0.0.1:")
        assert self.curl(f"{server.url}/healthz").status == 200

    @pytest.mark.parametrize("way", ["form", "put"])
    def test_upload_is_stored_under_https_addresses(self, server: Server, film: Path, way: str) -> None:
        sent = ["-F", f"file=@{film}"] if way == "form" else ["-T", str(film)]
        answer = self.curl(*sent, f"{server.url}/files/" if way == "put" else f"{server.url}/files")
        assert answer.status == 201
        record = answer.json["files"][0] if way == "form" else answer.json
        assert record["sha256"] == sha256(film)
        assert answer.headers["location"] == record["url"] == f"{server.url}/files/{record['id']}"
        assert record["content_url"].startswith(server.url)
        assert server.files() == [record]

    def test_upload_is_resumed_by_tus(self, server: Server, film: Path) -> None:
        tus = ["-H", "Tus-Resumable: 1.0.0"]
        size, half = film.stat().st_size, 2 * MIB + 1
        made = self.curl("-X", "POST", *tus, "-H", f"Upload-Length: {size}", f"{server.url}/tus")
        address = made.headers["location"]
        assert address.startswith(server.url)
        patch = [*tus, "-X", "PATCH", "-H", "Content-Type: application/offset+octet-stream", "--data-binary", "@-"]
        data = film.read_bytes()

        def send(start: int, end: int) -> process.Answer:
            arguments = ["--cacert", str(self.authority.trusted), *patch, "-H", f"Upload-Offset: {start}", address]
            return process.curl(*arguments, stdin=data[start:end])

        assert send(0, half).status == 204
        assert self.curl("-I", *tus, address).headers["upload-offset"] == str(half)
        assert send(half, size).headers["upload-offset"] == str(size)
        assert [file["sha256"] for file in server.files()] == [sha256(film)]

    def test_download_is_whole_or_the_range_asked_for(self, server: Server, film: Path, tmp_path: Path) -> None:
        data = film.read_bytes()
        record = self.curl("-T", str(film), f"{server.url}/files/").json
        redirect = self.curl(record["content_url"])
        assert redirect.status == 302
        media = redirect.headers["location"]
        assert media == f"{server.url}/media/{record['id']}/film.bin"
        assert self.curl("-L", record["content_url"]).body == data
        part = self.curl("-r", "1048575-3145729", media)
        assert (part.status, part.body) == (206, data[1048575:3145730])
        both = self.curl("-r", "0-0,4000000-", media)
        assert both.status == 206
        assert data[4000000:] in both.body
        kept = tmp_path / "kept"
        kept.write_bytes(data[: 3 * MIB])
        assert self.curl("-C", "-", "--no-include", "-o", str(kept), media).code == 0
        assert kept.read_bytes() == data
        assert self.curl("-I", media).headers["content-length"] == str(len(data))

    @pytest.mark.parametrize("error", ["EAGAIN", "EOPNOTSUPP", "EIO"])
    def test_download_is_whole_where_no_memory_has_the_bytes(self, server: Server, film: Path, error: str) -> None:
        record = self.curl("-T", str(film), f"{server.url}/files/").json
        with slowed(server, "preadv2", f"error={error}"):
            assert self.curl("-L", record["content_url"]).body == film.read_bytes()

    def test_download_of_a_damaged_file_is_cut_off(self, server: Server, film: Path) -> None:
        record = self.curl("-T", str(film), f"{server.url}/files/").json
        (blob,) = server.dir.glob("blobs/*/*")
        os.truncate(blob, MIB)
        answer = self.curl("-L", record["content_url"])
        assert answer.code != 0
        assert [event["missing"] > 0 for event in eventually(lambda: server.events("blob.truncated"))] == [True]

    def test_empty_file_comes_back_empty(self, server: Server, tmp_path: Path) -> None:
        (tmp_path / "empty").touch()
        record = self.curl("-T", str(tmp_path / "empty"), f"{server.url}/files/").json
        answer = self.curl("-L", record["content_url"])
        assert (answer.status, answer.body) == (200, b"")

    def test_connection_is_kept_for_the_next_request(self, server: Server) -> None:
        with closing(self.connect(server)) as connection:
            assert all(self.alive(connection) for _ in range(20))

    def test_refusal_of_a_large_body_is_seen(self, tmp_path: Path, film: Path) -> None:
        environment = {**self.authority.environment, "SPOOL_LIMITS_MAX_FILE_SIZE": "1 MiB"}
        with Server(tmp_path / "small", env=environment) as server:
            answer = self.curl("-H", "Expect:", "-T", str(film), f"{server.url}/files/")
            assert (answer.status, answer.json["type"]) == (413, "/problems/too-large")

    def test_cut_off_upload_leaves_nothing(self, server: Server) -> None:
        with closing(self.connect(server)) as connection:
            connection.putrequest("PUT", "/files/cut")
            connection.putheader("Content-Length", str(8 * MIB))
            connection.endheaders(bytes(5 * MIB))
            eventually(lambda: server.staged() == 1)
        eventually(lambda: server.staged() == 0)
        assert server.blobs() == {}
        assert server.files() == []

    def test_upload_that_runs_at_sigterm_is_stored(self, server: Server) -> None:
        with closing(self.connect(server)) as connection:
            connection.putrequest("PUT", "/files/late")
            connection.putheader("Content-Length", str(8 * MIB))
            connection.endheaders(bytes(5 * MIB))
            eventually(lambda: server.staged() == 1)
            server.terminate()
            eventually(lambda: server.events("server.draining"))
            connection.send(bytes(3 * MIB))
            assert connection.getresponse().status == 201
        assert server.wait() == 0

    def test_old_versions_of_tls_are_refused(self, server: Server) -> None:
        weak = ["--ciphers", "DEFAULT@SECLEVEL=0", "--tlsv1.0"]
        assert self.curl(*weak, "--tls-max", "1.1", f"{server.url}/healthz").code == 35
        assert self.curl(*weak, "--tls-max", "1.2", f"{server.url}/healthz").status == 200
        assert self.curl("--tlsv1.3", f"{server.url}/healthz").status == 200

    def test_http_1_1_is_agreed_on(self, server: Server) -> None:
        context = self.authority.client()
        context.set_alpn_protocols(["h2", "http/1.1"])
        plain = socket.create_connection(("127.0.0.1", server.port), timeout=60)
        with context.wrap_socket(plain, server_hostname="localhost") as client:
            assert client.selected_alpn_protocol() == "http/1.1"

    def test_plain_http_is_told_so(self, server: Server) -> None:
        answer = process.curl(f"http://127.0.0.1:{server.port}/files")
        assert (answer.status, answer.json["type"]) == (400, "/problems/bad-request")
        assert "https" in answer.json["detail"]

    @pytest.mark.parametrize("sent", [bytes(100), b"\x16\x03\x01\xff\xff" + bytes(70_000), b"SSH-2.0-x\r\n"], ids=len)
    def test_what_is_no_tls_ends_the_connection_and_nothing_else(self, server: Server, sent: bytes) -> None:
        with closing(self.connect(server)) as beside:
            for _ in range(10):
                with socket.create_connection(("127.0.0.1", server.port), timeout=60) as client:
                    client.sendall(sent)
                    client.shutdown(socket.SHUT_WR)
                    while client.recv(65536):
                        pass
            assert self.alive(beside)
        assert "Traceback" not in server.log()

    def test_renewed_certificate_is_shown_after_sighup_and_connections_stay(self, server: Server) -> None:
        with closing(self.connect(server)) as before:
            assert self.alive(before)
            self.authority.issue(not_after=datetime(2199, 12, 31, tzinfo=UTC))
            server.signal(signal.SIGHUP)
            eventually(lambda: len(server.events("certificate.loaded")) == 2)
            with closing(self.connect(server)) as after:
                assert self.alive(after)
                assert serial(after) != serial(before)
            assert self.alive(before)
        assert server.events("certificate.loaded")[1]["expires"].startswith("2199-12-31")

    def test_certificate_that_is_none_at_sighup_is_not_taken(self, server: Server) -> None:
        with closing(self.connect(server)) as before:
            self.authority.key.write_text("hello")
            server.signal(signal.SIGHUP)
            (kept,) = eventually(lambda: server.events("certificate.kept"))
            assert "server.tls_key" in kept["reason"]
            with closing(self.connect(server)) as after:
                assert self.alive(after)
                assert serial(after) == serial(before)
            assert self.alive(before)


@pytest.mark.parametrize("fault", ["missing", "encrypted", "mismatched"])
def test_server_does_not_start_without_a_certificate_of_use(tmp_path: Path, authority: Authority, fault: str) -> None:
    match fault:
        case "missing":
            authority.key.unlink()
        case "encrypted":
            authority.encrypt_key()
        case "mismatched":
            key = authority.key.read_bytes()
            authority.issue()
            authority.key.write_bytes(key)
    server = Server(tmp_path / "spool", env=authority.environment).spawn()
    assert server.wait() == 2
    (line,) = server.log().splitlines()
    assert line.startswith("spool: server.tls_")
    assert "key.pem" in line


def test_server_starts_with_an_expired_certificate_and_says_so(tmp_path: Path, authority: Authority) -> None:
    authority.issue(not_before=datetime(2020, 1, 1, tzinfo=UTC), not_after=datetime(2021, 1, 1, tzinfo=UTC))
    with Server(tmp_path / "spool", env=authority.environment) as server:
        assert [event["level"] for event in server.events("certificate.invalid")] == ["warning"]
        assert process.curl("-k", f"{server.url}/healthz").status == 200
        assert process.curl("--cacert", str(authority.trusted), f"{server.url}/healthz").code == 60
