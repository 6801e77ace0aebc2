"""Every Protocol of Spool. A verb's contract is its docstring here; implementations do not repeat it.

All verbs raise StorageFull when the storage has no room and Unavailable when it fails in another way. After either,
whether the verb took effect is unknown until the same question is asked again.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple, Protocol

from spool.hiding import Hiding
from spool.sharing import Grants, Links

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path
    from typing import BinaryIO

    from spool.model import (
        Answer,
        By,
        Damage,
        Entry,
        File,
        FileId,
        FileQuery,
        Key,
        Label,
        Override,
        Page,
        Resumable,
        Scrub,
        Staged,
        Token,
        TokenId,
        Totals,
        UploadId,
        Usage,
        Window,
    )


class Clock(Protocol):
    """Tells the time."""

    def __call__(self) -> datetime:
        """Aware, UTC."""


class Sniffer(Protocol):
    """Learns a media type from bytes."""

    async def sniff(self, head: bytes) -> str:
        """The media type of a file that starts with `head`: its first 4 KiB or more, or all of it."""


class BlobWriter(Protocol):
    """The one writer of a staged blob."""

    async def absorb(self, key: Key, at: Staged) -> None:
        """Appends the first `at.offset` bytes of another staged blob, sharing them where the store can.

        Raises Unavailable if they are gone.
        """

    async def write(self, batch: Sequence[bytes], see: Callable[[bytes], None] | None = None) -> None:
        """Appends the buffers of `batch`, in order. Each of them is shown to `see` first, in a thread of the store's.

        May return before they are written, but not before the batch before them is: an error then surfaces in a later
        verb, and the buffers must not change. When an error has surfaced, `see` may have seen more than was written.
        Few large batches are cheaper than many small ones.
        """

    async def sync(self, last: Sequence[bytes] = (), see: Callable[[bytes], None] | None = None) -> Staged:
        """What was written, and `last` behind it, is on stable storage. An error is final: trust none of it then."""

    async def aclose(self) -> None:
        """No write of this writer is running or will run. Idempotent; completes even if the caller is cancelled."""


class BlobStore(Protocol):
    """Keeps immutable blobs under opaque keys. A blob is staged, then live, then gone."""

    async def writer(self, key: Key, at: Staged | None = None) -> BlobWriter:
        """A writer for a staged blob.

        Without `at` the blob is new, and a crash may lose it until it is committed. With `at` it outlives a crash from
        its first sync on, and the writer goes on there: bytes past `at.offset` are garbage and are cut off. Raises
        Unavailable if fewer bytes than that are there.
        """

    async def commit(self, key: Key, at: Staged, label: Label | None = None) -> None:
        """The blob is live and durable. Never replaces another; idempotent; completes even if cancelled.

        It carries `label` as far as `Labels.label` promises.
        """

    async def put(self, key: Key, body: bytes, label: Label | None = None) -> None:
        """A new blob of these bytes is live and durable: `writer` and `commit` in one step, for what is small.

        Completes even if cancelled. If it fails, what is left is the caller's to delete.
        """

    async def open(self, key: Key, *, staged: bool = False) -> BinaryIO:
        """The live blob, or the staged one, open for reading from its first byte.

        It stays readable when the blob is deleted meanwhile. Raises NotFound.
        """

    async def read(self, key: Key) -> bytes:
        """All of the live blob, in one step: for what is small. Raises NotFound."""

    def locate(self, key: Key) -> Path | None:
        """Where the blob lies, relative to the store's root, for a proxy that reads it itself; None if nowhere."""

    async def delete(self, key: Key) -> bool:
        """The blob, staged or live, is gone; whether it was there. Idempotent: a key that names nothing is no error."""

    def keys(self, prefix: str = "", *, live: bool = False) -> AsyncIterator[tuple[Key, int, datetime]]:
        """Every blob, staged or live, or only the live ones, with its size and when it was last written, in no order.

        Only those whose key begins with `prefix`. Blobs that appear or vanish meanwhile may be left out.
        """

    async def free(self) -> int:
        """Bytes this process could still write."""

    async def probe(self) -> None:
        """The store is writable, as a small write and sync have just shown."""


class Labels(Protocol):
    """What blobs say of themselves, for an index that was lost. The index never asks them for anything else."""

    async def label(self, key: Key, file_id: FileId, text: bytes | None) -> None:
        """The live blob carries this label for the file, or none any more.

        A courtesy: where the storage has no room for it, or no labels, or no such blob, nothing happens; and a power
        cut may undo it.
        """

    async def labels(self, key: Key) -> Sequence[Label]:
        """Those that the live blob carries."""


class Strays(Protocol):
    """What lies in a store and is none of its blobs."""

    def strays(self) -> AsyncIterator[str]:
        """Where each lies, for a person. No key leads there, so nothing of ours reads or deletes it."""


class CheckedStore(BlobStore, Strays, Protocol):
    """Both, for those who check it."""


class LabelledStore(BlobStore, Labels, Protocol):
    """Both, for those who make files and change them."""


class Files(Hiding, Protocol):
    """The records of files. No row, no file. Every verb is one transaction, durable when it returns."""

    async def finish(
        self,
        files: Sequence[File],
        answer: Answer | None = None,
        upload: Resumable | None = None,
        *,
        share: bool = False,
        bodies: Mapping[FileId, bytes] = MappingProxyType({}),
    ) -> Sequence[File]:
        """All of `files`, and `answer` with them, are recorded, or none. Completes even if the caller is cancelled.

        `bodies` are the bytes of those that are inline; they share nothing.

        Returns the records. With `share`, one with the size and SHA-256 of another names that one's blob in the place
        of its own; but if that one is damaged, it names the new blob too, and is so no longer.

        `upload` is what the one file was before: its row becomes finished and names the file, in the same transaction.
        All came by one grant, which then has counted them, or by none. Raises Rejected if an answer with its owner and
        key, not older than `answer`'s day, exists already; Superseded if the row of `upload` is not complete at its
        epoch; Gone if the grant has ended by when the files are recorded, BeyondGrant if they are more than it allows.
        """

    async def file(self, id: FileId) -> File:
        """Raises NotFound."""

    async def body(self, id: FileId) -> bytes:
        """The bytes of an inline file. Raises NotFound."""

    async def files(self, query: FileQuery) -> Page[File]:
        """The files that pass the query's filters, in its order, ties broken by id, from its cursor on.

        A walk along `next` meets every file that exists throughout exactly once. A page costs the same however many
        files there are: it looks at a bounded number of rows, so filters that few files pass give pages that are
        not full, or empty, and still have a `next`. Raises BadRequest for a cursor that this query did not give.
        """

    async def annotate(self, id: FileId, edit: Callable[[File], File], by: By | None = None) -> File:
        """The record is `edit` of itself; returns it. Concurrent edits happen one after the other. Raises NotFound.

        `edit` may change filename, metadata and expires_at. What it raises, annotate raises, and nothing has changed.
        """

    async def remove(self, id: FileId, by: By | None = None) -> File:
        """The record, hidden or not, is gone; returns what it was. Its blob is the caller's. Raises NotFound."""

    async def expired(self, now: datetime, limit: int) -> Sequence[File]:
        """At most `limit` files whose expires_at is not after `now`, earliest first."""

    async def referenced(self, keys: Collection[Key]) -> set[Key]:
        """Those of `keys` that the record of a file, hidden or not, or of an unfinished upload names."""

    async def usage(self, owner: str) -> Usage:
        """What `owner` keeps, at the same cost however much that is.

        The size counts an upload that is not finished with its length or, while that is unknown, with its offset.
        """


class Inventory(Protocol):
    """The records by their blobs, for those who check them."""

    async def by_key(
        self, after: File | None, limit: int, *, start: str = "", end: str | None = None
    ) -> Sequence[File]:
        """At most `limit` files, ordered by key and id, from the one after `after` on.

        Only those whose key is not below `start`, and below `end`.
        """

    async def uploads(self, after: UploadId | None, limit: int) -> Sequence[Resumable]:
        """At most `limit` uploads that are not finished, ordered by id, from the one after `after` on."""

    async def totals(self) -> Totals:
        """Of all that there is, at a cost that grows with principals and unfinished uploads, not with files."""

    async def mark(self, key: Key, damage: Damage | None) -> Sequence[File]:
        """The files that share this blob are known to be damaged, or sound; returns those of which that is new."""

    async def heal(self, key: Key, sound: Key) -> None:
        """Every file that names `key` names `sound` in its place, and is not damaged."""

    async def check(self) -> Sequence[str]:
        """What the index finds wrong with itself, one sentence each; it may take long.

        Of an index that cannot be read to its end, this verb still tells so.
        """

    async def recount(self) -> None:
        """What the index counts is the sum of what it holds; it may take long, but holds nobody up."""

    async def scrubbed(self) -> Scrub | None:
        """As it was last noted."""

    async def note_scrubbed(self, scrub: Scrub) -> None:
        """The scrub is noted, and outlives a restart."""


class Uploads(Protocol):
    """The rows of resumable uploads. Every verb is one transaction, durable when it returns."""

    async def add_upload(self, upload: Resumable) -> None:
        """The upload is recorded."""

    async def upload(self, id: UploadId) -> Resumable:
        """Raises NotFound."""

    async def claim(self, id: UploadId) -> Resumable:
        """The row with its epoch raised by one: whoever claimed it before can no longer advance it. Raises NotFound."""

    async def advance(self, upload: Resumable) -> None:
        """The row's intent, staged, state, media_type and expires_at are those of `upload`.

        Completes even if the caller is cancelled. Raises Superseded if the row is of another epoch or gone, and
        nothing has changed.
        """

    async def drop(self, id: UploadId) -> Resumable:
        """The row is gone; returns what it was. Its staged blob is the caller's to delete. Raises NotFound."""

    async def stale(self, before: datetime, limit: int) -> Sequence[Resumable]:
        """At most `limit` uploads that expired by `before`, in any state, earliest first."""

    async def unfinished(self, limit: int) -> Sequence[Resumable]:
        """At most `limit` complete uploads that are not partial: a crash came between last byte and file."""

    async def promised(self) -> int:
        """Bytes that open uploads of known length may still bring."""


class Answers(Protocol):
    """What holders of an Idempotency-Key were told (draft-ietf-httpapi-idempotency-key-header-07)."""

    async def answer(self, owner: str, idempotency_key: str, since: datetime) -> Answer | None:
        """The answer recorded by `finish` under this key at or after `since`."""

    async def forget(self, before: datetime) -> int:
        """Answers recorded before `before` are gone; returns how many were. In lots, as `Grants.forget_grants`."""


class Tokens(Protocol):
    """Who may ask for what."""

    async def add_token(self, token: Token, secret_hash: str, by: By | None = None) -> None:
        """The token is known, under the hex SHA-256 of its secret."""

    async def token(self, secret_hash: str) -> Token | None:
        """The token with this secret, expired or not, with its override; None if there is none, or it was revoked."""

    async def tokens(self) -> Sequence[Token]:
        """All tokens, oldest first, without overrides."""

    async def revoke(self, id: TokenId, by: By | None = None) -> None:
        """The token is no longer known. Raises NotFound."""

    async def has_tokens(self) -> bool:
        """A token has been made at some time, whatever became of it: from then on nobody is let in without one."""

    async def without_token(self, owner: str) -> tuple[bool, Override | None]:
        """`has_tokens` and `Allowances.override` in one."""


class Session(NamedTuple):
    """A browser that signed in with a token. Its cookie holds the secret; the index keeps its hash."""

    token: Token
    expires_at: datetime


class Sessions(Protocol):
    """Browsers that are signed in."""

    async def add_session(self, session: Session, secret_hash: str, over: datetime) -> None:
        """The session is known, under the hex SHA-256 of its secret; those that expired by `over` are gone.

        Raises NotFound if its token is no longer known.
        """

    async def session(self, secret_hash: str) -> Session | None:
        """The session with this secret, expired or not, with its token as `Tokens.token` gives it.

        None if there is none, it was ended, or its token was revoked.
        """

    async def end_session(self, secret_hash: str) -> None:
        """The session is no longer known. Idempotent."""


class Allowances(Protocol):
    """What operators allow single principals, and how often those have asked."""

    async def override(self, owner: str) -> Override | None:
        """What is set for `owner`; None if nothing is."""

    async def overrides(self) -> Sequence[Override]:
        """All that is set, by owner."""

    async def set_override(self, override: Override, by: By | None = None) -> None:
        """This is set for its owner. Where it says None, what was set stays."""

    async def clear_override(self, owner: str, by: By | None = None) -> None:
        """Nothing is set for `owner`. Raises NotFound if nothing was."""

    async def keep_windows(self, windows: Sequence[Window], over: datetime) -> None:
        """These are recorded in the place of their owners' last ones; those that began by `over` are gone."""

    async def windows(self) -> Sequence[Window]:
        """All that are recorded, one for each owner at most, in no order."""


class Audit(Protocol):
    """Who did what. A verb of the index that is told by whom has its entry in the same transaction, or no effect.

    Entries are added at the end, and never changed.
    """

    async def audited(self, since: datetime, after: int, limit: int) -> Sequence[Entry]:
        """At most `limit` entries made at or after `since`, in the order of their numbers, from above `after` on."""

    async def forget_audited(self, before: datetime | None, most: int) -> int:
        """Of the 10,000 oldest entries, those made before `before`, or behind the latest `most`, are gone; how many."""


class Index(Uploads, Files, Inventory, Answers, Tokens, Sessions, Allowances, Audit, Grants, Links, Protocol):
    """All of it, for whoever opens and closes it. Callers ask for the narrowest of the ten."""

    async def secret(self) -> bytes:
        """32 random bytes, made once with the index and the same ever after: the key that signs links."""

    async def probe(self) -> None:
        """The index answers and is writable."""

    async def aclose(self) -> None:
        """What was asked is done, and the index is closed."""
