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

_END = 1 << 63  # of the integers that an index takes


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
        text = base64.b64decode(query.cursor + "=" * (-len(query.cursor) % 4), altchars=b"-_", validate=True)
        fingerprint, value, id = json.loads(text)  # noqa: A001 - `id` is the word of the design
        position = Position(_parse_text(value) if query.sort == "filename" else _parse_number(value), _parse_text(id))
    except (ValueError, TypeError, RecursionError) as error:
        raise BadRequest("The cursor is not one that this listing gave.") from error
    if fingerprint != _fingerprint(query):
        raise BadRequest("The cursor is of a listing with another order or other filters.")
    return position


def _parse_text(member: object) -> str:
    if not isinstance(member, str):
        raise TypeError(member)
    member.encode()  # raises on lone surrogates, which JSON can spell and no index takes
    return member


def _parse_number(member: object) -> int:
    if not isinstance(member, int) or isinstance(member, bool):
        raise TypeError(member)
    if not -_END <= member < _END:
        raise ValueError(member)
    return member


def _fingerprint(query: FileQuery) -> str:
    moments = [moment and moment.timestamp() for moment in (query.since, query.until)]
    parts = [query.sort, query.descending, query.q, query.filename, query.media_type, *moments, query.grant]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
