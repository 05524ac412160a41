# ruff: noqa: S608  (names go through quote(), values are bound)
"""The SQLite connector: an ordinary database file in WAL mode, captured by triggers.

It opens the file, asks it what it holds, installs capture (``_sqlite_capture``), reads snapshots and the feed
(``_sqlite_feed``), and hands out transactions (``_sqlite_apply``).  Each feed and snapshot has a connection of its
own; transactions share one, one at a time.  All state is in the file: a crash needs no cleaning up.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from threading import Lock, RLock

from dualwrite.connectors._sqlite_apply import Checked, SqliteTransaction
from dualwrite.connectors._sqlite_capture import REMEDY, Capture, Names, by_hand, installation, is_installed, read_meta
from dualwrite.connectors._sqlite_effects import Unmarked
from dualwrite.connectors._sqlite_feed import Reading, SqliteFeed
from dualwrite.connectors._sqlite_health import inspect
from dualwrite.connectors._sqlite_log import end_of, size_of, trim_slice
from dualwrite.connectors._sqlite_reader import KeptReader
from dualwrite.connectors._sqlite_schema import Catalog, read_catalog
from dualwrite.connectors._sqlite_session import PATIENCE, Courtesy, File, path_of, real_path
from dualwrite.connectors._sqlite_statements import TransactionUndoneError
from dualwrite.connectors._sqlite_view import Plans, ViewPlan
from dualwrite.connectors._sqlite_write import Writer, lookups_of
from dualwrite.connectors.base import Capabilities, Installation, Remembered, refuse_schema
from dualwrite.declared import Declared, complete
from dualwrite.errors import Denied, DualwriteError, PositionLost, Problem, Unavailable, Usage
from dualwrite.filters import prepare_sqlite
from dualwrite.model import Applied, Key, Outcome, Position, Rejected, Row, Side, Write
from dualwrite.schema import Schema, View

BLOCK = 2000
"""Rows per block of a snapshot."""
TRIM_ENTRIES, TRIM_SECONDS = 1000, 5.0
"""The log is trimmed when so many entries, or so much time, have gathered."""
_LOCAL = "move it to a local disk whose file system has shared memory"
_INSTALL = "start the link with `dualwrite run`, which installs capture"


def open_sqlite(
    url: str, *, link: str, side: Side, declared: Declared | None = None, schema: str | None = None
) -> SqliteConnector:
    """The connector for ``sqlite:///relative.db`` or ``sqlite:////absolute.db``.  Opens nothing yet."""
    refuse_schema(side, schema, "an SQLite database")
    return SqliteConnector(File(path_of(url)), link, side, declared)


class SqliteConnector:
    """A link's access to an SQLite file.  See ``Connector`` for what each method promises."""

    capabilities = Capabilities()

    def __init__(self, file: File, link: str, side: Side = Side.LEFT, declared: Declared | None = None) -> None:
        """Bind a file to a link; nothing is opened before it is needed."""
        self._file = file
        self._names = Names(link)
        self._side = side
        self._declared = declared
        self._catalog: Catalog | None = None
        self._plans = Plans()
        self._kept = KeptReader()
        self._known: dict[str, Position | None] = {}  # what each stream's position was when we last saw it
        self._writing = Lock()
        self._courtesy = Courtesy()
        self._reading = RLock()
        self._writer: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        self._acknowledged: Position | None = None
        self._trimmed = (0, time.monotonic())
        self._checked = Checked()

    # -- connections ----------------------------------------------------------------------------------------------

    def _connect(self) -> sqlite3.Connection:
        connection = self._file.connect()
        prepare_sqlite(connection)
        return connection

    @contextmanager
    def _read(self) -> Iterator[sqlite3.Connection]:
        """The shared connection for reading, in a read transaction."""
        with self._reading, self._file.errors():
            if self._reader is None:
                self._reader = self._connect()
            with Reading(self._reader):
                yield self._reader

    @contextmanager
    def _write(self, patience: float = PATIENCE) -> Iterator[sqlite3.Connection]:
        """The shared connection for writing, in a write transaction that is committed at the end."""
        connection = self._take_writer(patience)
        try:
            self._file.begin(connection, patience)
            with self._file.errors():
                yield connection
                connection.execute("COMMIT")
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            self._release()

    def _take_writer(self, patience: float = PATIENCE) -> sqlite3.Connection:
        if not self._writing.acquire(timeout=patience):
            raise Unavailable(f"{self._file.path}: another transaction of this process does not end", "try again")
        try:
            if self._writer is None:
                self._writer = self._connect()
            with self._file.errors():
                version = self._writer.execute("PRAGMA data_version").fetchone()[0]
            self._courtesy.begin(version)
        except BaseException:
            self._writing.release()
            raise
        return self._writer

    def _load(self, connection: sqlite3.Connection) -> Catalog:
        """What the database holds, completed by what was declared; read again when it has changed."""
        version = int(connection.execute("PRAGMA schema_version").fetchone()[0])
        catalog = self._catalog
        if catalog is None or catalog.version != version:
            catalog = read_catalog(connection)
            if self._declared is not None:
                schema, _ = complete(catalog.schema, self._declared)
                catalog = Catalog(schema, catalog.facts, catalog.version)
            self._catalog = catalog
        return catalog

    # -- what the system is ---------------------------------------------------------------------------------------

    def identity(self) -> str:
        """See ``Connector``: the log's incarnation once installed, and the path."""
        with self._read() as connection:
            is_there = is_installed(connection, self._names)
            what = read_meta(connection, self._names)["incarnation"] if is_there else ""
        return f"sqlite:{what}@{real_path(self._file)}"

    def installation(self) -> Installation:
        """See ``Connector``."""
        with self._read() as connection:
            return installation(connection, self._names, real_path(self._file))

    def schema(self) -> Schema:
        """See ``Connector``."""
        with self._read() as connection:
            return self._load(connection).schema

    def health(self, views: Sequence[View]) -> list[Problem]:
        """See ``Connector``."""
        return inspect(self._file, self._names, self._side, views, self._load)

    def clock(self) -> float:
        """See ``Connector``: whoever writes to a file has this machine's clock."""
        return time.time()

    # -- capture --------------------------------------------------------------------------------------------------

    def install(self, views: Sequence[View]) -> None:
        """See ``Connector``.  Switches the file to WAL mode.

        Raises PositionLost, though everything is installed, when the triggers were switched off for a while; Halted,
        with nothing done, when a view's table was without them.
        """
        self._switch_to_wal()
        with self._write() as connection:
            capture = Capture(connection, self._names)
            is_interrupted = capture.install(self._load(connection), views)
            capture.note_place(real_path(self._file))
        if is_interrupted:
            raise PositionLost(
                f"{self._file.path}: somebody had switched the triggers of link {self._names.link} off, so changes may "
                "have been missed",
                REMEDY,
            )

    def _switch_to_wal(self) -> None:
        connection = self._take_writer()
        try:
            if _journal_mode(connection) != "wal":
                self._file.patiently(connection, "PRAGMA journal_mode = WAL")
                if _journal_mode(connection) != "wal":
                    raise Denied(f"{self._file.path} cannot be switched to WAL mode", _LOCAL)
        finally:
            self._writing.release()

    def uninstall(self) -> None:
        """See ``Connector``."""
        with self._write() as connection:
            Capture(connection, self._names).uninstall()
        self._known.clear()

    def by_hand(self) -> str:
        """See ``Connector``."""
        return by_hand(self._names)

    # -- reading --------------------------------------------------------------------------------------------------

    @contextmanager
    def snapshot(self, view: View, *, placed: bool = True) -> Iterator[SqliteSnapshot]:  # noqa: ARG002 (it costs nothing)
        """See ``Connector``."""
        connection = self._connect()
        try:
            with self._file.errors():
                connection.execute("BEGIN")
                plan = self._plans.get(connection, self._load(connection), view)
                snapshot = SqliteSnapshot(self._file, connection, plan, self._end(connection))
            yield snapshot
        finally:
            connection.close()

    def end(self) -> Position:
        """See ``Connector``."""
        with self._read() as connection:
            return self._end(connection)

    def _end(self, connection: sqlite3.Connection) -> Position:
        if not is_installed(connection, self._names):
            return Position("", ())
        return Position(read_meta(connection, self._names)["incarnation"], (end_of(connection, self._names),))

    def feed(self, views: Sequence[View], after: Position | None) -> SqliteFeed:
        """See ``Connector``."""
        return SqliteFeed(self._file, self._names, self._load, views, after, self._acknowledged)

    def retained(self) -> int:
        """See ``Connector``."""
        with self._read() as connection:
            return size_of(connection, self._names) if is_installed(connection, self._names) else 0

    def confirmed(self) -> int:
        """See ``Connector``: whatever is in the log is complete."""
        return 0

    def fetch(self, view: View, keys: Sequence[Key]) -> dict[Key, list[Row]]:
        """See ``Connector``."""
        with self._read() as connection:
            return self._plans.get(connection, self._load(connection), view).fetch(connection, keys)

    def positions(self) -> Mapping[str, tuple[Position, int]]:
        """See ``Connector``."""
        with self._read() as connection:
            if not is_installed(connection, self._names):
                return {}
            number = int(read_meta(connection, self._names)["commits"])
            rows = connection.execute(f"SELECT stream, position FROM {self._names.position}").fetchall()
        return {stream: (Position.parse(position), number) for stream, position in rows}

    def remembered(self, kind: str) -> Iterator[Remembered]:
        """See ``Connector``."""
        with self._read() as connection:
            if is_installed(connection, self._names):
                side = self._names.side
                sql = f"SELECT kind, view, key, value, since, until FROM {side} WHERE kind = ? ORDER BY rowid"
                for row in connection.execute(sql, (kind,)):
                    yield Remembered(*row)

    # -- writing --------------------------------------------------------------------------------------------------

    def transaction(
        self,
        stream: str,
        views: Sequence[View] = (),
        known: Position | None = None,  # noqa: ARG002 (nobody else commits meanwhile)
    ) -> SqliteTransaction:
        """See ``Connector``."""
        connection = self._take_writer()
        try:
            with self._file.errors():
                if not is_installed(connection, self._names):
                    raise Usage(f"{self._file.path}: link {self._names.link} is not installed in it", _INSTALL)
            return SqliteTransaction(
                self._file,
                connection,
                self._names,
                self._load,
                self._plans,
                self._kept,
                stream,
                views,
                self._known,
                self._acknowledged,
                self._release,
                self._checked,
            )
        except BaseException:
            self._release()
            raise

    def edit(self, view: View, write: Write) -> Outcome:
        """See ``Connector``."""
        connection = self._take_writer()
        try:
            self._file.begin(connection)
            with self._file.errors():
                outcome = self._edited(connection, view, write)
                connection.execute("COMMIT" if isinstance(outcome, Applied) else "ROLLBACK")
        except TransactionUndoneError as undone:
            return Rejected("other", undone.reason)
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            self._release()
        return outcome

    def _edited(self, connection: sqlite3.Connection, view: View, write: Write) -> Outcome:
        catalog = self._load(connection)
        plan, lookups = self._plans.get(connection, catalog, view), lookups_of(connection, catalog, self._plans)
        effects = Unmarked(connection, self._names, catalog)
        return Writer(connection, plan, lookups, effects).write([write], {})[0]

    def _release(self) -> None:
        if self._writing.locked():
            self._courtesy.end()
            self._writing.release()

    def acknowledge(self, position: Position) -> None:
        """See ``Connector``.  Cheap: the log is trimmed when enough has gathered, and nobody else is writing."""
        known = self._acknowledged
        if known is None or known.feed != position.feed or known < position:
            self._acknowledged = position
        done, at = self._trimmed
        if position.place[0] - done >= TRIM_ENTRIES or time.monotonic() - at >= TRIM_SECONDS:
            with suppress(Unavailable):  # the next time will do
                self.trim(patience=0.05)

    def let_go(self) -> Position | None:
        """See ``Connector``."""
        with self._read() as connection:
            if not is_installed(connection, self._names):
                return None
            meta = read_meta(connection, self._names)
        return Position(meta["incarnation"], (int(meta["lost"]),)) if int(meta["lost"]) else None

    def trim(self, patience: float = PATIENCE) -> None:
        """Delete from the log what was acknowledged, in small transactions."""
        known = self._acknowledged
        more = known is not None
        while more and known is not None:
            with self._write(patience) as connection:
                more = self._holds(connection, known) and trim_slice(
                    connection, self._names, min(known.place[0], end_of(connection, self._names))
                )
        self._trimmed = known.place[0] if known else 0, time.monotonic()

    def _holds(self, connection: sqlite3.Connection, position: Position) -> bool:
        """Is it a position of the log as it is now?"""
        return (
            is_installed(connection, self._names) and read_meta(connection, self._names)["incarnation"] == position.feed
        )

    def close(self) -> None:
        """See ``Connector``.  What was acknowledged is trimmed first, when the file lets us."""
        if self._writer is not None and not self._writing.locked():
            with suppress(DualwriteError):
                self.trim()
        for connection in (self._reader, self._writer):
            if connection is not None:
                connection.close()
        self._reader = self._writer = None


def _journal_mode(connection: sqlite3.Connection) -> str:
    return str(connection.execute("PRAGMA journal_mode").fetchone()[0])


class SqliteSnapshot:
    """One consistent read of a view; see ``Snapshot``."""

    def __init__(self, file: File, connection: sqlite3.Connection, plan: ViewPlan, boundary: Position) -> None:
        """The connection is in a read transaction already."""
        self.boundary = boundary
        self._file = file
        self._connection = connection
        self._plan = plan

    def blocks(self) -> Iterator[list[Row]]:
        """See ``Snapshot``."""
        with self._file.errors():
            yield from self._plan.blocks(self._connection, BLOCK)

    def fetch(self, keys: Sequence[Key]) -> dict[Key, list[Row]]:
        """See ``Snapshot``."""
        with self._file.errors():
            return self._plan.fetch(self._connection, keys)
