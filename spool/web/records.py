"""Records as clients see them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from spool.protocol.http import prefers_text
from spool.web.site import SITE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from spool.model import File


def record(request: web.Request, file: File) -> dict[str, object]:
    """The JSON members of a file's record."""
    addresses = request.app[SITE].addresses
    return {
        "id": file.id,
        "filename": file.filename,
        "size": file.size,
        "media_type": file.media_type,
        "declared_type": file.declared_type,
        "sha256": file.sha256,
        "created_at": _time(file.created_at),
        "expires_at": None if file.expires_at is None else _time(file.expires_at),
        "owner": file.owner,
        "metadata": file.metadata,
        "damage": file.damage,
        "url": addresses.record(request, file),
        "content_url": addresses.content(request, file),
    }


def created(request: web.Request, files: Sequence[File], *, as_form: bool) -> web.Response:
    """201 with the records, or, to a client that prefers text, with one content address a line."""
    addresses = request.app[SITE].addresses
    headers = {"Location": addresses.record(request, files[0])} if len(files) == 1 else {}
    if prefers_text(request.headers.get("Accept")):
        text = "".join(f"{addresses.content(request, file)}\n" for file in files)
        return web.Response(status=201, text=text, headers=headers)
    records = [record(request, file) for file in files]
    return web.json_response({"files": records} if as_form else records[0], status=201, headers=headers)


def _time(time: datetime) -> str:
    return time.isoformat(timespec="microseconds").replace("+00:00", "Z")
