"""Files that were deleted and can be brought back, in the index: a row that moves, and all that counts it meanwhile."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import aclosing, closing
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from spool.errors import NotFound
from spool.model import By, File, FileId, FileQuery, Key, Link, LinkId, Usage
from spool.store import open_index, sqlite_files
from spool.store.sqlite.connection import connect, migrate
from tests.store.index_suite import DAY, NOON, TICK, a_file, listed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from spool.store import SqliteIndex

ADA = By("ada", "http", NOON, "ab12")
UNTIL = NOON + timedelta(minutes=10)
A, B = FileId("id-a"), FileId("id-b")
LATE = replace(ADA, at=UNTIL)
LINK = Link(LinkId("link-1"), A, "ada", NOON, NOON + DAY, 3, None, 1, 100)
WHOLE = a_file("a", metadata={"x": ["y", "z"]}, grant=None, expires_at=NOON + DAY, damage="size", delete_hash="ab")


async def hide(index: SqliteIndex, *files: File, **more: Any) -> None:
    await index.finish(files, **more)
    for file in files:
        await index.hide(file.id, UNTIL, ADA)


async def hidden(index: SqliteIndex) -> list[str]:
    return [each.file.id for each in await index.hidden(NOON, 100)]


VERBS: dict[str, Callable[[SqliteIndex], Awaitable[object]]] = {
    "file": lambda index: index.file(A),
    "body": lambda index: index.body(A),
    "annotate": lambda index: index.annotate(A, lambda file: file),
    "hide": lambda index: index.hide(A, UNTIL, ADA),
    "add_link": lambda index: index.add_link(replace(LINK, id=LinkId("new")), "other"),
}


@pytest.mark.parametrize("verb", VERBS)
async def test_hidden_file_is_there_for_no_verb(index: SqliteIndex, verb: str) -> None:
    await hide(index, a_file("a", inline=True), bodies={A: b"x" * 100})
    with pytest.raises(NotFound):
        await VERBS[verb](index)


async def test_hidden_file_is_in_no_listing(index: SqliteIndex) -> None:
    await hide(index, a_file("a"))
    assert await listed(index, FileQuery()) == []
    assert await index.by_key(None, 100) == []
    assert await index.expired(NOON + 99 * DAY, 100) == []


async def test_file_comes_back_as_it_was(index: SqliteIndex) -> None:
    await hide(index, WHOLE)
    assert [tuple(each) for each in await index.hidden(NOON, 100)] == [(WHOLE, UNTIL)]
    assert await index.restore(A, ADA) == WHOLE
    assert await listed(index) == [WHOLE]
    assert await hidden(index) == []
    assert await index.check() == []


async def test_inline_file_comes_back_with_its_bytes(index: SqliteIndex) -> None:
    file = a_file("a", inline=True)
    await hide(index, file, bodies={A: b"x" * 100})
    assert await index.restore(A, ADA) == file
    assert await index.body(A) == b"x" * 100


async def test_links_lead_nowhere_meanwhile_and_come_back(index: SqliteIndex) -> None:
    await index.finish([a_file("a")])
    await index.add_link(LINK, "hash")
    await index.hide(A, UNTIL, ADA)
    assert await index.link_of("hash") is None
    await index.restore(A, ADA)
    assert await index.link_of("hash") == LINK


async def test_what_a_link_is_given_back_while_its_file_is_hidden_comes_back_with_it(index: SqliteIndex) -> None:
    await index.finish([a_file("a", size=100)])
    await index.add_link(LINK, "hash")
    await index.take_download(LINK.id, 100, 1)
    await index.hide(A, UNTIL, ADA)
    await index.give_back(LINK.id, 60, 1)
    await index.restore(A, ADA)
    assert await index.link_of("hash") == replace(LINK, given=LINK.given + 40)


async def test_blob_of_a_hidden_file_is_referenced(index: SqliteIndex) -> None:
    await hide(index, a_file("a"))
    assert await index.referenced([Key("key-a"), Key("key-b")]) == {"key-a"}
    await index.end_hidden(UNTIL, 100)
    assert await index.referenced([Key("key-a")]) == set()


@pytest.mark.parametrize("end", ["restore", "remove", "end"])
async def test_hidden_file_counts_until_it_is_gone(index: SqliteIndex, end: str) -> None:
    await hide(index, a_file("a"))
    assert await index.usage("ada") == Usage(1, 100)
    assert (await index.totals()).files == 1
    assert await index.check() == []
    match end:
        case "restore":
            await index.restore(A, ADA)
        case "remove":
            assert await index.remove(A, ADA) == a_file("a")
        case _:
            assert await index.end_hidden(UNTIL, 100) == [a_file("a")]
    assert await index.usage("ada") == Usage(*((1, 100) if end == "restore" else (0, 0)))
    assert await index.check() == []


async def test_recount_counts_hidden_files(index: SqliteIndex, tmp_path: Path) -> None:
    await hide(index, a_file("a"))
    with closing(sqlite3.connect(tmp_path / "index.db")) as other, other:
        other.execute("DELETE FROM usage")
    assert await index.check() == ["the usage of 'ada' is not the sum of what is kept"]
    await index.recount()
    assert await index.usage("ada") == Usage(1, 100)


async def test_time_of_a_hidden_file_ends_with_its_own(index: SqliteIndex) -> None:
    await index.finish([a_file("a", expires_at=NOON + TICK), a_file("b", expires_at=NOON)])
    assert (await index.hide(A, UNTIL, ADA)).until == NOON + TICK
    with pytest.raises(NotFound):
        await index.hide(B, UNTIL, ADA)


async def test_file_whose_time_is_over_does_not_come_back(index: SqliteIndex) -> None:
    await hide(index, a_file("a"))
    with pytest.raises(NotFound):
        await index.restore(A, LATE)
    assert await index.hidden(UNTIL, 100) == []
    assert await index.end_hidden(UNTIL - TICK, 100) == []
    assert await index.end_hidden(UNTIL, 100) == [a_file("a")]
    with pytest.raises(NotFound):
        await index.restore(A, ADA)


async def test_those_that_were_deleted_last_come_first_and_end_last(index: SqliteIndex) -> None:
    files = [a_file(f"{n}") for n in range(5)]
    await index.finish(files)
    for n, file in enumerate(files):
        await index.hide(file.id, UNTIL + n * TICK, ADA)
    assert [each.file.id for each in await index.hidden(NOON, 2)] == ["id-4", "id-3"]
    assert {file.id for file in await index.end_hidden(UNTIL + DAY, 2)} == {"id-0", "id-1"}


async def test_one_of_many_who_delete_or_bring_back_has_done_it(index: SqliteIndex) -> None:
    await index.finish([a_file("a")])
    for verb in (lambda: index.hide(A, UNTIL, ADA), lambda: index.restore(A, ADA)):
        outcomes = await asyncio.gather(*(verb() for _ in range(5)), return_exceptions=True)
        assert sum(isinstance(outcome, NotFound) for outcome in outcomes) == 4
    assert await listed(index) == [a_file("a")]


async def test_what_a_check_finds_of_a_blob_is_so_for_hidden_files(index: SqliteIndex) -> None:
    await index.finish([a_file("a"), a_file("b", key=Key("key-a"))])
    await index.hide(A, UNTIL, ADA)
    assert {file.id for file in await index.mark(Key("key-a"), "missing")} == {A, B}
    await index.heal(Key("key-a"), Key("sound"))
    assert await index.restore(A, ADA) == a_file("a", key=Key("sound"))


async def test_new_file_does_not_share_with_a_hidden_one(index: SqliteIndex) -> None:
    await hide(index, a_file("a"))
    [new] = await index.finish([a_file("b")], share=True)
    assert new.key == "key-b"


async def test_copy_holds_nothing_that_was_deleted(index: SqliteIndex, tmp_path: Path) -> None:
    await index.finish([a_file("a"), a_file("b")])
    await index.add_link(LINK, "hash")
    await index.hide(A, UNTIL, ADA)
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "index.db").touch()
    await index.copy_to(tmp_path / "copy" / "index.db")
    async with aclosing(await open_index(tmp_path / "copy")) as copy:
        assert await copy.hidden(NOON, 100) == []
        assert await copy.usage("ada") == Usage(1, 100)
        assert await copy.check() == []
        assert await listed(copy) == [a_file("b")]


async def test_index_with_nothing_but_a_hidden_file_has_files(tmp_path: Path) -> None:
    async with aclosing(await open_index(tmp_path)) as index:
        assert not sqlite_files.has_files(tmp_path / "index.db")
        await hide(index, a_file("a"))
    assert sqlite_files.has_files(tmp_path / "index.db")


async def test_index_of_an_older_schema_has_files(tmp_path: Path) -> None:
    async with aclosing(await open_index(tmp_path)) as index:
        await index.finish([a_file("a")])
    with closing(sqlite3.connect(tmp_path / "index.db")) as other, other:
        other.execute("DROP TABLE hidden")
    assert sqlite_files.has_files(tmp_path / "index.db")


@pytest.mark.parametrize(("table", "moved"), [("files", "hidden"), ("links", "hidden_links")])
def test_row_that_moves_loses_no_column(tmp_path: Path, table: str, moved: str) -> None:
    (tmp_path / "index.db").touch()
    with closing(connect(tmp_path / "index.db", "rw")) as connection:
        migrate(connection)
        names = [
            [row[1] for row in connection.execute(f"PRAGMA table_info({each})")]  # the names of tables are ours
            for each in (table, moved)
        ]
    assert names[1][: len(names[0])] == names[0] if table == "links" else set(names[0]) == set(names[1]) - {"until"}


async def test_changes_tell_what_became_of_files_and_from_where_to_ask_on(index: SqliteIndex) -> None:
    assert await index.changes(None, 100) == (0, ())
    await index.finish([a_file("a"), a_file("b")])
    await index.annotate(B, lambda file: replace(file, filename="new"), ADA)
    await index.hide(A, UNTIL, ADA)
    assert await index.changes(None, 100) == (2, ())
    assert await index.changes(0, 100) == (2, (B, A))
    assert await index.changes(0, 1) == (1, (B,))
    await index.restore(A, ADA)
    await index.remove(A, ADA)
    assert await index.changes(2, 100) == (4, (A,))
    assert await index.changes(4, 100) == (4, ())
