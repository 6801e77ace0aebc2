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

    Raises BadRequest for whatever `to_cursor` does not make for this query.
    """
    if query.cursor is None:
        return None
    try:
        fingerprint, *members = _decode(query.cursor)
        position = _parse_position(members, str if query.sort == "filename" else int)
    except (ValueError, RecursionError) as error:
        raise BadRequest("The cursor is not one that this listing gave.") from error
    if fingerprint != _fingerprint(query):
        raise BadRequest("The cursor is of a listing with another order or other filters.")
    return position


def _decode(cursor: str) -> list[object]:
    padding = "=" * (-len(cursor) % 4)
    members = json.loads(base64.b64decode(cursor + padding, altchars=b"-_", validate=True))
    if not isinstance(members, list):
        raise ValueError(cursor)  # noqa: TRY004 - what the client sent is wrong, not a type of ours
    return members


def _parse_position(members: list[object], sort: type) -> Position:
    match members:
        case [int(value), str(id)] if sort is int and value is not True and value is not False and abs(value) < _END:
            pass
        case [str(value), str(id)] if sort is str:
            value.encode()  # JSON can spell lone surrogates, which an index does not take
        case _:
            raise ValueError(members)
    id.encode()
    return Position(value, id)


def _fingerprint(query: FileQuery) -> str:
    moments = [moment and moment.timestamp() for moment in (query.since, query.until)]
    parts = [query.sort, query.descending, query.q, query.filename, query.media_type, *moments]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
