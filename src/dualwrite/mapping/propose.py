"""Maps for the tables of two schemas that match by name, type and values: the first draft that a person then edits.

Nothing is guessed where two readings are possible; everything left out is said in a sentence.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from dualwrite.mapping.evidence import Evidence, Read, Samples, is_telling, overlap, together, weigh
from dualwrite.mapping.matching import LEAST, SURE, Match, Matched, Matcher, Slot, slots, whole
from dualwrite.mapping.pairing import Taken, table_pairs
from dualwrite.mapping.paths import candidate_keys, natural
from dualwrite.mapping.tablemap import ColumnMapping, Company, Direction, TableMap
from dualwrite.model import Path, Side
from dualwrite.schema import Reference, Schema, Table

NO_KEY: Final = "have no key in common: declare one, or write the map by hand."
LEVELS: Final = ("sure", "likely", "unsure")
SAME_ROWS: Final = 200
"""Records that are on both sides beyond which no more are compared."""


@dataclass(frozen=True, slots=True)
class Remark:
    """How sure a column line is (``sure``, ``likely`` or ``unsure``), and why."""

    confidence: str
    why: str

    def __str__(self) -> str:
        return f"{self.confidence}: {self.why}"


@dataclass(frozen=True, slots=True)
class Proposal:
    """The maps, a remark for each of their columns, and sentences that say what has no map and why."""

    maps: tuple[TableMap, ...]
    skipped: tuple[str, ...]
    remarks: Mapping[str, tuple[Remark, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Pair:
    """A left and a right table, their columns that match, and those of the key."""

    left: Table
    right: Table
    company: Company | None
    matches: tuple[Match, ...]
    key: tuple[Match, ...]


def no_rows(_side: Side, _table: Table) -> Sequence[Sequence[str | None]]:
    """No rows are looked at."""
    return ()


def propose(
    left: Schema,
    right: Schema,
    include: Sequence[str] = (),
    read: Read = no_rows,
    taken: Taken = MappingProxyType({}),
) -> Proposal:
    """A map for each pair of tables that match, but those that are taken.

    ``include`` are glob patterns of table names on either side, ``read`` gives some rows of a table.
    """
    samples = Samples({Side.LEFT: left, Side.RIGHT: right}, read)
    paired = table_pairs(samples, include, taken)
    skipped = paired.skipped
    pairs: dict[tuple[str, str], _Pair] = {}
    for left_table, right_table in paired.tables:
        pair, remarks = _Comparison(samples, left_table, right_table).pair()
        skipped += [f"{left_table.name} and {right_table.name} {remark}" for remark in remarks]
        if pair is not None:
            pairs[left_table.name, right_table.name] = pair
    made = [_map(pair, pairs, doubted=names in paired.looks) for names, pair in pairs.items()]
    return Proposal(tuple(each for each, _ in made), tuple(skipped), {each.name: remarks for each, remarks in made})


# ----------------------------------------------------------------------------------------------------- columns


class _Comparison:
    """Two tables, column by column: by names first, then, with a key, by what both hold of the same records."""

    def __init__(self, samples: Samples, left: Table, right: Table) -> None:
        self._samples = samples
        self._tables = {Side.LEFT: left, Side.RIGHT: right}
        schemas = samples.schemas
        self._company = _company(schemas, left, right)
        company = self._company
        self._lefts = slots(schemas[Side.LEFT], left, company.left if company else None)
        self._rights = slots(schemas[Side.RIGHT], right, company.right if company else None)
        self._rows: list[tuple[int, int]] = []

    def pair(self) -> tuple[_Pair | None, list[str]]:
        """The two tables with what matches, and remarks on what does not; None when they have no key in common."""
        found = self._match(())
        key = self._key(found.matches)
        if key is None:
            return None, [NO_KEY]
        if self._align(key) or not set(key) <= set(found.matches):
            found = self._match(key)
        matches = whole(found.matches, self._lefts, self._rights)
        if not set(key) <= set(matches):
            return None, [NO_KEY]
        left, right = self._tables.values()
        return _Pair(left, right, self._company, matches, key), list(found.doubts)

    def _match(self, given: Iterable[Match]) -> Matched:
        fixed = {match.mine.path: match for match in given}
        if self._company is not None:
            ends = [_at(self._lefts, self._company.left), _at(self._rights, self._company.right)]
            if ends[0] is not None and ends[1] is not None:
                fixed[self._company.left] = Match(ends[0], ends[1], 1.0, "the company")
        return Matcher(self._lefts, self._rights, self._weigh).match(fixed.values())

    def _weigh(self, mine: Slot, theirs: Slot) -> Evidence:
        return weigh(mine.end, theirs.end, self._held(Side.LEFT, mine), self._held(Side.RIGHT, theirs), self._rows)

    def _held(self, side: Side, slot: Slot) -> Sequence[str | None]:
        return self._samples.values(side, self._tables[side], slot.path)

    def _align(self, key: Sequence[Match]) -> bool:
        """Find the records that are in both samples; were there any?"""
        sides = [[self._held(Side.LEFT, match.mine) for match in key]]
        sides.append([self._held(Side.RIGHT, match.theirs) for match in key])
        self._rows = together(*sides)[:SAME_ROWS]
        return bool(self._rows)

    # -- keys -----------------------------------------------------------------------------------------------------

    def _keys(self, side: Side) -> list[tuple[Path, ...]]:
        return candidate_keys(self._samples.schemas[side], self._tables[side])

    def _key(self, matches: Sequence[Match]) -> tuple[Match, ...] | None:
        """By what the records match: a key of both tables, or one that only one of them declares, or what looks like
        one in both samples."""
        matched = whole(matches, self._lefts, self._rights)
        return (
            self._common_key(matched)
            or self._last_key(matched)
            or self._one_sided(matched, Side.LEFT)
            or self._one_sided(matched, Side.RIGHT)
            or self._by_values(matched)
        )

    def _common_key(self, matches: Sequence[Match]) -> tuple[Match, ...] | None:
        """The members of the first key that both tables have, of matching columns."""
        by_left = {match.mine.path: match for match in matches}
        rights = [frozenset(key) for key in self._keys(Side.RIGHT)]
        for key in self._keys(Side.LEFT):
            members = [by_left[path] for path in key if path in by_left]
            if len(members) == len(key) and frozenset(match.theirs.path for match in members) in rights:
                return tuple(members)
        return None

    def _one_sided(self, matches: Sequence[Match], side: Side) -> tuple[Match, ...] | None:
        """The first key of a side whose members all match, where the other side has no key but an id of its own."""
        ends = {(match.mine if side is Side.LEFT else match.theirs).path: match for match in matches}
        raw = {slot.path for slot in (*self._lefts, *self._rights) if slot.raw}
        if any(not set(key) <= raw for key in self._keys(side.other)):
            return None
        keys = (key for key in self._keys(side) if set(key) <= ends.keys() and not set(key) & raw)
        return next((tuple(ends[path] for path in key) for key in keys), None)

    def _by_values(self, matches: Sequence[Match]) -> tuple[Match, ...] | None:
        """The one pair of columns, all of whose values differ in both samples, where neither side declares a key."""
        if any(self._keys(side) for side in Side):
            return None
        found = [match for match in matches if not match.mine.raw and all(map(is_telling, self._both(match)))]
        return (found[0],) if len(found) == 1 else None

    def _both(self, match: Match) -> Sequence[Sequence[str | None]]:
        return self._held(Side.LEFT, match.mine), self._held(Side.RIGHT, match.theirs)

    def _last_key(self, matches: Sequence[Match]) -> tuple[Match, ...] | None:
        """A key of which one member has no counterpart by its name: where only one is left on the other side.

        Both must be able to hold each other's values, and share some where enough of them are known.
        """
        pairs = {match.mine.path: match.theirs.path for match in matches}
        by_left = {match.mine.path: match for match in matches}
        sure = {end.path for match in matches if match.score >= SURE for end in (match.mine, match.theirs)}
        found = []
        for left in self._keys(Side.LEFT):
            for right in self._keys(Side.RIGHT):
                mine = [path for path in left if pairs.get(path) not in right]
                theirs = [path for path in right if path not in [pairs.get(path) for path in left]]
                if len(left) == len(right) and len(mine) == len(theirs) == 1 and not sure & {*mine, *theirs}:
                    made = self._by_place(_at(self._lefts, mine[0]), _at(self._rights, theirs[0]))
                    found += [(*(by_left[path] for path in left if path != mine[0]), made)] if made else []
        return found[0] if len(found) == 1 else None

    def _by_place(self, mine: Slot | None, theirs: Slot | None) -> Match | None:
        if mine is None or theirs is None or mine.raw or theirs.raw or mine.end.type.name is not theirs.end.type.name:
            return None
        shared = overlap(self._held(Side.LEFT, mine), self._held(Side.RIGHT, theirs))
        if shared is None:
            return Match(mine, theirs, LEAST, "both tell the records apart")
        told = f"both tell the records apart, and {shared:.0%} of the values are the same"
        return Match(mine, theirs, LEAST + shared / 3, told) if shared >= 0.2 else None


def _at(found: Iterable[Slot], path: Path) -> Slot | None:
    return next((slot for slot in found if slot.path == path), None)


def _company(schemas: Mapping[Side, Schema], left: Table, right: Table) -> Company | None:
    """The company's paths, where both sides have one that can be read."""
    for side, table in ((Side.LEFT, left), (Side.RIGHT, right)):
        names = tuple(column.name for column in table.columns)
        if table.company is None or table.company not in natural(schemas[side], table, names):
            return None
    return Company(left.company, right.company) if left.company and right.company else None


# -------------------------------------------------------------------------------------------------------- maps


def _map(pair: _Pair, pairs: Mapping[tuple[str, str], _Pair], *, doubted: bool) -> tuple[TableMap, tuple[Remark, ...]]:
    company = pair.company.left if pair.company else None
    carried = [each for each in pair.matches if each.mine.path != company and _means_the_same(pair, each, pairs)]
    lines = [
        (ColumnMapping(match.mine.path, direction, match.theirs.path, (match.values,) if match.values else ()), match)
        for match in carried
        if (direction := _direction(match)) is not None
    ]
    key = tuple(match.theirs.path for match in pair.key if match.mine.path != company)
    left, right = pair.left.name, pair.right.name
    name = left if left == right else f"{left} ({right})"
    made = TableMap(name, left, right, tuple(line for line, _ in lines), company=pair.company, key=key or None)
    return made, tuple(_remark(line, match, doubted) for line, match in lines)


def _remark(line: ColumnMapping, match: Match, doubted: bool) -> Remark:
    """How sure a line is: not quite, where the tables themselves are doubted."""
    one_way = "" if line.direction is Direction.BOTH else ", the other side is read-only"
    confidence = LEVELS[1] if doubted and match.confidence == LEVELS[0] else match.confidence
    return Remark(confidence, match.words + one_way)


def _means_the_same(pair: _Pair, match: Match, pairs: Mapping[tuple[str, str], _Pair]) -> bool:
    """Ids made by a system mean the same on both sides only where they are the key by which the records match."""
    if not match.mine.raw or match in pair.key:
        return True
    left, right = _parent(pair.left, match.mine), _parent(pair.right, match.theirs)
    parents = pairs.get((left.table, right.table)) if left and right else None
    keys = [(each.mine.path, each.theirs.path) for each in parents.key] if parents else []
    return left is not None and right is not None and keys == [(left.to, right.to)]


def _parent(table: Table, slot: Slot) -> Reference | None:
    return next((each for each in table.references if each.columns == (slot.holder.name,)), None)


def _direction(match: Match) -> Direction | None:
    """Both ways, unless a side cannot be written."""
    match match.mine.holder.read_only, match.theirs.holder.read_only:
        case False, False:
            return Direction.BOTH
        case False, True:
            return Direction.TO_LEFT
        case True, False:
            return Direction.TO_RIGHT
        case _:
            return None
