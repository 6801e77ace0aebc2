"""Pages for people, and what their forms do."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from spool.errors import (
    BadType,
    BeyondGrant,
    CutOff,
    Damaged,
    ExpectationFailed,
    Forbidden,
    Gone,
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
_MADE: Final = Answer(201, "A page with the address, which is never told again.", {"text/html": TEXT}, (_POLICY,))
_LASTS: Final = {"enum": ["1h", "1d", "3d", "7d", "30d", "90d", "365d"]}
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
            query("grant", "Files that guests brought by the grant with this id."),
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
        id="guestsPage",
        method="GET",
        path="/guests",
        summary="The guest links of whoever asks, with what came by each, and a form for a new one",
        access="grant",
        parameters=(query("cursor", "As the link to older ones has it."),),
        answers=(_PAGE,),
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
        id="archiveForm",
        method="POST",
        path="/files.zip",
        summary="Several files as one archive, of more than an address has room for",
        access="read",
        parameters=(_TOKEN,),
        body=_form("id", id=_IDS),
        answers=(Answer(200, "The archive.", {"application/zip": ANYTHING}),),
        raises=(NotFound, Damaged, *_BODY),
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
        raises=(NotFound, StorageFull, *_BODY),
    ),
)
_SECRET: Final = path("secret", "The grant's.")
_KEPT: Final = Answer(
    303,
    "The page of the grant.",
    None,
    (*_NEXT.headers, header("Set-Cookie", "What the browser keeps.", required=True)),
)
_SHARING: Final = (
    Operation(
        id="makeGrantForm",
        method="POST",
        path="/guests",
        summary="As POST /grants, for a form of a page",
        text="Sizes are texts such as `10 GB`; `lasts` is how long it works, from `1h` to `365d`.",
        access="grant",
        parameters=(_TOKEN,),
        body=_form(
            note=TEXT,
            lasts=_LASTS,
            max_files=TEXT,
            max_size=TEXT,
            max_file_size=TEXT,
            kind={"type": "array", "items": TEXT},
            types=TEXT,
            passphrase=TEXT,
        ),
        answers=(_MADE,),
        raises=(StorageFull, *_BODY),
    ),
    Operation(
        id="revokeGrantForm",
        method="POST",
        path="/guests/{id}/revoke",
        summary="As DELETE /grants/{id}, for a form of a page",
        access="grant",
        parameters=(path("id", "The grant's id."), _TOKEN),
        answers=(_NEXT,),
        raises=(NotFound, StorageFull),
    ),
    Operation(
        id="makeLinkForm",
        method="POST",
        path="/view/{id}/links",
        summary="As POST /files/{id}/links, for a form of a page",
        access="read",
        parameters=(_ID, _TOKEN),
        body=_form(lasts=_LASTS, max_downloads=TEXT),
        answers=(_MADE,),
        raises=(NotFound, StorageFull, *_BODY),
    ),
    Operation(
        id="revokeLinkForm",
        method="POST",
        path="/view/{id}/links/{link_id}/revoke",
        summary="As DELETE /files/{id}/links/{link_id}, for a form of a page",
        access="read",
        parameters=(_ID, path("link_id", "The link's id."), _TOKEN),
        answers=(_NEXT,),
        raises=(NotFound, StorageFull),
    ),
    Operation(
        id="guestUploadForm",
        method="POST",
        path="/g/{secret}/upload",
        summary="As POST /g/{secret}, for the form of the guest's page",
        text="The browser keeps which files it sent, and how to delete them, in a cookie.",
        access="guest",
        parameters=(_SECRET,),
        body=Body({"multipart/form-data": {"type": "object", "properties": {"file": BYTES}, "required": ["file"]}}),
        answers=(_KEPT,),
        raises=(*_BODY, NotFound, Gone, BeyondGrant, QuotaExceeded, TooMany, StorageFull),
    ),
    Operation(
        id="guestDeleteForm",
        method="POST",
        path="/g/{secret}/delete",
        summary="Delete a file that the form of the page has sent from this browser",
        access="guest",
        parameters=(_SECRET,),
        body=_form("id", id=TEXT),
        answers=(_KEPT,),
        raises=(NotFound, Gone, StorageFull, *_BODY),
    ),
    Operation(
        id="guestPassphraseForm",
        method="POST",
        path="/g/{secret}/passphrase",
        summary="Give the pass phrase: the browser keeps a cookie that proves it",
        access="guest",
        parameters=(_SECRET,),
        body=_form("passphrase", passphrase=TEXT),
        answers=(_KEPT,),
        raises=(NotFound, Gone, *_BODY),
    ),
)

PAGES: Final = Group(
    "Pages",
    "For people. A browser whose `Accept` prefers HTML is told in a page what is wrong, and led to `/login` where a "
    "token is needed.",
    (*(operation for each in _OPERATIONS for operation in (each, head(each))), *_FORMS, *_SHARING),
)
