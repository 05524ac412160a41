"""What referenced records were before the log changed them, behind the place of its reader.

A backlog may hold millions of such changes.  A few are in memory; of more, those that came first lie in a scratch
database that vanishes with the process.
"""

from __future__ import annotations

import pickle
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

from dualwrite.connectors._pg_entries import Place
from dualwrite.connectors._scratch import Scratch
from dualwrite.model import Cell

Image: TypeAlias = tuple[Cell, ...]
"""A record's columns that matter, in the order of ``Records.columns``, as canonical text."""
Identity: TypeAlias = tuple[str, ...]
"""What a record is referenced by, in the form in which equal values are the same text."""
Target: TypeAlias = tuple[str, tuple[str, ...]]
"""A referenced table and the columns by which it is referenced."""

HELD: Final = 5_000
"""Events in memory."""
_TABLE: Final = """
    CREATE TABLE event (record TEXT, lsn INTEGER, n INTEGER, image BLOB, PRIMARY KEY (record, lsn, n)) WITHOUT ROWID"""
_NEXT: Final = "SELECT lsn, n, image FROM event WHERE record = ? AND (lsn, n) > (?, ?) ORDER BY lsn, n LIMIT 1"


@dataclass(slots=True)
class Event:
    """A referenced record was something else up to a place."""

    place: Place
    image: Image | None


class Events:
    """Those behind the reader's place, by record; ``held``: how many of them are in memory."""

    def __init__(self, held: int = HELD) -> None:
        self._most = held
        self._held: dict[tuple[Target, Identity], list[Event]] = {}
        self._count = 0
        self._last: Place = ()
        self._scratch = Scratch(_TABLE)

    def add(self, target: Target, identity: Identity, event: Event) -> None:
        """The next one, behind all that are here."""
        if self._count >= self._most:
            self._spill()
        self._held.setdefault((target, identity), []).append(event)
        self._count += 1
        self._last = event.place

    def following(self, target: Target, identity: Identity, place: Place) -> Event | None:
        """The first one of a record behind a place."""
        record = target, identity
        if self._scratch.is_open:
            lsn, n = place if len(place) > 1 else (place[0], -1)
            with self._scratch.database() as database:
                found = database.execute(_NEXT, (_named(record), lsn, n)).fetchone()
            if found is not None:
                return Event(found[:2], pickle.loads(found[2]))
        events = self._held.get(record, [])
        index = bisect_right(events, place, key=_place)
        return events[index] if index < len(events) else None

    def passed(self, place: Place) -> None:
        """The reader's place: once it has passed all, they are forgotten."""
        if self._last and place >= self._last:
            self._held.clear()
            self._count, self._last = 0, ()
            self._scratch.drop()

    def _spill(self) -> None:
        with self._scratch.database() as database:
            database.executemany("INSERT OR IGNORE INTO event VALUES (?, ?, ?, ?)", _rows(self._held.items()))
        self._held.clear()
        self._count = 0


def _rows(
    held: Iterable[tuple[tuple[Target, Identity], list[Event]]],
) -> Iterator[tuple[str, int, int, bytes]]:
    for record, events in held:
        key = _named(record)
        for event in events:
            yield key, event.place[0], event.place[1], pickle.dumps(event.image)


def _named(record: tuple[Target, Identity]) -> str:
    return repr(record)  # not pickled: equal records could become different bytes


def _place(event: Event) -> Place:
    return event.place
