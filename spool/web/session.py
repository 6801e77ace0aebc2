"""Sign-in of browsers: the cookie that stands for a session, and what keeps other pages from using it.

A cookie counts for nothing but by `signed_in`, which refuses every change that does not come from a page of ours and
carries the session's own token, and lets no page from elsewhere read. What guests' browsers keep is for
`guest_cookies`; no other module knows cookies.
"""

from __future__ import annotations

import hmac
import secrets
from datetime import timedelta
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from aiohttp import web

from spool.errors import Forbidden, NotFound, RateLimited, Unauthenticated
from spool.ports import Session
from spool.tokens import hash_secret
from spool.web.site import SITE

if TYPE_CHECKING:
    from datetime import datetime

    from spool.model import Token
    from spool.web.site import Site

FORM_TOKEN: Final = web.RequestKey("form_token", str)
"""What a change by this session has to carry; there is none for a request that came without a session."""
FORM_TOKEN_HEADER: Final = "X-Form-Token"  # noqa: S105 - a name
FORM_TOKEN_PARAMETER: Final = "form_token"  # noqa: S105 - a name
LIFETIME: Final = timedelta(days=7)
SAFE: Final = ("GET", "HEAD", "OPTIONS")
"""Methods that change nothing."""


async def signed_in(request: web.Request) -> Token | None:
    """The token that the browser signed in with; None if it did not, or not any more.

    Raises Forbidden for a change that comes from elsewhere, or lacks the session's form token.
    """
    secret = _cookie(request)
    if secret is None:
        return None
    site = request.app[SITE]
    session = await site.index.session(hash_secret(secret))
    if session is None or session.expires_at <= site.clock():
        return None
    if request.method in SAFE:
        if _is_fetched_from_elsewhere(request):
            return None
    else:
        require_own_page(request)
        _require_form_token(request, secret)
    request[FORM_TOKEN] = _form_token(secret)
    return session.token


def require_own_page(request: web.Request) -> None:
    """Raises Forbidden unless a page of this origin sends the request, as far as the browser tells.

    `Sec-Fetch-Site` decides where there is one. Else it is http, and `Origin` names this host, by the name that the
    browser used or that of `server.base_url`, or none is sent at all.
    """
    fetched = request.headers.get("Sec-Fetch-Site")
    own = is_ours(request, request.headers.get("Origin", "")) if fetched is None else fetched == "same-origin"
    if not own:
        raise Forbidden("a browser that is signed in changes nothing for a page from elsewhere")


def is_ours(request: web.Request, address: str) -> bool:
    """Whether an address that the browser tells names this host, by the name that it used or by ours."""
    ours = urlsplit(request.app[SITE].addresses.base(request)).netloc.lower(), request.host.lower()
    try:
        return urlsplit(address).netloc.lower() in ours
    except ValueError:
        return False


def _is_fetched_from_elsewhere(request: web.Request) -> bool:
    """Whether another page fetches this, rather than leads here. A browser that does not tell sends no cookie then."""
    fetched, mode = request.headers.get("Sec-Fetch-Site"), request.headers.get("Sec-Fetch-Mode")
    return fetched in ("cross-site", "same-site") and mode != "navigate"


def _require_form_token(request: web.Request, secret: str) -> None:
    given = request.headers.get(FORM_TOKEN_HEADER) or request.query.get(FORM_TOKEN_PARAMETER, "")
    if not hmac.compare_digest(given.encode("utf-8", "replace"), _form_token(secret).encode()):
        raise Forbidden("this page was made for another sign-in: load it anew")


def _form_token(secret: str) -> str:
    """Of the session's secret, which cannot be found from it."""
    return hash_secret(f"form\n{secret}")


async def start(request: web.Request, secret: str, response: web.StreamResponse) -> Token:
    """A session of the token with this secret is recorded, and `response` sets its cookie.

    Raises Forbidden for a page from elsewhere, Unauthenticated for a secret that is none, RateLimited.
    """
    require_own_page(request)
    site = request.app[SITE]
    address, now = site.addresses.client(request), site.clock()
    if seconds := await site.attempts.wait(address):
        raise RateLimited("too many sign-ins from this address have failed", seconds)
    token = await site.index.token(hash_secret(secret.strip()))
    if token is None or (token.expires_at is not None and token.expires_at <= now):
        await site.attempts.failed(address)
        raise Unauthenticated("this token is unknown, expired or revoked")
    own = secrets.token_urlsafe(32)
    await _record(site, Session(token, _end(token, now)), own)
    _set_cookie(request, response, own)
    return token


async def _record(site: Site, session: Session, secret: str) -> None:
    try:
        await site.index.add_session(session, hash_secret(secret), site.clock())
    except NotFound as error:
        raise Unauthenticated("this token was revoked just now") from error


def _end(token: Token, now: datetime) -> datetime:
    end = now + LIFETIME
    return end if token.expires_at is None else min(end, token.expires_at)


async def end(request: web.Request, response: web.StreamResponse) -> None:
    """The session of the request is no more, and `response` takes the cookie back."""
    secret = _cookie(request)
    if secret is not None:
        await request.app[SITE].index.end_session(hash_secret(secret))
    _set_cookie(request, response, "")


def _cookie(request: web.Request) -> str | None:
    return (request.cookies.get(_name(request)) or None) if "Cookie" in request.headers else None


def _set_cookie(request: web.Request, response: web.StreamResponse, secret: str) -> None:
    response.set_cookie(
        _name(request),
        secret,
        max_age=int(LIFETIME.total_seconds()) if secret else 0,
        path="/",
        secure=is_secure(request),
        httponly=True,
        samesite="Lax",
    )


def _name(request: web.Request) -> str:
    """On TLS one that no page of http, and none of a neighbouring name, can set (RFC 6265bis §4.1.3.2)."""
    return "__Host-spool" if is_secure(request) else "spool"


def comes_without_tls(request: web.Request) -> bool:
    """Whether the browser came by plain HTTP although our cookies are for TLS, so that it will not keep them.

    By TLS, and to its own machine, a browser sends `Sec-Fetch-Site`. Else the `Origin` of a change tells; for the rest
    what the connection and a proxy say must do, which are believed here because nothing depends on it.
    """
    if not is_secure(request) or "Sec-Fetch-Site" in request.headers:
        return False
    origin = request.headers.get("Origin")
    if origin is not None:
        return origin.startswith("http:")
    return request.scheme != "https" and "https" not in request.headers.get("X-Forwarded-Proto", "")


def is_secure(request: web.Request) -> bool:
    """Whether the browser talks to this server, or to its proxy, by TLS."""
    return request.app[SITE].addresses.base(request).startswith("https:")
