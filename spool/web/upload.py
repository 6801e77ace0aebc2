"""Files in: a form with any number of files, or one file as the body of a PUT."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from aiohttp import web
from aiojobs.aiohttp import atomic

from spool.errors import BadRequest, BadType, SpoolError
from spool.model import Intent
from spool.protocol.disposition import clean_filename, parse_disposition
from spool.protocol.http import parse_declared_type, parse_digests, parse_idempotency_key
from spool.web.auth import PRINCIPAL
from spool.web.body import Body
from spool.web.fields import Fields, merge_digests
from spool.web.form import form_size, receive_form
from spool.web.records import created
from spool.web.site import SITE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from spool.counting import Hold
    from spool.model import Answer, File, Upload

    Receive = Callable[[web.Request, Body, Hold], Awaitable[list[Upload]]]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Pending:
    """What a commit takes over from the handler, which may be cancelled while the commit runs."""

    protocol: str
    uploads: list[Upload]
    answer: Answer | None
    held: ExitStack
    """The upload's slot, its reservation and its idempotency key, to be let go of when the commit has ended."""


_PENDING: Final = web.RequestKey("pending", _Pending)


async def post_form(request: web.Request) -> web.Response:
    """`POST /files`: stores every file of a multipart/form-data body, all or none."""
    return created(request, await store_form(request), as_form=True)


async def store_form(request: web.Request) -> list[File]:
    """Stores every file of a multipart/form-data body, all or none."""
    limits = request.app[SITE].limits
    return await _store(request, "form", receive_form, form_size(limits), form_size(limits) - limits.max_file_size)


async def put_file(request: web.Request) -> web.Response:
    """`PUT /files/{filename}`: stores the body, as it is."""
    if "Content-Range" in request.headers:
        raise BadRequest("a PUT stores a whole file; Content-Range has no meaning here")
    files = await _store(request, "put", _receive_body, request.app[SITE].limits.max_file_size)
    return created(request, files, as_form=False)


async def _store(request: web.Request, protocol: str, receive: Receive, max_size: int, beside: int = 0) -> list[File]:
    """`beside` is how much of the body may be no file's."""
    try:
        done = await _receive(request, protocol, receive, max_size, beside)
    except BaseException as error:
        request.app[SITE].metrics.ended(protocol, error)
        raise
    return await _commit(request) if done is None else done


async def _receive(
    request: web.Request, protocol: str, receive: Receive, max_size: int, beside: int
) -> list[File] | None:
    """What is to be committed is under _PENDING; or the files that an earlier request with the same key has stored."""
    site, who = request.app[SITE], request[PRINCIPAL]
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise BadType("a body with a Content-Encoding is not read; send the file as it is")
    body = Body(request, site.limits, max_size)
    draft = _draft_answer(request)
    with closing(body), ExitStack() as held:
        if draft is not None:
            held.enter_context(await site.idempotency.running(draft))
            if earlier := await site.idempotency.earlier(draft):
                return list(earlier.files)
        # A grant's bounds may be as small as the file: what is beside it must not pass them.
        least = None if who.grant is None else max(0, (request.content_length or 0) - beside)
        reservation = held.enter_context(await site.ingest.admit(who, request.content_length, least=least))
        held.enter_context(site.guests.running(who, body.interrupt))
        try:
            uploads = await receive(request, body, reservation)
        except (asyncio.CancelledError, SpoolError) as error:
            _log.info("upload.refused", {"owner": who.name, "bytes": body.size, "reason": _reason(error)})
            raise
        request[_PENDING] = _Pending(protocol, uploads, draft, held.pop_all())
    return None


@atomic
async def _commit(request: web.Request) -> list[File]:
    """Runs to its end whatever becomes of the client; so it logs what happens, for nobody else may be left to."""
    site, pending = request.app[SITE], request[_PENDING]
    with pending.held:
        try:
            files = await site.ingest.commit(pending.uploads, pending.answer)
        except Exception as error:
            site.metrics.ended(pending.protocol, error)
            _log.warning("commit.failed", {"owner": request[PRINCIPAL].name, "reason": _reason(error)})
            raise
    site.metrics.committed(pending.protocol, [file.size for file in files])
    return files


def _reason(error: BaseException) -> str:
    if isinstance(error, asyncio.CancelledError):
        return "the client vanished"
    return str(error) or type(error).__name__


def _draft_answer(request: web.Request) -> Answer | None:
    header = request.headers.get("Idempotency-Key")
    if header is None:
        return None
    key = parse_idempotency_key(header)
    return request.app[SITE].idempotency.draft(request[PRINCIPAL].account, key, _fingerprint(request))


def _fingerprint(request: web.Request) -> str:
    """What tells this request from another one without reading its body; a form's boundary differs at every try."""
    names = ("Content-Length", "Repr-Digest", "Content-Digest")
    media_type, _ = parse_declared_type(request.headers.get("Content-Type"))
    parts = [request.method, request.path_qs, media_type or "", *(request.headers.get(name, "") for name in names)]
    return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogateescape")).hexdigest()


async def _receive_body(request: web.Request, body: Body, reservation: Hold) -> list[Upload]:
    site = request.app[SITE]
    fields = Fields(site.limits)
    for name, value in request.query.items():
        fields.add(name, value)
    intent = Intent(
        filename=_filename(request),
        size=request.content_length,
        media_type=parse_declared_type(request.headers.get("Content-Type"))[0],
        digests=_digests(request),
    )
    intent = fields.apply([intent])[0]
    return [await site.ingest.receive(intent, request[PRINCIPAL], body.chunks(), reservation)]


def _filename(request: web.Request) -> str:
    """The last segment of the address; where there is none, what a Content-Disposition says."""
    name = request.match_info.get("filename", "")
    disposition = request.headers.get("Content-Disposition")
    if not name and disposition is not None:
        name = parse_disposition(disposition).filename or ""
    return clean_filename(name)


def _digests(request: web.Request) -> dict[str, bytes]:
    """The body is the representation, so that both fields speak of the same bytes (RFC 9530)."""
    digests: dict[str, bytes] = {}
    for header in ("Content-Digest", "Repr-Digest"):
        if values := request.headers.getall(header, []):
            digests = merge_digests(digests, parse_digests(", ".join(values)))
    return digests
