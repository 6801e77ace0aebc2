"""The clients: curl for what is big, client.c for what is many. Neither counts in what is measured."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bench.servers import NUMBER, Unusable

if TYPE_CHECKING:
    from bench.servers import Running, Way

_HERE: Final = Path(__file__).parent
_BUILD: Final = _HERE / ".build"
TIMEOUT: Final = 180
"""Seconds that one run may take."""


class Failed(Exception):
    """A server did not do what it was asked."""


def compiled(name: str) -> Path:
    """The program of bench/NAME.c, made anew if its source changed. Raises Unusable."""
    source, program = _HERE / f"{name}.c", _BUILD / name
    if program.exists() and program.stat().st_mtime > source.stat().st_mtime:
        return program
    if shutil.which("cc") is None:
        raise Unusable("there is no C compiler")
    _BUILD.mkdir(exist_ok=True)
    (_BUILD / ".gitignore").write_text("*\n")
    subprocess.run(["cc", "-O2", "-Wall", "-o", str(program), str(source), "-lpthread", "-ldl"], check=True, timeout=60)
    return program


def curl(*arguments: str, source: Path | None = None) -> bytes:
    """What curl printed; it believes any certificate. Raises Failed for an answer that is not 2xx."""
    command = ["curl", "-sSk", "--fail-with-body", "--max-time", str(TIMEOUT), *arguments]
    with (source or Path("/dev/null")).open("rb") as stdin:
        done = subprocess.run(command, stdin=stdin, capture_output=True, timeout=TIMEOUT + 5, check=False)
    if done.returncode:
        raise Failed((done.stderr + done.stdout).decode(errors="replace").strip()[-300:])
    return done.stdout


@dataclass(frozen=True)
class Many:
    """Requests of one kind, as client.c sends them."""

    connections: int
    requests: int
    seconds: float
    size: int
    kind: str = "random"
    rate: float = 0
    """Bytes a second of each connection; 0 for as fast as it goes."""
    segment: int = 0
    """Bytes that go out at a time; 0 for many."""

    def upload(self, running: Running, way: Way, first: int) -> dict[str, Any]:
        """What client.c printed; the numbers of the files begin with `first`. Raises Failed."""
        return finish(self.begin(running, way.request(self.size), first))

    def download(self, running: Running, path: str) -> dict[str, Any]:
        """So many times the file at `path`."""
        head = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
        return finish(self.begin(running, (head, "", ""), 0))

    def begin(self, running: Running, request: tuple[str, str, str], first: int) -> subprocess.Popen[str]:
        """The client, running."""
        numbers = [self.connections, self.requests, self.seconds, self.size, self.kind, first, self.rate, self.segment]
        command = [str(compiled("client")), str(running.port), *map(str, numbers), *request]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(client: subprocess.Popen[str]) -> dict[str, Any]:
    try:
        output, errors = client.communicate(timeout=TIMEOUT)
    except subprocess.TimeoutExpired as error:
        client.kill()
        client.communicate()
        raise Failed(f"no end after {TIMEOUT} s") from error
    if client.returncode:
        raise Failed(errors.strip())
    told: dict[str, Any] = json.loads(output)
    if not told["requests"] or told["errors"] * 100 > told["requests"]:
        raise Failed(f"{told['errors']} of {told['requests']} requests failed: {' '.join(errors.split())[:200]}")
    return told


def stored(running: Running, way: Way, file: Path, number: int) -> str:
    """The path of the bytes of `file`, which is uploaded for that. Raises Unusable or Failed."""
    if running.server.locate is None:
        raise Unusable("serves no files")
    answer = curl(*way.curl(running.base, file, number))
    path = running.server.locate(way.path.replace(NUMBER, f"{number:010d}"), answer)
    redirected = _download(running, path, "%{redirect_url}")
    if redirected:
        path = "/" + redirected.split("/", 3)[3]
    if int(_download(running, path, "%{size_download}")) != file.stat().st_size:
        raise Failed(f"{path} is not what was uploaded")
    return path


def _download(running: Running, path: str, told: str) -> str:
    return curl("-o", "/dev/null", "-w", told, running.base + path).decode()
