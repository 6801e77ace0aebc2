"""Coverage-guided fuzzing of what reads bytes without I/O: `python -m tests.hostile.fuzz_parsers TARGET [OPTION...]`.

Each target is given bytes and must not raise: a SpoolError is an answer, every other exception is a find. The options
are libFuzzer's; see test_parsers.py for how it is run.
"""

from __future__ import annotations

import base64
import sys
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import atheris

with atheris.instrument_imports(include=["spool", "http_sf"], enable_loader_override=False):
    from spool import units
    from spool.errors import BadRequest, SpoolError
    from spool.model import FileQuery, UploadId
    from spool.protocol import http, multipart
    from spool.protocol.disposition import clean_filename, parse_disposition
    from spool.protocol.resumable import Create, Head, Limits, Result
    from spool.protocol.rufh import Rufh, interop_version
    from spool.protocol.tus import Tus
    from spool.store.cursor import _fingerprint, parse_cursor, to_cursor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from spool.protocol.resumable import Dialect

FORM: Final = multipart.Limits(parts=8, headers=4, header_bytes=256)
MOST_KEPT: Final = 64 * 1024 + 1024
"""Bytes that a parser may hold on to: a preamble and a part's headers."""
VALIDATORS: Final = http.Validators("xyzzy", datetime(1994, 10, 29, 19, 43, 31, tzinfo=UTC))
NAMES: Final = ("Range", "If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since", "If-Range")
KINDS: Final = {name: kind for name, kind in vars(units).items() if isinstance(kind, units.Kind)}


def text_of(data: bytes) -> str:
    """As aiohttp reads a header."""
    return data.decode("utf-8", "surrogateescape")


def fuzz_multipart(data: bytes) -> None:
    pieces = [data[at : at + 1] for at in range(len(data))]
    middle = data[0] % len(data) if data else 0
    whole = _parts([data])
    assert whole == _parts([data[:middle], data[middle:]])
    if len(data) < 512:
        assert whole == _parts(pieces)


def _parts(pieces: Sequence[bytes]) -> list[object]:
    """What a form means, however it is cut. A TooLarge may come later than another error, but not instead of parts."""
    parser, seen = multipart.Parser("b", FORM), list[object]()
    try:
        for piece in pieces:
            for event in parser.feed(piece):
                last = seen[-1] if seen else None
                if isinstance(event, multipart.PartData) and isinstance(last, bytes):
                    seen[-1] = last + event.data
                else:
                    seen.append(event.data if isinstance(event, multipart.PartData) else event)
            assert len(parser._buffer) + len(parser._skipped) <= MOST_KEPT + len(piece)
        parser.close()
    except SpoolError as error:
        return [type(error)]
    return seen


def fuzz_disposition(data: bytes) -> None:
    text = text_of(data)
    name = clean_filename(text)
    assert name == clean_filename(name)
    assert 0 < len(name.encode()) <= 255
    for kind in ("inline", "attachment"):
        header = http.content_disposition(kind, name)  # type: ignore[arg-type]
        assert header.isascii()
        assert header.isprintable()
        assert parse_disposition(header) == (kind, None, name)
    clean_filename(parse_disposition(text).filename or "")


def fuzz_fields(data: bytes) -> None:
    """Whatever HTTP has for a value, each to its reader."""
    text = text_of(data)
    for span in _quiet(http.parse_range, text, 1000) or []:
        assert 0 <= span.start < span.start + span.length <= 1000
    for name in NAMES:
        _quiet(http.evaluate, "GET", {name: text}, VALIDATORS)
    http.if_range_holds(text, VALIDATORS)
    http.parse_http_date(text)
    http.prefers_text(text)
    http.parse_declared_type(text)
    http.is_host(text)
    _quiet(http.parse_digests, text)
    key = _quiet(http.parse_idempotency_key, text)
    assert key is None or (key.isascii() and key.isprintable())


def _quiet(read: Callable[..., Any], *args: object) -> Any:
    try:
        return read(*args)
    except SpoolError:
        return None


def fuzz_tus(data: bytes) -> None:
    _fuzz_dialect(Tus(Limits(1000, 60)), data)


def fuzz_rufh(data: bytes) -> None:
    _fuzz_dialect(Rufh(Limits(1000, 60)), data)


def _fuzz_dialect(dialect: Dialect, data: bytes) -> None:
    """The first line has method and place, each other one a field."""
    first, *lines = text_of(data).split("\n")
    method, _, place = first.partition(" ")
    fields = {name.lower(): value.strip(" ") for name, _, value in (line.partition(":") for line in lines)}
    head = Head(method, fields, None if place == "?" else len(place), bool(place))
    interop_version(head)
    try:
        dialect.parse_trailer(fields)
    except SpoolError as error:
        dialect.refuse(error, Result())
    for id_ in (None, UploadId("x")):
        try:
            command = dialect.parse(head, id_)
        except SpoolError as error:
            command, refusal = None, dialect.refuse(error, Result())
        else:
            refusal = None
        assert refusal is None or refusal.status >= 400
        assert not isinstance(command, Create) or command.intent.size is None or command.intent.size >= 0


def fuzz_cursor(data: bytes) -> None:
    """What a cursor is made of, with F for the fingerprint that one of this query has."""
    _quiet(parse_cursor, FileQuery(cursor=text_of(data)))
    for sort in ("created_at", "size", "filename"):
        query = FileQuery(sort=sort)  # type: ignore[arg-type]
        genuine = data.replace(b"F", _fingerprint(query).encode())
        query = replace(query, cursor=base64.urlsafe_b64encode(genuine).decode().rstrip("="))
        try:
            position = parse_cursor(query)
        except BadRequest:
            continue
        assert position is not None
        again = replace(query, cursor=to_cursor(query, position))
        assert parse_cursor(again) == position


def fuzz_units(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    for name, kind in KINDS.items():
        try:
            value = kind.parse(text)
        except ValueError:
            continue
        shown = kind.show(value)
        if name in ("SIZE", "DURATION", "LIFETIME"):
            assert kind.parse(shown.strip('"')) == value, name


TARGETS: Final = {name.removeprefix("fuzz_"): f for name, f in globals().items() if name.startswith("fuzz_")}


def _answer(target: Callable[[bytes], None]) -> Callable[[bytes], None]:
    def run(data: bytes) -> None:
        try:
            target(data)
        except SpoolError:
            return

    return run


if __name__ == "__main__":
    atheris.Setup([sys.argv[0], *sys.argv[2:]], _answer(TARGETS[sys.argv[1]]))
    atheris.Fuzz()
