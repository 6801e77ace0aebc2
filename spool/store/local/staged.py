"""Staged blobs of a local store: open files that are not yet live. Everything here blocks.

NamelessBlob   has no name, and is gone when it is closed
NamedBlob      the same where there are no nameless files: a name in `incoming/` that goes when it is closed
LastingBlob    keeps that name, and can be opened again by this process or a later one
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
import threading
from abc import ABC, abstractmethod
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from spool.errors import Unavailable
from spool.store.local.labels import set_label
from spool.store.local.layout import Entry, open_staged, to_entry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from spool.model import Key, Label

FULL: Final = (errno.ENOSPC, errno.EDQUOT)
COPY_STEP: Final = 16 * 1024 * 1024
"""Bytes copied from blob to blob at a time: what another writer of the blob may have to wait for."""
_READ_STEP: Final = 1024 * 1024
_NEW: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
_MOST_BUFFERS: Final = 512
"""Buffers of one writev; the least IOV_MAX among the platforms is 1024."""
_PIECE: Final = 256 * 1024
"""Bytes that are hashed and then written while they are still in the processor's cache."""
_WRITE_BACK_STEP: Final = 8 * 1024 * 1024
_SYNC_FILE_RANGE_WRITE: Final = 2
_CANNOT_COPY: Final = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM)

sync_file_range = (
    getattr(ctypes.CDLL(None, use_errno=True), "sync_file_range", None) if sys.platform == "linux" else None
)
if sync_file_range is not None:
    sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)


class StagedBlob(ABC):
    """An open file that is not yet live. The lock keeps a late write off a descriptor that was closed and reused."""

    def __init__(self, key: Key, incoming: int, size: int = 0) -> None:
        self.key = key
        self.size = size
        self._incoming = incoming
        self._fd = -1
        self._over = False
        self._lock = threading.Lock()
        self._written_back = size
        self._can_copy = hasattr(os, "copy_file_range")

    def open(self) -> None:
        """It can be written; whatever writes to it opens it, too. Raises Unavailable if it was closed meanwhile."""
        with self._locked():
            pass

    @abstractmethod
    def _open(self) -> int: ...

    def write(self, batch: Sequence[bytes], see: Callable[[bytes], None] | None = None) -> None:
        with self._locked():
            for buffers in _pieces(batch):
                if see is not None:
                    for buffer in buffers:
                        see(buffer)
                self._write_all(buffers)

    def _write_all(self, buffers: list[bytes]) -> None:
        left = sum(map(len, buffers))
        while left:
            written = os.writev(self._fd, buffers)
            self._grow(written)
            left -= written
            if left:
                buffers = [b"".join(buffers)[written:]]

    def absorb(self, source: int, start: int, size: int) -> None:
        """Appends `size` bytes of the open file `source`, from `start` on. Raises Unavailable if they are not there."""
        end = start + size
        with self._locked():
            while start < end:
                start += self._copy(source, start, end - start)

    def _copy(self, source: int, start: int, most: int) -> int:
        """How many bytes, at least one, it appended. The kernel shares their blocks on file systems that can."""
        if self._can_copy:
            with suppress_errors(_CANNOT_COPY):
                if copied := os.copy_file_range(source, self._fd, most, offset_src=start):
                    self._grow(copied)
                    return copied
            self._can_copy = False
        piece = os.pread(source, min(most, _READ_STEP), start)
        if not piece:
            raise Unavailable("fewer bytes are there to append than were synced")
        self._write_all([piece])
        return len(piece)

    def _grow(self, written: int) -> None:
        self.size += written
        if self.size - self._written_back >= _WRITE_BACK_STEP:
            _begin_write_back(self._fd, self._written_back, self.size - self._written_back)
            self._written_back = self.size

    def label(self, labels: Sequence[Label]) -> None:
        """It carries these labels."""
        with self._locked():
            for label in labels:
                set_label(self._fd, label.file_id, label.text)

    def sync(self) -> int:
        """The size; that much is durable. Closes the file for good if it fails: asked again, fsync reports success."""
        with self._locked():
            try:
                self._sync()
            except BaseException:
                self._shut()
                raise
            return self.size

    def _sync(self) -> None:
        os.fsync(self._fd)

    def link(self, shard: int, size: int, label: Label | None) -> None:
        """Gives the file its key as a name in `shard`, if it is of this size; nobody can write to it any more.

        Its times are fresh, so that no sweep takes it for old.
        """
        with self._locked():
            if self.size != size:
                raise Unavailable("the staged bytes are not those that were synced")
            if label is not None:
                set_label(self._fd, label.file_id, label.text)
            os.utime(self._fd)
            self._link(shard)
            self._shut()

    @abstractmethod
    def _link(self, shard: int) -> None: ...

    def read(self) -> int | None:
        """A nameless file, open for reading; None if it is closed, or has a name to open it by."""
        return None

    def stat(self) -> Entry | None:
        """None unless the file is open."""
        with self._lock:
            return None if self._fd < 0 else to_entry(self.key, os.fstat(self._fd))

    def close(self) -> None:
        """No write is running or will run. Idempotent."""
        with self._lock:
            self._shut()

    def _shut(self) -> None:
        self._over = True
        fd, self._fd = self._fd, -1  # it is closed even if that fails
        if fd >= 0:
            os.close(fd)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with self._lock:
            if self._over:
                raise Unavailable("the upload was discarded")
            if self._fd < 0:
                self._fd = self._open()
            yield


class NamelessBlob(StagedBlob):
    """A new blob without a name. A crash leaves nothing of it."""

    def _open(self) -> int:
        return os.open(".", os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600, dir_fd=self._incoming)

    def _link(self, shard: int) -> None:
        # a dir_fd makes CPython use linkat with AT_SYMLINK_FOLLOW; without one this fails with EXDEV
        os.link(f"/proc/self/fd/{self._fd}", self.key, src_dir_fd=shard, dst_dir_fd=shard)

    def read(self) -> int | None:
        with self._lock:
            return None if self._fd < 0 else os.open(f"/proc/self/fd/{self._fd}", os.O_RDONLY | os.O_CLOEXEC)


class NamedBlob(StagedBlob):
    """A new blob under a name. It is dropped when it is closed; a crash leaves it to the sweep."""

    def _open(self) -> int:
        return os.open(self.key, _NEW, 0o600, dir_fd=self._incoming)

    def _link(self, shard: int) -> None:
        os.link(self.key, self.key, src_dir_fd=self._incoming, dst_dir_fd=shard, follow_symlinks=False)

    def close(self) -> None:
        with self._lock:
            opened = self._fd >= 0
            self._shut()
        if opened:
            with suppress(FileNotFoundError):
                os.unlink(self.key, dir_fd=self._incoming)


class LastingBlob(StagedBlob):
    """A blob under a name that it keeps: it is written from `size` on, whatever lies beyond, and outlives a crash.

    It takes over from `earlier`, the one by which this process wrote the same blob: opening or closing this one
    closes that one first.
    """

    def __init__(self, key: Key, incoming: int, size: int, earlier: StagedBlob | None) -> None:
        super().__init__(key, incoming, size)
        self._earlier = earlier
        self._has_durable_name = size > 0  # some sync has been there before

    def _open(self) -> int:
        self._take_over()
        try:
            fd = open_staged(self.key, self._incoming, self.size, create=self.size == 0)
        except FileNotFoundError as error:
            raise Unavailable("the staged bytes are gone") from error
        if os.fstat(fd).st_nlink > 1:
            os.close(fd)
            raise Unavailable("the upload is a file already")
        os.lseek(fd, self.size, os.SEEK_SET)
        return fd

    def _sync(self) -> None:
        super()._sync()
        if not self._has_durable_name:
            os.fsync(self._incoming)
            self._has_durable_name = True
        if os.fstat(self._fd).st_nlink == 0:
            raise Unavailable("the upload was discarded")

    def _link(self, shard: int) -> None:
        os.link(self.key, self.key, src_dir_fd=self._incoming, dst_dir_fd=shard, follow_symlinks=False)

    def close(self) -> None:
        with self._lock:
            self._take_over()
            self._shut()

    def _take_over(self) -> None:
        if self._earlier is not None:
            self._earlier.close()
            self._earlier = None


def _pieces(batch: Sequence[bytes]) -> Iterator[list[bytes]]:
    """The buffers in lists of about a piece."""
    piece: list[bytes] = []
    size = 0
    for buffer in batch:
        piece.append(buffer)
        size += len(buffer)
        if size >= _PIECE or len(piece) == _MOST_BUFFERS:
            yield piece
            piece, size = [], 0
    if piece:
        yield piece


@contextmanager
def suppress_errors(numbers: Sequence[int]) -> Iterator[None]:
    """Errors of the system with one of these numbers are none."""
    try:
        yield
    except OSError as error:
        if error.errno not in numbers:
            raise


def _begin_write_back(fd: int, start: int, size: int) -> None:
    """The kernel starts to write the range out: left to itself it waits for seconds, and the fsync has it all to do.

    Raises what the writing raises, for fsync may not tell it again.
    """
    if sync_file_range is not None and sync_file_range(fd, start, size, _SYNC_FILE_RANGE_WRITE) < 0:
        with suppress_errors((errno.ENOSYS, errno.EINVAL, errno.ESPIPE, errno.EPERM)):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
