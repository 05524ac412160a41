"""The oracle: its own simple idea of table maps, the history of what users did, and the judgement at rest.

It shares nothing with what it judges: a ``MapIdea`` is a few dict functions, written from the description of a map; an
edit's place in the history, and what it had seen of the other side, come from watching the two systems.  At rest the
judge asks: do both sides agree under the map, and is every committed edit visible, superseded by one that had seen it,
in the conflict log, or parked?
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from enum import Enum

from dualwrite.journal import Conflict
from dualwrite.model import Position, Side, Value

L, R = Side.LEFT, Side.RIGHT
ONE_WAY = {">": L, "<": R}
"""Sign of a one-way line → the side that owns it."""


class Special(Enum):
    """What a cell is when it is no value."""

    UNKNOWN = "a lookup whose record is gone"
    LEAVE = "leave the target alone"
    BAD = "cannot be carried"


Cell = Value | Special
Record = Mapping[str, Cell]
Key = tuple[Value, ...]


@dataclass(frozen=True)
class Line:
    """One column mapping, as a person writes it: left path, sign (``=``, ``>``, ``<``), right path, the rest."""

    left: str | None
    sign: str
    right: str | None
    values: tuple[tuple[str, str], ...] = ()
    otherwise: str | None = None
    default: str | None = None
    policy: str | None = None

    @property
    def name(self) -> str:
        """What conflicts call it."""
        return self.right or self.left or ""

    def path(self, side: Side) -> str | None:
        """Its column on a side."""
        return self.left if side is L else self.right

    def carries(self, source: Side) -> bool:
        """Does what users of that side write reach the other one?"""
        return ONE_WAY.get(self.sign, source) is source

    def carry(self, source: Side, value: Cell) -> Cell:
        """What a value becomes on the other side."""
        if value is Special.UNKNOWN:
            return Special.LEAVE
        pairs = dict(self.values) if source is L else {right: left for left, right in self.values}
        if value is None:
            return self._default(source)
        if not self.values or value in pairs:
            return pairs.get(value, value)  # type: ignore[arg-type]
        if self.otherwise == "keep":
            return Special.LEAVE
        if self.otherwise == "park":
            return Special.BAD
        return value

    def _default(self, source: Side) -> Value:
        if source is R and self.sign == "=":  # written as the right side has it
            return next((left for left, right in self.values if right == self.default), self.default)
        return self.default

    def agrees(self, left: Cell, right: Cell) -> bool:
        """Are these two cells of one record in step?"""
        cells = {L: left, R: right}
        ways = [source for source in Side if self.carries(source)]
        carried = {source: self.carry(source, cells[source]) for source in ways}
        return Special.UNKNOWN in cells.values() or any(
            carried[source] is Special.LEAVE or carried[source] == cells[source.other] for source in ways
        )


@dataclass(frozen=True)
class Filter:
    """A record passes when its column holds the value (or, negated, another one); without a value it never does."""

    column: str
    value: str
    negated: bool = False

    def passes(self, record: Record) -> bool:
        """Does it?"""
        held = record[self.column]
        return held is not None and (held == self.value) != self.negated


@dataclass(frozen=True)
class MapIdea:
    """A table map in the oracle's own words.  ``key`` are right-hand paths; ``company`` is the pair of its paths."""

    name: str
    left: str
    right: str
    lines: tuple[Line, ...]
    key: tuple[str, ...] = ("code",)
    company: tuple[str, str] | None = None
    filters: Mapping[Side, Filter] = field(default_factory=dict)
    policy: str = "newest"
    rows: str = "keep"
    deletes: bool = True
    on_leave: str = "detach"

    def table(self, side: Side) -> str:
        """The table on a side."""
        return self.left if side is L else self.right

    def key_paths(self, side: Side) -> tuple[str, ...]:
        """The columns that hold the key on a side."""
        left = {line.right: line.left for line in self.lines if line.left and line.right}
        paths = [(left[path] or "") if side is L else path for path in self.key]
        if self.company is not None and self.company[1] not in self.key:
            paths.append(self.company[0 if side is L else 1])
        return tuple(paths)

    def identify(self, side: Side, record: Record) -> Key | None:
        """The record's key in common form; None when it has none (that can be known)."""
        cells = [record[path] for path in self.key_paths(side)]
        if any(isinstance(cell, Special) for cell in cells) or not any(cells):
            return None
        return tuple(cell or None for cell in cells)  # type: ignore[misc]

    def paths(self, side: Side) -> set[str]:
        """Every column that matters on a side."""
        found = {path for line in self.lines if (path := line.path(side))}
        found.update(self.key_paths(side))
        if side in self.filters:
            found.add(self.filters[side].column)
        return found

    def inside(self, side: Side, record: Record, companies: tuple[str, ...] | None) -> bool:
        """Does the record pass the side's filter and the companies that the link covers?"""
        if self.company is not None and companies is not None:
            company = record[self.company[0 if side is L else 1]]
            if company not in companies:
                return False
        return side not in self.filters or self.filters[side].passes(record)

    def policy_of(self, line: Line) -> str:
        """How a contested value of the line is decided."""
        return line.policy or self.policy


# -- history -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Edit:
    """What one committed statement did to one record of a map.

    ``start`` and ``end`` enclose its transaction in the feed of its side; ``seen`` is how far the side had received the
    other by then, ``parked`` the first change of the other side that waited for this record, and so had not been seen.
    ``caused`` edits were made by the system itself, by triggers and cascades, while the engine wrote.
    """

    side: Side
    number: int
    map: str
    key: Key
    before: Record | None
    after: Record | None
    at: float
    start: Position
    end: Position
    seen: Position | None
    parked: Position | None = None
    caused: bool = False

    @property
    def kind(self) -> str:
        """insert, update or delete."""
        return "insert" if self.before is None else "delete" if self.after is None else "update"

    def wrote(self, line: Line) -> bool:
        """Did it write the line's column?"""
        path = line.path(self.side)
        if path is None or self.after is None:
            return False
        return self.before is None or self.before[path] != self.after[path]

    def saw(self, earlier: Edit) -> bool:
        """Was the earlier edit known on this one's side when this one was made?"""
        if earlier.side is self.side:
            return earlier.number < self.number
        if self.seen is None or not earlier.reached(self.seen):
            return False
        return self.parked is None or earlier.end < self.parked

    def reached(self, seen: Position) -> bool:
        """Does so much of its side's feed contain it?  A transaction that was carried in part counts as a whole."""
        return seen >= self.end or (seen > self.start and not is_weak(seen))

    def __str__(self) -> str:
        was, now = (
            None if row is None else {k: v for k, v in row.items() if v is not None}
            for row in (self.before, self.after)
        )
        what = f"{self.side} {self.kind} {self.map}{self.key}: {was} -> {now}"
        return f"{what} at={self.at} end={self.end} seen={self.seen}" + (
            f" parked={self.parked}" if self.parked else ""
        )


@dataclass
class Facts:
    """What the judge is told, all of it seen from outside.

    ``history`` holds all edits, ``edits`` those that the last initial sync of their map did not find in the tables.
    ``wandered`` are records that were outside of a filter at some time, ``strayed`` those that a side's users deleted
    there, with no edit of the other side since.  What was ``given_up`` was parked until a person let go of it.
    """

    maps: tuple[MapIdea, ...]
    companies: tuple[str, ...] | None
    history: list[Edit]
    edits: list[Edit]
    tables: Mapping[str, Mapping[Side, Mapping[Key, Record]]]
    synced: Mapping[str, Mapping[Side, Mapping[Key, Record]]]
    master: Side
    conflicts: list[Conflict]
    given_up: set[tuple[str, Key]]
    wandered: set[tuple[str, Key]]
    strayed: set[tuple[str, Key, Side]]
    feeds: Mapping[str, Side]
    noisy: frozenset[tuple[str, str]] = frozenset()
    """(map, line) pairs whose column a trigger writes: their edits are not followed one by one."""
    offset: float | None = 0.0
    """How much the right clock is ahead; None when it was set meanwhile."""


def judge(facts: Facts) -> list[str]:
    """Everything that is wrong with a link at rest; empty when all is well."""
    found: list[str] = []
    for idea in facts.maps:
        court = Court(facts, idea)
        found += court.verdicts()
    return found + list(strangers(facts))


class Court:
    """The judgement on one map."""

    def __init__(self, facts: Facts, idea: MapIdea) -> None:
        self.facts = facts
        self.idea = idea
        self.tables = facts.tables[idea.name]
        self.edits: dict[Key, list[Edit]] = {}
        for edit in facts.edits:
            if edit.map == idea.name:
                self.edits.setdefault(edit.key, []).append(edit)
        self.logged = [entry for entry in facts.conflicts if entry.map == idea.name]

    def verdicts(self) -> Iterator[str]:
        """All faults."""
        keys = {*self.tables[L], *self.tables[R], *self.edits, *self.facts.synced[self.idea.name][L]}
        for key in sorted(keys | set(self.facts.synced[self.idea.name][R]), key=repr):
            faults = list(self._record(key))
            for fault in faults:
                yield f"{self.idea.name} {key}: {fault}"
            if faults:
                yield from (f"    {edit}" for edit in self.edits.get(key, ()))

    def _record(self, key: Key) -> Iterator[str]:
        rows = {side: self.tables[side].get(key) for side in Side}
        wandered = (self.idea.name, key) in self.facts.wandered
        inside = {side: row is not None and self._inside(side, row) for side, row in rows.items()}
        if rows[L] is None and rows[R] is None:
            pass
        elif rows[L] is None or rows[R] is None:
            here = L if rows[R] is None else R
            if inside[here] and not self._may_lack(key, here.other):
                yield f"diverged: only on the {here}: {show(rows[here])}"
                return
        elif inside[L] and inside[R]:
            yield from self._columns(rows[L], rows[R])  # type: ignore[arg-type]
        if not wandered and (self.idea.name, key) not in self.facts.given_up:
            yield from self._lost(key, rows)
            yield from self._sums(key, rows)
            yield from self._untouched(key, rows)

    def _inside(self, side: Side, row: Record) -> bool:
        return self.idea.inside(side, row, self.facts.companies)

    def _may_lack(self, key: Key, side: Side) -> bool:
        """May a side be without a record that the other one has?"""
        mine = [edit for edit in self.edits.get(key, ()) if edit.side is side and edit.kind == "delete"]
        return bool(not self.idea.deletes and mine) or (self.idea.name, key, side) in self.facts.strayed

    def _columns(self, left: Record, right: Record) -> Iterator[str]:
        for line in self.idea.lines:
            cells = [None if (path := line.path(side)) is None else row[path] for side, row in ((L, left), (R, right))]
            if not line.agrees(*cells) and not self._zero(line, *cells):
                yield f"diverged in {line.name}: left {cells[0]!r}, right {cells[1]!r}"

    def _zero(self, line: Line, left: Cell, right: Cell) -> bool:
        """Null counts as nothing in a sum."""
        return self.idea.policy_of(line) == "sum" and not int(left or 0) and not int(right or 0)  # type: ignore[arg-type]

    # -- lost edits ---------------------------------------------------------------------------------------------------

    def _lost(self, key: Key, rows: Mapping[Side, Record | None]) -> Iterator[str]:
        mine = self.edits.get(key, [])
        for edit in mine:
            if edit.caused:
                continue
            later = [other for other in mine if other is not edit and other.saw(edit)]
            if edit.kind == "delete":
                stays = self.idea.deletes and rows[edit.side] is not None
                if stays and not later and not self._in_log(edit, "row") and not self._is_another(edit, mine):
                    yield f"lost: the delete {edit}"
                continue
            for line in self.idea.lines:
                if self._is_lost(edit, line, later, rows):
                    path = line.path(edit.side) or ""
                    yield f"lost: {line.name} = {(edit.after or {})[path]!r} of {edit}"
            gone = edit.kind == "insert" and rows[edit.side] is None
            if gone and not any(other.kind == "delete" for other in later) and not self._in_log(edit, "*"):
                yield f"lost: the insert {edit}"

    @staticmethod
    def _is_another(delete: Edit, mine: list[Edit]) -> bool:
        """Did the other side delete the record as well, and make another one behind that?"""
        theirs = [other for other in mine if other.side is not delete.side and not delete.saw(other)]
        gone = next((n for n, other in enumerate(theirs) if other.kind == "delete"), len(theirs))
        return any(other.kind == "insert" for other in theirs[gone:])

    def _is_lost(self, edit: Edit, line: Line, later: list[Edit], rows: Mapping[Side, Record | None]) -> bool:
        path = line.path(edit.side)
        if path is None or not edit.wrote(line) or not line.carries(edit.side) or not line.path(edit.side.other):
            return False
        value = (edit.after or {})[path]
        if (
            self.idea.policy_of(line) == "sum"
            or isinstance(value, Special)
            or (value is None and edit.kind == "insert")
        ):
            return False
        if (self.idea.name, line.name) in self.facts.noisy:
            return False
        if any(other.kind == "delete" or other.wrote(line) for other in later):
            return False
        here = rows[edit.side]
        if here is not None and here[path] in (value, Special.UNKNOWN):  # or what it refers to is gone
            return False
        return not (self._in_log(edit, line.name) or self._in_log(edit, "*"))

    def _in_log(self, edit: Edit, unit: str) -> bool:
        """Does the conflict log name the edit as one that lost (or may lose, while nobody has decided)?"""
        for entry in self.logged:
            if entry.unit != unit or tuple(_members(entry.key)) != edit.key:
                continue
            if entry.policy == "manual":  # two edits and a decision: which of the two lost is told by its winner
                places = {self.facts.feeds.get(at.feed): at for at in (entry.loser, entry.beats) if at}
                lost = places.get(edit.side)
                if lost is not None and within(edit, lost) and entry.winner != edit.side.value:
                    return True
            elif entry.loser is not None and within(edit, entry.loser):
                return True
        return False

    # -- sums and initial syncs ---------------------------------------------------------------------------------------

    def _sums(self, key: Key, rows: Mapping[Side, Record | None]) -> Iterator[str]:
        mine = self.edits.get(key, [])
        start = {side: self.facts.synced[self.idea.name][side].get(key) for side in Side}
        if rows[L] is None or any(edit.kind != "update" for edit in mine) or not any(start.values()):
            return
        base = start[self.facts.master] or start[self.facts.master.other] or {}
        side = self.facts.master if start[self.facts.master] else self.facts.master.other
        for line in self.idea.lines:
            if (
                self.idea.policy_of(line) != "sum"
                or line.sign != "="
                or (self.idea.name, line.name) in self.facts.noisy
            ):
                continue
            wanted = number(base[line.path(side) or ""])
            for edit in mine:
                path = line.path(edit.side) or ""
                wanted += number((edit.after or {})[path]) - number((edit.before or {})[path])
            held = [number((rows[s] or {}).get(line.path(s) or "")) for s in Side]
            if held != [wanted, wanted]:
                yield f"sum: {line.name} is {held[0]} and {held[1]}, wanted {wanted}"

    def _untouched(self, key: Key, rows: Mapping[Side, Record | None]) -> Iterator[str]:
        """What nobody has edited since the initial sync is what the master (or the only side) had."""
        start = self.facts.synced[self.idea.name]
        if self.edits.get(key) or (key not in start[L] and key not in start[R]):
            return
        for side in Side:
            decides = side is self.facts.master or key not in start[side.other]
            before, now = start[side].get(key), rows[side]
            if before is None or not self._inside(side, before):
                continue
            if now is None:
                yield f"sync: the {side} record is gone, though nobody deleted it"
                continue
            for line in self.idea.lines:
                path = line.path(side)
                owns = line.sign in ONE_WAY and ONE_WAY[line.sign] is side
                if path is None or not (owns or (decides and line.sign == "=")) or self._is_noisy(line):
                    continue
                if before[path] != now[path] and not line.agrees(*self._pair(line, side, before[path], rows)):
                    yield f"sync: {side} {path} was {before[path]!r} and is {now[path]!r}, though nobody edited it"

    def _pair(self, line: Line, side: Side, value: Cell, rows: Mapping[Side, Record | None]) -> tuple[Cell, Cell]:
        other = (rows[side.other] or {}).get(line.path(side.other) or "")
        return (value, other) if side is L else (other, value)

    def _is_noisy(self, line: Line) -> bool:
        return (self.idea.name, line.name) in self.facts.noisy


def strangers(facts: Facts) -> Iterator[str]:
    """Conflicts that name what nobody did, or whose winner is not the one that the policy names."""
    ideas = {idea.name: idea for idea in facts.maps}
    for entry in facts.conflicts:
        edits = [edit for edit in facts.history if edit.map == entry.map and edit.key == tuple(_members(entry.key))]
        found: dict[Side, list[Edit]] = {}
        for at in (entry.loser, entry.beats):
            if at is not None and not is_weak(at):
                side = facts.feeds.get(at.feed)
                mine = [edit for edit in edits if within(edit, at)]
                if not mine and at.feed in facts.feeds:
                    yield f"the conflict log names an edit that nobody made: {at} in {entry}"
                elif side is not None:
                    found[side] = mine
        line = next((line for line in ideas[entry.map].lines if line.name == entry.unit), None)
        yield from silent(entry, line, found)
        told = line is not None and (entry.map, line.name) not in facts.noisy
        if told and len(found) == 2 and all(len(mine) == 1 for mine in found.values()):
            winner = expected(facts, line, entry.policy, found[L][0], found[R][0])
            if winner is not None and entry.winner and entry.winner != winner.value:
                yield f"by {entry.policy} the {winner} side should have won: {entry}"


def silent(entry: Conflict, line: Line | None, found: Mapping[Side, list[Edit]]) -> Iterator[str]:
    """Values that yield without a word: those of an initial sync, and the nulls of an insert."""
    if line is None or entry.policy == "entered":
        return
    if any(at is not None and is_weak(at) for at in (entry.loser, entry.beats)):
        yield f"a difference found by an initial sync is no edit: {entry}"
    for side, mine in found.items():
        path = line.path(side)
        if len(mine) == 1 and mine[0].kind == "insert" and path and (mine[0].after or {})[path] is None:
            yield f"a null of an insert is no edit: {entry}"


def expected(facts: Facts, line: Line, policy: str, left: Edit, right: Edit) -> Side | None:
    """Who wins a column by its policy; None where that is not told by the two edits alone."""
    if policy in ("left", "right"):
        return Side(policy)
    if policy == "newest" and facts.offset is not None:
        return R if right.at - facts.offset > left.at else L
    if policy not in ("max", "min") or left.after is None or right.after is None or line.values:
        return None
    mine, theirs = left.after[line.left or ""], right.after[line.right or ""]
    if mine is None or theirs is None:
        return L if theirs is None else R
    return L if (str(mine) > str(theirs)) == (policy == "max") else R


def within(edit: Edit, at: Position) -> bool:
    """Does a place in a feed lie in the edit's transaction?"""
    return at.feed == edit.end.feed and edit.start < at <= edit.end and not is_weak(at)


def is_weak(at: Position) -> bool:
    """Is it a place that an initial sync has made up, behind its snapshot?"""
    return len(at.place) > 2 and at.place[-2] == 0


def _members(text: str) -> Iterable[Value]:
    return [None if member is None else str(member) for member in json.loads(text)]


def number(cell: Cell) -> int:
    """A counter's value; null is nothing."""
    return 0 if cell is None or isinstance(cell, Special) else int(Decimal(cell))


def show(row: Record | None) -> str:
    """A row without its nulls."""
    return str(None if row is None else {name: cell for name, cell in row.items() if cell is not None})


def renumbered(edits: list[Edit], numbers: Iterator[int]) -> list[Edit]:
    """Edits with their place in the history."""
    return [replace(edit, number=next(numbers)) for edit in edits]
