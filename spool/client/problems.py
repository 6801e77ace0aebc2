"""Problem documents (RFC 9457) as the errors that they stand for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from spool.client.failures import StrangeAnswer
from spool.errors import (
    CompletedUpload,
    CutOff,
    Damaged,
    Forbidden,
    InconsistentLength,
    Internal,
    NotFound,
    OffsetMismatch,
    RequestTimeout,
    SpoolError,
    StorageFull,
    Unauthenticated,
    Unavailable,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spool.client.failures import Failure

_OF_THE_DRAFT: Final[Mapping[str, type[SpoolError]]] = {
    "mismatching-upload-offset": OffsetMismatch,
    "inconsistent-upload-length": InconsistentLength,
    "completed-upload": CompletedUpload,
}
"""Problem types that the draft names, by the end of their addresses."""
_GATEWAY: Final = (502, 503, 504)
"""What a proxy says for a server that it does not reach."""
_BARE: Final = {kind.status: kind for kind in (Unauthenticated, Forbidden, NotFound, Damaged)}
"""What an answer to HEAD can stand for, which has no document."""
_PASSING: Final = (CutOff, Internal, OffsetMismatch, RequestTimeout)
"""What may go well the next time, though the server names no time for it."""


def parse_problem(status: int, headers: Mapping[str, str], body: bytes) -> SpoolError | Failure:
    """The error that an answer of 400 or more stands for. Its `members` have the `request_id`."""
    try:
        document = json.loads(body)
        kind = _kinds()[str(document["type"]).replace("#", "/").rpartition("/")[2]]
        members = {str(k): v for k, v in document.items() if k not in ("type", "title", "status", "detail")}
        error = kind(str(document["detail"]), **members)
    except (ValueError, KeyError, TypeError):
        if not body and status in _BARE:
            return _BARE[status](f"the answer is {status}")
        if status not in _GATEWAY:
            kind_of_answer = headers.get("Content-Type", "no content")
            return StrangeAnswer(f"the answer is {status} with {kind_of_answer}, which is not from a Spool")
        error = Unavailable(f"a server on the way answered {status}")
    error.retry_after = _parse_seconds(headers.get("Retry-After", "")) or error.retry_after
    return error


def is_passing(error: SpoolError) -> bool:
    """Whether the same request may succeed in a while. A disk that is full seldom gives way to one who waits."""
    return isinstance(error, _PASSING) or (error.retry_after is not None and not isinstance(error, StorageFull))


def _kinds() -> dict[str, type[SpoolError]]:
    """Every problem type by its slug."""
    found: dict[str, type[SpoolError]] = dict(_OF_THE_DRAFT)
    waiting = SpoolError.__subclasses__()
    while waiting:
        kind = waiting.pop()
        if kind.__module__ == SpoolError.__module__:
            found[kind.slug] = kind
        waiting.extend(kind.__subclasses__())
    return found


def _parse_seconds(value: str) -> int | None:
    return int(value) if value.isascii() and value.isdigit() else None
