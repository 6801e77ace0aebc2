"""What JSON documents hold, by the name that `ref` takes."""

from __future__ import annotations

from typing import Final

from spool.web.api.terms import ADDRESS, NUMBER, TEXT, Schema, ref

TIME: Final[Schema] = {"type": "string", "format": "date-time"}
TIME_OR_DATE: Final[Schema] = {
    "anyOf": [{"type": "string", "format": "date-time"}, {"type": "string", "format": "date"}]
}
FUTURE: Final[Schema] = {**TIME_OR_DATE, "examples": ["2100-01-01T00:00:00Z"]}
SHA256: Final[Schema] = {"type": "string", "pattern": "^[0-9a-fA-F]{64}$"}
_VALUES: Final[list[Schema]] = [TEXT, {"type": "array", "items": TEXT}]
VALUE: Final[Schema] = {"anyOf": _VALUES}


def _object(properties: dict[str, Schema], *optional: str, text: str = "") -> Schema:
    """An object of exactly these members, of which all but `optional` are required."""
    schema: dict[str, object] = {"type": "object", "properties": properties, "additionalProperties": False}
    if text:
        schema["description"] = text
    if required := [name for name in properties if name not in optional]:
        schema["required"] = required
    return schema


def _told(text: str, schema: Schema) -> Schema:
    return {**schema, "description": text}


_RECORD: Final = _object(
    {
        "id": _told("Names the file. Opaque.", TEXT),
        "filename": _told("A display name of 1 to 255 bytes: no path, no control characters.", TEXT),
        "size": _told("The bytes that were counted.", NUMBER),
        "media_type": _told("The type that was detected from the bytes.", TEXT),
        "declared_type": _told("The type that the client claimed. It decides nothing.", {"type": ["string", "null"]}),
        "sha256": _told("The SHA-256 of the bytes.", {"type": "string", "pattern": "^[0-9a-f]{64}$"}),
        "created_at": _told("When the file was committed.", TIME),
        "expires_at": _told("When it will be deleted; null for never.", {**TIME, "type": ["string", "null"]}),
        "owner": _told("The principal that stored it.", TEXT),
        "metadata": _told("The fields that came with it.", {"type": "object", "additionalProperties": VALUE}),
        "damage": _told("What a check found wrong with its bytes.", {"enum": ["missing", "size", "digest", None]}),
        "url": _told("Where this record is.", ADDRESS),
        "content_url": _told("What leads to the bytes.", ADDRESS),
    },
    text="A file's record.",
)
_CHANGE: Final = _object(
    {
        "filename": {"type": "string", "pattern": r"\S"},
        "metadata": {
            "type": ["object", "null"],
            "additionalProperties": {"anyOf": [{"type": "null"}, *_VALUES]},
        },
        "expires_at": {"anyOf": [FUTURE, {"type": "null"}]},
    },
    "filename",
    "metadata",
    "expires_at",
    text="A merge patch (RFC 7396). null takes a member of the metadata away; `expires_at` lies in the future.",
)
_MEMBERS: Final[dict[str, Schema]] = {
    "accepted": _told("The media type that is read here.", TEXT),
    "actual": _told("The digest of the bytes that came, in hexadecimal.", TEXT),
    "algorithm": _told("Of the digest.", TEXT),
    "allowed": _told("The methods that this address takes.", {"type": "array", "items": TEXT}),
    "damage": _told("What is wrong with the bytes.", TEXT),
    "expected": _told("The digest that was given, in hexadecimal.", TEXT),
    "expected-offset": _told("Where the upload stands.", NUMBER),
    "length": _told("The length that counts.", NUMBER),
    "limit": _told("How much is allowed.", NUMBER),
    "media_type": _told("The detected type.", TEXT),
    "provided-offset": _told("Where the request's bytes would have gone.", NUMBER),
    "scope": _told("The scope that is missing.", TEXT),
    "size": _told("Of the file.", NUMBER),
    "unit": _told("Of what.", {"enum": ["bytes", "files"]}),
    "used": _told("What there would be.", NUMBER),
    "window": _told("Over how many seconds.", NUMBER),
}
"""What problems may have beyond the members that RFC 9457 names."""
_PROBLEM: Final = _object(
    {
        "type": _told("Names the problem: an address that says what it means.", ADDRESS),
        "title": TEXT,
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": _told("A sentence for a person; it may change.", TEXT),
        "request_id": _told("Finds the request in the log.", TEXT),
        **_MEMBERS,
    },
    "request_id",
    *_MEMBERS,
    text="A problem (RFC 9457). Which members it has beyond the first five depends on its type.",
)

SCHEMAS: Final[dict[str, Schema]] = {
    "Record": _RECORD,
    "Records": _object({"files": {"type": "array", "items": ref("Record"), "minItems": 1}}),
    "Page": _object(
        {
            "files": {"type": "array", "items": ref("Record")},
            "next": _told("The `cursor` of the next page; null at the end.", {"type": ["string", "null"]}),
        }
    ),
    "Change": _CHANGE,
    "Problem": _PROBLEM,
    "ProblemType": _object({"title": TEXT, "status": {"type": "integer"}, "meaning": TEXT}),
    "Alive": _object({"status": {"const": "alive"}}),
    "Ready": _object({"status": {"const": "ready"}}),
}
