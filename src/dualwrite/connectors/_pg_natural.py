# ruff: noqa: S608  (names go through quote(), values are bound)
"""What ids in the log mean: from raw images to rows in natural form, as of the reader's place in the log.

``Records`` knows what the referenced records that are asked for were at that place, and moves on with the reader.  A
record that it does not know yet is read from its table, many at once; what the log tells about it behind the place is
undone then.  So the images of consecutive changes fit together, however far the tables are ahead of the reader; and
where they may be behind it, because a commit is in the log before others can see it, the log's own images are taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from operator import itemgetter
from typing import Any, Final, TypeAlias

from dualwrite.canonical import identity
from dualwrite.connectors import _pg_entries
from dualwrite.connectors._pg_entries import Place
from dualwrite.connectors._pg_events import Event, Events, Identity, Image, Target
from dualwrite.connectors._pg_log import Log
from dualwrite.connectors._pg_schema import Catalog, ColumnFacts, Facts
from dualwrite.connectors._pg_session import Connection
from dualwrite.connectors._pg_visible import Visible
from dualwrite.connectors._pg_wire import UNCHANGED, Relation
from dualwrite.connectors._sql import is_unique, needs, quote, reference_of, table_of
from dualwrite.model import ABSENT, Absent, Cell, Path, Row
from dualwrite.schema import Reference, Table, View

KNOWN: Final = 5_000
"""Records that are remembered, per way in which they are referenced."""
GONE: Final = 200_000
"""As many that have gone: these cannot be asked for again."""

CatchUp: TypeAlias = Callable[[Connection], None]
"""Waits until the log holds everything that the session can see by now."""
Picker: TypeAlias = Callable[[Sequence[Any]], tuple[Any, ...]]

Passed: TypeAlias = list[tuple[Target, Identity, Image | Absent | None]]
"""What the records were that a row has made others; ABSENT is what was not known."""
Told: TypeAlias = dict[Target, dict[Identity, tuple[Image | None, Image | None]]]
"""What records are, and what those were that have gone."""

FAR: Final = (1 << 63,)


# -- generated functions ---------------------------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def picker(sources: tuple[tuple[int, Callable[[str], str]] | None, ...], partial: bool) -> Picker:
    """A function from raw images to the cells at these places in canonical form; generated, for it runs for every row.

    What has no source is ABSENT; ``partial``: so are cells that the server has not sent.
    """
    taken = [source[0] for source in sources if source is not None and source[1] is identity]
    if len(taken) == len(sources) > 1 and not partial:  # they are in canonical form
        return itemgetter(*taken)
    scope: dict[str, Any] = {"A": ABSENT, "U": UNCHANGED}
    cells = []
    for number, source in enumerate(sources):
        if source is None:
            cells.append("A")
            continue
        index, spell = source
        cell = f"i[{index}]"
        if spell is not identity:
            scope[f"s{number}"] = spell
            cell = f"(None if {cell} is None else s{number}({cell}))"
        cells.append(f"(A if i[{index}] is U else {cell})" if partial else cell)
    exec(f"def pick(i):\n    return ({''.join(f'{cell}, ' for cell in cells)})", scope)
    pick: Picker = scope["pick"]
    return pick


def pick_columns(columns: Sequence[str], relation: Relation, facts: Facts) -> Picker:
    """A function from a relation's images to these columns of it."""
    return picker(_sources(columns, relation, facts), relation.identity != "f")


def _sources(
    columns: Sequence[str], relation: Relation, facts: Facts
) -> tuple[tuple[int, Callable[[str], str]] | None, ...]:
    places = {column.name: index for index, column in enumerate(relation.columns)}
    return tuple(
        (places[name], facts.columns[name].canonical) if name in places and name in facts.columns else None
        for name in columns
    )


class Flat:
    """Rows of a view that shows no lookup, from a relation's images."""

    def __init__(self, columns: Sequence[str], relation: Relation, facts: Facts) -> None:
        self.row = pick_columns(columns, relation, facts)
        self._ways: dict[int, list[tuple[int, Callable[[str], str]]]] = {}
        for place, source in enumerate(_sources(columns, relation, facts)):
            if source is not None:
                self._ways.setdefault(source[0], []).append((place, source[1]))

    def rows(self, old: Sequence[Any], new: Sequence[Any], edited: Iterable[int]) -> tuple[Row, Row, tuple[int, ...]]:
        """Two rows of images that differ in some cells, and have all of them, and in which cells the rows differ.

        What stays is spelled once.
        """
        before = self.row(old)
        cells = list(before)
        differing: list[int] = []
        for index in edited:
            for place, spell in self._ways.get(index, ()):
                cell = None if new[index] is None else spell(new[index])
                if cell != cells[place]:
                    cells[place] = cell
                    differing.append(place)
        return before, tuple(cells), tuple(sorted(differing))


# -- references ------------------------------------------------------------------------------------------------------


def compared_as(catalog: Catalog, target: Target) -> tuple[Callable[[str], str] | None, ...]:
    """By column of a target: what makes the texts of equal values the same."""
    table = table_of(catalog.schema, target[0])
    facts = catalog.facts[target[0]]
    return tuple(_folder(table, facts.columns[name]) for name in target[1])


def _folder(table: Table, facts: ColumnFacts) -> Callable[[str], str] | None:
    column = table.column(facts.name)
    if facts.base == "numeric":
        return _shortest
    if facts.padded == " ":
        return str.rstrip
    return str.casefold if column is not None and column.ignore_case else None


def _shortest(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text else text


def equal_in_sql(catalog: Catalog, column: tuple[str, str], held: tuple[str, str], cell: str, value: str) -> str:
    """The test whether a column's cell holds a value that was the text of another column."""
    mine, theirs = (catalog.facts[table].columns[name] for table, name in (column, held))
    if mine.base in _INTEGERS and theirs.base in _INTEGERS:
        return f"{cell} = {value}::int8"
    if mine.equality == theirs.equality and mine.plain == theirs.plain:
        return mine.equal(cell, f"{value}::{mine.plain}")
    return f"{mine.text(cell)} = {value}"


_INTEGERS: Final = ("int2", "int4", "int8")


@dataclass(frozen=True, slots=True)
class Step:
    """How a record refers to another one: where its image holds the columns of the reference."""

    reference: Reference
    target: Target
    places: tuple[int, ...]
    folders: tuple[Callable[[str], str] | None, ...]
    empties: tuple[int, ...]

    def identity(self, image: Sequence[Any]) -> Identity | None:
        """What the image refers to; None for nothing."""
        found = []
        for place, fold in zip(self.places, self.folders, strict=True):
            cell = image[place]
            if cell is None or cell is ABSENT or (not cell and place in self.empties):
                return None
            found.append(cell if fold is None else fold(cell))
        return tuple(found)


def is_enforced(catalog: Catalog, table: str, reference: Reference) -> bool:
    """Does a foreign key see to it that the record referred to exists?"""
    pairs = set(zip(reference.columns, reference.to, strict=True))
    return any(
        key.table == reference.table and set(zip(key.columns, key.to, strict=True)) == pairs
        for key in catalog.facts[table].foreign_keys
    )


# -- records ---------------------------------------------------------------------------------------------------------


class Records:
    """The referenced records as of the reader's place."""

    def __init__(
        self,
        log: Log,
        catalog: Catalog,
        views: Iterable[View],
        visible: Visible,
        connect: Callable[[], Connection],
        catch_up: CatchUp,
    ) -> None:
        self._log = log
        self._catalog = catalog
        self._visible = visible
        self._connect = connect
        self._catch_up = catch_up
        self.columns = {
            name: tuple(sorted({*need.shown, *need.followed, *catalog.facts[name].key}))
            for name, need in needs(catalog.schema, views).items()
        }
        self.steps: dict[str, dict[str, Step]] = {name: {} for name in self.columns}
        """Per table the references that its records are followed through."""
        self.targets: dict[str, dict[Target, Callable[[Sequence[Any]], Identity]]] = {}
        """Per table how its records are referenced."""
        self._children: dict[Target, tuple[str, Reference]] = {}
        self._lasting: set[Target] = set()  # referenced by foreign keys only: what refers to it comes later than it
        self._state: dict[Target, dict[Identity, Image | None]] = {}
        self._gone: dict[Target, dict[Identity, Image]] = {}
        self._passing: list[tuple[Target, Identity]] = []  # what is known only for the moment
        self._ahead = Events()
        self._scanned: Place | None = None
        self._began: Place | None = None
        self._behind: Told | None = None
        self.generation = 0
        """Another number whenever a record that was asked for has become something else."""
        self._pickers: dict[int, Picker] = {}
        for view in views:
            self._follow(view)

    def _follow(self, view: View) -> None:
        for path in view.paths:
            table = table_of(self._catalog.schema, view.table)
            for name in path[:-1]:
                reference = reference_of(table, name, path)
                self._add_step(table, reference)
                table = table_of(self._catalog.schema, reference.table)

    def _add_step(self, table: Table, reference: Reference) -> None:
        if reference.name in self.steps[table.name]:
            return
        columns = self.columns[table.name]
        target: Target = (reference.table, reference.to)
        folders = compared_as(self._catalog, target)
        places = tuple(columns.index(name) for name in reference.columns)
        empties = tuple(columns.index(c.name) for c in table.columns if c.empty_is_null and c.name in columns)
        self.steps[table.name][reference.name] = Step(reference, target, places, folders, empties)
        enforced = is_enforced(self._catalog, table.name, reference)
        if target not in self._children:
            self._children[target] = (table.name, reference)
            self._lasting |= {target} if enforced else set()
            to = tuple(self.columns[reference.table].index(name) for name in reference.to)
            self.targets.setdefault(reference.table, {})[target] = _identifier(to, folders)
            self._state[target], self._gone[target] = {}, {}
        elif not enforced:
            self._lasting.discard(target)

    def is_lasting(self, target: Target) -> bool:
        """Is whatever refers to these records checked by a foreign key, and so there only while they are?"""
        return target in self._lasting

    # -- moving on ------------------------------------------------------------------------------------------------

    def passed(self, table: str, old: Image | None, new: Image | None) -> Passed:
        """The reader has passed a row of a referenced table."""
        passed: Passed = []
        for target, identify in self.targets.get(table, {}).items():
            was = None if old is None else identify(old)
            now = None if new is None else identify(new)
            if was is not None and was != now:
                assert old is not None
                self._gone[target][was] = old
                passed.append((target, was, self._set(target, was, None)))
            if now is not None:
                passed.append((target, now, self._set(target, now, new)))
        return passed

    def _set(self, target: Target, identity: Identity, image: Image | None) -> Image | Absent | None:
        """Returns what was known before; ABSENT for nothing."""
        state = self._state[target]
        known = state.get(identity, ABSENT)
        if known is not ABSENT and known != image:
            self.generation += 1
        state[identity] = image
        return known

    @contextmanager
    def before(self, passed: Passed) -> Iterator[None]:
        """Inside, the records are what they were before the reader passed that row."""
        self._exchange(passed)
        try:
            yield
        finally:
            self._exchange(passed)

    def _exchange(self, passed: Passed) -> None:
        for number, (target, each, image) in enumerate(passed):
            state = self._state[target]
            passed[number] = target, each, state.pop(each, ABSENT)
            if not isinstance(image, Absent):
                state[each] = image
        self.generation += 1

    def forget(self, place: Place) -> None:
        """Keep memory bounded; not within a batch.  ``place`` is the reader's."""
        for known, most in ((self._state, KNOWN), (self._gone, GONE)):
            for by_identity in known.values():
                for each in list(islice(by_identity, max(0, len(by_identity) - most))):
                    del by_identity[each]
                    self.generation += 1
        self._passing.clear()
        self._ahead.passed(place)

    # -- asking ---------------------------------------------------------------------------------------------------

    def image(self, target: Target, identity: Identity, gone: bool) -> Image | None:
        """The record of that identity at the reader's place; with ``gone`` also one that was deleted by then.

        Where foreign keys forbid that something refers to a record that has gone, the transaction is about to undo it.
        """
        image = self._state[target].get(identity)
        return self._gone[target].get(identity) if image is None and (gone or target in self._lasting) else image

    def load(self, wanted: Mapping[Target, set[Identity]], place: Place, *, lasting: bool = True) -> None:
        """Get to know these records, and those that they refer to, as of the reader's place.

        Where this is not ``lasting``, they may be forgotten at the next such call: there may be very many of them.
        """
        if not lasting and len(self._passing) > KNOWN:
            for target, each in self._passing:
                self._state[target].pop(each, None)
            self._passing.clear()
        pending = self._unknown(wanted)
        while pending:
            connection = self._connect()
            since = self._visible.since(connection, place)
            found = {target: self._select(connection, target, identities) for target, identities in pending.items()}
            self._catch_up(connection)
            self._scan(place)
            unseen: Told = self._told(since, place) if since < place else {}
            nested: dict[Target, set[Identity]] = {}
            for target, identities in pending.items():
                for each in identities:
                    image = self._as_of(target, each, place, found[target].get(each), unseen)
                    self._state[target][each] = image
                    if not lasting:
                        self._passing.append((target, each))
                    for seen in (image, self._gone[target].get(each)):
                        if seen is not None:
                            self.ask(target[0], seen, nested)
            pending = self._unknown(nested)

    def ask(self, table: str, image: Image, wanted: dict[Target, set[Identity]]) -> None:
        """Add what an image of a table refers to, as far as it matters."""
        for step in self.steps.get(table, {}).values():
            identity = step.identity(image)
            if identity is not None:
                wanted.setdefault(step.target, set()).add(identity)

    def _unknown(self, wanted: Mapping[Target, set[Identity]]) -> dict[Target, set[Identity]]:
        unknown = {target: ids - self._state[target].keys() for target, ids in wanted.items()}
        return {target: identities for target, identities in unknown.items() if identities}

    def _as_of(
        self, target: Target, identity: Identity, place: Place, current: Image | None, unseen: Told
    ) -> Image | None:
        """``unseen`` is what the log tells up to the place that ``current`` may not show."""
        event = self._ahead.following(target, identity, place)
        if event is not None:
            return event.image
        if identity not in unseen.get(target, ()):
            if current is not None:
                return current
            if self._behind is None:  # it has gone before this reader began
                self._behind = self._told(self._log.floor, place if self._began is None else self._began)
            unseen = self._behind
        image, gone = unseen.get(target, {}).get(identity, (None, None))
        if gone is not None:
            self._gone[target].setdefault(identity, gone)
        return image

    # -- the log --------------------------------------------------------------------------------------------------

    def _scan(self, place: Place) -> None:
        """Read what the log holds behind the place by now."""
        if self._scanned is None:
            self._scanned = self._began = place
        self._scanned = max(self._scanned, place)
        for table, at, old, new in self._rows(self._scanned, FAR):
            self._scanned = at
            for target, identify in self.targets[table].items():
                was = None if old is None else identify(old)
                now = None if new is None else identify(new)
                if was is not None and old != new:
                    self._ahead.add(target, was, Event(at, old))
                if now is not None and now != was and (target not in self._lasting or was is not None):
                    self._ahead.add(target, now, Event(at, None))

    def _told(self, after: Place, until: Place) -> Told:
        """What became of the referenced records that the log tells of between two places."""
        told: Told = {}
        for table, _, old, new in self._rows(after, until):
            for target, identify in self.targets[table].items():
                by_identity = told.setdefault(target, {})
                if old is not None:
                    by_identity[identify(old)] = None, old
                if new is not None:
                    by_identity[identify(new)] = new, None
        return told

    def _rows(self, after: Place, until: Place) -> Iterable[tuple[str, Place, Image | None, Image | None]]:
        """The rows of the referenced tables between two places."""
        oids = {leaf.oid for table in self.targets for leaf in self._catalog.facts[table].leaves}
        for entry in self._log.find(oids, after, until):
            table = self._catalog.names[entry.relation.oid]
            old, new = self.images(table, entry)
            yield table, entry.place, old, new

    def images(self, table: str, entry: _pg_entries.Row) -> tuple[Image | None, Image | None]:
        """The images of a row in the order of the table's columns."""
        pick = self._pickers.get(entry.version)
        if pick is None:
            pick = pick_columns(self.columns[table], entry.relation, self._catalog.facts[table])
            self._pickers[entry.version] = pick
        old, new = entry.images()
        return None if old is None else pick(old), None if new is None else pick(new)

    # -- the tables -----------------------------------------------------------------------------------------------

    def _select(self, connection: Connection, target: Target, identities: set[Identity]) -> dict[Identity, Image]:
        table, to = target
        facts = self._catalog.facts[table]
        child, reference = self._children[target]
        columns = self.columns[table]
        asked = list(identities)
        tests = " AND ".join(
            equal_in_sql(self._catalog, (table, name), (child, own), f"t.{quote(name)}", f"k.k{number}")
            for number, (name, own) in enumerate(zip(to, reference.columns, strict=True))
        )
        chosen = ", ".join(facts.columns[name].shown(f"t.{quote(name)}") for name in columns)
        distinct, order = "", ""
        if not is_unique(self._catalog.schema.tables[table], to):
            distinct = "DISTINCT ON (k.i) "
            order = " ORDER BY " + ", ".join(["k.i", *(f"t.{quote(name)}" for name in facts.key)])
        statement = f"SELECT {distinct}k.i, {chosen} FROM {unnest(len(to))}, {facts.sql} AS t WHERE {tests}{order}"
        bound = [list(range(len(asked))), *(list(members) for members in zip(*asked, strict=True))]
        rows = connection.execute(statement.encode(), bound).fetchall()
        return {asked[int(number)]: tuple(image) for number, *image in rows}


def unnest(width: int) -> str:
    """Rows of a number and so many texts, bound as arrays."""
    arrays = ", ".join(["$1::int[]", *(f"${place + 2}::text[]" for place in range(width))])
    names = ", ".join(["i", *(f"k{place}" for place in range(width))])
    return f"unnest({arrays}) AS k ({names})"


def _identifier(
    places: Sequence[int], folders: Sequence[Callable[[str], str] | None]
) -> Callable[[Sequence[Any]], Identity]:
    pairs = list(zip(places, folders, strict=True))

    def identify(image: Sequence[Any]) -> Identity:
        cells = [(image[place], fold) for place, fold in pairs]
        return tuple([fold(cell) if fold and isinstance(cell, str) else cell for cell, fold in cells])

    return identify


# -- views -----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Trail:
    """The cells that are reached through one reference: where they are in the row, and what leads on from there."""

    step: Step
    cells: list[int] = field(default_factory=list)  # all of them, deeper ones included
    ends: list[tuple[int, int]] = field(default_factory=list)  # index in ``cells``, place in the record's image
    further: list[tuple[Trail, tuple[int, ...]]] = field(default_factory=list)  # with the indexes in ``cells``
    known: dict[Identity, tuple[Cell, ...]] = field(default_factory=dict)


class Sight:
    """One view over images: makes rows in natural form."""

    def __init__(self, catalog: Catalog, records: Records, view: View) -> None:
        self.view = view
        self._catalog = catalog
        self._records = records
        self._generation = -1
        self.trails = self._trails(view.table, [(index, path) for index, path in enumerate(view.paths)])
        self._flat = tuple(path[0] if len(path) == 1 else None for path in view.paths)
        columns = records.columns[view.table]
        self._make = picker(
            tuple(None if name is None else (columns.index(name), identity) for name in self._flat), False
        )

    def _trails(self, table: str, paths: Sequence[tuple[int, Path]]) -> list[Trail]:
        """How these paths, each with the row's cell that it leads to, are followed from a table."""
        trails: dict[str, list[tuple[int, Path]]] = {}
        for index, path in paths:
            if len(path) > 1:
                trails.setdefault(path[0], []).append((index, path[1:]))
        return [self._trail(self._records.steps[table][name], rest) for name, rest in trails.items()]

    def _trail(self, step: Step, paths: Sequence[tuple[int, Path]]) -> Trail:
        columns = self._records.columns[step.target[0]]
        trail = Trail(step, [index for index, _ in paths])
        trail.ends = [(i, columns.index(path[0])) for i, (_, path) in enumerate(paths) if len(path) == 1]
        trail.further = [
            (inner, tuple(trail.cells.index(cell) for cell in inner.cells))
            for inner in self._trails(step.target[0], paths)
        ]
        return trail

    def flat(self, relation: Relation, facts: Facts) -> Flat | None:
        """What makes rows of raw images, where no lookup is shown."""
        if self.trails:
            return None
        return Flat([name for name in self._flat if name is not None], relation, facts)

    def row(self, image: Image, becomes: Image | None = None, *, leaves: bool = False) -> Row:
        """The row of an image as of the reader's place.

        An image that turned into another one (``becomes``), or into nothing (``leaves``), tells a reference that it
        gave up even when its record has gone just before.
        """
        row = self._make(image)
        if not self.trails:
            return row
        if self._generation != self._records.generation:
            self._generation = self._records.generation
            for trail in self.trails:
                trail.known.clear()
        cells = list(row)
        for trail in self.trails:
            identity_ = trail.step.identity(image)
            gone = leaves or (becomes is not None and trail.step.identity(becomes) != identity_)
            if identity_ is None:
                found: tuple[Cell, ...] = self._nothing(trail, image)
            elif gone:
                found = self._resolve(trail, identity_, gone=True)
            else:
                known = trail.known.get(identity_)
                if known is None:
                    known = trail.known[identity_] = self._resolve(trail, identity_, gone=False)
                found = known
            for index, cell in zip(trail.cells, found, strict=True):
                cells[index] = cell
        return tuple(cells)

    @staticmethod
    def _nothing(trail: Trail, image: Image) -> tuple[Cell, ...]:
        """The cells of a reference that is null, or was not sent."""
        unknown = any(image[place] is ABSENT for place in trail.step.places)
        return (ABSENT if unknown else None,) * len(trail.cells)

    def _resolve(self, trail: Trail, identity_: Identity, *, gone: bool) -> tuple[Cell, ...]:
        image = self._records.image(trail.step.target, identity_, gone)
        if image is None:
            return (ABSENT,) * len(trail.cells)
        cells: list[Cell] = [None] * len(trail.cells)
        for index, place in trail.ends:
            cells[index] = image[place]
        for inner, indexes in trail.further:
            held = inner.step.identity(image)
            found = self._nothing(inner, image) if held is None else self._resolve(inner, held, gone=gone)
            for index, cell in zip(indexes, found, strict=True):
                cells[index] = cell
        return tuple(cells)
