"""Records out: list, show, change, delete, and the way to the bytes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final, get_args
from urllib.parse import urlencode

from aiohttp import web

from spool.errors import BadRequest
from spool.model import FileId, FileQuery, GrantId, Sort
from spool.policy import require_edit, require_future
from spool.protocol.disposition import clean_filename
from spool.web.auth import PRINCIPAL, by
from spool.web.documents import clean, read_object
from spool.web.fields import Fields, parse_time
from spool.web.records import record, show_time
from spool.web.site import SITE

if TYPE_CHECKING:
    from datetime import datetime

    from spool.model import File, Metadata
    from spool.web.site import Site

PARAMETERS: Final = ("limit", "cursor", "q", "filename", "media_type", "since", "until", "grant", "sort", "order")
DEFAULT_LIMIT: Final = 100
MAX_LIMIT: Final = 1000
MAX_PATTERN: Final = 255
PATCH_TYPES: Final = ("application/merge-patch+json", "application/json")


async def list_files(request: web.Request) -> web.Response:
    """`GET /files`."""
    page = await request.app[SITE].catalog.files(parse_query(request))
    headers = {}
    if page.next is not None:
        query = urlencode({**request.query, "cursor": page.next})
        headers["Link"] = f'<{request.app[SITE].addresses.base(request)}/files?{query}>; rel="next"'
    return web.json_response(
        {"files": [record(request, file) for file in page.items], "next": page.next}, headers=headers
    )


async def latest(request: web.Request) -> web.Response:
    """`GET /files/latest`: the way to the first file that `GET /files` with the same query would list."""
    file = await request.app[SITE].catalog.latest(parse_query(request))
    return _redirect(request.app[SITE].addresses.record(request, file))


async def show(request: web.Request) -> web.Response:
    """`GET /files/{id}`."""
    return web.json_response(record(request, await _file(request)))


async def content(request: web.Request) -> web.Response:
    """`GET /files/{id}/content`: the way to the bytes, wherever they are."""
    site = request.app[SITE]
    file = await _file(request)
    return _redirect(site.addresses.media(request, file, site.clock(), download="download" in request.query))


async def change(request: web.Request) -> web.Response:
    """`PATCH /files/{id}`: a merge patch (RFC 7396) of filename, metadata and expires_at."""
    patch = _Patch(await read_object(request, PATCH_TYPES), request.app[SITE])
    who = request[PRINCIPAL]

    def edit(file: File) -> File:
        require_edit(who, file)
        return patch.apply(file)

    file = await request.app[SITE].catalog.annotate(_id(request), edit, by(request))
    return web.json_response(record(request, file))


async def delete(request: web.Request) -> web.Response:
    """`DELETE /files/{id}`: for good, or with `undo` for as long as it may be brought back, if it may be at all."""
    site = request.app[SITE]
    if "undo" not in request.query or not site.undo_grace:
        await site.catalog.delete(_id(request), by(request))
        return web.Response(status=204)
    hidden = await site.catalog.hide(_id(request), site.undo_grace, by(request))
    return web.json_response({"id": hidden.file.id, "undo_until": show_time(hidden.until)}, status=202)


async def undo(request: web.Request) -> web.Response:
    """`POST /files/{id}/undo`: whoever may delete may take it back."""
    await request.app[SITE].catalog.restore(_id(request), by(request))
    return web.Response(status=204)


def _redirect(location: str) -> web.Response:
    return web.Response(status=302, headers={"Location": location, "Cache-Control": "no-store"})


def _id(request: web.Request) -> FileId:
    return FileId(request.match_info["id"])


async def _file(request: web.Request) -> File:
    return await request.app[SITE].catalog.file(_id(request))


def parse_query(request: web.Request) -> FileQuery:
    """The query of a listing. Raises BadRequest for a parameter that is unknown, repeated, or not what it must be."""
    for name in request.query:
        if name not in PARAMETERS:
            raise BadRequest(f"unknown parameter {name!r}; known are {', '.join(PARAMETERS)}")
        if len(request.query.getall(name)) > 1:
            raise BadRequest(f"the parameter {name!r} is given more than once")
    return FileQuery(
        limit=_parse_limit(request.query.get("limit", str(DEFAULT_LIMIT))),
        cursor=request.query.get("cursor"),
        q=_parse_pattern(request, "q"),
        filename=_parse_pattern(request, "filename"),
        media_type=_parse_pattern(request, "media_type"),
        since=_parse_time(request, "since"),
        until=_parse_time(request, "until"),
        grant=GrantId(grant) if (grant := _parse_pattern(request, "grant")) else None,
        sort=_parse_sort(request.query.get("sort", "created_at")),
        descending=_parse_order(request.query.get("order", "desc")),
    )


def _parse_limit(value: str) -> int:
    if not (value.isascii() and value.isdigit() and len(value) <= 4 and 1 <= int(value) <= MAX_LIMIT):  # noqa: PLR2004
        raise BadRequest(f"limit is not a number from 1 to {MAX_LIMIT}")
    return int(value)


def _parse_pattern(request: web.Request, name: str) -> str | None:
    value = request.query.get(name)
    if value is not None and (len(value) > MAX_PATTERN or "\0" in value):
        raise BadRequest(f"{name} is longer than {MAX_PATTERN} characters, or holds a NUL")
    return value or None


def _parse_time(request: web.Request, name: str) -> datetime | None:
    value = request.query.get(name)
    return None if value is None else parse_time(name, value)


def _parse_sort(value: str) -> Sort:
    for sort in get_args(Sort):
        if value == sort:
            return sort  # type: ignore[no-any-return]  # get_args forgets what Sort is made of
    raise BadRequest(f"sort is not one of {', '.join(get_args(Sort))}")


def _parse_order(value: str) -> bool:
    if value not in ("asc", "desc"):
        raise BadRequest("order is not asc or desc")
    return value == "desc"


class _Patch:
    """A checked merge patch, which can be applied more than once."""

    def __init__(self, document: dict[str, object], site: Site) -> None:
        self._site = site
        self._document = document
        unknown = document.keys() - {"filename", "metadata", "expires_at"}
        if unknown:
            raise BadRequest(f"only filename, metadata and expires_at can be changed, not {', '.join(sorted(unknown))}")

    def apply(self, file: File) -> File:
        for name, value in self._document.items():
            match name:
                case "filename":
                    file = replace(file, filename=_parse_filename(value))
                case "metadata":
                    file = replace(file, metadata=self._merge(file.metadata, value))
                case _:
                    file = replace(file, expires_at=self._expiry(file, value))
        return file

    def _expiry(self, file: File, value: object) -> datetime | None:
        if value is None:
            return self._site.policy.expiry(None, file.created_at)
        if not isinstance(value, str):
            raise BadRequest("expires_at is not a text or null")
        expires_at = parse_time("expires_at", value)
        require_future(expires_at, self._site.clock())
        return self._site.policy.expiry(expires_at, file.created_at)

    def _merge(self, metadata: Metadata, value: object) -> Metadata:
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise BadRequest("metadata is not an object or null")
        patch = {clean(name): v if v is None else _parse_metadata(v) for name, v in value.items()}
        merged = {name: v for name, v in {**metadata, **patch}.items() if v is not None}
        fields = Fields(self._site.limits)
        for name, v in merged.items():
            for item in [v] if isinstance(v, str) else v:
                fields.add(name, item)
        return merged


def _parse_filename(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise BadRequest("filename is not a text")
    return clean_filename(value)


def _parse_metadata(value: object) -> str | list[str]:
    match value:
        case str():
            return clean(value)
        case list() if all(isinstance(item, str) for item in value):
            return [clean(item) for item in value]
    raise BadRequest("a value of metadata is not a text, a list of texts, or null")
