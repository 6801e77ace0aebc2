"""Deleting a file by the secret that the guest who stored it was given with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from spool.errors import Gone, NotFound
from spool.model import By, FileId
from spool.policy import require_lasting
from spool.tokens import is_secret
from spool.web.problems import REQUEST_ID
from spool.web.site import SITE

if TYPE_CHECKING:
    from spool.model import File


async def delete(request: web.Request) -> web.Response:
    """`DELETE` or `POST /d/{id}/{secret}`. It works as long as the grant does."""
    await take_back(request, FileId(request.match_info["id"]), request.match_info["secret"])
    return web.Response(status=204)


async def take_back(request: web.Request, id: FileId, secret: str) -> None:
    """The file is gone, durably, for a guest who has its secret. Raises NotFound, Gone."""
    site, file = request.app[SITE], await sent_file(request, id, secret)
    if file.grant is not None:
        try:
            require_lasting(await site.index.grant(file.grant), site.clock())
        except NotFound as error:
            raise Gone("the link by which this file came has ended") from error
    who = file.owner if file.grant is None else f"grant {file.grant}"
    await site.catalog.delete(file.id, By(who, "http", site.clock(), request[REQUEST_ID]))


async def sent_file(request: web.Request, id: FileId, secret: str) -> File:
    """The file with this secret. Raises NotFound, whether there is no such file, or the secret is wrong."""
    unknown = "there is no such file, or this is not its secret"
    try:
        file = await request.app[SITE].catalog.file(id)
    except NotFound as error:
        raise NotFound(unknown) from error
    if not is_secret(secret, file.delete_hash):
        raise NotFound(unknown)
    return file
