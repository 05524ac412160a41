"""What changes as a whole, and what points to other records.

Column mappings that go through one lookup, on either side, belong together on both: decided apart, the two sides
could settle on different records.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from dualwrite.casts import kind_of
from dualwrite.mapping.binding import SIDES, Binding, Pair
from dualwrite.mapping.tablemap import ValueMap
from dualwrite.model import Path, Side, show_path
from dualwrite.schema import Reference, TypeName

Indexes: TypeAlias = Mapping[Side, Mapping[Path, int]]
"""Where each path of a side's view stands in its rows."""


@dataclass(frozen=True, slots=True)
class Unit:
    """What changes, conflicts and resolves as a whole in a target: one column, or the own parts of one lookup.

    ``indexes`` point into the target view's rows.  ``owner`` is None for a two-way unit, else the only side whose
    value counts.  ``policy`` is one of POLICIES.  ``kind`` tells how values order and add: ``number``, ``text``.
    Both sides call a unit by the same ``name``.
    """

    name: str
    indexes: tuple[int, ...]
    owner: Side | None
    policy: str
    kind: str = "text"


@dataclass(frozen=True, slots=True)
class Parent:
    """A written reference of a view: the table it points to, and the cells that hold nothing but it.

    ``nullable`` tells whether a record may be without it.
    """

    reference: str
    table: str
    cells: tuple[int, ...]
    nullable: bool


def group_pairs(binding: Binding) -> list[tuple[str, tuple[Pair, ...]]]:
    """The pairs that make up one unit each, with the unit's name, in the map's order."""
    groups: list[list[Pair]] = [[pair] for pair in binding.pairs]
    for side in SIDES:
        lookups = [lookup.own for lookup in binding.lookups[side]]
        for own in [*lookups, *(alternatives.own for alternatives in binding.alternatives[side])]:
            joined = [group for group in groups if any(pair.path(side) in own for pair in group)]
            apart = [group for group in groups if all(group is not other for other in joined)]
            groups = [*apart, [pair for group in joined for pair in group]]
    named: dict[str, tuple[Pair, ...]] = {}
    for group in groups:
        name = _name(group)
        if name in named:
            name = f"{name} ({show_path(group[0].path(Side.LEFT) or ())})"
        named[name] = tuple(group)
    return list(named.items())


def _name(group: Sequence[Pair]) -> str:
    """What people call a unit: the column's path on the right, the lookups where it has several parts."""
    if len(group) == 1:
        return group[0].name
    for side in (Side.RIGHT, Side.LEFT):
        steps = [path[0] for pair in group if len(path := pair.path(side) or ()) > 1]
        if steps:
            return ", ".join(dict.fromkeys(steps))
    return group[0].name


def find_units(binding: Binding, indexes: Indexes, conflict: str) -> dict[Side, tuple[Unit, ...]]:
    """The units of each side's rows; ``conflict`` is the link's policy.  A cell belongs to one unit."""
    found: dict[Side, tuple[Unit, ...]] = {}
    groups = group_pairs(binding)
    for side in SIDES:
        units: list[Unit] = []
        taken: set[int] = set()
        ranked = sorted(groups, key=lambda group: _owner(group[1], side) is side)  # those that are written come first
        for name, group in ranked:
            cells = {indexes[side][path] for pair in group if (path := pair.path(side)) is not None} - taken
            if cells:
                taken |= cells
                policy = _policy(group, binding, conflict)
                units.append(Unit(name, tuple(sorted(cells)), _owner(group, side), policy, _kind(group)))
        found[side] = tuple(sorted(units, key=lambda unit: unit.indexes))
    return found


def _owner(group: Iterable[Pair], target: Side) -> Side | None:
    into = any(pair.carries(target.other) for pair in group)
    out = any(pair.carries(target) for pair in group)
    return None if into and out else target.other if into else target


def _policy(group: Sequence[Pair], binding: Binding, conflict: str) -> str:
    """The unit's policy; one that it inherits and that cannot decide it gives way to ``newest``."""
    own = next((pair.mapping.conflict for pair in group if pair.mapping.conflict), None)
    inherited = binding.table_map.conflict or conflict
    is_key = any(pair in binding.key for pair in group)
    return own or ("newest" if unfit(group, inherited, is_key=is_key) else inherited)


def unfit(group: Sequence[Pair], policy: str | None, *, is_key: bool) -> str:
    """The code of what is wrong with a policy for a unit's lines; empty when nothing is."""
    columns = [end.column for pair in group for end in pair.ends.values()]
    mapped = any(isinstance(transform, ValueMap) for pair in group for transform in pair.mapping.transforms)
    if policy == "sum":
        numbers = all(kind_of(column.type) == "number" for column in columns)
        return "" if numbers and len(group) == 1 and not mapped and not is_key else "sum_not_number"
    if policy in ("max", "min"):
        unordered = any(column.type.name in (TypeName.CHOICE, TypeName.BOOLEAN) for column in columns)
        return "policy_not_shared" if mapped or unordered or len(group) > 1 else ""
    return ""


def _kind(group: Sequence[Pair]) -> str:
    kinds = {kind_of(end.column.type) for pair in group for end in pair.ends.values()}
    return "number" if len(group) == 1 and kinds == {"number"} else "text"


def find_parents(binding: Binding, indexes: Indexes, side: Side) -> tuple[Parent, ...]:
    """The references of a side that the other side writes: lookups, and foreign keys among written columns."""
    table = binding.tables[side]
    key = {pair.path(side) for pair in binding.key}
    written = binding.written(side)
    company = binding.company.path(side) if binding.company else table.company
    found: list[Parent] = []
    for lookup in binding.lookups[side]:
        cells = tuple(indexes[side][path] for path in lookup.own)
        nullable = _nullable(binding, side, lookup.reference) and not key.intersection(lookup.own)
        found.append(Parent(lookup.reference.name, lookup.reference.table, cells, nullable))
    for alternatives in binding.alternatives[side]:
        cells = tuple(indexes[side][path] for path in alternatives.own)
        for lookup in alternatives.lookups:
            nullable = _nullable(binding, side, lookup.reference)
            found.append(Parent(alternatives.name, lookup.reference.table, cells, nullable))
    known = {parent.reference for parent in found}
    for reference in table.references:
        columns: list[Path] = [(name,) for name in reference.columns]
        telling = [path for path in columns if path != company] or columns
        if reference.name in known or not any(path in written for path in telling):
            continue
        free = [path for path in telling if path in written and path not in key and _is_nullable(binding, side, path)]
        found.append(Parent(reference.name, reference.table, tuple(indexes[side][path] for path in free), bool(free)))
    return tuple(found)


def _nullable(binding: Binding, side: Side, reference: Reference) -> bool:
    return any(_is_nullable(binding, side, (name,)) for name in reference.columns)


def _is_nullable(binding: Binding, side: Side, path: Path) -> bool:
    column = binding.tables[side].column(path[0])
    return column is not None and column.nullable
