"""What is counted while a server runs: plain numbers, which only the thread of the event loop changes.

To count costs an addition. What the numbers are called, and in which form they are told, is data below, from which a
scrape makes its text; `doc/operate.md` has an entry for each.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass
from operator import add
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from spool.errors import CutOff, Internal, RequestTimeout, SpoolError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Kind = Literal["counter", "gauge", "histogram"]

BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Seconds: the upper bounds of a histogram's buckets, of which there is one more for all above."""
PROTOCOLS: Final = {"tus": "tus", "rufh": "draft"}
"""The protocol of an upload, by the dialect of resumable uploads; the others are `form` and `put`."""
_OURS: Final = 500
"""The first status of an error that is not the client's."""


class Histogram:
    """How many durations lay in each bucket, and their sum."""

    __slots__ = ("counts", "sum")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.sum = 0.0

    def observe(self, seconds: float) -> None:
        """One more."""
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.sum += seconds


class Metrics:
    """The counts of one server, all from nought at its start."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, str]] = Counter()
        self.problems: Counter[tuple[str]] = Counter()
        self.connections_refused = 0
        self.uploads: Counter[tuple[str, str]] = Counter()
        self.committed_files = 0
        self.committed_bytes = 0
        self.received_bytes = 0
        self.sent_bytes = 0
        self.first_byte = Histogram()
        self.stage = Histogram()
        self.sync = Histogram()
        self.commit = Histogram()
        self.sweeps: Counter[tuple[str]] = Counter()
        self.expired_files = 0
        self.reclaimed_blobs = 0
        self.last_sweep = 0.0
        self.scrubbed_blobs = 0
        self.scrubbed_bytes = 0
        self.scrub_damaged = 0
        self.scrub_failures = 0

    def committed(self, protocol: str, sizes: list[int]) -> None:
        """One upload has become files of these sizes."""
        self.uploads[protocol, "stored"] += 1
        self.committed_files += len(sizes)
        self.committed_bytes += sum(sizes)

    def ended(self, protocol: str, error: BaseException) -> None:
        """An upload, or one request's part of it, has ended with this, and not as a file."""
        self.uploads[protocol, outcome(error)] += 1

    def swept(self, expired: int, reclaimed: int, now: float) -> None:
        """A sweep has deleted so many files and blobs."""
        self.sweeps["done",] += 1
        self.expired_files += expired
        self.reclaimed_blobs += reclaimed
        self.last_sweep = now

    def scrubbed(self, size: int, *, damaged: bool) -> None:
        """The scrub has read a blob."""
        self.scrubbed_blobs += 1
        self.scrubbed_bytes += size
        self.scrub_damaged += damaged

    def told(self) -> dict[str, Any]:
        """All of it, for another process: JSON can carry it, and `add` takes it."""
        return {name: _told(value) for name, value in vars(self).items()}

    def add(self, told: Mapping[str, Any]) -> None:
        """What another process has counted, too."""
        for name, value in told.items():
            match getattr(self, name):
                case Histogram() as histogram:
                    counts, seconds = value
                    histogram.counts = list(map(add, histogram.counts, counts))
                    histogram.sum += seconds
                case Counter() as counter:
                    for *labels, number in value:
                        counter[tuple(labels)] += number
                case number:
                    setattr(self, name, number + value)


def _told(value: float | Histogram | Counter[tuple[str, ...]]) -> object:
    if isinstance(value, Histogram):
        return value.counts, value.sum
    return [(*labels, number) for labels, number in value.items()] if isinstance(value, Counter) else value


class Tally(NamedTuple):
    """What processes of one server have counted, and how they stand."""

    metrics: Metrics
    active_uploads: int
    queued: Mapping[str, int]
    pids: Sequence[int]
    """The processes, of which the first is the one that was started."""


def outcome(error: BaseException) -> str:
    """How an upload ended that raised this: by its client's silence, by its client's fault, or by ours."""
    if isinstance(error, CutOff | RequestTimeout | ConnectionError | asyncio.CancelledError):
        return "cut_off"
    status = error.status if isinstance(error, SpoolError) else Internal.status
    return "failed" if status >= _OURS else "refused"


@dataclass(frozen=True, slots=True)
class Levels:
    """What is not counted but looked at, when somebody asks."""

    active_uploads: int
    queue_length: Mapping[tuple[str], int]
    ready: bool
    free: int | None
    """None where the storage does not tell, as with all below."""
    files: int | None = None
    kept_bytes: int | None = None
    damaged_files: int | None = None
    unfinished_uploads: int | None = None
    staged_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric: how it is told, and the member of Metrics or of Levels that it tells."""

    name: str
    kind: Kind
    member: str
    text: str
    labels: tuple[str, ...] = ()


METRICS: Final = (
    Metric("spool_requests_total", "counter", "requests", "Requests answered.", ("method", "code")),
    Metric("spool_problems_total", "counter", "problems", "Requests answered with a problem.", ("problem",)),
    Metric("spool_connections_refused_total", "counter", "connections_refused", "Connections that were one too many."),
    Metric("spool_uploads_total", "counter", "uploads", "Uploads that have ended.", ("protocol", "outcome")),
    Metric("spool_committed_files_total", "counter", "committed_files", "Files made of uploads."),
    Metric("spool_committed_bytes_total", "counter", "committed_bytes", "Bytes of these files."),
    Metric("spool_received_bytes_total", "counter", "received_bytes", "Bytes of requests' bodies."),
    Metric("spool_sent_bytes_total", "counter", "sent_bytes", "Bytes of files that this process has sent."),
    Metric("spool_first_byte_seconds", "histogram", "first_byte", "From asking for a body to its first bytes."),
    Metric("spool_stage_seconds", "histogram", "stage", "From the start of an upload until its bytes are staged."),
    Metric("spool_sync_seconds", "histogram", "sync", "From asking until staged bytes are on stable storage."),
    Metric("spool_commit_seconds", "histogram", "commit", "From staged bytes to a durable file."),
    Metric("spool_active_uploads", "gauge", "active_uploads", "Uploads that run."),
    Metric("spool_unfinished_uploads", "gauge", "unfinished_uploads", "Resumable uploads that are not finished."),
    Metric("spool_staged_bytes", "gauge", "staged_bytes", "Bytes of resumable uploads that are not finished."),
    Metric("spool_queue_length", "gauge", "queue_length", "Commits that wait for a thread.", ("queue",)),
    Metric("spool_files", "gauge", "files", "Files."),
    Metric("spool_kept_bytes", "gauge", "kept_bytes", "Bytes that principals keep, as quotas count them."),
    Metric("spool_damaged_files", "gauge", "damaged_files", "Files whose bytes a check found damaged."),
    Metric("spool_disk_free_bytes", "gauge", "free", "Bytes free on the disk."),
    Metric("spool_ready", "gauge", "ready", "Whether an upload could be stored, as /readyz tells."),
    Metric("spool_sweeps_total", "counter", "sweeps", "Sweeps.", ("outcome",)),
    Metric("spool_expired_files_total", "counter", "expired_files", "Files that sweeps deleted."),
    Metric("spool_reclaimed_blobs_total", "counter", "reclaimed_blobs", "Blobs that sweeps deleted."),
    Metric("spool_last_sweep_timestamp_seconds", "gauge", "last_sweep", "When the last sweep was done; 0 for not yet."),
    Metric("spool_scrubbed_blobs_total", "counter", "scrubbed_blobs", "Blobs that the scrub has read."),
    Metric("spool_scrubbed_bytes_total", "counter", "scrubbed_bytes", "Bytes of these blobs."),
    Metric("spool_scrub_damaged_total", "counter", "scrub_damaged", "Blobs that the scrub found damaged."),
    Metric("spool_scrub_failures_total", "counter", "scrub_failures", "Runs of the scrub that failed."),
)
