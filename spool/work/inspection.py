"""What a look at a blob tells of the files that name it: the one judgement that checks and scrubs share."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from spool.errors import NotFound, Unavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from spool.model import Damage, File, Key
    from spool.ports import BlobStore, Files

_STEP: Final = 1024 * 1024
_STRETCH: Final = 8 * _STEP
"""Bytes that a thread reads at a time, and then others have their turn."""
_UNREADABLE: Final = (errno.EIO, errno.EBADMSG, errno.EUCLEAN)
"""The disk, or a file system that checks what it reads, has lost the bytes."""


@dataclass(frozen=True, slots=True)
class Look:
    """A blob as it was found."""

    size: int | None
    """None if it is not there."""
    sha256: str | None = None
    """Hex; None unless it was read, and empty if it could not be."""


async def _at_once(_size: int) -> None:
    """Goes on without a pause."""


async def look(
    blobs: BlobStore,
    key: Key,
    *,
    staged: bool = False,
    read: bool = False,
    pace: Callable[[int], Awaitable[None]] = _at_once,
) -> Look:
    """The blob's size and, if it is to be read, its SHA-256, in a worker thread. `pace` is told of each stretch read.

    What was read does not stay in the page cache, where the platform allows that. Raises Unavailable.
    """
    try:
        blob = await blobs.open(key, staged=staged)
    except NotFound:
        return Look(None)
    try:
        size = await asyncio.to_thread(blob.seek, 0, os.SEEK_END)
        return Look(size, await _read(blob, pace) if read else None)
    finally:
        await asyncio.shield(asyncio.to_thread(blob.close))


async def look_at(
    blobs: BlobStore,
    index: Files,
    file: File,
    *,
    read: bool,
    pace: Callable[[int], Awaitable[None]] = _at_once,
) -> Look:
    """The same of a file's bytes, wherever they are; those of an inline file are read in any case."""
    if not file.inline:
        return await look(blobs, file.key, read=read, pace=pace)
    try:
        body = await index.body(file.id)
    except NotFound:
        return Look(None)
    return Look(len(body), hashlib.sha256(body).hexdigest())


async def _read(blob: BinaryIO, pace: Callable[[int], Awaitable[None]]) -> str:
    digest = hashlib.sha256()
    await asyncio.to_thread(blob.seek, 0)
    try:
        while size := await asyncio.to_thread(_hash_stretch, blob, digest):
            await pace(size)
    except OSError as error:
        if error.errno not in _UNREADABLE:
            raise Unavailable(f"a blob cannot be read: {error.strerror}") from error
        return ""
    return digest.hexdigest()


def _hash_stretch(blob: BinaryIO, digest: Any) -> int:  # noqa: ANN401  # hashlib names no type
    """How many bytes were left to read, up to a stretch."""
    size = 0
    while size < _STRETCH and (piece := blob.read(_STEP)):
        digest.update(piece)
        size += len(piece)
    with suppress(AttributeError, OSError):  # not every platform or back-end has it
        os.posix_fadvise(blob.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return size


def damage(file: File, seen: Look) -> Damage | None:
    """What is wrong with the file's bytes, as far as was looked."""
    if seen.size is None:
        return "missing"
    if seen.size != file.size:
        return "size"
    return None if seen.sha256 in (None, file.sha256) else "digest"


async def judge(index: Files, files: Iterable[File], seen: Look) -> list[tuple[File, Damage | None]]:
    """Those of `files`, which share a blob, that are damaged or marked: as they are now, and what is wrong.

    A blob outlives its rows. So what was seen of it before this was asked holds for those that still name it, and a
    file that was deleted, or was given another blob, is no finding.
    """
    found = []
    for file in files:
        if damage(file, seen) is None and file.damage is None:
            continue
        with suppress(NotFound):
            now = await index.file(file.id)
            if now.key == file.key:
                found.append((now, damage(now, seen)))
    return found
