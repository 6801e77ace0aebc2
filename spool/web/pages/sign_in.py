"""Sign-in and sign-out: `/login` takes a token, and the browser gets a cookie for it."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Final

from spool.errors import SpoolError, Unauthenticated
from spool.protocol.http import prefers_html
from spool.web.pages.forms import read_form
from spool.web.pages.html import join, tag
from spool.web.pages.layout import page, see_other
from spool.web.pages.plain_http import way_to_tls
from spool.web.session import end, require_own_page, signed_in, start
from spool.web.site import SITE

if TYPE_CHECKING:
    from aiohttp import web

_log = logging.getLogger(__name__)

_OWN: Final = re.compile(r"/(view/\w+|files\.zip|guests)?(\?[!-~]*)?", re.ASCII)
"""Where a sign-in may lead: pages of ours, and nothing that a browser takes for another host."""


async def show(request: web.Request) -> web.StreamResponse:
    """`GET /login`."""
    if await signed_in(request) is not None:
        return see_other("/")
    return way_to_tls(request, request.path_qs) or _form(request, request.query.get("next", "/"))


async def sign_in(request: web.Request) -> web.StreamResponse:
    """`POST /login`: the token of the form becomes a session, and its cookie is set."""
    require_own_page(request)
    if (elsewhere := way_to_tls(request, "/login")) is not None:
        return elsewhere
    fields = await read_form(request)
    target = fields.get("next", ["/"])[0]
    response = see_other(target if _OWN.fullmatch(target) else "/")
    address = request.app[SITE].addresses.client(request)
    try:
        token = await start(request, fields.get("token", [""])[0], response)
    except SpoolError as error:
        _log.warning("session.refused", {"address": address, "reason": str(error)})
        if isinstance(error, Unauthenticated) and prefers_html(request.headers.get("Accept")):
            return _form(request, target, refusal="This token is unknown, expired or revoked.", status=403)
        raise
    _log.info("session.started", {"owner": token.name, "address": address})
    return response


async def sign_out(request: web.Request) -> web.StreamResponse:
    """`POST /logout`: the session ends, and with it whatever a copy of its cookie could do."""
    require_own_page(request)  # who sends no cookie is not asked for a form token, but would have it taken back
    token = await signed_in(request)
    response = see_other("/login")
    await end(request, response)
    if token is not None:
        _log.info("session.ended", {"owner": token.name})
    return response


def _form(request: web.Request, target: str, *, refusal: str | None = None, status: int = 200) -> web.Response:
    wrong = {"aria_invalid": "true", "aria_describedby": "wrong"} if refusal else {}
    form = tag(
        "form",
        tag("input", name="user", value="Spool", autocomplete="username", hidden=True),  # where managers look for it
        tag("label", "Token", for_="token"),
        tag(
            "input", id="token", name="token", type="password", required=True, autocomplete="current-password",
            autofocus=True, spellcheck="false", **wrong,
        ),
        tag("p", refusal, id="wrong", class_="wrong", role="alert") if refusal else None,
        tag("input", type="hidden", name="next", value=target) if _OWN.fullmatch(target) else None,
        tag("button", "Sign in", class_="primary"),
        method="post",
        action="/login",
    )  # fmt: skip
    hint = tag("p", "You sign in with a token. Whoever runs this server can make one: ", class_="dim")
    parts = ("spool token create", "--name ada", "--scope upload", "--scope read")
    command = tag("p", *(node for part in parts for node in (tag("code", part), " ")), class_="dim command")
    section = tag("section", join(tag("h1", "Sign in"), form, hint, command), class_="card sign-in")
    return page(request, "Sign in", section, status=status)
