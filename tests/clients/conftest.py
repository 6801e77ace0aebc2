"""Clients that others wrote, against the real server."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.process import Server, free_port, lacking

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE: Final = Path(__file__).parent
INSTALL_TIMEOUT: Final = 180
RUN_TIMEOUT: Final = 60


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """On a port that it keeps over restarts."""
    with Server(tmp_path / "spool", env={"SPOOL_SERVER_PORT": str(free_port())}) as running:
        yield running


@dataclass(frozen=True)
class Sample:
    """A file to upload."""

    path: Path
    data: bytes

    @property
    def size(self) -> int:
        return len(self.data)

    def assert_arrived(self, server: Server, times: int = 1) -> list[dict[str, Any]]:
        """It is all that the server lists, byte for byte; the records."""
        records = server.files()
        expected = [(self.size, hashlib.sha256(self.data).hexdigest())] * times
        assert [(record["size"], record["sha256"]) for record in records] == expected
        return records


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    """24 MiB and a bit: more than sockets take into their buffers."""
    data = random.Random(3).randbytes(24 * 1024 * 1024 + 7)
    path = tmp_path_factory.mktemp("sample") / "żółw.bin"
    path.write_bytes(data)
    return Sample(path, data)


@dataclass(frozen=True)
class Node:
    """Runs the scripts of this directory with the packages that package.json names."""

    dir: Path

    def run(self, script: str, **order: Any) -> Any:
        """What the script reports."""
        command = ["node", str(self.dir / script), json.dumps(order, default=str)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=RUN_TIMEOUT, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Node:
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            lacking(f"{program} is not installed")
    directory = tmp_path_factory.mktemp("node")
    for script in HERE.glob("*.mjs"):
        shutil.copy(script, directory)
    (directory / "node_modules").symlink_to(installed_packages() / "node_modules")
    return Node(directory)


def installed_packages() -> Path:
    """Where the packages are; they are fetched once for each package.json."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "spool-tests"
    wanted = HERE / "package.json"
    place = cache / hashlib.sha256(wanted.read_bytes()).hexdigest()[:16]
    if place.exists():
        return place
    fresh = place.with_name(f"{place.name}.{os.getpid()}")
    fresh.mkdir(parents=True)
    try:
        shutil.copy(wanted, fresh)
        command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--no-package-lock"]
        done = subprocess.run(command, cwd=fresh, capture_output=True, text=True, timeout=INSTALL_TIMEOUT, check=False)
        if done.returncode != 0:
            lacking(f"the packages cannot be installed: {done.stderr[-500:]}")
        if not place.exists():
            fresh.rename(place)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return place
