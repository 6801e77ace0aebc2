"""The client: one method for each thing that can be done with files."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import quote, unquote, urlsplit

from spool.client.connection import Connection
from spool.client.deletion import delete_at, delete_by, split_delete_url
from spool.client.download import Content, Fetch
from spool.client.failures import StrangeAnswer
from spool.client.file import File, parse_file
from spool.client.link import Link, MadeLink, parse_link
from spool.client.patience import persist
from spool.client.uploader import Uploader, expiry, ignore
from spool.units import URL

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from datetime import datetime, timedelta

    from spool.client.connection import Answer
    from spool.client.uploader import Progress
    from spool.model import Sort

_PAGE: Final = 100
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


class Client(Uploader[File]):
    """What a server has to offer, for one token."""

    def __init__(self, url: str, token: str | None = None, *, state: Path | None = None, tries: int = 6) -> None:
        """`url` is the server's address, with the path below which it is, if any.

        `state` is a directory that remembers unfinished uploads of local files, so that `put` goes on with them also
        in another process; without it, only within one call. `tries` is how often something is tried before its error
        is raised; what makes progress is given all of them anew. Raises ValueError.
        """
        address = URL.parse(url)
        if not address:
            raise ValueError("the address of a server is needed")
        if token is not None and not re.fullmatch(r"[!-~]+", token):
            raise ValueError("the token holds characters that no token has")
        connection = Connection(address, token and f"Bearer {token}")
        super().__init__(connection, File, place="/files", state=state, tries=tries)

    async def info(self, id: str) -> File:
        """The record of a file. Raises NotFound."""
        answer = await persist(self._tries, lambda: self._connection.ask("GET", self._path(id)))
        return parse_file(File, answer.json())

    async def list(  # noqa: PLR0913  # the filters of a listing
        self,
        *,
        q: str | None = None,
        filename: str | None = None,
        media_type: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        grant: str | None = None,
        sort: Sort = "created_at",
        order: Literal["asc", "desc"] = "desc",
    ) -> AsyncIterator[File]:
        """Every file that passes all filters, the newest first; pages are asked for as they are needed.

        `q` is part of a file's name; `filename` and `media_type` are globs over the whole; files were created at
        `since` or after, and before `until`, and came by the grant with the id `grant`. `sort` is `created_at`, `size`
        or `filename`, `order` `desc` or `asc`.
        """
        given: dict[str, str | None] = {
            "q": q,
            "filename": filename,
            "media_type": media_type,
            "grant": grant,
            "sort": sort,
            "order": order,
        }
        given |= {"since": None if since is None else since.isoformat()}
        given |= {"until": None if until is None else until.isoformat()}
        query = [(name, value) for name, value in given.items() if value is not None]
        cursor: str | None = None
        while True:
            page = [*query, ("limit", str(_PAGE)), *([("cursor", cursor)] if cursor else [])]
            document = (await persist(self._tries, partial(self._connection.ask, "GET", "/files", query=page))).json()
            if not isinstance(document.get("files"), list):
                raise StrangeAnswer("the answer is no listing, as it is from a Spool")
            for record in document["files"]:
                yield parse_file(File, record)
            before, cursor = cursor, document.get("next")
            if cursor is None or cursor == before:
                return

    async def get(self, id: str, to: str | os.PathLike[str], *, progress: Progress | None = None) -> Path:
        """The path at which all bytes of the file are now, durably and with the right SHA-256.

        `id` names the file, or is the address of its bytes, such as a signed one. `to` is the path of the file to be
        made, which is replaced if it is there; or a directory, in which the file gets the name that it has on the
        server, and nothing is replaced. What a lost connection, a cancellation or a crash leaves is a partial file in
        that directory, with which the next `get` goes on. `progress` is told the bytes that are there, and their
        number.

        Raises NotFound, Damaged, Mismatch, Busy, OSError; FileExistsError if nothing may be replaced.
        """
        content, name = await persist(self._tries, lambda: self._locate(id))
        target, replace = Path(to), True
        if await asyncio.to_thread(target.is_dir):
            target, replace = target / name, False
            if await asyncio.to_thread(os.path.lexists, target):
                raise FileExistsError(errno.EEXIST, "there is such a file already", str(target))
        fetch = Fetch(self._connection, content, tries=self._tries, progress=progress or ignore)
        await fetch.run(target, replace=replace)
        return target

    async def delete(self, id: str) -> None:
        """The file is gone, durably; `id` may be a `delete_url`, too, for which no token is sent.

        Raises NotFound, but not for what an earlier try of this call has deleted.
        """
        if found := split_delete_url(id):
            self._require_own(found[0])
            await delete_by(id, server=self._connection.url, tries=self._tries)
        else:
            await delete_at(self._connection, self._path(id), self._tries)

    async def link(self, id: str, *, expires: timedelta | None = None, downloads: int | None = None) -> MadeLink:
        """A new link: whoever has its address gets the file, without a token.

        `expires` counts from now; without it, the server says when it ends. `downloads` is how often the whole file is
        given out; without it, there is no limit. Whenever the server's answer was lost, one more link is there, whose
        address nobody knows. Raises NotFound.
        """
        wish = {**dict(expiry(expires)), **({} if downloads is None else {"max_downloads": downloads})}
        document = json.dumps(wish).encode()
        headers = {"Content-Type": "application/json", "Content-Length": str(len(document))}
        path = f"{self._path(id)}/links"

        async def make() -> Answer:
            return await self._connection.ask("POST", path, headers=headers, body=_whole(document))

        return parse_link(MadeLink, (await persist(self._tries, make)).json())

    async def links(self, id: str) -> Sequence[Link]:
        """The newest 1000 links to a file, also those that have ended; the newest first. Raises NotFound."""
        answer = await persist(self._tries, lambda: self._connection.ask("GET", f"{self._path(id)}/links"))
        links = answer.json().get("links")
        if not isinstance(links, list):
            raise StrangeAnswer("the answer is no list of links, as it is from a Spool")
        return [parse_link(Link, record) for record in links]

    async def revoke_link(self, id: str, link_id: str) -> None:
        """The link to the file `id` has ended, durably; it may have before. Raises NotFound if there is none."""
        path = f"{self._path(id)}/links/{quote(link_id, safe='')}"
        await persist(self._tries, lambda: self._connection.ask("DELETE", path))

    async def _locate(self, id: str) -> tuple[Content, str]:
        """Where the bytes are, and a name for them."""
        if "://" not in id or split_address(id):
            file = parse_file(File, (await self._connection.ask("GET", self._path(id))).json())
            name = _safe_name(file.filename)
            return Content(f"/media/{quote(file.id, safe='')}/{quote(name, safe='')}", file.size, file.sha256), name
        async with self._connection.fetch(id, {}, "HEAD") as head:
            sha256, size = head.headers.get("ETag", "").strip('"'), head.headers.get("Content-Length", "")
        if not (_SHA256.fullmatch(sha256) and size.isdigit()):
            raise StrangeAnswer("the answer does not tell size and SHA-256, as it does for the bytes of a Spool")
        return Content(id, int(size), sha256), _safe_name(unquote(urlsplit(id).path.rpartition("/")[2]))

    def _path(self, id: str) -> str:
        """Where the record of a file is on this server; `id` may be its address. Raises ValueError."""
        server, name = split_address(id) or (self._connection.url, id)
        self._require_own(server)
        return f"/files/{quote(name, safe='')}"

    def _require_own(self, server: str) -> None:
        if server != self._connection.url:
            raise ValueError(f"this is a file of {server}, which is another server than {self._connection.url}")


def split_address(address: str) -> tuple[str, str] | None:
    """The server and the id in the address of a file's record or of its content; None if it is another address."""
    match = re.fullmatch(r"(https?://[^?#]+)/files/([^/?#]+)(?:/content)?(?:\?[^#]*)?", address)
    return (match[1], unquote(match[2])) if match else None


async def _whole(document: bytes) -> AsyncIterator[bytes]:
    yield document


def _safe_name(name: str) -> str:
    """A name that a server gave, as one in the directory that was chosen, and no hidden one."""
    kept = re.sub(r"[\x00-\x1f\x7f/]", "_", name).lstrip(".")
    return kept or "unnamed"
