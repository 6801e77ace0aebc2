"""Storing files: forms, PUTs, and what a client of the IETF draft adds to either."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from spool.errors import (
    BadType,
    CutOff,
    DigestMismatch,
    ExpectationFailed,
    Gone,
    InconsistentLength,
    KeyInUse,
    NotFound,
    QuotaExceeded,
    Rejected,
    RequestTimeout,
    StorageFull,
    Superseded,
    TooLarge,
    TooMany,
)
from spool.web.api.schemas import FUTURE, SHA256, VALUE
from spool.web.api.terms import (
    ADDRESS,
    BYTES,
    NUMBER,
    TEXT,
    Answer,
    Body,
    Group,
    Link,
    Operation,
    again,
    header,
    path,
    query,
    ref,
)

RECEIVING: Final = (
    CutOff,
    DigestMismatch,
    RequestTimeout,
    TooLarge,
    QuotaExceeded,
    BadType,
    ExpectationFailed,
    TooMany,
    StorageFull,
)
"""What may be wrong with the bytes of an upload, or in their way."""
_RAISES: Final = (*RECEIVING, KeyInUse, Rejected, InconsistentLength, NotFound, Superseded, Gone)

OFFSET: Final = header("Upload-Offset", "How far the upload has come, durably.", NUMBER)
COMPLETE: Final = header("Upload-Complete", "`?1`: about the file. `?0`: about the upload.", {"enum": ["?0", "?1"]})
LIMIT: Final = header("Upload-Limit", "`max-size` in bytes, `max-age` in seconds.")
INTERIM: Final = Answer(
    104,
    "Upload Resumption Supported: interim, and only for a client that sends `Upload-Draft-Interop-Version`.",
    headers=(header("Location", "The address of a new upload.", ADDRESS), OFFSET, LIMIT),
)
CONTENT_DIGEST: Final = header("Content-Digest", "The digest of this request's bytes (RFC 9530): `sha-256`, `sha-512`.")
REPR_DIGEST: Final = header("Repr-Digest", "The digest of the file (RFC 9530): `sha-256`, `sha-512`.")
DRAFT: Final = (
    header(
        "Upload-Complete",
        "Makes it a resumable upload. `?1`: this body is the end. `?0`: more will come.",
    ),
    header("Upload-Length", "The length of the whole, if it is known. Of a resumable upload only."),
    header("Upload-Draft-Interop-Version", "`6` to `10`: send me interim responses."),
)
_ENCODING: Final = header("Content-Encoding", "`identity` is the only one that is read.", {"const": "identity"})
_EXPECT: Final = header("Expect", "`100-continue`: tell me before I send the body.", {"const": "100-continue"})
_ACCEPT: Final = header("Accept", "`text/plain`: answer with one `content_url` a line.", example="application/json")
_KEY: Final = header(
    "Idempotency-Key",
    "1 to 255 printable ASCII characters, in quotes or bare. A retry with it is told what the first was told.",
    {"type": "string", "pattern": r'^(?:[!#-~](?:[ -~]{0,253}[!-~])?|"(?:[ !#-\[\]-~]|\\["\\]){1,255}")$'},
)
_FIELDS: Final = (
    query("sha256", "The digest that the file must have, in hexadecimal.", SHA256),
    query("expires_at", "When the file expires. It lies in the future.", FUTURE),
    query("metadata", "All other parameters are metadata.", {"type": "object", "additionalProperties": VALUE}),
)
_LOCATION: Final = header("Location", "The address of the only file's record, or of an unfinished upload.", ADDRESS)
_STORED: Final = (_LOCATION, OFFSET, COMPLETE, LIMIT)
_FORM: Final = {
    "type": "object",
    "description": "A part with a filename is a file, whatever its field is called; all others are metadata.",
    "properties": {
        "file": {"type": "array", "items": BYTES, "minItems": 1},
        "sha256": {"description": "One for each file, in their order, or none.", "type": "array", "items": SHA256},
        "expires_at": FUTURE,
    },
    "additionalProperties": VALUE,
}


def _leads(id: str) -> tuple[Link, ...]:
    names = ("showFile", "changeFile", "deleteFile", "fileContent")
    return (*(Link(name, {"id": id}) for name in names), Link("media", {"id": id, "filename": "file"}))


RECORD_LINKS: Final = _leads("$response.body#/id")

_POST: Final = Operation(
    id="storeFiles",
    method="POST",
    path="/files",
    summary="Store the files of a form, all or none; or begin a resumable upload",
    text=(
        "201 means that bytes, directories and index are on stable storage. A body that is no form, with "
        "`Upload-Complete`, is an upload by the IETF draft: its query is metadata, as in a PUT."
    ),
    access="upload",
    parameters=(
        _KEY,
        _ACCEPT,
        _EXPECT,
        _ENCODING,
        CONTENT_DIGEST,
        REPR_DIGEST,
        *DRAFT,
        header("Content-Disposition", "The name of a resumable upload's file."),
    ),
    body=Body({"multipart/form-data": _FORM, "application/octet-stream": BYTES}),
    answers=(
        INTERIM,
        Answer(
            201,
            "The files are there, or the upload is.",
            {"application/json": {"anyOf": [ref("Records"), ref("Record")]}, "text/plain": TEXT},
            _STORED,
            _leads("$response.body#/files/0/id"),
        ),
    ),
    raises=_RAISES,
    speech="rufh",
)
_PUT: Final = Operation(
    id="storeFile",
    method="PUT",
    path="/files/{id}",
    summary="Store the body as one file; or begin a resumable upload",
    text="As `curl -T` does it. With `Upload-Complete` it is an upload by the IETF draft.",
    access="upload",
    parameters=(
        path("id", "In a PUT: the filename."),
        *_FIELDS,
        _KEY,
        _ACCEPT,
        _EXPECT,
        _ENCODING,
        CONTENT_DIGEST,
        REPR_DIGEST,
        *DRAFT,
    ),
    body=Body({"*/*": BYTES}, "The file, as it is. Content-Type becomes `declared_type`.", required=False),
    answers=(
        INTERIM,
        Answer(
            201,
            "The file is there, or the upload is.",
            {"application/json": ref("Record"), "text/plain": TEXT},
            _STORED,
            RECORD_LINKS,
        ),
    ),
    raises=_RAISES,
    speech="rufh",
)
_PUT_NAMELESS: Final = replace(
    again(_PUT, "/files/", 2),
    parameters=(
        *_PUT.parameters[1:],
        header("Content-Disposition", "The file's name, where the address has none."),
    ),
    summary="The same as PUT /files/{id}, without a filename in the address",
)

STORE: Final = Group(
    "Store files",
    "Stored at once or not at all.",
    (_POST, again(_POST, "/files/", 2), again(_POST, "/", 3), _PUT, _PUT_NAMELESS),
)
