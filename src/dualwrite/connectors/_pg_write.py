"""One call of ``write``: rows in natural form become statements over all of them, and each row gets its outcome.

The database judges and writes in one statement (``_pg_statements``).  Where a row makes it fail, the savepoint before
it is restored and its halves are run instead, until the bad row is alone and named.  Records that are written are
locked in the order of their keys; a lock that is not to be had soon is somebody else's, and ours is the transaction
that gives way.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from operator import itemgetter
from types import NoneType
from typing import Any, Final, TypeAlias

import psycopg

from dualwrite.connectors._pg_schema import Catalog, Facts, ForeignKey
from dualwrite.connectors._pg_session import Connection, Database
from dualwrite.connectors._pg_statements import MASK_BITS, Pattern, Shape, Target, Targets, patterns
from dualwrite.connectors._pg_values import BadTextError, array, copy_lines, is_storable
from dualwrite.connectors._sql import names, reference_of
from dualwrite.errors import Denied
from dualwrite.model import (
    ABSENT,
    Absent,
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
from dualwrite.schema import Column, Lookup, Table, View

BEGINNING: Final = (
    # below the time after which the server looks for deadlocks, so that it never picks the application's transaction
    "SELECT set_config('lock_timeout', (extract(epoch FROM current_setting('deadlock_timeout')::interval) * 300)::int "
    "|| 'ms', true)",
    # else foreign keys that are checked at the commit could not be laid at any row's door
    "SET CONSTRAINTS ALL IMMEDIATE",
)
"""What a transaction must begin with before a ``Writer`` works in it."""

_STRAIGHT: Final = 50
"""From that many new records on they are copied into the table without looking for them first."""
_PREPARED: Final = 100
"""Statements for more rows than that are planned for their number of rows."""
_SHAPES: Final = 3
"""Rows that speak of more different cells than that are put into one statement with masks."""
_APPLIED, _UNCHANGED = Applied(), Unchanged()
_LEFT_OUT: Final = Rejected("other", "the database left the row out (a trigger or rule ignores it)")
_BAD_TEXT: Final = Rejected("value", "a text holds a zero character or half of a character, which PostgreSQL refuses")

_CODES: Final = {
    "23505": "unique",
    "23P01": "unique",
    "23503": "reference",
    "23001": "reference",
    "23502": "required",
    "428C9": "readonly",
    "23000": "other",
}
_CLASSES: Final = {
    "22": "value",
    "23": "value",
    "44": "value",
    "54": "value",
    "P0": "other",
    "09": "other",
    "21": "other",
    "27": "other",
    "38": "other",
    "39": "other",
}

Held: TypeAlias = tuple[Value, ...]
Resolved: TypeAlias = Held | MissingParent | Rejected
Answer: TypeAlias = tuple[int, str, bool]


def refusal(exc: psycopg.Error, database: Database) -> Rejected | None:
    """What an error says about a row; None when it is not about the row."""
    code = exc.sqlstate or ""
    words = exc.diag.message_primary or str(exc)
    ours = _CODES.get(code) or _CLASSES.get(code[:2])
    if ours is None and exc.diag.context and isinstance(database.translated(exc), Denied):
        ours = "other"  # raised inside a function of the application
    return None if ours is None else Rejected(ours, words)


def _folded(column: Column, value: Value) -> str:
    """What a value is compared by in keys: null as empty, letter case and trailing blanks as the column says."""
    if value is None:
        return ""
    if column.ignore_trailing_blanks:
        value = value.rstrip(" ")
    return value.casefold() if column.ignore_case else value


def _folder(columns: Sequence[Column]) -> Callable[[Key], Key]:
    """A function that brings keys to the form in which equal ones are equal."""
    if any(column.ignore_case or column.ignore_trailing_blanks for column in columns):
        return lambda key: tuple(_folded(column, member) for column, member in zip(columns, key, strict=True))
    return lambda key: tuple(member or "" for member in key) if None in key else key


# -- lookups -----------------------------------------------------------------------------------------------------------


class Lookups:
    """Finds the records that lookups name; remembers them as long as we write nothing to their tables."""

    def __init__(self, connection: Connection, catalog: Catalog, targets: Targets) -> None:
        self._connection = connection
        self._catalog = catalog
        self._targets = targets
        self._known: dict[tuple[str, Lookup], dict[Key, Resolved]] = {}
        self._tables: dict[tuple[str, Lookup], frozenset[str]] = {}

    def clear(self) -> None:
        """Others may have changed anything."""
        self._known.clear()

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
            target = self._targets.get(
                self._catalog, View(lookup.reference, reference.table, paths, tuple(range(len(paths))))
            )
            self._tables[table.name, lookup] = target.plan.tables
            found = self._find(target, missing, reference.to)
            for key in missing:
                held = found.get(key, [])
                if not held:
                    known[key] = MissingParent(reference.name, reference.table, key)
                elif len(held) > 1:
                    reason = f"{len(held)} records of {reference.table} hold the key {show_key(key)}"
                    known[key] = Rejected("ambiguous", reason)
                else:
                    known[key] = held[0]
        return known

    def _find(
        self, target: Target, keys: Sequence[Key], columns: tuple[str, ...]
    ) -> dict[Key, list[tuple[Value, ...]]]:
        found: dict[Key, list[tuple[Value, ...]]] = {}
        groups: dict[Pattern, list[tuple[Key, Sequence[Value]]]] = defaultdict(list)
        for key, (pattern, values) in zip(keys, patterns(target, keys), strict=True):
            if pattern is not None and is_storable(values):
                groups[pattern].append((key, values))
        for pattern, members in groups.items():
            statement = target.statement("find", Shape(pattern, columns=columns))
            bound = _transposed([values for _, values in members]) or [[""] * len(members)]
            for row in _run(self._connection, statement, bound):
                found.setdefault(members[int(row[0]) - 1][0], []).append(row[1:])
        return found


def _transposed(rows: Sequence[Sequence[Value]]) -> list[list[Value]]:
    return [list(column) for column in zip(*rows, strict=True)]


def _run(connection: Connection, statement: str, columns: Sequence[Sequence[Value]]) -> list[tuple[Any, ...]]:
    bound = [array(column) for column in columns]
    prepare = None if len(columns[0]) <= _PREPARED else False
    return connection.execute(statement.encode(), bound, prepare=prepare).fetchall()


# -- rows --------------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Ready:
    """A write as a statement takes it.

    ``members`` are its key's values to look for.  ``lookups`` are what its references resolve to (None: to nothing);
    ``values`` the columns of a new record, ``refused`` why there cannot be one.
    """

    number: int
    write: Write
    pattern: Pattern | None
    members: Sequence[Value]
    given: tuple[int, ...] = ()
    expected: tuple[int, ...] = ()
    lookups: dict[int, Resolved | None] = field(default_factory=dict)
    values: dict[str, Value] = field(default_factory=dict)
    refused: Outcome | None = None


class Writer:
    """Writes rows inside one open transaction (``BEGINNING``, READ COMMITTED).

    ``touched`` are, per view, the keys of written records that users may have changed in a transaction which is not
    surely older than ``horizon``, the ``pg_snapshot_xmin`` of an earlier moment; without one all of them.  What was not
    there has no version to tell, so it always counts; what we wrote before in this transaction does not.
    """

    def __init__(
        self,
        connection: Connection,
        database: Database,
        catalog: Catalog,
        targets: Targets,
        horizon: int | None = None,
    ) -> None:
        self.connection = connection
        self.database = database
        self.horizon = horizon
        self.touched: dict[str, set[Key]] = defaultdict(set)
        self.lookups = Lookups(connection, catalog, targets)
        self._catalog = catalog
        self._targets = targets
        self._ours: dict[str, set[Key]] = defaultdict(set)
        self._met: set[str] = set()

    def fetch(self, view: View, keys: Sequence[Key]) -> dict[Key, list[Row]]:
        """As ``Transaction.fetch``: the records are locked until the end of the transaction."""
        target = self._targets.get(self._catalog, view)
        self.lock(target, keys)
        return target.plan.fetch(self.connection, keys)

    def lock(self, target: Target, keys: Sequence[Key], *, strong: bool = False) -> None:
        """Wait for the records of these keys, and keep them; ``strong``: children may not refer to them meanwhile."""
        groups: dict[Pattern, list[Sequence[Value]]] = defaultdict(list)
        for pattern, members in patterns(target, keys):
            if pattern is not None and is_storable(members):
                groups[pattern].append(members)
        for pattern, rows in groups.items():
            statement = target.statement("lock", Shape(pattern, given=(0,) if strong else ()))
            _run(self.connection, statement, _transposed(rows) or [[""] * len(rows)])

    def write(self, view: View, writes: Sequence[Write]) -> list[Outcome]:
        """As ``Transaction.write``.  Where a key occurs twice, the later write sees what the earlier one did."""
        target = self._targets.get(self._catalog, view)
        outcomes: list[Outcome] = []
        for part in _once_per_key(target, writes):
            found = Part(self, target, part).run()
            outcomes += [found[number] for number in range(len(part))]
        return outcomes

    def notice(self, view: View, keys: Sequence[Key]) -> None:
        """We have met records whose last versions are not surely old ones."""
        ours = self._ours[view.table]
        self.touched[view.name].update(keys if not ours else [key for key in keys if key not in ours])

    def wrote(self, view: View, keys: Iterable[Key]) -> None:
        """The last versions of these records are ours."""
        if self.horizon is not None:
            self._ours[view.table].update(keys)

    def facts(self, table: str) -> Facts:
        """What only PostgreSQL has to know of a table."""
        return self._catalog.facts[table]

    def may_go_straight(self, view: View) -> bool:
        """Has no record of this view been there already when it was to be new?"""
        return view.name not in self._met

    def has_met(self, view: View) -> None:
        """Some record was there already."""
        self._met.add(view.name)


def _moves(view: View, writes: Sequence[Write]) -> dict[int, Key]:
    """The keys that records shall have, where they are others than before."""
    keys = _keys_of(view)
    found: dict[int, Key] = {}
    for number, write in enumerate(writes):
        if write.row is not None and (cells := keys(write.row)) != write.key:
            key = tuple([member if cell is ABSENT else cell for cell, member in zip(cells, write.key, strict=True)])
            if key != write.key:
                found[number] = key
    return found


def _keys_of(view: View) -> Callable[[Row], Row]:
    if len(view.key) == 1:
        (place,) = view.key
        return lambda row: (row[place],)
    return itemgetter(*view.key)


def _once_per_key(target: Target, writes: Sequence[Write]) -> list[Sequence[Write]]:
    """The writes in parts in which each key occurs once, before and after; mostly it is one."""
    fold = _folder([target.cells[place].column for place in target.view.key])
    keys = [fold(write.key) for write in writes]
    moves = _moves(target.view, writes)
    if not moves and len(set(keys)) == len(keys):
        return [writes]
    parts: list[list[Write]] = [[]]
    seen: set[Key] = set()
    taken: set[Key] = set()
    for number, (write, key) in enumerate(zip(writes, keys, strict=True)):
        new = None if write.row is None else fold(moves.get(number, key))
        if key in seen or new in taken:
            parts.append([])
            seen, taken = set(), set()
        seen.add(key)
        if new is not None:
            taken.add(new)
        parts[-1].append(write)
    return list(parts)


# -- one part of a call ------------------------------------------------------------------------------------------------


class Part:
    """Writes of one view, each with a key of its own."""

    def __init__(self, writer: Writer, target: Target, writes: Sequence[Write]) -> None:
        self._writer = writer
        self._connection = writer.connection
        self._target = target
        self._view = target.view
        self._table = target.plan.table
        self._writes = writes
        self._fold = _folder([target.cells[place].column for place in self._view.key])
        self._moves = _moves(target.view, writes)
        self._outcomes: dict[int, Outcome] = {}
        self._is_second_look = False

    def run(self) -> dict[int, Outcome]:
        """Write them all; what was refused again behind the others, as long as that helps."""
        if self._insert_straight():
            return self._outcomes
        waiting: Sequence[int] = range(len(self._writes))
        while waiting:
            self._carry_out(waiting)
            again = [number for number in waiting if self._may_succeed_later(self._outcomes[number])]
            if len(again) == len(waiting) and self._is_second_look:
                break
            waiting = again
            self._is_second_look = True
            self._writer.lookups.clear()
        self._swap([number for number in waiting if self._is_update(number) and self._was_refused(number, "unique")])
        return self._outcomes

    def _may_succeed_later(self, outcome: Outcome) -> bool:
        """Can the others of this call, or what was waited for, have made a difference?"""
        if isinstance(outcome, MissingParent):
            return outcome.table == self._table.name
        if outcome is _LEFT_OUT:  # also what has moved while we waited for its lock
            return not self._is_second_look
        return isinstance(outcome, Rejected) and outcome.code in ("unique", "reference")

    def _was_refused(self, number: int, code: str) -> bool:
        outcome = self._outcomes.get(number)
        return isinstance(outcome, Rejected) and outcome.code == code

    def _is_update(self, number: int) -> bool:
        return self._writes[number].row is not None and self._writes[number].expect is not None

    def _carry_out(self, numbers: Sequence[int], *, trusting: bool = False) -> None:
        """Deletes, then updates, then inserts; ``trusting``: what was expected has been looked at before."""
        deletes = [number for number in numbers if self._writes[number].row is None]
        updates = [number for number in numbers if self._is_update(number)]
        inserts = [n for n in numbers if self._writes[n].row is not None and self._writes[n].expect is None]
        if self._is_second_look or self._target.plan.flags:
            # after a wait a statement would show old parents beside the newest record
            keys = [self._writes[number].key for number in numbers]
            self._writer.lock(self._target, keys, strong=bool(deletes))
        self._delete(deletes)
        self._update(updates, trusting=trusting)
        self._insert(inserts)
        if numbers:
            self._writer.lookups.forget(self._table.name)

    # -- making rows ready ----------------------------------------------------------------------------------------

    def _readies(self, numbers: Sequence[int]) -> list[Ready]:
        keys = [self._writes[number].key for number in numbers]
        found = patterns(self._target, keys)
        return [
            Ready(number, self._writes[number], pattern, members)
            for number, (pattern, members) in zip(numbers, found, strict=True)
        ]

    def _known(self, readies: Sequence[Ready], without: Outcome) -> list[Ready]:
        """Those whose keys records can hold; the others have the outcome of records that are not there."""
        for ready in readies:
            if ready.pattern is None:
                self._outcomes[ready.number] = without
        return [ready for ready in readies if ready.pattern is not None]

    def _resolve(self, readies: Sequence[Ready]) -> None:
        """What the references that the rows set lead to."""
        target = self._target
        for number, lookup in enumerate(target.lookups):
            asked: list[tuple[Ready, Key]] = []
            for ready in readies:
                row = ready.write.row
                assert row is not None
                if any(row[own] is ABSENT for own in lookup.own):
                    continue
                if any(row[own] for own in lookup.own):
                    asked.append((ready, self._named(lookup, ready)))
                else:
                    ready.lookups[number] = None
            if asked:
                resolved = self._writer.lookups.resolve(self._table, lookup, (key for _, key in asked))
                for ready, key in asked:
                    ready.lookups[number] = resolved[key]

    def _named(self, lookup: Lookup, ready: Ready) -> Key:
        """The key that a row's lookup names; what the row does not say is what its record holds."""
        cells = []
        for _, index in lookup.parts:
            cell = self._said(ready.write, index)
            if cell is ABSENT:
                rows = self._target.plan.fetch(self._connection, [ready.write.key]).get(ready.write.key, [])
                cell = rows[0][index] if rows else None
            cells.append(None if cell is ABSENT else cell)
        return tuple(cells)

    def _said(self, write: Write, index: int) -> Cell:
        """What a write says of a cell, as wanted, as a part of its key or as expected."""
        cell: Cell = ABSENT if write.row is None else write.row[index]
        if cell is ABSENT and index in self._view.key:
            cell = write.key[self._view.key.index(index)]
        if cell is ABSENT and write.expect is not None:
            cell = write.expect[index]
        return cell

    def _cells_array(self, rows: Sequence[Row | None], place: int, *, mixed: bool) -> list[Value]:
        """One cell of all rows, ABSENT as null."""
        cell = self._target.cells[place]
        column: list[Value]
        if mixed:
            column = [None if row is None or (held := row[place]) is ABSENT else held for row in rows]
        else:
            column = [row[place] for row in rows]  # type: ignore[index,misc]  # all rows have the cell
        if cell.empty_is_null and not cell.is_text:
            return [value or None for value in column]
        return column

    # -- deletes --------------------------------------------------------------------------------------------------

    def _delete(self, numbers: Sequence[int]) -> None:
        readies = self._known(self._readies(numbers), _UNCHANGED)
        for ready in readies:
            expect = ready.write.expect or ()
            ready.expected = tuple(place for place, cell in enumerate(expect) if cell is not ABSENT)
        for shape, group in self._shaped(readies):
            self._run("delete", shape, group)

    # -- updates --------------------------------------------------------------------------------------------------

    def _update(self, numbers: Sequence[int], *, trusting: bool = False) -> None:
        readies = self._known(self._readies(numbers), Contested(None))
        self._speak(readies, trusting=trusting)
        self._resolve(readies)
        alone = [ready for ready in readies if self._must_be_alone(ready)]
        if alone:
            readies = [ready for ready in readies if not self._must_be_alone(ready)]
        for shape, group in self._shaped(readies):
            self._run("update", shape, group)
        for ready in alone:
            key = self._moves[ready.number]
            if self._target.plan.fetch(self._connection, [key]):
                reason = f"another {self._table.name} holds the key {show_key(key)}"
                self._outcomes[ready.number] = Rejected("unique", reason)
                continue
            for shape, group in self._shaped([ready]):
                self._run("update", shape, group)

    def _speak(self, readies: Sequence[Ready], *, trusting: bool = False) -> None:
        """Note which cells the rows set and which they expect something of."""
        flats = frozenset(self._target.flats)
        parts = [tuple(index for _, index in lookup.parts) for lookup in self._target.lookups]
        known: dict[tuple[bool, ...], tuple[int, ...]] = {}
        for ready in readies:
            row, expect = ready.write.row, ready.write.expect
            assert row is not None
            pattern = tuple([cell is ABSENT for cell in row])
            given = known.get(pattern)
            if given is None:
                said = set(flats)
                for lookup, indexes in zip(self._target.lookups, parts, strict=True):
                    said |= set() if any(pattern[own] for own in lookup.own) else set(indexes)
                given = known[pattern] = tuple(sorted(place for place in said if not pattern[place]))
            ready.given = given
            if expect is not None and not trusting:
                ready.expected = tuple([place for place, cell in enumerate(expect) if cell is not ABSENT])

    def _must_be_alone(self, ready: Ready) -> bool:
        """Does the row take another key, which no unique index keeps from being held twice?"""
        key = self._moves.get(ready.number)
        if key is None or self._fold(key) == self._fold(ready.write.key):
            return False
        return not self._target.key_columns[1] or not all(key)

    def _shaped(self, readies: Sequence[Ready]) -> Iterator[tuple[Shape, list[Ready]]]:
        """The rows in groups that one statement takes."""
        same: dict[tuple[Any, ...], list[Ready]] = defaultdict(list)
        for ready in readies:
            same[ready.pattern, ready.given, ready.expected, tuple(ready.lookups)].append(ready)
        groups = {Shape(*parts): group for parts, group in same.items()}
        triggers = any("update" in trigger.events for trigger in self._target.plan.facts.triggers)
        if len(groups) <= _SHAPES or triggers:  # a trigger may look at the columns that a statement names
            yield from groups.items()
            return
        merged: dict[Pattern | None, list[Shape]] = defaultdict(list)
        for shape in groups:
            merged[shape.pattern].append(shape)
        for pattern, shapes in merged.items():
            union = Shape(
                pattern,
                tuple(sorted({place for shape in shapes for place in shape.given})),
                tuple(sorted({place for shape in shapes for place in shape.expected})),
                tuple(sorted({number for shape in shapes for number in shape.lookups})),
                mixed=len(shapes) > 1,
            )
            yield union, [ready for shape in shapes for ready in groups[shape]]

    # -- inserts --------------------------------------------------------------------------------------------------

    def _insert(self, numbers: Sequence[int]) -> None:
        readies = self._readies(numbers)
        self._resolve(readies)
        same: dict[tuple[Pattern | None, tuple[str, ...]], list[Ready]] = defaultdict(list)
        for ready in readies:
            self._fill(ready)
            same[ready.pattern, tuple(ready.values)].append(ready)
        groups = {Shape(pattern, columns=columns): group for (pattern, columns), group in same.items()}
        facts = self._target.plan.facts
        alone = facts.rules or any(each.before and "insert" in each.events for each in facts.triggers)
        met: list[Ready] = []
        for shape, group in groups.items():
            for batch in [[ready] for ready in group] if alone else [group]:
                met += self._run("insert", shape, batch)
        self._compare(met)

    def _fill(self, ready: Ready) -> None:
        """The columns of a new record."""
        target, row = self._target, ready.write.row
        assert row is not None
        for number, held in ready.lookups.items():
            columns = target.references[number].columns
            if held is None:
                mine = (name for name in columns if name not in target.shared[number])
                ready.values.update({name: self._null(name) for name in mine})
            elif isinstance(held, tuple):
                ready.values.update(zip(columns, held, strict=True))
            elif ready.refused is None:
                ready.refused = held
        for place in target.flats:
            cell = row[place]
            if cell is ABSENT:
                continue
            column = target.cells[place].column
            if column.read_only and ready.refused is None:
                reason = f"{self._table.name}.{column.name} is generated and cannot be written"
                ready.refused = Rejected("readonly", reason)
            ready.values[column.name] = self._null(column.name) if cell is None else cell
        if ready.refused is not None:
            ready.values = {}

    def _null(self, name: str) -> Value:
        column = self._table.column(name)
        return "" if column is not None and column.empty_is_null else None

    def _compare(self, readies: Sequence[Ready]) -> None:
        """Records that are there already, though they should not be, may hold what was wanted."""
        if not readies:
            return
        self._writer.has_met(self._view)
        self._speak(readies)
        for shape, group in self._shaped(readies):
            judged = Shape(shape.pattern, shape.given, (), shape.lookups, shape.mixed, writes=False)
            answers = self._attempt("update", judged, group)
            told = {number: verdict for number, verdict, _ in answers}
            self._contest([ready for place, ready in enumerate(group, 1) if told.get(place) != "u"])
            for place, ready in enumerate(group, 1):
                if told.get(place) == "u":
                    self._outcomes[ready.number] = _UNCHANGED

    def _contest(self, readies: Sequence[Ready]) -> None:
        """The records are not as expected: tell their rows."""
        if not readies:
            return
        found = self._target.plan.fetch(self._connection, [ready.write.key for ready in readies])
        for ready in readies:
            rows = found.get(ready.write.key, [])
            if len(rows) > 1:
                self._outcomes[ready.number] = self._ambiguous(ready.write.key, len(rows))
            else:
                self._outcomes[ready.number] = Contested(rows[0] if rows else None)

    def _ambiguous(self, key: Key, count: int) -> Rejected:
        return Rejected("ambiguous", f"{count} records of {self._table.name} hold the key {show_key(key)}")

    def _insert_straight(self) -> bool:
        """Copy many new records into the table, where a unique index refuses those that are there already.

        All of them or none: then each is to be judged by itself.
        """
        facts = self._target.plan.facts
        if len(self._writes) < _STRAIGHT or not self._writer.may_go_straight(self._view):
            return False
        if facts.rules or any(each.before and "insert" in each.events for each in facts.triggers):
            return False
        writes = self._writes
        if self._moves or any(write.row is None or write.expect is not None for write in writes):
            return False
        columns = self._straight_columns()
        if columns is None:
            return False
        try:
            lines = copy_lines(list(columns.values()))
        except BadTextError:
            return False
        statement = f"COPY {facts.sql} ({names(columns)}) FROM STDIN"
        execute = self._connection.execute
        execute("SAVEPOINT dualwrite_rows")
        try:
            with self._connection.cursor() as cursor:
                with cursor.copy(statement.encode()) as copy:
                    copy.write(lines)
                complete = cursor.rowcount == len(writes)
        except psycopg.Error as exc:
            if refusal(exc, self._writer.database) is None:
                raise
            complete = False
        if not complete:
            self._undo("dualwrite_rows")
            self._writer.has_met(self._view)
            return False
        execute("RELEASE dualwrite_rows")
        self._outcomes.update(dict.fromkeys(range(len(writes)), _APPLIED))
        keys = [write.key for write in writes]
        self._writer.notice(self._view, keys)
        self._writer.wrote(self._view, keys)
        self._writer.lookups.forget(self._table.name)
        return True

    def _straight_columns(self) -> dict[str, Sequence[Value]] | None:
        """The columns of new records that all fill the same ones; None where one of them must be looked at."""
        target, writes = self._target, self._writes
        rows = [write.row for write in writes if write.row is not None]
        held, is_unique = target.key_columns
        if not is_unique:
            return None
        columns = self._filled() if target.lookups else self._flat_columns(rows)
        if not columns or not held <= set(columns) or not all(all(columns[name]) for name in held):
            return None
        return columns

    def _flat_columns(self, rows: Sequence[Row]) -> dict[str, Sequence[Value]] | None:
        columns: dict[str, Sequence[Value]] = {}
        cells = list(zip(*rows, strict=True))
        for place in self._target.flats:
            column, kinds = self._target.cells[place].column, set(map(type, cells[place]))
            if Absent in kinds:
                if len(kinds) > 1:
                    return None
                continue
            if column.read_only:
                return None
            known: Sequence[Value] = cells[place]
            is_filled = column.empty_is_null and NoneType in kinds
            columns[column.name] = [value or "" for value in known] if is_filled else known
        return columns

    def _filled(self) -> dict[str, Sequence[Value]] | None:
        readies = self._readies(range(len(self._writes)))
        self._resolve(readies)
        for ready in readies:
            self._fill(ready)
            if ready.refused is not None or ready.values.keys() != readies[0].values.keys():
                return None
        return {name: [ready.values[name] for ready in readies] for name in readies[0].values}

    # -- running --------------------------------------------------------------------------------------------------

    def _run(self, kind: str, shape: Shape, batch: Sequence[Ready]) -> list[Ready]:
        """Run one statement for all rows, or for its halves where it fails.

        Returns the new records that are there already.
        """
        if self._writer.horizon is not None and not shape.horizon:
            shape = replace(shape, horizon=True)
        try:
            answers = self._attempt(kind, shape, batch)
        except (psycopg.Error, BadTextError) as exc:
            outcome = self._refused(exc)
            if len(batch) > 1:
                middle = len(batch) // 2
                return [*self._run(kind, shape, batch[:middle]), *self._run(kind, shape, batch[middle:])]
            self._outcomes[batch[0].number] = self._missing_parent(outcome, batch[0]) or outcome
            return []
        return self._judge(kind, batch, answers)

    def _refused(self, exc: psycopg.Error | BadTextError) -> Rejected:
        """Why a statement failed, with its traces removed; raises what is not about its rows."""
        if isinstance(exc, BadTextError):
            return _BAD_TEXT
        outcome = refusal(exc, self._writer.database)
        if outcome is None:
            raise exc
        self._undo("dualwrite_rows")
        return outcome

    def _undo(self, savepoint: str) -> None:
        """Go back to a savepoint, and forget it."""
        self._connection.execute(f"ROLLBACK TO {savepoint}".encode())
        self._connection.execute(f"RELEASE {savepoint}".encode())

    def _attempt(self, kind: str, shape: Shape, batch: Sequence[Ready]) -> list[Answer]:
        """One statement behind a savepoint, in one round trip."""
        statement = self._target.statement(kind, shape)
        horizon = self._writer.horizon
        bound = [str(horizon & 0xFFFFFFFF)] if shape.horizon and horizon is not None else []
        bound += [array(column) for column in self._bound(kind, shape, batch)]
        prepare = None if len(batch) <= _PREPARED else False
        execute = self._connection.execute
        with self._connection.pipeline():  # psycopg would believe in a preparation that an error has cut off
            execute("SAVEPOINT dualwrite_rows", prepare=False)
            cursor = execute(statement.encode(), bound, prepare=prepare)
            execute("RELEASE dualwrite_rows", prepare=False)
        return [(int(row[0]), row[1], row[2] == "t") for row in cursor.fetchall()]

    def _bound(self, kind: str, shape: Shape, batch: Sequence[Ready]) -> list[Sequence[Value]]:
        """The arrays of a statement, in the order in which it names them."""
        columns: list[Sequence[Value]] = list(_transposed([ready.members for ready in batch]))
        if kind == "insert":
            columns.append(["f" if ready.refused is None else "t" for ready in batch])
            columns += [[ready.values[name] for ready in batch] for name in shape.columns]
            return columns
        if kind == "delete":
            columns.append(["f" if ready.write.expect is None else "t" for ready in batch])
        if shape.mixed:
            columns += self._masks(shape, batch)
        if kind == "update":
            rows = [ready.write.row for ready in batch]
            columns += [self._cells_array(rows, place, mixed=shape.mixed) for place in shape.given]
        rows = [ready.write.expect for ready in batch] if shape.expected else []
        columns += [self._cells_array(rows, place, mixed=shape.mixed) for place in shape.expected]
        for number in shape.lookups:
            columns += self._lookup_arrays(number, batch)
        return columns

    @staticmethod
    def _masks(shape: Shape, batch: Sequence[Ready]) -> list[list[Value]]:
        given = {place: 1 << bit for bit, place in enumerate(shape.given)}
        expected = {place: 1 << bit for bit, place in enumerate(shape.expected, len(shape.given))}
        known: dict[tuple[tuple[int, ...], tuple[int, ...]], list[str]] = {}
        words = -(-(len(given) + len(expected)) // MASK_BITS)
        for ready in batch:
            said = ready.given, ready.expected
            if said not in known:
                mask = sum(given[place] for place in said[0]) + sum(expected[place] for place in said[1])
                known[said] = [str(mask >> MASK_BITS * word & (1 << MASK_BITS) - 1) for word in range(words)]
        return [[known[ready.given, ready.expected][word] for ready in batch] for word in range(words)]

    def _lookup_arrays(self, number: int, batch: Sequence[Ready]) -> list[list[Value]]:
        """How a lookup resolves in each row (``k``: to a record, ``n``: to none, ``x``: it cannot), and to what."""
        reference = self._target.references[number]
        states: list[Value] = []
        held: list[tuple[Value, ...]] = []
        nothing = tuple(self._null(name) for name in reference.columns)
        for ready in batch:
            resolved = ready.lookups.get(number, ABSENT)
            if isinstance(resolved, tuple):
                states.append("k")
                held.append(resolved)
            else:
                states.append(None if resolved is ABSENT else "n" if resolved is None else "x")
                held.append(nothing)
        return [states, *_transposed(held)]

    def _judge(self, kind: str, batch: Sequence[Ready], answers: Sequence[Answer]) -> list[Ready]:
        """The outcomes of a statement that went through; returns the new records that are there already."""
        told = {place: verdict for place, verdict, _ in answers if place}
        count = next((int(verdict) for place, verdict, _ in answers if not place), None)
        left_out = count is not None and count != len(batch) - len(told)
        assert not left_out or len(batch) == 1, "triggers and rules that can leave out rows get them one by one"
        applied = [ready for place, ready in enumerate(batch, 1) if told.get(place, "w") == "w"]
        done = _LEFT_OUT if left_out else _APPLIED
        self._outcomes.update(dict.fromkeys([ready.number for ready in applied], done))
        others: dict[str, list[Ready]] = defaultdict(list)
        for place, verdict in told.items():
            others[verdict].append(batch[place - 1])
        self._notice(kind, batch, applied, answers)
        met, contested = others.pop("f", []), others.pop("c", [])
        for verdict, group in others.items():
            if verdict != "w":
                self._outcomes.update({ready.number: self._outcome(kind, ready, verdict) for ready in group})
        self._contest(contested)
        return met

    def _notice(self, kind: str, batch: Sequence[Ready], applied: Sequence[Ready], answers: Sequence[Answer]) -> None:
        """Tell the writer which records were met, and which of them users may just have changed."""
        keys = [ready.write.key for ready in applied]
        if self._writer.horizon is None:
            self._writer.notice(self._view, [ready.write.key for ready in batch])
        else:
            seen = [(batch[place - 1], verdict, fresh) for place, verdict, fresh in answers if place]
            told = [ready.write.key for ready, verdict, fresh in seen if fresh or verdict in "gb"]
            self._writer.notice(self._view, [*told, *keys] if kind == "insert" else told)
        if self._moves:  # who held that key before cannot be seen any more
            moved = [self._moves[ready.number] for ready in batch if ready.number in self._moves]
            self._writer.notice(self._view, moved)
        self._writer.wrote(self._view, keys)

    def _outcome(self, kind: str, ready: Ready, verdict: str) -> Outcome:
        match verdict[0]:
            case "g":
                return _UNCHANGED if kind == "delete" else Contested(None)
            case "u":
                return _UNCHANGED
            case "b":
                assert ready.refused is not None
                return ready.refused
            case "l":
                resolved = ready.lookups[int(verdict[1:])]
                assert isinstance(resolved, MissingParent | Rejected)
                return resolved
            case "r":
                name = self._target.cells[int(verdict[1:])].column.name
                return Rejected("readonly", f"{self._table.name}.{name} is generated and cannot be written")
            case "m":
                rows = self._target.plan.fetch(self._connection, [ready.write.key])
                return self._ambiguous(ready.write.key, len(rows.get(ready.write.key, ())))
            case _:
                return _LEFT_OUT

    # -- foreign keys ---------------------------------------------------------------------------------------------

    def _missing_parent(self, outcome: Rejected, ready: Ready) -> MissingParent | None:
        """The record that a foreign key of the row does not find."""
        if outcome.code != "reference" or ready.write.row is None or not self._is_second_look:
            return None
        for key in self._target.plan.facts.foreign_keys:
            places = [self._view.paths.index((name,)) for name in key.columns if (name,) in self._view.paths]
            known = [cell for place in places if isinstance(cell := self._said(ready.write, place), str)]
            if len(known) == len(key.columns) and not self._exists(key, known):
                return MissingParent("_".join(key.columns), key.table, tuple(known))
        return None

    def _exists(self, key: ForeignKey, held: Sequence[str]) -> bool:
        facts = self._writer.facts(key.table)
        tests = []
        for number, name in enumerate(key.to, 1):
            end = facts.columns[name]
            tests.append(end.equal(names([name]), f"${number}::{end.plain}"))
        statement = f"SELECT 1 FROM {facts.sql} WHERE {' AND '.join(tests)}"  # noqa: S608  # names are quoted
        return self._connection.execute(statement.encode(), list(held)).fetchone() is not None

    # -- unique values that change places -------------------------------------------------------------------------

    def _swap(self, numbers: list[int]) -> None:
        """Rows that take each other's unique values: all let go of theirs first (null is the spare value)."""
        while len(numbers) > 1:
            refused = {number: self._outcomes[number] for number in numbers}
            self._connection.execute("SAVEPOINT dualwrite_swap")
            try:
                failed = self._try_swap(numbers)
            except psycopg.Error as exc:
                if refusal(exc, self._writer.database) is None:
                    raise
                failed = set(numbers)  # they cannot let go
            if not failed:
                self._connection.execute("RELEASE dualwrite_swap")
                return
            self._undo("dualwrite_swap")
            self._outcomes |= refused
            numbers = [number for number in numbers if number not in failed]

    def _try_swap(self, numbers: Sequence[int]) -> set[int]:
        """Returns those that cannot take part."""
        groups: dict[Shape, list[Ready]] = defaultdict(list)
        for ready in self._readies(numbers):
            spare = self._spare(ready.write)
            if not spare:
                return {ready.number}
            groups[Shape(ready.pattern, columns=spare)].append(ready)
        for shape, group in groups.items():
            statement = self._target.statement("let go", shape)
            columns = _transposed([ready.members for ready in group]) or [[""] * len(group)]
            self._connection.execute(statement.encode(), [array(column) for column in columns], prepare=False)
        self._carry_out(numbers, trusting=True)
        return {number for number in numbers if self._outcomes[number] != _APPLIED}

    def _spare(self, write: Write) -> tuple[str, ...]:
        """Of each unique set of columns that the write sets, one that may be null for a moment."""
        assert write.row is not None
        row = write.row
        places = [place for place in self._target.flats if row[place] is not ABSENT]
        given = {self._target.cells[place].column.name for place in places if not self._target.is_fixed(place)}
        for lookup, reference in zip(self._target.lookups, self._target.references, strict=True):
            if all(row[own] is not ABSENT for own in lookup.own):
                given |= set(reference.columns)
        found: list[str] = []
        for unique in self._target.plan.facts.uniques:
            able = [
                name
                for name in unique.columns
                if name in given and (column := self._table.column(name)) and column.nullable
            ]
            found += able[:1]
        return tuple(dict.fromkeys(found))
