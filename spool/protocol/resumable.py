"""What the dialects of resumable uploads have in common: a request's head becomes a command, a result becomes a head.

Strategy: a dialect knows header fields and status codes and nothing else. It reads a Head and says what is asked for;
whoever drives it does that through Ingest and hands the result back to be worded. No dialect sees a body: the driver
streams it, so that limits, hashes and durability are the same for all of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spool.errors import SpoolError
    from spool.model import File, Intent, Resumable, UploadId


@dataclass(frozen=True, slots=True)
class Head:
    """A request without its body."""

    method: str
    headers: Mapping[str, str]
    """By lower-case name; field lines of one name are joined by a comma."""
    content_length: int | None
    """Of the body; None if it is not known before it ends."""
    has_body: bool
    """A body of at least one byte may follow."""


@dataclass(frozen=True, slots=True)
class Checksum:
    """What the bytes of one request must hash to, or nothing of them is kept."""

    algorithm: str
    """As hashlib calls it: sha1, sha256, sha512, md5."""
    digest: bytes
    refusal: type[SpoolError]
    """Raised if they do not."""


@dataclass(frozen=True, slots=True)
class Discover:
    """Asks what this server offers."""


@dataclass(frozen=True, slots=True)
class Create:
    """A new upload, into which this request's body goes at once, if it has one."""

    intent: Intent
    """Its size is the upload's length, or None while that is unknown."""
    notes: Mapping[str, str] = field(default_factory=dict)
    """What the dialect wants to be given back with the upload."""
    partial: bool = False
    parts: tuple[str, ...] = ()
    """The addresses of the uploads whose bytes, in this order, are this one's; empty for one that is sent."""
    completes: bool | None = None
    """Whether the upload is complete when this body is; None if that follows from its length alone."""
    has_body: bool = False
    checksum: Checksum | None = None
    checksum_follows: bool = False
    """The checksum comes in the trailer section; see `Dialect.parse_trailer`."""


@dataclass(frozen=True, slots=True)
class Append:
    """More bytes for an upload."""

    id: UploadId
    offset: int
    length: int | None = None
    """The upload's length, as far as this request tells it."""
    completes: bool | None = None
    """As in Create."""
    checksum: Checksum | None = None
    checksum_follows: bool = False
    """As in Create."""


@dataclass(frozen=True, slots=True)
class Inspect:
    """Asks how far an upload has come."""

    id: UploadId


@dataclass(frozen=True, slots=True)
class Cancel:
    """The upload is no longer wanted."""

    id: UploadId


Command = Discover | Create | Append | Inspect | Cancel


@dataclass(frozen=True, slots=True)
class Limits:
    """What a dialect tells its clients about this server."""

    max_size: int
    max_age: int
    """Seconds that an upload without progress is kept."""


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a command. All members are None for Discover, and after Cancel."""

    upload: Resumable | None = None
    location: str | None = None
    """The upload's address."""
    file: File | None = None
    """What it became, once it is finished."""
    file_url: str | None = None
    content_url: str | None = None
    delete_url: str | None = None
    """Where whoever sent it may delete it, told once."""


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """An answer without its body."""

    status: int
    headers: Mapping[str, str]
    with_record: bool = False
    """The body is the file's record, as after a plain upload; otherwise there is none."""
    problem_type: str | None = None
    """Stands in for the type of the error's problem document, where the dialect has a type of its own for the error."""


class Dialect(Protocol):
    """One protocol for resumable uploads."""

    name: str
    """What `Resumable.dialect` says of its uploads."""

    def parse(self, head: Head, id: UploadId | None) -> Command | None:
        """What the request asks for; `id` is that of the upload in its address, None at the address for new ones.

        None if the request is not of this dialect. Raises a SpoolError for one that is, but malformed.
        """

    def parse_trailer(self, headers: Mapping[str, str]) -> Checksum | None:
        """The checksum of a body, from the trailer section after it, by lower-case name. Raises a SpoolError."""

    def interim(
        self, head: Head, *, location: str | None = None, offset: int | None = None
    ) -> Mapping[str, str] | None:
        """The fields of an interim response that tells a new upload's address, or an offset that is durable by now.

        None if this client is not to be sent one.
        """

    def reply(self, command: Command, result: Result) -> ResponseHead:
        """The answer to a command that was carried out."""

    def refuse(self, error: SpoolError, result: Result) -> ResponseHead:
        """The status and headers of an answer that has the error's problem document as its body.

        `result` holds what is known of the upload at that time, which may be nothing.
        """
