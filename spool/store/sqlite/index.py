"""The index in one SQLite file: one thread writes, in groups, and a few read."""
# ruff: noqa: S608 - the names of columns are put into SQL, and they are ours; what a client sent is bound

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeVar, cast

from spool.errors import NotFound, Rejected
from spool.model import Key
from spool.store.sqlite import audit, grants, inventory, limits, sessions, uploads
from spool.store.sqlite.database import open_database
from spool.store.sqlite.files import copy
from spool.store.sqlite.hiding import Hiding, take
from spool.store.sqlite.pages import SCAN, read_page
from spool.store.sqlite.rows import (
    ANSWER,
    FILE,
    OVERRIDE,
    TOKEN,
    answer_row,
    edited_row,
    microseconds,
    scrub_value,
    to_answer,
    to_file,
    to_scrub,
    to_token,
    token_row,
)
from spool.store.sqlite.sharing import Sharing

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path
    from sqlite3 import Connection

    from spool.model import (
        Answer,
        By,
        Damage,
        Entry,
        File,
        FileId,
        FileQuery,
        Override,
        Page,
        Resumable,
        Scrub,
        Token,
        TokenId,
        Totals,
        UploadId,
        Usage,
        Window,
    )
    from spool.ports import Index, Session
    from spool.store.sqlite.database import Database

    Operation = Callable[[Connection], object]

R = TypeVar("R")

_DAY = timedelta(days=1) // timedelta(microseconds=1)


async def open_sqlite(
    path: Path,
    *,
    scan: int = SCAN,
    connected: Callable[[Connection], object] = lambda _: None,
    shared: bool = False,
) -> SqliteIndex:
    """The index at `path`, which is made if need be; its folder must exist. `connected` is shown every connection.

    Several processes may have it open; those that write as much as this one are all to say that it is `shared`. Raises
    Unavailable if it cannot be opened or is of a newer Spool.
    """
    return SqliteIndex(await open_database(path, connected, shared=shared), scan=scan)


class SqliteIndex(Sharing, Hiding):
    """An Index in one database."""

    def __init__(self, db: Database, *, scan: int) -> None:
        super().__init__(db)
        self._scan = scan

    async def finish(
        self,
        files: Sequence[File],
        answer: Answer | None = None,
        upload: Resumable | None = None,
        *,
        share: bool = False,
        bodies: Mapping[FileId, bytes] = MappingProxyType({}),
    ) -> Sequence[File]:
        def operation(connection: Connection) -> Sequence[File]:
            grants.record(connection, files)
            if upload is not None:
                [file] = files
                uploads.finish(connection, upload, file.id)
            added = inventory.add(connection, files, bodies, share=share)
            if answer is not None:
                _record_answer(connection, replace(answer, files=tuple(added)))
            return added

        return await self._db.write(operation)

    async def file(self, id: FileId) -> File:
        return await self._db.look(lambda connection: _file(connection, id))

    async def body(self, id: FileId) -> bytes:
        row = await self._db.row("SELECT body FROM files WHERE id = ? AND body IS NOT NULL", id)
        if row is None:
            raise NotFound("There is no such file.")
        return cast("bytes", row[0])

    async def files(self, query: FileQuery) -> Page[File]:
        return await self._db.read(lambda connection: read_page(connection, query, self._scan))

    async def annotate(self, id: FileId, edit: Callable[[File], File], by: By | None = None) -> File:
        def operation(connection: Connection) -> File:
            before = _file(connection, id)
            after = edit(before)
            if detail := audit.changed(before, after):
                audit.append(connection, by, "file.changed", id, detail)
            sql = "UPDATE files SET filename = ?, expires_at = ?, metadata = ? WHERE id = ?"
            connection.execute(sql, (*edited_row(after), id))
            return replace(before, filename=after.filename, expires_at=after.expires_at, metadata=after.metadata)

        return await self._db.write(operation)

    async def remove(self, id: FileId, by: By | None = None) -> File:
        def operation(connection: Connection) -> File:
            file = take(connection, id)
            audit.append(connection, by, "file.deleted", id, audit.deleted(file))
            return file

        return await self._db.make_room(operation)

    async def expired(self, now: datetime, limit: int) -> Sequence[File]:
        sql = f"SELECT {FILE} FROM files WHERE expires_at <= ? ORDER BY expires_at LIMIT ?"
        return [to_file(row) for row in await self._db.rows(sql, microseconds(now), limit)]

    async def referenced(self, keys: Collection[Key]) -> set[Key]:
        await self._db.be_certain()  # or the caller might delete the blob of a row that comes back
        # As one JSON array, for the number of parameters is limited.
        # One statement, so that no key falls between: an upload's row hands its key over to a file's, and a file's is
        # hidden and comes back. One row for each key, however many files share its blob.
        sql = """SELECT value FROM json_each(?) WHERE EXISTS (SELECT 1 FROM files WHERE key = value)
            OR EXISTS (SELECT 1 FROM hidden WHERE key = value)
            OR EXISTS (SELECT 1 FROM uploads WHERE key = value AND state <> 'finished')"""
        return {Key(key) for [key] in await self._db.rows(sql, json.dumps(list(keys)))}

    async def usage(self, owner: str) -> Usage:
        return await self._db.look(lambda connection: limits.usage(connection, owner))

    async def totals(self) -> Totals:
        return await self._db.read(inventory.totals)

    async def by_key(
        self, after: File | None, limit: int, *, start: str = "", end: str | None = None
    ) -> Sequence[File]:
        return await self._db.read(lambda connection: inventory.by_key(connection, after, limit, (start, end)))

    async def uploads(self, after: UploadId | None, limit: int) -> Sequence[Resumable]:
        return await self._db.read(lambda connection: uploads.page(connection, after, limit))

    async def mark(self, key: Key, damage: Damage | None) -> Sequence[File]:
        return await self._db.write(lambda connection: inventory.mark(connection, key, damage))

    async def heal(self, key: Key, sound: Key) -> None:
        await self._db.write(lambda connection: inventory.heal(connection, key, sound))

    async def check(self) -> Sequence[str]:
        return await self._db.read(inventory.check)

    async def recount(self) -> None:
        drift = await self._db.read(inventory.drift)
        await self._db.write(lambda connection: inventory.correct(connection, drift))

    async def scrubbed(self) -> Scrub | None:
        rows = await self._db.rows("SELECT value FROM settings WHERE name = 'scrub'")
        return to_scrub(rows[0][0]) if rows else None

    async def note_scrubbed(self, scrub: Scrub) -> None:
        sql = "INSERT INTO settings VALUES ('scrub', ?) ON CONFLICT DO UPDATE SET value = excluded.value"
        await self._db.change(sql, scrub_value(scrub))

    async def add_upload(self, upload: Resumable) -> None:
        await self._db.write(lambda connection: uploads.add(connection, upload))

    async def upload(self, id: UploadId) -> Resumable:
        return await self._db.look(lambda connection: uploads.read(connection, id))

    async def claim(self, id: UploadId) -> Resumable:
        # an upload is claimed before it is dropped
        return await self._db.make_room(lambda connection: uploads.claim(connection, id))

    async def advance(self, upload: Resumable) -> None:
        await self._db.write(lambda connection: uploads.advance(connection, upload))

    async def drop(self, id: UploadId) -> Resumable:
        return await self._db.make_room(lambda connection: uploads.drop(connection, id))

    async def stale(self, before: datetime, limit: int) -> Sequence[Resumable]:
        return await self._db.read(lambda connection: uploads.stale(connection, before, limit))

    async def unfinished(self, limit: int) -> Sequence[Resumable]:
        return await self._db.read(lambda connection: uploads.unfinished(connection, limit))

    async def promised(self) -> int:
        return await self._db.look(uploads.promised)

    async def answer(self, owner: str, idempotency_key: str, since: datetime) -> Answer | None:
        sql = f"SELECT {ANSWER} FROM answers WHERE owner = ? AND idempotency_key = ? AND created_at >= ?"
        row = await self._db.row(sql, owner, idempotency_key, microseconds(since))
        return to_answer(row) if row else None

    async def forget(self, before: datetime) -> int:
        forgotten = await self._db.forget("answers", "created_at", microseconds(before))
        await self._db.set_aside()  # here, because this comes after whatever a sweep deletes
        return forgotten

    @property
    def queued(self) -> int:
        """Transactions that wait for those under way."""
        return self._db.queued

    async def owed(self) -> int:
        """Bytes of the disk that are free, but not for uploads."""
        return await self._db.owed()

    async def add_token(self, token: Token, secret_hash: str, by: By | None = None) -> None:
        def operation(connection: Connection) -> None:
            audit.append(connection, by, "token.created", token.id, audit.token_detail(token))
            sql = f"INSERT INTO tokens ({TOKEN}, secret_hash) VALUES (?, ?, ?, ?, ?, ?)"
            connection.execute(sql, (*token_row(token), secret_hash))
            connection.execute("INSERT INTO settings VALUES ('tokens', x'01') ON CONFLICT DO NOTHING")

        await self._db.write(operation)

    async def token(self, secret_hash: str) -> Token | None:
        sql = f"SELECT {TOKEN}, {OVERRIDE} FROM tokens LEFT JOIN overrides ON owner = name WHERE secret_hash = ?"
        row = await self._db.row(sql, secret_hash)
        return to_token(row) if row else None

    async def tokens(self) -> Sequence[Token]:
        rows = await self._db.rows(f"SELECT {TOKEN} FROM tokens ORDER BY created_at, id")
        return [to_token(row) for row in rows]

    async def revoke(self, id: TokenId, by: By | None = None) -> None:
        def operation(connection: Connection) -> None:
            row = connection.execute(f"DELETE FROM tokens WHERE id = ? RETURNING {TOKEN}", (id,)).fetchone()
            if row is None:
                raise NotFound("There is no such token.")
            audit.append(connection, by, "token.revoked", id, audit.token_detail(to_token(row)))

        await self._db.write(operation)

    async def has_tokens(self) -> bool:
        return await self._db.look(limits.has_tokens)

    async def without_token(self, owner: str) -> tuple[bool, Override | None]:
        return await self._db.look(
            lambda connection: (limits.has_tokens(connection), limits.override(connection, owner))
        )

    async def add_session(self, session: Session, secret_hash: str, over: datetime) -> None:
        await self._db.write(lambda connection: sessions.add(connection, session, secret_hash, over))

    async def session(self, secret_hash: str) -> Session | None:
        return await self._db.read(lambda connection: sessions.read(connection, secret_hash))

    async def end_session(self, secret_hash: str) -> None:
        await self._db.change("DELETE FROM sessions WHERE secret_hash = ?", secret_hash)

    async def override(self, owner: str) -> Override | None:
        return await self._db.look(lambda connection: limits.override(connection, owner))

    async def overrides(self) -> Sequence[Override]:
        return await self._db.read(limits.overrides)

    async def set_override(self, override: Override, by: By | None = None) -> None:
        def operation(connection: Connection) -> None:
            limits.set_override(connection, override)
            audit.append(connection, by, "limit.set", override.owner, audit.limits_detail(override))

        await self._db.write(operation)

    async def clear_override(self, owner: str, by: By | None = None) -> None:
        def operation(connection: Connection) -> None:
            limits.clear_override(connection, owner)
            audit.append(connection, by, "limit.cleared", owner, {})

        await self._db.write(operation)

    async def audited(self, since: datetime, after: int, limit: int) -> Sequence[Entry]:
        return await self._db.read(lambda connection: audit.entries(connection, since, after, limit))

    async def forget_audited(self, before: datetime | None, most: int) -> int:
        return await self._db.make_room(lambda connection: audit.forget(connection, before, most))

    async def keep_windows(self, windows: Sequence[Window], over: datetime) -> None:
        await self._db.write(lambda connection: limits.keep_windows(connection, windows, over))

    async def windows(self) -> Sequence[Window]:
        return await self._db.read(limits.windows)

    async def secret(self) -> bytes:
        [[secret]] = await self._db.rows("SELECT value FROM settings WHERE name = 'secret'")
        return cast("bytes", secret)

    async def probe(self) -> None:
        sql = "INSERT INTO settings VALUES ('probe', x'') ON CONFLICT DO UPDATE SET value = excluded.value"
        await self._db.change(sql)
        await self._db.rows("SELECT value FROM settings WHERE name = 'probe'")

    async def copy_to(self, path: Path) -> None:
        """The empty index at `path` is this one as it is at one moment, less uploads that are not finished."""
        await self._db.read(lambda connection: copy(connection, path))

    async def aclose(self) -> None:
        await self._db.aclose()


def _file(connection: Connection, id: FileId) -> File:
    rows = connection.execute(f"SELECT {FILE} FROM files WHERE id = ?", (id,)).fetchall()
    if not rows:
        raise NotFound("There is no such file.")
    return to_file(rows[0])


def _record_answer(connection: Connection, answer: Answer) -> None:
    sql = f"""
        INSERT INTO answers ({ANSWER}) VALUES (?, ?, ?, ?, ?)
        ON CONFLICT DO UPDATE
        SET fingerprint = excluded.fingerprint, created_at = excluded.created_at, files = excluded.files
        WHERE answers.created_at < excluded.created_at - {_DAY}
    """
    if not connection.execute(sql, answer_row(answer)).rowcount:
        raise Rejected("This Idempotency-Key was used for another request.")


if TYPE_CHECKING:
    _conforms: type[Index] = SqliteIndex
