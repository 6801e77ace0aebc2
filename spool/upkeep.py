"""What a server does in the background: sweeps, scrubs, and keeps what it counts. One process of a server does."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import aiojobs

from spool import systemd
from spool.catalog import Catalog
from spool.errors import SpoolError
from spool.idempotency import Idempotency
from spool.work import audit, expiry, gc, resumables, scrub, sharing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine

    from spool.config import Storage, Supervision
    from spool.model import Key
    from spool.ports import Clock, Index, LabelledStore
    from spool.rates import Rates
    from spool.web.site import Site

    Active = Callable[[], Awaitable[frozenset[Key]]]
    """Tells the keys of blobs that are on their way, in any process of the server."""

_log = logging.getLogger(__name__)

FOREIGN_GRACE: Final = timedelta(hours=24)
"""How long a blob without a record is left alone where another process may still be receiving it."""
EVER: Final = datetime.max.replace(tzinfo=UTC)
_REST: Final = 3
"""So many times as long as it works a sweep does nothing: it would take its turn with every request otherwise."""
_SCRUB_EVERY: Final = timedelta(minutes=1)


@asynccontextmanager
async def upkeep(storage: Storage, site: Site, rates: Rates, active: Active) -> AsyncIterator[None]:
    """The background steps run meanwhile. `rates` are those of all processes, and so is what is `active`."""
    steps = [_sweep_for_ever(site, storage, active), rates.keep_saving()]
    if storage.scrub_interval:
        steps.append(_scrub_for_ever(site, storage.scrub_interval))
    try:
        async with running(*steps):
            yield
    finally:
        await rates.save_if_possible()


@asynccontextmanager
async def running(*steps: Coroutine[object, object, None]) -> AsyncIterator[None]:
    """These run meanwhile, and no longer."""
    jobs = aiojobs.Scheduler()
    try:
        for step in steps:
            await jobs.spawn(step)
        yield
    finally:
        await jobs.close()


async def beat(told: Supervision, started: asyncio.Event) -> None:
    """Whoever supervises this process is told that it lives, once it has `started`."""
    await started.wait()
    await systemd.beat_for_ever(told)


async def _sweep_for_ever(site: Site, storage: Storage, active: Active) -> None:
    while True:
        try:
            await resumables.run_once(site.resumption, site.index, site.clock)
            swept = await sweep(site.blobs, site.index, active, EVER, site.clock, rest=_REST)
            site.metrics.swept(*swept, site.clock().timestamp())
            await audit.run_once(site.index, site.clock, storage.audit_ttl)
        except SpoolError as error:
            site.metrics.sweeps["failed",] += 1
            _log.warning("sweep.failed", {"reason": str(error)})
        except Exception:  # noqa: BLE001  # a sweep that fails must not be the last one
            site.metrics.sweeps["failed",] += 1
            _log.exception("sweep.failed")
        await asyncio.sleep(storage.sweep_interval.total_seconds())


async def _scrub_for_ever(site: Site, interval: timedelta) -> None:
    while True:
        try:
            await scrub.run_once(site.blobs, site.index, site.clock, interval, site.metrics)
        except SpoolError as error:
            site.metrics.scrub_failures += 1
            _log.warning("scrub.failed", {"reason": str(error)})
        except Exception:  # noqa: BLE001  # a run that fails must not be the last one
            site.metrics.scrub_failures += 1
            _log.exception("scrub.failed")
        await asyncio.sleep(min(_SCRUB_EVERY, interval / 10).total_seconds())


async def sweep(  # noqa: PLR0913  # the last one has a default
    blobs: LabelledStore, index: Index, active: Active, before: datetime, clock: Clock, *, rest: float = 0
) -> tuple[int, int]:
    """Deletes expired files, and reclaims blobs that nothing needs, as `gc.run_once` says; how many of each."""
    expired = await expiry.run_once(Catalog(blobs, index, clock), index, clock)
    reclaimed = await gc.run_once(blobs, index, active, before, rest=rest)
    await sharing.run_once(index, clock)
    forgotten = await Idempotency(index, clock).forget()
    if expired or reclaimed or forgotten:
        _log.info("sweep.done", {"expired": expired, "reclaimed": reclaimed, "answers_forgotten": forgotten})
    return expired, reclaimed


async def sweep_beside(blobs: LabelledStore, index: Index, clock: Clock, *, owned: bool) -> tuple[int, int]:
    """A sweep by a process that does not serve; it leaves a day to a server that may be receiving blobs.

    `owned` says that there is none, for this process owns the directory.
    """
    return await sweep(blobs, index, gc.nobody, EVER if owned else clock() - FOREIGN_GRACE, clock)
