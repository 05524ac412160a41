"""What a side's own users did, kept until the other side has seen it.

A change of a side is *concurrent* with an arriving one when neither had seen the other.  ``Windows`` remembers the own
changes of one side, per map and record, so that an arriving change finds those that it had not seen.  It is a cache:
everything in it can be read again from the side's feed (or, for parked records, from the journal).
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Protocol, TypeAlias

from dualwrite.engine.scope import Late
from dualwrite.engine.spool import Overflow
from dualwrite.errors import RowProblem
from dualwrite.lined import weight_of
from dualwrite.mapping.compile import CompiledMap
from dualwrite.model import Change, Key, Kind, Position, Row, Side


def project(compiled: CompiledMap, side: Side, change: Change, late: Late | None = None) -> Change | None:
    """The change as the map sees it, through its filter; None where nothing is carried.

    Entering the filter is an insert.  Leaving it is a delete where the map says so, otherwise the record is detached
    and nothing flows.  ``late`` tells what was still outside of it.
    """
    before, after, at = change.before, change.after, change.position
    takes_all = compiled.views[side].filter is None
    was = before is not None and _has_key(compiled, side, before) and (takes_all or compiled.passes(side, before))
    is_now = after is not None and (takes_all or compiled.passes(side, after))
    if late is not None:
        was = was and before is not None and not late.covers(before, at)
        is_now = is_now and after is not None and not late.covers(after, at)
    if was != is_now and change.kind is Kind.UPDATE:
        if is_now:
            return change.with_images(None, after)._replace(kind=Kind.INSERT)
        if compiled.on_leave == "delete":
            return change.with_images(before, None)._replace(kind=Kind.DELETE)
        return None
    return change if was or is_now else None


def known(compiled: CompiledMap, side: Side, change: Change, late: Late | None) -> Change | None:
    """The change as the windows hold it: also deletes outside of the filter, unless they are of a record that is
    ``late``.  None where it is nothing to the map."""
    before = change.before
    if change.after is not None:
        return project(compiled, side, change, late)
    return None if late is not None and before is not None and late.covers(before, change.position) else change


def _has_key(compiled: CompiledMap, side: Side, row: Row) -> bool:
    """A record without any key member does not exist for the map: getting a key is its insert."""
    for index in compiled.views[side].key:  # noqa: SIM110  (a generator would cost more than the loop)
        if row[index]:
            return True
    return False


def record_keys(compiled: CompiledMap, side: Side, change: Change) -> tuple[Key, ...]:
    """The record's key in common form; two of them, old and new, when the change renames it.  Raises RowProblem."""
    before, after = change.before, change.after
    if before is not None and after is not None:
        for index in compiled.views[side].key:
            if before[index] != after[index]:
                break
        else:
            before = None  # its key says nothing else
    old = None if before is None else compiled.key(side, before)
    new = None if after is None else compiled.key(side, after)
    if old is None or new is None or old == new:
        return (old or new or (),)
    return (old, new)


def is_renamed(compiled: CompiledMap, side: Side, change: Change) -> bool:
    """Does a change of a side with a usable key give its record another one?"""
    before, after, cells = change.before, change.after, compiled.views[side].key
    if before is None or after is None or all(before[index] == after[index] for index in cells):
        return False
    return len(record_keys(compiled, side, change)) > 1


Kept: TypeAlias = tuple[str, Key, Change]
"""A map, the key of a record under which a change is looked for, and the change."""

IN_MEMORY = 10_000
"""Changes of a side that are kept in memory; older ones go to disk."""
LARGEST_IN_MEMORY = 16 << 20
"""Characters of them: rows may be large."""


def _behind(changes: Sequence[Change], seen: Position | None) -> list[Change]:
    """Of changes in feed order those behind a place."""
    return list(changes if seen is None else changes[bisect_right(changes, seen, key=_place) :])


def _place(change: Change) -> Position:
    return change.position


class WeakChanges(Protocol):
    """What an initial sync carries out of a side."""

    @property
    def last(self) -> Position | None:
        """The position of the last of them; None while they are still being found."""
        ...

    def find(self, key: Key) -> Change | None:
        """The one of a record."""
        ...


class Windows:
    """The own changes of one side that may still matter, in feed order per map and record.

    Thread-safe: the flow out of the side adds what it reads, the flow into it what it finds behind that.

    A record may be changed thousands of times unseen, and every batch asks for its window: so what is asked of one is
    found without going through it.
    """

    def __init__(self, side: Side, maps: Mapping[str, CompiledMap], end: Position | None = None) -> None:
        self._side = side
        self._maps = maps
        self._records: dict[tuple[str, Key], list[Change]] = {}
        self._turned: dict[tuple[str, Key], Position] = {}  # where the last change stands that was more than an update
        self._turns: dict[str, Position] = {}  # per incarnation of the feed: up to here any record may have had one
        self._order: deque[tuple[Position, tuple[str, Key]]] = deque()
        self._weight = 0  # about how many characters those have that were added since the last were moved to disk
        self._floors: dict[str, Position] = {}
        self._weak: dict[str, WeakChanges] = {}
        self._late: dict[str, Late] = {}
        self._overflow = Overflow()
        self._touched: set[str] = set()
        self._elsewhere: dict[str, Position] = {}
        self._lent: Mapping[tuple[str, Key], Sequence[Change]] = {}
        self._lock = threading.Lock()
        self.end = end
        self.forgotten: Position | None = None

    def extend(self, changes: Iterable[Change], end: Position) -> None:
        """Add what follows ``self.end``; what is known already is passed over."""
        added: list[Change] = []
        with self._lock:
            known = self.end
            for change in changes:
                if known is None or change.position > known:
                    known = None  # what follows is behind it as well
                    if self._add(change):
                        added.append(change)
            self._weight += weight_of(added)
            while len(self._order) > IN_MEMORY or (self._weight > LARGEST_IN_MEMORY and self._order):
                self._spill()
            known = self.end
            if known is None or end > known:
                self.end = end

    def _add(self, change: Change) -> bool:
        """Is the change held from now on?"""
        compiled = self._maps.get(change.view)
        if compiled is None or self._is_elsewhere(change.view, change.position):
            return False
        seen = known(compiled, self._side, change, self._late.get(change.view))
        if seen is None:
            return False
        try:
            keys = record_keys(compiled, self._side, seen)
        except RowProblem:
            return False  # a record without a usable key has no counterpart that could be concurrent
        self._touched.add(change.view)
        for key in keys:
            record = change.view, key
            self._records.setdefault(record, []).append(seen)
            if len(keys) > 1 or seen.kind is Kind.DELETE:
                self._turn(record, change.position)
            self._order.append((change.position, record))
        return True

    def _turn(self, record: tuple[str, Key], position: Position) -> None:
        last = self._turned.get(record)
        if last is None or last < position:
            self._turned[record] = position
        if len(self._turned) > IN_MEMORY:  # a whole table may have been deleted
            for turned in self._turned.values():
                self._turns[turned.feed] = max(turned, self._turns.get(turned.feed, turned))
            self._turned.clear()

    def _spill(self) -> None:
        """Move the older half to disk: a side that worked alone for days must not fill the memory."""
        older: dict[tuple[str, Key], set[Position]] = {}
        count = len(self._order)
        self._weight = self._weight * (count // 2) // count
        for _ in range((count + 1) // 2):
            position, record = self._order.popleft()
            older.setdefault(record, set()).add(position)
        entries = []
        for record, positions in older.items():
            changes = self._records.get(record, [])
            entries += [(*record, change) for change in changes if change.position in positions]
            self._keep(record, [change for change in changes if change.position not in positions])
        self._overflow.add(sorted(entries, key=lambda entry: entry[2].position))

    def _keep(self, record: tuple[str, Key], changes: list[Change]) -> None:
        if changes:
            self._records[record] = changes
        else:
            self._records.pop(record, None)

    def keep_elsewhere(self, map_name: str, until: Position | None) -> None:
        """The map's changes up to a position are in the journal, which lends what is asked for; None: no more."""
        with self._lock:
            if until is None:
                self._elsewhere.pop(map_name, None)
            else:
                self._elsewhere[map_name] = until

    def _is_elsewhere(self, map_name: str, position: Position) -> bool:
        until = self._elsewhere.get(map_name)
        return until is not None and position <= until

    def lend(self, found: Mapping[tuple[str, Key], Sequence[Change]]) -> None:
        """The changes of some records that are kept in the journal, for the transaction that is open."""
        self._lent = found

    def floor(self, map_name: str, boundary: Position, weak: WeakChanges | None = None) -> None:
        """The map's snapshot of this side contains everything up to ``boundary``; ``weak`` finds what its initial
        sync carries out of this side for a record."""
        with self._lock:
            self._floors[map_name] = boundary
        self.weak(map_name, weak)

    def hold_late(self, map_name: str, late: Late | None) -> None:
        """Which records of the map come in later than the others."""
        with self._lock:
            if late is None:
                self._late.pop(map_name, None)
            else:
                self._late[map_name] = late

    def late(self, map_name: str) -> Late | None:
        """Which records of the map came in later than the others."""
        return self._late.get(map_name)

    def weak(self, map_name: str, weak: WeakChanges | None) -> None:
        """What an initial sync carries out of this side from now on; None: nothing any more."""
        with self._lock:
            if weak is None:
                self._weak.pop(map_name, None)
            else:
                self._weak[map_name] = weak

    def of(self, map_name: str, key: Key, seen: Position | None) -> list[Change]:
        """The own changes of a record that a change with this ``seen`` had not seen, in feed order.

        Among them are deletes outside of the filter: the other side is never told, and the record is gone.
        """
        with self._lock:
            floor = self._floors.get(map_name)
            if floor is not None and (seen is None or seen < floor):
                seen = floor
            window = _behind(self._records.get((map_name, key), ()), seen)
            if self._overflow:
                older = _behind(self._overflow.find(map_name, key), seen)
                is_in_order = not older or not window or older[-1].position < window[0].position
                window = [*older, *window]
                if not is_in_order:
                    window.sort(key=_place)
            lent = self._lent.get((map_name, key))
            if lent:
                known = {change.position: change for change in (*lent, *window)}
                window = _behind([known[position] for position in sorted(known)], seen)
            weak = self._weak.get(map_name)
        if weak is not None and (seen is None or weak.last is None or seen < weak.last):
            first = weak.find(key)
            if first is not None and (seen is None or first.position > seen) and first not in window:
                window.insert(0, first)
        return window

    def has_turned(self, map_name: str, key: Key, seen: Position | None) -> bool:
        """May a record's window hold more than updates under one and the same key?  False is sure."""
        with self._lock:
            if map_name in self._weak or self._lent.get((map_name, key)):
                return True
            turns = (self._turned.get((map_name, key)), *self._turns.values())
            return any(last and (seen is None or last.feed != seen.feed or seen < last) for last in turns)

    def known_among(self, map_name: str, keys: Collection[Key]) -> Collection[Key]:
        """Those of the records of which own changes may be known; quicker than to ask ``of`` for each."""
        with self._lock:
            if self._overflow or map_name in self._weak:
                return keys
            known, lent = self._records, self._lent
            return [k for k in keys if (map_name, k) in known or (map_name, k) in lent] if known or lent else ()

    def hold(self, map_name: str, feed: str) -> None:
        """Drop the map's changes until its snapshot of this incarnation has been read: it will contain them."""
        with self._lock:
            self._floors[map_name] = Position(feed, (1 << 62,))

    def is_untouched(self, map_name: str) -> bool:
        """Surely no change of the map's records is known here."""
        return map_name not in self._touched and map_name not in self._weak

    def weak_of(self, map_name: str, key: Key) -> Change | None:
        """What an initial sync that is going on carries out of this side for a record."""
        weak = self._weak.get(map_name)
        return None if weak is None else weak.find(key)

    def floor_of(self, map_name: str) -> Position | None:
        """Up to where the map's snapshot contains this side's changes."""
        return self._floors.get(map_name)

    def busy(self, map_name: str) -> bool:
        """Is a weak change of this map being carried out of this side?"""
        return map_name in self._weak

    def forget(
        self,
        seen: Position,
        keep: Callable[[str, Key], bool] | None = None,
        hold: Callable[[list[Kept]], None] | None = None,
    ) -> None:
        """Drop what the other side has seen by now.  ``hold`` is told, in portions, of what ``keep`` asks to hold back
        (changes of parked records): from then on it is not here any more."""
        self.forgotten = seen
        more = True
        while more:
            with self._lock:
                held, more = self._forget(seen, keep)
            if held and hold is not None:
                hold(held)

    def _forget(self, seen: Position, keep: Callable[[str, Key], bool] | None) -> tuple[list[Kept], bool]:
        """A portion of it; also whether there is more."""
        if self._overflow:
            held, is_all = self._overflow.take(seen, keep)
            if not is_all:
                return held, True
        else:
            held = []
        known = len(self._order)
        last = {record: position for position, record in self._passed(seen)}  # it may have changed a thousand times
        for record, position in last.items():
            changes = self._records[record]
            behind = [] if changes[-1].position is position else _behind(changes, seen)
            if keep is not None and keep(*record):
                held += [(*record, change) for change in changes[: len(changes) - len(behind)]]
            self._keep(record, behind)
            if not self._overflow and not behind:
                self._turned.pop(record, None)
        if not self._records and not self._overflow:
            self._turned.clear()
            self._turns.clear()
        if known:
            self._weight = self._weight * len(self._order) // known
        return held, False

    def _passed(self, seen: Position) -> Iterator[tuple[Position, tuple[str, Key]]]:
        """Take what lies up to a place out of the order: all of it is of one feed, so that places alone compare."""
        order, last = self._order, seen.place
        if order and order[0][0] <= seen:
            while order and order[0][0].place <= last:
                yield order.popleft()

    def drop(self, map_name: str) -> None:
        """Forget a map."""
        with self._lock:
            self._records = {record: kept for record, kept in self._records.items() if record[0] != map_name}
            self._turned = {record: last for record, last in self._turned.items() if record[0] != map_name}
            self._order = deque(entry for entry in self._order if entry[1][0] != map_name)
            self._floors.pop(map_name, None)
            self._weak.pop(map_name, None)
            self._late.pop(map_name, None)
            self._overflow.drop(map_name)
            self._touched.discard(map_name)
            self._elsewhere.pop(map_name, None)

    def oldest(self) -> Position | None:
        """The position of the oldest change that is still to be seen by the other side, and is kept here alone."""
        with self._lock:
            if self._elsewhere:
                self._pass_over()
            if self._overflow:
                return self._overflow.oldest()
            return self._order[0][0] if self._order else None

    def _pass_over(self) -> None:
        """Drop the oldest changes as far as they are kept elsewhere by now."""
        if self._overflow:
            self._overflow.pass_over(self._is_elsewhere)
        while not self._overflow and self._order and self._is_elsewhere(self._order[0][1][0], self._order[0][0]):
            position, record = self._order.popleft()
            self._keep(record, [change for change in self._records.get(record, []) if change.position != position])

    def __len__(self) -> int:
        return len(self._order) + len(self._overflow)
