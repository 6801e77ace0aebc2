"""Making grants, for guests to upload, and links, for anybody to download."""

from __future__ import annotations

from typing import Final

from spool.errors import (
    BadType,
    CutOff,
    Damaged,
    ExpectationFailed,
    Gone,
    NotFound,
    PreconditionFailed,
    RequestTimeout,
    StorageFull,
    TooLarge,
    Unsatisfiable,
)
from spool.web.api.files import MEDIA
from spool.web.api.terms import Answer, Body, Group, Operation, head, header, path, query, ref

_NO_STORE: Final = header("Cache-Control", "`no-store`", {"const": "no-store"}, required=True)
_READING: Final = (BadType, TooLarge, CutOff, RequestTimeout, ExpectationFailed, StorageFull)
"""What may be wrong with a document."""
_FILE: Final = path("id", "The file's id.")
_SECRET: Final = path("secret", "The link's.")

_LIST: Final = Operation(
    id="listGrants",
    method="GET",
    path="/grants",
    summary="One's own grants, or, for scope `admin`, all; oldest first",
    access="grant",
    parameters=(query("cursor", "The `next` of the page before."),),
    answers=(Answer(200, "A page of at most 100.", {"application/json": ref("Grants")}),),
)
_LINKS: Final = Operation(
    id="listLinks",
    method="GET",
    path="/files/{id}/links",
    summary="The newest 1000 links of a file",
    access="read",
    parameters=(_FILE,),
    answers=(Answer(200, "The links.", {"application/json": ref("Links")}),),
    raises=(NotFound,),
)
_FOLLOW: Final = Operation(
    id="followLink",
    method="GET",
    path="/l/{secret}",
    summary="The bytes of the link's file",
    text="As `GET /media/{id}/{filename}`. A download is counted by the file's last byte.",
    access="link",
    parameters=(_SECRET, *(field for field in MEDIA.parameters if field.place != "path")),
    answers=MEDIA.answers,
    raises=(NotFound, Gone, Damaged, PreconditionFailed, Unsatisfiable, StorageFull),
)

GRANTS: Final = Group(
    "Grants",
    "Leave for guests, who have no token, to upload in their owner's name, within bounds.",
    (
        Operation(
            id="makeGrant",
            method="POST",
            path="/grants",
            summary="Make a grant",
            text="Its address, `url`, is told in this answer and never again.",
            access="grant",
            body=Body({"application/json": ref("NewGrant")}),
            answers=(Answer(201, "The grant.", {"application/json": ref("MadeGrant")}, (_NO_STORE,)),),
            raises=_READING,
        ),
        _LIST,
        head(_LIST),
        Operation(
            id="revokeGrant",
            method="DELETE",
            path="/grants/{id}",
            summary="End a grant",
            text="Nothing comes by it any more. What is on its way is cut off and leaves nothing; files stay.",
            access="grant",
            parameters=(path("id", "The grant's id."),),
            answers=(Answer(204, "It has ended, durably."),),
            raises=(NotFound, StorageFull),
        ),
    ),
)
LINKS: Final = Group(
    "Links",
    "The bytes of one file for whoever has an address, for a time and, if need be, a number of downloads.",
    (
        Operation(
            id="makeLink",
            method="POST",
            path="/files/{id}/links",
            summary="Make a link to a file",
            text="Its address, `url`, is told in this answer and never again.",
            access="read",
            parameters=(_FILE,),
            body=Body({"application/json": ref("NewLink")}),
            answers=(Answer(201, "The link.", {"application/json": ref("MadeLink")}, (_NO_STORE,)),),
            raises=(NotFound, *_READING),
        ),
        _LINKS,
        head(_LINKS),
        Operation(
            id="revokeLink",
            method="DELETE",
            path="/files/{id}/links/{link_id}",
            summary="End a link",
            text="Who made it may, the uploader of the file, and scope `admin`.",
            access="read",
            parameters=(_FILE, path("link_id", "The link's id.")),
            answers=(Answer(204, "It has ended, durably."),),
            raises=(NotFound, StorageFull),
        ),
        _FOLLOW,
        head(_FOLLOW, without=(206, 416, "Range", "If-Range")),
        *(
            Operation(
                id=name,
                method=method,
                path="/d/{id}/{secret}",
                summary=summary,
                text="This is the `delete_url` that a guest was told. It works as long as the grant does.",
                access="link",
                parameters=(_FILE, path("secret", "The file's.")),
                answers=(Answer(204, "The file is gone, durably."),),
                raises=(NotFound, Gone, StorageFull),
            )
            for name, method, summary in (
                ("undoUpload", "DELETE", "Delete a file that one has brought as a guest"),
                ("undoUpload2", "POST", "The same as DELETE, for forms"),
            )
        ),
    ),
)
