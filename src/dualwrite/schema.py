"""What a system's tables look like, and what a map asks of them.

The schema is what the database says, completed by what a person declares (``schema/left.yaml``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from operator import itemgetter
from typing import TypeAlias

from dualwrite.expression import Expression
from dualwrite.model import ABSENT, Key, Path, Row


class TypeName(str, Enum):
    """The kinds of columns; canonical text of each is PostgreSQL's text output (ISO dates, UTC, hex bytes, t/f)."""

    TEXT = "text"
    INTEGER = "integer"
    NUMERIC = "numeric"
    FLOAT = "float"
    BOOLEAN = "boolean"
    DATE = "date"
    TIME = "time"
    TIMESTAMP = "timestamp"  # no time zone: the environment's ``timezone`` says what it means
    TIMESTAMPTZ = "timestamptz"
    UUID = "uuid"
    BYTES = "bytes"
    JSON = "json"
    CHOICE = "choice"  # a number (or name) out of a declared list
    OTHER = "other"  # carried as text, compared as text


@dataclass(frozen=True, slots=True)
class ColumnType:
    """A type with its limits; None means unlimited or unknown.

    ``length`` in characters, ``precision`` and ``scale`` in decimal digits, ``bits`` for integers (16, 32, 64).
    """

    name: TypeName
    length: int | None = None
    precision: int | None = None
    scale: int | None = None
    bits: int | None = None

    def __str__(self) -> str:
        if self.name is TypeName.NUMERIC and self.precision is not None:
            return f"numeric({self.precision},{self.scale or 0})"
        return f"{self.name.value}({self.length})" if self.length is not None else self.name.value


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    ``choices`` are (name, number) pairs.  ``read_only`` columns (generated, computed) cannot be written.
    ``ignore_case`` and ``ignore_trailing_blanks`` tell the collation; with ``empty_is_null`` the side has no null of
    its own for text.
    """

    name: str
    type: ColumnType
    nullable: bool = True
    has_default: bool = False
    read_only: bool = False
    choices: tuple[tuple[str, str], ...] = ()
    ignore_case: bool = False
    ignore_trailing_blanks: bool = False
    empty_is_null: bool = False


ColumnOf: TypeAlias = Callable[[Path], Column | None]
"""The column at the end of a path; None where it is not known."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A lookup: ``columns`` of this table hold ``to`` columns of ``table``.  ``name`` is how paths call it."""

    name: str
    columns: tuple[str, ...]
    table: str
    to: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """A table.  ``key`` is the natural key (paths), declared or derived from a unique index; ``company`` is the path
    that says which company a record belongs to (None: shared by all).  ``uniques`` include the primary key."""

    name: str
    columns: tuple[Column, ...]
    primary_key: tuple[str, ...] = ()
    uniques: tuple[tuple[str, ...], ...] = ()
    references: tuple[Reference, ...] = ()
    key: tuple[Path, ...] = ()
    company: Path | None = None

    def column(self, name: str) -> Column | None:
        """The column of that exact name."""
        return next((column for column in self.columns if column.name == name), None)

    def reference(self, name: str) -> Reference | None:
        """The reference of that exact name."""
        return next((reference for reference in self.references if reference.name == name), None)


@dataclass(frozen=True, slots=True)
class Schema:
    """All tables of a side, by name."""

    tables: Mapping[str, Table] = field(default_factory=dict)

    def resolve(self, table: str, path: Path) -> Column | None:
        """The column at the end of a path, or None where the path leads nowhere."""
        here = self.tables.get(table)
        for step in path[:-1]:
            reference = here.reference(step) if here else None
            here = self.tables.get(reference.table) if reference else None
        return here.column(path[-1]) if here else None


@dataclass(frozen=True, slots=True)
class Lookup:
    """How rows of a view name a referenced record.

    ``parts`` pairs each member of the referenced record's key (a path in the referenced table) with the index of the
    view's cell that holds it.  ``own`` are the indexes that belong to this lookup alone; the others (the company) are
    shared with the row.  All own cells null: no reference.  One own cell ABSENT: leave the reference alone.
    """

    reference: str
    parts: tuple[tuple[Path, int], ...]
    own: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class View:
    """What a map asks of one table: flat rows in natural form.

    ``paths`` give the order of a row's cells; ``key`` are indexes into them.  ``written`` are the indexes that the
    link may write; the others (filter columns, the other direction's) are only read.  ``filter`` includes the company
    scope.
    """

    name: str
    table: str
    paths: tuple[Path, ...]
    key: tuple[int, ...]
    lookups: tuple[Lookup, ...] = ()
    filter: Expression | None = None
    written: tuple[int, ...] = ()

    def natural_key(self, row: Row) -> Key:
        """The key of a row of this view; a member that is not known counts as null."""
        return tuple([None if (cell := row[index]) is ABSENT else cell for index in self.key])

    def natural_keys(self, rows: Sequence[Row]) -> list[Key]:
        """The keys of many rows."""
        if not rows:
            return []
        members = [list(map(itemgetter(index), rows)) for index in self.key]
        if any(ABSENT in column for column in members):
            return [self.natural_key(row) for row in rows]
        return list(zip(*members, strict=True))
