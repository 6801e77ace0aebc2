"""Back-ends, and the only place that chooses between them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from spool.store.backup import Copied, copy_spool
from spool.store.local import LocalStore, open_local
from spool.store.sqlite import SqliteIndex, open_sqlite
from spool.store.sqlite import files as sqlite_files

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["INDEX", "Copied", "LocalStore", "SqliteIndex", "copy_spool", "open_blobs", "open_index", "sqlite_files"]

INDEX: Final = "index.db"


async def open_blobs(directory: Path) -> LocalStore:
    """The blobs under `directory`, which is made if need be. Raises Unavailable or StorageFull."""
    return await open_local(directory)


async def open_index(directory: Path, name: str = INDEX, *, shared: bool = False) -> SqliteIndex:
    """The index in `directory`; `shared` if several processes serve. Raises Unavailable or StorageFull."""
    return await open_sqlite(directory / name, shared=shared)
