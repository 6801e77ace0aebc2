"""The fields of a form, or the query of a PUT: two of them mean something, the others are metadata.

`sha256`      the digest that a file must have, in hex; a form gives one for each of its files, in their order, or none
`expires_at`  when the files of the request expire, as RFC 3339 has it
"""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from spool.errors import BadRequest, TooLarge

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from spool.config import Limits
    from spool.model import Intent, Metadata


class Fields:
    """What a client says about the files of one request."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._values: dict[str, list[str]] = {}
        self._count = 0
        self._size = 0

    def require_room(self, name: str, size: int) -> None:
        """Raises TooLarge if a field of this name with a value of `size` bytes would be one too many, or too large."""
        if self._count >= self._limits.max_fields:
            raise TooLarge("the request has too many fields", limit=self._limits.max_fields)
        if self._size + len(name.encode()) + size > self._limits.max_fields_size:
            raise TooLarge("the fields of the request are too large", limit=self._limits.max_fields_size)

    def add(self, name: str, value: str) -> None:
        """One more field. Raises TooLarge if there are too many, or they are too large together."""
        self.require_room(name, len(value.encode()))
        self._count += 1
        self._size += len(name.encode()) + len(value.encode())
        self._values.setdefault(name, []).append(value)

    def apply(self, intents: Sequence[Intent]) -> list[Intent]:
        """The intents with what the fields say of them. Raises BadRequest."""
        values = dict(self._values)
        expires_at = _expires_at(values.pop("expires_at", []))
        digests = _digests(values.pop("sha256", []), len(intents))
        metadata: Metadata = {name: v[0] if len(v) == 1 else v for name, v in values.items()}
        return [
            replace(
                intent,
                metadata={**intent.metadata, **metadata},
                expires_at=expires_at or intent.expires_at,
                digests=merge_digests(intent.digests, digest),
            )
            for intent, digest in zip(intents, digests, strict=True)
        ]


def _expires_at(values: Sequence[str]) -> datetime | None:
    if len(values) > 1:
        raise BadRequest("expires_at is given more than once")
    return parse_time("expires_at", values[0]) if values else None


def _digests(values: Sequence[str], files: int) -> list[dict[str, bytes]]:
    if not values:
        return [{} for _ in range(files)]
    if len(values) != files:
        raise BadRequest(f"there are {len(values)} sha256 fields for {files} files; give one for each, in their order")
    return [{"sha-256": _parse_sha256(value)} for value in values]


def merge_digests(some: Mapping[str, bytes], others: Mapping[str, bytes]) -> dict[str, bytes]:
    """All of them. Raises BadRequest if they contradict each other, for then the bytes cannot have both."""
    for algorithm in some.keys() & others.keys():
        if some[algorithm] != others[algorithm]:
            raise BadRequest(f"the {algorithm} is given twice, and differently")
    return {**some, **others}


def _parse_sha256(value: str) -> bytes:
    if not re.fullmatch(r"[0-9a-fA-F]{64}", value.strip()):
        raise BadRequest("sha256 is not 64 hexadecimal digits")
    return bytes.fromhex(value.strip())


def parse_time(name: str, value: str) -> datetime:
    """An RFC 3339 time, or a date, which stands for its first moment in UTC. Raises BadRequest that names `name`."""
    try:
        # a plus that was not escaped in a query arrives as a blank
        time = datetime.fromisoformat(re.sub(r" (?=\d\d:?\d\d$)", "+", value.strip()))
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise BadRequest(f"{name} is not a time such as 2026-11-25T10:00:00Z") from error
