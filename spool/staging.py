"""How bytes are staged: in batches, each hashed and written while the next one arrives."""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
from time import monotonic
from typing import TYPE_CHECKING, Final, Protocol, Self

from spool.model import UploadId

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Sequence
    from datetime import datetime

    from spool.model import Staged
    from spool.ports import BlobWriter

HEAD: Final = 4096
"""The least that libmagic needs to be right about media."""
_SMALL: Final = 64 * 1024
"""Bytes of a body that need not be staged."""
_LONGEST: Final = 1.0
"""Seconds after which a slow client's bytes are written, though they are few."""


class Hash(Protocol):
    """As hashlib has them."""

    def update(self, data: bytes, /) -> None:
        """Takes more bytes in."""

    def digest(self) -> bytes:
        """Of the bytes so far."""

    def copy(self) -> Self:
        """One that goes its own way from here."""


Hashes = dict[str, Hash]
"""By the names that RFC 9530 gives to algorithms."""


def new_hashes(claimed: Iterable[str]) -> Hashes:
    """For SHA-256, which every file has, and for whatever else a client claims a digest of."""
    return {name: hashlib.new(name.replace("-", "")) for name in {"sha-256", *claimed}}


def update(hashes: Hashes, data: bytes) -> None:
    """All of them take in the data."""
    for hash_ in hashes.values():
        hash_.update(data)


def digests(hashes: Hashes) -> dict[str, bytes]:
    """Of all that they have taken in."""
    return {name: hash_.digest() for name, hash_ in hashes.items()}


class Stage:
    """Hashes and writes one upload's batches, each while the next one arrives."""

    def __init__(self, writer: BlobWriter, hashes: Hashes, synced: Callable[[float], None] = lambda _: None) -> None:
        """`synced` is told how many seconds each sync took."""
        self._writer = writer
        self._hashes = hashes
        self._synced = synced
        self._since = 0.0

    async def write(self, batch: Sequence[bytes]) -> None:
        """The batch is being hashed and written."""
        await self._writer.write(batch, self._see)

    async def finish(self, last: Sequence[bytes] = ()) -> tuple[Staged, dict[str, bytes]]:
        """What is staged, durably and with the batch `last`, and its digests. More may be written afterwards."""
        self._since = monotonic()
        staged = await self._writer.sync(last, self._see)
        self._synced(monotonic() - self._since)
        return staged, digests(self._hashes)

    def _see(self, data: bytes) -> None:
        update(self._hashes, data)
        self._since = monotonic()  # what is left of the step is to write this, and the sync


class Batch(list[bytes]):
    """Some of a body's bytes, in buffers."""

    def __init__(self, buffers: Iterable[bytes] = (), *, last: bool = False) -> None:
        super().__init__(buffers)
        self.last = last
        """Whether the body is known to have come to its proper end with these."""


async def batches(body: AsyncIterator[bytes], size: Callable[[], int]) -> AsyncIterator[Batch]:
    """The body in batches of about `size()` bytes, or what came within a second; the first one once it holds the head.

    What `body` raises comes after the last batch: no byte that arrived is lost.
    """
    clock = asyncio.get_running_loop().time
    batch = Batch()
    length, enough, since = 0, HEAD, clock()
    ending: BaseException | None = None
    while ending is None:
        try:
            chunk = await anext(body)
        except BaseException as error:  # noqa: BLE001  # it is raised below
            ending = error
            break
        batch.append(chunk)
        length += len(chunk)
        if length >= enough or (length >= HEAD and clock() - since >= _LONGEST):
            yield batch
            batch, length, enough, since = Batch(), 0, size(), clock()
    ended = isinstance(ending, StopAsyncIteration)
    if batch:
        batch.last = ended
        yield batch
    try:
        if not ended:
            raise ending
    finally:
        del ending  # its traceback has this frame: a cycle that would keep the request and its bytes for a while


def size_of(batch: Iterable[bytes]) -> int:
    """Bytes."""
    return sum(map(len, batch))


async def fill(held: list[bytes], source: AsyncIterator[Batch]) -> Batch | None:
    """Adds to `held` what comes while all of it is small, and returns the batch after that; None if it stays small."""
    size = size_of(held)
    if size > _SMALL:
        return await anext(source, Batch(last=True))
    async for batch in source:
        size += size_of(batch)
        if size > _SMALL:
            return batch
        held.append(b"".join(batch))  # whatever the pieces in which it came, it takes no more memory than it is long
    return None


def new_id(now: datetime) -> UploadId:
    """The id of a new upload and of its file, and their key: 32 hex digits, of which the last 25 are random.

    The first two stand for a window of four seconds. The local store spreads blobs over directories by these digits:
    uploads that are committed at the same time share a directory and so its fsync, and all 256 directories fill evenly.
    The next two tell which 17 minutes of three days it was, and three the 1/1024 s within the window: new rows lie side
    by side in the indexes of ids and keys.
    """
    ticks = int(now.timestamp() * 1024)
    window, lap, within = ticks >> 12 & 0xFF, ticks >> 20 & 0xFF, ticks & 0xFFF
    return UploadId(f"{window:02x}{lap:02x}{within:03x}{secrets.randbits(100):025x}")


def is_key(name: str) -> bool:
    """Whether `new_id` may have made this name."""
    return re.fullmatch(r"[0-9a-f]{32}", name) is not None
