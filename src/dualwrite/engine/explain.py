"""Why a record is, or is not, in step: both rows side by side, and whatever keeps one from following the other.

Reads only, so it works beside a running engine.  What it returns is a value, for whoever shows it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from shlex import quote
from typing import Literal, TypeAlias

from dualwrite.engine.lifecycle import ATTENTION, INITIALIZING, PAUSED, RESUMING, RUNNING
from dualwrite.engine.link import key_text
from dualwrite.engine.workspace import Workspace
from dualwrite.errors import RowProblem, Usage
from dualwrite.expression import And, Expression, describe, paths
from dualwrite.filters import compile_filter
from dualwrite.journal import Conflict, Parked
from dualwrite.mapping.compile import CompiledMap
from dualwrite.mapping.tablemap import ColumnMapping
from dualwrite.model import ABSENT, Cell, Key, Path, Row, Side, show_key, show_path
from dualwrite.schema import Column
from dualwrite.troubles import remedy_of

Way: TypeAlias = Literal["both", "to right", "to left"]


@dataclass(frozen=True, slots=True)
class Compared:
    """One line of the map: its column and cell on each side (None: no column there), and whether they differ."""

    paths: Mapping[Side, Path | None]
    cells: Mapping[Side, Cell]
    way: Way
    differs: bool


@dataclass(frozen=True, slots=True)
class Reason:
    """Something that keeps a record from being in step, and what to do about it.  ``code`` is stable."""

    code: str
    text: str
    remedy: str
    side: Side | None = None
    since: float | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """``rows`` are how many records each side has with the key; ``columns`` is empty unless both have one.

    ``reasons`` come in the order in which they are to be settled.
    """

    map: str
    key: str
    agrees: bool
    rows: Mapping[Side, int]
    columns: Sequence[Compared] = ()
    reasons: Sequence[Reason] = ()
    verdict: str = ""
    next_step: str = ""

    @property
    def is_clean(self) -> bool:
        """Is there nothing to be done about the record?"""
        return self.agrees and not self.reasons and any(self.rows.values())


def explain(work: Workspace, compiled: CompiledMap, members: Sequence[str]) -> Explanation:
    """The record of a map whose key has these members: in the order of the map's key, or each as NAME=VALUE with the
    name of its column on either side.

    Raises Usage where the key has another number of members.
    """
    return _Explainer(work, compiled, members).explain()


class _Explainer:
    def __init__(self, work: Workspace, compiled: CompiledMap, members: Sequence[str]) -> None:
        self._work, self._map = work, compiled
        self._members = _members(compiled, members)
        self._rows = self._find()
        self._key = self._common_key()

    # -- the record -----------------------------------------------------------------------------------------------

    def _find(self) -> dict[Side, list[Row]]:
        """Its rows on both sides: by the members as they were given, else by the key that the other side's row has."""
        rows = {side: self._fetch(side, self._members) for side in Side}
        for side in Side:
            if not rows[side] and len(rows[side.other]) == 1:
                with suppress(RowProblem):
                    rows[side] = self._fetch(side, self._map.target_key(side.other, rows[side.other][0]))
        return rows

    def _fetch(self, side: Side, key: Key) -> list[Row]:
        return self._work.connectors[side].fetch(self._map.views[side], [key]).get(key, [])

    def _common_key(self) -> Key:
        for side in Side:
            for row in self._rows[side]:
                with suppress(RowProblem):
                    return self._map.key(side, row)
        return self._members

    # -- why ------------------------------------------------------------------------------------------------------

    def explain(self) -> Explanation:
        """All of it."""
        columns = self._columns()
        reasons = [*self._doubled(), *self._state(), *self._parked(), *self._queued(), *self._conflicts()]
        outside = [reason for side in Side for reason in self._outside(side)]
        reasons += outside
        agrees = self._agrees()
        if not agrees and not reasons:
            reasons = list(self._else())
        verdict, step = self._verdict(agrees, reasons)
        counts = {side: len(rows) for side, rows in self._rows.items()}
        return Explanation(self._map.name, show_key(self._key), agrees, counts, columns, reasons, verdict, step)

    def _agrees(self) -> bool:
        left, right = self._rows[Side.LEFT], self._rows[Side.RIGHT]
        if len(left) != 1 or len(right) != 1:
            return not left and not right
        with suppress(RowProblem):
            return not self._map.agree(left[0], right[0])
        return False

    def _doubled(self) -> Iterator[Reason]:
        for side, rows in self._rows.items():
            if len(rows) > 1:
                text = f"{len(rows)} records on the {side} side hold this key; dualwrite never picks one"
                yield Reason("duplicate_key", text, "remove or rename all but one of them", side)

    def _state(self) -> Iterator[Reason]:
        state, name = self._work.states()[self._map.name], self._map.name
        if state.state == PAUSED:
            yield Reason(
                "paused", "the map is paused: its changes wait", f"dualwrite resume {quote(name)}", None, state.since
            )
        elif state.state == RESUMING:
            text = "the map is resuming: what has queued is carried first"
            yield Reason("resuming", text, "wait until dualwrite status says that it is running", None, state.since)
        elif state.state == INITIALIZING:
            text = "the map's initial sync is not done yet"
            yield Reason("initializing", text, "wait for it: dualwrite status", None, state.since)
        elif state.state == ATTENTION:
            text = f"the map has stopped by itself: {state.reason}"
            yield Reason("needs_attention", text, f"settle that, then dualwrite start {quote(name)}", None, state.since)
        elif state.state != RUNNING:
            text = f"the map is {state.state}: its changes are not captured"
            yield Reason("not_captured", text, f"dualwrite start {quote(name)}", None, state.since or None)

    def _parked(self) -> Iterator[Reason]:
        for entry in self._entries(key_text(self._key)):
            waits = f"; {entry.changes} change(s) wait" if entry.changes else ""
            where = f"column {entry.column}: " if entry.column else ""
            text = f"parked on its way to the {entry.side} side as {entry.id}: {where}{entry.reason}{waits}"
            remedy = remedy_of(entry.code) or f"dualwrite parked show {entry.id}"
            yield Reason(entry.code, text, remedy, entry.side, entry.since)
            if entry.code == "behind":
                for ahead in self._entries(entry.waits_key):
                    which = f"the record that it waits behind, {ahead.shown_key}"
                    text = f"{which}, is parked as {ahead.id}: {ahead.reason}"
                    yield Reason(ahead.code, text, remedy_of(ahead.code), ahead.side, ahead.since)

    def _entries(self, key: str) -> list[Parked]:
        return self._work.journal.parked(self._work.numbers(), map=self._map.name, key=key)

    def _queued(self) -> Iterator[Reason]:
        backlogs, name = self._work.journal.backlogs, self._map.name
        for side in Side:
            passed = backlogs.passed(side, name)
            waiting = [e for e in backlogs.of(side, name, [key_text(self._key)]) if e.number > passed]
            if waiting:
                text = f"{len(waiting)} change(s) of the {side} side wait in the map's queue"
                since = waiting[0].change.change.at
                yield Reason("queued", text, "they are carried once the map is resumed", side, since)

    def _conflicts(self) -> Iterator[Reason]:
        journal, numbers = self._work.journal, self._work.numbers()
        found: Sequence[Conflict] = journal.conflicts(numbers, map=self._map.name, key=key_text(self._key))
        for entry in found:
            if entry.open:
                text = f"both sides changed {entry.unit}, and a person decides which value holds"
                yield Reason(
                    "conflict", text, f"dualwrite conflicts resolve {entry.id} left (or right)", None, entry.at
                )

    def _outside(self, side: Side) -> Iterator[Reason]:
        """What keeps the row of a side out of the map."""
        for row in self._rows[side] if len(self._rows[side]) == 1 else ():
            if self._map.passes(side, row):
                continue
            company = self._map.company.get(side)
            failing = list(_failing(self._map.open[side].filter, self._tester(side), row))
            for part in failing:
                wanted, held = describe(part), self._held(side, row, part)
                text = f"the filter of the {side} side keeps it out: it wants {wanted}; {held}"
                yield Reason("filtered", text, "change the record, or the map's filter", side)
            if not failing and company is not None:
                code = row[company]
                shown = "no company" if not isinstance(code, str) or not code else f"company {code}"
                text = f"the record of the {side} side has {shown}, which the link does not cover"
                yield Reason("other_company", text, "add the company to companies: in dualwrite.yaml", side)

    def _held(self, side: Side, row: Row, part: Expression) -> str:
        view = self._map.views[side]
        cells = [(show_path(path), row[view.paths.index(path)]) for path in paths(part)]
        return ", ".join(f"{name} is {_shown(cell)}" for name, cell in cells)

    def _tester(self, side: Side) -> _Tester:
        return _Tester(self._work, self._map, side)

    def _else(self) -> Iterator[Reason]:
        """The sides differ, and nothing of the above explains it."""
        state = self._work.states()[self._map.name]
        repair = "compare once more; if it stays: dualwrite verify --repair left (or right)"
        if self._work.lease.owner() is None:
            yield Reason("no_engine", "no engine is running: what it has not carried yet differs", "dualwrite run")
        elif state.initial == "skipped":
            text = "the map was started without initial sync: what was changed before is not captured"
            yield Reason("not_captured", text, f"dualwrite verify {quote(self._map.name)} --repair left (or right)")
        else:
            yield Reason("in_flight", "its change is on its way, or was written past the capture", repair)

    # -- columns --------------------------------------------------------------------------------------------------

    def _columns(self) -> list[Compared]:
        left, right = self._rows[Side.LEFT], self._rows[Side.RIGHT]
        if len(left) != 1 or len(right) != 1:
            return []
        rows = {Side.LEFT: left[0], Side.RIGHT: right[0]}
        carried = {side: self._map.map_known(side, rows[side])[0] for side in Side}
        return [self._compared(line, rows, carried) for line in self._map.table_map.columns]

    def _compared(self, line: ColumnMapping, rows: Mapping[Side, Row], carried: Mapping[Side, Row]) -> Compared:
        paths = {side: line.path(side) for side in Side}
        indexes = {side: _index(self._map, side, path) for side, path in paths.items()}
        cells: dict[Side, Cell] = {s: ABSENT if (i := indexes[s]) is None else rows[s][i] for s in Side}
        sources = _sources(line)
        told = [
            found for side in sources if (found := self._same(side, indexes[side.other], rows, carried)) is not None
        ]
        way: Way = "both" if len(sources) > 1 else "to right" if sources == [Side.LEFT] else "to left"
        return Compared(paths, cells, way, bool(told) and not any(told))

    def _same(
        self, source: Side, index: int | None, rows: Mapping[Side, Row], carried: Mapping[Side, Row]
    ) -> bool | None:
        """Does the target hold what the source's row says there?  None where nothing is known."""
        if index is None:
            return None
        here, there = carried[source][index], rows[source.other][index]
        if here is ABSENT or there is ABSENT:
            return None
        return self._map.common(source.other, index, here) == self._map.common(source.other, index, there)

    # -- the verdict ----------------------------------------------------------------------------------------------

    def _verdict(self, agrees: bool, reasons: Sequence[Reason]) -> tuple[str, str]:
        counts = {side: len(rows) for side, rows in self._rows.items()}
        if not any(counts.values()):
            known = self._work.journal.events(map=self._map.name, key=key_text(self._key), limit=1)
            told = f"; the log says last: {known[0].what}" if known else ""
            names = _key_names(self._map, Side.LEFT)
            asked = ", ".join(f"{name} {_shown(cell)}" for name, cell in zip(names, self._members, strict=True))
            verdict = f"neither side has a record with {asked}: it was deleted, or never was{told}"
        elif agrees:
            verdict = "both sides agree"
        elif all(counts.values()):
            verdict = "both sides have the record, and they differ"
        else:
            side = next(side for side, count in counts.items() if count)
            verdict = f"only the {side} side has the record"
        if not reasons:
            return verdict, "nothing is to be done" if agrees else "look at dualwrite log"
        return verdict, reasons[0].remedy


@dataclass(frozen=True)
class _Tester:
    """Asks single parts of a filter of a row."""

    work: Workspace
    compiled: CompiledMap
    side: Side

    def holds(self, part: Expression, row: Row) -> bool:
        """Does the part hold?"""
        return compile_filter(part, self._resolve)(row)

    def _resolve(self, path: Path) -> tuple[int, Column]:
        view = self.compiled.views[self.side]
        column = self.work.schemas[self.side].resolve(view.table, path)
        assert column is not None, "the map was checked"
        return view.paths.index(path), column


def _failing(expression: Expression | None, tester: _Tester, row: Row) -> Iterator[Expression]:
    """The smallest parts that fail."""
    if expression is None or tester.holds(expression, row):
        return
    if isinstance(expression, And):
        for part in expression.parts:
            yield from _failing(part, tester, row)
    else:
        yield expression


def _members(compiled: CompiledMap, given: Sequence[str]) -> Key:
    """The members of a key, given one by one or in one text."""
    names = _key_names(compiled, Side.LEFT)
    members = list(given)
    if len(members) == 1 and len(names) > 1:
        members = [part.strip() for part in members[0].split(",")]
    if len(members) != len(names):
        raise Usage(
            f"the key of {compiled.name} has {len(names)} member(s), not {len(members)}",
            f"give, separated by commas or one by one: {', '.join(names)}",
        )
    members = _in_order(compiled, members) or members
    return tuple(None if member == "()" else member for member in members)


def _key_names(compiled: CompiledMap, side: Side) -> list[str]:
    view = compiled.views[side]
    return [show_path(view.paths[index]) for index in view.key]


def _in_order(compiled: CompiledMap, members: Sequence[str]) -> list[str] | None:
    """Members that were given by their names, in the key's order; None where they were not."""
    given = dict(member.split("=", 1) for member in members if "=" in member)
    for side in Side:
        names = _key_names(compiled, side)
        if given.keys() == set(names):
            return [given[name] for name in names]
    return None


def _index(compiled: CompiledMap, side: Side, path: Path | None) -> int | None:
    paths = compiled.views[side].paths
    return paths.index(path) if path in paths else None


def _sources(line: ColumnMapping) -> list[Side]:
    return [side for side in Side if line.direction.carries(side)]


def _shown(cell: Cell) -> str:
    return "null" if cell is None else "not known" if cell is ABSENT else f"'{cell}'"
