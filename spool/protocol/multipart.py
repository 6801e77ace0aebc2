"""multipart/form-data (RFC 7578, RFC 2046 §5.1) as a push parser: bytes in, events out.

Strategy: the buffer starts with a CRLF nobody sent, so that the first delimiter looks like every other one: CRLF, two
dashes, boundary. One search then serves preamble and body alike. What lies before a delimiter is given out at once;
only a tail that may be the start of a delimiter waits for the next bytes. Delimiters are strict about CRLF, because a
parser that takes a bare LF splits files that happen to contain one. A delimiter followed by anything but padding and
CRLF, or two dashes, is data and stays data: a nested message whose boundary begins like ours must not be cut.
A multipart/mixed part without a filename (curl sends one for `-F 'f=@a,b'`) is read by a parser of its own, one level
deep; with a filename any part is just a file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from spool.errors import BadRequest, BadType, CutOff, TooLarge
from spool.protocol.disposition import parse_disposition
from spool.protocol.http import parse_declared_type

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_BOUNDARY: Final = re.compile(r"[0-9A-Za-z'()+_,\-./:=? ]{0,69}[0-9A-Za-z'()+_,\-./:=?]")
_FIELD_NAME: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_AFTER_DELIMITER: Final = re.compile(rb"--|[ \t]{0,64}\r\n")
_PERHAPS_AFTER_DELIMITER: Final = re.compile(rb"-?|[ \t]{0,64}\r?")
_SINGLE: Final = ("content-disposition", "content-type", "content-transfer-encoding")
_MAX_PREAMBLE: Final = 64 * 1024
_MAX_FALSE_DELIMITERS: Final = 10_000
"""Each costs a step of Python, so a body made of nothing else would buy seconds of a processor for a few megabytes."""


@dataclass(frozen=True, slots=True)
class PartBegin:
    """A part starts. Without a filename it is a field."""

    name: str
    filename: str | None
    media_type: str | None


@dataclass(frozen=True, slots=True)
class PartData:
    """Some more bytes of the part, never none."""

    data: bytes


@dataclass(frozen=True, slots=True)
class PartEnd:
    """The part is complete."""


Event = PartBegin | PartData | PartEnd


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a form may ask of the parser."""

    parts: int
    headers: int
    """Header lines of one part."""
    header_bytes: int
    """All header lines of one part together."""


class Parser:
    """Reads one form. Events come in the order Begin, Data*, End; an error is final."""

    def __init__(self, boundary: str, limits: Limits) -> None:
        """Raises BadRequest for a boundary that RFC 2046 §5.1.1 does not allow."""
        if not _BOUNDARY.fullmatch(boundary):
            raise BadRequest("the boundary parameter is not 1 to 70 characters that RFC 2046 allows in a boundary")
        self._limits = limits
        self._delimiter = b"\r\n--" + boundary.encode("ascii")
        self._buffer = b"\r\n"
        self._at = 0
        self._step: Callable[[Parser, list[Event]], bool] = Parser._preamble  # no bound method: it would be a cycle
        self._skipped = b""
        self._fresh = False
        self._parts = 0
        self._false_delimiters = 0
        self._mixed: _Mixed | None = None

    def feed(self, data: bytes) -> list[Event]:
        """What `data` completes. Raises BadRequest, TooLarge for an exceeded limit, BadType for an encoded part."""
        self._buffer = self._buffer + data if self._buffer else data
        events: list[Event] = []
        while self._step(self, events):
            pass
        self._buffer = self._buffer[self._at :]
        self._at = 0
        return events

    def close(self) -> None:
        """The body has ended. Raises CutOff unless the closing delimiter was seen."""
        if self._step is not Parser._epilogue:
            raise CutOff("the form ended before its closing boundary")

    def _preamble(self, _events: list[Event]) -> bool:
        skipped, found = self._until_delimiter()
        self._skipped += skipped
        if len(self._skipped) > _MAX_PREAMBLE:
            raise BadRequest(f"no boundary within the first {_MAX_PREAMBLE} bytes of the form")
        if found and re.search(rb"(?<!\r)\n" + re.escape(self._delimiter[2:]), self._skipped):
            raise BadRequest("a boundary does not stand after CRLF, and its part would be lost")
        return found

    def _headers(self, events: list[Event]) -> bool:
        if self._buffer.startswith(b"\r\n", self._at):
            raise BadRequest("a part has no Content-Disposition")
        end = self._buffer.find(b"\r\n\r\n", self._at)
        size = (end if end >= 0 else len(self._buffer) - 3) - self._at
        if size > self._limits.header_bytes:
            raise TooLarge("the headers of a part are too large", limit=self._limits.header_bytes)
        if end < 0:
            return False
        headers = _parse_headers(self._buffer[self._at : end], self._limits.headers)
        self._at = end + 2  # a delimiter may start with the CRLF of the empty line: its part has no body
        self._fresh = True
        self._begin(headers, events)
        self._step = Parser._body
        return True

    def _begin(self, headers: Mapping[str, str], events: list[Event]) -> None:
        _refuse_encoded(headers)
        disposition = parse_disposition(headers.get("content-disposition", ""))
        if disposition.kind != "form-data" or disposition.name is None:
            raise BadRequest("a part has no Content-Disposition: form-data with a name")
        media_type, parameters = parse_declared_type(headers.get("content-type"))
        if disposition.filename is not None or not (media_type or "").startswith("multipart/"):
            events.append(PartBegin(disposition.name, disposition.filename, media_type))
        elif media_type == "multipart/mixed":
            self._mixed = _Mixed(disposition.name, parameters.get("boundary", ""), self._limits)
        else:
            raise BadType(f"a part of type {media_type} is not read; send its parts as files of their own")

    def _body(self, events: list[Event]) -> bool:
        data, found = self._until_delimiter()
        if data and self._fresh:
            data, self._fresh = data[2:], False
        if self._mixed:
            self._feed_mixed(self._mixed, data, events, last=found)
            return found
        if data:
            events.append(PartData(data))
        if found:
            events.append(PartEnd())
        return found

    def _feed_mixed(self, mixed: _Mixed, data: bytes, events: list[Event], *, last: bool) -> None:
        for event in mixed.feed(data):
            if isinstance(event, PartBegin):
                self._count_part()
            events.append(event)
        if last:
            mixed.close()
            self._mixed = None

    def _epilogue(self, _events: list[Event]) -> bool:
        self._at = len(self._buffer)
        return False

    def _until_delimiter(self) -> tuple[bytes, bool]:
        """The data before the next delimiter, and whether that delimiter is there yet; if so, the step changes."""
        start = search = self._at
        while (found := self._buffer.find(self._delimiter, search)) >= 0:
            end = found + len(self._delimiter)
            if after := _AFTER_DELIMITER.match(self._buffer, end):
                self._at = after.end()
                self._pass_delimiter(closing=after[0] == b"--")
                return self._buffer[start:found], True
            if _PERHAPS_AFTER_DELIMITER.fullmatch(self._buffer, end):
                self._at = found
                return self._buffer[start:found], False
            self._count_false_delimiter()
            search = end
        self._at = self._first_undecided(start)
        return self._buffer[start : self._at], False

    def _first_undecided(self, start: int) -> int:
        """Where a tail begins that more bytes may turn into a delimiter; the boundary itself holds no CR."""
        tail = self._buffer.rfind(b"\r", max(start, len(self._buffer) - len(self._delimiter) + 1))
        if tail >= 0 and self._delimiter.startswith(self._buffer[tail:]):
            return tail
        return len(self._buffer)

    def _pass_delimiter(self, *, closing: bool) -> None:
        if closing:
            self._step = Parser._epilogue
            return
        self._count_part()
        self._step = Parser._headers

    def _count_part(self) -> None:
        self._parts += 1
        if self._parts > self._limits.parts:
            raise TooLarge("the form has too many parts", limit=self._limits.parts)

    def _count_false_delimiter(self) -> None:
        self._false_delimiters += 1
        if self._false_delimiters > _MAX_FALSE_DELIMITERS:
            raise BadRequest("the boundary occurs too often within the data; choose another one")


class _Mixed(Parser):
    """The multipart/mixed body of one part: every part of it is a file under the outer part's name."""

    def __init__(self, name: str, boundary: str, limits: Limits) -> None:
        super().__init__(boundary, limits)
        self._name = name

    def _begin(self, headers: Mapping[str, str], events: list[Event]) -> None:
        _refuse_encoded(headers)
        filename = parse_disposition(headers.get("content-disposition", "")).filename
        media_type, _ = parse_declared_type(headers.get("content-type"))
        if filename is None:
            raise BadRequest("a part of a multipart/mixed part has no filename")
        if media_type is not None and media_type.startswith("multipart/"):
            raise BadRequest("a multipart/mixed part holds another multipart")
        events.append(PartBegin(self._name, filename, media_type))


def _parse_headers(block: bytes, most: int) -> dict[str, str]:
    """Header lines by lower-case name. One that means something must not occur twice."""
    headers: dict[str, str] = {}
    lines = _unfold(block.split(b"\r\n"))
    if len(lines) > most:
        raise TooLarge("a part has too many headers", limit=most)
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or not _FIELD_NAME.fullmatch(name) or re.search(rb"[\r\n\0]", value):
            raise BadRequest("a header line of a part is malformed")
        key = name.decode("ascii").lower()
        if key in _SINGLE and key in headers:
            raise BadRequest(f"a part has more than one {key}")
        headers[key] = value.decode("utf-8", "replace").strip(" \t")
    return headers


def _unfold(lines: list[bytes]) -> list[bytes]:
    """Joins lines that an obsolete folding (RFC 5322 §2.2.3) has split."""
    unfolded: list[bytes] = []
    for line in lines:
        if line[:1] not in (b" ", b"\t"):
            unfolded.append(line)
        elif unfolded:
            unfolded[-1] += b" " + line.lstrip(b" \t")
        else:
            raise BadRequest("a part's first header line is a continuation")
    return unfolded


def _refuse_encoded(headers: Mapping[str, str]) -> None:
    """Raises BadType for bytes that are not the file's own (RFC 7578 §4.7 deprecates the encodings)."""
    encoding = headers.get("content-transfer-encoding", "binary").lower()
    if encoding not in ("7bit", "8bit", "binary"):
        raise BadType("a part has a Content-Transfer-Encoding other than 7bit, 8bit or binary; send it as it is")
