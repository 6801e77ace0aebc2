"""What operations that ran together may have done to one another, and what each of them may be told."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from spool.errors import (
    BadType,
    CutOff,
    DigestMismatch,
    Gone,
    KeyInUse,
    NotFound,
    QuotaExceeded,
    Rejected,
    SpoolError,
    Superseded,
    Unavailable,
)
from spool.staging import HEAD

from .operations import (
    PROGRAM,
    Append,
    Begin,
    Cancel,
    Delete,
    DeleteHidden,
    Edit,
    Hide,
    Operation,
    Put,
    Restore,
    Sweep,
)
from .process import TTL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spool.model import File, Resumable

    from .book import Book, Coming, Kept, Told

Reasons = set[type[SpoolError]]
Kind = TypeVar("Kind", bound=Operation)


class Turmoil:
    """Operations that ran together, and the book as it was before."""

    def __init__(self, book: Book, operations: Sequence[Operation], *, crashed: bool) -> None:
        self.book = book
        self.crashed = crashed
        self._operations = operations
        sweeps = [op for op in operations if isinstance(op, Sweep)]
        self.sweeping = crashed or bool(sweeps)
        """Something may have been swept."""
        self.swept = crashed or any(op.done for op in sweeps)
        """All has been swept that had to be when this began."""

    def of(self, upload: Coming, kind: type[Kind]) -> list[Kind]:
        """The operations of this kind at the upload."""
        return [op for op in self._operations if isinstance(op, kind) and op.id == upload.id]  # type: ignore[attr-defined]

    def at(self, file: Kept, kind: type[Kind]) -> list[Kind]:
        """The operations of this kind at the file."""
        return [op for op in self._operations if isinstance(op, kind) and op.tag == file.tag]  # type: ignore[attr-defined]

    def leaving(self, file: Kept) -> bool:
        """Somebody may have deleted or hidden it."""
        return bool(self.at(file, Delete) or self.at(file, Hide))

    def fate(self, upload: Coming) -> Fate:
        """What may have become of an upload that was open."""
        return Fate(self, upload)

    def check_told(self, operation: Operation) -> None:
        """What the operation was told, it may be told."""
        match operation:
            case Put() if operation.key and (told := self.book.answer(operation.owner, operation.key[0])):
                self._check_retry(operation, operation.key[1], told)
                return
            case Put():
                must, may = self._put_reasons(operation)
            case Begin():
                must, may = self._quota_reasons(operation)
            case Append() | Cancel() if operation.id in self.book.finished:
                must, may = self._finished_reasons(operation)
            case Append() | Cancel():
                must, may = self._upload_reasons(operation)
            case Edit() | Delete() | Hide():
                must, may = self._file_reasons(operation)
            case Restore() | DeleteHidden():
                must, may = self._hidden_reasons(operation)
            case _:
                must, may = set[type[SpoolError]](), set[type[SpoolError]]()
        assert not (operation.done and must), f"{operation} should have been refused: {must}"
        if operation.refusal is not None:
            assert type(operation.refusal) in must | may, f"{operation} was told {operation.refusal!r}"

    def _alone(self) -> bool:
        return len(self._operations) == 1

    def _others(self, operation: Operation) -> list[Operation]:
        return [other for other in self._operations if other is not operation]

    def _check_retry(self, put: Put, request: str, told: Told) -> None:
        if isinstance(put.refusal, KeyInUse):
            assert self._rivals(put)
        elif put.refusal is not None:
            assert isinstance(put.refusal, Rejected)
            assert told.request != request
        if put.done:
            assert put.repeated
            assert told.request == request
            assert [file.id for file in put.files] == told.ids
            repeated = [replace(file, inline=False) for file in told.files]  # no answer tells that
            assert repeated in ([], put.files)

    def _rivals(self, put: Put) -> list[Put]:
        """Those with the same Idempotency-Key."""
        puts = [op for op in self._others(put) if isinstance(op, Put) and op.owner == put.owner]
        return [op for op in puts if op.key and put.key and op.key[0] == put.key[0]]

    def _put_reasons(self, put: Put) -> tuple[Reasons, Reasons]:
        must, may = self._quota_reasons(put)
        rivals = [
            op for op in self._others(put) if isinstance(op, Put) and op.owner == put.owner and op.key and put.key
        ]
        if any(op.key[0] == put.key[0] for op in rivals if op.key and put.key):
            may |= {KeyInUse, Rejected}
        if put.repeated:
            assert any(op.done and op.files == put.files for op in rivals), "it was told what nobody else was told"
            return set(), may
        if put.flaw:
            must.add(CutOff if put.flaw == "cut" else DigestMismatch)
        if any(content.startswith(PROGRAM) for content in put.contents):
            must.add(BadType)
        return must, may

    def _quota_reasons(self, operation: Put | Begin | Append) -> tuple[Reasons, Reasons]:
        owner, size, files = _wants(operation)
        sizes = [_wants(op) for op in self._others(operation) if isinstance(op, Put | Begin | Append)]
        size_of_others = sum(size for other, size, _ in sizes if other == owner)
        files_of_others = sum(files for other, _, files in sizes if other == owner)
        alone = self.book.past_quota(owner, size, files)
        together = self.book.past_quota(
            owner, size + size_of_others if size else 0, files + files_of_others if files else 0
        ) or (bool(size or files) and self.book.past_quota(owner, size + size_of_others, 0))
        return ({QuotaExceeded} if alone and self._alone() else set(), {QuotaExceeded} if alone or together else set())

    def _finished_reasons(self, operation: Append | Cancel) -> tuple[Reasons, Reasons]:
        upload = self.book.finished[operation.id]
        if self.book.over(upload.expires_at):
            return {Gone}, {NotFound}
        if isinstance(operation, Cancel):
            return set(), set() if self._alone() else {NotFound, Superseded}
        if operation.done:
            assert operation.file is not None
            assert operation.file.id == operation.id
        there = upload.tag in self.book.files
        coming_back = any(isinstance(op, Restore) and op.tag == upload.tag for op in self._operations)
        return set() if there or coming_back else {NotFound}, set() if self._alone() else {NotFound, Superseded}

    def _upload_reasons(self, operation: Append | Cancel) -> tuple[Reasons, Reasons]:
        upload = self.book.coming[operation.id]
        if self.book.over(upload.expires_at):
            return {Gone}, {NotFound}
        crowd = [*self.of(upload, Append), *self.of(upload, Cancel)]
        may: Reasons = {Superseded} if len(crowd) > 1 else set()
        if self.of(upload, Cancel) and len(crowd) > 1:
            may |= {NotFound, Gone, Unavailable}
        if len(crowd) > 1 and upload.doomed:
            may |= {NotFound, Unavailable}
        if isinstance(operation, Cancel):
            return set(), may
        if self.sweeping and (upload.doomed or self.book.over(upload.file_expires_at)):
            may |= {NotFound, Unavailable}
        return self._append_reasons(operation, upload, may)

    def _append_reasons(self, append: Append, upload: Coming, may: Reasons) -> tuple[Reasons, Reasons]:
        must: Reasons = set()
        if not upload.known:
            must, more = self._quota_reasons(append)
            may |= more
        if upload.doomed:
            may |= {BadType, DigestMismatch}
        if append.cut:
            may.add(CutOff)
        if not self._alone() or append.size is None:
            return must, may
        if append.cut:
            must.add(CutOff)
        if upload.doomed and (append.last or _reveals(append, upload)):
            must |= {BadType, DigestMismatch}
        if append.done and not must:
            assert (append.file is not None) == append.last
        return must, may

    def _file_reasons(self, operation: Edit | Delete | Hide) -> tuple[Reasons, Reasons]:
        expired = self.book.over(self.book.files[operation.tag].expires_at)
        hiders = () if isinstance(operation, Delete) else (Hide,)  # what is hidden can be deleted
        rivals = [op for op in self._others(operation) if isinstance(op, (Delete, *hiders)) and op.tag == operation.tag]
        must: Reasons = {NotFound} if expired and not isinstance(operation, Delete) else set()
        return must, {NotFound} if rivals or (expired and self.sweeping) else set()

    def _hidden_reasons(self, operation: Restore | DeleteHidden) -> tuple[Reasons, Reasons]:
        over = self.book.over(self.book.hidden[operation.tag].until)
        restorers = () if isinstance(operation, DeleteHidden) else (Restore,)  # what came back can be deleted
        kinds = (DeleteHidden, *restorers)
        rivals = [op for op in self._others(operation) if isinstance(op, kinds) and op.tag == operation.tag]
        must: Reasons = {NotFound} if over and isinstance(operation, Restore) else set()
        return must, {NotFound} if rivals or (over and self.sweeping) else set()


def _wants(operation: Put | Begin | Append) -> tuple[str, int, int]:
    """Whose quota it takes, how many bytes of it, and how many files."""
    match operation:
        case Put(owner):
            return owner, sum(map(len, operation.contents)), len(operation.contents)
        case Begin(owner):
            return owner, len(operation.content) if operation.known else 0, 1
        case Append():
            target = operation.target
            left = len(target.content) - target.told
            return target.owner, 0 if target.known else min(left, operation.size or 0), 0


def _reveals(append: Append, upload: Coming) -> bool:
    """The first bytes tell that it is a program."""
    return upload.content.startswith(PROGRAM) and append.start == 0 and append.sent >= HEAD


class Fate:
    """What may have become of an upload that was open."""

    def __init__(self, turmoil: Turmoil, upload: Coming) -> None:
        self._turmoil = turmoil
        self._upload = upload
        self._appends = turmoil.of(upload, Append)
        self._cancels = turmoil.of(upload, Cancel)
        self._told = max([upload.told, *(op.told for op in self._appends if op.told is not None)])
        self._sent = max([upload.told, *(op.sent for op in self._appends)])
        self._whole = self._sent == len(upload.content) and any(op.last for op in self._appends)
        self._expired = turmoil.book.over(upload.expires_at)

    def check_open(self, row: Resumable) -> None:
        """An open upload stands between what was told and what was sent."""
        upload, turmoil = self._upload, self._turmoil
        assert row.state == "open", "an upload that is complete was not finished"
        offset = row.staged.offset
        assert self._told <= offset <= self._sent, f"told {self._told}, sent {self._sent}, but it stands at {offset}"
        if not turmoil.crashed and not any(isinstance(op.refusal, QuotaExceeded) for op in self._appends):
            assert offset == self._sent, "bytes that arrived were not kept"
            assert not (upload.known and self._whole), "it has all its bytes, and is still open"
        assert row.expires_at in (upload.expires_at, turmoil.book.clock() + TTL)
        assert not any(op.file for op in self._appends), "a file that was acknowledged is open"
        assert not any(op.done for op in self._cancels), "what was cancelled is there"
        assert not (turmoil.swept and self._expired), "what has expired is there"

    def check_ended(self, file: File | None, *, finished: bool) -> None:
        """An upload that is open no longer is a file, or was given up for a reason."""
        upload, turmoil = self._upload, self._turmoil
        given_up = any(op.refusal is None for op in self._cancels) or (turmoil.sweeping and self._expired)
        file_expired = turmoil.sweeping and turmoil.book.over(upload.file_expires_at)
        acknowledged = any(op.file for op in self._appends)
        if finished or file is not None or acknowledged:
            assert self._whole, "it is a file without all its bytes"
            assert not upload.doomed, "a file that should have been refused is there"
            assert file is not None or file_expired, "a file that was finished is lost"
            assert finished or given_up, "the row of an upload that became a file is lost"
        else:
            revealed = any(_reveals(op, upload) for op in self._appends)
            assert given_up or (upload.doomed and (self._whole or revealed)), "the upload is lost"
