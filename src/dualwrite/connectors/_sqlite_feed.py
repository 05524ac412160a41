# ruff: noqa: S608  (names go through quote(), values are bound)
"""The feed of an SQLite database: follows the link's log, and knows where it may be read."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from dualwrite.connectors._sqlite_capture import (
    IS_LOSS,
    REMEDY,
    Capture,
    Names,
    current_shapes,
    interrupted_view,
    is_installed,
    is_switched_off,
    own_triggers,
    read_meta,
    wants_mending,
)
from dualwrite.connectors._sqlite_log import end_of
from dualwrite.connectors._sqlite_reader import LogReader, Place
from dualwrite.connectors._sqlite_schema import Catalog
from dualwrite.connectors._sqlite_session import File
from dualwrite.connectors._sqlite_wake import Wake
from dualwrite.errors import Denied, Halted, PositionLost, Unavailable, Usage
from dualwrite.model import Batch, Change, Position
from dualwrite.schema import View


def check_place(
    connection: sqlite3.Connection,
    names: Names,
    file: File,
    after: Position | None,
    acknowledged: Position | None = None,
) -> Place:
    """Where to read on; raises PositionLost when changes behind ``after`` are gone, or were let go by acknowledging."""
    if not is_installed(connection, names):
        raise Usage(f"{file.path}: link {names.link} is not installed in it", "start the link with `dualwrite run`")
    meta = read_meta(connection, names)
    let_go = acknowledged.place if acknowledged and acknowledged.feed == meta["incarnation"] else (0,)
    oldest = max((int(meta["trimmed"]),), (int(meta["lost"]),), let_go)
    if after is None:
        return oldest
    if after.feed != meta["incarnation"]:
        raise PositionLost(f"{file.path}: {after} is a position of another log: capture was installed anew", REMEDY)
    if after.place[:1] > (end_of(connection, names),):
        raise PositionLost(f"{file.path}: the log ends before {after}: the file was restored from a backup", REMEDY)
    lost = max(int(meta["lost"]), _last_change(connection, names, after.place[0], let_go[0]))
    if after.place < (lost,):
        raise PositionLost(f"{file.path}: changes that follow {after} are not kept any more (up to {lost})", REMEDY)
    return max(after.place, oldest)


def check_capture(
    connection: sqlite3.Connection, names: Names, file: File, catalog: Catalog, views: Sequence[View]
) -> None:
    """Raises Halted for a view of whose tables changes may have been missed, PositionLost where all may have been."""
    if is_switched_off(connection, names):
        raise PositionLost(f"{file.path}: somebody has switched the triggers of link {names.link} off", REMEDY)
    halted = interrupted_view(connection, names, catalog, views)
    if halted is not None:
        raise Halted(halted.map, f"{file.path}: {halted.message}", halted.remedy)


def _last_change(connection: sqlite3.Connection, names: Names, after: int, until: int) -> int:
    """The last change between two places that is about to be trimmed."""
    if after >= until:
        return 0
    sql = f"SELECT max(id) FROM {names.log} WHERE {IS_LOSS} AND id > ? AND id <= ?"
    return int(connection.execute(sql, (after, until)).fetchone()[0] or 0)


class SqliteFeed:
    """Follows a link's log on a connection of its own; looks whether somebody has committed as soon as one may have."""

    def __init__(
        self,
        file: File,
        names: Names,
        catalog: Callable[[sqlite3.Connection], Catalog],
        views: Sequence[View],
        after: Position | None,
        acknowledged: Position | None = None,
    ) -> None:
        self._file = file
        self._names = names
        self._load = catalog
        self._views = tuple(views)
        self._connection = file.connect()
        self._place = file.place()
        self._wake = Wake(file.path)
        self._seen_version: int | None = None
        self._more = False
        try:
            with file.errors(), Reading(self._connection):
                self._reader = self._open(check_place(self._connection, names, file, after, acknowledged))
        except BaseException:
            self._connection.close()
            raise

    def read(self, limit: int, timeout: float) -> Batch:
        """See ``Feed``."""
        end = time.monotonic() + timeout
        with self._file.errors():
            while True:
                if self._wants_mending:
                    self._mend()
                version = int(self._connection.execute("PRAGMA data_version").fetchone()[0])
                if version != self._seen_version or self._more:
                    before = self._reader.place
                    changes = self._read(max(limit, 1))
                    self._seen_version = version
                    self._wake.stir()
                    if changes or (self._reader.place != before and not self._more):
                        return self._reader.batch(changes)
                if self._more:
                    continue
                if (
                    left := end - time.monotonic()
                ) <= 0:  # also behind a read in vain: a read-only file's version always moves
                    self._check_file()
                    return self._reader.batch([])
                self._wake.wait(left)

    def close(self) -> None:
        """See ``Feed``."""
        self._wake.close()
        self._connection.close()

    def _check_file(self) -> None:
        """Raises Denied where the file was replaced: our connections would go on with one that nobody else sees."""
        if self._file.place() != self._place:
            raise Denied(
                f"{self._file.path} was replaced by another file while it was in use",
                "run again: what is there is examined first, and `dualwrite check` tells what it finds",
            )

    def _read(self, limit: int) -> list[Change]:
        with Reading(self._connection):
            version = int(self._connection.execute("PRAGMA schema_version").fetchone()[0])
            position = Position(self._reader.feed, self._reader.place)
            check_place(self._connection, self._names, self._file, position)
            if version != self._version:
                self._reader = self._open(self._reader.place)
            changes, self._more = self._reader.read(limit)
        return changes

    def _mend(self) -> None:
        """The tables, or the application's triggers, have changed: make our triggers fit, as soon as nobody writes."""
        with suppress(Unavailable):
            self._file.begin(self._connection, patience=0)
            try:
                Capture(self._connection, self._names).mend(self._load(self._connection))
                self._connection.execute("COMMIT")
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
            self._wants_mending = False

    def _open(self, place: Place) -> LogReader:
        catalog = self._load(self._connection)
        self._version = catalog.version
        present, shapes = own_triggers(self._connection, self._names), current_shapes(self._connection, self._names)
        check_capture(self._connection, self._names, self._file, catalog, self._views)
        self._wants_mending = wants_mending(catalog, self._names, present, shapes)
        return LogReader(self._connection, self._names, catalog, self._views, place)


class Reading:
    """A read transaction: one state of the database for everything inside."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._connection.execute("BEGIN")

    def __exit__(self, *exc: object) -> None:
        # Rolling back would take temporary tables along, and SQLite reads the whole schema anew when a table goes so.
        if self._connection.in_transaction:
            self._connection.execute("COMMIT")
