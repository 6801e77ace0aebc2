"""A multipart/form-data body: its files are received as they come, its fields apply to all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spool.errors import BadRequest, BadType, TooLarge
from spool.model import Intent
from spool.protocol.disposition import clean_filename
from spool.protocol.http import parse_media_type
from spool.protocol.multipart import Limits as FormLimits
from spool.protocol.multipart import Parser, PartBegin, PartData, PartEnd
from spool.web.auth import PRINCIPAL
from spool.web.fields import Fields
from spool.web.guests import is_proof, require_proof
from spool.web.site import SITE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aiohttp import web

    from spool.config import Limits
    from spool.counting import Hold
    from spool.model import Upload
    from spool.protocol.multipart import Event
    from spool.web.body import Body


def form_size(limits: Limits) -> int:
    """The most a form may have: files that together are as large as one may be, fields, part headers, boundaries."""
    parts = limits.max_files + limits.max_fields
    return limits.max_file_size + limits.max_fields_size + parts * (limits.max_part_headers_size + 256) + 64 * 1024


async def receive_form(request: web.Request, body: Body, reservation: Hold) -> list[Upload]:
    """Receives every file of the form, or leaves nothing."""
    uploads: list[Upload] = []
    try:
        fields = await _receive_parts(request, body, reservation, uploads)
        return _describe(request, fields, uploads)
    except BaseException:
        await request.app[SITE].ingest.discard(uploads)
        raise


async def _receive_parts(request: web.Request, body: Body, reservation: Hold, uploads: list[Upload]) -> Fields:
    site = request.app[SITE]
    fields = Fields(site.limits)
    events = _events(Parser(_boundary(request), _form_limits(site.limits)), body)
    async for event in events:
        if not isinstance(event, PartBegin):
            continue
        if event.filename is None:
            value = await _read_field(event.name, events, fields)
            if not (event.name == "passphrase" and await is_proof(request, value)):
                fields.add(event.name, value)
            continue
        require_proof(request)
        if (data := await _chosen(event, events)) is not None:
            if len(uploads) >= site.limits.max_files:
                raise TooLarge("the form holds too many files", limit=site.limits.max_files)
            if uploads:  # the first one was reserved with the request
                await reservation.add_file()
            intent = Intent(clean_filename(event.filename), media_type=event.media_type)
            uploads.append(await site.ingest.receive(intent, request[PRINCIPAL], data, reservation))
    return fields


def _describe(request: web.Request, fields: Fields, uploads: list[Upload]) -> list[Upload]:
    """The uploads with what the fields say of them, which may have come after the files."""
    if not uploads:
        raise BadRequest("the form holds no file: a file is a part with a filename, as `curl -F file=@name` sends it")
    intents = fields.apply([upload.intent for upload in uploads])
    ingest = request.app[SITE].ingest
    return [ingest.describe(upload, intent) for upload, intent in zip(uploads, intents, strict=True)]


def _boundary(request: web.Request) -> str:
    media_type, parameters = parse_media_type(request.headers.get("Content-Type", ""))
    if media_type != "multipart/form-data":
        raise BadType("send files as multipart/form-data, as `curl -F` does, or one file with PUT, as `curl -T` does")
    return parameters.get("boundary", "")


def _form_limits(limits: Limits) -> FormLimits:
    return FormLimits(limits.max_files + limits.max_fields, limits.max_part_headers, limits.max_part_headers_size)


async def _events(parser: Parser, body: Body) -> AsyncIterator[Event]:
    async for events in body.parsed(parser.feed):
        for event in events:
            yield event
    parser.close()


async def _data(events: AsyncIterator[Event], first: bytes = b"") -> AsyncIterator[bytes]:
    """The bytes of the part that has just begun."""
    if first:
        yield first
    async for event in events:
        if isinstance(event, PartEnd):
            return
        if isinstance(event, PartData):
            yield event.data


async def _chosen(part: PartBegin, events: AsyncIterator[Event]) -> AsyncIterator[bytes] | None:
    """The bytes of a file part; None for what a browser sends when no file was chosen: no name and no bytes."""
    if part.filename:
        return _data(events)
    event = await anext(events, None)
    return _data(events, event.data) if isinstance(event, PartData) else None


async def _read_field(name: str, events: AsyncIterator[Event], fields: Fields) -> str:
    value = bytearray()
    async for data in _data(events):
        value += data
        fields.require_room(name, len(value))
    return value.decode("utf-8", "replace")
