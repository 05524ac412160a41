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
from dataclasses import dataclass, field
from itertools import groupby, islice
from operator import itemgetter
from typing import BinaryIO, Final

from dualwrite.connectors.base import Connector
from dualwrite.engine.data_parents import NamedBy, Parents
from dualwrite.engine.syncs import Watch, quiet
from dualwrite.errors import Problem, RowProblem
from dualwrite.mapping.compile import CompiledMap
from dualwrite.model import ABSENT, Cell, Key, Row, Side, Value, show_key, show_path
from dualwrite.schema import Schema

EXAMPLES: Final = 3
"""Records that are named for each kind of trouble."""
SHOWN: Final = 40
"""Characters of a value that are shown."""
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

    def note(self, count: int, examples: Iterable[tuple[Key, Value]]) -> None:
        """So many more records; the first of them may become examples."""
        self.count += count
        for key, value in islice(examples, EXAMPLES - len(self.examples)):
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
        self._parents = {side: Parents(side, connectors, maps) for side in Side}

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
        parents: Mapping[Side, Parents],
    ) -> None:
        self._compiled = compiled
        self._side = side
        self._target = side.other
        self._connector = connector
        self._view = compiled.open[side]
        self._parents = parents[self._target]
        self._found: dict[tuple[str, str], _Trouble] = {}
        self.companies: set[str] = set()  # of those that the link covers, the ones with records
        self._led = [index for index, path in enumerate(self._view.paths) if len(path) > 1]
        table = schemas[self._target].tables[compiled.views[self._target].table]
        self._lookups = [
            NamedBy(name, branches, tuple(map(table.referenced, branches)))
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

    def _note(self, code: str, column: str, rows: Sequence[Row], shown: int | None = None) -> None:
        """Rows in which something is wrong; ``shown`` is the cell whose value is told with them."""
        if rows:
            trouble = self._found.setdefault((code, column), _Trouble())
            trouble.note(len(rows), ((self._view.natural_key(row), _text(row, shown)) for row in rows))

    # -- companies ------------------------------------------------------------------------------------------------

    def _within(self, block: Sequence[Row]) -> Sequence[Row]:
        """The rows of the link's companies; the others are counted."""
        company = self._compiled.company.get(self._side)
        if company is None:
            return block
        path, inside = show_path(self._view.paths[company]), block
        if self._view.filter != self._compiled.views[self._side].filter:
            inside = [row for row in block if self._compiled.passes(self._side, row)]
        if len(inside) < len(block):
            outside = [row for row in block if row[company] and not self._compiled.passes(self._side, row)]
            self._note("other_company", path, outside, company)
        if not all(map(itemgetter(company), block)):
            self._note("no_company", path, [row for row in block if row[company] is None or row[company] == ""])
        self.companies.update(str(cell).casefold() for cell in set(map(itemgetter(company), inside)))
        return inside

    # -- rows -----------------------------------------------------------------------------------------------------

    def _look(self, rows: Sequence[Row], keys: _Keys) -> None:
        compiled, side = self._compiled, self._side
        if not rows:
            return
        held = self._held(rows, keys)
        for index in self._led:
            self._note("leads_nowhere", show_path(self._view.paths[index]), [r for r in rows if r[index] is ABSENT])
        if not compiled.carried[side]:
            self._keyless(rows, held)
            return
        mapped, misfits = compiled.map_columns(side, rows)
        for misfit in misfits:
            self._note(misfit.code, misfit.column, [rows[place] for place in misfit.rows], misfit.cell)
        unfit = {place for misfit in misfits for place in misfit.rows}  # of these it is told already
        self._keyless(rows, [() if place in unfit else key for place, key in enumerate(held)] if None in held else held)
        self._needed(rows, mapped)
        for lookup in self._lookups:
            self._missing(lookup, rows, mapped)

    def _look_at_keys(self, rows: Sequence[Row], keys: _Keys) -> None:
        self._keyless(rows, self._held(rows, keys))

    def _held(self, rows: Sequence[Row], keys: _Keys) -> Sequence[Key | None]:
        """The keys that rows hold."""
        held = self._compiled.keys(self._side, rows)
        if not self._compiled.unique[self._side]:
            keys.add(held)
        return held

    def _keyless(self, rows: Sequence[Row], keys: Sequence[Key | None]) -> None:
        """What is wrong with the rows that have no key."""
        found: dict[tuple[str, str], list[Row]] = {}
        for row in (row for row, key in zip(rows, keys, strict=True) if key is None) if None in keys else ():
            try:
                self._compiled.key(self._side, row)
            except RowProblem as problem:
                found.setdefault((problem.code, problem.column), []).append(row)
        for (code, column), some in found.items():
            self._note(code, column, some)

    def _needed(self, rows: Sequence[Row], mapped: Sequence[Sequence[Cell]]) -> None:
        """Where a mandatory column of the target would be empty."""
        for index in self._compiled.required[self._target]:
            if None in mapped[index]:
                column = show_path(self._compiled.views[self._target].paths[index])
                self._note("required", column, [r for r, cell in zip(rows, mapped[index], strict=True) if cell is None])

    # -- parents --------------------------------------------------------------------------------------------------

    def _missing(self, lookup: NamedBy, rows: Sequence[Row], mapped: Sequence[Sequence[Cell]]) -> None:
        """Rows whose parent is not there, or there several times."""
        cells = list(zip(*(mapped[index] for index in lookup.cells), strict=True))
        own = [lookup.cells.index(index) for index in lookup.own]
        named = {each for each in set(cells) if any(each[i] for i in own) and ABSENT not in each}
        bad: dict[Row, str] = {}
        for each, count in self._parents.count(lookup, named).items():
            if count != 1:
                bad[each] = "ambiguous" if count else "missing_parent"
        found: dict[str, list[tuple[Row, Row]]] = {}
        for row, each in zip(rows, cells, strict=True) if bad else ():
            if each in bad:
                found.setdefault(bad[each], []).append((row, tuple([each[i] for i in own])))
        for code, some in found.items():
            trouble = self._found.setdefault((code, lookup.name), _Trouble())
            trouble.note(len(some), ((self._view.natural_key(row), _shown(each)) for row, each in some))

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


def _text(row: Row, cell: int | None) -> Value:
    """A cell to be shown."""
    value = None if cell is None else row[cell]
    return None if value is ABSENT else value


def _shown(cells: Row) -> str:
    """Cells for people, as a key is shown."""
    return show_key(tuple([None if cell is ABSENT else cell for cell in cells]))


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
