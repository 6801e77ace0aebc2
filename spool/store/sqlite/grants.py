"""Grants, and what came by them, on a connection to the SQLite index. What changes them is called in a transaction."""
# ruff: noqa: S608 - the names of columns are put into SQL, and they are ours; what a client sent is bound

from __future__ import annotations

from typing import TYPE_CHECKING

from spool.errors import BeyondGrant, Gone, NotFound
from spool.model import Usage
from spool.store.sqlite import audit
from spool.store.sqlite.rows import GRANT, OVERRIDE, UPLOAD, grant_row, microseconds, to_grant, to_upload

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from sqlite3 import Connection

    from spool.model import By, File, Grant, GrantId, Resumable
    from spool.store.sqlite.rows import Row

_LAST = 2**63 - 1
"""A time after all others."""
_SET = ", ".join(f"overrides.{name}" for name in OVERRIDE.split(", "))
_WITH_OVERRIDE = f"SELECT {GRANT}, {_SET} FROM grants LEFT JOIN overrides ON overrides.owner = grants.owner"


def add(connection: Connection, grant: Grant, secret_hash: str, by: By | None) -> None:
    """See `Grants.add_grant`."""
    row = grant_row(grant)
    columns = GRANT.replace("grants.", "")
    sql = f"INSERT INTO grants ({columns}, secret_hash) VALUES ({', '.join('?' * len(row))}, ?)"
    connection.execute(sql, (*row, secret_hash))
    audit.append(connection, by, "grant.created", grant.id, audit.grant_detail(grant))


def by_secret(connection: Connection, secret_hash: str) -> Grant | None:
    """See `Grants.grant_of`."""
    row = connection.execute(f"{_WITH_OVERRIDE} WHERE secret_hash = ?", (secret_hash,)).fetchone()
    return to_grant(row) if row else None


def read(connection: Connection, id: GrantId) -> Grant:
    """See `Grants.grant`."""
    row = connection.execute(f"{_WITH_OVERRIDE} WHERE id = ?", (id,)).fetchone()
    return to_grant(_required(row))


def page(
    connection: Connection, owner: str | None, after: Grant | None, limit: int, *, newest: bool
) -> Sequence[Grant]:
    """See `Grants.grants`."""
    beyond, order = ("<", "DESC") if newest else (">", "ASC")
    first = (_LAST, "") if newest else (0, "")
    place = first if after is None else (microseconds(after.created_at), after.id)
    mine, values = ("", ()) if owner is None else ("AND owner = ?", (owner,))
    sql = f"""SELECT {GRANT} FROM grants WHERE (created_at, id) {beyond} (?, ?) {mine}
        ORDER BY created_at {order}, id {order} LIMIT ?"""
    return [to_grant(row) for row in connection.execute(sql, (*place, *values, limit))]


def revoke(connection: Connection, id: GrantId, now: datetime, by: By | None) -> Sequence[Resumable]:
    """See `Grants.revoke_grant`."""
    grant = read(connection, id)
    if grant.revoked_at is None:
        connection.execute("UPDATE grants SET revoked_at = ? WHERE id = ?", (microseconds(now), id))
        audit.append(connection, by, "grant.revoked", id, audit.grant_detail(grant))
    sql = f"DELETE FROM uploads WHERE grant_id = ? AND state <> 'finished' RETURNING {UPLOAD}"
    return [to_upload(row) for row in connection.execute(sql, (id,)).fetchall()]


def usage(connection: Connection, id: GrantId) -> Usage:
    """See `Grants.grant_usage`."""
    came = connection.execute("SELECT files, size FROM grants WHERE id = ?", (id,)).fetchone() or (0, 0)
    sql = """SELECT count(*), coalesce(sum(kept), 0) FROM uploads INDEXED BY uploads_by_grant
        WHERE grant_id = ? AND state <> 'finished'"""
    uploads, size = connection.execute(sql, (id,)).fetchone()
    return Usage(came[0], came[1] + size, uploads)


def record(connection: Connection, files: Sequence[File]) -> None:
    """The grant by which all of these files came has counted them.

    Raises Gone if it has ended by when they are recorded, BeyondGrant if they are more than may come by it.
    """
    if not files or files[0].grant is None:
        return
    id, count, size = files[0].grant, len(files), sum(file.size for file in files)  # noqa: A001 - see rows
    row = connection.execute(f"SELECT {GRANT} FROM grants WHERE id = ?", (id,)).fetchone()
    grant = to_grant(row) if row else None
    if grant is None or grant.revoked_at is not None or grant.expires_at <= files[0].created_at:
        raise Gone("The link by which this came has expired, or was revoked.")
    if grant.files + count > grant.max_files:
        used = grant.files + count
        raise BeyondGrant(
            "This is more files than may come by this link.", limit=grant.max_files, used=used, unit="files"
        )
    if grant.max_size and grant.size + size > grant.max_size:
        used = grant.size + size
        raise BeyondGrant(
            "This is more bytes than may come by this link.", limit=grant.max_size, used=used, unit="bytes"
        )
    connection.execute("UPDATE grants SET files = files + ?, size = size + ? WHERE id = ?", (count, size, id))


def _required(row: Row | None) -> Row:
    if row is None:
        raise _unknown()
    return row


def _unknown() -> NotFound:
    return NotFound("There is no such grant.")
