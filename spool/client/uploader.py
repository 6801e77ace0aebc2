"""What stores files, be it for a token or for a guest."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, Generic, Self, TypeVar

from spool.client.feed import FileFeed, StreamFeed, is_regular, read_through
from spool.client.file import Stored
from spool.client.patience import Patience
from spool.client.state import Note
from spool.client.upload import Upload, Wish

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import timedelta

    from spool.client.connection import Connection
    from spool.client.feed import Feed

    Progress = Callable[[int, int | None], None]

T = TypeVar("T", bound=Stored)

_RESERVED: Final = ("sha256", "expires_at")


class Uploader(Generic[T]):
    """Stores files at one address. It is used within `async with`, and by one event loop.

    Every method raises SpoolError for what the server refuses and Failure for what goes wrong on this side. What may
    succeed in a while is tried again: a lost connection, 429, 500, 503; not a full disk.
    """

    def __init__(self, connection: Connection, kind: type[T], *, place: str, state: Path | None, tries: int) -> None:
        """Uploads are created at `place`, and what they become has records of `kind`. Raises ValueError."""
        Patience(tries)
        self._connection = connection
        self._kind = kind
        self._place = place
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
    ) -> T:
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
            wish = Wish(self._place, name, media_type, [*query, *expiry(expires)])
            upload = Upload(
                self._connection, feed, wish, self._kind, tries=self._tries, note=note, progress=progress or ignore
            )
            return await upload.run(None if note is None else await asyncio.to_thread(note.read))

    def _note(self, feed: Feed, subject: dict[str, object]) -> Note | None:
        if self._state is None or not isinstance(feed, FileFeed):
            return None
        return Note.open(self._state, subject | feed.identity)


def expiry(expires: timedelta | None) -> list[tuple[str, str]]:
    """How a request says that something is to end so long from now; not at all for None."""
    return [] if expires is None else [("expires_at", (datetime.now(UTC) + expires).isoformat())]


def ignore(_sent: int, _size: int | None) -> None:
    """Nobody wants to know."""


def _query(metadata: Mapping[str, str | Sequence[str]]) -> list[tuple[str, str]]:
    if reserved := metadata.keys() & _RESERVED:
        raise ValueError(f"{', '.join(sorted(reserved))} cannot be the name of metadata")
    return [(name, item) for name, v in metadata.items() for item in ([v] if isinstance(v, str) else v)]


def _feed(source: BinaryIO | AsyncIterable[bytes]) -> Feed:
    if isinstance(source, AsyncIterable):
        return StreamFeed(aiter(source))
    return FileFeed(source) if is_regular(source) else StreamFeed(read_through(source))


def _name_of(source: object) -> str:
    """The name of an open file, if it has one."""
    path = getattr(source, "name", None)
    return Path(path).name if isinstance(path, str) else ""
