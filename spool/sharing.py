"""The Protocols of what people without an account come by: grants, by which they upload, and links, to download.

They are ports as those in `ports` are, and raise what those raise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from spool.model import By, FileId, Grant, GrantId, Link, LinkId, Resumable, Usage


class Grants(Protocol):
    """Leave that owners have given to guests. Every verb but `forget_grants` is one transaction, and durable.

    What is told by whom has its entry in the audit log, as `ports.Audit` says.
    """

    async def add_grant(self, grant: Grant, secret_hash: str, by: By | None = None) -> None:
        """The grant is known, under the hex SHA-256 of its secret."""

    async def grant_of(self, secret_hash: str) -> Grant | None:
        """The grant with this secret, ended or not, with its owner's override; None if there is none."""

    async def grant(self, id: GrantId) -> Grant:
        """The same by its id. Raises NotFound."""

    async def grants(
        self, owner: str | None, after: Grant | None, limit: int, *, newest: bool = False
    ) -> Sequence[Grant]:
        """At most `limit` grants of `owner`, or of all, from the one after `after` on; no overrides.

        The oldest come first, or the newest.
        """

    async def revoke_grant(self, id: GrantId, now: datetime, by: By | None = None) -> Sequence[Resumable]:
        """From now on `Files.finish` refuses what came by this grant, and it has no unfinished uploads.

        Returns those that it had: their staged blobs are the caller's to delete. Idempotent; of one that was revoked
        already the audit log tells nothing more. Raises NotFound.
        """

    async def grant_usage(self, id: GrantId) -> Usage:
        """What has come by the grant, and the uploads that are not finished; nothing for one that there is not."""

    async def forget_grants(self, before: datetime) -> int:
        """Grants that expired or were revoked before `before` are gone, their files stay; returns how many were.

        A lot at a time, each in a transaction: other writes wait for no more than one.
        """


class Links(Protocol):
    """Addresses at which single files are. Every verb but `forget_links` is one transaction, and durable.

    A link goes with its file. The audit log tells of links as of grants.
    """

    async def add_link(self, link: Link, secret_hash: str, by: By | None = None) -> None:
        """The link is known, under the hex SHA-256 of its secret. Raises NotFound if there is no such file."""

    async def link_of(self, secret_hash: str) -> Link | None:
        """The link with this secret, ended or not; None if there is none."""

    async def links(self, file_id: FileId, limit: int) -> Sequence[Link]:
        """At most `limit` links of the file, newest first."""

    async def revoke_link(self, id: LinkId, now: datetime, by: By | None = None) -> None:
        """`take_download` refuses from now on. Idempotent. Raises NotFound."""

    async def take_download(self, id: LinkId, size: int, downloads: int) -> None:
        """`size` more of the file's bytes are being given out, the last one among them `downloads` times.

        The last byte is given out at most `max_downloads` times, and all bytes together at most that many times and
        once more. Raises Gone if this would be more, or the link was revoked or is gone, and nothing has changed.
        """

    async def give_back(self, id: LinkId, size: int, downloads: int) -> None:
        """So much of what was taken was not given out."""

    async def forget_links(self, before: datetime) -> int:
        """Links that expired or were revoked before `before` are gone, in lots as grants; returns how many were."""
