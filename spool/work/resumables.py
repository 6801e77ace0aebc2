"""Finishes resumable uploads that a crash left complete, and gives up those that have expired."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from spool.errors import NotFound, SpoolError

if TYPE_CHECKING:
    from spool.model import Resumable
    from spool.ports import Clock, Uploads
    from spool.resumption import Resumption

_log = logging.getLogger(__name__)
_LOT: Final = 100


async def run_once(resumption: Resumption, uploads: Uploads, clock: Clock) -> int:
    """At most 100 complete uploads are files, and every expired one is gone, but for those at which a request is.

    Returns how many there were.
    """
    handled = 0
    for upload in await uploads.unfinished(_LOT):
        if not resumption.has_turn(upload.id):
            handled += await _finish(resumption, upload)
    while lot := [u for u in await uploads.stale(clock(), _LOT) if not resumption.has_turn(u.id)]:
        for upload in lot:
            handled += await _give_up(resumption, upload)
    return handled


async def _finish(resumption: Resumption, upload: Resumable) -> bool:
    try:
        await resumption.finish(upload)
    except SpoolError as error:  # tried again by the next sweep, or by its client
        _log.warning("upload.unfinished", {"id": upload.id, "reason": str(error)})
        return False
    return True


async def _give_up(resumption: Resumption, upload: Resumable) -> bool:
    try:
        await resumption.give_up(upload.id)
    except NotFound:  # somebody else was faster
        return False
    _log.info("upload.expired", {"id": upload.id, "size": upload.staged.offset, "state": upload.state})
    return True
