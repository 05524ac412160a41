# ruff: noqa: S608  (names go through quote(), values are bound)
"""Records that look different because another record, which they look up, got another key or has only come now.

They are found as of a place in the log: rows with entries that the table may not show yet, or that stand behind that
place, are taken from those entries; all others from the table as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias
from zlib import crc32

from dualwrite.connectors._pg_entries import Place
from dualwrite.connectors._pg_events import Event, Identity, Image
from dualwrite.connectors._pg_log import Log
from dualwrite.connectors._pg_natural import (
    FAR,
    CatchUp,
    Records,
    Sight,
    Step,
    equal_in_sql,
    unnest,
)
from dualwrite.connectors._pg_schema import Catalog
from dualwrite.connectors._pg_session import Connection
from dualwrite.connectors._pg_visible import Visible
from dualwrite.connectors._sql import quote
from dualwrite.model import Path

KEPT: Final = 20_000
"""Entries of a table that stand behind the reader's place and are kept from one batch to the next."""

RowKey: TypeAlias = Image
"""What tells the rows of a table apart: the primary key, else all columns that matter."""
Found: TypeAlias = dict[RowKey, Image]


@dataclass(frozen=True, slots=True)
class Watch:
    """Rows of a view look through a chain of references at a table.

    ``shown`` are the places in the images of that table of what they see; ``may_wait``: they may be there before it is.
    """

    number: int
    sight: Sight
    chain: tuple[Step, ...]
    tables: tuple[str, ...]  # whose columns the steps of the chain start from
    shown: tuple[int, ...]
    may_wait: bool

    def is_touched(self, old: Image | None, new: Image | None) -> bool:
        """Do rows that look at a record look different when it becomes another one?"""
        if new is None:
            return False
        if old is None:
            return self.may_wait
        return any(old[place] != new[place] for place in self.shown)


def watches(records: Records, sight: Sight) -> list[Watch]:
    """All that the rows of a view look at."""
    found: dict[tuple[str, ...], set[str]] = {}
    for path in sight.view.paths:
        for length in range(1, len(path)):
            found.setdefault(path[:length], set()).add(path[length])
    number = 2 + crc32(sight.view.name.encode())  # the same, whatever other views there are
    return [_watch(records, sight, number, path, seen) for path, seen in found.items()]


def _watch(records: Records, sight: Sight, number: int, path: Path, seen: set[str]) -> Watch:
    table, steps, tables = sight.view.table, [], []
    for name in path:
        step = records.steps[table][name]
        steps.append(step)
        tables.append(table)
        table = step.target[0]
    columns = set(steps[-1].target[1])
    for name in seen:
        inner = records.steps[table].get(name)
        columns |= set(inner.reference.columns) if inner else {name}
        if name in records.columns[table]:
            columns.add(name)
    shown = tuple(records.columns[table].index(column) for column in sorted(columns))
    may_wait = not records.is_lasting(steps[-1].target)
    return Watch(number, sight, tuple(steps), tuple(tables), shown, may_wait)


@dataclass(slots=True)
class _Later:
    """What the log tells of a table's rows behind a place, and by what they referred to others."""

    scanned: Place
    count: int = 0
    events: dict[RowKey, list[Event]] = field(default_factory=dict)
    latest: dict[RowKey, Image | None] = field(default_factory=dict)
    """What the rows of ``events`` are behind the last of them."""
    referring: dict[str, dict[Identity, set[RowKey]]] = field(default_factory=dict)

    def as_of(self, key: RowKey, place: Place) -> Image | None:
        """What a row of ``events`` was at a place."""
        following = next((event for event in self.events[key] if event.place > place), None)
        return self.latest[key] if following is None else following.image


class Onlookers:
    """Finds them for one reader of the log, within one batch at a time."""

    def __init__(
        self,
        log: Log,
        catalog: Catalog,
        records: Records,
        visible: Visible,
        connect: Callable[[], Connection],
        catch_up: CatchUp,
    ) -> None:
        self._log = log
        self._catalog = catalog
        self._records = records
        self._visible = visible
        self._connect = connect
        self._catch_up = catch_up
        self.found = 0
        """Rows that were found in this batch, about."""
        self._later: dict[str, _Later] = {}
        self._current: dict[tuple[str, str], dict[Identity, Found]] = {}
        self._places = {
            name: tuple(columns.index(key) for key in catalog.facts[name].key) or tuple(range(len(columns)))
            for name, columns in records.columns.items()
        }

    def begin(self, place: Place, *, goes_on: bool) -> None:
        """Begin a batch, where the reader is.

        What was found behind it is kept unless it is much: in a backlog in which many records get other keys, each
        batch would look through all of it.  It is kept where the batch ``goes_on`` with what the one before has left.
        """
        self._current.clear()
        self.found = 0
        for table, later in list(self._later.items()):
            if later.scanned <= place or (later.count > KEPT and not goes_on):
                del self._later[table]

    def key(self, table: str, image: Image) -> RowKey:
        """What tells the row of an image apart."""
        return tuple([image[place] for place in self._places[table]])

    def prepare(self, touched: Iterable[tuple[Watch, Image]], place: Place) -> None:
        """Find all at once what refers directly to these records."""
        wanted: dict[tuple[str, str], tuple[Step, set[Identity]]] = {}
        for watch, image in touched:
            table, step = watch.tables[-1], watch.chain[-1]
            identities = wanted.setdefault((table, step.reference.name), (step, set()))[1]
            identities.add(self._identify(step, image))
        for (table, _), (step, identities) in wanted.items():
            self._ensure(table, step, identities, place)

    def of(self, watch: Watch, record: Image, place: Place) -> Found:
        """The rows of the view that reach the record through the chain, as of a place."""
        held = {self._identify(watch.chain[-1], record)}
        found: Found = {}
        for index in range(len(watch.chain) - 1, -1, -1):
            found = self._referring(watch.tables[index], watch.chain[index], held, place)
            if index:
                identify = self._records.targets[watch.tables[index]][watch.chain[index - 1].target]
                held = {identify(image) for image in found.values()}
        return found

    def _identify(self, step: Step, image: Image) -> Identity:
        return self._records.targets[step.target[0]][step.target](image)

    def _referring(self, table: str, step: Step, held: set[Identity], place: Place) -> Found:
        self._ensure(table, step, held, place)
        current, later = self._current[table, step.reference.name], self._later[table]
        found: Found = {}
        for identity in held:
            rows = current[identity].items()
            found |= {key: image for key, image in rows if key not in later.events}
            for key in later.referring[step.reference.name].get(identity, ()):
                told = later.as_of(key, place)
                if told is not None and step.identity(told) == identity:
                    found[key] = told
        return found

    def _ensure(self, table: str, step: Step, identities: set[Identity], place: Place) -> None:
        """Know which rows refer to these records now, and what the log tells of them that this may not show."""
        known = self._current.setdefault((table, step.reference.name), {})
        missing = [identity for identity in identities if identity not in known]
        if missing:
            connection = self._connect()
            since = self._visible.since(connection, place)
            self._later.setdefault(table, _Later(since))
            known.update({identity: {} for identity in missing})
            for number, image in self._select(connection, table, step, missing):
                known[missing[number]][self.key(table, image)] = image
                self.found += 1
            self._catch_up(connection)
        self._scan(table, step)

    def _select(
        self, connection: Connection, table: str, step: Step, identities: Sequence[Identity]
    ) -> list[tuple[int, Image]]:
        facts, reference = self._catalog.facts[table], step.reference
        tests = " AND ".join(
            equal_in_sql(self._catalog, (table, own), (reference.table, name), f"t.{quote(own)}", f"k.k{number}")
            for number, (own, name) in enumerate(zip(reference.columns, reference.to, strict=True))
        )
        chosen = ", ".join(facts.columns[name].shown(f"t.{quote(name)}") for name in self._records.columns[table])
        statement = f"SELECT k.i, {chosen} FROM {unnest(len(reference.to))}, {facts.sql} AS t WHERE {tests}"
        bound = [list(range(len(identities))), *(list(members) for members in zip(*identities, strict=True))]
        rows = connection.execute(statement.encode(), bound).fetchall()
        return [(int(number), tuple(image)) for number, *image in rows]

    def _scan(self, table: str, step: Step) -> None:
        """Read what the log holds by now of the table's rows."""
        later, name = self._later[table], step.reference.name
        if name not in later.referring:
            later.referring[name] = {}
            for key, events in later.events.items():
                for image in (*(event.image for event in events), later.latest[key]):
                    self._refer(later, name, key, image, step)
        for entry in self._log.find([leaf.oid for leaf in self._catalog.facts[table].leaves], later.scanned, FAR):
            later.scanned = entry.place
            later.count += 1
            old, new = self._records.images(table, entry)
            was, now = (None if image is None else self.key(table, image) for image in (old, new))
            if was is not None:
                self._add(table, later, was, Event(entry.place, old), None)
            if now is not None:
                self._add(table, later, now, Event(entry.place, old if now == was else None), new)

    def _add(self, table: str, later: _Later, key: RowKey, event: Event, becomes: Image | None) -> None:
        events = later.events.setdefault(key, [])
        if not events or events[-1].place != event.place:
            events.append(event)
        later.latest[key] = becomes
        for name in later.referring:
            for image in (event.image, becomes):
                self._refer(later, name, key, image, self._records.steps[table][name])

    @staticmethod
    def _refer(later: _Later, name: str, key: RowKey, image: Image | None, step: Step) -> None:
        held = None if image is None else step.identity(image)
        if held is not None:
            later.referring[name].setdefault(held, set()).add(key)
