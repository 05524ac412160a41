"""What SQL connectors share: quoting, what views look at, the joins that turn ids into a view's natural form, and the
way back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeAlias, TypeVar

from dualwrite.errors import Usage
from dualwrite.expression import paths
from dualwrite.model import ABSENT, Cell, Key, MissingParent, Path, Rejected, show_key, show_path
from dualwrite.schema import Column, Lookup, Reference, Schema, Table, TypeName, View

Holding = TypeVar("Holding")
"""The values of a reference's columns, as a connector knows them."""
Resolved: TypeAlias = Holding | MissingParent | Rejected
"""What a lookup leads to."""


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


def shared_columns(table: Table, view: View, lookup: Lookup) -> frozenset[str]:
    """Of a lookup's columns those that belong to others of the view as well, so that clearing it leaves them alone."""
    others = {path[0] for path in view.paths if len(path) == 1}
    for other in view.lookups:
        if other.reference != lookup.reference:
            others |= set(reference_of(table, other.reference, (other.reference,)).columns)
    return frozenset(others.intersection(reference_of(table, lookup.reference, (lookup.reference,)).columns))


def is_unique(table: Table, columns: Iterable[str]) -> bool:
    """Do these columns identify one record at most?"""
    wanted = set(columns)
    return any(unique and set(unique) <= wanted for unique in (table.primary_key, *table.uniques))


def end_of(schema: Schema, table: str, path: Path) -> Table:
    """The table that a path ends in, of those that lead somewhere."""
    here = schema.tables[table]
    for step in path[:-1]:
        reference = here.reference(step)
        assert reference is not None
        here = schema.tables[reference.table]
    return here


def tables_of(schema: Schema, view: View) -> frozenset[str]:
    """The tables that the rows of a view come from."""
    prefixes = (path[:length] for path in view.paths for length in range(1, len(path) + 1))
    return frozenset(end_of(schema, view.table, prefix).name for prefix in prefixes)


def column_of(schema: Schema, view: View, path: Path) -> Column:
    """The column that a path of a view leads to; raises Usage where there is none."""
    column = schema.resolve(view.table, path)
    if column is None:
        raise Usage(f"map {view.name}: {view.table} has no {show_path(path)}", "run `dualwrite check`")
    return column


def place_of(view: View, path: Path) -> int:
    """The index of a path of the view's filter in its rows; raises Usage where they do not hold it."""
    if path not in view.paths:
        raise Usage(f"the filter of {view.name} speaks of {show_path(path)}, which the view does not read")
    return view.paths.index(path)


def natural_key(tables: Mapping[str, Table], name: str, seen: frozenset[str] = frozenset()) -> tuple[Path, ...]:
    """The paths that identify a record for people: the first unique index that is more than a surrogate.

    Members that are ids of other records become the key of those records.
    """
    table = tables[name]
    for columns in sorted(table.uniques, key=lambda columns: _is_surrogate(table, columns)):
        found: list[Path] = []
        for column in columns:
            found += _natural(tables, table, column, seen | {name})
        if found:
            return tuple(dict.fromkeys(found))
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
    _joins: dict[Path, str] = field(default_factory=dict)
    _aliases: dict[Path, tuple[str, int]] = field(default_factory=dict)

    @property
    def source(self) -> str:
        """What stands behind FROM."""
        return self.joined(f"{self.relation(self.table)} AS t", self._joins)

    def followed(self, paths: Iterable[Path]) -> list[Path]:
        """The references that these paths, asked for before, follow; each behind those that lead to it."""
        steps = {path[:length] for path in paths for length in range(1, len(path))}
        return [prefix for prefix in self._joins if prefix in steps]

    def joined(self, records: str, references: Iterable[Path]) -> str:
        """What stands behind FROM, with ``records`` in the place of the table and these references alone followed."""
        return "\n".join([records, *(self._joins[reference] for reference in references)])

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
        self._joins[prefix] = f"LEFT JOIN {target} AS {alias} ON {matches}"
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


def view_paths(view: View) -> list[Path]:
    """All paths by which a view reaches columns, its lookups' key parts included."""
    parts = [(lookup.reference, *path) for lookup in view.lookups for path, _ in lookup.parts]
    return list(dict.fromkeys((*view.paths, *paths(view.filter), *parts)))


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


# -- keys and lookups ------------------------------------------------------------------------------------------------


def folded(column: Column, value: Cell) -> str:
    """What a value is compared by in keys: null as empty, letter case and trailing blanks as the column says."""
    if value is None or value is ABSENT:
        return ""
    if column.ignore_trailing_blanks:
        value = value.rstrip(" ")
    return value.casefold() if column.ignore_case else value


def folder(columns: Sequence[Column]) -> Callable[[Key], Key]:
    """A function that brings keys to the form in which equal ones are equal."""
    if any(column.ignore_case or column.ignore_trailing_blanks for column in columns):
        return lambda key: tuple(folded(column, member) for column, member in zip(columns, key, strict=True))
    return lambda key: tuple(member or "" for member in key) if None in key else key


class Lookups(Generic[Holding]):
    """Finds what references have to hold to lead to the records that lookups name; remembers it as long as nobody
    writes to their tables.

    ``find`` asks for records by their keys in a view: it tells what each of them holds in the columns that a reference
    leads to, and from which tables it knows that.
    """

    def __init__(
        self, find: Callable[[View, Reference, Sequence[Key]], tuple[Mapping[Key, Sequence[Holding]], frozenset[str]]]
    ) -> None:
        self._find = find
        self._known: dict[tuple[str, Lookup], dict[Key, Resolved[Holding]]] = {}
        self._tables: dict[tuple[str, Lookup], frozenset[str]] = {}

    def clear(self) -> None:
        """Others may have changed anything."""
        self._known.clear()

    def forget(self, table: str) -> None:
        """Records of this table have changed."""
        for lookup in [lookup for lookup, tables in self._tables.items() if table in tables]:
            self._known.pop(lookup, None)

    def resolve(self, table: Table, lookup: Lookup, keys: Iterable[Key]) -> dict[Key, Resolved[Holding]]:
        """What the reference's columns have to hold for each key."""
        known = self._known.setdefault((table.name, lookup), {})
        missing = [key for key in dict.fromkeys(keys) if key not in known]
        if missing:
            reference = reference_of(table, lookup.reference, (lookup.reference,))
            parts = lookup.paths
            view = View(lookup.reference, reference.table, parts, tuple(range(len(parts))))
            found, self._tables[table.name, lookup] = self._find(view, reference, missing)
            for key in missing:
                known[key] = _resolved(reference, key, found.get(key, ()))
        return known


def _resolved(reference: Reference, key: Key, found: Sequence[Holding]) -> Resolved[Holding]:
    if not found:
        return MissingParent(reference.name, reference.table, key)
    if len(found) > 1:
        return Rejected("ambiguous", f"{len(found)} records of {reference.table} hold the key {show_key(key)}")
    return found[0]
