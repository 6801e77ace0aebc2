"""Bytes out: `GET` and `HEAD /media/{id}/{filename}`.

aiohttp's FileResponse is not used: it takes any If-Range tag for a match, so that a resumed download mixes two files,
and refuses ranges that RFC 9110 wants served. The conditions and ranges are ours; the bytes go by sendfile, or by TLS.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, BinaryIO, Final

from aiohttp import web

from spool.model import FileId
from spool.protocol.http import (
    Span,
    Validators,
    byteranges,
    content_disposition,
    evaluate,
    format_content_range,
    format_digest,
    format_http_date,
    if_range_holds,
    parse_range,
)
from spool.web.outflow import outflow
from spool.web.secret_paths import path_to_log
from spool.web.site import SITE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spool.model import File
    from spool.web.outflow import Outflow
    from spool.web.site import Site

_log = logging.getLogger(__name__)

_INLINE: Final = ("audio/*", "video/*", "image/png", "image/jpeg", "image/gif", "image/webp", "image/bmp", "text/plain")
"""What a browser may show in place. Nothing among them can carry a script; everything else is to be saved."""
_SLICE: Final = 1024 * 1024
"""Bytes that are sent in one go."""
_READ: Final = 512 * 1024
"""Bytes that are read in one go where there is no sendfile."""
_BURST: Final = 8
"""Such reads, some 3 ms of work, after which others have their turn."""
_NOWAIT: Final[int | None] = getattr(os, "RWF_NOWAIT", None)


class Toll:
    """Stands between the bytes of a file and whoever asks for them; this one lets everything pass."""

    async def take(self, spans: Sequence[Span]) -> None:
        """These are about to be sent. Raises Gone if they must not be."""

    def begin(self, size: int) -> None:
        """So many more of their bytes are being sent, in order; how many of these arrive is not known."""

    def end(self, size: int) -> None:
        """So many more are with the system."""

    async def settle(self) -> None:
        """No more will be. Also called if `take` has raised, or was cancelled."""


TOLL: Final = web.RequestKey("toll", Toll)


_FREE: Final = Toll()


def _toll(request: web.Request) -> Toll:
    toll: Toll = request.get(TOLL, _FREE)
    return toll


async def media(request: web.Request) -> web.StreamResponse:
    """The file, or the ranges of it that were asked for. The filename in the address is for people: the id decides."""
    return await send_file(request, await request.app[SITE].catalog.readable(FileId(request.match_info["id"])))


async def send_file(request: web.Request, file: File) -> web.StreamResponse:
    """The file, or the ranges of it that were asked for; what is under TOLL is asked before, and told of all of it."""
    site, toll = request.app[SITE], request.get(TOLL)
    headers = _headers(file, site, download="download" in request.query)
    validators = Validators(file.sha256, file.created_at)
    if evaluate(request.method, _joined(request), validators):
        return web.Response(status=304, headers=headers)
    location = None if file.inline else site.blobs.locate(file.key)
    if site.accel_location is not None and location is not None and toll is None:
        del headers["Accept-Ranges"]  # nginx says so itself
        return web.Response(headers={**headers, "X-Accel-Redirect": f"{site.accel_location}/{location}"})
    spans = None
    if request.method == "GET" and if_range_holds(request.headers.get("If-Range"), validators):
        spans = parse_range(request.headers.get("Range"), file.size)
    if request.method == "HEAD":
        return _head(file, headers)
    try:
        if toll is not None:
            await toll.take(spans or [Span(0, file.size)])
        return await _send_body(request, file, headers, spans)
    finally:
        if toll is not None:
            await asyncio.shield(toll.settle())


async def _send_body(
    request: web.Request, file: File, headers: dict[str, str], spans: Sequence[Span] | None
) -> web.StreamResponse:
    blob = await request.app[SITE].catalog.open(file)
    status, parts, tail = _plan(file, headers, spans)
    if isinstance(blob, bytes):
        size = sum(span.length for _, span in parts)
        toll = _toll(request)
        toll.begin(size)
        toll.end(size)
        request.app[SITE].metrics.sent_bytes += size
        body = b"".join(head + blob[span.start :][: span.length] for head, span in parts) + tail
        return web.Response(body=body, status=status, headers=headers)
    try:
        response = web.StreamResponse(status=status, headers=headers)
        return await _send(request, blob, response, parts, tail)
    finally:
        await asyncio.shield(asyncio.get_running_loop().run_in_executor(None, blob.close))


def is_shown_in_place(media_type: str) -> bool:
    """Whether a browser may show or play it: see `_INLINE`."""
    return any(fnmatchcase(media_type, glob) for glob in _INLINE)


def _headers(file: File, site: Site, *, download: bool) -> dict[str, str]:
    inline = not download and is_shown_in_place(file.media_type)
    return {
        "Content-Type": file.media_type,
        "Content-Disposition": content_disposition("inline" if inline else "attachment", file.filename),
        "ETag": f'"{file.sha256}"',
        "Last-Modified": format_http_date(file.created_at),
        "Repr-Digest": format_digest(file.sha256),
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-cache",
        "Content-Security-Policy": "sandbox; default-src 'none'",
        "Cross-Origin-Resource-Policy": "cross-origin" if site.addresses.media_base_url else "same-origin",
    }


def _joined(request: web.Request) -> dict[str, str]:
    """Each condition's field lines as one value (RFC 9110 §5.3)."""
    names = ("If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since")
    return {name: ", ".join(request.headers.getall(name)) for name in names if name in request.headers}


def _head(file: File, headers: dict[str, str]) -> web.StreamResponse:
    response = web.StreamResponse(headers=headers)
    response.content_length = file.size
    return response


def _plan(
    file: File, headers: dict[str, str], spans: Sequence[Span] | None
) -> tuple[int, Sequence[tuple[bytes, Span]], bytes]:
    """The status, what is sent, each with what is to precede it, and what ends it; completes `headers`."""
    if spans is None:
        return 200, [(b"", Span(0, file.size))], b""
    if len(spans) == 1:
        headers["Content-Range"] = format_content_range(spans[0], file.size)
        return 206, [(b"", spans[0])], b""
    boundary = secrets.token_hex(16)
    heads, tail = byteranges(spans, file.size, file.media_type, boundary)
    headers["Content-Type"] = f"multipart/byteranges; boundary={boundary}"
    return 206, list(zip(heads, spans, strict=True)), tail


async def _send(
    request: web.Request,
    blob: BinaryIO,
    response: web.StreamResponse,
    parts: Sequence[tuple[bytes, Span]],
    tail: bytes,
) -> web.StreamResponse:
    response.content_length = sum(len(head) + span.length for head, span in parts) + len(tail)
    await response.prepare(request)
    send = _send_span if request.get_extra_info("sslcontext") is None else _encrypt_span
    async with outflow(request, request.app[SITE].limits) as watch:
        for head, span in parts:
            if head:
                await response.write(head)
            await send(request, response, blob, span, watch)
        if tail:
            await response.write(tail)
        await response.write_eof()
    return response


async def _send_span(
    request: web.Request, _response: web.StreamResponse, blob: BinaryIO, span: Span, watch: Outflow
) -> None:
    """Sends by sendfile, in slices, so that other requests have their turn."""
    toll, metrics = _toll(request), request.app[SITE].metrics
    for start in range(span.start, span.start + span.length, _SLICE):
        count = min(_SLICE, span.start + span.length - start)
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the client has gone")
        toll.begin(count)
        sent = await asyncio.get_running_loop().sendfile(transport, blob, start, count)
        watch.sent += sent
        toll.end(sent)
        metrics.sent_bytes += sent
        _require_all(request, count - sent)


async def _encrypt_span(
    request: web.Request, response: web.StreamResponse, blob: BinaryIO, span: Span, _watch: Outflow
) -> None:
    """Sends through TLS, for which asyncio's sendfile would read 16 KiB at a time."""
    toll = _toll(request)
    for number, start in enumerate(range(span.start, span.start + span.length, _READ)):
        count = min(_READ, span.start + span.length - start)
        data = _read_cached(blob.fileno(), count, start)
        if data is None:
            data = await _read(blob.fileno(), count, start)
        elif number % _BURST == _BURST - 1:
            await asyncio.sleep(0)  # other requests have their turn, however fast the client takes it
        toll.begin(len(data))
        await response.write(data)
        toll.end(len(data))
        request.app[SITE].metrics.sent_bytes += len(data)
        _require_all(request, count - len(data))
    await request.writer.drain()  # TLS that is closed over what still waits has little time to send it


def _read_cached(fd: int, count: int, start: int) -> bytes | bytearray | None:
    """So many bytes, if the system has them in memory: a trip to a thread costs as much as to encrypt them."""
    if _NOWAIT is None:
        return None
    data = bytearray(count)
    try:
        return data if os.preadv(fd, [data], start, _NOWAIT) == count else None
    except OSError:  # it would have to wait, or the file system cannot tell; a fault of the disk is met again
        return None


async def _read(fd: int, count: int, start: int) -> bytes:
    reading = asyncio.get_running_loop().run_in_executor(None, os.pread, fd, count, start)
    try:
        return await asyncio.shield(reading)
    except asyncio.CancelledError:
        await asyncio.wait([reading])  # the file must not be closed under it
        raise


def _require_all(request: web.Request, missing: int) -> None:
    """Ends the connection if bytes are missing: what follows would be taken for them."""
    if missing:
        if request.transport is not None:
            request.transport.abort()
        _log.error("blob.truncated", {"path": path_to_log(request), "missing": missing})
        raise ConnectionResetError("the file has fewer bytes than its record says")
