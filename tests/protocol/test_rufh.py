"""The vectors of `vectors/rufh`: heads in, commands out; results in, heads out."""

from __future__ import annotations

import json
from dataclasses import MISSING, fields, is_dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spool import errors
from spool.errors import SpoolError
from spool.model import File, FileId, Intent, Key, Resumable, Staged, UploadId
from spool.protocol.resumable import Append, Create, Head, Limits, Result
from spool.protocol.rufh import Rufh, interop_version

Json = Any  # as README.md in the folder of the vectors describes it
FOLDER = Path(__file__).parent / "vectors" / "rufh"
VECTORS: dict[str, Json] = {file.stem: json.loads(file.read_text("utf-8")) for file in sorted(FOLDER.glob("*.json"))}
ID = UploadId("u1")
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
LIMITS = Limits(max_size=1_000_000, max_age=3600)


def having(*members: str) -> list[str]:
    return [name for name, vector in VECTORS.items() if all(member in vector for member in members)]


# Reading the vectors


def dialect_of(vector: Json) -> Rufh:
    return Rufh(Limits(**vector["limits"]) if "limits" in vector else LIMITS)


def head_of(request: Json) -> Head:
    return Head(request["method"], request["headers"], request.get("content_length"), request["has_body"])


def id_of(request: Json) -> UploadId | None:
    return {"collection": None, "upload": ID}[request["at"]]


def result_of(vector: Json) -> Result:
    result = vector.get("result", {})
    upload = an_upload(**result["upload"]) if "upload" in result else None
    return Result(upload, result.get("location"), a_file() if "file_url" in result else None, result.get("file_url"))


def an_upload(*, offset: int, state: Any, length: int | None = None) -> Resumable:
    return Resumable(
        id=ID,
        key=Key("k1"),
        owner="ann",
        dialect="rufh",
        intent=Intent("a.txt", length),
        notes={},
        partial=False,
        created_at=NOON,
        expires_at=NOON,
        staged=Staged(offset),
        state=state,
        epoch=1,
        media_type=None,
        file_id=FileId("f1") if state == "finished" else None,
    )


def a_file() -> File:
    return File(
        id=FileId("f1"),
        key=Key("k1"),
        owner="ann",
        filename="a.txt",
        size=25,
        media_type="text/plain",
        declared_type=None,
        sha256="00" * 32,
        created_at=NOON,
        expires_at=None,
        metadata={},
    )


def error_of(refusal: Json) -> SpoolError:
    error: SpoolError = getattr(errors, refusal["class"])("as it happens", **refusal.get("members", {}))
    return error


def to_json(value: object) -> Json:
    """The members of a dataclass that do not have their default."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, type):
        return value.__name__
    if isinstance(value, dict):
        return {name: to_json(item) for name, item in value.items()}
    if not is_dataclass(value):
        return value
    members = {field.name: getattr(value, field.name) for field in fields(value)}
    for field in fields(value):
        default = field.default if field.default_factory is MISSING else field.default_factory()
        if members[field.name] == default:
            del members[field.name]
    return {name: to_json(member) for name, member in members.items()}


# What the vectors promise


@pytest.mark.parametrize("name", having("command"))
def test_request_asks_for_its_command(name: str) -> None:
    vector = VECTORS[name]
    command = dialect_of(vector).parse(head_of(vector["request"]), id_of(vector["request"]))
    found = None if command is None else {type(command).__name__: to_json(command)}
    assert found == vector["command"]


@pytest.mark.parametrize("name", having("error"))
def test_malformed_request_is_refused(name: str) -> None:
    vector = VECTORS[name]
    with pytest.raises(SpoolError) as refusal:
        dialect_of(vector).parse(head_of(vector["request"]), id_of(vector["request"]))
    assert type(refusal.value).__name__ == vector["error"]


@pytest.mark.parametrize("name", having("response"))
def test_answer_is_worded_as_the_draft_has_it(name: str) -> None:
    vector = VECTORS[name]
    dialect, expected = dialect_of(vector), vector["response"]
    try:
        command = dialect.parse(head_of(vector["request"]), id_of(vector["request"]))
        if "refusal" in vector:
            raise error_of(vector["refusal"])
        assert command is not None
        answer = dialect.reply(command, result_of(vector))
    except SpoolError as error:
        answer = dialect.refuse(error, result_of(vector))
    assert answer.status == expected["status"]
    assert dict(answer.headers) == expected["headers"]
    assert answer.with_record == expected.get("with_record", False)
    assert answer.problem_type == expected.get("problem_type")


@pytest.mark.parametrize("name", having("interim"))
def test_interim_response_is_for_clients_of_a_known_version(name: str) -> None:
    vector = VECTORS[name]
    for item in vector["interim"]:
        told = {"location": item.get("location"), "offset": item.get("offset")}
        assert dialect_of(vector).interim(head_of(vector["request"]), **told) == item["fields"]


def test_vectors_are_of_known_members_only() -> None:
    known = {"source", "limits", "request", "command", "error", "interim", "refusal", "result", "response"}
    for name, vector in VECTORS.items():
        assert vector.keys() <= known, name
        assert ("command" in vector) != ("error" in vector), name
        assert "response" in vector or not vector.keys() & {"refusal", "result"}, name


def test_trailer_section_holds_no_checksum() -> None:
    assert Rufh(LIMITS).parse_trailer({"content-digest": "sha-256=:AAAA:"}) is None


# Whatever a client sends

NAMES = (
    "upload-complete",
    "upload-offset",
    "upload-length",
    "upload-draft-interop-version",
    "content-type",
    "content-disposition",
    "content-encoding",
    "content-digest",
    "repr-digest",
    "content-range",
)
PIECES = ("?1", "?0", "5", "-1", "\udcff", ";a", ",", '"', ":AA:", "sha-256=", "@9999999999999", '%"%ff"', "(", "\x00")
texts = st.one_of(
    st.text(st.characters(), max_size=20),  # surrogates too: what is left of bytes that are no UTF-8
    st.lists(st.sampled_from(PIECES), max_size=5).map("".join),
    st.sampled_from(("?1", "?0", "5", "application/partial-upload", "inline; filename=a", "identity", "8")),
)
heads = st.builds(
    Head,
    st.sampled_from(("POST", "PUT", "PATCH", "HEAD", "GET", "DELETE", "OPTIONS", "QUERY")),
    st.dictionaries(st.sampled_from(NAMES), texts),
    st.none() | st.integers(0, 2**64),
    st.booleans(),
)


@given(heads, st.sampled_from((None, ID)))
def test_any_head_is_read_or_refused(head: Head, id: UploadId | None) -> None:
    try:
        command = Rufh(LIMITS).parse(head, id)
    except SpoolError:
        return
    json.dumps(to_json(command), ensure_ascii=False).encode()  # no lone surrogates, which an index could not store
    assert not isinstance(command, Create | Append) or command.completes is not None


@given(st.dictionaries(st.sampled_from(NAMES), texts))
def test_any_version_is_known_or_none(headers: dict[str, str]) -> None:
    assert interop_version(Head("POST", headers, None, has_body=True)) in (None, 6, 7, 8, 9, 10)


@given(st.integers(0, 10**15 - 1), st.integers(0, 10**9), st.none() | st.integers(0, 10**9))
def test_length_of_an_append_is_what_both_indicators_say(offset: int, size: int, more: int | None) -> None:
    told = {} if more is None else {"upload-length": str(min(offset + more, 10**15 - 1))}
    headers = {"content-type": "application/partial-upload", "upload-offset": str(offset), "upload-complete": "?1"}
    head = Head("PATCH", headers | told, size, has_body=size > 0)
    try:
        command = Rufh(LIMITS).parse(head, ID)
    except errors.InconsistentLength:
        assert told
        assert told["upload-length"] != str(offset + size)
        return
    assert isinstance(command, Append)
    assert command.length == offset + size
    assert not told or told["upload-length"] == str(offset + size)
