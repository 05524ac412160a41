"""The order in which things happened, where the log has it otherwise.

AFTER triggers fire newest first.  While a trigger of the application is newer than ours, what it does to the row that
it reacts to is logged *before* that: of an update a→b and a trigger's b→c the log holds b→c, a→b.  Ours are made the
newest again as soon as that is noticed; only what was logged until then is doubtful.  Foreign keys act before any
trigger: where a row refers to itself, what its new key does to it is always logged before the new key.

The images tell: an entry that ends where others begin came before them, if one statement logged them all, which shows
in their times.  Where images fit both ways (there and back again) the row's other entries decide, or what it is now.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple, TypeAlias

from dualwrite.connectors._sqlite_capture import DELETE, INSERT, MARKER, REPLACED, UPDATE, Shape
from dualwrite.connectors._sqlite_schema import Catalog, ForeignKey
from dualwrite.connectors._sqlite_values import Storage

Image: TypeAlias = Mapping[str, Storage]
"""A record's captured columns by name, as stored; a column that was not captured then is missing."""
State: TypeAlias = tuple[int, object, tuple[Storage, ...] | None]
"""A row as it was: the number of its shape, what tells it apart, and its image (None: there was none)."""
_PATHS = 8
"""Orders that are kept while there is no telling which one is right."""


class Entry(NamedTuple):
    """One entry of the log, its images as tuples in the order of its shape."""

    id: int
    shape: Shape
    op: str
    at: float
    rid: Storage
    note: str | None
    old: tuple[Storage, ...]
    new: tuple[Storage, ...]

    @property
    def table(self) -> str:
        """The table that was changed; empty for a marker."""
        return self.shape.plan.table

    def before(self) -> Image:
        """The old image by column."""
        return dict(zip(self.shape.plan.columns, self.old, strict=True))

    def after(self) -> Image:
        """The new image by column."""
        return dict(zip(self.shape.plan.columns, self.new, strict=True))


@dataclass(frozen=True, slots=True)
class Doubt:
    """Which entries may stand behind what they caused: those of ``tables``, all up to a place, and new keys of rows
    that refer to themselves by one of the foreign keys in ``selves``, per table."""

    tables: Collection[str] = ()
    until: int = 0
    selves: Mapping[str, Sequence[ForeignKey]] = field(default_factory=dict)

    @property
    def is_any(self) -> bool:
        """May any entry from now on stand in the wrong place?"""
        return bool(self.tables or self.selves)

    def concerns(self, entry: Entry) -> bool:
        """May this entry stand in the wrong place?"""
        if entry.id <= self.until or entry.table in self.tables:
            return True
        return entry.op == UPDATE and any(_is_renamed_self(entry, key) for key in self.selves.get(entry.table, ()))


def _is_renamed_self(entry: Entry, key: ForeignKey) -> bool:
    """Has a row got another key that referred to itself?"""
    old, new = entry.before(), entry.after()
    held = [old.get(name) for name in key.to]
    return held == [old.get(name) for name in key.columns] and held != [new.get(name) for name in key.to]


class _Step(NamedTuple):
    """What an entry did to its row.  ``number``: its place among the entries."""

    number: int
    at: float
    before: State
    after: State
    is_doubtful: bool


def state(catalog: Catalog, entry: Entry, image: tuple[Storage, ...] | None, *, is_after: bool) -> State:
    """What the row of an entry was before it or after it."""
    facts, columns = catalog.facts[entry.table], entry.shape.plan.columns
    known = dict(zip(columns, image or (entry.new if entry.op == INSERT else entry.old), strict=True))
    if facts.rowid is None:
        return entry.shape.number, tuple(known.get(name) for name in facts.key), image
    moved = is_after and entry.op == UPDATE and facts.rowid in known
    return entry.shape.number, known[facts.rowid] if moved else entry.rid, image


def in_order(
    entries: Sequence[Entry], doubt: Doubt, catalog: Catalog, now: Callable[[Entry], State | None]
) -> tuple[list[Entry], list[int]]:
    """The entries in the order in which things happened, and where each of them stood.

    They change places, not their ids.  ``now`` is what the row of an entry is by now; None where nobody knows.
    """
    if not any(map(doubt.concerns, entries)):
        return list(entries), list(range(len(entries)))
    places = list(range(len(entries)))
    last_marker = max((place for place, entry in enumerate(entries) if entry.op == MARKER), default=-1)
    first_of: dict[int, int] = {}
    for steps in _rows(entries, doubt, catalog):
        end = now(entries[steps[-1].number]) if steps[-1].number > last_marker else None  # we may have written since
        ordered = _ordered(steps, end)
        first_of |= _causes(ordered)
        for old, step in zip(steps, ordered, strict=True):
            places[old.number] = step.number
    found = list(_with_replaced(entries, places, first_of))
    return [entries[place]._replace(id=entry.id) for place, entry in zip(found, entries, strict=True)], found


def _causes(ordered: Sequence[_Step]) -> dict[int, int]:
    """For each step the first of those that caused it: they were logged behind it and come before it."""
    found: dict[int, int] = {}
    for place, step in enumerate(ordered):
        while place and ordered[place - 1].number > step.number:
            place -= 1
        found[step.number] = ordered[place].number
    return found


def _with_replaced(entries: Sequence[Entry], places: Sequence[int], first_of: Mapping[int, int]) -> Iterator[int]:
    """Rows that were replaced go before the first cause of what replaced them."""
    waiting: list[int] = []
    replaced: dict[int, list[int]] = {}
    for place, entry in enumerate(entries):
        if entry.op == REPLACED:
            waiting.append(place)
        else:
            replaced.setdefault(first_of.get(place, place), []).extend(waiting)
            waiting = []
    for place in places:
        if entries[place].op != REPLACED:
            yield from (*replaced.get(place, ()), place)
    yield from waiting


def _rows(entries: Sequence[Entry], doubt: Doubt, catalog: Catalog) -> list[list[_Step]]:
    """The steps of each row that some doubtful entry is about, in the order of the log."""
    rows: dict[tuple[int, object], list[_Step]] = {}
    for number, entry in enumerate(entries):
        if entry.op in (INSERT, UPDATE, DELETE) and entry.table in catalog.facts:
            before = state(catalog, entry, None if entry.op == INSERT else entry.old, is_after=False)
            after = state(catalog, entry, None if entry.op == DELETE else entry.new, is_after=True)
            steps = rows.get(after[:2]) or rows.get(before[:2]) or []
            steps.append(_Step(number, entry.at, before, after, doubt.concerns(entry)))
            rows[before[:2]] = rows[after[:2]] = steps
    distinct = {id(steps): steps for steps in rows.values()}.values()
    return [steps for steps in distinct if len(steps) > 1 and any(step.is_doubtful for step in steps)]


def _ordered(steps: Sequence[_Step], end: State | None) -> list[_Step]:
    """The steps of one row, each where the one before it ends."""
    paths: list[list[_Step]] = [[]]
    for step in steps:
        fitting = [way for path in paths for way in _ways(path, step)] or [[*path, step] for path in paths]
        distinct: dict[tuple[State, State | None, State], list[_Step]] = {}
        for way in fitting:
            distinct.setdefault((way[-1].after, *_start(way)), way)
        paths = list(distinct.values())[:_PATHS]
    return min(paths, key=lambda path: (_breaks(path), end is not None and path[-1].after != end))


def _ways(path: list[_Step], step: _Step) -> Iterator[list[_Step]]:
    """Where a step may stand: behind all, or before those of its own statement that begin where it ends."""
    if not path or path[-1].after == step.before:
        yield [*path, step]
    place = len(path) - 1
    while step.is_doubtful and place >= 0 and path[place].at == step.at:
        if path[place].before == step.after and _may_enter(path, place, step):
            yield [*path[:place], step, *path[place:]]
        place -= 1


def _may_enter(path: Sequence[_Step], place: int, step: _Step) -> bool:
    """Does a step not part what belongs together?"""
    return not place or path[place - 1].after == step.before or path[place - 1].after != path[place].before


def _start(path: Sequence[_Step]) -> tuple[State | None, State]:
    """Where the last statement of a path began, behind where the one before it ended: they may still be joined."""
    joints = ((a.after, b.before) for a, b in reversed(list(pairwise(path))) if a.at != b.at)
    return next(joints, (None, path[0].before))


def _breaks(path: Sequence[_Step]) -> int:
    return sum(a.after != b.before for a, b in pairwise(path))
