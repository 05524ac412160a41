# ruff: noqa: S608  (names go through quote(), values are bound)
"""One call of ``write``: from writes in natural form to statements, set-based, and back to outcomes.

The records of all keys are read in one go and compared in Python; what differs is written grouped by the columns that
are set.  A statement that fails leaves nothing behind, so the others of its group simply go on; what was refused is
tried again behind the others as long as that helps.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from dualwrite.canonical import CastError
from dualwrite.connectors._sql import quote, reference_of, table_of
from dualwrite.connectors._sqlite_capture import DELETE, INSERT, UPDATE
from dualwrite.connectors._sqlite_effects import Effects, Identity, Intents, Values
from dualwrite.connectors._sqlite_schema import Catalog, ForeignKey
from dualwrite.connectors._sqlite_session import primary_code
from dualwrite.connectors._sqlite_values import Storage, decoder
from dualwrite.connectors._sqlite_view import Found, Plans, ViewPlan
from dualwrite.model import (
    ABSENT,
    Applied,
    Cell,
    Contested,
    Key,
    MissingParent,
    Outcome,
    Rejected,
    Row,
    Unchanged,
    Value,
    Write,
    show_key,
)
from dualwrite.schema import Column, Lookup, Reference, Table, View

Resolved: TypeAlias = Identity | MissingParent | Rejected
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


def folded(column: Column, value: Cell) -> str:
    """What a value is compared by in keys: null as empty, letter case and trailing blanks as the column says."""
    if value is None or value is ABSENT:
        return ""
    if column.ignore_trailing_blanks:
        value = value.rstrip(" ")
    return value.casefold() if column.ignore_case else value


class Lookups:
    """Finds the records that lookups name; remembers them as long as nobody writes to their tables."""

    def __init__(self, connection: sqlite3.Connection, catalog: Catalog, plans: Plans) -> None:
        self._connection = connection
        self._catalog = catalog
        self._plans = plans
        self._known: dict[tuple[str, Lookup], dict[Key, Resolved]] = {}
        self._tables: dict[tuple[str, Lookup], frozenset[str]] = {}

    def forget(self, table: str) -> None:
        """Records of this table have changed."""
        for lookup in [lookup for lookup, tables in self._tables.items() if table in tables]:
            self._known.pop(lookup, None)

    def resolve(self, table: Table, lookup: Lookup, keys: Iterable[Key]) -> dict[Key, Resolved]:
        """What the reference's columns have to hold for each key."""
        known = self._known.setdefault((table.name, lookup), {})
        missing = [key for key in dict.fromkeys(keys) if key not in known]
        if missing:
            reference = reference_of(table, lookup.reference, (lookup.reference,))
            paths = tuple(path for path, _ in lookup.parts)
            view = View(lookup.reference, reference.table, paths, tuple(range(len(paths))))
            plan = self._plans.get(self._connection, self._catalog, view, reference.to)
            self._tables[table.name, lookup] = plan.tables
            for key, found in zip(missing, plan.find(self._connection, missing), strict=True):
                known[key] = self._resolved(reference, key, found)
        return known

    @staticmethod
    def _resolved(reference: Reference, key: Key, found: Sequence[Found]) -> Resolved:
        if not found:
            return MissingParent(reference.name, reference.table, key)
        if len(found) > 1:
            return Rejected("ambiguous", f"{len(found)} records of {reference.table} hold the key {show_key(key)}")
        return found[0].extra


@dataclass
class Writing:
    """One call of ``write`` inside a transaction."""

    connection: sqlite3.Connection
    plan: ViewPlan
    lookups: Lookups
    effects: Effects
    writes: Sequence[Write]
    outcomes: dict[int, Outcome] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Prepare what depends on the view alone."""
        view, table = self.plan.view, self.plan.table
        written = set(view.written)
        self.flat = [index for index in view.written if len(view.paths[index]) == 1]
        self.active = [lookup for lookup in view.lookups if set(lookup.own) <= written]
        self.held = {lookup: reference_of(table, lookup.reference, (lookup.reference,)) for lookup in self.active}
        self.catalog = self.plan.catalog

    # -- deciding -------------------------------------------------------------------------------------------------

    def run(self) -> dict[int, Outcome]:
        """Write everything; the outcome of each write by its number."""
        numbers = [number for number in range(len(self.writes)) if number not in self.outcomes]
        current = self._current(numbers)
        pending: list[tuple[int, Found | None]] = []
        deletes: list[Operation] = []
        unchanged: list[tuple[int, Found]] = []
        for number in numbers:
            found = current[number]
            outcome = self._judged(number, found)
            if outcome is not None:
                self.outcomes[number] = outcome
                if isinstance(outcome, Unchanged) and found:
                    unchanged.append((number, found[0]))
            elif self.writes[number].row is None:
                deletes.append(Operation(number, DELETE, found[0].identity, {}))
            else:
                pending.append((number, found[0] if found else None))
        self._confirm(unchanged)
        pending = self._free(pending, deletes)
        operations = self._operations(pending)
        self._execute([*deletes, *operations])
        again = [n for n, o in self.outcomes.items() if isinstance(o, MissingParent) and o.table == self.plan.name]
        if 0 < len(again) < len(numbers):  # parents may stand in this very call
            for number in again:
                del self.outcomes[number]
            self.run()
        return self.outcomes

    def _confirm(self, unchanged: Sequence[tuple[int, Found]]) -> None:
        """Rows that hold what we wanted already are ours all the same."""
        intents = Intents(self.plan.name)
        for number, found in unchanged:
            intents.confirmed[found.identity] = self._confirmed(number, {}, found)
        self.effects.settle(intents)
        self.effects.wrote(self.plan.name, list(intents.confirmed))

    def _current(self, numbers: Sequence[int]) -> dict[int, list[Found]]:
        keys = [self.writes[number].key for number in numbers]
        return dict(zip(numbers, self.plan.find(self.connection, keys), strict=True))

    def _judged(self, number: int, found: Sequence[Found]) -> Outcome | None:
        """The outcome where nothing has to be written."""
        write = self.writes[number]
        if len(found) > 1:
            reason = f"{len(found)} records of {self.plan.name} hold the key {show_key(write.key)}"
            return Rejected("ambiguous", reason)
        if not found:
            if write.row is None:
                return Unchanged()
            return None if write.expect is None else Contested(None)
        current = found[0].row
        if write.row is not None and self._holds(write.row, current):
            return Unchanged()
        return None if self._expected(write.expect, current) else Contested(current)

    def _holds(self, row: Row, current: Row) -> bool:
        lookups = (lookup for lookup in self.active if all(row[index] is not ABSENT for index in lookup.own))
        own = [index for lookup in lookups for index in lookup.own]
        return all(self._same(index, row[index], current[index]) for index in (*self.flat, *own))

    def _same(self, index: int, wanted: Cell, current: Cell) -> bool:
        """Is there nothing to write?  Null and empty are one in keys and where the column says so."""
        if wanted is ABSENT or wanted == current:
            return True
        return not wanted and not (current is ABSENT or current) and self._empty_is_null(index)

    def _empty_is_null(self, index: int) -> bool:
        return index in self.plan.view.key or self.plan.columns[index].empty_is_null

    def _expected(self, expect: Row | None, current: Row) -> bool:
        return expect is not None and all(
            wanted is ABSENT or cell is ABSENT or self._equal(index, wanted, cell)
            for index, (wanted, cell) in enumerate(zip(expect, current, strict=True))
        )

    def _equal(self, index: int, wanted: Value, cell: Value) -> bool:
        if wanted == cell:
            return True
        column = self.plan.columns[index]
        alike = (wanted is None) == (cell is None) or self._empty_is_null(index)
        return alike and folded(column, wanted) == folded(column, cell)

    # -- keys -----------------------------------------------------------------------------------------------------

    def _new_key(self, number: int) -> Key:
        write = self.writes[number]
        assert write.row is not None
        cells = (write.row[index] for index in self.plan.view.key)
        return tuple(old if cell is ABSENT else cell for cell, old in zip(cells, write.key, strict=True))

    def _folded_key(self, key: Key) -> tuple[str, ...]:
        columns = (self.plan.columns[index] for index in self.plan.view.key)
        return tuple(folded(column, member) for column, member in zip(columns, key, strict=True))

    def _free(
        self, pending: list[tuple[int, Found | None]], deletes: Sequence[Operation]
    ) -> list[tuple[int, Found | None]]:
        """Those whose new key nobody else holds or takes; the others are refused."""
        leaving = {operation.identity for operation in deletes}
        moving: dict[int, Key] = {}
        for number, found in pending:
            key = self._new_key(number)
            if found is None or self._folded_key(key) != self._folded_key(self.writes[number].key):
                moving[number] = key
                leaving |= {found.identity} if found else set()
        if not moving:
            return pending
        asked = [n for n, key in moving.items() if self._folded_key(key) != self._folded_key(self.writes[n].key)]
        holders = dict(zip(asked, self.plan.find(self.connection, [moving[n] for n in asked]), strict=True))
        taken: set[tuple[str, ...]] = set()
        for number, key in moving.items():
            folded_key = self._folded_key(key)
            if folded_key in taken or any(other.identity not in leaving for other in holders.get(number, ())):
                self.outcomes[number] = Rejected("unique", f"another {self.plan.name} holds the key {show_key(key)}")
            else:
                taken.add(folded_key)
        return [(number, found) for number, found in pending if number not in self.outcomes]

    # -- values ---------------------------------------------------------------------------------------------------

    def _operations(self, pending: Sequence[tuple[int, Found | None]]) -> list[Operation]:
        resolved = self._resolve(pending)
        operations = []
        for number, found in pending:
            values = self._values(number, found, resolved)
            if isinstance(values, dict):
                kind = INSERT if found is None else UPDATE
                identity = found.identity if found else ()
                confirmed = self._confirmed(number, values, found)
                operations.append(Operation(number, kind, identity, values, confirmed))
            else:
                self.outcomes[number] = values
        return operations

    def _wanted(self, lookup: Lookup, row: Row, current: Row | None) -> Key | None:
        """The key that a lookup names, None where there is nothing to change."""
        if any(row[index] is ABSENT for index in lookup.own):
            return None
        cells = []
        same = current is not None
        for _, index in lookup.parts:
            cell = row[index]
            if cell is ABSENT and current is not None:
                cell = current[index]
            same = same and current is not None and self._same(index, cell, current[index])
            cells.append(None if cell is ABSENT else cell)
        return None if same else tuple(cells)

    def _resolve(self, pending: Sequence[tuple[int, Found | None]]) -> dict[Lookup, dict[Key, Resolved]]:
        found: dict[Lookup, dict[Key, Resolved]] = {}
        for lookup in self.active:
            keys = []
            for number, record in pending:
                row = self.writes[number].row
                assert row is not None
                key = self._wanted(lookup, row, record.row if record else None)
                if key is not None and any(row[index] for index in lookup.own):
                    keys.append(key)
            found[lookup] = self.lookups.resolve(self.plan.table, lookup, keys)
        return found

    def _values(
        self, number: int, found: Found | None, resolved: dict[Lookup, dict[Key, Resolved]]
    ) -> Values | MissingParent | Rejected:
        """The columns to set; lookups as what they refer to."""
        row = self.writes[number].row
        assert row is not None
        current = found.row if found else None
        values: Values = {}
        for lookup in self.active:
            key = self._wanted(lookup, row, current)
            if key is None:
                continue
            if not any(row[index] for index in lookup.own):
                values |= self._nothing(lookup)
                continue
            held = resolved[lookup][key]
            if not isinstance(held, tuple):
                return held
            values |= dict(zip(self.held[lookup].columns, held, strict=True))
        for index in self.flat:
            cell = row[index]
            if cell is ABSENT or (current and self._same(index, cell, current[index])):
                continue
            column = self.plan.columns[index]
            if column.read_only:
                return Rejected("readonly", f"{self.plan.name}.{column.name} is generated and cannot be written")
            try:
                values[column.name] = self._stored(index, column, cell)
            except CastError as error:
                return Rejected("value", f"{self.plan.name}.{column.name}: {error}")
        return values

    def _stored(self, index: int, column: Column, cell: Value) -> Storage:
        if cell is None:
            return "" if column.empty_is_null else None
        return self.plan.encoders[index](cell)

    def _nothing(self, lookup: Lookup) -> Values:
        """The reference's columns when it leads nowhere; those that belong to others are left alone."""
        view, table = self.plan.view, self.plan.table
        shared = {path[0] for path in view.paths if len(path) == 1}
        for other in view.lookups:
            if other.reference != lookup.reference:
                shared |= set(reference_of(table, other.reference, (other.reference,)).columns)
        mine = (column for column in table.columns if column.name in self.held[lookup].columns)
        return {column.name: "" if column.empty_is_null else None for column in mine if column.name not in shared}

    def _confirmed(self, number: int, values: Values, found: Found | None) -> tuple[str, ...]:
        """The columns that the row speaks of and that hold what it says already."""
        row = self.writes[number].row
        if row is None or found is None:
            return ()
        named = [self.plan.columns[index].name for index in self.flat if row[index] is not ABSENT]
        for lookup in self.active:
            if all(row[index] is not ABSENT for index in lookup.own):
                named += self.held[lookup].columns
        return tuple(name for name in named if name not in values)

    # -- executing ------------------------------------------------------------------------------------------------

    def _execute(self, operations: Sequence[Operation]) -> None:
        """Run all operations; what was refused again behind the others, as long as that helps."""
        waiting = list(operations)
        while waiting:
            refused = [operation for group in _grouped(waiting) for operation in self._run(group)]
            again = [operation for operation in refused if self._may_succeed_later(operation)]
            if len(refused) == len(waiting):
                break
            waiting = again
        self._swap([op for op in waiting if op.kind == UPDATE and self._was_refused(op, "unique")])

    def _was_refused(self, operation: Operation, code: str) -> bool:
        outcome = self.outcomes.get(operation.number)
        return isinstance(outcome, Rejected) and outcome.code == code

    def _may_succeed_later(self, operation: Operation) -> bool:
        outcome = self.outcomes[operation.number]
        return isinstance(outcome, MissingParent) or (
            isinstance(outcome, Rejected) and outcome.code in ("unique", "reference")
        )

    def _run(self, group: Sequence[Operation]) -> list[Operation]:
        """One statement for all; returns those that were refused."""
        kind, columns = group[0].shape
        if kind == UPDATE and not columns:
            self.outcomes |= {operation.number: Unchanged() for operation in group}
            return []
        loud = self.effects.watch(self.plan.name, kind, columns)
        ready, refused = [], []
        for operation in group:
            (ready if self._is_allowed(operation) else refused).append(operation)
        shape = self.effects.shapes.get(self.plan.name)
        if kind == UPDATE and shape is not None and not set(columns).isdisjoint(shape.plan.followed):
            self.effects.before_rename(self.plan.name, (operation.identity for operation in ready))
        last = self.effects.last_row(self.plan.name) if kind == INSERT else 0
        sql = self._statement(kind, columns)
        refused += self._one_by_one(sql, ready) if loud else self._together(sql, ready)
        self._tell(kind, columns, [operation for operation in ready if self._was_applied(operation)], last)
        return refused

    def _was_applied(self, operation: Operation) -> bool:
        return isinstance(self.outcomes.get(operation.number), Applied)

    def _tell(self, kind: str, columns: Sequence[str], done: Sequence[Operation], last: int) -> None:
        """Pass on what was written."""
        self.lookups.forget(self.plan.name)
        if kind == UPDATE:
            self.effects.wrote(self.plan.name, [operation.identity for operation in done], columns)
        elif kind == INSERT:
            self.effects.inserted(self.plan.name, [operation.values for operation in done], last)
        if kind != DELETE:
            self.effects.arrived(self.plan.name, columns, [operation.values for operation in done])

    def _statement(self, kind: str, columns: Sequence[str]) -> str:
        table, same = quote(self.plan.name), " AND ".join(f"{quote(name)} = ?" for name in self.plan.facts.identity)
        if kind == DELETE:
            return f"DELETE FROM {table} WHERE {same}"
        if kind == UPDATE:
            return f"UPDATE {table} SET {', '.join(f'{quote(name)} = ?' for name in columns)} WHERE {same}"
        if not columns:
            return f"INSERT INTO {table} DEFAULT VALUES"
        return f"INSERT INTO {table} ({', '.join(map(quote, columns))}) VALUES ({', '.join('?' * len(columns))})"

    def _together(self, sql: str, operations: Sequence[Operation]) -> list[Operation]:
        """Run a statement for each operation; one that fails leaves nothing behind, and the next ones go on."""
        refused = []
        place = 0

        def bound(first: int) -> Iterator[tuple[Storage, ...]]:
            nonlocal place
            for place in range(first, len(operations)):
                yield (*operations[place].values.values(), *operations[place].identity)

        first = 0
        while first < len(operations):
            try:
                self.connection.executemany(sql, bound(first))
                place = len(operations)
            except (sqlite3.Error, OverflowError, UnicodeEncodeError) as exc:
                self._refuse(operations[place], exc)
                refused.append(operations[place])
            for operation in operations[first:place]:
                self.outcomes[operation.number] = Applied()
            first = place + 1
        return refused

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
            table = table_of(self.catalog.schema, key.table)
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
            for facts, key in self.catalog.pointing_at(self.plan.name):
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
            self.connection.execute("SAVEPOINT dualwrite_swap")
            failed = self._try_swap(operations)
            if not failed:
                self.connection.execute("RELEASE dualwrite_swap")
                return
            self.connection.execute("ROLLBACK TO dualwrite_swap")
            self.connection.execute("RELEASE dualwrite_swap")
            operations = [operation for operation in operations if operation not in failed]

    def _try_swap(self, operations: Sequence[Operation]) -> list[Operation]:
        """Returns those that cannot take part."""
        unable = []
        for operation in operations:
            spare = self._spare(operation)
            letting_go = Operation(operation.number, UPDATE, operation.identity, dict.fromkeys(spare))
            if not spare or self._run([letting_go]):
                unable.append(operation)
        if unable:
            return unable
        return [operation for group in _grouped(operations) for operation in self._run(group)]

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
