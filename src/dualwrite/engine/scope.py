"""Companies that a link takes in, or lets go, while its maps are live.

A map's records of a new company are brought together by an initial sync of their own, while all others keep the state
that they have.  What users did to records of that company up to its boundaries is in its snapshots, so it is not
carried: until then they count as outside of the map.  A company that is taken out is detached: nothing of it flows.

What a map was carried with last stands in the journal, and with it the companies whose initial sync is not done yet.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final, TypeAlias

from dualwrite.expression import Column, Literal, OneOf, and_
from dualwrite.journal import Journal
from dualwrite.mapping.compile import CompiledMap
from dualwrite.model import Position, Row, Side
from dualwrite.schema import View

SCOPE: Final = "scope."
"""What the name of a value in the journal begins with, before the map's: with which companies and filters it runs."""


Floors: TypeAlias = Mapping[Side, Position]
"""Up to where, per side, what users did to a company's records is in the snapshots of its initial sync."""


@dataclass(frozen=True)
class Scope:
    """With what a map is carried.  ``companies`` are those of the link, as the left side writes them (None: all).

    ``pending`` are those of them whose records are still to be brought together; ``is_whole``: so are others, since the
    filters have changed.  ``floors`` are the boundaries of companies that came in later than the map was started.
    """

    companies: tuple[str, ...] | None
    filters: tuple[str, ...]
    pending: tuple[str, ...] = ()
    is_whole: bool = False
    floors: Mapping[str, Floors] = field(default_factory=dict)

    def __str__(self) -> str:
        floors = {
            company: {side.value: str(floor) for side, floor in found.items()} for company, found in self.floors.items()
        }
        return json.dumps([self.companies, self.filters, self.pending, self.is_whole, floors])

    @classmethod
    def parse(cls, text: str) -> Scope:
        """The inverse of ``str``."""
        companies, filters, pending, is_whole, *more = json.loads(text)
        floors = {
            company: {Side(side): Position.parse(floor) for side, floor in found.items()}
            for each in more  # an earlier program did not say it
            for company, found in each.items()
        }
        return cls(None if companies is None else tuple(companies), tuple(filters), tuple(pending), is_whole, floors)

    @property
    def is_settled(self) -> bool:
        """Is there nothing left to be brought together?"""
        return not self.pending and not self.is_whole


def scope_of(compiled: CompiledMap) -> Scope:
    """With what a map is carried now."""
    has_company = bool(compiled.company) and bool(compiled.companies[Side.LEFT])
    companies = tuple(str(code) for code in compiled.companies[Side.LEFT]) if has_company else None
    return Scope(companies, tuple(repr(compiled.open[side].filter) for side in Side))


def keep(journal: Journal, name: str, scope: Scope) -> None:
    """Let the journal know."""
    journal.put(SCOPE + name, str(scope))


def notice(journal: Journal, compiled: CompiledMap) -> Scope:
    """What a live map is to be carried with, and what of it is to be brought together; told in the activity log."""
    text, now = journal.get(SCOPE + compiled.name), scope_of(compiled)
    if text is None:  # an earlier program did not say it
        keep(journal, compiled.name, now)
        return now
    before = Scope.parse(text)
    if (before.companies, before.filters) == (now.companies, now.filters):
        return before
    mine, theirs = now.companies, before.companies
    added = [] if mine is None or theirs is None else [company for company in mine if company not in theirs]
    is_open = mine is None and theirs is not None
    pending = [company for company in before.pending if mine is None or company in mine]
    scope = replace(
        now,
        pending=(*pending, *added),
        is_whole=before.is_whole or is_open or now.filters != before.filters,
        floors={company: floors for company, floors in before.floors.items() if company in (mine or ())},
    )
    with journal.batch() as batch:
        batch.put(SCOPE + compiled.name, str(scope))
        for what, companies in (
            ("companies added", added or (["all"] if is_open else [])),
            ("companies removed: detached", [each for each in theirs or () if mine is not None and each not in mine]),
        ):
            if companies:
                batch.log(what, map=compiled.name, detail={"companies": companies})
        if now.filters != before.filters:
            batch.log("filters changed", map=compiled.name)
    return scope


def _codes(compiled: CompiledMap, side: Side, companies: Sequence[str]) -> list[str]:
    """These companies as a side writes them."""
    lefts = [str(code) for code in compiled.companies[Side.LEFT]]
    return [str(compiled.companies[side][lefts.index(company)]) for company in companies]


def narrowed(compiled: CompiledMap, companies: Sequence[str]) -> dict[Side, View]:
    """The map's views, with records of these companies alone."""
    views = {}
    for side, view in compiled.views.items():
        path = view.paths[compiled.company[side]]
        only = OneOf(Column(path), tuple(Literal(code) for code in _codes(compiled, side, companies)))
        views[side] = replace(view, filter=and_(only, view.filter))
    return views


class Late:
    """Tells which rows of a side were outside of the map when something was done to them."""

    def __init__(self, compiled: CompiledMap, side: Side, floors: Mapping[str, Position]) -> None:
        """These companies are in the map from places in the side's feed on."""
        self._cell = compiled.company[side]
        self._common = partial(compiled.common, side, self._cell)
        codes = map(self._common, _codes(compiled, side, list(floors)))
        self._floors = dict(zip(codes, floors.values(), strict=True))

    def belongs(self, row: Row) -> bool:
        """Is it a row of these companies?"""
        return self._floor_of(row) is not None

    def _floor_of(self, row: Row) -> Position | None:
        company = row[self._cell]
        return self._floors.get(self._common(company)) if isinstance(company, str) else None

    def covers(self, row: Row, at: Position) -> bool:
        """Was this row's company outside of the map then?"""
        floor = self._floor_of(row)
        return floor is not None and at.feed == floor.feed and at <= floor


@dataclass(frozen=True)
class Part:
    """The records of some companies, for an initial sync of their own.  ``settled`` is told its boundaries before
    anything is carried."""

    compiled: CompiledMap
    companies: tuple[str, ...]
    settled: Callable[[Mapping[Side, Position]], None]

    @property
    def views(self) -> Mapping[Side, View]:
        """The map's views, with these records alone."""
        return narrowed(self.compiled, self.companies)

    def passes(self, side: Side, row: Row) -> bool:
        """Is it one of these records?"""
        late = Late(self.compiled, side, dict.fromkeys(self.companies, Position("", ())))
        return self.compiled.passes(side, row) and late.belongs(row)
