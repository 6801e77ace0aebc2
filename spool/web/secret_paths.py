"""Addresses that hold a secret, `/g/SECRET`, `/l/SECRET` and `/d/ID/SECRET`: kept out of logs and referrers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from aiohttp import web

ORIGIN_ALONE: Final = "strict-origin"
"""The policy under which a browser never tells a path."""
_SECRET: Final = re.compile(
    r"(/[gl]/(?:\.{0,2}/)*)[^/]+"  # what a proxy, or a person, has made of an address is served to nobody, but logged
    r"|(/d/(?:[0-9a-f]{32}/)?).+"
    r"|[\w-]{40,}",  # whatever looks like a secret, as one of ours does wherever it is put
    re.ASCII | re.DOTALL | re.IGNORECASE,
)


def path_to_log(request: web.BaseRequest) -> str:
    """The request's path with `...` in the place of a secret, also if this is not quite the address of one."""
    return _SECRET.sub(lambda found: f"{found[1] or found[2] or ''}...", request.path)


async def withhold_address(request: web.Request, response: web.StreamResponse) -> None:
    """No page tells another one, or another server, by which address it was reached.

    A page of ours tells our origin, or browsers would not say where its forms come from.
    """
    if _SECRET.search(request.path) and response.headers.get("Referrer-Policy") != ORIGIN_ALONE:
        response.headers["Referrer-Policy"] = "no-referrer"
