"""What SQL connectors share: quoting, what views look at, and the joins that turn ids into a view's natural form."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from dualwrite.errors import Usage
from dualwrite.expression import And, Compare, Expression, Not, OneOf, Or
from dualwrite.model import Path, show_path
from dualwrite.schema import Reference, Schema, Table, TypeName, View


def quote(name: str) -> str:
    """An identifier as SQL; the only way by which names get into statements."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text as SQL spells it, for statements that take no bound values; PostgreSQL's and SQLite's way."""
    return "'" + text.replace("'", "''") + "'"


def names(columns: Iterable[str]) -> str:
    """Quoted identifiers, separated by commas."""
    return ", ".join(map(quote, columns))


def table_of(schema: Schema, name: str) -> Table:
    """The table of that name; raises Usage when there is none."""
    table = schema.tables.get(name)
    if table is None:
        raise Usage(f"table {name} does not exist", "run `dualwrite check` to see what the database holds")
    return table


def reference_of(table: Table, name: str, path: Path) -> Reference:
    """The reference that a path follows; raises Usage when the table has none of that name."""
    reference = table.reference(name)
    if reference is None:
        known = ", ".join(known.name for known in table.references) or "none"
        raise Usage(
            f"{table.name}: {show_path(path)} follows {name}, which is no reference of the table (known: {known})",
            "correct the map, or declare the reference in the schema file of that side",
        )
    return reference


def is_unique(table: Table, columns: Iterable[str]) -> bool:
    """Do these columns identify one record at most?"""
    wanted = set(columns)
    return any(unique and set(unique) <= wanted for unique in (table.primary_key, *table.uniques))


def natural_key(tables: Mapping[str, Table], name: str, seen: frozenset[str] = frozenset()) -> tuple[Path, ...]:
    """The paths that identify a record for people: the first unique index that is more than a surrogate.

    Members that are ids of other records become the key of those records.
    """
    table = tables[name]
    for columns in sorted(table.uniques, key=lambda columns: _is_surrogate(table, columns)):
        paths: list[Path] = []
        for column in columns:
            paths += _natural(tables, table, column, seen | {name})
        if paths:
            return tuple(dict.fromkeys(paths))
    return tuple((column,) for column in table.primary_key)


def _is_surrogate(table: Table, columns: tuple[str, ...]) -> bool:
    column = table.column(columns[0])
    generated = column is not None and (column.has_default or column.type.name is TypeName.UUID)
    return columns == table.primary_key and len(columns) == 1 and generated


def _natural(tables: Mapping[str, Table], table: Table, column: str, seen: frozenset[str]) -> list[Path]:
    reference = next((reference for reference in table.references if reference.columns == (column,)), None)
    if reference is None or reference.table in seen:
        return [(column,)]
    target = tables[reference.table]
    if reference.to != target.primary_key or not _is_surrogate(target, reference.to):
        return [(column,)]
    return [(reference.name, *path) for path in natural_key(tables, target.name, seen)]


class Held(NamedTuple):
    """A column of a table, and the expression that holds it."""

    table: str
    column: str
    sql: str


def _equal(one: Held, other: Held) -> str:
    return f"{one.sql} = {other.sql}"


@dataclass
class Joins:
    """The FROM clause of a view: the table as ``t`` and one join per reference that the asked paths follow.

    ``single`` makes a table expression that holds one record per reference value, for references to columns that are
    not unique.  ``relation`` spells a table, ``equal`` compares two columns.  ``flags`` are expressions, one per join,
    that are true where the reference holds a value that finds no record.
    """

    schema: Schema
    table: str
    single: Callable[[Reference], str]
    relation: Callable[[str], str] = quote
    equal: Callable[[Held, Held], str] = _equal
    flags: list[str] = field(default_factory=list)
    _joins: list[str] = field(default_factory=list)
    _aliases: dict[Path, tuple[str, int]] = field(default_factory=dict)

    @property
    def source(self) -> str:
        """What stands behind FROM."""
        return "\n".join([f"{self.relation(self.table)} AS t", *self._joins])

    def cell(self, path: Path) -> tuple[str, int | None]:
        """The expression of a path, and the index of the flag that says whether it leads nowhere."""
        here: tuple[str, int | None] = ("t", None)
        table = table_of(self.schema, self.table)
        for depth in range(1, len(path)):
            reference = reference_of(table, path[depth - 1], path)
            here = self._join(path[:depth], here, table, reference)
            table = table_of(self.schema, reference.table)
        if table.column(path[-1]) is None:
            raise Usage(f"table {table.name} has no column {path[-1]}", f"correct {show_path(path)} in the map")
        return f"{here[0]}.{quote(path[-1])}", here[1]

    @staticmethod
    def _held(alias: str, owner: Table, name: str) -> str:
        column = owner.column(name)
        value = f"{alias}.{quote(name)}"
        return (
            f"nullif(CAST({value} AS text), '') IS NOT NULL"
            if column and column.empty_is_null
            else f"{value} IS NOT NULL"
        )

    def _join(self, prefix: Path, outer: tuple[str, int | None], owner: Table, reference: Reference) -> tuple[str, int]:
        if prefix in self._aliases:
            return self._aliases[prefix]
        alias = f"j{len(self._joins) + 1}"
        pairs = list(zip(reference.to, reference.columns, strict=True))
        matches = " AND ".join(
            self.equal(
                Held(reference.table, to, f"{alias}.{quote(to)}"), Held(owner.name, own, f"{outer[0]}.{quote(own)}")
            )
            for to, own in pairs
        )
        table = table_of(self.schema, reference.table)
        target = self.relation(table.name) if is_unique(table, reference.to) else self.single(reference)
        self._joins.append(f"LEFT JOIN {target} AS {alias} ON {matches}")
        held = " AND ".join(self._held(outer[0], owner, column) for column in reference.columns)
        flag = f"({held} AND {alias}.{quote(reference.to[0])} IS NULL)"
        self.flags.append(flag if outer[1] is None else f"({self.flags[outer[1]]} OR {flag})")
        self._aliases[prefix] = alias, len(self.flags) - 1
        return self._aliases[prefix]


# -- what views look at ----------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Needs:
    """What the views want of one table: columns that their rows show, and those that rows of *other* tables show."""

    shown: set[str] = field(default_factory=set)
    followed: set[str] = field(default_factory=set)


def paths_in(expression: Expression | None) -> Iterator[Path]:
    """The paths that a filter speaks of."""
    match expression:
        case Compare(_, column, _) | OneOf(column, _):
            yield column.path
        case And(parts) | Or(parts):
            for part in parts:
                yield from paths_in(part)
        case Not(part):
            yield from paths_in(part)


def view_paths(view: View) -> list[Path]:
    """All paths by which a view reaches columns, its lookups' key parts included."""
    parts = [(lookup.reference, *path) for lookup in view.lookups for path, _ in lookup.parts]
    return list(dict.fromkeys((*view.paths, *paths_in(view.filter), *parts)))


def needs(schema: Schema, views: Iterable[View]) -> dict[str, Needs]:
    """Per table the columns that the views look at."""
    found: dict[str, Needs] = {}
    for view in views:
        for path in view_paths(view):
            table = table_of(schema, view.table)
            need = found.setdefault(table.name, Needs()).shown
            for step in path[:-1]:
                reference = reference_of(table, step, path)
                need |= set(reference.columns)
                table = table_of(schema, reference.table)
                need = found.setdefault(table.name, Needs()).followed
                need |= set(reference.to)
            if table.column(path[-1]) is None:
                raise Usage(f"table {table.name} has no column {path[-1]}", f"correct the map {view.name}")
            need.add(path[-1])
    return found
