"""One apply transaction: arriving changes become writes of the target.

The changes of a batch are gathered per record.  Records whose target nobody else has edited (an empty window) are
coalesced and written set-based, blindly; the others are folded operation by operation over the target's row.  Parents
are written before children, deletes children first; what could not be written is tried once more behind everything
else, then parked — alone, with the target's own words.

Nothing here survives by itself: the ``Ledger`` says what the journal must hold before the commit and what the caches
must learn after it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import assert_never

from dualwrite.connectors.base import Transaction
from dualwrite.engine.contest import Alarm, Folded, Hidden, Loss, Operation, Rules, Undecided, fold
from dualwrite.engine.link import HIDDEN, PARKED, RESTORE, Link, LinkSide, hidden_text, key_text
from dualwrite.engine.window import record_keys
from dualwrite.errors import RowProblem
from dualwrite.journal import Conflict, ParkedKey
from dualwrite.mapping.compile import CompiledMap
from dualwrite.model import (
    ABSENT,
    Applied,
    Cell,
    Change,
    Contested,
    Key,
    Kind,
    MissingParent,
    Outcome,
    Position,
    Rejected,
    Row,
    Side,
    Unchanged,
    Write,
    show_key,
)


@dataclass
class Plan:
    """What a batch does to one record: its changes in feed order, none of them applied yet."""

    compiled: CompiledMap
    key: Key
    changes: list[Change]
    new_key: Key
    fetched: list[Row] | None = None
    first: Position | None = None  # where the other side's seeing of the record ends, once it is parked

    @property
    def renames(self) -> bool:
        """Does the record get another key?"""
        return self.key != self.new_key

    @property
    def is_plain(self) -> bool:
        """Do its changes merge into one?  A record that comes back is more than its first and last image."""
        later = any(change.kind is Kind.INSERT for change in self.changes[1:])
        return not later and not (self.changes[0].kind is Kind.INSERT and self.changes[-1].kind is Kind.DELETE)

    def merged(self) -> Change:
        """All changes as one: first before, last after; needs ``is_plain``."""
        first, last = self.changes[0], self.changes[-1]
        if len(self.changes) == 1:
            return first
        kind = Kind.INSERT if first.kind is Kind.INSERT else Kind.DELETE if last.after is None else Kind.UPDATE
        return replace(last, kind=kind, key=first.key, before=first.before, weak=first.weak and last.weak)


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a record could not be carried."""

    code: str
    reason: str
    column: str = ""
    waits_table: str = ""
    waits_key: str = ""


@dataclass
class Ledger:
    """What one apply transaction leaves behind besides the rows."""

    number: int
    parked: list[tuple[Plan, Trouble]] = field(default_factory=list)
    queued: list[tuple[CompiledMap, Key, Change]] = field(default_factory=list)
    freed: list[tuple[str, Key]] = field(default_factory=list)
    conflicts: list[Conflict] = field(default_factory=list)
    hidden: dict[tuple[str, Key], Hidden | None] = field(default_factory=dict)
    restore: dict[tuple[str, Key], Key] = field(default_factory=dict)
    tables: set[str] = field(default_factory=set)
    counts: Counter[str] = field(default_factory=Counter)


class Application:
    """The changes of one batch on their way into one target transaction."""

    def __init__(self, link: Link, source: Side, transaction: Transaction) -> None:
        self.link = link
        self.source = source
        self.target = source.other
        self.here: LinkSide = link.sides[self.target]
        self.transaction = transaction
        self.ledger = Ledger(transaction.number)
        self._parked: set[tuple[str, Key]] = set()
        self._freed: set[tuple[str, Key]] = set()

    # -- gathering ------------------------------------------------------------------------------------------------

    def run(self, changes: Iterable[Change]) -> Ledger:
        """Apply projected changes of live maps, in feed order."""
        segment: dict[tuple[str, Key], Plan] = {}
        renamed: dict[tuple[str, Key], Plan] = {}
        for change in changes:
            compiled = self.link.maps[change.view]
            keys = self._keys(compiled, change)
            if keys is None or self._behind(compiled, keys, change):
                continue
            old, new = keys[0], keys[-1]
            plan = renamed.get((compiled.name, old)) or segment.get((compiled.name, old))
            moves = old != new
            if (plan is not None and plan.new_key != old) or (
                moves and ((compiled.name, new) in segment or (compiled.name, new) in renamed)
            ):
                self._segment(segment.values())  # the key was somebody else's earlier in this batch: write that first
                segment, renamed, plan = {}, {}, None
                if self._behind(compiled, keys, change):
                    continue
            if plan is None:
                plan = segment[compiled.name, old] = Plan(compiled, old, [], old)
            plan.changes.append(change)
            plan.new_key = new
            if moves:
                renamed[compiled.name, new] = plan
        self._segment(segment.values())
        return self.ledger

    def insert(self, changes: Sequence[Change]) -> Ledger:
        """As ``run``, for inserts of one map into a target that nobody has touched meanwhile: almost no ceremony.

        Whatever does not simply go in takes the ordinary way.
        """
        compiled = self.link.maps[changes[0].view]
        view = compiled.views[self.target]
        if view.filter is not None or not self._is_untouched(compiled):
            return self.run(changes)
        writes, carried, others = [], [], []
        for change in changes:
            assert change.after is not None
            try:
                row = compiled.map_row(self.source, change.after)
            except RowProblem:
                others.append(change)
                continue
            key = tuple(None if (cell := row[index]) is ABSENT else cell for index in view.key)
            writes.append(Write(key, None, row))
            carried.append(change)
        gives_back = any(unit.owner is self.target for unit in compiled.units[self.source])
        for change, outcome in zip(carried, self.transaction.write(view, writes), strict=True):
            if not isinstance(outcome, Applied):
                others.append(change)
                continue
            self.ledger.counts["applied"] += 1
            if gives_back:
                self._note_inserted(compiled, change)
        self.ledger.tables.add(view.table)
        return self.run(others) if others else self.ledger

    def _is_untouched(self, compiled: CompiledMap) -> bool:
        """Is there nothing of the map's records but what the changes themselves say?"""
        name = compiled.name
        known = any(record[0] == name for record in (*self.here.parked.records(), *self.here.hidden))
        return not known and self.here.windows.is_untouched(name)

    def _note_inserted(self, compiled: CompiledMap, change: Change) -> None:
        assert change.after is not None
        natural = compiled.target_key(self.source, change.after)
        self.restore_later(compiled, compiled.key(self.source, change.after), natural)

    def _keys(self, compiled: CompiledMap, change: Change) -> tuple[Key, ...] | None:
        try:
            return record_keys(compiled, self.source, change)
        except RowProblem as problem:
            key: Key = (None,) * len(change.key) if problem.code == "empty_key" else change.key
            plan = Plan(compiled, key, [change], key)
            if not self._behind(compiled, (key,), change):
                self._park(plan, Trouble(problem.code, str(problem), problem.column))
            return None

    def _is_parked(self, record: tuple[str, Key]) -> bool:
        return record in self._parked or (record not in self._freed and record in self.here.parked)

    def _behind(self, compiled: CompiledMap, keys: Sequence[Key], change: Change) -> bool:
        """Queue a change behind the parked ones of its record; a rename also holds back its new key."""
        held = [key for key in keys if self._is_parked((compiled.name, key))]
        if not held:
            return False
        self.ledger.queued.append((compiled, held[0], change))
        for key in keys:
            if not self._is_parked((compiled.name, key)):
                self._park(Plan(compiled, key, [], key), behind(held[0]), first=change.position)
        return True

    def _segment(self, plans: Iterable[Plan]) -> None:
        ready = [plan for plan in plans if not self._held_back(plan)]
        by_map: dict[str, list[Plan]] = {}
        for plan in ready:
            by_map.setdefault(plan.compiled.name, []).append(plan)
        ordered = [by_map[name] for name in self.link.maps if name in by_map]
        work = [Stage(self, plans[0].compiled, plans) for plans in ordered]
        for stage in work:
            stage.upserts()
        for stage in reversed(work):
            stage.deletes()
        for stage in work:
            stage.again()
        for stage in work:
            stage.patch()

    def _held_back(self, plan: Plan) -> bool:
        """Has something of this very batch parked the record meanwhile?"""
        if not self._is_parked((plan.compiled.name, plan.key)):
            return False
        for change in plan.changes:
            self._behind(plan.compiled, record_keys(plan.compiled, self.source, change), change)
        return True

    # -- what is left behind --------------------------------------------------------------------------------------

    def _park(self, plan: Plan, trouble: Trouble, first: Position | None = None) -> None:
        first = first or plan.changes[0].position
        for key in dict.fromkeys((plan.key, plan.new_key)):
            record = (plan.compiled.name, key)
            mine = plan if key == plan.key else Plan(plan.compiled, key, [], key)
            mine.first = first
            self.ledger.parked.append((mine, trouble if key == plan.key else behind(plan.key)))
            self._parked.add(record)
            self.transaction.remember(PARKED, plan.compiled.name, key_text(key), str(first))
        self.ledger.counts["parked"] += 1

    def free(self, compiled: CompiledMap, key: Key) -> None:
        """The record is not parked any more (unless what follows parks it again)."""
        self._freed.add((compiled.name, key))
        self.ledger.freed.append((compiled.name, key))
        self.transaction.remember(PARKED, compiled.name, key_text(key), None)

    def park(self, plan: Plan, trouble: Trouble) -> None:
        """Park a record with the changes of its plan."""
        self._park(plan, trouble)

    def hide(self, compiled: CompiledMap, key: Key, hidden: Hidden | None) -> None:
        """Keep, or drop, the row that lies under a record's delete."""
        record = (compiled.name, key)
        if self.hidden(compiled, key) == hidden:
            return
        self.ledger.hidden[record] = hidden
        text = None if hidden is None else hidden_text(hidden)
        self.transaction.remember(HIDDEN, compiled.name, key_text(key), text)

    def hidden(self, compiled: CompiledMap, key: Key) -> Hidden | None:
        """The row under a record's delete, as this transaction sees it."""
        record = (compiled.name, key)
        return self.ledger.hidden[record] if record in self.ledger.hidden else self.here.hidden.get(record)

    def restore_later(self, compiled: CompiledMap, key: Key, natural: Key) -> None:
        """The source is to take the target's one-way columns again; ``natural`` finds the record here."""
        if (compiled.name, key) not in self.ledger.restore:
            self.ledger.restore[compiled.name, key] = natural
            self.transaction.remember(RESTORE, compiled.name, key_text(key), key_text(natural))

    def conflict(self, plan: Plan, loss: Loss, *, is_open: bool = False) -> None:
        """Put a loss into the conflict log."""
        if loss.policy == "manual" and not is_open:
            return  # the conflict is in the log since it was found; the decision has closed it
        self.ledger.counts["conflicts"] += 1
        loser, beats = loss.loser, loss.beats
        if is_open and self.source is Side.RIGHT:
            loser, beats = beats, loser  # an open conflict has no loser yet: left change first, so both flows find one
        self.ledger.conflicts.append(
            Conflict(
                map=plan.compiled.name,
                side=self.target,
                key=key_text(plan.key),
                shown_key=show_key(plan.key),
                unit=loss.unit,
                left=loss.values.get(Side.LEFT),
                right=loss.values.get(Side.RIGHT),
                base=loss.base,
                winner="" if is_open else loss.winner.value,
                policy=loss.policy,
                at=datetime.now(UTC).timestamp(),
                loser=loser,
                beats=beats,
                open=is_open,
            )
        )


class Stage:
    """One map's share of a segment."""

    def __init__(self, application: Application, compiled: CompiledMap, plans: Sequence[Plan]) -> None:
        self.app = application
        self.compiled = compiled
        self.source = application.source
        self.target = application.target
        self.view = compiled.views[self.target]
        self.blank: Row = (ABSENT,) * len(self.view.paths)
        units = compiled.units[self.target]
        self._carried = [unit.indexes for unit in units if unit.owner is not self.target]
        theirs = {unit.name: unit.indexes for unit in compiled.units[self.source]}
        self._ways = [(theirs.get(u.name, ()), u.indexes) for u in units if u.owner is not self.target]
        self._promised = [i for unit in units if unit.owner is None for i in unit.indexes]
        self._foreign = [i for u in compiled.units[self.source] if u.owner is self.target for i in u.indexes]
        # A record may be missing with nobody having told: deleted outside of the filter, or where deletes do not flow.
        self._may_lack = self.view.filter is not None or not compiled.deletes
        self.windows = application.here.windows
        self._upserts: list[tuple[Plan, Write]] = []
        self._deletes: list[tuple[Plan, Write]] = []
        self._later: list[tuple[Plan, Write, Outcome]] = []
        self._patches: list[tuple[Plan, Write]] = []
        self._revived: list[Write] = []
        self._prepare(plans)

    # -- from changes to writes -----------------------------------------------------------------------------------

    def _prepare(self, plans: Sequence[Plan]) -> None:
        contested = [plan for plan in plans if self._is_contested(plan)]
        look = plans if self.view.filter is not None else contested
        self._fetch(look)
        slow = {id(plan) for plan in contested}
        for plan in plans:
            if plan.fetched and self._is_detached(plan.fetched):
                self.app.ledger.counts["detached"] += 1
            elif id(plan) in slow and self._is_renamed(plan):
                reason = "both sides changed the record, and one of them its key"
                self.app.park(plan, Trouble("rename", reason))
            elif id(plan) in slow:
                self._fold(plan)
            else:
                self._blindly(plan)

    def _is_contested(self, plan: Plan) -> bool:
        name = self.compiled.name
        return not plan.is_plain or any(
            self.app.hidden(self.compiled, key) is not None
            or (change.weak and change.kind is Kind.UPDATE)
            or self.windows.of(name, key, change.seen)
            for key in dict.fromkeys((plan.key, plan.new_key))
            for change in plan.changes
        )

    def _is_renamed(self, plan: Plan) -> bool:
        """Has one of the two sides changed the record's key, unseen by the other?"""
        own = [c for change in plan.changes for c in self.windows.of(self.compiled.name, plan.key, change.seen)]
        return plan.renames or any(len(record_keys(self.compiled, self.target, change)) > 1 for change in own)

    def _fetch(self, plans: Sequence[Plan]) -> None:
        """The target's rows as they are, for those plans that do not know them yet."""
        wanted: dict[Key, list[Plan]] = {}
        for plan in plans:
            if plan.fetched is None:
                try:
                    wanted.setdefault(self._target_key(plan), []).append(plan)
                except RowProblem:
                    plan.fetched = []
        if not wanted:
            return
        rows = self.app.transaction.fetch(self.view, list(wanted))
        for key, asking in wanted.items():
            for plan in asking:
                plan.fetched = rows.get(key, [])

    def _target_key(self, plan: Plan) -> Key:
        first = plan.changes[0]
        row = first.before if first.before is not None else first.after
        assert row is not None
        return self.compiled.target_key(self.source, row)

    def _is_detached(self, rows: Sequence[Row]) -> bool:
        return not any(self.compiled.passes(self.target, row) for row in rows)

    def _blindly(self, plan: Plan) -> None:
        """Nobody else has touched the record: one write for all its changes."""
        try:
            write = self._write(plan.merged())
        except RowProblem as problem:
            self.app.park(plan, Trouble(problem.code, str(problem), problem.column))
            return
        self._note_one_way(plan)
        if write is None:
            return
        (self._deletes if write.row is None else self._upserts).append((plan, write))

    def _write(self, change: Change) -> Write | None:
        """The write of a change that had seen everything; None when nothing that is carried has changed."""
        if change.before is None:
            assert change.after is not None
            row = self.compiled.map_row(self.source, change.after)
            return Write(self.compiled.target_key(self.source, change.after), None, row)
        key = self.compiled.target_key(self.source, change.before)
        if change.after is None:
            return Write(key, self._two_way(self._mapped_before(change.before)), None)
        after = self.compiled.map_row(self.source, change.after)
        before = self._before(change.before, change.after, after)
        changed = self._changed(before, after)
        if not changed:
            return None
        row = tuple(cell if index in changed else ABSENT for index, cell in enumerate(after))
        expect = tuple(cell if index in changed else ABSENT for index, cell in enumerate(self._two_way(before)))
        return Write(key, expect, row)

    def _mapped_before(self, row: Row) -> Row:
        try:
            return self.compiled.map_row(self.source, row)
        except RowProblem:
            return self.compiled.map_known(self.source, row)[0]  # the rest tells nothing about the target

    def _mapped_after(self, row: Row, later: Sequence[Change]) -> Row:
        """A row in the target's form; cells that cannot be carried are passed over where a later change mends them."""
        try:
            return self.compiled.map_row(self.source, row)
        except RowProblem:
            mapped, failed = self.compiled.map_known(self.source, row)
            if not failed or not all(any(c.after is not None and c.after[i] != row[i] for c in later) for i in failed):
                raise
            return mapped

    def _before(self, before: Row, after: Row, now: Row) -> Row:
        """The row before a change in the target's form; ``now`` is the one behind it.

        Where an edit makes no difference there (a default, a text cut short), the target may hold another value that
        only maps back to the old one: the unit is written all the same, and what it held is not known.
        """
        was = self._mapped_before(before)
        for cells, indexes in self._ways:
            edited = any(before[i] != after[i] and self._unlike(i, before[i], after[i]) for i in cells)
            if edited and all(was[i] == now[i] for i in indexes):
                was = tuple(ABSENT if index in indexes else cell for index, cell in enumerate(was))
        return was

    def _unlike(self, index: int, one: Cell, other: Cell) -> bool:
        """Do two cells of the source differ in common form?"""
        if one is ABSENT or other is ABSENT:
            return other is not ABSENT
        return self.compiled.common(self.source, index, one) != self.compiled.common(self.source, index, other)

    def _changed(self, before: Row, after: Row) -> set[int]:
        """The cells of every unit that the source carries here and that differs."""
        changed: set[int] = set()
        for indexes in self._carried:
            for i in indexes:
                if before[i] != after[i] and self._differs(i, before[i], after[i]):
                    changed.update(indexes)
        return changed

    def _differs(self, index: int, one: object, other: object) -> bool:
        if one == other:
            return False
        if one is ABSENT or other is ABSENT:
            return other is not ABSENT
        assert one is None or isinstance(one, str)
        assert other is None or isinstance(other, str)
        return self.compiled.common(self.target, index, one) != self.compiled.common(self.target, index, other)

    def _two_way(self, before: Row) -> Row:
        """What the target must hold by the rules: only two-way columns promise anything."""
        row = list(self.blank)
        for index in self._promised:
            row[index] = before[index]
        return tuple(row)

    def _note_one_way(self, plan: Plan) -> None:
        """Users of the source wrote columns that belong to the target: these are to be written back."""
        if not self._foreign:
            return
        for change in plan.changes:
            before, after = change.before, change.after
            foreign = before is None or after is None or any(before[i] != after[i] for i in self._foreign)
            if after is not None and (foreign or plan.renames):  # under its old key it may not have been found
                last = plan.changes[-1].after
                if last is not None:
                    self.app.restore_later(self.compiled, plan.new_key, self.compiled.target_key(self.source, last))
                return

    # -- folding --------------------------------------------------------------------------------------------------

    def _fold(self, plan: Plan, *, surprised: bool = False) -> None:
        """Both sides changed the record: operation by operation over the target's row."""
        rows = plan.fetched or []
        if len(rows) > 1:
            self.app.park(plan, ambiguous(self.view.table, len(rows)))
            return
        current = row = rows[0] if rows else None
        hidden = self.app.hidden(self.compiled, plan.key)
        rules = self._rules()
        losses: list[Loss] = []
        for done, change in enumerate(plan.changes):
            window = self.windows.of(self.compiled.name, plan.key, change.seen)
            rest = replace_changes(plan, plan.changes[done:])
            try:
                operation = self._operation(change, row, plan.changes[done + 1 :])
            except RowProblem as problem:
                self.app.park(rest, Trouble(problem.code, str(problem), problem.column))
                break
            if operation is None:
                continue
            if row is None and hidden is None and operation.kind is Kind.UPDATE and self._is_lacking(window):
                operation = replace(operation, kind=Kind.INSERT, before=None)
            if surprised and not window and row is not None and self._bypassed(change, operation, row):
                self.app.park(rest, BYPASSED)
                break
            verdict = fold(
                operation,
                row,
                hidden,
                window,
                rules,
                self.app.link.decisions(self.compiled.name, plan.key),
                self.windows.end,
            )
            match verdict:
                case Folded():
                    row, hidden = verdict.row, verdict.hidden
                    losses += verdict.losses
                case Undecided():
                    self.app.park(rest, undecided(verdict))
                    for loss in verdict.losses:
                        self.app.conflict(plan, loss, is_open=True)
                    break
                case Alarm():
                    self.app.park(rest, Trouble(verdict.code, verdict.reason))
                    break
                case _:
                    assert_never(verdict)
        for loss in losses:
            self.app.conflict(plan, loss)
        self.app.hide(self.compiled, plan.key, hidden)
        self._note_one_way(plan)
        self._write_result(plan, current, row)

    def _is_lacking(self, window: Sequence[Change]) -> bool:
        """May the record be missing although nobody has told?"""
        return self._may_lack and all(change.kind is not Kind.DELETE for change in window)

    def _rules(self) -> Rules:
        def common(index: int, value: str | None) -> str | None:
            return self.compiled.common(self.target, index, value)

        return Rules(
            self.target, self.compiled.units[self.target], self.compiled.rows, common, self.app.link.ahead(self.target)
        )

    def _operation(self, change: Change, row: Row | None, later: Sequence[Change]) -> Operation | None:
        """A change in the target's form; None for a weak update of a record that its users have deleted."""
        before = after = None
        if change.after is not None:
            after = self._mapped_after(change.after, later)
            if change.before is not None:
                before = self._before(change.before, change.after, after)
        elif change.before is not None:
            before = self._mapped_before(change.before)
        if change.weak and change.kind is Kind.UPDATE:
            if row is None:
                return None
            before = row
        elif before is not None and all(cell is ABSENT for cell in before) and row is not None:
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
        return cell is not ABSENT and self.compiled.common(self.source, index, cell) is None

    def _bypassed(self, change: Change, operation: Operation, row: Row) -> bool:
        """Does the target hold neither what the operation found nor what it leaves, though nobody is known to have
        changed it?"""
        if change.before is None or operation.before is None or operation.weak:
            return False
        differing = self._differing(change.before, row)
        for unit in self.compiled.units[self.target]:
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
            left, right = (theirs, row) if self.source is Side.LEFT else (row, theirs)
            return set(self.compiled.agree(left, right))
        except RowProblem:
            return {unit.name for unit in self.compiled.units[self.target]}

    def _write_result(self, plan: Plan, current: Row | None, row: Row | None) -> None:
        if row == current:
            return
        key = tuple(None if (cell := (current or row or ())[i]) is ABSENT else cell for i in self.view.key)
        write = Write(key, None if current is None else self.blank, row)
        if current is None:
            self._revived.append(write)
        (self._deletes if row is None else self._upserts).append((plan, write))

    # -- writing --------------------------------------------------------------------------------------------------

    def upserts(self) -> None:
        """Write what inserts or updates; troubles wait for the rest of the segment."""
        self._later += self._run(self._upserts)

    def deletes(self) -> None:
        """Write what deletes."""
        self._later += self._run(self._deletes)

    def again(self) -> None:
        """Try once more what failed: parents and freed unique values may be there now."""
        failed = self._run([(plan, write) for plan, write, _ in self._later])
        self._later = []
        for plan, write, outcome in failed:
            if write.row is not None and self._may_patch(plan, write, outcome):
                self._insert_bare(plan, write)
            elif isinstance(outcome, Rejected) and outcome.code == "unique" and len(plan.changes) > 1:
                self._later.append((plan, write, outcome))
            else:
                self._trouble(plan, outcome)
        self._replay()

    def _may_patch(self, plan: Plan, write: Write, outcome: Outcome) -> bool:
        cyclic = self.app.link.cyclic.get(self.compiled.name, {}).get(self.target, frozenset())
        misses = isinstance(outcome, MissingParent) and outcome.lookup in cyclic
        refers = isinstance(outcome, Rejected) and outcome.code == "reference" and bool(cyclic)
        return write.expect is None and (misses or refers) and not plan.renames

    def _insert_bare(self, plan: Plan, write: Write) -> None:
        """Insert a record of a cycle without its references; they follow in a second pass."""
        assert write.row is not None
        cyclic = self.app.link.cyclic[self.compiled.name][self.target]
        parents = [parent for parent in self.compiled.parents[self.target] if parent.reference in cyclic]
        late = {index for parent in parents for index in parent.cells}.difference(self.view.key)
        bare = tuple(ABSENT if index in late else cell for index, cell in enumerate(write.row))
        patch = tuple(cell if index in late else ABSENT for index, cell in enumerate(write.row))
        for failed, _, outcome in self._run([(plan, Write(write.key, None, bare))]):
            self._trouble(failed, outcome)
            return
        self._patches.append((plan, Write(write.key, self.blank, patch)))

    def patch(self) -> None:
        """The second pass of cycles."""
        for plan, _, outcome in self._run(self._patches):
            self._trouble(plan, outcome)

    def _replay(self) -> None:
        """Unique values that changed hands within the batch: go the way that the source went, step by step."""
        plans = {id(plan): plan for plan, _, _ in self._later}
        self._later = []
        steps = [(change, plan) for plan in plans.values() for change in plan.changes]
        steps.sort(key=lambda step: step[0].position)
        broken: set[int] = set()
        for change, plan in steps:
            if id(plan) in broken:
                continue
            write = self._write(change)
            failed = self._run([(plan, write)]) if write is not None else []
            for _, _, outcome in failed:
                broken.add(id(plan))
                self._trouble(replace_changes(plan, plan.changes[plan.changes.index(change) :]), outcome)

    def _run(self, work: list[tuple[Plan, Write]]) -> list[tuple[Plan, Write, Outcome]]:
        """Write; returns what failed.  A surprise (the target does not hold what it should) is folded at once."""
        if not work:
            return []
        outcomes = self._written([write for _, write in work])
        failed: list[tuple[Plan, Write, Outcome]] = []
        surprised: list[Plan] = []
        for (plan, write), outcome in zip(work, outcomes, strict=True):
            match outcome:
                case Applied():
                    self.app.ledger.counts["applied"] += 1
                    self.app.ledger.tables.add(self.view.table)
                case Unchanged():
                    self.app.ledger.counts["unchanged"] += 1
                case Contested():
                    surprised.append(plan)
                case MissingParent() | Rejected():
                    failed.append((plan, write, outcome))
                case _:
                    assert_never(outcome)
        work.clear()
        return failed + self._surprised(surprised)

    def _written(self, writes: list[Write]) -> list[Outcome]:
        """Records that are brought back get all their columns, those included that are not carried to this side."""
        if not any(write is revived for revived in self._revived for write in writes):
            return self.app.transaction.write(self.view, writes)
        whole = self.compiled.whole[self.target]
        return [
            self.app.transaction.write(whole if write in self._revived else self.view, [write])[0] for write in writes
        ]

    def _surprised(self, plans: Sequence[Plan]) -> list[tuple[Plan, Write, Outcome]]:
        if not plans:
            return []
        for plan in plans:
            plan.fetched = None
        self._fetch(plans)
        for plan in plans:
            if plan.fetched and self._is_detached(plan.fetched):
                self.app.ledger.counts["detached"] += 1
            elif plan.renames:
                self._renamed_already(plan)
            else:
                self._fold(plan, surprised=True)
        failed = self._run(self._upserts) if self._upserts else []
        return failed + (self._run(self._deletes) if self._deletes else [])

    def _renamed_already(self, plan: Plan) -> None:
        """The record is not under its old key: a parent in the key may have been renamed just before it."""
        last = plan.changes[-1].after
        assert last is not None, "what is renamed exists"
        key = self.compiled.target_key(self.source, last)
        found = self.app.transaction.fetch(self.view, [key]).get(key, [])
        if plan.fetched or len(found) != 1:
            self.app.park(plan, Trouble("rename", "the record under the old key is not what it should be"))
        else:
            self._fold(replace(plan, key=plan.new_key, fetched=found), surprised=True)

    def _trouble(self, plan: Plan, outcome: Outcome) -> None:
        match outcome:
            case MissingParent():
                reason = f"{outcome.table} has no record {show_key(outcome.key)} for the lookup {outcome.lookup}"
                trouble = Trouble("missing_parent", reason, outcome.lookup, outcome.table, show_key(outcome.key))
            case Rejected():
                waits = ANY_TABLE if outcome.code == "reference" else ""
                trouble = Trouble(outcome.code, outcome.reason, waits_table=waits)
            case _:
                raise AssertionError(f"not a trouble: {outcome}")
        self.app.park(plan, trouble)


ANY_TABLE = "*"
"""What a record waits for that a foreign key has refused: the database does not say which one."""
BYPASSED = Trouble(
    "bypassed",
    "the target's record is not what it should be, and no captured change says why: something wrote past the capture",
)


def behind(key: Key) -> Trouble:
    """The trouble of a record that waits for another one of the same map."""
    return Trouble("behind", f"waits behind the parked record {show_key(key)}", "", "", key_text(key))


def ambiguous(table: str, count: int) -> Trouble:
    """The trouble of a key that several records of the target hold."""
    return Trouble("ambiguous", f"{count} records of {table} hold this key")


def undecided(verdict: Undecided) -> Trouble:
    """The trouble of a record that a person has to decide."""
    return Trouble("conflict", "both sides changed it; a person decides: " + ", ".join(verdict.units), verdict.units[0])


def replace_changes(plan: Plan, changes: list[Change]) -> Plan:
    """The plan with only these of its changes left to do."""
    return replace(plan, changes=changes)


def parked_key(target: Side, plan: Plan, trouble: Trouble) -> ParkedKey:
    """The journal's entry for a parked plan."""
    return ParkedKey(
        side=target,
        map=plan.compiled.name,
        key=key_text(plan.key),
        shown_key=show_key(plan.key),
        code=trouble.code,
        reason=trouble.reason,
        column=trouble.column,
        waits_table=trouble.waits_table,
        waits_key=trouble.waits_key,
    )


Point = Callable[[str], None]
"""Called with the name of each place at which a crash matters; does nothing outside tests."""
