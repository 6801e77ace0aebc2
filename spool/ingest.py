"""Ingest: the only code that turns bytes into files.

Bytes first, row after: `receive` leaves staged bytes on stable storage, `commit` makes them live and then writes the
rows. Until the rows are durable nobody sees a file, and whatever is left behind is reclaimed by `work.gc`, which asks
`active` so that it never touches what is still on its way.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
from dataclasses import replace
from itertools import starmap
from time import monotonic
from typing import TYPE_CHECKING, Final, NamedTuple

from spool.errors import BeyondGrant, DigestMismatch, Gone, SpoolError
from spool.labels import to_label
from spool.metrics import Metrics
from spool.model import File, FileId, Key, Staged, Upload
from spool.policy import file_too_large
from spool.staging import Batch, Stage, batches, digests, fill, new_hashes, new_id, size_of, update
from spool.tokens import hash_secret, new_secret

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
    from datetime import datetime

    from spool.counting import Hold, Ledger
    from spool.model import Answer, Intent, Principal, Resumable
    from spool.policy import Policy
    from spool.ports import Clock, Files, Inventory, LabelledStore, Sniffer
    from spool.staging import Hashes

_log = logging.getLogger(__name__)

_BATCH_BUDGET: Final = 16 * 1024 * 1024
_BATCH: Final = (64 * 1024, 4 * 1024 * 1024)


class Ingest:
    """Receives uploads and commits them."""

    def __init__(  # noqa: PLR0913  # the composition root names each of them
        self,
        *,
        blobs: LabelledStore,
        files: Files,
        inventory: Inventory,
        sniffer: Sniffer,
        policy: Policy,
        admission: Ledger,
        clock: Clock,
        dedupe: bool = True,
        inline_max: int = 0,
        metrics: Metrics | None = None,
    ) -> None:
        """With `dedupe`, files with equal bytes share a blob. The index keeps those of up to `inline_max` bytes.

        Durations are counted in `metrics`.
        """
        self.metrics = metrics or Metrics()
        self._inline_max = inline_max
        self._dedupe = dedupe
        self._blobs = blobs
        self._files = files
        self._inventory = inventory
        self._sniffer = sniffer
        self._policy = policy
        self._admission = admission
        self._clock = clock
        self._active: set[Key] = set()

    @property
    def active(self) -> frozenset[Key]:
        """Keys of blobs that are on their way: from before their first byte until after their row."""
        return frozenset(self._active)

    async def active_keys(self) -> frozenset[Key]:
        """The same, for who asks several processes."""
        return self.active

    @property
    def running(self) -> int:
        """Uploads that run."""
        return self._admission.running

    async def receive(self, intent: Intent, who: Principal, body: AsyncIterator[bytes], reservation: Hold) -> Upload:
        """Streams `body` into the store; the upload that it returns is staged durably, and not visible.

        A small one is not staged but kept in memory, as far as the reservation holds it.

        Memory does not depend on the size. Whatever ends it early, an error, a cancellation, or `body` raising,
        leaves nothing. Raises TooLarge as soon as too many bytes came, BadType as soon as the head is known.
        """
        start, now, policy = monotonic(), self._clock(), self._policy.under(who.grant)
        terms = policy.admit(intent, now)
        id = new_id(now)  # noqa: A001  # `id` is the word of the design
        key = Key(id)
        self._active.add(key)
        try:
            source = batches(_limited(body, terms.max_size), self.batch_size)
            arrival = await self._arrive(key, new_hashes(intent.digests), source, reservation, policy)
        except BaseException:
            await self._drop([key])
            raise
        self.metrics.stage.observe(monotonic() - start)
        return Upload(id, key, who.name, intent, terms, *arrival, grant=who.grant_id)

    async def admit(self, who: Principal, size: int | None, files: int = 1, *, least: int | None = None) -> Hold:
        """Leave to send `size` bytes, or as many as come; see `Ledger.admit`."""
        return await self._admission.admit(who, size, files, least=least)

    def describe(self, upload: Upload, intent: Intent) -> Upload:
        """The upload under an intent that became known only after its bytes. Raises as `Policy.admit` does."""
        return replace(upload, intent=intent, terms=self._policy.admit(intent, self._clock()))

    async def _arrive(  # all of what one upload is made of
        self, key: Key, hashes: Hashes, source: AsyncIterator[Batch], reservation: Hold, policy: Policy
    ) -> _Arrival:
        held = [b"".join(await anext(source, []))]
        media_type = await self.sniff(held[0], policy)
        more = await fill(held, source)
        if more is None and await reservation.hold(size_of(held)):
            body = b"".join(held)
            update(hashes, body)  # quick enough for the event loop, for it is small
            return _Arrival(Staged(len(body)), media_type, digests(hashes), body)
        first = [Batch([*held, *(more or ())], last=more is None or more.last)]
        del held, more  # or they would be kept until the upload ends
        staged, found = await self._stage(key, hashes, _chain(first, source), reservation)
        return _Arrival(staged, media_type, found)

    async def _stage(
        self, key: Key, hashes: Hashes, source: AsyncIterator[Batch], reservation: Hold
    ) -> tuple[Staged, dict[str, bytes]]:
        writer = await self._blobs.writer(key)
        try:
            stage, staged = Stage(writer, hashes, self.metrics.sync.observe), None
            async for batch in source:
                await reservation.take(size_of(batch))
                if batch.last:
                    staged = await stage.finish(batch)
                else:
                    await stage.write(batch)
                del batch  # or a stalled upload would hold it until the next one is full
            return staged or await stage.finish()
        finally:
            await writer.aclose()

    async def sniff(self, head: bytes, policy: Policy) -> str:
        """The type of what starts with `head`. Raises BadType if `policy` refuses it."""
        media_type = await self._sniffer.sniff(head)
        policy.recheck(media_type)
        return media_type

    def batch_size(self) -> int:
        """Large enough to make thread hops cheap, small enough for all running uploads to share one budget."""
        smallest, largest = _BATCH
        return max(smallest, min(largest, _BATCH_BUDGET // max(1, self._admission.running)))

    async def commit(self, uploads: Sequence[Upload], answer: Answer | None = None) -> list[File]:
        """The uploads are files, all or none, durably; so is `answer`, which gets them.

        Raises DigestMismatch if the bytes are not those that an intent claims, Gone or BeyondGrant if nothing, or not
        so much, comes by the uploads' grant any more; then nothing is left of them. After StorageFull or Unavailable
        whether the files are there is unknown. The uploads are used up in every case.
        """
        start, keys = monotonic(), [upload.key for upload in uploads]
        try:
            await self._publish(uploads)
        except BaseException:
            await self._drop(keys)
            raise
        try:
            files = await self._record(uploads, answer=answer)
        except (Gone, BeyondGrant):  # certainly no file; it would otherwise lie there until the next sweep
            await self._drop(keys)
            raise
        finally:
            self._active.difference_update(keys)
        self.metrics.commit.observe(monotonic() - start)
        return files

    async def finish(self, upload: Upload, row: Resumable) -> File:
        """The resumable upload is a file, and its row says so. Raises as `commit` does, but keeps the staged bytes."""
        start = monotonic()
        self._active.add(upload.key)
        try:
            await self._publish([upload])
            (file,) = await self._record([upload], row=row)
        finally:
            self._active.discard(upload.key)
        self.metrics.commit.observe(monotonic() - start)
        return file

    async def _publish(self, uploads: Sequence[Upload]) -> None:
        for upload in uploads:
            _verify(upload)
        now = self._clock()
        steps = [self._make_live(up, self._file(up, now)) for up in uploads if not self._is_inline(up)]
        if len(steps) == 1:
            await steps[0]
            return
        outcomes = await asyncio.gather(*steps, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome

    async def _make_live(self, upload: Upload, file: File) -> None:
        if upload.body is None:
            await self._blobs.commit(upload.key, upload.staged, to_label(file))
        else:
            await self._blobs.put(upload.key, upload.body, to_label(file))

    def _is_inline(self, upload: Upload) -> bool:
        return upload.body is not None and 0 < self._inline_max >= len(upload.body)

    async def _record(
        self, uploads: Sequence[Upload], *, answer: Answer | None = None, row: Resumable | None = None
    ) -> list[File]:
        now = self._clock()
        # Its secret is not kept, so that a retry could not be told it.
        files = [self._file(up, now, deletable=up.grant is not None and answer is None) for up in uploads]
        bodies = {file.id: up.body or b"" for up, file in zip(uploads, files, strict=True) if file.inline}
        draft = answer and replace(answer, created_at=now)
        recorded = await self._files.finish(files, draft, row, share=self._dedupe, bodies=bodies)
        for f in recorded:
            _log.info(
                "upload.committed",
                {"id": f.id, "owner": f.owner, "filename": f.filename, "size": f.size, "type": f.media_type},
            )
        shared = [(file, new.key) for file, new in zip(recorded, files, strict=True) if file.key != new.key]
        if shared:
            await asyncio.gather(*starmap(self._share, shared))
        return list(recorded)

    def _file(self, upload: Upload, now: datetime, *, deletable: bool = False) -> File:
        secret = new_secret() if deletable else None
        return File(
            id=FileId(upload.id),
            key=upload.key,
            owner=upload.owner,
            filename=upload.intent.filename,
            size=upload.staged.offset,
            media_type=upload.media_type,
            declared_type=upload.intent.media_type,
            sha256=upload.digests["sha-256"].hex(),
            created_at=now,
            expires_at=upload.terms.expires_at,
            metadata=upload.intent.metadata,
            grant=upload.grant,
            delete_hash=None if secret is None else hash_secret(secret),
            delete_secret=secret,
            inline=self._is_inline(upload),
        )

    async def _share(self, file: File, own: Key) -> None:
        """The file's own blob is gone, for it shares that of another; if that one is not there, its own takes over."""
        try:
            if await self._holds(file):
                await self._blobs.label(file.key, file.id, to_label(file).text)
                await self._blobs.delete(own)
            else:
                _log.error("blob.damaged", {"key": file.key, "damage": "missing", "files": 1})
                await self._inventory.heal(file.key, own)
        except SpoolError as error:
            _log.warning("blob.left", {"reason": str(error)})

    async def _holds(self, file: File) -> bool:
        """Whether the file's blob is live and of its size."""
        return [size async for _, size, _ in self._blobs.keys(file.key, live=True)] == [file.size]

    async def discard(self, uploads: Iterable[Upload]) -> None:
        """The staged bytes are gone: a courtesy, for what is left in another way is reclaimed by the next sweep."""
        await self._drop([upload.key for upload in uploads])

    async def _drop(self, keys: Sequence[Key]) -> None:
        try:
            for key in keys:
                await self._blobs.delete(key)
        except SpoolError as error:  # the sweep takes what is left, and whoever asked has a better error to tell
            _log.warning("blob.left", {"reason": str(error)})
        finally:
            self._active.difference_update(keys)


class _Arrival(NamedTuple):
    """How an Upload ends."""

    staged: Staged
    media_type: str
    digests: Mapping[str, bytes]
    body: bytes | None = None


async def _chain(first: list[Batch], source: AsyncIterator[Batch]) -> AsyncIterator[Batch]:
    """The batches of `first`, which it takes out, and those that come."""
    while first:
        yield first.pop(0)
    async for batch in source:
        yield batch
        del batch  # or a stalled upload would hold it until the next one is full


async def _limited(body: AsyncIterator[bytes], limit: int) -> AsyncIterator[bytes]:
    size = 0
    async for chunk in body:
        size += len(chunk)
        if size > limit:
            raise file_too_large(limit)
        yield chunk


def _verify(upload: Upload) -> None:
    for algorithm, claimed in upload.intent.digests.items():
        actual = upload.digests[algorithm]
        if not hmac.compare_digest(actual, claimed):
            raise DigestMismatch(
                f"the {algorithm} of {upload.intent.filename!r} is not the one given",
                algorithm=algorithm,
                expected=claimed.hex(),
                actual=actual.hex(),
            )
