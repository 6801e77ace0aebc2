"""Finding files, and what may be done with one."""

from __future__ import annotations

from dataclasses import replace
from typing import Final, get_args

from spool.errors import (
    BadType,
    CutOff,
    Damaged,
    ExpectationFailed,
    NotFound,
    PreconditionFailed,
    RequestTimeout,
    StorageFull,
    TooLarge,
    Unsatisfiable,
)
from spool.model import Sort
from spool.web.api.schemas import TIME_OR_DATE
from spool.web.api.terms import (
    ADDRESS,
    ANYTHING,
    Answer,
    Body,
    Group,
    Link,
    Operation,
    head,
    header,
    path,
    query,
    ref,
)
from spool.web.files import DEFAULT_LIMIT, MAX_LIMIT, MAX_PATTERN, PATCH_TYPES

_PATTERN: Final = {"type": "string", "maxLength": MAX_PATTERN, "pattern": "^[^\\u0000]*$"}
_FILTERS: Final = (
    query(
        "limit",
        "The most files on a page.",
        {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT},
    ),
    query("cursor", "The `next` of the page before. All parameters but `limit` must be as they were for that page."),
    query("q", "Files whose name holds this text. ASCII letters match in either case.", _PATTERN),
    query("filename", "Files whose whole name matches this glob.", _PATTERN, example="*.mp3"),
    query("media_type", "Files whose whole detected type matches this glob.", _PATTERN, example="audio/*"),
    query("since", "Files created at this time or after.", TIME_OR_DATE),
    query("until", "Files created before this time.", TIME_OR_DATE),
    query("grant", "Files that guests brought by the grant with this id.", _PATTERN),
    query("sort", "What they are ordered by.", {"enum": list(get_args(Sort)), "default": "created_at"}),
    query("order", "In which direction.", {"enum": ["asc", "desc"], "default": "desc"}),
)
_ID: Final = path("id", "The file's id.")
_DOWNLOAD: Final = replace(query("download", "Present: a browser saves the file instead of showing it."), example="")
_TO: Final = header("Location", "The way to it.", ADDRESS, required=True)
_NO_STORE: Final = header("Cache-Control", "`no-store`", {"const": "no-store"}, required=True)

_LIST: Final = Operation(
    id="listFiles",
    method="GET",
    path="/files",
    summary="List files, newest first",
    text="A page may be short, or empty, and still have a `next`: only null ends the list.",
    access="read",
    parameters=_FILTERS,
    answers=(
        Answer(
            200,
            "A page.",
            {"application/json": ref("Page")},
            (header("Link", "`rel=next`: the address of the next page."),),
            (
                Link("listFiles", {"cursor": "$response.body#/next"}),
                *(Link(name, {"id": "$response.body#/files/0/id"}) for name in ("showFile", "fileContent")),
            ),
        ),
    ),
)
_LATEST: Final = Operation(
    id="latestFile",
    method="GET",
    path="/files/latest",
    summary="The first file that GET /files with the same parameters would list",
    access="read",
    parameters=_FILTERS,
    answers=(Answer(302, "The way to its record.", None, (_TO, _NO_STORE)),),
    raises=(NotFound,),
)
_SHOW: Final = Operation(
    id="showFile",
    method="GET",
    path="/files/{id}",
    summary="The record of a file",
    access="read",
    parameters=(_ID,),
    answers=(Answer(200, "The record.", {"application/json": ref("Record")}),),
    raises=(NotFound,),
)
_CHANGE: Final = Operation(
    id="changeFile",
    method="PATCH",
    path="/files/{id}",
    summary="Change the record of a file",
    text="One's own file; with scope `admin` every file. The bytes never change.",
    access="upload",
    parameters=(_ID,),
    body=Body(dict.fromkeys(PATCH_TYPES, ref("Change"))),
    answers=(Answer(200, "The new record.", {"application/json": ref("Record")}),),
    raises=(NotFound, BadType, TooLarge, CutOff, RequestTimeout, ExpectationFailed, StorageFull),
)
_DELETE: Final = Operation(
    id="deleteFile",
    method="DELETE",
    path="/files/{id}",
    summary="Delete a file",
    text="With `undo` it is hidden at once, and whole until `storage.undo_grace` is over. Without, it is gone for "
    "good, also if it was hidden.",
    access="delete",
    parameters=(
        _ID,
        replace(query("undo", "Present: it can be brought back, unless the server has no grace."), example=""),
    ),
    answers=(
        Answer(204, "The file is gone, durably."),
        Answer(202, "The file is hidden, durably.", {"application/json": ref("Hidden")}),
    ),
    raises=(NotFound, StorageFull),
)
_UNDO: Final = Operation(
    id="undoDelete",
    method="POST",
    path="/files/{id}/undo",
    summary="Bring back a file that was deleted with `undo`",
    text="With its id, its record and its links. 404 once its grace is over.",
    access="delete",
    parameters=(_ID,),
    answers=(Answer(204, "The file is there again, durably."),),
    raises=(NotFound, StorageFull),
)
_CONTENT: Final = Operation(
    id="fileContent",
    method="GET",
    path="/files/{id}/content",
    summary="The way to the bytes of a file, wherever they are",
    access="read",
    parameters=(_ID, _DOWNLOAD),
    answers=(Answer(302, "The way to the bytes.", None, (_TO, _NO_STORE)),),
    raises=(NotFound,),
)

_DESCRIBING: Final = (
    header("Content-Disposition", "`inline` for what a browser can show safely, else `attachment`.", required=True),
    header("ETag", "The SHA-256 in quotes. Strong.", {"pattern": '^"[0-9a-f]{64}"$'}, required=True),
    header("Last-Modified", "`created_at`, to the second.", required=True),
    header("Repr-Digest", "The SHA-256 as RFC 9530 has it.", required=True),
    header("Cache-Control", "`private, no-cache`", {"const": "private, no-cache"}, required=True),
    header("X-Content-Type-Options", "`nosniff`", {"const": "nosniff"}, required=True),
    header("Content-Security-Policy", "Keeps a browser from running it.", required=True),
    header("Cross-Origin-Resource-Policy", "Who may embed it.", required=True),
    header("Accept-Ranges", "`bytes`"),
)
_RANGED: Final = header("Content-Range", "Which bytes, where it is one range.")
MEDIA: Final = Operation(
    id="media",
    method="GET",
    path="/media/{id}/{filename}",
    summary="The bytes of a file",
    text="The id decides which; the filename is for people. Conditions (RFC 9110 §13) and ranges (§14) are honoured.",
    access="read or signature",
    parameters=(
        _ID,
        path("filename", "What a person reads in the address."),
        _DOWNLOAD,
        header("Range", "`bytes=...`, at most 10 ranges; one that cannot be read is ignored.", example="bytes=0-2"),
        header("If-Range", "A strong ETag, or the exact Last-Modified."),
        header("If-Match", "Else 412."),
        header("If-None-Match", "Else 304."),
        header("If-Modified-Since", "Else 304."),
        header("If-Unmodified-Since", "Else 412."),
    ),
    answers=(
        Answer(200, "The whole file.", {"*/*": ANYTHING}, _DESCRIBING),
        Answer(
            206,
            "The ranges, as `multipart/byteranges` if there are several.",
            {"*/*": ANYTHING},
            (*_DESCRIBING, _RANGED),
        ),
        Answer(304, "The file that you have is this one.", None, _DESCRIBING),
    ),
    raises=(NotFound, Damaged, PreconditionFailed, Unsatisfiable),
)

FIND: Final = Group(
    "Find files",
    "In globs `*` stands for any characters, `?` for one, `[abc]`, `[a-z]` and `[^a]` for one of a set.",
    (_LIST, head(_LIST), _LATEST, head(_LATEST)),
)
ONE: Final = Group(
    "One file",
    "The record may change. The bytes never do.",
    (
        _SHOW,
        head(_SHOW),
        _CHANGE,
        _DELETE,
        _UNDO,
        _CONTENT,
        head(_CONTENT),
        MEDIA,
        head(MEDIA, without=(206, 416, "Range", "If-Range")),
    ),
)
