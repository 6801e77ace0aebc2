"""A file's links, on its page: the addresses at which whoever has them gets its bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spool.errors import Forbidden, Gone, NotFound
from spool.model import FileId
from spool.policy import has_ended, require_link_owner
from spool.web import links
from spool.web.auth import PRINCIPAL
from spool.web.links import MAX_DOWNLOADS
from spool.web.pages import words
from spool.web.pages.bounds import DEFAULT, lasting, parse_count, parse_lasting
from spool.web.pages.copying import told_once
from spool.web.pages.forms import read_form
from spool.web.pages.html import tag
from spool.web.pages.layout import action, announcement, for_people, page, refusal_page, see_other
from spool.web.site import SITE

if TYPE_CHECKING:
    from aiohttp import web

    from spool.errors import SpoolError
    from spool.model import File, Link
    from spool.web.auth import Handler
    from spool.web.pages.html import Html, Node


async def section(request: web.Request, file: File) -> Html:
    """The links that still work, how many do not, and a form for a new one."""
    now = request.app[SITE].clock()
    found = await request.app[SITE].index.links(file.id, links.LISTED)
    rows = [_row(request, file, link) for link in found if not (has_ended(link, now) or _is_used_up(link))]
    ended = len(found) - len(rows)
    about = "Whoever has a link can download this file without signing in, as long as the link works."
    return tag(
        "section",
        tag("h2", "Links"),
        tag("p", about, class_="dim"),
        tag("ul", *rows, class_="links") if rows else None,
        tag("p", f"{words.count(ended, 'link')} no longer work{'s' if ended == 1 else ''}.", class_="dim")
        if ended
        else None,
        _form(request, file),
        id="links",
    )


async def make(request: web.Request) -> web.StreamResponse:
    """`POST /view/{id}/links`: makes a link, and tells its address once."""
    file = await request.app[SITE].catalog.file(FileId(request.match_info["id"]))
    fields = await read_form(request)
    lasts, most = (fields.get(name, [""])[0].strip() for name in ("lasts", "max_downloads"))
    document: dict[str, object] = {"expires_at": parse_lasting(lasts or DEFAULT, request.app[SITE].clock())}
    document["max_downloads"] = parse_count("the number of downloads", most, MAX_DOWNLOADS)
    link, address = await links.add(request, file, document)
    made = tag(
        "section",
        tag("h1", "The link is ready"),
        tag("p", "Whoever has it can download ", tag("strong", file.filename), ". It is shown now and never again."),
        told_once(address, f"Link to {file.filename}"),
        tag("p", *_bounds(link), class_="dim"),
        tag("p", tag("a", "Back to the file", href=f"/view/{file.id}")),
        class_="card",
    )
    return page(request, "Link", made, announcement(), scripts=("copying.js",), status=201)


def for_visitors(handler: Handler) -> Handler:
    """The handler of a link's address, whose refusals are pages for those who would rather have one."""
    return for_people(handler, _refused)


def _refused(request: web.Request, error: SpoolError) -> web.Response:
    ended = isinstance(error, Gone | NotFound)
    title = "This link does not work" if ended else error.title
    hint = tag("p", "Was the whole address copied? Whoever gave it to you can make a new one.") if ended else None
    detail = tag("p", words.sentence(error.detail))
    return refusal_page(request, error, title, detail, hint, for_guests=True)


async def revoke(request: web.Request) -> web.StreamResponse:
    """`POST /view/{id}/links/{link_id}/revoke`: the link ends."""
    await links.end(request)
    return see_other(f"/view/{request.match_info['id']}")


def _is_used_up(link: Link) -> bool:
    return link.max_downloads is not None and link.downloads >= link.max_downloads


def _row(request: web.Request, file: File, link: Link) -> Html:
    made = tag("p", "Made by ", link.created_by, ", ", words.time(link.created_at), class_="dim")
    revocation = tag(
        "form",
        tag("button", "Revoke", class_="danger", aria_label=f"Revoke the link of {link.created_at:%Y-%m-%d %H:%M}"),
        method="post",
        action=action(request, f"/view/{file.id}/links/{link.id}/revoke"),
        class_="row-actions",
    )
    about = tag("div", tag("p", *_bounds(link)), made, class_="about")
    return tag("li", about, revocation if _may_revoke(request, link, file) else None, data_id=link.id)


def _may_revoke(request: web.Request, link: Link, file: File) -> bool:
    try:
        require_link_owner(request[PRINCIPAL], link, file)
    except Forbidden:
        return False
    return True


def _bounds(link: Link) -> list[Node]:
    most = link.max_downloads
    count = "" if most is None else f" · {link.downloads:,} of {words.count(most, 'download')}"
    return ["Works until ", words.time(link.expires_at), count]


def _form(request: web.Request, file: File) -> Html:
    most = tag(
        "input", type="number", name="max_downloads", id="max_downloads", min=1, max=MAX_DOWNLOADS, placeholder="any"
    )
    return tag(
        "form",
        tag("div", tag("label", "Works for", for_="lasts"), lasting()),
        tag("div", tag("label", "Downloads, at most", for_="max_downloads"), most),
        tag("button", "Make a link"),
        method="post",
        action=action(request, f"/view/{file.id}/links"),
        class_="grid",
    )
