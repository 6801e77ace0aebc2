from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from spool.catalog import Catalog
from spool.errors import Damaged, NotFound, Unavailable
from spool.labels import parse_label
from spool.model import FileId, FileQuery
from tests.store.blobstore_suite import keys, put
from tests.store.index_suite import a_file

if TYPE_CHECKING:
    from spool.model import File, Key
    from spool.store import LocalStore, SqliteIndex

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
NOWHERE = FileId("nowhere")


@pytest.fixture
def catalog(blobs: LocalStore, index: SqliteIndex) -> Catalog:
    return Catalog(blobs, index, lambda: NOON)


def stored(name: str, age: int = 0, **changes: object) -> File:
    """A file `age` minutes old, with a key that the store takes."""
    key = f"00{name.encode().hex():0>30}"
    return a_file(name, **{"key": key, "created_at": NOON - age * MINUTE, **changes})


async def names(catalog: Catalog, query: FileQuery | None = None) -> list[str]:
    return [file.filename async for file in catalog.walk(query or FileQuery())]


async def test_file_is_found_by_its_id(catalog: Catalog, index: SqliteIndex) -> None:
    await index.finish([stored("a")])
    assert await catalog.file(stored("a").id) == stored("a")


async def test_file_that_never_was_is_not_found(catalog: Catalog) -> None:
    with pytest.raises(NotFound):
        await catalog.file(NOWHERE)


async def test_file_is_opened(catalog: Catalog, blobs: LocalStore) -> None:
    await put(blobs, stored("a").key, b"bytes")
    assert await catalog.open(replace(stored("a"), size=5)) == b"bytes"
    blob = await catalog.open(replace(stored("a"), size=100_000))
    assert not isinstance(blob, bytes)
    with blob:
        assert blob.read() == b"bytes"


@pytest.mark.parametrize("size", [0, 4, 6])
async def test_small_file_that_is_not_whole_is_damaged(catalog: Catalog, blobs: LocalStore, size: int) -> None:
    await put(blobs, stored("a").key, b"bytes")
    with pytest.raises(Damaged):
        await catalog.open(replace(stored("a"), size=size))


async def test_file_whose_bytes_are_gone_is_damaged(catalog: Catalog, index: SqliteIndex) -> None:
    await index.finish([stored("a")])
    with pytest.raises(Damaged):
        await catalog.open(stored("a"))


async def test_file_that_was_deleted_meanwhile_is_not_found(catalog: Catalog) -> None:
    with pytest.raises(NotFound):
        await catalog.open(stored("a"))


async def test_walk_meets_every_file_newest_first(catalog: Catalog, index: SqliteIndex) -> None:
    await index.finish([stored(f"f{age}", age) for age in range(25)])
    assert await names(catalog, FileQuery(limit=10)) == [f"f{age}.jpg" for age in range(25)]


async def test_page_says_where_the_next_begins(catalog: Catalog, index: SqliteIndex) -> None:
    await index.finish([stored(f"f{age}", age) for age in range(3)])
    page = await catalog.files(FileQuery(limit=2))
    assert [file.filename for file in page.items] == ["f0.jpg", "f1.jpg"]
    page = await catalog.files(FileQuery(limit=2, cursor=page.next))
    assert [file.filename for file in page.items] == ["f2.jpg"]
    assert page.next is None


async def test_latest_is_the_newest_that_matches(catalog: Catalog, index: SqliteIndex) -> None:
    await index.finish([stored("a", 2), stored("b", 1), stored("c", media_type="audio/mpeg")])
    assert (await catalog.latest(FileQuery(media_type="image/*"))).filename == "b.jpg"


async def test_latest_passes_over_pages_of_expired_files(catalog: Catalog, index: SqliteIndex) -> None:
    await index.finish([stored(f"gone{n}", n, expires_at=NOON) for n in range(5)] + [stored("here", 9)])
    assert (await catalog.latest(FileQuery(limit=2))).filename == "here.jpg"


async def test_latest_of_nothing_is_not_found(catalog: Catalog, index: SqliteIndex) -> None:
    await index.finish([stored("a")])
    with pytest.raises(NotFound):
        await catalog.latest(FileQuery(media_type="video/*"))


@pytest.mark.parametrize("expires_at", [NOON, NOON - MINUTE])
async def test_expired_file_is_not_there_though_it_was_not_swept(
    catalog: Catalog, index: SqliteIndex, expires_at: datetime
) -> None:
    await index.finish([stored("a", expires_at=expires_at), stored("b")])
    with pytest.raises(NotFound):
        await catalog.file(stored("a").id)
    assert await names(catalog) == ["b.jpg"]


async def test_file_is_there_until_it_expires(catalog: Catalog, index: SqliteIndex) -> None:
    await index.finish([stored("a", expires_at=NOON + timedelta(microseconds=1))])
    assert await names(catalog) == ["a.jpg"]


async def test_page_of_expired_files_is_empty_and_has_a_next(catalog: Catalog, index: SqliteIndex) -> None:
    await index.finish([stored(f"gone{n}", n, expires_at=NOON) for n in range(2)] + [stored("here", 9)])
    page = await catalog.files(FileQuery(limit=2))
    assert page.items == ()
    assert page.next is not None


async def test_record_is_changed(catalog: Catalog, index: SqliteIndex) -> None:
    await index.finish([stored("a")])
    changed = await catalog.annotate(stored("a").id, lambda file: replace(file, filename="b.jpg"), None)
    assert changed.filename == "b.jpg"
    assert await catalog.file(stored("a").id) == changed


async def test_record_of_an_expired_file_cannot_be_changed(catalog: Catalog, index: SqliteIndex) -> None:
    await index.finish([stored("a", expires_at=NOON)])
    with pytest.raises(NotFound):
        await catalog.annotate(stored("a").id, lambda file: replace(file, expires_at=None), None)
    assert (await index.file(stored("a").id)).expires_at == NOON


async def test_deleted_file_is_gone_with_its_bytes(catalog: Catalog, index: SqliteIndex, blobs: LocalStore) -> None:
    await put(blobs, stored("a").key)
    await index.finish([stored("a")])
    assert await catalog.delete(stored("a").id, None) == stored("a")
    assert await names(catalog) == []
    assert await keys(blobs) == {}


async def test_file_can_be_deleted_once(catalog: Catalog, index: SqliteIndex) -> None:
    await index.finish([stored("a")])
    await catalog.delete(stored("a").id, None)
    with pytest.raises(NotFound):
        await catalog.delete(stored("a").id, None)


async def test_file_is_gone_though_its_bytes_stay_behind(blobs: LocalStore, index: SqliteIndex) -> None:
    class Undeletable:
        def __getattr__(self, name: str) -> Any:  # whatever the store has
            return getattr(blobs, name)

        async def delete(self, key: Key) -> None:
            raise Unavailable(f"{key} cannot be deleted")

    catalog = Catalog(Undeletable(), index, lambda: NOON)
    await put(blobs, stored("a").key)
    await index.finish([stored("a")])
    with pytest.raises(Unavailable):
        await catalog.delete(stored("a").id, None)
    assert await names(catalog) == []


async def test_deleting_one_of_two_that_share_a_blob_leaves_the_other(
    catalog: Catalog, index: SqliteIndex, blobs: LocalStore
) -> None:
    one, two = replace(stored("a"), size=5), replace(stored("b"), key=stored("a").key, size=5)
    await put(blobs, one.key, b"bytes")
    await blobs.label(one.key, one.id, b"label")
    await index.finish([one, two])
    await catalog.delete(one.id, None)
    assert await catalog.open(two) == b"bytes"
    assert await blobs.labels(one.key) == []
    await catalog.delete(two.id, None)
    assert await keys(blobs) == {}


async def test_damaged_file_is_listed_but_not_readable(catalog: Catalog, index: SqliteIndex) -> None:
    await index.finish([stored("a")])
    await index.mark(stored("a").key, "digest")
    assert (await catalog.file(stored("a").id)).damage == "digest"
    with pytest.raises(Damaged) as raised:
        await catalog.readable(stored("a").id)
    assert raised.value.members == {"damage": "digest"}


async def test_changed_record_is_on_its_label(catalog: Catalog, index: SqliteIndex, blobs: LocalStore) -> None:
    await put(blobs, stored("a").key, b"bytes")
    await index.finish([stored("a")])
    changed = await catalog.annotate(stored("a").id, lambda file: replace(file, filename="b.jpg"), None)
    assert [parse_label(label, changed.key) for label in await blobs.labels(changed.key)] == [changed]
