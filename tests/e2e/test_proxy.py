"""deploy/compose.yaml: its Spool and its nginx, by the very settings and configuration that stand there."""

from __future__ import annotations

import getpass
import grp
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.process import PATIENCE, Answer, Server, curl, eventually, free_port, lacking

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

DEPLOY = Path(__file__).parents[2] / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SPOOL, PROXY = COMPOSE["services"]["spool"], COMPOSE["services"]["proxy"]
CONFIG = (DEPLOY / "nginx.conf").read_text()
SIZE = 8 * 1024 * 1024


def tool(name: str) -> str:
    found = shutil.which(name, path=os.environ.get("PATH", "") + os.pathsep + "/usr/sbin")
    return found or lacking(f"{name} is not installed")


def certify(directory: Path) -> None:
    """A certificate for this machine, signed by itself."""
    directory.mkdir(exist_ok=True)
    command = [tool("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    files = ["-keyout", str(directory / "key.pem"), "-out", str(directory / "cert.pem")]
    subprocess.run([*command, *files, "-subj", "/CN=localhost"], check=True, capture_output=True)


@dataclass(frozen=True)
class Site:
    """Both of them, and a token."""

    server: Server
    port: int
    temporary: Path
    """Where nginx would keep what it buffers."""
    token: str

    def curl(self, *arguments: str, **options: Any) -> Answer:
        *others, path = arguments
        url = f"https://localhost:{self.port}{path}"
        return curl("-k", "-H", f"Authorization: Bearer {self.token}", *others, url, **options)

    def counted(self, name: str) -> float:
        """The metric, as Spool tells it."""
        text = curl("-H", f"Authorization: Bearer {self.token}", f"{self.server.url}/metrics").body.decode()
        found = re.search(rf"^{name} (\S+)$", text, re.MULTILINE)
        assert found
        return float(found[1])

    def buffered(self) -> list[Path]:
        return [path for path in self.temporary.rglob("*") if path.is_file() and path.name != "nginx.pid"]


@contextmanager
def serving(root: Path, port: int, upstream: str) -> Iterator[None]:
    """nginx on this port, in front of whatever is at the address; its log is `root / "nginx.log"`."""
    nginx = tool("nginx")
    certify(root / "tls")
    (root / "tmp").mkdir()
    places = {"http://spool:8080": upstream, "8443": str(port)}
    places |= {f" /{name}/": f" {root}/{name}/" for name in ("tmp", "tls", "data")}
    config = re.sub("|".join(map(re.escape, places)), lambda found: places[found[0]], CONFIG)
    user = f"user {getpass.getuser()} {grp.getgrgid(os.getgid()).gr_name};\ndaemon off;\n"
    (root / "nginx.conf").write_text((user if os.getuid() == 0 else "daemon off;\n") + config)
    command = [nginx, "-p", str(root), "-c", str(root / "nginx.conf")]
    with listening(command, port, root / "nginx.log"):
        yield


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    root, port = tmp_path_factory.mktemp("compose"), free_port()
    env = {**SPOOL["environment"], "SPOOL_SERVER_BASE_URL": f"https://localhost:{port}"}
    env["SPOOL_SERVER_TRUSTED_PROXIES"] = "127.0.0.1"
    create = [sys.executable, "-m", "spool", "token", "create", "--name", "ada", "--scope", "admin"]
    token = subprocess.check_output([*create, "--dir", str(root / "data")], text=True).strip()
    with Server(root / "data", env=env) as server, serving(root, port, server.url):
        yield Site(server, port, root / "tmp", token)


@contextmanager
def listening(
    command: list[str], port: int, log: Path, env: Mapping[str, str] | None = None, timeout: float = PATIENCE
) -> Iterator[None]:
    """The program, once it listens on this port; what it says is in `log`."""
    with log.open("wb") as file:
        running = subprocess.Popen(command, stdout=file, stderr=file, env=env)
    try:
        eventually(lambda: running.poll() is not None or listens(port), timeout)
        assert running.poll() is None, log.read_text()
        yield
    finally:
        running.send_signal(signal.SIGTERM)
        running.wait(60)


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_upload_reaches_spool_before_it_is_whole_and_no_disk_of_the_proxy(site: Site) -> None:
    fields = ("Host: localhost", f"Authorization: Bearer {site.token}", f"Content-Length: {SIZE}", "Connection: close")
    head = "\r\n".join(("PUT /files/large HTTP/1.1", *fields, "\r\n")).encode()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with context.wrap_socket(socket.create_connection(("127.0.0.1", site.port), 60)) as client:
        before = site.counted("spool_received_bytes_total")
        client.sendall(head + bytes(SIZE // 2))
        eventually(lambda: site.counted("spool_received_bytes_total") - before == SIZE // 2)
        assert site.buffered() == []
        client.sendall(bytes(SIZE - SIZE // 2))
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 201")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["url"].startswith(f"https://localhost:{site.port}/files/")


def test_bytes_of_a_file_are_sent_by_nginx(site: Site) -> None:
    stored = site.curl("-T-", "/files/a.txt", stdin=b"hello").json
    before = site.counted("spool_sent_bytes_total")
    answer = site.curl("-L", f"/files/{stored['id']}/content")
    assert (answer.status, answer.body) == (200, b"hello")
    assert answer.headers["content-security-policy"] == "sandbox; default-src 'none'"
    assert site.curl("-r", "1-2", f"/media/{stored['id']}/a.txt").body == b"el"
    assert site.counted("spool_sent_bytes_total") == before


def test_file_at_a_link_does_not_tell_its_address(site: Site) -> None:
    file = site.curl("-T-", "/files/d.txt", stdin=b"hello").json
    link = site.curl("--json", "{}", f"/files/{file['id']}/links").json["url"]
    before = site.counted("spool_sent_bytes_total")
    answer = curl("-k", link)
    assert (answer.body, answer.headers.get("referrer-policy")) == (b"hello", "no-referrer")
    assert site.counted("spool_sent_bytes_total") == before


def test_blobs_are_not_to_be_had_without_asking_spool(site: Site) -> None:
    site.curl("-T-", "/files/a.txt", stdin=b"secret")
    blob = next(site.server.dir.glob("blobs/*/*"))
    path = f"/spool-blobs/{blob.parent.name}/{blob.name}"
    assert curl("-k", f"https://localhost:{site.port}{path}").status == 404
    assert site.curl(path).status == 404


def test_request_has_one_id_in_both_logs(site: Site) -> None:
    answer = site.curl("-T-", "/files/b.txt", stdin=b"hello")
    name = answer.headers["x-request-id"]
    [event] = eventually(lambda: [e for e in site.server.events("request.finished") if e["request_id"] == name])
    assert event["client"] == "127.0.0.1"
    log = site.temporary.with_name("nginx.log")
    assert eventually(lambda: re.findall(rf"PUT /files/b.txt 201 .* {name}$", log.read_text(), re.MULTILINE))


def test_secrets_of_addresses_are_not_in_its_log(site: Site) -> None:
    log = site.temporary.with_name("nginx.log")
    file = site.curl("-T-", "/files/c.txt", stdin=b"hello").json
    link = site.curl("--json", "{}", f"/files/{file['id']}/links").json["url"]
    secret = link.rpartition("/")[2]
    for start in ("/l/", "//l/", "/L/", "/g/./", "/g/x/../", "/%6c/", "/%256c%2f", f"/d/{file['id']}/"):
        site.curl("--path-as-is", f"{start}{secret}/files?q=1")
    site.curl(f"/l/{secret}")
    eventually(lambda: "GET /l/... 200 " in log.read_text())
    shown = log.read_text()
    assert " GET /d/... 404 " in shown
    assert secret not in shown


def test_secrets_of_addresses_are_not_in_what_it_logs_of_errors(tmp_path: Path) -> None:
    port = free_port()
    with serving(tmp_path, port, f"http://127.0.0.1:{free_port()}"):
        assert curl("-k", f"https://localhost:{port}/g/swordfish").status == 502
        shown = eventually((tmp_path / "nginx.log").read_text)
    assert " GET /g/... 502 " in shown
    assert "swordfish" not in (tmp_path / "nginx.log").read_text()


def test_resumable_upload_goes_through(site: Site) -> None:
    tus = ["-H", "Tus-Resumable: 1.0.0", "-H", f"Upload-Metadata: filename {'Y' * 20_000}"]
    created = site.curl("-X", "POST", *tus, "-H", "Upload-Length: 5", "/tus")
    assert created.status == 201
    path = "/tus/" + created.headers["location"].rpartition("/")[2]
    append = ["-H", "Upload-Offset: 0", "-H", "Content-Type: application/offset+octet-stream", "--data-binary", "hello"]
    assert site.curl("-X", "PATCH", *tus[:2], *append, path).status == 204


class TestCompose:
    def test_file_is_right(self) -> None:
        command = [sys.executable, "-m", "podman_compose", "-f", str(DEPLOY / "compose.yaml"), "config"]
        env = {**os.environ, "PUBLIC_URL": "https://spool.example.org"}
        done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
        assert done.returncode == 0, done.stderr
        assert yaml.safe_load(done.stdout)["services"].keys() == {"spool", "proxy"}

    def test_configuration_of_nginx_fits_to_it(self) -> None:
        mounts = {volume.removesuffix(":ro").rpartition(":")[2] for volume in PROXY["volumes"]} | set(PROXY["tmpfs"])
        used = set(re.findall(r"[ \"](/(?!dev)\w+)/", CONFIG)) - {"/spool-blobs"}
        assert used <= mounts
        assert "http://spool:8080" in CONFIG
        assert [port.rpartition(":")[2] for port in PROXY["ports"]] == re.findall(r"listen (\d+) ssl", CONFIG)
        assert f"USER {PROXY['user']}" in (DEPLOY.parent / "Dockerfile").read_text()

    def test_spool_trusts_the_proxy_and_nobody_else_reaches_it(self) -> None:
        assert SPOOL["environment"]["SPOOL_SERVER_TRUSTED_PROXIES"] == PROXY["networks"]["inside"]["ipv4_address"]
        assert "ports" not in SPOOL

    @pytest.mark.parametrize("service", COMPOSE["services"].values(), ids=COMPOSE["services"])
    def test_containers_can_do_no_more_than_they_must(self, service: dict[str, Any]) -> None:
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]

    def test_spool_gets_the_time_that_it_needs_to_stop(self) -> None:
        assert SPOOL["stop_grace_period"] == "70s"
