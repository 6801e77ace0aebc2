"""What happens to the source while it is copied."""

from __future__ import annotations

from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from spool.model import Intent, Key, Resumable, Staged, UploadId
from spool.ports import Session
from spool.store import INDEX, Copied, LocalStore, SqliteIndex, copy_spool, open_blobs, open_index, sqlite_files
from tests.store.blobstore_suite import keys, put
from tests.store.index_suite import DAY, NOON, a_file, a_token

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

A, B, C = (Key(f"{digits}{'a' * 30}") for digits in ("00", "7f", "ff"))


@dataclass
class Interrupted:
    """A target; something happens after the index was copied and before the first blob is."""

    target: LocalStore
    meanwhile: Callable[[], Awaitable[object]]

    async def take(self, *arguments: Any, **options: Any) -> Any:
        meanwhile, self.meanwhile = self.meanwhile, _nothing
        await meanwhile()
        return await self.target.take(*arguments, **options)


async def _nothing() -> None:
    pass


@dataclass
class Pair:
    blobs: LocalStore
    index: SqliteIndex
    target: LocalStore
    to: Path

    async def copy(self, meanwhile: Callable[[], Awaitable[object]] = _nothing) -> Copied:
        target: Any = Interrupted(self.target, meanwhile)
        return await copy_spool(self.blobs, self.index, target, (self.to / "new", self.to / INDEX), link=True)

    async def copied(self) -> list[tuple[str, Key]]:
        async with aclosing(await open_index(self.to)) as index:
            assert await index.check() == []
            return [(file.id, file.key) for file in await index.by_key(None, 100)]


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    async with AsyncExitStack() as stack:
        blobs = await stack.enter_async_context(aclosing(await open_blobs(tmp_path / "a")))
        index = await stack.enter_async_context(aclosing(await open_index(tmp_path / "a")))
        target = await stack.enter_async_context(aclosing(await open_blobs(tmp_path / "b")))
        yield Pair(blobs, index, target, tmp_path / "b")


async def test_file_that_is_deleted_meanwhile_leaves_the_copy(pair: Pair) -> None:
    await put(pair.blobs, A)
    await put(pair.blobs, B)
    gone = [a_file("gone", key=A, size=4), a_file("gone too", key=A, size=4)]
    await pair.index.finish([*gone, a_file("kept", key=B, size=4)])

    async def delete() -> None:
        for file in gone:
            await pair.index.remove(file.id)
        await pair.blobs.delete(A)

    assert await pair.copy(delete) == Copied(files=1, size=4, linked=1)
    assert await pair.copied() == [("id-kept", B)]


async def test_file_whose_bytes_are_lost_stays_in_the_copy(pair: Pair) -> None:
    await pair.index.finish([a_file("lost", key=A, size=4)])
    assert await pair.copy() == Copied(files=1, missing=1)
    assert await pair.copied() == [("id-lost", A)]


async def test_file_that_gets_another_blob_meanwhile_has_it_in_the_copy(pair: Pair) -> None:
    await pair.index.finish([a_file("a", key=A, size=4), a_file("b", key=A, size=4)])

    async def heal() -> None:
        await put(pair.blobs, C)
        await pair.index.heal(A, C)

    await pair.copy(heal)
    assert await pair.copied() == [("id-a", C), ("id-b", C)]
    assert await keys(pair.target) == {C: 4}


async def test_file_that_comes_meanwhile_is_not_in_the_copy(pair: Pair) -> None:
    await put(pair.blobs, A)
    await pair.index.finish([a_file("old", key=A, size=4)])

    async def add() -> None:
        await put(pair.blobs, B)
        await pair.index.finish([a_file("new", key=B, size=4)])

    await pair.copy(add)
    assert await pair.copied() == [("id-old", A)]


async def test_uploads_that_are_not_finished_are_left_out_and_no_longer_count(pair: Pair) -> None:
    await pair.index.add_upload(
        Resumable(
            id=UploadId("up"),
            key=A,
            owner="ada",
            dialect="tus",
            intent=Intent("a.jpg", 100),
            notes={},
            partial=False,
            created_at=NOON,
            expires_at=NOON + DAY,
            staged=Staged(10),
            state="open",
            epoch=1,
            media_type=None,
            file_id=None,
        )
    )
    await pair.copy()
    async with aclosing(await open_index(pair.to)) as index:
        assert await index.check() == []
        assert await index.promised() == 0
        assert (await index.usage("ada")).size == 0


async def test_sessions_are_left_out(pair: Pair) -> None:
    await pair.index.add_token(a_token("ada"), "hash")
    await pair.index.add_session(Session(a_token("ada"), NOON + DAY), "session", NOON)
    await pair.copy()
    async with aclosing(await open_index(pair.to)) as index:
        assert await index.token("hash") is not None
        assert await index.session("session") is None


async def test_copy_shares_the_secret(pair: Pair) -> None:
    await pair.copy()
    assert sqlite_files.read_secret(pair.to / INDEX) == await pair.index.secret()
