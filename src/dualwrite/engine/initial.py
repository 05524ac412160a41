"""Initial sync: make existing records agree, while users write on both sides.

Two snapshots are compared; every difference becomes a *weak* change of one side, which lies just behind that side's
snapshot boundary and is carried first, by the ordinary flow.  Weak changes yield to whatever users did meanwhile.
An initial sync that is interrupted simply compares again.

Where one side is empty, and a system can be read from while the other is written to, what the other holds is carried as
it is read: the boundaries are known, and nothing else need be.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from queue import Empty, Queue
from typing import assert_never

from dualwrite.connectors.base import Connector
from dualwrite.engine.apply import Application
from dualwrite.engine.compare import Alone, Difference, Finding, Outside, Tally, Unusable, compare
from dualwrite.engine.flow import Flow
from dualwrite.engine.ledger import Plan, Trouble
from dualwrite.engine.link import Link
from dualwrite.engine.spool import Spool, Weak
from dualwrite.engine.syncs import Watch, counts, quiet
from dualwrite.journal import Count
from dualwrite.mapping.compile import CompiledMap
from dualwrite.model import Change, Key, Kind, Position, Row, Side

AHEAD = 10
"""Blocks that are read while others are carried."""


@dataclass
class Outcome:
    """What an initial sync (or repair) of one map has done."""

    tally: Tally = field(default_factory=Tally)
    created: dict[Side, int] = field(default_factory=lambda: {Side.LEFT: 0, Side.RIGHT: 0})
    changed: dict[Side, int] = field(default_factory=lambda: {Side.LEFT: 0, Side.RIGHT: 0})
    counts: Sequence[Count] = ()


def outside(compiled: CompiledMap, connectors: Callable[[Side], Connector]) -> Outside:
    """Asks a side for records that its filter hides."""

    def ask(side: Side, keys: Sequence[Key]) -> set[Key]:
        found = connectors(side).fetch(compiled.views[side], keys)
        return {key for key, rows in found.items() if rows and not any(compiled.passes(side, row) for row in rows)}

    return ask


def ahead(findings: Iterator[Finding]) -> Generator[Finding, None, None]:
    """The same; a thread reads on, a few of them at most, while one is worked on.

    To be closed before what they are read from is.
    """
    read: Queue[Finding | BaseException | None] = Queue(AHEAD)
    stop = threading.Event()

    def work() -> None:
        try:
            for finding in findings:
                read.put(finding)
                if stop.is_set():
                    return
            read.put(None)
        except BaseException as trouble:
            read.put(trouble)

    thread = threading.Thread(target=work, name="reading ahead", daemon=True)
    thread.start()
    try:
        while (finding := read.get()) is not None:
            if isinstance(finding, BaseException):
                raise finding
            yield finding
    finally:
        stop.set()
        while thread.is_alive():
            with suppress(Empty):  # it may wait for room
                read.get(timeout=0.01)
        thread.join()


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
        progress: Watch = quiet,
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
        self._snapshots = ExitStack()
        self._reading: Generator[Finding, None, None] | None = None
        self._findings: Iterator[Finding] | None = None  # where one side is empty, those that are still to be read

    def compare(self) -> dict[Side, Position]:
        """Read both sides, or find that one is empty; returns the boundaries.  Nothing is written."""
        with ExitStack() as stack:
            snapshots = {
                side: stack.enter_context(self.link.sides[side].connector.snapshot(self.compiled.views[side]))
                for side in Side
            }
            self.boundaries = {side: snapshot.boundary for side, snapshot in snapshots.items()}
            ask = outside(self.compiled, lambda side: self.link.sides[side].connector)
            tally = self.outcome.tally
            tally.told = partial(self._told, "compare")
            findings = compare(self.compiled, snapshots, ask, tally)
            first = next(findings, None)
            if first is not None:
                findings = chain([first], findings)
            if tally.alone is not None and self._may_stream():
                self._findings = findings
                self._snapshots = stack.pop_all()
            else:
                for finding in findings:
                    self._take(finding)
        for side in Side:
            self._spools[side].seal(self.boundaries[side], self.boundaries[side.other])
            carries = self._spools[side].count or (side is tally.alone and self._findings is not None)
            weak = self._spools[side] if carries else None
            self.link.sides[side].windows.floor(self.compiled.name, self.boundaries[side], weak)
        return self.boundaries

    def _may_stream(self) -> bool:
        """Can one side be read, and the other written to, while both snapshots are held?"""
        return not any(state.connector.capabilities.exclusive for state in self.link.sides.values())

    def _take(self, finding: Finding) -> None:
        match finding:
            case Unusable():
                self._unusable.append(finding)
            case Alone():
                self._create(finding)
            case Difference():
                self._change(finding)
            case _:
                assert_never(finding)

    def _told(self, step: str, done: int) -> None:
        self.progress(self.compiled.name, step, done, 0)

    def _create(self, alone: Alone) -> None:
        """What exists on one side only is created on the other."""
        if self.compiled.carried[alone.side]:
            self._count_created(alone)
            self._spools[alone.side].add(alone.rows, insert=True)

    def _count_created(self, alone: Alone) -> None:
        self.outcome.created[alone.side.other] += len(alone.rows)
        self.outcome.tally.count(f"created {alone.side.other}", alone.keys)

    def _change(self, difference: Difference) -> None:
        """What differs is carried from the master."""
        row = difference.row(self.master)
        assert row is not None, "both sides have it"
        self._one_way(difference)
        if self._carries(difference, self.master):
            self.outcome.changed[self.master.other] += 1
            self.outcome.tally.count(f"changed {self.master.other}", [difference.key])
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
            streams = self._findings is not None and source is self.outcome.tally.alone
            for weak in self._streamed(source) if streams else spool.chunks(lambda flow=flow: flow.weak_limit):  # type: ignore[misc]
                flow.carry_weak(weak)
                flow.settle(idle=False)
                done += len(weak.rows)
                self.progress(self.compiled.name, str(source.other), done, 0 if streams else spool.count)
                flow.point("between chunks")
        for flow in self.flows.values():
            self._park(flow)
            flow.settle(idle=True)
            flow.point("between passes")
        ends = {side: self.link.sides[side].connector.end() for side in Side}
        for source in Side:  # behind this nothing comes that has not seen what was carried here
            self.flows[source].drain(ends[source])
        self.outcome.counts = counts(self.link.journal, self.compiled, self.outcome.tally, self.boundaries)
        return self.outcome

    def _streamed(self, source: Side) -> Iterator[Weak]:
        """What only one side holds, as it is read: nothing of it need be known before the first of it is carried."""
        assert self._findings is not None
        self.outcome.tally.told = lambda _: None  # what is carried is told
        flow, spool, rows = self.flows[source], self._spools[source], list[Row]()
        self._reading = ahead(self._findings)
        for finding in self._reading:
            if not isinstance(finding, Alone):
                self._take(finding)
            elif self.compiled.carried[source]:
                self._count_created(finding)
                rows += finding.rows
                while len(rows) >= (most := flow.weak_limit):
                    yield spool.passing(rows[:most])
                    rows = rows[most:]
        self._snapshots.close()
        if rows:
            yield spool.passing(rows)

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
            flow.finish(transaction, application.ledger, None)

    def _candidate(self, row: Row, side: Side) -> Change:
        at, (boundary, seen) = float("-inf"), (self.boundaries[side], self.boundaries[side.other])
        natural = self.compiled.views[side].natural_key(row)
        return Change(self.compiled.name, Kind.INSERT, natural, None, row, at, boundary, seen, weak=True)

    def close(self) -> None:
        """Let go of the snapshots, forget the weak changes, and give the disk space back."""
        if self._reading is not None:
            self._reading.close()
        self._snapshots.close()
        for side, boundary in self.boundaries.items():
            windows = self.link.sides[side].windows
            if windows.floor_of(self.compiled.name) is not None:
                windows.floor(self.compiled.name, boundary, None)
        for spool in self._spools.values():
            spool.close()
