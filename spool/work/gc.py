"""Reclaims blobs that no file names: what crashes, cancels and errors left behind."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from datetime import datetime

    from spool.model import Key
    from spool.ports import BlobStore, Files

_log = logging.getLogger(__name__)
_LOT: Final = 500


async def run_once(
    blobs: BlobStore,
    files: Files,
    active: Callable[[], Awaitable[frozenset[Key]]],
    before: datetime,
    *,
    rest: float = 0,
) -> int:
    """Every blob that nothing needs, and that was last written before `before`, is gone; returns how many were.

    `active` tells the keys that uploads of this server hold. Asking in this order leaves no race: a blob seen first,
    then not active, then without a row, can only be one whose upload had ended before without a commit. Where other
    processes take uploads, `before` has to lie further back than any of theirs may last.

    After each lot nothing is done for `rest` times as long as it took, for the sake of what else the process does.
    """
    reclaimed = 0
    start = time.monotonic()
    async for lot in _lots(blobs, before):
        idle = lot.keys() - await active()
        for key in idle - await files.referenced(idle):
            if await blobs.delete(key):  # its upload may have done so since
                reclaimed += 1
                _log.info("blob.reclaimed", {"key": key, "size": lot[key]})
        if len(lot) == _LOT:  # there may be another
            await asyncio.sleep(rest * (time.monotonic() - start))
            start = time.monotonic()
    return reclaimed


async def nobody() -> frozenset[Key]:
    """For `active`, where no uploads are taken."""
    return frozenset()


async def _lots(blobs: BlobStore, before: datetime) -> AsyncIterator[dict[Key, int]]:
    lot: dict[Key, int] = {}
    async for key, size, written_at in blobs.keys():
        if written_at < before:
            lot[key] = size
        if len(lot) == _LOT:
            yield lot
            lot = {}
    if lot:
        yield lot
