"""Labels of one blob that thousands of files share, on a file system that has room for them."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from spool.model import FileId, Key
from spool.store.local import open_local
from tests.process import lacking

from .blobstore_suite import put

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from spool.store import LocalStore

MEMORY: Final = Path("/dev/shm")
KEY: Final = Key("00" + "a" * 30)
MANY: Final = 1600
"""More than the system lists of one file, with names as long as these."""


def an_id(number: int) -> FileId:
    return FileId(f"{number:032x}")


@pytest.fixture
def directory() -> Iterator[Path]:
    if not MEMORY.is_dir():
        lacking(f"there is no {MEMORY}")
    with tempfile.TemporaryDirectory(dir=MEMORY) as directory:
        try:
            for number in range(MANY):
                os.setxattr(directory, f"user.spool.{an_id(number)}", b"")
        except OSError:
            lacking(f"{MEMORY} has no room for extended attributes")
        with pytest.raises(OSError, match="too long"):
            os.listxattr(directory)
        yield Path(directory)


@pytest.fixture
async def store(directory: Path) -> AsyncIterator[LocalStore]:
    store = await open_local(directory / "spool")
    yield store
    await store.aclose()


async def test_labels_are_no_more_than_can_be_listed(store: LocalStore) -> None:
    await put(store, KEY, b"data")
    for number in range(MANY):
        await store.label(KEY, an_id(number), b"one")
    labels = await store.labels(KEY)
    assert 1000 < len(labels) < MANY
    await store.label(KEY, an_id(0), b"changed")
    assert {label.text for label in await store.labels(KEY)} == {b"one", b"changed"}
    await store.label(KEY, an_id(0), None)
    await store.label(KEY, an_id(MANY), b"in its place")
    assert {label.text for label in await store.labels(KEY)} == {b"one", b"in its place"}


async def test_labels_that_are_too_many_are_none(store: LocalStore, directory: Path) -> None:
    await put(store, KEY, b"data")
    [blob] = directory.glob("spool/blobs/*/*")
    for number in range(MANY):
        os.setxattr(blob, f"user.spool.{an_id(number)}", b"one")
    assert await store.labels(KEY) == []
    await store.label(KEY, an_id(MANY), b"one more")
    await store.label(KEY, an_id(0), None)
