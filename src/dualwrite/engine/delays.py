"""Maps whose changes are delayed, as a flow meets them: keeps what it reads of them, and catches up where it may.

A delayed map is a flow of its own whose feed is the queue in the journal.  It shares the transactions' stream with the
other maps; how far the target has received it stands in the side table.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, TypeAlias

from dualwrite.connectors.base import Transaction
from dualwrite.engine.backlog import Backlog
from dualwrite.engine.ledger import Ledger
from dualwrite.engine.link import QUEUED, Link, Point
from dualwrite.engine.pace import Pace
from dualwrite.errors import Superseded
from dualwrite.model import Batch, Change, Key, Position, Side

Transact: TypeAlias = Callable[[Callable[[Transaction], Ledger], Position | None], Ledger]
Carry: TypeAlias = Callable[[Sequence[Change], Position, Backlog], float]
"""Applies changes of a queue up to a position; says for how many seconds it held the target's locks."""
FIRST, SMALLEST = 1_000, 500
"""Changes of a queue that are carried in the first transaction, and in any: of fewer, on a busy machine, most of the
time would go into the transactions."""
AT_A_TIME: Final = 0.25
"""Seconds of catching up after which the other maps have their turn."""


class Delays:
    """The delayed maps of the flow out of ``source``."""

    def __init__(self, link: Link, source: Side, point: Point, transact: Transact, carry: Carry, held: float) -> None:
        """``held``: seconds that a transaction should hold its locks."""
        self._link = link
        self._source = source
        self._from = link.sides[source]
        self._to = link.sides[source.other]
        self._point = point
        self._transact = transact
        self._carry = carry
        self._held = held
        self._pace = Pace(FIRST, SMALLEST)
        self._seen: dict[str, Position] = {}  # per map the place up to which the target's windows were dropped

    # -- reading --------------------------------------------------------------------------------------------------

    def keep(self, batch: Batch, tag: Callable[[Change], Change]) -> None:
        """Put the changes of delayed maps into the journal; whoever looks for them later finds them there."""
        for name, lane in self._from.backlogs.items():
            if not lane.is_delayed:
                continue
            known = (self._from.windows.floor_of(name), lane.kept_to)
            after = max((place for place in known if place is not None), default=None)
            mine = [c for c in batch.changes if c.view == name and (after is None or c.position > after)]
            if lane.kept_to is None or batch.position > lane.kept_to:
                lane.keep([(tag(change), self.seen(change).seen) for change in mine], batch.position)
                self._point("after queue")
                self._from.windows.keep_elsewhere(name, batch.position)

    def is_delayed(self, name: str) -> bool:
        """Do the map's changes queue?"""
        lane = self._from.backlogs.get(name)
        return lane is not None and lane.is_delayed

    def seen(self, change: Change) -> Change:
        """The change with what its side had received of its map by then: of a delayed one, markers say nothing."""
        lane = self._to.backlogs.get(change.view)
        received = None if lane is None else lane.received_at(change.mark)
        return change if received is None else change.having_seen(received)

    # -- catching up ----------------------------------------------------------------------------------------------

    def catch_up(self) -> bool:
        """Carry some of what waits; True if anything did."""
        moved, end = False, time.monotonic() + AT_A_TIME
        for name, lane in list(self._from.backlogs.items()):
            while name not in self._link.standing and lane.is_delayed and self._is_whole(name) and self._chunk(lane):
                moved = True
                if time.monotonic() > end:
                    return True
            lane.is_empty = lane.first() is None
        return moved

    def _is_whole(self, name: str) -> bool:
        """Is everything in the journal that the target's users had done when the map was paused?"""
        lane = self._to.backlogs[name]
        received = lane.received
        return received is None or (lane.kept_to is not None and lane.kept_to >= received)

    def _chunk(self, lane: Backlog) -> bool:
        if lane.skip == "discard":
            return self._discard(lane)
        entries = lane.waiting(self._pace.limit)
        if not entries:
            return False
        changes = [change for entry in entries if (change := lane.change(entry)) is not None]
        seconds = self._carry(changes, entries[-1].position, lane)
        self._point("after chunk")
        lane.pass_to(entries[-1].number)
        self._pace.took(seconds, len(entries), self._held)
        return True

    def _discard(self, lane: Backlog) -> bool:
        last = lane.last()
        if last is None or last[0] <= lane.passed:
            return False
        count = self._link.journal.backlogs.queued(lane.map)[lane.map][self._source].changes
        self._arrive(lane, last[1])
        lane.pass_to(last[0])
        lane.discarded += count
        return True

    def _arrive(self, lane: Backlog, position: Position | None, stream: Position | None = None) -> None:
        def work(transaction: Transaction) -> Ledger:
            ledger = Ledger(self._to, transaction)
            self.arrive(lane, ledger, transaction, position)
            return ledger

        self._transact(work, stream)

    def arrive(self, lane: Backlog, ledger: Ledger, transaction: Transaction, position: Position | None) -> None:
        """Note in an open transaction how far the target has received a map.

        Raises Superseded where that is not where this engine has left it.
        """
        transaction.position()  # nobody else of the link commits here from now on
        entries = [e for e in self._to.connector.remembered(QUEUED) if e.view == lane.map and e.until is None]
        stored = Position.parse(entries[-1].value) if entries else None
        if stored != lane.received:
            side = self._to.side
            raise Superseded(
                f"{side}: of map {lane.map} it has received what is up to {stored}, not {lane.received} as this engine "
                "left it",
                "another engine runs this link: stop one of them",
            )
        ledger.arrive(lane, position)

    # -- beginning and ending -------------------------------------------------------------------------------------

    def delay(self, lane: Backlog, position: Position) -> None:
        """From here on the map's changes queue; up to ``position`` they were carried."""
        self._arrive(lane, position, position)
        lane.pass_received()  # of what was kept while the target did not answer

    def join(self, lane: Backlog, position: Position) -> None:
        """The queue is empty: from here on the map flows with the others, which are at ``position``."""
        self._arrive(lane, None, position)

    def is_caught_up(self, lane: Backlog, carried: Position | None) -> bool:
        """Does nothing wait, and has the flow come to where the queue ends?"""
        return lane.first() is None and (lane.kept_to is None or (carried is not None and carried >= lane.kept_to))

    def forget(self, name: str) -> None:
        """Drop what the target's side table and the journal hold of a map's delays."""
        self._from.backlogs.pop(name, None)
        if any(entry.view == name and entry.until is None for entry in self._to.connector.remembered(QUEUED)):

            def work(transaction: Transaction) -> Ledger:
                transaction.remember(QUEUED, name, "", None)
                return Ledger(self._to, transaction)

            self._transact(work, None)
        self._link.journal.backlogs.drop(self._source, name)

    # -- what may be forgotten ------------------------------------------------------------------------------------

    def retain(self, batch: Batch, is_held: Callable[[str, Key], bool]) -> None:
        """Let the windows of delayed maps go as far as everything has seen them that is still to come (R3)."""
        for name, lane in list(self._to.backlogs.items()):
            lane.prune(batch.mark)
            seen = self._oldest_seen(name, batch)
            if seen is not None and (name not in self._seen or self._seen[name] < seen):
                self._seen[name] = seen
                is_parked = bool(self._to.parked or self._from.parked)
                hold = partial(self._hold, name, is_held=is_held) if is_parked else None
                lane.forget(seen, hold)

    def _oldest_seen(self, name: str, batch: Batch) -> Position | None:
        """How far everything of a map that is still to be carried has seen the target."""
        own = self._from.backlogs.get(name)
        first = own.first() if own is not None and own.is_delayed else None
        if first is not None:
            return first.seen
        lane = self._to.backlogs[name]
        received = lane.received_at(batch.mark)
        return batch.seen if received is None else received

    def _hold(self, name: str, keys: Sequence[Key], *, is_held: Callable[[str, Key], bool]) -> None:
        """Windows of parked records stay."""
        mine = [key for key in keys if is_held(name, key)]
        if not mine:
            return
        found = self._to.backlogs[name].window(mine)
        self._to.kept.keep([(name, key, change) for key, changes in found.items() for change in changes])
