"""What doc/operate.md puts into nginx and into Spool works as it stands, with the certificate of doc/howto.md."""

from __future__ import annotations

import getpass
import grp
import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Final

import pytest

from tests.client.command import Home, finished
from tests.e2e.test_accel import DATA, START_TIMEOUT, find_nginx, new_token
from tests.e2e.test_proxy import listening
from tests.process import Answer, Server, curl, free_port, lacking
from tests.test_docs import OPERATE, ROOT, fences

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

AROUND: Final = """\
{user}
worker_processes 1;
daemon off;
pid {dir}/nginx.pid;
error_log {dir}/error.log;
events {{}}
http {{
access_log off;
client_body_temp_path {dir}/body;
proxy_temp_path {dir}/proxy;
fastcgi_temp_path {dir}/fastcgi;
uwsgi_temp_path {dir}/uwsgi;
scgi_temp_path {dir}/scgi;
{server}
}}
"""


def issue(directory: Path) -> None:
    """Runs the command by which an operator issues a certificate to themselves."""
    [block] = [block for block in fences((ROOT / "doc/howto.md").read_text(), "sh") if block.startswith("openssl")]
    if shutil.which("openssl") is None:
        lacking("openssl is not installed")
    command = block[: block.index("curl")]
    subprocess.run(["sh", "-c", command], cwd=directory, capture_output=True, timeout=60, check=True)


class Site:
    """Spool behind nginx, both as the document has them."""

    def __init__(self, directory: Path, toml: str) -> None:
        self.port = free_port()
        self.url = f"https://localhost:{self.port}"
        self.trusted = directory / "fullchain.pem"
        (directory / "spool.toml").write_text(toml.replace("https://spool.example.org", self.url))
        self.server = Server(directory / "spool", "--config", str(directory / "spool.toml"))
        self.token = ""

    def curl(self, *arguments: str) -> Answer:
        *options, path = arguments
        return curl(
            "--cacert", str(self.trusted), "-H", f"Authorization: Bearer {self.token}", *options, self.url + path
        )


@pytest.fixture(params=["by Spool", "by nginx"])
def site(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Site]:
    """Who sends the bytes is the parameter."""
    nginx = find_nginx()
    [block] = fences(OPERATE, "nginx")
    toml = next(block for block in fences(OPERATE, "toml") if "trusted_proxies" in block)  # before that for Caddy
    if request.param == "by nginx":
        toml = toml.replace("# accel", "accel")
    issue(tmp_path)
    running = Site(tmp_path, toml)
    with running.server as server:
        running.token = new_token(server)
        changes = {
            "listen 443 ssl": f"listen 127.0.0.1:{running.port} ssl",
            "http://127.0.0.1:8080": server.url,
            "/srv/spool/": f"{server.dir}/",
            "/etc/nginx/": f"{tmp_path}/",
        }
        for before, after in changes.items():
            assert before in block
            block = block.replace(before, after)
        group = grp.getgrgid(os.getgid()).gr_name
        user = f"user {getpass.getuser()} {group};"  # who may write what it buffers to a directory of ours
        config = tmp_path / "nginx.conf"
        config.write_text(AROUND.format(user=user, dir=tmp_path, server=block))
        command = [nginx, "-p", str(tmp_path), "-c", str(config)]
        with listening(command, running.port, tmp_path / "nginx.log", timeout=START_TIMEOUT):
            yield running


def test_file_goes_in_and_comes_out(site: Site, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(DATA)
    record = site.curl("-T", str(tmp_path / "a.png"), "/files/").json
    assert record["content_url"].startswith(f"{site.url}/files/")
    assert site.curl("-L", f"/files/{record['id']}/content").body == DATA


def test_client_of_the_draft_that_asks_for_interim_responses_is_served(site: Site, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(DATA)
    draft = ("-H", "Upload-Draft-Interop-Version: 8", "-H", "Upload-Complete: ?1", "-H", "Content-Type: image/png")
    assert site.curl(*draft, "--data-binary", f"@{tmp_path}/a.png", "/files").json["size"] == len(DATA)


def test_put_and_get_trust_the_certificate_by_the_variable(site: Site, tmp_path: Path) -> None:
    home = Home(tmp_path / "home", SPOOL_URL=site.url, SPOOL_TOKEN=site.token, SSL_CERT_FILE=str(site.trusted))
    (home.directory / "a.png").write_bytes(DATA)
    put = finished(home.start("put", "a.png"))
    assert put.code == 0, put.err
    get = finished(home.start("get", put.out.split()[0], "-o", "b.png"))
    assert get.code == 0, get.err
    assert (home.directory / "b.png").read_bytes() == DATA
