"""tus 1.0.0 (https://tus.io/protocols/resumable-upload), with every extension but concatenation-unfinished.

Strategy: everything that a head can be refused for is found before its body is asked for. What HEAD has to give back
word for word, Upload-Metadata and Upload-Concat, is checked once and kept raw in the upload's notes, under the fields'
lower-case names. What depends on the upload, such as its offset or a length told before, is for the driver to check.

A finished upload is a file, and every answer about it says so, for clients that know only tus: `Content-Location` is
the address of the file's record, and `Link` has that of its bytes, with the registered relation `enclosure` (RFC 4287),
or, for a guest, of where the file can be deleted, with the relation `edit` (RFC 5023).

The metadata keys `filename` or `name`, `filetype` or `type`, `sha256` (in hex) and `expires_at` (RFC 3339) say of the
file what their names say; all others are its metadata.

Clients retry 5xx, 409 and 423, and treat every other 4xx as final. So what may well succeed in a moment is a 503 here,
even where HTTP has a narrower status for it.
"""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from spool.errors import (
    BadRequest,
    BadType,
    ChecksumMismatch,
    CompletedUpload,
    DigestMismatch,
    Forbidden,
    Gone,
    InconsistentLength,
    MethodNotAllowed,
    NotFound,
    OffsetMismatch,
    PreconditionFailed,
    RequestTimeout,
    SpoolError,
    TooLarge,
    TooMany,
    Unavailable,
)
from spool.model import Intent
from spool.protocol.disposition import clean_filename
from spool.protocol.http import format_http_date, parse_declared_type
from spool.protocol.resumable import Append, Cancel, Checksum, Create, Discover, Inspect, ResponseHead

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spool.model import Metadata, Resumable, UploadId
    from spool.protocol.resumable import Command, Dialect, Head, Limits, Result

_VERSION: Final = "1.0.0"
_EXTENSIONS: Final = (
    "creation",
    "creation-with-upload",
    "creation-defer-length",
    "expiration",
    "checksum",
    "checksum-trailer",
    "termination",
    "concatenation",
)
_DIGEST_SIZES: Final = {"sha1": 20, "sha256": 32, "sha512": 64, "md5": 16}
_METHODS: Final = ("OPTIONS", "POST", "HEAD", "PATCH", "DELETE")
_OVERRIDES: Final = ("PATCH", "DELETE", "HEAD")
_BODY_TYPE: Final = "application/offset+octet-stream"
_METADATA: Final = "upload-metadata"
_CONCAT: Final = "upload-concat"

_NUMBER: Final = re.compile(r"[0-9]{1,18}")
_BASE64: Final = r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?"
_CHECKSUM: Final = re.compile(rf"([!-~]+) +({_BASE64})")
_PAIR: Final = re.compile(rf"([!-+\--~]+)(?: +({_BASE64}))?")
_FINAL: Final = re.compile(r"final; *([!-~]+(?: +[!-~]+)*)")

_ENDS_UPLOAD: Final = (NotFound, Gone, BadType, DigestMismatch)
"""After one of these there is no upload to tell of."""
_STATUS: Final[Mapping[type[SpoolError], int]] = {
    CompletedUpload: TooLarge.status,
    RequestTimeout: Unavailable.status,
    TooMany: Unavailable.status,
}
"""Where it is not the error's own."""
_OUT_OF_PLACE: Final = (CompletedUpload, InconsistentLength, OffsetMismatch, TooLarge)
"""What a driver may find wrong with bytes for an upload that is whole."""


class Tus:
    """The dialect of tus 1.0.0."""

    name = "tus"

    def __init__(self, limits: Limits, *, concatenation: bool = True) -> None:
        """Without `concatenation` it does not offer that; whether to refuse it is for the driver."""
        self._limits = limits
        self._extensions = _EXTENSIONS if concatenation else [e for e in _EXTENSIONS if e != "concatenation"]

    def parse(self, head: Head, id: UploadId | None) -> Command | None:  # noqa: D102  # see Dialect
        method = _parse_method(head)
        if method not in _METHODS:
            return None
        if method == "OPTIONS":
            return Discover()
        _require_version(head.headers)
        if id is None:
            if method != "POST":
                raise _not_allowed(method, "OPTIONS", "POST")
            return _parse_creation(head)
        match method:
            case "HEAD":
                return Inspect(id)
            case "PATCH":
                return _parse_append(head.headers, id)
            case "DELETE":
                return Cancel(id)
        raise _not_allowed(method, "DELETE", "GET", "HEAD", "OPTIONS", "PATCH")

    def parse_trailer(self, headers: Mapping[str, str]) -> Checksum | None:  # noqa: D102  # see Dialect
        checksum = _parse_checksum(headers)
        if checksum is None:
            raise BadRequest("the Upload-Checksum that Trailer announced did not follow the body")
        return checksum

    def interim(  # noqa: D102  # see Dialect
        self,
        head: Head,  # noqa: ARG002
        *,
        location: str | None = None,  # noqa: ARG002
        offset: int | None = None,  # noqa: ARG002
    ) -> None:
        return None  # tus has none

    def reply(self, command: Command, result: Result) -> ResponseHead:  # noqa: D102  # see Dialect
        match command:
            case Discover():
                return _answer(200, self._offer())
            case Cancel():
                return _answer(204)
            case Create():
                assert result.location is not None
                return _answer(201, {"Location": result.location, **_progress(result)})
            case Inspect():
                return _answer(200, {"Cache-Control": "no-store", **_progress(result), **_description(result)})
            case Append():
                if _is_final(result.upload):
                    raise Forbidden("this upload is made of others, and takes no bytes of its own")
                return _answer(204, _progress(result))

    def refuse(self, error: SpoolError, result: Result) -> ResponseHead:  # noqa: D102  # see Dialect
        status, retry_after = _STATUS.get(type(error), error.status), error.retry_after
        if isinstance(error, _OUT_OF_PLACE) and _is_final(result.upload):
            status = Forbidden.status
        if status == Unavailable.status:
            retry_after = retry_after or Unavailable.retry_after
        headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        return _answer(status, {**headers, **_remedy(error), **_remains(error, result)})

    def _offer(self) -> dict[str, str]:
        return {
            "Tus-Version": _VERSION,
            "Tus-Extension": ",".join(self._extensions),
            "Tus-Max-Size": str(self._limits.max_size),
            "Tus-Checksum-Algorithm": ",".join(_DIGEST_SIZES),
        }


if TYPE_CHECKING:
    _dialect: type[Dialect] = Tus


# Requests


def _parse_method(head: Head) -> str:
    """The method that is meant: clients behind narrow proxies send others as POST."""
    override = head.headers.get("x-http-method-override")
    if head.method != "POST" or not override:
        return head.method
    if override not in _OVERRIDES:
        raise BadRequest(f"X-HTTP-Method-Override is not one of {', '.join(_OVERRIDES)}")
    return override


def _not_allowed(method: str, *allowed: str) -> MethodNotAllowed:
    return MethodNotAllowed(f"this address does not take {method}", allowed=list(allowed))


def _require_version(headers: Mapping[str, str]) -> None:
    if headers.get("tus-resumable") != _VERSION:
        raise PreconditionFailed(f"the request does not say Tus-Resumable: {_VERSION}")


def _parse_creation(head: Head) -> Create:
    headers = head.headers
    intent = _parse_intent(headers.get(_METADATA, ""))
    notes = {name: headers[name] for name in (_METADATA, _CONCAT) if name in headers}
    concat = headers.get(_CONCAT)
    if concat not in (None, "partial"):
        return Create(intent, notes, parts=_parse_final(concat, head))
    intent = replace(intent, size=_parse_length(headers))
    if head.has_body:
        _require_type(headers)
    checksum = _parse_checksum(headers)
    return Create(
        intent,
        notes,
        partial=concat == "partial",
        has_body=head.has_body,
        checksum=checksum,
        checksum_follows=checksum is None and _announces_checksum(headers),
    )


def _parse_append(headers: Mapping[str, str], id: UploadId) -> Append:
    _require_type(headers)
    offset = _parse_number(headers, "Upload-Offset")
    if offset is None:
        raise BadRequest("Upload-Offset is missing")
    checksum = _parse_checksum(headers)
    return Append(
        id,
        offset,
        length=_parse_number(headers, "Upload-Length"),
        checksum=checksum,
        checksum_follows=checksum is None and _announces_checksum(headers),
    )


def _require_type(headers: Mapping[str, str]) -> None:
    if headers.get("content-type", "").lower() != _BODY_TYPE:
        raise BadType(f"the Content-Type of a body is {_BODY_TYPE}")


def _parse_number(headers: Mapping[str, str], name: str) -> int | None:
    value = headers.get(name.lower())
    if value is None:
        return None
    if not _NUMBER.fullmatch(value):
        raise BadRequest(f"{name} is not a number of 1 to 18 digits")
    return int(value)


def _parse_length(headers: Mapping[str, str]) -> int | None:
    """A new upload's length, or None if it is to come later."""
    length, deferred = _parse_number(headers, "Upload-Length"), headers.get("upload-defer-length")
    if (length is None) == (deferred is None):
        raise BadRequest("a new upload has either Upload-Length or Upload-Defer-Length")
    if deferred not in (None, "1"):
        raise BadRequest("Upload-Defer-Length is not 1")
    return length


def _parse_final(concat: str, head: Head) -> tuple[str, ...]:
    """The addresses of the partial uploads of a final one."""
    final = _FINAL.fullmatch(concat)
    if not final:
        raise BadRequest("Upload-Concat is neither partial nor final; with addresses")
    if "upload-length" in head.headers or "upload-defer-length" in head.headers:
        raise BadRequest("the length of a final upload is that of its parts, and is not given")
    if head.has_body:
        raise Forbidden("a final upload is made of others, and takes no bytes of its own")
    return tuple(final[1].split())


def _parse_checksum(headers: Mapping[str, str]) -> Checksum | None:
    value = headers.get("upload-checksum")
    if value is None:
        return None
    checksum = _CHECKSUM.fullmatch(value)
    if not checksum or not checksum[2]:
        raise BadRequest("Upload-Checksum is not the name of an algorithm and a digest in base64")
    algorithm, digest = checksum[1], base64.b64decode(checksum[2])
    if algorithm not in _DIGEST_SIZES:
        raise BadRequest(f"the algorithm of Upload-Checksum is not one of {', '.join(_DIGEST_SIZES)}")
    if len(digest) != _DIGEST_SIZES[algorithm]:
        raise ChecksumMismatch(f"the digest in Upload-Checksum has {len(digest)} bytes, which no {algorithm} has")
    return Checksum(algorithm, digest, ChecksumMismatch)


def _announces_checksum(headers: Mapping[str, str]) -> bool:
    return "upload-checksum" in [name.strip().lower() for name in headers.get("trailer", "").split(",")]


# Metadata


def _parse_intent(metadata: str) -> Intent:
    texts = {key: value.decode("utf-8", "replace") for key, value in _parse_metadata(metadata).items()}
    names = [texts.pop(key, "") for key in ("filename", "name")]
    types = [texts.pop(key, "") for key in ("filetype", "type")]
    sha256, expires_at = texts.pop("sha256", None), texts.pop("expires_at", None)
    rest: Metadata = {**texts}
    return Intent(
        clean_filename(names[0] or names[1]),
        media_type=parse_declared_type(types[0] or types[1])[0],
        digests={} if sha256 is None else {"sha-256": _parse_sha256(sha256)},
        metadata=rest,
        expires_at=None if expires_at is None else _parse_time(expires_at),
    )


def _parse_metadata(value: str) -> dict[str, bytes]:
    """What Upload-Metadata says; tuspy sends an empty one. Raises BadRequest."""
    metadata: dict[str, bytes] = {}
    for element in value.split(",") if value else []:
        pair = _PAIR.fullmatch(element.strip(" \t"))
        if not pair:
            raise BadRequest("Upload-Metadata is not a list of keys with values in base64")
        if pair[1] in metadata:
            raise BadRequest(f"Upload-Metadata has the key {pair[1][:80]!r} twice")
        metadata[pair[1]] = base64.b64decode(pair[2] or "")
    return metadata


def _parse_sha256(value: str) -> bytes:
    if not re.fullmatch(r"[0-9a-fA-F]{64}", value):
        raise BadRequest("sha256 in Upload-Metadata is not 64 hexadecimal digits")
    return bytes.fromhex(value)


def _parse_time(value: str) -> datetime:
    """An RFC 3339 time, or a date, which stands for its first moment in UTC."""
    try:
        time = datetime.fromisoformat(value)
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise BadRequest("expires_at in Upload-Metadata is not a time such as 2026-11-25T10:00:00Z") from error


# Answers


def _answer(status: int, headers: Mapping[str, str] | None = None) -> ResponseHead:
    return ResponseHead(status, {"Tus-Resumable": _VERSION, **(headers or {})})


def _is_final(upload: Resumable | None) -> bool:
    return upload is not None and upload.notes.get(_CONCAT, "").startswith("final")


def _progress(result: Result) -> dict[str, str]:
    assert result.upload is not None
    return {"Upload-Offset": str(result.upload.staged.offset), **_fate(result)}


def _fate(result: Result) -> dict[str, str]:
    """When an unfinished upload is given up, or where the file is that a finished one became."""
    assert result.upload is not None
    if result.upload.state != "finished":
        return {"Upload-Expires": format_http_date(result.upload.expires_at)}
    links = {"enclosure": result.content_url, "edit": result.delete_url}
    link = ", ".join(f'<{url}>; rel="{relation}"' for relation, url in links.items() if url is not None)
    named = {"Content-Location": result.file_url, "Link": link}
    return {name: value for name, value in named.items() if value}


def _description(result: Result) -> dict[str, str]:
    """What the client said of the upload when it created it."""
    assert result.upload is not None
    length, notes = result.upload.intent.size, result.upload.notes
    headers = {"Upload-Defer-Length": "1"} if length is None else {"Upload-Length": str(length)}
    for name, field in (("Upload-Metadata", _METADATA), ("Upload-Concat", _CONCAT)):
        if field in notes:
            headers[name] = notes[field]
    return headers


def _remedy(error: SpoolError) -> dict[str, str]:
    """What the client has to know of this server to do better."""
    if isinstance(error, PreconditionFailed):
        return {"Tus-Version": _VERSION}
    allowed = error.members.get("allowed")
    return {"Allow": ", ".join(allowed)} if isinstance(allowed, list) else {}


def _remains(error: SpoolError, result: Result) -> dict[str, str]:
    """What the client has to know of the upload to go on with it; nothing where there is none any more."""
    upload = result.upload
    if upload is None or isinstance(error, _ENDS_UPLOAD):
        return {}
    headers = _fate(result)
    if isinstance(error, OffsetMismatch) and not _is_final(upload):
        headers["Upload-Offset"] = str(upload.staged.offset)
    if upload.state != "finished" and result.location is not None:
        headers["Location"] = result.location
    return headers
