"""Blobs in a directory of this machine.

A blob is written to a nameless file (O_TMPFILE), fsynced, linked under its key, and its directory is fsynced: nothing
half-done ever has a name, and a crash leaves nothing behind. A blob that has to outlive a crash before it is committed
has a name in `incoming/` instead, and so has every staged blob where the file system or the platform has no nameless
files; the name is dropped after the link. Links never replace, and keys never repeat.
Directories are 0700, files 0600; every file is opened relative to its directory and not through a symbolic link.

    blobs/00 .. blobs/ff    live blobs, spread by the first two digits of their key, with their labels
    incoming/               staged blobs that have a name
    lock                    held by the one server that owns the directory
"""

from __future__ import annotations

import asyncio
import errno
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from aiofiles.os import wrap

from spool.batch import Batcher
from spool.errors import NotFound, Unavailable
from spool.model import FileId, Key, Label, Staged
from spool.store.local.copy import Taken, take
from spool.store.local.labels import change_label, get_labels
from spool.store.local.layout import Entry, Layout, probe_key, scan, strays
from spool.store.local.publish import Link, Publisher, translated
from spool.store.local.staged import COPY_STEP, LastingBlob, NamedBlob, NamelessBlob, StagedBlob

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from spool.ports import BlobWriter, CheckedStore, LabelledStore


class LocalStore:
    """A directory of blobs. Made by `open_local`."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._staged: dict[Key, StagedBlob] = {}
        """Open, or about to be. Of a blob that outlives a crash this is the only writer that can reach it."""
        self._committing: dict[Key, asyncio.Future[None]] = {}
        """Commits of staged blobs that are not open: until they end, nobody may open those."""
        self._looks: Batcher[None, int] = Batcher("free", self._look)
        self._writers = ThreadPoolExecutor(8, thread_name_prefix="write")
        self._readers = ThreadPoolExecutor(4, thread_name_prefix="read")
        self._publisher = Publisher(layout, self._staged)

    async def writer(self, key: Key, at: Staged | None = None) -> LocalWriter:
        if key in self._committing:
            raise Unavailable("the upload is being committed")
        # Known before it is opened: of two who ask at once, the second takes over from the first, whoever opens first.
        blob = self._staged[key] = self._new_blob(key, at)
        try:
            if at is not None:  # a new one is opened by its first write, which saves the trip to a thread
                await _open_to_write(blob, executor=self._writers)
        except BaseException:
            await self._close(blob)
            raise
        return LocalWriter(blob, self)

    def _new_blob(self, key: Key, at: Staged | None) -> StagedBlob:
        if at is not None:
            return LastingBlob(key, self._layout.incoming, at.offset, self._staged.get(key))
        return (NamelessBlob if self._layout.nameless else NamedBlob)(key, self._layout.incoming)

    async def commit(self, key: Key, at: Staged, label: Label | None = None) -> None:
        if key in self._staged:
            await self._publisher.publish(Link(key, at.offset, label))
            return
        if key not in self._committing:
            self._committing[key] = asyncio.ensure_future(self._commit_closed(key, at.offset, label))
            self._committing[key].add_done_callback(lambda _: self._committing.pop(key))
        await asyncio.shield(self._committing[key])

    async def put(self, key: Key, body: bytes, label: Label | None = None) -> None:
        self._staged[key] = self._new_blob(key, None)
        await self._publisher.publish(Link(key, len(body), label, body))

    async def _commit_closed(self, key: Key, size: int, label: Label | None) -> None:
        await _settle(self._layout, key, size, label, executor=self._writers)
        await self._publisher.publish(Link(key, size, label))

    async def open(self, key: Key, *, staged: bool = False) -> BinaryIO:
        blob = self._staged.get(key) if staged else None
        opening = asyncio.ensure_future(_open_to_read(self._layout, key, blob, staged=staged, executor=self._readers))
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(_close_unwanted)
            raise

    async def read(self, key: Key) -> bytes:
        return await _read_all(self._layout, key, executor=self._readers)

    def locate(self, key: Key) -> Path | None:
        return Path(key[:2], key)

    async def delete(self, key: Key) -> bool:
        blob = self._staged.pop(key, None)
        return await _delete(self._layout, key, blob, executor=self._readers)

    async def label(self, key: Key, file_id: FileId, text: bytes | None) -> None:
        await _label(self._layout, key, file_id, text, executor=self._writers)

    async def labels(self, key: Key) -> Sequence[Label]:
        return await _labels(self._layout, key, executor=self._readers)

    async def keys(self, prefix: str = "", *, live: bool = False) -> AsyncIterator[Entry]:
        told = set()
        for blob in [] if live else list(self._staged.values()):
            if blob.key.startswith(prefix) and (entry := await _stat(blob, executor=self._readers)):
                told.add(blob.key)
                yield entry
        for directory in self._layout.directories(prefix, live=live):
            for entry in await _scan(directory, prefix, executor=self._readers):
                if entry[0] not in told:
                    yield entry

    async def strays(self) -> AsyncIterator[str]:
        for shard, directory in self._layout.shards.items():
            for name in await _strays(directory, shard, executor=self._readers):
                yield f"blobs/{shard}/{name}"

    async def take(self, wanted: Mapping[Key, int], source: LocalStore, *, link: bool) -> dict[Key, Taken]:
        """See `copy.take`."""
        return await _take(wanted, source._layout, self._layout, link=link, executor=self._writers)

    async def free(self) -> int:
        return await self._looks.submit(None)

    def _look(self, asked: Sequence[None]) -> list[int]:
        with translated():
            stat = os.statvfs(self._layout.root)
        return [stat.f_bavail * stat.f_frsize] * len(asked)

    async def probe(self) -> None:
        await _probe(self._layout, executor=self._writers)

    @property
    def queued(self) -> int:
        """Commits that wait for those under way."""
        return self._publisher.waiting

    def lock(self) -> bool:
        """Whether this process now owns the directory: False if another one does. Held until `aclose`."""
        return self._layout.lock()

    def owned_by(self) -> int:
        """The descriptor that owns the directory: so does whoever inherits it, until it ends."""
        return self._layout.owned_by()

    async def aclose(self) -> None:
        """Commits that were asked for are done; the directory is free for another process.

        Staged blobs are dropped, but for those that outlive a crash.
        """
        if self._committing:
            await asyncio.wait(self._committing.values())
        await self._publisher.aclose()
        await self._looks.aclose()
        for pool in (self._writers, self._readers):
            await wrap(pool.shutdown)()
        while self._staged:
            self._staged.popitem()[1].close()
        self._layout.close()

    async def write(self, blob: StagedBlob, batch: Sequence[bytes], see: Callable[[bytes], None] | None) -> None:
        """The buffers are appended to a blob of this store, each after `see` has seen it."""
        await _write(blob, batch, see, executor=self._writers)

    async def copy(self, blob: StagedBlob, key: Key, start: int, size: int) -> None:
        """`size` bytes of the staged blob `key`, from `start` on, are appended to `blob`. Raises Unavailable."""
        await _copy(self._layout, blob, (key, self._staged.get(key)), start, size, executor=self._writers)

    async def sync(self, blob: StagedBlob, batch: Sequence[bytes], see: Callable[[bytes], None] | None) -> int:
        """What was written to `blob` is durable, and so is `batch`, which is appended; its size."""
        return await _sync(blob, batch, see, executor=self._writers)

    async def release(self, blob: StagedBlob) -> None:
        """Its writer is done: one that can be opened again is closed, another one is kept open for its commit."""
        if isinstance(blob, LastingBlob) and self._staged.get(blob.key) is blob:
            await self._close(blob)

    async def _close(self, blob: StagedBlob) -> None:
        try:
            await _close(blob, executor=self._writers)
        finally:
            if self._staged.get(blob.key) is blob:
                del self._staged[blob.key]


class LocalWriter:
    """Writes one staged blob, one batch behind: the caller fetches the next batch while this one is written."""

    def __init__(self, blob: StagedBlob, store: LocalStore) -> None:
        self._blob = blob
        self._store = store
        self._writing: asyncio.Future[None] | asyncio.Future[int] | None = None

    async def absorb(self, key: Key, at: Staged) -> None:
        # In steps, so that what is cancelled soon ends, and other writers have their turn. An empty blob is one step.
        for start in range(0, max(1, at.offset), COPY_STEP):
            await self._written()
            size = min(COPY_STEP, at.offset - start)
            self._writing = asyncio.ensure_future(self._store.copy(self._blob, key, start, size))
        await self._written()

    async def write(self, batch: Sequence[bytes], see: Callable[[bytes], None] | None = None) -> None:
        await self._written()
        self._writing = asyncio.ensure_future(self._store.write(self._blob, batch, see))

    async def sync(self, last: Sequence[bytes] = (), see: Callable[[bytes], None] | None = None) -> Staged:
        await self._written()
        self._writing = syncing = asyncio.ensure_future(self._store.sync(self._blob, last, see))
        return Staged(await asyncio.shield(syncing))

    async def aclose(self) -> None:
        await asyncio.shield(self._aclose())

    async def _aclose(self) -> None:
        if self._writing is not None:
            await asyncio.wait([self._writing])
            self._writing.exception()
        await self._store.release(self._blob)

    async def _written(self) -> None:
        if self._writing is not None:
            await asyncio.shield(self._writing)
            self._writing = None


@wrap
def _open_to_write(blob: StagedBlob) -> None:
    with translated():
        blob.open()


@wrap
def _write(blob: StagedBlob, batch: Sequence[bytes], see: Callable[[bytes], None] | None) -> None:
    with translated():
        blob.write(batch, see)


@wrap
def _copy(layout: Layout, blob: StagedBlob, source: tuple[Key, StagedBlob | None], start: int, size: int) -> None:
    with translated():
        try:
            fd = _read(layout, *source, staged=True)
        except NotFound as error:
            raise Unavailable("the bytes to append are gone") from error
        try:
            blob.absorb(fd, start, size)
        finally:
            os.close(fd)


@wrap
def _sync(blob: StagedBlob, batch: Sequence[bytes], see: Callable[[bytes], None] | None) -> int:
    with translated():
        blob.write(batch, see)
        return blob.sync()


@wrap
def _close(blob: StagedBlob) -> None:
    with translated():
        blob.close()


@wrap
def _settle(layout: Layout, key: Key, size: int, label: Label | None) -> None:
    with translated():
        layout.settle(key, size, label)


@wrap
def _label(layout: Layout, key: Key, file_id: FileId, text: bytes | None) -> None:
    with translated():
        change_label(layout.path(key), file_id, text)


@wrap
def _labels(layout: Layout, key: Key) -> Sequence[Label]:
    with translated():
        return get_labels(layout.path(key))


@wrap
def _take(wanted: Mapping[Key, int], source: Layout, target: Layout, *, link: bool) -> dict[Key, Taken]:
    with translated():
        return take(wanted, source, target, link=link)


@wrap
def _open_to_read(layout: Layout, key: Key, blob: StagedBlob | None, *, staged: bool) -> BinaryIO:
    with translated():
        return os.fdopen(_read(layout, key, blob, staged=staged), "rb")


@wrap
def _read_all(layout: Layout, key: Key) -> bytes:
    with translated(), os.fdopen(layout.read(key, staged=False), "rb") as blob:
        return blob.read()


def _close_unwanted(opening: asyncio.Future[BinaryIO]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()


def _read(layout: Layout, key: Key, blob: StagedBlob | None, *, staged: bool) -> int:
    fd = None if blob is None else blob.read()
    return layout.read(key, staged=staged) if fd is None else fd


@wrap
def _delete(layout: Layout, key: Key, blob: StagedBlob | None) -> bool:
    with translated():
        if blob is not None:
            blob.close()
        return any([blob is not None, layout.unstage(key), layout.unlink(key)])  # a list, so that both are done


@wrap
def _stat(blob: StagedBlob) -> Entry | None:
    with translated():
        return blob.stat()


@wrap
def _scan(directory: int, prefix: str) -> list[Entry]:
    with translated():
        return scan(directory, prefix)


@wrap
def _strays(directory: int, shard: str) -> list[str]:
    with translated():
        return strays(directory, shard)


@wrap
def _probe(layout: Layout) -> None:
    blob = NamedBlob(probe_key(), layout.incoming)
    with translated():
        try:
            blob.write([b"probe"])
            blob.sync()
        finally:
            blob.close()
            layout.unstage(blob.key)


async def open_local(root: Path, *, nameless: bool = True) -> LocalStore:
    """The blobs under `root`, which is made if need be. `nameless=False` does without O_TMPFILE. Raises Unavailable."""
    try:
        return LocalStore(await wrap(Layout)(root, nameless=nameless))
    except OSError as error:
        refused = error.errno in (errno.EACCES, errno.EPERM)
        advice = "; it must belong to the user who runs spool" if refused else ""
        raise Unavailable(f"cannot use {root}: {error.strerror}{advice}") from error


if TYPE_CHECKING:
    _store: type[LabelledStore] = LocalStore
    _checked: type[CheckedStore] = LocalStore
    _writer: type[BlobWriter] = LocalWriter
