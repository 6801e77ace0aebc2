"""`GET /view/{id}`: all about one file, and the file itself where a browser can show or play it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from spool.model import FileId
from spool.web.auth import PRINCIPAL
from spool.web.download import is_shown_in_place
from spool.web.pages import linking, words
from spool.web.pages.copying import copy_link
from spool.web.pages.html import tag
from spool.web.pages.layout import action, announcement, list_before, may, page
from spool.web.pages.listing import media
from spool.web.site import SITE

if TYPE_CHECKING:
    from aiohttp import web

    from spool.model import File, Principal
    from spool.web.pages.html import Html, Node


_LARGEST_IMAGE: Final = 32 * 1024 * 1024
"""Bytes of an image that is shown before anybody asks for it. Of audio and video a browser fetches what it plays."""


async def show(request: web.Request) -> web.StreamResponse:
    """`GET /view/{id}`. Raises NotFound."""
    file, back = await request.app[SITE].catalog.file(FileId(request.match_info["id"])), list_before(request)
    return page(
        request,
        file.filename,
        tag("p", tag("a", "All files" if back == "/" else "Back to the list", href=back), class_="back"),
        tag(
            "article",
            tag("h1", file.filename),
            tag("p", "The bytes of this file were lost or changed on the disk.", class_="wrong")
            if file.damage
            else _show(request, file),
            _actions(request, file),
            _facts(file),
            _changes(request, file),
            class_="card",
        ),
        await linking.section(request, file),
        announcement(),
        scripts=("view.js",),
    )


def _show(request: web.Request, file: File) -> Html | None:
    """A player that seeks, for the address takes ranges, or the image; None for what a browser is to save."""
    if not is_shown_in_place(file.media_type) or _waits(file):
        return None
    match words.kind(file):
        case "image":
            return tag("img", src=media(request, file), alt=file.filename, class_="shown")
        case "audio" | "video" as kind:
            label = f"{kind.capitalize()}: {file.filename}"
            return tag(
                kind, src=media(request, file), controls=True, preload="metadata", class_="shown", aria_label=label
            )
    return None


def _waits(file: File) -> bool:
    return words.kind(file) == "image" and is_shown_in_place(file.media_type) and file.size > _LARGEST_IMAGE


def _actions(request: web.Request, file: File) -> Html:
    opened = file.damage is None and (words.kind(file) == "text" or _waits(file))
    open_ = tag("a", "Open", href=media(request, file), class_="button") if opened else None
    save = tag(
        "a", "Download", href=media(request, file, download=True), download=file.filename, class_="button primary"
    )
    return tag("div", save if file.damage is None else None, open_, copy_link(file), class_="actions")


def _facts(file: File) -> Html:
    facts: list[tuple[str, Node]] = [
        ("Size", words.exact_size(file.size)),
        ("Type", file.media_type),
        ("Stored", words.time(file.created_at)),
        ("Expires", words.time(file.expires_at) if file.expires_at else "Never"),
        ("Owner", file.owner),
        ("SHA-256", tag("code", file.sha256)),
    ]
    if file.grant is not None:
        facts.append(("Sent by", tag("a", "a guest", href=f"/?grant={file.grant}")))
    for name, value in file.metadata.items():
        facts.append((name, value if isinstance(value, str) else ", ".join(value)))
    return tag("dl", *(tag("div", tag("dt", name), tag("dd", value)) for name, value in facts))


def may_edit(who: Principal, file: File) -> bool:
    """As `policy.require_edit` and the route's scope say."""
    return may(who, "admin") or (who.name == file.owner and may(who, "upload"))


def _changes(request: web.Request, file: File) -> Html:
    who = request[PRINCIPAL]
    name = tag("input", name="filename", id="filename", value=file.filename, required=True, maxlength=255)
    rename = tag(
        "form",
        tag("label", "Name", for_="filename"),
        name,
        tag("button", "Rename"),
        method="post",
        action=action(request, f"/view/{file.id}"),
        class_="inline",
    )
    delete = tag(
        "form",
        tag("input", type="hidden", name="id", value=file.id),
        tag("button", "Delete" if request.app[SITE].undo_grace else "Delete…", class_="danger"),
        method="post",
        action=action(request, "/delete"),
    )
    return tag("div", rename if may_edit(who, file) else None, delete if may(who, "delete") else None, class_="changes")
