"""Records as clients see them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from spool.protocol.http import prefers_text
from spool.web.auth import PRINCIPAL
from spool.web.site import SITE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from spool.model import File


def record(request: web.Request, file: File) -> dict[str, object]:
    """The JSON members of a file's record; for a guest only of what they know themselves."""
    deletion = request.app[SITE].addresses.deletion(request, file)
    members = _short(file) if request[PRINCIPAL].grant is not None else _whole(request, file)
    return members if deletion is None else {**members, "delete_url": deletion}


def _short(file: File) -> dict[str, object]:
    return {
        "id": file.id,
        "filename": file.filename,
        "size": file.size,
        "media_type": file.media_type,
        "sha256": file.sha256,
        "created_at": show_time(file.created_at),
        "expires_at": show_time(file.expires_at),
    }


def _whole(request: web.Request, file: File) -> dict[str, object]:
    addresses = request.app[SITE].addresses
    return {
        "id": file.id,
        "filename": file.filename,
        "size": file.size,
        "media_type": file.media_type,
        "declared_type": file.declared_type,
        "sha256": file.sha256,
        "created_at": show_time(file.created_at),
        "expires_at": show_time(file.expires_at),
        "owner": file.owner,
        "metadata": file.metadata,
        "damage": file.damage,
        "grant": file.grant,
        "url": addresses.record(request, file),
        "content_url": addresses.content(request, file),
    }


def created(request: web.Request, files: Sequence[File], *, as_form: bool) -> web.Response:
    """201 with the records, or, to a client that prefers text, with one content address a line.

    A guest, who is not given the content, gets the address by which to delete it instead, and no Location.
    """
    addresses, guest = request.app[SITE].addresses, request[PRINCIPAL].grant is not None
    headers = {"Location": addresses.record(request, files[0])} if len(files) == 1 and not guest else {}
    if prefers_text(request.headers.get("Accept")):
        address = addresses.deletion if guest else addresses.content
        text = "".join(f"{address(request, file) or file.id}\n" for file in files)
        return web.Response(status=201, text=text, headers=headers)
    records = [record(request, file) for file in files]
    return web.json_response({"files": records} if as_form else records[0], status=201, headers=headers)


def show_time(time: datetime | None) -> str | None:
    """A time as JSON has it, to the microsecond."""
    return None if time is None else time.isoformat(timespec="microseconds").replace("+00:00", "Z")
