"""The span of each request: what it is called, and what it tells."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from spool.metrics import outcome
from spool.web.problems import METHODS, PROBLEM, REQUEST_ID
from spool.web.secret_paths import path_to_log

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler, Middleware

    from spool.tracing import Tracing

_UNTOLD = ("/healthz", "/readyz", "/metrics")
"""What is asked by machines every few seconds."""


def tell_spans(tracing: Tracing) -> Middleware:
    """The outermost middleware: its span lasts until the answer is made, or the bytes of a file are sent."""

    @web.middleware
    async def tell_span(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path in _UNTOLD:
            return await handler(request)
        with tracing.request(_name(request), _parent(request)) as told:
            try:
                response = await handler(request)
                told.update({"http.response.status_code": response.status, "error.type": response.get(PROBLEM)})
            except BaseException as error:
                told["error.type"] = outcome(error)
                raise
            finally:
                told.update(_about(request))
            return response

    return tell_span


def _name(request: web.Request) -> str:
    """The method and the route, as OpenTelemetry has it: few, whatever clients ask for."""
    method = request.method if request.method in METHODS else "HTTP"
    route = _route(request)
    return f"{method} {route}" if route else method


def _route(request: web.Request) -> str | None:
    resource = request.match_info.route.resource
    return None if resource is None else resource.canonical


def _parent(request: web.Request) -> dict[str, str]:
    """The headers of W3C Trace Context, each of which a client may send once."""
    found = {name: request.headers.getall(name, ()) for name in ("traceparent", "tracestate")}
    return {name: values[0] for name, values in found.items() if len(values) == 1}


def _about(request: web.Request) -> dict[str, str | None]:
    """No query, and no secret of the path."""
    return {
        "http.request.method": request.method if request.method in METHODS else "_OTHER",
        "url.path": path_to_log(request),
        "url.scheme": request.scheme,
        "http.route": _route(request),
        "spool.request_id": request.get(REQUEST_ID),
    }
