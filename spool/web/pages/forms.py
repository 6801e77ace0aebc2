"""What a page's plain form brings, and what it does: each leads back to a page."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs

from spool.errors import BadRequest, BadType, NotFound
from spool.model import FileId
from spool.policy import require_edit
from spool.protocol.disposition import clean_filename
from spool.protocol.http import parse_media_type
from spool.web.auth import PRINCIPAL, by
from spool.web.body import Body
from spool.web.pages.html import join, tag
from spool.web.pages.layout import action, page, see_other
from spool.web.site import SITE
from spool.web.upload import store_form

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiohttp import web

    from spool.model import File

_MAX_SIZE: Final = 64 * 1024
MOST_CHOSEN: Final = 500
"""Files that one form may be about."""


async def read_form(request: web.Request) -> dict[str, list[str]]:
    """The fields of a small form. Raises BadRequest, BadType, TooLarge."""
    media_type, _ = parse_media_type(request.headers.get("Content-Type", ""))
    if media_type != "application/x-www-form-urlencoded":
        raise BadType("send the form as application/x-www-form-urlencoded")
    body = bytearray()
    async for chunk in Body(request, request.app[SITE].limits, _MAX_SIZE).chunks():
        body += chunk
    try:
        return parse_qs(body.decode(), keep_blank_values=True, max_num_fields=MOST_CHOSEN + 10)
    except ValueError as error:
        raise BadRequest("the form is not UTF-8, or has too many fields") from error


async def upload(request: web.Request) -> web.StreamResponse:
    """`POST /upload`: stores a form's files, as `POST /files` does."""
    await store_form(request)
    return see_other("/")


async def rename(request: web.Request) -> web.StreamResponse:
    """`POST /view/{id}`: gives the file another name."""
    fields, who, id = await read_form(request), request[PRINCIPAL], FileId(request.match_info["id"])  # noqa: A001
    name = fields.get("filename", [""])[0]
    if not name.strip():
        raise BadRequest("a file needs a name")

    def edit(file: File) -> File:
        require_edit(who, file)
        return replace(file, filename=clean_filename(name))

    await request.app[SITE].catalog.annotate(id, edit, by(request))
    return see_other(f"/view/{id}")


async def delete(request: web.Request) -> web.StreamResponse:
    """`POST /delete`: deletes the files that are chosen, once that is confirmed; those that are gone are no error."""
    fields = await read_form(request)
    catalog, found = request.app[SITE].catalog, []
    for id in fields.get("id", []):  # noqa: A001
        try:
            found.append(
                await _delete(request, FileId(id)) if "confirmed" in fields else await catalog.file(FileId(id))
            )
        except NotFound:
            continue
    if not found or "confirmed" in fields:
        return see_other("/")
    return _ask(request, found)


async def _delete(request: web.Request, id: FileId) -> File:
    return await request.app[SITE].catalog.delete(id, by(request))


def _ask(request: web.Request, files: Sequence[File]) -> web.Response:
    question = "Delete this file?" if len(files) == 1 else f"Delete these {len(files)} files?"
    form = tag(
        "form",
        *(tag("input", type="hidden", name="id", value=file.id) for file in files),
        tag("button", "Delete", name="confirmed", value="1", class_="danger"),
        tag("a", "Keep", href="/", class_="button"),
        method="post",
        action=action(request, "/delete"),
        class_="actions",
    )
    names = tag("ul", *(tag("li", file.filename) for file in files))
    text = join(tag("h1", question), names, tag("p", "They cannot be brought back."), form)
    return page(request, question, tag("section", text, class_="card"))
