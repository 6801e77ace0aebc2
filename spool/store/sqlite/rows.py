"""Rows of the SQLite index, to and from the nouns they hold."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from spool.model import Answer, File, Grant, Intent, Link, Override, Resumable, Scrub, Staged, Token, Window

if TYPE_CHECKING:
    from collections.abc import Sequence

Row = tuple[Any, ...]
"""As sqlite3 gives it: the types are the schema's to know."""

ADDED = (
    "id, key, owner, filename, size, media_type, declared_type, sha256, created_at, expires_at, metadata, "
    "damage, grant_id, delete_hash"
)
# Not `body IS NOT NULL`: SQLite 3.40 takes that for true where an UPDATE returns it.
FILE = f"{ADDED}, typeof(body) = 'blob'"
GRANT = (
    "id, grants.owner, note, created_at, expires_at, max_files, max_size, max_file_size, types, passphrase, "
    "revoked_at, files, size"
)
LINK = "id, file_id, created_by, created_at, expires_at, max_downloads, revoked_at, downloads, given"
TOKEN = "id, name, scopes, created_at, expires_at"  # noqa: S105 - columns, not a secret
OVERRIDE = "owner, quota, quota_files, requests_per_minute, uploads"
ANSWER = "owner, idempotency_key, fingerprint, created_at, files"
ADVANCED = (
    "filename, length, declared_type, digests, metadata, file_expires_at, "
    "expires_at, offset, staged_state, state, media_type"
)
UPLOAD = f"{ADVANCED}, id, key, owner, dialect, notes, partial, created_at, epoch, file_id, grant_id"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def microseconds(moment: datetime) -> int:
    """Microseconds since the epoch, exactly: a float of seconds is not."""
    return (moment - _EPOCH) // _MICROSECOND


def file_row(file: File) -> Row:
    """The row of `file`, in the order of ADDED."""
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
        _text(file.metadata),
        file.damage,
        file.grant,
        file.delete_hash,
    )


def to_file(row: Sequence[Any]) -> File:
    """The file of a row in the order of FILE."""
    id, key, owner, filename, size, media_type, declared_type, sha256, *rest = row  # noqa: A001 - `id` is the word of the design
    created_at, expires_at, metadata, *newer = rest
    damage, grant, delete_hash, inline = [*newer, None, None, None, None][:4]  # answers have less
    return File(
        id=id,
        key=key,
        owner=owner,
        filename=filename,
        size=size,
        media_type=media_type,
        declared_type=declared_type,
        sha256=sha256,
        created_at=moment(created_at),
        expires_at=_moment_or_none(expires_at),
        metadata=json.loads(metadata),
        damage=damage,
        grant=grant,
        delete_hash=delete_hash,
        inline=bool(inline),
    )


def edited_row(file: File) -> Row:
    """What may change of a file: file name, expiry and metadata."""
    return file.filename, _microseconds_or_none(file.expires_at), _text(file.metadata)


def answer_row(answer: Answer) -> Row:
    """The row of `answer`, in the order of ANSWER."""
    files = _text([file_row(file) for file in answer.files])
    return answer.owner, answer.idempotency_key, answer.fingerprint, microseconds(answer.created_at), files


def to_answer(row: Row) -> Answer:
    """The answer of a row in the order of ANSWER."""
    owner, idempotency_key, fingerprint, created_at, files = row
    return Answer(owner, idempotency_key, fingerprint, moment(created_at), tuple(map(to_file, json.loads(files))))


def token_row(token: Token) -> Row:
    """The row of `token`, in the order of TOKEN."""
    scopes = json.dumps(sorted(token.scopes))
    return token.id, token.name, scopes, microseconds(token.created_at), _microseconds_or_none(token.expires_at)


def to_token(row: Row) -> Token:
    """The token of a row in the order of TOKEN, after which OVERRIDE may follow."""
    id, name, scopes, created_at, expires_at = row[:5]  # noqa: A001 - `id` is the word of the design
    override = to_override(row[5:])
    return Token(id, name, frozenset(json.loads(scopes)), moment(created_at), _moment_or_none(expires_at), override)


def grant_row(grant: Grant) -> Row:
    """The row of `grant`, in the order of GRANT."""
    return (
        grant.id,
        grant.owner,
        grant.note,
        microseconds(grant.created_at),
        microseconds(grant.expires_at),
        grant.max_files,
        grant.max_size,
        grant.max_file_size,
        _text(grant.types),
        grant.passphrase,
        _microseconds_or_none(grant.revoked_at),
        grant.files,
        grant.size,
    )


def to_grant(row: Row) -> Grant:
    """The grant of a row in the order of GRANT, after which OVERRIDE may follow."""
    id, owner, note, created_at, expires_at, max_files, max_size, max_file_size, *rest = row  # noqa: A001 - `id` is the word of the design
    types, passphrase, revoked_at, files, size, *override = rest
    return Grant(
        id=id,
        owner=owner,
        note=note,
        created_at=moment(created_at),
        expires_at=moment(expires_at),
        max_files=max_files,
        max_size=max_size,
        max_file_size=max_file_size,
        types=tuple(json.loads(types)),
        passphrase=passphrase,
        revoked_at=_moment_or_none(revoked_at),
        files=files,
        size=size,
        override=to_override(tuple(override)),
    )


def link_row(link: Link) -> Row:
    """The row of `link`, in the order of LINK."""
    times = microseconds(link.created_at), microseconds(link.expires_at)
    revoked_at = _microseconds_or_none(link.revoked_at)
    return link.id, link.file_id, link.created_by, *times, link.max_downloads, revoked_at, link.downloads, link.given


def to_link(row: Row) -> Link:
    """The link of a row in the order of LINK."""
    id, file_id, created_by, created_at, expires_at, max_downloads, revoked_at, downloads, given = row  # noqa: A001 - `id` is the word of the design
    times = moment(created_at), moment(expires_at)
    return Link(id, file_id, created_by, *times, max_downloads, _moment_or_none(revoked_at), downloads, given)


def override_row(override: Override) -> Row:
    """The row of `override`, in the order of OVERRIDE."""
    return override.owner, override.quota, override.quota_files, override.requests_per_minute, override.uploads


def to_override(row: Row | None) -> Override | None:
    """The override of a row in the order of OVERRIDE; None where there is none, as a join says it."""
    return Override(*row) if row and row[0] is not None else None


def window_row(window: Window) -> Row:
    """The row of `window`: owner, since, requests."""
    return window.owner, microseconds(window.since), window.requests


def to_window(row: Row) -> Window:
    """The window of a row: owner, since, requests."""
    owner, since, requests = row
    return Window(owner, moment(since), requests)


def scrub_value(scrub: Scrub) -> bytes:
    """The scrub as a value among the settings."""
    times = {"started_at": microseconds(scrub.started_at), "noted_at": microseconds(scrub.noted_at)}
    return _text({**asdict(scrub), **times}).encode()


def to_scrub(value: bytes) -> Scrub:
    """The scrub of such a value."""
    scrub = json.loads(value)
    times = {name: moment(scrub[name]) for name in ("started_at", "noted_at")}
    return Scrub(**{**scrub, **times})


def upload_row(upload: Resumable) -> Row:
    """The row of `upload`, in the order of UPLOAD."""
    return (
        *advanced_row(upload),
        upload.id,
        upload.key,
        upload.owner,
        upload.dialect,
        _text(dict(upload.notes)),
        int(upload.partial),
        microseconds(upload.created_at),
        upload.epoch,
        upload.file_id,
        upload.grant,
    )


def advanced_row(upload: Resumable) -> Row:
    """What may change of an upload while bytes come, in the order of ADVANCED."""
    intent, staged = upload.intent, upload.staged
    return (
        intent.filename,
        intent.size,
        intent.media_type,
        _text({algorithm: digest.hex() for algorithm, digest in intent.digests.items()}),
        _text(intent.metadata),
        _microseconds_or_none(intent.expires_at),
        microseconds(upload.expires_at),
        staged.offset,
        staged.state,
        upload.state,
        upload.media_type,
    )


def to_upload(row: Row) -> Resumable:
    """The upload of a row in the order of UPLOAD."""
    expires_at, offset, staged_state, state, media_type, *fixed = row[6:]
    id, key, owner, dialect, notes, partial, created_at, epoch, file_id, grant = fixed  # noqa: A001 - `id` is the word of the design
    return Resumable(
        id=id,
        key=key,
        owner=owner,
        dialect=dialect,
        intent=_to_intent(row[:6]),
        notes=json.loads(notes),
        partial=bool(partial),
        created_at=moment(created_at),
        expires_at=moment(expires_at),
        staged=Staged(offset, staged_state),
        state=state,
        epoch=epoch,
        media_type=media_type,
        file_id=file_id,
        grant=grant,
    )


def _to_intent(row: Row) -> Intent:
    filename, length, declared_type, digests, metadata, expires_at = row
    return Intent(
        filename=filename,
        size=length,
        media_type=declared_type,
        digests={algorithm: bytes.fromhex(digest) for algorithm, digest in json.loads(digests).items()},
        metadata=json.loads(metadata),
        expires_at=_moment_or_none(expires_at),
    )


def _text(value: object) -> str:
    """The value as JSON."""
    return json.dumps(value, ensure_ascii=False)


def _microseconds_or_none(moment: datetime | None) -> int | None:
    return None if moment is None else microseconds(moment)


def moment(count: int) -> datetime:
    """The time that stands so in the index."""
    return _EPOCH + count * _MICROSECOND


def _moment_or_none(count: int | None) -> datetime | None:
    return None if count is None else moment(count)
