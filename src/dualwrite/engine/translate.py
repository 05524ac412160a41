"""A source's changes in the target's form: what a change writes there, and what it claims to have found.  Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import compress, count
from operator import itemgetter, ne
from typing import Final, TypeAlias

from dualwrite.casts import CastError
from dualwrite.engine.contest import Operation, Rules
from dualwrite.errors import RowProblem
from dualwrite.mapping.compile import CompiledMap
from dualwrite.model import ABSENT, Cell, Change, Key, Kind, Position, Row, Side, Write

Single: TypeAlias = tuple[int, int, Callable[..., Cell], bool]
"""A cell, the one that it becomes on the other side, how, and whether both sides promise each other its value."""
KINDS: Final = 1_000
"""Sets of cells that are edited together of which it is remembered how they are carried."""


def differing(one: Row, other: Row) -> list[int]:
    """The indexes of the cells in which two rows differ."""
    return list(compress(count(), map(ne, one, other)))


class Translation:
    """From changes of one map out of ``source`` to writes and operations on the other side."""

    def __init__(self, compiled: CompiledMap, source: Side) -> None:
        self._compiled = compiled
        self._source = source
        self._target = target = source.other
        self.blank: Row = (ABSENT,) * len(compiled.views[target].paths)
        units = compiled.units[target]
        self._ways = [(feed.cells, feed.indexes) for feed in compiled.feeds[source]]
        self._owned = compiled.owned_elsewhere(target)
        self._ways_from: dict[int, list[tuple[tuple[int, ...], tuple[int, ...]]]] = {}
        for way in self._ways:
            for index in way[0]:
                self._ways_from.setdefault(index, []).append(way)
        self._promised = frozenset(index for unit in units if unit.owner is None for index in unit.indexes)
        self._singles: dict[tuple[int, ...], list[Single] | None] = {}

    @cached_property
    def foreign(self) -> tuple[int, ...]:
        """The cells of the source's rows whose values belong to the target, and those that feed them by way of it."""
        back = [feed for feed in self._compiled.feeds[self._target] if feed.owned]
        made_of = {cell for feed in back for cell in feed.cells}
        found = {index for feed in back for index in feed.indexes}
        found |= {cell for cells, indexes in self._ways if not made_of.isdisjoint(indexes) for cell in cells}
        return tuple(sorted(found))

    # -- keys -----------------------------------------------------------------------------------------------------

    def target_key(self, change: Change) -> Key:
        """Under which key the target has the record that a change finds.  Raises RowProblem."""
        row = change.before if change.before is not None else change.after
        assert row is not None
        return self._compiled.target_key(self._source, row)

    # -- blind writes ---------------------------------------------------------------------------------------------

    def write(self, change: Change, edited: Sequence[int] | None = None) -> Write | None:
        """The write of a change that had seen everything; None when nothing that is carried has changed.

        ``edited`` are the cells in which its images differ, if that is known.  Raises RowProblem.
        """
        if change.before is None:
            assert change.after is not None
            mapped = self._compiled.map_row(self._source, change.after)
            return Write(self._compiled.target_key(self._source, change.after), None, mapped)
        key = self._compiled.target_key(self._source, change.before)
        if change.after is None:
            return Write(key, self._two_way(self._mapped_before(change.before)), None)
        edited = differing(change.before, change.after) if edited is None else edited
        alone = self._alone(edited)
        if alone is not None:
            return self._write_alone(key, change.before, change.after, alone)
        after = self._compiled.map_row(self._source, change.after)
        before = self._before(change.before, change.after, after, edited)
        changed = self._changed(before, after, edited)
        if not changed:
            return None
        if not changed.isdisjoint(self._compiled.views[self._target].key):
            changed |= self._owned  # who was to put these back may not have found the record under its old key
        row, expect = list(self.blank), list(self.blank)
        for index in changed:
            row[index] = after[index]
            if index in self._promised:
                expect[index] = before[index]
        return Write(key, tuple(expect), tuple(row))

    def _alone(self, edited: Sequence[int]) -> Sequence[Single] | None:
        """How cells are carried that each make one cell of the target, and none of its key; None for others."""
        cells = tuple(edited)
        if cells not in self._singles:
            if len(self._singles) >= KINDS:
                self._singles.clear()
            found = [self._single(cell) for cell in cells if cell in self._ways_from]
            known = [single for single in found if single is not None]
            self._singles[cells] = sorted(known, key=itemgetter(1)) if len(known) == len(found) else None
        return self._singles[cells]

    def _single(self, cell: int) -> Single | None:
        way = self._compiled.single(self._source, cell)
        if way is None or self._ways_from[cell] != [((cell,), way[:1])]:
            return None
        index, carry = way
        if index in self._compiled.views[self._target].key:
            return None
        return cell, index, carry, index in self._promised

    def _write_alone(self, key: Key, before: Row, after: Row, alone: Sequence[Single]) -> Write | None:
        """The same as ``write`` makes of ``_before`` and ``_changed``, of these cells alone."""
        row, expect = list(self.blank), list(self.blank)
        cells: list[int] = []
        for cell, index, carry, is_promised in alone:
            one, other = before[cell], after[cell]
            try:
                now = carry(other)
            except CastError:
                now = self._compiled.map_row(self._source, after)[index]  # tells what the matter is
            try:
                was = carry(one)
            except CastError:
                was = ABSENT
            if was == now and self._unlike(cell, one, other):
                was = ABSENT
            if now is not ABSENT and was != now:
                row[index] = now
                cells.append(index)
                if is_promised:
                    expect[index] = was
        return Write(key, tuple(expect), tuple(row), tuple(cells)) if cells else None

    def _mapped_before(self, row: Row) -> Row:
        try:
            return self._compiled.map_row(self._source, row)
        except RowProblem:
            return self._compiled.map_known(self._source, row)[0]  # the rest tells nothing about the target

    def _mapped_after(self, row: Row, later: Sequence[Change]) -> Row:
        """A row in the target's form; cells that cannot be carried are passed over where a later change mends them."""
        try:
            return self._compiled.map_row(self._source, row)
        except RowProblem:
            mapped, failed = self._compiled.map_known(self._source, row)
            if not failed or not all(any(c.after is not None and c.after[i] != row[i] for c in later) for i in failed):
                raise
            return mapped

    def _before(self, before: Row, after: Row, now: Row, edited: Sequence[int]) -> Row:
        """The row before a change in the target's form; ``now`` is the one behind it, ``edited`` the cells that differ.

        Where an edit makes no difference there (a default, a text cut short), the target may hold another value that
        only maps back to the old one: the unit is written all the same, and what it held is not known.
        """
        was = list(now)
        self._compiled.map_cells(self._source, before, edited, was)
        for cells, indexes in self._touched(edited):
            if all(was[i] == now[i] for i in indexes) and any(self._unlike(i, before[i], after[i]) for i in cells):
                for index in indexes:
                    was[index] = ABSENT
        return tuple(was)

    def _touched(self, edited: Sequence[int]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
        """The units that are carried and have one of these cells: the source's cells of each, and the target's."""
        if len(edited) == 1:
            return self._ways_from.get(edited[0], [])
        return list(dict.fromkeys(way for index in edited for way in self._ways_from.get(index, ())))

    def _unlike(self, index: int, one: Cell, other: Cell) -> bool:
        """Do two cells of the source differ in common form?"""
        if one == other:
            return False
        if one is ABSENT or other is ABSENT:
            return other is not ABSENT
        return self._compiled.common(self._source, index, one) != self._compiled.common(self._source, index, other)

    def _changed(self, before: Row, after: Row, edited: Sequence[int]) -> set[int]:
        """The cells of every unit that the source carries here and that differs, if only in letter case."""
        changed: set[int] = set()
        for _, indexes in self._touched(edited):
            if any(after[i] is not ABSENT and before[i] != after[i] for i in indexes):
                changed.update(indexes)
        return changed

    def _differs(self, index: int, one: object, other: object) -> bool:
        if one == other:
            return False
        if one is ABSENT or other is ABSENT:
            return other is not ABSENT
        assert one is None or isinstance(one, str)
        assert other is None or isinstance(other, str)
        return self._compiled.common(self._target, index, one) != self._compiled.common(self._target, index, other)

    def _two_way(self, before: Row) -> Row:
        """What the target must hold by the rules: only two-way columns promise anything."""
        row = list(self.blank)
        for index in self._promised:
            row[index] = before[index]
        return tuple(row)

    # -- operations of a fold -------------------------------------------------------------------------------------

    def rules(self, ahead: Callable[[Position], float]) -> Rules:
        """What the map says about contested records; ``ahead``: how far the right clock was, see ``Rules``."""

        def common(index: int, value: str | None) -> str | None:
            return self._compiled.common(self._target, index, value)

        return Rules(self._target, self._compiled.units[self._target], self._compiled.rows, common, ahead)

    def operation(self, change: Change, row: Row | None, later: Sequence[Change]) -> Operation:
        """A change in the target's form, for a record that is ``row`` there now."""
        before = after = None
        if change.after is not None:
            after = self._mapped_after(change.after, later)
            if change.before is not None:
                edited = differing(change.before, change.after)
                before = self._before(change.before, change.after, after, edited)
        elif change.before is not None:
            before = self._mapped_before(change.before)
        if before is not None and all(cell is ABSENT for cell in before) and row is not None:
            before = row
        unset = self._unset(change.after) if change.kind is Kind.INSERT and change.after is not None else frozenset()
        return Operation(change.kind, before, after, change.at, change.position, change.weak, unset)

    def _unset(self, row: Row) -> frozenset[int]:
        """The target's cells for which the source has nothing."""
        return frozenset(
            index
            for cells, indexes in self._ways
            if cells and all(self._is_null(row, i) for i in cells)
            for index in indexes
        )

    def _is_null(self, row: Row, index: int) -> bool:
        cell = row[index]
        return cell is not ABSENT and self._compiled.common(self._source, index, cell) is None

    def is_bypassed(self, change: Change, operation: Operation, row: Row) -> bool:
        """Does the target hold neither what the operation found nor what it leaves, though nobody is known to have
        changed it?"""
        if change.before is None or operation.before is None or operation.weak:
            return False
        differing = self._differing(change.before, row)
        for unit in self._compiled.units[self._target]:
            if unit.owner is not None or unit.policy == "sum" or unit.name not in differing:
                continue
            for i in unit.indexes:
                before, after = operation.before[i], None if operation.after is None else operation.after[i]
                written = operation.after is None or self._differs(i, before, after)
                if (
                    written
                    and row[i] is not ABSENT
                    and before is not ABSENT
                    and self._differs(i, row[i], before)
                    and (operation.after is None or self._differs(i, row[i], after))
                ):
                    return True
        return False

    def _differing(self, theirs: Row, row: Row) -> set[str]:
        """The units in which a row of the source and one of the target are out of step."""
        try:
            left, right = (theirs, row) if self._source is Side.LEFT else (row, theirs)
            return set(self._compiled.agree(left, right))
        except RowProblem:
            return {unit.name for unit in self._compiled.units[self._target]}
