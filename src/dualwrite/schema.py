"""What a system's tables look like, and what a map asks of them.

The schema is what the database says, completed by what a person declares (``schema/left.yaml``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from operator import itemgetter
from typing import TypeAlias

from dualwrite.expression import Expression
from dualwrite.model import ABSENT, Key, Path, Row, show_path, targets_of


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
    its own for text.  ``mark`` is another one where a column of that name is not the same any more; empty where the
    system does not tell.
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
    mark: str = field(default="", compare=False)


ColumnOf: TypeAlias = Callable[[Path], Column | None]
"""The column at the end of a path; None where it is not known."""


def untyped(_path: Path) -> Column | None:
    """Where no column is known."""
    return None


@dataclass(frozen=True, slots=True)
class Reference:
    """A lookup: ``columns`` of this table hold ``to`` columns of ``table``.  ``name`` is how paths call it."""

    name: str
    columns: tuple[str, ...]
    table: str
    to: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Branch:
    """One of the tables that a polymorphic lookup may lead to: what paths call it, the reference that leads there, and
    what the column of the type holds then."""

    word: str
    reference: str
    value: str


@dataclass(frozen=True, slots=True)
class Polymorphic:
    """A lookup that leads to a record of one of several tables.

    ``type`` is the column that tells of which; None where each table has columns of its own, of which one is filled.
    """

    name: str
    branches: tuple[Branch, ...]
    type: str | None = None

    def branch(self, word: str) -> Branch | None:
        """The branch that a path calls exactly so."""
        return next((branch for branch in self.branches if branch.word == word), None)


@dataclass(frozen=True, slots=True)
class Table:
    """A table.  ``key`` is the natural key (paths), declared or derived from a unique index; ``company`` is the path
    that says which company a record belongs to (None: shared by all).  ``uniques`` include the primary key.  The
    references of ``polymorphic`` lookups stand among the others, too.  ``label`` is what people call it.  ``storage``
    is another one where all its records may have been written anew, of which the log does not tell; empty where such
    a thing is noticed otherwise."""

    name: str
    columns: tuple[Column, ...]
    primary_key: tuple[str, ...] = ()
    uniques: tuple[tuple[str, ...], ...] = ()
    references: tuple[Reference, ...] = ()
    key: tuple[Path, ...] = ()
    company: Path | None = None
    polymorphic: tuple[Polymorphic, ...] = ()
    label: str = ""
    storage: str = field(default="", compare=False)

    def column(self, name: str) -> Column | None:
        """The column of that exact name."""
        return next((column for column in self.columns if column.name == name), None)

    def reference(self, name: str) -> Reference | None:
        """The reference of that exact name."""
        return next((reference for reference in self.references if reference.name == name), None)

    def referenced(self, lookup: Lookup) -> str:
        """The table to which a lookup of one of this table's views leads."""
        reference = self.reference(lookup.reference)
        assert reference is not None, "compiling has found the reference"
        return reference.table

    def polymorphic_lookup(self, name: str) -> Polymorphic | None:
        """The polymorphic lookup of that exact name."""
        return next((lookup for lookup in self.polymorphic if lookup.name == name), None)

    def lookup_columns(self, name: str) -> tuple[str, ...]:
        """The columns in which a lookup of that exact name, polymorphic or not, is stored."""
        lookup = self.polymorphic_lookup(name)
        led = [branch.reference for branch in lookup.branches] if lookup else [name]
        references = [reference for each in led if (reference := self.reference(each)) is not None]
        columns = [column for reference in references for column in reference.columns]
        return tuple(dict.fromkeys([*columns, *([lookup.type] if lookup and lookup.type else [])]))


@dataclass(frozen=True, slots=True)
class Schema:
    """All tables of a side, by name."""

    tables: Mapping[str, Table] = field(default_factory=dict)

    def resolve(self, table: str, path: Path) -> Column | None:
        """The column at the end of a path, or None where the path leads nowhere.

        At the end of a polymorphic path stands what the columns of all its tables have in common.
        """
        ends = [self._plain(table, branch) for branch in self.branches(table, path)]
        if not ends:
            return self._plain(table, path)
        columns = [end for end in ends if end is not None]
        return merged(show_path(path), columns) if len(columns) == len(ends) else None

    def branches(self, table: str, path: Path) -> tuple[Path, ...]:
        """The plain paths that a polymorphic path stands for; empty for a plain one, and where a name is not known."""
        here = self._table_behind(table, path[:-2]) if len(path) > 1 else None
        lookup = here.polymorphic_lookup(path[-2]) if here else None
        found = [(lookup.branch(word), inner) for word, inner in targets_of(path)] if lookup else []
        known = [(*path[:-2], branch.reference, *inner) for branch, inner in found if branch is not None]
        return tuple(known) if len(known) == len(found) else ()

    def _table_behind(self, table: str, steps: Path) -> Table | None:
        here = self.tables.get(table)
        for step in steps:
            reference = here.reference(step) if here else None
            here = self.tables.get(reference.table) if reference else None
        return here

    def _plain(self, table: str, path: Path) -> Column | None:
        here = self._table_behind(table, path[:-1])
        return here.column(path[-1]) if here else None


def merged(name: str, columns: Sequence[Column]) -> Column:
    """One column that holds what each of several may hold."""
    kinds = {column.type for column in columns}
    return Column(
        name,
        columns[0].type if len(kinds) == 1 else _wider([column.type for column in columns]),
        read_only=any(column.read_only for column in columns),
        choices=columns[0].choices if len({column.choices for column in columns}) == 1 else (),
        ignore_case=any(column.ignore_case for column in columns),
        ignore_trailing_blanks=any(column.ignore_trailing_blanks for column in columns),
        empty_is_null=any(column.empty_is_null for column in columns),
    )


def _wider(types: Sequence[ColumnType]) -> ColumnType:
    if len({kind.name for kind in types}) > 1:
        return ColumnType(TypeName.TEXT)

    def most(limits: Sequence[int | None]) -> int | None:
        known = [limit for limit in limits if limit is not None]
        return max(known) if len(known) == len(limits) else None

    return ColumnType(
        types[0].name,
        most([kind.length for kind in types]),
        most([kind.precision for kind in types]),
        most([kind.scale for kind in types]),
        most([kind.bits for kind in types]),
    )


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

    @property
    def paths(self) -> tuple[Path, ...]:
        """The members of the referenced record's key."""
        return tuple(path for path, _ in self.parts)


@dataclass(frozen=True, slots=True)
class Alternatives:
    """A polymorphic lookup of a view that is written: one lookup per table in which its record may be.

    All of them have the same ``own`` cells.
    """

    name: str
    lookups: tuple[Lookup, ...]

    @property
    def own(self) -> tuple[int, ...]:
        """The cells that belong to the lookup alone."""
        return self.lookups[0].own


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
    alternatives: tuple[Alternatives, ...] = ()

    @property
    def branches(self) -> list[tuple[str, tuple[Lookup, ...]]]:
        """The lookups that are written, with their names; a polymorphic one as one per table."""
        plain = [(lookup.reference, (lookup,)) for lookup in self.lookups]
        return [*plain, *((each.name, each.lookups) for each in self.alternatives)]

    def with_lookups(self, cells: Iterable[int]) -> set[int]:
        """These cells, and the others of the lookups that they belong to: a lookup is written as a whole."""
        found = set(cells)
        for _, (lookup, *_) in self.branches:
            if not found.isdisjoint(lookup.own):
                found.update(lookup.own)
        return found

    def natural_key(self, row: Row) -> Key:
        """The key of a row of this view; a member that is not known counts as null."""
        if len(self.key) == 1:  # most keys, in a third of the time
            cell = row[self.key[0]]
            return (None if cell is ABSENT else cell,)
        return tuple([None if (cell := row[index]) is ABSENT else cell for index in self.key])

    def natural_keys(self, rows: Sequence[Row]) -> list[Key]:
        """The keys of many rows."""
        if not rows:
            return []
        members = [list(map(itemgetter(index), rows)) for index in self.key]
        if any(ABSENT in column for column in members):
            return [self.natural_key(row) for row in rows]
        return list(zip(*members, strict=True))
