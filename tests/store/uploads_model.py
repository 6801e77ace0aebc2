"""Resumable uploads to test with, and a model of what becomes of them."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING

import pytest
from hypothesis import strategies as st

from spool.errors import Superseded
from spool.model import Intent, Key, Resumable, Staged, UploadId, Usage

from .index_suite import DAY, NOON, a_file, empty

if TYPE_CHECKING:
    from spool.model import File
    from spool.ports import Index

EVER = NOON + 1000 * DAY


def an_upload(name: str, size: int | None = 100, offset: int = 0, **changes: object) -> Resumable:
    upload = Resumable(
        id=UploadId(f"up-{name}"),
        key=Key(f"key-{name}"),
        owner="ada",
        dialect="tus",
        intent=Intent(f"{name}.jpg", size),
        notes={},
        partial=False,
        created_at=NOON,
        expires_at=NOON + DAY,
        staged=Staged(offset),
        state="open",
        epoch=0,
        media_type=None,
        file_id=None,
    )
    return replace(upload, **changes)


def complete(name: str, size: int = 100, **changes: object) -> Resumable:
    return an_upload(name, size, size, state="complete", **changes)


def file_of(upload: Resumable) -> File:
    name = upload.id.removeprefix("up-")
    return a_file(name, key=upload.key, owner=upload.owner, size=upload.staged.offset)


def finished(upload: Resumable) -> Resumable:
    return replace(upload, state="finished", file_id=file_of(upload).id)


async def clear(index: Index) -> None:
    await empty(index)
    while lot := await index.stale(EVER, 100):
        for upload in lot:
            await index.drop(upload.id)


class Model:
    """What the rows should be, and the steps that lead from one state of them to another."""

    def __init__(self, index: Index, data: st.DataObject) -> None:
        self._index = index
        self._data = data
        self._uploads: dict[UploadId, Resumable] = {}
        self._files: list[File] = []
        self._numbers = count()

    def usage(self, owner: str) -> Usage:
        files = [file.size for file in self._files if file.owner == owner]
        kept = [upload for upload in self._uploads.values() if upload.owner == owner and upload.state != "finished"]
        sizes = [upload.staged.offset if upload.intent.size is None else upload.intent.size for upload in kept]
        return Usage(len(files), sum(files) + sum(sizes), len(kept))

    def promised(self) -> int:
        uploads = [upload for upload in self._uploads.values() if upload.state == "open"]
        return sum(upload.intent.size - upload.staged.offset for upload in uploads if upload.intent.size is not None)

    def steps(self) -> list[object]:
        steps: list[object] = [self._add, self._put]
        if self._uploads:
            steps += [self._claim, self._advance, self._advance_late, self._finish, self._finish_in_vain, self._drop]
        if self._files:
            steps.append(self._remove)
        return steps

    def _some_upload(self) -> Resumable:
        return self._uploads[self._data.draw(st.sampled_from(sorted(self._uploads)))]

    async def _add(self) -> None:
        draw = self._data.draw
        size = draw(st.none() | st.integers(0, 9))
        offset = draw(st.integers(0, 9 if size is None else size))
        changes = {"owner": draw(st.sampled_from(["ada", "bob"])), "partial": draw(st.booleans())}
        upload = an_upload(str(next(self._numbers)), size, offset, **changes)
        await self._index.add_upload(upload)
        self._uploads[upload.id] = upload

    async def _put(self) -> None:
        file = a_file(str(next(self._numbers)), owner=self._data.draw(st.sampled_from(["ada", "bob"])), size=3)
        await self._index.finish([file])
        self._files.append(file)

    async def _claim(self) -> None:
        upload = await self._index.claim(self._some_upload().id)
        self._uploads[upload.id] = upload

    async def _advance(self) -> None:
        upload = self._some_upload()
        if upload.state == "finished":
            return
        size = upload.intent.size
        if size is None:
            size = self._data.draw(st.none() | st.integers(upload.staged.offset, upload.staged.offset + 9))
        offset = self._data.draw(st.integers(upload.staged.offset, upload.staged.offset + 9 if size is None else size))
        state = self._data.draw(st.sampled_from(["open", "complete"]))
        intent = replace(upload.intent, size=size)
        upload = replace(upload, intent=intent, staged=Staged(offset), state=state)
        await self._index.advance(upload)
        self._uploads[upload.id] = upload

    async def _advance_late(self) -> None:
        upload = self._some_upload()
        with pytest.raises(Superseded):
            await self._index.advance(replace(upload, staged=Staged(99), state="complete", epoch=upload.epoch - 1))

    async def _finish(self) -> None:
        upload = self._some_upload()
        if upload.state != "complete":
            return
        await self._index.finish([file_of(upload)], None, upload)
        self._files.append(file_of(upload))
        self._uploads[upload.id] = finished(upload)

    async def _finish_in_vain(self) -> None:
        upload = self._some_upload()
        if upload.state == "complete":
            upload = replace(upload, epoch=upload.epoch + 1)
        with pytest.raises(Superseded):
            await self._index.finish([a_file("vain")], None, upload)

    async def _drop(self) -> None:
        upload = self._some_upload()
        assert await self._index.drop(upload.id) == self._uploads.pop(upload.id)

    async def _remove(self) -> None:
        file = self._data.draw(st.sampled_from(self._files))
        self._files.remove(file)
        await self._index.remove(file.id)
