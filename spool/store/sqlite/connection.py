"""Connections to the SQLite index: how each is set up, how the schema is kept current, what its errors mean."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import sqlite3
import time
from importlib import resources
from typing import TYPE_CHECKING, Literal

from spool.errors import SpoolError, StorageFull, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_OLDEST = (3, 37, 0)  # STRICT tables
_BUSY = 10.0  # seconds to wait for another process, such as the command line, to end its transaction
SPARE = 512
"""Pages of 4 KiB that may lie idle in the database."""
_CUT = 128
"""Pages that are cut off in one transaction: 3 ms of CPU, and each may wait for Python's lock."""
_PRAGMAS = (
    "PRAGMA synchronous = FULL",  # NORMAL loses the last commits in a power cut
    "PRAGMA foreign_keys = ON",
    "PRAGMA temp_store = MEMORY",  # or what undoes a statement goes to a file elsewhere, which may be full or read-only
    "PRAGMA journal_size_limit = 16777216",  # bytes: what a long reader made the log grow to is given back
)


def create(path: Path) -> None:
    """A database file is at `path`: a new one is its owner's alone, as its log will be, and outlives a power cut.

    What a process that was killed has left in the log is durable too: SQLite shows it to whoever opens the database
    next, whether it was synced or not. Raises Unavailable if `path` is a symbolic link.
    """
    # Never opens one that exists: closing it again would drop this process's locks on it. SQLite locks no log.
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
    _refuse_link(path)
    with contextlib.suppress(FileNotFoundError):
        sync(path.with_name(f"{path.name}-wal"), os.O_RDONLY | os.O_NOFOLLOW)
    sync(path.parent, os.O_RDONLY | os.O_DIRECTORY)


def sync(path: Path, flags: int = os.O_RDONLY) -> None:
    """The file or directory at `path` is durable."""
    fd = os.open(path, flags | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def connect(path: Path, mode: Literal["rw", "ro"]) -> sqlite3.Connection:
    """A connection that any one thread at a time may use, in autocommit mode, and durable with each commit.

    Raises Unavailable if `path` is a symbolic link.
    """
    _refuse_link(path)
    if sqlite3.sqlite_version_info < _OLDEST:
        raise Unavailable(f"SQLite 3.37 or newer is needed; this is {sqlite3.sqlite_version}.")
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    connection = sqlite3.connect(uri, uri=True, timeout=_BUSY, isolation_level=None, check_same_thread=False)
    try:
        if mode == "rw" and not path.stat().st_size:  # later it does nothing but wait for whoever writes
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        _log_ahead(connection)
        for pragma in _PRAGMAS:
            connection.execute(pragma)
    except BaseException:
        connection.close()
        raise
    return connection


def _refuse_link(path: Path) -> None:
    """SQLite would follow it, out of the directory, and keep its log there, where it is not synced."""
    if path.is_symlink():
        raise Unavailable(f"{path} is a symbolic link: put the index itself there.")


def migrate(connection: sqlite3.Connection) -> None:
    """The schema is the newest one, and the index has its secret.

    Raises Unavailable for a schema that is newer than this Spool.
    """
    migrations = _migrations()
    if _version(connection) == len(migrations):
        return  # without a write, for the disk may be full, or another process busy
    with transaction(connection):
        version = _version(connection)
        if version > len(migrations):
            raise Unavailable(f"The index is of a newer Spool: schema {version}, and {len(migrations)} is known here.")
        for migration in migrations[version:]:
            for statement in _statements(migration):
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {len(migrations)}")
        secret = secrets.token_bytes(32)
        connection.execute("INSERT INTO settings VALUES ('secret', ?) ON CONFLICT DO NOTHING", (secret,))


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """What is done inside is durable, or undone if anything raises."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # after some errors SQLite has rolled back by itself
            connection.execute("ROLLBACK")
        raise


def overwrite(connection: sqlite3.Connection) -> None:
    """Something durable is where a commit was written that failed.

    Its frames still lie at the end of the log. Nobody sees them, until a crash makes SQLite read the log anew: then
    they are valid, though they were answered with an error. Whatever is committed next takes their place, but what
    changes nothing writes nothing.
    """
    with transaction(connection):
        change(connection)


def change(connection: sqlite3.Connection) -> None:
    """Something is written, for its own sake."""
    sql = "INSERT INTO settings VALUES ('overwritten', randomblob(16)) ON CONFLICT DO UPDATE SET value = excluded.value"
    connection.execute(sql)


def shrink(connection: sqlite3.Connection) -> bool:
    """Some pages that nothing uses any more are cut off the database; whether there are more. A few are kept.

    Called in a transaction. The file is shorter after the next checkpoint.
    """
    [before] = connection.execute("PRAGMA freelist_count").fetchone()
    if before <= SPARE:
        return False
    for _ in range(min(_CUT, before - SPARE)):  # one by one: CPython 3.11 ends this statement after its first page
        connection.execute("PRAGMA incremental_vacuum(1)")
    [after] = connection.execute("PRAGMA freelist_count").fetchone()
    return bool(SPARE < after < before)


def checkpoint(path: Path) -> None:
    """What the log holds is in the database at `path`, as far as nobody reads an older state of it."""
    with translated(), contextlib.closing(connect(path, "rw")) as connection:
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()


@contextlib.contextmanager
def snapshot(connection: sqlite3.Connection) -> Iterator[None]:
    """What is read inside is one state of the index, and the log need not be kept for it afterwards."""
    connection.execute("BEGIN")
    try:
        yield
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """What SQLite or the file system raises inside becomes StorageFull or Unavailable. Errors of ours in SQL do not."""
    try:
        yield
    except (sqlite3.ProgrammingError, sqlite3.InterfaceError):
        raise
    except (sqlite3.Error, OSError) as error:
        raise _storage_error(error) from error


def _storage_error(error: sqlite3.Error | OSError) -> SpoolError:
    # The log's index file cannot grow: the only cause that is seen is a full disk.
    full = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE}
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return StorageFull("The index has no room.")
    if getattr(error, "sqlite_errorcode", None) in full:
        return StorageFull("The index has no room.")
    return Unavailable("The index failed.")


def _log_ahead(connection: sqlite3.Connection) -> None:
    """Commits go to a write-ahead log, so that readers and the writer do not block each other."""
    deadline = time.monotonic() + _BUSY
    while True:
        try:
            [mode] = connection.execute("PRAGMA journal_mode = WAL").fetchone()
            break
        except sqlite3.OperationalError as error:
            # Where two open a new file at once, SQLite refuses one of them without the usual wait.
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
    if mode != "wal":
        raise Unavailable(f"The index's file system cannot do write-ahead logging: SQLite stays with {mode!r}.")


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _migrations() -> list[str]:
    folder = resources.files("spool.store.sqlite").joinpath("sql")
    scripts = sorted((file for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda file: file.name)
    return [script.read_text(encoding="utf-8") for script in scripts]


def _statements(script: str) -> Iterator[str]:
    """The statements of a script one by one, for `executescript` would commit before the first."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
