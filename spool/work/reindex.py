"""Makes the records anew from the blobs, for an index that was lost."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from spool.errors import NotFound, SpoolError, Unavailable
from spool.labels import parse_label
from spool.model import File, FileId
from spool.staging import new_id
from spool.work.inspection import look

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from datetime import datetime

    from spool.model import Key
    from spool.ports import Index, LabelledStore, Sniffer

    Entry = tuple[Key, int, datetime]
    """A blob, its size, and when it was written."""

RECOVERED: Final = "recovered"
"""Who owns a file of which nothing is known but its bytes."""
_AT_ONCE: Final = 64
"""Blobs looked at together; each may be open."""
_LOT: Final = 4000
"""Files of one transaction."""
_HEAD: Final = 64 * 1024


@dataclass(slots=True)
class Rebuilt:
    """What was found."""

    blobs: int = 0
    files: int = 0
    recovered: int = 0
    """Of the files: those without a usable label."""
    findings: int = 0


async def run_once(
    blobs: LabelledStore, index: Index, sniffer: Sniffer, report: Callable[[str], None], *, deep: bool
) -> Rebuilt:
    """Every live blob has the records that its labels tell, if they agree with it, or one made from its bytes.

    `index` is a new one. Labels agree if they have the blob's size and, where `deep` or where they contradict each
    other, its SHA-256. `report` is told, in a sentence each, which do not, and what cannot be read.
    """
    return await _Reindexing(blobs, index, sniffer, report, deep=deep).run()


class _Reindexing:
    def __init__(
        self, blobs: LabelledStore, index: Index, sniffer: Sniffer, report: Callable[[str], None], *, deep: bool
    ) -> None:
        self._blobs = blobs
        self._index = index
        self._sniffer = sniffer
        self._tell = report
        self._deep = deep
        self._rebuilt = Rebuilt()

    async def run(self) -> Rebuilt:
        files: list[File] = []
        async for entries in _lots(self._blobs):
            self._rebuilt.blobs += len(entries)
            for found in await asyncio.gather(*map(self._describe, entries)):
                files += found
            if len(files) >= _LOT:
                await self._record(files)
                files = []
        await self._record(files)
        return self._rebuilt

    async def _describe(self, entry: Entry) -> Sequence[File]:
        """The files whose bytes this blob is."""
        key, size, _ = entry
        labelled: Sequence[File] = []
        try:
            labelled = await self._labelled(key, size)
            if not labelled or self._deep or len({file.sha256 for file in labelled}) > 1:
                return await self._compared(entry, labelled)
        except (SpoolError, OSError) as error:
            self._report(f"{key}: cannot be read: {error}")
        return labelled

    async def _labelled(self, key: Key, size: int) -> list[File]:
        """What labels of the blob's size say."""
        usable = []
        for label in await self._blobs.labels(key):
            try:
                file = parse_label(label, key)
            except ValueError:
                self._report(f"{key}: the label of {label.file_id} cannot be read")
                continue
            if file.size == size:
                usable.append(file)
            else:
                self._report(f"{key}: {_name(file)} has {file.size} bytes by its label, but the blob has {size}")
        return usable

    async def _compared(self, entry: Entry, labelled: Sequence[File]) -> Sequence[File]:
        key, *_ = entry
        sha256 = await self._digest(key)
        for file in labelled:
            if file.sha256 != sha256:
                self._report(f"{key}: {_name(file)} has other bytes by its label than the blob")
        return [file for file in labelled if file.sha256 == sha256] or [await self._recover(entry, sha256)]

    async def _digest(self, key: Key) -> str:
        """Raises Unavailable if the blob cannot be read."""
        seen = await look(self._blobs, key, read=True)
        if not seen.sha256:
            raise Unavailable("the disk does not give its bytes")
        return seen.sha256

    async def _recover(self, entry: Entry, sha256: str) -> File:
        """A file of which nothing is known but its bytes."""
        key, size, written_at = entry
        with await self._blobs.open(key) as blob:
            media_type = await self._sniffer.sniff(await asyncio.to_thread(blob.read, _HEAD))
        self._rebuilt.recovered += 1
        return File(
            id=FileId(new_id(written_at)),
            key=key,
            owner=RECOVERED,
            filename=key,
            size=size,
            media_type=media_type,
            declared_type=None,
            sha256=sha256,
            created_at=written_at,
            expires_at=None,
            metadata={},
        )

    async def _record(self, files: Sequence[File]) -> None:
        try:
            await self._index.finish(files)
        except Unavailable:  # the index failed, or knows one of the ids
            first, again = await self._part(files)
            if not again:
                raise
            await self._index.finish(first)
            for file in again:
                await self._settle(file)
            files = first
        self._rebuilt.files += len(files)

    async def _part(self, files: Sequence[File]) -> tuple[list[File], list[File]]:
        """Those whose ids are met for the first time, and the others."""
        first: dict[FileId, File] = {}
        again = []
        for file in files:
            if file.id in first or await self._known(file.id):
                again.append(file)
            else:
                first[file.id] = file
        return list(first.values()), again

    async def _known(self, id: FileId) -> bool:
        try:
            await self._index.file(id)
        except NotFound:
            return False
        return True

    async def _settle(self, file: File) -> None:
        """Another blob has a label of the same file: a crash came while they were about to become one, or it is wrong.

        The file keeps the one whose bytes are right. The other one is no file's, or one of which nothing is known.
        """
        known = await self._index.file(file.id)
        if (known.sha256, known.size) != (file.sha256, file.size):
            self._report(f"{file.key}: {_name(file)} is another file by a label of {known.key}")
            if not await self._index.referenced([file.key]):
                await self._recover_other(file)
        elif await self._content(known.key) != known.sha256:
            await self._index.heal(known.key, file.key)

    async def _recover_other(self, file: File) -> None:
        sha256 = await self._digest(file.key)
        await self._index.finish([await self._recover((file.key, file.size, file.created_at), sha256)])
        self._rebuilt.files += 1

    async def _content(self, key: Key) -> str | None:
        """The blob's SHA-256; None if it cannot be read."""
        try:
            return await self._digest(key)
        except (SpoolError, OSError):
            return None

    def _report(self, finding: str) -> None:
        self._rebuilt.findings += 1
        self._tell(finding)


def _name(file: File) -> str:
    return f"file {file.id} ({file.filename!r})"


async def _lots(blobs: LabelledStore) -> AsyncIterator[list[Entry]]:
    lot = []
    async for entry in blobs.keys(live=True):
        lot.append(entry)
        if len(lot) == _AT_ONCE:
            yield lot
            lot = []
    if lot:
        yield lot
