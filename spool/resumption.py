"""Resumption: uploads that outlive their connection, whatever protocol they speak.

The row is the truth. A request takes its turn at an upload: it stops whoever is at it, raises the epoch so that nobody
else can advance the row, goes on where the row says, and in every ending syncs what arrived and then advances the row.
So an offset that a client was told is on stable storage, and bytes past it are garbage that the next writer cuts off.

The hashes of an upload are kept in memory between its requests. After a restart they are made anew when the upload is
complete, by reading its bytes once in a worker thread.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from spool import lifecycle
from spool.errors import BadRequest, BadType, BeyondGrant, DigestMismatch, Gone, NotFound
from spool.metrics import PROTOCOLS
from spool.model import Key, Resumable, Staged, Upload, UploadId
from spool.policy import file_too_large, require_lasting
from spool.staging import HEAD, digests, new_hashes, new_id, update
from spool.turn import Turn
from spool.turns import Turns

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import timedelta
    from typing import BinaryIO

    from spool import counting
    from spool.ingest import Ingest
    from spool.model import File, Intent, Principal
    from spool.policy import Policy
    from spool.ports import BlobStore, Clock, Files, Uploads
    from spool.sharing import Grants
    from spool.staging import Hashes

_REMEMBERED: Final = 1024
"""Uploads whose hashes are kept between their requests."""
_READ: Final = 1024 * 1024


class Resumption:
    """Creates resumable uploads and gives out turns at them."""

    def __init__(  # noqa: PLR0913  # the composition root names each of them
        self,
        *,
        ingest: Ingest,
        blobs: BlobStore,
        uploads: Uploads,
        files: Files,
        grants: Grants,
        policy: Policy,
        clock: Clock,
        ttl: timedelta,
        turns: counting.Turns | None = None,
    ) -> None:
        """`ttl` is how long an upload without progress is kept, and a finished one remembered.

        `turns` are those of all processes, if there are several.
        """
        self.ingest = ingest
        self.blobs = blobs
        self.uploads = uploads
        self.policy = policy
        self._files = files
        self._grants = grants
        self._clock = clock
        self._ttl = ttl
        self._turns = turns or Turns()
        self._hashes: OrderedDict[UploadId, tuple[int, Hashes]] = OrderedDict()

    async def create(
        self, intent: Intent, who: Principal, dialect: str, notes: Mapping[str, str], *, partial: bool = False
    ) -> Resumable:
        """A new upload without bytes, recorded. Raises as `Policy.admit` and `Ingest.admit` do."""
        now = self._clock()
        self.policy.under(who.grant).admit(intent, now)
        upload = Resumable(
            id=(id := new_id(now)),  # noqa: A001  # `id` is the word of the design
            key=Key(id),
            owner=who.name,
            dialect=dialect,
            intent=intent,
            notes=notes,
            partial=partial,
            created_at=now,
            expires_at=now + self._ttl,
            staged=Staged(0),
            state="open",
            epoch=0,
            media_type=None,
            file_id=None,
            grant=who.grant_id,
        )
        with await self.ingest.admit(who, intent.size or 0):  # until the row itself counts
            await self.uploads.add_upload(upload)
        return upload

    async def take(self, id: UploadId, who: Principal, dialect: str) -> Turn:
        """A turn at the upload, to be ended by `Turn.save`. Stops and saves the turn that is under way.

        Raises NotFound, also for the uploads of others; Gone.
        """
        lifecycle.visible(await self.uploads.upload(id), who, dialect, self._clock())
        turn = Turn(self, id, self.policy.under(who.grant))
        turn.let_go = await self._turns.take(id, turn.stop)
        try:
            await turn.begin()
        except BaseException:
            self.end(turn)
            raise
        return turn

    async def finish(self, upload: Resumable) -> File:
        """The complete upload is a file. Idempotent.

        Raises DigestMismatch, BadType, Gone or BeyondGrant, and then the upload is gone; StorageFull or Unavailable,
        and it can be tried again.
        """
        if upload.file_id is not None:
            return await self._files.file(upload.file_id)
        # One at a time, in all processes: a commit that fails takes back links that another one may rest on.
        let_go = await self._turns.take(f"finish {upload.id}", _go_on)
        try:
            latest = await self.uploads.upload(upload.id)
            if latest.file_id is not None:
                # A sweep was faster, and what was staged may be gone, for equal bytes are shared.
                return await self._files.file(latest.file_id)
            file = await self._finish(upload)
        finally:
            let_go()
        self.ingest.metrics.committed(PROTOCOLS[upload.dialect], [file.size])
        return file

    async def _finish(self, upload: Resumable) -> File:
        try:
            return await self.ingest.finish(await self._whole(upload), upload)
        except (BadType, DigestMismatch, Gone, BeyondGrant):
            await self._abandon(upload)
            raise

    async def _abandon(self, upload: Resumable) -> None:
        try:
            await self.give_up(upload.id)
        except NotFound:  # who revoked its grant was faster, but the blob may have become live since
            if not await self._files.referenced([upload.key]):
                await self.blobs.delete(upload.key)

    async def _whole(self, upload: Resumable) -> Upload:
        policy = await self._policy_for(upload)
        terms = policy.admit(replace(upload.intent, expires_at=None), self._clock())
        terms = replace(terms, expires_at=policy.expiry(upload.intent.expires_at, self._clock()))
        return Upload(
            upload.id,
            upload.key,
            upload.owner,
            upload.intent,
            terms,
            upload.staged,
            upload.media_type or await self.ingest.sniff(await self._read_head(upload), policy),
            await self._digests(upload),
            grant=upload.grant,
        )

    async def _policy_for(self, upload: Resumable) -> Policy:
        """Raises Gone."""
        if upload.grant is None:
            return self.policy
        try:
            grant = await self._grants.grant(upload.grant)
        except NotFound as error:
            raise Gone("the link by which this came has ended") from error
        require_lasting(grant, self._clock())
        return self.policy.under(grant)

    async def give_up(self, id: UploadId) -> None:
        """The upload and its staged bytes are gone; a file that it became stays. Raises NotFound.

        The row goes first: if the bytes stay behind, the sweep takes them.
        """
        upload = await self.uploads.drop(id)
        self._hashes.pop(id, None)
        if upload.state != "finished":
            await self.blobs.delete(upload.key)

    async def partials(self, ids: Sequence[UploadId], who: Principal, dialect: str) -> list[Resumable]:
        """The complete partial uploads that are to be concatenated. Raises NotFound, Gone, BadRequest, TooLarge."""
        now = self._clock()
        parts = [lifecycle.visible(await self.uploads.upload(id), who, dialect, now) for id in ids]  # noqa: A001
        if not all(part.partial and part.state == "complete" for part in parts):
            raise BadRequest("only complete partial uploads can be concatenated")
        largest = self.policy.under(who.grant).max_file_size
        if sum(part.staged.offset for part in parts) > largest:
            raise file_too_large(largest)
        return parts

    def has_turn(self, id: UploadId) -> bool:
        """Whether a request is at the upload."""
        return self._turns.taken(id)

    def renewed(self, upload: Resumable) -> Resumable:
        """The upload with its whole time to live before it."""
        return replace(upload, expires_at=self._clock() + self._ttl)

    def end(self, turn: Turn) -> None:
        """The turn is over, and the next one may begin."""
        turn.let_go()

    def hashes_at(self, upload: Resumable) -> Hashes:
        """The upload's running hashes, to go on with; empty if they are not known at its offset."""
        if not upload.staged.offset:
            return new_hashes(upload.intent.digests)
        offset, hashes = self._hashes.get(upload.id, (-1, {}))
        return {name: hash_.copy() for name, hash_ in hashes.items()} if offset == upload.staged.offset else {}

    def remember(self, upload: Resumable, hashes: Hashes) -> None:
        """These are the upload's hashes at its offset."""
        self._hashes[upload.id] = upload.staged.offset, hashes
        self._hashes.move_to_end(upload.id)
        while len(self._hashes) > _REMEMBERED:
            self._hashes.popitem(last=False)

    async def _digests(self, upload: Resumable) -> dict[str, bytes]:
        hashes = self.hashes_at(upload)
        if not hashes:
            with await self.blobs.open(upload.key, staged=True) as blob:  # closed also if its thread never gets to it
                hashes = await asyncio.get_running_loop().run_in_executor(None, _hash, blob, upload)
        self._hashes.pop(upload.id, None)
        return digests(hashes)

    async def _read_head(self, upload: Resumable) -> bytes:
        with await self.blobs.open(upload.key, staged=True) as blob:
            return await asyncio.get_running_loop().run_in_executor(None, _read, blob, min(HEAD, upload.staged.offset))


def _go_on() -> None:
    """Nobody stops who finishes an upload."""


def _hash(blob: BinaryIO, upload: Resumable) -> Hashes:
    hashes = new_hashes(upload.intent.digests)
    left = upload.staged.offset
    with blob:
        while left and (chunk := blob.read(min(_READ, left))):
            left -= len(chunk)
            update(hashes, chunk)
    return hashes


def _read(blob: BinaryIO, size: int) -> bytes:
    with blob:
        return blob.read(size)
