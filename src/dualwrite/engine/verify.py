"""Prove that both sides agree: compare every record, and look again at those that may merely be in flight."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import assert_never

from dualwrite.connectors.base import Connector
from dualwrite.engine.compare import Alone, Difference, Tally, Unusable, compare
from dualwrite.engine.initial import outside
from dualwrite.engine.pile import Pile
from dualwrite.errors import RowProblem
from dualwrite.lined import weight
from dualwrite.mapping.compile import CompiledMap
from dualwrite.model import Key, Row, Side

ROUNDS = 5
"""How often records that differ are looked at again while users keep writing."""


@dataclass
class Report:
    """What a verification of one map has found.  ``unusable`` are records that cannot be compared at all."""

    map: str
    tally: Tally = field(default_factory=Tally)
    differences: Pile[Difference] = field(default_factory=Pile)
    unusable: Pile[Unusable] = field(default_factory=Pile)
    _counts: Counter[Side | None] = field(default_factory=Counter)

    @property
    def clean(self) -> bool:
        """Do both sides agree on everything?"""
        return not self.differences and not self.unusable

    def count(self, only: Side | None) -> int:
        """Differences of records that exist on that side only; of both with None."""
        return self._counts[only]

    def differ(self, difference: Difference) -> None:
        """Note a record that differs."""
        self._counts[difference.only] += 1
        self.differences.append(difference, weight([row for row in (difference.left, difference.right) if row]))

    def cannot_compare(self, unusable: Unusable) -> None:
        """Note a record that cannot be compared."""
        self.unusable.append(unusable, weight(unusable.rows))

    def look_again(self, judge: Callable[[Sequence[Difference]], Iterable[Difference]]) -> None:
        """Let ``judge`` say, of some records at a time, which of them still differ."""
        before, self.differences, self._counts = self.differences, Pile(), Counter()
        for block in before.blocks():
            for difference in judge(block):
                self.differ(difference)


def verify(
    compiled: CompiledMap,
    connectors: Mapping[Side, Connector],
    settle: Callable[[], bool] = lambda: False,
    told: Callable[[int], None] = lambda _: None,
) -> Report:
    """Compare all records of a map; ``told`` how many are read.

    ``settle`` waits until both flows have carried what is committed by now and tells whether an engine is running;
    records that differ are then looked at again, so that what is merely in flight raises no alarm.
    """
    report = Report(compiled.name, Tally(told))
    with ExitStack() as stack:
        snapshots = {
            side: stack.enter_context(connectors[side].snapshot(compiled.views[side], placed=False)) for side in Side
        }
        ask = outside(compiled, lambda side: connectors[side])
        for finding in compare(compiled, snapshots, ask, report.tally):
            match finding:
                case Unusable():
                    report.cannot_compare(finding)
                case Difference():
                    report.differ(finding)
                case Alone():
                    for difference in finding.differences():
                        report.differ(difference)
                case _:
                    assert_never(finding)
    for _ in range(ROUNDS):
        if not report.differences or not settle():
            break
        report.look_again(partial(_look_again, compiled, connectors, report.tally))
    return report


def _look_again(
    compiled: CompiledMap, connectors: Mapping[Side, Connector], tally: Tally, differences: Sequence[Difference]
) -> Iterator[Difference]:
    """Those of some records that still differ; the others are counted."""
    wanted: dict[Side, dict[Key, list[Key]]] = {side: {} for side in Side}
    for difference in differences:
        for side in Side:
            for natural in _naturals(compiled, side, difference):
                wanted[side].setdefault(natural, []).append(difference.key)
    rows: dict[Side, dict[Key, Row]] = {side: {} for side in Side}
    for side in Side:
        for found in connectors[side].fetch(compiled.views[side], list(wanted[side])).values():
            for row in found:
                if compiled.passes(side, row):
                    rows[side][compiled.key(side, row)] = row
    for difference in differences:
        left, right = rows[Side.LEFT].get(difference.key), rows[Side.RIGHT].get(difference.key)
        again = _judge(compiled, difference.key, left, right)
        if again is None:
            if left is not None:
                tally.agreed([difference.key])
        else:
            yield again


def _naturals(compiled: CompiledMap, side: Side, difference: Difference) -> Sequence[Key]:
    """How the record is found on a side: by its own row there, or by its counterpart's mapped key."""
    own, other = difference.row(side), difference.row(side.other)
    try:
        if other is not None:
            return [compiled.target_key(side.other, other)]
        assert own is not None
        return [compiled.target_key(side.other, compiled.map_row(side, own))]
    except RowProblem:
        return []


def _judge(compiled: CompiledMap, key: Key, left: Row | None, right: Row | None) -> Difference | None:
    if left is None and right is None:
        return None
    if left is None or right is None:
        return Difference(key, left, right)
    try:
        units = compiled.agree(left, right)
    except RowProblem as problem:
        units = [problem.column]
    return Difference(key, left, right, tuple(units)) if units else None
