"""Connections to an SQLite file, and the one place where its errors become ours.

A file is never created by us: connections are opened with ``mode=rw``.  A database that somebody else is writing to is
waited for, in small steps, for up to a minute.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any, TypeVar
from urllib.parse import quote as url_quote
from urllib.parse import unquote

from dualwrite.errors import Denied, DualwriteError, Unavailable, Usage
from dualwrite.lined import weight

_T = TypeVar("_T")
PATIENCE = 60.0
"""How long a busy database is waited for, in seconds."""
COURTESY = 0.026
"""For how long the write lock is left free, in seconds."""
COURTEOUS_AFTER, COURTEOUS_ALONE = 0.05, 0.5
"""After how long of holding it: in company of other writers, and where none has been noticed."""
COMPANY = 10.0
"""For how long after somebody else's commit there is company, in seconds."""
STEP = 10
"""Rows that are read before somebody looks how large they are."""
LARGEST = 2 << 20
"""Characters and bytes from which on no more rows are read at once."""

_LATER = {
    sqlite3.SQLITE_BUSY: ("is busy: another process holds its lock", "find the process that keeps a transaction open"),
    sqlite3.SQLITE_LOCKED: ("is locked by another connection", "find the process that keeps a transaction open"),
    sqlite3.SQLITE_FULL: ("cannot grow: the disk is full", "free some space on that disk"),
    sqlite3.SQLITE_IOERR: ("cannot be read or written", "check the disk and the file system"),
    sqlite3.SQLITE_NOMEM: ("needs more memory than there is", "free some memory"),
    sqlite3.SQLITE_PROTOCOL: ("is busy: its lock cannot be taken", "find the process that keeps it busy"),
    sqlite3.SQLITE_INTERRUPT: ("was interrupted", "try again"),
}
_NEVER = {
    sqlite3.SQLITE_READONLY: ("is read-only", "give this user write permission to the file and to its folder"),
    sqlite3.SQLITE_CANTOPEN: ("cannot be opened", "check that this user may write to the file and to its folder"),
    sqlite3.SQLITE_NOTADB: ("is not an SQLite database (or is encrypted)", "correct the url in dualwrite.yaml"),
    sqlite3.SQLITE_CORRUPT: ("is damaged", "restore it from a backup, or repair it with `sqlite3 FILE .recover`"),
    sqlite3.SQLITE_PERM: ("may not be accessed", "give this user permission to read and write the file"),
    sqlite3.SQLITE_AUTH: ("may not be accessed", "give this user permission to read and write the file"),
}
_CHANGED = "the tables may have changed: run `dualwrite check`"


def primary_code(exc: sqlite3.Error) -> int:
    """SQLite's result code without its details; 0 when there is none."""
    return int(getattr(exc, "sqlite_errorcode", 0) or 0) & 0xFF


def is_busy(exc: sqlite3.Error) -> bool:
    """Is it only that somebody else is at work?"""
    return primary_code(exc) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL)


def text_or_bytes(value: bytes) -> str | bytes:
    """A stored text; what is no UTF-8 stays as it is, bytes."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value


def read_all(connection: sqlite3.Connection, sql: str, bound: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    """All rows of a query; text that is no UTF-8 comes as bytes."""
    return read(connection, sql, bound, sqlite3.Cursor.fetchall)


def read(connection: sqlite3.Connection, sql: str, bound: Sequence[Any], take: Callable[[sqlite3.Cursor], _T]) -> _T:
    """What is taken of a query's rows; text that is no UTF-8 comes as bytes, for which it may be asked once more."""
    try:
        return take(connection.execute(sql, bound))
    except sqlite3.OperationalError as exc:
        if not tolerate(connection, exc):
            raise
        return take(connection.execute(sql, bound))


def some(cursor: sqlite3.Cursor, count: int) -> list[tuple[Any, ...]]:
    """The next rows of a query: so many, or fewer large ones."""
    rows: list[tuple[Any, ...]] = []
    room = LARGEST
    while len(rows) < count and room > 0 and (more := cursor.fetchmany(min(STEP, count - len(rows)))):
        rows += more
        room -= weight(more)
    return rows


def tolerate(connection: sqlite3.Connection, exc: sqlite3.Error) -> bool:
    """Was the error a text that is no UTF-8?  From now on the connection takes it: slower, and so only when needed."""
    if not str(exc).startswith("Could not decode to UTF-8") or connection.text_factory is text_or_bytes:
        return False
    connection.text_factory = text_or_bytes
    return True


def path_of(url: str) -> str:
    """The absolute path of ``sqlite:///relative.db`` or ``sqlite:////absolute.db``; raises Usage for anything else."""
    prefix = "sqlite:///"
    path = unquote(url.removeprefix(prefix).partition("?")[0])
    if not url.startswith(prefix) or not path or path == ":memory:":
        raise Usage(
            f"{url!r} is not the url of an SQLite file",
            "write sqlite:///relative.db or sqlite:////absolute/path.db (a database in memory cannot be linked)",
        )
    return os.path.abspath(path)


class Courtesy:
    """Lets other writers in between our transactions when those follow each other closely.

    SQLite keeps no queue: whoever waits looks again after 1, 2, 5 … 25 milliseconds, and after 128 of them only every
    50 and 100.  So the lock is left free for longer than 25 milliseconds before that time is over.  Who works alone
    does so rarely: the first other writer waits a little longer, and is noticed by its commit.
    """

    def __init__(self) -> None:
        self._held = 0.0
        self._began = self._ended = self._met = float("-inf")
        self._version: int | None = None

    def begin(self, version: int | None = None) -> None:
        """A transaction of ours is to begin; sleeps when it is the others' turn.

        ``version`` is SQLite's ``data_version``, which changes with commits of others.
        """
        now = time.monotonic()
        if version is not None:
            if self._version is not None and version != self._version:
                self._met = now
            self._version = version
        after = COURTEOUS_AFTER if now - self._met < COMPANY else COURTEOUS_ALONE
        free = now - self._ended
        if free < COURTESY and self._held > after:
            time.sleep(COURTESY - free)
            free = COURTESY
        if free >= COURTESY:
            self._held = 0.0
        self._began = time.monotonic()

    def end(self) -> None:
        """It has ended."""
        self._ended = time.monotonic()
        self._held += self._ended - self._began


@dataclass(frozen=True, slots=True)
class File:
    """An SQLite database file."""

    path: str

    def connect(self) -> sqlite3.Connection:
        """A new connection in autocommit mode that never creates the file."""
        uri = f"file:{url_quote(self.path)}?mode=rw"
        with self.errors():
            connection = sqlite3.connect(
                uri, uri=True, isolation_level=None, check_same_thread=False, timeout=5.0, cached_statements=512
            )
            try:
                connection.execute("PRAGMA foreign_keys = ON")
                connection.execute("PRAGMA synchronous = FULL")
                connection.execute("PRAGMA temp_store = MEMORY")
                connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            except sqlite3.Error:
                connection.close()
                raise
            return connection

    def place(self) -> tuple[int, int]:
        """Which file of the disk the path names at present; raises Denied where it names none."""
        try:
            found = os.stat(self.path)
        except OSError as exc:
            raise Denied(f"{self.path} does not exist any more", "put it back, then run again") from exc
        return found.st_dev, found.st_ino

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turn SQLite's errors about the file into ours; those about single rows and our bugs pass."""
        try:
            yield
        except sqlite3.OperationalError as exc:
            raise self._translated(exc) from exc
        except sqlite3.DatabaseError as exc:
            if type(exc) is not sqlite3.DatabaseError:
                raise
            raise self._translated(exc) from exc

    def _translated(self, exc: sqlite3.Error) -> DualwriteError:
        code = primary_code(exc)
        if code in _LATER:
            what, remedy = _LATER[code]
            return Unavailable(f"{self.path} {what} ({exc})", remedy)
        if code == sqlite3.SQLITE_CANTOPEN and not FilePath(self.path).exists():
            return Denied(f"{self.path} does not exist", "correct the url in dualwrite.yaml, or create the database")
        what, remedy = _NEVER.get(code, ("refuses a statement", _CHANGED))
        return Denied(f"{self.path} {what} ({exc})", remedy)

    def begin(self, connection: sqlite3.Connection, patience: float | None = None) -> None:
        """Begin a write transaction; waits for other writers, then gives up with Unavailable."""
        self.patiently(connection, "BEGIN IMMEDIATE", patience)

    def patiently(self, connection: sqlite3.Connection, statement: str, patience: float | None = None) -> None:
        """Execute a statement that needs a lock as soon as the others let us."""
        end = time.monotonic() + (PATIENCE if patience is None else patience)
        pause = 0.0005
        with self.errors():
            connection.execute("PRAGMA busy_timeout = 0")  # SQLite's own waiting sleeps far longer than ours
            while True:
                try:
                    connection.execute(statement).fetchall()
                    break
                except sqlite3.OperationalError as exc:
                    if not is_busy(exc) or time.monotonic() > end:
                        raise
                time.sleep(pause)
                pause = min(pause * 1.5, 0.005)
            connection.execute("PRAGMA busy_timeout = 5000")


def real_path(file: File) -> str:
    """Where a file really is, whatever links lead to it."""
    return os.path.realpath(file.path)
