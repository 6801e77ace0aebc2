"""The Protocol of files that were deleted and can still be brought back.

It is a port as those in `ports` are, and raises what those raise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from spool.model import By, File, FileId


class Hidden(NamedTuple):
    """A file that was deleted, whole, until it is brought back or its time is over."""

    file: File
    until: datetime


class Changes(NamedTuple):
    """What has become of files since a position in the audit log."""

    position: int
    """From where to ask on."""
    ids: Sequence[FileId]


class Hiding(Protocol):
    """Files between deletion and their end. Every verb is one transaction, durable when it returns."""

    async def hide(self, id: FileId, until: datetime, by: By) -> Hidden:
        """No other verb knows the file or its links, but its blob is referenced and its owner's usage has it.

        `until` is the file's own expiry if that is sooner. Raises NotFound, also if it had expired by `by.at`.
        """

    async def restore(self, id: FileId, by: By) -> File:
        """The file and its links are there again, as they were. Raises NotFound if its time was over at `by.at`."""

    async def hidden(self, now: datetime, limit: int) -> Sequence[Hidden]:
        """At most `limit` hidden files whose time is not over, those that have longest first."""

    async def changes(self, after: int | None, limit: int) -> Changes:
        """Files that somebody changed, deleted or brought back, by the first `limit` entries of that above `after`.

        With None there are none, and the position is that of now. What is done by rule is not told.
        """

    async def end_hidden(self, now: datetime, limit: int) -> Sequence[File]:
        """The records of at most `limit` hidden files whose time is over are gone; returns what they were.

        Their blobs are the caller's to delete.
        """
