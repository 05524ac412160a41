# ruff: noqa: S608  (names go through quote(), values are bound)
"""What ids in the log mean: from raw images to rows in natural form, as of a place in the log.

A referenced record that has been renamed or deleted behind that place is taken from its own entry in the log; all
others are taken from the table as it is.  So the images of consecutive changes fit together, however far the tables
are ahead of the log's reader.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from dualwrite.connectors._sql import quote, reference_of, table_of
from dualwrite.connectors._sqlite_capture import DELETE, GONE, REPLACED, UPDATE, needs
from dualwrite.connectors._sqlite_log import Entries, Entry, Image
from dualwrite.connectors._sqlite_schema import Catalog, Facts
from dualwrite.connectors._sqlite_values import Decode, Source, Storage, decoder, row_maker
from dualwrite.model import ABSENT, Cell, Path, Row
from dualwrite.schema import Reference, View

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


@dataclass(frozen=True, slots=True)
class Event:
    """A referenced record's entry in the log: what it was before, and whether that was its end."""

    id: int
    image: Image
    usable: bool  # as what the record was before this place; else only when nothing else is known of it


def is_renaming(entry: Entry) -> bool:
    """Has an updated record changed in what others see of it?"""
    columns = entry.shape.plan.columns
    places = (columns.index(name) for name in entry.shape.plan.followed)
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
        self._events: dict[Target, dict[Identity, list[Event]]] = {}
        self._scanned: int | None = None
        self._current: dict[tuple[Target, Identity], Image | None] = {}
        self._decoders: dict[tuple[str, str], Decode] = {}

    def follow(self, reference: Reference) -> None:
        """Rows will be asked for that follow this reference."""
        self.targets.setdefault(reference.table, set()).add(reference.to)

    def refresh(self, start: int) -> None:
        """Read what has come since; ``start`` is where the log was read up to when there is nothing yet."""
        self._current.clear()
        if not self.targets:
            return
        if self._scanned is None:
            self._scanned = start
        condition = f"id > ? AND {self._entries.of_tables(self.targets)}"
        for entry in self._entries.read(condition, (self._scanned,)):
            self._learn(entry)
            self._scanned = max(self._scanned, entry.id)

    def _learn(self, entry: Entry) -> None:
        if entry.op not in (UPDATE, DELETE, REPLACED, GONE):
            return
        if entry.op == UPDATE and not is_renaming(entry):
            return
        image = entry.before()
        for to in self.targets[entry.table]:
            target = (entry.table, to)
            events = self._events.setdefault(target, {}).setdefault(self.identity(target, image), [])
            events.append(Event(entry.id, image, entry.op != GONE))

    def forget(self, place: int) -> None:
        """Nothing at or before this place will be asked for again."""
        # kept: what was deleted just before may still be named by an entry that follows
        for by_identity in self._events.values():
            for identity in [i for i, events in by_identity.items() if events[-1].id < place - 10_000]:
                del by_identity[identity]

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
        usable = [event for event in events if event.usable and event.id > at]
        if usable:
            return usable[0].image
        current = self._look_up(target, identity)
        return current if current is not None or not events or not gone else events[-1].image

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
        row = self._connection.execute(sql, identity).fetchone()
        return dict(zip(columns, row, strict=True)) if row else None


@dataclass(frozen=True, slots=True)
class _Following:
    """A lookup's cells: the reference that leads there, where its columns are, and which cells show which paths."""

    reference: Reference
    cells: tuple[int, ...]
    paths: tuple[Path, ...]


class Sight:
    """One view over raw images: makes rows in natural form."""

    def __init__(self, catalog: Catalog, history: History, view: View) -> None:
        self.view = view
        self._catalog = catalog
        self._history = history
        table = table_of(catalog.schema, view.table)
        found: dict[str, list[int]] = {}
        for index, path in enumerate(view.paths):
            if len(path) > 1:
                found.setdefault(path[0], []).append(index)
                self._follow_all(path)
        self._following = [
            _Following(
                reference_of(table, step, view.paths[cells[0]]),
                tuple(cells),
                tuple(view.paths[index][1:] for index in cells),
            )
            for step, cells in found.items()
        ]
        self._makers: dict[tuple[str, ...], Callable[[Sequence[tuple[Any, ...]]], list[Row]]] = {}

    def _follow_all(self, path: Path) -> None:
        table = table_of(self._catalog.schema, self.view.table)
        for step in path[:-1]:
            reference = reference_of(table, step, path)
            self._history.follow(reference)
            table = table_of(self._catalog.schema, reference.table)

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
        make = self._makers.get(columns)
        if make is None:
            make = self._makers[columns] = self._maker(columns)
        row = make((values,))[0]
        if not self._following:
            return row
        cells = list(row)
        image = dict(zip(columns, values, strict=True))
        later = dict(zip(columns, becomes, strict=True)) if becomes else None if becomes is None else {}
        for following in self._following:
            held = following.reference.columns
            gone = later is not None and any(later.get(name) != image.get(name) for name in held)
            self._fill(cells, following, image, at, given or {}, gone)
        return tuple(cells)

    def _fill(
        self, cells: list[Cell], following: _Following, image: Image, at: int, given: Override, gone: bool
    ) -> None:
        reference = following.reference
        if any(name not in image for name in reference.columns):
            return  # was not captured then
        held = tuple(image[name] for name in reference.columns)
        found: Sequence[Cell] = (None,) * len(following.cells)
        if not self._is_null(held, reference):
            found = self._history.cells(reference, held, following.paths, at, given, gone)
        for index, cell in zip(following.cells, found, strict=True):
            cells[index] = cell

    def _is_null(self, held: Identity, reference: Reference) -> bool:
        if None in held:
            return True
        table = self._catalog.schema.tables[self.view.table]
        return "" in held and any(
            value == "" and (column := table.column(name)) is not None and column.empty_is_null
            for value, name in zip(held, reference.columns, strict=True)
        )

    def _maker(self, columns: tuple[str, ...]) -> Callable[[Sequence[tuple[Any, ...]]], list[Row]]:
        table = table_of(self._catalog.schema, self.view.table)
        sources: list[Source | None] = []
        for path in self.view.paths:
            column = table.column(path[0]) if len(path) == 1 else None
            sources.append(Source(columns.index(path[0]), column) if column and path[0] in columns else None)
        return row_maker(sources, len(columns))
