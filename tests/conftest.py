"""Where tests keep their files; a store and an index in one directory, for whichever tests have none of their own."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from spool.store import LocalStore, SqliteIndex, open_blobs, open_index

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

MEMORY: Final = Path("/dev/shm")
ROOM: Final = 2 * 1024**3
ON_DISK: Final = ("crash/", "container/", "e2e/test_large.py", "store/test_local")
"""What looks at a disk, or fills one."""


# Where the tests run in the background of a script, SIGINT is ignored, and programs inherit that, but not a handler.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config: pytest.Config) -> None:
    """Keeps the tests' files in memory where that is possible: hundreds of servers wait longer for fsync than they run.

    With --basetemp all of them are there, for whoever wants to look at what is left.
    """
    if config.getoption("basetemp") is None and _does_all_that_a_disk_does(MEMORY):
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))


def _does_all_that_a_disk_does(directory: Path) -> bool:
    """And has room; tmpfs takes labels since Linux 6.6."""
    try:
        with tempfile.NamedTemporaryFile(dir=directory) as file:
            os.setxattr(file.fileno(), "user.spool", b"1")
        return shutil.disk_usage(directory).free >= ROOM
    except OSError:
        return False


@pytest.fixture(scope="session")
def on_disk(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory that is not in memory."""
    if pytestconfig.getoption("basetemp") is not None:
        yield tmp_path_factory.mktemp("disk")
        return
    with tempfile.TemporaryDirectory(prefix="spool-tests-", ignore_cleanup_errors=True) as directory:
        yield Path(directory)


@pytest.fixture
def tmp_path(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """On the disk for tests that ask something of it."""
    if not request.path.relative_to(Path(__file__).parent).as_posix().startswith(ON_DISK):
        yield tmp_path
        return
    path = request.getfixturevalue("on_disk") / tmp_path.name
    path.mkdir()
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
async def blobs(tmp_path: Path) -> AsyncIterator[LocalStore]:
    blobs = await open_blobs(tmp_path)
    yield blobs
    await blobs.aclose()


@pytest.fixture
async def index(tmp_path: Path) -> AsyncIterator[SqliteIndex]:
    index = await open_index(tmp_path)
    yield index
    await index.aclose()
