"""The audit log, on a connection to the SQLite index. An entry is written in the transaction that does what it says."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from spool.model import Entry
from spool.store.sqlite.rows import microseconds, moment

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from sqlite3 import Connection

    from spool.model import Act, By, File, Grant, Link, Override, Token

_LOT: Final = 10_000
"""Entries that are forgotten in one go."""
_MOST_NAMES: Final = 20
"""Fields of the metadata, or types, that an entry names, so that no request can make it large."""
_LONGEST_NAME: Final = 100


def append(connection: Connection, by: By | None, act: Act, subject: str, detail: Mapping[str, object]) -> None:
    """What is being done is recorded, unless nobody did it."""
    if by is None:
        return
    sql = "INSERT INTO audit (at, who, via, request_id, act, subject, detail) VALUES (?, ?, ?, ?, ?, ?, ?)"
    text = json.dumps(detail, ensure_ascii=False)
    connection.execute(sql, (microseconds(by.at), by.who, by.via, by.request_id, act, subject, text))


def changed(before: File, after: File) -> dict[str, object]:
    """What an edit has made of a file: old and new name and expiry, and which fields of the metadata."""
    detail: dict[str, object] = {}
    if before.filename != after.filename:
        detail["filename"] = [before.filename, after.filename]
    if before.expires_at != after.expires_at:
        detail["expires_at"] = [time(before.expires_at), time(after.expires_at)]
    if before.metadata != after.metadata:
        names = before.metadata.keys() | after.metadata.keys()
        other = sorted(name for name in names if before.metadata.get(name) != after.metadata.get(name))
        detail["metadata"] = [name[:_LONGEST_NAME] for name in other[:_MOST_NAMES]]
    return detail


def deleted(file: File) -> dict[str, object]:
    """What there was."""
    return {
        "owner": file.owner,
        "filename": file.filename,
        "size": file.size,
        "media_type": file.media_type,
        "sha256": file.sha256,
        "created_at": time(file.created_at),
    }


def token_detail(token: Token) -> dict[str, object]:
    """Of a token, whatever is no secret."""
    return {"name": token.name, "scopes": sorted(token.scopes), "expires_at": time(token.expires_at)}


def grant_detail(grant: Grant) -> dict[str, object]:
    """Whose it is, its bounds, and what has come by it; neither its secret nor what it says to guests."""
    return {
        "owner": grant.owner,
        "expires_at": time(grant.expires_at),
        "max_files": grant.max_files,
        "max_size": grant.max_size,
        "max_file_size": grant.max_file_size,
        "types": [glob[:_LONGEST_NAME] for glob in grant.types[:_MOST_NAMES]],
        "passphrase": grant.passphrase is not None,
        "files": grant.files,
        "size": grant.size,
    }


def link_detail(link: Link) -> dict[str, object]:
    """Of which file it is, who made it, its bounds, and how often it has given the file out; not its secret."""
    return {
        "file_id": link.file_id,
        "created_by": link.created_by,
        "expires_at": time(link.expires_at),
        "max_downloads": link.max_downloads,
        "downloads": link.downloads,
    }


def limits_detail(override: Override) -> dict[str, object]:
    """What was set, and nothing that stayed as it was."""
    numbers = {
        "quota": override.quota,
        "quota_files": override.quota_files,
        "requests_per_minute": override.requests_per_minute,
        "uploads": override.uploads,
    }
    return {name: number for name, number in numbers.items() if number is not None}


def entries(connection: Connection, since: datetime, after: int, limit: int) -> Sequence[Entry]:
    """See `Audit.audited`."""
    sql = """SELECT number, at, who, via, request_id, act, subject, detail FROM audit
        WHERE number > ? AND at >= ? ORDER BY number LIMIT ?"""
    rows = connection.execute(sql, (after, microseconds(since), limit))
    return [
        Entry(number, moment(at), who, via, request_id, act, subject, json.loads(detail))
        for number, at, who, via, request_id, act, subject, detail in rows
    ]


def forget(connection: Connection, before: datetime | None, most: int) -> int:
    """See `Audit.forget_audited`; the oldest first, and so many at a time that no other write waits long."""
    sql = """DELETE FROM audit WHERE number IN (SELECT number FROM audit ORDER BY number LIMIT ?)
        AND (at < ? OR number <= (SELECT max(number) FROM audit) - ?)"""
    moment_before = 0 if before is None else microseconds(before)
    return connection.execute(sql, (_LOT, moment_before, most)).rowcount


def time(value: datetime | None) -> str | None:
    """As entries have it."""
    return None if value is None else value.isoformat().replace("+00:00", "Z")
