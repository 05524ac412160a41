# ruff: noqa: S608  (names go through quote(), values are bound)
"""Statements that write rows: grouped by the columns that they set, each row with an outcome of its own.

A statement that fails leaves nothing behind, so the others of its group simply go on; what was refused is tried again
behind the others as long as that helps.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dualwrite.connectors._sql import quote, table_of
from dualwrite.connectors._sqlite_capture import DELETE, INSERT, UPDATE
from dualwrite.connectors._sqlite_effects import Effects, Identity, Intents, Values
from dualwrite.connectors._sqlite_schema import ForeignKey
from dualwrite.connectors._sqlite_session import primary_code
from dualwrite.connectors._sqlite_values import Storage, decoder
from dualwrite.connectors._sqlite_view import ViewPlan
from dualwrite.model import Applied, MissingParent, Outcome, Rejected, Unchanged, Value
from dualwrite.schema import Column

_CODES = {
    sqlite3.SQLITE_CONSTRAINT_UNIQUE: "unique",
    sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY: "unique",
    sqlite3.SQLITE_CONSTRAINT_ROWID: "unique",
    sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY: "reference",
    sqlite3.SQLITE_CONSTRAINT_NOTNULL: "required",
    sqlite3.SQLITE_CONSTRAINT_CHECK: "value",
    sqlite3.SQLITE_CONSTRAINT | 12 << 8: "value",  # SQLITE_CONSTRAINT_DATATYPE, of STRICT tables
}
_VALUE_ERRORS = (sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_RANGE)

_APPLIED = Applied()


class TransactionUndoneError(Exception):
    """A trigger or constraint of the database has rolled back the whole transaction because of this write."""

    def __init__(self, number: int, reason: str) -> None:
        super().__init__(reason)
        self.number = number
        self.reason = reason


@dataclass(slots=True)
class Operation:
    """One statement to come: the columns that it sets, and the record that it is about."""

    number: int
    kind: str
    identity: Identity
    values: Values
    confirmed: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[str, tuple[str, ...]]:
        """Operations of one shape are one statement."""
        return self.kind, tuple(self.values)


def refusal(exc: sqlite3.Error) -> Rejected | None:
    """What an error says about a row; None when it is not about the row."""
    code = int(getattr(exc, "sqlite_errorcode", 0) or 0)
    if code in _CODES:
        return Rejected(_CODES[code], str(exc))
    if primary_code(exc) == sqlite3.SQLITE_CONSTRAINT:  # RESTRICT counts as a trigger
        return Rejected("reference" if str(exc).startswith("FOREIGN KEY") else "other", str(exc))
    if primary_code(exc) in _VALUE_ERRORS or isinstance(exc, sqlite3.DataError | OverflowError):
        return Rejected("value", str(exc))
    return None


@dataclass
class Statements:
    """Runs operations on one table inside a transaction; ``outcomes`` gets one per operation."""

    connection: sqlite3.Connection
    plan: ViewPlan
    effects: Effects
    outcomes: dict[int, Outcome]

    def run(self, operations: Sequence[Operation]) -> None:
        """Run all operations; what was refused again behind the others, as long as that helps."""
        waiting = list(operations)
        while waiting:
            refused = [operation for group in _grouped(waiting) for operation in self._run_group(group)]
            again = [operation for operation in refused if self._may_succeed_later(operation)]
            if len(refused) == len(waiting):
                break
            waiting = again
        self._swap([op for op in waiting if op.kind == UPDATE and self._was_refused(op, "unique")])

    def insert(self, columns: Sequence[str], rows: Sequence[tuple[Storage, ...]]) -> set[int]:
        """Insert rows as they are, where nothing but they themselves can be touched by it.

        Returns the numbers of those that went in; the others have left nothing behind, and want to be judged.
        """
        name, facts = self.plan.name, self.plan.facts
        if any(key.deferred for key in facts.foreign_keys) or self.effects.watch(name, INSERT, columns):
            return set()
        last = self.effects.last_row(name)
        failed = self._together(self._statement(INSERT, columns), rows)
        for place, exc in failed.items():
            if not self.connection.in_transaction:
                raise TransactionUndoneError(place, str(exc)) from exc
            if isinstance(exc, sqlite3.Error) and not isinstance(exc, sqlite3.ProgrammingError) and not refusal(exc):
                raise exc  # it is not about the row
        done = rows if not failed else [row for place, row in enumerate(rows) if place not in failed]
        self.effects.inserted(name, columns, done, last)
        self.effects.arrived(name, columns, done)
        return set(range(len(rows))) - failed.keys()

    def _was_refused(self, operation: Operation, code: str) -> bool:
        outcome = self.outcomes.get(operation.number)
        return isinstance(outcome, Rejected) and outcome.code == code

    def _may_succeed_later(self, operation: Operation) -> bool:
        outcome = self.outcomes[operation.number]
        return isinstance(outcome, MissingParent) or (
            isinstance(outcome, Rejected) and outcome.code in ("unique", "reference")
        )

    def _run_group(self, group: Sequence[Operation]) -> list[Operation]:
        """One statement for all; returns those that were refused."""
        kind, columns = group[0].shape
        if kind == UPDATE and not columns:
            self.outcomes |= {operation.number: Unchanged() for operation in group}
            return []
        loud = self.effects.watch(self.plan.name, kind, columns)
        ready: list[Operation] = []
        refused: list[Operation] = []
        for operation in group:
            (ready if self._is_allowed(operation) else refused).append(operation)
        self.effects.before(self.plan.name, kind, columns, (operation.identity for operation in ready))
        last = self.effects.last_row(self.plan.name) if kind == INSERT else 0
        sql = self._statement(kind, columns)
        refused += self._one_by_one(sql, ready) if loud else self._each(sql, ready)
        self._tell(kind, columns, [operation for operation in ready if self._was_applied(operation)], last)
        return refused

    def _was_applied(self, operation: Operation) -> bool:
        return isinstance(self.outcomes.get(operation.number), Applied)

    def _tell(self, kind: str, columns: Sequence[str], done: Sequence[Operation], last: int) -> None:
        """Pass on what was written."""
        if kind == DELETE:
            self.effects.deleted(self.plan.name, (operation.identity for operation in done))
            return
        rows = [tuple(operation.values.values()) for operation in done]
        if kind == UPDATE:
            self.effects.wrote(self.plan.name, [operation.identity for operation in done], columns)
        else:
            self.effects.inserted(self.plan.name, columns, rows, last)
        self.effects.arrived(self.plan.name, columns, rows)

    def _statement(self, kind: str, columns: Sequence[str]) -> str:
        table, same = quote(self.plan.name), " AND ".join(f"{quote(name)} = ?" for name in self.plan.facts.identity)
        if kind == DELETE:
            return f"DELETE FROM {table} WHERE {same}"
        if kind == UPDATE:
            return f"UPDATE {table} SET {', '.join(f'{quote(name)} = ?' for name in columns)} WHERE {same}"
        if not columns:
            return f"INSERT INTO {table} DEFAULT VALUES"
        return f"INSERT INTO {table} ({', '.join(map(quote, columns))}) VALUES ({', '.join('?' * len(columns))})"

    def _each(self, sql: str, operations: Sequence[Operation]) -> list[Operation]:
        """Run a statement for each operation; returns those that were refused."""
        failed = self._together(sql, [(*operation.values.values(), *operation.identity) for operation in operations])
        self.outcomes |= dict.fromkeys((operation.number for operation in operations), _APPLIED)
        for place, exc in failed.items():
            self._refuse(operations[place], exc)
        return [operations[place] for place in failed]

    def _together(self, sql: str, rows: Sequence[tuple[Storage, ...]]) -> dict[int, Exception]:
        """Run a statement for each row of values; one that fails leaves nothing behind, and the next ones go on.

        Returns the failures by the places of their rows; a failure that undid the transaction is the last.
        """
        failed: dict[int, Exception] = {}
        place = -1

        def bound() -> Iterator[tuple[Storage, ...]]:
            nonlocal place
            while place + 1 < len(rows):
                place += 1
                yield rows[place]

        while place + 1 < len(rows):
            try:
                self.connection.executemany(sql, bound())
            except (sqlite3.Error, OverflowError, UnicodeEncodeError) as exc:
                failed[place] = exc
                if not self.connection.in_transaction:
                    break
        return failed

    def _one_by_one(self, sql: str, operations: Sequence[Operation]) -> list[Operation]:
        """The same where triggers and the like may do more than asked, or less."""
        refused = []
        intents = Intents(self.plan.name)
        for operation in operations:
            if self._run_alone(sql, operation):
                self._intend(operation, intents)
            else:
                refused.append(operation)
        self.effects.settle(intents)
        return refused

    def _run_alone(self, sql: str, operation: Operation) -> bool:
        self.connection.execute("SAVEPOINT dualwrite_row")
        try:
            cursor = self.connection.execute(sql, (*operation.values.values(), *operation.identity))
            done = cursor.rowcount == 1
            if operation.kind == INSERT and done:
                operation.identity = self._inserted(operation, cursor.lastrowid)
            reason = "the database left the row out (a trigger or constraint ignores it)"
            self.outcomes[operation.number] = Applied() if done else Rejected("other", reason)
        except (sqlite3.Error, OverflowError, UnicodeEncodeError) as exc:
            done = False
            self._refuse(operation, exc)
            self.connection.execute("ROLLBACK TO dualwrite_row")
        self.connection.execute("RELEASE dualwrite_row")
        return done

    def _inserted(self, operation: Operation, rowid: int | None) -> Identity:
        if self.plan.facts.rowid:
            return (rowid,)
        return self.effects.identity(self.plan.name, operation.values)

    def _intend(self, operation: Operation, intents: Intents) -> None:
        if operation.kind == DELETE:
            intents.deleted.add(operation.identity)
        elif operation.kind == INSERT:
            intents.inserted[operation.identity] = operation.values
        else:
            intents.updated[operation.identity] = operation.values
            intents.confirmed[operation.identity] = operation.confirmed

    def _refuse(self, operation: Operation, exc: Exception) -> None:
        """Note why a row was refused; raises what is not about the row."""
        outcome: Outcome | None = Rejected("value", str(exc))
        if isinstance(exc, sqlite3.Error):
            if not self.connection.in_transaction:
                raise TransactionUndoneError(operation.number, str(exc)) from exc
            outcome = refusal(exc)
        if outcome is None:
            raise exc
        if isinstance(outcome, Rejected) and outcome.code == "reference":
            outcome = self._missing_parent(operation) or outcome
        self.outcomes[operation.number] = outcome

    # -- foreign keys ---------------------------------------------------------------------------------------------

    def _missing_parent(self, operation: Operation, deferred: bool = False) -> MissingParent | None:
        """The record that a foreign key of the operation does not find."""
        for key in self.plan.facts.foreign_keys:
            if operation.kind == DELETE or (deferred and not key.deferred):
                continue
            held = tuple(operation.values.get(name) for name in key.columns)
            if None in held or self._exists(key, held) or self._is_itself(key, held, operation):
                continue
            table = table_of(self.plan.catalog.schema, key.table)
            shown = tuple(_shown(table.column(name), value) for name, value in zip(key.to, held, strict=True))
            return MissingParent("_".join(key.columns), key.table, shown)
        return None

    def _exists(self, key: ForeignKey, held: Identity) -> bool:
        same = " AND ".join(f"{quote(name)} = ?" for name in key.to)
        return self.connection.execute(f"SELECT 1 FROM {quote(key.table)} WHERE {same}", held).fetchone() is not None

    def _is_itself(self, key: ForeignKey, held: Identity, operation: Operation) -> bool:
        return key.table == self.plan.name and tuple(operation.values.get(name) for name in key.to) == held

    def _is_allowed(self, operation: Operation) -> bool:
        """Foreign keys that the database checks at the commit only are checked here, row by row."""
        if operation.kind != DELETE and any(key.deferred for key in self.plan.facts.foreign_keys):
            missing = self._missing_parent(operation, deferred=True)
            if missing is not None:
                self.outcomes[operation.number] = missing
                return False
        if operation.kind != INSERT:
            for facts, key in self.plan.catalog.pointing_at(self.plan.name):
                if key.deferred and self._leaves_children(operation, facts.name, key):
                    reason = f"FOREIGN KEY constraint failed: {facts.name} refers to this record"
                    self.outcomes[operation.number] = Rejected("reference", reason)
                    return False
        return True

    def _leaves_children(self, operation: Operation, child: str, key: ForeignKey) -> bool:
        action = key.on_delete if operation.kind == DELETE else key.on_update
        moves = operation.kind == DELETE or any(name in operation.values for name in key.to)
        if action not in ("NO ACTION", "RESTRICT") or not moves:
            return False
        mine = " AND ".join(f"p.{quote(name)} = ?" for name in self.plan.facts.identity)
        pairs = zip(key.columns, key.to, strict=True)
        same = " AND ".join(f"c.{quote(column)} = p.{quote(to)}" for column, to in pairs)
        sql = f"SELECT 1 FROM {quote(self.plan.name)} AS p JOIN {quote(child)} AS c ON {same} WHERE {mine} LIMIT 1"
        return self.connection.execute(sql, operation.identity).fetchone() is not None

    # -- unique values that change places -------------------------------------------------------------------------

    def _swap(self, operations: list[Operation]) -> None:
        """Rows that take each other's unique values: all let go of theirs first (null is the spare value)."""
        while len(operations) > 1:
            kept = self.effects.save()
            refused = {operation.number: self.outcomes[operation.number] for operation in operations}
            self.connection.execute("SAVEPOINT dualwrite_swap")
            failed = self._try_swap(operations)
            if not failed:
                self.connection.execute("RELEASE dualwrite_swap")
                return
            self.connection.execute("ROLLBACK TO dualwrite_swap")
            self.connection.execute("RELEASE dualwrite_swap")
            self.effects.restore(kept)
            self.outcomes |= refused
            operations = [operation for operation in operations if operation not in failed]

    def _try_swap(self, operations: Sequence[Operation]) -> list[Operation]:
        """Returns those that cannot take part."""
        unable = []
        for operation in operations:
            spare = self._spare(operation)
            letting_go = Operation(operation.number, UPDATE, operation.identity, dict.fromkeys(spare))
            if not spare or self._run_group([letting_go]):
                unable.append(operation)
        if unable:
            return unable
        return [operation for group in _grouped(operations) for operation in self._run_group(group)]

    def _spare(self, operation: Operation) -> list[str]:
        """Of each unique set of columns that the operation sets, one that may be null for a moment."""
        found = []
        for unique in self.plan.facts.uniques:
            able = [
                name
                for name in unique.columns
                if name in operation.values and (column := self.plan.table.column(name)) and column.nullable
            ]
            found += able[:1]
        return list(dict.fromkeys(found))


def _grouped(operations: Sequence[Operation]) -> list[list[Operation]]:
    """Operations of one shape together: deletes, then updates, then inserts."""
    groups: dict[tuple[str, tuple[str, ...]], list[Operation]] = {}
    for operation in operations:
        groups.setdefault(operation.shape, []).append(operation)
    order = {DELETE: 0, UPDATE: 1, INSERT: 2}
    return [groups[shape] for shape in sorted(groups, key=lambda shape: order[shape[0]])]


def _shown(column: Column | None, value: Storage) -> Value:
    return decoder(column)(value) if column is not None and value is not None else None
