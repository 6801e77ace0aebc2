"""What the handlers work with, and how the world sees this server."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import secrets
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from ipaddress import ip_address
from itertools import count
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from aiohttp import web

from spool.errors import BadRequest, Unavailable
from spool.metrics import Tally
from spool.protocol.http import is_host

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
    from datetime import datetime

    from spool.catalog import Catalog
    from spool.config import Limits
    from spool.counting import Attempts
    from spool.guests import Guests
    from spool.idempotency import Idempotency
    from spool.ingest import Ingest
    from spool.metrics import Metrics
    from spool.model import Allowance, File
    from spool.policy import Policy
    from spool.ports import Clock, Index, LabelledStore
    from spool.protocol.resumable import Dialect
    from spool.rates import Counter
    from spool.resumption import Resumption
    from spool.tracing import Tracing
    from spool.units import Network

_SIGNED_FOR: Final = timedelta(hours=6)
"""How long a signed address of a file's content works: long enough to watch what it leads to."""


class Traffic:
    """The requests that are being answered, so that a server that shuts down can wait for them."""

    def __init__(self) -> None:
        self._running = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self.draining = False
        """No new requests are taken."""
        self._numbers = count(secrets.randbits(64))

    def next_id(self) -> str:
        """An id for a request: 16 hex digits that no other one of this server has."""
        return f"{next(self._numbers) % 2**64:016x}"

    @contextmanager
    def request(self) -> Iterator[None]:
        """One request is being answered. Raises Unavailable while draining."""
        if self.draining:
            raise Unavailable("the server is shutting down")
        self._running += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._running -= 1
            if not self._running:
                self._idle.set()

    async def drain(self, grace: float) -> bool:
        """From now on no requests are taken; whether those that were running ended within `grace` seconds."""
        self.draining = True
        try:
            async with asyncio.timeout(grace):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True


class Readiness:
    """One probe's outcome, for all who ask within a second: anybody may ask, and a probe writes to the disk."""

    def __init__(self, probe: Callable[[], Coroutine[None, None, None]]) -> None:
        """`probe` raises what is in the way."""
        self._probe = probe
        self._probing: asyncio.Future[None] | None = None
        self._stale_at = 0.0

    async def require(self) -> None:
        """Raises what the latest probe raised. Who goes away does not end the probe for the others."""
        loop = asyncio.get_running_loop()
        if self._probing is None or (self._probing.done() and loop.time() >= self._stale_at):
            self._stale_at = loop.time() + 1
            self._probing = asyncio.ensure_future(self._probe())
        await asyncio.shield(self._probing)


@dataclass(frozen=True, slots=True)
class Site:
    """Everything a handler may need, made by the composition root."""

    ingest: Ingest
    catalog: Catalog
    idempotency: Idempotency
    index: Index
    blobs: LabelledStore
    policy: Policy
    limits: Limits
    clock: Clock
    undo_grace: timedelta
    """How long a file that a person deleted can be brought back; none if it is zero."""
    allowance: Allowance
    """What a principal is allowed for whom nothing else is set."""
    rates: Counter
    guests: Guests
    attempts: Attempts
    addresses: Addresses
    accel_location: str | None
    """Where nginx keeps the blobs for X-Accel-Redirect; None to send the bytes ourselves."""
    open_to_machine: bool
    """Nobody but users of this machine can connect, so that without any token all of them may do everything."""
    traffic: Traffic
    readiness: Readiness
    metrics: Metrics
    metrics_public: bool
    """Who may connect may also read them."""
    queues: Mapping[str, Callable[[], int]]
    """How many commits wait for each of the threads that do them."""
    resumption: Resumption
    tus: Dialect
    rufh: Dialect
    interim_responses: bool
    """Clients of the IETF draft are sent 104s."""
    tracing: Tracing | None = None
    """What tells of spans, if anybody wants to know."""
    gather: Callable[[], Awaitable[Tally]] | None = None
    """Asks all processes of this server for their tallies, and adds them up; None if this is the only one."""

    def tally(self) -> Tally:
        """What this process has counted, and how it stands."""
        queued = {name: waiting() for name, waiting in self.queues.items()}
        return Tally(self.metrics, self.ingest.running, queued, [os.getpid()])


SITE: Final = web.AppKey("site", Site)


@dataclass(frozen=True, slots=True)
class Addresses:
    """Makes the addresses that clients are given."""

    base_url: str
    media_base_url: str
    trusted_proxies: Sequence[Network]
    secret: bytes
    """Signs addresses on another origin, where the client's token does not go, and what guests' browsers keep."""

    def base(self, request: web.BaseRequest) -> str:
        """The address of this server as the client knows it, without a slash at the end."""
        if self.base_url:
            return self.base_url
        scheme, host = request.scheme, request.host
        if self._behind_proxy(request):
            forwarded = _first(request, "X-Forwarded-Proto")
            scheme = forwarded if forwarded in ("http", "https") else scheme
            host = _first(request, "X-Forwarded-Host") or host
        return f"{scheme}://{host}"

    def require_host(self, request: web.BaseRequest) -> None:
        """Raises BadRequest if the address by which the client knows this server cannot be one."""
        hosts = [request.headers.get("Host", "localhost")]
        if self._behind_proxy(request):
            hosts.append(_first(request, "X-Forwarded-Host") or "localhost")
        if not all(is_host(host) for host in hosts):
            raise BadRequest("the Host of the request is not a name or an IP address, with or without a port")

    def client(self, request: web.BaseRequest) -> str:
        """The client's IP address, as far as it is known: the last hop that no trusted proxy vouches for."""
        hops = [*_hops(request), request.remote or "unix"]
        while len(hops) > 1 and self._trusted(hops[-1]):
            hops.pop()
        return hops[-1]

    def record(self, request: web.BaseRequest, file: File) -> str:
        """The address of the file's record."""
        return f"{self.base(request)}/files/{file.id}"

    def content(self, request: web.BaseRequest, file: File) -> str:
        """The address that leads to the file's bytes wherever they are."""
        return f"{self.record(request, file)}/content"

    def deletion(self, request: web.BaseRequest, file: File) -> str | None:
        """Where whoever stored the file may delete it; known only in the request that stored it."""
        return None if file.delete_secret is None else f"{self.base(request)}/d/{file.id}/{file.delete_secret}"

    def grant(self, request: web.BaseRequest, secret: str) -> str:
        """Where guests upload by the grant with this secret."""
        return f"{self.base(request)}/g/{secret}"

    def link(self, request: web.BaseRequest, secret: str) -> str:
        """Where the file of the link with this secret is; with the bytes of all others, on their origin."""
        return f"{self.media_base_url or self.base(request)}/l/{secret}"

    def media(self, request: web.BaseRequest, file: File, now: datetime, *, download: bool) -> str:
        """The address of the file's bytes. On another origin it is signed, and works for six hours."""
        path = f"/media/{file.id}/{quote(file.filename, safe='')}"
        query = ["download"] if download else []
        if self.media_base_url:
            expires = int((now + _SIGNED_FOR).timestamp())
            query += [f"expires={expires}", f"signature={self._sign(file.id, expires)}"]
        return (self.media_base_url or self.base(request)) + path + ("?" + "&".join(query) if query else "")

    def signed(self, id: str, expires: str, signature: str, now: datetime) -> bool:
        """Whether this is an address that `media` has given for the file, and it still works."""
        if not (expires.isascii() and expires.isdigit() and len(expires) <= 12):  # noqa: PLR2004
            return False
        genuine = hmac.compare_digest(self._sign(id, int(expires)).encode(), signature.encode("utf-8", "replace"))
        return genuine and now.timestamp() < int(expires)

    def _sign(self, id: str, expires: int) -> str:
        return hmac.new(self.secret, f"media\n{id}\n{expires}".encode(), hashlib.sha256).hexdigest()

    def _behind_proxy(self, request: web.BaseRequest) -> bool:
        return self._trusted(request.remote or "unix")

    def _trusted(self, address: str) -> bool:
        if not self.trusted_proxies:
            return False
        if address == "unix":  # whoever may open the socket was let in by its permissions
            return True
        try:
            ip = ip_address(address)
        except ValueError:
            return False
        return any(ip in network for network in self.trusted_proxies)


def _first(request: web.BaseRequest, header: str) -> str:
    return request.headers.get(header, "").split(",")[0].strip()


def _hops(request: web.BaseRequest) -> list[str]:
    return [hop.strip() for hop in ",".join(request.headers.getall("X-Forwarded-For", [])).split(",") if hop.strip()]
