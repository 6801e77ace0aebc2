"""Files that were deleted and can still be brought back, in the SQLite index. A file's row moves in one transaction."""
# ruff: noqa: S608 - the names of columns are put into SQL, and they are ours; what a client sent is bound

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from spool.errors import NotFound
from spool.hiding import Changes, Hidden
from spool.model import FileId
from spool.store.sqlite import audit
from spool.store.sqlite.rows import ADDED, FILE, microseconds, moment, to_file

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from sqlite3 import Connection

    from spool.hiding import Hiding as Port
    from spool.model import By, File
    from spool.store.sqlite.database import Database

_ALL: Final = f"{ADDED}, body"


class Hiding:
    """Hiding in one database."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def hide(self, id: FileId, until: datetime, by: By) -> Hidden:
        return await self._db.make_room(lambda connection: _hide(connection, id, until, by))

    async def restore(self, id: FileId, by: By) -> File:
        return await self._db.write(lambda connection: _restore(connection, id, by))

    async def hidden(self, now: datetime, limit: int) -> Sequence[Hidden]:
        sql = f"SELECT {FILE}, until FROM hidden WHERE until > ? ORDER BY until DESC, id LIMIT ?"
        rows = await self._db.rows(sql, microseconds(now), limit)
        return [Hidden(to_file(row), moment(row[-1])) for row in rows]

    async def changes(self, after: int | None, limit: int) -> Changes:
        return await self._db.read(lambda connection: _changes(connection, after, limit))

    async def end_hidden(self, now: datetime, limit: int) -> Sequence[File]:
        return await self._db.make_room(lambda connection: _end(connection, now, limit))


def take(connection: Connection, id: FileId) -> File:
    """The file's row is gone, whether it was hidden or not; returns what it was. Raises NotFound."""
    for table in ("files", "hidden"):
        row = connection.execute(f"SELECT {FILE} FROM {table} WHERE id = ?", (id,)).fetchone()
        if row is not None:
            connection.execute(f"DELETE FROM {table} WHERE id = ?", (id,))
            return to_file(row)
    raise NotFound("There is no such file.")


def _hide(connection: Connection, id: FileId, until: datetime, by: By) -> Hidden:
    now = microseconds(by.at)
    sql = f"SELECT {FILE} FROM files WHERE id = ? AND (expires_at IS NULL OR expires_at > ?)"
    row = connection.execute(sql, (id, now)).fetchone()
    if row is None:
        raise NotFound("There is no such file.")
    file = to_file(row)
    until = until if file.expires_at is None else min(until, file.expires_at)
    moved = f"INSERT INTO hidden ({_ALL}, until) SELECT {_ALL}, ? FROM files WHERE id = ?"
    connection.execute(moved, (microseconds(until), id))
    connection.execute("INSERT INTO hidden_links SELECT * FROM links WHERE file_id = ?", (id,))
    connection.execute("DELETE FROM files WHERE id = ?", (id,))
    audit.append(connection, by, "file.deleted", id, {**audit.deleted(file), "until": audit.time(until)})
    return Hidden(file, until)


def _restore(connection: Connection, id: FileId, by: By) -> File:
    sql = f"SELECT {FILE} FROM hidden WHERE id = ? AND until > ?"
    row = connection.execute(sql, (id, microseconds(by.at))).fetchone()
    if row is None:
        raise NotFound("There is no deleted file of this id, or none that can still be brought back.")
    file = to_file(row)
    connection.execute(f"INSERT INTO files ({_ALL}) SELECT {_ALL} FROM hidden WHERE id = ?", (id,))
    connection.execute("INSERT INTO links SELECT * FROM hidden_links WHERE file_id = ?", (id,))
    connection.execute("DELETE FROM hidden WHERE id = ?", (id,))
    audit.append(connection, by, "file.restored", id, {"filename": file.filename})
    return file


def _changes(connection: Connection, after: int | None, limit: int) -> Changes:
    latest = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'audit'").fetchone() or (0,)
    if after is None:
        return Changes(latest[0], ())
    acts = "'file.changed', 'file.deleted', 'file.restored'"
    sql = f"SELECT number, subject FROM audit WHERE number > ? AND act IN ({acts}) ORDER BY number LIMIT ?"
    rows = connection.execute(sql, (after, limit)).fetchall()
    position = rows[-1][0] if len(rows) == limit else latest[0]
    return Changes(position, tuple(dict.fromkeys(FileId(subject) for _, subject in rows)))


def _end(connection: Connection, now: datetime, limit: int) -> Sequence[File]:
    over = "SELECT id FROM hidden WHERE until <= ? ORDER BY until LIMIT ?"
    sql = f"DELETE FROM hidden WHERE id IN ({over}) RETURNING {FILE}"
    return [to_file(row) for row in connection.execute(sql, (microseconds(now), limit)).fetchall()]


if TYPE_CHECKING:
    _conforms: type[Port] = Hiding
