"""Records, tables and their indexes; reading records in natural form.

A record is a dict of column → canonical text that nobody changes once it is stored; whoever changes a table works on
a copy of it, so that everybody else keeps a consistent state for nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from dualwrite.errors import Usage
from dualwrite.model import ABSENT, Cell, Key, Path, Row, Value, show_path
from dualwrite.schema import Column, Reference, Schema, View

Record: TypeAlias = Mapping[str, Value]
Tables: TypeAlias = Mapping[str, "Rows"]
Spot: TypeAlias = tuple[str, int]
"""A table and the surrogate number of one of its records."""


def fold(column: Column, value: Value) -> str:
    """What a value is compared by in keys, uniques and joins: null as empty, letter case as the column says."""
    if value is None:
        return ""
    if column.ignore_trailing_blanks:
        value = value.rstrip(" ")
    return value.casefold() if column.ignore_case else value


def column_at(schema: Schema, view: View, path: Path) -> Column:
    """The column at the end of one of the view's paths."""
    column = schema.resolve(view.table, path)
    if column is None:
        raise Usage(f"view {view.name}: {view.table} has no {show_path(path)}", "run `dualwrite check`")
    return column


class Rows:
    """One table's records by number, with indexes that are built when first asked for."""

    __slots__ = ("_columns", "_indexes", "records")

    def __init__(self, columns: Mapping[str, Column]) -> None:
        self.records: dict[int, Record] = {}
        self._columns = columns
        self._indexes: dict[tuple[str, ...], dict[tuple[str, ...], tuple[int, ...]]] = {}

    def copy(self) -> Rows:
        """The same records, to be changed apart."""
        other = Rows(self._columns)
        other.records = dict(self.records)
        other._indexes = {columns: dict(index) for columns, index in list(self._indexes.items())}
        return other

    def put(self, number: int, record: Record | None) -> None:
        """Store a record, or remove it."""
        old = self.records.pop(number, None)
        if record is not None:
            self.records[number] = record
        for columns, index in self._indexes.items():
            gone = self._entry(columns, old)
            come = self._entry(columns, record)
            if gone == come:
                continue
            if gone is not None:
                rest = tuple(other for other in index.pop(gone) if other != number)
                index.update({gone: rest} if rest else {})
            if come is not None:
                index[come] = (*index.get(come, ()), number)

    def find(self, columns: tuple[str, ...], values: Sequence[Value]) -> tuple[int, ...]:
        """The numbers of the records that hold these values."""
        index = self._indexes.get(columns)
        if index is None:
            index = {}
            for number, record in self.records.items():
                entry = tuple(fold(self._columns[name], record[name]) for name in columns)
                index[entry] = (*index.get(entry, ()), number)
            self._indexes[columns] = index
        return index.get(
            tuple(fold(self._columns[name], value) for name, value in zip(columns, values, strict=True)), ()
        )

    def _entry(self, columns: tuple[str, ...], record: Record | None) -> tuple[str, ...] | None:
        return None if record is None else tuple(fold(self._columns[name], record[name]) for name in columns)


class World:
    """All tables as one transaction sees them; what it does not change is shared with where it came from."""

    def __init__(self, tables: Tables) -> None:
        self.tables = dict(tables)
        self._private: set[str] = set()

    def fork(self) -> World:
        """A second world that starts out the same."""
        self._private.clear()
        return World(self.tables)

    def put(self, spot: Spot, record: Record | None) -> None:
        """Store a record, or remove it."""
        table, number = spot
        if table not in self._private:
            self.tables[table] = self.tables[table].copy()
            self._private.add(table)
        self.tables[table].put(number, record)

    def get(self, spot: Spot) -> Record | None:
        """The record, if it is there."""
        return self.tables[spot[0]].records.get(spot[1])


class Lens:
    """Reads records in natural form: follows references to the columns of the records that they point to."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.columns = {(t.name, c.name): c for t in schema.tables.values() for c in t.columns}
        self.references = {(t.name, r.name): r for t in schema.tables.values() for r in t.references}

    def pointer(self, table: str, record: Record, reference: Reference) -> tuple[Value, ...] | None:
        """What a reference's columns hold, None when they point nowhere."""
        for name in reference.columns:
            value = record[name]
            if value is None or (value == "" and self.columns[table, name].empty_is_null):
                return None
        return tuple(record[name] for name in reference.columns)

    def follow(self, table: str, record: Record, path: Path, *worlds: Tables) -> Cell:
        """The cell at the end of a path; a record that is in none of the worlds makes it ABSENT."""
        for step in path[:-1]:
            reference = self.references[table, step]
            values = self.pointer(table, record, reference)
            if values is None:
                return None
            table = reference.table
            for tables in worlds:
                found = tables[table].find(reference.to, values)
                if found:
                    record = tables[table].records[found[0]]
                    break
            else:
                return ABSENT
        return record[path[-1]]

    def row(self, view: View, record: Record, tables: Tables) -> Row:
        """A record as the view asks for it."""
        return tuple(self.follow(view.table, record, path, tables) for path in view.paths)

    def find_key(self, tables: Tables, view: View, key: Key) -> list[int]:
        """The records that hold a view's key."""
        wanted = {view.paths[index]: value for index, value in zip(view.key, key, strict=True)}
        return self.find(tables, view.table, wanted)

    def find(self, tables: Tables, table: str, wanted: Mapping[Path, Value]) -> list[int]:
        """The records whose cells at these paths hold these values; null equals empty."""
        rows = tables[table]
        far = {path: value for path, value in wanted.items() if len(path) > 1}
        near = tuple(path[0] for path in wanted if len(path) == 1)
        if near:
            numbers: Iterable[int] = rows.find(near, [wanted[name,] for name in near])
        else:
            numbers = self._candidates(tables, table, far)
        return [n for n in numbers if all(self._holds(tables, table, rows.records[n], *item) for item in far.items())]

    def _candidates(self, tables: Tables, table: str, wanted: Mapping[Path, Value]) -> Iterable[int]:
        step = next(iter(wanted))[0]
        parts = {path[1:]: value for path, value in wanted.items() if path[0] == step}
        if not any(parts.values()):
            return tables[table].records  # no reference at all, or to a record whose key is empty
        reference = self.references[table, step]
        parents = [tables[reference.table].records[n] for n in self.find(tables, reference.table, parts)]
        pointers = dict.fromkeys(tuple(parent[name] for name in reference.to) for parent in parents)
        return [n for pointer in pointers for n in tables[table].find(reference.columns, pointer)]

    def _holds(self, tables: Tables, table: str, record: Record, path: Path, value: Value) -> bool:
        cell = self.follow(table, record, path, tables)
        column = self.schema.resolve(table, path)
        return cell is not ABSENT and column is not None and fold(column, cell) == fold(column, value)
