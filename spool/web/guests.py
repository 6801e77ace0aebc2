"""Guests: who has the address of a grant uploads without a token, by the same handlers as everybody else.

The pass phrase, where there is one, is the password of Basic authentication or the first field of a form; a browser
that has given it in the page has a cookie for that.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from aiohttp import web

from spool.errors import PassphraseRequired
from spool.web.auth import PRINCIPAL, count_request
from spool.web.guest_cookies import has_proof
from spool.web.records import show_time
from spool.web.site import SITE

if TYPE_CHECKING:
    from spool.model import Grant, Usage
    from spool.web.auth import Handler


@dataclass(slots=True)
class _Proof:
    """A form may yet bring the pass phrase."""

    given: bool


_PROOF: Final = web.RequestKey("proof", _Proof)


def guests(handler: Handler, *, by_form: bool = False, proven: bool = True) -> Handler:
    """The handler, for whoever has the grant's secret; it finds the guest under PRINCIPAL.

    They have to prove that they know the pass phrase, unless `proven` is False; `by_form` lets a form do that, whose
    handler must ask `require_proof`. Every request counts, for all guests of a grant together.
    """

    async def guarded(request: web.Request) -> web.StreamResponse:
        who = await request.app[SITE].guests.guest(request.match_info["secret"])
        await count_request(request, who)
        if proven:
            await _prove(request, by_form=by_form)
        return await handler(request)

    return guarded


async def _prove(request: web.Request, *, by_form: bool) -> None:
    passphrase = _password(request)
    if passphrase is None and has_proof(request, grant_of(request)):
        return
    if passphrase is None and by_form and request.content_type == "multipart/form-data":
        request[_PROOF] = _Proof(grant_of(request).passphrase is None)
    else:
        await request.app[SITE].guests.prove(grant_of(request), passphrase)


async def is_proof(request: web.Request, passphrase: str) -> bool:
    """Whether this field of a form is a guest's pass phrase, and the right one; False where none is awaited.

    Raises PassphraseRequired if it is wrong, RateLimited.
    """
    proof = request.get(_PROOF)
    if proof is None or proof.given:
        return False
    await request.app[SITE].guests.prove(grant_of(request), passphrase)
    proof.given = True
    return True


def require_proof(request: web.Request) -> None:
    """Raises PassphraseRequired if the form of a guest comes to its files without the pass phrase."""
    proof = request.get(_PROOF)
    if proof is not None and not proof.given:
        raise PassphraseRequired("this link asks for a pass phrase: send it as the form's first field, `passphrase`")


async def show(request: web.Request) -> web.Response:
    """`GET /g/{secret}`: what the owner says to guests, what they may send, and how much of it is left."""
    site, grant = request.app[SITE], grant_of(request)
    members = invitation(grant, await site.index.grant_usage(grant.id), site.policy.under(grant).max_file_size)
    return web.json_response(members, headers={"Cache-Control": "no-store"})


def invitation(grant: Grant, came: Usage, max_file_size: int) -> dict[str, object]:
    """What guests are told of a grant by which so much has come."""
    return {
        "note": grant.note,
        "expires_at": show_time(grant.expires_at),
        "types": list(grant.types),
        "max_file_size": max_file_size,
        "files_left": max(0, grant.max_files - came.files - came.uploads),
        "bytes_left": max(0, grant.max_size - came.size) if grant.max_size else None,
    }


def grant_of(request: web.Request) -> Grant:
    """By which the guest comes."""
    grant = request[PRINCIPAL].grant
    assert grant is not None
    return grant


def _password(request: web.Request) -> str | None:
    """The password of Basic authentication (RFC 7617), whoever the user; None if there is none."""
    scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        text = base64.b64decode(credentials.strip(), validate=True).decode("utf-8", "surrogateescape")
    except (binascii.Error, ValueError):
        return None
    return text.partition(":")[2]
