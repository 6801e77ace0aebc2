"""The index in one SQLite file."""

from spool.store.sqlite.index import SqliteIndex, open_sqlite

__all__ = ["SqliteIndex", "open_sqlite"]
