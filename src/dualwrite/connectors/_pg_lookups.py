"""Finding the records that rows refer to, and locking those that they are about."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Final, TypeAlias

from dualwrite.connectors._pg_cells import Pattern, Shape
from dualwrite.connectors._pg_schema import Catalog
from dualwrite.connectors._pg_session import Connection
from dualwrite.connectors._pg_statements import Target, Targets, patterns
from dualwrite.connectors._pg_values import array, is_storable
from dualwrite.connectors._sql import reference_of
from dualwrite.model import Key, MissingParent, Rejected, Value, show_key
from dualwrite.schema import Lookup, Table, View

PREPARED: Final = 100
"""Statements for more rows than that are planned for their number of rows."""

Held: TypeAlias = tuple[Value, ...]
Resolved: TypeAlias = Held | MissingParent | Rejected


class Lookups:
    """Finds the records that lookups name; remembers them as long as we write nothing to their tables."""

    def __init__(self, connection: Connection, catalog: Catalog, targets: Targets) -> None:
        self._connection = connection
        self._catalog = catalog
        self._targets = targets
        self._known: dict[tuple[str, Lookup], dict[Key, Resolved]] = {}
        self._tables: dict[tuple[str, Lookup], frozenset[str]] = {}

    def clear(self) -> None:
        """Others may have changed anything."""
        self._known.clear()

    def forget(self, table: str) -> None:
        """Records of this table have changed."""
        for lookup in [lookup for lookup, tables in self._tables.items() if table in tables]:
            self._known.pop(lookup, None)

    def resolve(self, table: Table, lookup: Lookup, keys: Iterable[Key]) -> dict[Key, Resolved]:
        """What the reference's columns have to hold for each key."""
        known = self._known.setdefault((table.name, lookup), {})
        missing = [key for key in dict.fromkeys(keys) if key not in known]
        if missing:
            reference = reference_of(table, lookup.reference, (lookup.reference,))
            paths = tuple(path for path, _ in lookup.parts)
            target = self._targets.get(
                self._catalog, View(lookup.reference, reference.table, paths, tuple(range(len(paths))))
            )
            self._tables[table.name, lookup] = target.plan.tables
            found = self._find(target, missing, reference.to)
            for key in missing:
                held = found.get(key, [])
                if not held:
                    known[key] = MissingParent(reference.name, reference.table, key)
                elif len(held) > 1:
                    reason = f"{len(held)} records of {reference.table} hold the key {show_key(key)}"
                    known[key] = Rejected("ambiguous", reason)
                else:
                    known[key] = held[0]
        return known

    def _find(
        self, target: Target, keys: Sequence[Key], columns: tuple[str, ...]
    ) -> dict[Key, list[tuple[Value, ...]]]:
        found: dict[Key, list[tuple[Value, ...]]] = {}
        groups: dict[Pattern, list[tuple[Key, Sequence[Value]]]] = defaultdict(list)
        for key, (pattern, values) in zip(keys, patterns(target, keys), strict=True):
            if pattern is not None and is_storable(values):
                groups[pattern].append((key, values))
        for pattern, members in groups.items():
            statement = target.statement("find", Shape(pattern, columns=columns))
            bound = transposed([values for _, values in members]) or [[""] * len(members)]
            for row in _run(self._connection, statement, bound):
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
    prepare = None if len(columns[0]) <= PREPARED else False
    return connection.execute(statement.encode(), bound, prepare=prepare).fetchall()
