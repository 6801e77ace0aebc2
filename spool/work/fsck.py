"""Checks a whole spool: the index, every record against its blob, every blob for its record, and staged bytes.

It may run beside a server. Blobs and records are read at different moments, so whatever does not fit is only suspected,
and looked at once more in the order that leaves no doubt: of a record, first the blob and then whether the record still
names it; of a blob, whether it is old enough to be nobody's on its way, and outlives a delete that is under way.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Final

from spool.errors import NotFound, SpoolError
from spool.model import Finding
from spool.staging import is_key
from spool.work.inspection import Look, judge, look, look_at

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from datetime import datetime

    from spool.model import Damage, File, FindingKind, Key, Resumable
    from spool.ports import CheckedStore, Index

_PAGE: Final = 2000
_LOT: Final = 500
_AT_ONCE: Final = 2
"""Blobs that are looked at together."""
_DELETE: Final = 1.0
"""Seconds that a delete may take from its row to its blob."""
_PREFIXES: Final = tuple(f"{number:02x}" for number in range(256))
_BOUNDS: Final = tuple(zip(("", *_PREFIXES[1:]), (*_PREFIXES[1:], None), strict=True))
"""Every key lies within one of these."""


@dataclass(slots=True)
class Tally:
    """What a check has looked at."""

    files: int = 0
    blobs: int = 0
    uploads: int = 0
    read: int = 0
    """Bytes."""


class Fsck:
    """One check of a spool."""

    def __init__(
        self,
        blobs: CheckedStore,
        index: Index,
        *,
        deep: bool = False,
        repair: bool = False,
        since: datetime | None = None,
    ) -> None:
        """`deep` reads every blob; without, only those of files that are marked. `repair` mends what can be.

        `since` is None where no other process takes uploads. Else blobs that were written then or later may be on
        their way, and are left alone.
        """
        self.tally = Tally()
        self._blobs = blobs
        self._index = index
        self._deep = deep
        self._repair = repair
        self._since = since
        self._latest: tuple[Key, Look] | None = None

    async def run(self) -> AsyncIterator[Finding]:
        """Everything that is wrong. Memory does not depend on how much the spool holds.

        Where the index is not sound, nothing is repaired that goes by its records.
        """
        faults = 0
        async for finding in self._check_index():
            faults += not finding.repaired
            yield finding
        self._repair = self._repair and not faults
        try:
            async for finding in self._check_all():
                yield finding
        except SpoolError as error:
            if not faults:
                raise
            yield Finding("index", f"the check ended early: {error}")

    async def _check_index(self) -> AsyncIterator[Finding]:
        left = found = await self._index.check()
        if self._repair and found:
            await self._index.recount()
            left = await self._index.check()
        for sentence in found:
            yield Finding("index", sentence, repaired=sentence not in left)
        for sentence in left:
            if sentence not in found:
                yield Finding("index", sentence)

    async def _check_all(self) -> AsyncIterator[Finding]:
        async for place in self._blobs.strays():
            yield Finding("stray", "it is no blob of ours", place)
        for prefix, bounds in zip(_PREFIXES, _BOUNDS, strict=True):
            async for finding in self._check_shard(prefix, bounds):
                yield finding
        async for finding in self._check_uploads():
            yield finding

    async def _check_shard(self, prefix: str, bounds: tuple[str, str | None]) -> AsyncIterator[Finding]:
        sizes: dict[Key, int] = {}
        idle: set[Key] = set()
        async for key, size, written_at in self._blobs.keys(prefix, live=True):
            sizes[key] = size
            if self._since is None or written_at < self._since:
                idle.add(key)
        self.tally.blobs += len(sizes)
        async for files in self._files(*bounds):
            self.tally.files += len(files)
            idle.difference_update(file.key for file in files)
            for finding in await self._check_files(files, sizes):
                yield finding
        for finding in await self._check_idle(sorted(idle), sizes):
            yield finding

    async def _files(self, start: str, end: str | None) -> AsyncIterator[Sequence[File]]:
        last: File | None = None
        while files := await self._index.by_key(last, _PAGE, start=start, end=end):
            yield files
            last = files[-1]
            if len(files) < _PAGE:
                return

    async def _check_files(self, files: Sequence[File], sizes: Mapping[Key, int]) -> list[Finding]:
        suspects = [f for f in files if self._deep or f.damage is not None or not _fits(f, sizes)]
        groups = [list(group) for _, group in groupby(suspects, key=lambda file: file.key)]
        findings = []
        for start in range(0, len(groups), _AT_ONCE):
            together = groups[start : start + _AT_ONCE]
            for found in await asyncio.gather(*map(self._check_sharing, together)):
                findings += found
        return findings

    async def _check_sharing(self, files: Sequence[File]) -> list[Finding]:
        """What is wrong with files that share a blob."""
        seen = await self._look(files[0], read=self._deep or any(file.damage is not None for file in files))
        judged = await judge(self._index, files, seen)
        damaged = [(file, kind) for file, kind in judged if kind is not None]
        healed = [file for file, kind in judged if kind is None and file.damage is not None]
        if self._repair and judged:
            await self._index.mark(files[0].key, damaged[0][1] if damaged else None)
        mended = self._repair and not damaged
        return [_damaged(file, kind, seen, marked=self._repair) for file, kind in damaged] + [
            _finding(file, "sound", "its blob is whole again", repaired=mended) for file in healed
        ]

    async def _look(self, file: File, *, read: bool) -> Look:
        """The same again for the same blob, which may be shared by more files than a page holds."""
        key, latest = file.key, self._latest
        if latest is not None and latest[0] == key and (latest[1].sha256 is not None or not read):
            return latest[1]
        seen = await look_at(self._blobs, self._index, file, read=read)
        self.tally.read += seen.size or 0 if read else 0
        self._latest = key, seen
        return seen

    async def _check_idle(self, keys: Sequence[Key], sizes: Mapping[Key, int]) -> list[Finding]:
        """What of `keys`, which no record seemed to name, is garbage."""
        suspects = await self._unnamed(keys)
        if suspects and self._since is not None:
            await asyncio.sleep(_DELETE)
            there = [key for key in suspects if (await look(self._blobs, key)).size is not None]
            suspects = await self._unnamed(there)
        return [await self._reclaim(key, sizes[key]) for key in suspects]

    async def _unnamed(self, keys: Sequence[Key]) -> list[Key]:
        unnamed: list[Key] = []
        for start in range(0, len(keys), _LOT):
            lot = keys[start : start + _LOT]
            named = await self._index.referenced(lot)
            unnamed += [key for key in lot if key not in named]
        return unnamed

    async def _reclaim(self, key: Key, size: int) -> Finding:
        if not is_key(key):
            return Finding("stray", "it is no blob of ours", key)
        if self._repair:
            await self._blobs.delete(key)
        return Finding("orphan", f"no record names this blob of {size} bytes", key, repaired=self._repair)

    async def _check_uploads(self) -> AsyncIterator[Finding]:
        last: Resumable | None = None
        while uploads := await self._index.uploads(last.id if last else None, _LOT):
            for upload in uploads:
                self.tally.uploads += 1
                if finding := await self._check_upload(upload):
                    yield finding
            last = uploads[-1]

    async def _check_upload(self, upload: Resumable) -> Finding | None:
        if not upload.staged.offset:  # it may have no blob yet
            return None
        staged = (await look(self._blobs, upload.key, staged=True)).size or 0
        if staged >= upload.staged.offset:
            return None
        try:
            if (await self._index.upload(upload.id)).state == "finished":
                return None
        except NotFound:  # it was given up meanwhile
            return None
        detail = f"{staged} of its {upload.staged.offset} bytes are staged; it cannot go on, and will expire"
        return Finding("upload", detail, upload.key, upload.id, upload.intent.filename)


def _fits(file: File, sizes: Mapping[Key, int]) -> bool:
    return file.inline or sizes.get(file.key) == file.size


def _damaged(file: File, kind: Damage, seen: Look, *, marked: bool) -> Finding:
    match kind:
        case "missing":
            detail = "its blob is gone"
        case "size":
            detail = f"its blob has {seen.size} bytes, not {file.size}"
        case "digest":
            detail = f"its blob has the SHA-256 {seen.sha256}" if seen.sha256 else "its blob cannot be read"
    return _finding(file, kind, f"{detail}; the file is marked" if marked or file.damage else detail)


def _finding(file: File, kind: FindingKind, detail: str, *, repaired: bool = False) -> Finding:
    return Finding(kind, detail, file.key, file.id, file.filename, repaired=repaired)
