"""A file of a server, as its record tells it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime
from typing import TYPE_CHECKING, Any

from spool.client.failures import StrangeAnswer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spool.model import Damage, Metadata


@dataclass(frozen=True, slots=True)
class File:
    """A file's record. The record may change on the server, the bytes never."""

    id: str
    filename: str
    """A display name. It is no path."""
    size: int
    """In bytes."""
    media_type: str
    """As the server detected it."""
    declared_type: str | None
    sha256: str
    """In hexadecimal."""
    created_at: datetime
    expires_at: datetime | None
    owner: str
    metadata: Metadata
    damage: Damage | None
    """What a check of the server found wrong with the bytes."""
    grant: str | None
    """By which a guest brought it."""
    url: str
    """Where the record is."""
    content_url: str
    """What leads to the bytes."""


def parse_file(record: Mapping[str, Any]) -> File:
    """The file that a record in JSON describes; members that are unknown are passed over. Raises StrangeAnswer."""
    try:
        known = {field.name: record[field.name] for field in fields(File)}
        times = {name: known[name] and datetime.fromisoformat(known[name]) for name in ("created_at", "expires_at")}
    except (KeyError, TypeError, ValueError) as error:
        raise StrangeAnswer(f"this is not the record of a file: {error!r}") from error
    return File(**known | times)
