"""Blobs of one local store as blobs of another: by a second name where that can be, else by a copy. It all blocks."""

from __future__ import annotations

import errno
import os
from itertools import islice
from typing import TYPE_CHECKING, Final, Literal

from spool.errors import NotFound
from spool.store.local.labels import get_labels
from spool.store.local.staged import COPY_STEP, NamedBlob, NamelessBlob

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from spool.model import Key
    from spool.store.local.layout import Layout
    from spool.store.local.staged import StagedBlob

Taken = Literal["there", "linked", "copied", "missing"]
"""What it took to have a blob; missing if the other store has none of that size."""

_TOGETHER: Final = 64
"""Copies that are written before the first is synced: a file system with a journal then syncs many in one go."""
_CANNOT_LINK: Final = (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS)


def take(wanted: Mapping[Key, int], source: Layout, target: Layout, *, link: bool) -> dict[Key, Taken]:
    """Each blob of `source` that has the size given is live in `target` too, durably.

    A blob that `target` has in this size is left alone; one of another size is replaced. Nothing but a whole blob ever
    gets a key in `target`.
    """
    taken: dict[Key, Taken] = {}
    for key, size in wanted.items():
        taken[key] = _take(key, size, source, target, link=link)
    to_copy = iter([(key, wanted[key]) for key, outcome in taken.items() if outcome == "copied"])
    while lot := list(islice(to_copy, _TOGETHER)):
        taken |= dict.fromkeys(_copy(dict(lot), source, target), "missing")
    for shard in {key[:2] for key, outcome in taken.items() if outcome in ("linked", "copied")}:
        os.fsync(target.shards[shard])
    return taken


def _take(key: Key, size: int, source: Layout, target: Layout, *, link: bool) -> Taken:
    """What it will take; a link is made at once."""
    if target.size(key) == size:
        return "there"
    if source.size(key) != size:
        return "missing"
    target.unlink(key)
    if not link:
        return "copied"
    try:
        os.link(key, key, src_dir_fd=source.shard(key), dst_dir_fd=target.shard(key), follow_symlinks=False)
    except FileNotFoundError:
        return "missing"
    except OSError as error:
        if error.errno not in _CANNOT_LINK:
            raise
        return "copied"
    return "linked"


def _copy(wanted: Mapping[Key, int], source: Layout, target: Layout) -> Iterator[Key]:
    """Copies these blobs; gives those that are not there any more."""
    staged: dict[Key, StagedBlob] = {}
    try:
        for key, size in wanted.items():
            target.unstage(key)  # what an earlier backup left
            staged[key] = (NamelessBlob if target.nameless else NamedBlob)(key, target.incoming)
            try:
                _write(staged[key], size, source)
            except NotFound:
                staged.pop(key).close()
                yield key
        for blob in staged.values():
            blob.sync()
        for key, blob in staged.items():
            blob.link(target.shard(key), wanted[key], None)
            target.unstage(key)
    finally:
        for blob in staged.values():
            blob.close()


def _write(blob: StagedBlob, size: int, source: Layout) -> None:
    """The blob of this key in `source`, with its labels. Raises NotFound."""
    fd = source.read(blob.key, staged=False)
    try:
        blob.open()
        for start in range(0, size, COPY_STEP):
            blob.absorb(fd, start, min(COPY_STEP, size - start))
        blob.label(get_labels(fd))
    finally:
        os.close(fd)
