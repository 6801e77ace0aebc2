"""Links: the bytes of one file for whoever has the address, for a time and, if need be, a number of downloads.

A download is counted by the file's last byte. A GET that asks for it takes one download before anything is sent, and
gives it back if the connection ends before that byte was sent. So the ranges of one download count once, and never is
the whole file given out more often than the link allows, however many ask at once. Nor are more bytes given out, in
whichever ranges, than that many times the file's, and once more for downloads that broke off.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from aiohttp import web

from spool.errors import BadRequest, NotFound, SpoolError
from spool.model import FileId, LinkId
from spool.policy import GRANT_LASTS, require_future, require_lasting, require_link_owner
from spool.protocol.http import Span
from spool.tokens import hash_secret, new_link
from spool.web.auth import PRINCIPAL, by
from spool.web.documents import read_object
from spool.web.download import TOLL, Toll, send_file
from spool.web.fields import parse_time
from spool.web.records import show_time
from spool.web.site import SITE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from spool.model import File, Link
    from spool.web.site import Site

_log = logging.getLogger(__name__)

MEMBERS: Final = ("expires_at", "max_downloads")
MAX_DOWNLOADS: Final = 1_000_000
LISTED: Final = 1000


async def make(request: web.Request) -> web.Response:
    """`POST /files/{id}/links`. The address is in the answer, and nowhere else ever again."""
    file = await _file(request)
    link, address = await add(request, file, await read_object(request, ("application/json",)))
    members = {**show_link(link), "url": address}
    return web.json_response(members, status=201, headers={"Cache-Control": "no-store"})


async def add(request: web.Request, file: File, document: Mapping[str, object]) -> tuple[Link, str]:
    """The link to the file that the document asks for is made; returns it and its address. Raises BadRequest."""
    site = request.app[SITE]
    if unknown := document.keys() - set(MEMBERS):
        raise BadRequest(f"a link has no {', '.join(sorted(unknown))}; known are {', '.join(MEMBERS)}")
    now, wanted, most = site.clock(), document.get("expires_at"), document.get("max_downloads")
    if not isinstance(wanted, str | None):
        raise BadRequest("expires_at is not a text or null")
    expires_at = now + GRANT_LASTS if wanted is None else parse_time("expires_at", wanted)
    require_future(expires_at, now)
    if isinstance(most, bool) or not isinstance(most, int | None) or not (most is None or 1 <= most <= MAX_DOWNLOADS):
        raise BadRequest(f"max_downloads is not a number from 1 to {MAX_DOWNLOADS}, or null")
    link, secret = new_link(file.id, request[PRINCIPAL].name, now, expires_at)
    link = replace(link, max_downloads=most)
    await site.index.add_link(link, hash_secret(secret), by(request))
    return link, site.addresses.link(request, secret)


async def list_links(request: web.Request) -> web.Response:
    """`GET /files/{id}/links`: the newest 1000."""
    links = await request.app[SITE].index.links((await _file(request)).id, LISTED)
    return web.json_response({"links": [show_link(link) for link in links]})


async def revoke(request: web.Request) -> web.Response:
    """`DELETE /files/{id}/links/{link_id}`."""
    await end(request)
    return web.Response(status=204)


async def end(request: web.Request) -> None:
    """By the link that the address names nobody is given the file any more. Raises NotFound, Forbidden."""
    site, file = request.app[SITE], await _file(request)
    links = {link.id: link for link in await site.index.links(file.id, LISTED)}
    link = links.get(LinkId(request.match_info["link_id"]))
    if link is None:
        raise NotFound("there is no such link")
    require_link_owner(request[PRINCIPAL], link, file)
    await site.index.revoke_link(link.id, site.clock(), by(request))


async def follow(request: web.Request) -> web.StreamResponse:
    """`GET /l/{secret}`: the file's bytes, or ranges of them."""
    site = request.app[SITE]
    link = await site.index.link_of(hash_secret(request.match_info["secret"]))
    if link is None:
        raise NotFound("there is no such link")
    require_lasting(link, site.clock())
    file = await site.catalog.readable(link.file_id)
    if link.max_downloads is not None:
        request[TOLL] = _Counted(site, link, file)
    return await send_file(request, file)


def show_link(link: Link) -> dict[str, object]:
    """The JSON members of a link. Its secret is not among them, for nobody knows it."""
    return {
        "id": link.id,
        "file_id": link.file_id,
        "created_by": link.created_by,
        "created_at": show_time(link.created_at),
        "expires_at": show_time(link.expires_at),
        "revoked_at": show_time(link.revoked_at),
        "max_downloads": link.max_downloads,
        "downloads": None if link.max_downloads is None else link.downloads,
    }


async def _file(request: web.Request) -> File:
    return await request.app[SITE].catalog.file(FileId(request.match_info["id"]))


@dataclass(slots=True)
class _Counted(Toll):
    """Takes from the link what is about to be sent, and gives back what was not."""

    site: Site
    link: Link
    file: File
    spans: Sequence[Span] = ()
    begun: int = 0
    ended: int = 0
    taking: asyncio.Future[None] | None = None

    async def take(self, spans: Sequence[Span]) -> None:
        # What is asked of the index is done, also if the client vanishes meanwhile: `settle` needs to know how it ends.
        taking = self.site.index.take_download(self.link.id, _size(spans), self._lasts(spans))
        self.spans, self.taking = spans, asyncio.ensure_future(taking)
        await asyncio.shield(self.taking)

    def begin(self, size: int) -> None:
        self.begun += size

    def end(self, size: int) -> None:
        self.ended += size

    async def settle(self) -> None:
        if self.taking is None:
            return
        await asyncio.wait([self.taking])
        if self.taking.exception() is not None:
            return
        unsent = _size(self.spans) - self.begun
        lost = self._lasts(self.spans) - self._lasts(_first(self.spans, self.ended))
        if not unsent and not lost:
            return
        try:
            await self.site.index.give_back(self.link.id, unsent, lost)
        except SpoolError as error:  # the answer is over, and nobody is left to be told
            _log.warning("link.uncounted", {"id": self.link.id, "reason": str(error)})

    def _lasts(self, spans: Sequence[Span]) -> int:
        """How often the file's last byte is among them."""
        return sum(span.start + span.length == self.file.size for span in spans)


def _size(spans: Sequence[Span]) -> int:
    return sum(span.length for span in spans)


def _first(spans: Sequence[Span], size: int) -> list[Span]:
    """The first `size` bytes of the spans."""
    found = []
    for span in spans:
        length = min(span.length, size)
        if length or not span.length:  # of an empty file nothing is ever missing
            found.append(Span(span.start, length))
        size -= length
    return found
