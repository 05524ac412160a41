"""The dry run: what an initial sync (or repair) would do, record by record and column by column.  Writes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import assert_never

from dualwrite.connectors.base import Connector
from dualwrite.engine.compare import Alone, Difference, Tally, Unusable, compare, foreseen
from dualwrite.engine.initial import outside
from dualwrite.engine.parents import Wanted
from dualwrite.engine.planned import MissingParents, Planned, PlannedRow
from dualwrite.errors import RowProblem
from dualwrite.mapping.compile import CompiledMap
from dualwrite.model import ABSENT, Key, Path, Row, Side, Value
from dualwrite.schema import Lookup, Schema, View


@dataclass
class MapPlan:
    """The plan of one map."""

    map: str
    master: Side
    planned: Planned
    tally: Tally = field(default_factory=Tally)

    def count(self, action: str, *sides: Side) -> int:
        """How many records of these sides would meet an action."""
        return sum(self.planned.count(self.map, action, side) for side in sides)

    def rows(self, action: str | None = None, *, told: bool = False) -> Iterator[PlannedRow]:
        """What is planned, in the order in which it was; only rows with a reason if ``told``."""
        return self.planned.rows(self.map, action, told=told)

    def count_told(self, action: str) -> int:
        """How many records would meet an action, and have a reason."""
        return self.planned.count_told(self.map, action)

    def missing(self, most: int = -1) -> Iterator[MissingParents]:
        """The parents that rows would wait for, at ``most`` so many: those first that most of them need."""
        return self.planned.missing(self.map, most)

    def count_missing(self) -> int:
        """How many they are."""
        return self.planned.count_missing(self.map)


class Planner:
    """Plans several maps together, so that a parent that one of them would create is not missing for another."""

    def __init__(self, connectors: Mapping[Side, Connector], schemas: Mapping[Side, Schema]) -> None:
        self._connectors = connectors
        self._schemas = schemas
        self._planned = Planned()
        self._needed: dict[tuple[Side, str], set[tuple[Path, ...]]] = {}

    def plan(self, maps: Sequence[CompiledMap], master: Mapping[str, Side]) -> list[MapPlan]:
        """The plans of these maps, in their order."""
        for compiled in maps:
            self._note_lookups(compiled)
        plans = [self._plan(compiled, master[compiled.name]) for compiled in maps]
        self._planned.look(lambda side, view, keys: self._connectors[side].fetch(view, keys))
        return plans

    def _note_lookups(self, compiled: CompiledMap) -> None:
        for side in Side:
            table = self._schemas[side].tables[compiled.views[side].table]
            for _, branches in compiled.views[side].branches:
                for lookup in branches:
                    self._needed.setdefault((side, table.referenced(lookup)), set()).add(lookup.paths)

    def _plan(self, compiled: CompiledMap, master: Side) -> MapPlan:
        plan = MapPlan(compiled.name, master, self._planned)
        with ExitStack() as stack:
            systems = self._connectors
            snapshots = {
                side: stack.enter_context(systems[side].snapshot(compiled.views[side], placed=False)) for side in Side
            }
            ask = outside(compiled, lambda side: systems[side])
            for finding in compare(compiled, snapshots, ask, plan.tally):
                match finding:
                    case Unusable(key, side, code, reason):
                        self._planned.add(PlannedRow(plan.map, side.other, "skip", key, {}, code, reason))
                    case Difference():
                        self._update(compiled, plan, finding, master)
                    case Alone(side, keys, rows):
                        for key, row in zip(keys, rows, strict=True):
                            self._insert(compiled, plan, key, row, side)
                    case _:
                        assert_never(finding)
        return plan

    def _insert(self, compiled: CompiledMap, plan: MapPlan, key: Key, row: Row, source: Side) -> None:
        target = source.other
        units = [unit for unit in compiled.units[target] if unit.owner is not target]
        if not units:
            return
        try:
            mapped = compiled.map_row(source, row)
        except RowProblem as problem:
            self._planned.add(skipped(plan, target, key, problem))
            return
        columns = {unit.name: (None, joined(mapped, unit.indexes)) for unit in units}
        self._planned.add(PlannedRow(plan.map, target, "insert", key, columns))
        self._ask(compiled, target, mapped, range(len(mapped)))
        view = compiled.views[target]
        cells = dict(zip(view.paths, mapped, strict=True))
        for paths in self._needed.get((target, view.table), ()):
            if all(path in cells for path in paths):
                self._planned.comes(target, view.table, [(path, _text(cells[path])) for path in paths])
        then = foreseen(compiled, source, row)
        back = {
            unit.name: (joined(row, unit.indexes), joined(then, unit.indexes))
            for unit in compiled.units[source]
            if any(row[index] != then[index] for index in unit.indexes)
        }
        if back:
            reason = f"as the new record on the {target} side has it, unless that side fills in something else"
            self._planned.add(PlannedRow(plan.map, source, "update", key, back, reason=reason))

    def _update(self, compiled: CompiledMap, plan: MapPlan, difference: Difference, master: Side) -> None:
        for source in (master, master.other):
            target = source.other
            row, now = difference.row(source), difference.row(target)
            assert row is not None
            assert now is not None
            units = [
                unit
                for unit in compiled.units[target]
                if unit.name in difference.units and (unit.owner is source or (unit.owner is None and source is master))
            ]
            try:
                mapped = compiled.map_row(source, row) if units or source is master else now
            except RowProblem as problem:
                self._planned.add(skipped(plan, target, difference.key, problem))
                continue
            if units:
                columns = {unit.name: (joined(now, unit.indexes), joined(mapped, unit.indexes)) for unit in units}
                self._planned.add(PlannedRow(plan.map, target, "update", difference.key, columns))
                self._ask(compiled, target, mapped, {i for unit in units for i in unit.indexes})

    def _ask(self, compiled: CompiledMap, side: Side, row: Row, written: Iterable[int]) -> None:
        """Remember which parents the row that was planned last needs."""
        view, indexes = compiled.views[side], set(written)
        for _, branches in view.branches:
            own = [row[index] for index in branches[0].own]
            if indexes.issuperset(branches[0].own) and any(own) and ABSENT not in own:
                self._planned.needs(side, [self._wanted(side, view, lookup, row) for lookup in branches])

    def _wanted(self, side: Side, view: View, lookup: Lookup, row: Row) -> Wanted:
        key = tuple(_text(row[index]) for _, index in lookup.parts)
        return Wanted(self._schemas[side].tables[view.table].referenced(lookup), lookup.paths, key)


def skipped(plan: MapPlan, side: Side, key: Key, problem: RowProblem) -> PlannedRow:
    """A record that cannot be mapped."""
    return PlannedRow(plan.map, side, "skip", key, {}, problem.code, str(problem))


def joined(row: Row, indexes: Sequence[int]) -> Value:
    """The cells of a unit as one text; None when all of them are null or not known."""
    cells = [_text(row[index]) for index in indexes]
    return None if all(cell is None for cell in cells) else ", ".join(cell or "" for cell in cells)


def _text(cell: object) -> Value:
    return cell if isinstance(cell, str) else None
