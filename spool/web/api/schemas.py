"""What JSON documents hold, by the name that `ref` takes."""

from __future__ import annotations

from typing import Final

from spool.policy import GRANT_FILES, MAX_GRANT_FILES, MAX_NOTE, MAX_PASSPHRASE
from spool.web.api.terms import ADDRESS, NUMBER, TEXT, Schema, ref
from spool.web.grants import MAX_TYPES
from spool.web.links import MAX_DOWNLOADS

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


def _count(least: int, most: int, text: str) -> Schema:
    return _told(text, {"type": ["integer", "null"], "minimum": least, "maximum": most})


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
        "grant": _told("The grant by which a guest brought it.", {"type": ["string", "null"]}),
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

_NULL_OR_TIME: Final[Schema] = {**TIME, "type": ["string", "null"]}
_RECEIPT: Final = _object(
    {
        **{name: _RECORD["properties"][name] for name in ("id", "filename", "size", "media_type", "sha256")},  # type: ignore[index]
        "created_at": TIME,
        "expires_at": _NULL_OR_TIME,
        "delete_url": _told("Where the file can be deleted, as long as the grant lasts; told once.", ADDRESS),
    },
    "delete_url",
    text="What a guest is told of a file that they have brought.",
)
_GRANT: Final[dict[str, Schema]] = {
    "id": TEXT,
    "owner": _told("The principal in whose name guests upload.", TEXT),
    "note": _told("What guests are told.", TEXT),
    "created_at": TIME,
    "expires_at": TIME,
    "revoked_at": _NULL_OR_TIME,
    "max_files": _told("That may come by it, ever.", NUMBER),
    "max_size": _told("Bytes that may come by it, ever; 0 is without limit.", NUMBER),
    "max_file_size": _told("Bytes of one file; 0 is as the server has it.", NUMBER),
    "types": _told("Globs over the detected type; none is every type.", {"type": "array", "items": TEXT}),
    "passphrase": _told("Whether there is one.", {"type": "boolean"}),
    "files": _told("That have come.", NUMBER),
    "size": _told("Bytes that have come.", NUMBER),
}
_GLOB: Final[Schema] = {"type": "string", "minLength": 1, "maxLength": 255}
_NEW_GRANT: Final[dict[str, Schema]] = {
    "note": _told(f"At most {MAX_NOTE} bytes.", {"type": ["string", "null"], "maxLength": MAX_NOTE // 4}),
    "expires_at": _told("In the future. 7 days from now, if it is not said.", {"anyOf": [FUTURE, {"type": "null"}]}),
    "max_files": _count(1, MAX_GRANT_FILES, f"{GRANT_FILES}, if it is not said."),
    "max_size": _count(0, 10**18 - 1, "Bytes in all."),
    "max_file_size": _count(0, 10**18 - 1, "Bytes of one file."),
    "types": {"type": ["array", "null"], "items": _GLOB, "maxItems": MAX_TYPES},
    "passphrase": {"type": ["string", "null"], "maxLength": MAX_PASSPHRASE // 4},
}
_LINK: Final[dict[str, Schema]] = {
    "id": TEXT,
    "file_id": TEXT,
    "created_by": _told("The principal that made it.", TEXT),
    "created_at": TIME,
    "expires_at": TIME,
    "revoked_at": _NULL_OR_TIME,
    "max_downloads": _told("null is without limit.", {"type": ["integer", "null"]}),
    "downloads": _told("That were given out; null where they are not counted.", {"type": ["integer", "null"]}),
}
_NEW_LINK: Final[dict[str, Schema]] = {
    "expires_at": _NEW_GRANT["expires_at"],
    "max_downloads": _count(1, MAX_DOWNLOADS, "Without limit, if it is not said."),
}
_INVITATION: Final = _object(
    {
        "note": TEXT,
        "expires_at": TIME,
        "types": _GRANT["types"],
        "max_file_size": NUMBER,
        "files_left": NUMBER,
        "bytes_left": _told("null is without limit.", {"type": ["integer", "null"]}),
    }
)
_URL: Final[dict[str, Schema]] = {"url": _told("The address, told once.", ADDRESS)}

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
    "Hidden": _object({"id": TEXT, "undo_until": _told("Until then it can be brought back.", TIME)}),
    "Receipt": _RECEIPT,
    "Receipts": _object({"files": {"type": "array", "items": ref("Receipt"), "minItems": 1}}),
    "Invitation": _INVITATION,
    "NewGrant": _object(_NEW_GRANT, *_NEW_GRANT),
    "MadeGrant": _object({**_GRANT, **_URL}),
    "Grants": _object(
        {
            "grants": {"type": "array", "items": _object(_GRANT)},
            "next": _told("The `cursor` of the next page; null at the end.", {"type": ["string", "null"]}),
        }
    ),
    "NewLink": _object(_NEW_LINK, *_NEW_LINK),
    "MadeLink": _object({**_LINK, **_URL}),
    "Links": _object({"links": {"type": "array", "items": _object(_LINK)}}),
    "Problem": _PROBLEM,
    "ProblemType": _object({"title": TEXT, "status": {"type": "integer"}, "meaning": TEXT}),
    "Alive": _object({"status": {"const": "alive"}}),
    "Ready": _object({"status": {"const": "ready"}}),
}
