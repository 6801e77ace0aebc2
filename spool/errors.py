"""The SpoolError tree: one class is one problem type, one status and one piece of retry advice.

The status is an instruction to the client's retry loop. The docstring of a class is what `GET /problems/{slug}` says
about it, and `doc/http.md` has an entry for each.
"""

from __future__ import annotations

from typing import ClassVar

Member = str | int | list[str] | None


class SpoolError(Exception):
    """Something the caller is told about, in words of its own."""

    slug: ClassVar[str]
    title: ClassVar[str]
    status: ClassVar[int]
    retry_after: int | None = None
    """Seconds until another try may succeed; None where the same request will fail again."""

    def __init__(self, detail: str, **members: Member) -> None:
        """`detail` is one sentence for a person; `members` are for a program (RFC 9457 §3.2)."""
        super().__init__(detail)
        self.detail = detail
        self.members = members


class BadRequest(SpoolError):
    """A header, query parameter, form or JSON body cannot be read as what it claims to be."""

    slug, title, status = "bad-request", "Malformed request", 400


class DigestMismatch(BadRequest):
    """The bytes that arrived do not have the digest the client gave for them. Nothing was stored."""

    slug, title = "digest-mismatch", "Digest does not match"


class InconsistentLength(BadRequest):
    """The upload's length contradicts what was said before, or the bytes that are there."""

    slug, title = "inconsistent-length", "Length contradicts itself"


class CompletedUpload(BadRequest):
    """The upload is complete and takes no more bytes. Nothing was changed."""

    slug, title = "completed-upload", "Upload is complete"


class ChecksumMismatch(SpoolError):
    """The bytes of this request do not have the checksum the client gave for them. None of them were kept.

    The status is that of the tus protocol's checksum extension.
    """

    slug, title, status = "checksum-mismatch", "Checksum Mismatch", 460


class CutOff(BadRequest):
    """The body ended early: no closing boundary, or fewer bytes than were declared. Nothing was stored."""

    slug, title = "cut-off", "Upload cut off"


class Unauthenticated(SpoolError):
    """The request carries no token, or one that is unknown, expired or revoked."""

    slug, title, status = "unauthenticated", "Token required", 401


class PassphraseRequired(Unauthenticated):
    """The link asks for a pass phrase, and the request has none, or a wrong one.

    It is the password of HTTP's Basic authentication, under any user name, or a form's first field, `passphrase`.
    """

    slug, title = "passphrase-required", "Pass phrase required"


class Forbidden(SpoolError):
    """The token is valid, but its scopes do not cover what was asked.

    Of an upload by tus: it is made of others, and takes no bytes of its own.
    """

    slug, title, status = "forbidden", "Not allowed", 403


class BeyondGrant(Forbidden):
    """As many files, or bytes, as its owner allows have come by this link, or are on their way.

    `unit` says which: "bytes" or "files". Nothing was stored.
    """

    slug, title = "beyond-grant", "Link used up"


class NotFound(SpoolError):
    """There is nothing at this address, or nothing any more."""

    slug, title, status = "not-found", "Not found", 404


class MethodNotAllowed(SpoolError):
    """This address exists but does not take this method. `Allow` lists those it takes."""

    slug, title, status = "method-not-allowed", "Method not allowed", 405


class RequestTimeout(SpoolError):
    """The head took longer than `limits.head_timeout`, or the body stalled: nothing was stored.

    A body stalls when nothing comes for `limits.idle_timeout`, or less than `limits.min_rate` over a window.
    """

    slug, title, status = "request-timeout", "Request stalled", 408


class KeyInUse(SpoolError):
    """A request with this Idempotency-Key is still running. Its answer will be this request's answer too."""

    slug, title, status, retry_after = "key-in-use", "Request still running", 409, 2


class OffsetMismatch(SpoolError):
    """The bytes do not go on where the upload stands; `expected-offset` says where that is. Nothing was changed."""

    slug, title, status = "offset-mismatch", "Offset does not match", 409


class Superseded(SpoolError):
    """Another request has taken this upload over. What this one brought is kept."""

    slug, title, status = "superseded", "Upload taken over", 409


class Gone(SpoolError):
    """The upload has expired, or was given up: a new one has to be created.

    Or the link, for upload or for download, has expired, was revoked, or is used up.
    """

    slug, title, status = "gone", "Gone", 410


class Damaged(SpoolError):
    """The bytes of this file were lost or changed on the server's disk; `damage` says how. Its record is still there.

    An upload of the same bytes makes it whole, and so does its operator, from a backup.
    """

    slug, title, status = "damaged", "File damaged", 410


class PreconditionFailed(SpoolError):
    """An If-Match or If-Unmodified-Since condition does not hold for this file.

    Of an upload by tus: the request does not say `Tus-Resumable: 1.0.0`.
    """

    slug, title, status = "precondition-failed", "Precondition failed", 412


class TooLarge(SpoolError):
    """The request exceeds a limit of the server; `limit` says how much is allowed. Nothing was stored."""

    slug, title, status = "too-large", "Too large", 413


class QuotaExceeded(TooLarge):
    """The principal's files and uploads would together exceed `limits.quota`, or be more than `limits.quota_files`.

    `unit` says which: "bytes" or "files". Nothing was stored.
    """

    slug, title = "quota-exceeded", "Quota exceeded"


class BadType(SpoolError):
    """The bytes are of a type that policy refuses, or came in an encoding or media type that Spool does not read.

    Nothing was stored.
    """

    slug, title, status = "bad-type", "Type not accepted", 415


class Unsatisfiable(SpoolError):
    """No range that was asked for lies within the file. `Content-Range` tells its size."""

    slug, title, status = "unsatisfiable-range", "Range not satisfiable", 416


class ExpectationFailed(SpoolError):
    """The Expect header asks for something other than `100-continue`."""

    slug, title, status = "expectation-failed", "Expectation failed", 417


class Rejected(SpoolError):
    """The request contradicts an earlier one: its Idempotency-Key was used for another request."""

    slug, title, status = "rejected", "Request rejected", 422


class TooMany(SpoolError):
    """As many uploads as `limits.max_uploads` allows are running already.

    Or as many of this principal as `limits.uploads_per_principal` allows.
    """

    slug, title, status, retry_after = "too-many", "Too many uploads", 429, 5


class RateLimited(SpoolError):
    """The principal has sent as many requests in one minute as `limits.requests_per_minute` allows.

    `Retry-After` says when the next minute begins. Nothing was done.
    """

    slug, title, status, retry_after = "rate-limited", "Too many requests", 429, 60

    def __init__(self, detail: str, retry_after: int = 60, **members: Member) -> None:
        """`retry_after` is in seconds."""
        super().__init__(detail, **members)
        self.retry_after = retry_after


class Internal(SpoolError):
    """Spool failed in a way nobody foresaw. The request id finds the traceback in the log."""

    slug, title, status = "internal", "Internal error", 500


class Unavailable(SpoolError):
    """The storage fails, the server is shutting down, or it has as many connections as it takes.

    Whether the request took effect is unknown: ask again with the same Idempotency-Key.
    """

    slug, title, status, retry_after = "unavailable", "Temporarily unavailable", 503, 5


class StorageFull(SpoolError):
    """The disk has no room for this upload beyond `limits.min_free_space` and what running uploads may still write."""

    slug, title, status, retry_after = "storage-full", "Storage full", 507, 60
