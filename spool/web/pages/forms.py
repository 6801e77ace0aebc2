"""What a page's plain form brings, and what it does: each leads back to a page."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import parse_qs

from spool.errors import BadRequest, BadType, NotFound
from spool.model import FileId
from spool.policy import require_edit
from spool.protocol.disposition import clean_filename
from spool.protocol.http import parse_media_type
from spool.web.archive import MOST_FILES, send_archive
from spool.web.auth import PRINCIPAL, by
from spool.web.body import Body
from spool.web.pages.html import join, tag
from spool.web.pages.layout import action, list_before, page, see_other
from spool.web.site import SITE
from spool.web.upload import store_form

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

    from aiohttp import web

    from spool.model import File

T = TypeVar("T")

_MAX_SIZE: Final = 64 * 1024


async def read_form(request: web.Request) -> dict[str, list[str]]:
    """The fields of a small form. Raises BadRequest, BadType, TooLarge."""
    media_type, _ = parse_media_type(request.headers.get("Content-Type", ""))
    if media_type != "application/x-www-form-urlencoded":
        raise BadType("send the form as application/x-www-form-urlencoded")
    body = bytearray()
    async for chunk in Body(request, request.app[SITE].limits, _MAX_SIZE).chunks():
        body += chunk
    try:
        return parse_qs(body.decode(), keep_blank_values=True, max_num_fields=MOST_FILES + 10)
    except ValueError as error:
        raise BadRequest("the form is not UTF-8, or has too many fields") from error


async def upload(request: web.Request) -> web.StreamResponse:
    """`POST /upload`: stores a form's files, as `POST /files` does."""
    await store_form(request)
    return see_other("/")


async def archive(request: web.Request) -> web.StreamResponse:
    """`POST /files.zip`: as `GET`, of more files than an address has room for."""
    fields = await read_form(request)
    return await send_archive(request, fields.get("id", []))


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
    """`POST /delete`: deletes the files that are chosen; those that are gone are no error.

    What cannot be undone, because there is no grace or with `final`, it does once that is confirmed.
    """
    fields, site = await read_form(request), request.app[SITE]
    ids = _ids(fields)
    if site.undo_grace and "final" not in fields:
        await _each(ids, lambda id: site.catalog.hide(id, site.undo_grace, by(request)))  # noqa: A006
        return see_other(list_before(request))
    if "confirmed" in fields:
        await _each(ids, lambda id: site.catalog.delete(id, by(request)))  # noqa: A006
        return see_other("/")
    found = await _each(ids, site.catalog.file)
    return _ask(request, found) if found else see_other("/")


async def undo(request: web.Request) -> web.StreamResponse:
    """`POST /undo`: brings back the files that are named, as far as they still can be. Raises NotFound if none can."""
    fields, site = await read_form(request), request.app[SITE]
    ids = _ids(fields)
    back = await _each(ids, lambda id: site.catalog.restore(id, by(request)))  # noqa: A006
    if ids and not back:
        raise NotFound("it is too late to bring this back")
    return see_other(list_before(request))


def _ids(fields: Mapping[str, Sequence[str]]) -> list[FileId]:
    return [FileId(id) for id in fields.get("id", [])]  # noqa: A001


async def _each(ids: Iterable[FileId], act: Callable[[FileId], Awaitable[T]]) -> list[T]:
    """What `act` gave for each of those that are there, all at once: the index writes them in one go."""
    outcomes = await asyncio.gather(*map(act, ids), return_exceptions=True)
    found = []
    for outcome in outcomes:
        if not isinstance(outcome, BaseException):
            found.append(outcome)
        elif not isinstance(outcome, NotFound):
            raise outcome
    return found


def _ask(request: web.Request, files: Sequence[File]) -> web.Response:
    question = "Delete this file?" if len(files) == 1 else f"Delete these {len(files)} files?"
    form = tag(
        "form",
        *(tag("input", type="hidden", name="id", value=file.id) for file in files),
        tag("input", type="hidden", name="final", value="1"),
        tag("button", "Delete", name="confirmed", value="1", class_="danger"),
        tag("a", "Keep", href=list_before(request), class_="button"),
        method="post",
        action=action(request, "/delete"),
        class_="actions",
    )
    names = tag("ul", *(tag("li", file.filename) for file in files))
    text = join(tag("h1", question), names, tag("p", "They cannot be brought back."), form)
    return page(request, question, tag("section", text, class_="card"))
