"""The real server as a process, and the real curl."""

from __future__ import annotations

import http.client
import json
import os
import re
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Self, TypeVar

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

T = TypeVar("T")

EFFORT = int(os.environ.get("SPOOL_TEST_EFFORT", "1"))
"""How many times as many faults as usual the tests are to inject."""
PATIENCE = 60.0
"""Seconds that a test waits for what must come at once: a machine that has others to serve may take its time."""
START_TIMEOUT = 60.0
STOP_TIMEOUT = 90.0


class Server:
    """`python -m spool serve` on a free port of the loopback interface, logging JSON to a file."""

    def __init__(
        self, directory: Path, *arguments: str, env: Mapping[str, str] | None = None, prefix: Sequence[str] = ()
    ) -> None:
        """`prefix` is a command that runs the server's."""
        self.dir = directory
        self.log_path = directory.with_name(directory.name + ".log")
        self._prefix = prefix
        self._arguments = arguments
        self._env = {**os.environ, "SPOOL_LOG_FORMAT": "json", "SPOOL_SERVER_PORT": "0", **(env or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""

    def spawn(self) -> Self:
        """Starts it, without waiting until it serves."""
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._prefix, sys.executable, "-m", "spool", "serve", "--dir", str(self.dir), *self._arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._env,
            )
        return self

    def start(self) -> Self:
        start = self.log_path.stat().st_size if self.log_path.exists() else 0
        self.spawn()
        assert self._process is not None
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

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def stopped(self) -> bool:
        """Whether SIGSTOP has come through to the thread that answers, also where somebody traces it."""
        return "\nstate:\tt" in Path(f"/proc/{self.pid}/status").read_text("ascii").lower()

    def terminate(self) -> None:
        """SIGTERM, without waiting."""
        self.signal(signal.SIGTERM)

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
        self._process.wait(PATIENCE)

    def restart(self) -> Self:
        if self.running:
            self.stop()
        return self.start()

    def log(self) -> str:
        return self.log_path.read_text()

    def events(self, name: str) -> list[dict[str, Any]]:
        whole = self.log().rpartition("\n")[0]  # the last line may be written just now
        lines = (json.loads(line) for line in whole.splitlines() if line.startswith("{"))
        return [line for line in lines if line["event"] == name]

    def rss(self) -> int:
        """The most memory the process has had resident, in bytes."""
        return self._memory("VmHWM")

    def resident(self) -> int:
        """The memory that the process has resident now, in bytes."""
        return self._memory("VmRSS")

    def _memory(self, name: str) -> int:
        match = re.search(rf"{name}:\s+(\d+) kB", Path(f"/proc/{self.pid}/status").read_text("ascii"))
        assert match
        return int(match[1]) * 1024

    def workers(self) -> list[int]:
        """The processes that answer requests, if there are several."""
        found: list[str] = []
        for task in Path(f"/proc/{self.pid}/task").iterdir():
            with suppress(FileNotFoundError):
                found += (task / "children").read_text("ascii").split()
        return [int(pid) for pid in found]

    def descriptors(self) -> list[str]:
        """What the process has open, and its workers."""
        return [target for pid in (self.pid, *self.workers()) for target in descriptors(pid)]

    def has_read(self, client: socket.socket) -> bool:
        """Whether nothing that this client sent still waits to be read."""
        ends = f"0100007F:{self.port:04X} 0100007F:{client.getsockname()[1]:04X}"
        match = re.search(rf"{ends} \w\w \w+:(\w+)", Path("/proc/net/tcp").read_text("ascii"))
        return match is not None and int(match[1], 16) == 0

    def staged(self) -> int:
        """How many uploads are being written, with a name or without."""
        return sum("/incoming/" in target for target in self.descriptors())

    def get(self, path: str, **headers: str) -> Any:
        """The JSON at `path`."""
        request = urllib.request.Request(self.url + path, headers=headers)
        trust = ssl.create_default_context() if self.url.startswith("https:") else None  # else urllib keeps the first
        with urllib.request.urlopen(request, timeout=PATIENCE, context=trust) as response:
            return json.load(response)

    def put(self, name: str, data: bytes, over: socket.socket | None = None) -> dict[str, Any]:
        """The record of a file that was stored, over this connection or one of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        connection.sock = over
        connection.request("PUT", f"/files/{name}", data)
        answer = connection.getresponse()
        record: dict[str, Any] = json.load(answer)
        assert answer.status == 201, record
        if over is None:
            connection.close()
        return record

    def delete_all(self) -> None:
        """No file is listed any more."""
        for file in self.files():
            assert curl("-X", "DELETE", file["url"]).status == 204

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
        found = {}
        for directory in (*self.dir.glob("blobs/*"), self.dir / "incoming"):
            with suppress(FileNotFoundError):
                for entry in os.scandir(directory):
                    with suppress(FileNotFoundError):
                        found[entry.name] = entry.stat().st_size
        return found

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        if self.running:
            self.kill()


def descriptors(pid: int) -> list[str]:
    """What this process has open; nothing if it is gone."""
    found, directory = [], f"/proc/{pid}/fd/"
    with suppress(FileNotFoundError):
        for name in os.listdir(directory):  # noqa: PTH208  # some look hundreds of times, and a server has hundreds
            with suppress(FileNotFoundError):
                found.append(os.readlink(directory + name))  # noqa: PTH115  # the same
    return found


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


def eventually(condition: Callable[[], T], timeout: float = PATIENCE) -> T:
    """The first true value that `condition` gives."""
    start = time.monotonic()
    while not (value := condition()):
        waited = time.monotonic() - start
        assert waited < timeout, f"did not happen within {timeout:g} seconds, last seen was {value!r}"
        time.sleep(min(0.002 + waited / 20, 0.05))  # to look may cost both processors some time
    return value


def free_port() -> int:
    """A port that nobody listens on, and that stays free: it is one of those that the system gives no client."""
    lowest, highest = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text("ascii").split())
    ports = [*range(10_000, lowest), *range(highest + 1, 65_536)]
    for _ in range(1000):
        port = secrets.choice(ports)  # another run may ask at the same time
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError("no port is free")


def lacking(what: str) -> NoReturn:
    """Skips the test for what this machine lacks; fails it where nothing may be lacking."""
    if os.environ.get("SPOOL_TEST_REQUIRE_ALL") == "1":
        pytest.fail(what)
    pytest.skip(what)


def strace(call: str, effect: str) -> list[str]:
    """The command that runs or traces a process, and all its threads, with `effect` on each such system call."""
    if shutil.which("strace") is None:
        lacking("strace is not installed")
    return ["strace", "-f", "-I2", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:{effect}"]


@contextmanager
def slowed(server: Server, call: str, effect: str, *, workers: bool = True) -> Iterator[None]:
    """A running server whose system calls `call` are delayed, or fail: `effect` such as delay_exit=MICROSECONDS."""
    pids = server.pid, *(server.workers() if workers else ())
    attached = [argument for pid in pids for argument in ("-p", str(pid))]
    tracer = subprocess.Popen([*strace(call, effect), *attached], stderr=subprocess.PIPE)
    try:
        eventually(lambda: tracer.poll() is not None or all(map(_traced, pids)))
        if tracer.poll() is not None:
            lacking(f"strace cannot trace here: {tracer.communicate()[1].decode().strip()}")
        yield
    finally:
        tracer.terminate()
        tracer.communicate(timeout=PATIENCE)


def _traced(pid: int) -> bool:
    return all(traced(int(thread.name)) for thread in Path(f"/proc/{pid}/task").iterdir())


def traced(thread: int) -> int:
    """Who traces this thread; 0 for nobody."""
    match = re.search(r"TracerPid:\s+(\d+)", Path(f"/proc/{thread}/status").read_text("ascii"))
    assert match
    return int(match[1])


def without_nameless_files(directory: Path, *arguments: str, env: Mapping[str, str] | None = None) -> Server:
    """A server whose staged files all have names, as it is on some file systems."""
    launcher = Path(__file__).with_name("without_nameless_files.py")
    return Server(directory, *arguments, env=env, prefix=[sys.executable, str(launcher)])
