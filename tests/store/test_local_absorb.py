from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from spool.errors import SpoolError, StorageFull, Unavailable
from spool.model import Staged
from spool.store.local import LocalStore, open_local

from .blobstore_suite import KEY, OTHER, content, stage
from .resuming_suite import MIB, NEW

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[LocalStore]:
    store = await open_local(tmp_path)
    yield store
    await store.aclose()


@pytest.mark.parametrize("number", [None, errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, 0])
async def test_absorb_reads_and_writes_in_small_steps_where_the_kernel_cannot_copy(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, number: int | None
) -> None:
    def fail(*_: object, **__: object) -> int:
        tries.append(1)
        if number:
            raise OSError(number, os.strerror(number))
        return 0

    def count(fd: int, size: int, offset: int) -> bytes:
        steps.append(size)
        return pread(fd, size, offset)

    tries: list[int] = []
    steps: list[int] = []
    pread = os.pread
    end = await stage(store, OTHER, [bytes(range(256)) * 4096 * 5, b"tail"], at=NEW)
    monkeypatch.setattr(os, "pread", count)
    if number is None:
        monkeypatch.delattr(os, "copy_file_range")
    else:
        monkeypatch.setattr(os, "copy_file_range", fail)
    writer = await store.writer(KEY, NEW)
    await writer.absorb(OTHER, end)
    await writer.absorb(OTHER, Staged(3))
    assert (await writer.sync()).offset == end.offset + 3
    await writer.aclose()
    assert await content(store, KEY, staged=True) == bytes(range(256)) * 4096 * 5 + b"tail" + bytes(range(3))
    assert steps == [MIB] * 5 + [4, 3]
    assert len(tries) <= 1


async def test_absorb_lets_the_kernel_copy_and_carries_on_where_it_stops_short(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def copy_little(source: int, target: int, size: int, offset_src: int) -> int:
        return copy(source, target, min(size, 4096 * 3), offset_src=offset_src)

    copy = os.copy_file_range
    monkeypatch.setattr(os, "copy_file_range", copy_little)
    monkeypatch.delattr(os, "pread")
    data = bytes(range(256)) * 1000 + b"tail"
    end = await stage(store, OTHER, [data], at=NEW)
    writer = await store.writer(KEY, NEW)
    await writer.write([b"head"])
    await writer.absorb(OTHER, end)
    await writer.write([b"end"])
    await writer.sync()
    await writer.aclose()
    assert await content(store, KEY, staged=True) == b"head" + data + b"end"


@pytest.mark.parametrize(("number", "error"), [(errno.ENOSPC, StorageFull), (errno.EIO, Unavailable)])
async def test_a_copy_that_fails_is_not_tried_in_another_way(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, number: int, error: type[SpoolError]
) -> None:
    def fail(*_: object, **__: object) -> int:
        raise OSError(number, os.strerror(number))

    end = await stage(store, OTHER, [b"data"], at=NEW)
    monkeypatch.setattr(os, "copy_file_range", fail)
    writer = await store.writer(KEY, NEW)
    with pytest.raises(error):
        await writer.absorb(OTHER, end)
    with pytest.raises(error):
        await writer.sync()
    await writer.aclose()
