"""For programmers: what this server takes and answers, as a document and as a page."""

from __future__ import annotations

import json
from functools import cache
from typing import Final

from aiohttp import web

from spool.web.api import GROUPS, document, page

_HEADERS: Final = {"Cache-Control": "no-cache"}


async def openapi(_request: web.Request) -> web.Response:
    """`GET /openapi.json`."""
    return web.Response(body=_document(), content_type="application/json", headers=_HEADERS)


async def docs(_request: web.Request) -> web.Response:
    """`GET /docs`."""
    headers = {**_HEADERS, "Content-Security-Policy": page.POLICY}
    return web.Response(body=_page(), content_type="text/html", charset="utf-8", headers=headers)


@cache
def _document() -> bytes:
    return json.dumps(document.render(GROUPS)).encode()


@cache
def _page() -> bytes:
    return page.render(GROUPS).encode()
