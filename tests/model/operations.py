"""What clients and the sweep do to a spool. Each operation remembers what it sent and what it was told."""

from __future__ import annotations

import hashlib
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, ClassVar

from hypothesis import strategies as st

from spool.errors import CutOff, SpoolError
from spool.model import Allowance, Answer, By, Intent, Principal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from datetime import datetime

    from spool.model import File, FileId, Metadata, Resumable, Upload, UploadId
    from spool.turn import Turn

    from .book import Book, Coming, Kept
    from .process import Fuse, Process

DIALECT = "tus"
LATE = 11
"""The number that means a finished upload; the others mean one that is open, if there is one."""
STEP = 2500
"""Bytes of one chunk of a body."""
PROGRAM = b"MZ"
"""What begins so is refused."""
LONG = 9000
CONTENTS = {"empty": b"", "one": b"one", "two": b"two", "long a": b"a" * LONG, "long b": b"b" * LONG}
GRACE = timedelta(minutes=2)
"""How long a file that was hidden can be brought back."""
LARGE = {"large": b"c" * 70_000}
"""Too large to be kept in memory until its commit."""
REFUSED = {"program": PROGRAM, "long program": PROGRAM * 3000}
QUOTA = Allowance(quota=2 * LONG + 100, quota_files=5)
OWNERS = {name: Principal(name, frozenset({"upload"})) for name in ("ada", "bob")} | {
    "cy": Principal("cy", frozenset({"upload"}), QUOTA)
}


class Body:
    """A request's body, each chunk of which passes the gate; `cut` ends it in the middle."""

    def __init__(self, data: bytes, gates: Fuse, *, cut: bool) -> None:
        self._data = data[: len(data) // 2] if cut else data
        self._gates = gates
        self._cut = cut
        self._interruption: Exception | None = None
        self.sent = 0

    def interrupt(self, error: Exception) -> None:
        self._interruption = error

    async def chunks(self) -> AsyncIterator[bytes]:
        step = max(STEP, len(self._data) // 4 + 1)
        for start in range(0, len(self._data), step):
            await self._pass()
            chunk = self._data[start : start + step]
            self.sent += len(chunk)
            yield chunk
        await self._pass()
        if self._cut:
            raise CutOff("the body was cut off")

    async def _pass(self) -> None:
        await self._gates.enter()
        self._gates.leave()
        if self._interruption is not None:
            raise self._interruption


@dataclass
class Operation:
    """One request, or one sweep. If it is neither done nor refused, it was under way when the process ended."""

    done: bool = field(default=False, init=False, repr=False)
    refusal: SpoolError | None = field(default=None, init=False, repr=False)
    cancellable: ClassVar[bool] = False
    """Its client may vanish, and then it ends in the middle."""

    def aim(self, book: Book) -> bool:
        """Chooses what it is about; whether there is such a thing."""
        raise NotImplementedError

    async def run(self, process: Process) -> None:
        try:
            await self._run(process)
        except SpoolError as error:
            self.refusal = error
        else:
            self.done = True

    async def _run(self, process: Process) -> None:
        raise NotImplementedError


@dataclass
class Put(Operation):
    """A form of one file or several."""

    owner: str
    names: list[str]
    """Of its contents."""
    ttl: int | None
    known: bool
    flaw: str
    key: tuple[str, str] | None
    """An Idempotency-Key and what tells the request from others."""
    tags: list[str] = field(default_factory=list, init=False, repr=False)
    expires_at: datetime | None = field(default=None, init=False, repr=False)
    files: list[File] = field(default_factory=list, init=False, repr=False)
    repeated: bool = field(default=False, init=False, repr=False)
    """It was told what an earlier one was told."""

    @property
    def contents(self) -> list[bytes]:
        return [content_of(name) for name in self.names]

    @property
    def cancellable(self) -> bool:  # type: ignore[override]
        return not self._committing

    _committing: bool = field(default=False, init=False, repr=False)

    def aim(self, book: Book) -> bool:
        self.tags = [book.new_tag() for _ in self.contents]
        self.expires_at = None if self.ttl is None else book.clock() + timedelta(minutes=self.ttl)
        return True

    async def _run(self, process: Process) -> None:
        draft = self.key and process.idempotency.draft(self.owner, *self.key)
        with ExitStack() as held:
            if draft:
                held.enter_context(await process.idempotency.running(draft))
                if earlier := await process.idempotency.earlier(draft):
                    self.files, self.repeated = list(earlier.files), True
                    return
            await self._store(process, draft, held)

    async def _store(self, process: Process, draft: Answer | None, held: ExitStack) -> None:
        total = sum(map(len, self.contents)) if self.known else None
        reservation = held.enter_context(await process.ingest.admit(OWNERS[self.owner], total))
        uploads: list[Upload] = []
        try:
            for number, content in enumerate(self.contents):
                last = number == len(self.contents) - 1
                if number:
                    await reservation.add_file()
                body = Body(content, process.gates, cut=last and self.flaw == "cut")
                intent = self._intent(number, wrong=last and self.flaw == "wrong")
                uploads.append(await process.ingest.receive(intent, OWNERS[self.owner], body.chunks(), reservation))
        except BaseException:
            await process.ingest.discard(uploads)
            raise
        self._committing = True
        self.files = await process.ingest.commit(uploads, draft)

    def _intent(self, number: int, *, wrong: bool) -> Intent:
        tag, content = self.tags[number], self.contents[number]
        size = len(content) if self.known else None
        return Intent(
            tag, size, digests=digests(content, wrong=wrong), metadata={"tag": tag}, expires_at=self.expires_at
        )


@dataclass
class _OfFile(Operation):
    number: int
    tag: str = field(default="", init=False, repr=False)
    id: FileId = field(init=False, repr=False)

    def aim(self, book: Book) -> bool:
        files = self._choice(book)
        if files:
            self.tag, self.id = (file := files[self.number % len(files)]).tag, file.id
        return bool(files)

    def _choice(self, book: Book) -> list[Kept]:
        return list(book.files.values())


@dataclass
class Delete(_OfFile):
    """A file is to go."""

    async def _run(self, process: Process) -> None:
        await process.catalog.delete(self.id, None)


@dataclass
class Hide(_OfFile):
    """A file is to go, and may come back."""

    async def _run(self, process: Process) -> None:
        await process.catalog.hide(self.id, GRACE, _by(process))


@dataclass
class _OfHidden(_OfFile):
    def _choice(self, book: Book) -> list[Kept]:
        return [hidden.file for hidden in book.hidden.values()]


@dataclass
class Restore(_OfHidden):
    """A hidden file is to come back."""

    async def _run(self, process: Process) -> None:
        await process.catalog.restore(self.id, _by(process))


@dataclass
class DeleteHidden(_OfHidden):
    """A hidden file is to go for good."""

    async def _run(self, process: Process) -> None:
        await process.catalog.delete(self.id, _by(process))


@dataclass
class Edit(_OfFile):
    """One member of a file's record is to change."""

    member: str
    choice: int
    value: str | Metadata | datetime | None = field(default=None, init=False, repr=False)

    def aim(self, book: Book) -> bool:
        there = super().aim(book)
        soon = book.clock() + timedelta(minutes=self.choice)
        metadata: Metadata = {"tag": self.tag, "note": ["x"] * self.choice}
        values = {"filename": f"name {self.choice}", "metadata": metadata, "expires_at": soon if self.choice else None}
        self.value = values[self.member]
        return there

    async def _run(self, process: Process) -> None:
        await process.catalog.annotate(self.id, lambda file: replace(file, **{self.member: self.value}), None)


@dataclass
class Begin(Operation):
    """A resumable upload is created."""

    owner: str
    name: str
    """Of its content."""
    known: bool
    wrong: bool
    ttl: int | None
    tag: str = field(default="", init=False, repr=False)
    expires_at: datetime | None = field(default=None, init=False, repr=False)
    upload: Resumable | None = field(default=None, init=False, repr=False)

    @property
    def content(self) -> bytes:
        return content_of(self.name)

    def aim(self, book: Book) -> bool:
        self.tag = book.new_tag()
        self.expires_at = None if self.ttl is None else book.clock() + timedelta(minutes=self.ttl)
        return True

    async def _run(self, process: Process) -> None:
        intent = Intent(
            self.tag,
            len(self.content) if self.known else None,
            digests=digests(self.content, wrong=self.wrong),
            metadata={"tag": self.tag},
            expires_at=self.expires_at,
        )
        self.upload = await process.resumption.create(intent, OWNERS[self.owner], DIALECT, {})


@dataclass
class _OfUpload(Operation):
    number: int
    target: Coming = field(init=False, repr=False)
    id: UploadId = field(init=False, repr=False)

    def aim(self, book: Book) -> bool:
        coming, finished = list(book.coming.values()), list(book.finished.values())
        uploads = finished if finished and self.number == LATE else coming or finished
        if uploads:
            self.target = uploads[self.number % len(uploads)]
            self.id = self.target.id
        return bool(uploads)


@dataclass
class Append(_OfUpload):
    """The next bytes of an upload, from where it stands; without a size, only a look at it."""

    size: int | None
    cut: bool
    told: int | None = field(default=None, init=False, repr=False)
    file: File | None = field(default=None, init=False, repr=False)
    last: bool = field(default=False, init=False, repr=False)
    """It brought the end of the upload's bytes, and said so."""
    start: int = field(default=0, init=False, repr=False)
    body: Body | None = field(default=None, init=False, repr=False)

    @property
    def sent(self) -> int:
        """How far the upload may have come by this."""
        return 0 if self.body is None else self.start + self.body.sent

    async def _run(self, process: Process) -> None:
        turn = await process.resumption.take(self.id, OWNERS[self.target.owner], DIALECT)
        try:
            if turn.upload.state == "open" and self.size is not None:
                await self._send(process, turn, self.size)
        finally:
            await turn.save()
        self.told = turn.upload.staged.offset
        if turn.upload.state != "open":
            self.file = await process.resumption.finish(turn.upload)

    async def _send(self, process: Process, turn: Turn, size: int) -> None:
        target, length = self.target, turn.upload.intent.size
        self.start = turn.upload.staged.offset
        piece = target.content[self.start : self.start + size]
        ends = self.start + size >= len(target.content)
        turn.expect_at(self.start, len(piece))
        reservation = await process.ingest.admit(OWNERS[target.owner], 0 if target.known else len(piece), files=0)
        turn.held.enter_context(reservation)
        self.cut = self.cut and bool(piece)  # a body without bytes cannot be cut off
        self.body = Body(piece, process.gates, cut=self.cut)
        self.last = ends and (target.known or not self.cut)
        await turn.receive(
            self.body.chunks(),
            self.body.interrupt,
            completes=None if target.known else ends,
            reservation=reservation if length is None else None,
        )


@dataclass
class Cancel(_OfUpload):
    """An upload is given up by its client."""

    async def _run(self, process: Process) -> None:
        turn = await process.resumption.take(self.id, OWNERS[self.target.owner], DIALECT)
        try:
            await process.resumption.give_up(self.id)
        finally:
            await turn.save()


@dataclass
class Sweep(Operation):
    """Finishes, expires and reclaims what it finds."""

    def aim(self, book: Book) -> bool:  # noqa: ARG002  # it is about everything
        return True

    async def _run(self, process: Process) -> None:
        await process.sweep()


def _by(process: Process) -> By:
    return By("ada", "http", process.clock())


def content_of(name: str) -> bytes:
    """Bytes by a name that is short enough for a report."""
    return {**CONTENTS, **LARGE, **REFUSED}[name]


def digests(content: bytes, *, wrong: bool) -> dict[str, bytes]:
    """What a client says of these bytes."""
    return {"sha-256": bytes(32) if wrong else hashlib.sha256(content).digest()}


_numbers = st.integers(0, 11)
_owners = st.sampled_from(["ada", "bob", "cy", "cy"])
_contents = st.sampled_from([*CONTENTS, *CONTENTS, *CONTENTS, *REFUSED])
_ttls = st.sampled_from([None, None, 1, 3])
_rarely = st.sampled_from([False] * 5 + [True])
_keys = st.none() | st.tuples(st.sampled_from(["key 0", "key 1"]), st.sampled_from(["this", "this", "other"]))
_flaws = st.sampled_from([""] * 6 + ["cut", "wrong"])

_pieces = st.sampled_from([None, 0, 1, 3000, 3000, 5000, LONG, LONG])

_bodies = st.sampled_from([*CONTENTS, *CONTENTS, *LARGE, *LARGE, *REFUSED])
puts = st.builds(Put, _owners, st.lists(_bodies, min_size=1, max_size=3), _ttls, st.booleans(), _flaws, _keys)
begins = st.builds(Begin, _owners, _contents, st.booleans(), _rarely, _ttls)
appends = st.builds(Append, _numbers, _pieces, _rarely)
endings = st.builds(Append, _numbers, st.just(LONG), st.just(False))  # noqa: FBT003
cancels = st.builds(Cancel, _numbers)
deletes = st.builds(Delete, _numbers)
edits = st.builds(Edit, _numbers, st.sampled_from(["filename", "metadata", "expires_at"]), st.integers(0, 3))
hides = st.builds(Hide, _numbers)
restores = st.builds(Restore, _numbers)
undone = restores | restores | st.builds(DeleteHidden, _numbers)
sweeps = st.builds(Sweep)
operations = st.one_of(puts, puts, begins, appends, appends, deletes, hides, undone, edits, cancels, sweeps)

_large = st.sampled_from(["long a", "long b", "one"])
_at_quota = st.builds(
    Put, st.just("cy"), st.lists(_large, min_size=1, max_size=2), st.none(), st.booleans(), st.just(""), st.none()
)
_rivals = st.builds(
    lambda number, first, second: [replace(first, number=number), replace(second, number=number)],
    _numbers,
    appends | endings,
    endings | cancels,
)
_rivals_at_file = st.builds(
    lambda number, operations: [replace(operation, number=number) for operation in operations],
    _numbers,
    st.lists(hides | deletes | edits, min_size=2, max_size=3) | st.lists(undone, min_size=2, max_size=2),
)
batches = st.one_of(
    st.lists(operations, min_size=2, max_size=3),
    _rivals_at_file,
    st.tuples(undone | hides, puts | sweeps).map(list),
    st.tuples(puts | endings, sweeps).map(list),
    st.lists(_at_quota, min_size=2, max_size=2),
    _rivals,
)
"""Operations that run together; often those that may get in one another's way."""
