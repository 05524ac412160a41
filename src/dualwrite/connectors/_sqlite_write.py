"""One call of ``write``: from writes in natural form to operations on a table, set-based, and to their outcomes.

The records of all keys are read in one go and compared here; lookups are resolved together; what differs becomes the
operations that ``_sqlite_statements`` runs.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from operator import itemgetter

from dualwrite.canonical import CastError
from dualwrite.connectors._sql import Lookups, Resolved, folded, folder, is_unique, reference_of, shared_columns
from dualwrite.connectors._sqlite_capture import DELETE, INSERT, UPDATE
from dualwrite.connectors._sqlite_effects import Effects, Identity, Intents, Values
from dualwrite.connectors._sqlite_schema import Catalog
from dualwrite.connectors._sqlite_statements import Operation, Statements
from dualwrite.connectors._sqlite_values import Encode, Storage, storage_maker
from dualwrite.connectors._sqlite_view import Found, Plans, ViewPlan
from dualwrite.model import (
    ABSENT,
    Applied,
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
from dualwrite.schema import Column, Lookup, Reference, View

_APPLIED = Applied()


@dataclass(frozen=True, slots=True)
class Flat:
    """A cell that is a column: its index, how it is stored (None: as it is), and what null is stored as."""

    index: int
    column: Column
    encode: Encode | None
    null: Storage

    @classmethod
    def of(cls, plan: ViewPlan, index: int) -> Flat:
        """The cell of a view."""
        column, encode = plan.columns[index], plan.encoders[index]
        as_it_is = encode is str and not column.empty_is_null and not column.read_only
        return cls(index, column, None if as_it_is else encode, "" if column.empty_is_null else None)


def lookups_of(connection: sqlite3.Connection, catalog: Catalog, plans: Plans) -> Lookups[Identity]:
    """Finds the records that lookups name."""

    def find(view: View, reference: Reference, keys: Sequence[Key]) -> tuple[dict[Key, list[Identity]], frozenset[str]]:
        plan = plans.get(connection, catalog, view, reference.to)
        found = zip(keys, plan.find(connection, keys), strict=True)
        return {key: [record.extra for record in records] for key, records in found}, plan.tables

    return Lookups(find)


def _is_unique(plan: ViewPlan) -> bool:
    """Does a constraint of the table keep apart what the view's key keeps apart?"""
    columns = [plan.columns[index] for index in plan.view.key]
    if any(len(plan.view.paths[index]) > 1 for index in plan.view.key) or any(
        column.nullable or column.ignore_case or column.ignore_trailing_blanks for column in columns
    ):
        return False
    return is_unique(plan.table, (column.name for column in columns))


@dataclass(slots=True)
class Pending:
    """A row to be written: its record (None: to be inserted), and the indexes of the cells that differ from it.

    ``lookups`` are those to be set, each with the key that it names; None: it leads nowhere.
    """

    number: int
    row: Row
    found: Found | None
    differing: frozenset[int]
    lookups: list[tuple[Lookup, Key | None]] = field(default_factory=list)


class Writer:
    """Writes rows of one view; what depends on the view alone is prepared once."""

    def __init__(
        self, connection: sqlite3.Connection, plan: ViewPlan, lookups: Lookups[Identity], effects: Effects
    ) -> None:
        self._connection = connection
        self._plan = plan
        self._lookups = lookups
        self._effects = effects
        view, table = plan.view, plan.table
        written = set(view.written)
        self._active = [lookup for lookup in view.lookups if set(lookup.own) <= written]
        self._held = {lookup: reference_of(table, lookup.reference, (lookup.reference,)) for lookup in self._active}
        self._nothing = {lookup: _nothing(plan, lookup) for lookup in self._active}
        self._owners = {index: lookup for lookup in self._active for index in lookup.own}
        flats = [Flat.of(plan, index) for index in view.written if len(view.paths[index]) == 1]
        self._flats = {flat.index: flat for flat in flats}
        self._coded = [flat for flat in flats if flat.encode is not None]
        plain = [flat for flat in flats if flat.encode is None]
        self._plain_names = [flat.column.name for flat in plain]
        self._plain_cells = itemgetter(*(flat.index for flat in plain), 0, 0)  # two more: always a tuple
        self._fold = folder([plan.columns[index] for index in view.key])
        self._is_unique = _is_unique(plan)

    # -- deciding -------------------------------------------------------------------------------------------------

    def write(self, writes: Sequence[Write], outcomes: dict[int, Outcome]) -> dict[int, Outcome]:
        """Write everything that has no outcome yet; the outcome of each write by its number."""
        if not outcomes:
            self._insert_straight(writes, outcomes)
        numbers = [number for number in range(len(writes)) if number not in outcomes]
        if not numbers:
            return outcomes
        cells = self._spoken_of([writes[number] for number in numbers])
        found = self._plan.find(self._connection, [writes[number].key for number in numbers], frozenset(cells))
        deletes, pending, unchanged, contested = [], [], [], []
        for number, records in zip(numbers, found, strict=True):
            write = writes[number]
            judged = self._judged(number, write, records, cells)
            if isinstance(judged, Pending):
                pending.append(judged)
            elif isinstance(judged, Operation):
                deletes.append(judged)
            else:
                outcomes[number] = judged
                if isinstance(judged, Contested) and records:
                    contested.append(number)
                elif records and write.row is not None and isinstance(judged, Unchanged):
                    unchanged.append((write.row, records[0]))
        self._show(writes, contested, outcomes)
        self._confirm(unchanged)
        pending = self._free(writes, pending, {operation.identity for operation in deletes}, outcomes)
        statements = Statements(self._connection, self._plan, self._effects, outcomes)
        statements.run([*deletes, *self._operations(pending, outcomes)])
        self._lookups.forget(self._plan.name)
        again = [n for n, o in outcomes.items() if isinstance(o, MissingParent) and o.table == self._plan.name]
        if 0 < len(again) < len(numbers):  # parents may stand in this very call
            for number in again:
                del outcomes[number]
            self.write(writes, outcomes)
        return outcomes

    def _insert_straight(self, writes: Sequence[Write], outcomes: dict[int, Outcome]) -> None:
        """Insert rows without looking for them first, where a constraint refuses those that are there already.

        What does not go in has no outcome afterwards: it is to be judged by itself.
        """
        rows = [write.row for write in writes if write.row is not None and write.expect is None]
        if not self._is_unique or self._active or len(rows) < len(writes) or not rows:
            return
        if self._plan.view.natural_keys(rows) != [write.key for write in writes]:
            return
        flats = tuple(flat for flat in self._flats.values() if rows[0][flat.index] is not ABSENT)
        silent = self._flats.keys() - {flat.index for flat in flats}
        if any(row[index] is not ABSENT for index in silent for row in rows):
            return  # they fill different columns
        if any(flat.column.read_only for flat in flats):
            return
        numbers, stored = self._stored(flats, rows)
        statements = Statements(self._connection, self._plan, self._effects, outcomes)
        done = statements.insert([flat.column.name for flat in flats], stored)
        self._lookups.forget(self._plan.name)
        outcomes |= dict.fromkeys((numbers[place] for place in done), _APPLIED)

    def _stored(self, flats: tuple[Flat, ...], rows: Sequence[Row]) -> tuple[Sequence[int], list[tuple[Storage, ...]]]:
        """The rows as they are stored, with their numbers; those with a value that cannot be stored are left out."""
        make = storage_maker(tuple((flat.index, flat.encode, flat.null) for flat in flats), len(rows[0]))
        try:
            return range(len(rows)), make(rows)
        except CastError:
            numbers, stored = [], []
            for number, row in enumerate(rows):
                with suppress(CastError):
                    stored += make([row])
                    numbers.append(number)
            return numbers, stored

    def _spoken_of(self, writes: Sequence[Write]) -> list[int]:
        """The cells that matter to these writes: those that they set or expect, and all parts of lookups among them."""
        rows = [row for write in writes for row in (write.row, write.expect) if row is not None]
        cells = {index for index, cells in enumerate(zip(*rows, strict=True)) if cells.count(ABSENT) < len(rows)}
        for lookup in self._active:
            parts = {index for _, index in lookup.parts}
            cells |= parts if not cells.isdisjoint(parts.union(lookup.own)) else set()
        return sorted(cells)

    def _show(self, writes: Sequence[Write], contested: Sequence[int], outcomes: dict[int, Outcome]) -> None:
        """Give the rows that are not as expected in full."""
        if contested:
            found = self._plan.find(self._connection, [writes[number].key for number in contested])
            outcomes |= {number: Contested(one[0].row) for number, one in zip(contested, found, strict=True)}

    def _judged(
        self, number: int, write: Write, found: Sequence[Found], cells: Sequence[int]
    ) -> Outcome | Pending | Operation:
        """What is to be done, as far as these cells tell, which are all that matter."""
        if len(found) > 1:
            reason = f"{len(found)} records of {self._plan.name} hold the key {show_key(write.key)}"
            return Rejected("ambiguous", reason)
        if not found:
            if write.row is None:
                return Unchanged()
            return Contested(None) if write.expect is not None else Pending(number, write.row, None, frozenset())
        record, row = found[0], write.row
        differing = self._differing(row, record.row, cells) if row is not None else frozenset()
        if row is not None and not any(self._counts(index, row) for index in differing):
            return Unchanged()
        if not self._expected(write.expect, record.row, cells):
            return Contested(record.row)
        if row is None:
            return Operation(number, DELETE, record.identity, {})
        return Pending(number, row, record, differing)

    def _differing(self, row: Row, current: Row, cells: Sequence[int]) -> frozenset[int]:
        """Those that say something else; null and empty are one in keys and where the column says so."""
        return frozenset(
            [
                i
                for i in cells
                if (a := row[i]) != (b := current[i]) and a is not ABSENT and (a or b or not self._empty_is_null(i))
            ]
        )

    def _counts(self, index: int, row: Row) -> bool:
        """Is a differing cell one that we write?"""
        lookup = self._owners.get(index)
        return index in self._flats if lookup is None else all(row[own] is not ABSENT for own in lookup.own)

    def _empty_is_null(self, index: int) -> bool:
        return index in self._plan.view.key or self._plan.columns[index].empty_is_null

    def _expected(self, expect: Row | None, current: Row, cells: Sequence[int]) -> bool:
        if expect is None:
            return False
        for index in cells:
            wanted, cell = expect[index], current[index]
            if wanted is ABSENT or wanted == cell or cell is ABSENT:
                continue
            if not self._alike(index, wanted, cell):
                return False
        return True

    def _alike(self, index: int, wanted: Value, cell: Value) -> bool:
        column = self._plan.columns[index]
        both = (wanted is None) == (cell is None) or self._empty_is_null(index)
        return both and folded(column, wanted) == folded(column, cell)

    def _confirm(self, unchanged: Sequence[tuple[Row, Found]]) -> None:
        """Rows that hold what we wanted already are ours all the same."""
        if unchanged:
            intents = Intents(self._plan.name)
            for row, found in unchanged:
                intents.confirmed[found.identity] = self._confirmed(row, {})
            self._effects.settle(intents)
            self._effects.wrote(self._plan.name, list(intents.confirmed))

    def _confirmed(self, row: Row, values: Values) -> tuple[str, ...]:
        """The columns that the row speaks of and that hold what it says already."""
        if not self._effects.is_watching:
            return ()
        named = [flat.column.name for flat in self._flats.values() if row[flat.index] is not ABSENT]
        for lookup, reference in self._held.items():
            if all(row[index] is not ABSENT for index in lookup.own):
                named += reference.columns
        return tuple(name for name in named if name not in values)

    # -- keys -----------------------------------------------------------------------------------------------------

    def _free(
        self,
        writes: Sequence[Write],
        pending: Sequence[Pending],
        leaving: set[Identity],
        outcomes: dict[int, Outcome],
    ) -> list[Pending]:
        """Those whose new key nobody else holds or takes; the others are refused."""
        moving: dict[int, Key] = {}
        for one in pending:
            if one.found is not None and one.differing.isdisjoint(self._plan.view.key):
                continue
            key = self._new_key(one, writes[one.number].key)
            if one.found is None or self._renames(key, writes[one.number].key):
                moving[one.number] = key
                leaving |= {one.found.identity} if one.found else set()
        asked = [number for number, key in moving.items() if self._renames(key, writes[number].key)]
        found = self._plan.find(self._connection, [moving[number] for number in asked], frozenset()) if asked else []
        holders = dict(zip(asked, found, strict=True))
        taken: set[Key] = set()
        for number, key in moving.items():
            folded_key = self._fold(key)
            if folded_key in taken or any(other.identity not in leaving for other in holders.get(number, ())):
                outcomes[number] = Rejected("unique", f"another {self._plan.name} holds the key {show_key(key)}")
            taken.add(folded_key)
        return [one for one in pending if one.number not in outcomes]

    def _new_key(self, pending: Pending, old: Key) -> Key:
        cells = [pending.row[index] for index in self._plan.view.key]
        return tuple(member if cell is ABSENT else cell for cell, member in zip(cells, old, strict=True))

    def _renames(self, key: Key, old: Key) -> bool:
        return key != old and self._fold(key) != self._fold(old)

    # -- values ---------------------------------------------------------------------------------------------------

    def _operations(self, pending: Sequence[Pending], outcomes: dict[int, Outcome]) -> list[Operation]:
        resolved = {lookup: self._resolve(lookup, pending) for lookup in self._active}
        operations = []
        for one in pending:
            values = self._held_values(one, resolved)
            if isinstance(values, dict):
                values = self._flat_values(one, values)
            if not isinstance(values, dict):
                outcomes[one.number] = values
            elif one.found is None:
                operations.append(Operation(one.number, INSERT, (), values))
            else:
                confirmed = self._confirmed(one.row, values)
                operations.append(Operation(one.number, UPDATE, one.found.identity, values, confirmed))
        return operations

    def _resolve(self, lookup: Lookup, pending: Sequence[Pending]) -> dict[Key, Resolved[Identity]]:
        """What the keys that the rows name lead to."""
        asked = []
        parts = frozenset(index for _, index in lookup.parts)
        for one in pending:
            if one.found is not None and one.differing.isdisjoint(parts):
                continue
            key = self._named(lookup, one)
            if key is not None:
                leads = any(one.row[index] for index in lookup.own)
                one.lookups.append((lookup, key if leads else None))
                if leads:
                    asked.append(key)
        return self._lookups.resolve(self._plan.table, lookup, asked)

    @staticmethod
    def _named(lookup: Lookup, pending: Pending) -> Key | None:
        """The key that a lookup names, None where it is to be left alone."""
        cells: list[Value] = []
        for _, index in lookup.parts:
            cell = pending.row[index]
            if cell is ABSENT:
                if index in lookup.own:
                    return None
                cell = pending.found.row[index] if pending.found else None
            cells.append(None if cell is ABSENT else cell)
        return tuple(cells)

    def _held_values(
        self, pending: Pending, resolved: dict[Lookup, dict[Key, Resolved[Identity]]]
    ) -> Values | MissingParent | Rejected:
        """The columns of the lookups."""
        values: Values = {}
        for lookup, key in pending.lookups:
            if key is None:
                values |= self._nothing[lookup]
                continue
            held = resolved[lookup][key]
            if not isinstance(held, tuple):
                return held
            values.update(zip(self._held[lookup].columns, held, strict=True))
        return values

    def _flat_values(self, pending: Pending, values: Values) -> Values | Rejected:
        """The columns that hold cells as they are, added to those of the lookups."""
        row = pending.row
        if pending.found is not None:
            flats = [flat for index in sorted(pending.differing) if (flat := self._flats.get(index)) is not None]
        elif ABSENT in row:
            flats = [flat for flat in self._flats.values() if row[flat.index] is not ABSENT]
        else:
            values.update(zip(self._plain_names, self._plain_cells(row), strict=False))
            flats = self._coded
        for flat in flats:
            cell, column, encode = row[flat.index], flat.column, flat.encode
            if column.read_only:
                return Rejected("readonly", f"{self._plan.name}.{column.name} is generated and cannot be written")
            try:
                if cell is None or cell is ABSENT:
                    values[column.name] = flat.null
                else:
                    values[column.name] = cell if encode is None else encode(cell)
            except CastError as error:
                return Rejected("value", f"{self._plan.name}.{column.name}: {error}")
        return values


def _nothing(plan: ViewPlan, lookup: Lookup) -> Values:
    """A lookup's columns when it leads nowhere; those that belong to others are left alone."""
    held = reference_of(plan.table, lookup.reference, (lookup.reference,)).columns
    mine = set(held) - shared_columns(plan.table, plan.view, lookup)
    return {column.name: "" if column.empty_is_null else None for column in plan.table.columns if column.name in mine}
