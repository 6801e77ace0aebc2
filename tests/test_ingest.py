from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from spool.admission import Admission, Capacity
from spool.errors import (
    BadRequest,
    BadType,
    CutOff,
    DigestMismatch,
    QuotaExceeded,
    SpoolError,
    StorageFull,
    TooLarge,
    Unavailable,
)
from spool.ingest import Ingest
from spool.labels import parse_label
from spool.model import Allowance, Answer, FileId, FileQuery, Intent, Key, Label, Principal, Staged
from spool.policy import Policy
from spool.store import LocalStore, SqliteIndex, open_blobs, open_index
from spool.work import gc
from tests.clock import NOON, Clock
from tests.store.blobstore_suite import put

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from spool.model import File, Upload
    from spool.ports import BlobWriter, Files, LabelledStore, Sniffer

EVER = datetime.max.replace(tzinfo=UTC)
DAY = timedelta(days=1)
KIB, MIB = 2**10, 2**20
LARGE = bytes(100_000)
"""Too large to be kept in memory until its commit."""
NO_LIMIT = Allowance()
ADA = Principal("ada", frozenset({"upload"}))


class FakeSniffer:
    """Says the same of every head, and keeps the heads."""

    def __init__(self, media_type: str = "audio/mpeg") -> None:
        self.media_type = media_type
        self.heads: list[bytes] = []

    async def sniff(self, head: bytes) -> str:
        self.heads.append(head)
        return self.media_type


@dataclass
class Bench:
    """An Ingest with all that it works with."""

    blobs: LocalStore
    index: SqliteIndex
    clock: Clock = field(default_factory=Clock)
    sniffer: FakeSniffer = field(default_factory=FakeSniffer)
    policy: Policy = field(default_factory=lambda: Policy(64 * MIB))

    def ingest(
        self,
        *,
        blobs: LabelledStore | None = None,
        files: Files | None = None,
        sniffer: Sniffer | None = None,
        dedupe: bool = True,
    ) -> Ingest:
        return Ingest(
            blobs=blobs or self.blobs,
            files=files or self.index,
            inventory=self.index,
            sniffer=sniffer or self.sniffer,
            policy=self.policy,
            admission=Admission(Capacity(100, 0), self.blobs.free, self.index.usage, self.index.grant_usage),
            clock=self.clock,
            dedupe=dedupe,
        )

    async def keys(self) -> dict[Key, int]:
        return {key: size async for key, size, _ in self.blobs.keys()}  # noqa: SIM118  # not a dict

    async def files(self) -> tuple[File, ...]:
        return (await self.index.files(FileQuery())).items

    async def content(self, file: File) -> bytes:
        with await self.blobs.open(file.key) as blob:
            return blob.read()

    async def holds_nothing(self, ingest: Ingest) -> bool:
        return not ingest.active and not await self.keys() and not await self.files()


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    blobs, index = await open_blobs(tmp_path), await open_index(tmp_path)
    yield Bench(blobs, index)
    await blobs.aclose()
    await index.aclose()


class Source:
    """A body that counts what was taken of it. It ends with `end`, if that is an error, or blocks there."""

    def __init__(self, *chunks: bytes, end: BaseException | None = None, blocks: bool = False) -> None:
        self.chunks = chunks
        self.end = end
        self.blocks = blocks
        self.taken = 0
        self.reached = asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self.chunks:
            self.taken += len(chunk)
            yield chunk
        self.reached.set()
        if self.blocks:
            await asyncio.Event().wait()
        if self.end is not None:
            raise self.end


async def receive(
    ingest: Ingest, body: Source | bytes, intent: Intent | None = None, allowance: Allowance = NO_LIMIT
) -> Upload:
    source = Source(body) if isinstance(body, bytes) else body
    with await ingest.admit(replace(ADA, allowance=allowance), None) as reservation:
        return await ingest.receive(intent or Intent("song.mp3"), ADA, source, reservation)


class Blobs:
    """A LocalStore that calls `before(verb, key)` ahead of each verb that changes something."""

    def __init__(self, store: LocalStore, before: Callable[[str, Key], Any]) -> None:
        self._store = store
        self._before = before

    def __getattr__(self, name: str) -> Any:  # whatever the store has
        return getattr(self._store, name)

    async def writer(self, key: Key) -> BlobWriter:
        await self._before("writer", key)
        return Writer(await self._store.writer(key), key, self._before)

    async def commit(self, key: Key, at: Staged, label: Label | None = None) -> None:
        await self._before("commit", key)
        await self._store.commit(key, at, label)

    async def put(self, key: Key, body: bytes, label: Label | None = None) -> None:
        await self._before("put", key)
        await self._store.put(key, body, label)


class Writer:
    def __init__(self, writer: BlobWriter, key: Key, before: Callable[[str, Key], Any]) -> None:
        self._writer = writer
        self._key = key
        self._before = before
        self.aclose = writer.aclose

    async def write(self, batch: Sequence[bytes], see: Callable[[bytes], None] | None = None) -> None:
        await self._before("write", self._key)
        await self._writer.write(batch, see)

    async def sync(self, last: Sequence[bytes] = (), see: Callable[[bytes], None] | None = None) -> Staged:
        await self._before("sync", self._key)
        return await self._writer.sync(last, see)


class FailingIndex:
    """Whose transactions fail."""

    def __init__(self, index: SqliteIndex) -> None:
        self._index = index

    def __getattr__(self, name: str) -> Any:  # whatever the index has
        return getattr(self._index, name)

    async def finish(self, *_: object, **__: object) -> Sequence[File]:
        raise Unavailable("The index failed.")


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def sha(algorithm: str, data: bytes) -> bytes:
    return hashlib.new(algorithm, data).digest()


async def test_received_upload_is_staged_and_not_visible(bench: Bench) -> None:
    ingest = bench.ingest()
    upload = await receive(ingest, LARGE)
    assert (upload.staged.offset, upload.body) == (len(LARGE), None)
    assert upload.owner == "ada"
    assert await bench.keys() == {upload.key: len(LARGE)}
    assert await bench.files() == ()
    assert ingest.active == {upload.key}


async def test_small_upload_is_not_staged_but_kept_in_memory(bench: Bench) -> None:
    ingest = bench.ingest()
    upload = await receive(ingest, Source(b"da", b"ta"))
    assert (upload.staged.offset, upload.body) == (4, b"data")
    assert await bench.keys() == {}
    assert await bench.files() == ()
    assert ingest.active == {upload.key}


@pytest.mark.parametrize("chunks", [[64 * KIB], [5000, 60_536], [1] * 4096 + [KIB] * 60])
async def test_as_much_as_is_small_is_kept_in_memory(bench: Bench, chunks: list[int]) -> None:
    ingest = bench.ingest()
    assert sum(chunks) == 64 * KIB
    assert (await receive(ingest, Source(*map(bytes, chunks)))).body == bytes(64 * KIB)
    assert (await receive(ingest, Source(*map(bytes, [*chunks, 1])))).body is None
    assert (await receive(ingest, bytes(64 * KIB + 1))).body is None


async def test_small_uploads_of_one_request_are_kept_in_memory_up_to_a_sum(bench: Bench) -> None:
    ingest = bench.ingest()
    with await ingest.admit(ADA, None) as reservation:
        uploads = [
            await ingest.receive(Intent("a"), ADA, Source(bytes(60 * KIB), bytes([n])), reservation) for n in range(6)
        ]
    assert [upload.body is not None for upload in uploads] == [True] * 4 + [False] * 2
    files = await ingest.commit(uploads)
    assert [await bench.content(file) for file in files] == [bytes(60 * KIB) + bytes([n]) for n in range(6)]


async def test_committed_upload_is_a_file(bench: Bench) -> None:
    ingest = bench.ingest()
    intent = Intent("song.mp3", media_type="audio/mp3", metadata={"title": "Demo"}, expires_at=NOON + DAY)
    upload = await receive(ingest, b"data", intent)
    bench.clock.time = NOON + timedelta(seconds=9)
    [file] = await ingest.commit([upload])
    assert await bench.files() == (file,)
    assert await bench.content(file) == b"data"
    assert (file.filename, file.size, file.owner, file.metadata) == ("song.mp3", 4, "ada", {"title": "Demo"})
    assert (file.media_type, file.declared_type) == ("audio/mpeg", "audio/mp3")
    assert file.sha256 == sha("sha256", b"data").hex()
    assert (file.created_at, file.expires_at) == (NOON + timedelta(seconds=9), NOON + DAY)
    assert ingest.active == frozenset()


async def test_bytes_arrive_in_order_whatever_the_chunks(bench: Bench) -> None:
    ingest = bench.ingest()
    chunks = [bytes([n % 251]) * size for n, size in enumerate((1, 4095, 1, 70_000, 3, 5 * MIB, 2, 100_000, 7))]
    [file] = await ingest.commit([await receive(ingest, Source(*chunks))])
    assert file.size == sum(map(len, chunks))
    assert file.sha256 == sha("sha256", b"".join(chunks)).hex()
    assert await bench.content(file) == b"".join(chunks)


async def test_empty_body_is_a_file(bench: Bench) -> None:
    ingest = bench.ingest()
    [file] = await ingest.commit([await receive(ingest, Source())])
    assert (file.size, file.sha256, bench.sniffer.heads) == (0, sha("sha256", b"").hex(), [b""])
    assert await bench.content(file) == b""


async def test_empty_body_of_a_forbidden_type_is_refused(bench: Bench) -> None:
    bench.policy = Policy(MIB, deny_types=("application/x-empty",))
    ingest = bench.ingest(sniffer=FakeSniffer("application/x-empty"))
    with pytest.raises(BadType):
        await receive(ingest, Source())
    assert await bench.holds_nothing(ingest)


@pytest.mark.parametrize("sent", [0, 100, 5000, 6 * MIB])
async def test_body_that_fails_leaves_nothing(bench: Bench, sent: int) -> None:
    ingest = bench.ingest()
    with pytest.raises(CutOff):
        await receive(ingest, Source(bytes(sent), end=CutOff("the connection was lost")))
    assert await bench.holds_nothing(ingest)


@pytest.mark.parametrize("sent", [[], [1], [5000], [5000, 6 * MIB], [5000, 6 * MIB, 6 * MIB]])
async def test_cancelled_wait_for_the_body_leaves_nothing(bench: Bench, sent: list[int]) -> None:
    ingest = bench.ingest()
    source = Source(*map(bytes, sent), blocks=True)
    task = asyncio.ensure_future(receive(ingest, source))
    await source.reached.wait()
    assert len(ingest.active) == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await bench.holds_nothing(ingest)


@pytest.mark.parametrize("verb", ["writer", "write", "sync", "sniff"])
async def test_cancelled_verb_leaves_nothing(bench: Bench, verb: str) -> None:
    reached = asyncio.Event()

    async def block(name: str, _key: Key) -> None:
        if name == verb:
            reached.set()
            await asyncio.Event().wait()

    class BlockingSniffer:
        async def sniff(self, _head: bytes) -> str:
            await block("sniff", Key(""))
            return "audio/mpeg"

    ingest = bench.ingest(blobs=Blobs(bench.blobs, block), sniffer=BlockingSniffer())
    task = asyncio.ensure_future(receive(ingest, Source(bytes(5000), bytes(6 * MIB), bytes(MIB))))
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await bench.holds_nothing(ingest)


@pytest.mark.parametrize("steps", range(40))
async def test_cancellation_after_any_number_of_steps_leaves_nothing(bench: Bench, steps: int) -> None:
    ingest, before = bench.ingest(), descriptors()

    async def body() -> AsyncIterator[bytes]:
        for _ in range(4):
            await asyncio.sleep(0)
            yield bytes(100_000)

    with await ingest.admit(ADA, None) as reservation:
        task = asyncio.ensure_future(ingest.receive(Intent("song.mp3"), ADA, body(), reservation))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        [outcome] = await asyncio.gather(task, return_exceptions=True)
    if not isinstance(outcome, asyncio.CancelledError):
        await ingest.discard([outcome])
    assert await bench.holds_nothing(ingest)
    assert descriptors() == before


@pytest.mark.parametrize("verb", ["writer", "write", "sync"])
@pytest.mark.parametrize("error", [StorageFull, Unavailable])
async def test_failing_store_leaves_nothing(bench: Bench, verb: str, error: type[SpoolError]) -> None:
    async def fail(name: str, _key: Key) -> None:
        if name == verb:
            raise error("it failed")

    ingest = bench.ingest(blobs=Blobs(bench.blobs, fail))
    with pytest.raises(error):
        await receive(ingest, Source(bytes(5000), bytes(6 * MIB), bytes(MIB)))
    assert await bench.holds_nothing(ingest)


@pytest.mark.parametrize(("body", "verbs"), [(Source(LARGE, bytes(6 * MIB), LARGE), 4), (LARGE, 3), (b"data", 1)])
async def test_upload_is_active_before_its_first_byte(bench: Bench, body: Source | bytes, verbs: int) -> None:
    seen: list[bool] = []

    async def look(_verb: str, key: Key) -> None:
        seen.append(key in ingest.active)

    ingest = bench.ingest(blobs=Blobs(bench.blobs, look))
    await ingest.commit([await receive(ingest, body)])
    assert seen == [True] * verbs


async def test_forbidden_type_is_refused_once_the_head_is_there(bench: Bench) -> None:
    bench.policy = Policy(64 * MIB, allow_types=("audio/*",))
    ingest = bench.ingest(sniffer=FakeSniffer("text/html"))
    source = Source(*[bytes(KIB)] * 10_000)
    with pytest.raises(BadType):
        await receive(ingest, source)
    assert source.taken == 4 * KIB
    assert await bench.holds_nothing(ingest)


async def test_sniffer_gets_a_head_of_4_kib_from_a_dribble(bench: Bench) -> None:
    data = bytes(n % 256 for n in range(5000))
    await receive(bench.ingest(), Source(*(data[n : n + 1] for n in range(5000))))
    assert bench.sniffer.heads == [data[:4096]]


async def test_sniffer_gets_all_of_a_small_file(bench: Bench) -> None:
    await receive(bench.ingest(), Source(b"a", b"b", b"c"))
    assert bench.sniffer.heads == [b"abc"]


async def test_declared_size_over_the_limit_is_refused_before_the_body(bench: Bench) -> None:
    bench.policy = Policy(100)
    ingest, source = bench.ingest(), Source(bytes(101))
    with pytest.raises(TooLarge):
        await receive(ingest, source, Intent("song.mp3", size=101))
    assert source.taken == 0
    assert await bench.holds_nothing(ingest)


async def test_too_many_bytes_are_refused_as_they_come(bench: Bench) -> None:
    bench.policy = Policy(10 * KIB)
    ingest, source = bench.ingest(), Source(*[bytes(KIB)] * 1000)
    with pytest.raises(TooLarge) as refusal:
        await receive(ingest, source)
    assert refusal.value.members == {"limit": 10 * KIB}
    assert source.taken == 11 * KIB
    assert await bench.holds_nothing(ingest)


async def test_file_as_large_as_the_limit_is_taken(bench: Bench) -> None:
    bench.policy = Policy(10 * KIB)
    assert (await receive(bench.ingest(), Source(*[bytes(KIB)] * 10))).staged.offset == 10 * KIB


async def test_quota_that_ends_in_mid_body_leaves_nothing(bench: Bench) -> None:
    ingest = bench.ingest()
    with pytest.raises(QuotaExceeded):
        await receive(ingest, Source(*[bytes(MIB)] * 40), allowance=Allowance(quota=20 * MIB))
    assert await bench.holds_nothing(ingest)


async def test_reservation_counts_what_came(bench: Bench) -> None:
    ingest = bench.ingest()
    with await ingest.admit(ADA, 300_000) as reservation:
        await ingest.receive(Intent("song.mp3"), ADA, Source(bytes(100_000), bytes(200_000)), reservation)
        assert (reservation.written, reservation.ahead) == (300_000, 0)


async def test_small_chunks_are_written_in_few_batches(bench: Bench) -> None:
    writes: list[Key] = []

    async def count(verb: str, key: Key) -> None:
        if verb in {"write", "sync"}:
            writes.append(key)

    await receive(bench.ingest(blobs=Blobs(bench.blobs, count)), Source(*[bytes(16 * KIB)] * 1024))
    assert 4 <= len(writes) <= 6


async def test_batches_shrink_as_uploads_become_many(bench: Bench) -> None:
    batches: list[int] = []

    async def count(verb: str, _key: Key) -> None:
        if verb in {"write", "sync"}:
            batches.append(0)

    ingest = bench.ingest(blobs=Blobs(bench.blobs, count))
    others = [await ingest.admit(ADA, 0) for _ in range(63)]
    await receive(ingest, Source(*[bytes(16 * KIB)] * 256))
    assert 16 <= len(batches) <= 18
    for other in others:
        other.__exit__()


@pytest.mark.parametrize("algorithm", ["sha-256", "sha-512"])
async def test_claimed_digest_that_holds_is_no_hindrance(bench: Bench, algorithm: str) -> None:
    ingest = bench.ingest()
    claim = {algorithm: sha(algorithm.replace("-", ""), b"data")}
    [file] = await ingest.commit([await receive(ingest, b"data", Intent("song.mp3", digests=claim))])
    assert file.sha256 == sha("sha256", b"data").hex()


@pytest.mark.parametrize("algorithm", ["sha-256", "sha-512"])
async def test_claimed_digest_that_does_not_hold_leaves_nothing(bench: Bench, algorithm: str) -> None:
    ingest = bench.ingest()
    name = algorithm.replace("-", "")
    claim = {algorithm: sha(name, b"other")}
    upload = await receive(ingest, b"data", Intent("song.mp3", digests=claim))
    with pytest.raises(DigestMismatch) as refusal:
        await ingest.commit([upload])
    assert refusal.value.members == {
        "algorithm": algorithm,
        "expected": sha(name, b"other").hex(),
        "actual": sha(name, b"data").hex(),
    }
    assert await bench.holds_nothing(ingest)


async def test_one_digest_that_does_not_hold_refuses_all_uploads(bench: Bench) -> None:
    ingest = bench.ingest()
    good = await receive(ingest, b"good")
    bad = await receive(ingest, b"bad", Intent("b", digests={"sha-256": bytes(32)}))
    with pytest.raises(DigestMismatch):
        await ingest.commit([good, bad])
    assert await bench.holds_nothing(ingest)


async def test_digest_covers_the_last_batch(bench: Bench) -> None:
    last = bytes(32 * MIB)
    upload = await receive(bench.ingest(), Source(bytes(5000), last))
    assert upload.digests["sha-256"] == sha("sha256", bytes(5000) + last)


async def test_uploads_of_one_commit_are_files_together(bench: Bench) -> None:
    ingest = bench.ingest()
    uploads = [await receive(ingest, name.encode(), Intent(name)) for name in ("a", "b", "c")]
    files = await ingest.commit(uploads)
    assert [file.filename for file in files] == ["a", "b", "c"]
    assert {file.id for file in await bench.files()} == {file.id for file in files}
    assert [await bench.content(file) for file in files] == [b"a", b"b", b"c"]


@pytest.mark.parametrize("bodies", [[b"data"] * 3, [LARGE] * 3, [b"data", LARGE, b"data"], [LARGE, b"data", LARGE]])
async def test_one_blob_that_cannot_be_committed_refuses_all(bench: Bench, bodies: list[bytes]) -> None:
    async def fail(verb: str, key: Key) -> None:
        if verb in ("commit", "put") and key == uploads[1].key:
            raise StorageFull("the disk is full")

    ingest = bench.ingest(blobs=Blobs(bench.blobs, fail))
    uploads = [await receive(ingest, body) for body in bodies]
    with pytest.raises(StorageFull):
        await ingest.commit(uploads)
    assert await bench.holds_nothing(ingest)


async def test_failing_index_leaves_blobs_for_the_sweep(bench: Bench) -> None:
    ingest = bench.ingest(files=FailingIndex(bench.index))
    uploads = [await receive(ingest, b"data"), await receive(ingest, b"more")]
    with pytest.raises(Unavailable):
        await ingest.commit(uploads)
    assert await bench.files() == ()
    assert (await bench.keys()).keys() == {upload.key for upload in uploads}
    assert ingest.active == frozenset()
    assert await gc.run_once(bench.blobs, bench.index, ingest.active_keys, EVER) == 2
    assert await bench.holds_nothing(ingest)


async def test_sweep_during_an_upload_takes_nothing_of_it(bench: Bench) -> None:
    async def sweep(_verb: str, _key: Key) -> None:
        assert await gc.run_once(bench.blobs, bench.index, ingest.active_keys, EVER) == 0

    ingest = bench.ingest(blobs=Blobs(bench.blobs, sweep))
    [file] = await ingest.commit([await receive(ingest, b"data")])
    assert await gc.run_once(bench.blobs, bench.index, ingest.active_keys, EVER) == 0
    assert await bench.content(file) == b"data"


async def test_sweep_during_the_transaction_takes_nothing_of_it(bench: Bench) -> None:
    class SweptIndex(FailingIndex):
        """Whose transactions wait for a sweep."""

        async def finish(self, *arguments: Any, **options: Any) -> Sequence[File]:  # handed on
            await asyncio.sleep(0)
            assert await gc.run_once(bench.blobs, bench.index, ingest.active_keys, EVER) == 0
            return await bench.index.finish(*arguments, **options)

    ingest = bench.ingest(files=SweptIndex(bench.index))
    [file] = await ingest.commit([await receive(ingest, b"data")])
    assert await bench.content(file) == b"data"


async def test_answer_is_recorded_with_its_files(bench: Bench) -> None:
    ingest = bench.ingest()
    draft = Answer("ada", "key", "print", NOON)
    files = await ingest.commit([await receive(ingest, b"data")], draft)
    assert await bench.index.answer("ada", "key", NOON) == replace(draft, files=tuple(files))


async def test_discarded_uploads_leave_nothing(bench: Bench) -> None:
    ingest = bench.ingest()
    await ingest.discard([await receive(ingest, b"data"), await receive(ingest, b"more")])
    assert await bench.holds_nothing(ingest)


async def test_described_upload_has_the_new_intent_and_its_grant(bench: Bench) -> None:
    bench.policy = Policy(MIB, expire_after=7 * DAY)
    ingest = bench.ingest()
    upload = await receive(ingest, b"data")
    assert upload.terms.expires_at == NOON + 7 * DAY
    described = ingest.describe(upload, replace(upload.intent, expires_at=NOON + DAY, metadata={"a": "b"}))
    [file] = await ingest.commit([described])
    assert (file.expires_at, file.metadata) == (NOON + DAY, {"a": "b"})


async def test_digest_that_is_claimed_later_is_checked(bench: Bench) -> None:
    ingest = bench.ingest()
    upload = await receive(ingest, b"data")
    described = ingest.describe(upload, replace(upload.intent, digests={"sha-256": bytes(32)}))
    with pytest.raises(DigestMismatch):
        await ingest.commit([described])


async def test_description_with_an_expiry_in_the_past_is_refused(bench: Bench) -> None:
    ingest = bench.ingest()
    upload = await receive(ingest, b"data")
    with pytest.raises(BadRequest):
        ingest.describe(upload, replace(upload.intent, expires_at=NOON))


async def test_keys_of_four_seconds_share_a_shard(bench: Bench) -> None:
    ingest = bench.ingest()
    shards = []
    for millisecond in (0, 3999, 4000, 7999, 8000):
        bench.clock.time = NOON + timedelta(milliseconds=millisecond)
        shards.append((await receive(ingest, b"")).key[:2])
    assert shards[0] == shards[1] != shards[2] == shards[3] != shards[4]


async def test_keys_fill_all_shards(bench: Bench) -> None:
    ingest = bench.ingest()
    shards = set()
    for window in range(256):
        bench.clock.time = NOON + timedelta(seconds=4 * window)
        upload = await receive(ingest, b"")
        shards.add(upload.key[:2])
        await ingest.discard([upload])
    assert shards == {f"{shard:02x}" for shard in range(256)}


async def test_keys_and_ids_never_repeat(bench: Bench) -> None:
    ingest = bench.ingest()
    uploads = [await receive(ingest, b"") for _ in range(50)]
    assert len({upload.key for upload in uploads}) == len({upload.id for upload in uploads}) == 50


async def test_keys_and_ids_that_are_made_one_after_the_other_are_in_order_also_among_older_ones(bench: Bench) -> None:
    ingest = bench.ingest()
    made = []
    for second in (-1024, 0, 1024):  # windows of the same number
        for millisecond in (0, 1, 9, 400, 3999):
            bench.clock.time = NOON + timedelta(seconds=second, milliseconds=millisecond)
            made.append(await receive(ingest, b""))
    assert [upload.key for upload in made] == sorted(upload.key for upload in made)
    assert [upload.id for upload in made] == sorted(upload.id for upload in made)
    assert len({upload.key[:4] for upload in made}) == 3


async def test_ids_hold_100_random_bits(bench: Bench) -> None:
    ingest = bench.ingest()
    ids = [int((await receive(ingest, b"")).id[7:], 16) for _ in range(50)]
    assert min(ids) >> 100 == max(ids) >> 100 == 0
    for bit in range(100):
        assert {number >> bit & 1 for number in ids} == {0, 1}, bit


async def test_equal_bytes_are_kept_once(bench: Bench) -> None:
    ingest = bench.ingest()
    one, two = [(await ingest.commit([await receive(ingest, b"data", Intent(name))]))[0] for name in "ab"]
    assert one.key == two.key
    assert one.id != two.id
    assert await bench.keys() == {one.key: 4}
    assert {FileId(label.file_id) for label in await bench.blobs.labels(one.key)} == {one.id, two.id}
    assert ingest.active == frozenset()


async def test_equal_bytes_are_kept_twice_without_dedupe(bench: Bench) -> None:
    ingest = bench.ingest(dedupe=False)
    files = [(await ingest.commit([await receive(ingest, b"data")]))[0] for _ in range(2)]
    assert await bench.keys() == {file.key: 4 for file in files}
    assert len(await bench.keys()) == 2


@pytest.mark.parametrize("left", [None, b"dat"])
async def test_blob_that_is_not_whole_is_shared_with_nobody(bench: Bench, left: bytes | None) -> None:
    ingest = bench.ingest()
    [one] = await ingest.commit([await receive(ingest, b"data")])
    await bench.blobs.delete(one.key)
    if left is not None:
        await put(bench.blobs, one.key, left)
    [two] = await ingest.commit([await receive(ingest, b"data")])
    assert [await bench.content(file) for file in await bench.files()] == [b"data", b"data"]
    assert two.id != one.id


async def test_upload_makes_a_damaged_file_whole(bench: Bench) -> None:
    ingest = bench.ingest()
    [one] = await ingest.commit([await receive(ingest, b"data")])
    await bench.index.mark(one.key, "digest")
    [two] = await ingest.commit([await receive(ingest, b"data")])
    healed = await bench.index.file(one.id)
    assert (healed.key, healed.damage) == (two.key, None)
    assert two.key != one.key


async def test_blob_tells_of_its_file(bench: Bench) -> None:
    ingest = bench.ingest()
    [file] = await ingest.commit([await receive(ingest, b"data", Intent("a.mp3", metadata={"x": ["1", "2"]}))])
    [label] = await bench.blobs.labels(file.key)
    assert parse_label(label, file.key) == file
