"""Many files as one: `/files.zip`."""

from __future__ import annotations

import asyncio
import binascii
import io
import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO, Final

from aiohttp import web

from spool.errors import BadRequest, Damaged, SpoolError
from spool.model import FileId
from spool.protocol.http import content_disposition
from spool.protocol.zip import Archive, Member
from spool.web.outflow import outflow
from spool.web.site import SITE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from spool.catalog import Catalog
    from spool.model import File
    from spool.web.outflow import Outflow

_log = logging.getLogger(__name__)

MOST_FILES: Final = 500
"""Files that one archive, or one form, may be about."""
_SLICE: Final = 256 * 1024
"""Bytes that are read, summed and sent in one go."""


async def archive(request: web.Request) -> web.StreamResponse:
    """`GET /files.zip?id=...&id=...`: see `send_archive`."""
    return await send_archive(request, request.query.getall("id", []))


async def send_archive(request: web.Request, named: Sequence[str]) -> web.StreamResponse:
    """Answers with the files in one archive, in this order, each opened when its turn has come.

    Raises BadRequest, and NotFound or Damaged if any of them cannot be had. One that goes away while the archive is
    sent cuts it off.
    """
    files = await _chosen(request, named)
    written = Archive([Member(file.filename, file.size, file.created_at) for file in files])
    headers = {
        "Content-Type": "application/zip",
        "Content-Disposition": content_disposition("attachment", "files.zip"),
        "Cache-Control": "no-store",
        "Content-Security-Policy": "sandbox; default-src 'none'",
    }
    response = web.StreamResponse(headers=headers)
    response.content_length = written.size
    if request.method == "HEAD":
        return response
    await response.prepare(request)
    async with outflow(request, request.app[SITE].limits) as watch:
        for index, file in enumerate(files):
            await _write(response, watch, written.head(index))
            with _cutting_off(request, file):
                crc = await _send(request.app[SITE].catalog, response, file, watch)
            written.wrote(file.size)
            await _write(response, watch, written.tail(crc))
        await _write(response, watch, written.end())
        await response.write_eof()
    return response


async def _chosen(request: web.Request, named: Sequence[str]) -> list[File]:
    ids = list(dict.fromkeys(named))
    if not 1 <= len(ids) <= MOST_FILES:
        raise BadRequest(f"an archive holds from 1 to {MOST_FILES} files: name each by an id")
    return [await request.app[SITE].catalog.readable(each) for each in map(FileId, ids)]


async def _send(catalog: Catalog, response: web.StreamResponse, file: File, watch: Outflow) -> int:
    """Sends the file's bytes; their CRC-32. Raises SpoolError or OSError."""
    loop = asyncio.get_running_loop()
    opened = await catalog.open(file)
    blob = io.BytesIO(opened) if isinstance(opened, bytes) else opened
    crc, left = 0, file.size
    try:
        while left:
            data, crc = await loop.run_in_executor(None, _read, blob, min(_SLICE, left), crc)
            if not data:
                raise Damaged("the file has fewer bytes than its record says", damage="size")
            left -= len(data)
            await _write(response, watch, data)
    finally:
        await asyncio.shield(loop.run_in_executor(None, blob.close))
    return crc


def _read(blob: BinaryIO, count: int, crc: int) -> tuple[bytes, int]:
    data = blob.read(count)
    return data, binascii.crc32(data, crc)


async def _write(response: web.StreamResponse, watch: Outflow, data: bytes) -> None:
    await response.write(data)
    watch.sent += len(data)


@contextmanager
def _cutting_off(request: web.Request, file: File) -> Iterator[None]:
    """Ends the connection for an error inside: whatever was answered now would be taken for bytes of the archive."""
    try:
        yield
    except ConnectionError:
        raise
    except (SpoolError, OSError) as error:
        _log.warning("archive.cut_off", {"id": file.id, "reason": str(error)})
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionResetError("a file of the archive cannot be read") from error
