"""What a link keeps in a memory database: what it captures, its log, its positions and its side table.

Places in the feed: ``(n,)`` lies before commit ``n`` of the log (``n`` = 0, 1, …) and behind all earlier ones,
``(n, i)`` is change ``i`` (1, 2, …) of commit ``n``, and ``(n + 1,)`` the end of that commit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TypeAlias

from dualwrite.connectors._memory.tables import Lens, Record, Spot, Tables, World
from dualwrite.connectors.base import Remembered
from dualwrite.errors import PositionLost
from dualwrite.model import ABSENT, Batch, Cell, Change, Kind, Path, Position, Row
from dualwrite.schema import Reference, Schema, View

Place: TypeAlias = tuple[int, int]
"""A commit's number, and how many of its operations have been passed."""


@dataclass(frozen=True, slots=True)
class Image:
    """A captured record: its columns, and what its lookups led to at that time."""

    record: Record
    lookups: Mapping[Path, Cell]

    def row(self, view: View) -> Row:
        """The view's cells; lookups that were not captured then are ABSENT."""
        record, lookups = self.record, self.lookups
        return tuple(record[path[0]] if len(path) == 1 else lookups.get(path, ABSENT) for path in view.paths)


@dataclass(frozen=True, slots=True)
class Marker:
    """What one of our commits leaves in the log: its number, and how far it had received the other side."""

    number: int = 0
    seen: Position | None = None


@dataclass(frozen=True, slots=True)
class Operation:
    """One logged change of one record."""

    table: str
    before: Image | None
    after: Image | None

    @property
    def noticeable(self) -> bool:
        """Is there anything to tell?  A lookup that leads nowhere any more is not: it means *leave alone*."""
        before, after = self.before, self.after
        if before is None or after is None:
            return before is not after
        return before.record != after.record or any(
            cell is not ABSENT and cell != before.lookups.get(path) for path, cell in after.lookups.items()
        )

    def change(self, view: View, position: Position, at: float, marker: Marker) -> Change | None:
        """As the view sees it, None when it sees no difference.

        A record whose key was not known before, because a lookup in it led nowhere, comes in as an insert.
        """
        before = None if self.before is None else self.before.row(view)
        after = None if self.after is None else self.after.row(view)
        if before == after:
            return None
        if before and after and any(before[i] is ABSENT and after[i] is not ABSENT for i in view.key):
            before = None
        kind = Kind.INSERT if before is None else Kind.DELETE if after is None else Kind.UPDATE
        return Change(
            view.name,
            kind,
            view.natural_key(before or after or ()),
            before,
            after,
            at,
            position,
            marker.seen,
            marker.number,
        )


@dataclass(frozen=True, slots=True)
class Watch:
    """``table`` looks through ``chain`` at ``columns`` of the table that the chain ends in."""

    table: str
    chain: tuple[Reference, ...]
    columns: frozenset[str]


class Capture:
    """What a link captures: the tables of its views, with the lookups that the views follow."""

    def __init__(self, schema: Schema, views: Sequence[View]) -> None:
        self._lens = Lens(schema)
        self.columns: dict[str, set[str]] = {view.table: set() for view in views}
        self._lookups: dict[str, dict[Path, None]] = {view.table: {} for view in views}
        self._watches: dict[str, dict[Watch, None]] = {}
        for view in views:
            for path in view.paths:
                if len(path) == 1:
                    self.columns[view.table].add(path[0])
                elif path not in self._lookups[view.table]:
                    self._lookups[view.table][path] = None
                    self._watch(view.table, path)

    def _watch(self, table: str, path: Path) -> None:
        chain: tuple[Reference, ...] = ()
        here = table
        for step, following in pairwise(path):
            reference = self._lens.references[here, step]
            chain, here = (*chain, reference), reference.table
            onward = self._lens.references.get((here, following)) if len(chain) < len(path) - 1 else None
            columns = frozenset((*reference.to, *(onward.columns if onward else (following,))))
            self._watches.setdefault(here, {})[Watch(table, chain, columns)] = None

    def image(self, spot: Spot, record: Record | None, *worlds: Tables) -> Image | None:
        """A record with its lookups resolved in the first world that has them."""
        if record is None:
            return None
        lookups = self._lookups[spot[0]]
        return Image(record, {path: self._lens.follow(spot[0], record, path, *worlds) for path in lookups})

    def affected(self, tables: Tables, spot: Spot, old: Record | None, new: Record | None) -> list[Spot]:
        """The captured records that look different by this change: the record itself, then those that look it up."""
        found = dict.fromkeys([spot] if spot[0] in self._lookups else [])
        for watch in self._watches.get(spot[0], ()):
            if new is not None and (old is None or any(old[name] != new[name] for name in watch.columns)):
                found.update(dict.fromkeys(self._onlookers(tables, watch, [r for r in (old, new) if r is not None])))
        return list(found)

    @staticmethod
    def _onlookers(tables: Tables, watch: Watch, records: list[Record]) -> Iterator[Spot]:
        children = [watch.table, *(reference.table for reference in watch.chain)]
        for table, reference in reversed(list(zip(children, watch.chain, strict=False))):
            pointers = dict.fromkeys(tuple(record[name] for name in reference.to) for record in records)
            numbers = sorted(n for p in pointers if None not in p for n in tables[table].find(reference.columns, p))
            records = [tables[table].records[n] for n in numbers]
        return ((watch.table, n) for n in numbers)


class Witness:
    """Writes down a transaction of somebody else (a user, another link) for the log of one link."""

    def __init__(self, capture: Capture, start: Tables) -> None:
        self.operations: list[Operation] = []
        self._capture = capture
        self._start = start

    def before(
        self, world: World, spot: Spot, old: Record | None, new: Record | None
    ) -> list[tuple[Spot, Image | None]]:
        """The images of what a change is about to affect."""
        spots = self._capture.affected(world.tables, spot, old, new)
        return [(s, self._capture.image(s, world.get(s), world.tables, self._start)) for s in spots]

    def after(self, world: World, images: list[tuple[Spot, Image | None]]) -> None:
        """Write down what the change has done."""
        for spot, before in images:
            operation = Operation(spot[0], before, self._capture.image(spot, world.get(spot), world.tables))
            if operation.noticeable:
                self.operations.append(operation)


class Ledger:
    """Tells our own writes from what else they caused: keeps the tables as our writes alone would have left them."""

    def __init__(self, capture: Capture, start: Tables) -> None:
        self.ours: World | None = None  # None while everything so far was ours
        self._capture = capture
        self._start = start
        self._suspects: dict[Spot, None] = {}
        self._woken: dict[Spot, None] = {}
        self._mine: set[Spot] = set()
        self._generated: dict[Spot, set[str]] = {}

    def wrote(self, world: World, spot: Spot, old: Record | None, new: Record | None) -> None:
        """We are about to make this change: users' records that look it up may look different by it."""
        self._mine.add(spot)
        for onlooker in self._capture.affected(world.tables, spot, old, new):
            if onlooker != spot and onlooker[1] in self._start[onlooker[0]].records:
                self._woken[onlooker] = None

    def caused(self, world: World, spot: Spot, old: Record | None, new: Record | None) -> None:
        """A trigger or a reference's action is about to make this change."""
        self.ours = self.ours or world.fork()
        self._suspects.update(dict.fromkeys(self._capture.affected(world.tables, spot, old, new)))

    def generated(self, spot: Spot, columns: set[str]) -> None:
        """The database gave these columns of a record of ours their values."""
        visible = columns & self._capture.columns.get(spot[0], set())
        if visible:
            self._generated[spot] = visible
            self._suspects[spot] = None

    def operations(self, world: World) -> list[Operation]:
        """What differs at the end from what we wrote."""
        images = (
            Operation(spot[0], self._wanted(spot, world), self._capture.image(spot, world.get(spot), world.tables))
            for spot in self._suspects | self._woken
        )
        return [operation for operation in images if operation.noticeable]

    def _wanted(self, spot: Spot, world: World) -> Image | None:
        ours = self.ours or world
        record = ours.get(spot)
        if record is None:
            return None
        record = {**record, **dict.fromkeys(self._generated.get(spot, ()))}
        image = self._capture.image(spot, record, ours.tables, self._start)
        earlier = self._capture.image(spot, record, self._start) if spot in self._woken else None
        if image and earlier and spot not in self._mine:  # a parent that we renamed, or brought: its children are told
            return Image(record, {**image.lookups, **earlier.lookups})
        if image and earlier:  # what led nowhere before our write still has to be told
            lost = {path: ABSENT for path, cell in earlier.lookups.items() if cell is ABSENT}
            return Image(record, {**image.lookups, **lost})
        return image


@dataclass(frozen=True, slots=True)
class Commit:
    """One entry of a link's log.  The marker is ours alone, and stands before the operations."""

    at: float
    marker: Marker | None
    operations: tuple[Operation, ...]


@dataclass(frozen=True, slots=True)
class Reading:
    """Changes, and the place and the marker after them."""

    changes: Sequence[Change]
    place: Place
    marker: Marker

    def batch(self, feed: str) -> Batch:
        """The same as the engine gets it."""
        commit, operation = self.place
        position = Position(feed, self.place if operation else (commit,))
        return Batch(tuple(self.changes), position, self.marker.seen, self.marker.number)


@dataclass(slots=True)
class Link:
    """What one link keeps in a database: its log, its positions and its side table."""

    feed: str
    capture: Capture
    log: list[Commit] = field(default_factory=list)
    trimmed: int = 0
    lost: int = 0
    """Behind the last commit with changes that was trimmed."""
    marker: Marker = Marker()
    """The last one that was trimmed."""
    number: int = 0
    seen: Position | None = None
    positions: dict[str, Position] = field(default_factory=dict)
    kept: dict[tuple[str, str, str], Remembered] = field(default_factory=dict)
    gone: list[Remembered] = field(default_factory=list)

    def copy(self) -> Link:
        """For a backup."""
        kept, gone = dict(self.kept), list(self.gone)
        return replace(self, log=list(self.log), positions=dict(self.positions), kept=kept, gone=gone)

    def end(self) -> Position:
        """Behind the last commit."""
        return Position(self.feed, (self.trimmed + len(self.log),))

    def place(self, position: Position | None) -> Place:
        """The commit and the operation in it where reading goes on; PositionLost when they are gone."""
        if position is None or (position.feed == self.feed and not position.place and not self.trimmed):
            return self.trimmed, 0
        remedy = "stop the maps that read it and make both sides agree anew with an initial sync"
        if position.feed != self.feed:
            raise PositionLost(f"{position} belongs to another feed than {self.feed}", remedy)
        commit, *rest = position.place
        if commit < self.lost or commit > self.trimmed + len(self.log):
            raise PositionLost(f"{position} is outside of what the feed holds", remedy)
        if commit < self.trimmed:
            return self.trimmed, 0
        passed = rest[0] if rest else 0
        if passed and passed >= len(self.log[commit - self.trimmed].operations):
            return commit + 1, 0
        return commit, passed

    def marker_at(self, place: Place) -> Marker:
        """The last marker at or before a place."""
        commits = place[0] - self.trimmed + (1 if place[1] else 0)
        return next((c.marker for c in reversed(self.log[:commits]) if c.marker), self.marker)

    def trim(self, position: Position) -> None:
        """Forget the commits that lie before a position, and what was removed from the side table before."""
        if position.feed == self.feed and position.place < (self.trimmed,):
            return
        place = self.place(position)
        self.marker = self.marker_at((place[0], 0))
        going = enumerate(self.log[: place[0] - self.trimmed], self.trimmed + 1)
        changed = [number for number, commit in going if commit.operations]
        self.lost = changed[-1] if changed else self.lost
        del self.log[: place[0] - self.trimmed]
        self.trimmed = place[0]
        self.gone = [entry for entry in self.gone if entry.until is not None and entry.until > self.marker.number]

    def read(
        self, views: Mapping[str, Sequence[View]], place: Place, marker: Marker, limit: int | None = None
    ) -> Reading:
        """What follows a place: whole commits of up to about ``limit`` changes; a larger one comes in parts."""
        changes: list[Change] = []
        number, done = place
        for commit in self.log[number - self.trimmed :]:
            here = commit.marker or marker
            found = list(self._changes(views, commit, number, done, here))
            if limit is not None and changes and len(changes) + len(found) > limit:
                break
            marker = here
            if limit is not None and len(found) > limit:
                part = [change for change in found if change.position <= found[limit - 1].position]
                last = part[-1].position.place
                return Reading(part, (last[0], last[1]), marker)
            changes += found
            number, done = number + 1, 0
        return Reading(changes, (number, done), marker)

    def _changes(
        self, views: Mapping[str, Sequence[View]], commit: Commit, number: int, done: int, marker: Marker
    ) -> Iterator[Change]:
        for index, operation in enumerate(commit.operations[done:], done + 1):
            position = Position(self.feed, (number, index))
            for view in views.get(operation.table, ()):
                change = operation.change(view, position, commit.at, marker)
                if change:
                    yield change

    def remember(self, kind: str, view: str, key: str, value: str | None) -> None:
        """Put, replace or remove an entry of the side table, as part of commit ``number``."""
        old = self.kept.get((kind, view, key))
        if old and old.value == value:
            return
        if old:
            del self.kept[kind, view, key]
            if old.since < self.number:
                self.gone.append(replace(old, until=self.number))
        if value is not None:
            self.kept[kind, view, key] = Remembered(kind, view, key, value, self.number, None)
