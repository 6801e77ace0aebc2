"""A link to a file of a server, as its record tells it."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

from spool.client.failures import StrangeAnswer

if TYPE_CHECKING:
    from collections.abc import Mapping

T = TypeVar("T", bound="Link")


@dataclass(frozen=True, slots=True)
class Link:
    """What is known of a link. Its address is not, but to who made it."""

    id: str
    file_id: str
    created_by: str
    """The principal that made it."""
    created_at: datetime
    expires_at: datetime
    revoked_at: datetime | None
    max_downloads: int | None
    """How often the whole file is given out; None is without limit."""
    downloads: int | None
    """How often it was; None where that is not counted."""


@dataclass(frozen=True, slots=True)
class MadeLink(Link):
    """A link that was made just now, with its address."""

    url: str = field(repr=False)
    """Whoever has it gets the file. The server tells it once, by the name that it has for itself."""


def parse_link(kind: type[T], record: Mapping[str, Any]) -> T:
    """The link that a record in JSON describes; members that are unknown are passed over. Raises StrangeAnswer."""
    try:
        known = {field.name: record[field.name] for field in fields(kind)}
        for name in ("created_at", "expires_at", "revoked_at"):
            known[name] = known[name] and datetime.fromisoformat(known[name])
    except (KeyError, TypeError, ValueError) as error:
        raise StrangeAnswer(f"this is not the record of a link: {error!r}") from error
    return kind(**known)
