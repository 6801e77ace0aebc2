"""One server process without its web: the real layers over a directory, which can be killed between two verbs."""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Self

from spool.admission import Admission, Capacity
from spool.catalog import Catalog
from spool.idempotency import Idempotency
from spool.ingest import Ingest
from spool.model import Key
from spool.policy import Policy
from spool.resumption import Resumption
from spool.store import INDEX, LocalStore, SqliteIndex, open_index
from spool.store.local import open_local
from spool.store.local.staged import StagedBlob
from spool.work import expiry, gc, resumables
from spool.work.fsck import Fsck
from tests.store.gates import Gated, Gatekeeper

if TYPE_CHECKING:
    from pathlib import Path

    from spool.model import File, Finding, Staged

EVER = datetime.max.replace(tzinfo=UTC)
TTL = timedelta(minutes=10)
"""How long an upload without progress is kept."""
MAX_FILE_SIZE = 2**20
EXECUTABLE = "application/x-executable"
_CANCELS = 100
"""More than one task ever awaits, one after the other, while it is unwound."""


class Clock:
    """Stands still until it is moved."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now


class Sniffer:
    """Knows programs by their first two bytes."""

    async def sniff(self, head: bytes) -> str:
        return EXECUTABLE if head.startswith(b"MZ") else "text/plain"


class Fuse(Gatekeeper):
    """Lets so many calls through and then no more, as if the process had been killed just then."""

    def __init__(self) -> None:
        super().__init__()
        self.left: int | None = None
        """None is without end."""
        self.blown = asyncio.Event()

    async def enter(self) -> None:
        if self.left is not None:
            if not self.left:
                self.dead = True
                self.blown.set()
            self.left -= 1
        await super().enter()

    def forget(self) -> None:
        """Calls that were cancelled while they waited wait no longer."""
        self.waiting[:] = [gate for gate in self.waiting if not gate.done()]

    async def idle(self) -> None:
        """No call is running."""
        while self._running:
            await self._idle.wait()


class Blobs(Gated):
    """The store, whose writers pass the gate as well. Notes how much of each staged blob was synced."""

    def __init__(self, inner: LocalStore, gates: Fuse, synced: dict[Key, int]) -> None:
        super().__init__(inner, gates)
        self._synced = synced

    async def writer(self, key: Key, at: Staged | None = None) -> Writer:
        writer = Writer(await self._call(self._inner.writer, (key, at), {}), self._gates, key, self._synced)
        if at is not None and key in self._synced:
            self._synced[key] = min(self._synced[key], at.offset)
        return writer


class Writer(Gated):
    """One of its writers."""

    def __init__(self, inner: Any, gates: Gatekeeper, key: Key, synced: dict[Key, int]) -> None:
        super().__init__(inner, gates)
        self._key = key
        self._synced = synced

    async def sync(self, *last: Any) -> Staged:
        staged: Staged = await self._call(self._inner.sync, last, {})
        self._synced[self._key] = staged.offset
        return staged


class Process:
    """Everything that `serve` builds but the web; every verb of store and index passes `gates`."""

    def __init__(self, directory: Path, clock: Clock, store: LocalStore, db: SqliteIndex, inline_max: int) -> None:
        self.directory, self.clock, self.store, self.db = directory, clock, store, db
        self.gates = Fuse()
        self.synced: dict[Key, int] = {}
        """How much of each staged blob is on stable storage."""
        blobs: Any = Blobs(store, self.gates, self.synced)
        index: Any = Gated(db, self.gates)
        self.blobs, self.index = blobs, index
        policy = Policy(MAX_FILE_SIZE, deny_types=(EXECUTABLE,))
        self.admission = Admission(Capacity(100, 0), blobs.free, index.usage, index.grant_usage)
        self.ingest = Ingest(
            blobs=blobs,
            files=index,
            inventory=index,
            sniffer=Sniffer(),
            policy=policy,
            admission=self.admission,
            clock=clock,
            inline_max=inline_max,
        )
        self.resumption = Resumption(
            ingest=self.ingest,
            blobs=blobs,
            uploads=index,
            files=index,
            grants=index,
            policy=policy,
            clock=clock,
            ttl=TTL,
        )
        self.catalog = Catalog(blobs, index, clock)
        self.idempotency = Idempotency(index, clock)

    @classmethod
    async def start(cls, directory: Path, clock: Clock, *, nameless: bool, inline_max: int) -> Self:
        """A new process that owns the directory."""
        store = await open_local(directory, nameless=nameless)
        assert store.lock(), "the directory still belongs to another process"
        process = cls(directory, clock, store, await open_index(directory), inline_max)
        process.synced.update({Key(path.name): path.stat().st_size for path in directory.glob("incoming/*")})
        return process

    async def sweep(self) -> None:
        """What a server does at its start, and again and again."""
        await resumables.run_once(self.resumption, self.index, self.clock)
        await expiry.run_once(self.catalog, self.index, self.clock)
        await gc.run_once(self.blobs, self.index, self.ingest.active_keys, EVER)
        await self.idempotency.forget()

    async def content(self, file: File) -> bytes:
        opened = await self.catalog.open(file)
        if isinstance(opened, bytes):
            return opened
        with opened as blob:
            return blob.read()

    async def fsck(self) -> list[Finding]:
        return [finding async for finding in Fsck(self.store, self.db, deep=True).run()]

    async def stop(self) -> None:
        """Ends as a server that has drained."""
        await self.store.aclose()
        await self.db.aclose()

    async def kill(self, *, power: bool) -> None:
        """Ends as by SIGKILL: no verb begins, nothing is unlinked, committed or checkpointed.

        Verbs that have begun end first, so that a kill comes between two of them. With `power` the power is cut as
        well: of staged files only what was synced is left, with zeros behind it.
        """
        self.gates.dead = True
        await self.gates.idle()
        await asyncio.to_thread(int)  # whatever reads a blob in such a thread has begun, and will close it
        await _unwind()
        for blob in self.store._staged.values():
            StagedBlob.close(blob)  # not its own close, which drops the name of one that is not to last
        self.store._staged.clear()
        await self.store.aclose()
        paths = [self.directory / INDEX, self.directory / f"{INDEX}-wal"]
        files = {path: path.read_bytes() for path in paths if path.exists()}
        await self.db.aclose()  # carries the log over, which a process that is killed does not
        for path, data in files.items():
            path.write_bytes(data)
        if power:
            self._cut_power()

    def _cut_power(self) -> None:
        for path in self.directory.glob("incoming/*"):
            synced = self.synced.get(Key(path.name))
            if synced is None:  # neither is its name
                path.unlink()
            elif path.stat().st_nlink == 1 and path.stat().st_size > synced:
                size = path.stat().st_size
                os.truncate(path, synced)
                os.truncate(path, size)  # the size may be there where the bytes are not


async def _unwind() -> None:
    """Ends every other task, each at a verb that will never begin."""
    mine = asyncio.current_task()
    for _ in range(_CANCELS):
        others = asyncio.all_tasks() - {mine}
        if not others:
            return
        for task in others:
            task.cancel()
        await asyncio.wait(others, timeout=0)
    raise AssertionError(f"tasks that do not end: {others}")
