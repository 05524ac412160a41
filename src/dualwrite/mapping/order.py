"""In which order maps run: whoever is looked up comes first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from dualwrite.mapping.units import Parent
from dualwrite.model import Side
from dualwrite.schema import View


class Ordered(Protocol):
    """What of a compiled map matters here."""

    @property
    def name(self) -> str:
        """The map's name."""
        ...

    @property
    def views(self) -> Mapping[Side, View]:
        """The map's views."""
        ...

    @property
    def carried(self) -> Mapping[Side, bool]:
        """From which sides it carries."""
        ...

    @property
    def parents(self) -> Mapping[Side, tuple[Parent, ...]]:
        """What its rows point to."""
        ...


_Map = TypeVar("_Map", bound=Ordered)


def related(maps: Mapping[str, _Map], names: Sequence[str]) -> list[str]:
    """Further maps, of tables that these ones look up, directly or by way of one another; in the order of ``maps``."""
    found, waiting = set(names), list(names)
    while waiting:
        one = maps[waiting.pop()]
        tables = {(side, parent.table) for side, parents in one.parents.items() for parent in parents}
        more = {n for n, each in maps.items() if any((side, v.table) in tables for side, v in each.views.items())}
        waiting += more - found
        found |= more
    return [name for name in maps if name in found and name not in names]


@dataclass(frozen=True, slots=True)
class _Edge:
    """``child`` looks up what ``parent`` writes, on that side."""

    child: str
    parent: str
    side: Side
    reference: str
    nullable: bool


def order_maps(maps: Sequence[_Map]) -> list[_Map]:
    """The maps, parents first as seen from either side, otherwise by name.

    Cycles are cut where a reference may be empty for a while, else at the first name.
    """
    by_name = {each.name: each for each in maps}
    return [by_name[name] for name in _ordered(sorted(by_name), [e for e in _edges(maps) if e.child != e.parent])]


def cyclic(maps: Sequence[_Map]) -> dict[str, dict[Side, frozenset[str]]]:
    """Per map and side the references that lie on a cycle (of maps, or of a table with itself) and may be empty.

    A record can be written without them first, and with them in a second pass.
    """
    edges = _edges(maps)
    found: dict[str, dict[Side, frozenset[str]]] = {}
    for each in maps:
        found[each.name] = {}
        for side in Side:
            here = [edge for edge in edges if edge.side is side]
            mine = [edge for edge in here if edge.child == each.name and edge.nullable]
            reach = {edge.parent: _reachable(edge.parent, here) for edge in mine}
            names = {edge.reference for edge in mine if each.name in reach[edge.parent]}
            found[each.name][side] = frozenset(names)
    return found


def _edges(maps: Sequence[_Map]) -> list[_Edge]:
    writers: dict[tuple[Side, str], list[str]] = {}
    for each in maps:
        for side in Side:
            if each.carried[side.other]:
                writers.setdefault((side, each.views[side].table), []).append(each.name)
    return [
        _Edge(each.name, writer, side, parent.reference, parent.nullable)
        for each in maps
        for side in Side
        for parent in each.parents[side]
        for writer in writers.get((side, parent.table), ())
    ]


def _reachable(start: str, edges: Sequence[_Edge]) -> set[str]:
    """The maps that ``start`` depends on, itself included."""
    found, waiting = {start}, [start]
    while waiting:
        here = waiting.pop()
        for edge in edges:
            if edge.child == here and edge.parent not in found:
                found.add(edge.parent)
                waiting.append(edge.parent)
    return found


def _ordered(names: Sequence[str], edges: Sequence[_Edge]) -> Iterator[str]:
    """Names with parents first; ``names`` are sorted."""
    needs = {name: _reachable(name, edges) for name in names}
    rest = list(names)
    while rest:
        left = set(rest)
        first = next(name for name in rest if all(name in needs[other] for other in needs[name] & left))
        ring = [name for name in rest if name in needs[first] and first in needs[name]]
        yield from _cut(ring, edges) if len(ring) > 1 else ring
        rest = [name for name in rest if name not in ring]


def _cut(ring: Sequence[str], edges: Sequence[_Edge]) -> Iterator[str]:
    """The order within a cycle."""
    inside = [edge for edge in edges if edge.child in ring and edge.parent in ring]
    hard = [edge for edge in inside if not edge.nullable]
    if len(hard) < len(inside):
        yield from _ordered(ring, hard)
    else:
        yield ring[0]
        yield from _ordered(ring[1:], _without(ring[0], inside))


def _without(name: str, edges: Iterable[_Edge]) -> list[_Edge]:
    return [edge for edge in edges if name not in (edge.child, edge.parent)]
