"""The composition root: builds everything from the configuration, runs it, and takes it down in order."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import resource
import signal
from contextlib import aclosing, asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

import aiojobs
import aiojobs.aiohttp
from aiohttp import web
from aiohttp.http import HttpRequestParser
from aiohttp.http_parser import HttpRequestParserPy

from spool import __version__, systemd
from spool.admission import Admission, Capacity
from spool.catalog import Catalog
from spool.certificate import certificate_of
from spool.config import supervision
from spool.errors import StorageFull, Unavailable
from spool.guests import Guests
from spool.idempotency import Idempotency
from spool.ingest import Ingest
from spool.metrics import Metrics
from spool.model import Allowance, By
from spool.policy import Policy
from spool.rates import Rates
from spool.resumption import Resumption
from spool.sniff import MagicSniffer
from spool.store import INDEX, open_blobs, open_index
from spool.tokens import hash_secret, new_token
from spool.upkeep import upkeep
from spool.web.app import make_app
from spool.web.connection import Runner, access_log
from spool.web.crowd import Crowd
from spool.web.resumable import make_dialects
from spool.web.site import Addresses, Readiness, Site, Traffic

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path
    from socket import socket

    from spool.certificate import Certificate
    from spool.config import Config, Supervision
    from spool.ports import Index, LabelledStore
    from spool.store import LocalStore, SqliteIndex

_log = logging.getLogger(__name__)

FOREIGN_GRACE: Final = timedelta(hours=24)
"""How long a blob without a record is left alone where another process may still be receiving it."""
_SCRUB_EVERY: Final = timedelta(minutes=1)
EVER: Final = datetime.max.replace(tzinfo=UTC)
_KEEPALIVE: Final = 75
_LINGER: Final = 3
"""Seconds in which what a refused client still sends is read and dropped, so that it gets to see the refusal."""
_COMMIT_GRACE: Final = 30
_LOOK_AGAIN: Final = 0.1
"""Seconds in which uploads may be admitted by one look at the disk: others may take of it meanwhile."""
_BACKLOG: Final = 1024
"""Connections that the kernel keeps until they are accepted."""
_ACCEPTS: Final = 1
"""Connections that are accepted in one turn of the event loop: with each more, whoever is served waits for one more."""
_RESERVE: Final = 128
"""Descriptors that no connection may take: half of them for connections that come at once or are being refused."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt(3)
_LARGE: Final = 1024 * 1024
"""Bytes from which on an allocation is given back to the system at once: more than a read from a socket takes."""
_MOST_KEPT: Final = 32 * 1024 * 1024
"""Bytes of freed memory that the process keeps: twice what the batches of all uploads share."""
_MAX_FIELD: Final = 64 * 1024
"""Bytes of one header field: Upload-Metadata and Upload-Concat can be long."""


class Busy(Exception):
    """The address or the directory is in use by somebody else."""


def now() -> datetime:
    """The Clock of the running program."""
    return datetime.now(UTC)


@asynccontextmanager
async def open_storage(config: Config) -> AsyncIterator[tuple[LocalStore, SqliteIndex]]:
    """The blobs and the index, closed at the end. Raises SpoolError."""
    os.umask(0o077)
    directory = config.storage.dir
    async with aclosing(await open_blobs(directory)) as blobs:
        await _refuse_lost_index(directory, blobs)
        async with aclosing(await open_index(directory)) as index:
            yield blobs, index


async def _refuse_lost_index(directory: Path, blobs: LocalStore) -> None:
    """Raises Unavailable where a new index would be made though there are blobs: the first sweep would take them."""
    with suppress(FileNotFoundError):
        if (directory / INDEX).stat().st_size:
            return
    async for _ in blobs.keys(live=True):
        raise Unavailable(f"{directory} holds blobs but no index: restore a backup, or run `spool reindex`")


def _make_ingest(
    config: Config, blobs: LocalStore, index: SqliteIndex, sniffer: MagicSniffer, policy: Policy
) -> Ingest:
    async def free() -> int:
        promised = await index.promised()  # first, or bytes that arrive in between would count nowhere
        return await blobs.free() - promised - index.owed

    limits = config.limits
    return Ingest(
        blobs=blobs,
        files=index,
        inventory=index,
        sniffer=sniffer,
        policy=policy,
        admission=Admission(
            Capacity(limits.max_uploads, limits.min_free_space, _LOOK_AGAIN), free, index.usage, index.grant_usage
        ),
        clock=now,
        dedupe=config.storage.dedupe,
        inline_max=config.storage.inline_max,
        metrics=Metrics(),
    )


def _make_resumption(
    ingest: Ingest, blobs: LocalStore, index: SqliteIndex, policy: Policy, ttl: timedelta
) -> Resumption:
    return Resumption(
        ingest=ingest, blobs=blobs, uploads=index, files=index, grants=index, policy=policy, clock=now, ttl=ttl
    )


async def make_site(
    config: Config, blobs: LocalStore, index: SqliteIndex, sniffer: MagicSniffer, sockets: Sequence[socket] = ()
) -> Site:
    """Everything the handlers work with. The server listens on `sockets`, or as it is configured."""
    limits, server = config.limits, config.server
    policy = Policy(
        limits.max_file_size, config.policy.allow_types, config.policy.deny_types, config.policy.expire_after or None
    )
    ingest = _make_ingest(config, blobs, index, sniffer, policy)
    allowance = Allowance(limits.quota, limits.quota_files, limits.requests_per_minute, limits.uploads_per_principal)
    rates = Rates(index, now)
    await rates.restore()
    tus, rufh = make_dialects(limits.max_file_size, int(limits.upload_ttl.total_seconds()))
    return Site(
        ingest=ingest,
        resumption=_make_resumption(ingest, blobs, index, policy, limits.upload_ttl),
        tus=tus,
        rufh=rufh,
        interim_responses=server.interim_responses,
        catalog=Catalog(blobs, index, now),
        idempotency=Idempotency(index, now),
        index=index,
        blobs=blobs,
        policy=policy,
        limits=limits,
        clock=now,
        allowance=allowance,
        rates=rates,
        guests=Guests(index, rates, now, allowance),
        addresses=Addresses(server.base_url, server.media_base_url, server.trusted_proxies, await index.secret()),
        accel_location=server.accel_location.rstrip("/") if server.accel else None,
        open_to_machine=_only_this_machine(config, sockets),
        traffic=Traffic(),
        metrics=ingest.metrics,
        metrics_public=server.metrics == "public",
        queues={"publish": lambda: blobs.queued, "index": lambda: index.queued},
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
    """Serves until SIGTERM or SIGINT, then drains. Raises Busy, ConfigError or SpoolError if it cannot start."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    told = supervision()
    sockets = systemd.inherited(told)
    certificate = certificate_of(config.server)
    if certificate:
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, certificate.renewed.set)
    _require_compiled_parser()
    raise_descriptor_limit()
    _keep_freed_memory()
    sniffer = MagicSniffer()
    async with open_storage(config) as (blobs, index):
        if not blobs.lock():
            raise Busy(f"another spool serves {config.storage.dir}: stop it, or give this one a --dir of its own")
        site = await make_site(config, blobs, index, sniffer, sockets)
        if not site.open_to_machine:
            await _make_first_token(index)
        await _serve(config, site, certificate, stop, told=told, sockets=sockets)
    await sniffer.aclose()
    _log.info("server.stopped")


def _require_compiled_parser() -> None:
    """The other one reads heads in ways of its own, which no test here has looked at. Raises Unavailable."""
    if HttpRequestParser is HttpRequestParserPy:
        raise Unavailable("aiohttp runs without its compiled parser: unset AIOHTTP_NO_EXTENSIONS, or install its wheel")


async def _serve(  # noqa: PLR0913  # what it is made of
    config: Config,
    site: Site,
    certificate: Certificate | None,
    stop: asyncio.Event,
    *,
    told: Supervision,
    sockets: Sequence[socket],
) -> None:
    crowd, most = _make_crowd(config.limits.max_connections, site.metrics)
    runner = _make_runner(config, site, crowd, certificate)
    await runner.setup()
    background = aiojobs.Scheduler()
    try:
        await _listen(config, runner, sockets)
        _log_start(config, runner, most)
        systemd.tell(told, "READY=1")
        await background.spawn(systemd.beat_for_ever(told))
        if certificate:
            await background.spawn(certificate.reload_for_ever())
        async with upkeep(config.storage, site):
            await stop.wait()
            systemd.tell(told, "STOPPING=1")
            await _drain(config, site, runner)
    finally:
        await background.close()
        await runner.cleanup()


async def _drain(config: Config, site: Site, runner: Runner) -> None:
    """First of all: aiohttp's own clean-up would throw away what clients still send."""
    grace = config.server.shutdown_grace.total_seconds()
    _log.info("server.draining", {"grace": grace})
    for listener in runner.sites:
        await listener.stop()
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


async def _listen(config: Config, runner: Runner, sockets: Sequence[socket]) -> None:
    server = config.server
    try:
        if sockets:
            sites: list[web.BaseSite] = [web.SockSite(runner, given, backlog=_ACCEPTS) for given in sockets]
        elif server.unix:
            sites = [web.UnixSite(runner, server.unix, backlog=_ACCEPTS)]
        else:
            sites = [web.TCPSite(runner, server.host, server.port, backlog=_ACCEPTS)]
        for site in sites:
            await site.start()
        if server.unix and not sockets:
            os.chmod(server.unix, 0o660)  # noqa: PTH101  # before anything else runs
    except OSError as error:
        where = server.unix or f"{server.host}:{server.port}"
        reason = os.strerror(error.errno) if error.errno else str(error)  # asyncio's own words name the address again
        raise Busy(f"cannot listen on {where}: {reason}") from error
    listening = [each for site in sites for each in site._server.sockets]  # type: ignore[union-attr]  # noqa: SLF001  # aiohttp tells nobody
    for listener in listening:
        with listener.dup() as kernels:
            kernels.listen(_BACKLOG)  # asyncio takes one number for both


def _log_start(config: Config, runner: Runner, most: int) -> None:
    scheme = "https" if config.server.tls_cert else "http"
    address = ",".join(_show_address(address, scheme) for address in runner.addresses)
    _log.info(
        "server.started",
        {"address": address, "dir": config.storage.dir, "version": __version__, "connections": most},
    )


def _show_address(address: tuple[str, int] | str, scheme: str) -> str:
    if isinstance(address, str):
        return f"unix:{address}"
    host = f"[{address[0]}]" if ":" in address[0] else address[0]
    return f"{scheme}://{host}:{address[1]}"


def _only_this_machine(config: Config, sockets: Sequence[socket]) -> bool:
    """Whether nobody else can connect: a proxy that is configured speaks for others."""
    server = config.server
    if server.trusted_proxies or server.accel or server.base_url or server.media_base_url:
        return False
    if sockets:
        return systemd.only_this_machine(sockets)
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


def raise_descriptor_limit() -> None:
    """As many files may be open as the system allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _keep_freed_memory() -> None:
    """Buffers that sockets are read into are used again: glibc gives them back, and then each page costs a fault."""
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):  # other C libraries have none
        mallopt(_M_MMAP_THRESHOLD, _LARGE)
        mallopt(_M_TRIM_THRESHOLD, _MOST_KEPT)
