"""What every BlobStore promises of staged blobs that outlive a crash, and of absorbing them.

A back-end's test subclasses this and gives a `store`, and a `reopen` that gives another one on the same blobs.
"""

from __future__ import annotations

import asyncio
import tracemalloc
from typing import TYPE_CHECKING

import pytest

from spool.errors import NotFound, SpoolError, Unavailable
from spool.model import Key, Staged

from .blobstore_suite import KEY, OTHER, content, keys, put, stage

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from spool.ports import BlobStore

    Reopen = Callable[[], Awaitable[BlobStore]]

NEW = Staged(0)
MIB = 1024 * 1024


class ResumingSuite:
    # going on

    async def test_a_resumed_writer_goes_on_where_it_stood(self, store: BlobStore) -> None:
        at = await stage(store, KEY, [b"one "], at=NEW)
        assert at.offset == 4
        at = await stage(store, KEY, [b"two "], at=at)
        at = await stage(store, KEY, [b"three"], at=at)
        await store.commit(KEY, at)
        assert await content(store, KEY) == b"one two three"
        assert await keys(store) == {KEY: 13}

    async def test_a_resumed_writer_goes_on_in_another_store(self, store: BlobStore, reopen: Reopen) -> None:
        at = await stage(store, KEY, [b"one "], at=NEW)
        store = await reopen()
        at = await stage(store, KEY, [b"two"], at=at)
        store = await reopen()
        await store.commit(KEY, at)
        assert await content(store, KEY) == b"one two"

    async def test_a_writer_syncs_again_and_again(self, store: BlobStore) -> None:
        writer = await store.writer(KEY, NEW)
        for offset in range(1, 4):
            await writer.write([b"x"])
            assert (await writer.sync()).offset == offset
        await writer.aclose()

    async def test_bytes_past_the_offset_are_cut_off(self, store: BlobStore, reopen: Reopen) -> None:
        at = await stage(store, KEY, [b"data"], at=NEW)
        await stage(store, KEY, [b"garbage"], at=at)
        at = await stage(store, KEY, [b"!"], at=at)
        await stage(store, KEY, [b"more garbage"], at=at)
        store = await reopen()
        at = await stage(store, KEY, [b"!"], at=at)
        assert await content(store, KEY, staged=True) == b"data!!"
        await store.commit(KEY, at)
        assert await content(store, KEY) == b"data!!"

    async def test_an_upload_that_starts_anew_cuts_off_all(self, store: BlobStore) -> None:
        await stage(store, KEY, [b"garbage"], at=NEW)
        at = await stage(store, KEY, at=NEW)
        assert await keys(store) == {KEY: 0}
        await store.commit(KEY, at)
        assert await content(store, KEY) == b""

    async def test_fewer_bytes_than_the_offset_are_refused(self, store: BlobStore, reopen: Reopen) -> None:
        at = await stage(store, KEY, [b"data"], at=NEW)
        for _ in range(2):
            with pytest.raises(Unavailable):
                await store.writer(KEY, Staged(5))
            with pytest.raises(Unavailable):
                await store.writer(OTHER, Staged(1))
            store = await reopen()
        assert await keys(store) == {KEY: 4}
        await stage(store, KEY, [b"!"], at=at)

    async def test_a_live_blob_cannot_be_resumed(self, store: BlobStore) -> None:
        at = await stage(store, KEY, [b"data"], at=NEW)
        await store.commit(KEY, at)
        with pytest.raises(Unavailable):
            await store.writer(KEY, Staged(2))
        assert await content(store, KEY) == b"data"

    # one writer

    async def test_a_late_write_of_an_earlier_writer_never_arrives(self, store: BlobStore) -> None:
        earlier = await store.writer(KEY, NEW)
        await earlier.write([b"one "])
        at = await earlier.sync()
        later = await store.writer(KEY, at)
        await earlier.write([b"late"])
        with pytest.raises(SpoolError):
            await earlier.sync()
        await later.write([b"two"])
        await earlier.aclose()
        at = await later.sync()
        await later.aclose()
        await store.commit(KEY, at)
        assert await content(store, KEY) == b"one two"

    async def test_a_write_under_way_is_over_when_the_next_writer_is_there(self, store: BlobStore) -> None:
        for _ in range(20):
            earlier = await store.writer(KEY, NEW)
            await earlier.write([b"x" * 4 * MIB])
            later = await store.writer(KEY, NEW)
            await later.write([b"data"])
            await later.sync()
            await earlier.aclose()
            await later.aclose()
            assert await content(store, KEY, staged=True) == b"data"

    async def test_of_writers_at_once_the_last_one_writes(self, store: BlobStore) -> None:
        at = await stage(store, KEY, [b"data"], at=NEW)

        async def write(text: bytes) -> Staged:
            writer = await store.writer(KEY, at)
            try:
                await writer.write([text])
                return await writer.sync()
            finally:
                await writer.aclose()

        outcomes = await asyncio.gather(*(write(b"%02d" % number) for number in range(30)), return_exceptions=True)
        assert all(isinstance(outcome, Staged | SpoolError) for outcome in outcomes)
        assert outcomes[29] == Staged(6)
        assert await content(store, KEY, staged=True) == b"data29"

    async def test_a_writer_that_was_cancelled_while_it_opened_keeps_nobody_out(self, store: BlobStore) -> None:
        earlier = await store.writer(KEY, NEW)
        for _ in range(20):
            opening = asyncio.ensure_future(store.writer(KEY, NEW))
            await asyncio.sleep(0)
            opening.cancel()
            await asyncio.wait([opening])
        at = await stage(store, KEY, [b"data"], at=NEW)
        await earlier.write([b"late"])
        await earlier.aclose()
        assert await content(store, KEY, staged=True) == b"data"
        await store.commit(KEY, at)

    async def test_a_closed_writer_writes_no_more(self, store: BlobStore) -> None:
        writer = await store.writer(KEY, NEW)
        await writer.aclose()
        await writer.write([b"late"])
        with pytest.raises(SpoolError):
            await writer.sync()
        await writer.aclose()
        assert await keys(store) == {KEY: 0}

    # commit

    async def test_commit_after_a_reopening_is_idempotent(self, store: BlobStore, reopen: Reopen) -> None:
        at = await stage(store, KEY, [b"data"], at=NEW)
        for _ in range(2):
            store = await reopen()
            for _ in range(2):
                await store.commit(KEY, at)
        assert await content(store, KEY) == b"data"
        assert await keys(store) == {KEY: 4}

    async def test_commit_cuts_off_what_was_never_acknowledged(self, store: BlobStore, reopen: Reopen) -> None:
        at = await stage(store, KEY, [b"data"], at=NEW)
        await stage(store, KEY, [b"garbage"], at=at)
        store = await reopen()
        await store.commit(KEY, at)
        assert await content(store, KEY) == b"data"

    async def test_commit_of_more_than_is_staged_is_refused(self, store: BlobStore, reopen: Reopen) -> None:
        await stage(store, KEY, [b"data"], at=NEW)
        for _ in range(2):
            with pytest.raises(SpoolError):
                await store.commit(KEY, Staged(5))
            with pytest.raises(NotFound):
                await store.open(KEY)
            store = await reopen()
        await store.commit(KEY, Staged(4))

    async def test_commit_of_a_live_blob_of_another_size_is_refused(self, store: BlobStore) -> None:
        await put(store, KEY)
        with pytest.raises(SpoolError):
            await store.commit(KEY, Staged(3))
        assert await content(store, KEY) == b"data"

    async def test_commits_of_one_blob_at_once_all_succeed(self, store: BlobStore) -> None:
        at = await stage(store, KEY, [b"data"], at=NEW)
        await asyncio.gather(*(store.commit(KEY, at) for _ in range(10)))
        assert await keys(store) == {KEY: 4}

    async def test_commit_of_a_closed_blob_completes_though_cancelled(self, store: BlobStore) -> None:
        at = await stage(store, KEY, [b"data"], at=NEW)
        commit = asyncio.ensure_future(store.commit(KEY, at))
        await asyncio.sleep(0)
        commit.cancel()
        await asyncio.wait([commit])
        async with asyncio.timeout(60):
            while True:
                try:
                    assert await content(store, KEY) == b"data"
                except NotFound:
                    continue
                break

    async def test_commit_by_an_open_writer_ends_its_writes(self, store: BlobStore) -> None:
        writer = await store.writer(KEY, NEW)
        await writer.write([b"data"])
        await store.commit(KEY, await writer.sync())
        await writer.write([b"late"])
        await writer.aclose()
        assert await content(store, KEY) == b"data"
        assert await keys(store) == {KEY: 4}

    async def test_commit_never_replaces_by_a_resumed_blob(self, store: BlobStore) -> None:
        await put(store, KEY, b"first")
        at = await stage(store, KEY, [b"other"], at=NEW)
        with pytest.raises(SpoolError):
            await store.commit(KEY, at)
        assert await content(store, KEY) == b"first"

    # open, keys, delete

    @pytest.mark.parametrize("at", [None, NEW])
    async def test_staged_bytes_are_readable_to_who_asks_for_them(self, store: BlobStore, at: Staged | None) -> None:
        writer = await store.writer(KEY, at)
        await writer.write([b"data"])
        at = await writer.sync()
        assert await content(store, KEY, staged=True) == b"data"
        await writer.aclose()
        assert await content(store, KEY, staged=True) == b"data"
        with pytest.raises(NotFound):
            await store.open(KEY)
        await store.commit(KEY, at)
        assert await content(store, KEY, staged=True) == b"data"  # a crash may have come between commit and row

    async def test_staged_bytes_survive_a_reopening(self, store: BlobStore, reopen: Reopen) -> None:
        await stage(store, KEY, [b"x" * 9 * MIB], at=NEW)
        store = await reopen()
        assert await content(store, KEY, staged=True) == b"x" * 9 * MIB

    async def test_nothing_staged_is_not_found(self, store: BlobStore) -> None:
        with pytest.raises(NotFound):
            await store.open(KEY, staged=True)

    async def test_a_resumable_blob_is_among_the_keys_once(self, store: BlobStore, reopen: Reopen) -> None:
        writer = await store.writer(KEY, NEW)
        await writer.write([b"data"])
        at = await writer.sync()
        assert await keys(store) == {KEY: 4}
        await writer.aclose()
        assert await keys(store) == {KEY: 4}
        store = await reopen()
        assert await keys(store) == {KEY: 4}
        await store.commit(KEY, at)
        assert await keys(store) == {KEY: 4}

    @pytest.mark.parametrize("when", ["open", "closed", "reopened"])
    async def test_a_resumable_blob_can_be_deleted(self, store: BlobStore, reopen: Reopen, when: str) -> None:
        writer = await store.writer(KEY, NEW)
        await writer.write([b"data"])
        at = await writer.sync()
        if when != "open":
            await writer.aclose()
        if when == "reopened":
            store = await reopen()
        with await store.open(KEY, staged=True) as blob:
            await store.delete(KEY)
            assert blob.read() == b"data"
        assert await keys(store) == {}
        with pytest.raises(SpoolError):
            await store.commit(KEY, at)
        with pytest.raises(SpoolError):
            await store.writer(KEY, at)
        await writer.aclose()

    async def test_a_deleted_blob_takes_no_more_writes(self, store: BlobStore) -> None:
        writer = await store.writer(KEY, NEW)
        await store.delete(KEY)
        await writer.write([b"late"])
        with pytest.raises(SpoolError):
            await writer.sync()
        await writer.aclose()
        assert await keys(store) == {}

    # absorb

    @pytest.mark.parametrize("at", [None, NEW])
    @pytest.mark.parametrize(
        "sizes", [[0], [1], [5, 0, 7], [4096, 4096], [MIB, MIB + 1, 3], [17 * MIB, 5], [0, 0, 33 * MIB]], ids=str
    )
    async def test_absorb_is_concatenation(self, store: BlobStore, sizes: list[int], at: Staged | None) -> None:
        parts = {Key(f"00{number:030x}"): bytes([65 + number]) * size for number, size in enumerate(sizes)}
        ends = {key: await stage(store, key, [data], at=NEW) for key, data in parts.items()}
        writer = await store.writer(KEY, at)
        await writer.write([b"head"])
        for key in [*parts, *parts]:
            await writer.absorb(key, ends[key])
        await writer.write([b"tail"])
        at = await writer.sync()
        await writer.aclose()
        await store.commit(KEY, at)
        assert await content(store, KEY) == b"head" + b"".join(parts.values()) * 2 + b"tail"
        assert [await content(store, key, staged=True) for key in parts] == list(parts.values())

    @pytest.mark.parametrize("at", [None, NEW])
    async def test_absorb_takes_a_blob_that_is_being_written(self, store: BlobStore, at: Staged | None) -> None:
        source = await store.writer(OTHER, at)
        await source.write([b"data"])
        end = await source.sync()
        await source.write([b"more"])
        writer = await store.writer(KEY, NEW)
        await writer.absorb(OTHER, end)
        await writer.sync()
        await writer.aclose()
        await source.aclose()
        assert await content(store, KEY, staged=True) == b"data"

    async def test_absorb_takes_a_blob_of_an_earlier_store(self, store: BlobStore, reopen: Reopen) -> None:
        end = await stage(store, OTHER, [b"data", b"garbage"], at=NEW)
        store = await reopen()
        writer = await store.writer(KEY, NEW)
        await writer.absorb(OTHER, Staged(end.offset - 7))
        assert await writer.sync() == Staged(4)
        await writer.aclose()
        assert await content(store, KEY, staged=True) == b"data"

    @pytest.mark.parametrize("size", [0, 1])
    async def test_absorb_of_what_is_gone_is_refused(self, store: BlobStore, size: int) -> None:
        writer = await store.writer(KEY, NEW)
        with pytest.raises(Unavailable):
            await writer.absorb(OTHER, Staged(size))
        await writer.aclose()

    async def test_absorb_of_more_than_is_there_is_refused(self, store: BlobStore) -> None:
        await stage(store, OTHER, [b"data"], at=NEW)
        writer = await store.writer(KEY, NEW)
        with pytest.raises(Unavailable):
            await writer.absorb(OTHER, Staged(5))
        await writer.aclose()

    async def test_absorb_that_was_superseded_ends(self, store: BlobStore) -> None:
        end = await stage(store, OTHER, [b"x" * 40 * MIB], at=NEW)
        earlier = await store.writer(KEY, NEW)
        absorbing = asyncio.ensure_future(earlier.absorb(OTHER, end))
        await asyncio.sleep(0)
        await stage(store, KEY, [b"data"], at=NEW)
        with pytest.raises(SpoolError):
            await absorbing
        await earlier.aclose()
        assert await content(store, KEY, staged=True) == b"data"

    async def test_absorb_does_not_hold_the_blob_in_memory(self, store: BlobStore) -> None:
        end = await stage(store, OTHER, [b"x" * 32 * MIB], at=NEW)
        writer = await store.writer(KEY, NEW)
        tracemalloc.start()
        try:
            await writer.absorb(OTHER, end)
            assert tracemalloc.get_traced_memory()[1] < 4 * MIB
        finally:
            tracemalloc.stop()
        await writer.aclose()
