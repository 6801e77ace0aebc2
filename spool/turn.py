"""A turn: one request's time at a resumable upload."""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Protocol

from spool import lifecycle
from spool.errors import BadType, Gone, NotFound, SpoolError, Superseded, TooLarge
from spool.staging import HEAD, Stage, batches

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

    from spool.counting import Hold
    from spool.ingest import Ingest
    from spool.model import Resumable, UploadId
    from spool.policy import Policy
    from spool.ports import BlobStore, BlobWriter, Uploads
    from spool.staging import Hashes

_CHECKPOINT: Final = 64 * 1024 * 1024
_CHECKPOINT_SECONDS: Final = 1.0
"""The row advances after so many bytes or seconds while more are coming: what a crash may cost."""


@dataclass(frozen=True, slots=True)
class Verification:
    """A check of one request's bytes, on which it depends whether any of them are kept."""

    algorithms: frozenset[str]
    """As hashlib calls them."""
    check: Callable[[Mapping[str, bytes]], None]
    """Is given the digests by algorithm, and raises if they are not as they should be."""


class Keeper(Protocol):
    """Who gives out turns, and keeps what outlives them."""

    ingest: Ingest
    blobs: BlobStore
    uploads: Uploads

    def hashes_at(self, upload: Resumable) -> Hashes:
        """The upload's running hashes, to go on with; empty if they are not known at its offset."""

    def remember(self, upload: Resumable, hashes: Hashes) -> None:
        """These are the upload's hashes at its offset."""

    def renewed(self, upload: Resumable) -> Resumable:
        """The upload with its whole time to live before it."""

    def end(self, turn: Turn) -> None:
        """The turn is over, and the next one may begin."""

    async def give_up(self, id: UploadId) -> None:
        """The upload and its staged bytes are gone."""


class Turn:
    """One request's time at an upload; nobody else writes to it meanwhile."""

    def __init__(self, keeper: Keeper, id: UploadId, policy: Policy) -> None:
        """`policy` is that for whoever takes the turn."""
        self.id = id
        self._policy = policy
        self.let_go: Callable[[], None]
        """Lets the next turn begin; idempotent."""
        self.held = ExitStack()
        """What the turn holds until its row counts what arrived: it is let go of when the turn has been saved."""
        self.upload: Resumable
        """As its row is, or as it will be once this turn is saved."""
        self._keeper = keeper
        self._stopped = False
        self._interrupt: Callable[[Exception], None] | None = None
        self._writer: BlobWriter | None = None
        self._stage: Stage | None = None
        self._hashes: Hashes = {}
        self._completes: bool | None = None
        self._whole = False
        self._keeps = True
        """What was received is worth an advance of the row."""
        self._doomed = False

    async def begin(self) -> None:
        """The epoch is raised, unless the upload is finished. Raises NotFound."""
        upload = await self._keeper.uploads.upload(self.id)
        self.upload = upload if upload.state == "finished" else await self._keeper.uploads.claim(self.id)

    def stop(self) -> None:
        """The turn will end soon: what it has received is saved, and its request is told Superseded."""
        self._stopped = True
        if self._interrupt is not None:
            self._interrupt(_superseded())

    def expect(self, length: int | None) -> None:
        """The upload's length is known, if it is given. Raises InconsistentLength or TooLarge."""
        self.upload = lifecycle.with_length(self.upload, length, self._policy.max_file_size)

    def expect_at(self, offset: int, size: int) -> None:
        """The upload stands at `offset`, and has room for `size` bytes. Raises OffsetMismatch or TooLarge."""
        lifecycle.require_offset(self.upload, offset)
        if size > self._room():
            raise self._too_large()

    async def receive(  # noqa: PLR0913  # all but the first two have a default
        self,
        body: AsyncIterator[bytes],
        interrupt: Callable[[Exception], None],
        *,
        completes: bool | None = None,
        verification: Verification | None = None,
        reservation: Hold | None = None,
        progress: Callable[[int], Awaitable[None]] | None = None,
    ) -> None:
        """Stages `body` after what is there. Whatever ends it early, `save` keeps what arrived.

        `interrupt` ends the body with an error, after what has arrived. This is not to be cancelled.

        With a `verification` it is all or nothing. `progress` is told offsets that are durable, now and then. Raises
        TooLarge before a byte too many is written, BadType once the head is known, Superseded if another turn is taken.
        After BadType, and after Gone from `interrupt`, the upload is gone.
        """
        self._interrupt = interrupt
        if self._stopped:  # before it began
            interrupt(_superseded())
        try:
            await self._open(completes, verification)
            await self._stream(body, verification, reservation, progress)
        except (BadType, Gone):
            self._doomed = True
            raise
        finally:
            self._interrupt = None

    async def _open(self, completes: bool | None, verification: Verification | None) -> None:  # noqa: FBT001
        self._completes = completes
        self._keeps = verification is None
        self._hashes = self._keeper.hashes_at(self.upload)
        checked = {f"body {name}": hash_ for name, hash_ in _body_hashes(verification).items()}
        self._writer = await self._keeper.blobs.writer(self.upload.key, self.upload.staged)
        self._stage = Stage(self._writer, {**self._hashes, **checked}, self._keeper.ingest.metrics.sync.observe)

    async def _stream(
        self,
        body: AsyncIterator[bytes],
        verification: Verification | None,
        reservation: Hold | None,
        progress: Callable[[int], Awaitable[None]] | None,
    ) -> None:
        clock = asyncio.get_running_loop().time
        since_checkpoint, checked_at = 0, clock()
        async for batch in batches(self._within_length(body), self._keeper.ingest.batch_size):
            size = sum(map(len, batch))
            await self._stage_batch(batch, size, reservation)
            del batch  # as in Ingest: a stalled upload must not hold it
            since_checkpoint += size
            due = since_checkpoint >= _CHECKPOINT or clock() - checked_at >= _CHECKPOINT_SECONDS
            if due and verification is None:
                await self._advance()
                if reservation is not None:
                    reservation.recorded()
                since_checkpoint, checked_at = 0, clock()
                if progress is not None:
                    await progress(self.upload.staged.offset)
        self._whole = True
        if verification is not None:
            await self._verify(verification)

    async def _stage_batch(self, batch: list[bytes], size: int, reservation: Hold | None) -> None:
        assert self._stage is not None
        if self.upload.media_type is None and not self.upload.staged.offset and size >= HEAD:
            self.upload = replace(
                self.upload, media_type=await self._keeper.ingest.sniff(b"".join(batch), self._policy)
            )
        if reservation is not None:
            await reservation.take(size)
        await self._stage.write(batch)

    async def _within_length(self, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        room = self._room()
        async for chunk in body:
            room -= len(chunk)
            if room < 0:
                raise self._too_large()
            yield chunk

    def _limit(self) -> int:
        length = self.upload.intent.size
        return self._policy.max_file_size if length is None else length

    def _room(self) -> int:
        return self._limit() - self.upload.staged.offset

    def _too_large(self) -> TooLarge:
        return TooLarge(f"this upload has room for {self._limit()} bytes", limit=self._limit())

    async def _verify(self, verification: Verification) -> None:
        assert self._stage is not None
        _, digests = await self._stage.finish()
        prefix = "body "
        verification.check({k.removeprefix(prefix): v for k, v in digests.items() if k.startswith(prefix)})
        self._keeps = True

    async def absorb(self, parts: Sequence[Resumable]) -> None:
        """Stages the bytes of other uploads, in this order, after what is there. Raises NotFound if one is cancelled.

        After any error the upload is gone, for nobody sends it what it lacks.
        """
        self._writer = await self._keeper.blobs.writer(self.upload.key, self.upload.staged)
        try:
            for part in parts:
                await self._writer.absorb(part.key, part.staged)
        except SpoolError:
            self._doomed = True
            for part in parts:
                await self._keeper.uploads.upload(part.id)  # raises NotFound, if that is why
            raise
        self._stage = Stage(self._writer, {}, self._keeper.ingest.metrics.sync.observe)
        self._whole = True

    async def save(self) -> None:
        """What was received is durable, the row says so, and the turn is over; runs whatever becomes of the client.

        Raises Superseded if another process has taken over, InconsistentLength if the upload cannot be complete.
        """
        try:
            if self._doomed:
                with suppress(NotFound):  # whoever ended it was faster
                    await self._keeper.give_up(self.id)
            elif self._stage is not None and self._keeps:
                await self._advance()
                self._keeper.remember(self.upload, self._hashes)
        finally:
            try:
                if self._writer is not None:
                    await self._writer.aclose()
            finally:
                self.held.close()
                self._keeper.end(self)

    async def _advance(self) -> None:
        assert self._stage is not None
        staged, _ = await self._stage.finish()
        upload = lifecycle.advanced(self.upload, staged, self._completes, whole=self._whole)
        self.upload = self._keeper.renewed(upload)
        await self._keeper.uploads.advance(self.upload)


def _superseded() -> Superseded:
    return Superseded("another request has taken this upload over")


def _body_hashes(verification: Verification | None) -> Hashes:
    return {name: hashlib.new(name) for name in verification.algorithms} if verification else {}
