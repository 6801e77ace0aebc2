"""What is installed is what was tested: pinned by hash, wherever it is installed from, and compiled."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.process import START_TIMEOUT, Server

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
LOCKS = sorted(ROOT.glob("requirements*.txt"))
HASHES = re.compile(r"(?: --hash=sha256:[0-9a-f]{64})+")
PINNED = re.compile(r"([\w.-]+)(?:\[[\w,-]+\])?==\S+(?: ; [^#]+?)?" + HASHES.pattern)


def requirements(text: str) -> list[str]:
    """Each in one line, without comments."""
    joined = re.sub(r"\s*\\\n\s*", " ", re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE))
    return [line.strip() for line in joined.splitlines() if line.strip()]


def loose(text: str) -> list[str]:
    """Requirements that are not pinned to one version and its hashes."""
    return [line for line in requirements(text) if not PINNED.fullmatch(line)]


def installs(text: str) -> Iterator[str]:
    """The commands that install what somebody else has made."""
    for line in re.sub(r"\\\n", "", text).splitlines():
        for command in re.split(r"&&", line):
            if re.search(r"(?:\bpip\b|\$\(PIP\)).* install ", command) and "--no-deps" not in command:
                yield command.strip()


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.name)
def test_lock_pins_every_package_by_hash(path: Path) -> None:
    assert len(requirements(path.read_text())) > 3
    assert loose(path.read_text()) == []


def test_lock_has_every_package_that_spool_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {re.split(r"[^\w.-]", text)[0].lower() for text in project["dependencies"]}
    locked = {re.split(r"[^\w.-]", line)[0].lower() for line in requirements((ROOT / "requirements.txt").read_text())}
    assert wanted <= locked


@pytest.mark.parametrize("name", ["Makefile", "Dockerfile"])
def test_packages_are_installed_by_hash_only(name: str) -> None:
    commands = list(installs((ROOT / name).read_text()))
    assert len(commands) >= 2
    assert [c for c in commands if "--require-hashes" not in c and "'uv" not in c] == []  # uv makes the locks


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a==1 \\\n    --hash=sha256:" + "0" * 64 + " \\\n    --hash=sha256:" + "1" * 64 + "\n    # via b\n", 0),
        ("a==1 ; python_version < '3.12' \\\n    --hash=sha256:" + "0" * 64 + "\n", 0),
        ("a==1\n", 1),
        ("a>=1 \\\n    --hash=sha256:" + "0" * 64 + "\n", 1),
        ("a @ https://example.org/a.whl\n", 1),
        ("--extra-index-url https://example.org/\n", 1),
    ],
)
def test_requirement_that_is_not_pinned_is_found(text: str, found: int) -> None:
    assert len(loose(text)) == found


def test_server_does_not_start_without_the_compiled_parser(tmp_path: Path) -> None:
    server = Server(tmp_path / "spool", env={"AIOHTTP_NO_EXTENSIONS": "1"}).spawn()
    try:
        assert server.wait(START_TIMEOUT) == 1
    finally:
        if server.running:
            server.kill()
    assert "spool: aiohttp runs without its compiled parser" in server.log()
    assert "Traceback" not in server.log()
