"""Maps for the tables of two schemas that match by name and key: the first draft that a person then edits.

Names match by their letters: case, ``_``, a plural s and a prefix up to the first ``_`` do not count.  Nothing is
guessed where two readings are possible; everything left out is said in a sentence.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from dualwrite.losses import incompatible
from dualwrite.mapping.paths import candidate_keys, is_id, natural, natural_key
from dualwrite.mapping.tablemap import ColumnMapping, Company, Direction, TableMap
from dualwrite.model import Path, Side, show_path
from dualwrite.schema import Column, Reference, Schema, Table


@dataclass(frozen=True, slots=True)
class Proposal:
    """The maps, and sentences that say which tables and columns have none and why."""

    maps: tuple[TableMap, ...]
    skipped: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Slot:
    """What of a record can be mapped: a column, or a member of a looked-up record's key.

    ``holder`` is the column of the table itself, ``end`` the one in which the path ends.  ``names`` are the spellings
    under which it matches; ``raw`` marks an id that means nothing to the other side.
    """

    path: Path
    holder: Column
    end: Column
    names: frozenset[str]
    raw: bool


_Slots = tuple[_Slot, _Slot]


@dataclass(frozen=True, slots=True)
class _Pair:
    """A left and a right table, their columns that match, and those of the key."""

    left: Table
    right: Table
    company: Company | None
    slots: tuple[_Slots, ...]
    key: tuple[_Slots, ...]


def propose(left: Schema, right: Schema, include: Sequence[str] = ()) -> Proposal:
    """A map for each pair of tables that match; ``include`` are glob patterns of table names on either side."""
    tables, skipped = _table_pairs(left, right, include)
    schemas = {Side.LEFT: left, Side.RIGHT: right}
    pairs: dict[tuple[str, str], _Pair] = {}
    for left_table, right_table in tables:
        pair, remarks = _pair(schemas, left_table, right_table)
        skipped += [f"{left_table.name} and {right_table.name} {remark}" for remark in remarks]
        if pair is not None:
            pairs[left_table.name, right_table.name] = pair
    return Proposal(tuple(_map(pair, pairs) for pair in pairs.values()), tuple(skipped))


# ------------------------------------------------------------------------------------------------------- names


def _forms(name: str) -> tuple[str, ...]:
    """The spellings under which a name matches, the most exact first."""
    whole = _singular(name.casefold().replace("_", "").replace(" ", ""))
    _, mark, rest = name.casefold().partition("_")
    bare = _singular(rest.replace("_", "").replace(" ", "")) if mark else ""
    return (whole, bare) if bare and bare != whole else (whole,)


def _singular(word: str) -> str:
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    return word[:-1] if word.endswith("s") and not word.endswith("ss") and len(word) > 2 else word


def _table_pairs(left: Schema, right: Schema, include: Sequence[str]) -> tuple[list[tuple[Table, Table]], list[str]]:
    """Tables whose names match each other and nothing else, and why the others do not."""
    pairs: list[tuple[Table, Table]] = []
    skipped: list[str] = []
    seen: set[str] = set()
    lefts, rights = _Names(left.tables), _Names(right.tables)
    for table in left.tables.values():
        candidates = rights.alike(table.name)
        seen.update(candidates)
        if not _included(include, table.name, *candidates):
            continue
        reason = _unmatched(table.name, candidates, lefts)
        if reason is None:
            pairs.append((table, right.tables[candidates[0]]))
        else:
            skipped.append(f"{table.name} on the left {reason}.")
    lonely = (name for name in right.tables if name not in seen and _included(include, name))
    return pairs, skipped + [f"{name} on the right has no table of that name on the left." for name in lonely]


def _unmatched(name: str, candidates: Sequence[str], lefts: _Names) -> str | None:
    """Why a left table has no counterpart."""
    if not candidates:
        return "has no table of that name on the right"
    if len(candidates) > 1:
        return f"could be any of {', '.join(candidates)}"
    rivals = [rival for rival in lefts.alike(candidates[0]) if rival != name]
    return f"could be {candidates[0]}, and so could {', '.join(rivals)}" if rivals else None


class _Names:
    """The names of a schema's tables, by the spellings under which they match."""

    def __init__(self, known: Iterable[str]) -> None:
        self._by_form: dict[str, list[str]] = {}
        for name in known:
            for form in _forms(name):
                self._by_form.setdefault(form, []).append(name)

    def alike(self, name: str) -> list[str]:
        """Those that match a name best: all letters, else without a prefix."""
        mine = _forms(name)
        ranked: dict[int, list[str]] = {}
        for candidate in dict.fromkeys(each for form in mine for each in self._by_form.get(form, ())):
            rank = 0 if candidate == name else 1 if mine[0] == _forms(candidate)[0] else 2
            ranked.setdefault(rank, []).append(candidate)
        return ranked[min(ranked)] if ranked else []


def _included(include: Sequence[str], *names: str) -> bool:
    return not include or any(fnmatchcase(name.casefold(), pattern.casefold()) for pattern in include for name in names)


# ----------------------------------------------------------------------------------------------------- columns


def _pair(schemas: Mapping[Side, Schema], left: Table, right: Table) -> tuple[_Pair | None, list[str]]:
    """The two tables with what matches, and remarks on what does not; None when they have no key in common."""
    company = _company(schemas, left, right)
    lefts = _slots(schemas[Side.LEFT], left, company.left if company else None)
    rights = _slots(schemas[Side.RIGHT], right, company.right if company else None)
    matching: list[_Slots] = []
    remarks: list[str] = []
    for mine in lefts:
        theirs = _counterpart(mine, lefts, rights, company)
        if theirs is None:
            continue
        if _fit(mine, theirs):
            matching.append((mine, theirs))
        else:
            types = f"{mine.end.type} and {theirs.end.type}"
            remarks.append(f"differ in {show_path(mine.path)} and {show_path(theirs.path)}: {types}.")
    slots = _whole(matching, lefts, rights)
    key = _key(schemas, left, right, slots)
    if key is None:
        return None, ["have no key in common: declare one, or write the map by hand."]
    return _Pair(left, right, company, slots, key), remarks


def _company(schemas: Mapping[Side, Schema], left: Table, right: Table) -> Company | None:
    """The company's paths, where both sides have one that can be read."""
    for side, table in ((Side.LEFT, left), (Side.RIGHT, right)):
        names = tuple(column.name for column in table.columns)
        if table.company is None or table.company not in natural(schemas[side], table, names):
            return None
    return Company(left.company, right.company) if left.company and right.company else None


def _slots(schema: Schema, table: Table, company: Path | None) -> list[_Slot]:
    """All that can be mapped; without the company of looked-up records where the row's own ``company`` gives it."""
    found: list[_Slot] = []
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


def _slot(schema: Schema, table: Table, column: Column, path: Path, *, alone: bool) -> _Slot:
    if len(path) == 1:
        return _Slot(path, column, column, frozenset(_forms(column.name)), raw=_is_raw(schema, table, column))
    end = schema.resolve(table.name, path) or column
    stems = _forms(_stem(column.name))
    names = {stem + member for stem in stems for member in _forms("".join(path[1:]))}
    return _Slot(path, column, end, frozenset(names | set(stems) if alone else names), raw=False)


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


def _counterpart(mine: _Slot, lefts: Sequence[_Slot], rights: Sequence[_Slot], company: Company | None) -> _Slot | None:
    """The slot on the right that matches this one and nothing else on the left; companies match by declaration."""
    if company is not None and mine.path == company.left:
        return next((theirs for theirs in rights if theirs.path == company.right), None)
    lefts = [slot for slot in lefts if company is None or slot.path != company.left]
    rights = [slot for slot in rights if company is None or slot.path != company.right]
    theirs = _best(mine, rights)
    return theirs if theirs is not None and _best(theirs, lefts) == mine else None


def _whole(matching: Sequence[_Slots], lefts: Sequence[_Slot], rights: Sequence[_Slot]) -> tuple[_Slots, ...]:
    """Without lookups of which only a part matches: a record is found by its whole key."""
    found = list(matching)
    for at, slots in enumerate((lefts, rights)):
        matched = {pair[at].path for pair in matching}
        broken = {slot.path[0] for slot in slots if len(slot.path) > 1 and slot.path not in matched}
        found = [pair for pair in found if len(pair[at].path) == 1 or pair[at].path[0] not in broken]
    return tuple(found)


def _best(slot: _Slot, others: Sequence[_Slot]) -> _Slot | None:
    """The one that matches, preferring the very same path; None where several do."""
    found = [other for other in others if other.raw == slot.raw and other.names & slot.names]
    exact = [other for other in found if show_path(other.path).casefold() == show_path(slot.path).casefold()]
    candidates = exact or found
    return candidates[0] if len(candidates) == 1 else None


def _fit(mine: _Slot, theirs: _Slot) -> bool:
    """Can they hold each other's values?  A code beside a lookup must be of the very type, else it finds nothing."""
    if len(mine.path) != len(theirs.path):
        return mine.end.type.name is theirs.end.type.name
    return not incompatible(mine.end, theirs.end) and not incompatible(theirs.end, mine.end)


# -------------------------------------------------------------------------------------------------------- maps


def _key(
    schemas: Mapping[Side, Schema], left: Table, right: Table, slots: Sequence[_Slots]
) -> tuple[_Slots, ...] | None:
    """The members of the first key that both tables have, of matching columns."""
    by_left = {mine.path: (mine, theirs) for mine, theirs in slots}
    rights = [frozenset(key) for key in candidate_keys(schemas[Side.RIGHT], right)]
    for key in candidate_keys(schemas[Side.LEFT], left):
        members = [by_left[path] for path in key if path in by_left]
        if len(members) == len(key) and frozenset(theirs.path for _, theirs in members) in rights:
            return tuple(members)
    return None


def _map(pair: _Pair, pairs: Mapping[tuple[str, str], _Pair]) -> TableMap:
    company = pair.company.left if pair.company else None
    carried = [slots for slots in pair.slots if slots[0].path != company and _means_the_same(pair, slots, pairs)]
    columns = (
        ColumnMapping(mine.path, direction, theirs.path)
        for mine, theirs in carried
        if (direction := _direction(mine, theirs)) is not None
    )
    key = tuple(theirs.path for mine, theirs in pair.key if mine.path != company)
    left, right = pair.left.name, pair.right.name
    name = left if left == right else f"{left} ({right})"
    return TableMap(name, left, right, tuple(columns), company=pair.company, key=key or None)


def _means_the_same(pair: _Pair, slots: _Slots, pairs: Mapping[tuple[str, str], _Pair]) -> bool:
    """Ids made by a system mean the same on both sides only where they are the key by which the records match."""
    mine, theirs = slots
    if not mine.raw or slots in pair.key:
        return True
    left, right = _parent(pair.left, mine), _parent(pair.right, theirs)
    parents = pairs.get((left.table, right.table)) if left and right else None
    keys = [(own.path, other.path) for own, other in parents.key] if parents else []
    return left is not None and right is not None and keys == [(left.to, right.to)]


def _parent(table: Table, slot: _Slot) -> Reference | None:
    return next((each for each in table.references if each.columns == (slot.holder.name,)), None)


def _direction(mine: _Slot, theirs: _Slot) -> Direction | None:
    """Both ways, unless a side cannot be written."""
    match mine.holder.read_only, theirs.holder.read_only:
        case False, False:
            return Direction.BOTH
        case False, True:
            return Direction.TO_LEFT
        case True, False:
            return Direction.TO_RIGHT
        case _:
            return None
