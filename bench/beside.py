"""How long others wait to write while a sweep or a check goes through an index that has grown."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from bench.clients import Failed
from spool.model import FileId, FileQuery, Key
from spool.staging import new_id
from spool.store import open_blobs
from spool.store.sqlite import open_sqlite
from spool.upkeep import EVER, sweep
from spool.work import audit, gc
from spool.work.fsck import Fsck

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from pathlib import Path

    from spool.store import LocalStore
    from spool.store.sqlite import SqliteIndex

_ENDED: Final = 100_000
"""Answers, grants, links and entries of the audit log that a sweep forgets, of each."""
_FILES: Final = 2000
"""Files that have expired, hidden ones whose grace is over, and blobs without a record, of each; damaged ones too."""
_SHARDS: Final = 8
"""Directories in which blobs without a record lie: beside a server the check waits a second in each."""
_TURN: Final = 0.005
"""Seconds between two single writes."""
_NOTHING: Final = 10
"""Seconds for which it writes beside nothing, to compare with."""

Note = dict[str, float]
"""What was measured, by its name with its unit."""


class Transactions:
    """What each transaction of an index has cost, as its first connection, which writes, tells of its statements."""

    def __init__(self) -> None:
        self.cpu: list[float] = []
        """Seconds of the writer's thread from one transaction to the next: the log's being carried over is among it."""
        self.held: list[float] = []
        """Seconds from its begin until its commit begins, with whatever the machine did meanwhile."""
        self._seen = False
        self._begun: tuple[float, float] | None = None

    def __call__(self, connection: sqlite3.Connection) -> None:
        """For `open_sqlite`."""
        if not self._seen:
            connection.set_trace_callback(self._trace)
        self._seen = True

    def _trace(self, statement: str) -> None:
        now = time.thread_time(), time.monotonic()
        if statement == "BEGIN IMMEDIATE":
            if self._begun is not None:
                self.cpu.append(now[0] - self._begun[0])
            self._begun = now
        elif statement == "COMMIT" and self._begun is not None:
            self.held.append(now[1] - self._begun[1])


def beside(directory: Path) -> Iterator[Note]:
    """The longest transactions of a sweep and of a check, and the waits of others who write single rows meanwhile.

    The directory's blobs are as large as their records say.
    """
    with closing(sqlite3.connect(directory / "index.db", isolation_level=None)) as connection:
        _end(connection, directory)
    yield asyncio.run(_beside("a sweep", directory, _sweep))
    with closing(sqlite3.connect(directory / "index.db", isolation_level=None)) as connection:
        _demand_gone(connection)
        _damage(connection, directory)
    yield asyncio.run(_beside("fsck --repair", directory, _check))
    yield asyncio.run(_beside("nothing", directory, _rest))


async def _beside(what: str, directory: Path, work: Callable[[LocalStore, SqliteIndex], Awaitable[None]]) -> Note:
    transactions = Transactions()
    blobs = await open_blobs(directory)
    index = await open_sqlite(directory / "index.db", connected=transactions)
    async with _written(index) as waits:
        start = time.monotonic()
        await work(blobs, index)
        seconds = time.monotonic() - start
    await index.aclose()
    await blobs.aclose()
    waits.sort()
    return {
        f"{what}, s": seconds,
        f"the longest transaction beside {what}, CPU ms": 1e3 * max(transactions.cpu),
        f"the longest transaction beside {what}, ms": 1e3 * max(transactions.held),
        f"a row written beside {what}, p99 ms": 1e3 * waits[len(waits) * 99 // 100],
        f"a row written beside {what}, longest ms": 1e3 * waits[-1],
    }


@asynccontextmanager
async def _written(index: SqliteIndex) -> AsyncIterator[list[float]]:
    """Single records, of files without a blob, are written meanwhile; the seconds that each took."""
    took: list[float] = []
    [like] = (await index.files(FileQuery(limit=1))).items

    async def write() -> None:
        while True:
            id = new_id(datetime.now(UTC))  # noqa: A001  # `id` is the word of the design
            file = replace(like, id=FileId(id), key=Key(id), expires_at=None, inline=True)
            start = time.monotonic()
            await index.finish([file], bodies={file.id: b""})
            took.append(time.monotonic() - start)
            await asyncio.sleep(_TURN)

    writer = asyncio.create_task(write())
    try:
        yield took
    finally:
        writer.cancel()
        await asyncio.wait([writer])


async def _sweep(blobs: LocalStore, index: SqliteIndex) -> None:
    await sweep(blobs, index, gc.nobody, EVER, lambda: datetime.now(UTC))
    await audit.run_once(index, lambda: datetime.now(UTC), timedelta(days=365))


async def _check(blobs: LocalStore, index: SqliteIndex) -> None:
    """Raises Failed if the check does not find, and mend, what there is."""
    fsck = Fsck(blobs, index, repair=True, since=datetime.now(UTC) - timedelta(hours=24))
    mended = [finding.kind async for finding in fsck.run() if finding.repaired or finding.kind == "missing"]
    if len(mended) != 2 * _FILES + 1:
        raise Failed(f"the check found {len(mended)} things")


async def _rest(_: LocalStore, __: SqliteIndex) -> None:
    await asyncio.sleep(_NOTHING)


def _end(connection: sqlite3.Connection, directory: Path) -> None:
    """Much of what a sweep deletes is there: as old as it may be, spread over the index as it comes."""
    old = round((datetime.now(UTC) - timedelta(days=400)).timestamp() * 1e6)
    numbers = f"WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {_ENDED})"
    name, ended = "lower(hex(randomblob(16)))", f"{old} + abs(random()) % 1000000000"
    connection.execute("BEGIN")
    for table, row in {
        "answers": f"'local', {name}, 'x', {ended}, '[]'",
        "grants": f"{name}, {name}, 'local', '', {old}, {ended}, 1, 0, 0, '[]', NULL, NULL, 0, 0",
        "audit": f"NULL, {old}, 'local', 'http', NULL, 'file.changed', {name}, '{{}}'",
    }.items():
        connection.execute(f"INSERT INTO {table} {numbers} SELECT {row} FROM n")
    some = f"SELECT id FROM files ORDER BY id LIMIT {_ENDED}"
    link = f"{name}, id, {name}, 'local', {old}, {ended}, NULL, NULL, 0, 0"
    connection.execute(f"INSERT INTO links SELECT {link} FROM ({some})")
    spread = f"SELECT id FROM files WHERE rowid % (SELECT max(rowid) / {2 * _FILES} FROM files) = 0"
    connection.execute(f"UPDATE files SET expires_at = {ended} WHERE id IN ({spread} LIMIT {_FILES})")
    _hide(connection, f"{spread} AND expires_at IS NULL LIMIT {_FILES}", old)
    connection.execute("COMMIT")
    for number in range(_FILES):
        os.close(os.open(blob_path(directory, f"{number % _SHARDS:02x}{number:030x}"), os.O_CREAT | os.O_WRONLY, 0o600))


def _hide(connection: sqlite3.Connection, ids: str, until: int) -> None:
    columns = ", ".join(name for _, name, *_ in connection.execute("PRAGMA table_info(files)"))
    chosen = [(id_,) for [id_] in connection.execute(ids)]
    connection.executemany(
        f"INSERT INTO hidden ({columns}, until) SELECT {columns}, {until} FROM files WHERE id = ?", chosen
    )
    connection.executemany("DELETE FROM files WHERE id = ?", chosen)


def _demand_gone(connection: sqlite3.Connection) -> None:
    """Raises Failed if the sweep has not deleted what it should."""
    for question in ("answers", "grants", "links", "hidden", "files WHERE expires_at IS NOT NULL"):
        [left] = connection.execute(f"SELECT count(*) FROM {question}").fetchone()
        if left:
            raise Failed(f"the sweep left {left} of {question}")


def _damage(connection: sqlite3.Connection, directory: Path) -> None:
    """There is something to mend of each kind that the check knows: a count, blobs that are gone, blobs too many."""
    connection.execute("UPDATE usage SET files = files + 1")
    for [key] in connection.execute(f"SELECT key FROM files ORDER BY id LIMIT {_FILES}").fetchall():
        blob_path(directory, key).unlink()
    old = time.time() - 48 * 3600  # or they might be on their way
    for number in range(_FILES):
        path = blob_path(directory, f"{number % _SHARDS:02x}{number:030x}")
        path.touch()
        os.utime(path, (old, old))


def blob_path(directory: Path, key: str) -> Path:
    """Where the local store keeps these bytes."""
    return directory / "blobs" / key[:2] / key
