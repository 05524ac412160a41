"""Reads the log as changes in natural form.

What our own transactions wrote is left out; what else they caused comes out behind their marker, folded into one change
per record.  A record that gets another key makes those that look it up look different: they come out behind it as
changes of their own.

Places: the change of the n-th entry of a transaction is at ``(commit, n)``, for all views of its table; what it does to
records that look its record up is at ``(commit, n, view, row)``.  ``(end,)`` lies behind the transaction.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from dualwrite.connectors._pg_crowds import Crowd, Fold, Folds
from dualwrite.connectors._pg_echo import Intent, Intents, Marker, RowKey
from dualwrite.connectors._pg_entries import Committed, Done, Emptied, Entry, Note, Place
from dualwrite.connectors._pg_entries import Row as RowEntry
from dualwrite.connectors._pg_events import Identity, Image, Target
from dualwrite.connectors._pg_log import Log
from dualwrite.connectors._pg_natural import (
    CatchUp,
    Flat,
    Passed,
    Picker,
    Records,
    Sight,
    pick_columns,
)
from dualwrite.connectors._pg_onlookers import Onlookers, Watch, watches
from dualwrite.connectors._pg_schema import Catalog, Facts
from dualwrite.connectors._pg_session import Connection
from dualwrite.connectors._pg_visible import Visible
from dualwrite.connectors._pg_wire import UNCHANGED, Relation
from dualwrite.connectors._pg_wire import Image as Raw
from dualwrite.connectors._sql import needs
from dualwrite.errors import Drifted, Halted
from dualwrite.model import ABSENT, Batch, Change, Halt, Kind, Position, Row
from dualwrite.schema import View

_EMPTIED: Final = "if the other side shall be emptied as well, do so; then start the map, which compares both sides"


_SIZE: Final = 4 << 20  # bytes of rows that are decoded at once, about: rows may be large
_CHUNK: Final = 500  # onlookers that are told at once


@dataclass(slots=True)
class Shape:
    """What is done with the rows of one shape of one table."""

    table: str
    relation: Relation
    sights: list[tuple[Sight, Flat | None]]
    pick: Picker | None  # to an image, where lookups or onlookers need one
    watches: dict[int, list[Watch]]
    trouble: Halted | None


@dataclass(slots=True)
class Item:
    """A row entry, decoded: its images as they came, and as ``Records`` knows images where they are needed."""

    entry: RowEntry
    shape: Shape
    raw: tuple[Raw | None, Raw | None]
    old: Image | None
    new: Image | None

    def touched(self) -> Iterator[tuple[Watch, Image]]:
        """Who looks at the record and sees it change, and the record as they refer to it."""
        for some in self.shape.watches.values():
            for watch in some:
                if self.new is not None and watch.is_touched(self.old, self.new):
                    yield watch, self.new


@dataclass(slots=True)
class Ours:
    """A transaction of ours that is being read: its marker, and what became of records in which others act."""

    transaction: Committed
    marker: Marker
    folds: Folds = field(default_factory=Folds)


@dataclass(frozen=True, slots=True)
class Context:
    """What a reader works with: the log, how much of it is visible, its feed's name, our origin, the database as it is,
    and a session to ask it.

    ``differences`` tells what has changed in what a view looks at since the catalog was read; empty for nothing.
    ``is_part`` tells whether the relation with an oid is a partition by now.
    """

    log: Log
    visible: Visible
    feed: str
    origin: str
    catalog: Catalog
    connect: Callable[[], Connection]
    catch_up: CatchUp
    differences: Callable[[View], str]
    is_part: Callable[[int], bool]


class OutgrownError(Exception):
    """A table has got a partition since the catalog was read: the reader is to be opened anew, where it is."""


class LogReader:
    """Turns the log behind a place into changes of some views."""

    def __init__(self, context: Context, views: Sequence[View], place: Place, marker: Marker) -> None:
        """``marker`` is the last one at or before the place."""
        self._context = context
        self.catalog = context.catalog
        self.place = place
        self.marker = marker
        self._views = {view.name: view for view in views}
        # inside of a transaction: read it again from its beginning, and leave out what was delivered
        self._after: Place = (place[0], 0) if len(place) > 1 else place
        self._passed = place
        log, connect, catch_up, visible = context.log, context.connect, context.catch_up, context.visible
        self._records = Records(log, self.catalog, views, visible, connect, catch_up)
        self._onlookers = Onlookers(log, self.catalog, self._records, visible, connect, catch_up)
        self._sights: dict[str, list[Sight]] = {}
        self._watches: dict[str, list[Watch]] = {}
        for view in views:
            sight = Sight(self.catalog, self._records, view)
            self._sights.setdefault(view.table, []).append(sight)
            for watch in watches(self._records, sight):
                self._watches.setdefault(watch.chain[-1].target[0], []).append(watch)
        self._needs = needs(self.catalog.schema, views)
        self._shapes: dict[int, Shape | None] = {}
        self._ready: deque[Change] = deque()
        self._trouble: Halted | None = None
        self._halts: list[Halt] = []
        self._more = False
        self._telling: Iterator[None] | None = None  # makes changes of what was read last, step by step
        self._touching: deque[Item] = deque()  # what has onlookers that were not looked for yet
        self._ours: Ours | None = None  # the transaction of ours that was read in part
        self._touched = 1  # of how many records they are looked for at once

    # -- reading --------------------------------------------------------------------------------------------------

    def read(self, limit: int, timeout: float = 0.0) -> tuple[list[Change], bool]:
        """Up to about ``limit`` changes behind ``place``, which moves on; may there be more to read at once?

        Waits up to ``timeout`` seconds for something.  Raises Halted where a map must not go on.
        """
        if not self._ready:
            if self._trouble is not None:
                raise self._trouble
            reading = self._context.log.read(self._after, limit, timeout, _SIZE)
            self._more = reading.more
            if reading.entries:
                self._telling = self._tell(reading.entries)
        self._tell_on(limit)
        changes = self._hand_out(limit)
        told = [change.position.place for change in changes[-1:]]  # onlookers stand behind their entry
        # a transaction of ours has more to tell at its end, of which nobody would know from there
        reached = [] if self._ours is not None else [self._after]
        self.place = max(told) if self._ready else max([self.place, *reached, *told])
        return changes, self._more or bool(self._ready) or self._trouble is not None

    def _tell_on(self, limit: int) -> None:
        """Make more changes than that of what was read, or all: there may be any number of onlookers."""
        while self._telling is not None and len(self._ready) <= limit:
            try:
                next(self._telling)
            except StopIteration:
                self._telling = None
                self._records.forget(self._after)

    def batch(self, changes: Sequence[Change]) -> Batch:
        """The batch of what was just read."""
        seen, mark = self.marker.seen, self.marker.number
        if self._ready:  # the marker may be further on than what was handed out
            seen, mark = changes[-1].seen, changes[-1].mark
        halts = tuple(self._halts)
        self._halts.clear()
        return Batch(tuple(changes), Position(self._context.feed, self.place), seen, mark, halts)

    def _hand_out(self, limit: int) -> list[Change]:
        ready = self._ready
        if len(ready) <= limit:
            changes = list(ready)
            ready.clear()
            return changes
        changes = [ready.popleft() for _ in range(limit)]
        while ready and ready[0].position == changes[-1].position:  # several views of a table
            changes.append(ready.popleft())
        return changes

    def _tell(self, entries: Sequence[Entry]) -> Iterator[None]:
        """Make changes of entries, step by step where a record has many onlookers; ``_after`` moves behind those that
        are done."""
        markers = self._markers(entries)
        items, start = self._decoded(entries, markers), self._after
        self._onlookers.begin(start)
        wanted: dict[Target, set[Identity]] = {}
        for item in items.values():
            if item.entry.transaction.origin != self._context.origin:
                for image in (item.old, item.new):
                    if image is not None:
                        self._records.ask(item.shape.table, image, wanted)
        if wanted:
            self._records.load(wanted, start)
        self._touching = deque(item for item in items.values() if any(item.touched()))
        for entry in entries:
            place = entry.place
            if isinstance(entry, Done):
                if self._ours is not None:
                    yield from self._tell_ours(self._ours)
                    self._ours = None
            elif isinstance(entry, Emptied):
                self._halts += self._emptied(entry)
            elif entry.transaction.origin == self._context.origin:
                yield from self._pass_ours(entry, items, markers)
            elif isinstance(entry, RowEntry):
                shape = self._shape(entry)
                if shape is not None and shape.trouble is not None:
                    self._trouble = shape.trouble
                elif shape is not None and shape.pick is None:
                    self._tell_flat(entry, place, shape)
                elif shape is not None:
                    yield from self._move(items[place], shape.sights)
            if self._trouble is not None:
                return
            self._after = place

    def _markers(self, entries: Sequence[Entry]) -> dict[int, Marker]:
        """The markers of the transactions of ours, each of which stands at their end."""
        markers = {
            entry.transaction.lsn: Marker.parse(entry.content)
            for entry in entries
            if isinstance(entry, Note) and entry.transaction.origin == self._context.origin
        }
        last = entries[-1].transaction
        if last.origin == self._context.origin and last.lsn not in markers:  # its end is still to be read
            if self._ours is not None and self._ours.transaction.lsn == last.lsn:
                markers[last.lsn] = self._ours.marker
            else:
                markers[last.lsn] = Marker.parse(next(self._context.log.notes((last.lsn, 0))).content)
        return markers

    def _decoded(self, entries: Iterable[Entry], markers: Mapping[int, Marker]) -> dict[Place, Item]:
        """The rows that have something to tell to others than their own views, by their places."""
        items: dict[Place, Item] = {}
        rows = [entry for entry in entries if isinstance(entry, RowEntry)]
        examples = {entry.version: entry for entry in rows}  # of each shape one
        shapes = {version: shape for version, entry in examples.items() if (shape := self._shape(entry)) is not None}
        if not markers and all(shape.pick is None for shape in shapes.values()):
            return items
        for entry in rows:
            shape = shapes.get(entry.version)
            if shape is None or (
                shape.pick is None
                and not (
                    entry.transaction.origin == self._context.origin and is_loud(shape, markers[entry.transaction.lsn])
                )
            ):
                continue  # nothing to anybody, or an echo, or told as it is read
            items[entry.place] = self._item(entry, shape)
        return items

    @staticmethod
    def _item(entry: RowEntry, shape: Shape) -> Item:
        old, new, _ = _edits(entry)
        if shape.pick is None:
            return Item(entry, shape, (old, new), None, None)
        pick = shape.pick
        return Item(entry, shape, (old, new), _apply(pick, old), _apply(pick, new))

    # -- shapes ---------------------------------------------------------------------------------------------------

    def _shape(self, entry: RowEntry) -> Shape | None:
        """What is to be done with rows like this; None: nothing."""
        if entry.version not in self._shapes:
            self._shapes[entry.version] = self._new_shape(entry.relation)
        return self._shapes[entry.version]

    def _name(self, relation: Relation) -> str | None:
        """The table that a relation is, or is a part of; None: none of ours.  Raises OutgrownError."""
        if relation.oid not in self.catalog.names and self._context.is_part(relation.oid):
            raise OutgrownError
        return self.catalog.names.get(relation.oid)

    def _new_shape(self, relation: Relation) -> Shape | None:
        table = self._name(relation)
        if table is None or table not in self._records.columns:
            return None
        facts = self.catalog.facts[table]
        by_view: dict[int, list[Watch]] = {}
        for watch in sorted(self._watches.get(table, ()), key=lambda watch: watch.number):
            by_view.setdefault(watch.number, []).append(watch)
        sights = [(sight, sight.flat(relation, facts)) for sight in self._sights.get(table, ())]
        needs_image = table in self._records.targets or any(flat is None for _, flat in sights)
        pick = pick_columns(self._records.columns[table], relation, facts) if needs_image else None
        return Shape(table, relation, sights, pick, by_view, self._difference(relation, facts))

    def _difference(self, relation: Relation, facts: Facts) -> Halted | None:
        """The trouble, when the table's rows are not what the catalog says, and will not be again."""
        need = self._needs[facts.name]
        sent = {column.name: column.type for column in relation.columns}
        if all(sent.get(name) == facts.columns[name].oid for name in need.shown | need.followed):
            return None
        for view in self._views.values():
            told = self._context.differences(view)
            if told:
                return changed(view, told)
        return None  # rows from before the present shape

    def _emptied(self, entry: Emptied) -> Iterator[Halt]:
        """TRUNCATE does not say which records there were."""
        emptied = {self._name(relation) or "" for relation in entry.relations}
        if entry.place <= self._passed:
            return
        for view in self._views.values():
            tables = sorted(emptied.intersection(needs(self.catalog.schema, [view])))
            if tables:
                reason = f"{', '.join(tables)} was emptied by TRUNCATE, which does not say of which records"
                yield Halt(view.name, Position(self._context.feed, entry.place), reason, _EMPTIED)

    # -- users' transactions --------------------------------------------------------------------------------------

    def _tell_flat(self, entry: RowEntry, place: Place, shape: Shape) -> None:
        """A row that is nothing but its own cells."""
        transaction = entry.transaction
        old, new, edited = _edits(entry)
        for sight, flat in shape.sights:
            assert flat is not None
            if old is None or new is None or edited is None:
                self._add(sight.view, transaction, place, _apply(flat.row, old), _apply(flat.row, new))
            else:
                self._add(sight.view, transaction, place, *flat.rows(old, new, edited))

    def _move(self, item: Item, sights: Sequence[tuple[Sight, Flat | None]] = ()) -> Iterator[None]:
        """The records move on by an entry; those that look on are told behind the record itself."""
        transaction, place = item.entry.transaction, item.entry.place
        befores = [self._row(sight, flat, item, 0) for sight, flat in sights]
        lookers = self._looking_on(item)
        passed = self._records.passed(item.shape.table, item.old, item.new)
        for (sight, flat), before in zip(sights, befores, strict=True):
            self._add(sight.view, transaction, place, before, self._row(sight, flat, item, 1))
        for sight, number, rows in lookers:
            yield from self._tell_onlookers(sight, transaction, (*place, number), rows, passed)

    @staticmethod
    def _row(sight: Sight, flat: Flat | None, item: Item, which: int) -> Row | None:
        if flat is not None:
            return _apply(flat.row, item.raw[which])
        if which:
            return None if item.new is None else sight.row(item.new)
        return None if item.old is None else sight.row(item.old, item.new, leaves=item.new is None)

    def _add(
        self,
        view: View,
        transaction: Committed,
        place: Place,
        before: Row | None,
        after: Row | None,
        edited: tuple[int, ...] | None = None,
    ) -> None:
        if before == after or place <= self._passed:
            return
        if before and after and _has_come_to_light(view, before, after):
            before = edited = None
        if before is None:
            assert after is not None
            kind, key = Kind.INSERT, view.natural_key(after)
        else:
            kind, key = Kind.DELETE if after is None else Kind.UPDATE, view.natural_key(before)
        position = Position(self._context.feed, place)
        seen, number = self.marker.seen, self.marker.number
        at, xid = transaction.at, transaction.xid
        self._ready.append(Change(view.name, kind, key, before, after, at, position, seen, number, False, xid, edited))

    # -- onlookers ------------------------------------------------------------------------------------------------

    def _looking_on(self, item: Item) -> list[tuple[Sight, int, Crowd]]:
        """By view those that look at the item's record."""
        found: list[tuple[Sight, int, Crowd]] = []
        if item.new is None:
            return found
        for number, some in item.shape.watches.items():
            looking = [watch for watch in some if watch.is_touched(item.old, item.new)]
            if not looking:
                continue
            self._prepare(item)
            sight, rows = some[0].sight, self._onlookers.of(looking[0], item.new, item.entry.place)
            for watch in looking[1:]:
                for image in self._onlookers.of(watch, item.new, item.entry.place):
                    rows.put(self._onlookers.key(sight.view.table, image), image)
            if sight.view.table == item.shape.table:
                rows.discard(self._onlookers.key(item.shape.table, item.new))
            if rows:
                found.append((sight, number, rows))
        return found

    def _prepare(self, item: Item) -> None:
        """Look for the onlookers of the item and of some that follow at once, as many as can be held."""
        if not self._touching or self._touching[0] is not item:
            return
        some = list(islice(self._touching, self._touched))
        while not self._onlookers.prepare([pair for one in some for pair in one.touched()], self._after):
            self._touched = max(1, len(some) // 2)
            if len(some) == 1:
                break
            some = some[: self._touched]
        else:
            self._touched = max(self._touched, 2 * len(some))
        wanted: dict[Target, set[Identity]] = {}
        for _ in some:
            one = self._touching.popleft()
            for target, identify in self._records.targets[one.shape.table].items():
                named = [identify(image) for image in (one.old, one.new) if image is not None]
                wanted.setdefault(target, set()).update(name for name in named if all(isinstance(c, str) for c in name))
        commit, n = item.entry.place
        self._records.load(wanted, (commit, n - 1))  # those that look on will be told as they were before, too

    def _tell_onlookers(
        self, sight: Sight, transaction: Committed, outer: Place, rows: Iterable[Image], passed: Passed
    ) -> Iterator[None]:
        """``passed`` is what the record has become that they look at."""
        rest, count = iter(rows), 0
        while images := list(islice(rest, _CHUNK)):
            with self._records.before(passed):
                wanted: dict[Target, set[Identity]] = {}
                for image in images:
                    self._records.ask(sight.view.table, image, wanted)
                self._records.load(wanted, (outer[0], outer[1] - 1), lasting=False)
                befores = [sight.row(image) for image in images]
            for image, before in zip(images, befores, strict=True):
                count, after = count + 1, sight.row(image)
                if any(now is not ABSENT and now != was for was, now in zip(before, after, strict=True)):
                    self._add(sight.view, transaction, (*outer, count), before, after)
            yield

    # -- our own transactions -------------------------------------------------------------------------------------

    def _pass_ours(self, entry: Entry, items: Mapping[Place, Item], markers: Mapping[int, Marker]) -> Iterator[None]:
        """The next of a transaction of ours: those that look on are told at once, what others did in it at its end."""
        if self._ours is None:
            self.marker = markers[entry.transaction.lsn]
            self._ours = Ours(entry.transaction, self.marker)
        item = items.get(entry.place)
        if item is None:
            return
        if item.shape.pick is not None:
            yield from self._move(item)
        if is_loud(item.shape, self.marker):
            if item.shape.trouble is not None:
                self._trouble = item.shape.trouble
                return
            _fold(self._ours.folds, item, self.catalog)

    def _tell_ours(self, ours: Ours) -> Iterator[None]:
        """What others did in a transaction of ours, of which all was read."""
        if ours.marker.wrote is None:
            return
        commit, last = self._after
        intents, folds = Intents(ours.marker.wrote.records), iter(ours.folds)
        while some := list(islice(folds, _CHUNK)):
            effects = [(fold, *self._effect(fold, intents)) for fold in some]
            wanted: dict[Target, set[Identity]] = {}
            for fold, _, meant in effects:
                shape = self._shapes[fold.version]
                if shape is not None and shape.pick is not None:
                    for image in (_apply(shape.pick, meant), _apply(shape.pick, fold.last)):
                        if image is not None and meant != fold.last:
                            self._records.ask(shape.table, image, wanted)
            self._records.load(wanted, self._after, lasting=False)
            for fold, intent, meant in effects:
                if meant != fold.last:
                    self._tell_effect(ours.transaction, (commit, last + 1, fold.n), fold, intent, meant)
            yield

    def _effect(self, fold: Fold, intents: Intents) -> tuple[Intent | None, Raw | None]:
        """What we meant a record to be, and what it would be then; where we meant nothing, what it was."""
        shape = self._shapes[fold.version]
        assert shape is not None
        intent = intents.find(shape.table, fold.keys)
        if intent is None:
            return None, fold.first
        return intent, intent.image(self.catalog.schema.tables[shape.table], shape.relation, fold.first, fold.last)

    def _tell_effect(
        self, transaction: Committed, place: Place, fold: Fold, intent: Intent | None, meant: Raw | None
    ) -> None:
        """What became of a record besides what we made of it."""
        shape = self._shapes[fold.version]
        assert shape is not None
        for sight, flat in shape.sights:
            if flat is not None:
                before, after = _apply(flat.row, meant), _apply(flat.row, fold.last)
            else:
                assert shape.pick is not None
                old, new = _apply(shape.pick, meant), _apply(shape.pick, fold.last)
                before = None if old is None else sight.row(old, new, leaves=new is None)
                after = None if new is None else sight.row(new)
            if before and after and intent is not None and intent.fresh:  # what the database gave it is its key, too
                cells = zip(before, after, range(len(before)), strict=True)
                before = tuple([now if was is None and i in sight.view.key else was for was, now, i in cells])
            self._add(sight.view, transaction, place, before, after)


def is_loud(shape: Shape, marker: Marker) -> bool:
    """Can rows like this, in the transaction of this marker, be the work of others?"""
    return marker.wrote is not None and shape.table in marker.wrote.loud


def _has_come_to_light(view: View, before: Row, after: Row) -> bool:
    """Could nobody know the record before, because a member of its key could not be told?"""
    for index in view.key:  # noqa: SIM110  (a generator would cost more than the loop)
        if before[index] is ABSENT and after[index] is not ABSENT:
            return True
    return False


def _edits(entry: RowEntry) -> tuple[Raw | None, Raw | None, Sequence[int] | None]:
    """Both images of a row, and in which cells they differ, where that is known."""
    old, new, edited = entry.edits()
    if old is None and new is not None and entry.kind is Kind.UPDATE:  # the identity is the key, which stays
        columns = entry.relation.columns
        old = tuple(cell if column.key else UNCHANGED for column, cell in zip(columns, new, strict=True))
    return old, new, edited


def _apply(pick: Picker, raw: Raw | None) -> Row | None:
    return None if raw is None else pick(raw)


def _fold(folds: Folds, item: Item, catalog: Catalog) -> None:
    entry, table, (old, new) = item.entry, item.shape.table, item.raw
    old_key, new_key = (_key_of(item, raw, catalog) for raw in (old, new))
    known = folds.pop(table, old_key) if old_key is not None else None
    if known is None and new_key is not None:
        known = folds.pop(table, new_key)  # deleted before, and made anew
    key = new_key if new_key is not None else old_key
    assert key is not None
    keys, first = ((), old) if known is None else (known.keys, known.first)
    keys = tuple(dict.fromkeys([each for each in (new_key, old_key) if each is not None] + list(keys)))
    folds.put(table, key, Fold(entry.n, entry.version, keys, first, new))


def _key_of(item: Item, raw: Raw | None, catalog: Catalog) -> RowKey | None:
    if raw is None:
        return None
    facts = catalog.facts[item.shape.table]
    places = {column.name: index for index, column in enumerate(item.entry.relation.columns)}
    cells = [(facts.columns[name].canonical, raw[places[name]]) for name in facts.telling if name in places]
    return tuple([spell(cell) if isinstance(cell, str) else None for spell, cell in cells])


def changed(view: View, told: str) -> Drifted:
    """The trouble of a view whose tables have changed."""
    return Drifted(
        view.name,
        f"{told} while the map was running",
        "adapt the map (`dualwrite check` tells what it finds), then start it: it compares both sides",
    )
