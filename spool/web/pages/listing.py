"""`GET /`: where files are dropped, and the list of those that are there."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlencode

from spool.errors import BadRequest, NotFound
from spool.model import FileQuery, GrantId, Page
from spool.web.archive import MOST_FILES
from spool.web.auth import PRINCIPAL
from spool.web.download import is_shown_in_place
from spool.web.fields import parse_time
from spool.web.files import MAX_PATTERN
from spool.web.pages import deleted, words
from spool.web.pages.copying import copy_link
from spool.web.pages.html import tag
from spool.web.pages.layout import action, announcement, may, page
from spool.web.pages.zone import Ways, drop_zone
from spool.web.site import SITE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiohttp import web

    from spool.model import File, FileId, Sort
    from spool.web.pages.html import Html

_LIMIT: Final = 50
_LIMITS: Final = ("50", "200")
"""Files on a page: as it is loaded, and as it grows."""
_EMPTY: Final = 1500
"""Files that pages on which none passes had room for, before the reader is asked to go on."""
_LARGEST_PICTURE: Final = 1024 * 1024
"""Bytes of an image that is shown in the list as it is."""
_KINDS: Final = {"image": "Images", "audio": "Audio", "video": "Video", "text": "Text", "application": "Other"}
_SORTS: Final[dict[str, tuple[str, Sort, bool]]] = {
    "newest": ("Newest first", "created_at", True),
    "oldest": ("Oldest first", "created_at", False),
    "name": ("By name", "filename", False),
    "largest": ("Largest first", "size", True),
}
_PARAMETERS: Final = ("q", "kind", "sort", "limit", "cursor", "since", "changes", "grant")
_MOST_CHANGES: Final = 200
"""Files that changed, of which one answer tells."""


class _Asked(NamedTuple):
    """What the address says, checked."""

    q: str
    kind: str
    sort: str
    limit: str | None
    cursor: str | None
    since: str | None
    changes: str | None
    grant: str | None

    def query(self) -> FileQuery:
        _, sort, descending = _SORTS[self.sort]
        return FileQuery(
            limit=int(self.limit or _LIMIT),
            cursor=self.cursor,
            q=self.q or None,
            media_type=f"{self.kind}/*" if self.kind else None,
            since=None if self.since is None else parse_time("since", self.since),
            grant=GrantId(self.grant) if self.grant else None,
            sort=sort,
            descending=descending,
        )

    def address(self, **other: str | None) -> str:
        """This page, with what is given changed."""
        pairs = {name: value for name, value in {**self._asdict(), **other}.items() if value}
        if pairs.get("sort") == "newest":
            del pairs["sort"]
        return f"/?{urlencode(pairs)}" if pairs else "/"


async def show(request: web.Request) -> web.StreamResponse:
    """`GET /`: for each principal what it may do, and the list for those that may read."""
    site, who, asked = request.app[SITE], request[PRINCIPAL], _parse(request)
    return page(
        request,
        "Spool",
        tag("h1", "Files", class_="hidden"),
        drop_zone(request, Ways(action(request, "/upload"), "/tus"), site.policy) if may(who, "upload") else None,
        *(await _stored(request, asked) if may(who, "read") else ()),
        announcement(),
        scripts=("tus.min.js", "app.js"),
    )


def _parse(request: web.Request) -> _Asked:
    given = {name: request.query.get(name) or None for name in _PARAMETERS}
    q, kind, sort = given["q"] or "", given["kind"] or "", given["sort"] or "newest"
    names = ("limit", "cursor", "since", "changes", "grant")
    asked = _Asked(q, kind, sort, *(given[name] for name in names))
    if any(len(text) > MAX_PATTERN or "\0" in text for text in (asked.q, asked.grant or "")):
        raise BadRequest(f"what is searched for is longer than {MAX_PATTERN} characters, or holds a NUL")
    if asked.kind not in ("", *_KINDS) or asked.sort not in _SORTS or asked.limit not in (None, *_LIMITS):
        raise BadRequest("there is no such kind of files, no such order, or no page of this size")
    if not re.fullmatch(r"\d{1,18}", asked.changes or "0", re.ASCII):
        raise BadRequest("changes is not a number that an earlier page has told")
    return asked


async def _stored(request: web.Request, asked: _Asked) -> tuple[Html | None, ...]:
    """What is there, and what was. The changes are asked for first, so that none falls between."""
    site = request.app[SITE]
    after = None if asked.changes is None else int(asked.changes)
    changes = await site.catalog.changes(after, _MOST_CHANGES)
    found = await _find(request, asked)
    hidden = await deleted.section(request) if may(request[PRINCIPAL], "delete") else None
    return _files(request, asked, found, changes.position, hidden), await _changed(request, changes.ids)


async def _changed(request: web.Request, ids: Sequence[FileId]) -> Html | None:
    """For a page that is open: the rows of these files as they are now, and which of them are gone."""
    rows, gone = [], []
    for id in ids:  # noqa: A001
        try:
            rows.append(row(request, await request.app[SITE].catalog.file(id)))
        except NotFound:
            gone.append(id)
    return tag("ul", *rows, id="changed", hidden=True, data_gone=" ".join(gone)) if ids else None


async def _find(request: web.Request, asked: _Asked) -> Page[File]:
    """The page; pages on which nothing passes are turned."""
    query = asked.query()
    for _ in range(_EMPTY // query.limit):
        found = await request.app[SITE].catalog.files(query)
        if found.items or found.next is None:
            break
        query = replace(query, cursor=found.next)
    return found


def _files(request: web.Request, asked: _Asked, found: Page[File], position: int, hidden: Html | None) -> Html:
    who, grace = request[PRINCIPAL], request.app[SITE].undo_grace
    rows = [row(request, file) for file in found.items]
    delete = tag("button", "Delete", form="chosen", formaction=action(request, "/delete"), class_="danger")
    chosen = tag(
        "form",
        tag("span", "Select files to do something with all of them.", id="count", class_="dim"),
        tag("button", "Download as zip", form="chosen"),
        delete if may(who, "delete") else None,
        id="chosen",
        method="post",
        action=action(request, "/files.zip"),
        class_="actions",
        data_most=MOST_FILES,
        hidden=not rows,
    )
    more = tag("a", "More files", href=asked.address(cursor=found.next, changes=None), rel="next", id="more")
    list_ = tag(
        "ul", *rows, id="files", class_="files", data_live=asked.sort == "newest", data_changes=position,
        data_grace=int(grace.total_seconds()) or None, aria_label="Stored files",
    )  # fmt: skip
    return tag(
        "section",
        tag("h2", "Stored files", class_="hidden"),
        tag("div", hidden, id="line"),
        _by_guests(asked) if asked.grant else None,
        _finder(asked),
        list_,
        _nothing(asked, told=not rows and found.next is None),
        tag("p", more) if found.next else None,
        chosen,
    )


def _nothing(asked: _Asked, *, told: bool) -> Html:
    """That there is nothing; scripts tell it, too, once all is deleted."""
    filtered = asked.q or asked.kind or asked.grant
    text = ("Nothing matches. ", tag("a", "Show all files", href="/")) if filtered else ("Nothing here yet.",)
    return tag("p", *text, class_="dim empty", id="empty", hidden=not told)


def _by_guests(asked: _Asked) -> Html:
    wider = "Search all files" if asked.q or asked.kind else "Show all files"
    link = tag("a", wider, href=asked.address(grant=None, cursor=None, changes=None))
    return tag("p", "These files were sent by one guest link. ", link, class_="notice")


def _finder(asked: _Asked) -> Html:
    search = tag(
        "input", type="search", name="q", value=asked.q, placeholder="Search by name", aria_label="Search by name",
        maxlength=MAX_PATTERN,
    )  # fmt: skip
    kinds = [
        tag("option", text, value=key, selected=key == asked.kind) for key, text in [("", "All kinds"), *_KINDS.items()]
    ]
    sorts = [tag("option", text, value=key, selected=key == asked.sort) for key, (text, *_) in _SORTS.items()]
    return tag(
        "form",
        search,
        tag("button", "Find"),
        tag("select", *kinds, name="kind", aria_label="Kind"),
        tag("select", *sorts, name="sort", aria_label="Order"),
        tag("input", type="hidden", name="grant", value=asked.grant) if asked.grant else None,
        id="finder",
        method="get",
        action="/",
        role="search",
    )


def row(request: web.Request, file: File) -> Html:
    """One file of the list."""
    view, name = f"/view/{file.id}", file.filename
    pick = tag("input", type="checkbox", name="id", value=file.id, form="chosen", aria_label=f"Select {name}")
    type_ = tag("span", file.media_type, " · ", class_="type")
    about = [words.size(file.size), " · ", type_, words.time(file.created_at)]
    if file.grant is not None:
        about.append(" · by a guest")
    damaged = tag("span", " · damaged", class_="wrong") if file.damage else None
    download = tag(
        "a", "Download", href=media(request, file, download=True), download=True, aria_label=f"Download {name}"
    )
    return tag(
        "li",
        tag("label", pick, class_="pick"),
        _picture(request, file),
        tag("div", tag("a", name, href=view, class_="name"), tag("p", *about, damaged, class_="dim"), class_="about"),
        tag("div", copy_link(file), download if file.damage is None else None, class_="row-actions"),
        data_id=file.id,
        data_created=f"{file.created_at:%Y-%m-%dT%H:%M:%S.%fZ}",
        data_expires=f"{file.expires_at:%Y-%m-%dT%H:%M:%S.%fZ}" if file.expires_at else None,
    )


def _picture(request: web.Request, file: File) -> Html:
    shown = words.kind(file) == "image" and is_shown_in_place(file.media_type) and file.size <= _LARGEST_PICTURE
    if shown and file.damage is None:
        image = tag("img", src=media(request, file), alt="", loading="lazy", decoding="async", width=44, height=44)
        return tag("span", image, class_="tile")
    return tag("span", words.ending(file), class_=f"tile {words.kind(file)}", aria_hidden="true")


def media(request: web.Request, file: File, *, download: bool = False) -> str:
    """The address of the bytes, as a page of ours has it: without our own origin."""
    site = request.app[SITE]
    address = site.addresses.media(request, file, site.clock(), download=download)
    return address if site.addresses.media_base_url else address.removeprefix(site.addresses.base(request))
