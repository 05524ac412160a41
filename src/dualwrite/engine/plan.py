"""The dry run: what an initial sync (or repair) would do, record by record and column by column.  Writes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import assert_never

from dualwrite.connectors.base import Connector
from dualwrite.engine.compare import Alone, Difference, Tally, Unusable, compare, foreseen
from dualwrite.engine.initial import outside
from dualwrite.engine.parents import Wanted
from dualwrite.engine.release import either
from dualwrite.errors import RowProblem
from dualwrite.mapping.compile import CompiledMap
from dualwrite.model import ABSENT, Key, Path, Row, Side, Value, show_key
from dualwrite.schema import Lookup, Schema, View

EXAMPLES = 3
"""Records that are named as examples of those that need a missing parent."""


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
class MissingParents:
    """A record that is not there although others refer to it: on which side, in which table, and who needs it."""

    side: Side
    table: str
    key: Key
    records: int = 0
    examples: list[Key] = field(default_factory=list)


@dataclass
class MapPlan:
    """The plan of one map; ``missing`` are the parents that its rows would wait for."""

    map: str
    master: Side
    tally: Tally = field(default_factory=Tally)
    rows: list[PlannedRow] = field(default_factory=list)
    missing: list[MissingParents] = field(default_factory=list)

    def count(self, action: str, side: Side) -> int:
        """How many records of a side would meet an action."""
        return sum(row.action == action and row.side is side for row in self.rows)


class Planner:
    """Plans several maps together, so that a parent that one of them would create is not missing for another."""

    def __init__(self, connectors: Mapping[Side, Connector], schemas: Mapping[Side, Schema]) -> None:
        self._connectors = connectors
        self._schemas = schemas
        self._coming: set[tuple[Side, str, tuple[tuple[Path, Value], ...]]] = set()
        self._asked: list[tuple[MapPlan, int, Side, tuple[Wanted, ...]]] = []
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
            table = self._schemas[side].tables[compiled.views[side].table]
            for _, branches in compiled.views[side].branches:
                for lookup in branches:
                    self._needed.setdefault((side, table.referenced(lookup)), set()).add(lookup.paths)

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
        then = foreseen(compiled, source, row)
        back = {
            unit.name: (joined(row, unit.indexes), joined(then, unit.indexes))
            for unit in compiled.units[source]
            if any(row[index] != then[index] for index in unit.indexes)
        }
        if back:
            reason = f"as the new record on the {target} side has it, unless that side fills in something else"
            plan.rows.append(PlannedRow(plan.map, source, "update", key, back, reason=reason))

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
        for _, branches in view.branches:
            own = [row[index] for index in branches[0].own]
            if indexes.issuperset(branches[0].own) and any(own) and ABSENT not in own:
                parents = tuple(self._wanted(side, view, lookup, row) for lookup in branches)
                self._asked.append((plan, len(plan.rows) - 1, side, parents))

    def _wanted(self, side: Side, view: View, lookup: Lookup, row: Row) -> Wanted:
        key = tuple(_text(row[index]) for _, index in lookup.parts)
        return Wanted(self._schemas[side].tables[view.table].referenced(lookup), lookup.paths, key)

    def _missing_parents(self) -> None:
        groups: dict[tuple[Side, View], set[Wanted]] = {}
        for _, _, side, parents in self._asked:
            for parent in parents:
                groups.setdefault((side, parent.view), set()).add(parent)
        absent = {(side, each) for (side, view), wanted in groups.items() for each in self._absent(side, view, wanted)}
        told: dict[tuple[int, Side, tuple[Wanted, ...]], MissingParents] = {}
        for plan, index, side, parents in self._asked:
            if all((side, parent) in absent for parent in parents):
                missing = told.get((id(plan), side, parents))
                if missing is None:
                    tables = either(*(parent.table for parent in parents))
                    missing = told[id(plan), side, parents] = MissingParents(side, tables, parents[0].key)
                    plan.missing.append(missing)
                _waits(plan, index, missing)

    def _absent(self, side: Side, view: View, wanted: set[Wanted]) -> set[Wanted]:
        found = self._connectors[side].fetch(view, sorted((parent.key for parent in wanted), key=str))
        return {parent for parent in wanted if not found.get(parent.key) and not self._is_coming(side, parent)}

    def _is_coming(self, side: Side, parent: Wanted) -> bool:
        return (side, parent.table, tuple(zip(parent.paths, parent.key, strict=True))) in self._coming


def _waits(plan: MapPlan, index: int, missing: MissingParents) -> None:
    """Note that a planned row waits for a parent."""
    row = plan.rows[index]
    missing.records += 1
    if len(missing.examples) < EXAMPLES:
        missing.examples.append(row.key)
    told = f"waits for {missing.table} {show_key(missing.key)}, which is missing"
    reason = f"{row.reason}; {told}" if row.reason else told
    plan.rows[index] = replace(row, code="missing_parent", reason=reason)


def skipped(plan: MapPlan, side: Side, key: Key, problem: RowProblem) -> PlannedRow:
    """A record that cannot be mapped."""
    return PlannedRow(plan.map, side, "skip", key, {}, problem.code, str(problem))


def joined(row: Row, indexes: Sequence[int]) -> Value:
    """The cells of a unit as one text; None when all of them are null or not known."""
    cells = [_text(row[index]) for index in indexes]
    return None if all(cell is None for cell in cells) else ", ".join(cell or "" for cell in cells)


def _text(cell: object) -> Value:
    return cell if isinstance(cell, str) else None
