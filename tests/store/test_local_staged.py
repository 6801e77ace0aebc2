from __future__ import annotations

import asyncio
import errno
import os
import stat
from typing import TYPE_CHECKING

import pytest

from spool.errors import NotFound, SpoolError, StorageFull, Unavailable
from spool.model import Staged
from spool.store.local import LocalStore, open_local
from spool.store.local import staged as local_staged

from .blobstore_suite import KEY, OTHER, content, keys, put, stage
from .resuming_suite import MIB, NEW

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[LocalStore]:
    store = await open_local(tmp_path)
    yield store
    await store.aclose()


class Fsyncs:
    """Which files and how many directories were fsynced; those of a kind can be made to fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._fsync = os.fsync
        self.directories: list[int] = []
        self.files = 0
        self.failing: str | None = None
        monkeypatch.setattr(os, "fsync", self)

    def __call__(self, fd: int) -> None:
        kind = "directory" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file"
        if kind == self.failing:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        if kind == "directory":
            self.directories.append(os.fstat(fd).st_ino)
        else:
            self.files += 1
        self._fsync(fd)


@pytest.fixture
def fsyncs(monkeypatch: pytest.MonkeyPatch) -> Fsyncs:
    return Fsyncs(monkeypatch)


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.glob("*/**/*") if path.is_file())


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


# crashes


async def test_synced_bytes_outlive_a_process_that_closes_nothing(tmp_path: Path) -> None:
    crashed = await open_local(tmp_path)
    writer = await crashed.writer(KEY, NEW)
    await writer.write([b"data"])
    at = await writer.sync()
    await writer.write([b"garbage"])
    await writer.write([b""])  # the garbage is in the file
    store = await open_local(tmp_path)
    at = await stage(store, KEY, [b"!"], at=at)
    await store.commit(KEY, at)
    assert await content(store, KEY) == b"data!"
    await store.aclose()
    await writer.aclose()
    await crashed.aclose()


async def test_a_crash_between_link_and_unlink_is_healed_by_the_next_commit(tmp_path: Path) -> None:
    store = await open_local(tmp_path)
    at = await stage(store, KEY, [b"data"], at=NEW)
    os.link(tmp_path / "incoming" / KEY, tmp_path / "blobs" / "00" / KEY)
    with pytest.raises(Unavailable):
        await store.writer(KEY, at)  # it would write to a live blob
    for wrong in (Staged(3), Staged(5)):
        with pytest.raises(Unavailable):
            await store.commit(KEY, wrong)
    assert await content(store, KEY) == b"data"
    await store.commit(KEY, at)
    assert files(tmp_path) == [f"blobs/00/{KEY}"]
    await store.aclose()


async def test_a_commit_whose_directory_cannot_be_synced_is_done_anew(
    store: LocalStore, fsyncs: Fsyncs, tmp_path: Path
) -> None:
    at = await stage(store, KEY, [b"data"], at=NEW)
    fsyncs.failing = "directory"
    with pytest.raises(Unavailable):
        await store.commit(KEY, at)
    assert files(tmp_path) == [f"incoming/{KEY}"]
    with pytest.raises(NotFound):
        await store.open(KEY)
    fsyncs.failing = None
    await store.commit(KEY, at)
    assert await content(store, KEY) == b"data"


async def test_a_live_blob_stays_though_its_directory_cannot_be_synced_again(store: LocalStore, fsyncs: Fsyncs) -> None:
    await put(store, KEY)
    fsyncs.failing = "directory"
    with pytest.raises(Unavailable):
        await store.commit(KEY, Staged(4))
    assert await content(store, KEY) == b"data"


async def test_a_file_of_another_size_is_not_made_live(store: LocalStore, tmp_path: Path) -> None:
    at = await stage(store, KEY, [b"data"], at=NEW)
    os.truncate(tmp_path / "incoming" / KEY, 3)
    with pytest.raises(Unavailable):
        await store.commit(KEY, at)
    assert files(tmp_path) == [f"incoming/{KEY}"]


# syncing


async def test_the_name_is_made_durable_once_by_the_first_sync(store: LocalStore, fsyncs: Fsyncs) -> None:
    writer = await store.writer(KEY, NEW)
    await writer.write([b"data"])
    assert (fsyncs.files, len(fsyncs.directories)) == (0, 0)
    at = await writer.sync()
    assert (fsyncs.files, len(fsyncs.directories)) == (1, 1)
    await writer.sync()
    await writer.aclose()
    await stage(store, KEY, [b"more"], at=at)
    assert (fsyncs.files, len(fsyncs.directories)) == (3, 1)


async def test_a_name_that_no_sync_has_made_durable_is_made_so_by_the_next_writer(
    store: LocalStore, fsyncs: Fsyncs
) -> None:
    writer = await store.writer(KEY, NEW)
    await writer.aclose()
    await stage(store, KEY, [b"data"], at=NEW)
    assert len(fsyncs.directories) == 1


async def test_commit_of_a_closed_blob_syncs_it_before_it_is_live(store: LocalStore, fsyncs: Fsyncs) -> None:
    at = await stage(store, KEY, [b"data"], at=NEW)
    before = fsyncs.files
    fsyncs.failing = "file"
    with pytest.raises(Unavailable):
        await store.commit(KEY, at)
    with pytest.raises(NotFound):
        await store.open(KEY)
    fsyncs.failing = None
    await store.commit(KEY, at)
    assert fsyncs.files == before + 1


@pytest.mark.parametrize("at", [None, NEW])
@pytest.mark.parametrize("kind", ["file", "directory"])
async def test_a_sync_that_failed_is_not_tried_again(
    store: LocalStore, fsyncs: Fsyncs, at: Staged | None, kind: str
) -> None:
    if (at, kind) == (None, "directory"):
        return  # a nameless file needs none
    writer = await store.writer(KEY, at)
    await writer.write([b"data"])
    fsyncs.failing = kind
    with pytest.raises(Unavailable):
        await writer.sync()
    fsyncs.failing = None
    with pytest.raises(Unavailable):
        await writer.sync()
    await writer.aclose()
    with pytest.raises(SpoolError):
        await store.commit(KEY, Staged(5))


async def test_a_file_that_lost_its_name_is_not_synced(store: LocalStore, tmp_path: Path) -> None:
    writer = await store.writer(KEY, NEW)
    (tmp_path / "incoming" / KEY).unlink()
    await writer.write([b"data"])
    with pytest.raises(Unavailable):
        await writer.sync()
    await writer.aclose()


# write-back


class Ranges:
    """What the kernel was told to write out."""

    def __init__(self) -> None:
        self.told: list[tuple[int, int]] = []

    def __call__(self, _: int, start: int, size: int, flags: int) -> int:
        assert flags == 2
        self.told.append((start, size))
        return 0


@pytest.mark.parametrize("at", [None, NEW])
async def test_write_back_begins_after_every_8_mib(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, at: Staged | None
) -> None:
    ranges = Ranges()
    monkeypatch.setattr(local_staged, "sync_file_range", ranges)
    at = await stage(store, KEY, *[[b"x" * 3 * MIB]] * 7, at=at)
    assert ranges.told == [(0, 9 * MIB), (9 * MIB, 9 * MIB)]


async def test_write_back_goes_on_where_a_resumed_blob_does(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    at = await stage(store, KEY, [b"x" * 5 * MIB], at=NEW)
    ranges = Ranges()
    monkeypatch.setattr(local_staged, "sync_file_range", ranges)
    await stage(store, KEY, *[[b"x" * 4 * MIB]] * 2, at=at)
    assert ranges.told == [(5 * MIB, 8 * MIB)]


async def test_write_back_begins_for_what_is_absorbed(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    end = await stage(store, OTHER, [b"x" * 20 * MIB], at=NEW)
    ranges = Ranges()
    monkeypatch.setattr(local_staged, "sync_file_range", ranges)
    writer = await store.writer(KEY, NEW)
    await writer.absorb(OTHER, end)
    await writer.aclose()
    assert [start for start, _ in ranges.told] == [0, *(start + size for start, size in ranges.told)][:-1]
    assert sum(size for _, size in ranges.told) > 12 * MIB


@pytest.mark.skipif(local_staged.sync_file_range is None, reason="this platform cannot begin write-back")
async def test_the_kernel_knows_what_it_is_told(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file:
        file.write(b"x" * MIB)
        file.flush()
        assert local_staged.sync_file_range(file.fileno(), 0, MIB, 2) == 0


async def test_a_platform_that_cannot_begin_write_back_does_without(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_staged, "sync_file_range", None)
    await put(store, KEY, b"x" * 9 * MIB)
    assert (await keys(store))[KEY] == 9 * MIB


@pytest.mark.parametrize(
    ("number", "error"),
    [(errno.ENOSPC, StorageFull), (errno.EIO, Unavailable), (errno.ENOSYS, None), (errno.ESPIPE, None)],
)
async def test_what_write_back_reports_is_an_error_of_the_write(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, number: int, error: type[SpoolError] | None
) -> None:
    def fail(*_: int) -> int:
        import ctypes  # noqa: PLC0415

        ctypes.set_errno(number)
        return -1

    monkeypatch.setattr(local_staged, "sync_file_range", fail)
    if error is None:
        await put(store, KEY, b"x" * 9 * MIB)
    else:
        with pytest.raises(error):
            await put(store, KEY, b"x" * 9 * MIB)


# closing


@pytest.mark.parametrize("earlier", [False, True])
async def test_a_blob_that_was_closed_before_it_opened_stays_closed(tmp_path: Path, earlier: bool) -> None:  # noqa: FBT001
    folder = os.open(tmp_path, os.O_RDONLY)
    first = local_staged.LastingBlob(KEY, folder, 0, None)
    first.open()
    blob = local_staged.LastingBlob(KEY, folder, 0, first if earlier else None)
    blob.close()
    with pytest.raises(Unavailable):
        blob.open()
    assert (first.stat() is None) == earlier
    first.close()
    os.close(folder)


# descriptors


async def test_a_resumable_blob_holds_no_descriptor_between_its_writers(store: LocalStore) -> None:
    await stage(store, OTHER, [b"data"], at=NEW)
    before = descriptors()
    at = NEW
    for _ in range(5):
        await stage(store, KEY, [b"data"], at=at)
        writer = await store.writer(KEY, at)
        await writer.absorb(OTHER, Staged(4))
        at = await writer.sync()
        await writer.aclose()
    with pytest.raises(Unavailable):
        await store.writer(KEY, Staged(99))
    await store.commit(KEY, at)
    assert descriptors() == before


@pytest.mark.parametrize("at", [None, NEW])
async def test_a_writer_that_was_cancelled_while_it_opened_holds_no_descriptor(
    store: LocalStore, at: Staged | None
) -> None:
    await stage(store, OTHER, [b"data"], at=NEW)
    before = descriptors()
    for _ in range(20):
        opening = asyncio.ensure_future(store.writer(KEY, at))
        await asyncio.sleep(0)
        opening.cancel()
        await asyncio.wait([opening])
    await store.delete(KEY)
    assert descriptors() == before


# one at a time


async def test_nobody_writes_to_what_is_being_committed(store: LocalStore) -> None:
    at = await stage(store, KEY, [b"data"], at=NEW)
    commit = asyncio.ensure_future(store.commit(KEY, at))
    await asyncio.sleep(0)
    with pytest.raises(Unavailable):
        await store.writer(KEY, NEW)
    await commit
    assert await content(store, KEY) == b"data"


async def test_a_commit_that_was_asked_for_is_done_before_the_store_closes(tmp_path: Path) -> None:
    store = await open_local(tmp_path)
    at = await stage(store, KEY, [b"data"], at=NEW)
    commit = asyncio.ensure_future(store.commit(KEY, at))
    await asyncio.sleep(0)
    await store.aclose()
    await commit
    assert files(tmp_path) == [f"blobs/00/{KEY}"]


async def test_a_closed_store_keeps_what_outlives_a_crash_and_drops_the_rest(tmp_path: Path) -> None:
    store = await open_local(tmp_path, nameless=False)
    await stage(store, OTHER, [b"data"])
    writer = await store.writer(KEY, NEW)
    await writer.write([b"data"])
    await writer.sync()
    await store.aclose()
    assert files(tmp_path) == [f"incoming/{KEY}"]


async def test_the_names_of_a_resumable_blob_are_its_owner_s_alone(store: LocalStore, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        at = await stage(store, KEY, [b"data"], at=NEW)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "incoming" / KEY).stat().st_mode) == 0o600
    await store.commit(KEY, at)
    assert stat.S_IMODE((tmp_path / "blobs" / "00" / KEY).stat().st_mode) == 0o600


async def test_a_staged_blob_that_is_a_symbolic_link_is_not_followed(store: LocalStore, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    (tmp_path / "incoming" / KEY).symlink_to(secret)
    for ask in (store.writer(KEY, Staged(3)), store.writer(KEY, NEW), store.commit(KEY, Staged(6))):
        with pytest.raises(SpoolError):
            await ask
    with pytest.raises(SpoolError):
        await store.open(KEY, staged=True)
    assert secret.read_text() == "secret"


async def test_blob_whose_close_fails_can_still_be_committed(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    close, reused = os.close, -1

    def fail(fd: int) -> None:
        nonlocal reused
        close(fd)  # which the system does even then
        reused = os.dup(store.owned_by())
        assert reused == fd
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    writer = await store.writer(KEY, NEW)
    await writer.write([b"whole"])
    at = await writer.sync()
    with monkeypatch.context() as disk:
        disk.setattr(os, "close", fail)
        with pytest.raises(Unavailable):
            await writer.aclose()
    await store.commit(KEY, at)
    assert await content(store, KEY) == b"whole"
    close(reused)  # nobody has closed another's descriptor
