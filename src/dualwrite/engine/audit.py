"""What an apply transaction has done, as lines of the audit.

Made after the work and before the commit, from what the ledger has noted: while rows are written, only a pair each.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from itertools import compress, count, groupby, repeat
from operator import is_not, ne
from typing import Final

from dualwrite.engine.ledger import Ledger, Plan
from dualwrite.journal import Block, BlockWriter, Carrier, Journal, Layout, Line
from dualwrite.mapping.compile import CompiledMap
from dualwrite.model import ABSENT, Change, Key, Kind, Row, Side, Write

CARRIED: Final = "carried"
FOLDED: Final = "carried with a later change"
MERGED: Final = "merged"
RESTORED: Final = "restored"


class Auditor:
    """Makes the blocks of a link's audit; ``maps`` are the live ones."""

    def __init__(
        self, journal: Journal, maps: Mapping[str, CompiledMap], clock: Callable[[], float] = time.time
    ) -> None:
        self._journal = journal
        self._maps = maps
        self._clock = clock
        self._carriers: dict[int, tuple[CompiledMap, int]] = {}

    def _carrier(self, compiled: CompiledMap) -> int:
        known = self._carriers.get(id(compiled))
        if known is None:
            table_map = compiled.table_map
            left, right = (Layout.of(compiled.views[side]) for side in Side)
            carrier = Carrier(table_map.name, table_map.version, table_map.publisher, left, right)
            known = self._carriers[id(compiled)] = (compiled, self._journal.audits.carrier(carrier))
        return known[1]

    def block(self, target: Side, ledger: Ledger) -> Block | None:
        """What a transaction of the target has applied, parked and freed; None where that is nothing."""
        writer = BlockWriter()
        parked = {id(change) for plan, _ in ledger.parked for change in plan.changes}
        for alike, several in groupby(_once_per_plan(ledger.applied), partial(_alike, parked)):
            if alike is None:
                for plan, write in several:
                    self._applied(writer, target, plan, write, parked)
            else:
                self._updates(writer, list(several))
        still = {(plan.compiled.name, plan.key) for plan, _ in ledger.parked}
        for name, key in dict.fromkeys(ledger.freed):
            if (name, key) not in still and name in self._maps:
                writer.add(["freed", self._carrier(self._maps[name]), key, ledger.freed_by], key)
        for plan, trouble in ledger.parked:
            writer.add(["parked", self._carrier(plan.compiled), plan.key, trouble.code, trouble.reason], plan.key)
        return writer.block(target, ledger.number, self._clock()) if writer.lines else None

    def restored(
        self, target: Side, number: int, compiled: CompiledMap, written: Iterable[tuple[Key, Write, Row]]
    ) -> Block:
        """One-way columns that were written back to records with these keys, over these rows."""
        writer = BlockWriter()
        for key, write, row in written:
            edits = _edits(write, row)
            writer.add([RESTORED, self._carrier(compiled), key, None, None, None, None, CARRIED, None, edits], key)
        return writer.block(target, number, self._clock())

    def _updates(self, writer: BlockWriter, work: Sequence[tuple[Plan, Write]]) -> None:
        """Changes that follow one another and differ in their keys and values only."""
        (plan, write), changes = work[0], [plan.changes[0] for plan, _ in work]
        position = changes[0].position
        origin = writer.origin(position.feed, changes[0].at, changes[0].xid)
        keys = [plan.key for plan, _ in work]
        naturals = [change.key for change in changes]
        writer.updates(
            [
                self._carrier(plan.compiled),
                None if naturals == keys else naturals,
                origin,
                position.place[:-1],
                CARRIED,
                [change.position.place[-1] for change in changes],
                _columns(plan.edited, [change.before for change in changes], [change.after for change in changes]),
                _columns(write.cells, [write.expect for _, write in work], [write.row for _, write in work]),
            ],
            keys,
        )

    def _applied(self, writer: BlockWriter, target: Side, plan: Plan, write: Write, parked: set[int]) -> None:
        """The changes of a plan; what came of them at the target stands at the last one."""
        changes = [each for each in plan.changes if id(each) not in parked] if parked else plan.changes
        if not changes or (changes[-1].weak and changes[-1].kind is Kind.INSERT):
            return  # what an initial sync creates is counted in the activity log
        carrier = self._carrier(plan.compiled)
        new_key = plan.new_key if plan.renames else None
        held = _held(plan, write)
        last = changes[-1]
        for change in changes:
            position = change.position
            natural = write.key if change.weak else change.key
            line: Line = [
                change.kind.value,
                carrier,
                plan.key,
                new_key,
                None if natural == plan.key else natural,
                writer.origin(position.feed, change.at, change.xid),
                position.place,
                _verdict(change, plan, target) if plan.met else CARRIED if change is last else FOLDED,
                _source(change),
                _target(change.kind, write, held) if change is last else None,
            ]
            writer.add(line, plan.key, new_key)


def _once_per_plan(applied: Sequence[tuple[Plan, Write]]) -> Iterable[tuple[Plan, Write]]:
    """The writes, those of one plan (a bare record and its references, a step each) as one."""
    if len({id(plan) for plan, _ in applied}) == len(applied):
        return applied
    found: dict[int, tuple[Plan, Write]] = {}
    for plan, write in applied:
        first = found.get(id(plan))
        found[id(plan)] = (plan, write if first is None else _then(first[1], write))
    return found.values()


def _then(first: Write, second: Write) -> Write:
    if first.row is None or second.row is None:
        return Write(first.key, first.expect, second.row)
    row = tuple(a if b is ABSENT else b for a, b in zip(first.row, second.row, strict=True))
    if first.expect is None or second.expect is None:
        return Write(first.key, first.expect, row)
    expect = tuple(b if a is ABSENT else a for a, b in zip(first.expect, second.expect, strict=True))
    return Write(first.key, expect, row)


def _alike(parked: Collection[int], work: tuple[Plan, Write]) -> tuple[object, ...] | None:
    """What plain updates have in common that go into one line; None for what is to be told by itself."""
    plan, write = work
    change = plan.changes[0]
    if plan.edited is None or write.cells is None or write.expect is None or change.kind is not Kind.UPDATE:
        return None
    if len(plan.changes) > 1 or plan.met or plan.fetched or plan.renames or change.weak or id(change) in parked:
        return None
    position = change.position
    return id(plan.compiled), position.feed, position.place[:-1], change.at, change.xid, plan.edited, write.cells


def _columns(cells: Iterable[int] | None, befores: Sequence[Row | None], afters: Sequence[Row | None]) -> list[object]:
    """For each of the cells its index, and what it was and is in all rows."""
    found: list[object] = []
    for index in cells or ():
        found += index, [row[index] for row in befores if row], [row[index] for row in afters if row]
    return found


def _held(plan: Plan, write: Write) -> Row | None:
    """What the target held before, as far as that is known."""
    return plan.fetched[0] if plan.fetched and len(plan.fetched) == 1 else write.expect


def _verdict(change: Change, plan: Plan, target: Side) -> str:
    """What became of a change that met others."""
    met = [loss for loss in plan.losses if change.position in (loss.loser, loss.beats)]
    told = [f"{loss.unit} {'lost' if loss.winner is target else 'won'} ({loss.policy})" for loss in met]
    return "conflict: " + ", ".join(told) if told else MERGED


def _source(change: Change) -> Sequence[object] | None:
    before, after = change.before, change.after
    if before is None or after is None:
        return None if change.weak else after or before
    found: list[object] = []
    for index in compress(count(), map(ne, before, after)):
        found += index, before[index], after[index]
    return found


def _target(kind: Kind, write: Write, held: Row | None) -> Sequence[object] | None:
    """The images at the target, in the form of the change's kind."""
    if write.row is None:
        return held
    return write.row if kind is Kind.INSERT else _edits(write, held)


def _edits(write: Write, held: Row | None) -> list[object]:
    row, before = write.row or (), held
    found: list[object] = []
    for index in compress(count(), map(is_not, row, repeat(ABSENT))):
        cell, was = row[index], ABSENT if before is None else before[index]
        if before is None or was != cell:
            found += index, was, cell
    return found
