"""Small blobs, which the publisher writes: what fails, is deleted or is cancelled harms nothing beside it."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
import threading
from typing import TYPE_CHECKING, Any

import pytest

from spool.errors import SpoolError, StorageFull, Unavailable
from spool.model import FileId, Key, Label
from spool.store.local import LocalStore, open_local
from tests.process import eventually

from .blobstore_suite import KEY, content, keys, stage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

BAD = Key("00" + "c" * 30)
FAR = Key("ff" + "d" * 30)
LONG = 10  # seconds after which a test that hangs goes on


@pytest.fixture(params=[True, False], ids=["nameless", "named"])
async def store(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[LocalStore]:
    store = await open_local(tmp_path, nameless=request.param)
    yield store
    await store.aclose()


class Disk:
    """The system's calls, of which one, for one blob, can be made to fail or to wait."""

    CALLS = ("open", "writev", "fsync", "utime", "link", "unlink")

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._mine: set[int] = set()
        self.call = ""
        self.key = BAD
        self.nth = 1
        """Which of the blobs that are opened is meant."""
        self._opened = 0
        self.effect: Callable[[], None] = lambda: None
        for name in self.CALLS:
            monkeypatch.setattr(os, name, self._wrap(name, getattr(os, name)))

    def _wrap(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*values: Any, **options: Any) -> Any:
            if name == "writev":
                self._note(*values)
            if name == self.call and self._is_mine(name, values):
                self.effect()
            result = call(*values, **options)
            if name == "open" and values[0] == self.key:
                self._mine.add(result)
            return result

        return wrapped

    def _note(self, fd: int, buffers: list[bytes]) -> None:
        (self._mine.add if b"".join(buffers) == self.key.encode() else self._mine.discard)(fd)

    def _is_mine(self, name: str, values: tuple[Any, ...]) -> bool:
        if name == "open":  # in the order in which they were asked for, one by one
            self._opened += 1
            return threading.current_thread().name.startswith("publish") and self._opened == self.nth
        if name in ("link", "unlink"):
            return self.key in values
        return values[0] in self._mine

    def start(self, call: str, effect: Callable[[], None]) -> None:
        self._mine.clear()
        self._opened = 0
        self.call, self.effect = call, effect

    def fail(self, call: str, number: int) -> None:
        def effect() -> None:
            raise OSError(number, os.strerror(number))

        self.start(call, effect)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


class Gate:
    """Where a thread waits until it is let go on."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.opened = threading.Event()

    def __call__(self) -> None:
        self.reached.set()
        assert self.opened.wait(LONG)


async def one_lot(store: LocalStore, disk: Disk, *work: Any) -> list[Any]:
    """The outcomes of what is asked of the publisher while it does something else: it has it all in one lot."""
    gate, call, effect = Gate(), disk.call, disk.effect
    disk.call, disk.key, disk.effect = "link", FAR, gate
    first = asyncio.ensure_future(store.put(FAR, FAR.encode()))
    await asyncio.to_thread(gate.reached.wait, LONG)
    tasks = [asyncio.ensure_future(step) for step in work]
    for _ in range(5):
        await asyncio.sleep(0)  # all have asked
    disk.call, disk.key, disk.effect = call, BAD, effect
    gate.opened.set()
    await first
    return await asyncio.gather(*tasks, return_exceptions=True)


def staged(folder: Path) -> list[Path]:
    return list(folder.glob("incoming/*"))


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


NUMBERS = [(errno.ENOSPC, StorageFull), (errno.EDQUOT, StorageFull), (errno.EIO, Unavailable)]


@pytest.mark.parametrize("fault", NUMBERS)
@pytest.mark.parametrize("call", ["open", "writev", "fsync", "utime", "link"])
async def test_put_that_fails_fails_alone(
    store: LocalStore, disk: Disk, tmp_path: Path, call: str, fault: tuple[int, type[SpoolError]]
) -> None:
    number, error = fault
    names = [Key(f"00{n:030x}") for n in range(6)]
    committed = Key("00" + "e" * 30)
    at = await stage(store, committed, [b"staged"])
    before = descriptors()
    disk.fail(call, number)
    disk.nth = 4
    puts = [store.put(key, key.encode()) for key in (*names[:3], BAD, *names[3:])]
    *outcomes, last = await one_lot(store, disk, *puts, store.commit(committed, at))
    disk.call = ""
    assert [type(outcome) for outcome in outcomes] == [type(None)] * 3 + [error] + [type(None)] * 3
    assert last is None
    assert [await content(store, key) for key in names] == [key.encode() for key in names]
    assert await content(store, committed) == b"staged"
    assert BAD not in [key async for key, *_ in store.keys(live=True)]
    await store.delete(BAD)
    assert set(await keys(store)) == {*names, committed, FAR}
    assert staged(tmp_path) == []
    assert descriptors() == before - 1  # of what was staged


async def test_directory_that_cannot_be_synced_fails_its_own_puts(
    store: LocalStore, disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, far = [KEY, BAD], [Key("fe" + "a" * 30), Key("fd" + "b" * 30)]
    shard, fsync = store._layout.shards["00"], os.fsync

    def fail(fd: int) -> None:
        if fd == shard:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        fsync(fd)

    with monkeypatch.context() as system:
        system.setattr(os, "fsync", fail)
        outcomes = await one_lot(store, disk, *(store.put(key, key.encode()) for key in (*ours, *far)))
    assert [type(outcome) for outcome in outcomes] == [Unavailable, Unavailable, type(None), type(None)]
    assert {key async for key, *_ in store.keys(live=True)} == {*far, FAR}
    for key in ours:
        await store.delete(key)
    assert set(await keys(store)) == {*far, FAR}
    assert staged(tmp_path) == []


@pytest.mark.parametrize("cancelled", [False, True])
async def test_delete_at_any_step_of_a_put_leaves_nothing(
    store: LocalStore,
    disk: Disk,
    tmp_path: Path,
    cancelled: bool,  # noqa: FBT001
) -> None:
    before = descriptors()
    for call in ("open", "writev", "fsync", "utime", "link", *(() if store._layout.nameless else ("unlink",))):
        gate = Gate()
        disk.start(call, gate)
        putting = asyncio.ensure_future(store.put(BAD, BAD.encode(), Label(FileId("f"), b"label")))
        assert await asyncio.to_thread(gate.reached.wait, LONG), call
        disk.call = ""
        if cancelled:
            putting.cancel()
        deleting = asyncio.ensure_future(store.delete(BAD))
        await asyncio.wait([deleting], timeout=0.02)  # it may have to wait for the step
        gate.opened.set()
        await asyncio.gather(putting, deleting, return_exceptions=True)
        await store.put(KEY, b"later")  # what was asked before is done
        assert await keys(store) == {KEY: 5}, call
        assert staged(tmp_path) == [], call
        await store.delete(KEY)
        assert descriptors() == before, call


async def test_delete_of_a_put_that_waits_leaves_nothing(store: LocalStore, disk: Disk, tmp_path: Path) -> None:
    async def delete() -> None:
        await asyncio.sleep(0)
        await store.delete(BAD)

    outcome, _, neighbour = await one_lot(store, disk, store.put(BAD, b"data"), delete(), store.put(KEY, b"data"))
    assert neighbour is None
    assert outcome is None or isinstance(outcome, Unavailable)
    await store.delete(BAD)
    assert set(await keys(store)) == {KEY, FAR}
    assert staged(tmp_path) == []


async def test_delete_of_a_put_whose_lot_has_begun_leaves_nothing(
    store: LocalStore, disk: Disk, tmp_path: Path
) -> None:
    before, gate = descriptors(), Gate()
    disk.start("writev", gate)
    working = asyncio.ensure_future(one_lot(store, disk, store.put(BAD, BAD.encode()), store.put(KEY, b"late")))
    assert await asyncio.to_thread(gate.reached.wait, LONG)
    await store.delete(KEY)
    gate.opened.set()
    first, late = await working
    assert (first, type(late)) == (None, Unavailable)
    assert set(await keys(store)) == {BAD, FAR}
    assert staged(tmp_path) == []
    assert descriptors() == before


async def test_puts_that_wait_when_the_store_is_closed_are_done(tmp_path: Path) -> None:
    for nameless in (True, False):
        names = [Key(f"{n:02x}{nameless:030x}") for n in range(20)]
        store = await open_local(tmp_path, nameless=nameless)
        putting = [asyncio.ensure_future(store.put(key, key.encode())) for key in names]
        await asyncio.sleep(0)
        await store.aclose()
        assert await asyncio.gather(*putting) == [None] * 20
        store = await open_local(tmp_path)
        assert [await content(store, key) for key in names] == [key.encode() for key in names]
        await store.aclose()
    assert staged(tmp_path) == []


async def test_every_blob_that_is_put_is_synced_before_it_has_its_name(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, link = os.fsync, os.link

    def note_fsync(fd: int) -> None:
        steps.append("directory" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file")
        fsync(fd)

    def note_link(*values: Any, **options: Any) -> None:
        steps.append("link")
        link(*values, **options)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "link", note_link)
    await store.put(KEY, b"data")
    assert steps == ["file", "link", "directory"]
    assert eventually(lambda: not store._staged)
