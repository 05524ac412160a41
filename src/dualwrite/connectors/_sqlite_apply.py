# ruff: noqa: S608  (names go through quote(), values are bound)
"""One transaction of ours in an SQLite database: rows, side table, marker and position commit as one.

It takes the write lock at once (``BEGIN IMMEDIATE``), so the log that it reads is complete: nothing of anybody else's
can come between what ``since`` says and the commit.  A crash at any place leaves nothing.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import replace
from operator import is_

from dualwrite.connectors._sqlite_capture import MARKER, NORMAL, Names, read_meta
from dualwrite.connectors._sqlite_effects import Effects
from dualwrite.connectors._sqlite_feed import check_capture, check_place
from dualwrite.connectors._sqlite_log import SLICE, Marker
from dualwrite.connectors._sqlite_reader import KeptReader
from dualwrite.connectors._sqlite_schema import Catalog
from dualwrite.connectors._sqlite_session import File
from dualwrite.connectors._sqlite_statements import TransactionUndoneError
from dualwrite.connectors._sqlite_view import Plans
from dualwrite.connectors._sqlite_write import Writer, lookups_of
from dualwrite.connectors.base import NO_LIMIT
from dualwrite.errors import Denied, Superseded, Unavailable
from dualwrite.lined import LARGEST, weight_of
from dualwrite.model import Batch, Change, Key, Outcome, Position, Rejected, Row, Write
from dualwrite.schema import View


class Checked:
    """For which state of the tables which views are known to be captured whole."""

    def __init__(self) -> None:
        self._version = -1
        self._views: Sequence[View] = ()

    def holds(self, version: int, views: Sequence[View]) -> bool:
        """Is it known of these very views?"""
        return version == self._version and len(views) == len(self._views) and all(map(is_, views, self._views))

    def note(self, version: int, views: Sequence[View]) -> None:
        """It is, from now on."""
        self._version, self._views = version, tuple(views)


class SqliteTransaction:
    """See ``Transaction``.  ``done`` is called once at the end, with the committed position or None."""

    def __init__(
        self,
        file: File,
        connection: sqlite3.Connection,
        names: Names,
        catalog: Callable[[sqlite3.Connection], Catalog],
        plans: Plans,
        kept: KeptReader,
        stream: str,
        views: Sequence[View],
        known: dict[str, Position | None],
        acknowledged: Position | None,
        done: Callable[[], None],
        checked: Checked,
    ) -> None:
        self._file = file
        self._connection = connection
        self._names = names
        self._plans = plans
        self._kept = kept
        self._load = catalog
        self._stream = stream
        self._views = views
        self._known = known
        self._acknowledged = acknowledged
        self._done = done
        self._checked = checked
        self._calls: list[tuple[View, Sequence[Write], frozenset[int]] | tuple[str, str, str, str | None]] = []
        self.is_open = True
        try:
            self._begin()
        except BaseException:
            self._end()
            raise

    def _begin(self) -> None:
        self._file.begin(self._connection)
        with self._file.errors():
            self._version = self._data_version()
            self._catalog = self._load(self._connection)
            self._check_capture()
            self._meta = read_meta(self._connection, self._names)
            self._effects = Effects(self._connection, self._names, self._catalog)
            self._lookups = lookups_of(self._connection, self._catalog, self._plans)

    def _check_capture(self) -> None:
        """Raises Halted where a table has changed so that the feed would, if it had been asked first."""
        if not self._checked.holds(self._catalog.version, self._views):
            check_capture(self._connection, self._names, self._file, self._catalog, self._views)
            self._checked.note(self._catalog.version, self._views)

    def _data_version(self) -> int:
        return int(self._connection.execute("PRAGMA data_version").fetchone()[0])

    @property
    def number(self) -> int:
        """See ``Transaction``."""
        return int(self._meta["commits"]) + 1

    def position(self) -> Position | None:
        """See ``Transaction``."""
        found = self._stored_position()
        self._known[self._stream] = found
        return found

    def _stored_position(self) -> Position | None:
        self._in_use()
        with self._file.errors():
            sql = f"SELECT position FROM {self._names.position} WHERE stream = ?"
            row = self._connection.execute(sql, (self._stream,)).fetchone()
        return Position.parse(row[0]) if row else None

    def since(self, after: Position, limit: int = NO_LIMIT) -> Batch:
        """See ``Transaction``."""
        self._in_use()
        with self._file.errors():
            place = check_place(self._connection, self._names, self._file, after, self._acknowledged)
            reader = self._kept.at(self._connection, self._names, self._catalog, self._views, place)
            found, more, room = list[Change](), True, LARGEST
            while more and len(found) < limit and (room > 0 or limit == NO_LIMIT):
                changes, more = reader.read(SLICE)
                found += changes
                room -= weight_of(changes)
            return replace(reader.batch(found), cut=more and len(found) < limit)

    def may_be_overtaken(self) -> bool:
        """See ``Transaction``: nobody asks, for nobody else commits meanwhile."""
        return True

    def fetch(self, view: View, keys: Sequence[Key]) -> dict[Key, list[Row]]:
        """See ``Transaction``."""
        self._in_use()
        with self._file.errors():
            return self._plans.get(self._connection, self._catalog, view).fetch(self._connection, keys)

    def write(self, view: View, writes: Sequence[Write]) -> list[Outcome]:
        """See ``Transaction``.  Where a key occurs twice, the later write sees what the earlier one did."""
        self._in_use()
        banned: dict[int, Outcome] = {}
        with self._file.errors():
            while True:
                try:
                    outcomes = self._write(view, writes, banned)
                except TransactionUndoneError as undone:
                    banned[undone.number] = Rejected("other", undone.reason)
                    self._replay()
                    continue
                self._calls.append((view, writes, frozenset(banned)))
                return outcomes

    def _write(self, view: View, writes: Sequence[Write], banned: dict[int, Outcome]) -> list[Outcome]:
        plan = self._plans.get(self._connection, self._catalog, view)
        outcomes: list[Outcome] = []
        for part in _once_per_key(writes):
            start = len(outcomes)
            refused = {n - start: o for n, o in banned.items() if start <= n < start + len(part)}
            try:
                found = Writer(self._connection, plan, self._lookups, self._effects).write(part, refused)
            except TransactionUndoneError as undone:
                raise TransactionUndoneError(start + undone.number, undone.reason) from undone
            outcomes += [found[number] for number in range(len(part))]
        return outcomes

    def _replay(self) -> None:
        """Do again what a trigger of the database has rolled back together with its own row."""
        self._begin_again()
        calls, self._calls = self._calls, []
        for call in calls:
            if len(call) == 3:
                view, writes, banned = call
                self._write(view, writes, dict.fromkeys(banned, Rejected("other", "")))
                self._calls.append(call)
            else:
                self.remember(*call)

    def _begin_again(self) -> None:
        version = self._version
        self._begin()
        if self._version != version:
            raise Unavailable(
                f"{self._file.path}: a trigger rolled back our transaction, and somebody else wrote meanwhile",
                "it is tried again by itself; a trigger should use RAISE(ABORT) instead of RAISE(ROLLBACK)",
            )

    def insert(self, view: View, rows: Sequence[Row]) -> bool:  # noqa: ARG002
        """See ``Transaction``: there is no quicker way than ``write``."""
        return False

    def remember(self, kind: str, view: str, key: str, value: str | None) -> None:
        """See ``Transaction``."""
        self._in_use()
        same = "kind = ? AND view = ? AND key = ? AND until IS NULL"
        side, execute = self._names.side, self._connection.execute
        with self._file.errors():
            execute(f"DELETE FROM {side} WHERE {same} AND since = ?", (kind, view, key, self.number))
            execute(f"UPDATE {side} SET until = ? WHERE {same}", (self.number, kind, view, key))
            if value is not None:
                execute(f"INSERT INTO {side} VALUES (?, ?, ?, ?, ?, NULL)", (kind, view, key, value, self.number))
        self._calls.append((kind, view, key, value))

    def commit(self, position: Position | None) -> None:
        """See ``Transaction``."""
        stored = self._stored_position()
        expected = self._known.get(self._stream, stored)
        if stored != expected:
            raise Superseded(
                f"{self._file.path}: the position of {self._stream} is {stored}, not {expected} as before",
                "another engine runs this link: stop one of them",
            )
        with self._file.errors():
            self._mark(position)
            self._effects.finish()
            self._commit()
        self._known[self._stream] = stored if position is None else position
        self._end()

    def _mark(self, position: Position | None) -> None:
        """Leave the marker; everything behind it in the log has seen what it says."""
        execute = self._connection.execute
        seen = str(position) if position is not None else self._meta.get("seen", "")
        marker = Marker(self.number, Position.parse(seen) if seen else None, self._effects.assigned)
        sql = f"INSERT INTO {self._names.log} (op, at, own, note) VALUES (?, julianday('now'), ?, ?)"
        execute(sql, (MARKER, NORMAL, marker.note()))
        if position is not None:
            execute(f"INSERT OR REPLACE INTO {self._names.position} VALUES (?, ?)", (self._stream, str(position)))
        values = [("commits", self.number), ("seen", seen)]
        self._connection.executemany(f"INSERT OR REPLACE INTO {self._names.meta} VALUES (?, ?)", values)

    def _commit(self) -> None:
        try:
            self._connection.execute("COMMIT")
        except sqlite3.IntegrityError as exc:
            raise Denied(
                f"{self._file.path}: {exc} at the commit: a trigger of the database has broken a deferred foreign key",
                "mend the trigger, or make the foreign key immediate",
            ) from exc

    def rollback(self) -> None:
        """End the transaction; what was not committed is gone.  Idempotent."""
        self._end()

    def _end(self) -> None:
        if not self.is_open:
            return
        self.is_open = False
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error:
            pass  # the connection is gone, and with it the transaction
        finally:
            self._done()

    def _in_use(self) -> None:
        if not self.is_open:
            raise RuntimeError("the transaction has ended")

    def __enter__(self) -> SqliteTransaction:
        return self

    def __exit__(self, *exc: object) -> None:
        self._end()


def _once_per_key(writes: Sequence[Write]) -> list[Sequence[Write]]:
    """The writes in parts in which each key occurs once; mostly it is one."""
    if len({write.key for write in writes}) == len(writes):
        return [writes]
    parts: list[list[Write]] = [[]]
    seen: set[Key] = set()
    for write in writes:
        if write.key in seen:
            parts.append([])
            seen = set()
        seen.add(write.key)
        parts[-1].append(write)
    return list(parts)
