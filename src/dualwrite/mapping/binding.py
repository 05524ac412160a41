"""A table map held against two schemas: every name found, the key derived, the lookups worked out.

``bind`` never stops at the first mistake: it leaves out what it cannot find and notes a problem for it.  ``check``
reports those and adds its own; ``compile`` builds on a binding without errors.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import assert_never

from dualwrite.casts import CastError
from dualwrite.errors import Problem
from dualwrite.expression import And, Column, Compare, Expression, Literal, Not, OneOf, Or
from dualwrite.expression import paths as filter_paths
from dualwrite.filters import compile_filter
from dualwrite.mapping.compute import Computed, compile_formula
from dualwrite.mapping.d365_columns import distinct_name
from dualwrite.mapping.formula import Field, FormulaError, fields
from dualwrite.mapping.formula import parse as parse_formula
from dualwrite.mapping.paths import (
    End,
    PathError,
    candidate_keys,
    find_path,
    find_table,
    natural_key,
    show_paths,
    terminal,
)
from dualwrite.mapping.tablemap import ColumnMapping, Default, Direction, Formula, TableMap, Written
from dualwrite.mapping.values import sought
from dualwrite.model import Path, Side, show_path, targets_of
from dualwrite.names import match
from dualwrite.schema import Reference, Schema, Table

SIDES = (Side.LEFT, Side.RIGHT)


@dataclass
class Report:
    """The problems of one map, in the order in which they were noticed."""

    table_map: TableMap
    problems: list[Problem] = field(default_factory=list)

    def add(
        self,
        code: str,
        message: str,
        remedy: str = "",
        *,
        line: int = 0,
        side: Side | None = None,
        level: str = "error",
    ) -> None:
        """Note a problem; without a remedy, the one of its code is used."""
        where = str(side) if side else ""
        name, file = self.table_map.name, self.table_map.file
        self.problems.append(Problem(code, message, remedy, level, file, line, name, where))

    def line(self, entry: str) -> int:
        """Where a top-level entry of the map stands."""
        return self.table_map.lines.get(entry, 0)


@dataclass(frozen=True, slots=True)
class Pair:
    """A column mapping with its ends found; a side for which it says ``none`` has no end.

    ``computed`` is its formula, over columns of the side without an end.
    """

    mapping: ColumnMapping
    ends: Mapping[Side, End]
    computed: Computed | None = None

    def carries(self, source: Side) -> bool:
        """Does it write into the other side's row?"""
        has_source = source in self.ends or self.constant is not None or self.computed is not None
        return self.mapping.direction.carries(source) and source.other in self.ends and has_source

    @property
    def constant(self) -> Default | None:
        """Its default."""
        return next((t for t in self.mapping.transforms if isinstance(t, Default)), None)

    @property
    def formula(self) -> str:
        """Its formula as written; empty where it has none."""
        return next((t.text for t in self.mapping.transforms if isinstance(t, Formula)), "")

    def reads(self, side: Side) -> tuple[Path, ...]:
        """The paths from which its value is made when it is carried from a side."""
        if side in self.ends:
            return (self.ends[side].path,)
        return self.computed.paths if self.computed is not None else ()

    @property
    def two_way(self) -> bool:
        """Is it carried in both directions?"""
        return self.carries(Side.LEFT) and self.carries(Side.RIGHT)

    def path(self, side: Side) -> Path | None:
        """Its path on that side, as the schema spells it."""
        return self.ends[side].path if side in self.ends else None

    @property
    def place(self) -> str:
        """Where it stands in its file; an export has no lines, so there it is named."""
        return f"line {self.mapping.line}" if self.mapping.line else f"the line for {self.name}"

    @property
    def name(self) -> str:
        """What people call it: its path on the right, else on the left."""
        return show_path(self.path(Side.RIGHT) or self.path(Side.LEFT) or ())


@dataclass(frozen=True, slots=True)
class BoundLookup:
    """A lookup of one side: each part of the referenced key (a path there) with the path of the row that holds it.

    ``own`` are the row's paths that belong to it alone.  References that are only read need no parts and are not here.
    """

    reference: Reference
    parts: tuple[tuple[Path, Path], ...]
    own: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class BoundAlternatives:
    """A polymorphic lookup that is written: a lookup per table that may hold its record, all with the same ``own``."""

    name: str
    lookups: tuple[BoundLookup, ...]

    @property
    def own(self) -> tuple[Path, ...]:
        """The row's paths that belong to it alone."""
        return self.lookups[0].own


@dataclass(frozen=True, slots=True)
class Binding:
    """A map with its names found.  ``pairs`` include the company's; ``key`` are those that identify a record."""

    table_map: TableMap
    schemas: Mapping[Side, Schema]
    tables: Mapping[Side, Table]
    pairs: tuple[Pair, ...]
    company: Pair | None
    key: tuple[Pair, ...]
    keys: tuple[tuple[Path, ...], ...]
    filters: Mapping[Side, Expression]
    lookups: Mapping[Side, tuple[BoundLookup, ...]]
    alternatives: Mapping[Side, tuple[BoundAlternatives, ...]]

    def carried(self, source: Side) -> bool:
        """Is anything carried from there?"""
        return any(pair.carries(source) for pair in self.pairs)

    def written(self, side: Side) -> dict[Path, Pair]:
        """The paths that the other side writes, with the pair that does (the first of several)."""
        found: dict[Path, Pair] = {}
        for pair in self.pairs:
            if pair.carries(side.other):
                found.setdefault(pair.ends[side].path, pair)
        return found

    def named(self, side: Side) -> tuple[Path, ...]:
        """The paths that the map names on a side: key, mapped columns, filter."""
        found = [path for pair in (*self.key, *self.pairs) for path in pair.reads(side)]
        if side in self.filters:
            found += filter_paths(self.filters[side])
        return tuple(dict.fromkeys(found))

    def paths(self, side: Side) -> tuple[Path, ...]:
        """The paths of the side's view: those that the map names, and what lookups need besides."""
        branches = (lookup for each in self.alternatives[side] for lookup in each.lookups)
        parts = (path for lookup in (*self.lookups[side], *branches) for _, path in lookup.parts)
        return tuple(dict.fromkeys((*self.named(side), *parts)))


def bind(table_map: TableMap, left: Schema, right: Schema) -> tuple[Binding | None, Report]:
    """The map with its names found, and what was wrong; None when a table is unknown."""
    report = Report(table_map)
    schemas = {Side.LEFT: left, Side.RIGHT: right}
    tables: dict[Side, Table] = {}
    for side in SIDES:
        try:
            columns = dict.fromkeys(path[0] for each in table_map.columns if (path := each.path(side)))
            tables[side] = find_table(schemas[side], table_map.table(side), distinct_name(table_map, side), columns)
        except PathError as error:
            report.add(error.code, error.message, error.remedy, line=report.line(str(side)), side=side)
    if len(tables) < len(SIDES):
        return None, report
    return _Binder(table_map, schemas, tables, report).bind(), report


class _Binder:
    """Finds the names of one map."""

    def __init__(
        self, table_map: TableMap, schemas: Mapping[Side, Schema], tables: Mapping[Side, Table], report: Report
    ) -> None:
        self.map = table_map
        self.schemas = schemas
        self.tables = tables
        self.report = report

    def bind(self) -> Binding:
        """All of it."""
        pairs = [pair for mapping in self.map.columns if (pair := self._pair(mapping)) is not None]
        company = self._company(pairs)
        if company is not None and company not in pairs:
            pairs.append(company)
        keys = self._candidates(pairs)
        key = self._key(pairs, company, keys)
        pairs = self._narrowed(pairs, key)
        filters = {side: found for side in SIDES if (found := self._filter(side)) is not None}
        binding = Binding(self.map, self.schemas, self.tables, tuple(pairs), company, key, keys, filters, {}, {})
        lookups = {side: self._lookups(binding, side) for side in SIDES}
        alternatives = {side: self._alternatives(binding, side) for side in SIDES}
        return replace(binding, lookups=lookups, alternatives=alternatives)

    # -- names ----------------------------------------------------------------------------------------------------

    def _end(self, side: Side, path: Path, line: int, code: str = "") -> End | None:
        try:
            return find_path(self.schemas[side], self.tables[side], path)
        except PathError as error:
            self.report.add(code or error.code, error.message, error.remedy, line=line, side=side)
            return None

    def _pair(self, mapping: ColumnMapping) -> Pair | None:
        ends: dict[Side, End] = {}
        wanted = 0
        for side in SIDES:
            path = mapping.path(side)
            if path is not None:
                wanted += 1
                end = self._end(side, path, mapping.line)
                if end is not None:
                    ends[side] = end
        if len(ends) != wanted:
            return None
        formula = next((t for t in mapping.transforms if isinstance(t, Formula)), None)
        if formula is None or len(ends) != 1:
            return Pair(mapping, ends)
        computed = self._computed(formula.text, next(iter(ends)).other, mapping.line)
        return Pair(mapping, ends, computed) if computed is not None else None

    def _computed(self, text: str, source: Side, line: int) -> Computed | None:
        """A formula over columns of the source; what is wrong with it is noted."""
        try:
            node = parse_formula(text)
            columns = {field.path: self._field(source, field) for field in fields(node)}
            return compile_formula(node, text, columns)
        except FormulaError as error:
            self.report.add("bad_formula", f"expr: {text}: {error}", line=line, side=source)
            return None

    def _field(self, source: Side, field: Field) -> End:
        try:
            return find_path(self.schemas[source], self.tables[source], field.path)
        except PathError as error:
            raise FormulaError(f"{error.message}{': ' if error.remedy else ''}{error.remedy}", field.at) from None

    def _company(self, pairs: Sequence[Pair]) -> Pair | None:
        """The pair that carries the company: the map's own line for it, else one made up for the purpose."""
        company = self.map.company
        if company is None:
            return None
        line = company.line or self.report.line("company")
        directions = [d for d in (Direction.TO_RIGHT, Direction.TO_LEFT) if _any_carries(pairs, d)]
        direction = directions[0] if len(directions) == 1 else Direction.BOTH
        pair = self._pair(ColumnMapping(company.left, direction, company.right, line=line))
        if pair is None:
            return None
        same = (p for p in pairs if all(p.path(side) == pair.path(side) for side in SIDES))
        return next(same, pair)

    # -- the integration key --------------------------------------------------------------------------------------

    def _candidates(self, pairs: Sequence[Pair]) -> tuple[tuple[Path, ...], ...]:
        """The keys that could be derived, as right-hand paths, best first: all their members are mapped.

        Those that are carried wherever anything is carried come before the others.
        """
        whole = sorted((p for p in pairs if len(p.ends) == len(SIDES)), key=lambda pair: pair.two_way)
        needed = [side for side in SIDES if any(pair.carries(side) for pair in pairs)]
        found: list[tuple[Pair, ...]] = []
        for side in (Side.RIGHT, Side.LEFT):
            by_path = {pair.path(side): pair for pair in whole}
            for key in candidate_keys(self.schemas[side], self.tables[side]):
                members = tuple(by_path[member] for member in key if member in by_path)
                if len(members) == len(key):
                    found.append(members)
        found.sort(key=lambda members: not all(pair.carries(side) for pair in members for side in needed))
        unique: dict[frozenset[Path], tuple[Path, ...]] = {}
        for members in found:
            paths = tuple(pair.ends[Side.RIGHT].path for pair in members)
            unique.setdefault(frozenset(paths), paths)
        return tuple(unique.values())

    def _key(self, pairs: Sequence[Pair], company: Pair | None, keys: Sequence[tuple[Path, ...]]) -> tuple[Pair, ...]:
        line = self.report.line("key")
        if self.map.key is not None:
            ends = [self._end(Side.RIGHT, path, line) for path in self.map.key]
            wanted = tuple(end.path for end in ends if end is not None)
        elif keys:
            wanted = keys[0]
        else:
            self._no_key()
            return ()
        members = [self._member(path, pairs, line) for path in dict.fromkeys(wanted)]
        found = [pair for pair in members if pair is not None]
        if company is not None and company not in found:
            found.append(company)
        return tuple(found)

    def _member(self, path: Path, pairs: Sequence[Pair], line: int) -> Pair | None:
        meant = [pair for pair in pairs if pair.path(Side.RIGHT) == path and len(pair.ends) == len(SIDES)]
        if meant:
            return max(meant, key=lambda pair: pair.two_way)
        message = f"the key column {show_path(path)} is not mapped from a column of {self.tables[Side.LEFT].name}"
        self.report.add("key_unmapped", message, line=line, side=Side.RIGHT)
        return None

    def _no_key(self) -> None:
        key = natural_key(self.schemas[Side.RIGHT], self.tables[Side.RIGHT])
        table = self.tables[Side.RIGHT].name
        message = f"nothing identifies a record of {table}: no key or unique index of either table is mapped whole"
        remedy = f"map {show_paths(key)}, or say which columns do: key: [COLUMN, …]" if key else ""
        line = self.report.line("right")
        self.report.add("no_key", message, remedy, line=line)

    def _narrowed(self, pairs: Sequence[Pair], key: Sequence[Pair]) -> list[Pair]:
        """The pairs, where of several two-way ones that share a left column a single one carries back to it.

        A member of the key does, else a part of a lookup of several parts, else the first; the others follow it.
        """
        steps = Counter(pair.ends[Side.RIGHT].path[0] for pair in pairs if Side.RIGHT in pair.ends)
        leads: dict[Path, Pair] = {}
        found = list(pairs)
        two_way = (pair for pair in pairs if pair.two_way)
        for pair in sorted(two_way, key=lambda each: (each not in key, steps[each.ends[Side.RIGHT].path[0]] == 1)):
            lead = leads.setdefault(pair.ends[Side.LEFT].path, pair)
            if lead is not pair and pair not in key:
                found[found.index(pair)] = self._following(pair, lead)
        return found

    def _following(self, pair: Pair, lead: Pair) -> Pair:
        """The pair, carried to the right alone."""
        column = f"{show_path(pair.ends[Side.LEFT].path)} of {self.tables[Side.LEFT].name}"
        message = f"{column} is mapped both ways in {lead.place} already; this line only follows it"
        self.report.add("source_twice", message, line=pair.mapping.line, side=Side.LEFT, level="warning")
        return replace(pair, mapping=replace(pair.mapping, direction=Direction.TO_RIGHT))

    # -- filters --------------------------------------------------------------------------------------------------

    def _filter(self, side: Side) -> Expression | None:
        line = self.report.line("filter")
        found = self.map.filters.get(side)
        if found is None:
            return None
        expression = found.expression if isinstance(found, Written) else found

        def named(found: Column) -> tuple[End | None, Column]:
            end = self._end(side, self._own(side, found.path), line, "unknown_filter_column")
            return end, Column(end.path) if end else found

        def value(end: End | None, found: Literal, operator: str) -> Literal:
            if end is None or found.value is None:
                return found
            column = end.column
            try:
                compile_filter(Compare(operator, Column(end.path), found), lambda _: (0, column))
                return Literal(sought(column, found.value, operator))
            except CastError as error:
                told = f"filter on {show_path(end.path)}: "
                message = f"{told}{error.message.removeprefix(told)}"
                self.report.add("bad_value", message, line=line, side=side)
                return found

        return _rewrite(expression, named, value)

    def _own(self, side: Side, path: Path) -> Path:
        """A path without the name of the table itself, which X++ may put before a field."""
        table = self.tables[side]
        if len(path) == 2 and path[0].casefold() in {table.name.casefold(), self.map.table(side).casefold()}:
            steps = {step for each in table.references for step in (each.name, *each.columns)}
            return path if match(path[0], steps) else path[1:]
        return path

    # -- lookups --------------------------------------------------------------------------------------------------

    def _lookups(self, binding: Binding, side: Side) -> tuple[BoundLookup, ...]:
        by_reference: dict[str, list[Path]] = {}
        for path in binding.written(side):
            if len(path) > 1 and self.tables[side].polymorphic_lookup(path[0]) is None:
                by_reference.setdefault(path[0], []).append(path)
        finder = _LookupFinder(binding, side, self.report)
        found = (finder.find(name, paths) for name, paths in by_reference.items())
        return tuple(lookup for lookup in found if lookup is not None)

    def _alternatives(self, binding: Binding, side: Side) -> tuple[BoundAlternatives, ...]:
        by_name: dict[str, list[Path]] = {}
        for path in binding.written(side):
            if self.tables[side].polymorphic_lookup(path[0]) is not None and len(path) > 1:
                by_name.setdefault(path[0], []).append(path)
        finder = _LookupFinder(binding, side, self.report)
        found = (finder.find_alternatives(name, paths) for name, paths in by_name.items())
        return tuple(alternatives for alternatives in found if alternatives is not None)


class _LookupFinder:
    """Works out by which parts the lookups of one side find their records."""

    def __init__(self, binding: Binding, side: Side, report: Report) -> None:
        self.side = side
        self.schema = binding.schemas[side]
        self.table = binding.tables[side]
        self.written = binding.written(side)
        self.report = report
        company = binding.company.path(side) if binding.company else self.table.company
        self.company = company if company in binding.named(side) else None

    def find(self, name: str, written: Sequence[Path]) -> BoundLookup | None:
        """The lookup behind these written paths, all of which go through the reference ``name``.

        All parts of one of the parent's keys must come from the row.
        """
        reference = self.table.reference(name)
        assert reference is not None
        forked = [path for path in written if self.schema.branches(self.table.name, path)]
        for path in forked:
            message = f"{show_path(path)}: no record of {reference.table} can be told by what may be in several tables"
            self.report.add("lookup_polymorphic", message, line=self.written[path].mapping.line, side=self.side)
        return None if forked else self._find(reference, {path[1:]: path for path in written})

    def find_alternatives(self, name: str, written: Sequence[Path]) -> BoundAlternatives | None:
        """The polymorphic lookup behind these written paths: in each of its tables a key must be whole."""
        lookup = self.table.polymorphic_lookup(name)
        assert lookup is not None
        found: list[BoundLookup | None] = []
        for word in dict.fromkeys(word for path in written for word, _ in targets_of(path)):
            branch = lookup.branch(word)
            reference = self.table.reference(branch.reference) if branch else None
            assert reference is not None, "the path was found"
            ends = {inner: path for path in written for each, inner in targets_of(path) if each == word}
            if len(ends) < len(written):
                self._one_sided(lookup.name, word, written)
                return None
            found.append(self._find(reference, ends))
        lookups = [each for each in found if each is not None]
        if len(lookups) < len(found):
            return None
        return BoundAlternatives(name, tuple(replace(each, own=tuple(written)) for each in lookups))

    def _one_sided(self, name: str, word: str, written: Sequence[Path]) -> None:
        message = f"{show_paths(written)}: not every line says what {name} leads to in {word}"
        line = self.written[written[-1]].mapping.line
        self.report.add("lookup_key_unmapped", message, f"add {word}(…) to each of them", line=line, side=self.side)

    def _find(self, reference: Reference, found: Mapping[Path, Path]) -> BoundLookup | None:
        """The lookup by a reference; ``found`` are the paths behind it, with those of the row."""
        written = tuple(dict.fromkeys(found.values()))
        parent = self.schema.tables[reference.table]
        complete: list[list[tuple[Path, Path]]] = []
        gaps: list[tuple[bool, list[Path]]] = []
        for key in candidate_keys(self.schema, parent):
            parts = [(member, found.get(member) or self._shared(reference, parent, member)) for member in key]
            present = [(member, path) for member, path in parts if path is not None]
            touched = any(path in written for _, path in present)
            if touched and len(present) == len(parts):
                complete.append(present)
            gaps.append((touched, [member for member, path in parts if path is None]))
        if not complete:
            if all(len(member) > 1 for member in found):
                return self._by_hops(reference, parent, found)
            _, missing = max(gaps, key=lambda gap: gap[0], default=(False, []))
            self._unmapped(reference, parent, written, missing)
            return None
        best = max(complete, key=lambda parts: sum(path in written for _, path in parts))
        hops = [(member, path) for member, path in found.items() if len(member) > 1 and (member, path) not in best]
        self._superfluous(parent, written, [*best, *hops])
        return BoundLookup(reference, (*best, *hops), tuple(path for _, path in (*best, *hops) if path in written))

    def _by_hops(self, reference: Reference, parent: Table, found: Mapping[Path, Path]) -> BoundLookup:
        """A record that is found by what it looks up itself, of which several may look up the same."""
        company = parent.company
        shared = self._shared(reference, parent, company) if company is not None and company not in found else None
        parts = [*found.items(), *([(company, shared)] if company is not None and shared is not None else [])]
        written = tuple(found.values())
        message = f"{show_paths(written)}: several records of {parent.name} may look up the same record"
        line = self.written[written[0]].mapping.line
        self.report.add("lookup_may_find_several", message, line=line, side=self.side, level="warning")
        return BoundLookup(reference, tuple(parts), written)

    def _superfluous(self, parent: Table, written: Sequence[Path], parts: Sequence[tuple[Path, Path]]) -> None:
        for path in written:
            if all(path != part for _, part in parts):
                message = f"{show_path(path)} is not part of the key by which a record of {parent.name} is found"
                self.report.add("lookup_not_key", message, line=self.written[path].mapping.line, side=self.side)

    def _unmapped(self, reference: Reference, parent: Table, written: Sequence[Path], missing: Sequence[Path]) -> None:
        what = f"{show_paths(written)} {'does' if len(written) == 1 else 'do'} not identify a record of {parent.name}"
        needs = show_paths([(reference.name, *member) for member in missing])
        message = f"{what}: {needs} is missing" if needs else f"{what}, which has no such key or unique index"
        remedy = f"map {needs} too" if needs else f"declare the key of {parent.name} in schema/{self.side}.yaml"
        line = self.written[written[0]].mapping.line
        self.report.add("lookup_key_unmapped", message, remedy, line=line, side=self.side)

    def _shared(self, reference: Reference, parent: Table, member: Path) -> Path | None:
        """The row's own company, where the member is the company of the referenced record."""
        if self.company is None or self.company == (reference.name, *member):
            return None
        if parent.company is not None:
            return self.company if member == parent.company else None
        if len(member) != len(self.company):
            return None
        if len(member) == 1:
            return self.company if member == self.company else None
        same = terminal(self.schema, parent, member) == terminal(self.schema, self.table, self.company)
        return self.company if same else None


def _any_carries(pairs: Iterable[Pair], direction: Direction) -> bool:
    source = Side.LEFT if direction is Direction.TO_RIGHT else Side.RIGHT
    return any(pair.carries(source) for pair in pairs)


_FindColumn = Callable[[Column], tuple[End | None, Column]]
_FindValue = Callable[[End | None, Literal, str], Literal]


def _rewrite(expression: Expression, column: _FindColumn, value: _FindValue) -> Expression:
    """The same filter with the schema's names and canonical literals."""
    match expression:
        case Compare():
            end, found = column(expression.column)
            return Compare(expression.operator, found, value(end, expression.literal, expression.operator))
        case OneOf():
            end, found = column(expression.column)
            return OneOf(found, tuple(value(end, literal, "eq") for literal in expression.literals))
        case Not():
            return Not(_rewrite(expression.part, column, value))
        case And():
            return And(tuple(_rewrite(part, column, value) for part in expression.parts))
        case Or():
            return Or(tuple(_rewrite(part, column, value) for part in expression.parts))
    assert_never(expression)
