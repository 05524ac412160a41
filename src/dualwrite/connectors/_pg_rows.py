"""Writes as statements take them: what each row says, what its references resolve to, and the arrays of all rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import compress, count, repeat
from operator import is_not
from types import MappingProxyType, NoneType
from typing import Any, Final

from dualwrite.connectors._pg_cells import MASK_BITS, Shape
from dualwrite.connectors._pg_lookups import Held, transposed
from dualwrite.connectors._pg_session import Connection
from dualwrite.connectors._pg_statements import Target, patterns
from dualwrite.connectors._pg_view import Pattern
from dualwrite.connectors._sql import Lookups, Resolved
from dualwrite.model import ABSENT, Absent, Cell, Key, MissingParent, Outcome, Rejected, Row, Value, Write
from dualwrite.schema import Lookup

_NO_VALUES: Final[Mapping[str, Value]] = MappingProxyType({})
_NO_LOOKUPS: Final[Mapping[int, Resolved[Held] | None]] = MappingProxyType({})
SHAPES: Final = 3
"""Rows that speak of more different cells than that are put into one statement with masks."""


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
    lookups: Mapping[int, Resolved[Held] | None] = field(default_factory=lambda: _NO_LOOKUPS)
    values: Mapping[str, Value] = field(default_factory=lambda: _NO_VALUES)
    refused: Outcome | None = None


class Rows:
    """Makes writes of one view ready."""

    def __init__(self, connection: Connection, target: Target, lookups: Lookups[Held]) -> None:
        self._connection = connection
        self._target = target
        self._lookups = lookups
        self._view = target.view
        self._table = target.plan.table

    def ready(self, writes: Sequence[Write], numbers: Sequence[int]) -> list[Ready]:
        """Some of the writes, with how their keys are looked for."""
        keys = [writes[number].key for number in numbers]
        found = patterns(self._target, keys)
        return [
            Ready(number, writes[number], pattern, members)
            for number, (pattern, members) in zip(numbers, found, strict=True)
        ]

    def resolve(self, readies: Sequence[Ready]) -> None:
        """What the references that the rows set lead to."""
        if not self._target.lookups:
            return
        found: list[dict[int, Resolved[Held] | None]] = [{} for _ in readies]
        for number, lookup in enumerate(self._target.lookups):
            asked: list[int] = []
            for place, ready in enumerate(readies):
                row = ready.write.row
                assert row is not None
                own = [row[index] for index in lookup.own]
                if ABSENT in own:
                    continue
                if any(own):
                    asked.append(place)
                else:
                    found[place][number] = None
            if asked:
                keys = self._named(lookup, [readies[place] for place in asked])
                resolved = self._lookups.resolve(self._table, lookup, keys)
                for place, key in zip(asked, keys, strict=True):
                    found[place][number] = resolved[key]
        for ready, lookups in zip(readies, found, strict=True):
            ready.lookups = lookups

    def _named(self, lookup: Lookup, readies: Sequence[Ready]) -> list[Key]:
        """The keys that a lookup names; what a row does not say is what its record holds."""
        places = [index for _, index in lookup.parts]
        named = [tuple([self.said(ready.write, index) for index in places]) for ready in readies]
        unsaid = [ready.write.key for ready, cells in zip(readies, named, strict=True) if ABSENT in cells]
        records = self._target.plan.fetch(self._connection, unsaid) if unsaid else {}
        keys: list[Key] = []
        for ready, cells in zip(readies, named, strict=True):
            held = records.get(ready.write.key, [()])[0]
            known = [
                held[index] if cell is ABSENT and held else cell for index, cell in zip(places, cells, strict=True)
            ]
            keys.append(tuple([None if cell is ABSENT else cell for cell in known]))
        return keys

    def said(self, write: Write, index: int) -> Cell:
        """What a write says of a cell, as wanted, as a part of its key or as expected."""
        cell: Cell = ABSENT if write.row is None else write.row[index]
        if cell is ABSENT and index in self._view.key:
            cell = write.key[self._view.key.index(index)]
        if cell is ABSENT and write.expect is not None:
            cell = write.expect[index]
        return cell

    def speak(self, readies: Sequence[Ready], *, trusting: bool = False) -> None:
        """Note which cells the rows set and which they expect something of."""
        flats = frozenset(self._target.flats)
        parts = [tuple(index for _, index in lookup.parts) for lookup in self._target.lookups]
        known: dict[Sequence[int], tuple[int, ...]] = {}
        for ready in readies:
            row, expect, cells = ready.write.row, ready.write.expect, ready.write.cells
            assert row is not None
            spoken = _spoken(row) if cells is None else cells
            given = known.get(spoken)
            if given is None:
                said = set(flats)
                for lookup, indexes in zip(self._target.lookups, parts, strict=True):
                    said |= set(indexes) if set(lookup.own) <= set(spoken) else set()
                given = known[spoken] = tuple(sorted(said.intersection(spoken)))
            ready.given = given
            if expect is not None and not trusting:
                ready.expected = _spoken(expect, cells)

    def shaped(self, readies: Sequence[Ready]) -> Iterator[tuple[Shape, list[Ready]]]:
        """The rows in groups that one statement takes."""
        same: dict[tuple[Any, ...], list[Ready]] = defaultdict(list)
        for ready in readies:
            same[ready.pattern, ready.given, ready.expected, tuple(ready.lookups)].append(ready)
        groups = {Shape(*parts): group for parts, group in same.items()}
        triggers = any("update" in trigger.events for trigger in self._target.plan.facts.triggers)
        if len(groups) <= SHAPES or triggers:  # a trigger may look at the columns that a statement names
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

    def fill(self, ready: Ready) -> None:
        """The columns of a new record."""
        refused = [held for held in ready.lookups.values() if isinstance(held, MissingParent | Rejected)]
        row = ready.write.row
        assert row is not None
        fixed = [place for place in self._target.read_only if row[place] is not ABSENT]
        if refused:
            ready.refused = refused[0]
        elif fixed:
            name = self._target.cells[fixed[0]].column.name
            ready.refused = Rejected("readonly", f"{self._table.name}.{name} is generated and cannot be written")
        else:
            ready.values = self.values(ready)

    def values(self, ready: Ready) -> dict[str, Value]:
        """What the row says of its record's columns."""
        target, row = self._target, ready.write.row
        assert row is not None
        values: dict[str, Value] = {}
        for number, held in ready.lookups.items():
            columns = target.references[number].columns
            if held is None:
                mine = (name for name in columns if name not in target.shared[number])
                values.update({name: target.nulls[name] for name in mine})
            elif isinstance(held, tuple):
                values.update(zip(columns, held, strict=True))
        for place in target.flats:
            cell = row[place]
            if cell is not ABSENT:
                name = target.cells[place].column.name
                values[name] = target.nulls[name] if cell is None else cell
        return values

    def straight_columns(self, writes: Sequence[Write]) -> dict[str, Sequence[Value]] | None:
        """The columns of new records that all fill the same ones, where a unique index refuses those that are there.

        None where there is no such index, or a record must be looked at.
        """
        held, is_unique = self._target.key_columns
        if not is_unique:
            return None
        rows = [write.row for write in writes if write.row is not None]
        columns = self._filled(writes) if self._target.lookups else self._flat_columns(rows)
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

    def _filled(self, writes: Sequence[Write]) -> dict[str, Sequence[Value]] | None:
        readies = self.ready(writes, range(len(writes)))
        self.resolve(readies)
        for ready in readies:
            self.fill(ready)
            if ready.refused is not None or ready.values.keys() != readies[0].values.keys():
                return None
        return {name: [ready.values[name] for ready in readies] for name in readies[0].values}

    def bound(self, kind: str, shape: Shape, batch: Sequence[Ready]) -> list[Sequence[Value]]:
        """The arrays of a statement, in the order in which it names them."""
        columns: list[Sequence[Value]] = list(transposed([ready.members for ready in batch]))
        if kind == "insert":
            columns.append(["f" if ready.refused is None else "t" for ready in batch])
            columns += [[ready.values[name] for ready in batch] for name in shape.columns]
            return columns
        if kind == "delete":
            columns.append(["f" if ready.write.expect is None else "t" for ready in batch])
        if shape.mixed:
            columns += self._masks(shape, batch)
        if kind in ("update", "compare"):
            rows = [ready.write.row for ready in batch]
            columns += [self._cells_array(rows, place, mixed=shape.mixed) for place in shape.given]
        rows = [ready.write.expect for ready in batch] if shape.expected else []
        columns += [self._cells_array(rows, place, mixed=shape.mixed) for place in shape.expected]
        for number in shape.lookups:
            columns += self._lookup_arrays(number, batch)
        return columns

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
        nothing = tuple(self._target.nulls[name] for name in reference.columns)
        for ready in batch:
            resolved = ready.lookups.get(number, ABSENT)
            if isinstance(resolved, tuple):
                states.append("k")
                held.append(resolved)
            else:
                states.append(None if resolved is ABSENT else "n" if resolved is None else "x")
                held.append(nothing)
        return [states, *transposed(held)]


def _spoken(row: Row, among: Sequence[int] | None = None) -> tuple[int, ...]:
    """The cells that are not ABSENT; of these only, if given."""
    if among is None:
        return tuple(compress(count(), map(is_not, row, repeat(ABSENT))))
    return tuple([place for place in among if row[place] is not ABSENT])
