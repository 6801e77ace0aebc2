"""deploy/compose.yaml, run: what it promises of uploads, downloads, logs and restarts."""

from __future__ import annotations

import hashlib
import json
import re
import ssl
import subprocess
import threading
from typing import TYPE_CHECKING, Any

import pytest

from tests.container.compose import RECOVERY_TIMEOUT, Composition
from tests.container.podman import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.container.podman import Podman

MIB = 1024 * 1024
LARGE = 1024 * MIB
BUFFERED = MIB
"""Far less than any upload that nginx would keep, and more than the pages of a directory."""
UPLOAD_TIMEOUT = 400.0
ASK = """
import http.client, json, ssl
context = ssl._create_unverified_context()
proxy = http.client.HTTPSConnection("proxy", 8443, timeout=30, context=context)
proxy.request("GET", "/files", headers={"X-Forwarded-For": "192.0.2.7"})
print(json.dumps([proxy.sock.getsockname()[0], proxy.getresponse().headers["X-Request-ID"]]))
"""


@pytest.fixture(scope="module")
def site(podman: Podman, image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Composition]:
    with Composition(podman, image, tmp_path_factory.mktemp("compose")) as running:
        yield running


@pytest.fixture(scope="module")
def large(on_disk: Path) -> Iterator[Path]:
    """1 GiB of which no two pieces are alike."""
    path = on_disk / "large.bin"
    with path.open("wb") as file:
        for number in range(LARGE // MIB):
            file.write(number.to_bytes(8, "big") * (MIB // 8))
    yield path
    path.unlink()


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def counted(site: Composition, name: str) -> float:
    found = re.search(rf"^{name} (\S+)$", site.curl("/metrics").body.decode(), re.MULTILINE)
    assert found
    return float(found[1])


def events(site: Composition, name: str) -> list[dict[str, Any]]:
    lines = (json.loads(line) for line in site.log("spool").splitlines() if line.startswith("{"))
    return [line for line in lines if line["event"] == name]


def test_large_file_goes_through_both_ways_and_no_disk_of_the_proxy(
    site: Composition, large: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    most, over = [site.temporary()], threading.Event()

    def watch() -> None:
        while not over.is_set():
            most.append(site.temporary())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        answer = site.curl("/files/", "-T", str(large), timeout=UPLOAD_TIMEOUT)
    finally:
        over.set()
        watcher.join()
    assert answer.status == 201, (answer, site.log("spool"))
    expected = sha256(large)
    assert answer.json["sha256"] == expected

    sent = counted(site, "spool_sent_bytes_total")
    path = f"/media/{answer.json['id']}/large.bin"
    command = ["curl", "-sSk", "--max-time", str(UPLOAD_TIMEOUT), "-H", f"Authorization: Bearer {site.token}"]
    with subprocess.Popen([*command, site.url + path], stdout=subprocess.PIPE) as download:
        assert download.stdout
        assert hashlib.file_digest(download.stdout, "sha256").hexdigest() == expected  # type: ignore[arg-type]
    most.append(site.temporary())
    part = site.curl(path, "-r", f"{LARGE - 3 * MIB - 4}-{LARGE - 1}")
    with large.open("rb") as file:
        file.seek(LARGE - 3 * MIB - 4)
        assert (part.status, part.body == file.read()) == (206, True)
    assert part.headers["content-range"] == f"bytes {LARGE - 3 * MIB - 4}-{LARGE - 1}/{LARGE}"
    assert counted(site, "spool_sent_bytes_total") == sent

    with capsys.disabled():
        print(f"\nthe proxy's temporary files: {max(most)} bytes at most, in {len(most)} looks")  # noqa: T201
    assert len(most) > 5
    assert max(most) < BUFFERED
    size = site.podman.run("inspect", "--size", "--format", "{{.SizeRw}}", site.container("proxy"))
    assert int(size) < BUFFERED


def test_client_in_the_logs_is_the_proxys_client_and_not_what_it_says(site: Composition, image: str) -> None:
    where = ("--network", f"{site.project}_inside", "--entrypoint", "python")
    address, request = json.loads(site.podman.run("run", "--rm", *where, image, "-c", ASK))
    wait_until(lambda: request in site.log("spool"), 60, lambda: site.log("spool"))
    [event] = [event for event in events(site, "request.finished") if event["request_id"] == request]
    assert event["client"] == address
    [line] = [line for line in site.log("proxy").splitlines() if line.endswith(request)]
    assert line.split()[:4] == [address, "GET", "/files", "401"]


def test_token_that_was_made_first_is_the_only_one_and_in_no_log(site: Composition) -> None:
    assert re.fullmatch(r"spool_[\w-]{43}", site.token)
    assert site.execute("spool", "spool", "token", "ls").count("\n") == 1
    assert "spool_" not in site.log("spool") + site.log("proxy")


def test_blobs_are_not_to_be_had_without_asking_spool(site: Composition) -> None:
    site.curl("/files/a.txt", "-T-", stdin=b"secret")
    blob = site.execute("spool", "find", "/data/blobs", "-type", "f", "-printf", "%P\n").split()[0]
    assert site.curl(f"/spool-blobs/{blob}").status == 404


def test_renewed_certificate_is_shown_after_a_signal(site: Composition) -> None:
    def shown() -> str:
        return ssl.get_server_certificate(("127.0.0.1", site.port))

    before = shown()
    site.certify()
    assert shown() == before
    site.compose("kill", "--signal", "HUP", "proxy")
    wait_until(lambda: shown() != before, 60, lambda: site.log("proxy"))


def test_spool_that_was_restarted_is_found_again_with_its_files(site: Composition) -> None:
    stored = site.curl("/files/a.txt", "-T-", stdin=b"hello").json
    site.podman.run("restart", "--time", "20", site.container("spool"))
    site.wait_until_ready(RECOVERY_TIMEOUT)
    assert site.curl(f"/media/{stored['id']}/a.txt").body == b"hello"
