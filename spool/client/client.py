"""The client: one method for each thing that can be done with files."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import re
from collections.abc import AsyncIterable
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, Literal, Self
from urllib.parse import quote, unquote, urlsplit

from spool.client.connection import Connection
from spool.client.download import Content, Fetch
from spool.client.failures import Failure, StrangeAnswer
from spool.client.feed import FileFeed, StreamFeed, is_regular, read_through
from spool.client.file import parse_file
from spool.client.link import Link, MadeLink, parse_link
from spool.client.patience import Patience, persist
from spool.client.state import Note
from spool.client.upload import Upload, Wish
from spool.errors import NotFound, SpoolError
from spool.units import URL

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence
    from datetime import timedelta

    from spool.client.connection import Answer
    from spool.client.feed import Feed
    from spool.client.file import File
    from spool.model import Sort

    Progress = Callable[[int, int | None], None]

_RESERVED: Final = ("sha256", "expires_at")
_PAGE: Final = 100
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


class Client:
    """What a server has to offer, for one token. It is used within `async with`, and by one event loop.

    Every method raises SpoolError for what the server refuses and Failure for what goes wrong on this side. What may
    succeed in a while is tried again: a lost connection, 429, 500, 503; not a full disk.
    """

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
        Patience(tries)
        self._connection = Connection(address, token)
        self._state = state
        self._tries = tries

    async def __aenter__(self) -> Self:
        await self._connection.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._connection.__aexit__()

    async def put(  # noqa: PLR0913  # what can be said of a file
        self,
        source: str | os.PathLike[str] | BinaryIO | AsyncIterable[bytes],
        *,
        filename: str | None = None,
        media_type: str | None = None,
        metadata: Mapping[str, str | Sequence[str]] | None = None,
        expires: timedelta | None = None,
        progress: Progress | None = None,
    ) -> File:
        """The stored file, whose SHA-256 is that of the bytes which were sent.

        `source` is a path, a file that is open for reading bytes, or anything that gives bytes asynchronously. A
        regular file is sent from where it stands, and after a lost connection from where the server stands; of
        anything else 16 MiB are kept to be sent again. `expires` counts from now. `progress` is told the bytes that
        were sent, and their number if it is known. Cancelling is safe: with `state`, the next `put` of the same file
        goes on.

        Raises Mismatch if the server stored other bytes, Changed if a file changed meanwhile, Busy if another process
        sends the same file, OSError if it cannot be read, ValueError for metadata that has a reserved name.
        """
        query = _query(metadata or {})
        with ExitStack() as opened:
            if isinstance(source, str | os.PathLike):
                source = opened.enter_context(await asyncio.to_thread(Path(source).open, "rb"))
            feed = await asyncio.to_thread(_feed, source)
            name = _name_of(source) if filename is None else filename
            subject: dict[str, object] = {"server": self._connection.url, "filename": name, "media_type": media_type}
            subject |= {"metadata": query, "expires": expires and expires.total_seconds()}
            note = await asyncio.to_thread(self._note, feed, subject)
            if note is not None:
                opened.callback(note.close)
            wish = Wish(name, media_type, [*query, *_expiry(expires)])
            upload = Upload(self._connection, feed, wish, tries=self._tries, note=note, progress=progress or _ignore)
            return await upload.run(None if note is None else await asyncio.to_thread(note.read))

    def _note(self, feed: Feed, subject: dict[str, object]) -> Note | None:
        if self._state is None or not isinstance(feed, FileFeed):
            return None
        return Note.open(self._state, subject | feed.identity)

    async def info(self, id: str) -> File:
        """The record of a file. Raises NotFound."""
        answer = await persist(self._tries, lambda: self._connection.ask("GET", self._path(id)))
        return parse_file(answer.json())

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
                yield parse_file(record)
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
        fetch = Fetch(self._connection, content, tries=self._tries, progress=progress or _ignore)
        await fetch.run(target, replace=replace)
        return target

    async def delete(self, id: str) -> None:
        """The file is gone, durably. Raises NotFound, but not for what an earlier try of this call has deleted."""
        patience = Patience(self._tries)
        while True:
            try:
                await self._connection.ask("DELETE", self._path(id))
            except NotFound:
                if patience.failed:
                    return
                raise
            except (SpoolError, Failure) as error:
                await patience.wait(error)
            else:
                return

    async def link(self, id: str, *, expires: timedelta | None = None, downloads: int | None = None) -> MadeLink:
        """A new link: whoever has its address gets the file, without a token.

        `expires` counts from now; without it, the server says when it ends. `downloads` is how often the whole file is
        given out; without it, there is no limit. Whenever the server's answer was lost, one more link is there, whose
        address nobody knows. Raises NotFound.
        """
        wish = {**dict(_expiry(expires)), **({} if downloads is None else {"max_downloads": downloads})}
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
            file = parse_file((await self._connection.ask("GET", self._path(id))).json())
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
        if server != self._connection.url:
            raise ValueError(f"{id} is a file of another server than {self._connection.url}")
        return f"/files/{quote(name, safe='')}"


def split_address(address: str) -> tuple[str, str] | None:
    """The server and the id in the address of a file's record or of its content; None if it is another address."""
    match = re.fullmatch(r"(https?://[^?#]+)/files/([^/?#]+)(?:/content)?(?:\?[^#]*)?", address)
    return (match[1], unquote(match[2])) if match else None


def _query(metadata: Mapping[str, str | Sequence[str]]) -> list[tuple[str, str]]:
    if reserved := metadata.keys() & _RESERVED:
        raise ValueError(f"{', '.join(sorted(reserved))} cannot be the name of metadata")
    return [(name, item) for name, v in metadata.items() for item in ([v] if isinstance(v, str) else v)]


def _expiry(expires: timedelta | None) -> list[tuple[str, str]]:
    return [] if expires is None else [("expires_at", (datetime.now(UTC) + expires).isoformat())]


async def _whole(document: bytes) -> AsyncIterator[bytes]:
    yield document


def _feed(source: BinaryIO | AsyncIterable[bytes]) -> Feed:
    if isinstance(source, AsyncIterable):
        return StreamFeed(aiter(source))
    return FileFeed(source) if is_regular(source) else StreamFeed(read_through(source))


def _name_of(source: object) -> str:
    """The name of an open file, if it has one."""
    path = getattr(source, "name", None)
    return Path(path).name if isinstance(path, str) else ""


def _safe_name(name: str) -> str:
    """A name that a server gave, as one in the directory that was chosen, and no hidden one."""
    kept = re.sub(r"[\x00-\x1f\x7f/]", "_", name).lstrip(".")
    return kept or "unnamed"


def _ignore(_sent: int, _size: int | None) -> None:
    """Nobody wants to know."""
