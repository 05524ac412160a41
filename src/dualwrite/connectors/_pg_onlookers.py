# ruff: noqa: S608  (names go through quote(), values are bound)
"""Records that look different because another record, which they look up, got another key or has only come now.

They are found as of a place in the log: rows with entries that the table may not show yet, or that stand behind that
place, are taken from those entries; all others from the table as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from typing import Final
from zlib import crc32

from dualwrite.connectors._pg_crowds import LARGEST, Crowd, Later, RowKey
from dualwrite.connectors._pg_entries import Place
from dualwrite.connectors._pg_events import Identity, Image
from dualwrite.connectors._pg_log import Log
from dualwrite.connectors._pg_natural import (
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
from dualwrite.lined import weight
from dualwrite.model import Path

KEPT: Final = 20_000
"""Entries of a table of which the last are not read again because the first are passed."""
CROWD: Final = 2_000
"""Rows that are held at once, about: each record may have any number of onlookers."""


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


class Onlookers:
    """Finds them for one reader of the log."""

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
        self._later: dict[str, Later] = {}
        self._prepared: dict[tuple[str, str], dict[Identity, list[Image]]] = {}
        self._places = {
            name: tuple(columns.index(key) for key in catalog.facts[name].key) or tuple(range(len(columns)))
            for name, columns in records.columns.items()
        }

    def begin(self, place: Place) -> None:
        """Begin a batch, where the reader is.

        What the log tells behind it is kept: in a backlog in which many records get other keys, each batch would look
        through all of it.
        """
        self._prepared.clear()
        for table, later in list(self._later.items()):
            if later.is_over(place, KEPT):
                later.drop()
                del self._later[table]

    def key(self, table: str, image: Image) -> RowKey:
        """What tells the row of an image apart."""
        return tuple([image[place] for place in self._places[table]])

    def prepare(self, touched: Iterable[tuple[Watch, Image]], place: Place) -> bool:
        """Find all at once what refers directly to these records, instead of what was found before.

        False where that is too much to be held: then it is looked for when it is asked for.
        """
        self._prepared.clear()
        wanted: dict[tuple[str, str], tuple[Step, dict[Identity, list[Image]]]] = {}
        for watch, image in touched:
            table, step = watch.tables[-1], watch.chain[-1]
            wanted.setdefault((table, step.reference.name), (step, {}))[1][self._identify(step, image)] = []
        left, room = CROWD, LARGEST
        for (table, _), (step, found) in wanted.items():
            for identity, image in self._select(table, step, list(found), place, most=left + 1):
                left, room = left - 1, room - weight([image])
                if left >= 0 and room >= 0:
                    found[identity].append(image)
            if left < 0 or room < 0:
                return False
        for (table, _), (step, _) in wanted.items():
            self._scan(table, step)
        self._prepared = {about: found for about, (_, found) in wanted.items()}
        return True

    def of(self, watch: Watch, record: Image, place: Place) -> Crowd:
        """The rows of the view that reach the record through the chain, as of a place."""
        one = self._identify(watch.chain[-1], record)
        held: Callable[[], Iterable[Identity]] = lambda: [one]  # noqa: E731  (another one each time)
        for index in range(len(watch.chain) - 1, -1, -1):
            table = watch.tables[index]
            found = self._referring(table, watch.chain[index], held, place)
            if index:
                held = partial(map, self._records.targets[table][watch.chain[index - 1].target], found)
        return found

    def _identify(self, step: Step, image: Image) -> Identity:
        return self._records.targets[step.target[0]][step.target](image)

    def _referring(self, table: str, step: Step, held: Callable[[], Iterable[Identity]], place: Place) -> Crowd:
        """The rows that refer to these records, as of a place."""
        prepared = self._prepared.get((table, step.reference.name), {})
        found, is_asked = Crowd(), False
        for some in _some(held()):
            unknown = [identity for identity in some if identity not in prepared]
            is_asked = is_asked or bool(unknown)
            shown = (image for _, image in self._select(table, step, unknown, place)) if unknown else ()
            for image in chain((image for identity in some for image in prepared.get(identity, ())), shown):
                found.put(self.key(table, image), image)
        if is_asked:
            self._scan(table, step)
        later = self._later.get(table)
        return found if later is None or not later else self._as_of(table, step, held, place, found, later)

    def _as_of(
        self,
        table: str,
        step: Step,
        held: Callable[[], Iterable[Identity]],
        place: Place,
        shown: Crowd,
        later: Later,
    ) -> Crowd:
        """The rows that the table shows, but of which the log tells as it does."""
        found = Crowd()
        for image in shown:
            key = self.key(table, image)
            if not later.knows(key):
                found.put(key, image)
        for some in _some(held()):
            for identity in some:
                for image in later.referring(step.reference.name, identity, place):
                    if step.identity(image) == identity:
                        found.put(self.key(table, image), image)
        return found

    def _select(
        self, table: str, step: Step, identities: Sequence[Identity], place: Place, most: int | None = None
    ) -> Iterator[tuple[Identity, Image]]:
        """What refers to these records now, or ``most`` of it; the log has what this shows when all of it is read.

        ``_later`` has to tell what it may not show.
        """
        connection = self._connect()
        since = self._visible.since(connection, place)
        self._later.setdefault(table, Later(since))
        facts, reference = self._catalog.facts[table], step.reference
        tests = " AND ".join(
            equal_in_sql(self._catalog, (table, own), (reference.table, name), f"t.{quote(own)}", f"k.k{number}")
            for number, (own, name) in enumerate(zip(reference.columns, reference.to, strict=True))
        )
        chosen = ", ".join(facts.columns[name].shown(f"t.{quote(name)}") for name in self._records.columns[table])
        limit = "" if most is None else f" LIMIT {most}"
        statement = f"SELECT k.i, {chosen} FROM {unnest(len(reference.to))}, {facts.sql} AS t WHERE {tests}{limit}"
        bound = [list(range(len(identities))), *(list(members) for members in zip(*identities, strict=True))]
        try:
            for number, *image in connection.cursor().stream(statement.encode(), bound):
                yield identities[int(number)], tuple(image)
        except GeneratorExit:  # something went wrong: the rest of the answer would stand before the next one
            connection.close()
            raise
        self._catch_up(connection)

    def _scan(self, table: str, step: Step) -> None:
        """Read what the log holds by now of the table's rows."""
        later, seen = self._later[table], self._log.seen
        later.refer(step.reference.name, step.identity)
        for entry in self._log.find([leaf.oid for leaf in self._catalog.facts[table].leaves], later.scanned, seen):
            old, new = self._records.images(table, entry)
            was, now = (None if image is None else self.key(table, image) for image in (old, new))
            if was is not None and was != now:
                later.add(was, entry.place, old, None)
            if now is not None:
                later.add(now, entry.place, old if now == was else None, new)
        later.scanned = max(later.scanned, seen)  # the log may be let go up to there, while more of the batch is told


def _some(held: Iterable[Identity]) -> Iterator[list[Identity]]:
    """A few of them at a time, each once among these."""
    rest = iter(held)
    while some := list(islice(rest, CROWD)):
        yield list(dict.fromkeys(some))
