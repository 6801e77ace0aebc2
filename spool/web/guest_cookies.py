"""What a guest's browser keeps: that it has proven the pass phrase of a grant, and what was sent from it.

Both are cookies for the grant's address alone, and no page from elsewhere makes a browser send them. The first is
signed, so that nothing has to be kept here. Neither does more than whoever has the address and the pass phrase may do.
"""

from __future__ import annotations

import hmac
import re
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from spool.model import FileId
from spool.web.session import SAFE, is_secure, require_own_page
from spool.web.site import SITE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiohttp import web

    from spool.model import Grant

_PROOF: Final = "spool-proof"
_SENT: Final = "spool-sent"
_LONGEST: Final = timedelta(days=30)
_MOST_SENT: Final = 30
"""Files that a browser can tell of, so that its cookies fit into a request."""
_RECEIPT: Final = re.compile(r"(\w{1,40})~([\w-]{1,64})", re.ASCII)


def has_proof(request: web.Request, grant: Grant) -> bool:
    """Whether the browser has proven the grant's pass phrase before.

    Raises Forbidden if it has, and now sends a change that does not come from a page of ours.
    """
    given = _read(request, _PROOF).encode("utf-8", "replace")
    if grant.passphrase is None or not hmac.compare_digest(given, _proof(request, grant).encode()):
        return False
    if request.method not in SAFE:
        require_own_page(request)
    return True


def keep_proof(request: web.Request, response: web.StreamResponse, grant: Grant) -> None:
    """The browser has proven the pass phrase, as long as the grant lasts."""
    _keep(request, response, grant, _PROOF, _proof(request, grant))


def _proof(request: web.Request, grant: Grant) -> str:
    """It is made of the hash of the pass phrase, which has a salt, so that no other grant takes it."""
    text = f"proof\n{grant.id}\n{grant.passphrase}"
    return hmac.digest(request.app[SITE].addresses.secret, text.encode(), "sha256").hex()


def sent(request: web.Request) -> dict[FileId, str]:
    """The files that were sent by forms of this browser, with the secrets that delete them; newest last."""
    return {FileId(id_): secret for id_, secret in _RECEIPT.findall(_read(request, _SENT))}


def keep_sent(request: web.Request, response: web.StreamResponse, grant: Grant, files: Mapping[FileId, str]) -> None:
    """The browser can tell of the last of these."""
    receipts = [f"{id_}~{secret}" for id_, secret in files.items()][-_MOST_SENT:]
    _keep(request, response, grant, _SENT, ".".join(receipts))


def _read(request: web.Request, name: str) -> str:
    return request.cookies.get(_name(request, name), "") if "Cookie" in request.headers else ""


def _keep(request: web.Request, response: web.StreamResponse, grant: Grant, name: str, value: str) -> None:
    left = min(grant.expires_at - request.app[SITE].clock(), _LONGEST)
    response.set_cookie(
        _name(request, name),
        value,
        max_age=max(0, int(left.total_seconds())) if value else 0,
        path=f"/g/{request.match_info['secret']}",
        secure=is_secure(request),
        httponly=True,
        samesite="Strict",
    )


def _name(request: web.Request, name: str) -> str:
    """On TLS one that no page of http can set (RFC 6265bis §4.1.3.1)."""
    return f"__Secure-{name}" if is_secure(request) else name
