"""The records by their blobs, on a connection to the SQLite index. What changes them is called in a transaction."""
# ruff: noqa: S608 - the names of columns are put into SQL, and they are ours; what a client sent is bound

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from spool.model import Key
from spool.store.sqlite_rows import FILE, file_row, to_file

if TYPE_CHECKING:
    from collections.abc import Sequence
    from sqlite3 import Connection

    from spool.model import Damage, File

_TWINS = "substr(sha256, 1, 16) = substr(:sha256, 1, 16) AND sha256 = :sha256 AND size = :size"  # as the index has it
_ADD = f"INSERT INTO files ({FILE}) VALUES ({', '.join('?' * (FILE.count(',') + 1))})"


def add(connection: Connection, files: Sequence[File], *, share: bool) -> Sequence[File]:
    """See `Files.finish`."""
    added = []
    for new in files:  # one by one, for two of them may be equal
        file = _shared(connection, new) if share else new
        connection.execute(_ADD, file_row(file))
        added.append(file)
    return added


def _shared(connection: Connection, file: File) -> File:
    values = {"key": file.key, "sha256": file.sha256, "size": file.size}
    connection.execute(
        f"UPDATE files SET key = :key, damage = NULL WHERE damage IS NOT NULL AND {_TWINS}",
        values,
    )
    row = connection.execute(f"SELECT key FROM files WHERE {_TWINS} LIMIT 1", values).fetchone()
    return replace(file, key=Key(row[0])) if row else file


def by_key(connection: Connection, after: File | None, limit: int) -> Sequence[File]:
    """See `Inventory.by_key`."""
    start = ("", "") if after is None else (after.key, after.id)
    sql = f"SELECT {FILE} FROM files WHERE (key, id) > (?, ?) ORDER BY key, id LIMIT ?"
    return [to_file(row) for row in connection.execute(sql, (*start, limit))]


def mark(connection: Connection, key: Key, damage: Damage | None) -> Sequence[File]:
    """See `Inventory.mark`."""
    sql = f"UPDATE files SET damage = ? WHERE key = ? AND damage IS NOT ? RETURNING {FILE}"
    return [to_file(row) for row in connection.execute(sql, (damage, key, damage)).fetchall()]


def heal(connection: Connection, key: Key, sound: Key) -> None:
    """See `Inventory.heal`."""
    connection.execute("UPDATE files SET key = ?, damage = NULL WHERE key = ?", (sound, key))


def check(connection: Connection) -> Sequence[str]:
    """See `Inventory.check`."""
    found = [str(text) for [text] in connection.execute("PRAGMA quick_check(10)") if text != "ok"]
    wrong = """
        SELECT owner FROM (
            SELECT owner, 1 AS files, size FROM files
            UNION ALL SELECT owner, 0, kept FROM uploads
            UNION ALL SELECT owner, -files, -size FROM usage
        ) GROUP BY owner HAVING sum(files) <> 0 OR sum(size) <> 0 LIMIT 10
    """
    found += [f"the usage of {owner!r} is not the sum of what is kept" for [owner] in connection.execute(wrong)]
    promised = "SELECT (SELECT coalesce(sum(promised), 0) FROM uploads) <> (SELECT size FROM promised)"
    if connection.execute(promised).fetchone()[0]:
        found.append("what open uploads may still bring is not the sum of their promises")
    return found
