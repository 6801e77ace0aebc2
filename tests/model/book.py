"""What must be in the spool, as dictionaries, and what a run of operations may have made of it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import TYPE_CHECKING

from spool.errors import NotFound
from spool.model import FileQuery, Usage

from .operations import GRACE, OWNERS, PROGRAM, Begin, Cancel, Delete, DeleteHidden, Edit, Hide, Put, Restore
from .process import TTL
from .turmoil import Turmoil

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spool.hiding import Hidden
    from spool.model import File, FileId, Key, Metadata, Resumable, UploadId

    from .operations import Operation
    from .process import Clock, Process

LIFETIME = timedelta(hours=24)
"""How long an answer is remembered."""
ALL = 1000
LONG_AGO = datetime.min.replace(tzinfo=UTC)


@dataclass
class Kept:
    """A file."""

    tag: str
    id: FileId
    owner: str
    content: bytes
    filename: str
    metadata: Metadata
    expires_at: datetime | None
    blob: Key | None
    """None if its bytes are in the index."""

    def agrees(self, file: File) -> bool:
        """The record is the file's."""
        record = (file.id, file.owner, file.size, file.sha256, file.filename, file.metadata, file.expires_at)
        digest = hashlib.sha256(self.content).hexdigest()
        mine = (self.id, self.owner, len(self.content), digest, self.filename, self.metadata, self.expires_at)
        return record == mine and _blob(file) == self.blob and file.damage is None


@dataclass
class Hid:
    """A file that is hidden."""

    file: Kept
    until: datetime


@dataclass
class Coming:
    """A resumable upload."""

    tag: str
    id: UploadId
    owner: str
    content: bytes
    known: bool
    """Its length was declared."""
    wrong: bool
    """Its digest is not that of its bytes."""
    file_expires_at: datetime | None
    expires_at: datetime
    told: int = 0
    """The offset that was told last, or found."""

    @property
    def doomed(self) -> bool:
        """It never becomes a file."""
        return self.wrong or self.content.startswith(PROGRAM)

    @property
    def size(self) -> int:
        """What it counts for."""
        return len(self.content) if self.known else self.told


@dataclass
class Told:
    """What was answered under an Idempotency-Key."""

    request: str
    at: datetime
    ids: list[FileId]
    files: list[File]
    """Empty if nobody heard the answer."""


@dataclass
class Seen:
    """The rows as they are."""

    files: dict[str, File]
    hidden: dict[str, Hidden]
    uploads: dict[str, Resumable]

    @classmethod
    async def look(cls, process: Process) -> Seen:
        files = (await process.db.files(FileQuery(limit=ALL))).items
        hidden = await process.db.hidden(LONG_AGO, ALL)
        uploads = await process.db.uploads(None, ALL)
        seen = cls(
            {str(f.metadata["tag"]): f for f in files},
            {str(h.file.metadata["tag"]): h for h in hidden},
            {str(u.intent.metadata["tag"]): u for u in uploads},
        )
        assert not seen.files.keys() & seen.hidden.keys(), "a file is there, and hidden"
        return seen


class Book:
    """The model of one spool."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.files: dict[str, Kept] = {}
        """All that have a row, expired or not, and are not hidden."""
        self.hidden: dict[str, Hid] = {}
        self.coming: dict[UploadId, Coming] = {}
        self.finished: dict[UploadId, Coming] = {}
        self.answers: dict[tuple[str, str], Told] = {}
        self._tags = count()

    def new_tag(self) -> str:
        return f"{next(self._tags)}"

    def over(self, expires_at: datetime | None) -> bool:
        """This time has come."""
        return expires_at is not None and expires_at <= self.clock()

    def usage(self, owner: str) -> Usage:
        kept = [*self.files.values(), *(hidden.file for hidden in self.hidden.values())]
        files = [len(file.content) for file in kept if file.owner == owner]
        uploads = [upload.size for upload in self.coming.values() if upload.owner == owner]
        return Usage(len(files), sum(files) + sum(uploads), len(uploads))

    def answer(self, owner: str, key: str) -> Told | None:
        """What is to be told to whom comes again."""
        told = self.answers.get((owner, key))
        return told if told is not None and told.at >= self.clock() - LIFETIME else None

    def past_quota(self, owner: str, size: int, files: int) -> bool:
        """So much more is too much."""
        kept, allowance = self.usage(owner), OWNERS[owner].allowance
        bytes_over = allowance.quota and (size or files) and kept.size + size > allowance.quota
        files_over = allowance.quota_files and files and kept.files + kept.uploads + files > allowance.quota_files
        return bool(bytes_over or files_over)

    async def settle(self, process: Process, operations: Sequence[Operation], *, crashed: bool) -> None:
        """The book is what the rows are, if the operations may have made them so.

        Of those that were under way at a crash, each has happened or has not. After a crash there was a sweep.
        """
        seen = await Seen.look(process)
        turmoil = Turmoil(self, operations, crashed=crashed)
        for operation in operations:
            turmoil.check_told(operation)
        before, hidden = {**self.files}, {**self.hidden}
        self.files, self.hidden = {}, {}
        for kept in before.values():
            self._settle_file(seen, kept, turmoil)
        for hid in hidden.values():
            self._settle_hidden(seen, hid, turmoil)
        for operation in operations:
            if isinstance(operation, Put):
                self._settle_put(seen, operation)
        for upload in [*self.coming.values()]:
            await self._settle_upload(process, seen, upload, turmoil)
        for upload in [*self.finished.values()]:
            await self._settle_finished(process, upload, turmoil)
        self._settle_sharing(before, hidden, turmoil)
        for operation in operations:
            if isinstance(operation, Begin):
                self._settle_begin(seen, operation)
        self.answers = {key: told for key, told in self.answers.items() if self.answer(*key)}

    def _settle_file(self, seen: Seen, kept: Kept, turmoil: Turmoil) -> None:
        deletes, hides = turmoil.at(kept, Delete), turmoil.at(kept, Hide)
        expired = self.over(kept.expires_at)
        file, hidden = seen.files.get(kept.tag), seen.hidden.get(kept.tag)
        if file is None and hidden is None:
            assert deletes or (expired and turmoil.sweeping), f"{kept.tag} is lost"
            return
        assert not any(op.done or op.refusal for op in deletes), f"{kept.tag} was deleted, and is there"
        if hidden is not None:
            assert any(op.refusal is None for op in hides), f"nobody has hidden {kept.tag}"
            self._settle_edits(kept, hidden.file, turmoil)
            until = self.clock() + GRACE
            assert hidden.until == (until if kept.expires_at is None else min(until, kept.expires_at))
            self.hidden[kept.tag] = Hid(kept, hidden.until)
        elif file is not None:
            assert not any(op.done for op in hides), f"{kept.tag} was hidden, and is there"
            assert not (expired and turmoil.swept), f"{kept.tag} has expired, and is there"
            self._settle_edits(kept, file, turmoil)
            self.files[kept.tag] = kept

    def _settle_edits(self, kept: Kept, file: File, turmoil: Turmoil) -> None:
        edits = [op for op in turmoil.at(kept, Edit) if op.refusal is None]
        for member in {op.member for op in edits}:
            of_this = [op for op in edits if op.member == member]
            allowed = [op.value for op in of_this]
            if not any(op.done for op in of_this):
                allowed.append(getattr(kept, member))
            assert getattr(file, member) in allowed
            setattr(kept, member, getattr(file, member))

    def _settle_hidden(self, seen: Seen, hid: Hid, turmoil: Turmoil) -> None:
        tag = hid.file.tag
        deletes, restores = turmoil.at(hid.file, DeleteHidden), turmoil.at(hid.file, Restore)
        if tag in seen.files:
            assert any(op.refusal is None for op in restores), f"{tag} came back by itself"
            assert not self.over(hid.until), f"{tag} came back when its time was over"
            self.files[tag] = hid.file
        elif tag in seen.hidden:
            assert not any(op.done for op in restores), f"{tag} was brought back, and is hidden"
            assert not (self.over(hid.until) and turmoil.swept), f"the time of {tag} is over, and it is hidden"
            assert seen.hidden[tag].until == hid.until
            self.hidden[tag] = hid
        else:
            assert deletes or (self.over(hid.until) and turmoil.sweeping), f"{tag} was hidden, and is lost"
            return
        assert not any(op.done or op.refusal for op in deletes), f"{tag} was deleted, and is there"

    def _settle_sharing(self, before: dict[str, Kept], hidden: dict[str, Hid], turmoil: Turmoil) -> None:
        """New files have the blob of an equal file that is there, and never that of one that is only hidden."""
        new = [file for tag, file in self.files.items() if tag not in before and tag not in hidden and file.blob]
        for content in {file.content for file in new}:
            blobs = {file.blob for file in new if file.content == content}
            there = [file for file in before.values() if file.content == content and file.blob]
            staying = [file for file in there if not (turmoil.leaving(file) or self.over(file.expires_at))]
            back = [hid.file for hid in hidden.values() if turmoil.at(hid.file, Restore)]
            shared = blobs & {file.blob for file in [*there, *back]}
            assert len(blobs - shared) <= (not staying), "equal bytes are kept twice"
            assert not (blobs - shared) & {hid.file.blob for hid in hidden.values()}, (
                "the blob of a hidden file is used"
            )

    def _settle_put(self, seen: Seen, put: Put) -> None:
        there = [seen.files[tag] for tag in put.tags if tag in seen.files]
        if put.repeated:
            assert not there
            return
        assert len(there) in (0, len(put.tags)), "a part of a form is there"
        assert not put.done or there, "what was acknowledged is lost"
        assert not put.refusal or not there, "what was refused is there"
        if not there:
            return
        assert not put.done or put.files == there, "it was told something else than is there"
        assert not put.flaw
        for file, content in zip(there, put.contents, strict=True):
            tag = str(file.metadata["tag"])
            kept = Kept(tag, file.id, put.owner, content, tag, {"tag": tag}, put.expires_at, _blob(file))
            self.files[tag] = kept
        if put.key is not None:
            key, request = put.key
            ids = [file.id for file in there]
            self.answers[put.owner, key] = Told(request, self.clock(), ids, list(put.files))

    def _settle_begin(self, seen: Seen, begin: Begin) -> None:
        row = seen.uploads.get(begin.tag)
        assert not begin.done or row is not None, "an upload that was created is lost"
        assert not begin.refusal or row is None
        if row is not None:
            assert row.expires_at == self.clock() + TTL
            self.coming[row.id] = Coming(
                begin.tag,
                row.id,
                begin.owner,
                begin.content,
                begin.known,
                begin.wrong,
                begin.expires_at,
                row.expires_at,
            )

    async def _settle_upload(self, process: Process, seen: Seen, upload: Coming, turmoil: Turmoil) -> None:
        fate = turmoil.fate(upload)
        row, file = seen.uploads.get(upload.tag), seen.files.get(upload.tag)
        if row is not None:
            fate.check_open(row)
            assert file is None, "an upload is open, and a file"
            upload.told, upload.expires_at = row.staged.offset, row.expires_at
            return
        del self.coming[upload.id]
        expires_at = await _when_finished(process, upload)
        if expires_at is not None:
            self.finished[upload.id] = replace(upload, expires_at=expires_at)
        fate.check_ended(file, finished=expires_at is not None)
        if file is not None:
            expiry = upload.file_expires_at
            self.files[upload.tag] = Kept(
                upload.tag, file.id, upload.owner, upload.content, upload.tag, {"tag": upload.tag}, expiry, _blob(file)
            )
            assert file.id == str(upload.id)

    async def _settle_finished(self, process: Process, upload: Coming, turmoil: Turmoil) -> None:
        expired, cancels = self.over(upload.expires_at), turmoil.of(upload, Cancel)
        if await _when_finished(process, upload) is None:
            assert any(op.refusal is None for op in cancels) or (expired and turmoil.sweeping)
            del self.finished[upload.id]
        else:
            assert not any(op.done for op in cancels)
            assert not (expired and turmoil.swept)


def _blob(file: File) -> Key | None:
    return None if file.inline else file.key


async def _when_finished(process: Process, upload: Coming) -> datetime | None:
    try:
        row = await process.db.upload(upload.id)
    except NotFound:
        return None
    assert row.state == "finished"
    return row.expires_at
