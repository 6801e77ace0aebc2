"""The real server as a process, and the real curl."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

START_TIMEOUT = 20.0
STOP_TIMEOUT = 40.0


class Server:
    """`python -m spool serve` on a free port of the loopback interface, logging JSON to a file."""

    def __init__(self, directory: Path, *arguments: str, env: Mapping[str, str] | None = None) -> None:
        self.dir = directory
        self.log_path = directory.with_name(directory.name + ".log")
        self._arguments = arguments
        self._env = {**os.environ, "SPOOL_LOG_FORMAT": "json", "SPOOL_SERVER_PORT": "0", **(env or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""

    def start(self) -> Self:
        start = self.log_path.stat().st_size if self.log_path.exists() else 0
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "spool", "serve", "--dir", str(self.dir), *self._arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._env,
            )
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            match = re.search(r'"server.started".*?"address": "([^"]+)"', self.log_path.read_text()[start:])
            if match:
                self.url = match[1]
                return self
            if self._process.poll() is not None:
                break
            time.sleep(0.02)
        raise AssertionError(f"the server did not start:\n{self.log_path.read_text()[start:]}")

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def terminate(self) -> None:
        """SIGTERM, without waiting."""
        os.kill(self.pid, signal.SIGTERM)

    def wait(self, timeout: float = STOP_TIMEOUT) -> int:
        assert self._process is not None
        return self._process.wait(timeout)

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        self.terminate()
        return self.wait()

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(10)

    def restart(self) -> Self:
        if self.running:
            self.stop()
        return self.start()

    def log(self) -> str:
        return self.log_path.read_text()

    def events(self, name: str) -> list[dict[str, Any]]:
        lines = (json.loads(line) for line in self.log().splitlines() if line.startswith("{"))
        return [line for line in lines if line["event"] == name]

    def rss(self) -> int:
        """The most memory the process has had resident, in bytes."""
        with open(f"/proc/{self.pid}/status", encoding="ascii") as status:  # noqa: PTH123
            match = re.search(r"VmHWM:\s+(\d+) kB", status.read())
        assert match
        return int(match[1]) * 1024

    def get(self, path: str, **headers: str) -> Any:
        """The JSON at `path`."""
        request = urllib.request.Request(self.url + path, headers=headers)
        with urllib.request.urlopen(request, timeout=30) as response:
            return json.load(response)

    def files(self) -> list[dict[str, Any]]:
        """Every file that is listed."""
        found, cursor = [], ""
        while True:
            page = self.get(f"/files?limit=1000{cursor}")
            found += page["files"]
            if page["next"] is None:
                return found
            cursor = f"&cursor={page['next']}"

    def blobs(self) -> dict[str, int]:
        """Every file in the blobs' and staging directories by name, with its size."""
        paths = [*self.dir.glob("blobs/*/*"), *self.dir.glob("incoming/*")]
        return {path.name: path.stat().st_size for path in paths}

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        if self.running:
            self.kill()


@dataclass(frozen=True)
class Answer:
    """What curl printed."""

    status: int
    headers: dict[str, str]
    body: bytes
    stderr: str
    code: int

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def curl(*arguments: str, stdin: bytes | None = None, timeout: float = 60) -> Answer:
    """Runs the real curl; its last response's head and body."""
    command = ["curl", "-sS", "-i", "--max-time", str(timeout), *arguments]
    done = subprocess.run(command, input=stdin or b"", capture_output=True, timeout=timeout + 5, check=False)
    head, body = b"", done.stdout
    while body.startswith(b"HTTP/"):  # interim responses and redirects come first
        head, _, body = body.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    status = int(lines[0].split()[1]) if head else 0
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    return Answer(status, headers, body, done.stderr.decode(), done.returncode)
