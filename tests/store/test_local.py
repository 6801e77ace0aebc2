from __future__ import annotations

import errno
import os
import stat
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from spool.errors import NotFound, SpoolError, StorageFull, Unavailable
from spool.store.local import LocalStore, open_local
from tests.store.blobstore_suite import KEY, BlobStoreSuite, content, keys, put, stage
from tests.store.resuming_suite import ResumingSuite

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path


@asynccontextmanager
async def stores(folder: Path, *, nameless: bool) -> AsyncIterator[Callable[[], Awaitable[LocalStore]]]:
    """A function that opens a store, having closed the one before."""
    opened: list[LocalStore] = []

    async def reopen() -> LocalStore:
        for store in opened:
            await store.aclose()
        opened[:] = [await open_local(folder, nameless=nameless)]
        return opened[0]

    yield reopen
    for store in opened:
        await store.aclose()


class TestNamelessFiles(BlobStoreSuite, ResumingSuite):
    @pytest.fixture
    async def reopen(self, tmp_path: Path) -> AsyncIterator[Callable[[], Awaitable[LocalStore]]]:
        async with stores(tmp_path, nameless=True) as reopen:
            yield reopen

    @pytest.fixture
    async def store(self, reopen: Callable[[], Awaitable[LocalStore]]) -> LocalStore:
        store = await reopen()
        assert store._layout.nameless, "this file system has no O_TMPFILE; the named variant is tested anyway"
        return store

    async def test_staged_blob_has_no_name(self, store: LocalStore, tmp_path: Path) -> None:
        await stage(store, KEY, [b"data"])
        assert [path for path in tmp_path.glob("*/**/*") if path.is_file()] == []


class TestNamedFiles(BlobStoreSuite, ResumingSuite):
    """As on a platform without O_TMPFILE."""

    @pytest.fixture
    async def reopen(self, tmp_path: Path) -> AsyncIterator[Callable[[], Awaitable[LocalStore]]]:
        async with stores(tmp_path, nameless=False) as reopen:
            yield reopen

    @pytest.fixture
    async def store(self, reopen: Callable[[], Awaitable[LocalStore]]) -> LocalStore:
        return await reopen()

    async def test_staged_blob_of_a_crash_is_among_the_keys(self, store: LocalStore, tmp_path: Path) -> None:
        (tmp_path / "incoming" / KEY).write_bytes(b"left behind")
        assert await keys(store) == {KEY: 11}
        await store.delete(KEY)
        assert await keys(store) == {}

    async def test_committed_blob_has_one_name(self, store: LocalStore, tmp_path: Path) -> None:
        await put(store, KEY)
        assert [path for path in tmp_path.glob("*/**/*") if path.is_file()] == [tmp_path / "blobs" / "00" / KEY]


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[LocalStore]:
    store = await open_local(tmp_path / "spool")
    yield store
    await store.aclose()


async def test_blobs_survive_a_reopening(tmp_path: Path) -> None:
    for _ in range(2):
        store = await open_local(tmp_path)
        if not await keys(store):
            await put(store, KEY)
        assert await content(store, KEY) == b"data"
        await store.aclose()


async def test_everything_is_for_its_owner_only(store: LocalStore, tmp_path: Path) -> None:
    await put(store, KEY)
    assert store.lock()
    for path in (tmp_path / "spool").rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path


async def test_blob_that_is_a_symbolic_link_is_not_followed(store: LocalStore, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    (tmp_path / "spool" / "blobs" / "00" / KEY).symlink_to(secret)
    with pytest.raises(SpoolError):
        await store.open(KEY)
    await store.delete(KEY)
    assert secret.read_text() == "secret"


async def test_shard_that_is_a_symbolic_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "00").symlink_to(tmp_path)
    with pytest.raises(Unavailable):
        await open_local(tmp_path)


async def test_directory_is_locked_by_one(tmp_path: Path) -> None:
    first, second = await open_local(tmp_path), await open_local(tmp_path)
    assert first.lock()
    assert not second.lock()
    await first.aclose()
    assert second.lock()
    await second.aclose()


async def test_missing_blob_is_not_found(store: LocalStore) -> None:
    with pytest.raises(NotFound):
        await store.open(KEY)


@pytest.mark.parametrize(
    ("number", "error"), [(errno.ENOSPC, StorageFull), (errno.EDQUOT, StorageFull), (errno.EIO, Unavailable)]
)
@pytest.mark.parametrize("call", ["writev", "fsync", "link"])
async def test_failing_disk_is_reported_and_leaves_nothing(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, call: str, number: int, error: type[SpoolError]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as disk:
        disk.setattr(os, call, fail)
        with pytest.raises(error):
            await put(store, KEY)
    await store.delete(KEY)
    assert await keys(store) == {}
    await put(store, KEY)


async def test_short_writes_are_carried_on(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.writev

    def write_little(fd: int, buffers: list[bytes]) -> int:
        return write(fd, [b"".join(buffers)[:7]])

    monkeypatch.setattr(os, "writev", write_little)
    await put(store, KEY, bytes(range(256)))
    assert await content(store, KEY) == bytes(range(256))


async def test_commits_of_one_time_share_the_fsync_of_their_directory(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    import asyncio  # noqa: PLC0415

    from spool.model import Key  # noqa: PLC0415

    names = [Key(f"00{n:030x}") for n in range(50)]
    staged = [await stage(store, key, [b"data"]) for key in names]
    synced: list[int] = []
    fsync = os.fsync

    def count(fd: int) -> None:
        synced.append(fd)
        fsync(fd)

    monkeypatch.setattr(os, "fsync", count)
    await asyncio.gather(*(store.commit(key, at) for key, at in zip(names, staged, strict=True)))
    assert 1 <= len(synced) <= 5
