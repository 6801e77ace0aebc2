"""Rows of the SQLite index, to and from the nouns they hold."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from spool.model import Answer, File, Token

if TYPE_CHECKING:
    from collections.abc import Sequence

Row = tuple[Any, ...]
"""As sqlite3 gives it: the types are the schema's to know."""

FILE = "id, key, owner, filename, size, media_type, declared_type, sha256, created_at, expires_at, metadata"
TOKEN = "id, name, scopes, created_at, expires_at"  # noqa: S105 - columns, not a secret
ANSWER = "owner, idempotency_key, fingerprint, created_at, files"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def microseconds(moment: datetime) -> int:
    """Microseconds since the epoch, exactly: a float of seconds is not."""
    return (moment - _EPOCH) // _MICROSECOND


def file_row(file: File) -> Row:
    """The row of `file`, in the order of FILE."""
    return (
        file.id,
        file.key,
        file.owner,
        file.filename,
        file.size,
        file.media_type,
        file.declared_type,
        file.sha256,
        microseconds(file.created_at),
        _microseconds_or_none(file.expires_at),
        _metadata_text(file),
    )


def to_file(row: Sequence[Any]) -> File:
    """The file of a row in the order of FILE."""
    id, key, owner, filename, size, media_type, declared_type, sha256, created_at, expires_at, metadata = row  # noqa: A001 - `id` is the word of the design
    return File(
        id=id,
        key=key,
        owner=owner,
        filename=filename,
        size=size,
        media_type=media_type,
        declared_type=declared_type,
        sha256=sha256,
        created_at=_moment(created_at),
        expires_at=_moment_or_none(expires_at),
        metadata=json.loads(metadata),
    )


def edited_row(file: File) -> Row:
    """What may change of a file: file name, expiry and metadata."""
    return file.filename, _microseconds_or_none(file.expires_at), _metadata_text(file)


def _metadata_text(file: File) -> str:
    """The metadata as JSON."""
    return json.dumps(file.metadata, ensure_ascii=False)


def answer_row(answer: Answer) -> Row:
    """The row of `answer`, in the order of ANSWER."""
    files = json.dumps([file_row(file) for file in answer.files], ensure_ascii=False)
    return answer.owner, answer.idempotency_key, answer.fingerprint, microseconds(answer.created_at), files


def to_answer(row: Row) -> Answer:
    """The answer of a row in the order of ANSWER."""
    owner, idempotency_key, fingerprint, created_at, files = row
    return Answer(owner, idempotency_key, fingerprint, _moment(created_at), tuple(map(to_file, json.loads(files))))


def token_row(token: Token) -> Row:
    """The row of `token`, in the order of TOKEN."""
    scopes = json.dumps(sorted(token.scopes))
    return token.id, token.name, scopes, microseconds(token.created_at), _microseconds_or_none(token.expires_at)


def to_token(row: Row) -> Token:
    """The token of a row in the order of TOKEN."""
    id, name, scopes, created_at, expires_at = row  # noqa: A001 - `id` is the word of the design
    return Token(id, name, frozenset(json.loads(scopes)), _moment(created_at), _moment_or_none(expires_at))


def _microseconds_or_none(moment: datetime | None) -> int | None:
    return None if moment is None else microseconds(moment)


def _moment(count: int) -> datetime:
    return _EPOCH + count * _MICROSECOND


def _moment_or_none(count: int | None) -> datetime | None:
    return None if count is None else _moment(count)
