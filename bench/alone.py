"""What is measured of Spool only, because no peer has it: starts, listings, and an index that has grown."""

from __future__ import annotations

import asyncio
import compileall
import hashlib
import os
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

import spool
from bench.beside import Note, beside, blob_path
from bench.clients import Many, curl
from bench.loads import MB
from bench.servers import serving
from spool.model import File, FileId, FileQuery, GrantId, Key
from spool.staging import new_id
from spool.store import open_blobs, open_index
from spool.store.cursor import Position, to_cursor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bench.servers import Running, Server
    from spool.ports import Index

_BATCH: Final = 1000
_START: Final = datetime(2026, 1, 1, tzinfo=UTC)
_KINDS: Final = ("audio/mpeg", "video/mp4", "image/png", "text/plain", "application/pdf")
_INSERTS: Final = 4000
_INSERTERS: Final = 32
_PAGES: Final = 200
_STARTS: Final = 5
_SWEEP: Final = 600
"""Seconds that the first sweep may take."""


def starts(server: Server, work: Path) -> Iterator[Note]:
    """The help, and the first answer of a new spool."""
    compileall.compile_dir(Path(spool.__file__).parent, quiet=2)  # as an installed one is
    help_ = [_seconds(lambda: _run("--help")) for _ in range(_STARTS + 1)][1:]
    yield {"spool --help, ms": 1e3 * statistics.median(help_)}
    yield {"spool serve to its first answer, ms": 1e3 * statistics.median(_first_answers(server, work / "new"))}


def _run(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "spool", *arguments], stdout=subprocess.DEVNULL, timeout=60, check=True)


def _seconds(work: Callable[[], object]) -> float:
    start = time.monotonic()
    work()
    return time.monotonic() - start


def _first_answers(server: Server, directory: Path) -> list[float]:
    def once() -> float:
        start = time.monotonic()
        with serving(server, directory) as running:
            curl(running.base + "/readyz")
            return time.monotonic() - start

    directory.mkdir(parents=True, exist_ok=True)
    once()
    return [once() for _ in range(_STARTS)]


def grown(server: Server, work: Path, rows: int) -> Iterator[Note]:
    """Insertions at a thousand files and at `rows`; with that many, a start, every listing, and who waits."""
    directory = work / "grown"
    directory.mkdir(parents=True)
    few, many = asyncio.run(_grow(directory, rows))
    yield {"insertions a second at a thousand files": few, f"insertions a second at {rows:,} files": many}
    yield {
        f"spool serve to its first answer at {rows:,} files, ms": 1e3
        * statistics.median(_first_answers(server, directory))
    }
    yield from _listings(server, directory, rows)
    yield from beside(directory)


async def _grow(directory: Path, rows: int) -> tuple[float, float]:
    (directory / "blobs").mkdir()
    blobs = await open_blobs(directory)  # makes the directories
    await blobs.aclose()
    index = await open_index(directory)
    try:
        await _fill(index, directory, range(_BATCH))
        few = await _insertions(index, directory, rows)
        await _fill(index, directory, range(_BATCH, rows))
        many = await _insertions(index, directory, rows + _INSERTS)
    finally:
        await index.aclose()
    return few, many


async def _fill(index: Index, directory: Path, numbers: range) -> None:
    """Records, and a blob for each."""
    for start in range(numbers.start, numbers.stop, _BATCH):
        files = [_file(number) for number in range(start, min(start + _BATCH, numbers.stop))]
        for file in files:
            _make_blob(directory, file)
        await index.finish(files)


def _make_blob(directory: Path, file: File) -> None:
    """One of the file's size, which takes no room."""
    blob = os.open(blob_path(directory, file.key), os.O_CREAT | os.O_WRONLY, 0o600)
    os.ftruncate(blob, file.size)
    os.close(blob)


async def _insertions(index: Index, directory: Path, first: int) -> float:
    """Durable single insertions a second, by so many at once, of files that came in one second."""
    second = _START + timedelta(seconds=first)
    files = [_file(first + n, second + timedelta(seconds=n / _INSERTS)) for n in range(_INSERTS)]
    for file in files:
        _make_blob(directory, file)
    waiting = iter(files)

    async def insert() -> None:
        for file in waiting:
            await index.finish([file], share=True)

    start = time.monotonic()
    await asyncio.gather(*(insert() for _ in range(_INSERTERS)))
    return _INSERTS / (time.monotonic() - start)


def _file(number: int, created_at: datetime | None = None) -> File:
    """The record of a file that is like no other's; without a time it is a second younger than the one before."""
    digest = hashlib.sha256(number.to_bytes(8, "big")).hexdigest()
    created_at = created_at or _START + timedelta(seconds=number)
    id = new_id(created_at)  # noqa: A001  # `id` is the word of the design
    return File(
        id=FileId(id),
        key=Key(id),
        owner="local",
        filename=f"take-{digest[:6]}-{number}.bin",
        size=1024 if number % 2 else int(digest[:5], 16),  # many have the same
        media_type=_KINDS[number % len(_KINDS)],
        declared_type=None,
        sha256=digest,
        created_at=created_at,
        expires_at=None,
        metadata={},
    )


def _listings(server: Server, directory: Path, rows: int) -> Iterator[Note]:
    """Of pages of 100 the 99th percentile and the server's CPU, after the sweep of the start; and once beside it."""
    worst, most = 0.0, 0.0
    # No scrub, which would find that the blobs are not what the records say.
    with serving(server, directory, {"SPOOL_STORAGE_SCRUB_INTERVAL": "0"}) as running:
        beside = Many(1, _PAGES, 60, 0).download(running, "/files")
        yield {"page of 100, beside the first sweep, p99 ms": beside["p99_ms"]}
        yield {"the first sweep, s": _swept(running)}
        for name, query in _queries(rows):
            path = "/files?" + urlencode(query)
            before = running.cpu()
            told = Many(1, _PAGES, 60, 0).download(running, path)
            worst = max(worst, told["p99_ms"])
            most = max(most, 1e3 * (running.cpu() - before) / _PAGES)
            yield {f"page of 100, {name}, p99 ms": told["p99_ms"]}
        yield {"page of 100, the worst of these, p99 ms": worst, "page of 100, the dearest of these, CPU ms": most}
        yield {"memory after that, MB": running.memory("VmRSS") / MB}


def _swept(running: Running) -> float:
    """Seconds from here to the end of a sweep."""
    start = time.monotonic()
    while time.monotonic() < start + _SWEEP and b'spool_sweeps_total{outcome="done"} 1' not in curl(
        running.base + "/metrics"
    ):
        time.sleep(0.1)
    return time.monotonic() - start


def _queries(rows: int) -> Iterator[tuple[str, dict[str, str]]]:
    middle = _START + timedelta(seconds=rows // 2)
    filters = {
        "no filter": {},
        "media_type of one in five": {"media_type": "audio/*"},
        "media_type of none": {"media_type": "font/*"},
        "q of few": {"q": "take-00000"},
        "q of none": {"q": "nowhere"},
        "q of one in sixteen": {"q": "take-0"},
        "grant of none": {"grant": "nobody"},
        "filename of few": {"filename": "take-0000*"},
        "since the middle": {"since": middle.isoformat()},
        "until the middle": {"until": middle.isoformat()},
    }
    for sort in ("created_at", "size", "filename"):
        for order in ("desc", "asc"):
            for name, filter_ in filters.items():
                query = {**filter_, "sort": sort, "order": order}
                yield f"{sort} {order}, {name}", query
                if name == "no filter" or "none" in name:
                    yield f"{sort} {order}, {name}, from the middle on", {**query, "cursor": _cursor(query, rows)}


def _cursor(query: dict[str, str], rows: int) -> str:
    """Of a page in the middle of the listing."""
    file = sorted(map(_file, range(0, rows, max(1, rows // 999))), key=lambda file: getattr(file, query["sort"]))[499]
    asked = FileQuery(
        q=query.get("q"),
        media_type=query.get("media_type"),
        grant=GrantId(query["grant"]) if "grant" in query else None,
        sort=query["sort"],  # type: ignore[arg-type]
        descending=query["order"] == "desc",
    )
    value = getattr(file, query["sort"])
    if isinstance(value, datetime):
        value = (value - datetime.fromtimestamp(0, UTC)) // timedelta(microseconds=1)
    return to_cursor(asked, Position(value, file.id))
