"""Contested records: folding one arriving operation over what the target's own users did meanwhile.  Pure.

An operation comes from one side and meets its *window* at the other: the target's own changes of the record that the
operation had not seen.  ``fold`` says what becomes of the record, column by column and for its existence, and which
edits lost.  It decides from the users' operations alone, never from the row that happens to be there, so that both
sides, each folding the other's operations in order, end with the same record: the outcome is a function of which
operations are known, whatever the order in which they arrived.  Nothing is kept but the ``Hidden`` row under a delete.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Context, Decimal
from functools import cached_property
from typing import TypeAlias

from dualwrite.canonical import CastError, number, order_key
from dualwrite.mapping.units import Unit
from dualwrite.model import ABSENT, Cell, Change, Kind, Position, Row, Side, Value


@dataclass(frozen=True, slots=True)
class Operation:
    """One arriving change in the target's form; ``ABSENT`` cells are not carried by it.

    A cell that is ``ABSENT`` in ``after`` is not written; one that is ``ABSENT`` in ``before`` alone had a value that
    is not known any more (a lookup whose old record is gone) and is written.  ``unset`` are the cells that were empty
    on the operation's own side, whatever default they have got here.
    """

    kind: Kind
    before: Row | None
    after: Row | None
    at: float
    position: Position
    weak: bool = False
    unset: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Hidden:
    """The row under a delete.  ``after`` is the target's own feed position when it was kept: what was known then."""

    row: Row
    after: Position | None


@dataclass(frozen=True, slots=True)
class Decision:
    """A person's word for one unit of one record; it covers every operation up to the positions that the person saw."""

    winner: Side
    covers: Mapping[Side, Position]


class Window:
    """A record's changes by the target's own users, in feed order, that an operation had not seen.

    Operations that had seen the same share one, and what was once looked for in it: where both sides edit a record all
    the time, both the operations and the changes that they meet are many.
    """

    def __init__(self, changes: Sequence[Change]) -> None:
        self._changes = changes
        self._last: dict[str, tuple[Change, Values] | None] = {}

    def __iter__(self) -> Iterator[Change]:
        return iter(self._changes)

    def __reversed__(self) -> Iterator[Change]:
        return reversed(self._changes)

    def __len__(self) -> int:
        return len(self._changes)

    @property
    def end(self) -> Position:
        """Where its last change stands."""
        return self._changes[-1].position

    @cached_property
    def fate(self) -> Fate:
        """What it did to the record's existence."""
        return _fate(self)

    def last_write(self, unit: Unit, rules: Rules) -> tuple[Change, Values] | None:
        """The last change that wrote the unit, and what it wrote; the rules are always the same."""
        if unit.name not in self._last:
            self._last[unit.name] = _last_write(self, unit, rules)
        return self._last[unit.name]


@dataclass(frozen=True, slots=True)
class Fate:
    """What a window did to the record's existence.

    ``insert``: made anew, and not deleted since; ``touch``: the latest update since the last insert or delete;
    ``delete``: the last delete, whatever came after it.
    """

    insert: Change | None = None
    touch: Change | None = None
    delete: Change | None = None

    @property
    def gone(self) -> Change | None:
        """The delete that still counts: an update behind it means that the row had been brought back."""
        return self.delete if self.insert is None and self.touch is None else None


@dataclass(frozen=True, slots=True)
class Rules:
    """What a map says about contested records of one target.

    ``rows`` is the policy for update against delete.  ``common`` gives a cell of the target's rows in common form.
    ``ahead`` tells by how many seconds the right clock was ahead of the left one when the right side's change at that
    place was made; it must say the same for as long as a decision about the change can be met again, on both sides.
    """

    target: Side
    units: tuple[Unit, ...]
    rows: str
    common: Callable[[int, Value], Value]
    ahead: Callable[[Position], float] = lambda _: 0.0


@dataclass(frozen=True, slots=True)
class Loss:
    """One entry of the conflict log, idempotent by (unit, loser, beats).

    ``unit`` is a unit's name, ``row`` for a delete that did not happen, ``*`` for a whole operation that lies under a
    delete.  ``values`` are what each side wrote (a unit's cells, else the row; None: deleted), ``base`` what was there
    before the loser's edit.  ``policy`` is the map's, or ``insert`` (a new record beats the delete of the old one) or
    ``entered`` (a record overwrote one that the link had not been carrying; then ``loser`` and ``beats`` are the same).
    """

    unit: str
    policy: str
    winner: Side
    values: Mapping[Side, Row | None]
    base: Row | None
    loser: Position
    beats: Position


@dataclass(frozen=True, slots=True)
class Folded:
    """The target's record after the operation (None: absent), what lies under its delete, and what lost."""

    row: Row | None
    hidden: Hidden | None
    losses: tuple[Loss, ...] = ()


@dataclass(frozen=True, slots=True)
class Undecided:
    """A person has to decide these units; nothing of the operation counts until then.

    ``losses`` are the open conflicts, one per unit: the arriving operation as ``loser``, for the target's value stays
    until it is decided.
    """

    units: tuple[str, ...]
    losses: tuple[Loss, ...]


@dataclass(frozen=True, slots=True)
class Alarm:
    """What the rules exclude.  ``code``: ``bypassed`` (something wrote past the capture) or ``value`` (no number)."""

    reason: str
    code: str = "bypassed"


Values: TypeAlias = tuple[Value, ...]


def fold(
    operation: Operation,
    row: Row | None,
    hidden: Hidden | None,
    window: Window,
    rules: Rules,
    decisions: Mapping[str, Sequence[Decision]] = {},
    known: Position | None = None,
) -> Folded | Undecided | Alarm:
    """What becomes of the target's record ``row`` (None: absent, perhaps with a ``hidden`` row under the delete).

    ``window`` is complete up to ``known``.  ``decisions`` are those of this record by unit name, in the order in which
    they were made.  Cells of the result that are ``ABSENT`` are left to the target.
    """
    contest = _Contest(operation, window, rules, decisions, known)
    under = hidden if row is None else None  # nothing lies under a record that lives
    try:
        if operation.kind is Kind.DELETE:
            return _delete(contest, row, under)
        if row is not None:
            return _settle(contest, row, _entered(contest, row))
        return _revive(contest, under)
    except _NotANumberError as error:
        return Alarm(str(error), "value")


@dataclass(frozen=True, slots=True)
class _Contest:
    """An operation against its window, under the rules."""

    operation: Operation
    window: Window
    rules: Rules
    decisions: Mapping[str, Sequence[Decision]]
    known: Position | None

    @property
    def source(self) -> Side:
        return self.rules.target.other

    def newer(self, own: Change) -> Side:
        """The side whose change is the later one by the users' clocks; a tie goes to the left."""
        # The difference of the two times is the same number, negated, at the other side: rounding cannot part us.
        lead = self.operation.at - own.at
        if self.source is Side.RIGHT:
            ahead = self.rules.ahead(self.operation.position)
        else:
            ahead = -self.rules.ahead(own.position)
        if lead == ahead:
            return Side.LEFT
        return self.source if lead > ahead else self.rules.target

    def stays(self, updater: Side, own: Change) -> bool:
        """Update against delete, the operation against ``own``: does the row of the side that updated it stay?"""
        if self.rules.rows == "newest":
            return self.newer(own) is updater
        return self.rules.rows in ("keep", updater.value)

    def loss(self, unit: str, policy: str, winner: Side, own: Change, part: Callable[[Row], Row] = tuple) -> Loss:
        """The entry for the operation against ``own``; ``part`` takes the unit's cells out of a row."""
        loser: Operation | Change = self.operation
        beats: Operation | Change = own
        if winner is self.source:
            loser, beats = beats, loser
        values = {self.source: self.operation.after, self.rules.target: own.after}
        return Loss(
            unit,
            policy,
            winner,
            {side: None if row is None else part(row) for side, row in values.items()},
            None if loser.before is None else part(loser.before),
            loser.position,
            beats.position,
        )


def _fate(window: Window) -> Fate:
    insert = touch = delete = None
    for change in window:
        if change.kind is Kind.DELETE:
            insert, touch, delete = None, None, change
        elif change.kind is Kind.INSERT:
            insert, touch = change, None
        elif not change.weak:  # a difference found by an initial sync keeps no row alive
            touch = change if touch is None or change.at >= touch.at else touch
    return Fate(insert, touch, delete)


def _delete(contest: _Contest, row: Row | None, hidden: Hidden | None) -> Folded:
    """The source's users deleted the record."""
    fate, rules, window = contest.window.fate, contest.rules, contest.window
    lost: tuple[Loss, ...] = ()
    if fate.insert is not None:
        return Folded(row, hidden, (contest.loss("row", "insert", rules.target, fate.insert),))
    if fate.touch is not None:
        if contest.stays(rules.target, fate.touch):
            return Folded(row, hidden, (contest.loss("row", rules.rows, rules.target, fate.touch),))
        edits = [change for change in window if change.kind is not Kind.DELETE and not change.weak]
        lost = tuple(contest.loss("*", rules.rows, contest.source, change) for change in edits)
    if window and row is not None:  # the source's row may live on, by an own change that the delete had not seen
        hidden = _hide(contest, row)
    return Folded(None, hidden, lost)


def _revive(contest: _Contest, hidden: Hidden | None) -> Folded | Undecided | Alarm:
    """An insert or an update of a record that is not there."""
    operation, rules = contest.operation, contest.rules
    fate = contest.window.fate
    gone = fate.gone
    under = _under(contest, hidden, fate)
    if under is None and gone is None and operation.kind is Kind.UPDATE:
        return Alarm(f"an update of a record that is not there: no delete on the {rules.target} side explains it")
    assert operation.after is not None
    row = operation.after if under is None else _brought_up(contest, under, operation.after)
    if gone is None:
        return _settle(contest, row)
    if operation.kind is Kind.INSERT:
        return _settle(contest, row, (contest.loss("row", "insert", contest.source, gone),))
    if operation.weak:
        return _settle(contest, row, lives=False)
    if contest.stays(contest.source, gone):
        return _settle(contest, row, (contest.loss("row", rules.rows, contest.source, gone),))
    return _settle(contest, row, (contest.loss("*", rules.rows, rules.target, gone),), lives=False)


def _brought_up(contest: _Contest, under: Row, after: Row) -> Row:
    """A row that lay under a delete, with what belongs to the operation's side as it is there now.

    A lookup whose record is gone is what was known of it last: nobody has set it to null.
    """
    row = list(under)
    for unit in contest.rules.units:
        for index in unit.indexes:
            if unit.owner is contest.source and after[index] is not ABSENT:
                row[index] = after[index]
            elif under[index] is ABSENT:
                row[index] = _last_known(contest, index, after)
    return tuple(row)


def _last_known(contest: _Contest, index: int, after: Row) -> Cell:
    images = (row for change in reversed(contest.window) for row in (change.after, change.before) if row is not None)
    return next((row[index] for row in images if row[index] is not ABSENT), after[index])


def _under(contest: _Contest, hidden: Hidden | None, fate: Fate) -> Row | None:
    """The row that a record has when its delete is overruled."""
    if hidden is not None and all(_reaches(hidden.after, change.position) for change in contest.window):
        return hidden.row
    return None if fate.delete is None else fate.delete.before  # own users made and deleted it since: theirs is newer


def _hide(contest: _Contest, row: Row) -> Hidden:
    return Hidden(row, contest.known or contest.window.end)


def _reaches(limit: Position | None, position: Position) -> bool:
    """Is ``position`` at or before ``limit``?  Nothing reaches into another incarnation of the feed."""
    return limit is not None and limit.feed == position.feed and position <= limit


def _settle(contest: _Contest, row: Row, losses: tuple[Loss, ...] = (), *, lives: bool = True) -> Folded | Undecided:
    """Write the operation's columns into ``row``, which lives, or lies under a delete."""
    cells: list[Cell] = list(row)
    waiting: list[Loss] = []
    for unit in _edited(contest, row):
        value = _written(contest.operation, unit, contest.rules)
        if value is None or unit.owner is contest.rules.target or _is_met(contest, unit, value, row):
            continue
        verdict = _decide(contest, unit, value, row)
        if verdict.open:
            waiting += verdict.losses
        losses += verdict.losses
        for index, cell in zip(unit.indexes, verdict.value, strict=True):
            cells[index] = cell
    if waiting:
        return Undecided(tuple(loss.unit for loss in waiting), tuple(waiting))
    return Folded(tuple(cells), None, losses) if lives else Folded(None, _hide(contest, tuple(cells)), losses)


def _is_met(contest: _Contest, unit: Unit, value: Values, row: Row) -> bool:
    """Does a difference found by an initial sync ask for nothing here?  A sum adds what came to it since."""
    operation, held = contest.operation, _values(row, unit)
    if operation.kind is not Kind.UPDATE or not operation.weak or operation.before is not None:
        return False
    return unit.policy != "sum" and held is not None and _same(contest.rules, unit, value, held)


def _edited(contest: _Contest, row: Row) -> Sequence[Unit]:
    """The units that the operation may have to write: an update's are those with a cell that differs, few of many.

    A difference found by an initial sync says nothing of what was before, and asks for nothing where the row holds the
    same (see ``_is_met``).
    """
    operation, units = contest.operation, contest.rules.units
    before, after = operation.before, operation.after
    if operation.kind is not Kind.UPDATE or after is None or (before is None and not operation.weak):
        return units
    cells = enumerate(zip(row if before is None else before, after, strict=True))
    edited = {index for index, (old, new) in cells if old != new}
    return [unit for unit in units if not edited.isdisjoint(unit.indexes) or (before is None and unit.policy == "sum")]


@dataclass(frozen=True, slots=True)
class _Verdict:
    """What a unit becomes, and what lost there; ``open`` when a person has to decide."""

    value: Values
    losses: tuple[Loss, ...] = ()
    open: bool = False


def _decide(contest: _Contest, unit: Unit, value: Values, row: Row) -> _Verdict:
    """The operation wrote ``value`` into the unit: what does the target's unit become?"""
    if unit.owner is not None:
        return _Verdict(value)
    last = contest.window.last_write(unit, contest.rules)
    if unit.policy == "sum":
        return _Verdict(_sum(contest, unit, value, row, contested=last is not None))
    if last is None or _same(contest.rules, unit, value, last[1]):
        return _Verdict(value)
    own, theirs = last
    unset = contest.operation.unset.issuperset(unit.indexes)
    rules = contest.rules
    weight = _weight(contest.operation, is_null=unset or _is_null(rules, unit, value))
    against = _weight(own, is_null=_is_null(rules, unit, theirs))
    if weight == against == 0:
        return _Verdict(value)
    if weight != against:
        return _Verdict(value if weight > against else theirs)
    winner = _winner(contest, unit, value, own, theirs)
    loss = contest.loss(unit.name, unit.policy, winner or contest.rules.target, own, lambda cells: _part(cells, unit))
    # The winner is written even when it is the target's own: the row may hold an earlier loser.
    return _Verdict(value if winner is contest.source else theirs, (loss,), winner is None)


def _last_write(window: Window, unit: Unit, rules: Rules) -> tuple[Change, Values] | None:
    for change in reversed(window):
        value = _written(change, unit, rules)
        if value is not None:
            return change, value
    return None


def _written(change: Operation | Change, unit: Unit, rules: Rules) -> Values | None:
    """What a change wrote into a unit; None when it did not write it."""
    after = None if change.after is None else _values(change.after, unit)
    if after is None or change.kind is Kind.INSERT or change.before is None:
        return after
    before = _values(change.before, unit)
    return None if before is not None and _same(rules, unit, before, after) else after


def _weight(change: Operation | Change, *, is_null: bool) -> int:
    """What a write counts where two meet: a null of an insert is no edit, a weak one yields to a user's."""
    if change.kind is Kind.INSERT and is_null:
        return 0
    return 1 if change.weak else 2


def _winner(contest: _Contest, unit: Unit, value: Values, own: Change, theirs: Values) -> Side | None:
    """The side whose write wins the unit by its policy; None when a person has to say it."""
    match unit.policy:
        case "left" | "right":
            return Side(unit.policy)
        case "newest":
            return contest.newer(own)
        case "manual":
            return _decided(contest, unit, own)
        case "max" | "min":
            return _extreme(contest, unit, value, theirs)
        case _:
            raise AssertionError(f"column {unit.name}: unknown policy {unit.policy!r}")


def _decided(contest: _Contest, unit: Unit, own: Change) -> Side | None:
    """The first decision that covers both operations holds, for ever, on both sides."""
    for decision in contest.decisions.get(unit.name, ()):
        here, there = decision.covers.get(contest.rules.target), decision.covers.get(contest.source)
        if _reaches(there, contest.operation.position) and _reaches(here, own.position):
            return decision.winner
    return None


def _extreme(contest: _Contest, unit: Unit, value: Values, theirs: Values) -> Side:
    """The side with the larger (smaller) value; null loses either way."""
    rank, against = _rank(contest.rules, unit, value), _rank(contest.rules, unit, theirs)
    if rank is None or against is None:
        return contest.source if against is None else contest.rules.target
    if rank == against:
        return Side.LEFT
    return contest.source if (rank > against) == (unit.policy == "max") else contest.rules.target


def _rank(rules: Rules, unit: Unit, value: Values) -> tuple[tuple[bool, Decimal | str], ...] | None:
    """The value's place in its order, by common form as both sides see it; None for null."""
    if _is_null(rules, unit, value):
        return None
    key = order_key(unit.kind)
    cells = (rules.common(index, cell) for index, cell in zip(unit.indexes, value, strict=True))
    return tuple((cell is not None, key(cell or "")) for cell in cells)


def _entered(contest: _Contest, row: Row) -> tuple[Loss, ...]:
    """What an insert overwrites in a record that is there with nothing unseen: it had left its filter, and is back."""
    operation, rules = contest.operation, contest.rules
    if operation.kind is not Kind.INSERT or contest.window:
        return ()
    losses = []
    for unit in rules.units:
        value, lost = _written(operation, unit, rules), _values(row, unit)
        if unit.owner is not None or value is None or lost is None or _same(rules, unit, value, lost):
            continue
        if any(cell is not None for cell in lost):
            values: dict[Side, Row | None] = {contest.source: value, rules.target: lost}
            at = operation.position
            losses.append(Loss(unit.name, "entered", contest.source, values, None, at, at))
    return tuple(losses)


def _values(row: Row, unit: Unit) -> Values | None:
    """The unit's cells; None when one of them is not known."""
    values: list[Value] = []
    for index in unit.indexes:
        cell = row[index]
        if cell is ABSENT:
            return None
        values.append(cell)
    return tuple(values)


def _part(row: Row, unit: Unit) -> Row:
    return tuple([row[index] for index in unit.indexes])


def _is_null(rules: Rules, unit: Unit, value: Values) -> bool:
    """Is there nothing in the unit?  A side's empty text may be the other side's null."""
    return all(cell is None or rules.common(i, cell) is None for i, cell in zip(unit.indexes, value, strict=True))


def _same(rules: Rules, unit: Unit, one: Values, other: Values) -> bool:
    """Are two values of the unit equal in common form?"""
    return one == other or all(
        rules.common(index, a) == rules.common(index, b) for index, a, b in zip(unit.indexes, one, other, strict=True)
    )


# More digits than a number can have here: a sum is exact.  Infinity less infinity is NaN, not an error.
_EXACT = Context(prec=150_000, traps=[])


class _NotANumberError(ValueError):
    """A column that adds up holds something else."""


def _number(unit: Unit, cell: Cell) -> Decimal:
    if cell is None or cell is ABSENT:
        return Decimal(0)
    try:
        return number(cell)
    except CastError as error:
        raise _NotANumberError(f"column {unit.name}: {error}") from None


def _total(unit: Unit, add: Sequence[Cell], subtract: Sequence[Cell] = ()) -> str:
    """Numbers added exactly, with the largest scale among them; null counts as zero."""
    total = Decimal(0)
    for cell in add:
        total = _EXACT.add(total, _number(unit, cell))
    for cell in subtract:
        total = _EXACT.subtract(total, _number(unit, cell))
    return format(total, "f")


def _sum(contest: _Contest, unit: Unit, value: Values, row: Row, *, contested: bool) -> Values:
    """The unit with the operation's part added: its delta, or for an insert its value and the target's own part."""
    if not contested:  # no own part: what the source's users see, null included
        return value
    operation = contest.operation
    if operation.kind is Kind.INSERT or operation.before is None:
        parts = [_own_part(contest, unit, index) for index in unit.indexes]
        return tuple(
            cell if part is None else _total(unit, (cell, part)) for cell, part in zip(value, parts, strict=True)
        )
    before = _part(operation.before, unit)
    held = _part(row, unit)
    return tuple(_total(unit, (now, new), (old,)) for now, new, old in zip(held, value, before, strict=True))


def _own_part(contest: _Contest, unit: Unit, index: int) -> Value:
    """What the target's users added since the window's last insert of the record, that insert included."""
    part: Value = None
    for change in contest.window:
        if change.after is None or _written(change, unit, contest.rules) is None:
            continue
        after = change.after[index]
        if change.kind is Kind.INSERT or change.before is None:
            part = None if after is ABSENT else after
        else:
            part = _total(unit, (part, after), (change.before[index],))
    return part


def coalesce(operations: Sequence[Operation]) -> Operation | None:
    """One operation that does what these do one after the other; None when there are none.

    Only for a record with empty windows and nothing hidden.  The images of a side's own changes join: each begins with
    the row that the one before it left.  What was inserted and deleted again ends as a delete without ``before``: it
    writes nothing unless there was a record that the insert would have entered.
    """
    merged: Operation | None = None
    for operation in operations:
        merged = operation if merged is None else _join(merged, operation)
    return merged


def _join(first: Operation, second: Operation) -> Operation:
    kind, before, after = _joined(first, second)
    return Operation(kind, before, after, second.at, second.position, first.weak and second.weak)


def _joined(first: Operation, second: Operation) -> tuple[Kind, Row | None, Row | None]:
    if second.kind is Kind.DELETE:
        return Kind.DELETE, first.before, None
    assert second.after is not None
    if first.after is None:  # deleted and made anew: the old record becomes the new one
        return (Kind.INSERT if first.before is None else Kind.UPDATE), first.before, second.after
    if first.kind is Kind.INSERT:
        return Kind.INSERT, None, _laid_over(second.after, first.after)
    if second.kind is Kind.INSERT:  # out of the filter unnoticed, and in again
        return Kind.INSERT, None, _laid_over(second.after, _difference(first.before, first.after))
    return Kind.UPDATE, first.before, _laid_over(second.after, first.after)


def _laid_over(upper: Row, lower: Row) -> Row:
    """The upper row; where it does not know a cell, the lower one's."""
    return tuple(below if cell is ABSENT else cell for cell, below in zip(upper, lower, strict=True))


def _difference(before: Row | None, after: Row) -> Row:
    """The cells that an update changed; ``ABSENT`` for the others."""
    if before is None:
        return after
    return tuple(ABSENT if old == new else new for old, new in zip(before, after, strict=True))
