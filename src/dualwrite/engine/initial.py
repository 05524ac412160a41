"""Initial sync: make existing records agree, while users write on both sides.

Two snapshots are compared; every difference becomes a *weak* change of one side, which lies just behind that side's
snapshot boundary and is carried first, by the ordinary flow.  Weak changes yield to whatever users did meanwhile.
An initial sync that is interrupted simply compares again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import assert_never

from dualwrite.connectors.base import Connector
from dualwrite.engine.apply import Application
from dualwrite.engine.compare import Alone, Difference, Outside, Tally, Unusable, compare
from dualwrite.engine.flow import Flow
from dualwrite.engine.ledger import Plan, Trouble
from dualwrite.engine.link import Link
from dualwrite.engine.spool import Spool
from dualwrite.mapping.compile import CompiledMap
from dualwrite.model import Change, Key, Kind, Position, Row, Side

Progress = Callable[[str, str, int, int], None]
"""Called with the map, the step (``compare``, ``left``, ``right``), how much is done and how much there is (0: not
known)."""


def quiet(_map: str, _step: str, _done: int, _total: int) -> None:
    """Report nothing."""


@dataclass
class Outcome:
    """What an initial sync (or repair) of one map has done."""

    tally: Tally = field(default_factory=Tally)
    created: dict[Side, int] = field(default_factory=lambda: {Side.LEFT: 0, Side.RIGHT: 0})
    changed: dict[Side, int] = field(default_factory=lambda: {Side.LEFT: 0, Side.RIGHT: 0})
    parked: int = 0


def outside(compiled: CompiledMap, connectors: Callable[[Side], Connector]) -> Outside:
    """Asks a side for records that its filter hides."""

    def ask(side: Side, keys: Sequence[Key]) -> set[Key]:
        found = connectors(side).fetch(compiled.views[side], keys)
        return {key for key, rows in found.items() if rows and not any(compiled.passes(side, row) for row in rows)}

    return ask


class InitialSync:
    """The initial sync of one map on an open link whose flows stand still meanwhile.

    The map is live already (in ``link.maps``, its views installed and in both feeds); its changes up to the boundaries
    are dropped, because the snapshots contain them.
    """

    def __init__(
        self,
        link: Link,
        flows: dict[Side, Flow],
        compiled: CompiledMap,
        master: Side,
        progress: Progress = quiet,
    ) -> None:
        self.link = link
        self.flows = flows
        self.compiled = compiled
        self.master = master
        self.progress = progress
        self.outcome = Outcome()
        self.boundaries: dict[Side, Position] = {}
        self._spools = {side: Spool(compiled, side) for side in Side}
        self._unusable: list[Unusable] = []

    def compare(self) -> dict[Side, Position]:
        """Read both sides; returns the boundaries.  Nothing is written."""
        with ExitStack() as stack:
            snapshots = {
                side: stack.enter_context(self.link.sides[side].connector.snapshot(self.compiled.views[side]))
                for side in Side
            }
            self.boundaries = {side: snapshot.boundary for side, snapshot in snapshots.items()}
            ask = outside(self.compiled, lambda side: self.link.sides[side].connector)
            self.outcome.tally.told = partial(self._told, "compare")
            for finding in compare(self.compiled, snapshots, ask, self.outcome.tally):
                match finding:
                    case Unusable():
                        self._unusable.append(finding)
                    case Alone(source, _, rows):
                        self._create(source, rows)
                    case Difference():
                        self._change(finding)
                    case _:
                        assert_never(finding)
        for side in Side:
            self._spools[side].seal(self.boundaries[side], self.boundaries[side.other])
            weak = self._spools[side] if self._spools[side].count else None
            self.link.sides[side].windows.floor(self.compiled.name, self.boundaries[side], weak)
        return self.boundaries

    def _told(self, step: str, done: int) -> None:
        self.progress(self.compiled.name, step, done, 0)

    def _create(self, source: Side, rows: Sequence[Row]) -> None:
        """What exists on one side only is created on the other."""
        if self.compiled.carried[source]:
            self.outcome.created[source.other] += len(rows)
            self._spools[source].add(rows, insert=True)

    def _change(self, difference: Difference) -> None:
        """What differs is carried from the master."""
        row = difference.row(self.master)
        assert row is not None, "both sides have it"
        self._one_way(difference)
        if self._carries(difference, self.master):
            self.outcome.changed[self.master.other] += 1
            self._spools[self.master].add([row], insert=False)

    def _carries(self, difference: Difference, source: Side) -> bool:
        """Does one of the differing units flow out of ``source``?"""
        units = {unit.name: unit for unit in self.compiled.units[source.other]}
        return any(name not in units or units[name].owner is not source.other for name in difference.units)

    def _one_way(self, difference: Difference) -> None:
        """Columns that belong to the side that is not the master are taken from there all the same."""
        other = self.master.other
        row = difference.row(other)
        if row is not None and self._carries(difference, other):
            owned = {unit.name for unit in self.compiled.units[self.master] if unit.owner is other}
            if owned.intersection(difference.units):
                natural = self.compiled.views[other].natural_key(row)
                self.link.sides[other].restore[self.compiled.name, difference.key] = natural

    def apply(self) -> Outcome:
        """Carry the differences, both ways; then what waited for one another."""
        for source in Side:
            self.flows[source].drain(self.boundaries[source])
        for source in Side:
            flow, spool = self.flows[source], self._spools[source]
            done = 0
            for weak in spool.chunks(lambda flow=flow: flow.limit):  # type: ignore[misc]
                flow.carry_weak(weak)
                flow.settle(idle=False)
                done += len(weak.rows)
                self.progress(self.compiled.name, str(source.other), done, spool.count)
                flow.point("between chunks")
        for flow in self.flows.values():
            self._park(flow)
            flow.settle(idle=True)
            flow.point("between passes")
        ends = {side: self.link.sides[side].connector.end() for side in Side}
        for source in Side:  # behind this nothing comes that has not seen what was carried here
            self.flows[source].drain(ends[source])
        return self.outcome

    def _park(self, flow: Flow) -> None:
        """Records that cannot be told apart, or have no key, wait for a person."""
        mine = [finding for finding in self._unusable if finding.side is flow.source]
        if not mine:
            return
        with flow.begin() as transaction:
            application = Application(self.link, flow.source, transaction)
            for finding in mine:
                changes = [self._candidate(row, flow.source) for row in finding.rows]
                plan = Plan(self.compiled, finding.key, changes, finding.key)
                application.ledger.park(plan, Trouble(finding.code, finding.reason))
                self.outcome.parked += 1
            flow.finish(transaction, application.ledger, None)

    def _candidate(self, row: Row, side: Side) -> Change:
        at, (boundary, seen) = float("-inf"), (self.boundaries[side], self.boundaries[side.other])
        natural = self.compiled.views[side].natural_key(row)
        return Change(self.compiled.name, Kind.INSERT, natural, None, row, at, boundary, seen, weak=True)

    def close(self) -> None:
        """Forget the weak changes, and give the disk space back."""
        for side, boundary in self.boundaries.items():
            windows = self.link.sides[side].windows
            if windows.floor_of(self.compiled.name) is not None:
                windows.floor(self.compiled.name, boundary, None)
        for spool in self._spools.values():
            spool.close()
