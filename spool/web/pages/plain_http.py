"""What a browser is told that comes by plain HTTP to a server whose cookies are for TLS alone: it would keep none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spool.web.pages.html import tag
from spool.web.pages.layout import page
from spool.web.session import SAFE, comes_without_tls
from spool.web.site import SITE

if TYPE_CHECKING:
    from aiohttp import web


def way_to_tls(request: web.Request, path: str, *, for_guests: bool = False) -> web.Response | None:
    """The page that leads to the same one by TLS; None for who came by it."""
    if not comes_without_tls(request):
        return None
    address = request.app[SITE].addresses.base(request) + path
    title = "This address is not the right one"
    why = "You came by plain HTTP, by which nobody can sign in here: your browser would not keep what proves it."
    section = tag(
        "section",
        tag("h1", title),
        tag("p", why),
        tag("p", "Use this address instead:"),
        tag("p", tag("a", address, href=address)),
        class_="card sign-in",
    )
    return page(request, title, section, status=200 if request.method in SAFE else 403, for_guests=for_guests)
