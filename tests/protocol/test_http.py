"""The vectors of `vectors/http`, and what must hold for anything a client may send.

A vector's `source` is where its rule comes from. An expectation of null is a field that is ignored, or cannot be read.
"""

from __future__ import annotations

import hashlib
import json
import re
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from email.parser import BytesParser
from pathlib import Path
from time import process_time
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import unquote_to_bytes

import http_sf
import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from spool.errors import BadRequest, PreconditionFailed, TooLarge, Unsatisfiable
from spool.protocol.http import (
    Span,
    Validators,
    byteranges,
    content_disposition,
    evaluate,
    format_content_range,
    format_digest,
    format_http_date,
    if_range_holds,
    is_host,
    parse_declared_type,
    parse_digests,
    parse_http_date,
    parse_idempotency_key,
    parse_media_type,
    parse_range,
    prefers_text,
    problem_document,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Vector = dict[str, Any]
Member = tuple[int, int | None] | int
"""A range of a set: its first and last position, or, alone, the length of a suffix."""

VALIDATORS = Validators("xyzzy", datetime(1994, 10, 29, 19, 43, 31, 999_999, tzinfo=UTC))
LAST_MODIFIED = "Sat, 29 Oct 1994 19:43:31 GMT"
HELLO = b'{"hello": "world"}\n'
SHA256 = "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:"
SHA512 = (
    "sha-512=:YMAam51Jz/jOATT6/zvHrLVgOYTGFy1d6GJiOHTohq4yP+pgk4vf2aCsyRZOtw8MjkM7iw7yZ/WkppmM44T3qg==:"  # RFC 9530 §B
)
SECONDS = 1.0
"""Of processor time for 50,000 characters. Reading them once takes a hundredth of it, once for each more than ten."""

anything = st.text(st.characters(exclude_categories=()))
"""Lone surrogates too."""
fragments = st.lists(
    st.sampled_from(["bytes", "=", "-", ",", " ", "\t", ";", '"', "\\", "/", "*", "W/", "q", ":", "(", ")", "?1", "@9"])
    | st.sampled_from(["0", "9" * 5000, "1.5", "sha-256", "sha-512", "AAAA", "a", "text/plain", "é", "\ud800", "\0"]),
    max_size=12,
).map("".join)
"""Texts of which a good part is nearly right."""
tags = st.text(st.characters(codec="ascii", exclude_characters='" \x7f', min_codepoint=0x21))
words = st.text("abcXYZ0189-_.!", min_size=1)


def each(file: str) -> pytest.MarkDecorator:
    vectors = json.loads((Path(__file__).parent / "vectors" / "http" / file).read_text("utf-8"))
    return pytest.mark.parametrize("vector", vectors, ids=[vector["name"] for vector in vectors])


# Ranges


@each("ranges.json")
def test_range_gives_its_spans(vector: Vector) -> None:
    if vector["spans"] != "unsatisfiable":
        expected = vector["spans"] and [Span(*span) for span in vector["spans"]]
        assert parse_range(vector["range"], vector["size"]) == expected
        return
    with pytest.raises(Unsatisfiable) as caught:
        parse_range(vector["range"], vector["size"])
    assert caught.value.members == {"size": vector["size"]}


def test_range_of_thousands_of_digits_does_not_overflow() -> None:
    nines = "9" * 5000
    assert parse_range(f"bytes=1-{nines}", 10) == [Span(1, 9)]
    assert parse_range(f"bytes=-{nines}", 10) == [Span(0, 10)]
    with pytest.raises(Unsatisfiable):
        parse_range(f"bytes={nines}-{nines}", 10)


def write(member: Member) -> str:
    if isinstance(member, int):
        return f"-{member}"
    first, last = member
    return f"{first}-{'' if last is None else last}"


def cut(data: Sequence[int], member: Member) -> Sequence[int]:
    if isinstance(member, int):
        return data[-member:] if member else []
    first, last = member
    return data[first:] if last is None else data[first : last + 1]


positions = st.integers(0, 60)
ordered = st.tuples(positions, positions).map(lambda pair: (min(pair), max(pair)))
members = st.lists(positions | st.tuples(positions, st.none()) | ordered, min_size=1, max_size=10)


@given(members, st.integers(1, 50), st.sampled_from([",", ", ", " ,\t", ",,"]))
def test_range_gives_the_bytes_that_slices_give(members: list[Member], size: int, comma: str) -> None:
    wanted = [part for member in members if (part := cut(range(size), member))]
    value = "bytes=" + comma.join(write(member) for member in members)
    if not wanted:
        with pytest.raises(Unsatisfiable):
            parse_range(value, size)
        return
    spans = parse_range(value, size)
    if sum(map(len, wanted)) > size:
        assert spans is None
    else:
        assert spans == [Span(part[0], len(part)) for part in wanted]


@given((anything | fragments).map("bytes={}".format) | fragments, st.integers(0, 2**50))
def test_range_of_any_text_stays_within_the_file(value: str, size: int) -> None:
    try:
        spans = parse_range(value, size)
    except Unsatisfiable:
        return
    for span in spans or []:
        assert 0 <= span.start < span.start + span.length <= size
    assert sum(span.length for span in spans or []) <= size
    assert len(spans or []) <= 10


def test_content_range_names_first_last_and_size() -> None:
    assert format_content_range(Span(42, 1192), 1234) == "bytes 42-1233/1234"
    assert format_content_range(Span(0, 1), 1) == "bytes 0-0/1"


def test_byteranges_are_framed_as_in_the_rfc() -> None:
    heads, tail = byteranges([Span(500, 500), Span(7000, 1000)], 8000, "application/pdf", "THIS_STRING_SEPARATES")
    assert heads == [
        b"\r\n--THIS_STRING_SEPARATES\r\nContent-Type: application/pdf\r\nContent-Range: bytes 500-999/8000\r\n\r\n",
        b"\r\n--THIS_STRING_SEPARATES\r\nContent-Type: application/pdf\r\nContent-Range: bytes 7000-7999/8000\r\n\r\n",
    ]
    assert tail == b"\r\n--THIS_STRING_SEPARATES--\r\n"


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(1, 56)).map(lambda pair: Span(*pair)), min_size=1))
def test_byteranges_are_read_back_by_a_mime_parser(spans: list[Span]) -> None:
    data = bytes(range(32, 127)) * 3
    heads, tail = byteranges(spans, 256, "text/plain", "sep")
    body = b"".join(head + data[s.start : s.start + s.length] for head, s in zip(heads, spans, strict=True)) + tail
    message = BytesParser().parsebytes(b"Content-Type: multipart/byteranges; boundary=sep\r\n\r\n" + body)
    parts = list(message.walk())[1:]
    assert not message.defects
    assert [part.get_payload(decode=True) for part in parts] == [data[s.start : s.start + s.length] for s in spans]
    assert [part["Content-Range"] for part in parts] == [format_content_range(span, 256) for span in spans]


# Conditions


@each("conditions.json")
def test_condition_has_its_outcome(vector: Vector) -> None:
    headers = CIMultiDictProxy(CIMultiDict({name.lower(): value for name, value in vector["headers"].items()}))
    if vector["outcome"] == "failed":
        with pytest.raises(PreconditionFailed):
            evaluate(vector["method"], headers, VALIDATORS)
    else:
        assert evaluate(vector["method"], headers, VALIDATORS) is (vector["outcome"] == "not-modified")


@given(
    st.lists(tags | st.just("xyzzy")),
    tags | st.just("xyzzy"),
    st.sampled_from([",", ", ", " ,\t", ", ,"]),
    st.sampled_from(["", "W/"]),
)
def test_tag_is_found_in_a_list_if_it_is_there(listed: list[str], etag: str, comma: str, weak: str) -> None:
    value = comma.join(f'{weak}"{tag}"' for tag in listed)
    validators = Validators(etag, VALIDATORS.last_modified)
    assert evaluate("GET", {"If-None-Match": value}, validators) is (etag in listed)
    if etag in listed and not weak:
        assert evaluate("GET", {"If-Match": value}, validators) is False
    else:
        with pytest.raises(PreconditionFailed):
            evaluate("GET", {"If-Match": value}, validators)


@given(
    st.sampled_from(["GET", "HEAD", "PATCH", "DELETE"]),
    st.dictionaries(
        st.sampled_from(["If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since"]),
        anything | fragments | st.just(LAST_MODIFIED),
    ),
)
def test_condition_of_any_text_holds_or_fails(method: str, headers: dict[str, str]) -> None:
    try:
        not_modified = evaluate(method, headers, VALIDATORS)
    except PreconditionFailed:
        assert headers.keys() & {"If-Match", "If-None-Match", "If-Unmodified-Since"}
        return
    assert not_modified in (True, False)
    assert method in ("GET", "HEAD") or not not_modified


@pytest.mark.parametrize(
    ("value", "holds"),
    [
        (None, True),
        ('"xyzzy"', True),
        (' "xyzzy"\t', True),
        ('"other"', False),
        ('W/"xyzzy"', False),
        ('"XYZZY"', False),
        ("xyzzy", False),
        ('"other", "xyzzy"', False),
        ('"xyzzy", "xyzzy"', False),
        ("*", False),
        ("", False),
        (LAST_MODIFIED, True),
        ("Saturday, 29-Oct-94 19:43:31 GMT", True),
        ("Sat, 29 Oct 1994 19:43:30 GMT", False),
        ("Sat, 29 Oct 1994 19:43:32 GMT", False),
        ("yesterday", False),
    ],
)
def test_if_range_holds_for_this_version_only(value: str | None, *, holds: bool) -> None:
    assert if_range_holds(value, VALIDATORS) is holds


@given(anything | fragments)
def test_if_range_of_any_text_holds_only_for_the_tag(value: str) -> None:
    assert if_range_holds(value, VALIDATORS) is (value.strip(" \t") == '"xyzzy"')


# Dates


@each("dates.json")
def test_date_is_read(vector: Vector) -> None:
    assert parse_http_date(vector["value"]) == (vector["time"] and datetime.fromisoformat(vector["time"]))


def test_date_is_written_in_gmt() -> None:
    assert format_http_date(datetime(1994, 11, 6, 8, 49, 37, 999_999, tzinfo=UTC)) == "Sun, 06 Nov 1994 08:49:37 GMT"
    east = timezone(timedelta(hours=9, minutes=30))
    assert format_http_date(datetime(1994, 11, 6, 8, 49, 37, tzinfo=east)) == "Sat, 05 Nov 1994 23:19:37 GMT"


@given(st.datetimes(timezones=st.just(UTC)))
def test_date_comes_back_to_the_second(time: datetime) -> None:
    assert parse_http_date(format_http_date(time)) == time.replace(microsecond=0)


@given(anything | st.from_regex(r"\A[A-Z][a-z]{2,8},? [0-9 ]{2}[ -][A-Z][a-z]{2}[ -]\d{2,4} \d\d:\d\d:\d\d GMT\Z"))
def test_date_of_any_text_is_a_whole_second_or_none(value: str) -> None:
    time = parse_http_date(value)
    assert time is None or (time.tzinfo, time.microsecond) == (UTC, 0)


# Content-Disposition


@pytest.mark.parametrize(
    ("filename", "parameters"),
    [
        ("song.mp3", 'filename="song.mp3"'),
        ("a song; live = loud.mp3", 'filename="a song; live = loud.mp3"'),
        ("", 'filename=""'),
        ("€ rates", "filename=\"_ rates\"; filename*=UTF-8''%E2%82%AC%20rates"),
        ("£ and € rates", "filename=\"_ and _ rates\"; filename*=UTF-8''%C2%A3%20and%20%E2%82%AC%20rates"),
        ("😀.webm", "filename=\"_.webm\"; filename*=UTF-8''%F0%9F%98%80.webm"),
        ("50%25.mp3", "filename=\"50_25.mp3\"; filename*=UTF-8''50%2525.mp3"),
        ('say "hi"', "filename=\"say _hi_\"; filename*=UTF-8''say%20%22hi%22"),
        ("back\\slash", "filename=\"back_slash\"; filename*=UTF-8''back%5Cslash"),
        ("a\r\nSet-Cookie: b\x7f", "filename=\"a__Set-Cookie: b_\"; filename*=UTF-8''a%0D%0ASet-Cookie%3A%20b%7F"),
        ("\ud800.mp3", "filename=\"_.mp3\"; filename*=UTF-8''%3F.mp3"),
        ("é!#$&+-.^_`|~*'()%", "filename=\"_!#$&+-.^_`|~*'()_\"; filename*=UTF-8''%C3%A9!#$&+-.^_`|~%2A%27%28%29%25"),
    ],
)
def test_disposition_is_written(filename: str, parameters: str) -> None:
    assert content_disposition("attachment", filename) == f"attachment; {parameters}"


def decode(value: str) -> tuple[str, str, str | None]:
    """Kind, filename and filename* by the grammar of RFC 6266 §4.1 and RFC 8187 §3.2.1, and nothing more lenient."""
    quoted, encoded = r"([ !#$&-\[\]-~]*)", r"((?:[A-Za-z0-9!#$&+.^_`|~-]|%[0-9A-F]{2})*)"
    match = re.fullmatch(rf"(inline|attachment); filename=\"{quoted}\"(?:; filename\*=UTF-8''{encoded})?", value)
    assert match
    return match[1], match[2], None if match[3] is None else unquote_to_bytes(match[3]).decode("utf-8")


@given(st.sampled_from(["inline", "attachment"]), anything)
def test_disposition_of_any_name_is_ascii_and_comes_back(kind: Literal["inline", "attachment"], filename: str) -> None:
    value = content_disposition(kind, filename)
    assert value.isascii()
    assert value.isprintable()
    got, fallback, extended = decode(value)
    assert got == kind
    assert len(fallback) == len(filename)
    assert (fallback if extended is None else extended) == filename.encode("utf-8", "replace").decode("utf-8")


# Digests


@pytest.mark.parametrize(
    ("value", "digests"),
    [
        (SHA256, {"sha-256": hashlib.sha256(HELLO).digest()}),
        (SHA512, {"sha-512": hashlib.sha512(HELLO).digest()}),
        (
            f"{SHA256}, {SHA512}",
            {"sha-256": hashlib.sha256(HELLO).digest(), "sha-512": hashlib.sha512(HELLO).digest()},
        ),
        (f"md5=:AAAA:, {SHA256}, unixsum=1, x=(1 2)", {"sha-256": hashlib.sha256(HELLO).digest()}),
        (f" {SHA256};p=1 ", {"sha-256": hashlib.sha256(HELLO).digest()}),
        ("md5=:AAAA:", {}),
        ("", {}),
    ],
)
def test_digests_are_read(value: str, digests: dict[str, bytes]) -> None:
    assert parse_digests(value) == digests


@pytest.mark.parametrize(
    "value",
    [
        "sha-256=:AAAA:",
        "sha-256=::",
        SHA512.replace("512", "256"),
        SHA256.replace("256", "512"),
        SHA256.replace(":", '"'),
        "sha-256=RK/0qy18MlBSVnWgjwz6lZEWjP",
        "sha-256=1",
        "sha-256",
        f"sha-256=({SHA256.removeprefix('sha-256=')})",
        f"{SHA256},",
        f"{SHA256} {SHA512}",
        f"{SHA256}, sha-512=:!:",
        f"{SHA256}, sha-512=:AAAA:",
        SHA256.upper(),
        ":AAAA:",
        "é",
        "\ud800",
        "x=@99999999999999",
    ],
)
def test_digest_that_cannot_be_read_is_refused(value: str) -> None:
    with pytest.raises(BadRequest):
        parse_digests(value)


def test_digest_is_written_as_in_the_rfc() -> None:
    assert format_digest(hashlib.sha256(HELLO).hexdigest()) == SHA256


@given(st.binary(min_size=32, max_size=32))
def test_digest_comes_back(digest: bytes) -> None:
    assert parse_digests(format_digest(digest.hex())) == {"sha-256": digest}


# Idempotency-Key


@pytest.mark.parametrize(
    ("value", "key"),
    [
        ('"8e03978e-40d5-43dd-bc93-6894a57f9324"', "8e03978e-40d5-43dd-bc93-6894a57f9324"),
        ("8e03978e-40d5-43dd-bc93-6894a57f9324", "8e03978e-40d5-43dd-bc93-6894a57f9324"),
        ('"clkyoesmbgybucifusbbtdsbohtyuuwz"', "clkyoesmbgybucifusbbtdsbohtyuuwz"),
        (" a_b:c/d=1 ", "a_b:c/d=1"),
        ('"a";p=1', "a"),
        ('"a\\"b\\\\c"', 'a"b\\c'),
        ("x" * 255, "x" * 255),
        (f'"{"x" * 255}"', "x" * 255),
    ],
)
def test_idempotency_key_is_read(value: str, key: str) -> None:
    assert parse_idempotency_key(value) == key


@pytest.mark.parametrize(
    "value",
    [
        *("", " ", '""', '"', '"a', '"a"b', '"a", "b"', '"a\\b"', "x" * 256, f'"{"x" * 256}"'),
        *("é", '"é"', "a\tb", "a\n", "a\x7f", "\u00a0a", "a\ud800", '"\ud800"'),
    ],
)
def test_idempotency_key_that_cannot_be_read_is_refused(value: str) -> None:
    with pytest.raises(BadRequest):
        parse_idempotency_key(value)


@given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=255))
def test_idempotency_key_comes_back_from_a_string(key: str) -> None:
    assert parse_idempotency_key(http_sf.ser(key)) == key


# Accept and Content-Type


@each("accept.json")
def test_text_is_preferred_if_it_weighs_more(vector: Vector) -> None:
    assert prefers_text(vector["accept"]) is vector["text"]


@given(anything | fragments)
def test_preference_of_any_text_can_be_told(accept: str) -> None:
    assert prefers_text(accept) in (True, False)


@each("media_types.json")
def test_media_type_is_read(vector: Vector) -> None:
    if vector["parsed"] is None:
        with pytest.raises(BadRequest):
            parse_media_type(vector["value"])
    else:
        assert parse_media_type(vector["value"]) == tuple(vector["parsed"])


@given(words, words, st.lists(st.tuples(words, anything)), st.sampled_from([";", "; ", " ;\t", ";;"]))
def test_media_type_comes_back(kind: str, subtype: str, parameters: list[tuple[str, str]], semicolon: str) -> None:
    expected: dict[str, str] = {}
    value = f"{kind}/{subtype}"
    for name, text in parameters:
        expected.setdefault(name.lower(), text)
        escaped = re.sub(r"([^a-z])", r"\\\1", text)
        value += f'{semicolon}{name}="{escaped}"'
    assert parse_media_type(value) == (f"{kind}/{subtype}".lower(), expected)


@pytest.mark.parametrize("value", [None, "", "text", 'a/b; x="1'])
def test_declared_type_that_cannot_be_read_counts_as_none(value: str | None) -> None:
    assert parse_declared_type(value) == (None, {})


def test_declared_type_is_read_like_any_other() -> None:
    assert parse_declared_type('Text/Plain; Charset="utf-8"') == ("text/plain", {"charset": "utf-8"})


# Whatever a client sends


@pytest.mark.parametrize("parse", [parse_digests, parse_idempotency_key, parse_media_type])
@given(value=anything | fragments | anything.map('"{}"'.format) | fragments.map("a/b;{}".format))
def test_text_is_read_or_refused(parse: Callable[[str], object], value: str) -> None:
    with suppress(BadRequest):
        assert parse(value) is not None


@pytest.mark.parametrize("text", [" ", "\t", ",", ";", '"', "a", "a;", 'a="', "0", "0-,", '"a",', "\\a", "=", "a=,"])
@pytest.mark.parametrize("end", ["", '"', "x", "\0"])
def test_long_text_is_read_once(text: str, end: str) -> None:
    value = text * (50_000 // len(text)) + end
    parsers: list[Callable[[str], object]] = [
        lambda value: parse_range(f"bytes={value}", 100),
        lambda value: evaluate("GET", {"If-None-Match": value, "If-Modified-Since": value}, VALIDATORS),
        lambda value: if_range_holds(value, VALIDATORS),
        parse_http_date,
        parse_digests,
        parse_idempotency_key,
        lambda value: prefers_text(f"text/plain;q={value}"),
        *(lambda value, start=start: parse_media_type(start + value) for start in ("a/b", "a/b;", "a/b;x=", 'a/b;x="')),
    ]
    for parse in parsers:
        start = process_time()
        with suppress(BadRequest, Unsatisfiable):
            parse(value)
        assert process_time() - start < SECONDS


# Problem documents


def test_problem_has_the_members_of_the_rfc_and_its_own() -> None:
    assert problem_document(TooLarge("the file is larger than 5 bytes", limit=5, used_up=["a"])) == {
        "type": "/problems/too-large",
        "title": "Too large",
        "status": 413,
        "detail": "the file is larger than 5 bytes",
        "limit": 5,
        "used_up": ["a"],
    }


def test_problem_names_its_request() -> None:
    document = problem_document(BadRequest("no"), "c0ffee")
    assert document["request_id"] == "c0ffee"
    assert document.keys() == {"type", "title", "status", "detail", "request_id"}


@pytest.mark.parametrize(
    "host", ["localhost", "a-b_c.example:8080", "127.0.0.1", "[::1]:80", "[::ffff:1.2.3.4]", "a:", "a%2db"]
)
def test_host_is_a_name_or_an_address(host: str) -> None:
    assert is_host(host)


@pytest.mark.parametrize(
    "host",
    [
        "",
        ":80",
        "a b",
        "a/b",
        "a?b",
        "a#b",
        "u@a",
        "a\\b",
        "a:b",
        "a:1:2",
        "::1",
        "[::1",
        "[x]",
        "\u212a",
        "\udcff",
        "a\n",
        "<a>",
    ],
)
def test_host_is_nothing_else(host: str) -> None:
    assert not is_host(host)
