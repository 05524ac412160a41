"""What both flows of a link share: the two sides with what is known of each, the running maps, the journal."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from sys import intern
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from dualwrite.connectors.base import Connector, Remembered, Transaction
from dualwrite.engine.contest import Decision, Hidden
from dualwrite.engine.loops import LoopGuard
from dualwrite.engine.meter import Meter
from dualwrite.engine.release import Release
from dualwrite.engine.spool import scratch_database
from dualwrite.engine.window import Windows
from dualwrite.errors import Busy, Unavailable
from dualwrite.journal import Journal, Layout
from dualwrite.lined import weight
from dualwrite.mapping.compile import CompiledMap
from dualwrite.model import Change, Key, Position, Record, Side, decode, encode
from dualwrite.schema import View

if TYPE_CHECKING:
    from dualwrite.engine.audit import Auditor
    from dualwrite.engine.backlog import Backlog
    from dualwrite.engine.kept import KeptWindows

PARKED, HIDDEN, RESTORE, QUEUED, VACANT = "parked", "hidden", "restore", "queued", "vacant"
"""Kinds of side-table entries: a parked record's first change; the row under a delete; a record whose one-way columns
are to be written again from their source; how far a side has received a paused map's changes; a record that was not
there and was left so (``Vacancy``)."""

Point: TypeAlias = Callable[[str], None]
"""Called with the name of each place at which a crash matters; does nothing outside tests."""
Item = TypeVar("Item")


def no_point(point: str) -> None:
    """Fault points do nothing outside tests."""


def chunks(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """Slices of at most ``size``."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def key_text(key: Key) -> str:
    """A common-form key as the text under which journal and side table know the record."""
    return encode(key) or "[]"


def key_of(text: str) -> Key:
    """The inverse of ``key_text``."""
    return tuple(None if member is None else str(member) for member in json.loads(text))


@dataclass(frozen=True, slots=True)
class Interval:
    """A record was parked between two of our commits; ``first`` is the position of the first change parked."""

    first: Position
    since: int
    until: int | None


class ParkedKeys:
    """Which records are parked at a side, now and at each of our earlier commits that the feed may still speak of.

    Thread-safe: the flow into the side adds and removes, the flow out of it prunes.
    """

    def __init__(self, entries: Iterable[Remembered] = ()) -> None:
        self._intervals: dict[tuple[str, Key], tuple[Interval, ...]] = {}
        self._ended: dict[tuple[str, Key], None] = {}  # the records of some interval that is over
        self._maps: Counter[str] = Counter()  # how many records each map has here
        self._lock = threading.Lock()
        for entry in entries:
            first, since = parked_from(entry.value)
            interval = Interval(first, entry.since if since is None else since, entry.until)
            self._append((intern(entry.view), key_of(entry.key)), interval)

    def __bool__(self) -> bool:
        return bool(self._intervals)

    def __contains__(self, record: tuple[str, Key]) -> bool:
        return record in self._intervals and self.first(*record) is not None

    def first(self, map_name: str, key: Key) -> Position | None:
        """The first change parked for the record now; None when it is not parked."""
        return next((i.first for i in self._intervals.get((map_name, key), ()) if i.until is None), None)

    def first_at(self, map_name: str, key: Key, mark: int) -> Position | None:
        """The same as it was behind our commit number ``mark``."""
        for interval in self._intervals.get((map_name, key), ()):
            if interval.since <= mark and (interval.until is None or mark < interval.until):
                return interval.first
        return None

    def add(self, map_name: str, key: Key, first: Position, since: int) -> None:
        """The record is parked from our commit ``since`` on."""
        with self._lock:
            self._append((map_name, key), Interval(first, since, None))

    def _append(self, record: tuple[str, Key], interval: Interval) -> None:
        before = self._intervals.get(record, ())
        self._intervals[record] = (*before, interval)
        if not before:
            self._maps[record[0]] += 1
        if interval.until is not None:
            self._ended[record] = None

    def remove(self, map_name: str, key: Key, until: int) -> None:
        """The record is free from our commit ``until`` on."""
        with self._lock:
            now = self._intervals.get((map_name, key), ())
            ended = tuple(i if i.until is not None else Interval(i.first, i.since, until) for i in now)
            self._intervals[map_name, key] = ended
            self._ended[map_name, key] = None

    def since(self, map_name: str, key: Key) -> int | None:
        """The commit of ours from which on the record has been parked; None when it is not parked."""
        return next((i.since for i in self._intervals.get((map_name, key), ()) if i.until is None), None)

    def mentions(self, map_name: str, key: Key) -> bool:
        """Is the record parked, or was it at a commit of ours that changes still to be read may come before?"""
        return (map_name, key) in self._intervals

    def concerns(self, map_name: str) -> bool:
        """Does it mention any record of the map?"""
        return self._maps[map_name] > 0

    def prune(self, mark: int, but: Collection[str] = ()) -> list[tuple[str, Key]]:
        """Forget what ended at or before our commit ``mark``: no change from before it will be read again, ``but`` of
        some maps such changes wait.

        Returns the records of which nothing is left.  Those that have been parked all along cost nothing: there may be
        very many, and this is asked for each batch.
        """
        gone = []
        with self._lock:
            for record in [record for record in self._ended if record[0] not in but]:
                kept = tuple(i for i in self._intervals[record] if i.until is None or i.until > mark)
                if kept:
                    self._intervals[record] = kept
                else:
                    del self._intervals[record]
                    self._maps[record[0]] -= 1
                    gone.append(record)
                if all(i.until is None for i in kept):
                    del self._ended[record]
        return gone

    def records(self) -> list[tuple[str, Key]]:
        """All records parked now."""
        with self._lock:
            return [r for r, intervals in self._intervals.items() if any(i.until is None for i in intervals)]


@dataclass(frozen=True, slots=True)
class Vacancy:
    """Our commit ``number`` has decided about a record that was not there, and has left it so.

    No lock keeps users from making such a record before that commit is done.  What was known of them reached up to
    ``looked``; the other side's changes were carried up to ``carried`` (None: no further than before).
    """

    looked: Position
    number: int
    carried: Position | None

    def comes_before(self, change: Change) -> bool:
        """Has a user made this change before our commit, but behind what we knew of?

        Our commit has not touched the record, so it is as if it had come before the change.
        """
        behind = self.looked.feed == change.position.feed and self.looked < change.position
        return behind and change.mark < self.number


class Vacancies:
    """The records of a side about which our latest commits have decided though they were not there.

    Thread-safe: the flow into the side adds, the flow out of it asks and prunes.
    """

    def __init__(self, entries: Iterable[Remembered] = ()) -> None:
        self._known: dict[tuple[str, Key], tuple[Vacancy, ...]] = {}
        self._commits: deque[tuple[int, Sequence[tuple[str, Key]]]] = deque()  # what each left absent, oldest first
        self._deciding: Collection[tuple[str, Key]] = ()
        self._decided = threading.Condition()
        self.lasting: dict[tuple[str, Key], None] = {}  # those that the side table has to let go of
        said: dict[tuple[int, str], list[tuple[str, Key]]] = {}  # a commit says the same of all its records
        for entry in sorted(entries, key=lambda entry: entry.since):
            record = entry.view, key_of(entry.key)
            said.setdefault((entry.since, entry.value), []).append(record)
            if entry.until is None:
                self.lasting[record] = None
        for (number, text), records in said.items():
            self._append(records, vacancy_from(text, number))

    def _append(self, records: Iterable[tuple[str, Key]], vacancy: Vacancy) -> None:
        alone, absent = (vacancy,), tuple(records)  # there may be hundreds of thousands
        self._commits.append((vacancy.number, absent))
        for record in absent:
            former = self._known.get(record)
            self._known[record] = alone if former is None else (*former, vacancy)

    def __bool__(self) -> bool:
        return bool(self._known or self._deciding)

    @contextmanager
    def deciding(self, records: Collection[tuple[str, Key]]) -> Iterator[None]:
        """Inside, a commit is prepared and done that leaves these absent: whoever asks about them waits.

        Who commits has to look once more at what users have done, inside, before it is done.
        """
        with self._decided:
            self._deciding = records
        try:
            yield
        finally:
            with self._decided:
                self._deciding = ()
                self._decided.notify_all()

    def add(self, records: Iterable[tuple[str, Key]], vacancy: Vacancy) -> None:
        """These were left absent, and nothing of what earlier commits left so lasts in the side table any more."""
        with self._decided:
            self.lasting = dict.fromkeys(records)
            if self.lasting:
                self._append(self.lasting, vacancy)

    def before(self, record: tuple[str, Key], change: Change) -> Vacancy | None:
        """What was decided about the record as if before a change of it that stands before the commit in the feed."""
        with self._decided:
            while record in self._deciding:
                self._decided.wait()
            return next((found for found in self._known.get(record, ()) if found.comes_before(change)), None)

    def prune(self, mark: int) -> None:
        """No change from before our commit ``mark`` will be read again."""
        with self._decided:
            while self._commits and self._commits[0][0] <= mark:
                _, records = self._commits.popleft()
                for record in records:
                    later = self._known.pop(record)[1:]  # the oldest one is of this commit
                    if later:
                        self._known[record] = later


HIDDEN_IN_MEMORY = 2_000
"""Rows under a delete that are held in memory; more of them go to disk: a whole table may have been deleted."""
LARGEST_HIDDEN = 4 << 20
"""Characters of them: rows may be large."""


class HiddenRows:
    """The rows that lie under deletes of a side's records.  Not thread-safe: the flow into the side owns them."""

    def __init__(self) -> None:
        self._recent: dict[tuple[str, Key], Hidden] = {}
        self._weight = 0  # characters of the recent ones
        self._database: sqlite3.Connection | None = None
        self._older = 0  # how many are on disk
        self._maps: Counter[str] = Counter()  # how many records each map has here

    def __bool__(self) -> bool:
        return bool(self._recent or self._older)

    def __iter__(self) -> Iterator[tuple[str, Key]]:
        yield from self._recent
        for name, key in self._on_disk("SELECT map, key FROM old"):
            yield name, key_of(key)

    def get(self, record: tuple[str, Key]) -> Hidden | None:
        """The row under a record's delete."""
        found = self._recent.get(record)
        if found is None and self._older:
            query = "SELECT after, cells FROM old WHERE map = ? AND key = ?"
            for after, cells in self._on_disk(query, record[0], key_text(record[1])):
                return Hidden(decode(cells) or (), None if after is None else Position.parse(after))
        return found

    def put(self, record: tuple[str, Key], hidden: Hidden) -> None:
        """Keep the row under a record's delete, instead of the one that was kept."""
        self.discard(record)
        self._recent[record] = hidden
        self._maps[record[0]] += 1
        self._weight += weight([hidden.row])
        if len(self._recent) > HIDDEN_IN_MEMORY or self._weight > LARGEST_HIDDEN:
            self._spill()

    def discard(self, record: tuple[str, Key]) -> None:
        """Nothing lies under the record any more."""
        found = self._recent.pop(record, None)
        gone = 0
        if found is not None:
            self._weight -= weight([found.row])
            gone = 1
        elif self._older and self._database is not None:
            statement = "DELETE FROM old WHERE map = ? AND key = ?"
            gone = self._database.execute(statement, (record[0], key_text(record[1]))).rowcount
            self._older -= gone
        self._maps[record[0]] -= gone

    def concerns(self, map_name: str) -> bool:
        """Does a row lie under the delete of any record of the map?"""
        return self._maps[map_name] > 0

    def passed(self, seen: Position) -> Iterator[tuple[str, Key]]:
        """The records of which the delete lies before this place."""
        for record, hidden in self._recent.items():
            after = hidden.after
            if after is not None and after.feed == seen.feed and after < seen:
                yield record
        query = "SELECT map, key FROM old WHERE feed = ? AND place < ?"
        for name, key in self._on_disk(query, seen.feed, _sortable(seen)):
            yield name, key_of(key)

    def _on_disk(self, query: str, *values: object) -> Iterator[tuple[Any, ...]]:
        return iter(()) if self._database is None else iter(self._database.execute(query, values))

    def _spill(self) -> None:
        if self._database is None:
            self._database = scratch_database(self)
            self._database.execute(
                "CREATE TABLE old (map TEXT, key TEXT, after TEXT, cells TEXT, feed TEXT, place BLOB, "
                "PRIMARY KEY (map, key))"
            )
            self._database.execute("CREATE INDEX old_places ON old (feed, place)")
            self._database.execute("BEGIN")  # nobody else reads it, and to commit each discarded row would cost more
        for (name, key), (row, after) in ((record, (found.row, found.after)) for record, found in self._recent.items()):
            at = (None, None, None) if after is None else (str(after), after.feed, _sortable(after))
            values = (name, key_text(key), at[0], encode(row), *at[1:])
            self._database.execute("INSERT INTO old VALUES (?, ?, ?, ?, ?, ?)", values)
        self._older += len(self._recent)
        self._recent.clear()
        self._weight = 0


def _sortable(position: Position) -> bytes:
    """The place of a position as bytes, which compare as the places of one feed do."""
    return b"".join([(number + (1 << 63)).to_bytes(9, "big") for number in position.place])


def _nothing() -> None:
    pass


@dataclass
class LinkSide:
    """One side of the link as the engine knows it.  Everything but the connector is a cache of committed state."""

    side: Side
    connector: Connector
    windows: Windows
    kept: KeptWindows  # of records that are parked on one of the sides
    parked: ParkedKeys = field(default_factory=ParkedKeys)
    vacant: Vacancies = field(default_factory=Vacancies)
    hidden: HiddenRows = field(default_factory=HiddenRows)
    restore: dict[tuple[str, Key], Key] = field(default_factory=dict)  # records whose one-way columns the *other*
    # side is to take from here again → their natural key here
    release: Release = field(default_factory=Release)  # what would let parked records go
    unkeyed: set[tuple[str, Key]] = field(default_factory=set)  # parked under a key that their map had earlier
    is_read: bool = True  # does the transaction that is open here know all that users committed before it?
    commits: int | None = None  # the number of the last commit of this very engine here
    backlogs: dict[str, Backlog] = field(default_factory=dict)  # what its users do to maps that do not simply flow
    read_on: Callable[[], None] = _nothing  # what there is to do here while the other side's system is at work
    _learning: threading.Lock = field(default_factory=threading.Lock)  # held from our commit until the caches know it
    _known: int = -1  # the number of the last commit of this engine that the caches know

    def records(self) -> Iterator[tuple[str, Key]]:
        """Every record, with its map, of which something is kept in the side table."""
        yield from self.parked.records()
        yield from self.hidden
        yield from self.restore

    def follows(self, transaction: Transaction) -> bool:
        """Has nobody committed for the link since this engine did?  To be asked before anything is journalled."""
        with self._learning:  # a flow that has just committed may not have said so yet
            return self.commits is None or transaction.number == self.commits + 1

    @contextmanager
    def committed(self, transaction: Transaction, position: Position | None) -> Iterator[None]:
        """Commit, and remember that we did; inside, the caches are brought in step with it."""
        with self._learning:
            try:
                transaction.commit(position)
            except Busy as trouble:  # not to be done anew: the journal knows of it already
                raise Unavailable(trouble.message, trouble.remedy) from trouble
            self.commits = transaction.number
            yield
            self._known = transaction.number

    def learned(self, mark: int) -> None:
        """Wait until the caches know our commits up to this number, which the feed has told of.

        The flow that commits is another thread, and what it parked has not been seen by the changes behind its marker.
        """
        if mark > self._known:
            with self._learning:
                pass


@dataclass(frozen=True, slots=True)
class ClockOffset:
    """How far the right clock is ahead of the left one, in seconds, for right changes from a place of the feed on.

    An offset that was measured later changes nothing for earlier changes: a decision about them may have been made on
    one side, and be still to come on the other.
    """

    seconds: float
    start: Position | None = None

    def holds_at(self, position: Position) -> bool:
        """Is the change at ``position`` behind the start?  Another incarnation of the feed came later."""
        return self.start is None or self.start.feed != position.feed or self.start <= position


def clocks_text(clocks: Sequence[ClockOffset]) -> str:
    """Measured offsets, oldest first, as the journal keeps them."""
    return json.dumps([[found.seconds, None if found.start is None else str(found.start)] for found in clocks])


def clocks_from(text: str | None) -> list[ClockOffset]:
    """The inverse of ``clocks_text``; none where nothing was measured yet."""
    return [
        ClockOffset(seconds, None if start is None else Position.parse(start))
        for seconds, start in json.loads(text or "[]")
    ]


@dataclass
class Link:
    """A link as the engine runs it.  ``maps`` holds the live maps in the order of their references."""

    name: str
    sides: Mapping[Side, LinkSide]
    journal: Journal
    maps: dict[str, CompiledMap]
    cyclic: Mapping[str, Mapping[Side, frozenset[str]]] = field(default_factory=dict)
    delete_limit: int | None = None
    updates: float | None = None
    decided: dict[tuple[str, str], dict[str, list[Decision]]] = field(default_factory=dict)
    clocks: Sequence[ClockOffset] = ()
    meter: Meter = field(default_factory=Meter)
    loops: LoopGuard = field(default_factory=LoopGuard)
    standing: set[str] = field(default_factory=set)  # paused maps: nothing of them is carried, retried or restored
    audit: Auditor | None = None
    is_ending: Callable[[], bool] = lambda: False  # is the engine to end?

    def stream(self, source: Side) -> str:
        """The stream of the flow out of ``source``."""
        return f"{source}>{source.other}"

    def views(self, side: Side) -> Sequence[View]:
        """The views of the live maps on that side."""
        return [compiled.views[side] for compiled in self.maps.values()]

    def is_held(self, side: Side, map_name: str, key: Key) -> bool:
        """May changes still come into a side that have not seen what everybody else has?  Those that are parked there,
        and those of the other side where what this one's users did is parked."""
        here, there = self.sides[side].parked, self.sides[side.other].parked
        return (map_name, key) in here or there.mentions(map_name, key)

    def lend(self, side: Side, records: Iterable[Record]) -> None:
        """Bring what the journal has of the windows of a side's records into memory, for one transaction."""
        state = self.sides[side]
        found: dict[Record, list[Change]] = state.kept.of(record for record in records if self.is_held(side, *record))
        of_backlogs: dict[str, list[Key]] = {}
        for name, key in records:
            if name in state.backlogs:
                of_backlogs.setdefault(name, []).append(key)
        for name, keys in of_backlogs.items():
            for key, changes in state.backlogs[name].window(keys).items():
                found[name, key] = [*found.get((name, key), ()), *changes]
        state.windows.lend({record: changes for record, changes in found.items() if changes})

    def decisions(self, map_name: str, key: Key) -> Mapping[str, Sequence[Decision]]:
        """What people decided about a record, per unit, in the order in which they did."""
        return self.decided.get((map_name, key_text(key)), {}) if self.decided else {}

    def read_decisions(self) -> None:
        """Learn from the journal what people have decided."""
        decided: dict[tuple[str, str], dict[str, list[Decision]]] = {}
        for found in self.journal.all_decisions():
            units = decided.setdefault((found.map, found.key), {})
            units.setdefault(found.unit, []).append(Decision(found.winner, found.covers))
        self.decided = decided

    def ahead(self, position: Position) -> float:
        """How far the right clock was ahead when the right side's change at ``position`` was made, in seconds."""
        return next((found.seconds for found in reversed(self.clocks) if found.holds_at(position)), 0.0)


def load_side(
    kept: KeptWindows, connector: Connector, maps: Mapping[str, CompiledMap], known: Mapping[str, CompiledMap]
) -> LinkSide:
    """The side of ``kept`` as its own database remembers it; ``known`` are also the maps that are not live and go on
    all the same."""
    side = kept.side
    parked, vacant = ParkedKeys(connector.remembered(PARKED)), Vacancies(connector.remembered(VACANT))
    state = LinkSide(side, connector, Windows(side, maps), kept, parked, vacant)
    views = {name: compiled.views[side] for name, compiled in known.items()}
    for entry in connector.remembered(HIDDEN):
        if entry.until is None:
            state.hidden.put((entry.view, key_of(entry.key)), hidden_from(entry.value, views.get(entry.view))[0])
    for entry in connector.remembered(RESTORE):
        natural = restore_from(entry.value, views.get(entry.view))
        if entry.until is None and natural is not None:
            state.restore[entry.view, key_of(entry.key)] = natural
    return state


def parked_text(first: Position, since: int | None) -> str:
    """Where the changes of a parked record begin, as side-table text; ``since`` as in ``Plan``."""
    return str(first) if since is None else json.dumps([str(first), since])


def parked_from(text: str) -> tuple[Position, int | None]:
    """The inverse of ``parked_text``."""
    first, since = json.loads(text) if text.startswith("[") else (text, None)
    return Position.parse(first), since


def vacancy_text(vacancy: Vacancy) -> str:
    """A vacancy as side-table text; which commit it is of, the entry tells."""
    return json.dumps([str(vacancy.looked), None if vacancy.carried is None else str(vacancy.carried)])


def vacancy_from(text: str, number: int) -> Vacancy:
    """The inverse of ``vacancy_text``."""
    looked, carried = json.loads(text)
    return Vacancy(Position.parse(looked), number, None if carried is None else Position.parse(carried))


def hidden_text(hidden: Hidden, view: View) -> str:
    """A hidden row as side-table text."""
    after = None if hidden.after is None else str(hidden.after)
    return json.dumps([after, encode(hidden.row), str(Layout.of(view))])


def hidden_from(text: str, view: View | None) -> tuple[Hidden, Layout | None]:
    """A hidden row as one of the view (None: as it is), and of what it was when it was kept, where that was said."""
    after, cells, *said = json.loads(text)
    layout = Layout.parse(said[0]) if said else None
    row = decode(cells) or ()
    brought = row if layout is None or view is None else layout.row(row, view)
    return Hidden(brought, None if after is None else Position.parse(after)), layout


def restore_text(natural: Key, view: View) -> str:
    """A record whose one-way columns wait to be restored, as side-table text."""
    return json.dumps([natural, view.table, Layout.of(view).key])


def restore_from(text: str, view: View | None) -> Key | None:
    """Its natural key in the view (None: as it is); None where it is not known there."""
    found = json.loads(text)
    if not found or not isinstance(found[0], list):  # an earlier program did not say what the members are
        return key_of(text)
    natural, table, key = found
    return tuple(natural) if view is None else Layout(table, (), tuple(key)).natural(tuple(natural), view)
