"""Pages for people, and what their forms do."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from spool.errors import (
    BadType,
    CutOff,
    Damaged,
    ExpectationFailed,
    Forbidden,
    NotFound,
    QuotaExceeded,
    RateLimited,
    RequestTimeout,
    StorageFull,
    TooLarge,
    TooMany,
    Unauthenticated,
)
from spool.web.api.terms import (
    ADDRESS,
    ANYTHING,
    BYTES,
    TEXT,
    Answer,
    Body,
    Group,
    Operation,
    head,
    header,
    path,
    query,
)
from spool.web.archive import MOST_FILES

_POLICY: Final = header("Content-Security-Policy", "Only our own scripts run, each by its nonce.", required=True)
_PAGE: Final = Answer(200, "The page.", {"text/html": TEXT}, (_POLICY,))
_NEXT: Final = Answer(303, "The next page.", None, (header("Location", "Where it is.", ADDRESS, required=True),))
_COOKIE: Final = header("Set-Cookie", "The session, or an empty one that takes it back.", required=True)
_SIGNED: Final = Answer(303, "The next page.", None, (*_NEXT.headers, _COOKIE))
_TOKEN: Final = query("form_token", "Of the session, for a browser that is signed in.")
_ID: Final = path("id", "The file's id.")
_IDS: Final = {"type": "array", "items": TEXT, "minItems": 1, "maxItems": MOST_FILES}
_BODY: Final = (BadType, TooLarge, CutOff, RequestTimeout, ExpectationFailed)


def _form(*required: str, **fields: object) -> Body:
    schema = {"type": "object", "properties": fields, "required": list(required)}
    return Body({"application/x-www-form-urlencoded": schema})


_OPERATIONS: Final = (
    Operation(
        id="filesPage",
        method="GET",
        path="/",
        summary="Where files are dropped, and the list of those that are there",
        access="any scope",
        parameters=(
            query("q", "Files whose name holds this text."),
            query("kind", "Of which kind.", {"enum": ["", "image", "audio", "video", "text", "application"]}),
            query("sort", "In which order.", {"enum": ["newest", "oldest", "name", "largest"]}),
            query("limit", "How many files are on a page.", {"enum": [50, 200]}),
            query("cursor", "As the link to more files has it."),
            query("since", "Files created at this time or after."),
            query(
                "changes",
                "As the page has it: also tell what became of files since then.",
                {"pattern": "^[0-9]{1,18}$"},
            ),
        ),
        answers=(_PAGE,),
    ),
    Operation(
        id="filePage",
        method="GET",
        path="/view/{id}",
        summary="All about one file",
        access="read",
        parameters=(_ID,),
        answers=(_PAGE,),
        raises=(NotFound,),
    ),
    Operation(
        id="archive",
        method="GET",
        path="/files.zip",
        summary="Several files as one archive",
        text="Nothing is compressed. Equal names are told apart by a number. A file that goes meanwhile cuts it off.",
        access="read",
        parameters=(replace(query("id", "The id of each file, in their order.", _IDS), required=True),),
        answers=(Answer(200, "The archive.", {"application/zip": ANYTHING}),),
        raises=(NotFound, Damaged),
    ),
    Operation(
        id="loginPage",
        method="GET",
        path="/login",
        summary="Where a browser signs in",
        access="public",
        parameters=(query("next", "Where that leads."),),
        answers=(_PAGE, Answer(303, "It is signed in already.", None, _NEXT.headers)),
    ),
    Operation(
        id="asset",
        method="GET",
        path="/ui/{version}/{name}",
        summary="What the pages are made with",
        access="public",
        parameters=(path("version", "Changes with any of them."), path("name", "Of the file.")),
        answers=(Answer(200, "The file.", {"*/*": ANYTHING}),),
        raises=(NotFound,),
    ),
)
_FORMS: Final = (
    Operation(
        id="signIn",
        method="POST",
        path="/login",
        summary="Make a session of a token",
        text="For our own pages alone. Sign-ins that fail are limited for each address.",
        access="public",
        body=_form("token", token=TEXT, next=TEXT),
        answers=(_SIGNED,),
        raises=(Unauthenticated, Forbidden, RateLimited, StorageFull, *_BODY),
    ),
    Operation(
        id="signOut",
        method="POST",
        path="/logout",
        summary="End the session",
        access="public",
        parameters=(_TOKEN,),
        answers=(_SIGNED,),
        raises=(Forbidden,),
    ),
    Operation(
        id="uploadForm",
        method="POST",
        path="/upload",
        summary="As POST /files, for a form of a page",
        access="upload",
        parameters=(_TOKEN,),
        body=Body({"multipart/form-data": {"type": "object", "properties": {"file": BYTES}, "required": ["file"]}}),
        answers=(_NEXT,),
        raises=(*_BODY, QuotaExceeded, TooMany, StorageFull),
    ),
    Operation(
        id="renameForm",
        method="POST",
        path="/view/{id}",
        summary="Give a file another name",
        access="upload",
        parameters=(_ID, _TOKEN),
        body=_form("filename", filename={"type": "string", "pattern": "[0-9A-Za-z]"}),
        answers=(_NEXT,),
        raises=(NotFound, StorageFull, *_BODY),
    ),
    Operation(
        id="deleteForm",
        method="POST",
        path="/delete",
        summary="Delete the files that are chosen",
        text="They can be brought back. With `final`, or without a grace, they cannot, and it asks for `confirmed`.",
        access="delete",
        parameters=(_TOKEN,),
        body=_form(id={"type": "array", "items": TEXT}, final=TEXT, confirmed=TEXT),
        answers=(_PAGE, _NEXT),
        raises=(StorageFull, *_BODY),
    ),
    Operation(
        id="undoForm",
        method="POST",
        path="/undo",
        summary="Bring back the files that are named, as far as they still can be",
        access="delete",
        parameters=(_TOKEN,),
        body=_form(id={"type": "array", "items": TEXT}),
        answers=(_NEXT,),
        raises=(StorageFull, *_BODY),
    ),
)

PAGES: Final = Group(
    "Pages",
    "For people. A browser whose `Accept` prefers HTML is told in a page what is wrong, and led to `/login` where a "
    "token is needed.",
    (*(operation for each in _OPERATIONS for operation in (each, head(each))), *_FORMS),
)
