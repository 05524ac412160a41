"""Which part of our own transactions comes back as a change of this side, and what they say of themselves.

The last thing that a transaction of ours writes is its *marker*, a message inside the transaction (so the log has it at
that commit, and only if it happens) with the link's prefix and this JSON:

    {"number": 7,              the number of the commit among ours in this database
     "seen": "F@1.2",          the position of the other side that this side contains from here on, or null
     "former": null,           the same of the commit before, for readers to whom that one was not sent
     "wrote": null}            what we have written to loud tables; null without any

A table is *loud* where somebody else can act in our transaction: triggers, rules, foreign keys, generated values.  Rows
of other tables are echo, all of them.  Of loud ones ``wrote`` tells every record that we wrote, in the order of the
work, so that the reader can hold what became of it against it; what differs is a change of this side:

    {"loud": ["item"],
     "records": [["item", null, ["1"], {"code": "a", "name": "Abc"}],    inserted: what tells it apart, the columns set
                 ["item", ["1"], ["1"], {"name": "x"}],                  updated: the key before and after
                 ["item", ["2"], null, {}]]}                             deleted
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from dualwrite.canonical import CastError, canonical
from dualwrite.connectors._pg_ledger import Written
from dualwrite.connectors._pg_schema import Catalog
from dualwrite.connectors._pg_wire import Cell, Image, Relation
from dualwrite.connectors._sql import needs
from dualwrite.model import Position, Value
from dualwrite.schema import Table, View

RowKey: TypeAlias = tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Wrote:
    """The loud tables, and what we wrote to them."""

    loud: frozenset[str]
    records: Sequence[Written]


@dataclass(frozen=True, slots=True)
class Marker:
    """What a transaction of ours says of itself."""

    number: int
    seen: Position | None
    former: Position | None = None
    wrote: Wrote | None = None

    def text(self) -> str:
        """As the message holds it."""
        wrote = self.wrote
        held = {
            "number": self.number,
            "seen": None if self.seen is None else str(self.seen),
            "former": None if self.former is None else str(self.former),
            "wrote": None if wrote is None else {"loud": sorted(wrote.loud), "records": [*map(_told, wrote.records)]},
        }
        return json.dumps(held, ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def parse(cls, text: str) -> Marker:
        """The inverse of ``text``."""
        held = json.loads(text)
        return cls(held["number"], _position(held["seen"]), _position(held["former"]), _wrote(held["wrote"]))


def _told(record: Written) -> list[Any]:
    return [record.table, record.before, record.after, dict(record.values)]


def _position(text: str | None) -> Position | None:
    return None if text is None else Position.parse(text)


def _wrote(held: dict[str, Any] | None) -> Wrote | None:
    if held is None:
        return None
    records = [Written(table, _key(before), _key(after), values) for table, before, after, values in held["records"]]
    return Wrote(frozenset(held["loud"]), records)


def _key(members: list[Value] | None) -> RowKey | None:
    return None if members is None else tuple(members)


def loud_tables(catalog: Catalog, views: Iterable[View]) -> frozenset[str]:
    """The tables of these views where somebody else can act when we write by the views."""
    views = tuple(views)
    written = {view.table for view in views}
    reached, pending = set(written), list(written)
    children: set[str] = set()
    while pending:
        for facts, key in catalog.pointing_at(pending.pop()):
            if key.acts:
                children.add(facts.name)
                if facts.name not in reached:
                    reached.add(facts.name)
                    pending.append(facts.name)
    looked_at = needs(catalog.schema, views)
    if any(catalog.facts[name].triggers or catalog.facts[name].rules for name in reached):
        return frozenset(looked_at)  # they may do anything
    made = {name for name in written if _makes_values(catalog, name, views)}
    return frozenset(looked_at.keys() & (children | made))


def _makes_values(catalog: Catalog, table: str, views: Iterable[View]) -> bool:
    """Does the database fill columns that a view shows, and we do not write?"""
    filled = {column.name for column in catalog.schema.tables[table].columns if column.has_default or column.read_only}
    return any(
        len(path) == 1 and path[0] in filled and index not in view.written
        for view in views
        if view.table == table
        for index, path in enumerate(view.paths)
    )


# -- reading ---------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Intent:
    """What we meant a record to be: gone, or with these values; ``fresh``: made by us, with nothing else."""

    values: dict[str, Value] = field(default_factory=dict)
    gone: bool = False
    fresh: bool = False

    def image(self, table: Table, relation: Relation, before: Image | None, after: Image | None) -> Image | None:
        """The record as our writes alone would have left it; ``before`` and ``after`` are the real images."""
        if self.gone:
            return None
        base: Image = before if before is not None and not self.fresh else (None,) * len(relation.columns)
        cells: list[Cell] = []
        for index, column in enumerate(relation.columns):
            real = None if after is None else after[index]
            if column.name in self.values:
                cells.append(_same_or(self.values[column.name], real, table, column.name))
            else:
                cells.append(base[index])
        return tuple(cells)


def _same_or(value: Value, real: Cell, table: Table, name: str) -> Cell:
    """What we wrote, in the spelling of what is there if both are the same value."""
    column = table.column(name)
    if value == real or value is None or not isinstance(real, str) or column is None:
        return value
    try:
        spell = canonical(column.type)
        return real if spell(value) == spell(real) else value
    except CastError:
        return value


class Intents:
    """What a marker says that was written, by table and what tells a record apart."""

    def __init__(self, records: Iterable[Written]) -> None:
        self._by_key: dict[tuple[str, RowKey], Intent] = {}
        for record in records:
            self._add(record)

    def _add(self, record: Written) -> None:
        known = None if record.before is None else self._by_key.get((record.table, record.before))
        if record.after is None:
            assert record.before is not None
            self._by_key[record.table, record.before] = Intent(gone=True)
            return
        intent = known if known is not None and not known.gone else Intent(fresh=record.before is None)
        intent.values.update(record.values)
        self._by_key[record.table, record.after] = intent
        if record.before is not None:
            self._by_key[record.table, record.before] = intent

    def find(self, table: str, keys: Iterable[RowKey]) -> Intent | None:
        """What we meant the record with one of these keys to be; None where we did not write it."""
        found = (self._by_key.get((table, key)) for key in keys)
        return next((intent for intent in found if intent is not None), None)
