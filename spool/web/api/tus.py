"""tus 1.0.0 (https://tus.io/protocols/resumable-upload)."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from spool.errors import (
    BadType,
    ChecksumMismatch,
    CompletedUpload,
    DigestMismatch,
    Forbidden,
    Gone,
    InconsistentLength,
    MethodNotAllowed,
    NotFound,
    OffsetMismatch,
    PreconditionFailed,
    StorageFull,
    Superseded,
    TooLarge,
)
from spool.web.api.terms import ADDRESS, BYTES, NUMBER, TEXT, Answer, At, Body, Group, Operation, again, header, path
from spool.web.api.uploads import OFFSET, RECEIVING

_ID: Final = path("id", "The upload's id.")
_VERSION: Final = header("Tus-Resumable", "The version of tus.", {"const": "1.0.0"}, required=True)
_COUNT: Final = {"type": "string", "pattern": "^[0-9]{1,18}$"}
_OVERRIDE: Final = header(
    "X-HTTP-Method-Override", "Stands for the method.", {"enum": ["PATCH", "DELETE", "HEAD"]}, required=True
)
_DIGEST: Final = (
    r"sha1 +[A-Za-z0-9+/]{27}=|sha256 +[A-Za-z0-9+/]{43}=|sha512 +[A-Za-z0-9+/]{86}==|md5 +[A-Za-z0-9+/]{22}=="
)
_LENGTH: Final = header("Upload-Length", "The length of the whole.", _COUNT)
_CHECKSUM: Final = header(
    "Upload-Checksum",
    "The algorithm (`sha1`, `sha256`, `sha512`, `md5`) and the digest of this body in base64.",
    {"type": "string", "pattern": f"^(?:{_DIGEST})$"},
)
_TRAILER: Final = header("Trailer", "`Upload-Checksum`: the checksum follows a chunked body.")
_METADATA: Final = header("Upload-Metadata", "Pairs of a key and a value in base64, separated by commas.")
_PARTS: Final = {"type": "string", "pattern": r"^(?:partial|final; *[!-~]+(?: +[!-~]+)*)$"}
_CONCAT: Final = header("Upload-Concat", "`partial`, or `final;` and the addresses of partial uploads.", _PARTS)
_DEFER: Final = header("Upload-Defer-Length", "`1`: the length will be told later.", {"const": "1"})
_BODY: Final = Body({"application/offset+octet-stream": BYTES}, required=False)
_FATE: Final = (
    header("Upload-Expires", "When an unfinished upload will be given up."),
    header("Content-Location", "The record of the file that a finished one became.", ADDRESS),
    header("Link", "`rel=enclosure`: the bytes of that file."),
)
_TOLD: Final = (_VERSION, OFFSET, *_FATE)
_MET: Final = (NotFound, Gone, PreconditionFailed, Superseded, StorageFull)
_OF_A_FINAL: Final = tuple(
    At(kind, Forbidden.status) for kind in (CompletedUpload, InconsistentLength, OffsetMismatch, TooLarge)
)
"""How bytes for an upload that is made of others are refused."""

_OFFER: Final = Operation(
    id="offerTus",
    method="OPTIONS",
    path="/tus",
    summary="What tus offers here",
    access="public",
    answers=(
        Answer(
            200,
            "Versions, extensions and limits.",
            None,
            (
                _VERSION,
                header("Tus-Version", "The versions.", required=True),
                header("Tus-Extension", "The extensions.", required=True),
                header("Tus-Max-Size", "The largest upload, in bytes.", NUMBER, required=True),
                header("Tus-Checksum-Algorithm", "The algorithms of Upload-Checksum.", required=True),
            ),
        ),
    ),
    speech="tus",
)
_CREATE: Final = Operation(
    id="createTus",
    method="POST",
    path="/tus",
    summary="Create an upload",
    text="Either Upload-Length or Upload-Defer-Length. The body may hold the first bytes.",
    access="upload",
    parameters=(_VERSION, _LENGTH, _DEFER, _METADATA, _CONCAT, _CHECKSUM, _TRAILER),
    body=_BODY,
    answers=(
        Answer(
            201,
            "The upload is there; it is finished if all its bytes are.",
            None,
            (header("Location", "The upload's address.", ADDRESS, required=True), *_TOLD),
        ),
    ),
    raises=(*RECEIVING, *_MET, MethodNotAllowed, ChecksumMismatch, InconsistentLength),
    speech="tus",
)
_APPEND: Final = Operation(
    id="appendTus",
    method="PATCH",
    path="/tus/{id}",
    summary="Bring more bytes",
    access="upload",
    parameters=(
        _ID,
        _VERSION,
        header("Upload-Offset", "Where the upload stands.", _COUNT, required=True),
        header("Upload-Length", "The length, if it was deferred.", _COUNT),
        _CHECKSUM,
        _TRAILER,
    ),
    body=_BODY,
    answers=(Answer(204, "The bytes are on stable storage.", None, _TOLD),),
    raises=(*RECEIVING, *_MET, ChecksumMismatch, InconsistentLength, OffsetMismatch, CompletedUpload, *_OF_A_FINAL),
    speech="tus",
)
_OVERRIDDEN: Final = Operation(
    id="overrideTus",
    method="POST",
    path="/tus/{id}",
    summary="PATCH, DELETE or HEAD, for clients that cannot send these",
    access="upload",
    parameters=(
        _ID,
        _VERSION,
        _OVERRIDE,
        header("Upload-Offset", "As in a PATCH; DELETE and HEAD read none of these."),
        header("Upload-Length", "As in a PATCH."),
        header("Upload-Checksum", "As in a PATCH."),
        _TRAILER,
    ),
    body=_BODY,
    answers=(
        Answer(200, "As to a HEAD.", None, _TOLD),
        Answer(204, "As to a PATCH or DELETE.", None, _TOLD),
    ),
    raises=(*_APPEND.raises, MethodNotAllowed),
    speech="tus",
)
_INSPECT: Final = Operation(
    id="inspectTus",
    method="HEAD",
    path="/tus/{id}",
    summary="How far an upload has come",
    access="upload",
    parameters=(_ID, _VERSION),
    answers=(
        Answer(
            200,
            "As it stands, and as it was described.",
            None,
            (
                *_TOLD,
                header("Upload-Length", "The length, if it is known.", NUMBER),
                header("Upload-Defer-Length", "`1` if it is not.", {"const": "1"}),
                header("Upload-Metadata", "As it was sent.", TEXT),
                header("Upload-Concat", "As it was sent.", TEXT),
                header("Cache-Control", "`no-store`", {"const": "no-store"}, required=True),
            ),
        ),
    ),
    raises=(*_MET, BadType, DigestMismatch),  # it finishes what is complete
    speech="tus",
)
_FOLLOW: Final = Operation(
    id="followTus",
    method="GET",
    path="/tus/{id}",
    summary="The way to the file that an upload became",
    access="upload",
    parameters=(_ID,),
    answers=(
        Answer(302, "The way to its bytes.", None, (header("Location", "`content_url`", ADDRESS, required=True),)),
    ),
    raises=(NotFound,),
    speech="tus",
)
_CANCEL: Final = Operation(
    id="cancelTus",
    method="DELETE",
    path="/tus/{id}",
    summary="Give an upload up",
    text="A file that it became stays.",
    access="upload",
    parameters=(_ID, _VERSION),
    answers=(Answer(204, "The upload and its bytes are gone.", None, (_VERSION,)),),
    raises=_MET,
    speech="tus",
)

TUS: Final = Group(
    "tus",
    "Resumable uploads by tus 1.0.0, for its clients as they are.",
    (
        _OFFER,
        replace(again(_OFFER, "/tus/{id}", 2), parameters=(_ID,)),
        _CREATE,
        again(_CREATE, "/tus/", 2),
        _APPEND,
        _OVERRIDDEN,
        _INSPECT,
        _FOLLOW,
        _CANCEL,
    ),
)
