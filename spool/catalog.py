"""Catalog: the only code that lists, opens, changes and deletes files."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from spool.errors import Damaged, NotFound, SpoolError
from spool.labels import to_label

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from datetime import timedelta
    from typing import BinaryIO

    from spool.hiding import Changes, Hidden
    from spool.model import By, File, FileId, FileQuery, Page
    from spool.ports import Clock, Files, LabelledStore

_log = logging.getLogger(__name__)

_SMALL: Final = 64 * 1024
"""Bytes of a file that are read in one go."""


class Catalog:
    """The committed files. One that has expired is not there, whether or not it has been swept."""

    def __init__(self, blobs: LabelledStore, files: Files, clock: Clock) -> None:
        self._blobs = blobs
        self._files = files
        self._clock = clock

    async def files(self, query: FileQuery) -> Page[File]:
        """See `ports.Files.files`."""
        page = await self._files.files(query)
        return replace(page, items=tuple(file for file in page.items if not self._expired(file)))

    async def latest(self, query: FileQuery) -> File:
        """The first file that the query gives, whatever its limit. Raises NotFound."""
        async for file in self.walk(replace(query, limit=1)):
            return file
        raise NotFound("no file matches")

    async def walk(self, query: FileQuery) -> AsyncIterator[File]:
        """Every file that the query gives, page by page."""
        while True:
            page = await self.files(query)
            for file in page.items:
                yield file
            if page.next is None:
                return
            query = replace(query, cursor=page.next)

    async def file(self, id: FileId) -> File:
        """Raises NotFound."""
        return self._living(await self._files.file(id))

    async def readable(self, id: FileId) -> File:
        """The file, whose bytes are sound as far as is known. Raises NotFound, Damaged."""
        file = await self.file(id)
        if file.damage is not None:
            raise Damaged("the bytes of this file were lost or changed on the disk", damage=file.damage)
        return file

    async def open(self, file: File) -> BinaryIO | bytes:
        """The file's bytes, or what they can be read from; that stays readable if the file is deleted meanwhile.

        The caller closes it. Raises NotFound, or Damaged if they are not there.
        """
        try:
            if file.size > _SMALL:
                return await self._blobs.open(file.key)
            body = await (self._files.body(file.id) if file.inline else self._blobs.read(file.key))
        except NotFound as error:
            await self.file(file.id)  # or it was deleted just now
            _log.error("blob.damaged", {"key": file.key, "damage": "missing", "files": 1})
            raise Damaged("the bytes of this file are gone from the disk", damage="missing") from error
        if len(body) != file.size:
            _log.error("blob.damaged", {"key": file.key, "damage": "size", "files": 1})
            raise Damaged("the bytes of this file are not as many as there were", damage="size")
        return body

    async def annotate(self, id: FileId, edit: Callable[[File], File], by: By | None) -> File:
        """See `ports.Files.annotate`."""
        file = await self._files.annotate(id, lambda file: edit(self._living(file)), by)
        await self._label(file, to_label(file).text)
        return file

    async def delete(self, id: FileId, by: By | None) -> File:
        """The file is gone, durably, hidden or not; returns what it was. Raises NotFound.

        `by` is None if its time had come. The row goes first: if the bytes stay behind for any reason, the sweep takes
        them.
        """
        file = await self._files.remove(id, by)
        await self._release(file)
        return file

    async def hide(self, id: FileId, grace: timedelta, by: By) -> Hidden:
        """The file is there for nobody, and whole until the grace, or its own time, is over. Raises NotFound.

        Its label stays as it is, for an index that is lost meanwhile must not cost the file.
        """
        return await self._files.hide(id, by.at + grace, by)

    async def restore(self, id: FileId, by: By) -> File:
        """A hidden file is there again, as it was. Raises NotFound if there is none, or its grace was over."""
        return await self._files.restore(id, by)

    async def hidden(self, limit: int) -> Sequence[Hidden]:
        """At most `limit` files that can be brought back, those deleted last first."""
        return await self._files.hidden(self._clock(), limit)

    async def changes(self, after: int | None, limit: int) -> Changes:
        """See `hiding.Hiding.changes`."""
        return await self._files.changes(after, limit)

    async def end_hidden(self, limit: int) -> Sequence[File]:
        """At most `limit` hidden files whose grace is over are gone, durably; returns what they were."""
        files = await self._files.end_hidden(self._clock(), limit)
        for file in files:
            await self._release(file)
        return files

    async def _release(self, file: File) -> None:
        """The blob of a file that has no record any more is gone, unless another record names it."""
        if file.inline:
            return
        # Nobody can begin to share a blob that no record names, so that asking afterwards leaves no race.
        if await self._files.referenced([file.key]):
            await self._label(file, None)
        else:
            await self._blobs.delete(file.key)

    async def _label(self, file: File, text: bytes | None) -> None:
        if file.inline:
            return
        try:
            await self._blobs.label(file.key, file.id, text)
        except SpoolError as error:  # what was asked for is done
            _log.warning("label.failed", {"id": file.id, "reason": str(error)})

    def _living(self, file: File) -> File:
        if self._expired(file):
            raise NotFound("this file has expired")
        return file

    def _expired(self, file: File) -> bool:
        return file.expires_at is not None and file.expires_at <= self._clock()
