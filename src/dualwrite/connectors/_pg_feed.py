"""Feeds over the one stream of a PostgreSQL database, and places in it: its end, what was let go, and where a snapshot
stands.

The position of a feed moves with the transactions of the link's tables only: what else the server does changes
nothing, and need not be asked for again (see ``follow`` in ``_pg_stream``).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from threading import RLock
from time import monotonic
from typing import Final

from dualwrite.connectors._pg_allowance import Allowance
from dualwrite.connectors._pg_capture import (
    DIVERTED,
    REMEDY,
    Capture,
    interrupted_views,
    interruption,
    refuse_standby,
)
from dualwrite.connectors._pg_catalog import are_current
from dualwrite.connectors._pg_ddl import Inventory
from dualwrite.connectors._pg_echo import Marker
from dualwrite.connectors._pg_entries import Place
from dualwrite.connectors._pg_installed import Installed, Names, read_installed, set_meta
from dualwrite.connectors._pg_log import Log
from dualwrite.connectors._pg_obstacles import captured_tables
from dualwrite.connectors._pg_reader import Context, LogReader, OutgrownError, changed
from dualwrite.connectors._pg_schema import Catalog
from dualwrite.connectors._pg_session import Connection, Database, is_usable
from dualwrite.connectors._pg_stream import PATIENCE, Stream, flushed_end
from dualwrite.connectors._pg_transaction import forget
from dualwrite.connectors._pg_visible import Contents, Visible
from dualwrite.connectors._sql import needs
from dualwrite.connectors.base import NO_LIMIT
from dualwrite.errors import DualwriteError, Halted, PositionLost, Unavailable, Usage
from dualwrite.lined import LARGEST, weight_of
from dualwrite.model import Batch, Change, Position
from dualwrite.schema import View

LOST: Final = "lost"
"""The entry of ``meta`` with the place of the last change that was let go."""
HELD: Final = 5.0
"""Seconds in which a session that died may let go of the slot, before somebody is told."""
_EXAMINE: Final = 5.0  # seconds between two looks at what a quiet feed depends on
_EXAMINE_BUSY: Final = 15.0  # the same of one that is never quiet
_ATTEMPTS: Final = 20
_LSNS: Final = "SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn, pg_current_wal_flush_lsn() - '0/0'::pg_lsn"
_IS_PART: Final = r"""
    SELECT relispartition FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.oid = $1::oid AND nspname NOT LIKE 'pg\_%' AND nspname NOT LIKE 'dualwrite\_%'"""

Known = Callable[[Connection, Sequence[View]], Catalog]
"""What the database holds, as it is now for these views."""
Load = Callable[[Connection], Catalog]
"""The same, all of it read anew."""


@dataclass
class Line:
    """An open stream, its feed, and what was let go of it.

    ``first`` is the marker before the stream's beginning unless the first that was sent tells another one.
    """

    stream: Stream
    feed: str
    acknowledged: Place
    lost: Place
    first: Marker
    visible: Visible
    markers: list[tuple[Place, Marker]] = field(default_factory=list)
    is_complete: bool = False
    """Have we looked for markers up to where ``first`` was read?"""

    @property
    def log(self) -> Log:
        """What the stream writes to."""
        return self.stream.log


class Source:
    """A connector's one stream: opened when it is needed, and again when it broke.  For any thread."""

    def __init__(self, database: Database, known: Known, load: Load, patience: float = PATIENCE) -> None:
        self._database = database
        self._known = known
        self.load = load
        self._patience = patience
        self._lock = RLock()
        self._line: Line | None = None
        self._names: Names | None = None
        self._allowance: Allowance | None = None
        self._session: Connection | None = None
        self._sessions: set[Session] = set()
        self._asking: Session | None = None  # in which transactions ask what users did; there is one at a time

    # -- the stream -----------------------------------------------------------------------------------------------

    def control(self) -> Connection:
        """A session in autocommit mode, for whoever holds the lock."""
        if self._session is None or not is_usable(self._session):
            self._session = self._database.connect()
            self._session.execute("SET synchronous_commit = 'local'")  # what we tell it must outlive a crash
        return self._session

    def session(self) -> Session:
        """A session of a reader's own, which ends with it, or with us."""
        return Session(self._database, self._sessions)

    def line(self) -> Line:
        """The open stream.

        Raises Usage where the link is not installed, Unavailable by a standby, PositionLost where the slot is lost, or
        the server has gone another way since.
        """
        with self._lock:
            if self._line is not None and self._line.log.error is None:
                return self._line
            self._hang_up()
            with self._database.errors():
                return self._open(self.control())

    def _open(self, connection: Connection) -> Line:
        names = self._names = Names.of(connection, self._database.link)
        installed = read_installed(connection, names)
        if not installed.feed:
            raise Usage(
                f"{self._database.shown}: link {names.link} is not installed in it",
                "start the link with `dualwrite run`",
            )
        refuse_standby(self._database, installed.timeline is None)
        if installed.is_diverted:
            raise PositionLost(f"{self._database.shown}: {DIVERTED}, so changes may have been missed", REMEDY)
        if self._allowance is None:
            self._allowance = Allowance(self._database, names)
        stream = Stream(
            self._database,
            names.slot,
            names.schema,
            lambda start: Log(start, names.schema, {names.slot}),
            patience=min(HELD, self._patience),
            allowance=self._allowance,
        )
        lost = tuple(map(int, installed.meta.get(LOST, "0").split(".")))
        marker, visible = _last_marker(installed), Visible(stream.log)
        self._line = Line(stream, installed.feed, (stream.start,), lost, marker, visible)
        return self._line

    def _hang_up(self) -> None:
        if self._line is not None:
            self._line.stream.close()
            self._line.log.close()
            self._line = None

    def renew(self) -> None:
        """What is installed has changed: a stream of another incarnation ends."""
        with self._lock, self._database.errors():
            if self._line is not None:
                assert self._names is not None
                if read_installed(self.control(), self._names).feed != self._line.feed:
                    self._hang_up()

    def close(self) -> None:
        """End the stream, which lets go of the slot, and all sessions.  Idempotent; what is needed opens again."""
        with self._lock:
            self._hang_up()
            for session in list(self._sessions):
                session.close()
            self._asking = None
            if self._session is not None:
                self._session.close()
                self._session = None

    # -- places ---------------------------------------------------------------------------------------------------

    def catch_up(self, connection: Connection) -> None:
        """Wait until the log holds everything that the session can see by now."""
        line = self.line()
        row = connection.execute(_LSNS).fetchone()
        assert row is not None
        written, flushed = map(int, row)
        if line.log.reached < written:
            line.stream.reach(written if flushed >= written else flushed_end(connection), self._patience)

    def end(self) -> Position:
        """The place behind everything committed so far."""
        with self._lock, self._database.errors():
            line = self.line()
            line.stream.reach(flushed_end(self.control()), self._patience)
            return Position(line.feed, max(line.log.ended, line.acknowledged))

    def place(self, line: Line, after: Position | None) -> Place:
        """Where to read on behind a position; raises PositionLost when something behind it is not there any more."""
        if after is None:
            return line.acknowledged
        shown = self._database.shown
        if after.feed != line.feed:
            raise PositionLost(f"{shown}: {after} is a position of another log: capture was installed anew", REMEDY)
        if after.place < line.lost and after.place < line.acknowledged:  # a crash may take the slot back before it
            raise PositionLost(f"{shown}: changes that follow {after} are not kept any more", REMEDY)
        if after.place[:1] > max(line.acknowledged, line.log.ended)[:1] and after.place[:1] > self.end().place[:1]:
            raise PositionLost(f"{shown}: its log ends before {after}: it was restored from a backup", REMEDY)
        return max(after.place, line.acknowledged)

    def marker(self, line: Line, place: Place) -> Marker:
        """The last marker at or before a place."""
        with self._lock, self._database.errors():
            self._gather(line)
            if not line.markers and not line.is_complete:
                self.catch_up(self.control())
                self._gather(line)
            line.is_complete = True
            index = bisect_right(line.markers, place, key=lambda known: known[0])
            if index:
                return line.markers[index - 1][1]
            if line.markers:
                following = line.markers[0][1]
                return Marker(following.number - 1, following.former)
            return line.first

    @staticmethod
    def _gather(line: Line) -> None:
        """Learn the markers that have come since."""
        known = line.markers[-1][0] if line.markers else line.acknowledged
        for note in line.log.notes(max(known, line.log.floor)):
            if note.transaction.origin in line.log.whole:
                marker = Marker.parse(note.content)
                line.markers.append((note.place, Marker(marker.number, marker.seen, marker.former)))

    def acknowledge(self, position: Position) -> None:
        """As ``Connector.acknowledge``."""
        with self._lock, self._database.errors():
            line = self.line()
            place = position.place
            if position.feed != line.feed or place <= line.acknowledged:
                return
            last = line.log.last_change(line.acknowledged, place)
            marker = self.marker(line, place)
            assert self._names is not None
            if last is not None and last > line.lost:
                line.lost = last  # before the server may forget it
                self.control().execute(set_meta(self._names, LOST, ".".join(map(str, last))).encode())
            line.acknowledged = place
            line.stream.acknowledge(place[0])
            line.log.trim(place if len(place) == 1 else (place[0], 0))
            index = bisect_right(line.markers, place, key=lambda known: known[0])
            if index:
                del line.markers[: index - 1]
                forget(self.control(), self._names, marker.number)

    def examine(self, connection: Connection, catalog: Catalog, views: Sequence[View]) -> None:
        """Raises PositionLost, or Halted for a view, where somebody has changed what captures, so that changes may have
        been missed."""
        assert self._names is not None
        inventory = Inventory.read(connection, self._names, captured_tables(catalog, views))
        reason = interruption(inventory)
        if reason:
            raise PositionLost(f"{self._database.shown}: {reason}, so changes may have been missed", REMEDY)
        for halted in interrupted_views(inventory, catalog, views):
            raise halted

    def extend(self, views: Sequence[View]) -> None:
        """Bring former rows of new partitions into the log as well, where we may and nobody is in the way.

        Else it is done at the next start; until then their changes tell less of what there was before.
        """
        with suppress(DualwriteError):
            Capture(self._database).extend(lambda session: self._known(session, views), views)

    def confirmed(self) -> int:
        """As ``Connector.confirmed``."""
        line = self._line
        return 0 if line is None else line.stream.confirmed

    def let_go(self) -> Position | None:
        """As ``Connector.let_go``."""
        line = self.line()
        return Position(line.feed, line.lost) if any(line.lost) else None

    # -- snapshots ------------------------------------------------------------------------------------------------

    def boundary(self, connection: Connection) -> Position | None:
        """Where the snapshot of the session's transaction, which must have none before, stands in the feed.

        None where it contains a transaction and not one that committed before: it stands nowhere then.
        """
        row = connection.execute("SELECT pg_current_snapshot()").fetchone()
        assert row is not None
        with self._lock:
            line = self.line()
            lsn = flushed_end(self.control())
            line.stream.reach(lsn, self._patience)
        place, is_over = line.acknowledged, False
        contains = Contents(row[0], lsn)
        for done in line.log.transactions(line.acknowledged):
            if not contains(done.transaction.xid, done.transaction.lsn):
                is_over = True
            elif is_over:
                return None
            else:
                place = done.place
        return Position(line.feed, place)

    def begin_snapshot(self, connection: Connection) -> Position:
        """Begin a read transaction that shows the database as of a place: a null one where the link is not installed.

        Raises Unavailable when none is to be had.
        """
        try:
            self.line()
        except Usage:
            return begin_read(connection)
        for _ in range(_ATTEMPTS):
            begin_read(connection)
            boundary = self.boundary(connection)
            if boundary is not None:
                return boundary
            connection.execute("ROLLBACK")
        raise Unavailable(
            f"{self._database.shown}: transactions become visible in another order than they are committed",
            "try again when fewer of them wait, for instance for a standby",
        )

    # -- readers --------------------------------------------------------------------------------------------------

    def open_reader(self, line: Line, views: Sequence[View], place: Place, session: Session) -> LogReader:
        """A reader of the open stream."""
        catalog = self._known(session.connection(), views)

        def differences(view: View) -> str:
            return difference(view, catalog, self.load(session.connection()))

        assert self._names is not None

        def is_part(oid: int) -> bool:
            row = session.connection().execute(_IS_PART, [oid]).fetchone()
            return row is not None and row[0] == "t"

        context = Context(
            line.log,
            line.visible,
            line.feed,
            self._names.slot,
            catalog,
            session.connection,
            self.catch_up,
            differences,
            is_part,
        )
        return LogReader(context, views, place, self.marker(line, place))

    def since(self, views: Sequence[View], after: Position, limit: int) -> Batch:
        """As ``Transaction.since``: up to everything that was committed before this call."""
        line = self.line()
        place, end = self.place(line, after), self.end()
        if end.place <= place:
            marker = self.marker(line, place)
            return Batch((), after, marker.seen, marker.number)
        found: list[Change] = []
        room = LARGEST
        self._asking = self._asking or self.session()
        reader = self.open_reader(line, views, place, self._asking)
        is_more = True
        while is_more and len(found) < limit and (room > 0 or limit == NO_LIMIT):
            try:
                changes, is_more = reader.read(limit - len(found))
            except OutgrownError:
                reader = self.open_reader(line, views, reader.place, self._asking)
            else:
                found += changes
                room -= weight_of(changes)
        return replace(reader.batch(found), cut=is_more and len(found) < limit)


def begin_read(connection: Connection) -> Position:
    """Begin a read transaction; returns the null place, as nobody knows where it stands in the feed."""
    connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    return Position("", ())


def _last_marker(installed: Installed) -> Marker:
    seen = installed.meta.get("seen")
    return Marker(int(installed.meta.get("commits", "0")), None if seen is None else Position.parse(seen))


def difference(view: View, known: Catalog, found: Catalog) -> str:
    """What has changed in what a view looks at; empty for nothing."""
    told = []
    for name, need in needs(known.schema, [view]).items():
        was, facts = known.facts[name], found.facts.get(name)
        if facts is None or facts.oid != was.oid:
            told.append(f"table {name} was dropped or renamed" if facts is None else f"table {name} was created anew")
            continue
        for column in sorted(need.shown | need.followed):
            now = facts.columns.get(column)
            if now is None:
                told.append(f"column {name}.{column} was dropped or renamed")
            elif (now.oid, now.sql) != (was.columns[column].oid, was.columns[column].sql):
                told.append(f"column {name}.{column} was changed from {was.columns[column].sql} to {now.sql}")
    return "; ".join(told)


class Session:
    """A session that opens when it is needed; ``among`` are those that are in use."""

    def __init__(self, database: Database, among: set[Session]) -> None:
        self._database = database
        self._among = among
        self._connection: Connection | None = None
        among.add(self)

    def connection(self) -> Connection:
        """The session, in autocommit mode."""
        if self._connection is None or not is_usable(self._connection):
            self._connection = self._database.connect()
        return self._connection

    def close(self) -> None:
        """End it.  Idempotent."""
        self._among.discard(self)
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class PostgresqlFeed:
    """See ``Feed``."""

    def __init__(self, source: Source, database: Database, views: Sequence[View], after: Position | None) -> None:
        self._source = source
        self._database = database
        self._views = tuple(views)
        self._session = source.session()
        self._is_broken = False  # did a read end in the middle of what it had to tell?
        self._examined = monotonic()
        with database.errors():
            line = source.line()
            self._feed = line.feed
            self._open(line, source.place(line, after))

    def _open(self, line: Line, place: Place) -> None:
        self._line, self._is_broken = line, False
        self._reader = self._source.open_reader(line, self._views, place, self._session)
        self._catalog = self._reader.catalog

    def read(self, limit: int, timeout: float) -> Batch:
        """See ``Feed``.  Raises Halted where a map's tables were truncated, or are others than they were."""
        deadline = monotonic() + timeout
        limit = max(limit, 1)
        with self._database.errors():
            self._follow()
            self._examine(_EXAMINE_BUSY)
            while True:
                before = self._reader.place
                try:
                    changes, is_more = self._reader.read(limit, max(0.0, deadline - monotonic()))
                except OutgrownError:
                    self._source.extend(self._views)
                    self._open(self._line, before)
                    continue
                except Halted:
                    raise
                except BaseException:
                    self._is_broken = True
                    raise
                if changes or (self._reader.place != before and not is_more):
                    return self._reader.batch(changes)
                if not is_more and monotonic() >= deadline:
                    self._examine(_EXAMINE)
                    return self._reader.batch([])

    def close(self) -> None:
        """See ``Feed``."""
        self._session.close()

    def _follow(self) -> None:
        """A stream or a read that broke is opened anew, and read from where we were."""
        line = self._source.line()
        if line is not self._line or self._is_broken:
            self._open(line, self._source.place(line, Position(self._feed, self._reader.place)))

    def _examine(self, seconds: float) -> None:
        """Look, at most every so many seconds, whether tables and capture are what they were: the log does not tell of
        every change."""
        if monotonic() < self._examined + seconds:
            return
        self._examined = monotonic()
        connection = self._session.connection()
        self._compare(connection)
        try:
            self._source.examine(connection, self._catalog, self._views)
        except Halted:
            self._compare(connection)  # a table that has just gone is told best so
            raise

    def _compare(self, connection: Connection) -> None:
        """Raises Halted for a view whose tables have changed since the catalog was read."""
        names = needs(self._catalog.schema, self._views)
        if are_current(connection, [self._catalog.facts[name] for name in names]):
            return
        fresh = self._source.load(connection)
        for view in self._views:
            told = difference(view, self._catalog, fresh)
            if told:
                raise changed(view, told)
        self._catalog = fresh
