"""The vectors of `vectors/tus`, and what holds for heads that nobody thought of."""

from __future__ import annotations

import base64
import json
import re
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spool import errors
from spool.errors import BadRequest, ChecksumMismatch, SpoolError
from spool.model import Intent, Key, Resumable, Staged, UploadId
from spool.protocol.disposition import clean_filename
from spool.protocol.resumable import (
    Append,
    Cancel,
    Checksum,
    Command,
    Create,
    Discover,
    Head,
    Inspect,
    Limits,
    ResponseHead,
    Result,
)
from spool.protocol.tus import Tus

if TYPE_CHECKING:
    from collections.abc import Callable

Json = dict[str, Any]  # as README.md in the folder of the vectors describes it
ID = UploadId("24e533e02ec3bc40c387f1a0e460e216")
TUS = Tus(Limits(max_size=1024**3, max_age=86400))
COMMANDS: dict[str, Callable[..., Command]] = {
    command.__name__: command for command in (Discover, Create, Append, Inspect, Cancel)
}
FOLDER = Path(__file__).parent / "vectors" / "tus"
SCENARIOS = {file.stem: json.loads(file.read_text("utf-8")) for file in sorted(FOLDER.glob("*.json"))}
EXCHANGES = {
    f"{name}-{number}": exchange
    for name, scenario in SCENARIOS.items()
    for number, exchange in enumerate(scenario["exchanges"], 1)
}
MEMBERS = {"request", "command", "error", "trailer", "raised", "forbids", "result", "response"}


def each(exchanges: dict[str, Json]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("exchange", exchanges.values(), ids=exchanges.keys())


# Reading the vectors


def to_head(request: Json) -> Head:
    return Head(request["method"], request["headers"], request["content_length"], request["has_body"])


def to_id(request: Json) -> UploadId | None:
    return {"upload": ID, "collection": None}[request["at"]]


def to_time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def to_checksum(checksum: Json | None) -> Checksum | None:
    if checksum is None:
        return None
    return Checksum(checksum["algorithm"], bytes.fromhex(checksum["digest"]), ChecksumMismatch)


def to_intent(intent: Json) -> Intent:
    digests = {name: bytes.fromhex(digest) for name, digest in intent.get("digests", {}).items()}
    return Intent(**{**intent, "digests": digests, "expires_at": to_time(intent.get("expires_at"))})


READERS: dict[str, Callable[[Any], object]] = {"intent": to_intent, "checksum": to_checksum, "parts": tuple}


def to_command(command: Json | None) -> Command | None:
    if command is None:
        return None
    [(name, fields)] = command.items()
    return COMMANDS[name](**{field: READERS[field](v) if field in READERS else v for field, v in fields.items()})


def to_error(name: str) -> type[SpoolError]:
    error: type[SpoolError] = getattr(errors, name)
    assert issubclass(error, SpoolError)
    return error


def to_upload(upload: Json) -> Resumable:
    return Resumable(
        id=ID,
        key=Key("00/key"),
        owner="somebody",
        dialect="tus",
        intent=Intent("unnamed", size=upload["length"]),
        notes=upload.get("notes", {}),
        partial=upload.get("partial", False),
        created_at=datetime(2026, 11, 25, 10, tzinfo=UTC),
        expires_at=to_time(upload.get("expires_at")) or datetime(2026, 11, 26, 10, tzinfo=UTC),
        staged=Staged(upload["offset"]),
        state=upload["state"],
        epoch=1,
        media_type=None,
        file_id=None,
    )


def to_result(result: Json) -> Result:
    return Result(**{**result, "upload": to_upload(result["upload"])}) if result else Result()


def answer(exchange: Json, command: Command) -> ResponseHead:
    """The answer, as a driver comes by it."""
    result = to_result(exchange.get("result", {}))
    if "raised" in exchange:
        return TUS.refuse(to_error(exchange["raised"])("it failed"), result)
    if "forbids" not in exchange:
        return TUS.reply(command, result)
    with pytest.raises(SpoolError) as caught:
        TUS.reply(command, result)
    assert type(caught.value) is to_error(exchange["forbids"])
    return TUS.refuse(caught.value, result)


def check_response(exchange: Json, response: ResponseHead) -> None:
    assert response == ResponseHead(exchange["response"]["status"], exchange["response"]["headers"])


# The vectors themselves


def test_vectors_are_well_formed() -> None:
    assert len(SCENARIOS) >= 60
    for scenario in SCENARIOS.values():
        assert scenario.keys() == {"source", "exchanges"}
        assert scenario["exchanges"]
        for exchange in scenario["exchanges"]:
            assert exchange.keys() <= MEMBERS
            assert ("command" in exchange) != ("error" in exchange)
            assert not exchange.keys() & {"raised", "forbids", "result", "error"} or "response" in exchange


@each(EXCHANGES)
def test_vector(exchange: Json) -> None:
    head, upload = to_head(exchange["request"]), to_id(exchange["request"])
    if "error" in exchange:
        with pytest.raises(SpoolError) as caught:
            TUS.parse(head, upload)
        assert type(caught.value) is to_error(exchange["error"])
        check_response(exchange, TUS.refuse(caught.value, Result()))
        return
    command = TUS.parse(head, upload)
    assert command == to_command(exchange["command"])
    if "response" in exchange:
        assert command is not None
        check_response(exchange, answer(exchange, command))


@each({name: exchange for name, exchange in EXCHANGES.items() if "trailer" in exchange})
def test_trailer_of_vector(exchange: Json) -> None:
    trailer = exchange["trailer"]
    if "checksum" in trailer:
        assert TUS.parse_trailer(trailer["headers"]) == to_checksum(trailer["checksum"])
        return
    with pytest.raises(SpoolError) as caught:
        TUS.parse_trailer(trailer["headers"])
    assert type(caught.value) is to_error(trailer["error"])


# Promises beyond the vectors

FIELDS = [
    "tus-resumable",
    "x-http-method-override",
    "content-type",
    "trailer",
    "upload-offset",
    "upload-length",
    "upload-defer-length",
    "upload-metadata",
    "upload-checksum",
    "upload-concat",
]
fragments = st.sampled_from(
    [
        "1",
        "final;",
        "partial",
        "/a",
        " ",
        ",",
        "=",
        "sha1",
        "md5",
        "sha256",
        "expires_at",
        "name",
        "YQ==",
        "\t",
        "PATCH",
    ]
)
values = st.one_of(
    st.text(),
    st.text(st.characters()),  # surrogates too: undecodable bytes arrive as such
    st.lists(fragments | st.text(max_size=2), max_size=8).map("".join),
    st.sampled_from(["1.0.0", "100", "1", "application/offset+octet-stream", "Upload-Checksum", "partial"]),
)
heads = st.builds(
    Head,
    st.sampled_from(["OPTIONS", "GET", "HEAD", "POST", "PATCH", "DELETE", "PUT"]) | st.text(max_size=5),
    st.dictionaries(st.sampled_from(FIELDS), values).map(lambda headers: {"tus-resumable": "1.0.0", **headers}),
    st.none() | st.integers(0, 2**64),
    st.booleans(),
)


def sound(response: ResponseHead) -> bool:
    """Whether the answer can be sent: its headers are one line of ASCII each."""
    return all(re.fullmatch(r"[\t\x20-\x7e]*", value) for value in response.headers.values())


@given(heads, st.sampled_from([None, ID]))
def test_any_head_is_a_command_or_refused(head: Head, id: UploadId | None) -> None:
    try:
        command = TUS.parse(head, id)
    except SpoolError as error:
        response = TUS.refuse(error, Result())
        assert response.status >= 400
        assert sound(response)
        return
    if isinstance(command, Create):
        upload = to_upload({"length": 100, "offset": 0, "state": "open", "notes": command.notes})
        response = TUS.reply(Inspect(ID), Result(upload=upload, location="https://spool.example/tus/id"))
        assert sound(response)
        told = {name.lower(): value for name, value in response.headers.items()}
        assert {name: told.get(name) for name in command.notes} == command.notes


@given(st.dictionaries(st.sampled_from(["upload-checksum", "expires"]), values))
def test_any_trailer_is_a_checksum_or_refused(headers: dict[str, str]) -> None:
    try:
        checksum = TUS.parse_trailer(headers)
    except SpoolError:
        return
    assert checksum is not None


def encode(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def created(metadata: dict[str, str]) -> Intent:
    value = ",".join(f"{key} {encode(text)}" for key, text in metadata.items())
    headers = {"tus-resumable": "1.0.0", "upload-length": "1", "upload-metadata": value}
    command = TUS.parse(Head("POST", headers, 0, has_body=False), None)
    assert isinstance(command, Create)
    return command.intent


keys = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters=","), min_size=1)
MEANT = {"filename", "name", "filetype", "type", "sha256", "expires_at"}


@given(st.dictionaries(keys.filter(lambda key: key not in MEANT), st.text()), st.text())
def test_metadata_arrives_as_it_was_sent(metadata: dict[str, str], filename: str) -> None:
    intent = created({**metadata, "filename": filename})
    assert intent.metadata == metadata
    assert intent.filename == clean_filename(filename)


offsets = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@given(st.datetimes(timezones=offsets))
def test_expiry_is_the_same_moment_in_any_zone(moment: datetime) -> None:
    try:
        told = created({"expires_at": moment.isoformat()}).expires_at
    except BadRequest:  # a moment before the first year or after the last one, in UTC
        assert moment.year in (1, 9999)
        return
    assert told == moment
    assert told is not None
    assert told.tzinfo is UTC


@pytest.mark.parametrize(
    "error",
    [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and hasattr(kind, "slug") and kind is not errors.RateLimited  # which comes before
    ],
)
def test_refusal_carries_the_version_and_no_status_that_clients_give_up_at(error: type[SpoolError]) -> None:
    upload = to_upload({"length": 100, "offset": 70, "state": "open"})
    response = TUS.refuse(error("it failed"), Result(upload=upload, location="https://spool.example/tus/id"))
    assert response.headers["Tus-Resumable"] == "1.0.0"
    assert response.status not in (408, 429)
    assert ("Upload-Offset" in response.headers) == (error is errors.OffsetMismatch)
