"""For programmers: what this server takes and answers, as a document and as a page.

Both are imported when they are first asked for: they are a twentieth of what a start takes.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Final

from aiohttp import web

_HEADERS: Final = {"Cache-Control": "no-cache"}


async def openapi(_request: web.Request) -> web.Response:
    """`GET /openapi.json`."""
    return web.Response(body=_document(), content_type="application/json", headers=_HEADERS)


async def docs(_request: web.Request) -> web.Response:
    """`GET /docs`."""
    body, policy = _page()
    headers = {**_HEADERS, "Content-Security-Policy": policy}
    return web.Response(body=body, content_type="text/html", charset="utf-8", headers=headers)


@cache
def _document() -> bytes:
    from spool.web.api import GROUPS, document  # noqa: PLC0415

    return json.dumps(document.render(GROUPS)).encode()


@cache
def _page() -> tuple[bytes, str]:
    from spool.web.api import GROUPS, page  # noqa: PLC0415

    return page.render(GROUPS).encode(), page.POLICY
