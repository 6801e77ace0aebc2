from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from spool.catalog import Catalog
from spool.errors import NotFound
from spool.model import FileQuery
from spool.work import expiry
from tests.store.blobstore_suite import keys, put
from tests.store.index_suite import a_file

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spool.model import File
    from spool.store import LocalStore, SqliteIndex

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
TICK = timedelta(microseconds=1)


@pytest.fixture
def catalog(blobs: LocalStore, index: SqliteIndex) -> Catalog:
    return Catalog(blobs, index, lambda: NOON)


def expiring(number: int, expires_at: datetime | None) -> File:
    return a_file(f"f{number}", key=f"00{number:030x}", expires_at=expires_at)


async def left(index: SqliteIndex) -> list[str]:
    return sorted(file.filename for file in (await index.files(FileQuery())).items)


async def test_expired_file_is_deleted_with_its_bytes(catalog: Catalog, index: SqliteIndex, blobs: LocalStore) -> None:
    file = expiring(1, NOON)
    await put(blobs, file.key)
    await index.finish([file])
    assert await expiry.run_once(catalog, index, lambda: NOON) == 1
    assert await left(index) == []
    assert await keys(blobs) == {}


async def test_file_that_has_not_expired_stays(catalog: Catalog, index: SqliteIndex) -> None:
    await index.finish([expiring(1, None), expiring(2, NOON + TICK), expiring(3, NOON - TICK)])
    assert await expiry.run_once(catalog, index, lambda: NOON) == 1
    assert await left(index) == ["f1.jpg", "f2.jpg"]


async def test_more_files_than_one_lot_are_all_deleted(catalog: Catalog, index: SqliteIndex) -> None:
    await index.finish([expiring(number, NOON) for number in range(250)])
    assert await expiry.run_once(catalog, index, lambda: NOON) == 250
    assert await left(index) == []


async def test_nothing_expired_is_nothing_done(catalog: Catalog, index: SqliteIndex) -> None:
    assert await expiry.run_once(catalog, index, lambda: NOON) == 0


async def test_file_that_somebody_else_deleted_is_passed_over(catalog: Catalog, index: SqliteIndex) -> None:
    class Contested:
        """Somebody else deletes the first file of every lot."""

        def __getattr__(self, name: str) -> Any:  # whatever the index has
            return getattr(index, name)

        async def expired(self, now: datetime, limit: int) -> Sequence[File]:
            lot = await index.expired(now, limit)
            if lot:
                await index.remove(lot[0].id)
            return lot

    await index.finish([expiring(number, NOON) for number in range(3)])
    assert await expiry.run_once(catalog, Contested(), lambda: NOON) == 2
    with pytest.raises(NotFound):
        await index.file(expiring(0, NOON).id)
    assert await left(index) == []


async def test_each_expired_file_is_logged(
    catalog: Catalog, index: SqliteIndex, caplog: pytest.LogCaptureFixture
) -> None:
    await index.finish([expiring(1, NOON)])
    with caplog.at_level("INFO", "spool.work.expiry"):
        await expiry.run_once(catalog, index, lambda: NOON)
    assert [(record.msg, record.args) for record in caplog.records] == [
        ("file.expired", {"id": "id-f1", "size": 100}),
    ]
