"""Back-ends, and the only place that chooses between them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spool.store.local import LocalStore, open_local
from spool.store.sqlite import SqliteIndex, open_sqlite

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["LocalStore", "SqliteIndex", "open_blobs", "open_index"]


async def open_blobs(directory: Path) -> LocalStore:
    """The blobs under `directory`, which is made if need be. Raises Unavailable or StorageFull."""
    return await open_local(directory)


async def open_index(directory: Path) -> SqliteIndex:
    """The index in `directory`. Raises Unavailable or StorageFull."""
    return await open_sqlite(directory / "index.db")
