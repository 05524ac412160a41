"""Parked records: taken again in the order of their queues, or dropped for good."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from dualwrite.connectors.base import Transaction
from dualwrite.engine.apply import Application
from dualwrite.engine.giving_way import ONCE
from dualwrite.engine.ledger import SET_ASIDE, Ledger, cause_at
from dualwrite.engine.link import Link, Point, chunks, key_of, key_text
from dualwrite.engine.release import AT_ONCE, BEHIND, CONFLICT, LOOKED_UP, may_go
from dualwrite.engine.window import record_keys
from dualwrite.errors import Busy, RowProblem
from dualwrite.journal import ParkedKey
from dualwrite.mapping.compile import CompiledMap
from dualwrite.model import Change, Key, Kind, Position, Record, Row, Side

Transact: TypeAlias = Callable[[Callable[[Transaction], Ledger], Position | None, int | None], Ledger]
PARTS: Final = 14
"""Into so many parts records are divided of which users keep some locked: about the root of ``AT_ONCE``, so that few
are tried in vain."""
SEARCH: Final = 2.0
"""Seconds for which it is looked which of them these are."""


@dataclass
class _Taken:
    """Parked records that are taken again together, with their changes as the maps have them now."""

    entries: dict[Record, ParkedKey] = field(default_factory=dict)
    queues: dict[Record, list[Change]] = field(default_factory=dict)

    @property
    def is_held(self) -> bool:
        """Was any of them set aside?"""
        return any(entry.code == SET_ASIDE.code for entry in self.entries.values())

    def of(self, records: Iterable[Record]) -> list[Change]:
        """The changes of some of them, in the order in which they are to be applied; a rename that is in the queues of
        two of them once."""
        changes = (change for record in records for change in self.queues.get(record, ()))
        once = {(change.view, change.position, change.before, change.after): change for change in changes}
        return sorted(once.values(), key=lambda change: change.position.place)


class Retries:
    """What the flow out of ``source`` has parked at its target; ``transact`` does something in a transaction of it."""

    def __init__(self, link: Link, source: Side, point: Point, transact: Transact) -> None:
        self._link = link
        self._source = source
        self._target = source.other
        self._point = point
        self._transact = transact
        self._from = link.sides[source]
        self._to = link.sides[self._target]

    # -- what is parked, after an opening ---------------------------------------------------------------------------

    def learn(self) -> None:
        """Learn from the journal why records are parked."""
        for entry in self._link.journal.all_parked_keys(self._target):
            compiled = self._link.maps.get(entry.map)
            if compiled is not None:
                self._to.release.park(_record(entry), cause_at(compiled, self._target, entry))

    def look_again(self) -> None:
        """Nobody knows what has happened meanwhile: the map may be another one, or the systems, or it was about to be
        taken again.  Whatever may go is taken; what may as well be as it was, when there is time."""
        causes = self._to.release.causes()
        for map_name, key, kept in self._link.journal.last_changes(self._target):
            record, compiled = (map_name, key_of(key)), self._link.maps.get(map_name)
            cause = causes.get(record)
            if cause is None or compiled is None or cause.ahead is not None or record in self._to.unkeyed:
                continue
            is_decided = cause.code == CONFLICT and bool(self._link.decisions(*record))
            if is_decided or may_go(cause, compiled, self._source, kept.brought(compiled.views[self._source])):
                self._to.release.look(record, surely=not cause.is_the_targets)

    # -- taking again -----------------------------------------------------------------------------------------------

    def retry(self, records: Sequence[Record], *, unasked: bool = False) -> int:
        """Take parked records again, in the order of their queues; returns how many are free now.

        A retry never overwrites newer data: its changes are folded with the windows as they are now.  ``unasked``: no
        person wants it, so what is linked with something that was set aside waits with it.  What users keep locked
        stays parked, keeps nobody waiting, and is taken again by itself.
        """
        end, freed = time.monotonic() + SEARCH, 0
        left = deque(chunks(list(dict.fromkeys(records)), AT_ONCE))
        locked, unknown = list[Record](), list[Record]()
        while left:
            some = left.popleft()
            try:
                freed += self._retry(some, unasked)
            except Busy:
                if len(some) == 1:
                    locked += some
                elif time.monotonic() < end:
                    left.extend(chunks(some, max(1, len(some) // PARTS)))
                else:
                    unknown += some
        self._to.release.locked([*unknown, *locked])
        return freed

    def _retry(self, records: Sequence[Record], unasked: bool) -> int:
        taken = self._with_linked(records)
        if unasked and taken.is_held:
            records = [record for record in records if not self._with_linked([record]).is_held]
            taken = self._with_linked(records)
        asked = [record for record in records if record in taken.entries]
        looked_up = [record for record, entry in taken.entries.items() if entry.code in LOOKED_UP]
        elsewhere = {other for record in looked_up for other in self._look_up(record)}
        linked = [record for record in taken.entries if record not in elsewhere]
        if linked:
            self._take(linked, _settled(self._link, self._source, taken.of(linked)))
        return sum(record not in self._to.parked for record in asked)

    def _take(self, records: Sequence[Record], changes: Sequence[Change]) -> None:
        """Free these records, and carry their changes as if they had just come."""

        def work(transaction: Transaction) -> Ledger:
            application = Application(self._link, self._source, transaction)
            for map_name, key in records:
                application.ledger.free(map_name, key)
            application.run(changes)
            self._point("inside retry")
            return application.ledger

        self._transact(work, None, ONCE)

    def _look_up(self, record: Record) -> Iterable[Record]:
        """A key that several records of the source held, or that is empty: look at the source again, and never pick one
        of them.  Returns the records that hang together with it."""
        compiled, group = self._link.maps[record[0]], self._with_linked([record])
        queue = group.of(group.entries)
        naturals = dict.fromkeys(
            compiled.views[self._source].natural_key(row)
            for change in queue
            for row in (change.before, change.after)
            if row is not None
        )
        rows = self._from.connector.fetch(compiled.views[self._source], list(naturals))
        held = [row for found in rows.values() for row in found if compiled.passes(self._source, row)]
        if not any(record[1]):  # whoever got a key meanwhile was carried under it
            if not held:
                self._take(list(group.entries), [])
        elif queue and all(len(found) < 2 for found in rows.values()):
            gone = [change for change in queue if change.kind is Kind.DELETE and not rows.get(change.key)]
            self._take(list(group.entries), [*gone[-1:], *(self._as_weak(queue[-1], row) for row in held)])
        return group.entries

    def _as_weak(self, change: Change, row: Row) -> Change:
        """A row of the source as an initial sync would carry it, in the place of a change."""
        compiled, at = self._link.maps[change.view], float("-inf")
        natural = compiled.target_key(self._source, row)
        known = self._to.connector.fetch(compiled.views[self._target], [natural]).get(natural)
        kind = Kind.UPDATE if known else Kind.INSERT
        return change.with_images(None, row)._replace(kind=kind, at=at, weak=True)

    # -- what is taken together -------------------------------------------------------------------------------------

    def _with_linked(self, records: Iterable[Record]) -> _Taken:
        """The parked ones of these records, and those that are linked with them by a change of key."""
        taken, seen = _Taken(), set[Record]()
        wanted = self._takable(records, seen)
        while wanted:
            asked = [(name, key_text(key)) for name, key in wanted]
            entries = {_record(e): e for e in self._link.journal.parked_keys(self._target, asked)}
            taken.entries |= {record: entries[record] for record in wanted if record in entries}
            for (name, key), queue in self._link.journal.queues(self._target, asked).items():
                view = self._link.maps[name].views[self._source]
                taken.queues[name, key_of(key)] = [kept.brought(view) for kept in queue]
            wanted = self._takable([other for record in wanted for other in self._linked(record, taken)], seen)
        return taken

    def _takable(self, records: Iterable[Record], seen: set[Record]) -> list[Record]:
        """Those of the records that are parked, each once; they are ``seen`` from then on."""
        flowing = self._link.maps.keys() - self._link.standing
        mine = (record for record in dict.fromkeys(records) if record[0] in flowing)
        found = [record for record in mine if record not in seen and record in self._to.parked]
        seen.update(found)
        return [record for record in found if record not in self._to.unkeyed]

    def _linked(self, record: Record, taken: _Taken) -> Iterator[Record]:
        compiled, entry = self._link.maps[record[0]], taken.entries.get(record)
        if entry is not None and entry.code == BEHIND:
            yield compiled.name, key_of(entry.waits_key)
        for change in taken.queues.get(record, ()):
            with suppress(RowProblem):
                yield from ((compiled.name, other) for other in record_keys(compiled, self._source, change))

    # -- dropping ---------------------------------------------------------------------------------------------------

    def discard(self, records: Sequence[Record]) -> int:
        """Drop what is parked for these records, for good; what comes later flows again."""
        mine = [record for record in records if record in self._to.parked]
        if not mine:
            return 0

        def work(transaction: Transaction) -> Ledger:
            ledger = Ledger(self._to, transaction)
            ledger.freed_by = "discarded"
            for map_name, key in mine:
                ledger.free(map_name, key)
            return ledger

        self._transact(work, None, None)
        return len(mine)


def _record(entry: ParkedKey) -> Record:
    return entry.map, key_of(entry.key)


# -- keys that could not be told --------------------------------------------------------------------------------------


def _settled(link: Link, source: Side, changes: Sequence[Change]) -> list[Change]:
    """The changes without the steps between which nobody could tell a record's key, where a later one can."""
    found: list[Change] = []
    untold: dict[tuple[str, Key], Change] = {}
    for change in changes:
        compiled = link.maps[change.view]
        first = untold.pop((change.view, change.key), None)
        whole = change if first is None else _joined(compiled, source, first, change)
        if whole is None:
            continue
        if whole.after is None or _has_key(compiled, source, whole.after):
            found.append(whole)
        else:
            view = compiled.views[source]
            untold[change.view, view.natural_key(whole.after)] = whole
    return sorted([*found, *untold.values()], key=lambda change: change.position.place)


def _joined(compiled: CompiledMap, source: Side, first: Change, change: Change) -> Change | None:
    """Two changes of a record as one; None where the other side need never know of it."""
    if first.before is not None and _has_key(compiled, source, first.before):
        return change.with_images(first.before, change.after)._replace(key=first.key, seen=first.seen)
    if change.after is None:
        return None
    return change.with_images(None, change.after)._replace(kind=Kind.INSERT, seen=first.seen)


def _has_key(compiled: CompiledMap, side: Side, row: Row) -> bool:
    with suppress(RowProblem):
        return bool(compiled.key(side, row))
    return False
