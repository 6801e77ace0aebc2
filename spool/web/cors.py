"""Cross-origin requests from the pages that `server.cors_origins` names; without any, this says nothing at all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from aiohttp.typedefs import Handler, Middleware

_METHODS: Final = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
_ALLOWED: Final = (
    "Authorization, Content-Type, Content-Disposition, Content-Digest, Repr-Digest, Idempotency-Key, If-Match, "
    "If-None-Match, Range, Tus-Resumable, Upload-Checksum, Upload-Complete, Upload-Concat, Upload-Defer-Length, "
    "Upload-Draft-Interop-Version, Upload-Length, Upload-Metadata, Upload-Offset, X-HTTP-Method-Override, "
    "X-Request-ID, X-Requested-With"
)
_EXPOSED: Final = (
    "Content-Location, ETag, Link, Location, RateLimit, RateLimit-Policy, Repr-Digest, Retry-After, "
    "Tus-Checksum-Algorithm, Tus-Extension, Tus-Max-Size, Tus-Resumable, Tus-Version, Upload-Complete, Upload-Concat, "
    "Upload-Defer-Length, Upload-Expires, Upload-Length, Upload-Limit, Upload-Metadata, Upload-Offset, X-Request-ID"
)
_MAX_AGE: Final = "86400"


def allow_origins(
    origins: Sequence[str],
) -> tuple[Middleware, Callable[[web.Request, web.StreamResponse], Awaitable[None]]]:
    """A middleware that answers preflights, and a signal handler that marks every other answer, for these origins.

    "*" stands for all of them. Cookies are never allowed, so that a page can do only what its own token lets it do.
    """

    def allowed(request: web.Request) -> str | None:
        origin = request.headers.get("Origin")
        return origin if origin is not None and ("*" in origins or origin in origins) else None

    @web.middleware
    async def answer_preflight(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.method != "OPTIONS" or "Access-Control-Request-Method" not in request.headers:
            return await handler(request)
        if allowed(request) is None:
            return web.Response(status=204)
        headers = {
            "Access-Control-Allow-Methods": _METHODS,
            "Access-Control-Allow-Headers": _ALLOWED,
            "Access-Control-Max-Age": _MAX_AGE,
        }
        return web.Response(status=204, headers=headers)

    async def mark(request: web.Request, response: web.StreamResponse) -> None:
        if not origins:
            return
        response.headers.add("Vary", "Origin")
        if (origin := allowed(request)) is not None:
            response.headers["Access-Control-Allow-Origin"] = origin
            response.headers["Access-Control-Expose-Headers"] = _EXPOSED

    return answer_preflight, mark
