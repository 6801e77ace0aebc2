"""The examples of doc/client.md run, and type-check as a user would check them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.client.command import ROOT, Home
from tests.process import Server
from tests.test_docs import ADDRESS, SONG, agrees, fences

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DOCUMENT = (ROOT / "doc/client.md").read_text()
EXAMPLES = fences(DOCUMENT, "python")
WRONG = """\
from spool.client import Client

async def main() -> int:
    async with Client("http://127.0.0.1:8080") as spool:
        return await spool.put("song.mp3")
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("examples") / "spool") as running:
        yield running


@pytest.fixture
def home(server: Server, tmp_path: Path) -> Home:
    operator = Home(tmp_path / "operator", SPOOL_SERVER_BASE_URL=server.url)
    link = operator.run("grant", "create", "--dir", server.dir, "--owner", "local").out.strip()
    home = Home(tmp_path / "home", SPOOL_URL=server.url, LINK=link)
    (home.directory / "song.mp3").write_bytes(SONG)
    return home


def transcripts() -> Iterator[tuple[str, str]]:
    for block in fences(DOCUMENT, "shell-session"):
        for example in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, expected = example.partition("\n")
            yield command, expected.rstrip("\n")


def test_commands_print_what_they_show(server: Server, home: Home) -> None:
    tools = home.directory.with_name("bin")
    tools.mkdir()
    (tools / "spool").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m spool "$@"\n')
    (tools / "spool").chmod(0o755)
    environment = {**home.environment, "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}", "ID": ""}
    seen = list(transcripts())
    assert len(seen) >= 6
    for command, expected in seen:
        if command == "spool get $ID":
            (home.directory / "song.mp3").unlink()
        done = subprocess.run(
            ["sh", "-c", command.replace(ADDRESS, server.url)],
            cwd=home.directory,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, ""), command
        printed = done.stdout.replace(server.url, ADDRESS)
        assert agrees(expected, printed), f"$ {command}\n{expected}\nbut it printed:\n{printed}"
        environment["ID"] = environment["ID"] or re.findall(r"/files/(\w+)", printed)[-1]


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_example_in_python_runs(server: Server, home: Home, number: int) -> None:
    assert home.run_python(EXAMPLES[number].replace(ADDRESS, server.url))


def test_examples_in_python_have_no_type_errors(home: Home) -> None:
    pytest.importorskip("mypy")
    for number, example in enumerate(EXAMPLES):
        (home.directory / f"example_{number}.py").write_text(example)
    (home.directory / "wrong.py").write_text(WRONG)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--cache-dir", os.devnull, "."],
        cwd=home.directory,
        env=home.environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    errors = [line for line in done.stdout.splitlines() if ": error:" in line]
    assert len(errors) == 1, done.stdout + done.stderr
    assert re.match(r'wrong\.py:5: error: Incompatible return value type \(got "File", expected "int"\)', errors[0])
