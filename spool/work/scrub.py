"""Reads all live blobs again, little by little, and marks the files whose bytes are not what they were."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from datetime import timedelta
from itertools import groupby
from math import ceil
from typing import TYPE_CHECKING, Final

from spool.errors import SpoolError
from spool.metrics import Metrics
from spool.model import Key, Scrub
from spool.work.inspection import Look, judge, look_at

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from spool.model import File
    from spool.ports import BlobStore, Clock, Index

_log = logging.getLogger(__name__)

_RATE: Final = 32 * 1024 * 1024
"""Bytes a second, at most."""
_MOST: Final = 60 * _RATE
"""Bytes after which one run ends, so that what it has done is noted."""
_LONGEST: Final = timedelta(hours=1)
"""What a server that stood still makes up for: the rest only makes the pass longer."""
_PAGE: Final = 100
_DIGITS: Final = 8
"""Digits of a key that tell its place among all."""
_PLACES: Final = 16**_DIGITS


async def run_once(
    blobs: BlobStore, index: Index, clock: Clock, interval: timedelta, metrics: Metrics | None = None
) -> int:
    """The blobs that have become due since the last run are read and judged; returns how many there were.

    A pass over all takes about `interval`. Keys are spread evenly, so the share of keys that is due is the share of the
    interval that has gone by. A blob that cannot be read at all is passed over, and then the run raises.
    """
    scrub = await _begun(index, clock())
    end = _due(scrub, clock(), interval)
    run = _Run(blobs, index, replace(scrub, noted_at=clock()), metrics or Metrics())
    try:
        await run.upto(end)
    finally:
        await index.note_scrubbed(run.scrub)
    if end is None and run.is_over:
        done = run.scrub
        _log.info("scrub.done", {"blobs": done.blobs, "size": done.size, "damaged": done.damaged})
        await index.note_scrubbed(_new(clock()))
    return run.scrub.blobs - scrub.blobs


async def _begun(index: Index, now: datetime) -> Scrub:
    return await index.scrubbed() or _new(now)


def _new(now: datetime) -> Scrub:
    return Scrub(started_at=now, noted_at=now, position=Key(""))


def _due(scrub: Scrub, now: datetime, interval: timedelta) -> Key | None:
    """Blobs below this key are due; all are if it is None."""
    gone_by = max(timedelta(), min(now - scrub.noted_at, _LONGEST))
    place = int(scrub.position[:_DIGITS].ljust(_DIGITS, "0"), 16) + ceil(gone_by / interval * _PLACES)
    return None if place >= _PLACES else Key(f"{place:0{_DIGITS}x}")


class _Run:
    """One run, and how far it has come."""

    def __init__(self, blobs: BlobStore, index: Index, scrub: Scrub, metrics: Metrics) -> None:
        self.scrub = scrub
        self.is_over = False
        """Whether all that was due is done."""
        self._blobs = blobs
        self._index = index
        self._metrics = metrics
        self._left = _MOST

    async def upto(self, end: Key | None) -> None:
        """Blobs from the scrub's position to `end` are done, or as many as one run may read."""
        start, last = self.scrub.position, None
        while files := await self._index.by_key(last, _PAGE, start=start, end=end):
            for key, sharing in groupby(files, key=lambda file: file.key):
                await self._check(key, list(sharing))
                if self._left < 0:
                    return
            last = files[-1]
        self.is_over = True
        if end is not None:
            self.scrub = replace(self.scrub, position=max(end, self.scrub.position))

    async def _check(self, key: Key, files: Sequence[File]) -> None:
        past = Key(f"{key}0")  # nothing lies between
        if self.scrub.position == past:  # the rest of those that share it
            return
        try:
            seen = await look_at(self._blobs, self._index, files[0], read=True, pace=_pause)
        except SpoolError:
            self.scrub = replace(self.scrub, position=past)
            raise
        damaged = await _mark(self._index, key, files, seen)
        size = seen.size or 0
        self._left -= size
        self._metrics.scrubbed(size, damaged=damaged)
        self.scrub = replace(
            self.scrub,
            position=past,
            blobs=self.scrub.blobs + 1,
            size=self.scrub.size + size,
            damaged=self.scrub.damaged + damaged,
        )


async def _pause(size: int) -> None:
    await asyncio.sleep(size / _RATE)


async def _mark(index: Index, key: Key, files: Sequence[File], seen: Look) -> bool:
    """Whether the blob is damaged; its files are marked as they should be."""
    judged = await judge(index, files, seen)
    kind = next((kind for _, kind in judged if kind is not None), None)
    if judged and (changed := await index.mark(key, kind)):
        if kind is None:
            _log.info("blob.healed", {"key": key, "files": len(changed)})
        else:
            _log.error("blob.damaged", {"key": key, "damage": kind, "files": len(changed)})
    return kind is not None
