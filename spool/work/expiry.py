"""Deletes files whose time has come."""

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
    """Every file that has expired by now is deleted; returns how many were."""
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
