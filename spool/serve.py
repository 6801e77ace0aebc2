"""The composition root: builds everything from the configuration, runs it, and takes it down in order."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import signal
import time
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

import aiojobs
import aiojobs.aiohttp
from aiohttp.http import HttpRequestParser
from aiohttp.http_parser import HttpRequestParserPy

from spool import __version__, systemd
from spool.admission import Admission, Capacity
from spool.attempts import Attempts
from spool.catalog import Catalog
from spool.certificate import certificate_of
from spool.config import supervision, traced
from spool.crew.office import Counted
from spool.errors import StorageFull, Unavailable
from spool.guests import Guests
from spool.idempotency import Idempotency
from spool.ingest import Ingest
from spool.metrics import Metrics
from spool.model import Allowance, By
from spool.policy import Policy
from spool.process import collect_less_often, keep_freed_memory, raise_descriptor_limit
from spool.rates import Rates
from spool.resumption import Resumption
from spool.sniff import MagicSniffer
from spool.store import INDEX, open_blobs, open_index
from spool.tokens import hash_secret, new_token
from spool.tracing import open_tracing
from spool.turns import Turns
from spool.upkeep import beat, running, upkeep
from spool.web.app import make_app
from spool.web.connection import Runner, access_log
from spool.web.crowd import Crowd
from spool.web.listen import Busy as Busy  # noqa: PLC0414  # what `run` raises
from spool.web.listen import listen_on, only_this_machine, show_address
from spool.web.resumable import make_dialects
from spool.web.site import Addresses, Readiness, Site, Traffic

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path
    from socket import socket

    from aiohttp import web

    from spool import counting
    from spool.certificate import Certificate
    from spool.config import Config, Limits
    from spool.ports import Index, LabelledStore
    from spool.rates import Counter
    from spool.store import LocalStore, SqliteIndex

_log = logging.getLogger(__name__)

_LOCK_TRIES, _LOCK_PAUSE = 20, 0.05
_KEEPALIVE: Final = 75
_LINGER: Final = 3
"""Seconds in which what a refused client still sends is read and dropped, so that it gets to see the refusal."""
_COMMIT_GRACE: Final = 30
_LOOK_AGAIN: Final = 0.1
"""Seconds in which uploads may be admitted by one look at the disk: others may take of it meanwhile."""
_RESERVE: Final = 128
"""Descriptors that no connection may take: half of them for connections that come at once or are being refused."""
_MAX_FIELD: Final = 64 * 1024
"""Bytes of one header field: Upload-Metadata and Upload-Concat can be long."""


def now() -> datetime:
    """The Clock of the running program."""
    return datetime.now(UTC)


class Counters(NamedTuple):
    """What is counted once for all processes, as one of them sees it."""

    ledger: counting.Ledger
    rates: Counter
    turns: counting.Turns
    attempts: counting.Attempts


@asynccontextmanager
async def open_storage(config: Config, *, shared: bool = False) -> AsyncIterator[tuple[LocalStore, SqliteIndex]]:
    """The blobs and the index, closed at the end; `shared` if several processes serve. Raises SpoolError."""
    os.umask(0o077)
    directory = config.storage.dir
    async with aclosing(await open_blobs(directory)) as blobs:
        await _refuse_lost_index(directory, blobs)
        async with aclosing(await open_index(directory, shared=shared)) as index:
            yield blobs, index


async def _refuse_lost_index(directory: Path, blobs: LocalStore) -> None:
    """Raises Unavailable where a new index would be made though there are blobs: the first sweep would take them."""
    with suppress(FileNotFoundError):
        if (directory / INDEX).stat().st_size:
            return
    async for _ in blobs.keys(live=True):
        raise Unavailable(f"{directory} holds blobs but no index: restore a backup, or run `spool reindex`")


async def make_counted(config: Config, blobs: LocalStore, index: SqliteIndex) -> Counted:
    """What is counted once; the rates go on where they were saved."""

    async def free() -> int:
        promised = await index.promised()  # first, or bytes that arrive in between would count nowhere
        return await blobs.free() - promised - await index.owed()

    limits = config.limits
    rates = Rates(index, now)
    await rates.restore()
    capacity = Capacity(limits.max_uploads, limits.min_free_space, _LOOK_AGAIN)
    return Counted(Admission(capacity, free, index.usage, index.grant_usage), rates, Turns(), Attempts(now))


def _make_ingest(
    config: Config, blobs: LocalStore, index: SqliteIndex, sniffer: MagicSniffer, ledger: counting.Ledger
) -> Ingest:
    return Ingest(
        blobs=blobs,
        files=index,
        inventory=index,
        sniffer=sniffer,
        policy=_policy(config),
        admission=ledger,
        clock=now,
        dedupe=config.storage.dedupe,
        inline_max=config.storage.inline_max,
        metrics=Metrics(),
    )


async def make_site(
    config: Config, blobs: LocalStore, index: SqliteIndex, sniffer: MagicSniffer, *, counters: Counters | None = None
) -> Site:
    """Everything the handlers work with, with counters of its own if need be. It listens as it is configured."""
    limits, server = config.limits, config.server
    ledger, rates, turns, attempts = counters or await make_counted(config, blobs, index)
    ingest = _make_ingest(config, blobs, index, sniffer, ledger)
    tus, rufh = make_dialects(limits.max_file_size, int(limits.upload_ttl.total_seconds()))
    return Site(
        ingest=ingest,
        resumption=_make_resumption(config, blobs, index, ingest, turns),
        tus=tus,
        rufh=rufh,
        interim_responses=server.interim_responses,
        catalog=Catalog(blobs, index, now),
        idempotency=Idempotency(index, now, turns),
        index=index,
        blobs=blobs,
        policy=_policy(config),
        limits=limits,
        clock=now,
        undo_grace=config.storage.undo_grace,
        allowance=_allowance(limits),
        rates=rates,
        guests=Guests(index, rates, now, _allowance(limits)),
        attempts=attempts,
        addresses=Addresses(server.base_url, server.media_base_url, server.trusted_proxies, await index.secret()),
        accel_location=server.accel_location.rstrip("/") if server.accel else None,
        open_to_machine=only_this_machine(config),
        traffic=Traffic(),
        metrics=ingest.metrics,
        metrics_public=server.metrics == "public",
        queues={"publish": lambda: blobs.queued, "index": lambda: index.queued},
        readiness=Readiness(lambda: _probe(blobs, index, limits.min_free_space)),
    )


def _make_resumption(
    config: Config, blobs: LocalStore, index: SqliteIndex, ingest: Ingest, turns: counting.Turns
) -> Resumption:
    return Resumption(
        ingest=ingest,
        blobs=blobs,
        uploads=index,
        files=index,
        grants=index,
        policy=_policy(config),
        clock=now,
        ttl=config.limits.upload_ttl,
        turns=turns,
    )


def _policy(config: Config) -> Policy:
    policy = config.policy
    return Policy(config.limits.max_file_size, policy.allow_types, policy.deny_types, policy.expire_after or None)


def _allowance(limits: Limits) -> Allowance:
    return Allowance(limits.quota, limits.quota_files, limits.requests_per_minute, limits.uploads_per_principal)


async def _probe(blobs: LabelledStore, index: Index, min_free_space: int) -> None:
    await blobs.probe()
    await index.probe()
    if await blobs.free() < min_free_space:
        raise StorageFull("less than limits.min_free_space is left on the disk")


def make_application(site: Site, cors_origins: Sequence[str] = ()) -> web.Application:
    """The web application, with the scheduler that lets a commit outlive its client."""
    app = make_app(site, cors_origins)
    aiojobs.aiohttp.setup(app, limit=None, wait_timeout=_COMMIT_GRACE, close_timeout=_COMMIT_GRACE)
    return app


async def run(config: Config) -> None:
    """Serves until SIGTERM or SIGINT, then drains. Raises Busy, ConfigError or SpoolError if it cannot start."""
    stop, told = prepare(), supervision()
    sockets = systemd.inherited(told)
    certificate, started = certificate_of(config.server), asyncio.Event()
    if certificate:
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, certificate.renewed.set)
    async with own_site(config, sockets) as (own, counted, _), telling_spans(own) as site:

        def ready(runner: Runner, most: int) -> None:
            log_start(config, runner.addresses, most)
            systemd.tell(told, "READY=1")
            started.set()

        async with running(beat(told, started)):
            background = upkeep(config.storage, site, counted.rates, site.ingest.active_keys)
            listen = partial(listen_on, config, sockets)
            await answer(config, site, certificate, stop, listen=listen, ready=ready, meanwhile=background)
    _log.info("server.stopped")


def prepare() -> asyncio.Event:
    """The process is ready to serve; what it returns is set by SIGTERM and SIGINT. Raises Unavailable."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    _require_compiled_parser()
    raise_descriptor_limit()
    keep_freed_memory()
    return stop


@asynccontextmanager
async def own_site(
    config: Config, sockets: Sequence[socket], *, shared: bool = False
) -> AsyncIterator[tuple[Site, Counted, int]]:
    """The site of a process that owns the directory, what is counted in it, and the descriptor that it is owned by.

    Raises Busy or SpoolError.
    """
    async with aclosing(MagicSniffer()) as sniffer, open_storage(config, shared=shared) as (blobs, index):
        if not await _own(blobs):
            raise Busy(f"another spool serves {config.storage.dir}: stop it, or give this one a --dir of its own")
        counted = await make_counted(config, blobs, index)
        site = await make_site(config, blobs, index, sniffer, counters=Counters(*counted))
        site = replace(site, open_to_machine=only_this_machine(config, sockets))
        if not site.open_to_machine:
            await _make_first_token(index)
        yield site, counted, blobs.owned_by()


@asynccontextmanager
async def telling_spans(site: Site) -> AsyncIterator[Site]:
    """The site, with what tells of spans if anybody wants to know. Raises ConfigError."""
    async with open_tracing(traced(), time.time_ns) as tracing:
        if tracing is None:
            yield site
            return
        tracing.watch(site.metrics)
        yield replace(site, tracing=tracing)


async def _own(blobs: LocalStore) -> bool:
    """Whether this process owns the directory: workers of a server that was killed need a moment to end."""
    for _ in range(_LOCK_TRIES):
        if blobs.lock():
            return True
        await asyncio.sleep(_LOCK_PAUSE)
    return False


def _require_compiled_parser() -> None:
    """The other one reads heads in ways of its own, which no test here has looked at. Raises Unavailable."""
    if HttpRequestParser is HttpRequestParserPy:
        raise Unavailable("aiohttp runs without its compiled parser: unset AIOHTTP_NO_EXTENSIONS, or install its wheel")


async def answer(  # noqa: PLR0913  # the two composition roots name each of them
    config: Config,
    site: Site,
    certificate: Certificate | None,
    stop: asyncio.Event,
    *,
    listen: Callable[[Runner], Awaitable[Callable[[], Awaitable[None]]]],
    ready: Callable[[Runner, int], None],
    meanwhile: AbstractAsyncContextManager[None],
    share: int = 1,
) -> None:
    """Answers requests until `stop`, then drains. Takes one `share`-th of the connections.

    `ready` is told how many those are, once `listen` has begun to take some; from then on `meanwhile` is entered. What
    `listen` returns ends it.
    """
    crowd, most = _make_crowd(max(1, config.limits.max_connections // share), site.metrics)
    runner = _make_runner(config, site, crowd, certificate)
    await runner.setup()
    jobs = aiojobs.Scheduler()
    try:
        close = await listen(runner)
        ready(runner, most)
        collect_less_often()
        await jobs.spawn(site.guests.watch())
        if certificate:
            await jobs.spawn(certificate.reload_for_ever())
        async with meanwhile:
            await stop.wait()
            await _drain(config, site, close)
    finally:
        await jobs.close()
        await runner.cleanup()


async def _drain(config: Config, site: Site, close: Callable[[], Awaitable[None]]) -> None:
    """First of all: aiohttp's own clean-up would throw away what clients still send."""
    grace = config.server.shutdown_grace.total_seconds()
    _log.info("server.draining", {"grace": grace})
    await close()
    if not await site.traffic.drain(grace):
        _log.warning("server.cut_off", {"uploads": len(site.ingest.active)})


def _make_runner(config: Config, site: Site, crowd: Crowd, certificate: Certificate | None) -> Runner:
    return Runner(
        make_application(site, config.server.cors_origins),
        config.limits,
        crowd,
        certificate.context if certificate else None,
        handler_cancellation=True,
        auto_decompress=False,
        keepalive_timeout=_KEEPALIVE,
        lingering_time=_LINGER,
        shutdown_timeout=1,
        access_log_class=access_log(site.addresses),
        access_log=logging.getLogger("spool.access") if config.log.access else None,
        max_field_size=_MAX_FIELD,
    )


def log_start(config: Config, addresses: Iterable[tuple[str, int] | str], most: int) -> None:
    """Says that and where the server listens, and how many connections it takes."""
    scheme = "https" if config.server.tls_cert else "http"
    address = ",".join(show_address(address, scheme) for address in addresses)
    _log.info(
        "server.started",
        {"address": address, "dir": config.storage.dir, "version": __version__, "connections": most},
    )


async def _make_first_token(index: SqliteIndex) -> None:
    if await index.has_tokens():
        return
    token, secret = new_token("admin", ["admin"], now(), None)
    await index.add_token(token, hash_secret(secret), By("server", "server", now()))
    print(f"admin token, shown only now: {secret}", flush=True)  # noqa: T201  # not a log: logs are kept


def _make_crowd(max_connections: int, metrics: Metrics) -> tuple[Crowd, int]:
    """Who tells when there are too many connections, and how many that are; to be called when all else is open.

    A connection may need a second descriptor, for the blob that it writes or reads. Raises Unavailable.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    at_rest = len(os.listdir("/dev/fd"))  # noqa: PTH208  # before anything is served
    most = min(max_connections, (limit - at_rest - _RESERVE) // 2)
    if most < 1:
        raise Unavailable(f"the hard limit of {limit} open files leaves none for connections: raise it (ulimit -Hn)")
    return Crowd(most, limit - _RESERVE, metrics), most
