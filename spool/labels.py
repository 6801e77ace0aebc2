"""Labels: a file's record as its blob carries it, so that a lost index can be rebuilt. Never read for anything else."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from spool.model import File, Key, Label

if TYPE_CHECKING:
    from collections.abc import Callable

_LONGEST: Final = 3000
"""Bytes: ext4 has room for about 4000 in all the attributes of a file together."""

_TEXT: Final = ("owner", "filename", "media_type", "declared_type", "sha256")


def to_label(file: File) -> Label:
    """The file's label. Metadata that make it longer than 3000 bytes are left out."""
    record = {name: getattr(file, name) for name in (*_TEXT, "size")}
    times = {name: time and time.isoformat() for name, time in _times(file)}
    text = _dump({**record, **times, "metadata": file.metadata})
    return Label(file.id, text if len(text) <= _LONGEST else _dump({**record, **times, "metadata": {}}))


def _times(file: File) -> list[tuple[str, datetime | None]]:
    return [("created_at", file.created_at), ("expires_at", file.expires_at)]


def _dump(record: dict[str, Any]) -> bytes:
    return json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode()


def parse_label(label: Label, key: Key) -> File:
    """The file whose bytes are the blob `key`. Raises ValueError for what is no label of ours."""
    try:
        record = json.loads(label.text)
        return File(
            id=label.file_id,
            key=key,
            owner=_text(record["owner"]),
            filename=_text(record["filename"]),
            size=_a(int, record["size"]),
            media_type=_text(record["media_type"]),
            declared_type=_or_none(_text, record["declared_type"]),
            sha256=_text(record["sha256"]),
            created_at=_time(record["created_at"]),
            expires_at=_or_none(_time, record["expires_at"]),
            metadata=_a(dict, record["metadata"]),
        )
    except (KeyError, TypeError) as error:
        raise ValueError("this is no label of a file") from error


def _a(kind: type, value: object) -> Any:  # noqa: ANN401  # of that kind
    if not isinstance(value, kind):
        raise TypeError(f"{value!r} is not of type {kind.__name__}")
    return value


def _text(value: object) -> str:
    text: str = _a(str, value)
    return text


def _time(value: object) -> datetime:
    time = datetime.fromisoformat(_text(value))
    if time.tzinfo is None:
        raise ValueError("a time without a zone")
    return time


def _or_none(parse: Callable[[object], Any], value: object) -> Any:  # noqa: ANN401  # what `parse` gives
    return None if value is None else parse(value)
