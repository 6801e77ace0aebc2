"""Servers: how each is started and asked, and what a running one costs."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

NUMBER = "##########"
"""Where the client puts a request's number, so that each brings another file."""
_BOUNDARY = "------------------------5b0f8d6c2a917e43"
_START_TIMEOUT = 30.0
_STOP_TIMEOUT = 15.0
_TICK = os.sysconf("SC_CLK_TCK")


class Unusable(Exception):
    """This server cannot be started here, or cannot do what is asked; the text says why."""


@dataclass(frozen=True)
class Way:
    """One way to upload: the body as it is, or a form with one file."""

    method: str
    path: str
    headers: tuple[str, ...] = ()
    """`SIZE` in one stands for the size of the body."""
    file_field: str = ""
    """The name of the file's field; without it the body is the file."""
    fields: tuple[tuple[str, str], ...] = ()
    """Those that come before it."""

    def curl(self, base: str, file: Path, number: int, *, chunked: bool = False) -> list[str]:
        """The arguments that make curl send `file`."""
        url = base + self.path.replace(NUMBER, f"{number:010d}")
        headers = [f"-H{header}".replace("SIZE", str(file.stat().st_size)) for header in self.headers]
        if self.file_field:
            fields = [f"-F{name}={value}" for name, value in self.fields]
            name = f"{number:010d}.bin"
            return [*headers, *fields, f"-F{self.file_field}=@{file};filename={name}", url]
        return [*headers, "-X", self.method, "-T", "-" if chunked else str(file), url]

    def request(self, size: int) -> tuple[str, str, str]:
        """Head, and what stands before and behind the `size` bytes, as client.c takes them."""
        before, behind, headers = "", "", list(self.headers)
        if self.file_field:
            parts = [
                f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{n}"\r\n\r\n{v}\r\n' for n, v in self.fields
            ]
            disposition = f'form-data; name="{self.file_field}"; filename="{NUMBER}.bin"'
            kind = "Content-Type: application/octet-stream"
            before = f"{''.join(parts)}--{_BOUNDARY}\r\nContent-Disposition: {disposition}\r\n{kind}\r\n\r\n"
            behind = f"\r\n--{_BOUNDARY}--\r\n"
            headers.append(f"Content-Type: multipart/form-data; boundary={_BOUNDARY}")
        headers.append(f"Content-Length: {len(before) + size + len(behind)}")
        lines = [f"{self.method} {self.path} HTTP/1.1", "Host: 127.0.0.1", *headers]
        return "\r\n".join(lines).replace("SIZE", str(size)) + "\r\n\r\n", before, behind


@dataclass(frozen=True)
class Server:
    """A program that takes uploads."""

    name: str
    command: Callable[[Path, int], list[str]]
    """For a directory to keep files in, and a port."""
    form: Way | None = None
    raw: Way | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    locate: Callable[[str, bytes], str] | None = None
    """The path of a file's bytes, from that of its upload and the answer; None if it serves none."""
    chunked: bool = True
    """Whether it takes a body whose length is not known in advance."""
    unix: Callable[[Path], Mapping[str, str]] | None = None
    """The environment in which it listens on this path."""
    tls: Callable[[Path, Path], Mapping[str, str]] | None = None
    """The environment in which it listens by TLS, with this certificate and this key."""
    product: bool = False
    floor: bool = False


class Running:
    """A server's processes. Times are user and system of all of them, also of those that have ended."""

    def __init__(
        self, server: Server, directory: Path, port: int, process: subprocess.Popen[bytes], scheme: str = "http"
    ) -> None:
        self.server = server
        self.dir = directory
        self.port = port
        self.base = f"{scheme}://127.0.0.1:{port}"
        self.process = process

    def pids(self) -> list[int]:
        """The process and its descendants."""
        children: dict[int, list[int]] = {}
        for path in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                children.setdefault(int(_stat(path)[1]), []).append(int(path.parent.name))
        found = [self.process.pid]
        for pid in found:
            found += children.get(pid, [])
        return found

    def cpu(self) -> float:
        """Seconds."""
        ticks = 0
        for pid in self.pids():
            with suppress(OSError):
                ticks += sum(map(int, _stat(Path(f"/proc/{pid}/stat"))[11:15]))
        return ticks / _TICK

    def memory(self, name: str) -> int:
        """Bytes of VmHWM, the peak, or VmRSS, the present, summed over all processes."""
        total = 0
        for pid in self.pids():
            with suppress(OSError):
                for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                    if line.startswith(name + ":"):
                        total += int(line.split()[1]) * 1024
        return total

    def forget_peak(self) -> None:
        """The peak counts from now on."""
        for pid in self.pids():
            with suppress(OSError):
                Path(f"/proc/{pid}/clear_refs").write_text("5")


def _stat(path: Path) -> list[str]:
    """What follows the name of the command in /proc/PID/stat."""
    return path.read_text().rpartition(")")[2].split()


@contextmanager
def started(server: Server, work: Path, *, environment: Mapping[str, str] | None = None) -> Iterator[Running]:
    """The server, answering, on an empty directory of its own under `work`. Raises Unusable."""
    directory = work / server.name
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    try:
        with serving(server, directory, environment) as running:
            yield running
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def serving(server: Server, directory: Path, environment: Mapping[str, str] | None = None) -> Iterator[Running]:
    """The server, answering, on a directory that is there already. Raises Unusable."""
    environment = environment or {}
    port = free_port()
    log = directory.with_name(directory.name + ".log")
    with log.open("wb") as output:
        try:
            process = subprocess.Popen(
                server.command(directory, port),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **server.environment, **environment},
                start_new_session=True,
            )
        except OSError as error:
            raise Unusable(f"{error.filename}: {error.strerror}") from error
    try:
        _wait_for(process, port, environment, log)
        yield Running(server, directory, port, process, "https" if "SPOOL_SERVER_TLS_CERT" in environment else "http")
    finally:
        _stop(process)


def free_port() -> int:
    """Below the ephemeral range, where no client's end can take it meanwhile."""
    for port in random.sample(range(20_000, 30_000), 100):
        with suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
    raise Unusable("no free port")


def _wait_for(process: subprocess.Popen[bytes], port: int, environment: Mapping[str, str], log: Path) -> None:
    path = environment.get("SPOOL_SERVER_UNIX")
    deadline = time.monotonic() + _START_TIMEOUT
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(OSError), socket.socket(socket.AF_UNIX if path else socket.AF_INET) as probe:
            probe.connect(path or ("127.0.0.1", port))
            return
        time.sleep(0.005)
    raise Unusable("did not start: " + " ".join(log.read_text(errors="replace").split())[-300:])


def _stop(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(_STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(_STOP_TIMEOUT)
