"""The commands as a person runs them, in a pipe or in a terminal, with a home of their own."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
import threading
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self
from unittest import mock

from spool import cli

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOT = Path(__file__).parent.parent.parent
TIMEOUT = 120


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def complaint(self) -> str:
        """The one line that says what is wrong."""
        [line] = self.err.splitlines()
        assert line.startswith("spool: ")
        return line.removeprefix("spool: ")


class Home:
    """Where the commands keep their configuration and state, and the variables that they see."""

    def __init__(self, directory: Path, **variables: str) -> None:
        self.directory = directory
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("SPOOL_", "XDG_"))}
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        self.environment = {**kept, "HOME": str(directory), "PYTHONPATH": path, "TERM": "xterm", **variables}
        directory.mkdir(exist_ok=True)

    @property
    def login(self) -> Path:
        return self.directory / ".config/spool/client.toml"

    @property
    def notes(self) -> list[Path]:
        """What is remembered of unfinished uploads."""
        return list((self.directory / ".local/state/spool/uploads").glob("*"))

    def start(self, *arguments: str | Path, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "spool", *map(str, arguments)]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command, cwd=self.directory, env=self.environment, stdin=stdin, stdout=pipe, stderr=pipe, text=True
        )

    def run_python(self, program: str) -> str:
        """Runs the program in a process of its own, which must end well and without a warning; what it printed."""
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", program],
            cwd=self.directory,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    def run(self, *arguments: str | Path, stdin: str = "", code: int = 0) -> Done:
        """Runs it in this process, for what a process of its own would not show better; it must end with `code`."""
        done = run(*arguments, environment=self.environment, directory=self.directory, stdin=stdin)
        assert done.code == code, done
        return done


def run(*arguments: str | Path | bytes, environment: Mapping[str, str], directory: Path, stdin: str = "") -> Done:
    """Runs the command in this process."""
    out, err = io.StringIO(), io.StringIO()
    with (
        umask(0o022),  # commands change it for good
        mock.patch.dict(os.environ, environment, clear=True),
        mock.patch("sys.stdin", io.StringIO(stdin)),
        chdir(directory),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        try:
            code = cli.main([os.fsdecode(argument) for argument in arguments])
        except SystemExit as error:  # argparse
            code = error.code if isinstance(error.code, int) else -1
    return Done(code, out.getvalue(), err.getvalue())


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def finished(process: subprocess.Popen[str], stdin: str | None = None, timeout: float = TIMEOUT) -> Done:
    try:
        out, err = process.communicate(stdin, timeout=timeout)
    finally:
        process.kill()
    assert "Traceback" not in err, err
    return Done(process.returncode, out, err)


class Terminal:
    """A command in a pseudo-terminal of its own, of which it is the foreground job."""

    def __init__(self, home: Home, *arguments: str | Path) -> None:
        self.shown = ""
        self._command = [sys.executable, "-m", "spool", *map(str, arguments)]
        self._home = home

    def __enter__(self) -> Self:
        self._descriptor, inside = pty.openpty()  # pty.fork() is not for a process with threads
        self._process = subprocess.Popen(
            ["setsid", "--ctty", *self._command],
            cwd=self._home.directory,
            env=self._home.environment,
            stdin=inside,
            stdout=inside,
            stderr=inside,
        )
        os.close(inside)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait(60)
        self._reader.join(60)
        os.close(self._descriptor)

    def press(self, keys: str) -> None:
        os.write(self._descriptor, keys.encode())

    def wait(self) -> int:
        """The exit code."""
        code = self._process.wait(TIMEOUT)
        self._reader.join(60)
        assert "Traceback" not in self.shown, self.shown
        return code

    def _read(self) -> None:
        with suppress(OSError):  # EIO: nobody has the other end open any more
            while piece := os.read(self._descriptor, 65536):
                self.shown += piece.decode("utf-8", "replace")
