"""`/g/{secret}` in a browser: what a guest may send, where to drop it, and what this guest has sent.

Programs get from the same address what `web/guests.py` tells them. What one guest sent is known to that guest's browser
alone, as receipts with which each file can be deleted; nothing is listed.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

from spool.errors import Gone, NotFound, PassphraseRequired, SpoolError
from spool.model import FileId
from spool.protocol.http import prefers_html
from spool.web import guests, undo
from spool.web.guest_cookies import keep_proof, keep_sent, sent
from spool.web.guests import grant_of
from spool.web.pages import words
from spool.web.pages.forms import read_form
from spool.web.pages.html import tag
from spool.web.pages.layout import announcement, for_people, page, refusal_page, see_other
from spool.web.pages.plain_http import way_to_tls
from spool.web.pages.zone import Ways, drop_zone
from spool.web.session import SAFE, require_own_page
from spool.web.site import SITE
from spool.web.upload import store_form

if TYPE_CHECKING:
    from aiohttp import web

    from spool.model import File, Grant, Usage
    from spool.web.auth import Handler
    from spool.web.pages.html import Html, Node
    from spool.web.site import Site

_UNKNOWN: Final = "There is no link with this address, or none any more. Was the whole address copied?"
_ENDED: Final = "Nothing can be sent by it any more. What was stored before stays with whoever gave you the link."


def for_guests(handler: Handler) -> Handler:
    """The handler, whose refusals are pages for those who would rather have one: the pass phrase, or what is wrong."""
    return for_people(handler, _refused)


async def show(request: web.Request) -> web.StreamResponse:
    """`GET /g/{secret}`: the page, or the JSON of it for who does not prefer a page."""
    if not prefers_html(request.headers.get("Accept")):
        return await guests.show(request)
    site, grant = request.app[SITE], grant_of(request)
    came = await site.index.grant_usage(grant.id)
    place, policy = _place(request), site.policy.under(grant)
    zone = drop_zone(request, Ways(f"{place}/upload", f"{place}/tus"), policy, told=False)
    return page(
        request,
        "Send files",
        tag("h1", "Send files"),
        tag("p", grant.note, class_="note") if grant.note else None,
        _bounds(site, grant, came),
        tag("div", id="news"),
        tag("p", "All that may be sent by this link has been sent.", class_="notice") if _is_full(grant) else zone,
        _sent(place, await _receipts(request)),
        announcement(),
        scripts=("tus.min.js", "guest.js"),
        for_guests=True,
    )


def _place(request: web.Request) -> str:
    return f"/g/{request.match_info['secret']}"


def _is_full(grant: Grant) -> bool:
    """Whether files have used it up; uploads that are not finished may still be gone on with."""
    return grant.files >= grant.max_files or bool(grant.max_size and grant.size >= grant.max_size)


def _bounds(site: Site, grant: Grant, came: Usage) -> Html:
    """What is still allowed, in words."""
    told = guests.invitation(grant, came, site.policy.under(grant).max_file_size)
    files, size, each = told["files_left"], told["bytes_left"], told["max_file_size"]
    assert isinstance(files, int)
    assert isinstance(each, int)
    together = f", together up to {words.size(size)}" if isinstance(size, int) else ""
    rows: list[tuple[str, Node]] = [
        ("You can send", f"{words.count(files, 'more file')}{together}"),
        ("Each file", f"up to {words.size(each if not isinstance(size, int) else min(each, size))}"),
        ("Kinds of files", words.types(grant.types or site.policy.allow_types)),
        ("Until", words.time(grant.expires_at)),
        ("Who sees them", "Whoever gave you this link, and others with an account here. Other guests do not."),
    ]
    return tag("dl", *(tag("div", tag("dt", name), tag("dd", text)) for name, text in rows), id="bounds", class_="card")


async def _receipts(request: web.Request) -> list[File]:
    """The files that are still there, newest first."""
    found = []
    for id_, secret in sent(request).items():
        try:
            file = await undo.sent_file(request, id_, secret)
        except NotFound:
            continue
        if file.grant == grant_of(request).id:
            found.append(file)
    return found[::-1]


def _sent(place: str, files: list[File]) -> Html:
    rows = [_row(place, file) for file in files]
    heading = tag("h2", "What you sent", id="sent-heading")
    hint = tag("p", "Only this browser knows which files were yours, and can delete them.", class_="dim")
    return tag(
        "section",
        tag("div", id="line"),
        heading,
        hint,
        tag("ul", *rows, id="sent", class_="files plain-rows", aria_labelledby="sent-heading"),
        hidden=not rows,
    )


def _row(place: str, file: File) -> Html:
    about = tag("p", words.size(file.size), " · ", words.time(file.created_at), class_="dim")
    delete = tag(
        "form",
        tag("input", type="hidden", name="id", value=file.id),
        tag("button", "Delete", class_="danger", aria_label=f"Delete {file.filename}"),
        method="post",
        action=f"{place}/delete",
        class_="row-actions",
    )
    name = tag("span", file.filename, class_="name")
    return tag("li", tag("div", name, about, class_="about"), delete, data_id=file.id)


async def upload(request: web.Request) -> web.StreamResponse:
    """`POST /g/{secret}/upload`: stores a form's files; the browser keeps the receipts."""
    require_own_page(request)
    files = await store_form(request)
    receipts = {file.id: file.delete_secret for file in files if file.delete_secret is not None}
    response = see_other(_place(request))
    keep_sent(request, response, grant_of(request), {**sent(request), **receipts})
    return response


async def delete(request: web.Request) -> web.StreamResponse:
    """`POST /g/{secret}/delete`: deletes a file that this browser has a receipt for."""
    require_own_page(request)
    fields, receipts = await read_form(request), sent(request)
    id_ = FileId(fields.get("id", [""])[0])
    secret = receipts.pop(id_, None)
    if secret is None:
        raise NotFound("this browser has not sent such a file, or has forgotten it")
    with suppress(NotFound):  # it is gone, then
        await undo.take_back(request, id_, secret)
    response = see_other(_place(request))
    keep_sent(request, response, grant_of(request), receipts)
    return response


async def enter(request: web.Request) -> web.StreamResponse:
    """`POST /g/{secret}/passphrase`: the browser is known to have the pass phrase from now on."""
    require_own_page(request)
    if (elsewhere := way_to_tls(request, _place(request), for_guests=True)) is not None:
        return elsewhere
    fields, grant = await read_form(request), grant_of(request)
    try:
        await request.app[SITE].guests.prove(grant, fields.get("passphrase", [""])[0])
    except PassphraseRequired:
        if not prefers_html(request.headers.get("Accept")):
            raise
        return _ask(request, refusal="This is not the pass phrase.")
    response = see_other(_place(request))
    keep_proof(request, response, grant)
    return response


def _refused(request: web.Request, error: SpoolError) -> web.Response:
    if isinstance(error, PassphraseRequired) and request.method in SAFE:
        return _ask(request)
    back: Html | None = tag("p", tag("a", "Back", href=_place(request)))
    detail = words.sentence(error.detail)
    match error:
        case Gone():
            title, text, back = "This link has ended", f"{detail} {_ENDED}", None
        case NotFound() if request.method in SAFE:
            title, text, back = "Unknown link", _UNKNOWN, None
        case _:
            title, text = error.title, detail
    scripts = ("guest.js",) if isinstance(error, Gone | NotFound) else ()
    return refusal_page(request, error, title, tag("p", text), back, scripts=scripts, for_guests=True)


def _ask(request: web.Request, *, refusal: str | None = None) -> web.Response:
    """The form for the pass phrase. It is no 401, upon which a browser would ask in a window of its own."""
    if (elsewhere := way_to_tls(request, _place(request), for_guests=True)) is not None:
        return elsewhere
    wrong = {"aria_invalid": "true", "aria_describedby": "wrong"} if refusal else {}
    form = tag(
        "form",
        tag("label", "Pass phrase", for_="passphrase"),
        tag(
            "input", id="passphrase", name="passphrase", type="password", required=True, autofocus=True,
            autocomplete="off", spellcheck="false", **wrong,
        ),
        tag("p", refusal, id="wrong", class_="wrong", role="alert") if refusal else None,
        tag("button", "Continue", class_="primary"),
        method="post",
        action=f"{_place(request)}/passphrase",
    )  # fmt: skip
    hint = tag("p", "Whoever gave you this link has set a pass phrase for it. Ask them if you do not have it.")
    section = tag("section", tag("h1", "Send files"), hint, form, class_="card sign-in", id="lock")
    return page(request, "Send files", section, status=403 if refusal else 200, for_guests=True)
