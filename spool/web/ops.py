"""For operators, and for programs that met a problem."""

from __future__ import annotations

from aiohttp import web

from spool.errors import NotFound, Unavailable
from spool.web.problems import all_problems
from spool.web.site import SITE


async def healthz(_request: web.Request) -> web.Response:
    """`GET /healthz`: the process lives."""
    return web.json_response({"status": "alive"})


async def readyz(request: web.Request) -> web.Response:
    """`GET /readyz`: an upload that came now could be stored. Raises Unavailable or StorageFull."""
    site = request.app[SITE]
    if site.traffic.draining:
        raise Unavailable("the server is shutting down")
    await site.readiness.require()
    return web.json_response({"status": "ready"})


async def problem(request: web.Request) -> web.Response:
    """`GET /problems/{slug}`: what a problem type means. Raises NotFound."""
    from spool.web.api.refusals import meaning  # noqa: PLC0415  # see describe.py

    for kind in all_problems():
        if kind.slug == request.match_info["slug"]:
            return web.json_response({"title": kind.title, "status": kind.status, "meaning": meaning(kind)})
    raise NotFound("there is no such problem type")
