"""Which parked records are to be taken again by themselves, because what kept them back may be gone.

A later change of the record has come; the parent that it lacks is there, or the record that it waits behind is free;
users or we have written where something stood in its way.  Who is taken again in vain costs time, so whatever is only
a guess comes at growing intervals, and all of it together gets a small share of the flow's time.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from dualwrite.connectors.base import Connector
from dualwrite.engine.parents import Absent, Wanted
from dualwrite.errors import RowProblem
from dualwrite.mapping.compile import CompiledMap
from dualwrite.model import Change, Key, Kind, Record, Side

INTERVAL: Final = 0.25
"""Seconds between two looks while changes keep coming, and before a record is taken again after it was in vain."""
SHARE: Final = 20
"""Looking around, and taking again on a guess, get one part of the flow's time in so many."""
LONGEST_PAUSE: Final = 60.0
"""Seconds before a record is taken again on a guess, at most: the pause doubles each time."""
AT_ONCE: Final = 200
"""Records that are taken again at once while changes keep coming."""
OR: Final = " or "
ANY_TABLE: Final = "*"
"""What a record waits for that a foreign key has refused: the database does not say which one."""

BEHIND: Final = "behind"
"""The code of what waits behind another parked record."""
MANY_DELETES: Final = "many_deletes"
"""The code of deletes beyond the link's limit."""
CONFLICT: Final = "conflict"
"""The code of what a person has to decide."""
UNTIL_A_PERSON: Final = frozenset({CONFLICT, "rename", "loop", "set_aside", "duplicate_key"})
"""Codes of what only a person can settle: which of two records with one key is meant, too, for the one that stays would
overwrite what the other side has, whichever side is the master."""
EMPTY_KEY: Final = "empty_key"
"""The code of all records of a map that have no key."""
LOOKED_UP: Final = frozenset({"duplicate_key", EMPTY_KEY})
"""Codes of records of which the source itself has to tell whether they are still so."""
REFUSALS: Final = frozenset({"unique", "reference", "required", "value", "ambiguous", "readonly", "other", "bypassed"})
"""Codes of what the target says, and the map cannot tell."""
ANYWHERE: Final = frozenset({"reference", "ambiguous"})
"""Codes of what may be gone when anything is written in the target."""


def either(*tables: str) -> str:
    """Tables of which one may hold a record that is missing, for people and as what a record waits for."""
    return OR.join(dict.fromkeys(tables))


@dataclass(frozen=True, slots=True)
class Cause:
    """What keeps a record parked: its code and column, and what would let it go.

    ``tables`` are those in which something has to be written for it, ``ahead`` is the record behind which it waits.
    """

    code: str
    column: str = ""
    tables: tuple[str, ...] = ()
    ahead: Record | None = None

    @property
    def is_the_targets(self) -> bool:
        """Has the target refused the record, which it may do for as long as it likes?"""
        return self.code in REFUSALS


@lru_cache(maxsize=1_000)
def cause_of(code: str, column: str, waits: str, ahead: Record | None, own_table: str) -> Cause:
    """The cause of a record in a table; ``waits`` as ``either`` says it.  Very many records may have the same one."""
    tables = dict.fromkeys((waits, *waits.split(OR))) if waits else {}  # a table may be called so
    if code == "unique":
        tables[own_table] = None
    if code in ANYWHERE:
        tables[ANY_TABLE] = None
    return Cause(code, column, tuple(tables), ahead)


@dataclass(slots=True)
class _Waiting:
    """A parked record: why it is, and how soon it may be taken again after it was in vain."""

    record: Record
    cause: Cause
    pause: float = 0.0
    guess_after: float = 0.0
    after: float = 0.0

    def in_vain(self, now: float, spent: float) -> None:
        """It was taken again, which took so many seconds."""
        self.pause = min(max(INTERVAL, 2 * self.pause), LONGEST_PAUSE)
        self.guess_after = now + self.pause
        self.after = now + max(INTERVAL, spent * SHARE)


@dataclass
class Release:
    """What is parked at one side, by what would let it go.

    The flow into the side owns it; the flow out of it calls ``written`` alone.
    """

    _records: dict[Record, _Waiting] = field(default_factory=dict)
    _waiting: dict[str, dict[Record, None]] = field(default_factory=dict)  # table → records
    _behind: dict[Record, dict[Record, None]] = field(default_factory=dict)  # record → those that wait behind it
    _absent: Absent = field(default_factory=Absent)
    _due: dict[Record, None] = field(default_factory=dict)  # a later change has come, or what it waits for has
    _guessed: dict[Record, None] = field(default_factory=dict)  # something was written that may have been in the way
    _locked: dict[Record, None] = field(default_factory=dict)  # users kept it from being taken just now: it stays due
    _written: deque[str] = field(default_factory=deque)
    _busy_until: float = 0.0
    _look_after: float = 0.0
    _guess_after: float = 0.0

    # -- what is learned -------------------------------------------------------------------------------------------

    def park(self, record: Record, cause: Cause, parents: Sequence[Wanted] = ()) -> None:
        """The record is parked, or parked again; any one of the ``parents`` would do, where they are known."""
        before = self._records.get(record)
        self._forget(record)
        if before is None:
            self._records[record] = _Waiting(record, cause)
        else:
            before.cause = cause
        for table in cause.tables:
            self._waiting.setdefault(table, {})[record] = None
        if cause.ahead is not None:
            self._behind.setdefault(cause.ahead, {})[record] = None
        self._absent.wait(record, parents)

    def free(self, record: Record) -> None:
        """It is not parked any more; those that wait behind it may follow."""
        self._forget(record)
        self._records.pop(record, None)
        for follower in self._behind.pop(record, ()):
            self._due[follower] = None

    def _forget(self, record: Record) -> None:
        waiting = self._records.get(record)
        if waiting is None:
            return
        for table in waiting.cause.tables:
            _discard(self._waiting, table, record)
        if waiting.cause.ahead is not None:
            _discard(self._behind, waiting.cause.ahead, record)
        self._absent.forget(record)
        self._due.pop(record, None)
        self._guessed.pop(record, None)
        self._locked.pop(record, None)

    def follow(self, compiled: CompiledMap, source: Side, key: Key, change: Change) -> None:
        """A later change of a parked record has come, and waits behind it."""
        record, passed = (compiled.name, key), set[Record]()
        while (waiting := self._records.get(record)) is not None and waiting.cause.ahead and record not in passed:
            passed.add(record)
            record = waiting.cause.ahead
        if waiting is not None and may_go(waiting.cause, compiled, source, change):
            self._due[record] = None

    def keyed(self, maps: Collection[str]) -> None:
        """Records of these maps that had no key may have one by now, or are gone."""
        if maps:
            mine = (record for record, waiting in self._records.items() if waiting.cause.code == EMPTY_KEY)
            self._due.update((record, None) for record in mine if record[0] in maps)

    def look(self, record: Record, *, surely: bool) -> None:
        """The record is to be taken again, though nothing has come for it; not ``surely``: when there is time."""
        waiting = self._records.get(record)
        if waiting is not None:
            (self._due if surely else self._guessed)[waiting.record] = None  # that very object: there may be very many

    def locked(self, records: Sequence[Record]) -> None:
        """Of the records taken just now users keep these locked, or some of them: they stay due, in this order."""
        self._locked = {record: None for record in records if record in self._records}
        self._due.update(self._locked)

    def written(self, tables: Iterable[str]) -> None:
        """Something was written in these tables of the side.  For any thread."""
        if self._waiting:
            self._written.extend(tables)

    @property
    def waits(self) -> bool:
        """Does any record wait for what may be written in a table?"""
        return bool(self._waiting)

    def causes(self) -> dict[Record, Cause]:
        """Why each record is parked."""
        return {record: waiting.cause for record, waiting in self._records.items()}

    # -- what is due -----------------------------------------------------------------------------------------------

    def due(
        self, connector: Connector, heard: Collection[str], standing: Collection[str], *, idle: bool, hurried: bool
    ) -> list[Record]:
        """The records to be taken again now, in the order in which that became known.

        ``heard`` are the tables of which feeds tell; others are asked now and then.  Records of ``standing`` maps wait
        until these go on.  ``idle``: no changes are waiting.
        ``hurried``: whoever asks waits for everything that can go.
        """
        now = time.monotonic()
        if not self._records or (now < self._busy_until and not (idle or hurried)):
            return []
        self._busy_until = now + INTERVAL
        if hurried or now >= self._look_after:
            self._look_around(connector, heard, ask=idle)
            self._look_after = now + SHARE * (time.monotonic() - now)
        found = [record for record in self._due if hurried or self._records[record].after <= now]
        if hurried or now >= self._guess_after:
            found += [record for record in self._guessed if hurried or self._records[record].guess_after <= now]
        flowing = [record for record in dict.fromkeys(found) if record[0] not in standing]
        return flowing[: None if hurried else AT_ONCE]

    def taken(self, records: Sequence[Record], since: float) -> None:
        """These were taken again, beginning at that moment."""
        now = time.monotonic()
        self._guess_after = now + SHARE * (now - since)
        for record in records:
            self._due.pop(record, None)
            self._guessed.pop(record, None)
            waiting = self._records.get(record)
            if waiting is not None:
                waiting.in_vain(now, (now - since) / len(records))
        self._due.update(self._locked)  # behind the others

    def _look_around(self, connector: Connector, heard: Collection[str], *, ask: bool) -> None:
        """Learn which parents have come, and what may not be in the way any more."""
        written = {self._written.popleft() for _ in range(len(self._written))}
        if written:
            waiting = [record for table in (*sorted(written), ANY_TABLE) for record in self._waiting.get(table, ())]
            self._guessed.update((record, None) for record in waiting if not self._absent.knows(record))
            self._come(self._absent.come(connector, written))
        if ask:
            self._come(self._absent.arrived(connector, heard))

    def _come(self, records: Iterable[Record]) -> None:
        """Their parents are there.  Where one was there before, and did not help, that is a guess."""
        for record in records:
            (self._guessed if self._records[record].pause else self._due)[record] = None


def _discard(groups: dict, group: object, record: Record) -> None:  # type: ignore[type-arg]
    records = groups.get(group)
    if records is not None:
        records.pop(record, None)
        if not records:
            del groups[group]


def may_go(cause: Cause, compiled: CompiledMap, source: Side, last: Change) -> bool:
    """May a parked record go through by itself, when this is the last of its changes?"""
    if cause.code in UNTIL_A_PERSON:
        return False
    if cause.code == MANY_DELETES:
        return last.kind is not Kind.DELETE
    if last.after is None or cause.code in LOOKED_UP:
        return True
    try:
        compiled.map_row(source, last.after)
    except RowProblem as problem:
        return (problem.code, problem.column) != (cause.code, cause.column)
    return True
