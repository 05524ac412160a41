"""What in the data of both sides would hinder a map: ``dualwrite check --data``.  Writes nothing.

Both tables of a map are read once, in blocks, and every row is mapped as an initial sync would map it.  What is kept
are counts, a few examples of each kind of trouble, and a number per key; memory does not grow with the tables.
"""

from __future__ import annotations

import heapq
import tempfile
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from typing import BinaryIO, Final

from dualwrite.connectors.base import Connector
from dualwrite.engine.parents import Wanted
from dualwrite.engine.syncs import Watch, quiet
from dualwrite.errors import Problem, RowProblem
from dualwrite.mapping.compile import CompiledMap
from dualwrite.model import ABSENT, Key, Path, Row, Side, Value, show_key, show_path
from dualwrite.schema import Lookup, Schema, View

EXAMPLES: Final = 3
"""Records that are named for each kind of trouble."""
SHOWN: Final = 40
"""Characters of a value that are shown."""
KNOWN: Final = 200_000
"""Parents of which it is remembered whether they are there."""
SORTED: Final = 2_000_000
"""Keys that are sorted in memory; more are sorted in parts, on disk."""
NAMED: Final = 10_000
"""Keys that occur more than once, of which it is found out how they read."""

CODES: Final[Mapping[str, tuple[str, str]]] = {
    "ambiguous": (
        "A lookup finds several records with its key; records that name it are parked.",
        "remove or rename all but one of them",
    ),
    "digits_lost": (
        "A number has more decimal digits than the target's column keeps; such records are parked.",
        "shorten the numbers, or say `round: true` for the column",
    ),
    "duplicate_key": (
        "Several records of a side hold the same key; dualwrite never picks one, and parks them.",
        "remove or rename all but one of them, or name further columns in `key:`",
    ),
    "empty_key": (
        "Every column of the key is empty; such records are parked.",
        "give the records keys, or leave them out with a filter",
    ),
    "leads_nowhere": (
        "A lookup holds something, but what it leads to is not there, or not known; the column is left alone on the "
        "other side.",
        "correct the reference, or add the record that it names",
    ),
    "missing_parent": (
        "A lookup names a record that is not there, and that no map would bring; records that name it wait for it.",
        "add the missing records, or correct the lookups",
    ),
    "no_company": (
        "A record of a company-specific table belongs to no company; with `companies:` it is left out.",
        "give the records a company",
    ),
    "no_such_company": (
        "`companies:` names a company to which no record belongs, on either side.",
        "correct its code in dualwrite.yaml; nothing where it has no records yet",
    ),
    "not_a_value": (
        "A value is none that the target's column can hold; such records are parked.",
        "correct the values, or map them with `values:`",
    ),
    "not_computed": (
        "An expr: of the map fails on a record: it divides by zero, or a text is no number; such records are parked.",
        "correct the values, or let the `expr:` take care of them with `if(…)`",
    ),
    "other_company": (
        "Records belong to companies that `companies:` does not name; they are left out.",
        "nothing, or add the companies to `companies:` in dualwrite.yaml",
    ),
    "out_of_range": (
        "A number or a moment is too large for the target's column; such records are parked.",
        "correct the values, or widen the column",
    ),
    "required": (
        "A mandatory column of the target would be empty; such records are parked.",
        "fill the values in, or say `default: VALUE` for the column",
    ),
    "time_lost": (
        "A moment with a time of day does not fit into a column of dates; such records are parked.",
        "take off the time of day, or say `round: true` for the column",
    ),
    "too_long": (
        "A text is longer than the target's column takes; such records are parked.",
        "shorten the texts, widen the column, or say `truncate: true` for it",
    ),
    "unresolved_key": (
        "A key goes through a lookup whose record cannot be found; such records are parked.",
        "correct the lookup, or add that record",
    ),
    "value_not_mapped": (
        "A value is not listed in the column's value map; such records are parked.",
        "add it to `values:`, or say with `else:` what happens to such values",
    ),
}
"""What each code means, and what to do about it."""
MILD: Final = frozenset({"leads_nowhere", "no_company", "no_such_company", "other_company"})
"""What parks no record."""


@dataclass
class _Trouble:
    """How often something was found, and examples."""

    count: int = 0
    examples: list[str] = field(default_factory=list)

    def note(self, key: Key, value: Value, count: int = 1) -> None:
        """One more record, or several."""
        self.count += count
        if len(self.examples) < EXAMPLES:
            shown = "" if value is None else f" ({value[:SHOWN]!r}{'…' if len(value) > SHOWN else ''})"
            self.examples.append(f"{show_key(key)}{shown}")


class DataCheck:
    """Reads the tables of maps and tells what would hinder them."""

    def __init__(
        self,
        connectors: Mapping[Side, Connector],
        schemas: Mapping[Side, Schema],
        maps: Sequence[CompiledMap],
        progress: Watch = quiet,
        companies: Sequence[str] = (),
    ) -> None:
        """``maps`` are all maps of the link: what one of them brings is missing for none.

        ``companies`` are those that the link names, as maps were compiled with them.
        """
        self._connectors = connectors
        self._schemas = schemas
        self._maps = maps
        self._progress = progress
        self._companies = companies
        self._parents = {side: _Parents(side, connectors, maps) for side in Side}

    def problems(self) -> Iterator[Problem]:
        """What was found, map by map; then the companies that no map has seen."""
        unseen = set(self._companies)
        for compiled in self._maps:
            for side in Side:
                table = self._table(compiled, side)
                yield from table.read(self._progress)
                codes = zip(self._companies, compiled.companies[side], strict=False)
                unseen -= {company for company, code in codes if str(code).casefold() in table.companies}
        code = "no_such_company"
        meaning, remedy = CODES[code]
        for company in sorted(unseen) if any(compiled.company for compiled in self._maps) else ():
            yield Problem(code, f"{company}: {meaning}", remedy, "warning")

    def keys(self, compiled: CompiledMap) -> Iterator[Problem]:
        """What of it is wrong with the keys of one map: records that no change could find."""
        for side in Side:
            found = self._table(compiled, side).read(self._progress, keys_alone=True)
            yield from (problem for problem in found if problem.level == "error")

    def _table(self, compiled: CompiledMap, side: Side) -> _Table:
        return _Table(compiled, side, self._connectors[side], self._schemas, self._parents)


class _Table:
    """One side of a map."""

    def __init__(
        self,
        compiled: CompiledMap,
        side: Side,
        connector: Connector,
        schemas: Mapping[Side, Schema],
        parents: Mapping[Side, _Parents],
    ) -> None:
        self._compiled = compiled
        self._side = side
        self._target = side.other
        self._connector = connector
        self._view = compiled.open[side]
        self._parents = parents[self._target]
        self._found: dict[tuple[str, str], _Trouble] = {}
        self.companies: set[str] = set()  # of those that the link covers, the ones with records
        self._computed = compiled.computed(self._target)
        self._led = [index for index, path in enumerate(self._view.paths) if len(path) > 1]
        table = schemas[self._target].tables[compiled.views[self._target].table]
        self._lookups = [
            _Lookup(name, branches, tuple(map(table.referenced, branches)))
            for name, branches in compiled.views[self._target].branches
        ]

    def read(self, progress: Watch, *, keys_alone: bool = False) -> list[Problem]:
        """Read it; what was found."""
        done, look = 0, self._look_at_keys if keys_alone else self._look
        with tempfile.TemporaryFile() as file:
            keys = _Keys(file)
            with self._connector.snapshot(self._view, placed=False) as snapshot:
                for block in snapshot.blocks():
                    done += len(block)
                    progress(self._compiled.name, f"reading {self._side}", done, 0)
                    look(self._within(block), keys)
            if not self._compiled.unique[self._side]:
                self._repeated(keys)
        return [self._problem(code, column, trouble) for (code, column), trouble in self._found.items()]

    def _note(self, code: str, column: str, row: Row, value: object = None, count: int = 1) -> None:
        shown = value if isinstance(value, str) else None
        self._found.setdefault((code, column), _Trouble()).note(self._view.natural_key(row), shown, count)

    # -- companies ------------------------------------------------------------------------------------------------

    def _within(self, block: list[Row]) -> list[Row]:
        """The rows of the link's companies; the others are counted."""
        company = self._compiled.company.get(self._side)
        if company is None:
            return block
        path, inside = show_path(self._view.paths[company]), block
        if self._view.filter != self._compiled.views[self._side].filter:
            inside = [row for row in block if self._compiled.passes(self._side, row)]
        if len(inside) < len(block):
            for row in block:
                if row[company] and not self._compiled.passes(self._side, row):
                    self._note("other_company", path, row, row[company])
        if not all(map(itemgetter(company), block)):
            for row in block:
                if row[company] is None or row[company] == "":
                    self._note("no_company", path, row)
        self.companies.update(str(cell).casefold() for cell in set(map(itemgetter(company), inside)))
        return inside

    # -- rows -----------------------------------------------------------------------------------------------------

    def _look(self, rows: list[Row], keys: _Keys) -> None:
        compiled, side = self._compiled, self._side
        if not rows:
            return
        held = compiled.keys(side, rows)
        if not compiled.unique[side]:
            keys.add(held)
        for index in self._led:
            if ABSENT in list(map(itemgetter(index), rows)):
                self._nowhere(index, rows)
        if not compiled.carried[side]:
            self._keyless(rows, held)
            return
        found = compiled.map_rows(side, rows)
        if None in found:
            self._unfit(rows, found)
        mapped = [
            compiled.map_known(side, row)[0] if there is None else there for row, there in zip(rows, found, strict=True)
        ]
        self._needed(rows, mapped)
        for lookup in self._lookups:
            self._missing(lookup, rows, mapped)

    def _look_at_keys(self, rows: list[Row], keys: _Keys) -> None:
        held = self._compiled.keys(self._side, rows)
        if not self._compiled.unique[self._side]:
            keys.add(held)
        if None in held:
            self._keyless(rows, held)

    def _keyless(self, rows: Sequence[Row], keys: Sequence[Key | None]) -> None:
        for row, key in zip(rows, keys, strict=True):
            if key is None:
                try:
                    self._compiled.key(self._side, row)
                except RowProblem as problem:
                    self._note(problem.code, problem.column, row)

    def _nowhere(self, index: int, rows: Sequence[Row]) -> None:
        for row in rows:
            if row[index] is ABSENT:
                self._note("leads_nowhere", show_path(self._view.paths[index]), row)

    def _unfit(self, rows: Sequence[Row], mapped: Sequence[Row | None]) -> None:
        """What keeps rows from being mapped."""
        for row, there in zip(rows, mapped, strict=True):
            if there is None:
                for problem in self._compiled.problems(self._side, row):
                    self._note(problem.code, problem.column, row, self._value(row, problem.column))

    def _value(self, row: Row, column: str) -> object:
        if column in self._computed:
            return None
        return next((row[i] for i, path in enumerate(self._view.paths) if show_path(path) == column), None)

    def _needed(self, rows: Sequence[Row], mapped: Sequence[Row]) -> None:
        """Where a mandatory column of the target would be empty."""
        for index in self._compiled.required[self._target]:
            if None in list(map(itemgetter(index), mapped)):
                column = show_path(self._compiled.views[self._target].paths[index])
                for row, there in zip(rows, mapped, strict=True):
                    if there[index] is None:
                        self._note("required", column, row)

    # -- parents --------------------------------------------------------------------------------------------------

    def _missing(self, lookup: _Lookup, rows: Sequence[Row], mapped: Sequence[Row]) -> None:
        """Rows whose parent is not there, or there several times."""
        cells = list(zip(*(map(itemgetter(index), mapped) for index in lookup.cells), strict=True))
        own = [lookup.cells.index(index) for index in lookup.own]
        named = {each for each in set(cells) if any(each[i] for i in own) and ABSENT not in each}
        bad = {}
        for each, count in self._parents.count(lookup, named).items():
            if count != 1:
                bad[each] = "ambiguous" if count else "missing_parent"
        if bad:
            for row, each in zip(rows, cells, strict=True):
                if each in bad:
                    shown = show_key(tuple(each[i] for i in own if each[i] is not ABSENT))  # type: ignore[misc]
                    self._note(bad[each], lookup.name, row, shown)

    # -- keys -----------------------------------------------------------------------------------------------------

    def _repeated(self, keys: _Keys) -> None:
        """Keys that occur more than once: read once more for what they are."""
        numbers, records = keys.repeated()
        if not numbers:
            return
        found: Counter[Key] = Counter()
        with self._connector.snapshot(self._compiled.views[self._side], placed=False) as snapshot:
            for block in snapshot.blocks():
                for key in self._compiled.keys(self._side, block):
                    if key is not None and hash(key) in numbers:
                        found[key] += 1
        twice = {key: count for key, count in found.items() if count > 1}
        more = max(0, records - sum(found.values()))
        if not twice:
            return
        trouble = self._found.setdefault(("duplicate_key", ""), _Trouble())
        trouble.count = sum(twice.values()) + more
        shown = heapq.nlargest(EXAMPLES, twice.items(), key=itemgetter(1))
        trouble.examples = [f"{show_key(key)} ({count} records)" for key, count in shown]

    # -- telling --------------------------------------------------------------------------------------------------

    def _problem(self, code: str, column: str, trouble: _Trouble) -> Problem:
        table_map = self._compiled.table_map
        what = CODES[code][0].partition(";")[0].rstrip(".")
        where = f"{column}: " if column else ""
        records = f"{trouble.count:,} record{'' if trouble.count == 1 else 's'}"
        message = f"{table_map.name}, {self._view.table}, {where}{records}: {what[0].lower()}{what[1:]}"
        return Problem(
            code,
            f"{message}; such as {'; '.join(trouble.examples)}",
            CODES[code][1],
            "warning" if code in MILD else "error",
            table_map.file,
            self._line(column),
            table_map.name,
            str(self._side),
        )

    def _line(self, column: str) -> int:
        """The line of the map that names the column on one of the sides."""
        for mapping in self._compiled.table_map.columns:
            for path in (mapping.path(self._side), mapping.path(self._target)):
                if path is not None and (show_path(path).casefold() == column.casefold() or path[0] == column):
                    return mapping.line
        return self._compiled.table_map.lines.get("key" if not column else "company", 0)


@dataclass(frozen=True)
class _Lookup:
    """A lookup of the target's rows: which of its cells name a record, and the tables in which that may be."""

    name: str
    branches: tuple[Lookup, ...]
    tables: tuple[str, ...]

    @property
    def cells(self) -> tuple[int, ...]:
        """The cells of all parts."""
        return tuple(dict.fromkeys(index for branch in self.branches for _, index in branch.parts))

    @property
    def own(self) -> tuple[int, ...]:
        """The cells that are null where nothing is referred to."""
        return self.branches[0].own

    def wanted(self, cells: Row) -> Iterator[Wanted]:
        """The record that cells name, in each of the tables."""
        places = dict(zip(self.cells, cells, strict=True))
        for branch, table in zip(self.branches, self.tables, strict=True):
            key = tuple(None if (cell := places[index]) is ABSENT else cell for _, index in branch.parts)
            yield Wanted(table, branch.paths, key)


class _Parents:
    """Which records are there for lookups of one side, or will be, because a map brings them."""

    def __init__(self, side: Side, connectors: Mapping[Side, Connector], maps: Sequence[CompiledMap]) -> None:
        self._side = side
        self._connectors = connectors
        self._maps = [compiled for compiled in maps if compiled.carried[side.other]]
        self._known: dict[Wanted, int] = {}

    def count(self, lookup: _Lookup, named: Iterable[Row]) -> dict[Row, int]:
        """How many records each of these cells name."""
        wanted = {cells: list(lookup.wanted(cells)) for cells in named}
        self._learn(list(dict.fromkeys(each for some in wanted.values() for each in some)))
        return {cells: sum(self._known[each] for each in some) for cells, some in wanted.items()}

    def _learn(self, wanted: Sequence[Wanted]) -> None:
        if len(self._known) > KNOWN:
            self._known.clear()
        groups: dict[View, list[Wanted]] = {}
        for each in wanted:
            if each not in self._known:
                groups.setdefault(each.view, []).append(each)
        for view, some in groups.items():
            found = self._connectors[self._side].fetch(view, [each.key for each in some])
            self._known |= {each: len(found.get(each.key, ())) for each in some}
            self._coming(view, [each for each in some if not self._known[each]])

    def _coming(self, view: View, absent: Sequence[Wanted]) -> None:
        """Those that a map would bring: they are on the other side, and pass its filter."""
        for compiled in self._maps if absent else ():
            target = compiled.views[self._side]
            places = {target.paths[index]: index for index in target.key}
            if target.table == view.table and places.keys() <= set(view.paths):
                source = self._side.other
                keys = {each: _source_key(compiled, source, each, places) for each in absent}
                asked = [key for key in keys.values() if key is not None]
                rows = self._connectors[source].fetch(compiled.views[source], asked)
                for each, key in keys.items():
                    if key is not None and any(compiled.passes(source, row) for row in rows.get(key, ())):
                        self._known[each] = 1


def _source_key(compiled: CompiledMap, source: Side, wanted: Wanted, places: Mapping[Path, int]) -> Key | None:
    """The key under which the other side would have a record; what is wanted of it besides its key is left aside."""
    cells = {places[path]: cell for path, cell in zip(wanted.paths, wanted.key, strict=True) if path in places}
    row = tuple(cells.get(index, ABSENT) for index in range(len(compiled.views[source.other].paths)))
    with suppress(RowProblem):
        return compiled.target_key(source.other, row)
    return None


class _Keys:
    """The keys of a table as numbers, to find those that occur more than once."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._numbers = array("q")
        self._parts: list[tuple[int, int]] = []

    def add(self, keys: Iterable[Key | None]) -> None:
        """Keys of further rows."""
        self._numbers.extend(hash(key) for key in keys if key is not None)
        if len(self._numbers) > SORTED:
            numbers = array("q", sorted(self._numbers))
            self._parts.append((self._file.tell(), len(numbers)))
            numbers.tofile(self._file)
            self._numbers = array("q")

    def repeated(self) -> tuple[set[int], int]:
        """Numbers that occur more than once, as far as they are to be named, and how many keys bear such a number."""
        self._file.flush()
        parts = [self._read(*part) for part in self._parts]
        numbers: set[int] = set()
        records = 0
        for number, same in groupby(heapq.merge(*parts, sorted(self._numbers))):
            count = sum(1 for _ in same)
            if count > 1:
                records += count
                if len(numbers) < NAMED:
                    numbers.add(number)
        return numbers, records

    def _read(self, start: int, length: int, block: int = 65_536) -> Iterator[int]:
        size = array("q").itemsize
        for first in range(0, length, block):
            self._file.seek(start + first * size)
            numbers = array("q")
            numbers.fromfile(self._file, min(block, length - first))
            yield from numbers
