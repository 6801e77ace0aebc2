"""Uploads by guests: what principals with a token do by the same handlers, at addresses below a grant's."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from spool.errors import BeyondGrant, Gone, NotFound, QuotaExceeded
from spool.web.api.draft import DRAFT
from spool.web.api.terms import ADDRESS, TEXT, Answer, Group, Operation, head, header, path, ref
from spool.web.api.tus import TUS
from spool.web.api.uploads import STORE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spool.web.api.terms import Schema

_SECRET: Final = path("secret", "The grant's.")
_RAISES: Final = (NotFound, Gone, BeyondGrant, QuotaExceeded)
_LINK: Final = header("Link", "`rel=edit`: where a finished upload's file can be deleted.", ADDRESS)
_ELSEWHERE: Final = ("Content-Location", "Link", "Upload-Concat")
"""What is not told a guest, or told in another way."""

_SHOW: Final = Operation(
    id="showInvitation",
    method="GET",
    path="/g/{secret}",
    summary="What guests are told: a note, what they may send, how much of it is left",
    access="guest",
    parameters=(_SECRET,),
    text="A browser, which prefers `text/html`, gets a page: the same in words, and a form to upload.",
    answers=(Answer(200, "The invitation.", {"application/json": ref("Invitation"), "text/html": TEXT}),),
    raises=(NotFound, Gone),
)


def _invited(operation: Operation, id: str, path: str) -> Operation:
    """The operation as a guest has it."""
    answers = [
        replace(
            answer,
            content=_short(answer),
            headers=[
                *(field for field in answer.headers if field.name not in _ELSEWHERE),
                *([_LINK] if any(field.name == "Link" for field in answer.headers) else []),
            ],
            links=(),
        )
        for answer in operation.answers
    ]
    raised = [kind for kind in operation.raises if kind not in _RAISES]
    return replace(
        operation,
        id=id,
        path=path,
        summary=f"As a guest, the same as {operation.method} {operation.path}",
        access="guest",
        parameters=[_SECRET, *(field for field in operation.parameters if field.name != "Upload-Concat")],
        answers=answers,
        raises=[*raised, *_RAISES],
        like=operation.id,
    )


def _short(answer: Answer) -> Mapping[str, Schema] | None:
    if answer.content is None:
        return None
    shorter: Schema = {"anyOf": [ref("Receipts"), ref("Receipt")]}
    return {name: shorter if name == "application/json" else schema for name, schema in answer.content.items()}


def _all() -> list[Operation]:
    of = {operation.id: operation for group in (STORE, TUS, DRAFT) for operation in group.operations}
    put = of["storeFile"]
    named = replace(put, parameters=[replace(f, name="filename") if f.name == "id" else f for f in put.parameters])
    return [
        _invited(of["storeFiles"], "guestStoreFiles", "/g/{secret}"),
        _invited(of["storeFiles"], "guestStoreFiles2", "/g/{secret}/"),
        _invited(named, "guestStoreFile", "/g/{secret}/{filename}"),
        _invited(of["storeFile2"], "guestStoreFile2", "/g/{secret}/"),
        _invited(of["offerDraft"], "guestOfferDraft", "/g/{secret}"),
        _invited(of["offerTus"], "guestOfferTus", "/g/{secret}/tus"),
        _invited(of["createTus"], "guestCreateTus", "/g/{secret}/tus"),
        _invited(of["createTus"], "guestCreateTus2", "/g/{secret}/tus/"),
        *(
            _invited(of[name], f"guest{name[0].upper()}{name[1:]}", f"/g/{{secret}}{of[name].path}")
            for name in (
                "offerTus2",
                "inspectTus",
                "overrideTus",
                "appendTus",
                "cancelTus",
                "offerDraft2",
                "inspectUpload",
                "headInspectUpload",
                "appendUpload",
                "cancelUpload",
            )
        ),
    ]


GUESTS: Final = Group(
    "Guests",
    "Whoever has the address of a grant uploads in its owner's name, within its bounds, and sees nothing of anybody's "
    "files. Where the grant has a pass phrase, it is the password of Basic authentication, under any user name, or the "
    "first field of a form, `passphrase`.",
    (_SHOW, head(_SHOW), *_all()),
)
