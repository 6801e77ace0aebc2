"""The id of a request, over a real connection, in every line that is logged for it."""

from __future__ import annotations

import http.client
import json
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.process import Server, eventually

if TYPE_CHECKING:
    from pathlib import Path


def ask(connection: http.client.HTTPConnection, method: str, path: str, name: str | None = None) -> str | None:
    connection.request(method, path, b"hello" if method == "PUT" else None, {"X-Request-ID": name} if name else {})
    answer = connection.getresponse()
    answer.read()
    return answer.headers["X-Request-ID"]


def test_lines_of_a_request_have_its_id_and_no_other_line_has(tmp_path: Path) -> None:
    with Server(
        tmp_path / "spool", env={"SPOOL_POLICY_DENY_TYPES": "text/*", "SPOOL_STORAGE_SWEEP_INTERVAL": "1s"}
    ) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        connection.connect()  # one for all, so that an id that stayed would be seen
        names = [ask(connection, "PUT", f"/files/{number}", f"mine-{number}") for number in range(3)]
        names.append(ask(connection, "PUT", "/files/a"))
        names.append(ask(connection, "GET", "/files", "another"))
        connection.close()
        eventually(lambda: len(server.events("request.finished")) == 5)
        assert server.stop() == 0
        assert names[:3] == ["mine-0", "mine-1", "mine-2"]
        assert [event["request_id"] for event in server.events("upload.refused")] == names[:4]
        assert [event["request_id"] for event in server.events("request.finished")] == names
        others = [json.loads(line) for line in server.log().splitlines()]
        assert [e for e in others if e["event"].startswith("server.") and "request_id" in e] == []


def test_commit_that_outlives_its_client_has_the_id(tmp_path: Path) -> None:
    with Server(tmp_path / "spool") as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        ask(connection, "PUT", "/files/a", "mine")
        connection.close()
        [event] = eventually(lambda: server.events("upload.committed"))
        assert event["request_id"] == "mine"


@pytest.mark.parametrize(("setting", "lines"), [("true", 1), ("false", 0)])
def test_access_log_can_be_turned_off(tmp_path: Path, setting: str, lines: int) -> None:
    with Server(tmp_path / "spool", env={"SPOOL_LOG_ACCESS": setting}) as server:
        server.put("a", b"hello")
        assert server.stop() == 0
        assert len(server.events("upload.committed")) == 1
        assert len(server.events("request.finished")) == lines


def test_lines_of_text_have_it_too(tmp_path: Path) -> None:
    log = tmp_path / "log"
    command = [sys.executable, "-m", "spool", "serve", "--port", "0", "--dir", str(tmp_path / "spool")]
    with log.open("wb") as output, subprocess.Popen(command, stderr=output) as process:
        try:
            eventually(lambda: "server.started" in log.read_text())
            address = re.findall(r" address=http://(\S+)", log.read_text())[0]
            connection = http.client.HTTPConnection(address, timeout=60)
            assert ask(connection, "PUT", "/files/a", "mine") == "mine"
            given = ask(connection, "PUT", "/files/b")
            connection.close()
            eventually(lambda: log.read_text().count(" request.finished ") == 2)
        finally:
            process.terminate()
    lines = [line for line in log.read_text().splitlines() if "upload.committed" in line or "request.finished" in line]
    assert [line.rpartition(" request_id=")[2] for line in lines] == ["mine", "mine", given, given]
