"""What is to be uploaded: bytes that can be given again from wherever the server stands.

A regular file is sent in one request, and read again where that is needed. Of anything else no more is kept than the
piece that is being sent: a request ends with each piece, and once the server has all of it the next one is read.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import stat
from typing import TYPE_CHECKING, Final, Protocol

from spool.client.failures import Changed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from typing import BinaryIO

_READ: Final = 128 * 1024
_REREAD: Final = 1024 * 1024
_PIECE: Final = 16 * 1024 * 1024
"""How much of a stream is kept in memory, and sent by one request."""


class Feed(Protocol):
    """Bytes with a place in them."""

    @property
    def size(self) -> int | None:
        """The length of the whole, if it is known."""

    async def seek(self, offset: int) -> None:
        """The next request begins at this offset, before which the server has everything. Raises Changed."""

    @property
    def left(self) -> int:
        """How many bytes the next request has."""

    @property
    def last(self) -> bool:
        """Whether the next request is the last one."""

    def pieces(self) -> AsyncIterator[bytes]:
        """The bytes of the next request. Raises Changed, or OSError if they cannot be read."""

    def sha256(self) -> str:
        """Of all bytes, in hexadecimal, once they have been given."""


class FileFeed:
    """The rest of a regular file, from where it stands."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._descriptor = file.fileno()
        self._start = file.tell()
        self._state = os.fstat(self._descriptor)
        self.size = max(0, self._state.st_size - self._start)
        self.last = True
        self._offset = 0
        self._hash = hashlib.sha256()
        self._mark = 0, self._hash.copy()
        """Where the last request began, and the hash of what is before."""

    @property
    def identity(self) -> dict[str, object]:
        """What tells these bytes from others without reading them."""
        name, state = self._file.name, self._state
        path = os.path.realpath(name) if isinstance(name, str) else None
        return {
            "path": path,
            "inode": state.st_ino,
            "start": self._start,
            "size": state.st_size,
            "mtime_ns": state.st_mtime_ns,
        }

    @property
    def left(self) -> int:  # noqa: D102  # see Feed
        return self.size - self._offset

    async def seek(self, offset: int) -> None:  # noqa: D102  # see Feed
        start, known = self._mark if self._mark[0] <= offset else (0, hashlib.sha256())
        hash_ = known.copy()
        for place in range(start, offset, _REREAD):
            hash_.update(await self._read(place, min(_REREAD, offset - place)))
        self._offset, self._hash = offset, hash_
        self._mark = offset, hash_.copy()

    async def pieces(self) -> AsyncIterator[bytes]:  # noqa: D102  # see Feed
        while self.left:
            piece = await self._read(self._offset, min(_READ, self.left))
            self._hash.update(piece)
            self._offset += len(piece)
            if not self.left:
                await asyncio.to_thread(self._require_unchanged)
            yield piece

    def sha256(self) -> str:  # noqa: D102  # see Feed
        return self._hash.hexdigest()

    async def _read(self, offset: int, size: int) -> bytes:
        piece = await asyncio.to_thread(os.pread, self._descriptor, size, self._start + offset)
        if not piece:
            raise self._changed()
        return piece

    def _require_unchanged(self) -> None:
        """Before the last piece goes out, so that a file that somebody is writing does not become one of the server."""
        state = os.fstat(self._descriptor)
        if (state.st_size, state.st_mtime_ns) != (self._state.st_size, self._state.st_mtime_ns):
            raise self._changed()

    def _changed(self) -> Changed:
        return Changed("the file changed while it was being sent")


class StreamFeed:
    """A stream of unknown length."""

    size = None

    def __init__(self, stream: AsyncIterator[bytes]) -> None:
        self._stream = stream
        self._piece = b""
        self._start = 0
        self._skip = 0
        self._hash = hashlib.sha256()
        self.last = False

    @property
    def left(self) -> int:  # noqa: D102  # see Feed
        return len(self._piece) - self._skip

    async def seek(self, offset: int) -> None:  # noqa: D102  # see Feed
        if not self._start <= offset <= self._start + len(self._piece):
            raise Changed("the server lost bytes that a stream cannot give again")
        self._skip = offset - self._start
        if not self.left and not self.last:
            self._start, self._skip = offset, 0
            self._piece = await self._fill()
            self._hash.update(self._piece)

    async def pieces(self) -> AsyncIterator[bytes]:  # noqa: D102  # see Feed
        for place in range(self._skip, len(self._piece), _READ):
            yield self._piece[place : place + _READ]

    def sha256(self) -> str:  # noqa: D102  # see Feed
        return self._hash.hexdigest()

    async def _fill(self) -> bytes:
        """The next piece; shorter ones are the last."""
        filled: list[bytes] = []
        size = 0
        while size < _PIECE:
            try:
                filled.append(await anext(self._stream))
            except StopAsyncIteration:
                self.last = True
                break
            size += len(filled[-1])
        return b"".join(filled)


def is_regular(file: BinaryIO) -> bool:
    """Whether this is a regular file, which can be read again from any place."""
    try:
        return stat.S_ISREG(os.fstat(file.fileno()).st_mode)
    except OSError:  # io.UnsupportedOperation is one: it has no descriptor
        return False


async def read_through(file: BinaryIO) -> AsyncIterator[bytes]:
    """The bytes of a file that cannot be read twice, each read in a worker thread."""
    read: Callable[[int], bytes] = getattr(file, "read1", file.read)
    while piece := await asyncio.to_thread(read, _READ):
        yield piece
