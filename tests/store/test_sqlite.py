from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import sqlite3
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from spool.errors import BadRequest, StorageFull, Unavailable
from spool.model import File, FileId, FileQuery, GrantId, Key, Usage
from spool.store.cursor import Position, to_cursor
from spool.store.sqlite import SqliteIndex, open_sqlite

from .index_suite import DAY, NOON, TICK, IndexSuite, a_file, a_token, an_answer, listed, walk
from .sight import Sight
from .uploads_suite import UploadsSuite

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path


class TestSqliteIndex(IndexSuite):
    @pytest.fixture
    async def index(self, tmp_path: Path) -> AsyncIterator[SqliteIndex]:
        index = await open_sqlite(tmp_path / "index.db")
        yield index
        await index.aclose()


class TestSqliteIndexWithShortPages(IndexSuite):
    @pytest.fixture
    async def index(self, tmp_path: Path) -> AsyncIterator[SqliteIndex]:
        index = await open_sqlite(tmp_path / "index.db", scan=3)
        yield index
        await index.aclose()


class TestSqliteUploads(UploadsSuite):
    @pytest.fixture
    async def index(self, tmp_path: Path) -> AsyncIterator[SqliteIndex]:
        index = await open_sqlite(tmp_path / "index.db")
        yield index
        await index.aclose()


@pytest.fixture
def sight() -> Sight:
    return Sight()


@pytest.fixture
async def index(tmp_path: Path, sight: Sight) -> AsyncIterator[SqliteIndex]:
    index = await open_sqlite(tmp_path / "index.db", scan=20, connected=sight)
    yield index
    await index.aclose()


def limit_pages(pages: int) -> Callable[[sqlite3.Connection], object]:
    return lambda connection: connection.execute(f"PRAGMA max_page_count = {pages}")


def deny_commits(action: int, operation: str | None, *_: object) -> int:
    denied = action == sqlite3.SQLITE_TRANSACTION and operation == "COMMIT"
    return sqlite3.SQLITE_DENY if denied else sqlite3.SQLITE_OK


def modes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}


async def finish_one_by_one(index: SqliteIndex, files: list[File], stored: list[File]) -> None:
    for file in files:
        await index.finish([file])
        stored.append(file)


# writing


async def test_calls_at_the_same_time_share_commits(index: SqliteIndex, sight: Sight) -> None:
    await asyncio.gather(*(index.finish([a_file(str(number))]) for number in range(200)))
    assert 1 <= sight.statements.count("COMMIT") <= 20


async def test_a_commit_that_fails_fails_its_lot_and_no_other(index: SqliteIndex, sight: Sight) -> None:
    sight.connections[0].set_authorizer(deny_commits)
    finishes = (index.finish([a_file(str(number))]) for number in range(3))
    outcomes = await asyncio.gather(*finishes, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [Unavailable] * 3
    assert await listed(index) == []
    sight.connections[0].set_authorizer(None)
    await index.finish([a_file("1")])
    assert await listed(index) == [a_file("1")]


async def test_a_commit_that_failed_is_overwritten_before_it_is_told_which_blobs_have_a_row(
    index: SqliteIndex, sight: Sight
) -> None:
    sight.connections[0].set_authorizer(deny_commits)
    with pytest.raises(Unavailable):
        await index.finish([a_file("1")])
    with pytest.raises(Unavailable):
        await index.referenced([a_file("1").key])
    sight.connections[0].set_authorizer(None)
    before = sight.connections[0].total_changes
    assert await index.referenced([a_file("1").key]) == set()
    assert sight.connections[0].total_changes > before


async def test_a_full_disk_refuses_new_files_and_keeps_the_rest(tmp_path: Path) -> None:
    index = await open_sqlite(tmp_path / "index.db", connected=limit_pages(60))
    files = [a_file(f"{number:04}", metadata={"note": "x" * 2_000}) for number in range(1_000)]
    stored: list[File] = []
    with pytest.raises(StorageFull):
        await finish_one_by_one(index, files, stored)
    assert await listed(index, FileQuery(descending=False)) == stored
    assert await index.usage("ada") == Usage(len(stored), 100 * len(stored))
    for file in stored[:20]:
        await index.remove(file.id)
    await index.finish([a_file("again")])
    await index.aclose()


async def test_a_full_disk_refuses_what_needs_room_and_not_what_is_beside_it(tmp_path: Path) -> None:
    index = await open_sqlite(tmp_path / "index.db", connected=limit_pages(60))
    await index.finish([a_file("1")])
    outcomes = await asyncio.gather(
        index.finish([a_file("2", metadata={"note": "x" * 1_000_000})]),
        index.remove(FileId("id-1")),
        return_exceptions=True,
    )
    assert [type(outcome) for outcome in outcomes] == [StorageFull, File]
    assert await listed(index) == []
    await index.aclose()


async def test_an_edit_that_raises_stop_iteration_keeps_nobody_waiting(index: SqliteIndex) -> None:
    await index.finish([a_file("1")])
    async with asyncio.timeout(60):
        outcomes = await asyncio.gather(
            index.annotate(FileId("id-1"), lambda _: next(iter(()))), index.probe(), return_exceptions=True
        )
    assert [type(outcome) for outcome in outcomes] == [RuntimeError, type(None)]


async def test_two_indexes_on_one_file_write_at_the_same_time(tmp_path: Path) -> None:
    server, command = [await open_sqlite(tmp_path / "index.db") for _ in range(2)]
    files = [a_file(f"{number:03}") for number in range(200)]
    await asyncio.gather(*((server, command)[number % 2].finish([file]) for number, file in enumerate(files)))
    assert await listed(server, FileQuery(descending=False)) == files
    assert await listed(command, FileQuery(descending=False)) == files
    await command.aclose()
    await server.remove(files[0].id)
    assert await server.usage("ada") == Usage(199, 19_900)
    await server.aclose()


# opening and closing


async def test_every_connection_is_durable_and_patient(index: SqliteIndex, sight: Sight) -> None:
    await index.probe()
    pragmas = "journal_mode", "synchronous", "foreign_keys", "busy_timeout", "journal_size_limit"
    settings = {
        tuple(connection.execute(f"PRAGMA {pragma}").fetchone()[0] for pragma in pragmas)
        for connection in sight.connections
    }
    assert len(sight.connections) == 5
    assert settings == {("wal", 2, 1, 10_000, 16 << 20)}


async def test_only_the_writer_can_write(index: SqliteIndex, sight: Sight) -> None:
    await index.probe()
    for reader in sight.connections[1:]:
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            reader.execute("DELETE FROM files")


async def test_the_files_are_their_owner_s_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        index = await open_sqlite(tmp_path / "index.db")
        await index.finish([a_file("1")])
        found = modes(tmp_path)
        await index.aclose()
    finally:
        os.umask(before)
    assert found == dict.fromkeys(["index.db", "index.db-wal", "index.db-shm", "index.db-reserve"], 0o600)


@pytest.mark.parametrize("name", ["index.db", "in dex?#%41.db"])
async def test_all_that_was_recorded_survives_reopening(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    index = await open_sqlite(path)
    await index.finish([a_file("1")], an_answer(a_file("1")))
    await index.add_token(a_token("1"), "hash-1")
    secret = await index.secret()
    await index.aclose()
    assert sorted(modes(tmp_path)) == [name, f"{name}-reserve"]
    index = await open_sqlite(path)
    assert await index.file(FileId("id-1")) == a_file("1")
    assert await index.answer("ada", "key-1", NOON) == an_answer(a_file("1"))
    assert await index.token("hash-1") == a_token("1")
    assert await index.usage("ada") == Usage(1, 100)
    assert await index.secret() == secret
    await index.aclose()


async def test_each_index_has_its_own_secret(tmp_path: Path) -> None:
    indexes = [await open_sqlite(tmp_path / name) for name in ("a.db", "b.db")]
    assert len({await index.secret() for index in indexes}) == 2
    for index in indexes:
        await index.aclose()


async def test_many_may_make_the_index_at_once(tmp_path: Path) -> None:
    for number in range(10):
        indexes = await asyncio.gather(*(open_sqlite(tmp_path / f"{number}.db") for _ in range(4)))
        assert len({await index.secret() for index in indexes}) == 1
        for index in indexes:
            await index.aclose()


async def test_a_new_index_waits_for_another_who_is_making_it(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "index.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        other.execute("CREATE TABLE other (id INTEGER)")
        opening = asyncio.ensure_future(open_sqlite(tmp_path / "index.db"))
        await asyncio.wait([opening], timeout=0.2)
        other.execute("COMMIT")
        await (await opening).aclose()


async def test_opening_waits_for_nobody_who_writes(tmp_path: Path) -> None:
    await (await open_sqlite(tmp_path / "index.db")).aclose()
    with closing(sqlite3.connect(tmp_path / "index.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        async with asyncio.timeout(60):
            index = await open_sqlite(tmp_path / "index.db")
            assert await listed(index) == []
        other.execute("ROLLBACK")
        await index.aclose()


async def test_the_index_of_a_newer_spool_is_refused(tmp_path: Path) -> None:
    await (await open_sqlite(tmp_path / "index.db")).aclose()
    with closing(sqlite3.connect(tmp_path / "index.db")) as connection:
        connection.execute("PRAGMA user_version = 1000")
    with pytest.raises(Unavailable, match="newer Spool: schema 1000"):
        await open_sqlite(tmp_path / "index.db")


async def test_a_file_that_is_no_index_is_refused(tmp_path: Path) -> None:
    (tmp_path / "index.db").write_bytes(b"not a database" * 1_000)
    with pytest.raises(Unavailable):
        await open_sqlite(tmp_path / "index.db")


async def test_an_index_in_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        await open_sqlite(tmp_path / "missing" / "index.db")


async def test_aclose_completes_even_if_the_caller_is_cancelled(tmp_path: Path) -> None:
    index = await open_sqlite(tmp_path / "index.db")
    caller = asyncio.ensure_future(index.aclose())
    await asyncio.sleep(0)  # it has begun
    caller.cancel()
    await asyncio.wait([caller])
    async with asyncio.timeout(60):
        while (tmp_path / "index.db-wal").exists():  # noqa: ASYNC110 - the last connection to close takes it away
            await asyncio.sleep(0.001)


# listing

RANGES = [{}, {"since": NOON}, {"until": NOON + DAY}, {"since": NOON - DAY, "until": NOON + DAY}]
FILTERS = [{}, {"q": "A"}, {"filename": "a*", "media_type": "image/*"}]
SORTS = ["created_at", "size", "filename"]
QUERIES = [
    FileQuery(limit=30, sort=sort, descending=descending, **bounds, **filters)
    for sort in SORTS
    for descending in (True, False)
    for bounds in RANGES
    for filters in FILTERS
]


@pytest.mark.parametrize("query", QUERIES, ids=str)
async def test_every_listing_is_a_walk_along_its_index(index: SqliteIndex, sight: Sight, query: FileQuery) -> None:
    await index.finish([a_file(f"a{number}") for number in range(40)])
    first = await index.files(replace(query, limit=3))
    sight.take()
    await index.files(query)
    await index.files(replace(query, cursor=first.next))
    filtered = query.q or query.filename or (query.sort != "created_at" and (query.since or query.until))
    plans = sight.plans()
    assert len(plans) == (4 if filtered else 2)
    for statement, steps in plans:
        [walk] = [step for step in steps if "files_by" in step]
        assert f" INDEX files_by_{query.sort}" in walk
        assert ("COVERING" in walk) == bool(filtered or "OFFSET" in statement)  # wide rows are fetched only to be given
        bounded = "WHERE (" in statement or (query.sort == "created_at" and (query.since or query.until))
        assert walk.startswith("SEARCH" if bounded else "SCAN")
        assert {step.split()[0] for step in steps} <= {"SEARCH", "SCAN", "CO-ROUTINE"}  # nothing is sorted or kept


@pytest.mark.parametrize("query", [FileQuery(descending=True), FileQuery(descending=False)], ids=str)
async def test_since_and_until_are_both_bounds_of_the_index(index: SqliteIndex, sight: Sight, query: FileQuery) -> None:
    await index.files(replace(query, since=NOON, until=NOON + DAY))
    [(_, [step])] = sight.plans()
    assert "created_at>" in step or "created_at,id)>" in step
    assert "created_at<" in step or "created_at,id)<" in step


@pytest.mark.parametrize("filters", [{}, {"q": "nothing like it"}, {"filename": "*9"}, {"media_type": "audio/*"}])
@pytest.mark.parametrize("sort", SORTS)
async def test_a_page_costs_the_same_however_many_files_there_are(
    index: SqliteIndex, sight: Sight, filters: dict[str, object], sort: str
) -> None:
    async def cost() -> int:
        return await sight.steps(index.files(FileQuery(limit=10, sort=sort, **filters)))

    await index.finish([a_file(f"a{number}") for number in range(50)])
    few = await cost()
    await index.finish([a_file(f"b{number}") for number in range(3_000)])
    assert await cost() <= few + 10


async def test_a_file_is_added_at_the_same_cost_however_many_have_its_size(index: SqliteIndex, sight: Sight) -> None:
    async def cost(name: str) -> int:
        return await sight.steps(index.finish([replace(a_file(name), sha256=digest_of(name))], share=True))

    await index.finish([replace(a_file(f"a{number}"), sha256=digest_of(f"a{number}")) for number in range(50)])
    few = await cost("b")
    await index.finish([replace(a_file(f"c{number}"), sha256=digest_of(f"c{number}")) for number in range(3_000)])
    assert await cost("d") <= few + 10


async def test_a_file_is_added_at_the_same_cost_however_many_have_its_bytes(index: SqliteIndex, sight: Sight) -> None:
    async def cost(name: str) -> int:
        return await sight.steps(index.finish([a_file(name)], share=True))

    await index.finish([a_file(f"a{number}") for number in range(50)], share=True)
    few = await cost("b")
    await index.finish([a_file(f"c{number}") for number in range(3_000)], share=True)
    assert await cost("d") <= few + 10


async def test_whether_a_blob_is_referenced_costs_the_same_however_many_files_have_it(
    index: SqliteIndex, sight: Sight
) -> None:
    async def cost() -> int:
        return await sight.steps(index.referenced([Key("key-1"), Key("key-x")]))

    await index.finish([a_file("1")])
    few = await cost()
    await index.finish([a_file(str(i), key="key-1") for i in range(2, 200)])
    assert await index.referenced([Key("key-1"), Key("key-x")]) == {"key-1"}
    assert await cost() < few + 10


@pytest.mark.parametrize(
    ("query", "pages"),
    [
        (FileQuery(limit=1, q="nothing"), 13),
        (FileQuery(limit=100, q="nothing"), 13),
        (FileQuery(limit=500, q="nothing"), 3),
        (FileQuery(limit=100, grant=GrantId("nobody"), sort="size"), 42),
        (FileQuery(limit=500, grant=GrantId("nobody"), sort="size"), 8),
    ],
    ids=str,
)
async def test_a_page_looks_at_more_the_more_it_may_hold_and_at_less_where_rows_are_fetched(
    index: SqliteIndex, query: FileQuery, pages: int
) -> None:
    await index.finish([a_file(f"{number}") for number in range(250)])
    assert len([page async for page in walk(index, query)]) == pages


async def test_a_page_that_looked_at_enough_is_short_and_goes_on(index: SqliteIndex) -> None:
    await index.finish([a_file(f"{number:02}", size=number) for number in range(45)])
    await index.annotate(FileId("id-30"), lambda file: replace(file, filename="needle"))
    query = FileQuery(q="NEEDLE", sort="size", descending=False)
    pages = [await index.files(query)]
    while pages[-1].next:
        pages.append(await index.files(replace(query, cursor=pages[-1].next)))
    assert [[file.id for file in page.items] for page in pages] == [[], ["id-30"], []]


async def test_q_takes_a_nul_as_any_other_character(index: SqliteIndex) -> None:
    await index.finish([a_file("1", filename="a\0b"), a_file("2", filename="ab")])
    assert [file.id for file in await listed(index, FileQuery(q="A\0B"))] == ["id-1"]
    assert [file.id for file in await listed(index, FileQuery(q="B"))] == ["id-2", "id-1"]


async def test_the_planner_s_statistics_do_not_change_the_walk(index: SqliteIndex, sight: Sight) -> None:
    await index.finish([a_file(str(number), created_at=NOON + number * TICK) for number in range(60)])
    sight.connections[0].execute("ANALYZE")
    query = FileQuery(limit=5, sort="size", since=NOON + 58 * TICK)
    assert [file.id for file in await listed(index, query)] == ["id-59", "id-58"]
    assert not any("TEMP" in step for _, steps in sight.plans() for step in steps)


def digest_of(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def forged(query: FileQuery, value: object, id: object = "id-1") -> str:
    genuine = to_cursor(query, Position(1, "id-1"))
    [fingerprint, *_] = json.loads(base64.urlsafe_b64decode(genuine + "=="))
    return base64.urlsafe_b64encode(json.dumps([fingerprint, value, id]).encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    ("sort", "value", "id"),
    [
        ("size", 1 << 63, "id-1"),
        ("size", -(1 << 63) - 1, "id-1"),
        ("size", True, "id-1"),
        ("size", 1.5, "id-1"),
        ("size", float("nan"), "id-1"),
        ("size", None, "id-1"),
        ("size", "1", "id-1"),
        ("created_at", "\ud800", "id-1"),
        ("filename", 1, "id-1"),
        ("filename", "\ud800", "id-1"),
        ("filename", "a", "\ud800"),
        ("filename", "a", 1),
        ("filename", ["a"], "id-1"),
    ],
)
async def test_a_forged_cursor_is_refused(index: SqliteIndex, sort: str, value: object, id: object) -> None:
    query = FileQuery(sort=sort)
    with pytest.raises(BadRequest):
        await index.files(replace(query, cursor=forged(query, value, id)))


@pytest.mark.parametrize(
    "text", ["", "null", "7", '"abc"', "{}", "[]", "[1,2]", "[1,2,3,4]", "[" * 100_000, "9" * 5_000]
)
async def test_a_cursor_of_other_json_is_refused(index: SqliteIndex, text: str) -> None:
    with pytest.raises(BadRequest):
        await index.files(FileQuery(cursor=base64.urlsafe_b64encode(text.encode()).decode()))


async def test_expired_looks_at_no_file_without_expiry(index: SqliteIndex, sight: Sight) -> None:
    await index.expired(NOON, 10)
    [(_, steps)] = sight.plans()
    assert steps == ["SEARCH files USING INDEX files_by_expires_at (expires_at<?)"]
