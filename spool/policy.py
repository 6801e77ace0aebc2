"""Pure decisions: what may be stored, for how long, and who may do what."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

from spool.errors import BadRequest, BadType, Forbidden, Gone, NotFound, TooLarge
from spool.model import Terms

if TYPE_CHECKING:
    from datetime import datetime

    from spool.model import File, Grant, Intent, Link, Principal

SCOPES: Final = ("upload", "read", "delete", "grant", "metrics", "admin")
"""What a token can allow. `admin` allows everything."""
LOCAL: Final = "local"
"""The principal that everybody is while no token has been made."""
GRANT_LASTS: Final = timedelta(days=7)
"""How long a grant, or a link, works where nothing else is said."""
GRANT_FILES: Final = 100
"""How many files may come by a grant where nothing else is said."""
MAX_GRANT_FILES: Final = 100_000
MAX_NOTE: Final = 4096
MAX_PASSPHRASE: Final = 1024
"""Bytes of one."""
REMEMBERED: Final = timedelta(days=30)
"""How long a grant or link that has ended is remembered, so that who comes late learns what became of it."""


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
    grant_types: tuple[str, ...] = ()
    """Globs that a guest's file must match as well; none means every type."""

    def under(self, grant: Grant | None) -> Policy:
        """What this spool takes in by the grant."""
        if grant is None:
            return self
        size = min(self.max_file_size, grant.max_file_size or self.max_file_size)
        return replace(self, max_file_size=size, grant_types=grant.types)

    def admit(self, intent: Intent, now: datetime) -> Terms:
        """What the intent may become, by its claims alone.

        Raises TooLarge for a declared size over the limit, BadRequest for an expiry that is not in the future.
        """
        if intent.size is not None and intent.size > self.max_file_size:
            raise file_too_large(self.max_file_size)
        if intent.expires_at is not None:
            require_future(intent.expires_at, now)
        return Terms(self.max_file_size, self.expiry(intent.expires_at, now))

    def expiry(self, wanted: datetime | None, since: datetime) -> datetime | None:
        """When a file stored at `since` expires: as wanted, but not later than policy allows."""
        if self.expire_after is None:
            return wanted
        latest = since + self.expire_after
        return latest if wanted is None else min(wanted, latest)

    def recheck(self, media_type: str) -> None:
        """Raises BadType if files of the detected type are not taken in."""
        allowed = all(not globs or _matches(media_type, globs) for globs in (self.allow_types, self.grant_types))
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


def has_ended(given: Grant | Link, now: datetime) -> bool:
    """Whether the grant or link was revoked, or has expired."""
    return given.revoked_at is not None or given.expires_at <= now


def require_lasting(given: Grant | Link, now: datetime) -> None:
    """Raises Gone if nothing can come by the grant any more, or nobody is given the file by the link."""
    if has_ended(given, now):
        raise Gone("this link has expired" if given.revoked_at is None else "whoever gave out this link has revoked it")


def require_grant_owner(who: Principal, grant: Grant) -> None:
    """Raises NotFound unless the grant is the principal's own, or they are an admin."""
    if "admin" not in who.scopes and who.name != grant.owner:
        raise NotFound("there is no such grant")


def require_link_owner(who: Principal, link: Link, file: File) -> None:
    """Raises Forbidden unless the principal may revoke the link: who made it may, the file's uploader, and an admin."""
    if "admin" not in who.scopes and who.name not in (link.created_by, file.owner):
        raise Forbidden("only who made a link, the uploader of its file, or an admin, may revoke it")
