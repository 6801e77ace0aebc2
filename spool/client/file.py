"""A file of a server, as its record tells it."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, field, fields
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

from spool.client.failures import StrangeAnswer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spool.model import Damage, Metadata


T = TypeVar("T", bound="Stored")


@dataclass(frozen=True, slots=True)
class Stored:
    """What whoever stored a file knows of it."""

    id: str
    filename: str
    """A display name. It is no path."""
    size: int
    """In bytes."""
    media_type: str
    """As the server detected it."""
    sha256: str
    """In hexadecimal."""
    created_at: datetime
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class File(Stored):
    """A file's record. The record may change on the server, the bytes never."""

    declared_type: str | None
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


@dataclass(frozen=True, slots=True)
class Sent(Stored):
    """A file that a guest has stored."""

    delete_url: str | None = field(default=None, repr=False)
    """Whoever has it may delete the file, until the grant ends. The server tells it once; None if that was lost."""


def parse_file(kind: type[T], record: Mapping[str, Any]) -> T:
    """The file that a record in JSON describes; members that are unknown are passed over. Raises StrangeAnswer."""
    try:
        known = {f.name: record[f.name] for f in fields(kind) if f.name in record or f.default is MISSING}
        times = {name: known[name] and datetime.fromisoformat(known[name]) for name in ("created_at", "expires_at")}
    except (KeyError, TypeError, ValueError) as error:
        raise StrangeAnswer(f"this is not the record of a file: {error!r}") from error
    return kind(**known | times)
