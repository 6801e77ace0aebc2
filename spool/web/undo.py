"""Deleting a file by the secret that the guest who stored it was given with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from spool.errors import Gone, NotFound
from spool.model import By, FileId
from spool.policy import require_grant
from spool.tokens import is_secret
from spool.web.problems import REQUEST_ID
from spool.web.site import SITE

if TYPE_CHECKING:
    from spool.model import File


async def delete(request: web.Request) -> web.Response:
    """`DELETE` or `POST /d/{id}/{secret}`. It works as long as the grant does."""
    site, file = request.app[SITE], await _file(request)
    if file.grant is not None:
        try:
            require_grant(await site.index.grant(file.grant), site.clock())
        except NotFound as error:
            raise Gone("the link by which this file came has ended") from error
    who = file.owner if file.grant is None else f"grant {file.grant}"
    await site.catalog.delete(file.id, By(who, "http", site.clock(), request[REQUEST_ID]))
    return web.Response(status=204)


async def _file(request: web.Request) -> File:
    """Raises NotFound, whether it is the file that there is not, or the secret that is wrong."""
    unknown = "there is no such file, or this is not its secret"
    try:
        file = await request.app[SITE].catalog.file(FileId(request.match_info["id"]))
    except NotFound as error:
        raise NotFound(unknown) from error
    if not is_secret(request.match_info["secret"], file.delete_hash):
        raise NotFound(unknown)
    return file
