"""Who is asking. Every route is public by name or asks here first; nothing is open by omission."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from aiohttp import web

from spool.errors import Forbidden, Unauthenticated
from spool.model import By, Principal
from spool.policy import LOCAL, require
from spool.rates import Rate
from spool.tokens import hash_secret
from spool.web.problems import REQUEST_ID
from spool.web.session import signed_in
from spool.web.site import SITE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from spool.model import Token
    from spool.web.site import Site

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

PRINCIPAL: Final = web.RequestKey("principal", Principal)
RATE: Final = web.RequestKey("rate", Rate)

_FROM_A_PROXY: Final = ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-IP", "Via")


def by(request: web.Request) -> By:
    """Who is asking, for the audit log."""
    return By(request[PRINCIPAL].account, "http", request.app[SITE].clock(), request[REQUEST_ID])


def needs(scope: str | None, handler: Handler) -> Handler:
    """The handler, for principals that have `scope`, or for all of them; it finds who is asking under PRINCIPAL.

    Every request counts, and one that is refused for its scope does too.
    """

    async def guarded(request: web.Request) -> web.StreamResponse:
        who = await _authenticate(request)
        await count_request(request, who)
        if scope is not None:
            require(who, scope)
        return await handler(request)

    return guarded


async def count_request(request: web.Request, who: Principal) -> None:
    """The request is this principal's. Raises RateLimited if it is one too many."""
    request[PRINCIPAL] = who
    rate = await request.app[SITE].rates.count(who)
    if rate is not None:
        request[RATE] = rate
        rate.require()


def needs_read_or_signature(handler: Handler) -> Handler:
    """The handler, for principals that may read, and for whoever has an address that we signed for this file."""
    with_token = needs("read", handler)

    async def guarded(request: web.Request) -> web.StreamResponse:
        if "signature" not in request.query or "Authorization" in request.headers:
            return await with_token(request)
        site = request.app[SITE]
        query = request.query
        address = request.match_info["id"], query.get("expires", ""), query["signature"]
        if not site.addresses.signed(*address, site.clock()):
            raise Forbidden("the signature of this address is not valid, or no longer")
        return await handler(request)

    return guarded


def needs_unless_public(scope: str, handler: Handler) -> Handler:
    """The handler of the metrics: for principals that have `scope`, or for everybody, as it is configured."""
    with_token = needs(scope, handler)

    async def guarded(request: web.Request) -> web.StreamResponse:
        return await (handler if request.app[SITE].metrics_public else with_token)(request)

    return guarded


async def _authenticate(request: web.Request) -> Principal:
    site = request.app[SITE]
    header = request.headers.get("Authorization")
    if header is None:
        token = await signed_in(request)
        return await _without_token(request, site) if token is None else _principal(token, site)
    scheme, _, secret = header.partition(" ")
    if scheme.lower() != "bearer":
        raise Unauthenticated("send the token as `Authorization: Bearer TOKEN`")
    token = await site.index.token(hash_secret(secret.strip()))
    if token is None or (token.expires_at is not None and token.expires_at <= site.clock()):
        raise Unauthenticated("this token is unknown, expired or revoked")
    return _principal(token, site)


def _principal(token: Token, site: Site) -> Principal:
    return Principal(token.name, token.scopes, site.allowance.under(token.override))


async def _without_token(request: web.Request, site: Site) -> Principal:
    has_tokens, override = await site.index.without_token(LOCAL)
    if not site.open_to_machine or has_tokens:
        raise Unauthenticated("send a token as `Authorization: Bearer TOKEN`")
    if any(header in request.headers for header in _FROM_A_PROXY):
        raise Unauthenticated("without tokens this server does not answer to proxies: `spool token create` makes one")
    # A page from elsewhere, open in a browser on this machine, must not reach us through it or through its resolver.
    if not _is_loopback(request.host) or request.headers.get("Sec-Fetch-Site") == "cross-site":
        raise Unauthenticated("without tokens this server answers only to its own machine, by a loopback address")
    origin = request.headers.get("Origin")
    if origin is not None and origin.partition("://")[2] != request.host:
        raise Forbidden("without tokens this server takes nothing that a page from elsewhere sends")
    return Principal(LOCAL, frozenset({"admin"}), site.allowance.under(override))


@lru_cache(maxsize=16)
def _is_loopback(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or ip_address(name).is_loopback
    except ValueError:
        return False
