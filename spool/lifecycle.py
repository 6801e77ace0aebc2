"""Pure: what may become of a resumable upload.

    open  --(its last byte is staged)-->  complete  --(row and file in one transaction)-->  finished

From open and complete it can also be cancelled or expire: its row and then its bytes go. Whoever meets a complete
upload finishes it: the request that completed it, the next one, or the sweep. A partial upload stays complete.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from spool.errors import Gone, InconsistentLength, NotFound, OffsetMismatch, TooLarge

if TYPE_CHECKING:
    from datetime import datetime

    from spool.model import Principal, Resumable, Staged


def visible(upload: Resumable, who: Principal, dialect: str, now: datetime) -> Resumable:
    """The upload, for the principal and the protocol that created it. Raises NotFound for others, Gone once expired.

    A guest's is for whoever comes by the same grant and knows its id, and not for the grant's owner.
    """
    if (upload.owner, upload.grant, upload.dialect) != (who.name, who.grant_id, dialect):
        raise NotFound("there is no such upload")
    if upload.expires_at <= now:
        raise Gone("this upload has expired")
    return upload


def with_length(upload: Resumable, length: int | None, max_size: int) -> Resumable:
    """The upload with its length known, if it is given. Raises InconsistentLength or TooLarge."""
    known = upload.intent.size
    if length is None or length == known:
        return upload
    if known is not None:
        raise InconsistentLength(f"the length of this upload is {known}, not {length}", length=known)
    if length < upload.staged.offset:
        raise InconsistentLength(f"{upload.staged.offset} bytes are here already", length=upload.staged.offset)
    if length > max_size:
        raise TooLarge(f"the file is larger than {max_size} bytes", limit=max_size)
    return replace(upload, intent=replace(upload.intent, size=length))


def require_offset(upload: Resumable, offset: int) -> None:
    """Raises OffsetMismatch unless the upload stands at `offset`."""
    if upload.staged.offset != offset:
        raise OffsetMismatch(
            f"this upload stands at {upload.staged.offset}, not at {offset}",
            **{"expected-offset": upload.staged.offset, "provided-offset": offset},
        )


def advanced(upload: Resumable, staged: Staged, completes: bool | None, *, whole: bool) -> Resumable:  # noqa: FBT001
    """The upload as it stands after a request's bytes; `whole` if the request's body ended properly.

    `completes` is what the client said of it: True, that the upload is complete with this body; False, that it is not;
    None, that it is when its length is reached. Raises InconsistentLength if it cannot be complete.
    """
    if completes and whole:
        upload = with_length(upload, staged.offset, staged.offset)
    reached = upload.intent.size == staged.offset
    complete = whole if completes else completes is None and reached
    return replace(upload, staged=staged, state="complete" if complete else "open")
