"""The database behind the journal: found, opened, created or upgraded, used in transactions, its errors translated.

SQLite waits for other writers before it writes; elsewhere a writer locks the journal's number.  Either way there is
one writer at a time, from whatever thread or process, and a transaction that is killed leaves nothing behind.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Final, TypeAlias

from sqlalchemy import (
    Connection,
    Engine,
    Table,
    bindparam,
    create_engine,
    event,
    insert,
    inspect,
    select,
    text,
    update,
)
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import QueuePool, StaticPool

from dualwrite.errors import Denied, DualwriteError, Unavailable, Usage
from dualwrite.journal.tables import FIRST, Step, journal, metadata

Row: TypeAlias = tuple[str | int | float | None, ...]
FOLDER: Final = ".dualwrite"
FILE: Final = "journal.db"

_LOCKED: Final = (Unavailable, "is locked by another process", "wait for it, or end the process that holds it")
_TROUBLES: Final[dict[int, tuple[type[DualwriteError], str, str]]] = {
    sqlite3.SQLITE_FULL: (Unavailable, "cannot be written: the disk is full", "free some space on that disk"),
    sqlite3.SQLITE_IOERR: (
        Unavailable,
        "cannot be read or written: the disk or a limit on file sizes refuses",
        "check the disk, its free space and `ulimit -f`",
    ),
    sqlite3.SQLITE_BUSY: _LOCKED,
    sqlite3.SQLITE_LOCKED: _LOCKED,
    sqlite3.SQLITE_READONLY: (
        Denied,
        "cannot be written: it is read-only, or was moved",
        "let this user write the file and its folder",
    ),
    sqlite3.SQLITE_PERM: (Denied, "cannot be used: permission denied", "let this user read and write it"),
    sqlite3.SQLITE_CANTOPEN: (
        Denied,
        "cannot be opened",
        "check that it is a file in an existing folder and that this user may read and write both",
    ),
    sqlite3.SQLITE_NOTADB: (Denied, "is not a SQLite database", "move the file away, or name another one"),
    sqlite3.SQLITE_CORRUPT: (Denied, "is damaged", "restore it from a backup"),
}


def locate(where: str | Path) -> URL:
    """The URL of a journal: a URL as it stands, a file, or a project folder, in which it has its usual place."""
    if isinstance(where, str) and "://" in where:
        try:
            return make_url(where)
        except ArgumentError as error:
            raise Usage("the journal's URL cannot be read", "write it as dialect://user@host/database") from error
    path = Path(where)
    return URL.create("sqlite", database=str(path / FOLDER / FILE if path.is_dir() else path))


class Database:
    """One journal's database.  Usable from several threads; ``wait`` is how long a locked one is waited for."""

    def __init__(self, url: URL, wait: float) -> None:
        self._wait = wait
        in_memory = url.get_backend_name() == "sqlite" and url.database in (None, "", ":memory:")
        self._file = None if in_memory or url.get_backend_name() != "sqlite" else Path(url.database or "")
        self.name = str(self._file or url.render_as_string(hide_password=True))
        self.home = None if self._file is None else _home(self._file.resolve().parent)
        self._engine = _engine(url, wait, in_memory)
        self._writer = self._engine.execution_options(dualwrite_writes=True)
        self._session: sqlite3.Connection | None = None  # that of ``append``
        self._watcher: sqlite3.Connection | None = None  # that of ``version``
        self._watches = threading.Lock()
        self._appends = threading.Lock()
        # A journal in memory is one connection, so its transactions take turns.
        self._turn: AbstractContextManager[object] = threading.RLock() if in_memory else nullcontext()

    def close(self) -> None:
        """Close all connections.  Idempotent."""
        with self._appends:
            if self._session is not None:
                self._session.close()
                self._session = None
        with self._watches:
            if self._watcher is not None:
                self._watcher.close()
                self._watcher = None
        self._engine.dispose()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that only reads."""
        with self._translated(), self._turn, self._engine.begin() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that writes, alone; committed at the end unless an exception passes."""
        with self._translated(), self._turn, self._writer.begin() as connection:
            if self._engine.dialect.name != "sqlite":
                connection.execute(select(journal.c.number).with_for_update())
            yield connection

    def version(self) -> int | None:
        """A number that is another one after each commit of whatever process; None where the database tells none.

        Who asks again and again whether something has come need not look where it is still the same.
        """
        if self._file is None:
            return None
        with self._translated(), self._watches:
            if self._watcher is None:
                self._watcher = sqlite3.connect(self._file, timeout=self._wait, check_same_thread=False)
            return int(self._watcher.execute("PRAGMA data_version").fetchone()[0])

    def insert_all(self, connection: Connection, table: Table, names: Sequence[str], rows: Sequence[Row]) -> None:
        """Insert many rows of these columns in an open transaction, as they are: what SQLAlchemy does for each value of
        each row takes longer than the rest."""
        statement = insert(table).values({name: bindparam(name) for name in names}).inline()
        compiled = statement.compile(dialect=connection.dialect, column_keys=list(names))
        order = compiled.positiontup
        if order is None:
            connection.exec_driver_sql(str(compiled), [dict(zip(names, row, strict=True)) for row in rows])
            return
        places = [names.index(name) for name in order]
        connection.exec_driver_sql(str(compiled), [tuple([row[place] for place in places]) for row in rows])

    def append(self, statement: str, values: Mapping[str, object]) -> None:
        """Execute a statement in a transaction that does not wait for the disk: every process sees what it wrote, and
        it survives this one's death.  After a power cut it may be missing, unless something else was written since.

        In a session of its own, as this is done for each transaction of ours.
        """
        if self._file is None:
            with self.writing() as connection:
                connection.execute(text(statement), values)
            return
        with self._translated(), self._appends:
            self._appender().execute(statement, values)

    def _appender(self) -> sqlite3.Connection:
        if self._session is None:
            assert self._file is not None
            session = sqlite3.connect(self._file, timeout=self._wait, isolation_level=None, check_same_thread=False)
            session.execute("PRAGMA synchronous = NORMAL")
            self._session = session
        return self._session

    def prepare(self, steps: Sequence[Step]) -> None:
        """Create the journal's tables, or lift those of an older program to today's, all or nothing."""
        newest = FIRST + len(steps)
        with self._translated():
            if self._file is not None:
                self._file.parent.mkdir(parents=True, exist_ok=True)
            with self._turn, self._engine.begin() as connection:
                found = _number(connection)
            if found == newest:
                return
            if found is None and self._file is not None:
                self._use_wal()
            with self._turn, self._writer.begin() as connection:
                self._lift(connection, newest, steps)

    def _lift(self, connection: Connection, newest: int, steps: Sequence[Step]) -> None:
        found = _number(connection)
        if found is None:
            if self._file is not None and inspect(connection).get_table_names():
                raise Denied(f"{self.name} is a database, but not a journal of dualwrite", "name another file")
            metadata.create_all(connection)
            connection.execute(insert(journal).values(number=newest))
        elif found > newest:
            raise Denied(
                f"the journal {self.name} was written by a newer dualwrite (its number is {found}, ours {newest})",
                "update dualwrite",
            )
        elif found < newest:
            for step in steps[found - FIRST :]:
                step(connection)
            connection.execute(update(journal).values(number=newest))

    def _use_wal(self) -> None:
        """Let readers and the writer work side by side.  Processes that meet here are not made to wait by SQLite."""
        deadline = time.monotonic() + self._wait
        raw = self._engine.raw_connection()
        try:
            while True:
                try:
                    raw.cursor().execute("PRAGMA journal_mode = WAL")
                    return
                except sqlite3.OperationalError as error:
                    if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                        raise
                    time.sleep(0.01)
        finally:
            raw.close()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (SQLAlchemyError, sqlite3.Error, OSError) as error:
            raise trouble(self.name, error) from error


def _home(folder: Path) -> str:
    return str(folder.parent if folder.name == FOLDER else folder)


def trouble(name: str, error: Exception) -> DualwriteError:
    """What a database's or file system's error means for the journal of that name, and what to do about it."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    words = (str(cause).strip() or type(cause).__name__).splitlines()[0]
    code = getattr(cause, "sqlite_errorcode", None)
    if code is not None and code & 0xFF in _TROUBLES:
        kind, what, remedy = _TROUBLES[code & 0xFF]
        return kind(f"the journal {name} {what} ({words})", remedy)
    if isinstance(error, (OperationalError, PoolTimeout)) and code is None:
        return Unavailable(f"the journal {name} does not answer ({words})", "check that its database runs")
    return Denied(f"the journal {name} cannot be used ({words})", "check that it is a journal and may be written")


def _engine(url: URL, wait: float, in_memory: bool) -> Engine:
    options = {"connect_args": {"check_same_thread": False}} if url.get_backend_name() == "sqlite" else {}
    try:
        engine = create_engine(url, poolclass=StaticPool if in_memory else QueuePool, **options)
    except (ArgumentError, ImportError) as error:
        raise Usage(
            f"there is no driver for the journal's URL {url.render_as_string(hide_password=True)} ({error})",
            "install the driver, or name a file",
        ) from error
    if url.get_backend_name() == "sqlite":
        _set_up_sqlite(engine, wait)
    return engine


def _set_up_sqlite(engine: Engine, wait: float) -> None:
    def connected(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None  # transactions begin where we say so
        connection.execute(f"PRAGMA busy_timeout = {int(wait * 1000)}")
        connection.execute("PRAGMA synchronous = FULL")

    def began(connection: Connection) -> None:
        writes = connection.get_execution_options().get("dualwrite_writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    event.listen(engine, "connect", connected)
    event.listen(engine, "begin", began)


def _number(connection: Connection) -> int | None:
    if not inspect(connection).has_table(journal.name):
        return None
    return connection.execute(select(journal.c.number)).scalar()
