"""Every noun of Spool. Sizes and offsets are in bytes, datetimes are aware and UTC."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Generic, Literal, NewType, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

FileId = NewType("FileId", str)
UploadId = NewType("UploadId", str)
TokenId = NewType("TokenId", str)
GrantId = NewType("GrantId", str)
LinkId = NewType("LinkId", str)
Key = NewType("Key", str)
"""Names a blob in a store. Opaque to everyone but the store; never derived from what a client sent."""

Metadata = dict[str, "str | list[str]"]
"""What the client said about a file. A field that was sent more than once is a list, in the order sent."""

Sort = Literal["created_at", "size", "filename"]

Damage = Literal["missing", "size", "digest"]
"""What a check found wrong with a blob: it is gone, of another size, or its bytes have another SHA-256."""

FindingKind = Literal["index", "missing", "size", "digest", "sound", "orphan", "stray", "upload"]
"""The index itself; a file's damage; one marked but sound; a blob of no record; no blob; an upload short of bytes."""

UploadState = Literal["open", "complete", "finished"]
"""Bytes are missing; all bytes are staged; they are a file. See `lifecycle`."""

_Shared = Literal["grant.created", "grant.revoked", "link.created", "link.revoked"]
_Ruled = Literal["token.created", "token.revoked", "limit.set", "limit.cleared"]
Act = Literal["file.changed", "file.deleted", "file.restored", _Ruled, _Shared]
"""What the audit log tells of. That a file was stored its record tells, and what was done by rule the log."""
Via = Literal["http", "command", "server"]
"""By a request, by a command on the machine, or by the server itself."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Intent:
    """What a client says it wants to store. Every member is a claim."""

    filename: str
    size: int | None = None
    media_type: str | None = None
    digests: Mapping[str, bytes] = field(default_factory=dict)
    """Algorithm ("sha-256", "sha-512") to the raw digest the bytes must have."""
    metadata: Metadata = field(default_factory=dict)
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Terms:
    """What policy allows an intent to become."""

    max_size: int
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class Staged:
    """What of an upload is durably in the store, though not yet visible."""

    offset: int
    state: str = ""
    """The store's own; opaque to everyone else."""


@dataclass(frozen=True, slots=True)
class Upload:
    """Bytes that arrived whole: a commit turns them into a file."""

    id: UploadId
    key: Key
    owner: str
    intent: Intent
    terms: Terms
    staged: Staged
    media_type: str
    digests: Mapping[str, bytes]
    """Of the bytes that arrived: sha-256, and whatever else the intent claims a digest for."""
    body: bytes | None = None
    """All of them, if they are few: the commit writes them. Otherwise they are staged."""
    grant: GrantId | None = None


@dataclass(frozen=True, slots=True)
class Resumable:
    """An upload that outlives its connection. Its row is the truth: bytes past its offset are garbage."""

    id: UploadId
    key: Key
    owner: str
    dialect: str
    """The protocol that created it, and the only one that may continue it."""
    intent: Intent
    """Its size is the upload's length, or None while that is unknown."""
    notes: Mapping[str, str]
    """What the dialect has to remember, word for word."""
    partial: bool
    """It only lends its bytes to a concatenation, and never becomes a file by itself."""
    created_at: datetime
    expires_at: datetime
    """When an upload without progress is given up; when a finished one is forgotten."""
    staged: Staged
    """How far it has come, durably."""
    state: UploadState
    epoch: int
    """Counts who may write: only the latest claim can advance the row."""
    media_type: str | None
    """As detected, once the head is there."""
    file_id: FileId | None
    """The file that it became."""
    grant: GrantId | None = None
    """By which a guest created it, and without which nobody continues it."""


@dataclass(frozen=True, slots=True)
class File:
    """A committed blob and its record. The record may change, the bytes never."""

    id: FileId
    key: Key
    """Files with equal bytes may share a blob."""
    owner: str
    filename: str
    size: int
    media_type: str
    declared_type: str | None
    sha256: str
    created_at: datetime
    expires_at: datetime | None
    metadata: Metadata
    damage: Damage | None = None
    """What is wrong with the blob, as the latest check of it found."""
    inline: bool = False
    """The index has its bytes, and no blob has its key."""
    grant: GrantId | None = None
    """By which a guest brought it; the grant itself may be gone."""
    delete_hash: str | None = None
    delete_secret: str | None = field(default=None, repr=False, compare=False)
    """By which the guest who brought it may delete it; known in the request that stored it, and recorded nowhere."""


@dataclass(frozen=True, slots=True)
class Label:
    """What a blob carries to tell of a file that has its bytes, should the index be lost. Nobody else reads it."""

    file_id: FileId
    text: bytes


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a check of the spool found wrong."""

    kind: FindingKind
    detail: str
    """For a person."""
    key: str | None = None
    """The blob, or the path of what is none."""
    id: FileId | UploadId | None = None
    filename: str | None = None
    repaired: bool = False
    """It is wrong no longer. A damaged file that is marked is still damaged."""


@dataclass(frozen=True, slots=True)
class Scrub:
    """A pass that reads all live blobs again, and how far it has come."""

    started_at: datetime
    noted_at: datetime
    position: Key
    """The blobs whose keys are below this are done."""
    blobs: int = 0
    size: int = 0
    damaged: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """What the holder of an Idempotency-Key was told, so that a retry is told the same."""

    owner: str
    idempotency_key: str
    fingerprint: str
    """Tells one request from another: the same key with another fingerprint is a client's mistake."""
    created_at: datetime
    files: tuple[File, ...] = ()


@dataclass(frozen=True, slots=True)
class FileQuery:
    """Which files to list, and in which order. An absent filter lets every file through."""

    limit: int = 100
    cursor: str | None = None
    q: str | None = None
    """A substring of the file name; ASCII letters match in either case."""
    filename: str | None = None
    """A glob over the file name: `*`, `?` and `[...]`; letters match in their own case only."""
    media_type: str | None = None
    """A glob over the media type, such as `audio/*`."""
    since: datetime | None = None
    """Created at or after."""
    until: datetime | None = None
    """Created before."""
    grant: GrantId | None = None
    sort: Sort = "created_at"
    descending: bool = True


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One step of a listing. It may hold fewer items than asked for, even none, and still have a `next`."""

    items: tuple[T, ...]
    next: str | None


@dataclass(frozen=True, slots=True)
class Usage:
    """What a principal keeps in the spool."""

    files: int
    size: int
    uploads: int = 0
    """Resumable uploads that are not finished: files that are to be."""


@dataclass(frozen=True, slots=True)
class Totals:
    """What all principals together keep in the spool."""

    files: int
    size: int
    """As the quotas count it: equal files each, and uploads that are not finished with their length."""
    damaged: int
    """Files whose bytes a check found damaged."""
    uploads: int
    """Resumable uploads that are not finished."""
    staged: int
    """Bytes of these that are here."""


@dataclass(frozen=True, slots=True)
class Override:
    """What an operator has set for one principal; None where it is as for everyone, 0 where there is no limit."""

    owner: str
    quota: int | None = None
    quota_files: int | None = None
    requests_per_minute: int | None = None
    uploads: int | None = None


@dataclass(frozen=True, slots=True)
class Allowance:
    """How much one principal may keep and do. 0 is without limit."""

    quota: int = 0
    """Bytes, of its files and of its uploads together."""
    quota_files: int = 0
    """Files, and uploads that may become some."""
    requests_per_minute: int = 0
    uploads: int = 0
    """Uploads at once."""

    def under(self, override: Override | None) -> Allowance:
        """What it is where the override says nothing else."""
        if override is None:
            return self
        return replace(self, **{f.name: v for f in fields(self) if (v := getattr(override, f.name)) is not None})


@dataclass(frozen=True, slots=True)
class By:
    """Who does something."""

    who: str
    """A principal; for a command, the user of the machine."""
    via: Via
    at: datetime
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that was done."""

    number: int
    """Higher than that of every earlier entry."""
    at: datetime
    who: str
    via: Via
    request_id: str | None
    act: Act
    subject: str
    """The id of the file, token, grant or link, or the name of the principal."""
    detail: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Window:
    """How many requests a principal has sent in the minute that began at `since`."""

    owner: str
    since: datetime
    requests: int


@dataclass(frozen=True, slots=True)
class Grant:
    """Leave for guests, who have no token, to upload in its owner's name. The index keeps the hash of its secret."""

    id: GrantId
    owner: str
    note: str
    """What its owner tells the guests."""
    created_at: datetime
    expires_at: datetime
    max_files: int
    """That may come by it, ever: one that is deleted is not given back."""
    max_size: int = 0
    """Bytes that may come by it, ever; 0 is without limit."""
    max_file_size: int = 0
    """Bytes of one file; 0 is as the server has it."""
    types: tuple[str, ...] = ()
    """Globs over the detected media type; none means every type that the server takes."""
    passphrase: str | None = None
    """What `tokens.hash_passphrase` made of the pass phrase that guests must know; None if there is none."""
    revoked_at: datetime | None = None
    files: int = 0
    size: int = 0
    """Of what came by it."""
    override: Override | None = None

    @property
    def allowance(self) -> Allowance:
        """Its bounds on files and bytes, which hold beside those of its owner."""
        return Allowance(self.max_size, self.max_files)


@dataclass(frozen=True, slots=True)
class Link:
    """An address at which one file's bytes are for whoever has it. The index keeps the hash of its secret."""

    id: LinkId
    file_id: FileId
    created_by: str
    """The principal that made it."""
    created_at: datetime
    expires_at: datetime
    max_downloads: int | None = None
    """How often the whole file is given out; None is without limit, and then nothing is counted."""
    revoked_at: datetime | None = None
    downloads: int = 0
    given: int = 0
    """Bytes that were given out, or are being, as the downloads were."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is asking, what they may do, and how much of it."""

    name: str
    """Of a guest: that of the grant's owner, in whose name everything is stored."""
    scopes: frozenset[str]
    allowance: Allowance = Allowance()
    grant: Grant | None = None

    @property
    def account(self) -> str:
        """Under which requests are counted and answers remembered: guests must not meet those of the owner."""
        return self.name if self.grant is None else f"grant {self.grant.id}"

    @property
    def grant_id(self) -> GrantId | None:
        """That of a guest's grant."""
        return None if self.grant is None else self.grant.id


@dataclass(frozen=True, slots=True)
class Token:
    """How a principal proves itself. The secret is known to its holder only; the index keeps its hash."""

    id: TokenId
    name: str
    scopes: frozenset[str]
    created_at: datetime
    expires_at: datetime | None
    override: Override | None = None
    """What is set for its principal."""
