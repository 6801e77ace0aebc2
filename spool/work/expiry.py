"""Deletes files whose time has come, and those that were deleted and are not to be brought back any more."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from spool.errors import NotFound

if TYPE_CHECKING:
    from spool.catalog import Catalog
    from spool.ports import Clock, Files

_log = logging.getLogger(__name__)
_LOT: Final = 100


async def run_once(catalog: Catalog, files: Files, clock: Clock) -> int:
    """Every file that has expired by now, or whose grace is over, is deleted; returns how many had expired."""
    while hidden := await catalog.end_hidden(_LOT):
        for file in hidden:
            _log.info("file.ended", {"id": file.id, "size": file.size})
    deleted = 0
    while lot := await files.expired(clock(), _LOT):
        for file in lot:
            try:
                await catalog.delete(file.id, None)
            except NotFound:  # somebody else was faster
                continue
            deleted += 1
            _log.info("file.expired", {"id": file.id, "size": file.size})
    return deleted
