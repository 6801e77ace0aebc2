"""HTTP semantics: conditions, ranges, and the fields that Spool reads and writes.

Strategy: every function takes a field's value as it came and gives either a type or the refusal that RFC 9110 asks for.
A condition or a range that cannot be read counts as absent wherever the RFC has it so.
"""

from __future__ import annotations

import base64
import re
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, cast
from urllib.parse import quote

import http_sf

from spool.errors import BadRequest, PreconditionFailed, Unsatisfiable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from spool.errors import SpoolError

_BLANKS: Final = " \t"
_HOST: Final = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9\-._~!$&'()*+,;=%]+)(?::[0-9]*)?")
_MOST_RANGES: Final = 10
_RANGE: Final = re.compile(r"(?P<first>[0-9]+)-(?P<last>[0-9]*)|-(?P<suffix>[0-9]+)")
_MOST_DIGITS: Final = 18
_ETAG: Final = re.compile(r'[ \t,]*+(W/)?"([^\x00-\x20"\x7f]*)"[ \t]*+(?:,|$)')
_REQUEST_ID: Final = re.compile(r"[0-9A-Za-z][0-9A-Za-z._:@+/=-]{0,127}")
"""Letters that mean nothing to a shell, a terminal, or a reader of JSON; those of UUIDs, trace ids and base64."""
_REQUESTS: Final = "requests"
"""The name of the one policy."""
_DIGESTS: Final = {"sha-256": 32, "sha-512": 64}
_WORD: Final = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_MEDIA_TYPE: Final = re.compile(rf"\s*+({_WORD}/{_WORD})\s*+(?=;|$)")
_PARAMETER: Final = re.compile(
    rf'\s*+;\s*+(?:({_WORD})(?:\s*+=\s*+("(?:[^"\\]|\\.)*"|[^\s;"]*+))?\s*+)?(?=;|$)', re.DOTALL
)
_WEIGHT: Final = re.compile(r"q\s*=\s*(0(?:\.[0-9]*)?|1(?:\.0*)?)")
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MONTH: Final = rf"(?P<month>{'|'.join(_MONTHS)})"
_TIME: Final = r"(?P<hour>[01][0-9]|2[0-3]):(?P<minute>[0-5][0-9]):(?P<second>[0-5][0-9]|60)"
_DAY: Final = r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
_DATES: Final = (
    re.compile(rf"{_DAY}, (?P<day>[0-9]{{2}}) {_MONTH} (?P<year>[0-9]{{4}}) {_TIME} GMT"),
    re.compile(rf"{_DAY}[a-z]{{0,3}}day, (?P<day>[0-9]{{2}})-{_MONTH}-(?P<year>[0-9]{{2}}) {_TIME} GMT"),
    re.compile(rf"{_DAY} {_MONTH} (?P<day>[0-9]{{2}}| [0-9]) {_TIME} (?P<year>[0-9]{{4}})"),
)


class Span(NamedTuple):
    """Consecutive bytes of a file."""

    start: int
    length: int


class Validators(NamedTuple):
    """What tells one version of a file from another (RFC 9110 §8.8)."""

    etag: str
    """The opaque part, without quotes; strong."""
    last_modified: datetime


def is_host(value: str) -> bool:
    """Whether this is a name or an IP address, with or without a port (RFC 9110 §7.2), so that it can be quoted."""
    return bool(_HOST.fullmatch(value))


def parse_range(value: str | None, size: int) -> list[Span] | None:
    """The spans of a Range that a file of `size` bytes can give, in the order asked for (RFC 9110 §14.2).

    None where the field is to be ignored and the answer is the whole file: no field, another unit, a malformed set, an
    empty file, more than 10 ranges, or ranges that together are larger than the file. Raises Unsatisfiable.
    """
    unit, _, members = (value or "").strip(_BLANKS).partition("=")
    if unit.lower() != "bytes" or not size:
        return None
    ranges = [_RANGE.fullmatch(member) for text in members.split(",") if (member := text.strip(_BLANKS))]
    if not 0 < len(ranges) <= _MOST_RANGES:
        return None
    spans: list[Span] = []
    for match in ranges:
        if match is None or _is_reversed(match):
            return None
        if span := _span(match, size):
            spans.append(span)
    if not spans:
        raise Unsatisfiable(f"the file has {size} bytes, and none of them is in the range", size=size)
    return spans if sum(span.length for span in spans) <= size else None


def _is_reversed(match: re.Match[str]) -> bool:
    if not match["last"]:
        return False
    first, last = match["first"].lstrip("0"), match["last"].lstrip("0")
    return (len(last), last) < (len(first), first)


def _span(match: re.Match[str], size: int) -> Span | None:
    if match["suffix"] is not None:
        length = min(_number(match["suffix"]), size)
        return Span(size - length, length) if length else None
    start = _number(match["first"])
    end = min(_number(match["last"]) if match["last"] else size - 1, size - 1)
    return Span(start, end - start + 1) if start <= end else None


def _number(digits: str) -> int:
    """No file is larger than 18 digits can say, and converting thousands of them takes time."""
    digits = digits.lstrip("0") or "0"
    return int(digits) if len(digits) <= _MOST_DIGITS else 10**_MOST_DIGITS


def format_content_range(span: Span, size: int) -> str:
    """A Content-Range for one span (RFC 9110 §14.4)."""
    return f"bytes {span.start}-{span.start + span.length - 1}/{size}"


def byteranges(spans: Sequence[Span], size: int, media_type: str, boundary: str) -> tuple[list[bytes], bytes]:
    """What goes before each span of a multipart/byteranges body, and after the last one (RFC 9110 §14.6)."""
    heads = [
        f"\r\n--{boundary}\r\nContent-Type: {media_type}\r\nContent-Range: {format_content_range(span, size)}\r\n\r\n"
        for span in spans
    ]
    return [head.encode("latin-1") for head in heads], f"\r\n--{boundary}--\r\n".encode("latin-1")


def evaluate(method: str, headers: Mapping[str, str], validators: Validators) -> bool:
    """Whether the answer is 304 Not Modified, by the request's conditions in their order (RFC 9110 §13.2.2).

    Raises PreconditionFailed.
    """
    if (match := headers.get("If-Match")) is not None:
        if not _matches(match, validators.etag, weak=False):
            raise PreconditionFailed("the file is not the one that If-Match names")
    elif not _unmodified(headers.get("If-Unmodified-Since", ""), validators):
        raise PreconditionFailed("the file was stored after the time in If-Unmodified-Since")
    if (none_match := headers.get("If-None-Match")) is not None:
        matches = _matches(none_match, validators.etag, weak=True)
        if matches and method not in ("GET", "HEAD"):
            raise PreconditionFailed("the file is one that If-None-Match names")
        return matches
    since = headers.get("If-Modified-Since", "")
    return bool(parse_http_date(since)) and method in ("GET", "HEAD") and _unmodified(since, validators)


def _unmodified(since: str, validators: Validators) -> bool:
    """Whether the file is not younger than the time; a time that cannot be read sets no condition."""
    time = parse_http_date(since)
    return time is None or _seconds(validators.last_modified) <= time


def if_range_holds(value: str | None, validators: Validators) -> bool:
    """Whether a Range applies to this version of the file; strong comparison, dates exact (RFC 9110 §13.1.5)."""
    if value is None:
        return True
    if value.strip(_BLANKS) == f'"{validators.etag}"':
        return True
    return parse_http_date(value) == _seconds(validators.last_modified)


def _matches(value: str, etag: str, *, weak: bool) -> bool:
    if value.strip(_BLANKS) == "*":
        return True
    position = 0
    while match := _ETAG.match(value, position):
        if match[2] == etag and (weak or not match[1]):
            return True
        position = match.end()
    return False


def _seconds(time: datetime) -> datetime:
    return time.replace(microsecond=0)


def format_http_date(time: datetime) -> str:
    """An IMF-fixdate (RFC 9110 §5.6.7)."""
    return format_datetime(time.astimezone(UTC), usegmt=True)


def parse_http_date(value: str) -> datetime | None:
    """An HTTP-date in any of its three forms, whatever the locale (RFC 9110 §5.6.7); None if it is none of them.

    A leap second counts as the second before it. A year of two digits lies between 1969 and 2068.
    """
    match = next(filter(None, (form.fullmatch(value.strip(_BLANKS)) for form in _DATES)), None)
    if match is None:
        return None
    year, month = int(match["year"]), _MONTHS.index(match["month"]) + 1
    if len(match["year"]) == 2:  # noqa: PLR2004  # the form of RFC 850
        year += 1900 if year >= 69 else 2000  # noqa: PLR2004  # where POSIX parts the centuries; there is no clock here
    hour, minute, second = int(match["hour"]), int(match["minute"]), min(int(match["second"]), 59)
    try:
        return datetime(year, month, int(match["day"]), hour, minute, second, tzinfo=UTC)
    except ValueError:
        return None


def content_disposition(kind: Literal["inline", "attachment"], filename: str) -> str:
    """A Content-Disposition that every client reads (RFC 6266 §4, RFC 8187): always ASCII, one line."""
    fallback = re.sub(r'[^\x20-\x7e]|["\\%]', "_", filename)
    plain = f'{kind}; filename="{fallback}"'
    if fallback == filename:
        return plain
    return f"{plain}; filename*=UTF-8''{quote(filename.encode('utf-8', 'replace'), safe='!#$&+-.^_`|~')}"


def parse_digests(value: str) -> dict[str, bytes]:
    """The sha-256 and sha-512 of a Repr-Digest or Content-Digest; others are ignored (RFC 9530 §2, §3).

    Raises BadRequest.
    """
    try:
        members = cast("Mapping[str, object]", http_sf.parse(value.encode(), tltype="dictionary"))
    except (http_sf.StructuredFieldError, ValueError) as error:
        raise BadRequest("a digest field is not a dictionary of byte sequences") from error
    return {name: _digest(members[name], name, length) for name, length in _DIGESTS.items() if name in members}


def _digest(member: object, algorithm: str, length: int) -> bytes:
    """The value of a dictionary member, which http_sf gives with its parameters."""
    digest = member[0] if isinstance(member, tuple) else member
    if not isinstance(digest, bytes) or len(digest) != length:
        raise BadRequest(f"a {algorithm} digest is not {length} bytes between colons, in base64")
    return digest


def format_digest(sha256: str) -> str:
    """A Repr-Digest from a hexadecimal SHA-256 (RFC 9530 §3)."""
    return f"sha-256=:{base64.b64encode(bytes.fromhex(sha256)).decode()}:"


def parse_idempotency_key(value: str) -> str:
    """A key of 1 to 255 printable ASCII characters: a String as the draft has it, or bare as others send it.

    Raises BadRequest.
    """
    value = value.strip(_BLANKS)
    if value.startswith('"'):
        value = _parse_string(value)
    if not re.fullmatch(r"[\x20-\x7e]{1,255}", value):
        raise BadRequest("the Idempotency-Key is not 1 to 255 printable ASCII characters")
    return value


def _parse_string(value: str) -> str:
    try:
        text, _ = cast("tuple[object, object]", http_sf.parse(value.encode(), tltype="item"))
    except (http_sf.StructuredFieldError, ValueError) as error:
        raise BadRequest("the Idempotency-Key is not a String") from error
    if not isinstance(text, str):
        raise BadRequest("the Idempotency-Key is not a String")
    return text


def prefers_text(accept: str | None) -> bool:
    """Whether a client would rather have text/plain than application/json (RFC 9110 §12.5.1).

    Where both weigh the same, the one that is named more exactly is preferred, and else JSON.
    """
    text, json = (_quality(accept or "", media_type) for media_type in ("text/plain", "application/json"))
    return text[0] > 0 and text > json


def prefers_html(accept: str | None) -> bool:
    """Whether a client asks for text/html by name, and would rather have it than application/json: a browser does."""
    html, json = (_quality(accept or "", media_type) for media_type in ("text/html", "application/json"))
    return html[0] > 0 and html > json


def _quality(accept: str, media_type: str) -> tuple[float, int]:
    """The weight of the most specific range that covers the type, and how specific it is.

    Parameters narrow a range to a type that is never sent, so they count only where no range names the type alone.
    """
    ranges = {media_type: 2, media_type.partition("/")[0] + "/*": 1, "*/*": 0}
    found: list[tuple[int, bool, float]] = []
    for member in accept.lower().split(","):
        name, *parameters = (part.strip() for part in member.split(";"))
        if name in ranges:
            weights = [float(match[1]) for text in parameters if (match := _WEIGHT.fullmatch(text))]
            found.append((ranges[name], len(weights) == len(parameters), weights[0] if weights else 1.0))
    specificity, _, weight = max(found, default=(0, True, 0.0))
    return weight, specificity


def parse_media_type(value: str) -> tuple[str, dict[str, str]]:
    """Type and subtype in lower case, and the parameters by lower-case name; the first of two wins (RFC 9110 §8.3.1).

    A parameter without a value is left out. Raises BadRequest.
    """
    match = _MEDIA_TYPE.match(value)
    if not match:
        raise BadRequest(f"{value[:80]!r} is not a media type")
    media_type, position = match[1].lower(), match.end()
    parameters: dict[str, str] = {}
    while position < len(value):
        match = _PARAMETER.match(value, position)
        if not match:
            raise BadRequest("the parameters of a media type are malformed")
        if match[2]:
            parameters.setdefault(match[1].lower(), _unquote(match[2]))
        position = match.end()
    return media_type, parameters


def parse_declared_type(value: str | None) -> tuple[str | None, dict[str, str]]:
    """A media type that is only kept as a claim: one that cannot be read counts as none."""
    try:
        return (None, {}) if value is None else parse_media_type(value)
    except BadRequest:
        return None, {}


def _unquote(value: str) -> str:
    return re.sub(r"\\(.)", r"\1", value[1:-1], flags=re.DOTALL) if value.startswith('"') else value


def parse_request_id(values: Sequence[str]) -> str | None:
    """The client's name for its request, if there is one that nothing can go wrong with: short, and of safe letters."""
    if len(values) == 1 and _REQUEST_ID.fullmatch(values[0]):
        return values[0]
    return None


def problem_document(error: SpoolError, request_id: str | None = None) -> dict[str, object]:
    """A problem document (RFC 9457 §3.1). Its type is an address on this server that says what the type means."""
    document: dict[str, object] = {
        "type": f"/problems/{error.slug}",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        **error.members,
    }
    return document if request_id is None else {**document, "request_id": request_id}


def rate_limit_fields(limit: int, remaining: int, reset: int, window: int) -> dict[str, str]:
    """How often a client may ask (draft-ietf-httpapi-ratelimit-headers-11); `reset` and `window` are in seconds."""
    fields = {"RateLimit-Policy": {"q": limit, "w": window}, "RateLimit": {"r": remaining, "t": reset}}
    return {name: http_sf.ser([(_REQUESTS, parameters)]) for name, parameters in fields.items()}  # type: ignore[list-item]  # a pair is an item with parameters
