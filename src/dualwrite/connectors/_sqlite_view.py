# ruff: noqa: S608  (names go through quote(), values are bound)
"""One view on an SQLite database: its SELECT, its rows, and finding records by their natural keys."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from dualwrite.canonical import CastError
from dualwrite.connectors._sql import Joins, column_of, end_of, place_of, quote, table_of, tables_of
from dualwrite.connectors._sqlite_schema import Catalog
from dualwrite.connectors._sqlite_session import read_all, some, tolerate
from dualwrite.connectors._sqlite_values import Encode, Source, Storage, encoder, row_maker
from dualwrite.filters import SQLITE, render_sql
from dualwrite.model import Key, Path, Row
from dualwrite.schema import Column, Reference, View

_SAMPLE_ROWS = 1000
Maker: TypeAlias = Callable[[Sequence[tuple[Any, ...]]], list[Row]]


def fill_keys(
    connection: sqlite3.Connection, what: str, rows: Sequence[tuple[Any, ...]], affinities: Sequence[str]
) -> str:
    """A temporary table of numbered keys (``i``, ``k0``…) holding these rows; returns its name.

    Its columns have the affinities of those that they are compared with, so that SQLite can look them up either way.
    """
    name = f"temp.dualwrite_{what}_{'_'.join(affinities).lower()}"
    columns = [f"k{i}" for i in range(len(affinities))]
    declared = ", ".join(f"{column} {affinity}" for column, affinity in zip(columns, affinities, strict=True))
    connection.execute(f"CREATE TABLE IF NOT EXISTS {name} (i INTEGER PRIMARY KEY, {declared})")
    connection.execute(f"DELETE FROM {name}")
    places = ", ".join("?" * (len(columns) + 1))
    connection.executemany(f"INSERT INTO {name} (i, {', '.join(columns)}) VALUES ({places})", rows)
    return name


@dataclass(frozen=True, slots=True)
class Found:
    """A record: what tells it apart, its row, and the extra columns that were asked for, as stored."""

    identity: tuple[Storage, ...]
    row: Row
    extra: tuple[Storage, ...]


@dataclass(frozen=True, slots=True)
class Selection:
    """What a query reads of records (behind their number), and the function from its raw rows to rows."""

    chosen: str
    make: Maker


class ViewPlan:
    """A view compiled against the database as it is; ``extra`` are columns to read besides, as stored."""

    def __init__(self, connection: sqlite3.Connection, catalog: Catalog, view: View, extra: Sequence[str] = ()) -> None:
        self.view = view
        self.catalog = catalog
        self.table = table_of(catalog.schema, view.table)
        self.facts = catalog.facts[view.table]
        self.columns = [column_of(catalog.schema, view, path) for path in view.paths]
        self._joins = Joins(catalog.schema, view.table, self._single)
        cells = [self._joins.cell(path) for path in view.paths]
        self._cells = [sql for sql, _ in cells]
        self._extra = len(extra)
        self._flags = [flag for _, flag in cells]
        self._head = [f"t.{quote(name)}" for name in (*self.facts.identity, *extra)]
        self._selections: dict[frozenset[int], Selection] = {}
        every = range(len(cells))
        self._make_rows = self._maker(every, 0)
        self._every = frozenset(every)
        ends = [(end_of(catalog.schema, view.table, path).name, path[-1]) for path in view.paths]
        self.encoders = [column_encoder(connection, catalog, *end) for end in ends]
        self._affinities = [catalog.facts[table].affinities[name] for table, name in ends]
        self.tables = tables_of(catalog.schema, view)

    @property
    def name(self) -> str:
        """The table's name."""
        return self.table.name

    def _single(self, reference: Reference) -> str:
        """One record per value of what a reference leads to, where that is not unique: the oldest."""
        target = self.catalog.facts[reference.table]
        first = f", min({quote(target.rowid)})" if target.rowid else ""
        return f"(SELECT *{first} FROM {quote(reference.table)} GROUP BY {', '.join(map(quote, reference.to))})"

    def _maker(self, cells: Sequence[int], offset: int) -> Maker:
        """The function from raw rows that hold these cells and all flags behind an offset; other cells are ABSENT."""
        flags = offset + len(cells)
        sources: list[Source | None] = [None] * len(self.columns)
        for place, cell in enumerate(cells, offset):
            flag = self._flags[cell]
            sources[cell] = Source(place, self.columns[cell], None if flag is None else flags + flag)
        return row_maker(tuple(sources), flags + len(self._joins.flags))

    def _select_cells(self, cells: frozenset[int]) -> Selection:
        """What to read of records of which only these cells matter."""
        found = self._selections.get(cells)
        if found is None:
            some = sorted(cells)
            chosen = ["k.i", *self._head, *(self._cells[cell] for cell in some), *self._joins.flags]
            found = self._selections[cells] = Selection(", ".join(chosen), self._maker(some, 1 + len(self._head)))
        return found

    # -- reading --------------------------------------------------------------------------------------------------

    def blocks(self, connection: sqlite3.Connection, size: int) -> Iterator[list[Row]]:
        """All rows that pass the view's filter, in blocks of ``size`` rows, or fewer large ones."""
        done = 0
        cursor = self._select(connection)
        while True:
            try:
                block = some(cursor, size)
            except sqlite3.OperationalError as exc:
                if not tolerate(connection, exc):
                    raise
                cursor = self._select(connection, done)
                continue
            if not block:
                return
            done += len(block)
            yield self.rows(block)

    def _select(self, connection: sqlite3.Connection, skip: int = 0) -> sqlite3.Cursor:
        where, bound = "1", list[object]()
        if self.view.filter is not None:
            where, bound = render_sql(self.view.filter, self._cell_of, SQLITE)
        chosen = ", ".join([*self._cells, *self._joins.flags])
        sql = f"SELECT {chosen} FROM {self._joins.source} WHERE {where} LIMIT -1 OFFSET ?"
        return connection.execute(sql, (*bound, skip))

    def _cell_of(self, path: Path) -> tuple[str, Column]:
        place = place_of(self.view, path)
        return self._cells[place], self.columns[place]

    def rows(self, block: Sequence[tuple[Any, ...]]) -> list[Row]:
        """Rows in natural form."""
        return self._make_rows(block)

    def find(
        self, connection: sqlite3.Connection, keys: Sequence[Key], cells: frozenset[int] | None = None
    ) -> list[list[Found]]:
        """The records of each key; null members match null and empty.

        Of their rows only these ``cells`` are read (None: all); the others are ABSENT.
        """
        selection = self._select_cells(self._every if cells is None else cells)
        found: list[list[Found]] = [[] for _ in keys]
        patterns: dict[tuple[bool, ...], list[tuple[Any, ...]]] = {}
        for number, key in enumerate(keys):
            bound = self._bound(key)
            if bound is not None:
                patterns.setdefault(tuple(member is None for member in bound), []).append((number, *bound))
        for pattern, rows in patterns.items():
            raw = self._matching(connection, pattern, rows, selection.chosen)
            width = len(self.facts.identity)
            for values, row in zip(raw, selection.make(raw), strict=True):
                place = 1 + width
                found[values[0]].append(Found(values[1:place], row, values[place : place + self._extra]))
        return found

    def _bound(self, key: Key) -> tuple[Storage, ...] | None:
        """The key as stored, empty members as null; None when no record can hold it."""
        try:
            return tuple(
                self.encoders[index](member) if member else None
                for index, member in zip(self.view.key, key, strict=True)
            )
        except CastError:
            return None

    def _matching(
        self, connection: sqlite3.Connection, pattern: Sequence[bool], rows: Sequence[tuple[Any, ...]], chosen: str
    ) -> list[tuple[Any, ...]]:
        temporary = fill_keys(connection, "keys", rows, [self._affinities[index] for index in self.view.key])
        tests = []
        for number, (index, is_null) in enumerate(zip(self.view.key, pattern, strict=True)):
            cell = self._cells[index]
            tests.append(f"({cell} IS NULL OR {cell} = '')" if is_null else f"{cell} = k.k{number}")
        # a dangling lookup is not known: it matches nothing
        dangling = {self._joins.cell(self.view.paths[index])[1] for index in self.view.key} - {None}
        tests += [f"NOT {self._joins.flags[flag]}" for flag in dangling if flag is not None]
        sql = f"SELECT {chosen} FROM {temporary} AS k, {self._joins.source} WHERE {' AND '.join(tests)}"
        return read_all(connection, sql)

    def fetch(self, connection: sqlite3.Connection, keys: Sequence[Key]) -> dict[Key, list[Row]]:
        """As ``Connector.fetch``."""
        keys = list(dict.fromkeys(keys))
        found = zip(keys, self.find(connection, keys), strict=True)
        return {key: [record.row for record in records] for key, records in found if records}


def column_encoder(connection: sqlite3.Connection, catalog: Catalog, table: str, name: str) -> Encode:
    """How values of a column are stored, in the manner of a value that it holds already."""
    column = catalog.schema.tables[table].column(name)
    assert column is not None
    first = f"SELECT {quote(name)} AS v FROM {quote(table)} LIMIT {_SAMPLE_ROWS}"
    found = read_all(connection, f"SELECT v FROM ({first}) WHERE v IS NOT NULL LIMIT 1")
    return encoder(column, catalog.facts[table].affinities[name], found[0][0] if found else None)


class Plans:
    """The compiled views of a connector; those of an older schema are forgotten."""

    def __init__(self) -> None:
        self._plans: dict[tuple[View, tuple[str, ...]], ViewPlan] = {}

    def get(
        self, connection: sqlite3.Connection, catalog: Catalog, view: View, extra: tuple[str, ...] = ()
    ) -> ViewPlan:
        """The plan of a view."""
        plan = self._plans.get((view, extra))
        if plan is None or plan.catalog is not catalog:
            plan = self._plans[view, extra] = ViewPlan(connection, catalog, view, extra)
        return plan
