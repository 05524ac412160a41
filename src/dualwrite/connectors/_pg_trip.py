"""Statements that travel together: sent at once, answered at once, and planned once per session.

A transaction of ours has few statements, always the same ones, and most of what they cost is not their work: it is the
way to the server and back, and planning.  So what is known beforehand goes in one round trip, and what comes again is
prepared.  psycopg does both, but loses track of what it has prepared when an error cuts a trip off: here a statement
counts as prepared when the server has said so.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from select import POLLIN, POLLOUT, poll
from typing import Any, Final, Protocol
from weakref import WeakKeyDictionary

import psycopg
from psycopg.pq import ExecStatus, PipelineStatus
from psycopg.pq.abc import PGresult

from dualwrite.connectors._pg_session import Connection
from dualwrite.errors import Unavailable
from dualwrite.model import Value

KEPT: Final = 100
"""Statements that are kept prepared in a session; those not used for longest make room."""
PREPARED: Final = 100
"""Statements for more rows than that are planned for their number of rows."""
_OUTDATED: Final = "0A000"


@dataclass(frozen=True, slots=True)
class Asked:
    """A statement with its bound values, as text.  ``prepare``: will it come again, and is one plan good for all?"""

    sql: str
    values: Sequence[Value] = ()
    prepare: bool = True


_BY_SIZE: Final = Asked("SET LOCAL plan_cache_mode = 'auto'", prepare=False)


def sized(sql: str, values: Sequence[Value], rows: int, *, alone: bool = False) -> list[Asked]:
    """A statement over so many rows, in a transaction that was begun or ``alone``: its answer is the last.

    The plan for few rows is one for all of them.  It would make pairs of all rows where these are many.
    """
    if rows <= PREPARED:
        return [Asked(sql, values)]
    once = Asked(sql, values, prepare=False)
    return [once] if alone else [_BY_SIZE, once]


Answer = list[tuple[Any, ...]]
"""The rows of a statement, each value as text or None; none where it returns none."""


class Prelude(Protocol):
    """Statements that go ahead of the next ones, in their trip."""

    asked: Sequence[Asked]

    def learn(self, answers: Sequence[Answer]) -> None:
        """They were answered."""

    def mend(self, failed: psycopg.Error) -> None:
        """One of them failed, and nothing behind it was run: returns when all shall be tried again, else raises."""


def trip(connection: Connection, asked: Sequence[Asked]) -> list[Answer]:
    """Run statements in their order, in one round trip; returns the answers of all.

    Raises psycopg's error of the first that fails: none behind it is run.  Outside of a transaction that was begun,
    they are one.  A session whose answers cannot be read to their end is closed.  Raises Unavailable when a table has
    changed so that what is prepared answers something else now.
    """
    statements = _statements(connection)
    prelude, statements.prelude = statements.prelude, None
    before: Sequence[Asked] = () if prelude is None else prelude.asked
    while True:
        try:
            answers, failed = statements.run([*before, *asked])
        except BaseException:
            if connection.pgconn.pipeline_status != PipelineStatus.OFF:  # interrupted, or cut off
                connection.close()
            raise
        if prelude is None or failed is None or len(answers) >= len(before):
            break
        prelude.mend(failed)
    if prelude is not None:
        prelude.learn(answers[: len(before)])
    if failed is not None and failed.sqlstate == _OUTDATED:
        statements.forget()
        raise Unavailable(f"a table was changed meanwhile ({failed.diag.message_primary})", "try again") from failed
    if failed is not None:
        raise failed
    return answers[len(before) :]


def put_ahead(connection: Connection, prelude: Prelude | None) -> None:
    """Let the session's next trip begin with these statements; None: with none.

    Whoever uses the session otherwise calls ``go_ahead`` first.
    """
    _statements(connection).prelude = prelude


def go_ahead(connection: Connection) -> None:
    """Do now what goes ahead of the next trip, if there is anything."""
    if _statements(connection).prelude is not None:
        trip(connection, [])


def _statements(connection: Connection) -> _Statements:
    found = _SESSIONS.get(connection)
    if found is None:
        found = _SESSIONS[connection] = _Statements(connection)
    return found


@dataclass(frozen=True, slots=True)
class _Step:
    """What will be answered: the statement that is prepared, under a name, or one that is run."""

    prepares: str = ""
    name: str = ""


_ANSWER: Final = _Step()


class _Statements:
    """What one session has prepared."""

    def __init__(self, connection: Connection) -> None:
        self._pgconn = connection.pgconn
        self._known: OrderedDict[str, str] = OrderedDict()  # names by statement; empty: seen once, and not prepared
        self._stale: list[str] = []
        self._count = 0
        self._poll = poll()
        self.prelude: Prelude | None = None

    def run(self, asked: Sequence[Asked]) -> tuple[list[Answer], psycopg.Error | None]:
        """The answers of what was run, and why the one behind them failed."""
        self._pgconn.enter_pipeline_mode()
        steps = [self._send(f"DEALLOCATE {name}", ()) for name in self._stale]
        self._stale.clear()
        begins = len(steps)
        for each in asked:
            steps += self._steps(each)
        self._pgconn.pipeline_sync()
        self._flush()
        answers, failed = self._answers(steps)
        self._pgconn.exit_pipeline_mode()
        return answers[begins:], failed

    def forget(self) -> None:
        """What is prepared is not what the tables are any more."""
        self._stale += [name for name in self._known.values() if name]
        self._known.clear()

    # -- sending --------------------------------------------------------------------------------------------------

    def _steps(self, asked: Asked) -> list[_Step]:
        """Put a statement into the trip; returns what will be answered."""
        name = self._known.get(asked.sql) if asked.prepare else None
        if name is None:
            if asked.prepare:
                self._keep(asked.sql, "")  # preparing is worth it when it comes again
            return [self._send(asked.sql, asked.values)]
        self._known.move_to_end(asked.sql)
        if name:
            return [self._send_prepared(name, asked.values)]
        self._count += 1
        name = f"dualwrite_{self._count}"
        self._pgconn.send_prepare(name.encode(), asked.sql.encode())
        return [_Step(asked.sql, name), self._send_prepared(name, asked.values)]

    def _send(self, sql: str, values: Sequence[Value]) -> _Step:
        self._pgconn.send_query_params(sql.encode(), _encoded(values))
        return _ANSWER

    def _send_prepared(self, name: str, values: Sequence[Value]) -> _Step:
        self._pgconn.send_query_prepared(name.encode(), _encoded(values))
        return _ANSWER

    def _keep(self, sql: str, name: str) -> None:
        self._known[sql] = name
        if len(self._known) > KEPT:
            _, oldest = self._known.popitem(last=False)
            self._stale += [oldest] if oldest else []

    def _flush(self) -> None:
        """Send everything; what the server answers meanwhile is taken, or it would wait for us as we for it."""
        while self._pgconn.flush():
            if self._wait(POLLIN | POLLOUT) & POLLIN:
                self._pgconn.consume_input()

    # -- receiving ------------------------------------------------------------------------------------------------

    def _answers(self, steps: Sequence[_Step]) -> tuple[list[Answer], psycopg.Error | None]:
        answers: list[Answer] = []
        failed: psycopg.Error | None = None
        for step in steps:
            result = self._result()
            assert result is not None, "each step is answered"
            if result.status == ExecStatus.FATAL_ERROR:
                failed = failed or psycopg.errors.error_from_result(result)
            elif result.status == ExecStatus.PIPELINE_ABORTED:
                pass  # it was not run
            elif step.prepares and result.status == ExecStatus.COMMAND_OK:
                self._keep(step.prepares, step.name)
            elif not step.prepares:
                answers.append(_rows(result))
            ending = self._result()
            assert ending is None, "a step has one answer"
        self._result()  # that of the end of the trip
        return answers, failed

    def _result(self) -> PGresult | None:
        while self._pgconn.is_busy():
            self._wait(POLLIN)
            self._pgconn.consume_input()
        return self._pgconn.get_result()

    def _wait(self, events: int) -> int:
        self._poll.register(self._pgconn.socket, events)
        ((_, happened),) = self._poll.poll()
        return happened


_SESSIONS: Final[WeakKeyDictionary[Connection, _Statements]] = WeakKeyDictionary()


def _encoded(values: Sequence[Value]) -> list[bytes | None]:
    return [None if value is None else value.encode() for value in values]


def _rows(result: PGresult) -> Answer:
    get, columns = result.get_value, range(result.nfields)
    lines = [[get(line, column) for column in columns] for line in range(result.ntuples)]
    return [tuple([None if cell is None else cell.decode() for cell in line]) for line in lines]
