"""Deletion that can be undone: whatever else runs, a hidden file stays whole for its grace, and then it is gone."""

from __future__ import annotations

import hashlib
import os
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from spool.catalog import Catalog
from spool.errors import NotFound, Unavailable
from spool.labels import to_label
from spool.model import By, FileId, FileQuery, Key
from spool.store import open_index
from spool.work import expiry, gc, reindex, scrub
from spool.work.fsck import Fsck
from tests.process import lacking
from tests.store.blobstore_suite import keys, put
from tests.store.index_suite import a_file

if TYPE_CHECKING:
    from pathlib import Path

    from spool.model import File, Finding
    from spool.store import LocalStore, SqliteIndex

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
EVER = datetime.max.replace(tzinfo=UTC)
GRACE = timedelta(minutes=10)
ADA = By("ada", "http", NOON, None)
DATA = b"what was uploaded"
KEY = Key("5a" + "0" * 30)


class Bench:
    """A spool, and the time there."""

    def __init__(self, blobs: LocalStore, index: SqliteIndex) -> None:
        self.blobs = blobs
        self.index = index
        self.now = NOON
        self.catalog = Catalog(blobs, index, lambda: self.now)

    async def add(self, name: str, key: Key = KEY) -> File:
        file = a_file(name, key=key, size=len(DATA), sha256=hashlib.sha256(DATA).hexdigest())
        if key not in await keys(self.blobs):
            await put(self.blobs, key, DATA)
        await self.index.finish([file])
        return file

    async def hide(self, name: str = "a") -> File:
        file = await self.add(name)
        await self.catalog.hide(file.id, GRACE, ADA)
        return file

    async def sweep(self) -> None:
        await expiry.run_once(self.catalog, self.index, lambda: self.now)
        await gc.run_once(self.blobs, self.index, gc.nobody, EVER)

    async def check(self, *, deep: bool = True) -> list[Finding]:
        return [finding async for finding in Fsck(self.blobs, self.index, deep=deep, repair=True).run()]

    async def require_whole(self, file: File) -> None:
        """It comes back, as it was."""
        assert await self.catalog.restore(file.id, ADA) == file
        assert await self.catalog.file(file.id) == file
        assert await self.catalog.open(file) == DATA
        assert await self.check() == []


@pytest.fixture
def bench(blobs: LocalStore, index: SqliteIndex) -> Bench:
    return Bench(blobs, index)


async def test_hidden_file_is_not_there_and_comes_back_whole(bench: Bench) -> None:
    file = await bench.hide()
    with pytest.raises(NotFound):
        await bench.catalog.file(file.id)
    assert (await bench.catalog.files(FileQuery())).items == ()
    await bench.require_whole(file)


async def test_sweep_leaves_it_whole_until_its_grace_is_over(bench: Bench) -> None:
    file = await bench.hide()
    bench.now += GRACE - timedelta(microseconds=1)
    await bench.sweep()
    await bench.require_whole(file)


async def test_sweep_deletes_it_when_its_grace_is_over(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    file = await bench.hide()
    bench.now += GRACE
    with caplog.at_level("INFO", "spool.work.expiry"):
        await expiry.run_once(bench.catalog, bench.index, lambda: bench.now)
    assert [(record.msg, record.args) for record in caplog.records] == [
        ("file.ended", {"id": "id-a", "size": len(DATA)}),
    ]
    assert await keys(bench.blobs) == {}
    with pytest.raises(NotFound):
        await bench.catalog.restore(file.id, ADA)


async def test_many_are_all_deleted(bench: Bench) -> None:
    for n in range(250):
        await bench.hide(f"{n}")
    bench.now += GRACE
    await bench.sweep()
    assert await bench.index.hidden(NOON, 1000) == []


async def test_check_finds_nothing_wrong_and_repairs_nothing(bench: Bench) -> None:
    file = await bench.hide()
    assert await bench.check() == await bench.check(deep=False) == []
    await bench.require_whole(file)


async def test_scrub_leaves_it(bench: Bench) -> None:
    file = await bench.hide()
    await scrub.run_once(bench.blobs, bench.index, lambda: EVER, timedelta(days=1))
    await bench.require_whole(file)


async def test_deleting_another_that_shares_its_blob_leaves_it_whole(bench: Bench) -> None:
    file, other = await bench.hide("a"), await bench.add("b")
    await bench.catalog.delete(other.id, ADA)
    await bench.require_whole(file)


async def test_its_end_leaves_another_that_shares_its_blob(bench: Bench) -> None:
    file, other = await bench.hide("a"), await bench.add("b")
    await bench.blobs.label(KEY, file.id, b"label")
    bench.now += GRACE
    await bench.sweep()
    assert await bench.catalog.open(other) == DATA
    assert await bench.blobs.labels(KEY) == []


async def test_deletion_for_good_does_not_wait(bench: Bench) -> None:
    file = await bench.hide()
    assert await bench.catalog.delete(file.id, ADA) == file
    assert await keys(bench.blobs) == {}
    with pytest.raises(NotFound):
        await bench.catalog.restore(file.id, ADA)


async def test_crash_between_its_row_and_its_blob_leaves_only_what_a_sweep_takes(bench: Bench) -> None:
    class Undeletable:
        def __getattr__(self, name: str) -> Any:  # whatever the store has
            return getattr(bench.blobs, name)

        async def delete(self, key: Key) -> None:
            raise Unavailable(f"{key} cannot be deleted")

    await bench.hide()
    with pytest.raises(Unavailable):
        await Catalog(Undeletable(), bench.index, lambda: NOON + GRACE).end_hidden(100)
    assert await bench.index.hidden(NOON, 100) == []
    assert await keys(bench.blobs) == {KEY: len(DATA)}
    await bench.sweep()
    assert await keys(bench.blobs) == {}


async def test_index_that_is_lost_meanwhile_does_not_cost_it(bench: Bench, tmp_path: Path) -> None:
    try:
        os.setxattr(tmp_path, "user.spool.try", b"")
    except OSError:
        lacking("the file system of the temporary directory has no extended attributes")
    file = await bench.add("a")
    await bench.blobs.label(KEY, file.id, to_label(file).text)
    await bench.catalog.hide(file.id, GRACE, ADA)
    (tmp_path / "other").mkdir()
    index = await open_index(tmp_path / "other")
    rebuilt = await reindex.run_once(bench.blobs, index, _Sniffer(), print, deep=True)
    assert (rebuilt.files, rebuilt.recovered, rebuilt.findings) == (1, 0, 0)
    assert await index.file(FileId("id-a")) == file
    await index.aclose()


class _Sniffer:
    async def sniff(self, head: bytes) -> str:
        return "text/plain" if head else "application/octet-stream"
