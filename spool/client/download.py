"""One download: into a partial file beside its target, from where the last one stopped, and only whole under its name.

The partial file is named by the SHA-256 of the bytes that it is a part of. So it can only be continued with the same
bytes, and the server is held to them by If-Range.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self, TypeVar

from spool.client.failures import Busy, Failure, Mismatch, StrangeAnswer, Unreachable
from spool.client.patience import Patience
from spool.errors import SpoolError, Unsatisfiable

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from spool.client.connection import Connection, Download

T = TypeVar("T")

_READ: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Content:
    """What is to be fetched."""

    address: str
    """A path on the server, or a whole address that needs no token."""
    size: int
    sha256: str


class Fetch:
    """Fetches one content until all of it is there."""

    def __init__(
        self, connection: Connection, content: Content, *, tries: int, progress: Callable[[int, int | None], None]
    ) -> None:
        self._connection = connection
        self._content = content
        self._patience = Patience(tries)
        self._progress = progress

    async def run(self, target: Path, *, replace: bool) -> None:
        """The bytes are at `target`, durably. If it is cancelled or fails, the next one goes on.

        Raises SpoolError, Failure, OSError; FileExistsError if `target` is there and is not to be replaced.
        """
        async with await _Part.open(target, self._content.sha256) as part:
            resumed = part.size > 0
            await self._complete(part)
            if part.sha256() != self._content.sha256 and resumed:
                await part.clear()  # it was damaged since
                await self._complete(part)
            if part.sha256() != self._content.sha256:
                await part.discard()
                raise Mismatch(f"the bytes that came have the SHA-256 {part.sha256()}, not {self._content.sha256}")
            await part.become(target, replace=replace)

    async def _complete(self, part: _Part) -> None:
        while part.size < self._content.size:
            before = part.size
            try:
                await self._receive(part)
            except Unsatisfiable:
                raise
            except (SpoolError, Failure) as error:
                if part.size > before:
                    self._patience.renew()
                await self._patience.wait(error)
        if part.size > self._content.size:
            await part.clear()
            await self._complete(part)

    async def _receive(self, part: _Part) -> None:
        headers = {}
        if part.size:
            headers = {"Range": f"bytes={part.size}-", "If-Range": f'"{self._content.sha256}"'}
        async with self._connection.fetch(self._content.address, headers) as download:
            if part.size and not _goes_on(download, part.size):
                await part.clear()
            async for piece in download.pieces():
                if part.size + len(piece) > self._content.size:
                    raise StrangeAnswer("more bytes came than the file has")
                await part.append(piece)
                self._progress(part.size, self._content.size)
        if part.size < self._content.size:
            raise Unreachable("the answer ended before the file did")


class _Part:
    """A partial file, locked. One thread does all that waits for the disk, so that nothing overtakes the close."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread = ThreadPoolExecutor(1, "spool-part")
        self._descriptor = -1
        self._hash = hashlib.sha256()
        self.size = 0

    @classmethod
    async def open(cls, target: Path, sha256: str) -> Self:
        """The partial file for these bytes in the target's directory, with what is there already. Raises Busy."""
        part = cls(target.with_name(f".spool-{sha256[:32]}.part"))
        try:
            await part._run(part._open)
        except BaseException:
            await part.__aexit__()
            raise
        return part

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._thread.submit(self._close)
        self._thread.shutdown(wait=False)

    def sha256(self) -> str:
        return self._hash.hexdigest()

    async def append(self, piece: bytes) -> None:
        """Writes at the end, and counts and hashes it once it is written."""
        await self._run(lambda: _write(self._descriptor, piece, self.size))
        self._hash.update(piece)
        self.size += len(piece)

    async def clear(self) -> None:
        """Begins anew."""
        await self._run(lambda: os.ftruncate(self._descriptor, 0))
        self.size, self._hash = 0, hashlib.sha256()

    async def discard(self) -> None:
        """There is nothing worth to go on with."""
        await self._run(self._path.unlink)

    async def become(self, target: Path, *, replace: bool) -> None:
        """Takes its final name, durably."""
        await self._run(lambda: self._rename(target, replace=replace))

    def _open(self) -> None:
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise Busy(f"another process is fetching the same bytes into {self._path.parent}") from error
        while piece := os.pread(self._descriptor, _READ, self.size):
            self._hash.update(piece)
            self.size += len(piece)

    def _rename(self, target: Path, *, replace: bool) -> None:
        os.fsync(self._descriptor)
        if replace:
            self._path.replace(target)
        else:
            target.hardlink_to(self._path)
            self._path.unlink()
        directory = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)

    async def _run(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except OSError as error:
            if error.filename is None:  # who reads of a full disk wants to know which
                error.filename = str(self._path)
            raise


def _write(descriptor: int, piece: bytes, offset: int) -> None:
    view = memoryview(piece)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


def _goes_on(download: Download, offset: int) -> bool:
    """Whether the answer begins at this offset; otherwise it is the whole. Raises StrangeAnswer."""
    if download.status != 206:  # noqa: PLR2004
        return False
    begin = re.match(r"bytes (\d+)-", download.headers.get("Content-Range", ""))
    if not begin or int(begin[1]) != offset:
        raise StrangeAnswer("the answer is another part of the file than was asked for")
    return True
