"""Lookups that may lead to one of several tables, for every connector alike.

A connector knows plain references only.  ``Polymorphic`` stands before one: it asks it for what each of the tables
holds, makes one cell of it, and finds out, all rows of a write at once, in which table the record is that a row names.
Views without such lookups pass as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from itertools import compress
from typing import TypeAlias

from dualwrite.connectors.base import (
    NO_LIMIT,
    Capabilities,
    Connector,
    Feed,
    Installation,
    Remembered,
    Snapshot,
    Transaction,
)
from dualwrite.errors import Problem
from dualwrite.expression import paths as filter_paths
from dualwrite.filters import compile_filter
from dualwrite.model import (
    ABSENT,
    Batch,
    Cell,
    Change,
    Contested,
    Key,
    MissingParent,
    Outcome,
    Path,
    Position,
    Rejected,
    Row,
    Value,
    Write,
    show_key,
)
from dualwrite.schema import Alternatives, Column, Lookup, Schema, View
from dualwrite.schema import Polymorphic as PolymorphicLookup

Fetch: TypeAlias = Callable[[View, Sequence[Key]], dict[Key, list[Row]]]


@dataclass(frozen=True, slots=True)
class _Parts:
    """A polymorphic cell in the rows of the connector: a cell per table, and the one that says which table counts.

    ``by_type`` tells which, by what stands there in small letters.
    """

    cells: tuple[int, ...]
    by_type: Mapping[str, int]
    type: int | None

    def cell(self, row: Row) -> Cell:
        """What the lookup leads to; ABSENT where it leads nowhere, or to a table that the path does not name."""
        led = [row[index] for index in self.cells]
        if self.type is not None:
            return self._typed(row[self.type], led)
        found = [cell for cell in led if cell is not None]
        return (found[0] if found else None) if len(found) < 2 else ABSENT

    def _typed(self, kind: Cell, led: Sequence[Cell]) -> Cell:
        if kind is None or kind is ABSENT or not kind:
            return None if all(cell is None for cell in led) else ABSENT
        branch = self.by_type.get(kind.casefold())
        if branch is not None:
            return led[branch]
        return None if all(cell is None for cell in led) else ABSENT


@dataclass(frozen=True, slots=True)
class _Choice:
    """How a polymorphic lookup is written: its cells in the map's rows, and per table what becomes of them.

    ``given`` are the cells of the connector's rows that hold each table's part, ``type`` the one of the column that
    says which table it is, with its ``values``; ``ids`` are those of the columns that hold the id then.
    """

    alternatives: Alternatives
    tables: tuple[str, ...]
    given: tuple[tuple[int, ...], ...]
    values: tuple[str, ...]
    type: int | None
    ids: tuple[int, ...]

    def nothing(self) -> dict[int, Value]:
        """What a row says that refers to nothing."""
        if self.type is None:
            return {index: None for cells in self.given for index in cells}
        return dict.fromkeys((self.type, *self.ids))

    def leading(self, branch: int, cells: Sequence[Value]) -> dict[int, Value]:
        """What a row says that refers to a record of one table."""
        said: dict[int, Value] = {} if self.type is not None else self.nothing()
        said |= dict(zip(self.given[branch], cells, strict=True))
        return said if self.type is None else {**said, self.type: self.values[branch]}


_Said: TypeAlias = dict[int, Value] | MissingParent | Rejected


class _Prism:
    """A view as a map asks for it, and as the connector is asked: ``inner``."""

    def __init__(self, schema: Schema, view: View) -> None:
        self.view = view
        self._schema = schema
        self._places: dict[Path, int] = {}
        self._cells = [self._parts(path) for path in view.paths]
        plain = {i: cell for i, cell in enumerate(self._cells) if isinstance(cell, int)}
        written = set(view.written)
        self.choices = [self._choice(each) for each in view.alternatives if written.issuperset(each.own)]
        led = [lookup for choice in self.choices for lookup in self._lookups(choice)]
        said = [i for choice in self.choices for i in choice.nothing()] + [i for lookup in led for i in lookup.own]
        filtered = not any(schema.branches(view.table, path) for path in filter_paths(view.filter))
        self._passes = None if filtered else compile_filter(view.filter, self._column)
        self._plain = tuple(plain.items())
        self.inner = replace(
            view,
            paths=tuple(self._places),
            key=tuple(plain[index] for index in view.key),
            lookups=(*(self._moved(lookup, plain) for lookup in view.lookups), *led),
            filter=view.filter if filtered else None,
            written=tuple(sorted({*said, *(plain[index] for index in written if index in plain)})),
            alternatives=(),
        )

    def _place(self, path: Path) -> int:
        return self._places.setdefault(path, len(self._places))

    def _parts(self, path: Path) -> int | _Parts:
        branches = self._schema.branches(self.view.table, path)
        if not branches:
            return self._place(path)
        lookup = self._lookup(path)
        values = {branch.reference: branch.value for branch in lookup.branches}
        by_type = {values[branch[len(path) - 2]].casefold(): number for number, branch in enumerate(branches)}
        where = None if lookup.type is None else self._place((*path[:-2], lookup.type))
        return _Parts(tuple(self._place(branch) for branch in branches), by_type, where)

    def _lookup(self, path: Path) -> PolymorphicLookup:
        table = self._schema.tables[self.view.table]
        for step in path[:-2]:
            reference = table.reference(step)
            assert reference is not None, "the map was checked"
            table = self._schema.tables[reference.table]
        lookup = table.polymorphic_lookup(path[-2])
        assert lookup is not None, "the map was checked"
        return lookup

    def _choice(self, alternatives: Alternatives) -> _Choice:
        table = self._schema.tables[self.view.table]
        lookup = self._lookup(self.view.paths[alternatives.own[0]])
        references = [table.reference(each.reference) for each in alternatives.lookups]
        values = {branch.reference: branch.value for branch in lookup.branches}
        ids = [name for each in references if each is not None for name in each.columns] if lookup.type else []
        return _Choice(
            alternatives,
            tuple(each.table for each in references if each is not None),
            tuple(self._own(each) for each in alternatives.lookups),
            tuple(values[each.reference] for each in alternatives.lookups),
            self._place((lookup.type,)) if lookup.type else None,
            tuple(dict.fromkeys(self._place((name,)) for name in ids)),
        )

    def _own(self, lookup: Lookup) -> tuple[int, ...]:
        """The connector's cells for the lookup's own cells, in their order."""
        members = {index: member for member, index in lookup.parts}
        return tuple(self._place((lookup.reference, *members[index])) for index in lookup.own)

    def _lookups(self, choice: _Choice) -> Iterator[Lookup]:
        for lookup, own in zip(choice.alternatives.lookups, choice.given, strict=True):
            moved = dict(zip(lookup.own, own, strict=True))
            shared = {index: cell for index, cell in enumerate(self._cells) if isinstance(cell, int)}
            parts = tuple((member, moved[i] if i in moved else shared[i]) for member, i in lookup.parts)
            yield Lookup(lookup.reference, parts, own)

    @staticmethod
    def _moved(lookup: Lookup, plain: Mapping[int, int]) -> Lookup:
        parts = tuple((member, plain[index]) for member, index in lookup.parts)
        return Lookup(lookup.reference, parts, tuple(plain[index] for index in lookup.own))

    def _column(self, path: Path) -> tuple[int, Column]:
        column = self._schema.resolve(self.view.table, path)
        assert column is not None, "the map was checked"
        return self.view.paths.index(path), column

    # -- reading --------------------------------------------------------------------------------------------------

    def row(self, row: Row) -> Row:
        """A row of the connector as the map asks for it."""
        return tuple([row[cell] if isinstance(cell, int) else cell.cell(row) for cell in self._cells])

    def passing(self, rows: Sequence[Row]) -> list[Row]:
        """The rows of a snapshot, those that pass the filter."""
        seen = list(map(self.row, rows))
        return seen if self._passes is None else list(compress(seen, map(self._passes, seen)))

    def change(self, change: Change) -> Change | None:
        """A change as the map asks for it; None where it does not see any."""
        before = None if change.before is None else self.row(change.before)
        after = None if change.after is None else self.row(change.after)
        return None if before == after else change.with_images(before, after)

    # -- writing --------------------------------------------------------------------------------------------------

    def blank(self) -> list[Cell]:
        """A row of the connector that says nothing."""
        return [ABSENT] * len(self._places)

    def spread(self, row: Row, said: Sequence[Mapping[int, Value]]) -> Row:
        """A row of the map as the connector takes it."""
        cells = self.blank()
        for index, place in self._plain:
            cells[place] = row[index]
        for each in said:
            for place, value in each.items():
                cells[place] = value
        return tuple(cells)

    def asked(self, fetch: Fetch, writes: Sequence[Write]) -> list[Write | MissingParent | Rejected]:
        """Writes as the connector takes them, else what hinders one; all polymorphic lookups are found at once.

        What a record is expected to lead to is told where one record is meant by it: what is not there leads nowhere.
        """
        records = [(write.key, write.row) for write in writes]
        expected = [(write.key, write.expect) for write in writes]
        said = self._said(fetch, [*records, *expected])
        return [
            trouble or Write(write.key, self._expected(write.expect, believed), self._spread(write.row, told))
            for write, told, believed in zip(writes, said, said[len(writes) :], strict=False)
            for trouble in [next((each for each in told if isinstance(each, MissingParent | Rejected)), None)]
        ]

    def _spread(self, row: Row | None, said: Sequence[_Said | None]) -> Row | None:
        return None if row is None else self.spread(row, [each for each in said if isinstance(each, dict)])

    def _expected(self, row: Row | None, said: Sequence[_Said | None]) -> Row | None:
        """What a record must hold; one that refers to nothing may still have a type."""
        believed = [each for each in said if isinstance(each, dict)]
        kinds = {choice.type for choice in self.choices} - {None}
        held = [{p: value for p, value in each.items() if p not in kinds or value is not None} for each in believed]
        return None if row is None else self.spread(row, held)

    def _said(self, fetch: Fetch, rows: Sequence[tuple[Key, Row | None]]) -> list[list[_Said | None]]:
        """What each row says of each polymorphic lookup; None where it does not say anything."""
        found = [self._chosen(choice, fetch, rows) for choice in self.choices]
        return [[said.get(number) for said in found] for number in range(len(rows))]

    def _chosen(self, choice: _Choice, fetch: Fetch, rows: Sequence[tuple[Key, Row | None]]) -> dict[int, _Said]:
        said: dict[int, _Said] = {}
        asked: list[int] = []
        for number, (_, row) in enumerate(rows):
            own = [ABSENT] if row is None else [row[index] for index in choice.alternatives.own]
            if ABSENT in own:
                continue
            if any(own):
                asked.append(number)
            else:
                said[number] = choice.nothing()
        whole = self._completed(choice, fetch, [rows[number] for number in asked])
        holders = [self._holders(lookup, table, fetch, whole) for lookup, table in self._targets(choice)]
        for place, number in enumerate(asked):
            counts = [counted[place] for counted in holders]
            said[number] = _decided(choice, whole[place], counts)
        return said

    @staticmethod
    def _targets(choice: _Choice) -> Iterator[tuple[Lookup, str]]:
        return zip(choice.alternatives.lookups, choice.tables, strict=True)

    def _completed(self, choice: _Choice, fetch: Fetch, records: Sequence[tuple[Key, Row | None]]) -> list[Row]:
        """The rows; what they share with their lookups, such as the company, from the record where they are silent."""
        shared = {i for lookup in choice.alternatives.lookups for _, i in lookup.parts} - set(choice.alternatives.own)
        keyed = {index: member for member, index in enumerate(self.view.key)}
        silent = [key for key, row in records if row and any(row[i] is ABSENT and i not in keyed for i in shared)]
        there = fetch(self.inner, list(dict.fromkeys(silent))) if silent else {}
        rows: list[Row] = []
        for key, row in records:
            assert row is not None
            cells = list(row)
            found = there.get(key, ())
            for index in shared:
                if cells[index] is ABSENT:
                    known = self.row(found[0])[index] if found else None
                    cells[index] = key[keyed[index]] if index in keyed else known
            rows.append(tuple(cells))
        return rows

    @staticmethod
    def _holders(lookup: Lookup, table: str, fetch: Fetch, rows: Sequence[Row]) -> list[int]:
        """How many records of a table each of the rows names."""
        members = tuple(member for member, _ in lookup.parts)
        keys = [_key(lookup, row) for row in rows]
        view = View(lookup.reference, table, members, tuple(range(len(members))))
        found = fetch(view, list(dict.fromkeys(keys))) if keys else {}
        return [len(found.get(key, ())) for key in keys]


def _key(lookup: Lookup, row: Row) -> Key:
    return tuple([None if (cell := row[index]) is ABSENT else cell for _, index in lookup.parts])


def _decided(choice: _Choice, row: Row, counts: Sequence[int]) -> _Said:
    """What a row says, by how many records of each table it names: it must be one in all."""
    found = [branch for branch, count in enumerate(counts) if count]
    alternatives = choice.alternatives
    if not found:
        key = _key(alternatives.lookups[0], row)
        return MissingParent(alternatives.name, choice.tables[0], key, choice.tables[1:])
    if sum(counts) > 1:
        where = " and ".join(dict.fromkeys(choice.tables[branch] for branch in found))
        shown = show_key(tuple(None if (cell := row[i]) is ABSENT else cell for i in alternatives.own))
        return Rejected("ambiguous", f"{sum(counts)} records of {where} hold the key {shown}")
    cells = [None if (cell := row[index]) is ABSENT else cell for index in alternatives.own]
    return choice.leading(found[0], cells)


class Polymorphic:
    """A connector whose views may hold polymorphic lookups."""

    def __init__(self, connector: Connector) -> None:
        """Stand before a connector."""
        self._connector = connector
        self._prisms: dict[View, _Prism | None] = {}
        self._schema: Schema | None = None

    @property
    def capabilities(self) -> Capabilities:
        """See ``Connector``."""
        return self._connector.capabilities

    def identity(self) -> str:
        """See ``Connector``."""
        return self._connector.identity()

    def installation(self) -> Installation:
        """See ``Connector``."""
        return self._connector.installation()

    def schema(self) -> Schema:
        """See ``Connector``."""
        found = self._connector.schema()
        if found != self._schema:
            self._schema, self._prisms = found, {}
        return found

    def health(self, views: Sequence[View]) -> list[Problem]:
        """See ``Connector``."""
        return self._connector.health(self._inner(views))

    def install(self, views: Sequence[View]) -> None:
        """See ``Connector``."""
        self._connector.install(self._inner(views))

    def uninstall(self) -> None:
        """See ``Connector``."""
        self._connector.uninstall()

    def by_hand(self) -> str:
        """See ``Connector``."""
        return self._connector.by_hand()

    @contextmanager
    def snapshot(self, view: View, *, placed: bool = True) -> Iterator[Snapshot]:
        """See ``Connector``."""
        prism = self.prism(view)
        if prism is None:
            with self._connector.snapshot(view, placed=placed) as snapshot:
                yield snapshot
        else:
            with self._connector.snapshot(prism.inner, placed=placed) as snapshot:
                yield _Snapshot(snapshot, prism)

    def end(self) -> Position:
        """See ``Connector``."""
        return self._connector.end()

    def feed(self, views: Sequence[View], after: Position | None) -> Feed:
        """See ``Connector``."""
        feed = self._connector.feed(self._inner(views), after)
        prisms = self._by_name(views)
        return _Feed(feed, prisms) if prisms else feed

    def acknowledge(self, position: Position) -> None:
        """See ``Connector``."""
        self._connector.acknowledge(position)

    def retained(self) -> int:
        """See ``Connector``."""
        return self._connector.retained()

    def confirmed(self) -> int:
        """See ``Connector``."""
        return self._connector.confirmed()

    def let_go(self) -> Position | None:
        """See ``Connector``."""
        return self._connector.let_go()

    def fetch(self, view: View, keys: Sequence[Key]) -> dict[Key, list[Row]]:
        """See ``Connector``."""
        return fetched(self._connector.fetch, self.prism(view), view, keys)

    def transaction(self, stream: str, views: Sequence[View] = (), known: Position | None = None) -> Transaction:
        """See ``Connector``."""
        return _Transaction(self._connector.transaction(stream, self._inner(views), known), self, self._by_name(views))

    def edit(self, view: View, write: Write) -> Outcome:
        """See ``Connector``."""
        prism, connector = self.prism(view), self._connector
        if prism is None:
            return connector.edit(view, write)

        def edit(inner: View, writes: Sequence[Write]) -> list[Outcome]:
            return [connector.edit(inner, each) for each in writes]

        return _written(prism, connector.fetch, edit, [write])[0]

    def positions(self) -> Mapping[str, tuple[Position, int]]:
        """See ``Connector``."""
        return self._connector.positions()

    def remembered(self, kind: str) -> Iterator[Remembered]:
        """See ``Connector``."""
        return self._connector.remembered(kind)

    def clock(self) -> float:
        """See ``Connector``."""
        return self._connector.clock()

    def close(self) -> None:
        """See ``Connector``."""
        self._connector.close()

    def prism(self, view: View) -> _Prism | None:
        """How a view is asked for and written; None where it has no polymorphic lookup."""
        if view not in self._prisms:
            schema = self._schema or self.schema()
            is_plain = not any(schema.branches(view.table, path) for path in view.paths)
            self._prisms[view] = None if is_plain else _Prism(schema, view)
        return self._prisms[view]

    def _inner(self, views: Sequence[View]) -> list[View]:
        return [view if (prism := self.prism(view)) is None else prism.inner for view in views]

    def _by_name(self, views: Sequence[View]) -> dict[str, _Prism]:
        return {view.name: prism for view in views if (prism := self.prism(view)) is not None}


def fetched(fetch: Fetch, prism: _Prism | None, view: View, keys: Sequence[Key]) -> dict[Key, list[Row]]:
    """Records as the map asks for them."""
    if prism is None:
        return fetch(view, keys)
    return {key: list(map(prism.row, rows)) for key, rows in fetch(prism.inner, keys).items()}


def _written(
    prism: _Prism,
    fetch: Fetch,
    write: Callable[[View, Sequence[Write]], list[Outcome]],
    writes: Sequence[Write],
) -> list[Outcome]:
    """What the system says to writes of records as the map has them."""
    asked = prism.asked(fetch, writes)
    outcomes: dict[int, Outcome] = {n: each for n, each in enumerate(asked) if not isinstance(each, Write)}
    ready = {n: each for n, each in enumerate(asked) if isinstance(each, Write)}
    done = write(prism.inner, list(ready.values())) if ready else []
    for number, outcome in zip(ready, done, strict=True):
        current = outcome.current if isinstance(outcome, Contested) else None
        outcomes[number] = outcome if current is None else Contested(prism.row(current))
    return [outcomes[number] for number in range(len(writes))]


def _seen(batch: Batch, prisms: Mapping[str, _Prism]) -> Batch:
    seen = [prisms[c.view].change(c) if c.view in prisms else c for c in batch.changes]
    return replace(batch, changes=tuple(change for change in seen if change is not None))


class _Snapshot:
    """See ``Snapshot``."""

    def __init__(self, snapshot: Snapshot, prism: _Prism) -> None:
        self._snapshot = snapshot
        self._prism = prism

    @property
    def boundary(self) -> Position:
        """See ``Snapshot``."""
        return self._snapshot.boundary

    def blocks(self) -> Iterator[list[Row]]:
        """See ``Snapshot``."""
        return filter(None, map(self._prism.passing, self._snapshot.blocks()))

    def fetch(self, keys: Sequence[Key]) -> dict[Key, list[Row]]:
        """See ``Snapshot``."""
        return {key: list(map(self._prism.row, rows)) for key, rows in self._snapshot.fetch(keys).items()}


class _Feed:
    """See ``Feed``."""

    def __init__(self, feed: Feed, prisms: Mapping[str, _Prism]) -> None:
        self._feed = feed
        self._prisms = prisms

    def read(self, limit: int, timeout: float) -> Batch:
        """See ``Feed``."""
        return _seen(self._feed.read(limit, timeout), self._prisms)

    def close(self) -> None:
        """See ``Feed``."""
        self._feed.close()


class _Transaction(AbstractContextManager["_Transaction"]):
    """See ``Transaction``."""

    def __init__(self, transaction: Transaction, connector: Polymorphic, prisms: Mapping[str, _Prism]) -> None:
        self._transaction = transaction
        self._connector = connector
        self._prisms = prisms

    @property
    def number(self) -> int:
        """See ``Transaction``."""
        return self._transaction.number

    def position(self) -> Position | None:
        """See ``Transaction``."""
        return self._transaction.position()

    def since(self, after: Position, limit: int = NO_LIMIT) -> Batch:
        """See ``Transaction``."""
        batch = self._transaction.since(after, limit)
        found, read = _seen(batch, self._prisms), len(batch.changes)
        while read >= limit and len(found.changes) < limit:  # some were none for the maps
            batch = self._transaction.since(batch.position, limit)
            seen, read = _seen(batch, self._prisms), len(batch.changes)
            found = replace(seen, changes=(*found.changes, *seen.changes), halts=(*found.halts, *seen.halts))
        return found

    def may_be_overtaken(self) -> bool:
        """See ``Transaction``."""
        return self._transaction.may_be_overtaken()

    def fetch(self, view: View, keys: Sequence[Key]) -> dict[Key, list[Row]]:
        """See ``Transaction``."""
        return fetched(self._transaction.fetch, self._connector.prism(view), view, keys)

    def write(self, view: View, writes: Sequence[Write]) -> list[Outcome]:
        """See ``Transaction``."""
        prism, transaction = self._connector.prism(view), self._transaction
        if prism is None:
            return transaction.write(view, writes)
        return _written(prism, transaction.fetch, transaction.write, writes)

    def insert(self, view: View, rows: Sequence[Row]) -> bool:
        """See ``Transaction``."""
        prism = self._connector.prism(view)
        if prism is None:
            return self._transaction.insert(view, rows)
        writes = [Write(view.natural_key(row), None, row) for row in rows]
        asked = prism.asked(self._transaction.fetch, writes)
        spread = [each.row for each in asked if isinstance(each, Write) and each.row is not None]
        return len(spread) == len(rows) and self._transaction.insert(prism.inner, spread)

    def remember(self, kind: str, view: str, key: str, value: str | None) -> None:
        """See ``Transaction``."""
        self._transaction.remember(kind, view, key, value)

    def commit(self, position: Position | None) -> None:
        """See ``Transaction``."""
        self._transaction.commit(position)

    def __enter__(self) -> _Transaction:
        self._transaction.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self._transaction.__exit__(*exc)
