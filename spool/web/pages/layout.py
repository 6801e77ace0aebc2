"""What all pages share: their head, their policy, and how they tell of an error."""

from __future__ import annotations

import re
import secrets
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode, urlsplit

from aiohttp import web

from spool.errors import SpoolError, Unauthenticated
from spool.protocol.http import prefers_html
from spool.web.auth import PRINCIPAL
from spool.web.pages import words
from spool.web.pages.assets import ASSETS
from spool.web.pages.html import document, tag
from spool.web.secret_paths import ORIGIN_ALONE
from spool.web.session import FORM_TOKEN, FORM_TOKEN_PARAMETER, is_ours
from spool.web.site import SITE

if TYPE_CHECKING:
    from collections.abc import Callable

    from spool.model import Principal
    from spool.web.auth import Handler
    from spool.web.pages.html import Html, Node

_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}

_LIST: Final = re.compile(r"https?://[^/?#]+/\?([!-~]+)", re.ASCII)
_NAME: Final = (tag("span", class_="mark", aria_hidden="true"), "Spool")


def page(
    request: web.Request,
    title: str,
    *main: Node,
    scripts: tuple[str, ...] = (),
    status: int = 200,
    for_guests: bool = False,
) -> web.Response:
    """A page of ours. Nothing runs in it but the scripts that are named, and nothing is fetched from elsewhere.

    One `for_guests` says nothing of who runs this server and leads nowhere, and its address is told to nobody.
    """
    assets, nonce = request.app[ASSETS], secrets.token_urlsafe(16)
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("title", title if title == "Spool" else f"{title} · Spool"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="form-token", content=request.get(FORM_TOKEN, "")),
        tag("link", rel="icon", href=assets.address("icon.svg"), type="image/svg+xml"),
        tag("link", rel="stylesheet", href=assets.address("spool.css"), nonce=nonce),
        *(_script(assets.address(name), nonce) for name in scripts),
    )
    skip = tag("a", "Skip to content", href="#main", class_="skip")
    header = tag("header", tag("span", *_NAME, class_="home")) if for_guests else _header(request)
    body = tag("body", skip, header, tag("main", *main, id="main"))
    secret = {"Referrer-Policy": ORIGIN_ALONE} if for_guests else {}
    headers = {**_HEADERS, **secret, "Content-Security-Policy": _policy(request, nonce)}
    return web.Response(
        text=document(head, body), status=status, content_type="text/html", charset="utf-8", headers=headers
    )


def _script(address: str, nonce: str) -> Html:
    module = not address.endswith(".min.js")
    return tag("script", src=address, nonce=nonce, type="module" if module else None, defer=not module)


def _policy(request: web.Request, nonce: str) -> str:
    elsewhere = urlsplit(request.app[SITE].addresses.media_base_url)
    media = f"'self' {elsewhere.scheme}://{elsewhere.netloc}" if elsewhere.netloc else "'self'"
    return (
        f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src {media}; "
        f"media-src {media}; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )


def _header(request: web.Request) -> Html:
    who = request.get(PRINCIPAL)
    name = None if who is None else tag("span", who.name, class_="who", title="You are signed in as this principal")
    out = tag("button", "Sign out", class_="quiet") if request.get(FORM_TOKEN) else None
    form = None if out is None else tag("form", out, method="post", action=action(request, "/logout"))
    home = tag("a", *_NAME, href="/", class_="home")
    return tag("header", home, _ways(request, who), tag("div", name, form, class_="account"))


def _ways(request: web.Request, who: Principal | None) -> Html | None:
    """To the other pages, for those who may do more than one thing."""
    if who is None or not may(who, "grant"):
        return None
    places = [("/", "Files"), ("/guests", "Receive files")]
    here = [tag("a", text, href=path, aria_current="page" if request.path == path else None) for path, text in places]
    return tag("nav", *here, aria_label="Pages")


def may(who: Principal, scope: str) -> bool:
    """Whether the principal's scopes cover it, so that nobody is shown what would be refused."""
    return bool({scope, "admin"} & who.scopes)


def action(request: web.Request, path: str, **query: str) -> str:
    """Where a form goes. The session's form token is in the address, so that it is there before a body is read."""
    token = request.get(FORM_TOKEN)
    pairs = {**query, **({FORM_TOKEN_PARAMETER: token} if token else {})}
    return f"{path}?{urlencode(pairs)}" if pairs else path


def announcement() -> Html:
    """Where scripts tell people who do not see what happens."""
    return tag("p", id="announce", class_="hidden", role="status", aria_live="polite")


def see_other(path: str, **query: str) -> web.Response:
    """The way to a page, after a change."""
    location = f"{path}?{urlencode(query)}" if query else path
    return web.Response(status=303, headers={"Location": location, "Cache-Control": "no-store"})


def list_before(request: web.Request) -> str:
    """The list as it was searched where the reader comes from; `/` if that is not told, or is another page."""
    came = request.headers.get("Referer", "")
    found = _LIST.fullmatch(came)
    return f"/?{found[1]}" if found and is_ours(request, came) else "/"


def for_people(handler: Handler, refused: Callable[[web.Request, SpoolError], web.Response] | None = None) -> Handler:
    """The handler, whose refusals are pages for those who would rather have one: the way to sign-in, or what is wrong.

    `refused` makes other pages of them. Programs get problems, as from every other route.
    """
    show = refused or _refused

    async def shown(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except SpoolError as error:
            if not prefers_html(request.headers.get("Accept")):
                raise
            return show(request, error)

    return shown


def _refused(request: web.Request, error: SpoolError) -> web.Response:
    if isinstance(error, Unauthenticated):
        return see_other("/login", **({"next": request.path_qs} if request.method == "GET" else {}))
    back = tag("p", tag("a", "Back to the files", href="/"))
    return refusal_page(request, error, error.title, tag("p", words.sentence(error.detail)), back)


def refusal_page(
    request: web.Request,
    error: SpoolError,
    title: str,
    *text: Node,
    scripts: tuple[str, ...] = (),
    for_guests: bool = False,
) -> web.Response:
    """The page that tells of an error."""
    section = tag("section", tag("h1", title), *text, class_="card", id="refusal" if for_guests else None)
    response = page(request, title, section, scripts=scripts, status=error.status, for_guests=for_guests)
    if error.retry_after is not None:
        response.headers["Retry-After"] = str(error.retry_after)
    return response
