"""One page of a listing, from SQLite, at a cost that does not depend on how many files there are.

A page is a stretch of the index that the query sorts by: the start is where the cursor points, and with sort=created_at
`since` and `until` are bounds of the stretch. Without further filters it reads one row more than the page holds. With
filters the stretch is cut after some thousand rows, so that a filter that nothing passes cannot walk through a million
files. The index holds all that is filtered by, so that only rows that pass are fetched.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from spool.model import File, Page
from spool.store.cursor import Position, parse_cursor, to_cursor
from spool.store.sqlite.rows import FILE, microseconds, to_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from sqlite3 import Connection

    from spool.model import FileQuery

SCAN: Final = 3000
"""Rows that a page of up to 100 files looks at, at most: 2 ms of CPU, for the filter that takes longest."""
_USUAL: Final = 100
"""Files on such a page. One that may hold more looks at more: its client wants to be through soon."""
_FETCHED: Final = 3
"""A row that has to be fetched counts as so many."""

Term = tuple[str, tuple[int | str, ...]]
"""A condition, and the values to bind in it."""

_SEEN = "filename AS name, media_type AS type, created_at AS moment"
"""What is filtered by, under names that no column has."""
_ALSO = ", grant_id AS came_by"
"""The one thing that the indexes of the sorts do not hold: few ask for it in another order than that of time."""


@dataclass(frozen=True, slots=True)
class _Clause:
    """Conditions joined by AND."""

    sql: str
    values: tuple[int | str, ...]

    @classmethod
    def of(cls, terms: Iterator[Term]) -> _Clause:
        collected = list(terms)
        sql = " AND ".join(condition for condition, _ in collected)
        return cls(sql, tuple(value for _, values in collected for value in values))


def read_page(connection: Connection, query: FileQuery, scan: int) -> Page[File]:
    """The page that `query` asks for. Call it in a transaction: it reads twice where the page is cut short."""
    stretch, filters, most = _stretch(query), _Clause.of(_filters(query)), _most(query, scan)
    if not filters.sql:
        sql, values = f"SELECT {FILE} {stretch.sql} LIMIT ?", stretch.values
    else:
        # SQLite runs the inner query as a co-routine, from the index alone: the outer LIMIT ends both.
        seen = f"SELECT rowid AS place, {_SEEN}{_ALSO if _filters_by_grant(query) else ''} {stretch.sql} LIMIT ?"
        sql = f"SELECT {FILE} FROM ({seen}) CROSS JOIN files ON files.rowid = place WHERE {filters.sql} LIMIT ?"  # noqa: S608 - see _stretch
        values = (*stretch.values, most, *filters.values)
    rows = connection.execute(sql, (*values, query.limit + 1)).fetchall()
    items = tuple(to_file(row) for row in rows[: query.limit])
    if len(rows) > query.limit:
        return Page(items, to_cursor(query, _position(query, items[-1])))
    return Page(items, _continuation(connection, query, stretch, most) if filters.sql else None)


def _most(query: FileQuery, scan: int) -> int:
    """Rows that the page looks at, at most, where one of 100 files looks at `scan`."""
    most = scan * max(query.limit, _USUAL) // _USUAL
    return max(most // _FETCHED, 1) if _filters_by_grant(query) else most


def _continuation(connection: Connection, query: FileQuery, stretch: _Clause, most: int) -> str | None:
    """The cursor of the last row that was looked at, if the stretch was cut there."""
    sql = f"SELECT {query.sort}, id {stretch.sql} LIMIT 1 OFFSET ?"
    rows = connection.execute(sql, (*stretch.values, most - 1)).fetchall()
    return to_cursor(query, Position(*rows[0])) if rows else None


def _stretch(query: FileQuery) -> _Clause:
    """The ordered rows from the cursor on.

    Only words of ours become SQL; what a client sent is bound. The index is named, so that neither statistics nor
    another version of SQLite can turn the walk into a sort of the whole table.
    """
    bounds = _Clause.of(_bounds(query))
    where = f"WHERE {bounds.sql} " if bounds.sql else ""
    direction = "DESC" if query.descending else "ASC"
    order = f"ORDER BY {query.sort} {direction}, id {direction}"
    index = "grant" if _walks_by_grant(query) else query.sort
    return _Clause(f"FROM files INDEXED BY files_by_{index} {where}{order}", bounds.values)


def _walks_by_grant(query: FileQuery) -> bool:
    """Whether the stretch is that of one grant's files."""
    return query.grant is not None and query.sort == "created_at"


def _filters_by_grant(query: FileQuery) -> bool:
    return query.grant is not None and not _walks_by_grant(query)


def _bounds(query: FileQuery) -> Iterator[Term]:
    """The grant, where it is one grant's stretch, and at most one bound on either end: the index uses them all."""
    if query.grant is not None and _walks_by_grant(query):
        yield "grant_id = ?", (query.grant,)
    start = _start(query)
    if start is not None:
        yield f"({query.sort}, id) {'<' if query.descending else '>'} (?, ?)", (start.value, start.id)
    if query.sort != "created_at":
        return
    if query.descending and query.since is not None:
        yield "created_at >= ?", (microseconds(query.since),)
    if not query.descending and query.until is not None:
        yield "created_at < ?", (microseconds(query.until),)


def _start(query: FileQuery) -> Position | None:
    """The cursor's position, or that just before the first file that `since` or `until` lets through."""
    cursor = parse_cursor(query)
    moment = query.until if query.descending else query.since
    if cursor is not None or query.sort != "created_at" or moment is None:
        return cursor
    return Position(microseconds(moment), "")  # no id is empty, so every id of that moment comes after


def _filters(query: FileQuery) -> Iterator[Term]:
    if query.grant is not None and _filters_by_grant(query):
        yield "came_by = ?", (query.grant,)
    if query.q is not None:
        # Both lower() and LIKE know ASCII only, but LIKE stops at a NUL and has wildcards to escape.
        yield "instr(lower(name), lower(?)) > 0", (query.q,)
    if query.filename is not None:
        yield "name GLOB ?", (query.filename,)
    if query.media_type is not None:
        yield "type GLOB ?", (query.media_type,)
    if query.sort != "created_at" and query.since is not None:
        yield "moment >= ?", (microseconds(query.since),)
    if query.sort != "created_at" and query.until is not None:
        yield "moment < ?", (microseconds(query.until),)


def _position(query: FileQuery, file: File) -> Position:
    match query.sort:
        case "created_at":
            return Position(microseconds(file.created_at), file.id)
        case "size":
            return Position(file.size, file.id)
        case "filename":
            return Position(file.filename, file.id)
