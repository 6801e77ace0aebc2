"""An index to which several processes of one server write."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import aclosing, closing
from typing import TYPE_CHECKING

from spool.store import open_index
from spool.store.sqlite.queue import Queue
from spool.store.sqlite.reserve import SIZE
from tests.store.index_suite import NOON, a_file

if TYPE_CHECKING:
    from pathlib import Path


def overwritten(directory: Path) -> bytes | None:
    """What was last written for its own sake."""
    with closing(sqlite3.connect(directory / "index.db")) as connection:
        row = connection.execute("SELECT value FROM settings WHERE name = 'overwritten'").fetchone()
    return row and bytes(row[0])


async def test_question_which_blobs_have_a_row_overwrites_what_another_process_left(tmp_path: Path) -> None:
    async with aclosing(await open_index(tmp_path, shared=True)) as index:
        await index.referenced([a_file("a").key])
        first = overwritten(tmp_path)
        assert first is not None
        await index.referenced([a_file("a").key])
        assert overwritten(tmp_path) != first


async def test_index_of_one_process_overwrites_nothing_that_is_certain(tmp_path: Path) -> None:
    async with aclosing(await open_index(tmp_path)) as index:
        await index.referenced([a_file("a").key])
        assert overwritten(tmp_path) is None


async def test_writer_waits_for_another_process_and_then_goes_on(tmp_path: Path) -> None:
    async with aclosing(await open_index(tmp_path, shared=True)) as index:
        with closing(Queue(tmp_path / "index.db-queue")) as other:
            with other.turn():
                adding = asyncio.ensure_future(index.finish([a_file("a")]))
                await asyncio.wait([adding], timeout=0.2)
                assert not adding.done()
            await adding
        assert (await index.file(a_file("a").id)).key == a_file("a").key


async def test_all_that_two_write_at_once_is_there(tmp_path: Path) -> None:
    async with (
        aclosing(await open_index(tmp_path, shared=True)) as one,
        aclosing(await open_index(tmp_path, shared=True)) as other,
    ):
        files = [a_file(f"{number}") for number in range(200)]
        await asyncio.gather(*((one, other)[n % 2].finish([file]) for n, file in enumerate(files)))
        assert {(await one.file(file.id)).id for file in files} == {file.id for file in files}


async def test_room_that_another_process_needed_is_not_for_uploads(tmp_path: Path) -> None:
    async with (
        aclosing(await open_index(tmp_path, shared=True)) as office,
        aclosing(await open_index(tmp_path, shared=True)) as worker,
    ):
        assert await office.owed() == 0
        worker._db._reserve.release()
        assert await office.owed() == await worker.owed() == SIZE
        await office.forget(NOON)  # as a sweep does
        assert await office.owed() == await worker.owed() == 0
