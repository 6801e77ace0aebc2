"""The rows of resumable uploads, on a connection to the SQLite index. What changes them is called in a transaction."""
# ruff: noqa: S608 - the names of columns are put into SQL, and they are ours; what a client sent is bound

from __future__ import annotations

from typing import TYPE_CHECKING

from spool.errors import NotFound, Superseded
from spool.store.sqlite.rows import ADVANCED, UPLOAD, advanced_row, microseconds, to_upload, upload_row

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from sqlite3 import Connection

    from spool.model import FileId, Resumable, UploadId
    from spool.store.sqlite.rows import Row


def add(connection: Connection, upload: Resumable) -> None:
    """See `Uploads.add_upload`."""
    row = upload_row(upload)
    connection.execute(f"INSERT INTO uploads ({UPLOAD}) VALUES ({', '.join('?' * len(row))})", row)


def read(connection: Connection, id: UploadId) -> Resumable:
    """See `Uploads.upload`."""
    return _the_one(connection.execute(f"SELECT {UPLOAD} FROM uploads WHERE id = ?", (id,)).fetchall())


def claim(connection: Connection, id: UploadId) -> Resumable:
    """See `Uploads.claim`."""
    sql = f"UPDATE uploads SET epoch = epoch + 1 WHERE id = ? RETURNING {UPLOAD}"
    return _the_one(connection.execute(sql, (id,)).fetchall())


def advance(connection: Connection, upload: Resumable) -> None:
    """See `Uploads.advance`."""
    row = advanced_row(upload)
    sql = f"UPDATE uploads SET ({ADVANCED}) = ({', '.join('?' * len(row))}) WHERE id = ? AND epoch = ?"
    if not connection.execute(sql, (*row, upload.id, upload.epoch)).rowcount:
        raise _superseded()


def finish(connection: Connection, upload: Resumable, file_id: FileId) -> None:
    """The row is finished and names the file. Raises Superseded if it is not complete at the upload's epoch."""
    sql = "UPDATE uploads SET state = 'finished', file_id = ? WHERE id = ? AND epoch = ? AND state = 'complete'"
    if not connection.execute(sql, (file_id, upload.id, upload.epoch)).rowcount:
        raise _superseded()


def drop(connection: Connection, id: UploadId) -> Resumable:
    """See `Uploads.drop`."""
    return _the_one(connection.execute(f"DELETE FROM uploads WHERE id = ? RETURNING {UPLOAD}", (id,)).fetchall())


def stale(connection: Connection, before: datetime, limit: int) -> Sequence[Resumable]:
    """See `Uploads.stale`."""
    sql = f"SELECT {UPLOAD} FROM uploads WHERE expires_at <= ? ORDER BY expires_at LIMIT ?"
    return [to_upload(row) for row in connection.execute(sql, (microseconds(before), limit))]


def unfinished(connection: Connection, limit: int) -> Sequence[Resumable]:
    """See `Uploads.unfinished`; oldest first."""
    where = "state = 'complete' AND partial = 0"  # word for word the condition of the index
    sql = f"SELECT {UPLOAD} FROM uploads WHERE {where} ORDER BY created_at LIMIT ?"
    return [to_upload(row) for row in connection.execute(sql, (limit,))]


def page(connection: Connection, after: UploadId | None, limit: int) -> Sequence[Resumable]:
    """See `Inventory.uploads`."""
    sql = f"SELECT {UPLOAD} FROM uploads WHERE id > ? AND state <> 'finished' ORDER BY id LIMIT ?"
    return [to_upload(row) for row in connection.execute(sql, (after or "", limit))]


def promised(connection: Connection) -> int:
    """See `Uploads.promised`."""
    return int(connection.execute("SELECT size FROM promised").fetchone()[0])


def _the_one(rows: Sequence[Row]) -> Resumable:
    if not rows:
        raise NotFound("There is no such upload.")
    return to_upload(rows[0])


def _superseded() -> Superseded:
    return Superseded("Another request has taken this upload over.")
