"""Parents that records wait for: which they are, and whether one has come of which no map tells.

Where a map of the parent's table runs, its feed wakes those that wait.  Other tables are in no feed, so they are asked
from time to time, many keys at once.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from dualwrite.connectors.base import Connector
from dualwrite.model import Key, MissingParent, Path, Record
from dualwrite.schema import View

LOOK_INTERVAL = 2.0
"""Seconds between two looks into tables that no map tells of."""
AT_ONCE = 5_000
"""Keys that one look asks for."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A record that a lookup needs: its table, and what it would hold at some paths there."""

    table: str
    paths: tuple[Path, ...]
    key: Key

    @property
    def view(self) -> View:
        """Where to look for it."""
        return View(f"parents in {self.table}", self.table, self.paths, tuple(range(len(self.paths))))


def wanted(view: View, outcome: MissingParent) -> tuple[Wanted, ...]:
    """The records of which any one would do for a row that was refused; empty for a foreign key without a lookup."""
    for name, branches in view.branches:
        if name == outcome.lookup:
            tables = (outcome.table, *outcome.others)
            return tuple(
                Wanted(table, lookup.paths, outcome.key) for table, lookup in zip(tables, branches, strict=True)
            )
    return ()


@dataclass
class Absent:
    """The records that wait for parents, by what they wait for."""

    _records: dict[Wanted, set[Record]] = field(default_factory=dict)
    _parents: dict[Record, tuple[Wanted, ...]] = field(default_factory=dict)
    _looked: float = float("-inf")

    def wait(self, record: Record, parents: Sequence[Wanted]) -> None:
        """The record waits for one of these."""
        if not parents:
            return
        self._parents[record] = (*self._parents.get(record, ()), *parents)
        for parent in parents:
            self._records.setdefault(parent, set()).add(record)

    def forget(self, record: Record) -> None:
        """It waits no longer."""
        for parent in self._parents.pop(record, ()):
            records = self._records.get(parent, set())
            records.discard(record)
            if not records:
                self._records.pop(parent, None)

    def knows(self, record: Record) -> bool:
        """Is it known which parents the record waits for?"""
        return bool(self._parents.get(record))

    def come(self, connector: Connector, tables: Collection[str]) -> list[Record]:
        """The records whose parent is there by now, of those that wait for one in these tables."""
        return self._found(connector, [parent for parent in self._records if parent.table in tables])

    def arrived(self, connector: Connector, heard: Collection[str]) -> list[Record]:
        """The records whose parent has come into a table that is not among the ``heard`` ones.

        Asks now and then only, and then for so many keys; the others come first next time.
        """
        now = time.monotonic()
        if not self._records or now - self._looked < LOOK_INTERVAL:
            return []
        self._looked = now
        asked = [parent for parent in self._records if parent.table not in heard][:AT_ONCE]
        for parent in asked:
            self._records[parent] = self._records.pop(parent)
        return self._found(connector, asked)

    def _found(self, connector: Connector, asked: Sequence[Wanted]) -> list[Record]:
        groups: dict[View, list[Wanted]] = {}
        for parent in asked:
            groups.setdefault(parent.view, []).append(parent)
        there = (parent for view, parents in groups.items() for parent in _there(connector, view, parents))
        return list(dict.fromkeys(record for parent in there for record in sorted(self._records[parent], key=str)))


def _there(connector: Connector, view: View, parents: Sequence[Wanted]) -> list[Wanted]:
    found = connector.fetch(view, [parent.key for parent in parents])
    return [parent for parent in parents if found.get(parent.key)]
