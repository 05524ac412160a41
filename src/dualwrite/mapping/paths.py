"""Finding what a map's names mean in a schema: tables, paths, and the natural keys of tables.

Names match exactly, else by their letters when only one does.  A lookup may be called by its reference's name or by
its column, where it has just one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dualwrite.model import Path, show_path, targets_of
from dualwrite.names import guess, match, nearest
from dualwrite.schema import Column, Polymorphic, Reference, Schema, Table, TypeName

_ID_TYPES = (TypeName.INTEGER, TypeName.UUID)


@dataclass(eq=False)
class PathError(Exception):
    """A name that leads nowhere: what is said about it."""

    code: str
    message: str
    remedy: str


@dataclass(frozen=True, slots=True)
class End:
    """A path as the schema spells it, and the column that it leads to."""

    path: Path
    column: Column


def find_table(schema: Schema, name: str, other: str = "", columns: Iterable[str] = ()) -> Table:
    """The table that is meant, by its name, its label, or the ``other`` name that an export has for it.

    Raises PathError, which guesses by the names and by the ``columns`` that it should have.
    """
    for word in filter(None, (name, other)):
        found = match(word, schema.tables) or _labelled(schema, word)
        if found is not None:
            return schema.tables[found]
    raise PathError("unknown_table", f"there is no table {name!r}", _guess_table(schema, name, tuple(columns)))


def _labelled(schema: Schema, label: str) -> str | None:
    """The name of the only table that people call so."""
    found = [table.name for table in schema.tables.values() if table.label.casefold() == label.casefold()]
    return found[0] if len(found) == 1 else None


def _guess_table(schema: Schema, name: str, columns: Sequence[str]) -> str:
    """The table that alone has the most of these columns, if at least half of them; else that with the nearest name."""
    wanted = {column.casefold() for column in columns}
    having = {table.name: len(wanted & {c.name.casefold() for c in table.columns}) for table in schema.tables.values()}
    most = max(having.values(), default=0)
    best = [table for table, count in having.items() if count == most]
    if len(best) != 1 or not most or 2 * most < len(wanted) or nearest(name, best):
        return guess(name, schema.tables)
    declared = f"name it, or declare label: {name} for it in the side's schema file"
    return f"did you mean {best[0]!r}, which has {most} of {len(wanted)} columns? {declared}"


def find_path(schema: Schema, table: Table, path: Path) -> End:
    """The end of a path that starts in ``table``; raises PathError."""
    steps: list[str] = []
    start = table
    for depth, step in enumerate(path[:-1], 1):
        lookup = match(step, [each.name for each in table.polymorphic])
        if lookup is not None:
            return _find_polymorphic(schema, start, table, (*steps, lookup, *path[depth:]), depth)
        reference = find_reference(table, step)
        if reference.table not in schema.tables:
            message = f"the lookup {reference.name} of {table.name} points to {reference.table!r}, which is not there"
            raise PathError("unknown_table", message, guess(reference.table, schema.tables))
        steps.append(reference.name)
        table = schema.tables[reference.table]
    column = find_column(schema, table, path[-1])
    return End((*steps, column.name), column)


def _find_polymorphic(schema: Schema, start: Table, table: Table, path: Path, depth: int) -> End:
    """A path from ``start`` whose step before ``depth`` is a polymorphic lookup of ``table``, all others found."""
    lookup = table.polymorphic_lookup(path[depth - 1])
    assert lookup is not None
    targets = targets_of(path) if depth == len(path) - 1 else ()
    if not targets:
        words = ".".join(f"{branch.word}(…)" for branch in lookup.branches)
        message = f"the lookup {lookup.name} of {table.name} may lead to several tables"
        raise PathError("unknown_lookup", message, f"write {lookup.name}.{words}, with a column of each table")
    step = ".".join(_target(schema, table, lookup, word, inner) for word, inner in targets)
    whole: Path = (*path[:-1], step)
    column = schema.resolve(start.name, whole)
    assert column is not None, "all its ends were found"
    return End(whole, column)


def _target(schema: Schema, table: Table, lookup: Polymorphic, word: str, inner: Path) -> str:
    """One target of a polymorphic path as the schema spells it; raises PathError."""
    known = [branch.word for branch in lookup.branches]
    branch = lookup.branch(match(word, known) or "")
    if branch is None:
        message = f"the lookup {lookup.name} of {table.name} has no target {word!r}"
        raise PathError("unknown_lookup", message, guess(word, known))
    reference = table.reference(branch.reference)
    assert reference is not None, "a polymorphic lookup has all its references"
    return f"{branch.word}({show_path(find_path(schema, schema.tables[reference.table], inner).path)})"


def find_column(schema: Schema, table: Table, name: str) -> Column:
    """The column of a table that is meant; raises PathError."""
    names = [column.name for column in table.columns]
    column = table.column(match(name, names) or "")
    if column is not None:
        return column
    message = f"{table.name} has no column {name!r}"
    reference = table.reference(match(name, [reference.name for reference in table.references]) or "")
    if reference is None:
        raise PathError("unknown_column", message, guess(name, names))
    ends = [*natural_key(schema, schema.tables[reference.table])] if reference.table in schema.tables else []
    example = show_path((reference.name, *(ends[0] if ends else ("column",))))
    raise PathError("unknown_column", message, f"it is a lookup: name a column of {reference.table}, as in {example}")


def find_reference(table: Table, step: str) -> Reference:
    """The lookup that a step of a path means, by its name or its only column; raises PathError."""
    by_name = {reference.name: reference for reference in table.references}
    found = match(step, by_name)
    if found is not None:
        return by_name[found]
    single = [reference for reference in table.references if len(reference.columns) == 1]
    column = match(step, {reference.columns[0] for reference in single})
    meant = [reference for reference in single if reference.columns[0] == column]
    if len(meant) == 1:
        return meant[0]
    if meant:
        remedy = f"name one: {', '.join(reference.name for reference in meant)}"
        raise PathError("unknown_lookup", f"{step!r} is a column of several lookups of {table.name}", remedy)
    if match(step, [column.name for column in table.columns]) is not None:
        remedy = "declare the reference in the side's schema file (schema/left.yaml or schema/right.yaml)"
        raise PathError("unknown_lookup", f"the column {step!r} of {table.name} is no lookup", remedy)
    known = [*by_name, *(reference.columns[0] for reference in single)]
    raise PathError("unknown_lookup", f"{table.name} has no lookup {step!r}", guess(step, dict.fromkeys(known)))


def candidate_keys(schema: Schema, table: Table) -> list[tuple[Path, ...]]:
    """The ways in which records of a table can be told apart, best first, in natural form.

    First the declared key, then the unique indexes; a primary key that is a mere id comes last.
    """
    found = [_natural_paths(schema, table, table.key)] if table.key else []
    found += [natural(schema, table, columns) for columns in _uniques(table)]
    known: dict[frozenset[Path], tuple[Path, ...]] = {}
    for key in found:
        known.setdefault(frozenset(key), key)
    return list(known.values())


def _natural_paths(schema: Schema, table: Table, key: Iterable[Path]) -> tuple[Path, ...]:
    return tuple(part for path in key for part in (natural(schema, table, path) if len(path) == 1 else (path,)))


def natural_key(schema: Schema, table: Table) -> tuple[Path, ...]:
    """The best of ``candidate_keys``; empty for a table without any."""
    return next(iter(candidate_keys(schema, table)), ())


def natural(
    schema: Schema, table: Table, columns: Iterable[str], seen: frozenset[str] = frozenset()
) -> tuple[Path, ...]:
    """Columns in natural form: those that hold a mere id of another record become the paths to that record's key."""
    paths: list[Path] = []
    for column in columns:
        paths += _followed(schema, table, column, seen | {table.name}) or [(column,)]
    return tuple(paths)


def _followed(schema: Schema, table: Table, column: str, seen: frozenset[str]) -> list[Path]:
    shared = {branch.reference for lookup in table.polymorphic if lookup.type for branch in lookup.branches}
    own = (reference for reference in table.references if reference.name not in shared)
    reference = next((reference for reference in own if reference.columns == (column,)), None)
    parent = schema.tables.get(reference.table) if reference else None
    if reference is None or parent is None or parent.name in seen:
        return []
    key = parent.key
    if not key:
        best = next(iter(_uniques(parent)), ())
        key = (reference.to,) if best == reference.to else natural(schema, parent, best, seen)
    return [] if not key or reference.to in key else [(reference.name, *member) for member in key]


def _uniques(table: Table) -> list[tuple[str, ...]]:
    """The table's unique indexes, the primary key first, or last where it is a mere id."""
    others = [columns for columns in table.uniques if columns != table.primary_key]
    if not table.primary_key:
        return others
    return [*others, table.primary_key] if is_id(table) else [table.primary_key, *others]


def is_id(table: Table) -> bool:
    """Is the primary key a single number, a UUID or generated, so that it says nothing to the other side?"""
    column = table.column(table.primary_key[0]) if len(table.primary_key) == 1 else None
    return column is not None and (column.type.name in _ID_TYPES or column.has_default)


def terminal(schema: Schema, table: Table, path: Path) -> tuple[str, str]:
    """The table and the column in which a path ends (a path of the schema's own spelling)."""
    for step in path[:-1]:
        reference = table.reference(step)
        table = schema.tables[reference.table] if reference else table
    return table.name, path[-1]


def show_paths(paths: Sequence[Path]) -> str:
    """Paths for people."""
    return ", ".join(map(show_path, paths))
