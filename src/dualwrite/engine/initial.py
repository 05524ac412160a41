"""Initial sync: make existing records agree, while users write on both sides.

Two snapshots are compared; every difference becomes a *weak* change of one side, which lies just behind that side's
snapshot boundary and is carried first, by the ordinary flow.  Weak changes yield to whatever users did meanwhile.
What an initial sync that is interrupted has found is kept (``resuming``), and the next process goes on with it.

Where one side is empty, and a system can be read from while the other is written to, what the other holds is carried as
it is read: the boundaries are known, and nothing else need be.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from queue import Empty, Queue
from typing import TypeVar, assert_never

from dualwrite.connectors.base import Connector, Snapshot, Transaction
from dualwrite.engine.brakes import Allowance, unasked
from dualwrite.engine.compare import Alone, Difference, Finding, Held, Outside, Tally, Unusable, compare, foreseen
from dualwrite.engine.flow import Flow
from dualwrite.engine.ledger import Ledger, Plan, Trouble
from dualwrite.engine.link import Link, chunks
from dualwrite.engine.pile import Pile
from dualwrite.engine.resuming import CannotGoOn, Keeper, Kept, Nothing, Rest, Restores, fingerprint, originals
from dualwrite.engine.scope import Part
from dualwrite.engine.spool import BLOCK, Spool, Weak, in_chunks
from dualwrite.engine.syncs import Watch, counts, quiet
from dualwrite.engine.window import record_keys
from dualwrite.errors import Halted, RowProblem
from dualwrite.journal import Count
from dualwrite.lined import LARGEST, weight
from dualwrite.mapping.compile import CompiledMap
from dualwrite.model import Change, Key, Kind, Position, Row, Side

AHEAD, READY = 10, 1
"""Blocks that are read while others are made ready, and chunks that are ready while one is carried."""
LARGEST_LOAD = 2 * LARGEST
"""Bytes of rows in such a chunk, at most: what goes in at once does so the faster the more it is."""
LET_GO_EVERY = 5.0
"""Seconds after which the target may let go of what came back."""
_T = TypeVar("_T")


@dataclass
class Outcome:
    """What an initial sync (or repair) of one map has done; ``created`` and ``changed`` count what was to be done."""

    tally: Tally = field(default_factory=Tally)
    counts: Sequence[Count] = ()
    first: Mapping[Side, Position] = field(default_factory=dict)  # where what it has carried begins

    @property
    def created(self) -> Mapping[Side, int]:
        """Records that one side lacked."""
        return self._sum("created")

    @property
    def changed(self) -> Mapping[Side, int]:
        """Records that differed."""
        return self._sum("changed")

    def _sum(self, what: str) -> Mapping[Side, int]:
        return {side: sum(found[f"{what} {side}"] for found in self.tally.companies.values()) for side in Side}


def outside(compiled: CompiledMap, connectors: Callable[[Side], Connector]) -> Outside:
    """Asks a side for records that its filter hides."""

    def ask(side: Side, keys: Sequence[Key]) -> set[Key]:
        found = connectors(side).fetch(compiled.views[side], keys)
        return {key for key, rows in found.items() if rows and not any(compiled.passes(side, row) for row in rows)}

    return ask


def overwrites(compiled: CompiledMap, master: Side, difference: Difference) -> Iterator[Side]:
    """The sides on which an initial sync changes a record that differs.

    Of one that only one side has, columns that belong to the other side will be others there.  Columns that belong to
    the side that is not the master are taken from there all the same.
    """
    alone = difference.only
    if alone is not None:
        row = difference.row(alone)
        if row is not None and compiled.carried[alone] and _is_changing(compiled, alone, row):
            yield alone
        return
    other = master.other
    owned = {unit.name for unit in compiled.units[master] if unit.owner is other}
    if _carries(compiled, difference, other) and owned.intersection(difference.units):
        yield master
    if _carries(compiled, difference, master):
        yield other


def _carries(compiled: CompiledMap, difference: Difference, source: Side) -> bool:
    """Does one of the differing units flow out of ``source``?"""
    units = {unit.name: unit for unit in compiled.units[source.other]}
    return any(name not in units or units[name].owner is not source.other for name in difference.units)


def _is_changing(compiled: CompiledMap, side: Side, row: Row) -> bool:
    """Do columns of a record that is created on the other side belong to it, and will be others?"""
    return bool(compiled.owned_elsewhere(side)) and foreseen(compiled, side, row) != row


def ahead(items: Iterator[_T], most: int) -> Generator[_T, None, None]:
    """The same; a thread reads on, ``most`` of them and the one in its hand, while one is worked on.

    To be closed before what they are read from is.
    """
    read: Queue[_T | BaseException | None] = Queue(most)
    stop = threading.Event()

    def work() -> None:
        try:
            for item in items:
                read.put(item)
                if stop.is_set():
                    return
            read.put(None)
        except BaseException as trouble:
            read.put(trouble)

    thread = threading.Thread(target=work, name="reading ahead", daemon=True)
    thread.start()
    try:
        while (item := read.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
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
        keeper: Keeper | None = None,
        kept: Kept | None = None,
        allowance: Allowance = unasked,
        *,
        is_live: bool = False,
        part: Part | None = None,
        chosen: Callable[[Side, Snapshot], Held] | None = None,
    ) -> None:
        """``keeper`` lets it go on in another process, ``kept`` is the one that does; ``allowance`` refuses what would
        change too much.  ``is_live``: the map's records have been brought together before, and what is on its way or
        parked is left to the flows.  ``part``: it is for these records alone, and the others of the map go on as
        they are.  ``chosen`` picks what of the snapshots of a live map is looked at.
        """
        self.link = link
        self.flows = flows
        self.compiled = compiled
        self.master = master
        self.progress = progress
        self.outcome = Outcome()
        self.boundaries: dict[Side, Position] = {}
        self._is_live = is_live
        self._part = part
        self._chosen = chosen
        self._views = compiled.views if part is None else part.views
        self._moving: set[Key] = set()  # records of a live map of which changes were on their way
        self._keeper = keeper
        self._kept = kept
        self._allowance = allowance
        self._spools = {side: self._spool(side) for side in Side}
        self._done = dict.fromkeys(Side, 0)  # how many of each side's are carried already
        self._due = 0.0  # when the target may let go of something again
        self._streams: Side | None = None
        self._unusable: Pile[Unusable] = Pile()
        self._restores: dict[Side, Restores] = {side: Pile() for side in Side}  # of columns that belong to it
        self._snapshots = ExitStack()
        self._ahead = ExitStack()
        self._findings: Iterator[Finding] | None = None  # where one side is empty, those that are still to be read

    def _spool(self, side: Side) -> Spool:
        if self._keeper is None:
            return Spool(self.compiled, side)
        return self._keeper.spool(side) if self._kept is None else self._keeper.spool_again(side)

    def compare(self) -> None:
        """Read both sides, or find that one is empty.  Nothing is written."""
        with ExitStack() as stack:
            snapshots = {
                side: stack.enter_context(self.link.sides[side].connector.snapshot(self._views[side])) for side in Side
            }
            self.boundaries = {side: snapshot.boundary for side, snapshot in snapshots.items()}
            ask = outside(self.compiled, lambda side: self.link.sides[side].connector)
            tally = self.outcome.tally
            tally.told = partial(self._told, "compare")
            held: Mapping[Side, Held] = snapshots
            if self._chosen is not None:
                held = {side: self._chosen(side, snapshot) for side, snapshot in snapshots.items()}
            findings = compare(self.compiled, held, ask, tally)
            first = next(findings, None)
            if first is not None:
                findings = chain([first], findings)
            if tally.alone is not None and self._may_stream(tally.alone) and not self._is_live:
                self._findings, self._streams = findings, tally.alone
                self._snapshots = stack.pop_all()
            else:
                for finding in findings:
                    self._take(finding)
        if self._is_live:
            return  # what of it is to be carried is known when the flows have reached the boundaries
        self._allowance(self.outcome.changed, tally.read)
        for side in Side:
            self._spools[side].seal(self.boundaries[side], self.boundaries[side.other], self.flows[side].carried)
        if self._part is None:
            self.link.journal.set_state(self.compiled.name, boundaries={side: self.boundaries[side] for side in Side})
        self._keep(is_carried=False)
        self._set_floors()

    def go_on(self) -> None:
        """Instead of ``compare``: what another process had found when it was killed.  Raises CannotGoOn."""
        kept = self._kept
        assert kept is not None
        assert self._keeper is not None
        self.boundaries, self.outcome.tally = dict(kept.boundaries), kept.tally
        self._unusable, self._restores = self._keeper.rest()
        for side in Side:
            spool = self._spools[side]
            spool.go_on(self.boundaries[side], self.boundaries[side.other], kept.before[side])
            carried = kept.carried(side, self.link.sides[side.other].connector, self.flows[side].stream)
            self._done[side] = spool.count if kept.is_carried else carried
        if kept.streams is not None and not kept.is_carried:
            self._read_rest(kept.streams)
        self._set_floors()

    def _read_rest(self, source: Side) -> None:
        """Of the side that is carried as it is read, what had not been read, as it was then."""
        connector, view = self.link.sides[source].connector, self._views[source]
        boundary = self.boundaries[source]
        with ExitStack() as stack:
            snapshot = stack.enter_context(connector.snapshot(view))
            if snapshot.boundary.feed != boundary.feed:
                raise CannotGoOn
            before = originals(connector, view, boundary, snapshot.boundary)
            passes = (self.compiled if self._part is None else self._part).passes
            was = {key: row if row is not None and passes(source, row) else None for key, row in before.items()}
            rest = Rest(snapshot, was, self._spools[source], view, self.outcome.tally)
            halves: dict[Side, Held] = {source: rest, source.other: Nothing(self.boundaries[source.other])}
            ask = outside(self.compiled, lambda side: self.link.sides[side].connector)
            self._findings, self._streams = compare(self.compiled, halves, ask, self.outcome.tally), source
            self._snapshots = stack.pop_all()

    def _keep(self, *, is_carried: bool) -> None:
        """From here on another process can go on with it."""
        streams = self._streams
        if self._keeper is None or (streams is not None and not self.compiled.unique[streams]):
            return  # where a key may occur twice, what is read anew cannot be told from what was carried
        before = {side: spool.before for side, spool in self._spools.items()}
        mark = fingerprint(self.compiled)
        is_read_again = streams is not None and not is_carried  # what has been read of it counts then
        tally = Tally() if is_read_again else self.outcome.tally
        kept = Kept(self._keeper.id, self.master, mark, self.boundaries, before, streams, is_carried, tally)
        self._keeper.save(kept, self._unusable, self._restores)

    def _set_floors(self) -> None:
        if self._part is not None:
            self._part.settled(self.boundaries)
        for side in Side:
            weak = self._spools[side] if self._spools[side].count or side is self._streams else None
            windows = self.link.sides[side].windows
            if self._part is None:
                windows.floor(self.compiled.name, self.boundaries[side], weak)
            else:
                windows.weak(self.compiled.name, weak)

    def _may_stream(self, source: Side) -> bool:
        """Can one side be read, and the other written to, while both snapshots are held; and is it known already that
        nothing of ``source`` is overwritten?"""
        is_exclusive = any(state.connector.capabilities.exclusive for state in self.link.sides.values())
        return not is_exclusive and not self.compiled.owned_elsewhere(source)

    def _take(self, finding: Finding) -> None:
        match finding:
            case Unusable():
                self._unusable.append(finding, weight(finding.rows))
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
            self._count("created", alone.side.other, alone.keys)
            self._count("changed", alone.side, self._changing(alone.side, alone.keys, alone.rows))
            self._spools[alone.side].add(alone.rows, insert=True)

    def _changing(self, side: Side, keys: Sequence[Key | None], rows: Sequence[Row]) -> list[Key | None]:
        """Of records that are created on the other side, those of which columns belong to it and will be others."""
        if not self.compiled.owned_elsewhere(side):
            return []
        pairs = zip(keys, rows, strict=True)
        return [key for key, row in pairs if foreseen(self.compiled, side, row) != row]

    def _count(self, what: str, target: Side, keys: Sequence[Key | None]) -> None:
        if not self._is_live:
            self.outcome.tally.count(f"{what} {target}", keys)

    def _change(self, difference: Difference) -> None:
        """What differs is carried from the master."""
        row = difference.row(self.master)
        assert row is not None, "both sides have it"
        for side in overwrites(self.compiled, self.master, difference):
            self._count("changed", side, [difference.key])
            if side is self.master:
                other = difference.row(side.other)
                assert other is not None, "both sides have it"
                natural = self.compiled.views[side.other].natural_key(other)
                self._restores[side.other].append((difference.key, natural))
            else:
                self._spools[self.master].add([row], insert=False)

    def apply(self) -> Outcome:
        """Carry the differences, both ways; then what waited for one another."""
        for source in Side:
            self.flows[source].drain(self.boundaries[source], partial(self._hear, source))
        if self._is_live:
            self._leave_out()
            self._ask()
        for source in Side:
            flow, spool, done = self.flows[source], self._spools[source], self._done[source]
            streams = self._findings is not None and source is self._streams
            for weak in chain(self._left(source), self._streamed(source) if streams else ()):
                flow.carry_weak(weak)
                flow.settle(idle=False)
                self._let_go(source)
                done += len(weak.rows)
                self.progress(self.compiled.name, str(source.other), done, 0 if streams else spool.count)
                flow.point("between chunks")
            self._done[source] = done
        self._keep(is_carried=True)
        self.flows[self.master].point("all carried")
        self._restore()
        for flow in self.flows.values():
            self._park(flow)
            flow.settle(idle=True)
            flow.point("between passes")
        ends = {side: self.link.sides[side].connector.end() for side in Side}
        for source in Side:  # behind this nothing comes that has not seen what was carried here
            self.flows[source].drain(ends[source])
        self.outcome.first = {
            side: Position(at.feed, (*at.place, 0, self._spools[side].before + 1))
            for side, at in self.boundaries.items()
        }
        if self._chosen is None:  # else it is one of several, which are counted together
            tally, is_part = self.outcome.tally, self._part is not None
            self.outcome.counts = counts(self.link.journal, self.compiled, tally, self.outcome.first, is_part)
        return self.outcome

    def _restore(self) -> None:
        """Columns that belong to one side are taken from there: where they differed, and of the records that it got,
        which hold what it has filled in.

        It begins anew where it was interrupted: what is there already is not written again.
        """
        for owner in Side:
            flow, done = self.flows[owner.other], 0
            for records in chain(map(dict, self._restores[owner].blocks()), self._got(owner)):
                flow.restorer.put_back(self.compiled.name, records)
                self._let_go(owner)
                done += len(records)
                self.progress(self.compiled.name, str(owner.other), done, 0)
                flow.point("between restores")

    def _got(self, owner: Side) -> Iterator[Mapping[Key, Key]]:
        """The records that a side got from the other one, if columns of them belong to it."""
        compiled, source = self.compiled, owner.other
        if not compiled.owned_elsewhere(source):
            return
        for weak in self._spools[source].chunks(lambda: BLOCK):
            found: dict[Key, Key] = {}
            for is_insert, row in zip(weak.inserts, weak.rows, strict=True):
                with suppress(RowProblem):  # it was parked
                    if is_insert:
                        found[compiled.key(source, row)] = compiled.target_key(source, row)
            if found:
                yield found

    def _let_go(self, source: Side) -> None:
        """What comes back of what was carried is nothing to the other flow: it passes it over, so that the target need
        not keep it until the end.  As long as that flow has no differences of its own to carry (the left ones are
        carried first), and the target's users are quiet.
        """
        target = source.other
        is_free = target is Side.LEFT or self._spools[target].count <= self._done[target]
        if is_free and time.monotonic() >= self._due:
            self.flows[target].pass_over()
            self.flows[source].acknowledge(self.flows[target].passed)
            self._due = time.monotonic() + LET_GO_EVERY

    def _ask(self) -> None:
        """Of a live map: may so much be changed?  Where not, it goes on as if nothing had been found."""
        name = self.compiled.name
        try:
            self._allowance(self.outcome.changed, self.outcome.tally.read)
        except Halted:
            for state in self.link.sides.values():
                state.windows.weak(name, None)
            raise

    def _hear(self, source: Side, changes: Sequence[Change]) -> None:
        """What users did and the comparison may have seen on one side only."""
        if self._is_live:
            for change in changes:
                if change.view == self.compiled.name:
                    with suppress(RowProblem):
                        self._moving.update(record_keys(self.compiled, source, change))

    def _leave_out(self) -> None:
        """Of what was found on a live map, only what nobody is at is carried: not what was on its way to the other side
        when the sides were read, and not what is parked, behind which it would queue."""
        name = self.compiled.name
        parked = (key for state in self.link.sides.values() for found, key in state.parked.records() if found == name)
        busy = self._moving.union(parked)
        for side in Side:
            found, left = self._spools[side], Spool(self.compiled, side)
            found.seal(self.boundaries[side], self.boundaries[side.other])
            for weak in found.chunks(lambda: BLOCK):
                self._copy(weak, left, busy)
            found.close()
            left.seal(self.boundaries[side], self.boundaries[side.other], self.flows[side].carried)
            self._spools[side] = left
            self.link.sides[side].windows.weak(name, left if left.count else None)
            for pairs in self._restores[side].blocks():
                self.outcome.tally.count(f"changed {side.other}", [key for key, _ in pairs])

    def _copy(self, weak: Weak, spool: Spool, busy: Collection[Key]) -> None:
        keys = self.compiled.keys(spool.side, weak.rows)
        for is_insert, what in ((True, "created"), (False, "changed")):
            numbers = [n for n, key in enumerate(keys) if weak.inserts[n] is is_insert and key not in busy]
            chosen, rows = [keys[n] for n in numbers], [weak.rows[n] for n in numbers]
            spool.add(rows, insert=is_insert)
            self.outcome.tally.count(f"{what} {spool.side.other}", chosen)
            if is_insert:
                self.outcome.tally.count(f"changed {spool.side}", self._changing(spool.side, chosen, rows))

    def _left(self, source: Side) -> Iterator[Weak]:
        """What is found and not carried yet."""
        flow = self.flows[source]
        return self._spools[source].chunks(lambda: flow.weak_limit, self._done[source])

    def _streamed(self, source: Side) -> Iterator[Weak]:
        """What only one side holds, as it is read: nothing of it need be known before the first of it is carried.

        While a chunk is carried, the next one is made ready.
        """
        assert self._findings is not None
        self.outcome.tally.told = lambda _: None  # what is carried is told
        reading = self._ahead.enter_context(closing(ahead(self._findings, AHEAD)))
        yield from self._ahead.enter_context(closing(ahead(self._ready(source, reading), READY)))
        self._snapshots.close()

    def _ready(self, source: Side, findings: Iterator[Finding]) -> Iterator[Weak]:
        """What is to be inserted, in chunks that are kept on disk already."""
        flow, spool = self.flows[source], self._spools[source]
        for _, rows in in_chunks(self._created(source, findings), lambda: flow.weak_limit, LARGEST_LOAD):
            yield spool.passing(rows)

    def _created(self, source: Side, findings: Iterator[Finding]) -> Iterator[tuple[list[bool], Sequence[Row]]]:
        """What is to be inserted of what only one side holds."""
        for finding in findings:
            if not isinstance(finding, Alone):
                self._take(finding)
            elif self.compiled.carried[source]:
                self._count("created", source.other, finding.keys)
                yield [True] * len(finding.rows), finding.rows

    def _park(self, flow: Flow) -> None:
        """Records that cannot be told apart, or have no key, wait for a person.

        Those with the same key are parked in one transaction: which of them are parked already, the key alone tells.
        """
        times = Counter(finding.key for finding in self._unusable if finding.side is flow.source)
        again: dict[Key, list[Unusable]] = {}  # of records without a usable key several may have the same one
        for block in self._unusable.blocks():
            mine = [finding for finding in block if finding.side is flow.source]
            for finding in mine:
                if times[finding.key] > 1:
                    again.setdefault(finding.key, []).append(finding)
            self._park_some(flow, [(finding.key, [finding]) for finding in mine if finding.key not in again])
        for some in chunks(list(again.items()), BLOCK):
            self._park_some(flow, some)

    def _park_some(self, flow: Flow, some: Sequence[tuple[Key, Sequence[Unusable]]]) -> None:
        if some:
            flow.transact(partial(self._parked, flow, some), None)

    def _parked(self, flow: Flow, some: Sequence[tuple[Key, Sequence[Unusable]]], transaction: Transaction) -> Ledger:
        ledger = Ledger(self.link.sides[flow.target], transaction)
        for key, findings in some:
            if ledger.is_parked(self.compiled.name, key):
                continue  # before the process was killed, or while the map was live
            for finding in findings:
                changes = [self._candidate(row, flow.source) for row in finding.rows]
                ledger.park(Plan(self.compiled, key, changes, key), Trouble(finding.code, finding.reason))
        return ledger

    def _candidate(self, row: Row, side: Side) -> Change:
        at, (boundary, seen) = float("-inf"), (self.boundaries[side], self.boundaries[side.other])
        natural = self.compiled.views[side].natural_key(row)
        return Change(self.compiled.name, Kind.INSERT, natural, None, row, at, boundary, seen, weak=True)

    def close(self) -> None:
        """Let go of the snapshots, forget the weak changes, and give the disk space back."""
        self._ahead.close()
        self._snapshots.close()
        for side in Side:
            self.link.sides[side].windows.weak(self.compiled.name, None)
            self._spools[side].close()
            self._restores[side].close()
        self._unusable.close()
