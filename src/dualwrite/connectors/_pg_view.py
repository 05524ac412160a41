# ruff: noqa: S608  (names go through quote(), values are bound)
"""One view on a PostgreSQL database: its SELECT, its rows, and finding records by their natural keys.

The server spells every value; rows come out of the driver as they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cached_property
from typing import Any, Final, Literal, TypeAlias

from psycopg.pq import TransactionStatus

from dualwrite.canonical import CastError, canonical, check_range, identity, number
from dualwrite.connectors._pg_copy import copied_out
from dualwrite.connectors._pg_schema import Catalog, ColumnFacts, column_type
from dualwrite.connectors._pg_session import Connection, written_out
from dualwrite.connectors._pg_trip import sized, trip
from dualwrite.connectors._pg_values import array, is_storable
from dualwrite.connectors._sql import Held, Joins, column_of, end_of, place_of, quote, reference_of, table_of, tables_of
from dualwrite.expression import Expression, paths
from dualwrite.filters import POSTGRESQL, TEXTUAL, Test, compile_filter, render_sql
from dualwrite.lined import Lined, rows_of
from dualwrite.model import ABSENT, Key, Path, Row, Value
from dualwrite.schema import Column, ColumnType, Reference, TypeName, View

Match: TypeAlias = Literal["null", "value", "text"]
"""How a member of a key is looked for: as null or empty, as a value of its column's type, or as that value's text."""
Pattern: TypeAlias = tuple[Match, ...]

_CALENDAR: Final = re.compile(
    r"\d{4}-[^ ]*(?: [^ ]*)?|-?infinity", re.ASCII
)  # what dates surely hold, spelled as they do
_DATED: Final = frozenset({TypeName.DATE, TypeName.TIMESTAMP, TypeName.TIMESTAMPTZ})
_SURE: Final = frozenset({TypeName.BOOLEAN, TypeName.TIME, TypeName.UUID, TypeName.BYTES, TypeName.NUMERIC}) | _DATED


class ViewPlan:
    """A view compiled against the database as it is.

    Per path there are ``cells``, expressions of the columns' own types over the table as ``t`` and what it refers to,
    ``shown``, those whose text is canonical, and ``ends``, the facts of the columns; ``flags`` are as in ``Joins``.
    """

    def __init__(self, catalog: Catalog, view: View) -> None:
        self.view = view
        self.catalog = catalog
        self.table = table_of(catalog.schema, view.table)
        self.facts = catalog.facts[view.table]
        self.columns = [column_of(catalog.schema, view, path) for path in view.paths]
        self._joins = joins = Joins(catalog.schema, view.table, self._single, self._relation, self._equal)
        cells = [joins.cell(path) for path in view.paths]
        self.flags = joins.flags
        self.cells = [sql for sql, _ in cells]
        self.ends = [
            catalog.facts[end_of(catalog.schema, view.table, path).name].columns[path[-1]] for path in view.paths
        ]
        self.shown = [end.shown(cell) for end, cell in zip(self.ends, self.cells, strict=True)]
        self.flag_of = [flag for _, flag in cells]
        self._chosen = ", ".join([*self.shown, *self.flags])
        self._condition, self._bound, self._test = self._filter(view.filter)
        self._members = [matcher(self.ends[index]) for index in view.key]
        self.tables = tables_of(catalog.schema, view)
        self._finders: dict[Pattern, str] = {}

    # -- joins ----------------------------------------------------------------------------------------------------

    @cached_property
    def _to_key(self) -> list[Path]:
        return self._joins.followed(self.view.paths[place] for place in self.view.key)

    @property
    def finding(self) -> str:
        """The FROM clause in which records are found by their keys.

        Nothing else is joined there: with more than eight tables, the planner would join some of them in the whole
        table before it looks for the few records that are wanted.
        """
        return self._joins.joined(f"{self.facts.sql} AS t", self._to_key)

    def is_found(self, places: Collection[int]) -> bool:
        """Is all there that these cells are made of, where records are found?"""
        return set(self._joins.followed(self.view.paths[place] for place in places)) <= set(self._to_key)

    def held(self, places: Collection[int]) -> list[str]:
        """The columns of the table that these cells are made of."""
        found: dict[str, None] = {}
        for step in (self.view.paths[place] for place in places):
            columns = step if len(step) == 1 else reference_of(self.table, step[0], step).columns
            found |= dict.fromkeys(columns)
        return list(found)

    def around(self, records: str, places: Collection[int]) -> str:
        """The FROM clause for these cells of records that were found: ``records`` has the table's columns for them."""
        return self._joins.joined(f"{records} AS t", self._joins.followed(self.view.paths[place] for place in places))

    def _relation(self, table: str) -> str:
        return self.catalog.facts[table].sql

    def _equal(self, one: Held, other: Held) -> str:
        """Columns of one type by their own equality; a declared reference may pair different ones."""
        mine, theirs = (self.catalog.facts[held.table].columns[held.column] for held in (one, other))
        same = mine.equality == theirs.equality and (mine.plain == theirs.plain or _is_integer(mine, theirs))
        return mine.equal(one.sql, other.sql) if same else f"{mine.text(one.sql)} = {theirs.text(other.sql)}"

    def _single(self, reference: Reference) -> str:
        """One record per value of what a reference leads to, where that is not unique: the first by its key."""
        facts = self.catalog.facts[reference.table]
        to = ", ".join(map(quote, reference.to))
        order = ", ".join(map(quote, facts.key)) or "tableoid, ctid"
        return f"(SELECT DISTINCT ON ({to}) * FROM {facts.sql} ORDER BY {to}, {order})"

    # -- the filter -----------------------------------------------------------------------------------------------

    def _filter(self, condition: Expression | None) -> tuple[str, list[object], Test | None]:
        """The filter as SQL and what its placeholders are for; as a function where SQL would say anything else."""
        if condition is None:
            return "TRUE", [], None
        places = [place_of(self.view, path) for path in paths(condition)]
        if all(_same_in_sql(self.columns[place], self.ends[place]) for place in places):
            sql, bound = render_sql(condition, lambda path: self._cell_of(place_of(self.view, path)), POSTGRESQL)
            return sql, bound, None
        return "TRUE", [], compile_filter(condition, lambda path: self._column_of(place_of(self.view, path)))

    def _cell_of(self, place: int) -> tuple[str, Column]:
        cell, end, column = self.cells[place], self.ends[place], self.columns[place]
        return end.text(cell) if column.type.name is TypeName.OTHER else cell, column

    def _column_of(self, place: int) -> tuple[int, Column]:
        return place, self.columns[place]

    # -- reading --------------------------------------------------------------------------------------------------

    def blocks(self, connection: Connection, size: int) -> Iterator[Sequence[Row]]:
        """All rows that pass the view's filter, in blocks; the server reads ahead while a block is worked on."""
        query = f"SELECT {self._chosen} FROM {self._joins.source} WHERE {written_out(self._condition, self._bound)}"
        width = len(self.cells) + len(self.flags)
        for lines in copied_out(connection, query, size):
            if not self.flags and self._test is None:
                yield Lined(lines, width)
                continue
            rows = self.rows(rows_of(lines, width))
            yield rows if self._test is None else list(filter(self._test, rows))

    def rows(self, block: Sequence[tuple[Any, ...]]) -> list[Row]:
        """Rows in natural form, of raw ones with the cells and the flags behind them."""
        if not self.flags:
            return block if isinstance(block, list) else list(block)
        width = len(self.cells)
        return [raw[:width] if "t" not in raw[width:] else self._with_absent(raw) for raw in block]

    def _with_absent(self, raw: tuple[Any, ...]) -> Row:
        cells, flags = raw[: len(self.cells)], raw[len(self.cells) :]
        return tuple(
            ABSENT if flag is not None and flags[flag] == "t" else cell
            for cell, flag in zip(cells, self.flag_of, strict=True)
        )

    def fetch(self, connection: Connection, keys: Sequence[Key]) -> dict[Key, list[Row]]:
        """As ``Connector.fetch``."""
        found: dict[Key, list[Row]] = {}
        asked = list(dict.fromkeys(keys))
        patterns: dict[Pattern, list[tuple[int, tuple[Value, ...]]]] = {}
        for place, key in enumerate(asked):
            members = [match(member) for match, member in zip(self._members, key, strict=True)]
            sure = [member for member in members if member is not None]
            if len(sure) == len(members):
                pattern, values = zip(*sure, strict=True)
                if is_storable(values):
                    patterns.setdefault(pattern, []).append((place, values))
        for pattern, wanted in patterns.items():
            raw = self._matching(connection, pattern, wanted)
            for (place, *_), row in zip(raw, self.rows([each[1:] for each in raw]), strict=True):
                found.setdefault(asked[int(place)], []).append(row)
        return found

    def _matching(
        self, connection: Connection, pattern: Pattern, wanted: Sequence[tuple[int, tuple[Value, ...]]]
    ) -> list[tuple[Any, ...]]:
        """The raw records of keys of one pattern, each behind the key's number."""
        if pattern not in self._finders:
            self._finders[pattern] = self._finder(pattern)
        bound = [array([str(place) for place, _ in wanted])]
        for number_, match in enumerate(pattern):
            if match != "null":
                bound.append(array([values[number_] for _, values in wanted]))
        is_alone = connection.info.transaction_status is TransactionStatus.IDLE
        return trip(connection, sized(self._finders[pattern], bound, len(wanted), alone=is_alone))[-1]

    def _finder(self, pattern: Pattern) -> str:
        """The query for the records of keys, of which the numbers and the members that are not null come as arrays."""
        tests, names = [], []
        for number_, match in enumerate(pattern):
            place = self.view.key[number_]
            cell, end = self.cells[place], self.ends[place]
            if match == "null":
                tests.append(_is_empty(cell, end))
                continue
            names.append(f"k{number_}")
            value = f"k.k{number_}"
            tests.append(
                end.equal(cell, f"{value}::{end.plain}") if match == "value" else f"{end.text(cell)} = {value}"
            )
        # a dangling lookup is not known: it matches nothing
        dangling = {flag for index in self.view.key if (flag := self.flag_of[index]) is not None}
        tests += [f"NOT {self.flags[flag]}" for flag in dangling]
        arrays = ", ".join(["$1::int[]", *(f"${place}::text[]" for place in range(2, len(names) + 2))])
        found = f"FROM unnest({arrays}) AS k ({', '.join(['i', *names])}), {self.finding} WHERE {' AND '.join(tests)}"
        cells = range(len(self.cells))
        if self.is_found(cells):
            return f"SELECT k.i, {self._chosen} {found}"
        which, columns = ours("i"), "".join(f", t.{quote(name)}" for name in self.held(cells))
        return (
            f"WITH t AS MATERIALIZED (SELECT k.i AS {which}{columns} {found}) "
            f"SELECT t.{which}, {self._chosen} FROM {self.around('t', cells)}"
        )


def ours(name: str) -> str:
    """A column of ours among those of a record, whose names may be anything else."""
    return f'"dualwrite.{name}"'


def _same_in_sql(column: Column, facts: ColumnFacts) -> bool:
    """Does SQL compare values of the column as Python does?  What is declared may differ from what is stored."""
    stored, said = column_type(facts.base, -1).name, column.type.name
    alike = said is stored or (said in TEXTUAL and (stored in TEXTUAL or stored is TypeName.INTEGER))
    if said is TypeName.CHOICE and stored is not TypeName.INTEGER:
        return False  # it may be held against a number
    return alike and not column.ignore_case


def _is_integer(*columns: ColumnFacts) -> bool:
    return all(column.base in ("int2", "int4", "int8") for column in columns)


def _is_empty(cell: str, facts: ColumnFacts) -> str:
    textual = column_type(facts.base, -1).name is TypeName.TEXT
    return f"({cell} IS NULL OR {cell}::text = '')" if textual else f"{cell} IS NULL"


# -- keys ------------------------------------------------------------------------------------------------------------


def matcher(facts: ColumnFacts) -> Callable[[Value], tuple[Match, Value] | None]:
    """How a member of a key is looked for in a column, and by what; None when no record can hold it.

    A member that comes out as a value can be cast to the column's plain type without an error.
    """
    spell = _speller(facts)

    def look(member: Value) -> tuple[Match, Value] | None:
        if not member:
            return "null", None
        try:
            return spell(member)
        except CastError:
            return None

    return look


def _speller(facts: ColumnFacts) -> Callable[[str], tuple[Match, Value] | None]:
    kind = column_type(facts.base, -1)
    if kind.name is TypeName.TEXT:
        return lambda text: None if "\0" in text else ("value", text)
    if kind.name is TypeName.INTEGER:
        return lambda text: ("value", _integer(kind, text))
    if facts.labels:
        return lambda text: ("value", text) if text in facts.labels else None
    if kind.name not in _SURE:
        spell: Callable[[str], str] = canonical(kind) if kind.name is TypeName.FLOAT else identity
        return lambda text: None if "\0" in text else ("text", spell(text))
    sure = canonical(kind)
    if kind.name not in _DATED:
        return lambda text: ("value", sure(text))

    def moment(text: str) -> tuple[Match, Value]:
        spelled = sure(text)
        return ("value" if _CALENDAR.fullmatch(spelled) else "text"), spelled

    return moment


def _integer(kind: ColumnType, text: str) -> str:
    spelled = canonical(kind)(text)
    check_range(number(spelled), kind)
    return spelled


class Plans:
    """The compiled views of a connector; those of an older schema are forgotten."""

    def __init__(self) -> None:
        self._plans: dict[View, ViewPlan] = {}

    def get(self, catalog: Catalog, view: View) -> ViewPlan:
        """The plan of a view."""
        plan = self._plans.get(view)
        if plan is None or plan.catalog is not catalog:
            plan = self._plans[view] = ViewPlan(catalog, view)
        return plan
