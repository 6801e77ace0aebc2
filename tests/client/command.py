"""The commands as a person runs them, in a pipe or in a terminal, with a home of their own."""

from __future__ import annotations

import io
import os
import pty
import signal
import subprocess
import sys
import threading
from contextlib import chdir, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from unittest import mock

from spool import cli
from tests.process import eventually

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

    def run(self, *arguments: str | Path, stdin: str = "", code: int = 0) -> Done:
        """Runs it in this process, for what a process of its own would not show better; it must end with `code`."""
        out, err = io.StringIO(), io.StringIO()
        with (
            mock.patch.dict(os.environ, self.environment, clear=True),
            mock.patch("sys.stdin", io.StringIO(stdin)),
            chdir(self.directory),
            redirect_stdout(out),
            redirect_stderr(err),
        ):
            try:
                ended = cli.main([str(argument) for argument in arguments])
            except SystemExit as error:  # argparse
                ended = error.code if isinstance(error.code, int) else -1
        assert ended == code, (ended, out.getvalue(), err.getvalue())
        return Done(ended, out.getvalue(), err.getvalue())


def finished(process: subprocess.Popen[str], stdin: str | None = None) -> Done:
    out, err = process.communicate(stdin, timeout=TIMEOUT)
    assert "Traceback" not in err, err
    return Done(process.returncode, out, err)


class Terminal:
    """A command in a pseudo-terminal of its own, of which it is the foreground job."""

    def __init__(self, home: Home, *arguments: str | Path) -> None:
        self.shown = ""
        self._command = [sys.executable, "-m", "spool", *map(str, arguments)]
        self._home = home

    def __enter__(self) -> Self:
        pid, self._descriptor = pty.fork()
        if pid == 0:
            os.chdir(self._home.directory)
            os.execvpe(self._command[0], self._command, self._home.environment)
        self.pid = pid
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        self._reader.join(10)
        os.close(self._descriptor)

    def press(self, keys: str) -> None:
        os.write(self._descriptor, keys.encode())

    def wait(self) -> int:
        """The exit code."""
        ended = eventually(lambda: status if (status := os.waitpid(self.pid, os.WNOHANG))[0] else None, TIMEOUT)
        self._reader.join(10)
        assert "Traceback" not in self.shown, self.shown
        return os.waitstatus_to_exitcode(ended[1])

    def _read(self) -> None:
        with suppress(OSError):  # EIO: nobody has the other end open any more
            while piece := os.read(self._descriptor, 65536):
                self.shown += piece.decode("utf-8", "replace")
