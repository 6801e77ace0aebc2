"""Forgets entries of the audit log, the oldest first: those whose time is over, and those that are too many."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from datetime import timedelta

    from spool.ports import Audit, Clock

_MOST: Final = 1_000_000
"""Entries that are kept: some 300 MB, however many changes a client makes."""


async def run_once(audit: Audit, clock: Clock, ttl: timedelta) -> int:
    """At most 10,000 entries that are older than `ttl`, unless that is 0, or behind the latest million, are gone."""
    return await audit.forget_audited(clock() - ttl if ttl else None, _MOST)
