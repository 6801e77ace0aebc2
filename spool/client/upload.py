"""One upload by the IETF draft for resumable uploads, which ends with the file's record.

The upload is created without bytes, noted, and then sent. After every error the server is asked how far it is, and only
what is beyond is sent. The draft and not tus: the answer to the last byte is the record, so that a token that may only
upload can check the digest, and the rest of a file goes in one request without a length of pieces to choose.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Generic, TypeVar
from urllib.parse import quote

from spool.client.failures import Failure, Mismatch, StrangeAnswer
from spool.client.feed import FileFeed
from spool.client.file import Stored, parse_file
from spool.client.patience import Patience
from spool.errors import BadType, Gone, NotFound, SpoolError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from spool.client.connection import Answer, Connection
    from spool.client.feed import Feed
    from spool.client.state import Note

T = TypeVar("T", bound=Stored)

_LOST: Final = (NotFound, Gone)
"""There is no such upload any more."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a new upload is to become."""

    place: str
    """Where it is created, below the address of the connection."""
    filename: str
    media_type: str | None
    query: Sequence[tuple[str, str]]
    """Metadata, and `expires_at`."""


class Upload(Generic[T]):
    """Sends one feed until the server has made a file of it."""

    def __init__(  # noqa: PLR0913  # what an upload is made of
        self,
        connection: Connection,
        feed: Feed,
        wish: Wish,
        kind: type[T],
        *,
        tries: int,
        note: Note | None,
        progress: Callable[[int, int | None], None],
    ) -> None:
        self._connection = connection
        self._feed = feed
        self._wish = wish
        self._kind = kind
        self._patience = Patience(tries)
        self._note = note
        self._progress = progress
        self._path: str | None = None
        self._offset: int | None = None
        """Where the server stands; None while that is not known."""
        self._reached = 0
        self._lost = False

    async def run(self, path: str | None) -> T:
        """The file, which has the bytes that were sent. Goes on with the upload at `path`, if there is one still.

        Raises SpoolError, Failure, OSError. If it is cancelled or fails, the note tells where to go on.
        """
        self._path = path
        while True:
            try:
                answer = await self._step()
            except (SpoolError, Failure) as error:
                await self._recover(error)
            else:
                if answer is not None:
                    return await self._finish(answer)

    async def _step(self) -> Answer | None:
        """One request; the answer, if it is the one that ends the upload."""
        if self._path is None:
            return await self._create()
        if self._offset is None:
            await self._inquire(self._path)
            return None
        await self._feed.seek(self._offset)
        return await self._append(self._path, self._offset)

    async def _create(self) -> Answer | None:
        wish = self._wish
        headers = {"Upload-Complete": "?0", "Content-Length": "0"}
        if wish.filename:
            name = quote(wish.filename, safe="", errors="replace")
            headers["Content-Disposition"] = f"attachment; filename*=UTF-8''{name}"
        if self._feed.size is not None:
            headers["Upload-Length"] = str(self._feed.size)
        if wish.media_type is not None:
            headers["Content-Type"] = wish.media_type
        answer = await self._connection.ask("POST", wish.place, headers=headers, query=wish.query)
        if _is_complete(answer):
            return answer  # it has no bytes
        self._path = _parse_path(answer.headers.get("Location", ""))
        self._offset = 0
        await self._remember(self._path)
        return None

    async def _inquire(self, path: str) -> None:
        answer = await self._connection.ask("GET", path)  # HEAD could not say what is wrong
        self._arrive(_parse_offset(answer))

    async def _append(self, path: str, offset: int) -> Answer | None:
        last, end = self._feed.last, offset + self._feed.left
        headers = {
            "Upload-Offset": str(offset),
            "Upload-Complete": "?1" if last else "?0",
            "Content-Type": "application/partial-upload",
            "Content-Length": str(end - offset),
        }
        answer = await self._connection.ask("PATCH", path, headers=headers, body=self._told(offset))
        if _is_complete(answer):
            return answer
        if last or _parse_offset(answer) != end:
            raise StrangeAnswer("all of it was sent, but the server says that something else is there")
        self._arrive(end)
        return None

    def _arrive(self, offset: int) -> None:
        self._offset = offset
        if offset > self._reached:
            self._reached = offset
            self._patience.renew()
        self._progress(offset, self._feed.size)

    async def _told(self, offset: int) -> AsyncIterator[bytes]:
        async for piece in self._feed.pieces():
            yield piece
            offset += len(piece)
            self._progress(offset, self._feed.size)

    async def _recover(self, error: SpoolError | Failure) -> None:
        """Returns when the next step may be taken; raises the error if none would help."""
        resumed, self._offset = self._path is not None, None
        if isinstance(error, (BadType, *_LOST)):
            await self._forget()
        if isinstance(error, _LOST) and resumed and isinstance(self._feed, FileFeed) and not self._lost:
            self._path, self._reached, self._lost = None, 0, True  # a new upload, but only once
            return
        await self._patience.wait(error)

    async def _finish(self, answer: Answer) -> T:
        file = parse_file(self._kind, answer.json())
        await self._forget()
        ours = self._feed.sha256()
        if file.sha256 != ours:
            raise Mismatch(f"the server stored {file.id} with the SHA-256 {file.sha256}, but {ours} was sent")
        self._progress(file.size, file.size)
        return file

    async def _remember(self, path: str) -> None:
        if self._note is not None:
            await asyncio.to_thread(self._note.write, path, self._wish.filename)

    async def _forget(self) -> None:
        if self._note is not None:
            await asyncio.to_thread(self._note.remove)


def _is_complete(answer: Answer) -> bool:
    return answer.headers.get("Upload-Complete") == "?1" and answer.status == 201  # noqa: PLR2004


def _parse_offset(answer: Answer) -> int:
    value = answer.headers.get("Upload-Offset", "")
    if not re.fullmatch(r"[0-9]{1,15}", value):
        raise StrangeAnswer("the answer has no Upload-Offset, as it has from a Spool")
    return int(value)


def _parse_path(location: str) -> str:
    """The upload's address below that of the server, which may know itself by another name than we do."""
    match = re.search(r"/uploads/([0-9A-Za-z_-]{1,128})$", location)
    if not match:
        raise StrangeAnswer("the answer does not tell where the upload is, as it does from a Spool")
    return f"/uploads/{match[1]}"
