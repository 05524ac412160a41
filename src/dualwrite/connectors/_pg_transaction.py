# ruff: noqa: S608  (names go through quote(), values are bound)
"""Transactions of ours in a PostgreSQL database: rows, side table, marker and position commit as one.

They carry the link's replication origin, by which our reader knows them, and say of themselves at the end, in a message
inside the transaction, which commit they are and how much of the other side they contain: the *marker*.  A database has
one session at a time with that origin, so writers of one link follow one another, whatever process they are in.

A crash at any place leaves nothing: the server ends the transaction with its session, and then lets go of the origin.
Locks are waited for shortly only, so that in a deadlock with the application it is we who give way.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, MutableSequence, Sequence
from contextlib import suppress
from dataclasses import dataclass
from threading import Lock
from time import monotonic, sleep
from typing import Final, Protocol

import psycopg

from dualwrite.connectors._pg_echo import Marker, Wrote
from dualwrite.connectors._pg_installed import Names, is_installed
from dualwrite.connectors._pg_log import QUIET
from dualwrite.connectors._pg_session import Connection, Database, is_usable
from dualwrite.connectors._pg_trip import Answer, Asked, go_ahead, put_ahead, trip
from dualwrite.connectors._pg_values import array
from dualwrite.connectors.base import NO_LIMIT, Remembered
from dualwrite.errors import Busy, Denied, Superseded, Unavailable, Usage
from dualwrite.model import Batch, Key, Outcome, Position, Row, Write
from dualwrite.schema import View

PATIENCE: Final = 20.0
"""Seconds to wait for another writer of the link, a dead one for instance."""
LOCK_TIMEOUT: Final = 300
"""Milliseconds to wait for a lock, at most; less where the server looks for deadlocks sooner."""

SILENT: Final = 30_000
"""Milliseconds after which the server ends a transaction of ours that says nothing, so that users do not wait for the
locks of a process that is frozen, or cannot be reached."""
_PAUSE: Final = 0.02
_LONGEST_PAUSE: Final = 0.3
_INSTALL: Final = "start the link with `dualwrite run`, which installs capture"
_MOMENTS: Final = 64
_OURS: Final = 256
_AT_ONCE: Final = 2_000
_QUIET: Final = ", pg_logical_emit_message(true, $2, $3::text)"
_OPENING: Final = """
    SELECT value, (SELECT value FROM {meta} WHERE name = 'seen'), (SELECT position FROM {position} WHERE stream = $1),
        pg_snapshot_xmin(pg_current_snapshot()), pg_current_wal_insert_lsn() - '0/0'::pg_lsn{quiet}
    FROM {meta} WHERE name = 'commits' FOR UPDATE"""
"""Where we are; and who is at work: the end of the log is read behind the snapshot, so what had ended then lies before
it."""
_CLOSING: Final = """
    WITH m AS (INSERT INTO {meta} SELECT * FROM unnest($1::text[], $2::text[])
        ON CONFLICT (name) DO UPDATE SET value = excluded.value){position}
    SELECT pg_logical_emit_message(true, $3, $4::text),
        pg_replication_origin_xact_setup('0/0'::pg_lsn + $5::numeric, clock_timestamp())"""
"""Without the second of the last two, the commit would carry the time of the origin's last one."""
_POSITION: Final = """,
    p AS (INSERT INTO {position} VALUES ($6, $7) ON CONFLICT (stream) DO UPDATE SET position = excluded.position)"""
_RESET: Final = "SELECT pg_replication_origin_session_reset()"
_SETTINGS: Final = f"""
    SELECT set_config('synchronous_commit', 'local', false),
        set_config('plan_cache_mode', 'force_generic_plan', false),
        set_config('default_transaction_isolation', 'read committed', false),
        set_config('default_transaction_read_only', 'off', false),
        set_config('default_transaction_deferrable', 'off', false),
        set_config('idle_in_transaction_session_timeout', $1, false),
        set_config('lock_timeout', least({LOCK_TIMEOUT}, setting::integer * 3 / 10) || 'ms', false)
    FROM pg_settings WHERE name = 'deadlock_timeout'"""


@dataclass(frozen=True, slots=True)
class Work:
    """What one transaction does with rows, in the session that it was made for; each as in ``Transaction``.

    ``wrote`` is asked once, before the commit: what the marker has to say about what was written.  ``doubts``: may
    users just have changed what was met?  ``beginning`` are statements that the transaction begins with.  ``question``
    is what to ask the database to know, by ``is_current``, whether the tables are what the work takes them for; where
    they are not, the work is made anew.  ``is_quiet``: no reader will want to know what it writes.  ``write``
    and ``insert`` use the session by trips, or go ahead first, so that the transaction begins with the first of them.
    """

    since: Callable[[Position, int], Batch]
    fetch: Callable[[View, Sequence[Key]], dict[Key, list[Row]]]
    write: Callable[[View, Sequence[Write]], list[Outcome]]
    wrote: Callable[[], Wrote | None]
    doubts: Callable[[], bool]
    beginning: Sequence[str] = ()
    question: Asked | None = None
    is_current: Callable[[Answer], bool] = lambda _answer: True
    insert: Callable[[View, Sequence[Row]], bool] = lambda _view, _rows: False
    is_quiet: bool = False


@dataclass(frozen=True, slots=True)
class Moment:
    """Who was at work when the log ended at an LSN: a transaction older than ``oldest`` had ended, and if it committed,
    then before that LSN."""

    oldest: int
    lsn: int


class Done(Protocol):
    """What is called at the end of a transaction; does its session hold the origin still?"""

    def __call__(self, *, holds_origin: bool) -> None: ...


class Writer:
    """The session in which a connector's transactions run, one at a time; opened when it is needed, and again when it
    broke.  ``patience`` is in seconds."""

    def __init__(self, database: Database, patience: float = PATIENCE) -> None:
        self._database = database
        self._patience = patience
        self._turn = Lock()
        self._connection: Connection | None = None
        self._names: Names | None = None
        self._known: dict[str, Position | None] = {}  # what each stream's position was when we last saw it
        self._moments: deque[Moment] = deque(maxlen=_MOMENTS)  # at which our last transactions began
        self._ours: deque[str] = deque(maxlen=_OURS)  # the numbers of our last transactions, or parts of them

    def begin(
        self,
        stream: str,
        work: Callable[[Connection, int | None, MutableSequence[str]], Work],
        known: Position | None,
    ) -> PostgresqlTransaction:
        """Begin a transaction for a stream; waits for other writers of the link, in this process and elsewhere.

        ``work`` gets the session, the horizon up to which ``known`` tells what users did, and the place for the numbers
        of our transactions (see ``Ledger``).  The transaction begins with the first thing that is asked of it, which
        raises Unavailable when the others do not end, Usage where the link is not installed.
        """
        if not self._turn.acquire(timeout=self._patience):
            raise Unavailable(f"{self._database.shown}: another transaction of this process does not end", "try again")
        try:
            with self._database.errors():
                connection, names = self._session()
                doing = work(connection, self._horizon(known), self._ours)
                return PostgresqlTransaction(
                    self._database,
                    connection,
                    names,
                    stream,
                    doing,
                    self._known,
                    self._patience,
                    self._moments.append,
                    self._release,
                )
        except BaseException:
            self._release()
            raise

    def _horizon(self, known: Position | None) -> int | None:
        """What older transactions did lies before the place, so whoever knows the log up to it knows that."""
        if known is None or not known.place:
            return None
        while len(self._moments) > 1 and self._moments[1].lsn <= known.place[0]:
            self._moments.popleft()
        reached = self._moments and self._moments[0].lsn <= known.place[0]
        return self._moments[0].oldest if reached else None

    def close(self) -> None:
        """End the session; an open transaction is rolled back.  Idempotent."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _session(self) -> tuple[Connection, Names]:
        if self._connection is None or self._names is None or not is_usable(self._connection):
            self.close()
            connection = self._connection = self._database.connect()
            connection.execute(_SETTINGS.encode(), [f"{SILENT}ms"])
            self._moments.clear()  # it may be another server, from a backup
            self._ours.clear()
            self._names = Names.of(connection, self._database.link)
        return self._connection, self._names

    def _release(self, *, holds_origin: bool = True) -> None:
        """Let go of origin and turn; a session that may be in any state is given up."""
        connection = self._connection
        if connection is not None:
            try:
                _leave(connection, holds_origin)
            except psycopg.Error:
                connection.close()
        self._turn.release()


def _leave(connection: Connection, holds_origin: bool) -> None:
    """End the transaction, and let others have the origin, which a session keeps beyond its transactions."""
    if connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
        connection.execute("ROLLBACK")
    if holds_origin:
        with suppress(psycopg.errors.ObjectNotInPrerequisiteState):  # it was not even taken
            connection.execute(_RESET)


class PostgresqlTransaction:
    """See ``Transaction``; to be made by a ``Writer``.  ``done`` is called once at the end.

    What it begins with goes ahead of the first statement, in the same round trip: taking the origin and the lock, and
    reading where we are.
    """

    def __init__(
        self,
        database: Database,
        connection: Connection,
        names: Names,
        stream: str,
        work: Work,
        known: dict[str, Position | None],
        patience: float,
        began: Callable[[Moment], object],
        done: Done,
    ) -> None:
        """``patience`` are the seconds that others may keep the origin; ``began`` is told when it began."""
        self._database = database
        self._connection = connection
        self._names = names
        self._stream = stream
        self._work = work
        self._known = known
        self._began = began
        self._done = done
        self._notes: dict[tuple[str, str, str], str | None] = {}
        self._patience = patience
        self._attempts = 0
        self._deadline = 0.0
        self._has_begun = False
        self._may_hold_origin = False
        self.is_open = True
        self.asked = self._beginning()
        put_ahead(connection, self)

    # -- beginning ------------------------------------------------------------------------------------------------

    def _beginning(self) -> Sequence[Asked]:
        """Without the origin, nothing behind it is done."""
        work, names = self._work, self._names
        meta, position = names.table("meta"), names.table("position")
        opening = _OPENING.format(meta=meta, position=position, quiet=_QUIET if work.is_quiet else "")
        says = [names.schema, QUIET.decode()] if work.is_quiet else []
        asked = [
            Asked("SELECT pg_replication_origin_session_setup($1)", [names.slot]),
            Asked("BEGIN", prepare=False),
            Asked(opening, [self._stream, *says]),
        ]
        asked += [work.question] if work.question else []
        return asked + [Asked(statement) for statement in work.beginning]

    def learn(self, answers: Sequence[Answer]) -> None:
        """The transaction has begun.  Raises Busy where the tables are not what the work takes them for."""
        _, _, found, *others = answers
        self._has_begun = self._may_hold_origin = True
        if not found:
            raise self._not_installed()
        if self._work.question and not self._work.is_current(others[0]):
            raise Busy(f"{self._database.shown}: a table was changed meanwhile", "try again")
        commits, seen, stored, oldest, lsn, *_ = found[0]
        self._number = int(commits) + 1
        self._seen = Position.parse(seen) if seen else None
        self._stored = Position.parse(stored) if stored else None
        self._began(Moment(int(oldest), int(lsn)))

    def mend(self, failed: psycopg.Error) -> None:
        """A session that died may hold the origin for a moment longer."""
        self._may_hold_origin = True
        if isinstance(failed, psycopg.errors.UndefinedObject | psycopg.errors.UndefinedTable):
            raise self._not_installed() from failed
        if not isinstance(failed, psycopg.errors.ObjectInUse):
            raise failed
        self._deadline = self._deadline or monotonic() + self._patience
        if monotonic() > self._deadline:
            raise Unavailable(
                f"{self._database.shown}: another session writes for this link ({failed.diag.message_primary})",
                "another dualwrite may run this link; a dead session lets go when the server has noticed it",
            ) from failed
        sleep(min(_PAUSE * 2**self._attempts, _LONGEST_PAUSE))
        self._attempts += 1

    def _not_installed(self) -> Usage:
        return Usage(f"{self._database.shown}: link {self._names.link} is not installed in it", _INSTALL)

    @property
    def number(self) -> int:
        """See ``Transaction``; it may be asked for behind the end as well."""
        if not self._has_begun:
            self._begin()
        return self._number

    def position(self) -> Position | None:
        """See ``Transaction``.  Nobody else can move it: writers of a link follow one another."""
        self._begin()
        self._known[self._stream] = self._stored
        return self._stored

    def since(self, after: Position, limit: int = NO_LIMIT) -> Batch:
        """See ``Transaction``."""
        self._begin()
        with self._database.errors():
            return self._work.since(after, limit)

    def may_be_overtaken(self) -> bool:
        """See ``Transaction``."""
        self._in_use()
        return self._work.doubts()

    def fetch(self, view: View, keys: Sequence[Key]) -> dict[Key, list[Row]]:
        """See ``Transaction``."""
        self._begin()
        with self._database.errors():
            return self._work.fetch(view, keys)

    def write(self, view: View, writes: Sequence[Write]) -> list[Outcome]:
        """See ``Transaction``."""
        self._in_use()
        with self._database.errors():
            return self._work.write(view, writes)

    def insert(self, view: View, rows: Sequence[Row]) -> bool:
        """See ``Transaction``."""
        self._in_use()
        with self._database.errors():
            return self._work.insert(view, rows)

    def remember(self, kind: str, view: str, key: str, value: str | None) -> None:
        """See ``Transaction``.  Written with the commit, all entries at once."""
        self._in_use()
        self._notes[kind, view, key] = value

    def commit(self, position: Position | None) -> None:
        """See ``Transaction``."""
        self._begin()
        expected = self._known.get(self._stream, self._stored)
        if self._stored != expected:
            raise Superseded(
                f"{self._database.shown}: the position of {self._stream} is {self._stored}, not {expected} as before",
                "another engine runs this link: stop one of them",
            )
        seen = self._seen if position is None else position
        marker = Marker(self._number, seen, self._seen, self._work.wrote())
        with self._database.errors():
            try:
                self._commit(marker, position)
            except psycopg.errors.IntegrityError as exc:
                raise Denied(
                    f"{self._database.shown}: {exc.diag.message_primary} at the commit: a trigger of the database has "
                    "broken a deferred constraint",
                    "mend the trigger, or make the constraint immediate",
                ) from exc
        self._known[self._stream] = self._stored if position is None else position
        self._end()

    def _commit(self, marker: Marker, position: Position | None) -> None:
        """All that is left, in one round trip."""
        names = self._names
        meta = {"commits": str(marker.number)}
        if position is not None:
            meta["seen"] = str(position)
        values = [array(list(meta)), array(list(meta.values())), names.schema, marker.text(), str(marker.number)]
        values += [] if position is None else [self._stream, str(position)]
        moves = "" if position is None else _POSITION.format(position=names.table("position"))
        closing = Asked(_CLOSING.format(meta=names.table("meta"), position=moves), values)
        trip(self._connection, [*self._notes_asked(), closing, Asked("COMMIT", prepare=False), Asked(_RESET)])
        self._may_hold_origin = False

    def _notes_asked(self) -> list[Asked]:
        if not self._notes:
            return []
        side, number = self._names.table("side"), str(self._number)
        columns = [array([key[part] for key in self._notes]) for part in range(3)]
        end = (
            f"UPDATE {side} AS s SET until = $4::bigint FROM unnest($1::text[], $2::text[], $3::text[]) "
            "AS n (kind, view, key) WHERE (s.kind, s.view, s.key) = (n.kind, n.view, n.key) AND s.until IS NULL"
        )
        begin = (
            f"INSERT INTO {side} (kind, view, key, value, since) "
            "SELECT kind, view, key, value, $5::bigint FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) "
            "WITH ORDINALITY AS n (kind, view, key, value, place) WHERE value IS NOT NULL ORDER BY place"
        )
        return [
            Asked(end, [*columns, number]),
            Asked(begin, [*columns, array(list(self._notes.values())), number]),
        ]

    def rollback(self) -> None:
        """End the transaction; what was not committed is gone.  Idempotent."""
        self._end()

    def _end(self) -> None:
        if self.is_open:
            self.is_open = False
            put_ahead(self._connection, None)
            self._done(holds_origin=self._may_hold_origin)

    def _begin(self) -> None:
        """Begin by now."""
        self._in_use()
        with self._database.errors():
            go_ahead(self._connection)

    def _in_use(self) -> None:
        if not self.is_open:
            raise RuntimeError("the transaction has ended")

    def __enter__(self) -> PostgresqlTransaction:
        return self

    def __exit__(self, *exc: object) -> None:
        self._end()


# -- what was committed ----------------------------------------------------------------------------------------------


def positions(connection: Connection, names: Names) -> Mapping[str, tuple[Position, int]]:
    """Per stream its position, and the number of our last commit; none where the link is not installed."""
    if not is_installed(connection, names):
        return {}
    sql = (
        f"SELECT stream, position, (SELECT value FROM {names.table('meta')} WHERE name = 'commits') "
        f"FROM {names.table('position')}"
    )
    rows = connection.execute(sql.encode()).fetchall()
    return {stream: (Position.parse(position), int(number)) for stream, position, number in rows}


def remembered(connection: Connection, names: Names, kind: str) -> Iterator[Remembered]:
    """The side table's entries of a kind, in the order in which they came; none where the link is not installed."""
    if not is_installed(connection, names):
        return
    sql = (
        f"SELECT id, view, key, value, since, until FROM {names.table('side')} "
        f"WHERE kind = $1 AND id > $2::bigint ORDER BY id LIMIT {_AT_ONCE}"
    )
    last: str | None = "0"
    while last is not None:
        rows = connection.execute(sql.encode(), [kind, last]).fetchall()
        last = rows[-1][0] if len(rows) == _AT_ONCE else None
        for _, view, key, value, since, until in rows:
            yield Remembered(kind, view, key, value, int(since), None if until is None else int(until))


def forget(connection: Connection, names: Names, number: int) -> None:
    """Delete the side table's entries that ended with our commit ``number`` or before.

    For when no change from before that commit will be asked for again.
    """
    sql = f"DELETE FROM {names.table('side')} WHERE until <= $1::bigint"
    connection.execute(sql.encode(), [str(number)])
