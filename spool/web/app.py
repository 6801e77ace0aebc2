"""The application: routes, and what happens around every one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from spool.web.problems import REQUEST_ID, answer_problems
from spool.web.routes import add_routes
from spool.web.site import SITE

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler

    from spool.web.site import Site


def make_app(site: Site) -> web.Application:
    """The application for this site; whoever runs it adds aiojobs' scheduler for the commits."""
    app = web.Application(middlewares=[answer_problems, _count_traffic])
    app[SITE] = site
    add_routes(app)
    app.on_response_prepare.append(_name_request)
    return app


@web.middleware
async def _count_traffic(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Connections that are kept alive still bring requests when the server no longer listens."""
    traffic = request.app[SITE].traffic
    if request.path in ("/healthz", "/readyz"):
        return await handler(request)
    with traffic.request():
        return await handler(request)


async def _name_request(request: web.Request, response: web.StreamResponse) -> None:
    response.headers["X-Request-ID"] = request.get(REQUEST_ID, "-")
