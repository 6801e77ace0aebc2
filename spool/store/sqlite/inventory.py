"""The records by their blobs, on a connection to the SQLite index. What changes them is called in a transaction."""
# ruff: noqa: S608 - the names of columns are put into SQL, and they are ours; what a client sent is bound

from __future__ import annotations

import sqlite3
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple

from spool.model import Key, Totals
from spool.store.sqlite.rows import ADDED, FILE, file_row, to_file

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from sqlite3 import Connection

    from spool.model import Damage, File, FileId

_NAMING: Final = ("files", "hidden")
"""Whose rows name blobs for good."""
_CORRUPT: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
# As the index has it. The plus keeps SQLite from seeing that the first term follows from the second, and dropping it.
_TWINS = "substr(sha256, 1, 16) = substr(:sha256, 1, 16) AND +sha256 = :sha256 AND size = :size AND body IS NULL"
_ADD = f"INSERT INTO files ({ADDED}, body) VALUES ({', '.join('?' * (ADDED.count(',') + 2))})"


def add(
    connection: Connection, files: Sequence[File], bodies: Mapping[FileId, bytes], *, share: bool
) -> Sequence[File]:
    """See `Files.finish`."""
    added = []
    for new in files:  # one by one, for two of them may be equal
        file = _shared(connection, new) if share and not new.inline else new
        connection.execute(_ADD, (*file_row(file), bodies.get(file.id)))
        added.append(file)
    return added


def _shared(connection: Connection, file: File) -> File:
    values = {"key": file.key, "sha256": file.sha256, "size": file.size}
    twin = f"SELECT key FROM files INDEXED BY files_by_digest WHERE {_TWINS} LIMIT 1"  # or it walks through one size
    if connection.execute(twin, values).fetchone() is None:
        return file
    # By those that are damaged, who are few: of equal files there may be any number, such as empty ones.
    healed = "UPDATE files INDEXED BY files_damaged SET key = :key, damage = NULL"
    connection.execute(f"{healed} WHERE damage IS NOT NULL AND {_TWINS}", values)
    return replace(file, key=Key(connection.execute(twin, values).fetchone()[0]))


def by_key(connection: Connection, after: File | None, limit: int, bounds: tuple[str, str | None]) -> Sequence[File]:
    """See `Inventory.by_key`; `bounds` are its start and end."""
    start, end = bounds
    place = (start, "") if after is None else (after.key, after.id)
    upper, values = ("", ()) if end is None else ("AND key < ?", (end,))
    sql = f"SELECT {FILE} FROM files WHERE (key, id) > (?, ?) {upper} ORDER BY key, id LIMIT ?"
    return [to_file(row) for row in connection.execute(sql, (*place, *values, limit))]


def mark(connection: Connection, key: Key, damage: Damage | None) -> Sequence[File]:
    """See `Inventory.mark`."""
    rows = []
    for table in _NAMING:
        sql = f"UPDATE {table} SET damage = ? WHERE key = ? AND damage IS NOT ? RETURNING {FILE}"
        rows += connection.execute(sql, (damage, key, damage)).fetchall()
    return [to_file(row) for row in rows]


def heal(connection: Connection, key: Key, sound: Key) -> None:
    """See `Inventory.heal`."""
    for table in _NAMING:
        connection.execute(f"UPDATE {table} SET key = ?, damage = NULL WHERE key = ?", (sound, key))


def totals(connection: Connection) -> Totals:
    """See `Inventory.totals`."""
    sql = """SELECT
        (SELECT coalesce(sum(files), 0) FROM usage), (SELECT coalesce(sum(size), 0) FROM usage),
        (SELECT count(*) FROM files WHERE damage IS NOT NULL),
        (SELECT coalesce(sum(uploads), 0) FROM unfinished),
        (SELECT coalesce(sum(offset), 0) FROM uploads WHERE state <> 'finished')"""
    return Totals(*connection.execute(sql).fetchone())


def check(connection: Connection) -> Sequence[str]:
    """See `Inventory.check`."""
    try:
        found = [str(text) for [text] in connection.execute("PRAGMA integrity_check(10)") if text != "ok"]
        return found or _miscounts(drift(connection))
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode & 0xFF not in _CORRUPT:
            raise
        return [f"it cannot be read: {error}"]


def _miscounts(found: Drift) -> list[str]:
    sentences = [f"the usage of {owner!r} is not the sum of what is kept" for owner, _, _ in found.usage]
    sentences += [f"the number of open uploads of {owner!r} is wrong" for owner, _ in found.unfinished]
    if found.promised:
        sentences.append("what open uploads may still bring is not the sum of their promises")
    return sentences


class Drift(NamedTuple):
    """How much the counters fall short of what they count. Whatever else changes meanwhile, that stays the same."""

    usage: Sequence[tuple[str, int, int]]
    """Owner, files, bytes."""
    unfinished: Sequence[tuple[str, int]]
    """Owner, uploads."""
    promised: int


def drift(connection: Connection) -> Drift:
    """Looks at every row."""
    usage = """
        SELECT owner, sum(files), sum(size) FROM (
            SELECT owner, 1 AS files, size FROM files
            UNION ALL SELECT owner, 1, size FROM hidden
            UNION ALL SELECT owner, 0, kept FROM uploads
            UNION ALL SELECT owner, -files, -size FROM usage
        ) GROUP BY owner HAVING sum(files) <> 0 OR sum(size) <> 0
    """
    unfinished = """
        SELECT owner, sum(uploads) FROM (
            SELECT owner, 1 AS uploads FROM uploads WHERE state <> 'finished'
            UNION ALL SELECT owner, -uploads FROM unfinished
        ) GROUP BY owner HAVING sum(uploads) <> 0
    """
    promised = "SELECT (SELECT coalesce(sum(promised), 0) FROM uploads) - (SELECT size FROM promised)"
    return Drift(
        connection.execute(usage).fetchall(),
        connection.execute(unfinished).fetchall(),
        int(connection.execute(promised).fetchone()[0]),
    )


def correct(connection: Connection, found: Drift) -> None:
    """The counters no longer fall short. Quick, for the rows were looked at before."""
    sql = """INSERT INTO usage (owner, files, size) VALUES (?, ?, ?)
        ON CONFLICT (owner) DO UPDATE SET files = files + excluded.files, size = size + excluded.size"""
    connection.executemany(sql, found.usage)
    connection.execute("DELETE FROM usage WHERE files = 0 AND size = 0")
    sql = """INSERT INTO unfinished (owner, uploads) VALUES (?, ?)
        ON CONFLICT (owner) DO UPDATE SET uploads = uploads + excluded.uploads"""
    connection.executemany(sql, found.unfinished)
    connection.execute("DELETE FROM unfinished WHERE uploads = 0")
    connection.execute("UPDATE promised SET size = size + ?", (found.promised,))
