"""Files whose bytes are in the index, beside files that are blobs, through every layer but the web."""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
from contextlib import AsyncExitStack, aclosing, closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from spool.admission import Admission, Capacity
from spool.catalog import Catalog
from spool.errors import Damaged, DigestMismatch, NotFound, SpoolError, StorageFull, Unavailable
from spool.idempotency import Idempotency
from spool.ingest import Ingest
from spool.model import FileQuery, Intent, Key, Principal, Usage
from spool.policy import Policy
from spool.staging import fill
from spool.store import INDEX, LocalStore, SqliteIndex, copy_spool, open_blobs, open_index
from spool.store.local import open_local
from spool.work import expiry, gc, reindex, scrub
from spool.work.fsck import Fsck
from tests.clock import NOON, Clock
from tests.store.gates import Gated, Gatekeeper
from tests.test_ingest import Blobs, FailingIndex, Source

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from spool.model import Answer, File, FileId, Finding, Upload

EVER = datetime.max.replace(tzinfo=UTC)
MINUTE = timedelta(minutes=1)
KIB = 1024
MAX = 4 * KIB
ADA = Principal("ada", frozenset({"upload"}))
SMALL, OTHER, LARGE = b"small" * 100, b"other" * 100, b"large" * KIB
"""Two that are kept in the index, and one that is not."""


class Sniffer:
    async def sniff(self, head: bytes) -> str:
        return "text/plain" if head else "application/x-empty"


@dataclass
class Bench:
    """One spool, and all that works on it."""

    root: Path
    blobs: LocalStore
    index: SqliteIndex
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.catalog = Catalog(self.blobs, self.index, self.clock)

    def ingest(self, inline_max: int = MAX, *, blobs: Any = None, files: Any = None) -> Ingest:
        return Ingest(
            blobs=blobs or self.blobs,
            files=files or self.index,
            inventory=self.index,
            sniffer=Sniffer(),
            policy=Policy(2**20),
            admission=Admission(Capacity(100, 0), self.blobs.free, self.index.usage, self.index.grant_usage),
            clock=self.clock,
            inline_max=inline_max,
        )

    async def add(self, *bodies: bytes, inline_max: int = MAX, **intent: Any) -> list[File]:
        """One request's files."""
        ingest = self.ingest(inline_max)
        return await ingest.commit(await receive(ingest, *bodies, **intent))

    async def content(self, id: FileId) -> bytes:
        opened = await self.catalog.open(await self.catalog.readable(id))
        if isinstance(opened, bytes):
            return opened
        with opened as blob:
            return blob.read()

    async def keys(self) -> set[Key]:
        return {key async for key, *_ in self.blobs.keys("")}

    async def files(self) -> Sequence[File]:
        return (await self.index.files(FileQuery(limit=100))).items

    async def check(self, **options: Any) -> list[Finding]:
        return [finding async for finding in Fsck(self.blobs, self.index, **options).run()]

    def change(self, id: FileId, body: bytes) -> None:
        """Behind the index's back."""
        with closing(sqlite3.connect(self.root / INDEX)) as index, index:
            index.execute("UPDATE files SET body = ? WHERE id = ?", (body, id))

    async def scrub(self) -> None:
        """A whole pass."""
        for _ in range(3):
            await scrub.run_once(self.blobs, self.index, self.clock, MINUTE)
            self.clock.time += MINUTE


async def receive(ingest: Ingest, *bodies: bytes, **intent: Any) -> list[Upload]:
    with await ingest.admit(ADA, None, len(bodies)) as reservation:
        return [
            await ingest.receive(Intent(f"{number}.txt", **intent), ADA, Source(body), reservation)
            for number, body in enumerate(bodies)
        ]


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with AsyncExitStack() as stack:
        blobs = await stack.enter_async_context(aclosing(await open_blobs(tmp_path)))
        yield Bench(tmp_path, blobs, await stack.enter_async_context(aclosing(await open_index(tmp_path))))


@pytest.mark.parametrize("size", [0, 1, MAX - 1, MAX, MAX + 1, 64 * KIB, 64 * KIB + 1])
async def test_limit_is_exact(bench: Bench, size: int) -> None:
    [file] = await bench.add(bytes(size))
    assert file.inline == (size <= MAX)
    assert await bench.keys() == (set() if file.inline else {file.key})
    assert await bench.index.file(file.id) == file
    assert await bench.content(file.id) == bytes(size)


@pytest.mark.parametrize("size", [0, 1, MAX])
async def test_limit_of_nothing_keeps_no_bytes_in_the_index(bench: Bench, size: int) -> None:
    [file] = await bench.add(bytes(size), inline_max=0)
    assert not file.inline
    assert await bench.keys() == {file.key}
    assert await bench.content(file.id) == bytes(size)


@pytest.mark.parametrize("limit", [64 * KIB, 2**30])
async def test_no_file_that_is_staged_is_kept_in_the_index(bench: Bench, limit: int) -> None:
    small, large = await bench.add(bytes(64 * KIB), bytes(64 * KIB + 1), inline_max=limit)
    assert (small.inline, large.inline) == (True, False)
    assert await bench.keys() == {large.key}


async def test_files_of_one_request_are_kept_each_by_its_size(bench: Bench) -> None:
    bodies = [b"", SMALL, LARGE, bytes(100 * KIB), SMALL]
    files = await bench.add(*bodies)
    assert [file.inline for file in files] == [True, True, False, False, True]
    assert await bench.keys() == {files[2].key, files[3].key}
    assert [await bench.content(file.id) for file in files] == bodies
    assert [await bench.index.file(file.id) for file in files] == files


async def test_what_a_request_may_not_keep_in_memory_becomes_a_blob(bench: Bench) -> None:
    bodies = [bytes([number]) * 60 * KIB for number in range(5)]
    files = await bench.add(*bodies, inline_max=64 * KIB)
    assert [file.inline for file in files] == [True] * 4 + [False]
    assert [await bench.content(file.id) for file in files] == bodies


async def test_equal_bytes_in_the_index_are_kept_by_each_file(bench: Bench) -> None:
    files = await bench.add(SMALL, SMALL)
    assert len({file.key for file in files}) == 2
    await bench.catalog.delete(files[0].id, None)
    assert await bench.content(files[1].id) == SMALL


@pytest.mark.parametrize("first", [0, MAX])
async def test_file_in_the_index_and_a_blob_of_equal_bytes_know_nothing_of_each_other(bench: Bench, first: int) -> None:
    [one] = await bench.add(SMALL, inline_max=first)
    [two] = await bench.add(SMALL, inline_max=MAX - first)
    [three] = await bench.add(SMALL, inline_max=0)
    blobs = [file for file in (one, two, three) if not file.inline]
    assert {file.key for file in blobs} == await bench.keys()
    assert len(await bench.keys()) == 1
    for file in blobs:
        await bench.catalog.delete(file.id, None)
    assert await bench.keys() == set()
    [left] = await bench.files()
    assert await bench.content(left.id) == SMALL


async def test_damaged_file_in_the_index_is_not_healed_by_equal_bytes(bench: Bench) -> None:
    [file] = await bench.add(SMALL)
    await bench.index.mark(file.key, "digest")
    await bench.add(SMALL)
    await bench.add(SMALL, inline_max=0)
    assert (await bench.index.file(file.id)).damage == "digest"


async def test_retry_is_told_what_the_first_was_told(bench: Bench) -> None:
    idempotency = Idempotency(bench.index, bench.clock)
    draft: Answer = idempotency.draft("ada", "key", "print")
    ingest = bench.ingest()
    files = await ingest.commit(await receive(ingest, SMALL, LARGE), draft)
    earlier = await idempotency.earlier(draft)
    assert earlier is not None
    assert [(file.id, file.size, file.sha256) for file in earlier.files] == [
        (file.id, file.size, file.sha256) for file in files
    ]
    assert len(await bench.files()) == 2


@pytest.mark.parametrize("bodies", [[SMALL], [SMALL, LARGE], [LARGE, SMALL, bytes(100 * KIB)]])
async def test_digest_that_is_not_that_of_the_bytes_leaves_nothing(bench: Bench, bodies: list[bytes]) -> None:
    ingest = bench.ingest()
    uploads = [*await receive(ingest, *bodies[:-1]), *await receive(ingest, bodies[-1], digests={"sha-256": bytes(32)})]
    with pytest.raises(DigestMismatch):
        await ingest.commit(uploads)
    assert (await bench.keys(), await bench.files(), ingest.active) == (set(), (), frozenset())


async def test_failing_index_leaves_nothing(bench: Bench) -> None:
    failing: Any = FailingIndex(bench.index)
    ingest = bench.ingest(files=failing)
    with pytest.raises(Unavailable):
        await ingest.commit(await receive(ingest, b"", SMALL))
    assert (await bench.keys(), await bench.files(), ingest.active) == (set(), (), frozenset())


@pytest.mark.parametrize("verb", ["put", "commit"])
async def test_blob_that_fails_refuses_files_in_the_index_beside_it(bench: Bench, verb: str) -> None:
    async def fail(name: str, _key: Key) -> None:
        if name == verb:
            raise StorageFull("the disk is full")

    blobs: Any = Blobs(bench.blobs, fail)
    ingest = bench.ingest(blobs=blobs)
    with pytest.raises(StorageFull):
        await ingest.commit(await receive(ingest, SMALL, LARGE, bytes(100 * KIB)))
    assert (await bench.keys(), await bench.files(), ingest.active) == (set(), (), frozenset())


async def test_file_in_the_index_touches_no_blob(bench: Bench) -> None:
    async def fail(verb: str, _key: Key) -> None:
        raise AssertionError(verb)

    blobs: Any = Blobs(bench.blobs, fail)
    ingest = bench.ingest(blobs=blobs)
    [file] = await ingest.commit(await receive(ingest, SMALL))
    nothing: Any = None
    catalog = Catalog(nothing, bench.index, bench.clock)
    assert await catalog.open(file) == SMALL
    await catalog.annotate(file.id, lambda file: file, None)
    assert await catalog.delete(file.id, None) == file


async def test_files_in_the_index_count_as_all_others(bench: Bench) -> None:
    one, two, three = await bench.add(SMALL, SMALL, LARGE)
    assert await bench.index.usage("ada") == Usage(3, 2 * len(SMALL) + len(LARGE))
    await bench.catalog.delete(one.id, None)
    await bench.catalog.delete(three.id, None)
    assert await bench.index.usage("ada") == Usage(1, len(SMALL))
    await bench.catalog.delete(two.id, None)
    assert await bench.index.usage("ada") == Usage(0, 0)
    assert await bench.check(deep=True) == []


async def test_deleted_file_takes_its_bytes_along(bench: Bench) -> None:
    one, two = await bench.add(SMALL, OTHER)
    assert await bench.catalog.delete(one.id, None) == one
    with pytest.raises(NotFound):
        await bench.catalog.open(one)
    with pytest.raises(NotFound):
        await bench.index.body(one.id)
    assert await bench.content(two.id) == OTHER


async def test_changed_record_keeps_its_bytes(bench: Bench) -> None:
    [file] = await bench.add(SMALL)
    changed = await bench.catalog.annotate(
        file.id, lambda file: file.__class__(**{**_members(file), "filename": "b"}), None
    )
    assert (changed.filename, changed.inline) == ("b", True)
    assert await bench.index.file(file.id) == changed
    assert await bench.content(file.id) == SMALL


def _members(file: File) -> dict[str, Any]:
    return {name: getattr(file, name) for name in file.__slots__}


async def test_file_that_has_expired_is_swept_with_its_bytes(bench: Bench) -> None:
    await bench.add(SMALL, LARGE, expires_at=NOON + MINUTE)
    [kept] = await bench.add(OTHER)
    bench.clock.time += MINUTE
    assert await expiry.run_once(bench.catalog, bench.index, bench.clock) == 2
    assert list(await bench.files()) == [kept]
    assert await bench.keys() == set()
    assert await bench.index.usage("ada") == Usage(1, len(OTHER))


async def test_sweep_takes_nothing_that_is_in_the_index(bench: Bench) -> None:
    files = await bench.add(SMALL, OTHER, b"", LARGE)
    assert await gc.run_once(bench.blobs, bench.index, gc.nobody, EVER) == 0
    assert [await bench.content(file.id) for file in files] == [SMALL, OTHER, b"", LARGE]


CHANGES = {"digest": SMALL[:-1] + b"!", "size": SMALL[:-1]}


@pytest.mark.parametrize("deep", [False, True])
async def test_check_finds_nothing_wrong_with_what_is_in_the_index(bench: Bench, deep: bool) -> None:  # noqa: FBT001
    await bench.add(SMALL, OTHER, b"", LARGE)
    check = Fsck(bench.blobs, bench.index, deep=deep)
    assert [finding async for finding in check.run()] == []
    assert (check.tally.files, check.tally.blobs) == (4, 1)
    assert check.tally.read == (len(SMALL + OTHER + LARGE) if deep else 0)


@pytest.mark.parametrize("kind", CHANGES)
async def test_check_that_reads_finds_bytes_that_were_changed_in_the_index(bench: Bench, kind: str) -> None:
    file, other = await bench.add(SMALL, OTHER)
    bench.change(file.id, CHANGES[kind])
    assert await bench.check() == []
    assert [(f.kind, f.id) for f in await bench.check(deep=True, repair=True)] == [(kind, file.id)]
    with pytest.raises(Damaged):
        await bench.catalog.readable(file.id)
    assert await bench.content(other.id) == OTHER
    assert [(f.kind, f.id) for f in await bench.check()] == [(kind, file.id)]  # it is marked, and so looked at again
    bench.change(file.id, SMALL)
    assert [(f.kind, f.repaired) for f in await bench.check(repair=True)] == [("sound", True)]
    assert await bench.content(file.id) == SMALL


@pytest.mark.parametrize("kind", CHANGES)
async def test_scrub_finds_bytes_that_were_changed_in_the_index(bench: Bench, kind: str) -> None:
    file, other = await bench.add(SMALL, OTHER)
    await bench.add(LARGE)
    bench.change(file.id, CHANGES[kind])
    await bench.scrub()
    assert [(await bench.index.file(f.id)).damage for f in (file, other)] == [kind, None]
    bench.change(file.id, SMALL)
    await bench.scrub()
    assert await bench.content(file.id) == SMALL


async def test_scrub_marks_nothing_that_is_sound(bench: Bench) -> None:
    files = await bench.add(SMALL, OTHER, b"", LARGE)
    await bench.scrub()
    assert [(await bench.index.file(file.id)).damage for file in files] == [None] * 4


async def test_bytes_of_another_size_are_not_given_out(bench: Bench) -> None:
    [file] = await bench.add(SMALL)
    bench.change(file.id, SMALL[:-1])
    with pytest.raises(Damaged):
        await bench.catalog.open(file)


async def test_bytes_that_are_gone_from_the_index_are_missing(bench: Bench) -> None:
    [file] = await bench.add(SMALL)
    with closing(sqlite3.connect(bench.root / INDEX)) as index, index:
        index.execute("UPDATE files SET body = NULL")
    assert [finding.kind for finding in await bench.check()] == ["missing"]
    with pytest.raises(SpoolError):
        await bench.content(file.id)


@pytest.mark.parametrize("link", [False, True])
async def test_backup_holds_what_is_in_the_index(bench: Bench, tmp_path: Path, link: bool) -> None:  # noqa: FBT001
    files = await bench.add(SMALL, OTHER, b"", LARGE)
    to = tmp_path / "copy"
    async with aclosing(await open_blobs(to)) as target:
        copied = await copy_spool(bench.blobs, bench.index, target, (to / "new", to / INDEX), link=link)
        assert (copied.files, copied.blobs, copied.missing) == (4, 1, 0)
        async with aclosing(await open_index(to)) as index:
            copy = Bench(to, target, index)
            assert sorted(file.id for file in await copy.files()) == sorted(file.id for file in files)
            assert [await copy.content(file.id) for file in files] == [SMALL, OTHER, b"", LARGE]
            assert await copy.check(deep=True) == []


async def test_lost_index_takes_its_bytes_along_and_no_others(bench: Bench, tmp_path: Path) -> None:
    *_, large = await bench.add(SMALL, b"", LARGE)
    findings: list[str] = []
    (tmp_path / "new").mkdir()
    async with aclosing(await open_index(tmp_path / "new")) as index:
        rebuilt = await reindex.run_once(bench.blobs, index, Sniffer(), findings.append, deep=True)
        assert (rebuilt.files, rebuilt.blobs, rebuilt.recovered, findings) == (1, 1, 0, [])
        assert list(await index.by_key(None, 10)) == [large]


async def test_row_of_a_file_is_as_its_record_says(bench: Bench) -> None:
    [file] = await bench.add(SMALL)
    with closing(sqlite3.connect(bench.root / INDEX)) as index:
        [(body, digest, size)] = index.execute("SELECT body, sha256, size FROM files").fetchall()
    assert (body, size) == (SMALL, len(SMALL))
    assert digest == hashlib.sha256(SMALL).hexdigest() == file.sha256


class Gates(Gatekeeper):
    """Lets so many calls through, and holds the next one until all are."""

    def __init__(self, left: int) -> None:
        super().__init__()
        self.left = left
        self.held = asyncio.Event()

    async def enter(self) -> None:
        self.open = self.left > 0
        self.left -= 1
        if not self.open:
            self.held.set()
        await super().enter()

    def let_all_through(self) -> None:
        self.left = 1000
        for gate in self.waiting:
            if not gate.done():
                gate.set_result(None)


async def drip(body: bytes, gates: Gates) -> AsyncIterator[bytes]:
    for start in range(0, len(body), 30 * KIB):
        await gates.enter()
        gates.leave()
        yield body[start : start + 30 * KIB]


@pytest.mark.parametrize("nameless", [True, False], ids=["nameless", "named"])
@pytest.mark.parametrize("inline_max", [0, MAX])
async def test_cancellation_at_any_step_keeps_all_or_nothing(
    tmp_path: Path,
    inline_max: int,
    nameless: bool,  # noqa: FBT001
) -> None:
    bodies = [SMALL, LARGE, b"", bytes(70 * KIB), OTHER]
    steps = kept = 0
    async with AsyncExitStack() as stack:
        blobs = await stack.enter_async_context(aclosing(await open_local(tmp_path, nameless=nameless)))
        bench = Bench(tmp_path, blobs, await stack.enter_async_context(aclosing(await open_index(tmp_path))))
        for steps in range(100):
            gates = Gates(steps)
            blobs, index = Gated(bench.blobs, gates), Gated(bench.index, gates)
            ingest = bench.ingest(inline_max, blobs=blobs, files=index)
            task = asyncio.ensure_future(upload(ingest, bodies, gates))
            held = asyncio.ensure_future(gates.held.wait())
            await asyncio.wait([task, held], return_when=asyncio.FIRST_COMPLETED)
            ended = task.done()
            held.cancel()
            task.cancel()
            gates.let_all_through()
            await asyncio.gather(task, return_exceptions=True)
            await gates.settle()
            files = await bench.files()
            assert len(files) in (0, len(bodies))
            assert sorted([await bench.content(file.id) for file in files]) == (sorted(bodies) if files else [])
            assert not ingest.active
            assert not ingest._admission.running
            await gc.run_once(bench.blobs, bench.index, gc.nobody, EVER)
            assert await bench.keys() == {file.key for file in files if not file.inline}
            assert await bench.check(deep=True) == []
            kept += bool(files)
            for file in files:
                await bench.catalog.delete(file.id, None)
            if ended:
                break
        assert ended
        assert await bench.keys() == set()
        print(f"\ncancelled at {steps} steps; all was kept {kept} times")  # noqa: T201  # worth reading
    assert steps >= 8


async def upload(ingest: Ingest, bodies: Sequence[bytes], gates: Gates) -> None:
    """As a form is taken: what goes wrong before the commit discards what came."""
    uploads: list[Upload] = []
    with await ingest.admit(ADA, None, len(bodies)) as reservation:
        try:
            for number, body in enumerate(bodies):
                intent = Intent(f"{number}.txt")
                uploads.append(await ingest.receive(intent, ADA, drip(body, gates), reservation))
        except BaseException:
            await ingest.discard(uploads)
            raise
        await ingest.commit(uploads)


async def test_small_body_is_held_in_one_piece_for_each_batch() -> None:
    async def source() -> AsyncIterator[list[bytes]]:
        for _ in range(3):
            yield [b"ab"] * 2000

    held = [b"head"]
    assert await fill(held, source()) is None
    assert held == [b"head", *[b"ab" * 2000] * 3]
