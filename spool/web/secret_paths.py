"""Addresses that hold a secret, `/g/SECRET`, `/l/SECRET` and `/d/ID/SECRET`: kept out of logs and referrers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from aiohttp import web

_SECRET: Final = re.compile(r"(/(?:[gl]|d/+[^/]*)/+)[^/]+")


def path_to_log(request: web.BaseRequest) -> str:
    """The request's path with `...` in the place of a secret."""
    return _SECRET.sub(r"\1...", request.path)


async def withhold_address(request: web.Request, response: web.StreamResponse) -> None:
    """No page tells another one, or another server, by which address it was reached."""
    if _SECRET.match(request.path):
        response.headers["Referrer-Policy"] = "no-referrer"
