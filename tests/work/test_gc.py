from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import TYPE_CHECKING

import pytest

from spool.model import FileId, Key
from spool.work import gc
from tests.store.blobstore_suite import keys, put, stage
from tests.store.index_suite import a_file

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Collection
    from pathlib import Path

    from spool.store import LocalStore, SqliteIndex

EVER = datetime.max.replace(tzinfo=UTC)
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
A, B, C = Key("00a"), Key("00b"), Key("ffc")


async def test_blob_that_its_upload_has_deleted_meanwhile_is_not_reclaimed(
    blobs: LocalStore, index: SqliteIndex, tmp_path: Path
) -> None:
    await put(blobs, A)
    await put(blobs, B)

    async def active() -> frozenset[Key]:
        (tmp_path / "blobs" / "00" / A).unlink()
        return frozenset()

    assert await gc.run_once(blobs, index, active, EVER) == 1


def holding(*keys: Key) -> Callable[[], Awaitable[frozenset[Key]]]:
    async def active() -> frozenset[Key]:
        return frozenset(keys)

    return active


async def test_blob_that_nothing_needs_is_reclaimed(blobs: LocalStore, index: SqliteIndex) -> None:
    await put(blobs, A)
    assert await gc.run_once(blobs, index, holding(), EVER) == 1
    assert await keys(blobs) == {}


async def test_staged_blob_that_nobody_holds_is_reclaimed(blobs: LocalStore, index: SqliteIndex) -> None:
    await stage(blobs, A, [b"data"])
    assert await gc.run_once(blobs, index, holding(), EVER) == 1
    assert await keys(blobs) == {}


async def test_blob_of_a_file_stays(blobs: LocalStore, index: SqliteIndex) -> None:
    await put(blobs, A)
    await put(blobs, B)
    await index.finish([a_file("a", key=A)])
    assert await gc.run_once(blobs, index, holding(), EVER) == 1
    assert (await keys(blobs)).keys() == {A}


async def test_active_blob_stays(blobs: LocalStore, index: SqliteIndex) -> None:
    await stage(blobs, A, [b"data"])
    await put(blobs, B)
    await put(blobs, C)
    assert await gc.run_once(blobs, index, holding(A, B), EVER) == 1
    assert (await keys(blobs)).keys() == {A, B}


async def test_blob_last_written_at_the_limit_or_after_stays(
    blobs: LocalStore, index: SqliteIndex, tmp_path: Path
) -> None:
    for key, time in ((A, NOON - HOUR), (B, NOON), (C, NOON + HOUR)):
        await put(blobs, key)
        os.utime(tmp_path / "blobs" / key[:2] / key, (time.timestamp(), time.timestamp()))
    assert await gc.run_once(blobs, index, holding(), NOON) == 1
    assert (await keys(blobs)).keys() == {B, C}


async def test_more_blobs_than_one_lot_are_all_reclaimed(blobs: LocalStore, index: SqliteIndex, tmp_path: Path) -> None:
    for n in range(1203):
        (tmp_path / "blobs" / f"{n % 256:02x}" / f"{n % 256:02x}{n:030x}").touch()
    kept = Key(f"01{1:030x}")
    await index.finish([a_file("kept", key=kept)])
    assert await gc.run_once(blobs, index, holding(), EVER, rest=0.1) == 1202
    assert (await keys(blobs)).keys() == {kept}


async def test_nothing_to_do_is_nothing_done(blobs: LocalStore, index: SqliteIndex) -> None:
    assert await gc.run_once(blobs, index, holding(), EVER) == 0


@pytest.mark.parametrize("name", ["probe-1", ".nfs0001"])
async def test_leftover_that_is_no_blob_does_not_end_the_sweep(
    blobs: LocalStore, index: SqliteIndex, tmp_path: Path, name: str
) -> None:
    (tmp_path / "incoming" / name).touch()
    await put(blobs, A)
    await gc.run_once(blobs, index, holding(), EVER)
    assert A not in await keys(blobs)


class World:
    """One upload that goes its way a step at a time, and a sweep that asks in between."""

    def __init__(self, *, commits: bool, before_each_question: tuple[int, int, int]) -> None:
        self.is_active = self.has_blob = self.has_row = False
        self._commits = commits
        self._steps = [self._start, self._write, self._record, self._end]
        self._before = iter(before_each_question)

    def _start(self) -> None:
        self.is_active = True

    def _write(self) -> None:
        self.has_blob = True

    def _record(self) -> None:
        self.has_row = self._commits

    def _end(self) -> None:
        self.is_active = False

    def go_on(self, steps: int) -> None:
        for _ in range(min(steps, len(self._steps))):
            self._steps.pop(0)()

    async def keys(self) -> AsyncIterator[tuple[Key, int, datetime]]:
        self.go_on(next(self._before))
        if self.has_blob:
            yield A, 4, NOON
        yield B, 4, NOON

    async def active(self) -> frozenset[Key]:
        self.go_on(next(self._before))
        return frozenset([A] if self.is_active else [])

    async def referenced(self, keys: Collection[Key]) -> set[Key]:
        self.go_on(next(self._before))
        return {A} & set(keys) if self.has_row else set()

    async def delete(self, key: Key) -> bool:
        if key == A:
            self.has_blob = False
        return True


@pytest.mark.parametrize("steps", [steps for steps in product(range(5), repeat=3) if sum(steps) <= 4])
async def test_blob_that_is_committed_meanwhile_stays(steps: tuple[int, int, int]) -> None:
    world = World(commits=True, before_each_question=steps)
    assert await gc.run_once(world, world, world.active, EVER) == 1
    world.go_on(4)
    assert world.has_row
    assert world.has_blob


async def test_blob_whose_upload_ended_without_a_commit_is_reclaimed() -> None:
    world = World(commits=False, before_each_question=(4, 0, 0))
    assert await gc.run_once(world, world, world.active, EVER) == 2
    assert not world.has_blob


@pytest.mark.parametrize("steps", [(4, 0, 0), (0, 4, 0), (3, 0, 1)])
async def test_sweep_asks_for_rows_of_idle_blobs_only(steps: tuple[int, int, int]) -> None:
    asked: list[set[Key]] = []

    class Asked(World):
        async def referenced(self, keys: Collection[Key]) -> set[Key]:
            asked.append(set(keys))
            return await super().referenced(keys)

    world = Asked(commits=True, before_each_question=steps)
    await gc.run_once(world, world, world.active, EVER)
    assert asked == [{B} if steps == (3, 0, 1) or steps[0] == 0 else {A, B}]


async def test_file_stays_though_its_id_is_unknown_to_the_sweep(blobs: LocalStore, index: SqliteIndex) -> None:
    await put(blobs, A)
    await index.finish([a_file("a", key=A, id=FileId("another"))])
    assert await gc.run_once(blobs, index, holding(), EVER) == 0
