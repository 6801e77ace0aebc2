"""The cursor of a listing: where a page ended, in a form that only the same query takes back."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from spool.errors import BadRequest

if TYPE_CHECKING:
    from spool.model import FileQuery


@dataclass(frozen=True, slots=True)
class Position:
    """A place between two files of a listing: just after the one with this sort value and id."""

    value: int | str
    """Microseconds since the epoch, bytes, or a file name: whatever the query sorts by."""
    id: str


def to_cursor(query: FileQuery, position: Position) -> str:
    """The cursor that `parse_cursor` reads as `position` when it comes with the same query, whatever its limit."""
    text = json.dumps([_fingerprint(query), position.value, position.id], ensure_ascii=False, separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def parse_cursor(query: FileQuery) -> Position | None:
    """Where the query's cursor says to go on; None if it has none.

    Raises BadRequest for whatever `to_cursor` would not have made for this query.
    """
    if query.cursor is None:
        return None
    try:
        fingerprint, value, id = _members(query.cursor)  # noqa: A001 - `id` is the word of the design
    except (ValueError, RecursionError) as error:
        raise BadRequest("The cursor is not one that a listing gave.") from error
    if fingerprint != _fingerprint(query):
        raise BadRequest("The cursor is of a listing with another order or other filters.")
    return Position(value, id)


def _members(cursor: str) -> tuple[str, int | str, str]:
    padding = "=" * (-len(cursor) % 4)
    members = json.loads(base64.b64decode(cursor + padding, altchars=b"-_", validate=True))
    match members:
        case [str(fingerprint), int(value), str(id)] if abs(value) < 1 << 63 and not isinstance(value, bool):
            id.encode()
            return fingerprint, value, id
        case [str(fingerprint), str(value), str(id)]:
            (value + id).encode()  # JSON can spell surrogates, which no index takes
            return fingerprint, value, id
    raise ValueError(cursor)


def _fingerprint(query: FileQuery) -> str:
    moments = [moment and moment.timestamp() for moment in (query.since, query.until)]
    parts = [query.sort, query.descending, query.q, query.filename, query.media_type, *moments]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
