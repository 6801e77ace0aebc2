"""Blobs in a directory of this machine.

A blob is written to a nameless file (O_TMPFILE), fsynced, linked under its key, and its directory is fsynced: nothing
half-done ever has a name, and a crash leaves nothing behind. Where the file system or the platform has no nameless
files, a name in `incoming/` stands in, and is dropped after the link. Links never replace, and keys never repeat.
Directories are 0700, files 0600; every file is opened relative to its directory and not through a symbolic link.

"""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from aiofiles.os import wrap

from spool.errors import NotFound, SpoolError, StorageFull, Unavailable
from spool.model import Key, Staged
from spool.store.batch import Batcher
from spool.store.local_layout import Layout

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from spool.ports import BlobStore, BlobWriter

_READ: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
_MOST_BUFFERS: Final = 512
"""Buffers of one writev; the least IOV_MAX among the platforms is 1024."""
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)

_Entry = tuple[Key, int, datetime]


class LocalStore:
    """A directory of blobs. Made by `open_local`."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._staged: dict[Key, _StagedBlob] = {}
        self._writers = ThreadPoolExecutor(8, thread_name_prefix="write")
        self._readers = ThreadPoolExecutor(4, thread_name_prefix="read")
        self._publisher: Batcher[Key, None] = Batcher("publish", self._publish)

    async def writer(self, key: Key) -> LocalWriter:
        blob = self._staged[key] = _StagedBlob(self._layout, key)
        return LocalWriter(blob, self._writers)

    async def commit(self, key: Key, at: Staged) -> None:
        blob = self._staged.get(key)
        if blob is not None and blob.size != at.offset:
            raise Unavailable("the staged bytes are not those that were synced")
        await self._publisher.submit(key)

    async def open(self, key: Key) -> BinaryIO:
        opening = asyncio.ensure_future(_open(self._layout, key, executor=self._readers))
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(_close_unwanted)
            raise

    def locate(self, key: Key) -> Path | None:
        return Path(key[:2], key)

    async def delete(self, key: Key) -> None:
        blob = self._staged.pop(key, None)
        await _delete(self._layout, key, blob, executor=self._readers)

    async def keys(self) -> AsyncIterator[tuple[Key, int, datetime]]:
        for blob in list(self._staged.values()):
            if entry := await _stat(blob, executor=self._readers):
                yield entry
        for directory in (self._layout.incoming, *self._layout.shards.values()):
            for entry in await _scan(directory, executor=self._readers):
                if entry[0] not in self._staged:
                    yield entry

    async def free(self) -> int:
        return await _free(self._layout.root, executor=self._readers)

    async def probe(self) -> None:
        await _probe(self._layout, executor=self._writers)

    def lock(self) -> bool:
        """Whether this process now owns the directory: False if another one does. Held until `aclose`."""
        return self._layout.lock()

    async def aclose(self) -> None:
        """Commits that were asked for are done; staged blobs are dropped; the directory is free for another process."""
        await self._publisher.aclose()
        for pool in (self._writers, self._readers):
            await wrap(pool.shutdown)()
        for blob in self._staged.values():
            blob.drop()
        self._layout.close()

    def _publish(self, keys: Sequence[Key]) -> list[BaseException | None]:
        """Links all of `keys`, then fsyncs each of their directories once. Runs in the publisher's thread."""
        outcomes: dict[Key, BaseException | None] = {key: self._link(key) for key in keys}
        for shard in {key[:2] for key, outcome in outcomes.items() if outcome is None}:
            try:
                with _translated():
                    os.fsync(self._layout.shards[shard])
            except SpoolError as error:
                outcomes.update({key: error for key in keys if key[:2] == shard})
        for key, outcome in outcomes.items():
            if outcome is None and (blob := self._staged.pop(key, None)):
                blob.drop()
        return [outcomes[key] for key in keys]

    def _link(self, key: Key) -> BaseException | None:
        try:
            with _translated():
                blob = self._staged.get(key)
                if blob is not None:
                    blob.link()
                elif not self._layout.has(key):
                    raise Unavailable("the staged bytes are gone")
        except SpoolError as error:
            return error
        return None


class LocalWriter:
    """Writes one staged blob, one batch behind: the caller fetches the next batch while this one is written."""

    def __init__(self, blob: _StagedBlob, pool: ThreadPoolExecutor) -> None:
        self._blob = blob
        self._pool = pool
        self._writing: asyncio.Future[None] | None = None

    async def write(self, batch: Sequence[bytes]) -> None:
        await self._written()
        self._writing = asyncio.ensure_future(_write(self._blob, batch, executor=self._pool))

    async def sync(self) -> Staged:
        await self._written()
        return Staged(await _sync(self._blob, executor=self._pool))

    async def aclose(self) -> None:
        if self._writing is not None:
            await asyncio.wait([self._writing])
            self._writing.exception()

    async def _written(self) -> None:
        if self._writing is not None:
            await asyncio.shield(self._writing)
            self._writing = None


class _StagedBlob:
    """A file that is not yet live, opened when it is first needed.

    The lock keeps a late write off a descriptor that was closed and reused; what was dropped is never opened again.
    """

    def __init__(self, layout: Layout, key: Key) -> None:
        self._layout = layout
        self._key = key
        self._fd = -1
        self._dropped = False
        self._lock = threading.Lock()
        self.size = 0

    def write(self, batch: Sequence[bytes]) -> None:
        with self._opened() as fd:
            for start in range(0, len(batch), _MOST_BUFFERS):
                self._write_all(fd, list(batch[start : start + _MOST_BUFFERS]))

    def _write_all(self, fd: int, buffers: list[bytes]) -> None:
        left = sum(map(len, buffers))
        while left:
            written = os.writev(fd, buffers)
            self.size += written
            left -= written
            if left:
                buffers = [b"".join(buffers)[written:]]

    def sync(self) -> int:
        with self._opened() as fd:
            os.fsync(fd)
        return self.size

    def link(self) -> None:
        """Gives the file its key as a name in its shard; the name is fresh, so that no sweep takes the file for old."""
        shard, incoming = self._layout.shards[self._key[:2]], self._layout.incoming
        with self._opened() as fd:
            os.utime(fd)
            if self._layout.nameless:
                # a dir_fd makes CPython use linkat with AT_SYMLINK_FOLLOW; without one this fails with EXDEV
                os.link(f"/proc/self/fd/{fd}", self._key, src_dir_fd=shard, dst_dir_fd=shard)
            else:
                os.link(self._key, self._key, src_dir_fd=incoming, dst_dir_fd=shard, follow_symlinks=False)

    def stat(self) -> _Entry | None:
        """None unless the file is open."""
        with self._lock:
            return None if self._fd < 0 else _entry(self._key, os.fstat(self._fd))

    def drop(self) -> None:
        """The staged file is gone; what was linked stays. Idempotent."""
        with self._lock:
            self._dropped = True
            if self._fd < 0:
                return
            os.close(self._fd)
            self._fd = -1
            if not self._layout.nameless:
                with suppress(FileNotFoundError):
                    os.unlink(self._key, dir_fd=self._layout.incoming)

    @contextmanager
    def _opened(self) -> Iterator[int]:
        with self._lock:
            if self._dropped:
                raise Unavailable("the upload was discarded")
            if self._fd < 0:
                self._fd = self._layout.stage(self._key)
            yield self._fd


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StorageFull("the disk is full") from error
        raise Unavailable(f"the storage fails: {error.strerror}") from error


@wrap
def _write(blob: _StagedBlob, batch: Sequence[bytes]) -> None:
    with _translated():
        blob.write(batch)


@wrap
def _sync(blob: _StagedBlob) -> int:
    with _translated():
        return blob.sync()


@wrap
def _open(layout: Layout, key: Key) -> BinaryIO:
    with _translated():
        try:
            return os.fdopen(os.open(key, _READ, dir_fd=layout.shards[key[:2]]), "rb")
        except FileNotFoundError as error:
            raise NotFound("the bytes of this file are gone") from error


def _close_unwanted(opening: asyncio.Future[BinaryIO]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()


@wrap
def _delete(layout: Layout, key: Key, blob: _StagedBlob | None) -> None:
    with _translated():
        if blob is not None:
            blob.drop()
        for directory in (layout.incoming, *layout.shards_of(key)):
            with suppress(FileNotFoundError):
                os.unlink(key, dir_fd=directory)


@wrap
def _stat(blob: _StagedBlob) -> _Entry | None:
    with _translated():
        return blob.stat()


@wrap
def _scan(directory: int) -> list[_Entry]:
    found = []
    with _translated(), os.scandir(directory) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):
                found.append(_entry(Key(entry.name), entry.stat(follow_symlinks=False)))
    return found


def _entry(key: Key, stat: os.stat_result) -> _Entry:
    return key, stat.st_size, datetime.fromtimestamp(stat.st_mtime, UTC)


@wrap
def _free(directory: int) -> int:
    with _translated():
        stat = os.statvfs(directory)
    return stat.f_bavail * stat.f_frsize


@wrap
def _probe(layout: Layout) -> None:
    with _translated():
        blob = _StagedBlob(layout, Key(f"probe-{secrets.token_hex(8)}"))
        try:
            blob.write([b"probe"])
            blob.sync()
        finally:
            blob.drop()


async def open_local(root: Path, *, nameless: bool = True) -> LocalStore:
    """The blobs under `root`, which is made if need be. `nameless=False` does without O_TMPFILE. Raises Unavailable."""
    try:
        return LocalStore(await wrap(Layout)(root, nameless=nameless))
    except OSError as error:
        raise Unavailable(f"cannot use {root}: {error.strerror}; it must belong to the user who runs spool") from error


if TYPE_CHECKING:
    _store: type[BlobStore] = LocalStore
    _writer: type[BlobWriter] = LocalWriter
