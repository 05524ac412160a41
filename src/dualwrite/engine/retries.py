"""Parked records: taken again in the order of their queues, or dropped for good."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TypeAlias

from dualwrite.connectors.base import Transaction
from dualwrite.engine.apply import Application
from dualwrite.engine.ledger import Ledger
from dualwrite.engine.link import Link, Point, chunks, key_of, key_text
from dualwrite.engine.window import record_keys
from dualwrite.errors import RowProblem
from dualwrite.model import Change, Key, Kind, Position, Row, Side

Transact: TypeAlias = Callable[[Callable[[Transaction], Ledger], Position | None], Ledger]
AT_ONCE = 200
"""Records taken again in one transaction."""


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

    def retry(self, records: Sequence[tuple[str, Key]]) -> int:
        """Take parked records again, in the order of their queues; returns how many are free now.

        A retry never overwrites newer data: its changes are folded with the windows as they are now.
        """
        records = [record for record in records if record not in self._to.unkeyed]
        doubled = [record for record in records if self._is_doubled(*record)]
        freed = sum(self._retry_doubled(record) for record in doubled)
        for chunk in chunks([record for record in records if record not in doubled], AT_ONCE):
            freed += self._retry(chunk)
        return freed

    def _is_doubled(self, map_name: str, key: Key) -> bool:
        found = self._link.journal.parked({}, map=map_name, side=self._target, key=key_text(key))
        return map_name in self._link.maps and any(entry.code == "duplicate_key" for entry in found)

    def _retry_doubled(self, record: tuple[str, Key]) -> int:
        """A key that several records of the source held: look at the source again, and never pick one of them."""
        compiled = self._link.maps[record[0]]
        queue = self.queued(self._with_linked([record]))
        naturals = dict.fromkeys(
            compiled.views[self._source].natural_key(row)
            for change in queue
            for row in (change.before, change.after)
            if row is not None
        )
        rows = self._from.connector.fetch(compiled.views[self._source], list(naturals))
        if not queue or any(len(found) > 1 for found in rows.values()):
            return 0
        held = [found[0] for found in rows.values() if found and compiled.passes(self._source, found[0])]
        gone = [change for change in queue if change.kind is Kind.DELETE and not rows.get(change.key)]
        return self._retry([record], [*gone[-1:], *(self._as_weak(queue[-1], row) for row in held)])

    def _as_weak(self, change: Change, row: Row) -> Change:
        """A row of the source as an initial sync would carry it, in the place of a change."""
        compiled, at = self._link.maps[change.view], float("-inf")
        natural = compiled.target_key(self._source, row)
        known = self._to.connector.fetch(compiled.views[self._target], [natural]).get(natural)
        kind = Kind.UPDATE if known else Kind.INSERT
        return replace(change, kind=kind, before=None, after=row, at=at, weak=True)

    def queued(self, records: Iterable[tuple[str, Key]]) -> list[Change]:
        """The changes of parked records, as the maps have them now, in the order in which they are to be applied."""
        queues = (self._queue(name, key) for name, key in records)
        return sorted((change for queue in queues for change in queue), key=lambda change: change.position.place)

    def _queue(self, map_name: str, key: Key) -> list[Change]:
        view = self._link.maps[map_name].views[self._source]
        return [kept.brought(view) for kept in self._link.journal.queue(self._target, map_name, key_text(key))]

    def _retry(self, records: Sequence[tuple[str, Key]], instead: Sequence[Change] | None = None) -> int:
        linked = self._with_linked(records)
        if not linked:
            return 0
        changes = self.queued(linked) if instead is None else instead

        def work(transaction: Transaction) -> Ledger:
            application = Application(self._link, self._source, transaction)
            for map_name, key in linked:
                application.ledger.free(map_name, key)
            application.run(changes)
            self._point("inside retry")
            return application.ledger

        self._transact(work, None)
        return sum(record not in self._to.parked for record in records)

    def _with_linked(self, records: Iterable[tuple[str, Key]]) -> list[tuple[str, Key]]:
        """The parked ones of these records, and those that are linked with them by a change of key."""
        found: dict[tuple[str, Key], None] = {}
        waiting = list(records)
        while waiting:
            record = waiting.pop(0)
            if record in found or record not in self._to.parked or record[0] not in self._link.maps:
                continue
            if record in self._to.unkeyed or record[0] in self._link.standing:
                continue
            found[record] = None
            waiting += self._linked(*record)
        return list(found)

    def _linked(self, map_name: str, key: Key) -> Iterator[tuple[str, Key]]:
        compiled = self._link.maps[map_name]
        for entry in self._link.journal.parked({}, map=map_name, side=self._target, key=key_text(key)):
            if entry.code == "behind":
                yield map_name, key_of(entry.waits_key)
        for change in self._queue(map_name, key):
            with suppress(RowProblem):
                yield from ((map_name, other) for other in record_keys(compiled, self._source, change))

    def discard(self, records: Sequence[tuple[str, Key]]) -> int:
        """Drop what is parked for these records, for good; what comes later flows again."""
        mine = [record for record in records if record in self._to.parked]
        if not mine:
            return 0

        def work(transaction: Transaction) -> Ledger:
            ledger = Ledger(self._to, transaction)
            for map_name, key in mine:
                ledger.free(map_name, key)
            return ledger

        self._transact(work, None)
        return len(mine)
