"""What principals are allowed and how often they ask, on a connection to the SQLite index."""
# ruff: noqa: S608 - the names of columns are put into SQL, and they are ours; what a client sent is bound

from __future__ import annotations

from typing import TYPE_CHECKING

from spool.errors import NotFound
from spool.model import Usage
from spool.store.sqlite.rows import OVERRIDE, microseconds, override_row, to_override, to_window, window_row

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from sqlite3 import Connection

    from spool.model import Override, Window


def usage(connection: Connection, owner: str) -> Usage:
    """See `Files.usage`."""
    kept = connection.execute("SELECT files, size FROM usage WHERE owner = ?", (owner,)).fetchone() or (0, 0)
    open_ = connection.execute("SELECT uploads FROM unfinished WHERE owner = ?", (owner,)).fetchone() or (0,)
    return Usage(*kept, *open_)


def has_tokens(connection: Connection) -> bool:
    """See `Tokens.has_tokens`."""
    return connection.execute("SELECT 1 FROM settings WHERE name = 'tokens'").fetchone() is not None


def override(connection: Connection, owner: str) -> Override | None:
    """See `Allowances.override`."""
    row = connection.execute(f"SELECT {OVERRIDE} FROM overrides WHERE owner = ?", (owner,)).fetchone()
    return to_override(row)


def overrides(connection: Connection) -> Sequence[Override]:
    """See `Allowances.overrides`."""
    rows = connection.execute(f"SELECT {OVERRIDE} FROM overrides ORDER BY owner")
    return [found for row in rows if (found := to_override(row)) is not None]


def set_override(connection: Connection, override: Override) -> None:
    """See `Allowances.set_override`."""
    kept = ", ".join(f"{name} = coalesce(excluded.{name}, {name})" for name in OVERRIDE.split(", ")[1:])
    sql = f"INSERT INTO overrides ({OVERRIDE}) VALUES (?, ?, ?, ?, ?) ON CONFLICT (owner) DO UPDATE SET {kept}"
    connection.execute(sql, override_row(override))


def clear_override(connection: Connection, owner: str) -> None:
    """See `Allowances.clear_override`."""
    if not connection.execute("DELETE FROM overrides WHERE owner = ?", (owner,)).rowcount:
        raise NotFound("There are no limits of this name.")


def keep_windows(connection: Connection, windows: Sequence[Window], over: datetime) -> None:
    """See `Allowances.keep_windows`."""
    connection.executemany("INSERT OR REPLACE INTO windows VALUES (?, ?, ?)", map(window_row, windows))
    connection.execute("DELETE FROM windows WHERE since <= ?", (microseconds(over),))


def windows(connection: Connection) -> Sequence[Window]:
    """See `Allowances.windows`."""
    return [to_window(row) for row in connection.execute("SELECT owner, since, requests FROM windows")]
