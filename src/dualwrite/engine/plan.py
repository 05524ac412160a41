"""The dry run: what an initial sync (or repair) would do, record by record and column by column.  Writes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import assert_never

from dualwrite.connectors.base import Connector
from dualwrite.engine.compare import Alone, Difference, Tally, Unusable, compare
from dualwrite.engine.initial import outside
from dualwrite.errors import RowProblem
from dualwrite.mapping.compile import CompiledMap
from dualwrite.model import ABSENT, Key, Path, Row, Side, Value
from dualwrite.schema import Lookup, Schema, View


@dataclass(frozen=True, slots=True)
class PlannedRow:
    """What would happen to one record on one side.

    ``action`` is ``insert``, ``update`` or ``skip``.  ``columns`` are the values that would be written: old (None for
    an insert) and new.  ``reason`` says why a record is skipped, or what it would wait for.
    """

    map: str
    side: Side
    action: str
    key: Key
    columns: Mapping[str, tuple[Value, Value]]
    code: str = ""
    reason: str = ""


@dataclass
class MapPlan:
    """The plan of one map."""

    map: str
    master: Side
    tally: Tally = field(default_factory=Tally)
    rows: list[PlannedRow] = field(default_factory=list)

    def count(self, action: str, side: Side) -> int:
        """How many records of a side would meet an action."""
        return sum(row.action == action and row.side is side for row in self.rows)


class Planner:
    """Plans several maps together, so that a parent that one of them would create is not missing for another."""

    def __init__(self, connectors: Mapping[Side, Connector], schemas: Mapping[Side, Schema]) -> None:
        self._connectors = connectors
        self._schemas = schemas
        self._coming: set[tuple[Side, str, tuple[tuple[Path, Value], ...]]] = set()
        self._asked: list[tuple[MapPlan, int, Side, View, Lookup, Key]] = []
        self._needed: dict[tuple[Side, str], set[tuple[Path, ...]]] = {}

    def plan(self, maps: Sequence[CompiledMap], master: Mapping[str, Side]) -> list[MapPlan]:
        """The plans of these maps, in their order."""
        for compiled in maps:
            self._note_lookups(compiled)
        plans = [self._plan(compiled, master[compiled.name]) for compiled in maps]
        self._missing_parents()
        return plans

    def _note_lookups(self, compiled: CompiledMap) -> None:
        for side in Side:
            for lookup in compiled.views[side].lookups:
                table = self._referenced(side, compiled.views[side], lookup)
                self._needed.setdefault((side, table), set()).add(tuple(path for path, _ in lookup.parts))

    def _referenced(self, side: Side, view: View, lookup: Lookup) -> str:
        reference = self._schemas[side].tables[view.table].reference(lookup.reference)
        assert reference is not None, "compiling has found the reference"
        return reference.table

    def _plan(self, compiled: CompiledMap, master: Side) -> MapPlan:
        plan = MapPlan(compiled.name, master)
        with ExitStack() as stack:
            systems = self._connectors
            snapshots = {
                side: stack.enter_context(systems[side].snapshot(compiled.views[side], placed=False)) for side in Side
            }
            ask = outside(compiled, lambda side: systems[side])
            for finding in compare(compiled, snapshots, ask, plan.tally):
                match finding:
                    case Unusable(key, side, code, reason):
                        plan.rows.append(PlannedRow(plan.map, side.other, "skip", key, {}, code, reason))
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
            plan.rows.append(skipped(plan, target, key, problem))
            return
        columns = {unit.name: (None, joined(mapped, unit.indexes)) for unit in units}
        plan.rows.append(PlannedRow(plan.map, target, "insert", key, columns))
        self._ask(compiled, plan, target, mapped, range(len(mapped)))
        view = compiled.views[target]
        cells = dict(zip(view.paths, mapped, strict=True))
        for paths in self._needed.get((target, view.table), ()):
            if all(path in cells for path in paths):
                self._coming.add((target, view.table, tuple((path, _text(cells[path])) for path in paths)))

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
                plan.rows.append(skipped(plan, target, difference.key, problem))
                continue
            if units:
                columns = {unit.name: (joined(now, unit.indexes), joined(mapped, unit.indexes)) for unit in units}
                plan.rows.append(PlannedRow(plan.map, target, "update", difference.key, columns))
                self._ask(compiled, plan, target, mapped, {i for unit in units for i in unit.indexes})

    def _ask(self, compiled: CompiledMap, plan: MapPlan, side: Side, row: Row, written: Iterable[int]) -> None:
        """Remember which parents a planned row needs."""
        view, indexes = compiled.views[side], set(written)
        for lookup in view.lookups:
            own = [row[index] for index in lookup.own]
            if indexes.issuperset(lookup.own) and any(own) and ABSENT not in own:
                key = tuple(_text(row[index]) for _, index in lookup.parts)
                self._asked.append((plan, len(plan.rows) - 1, side, view, lookup, key))

    def _missing_parents(self) -> None:
        groups: dict[tuple[Side, str, tuple[Path, ...]], set[Key]] = {}
        for _, _, side, view, lookup, key in self._asked:
            paths = tuple(path for path, _ in lookup.parts)
            groups.setdefault((side, self._referenced(side, view, lookup), paths), set()).add(key)
        absent = {group: self._absent(*group, keys) for group, keys in groups.items()}
        for plan, index, side, view, lookup, key in self._asked:
            table, paths = self._referenced(side, view, lookup), tuple(path for path, _ in lookup.parts)
            if key in absent[side, table, paths]:
                row = plan.rows[index]
                told = f"waits for {table} {', '.join(member or '()' for member in key)}, which is missing"
                reason = f"{row.reason}; {told}" if row.reason else told
                plan.rows[index] = PlannedRow(
                    row.map, row.side, row.action, row.key, row.columns, "missing_parent", reason
                )

    def _absent(self, side: Side, table: str, paths: tuple[Path, ...], keys: set[Key]) -> set[Key]:
        view = View(f"parents of {table}", table, paths, tuple(range(len(paths))))
        found = self._connectors[side].fetch(view, sorted(keys, key=str))
        coming = {key for key in keys if (side, table, tuple(zip(paths, key, strict=True))) in self._coming}
        return keys - coming - {key for key, rows in found.items() if rows}


def skipped(plan: MapPlan, side: Side, key: Key, problem: RowProblem) -> PlannedRow:
    """A record that cannot be mapped."""
    return PlannedRow(plan.map, side, "skip", key, {}, problem.code, str(problem))


def joined(row: Row, indexes: Sequence[int]) -> Value:
    """The cells of a unit as one text; None when all of them are null or not known."""
    cells = [_text(row[index]) for index in indexes]
    return None if all(cell is None for cell in cells) else ", ".join(cell or "" for cell in cells)


def _text(cell: object) -> Value:
    return cell if isinstance(cell, str) else None
