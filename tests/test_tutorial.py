"""doc/tutorial.md and doc/howto.md do what they show: every command runs, in order, against a real server.

A `shell-session` block holds commands after `$ `, each with what it prints below it, in which `...` stands for anything
within its line. Where that begins with `^C`, ctrl-C is pressed in a terminal while the command runs. What a command
exports, the later ones see.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.client.command import ROOT, Home, Terminal
from tests.client.proxy import Proxy
from tests.process import Server, eventually
from tests.test_docs import ADDRESS, SONG, Example, agrees, fences

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LARGE, SMALLER = "head -c 1G ", "head -c 16M "
"""A person needs the time to press ctrl-C; the proxy holds the upload for as long as it takes."""
PRESSED = 4 * 1024 * 1024
"""Bytes that are sent before ctrl-C is."""
PAGES = [ROOT / "doc/tutorial.md", ROOT / "doc/howto.md"]


def sessions(path: Path) -> Iterator[Example]:
    for block in fences(path.read_text(), "shell-session"):
        assert block.startswith("$ ")
        for example in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, expected = example.partition("\n")
            yield Example(command, expected.rstrip("\n"))


class Reader:
    """Somebody who types the commands, in the directory in which a server keeps `spool-data`."""

    def __init__(self, home: Home, proxy: Proxy) -> None:
        self.home = home
        self.proxy = proxy
        home.environment["SPOOL_SERVER_PORT"] = proxy.url.rpartition(":")[2]  # of which `spool grant` makes addresses

    def type(self, example: Example) -> None:
        command = example.command.replace(ADDRESS, self.proxy.url).replace(LARGE, SMALLER)
        run = self._interrupt if example.expected.startswith("^C\n") else self._run
        printed = run(command).replace(self.proxy.url, ADDRESS)
        assert agrees(example.expected.removeprefix("^C\n"), printed), f"$ {command}\nprinted:\n{printed}"

    def _run(self, command: str) -> str:
        state = self.home.directory / ".environment"
        done = subprocess.run(
            ["sh", "-c", f'{command}\ncode=$?\nenv -0 > "$HOME/.environment"\nexit $code'],
            cwd=self.home.directory,
            env=self.home.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, ""), command
        pairs = (pair.partition("=") for pair in state.read_text().split("\0") if pair)
        self.home.environment.update({name: value for name, _, value in pairs})
        return done.stdout

    def _interrupt(self, command: str) -> str:
        program, *arguments = shlex.split(command)
        assert program == "spool"
        self.proxy.hold_at = self.proxy.sent + PRESSED
        with Terminal(self.home, *arguments) as terminal:
            eventually(lambda: self.proxy.held)
            terminal.press("\x03")
            assert terminal.wait() == 130
        self.proxy.release()
        return re.sub(r".*(?=spool: )", "", terminal.shown.splitlines()[-1])


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """Has the command `spool` where `make run` puts it."""
    home = Home(tmp_path / "home", PYTHONUNBUFFERED="1")
    tools = home.directory / ".venv/bin"
    tools.mkdir(parents=True)
    (tools / "spool").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m spool "$@"\n')
    (tools / "spool").chmod(0o755)
    (home.directory / "song.mp3").write_bytes(SONG)
    return home


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_commands_of_a_page_do_what_it_shows(path: Path, home: Home) -> None:
    examples = list(sessions(path))
    assert len(examples) >= 10
    with Server(home.directory / "spool-data") as server, Proxy(server.port) as proxy:
        reader = Reader(home, proxy)
        if path.name != "tutorial.md":  # which says so itself
            home.environment["PATH"] = f"{home.directory}/.venv/bin:{home.environment['PATH']}"
        for example in examples:
            reader.type(example)


def test_upload_of_the_tutorial_that_was_cut_off_goes_on(home: Home) -> None:
    examples = list(sessions(PAGES[0]))
    [cut] = [number for number, example in enumerate(examples) if example.expected.startswith("^C\n")]
    assert examples[cut + 1].command == examples[cut].command
    with Server(home.directory / "spool-data") as server, Proxy(server.port) as proxy:
        reader = Reader(home, proxy)
        for example in examples[: cut + 2]:
            reader.type(example)
        appended = [request for request in proxy.requests if request.path.startswith("/uploads/") and request.sent]
        assert len(appended) == 2
        assert int(appended[1].headers["upload-offset"]) > 0


@pytest.mark.parametrize("block", fences(PAGES[1].read_text(), "python"))
def test_program_of_a_page_runs(block: str, home: Home) -> None:
    with Server(home.directory / "spool-data") as server:
        server.put("song.mp3", SONG)
        printed = home.run_python(block.replace(ADDRESS, server.url))
        assert server.files() == []
        assert [path.name for path in (home.directory / "done").iterdir()] == [f"{printed.split()[0]}-song.mp3"]
