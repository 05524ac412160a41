"""One map's share of an apply transaction: the plans of its records become writes, and what failed is tried again.

Records whose target nobody else has edited (an empty window) are coalesced and written set-based, blindly; the others
are folded operation by operation over the target's row.  Upserts, deletes, second tries and patches are separate steps,
because the maps of a segment take each step together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from typing import assert_never

from dualwrite.connectors.base import Transaction
from dualwrite.engine.contest import Alarm, Folded, Hidden, Loss, Operation, Undecided, Window, fold
from dualwrite.engine.ledger import BYPASSED, Ledger, Plan, Trouble, ambiguous, undecided
from dualwrite.engine.link import Link
from dualwrite.engine.parents import wanted
from dualwrite.engine.release import either
from dualwrite.engine.translate import Translation, differing
from dualwrite.engine.window import is_renamed
from dualwrite.errors import RowProblem
from dualwrite.mapping.compile import CompiledMap
from dualwrite.model import (
    ABSENT,
    Applied,
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

SURPRISES = 10
"""Times that a record is found and then not met as it was found, before it is parked."""


class Stage:
    """One map's share of a segment."""

    def __init__(
        self,
        link: Link,
        source: Side,
        transaction: Transaction,
        ledger: Ledger,
        compiled: CompiledMap,
        plans: Sequence[Plan],
    ) -> None:
        self.link = link
        self.source = source
        self.target = source.other
        self.transaction = transaction
        self.ledger = ledger
        self.compiled = compiled
        self.view = compiled.views[self.target]
        self.windows = link.sides[self.target].windows
        self._found: dict[tuple[Key, Position | None], list[Change]] = {}
        self._told: dict[tuple[Key, Position | None], tuple[Window, Change | None]] = {}
        # A record may be missing with nobody having told: deleted outside of the filter, or where deletes do not flow.
        self._may_lack = self.view.filter is not None or not compiled.deletes
        self._translation = Translation(compiled, source)
        self._upserts: list[tuple[Plan, Write]] = []
        self._deletes: list[tuple[Plan, Write]] = []
        self._later: list[tuple[Plan, Write, Outcome]] = []
        self._patches: list[tuple[Plan, Write]] = []
        self._revived: dict[int, Write] = {}  # by identity
        self._idle: list[Plan] = []
        self._surprises: Counter[Key] = Counter()
        self._under: dict[Key, Hidden | None] = {}
        self._prepare(plans)

    # -- from changes to writes -----------------------------------------------------------------------------------

    def _prepare(self, plans: Sequence[Plan]) -> None:
        contested = self._contested(plans)
        look = plans if self.view.filter is not None else contested
        if look:
            self.ledger.decide()
        self._fetch(look)
        slow = {id(plan) for plan in contested}
        for plan in plans:
            if plan.fetched and self._is_detached(plan.fetched):
                self._pass_over(plan)
            elif id(plan) in slow and self._is_renamed(plan):
                reason = "both sides changed the record, and one of them its key"
                self.ledger.park(plan, Trouble("rename", reason))
            elif id(plan) in slow:
                self._fold(plan)
            else:
                self._blindly(plan)
        self._hold_idle()

    def _hold_idle(self) -> None:
        """Of these nothing is written, so no write keeps users away or finds what they did: lock their records.

        An edit of what is not carried, or one that was taken back, counts against a delete all the same, and against an
        edit of the same column.
        """
        if self._idle and not self.link.sides[self.target].connector.capabilities.exclusive:
            self.ledger.decide()
            self._fetch(self._idle)

    def _contested(self, plans: Sequence[Plan]) -> list[Plan]:
        """The plans that are more than a write over what the target is known to hold."""
        keys = {key for plan in plans for key in ((plan.key, plan.new_key) if plan.renames else (plan.key,))}
        suspects = keys if self.ledger.hides_any else set(self.windows.known_among(self.compiled.name, keys))
        return [
            plan
            for plan in plans
            if not plan.is_plain
            or _is_weak_update(plan)
            or (suspects and (plan.key in suspects or plan.new_key in suspects) and self._is_contested(plan))
        ]

    def _is_contested(self, plan: Plan) -> bool:
        return any(
            self.ledger.row_under(self.compiled.name, key) is not None or self._own(key, change.seen)
            for key in dict.fromkeys((plan.key, plan.new_key))
            for change in plan.changes
        )

    def _own(self, key: Key, seen: Position | None) -> list[Change]:
        """The window of a record; what comes to it from now on is looked for behind the writes."""
        window = self._found.get((key, seen))
        if window is None:
            window = self._found[key, seen] = self.windows.of(self.compiled.name, key, seen)
        return window

    def _is_renamed(self, plan: Plan) -> bool:
        """Has one of the two sides changed the record's key, unseen by the other?"""
        name, key = self.compiled.name, plan.key
        return plan.renames or any(
            is_renamed(self.compiled, self.target, own)
            for seen in dict.fromkeys(change.seen for change in plan.changes)
            if self.windows.has_turned(name, key, seen)
            for own in self._own(key, seen)
        )

    def _fetch(self, plans: Sequence[Plan]) -> None:
        """The target's rows as they are, for those plans that do not know them yet."""
        wanted: dict[Key, list[Plan]] = {}
        for plan in plans:
            if plan.fetched is None:
                try:
                    wanted.setdefault(self._translation.target_key(plan.changes[0]), []).append(plan)
                except RowProblem:
                    plan.fetched = []
        if not wanted:
            return
        rows = self.transaction.fetch(self.view, list(wanted))
        for key, asking in wanted.items():
            for plan in asking:
                plan.fetched = rows.get(key, [])

    def _pass_over(self, plan: Plan) -> None:
        """The record is outside of the target's filter."""
        self.ledger.counts[self.compiled.name, "detached"] += 1
        self.ledger.leave_absent(self.compiled, plan.key)

    def _is_detached(self, rows: Sequence[Row]) -> bool:
        return not any(self.compiled.passes(self.target, row) for row in rows)

    def _blindly(self, plan: Plan) -> None:
        """Nobody else has touched the record: one write for all its changes."""
        change = plan.merged()
        if change.before is not None and change.after is not None:
            plan.edited = differing(change.before, change.after) if change.edited is None else change.edited
        try:
            write = self._translation.write(change, plan.edited)
        except RowProblem as problem:
            self.ledger.park(plan, Trouble(problem.code, problem.message, problem.column))
            return
        self._note_one_way(plan)
        if write is None:
            self._idle.append(plan)
            return
        (self._deletes if write.row is None else self._upserts).append((plan, write))

    def _note_one_way(self, plan: Plan, *, made_anew: bool = False) -> None:
        """Users of the source wrote columns that belong to the target, or its record is ``made_anew`` and holds others
        than it did: these are to be written back."""
        if not self._translation.foreign:
            return
        for change in plan.changes:
            before, after = change.before, change.after
            foreign = before is None or after is None or any(before[i] != after[i] for i in self._translation.foreign)
            moved = plan.renames or made_anew  # under its old key it may not have been found
            if after is not None and (foreign or moved):
                last = plan.changes[-1].after
                if last is not None:
                    self.ledger.restore_later(self.compiled, plan.new_key, self.compiled.target_key(self.source, last))
                return

    # -- folding --------------------------------------------------------------------------------------------------

    def _fold(self, plan: Plan, *, surprised: bool = False) -> None:
        """Both sides changed the record: operation by operation over the target's row."""
        rows = plan.fetched or []
        if len(rows) > 1:
            self.ledger.park(plan, ambiguous(self.view.table, len(rows)))
            return
        current = row = rows[0] if rows else None
        hidden = self._under[plan.key] = self.ledger.row_under(self.compiled.name, plan.key)
        rules = self._translation.rules(self.link.ahead)
        losses: list[Loss] = []
        passed = False
        for done, change in enumerate(plan.changes):
            if passed:
                passed = change.kind is not Kind.DELETE
                continue
            window, silent = self._window(plan.key, change.seen)
            plan.met |= bool(window)
            if hidden is not None and _has_seen(change, hidden):
                hidden = None
            rest = plan.left(plan.changes[done:])
            try:
                operation = self._translation.operation(change, row, plan.changes[done + 1 :])
            except RowProblem as problem:
                if row is None and hidden is None and not window and _is_deleted(rest):
                    passed = True  # what came and went with nobody looking leaves nothing, whatever it held
                    continue
                self.ledger.park(rest, Trouble(problem.code, problem.message, problem.column))
                break
            found = row
            if row is None and hidden is None and operation.kind is Kind.UPDATE and self._is_lacking(window):
                if change.weak:  # it keeps no record alive
                    continue
                found = _made_anew(operation, window, silent)
            if (
                surprised
                and not window
                and row is not None
                and (self.compiled.name, plan.key) not in self.ledger.touched
                and self._translation.is_bypassed(change, operation, row)
            ):
                self.ledger.suspect(rest, BYPASSED)
                break
            verdict = fold(
                operation,
                found,
                hidden,
                window,
                rules,
                self.link.decisions(self.compiled.name, plan.key),
                self.windows.end,
            )
            match verdict:
                case Folded():
                    row, hidden = verdict.row, verdict.hidden
                    losses += verdict.losses
                case Undecided():
                    self.ledger.park(rest, undecided(verdict))
                    for loss in verdict.losses:
                        self.ledger.conflict(plan, loss, is_open=True)
                    break
                case Alarm(code=BYPASSED.code):
                    self.ledger.suspect(rest, Trouble(verdict.code, verdict.reason))
                    break
                case Alarm():
                    self.ledger.park(rest, Trouble(verdict.code, verdict.reason))
                    break
                case _:
                    assert_never(verdict)
        else:
            if current is None and row is None:
                self.ledger.leave_absent(self.compiled, plan.key)
        plan.losses = tuple(losses)
        for loss in losses:
            self.ledger.conflict(plan, loss)
        self.ledger.hide(self.compiled, plan.key, hidden)
        self._note_one_way(plan, made_anew=current is None and row is not None)
        self._write_result(plan, current, row)

    def _is_lacking(self, window: Window) -> bool:
        """May the record be missing although nobody has told?"""
        return self._may_lack and (window.fate.delete is None or window.fate.insert is not None)

    def _window(self, key: Key, seen: Position | None) -> tuple[Window, Change | None]:
        """As ``_tell``, once for all changes that had seen the same."""
        name, found = self.compiled.name, self._told.get((key, seen))
        if found is None:
            window = self._own(key, seen)
            told, silent = self._tell(window) if self.windows.has_turned(name, key, seen) else (window, None)
            found = self._told[key, seen] = Window(told), silent
        return found

    def _tell(self, window: list[Change]) -> tuple[list[Change], Change | None]:
        """A change's window; apart from it the last delete outside of the filter, if nothing else explains that the
        record is missing.

        Such a delete is never told to the source.  A delete inside of the filter is, where deletes are carried: both
        sides decide about it.
        """
        deletes = [i for i, own in enumerate(window) if own.kind is Kind.DELETE]
        outside = [i for i in deletes if not self.compiled.passes(self.target, window[i].before or ())]
        if not outside:
            return window, None
        told = [own for i, own in enumerate(window) if i not in outside]
        if self.compiled.deletes and len(deletes) > len(outside):
            return told, None
        last = max((i for i in deletes if i < outside[-1] and i not in outside), default=-1)
        return [own for i, own in enumerate(window) if i > last and i not in outside], window[outside[-1]]

    def _write_result(self, plan: Plan, current: Row | None, row: Row | None) -> None:
        if row == current:
            return
        key = self.view.natural_key(current or row or ())
        if current is None:
            write = Write(key, None, row)
            self._revived[id(write)] = write
        else:
            write = Write(key, self._translation.blank, None if row is None else self._edited(current, row))
        (self._deletes if row is None else self._upserts).append((plan, write))

    def _edited(self, current: Row, row: Row) -> Row:
        """The cells of a row that the target does not hold already, all of a lookup's together; the others ABSENT."""
        edited = self.view.with_lookups(differing(current, row))
        return tuple([cell if index in edited else ABSENT for index, cell in enumerate(row)])

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
        cyclic = self.link.cyclic.get(self.compiled.name, {}).get(self.target, frozenset())
        misses = isinstance(outcome, MissingParent) and outcome.lookup in cyclic
        refers = isinstance(outcome, Rejected) and outcome.code == "reference" and bool(cyclic)
        # What lay under a delete is in none of the plan's changes: without its references it would never get them.
        is_raised = id(write) in self._revived and plan.changes[0].kind is not Kind.INSERT
        return write.expect is None and (misses or refers) and not plan.renames and not is_raised

    def _insert_bare(self, plan: Plan, write: Write) -> None:
        """Insert a record of a cycle without its references; they follow in a second pass."""
        assert write.row is not None
        cyclic = self.link.cyclic[self.compiled.name][self.target]
        parents = [parent for parent in self.compiled.parents[self.target] if parent.reference in cyclic]
        late = {index for parent in parents for index in parent.cells}.difference(self.view.key)
        bare = tuple(ABSENT if index in late else cell for index, cell in enumerate(write.row))
        patch = tuple(cell if index in late else ABSENT for index, cell in enumerate(write.row))
        for failed, _, outcome in self._run([(plan, Write(write.key, None, bare))]):
            self._trouble(failed, outcome)
            return
        self._patches.append((plan, Write(write.key, self._translation.blank, patch)))

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
        unfit: dict[int, Plan] = {}  # what cannot be carried goes along with the change that mends it
        for change, plan in steps:
            if id(plan) in broken:
                continue
            step = plan.left([*unfit.pop(id(plan), plan.left([])).changes, change])
            try:
                write = self._translation.write(step.merged())
            except RowProblem as problem:
                unfit[id(plan)] = step
                if change is plan.changes[-1]:
                    self.ledger.park(step, Trouble(problem.code, problem.message, problem.column))
                continue
            failed = self._run([(plan, write)]) if write is not None else []
            for _, _, outcome in failed:
                broken.add(id(plan))
                self._trouble(plan.left(plan.changes[plan.changes.index(step.changes[0]) :]), outcome)

    def _run(self, work: list[tuple[Plan, Write]]) -> list[tuple[Plan, Write, Outcome]]:
        """Write; returns what failed.  A surprise (the target does not hold what it should) is folded at once."""
        if not work:
            return []
        self.link.sides[self.source].read_on()
        outcomes = self._written([write for _, write in work])
        failed: list[tuple[Plan, Write, Outcome]] = []
        surprised: list[Plan] = []
        applied = unchanged = 0
        for (plan, write), outcome in zip(work, outcomes, strict=True):
            match outcome:
                case Applied():
                    applied += 1
                    self.ledger.applied.append((plan, write))
                case Unchanged():
                    unchanged += 1
                    if write.row is None:
                        self.ledger.leave_absent(self.compiled, plan.key)
                case Contested():
                    surprised.append(plan)
                case MissingParent() | Rejected():
                    failed.append((plan, write, outcome))
                case _:
                    assert_never(outcome)
        work.clear()
        self._count(applied, unchanged)
        return failed + self._surprised(surprised)

    def _count(self, applied: int, unchanged: int) -> None:
        self.ledger.counts[self.compiled.name, "applied"] += applied
        self.ledger.counts[self.compiled.name, "unchanged"] += unchanged
        if applied:
            self.ledger.tables.add(self.view.table)

    def _written(self, writes: list[Write]) -> list[Outcome]:
        """Records that are brought back get all their columns, those included that are not carried to this side."""
        whole = self.compiled.whole[self.target]
        outcomes: list[Outcome] = []
        for is_revived, group in groupby(writes, lambda write: id(write) in self._revived):
            outcomes += self.transaction.write(whole if is_revived else self.view, list(group))
        return outcomes

    def _surprised(self, plans: Sequence[Plan]) -> list[tuple[Plan, Write, Outcome]]:
        if not plans:
            return []
        self.ledger.decide()
        self._surprises.update(plan.key for plan in plans)
        for plan in plans:
            plan.fetched = None
        self._fetch(plans)
        for plan in plans:
            if self._surprises[plan.key] > SURPRISES:
                reason = f"the {self.target} side finds the record, and not as it is when it is written"
                self.ledger.park(plan, Trouble("other", f"{reason}: a column there may read otherwise than it is kept"))
            elif plan.fetched and self._is_detached(plan.fetched):
                self._pass_over(plan)
            elif plan.renames:
                self._renamed_already(plan)
            else:
                self._fold(plan, surprised=True)
        failed = self._run(self._upserts) if self._upserts else []
        return failed + (self._run(self._deletes) if self._deletes else [])

    def _renamed_already(self, plan: Plan) -> None:
        """The record is not under its old key: a parent in the key may have been renamed just before it."""
        last = plan.changes[-1]
        key = self.compiled.target_key(self.source, last.after or last.before or ())
        found = self.transaction.fetch(self.view, [key]).get(key, [])
        if plan.fetched and last.after is None:
            self._fold(plan, surprised=True)
        elif plan.fetched or len(found) != 1:
            self.ledger.park(plan, Trouble("rename", "the record under the old key is not what it should be"))
        elif self._is_detached(found):
            self._pass_over(plan)
        else:
            self._fold(replace(plan, key=plan.new_key, fetched=found), surprised=True)

    def _trouble(self, plan: Plan, outcome: Outcome) -> None:
        match outcome:
            case MissingParent():
                tables = either(outcome.table, *outcome.others)
                reason = f"{tables} has no record {show_key(outcome.key)} for the lookup {outcome.lookup}"
                missing, parents = show_key(outcome.key), wanted(self.view, outcome)
                trouble = Trouble("missing_parent", reason, outcome.lookup, tables, missing, parents)
            case Rejected():
                trouble = Trouble(outcome.code, outcome.reason)
            case _:
                raise AssertionError(f"not a trouble: {outcome}")
        self.ledger.park(plan, trouble)
        if plan.key in self._under:  # nothing was written: what lay under a delete lies there still
            self.ledger.hide(self.compiled, plan.key, self._under[plan.key])


def _has_seen(change: Change, hidden: Hidden) -> bool:
    """Had the change's side received the delete under which the row lies?  It says nothing more then."""
    seen, after = change.seen, hidden.after
    return seen is not None and after is not None and seen.feed == after.feed and after < seen


def _is_weak_update(plan: Plan) -> bool:
    first = plan.changes[0]
    if len(plan.changes) == 1:
        return first.weak and first.kind is Kind.UPDATE
    return any(change.weak and change.kind is Kind.UPDATE for change in plan.changes)


def _is_deleted(plan: Plan) -> bool:
    """Does one of the plan's changes delete the record?"""
    return any(change.kind is Kind.DELETE for change in plan.changes)


def _made_anew(operation: Operation, window: Window, silent: Change | None) -> Row:
    """The row into which an update is folded whose record is missing, with no delete told: the one that it comes from.

    What own users had written unseen stays as they left it.
    """
    assert operation.after is not None
    row = list(operation.after)
    for own in window:
        before, after = own.before, own.after
        for index in range(len(row)):
            if after is not None and (before is None or before[index] != after[index]):
                kept = after if silent is None or silent.before is None else silent.before
                row[index] = kept[index]
    return tuple(row)
