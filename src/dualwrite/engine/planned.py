"""What a dry run finds, on disk: planned rows, the parents that they need, and the records that will be there by then.

There may be as many as the tables have rows.
"""

from __future__ import annotations

import json
import marshal
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from dualwrite.engine.parents import Wanted
from dualwrite.engine.release import either
from dualwrite.engine.spool import scratch_database
from dualwrite.model import Key, Path, Row, Side, Value, show_key
from dualwrite.schema import View

EXAMPLES = 3
"""Records that are named as examples of those that need a missing parent."""
AT_ONCE = 1_000
"""Rows that are put down, or read, at once, and parents that are looked for."""
Fetch: TypeAlias = Callable[[Side, View, Sequence[Key]], Mapping[Key, Sequence[Row]]]
_TABLES: Final = """
CREATE TABLE planned (number INTEGER PRIMARY KEY, map TEXT, action TEXT, told INTEGER, packed BLOB);
CREATE TABLE coming (record TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE parent (number INTEGER PRIMARY KEY, text TEXT UNIQUE, missing INTEGER DEFAULT 0);
CREATE TABLE need (planned INTEGER, parent INTEGER, PRIMARY KEY (planned, parent)) WITHOUT ROWID;
"""
_TOLD: Final = """
AND (told OR EXISTS (SELECT 1 FROM need JOIN parent ON parent.number = need.parent
                     WHERE need.planned = planned.number AND parent.missing))
"""
_MISSING: Final = """
SELECT parent.number, parent.text, count(*) AS records, min(need.planned) AS first FROM planned
JOIN need ON need.planned = planned.number JOIN parent ON parent.number = need.parent
WHERE planned.map = ? AND parent.missing GROUP BY parent.number
"""
_WAITING: Final = """
SELECT need.planned, parent.text FROM need JOIN parent ON parent.number = need.parent
WHERE need.planned IN (SELECT value FROM json_each(?)) AND parent.missing ORDER BY need.planned, parent.number
"""
_EXAMPLES: Final = """
SELECT planned.packed FROM need JOIN planned ON planned.number = need.planned
WHERE need.parent = ? AND planned.map = ? ORDER BY need.planned LIMIT ?
"""


@dataclass(frozen=True, slots=True)
class PlannedRow:
    """What would happen to one record on one side.

    ``action`` is ``insert``, ``update`` or ``skip``.  ``columns`` are the values that would be written: old (None for
    an insert) and new.  ``reason`` says why a record is skipped, or what it would wait for.
    """

    map: str
    side: Side
    action: str
    key: Key
    columns: Mapping[str, tuple[Value, Value]]
    code: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class MissingParents:
    """A record that is not there although others refer to it: on which side, in which table, and who needs it."""

    side: Side
    table: str
    key: Key
    records: int
    examples: tuple[Key, ...]


class Planned:
    """Filled by ``add``, ``comes`` and ``needs``; ``look`` finds the parents that are missing; then it is read."""

    def __init__(self) -> None:
        self._database = scratch_database(self)
        self._database.executescript(_TABLES)
        self._counts: Counter[tuple[str, str, Side]] = Counter()
        self._number = 0
        self._rows: list[tuple[int, str, str, bool, bytes]] = []
        self._coming: list[tuple[str]] = []
        self._needs: list[tuple[int, str]] = []

    def add(self, row: PlannedRow) -> None:
        """Plan a row."""
        self._number += 1
        self._counts[row.map, row.action, row.side] += 1
        packed = marshal.dumps((row.side.value, row.key, dict(row.columns), row.code, row.reason))
        self._rows.append((self._number, row.map, row.action, bool(row.reason), packed))
        if len(self._rows) >= AT_ONCE:
            self._put_down()

    def comes(self, side: Side, table: str, members: Iterable[tuple[Path, Value]]) -> None:
        """The row that was added last makes a record with these values."""
        self._coming.append((_record(side, table, members),))

    def needs(self, side: Side, parents: Sequence[Wanted]) -> None:
        """The row that was added last needs one of these parents."""
        text = json.dumps([side.value, [(each.table, each.paths, each.key) for each in parents]])
        self._needs.append((self._number, text))

    def _put_down(self) -> None:
        execute = self._database.executemany
        self._database.execute("BEGIN")
        execute("INSERT INTO planned VALUES (?, ?, ?, ?, ?)", self._rows)
        execute("INSERT OR IGNORE INTO coming VALUES (?)", self._coming)
        execute("INSERT OR IGNORE INTO parent (text) VALUES (?)", {(text,): None for _, text in self._needs})
        execute("INSERT OR IGNORE INTO need SELECT ?, number FROM parent WHERE text = ?", self._needs)
        self._database.execute("COMMIT")
        self._rows, self._coming, self._needs = [], [], []

    def look(self, fetch: Fetch) -> None:
        """Find out which parents are neither there nor coming."""
        self._put_down()
        self._database.execute("CREATE INDEX need_parent ON need (parent)")
        self._database.execute("CREATE INDEX planned_map ON planned (map, action)")
        done = 0
        while found := self._database.execute(
            "SELECT number, text FROM parent WHERE number > ? ORDER BY number LIMIT ?", (done, AT_ONCE)
        ).fetchall():
            done = found[-1][0]
            wanted = {number: _parents(text) for number, text in found}
            absent = self._absent(wanted.values(), fetch)
            missing = [
                (number,) for number, (side, each) in wanted.items() if all((side, parent) in absent for parent in each)
            ]
            self._database.executemany("UPDATE parent SET missing = 1 WHERE number = ?", missing)

    def _absent(self, wanted: Iterable[tuple[Side, Sequence[Wanted]]], fetch: Fetch) -> set[tuple[Side, Wanted]]:
        groups: dict[tuple[Side, View], set[Wanted]] = {}
        for side, parents in wanted:
            for parent in parents:
                if not self._is_coming(side, parent):
                    groups.setdefault((side, parent.view), set()).add(parent)
        absent = set()
        for (side, view), group in groups.items():
            there = fetch(side, view, sorted((parent.key for parent in group), key=str))
            absent |= {(side, parent) for parent in group if not there.get(parent.key)}
        return absent

    def _is_coming(self, side: Side, parent: Wanted) -> bool:
        record = _record(side, parent.table, zip(parent.paths, parent.key, strict=True))
        return self._database.execute("SELECT 1 FROM coming WHERE record = ?", (record,)).fetchone() is not None

    # -- what was found --------------------------------------------------------------------------------------------

    def count(self, map_name: str, action: str, side: Side) -> int:
        """How many records of a side would meet an action."""
        return self._counts[map_name, action, side]

    def rows(self, map_name: str, action: str | None = None, *, told: bool = False) -> Iterator[PlannedRow]:
        """What is planned, in the order in which it was; only rows with a reason if ``told``."""
        where = f"map = :map AND (action = :action OR :action IS NULL) AND number > :after{_TOLD if told else ''}"
        query = f"SELECT number, action, packed FROM planned WHERE {where} ORDER BY number LIMIT {AT_ONCE}"  # noqa: S608 (constants)
        wanted, after = {"map": map_name, "action": action}, 0
        while found := self._database.execute(query, {**wanted, "after": after}).fetchall():
            after = found[-1][0]
            waits: dict[int, list[str]] = {}
            numbers = json.dumps([number for number, _, _ in found])
            for number, text in self._database.execute(_WAITING, (numbers,)):
                waits.setdefault(number, []).append(text)
            for number, its_action, packed in found:
                row = _unpacked(map_name, its_action, packed)
                for text in waits.get(number, ()):
                    row = _waiting(row, text)
                yield row

    def count_told(self, map_name: str, action: str) -> int:
        """How many records would meet an action, and have a reason."""
        query = f"SELECT count(*) FROM planned WHERE map = ? AND action = ?{_TOLD}"  # noqa: S608 (a constant)
        return self._number_of(query, map_name, action)

    def missing(self, map_name: str, most: int = -1) -> Iterator[MissingParents]:
        """The parents that rows of a map would wait for (at ``most`` so many): those first that most of them need."""
        query = f"{_MISSING} ORDER BY records DESC, first LIMIT ?"
        for number, text, records, _ in self._database.execute(query, (map_name, most)):
            side, parents = _parents(text)
            found = self._database.execute(_EXAMPLES, (number, map_name, EXAMPLES))
            examples = tuple(_unpacked(map_name, "", packed).key for (packed,) in found)
            yield MissingParents(side, _tables(parents), parents[0].key, records, examples)

    def count_missing(self, map_name: str) -> int:
        """How many they are."""
        return self._number_of(f"SELECT count(*) FROM ({_MISSING})", map_name)  # noqa: S608 (a constant)

    def _number_of(self, query: str, *values: str) -> int:
        found: int = self._database.execute(query, values).fetchone()[0]
        return found


def _record(side: Side, table: str, members: Iterable[tuple[Path, Value]]) -> str:
    return json.dumps([side.value, table, list(members)])


def _parents(text: str) -> tuple[Side, list[Wanted]]:
    side, parents = json.loads(text)
    return Side(side), [Wanted(table, tuple(map(tuple, paths)), tuple(key)) for table, paths, key in parents]


def _tables(parents: Sequence[Wanted]) -> str:
    return either(*(parent.table for parent in parents))


def _unpacked(map_name: str, action: str, packed: bytes) -> PlannedRow:
    side, key, columns, code, reason = marshal.loads(packed)
    return PlannedRow(map_name, Side(side), action, key, columns, code, reason)


def _waiting(row: PlannedRow, text: str) -> PlannedRow:
    """The same, waiting for a parent."""
    _, parents = _parents(text)
    told = f"waits for {_tables(parents)} {show_key(parents[0].key)}, which is missing"
    return replace(row, code="missing_parent", reason=f"{row.reason}; {told}" if row.reason else told)
