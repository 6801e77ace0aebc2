"""What every BlobStore promises. A back-end's test subclasses this and gives a `store`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from spool.errors import NotFound, SpoolError
from spool.model import FileId, Key, Label, Staged

if TYPE_CHECKING:
    from spool.ports import BlobStore, LabelledStore

KEY, OTHER = Key("00" + "a" * 30), Key("00" + "b" * 30)


async def stage(store: BlobStore, key: Key, *batches: list[bytes], at: Staged | None = None) -> Staged:
    writer = await store.writer(key, at)
    for batch in batches:
        await writer.write(batch)
    staged = await writer.sync()
    await writer.aclose()
    return staged


async def put(store: BlobStore, key: Key, data: bytes = b"data") -> None:
    await store.commit(key, await stage(store, key, [data]))


async def content(store: BlobStore, key: Key, *, staged: bool = False) -> bytes:
    with await store.open(key, staged=staged) as blob:
        return blob.read()


async def keys(store: BlobStore) -> dict[Key, int]:
    entries = [(key, size) async for key, size, _ in store.keys()]  # noqa: SIM118 - it is no dict
    assert len(dict(entries)) == len(entries)
    return dict(entries)


class BlobStoreSuite:
    async def test_committed_blob_holds_its_batches_in_order(self, store: BlobStore) -> None:
        staged = await stage(store, KEY, [b"a", b"b" * 100_000], [b"c"] * 3000, [b"d"])
        assert staged.offset == 1 + 100_000 + 3000 + 1
        await store.commit(KEY, staged)
        assert await content(store, KEY) == b"a" + b"b" * 100_000 + b"c" * 3000 + b"d"

    async def test_written_buffers_have_been_seen_in_order_once_they_are_synced(self, store: BlobStore) -> None:
        seen: list[bytes] = []
        batches = [[b"a", b"b" * 1_000_000, b"c"], [b"%d" % n for n in range(3000)], [b"", b"d" * 100_000]]
        writer = await store.writer(KEY)
        for batch in batches:
            await writer.write(batch, seen.append)
        await writer.sync()
        assert seen == [buffer for batch in batches for buffer in batch]
        await writer.aclose()

    async def test_empty_blob_is_a_blob(self, store: BlobStore) -> None:
        staged = await stage(store, KEY)
        assert staged.offset == 0
        await store.commit(KEY, staged)
        assert await content(store, KEY) == b""

    async def test_staged_blob_is_not_readable(self, store: BlobStore) -> None:
        await stage(store, KEY, [b"data"])
        with pytest.raises(NotFound):
            await store.open(KEY)

    async def test_staged_blob_is_among_the_keys(self, store: BlobStore) -> None:
        await stage(store, KEY, [b"data"])
        assert await keys(store) == {KEY: 4}

    async def test_commit_is_idempotent(self, store: BlobStore) -> None:
        staged = await stage(store, KEY, [b"data"])
        await store.commit(KEY, staged)
        await store.commit(KEY, staged)
        assert await content(store, KEY) == b"data"
        assert await keys(store) == {KEY: 4}

    async def test_commit_of_nothing_is_refused(self, store: BlobStore) -> None:
        with pytest.raises(SpoolError):
            await store.commit(KEY, Staged(4))
        assert await keys(store) == {}

    async def test_commit_of_bytes_that_were_not_synced_is_refused(self, store: BlobStore) -> None:
        staged = await stage(store, KEY, [b"data"])
        with pytest.raises(SpoolError):
            await store.commit(KEY, Staged(staged.offset - 1))

    async def test_commit_never_replaces(self, store: BlobStore) -> None:
        await put(store, KEY, b"first")
        staged = await stage(store, KEY, [b"other"])
        with pytest.raises(SpoolError):
            await store.commit(KEY, staged)
        assert await content(store, KEY) == b"first"

    async def test_commits_at_once_are_all_there(self, store: BlobStore) -> None:
        names = [Key(f"{n % 3:02x}{n:030x}") for n in range(60)]
        await asyncio.gather(*(put(store, key, key.encode()) for key in names))
        assert await keys(store) == dict.fromkeys(names, 32)
        assert [await content(store, key) for key in names] == [key.encode() for key in names]

    async def test_commit_completes_though_its_caller_is_cancelled(self, store: BlobStore) -> None:
        staged = await stage(store, KEY, [b"data"])
        commit = asyncio.ensure_future(store.commit(KEY, staged))
        await asyncio.sleep(0)
        commit.cancel()
        with pytest.raises(asyncio.CancelledError):
            await commit
        await put(store, OTHER)  # commits are done in turn, so that ours is done too
        assert await content(store, KEY) == b"data"

    @pytest.mark.parametrize("committed", [False, True])
    async def test_deleted_blob_is_gone(self, store: BlobStore, committed: bool) -> None:  # noqa: FBT001
        staged = await stage(store, KEY, [b"data"])
        if committed:
            await store.commit(KEY, staged)
        await store.delete(KEY)
        with pytest.raises(NotFound):
            await store.open(KEY)
        assert await keys(store) == {}

    @pytest.mark.parametrize("data", [b"", b"data", b"d" * 100_000])
    async def test_blob_that_is_put_is_live(self, store: BlobStore, data: bytes) -> None:
        await store.put(KEY, data)
        assert await content(store, KEY) == data
        assert [(key, size) async for key, size, _ in store.keys(live=True)] == [(KEY, len(data))]

    async def test_blobs_that_are_put_and_committed_at_once_are_all_there(self, store: BlobStore) -> None:
        names = [Key(f"{n % 3:02x}{n:030x}") for n in range(60)]
        staged = {key: await stage(store, key, [key.encode()]) for key in names[::3]}
        rest = [key for key in names if key not in staged]
        puts = [store.put(key, key.encode()) for key in rest]
        await asyncio.gather(*puts, *(store.commit(key, at) for key, at in staged.items()))
        assert [await content(store, key) for key in names] == [key.encode() for key in names]

    async def test_put_never_replaces(self, store: BlobStore) -> None:
        await put(store, KEY)
        with pytest.raises(SpoolError):
            await store.put(KEY, b"other")
        assert await content(store, KEY) == b"data"

    async def test_put_completes_though_its_caller_is_cancelled(self, store: BlobStore) -> None:
        task = asyncio.ensure_future(store.put(KEY, b"data"))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await store.put(OTHER, b"later")  # what was asked before is done before
        assert await content(store, KEY) == b"data"

    async def test_delete_during_a_put_leaves_nothing(self, store: BlobStore) -> None:
        for _ in range(20):
            putting = asyncio.ensure_future(store.put(KEY, b"data"))
            await asyncio.sleep(0)
            await store.delete(KEY)
            await asyncio.gather(putting, return_exceptions=True)
            await store.delete(KEY)
            assert await keys(store) == {}

    async def test_blob_carries_its_label_once_it_is_put(self, store: LabelledStore) -> None:
        label = Label(FileId("f"), b"text")
        await store.put(KEY, b"data", label)
        assert await store.labels(KEY) == [label]

    async def test_delete_tells_whether_something_was_there(self, store: BlobStore) -> None:
        await put(store, KEY)
        await stage(store, OTHER, [b"staged"])
        lasting = Key("00" + "c" * 30)
        await stage(store, lasting, [b"lasting"], at=Staged(0))
        for key in (KEY, OTHER, lasting):
            assert [await store.delete(key), await store.delete(key)] == [True, False]

    async def test_delete_is_idempotent(self, store: BlobStore) -> None:
        await put(store, KEY)
        await store.delete(KEY)
        await store.delete(KEY)

    async def test_deleted_blob_stays_readable_to_who_has_it_open(self, store: BlobStore) -> None:
        await put(store, KEY)
        with await store.open(KEY) as blob:
            await store.delete(KEY)
            assert blob.read() == b"data"

    async def test_delete_during_a_write_leaves_nothing(self, store: BlobStore) -> None:
        writer = await store.writer(KEY)
        await writer.write([bytes(4 * 1024 * 1024)])
        await store.delete(KEY)
        await writer.aclose()
        with pytest.raises(SpoolError):
            await writer.sync()
        assert await keys(store) == {}

    async def test_cancelled_writer_can_be_closed_and_dropped(self, store: BlobStore) -> None:
        writer = await store.writer(KEY)

        async def write() -> None:
            while True:
                await writer.write([bytes(1024 * 1024)])

        writing = asyncio.ensure_future(write())
        await asyncio.sleep(0.01)
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        await writer.aclose()
        await writer.aclose()
        await store.delete(KEY)
        assert await keys(store) == {}

    async def test_keys_can_be_asked_by_prefix(self, store: BlobStore) -> None:
        await put(store, KEY)
        await put(store, OTHER, b"other")
        await put(store, Key("01" + "a" * 30))
        found = {prefix: [key async for key, *_ in store.keys(prefix)] for prefix in ("00a", "01", OTHER, "02")}
        assert found == {"00a": [KEY], "01": ["01" + "a" * 30], OTHER: [OTHER], "02": []}

    async def test_only_live_keys_can_be_asked_for(self, store: BlobStore) -> None:
        await put(store, KEY)
        await stage(store, OTHER, [b"staged"])
        await stage(store, Key("00" + "c" * 30), [b"lasting"], at=Staged(0))
        assert [key async for key, *_ in store.keys(live=True)] == [KEY]

    @pytest.mark.parametrize("at", [None, Staged(0)])
    async def test_blob_carries_its_label_from_the_commit_on(self, store: LabelledStore, at: Staged | None) -> None:
        staged = await stage(store, KEY, [b"data"], at=at)
        await store.commit(KEY, staged, Label(FileId("1"), b"one"))
        assert await store.labels(KEY) == [Label(FileId("1"), b"one")]

    async def test_labels_come_and_go(self, store: LabelledStore) -> None:
        await put(store, KEY)
        assert await store.labels(KEY) == []
        await store.label(KEY, FileId("1"), b"one")
        await store.label(KEY, FileId("2"), b"two")
        await store.label(KEY, FileId("1"), b"won")
        assert set(await store.labels(KEY)) == {Label(FileId("1"), b"won"), Label(FileId("2"), b"two")}
        await store.label(KEY, FileId("1"), None)
        await store.label(KEY, FileId("3"), None)
        assert await store.labels(KEY) == [Label(FileId("2"), b"two")]

    async def test_label_without_room_or_blob_is_no_error(self, store: LabelledStore) -> None:
        await put(store, KEY)
        await store.label(KEY, FileId("1"), bytes(100_000))
        await store.label(OTHER, FileId("1"), b"one")
        assert await content(store, KEY) == b"data"
        assert await store.labels(OTHER) == []

    async def test_free_space_is_some(self, store: BlobStore) -> None:
        assert await store.free() > 0

    async def test_probe_leaves_nothing(self, store: BlobStore) -> None:
        await store.probe()
        assert await keys(store) == {}
