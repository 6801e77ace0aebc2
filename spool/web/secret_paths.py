"""Addresses that hold a secret, `/g/SECRET`, `/l/SECRET` and `/d/ID/SECRET`: kept out of logs and referrers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from aiohttp import web

ORIGIN_ALONE: Final = "strict-origin"
"""The policy under which a browser never tells a path."""
_SECRET: Final = re.compile(r"(/(?:[gl]|d/+[^/]*)/+)[^/]+")


def path_to_log(request: web.BaseRequest) -> str:
    """The request's path with `...` in the place of a secret."""
    return _SECRET.sub(r"\1...", request.path)


async def withhold_address(request: web.Request, response: web.StreamResponse) -> None:
    """No page tells another one, or another server, by which address it was reached.

    A page of ours tells our origin, or browsers would not say where its forms come from.
    """
    if _SECRET.match(request.path) and response.headers.get("Referrer-Policy") != ORIGIN_ALONE:
        response.headers["Referrer-Policy"] = "no-referrer"
