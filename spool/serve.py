"""The composition root: builds everything from the configuration, runs it, and takes it down in order."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import signal
from contextlib import aclosing, asynccontextmanager, closing, suppress
from datetime import UTC, datetime
from functools import partial
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final, NamedTuple

import aiojobs
import aiojobs.aiohttp
from aiohttp import web
from aiohttp.http import HttpRequestParser
from aiohttp.http_parser import HttpRequestParserPy

from spool import __version__
from spool.admission import Admission, Capacity
from spool.catalog import Catalog
from spool.crew.office import Counted
from spool.errors import StorageFull, Unavailable
from spool.idempotency import Idempotency
from spool.ingest import Ingest
from spool.model import Allowance
from spool.policy import Policy
from spool.process import keep_freed_memory, raise_descriptor_limit
from spool.rates import Rates
from spool.resumption import Resumption
from spool.sniff import MagicSniffer
from spool.store import INDEX, open_blobs, open_index
from spool.tokens import hash_secret, new_token
from spool.turns import Turns
from spool.upkeep import upkeep
from spool.web.app import make_app
from spool.web.connection import Runner, access_log
from spool.web.crowd import Crowd
from spool.web.resumable import make_dialects
from spool.web.site import Addresses, Readiness, Site, Traffic

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from spool import ports
    from spool.config import Config
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
BACKLOG: Final = 1024
"""Connections that the kernel keeps until they are accepted."""
_ACCEPTS: Final = 1
"""Connections that are accepted in one turn of the event loop: with each more, whoever is served waits for one more."""
_RESERVE: Final = 128
"""Descriptors that no connection may take: half of them for connections that come at once or are being refused."""
_MAX_FIELD: Final = 64 * 1024
"""Bytes of one header field: Upload-Metadata and Upload-Concat can be long."""


class Busy(Exception):
    """The address or the directory is in use by somebody else."""


def now() -> datetime:
    """The Clock of the running program."""
    return datetime.now(UTC)


class Counters(NamedTuple):
    """What is counted once for all processes, as one of them sees it."""

    ledger: ports.Ledger
    rates: Counter
    turns: ports.Turns


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
        return await blobs.free() - promised - index.owed

    limits = config.limits
    rates = Rates(index, now)
    await rates.restore()
    capacity = Capacity(limits.max_uploads, limits.min_free_space, _LOOK_AGAIN)
    return Counted(Admission(capacity, free, index.usage), rates, Turns())


def _make_ingest(  # noqa: PLR0913, PLR0917
    config: Config, blobs: LocalStore, index: SqliteIndex, sniffer: MagicSniffer, policy: Policy, ledger: ports.Ledger
) -> Ingest:
    return Ingest(
        blobs=blobs,
        files=index,
        inventory=index,
        sniffer=sniffer,
        policy=policy,
        admission=ledger,
        clock=now,
        dedupe=config.storage.dedupe,
        inline_max=config.storage.inline_max,
    )


async def make_site(
    config: Config, blobs: LocalStore, index: SqliteIndex, sniffer: MagicSniffer, counters: Counters | None = None
) -> Site:
    """Everything the handlers work with; without `counters` it has some of its own."""
    limits, server = config.limits, config.server
    ledger, rates, turns = counters or await make_counted(config, blobs, index)
    policy = Policy(
        limits.max_file_size, config.policy.allow_types, config.policy.deny_types, config.policy.expire_after or None
    )
    ingest = _make_ingest(config, blobs, index, sniffer, policy, ledger)
    ttl = limits.upload_ttl
    resumption = Resumption(
        ingest=ingest, blobs=blobs, uploads=index, files=index, policy=policy, clock=now, ttl=ttl, turns=turns
    )
    allowance = Allowance(limits.quota, limits.quota_files, limits.requests_per_minute, limits.uploads_per_principal)
    tus, rufh = make_dialects(limits.max_file_size, int(ttl.total_seconds()))
    return Site(
        ingest=ingest,
        resumption=resumption,
        tus=tus,
        rufh=rufh,
        interim_responses=server.interim_responses,
        catalog=Catalog(blobs, index, now),
        idempotency=Idempotency(index, now, turns),
        index=index,
        blobs=blobs,
        policy=policy,
        limits=limits,
        clock=now,
        allowance=allowance,
        rates=rates,
        addresses=Addresses(server.base_url, server.media_base_url, server.trusted_proxies, await index.secret()),
        accel_location=server.accel_location.rstrip("/") if server.accel else None,
        open_to_machine=_only_this_machine(config),
        traffic=Traffic(),
        readiness=Readiness(lambda: _probe(blobs, index, limits.min_free_space)),
    )


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
    """Serves until SIGTERM or SIGINT, then drains. Raises Busy or SpoolError if it cannot start."""
    stop = prepare()
    async with own_site(config) as (site, counted, _):
        background = upkeep(config.storage, site, counted.rates, site.ingest.active_keys)
        await answer(
            config,
            site,
            stop,
            listen=partial(_listen, config),
            ready=partial(_log_start, config),
            meanwhile=background,
        )
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
async def own_site(config: Config, *, shared: bool = False) -> AsyncIterator[tuple[Site, Counted, int]]:
    """The site of a process that owns the directory, what is counted in it, and the descriptor that it is owned by.

    Raises Busy or SpoolError.
    """
    with closing(MagicSniffer()) as sniffer:
        async with open_storage(config, shared=shared) as (blobs, index):
            if not await _own(blobs):
                raise Busy(f"another spool serves {config.storage.dir}: stop it, or give this one a --dir of its own")
            counted = await make_counted(config, blobs, index)
            site = await make_site(config, blobs, index, sniffer, Counters(*counted))
            if not site.open_to_machine:
                await _make_first_token(index)
            yield site, counted, blobs.owned_by()


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
    crowd, most = _make_crowd(max(1, config.limits.max_connections // share))
    runner = Runner(
        make_application(site, config.server.cors_origins),
        config.limits,
        crowd,
        handler_cancellation=True,
        auto_decompress=False,
        keepalive_timeout=_KEEPALIVE,
        lingering_time=_LINGER,
        shutdown_timeout=1,
        access_log_class=access_log(site.addresses),
        access_log=logging.getLogger("spool.access"),
        max_field_size=_MAX_FIELD,
    )
    await runner.setup()
    try:
        close = await listen(runner)
        ready(runner, most)
        async with meanwhile:
            await stop.wait()
            await _drain(config, site, close)
    finally:
        await runner.cleanup()


async def _drain(config: Config, site: Site, close: Callable[[], Awaitable[None]]) -> None:
    """First of all this: aiohttp's own clean-up would throw away what clients still send."""
    grace = config.server.shutdown_grace.total_seconds()
    _log.info("server.draining", {"grace": grace})
    await close()
    if not await site.traffic.drain(grace):
        _log.warning("server.cut_off", {"uploads": len(site.ingest.active)})


async def _listen(config: Config, runner: Runner) -> Callable[[], Awaitable[None]]:
    server = config.server
    try:
        if server.unix:
            site: web.BaseSite = web.UnixSite(runner, server.unix, backlog=_ACCEPTS)
            await site.start()
            os.chmod(server.unix, 0o660)  # noqa: PTH101  # before anything else runs
        else:
            site = web.TCPSite(runner, server.host, server.port, backlog=_ACCEPTS)
            await site.start()
    except OSError as error:
        raise cannot_listen(config, error) from error
    for listener in site._server.sockets:  # type: ignore[union-attr]  # noqa: SLF001  # aiohttp tells nobody
        with listener.dup() as kernels:
            kernels.listen(BACKLOG)  # asyncio takes one number for both
    return site.stop


def cannot_listen(config: Config, error: OSError) -> Busy:
    """What to tell when the address cannot be had."""
    server = config.server
    where = server.unix or f"{server.host}:{server.port}"
    reason = os.strerror(error.errno) if error.errno else str(error)  # asyncio's own words name the address again
    return Busy(f"cannot listen on {where}: {reason}")


def _log_start(config: Config, runner: Runner, most: int) -> None:
    log_start(config, runner.addresses, most)


def log_start(config: Config, addresses: Iterable[tuple[str, int] | str], most: int) -> None:
    """Says that and where the server listens, and how many connections it takes."""
    address = ",".join(map(_show_address, addresses))
    _log.info(
        "server.started",
        {"address": address, "dir": config.storage.dir, "version": __version__, "connections": most},
    )


def _show_address(address: tuple[str, int] | str) -> str:
    if isinstance(address, str):
        return f"unix:{address}"
    host = f"[{address[0]}]" if ":" in address[0] else address[0]
    return f"http://{host}:{address[1]}"


def _only_this_machine(config: Config) -> bool:
    """Whether nobody else can connect: a proxy that is configured speaks for others."""
    server = config.server
    if server.trusted_proxies or server.accel or server.base_url or server.media_base_url:
        return False
    host = server.host
    if server.unix or host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


async def _make_first_token(index: SqliteIndex) -> None:
    if await index.has_tokens():
        return
    token, secret = new_token("admin", ["admin"], now(), None)
    await index.add_token(token, hash_secret(secret))
    print(f"admin token, shown only now: {secret}", flush=True)  # noqa: T201  # not a log: logs are kept


def _make_crowd(max_connections: int) -> tuple[Crowd, int]:
    """Who tells when there are too many connections, and how many that are; to be called when all else is open.

    A connection may need a second descriptor, for the blob that it writes or reads. Raises Unavailable.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    at_rest = len(os.listdir("/dev/fd"))  # noqa: PTH208  # before anything is served
    most = min(max_connections, (limit - at_rest - _RESERVE) // 2)
    if most < 1:
        raise Unavailable(f"the hard limit of {limit} open files leaves none for connections: raise it (ulimit -Hn)")
    return Crowd(most, limit - _RESERVE), most
