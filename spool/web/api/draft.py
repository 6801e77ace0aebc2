"""Resumable Uploads for HTTP (draft-ietf-httpbis-resumable-upload); what creates uploads is in `uploads`."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from spool.errors import (
    BadType,
    CompletedUpload,
    DigestMismatch,
    Gone,
    InconsistentLength,
    NotFound,
    OffsetMismatch,
    StorageFull,
    Superseded,
)
from spool.web.api.terms import ADDRESS, BYTES, NUMBER, Answer, Body, Group, Operation, again, head, header, path, ref
from spool.web.api.uploads import COMPLETE, CONTENT_DIGEST, INTERIM, LIMIT, OFFSET, RECEIVING, RECORD_LINKS

_ID: Final = path("id", "The upload's id.")
_MET: Final = (NotFound, Gone, Superseded, StorageFull)
_OFFSET: Final = replace(OFFSET, required=True)
_COMPLETE: Final = replace(COMPLETE, required=True)
_LIMIT: Final = replace(LIMIT, required=True)
_INTEGER: Final = {"type": "integer", "minimum": 0, "maximum": 999_999_999_999_999}

_OFFER: Final = Operation(
    id="offerDraft",
    method="OPTIONS",
    path="/files",
    summary="What the draft offers here",
    access="public",
    answers=(Answer(204, "Limits.", None, (_LIMIT, header("Accept-Patch", "The type of a PATCH.", required=True))),),
    speech="rufh",
)
_INSPECT: Final = Operation(
    id="inspectUpload",
    method="GET",
    path="/uploads/{id}",
    summary="How far an upload has come",
    access="upload",
    parameters=(_ID,),
    answers=(
        Answer(
            204,
            "As it stands.",
            None,
            (
                _OFFSET,
                _COMPLETE,
                _LIMIT,
                header("Upload-Length", "The length, if it is known.", NUMBER),
                header("Content-Location", "The record of the file that a finished one became.", ADDRESS),
                header("Cache-Control", "`no-store`", {"const": "no-store"}, required=True),
            ),
        ),
    ),
    raises=(*_MET, BadType, DigestMismatch),  # it finishes what is complete
    speech="rufh",
)
_APPEND: Final = Operation(
    id="appendUpload",
    method="PATCH",
    path="/uploads/{id}",
    summary="Bring more bytes",
    access="upload",
    parameters=(
        _ID,
        header("Upload-Offset", "Where the upload stands.", _INTEGER, required=True),
        header(
            "Upload-Complete",
            "`?1`: this body is the end. `?0`: more will come.",
            {"enum": ["?0", "?1"]},
            required=True,
        ),
        header("Upload-Length", "The length of the whole. One that cannot be read counts as none."),
        CONTENT_DIGEST,
        header("Upload-Draft-Interop-Version", "`6` to `10`: send me interim responses."),
    ),
    body=Body({"application/partial-upload": BYTES}),
    answers=(
        INTERIM,
        Answer(
            201,
            "The file is there.",
            {"application/json": ref("Record")},
            (header("Location", "The address of its record.", ADDRESS, required=True), _OFFSET, _COMPLETE, _LIMIT),
            RECORD_LINKS,
        ),
        Answer(204, "The bytes are on stable storage.", None, (_OFFSET, _COMPLETE, _LIMIT)),
    ),
    raises=(*RECEIVING, *_MET, InconsistentLength, OffsetMismatch, CompletedUpload),
    speech="rufh",
)
_CANCEL: Final = Operation(
    id="cancelUpload",
    method="DELETE",
    path="/uploads/{id}",
    summary="Give an upload up",
    text="A file that it became stays.",
    access="upload",
    parameters=(_ID,),
    answers=(Answer(204, "The upload and its bytes are gone.", None, (_LIMIT,)),),
    raises=_MET,
    speech="rufh",
)

DRAFT: Final = Group(
    "The IETF draft",
    "Resumable uploads for HTTP, interop versions 6 to 10. `POST /files` and `PUT /files/{id}` create them.",
    (
        _OFFER,
        replace(again(_OFFER, "/uploads/{id}", 2), parameters=(_ID,)),
        _INSPECT,
        head(_INSPECT),
        _APPEND,
        _CANCEL,
    ),
)
