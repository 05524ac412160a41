"""The example system of the contract suite: its tables, the views on them, and what a system under test provides."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from time import monotonic
from typing import Literal, Protocol

import pytest

from dualwrite.connectors.base import Connector, Feed, Transaction
from dualwrite.connectors.polymorphic import Polymorphic as WithPolymorphic
from dualwrite.declared import Declared, DeclaredTable
from dualwrite.model import Batch, Cell, Change, Key, Outcome, Path, Position, Row, Value, Write
from dualwrite.schema import (
    Alternatives,
    Branch,
    Column,
    ColumnType,
    Lookup,
    Polymorphic,
    Reference,
    Schema,
    Table,
    TypeName,
    View,
)

PATIENCE = 20.0
"""Seconds after which something that ought to happen counts as not happening."""

FEATURES = {
    "length": "text that is longer than its column is refused",
    "dangling": "users can leave a reference that leads to no record",
    "restrict": "the link cannot delete a company while an item refers to it",
    "set null": "deleting a group by the link clears the references of its items",
    "trigger": "add_trigger works",
    "links": "several links can be installed at once",
}
"""What a system may lack; it names what it has, and the tests of the others are skipped."""


class ExampleUser(Protocol):
    """One user's transaction; values are canonical text."""

    def insert(self, table: str, values: Mapping[str, Value]) -> Mapping[str, Value]:
        """Add a record; returns it with its generated id."""
        ...

    def update(self, table: str, match: Mapping[str, Value], values: Mapping[str, Value]) -> int:
        """Set columns of all records that hold the values of ``match``; returns how many."""
        ...

    def delete(self, table: str, match: Mapping[str, Value]) -> int:
        """Delete all records that hold the values of ``match``; returns how many."""
        ...

    def rows(self, table: str, match: Mapping[str, Value] | None = None) -> Sequence[Mapping[str, Value]]:
        """All records, or those that hold the values of ``match``."""
        ...


class System(Protocol):
    """A fresh, empty system with the tables of ``SCHEMA``, one for each test."""

    features: frozenset[str]

    def connector(self, link: str = "contract") -> Connector:
        """A new connector to the same system, as after a restart, with ``DECLARED`` laid over its schema."""
        ...

    def user(self) -> AbstractContextManager[ExampleUser]:
        """A user's transaction: committed at the end, rolled back when anything is raised.  Usable in any thread."""
        ...

    def add_trigger(self) -> None:
        """Let the application keep ``item.name`` in capitals, on insert and update, whoever writes it."""
        ...

    def crash(self, connector: Connector) -> None:
        """Let the process that used the connector die: nothing is closed, and its connections break."""
        ...

    def traces(self) -> Sequence[str]:
        """The names of whatever links have left in the system."""
        ...


def _column(name: str, kind: TypeName = TypeName.TEXT, **limits: int) -> Column:
    return Column(name, ColumnType(kind, **limits))


def _required(name: str, kind: TypeName = TypeName.TEXT, **limits: int) -> Column:
    return Column(name, ColumnType(kind, **limits), nullable=False)


_ID = Column("id", ColumnType(TypeName.INTEGER, bits=64), nullable=False, has_default=True)


def _points_to(table: str, name: str | None = None) -> Reference:
    return Reference(name or table, (name or table,), table, ("id",))


def _link(name: str) -> Column:
    return _column(name, TypeName.INTEGER, bits=64)


COMPANY = Table(
    "company", (_ID, _required("code"), _column("title")), primary_key=("id",), uniques=(("id",), ("code",))
)
GRP = Table(
    "grp",
    (_ID, _required("name"), _link("company")),
    primary_key=("id",),
    uniques=(("id",), ("name", "company")),
    references=(_points_to("company"),),
)
ITEM = Table(
    "item",
    (
        _ID,
        _required("code"),
        _link("company"),
        _link("grp"),
        _link("parent"),
        _required("name", length=20),
        _column("amount", TypeName.NUMERIC, precision=12, scale=2),
        _column("active", TypeName.BOOLEAN),
        _column("day", TypeName.DATE),
        _column("note"),
    ),
    primary_key=("id",),
    uniques=(("id",), ("code", "company")),
    references=(_points_to("company"), _points_to("grp"), _points_to("item", "parent")),
)
FLAT = Table(
    "flat",
    (_required("code"), _column("grp"), _column("tag"), _column("points", TypeName.INTEGER, bits=64)),
    primary_key=("code",),
    uniques=(("code",), ("tag",)),
)
LIST = Table(
    "list",
    (_required("company"), _required("name")),
    primary_key=("company", "name"),
    uniques=(("company", "name"),),
)
PRICE = Table(
    "price",
    (
        _required("company"),
        _required("item"),
        _column("list"),
        _column("value", TypeName.NUMERIC, precision=12, scale=2),
    ),
    primary_key=("company", "item"),
    uniques=(("company", "item"),),
    references=(Reference("company_list", ("company", "list"), "list", ("company", "name")),),
)
KINDS = Table(
    "kinds",
    (
        _required("code"),
        _column("text"),
        _column("integer", TypeName.INTEGER, bits=64),
        _column("numeric", TypeName.NUMERIC, precision=15, scale=4),
        _column("float", TypeName.FLOAT),
        _column("boolean", TypeName.BOOLEAN),
        _column("date", TypeName.DATE),
        _column("time", TypeName.TIME),
        _column("timestamp", TypeName.TIMESTAMP),
        _column("timestamptz", TypeName.TIMESTAMPTZ),
        _column("uuid", TypeName.UUID),
        _column("bytes", TypeName.BYTES),
        _column("json", TypeName.JSON),
    ),
    primary_key=("code",),
    uniques=(("code",),),
)
_BY_TYPE = (Branch("grp", "subject.grp", "G"), Branch("item", "subject.item", "I"))
CALL = Table(
    "call",
    (
        _ID,
        _required("code"),
        _link("company"),
        _link("subject_id"),
        _column("subject_type"),
        _link("owner_grp"),
        _link("owner_item"),
        _column("note"),
    ),
    primary_key=("id",),
    uniques=(("id",), ("code", "company")),
    references=(
        _points_to("company"),
        _points_to("grp", "owner_grp"),
        _points_to("item", "owner_item"),
        Reference("subject.grp", ("subject_id",), "grp", ("id",)),
        Reference("subject.item", ("subject_id",), "item", ("id",)),
        Reference("owner.grp", ("owner_grp",), "grp", ("id",)),
        Reference("owner.item", ("owner_item",), "item", ("id",)),
    ),
    polymorphic=(
        Polymorphic("subject", _BY_TYPE, "subject_type"),
        Polymorphic("owner", (Branch("grp", "owner.grp", "grp"), Branch("item", "owner.item", "item"))),
    ),
)
SCHEMA = Schema({table.name: table for table in (COMPANY, GRP, ITEM, FLAT, LIST, PRICE, KINDS, CALL)})
"""The tables that the system holds.  A reference bears the names of its columns, joined by ``_``."""

LED = frozenset(branch.reference for lookup in CALL.polymorphic for branch in lookup.branches)
DECLARED = Declared(
    {
        "call": DeclaredTable(
            "call",
            references=tuple(reference for reference in CALL.references if reference.name in LED),
            polymorphic=CALL.polymorphic,
        )
    }
)
"""What no database says of itself, to be laid over what it says."""

ACTIONS: Mapping[tuple[str, str], Literal["restrict", "set null"]] = {
    ("grp", "company"): "restrict",
    ("item", "company"): "restrict",
    ("item", "grp"): "set null",
    ("item", "parent"): "restrict",
    ("price", "company_list"): "restrict",
    ("call", "company"): "restrict",
    ("call", "owner_grp"): "set null",
    ("call", "owner_item"): "set null",
}
"""What deleting a record does to those that refer to it, where the system enforces references."""

_TYPES = {
    TypeName.TEXT: "VARCHAR",
    TypeName.INTEGER: "BIGINT",
    TypeName.FLOAT: "DOUBLE PRECISION",
    TypeName.BYTES: "BYTEA",
}


def create_sql(
    schema: Schema,
    *,
    identity: str = "INTEGER",
    types: Mapping[TypeName, str] | None = None,
    actions: Mapping[tuple[str, str], str] = ACTIONS,
) -> list[str]:
    """``CREATE TABLE`` for each table of a schema, in its order; lengths of texts become checks.

    ``identity`` is the type of columns that generate their values, ``types`` replaces names of types, ``actions``
    says what ``ON DELETE`` does per (table, reference).
    """
    spelled = _TYPES | dict(types or {})
    return [_create_table(table, identity, spelled, actions) for table in schema.tables.values()]


def quote(name: str) -> str:
    """An identifier as SQL."""
    return '"' + name.replace('"', '""') + '"'


def _create_table(
    table: Table, identity: str, types: Mapping[TypeName, str], actions: Mapping[tuple[str, str], str]
) -> str:
    lines = [_create_column(column, identity, types) for column in table.columns]
    lines += [f"PRIMARY KEY ({_names(table.primary_key)})"] if table.primary_key else []
    lines += [f"UNIQUE ({_names(columns)})" for columns in table.uniques if columns != table.primary_key]
    for column in table.columns:
        if column.type.name is TypeName.TEXT and column.type.length:
            lines.append(f"CHECK (length({quote(column.name)}) <= {column.type.length})")
    for reference in table.references:
        if reference.name in LED:
            continue  # no database knows such lookups
        action = actions.get((table.name, reference.name), "no action")
        target = f"{quote(reference.table)} ({_names(reference.to)})"
        lines.append(f"FOREIGN KEY ({_names(reference.columns)}) REFERENCES {target} ON DELETE {action.upper()}")
    return f"CREATE TABLE {quote(table.name)} (\n  " + ",\n  ".join(lines) + "\n)"


def _create_column(column: Column, identity: str, types: Mapping[TypeName, str]) -> str:
    limits = [limit for limit in (column.type.length, column.type.precision, column.type.scale) if limit is not None]
    bounds = f"({','.join(map(str, limits))})" if limits else ""
    kind = identity if column.has_default else types.get(column.type.name, column.type.name.value.upper()) + bounds
    return f"{quote(column.name)} {kind}{'' if column.nullable else ' NOT NULL'}"


def _names(columns: Sequence[str]) -> str:
    return ", ".join(map(quote, columns))


def _view(name: str, table: Table, paths: Sequence[Path], key: Sequence[int], lookups: Sequence[Lookup] = ()) -> View:
    return View(name, table.name, tuple(paths), tuple(key), tuple(lookups), written=tuple(range(len(paths))))


_TO_COMPANY = Lookup("company", ((("code",), 0),), (0,))
COMPANIES = _view("companies", COMPANY, [("code",), ("title",)], [0])
GROUPS = _view("groups", GRP, [("company", "code"), ("name",)], [0, 1], [_TO_COMPANY])
ITEMS = _view(
    "items",
    ITEM,
    [
        ("company", "code"),
        ("code",),
        ("grp", "name"),
        ("parent", "code"),
        ("name",),
        ("amount",),
        ("active",),
        ("day",),
        ("note",),
    ],
    [0, 1],
    [
        _TO_COMPANY,
        Lookup("grp", ((("name",), 2), (("company", "code"), 0)), (2,)),
        Lookup("parent", ((("code",), 3), (("company", "code"), 0)), (3,)),
    ],
)
FLATS = _view("flats", FLAT, [("code",), ("grp",), ("tag",), ("points",)], [0])
PRICES = _view(
    "prices",
    PRICE,
    [("company",), ("item",), ("company_list", "name"), ("value",)],
    [0, 1],
    [Lookup("company_list", ((("company",), 0), (("name",), 2)), (2,))],
)
ALL_KINDS = _view("kinds", KINDS, [(column.name,) for column in KINDS.columns], [0])
VIEWS = (COMPANIES, GROUPS, ITEMS, FLATS, PRICES, ALL_KINDS)


def _leading(name: str, cell: int) -> Alternatives:
    """A lookup of ``CALLS`` that leads to a group or an item of the record's company."""
    company = (("company", "code"), 0)
    grp = Lookup(f"{name}.grp", ((("name",), cell), company), (cell,))
    return Alternatives(name, (grp, Lookup(f"{name}.item", ((("code",), cell), company), (cell,))))


CALLS = replace(
    _view(
        "calls",
        CALL,
        [
            ("company", "code"),
            ("code",),
            ("subject", "grp(name).item(code)"),
            ("owner", "grp(name).item(code)"),
            ("note",),
        ],
        [0, 1],
        [_TO_COMPANY],
    ),
    alternatives=(_leading("subject", 2), _leading("owner", 3)),
)
DEEP = _view(
    "deep",
    ITEM,
    [("company", "code"), ("code",), ("parent", "code"), ("parent", "grp", "company", "code"), ("note",)],
    [0, 1],
    [
        _TO_COMPANY,
        Lookup("parent", ((("code",), 2), (("grp", "company", "code"), 3), (("company", "code"), 0)), (2, 3)),
    ],
)


def item(
    company: Cell,
    code: Cell,
    *,
    grp: Cell = None,
    parent: Cell = None,
    name: Cell = "an item",
    amount: Cell = "1.50",
    active: Cell = "t",
    day: Cell = "2024-02-29",
    note: Cell = None,
) -> Row:
    """A row of the view ``ITEMS``."""
    return (company, code, grp, parent, name, amount, active, day, note)


def flat(code: Cell, grp: Cell = None, tag: Cell = None, points: Cell = None) -> Row:
    """A row of the view ``FLATS``."""
    return (code, grp, tag, points)


def peer(number: int) -> Position:
    """A position in the feed of the other side."""
    return Position("peer", (number,))


class Example:
    """Shorthands for tests: a system whose capture is installed, and one connector to it."""

    def __init__(self, system: System, views: Sequence[View] = VIEWS) -> None:
        """Connect and install all views."""
        self.system = system
        self.views = views
        connector = system.connector()
        self.connector = WithPolymorphic(connector) if any(view.alternatives for view in views) else connector
        self.connector.install(views)

    def need(self, feature: str) -> None:
        """Skip the test where the system lacks a feature."""
        if feature not in self.system.features:
            pytest.skip(f"this system lacks: {FEATURES[feature]}")

    def company(self, code: str = "usmf") -> Value:
        """A user adds a company; returns its id."""
        with self.system.user() as user:
            return user.insert("company", {"code": code, "title": code.upper()})["id"]

    def group(self, company: Value, name: str = "retail") -> Value:
        """A user adds a group; returns its id."""
        with self.system.user() as user:
            return user.insert("grp", {"name": name, "company": company})["id"]

    def item(self, company: Value, code: str = "1000", **values: Value) -> Value:
        """A user adds an item; returns its id."""
        defaults = {"name": "an item", "amount": "1.50", "active": "t", "day": "2024-02-29"}
        with self.system.user() as user:
            return user.insert("item", {**defaults, "company": company, "code": code, **values})["id"]

    def flat(self, code: str, **values: Value) -> None:
        """A user adds a record without references."""
        with self.system.user() as user:
            user.insert("flat", {"code": code, **values})

    def flats(self, codes: Iterable[str], **values: Value) -> None:
        """Users add such records, one transaction after the other."""
        for code in codes:
            self.flat(code, **values)

    def update(self, table: str, match: Mapping[str, Value], **values: Value) -> None:
        """A user changes exactly one record."""
        with self.system.user() as user:
            assert user.update(table, match, values) == 1

    def delete(self, table: str, **match: Value) -> None:
        """A user deletes exactly one record."""
        with self.system.user() as user:
            assert user.delete(table, match) == 1

    def records(self, table: str, **match: Value) -> list[Mapping[str, Value]]:
        """What a user sees."""
        with self.system.user() as user:
            return list(user.rows(table, match))

    def rows(self, view: View) -> list[Row]:
        """All rows of a view, sorted."""
        with self.connector.snapshot(view) as snapshot:
            return sorted((row for block in snapshot.blocks() for row in block), key=repr)

    def fetch(self, view: View, *key: Value) -> list[Row]:
        """The rows of one key."""
        return self.connector.fetch(view, [key]).get(key, [])

    def write(self, view: View, *writes: Write, position: Position | None = None) -> list[Outcome]:
        """One transaction of the link with these writes."""
        with self.connector.transaction("flow", self.views) as transaction:
            outcomes = transaction.write(view, writes)
            transaction.commit(position)
        return outcomes

    def insert(self, view: View, row: Row) -> Outcome:
        """The link adds a record."""
        return self.write(view, Write(self.key(view, row), None, row))[0]

    def replace(self, view: View, before: Row, after: Row | None) -> Outcome:
        """The link changes or deletes a record."""
        return self.write(view, Write(self.key(view, before), before, after))[0]

    @staticmethod
    def key(view: View, row: Row) -> Key:
        """The key of a row whose key is known."""
        cells = [row[index] for index in view.key]
        return tuple(cell for cell in cells if cell is None or isinstance(cell, str))

    def changes(self, after: Position | None = None, views: Sequence[View] = ()) -> list[Change]:
        """Everything in the feed behind a position."""
        return [change for batch in self.batches(after, views) for change in batch.changes]

    def batches(self, after: Position | None = None, views: Sequence[View] = (), limit: int = 1000) -> list[Batch]:
        """All batches of the feed behind a position, up to its present end."""
        feed = self.connector.feed(views or self.views, after)
        try:
            return drain(feed, self.connector.end(), limit)
        finally:
            feed.close()


def drain(feed: Feed, end: Position, limit: int = 1000) -> list[Batch]:
    """Read a feed up to a place."""
    deadline = monotonic() + PATIENCE
    batches = [feed.read(limit, 0)]
    while batches[-1].position < end:
        assert monotonic() < deadline, f"the feed stays at {batches[-1].position} before its end {end}"
        batches.append(feed.read(limit, 1.0))
    return batches


def parts_since(transaction: Transaction, after: Position, limit: int) -> list[Batch]:
    """Ask a transaction what users did, until none of it is left because its rows are large."""
    batches = [transaction.since(after, limit)]
    while batches[-1].cut:
        batches.append(transaction.since(batches[-1].position, limit))
    return batches
