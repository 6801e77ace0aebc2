"""Sessions of browsers, on a connection to the SQLite index."""
# ruff: noqa: S608 - the names of columns are put into SQL, and they are ours; what a client sent is bound

from __future__ import annotations

from typing import TYPE_CHECKING

from spool.errors import NotFound
from spool.ports import Session
from spool.store.sqlite.rows import OVERRIDE, TOKEN, microseconds, moment, to_token

if TYPE_CHECKING:
    from datetime import datetime
    from sqlite3 import Connection

_TOKEN = ", ".join(f"tokens.{column}" for column in TOKEN.split(", "))


def add(connection: Connection, session: Session, secret_hash: str, over: datetime) -> None:
    """See `Sessions.add_session`."""
    connection.execute("DELETE FROM sessions WHERE expires_at <= ?", (microseconds(over),))
    sql = "INSERT INTO sessions SELECT ?, id, ? FROM tokens WHERE id = ?"
    row = (secret_hash, microseconds(session.expires_at), session.token.id)
    if not connection.execute(sql, row).rowcount:
        raise NotFound("There is no such token.")


def read(connection: Connection, secret_hash: str) -> Session | None:
    """See `Sessions.session`."""
    sql = f"""SELECT sessions.expires_at, {_TOKEN}, {OVERRIDE} FROM sessions
        JOIN tokens ON tokens.id = token_id LEFT JOIN overrides ON owner = name WHERE sessions.secret_hash = ?"""
    row = connection.execute(sql, (secret_hash,)).fetchone()
    return None if row is None else Session(to_token(row[1:]), moment(row[0]))
