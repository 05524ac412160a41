"""One direction of a map that does not simply flow: paused, resuming, or not long since.

What the users of a side do to the map's records is kept in the journal, in feed order, from the oldest that the feed
held when the map was paused.  It is two things at once: the *queue*, which is the feed of that map delayed, as far as
the other side has not received it; and the *windows*, in which what arrives from the other side finds what it had not
seen.

How far the other side has received it is an entry of that side's side table, committed with the rows.  Its history
says what every change of that side had seen: the markers in its feed speak of the other maps.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from dualwrite.connectors.base import Remembered
from dualwrite.engine.kept import Asked
from dualwrite.engine.link import key_of, key_text
from dualwrite.engine.scope import Late
from dualwrite.engine.window import known, project, record_keys
from dualwrite.errors import RowProblem
from dualwrite.journal import Delayed, Journal, KeptChange, Layout
from dualwrite.mapping.compile import CompiledMap
from dualwrite.model import Change, Key, Kind, Position, Side

AT_ONCE: Final = 2_000
"""Changes that are looked at together."""


@dataclass(frozen=True, slots=True)
class Received:
    """Between two of our commits in the other side, its users had received the changes up to ``position``."""

    position: Position
    since: int
    until: int | None


class Backlog:
    """What one side's users do to one map's records, delayed.

    The flow out of the side keeps and carries it; the flow into it finds its windows there, and lets it forget.
    ``kept_to``: so far, what its feed says of the map is in the journal.  ``passed`` is the number of the last change
    that the other side has received.  ``skip`` says what becomes of the queue instead of being carried, ``discarded``
    how much of it was dropped.  ``is_empty``: nothing waited when the flow out of the side looked last.
    """

    def __init__(
        self,
        compiled: CompiledMap,
        side: Side,
        journal: Journal,
        entries: Iterable[Remembered] | None,
        late: Callable[[str], Late | None],
    ) -> None:
        """As it was left; ``entries`` are those of the other side's side table for this map, None where that side does
        not answer: then everything is kept, and nothing is known to be received.  ``late`` tells which records of a map
        are still outside of it."""
        self.map = compiled.name
        self.side = side
        self.compiled = compiled
        self.skip = ""
        self.discarded = 0
        self.is_empty = False
        self._journal = journal.backlogs
        self._late = partial(late, self.map)
        self._view = compiled.views[side]
        self._layout = Layout.of(self._view)
        self._is_told = entries is not None
        self._received = deque(Received(Position.parse(e.value), e.since, e.until) for e in entries or ())
        self._lock = threading.Lock()
        last = self._journal.last(side, self.map)
        self.kept_to = None if last is None else last[1]
        self.passed = self._journal.passed(side, self.map)
        self._count = self._journal.count(side, self.map)
        self._first: Delayed | None = None
        self._asked = Asked[Key](self._changes)
        self._looking = threading.Lock()
        self._rekey()
        self.pass_received()

    # -- how far the other side has received it -------------------------------------------------------------------

    @property
    def received(self) -> Position | None:
        """How far the other side has received the changes; None when the map is not delayed (any more)."""
        with self._lock:
            last = self._received[-1] if self._received else None
        return None if last is None or last.until is not None else last.position

    @property
    def is_delayed(self) -> bool:
        """Do the changes still queue?"""
        return self.received is not None or not self._is_told

    def received_at(self, mark: int) -> Position | None:
        """How far it had received them behind our commit number ``mark`` there; None when the map simply flowed."""
        with self._lock:
            for entry in reversed(self._received):
                if entry.since <= mark:
                    return entry.position if entry.until is None or mark < entry.until else None
        return None

    def arrive(self, position: Position | None, number: int) -> None:
        """From our commit ``number`` there on it has received the changes up to here; None: the map simply flows."""
        with self._lock:
            if self._received and self._received[-1].until is None:
                self._received[-1] = replace(self._received[-1], until=number)
            if position is not None:
                self._received.append(Received(position, number, None))

    def prune(self, mark: int) -> None:
        """Forget what was received before our commit ``mark`` there: no change from before it will be read again."""
        with self._lock:
            while self._received and (until := self._received[0].until) is not None and until <= mark:
                self._received.popleft()

    @property
    def is_over(self) -> bool:
        """Does nothing of it matter any more?"""
        with self._lock:
            return not self._received and not self._count

    # -- keeping --------------------------------------------------------------------------------------------------

    def keep(self, changes: Sequence[tuple[Change, Position | None]], end: Position) -> None:
        """Put changes behind the others, each with how far its side had received the other side's of the map; up to
        ``end`` there are no more of them."""
        entries = [entry for change, seen in changes if (entry := self._entry(change, seen)) is not None]
        if entries:
            with self._looking:
                self._journal.append(self.side, self.map, entries, self._layout)
                for entry in entries if self._asked else ():
                    for key, mine in self._of(entry.change.change):
                        self._asked.add(key, mine)
            with self._lock:
                self._count += len(entries)
            received = self.received
            if received is not None and entries[0].position <= received:
                self.pass_received()
        self.kept_to = end

    def _entry(self, change: Change, seen: Position | None) -> Delayed | None:
        """The change as it is kept; None where it is nothing to the map."""
        mine = self._known(change)
        if mine is None:
            return None
        keys = [*map(key_text, self._keys(mine)), None, None]
        return Delayed(KeptChange(change, self._layout), keys[0], keys[1], seen)

    def _brought(self, kept: KeptChange) -> Change:
        return kept.change if kept.layout == self._layout else kept.brought(self._view)

    def _known(self, change: Change) -> Change | None:
        return known(self.compiled, self.side, change, self._late())

    def _keys(self, change: Change) -> tuple[Key, ...]:
        try:
            return record_keys(self.compiled, self.side, change)
        except RowProblem:
            return ()

    def _rekey(self) -> None:
        """Where the map has got another key, its records are known by that one."""
        if all(found.is_keyed_as(self._view) for found in self._journal.layouts(self.side, self.map)):
            return
        number = 0
        while entries := self._journal.read(self.side, self.map, number, AT_ONCE):
            self._journal.rekey([replace(e, key=k, new_key=n) for e in entries for k, n in [self._keys_now(e)]])
            number = entries[-1].number

    def _keys_now(self, entry: Delayed) -> tuple[str | None, str | None]:
        mine = self._known(self._brought(entry.change))
        keys = [*map(key_text, self._keys(mine) if mine else ()), None, None]
        return keys[0], keys[1]

    # -- the queue ------------------------------------------------------------------------------------------------

    def first(self) -> Delayed | None:
        """The first change of the queue; None where nothing waits."""
        if self._first is None or self._first.number <= self.passed:
            self._first = next(iter(self.waiting(1)), None) if self._count else None
        return self._first

    def waiting(self, limit: int) -> list[Delayed]:
        """The first changes of the queue, at most so many."""
        return self._journal.read(self.side, self.map, self.passed, limit)

    def change(self, entry: Delayed) -> Change | None:
        """A change of the queue as it is to be carried; None where it is nothing to the map as it is now."""
        change = project(self.compiled, self.side, self._brought(entry.change), self._late())
        is_dropped = change is not None and change.kind is Kind.DELETE and not self.compiled.deletes
        return None if is_dropped else change

    def last(self) -> tuple[int, Position] | None:
        """Number and position of the last change that is kept."""
        return self._journal.last(self.side, self.map)

    def pass_to(self, number: int) -> None:
        """The other side has received the changes up to this number."""
        self.passed = number
        self._journal.set_passed(self.side, self.map, number)

    def pass_received(self) -> None:
        """Changes that the other side had received when the map was paused, or before a crash, do not wait."""
        received, number = self.received, self.passed
        while received is not None and (places := self._journal.places(self.side, self.map, number, AT_ONCE)):
            done = [place.number for place in places if place.position <= received]
            number = done[-1] if done else number
            if len(done) < AT_ONCE:
                break
        if number != self.passed:
            self.pass_to(number)

    # -- the windows ----------------------------------------------------------------------------------------------

    @property
    def holds_any(self) -> bool:
        """Is anything kept of the map's changes?"""
        return self._count > 0

    def window(self, keys: Iterable[Key]) -> dict[Key, list[Change]]:
        """The changes of some records, those of each in order."""
        if not self._count:
            return {}
        with self._looking:
            return self._asked.of(keys)

    def _changes(self, keys: Sequence[Key]) -> Iterator[tuple[Key, Change]]:
        for entry in self._journal.of(self.side, self.map, map(key_text, keys)):
            yield from self._of(self._brought(entry.change))

    def _of(self, change: Change) -> Iterator[tuple[Key, Change]]:
        """The change as windows hold it, under each key of its record; none where it is nothing to the map."""
        mine = self._known(change)
        if mine is not None:
            for key in self._keys(mine):
                yield key, mine

    def forget(self, seen: Position, hold: Callable[[Sequence[Key]], None] | None) -> None:
        """Drop what was received and seen by everything that is still to come; ``hold`` is told of whom it was, where
        anybody wants to know."""
        while self._count:
            places = self._journal.places(self.side, self.map, 0, AT_ONCE)
            gone = [place for place in places if place.number <= self.passed and place.position <= seen]
            if gone:
                if hold is not None:
                    texts = {text for place in gone for text in (place.key, place.new_key) if text is not None}
                    hold([key_of(text) for text in texts])
                self._journal.drop(self.side, self.map, gone[-1].number)
                with self._lock:
                    self._count -= len(gone)
            if len(gone) < AT_ONCE:
                return

    def drop(self) -> None:
        """Drop everything."""
        self._journal.drop(self.side, self.map)
