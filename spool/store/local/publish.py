"""Makes blobs live: what has queued up is linked in one go, and each directory is synced once for all of it."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from spool.batch import Batcher
from spool.errors import SpoolError, StorageFull, Unavailable
from spool.store.local.staged import FULL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from spool.model import Key, Label
    from spool.store.local.layout import Layout
    from spool.store.local.staged import StagedBlob


@dataclass(frozen=True, slots=True)
class Link:
    """A blob to make live."""

    key: Key
    size: int
    """That it must have."""
    label: Label | None
    """What it is to carry."""
    body: bytes | None = field(default=None, compare=False)  # or its bytes would be hashed to find it in a dict
    """All of it, if it is not staged but still to be written."""


class Publisher:
    """One thread that makes blobs live. What they are staged as is `staged`, which they leave."""

    def __init__(self, layout: Layout, staged: dict[Key, StagedBlob]) -> None:
        self._layout = layout
        self._staged = staged
        self._batcher: Batcher[Link, None] = Batcher("publish", self._publish)

    async def publish(self, link: Link) -> None:
        """See `BlobStore.commit`."""
        await self._batcher.submit(link)

    @property
    def waiting(self) -> int:
        """Blobs that wait for the lot under way."""
        return self._batcher.waiting

    async def aclose(self) -> None:
        """See `Batcher.aclose`."""
        await self._batcher.aclose()

    def _publish(self, links: Sequence[Link]) -> list[BaseException | None]:
        """Links all of `links`, then fsyncs each of their directories once."""
        new: set[Key] = set()
        outcomes = self._stage(dict.fromkeys(links))
        outcomes = {link: error or attempt(self._link, link, new) for link, error in outcomes.items()}
        for shard in {link.key[:2] for link, error in outcomes.items() if error is None}:
            if error := attempt(os.fsync, self._layout.shards[shard]):
                outcomes.update({link: error for link in outcomes if link.key[:2] == shard})
        for link, error in outcomes.items():
            if error is None:
                if link.body is None or not self._layout.nameless:
                    attempt(self._layout.unstage, link.key)  # what stays is one more name of a live blob
            elif link.key in new:
                # asked again, fsync reports success: only a new link can be trusted
                attempt(self._layout.unlink, link.key)
        return [outcomes[link] for link in links]

    def _stage(self, outcomes: dict[Link, SpoolError | None]) -> dict[Link, SpoolError | None]:
        """Those that are not staged yet are, durably. All are written before the first fsync, which then serves all."""
        bodies = [(link, self._staged.get(link.key)) for link in outcomes if link.body is not None]
        for link, blob in bodies:
            outcomes[link] = attempt(_write, blob, link.body)
        for link, blob in bodies:
            outcomes[link] = outcomes[link] or attempt(_sync, blob)
        return outcomes

    def _link(self, link: Link, new: set[Key]) -> None:
        blob = self._staged.get(link.key)
        if blob is not None:
            blob.link(self._layout.shard(link.key), link.size, link.label)
            new.add(link.key)
            if self._staged.get(link.key) is blob:
                del self._staged[link.key]
        elif self._layout.link(link.key, link.size):
            new.add(link.key)
        else:
            self._layout.require(link.key, link.size)


def _write(blob: StagedBlob | None, body: bytes) -> None:
    if blob is None:
        raise Unavailable("the upload was discarded")
    blob.write([body])


def _sync(blob: StagedBlob) -> None:
    blob.sync()


@contextmanager
def translated() -> Iterator[None]:
    """The system's errors become those of the ports."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise StorageFull("the disk is full") from error
        raise Unavailable(f"the storage fails: {error.strerror}") from error


def attempt(step: Callable[..., object], *values: object) -> SpoolError | None:
    """What the step raises."""
    try:
        with translated():
            step(*values)
    except SpoolError as error:
        return error
    return None
