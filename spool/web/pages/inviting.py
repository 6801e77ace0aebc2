"""`/guests`, or Receive files: the addresses by which people without an account upload, for those who give them out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from spool.errors import BadRequest
from spool.policy import GRANT_FILES, MAX_GRANT_FILES, MAX_NOTE, MAX_PASSPHRASE, has_ended
from spool.protocol.http import prefers_html
from spool.units import SIZE
from spool.web import grants
from spool.web.auth import PRINCIPAL
from spool.web.pages import words
from spool.web.pages.bounds import DEFAULT, lasting, parse_count, parse_lasting
from spool.web.pages.copying import told_once
from spool.web.pages.forms import read_form
from spool.web.pages.html import join, tag
from spool.web.pages.layout import action, announcement, may, page, see_other
from spool.web.site import SITE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from aiohttp import web

    from spool.model import Grant, Principal
    from spool.web.pages.html import Attribute, Html

    Fields = Mapping[str, Sequence[str]]

_KINDS: Final = ("image/*", "audio/*", "video/*", "application/pdf")
_LONGEST_TITLE: Final = 80
_ABOUT: Final = (
    "With a guest link people without an account send you files. They see nothing of yours, or of each other's; what "
    "they send is in your list, and counts as yours."
)


async def show(request: web.Request) -> web.StreamResponse:
    """`GET /guests`: a form for a new grant, and one's own grants, or an admin's all, newest first."""
    return await _page(request, {})


async def create(request: web.Request) -> web.StreamResponse:
    """`POST /guests`: makes a grant, and tells its address once."""
    fields = await read_form(request)
    try:
        grant, address = await grants.add(request, _document(fields, request.app[SITE].clock()))
    except BadRequest as error:
        if not prefers_html(request.headers.get("Accept")):
            raise
        return await _page(request, fields, refusal=error.detail)
    made = tag(
        "section",
        tag("h1", "The guest link is ready"),
        tag("p", "Send it to whoever is to upload. It is shown now and never again."),
        told_once(address, "Address of the guest link"),
        tag("p", *_state(grant, grant.created_at), " · ", _bounds(grant), class_="dim"),
        tag("p", tag("a", "All guest links", href="/guests")),
        class_="card",
    )
    return page(request, "Guest link", made, announcement(), scripts=("copying.js",), status=201)


async def revoke(request: web.Request) -> web.StreamResponse:
    """`POST /guests/{id}/revoke`: the grant ends, and what is on its way by it."""
    await grants.end(request)
    return see_other("/guests")


def _document(fields: Fields, now: datetime) -> dict[str, object]:
    """What the form asks for, as `POST /grants` would. Raises BadRequest."""
    others = _first(fields, "types").replace(",", " ").split()
    document: dict[str, object] = {
        "note": _first(fields, "note").strip(),
        "expires_at": parse_lasting(_first(fields, "lasts") or DEFAULT, now),
        "max_files": parse_count("the number of files", _first(fields, "max_files"), MAX_GRANT_FILES),
        "max_size": _size("the most bytes in all", _first(fields, "max_size")),
        "max_file_size": _size("the largest file", _first(fields, "max_file_size")),
        "types": [glob for glob in _KINDS if glob in fields.get("kind", [])] + others,
        "passphrase": _first(fields, "passphrase"),
    }
    return {name: value for name, value in document.items() if value not in (None, "")}


def _first(fields: Fields, name: str) -> str:
    return fields.get(name, [""])[0]


def _size(what: str, text: str) -> int | None:
    if not text.strip():
        return None
    try:
        size = SIZE.parse(text.strip())
    except ValueError as error:
        raise BadRequest(f"{what} is not a size such as 500 MB or 10 GB") from error
    assert isinstance(size, int)
    return size


async def _page(request: web.Request, fields: Fields, *, refusal: str | None = None) -> web.Response:
    site, who = request.app[SITE], request[PRINCIPAL]
    owner = None if may(who, "admin") else who.name
    after = await grants.cursor(request) if "cursor" in request.query else None
    found = await site.index.grants(owner, after, grants.PAGE, newest=True)
    now = site.clock()
    rows = [_row(request, who, grant, now) for grant in found]
    more = tag("a", "Older guest links", href=f"/guests?cursor={found[-1].id}", rel="next") if _is_full(found) else None
    return page(
        request,
        "Receive files",
        tag("h1", "Receive files"),
        tag("p", _ABOUT, class_="dim lead"),
        _form(request, fields, refusal),
        tag("h2", "Guest links"),
        tag("ul", *rows, class_="files grants") if rows else tag("p", "None yet.", class_="dim"),
        tag("p", more) if more else None,
        announcement(),
        scripts=("copying.js",),
        status=400 if refusal else 200,
    )


def _is_full(found: Sequence[Grant]) -> bool:
    return len(found) == grants.PAGE


def _form(request: web.Request, fields: Fields, refusal: str | None) -> Html:
    told = words.sentence(refusal) if refusal else None
    note = tag("textarea", _first(fields, "note"), name="note", id="note", rows=2, maxlength=MAX_NOTE)
    form = tag(
        "form",
        tag("p", told, class_="wrong", role="alert") if told else None,
        _field("note", "Note to the guests", note, wide=True),
        _field("lasts", "Works for", lasting(_first(fields, "lasts") or DEFAULT)),
        _input(fields, "max_files", "Files, at most", type="number", min=1, max=MAX_GRANT_FILES, value=GRANT_FILES),
        _input(fields, "max_size", "In all, at most", placeholder="such as 10 GB"),
        _input(fields, "max_file_size", "Each file, at most", placeholder="such as 500 MB"),
        _kinds(fields),
        _input(
            {}, "passphrase", "Pass phrase (optional)", type="password", autocomplete="new-password",
            maxlength=MAX_PASSPHRASE,
        ),
        tag("button", "Make the link", class_="primary"),
        method="post",
        action=action(request, "/guests"),
        class_="grid",
    )  # fmt: skip
    summary = tag("summary", "New guest link", class_="button primary")
    return tag("details", summary, tag("div", form, class_="card"), class_="new", open=bool(refusal))


def _field(name: str, label: str, field: Html, *, wide: bool = False) -> Html:
    return tag("div", tag("label", label, for_=name), field, class_="wide" if wide else None)


def _input(fields: Fields, name: str, label: str, *, value: Attribute = None, **attributes: Attribute) -> Html:
    given = _first(fields, name) or value
    return _field(name, label, tag("input", id=name, name=name, value=given, **attributes))


def _kinds(fields: Fields) -> Html:
    chosen = fields.get("kind", [])
    boxes = [
        tag(
            "label", tag("input", type="checkbox", name="kind", value=glob, checked=glob in chosen), words.types([glob])
        )
        for glob in _KINDS
    ]
    others = tag(
        "input", name="types", value=_first(fields, "types"), aria_label="Other types", placeholder="such as text/*"
    )
    legend = tag("legend", "Only these kinds of files (none is any)")
    return tag("fieldset", legend, *boxes, others, class_="wide")


def _row(request: web.Request, who: Principal, grant: Grant, now: datetime) -> Html:
    title = grant.note.strip().partition("\n")[0] or "Without a note"
    name = title if len(title) <= _LONGEST_TITLE else f"{title[: _LONGEST_TITLE - 1]}…"
    whose = "" if grant.owner == who.name else f" · for {grant.owner}"
    about = tag(
        "div",
        tag("p", name, class_="name"),
        tag("p", *_state(grant, now), whose, " · made ", words.time(grant.created_at), class_="dim"),
        tag("p", _bounds(grant), class_="dim"),
        _use(grant, name),
        class_="about",
    )
    files = tag("a", "Show the files", href=f"/?grant={grant.id}", aria_label=f"Show the files: {name}")
    shown = files if may(who, "read") and grant.files else None
    ended = has_ended(grant, now)
    return tag(
        "li",
        about,
        tag("div", shown, None if ended else _revocation(request, grant, name), class_="row-actions"),
        class_="ended" if ended else None,
        data_id=grant.id,
    )


def _state(grant: Grant, now: datetime) -> tuple[str, Html]:
    if grant.revoked_at is not None:
        return "Revoked ", words.time(grant.revoked_at)
    return ("Expired " if grant.expires_at <= now else "Works until "), words.time(grant.expires_at)


def _bounds(grant: Grant) -> str:
    """What one file may be, and what a guest must know; how much in all is told with the use of it."""
    told = [words.types(grant.types) if grant.types else "any kind of file"]
    if grant.max_file_size:
        told.append(f"up to {words.size(grant.max_file_size)} each")
    if grant.passphrase is not None:
        told.append("with a pass phrase")
    return words.capital(" · ".join(told))


def _use(grant: Grant, name: str) -> Html:
    files = f"{grant.files:,} of {words.count(grant.max_files, 'file')}"
    size = f"{words.size(grant.size)} of {words.size(grant.max_size)}" if grant.max_size else words.size(grant.size)
    share = max(grant.files / grant.max_files, grant.size / grant.max_size if grant.max_size else 0)
    bar = tag("progress", max=100, value=round(share * 100), aria_label=f"How much is used up: {name}")
    return tag("p", join(bar, tag("span", f"{files} · {size}", class_="dim")), class_="use")


def _revocation(request: web.Request, grant: Grant, name: str) -> Html:
    button = tag("button", "Revoke now", class_="danger", aria_label=f"Revoke now: {name}")
    form = tag("form", button, method="post", action=action(request, f"/guests/{grant.id}/revoke"))
    hint = tag(
        "p", "The link stops working at once, also for what is being sent. Files that have come stay.", class_="dim"
    )
    return tag("details", tag("summary", "Revoke…", class_="danger", aria_label=f"Revoke…: {name}"), hint, form)
