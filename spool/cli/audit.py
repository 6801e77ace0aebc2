"""`spool audit`: who stored, changed and deleted what, and who was let in."""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from spool.cli.command import add_common, parse_lifetime, with_storage
from spool.model import FileQuery

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from spool.model import Entry, File
    from spool.store import LocalStore, SqliteIndex

_PAGE: Final = 1000
_EPOCH: Final = datetime.fromtimestamp(0, UTC)


def add_audit(parser: argparse.ArgumentParser) -> None:
    """The arguments of `spool audit`."""
    add_common(parser, _audit)
    parser.add_argument(
        "--since", type=_parse_since, default=_EPOCH, metavar="WHEN", help="such as 7d, or 2026-11-25T10:00Z"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a line")


def _parse_since(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        try:
            return max(datetime.now(UTC) - parse_lifetime(text), _EPOCH)
        except (argparse.ArgumentTypeError, OverflowError) as error:
            raise argparse.ArgumentTypeError(f"{text!r} is neither a duration such as 7d nor a time") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _audit(arguments: argparse.Namespace) -> int:
    async def work(blobs: LocalStore, index: SqliteIndex) -> None:
        from spool import serve  # noqa: PLC0415
        from spool.catalog import Catalog  # noqa: PLC0415

        query = FileQuery(limit=_PAGE, since=arguments.since, descending=False)
        stored = (_stored(file) async for file in Catalog(blobs, index, serve.now).walk(query))
        done = (_done(entry) async for entry in _entries(index, arguments.since))
        show = json.dumps if arguments.json else _line
        async for event in _merged(stored, done):
            print(show(event))

    return with_storage(arguments, work)


_Event = dict[str, object]
"""As it is printed with --json."""


async def _entries(index: SqliteIndex, since: datetime) -> AsyncIterator[Entry]:
    after = 0
    while page := await index.audited(since, after, _PAGE):
        for entry in page:
            yield entry
        after = page[-1].number


async def _merged(*sources: AsyncIterator[_Event]) -> AsyncIterator[_Event]:
    """What each of the sources gives, by time."""
    heads = [(await anext(source, None), source) for source in sources]
    while waiting := [(head, source) for head, source in heads if head is not None]:
        first, source = min(waiting, key=lambda pair: str(pair[0]["time"]))
        yield first
        heads = [(await anext(s, None) if s is source else head, s) for head, s in waiting]


def _stored(file: File) -> _Event:
    detail = {"filename": file.filename, "size": file.size, "media_type": file.media_type, "sha256": file.sha256}
    return _event(file.created_at, file.owner, "http", "file.stored", file.id, detail)


def _done(entry: Entry) -> _Event:
    detail = dict(entry.detail)
    event = _event(entry.at, entry.who, entry.via, entry.act, entry.subject, detail)
    return {**event, "number": entry.number, "request_id": entry.request_id}


def _event(at: datetime, who: str, via: str, act: str, subject: str, detail: _Event) -> _Event:  # noqa: PLR0913, PLR0917
    time = at.isoformat(timespec="microseconds").replace("+00:00", "Z")
    return {"time": time, "who": who, "via": via, "act": act, "subject": subject, "detail": detail}


def _line(event: _Event) -> str:
    detail = event["detail"]
    assert isinstance(detail, dict)
    from spool.logs import show_pairs  # noqa: PLC0415

    told = {name: event[name] for name in ("who", "via", "subject")}
    return f"{event['time']} {event['act']}{show_pairs({**told, **detail})}"
