"""Which problems an operation answers with, and how: generated from `spool.errors`, and worded as the dialects do."""

from __future__ import annotations

from inspect import getdoc
from typing import TYPE_CHECKING, Final, NamedTuple

from spool.errors import MethodNotAllowed, PassphraseRequired, SpoolError, Unauthenticated, Unavailable, Unsatisfiable
from spool.protocol.resumable import Limits, Result
from spool.protocol.rufh import Rufh
from spool.protocol.tus import Tus
from spool.web.api.terms import ADDRESS, NUMBER, At, header

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from spool.web.api.terms import Field, Operation, Speech

_NO_STORE: Final = header("Cache-Control", "`no-store`", {"const": "no-store"}, required=True)
_NO_SNIFF: Final = header("X-Content-Type-Options", "`nosniff`", {"const": "nosniff"}, required=True)
_RETRY_AFTER: Final = header("Retry-After", "After how many seconds another try may succeed.", NUMBER)
_BY_KIND: Final[Mapping[type[SpoolError], Field]] = {
    Unauthenticated: header("WWW-Authenticate", "`Bearer`", required=True),
    PassphraseRequired: header(
        "WWW-Authenticate", "`Basic`; `FormBased` for a request with `X-Requested-With`", required=True
    ),
    Unsatisfiable: header("Content-Range", "`bytes */SIZE`", {"pattern": r"^bytes \*/[0-9]+$"}, required=True),
    MethodNotAllowed: header("Allow", "The methods that this address takes.", required=True),
}
"""The header that comes with a problem, always."""
_OFFSET: Final = header("Upload-Offset", "How far the upload has come, durably.", NUMBER)
_SPOKEN: Final[Mapping[Speech, Sequence[Field]]] = {
    "plain": (),
    "tus": (
        header("Tus-Resumable", "The version of tus.", {"const": "1.0.0"}),
        header("Tus-Version", "The versions of tus, where the request speaks another one."),
        _OFFSET,
        header("Upload-Expires", "When the unfinished upload will be given up."),
        header("Location", "The address of the unfinished upload.", ADDRESS),
        header("Content-Location", "The record of the file that the upload became.", ADDRESS),
        header("Link", "`rel=enclosure`: the bytes of that file."),
    ),
    "rufh": (
        _OFFSET,
        header("Upload-Complete", "`?1`: about the file. `?0`: about the upload.", {"enum": ["?0", "?1"]}),
        header("Upload-Limit", "`max-size` in bytes, `max-age` in seconds."),
        header("Accept-Patch", "The type of a PATCH, where another one was sent."),
    ),
}
"""What a dialect may tell with a refusal."""


class Refusal(NamedTuple):
    """One problem as it is answered."""

    kind: type[SpoolError]
    status: int
    type: str


def refusals(operation: Operation) -> dict[int, list[Refusal]]:
    """Every problem that the operation can answer with, by status."""
    found: dict[int, list[Refusal]] = {}
    for raised in operation.problems:
        kind = raised.kind if isinstance(raised, At) else raised
        refusal = _worded(kind, operation.speech)
        if isinstance(raised, At):
            refusal = refusal._replace(status=raised.status)
        found.setdefault(refusal.status, []).append(refusal)
    return {status: sorted(found[status], key=lambda refusal: refusal.kind.slug) for status in sorted(found)}


def headers(refused: Sequence[Refusal], speech: Speech) -> list[Field]:
    """What an answer with one of these problems, which share a status, may have or always has."""
    certain = refused[0].status == Unavailable.status or all(refusal.kind.retry_after for refusal in refused)
    retry = [header("Retry-After", _RETRY_AFTER.text, NUMBER, required=certain)]
    retries = certain or any(refusal.kind.retry_after for refusal in refused)
    own = [field for kind, field in _BY_KIND.items() if kind in {refusal.kind for refusal in refused}]
    return [_NO_STORE, _NO_SNIFF, *(retry if retries else []), *own, *_SPOKEN[speech]]


def meaning(kind: type[SpoolError]) -> str:
    """What a problem type means, on one line."""
    return " ".join((getdoc(kind) or "").split())


def _worded(kind: type[SpoolError], speech: Speech) -> Refusal:
    own = f"/problems/{kind.slug}"
    if speech == "plain":
        return Refusal(kind, kind.status, own)
    dialect = Tus(Limits(0, 0)) if speech == "tus" else Rufh(Limits(0, 0))
    head = dialect.refuse(kind(""), Result())
    return Refusal(kind, head.status, head.problem_type or own)
