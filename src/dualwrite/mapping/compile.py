"""From a table map and two schemas to functions over tuples.

``compile_map`` binds a map; what it returns is everything the engine needs to know of it.  ``order_maps`` and
``cyclic`` look at several maps together.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from operator import itemgetter
from typing import TypeVar

from dualwrite.casts import CastError, identity
from dualwrite.errors import Invalid, RowProblem
from dualwrite.expression import Column, Expression, Literal, OneOf, and_
from dualwrite.filters import compile_filter
from dualwrite.lined import Later, Lined
from dualwrite.mapping.binding import SIDES, Binding, BoundLookup, Pair
from dualwrite.mapping.cells import carrier, comparer
from dualwrite.mapping.check import examine
from dualwrite.mapping.order import cyclic, order_maps
from dualwrite.mapping.passing import Passing, passing_pairs
from dualwrite.mapping.rows import (
    Alike,
    Common,
    Line,
    Made,
    alike_function,
    cell_function,
    find_problem,
    key_function,
    problem,
    row_function,
    settled_key,
    target_key_function,
)
from dualwrite.mapping.tablemap import TableMap
from dualwrite.mapping.units import Parent, Unit, find_parents, find_units, group_pairs
from dualwrite.mapping.values import as_written
from dualwrite.model import ABSENT, Cell, Key, Path, Row, Side, Value, show_path
from dualwrite.schema import Alternatives, Lookup, Schema, TypeName, View
from dualwrite.schema import Column as SchemaColumn

__all__ = ["CompiledMap", "Misfit", "Parent", "Unit", "compile_map", "cyclic", "order_maps"]


Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class _Functions:
    """What is generated for the rows of one side."""

    row: Made
    key: Made
    target_key: Callable[[Row], Row]
    passes: Callable[[Row], bool]
    common: tuple[Common, ...]


@dataclass(frozen=True, slots=True)
class _Way:
    """One direction in which a line is carried: from which cells (none: a constant) to which, and how both compare."""

    source: Side
    inputs: tuple[int, ...]
    target: int
    carried: Callable[..., Cell]
    common: Common


@dataclass(frozen=True, slots=True)
class _Compared:
    """One line as ``agree`` looks at it.  ``helps``: it only helps to find a record that others carry both ways."""

    line: Line
    ways: tuple[_Way, ...]
    helps: bool


@dataclass(frozen=True, slots=True)
class Misfit:
    """Values of one column that cannot be carried: why, and in which rows (their places among those given).

    ``cell`` is where the value stands in a row; None for what is computed or constant.
    """

    code: str
    column: str
    cell: int | None
    rows: Sequence[int]


@dataclass(frozen=True, slots=True)
class Feed:
    """A unit of a target, by its ``indexes`` there, and the ``cells`` of the source's rows that it is made of.

    A cell may feed several units.  ``owned``: only the source's value counts there.
    """

    cells: tuple[int, ...]
    indexes: tuple[int, ...]
    owned: bool


@dataclass(frozen=True)
class CompiledMap:
    """A table map bound to two schemas; everything the engine needs, as pure functions and data.

    ``views``: the view of each side, named after the map; ``whole``: the same, to bring a record back with everything
    that was in it.  ``units[target]``: the units of rows of that target that
    take part in the fold (two-way or one-way into or out of it).  ``carried[source]``: is anything carried from there?
    ``parents[side]``: the references of that side's rows which the other side writes.  ``unique[side]``: that side
    itself makes sure that no key occurs twice.  ``feeds[source]``: how the units of the other side that are carried
    there are made of that side's cells.  ``company[side]``: the cell of that side's rows that says which company they
    belong to, where the map has one; ``open[side]``: its view with all companies, those too that the link does not
    cover; ``companies[side]``: those that it covers, as that side writes them.  ``required[side]``: the cells that the
    other side writes there and that must not be null.  ``passing``: what needs no mapping.
    """

    table_map: TableMap
    views: Mapping[Side, View]
    whole: Mapping[Side, View]
    units: Mapping[Side, tuple[Unit, ...]]
    carried: Mapping[Side, bool]
    parents: Mapping[Side, tuple[Parent, ...]]
    unique: Mapping[Side, bool]
    rows: str  # policy for update against delete
    deletes: bool
    on_leave: str
    feeds: Mapping[Side, tuple[Feed, ...]]
    company: Mapping[Side, int]
    companies: Mapping[Side, tuple[Value, ...]]
    open: Mapping[Side, View]
    required: Mapping[Side, tuple[int, ...]]
    passing: Passing
    _lines: tuple[Line, ...]
    _key: tuple[Line, ...]
    _compared: tuple[_Compared, ...]
    _by: Mapping[Side, _Functions]
    _alike: Alike

    @cached_property
    def name(self) -> str:
        """The map's name."""
        return self.table_map.name

    @property
    def looks_up(self) -> Mapping[Side, frozenset[str]]:
        """Per side the tables that its written references point to."""
        return {side: frozenset(parent.table for parent in parents) for side, parents in self.parents.items()}

    def owned_elsewhere(self, side: Side) -> frozenset[int]:
        """The cells of a side's rows whose values belong to the other side."""
        return frozenset(index for feed in self.feeds[side.other] if feed.owned for index in feed.indexes)

    def map_row(self, source: Side, row: Row) -> Row:
        """A source row as a row of the other side's view; ABSENT where nothing is carried there.  Raises RowProblem."""
        functions = self._by[source]
        try:
            mapped = functions.row.one(row)
        except CastError as error:
            raise find_problem(self._lines, source, row, error) from None
        key = self.views[source.other].key
        for index in key:
            if mapped[index]:
                return mapped
        settled_key(tuple(mapped[index] for index in key), self._key, source)
        return mapped

    def map_rows(self, source: Side, rows: Sequence[Row]) -> list[Row | None]:
        """As ``map_row``, of many rows; None for one that cannot be mapped."""
        functions = self._by[source]
        member = itemgetter(self.views[source.other].key[0])
        with suppress(CastError):
            mapped = functions.row.many(rows)
            if all(map(member, mapped)):
                return mapped  # type: ignore[return-value]  # a list of rows is one of rows or None
        return _each_or_none(partial(self.map_row, source), rows)

    def map_lines(self, source: Side, rows: Lined) -> Lined | None:
        """As ``map_rows``, of rows that are lines still; None where they have to be taken apart for it."""
        functions = self._by[source]
        return self.passing.mapped(source, rows, functions.row.many)

    def map_columns(self, source: Side, rows: Sequence[Row]) -> tuple[list[Sequence[Cell]], list[Misfit]]:
        """As ``map_known``, of many rows, column by column; and everything in them that cannot be carried.

        Where something cannot, each value is carried once, however often it occurs: bad data costs little more than
        good.
        """
        with suppress(CastError):
            return list(zip(*self._by[source].row.many(rows), strict=True)), []
        given = list(zip(*rows, strict=True))
        mapped: list[Sequence[Cell]] = [(ABSENT,) * len(rows)] * len(self.views[source.other].paths)
        misfits: list[Misfit] = []
        for compared in self._compared:
            for way in compared.ways:
                if way.source is source:
                    cells = [given[index] for index in way.inputs]
                    mapped[way.target], failed = _carried_column(way.carried, cells, len(rows))
                    misfits += [_misfit(compared.line, source, code, places) for code, places in failed.items()]
        return mapped, misfits

    def map_known(self, source: Side, row: Row) -> tuple[Row, tuple[int, ...]]:
        """As ``map_row``, cell by cell: what cannot be carried is ABSENT, and its cells in the source are named."""
        mapped: list[Cell] = [ABSENT] * len(self.views[source.other].paths)
        failed = self.map_cells(source, row, (*range(len(row)), None), mapped)
        return tuple(mapped), failed

    def map_cells(self, source: Side, row: Row, cells: Sequence[int | None], mapped: list[Cell]) -> tuple[int, ...]:
        """Put into a row of the other side what some cells of a source row (None: constants) become there.

        What cannot be carried is ABSENT; returns the cells of which this is so.
        """
        ways, failed = self._ways[source], []
        for cell in cells:
            for way in ways.get(cell, ()):
                try:
                    mapped[way.target] = way.carried(*[row[index] for index in way.inputs])
                except CastError:
                    mapped[way.target] = ABSENT
                    failed += [] if cell is None else [cell]
        return tuple(failed)

    def single(self, source: Side, cell: int) -> tuple[int, Callable[..., Cell]] | None:
        """The one cell that a source's cell becomes, and how, where it is carried alone and nowhere else."""
        ways = self._ways[source].get(cell, ())
        return (ways[0].target, ways[0].carried) if len(ways) == 1 and ways[0].inputs == (cell,) else None

    @cached_property
    def _ways(self) -> Mapping[Side, Mapping[int | None, Sequence[_Way]]]:
        """Per side, and cell of its rows (None: constants), where it is carried."""
        found: dict[Side, dict[int | None, list[_Way]]] = {side: {} for side in SIDES}
        for compared in self._compared:
            for way in compared.ways:
                for cell in way.inputs or (None,):
                    found[way.source].setdefault(cell, []).append(way)
        return found

    def key(self, side: Side, row: Row) -> Key:
        """The record's key in common form: equal for both sides' rows of one record.  Raises RowProblem."""
        functions = self._by[side]
        try:
            key = functions.key.one(row)
        except CastError as error:
            raise find_problem(self._key, side, row, error, keys=True) from None
        return settled_key(key, self._key, side)

    def spelled(self, members: Sequence[Value]) -> Key | None:
        """The key in common form that people mean by these members; None where it has another number of them."""
        if len(members) != len(self._key):
            return None
        both = zip(members, (line.common[line.meeting] for line in self._key), strict=True)
        with suppress(CastError):
            return tuple([(form(member) or None) if member else None for member, form in both])
        return tuple(members)

    def keys(self, side: Side, rows: Sequence[Row]) -> Sequence[Key | None]:
        """As ``key``, of many rows; None for one that has none."""
        functions = self._by[side]
        if isinstance(rows, Lined) and self.passing.has_keys(rows):
            return Later(len(rows), partial(self._keys_of_lines, functions, rows))
        with suppress(CastError):
            keys = functions.key.many(rows)
            if not [key for key in keys if ABSENT in key or not any(key)]:
                return keys  # type: ignore[return-value]  # narrowed by the test
        return _each_or_none(partial(self.key, side), rows)

    def _keys_of_lines(self, functions: _Functions, rows: Lined) -> list[Key]:
        return functions.key.many(rows.beginning(self.passing.members))  # type: ignore[return-value]  # all are known

    def target_key(self, source: Side, row: Row) -> Key:
        """The key of the other side's record, in that side's natural form (order of its ``View.key``).

        Raises RowProblem.
        """
        functions = self._by[source]
        try:
            key = functions.target_key(row)
        except CastError as error:
            raise find_problem(self._key, source, row, error, keys=True) from None
        return settled_key(key, self._key, source)

    def computed(self, side: Side) -> frozenset[str]:
        """The columns of a side that formulas are for."""
        return frozenset(show_path(line.paths[side]) for line in self._lines if line.formula and side in line.paths)

    def common(self, side: Side, index: int, value: Value) -> Value:
        """A cell of that side's rows in common form."""
        return self._by[side].common[index](value)

    def passes(self, side: Side, row: Row) -> bool:
        """Does the row pass that side's filter and the company scope?"""
        return self._by[side].passes(row)

    def agree(self, left: Row, right: Row) -> list[str]:
        """The names of the units in which two rows of one record differ.

        A two-way column agrees when its left cell carried over equals the right one, or the right one carried back
        the left, in common form; a one-way column by its direction.  An ABSENT cell says nothing.  Raises RowProblem
        for a cell that cannot be carried in any direction.
        """
        try:
            if self._alike.one(left, right):
                return []
        except CastError:
            pass  # told below, unless the way back shows that the cells agree
        rows = {Side.LEFT: left, Side.RIGHT: right}
        counting = (compared for compared in self._compared if not compared.helps)
        found = (compared.line.unit for compared in counting if not _agrees(compared, rows))
        return list(dict.fromkeys(found))

    def surely_agree(self, lefts: Sequence[Row], rights: Sequence[Row]) -> list[bool]:
        """Of pairs of rows: False where only ``agree`` can tell."""
        try:
            return self._alike.many(lefts, rights)
        except CastError:
            return [self._surely_agree(left, right) for left, right in zip(lefts, rights, strict=True)]

    def _surely_agree(self, left: Row, right: Row) -> bool:
        try:
            return self._alike.one(left, right)
        except CastError:
            return False

    def differences(self, left: Row, right: Row) -> list[tuple[str, dict[Side, Row]]]:
        """What ``agree`` names, with the cells of each side."""
        rows = {Side.LEFT: left, Side.RIGHT: right}
        cells = {
            side: {unit.name: tuple(rows[side][index] for index in unit.indexes) for unit in self.units[side]}
            for side in SIDES
        }
        return [(name, {side: cells[side].get(name, ()) for side in SIDES}) for name in self.agree(left, right)]


def _each_or_none(function: Callable[[Row], Result], rows: Sequence[Row]) -> list[Result | None]:
    """The function of each row; None where it raises RowProblem."""
    found: list[Result | None] = []
    for row in rows:
        try:
            found.append(function(row))
        except RowProblem:
            found.append(None)
    return found


def _carried_column(
    carried: Callable[..., Cell], cells: Sequence[Sequence[Cell]], count: int
) -> tuple[list[Cell], dict[str, list[int]]]:
    """What a column becomes that is made of others, ABSENT where it cannot be; and where that is so, by code."""
    values: Sequence[Cell] | Sequence[Row] = cells[0] if len(cells) == 1 else list(zip(*cells, strict=True))
    carry = carried if len(cells) == 1 else partial(_spread, carried)
    values = values if cells else [()] * count
    made: dict[Cell | Row, Cell] = {}
    codes: dict[Cell | Row, str] = {}
    for value in set(values):
        try:
            made[value] = carry(value)
        except CastError as error:
            made[value], codes[value] = ABSENT, error.code
    failed: dict[str, list[int]] = {}
    for place, value in enumerate(values) if codes else ():
        if value in codes:
            failed.setdefault(codes[value], []).append(place)
    return list(map(made.__getitem__, values)), failed


def _spread(carried: Callable[..., Cell], values: Row) -> Cell:
    return carried(*values)


def _misfit(line: Line, source: Side, code: str, rows: Sequence[int]) -> Misfit:
    column = show_path(line.paths[source.other] if line.formula else line.paths.get(source, ("none",)))
    shown = None if line.formula or source not in line.paths else line.indexes[source]
    return Misfit(code, column, shown, rows)


def _agrees(compared: _Compared, rows: Mapping[Side, Row]) -> bool:
    """Does the line agree in one of its directions?  Raises RowProblem when none tells."""
    trouble, told = None, False
    for way in compared.ways:
        values = [rows[way.source][index] for index in way.inputs]
        there = rows[way.source.other][way.target]
        if there is ABSENT or ABSENT in values:
            return True
        try:
            here = way.carried(*values)
        except CastError as error:
            trouble = trouble or problem(compared.line, way.source, values, error)
            continue
        told = True
        if here is ABSENT or here == there or way.common(here) == way.common(there):
            return True
    if trouble is not None and not told:
        raise trouble
    return False


def compile_map(
    table_map: TableMap,
    left: Schema,
    right: Schema,
    *,
    companies: Sequence[str] | None = None,
    conflict: str = "newest",
    timezones: Mapping[Side, str] | None = None,
    tolerated: Collection[str] = (),
) -> CompiledMap:
    """The map bound to both schemas; raises Invalid with every error that ``check_map`` finds, but those with
    ``tolerated`` codes.

    ``companies`` are those that the link covers (None: all), ``conflict`` its policy, ``timezones`` what moments
    without a time zone mean on each side.
    """
    binding, problems = examine(table_map, left, right)
    errors = [found for found in problems if found.level == "error" and found.code not in tolerated]
    if errors or binding is None:
        raise Invalid(errors)
    return _Compiler(binding, companies, conflict, timezones or {}).compile()


class _Compiler:
    """Makes one compiled map out of a binding without errors."""

    def __init__(
        self, binding: Binding, companies: Sequence[str] | None, conflict: str, timezones: Mapping[Side, str]
    ) -> None:
        self.binding = binding
        self.companies = companies
        self.conflict = conflict
        self.timezones = timezones
        self.passing = passing_pairs(binding, timezones)
        self.paths = {side: self._paths(side) for side in SIDES}
        self.indexes = {side: {path: index for index, path in enumerate(self.paths[side])} for side in SIDES}
        self.widths = {side: len(self.paths[side]) for side in SIDES}

    def compile(self) -> CompiledMap:
        """All of it."""
        lines = {id(pair): self._line(name, pair) for name, group in group_pairs(self.binding) for pair in group}
        key = tuple(lines[id(pair)] for pair in self.binding.key)
        every = tuple(lines[id(pair)] for pair in self.binding.pairs)
        both_ways = {line.unit for line in every if len(line.carriers) == len(SIDES)}
        helping = [line for line in every if line.unit in both_ways and len(line.carriers) < len(SIDES)]
        table_map = self.binding.table_map
        units = find_units(self.binding, self.indexes, self.conflict)
        views = {side: self._view(side) for side in SIDES}
        return CompiledMap(
            table_map=table_map,
            views=views,
            whole={side: replace(view, written=self._writable(side, view)) for side, view in views.items()},
            units=units,
            carried={side: self.binding.carried(side) for side in SIDES},
            parents={side: find_parents(self.binding, self.indexes, side) for side in SIDES},
            unique={side: self._is_unique(side) for side in SIDES},
            feeds={side: _feeds(units[side.other], every, side) for side in SIDES},
            company=self._company(),
            companies={side: self._codes(side) for side in SIDES},
            open={side: replace(view, filter=self.binding.filters.get(side)) for side, view in views.items()},
            required={side: self._required(side) for side in SIDES},
            rows=table_map.rows,
            deletes=table_map.deletes,
            on_leave=table_map.on_leave,
            passing=self._passing(every),
            _lines=every,
            _key=key,
            _compared=tuple(_compared(line, helps=line in helping) for line in every),
            _by={side: self._functions(side, every, key, views[side]) for side in SIDES},
            _alike=alike_function([line for line in every if line not in helping], self.widths),
        )

    def _paths(self, side: Side) -> tuple[Path, ...]:
        """Those of the side's view; what passes as it stands comes first."""
        first = (pair.ends[side].path for pair in self.passing)
        return tuple(dict.fromkeys((*first, *self.binding.paths(side))))

    def _passing(self, lines: Sequence[Line]) -> Passing:
        count = len(self.passing)
        behind = {
            side: tuple(
                sorted(i for line in lines if side in line.carriers and (i := line.indexes[side.other]) >= count)
            )
            for side in SIDES
        }
        sources = frozenset(side for side in SIDES if all(pair.carries(side) for pair in self.passing))
        return Passing(len(self.binding.key), count, sources, behind, self.widths)

    def _company(self) -> dict[Side, int]:
        pair = self.binding.company
        return {} if pair is None else {side: self.indexes[side][end.path] for side, end in pair.ends.items()}

    def _required(self, side: Side) -> tuple[int, ...]:
        flat = [path for path in self.binding.written(side) if len(path) == 1]
        return tuple(self.indexes[side][path] for path in flat if not self._column(side, path).nullable)

    def _is_unique(self, side: Side) -> bool:
        """Does one of the side's own constraints keep keys apart, as the two sides together compare them?"""
        table, ends = self.binding.tables[side], [pair.ends for pair in self.binding.key]
        if any(len(both) < len(SIDES) or len(both[side].path) > 1 for both in ends):
            return False
        mine = [both[side].column for both in ends]
        plain = all(
            not column.nullable
            and column.type.name in (TypeName.TEXT, TypeName.INTEGER, TypeName.UUID)
            and both[side.other].column.type.name is column.type.name
            and not (both[side.other].column.ignore_case or both[side.other].column.ignore_trailing_blanks)
            for column, both in zip(mine, ends, strict=True)
        )
        names = {column.name for column in mine}
        return plain and any(names.issuperset(unique) for unique in (table.primary_key, *table.uniques) if unique)

    def _line(self, unit: str, pair: Pair) -> Line:
        whole = len(pair.ends) == len(SIDES)
        could = {side: carrier(pair, side, self.timezones) for side in SIDES if whole or pair.carries(side)}
        return Line(
            unit=unit,
            indexes={side: self.indexes[side][end.path] for side, end in pair.ends.items()},
            paths={side: end.path for side, end in pair.ends.items()},
            carriers={side: made for side, made in could.items() if pair.carries(side)},
            could=could,
            common={side: comparer(pair, side, self.timezones) for side in pair.ends},
            inputs={side: tuple(self.indexes[side][path] for path in pair.reads(side)) for side in SIDES},
            formula=pair.formula,
            names=pair.computed.paths if pair.computed is not None else (),
        )

    def _view(self, side: Side) -> View:
        binding, indexes = self.binding, self.indexes[side]
        alternatives = (
            Alternatives(each.name, tuple(self._lookup(side, lookup) for lookup in each.lookups))
            for each in binding.alternatives[side]
        )
        return View(
            name=binding.table_map.name,
            table=binding.tables[side].name,
            paths=self.paths[side],
            key=tuple(indexes[pair.ends[side].path] for pair in binding.key),
            lookups=tuple(self._lookup(side, lookup) for lookup in binding.lookups[side]),
            filter=and_(self._scope(side), binding.filters.get(side)),
            written=tuple(sorted(indexes[path] for path in binding.written(side))),
            alternatives=tuple(alternatives),
        )

    def _lookup(self, side: Side, lookup: BoundLookup) -> Lookup:
        indexes = self.indexes[side]
        parts = tuple((part, indexes[path]) for part, path in lookup.parts)
        return Lookup(lookup.reference.name, parts, tuple(indexes[path] for path in lookup.own))

    def _writable(self, side: Side, view: View) -> tuple[int, ...]:
        plain = (i for i, path in enumerate(view.paths) if len(path) == 1 and not self._column(side, path).read_only)
        return tuple(sorted({*view.written, *plain}))

    def _codes(self, side: Side) -> tuple[Value, ...]:
        """The companies of the link, as this side writes them; none where the map has no company, or takes all."""
        company = self.binding.company
        if company is None or self.companies is None:
            return ()
        codes = [as_written(company.ends[Side.LEFT].column, code) for code in self.companies]
        if side is Side.LEFT:
            return tuple(codes)
        return tuple(_carried(cell_function(carrier(company, Side.LEFT, self.timezones)), code) for code in codes)

    def _scope(self, side: Side) -> Expression | None:
        """The condition that a record belongs to one of the link's companies."""
        company = self.binding.company
        if company is None or self.companies is None:
            return None
        return OneOf(Column(company.ends[side].path), tuple(map(Literal, self._codes(side))))

    def _functions(self, side: Side, lines: Sequence[Line], key: Sequence[Line], view: View) -> _Functions:
        width = self.widths[side]
        return _Functions(
            row=row_function(lines, side, width, self.widths[side.other]),
            key=key_function(key, side, width),
            target_key=target_key_function(key, side, width),
            passes=compile_filter(view.filter, lambda path: (self.indexes[side][path], self._column(side, path))),
            common=tuple(self._common(side, path) for path in self.paths[side]),
        )

    def _column(self, side: Side, path: Path) -> SchemaColumn:
        column = self.binding.schemas[side].resolve(self.binding.tables[side].name, path)
        assert column is not None
        return column

    def _common(self, side: Side, path: Path) -> Common:
        pairs = [pair for pair in self.binding.pairs if pair.path(side) == path]
        pair = max(pairs, key=lambda pair: pair.two_way, default=None)
        return identity if pair is None else comparer(pair, side, self.timezones)


def _feeds(units: Sequence[Unit], lines: Sequence[Line], source: Side) -> tuple[Feed, ...]:
    """What a side's cells feed on the other side, whose units these are."""
    cells: dict[str, set[int]] = {}
    for line in lines:
        cells.setdefault(line.unit, set()).update(line.inputs[source])
    return tuple(
        Feed(tuple(sorted(cells[unit.name])), unit.indexes, unit.owner is source)
        for unit in units
        if unit.owner is not source.other
    )


def _compared(line: Line, *, helps: bool) -> _Compared:
    ways = [
        _Way(
            side,
            line.inputs[side],
            line.indexes[side.other],
            cell_function(made, len(line.inputs[side])),
            line.common[side.other],
        )
        for side, made in line.carriers.items()
    ]
    return _Compared(line, tuple(ways), helps)


def _carried(carry: Callable[[Cell], Cell], code: Value) -> Value:
    try:
        carried = carry(code)
    except CastError:
        return code  # no record of the other side can have this company
    return code if carried is ABSENT else carried
