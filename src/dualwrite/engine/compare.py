"""Compare the two tables of a map: what differs, per record.

One function with four uses: ``plan`` prints it, initial sync applies it, ``verify`` reports it, ``repair`` applies it.
Memory stays bounded: rows that do not soon meet their counterpart are cut by their keys into parts on disk; where one
side is empty the other streams through.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Protocol, TypeAlias

from dualwrite.engine.same import Same
from dualwrite.engine.spool import IN_MEMORY, Entry, Partitioned, parts_of
from dualwrite.errors import RowProblem
from dualwrite.lined import LARGEST, Later, Lined, weight
from dualwrite.mapping.compile import CompiledMap
from dualwrite.model import ABSENT, Key, Row, Side


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
class Alone:
    """Records that exist on one side only, many at once: their keys in common form, and their rows there."""

    side: Side
    keys: Sequence[Key]
    rows: Sequence[Row]

    def differences(self) -> Iterator[Difference]:
        """The same, one by one."""
        for key, row in zip(self.keys, self.rows, strict=True):
            yield Difference(key, row, None) if self.side is Side.LEFT else Difference(key, None, row)


@dataclass(frozen=True, slots=True)
class Unusable:
    """A record that cannot be compared: the side at fault, a stable code, the reason, its rows there."""

    key: Key
    side: Side
    code: str
    reason: str
    rows: tuple[Row, ...]


class Held(Protocol):
    """The rows of a side."""

    def blocks(self) -> Iterator[Sequence[Row]]:
        """See ``Snapshot``."""
        ...


Finding: TypeAlias = Difference | Alone | Unusable
Outside: TypeAlias = Callable[[Side, Sequence[Key]], set[Key]]
"""Which of these natural keys exist on a side although its filter hides them."""

ASKED_AT_ONCE = 1_000


@dataclass
class Tally:
    """What a comparison has counted so far; ``told`` is called as reading goes on, with the number of rows read.

    ``alone`` is the side that alone has records, known before the first finding.  ``companies`` counts the same (and
    what its caller adds) per company, which is ``member`` of the keys; without one, under an empty name.
    """

    told: Callable[[int], None] = lambda _: None
    read: dict[Side, int] = field(default_factory=lambda: {Side.LEFT: 0, Side.RIGHT: 0})
    equal: int = 0
    detached: int = 0
    alone: Side | None = None
    member: int | None = None
    companies: dict[str, Counter[str]] = field(default_factory=dict)

    def count(self, what: str, keys: Sequence[Key | None]) -> None:
        """Count records per company."""
        member = self.member
        if member is None:
            self._of("")[what] += len(keys)
            return
        found = Counter("" if key is None else key[member] or "" for key in keys)
        for company, number in found.items():
            self._of(company)[what] += number

    def _of(self, company: str) -> Counter[str]:
        return self.companies.setdefault(company, Counter())

    def agreed(self, keys: Sequence[Key | None]) -> None:
        """These records are equal on both sides."""
        self.equal += len(keys)
        self.count("unchanged", keys)


def compare(
    compiled: CompiledMap, snapshots: Mapping[Side, Held], outside: Outside | None, tally: Tally
) -> Iterator[Finding]:
    """All findings of a map, in no promised order; equal and detached records are only counted in ``tally``.

    ``outside`` is asked only where a side has a filter, in groups.
    """
    tally.member = company_member(compiled)
    blocks = {side: _blocks(snapshot, side, tally) for side, snapshot in snapshots.items()}
    first = {side: next(found, None) for side, found in blocks.items()}
    whole = {side: chain([] if (block := first[side]) is None else [block], blocks[side]) for side in Side}
    empty = next((side for side in Side if first[side] is None), None)
    tally.alone = None if empty is None else empty.other
    if empty is None:
        findings = _both(compiled, whole, tally)
    else:
        findings = _one_sided(compiled, empty.other, whole[empty.other], tally)
    if outside is None or all(view.filter is None for view in compiled.views.values()):
        yield from findings
    else:
        yield from _within(compiled, findings, outside, tally)


def foreseen(compiled: CompiledMap, source: Side, row: Row) -> Row:
    """What a record's row of ``source`` will be once the other side has got it, as far as can be told: its columns that
    belong to that side come back from there.

    They are made of what that side gets; a default or a trigger there may fill in more.
    """
    owned = compiled.owned_elsewhere(source)
    try:
        got = compiled.map_row(source, row) if owned else ()
    except RowProblem:  # that side does not get it
        return row
    back, _ = compiled.map_known(source.other, tuple(None if cell is ABSENT else cell for cell in got))
    return tuple(back[n] if n in owned and back[n] is not ABSENT else cell for n, cell in enumerate(row))


def company_member(compiled: CompiledMap) -> int | None:
    """Which member of the map's keys says the company; None where it has none."""
    at = compiled.company.get(Side.LEFT)
    return None if at is None else compiled.views[Side.LEFT].key.index(at)


def _blocks(snapshot: Held, side: Side, tally: Tally) -> Iterator[Sequence[Row]]:
    for block in snapshot.blocks():
        if block:
            tally.read[side] += len(block)
            tally.told(sum(tally.read.values()))
            yield block


def _keyed(
    compiled: CompiledMap, side: Side, block: Sequence[Row], unusable: list[Unusable], tally: Tally
) -> tuple[Sequence[Key], Sequence[Row]]:
    """The keys of a block's rows, and these; rows without a usable key are left out, and told in ``unusable``."""
    found = compiled.keys(side, block)
    tally.count(f"read {side}", found)
    if isinstance(found, Later):
        return found, block  # none lacks a key, or they would not be left for later
    keys = [key for key in found if key is not None]
    if len(keys) < len(found):
        unusable += [_unusable(compiled, side, row) for key, row in zip(found, block, strict=True) if key is None]
        block = [row for key, row in zip(found, block, strict=True) if key is not None]
    return keys, block


def _one_sided(compiled: CompiledMap, side: Side, blocks: Iterator[Sequence[Row]], tally: Tally) -> Iterator[Finding]:
    unusable: list[Unusable] = []
    keyed = (_keyed(compiled, side, block, unusable, tally) for block in blocks)
    if compiled.unique[side]:
        for keys, rows in keyed:
            yield Alone(side, keys, rows)
    else:
        parts = Partitioned()  # the key may occur twice
        for keys, rows in keyed:
            parts.add(keys, rows)
        for (entries,) in parts_of(parts):
            yield from _alone(side, _group(entries))
    yield from unusable


def _both(compiled: CompiledMap, blocks: Mapping[Side, Iterator[Sequence[Row]]], tally: Tally) -> Iterator[Finding]:
    parts = {side: Partitioned() for side in Side}
    unusable: list[Unusable] = []
    if all(compiled.unique.values()):
        read = _not_the_same(compiled, _in_turn(blocks), tally)
        keyed = ((side, *_keyed(compiled, side, block, unusable, tally)) for side, block in read)
        yield from _met(compiled, keyed, parts, tally)
    else:  # a key may occur twice
        for side in Side:
            for block in blocks[side]:
                parts[side].add(*_keyed(compiled, side, block, unusable, tally))
    yield from unusable
    for each in parts_of(parts[Side.LEFT], parts[Side.RIGHT]):
        lefts, rights = map(_group, each)
        alone: dict[Key, Row | list[Row]] = {}
        for key, left in lefts.items():
            right = rights.pop(key, None)
            if right is None:
                alone[key] = left
            elif isinstance(left, list) or isinstance(right, list):
                yield from (
                    _twice(key, side, found)
                    for side, found in ((Side.LEFT, left), (Side.RIGHT, right))
                    if isinstance(found, list)
                )
            elif units := _disagreeing(compiled, left, right):
                yield Difference(key, left, right, tuple(units))
            else:
                tally.agreed([key])
        yield from _alone(Side.LEFT, alone)
        yield from _alone(Side.RIGHT, rights)


def _met(
    compiled: CompiledMap,
    keyed: Iterator[tuple[Side, Sequence[Key], Sequence[Row]]],
    parts: Mapping[Side, Partitioned],
    tally: Tally,
) -> Iterator[Finding]:
    """Compare records of which both rows are in memory at once, as both sides come in turn: nearly all of them where
    the tables lie in about the same order.  The others are put into parts."""
    waiting: dict[Side, dict[Key, Row]] = {side: {} for side in Side}
    size = 0
    for side, keys, rows in keyed:
        mine, others = waiting[side], waiting[side.other]
        found = [others.pop(key, None) for key in keys]
        alone = [number for number, row in enumerate(found) if row is None]
        if alone:
            mine.update((keys[number], rows[number]) for number in alone)
            size += weight([rows[number] for number in alone])
        pairs = [(key, row, other) for key, row, other in zip(keys, rows, found, strict=True) if other is not None]
        if pairs:
            size -= weight([other for _, _, other in pairs])
            yield from _differing(compiled, side, pairs, tally)
        if len(mine) + len(others) > IN_MEMORY or size > LARGEST:
            _set_aside(waiting, parts)
        if not (mine or others):
            size = 0
    _set_aside(waiting, parts)


def _in_turn(blocks: Mapping[Side, Iterator[Sequence[Row]]]) -> Iterator[tuple[Side, Sequence[Row]]]:
    """A block of one side, then one of the other, and so on until both have ended."""
    reading = dict(blocks)
    while reading:
        for side in list(reading):
            block = next(reading[side], None)
            if block is None:
                del reading[side]
            else:
                yield side, block


def _not_the_same(
    compiled: CompiledMap, blocks: Iterator[tuple[Side, Sequence[Row]]], tally: Tally
) -> Iterator[tuple[Side, Sequence[Row]]]:
    """Leave out, and count, records whose lines tell that they are equal."""
    same = Same(compiled)
    for side, block in blocks:
        if not isinstance(block, Lined) or not compiled.passing.has_keys(block):
            yield side, block
            continue
        keys, others = same.meet(side, block)
        tally.agreed(keys)
        for each in Side:
            tally.count(f"read {each}", keys)
        yield from ((each, rows) for each, rows in others.items() if rows)
        yield from same.let_go()
    yield from same.let_go(most=0)


def _set_aside(waiting: Mapping[Side, dict[Key, Row]], parts: Mapping[Side, Partitioned]) -> None:
    for side, held in waiting.items():
        parts[side].add(list(held), list(held.values()))
        held.clear()


def _differing(
    compiled: CompiledMap, side: Side, pairs: Sequence[tuple[Key, Row, Row]], tally: Tally
) -> Iterator[Difference]:
    """Of records with the rows of a side and of the other one, those that do not agree."""
    keys, mine, others = zip(*pairs, strict=True)
    lefts, rights = (mine, others) if side is Side.LEFT else (others, mine)
    agree = compiled.surely_agree(lefts, rights)
    tally.agreed([key for key, is_sure in zip(keys, agree, strict=True) if is_sure])
    for number in [number for number, is_sure in enumerate(agree) if not is_sure]:
        left, right = lefts[number], rights[number]
        if units := _disagreeing(compiled, left, right):
            yield Difference(keys[number], left, right, tuple(units))
        else:
            tally.agreed([keys[number]])


def _group(entries: Sequence[Entry]) -> dict[Key, Row | list[Row]]:
    """Rows by their keys; several rows of one key as a list."""
    held: dict[Key, Row | list[Row]] = dict(entries)
    if len(held) == len(entries):
        return held
    rows: dict[Key, list[Row]] = {}
    for key, row in entries:
        rows.setdefault(key, []).append(row)
    return {key: found[0] if len(found) == 1 else found for key, found in rows.items()}


def _disagreeing(compiled: CompiledMap, left: Row, right: Row) -> Sequence[str]:
    try:
        return compiled.agree(left, right)
    except RowProblem as problem:  # whoever applies or shows the difference meets the same problem, and tells
        return [problem.column]


def _alone(side: Side, held: Mapping[Key, Row | list[Row]]) -> Iterator[Finding]:
    """What exists on one side only."""
    single = {key: found for key, found in held.items() if not isinstance(found, list)}
    if single:
        yield Alone(side, list(single), list(single.values()))
    if len(single) < len(held):
        yield from (_twice(key, side, found) for key, found in held.items() if isinstance(found, list))


def _twice(key: Key, side: Side, rows: list[Row]) -> Unusable:
    reason = f"{len(rows)} records on the {side} side hold this key"
    return Unusable(key, side, "duplicate_key", reason, tuple(rows))


def _unusable(compiled: CompiledMap, side: Side, row: Row) -> Unusable:
    try:
        compiled.key(side, row)
    except RowProblem as problem:
        return Unusable(compiled.views[side].natural_key(row), side, problem.code, str(problem), (row,))
    raise AssertionError("the row has a key")


def _within(compiled: CompiledMap, findings: Iterator[Finding], outside: Outside, tally: Tally) -> Iterator[Finding]:
    """Leave out, and count, records whose counterpart exists but is outside its filter."""
    for finding in findings:
        if not isinstance(finding, Alone) or compiled.views[finding.side.other].filter is None:
            yield finding
            continue
        for start in range(0, len(finding.keys), ASKED_AT_ONCE):
            part = slice(start, start + ASKED_AT_ONCE)
            yield _attached(compiled, Alone(finding.side, finding.keys[part], finding.rows[part]), outside, tally)


def _attached(compiled: CompiledMap, alone: Alone, outside: Outside, tally: Tally) -> Alone:
    naturals: list[Key | None] = []
    for row in alone.rows:
        try:
            naturals.append(compiled.target_key(alone.side, row))
        except RowProblem:
            naturals.append(None)
    hidden = outside(alone.side.other, [key for key in naturals if key is not None])
    kept = [number for number, key in enumerate(naturals) if key is None or key not in hidden]
    outside_of_it = [key for key, natural in zip(alone.keys, naturals, strict=True) if natural in hidden]
    tally.detached += len(outside_of_it)
    tally.count(f"detached {alone.side.other}", outside_of_it)
    return Alone(alone.side, [alone.keys[n] for n in kept], [alone.rows[n] for n in kept])
