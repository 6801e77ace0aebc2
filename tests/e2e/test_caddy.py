"""deploy/Caddyfile, as it stands but for addresses and certificate: what it passes on to Spool and back."""

from __future__ import annotations

import json
import os
import re
import socket
import ssl
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.e2e.test_proxy import DEPLOY, Site, certify, listening, tool
from tests.process import Server, curl, eventually, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONFIG = DEPLOY / "Caddyfile"
MIB = 1024 * 1024
SIZE = 64 * MIB
"""More than all sockets and buffers on the way take."""
OURS = """{
	admin off
	auto_https disable_redirects
	skip_install_trust
"""


def homes(directory: Path) -> dict[str, str]:
    """The environment in which Caddy keeps what it makes in this directory."""
    return {**os.environ, **dict.fromkeys(("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"), str(directory))}


@contextmanager
def serving(root: Path, port: int, upstream: int) -> Iterator[None]:
    """Caddy on this port, in front of whatever is on the other one; its log is `root / "caddy.log"`."""
    caddy = tool("caddy")
    certify(root / "tls")
    text = CONFIG.read_text().replace("127.0.0.1:8080", f"127.0.0.1:{upstream}").replace("{\n", OURS, 1)
    ours = f"https://localhost:{port} {{\n\ttls {root}/tls/cert.pem {root}/tls/key.pem"
    (root / "Caddyfile").write_text(text.replace("spool.example.org {", ours))
    command = [caddy, "run", "--adapter", "caddyfile", "--config", str(root / "Caddyfile")]
    with listening(command, port, root / "caddy.log", homes(root / "tmp")):
        yield


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    root, port = tmp_path_factory.mktemp("caddy"), free_port()
    env = {"SPOOL_SERVER_BASE_URL": f"https://localhost:{port}", "SPOOL_SERVER_TRUSTED_PROXIES": "127.0.0.1/32"}
    create = [sys.executable, "-m", "spool", "token", "create", "--name", "ada", "--scope", "admin"]
    token = subprocess.check_output([*create, "--dir", str(root / "data")], text=True).strip()
    with Server(root / "data", env=env) as server, serving(root, port, server.port):
        yield Site(server, port, root / "tmp", token)


def test_file_is_right_and_formatted_as_usual(tmp_path: Path) -> None:
    caddy = tool("caddy")
    command = [caddy, "validate", "--adapter", "caddyfile", "--config", str(CONFIG)]
    done = subprocess.run(command, capture_output=True, text=True, env=homes(tmp_path), check=False)
    assert done.returncode == 0, done.stderr
    assert subprocess.check_output([caddy, "fmt", str(CONFIG)], text=True) == CONFIG.read_text()


def test_upload_reaches_spool_before_it_is_whole(site: Site) -> None:
    fields = ("Host: localhost", f"Authorization: Bearer {site.token}", f"Content-Length: {SIZE}", "Connection: close")
    head = "\r\n".join(("PUT /files/large HTTP/1.1", *fields, "\r\n")).encode()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with context.wrap_socket(
        socket.create_connection(("127.0.0.1", site.port), 60), server_hostname="localhost"
    ) as client:
        before = site.counted("spool_received_bytes_total")
        client.sendall(head + bytes(SIZE // 2))
        eventually(lambda: site.counted("spool_received_bytes_total") - before == SIZE // 2)
        client.sendall(bytes(SIZE - SIZE // 2))
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 201")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["url"].startswith(f"https://localhost:{site.port}/files/")


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_bytes_and_ranges_come_back(site: Site, version: str) -> None:
    stored = site.curl(version, "-T-", "/files/a.txt", stdin=b"hello").json
    answer = site.curl(version, "-L", f"/files/{stored['id']}/content")
    assert (answer.status, answer.body) == (200, b"hello")
    assert answer.headers["content-security-policy"] == "sandbox; default-src 'none'"
    part = site.curl(version, "-r", "1-2", f"/media/{stored['id']}/a.txt")
    assert (part.status, part.body) == (206, b"el")


def test_upload_that_is_refused_is_told_why(site: Site) -> None:
    answer = curl("-k", "-T-", f"https://localhost:{site.port}/files/a.txt", stdin=bytes(MIB))
    assert (answer.status, answer.headers["content-type"]) == (401, "application/problem+json")


def test_request_has_one_id_in_both_logs_and_the_clients_address(site: Site) -> None:
    said = ["-H", "X-Request-ID: theirs", "-H", "X-Forwarded-For: 192.0.2.7"]
    name = site.curl("-T-", *said, "/files/b.txt", stdin=b"hello").headers["x-request-id"]
    assert name != "theirs"
    [event] = eventually(lambda: [e for e in site.server.events("request.finished") if e["request_id"] == name])
    assert event["client"] == "127.0.0.1"
    log = site.temporary.with_name("caddy.log")
    assert eventually(lambda: re.findall(rf'"uri":"/files/b.txt".*"X-Request-Id":\["{name}"\]', log.read_text()))
    assert site.token not in log.read_text()


def test_secrets_of_addresses_are_not_in_its_log(site: Site) -> None:
    log = site.temporary.with_name("caddy.log")
    file = site.curl("-T-", "/files/c.txt", stdin=b"hello").json
    link = site.curl("--json", "{}", f"/files/{file['id']}/links").json["url"]
    secret = link.rpartition("/")[2]
    paths = (f"/l/{secret}?a=b", f"/G/./{secret}/files?token={secret}", f"/%6c/{secret}", f"/d/{file['id']}/{secret}")
    for path in paths:
        site.curl("--path-as-is", "-H", f"Referer: {link}", path)
    grant = site.curl("--json", "{}", "/grants").json["url"].rpartition("/")[2]
    created = site.curl("-X", "POST", "-H", "Tus-Resumable: 1.0.0", "-H", "Upload-Length: 0", f"/g/{grant}/tus")
    assert grant in created.headers["location"]
    assert "/d/" in created.headers["link"]
    told = created.headers["link"].partition(">")[0].rpartition("/")[2]
    eventually(lambda: '"uri":"/d/...' in log.read_text())
    shown = log.read_text()
    assert '"uri":"/l/......"' in shown
    assert [hidden for hidden in (secret, grant, told) if hidden in shown] == []


def test_secrets_of_addresses_are_not_in_the_log_of_its_errors(tmp_path: Path) -> None:
    port = free_port()
    with serving(tmp_path, port, upstream=free_port()):
        assert curl("-k", f"https://localhost:{port}/g/swordfish").status == 502
        shown = eventually(lambda: re.findall("{.*refused.*}", (tmp_path / "caddy.log").read_text()))
    assert "swordfish" not in (tmp_path / "caddy.log").read_text()
    assert json.loads(shown[0])["request"]["uri"] == "/g/..."


def test_resumable_upload_goes_through(site: Site) -> None:
    tus = ["-H", "Tus-Resumable: 1.0.0"]
    created = site.curl("-X", "POST", *tus, "-H", "Upload-Length: 5", "/tus")
    assert created.status == 201
    assert created.headers["location"].startswith(f"https://localhost:{site.port}/tus/")
    path = "/tus/" + created.headers["location"].rpartition("/")[2]
    append = ["-H", "Upload-Offset: 0", "-H", "Content-Type: application/offset+octet-stream", "--data-binary", "hello"]
    assert site.curl("-X", "PATCH", *tus, *append, path).status == 204


def test_interim_answers_are_passed_on(site: Site) -> None:
    address = f"https://localhost:{site.port}/files"
    draft = ["-H", "Upload-Draft-Interop-Version: 6", "-H", "Upload-Complete: ?1", "--data-binary", "hello"]
    shown = curl("-k", "-v", "--http1.1", "-H", f"Authorization: Bearer {site.token}", *draft, address)
    assert shown.status == 201
    assert re.search(r"^< HTTP/1.1 104 ", shown.stderr, re.MULTILINE)
