"""The image as an operator runs it: read-only, without capabilities, in 256 MiB."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.container.podman import HARDENED, STOP_GRACE, wait_until
from tests.process import curl

if TYPE_CHECKING:
    from pathlib import Path

    from tests.container.podman import Container, Podman

MIB = 1024 * 1024


@pytest.fixture
def token(container: Container) -> str:
    return container.tokens()[0]


def make_file(path: Path, size: int) -> bytes:
    content = os.urandom(size)
    path.write_bytes(content)
    return content


def test_first_start_on_every_address_prints_one_admin_token(container: Container) -> None:
    assert len(container.tokens()) == 1
    refused = curl(f"{container.url}/files")
    assert refused.status == 401
    assert "www-authenticate" in refused.headers
    assert container.ask("/files", token=container.tokens()[0]).json == {"files": [], "next": None}

    container.restart()
    assert len(container.tokens()) == 1


def test_upload_outlives_a_restart_a_stop_and_the_container(container: Container, token: str, tmp_path: Path) -> None:
    content = make_file(tmp_path / "song.bin", 3 * MIB + 17)
    answer = container.ask("/files", "-F", f"file=@{tmp_path / 'song.bin'}", token=token)
    assert answer.status == 201, answer
    (record,) = answer.json["files"]
    assert record["sha256"] == hashlib.sha256(content).hexdigest()

    def is_there() -> None:
        assert [file["id"] for file in container.ask("/files", token=token).json["files"]] == [record["id"]]
        assert container.ask(f"/files/{record['id']}/content", "-L", token=token).body == content

    is_there()
    container.restart()
    is_there()
    container.stop()
    container.start()
    is_there()
    container.stop()
    container.remove()
    container.create()
    is_there()
    assert container.tokens() == []


def test_upload_larger_than_the_memory_is_stored(container: Container, token: str, tmp_path: Path) -> None:
    large = tmp_path / "large.bin"
    with large.open("wb") as file:
        file.truncate(320 * MIB)
        file.write(b"begin")
    with large.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()

    answer = container.ask("/files/", "-T", str(large), token=token)
    assert answer.status == 201, (answer, container.log())
    assert answer.json["sha256"] == sha256

    back = tmp_path / "back.bin"
    container.ask(f"/files/{answer.json['id']}/content", "-L", "-o", str(back), "--no-include", token=token)
    with back.open("rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == sha256
    assert container.inspect("{{.State.OOMKilled}}") == "false"


def test_stop_lets_an_upload_in_flight_finish(container: Container, token: str, tmp_path: Path) -> None:
    content = make_file(tmp_path / "slow.bin", 8 * MIB)
    trace = tmp_path / "trace"
    with trace.open("wb") as log:
        upload = subprocess.Popen(
            [
                *("curl", "-v", "--limit-rate", "1M", "--max-time", "60", "-w", "%{http_code}", "-o", os.devnull),
                *("-H", f"Authorization: Bearer {token}", "-H", "Expect: 100-continue"),
                *("-F", f"file=@{tmp_path / 'slow.bin'}", f"{container.url}/files"),
            ],
            stdout=subprocess.PIPE,
            stderr=log,
        )
    with upload:
        wait_until(lambda: b"< HTTP/1.1 100" in trace.read_bytes(), 60, trace.read_text)
        container.stop()
        assert upload.communicate(timeout=STOP_GRACE)[0] == b"201", (trace.read_text(), container.log())
    assert container.inspect("{{.State.ExitCode}}") == "0", container.log()
    events = re.findall(r"server\.draining|upload\.committed|server\.stopped", container.log())
    assert events == ["server.draining", "upload.committed", "server.stopped"]

    container.start()
    (record,) = container.ask("/files", token=token).json["files"]
    assert record["sha256"] == hashlib.sha256(content).hexdigest()


def test_health_check_follows_the_server(container: Container, podman: Podman, image: str) -> None:
    assert podman.try_run("healthcheck", "run", container.name).returncode == 0
    idle = f"{container.name}-idle"
    podman.run("run", "--detach", "--name", idle, "--entrypoint", "sleep", image, "60")
    try:
        assert podman.try_run("healthcheck", "run", idle).returncode == 1
    finally:
        podman.try_run("rm", "--force", "--time", "0", "--volumes", idle)


def test_process_has_no_privileges(container: Container) -> None:
    lines = container.execute("cat", "/proc/1/status").splitlines()
    status = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
    assert status["Uid"] == ["10001"] * 4
    assert status["Gid"] == ["10001"] * 4
    assert status["NoNewPrivs"] == ["1"]
    assert {int(status[name][0], 16) for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}


def test_data_is_readable_by_its_owner_alone(container: Container, token: str, tmp_path: Path) -> None:
    make_file(tmp_path / "secret.bin", 1000)
    assert container.ask("/files", "-F", f"file=@{tmp_path / 'secret.bin'}", token=token).status == 201
    found = [
        line.split(maxsplit=4)
        for line in container.execute("find", "/data", "-printf", "%y %m %U %s %p\n").splitlines()
    ]
    assert {tuple(row[:3]) for row in found} == {("d", "700", "10001"), ("f", "600", "10001")}
    assert any(row[3] == "1000" for row in found), found


def test_commands_in_the_container_find_the_data(container: Container, token: str, tmp_path: Path) -> None:
    make_file(tmp_path / "one.bin", 10)
    assert container.ask("/files", "-F", f"file=@{tmp_path / 'one.bin'}", token=token).status == 201
    assert "one.bin" in container.execute("spool", "ls")


def test_image_holds_no_build_tools_and_nothing_of_the_machine_that_built_it(podman: Podman, image: str) -> None:
    look = (
        "command -v gcc cc make; find / -xdev -name pip.conf -o -xdev -path '*/.cache/pip' -o -xdev -path /build; true"
    )
    found = podman.run("run", "--rm", "--user", "0", "--entrypoint", "sh", *HARDENED[:2], image, "-c", look)
    assert found.splitlines() == []
    assert "PIP_" not in podman.run("image", "inspect", "--format", "{{.Config.Env}}", image)
