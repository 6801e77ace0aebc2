"""The application: routes, and what happens around every one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from spool.protocol.http import rate_limit_fields
from spool.rates import SECONDS
from spool.web.auth import RATE
from spool.web.cors import allow_origins
from spool.web.pages.assets import ASSETS, Assets
from spool.web.problems import REQUEST_ID, answer_problems
from spool.web.routes import add_routes
from spool.web.secret_paths import withhold_address
from spool.web.site import SITE
from spool.web.spans import tell_spans

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiohttp.typedefs import Handler

    from spool.web.site import Site


def make_app(site: Site, cors_origins: Sequence[str]) -> web.Application:
    """The application for this site; whoever runs it adds aiojobs' scheduler for the commits."""
    answer_preflight, mark_origin = allow_origins(cors_origins)
    app = web.Application(middlewares=[answer_preflight, answer_problems, _require_host, _count_traffic])
    if site.tracing is not None:
        app.middlewares.insert(0, tell_spans(site.tracing))
    app[SITE] = site
    app[ASSETS] = Assets()
    add_routes(app)
    app.on_response_prepare.append(_forbid_guessing)
    app.on_response_prepare.append(_forbid_keeping)
    app.on_response_prepare.append(_name_request)
    app.on_response_prepare.append(_tell_rate)
    app.on_response_prepare.append(withhold_address)
    app.on_response_prepare.append(mark_origin)
    return app


@web.middleware
async def _require_host(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuses a Host that is none (RFC 9112 §3.2) before anything is stored: the answers' addresses are made of it."""
    request.app[SITE].addresses.require_host(request)
    return await handler(request)


@web.middleware
async def _count_traffic(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Connections that are kept alive still bring requests when the server no longer listens."""
    traffic = request.app[SITE].traffic
    if request.path in ("/healthz", "/readyz", "/metrics"):
        return await handler(request)
    with traffic.request():
        return await handler(request)


async def _forbid_guessing(_request: web.Request, response: web.StreamResponse) -> None:
    """What a client sent may stand in any answer: no browser may take one for another type than it has."""
    response.headers["X-Content-Type-Options"] = "nosniff"


async def _forbid_keeping(_request: web.Request, response: web.StreamResponse) -> None:
    """Records change and files go: what does not say how long it is good is kept by no cache (RFC 9111 §4.2.2)."""
    response.headers.setdefault("Cache-Control", "no-store")


async def _tell_rate(request: web.Request, response: web.StreamResponse) -> None:
    rate = request.get(RATE)
    if rate is not None:
        response.headers.update(rate_limit_fields(rate.limit, rate.remaining, rate.reset, SECONDS))


async def _name_request(request: web.Request, response: web.StreamResponse) -> None:
    response.headers["X-Request-ID"] = request.get(REQUEST_ID, "-")
