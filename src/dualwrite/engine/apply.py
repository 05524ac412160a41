"""One apply transaction: arriving changes become writes of the target.

The changes of a batch are gathered per record, and the records per map.  Parents are written before children, deletes
children first; what could not be written is tried once more behind everything else, then parked — alone, with the
target's own words.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress

from dualwrite.connectors.base import Transaction
from dualwrite.engine.ledger import SET_ASIDE, Ledger, Plan, Trouble
from dualwrite.engine.link import Link
from dualwrite.engine.loops import LOOP
from dualwrite.engine.release import MANY_DELETES
from dualwrite.engine.spool import Weak
from dualwrite.engine.stage import Stage
from dualwrite.engine.window import record_keys
from dualwrite.errors import RowProblem
from dualwrite.lined import Lined
from dualwrite.mapping.compile import CompiledMap
from dualwrite.model import Applied, Change, Key, Kind, Record, Row, Side, Write


class Application:
    """The changes of one batch on their way into one target transaction."""

    def __init__(
        self,
        link: Link,
        source: Side,
        transaction: Transaction,
        held: Collection[str] = frozenset(),
        *,
        divisible: bool = False,
    ) -> None:
        """``held`` are maps whose deletes wait for a person's word; ``divisible``: the caller minds a ``Doubt``."""
        self.link = link
        self.source = source
        self.target = source.other
        self.transaction = transaction
        self.held = held
        self.ledger = Ledger(link.sides[self.target], transaction, divisible=divisible)

    def run(self, changes: Iterable[Change]) -> Ledger:
        """Apply projected changes of live maps, in feed order."""
        changes = self._with_windows(changes)
        segment: dict[tuple[str, Key], Plan] = {}
        renamed: dict[tuple[str, Key], Plan] = {}
        for change in changes:
            compiled = self.link.maps[change.view]
            keys = self._keys(compiled, change)
            if keys is None or self.ledger.queue(compiled, keys, change):
                continue
            old, new = keys[0], keys[-1]
            record = compiled.name, old
            plan = renamed.get(record) or segment.get(record)
            moves = old != new
            if (plan is not None and plan.new_key != old) or (
                moves and ((compiled.name, new) in segment or (compiled.name, new) in renamed)
            ):
                self._segment(segment.values())  # the key was somebody else's earlier in this batch: write that first
                segment, renamed, plan = {}, {}, None
                if self.ledger.queue(compiled, keys, change):
                    continue
            if plan is None:
                plan = segment[record] = Plan(compiled, old, [], old)
            plan.changes.append(change)
            plan.new_key = new
            if moves:
                renamed[compiled.name, new] = plan
        self._segment(segment.values())
        return self.ledger

    def set_aside(self, changes: Iterable[Change]) -> Ledger:
        """Park them all, in feed order, as a person wants it."""
        for change in changes:
            compiled = self.link.maps[change.view]
            keys = self._keys(compiled, change)
            if keys is not None and not self.ledger.queue(compiled, keys, change):
                self.ledger.park(Plan(compiled, keys[0], [change], keys[-1]), SET_ASIDE)
        return self.ledger

    def _with_windows(self, changes: Iterable[Change]) -> Iterable[Change]:
        """The same; where windows of their records are in the journal, they are at hand from here on."""
        here, there = (self.link.sides[side] for side in (self.target, self.source))
        if not (here.backlogs or here.parked or there.parked):
            here.windows.lend({})
            return changes
        kept = {name for name, lane in here.backlogs.items() if lane.holds_any}
        kept |= {name for name in self.link.maps if here.parked.concerns(name) or there.parked.concerns(name)}
        wanted: dict[Record, None] = {}
        changes = list(changes)
        for change in changes:
            if change.view in kept:
                with suppress(RowProblem):
                    keys = record_keys(self.link.maps[change.view], self.source, change)
                    wanted.update(((change.view, key), None) for key in keys)
        self.link.lend(self.target, wanted)
        return changes

    def load(self, weak: Weak) -> Ledger:
        """As ``run``, for what an initial sync found: inserts into a target that nobody has touched meanwhile go in
        as they are; whatever does not simply go in takes the ordinary way."""
        compiled = weak.compiled
        left: Iterable[int] = range(len(weak.rows))
        if self._is_untouched(compiled):
            left = () if self._insert_whole(compiled, weak) else self._insert(compiled, weak)
        return self.run(weak.change(number) for number in left)

    def _insert_whole(self, compiled: CompiledMap, weak: Weak) -> bool:
        """Insert all of them at once, where the system can."""
        view = compiled.views[self.target]
        if not all(weak.inserts) or not any(
            self.transaction.insert(view, rows) for rows in self._mapped(compiled, weak)
        ):
            return False
        self._note_inserted(compiled, len(weak.rows))
        self.ledger.inserts_whole = True
        return True

    def _mapped(self, compiled: CompiledMap, weak: Weak) -> Iterator[Sequence[Row]]:
        """The rows as the target's: as lines if they are, then as they are if those do not do."""
        lined = compiled.map_lines(self.source, weak.rows) if isinstance(weak.rows, Lined) else None
        if lined is not None:
            yield lined
        rows = compiled.map_rows(self.source, weak.rows)
        known = [row for row in rows if row is not None]
        if len(known) == len(rows):
            yield known

    def _insert(self, compiled: CompiledMap, weak: Weak) -> list[int]:
        """Returns the numbers of the changes that are still to be carried."""
        view = compiled.views[self.target]
        mapped = compiled.map_rows(self.source, weak.rows)
        numbers = [n for n, (insert, row) in enumerate(zip(weak.inserts, mapped, strict=True)) if insert and row]
        rows = [row for n in numbers if (row := mapped[n]) is not None]
        writes = [Write(key, None, row) for key, row in zip(view.natural_keys(rows), rows, strict=True)]
        outcomes = self.transaction.write(view, writes)
        done = {number for number, outcome in zip(numbers, outcomes, strict=True) if isinstance(outcome, Applied)}
        self._note_inserted(compiled, len(done))
        return [number for number in range(len(weak.rows)) if number not in done]

    def _note_inserted(self, compiled: CompiledMap, count: int) -> None:
        self.ledger.counts[compiled.name, "applied"] += count
        self.ledger.loaded.add(compiled.name)
        self.ledger.tables.add(compiled.views[self.target].table)

    def _is_untouched(self, compiled: CompiledMap) -> bool:
        """Is there nothing of the map's records but what the changes themselves say?"""
        name = compiled.name
        here = self.link.sides[self.target]
        there = self.link.sides[self.source]
        is_known = here.parked.concerns(name) or there.parked.concerns(name) or here.hidden.concerns(name)
        return not is_known and here.windows.is_untouched(name)

    def _keys(self, compiled: CompiledMap, change: Change) -> tuple[Key, ...] | None:
        try:
            return record_keys(compiled, self.source, change)
        except RowProblem as problem:
            key: Key = (None,) * len(change.key) if problem.code == "empty_key" else change.key
            plan = Plan(compiled, key, [change], key)
            if not self.ledger.queue(compiled, (key,), change):
                self.ledger.park(plan, Trouble(problem.code, problem.message, problem.column))
            return None

    def _stage(self, plans: Sequence[Plan]) -> Stage:
        return Stage(self.link, self.source, self.transaction, self.ledger, plans[0].compiled, plans)

    def _segment(self, plans: Iterable[Plan]) -> None:
        ready = list(plans)
        if self.held or self.ledger.holds_any or self.link.loops.found:
            ready = [plan for plan in ready if not self._held_back(plan) and not self._asks_first(plan)]
        by_map: dict[str, list[Plan]] = {}
        for plan in ready:
            by_map.setdefault(plan.compiled.name, []).append(plan)
        ordered = [by_map[name] for name in self.link.maps if name in by_map]
        work = [self._stage(plans) for plans in ordered]
        for stage in work:
            stage.upserts()
        for stage in reversed(work):
            stage.deletes()
        for stage in work:
            stage.again()
        for stage in work:
            stage.patch()
        touched = self.ledger.touched
        for plan in ready:
            if plan.renames:
                touched[plan.compiled.name, plan.new_key] = plan.changes[-1]
            touched[plan.compiled.name, plan.key] = plan.changes[0]

    def _asks_first(self, plan: Plan) -> bool:
        """Is it one of too many deletes, or of a record that changes without end?  It is parked for a person."""
        loop = self.link.loops.found.get((plan.compiled.name, plan.key)) if self.link.loops.found else None
        if loop is not None:
            self.ledger.park(plan, Trouble(LOOP, loop.reason, loop.column))
            return True
        if plan.compiled.name not in self.held or plan.changes[-1].kind is not Kind.DELETE:
            return False
        limit = self.link.delete_limit
        reason = f"the {self.source} side deletes more than {limit} records within a minute"
        self.ledger.park(plan, Trouble(MANY_DELETES, reason))
        return True

    def _held_back(self, plan: Plan) -> bool:
        """Has something of this very batch parked the record meanwhile?"""
        if not self.ledger.is_parked(plan.compiled.name, plan.key):
            return False
        for change in plan.changes:
            self.ledger.queue(plan.compiled, record_keys(plan.compiled, self.source, change), change)
        return True
