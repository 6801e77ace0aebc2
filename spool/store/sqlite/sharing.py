"""What the SQLite index knows of grants and links."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from spool.store.sqlite import grants, links
from spool.store.sqlite.rows import microseconds

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from spool.model import By, FileId, Grant, GrantId, Link, LinkId, Resumable, Usage
    from spool.sharing import Grants, Links
    from spool.store.sqlite.database import Database

_ENDED: Final = "min(expires_at, ifnull(revoked_at, expires_at))"
"""When a grant or a link ended, word for word as in the index."""


class Sharing:
    """Grants and Links in one database."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def add_grant(self, grant: Grant, secret_hash: str, by: By | None = None) -> None:
        await self._db.write(lambda connection: grants.add(connection, grant, secret_hash, by))

    async def grant_of(self, secret_hash: str) -> Grant | None:
        return await self._db.look(lambda connection: grants.by_secret(connection, secret_hash))

    async def grant(self, id: GrantId) -> Grant:
        return await self._db.look(lambda connection: grants.read(connection, id))

    async def grants(
        self, owner: str | None, after: Grant | None, limit: int, *, newest: bool = False
    ) -> Sequence[Grant]:
        return await self._db.read(lambda connection: grants.page(connection, owner, after, limit, newest=newest))

    async def revoke_grant(self, id: GrantId, now: datetime, by: By | None = None) -> Sequence[Resumable]:
        return await self._db.make_room(lambda connection: grants.revoke(connection, id, now, by))

    async def grant_usage(self, id: GrantId) -> Usage:
        return await self._db.read(lambda connection: grants.usage(connection, id))

    async def forget_grants(self, before: datetime) -> int:
        return await self._db.forget("grants", _ENDED, microseconds(before))

    async def add_link(self, link: Link, secret_hash: str, by: By | None = None) -> None:
        await self._db.write(lambda connection: links.add(connection, link, secret_hash, by))

    async def link_of(self, secret_hash: str) -> Link | None:
        return await self._db.look(lambda connection: links.by_secret(connection, secret_hash))

    async def links(self, file_id: FileId, limit: int) -> Sequence[Link]:
        return await self._db.read(lambda connection: links.of_file(connection, file_id, limit))

    async def revoke_link(self, id: LinkId, now: datetime, by: By | None = None) -> None:
        await self._db.make_room(lambda connection: links.revoke(connection, id, now, by))

    async def take_download(self, id: LinkId, size: int, downloads: int) -> None:
        await self._db.write(lambda connection: links.take(connection, id, size, downloads))

    async def give_back(self, id: LinkId, size: int, downloads: int) -> None:
        await self._db.write(lambda connection: links.give_back(connection, id, size, downloads))

    async def forget_links(self, before: datetime) -> int:
        return await self._db.forget("links", _ENDED, microseconds(before))


if TYPE_CHECKING:
    _grants: type[Grants] = Sharing
    _links: type[Links] = Sharing
