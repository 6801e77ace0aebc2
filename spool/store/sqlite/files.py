"""The SQLite index as a file: copied, looked at without being put to use, put in another's place. It all blocks."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, suppress
from typing import TYPE_CHECKING

from spool.errors import SpoolError, Unavailable
from spool.store.sqlite.connection import connect, create, sync, transaction, translated

if TYPE_CHECKING:
    from pathlib import Path

_LOGS = ("-wal", "-journal")
"""What SQLite names after an index and needs, to read it."""
_COMPANIONS = (*_LOGS, "-shm")


def copy(connection: sqlite3.Connection, path: Path) -> None:
    """The empty index at `path` is this one as it is now, less hidden files, sessions and unfinished uploads."""
    with closing(sqlite3.connect(path, isolation_level=None)) as target:
        # In one step: SQLite begins anew whenever it finds that another process has written between two. It reads one
        # snapshot, which holds up no writer.
        connection.backup(target)
    with closing(connect(path, "rw")) as target, transaction(target):
        target.execute("DELETE FROM uploads WHERE state <> 'finished'")
        target.execute("DELETE FROM hidden")  # with them their links; a copy holds nothing that was deleted
        target.execute("DELETE FROM sessions")  # or a restored spool would take cookies that were given up since


def read_secret(path: Path) -> bytes:
    """See `Index.secret`. Raises Unavailable if there is none to be read."""
    with translated(), closing(connect(path, "ro")) as connection:
        row = connection.execute("SELECT value FROM settings WHERE name = 'secret'").fetchone()
    if row is None:
        raise Unavailable("The index is not complete.")
    return bytes(row[0])


def has_files(path: Path) -> bool:
    """Whether there is an index at `path` that can be read and has a file, be it a hidden one."""
    if not path.exists():
        return False
    try:
        with translated(), closing(connect(path, "ro")) as connection:
            tables = connection.execute("SELECT name FROM sqlite_schema WHERE name IN ('files', 'hidden')")
            found = [connection.execute(f"SELECT 1 FROM {name} LIMIT 1").fetchone() for [name] in tables.fetchall()]  # noqa: S608
            return any(found)
    except SpoolError:
        return False


def settle(path: Path) -> None:
    """All of the index is in its one file. Raises Unavailable if somebody reads it."""
    with translated(), closing(connect(path, "rw")) as connection:
        [busy, _, _] = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    if busy:
        raise Unavailable(f"somebody is reading {path}")


def install(new: Path, path: Path) -> None:
    """The index at `new` is at `path`, durably and in one step, whatever was there: that must have been settled."""
    settle(new)
    with translated():
        sync(new)
        _remove(path, *_COMPANIONS)  # of another index: SQLite would write them into this one
        _remove(new, "-reserve")  # the place that it takes has room set aside already, or will have when it is served
        new.replace(path)
        sync(path.parent)


def set_aside(path: Path, aside: Path) -> None:
    """The index at `path`, in whatever state, is kept at `aside` too, and can be replaced."""
    with suppress(SpoolError):
        settle(path)
    with translated():
        aside.hardlink_to(path)
        for log in _LOGS:
            with suppress(FileNotFoundError):
                _beside(path, log).replace(_beside(aside, log))
        sync(path.parent)


def clear(path: Path) -> None:
    """There is an empty index at `path`; if there was one, it is never gone meanwhile."""
    with translated():
        _remove(path, *_COMPANIONS)
        create(path)
        os.truncate(path, 0)


def _remove(path: Path, *suffixes: str) -> None:
    for suffix in suffixes:
        _beside(path, suffix).unlink(missing_ok=True)


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)
