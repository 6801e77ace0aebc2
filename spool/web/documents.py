"""Small JSON documents that requests bring."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from spool.errors import BadRequest, BadType
from spool.protocol.http import parse_media_type
from spool.web.body import Body
from spool.web.site import SITE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiohttp import web

_MAX_SIZE: Final = 64 * 1024


async def read_object(request: web.Request, media_types: Sequence[str]) -> dict[str, object]:
    """The JSON object that is the body. Raises BadType for another type than these, BadRequest, TooLarge."""
    media_type, _ = parse_media_type(request.headers.get("Content-Type", ""))
    if media_type not in media_types:
        raise BadType(f"send this as {media_types[0]}")
    body = bytearray()
    async for chunk in Body(request, request.app[SITE].limits, _MAX_SIZE).chunks():
        body += chunk
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadRequest("the body is not JSON") from error
    if not isinstance(document, dict):
        raise BadRequest("the body is not a JSON object")
    return document


def clean(text: str) -> str:
    """JSON can spell halves of characters, which no other place takes."""
    return text.encode("utf-8", "replace").decode()
