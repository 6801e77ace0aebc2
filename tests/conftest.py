"""Where tests keep their files; a store and an index in one directory, for whichever tests have none of their own."""

from __future__ import annotations

import os
import shutil
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


@pytest.fixture(scope="session")
def memory(pytestconfig: pytest.Config) -> Path | None:
    """A file system in memory that does whatever Spool asks of a disk, if there is one with room."""
    if pytestconfig.getoption("basetemp") is not None:  # somebody wants to look at what is left
        return None
    try:
        with tempfile.NamedTemporaryFile(dir=MEMORY) as file:
            os.setxattr(file.fileno(), "user.spool", b"1")  # tmpfs takes labels since Linux 6.6
    except OSError:
        return None
    return MEMORY if shutil.disk_usage(MEMORY).free >= ROOM else None


@pytest.fixture
def tmp_path(tmp_path: Path, memory: Path | None, request: pytest.FixtureRequest) -> Iterator[Path]:
    """In memory, but for tests of what a disk does: a thousand servers wait for theirs longer than they compute."""
    below = request.path.relative_to(Path(__file__).parent).as_posix()
    if memory is None or below.startswith(ON_DISK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix=f"{tmp_path.name}-", dir=memory, ignore_cleanup_errors=True) as directory:
        yield Path(directory)


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
