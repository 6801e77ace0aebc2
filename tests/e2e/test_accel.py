"""The real nginx in front of the real server: Spool decides, nginx sends the bytes."""

from __future__ import annotations

import getpass
import grp
import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from string import Template
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.e2e.test_proxy import listening
from tests.process import Answer, Server, curl, eventually, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

START_TIMEOUT: Final = 10.0
PNG: Final = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x06\x00\x00\x00\x1f\x15\xc4\x89"
DATA: Final = PNG + bytes(range(256)) * 20_000
"""Five megabytes: more than nginx takes into a buffer."""

CONFIG: Final = Template(r"""
user $user $group;
worker_processes 1;
daemon off;
pid $dir/nginx.pid;
error_log $dir/error.log;
events {}
http {
    access_log off;
    client_body_temp_path $dir/body;
    proxy_temp_path $dir/proxy;
    fastcgi_temp_path $dir/fastcgi;
    uwsgi_temp_path $dir/uwsgi;
    scgi_temp_path $dir/scgi;
    client_max_body_size 0;
    server {
        listen 127.0.0.1:$port;
        location / {
            proxy_pass $upstream;
            proxy_http_version 1.1;
            proxy_request_buffering off;
            proxy_set_header X-Forwarded-For $$proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto https;
            proxy_set_header X-Forwarded-Host $$http_host;
        }
        location /spool-blobs/ {
            internal;
            alias $blobs/;
            etag off;
            # of what Spool says nginx keeps only type, disposition and caching: the rest is passed on by name
            add_header ETag $$upstream_http_etag;
            add_header Last-Modified $$upstream_http_last_modified;
            add_header Repr-Digest $$upstream_http_repr_digest;
            add_header Content-Security-Policy $$upstream_http_content_security_policy always;
            add_header X-Content-Type-Options $$upstream_http_x_content_type_options always;
            add_header Cross-Origin-Resource-Policy $$upstream_http_cross_origin_resource_policy always;
            add_header X-Request-ID $$upstream_http_x_request_id always;
        }
    }
}
""")


@dataclass(frozen=True)
class Site:
    server: Server
    url: str
    """Of nginx."""
    token: str

    def curl(self, *arguments: str) -> Answer:
        *options, path = arguments
        return curl("-H", f"Authorization: Bearer {self.token}", *options, self.url + path)

    def finished(self, answer: Answer) -> dict[str, Any]:
        """What Spool logged of the request that was answered so."""
        name = answer.headers["x-request-id"]

        def found() -> list[dict[str, Any]]:
            return [event for event in self.server.events("request.finished") if event["request_id"] == name]

        return eventually(found)[0]


def find_nginx() -> str:
    path = shutil.which("nginx", path=os.environ.get("PATH", "") + os.pathsep + "/usr/sbin")
    if path is not None:
        return path
    if os.environ.get("SPOOL_TEST_REQUIRE_ALL") == "1":
        pytest.fail("nginx is not installed")
    pytest.skip("nginx is not installed")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    nginx = find_nginx()
    root = tmp_path_factory.mktemp("accel")
    env = {"SPOOL_SERVER_ACCEL": "x-accel-redirect", "SPOOL_SERVER_TRUSTED_PROXIES": "127.0.0.1"}
    with Server(root / "spool", env=env) as server:
        port, directory = free_port(), root / "nginx"
        directory.mkdir()
        config = CONFIG.substitute(
            user=getpass.getuser(),
            group=grp.getgrgid(os.getgid()).gr_name,
            dir=directory,
            port=port,
            upstream=server.url,
            blobs=server.dir / "blobs",
        )
        (directory / "nginx.conf").write_text(config)
        command = [nginx, "-p", str(directory), "-c", str(directory / "nginx.conf")]
        with listening(command, port, directory / "error.log", timeout=START_TIMEOUT):
            yield Site(server, f"http://127.0.0.1:{port}", new_token(server))


def new_token(server: Server) -> str:
    command = [
        sys.executable,
        "-m",
        "spool",
        "token",
        "create",
        "--dir",
        str(server.dir),
        "--name=ada",
        "--scope=admin",
    ]
    output = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    return next(word for word in output.split() if word.startswith("spool_"))


@pytest.fixture(scope="module")
def record(site: Site, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A file that was uploaded through nginx."""
    path = tmp_path_factory.mktemp("data") / "żółw.png"
    path.write_bytes(DATA)
    answer = site.curl("-F", f"file=@{path}", "/files")
    assert answer.status == 201, answer
    (record,) = answer.json["files"]
    assert isinstance(record, dict)
    return record


def media(record: dict[str, Any]) -> str:
    return f"/media/{record['id']}/x.png"


def test_upload_through_the_proxy_arrives_whole(record: dict[str, Any]) -> None:
    assert (record["size"], record["sha256"]) == (len(DATA), hashlib.sha256(DATA).hexdigest())


def test_download_is_the_same_bytes(site: Site, record: dict[str, Any]) -> None:
    answer = site.curl(media(record))
    assert (answer.status, answer.body == DATA) == (200, True)
    assert answer.headers["server"].startswith("nginx")


def test_spool_itself_sends_no_body(site: Site, record: dict[str, Any]) -> None:
    direct = curl("-H", f"Authorization: Bearer {site.token}", site.server.url + media(record))
    assert (direct.status, direct.body) == (200, b"")
    assert direct.headers["x-accel-redirect"].startswith("/spool-blobs/")
    proxied = site.curl(media(record))
    assert len(proxied.body) == len(DATA)
    assert "x-accel-redirect" not in proxied.headers
    assert site.finished(proxied)["bytes"] < 1024


@pytest.mark.parametrize(
    ("value", "start", "end"),
    [("0-0", 0, 0), ("1000000-1999999", 1_000_000, 1_999_999), ("-10", len(DATA) - 10, len(DATA) - 1)],
)
def test_range_is_the_same_bytes(site: Site, record: dict[str, Any], value: str, start: int, end: int) -> None:
    answer = site.curl("-r", value, media(record))
    assert (answer.status, answer.body == DATA[start : end + 1]) == (206, True)
    assert answer.headers["content-range"] == f"bytes {start}-{end}/{len(DATA)}"


@pytest.mark.parametrize("options", [[], ["-r", "0-9"], ["-r", "0-9,20-29"], ["-r", "99999999-"]])
def test_content_is_fenced_in(site: Site, record: dict[str, Any], options: list[str]) -> None:
    headers = site.curl(*options, media(record)).headers
    assert headers["content-disposition"] == "inline; filename=\"___w.png\"; filename*=UTF-8''%C5%BC%C3%B3%C5%82w.png"
    assert headers["content-security-policy"] == "sandbox; default-src 'none'"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cross-origin-resource-policy"] == "same-origin"


@pytest.fixture(scope="module")
def page(site: Site, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A file that is to attack whoever opens it."""
    path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_bytes(b"<!DOCTYPE html><script>alert(1)</script>" * 1000)
    answer = site.curl("-F", f"file=@{path};type=image/png;filename=x.png", "/files")
    assert answer.status == 201, answer
    (record,) = answer.json["files"]
    assert isinstance(record, dict)
    return record


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ([], 200),
        (["-I"], 200),
        (["-r", "0-9"], 206),
        (["-r", "0-9,20-29"], 206),
        (["-H", "If-None-Match: *"], 304),
        (["-H", "If-Modified-Since: Fri, 31 Dec 2100 00:00:00 GMT"], 304),
    ],
)
def test_page_of_a_stranger_is_fenced_in(site: Site, page: dict[str, Any], options: list[str], status: int) -> None:
    answer = site.curl(*options, media(page))
    assert answer.status == status
    assert answer.headers["content-disposition"] == 'attachment; filename="x.png"'
    assert answer.headers["content-security-policy"] == "sandbox; default-src 'none'"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    if status == 200:
        assert answer.headers["content-type"] == "text/html"
    assert "x-accel-redirect" not in answer.headers


def test_validators_are_those_of_spool(site: Site, record: dict[str, Any]) -> None:
    headers = site.curl(media(record)).headers
    assert headers["content-type"] == "image/png"
    assert headers["etag"] == f'"{record["sha256"]}"'
    assert headers["repr-digest"].startswith("sha-256=:")
    assert headers["cache-control"] == "private, no-cache"


def test_resumed_download_mixes_no_two_files(site: Site, record: dict[str, Any]) -> None:
    for tag, status in ((f'"{record["sha256"]}"', 206), ('"other"', 200)):
        answer = site.curl("-r", "10-", "-H", f"If-Range: {tag}", media(record))
        assert (answer.status, answer.body == (DATA[10:] if status == 206 else DATA)) == (status, True)


def test_unchanged_file_is_not_sent_again(site: Site, record: dict[str, Any]) -> None:
    answer = site.curl("-H", f'If-None-Match: "{record["sha256"]}"', media(record))
    assert (answer.status, answer.body) == (304, b"")


def test_blob_is_not_served_without_being_asked_for_by_spool(site: Site, record: dict[str, Any]) -> None:
    assert record["size"]
    blob, *_ = (site.server.dir / "blobs").glob("*/*")
    assert site.curl(f"/spool-blobs/{blob.parent.name}/{blob.name}").status == 404
    assert site.curl(f"/spool-blobs/../spool-blobs/{blob.parent.name}/{blob.name}").status == 404


def test_download_without_a_token_is_refused(site: Site, record: dict[str, Any]) -> None:
    answer = curl(site.url + media(record))
    assert answer.status == 401
    assert answer.json["type"] == "/problems/unauthenticated"


def test_proxy_is_believed_where_the_client_came_from(site: Site, record: dict[str, Any]) -> None:
    assert record["url"] == f"https://{site.url.partition('//')[2]}/files/{record['id']}"
    answer = site.curl("-H", "X-Forwarded-For: 203.0.113.9", media(record))
    assert site.finished(answer)["client"] == "203.0.113.9"
