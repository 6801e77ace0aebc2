"""The threads of the SQLite index: one writes, in groups, and a few read."""

from __future__ import annotations

import asyncio
import contextlib
from concurrent.futures import ThreadPoolExecutor
from queue import LifoQueue
from typing import TYPE_CHECKING, Literal, TypeVar, cast

from spool.batch import Batcher
from spool.errors import SpoolError, StorageFull, Unavailable
from spool.store.sqlite.connection import (
    SPARE,
    change,
    checkpoint,
    connect,
    create,
    migrate,
    overwrite,
    shrink,
    snapshot,
    transaction,
    translated,
)
from spool.store.sqlite.queue import Queue
from spool.store.sqlite.reserve import Reserve

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from sqlite3 import Connection

    from spool.store.sqlite.rows import Row

    Operation = Callable[[Connection], object]

R = TypeVar("R")

_LOT = 100  # rows that are forgotten in one transaction: of links, with their four indexes, 5 ms of CPU
_READERS = 4  # one for quick looks, and the rest for what takes longer: a slow listing must not hold up others


async def open_database(path: Path, connected: Callable[[Connection], object], *, shared: bool = False) -> Database:
    """The database at `path`, made if need be. `connected` is shown every connection. Raises as `open_sqlite` does."""
    writer, *readers = await asyncio.to_thread(_open, path)
    for connection in (writer, *readers):
        connected(connection)
    reserve = Reserve(path.with_name(f"{path.name}-reserve"))
    await asyncio.to_thread(reserve.keep)
    with translated():
        queue = await asyncio.to_thread(Queue, path.with_name(f"{path.name}-queue")) if shared else None
    return Database(path, writer, readers, reserve, queue)


class Database:
    """Owns the connections: the writer, and one for each thread that reads."""

    def __init__(  # as `open_database` has made them
        self,
        path: Path,
        writer: Connection,
        readers: Sequence[Connection],
        reserve: Reserve,
        queue: Queue | None = None,
    ) -> None:
        """With a `queue`, other processes of this server write, too."""
        self._queue = queue
        self._path = path
        self._reserve = reserve
        self._closed = False
        self._writer = writer
        self._doubtful = False
        """A commit failed: what it wrote may come back after a crash, until something is written in its place."""
        self._batcher: Batcher[Operation, object] = Batcher("index-writer", self._flush)
        self._looker = readers[0]
        self._looks: Batcher[Operation, object] = Batcher("index-looker", self._look)
        self._threads = ThreadPoolExecutor(len(readers) - 1, thread_name_prefix="index-reader")
        self._readers: LifoQueue[Connection] = LifoQueue()
        for reader in readers[1:]:
            self._readers.put(reader)

    async def rows(self, sql: str, *values: str | int) -> list[Row]:
        """Those that the statement gives."""
        return await self.read(lambda connection: connection.execute(sql, values).fetchall())

    async def row(self, sql: str, *values: str | int) -> Row | None:
        """The first that the statement gives, by `look`."""
        row: Row | None = await self.look(lambda connection: connection.execute(sql, values).fetchone())
        return row

    async def look(self, query: Callable[[Connection], R]) -> R:
        """As `read`, for a query that looks up a few rows: all that are asked meanwhile are answered in one go."""
        return cast("R", await self._looks.submit(query))

    def _look(self, lot: Sequence[Operation]) -> list[object]:
        with translated(), snapshot(self._looker):
            return [_answer(self._looker, query) for query in lot]

    async def read(self, query: Callable[[Connection], R]) -> R:
        """What `query` makes of all that was committed before."""
        if self._closed:
            raise Unavailable("The server is shutting down.")
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._snapshot, query)

    def _snapshot(self, query: Callable[[Connection], R]) -> R:
        connection = self._readers.get()  # there are as many as threads
        try:
            with translated(), snapshot(connection):
                return query(connection)
        finally:
            self._readers.put(connection)

    async def change(self, sql: str, *values: str | int | bytes | None) -> int:
        """How many rows it changed."""
        return await self.write(lambda connection: connection.execute(sql, values).rowcount)

    async def write(self, operation: Callable[[Connection], R]) -> R:
        """What `operation` returns, once it is durable. It runs on the writer's thread and must be quick."""
        return cast("R", await self._batcher.submit(operation))

    async def make_room(self, operation: Callable[[Connection], R]) -> R:
        """As `write`, for what in the end takes less room: it succeeds on a full disk, too, thanks to the reserve."""
        try:
            return await self.write(operation)
        except StorageFull:
            await asyncio.to_thread(self._reserve.release)
            return await self.write(operation)

    async def forget(self, table: Literal["answers", "grants", "links"], ended: str, before: int) -> int:
        """Rows whose `ended`, by which there is an index, is below `before` are gone, however many; how many were.

        A lot at a time, each in a transaction of its own: other writes wait for no more than one. Succeeds on a full
        disk, as `make_room` does.
        """
        lot = f"SELECT rowid FROM {table} WHERE {ended} < ? LIMIT ?"  # noqa: S608 - words of ours
        sql = f"DELETE FROM {table} WHERE rowid IN ({lot})"  # noqa: S608
        forgotten, deleted = 0, _LOT
        while deleted == _LOT:
            deleted = await self.make_room(lambda connection: connection.execute(sql, (before, _LOT)).rowcount)
            forgotten += deleted
        return forgotten

    async def be_certain(self) -> None:
        """No commit that failed can come back after a crash."""
        if self._queue is not None:  # it may be another process's, or that of one that was killed
            await self.write(change)
        elif self._doubtful:
            await self.write(lambda _: None)

    async def set_aside(self) -> None:
        """What deletions have left idle is given back to the disk; what they need on a full one is set aside again."""
        idle = await self.read(lambda connection: connection.execute("PRAGMA freelist_count").fetchone()[0])
        if idle > SPARE:
            while await self.make_room(shrink):
                pass
            await asyncio.to_thread(checkpoint, self._path)
        await asyncio.to_thread(self._reserve.keep)

    @property
    def queued(self) -> int:
        """Operations that wait for the transaction under way."""
        return self._batcher.waiting

    async def owed(self) -> int:
        """Bytes of the disk that are free, but to be set aside."""
        return self._reserve.owed if self._queue is None else await asyncio.to_thread(self._reserve.missing)

    def _flush(self, lot: Sequence[Operation]) -> list[object]:
        with translated(), contextlib.nullcontext() if self._queue is None else self._queue.turn():
            if self._doubtful:
                overwrite(self._writer)
            self._doubtful = True
            with transaction(self._writer):
                outcomes = [_attempt(self._writer, operation) for operation in lot]
            self._doubtful = False
        return outcomes

    async def aclose(self) -> None:
        """What was asked is done, and all connections are closed; completes even if the caller is cancelled."""
        self._closed = True
        await asyncio.shield(self._aclose())

    async def _aclose(self) -> None:
        await self._looks.aclose()
        await self._batcher.aclose()
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._threads.shutdown()
        while not self._readers.empty():
            self._readers.get().close()
        self._looker.close()
        self._writer.close()  # the last one: it may write, so it clears the log away
        if self._queue is not None:
            self._queue.close()


def _open(path: Path) -> list[Connection]:
    connections: list[Connection] = []
    try:
        with translated():
            create(path)
            connections.append(connect(path, "rw"))
            migrate(connections[0])
            connections.extend(connect(path, "ro") for _ in range(_READERS))
    except BaseException:
        for connection in connections:
            connection.close()
        raise
    return connections


def _answer(connection: Connection, query: Operation) -> object:
    """What the query returns or, if it finds fault with the question, that."""
    try:
        return query(connection)
    except SpoolError as error:
        return error


def _attempt(connection: Connection, operation: Operation) -> object:
    """What the operation returns or, if it raises, that: then it alone of its lot is undone."""
    connection.execute("SAVEPOINT operation")
    try:
        with translated():
            outcome = operation(connection)
    except Exception as error:
        if not connection.in_transaction:  # SQLite has undone the whole lot
            raise
        connection.execute("ROLLBACK TO operation")
        outcome = error
    connection.execute("RELEASE operation")
    return outcome
