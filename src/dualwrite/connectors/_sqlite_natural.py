# ruff: noqa: S608  (names go through quote(), values are bound)
"""What ids in the log mean: from raw images to rows in natural form, as of a place in the log.

A referenced record that has been renamed or deleted behind that place is taken from its own entry in the log; all
others are taken from the table as it is.  So the images of consecutive changes fit together, however far the tables
are ahead of the log's reader.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

from dualwrite.connectors._sql import needs, quote, reference_of, table_of
from dualwrite.connectors._sqlite_capture import UPDATE
from dualwrite.connectors._sqlite_log import Entries
from dualwrite.connectors._sqlite_order import Entry, Image
from dualwrite.connectors._sqlite_schema import Catalog, Facts
from dualwrite.connectors._sqlite_session import read_all
from dualwrite.connectors._sqlite_values import Decode, Source, Storage, decoder, pair_maker, row_maker
from dualwrite.model import ABSENT, Cell, Path, Row
from dualwrite.schema import Reference, View

LOOKBACK = 10_000
"""Entries behind the reader that may still say what an id meant (of records deleted just before those that name it)."""
Identity: TypeAlias = tuple[Storage, ...]
Target: TypeAlias = tuple[str, tuple[str, ...]]
"""A referenced table and the columns by which it is referenced."""
Override: TypeAlias = Mapping[tuple[Target, Identity], Image | None]
"""Records to be taken as given instead of looked up; None: there is no such record."""


def comparable(value: Storage, facts: Facts, column: str) -> Storage:
    """A value as the column compares it: affinity and collation applied."""
    affinity, collation = facts.affinities[column], facts.collations[column]
    if isinstance(value, str) and affinity not in ("TEXT", "BLOB"):
        try:
            return float(value) if any(mark in value for mark in ".eE") else int(value)
        except ValueError:
            return value
    if isinstance(value, int | float) and affinity == "TEXT":
        value = str(value)
    if isinstance(value, str) and collation == "NOCASE":
        return "".join(letter.lower() if letter.isascii() else letter for letter in value)
    return value.rstrip(" ") if isinstance(value, str) and collation == "RTRIM" else value


class Event(NamedTuple):
    """A referenced record's entry in the log: what it was before; None where it only came then, once more."""

    id: int
    image: Image | None


def is_renaming(entry: Entry) -> bool:
    """Has an updated record changed in what others see of it?"""
    plan = entry.shape.plan
    if not plan.followed:
        return False
    places = (plan.columns.index(name) for name in plan.followed)
    return any((entry.old[i], type(entry.old[i])) != (entry.new[i], type(entry.new[i])) for i in places)


class History:
    """The referenced records as of any place in the log that is still to be read."""

    def __init__(
        self, connection: sqlite3.Connection, entries: Entries, catalog: Catalog, views: Iterable[View]
    ) -> None:
        self._connection = connection
        self._entries = entries
        self._catalog = catalog
        self._columns = {name: tuple(sorted(n.shown | n.followed)) for name, n in needs(catalog.schema, views).items()}
        self.targets: dict[str, set[tuple[str, ...]]] = {}
        self.moved: set[str] = set()
        """Tables of which some record is not what it was all the time."""
        self._events: dict[Target, dict[Identity, list[Event]]] = {}
        self._scanned: int | None = None
        self._forgotten = 0
        self.generation = 0
        self._current: dict[tuple[Target, Identity], Image | None] = {}
        self._decoders: dict[tuple[str, str], Decode] = {}

    def follow(self, reference: Reference) -> None:
        """Rows will be asked for that follow this reference."""
        self.targets.setdefault(reference.table, set()).add(reference.to)

    def refresh(self, start: int) -> None:
        """Read what has come since; ``start`` is where the log was read up to when there is nothing yet."""
        self._current.clear()
        self.generation += 1
        if not self.targets:
            return
        if self._scanned is None:
            self._scanned = start
        for entry in self._entries.scan(self._scanned, self.targets):
            self._learn(entry)
            self._scanned = max(self._scanned, entry.id)

    def _learn(self, entry: Entry) -> None:
        if entry.op == UPDATE and not is_renaming(entry):
            return
        was = entry.before() if any(value is not None for value in entry.old) else None
        for to in self.targets[entry.table]:
            target = (entry.table, to)
            held = None if was is None else self.identity(target, was)
            events = self._events.setdefault(target, {})
            if held is not None:
                self.moved.add(entry.table)
                events.setdefault(held, []).append(Event(entry.id, was))
            elif (now := self.identity(target, entry.after())) in events:
                events[now].append(Event(entry.id, None))

    def gone(self, target: Target, identity: Identity, place: int) -> Image | None:
        """What the record was of which the entry at this place brought another one; None where nobody knows of any."""
        events = self._events.get(target, {}).get(identity, ())
        if Event(place, None) not in events:
            return None
        return next((event.image for event in reversed(events) if event.id < place and event.image is not None), None)

    def forget(self, place: int) -> None:
        """Everything up to this place has been read; what lies well before it will not be asked for again."""
        if place - self._forgotten < LOOKBACK:
            return
        self._forgotten = place
        for by_identity in self._events.values():
            for identity in [i for i, events in by_identity.items() if events[-1].id < place - LOOKBACK]:
                del by_identity[identity]
        self.moved = {table for (table, _), by_identity in self._events.items() if by_identity}

    def identity(self, target: Target, image: Image) -> Identity:
        """By which values the record of an image is referenced."""
        facts = self._catalog.facts[target[0]]
        return tuple(comparable(image.get(name), facts, name) for name in target[1])

    def cells(
        self, reference: Reference, held: Identity, paths: Sequence[Path], at: int, given: Override, gone: bool
    ) -> list[Cell]:
        """What the paths, seen from the referenced record, led to at a place of the log.

        With ``gone`` also a record counts that had been deleted by then.
        """
        target = (reference.table, reference.to)
        facts = self._catalog.facts[reference.table]
        identity = tuple(comparable(value, facts, name) for value, name in zip(held, reference.to, strict=True))
        image = given[target, identity] if (target, identity) in given else self._image(target, identity, at, gone)
        if image is None:
            return [ABSENT] * len(paths)
        return [self._cell(reference.table, image, path, at, given, gone) for path in paths]

    def _cell(self, table: str, image: Image, path: Path, at: int, given: Override, gone: bool) -> Cell:
        if len(path) == 1:
            return self._decoded(table, path[0], image)
        reference = reference_of(self._catalog.schema.tables[table], path[0], path)
        held = tuple(image.get(name) for name in reference.columns)
        if None in held:
            return None
        return self.cells(reference, held, [path[1:]], at, given, gone)[0]

    def _decoded(self, table: str, name: str, image: Image) -> Cell:
        if name not in image:
            return ABSENT
        value = image[name]
        if value is None:
            return None
        decode = self._decoders.get((table, name))
        if decode is None:
            column = self._catalog.schema.tables[table].column(name)
            assert column is not None
            decode = self._decoders[table, name] = decoder(column)
        return decode(value)

    def _image(self, target: Target, identity: Identity, at: int, gone: bool) -> Image | None:
        events = self._events.get(target, {}).get(identity, ())
        passed = next((number for number, event in enumerate(events) if event.id > at), len(events))
        found = events[passed].image if passed < len(events) else self._look_up(target, identity)
        if found is None and gone:
            return next((event.image for event in reversed(events[:passed]) if event.image is not None), None)
        return found

    def _look_up(self, target: Target, identity: Identity) -> Image | None:
        if (target, identity) not in self._current:
            self._current[target, identity] = self._select(target, identity)
        return self._current[target, identity]

    def _select(self, target: Target, identity: Identity) -> Image | None:
        table, to = target
        columns = self._columns[table]
        facts = self._catalog.facts[table]
        order = f"ORDER BY {quote(facts.rowid)}" if facts.rowid else ""
        held = " AND ".join(f"{quote(name)} = ?" for name in to)
        chosen = ", ".join(map(quote, columns))
        sql = f"SELECT {chosen} FROM {quote(table)} WHERE {held} {order} LIMIT 1"
        rows = read_all(self._connection, sql, identity)
        return dict(zip(columns, rows[0], strict=True)) if rows else None


@dataclass(frozen=True, slots=True)
class _Following:
    """A lookup's cells: the reference that leads there, where its columns are, and which cells show which paths."""

    reference: Reference
    cells: tuple[int, ...]
    paths: tuple[Path, ...]
    tables: frozenset[str]
    known: dict[Identity, Sequence[Cell]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Layout:
    """How images of one shape become rows: the flat cells, and where the columns of each followed reference are."""

    make: Callable[[Sequence[tuple[Any, ...]]], list[Row]]
    make_both: Callable[[tuple[Any, ...], tuple[Any, ...]], tuple[Row, Row]]
    following: Sequence[tuple[_Following, tuple[int, ...]]]


class Sight:
    """One view over raw images: makes rows in natural form."""

    def __init__(self, catalog: Catalog, history: History, view: View) -> None:
        self.view = view
        self._catalog = catalog
        self._history = history
        self._table = table_of(catalog.schema, view.table)
        found: dict[str, list[int]] = {}
        for index, path in enumerate(view.paths):
            if len(path) > 1:
                found.setdefault(path[0], []).append(index)
        self._following = [self._follow(step, cells) for step, cells in found.items()]
        self._layouts: dict[tuple[str, ...], _Layout] = {}
        self._generation = -1

    def _follow(self, step: str, cells: Sequence[int]) -> _Following:
        paths = tuple(self.view.paths[index] for index in cells)
        tables = set()
        for path in paths:
            table = self._table
            for name in path[:-1]:
                reference = reference_of(table, name, path)
                self._history.follow(reference)
                table = table_of(self._catalog.schema, reference.table)
                tables.add(table.name)
        reference = reference_of(self._table, step, paths[0])
        return _Following(reference, tuple(cells), tuple(path[1:] for path in paths), frozenset(tables))

    def row(
        self,
        columns: tuple[str, ...],
        values: tuple[Storage, ...],
        at: int,
        given: Override | None = None,
        becomes: tuple[Storage, ...] | None = None,
    ) -> Row:
        """The row of an image, its lookups as of a place in the log.

        ``becomes`` is the image that it turned into (nothing, when it was deleted): a reference that is given up is
        still told when its record has gone just before.
        """
        layout = self._layouts.get(columns) or self._lay_out(columns)
        row = layout.make((values,))[0]
        return self._led(layout, row, values, at, given, becomes) if layout.following else row

    def both(
        self, columns: tuple[str, ...], old: tuple[Storage, ...], new: tuple[Storage, ...], at: int
    ) -> tuple[Row, Row]:
        """The rows of an update's images, right before and behind the entry ``at``."""
        layout = self._layouts.get(columns) or self._lay_out(columns)
        before, after = layout.make_both(old, new)
        if layout.following:
            after = self._led(layout, after, new, at)
            before = self._led(layout, before, old, at - 1, becomes=new)
        return before, after

    def _led(
        self,
        layout: _Layout,
        row: Row,
        values: tuple[Storage, ...],
        at: int,
        given: Override | None = None,
        becomes: tuple[Storage, ...] | None = None,
    ) -> Row:
        """The row with the cells that its lookups lead to."""
        if self._generation != self._history.generation:
            self._generation = self._history.generation
            for following in self._following:
                following.known.clear()
        cells = list(row)
        for following, places in layout.following:
            held = tuple([values[place] for place in places])
            gone = becomes is not None and (not becomes or any(becomes[place] != values[place] for place in places))
            found = self._found(following, held, at, given, gone)
            for index, cell in zip(following.cells, found, strict=True):
                cells[index] = cell
        return tuple(cells)

    def _found(
        self, following: _Following, held: Identity, at: int, given: Override | None, gone: bool
    ) -> Sequence[Cell]:
        if given or not self._history.moved.isdisjoint(following.tables):
            return self._resolved(following, held, at, given or {}, gone)
        known = following.known.get(held)
        if known is None:
            known = following.known[held] = self._resolved(following, held, at, {}, gone)
        return known

    def _resolved(self, following: _Following, held: Identity, at: int, given: Override, gone: bool) -> Sequence[Cell]:
        if self._is_null(held, following.reference):
            return (None,) * len(following.cells)
        return self._history.cells(following.reference, held, following.paths, at, given, gone)

    def _is_null(self, held: Identity, reference: Reference) -> bool:
        if None in held:
            return True
        return "" in held and any(
            value == "" and (column := self._table.column(name)) is not None and column.empty_is_null
            for value, name in zip(held, reference.columns, strict=True)
        )

    def _lay_out(self, columns: tuple[str, ...]) -> _Layout:
        sources: list[Source | None] = []
        for path in self.view.paths:
            column = self._table.column(path[0]) if len(path) == 1 else None
            sources.append(Source(columns.index(path[0]), column) if column and path[0] in columns else None)
        following = [
            (one, tuple(columns.index(name) for name in one.reference.columns))
            for one in self._following
            if set(one.reference.columns) <= set(columns)  # else it was not captured then
        ]
        of = tuple(sources), len(columns)
        layout = self._layouts[columns] = _Layout(row_maker(*of), pair_maker(*of), following)
        return layout
