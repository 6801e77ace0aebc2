"""Forgets grants and links that ended long ago."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spool.policy import REMEMBERED

if TYPE_CHECKING:
    from spool.ports import Clock, Index


async def run_once(index: Index, clock: Clock) -> int:
    """Every grant and link that expired or was revoked 30 days ago is gone; returns how many were.

    Until then whoever comes late learns that it has ended. What came by a grant stays, and names it.
    """
    before = clock() - REMEMBERED
    return await index.forget_grants(before) + await index.forget_links(before)
