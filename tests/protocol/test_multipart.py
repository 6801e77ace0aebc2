"""The vectors of `vectors/multipart`, fed in every way a network can cut them.

A vector that expects BadRequest is content with CutOff, its subclass: for many broken bodies the end is where it shows.
Every other error must be exactly the one that is named.
"""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import multipart as defnull
import pytest
import python_multipart
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from python_multipart.multipart import parse_options_header

from spool.errors import BadRequest, BadType, CutOff, SpoolError, TooLarge
from spool.protocol.multipart import Limits, Parser, PartBegin, PartData, PartEnd

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Vector = dict[str, Any]  # as README.md in the folder of the vectors describes it
ERRORS: dict[str, tuple[type[SpoolError], ...]] = {
    "BadRequest": (BadRequest, CutOff),
    "CutOff": (CutOff,),
    "TooLarge": (TooLarge,),
    "BadType": (BadType,),
}
LIMITS = Limits(parts=1000, headers=32, header_bytes=16 * 1024)
SEEDS = range(5)
SMALL = 4096


class Part(NamedTuple):
    name: str
    filename: str | None
    media_type: str | None
    data: bytes


Event = PartBegin | PartData | PartEnd
Outcome = list[Part] | type[SpoolError]


# Reading the vectors


def load() -> list[Vector]:
    folder = Path(__file__).parent / "vectors" / "multipart"
    return [vector for file in sorted(folder.glob("*.json")) for vector in json.loads(file.read_text("utf-8"))]


def expand(pieces: Any) -> Iterator[Any]:
    for piece in pieces if isinstance(pieces, list) else [pieces]:
        if isinstance(piece, dict) and "repeat" in piece:
            item, times = piece["repeat"]
            yield from [item] * times
        else:
            yield piece


def to_bytes(pieces: Any) -> bytes:
    return "".join(expand(pieces)).encode("latin-1")


def expected_parts(vector: Vector) -> list[Part]:
    return [
        Part(part["name"], part["filename"], part["media_type"], to_bytes(part["data"]))
        for part in expand(vector["parts"])
    ]


def limits_of(vector: Vector) -> Limits:
    return Limits(**vector["limits"]) if "limits" in vector else LIMITS


VECTORS = load()
VALID = [vector for vector in VECTORS if "parts" in vector]
BROKEN = [vector for vector in VECTORS if "error" in vector]


def each(vectors: list[Vector]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("vector", vectors, ids=[vector["name"] for vector in vectors])


# Feeding the parser


def assemble(events: Iterable[Event]) -> list[Part]:
    """The parts that events tell of; they must come as begin, any number of data, end."""
    parts: list[Part] = []
    begun: PartBegin | None = None
    data = b""
    for event in events:
        match event:
            case PartBegin():
                assert begun is None
                begun, data = event, b""
            case PartData():
                assert begun is not None
                data += event.data
            case PartEnd():
                assert begun is not None
                parts.append(Part(begun.name, begun.filename, begun.media_type, data))
                begun = None
    assert begun is None
    return parts


def feed_all(parser: Parser, pieces: Iterable[bytes]) -> list[Event]:
    return [event for piece in pieces for event in parser.feed(piece)]


def parse(boundary: str, pieces: Iterable[bytes], limits: Limits = LIMITS) -> list[Part]:
    parser = Parser(boundary, limits)
    events = feed_all(parser, pieces)
    parser.close()
    return assemble(events)


def outcome(boundary: str, pieces: Iterable[bytes], limits: Limits = LIMITS) -> Outcome:
    try:
        return parse(boundary, pieces, limits)
    except SpoolError as error:
        return type(error)


def check(vector: Vector, pieces: Iterable[bytes]) -> None:
    result = outcome(vector["boundary"], pieces, limits_of(vector))
    if "error" in vector:
        assert result in ERRORS[vector["error"]]
    else:
        assert result == expected_parts(vector)


def single_bytes(body: bytes) -> list[bytes]:
    return [body[i : i + 1] for i in range(len(body))]


def random_pieces(body: bytes, seed: int) -> list[bytes]:
    """Pieces of 0 to some bytes: small ones for small bodies, so that every body is cut a few dozen times."""
    dice = random.Random(seed)
    longest = max(3, len(body) // 20)
    pieces, start = [], 0
    while start < len(body):
        end = start + dice.randint(0, longest)
        pieces.append(body[start:end])
        start = end
    return pieces


# The vectors themselves


def test_vectors_are_well_formed() -> None:
    names = [vector["name"] for vector in VECTORS]
    assert len(names) == len(set(names)) >= 120
    for vector in VECTORS:
        assert {"name", "source", "boundary", "body"} <= vector.keys()
        assert ("parts" in vector) != ("error" in vector)
        assert vector.get("error", "BadRequest") in ERRORS
        assert vector.keys() <= {"name", "source", "boundary", "limits", "body", "parts", "error", "differs"}
        assert "differs" not in vector or ("parts" in vector and vector["differs"].keys() <= OTHERS.keys())


@each(VECTORS)
def test_vector_in_one_piece(vector: Vector) -> None:
    check(vector, [to_bytes(vector["body"])])


@each(VECTORS)
def test_vector_byte_by_byte(vector: Vector) -> None:
    check(vector, single_bytes(to_bytes(vector["body"])))


@pytest.mark.parametrize("seed", SEEDS)
@each(VECTORS)
def test_vector_in_random_pieces(vector: Vector, seed: int) -> None:
    check(vector, random_pieces(to_bytes(vector["body"]), seed))


@each([vector for vector in VECTORS if len(to_bytes(vector["body"])) <= SMALL])
def test_vector_split_in_two_anywhere(vector: Vector) -> None:
    body = to_bytes(vector["body"])
    for offset in range(len(body) + 1):
        check(vector, [body[:offset], body[offset:]])


@each([vector for vector in VALID if len(to_bytes(vector["body"])) <= SMALL])
def test_valid_body_cut_anywhere_is_cut_off(vector: Vector) -> None:
    """Before the last dash of the closing delimiter nothing is a form; from there on it is, and always the same one."""
    body, limits = to_bytes(vector["body"]), limits_of(vector)
    results = [outcome(vector["boundary"], [body[:length]], limits) for length in range(len(body) + 1)]
    complete = results.index(expected_parts(vector))
    assert results == [CutOff] * complete + [results[-1]] * (len(body) + 1 - complete)
    assert body[:complete].endswith(b"--%s--" % vector["boundary"].encode())


# Promises beyond the vectors

FILE = b'--boundary\r\nContent-Disposition: form-data; name="a"; filename="f"\r\n\r\n'
GROUP = FILE.replace(b'; filename="f"\r\n', b"\r\nContent-Type: multipart/mixed; boundary=boundnot\r\n")
FILE_OF_GROUP = b'--boundnot\r\nContent-Disposition: file; filename="f"\r\n\r\n'


@pytest.mark.parametrize("size", [1, 7, 1000, 65536])
@pytest.mark.parametrize(
    "pattern",
    [b"x", b"\r", b"\n", b"\r\n", b"-", b"\r\n--", b"\r\n--boundar", b"\r\n--boundary-", b"\r\n--boundary \t."],
    ids=["letters", "cr", "lf", "crlf", "dash", "crlf-dashes", "nearly", "nearly-closed", "nearly-padded"],
)
@pytest.mark.parametrize(
    ("head", "held"), [(FILE, 8 + 90), (GROUP + FILE_OF_GROUP, 2 * (8 + 90))], ids=["file", "group"]
)
def test_data_is_passed_on_promptly(head: bytes, held: int, pattern: bytes, size: int) -> None:
    parser = Parser("boundary", LIMITS)
    feed_all(parser, [head])
    data = pattern * (20_000 // len(pattern))
    emitted = b""
    for start in range(0, len(data), size):
        events = parser.feed(data[start : start + size])
        emitted += b"".join(event.data for event in events if isinstance(event, PartData))
        assert len(emitted) >= min(start + size, len(data)) - held
        assert data.startswith(emitted)


def test_part_begins_before_its_data_arrives() -> None:
    assert feed_all(Parser("boundary", LIMITS), [FILE])[:1] == [PartBegin("a", "f", None)]


def test_limit_is_enforced_before_the_line_ends() -> None:
    parser = Parser("sep", Limits(parts=10, headers=10, header_bytes=256))
    with pytest.raises(TooLarge):
        feed_all(parser, [b"--sep\r\nX: ", *[b"v"] * 600])


def test_preamble_is_bounded_before_the_body_ends() -> None:
    parser = Parser("sep", LIMITS)
    with pytest.raises(BadRequest):
        feed_all(parser, [b"preamble" * 128] * 100)


@pytest.mark.parametrize("size", [17, 100, 1000, 100_000])
def test_long_padding_means_the_same_however_it_is_split(size: int) -> None:
    """Padding beyond the bound may be refused or be data, but not be one in this piece and the other in that."""
    head = b'--sep\r\nContent-Disposition: form-data; name="a"\r\n\r\n'
    body = head + b"1\r\n--sep" + b" " * size + b"\r\n" + head[7:] + b"2\r\n--sep--\r\n"
    whole = outcome("sep", [body])
    data = body[len(head) : -len(b"\r\n--sep--\r\n")]
    assert whole in (
        BadRequest,
        [Part("a", None, None, data)],
        [Part("a", None, None, b"1"), Part("a", None, None, b"2")],
    )
    assert outcome("sep", single_bytes(body)) == whole
    assert all(outcome("sep", random_pieces(body, seed)) == whole for seed in SEEDS)


# Random forms

BCHARS = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ'()+_,-./:=?"
boundaries = st.one_of(
    st.text("-a", min_size=1, max_size=6),
    st.text(BCHARS + " ", min_size=1, max_size=70).filter(lambda text: not text.endswith(" ")),
)
# What encodings cannot tell apart is left out: a literal %22, and what looks like a path of Windows.
names = st.text(st.characters(exclude_categories=["Cc", "Cs"]) | st.sampled_from('"\\;=%\r\n'), max_size=20).filter(
    lambda name: not re.search(r"%(22|0[ADad])|^\\|^[A-Za-z]:\\", name)
)


def quoted(name: str, quote: str) -> bytes:
    text = name.replace("\\", "\\\\").replace('"', quote).replace("\r", "%0D").replace("\n", "%0A")
    return f'"{text}"'.encode()


@st.composite
def payloads(draw: st.DrawFn, boundary: str) -> bytes:
    delimiter = b"\r\n--" + boundary.encode()
    fragments = st.integers(0, len(delimiter)).map(lambda length: delimiter[:length])
    tokens = st.sampled_from([b"\r", b"\n", b"-", b"--", b"\r\n", b" ", b"\t", delimiter, delimiter[2:]])
    data = b"".join(draw(st.lists(tokens | fragments | st.binary(max_size=5), max_size=12)))
    # Legal where the first delimiter seen from the blank line on is the one that ends the part.
    end = re.search(rb"\r\n--%s(?:[ \t]*\r\n|--)" % re.escape(boundary.encode()), b"\r\n" + data + delimiter + b"--")
    return data if end is not None and end.start() == len(data) + 2 else data.replace(b"-", b"+")


@st.composite
def forms(draw: st.DrawFn) -> tuple[str, bytes, list[Part]]:
    boundary = draw(boundaries)
    quote = draw(st.sampled_from(['\\"', "%22"]))
    body, parts = b"", []
    for _ in range(draw(st.integers(0, 4))):
        name, data = draw(names), draw(payloads(boundary))
        filename, media_type = draw(st.none() | names), draw(st.sampled_from([None, "text/plain", "image/x-a+b"]))
        body += b"--%s\r\nContent-Disposition: form-data; name=%s" % (boundary.encode(), quoted(name, quote))
        body += b"" if filename is None else b"; filename=" + quoted(filename, quote)
        body += b"" if media_type is None else b"\r\nContent-Type: " + media_type.encode()
        body += b"\r\n\r\n" + data + b"\r\n"
        parts.append(Part(name, filename, media_type, data))
    return boundary, body + b"--%s--\r\n" % boundary.encode(), parts


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(form=forms(), seed=st.integers(0, 2**32))
def test_encoded_form_comes_back(form: tuple[str, bytes, list[Part]], seed: int) -> None:
    boundary, body, parts = form
    assert parse(boundary, [body]) == parts
    assert parse(boundary, random_pieces(body, seed)) == parts
    assert parse(boundary, single_bytes(body)) == parts


SOUP = [
    b"--sep", b"\r\n--sep", b"\r\n", b"\r", b"\n", b"--", b" ", b"x", b":", b"\0", b"--in", b"\r\n--in",
    b'Content-Disposition: form-data; name="a"', b'Content-Disposition: file; filename="f"',
    b"Content-Type: multipart/mixed; boundary=in", b"Content-Transfer-Encoding: base64", b"\r\n\r\n", b"\r\n--sep--",
]  # fmt: skip


@settings(max_examples=500, deadline=None)
@given(soup=st.lists(st.sampled_from(SOUP), max_size=25), seed=st.integers(0, 2**32))
def test_any_bytes_mean_the_same_however_they_are_split(soup: list[bytes], seed: int) -> None:
    body = b'--sep\r\nContent-Disposition: form-data; name="a"\r\n' + b"".join(soup)
    whole = outcome("sep", [body])
    assert outcome("sep", random_pieces(body, seed)) == whole
    assert outcome("sep", single_bytes(body)) == whole


# Other parsers


def parse_with_defnull(boundary: str, body: bytes) -> list[tuple[str, bytes]]:
    big = 1 << 20
    parser = defnull.PushMultipartParser(boundary, max_header_size=big, max_header_count=big, strict=False)
    parts: list[tuple[str, bytes]] = []
    with parser:
        for event in parser.parse(body):
            if isinstance(event, defnull.MultipartSegment):
                parts.append((event.name or "", b""))
            elif event:
                parts[-1] = (parts[-1][0], parts[-1][1] + event)
    return parts


def parse_with_python_multipart(boundary: str, body: bytes) -> list[tuple[str, bytes]]:
    parts: list[tuple[str, bytes]] = []
    field, value, name, data = bytearray(), bytearray(), bytearray(), bytearray()

    def on_header_end() -> None:
        if field.lower() == b"content-disposition":
            name[:] = parse_options_header(bytes(value))[1].get(b"name", b"")
        field.clear()
        value.clear()

    def on_part_end() -> None:
        parts.append((name.decode("utf-8", "replace"), bytes(data)))
        name.clear()
        data.clear()

    big = 1 << 20
    parser = python_multipart.MultipartParser(
        boundary,
        {
            "on_header_field": lambda piece, start, end: field.extend(piece[start:end]),
            "on_header_value": lambda piece, start, end: value.extend(piece[start:end]),
            "on_header_end": on_header_end,
            "on_part_data": lambda piece, start, end: data.extend(piece[start:end]),
            "on_part_end": on_part_end,
        },
        max_header_count=big,
        max_header_size=big,
    )
    parser.write(body)
    parser.finalize()
    return parts


OTHERS = {"multipart": parse_with_defnull, "python-multipart": parse_with_python_multipart}
REFUSALS = (defnull.MultipartError, python_multipart.exceptions.FormParserError)


@pytest.mark.parametrize("other", OTHERS)
@each(VALID)
def test_other_parser_agrees_or_differs_as_noted(vector: Vector, other: str) -> None:
    wanted = [(part.name, part.data) for part in expected_parts(vector)]
    try:
        found: object = OTHERS[other](vector["boundary"], to_bytes(vector["body"]))
    except REFUSALS as error:
        found = error
    if other in vector.get("differs", {}):
        assert found != wanted
    else:
        assert found == wanted
