"""What a PostgreSQL database says of its tables: the schema, and the facts that only this connector needs.

A partitioned table is one table; its partitions are facts of it.  ``_pg_catalog`` reads all this.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal, TypeAlias

from dualwrite.canonical import identity
from dualwrite.connectors._sql import quote
from dualwrite.schema import ColumnType, Schema, TypeName

OWN_PREFIX = "dualwrite_"
"""Schemas of any link begin with it; what they hold is not the application's."""

Action: TypeAlias = Literal["no action", "restrict", "cascade", "set null", "set default"]


@dataclass(frozen=True, slots=True)
class ColumnFacts:
    """What only PostgreSQL has to know of a column.

    ``number`` is its ``attnum`` and ``oid`` its type's; ``sql`` is the type as casts spell it, with its limits and
    whatever the search path.  ``base`` names the type under all domains and ``plain`` spells it without limits, so
    that a cast to it neither cuts nor rounds.  ``equality`` is the operator that compares two values; empty where
    there is none, so that they compare as text.  ``hidden``: the type is a domain over one whose operators take no
    domains (an enum, an array, a range).  ``labels`` are an enum's.  ``padded`` is what its text may end in
    that canonical text has not: ``0`` of numbers without a scale, the blanks of ``character(n)``.  ``sequence`` is
    what numbers its values.  ``required``: it is never null.
    """

    name: str
    number: int
    oid: int
    sql: str
    base: str
    plain: str
    equality: str
    labels: tuple[str, ...]
    padded: Literal["", "0", " "]
    identity: Literal["", "always", "default"]
    generated: Literal["", "stored", "virtual"]
    sequence: str | None
    hidden: bool = False
    required: bool = False

    def equal(self, one: str, other: str) -> str:
        """The test whether two expressions of the plain type, or of the column, hold the same value."""
        if not self.equality:
            return f"{self.text(one)} = {self.text(other)}"
        return f"{self.bared(one)} {self.equality} {self.bared(other)}"

    def bared(self, value: str) -> str:
        """The expression as operators take it."""
        return f"{value}::{self.plain}" if self.hidden else value

    def text(self, value: str) -> str:
        """The expression that holds a value's canonical text; a cast spells some types unlike everything else."""
        if self.base == "inet":
            return f"nullif(concat({value}), '')"
        return f"left({value}::text, 1)" if self.base == "bool" else f"{self.shown(value)}::text"

    def shown(self, value: str) -> str:
        """The expression whose text is canonical."""
        return {"": value, "0": f"trim_scale({value})", " ": f"{value}::text"}[self.padded]

    @property
    def canonical(self) -> Callable[[str], str]:
        """The function from PostgreSQL's text of a value to canonical text; ``identity`` for nearly all types."""
        spellings: dict[str, Callable[[str], str]] = {"": identity, "0": _without_zeros, " ": _without_blanks}
        return spellings[self.padded]


def _without_zeros(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text else text


def _without_blanks(text: str) -> str:
    return text.rstrip(" ")


@dataclass(frozen=True, slots=True)
class Unique:
    """A unique index: its columns, the condition of a partial one, whether null equals null, and when it is checked."""

    name: str
    columns: tuple[str, ...]
    where: str | None
    nulls_equal: bool
    deferrable: bool


@dataclass(frozen=True, slots=True)
class ForeignKey:
    """A foreign key.  ``clears`` are the columns that a delete of the parent sets to null or default."""

    name: str
    columns: tuple[str, ...]
    table: str
    to: tuple[str, ...]
    on_update: Action
    on_delete: Action
    clears: tuple[str, ...]
    deferrable: bool

    @property
    def acts(self) -> bool:
        """Do changes of the parent change or delete the children?"""
        return bool({self.on_update, self.on_delete} & {"cascade", "set null", "set default"})


@dataclass(frozen=True, slots=True)
class Trigger:
    """A trigger of the application that fires; ``events`` are among insert, update, delete and truncate."""

    name: str
    before: bool
    each_row: bool
    events: frozenset[str]


@dataclass(frozen=True, slots=True)
class Relation:
    """A table that holds rows: an ordinary one or a partition.  ``identity`` is its replica identity: d, n, f or i."""

    oid: int
    schema: str
    name: str
    identity: str

    @property
    def sql(self) -> str:
        """Its name in statements."""
        return f"{quote(self.schema)}.{quote(self.name)}"


@dataclass(frozen=True, slots=True)
class Facts:
    """What only PostgreSQL has to know of a table.

    ``name`` is how maps write it, ``version`` differs when anything of it has changed.  ``leaves`` hold its rows:
    itself, or its partitions.  ``expression_index``: some unique index is over an expression.  ``row_security``:
    policies hide rows from the session's role.  ``rules``: the application rewrites its statements.  ``inherited``:
    other tables inherit from it and show their rows in it.
    """

    name: str
    relation: Relation
    columns: Mapping[str, ColumnFacts]
    version: str
    key: tuple[str, ...] = ()
    uniques: tuple[Unique, ...] = ()
    indexed: tuple[tuple[str, ...], ...] = ()
    foreign_keys: tuple[ForeignKey, ...] = ()
    triggers: tuple[Trigger, ...] = ()
    leaves: tuple[Relation, ...] = ()
    partitioned: bool = False
    expression_index: bool = False
    unlogged: bool = False
    row_security: bool = False
    rules: bool = False
    inherited: bool = False

    @property
    def oid(self) -> int:
        """The number that stands for the table in the catalog."""
        return self.relation.oid

    @property
    def sql(self) -> str:
        """Its name in statements."""
        return self.relation.sql

    @property
    def telling(self) -> tuple[str, ...]:
        """The columns that tell records apart in the log: the primary key, else those of a unique index that are never
        null, else all that are sent."""
        if self.key:
            return self.key
        sure = (unique.columns for unique in self.uniques if unique.where is None and not unique.deferrable)
        required = (columns for columns in sure if all(self.columns[name].required for name in columns))
        return next(required, tuple([name for name, column in self.columns.items() if not column.generated]))

    def is_indexed(self, columns: Sequence[str]) -> bool:
        """Can rows be found by these columns without reading all of them?"""
        return any(set(index[: len(columns)]) == set(columns) for index in self.indexed)


@dataclass(frozen=True, slots=True)
class Catalog:
    """A schema with the facts of its tables.  ``names`` are those of tables and partitions, by oid."""

    schema: Schema
    facts: Mapping[str, Facts]
    names: Mapping[int, str] = field(default_factory=dict)

    def pointing_at(self, table: str) -> Iterator[tuple[Facts, ForeignKey]]:
        """The foreign keys that lead to a table."""
        for facts in self.facts.values():
            for key in facts.foreign_keys:
                if key.table == table:
                    yield facts, key


def name_in_maps(schema: str, name: str, default: str) -> str:
    """How maps write a table: its plain name in the environment's schema, ``schema.table`` elsewhere.

    Names that hold a dot themselves are quoted, so that no two tables are written alike.
    """
    if schema == default and "." not in name:
        return name
    return ".".join(quote(part) if "." in part else part for part in (schema, name))


# -- types -----------------------------------------------------------------------------------------------------------

_NAMED: Final = {
    "bool": ColumnType(TypeName.BOOLEAN),
    "int2": ColumnType(TypeName.INTEGER, bits=16),
    "int4": ColumnType(TypeName.INTEGER, bits=32),
    "int8": ColumnType(TypeName.INTEGER, bits=64),
    "float4": ColumnType(TypeName.FLOAT),
    "float8": ColumnType(TypeName.FLOAT),
    "numeric": ColumnType(TypeName.NUMERIC),
    "text": ColumnType(TypeName.TEXT),
    "varchar": ColumnType(TypeName.TEXT),
    "bpchar": ColumnType(TypeName.TEXT),
    "name": ColumnType(TypeName.TEXT, length=63),
    "citext": ColumnType(TypeName.TEXT),
    "date": ColumnType(TypeName.DATE),
    "time": ColumnType(TypeName.TIME),
    "timestamp": ColumnType(TypeName.TIMESTAMP),
    "timestamptz": ColumnType(TypeName.TIMESTAMPTZ),
    "uuid": ColumnType(TypeName.UUID),
    "bytea": ColumnType(TypeName.BYTES),
    "json": ColumnType(TypeName.JSON),
    "jsonb": ColumnType(TypeName.JSON),
}
_MOMENTS: Final = frozenset({"time", "timestamp", "timestamptz"})


def column_type(name: str, modifier: int) -> ColumnType:
    """The type of a column of one of PostgreSQL's own types; ``other`` for what has no counterpart elsewhere."""
    found = _NAMED.get(name, ColumnType(TypeName.OTHER))
    if modifier < 0:
        return found
    if name in ("varchar", "bpchar"):
        return replace(found, length=modifier - 4)
    if name == "numeric":
        packed = modifier - 4
        return replace(found, precision=packed >> 16, scale=((packed & 0x7FF) ^ 0x400) - 0x400)
    return replace(found, scale=modifier) if name in _MOMENTS else found
