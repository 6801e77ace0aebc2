from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from importlib import resources
from typing import TYPE_CHECKING

import pytest

from spool.errors import SpoolError
from spool.model import FileId, Key, Staged, UploadId, Usage
from spool.store.sqlite import SqliteIndex, open_sqlite
from spool.store.sqlite.rows import ADDED, UPLOAD, file_row, upload_row

from .index_suite import DAY, NOON, a_file, listed
from .sight import Sight
from .uploads_model import an_upload, complete, file_of, finished

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from spool.model import File


@pytest.fixture
def sight() -> Sight:
    return Sight()


@pytest.fixture
async def index(tmp_path: Path, sight: Sight) -> AsyncIterator[SqliteIndex]:
    index = await open_sqlite(tmp_path / "index.db", connected=sight)
    yield index
    await index.aclose()


def make_first_index(path: Path, files: list[File]) -> None:
    """An index as the first Spool made it."""
    script = resources.files("spool.store.sqlite").joinpath("sql", "0001_files.sql").read_text(encoding="utf-8")
    columns = ADDED.partition(", damage")[0]
    marks = ", ".join("?" * len(columns.split(", ")))
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)
        connection.execute("PRAGMA user_version = 1")
        connection.execute("INSERT INTO settings VALUES ('secret', ?)", (b"s" * 32,))
        connection.executemany(
            f"INSERT INTO files ({columns}) VALUES ({marks})", (file_row(f)[: len(columns.split(", "))] for f in files)
        )
        connection.commit()


# migration


async def test_an_index_of_the_first_spool_opens_with_all_that_is_in_it(tmp_path: Path) -> None:
    files = [a_file("1", size=7), a_file("2"), a_file("3", owner="bob")]
    make_first_index(tmp_path / "index.db", files)
    for _ in range(2):
        index = await open_sqlite(tmp_path / "index.db")
        assert sorted(await listed(index), key=lambda file: file.id) == files
        assert [await index.usage("ada"), await index.usage("bob")] == [Usage(2, 107), Usage(1, 100)]
        assert [await index.secret(), await index.promised()] == [b"s" * 32, 0]
        await index.aclose()


async def test_an_index_of_the_first_spool_counts_files_and_uploads_from_then_on(tmp_path: Path) -> None:
    make_first_index(tmp_path / "index.db", [a_file("1", size=7)])
    index = await open_sqlite(tmp_path / "index.db")
    await index.add_upload(an_upload("2", size=1_000))
    await index.remove(FileId("id-1"))
    assert await index.usage("ada") == Usage(0, 1_000, 1)
    await index.finish([a_file("3")])
    await index.drop(UploadId("up-2"))
    assert await index.usage("ada") == Usage(1, 100)
    await index.aclose()


async def test_uploads_of_an_index_that_did_not_count_them_are_counted(tmp_path: Path) -> None:
    folder = resources.files("spool.store.sqlite").joinpath("sql")
    uploads = (an_upload("1"), complete("2"), an_upload("3", owner="bob"), finished(complete("4")))
    with closing(sqlite3.connect(tmp_path / "index.db")) as connection:
        for script in ("0001_files.sql", "0002_uploads.sql"):
            connection.executescript(folder.joinpath(script).read_text(encoding="utf-8"))
        connection.execute("PRAGMA user_version = 2")
        columns = UPLOAD.removesuffix(", grant_id")
        marks = ", ".join("?" * len(columns.split(", ")))
        connection.executemany(
            f"INSERT INTO uploads ({columns}) VALUES ({marks})", (upload_row(u)[:-1] for u in uploads)
        )
        connection.commit()
    index = await open_sqlite(tmp_path / "index.db")
    assert [(await index.usage(owner)).uploads for owner in ("ada", "bob", "eve")] == [2, 1, 0]
    await index.aclose()


async def test_an_index_that_knew_no_bodies_has_none_and_takes_some(tmp_path: Path) -> None:
    folder = resources.files("spool.store.sqlite").joinpath("sql")
    scripts = sorted(script.name for script in folder.iterdir() if script.name < "0006")
    old = [a_file("1", size=4), a_file("2", damage="size")]
    columns = ADDED.partition(", grant_id")[0]
    values = columns.count(",") + 1
    marks = ", ".join("?" * values)
    with closing(sqlite3.connect(tmp_path / "index.db")) as connection:
        for script in scripts:
            connection.executescript(folder.joinpath(script).read_text(encoding="utf-8"))
        connection.execute(f"PRAGMA user_version = {len(scripts)}")
        rows = [file_row(file)[:values] for file in old]
        connection.executemany(f"INSERT INTO files ({columns}) VALUES ({marks})", rows)
        connection.commit()
    for _ in range(2):
        index = await open_sqlite(tmp_path / "index.db")
        assert [await index.file(file.id) for file in old] == old
        assert await index.check() == []
        await index.aclose()
    index = await open_sqlite(tmp_path / "index.db")
    inline = a_file("3", size=4, inline=True)
    await index.finish([inline], share=True, bodies={inline.id: b"body"})
    assert await index.finish([a_file("4", size=4)], share=True) == [a_file("4", size=4, key="key-1")]
    assert (await index.file(inline.id), await index.body(inline.id)) == (inline, b"body")
    await index.aclose()


async def test_uploads_survive_reopening(tmp_path: Path) -> None:
    index = await open_sqlite(tmp_path / "index.db")
    await index.add_upload(an_upload("1", offset=30))
    await index.claim(UploadId("up-1"))
    await index.aclose()
    index = await open_sqlite(tmp_path / "index.db")
    assert await index.upload(UploadId("up-1")) == an_upload("1", offset=30, epoch=1)
    assert [await index.usage("ada"), await index.promised()] == [Usage(0, 100, 1), 70]
    await index.aclose()


# rows


async def test_a_finished_row_cannot_be_taken_back(index: SqliteIndex) -> None:
    await index.add_upload(complete("1"))
    await index.finish([file_of(complete("1"))], None, complete("1"))
    for state in ("open", "complete"):
        with pytest.raises(SpoolError):
            await index.advance(replace(complete("1"), state=state))
    await index.advance(replace(finished(complete("1")), expires_at=NOON + 2 * DAY))
    assert await index.upload(UploadId("up-1")) == replace(finished(complete("1")), expires_at=NOON + 2 * DAY)
    assert await index.usage("ada") == Usage(1, 100)


async def test_finish_of_an_upload_takes_exactly_one_file(index: SqliteIndex) -> None:
    await index.add_upload(complete("1"))
    with pytest.raises(ValueError, match="unpack"):
        await index.finish([], None, complete("1"))
    assert await index.upload(UploadId("up-1")) == complete("1")


async def test_usage_of_one_who_keeps_nothing_leaves_no_row(index: SqliteIndex, sight: Sight) -> None:
    for upload in (an_upload("ada", size=None), complete("bob", owner="bob"), an_upload("eve", 0, owner="eve")):
        await index.add_upload(upload)
    await index.advance(an_upload("ada", size=None, offset=5))
    await index.drop(UploadId("up-ada"))
    await index.finish([file_of(complete("bob", owner="bob"))], None, complete("bob", owner="bob"))
    await index.remove(FileId("id-bob"))
    await index.drop(UploadId("up-eve"))
    for table in ("usage", "unfinished"):
        assert sight.connections[0].execute(f"SELECT * FROM {table}").fetchall() == []


# query plans


async def test_referenced_looks_keys_up_in_the_indexes(index: SqliteIndex, sight: Sight) -> None:
    await index.referenced([Key("key-1")])
    [(_, steps)] = sight.plans()
    assert "SEARCH files USING COVERING INDEX files_by_key (key=?)" in steps
    assert "SEARCH uploads USING INDEX uploads_by_key (key=?)" in steps


async def test_stale_walks_along_its_index(index: SqliteIndex, sight: Sight) -> None:
    await index.stale(NOON, 10)
    [(_, steps)] = sight.plans()
    assert steps == ["SEARCH uploads USING INDEX uploads_by_expires_at (expires_at<?)"]


async def test_unfinished_looks_at_complete_uploads_only(index: SqliteIndex, sight: Sight) -> None:
    await index.unfinished(10)
    [(_, steps)] = sight.plans()
    assert steps == ["SCAN uploads USING INDEX uploads_unfinished"]


async def test_every_other_verb_finds_its_row_by_id(index: SqliteIndex, sight: Sight) -> None:
    await index.add_upload(an_upload("1"))
    sight.take()
    await index.upload(UploadId("up-1"))
    upload = await index.claim(UploadId("up-1"))
    await index.advance(replace(upload, state="complete", staged=Staged(100)))
    await index.finish([file_of(upload)], None, upload)
    await index.drop(UploadId("up-1"))
    plans = {statement: steps for statement, steps in sight.plans() if " uploads " in statement}
    assert len(plans) == 5
    for steps in plans.values():
        assert steps == ["SEARCH uploads USING INDEX sqlite_autoindex_uploads_1 (id=?)"]


async def test_promised_and_usage_cost_the_same_however_many_uploads_there_are(
    index: SqliteIndex, sight: Sight
) -> None:
    async def cost() -> int:
        return await sight.steps(index.promised()) + await sight.steps(index.usage("ada"))

    await index.add_upload(an_upload("a"))
    few = await cost()
    for number in range(500):
        await index.add_upload(an_upload(str(number)))
    assert await index.promised() == 50_100
    assert await cost() == few
