"""How one ``write`` of a link reaches the tables.

Who is meant is settled first, then the rows are written one by one, and what clashes with a unique value at the end
is taken back, as a set-based statement does: values may be swapped, and a bad row hinders no other.  One call should
hold one write per key.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from dualwrite.connectors._memory.database import Refused, Session
from dualwrite.connectors._memory.tables import Lens, Record, Spot, column_at, fold
from dualwrite.model import (
    ABSENT,
    Applied,
    Cell,
    Contested,
    MissingParent,
    Outcome,
    Path,
    Rejected,
    Row,
    Unchanged,
    Value,
    Write,
    show_key,
)
from dualwrite.schema import Lookup, View


class Writing:
    """One ``write``: who is meant is settled first, then the rows are written, and what clashes then is taken back."""

    def __init__(self, session: Session, lens: Lens, view: View, writes: Sequence[Write]) -> None:
        self._session = session
        self._lens = lens
        self._view = view
        self._writes = writes
        self._columns = [column_at(lens.schema, view, path) for path in view.paths]
        self._plain = [index for index in view.written if len(view.paths[index]) == 1]
        self._lookups = [lookup for lookup in view.lookups if set(lookup.own) <= set(view.written)]
        self._found = [lens.find_key(session.world.tables, view, write.key) for write in writes]
        self._changed: dict[int, tuple[Spot, Record | None]] = {}

    def outcomes(self) -> list[Outcome]:
        """Write; again without those whose values clash, until none does."""
        refused: dict[int, Outcome] = {}
        while True:
            savepoint = self._session.savepoint()
            self._changed.clear()
            outcomes = [refused.get(number) or self._write(number) for number in range(len(self._writes))]
            clashing = self._clashing()
            if not clashing:
                return outcomes
            self._session.rollback(savepoint)
            refused |= clashing

    def _write(self, number: int) -> Outcome:
        write, found = self._writes[number], self._found[number]
        if len(found) > 1:
            reason = f"{len(found)} records of {self._view.table} hold the key {show_key(write.key)}"
            return Rejected("ambiguous", reason)
        spot = (self._view.table, found[0]) if found else None
        record = self._session.world.get(spot) if spot else None
        try:
            with self._session.statement():
                if spot is None or record is None:
                    return self._insert(number, write)
                current = self._lens.row(self._view, record, self._session.world.tables)
                if write.row is None:
                    return self._delete(spot, write, current)
                return self._update(number, write, write.row, spot, record, current)
        except Refused as refusal:
            return Rejected(refusal.code, refusal.reason)

    def _insert(self, number: int, write: Write) -> Outcome:
        if write.row is None:
            return Unchanged()
        if write.expect is not None:
            return Contested(None)
        values = self._values(write.row, None)
        if not isinstance(values, dict):
            return values
        self._changed[number] = self._session.insert(self._view.table, values, own=True), None
        return Applied()

    def _delete(self, spot: Spot, write: Write, current: Row) -> Outcome:
        if not self._expected(write.expect, current):
            return Contested(current)
        self._session.change(spot, None, {})
        return Applied()

    def _update(self, number: int, write: Write, row: Row, spot: Spot, record: Record, current: Row) -> Outcome:
        wanted = [*self._plain, *(index for lookup in self._active(row) for index in lookup.own)]
        if all(self._same(index, row[index], current[index]) for index in wanted):
            self._session.mirror(spot, record, record, {name: record[name] for name in self._touched(row)})
            return Unchanged()
        if not self._expected(write.expect, current):
            return Contested(current)
        values = self._values(row, current)
        if not isinstance(values, dict):
            return values
        values = {**{name: record[name] for name in self._touched(row)}, **values}
        self._changed[number] = spot, record
        self._session.change(spot, {**record, **values}, values)
        return Applied()

    def _values(self, row: Row, current: Row | None) -> dict[str, Value] | MissingParent | Rejected:
        """The columns to set, only those that differ from the current row, lookups as what they refer to."""
        values: dict[str, Value] = {}
        for lookup in self._active(row):
            cells = {path: self._part(index, row, current) for path, index in lookup.parts}
            if current and all(self._same(i, cells[path], current[i]) for path, i in lookup.parts):
                continue
            held = self._resolve(lookup, cells, all(row[index] in (None, "") for index in lookup.own))
            if not isinstance(held, dict):
                return held
            values.update(held)
        for index in self._plain:
            cell, column = row[index], self._columns[index]
            if cell is ABSENT or (current and self._same(index, cell, current[index])):
                continue
            if column.read_only:
                return Rejected("readonly", f"{self._view.table}.{column.name} cannot be written")
            values[column.name] = "" if cell is None and column.empty_is_null else cell
        return values

    def _resolve(
        self, lookup: Lookup, cells: dict[Path, Value], empty: bool
    ) -> dict[str, Value] | MissingParent | Rejected:
        table = self._view.table
        reference = self._lens.references[table, lookup.reference]
        if empty:
            shared = {path[0] for path in self._view.paths if len(path) == 1}
            return {
                name: "" if self._lens.columns[table, name].empty_is_null else None
                for name in reference.columns
                if name not in shared
            }
        tables = self._session.world.tables
        found = self._lens.find(tables, reference.table, cells)
        if not found:
            return MissingParent(lookup.reference, reference.table, tuple(cells.values()))
        if len(found) > 1:
            key = show_key(tuple(cells.values()))
            return Rejected("ambiguous", f"{len(found)} records of {reference.table} hold the key {key}")
        parent = tables[reference.table].records[found[0]]
        return {name: parent[held] for name, held in zip(reference.columns, reference.to, strict=True)}

    def _part(self, index: int, row: Row, current: Row | None) -> Value:
        cell = row[index]
        if cell is ABSENT and current:
            cell = current[index]
        return None if cell is ABSENT else cell

    def _active(self, row: Row) -> list[Lookup]:
        """The lookups that the row does not leave alone."""
        return [lookup for lookup in self._lookups if all(row[index] is not ABSENT for index in lookup.own)]

    def _touched(self, row: Row) -> set[str]:
        """The columns that a row speaks of."""
        references = [self._lens.references[self._view.table, lookup.reference] for lookup in self._active(row)]
        plain = {self._columns[index].name for index in self._plain if row[index] is not ABSENT}
        return plain.union(*(reference.columns for reference in references))

    def _same(self, index: int, wanted: Cell, current: Cell) -> bool:
        """Is there nothing to write?  Null and empty are one in keys and where the column says so."""
        if wanted is ABSENT or wanted == current:
            return True
        return (wanted or "") == (current or "") and self._empty_is_null(index)

    def _expected(self, expect: Row | None, current: Row) -> bool:
        """Does the record hold what was expected, as far as that is known?"""
        return expect is not None and all(
            wanted is ABSENT or cell is ABSENT or self._equal(index, wanted, cell)
            for index, (wanted, cell) in enumerate(zip(expect, current, strict=True))
        )

    def _equal(self, index: int, wanted: Value, cell: Value) -> bool:
        column = self._columns[index]
        alike = (wanted is None) == (cell is None) or self._empty_is_null(index)
        return alike and fold(column, wanted) == fold(column, cell)

    def _empty_is_null(self, index: int) -> bool:
        return index in self._view.key or self._columns[index].empty_is_null

    def _clashing(self) -> dict[int, Outcome]:
        """The writes to take back: their values are held by a record that was not written, or written earlier."""
        refused: dict[int, Outcome] = {}
        table = self._lens.schema.tables[self._view.table]
        for columns in table.uniques if not table.primary_key else (table.primary_key, *table.uniques):
            reason = f"another {table.name} holds this {', '.join(columns)}"
            refused |= self._clashing_by(partial(self._session.clashes, columns), reason)
        return refused | self._clashing_by(self._key_clashes, f"another {table.name} holds this key")

    def _clashing_by(self, clashes: Callable[[Spot, Record | None], list[int]], reason: str) -> dict[int, Outcome]:
        found = {number: clashes(spot, old) for number, (spot, old) in self._changed.items()}
        contenders = {self._changed[number][0][1]: number for number, others in found.items() if others}
        return {
            number: Rejected("unique", reason)
            for number, others in found.items()
            if any(contenders.get(other, -1) < number for other in others)
        }

    def _key_clashes(self, spot: Spot, old: Record | None) -> list[int]:
        tables = self._session.world.tables
        record = self._session.world.get(spot)
        if record is None:
            return []
        key = self._view.natural_key(self._lens.row(self._view, record, tables))
        if old is not None and key == self._view.natural_key(self._lens.row(self._view, old, tables)):
            return []
        return [number for number in self._lens.find_key(tables, self._view, key) if number != spot[1]]
