"""Which columns of two tables belong together: by name, type and values, each pair with how sure that is.

Pairs are taken in rounds, the surest first, and only where neither column has a rival that is nearly as good.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from dualwrite.losses import incompatible
from dualwrite.mapping.evidence import Evidence
from dualwrite.mapping.likeness import Names, forms
from dualwrite.mapping.paths import is_id, natural, natural_key
from dualwrite.mapping.tablemap import ValueMap
from dualwrite.model import Path, show_path
from dualwrite.schema import Column, Schema, Table

SURE: Final = 0.95
LIKELY: Final = 0.7
LEAST: Final = 0.5
"""Below this a pair is not proposed."""
MARGIN: Final = 0.1
"""By how much a pair has to be better than its rivals."""
STEP: Final = 0.1
"""Pairs of one round lie within this of the best of them."""
LEAST_KEY: Final = 0.25
"""The same, for the only two columns that alone tell the records of their tables apart."""
WORTH_A_WORD: Final = 0.6
"""Where several readings are as good as this, they are told."""
WORTH_A_LOOK: Final = 0.25
"""Names less alike than this are held together by the values of the very same records alone."""


@dataclass(frozen=True, slots=True)
class Slot:
    """What of a record can be mapped: a column, or a member of a looked-up record's key.

    ``holder`` is the column of the table itself, ``end`` the one in which the path ends.  ``names`` are the spellings
    under which it matches; ``raw`` marks an id that means nothing to the other side, ``tells`` what alone tells records
    apart and is no such id.
    """

    path: Path
    holder: Column
    end: Column
    names: frozenset[str]
    raw: bool
    tells: bool = False


@dataclass(frozen=True, slots=True)
class Match:
    """Two slots that belong together: how sure that is, why, and the value map between them."""

    mine: Slot
    theirs: Slot
    score: float
    words: str
    values: ValueMap | None = None

    @property
    def confidence(self) -> str:
        """``sure``, ``likely`` or ``unsure``."""
        return "sure" if self.score >= SURE else "likely" if self.score >= LIKELY else "unsure"


# ------------------------------------------------------------------------------------------------------- slots


def slots(schema: Schema, table: Table, company: Path | None) -> list[Slot]:
    """All that can be mapped; without the company of looked-up records where the row's own ``company`` gives it."""
    found: list[Slot] = []
    for column in table.columns:
        paths = _paths(schema, table, column)
        own = [path for path in paths if path == company or not (company and _is_company(schema, table, path))]
        found += [_slot(schema, table, column, path, alone=len(own) == 1) for path in own]
    return found


def _paths(schema: Schema, table: Table, column: Column) -> Sequence[Path]:
    """The column in natural form, a reference of the table to itself too."""
    paths = natural(schema, table, (column.name,))
    reference = next((each for each in table.references if each.columns == (column.name,)), None)
    if reference is None or reference.table != table.name or len(paths[0]) > 1:
        return paths
    key = natural_key(schema, table)
    return paths if reference.to in key else [(reference.name, *member) for member in key]


def _is_company(schema: Schema, table: Table, path: Path) -> bool:
    """Does a lookup's path end in the company of the record that it finds?"""
    reference = table.reference(path[0]) if len(path) > 1 else None
    parent = schema.tables.get(reference.table) if reference else None
    return parent is not None and path[1:] == parent.company


def _slot(schema: Schema, table: Table, column: Column, path: Path, *, alone: bool) -> Slot:
    if len(path) == 1:
        raw = _is_raw(schema, table, column)
        tells = (column.name,) in table.uniques and not raw
        return Slot(path, column, column, frozenset(forms(column.name)), raw=raw, tells=tells)
    end = schema.resolve(table.name, path) or column
    stems = forms(_stem(column.name))
    names = {stem + member for stem in stems for member in forms("".join(path[1:]))}
    return Slot(path, column, end, frozenset(names | set(stems) if alone else names), raw=False)


def _stem(name: str) -> str:
    """A lookup column's name without what only says that it holds an id."""
    bare = name.removesuffix("_id") if name.endswith("_id") else name.removesuffix("id").removesuffix("ID")
    return bare.removesuffix("_") or name


def _is_raw(schema: Schema, table: Table, column: Column) -> bool:
    """Is it an id made by the system, of the record itself or of another one?"""
    if table.primary_key == (column.name,) and is_id(table):
        return True
    parents = ((each, schema.tables.get(each.table)) for each in table.references if each.columns == (column.name,))
    return any(parent is not None and is_id(parent) and parent.primary_key == each.to for each, parent in parents)


# ---------------------------------------------------------------------------------------------------- matching


@dataclass(frozen=True, slots=True)
class Matched:
    """What belongs together, and sentences about what is left out because it is not clear."""

    matches: tuple[Match, ...]
    doubts: tuple[str, ...]


class Matcher:
    """Holds the columns of two tables together."""

    def __init__(self, lefts: Sequence[Slot], rights: Sequence[Slot], weigh: Callable[[Slot, Slot], Evidence]) -> None:
        """``weigh`` says what the values of two slots tell."""
        self._lefts, self._rights = lefts, rights
        self._weigh = weigh
        self._names = Names(slot.names for slot in (*lefts, *rights))
        self._doubts: dict[Path, str] = {}

    def match(self, given: Iterable[Match] = ()) -> Matched:
        """All pairs, beside those that are ``given``."""
        found = list(given)
        taken = [{match.mine.path for match in found}, {match.theirs.path for match in found}]
        scored = self._scored(taken)
        keys = self._keys(scored, taken)
        found += keys
        for match in keys:
            taken[0].add(match.mine.path)
            taken[1].add(match.theirs.path)
        while True:
            free = [m for m in scored if m.mine.path not in taken[0] and m.theirs.path not in taken[1]]
            best = self._clear(free)
            if not best:
                break
            top = max(match.score for match in best)
            for match in best:
                if match.score >= top - STEP:
                    found.append(match)
                    taken[0].add(match.mine.path)
                    taken[1].add(match.theirs.path)
        order = {slot.path: at for at, slot in enumerate(self._lefts)}
        self._tell_rivals(free)
        found.sort(key=lambda match: order[match.mine.path])
        return Matched(tuple(found), tuple(self._doubts.values()))

    def _keys(self, scored: Sequence[Match], taken: Sequence[set[Path]]) -> list[Match]:
        """The only two columns that alone tell records apart; names of others may be more alike, but not equal."""
        mine, theirs = ([slot for slot in slots if slot.tells] for slots in (self._lefts, self._rights))
        if len(mine) != 1 or len(theirs) != 1 or mine[0].path in taken[0] or theirs[0].path in taken[1]:
            return []
        rivals = (each for each in scored if (each.mine is mine[0]) != (each.theirs is theirs[0]))
        likeness = self._names.likeness(mine[0].names, theirs[0].names)
        evidence = self._weigh(mine[0], theirs[0])
        if likeness < LEAST_KEY or evidence.clash or evidence.values or _unfit(mine[0], theirs[0]):
            return []
        if likeness + evidence.weight >= SURE or any(each.score >= SURE for each in rivals):
            return []
        words = ", ".join(filter(None, (f"the keys of both, names alike by {likeness:.0%}", evidence.words)))
        return [Match(mine[0], theirs[0], max(LEAST, likeness + evidence.weight), words)]

    def _scored(self, taken: Sequence[set[Path]]) -> list[Match]:
        """Every pair that may belong together, with its score."""
        lefts = [slot for slot in self._lefts if slot.path not in taken[0]]
        rights = [slot for slot in self._rights if slot.path not in taken[1]]
        pairs = ((mine, theirs) for mine in lefts for theirs in rights if mine.raw == theirs.raw)
        return [match for mine, theirs in pairs if (match := self._judge(mine, theirs)) is not None]

    def _judge(self, mine: Slot, theirs: Slot) -> Match | None:
        likeness = self._names.likeness(mine.names, theirs.names)
        exact = _is_same(mine, theirs)
        evidence = self._weigh(mine, theirs) if likeness >= WORTH_A_LOOK or not mine.raw else Evidence()
        if likeness + evidence.weight < LEAST and not exact:
            return None
        if not evidence.values and (reason := _unfit(mine, theirs)):
            if exact or likeness >= SURE:
                types = f"{mine.end.type} and {theirs.end.type}"
                told = f"differ in {show_path(mine.path)} and {show_path(theirs.path)}: {types}."
                self._doubts.setdefault(mine.path, told if reason else "")
            return None
        if evidence.clash:
            if likeness >= LIKELY:
                told = f"{show_path(mine.path)} and {show_path(theirs.path)} {evidence.clash}."
                self._doubts.setdefault(mine.path, told)
            return None
        names = "same name" if likeness == 1 else f"names alike by {likeness:.0%}" if likeness >= 0.2 else "other name"
        words = ", ".join(filter(None, (names, evidence.words)))
        return Match(mine, theirs, (1.1 if exact else likeness) + evidence.weight, words, evidence.values)

    def _clear(self, free: Sequence[Match]) -> list[Match]:
        """Of what is free, the pairs that no rival comes near."""
        best: list[dict[Path, list[Match]]] = [{}, {}]
        for match in free:
            best[0].setdefault(match.mine.path, []).append(match)
            best[1].setdefault(match.theirs.path, []).append(match)
        return [
            match
            for match in free
            if all(
                other is match or other.score <= match.score - MARGIN
                for others in (best[0][match.mine.path], best[1][match.theirs.path])
                for other in others
            )
        ]

    def _tell_rivals(self, free: Sequence[Match]) -> None:
        """Say of which columns there were several readings that are nearly as good."""
        near: dict[Path, list[Match]] = {}
        for match in sorted(free, key=lambda each: -each.score):
            rivals = near.setdefault(match.mine.path, [])
            if match.score >= WORTH_A_WORD and match.score > (rivals or [match])[0].score - MARGIN:
                rivals.append(match)
        for path, matches in near.items():
            names = " or ".join(sorted(show_path(match.theirs.path) for match in matches))
            if len(matches) > 1:
                self._doubts.setdefault(path, f"could pair {show_path(path)} with {names}: say which.")
            elif matches:
                self._doubts.setdefault(path, f"could pair {show_path(path)}, and another column, with {names}.")


def _is_same(mine: Slot, theirs: Slot) -> bool:
    return show_path(mine.path).casefold() == show_path(theirs.path).casefold()


def _unfit(mine: Slot, theirs: Slot) -> bool:
    """Can they not hold each other's values?  A code beside a lookup must be of the very type, or it finds nothing."""
    if len(mine.path) != len(theirs.path):
        return mine.end.type.name is not theirs.end.type.name
    return bool(incompatible(mine.end, theirs.end) or incompatible(theirs.end, mine.end))


def whole(matches: Sequence[Match], lefts: Sequence[Slot], rights: Sequence[Slot]) -> tuple[Match, ...]:
    """Without lookups of which only a part matches: a record is found by its whole key."""
    found = list(matches)
    sides: Sequence[tuple[Sequence[Slot], Callable[[Match], Slot]]] = (
        (lefts, lambda match: match.mine),
        (rights, lambda match: match.theirs),
    )
    for slots_of, end in sides:
        matched = {end(match).path for match in matches}
        broken = {slot.path[0] for slot in slots_of if len(slot.path) > 1 and slot.path not in matched}
        found = [match for match in found if len(end(match).path) == 1 or end(match).path[0] not in broken]
    return tuple(found)
