"""A store and an index, both in one directory, for whichever tests have none of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from spool.store import LocalStore, SqliteIndex, open_blobs, open_index

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


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
