"""Resumable Uploads for HTTP (draft-ietf-httpbis-resumable-upload), interop versions 6 to 10.

Strategy: these versions are one on the wire as long as every answer says what any of them asks for. So a client's
version decides only whether it is sent 104s, and which version they name. Sections are those of -12.
A valid Upload-Complete makes a creation one of the draft's; without it the same request is a plain upload. Fields are
Structured Fields: one that has another type than the draft gives it counts as absent (§4.1), parameters mean nothing.
In an answer Upload-Complete tells who speaks (§4.1.2): ?1 is about the file, and the client is done, whatever the
status; ?0 is about the upload, and the client may go on with it. An offset in an answer is a promise (§4.1.1): none is
given after a failure that leaves unknown whether the row advanced. Nor is max-age, the time that is left, except where
a creation or an append has just renewed it: a dialect has no clock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

import http_sf

from spool.errors import (
    BadRequest,
    BadType,
    BeyondGrant,
    CompletedUpload,
    DigestMismatch,
    Gone,
    InconsistentLength,
    OffsetMismatch,
    SpoolError,
    Superseded,
)
from spool.model import Intent
from spool.protocol.disposition import clean_filename, parse_disposition
from spool.protocol.http import parse_declared_type, parse_digests
from spool.protocol.resumable import Append, Cancel, Checksum, Create, Discover, Inspect, ResponseHead

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spool.model import Resumable, UploadId
    from spool.protocol.resumable import Command, Dialect, Head, Limits, Result

_PARTIAL_UPLOAD: Final = "application/partial-upload"
_FORM: Final = "multipart/form-data"
_VERSIONS: Final = range(6, 11)
_LARGEST_INTEGER: Final = 999_999_999_999_999
"""RFC 9651 §3.3.1."""
_PROBLEM_TYPES: Final[Mapping[type[SpoolError], str]] = {
    OffsetMismatch: "https://iana.org/assignments/http-problem-types#mismatching-upload-offset",
    InconsistentLength: "https://iana.org/assignments/http-problem-types#inconsistent-upload-length",
    CompletedUpload: "https://iana.org/assignments/http-problem-types#completed-upload",
}
"""The last one was in -03 to -11 only."""


class Rufh:
    """The draft as a Dialect. The name of a file that is PUT is in its address, so those intents have an empty one."""

    name: str = "rufh"

    def __init__(self, limits: Limits) -> None:
        size = {"max-size": limits.max_size}
        self._limit = _format_limit(size)
        self._fresh_limit = _format_limit({**size, "max-age": limits.max_age})

    def parse(self, head: Head, id: UploadId | None) -> Command | None:  # noqa: D102  # see Dialect
        match head.method:
            case "OPTIONS":
                return Discover()
            case "POST" | "PUT" if id is None:
                return _parse_creation(head)
            case "HEAD" | "GET" if id is not None:
                return Inspect(id)
            case "PATCH" if id is not None:
                return _parse_append(head, id)
            case "DELETE" if id is not None:
                return Cancel(id)
        return None

    def parse_trailer(self, headers: Mapping[str, str]) -> Checksum | None:  # noqa: ARG002, D102  # none is expected
        return None

    def interim(self, head: Head, *, location: str | None = None, offset: int | None = None) -> dict[str, str] | None:
        """The fields of a 104 that tells a new upload's address, or an offset that is durable (§4.2.2, §4.4.2).

        None if the client must not be sent any (appendix B). In answer to an append, `location` must be None.
        """
        version = interop_version(head)
        if version is None:
            return None
        headers = {"Upload-Draft-Interop-Version": str(version)}
        if location is not None:
            headers |= {"Location": location, "Upload-Limit": self._fresh_limit}
        if offset is not None:
            headers["Upload-Offset"] = str(offset)
        return headers

    def reply(self, command: Command, result: Result) -> ResponseHead:  # noqa: D102  # see Dialect
        match command:
            case Discover():
                return ResponseHead(204, {"Upload-Limit": self._fresh_limit, "Accept-Patch": _PARTIAL_UPLOAD})
            case Cancel():
                return ResponseHead(204, {"Upload-Limit": self._limit})
        upload = result.upload
        assert upload is not None
        if isinstance(command, Inspect):
            return ResponseHead(204, _state(upload) | self._details(upload, result))
        if upload.state == "finished":
            headers = {**_state(upload), "Upload-Limit": self._limit}  # this may be a replay, long after
            return ResponseHead(201, headers | _given("Location", result.file_url), with_record=True)
        headers = {**_state(upload), "Upload-Limit": self._fresh_limit}
        if isinstance(command, Create):
            return ResponseHead(201, headers | _given("Location", result.location))
        return ResponseHead(204, headers)  # 201 in -05 (interop 6), whose clients take any 2xx as later ones do

    def refuse(self, error: SpoolError, result: Result) -> ResponseHead:  # noqa: D102  # see Dialect
        upload = result.upload
        headers = {"Upload-Complete": "?0", "Upload-Limit": self._fresh_limit if upload is None else self._limit}
        if upload is not None:
            if _is_given_up(upload, error):
                headers["Upload-Complete"] = "?1"
            elif _is_saved(error):
                headers["Upload-Offset"] = str(upload.staged.offset)
        if error.members.get("accepted") == _PARTIAL_UPLOAD:
            headers["Accept-Patch"] = _PARTIAL_UPLOAD  # RFC 5789 §2.2
        return ResponseHead(error.status, headers, problem_type=_PROBLEM_TYPES.get(type(error)))

    def _details(self, upload: Resumable, result: Result) -> dict[str, str]:
        """What only an answer to Inspect says (§4.3.2)."""
        length = upload.intent.size
        return {
            "Upload-Limit": self._limit,
            "Cache-Control": "no-store",
            **_given("Upload-Length", None if length is None else str(length)),
            **_given("Content-Location", result.file_url),
        }


def interop_version(head: Head) -> int | None:
    """The version of the draft that the client speaks, or None if it is not one of ours (appendix B)."""
    version = _parse_integer(head, "upload-draft-interop-version")
    return version if version in _VERSIONS else None


def _format_limit(members: Mapping[str, int]) -> str:
    """An Upload-Limit. A limit that no Integer can say is none, and no limit at all is min-size=0 (§4.1.4)."""
    sayable = {name: value for name, value in members.items() if value <= _LARGEST_INTEGER}
    return ", ".join(f"{name}={value}" for name, value in (sayable or {"min-size": 0}).items())


def _state(upload: Resumable) -> dict[str, str]:
    complete = "?1" if upload.state == "finished" else "?0"
    return {"Upload-Offset": str(upload.staged.offset), "Upload-Complete": complete}


def _given(name: str, value: str | None) -> dict[str, str]:
    return {} if value is None else {name: value}


def _is_given_up(upload: Resumable, error: SpoolError) -> bool:
    """Whether the upload is gone with this error: no policy will take its bytes, or all are here and are not those."""
    ends = (DigestMismatch, BeyondGrant)
    return isinstance(error, BadType | Gone) or (isinstance(error, ends) and upload.state == "complete")


def _is_saved(error: SpoolError) -> bool:
    """Whether the upload's offset is certain to be in its row, and nobody else has moved it since."""
    return not isinstance(error, Superseded) and error.status < 500  # noqa: PLR2004


def _parse_creation(head: Head) -> Create | None:
    completes = _parse_boolean(head, "upload-complete")
    form = head.method == "POST" and _bare_type(head) == _FORM
    if completes is None or (completes and form):
        return None  # a form is taken apart by the plain upload, which can answer the whole of it as well (§4.2.2)
    if form:
        raise BadType("a form cannot be sent in parts; send the file as it is")
    if head.method == "PUT" and "content-range" in head.headers:
        raise BadRequest("a PUT stores a whole file; Content-Range has no meaning here")
    _refuse_encoded(head)
    intent = Intent(
        filename=_parse_filename(head),
        size=_parse_length(head, 0, completes=completes),
        media_type=_parse_type(head),
        digests=parse_digests(head.headers.get("repr-digest", "")) if completes else {},
    )
    return Create(intent, completes=completes, has_body=head.has_body, checksum=_parse_checksum(head))


def _parse_append(head: Head, id: UploadId) -> Append:
    if _bare_type(head) != _PARTIAL_UPLOAD:
        raise BadType(f"an upload goes on with a body of type {_PARTIAL_UPLOAD}", accepted=_PARTIAL_UPLOAD)
    _refuse_encoded(head)
    offset, completes = _parse_integer(head, "upload-offset"), _parse_boolean(head, "upload-complete")
    if offset is None:
        raise BadRequest("Upload-Offset is missing, or not an integer of at most 15 digits")
    if completes is None:
        raise BadRequest("Upload-Complete is missing, or neither ?0 nor ?1")
    length = _parse_length(head, offset, completes=completes)
    return Append(id, offset, length, completes, checksum=_parse_checksum(head))


def _parse_length(head: Head, offset: int, *, completes: bool) -> int | None:
    """The upload's length as far as this request tells it (§4.1.3). Raises InconsistentLength."""
    told = _parse_integer(head, "upload-length")
    size = 0 if head.content_length is None and not head.has_body else head.content_length
    end = None if size is None else offset + size
    if told is None:
        return end if completes else None
    if offset > told or (end is not None and (end > told or (completes and end < told))):
        raise InconsistentLength(f"this request's body does not fit its Upload-Length of {told}", length=told)
    return told


def _parse_filename(head: Head) -> str:
    """The name in a Content-Disposition (§4.2.1), or an empty one. Raises BadRequest."""
    value = head.headers.get("content-disposition")
    if value is None or head.method == "PUT":
        return ""
    disposition = parse_disposition(value)
    named = disposition.kind in ("inline", "attachment") and disposition.filename
    return clean_filename(named) if named else ""


def _parse_type(head: Head) -> str | None:
    """The representation's type, a claim: one that cannot be read counts as none.

    So does the type of an append, which tus-js-client gives to a creation too.
    """
    media_type, _ = parse_declared_type(head.headers.get("content-type"))
    return None if media_type == _PARTIAL_UPLOAD else media_type


def _parse_checksum(head: Head) -> Checksum | None:
    """A digest of this request's bytes (RFC 9530 §2); one of the algorithms is enough. Raises BadRequest."""
    for algorithm, digest in parse_digests(head.headers.get("content-digest", "")).items():
        return Checksum(algorithm.replace("-", ""), digest, DigestMismatch)
    return None


def _refuse_encoded(head: Head) -> None:
    codings = head.headers.get("content-encoding", "").split(",")
    if any(coding.strip().lower() not in ("", "identity") for coding in codings):
        raise BadType("a body with a Content-Encoding is not read; send the file as it is")


def _bare_type(head: Head) -> str:
    return head.headers.get("content-type", "").partition(";")[0].strip().lower()


def _parse_boolean(head: Head, name: str) -> bool | None:
    value = _parse_item(head, name)
    return value if isinstance(value, bool) else None


def _parse_integer(head: Head, name: str) -> int | None:
    """A non-negative Integer."""
    value = _parse_item(head, name)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _parse_item(head: Head, name: str) -> object:
    """The value of an Item; None if the field is absent or cannot be read, which is the same (RFC 9651 §4.2)."""
    field = head.headers.get(name)
    if field is None:
        return None
    try:
        value, _ = cast("tuple[object, object]", http_sf.parse(field.encode(), tltype="item"))
    except (http_sf.StructuredFieldError, ValueError):
        return None
    return value


if TYPE_CHECKING:
    _conforms: type[Dialect] = Rufh
