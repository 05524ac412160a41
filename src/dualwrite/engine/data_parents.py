"""Which of the records that rows name are there, or would be brought by a map: asked for many rows at once."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, TypeAlias

from dualwrite.connectors.base import Connector
from dualwrite.engine.parents import Wanted
from dualwrite.errors import RowProblem
from dualwrite.mapping.compile import CompiledMap
from dualwrite.model import ABSENT, Key, Path, Row, Side
from dualwrite.schema import Lookup

KNOWN: Final = 200_000
"""Records of a table of which it is remembered whether they are there."""

_Place: TypeAlias = tuple[str, tuple[Path, ...]]
"""A table, and the paths there by which its records are named."""


@dataclass(frozen=True)
class NamedBy:
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


class Parents:
    """Which records are there for lookups of one side, or will be, because a map brings them."""

    def __init__(self, side: Side, connectors: Mapping[Side, Connector], maps: Iterable[CompiledMap]) -> None:
        self._side = side
        self._connectors = connectors
        self._maps = [compiled for compiled in maps if compiled.carried[side.other]]
        self._known: dict[_Place, dict[Key, int]] = {}

    def count(self, lookup: NamedBy, named: Collection[Row]) -> dict[Row, int]:
        """How many records each of these cells name, none of which is ABSENT."""
        counts = dict.fromkeys(named, 0)
        cells = {index: place for place, index in enumerate(lookup.cells)}
        for branch, table in zip(lookup.branches, lookup.tables, strict=True):
            members = [cells[index] for _, index in branch.parts]
            keys: dict[Row, Key] = {row: tuple([row[member] for member in members]) for row in named}  # type: ignore[misc]
            known = self._learned((table, branch.paths), keys.values())
            for row, key in keys.items():
                counts[row] += known[key]
        return counts

    def _learned(self, place: _Place, keys: Collection[Key]) -> Mapping[Key, int]:
        """How many records of a place have each of the keys."""
        known = self._known.setdefault(place, {})
        if len(known) > KNOWN:
            known.clear()
        new = [key for key in dict.fromkeys(keys) if key not in known]
        if new:
            table, paths = place
            found = self._connectors[self._side].fetch(Wanted(table, paths, ()).view, new)
            known.update((key, len(found.get(key, ()))) for key in new)
            known.update(dict.fromkeys(self._coming(place, [key for key in new if not known[key]]), 1))
        return known

    def _coming(self, place: _Place, absent: Collection[Key]) -> set[Key]:
        """Those that a map would bring: they are on the other side, and pass its filter."""
        table, paths = place
        found: set[Key] = set()
        for compiled in self._maps if absent else ():
            target = compiled.views[self._side]
            places = {target.paths[index]: index for index in target.key}
            if target.table == table and places.keys() <= set(paths):
                source = self._side.other
                keys = {key: _source_key(compiled, source, paths, key, places) for key in absent}
                asked = [key for key in keys.values() if key is not None]
                rows = self._connectors[source].fetch(compiled.views[source], asked)
                for key, theirs in keys.items():
                    if theirs is not None and any(compiled.passes(source, row) for row in rows.get(theirs, ())):
                        found.add(key)
        return found


def _source_key(
    compiled: CompiledMap, source: Side, paths: tuple[Path, ...], key: Key, places: Mapping[Path, int]
) -> Key | None:
    """The key under which the other side would have a record; what is wanted of it besides its key is left aside."""
    cells = {places[path]: cell for path, cell in zip(paths, key, strict=True) if path in places}
    row = tuple(cells.get(index, ABSENT) for index in range(len(compiled.views[source.other].paths)))
    with suppress(RowProblem):
        return compiled.target_key(source.other, row)
    return None
