"""Links, and what was given out by them, on a connection to the SQLite index."""
# ruff: noqa: S608 - the names of columns are put into SQL, and they are ours; what a client sent is bound

from __future__ import annotations

from typing import TYPE_CHECKING

from spool.errors import Gone, NotFound
from spool.store.sqlite import audit
from spool.store.sqlite.rows import LINK, link_row, microseconds, to_link

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from sqlite3 import Connection

    from spool.model import By, FileId, Link, LinkId


def add(connection: Connection, link: Link, secret_hash: str, by: By | None) -> None:
    """See `Links.add_link`."""
    if not connection.execute("SELECT 1 FROM files WHERE id = ?", (link.file_id,)).fetchone():
        raise NotFound("There is no such file.")
    row = link_row(link)
    sql = f"INSERT INTO links ({LINK}, secret_hash) VALUES ({', '.join('?' * len(row))}, ?)"
    connection.execute(sql, (*row, secret_hash))
    audit.append(connection, by, "link.created", link.id, audit.link_detail(link))


def by_secret(connection: Connection, secret_hash: str) -> Link | None:
    """See `Links.link_of`."""
    row = connection.execute(f"SELECT {LINK} FROM links WHERE secret_hash = ?", (secret_hash,)).fetchone()
    return to_link(row) if row else None


def of_file(connection: Connection, file_id: FileId, limit: int) -> Sequence[Link]:
    """See `Links.links`."""
    sql = f"SELECT {LINK} FROM links WHERE file_id = ? ORDER BY created_at DESC, id DESC LIMIT ?"
    return [to_link(row) for row in connection.execute(sql, (file_id, limit))]


def revoke(connection: Connection, id: LinkId, now: datetime, by: By | None) -> None:
    """See `Links.revoke_link`."""
    row = connection.execute(f"SELECT {LINK} FROM links WHERE id = ?", (id,)).fetchone()
    if row is None:
        raise NotFound("There is no such link.")
    link = to_link(row)
    if link.revoked_at is None:
        connection.execute("UPDATE links SET revoked_at = ? WHERE id = ?", (microseconds(now), id))
        audit.append(connection, by, "link.revoked", id, audit.link_detail(link))


def take(connection: Connection, id: LinkId, size: int, downloads: int) -> None:
    """See `Links.take_download`."""
    sql = """UPDATE links SET downloads = downloads + :downloads, given = given + :size
        WHERE id = :id AND revoked_at IS NULL AND downloads + :downloads <= max_downloads
        AND given + :size <= (max_downloads + 1) * (SELECT size FROM files WHERE files.id = file_id)"""
    if not connection.execute(sql, {"downloads": downloads, "size": size, "id": id}).rowcount:
        raise Gone("this link is used up: the file was given out as often as it allows")


def give_back(connection: Connection, id: LinkId, size: int, downloads: int) -> None:
    """See `Links.give_back`."""
    for table in ("links", "hidden_links"):  # its file may have been hidden meanwhile, and may come back
        sql = f"UPDATE {table} SET downloads = downloads - ?, given = given - ? WHERE id = ?"
        connection.execute(sql, (downloads, size, id))
