"""Grants, for their owners: make, list, revoke."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Final, TypeVar

from aiohttp import web

from spool.errors import BadRequest, NotFound
from spool.model import GrantId
from spool.policy import (
    GRANT_FILES,
    GRANT_LASTS,
    MAX_GRANT_FILES,
    MAX_NOTE,
    MAX_PASSPHRASE,
    require_future,
    require_grant_owner,
)
from spool.tokens import hash_passphrase, hash_secret, new_grant
from spool.web.auth import PRINCIPAL, by
from spool.web.documents import clean, read_object
from spool.web.fields import parse_time
from spool.web.records import show_time
from spool.web.site import SITE

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from spool.model import Grant

T = TypeVar("T")

MEMBERS: Final = ("note", "expires_at", "max_files", "max_size", "max_file_size", "types", "passphrase")
"""What whoever makes a grant may say of it."""
PAGE: Final = 100
MAX_TYPES: Final = 100
_LARGEST: Final = 10**18 - 1


async def make(request: web.Request) -> web.Response:
    """`POST /grants`. The address that guests are given is in the answer, and nowhere else ever again."""
    grant, address = await add(request, await read_object(request, ("application/json",)))
    members = {**show_grant(grant), "url": address}
    return web.json_response(members, status=201, headers={"Cache-Control": "no-store"})


async def add(request: web.Request, document: Mapping[str, object]) -> tuple[Grant, str]:
    """The grant that the document asks for is made, for whoever asks; returns it and its address. Raises BadRequest."""
    site, who = request.app[SITE], request[PRINCIPAL]
    grant, secret = parse_grant(document, who.name, site.clock())
    if passphrase := _member(document, "passphrase", str, ""):
        if len(passphrase.encode("utf-8", "replace")) > MAX_PASSPHRASE:
            raise BadRequest(f"passphrase is longer than {MAX_PASSPHRASE} bytes")
        grant = replace(grant, passphrase=await asyncio.to_thread(hash_passphrase, clean(passphrase)))
    await site.index.add_grant(grant, hash_secret(secret), by(request))
    return grant, site.addresses.grant(request, secret)


def parse_grant(document: Mapping[str, object], owner: str, now: datetime) -> tuple[Grant, str]:
    """The grant that the document asks for, but for its pass phrase, and its secret. Raises BadRequest."""
    if unknown := document.keys() - set(MEMBERS):
        raise BadRequest(f"a grant has no {', '.join(sorted(unknown))}; known are {', '.join(MEMBERS)}")
    expires_at = _expiry(document, now)
    max_files = _number(document, "max_files", GRANT_FILES, (1, MAX_GRANT_FILES))
    grant, secret = new_grant(owner, now, expires_at, max_files=max_files)
    note = clean(_member(document, "note", str, ""))
    if len(note.encode()) > MAX_NOTE:
        raise BadRequest(f"note is longer than {MAX_NOTE} bytes")
    return replace(
        grant,
        note=note,
        max_size=_number(document, "max_size", 0, (0, _LARGEST)),
        max_file_size=_number(document, "max_file_size", 0, (0, _LARGEST)),
        types=_types(document),
    ), secret


def _member(document: Mapping[str, object], name: str, kind: type[T], default: T) -> T:
    value = document.get(name)
    if value is None:
        return default
    if not isinstance(value, kind) or isinstance(value, bool):
        raise BadRequest(f"{name} is not of the type that it must be")
    return value


def _number(document: Mapping[str, object], name: str, default: int, bounds: tuple[int, int]) -> int:
    number = _member(document, name, int, default)
    if not bounds[0] <= number <= bounds[1]:
        raise BadRequest(f"{name} is not a number from {bounds[0]} to {bounds[1]}")
    return number


def _expiry(document: Mapping[str, object], now: datetime) -> datetime:
    if document.get("expires_at") is None:
        return now + GRANT_LASTS
    expires_at = parse_time("expires_at", _member(document, "expires_at", str, ""))
    require_future(expires_at, now)
    return expires_at


def _types(document: Mapping[str, object]) -> tuple[str, ...]:
    types = _member(document, "types", list, [])
    if len(types) > MAX_TYPES or not all(isinstance(glob, str) and 0 < len(glob) <= 255 for glob in types):  # noqa: PLR2004
        raise BadRequest(f"types is not a list of at most {MAX_TYPES} globs such as image/*")
    return tuple(clean(glob) for glob in types)


async def list_grants(request: web.Request) -> web.Response:
    """`GET /grants`: one's own, an admin's all, oldest first."""
    site, who = request.app[SITE], request[PRINCIPAL]
    unknown = request.query.keys() - {"cursor"}
    if unknown:
        raise BadRequest("the only parameter that is known is cursor")
    owner = None if "admin" in who.scopes else who.name
    after = await cursor(request) if "cursor" in request.query else None
    grants = await site.index.grants(owner, after, PAGE)
    following = grants[-1].id if len(grants) == PAGE else None
    return web.json_response({"grants": [show_grant(grant) for grant in grants], "next": following})


async def cursor(request: web.Request) -> Grant:
    """The grant that the query names as the last of the page before. Raises BadRequest."""
    try:
        grant = await request.app[SITE].index.grant(GrantId(clean(request.query["cursor"])))
        require_grant_owner(request[PRINCIPAL], grant)
    except NotFound as error:
        raise BadRequest("the cursor is not one that this listing gave") from error
    return grant


async def revoke(request: web.Request) -> web.Response:
    """`DELETE /grants/{id}`."""
    await end(request)
    return web.Response(status=204)


async def end(request: web.Request) -> None:
    """Nothing comes any more by the grant that the address names, nor does what is on its way. Raises NotFound."""
    site, id = request.app[SITE], GrantId(request.match_info["id"])  # noqa: A001 - `id` is the word of the design
    require_grant_owner(request[PRINCIPAL], await site.index.grant(id))
    uploads = await site.index.revoke_grant(id, site.clock(), by(request))
    await site.guests.enforce()
    for upload in uploads:
        await site.blobs.delete(upload.key)


def show_grant(grant: Grant) -> dict[str, object]:
    """The JSON members of a grant. Its secret is not among them, for nobody knows it."""
    return {
        "id": grant.id,
        "owner": grant.owner,
        "note": grant.note,
        "created_at": show_time(grant.created_at),
        "expires_at": show_time(grant.expires_at),
        "revoked_at": show_time(grant.revoked_at),
        "max_files": grant.max_files,
        "max_size": grant.max_size,
        "max_file_size": grant.max_file_size,
        "types": list(grant.types),
        "passphrase": grant.passphrase is not None,
        "files": grant.files,
        "size": grant.size,
    }
