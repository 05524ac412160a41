"""The database behind the memory connector: tables, users, constraints, triggers, and the log of every link.

A record is a dict of column → canonical text that nobody changes once it is stored; a transaction works on its own
copies of the tables it touches and swaps them in at commit, so whoever reads keeps a consistent state for nothing.
Everything that has to survive a crash of dualwrite lives here; a crash only throws the connector away.

Places in the feed of a link: ``(n,)`` lies before commit ``n`` of the log (``n`` = 0, 1, …) and behind all earlier
ones, ``(n, i)`` is change ``i`` (1, 2, …) of commit ``n``, and ``(n + 1,)`` the end of that commit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import count, pairwise
from threading import Condition, Lock, get_ident
from typing import Literal, TypeAlias
from zlib import crc32

from dualwrite.connectors.base import Remembered
from dualwrite.errors import PositionLost
from dualwrite.model import ABSENT, Cell, Change, Key, Kind, Path, Position, Row, Value
from dualwrite.schema import Column, Reference, Schema, Table, TypeName, View

Record: TypeAlias = Mapping[str, Value]
Tables: TypeAlias = Mapping[str, "Rows"]
Spot: TypeAlias = tuple[str, int]
"""A table and the surrogate number of one of its records."""
Place: TypeAlias = tuple[int, int]
"""A commit's number, and how many of its operations have been passed."""
Action: TypeAlias = Literal["cascade", "set null", "restrict"]
Trigger: TypeAlias = "Callable[[User, Kind, Record | None, Record | None], None]"


class Refused(Exception):  # noqa: N818  (an answer of the database, not a failure)
    """The database refuses a statement.  ``code`` is one of ``model.Rejected``'s, ``reason`` is for people."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code
        self.reason = reason


def fold(column: Column, value: Value) -> str:
    """What a value is compared by in keys, uniques and joins: null as empty, letter case as the column says."""
    if value is None:
        return ""
    if column.ignore_trailing_blanks:
        value = value.rstrip(" ")
    return value.casefold() if column.ignore_case else value


class Rows:
    """One table's records by number, with indexes that are built when first asked for."""

    __slots__ = ("_columns", "_indexes", "records")

    def __init__(self, columns: Mapping[str, Column]) -> None:
        self.records: dict[int, Record] = {}
        self._columns = columns
        self._indexes: dict[tuple[str, ...], dict[tuple[str, ...], tuple[int, ...]]] = {}

    def copy(self) -> Rows:
        """The same records, to be changed apart."""
        other = Rows(self._columns)
        other.records = dict(self.records)
        other._indexes = {columns: dict(index) for columns, index in list(self._indexes.items())}
        return other

    def put(self, number: int, record: Record | None) -> None:
        """Store a record, or remove it."""
        old = self.records.pop(number, None)
        if record is not None:
            self.records[number] = record
        for columns, index in self._indexes.items():
            gone = self._entry(columns, old)
            come = self._entry(columns, record)
            if gone == come:
                continue
            if gone is not None:
                rest = tuple(other for other in index.pop(gone) if other != number)
                index.update({gone: rest} if rest else {})
            if come is not None:
                index[come] = (*index.get(come, ()), number)

    def find(self, columns: tuple[str, ...], values: Sequence[Value]) -> tuple[int, ...]:
        """The numbers of the records that hold these values."""
        index = self._indexes.get(columns)
        if index is None:
            index = {}
            for number, record in self.records.items():
                entry = tuple(fold(self._columns[name], record[name]) for name in columns)
                index[entry] = (*index.get(entry, ()), number)
            self._indexes[columns] = index
        return index.get(
            tuple(fold(self._columns[name], value) for name, value in zip(columns, values, strict=True)), ()
        )

    def _entry(self, columns: tuple[str, ...], record: Record | None) -> tuple[str, ...] | None:
        return None if record is None else tuple(fold(self._columns[name], record[name]) for name in columns)


class World:
    """All tables as one transaction sees them; what it does not change is shared with where it came from."""

    def __init__(self, tables: Tables) -> None:
        self.tables = dict(tables)
        self._private: set[str] = set()

    def fork(self) -> World:
        """A second world that starts out the same."""
        self._private.clear()
        return World(self.tables)

    def put(self, spot: Spot, record: Record | None) -> None:
        """Store a record, or remove it."""
        table, number = spot
        if table not in self._private:
            self.tables[table] = self.tables[table].copy()
            self._private.add(table)
        self.tables[table].put(number, record)

    def get(self, spot: Spot) -> Record | None:
        """The record, if it is there."""
        return self.tables[spot[0]].records.get(spot[1])


class Lens:
    """Reads records in natural form: follows references to the columns of the records that they point to."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.columns = {(t.name, c.name): c for t in schema.tables.values() for c in t.columns}
        self.references = {(t.name, r.name): r for t in schema.tables.values() for r in t.references}

    def pointer(self, table: str, record: Record, reference: Reference) -> tuple[Value, ...] | None:
        """What a reference's columns hold, None when they point nowhere."""
        for name in reference.columns:
            value = record[name]
            if value is None or (value == "" and self.columns[table, name].empty_is_null):
                return None
        return tuple(record[name] for name in reference.columns)

    def follow(self, table: str, record: Record, path: Path, *worlds: Tables) -> Cell:
        """The cell at the end of a path; a record that is in none of the worlds makes it ABSENT."""
        for step in path[:-1]:
            reference = self.references[table, step]
            values = self.pointer(table, record, reference)
            if values is None:
                return None
            table = reference.table
            for tables in worlds:
                found = tables[table].find(reference.to, values)
                if found:
                    record = tables[table].records[found[0]]
                    break
            else:
                return ABSENT
        return record[path[-1]]

    def row(self, view: View, record: Record, tables: Tables) -> Row:
        """A record as the view asks for it."""
        return tuple(self.follow(view.table, record, path, tables) for path in view.paths)

    def find(self, tables: Tables, table: str, wanted: Mapping[Path, Value]) -> list[int]:
        """The records whose cells at these paths hold these values; null equals empty."""
        rows = tables[table]
        far = {path: value for path, value in wanted.items() if len(path) > 1}
        near = tuple(path[0] for path in wanted if len(path) == 1)
        if near:
            numbers: Iterable[int] = rows.find(near, [wanted[name,] for name in near])
        else:
            numbers = self._candidates(tables, table, far)
        return [n for n in numbers if all(self._holds(tables, table, rows.records[n], *item) for item in far.items())]

    def _candidates(self, tables: Tables, table: str, wanted: Mapping[Path, Value]) -> Iterable[int]:
        step = next(iter(wanted))[0]
        parts = {path[1:]: value for path, value in wanted.items() if path[0] == step}
        if not any(parts.values()):
            return tables[table].records  # no reference at all, or to a record whose key is empty
        reference = self.references[table, step]
        parents = [tables[reference.table].records[n] for n in self.find(tables, reference.table, parts)]
        pointers = dict.fromkeys(tuple(parent[name] for name in reference.to) for parent in parents)
        return [n for pointer in pointers for n in tables[table].find(reference.columns, pointer)]

    def _holds(self, tables: Tables, table: str, record: Record, path: Path, value: Value) -> bool:
        cell = self.follow(table, record, path, tables)
        column = self.schema.resolve(table, path)
        return cell is not ABSENT and column is not None and fold(column, cell) == fold(column, value)


@dataclass(frozen=True, slots=True)
class Image:
    """A captured record: its columns, and what its lookups led to at that time."""

    record: Record
    lookups: Mapping[Path, Cell]

    def row(self, view: View) -> Row:
        """The view's cells; lookups that were not captured then are ABSENT."""
        record, lookups = self.record, self.lookups
        return tuple(record[path[0]] if len(path) == 1 else lookups.get(path, ABSENT) for path in view.paths)


def key_of(view: View, row: Row) -> Key:
    """A row's natural key; a member that is not known counts as null."""
    return tuple(None if (cell := row[index]) is ABSENT else cell for index in view.key)


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
        before = self.before and self.before.row(view)
        after = self.after and self.after.row(view)
        if before == after:
            return None
        if before and after and any(before[i] is ABSENT and after[i] is not ABSENT for i in view.key):
            before = None
        kind = Kind.INSERT if before is None else Kind.DELETE if after is None else Kind.UPDATE
        return Change(
            view.name,
            kind,
            key_of(view, before or after or ()),
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
        self._generated: dict[Spot, set[str]] = {}

    def wrote(self, world: World, spot: Spot, old: Record | None, new: Record | None) -> None:
        """We are about to make this change: lookups of users' records that led nowhere may now lead to it."""
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


@dataclass(slots=True)
class Link:
    """What one link keeps in a database: its log, its positions and its side table."""

    feed: str
    capture: Capture
    log: list[Commit] = field(default_factory=list)
    trimmed: int = 0
    marker: Marker = Marker()
    """The last one that was trimmed."""
    number: int = 0
    seen: Position | None = None
    positions: dict[str, Position] = field(default_factory=dict)
    kept: dict[tuple[str, str, str], Remembered] = field(default_factory=dict)
    gone: list[Remembered] = field(default_factory=list)

    def copy(self) -> Link:
        """For a backup."""
        copies = {"log": list(self.log), "positions": dict(self.positions)}
        return replace(self, **copies, kept=dict(self.kept), gone=list(self.gone))

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
        if position.place < (self.trimmed,) or position > self.end():
            raise PositionLost(f"{position} is outside of what the feed holds", remedy)
        commit, *rest = position.place
        return commit, rest[0] if rest else 0

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


class Session:
    """One open transaction in a database: checks, references' actions, triggers, and savepoints to go back to."""

    def __init__(self, database: MemoryDatabase, link: str = "") -> None:
        start = database.tables
        self.world = World(start)
        self.ledger: Ledger | None = None
        self.witnesses: dict[str, Witness] = {}
        self._database = database
        self._undo: list[tuple[World, Spot, Record | None]] = []
        for name, installed in database.links.items():
            if name == link:
                self.ledger = Ledger(installed.capture, start)
            else:
                self.witnesses[name] = Witness(installed.capture, start)

    @contextmanager
    def statement(self) -> Iterator[None]:
        """All of what is done inside, or nothing of it."""
        savepoint = self.savepoint()
        try:
            yield
        except Refused:
            self.rollback(savepoint)
            raise

    def savepoint(self) -> tuple[int, World | None, list[int]]:
        """A place to roll back to."""
        ours = self.ledger.ours if self.ledger else None
        return len(self._undo), ours, [len(witness.operations) for witness in self.witnesses.values()]

    def rollback(self, savepoint: tuple[int, World | None, list[int]]) -> None:
        """Undo what was done since the savepoint."""
        undo, ours, lengths = savepoint
        while len(self._undo) > undo:
            world, spot, record = self._undo.pop()
            world.put(spot, record)
        if self.ledger:
            self.ledger.ours = ours
        for witness, length in zip(self.witnesses.values(), lengths, strict=True):
            del witness.operations[length:]

    def insert(self, table: str, values: Record, *, own: bool = False) -> Spot:
        """Add a record; columns that are not given are null, or generated."""
        record = dict.fromkeys(column.name for column in self._database.schema.tables[table].columns)
        if unknown := set(values) - set(record):
            raise ValueError(f"table {table} has no column {', '.join(sorted(unknown))}")
        record.update(values)
        generated = self._database.generate(table, record)
        spot = table, next(self._database.numbers)
        if own and self.ledger and generated:
            self.ledger.generated(spot, generated)
        self.change(spot, record, record if own else None)
        return spot

    def change(self, spot: Spot, new: Record | None, own: Record | None = None) -> None:
        """Give a record other values, or delete it.

        ``own`` are the columns that a link's transaction sets with it, None for everybody else's changes; whoever
        gives them calls ``clashes`` when all is written.
        """
        old = self.world.get(spot)
        if old == new:
            return
        if new is not None:
            self._check_values(spot[0], new)
            self._check_references(spot[0], new)
        self._put(spot, old, new, own)
        if own is None:
            self._check_unique(spot, old)
        self._act_on_references(spot[0], old, new)
        kind = Kind.INSERT if old is None else Kind.DELETE if new is None else Kind.UPDATE
        for trigger in self._database.triggers.get(spot[0], ()):
            trigger(User(self), kind, old, new)

    def mirror(self, spot: Spot, old: Record | None, new: Record | None, own: Record) -> None:
        """Do the same in the tables as our writes alone would leave them."""
        ours = self.ledger.ours if self.ledger else None
        if ours is None:
            return
        record = ours.get(spot)
        if record is None and old is not None:
            return  # something that we caused has made it: nothing in it counts as ours
        self._undo.append((ours, spot, record))
        ours.put(spot, new and {**(record or new), **own})

    def _put(self, spot: Spot, old: Record | None, new: Record | None, own: Record | None) -> None:
        images = [(witness, witness.before(self.world, spot, old, new)) for witness in self.witnesses.values()]
        if self.ledger and own is None:
            self.ledger.caused(self.world, spot, old, new)
        elif self.ledger and own is not None:
            self.ledger.wrote(self.world, spot, old, new)
            self.mirror(spot, old, new, own)
        self._undo.append((self.world, spot, old))
        self.world.put(spot, new)
        for witness, before in images:
            witness.after(self.world, before)

    def _check_values(self, table: str, record: Record) -> None:
        for column in self._database.schema.tables[table].columns:
            value, length = record[column.name], column.type.length
            if value is None and not column.nullable:
                raise Refused("required", f"{table}.{column.name} must not be null")
            if value is not None and length is not None and column.type.name is TypeName.TEXT and len(value) > length:
                raise Refused("value", f"{table}.{column.name} takes {length} characters, not {len(value)}")

    def _check_references(self, table: str, record: Record) -> None:
        for reference in self._database.schema.tables[table].references:
            if (table, reference.name) in self._database.actions:
                pointer = self._database.lens.pointer(table, record, reference)
                if pointer and not self.world.tables[reference.table].find(reference.to, pointer):
                    raise Refused(
                        "reference", f"{table}.{reference.name}: no {reference.table} {', '.join(map(str, pointer))}"
                    )

    def _check_unique(self, spot: Spot, old: Record | None) -> None:
        """Does another record hold a unique value of this one (that ``old`` did not hold)?"""
        for columns in self._database.uniques[spot[0]]:
            if self.clashes(columns, spot, old):
                raise Refused("unique", f"another {spot[0]} holds this {', '.join(columns)}")

    def clashes(self, columns: tuple[str, ...], spot: Spot, old: Record | None) -> list[int]:
        """The other records that hold the same unique value; none where it has not changed."""
        record = self.world.get(spot)
        if record is None or None in (values := [record[name] for name in columns]):
            return []
        if old is not None and values == [old[name] for name in columns]:
            return []
        return [number for number in self.world.tables[spot[0]].find(columns, values) if number != spot[1]]

    def _act_on_references(self, table: str, old: Record | None, new: Record | None) -> None:
        for child, reference, action in self._database.inbound.get(table, ()) if old is not None else ():
            assert old is not None
            held = tuple(old[name] for name in reference.to)
            if None in held or (new is not None and held == tuple(new[name] for name in reference.to)):
                continue
            if self.world.tables[table].find(reference.to, held):
                continue
            for number in self.world.tables[child].find(reference.columns, held):
                self._act((child, number), reference, action, new)

    def _act(self, spot: Spot, reference: Reference, action: Action, parent: Record | None) -> None:
        record = self.world.get(spot)
        if record is None:  # an earlier action has removed it
            return
        if action == "restrict":
            raise Refused("reference", f"{spot[0]} still refers to this {reference.table} by {reference.name}")
        if action == "cascade" and parent is None:
            self.change(spot, None)
            return
        held = [parent[name] if parent and action == "cascade" else None for name in reference.to]
        self.change(spot, {**record, **dict(zip(reference.columns, held, strict=True))})


class User:
    """What a user (or an application's trigger) may do inside one transaction.  ``Refused`` undoes the statement."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def insert(self, table: str, values: Record) -> Record:
        """Add a record; returns it with what was generated."""
        with self._session.statement():
            spot = self._session.insert(table, values)
        return self._session.world.get(spot) or {}

    def update(self, table: str, match: Record, values: Record) -> int:
        """Set columns of all records that hold the values of ``match``; returns how many."""
        with self._session.statement():
            spots = self._matching(table, match)
            for spot in spots:
                if (record := self._session.world.get(spot)) is not None:
                    self._session.change(spot, {**record, **values})
        return len(spots)

    def delete(self, table: str, match: Record) -> int:
        """Delete all records that hold the values of ``match``; returns how many."""
        with self._session.statement():
            spots = self._matching(table, match)
            for spot in spots:
                self._session.change(spot, None)
        return len(spots)

    def rows(self, table: str, match: Record | None = None) -> list[dict[str, Value]]:
        """All records, or those that hold the values of ``match``, oldest first."""
        return [dict(self._session.world.get(spot) or {}) for spot in self._matching(table, match or {})]

    def _matching(self, table: str, match: Record) -> list[Spot]:
        rows = self._session.world.tables[table]
        numbers: Iterable[int] = rows.find(tuple(match), list(match.values())) if match else rows.records
        wanted = match.items()
        return [(table, n) for n in sorted(numbers) if all(rows.records[n][name] == value for name, value in wanted)]


@dataclass(frozen=True, slots=True)
class Backup:
    """A database as it was once."""

    tables: Tables
    links: Mapping[str, Link]


class MemoryDatabase:
    """A database of a Python process: any threads, one writer at a time, readers never wait.

    ``actions`` says what happens to the records that refer to one that goes away, per (table, reference); references
    that are not named there are not enforced at all and may dangle.  Primary keys that are not given are generated
    for integer and uuid columns with a default, differently in each database.  ``now`` is the clock, to be replaced
    by tests; ``offline`` makes every connector raise Unavailable.
    """

    def __init__(self, schema: Schema, name: str, actions: Mapping[tuple[str, str], Action] | None = None) -> None:
        self.schema = schema
        self.name = name
        self.actions = dict(actions or {})
        self.now: Callable[[], float] = time.time
        self.offline = False
        self.lens = Lens(schema)
        self.tables: Tables = {t.name: Rows({c.name: c for c in t.columns}) for t in schema.tables.values()}
        self.links: dict[str, Link] = {}
        self.triggers: dict[str, list[Trigger]] = {}
        self.uniques = {name: _uniques(table) for name, table in schema.tables.items()}
        self.inbound: dict[str, list[tuple[str, Reference, Action]]] = {}
        for (child, reference_name), action in self.actions.items():
            reference = self.lens.references[child, reference_name]
            self.inbound.setdefault(reference.table, []).append((child, reference, action))
        self.numbers = count(1)
        self.changed = Condition()
        self._incarnations = count(1)
        self._ids: dict[str, Iterator[int]] = {}
        self._writing = Lock()
        self._writer: int | None = None

    @contextmanager
    def user(self, at: float | None = None) -> Iterator[User]:
        """One user's transaction: committed at the end (at time ``at``), rolled back when anything is raised."""
        self.begin()
        try:
            session = Session(self)
            yield User(session)
            with self.changed:
                self.publish(session, self.now() if at is None else at)
        finally:
            self.release()

    def trigger(self, table: str, function: Trigger) -> None:
        """Run a function (user, kind, old, new) after each change of a record of the table, whoever made it."""
        self.triggers.setdefault(table, []).append(function)

    def copy(self) -> Backup:
        """A backup of everything, the links' logs included."""
        with self.changed:
            return Backup(self.tables, {name: link.copy() for name, link in self.links.items()})

    def restore(self, backup: Backup) -> None:
        """Put back everything as it was; the feeds are the same incarnations, only shorter."""
        self.begin()
        try:
            with self.changed:
                self.tables = backup.tables
                self.links = {name: link.copy() for name, link in backup.links.items()}
                self.changed.notify_all()
        finally:
            self.release()

    def begin(self) -> None:
        """Become the one writer; waits for the other."""
        if self._writer == get_ident():
            raise RuntimeError(f"this thread has a transaction open in the memory database {self.name} already")
        self._writing.acquire()
        self._writer = get_ident()

    def release(self) -> None:
        """Stop being the writer."""
        self._writer = None
        self._writing.release()

    def publish(self, session: Session, at: float) -> None:
        """Make a session's tables the database's, and log it for the links that did not make it (holds ``changed``)."""
        self.tables = session.world.tables
        for name, witness in session.witnesses.items():
            if witness.operations:
                self.links[name].log.append(Commit(at, None, tuple(witness.operations)))
        self.changed.notify_all()

    def install(self, name: str, capture: Capture) -> None:
        """Capture for a link from now on."""
        self.begin()
        try:
            with self.changed:
                if name in self.links:
                    self.links[name].capture = capture
                else:
                    self.links[name] = Link(f"{self.name}/{name}/{next(self._incarnations)}", capture)
        finally:
            self.release()

    def uninstall(self, name: str) -> None:
        """Forget a link."""
        self.begin()
        try:
            with self.changed:
                self.links.pop(name, None)
                self.changed.notify_all()
        finally:
            self.release()

    def generate(self, table: str, record: dict[str, Value]) -> set[str]:
        """Fill in the primary key's columns that have a default; returns which."""
        filled = set()
        for name in self.schema.tables[table].primary_key:
            column = self.lens.columns[table, name]
            if record[name] is None and column.has_default and column.type.name in (TypeName.INTEGER, TypeName.UUID):
                record[name] = self._next_id(table, column.type.name)
                filled.add(name)
        return filled

    def _next_id(self, table: str, type_name: TypeName) -> str:
        salt = crc32(f"{self.name}.{table}".encode())  # so that an id that leaks to the other side means nothing there
        number = next(self._ids.setdefault(table, count(1)))
        if type_name is TypeName.INTEGER:
            return str(salt % 9000 + 1000 + number)
        return f"{salt:08x}-0000-4000-8000-{number:012x}"


def _uniques(table: Table) -> tuple[tuple[str, ...], ...]:
    return tuple(dict.fromkeys((table.primary_key, *table.uniques) if table.primary_key else table.uniques))
