"""Compare the two tables of a map: what differs, per record.

One function with four uses: ``plan`` prints it, initial sync applies it, ``verify`` reports it, ``repair`` applies it.
Memory stays bounded: rows are cut by their keys into parts on disk; where one side is empty the other streams through.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import TypeAlias

from dualwrite.connectors.base import Snapshot
from dualwrite.engine.spool import PARTITIONS, Partitioned
from dualwrite.errors import RowProblem
from dualwrite.mapping.compile import CompiledMap
from dualwrite.model import Key, Row, Side


@dataclass(frozen=True, slots=True)
class Difference:
    """A record on which the sides do not agree: its rows (None: no record there) and the units that differ."""

    key: Key
    left: Row | None
    right: Row | None
    units: tuple[str, ...] = ()

    def row(self, side: Side) -> Row | None:
        """The row on that side."""
        return self.left if side is Side.LEFT else self.right

    @property
    def only(self) -> Side | None:
        """The side on which alone the record exists; None when both have it."""
        return Side.LEFT if self.right is None else Side.RIGHT if self.left is None else None


@dataclass(frozen=True, slots=True)
class Unusable:
    """A record that cannot be compared: the side at fault, a stable code, the reason, its rows there."""

    key: Key
    side: Side
    code: str
    reason: str
    rows: tuple[Row, ...]


Finding: TypeAlias = Difference | Unusable
Outside: TypeAlias = Callable[[Side, Sequence[Key]], set[Key]]
"""Which of these natural keys exist on a side although its filter hides them."""


@dataclass
class Tally:
    """What a comparison has counted so far; ``told`` is called as reading goes on, with the number of rows read."""

    told: Callable[[int], None] = lambda _: None
    read: dict[Side, int] = field(default_factory=lambda: {Side.LEFT: 0, Side.RIGHT: 0})
    equal: int = 0
    detached: int = 0


def compare(
    compiled: CompiledMap, snapshots: Mapping[Side, Snapshot], outside: Outside | None, tally: Tally
) -> Iterator[Finding]:
    """All findings of a map, in no promised order; equal and detached records are only counted in ``tally``.

    ``outside`` is asked only where a side has a filter, in groups.
    """
    streams = {side: _rows(snapshot, side, tally) for side, snapshot in snapshots.items()}
    first = {side: next(stream, None) for side, stream in streams.items()}
    for side in Side:
        if first[side] is None:
            block = first[side.other]
            rows = chain(() if block is None else block, chain.from_iterable(streams[side.other]))
            findings = _one_sided(compiled, side.other, rows)
            break
    else:
        blocks = {side: chain([first[side] or []], streams[side]) for side in Side}
        findings = _both(compiled, blocks, tally)
    if outside is None or all(view.filter is None for view in compiled.views.values()):
        yield from findings
    else:
        yield from _within(compiled, findings, outside, tally)


def _rows(snapshot: Snapshot, side: Side, tally: Tally) -> Iterator[list[Row]]:
    for block in snapshot.blocks():
        if block:
            tally.read[side] += len(block)
            tally.told(sum(tally.read.values()))
            yield block


def _one_sided(compiled: CompiledMap, side: Side, rows: Iterator[Row]) -> Iterator[Finding]:
    if compiled.unique[side]:
        for row in rows:
            try:
                yield _alone(compiled.key(side, row), side, row)
            except RowProblem as problem:
                yield _unusable(compiled, side, row, problem)
        return
    parts = Partitioned()  # the key may occur twice
    for row in rows:
        try:
            parts.add(compiled.key(side, row), row)
        except RowProblem as problem:
            yield _unusable(compiled, side, row, problem)
    for index in range(PARTITIONS):
        held = _group(parts, index)
        for key, found in held.items():
            yield _alone(key, side, found)


def _both(compiled: CompiledMap, blocks: Mapping[Side, Iterator[list[Row]]], tally: Tally) -> Iterator[Finding]:
    parts = {side: Partitioned() for side in Side}
    for side in Side:
        add, key_of = parts[side].add, compiled.key
        for block in blocks[side]:
            for row in block:
                try:
                    add(key_of(side, row), row)
                except RowProblem as problem:
                    yield _unusable(compiled, side, row, problem)
    for index in range(PARTITIONS):
        lefts, rights = _group(parts[Side.LEFT], index), _group(parts[Side.RIGHT], index)
        for key, found in lefts.items():
            yield from _pair(compiled, key, found, rights.pop(key, None), tally)
        for key, found in rights.items():
            yield _alone(key, Side.RIGHT, found)


def _group(parts: Partitioned, index: int) -> dict[Key, Row | list[Row]]:
    """The rows of a part by key; several rows of one key as a list."""
    held: dict[Key, Row | list[Row]] = {}
    for key, row in parts.part(index):
        known = held.get(key)
        if known is None:
            held[key] = row
        elif isinstance(known, list):
            known.append(row)
        else:
            held[key] = [known, row]
    return held


def _alone(key: Key, side: Side, found: Row | list[Row]) -> Finding:
    if isinstance(found, list):
        return _twice(key, side, found)
    return Difference(key, found, None) if side is Side.LEFT else Difference(key, None, found)


def _twice(key: Key, side: Side, rows: list[Row]) -> Unusable:
    reason = f"{len(rows)} records on the {side} side hold this key"
    return Unusable(key, side, "duplicate_key", reason, tuple(rows))


def _pair(
    compiled: CompiledMap, key: Key, left: Row | list[Row], right: Row | list[Row] | None, tally: Tally
) -> Iterator[Finding]:
    if isinstance(left, list):
        yield _twice(key, Side.LEFT, left)
    if isinstance(right, list):
        yield _twice(key, Side.RIGHT, right)
    if isinstance(left, list) or isinstance(right, list):
        return
    if right is None:
        yield Difference(key, left, None)
        return
    try:
        units = compiled.agree(left, right)
    except RowProblem as problem:  # whoever applies or shows the difference meets the same problem, and tells
        units = [problem.column]
    if units:
        yield Difference(key, left, right, tuple(units))
    else:
        tally.equal += 1


def _unusable(compiled: CompiledMap, side: Side, row: Row, problem: RowProblem) -> Unusable:
    natural = tuple(cell if isinstance(cell := row[index], str) else None for index in compiled.views[side].key)
    return Unusable(natural, side, problem.code, str(problem), (row,))


def _within(compiled: CompiledMap, findings: Iterator[Finding], outside: Outside, tally: Tally) -> Iterator[Finding]:
    """Leave out, and count, records whose counterpart exists but is outside its filter."""
    waiting: list[Difference] = []
    for finding in findings:
        side = finding.only if isinstance(finding, Difference) else None
        if side is None or compiled.views[side.other].filter is None:
            yield finding
            continue
        assert isinstance(finding, Difference)
        waiting.append(finding)
        if len(waiting) >= 1_000:
            yield from _attached(compiled, waiting, outside, tally)
            waiting = []
    yield from _attached(compiled, waiting, outside, tally)


def _attached(compiled: CompiledMap, waiting: list[Difference], outside: Outside, tally: Tally) -> Iterator[Finding]:
    for side in Side:
        natural: dict[Key, list[Difference]] = {}
        for difference in waiting:
            row = difference.row(side)
            if difference.only is side and row is not None:
                try:
                    natural.setdefault(compiled.target_key(side, row), []).append(difference)
                except RowProblem:
                    yield difference
        hidden = outside(side.other, list(natural)) if natural else set()
        for key, group in natural.items():
            if key in hidden:
                tally.detached += len(group)
            else:
                yield from group
