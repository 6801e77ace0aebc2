"""Pure decisions: what may be stored, for how long, and who may do what."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

from spool.errors import BadRequest, BadType, Forbidden, TooLarge
from spool.model import Grant

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from spool.model import File, Intent, Principal

SCOPES: Final = ("upload", "read", "delete", "metrics", "admin")
"""What a token can allow. `admin` allows everything."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What this spool takes in."""

    max_file_size: int
    allow_types: tuple[str, ...] = ()
    """Globs over the detected media type; none means every type."""
    deny_types: tuple[str, ...] = ()
    """Globs over the detected media type; a type that is both allowed and denied is denied."""
    expire_after: timedelta | None = None
    """The longest a file may stay; None means for ever."""

    def admit(self, intent: Intent, now: datetime) -> Grant:
        """What the intent may become, by its claims alone.

        Raises TooLarge for a declared size over the limit, BadRequest for an expiry that is not in the future.
        """
        if intent.size is not None and intent.size > self.max_file_size:
            raise file_too_large(self.max_file_size)
        if intent.expires_at is not None:
            require_future(intent.expires_at, now)
        return Grant(self.max_file_size, self.expiry(intent.expires_at, now))

    def expiry(self, wanted: datetime | None, since: datetime) -> datetime | None:
        """When a file stored at `since` expires: as wanted, but not later than policy allows."""
        if self.expire_after is None:
            return wanted
        latest = since + self.expire_after
        return latest if wanted is None else min(wanted, latest)

    def recheck(self, media_type: str) -> None:
        """Raises BadType if files of the detected type are not taken in."""
        allowed = not self.allow_types or _matches(media_type, self.allow_types)
        if not allowed or _matches(media_type, self.deny_types):
            raise BadType(f"files of type {media_type} are not accepted here", media_type=media_type)


def file_too_large(limit: int) -> TooLarge:
    """The refusal of a file over `limits.max_file_size`, declared or counted."""
    return TooLarge(f"the file is larger than {limit} bytes", limit=limit)


def require_future(expires_at: datetime, now: datetime) -> None:
    """Raises BadRequest for an expiry that has come already."""
    if expires_at <= now:
        raise BadRequest("expires_at is not in the future")


def _matches(media_type: str, globs: tuple[str, ...]) -> bool:
    return any(fnmatchcase(media_type, glob) for glob in globs)


def require(who: Principal, scope: str) -> None:
    """Raises Forbidden unless the principal's scopes cover `scope`."""
    if scope not in who.scopes and "admin" not in who.scopes:
        raise Forbidden(f"this needs a token with the scope {scope!r}", scope=scope)


def require_edit(who: Principal, file: File) -> None:
    """Raises Forbidden unless the principal may change this record: its uploader may, and an admin."""
    if "admin" not in who.scopes and who.name != file.owner:
        raise Forbidden("only the uploader of a file, or an admin, may change its record")
