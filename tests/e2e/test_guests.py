"""The real server and the real clients of people without an account."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from tests.process import Server, curl, eventually, lacking

try:
    from tusclient.client import TusClient
except ImportError:
    TusClient = None

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1024 * 1024


def spool(server: Server, *arguments: str, stdin: str = "") -> str:
    done = subprocess.run(
        [sys.executable, "-m", "spool", *arguments, "--dir", str(server.dir)],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout


def invited(server: Server, *arguments: str, stdin: str = "") -> str:
    """The address that guests are given, at this server."""
    printed = spool(server, "grant", "create", "--owner=ada", *arguments, stdin=stdin).strip()
    return f"{server.url}/g/{printed.partition('/g/')[2]}"


def grant_id(server: Server) -> str:
    return spool(server, "grant", "ls").splitlines()[-1].split()[0]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "clip.bin"
    path.write_bytes(bytes(range(256)) * 4096 * 3)
    return path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_curl_sends_a_form_and_a_body(server: Server, data: Path) -> None:
    url = invited(server, "--note=Hello", "--max-files=2")
    assert curl(url).json["note"] == "Hello"
    assert curl("-F", f"file=@{data}", url).status == 201
    answer = curl("-T", str(data), url + "/")
    assert (answer.status, answer.json["sha256"]) == (201, sha256(data))
    refused = curl("-T", str(data), url + "/")
    assert (refused.status, refused.json["type"]) == (403, "/problems/beyond-grant")
    assert {(f["filename"], f["owner"], f["grant"]) for f in server.files()} == {("clip.bin", "ada", grant_id(server))}
    assert curl("-X", "DELETE", answer.json["delete_url"]).status == 204
    assert len(server.files()) == 1
    assert spool(server, "ls", "--grant", grant_id(server)).count("clip.bin") == 1


def test_curl_tells_the_pass_phrase(server: Server, data: Path) -> None:
    url = invited(server, "--passphrase-file=-", stdin="open sesame\n")
    assert curl("-T", str(data), url + "/").status == 401
    assert curl("-T", str(data), "-u", "me:open sesam", url + "/").status == 401
    assert curl("-T", str(data), "-u", "me:open sesame", url + "/").status == 201
    assert curl("-F", "passphrase=open sesame", "-F", f"file=@{data}", url).status == 201


def test_tus_client_sends_a_file(server: Server, data: Path) -> None:
    if TusClient is None:
        lacking("tuspy is not installed")
    url = invited(server)
    with data.open("rb") as stream:
        settings: dict[str, Any] = {"file_stream": stream, "chunk_size": MIB, "metadata": {"filename": "clip.bin"}}
        TusClient(f"{url}/tus").uploader(**settings).upload()
    (file,) = server.files()
    assert (file["sha256"], file["filename"]) == (sha256(data), "clip.bin")


def test_link_is_resumed_by_ranges(server: Server, data: Path, tmp_path: Path) -> None:
    record = curl("-T", str(data), f"{server.url}/files/").json
    made = curl(
        "-H", "Content-Type: application/json", "-d", '{"max_downloads": 1}', f"{record['url']}/links"
    ).json  # fmt: skip
    target = tmp_path / "got"
    target.write_bytes(data.read_bytes()[:MIB])
    command = ["curl", "-sS", "-C", "-", "-o", str(target), made["url"]]
    subprocess.run(command, check=True, timeout=60)
    assert target.read_bytes() == data.read_bytes()
    assert curl(made["url"]).status == 410


@pytest.mark.parametrize("by", ["api", "command"])
def test_revocation_cuts_off_a_running_upload(server: Server, data: Path, by: str) -> None:
    url = invited(server)
    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(curl, "--limit-rate", "100k", "-T", str(data), f"{url}/")
        eventually(server.staged)
        if by == "api":
            assert curl("-X", "DELETE", f"{server.url}/grants/{grant_id(server)}").status == 204
        else:
            spool(server, "grant", "revoke", grant_id(server))
        answer = sending.result()
    assert (answer.status, answer.json["type"]) == (410, "/problems/gone")
    eventually(lambda: not server.staged())
    assert (server.files(), server.blobs()) == ([], {})


def test_revocation_cuts_off_an_upload_that_a_stopping_server_waits_for(server: Server, data: Path) -> None:
    url = invited(server)
    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(curl, "--limit-rate", "100k", "-T", str(data), f"{url}/")
        eventually(server.staged)
        os.kill(server.pid, signal.SIGTERM)
        eventually(lambda: server.events("server.draining"))
        spool(server, "grant", "revoke", grant_id(server))
        answer = sending.result()
    assert (answer.status, answer.json["type"]) == (410, "/problems/gone")
    [refused] = server.events("upload.refused")  # and not only the commit, once all had come
    assert refused["bytes"] < data.stat().st_size
    assert server.wait() == 0


def test_hundred_guests_together_pass_no_bound(server: Server) -> None:
    url = invited(server, "--max-files=15", "--max-size=1MiB")
    path = server.dir.with_name("part")
    path.write_bytes(bytes(100_000))

    def send(number: int) -> int:
        if number % 2:
            return curl("-F", f"file=@{path};filename={number}", url).status
        return curl("-T", str(path), f"{url}/{number}").status

    with ThreadPoolExecutor(25) as pool:
        statuses = list(pool.map(send, range(100)))
    assert set(statuses) <= {201, 403, 429}
    files = server.files()
    assert len(files) == statuses.count(201) <= 10
    assert sum(file["size"] for file in files) <= MIB
    assert server.events("request.failed") == []


def test_bounds_and_secrets_outlive_a_kill(server: Server, data: Path) -> None:
    url = invited(server, "--max-files=2")
    receipt = curl("-T", str(data), url + "/").json
    server.kill()
    server.start()
    url = server.url + "/g/" + url.partition("/g/")[2]
    assert curl(url).json["files_left"] == 1
    assert curl("-T", str(data), url + "/").status == 201
    assert curl("-T", str(data), url + "/").status == 403
    assert curl("-X", "POST", server.url + "/d/" + receipt["delete_url"].partition("/d/")[2]).status == 204


def test_files_in_the_index_come_and_go_in_the_same_way(tmp_path: Path) -> None:
    with Server(tmp_path / "spool", env={"SPOOL_STORAGE_INLINE_MAX": "64 KiB"}) as server:
        url = invited(server, "--max-files=1")
        receipt = curl("-F", "file=@-;filename=small", url, stdin=b"small").json["files"][0]
        assert (server.blobs(), server.files()[0]["grant"]) == ({}, grant_id(server))
        made = curl(
            "-d", '{"max_downloads": 1}', "-H", "Content-Type: application/json", server.files()[0]["url"] + "/links"
        )
        assert [curl("-r", span, made.json["url"]).body for span in ("1-", "0-0")] == [b"mall", b"s"]
        assert [curl(made.json["url"]).status, curl("-T", "-", url + "/x", stdin=b"more").status] == [410, 403]
        assert curl("-X", "DELETE", receipt["delete_url"]).status == 204
        assert server.files() == []


def test_backup_keeps_grants_and_links(server: Server, data: Path, tmp_path: Path) -> None:
    url = invited(server)
    record = curl("-T", str(data), f"{server.url}/files/").json
    link = curl("-H", "Content-Type: application/json", "-d", "{}", f"{record['url']}/links").json["url"]
    assert curl("-T", str(data), url + "/").status == 201
    spool(server, "backup", str(tmp_path / "copy"))
    assert "0 findings" in spool(server, "fsck", "--deep")
    with Server(tmp_path / "copy") as copy:
        assert curl(copy.url + "/l/" + link.partition("/l/")[2]).body == data.read_bytes()
        assert curl("-T", str(data), copy.url + "/g/" + url.partition("/g/")[2] + "/").status == 201
        assert len(copy.files()) == 3
