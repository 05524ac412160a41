"""Finding the records that rows refer to, and locking those that they are about."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, TypeAlias

from dualwrite.connectors._pg_cells import Shape
from dualwrite.connectors._pg_schema import Catalog
from dualwrite.connectors._pg_session import Connection
from dualwrite.connectors._pg_statements import Target, Targets, patterns
from dualwrite.connectors._pg_trip import sized, trip
from dualwrite.connectors._pg_values import array, is_storable
from dualwrite.connectors._pg_view import Pattern
from dualwrite.connectors._sql import Lookups
from dualwrite.model import Key, Value
from dualwrite.schema import Reference, View

Held: TypeAlias = tuple[Value, ...]


def lookups_of(connection: Connection, catalog: Catalog, targets: Targets) -> Lookups[Held]:
    """Finds the records that lookups name."""

    def find(view: View, reference: Reference, keys: Sequence[Key]) -> tuple[dict[Key, list[Held]], frozenset[str]]:
        target = targets.get(catalog, view)
        return _find(connection, target, keys, reference.to), target.plan.tables

    return Lookups(find)


def _find(
    connection: Connection, target: Target, keys: Sequence[Key], columns: tuple[str, ...]
) -> dict[Key, list[Held]]:
    found: dict[Key, list[Held]] = {}
    groups: dict[Pattern, list[tuple[Key, Sequence[Value]]]] = defaultdict(list)
    for key, (pattern, values) in zip(keys, patterns(target, keys), strict=True):
        if pattern is not None and is_storable(values):
            groups[pattern].append((key, values))
    for pattern, members in groups.items():
        statement = target.statement("find", Shape(pattern, columns=columns))
        bound = transposed([values for _, values in members]) or [[""] * len(members)]
        for row in _run(connection, statement, bound):
            found.setdefault(members[int(row[0]) - 1][0], []).append(row[1:])
    return found


def lock(connection: Connection, target: Target, keys: Sequence[Key], *, strong: bool = False) -> None:
    """Wait for the records of these keys, and keep them; ``strong``: children may not refer to them meanwhile."""
    groups: dict[Pattern, list[Sequence[Value]]] = defaultdict(list)
    for pattern, members in patterns(target, keys):
        if pattern is not None and is_storable(members):
            groups[pattern].append(members)
    for pattern, rows in groups.items():
        statement = target.statement("lock", Shape(pattern, given=(0,) if strong else ()))
        _run(connection, statement, transposed(rows) or [[""] * len(rows)])


def transposed(rows: Sequence[Sequence[Value]]) -> list[list[Value]]:
    return [list(column) for column in zip(*rows, strict=True)]


def _run(connection: Connection, statement: str, columns: Sequence[Sequence[Value]]) -> list[tuple[Any, ...]]:
    bound = [array(column) for column in columns]
    return trip(connection, sized(statement, bound, len(columns[0])))[-1]
