"""Folding one operation over the target's own changes: each rule by itself."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise, product

import pytest

from dualwrite.engine import contest
from dualwrite.engine.contest import (
    Alarm,
    Decision,
    Folded,
    Hidden,
    Loss,
    Operation,
    Rules,
    Undecided,
    Window,
    coalesce,
)
from dualwrite.mapping.units import Unit
from dualwrite.model import ABSENT, Change, Kind, Position, Row, Side, Value

LEFT, RIGHT = Side.LEFT, Side.RIGHT
INSERT, UPDATE, DELETE = Kind.INSERT, Kind.UPDATE, Kind.DELETE
NAME = Unit("name", (1,), None, "left")


def fold(
    operation: Operation, row: Row | None, hidden: Hidden | None, window: Sequence[Change], *more: object
) -> Folded | Undecided | Alarm:
    """The function that is judged here, over a window of its own."""
    return contest.fold(operation, row, hidden, Window(window), *more)


def there(place: int) -> Position:
    """A place in the source's feed (the right side's)."""
    return Position("right", (place,))


def here(place: int) -> Position:
    """A place in the target's feed (the left side's)."""
    return Position("left", (place,))


def arrives(before: Row | None, after: Row | None, at: float = 10, place: int = 1, weak: bool = False) -> Operation:
    """An operation from the right; its kind follows from its images."""
    return Operation(kind_of(before, after), before, after, at, there(place), weak)


def own(before: Row | None, after: Row | None, at: float = 5, place: int = 1, weak: bool = False) -> Change:
    """A change of the left side's users."""
    return Change("map", kind_of(before, after), ("k",), before, after, at, here(place), weak=weak)


def kind_of(before: Row | None, after: Row | None) -> Kind:
    """Insert, update or delete by what there is."""
    return INSERT if before is None else DELETE if after is None else UPDATE


def lower(_: int, value: Value) -> Value:
    """A common form that ignores case."""
    return value and value.lower()


def rules(*units: Unit, rows: str = "keep", offset: float = 0.0) -> Rules:
    """Rules for the left side as the target."""
    return Rules(LEFT, units, rows, lower, lambda _: offset)


def one(policy: str, kind: str = "text") -> Rules:
    """Rules with a single two-way column at index 1, behind the key."""
    return rules(Unit("name", (1,), None, policy, kind))


def folded(result: object) -> Folded:
    """The result, which must be a folded record."""
    assert isinstance(result, Folded), result
    return result


def contested(
    policy: str, mine: Value, theirs: Value, *, kind: str = "text", at: float = 10
) -> tuple[Value, list[Side]]:
    """Both sides wrote the column ``0``: its value then, and who won according to the log."""
    operation = arrives(("k", "0"), ("k", theirs), at)
    result = folded(fold(operation, ("k", mine), None, [own(("k", "0"), ("k", mine))], one(policy, kind)))
    assert result.row is not None
    cell = result.row[1]
    assert cell is not ABSENT
    return cell, [loss.winner for loss in result.losses]


def test_nothing_unseen_writes_what_changed() -> None:
    """With an empty window the changed columns are written, and only these."""
    operation = arrives(("k", "a", "x"), ("k", "b", "x"))
    result = fold(operation, ("k", "a", "own"), None, [], rules(NAME, Unit("more", (2,), None, "left")))
    assert result == Folded(("k", "b", "own"), None, ())


def test_nothing_unseen_deletes() -> None:
    """With an empty window a delete deletes, and hides nothing."""
    assert fold(arrives(("k", "a"), None), ("k", "a"), None, [], one("left")) == Folded(None, None, ())


def test_insert_leaves_uncarried_cells_to_the_target() -> None:
    """A new record has the operation's cells, its key among them; what is not carried stays ABSENT."""
    result = fold(arrives(None, ("k", "a", ABSENT)), None, None, [], rules(NAME, Unit("more", (2,), LEFT, "left")))
    assert result == Folded(("k", "a", ABSENT), None, ())


def test_each_side_wrote_another_column() -> None:
    """Edits of different columns merge without a conflict."""
    units = (NAME, Unit("more", (2,), None, "left"))
    window = [own(("k", "a", "x"), ("k", "a", "mine"))]
    result = fold(arrives(("k", "a", "x"), ("k", "b", "x")), ("k", "a", "mine"), None, window, rules(*units))
    assert result == Folded(("k", "b", "mine"), None, ())


@pytest.mark.parametrize(
    ("policy", "kind", "mine", "theirs", "wins"),
    [
        ("left", "text", "m", "t", LEFT),
        ("right", "text", "m", "t", RIGHT),
        ("max", "text", "2026-01-01", "2025-12-31", LEFT),
        ("min", "text", "2026-01-01", "2025-12-31", RIGHT),
        ("max", "number", "9", "10", RIGHT),
        ("min", "number", "9", "10", LEFT),
        ("max", "number", "-1.50", None, LEFT),
        ("min", "number", None, "3", RIGHT),
        ("max", "number", "NaN", "1e300", LEFT),
        ("min", "number", "-Infinity", "-1e300", LEFT),
    ],
)
def test_policy_decides(policy: str, kind: str, mine: Value, theirs: Value, wins: Side) -> None:
    """The policy names the winner, whose value is written, and the loser is logged."""
    assert contested(policy, mine, theirs, kind=kind) == (mine if wins is LEFT else theirs, [wins])


@pytest.mark.parametrize("policy", ["max", "min"])
@pytest.mark.parametrize("target", [LEFT, RIGHT])
def test_equal_rank_is_the_lefts(policy: str, target: Side) -> None:
    """Two spellings of one number rank the same: both sides take the left's."""
    edits = {LEFT: (("k", "0"), ("k", "1.0")), RIGHT: (("k", "0"), ("k", "1"))}
    mine = Change("map", UPDATE, ("k",), *edits[target], 5, Position(target.value, (1,)))
    operation = Operation(UPDATE, *edits[target.other], 5, Position(target.other.value, (1,)))
    bound = Rules(target, (Unit("name", (1,), None, policy, "number"),), "keep", lower)
    assert folded(fold(operation, mine.after, None, [mine], bound)).row == ("k", "1.0")


@pytest.mark.parametrize(("at", "wins"), [(5.1, RIGHT), (4.9, LEFT), (5, LEFT)])
def test_newest_compares_commit_times(at: float, wins: Side) -> None:
    """The later user's commit wins; a tie goes to the left."""
    assert contested("newest", "m", "t", at=at)[1] == [wins]


@pytest.mark.parametrize("drift", [0.0, 0.1, -0.1, 0.3])
def test_both_sides_agree_on_newest(drift: float) -> None:
    """With one offset both sides name the same winner, however the times round."""
    left, right, offset = 1732250000.123457, 1732250000.223457 + drift, 0.1 + drift
    units = (Unit("name", (1,), None, "newest"),)
    mine, theirs = (("k", "0"), ("k", "m")), (("k", "0"), ("k", "t"))
    at_left = fold(arrives(*theirs, at=right), mine[1], None, [own(*mine, at=left)], rules(*units, offset=offset))
    change = Change("map", UPDATE, ("k",), *theirs, right, there(1))
    operation = Operation(UPDATE, *mine, left, here(1))
    at_right = fold(operation, theirs[1], None, [change], Rules(RIGHT, units, "keep", lower, lambda _: offset))
    assert folded(at_left).losses[0].winner == folded(at_right).losses[0].winner


def test_offset_moves_the_targets_clock() -> None:
    """The offset is added to the target's times."""
    operation, window = arrives(("k", "0"), ("k", "t"), at=10), [own(("k", "0"), ("k", "m"), at=5)]
    unit = Unit("name", (1,), None, "newest")
    assert folded(fold(operation, ("k", "m"), None, window, rules(unit, offset=4.9))).row == ("k", "t")
    assert folded(fold(operation, ("k", "m"), None, window, rules(unit, offset=5.1))).row == ("k", "m")


def test_equal_in_common_form_is_no_conflict() -> None:
    """Both wrote what is the same value: the arriving spelling is written, nothing is logged."""
    assert contested("left", "ABC", "abc") == ("abc", [])


def test_change_within_common_form_is_no_edit() -> None:
    """An edit that common form does not see is not written."""
    result = fold(arrives(("k", "a"), ("k", "A")), ("k", "a"), None, [], one("left"))
    assert result == Folded(("k", "a"), None, ())


def test_loss_tells_all() -> None:
    """The log names both values, the value before the loser's edit, and both operations."""
    window = [own(("k", "0"), ("k", "1"), place=1), own(("k", "1"), ("k", "2"), place=2)]
    result = fold(arrives(("k", "0"), ("k", "9"), place=7), ("k", "2"), None, window, one("right"))
    loss = Loss("name", "right", RIGHT, {LEFT: ("2",), RIGHT: ("9",)}, ("1",), here(2), there(7))
    assert result == Folded(("k", "9"), None, (loss,))


def test_winner_is_restored() -> None:
    """The target's winner is written even where the row holds an earlier loser."""
    result = fold(arrives(("k", "8"), ("k", "9")), ("k", "8"), None, [own(("k", "0"), ("k", "m"))], one("left"))
    assert folded(result).row == ("k", "m")


def test_last_own_write_counts() -> None:
    """Own edits before the last one of the column do not matter, nor do later edits of other columns."""
    window = [
        own(("k", "0", ""), ("k", "5", ""), place=1),
        own(("k", "5", ""), ("k", "1", ""), place=2),
        own(("k", "1", ""), ("k", "1", "x"), place=3),
    ]
    units = (Unit("name", (1,), None, "max", "number"), Unit("more", (2,), None, "left"))
    result = fold(arrives(("k", "0", ""), ("k", "3", "")), ("k", "1", "x"), None, window, rules(*units))
    assert folded(result).row == ("k", "3", "x")


@pytest.mark.parametrize(("mine", "theirs"), [("m", None), (None, "t")])
@pytest.mark.parametrize("policy", ["left", "right", "newest", "manual"])
def test_null_of_an_insert_is_no_edit(policy: str, mine: Value, theirs: Value) -> None:
    """Both made the record: where one gave no value the other's stays, without a conflict."""
    result = fold(arrives(None, ("k", theirs)), ("k", mine), None, [own(None, ("k", mine))], one(policy))
    assert result == Folded(("k", mine or theirs), None, ())


@pytest.mark.parametrize("before", [None, ("k", "m")])
def test_empty_text_that_means_null_is_no_edit_of_an_insert_either(before: Row | None) -> None:
    """A side without null of its own for text says nothing with it; the other side has a null there, and both decide
    alike."""
    empty_is_null = Rules(LEFT, (Unit("name", (1,), None, "newest"),), "keep", lambda _, v: v or None, lambda _: 0.0)
    window = [own(None, ("k", ""), at=20)]
    result = fold(arrives(before, ("k", "t"), at=10), ("k", ""), None, window, empty_is_null)
    assert result == Folded(("k", "t"), None, ())


def test_null_of_an_update_is_an_edit() -> None:
    """Emptying a column is an edit like any other."""
    assert contested("right", "m", None) == (None, [RIGHT])


LOOKUP = Unit("group", (1, 2), None, "left")


def test_lookup_folds_as_a_whole() -> None:
    """A lookup of several cells is one unit: it has one winner."""
    operation = arrives(("k", "a", "1"), ("k", "b", "1"))
    window = [own(("k", "a", "1"), ("k", "a", "2"))]
    result = folded(fold(operation, ("k", "a", "2"), None, window, rules(LOOKUP)))
    assert result.row == ("k", "a", "2")
    assert [(loss.unit, loss.values) for loss in result.losses] == [("group", {LEFT: ("a", "2"), RIGHT: ("b", "1")})]


def test_lookup_null_only_when_all_cells_are() -> None:
    """The null of an insert is a lookup with every cell null."""
    made = own(None, ("k", "a", "2"))
    none, half = arrives(None, ("k", None, None)), arrives(None, ("k", None, "1"))
    assert folded(fold(none, ("k", "a", "2"), None, [made], rules(LOOKUP))).losses == ()
    assert len(folded(fold(half, ("k", "a", "2"), None, [made], rules(LOOKUP))).losses) == 1


@pytest.mark.parametrize("after", [("k", ABSENT, ABSENT), ("k", "b", ABSENT)])
def test_unknown_lookup_is_not_written(after: Row) -> None:
    """A lookup with a cell that is not known is left alone."""
    for operation in (arrives(("k", "a", "1"), after), arrives(None, after)):
        assert folded(fold(operation, ("k", "x", "9"), None, [], rules(LOOKUP))).row == ("k", "x", "9")


def test_known_lookup_after_unknown_is_written() -> None:
    """Where only the old record of a lookup is gone, the new one is an edit, on either side."""
    moved = (("k", ABSENT, ABSENT), ("k", "b", "2"))
    assert folded(fold(arrives(*moved), ("k", "a", "1"), None, [], rules(LOOKUP))).row == ("k", "b", "2")
    operation = arrives(("k", "a", "1"), ("k", "c", "3"))
    result = folded(fold(operation, ("k", "b", "2"), None, [own(*moved)], rules(LOOKUP)))
    assert (result.row, len(result.losses)) == (("k", "b", "2"), 1)


def test_one_way_columns() -> None:
    """A column of the source's is overwritten without a conflict, one of the target's is not touched."""
    units = (Unit("theirs", (1,), RIGHT, "left"), Unit("mine", (2,), LEFT, "right"))
    window = [own(("k", "0", "0"), ("k", "m", "m"))]
    result = fold(arrives(("k", "0", "0"), ("k", "t", "t")), ("k", "m", "m"), None, window, rules(*units))
    assert result == Folded(("k", "t", "m"), None, ())


def test_manual_waits_for_a_person() -> None:
    """Without a decision nothing of the operation counts; the open conflict has both values."""
    result = fold(arrives(("k", "0"), ("k", "t")), ("k", "m"), None, [own(("k", "0"), ("k", "m"))], one("manual"))
    loss = Loss("name", "manual", LEFT, {LEFT: ("m",), RIGHT: ("t",)}, ("0",), there(1), here(1))
    assert result == Undecided(("name",), (loss,))


def test_manual_names_every_open_column() -> None:
    """All undecided columns are told at once, those of other policies are not."""
    units = (Unit("a", (1,), None, "manual"), Unit("b", (2,), None, "manual"), Unit("c", (3,), None, "left"))
    operation, window = arrives(("k", "", "", ""), ("k", "t", "t", "t")), [own(("k", "", "", ""), ("k", "m", "m", "m"))]
    result = fold(operation, ("k", "m", "m", "m"), None, window, rules(*units))
    assert isinstance(result, Undecided)
    assert result.units == ("a", "b")
    assert [loss.unit for loss in result.losses] == ["a", "b"]


@pytest.mark.parametrize(
    ("words", "row"),
    [
        ([(RIGHT, 1, 1)], ("k", "t")),
        ([(LEFT, 1, 1)], ("k", "m")),
        ([(LEFT, 5, 5), (RIGHT, 9, 9)], ("k", "m")),
        ([(LEFT, 0, 5), (RIGHT, 5, 5)], ("k", "t")),
        ([(LEFT, 5, 0), (RIGHT, 5, 5)], ("k", "t")),
        ([(RIGHT, 0, 5)], None),
        ([(RIGHT, 5, 0)], None),
        ([], None),
    ],
)
def test_first_covering_decision_holds(words: list[tuple[Side, int, int]], row: Row | None) -> None:
    """The first decision that covers both operations decides; one that a person made without seeing both does not."""
    decisions = {"name": [Decision(winner, {LEFT: here(mine), RIGHT: there(theirs)}) for winner, mine, theirs in words]}
    window = [own(("k", "0"), ("k", "m"))]
    result = fold(arrives(("k", "0"), ("k", "t")), ("k", "m"), None, window, one("manual"), decisions)
    assert (folded(result).row if row else result.units) == (row or ("name",))  # type: ignore[union-attr]


def test_decision_of_another_feed_covers_nothing() -> None:
    """A decision made before a side was restored says nothing about the new feed."""
    decisions = {"name": [Decision(RIGHT, {LEFT: Position("old", (9,)), RIGHT: there(9)})]}
    window = [own(("k", "0"), ("k", "m"))]
    result = fold(arrives(("k", "0"), ("k", "t")), ("k", "m"), None, window, one("manual"), decisions)
    assert isinstance(result, Undecided)


def test_a_window_is_gone_through_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many operations meet it: people may edit one record thousands of times on both sides."""
    looked: list[object] = []
    written = contest._written
    monkeypatch.setattr(contest, "_written", lambda *about: looked.append(about) or written(*about))
    bound = rules(NAME, Unit("more", (2,), None, "left"), Unit("rest", (3,), None, "newest"))
    window = Window([own(("k", f"{n}", "a", "b"), ("k", f"{n + 1}", "a", "b"), place=n) for n in range(300)])
    row: Row | None = ("k", "300", "a", "b")
    for n in range(300):
        operation = arrives(("k", "0", f"{n}", f"{n}"), ("k", "0", f"{n + 1}", f"{n + 1}"), place=n + 1)
        row = folded(contest.fold(operation, row, None, window, bound)).row
    assert row == ("k", "300", "300", "300")
    assert len(looked) <= 300 * (3 + 3)


def summed(operation: Operation, row: Row | None, window: list[Change]) -> Value:
    """The counter after the operation."""
    result = folded(fold(operation, row, None, window, one("sum", "number")))
    assert result.row is not None
    assert not result.losses
    assert result.row[1] is not ABSENT
    return result.row[1]


@pytest.mark.parametrize(
    ("row", "before", "after", "total"),
    [
        ("11", "10", "13", "14"),
        ("1.50", "1", "1.25", "1.75"),
        ("0.1", "0", "0.2", "0.3"),
        ("5", None, "2", "7"),
        (None, "3", "5", "2"),
        ("5", "2", None, "3"),
        ("1e20", "0", "1", "100000000000000000001"),
        ("123456789012345678901234567890.01", "0", "0.1", "123456789012345678901234567890.11"),
        ("Infinity", "0", "1", "Infinity"),
        ("Infinity", "Infinity", "1", "NaN"),
    ],
)
def test_sum_adds_deltas_exactly(row: Value, before: Value, after: Value, total: Value) -> None:
    """The delta is added to what the target has, without losing a digit; null counts as zero."""
    window = [own(("k", "10"), ("k", "11"))]
    assert summed(arrives(("k", before), ("k", after)), ("k", row), window) == total


def test_sum_without_own_part_takes_what_was_written() -> None:
    """Where the target's users added nothing, the counter is what the source shows: null and digits included."""
    assert summed(arrives(("k", "10"), ("k", None)), ("k", "10"), []) is None
    assert summed(arrives(("k", "10"), ("k", "12.00")), ("k", "10"), []) == "12.00"


def test_sum_of_two_inserts() -> None:
    """Both made the record: its counter is both values, and what the target's users added since their insert."""
    window = [own(("k", "7"), None, place=1), own(None, ("k", "2"), place=2), own(("k", "2"), ("k", "5"), place=3)]
    assert summed(arrives(None, ("k", "100")), ("k", "5"), window) == "105"
    assert summed(arrives(None, ("k", None)), ("k", None), [own(None, ("k", None))]) is None


def test_sum_with_unknown_parts() -> None:
    """A cell that is not known counts as zero; without an image before there is no delta, so the value counts whole."""
    assert summed(arrives(("k", "1"), ("k", "3")), ("k", ABSENT), [own(("k", "0"), ("k", "5"))]) == "2"
    whole = Operation(UPDATE, None, ("k", "3"), 10, there(1))
    assert summed(whole, ("k", "5"), [own(("k", "1"), ("k", "5"))]) == "7"


def test_text_in_a_sum_is_an_alarm() -> None:
    """A counter that holds text cannot be added up: the operation is to be parked, with the value named."""
    operation, window = arrives(("k", "1"), ("k", "many")), [own(("k", "1"), ("k", "2"))]
    result = fold(operation, ("k", "2"), None, window, one("sum", "number"))
    assert isinstance(result, Alarm)
    assert result.code == "value"
    assert "name" in result.reason
    assert "'many'" in result.reason


def test_weak_yields_silently() -> None:
    """What an initial sync found differing gives way to a user's edit, on either side, whatever the policy."""
    weak_own = own(("k", "0"), ("k", "m"), weak=True)
    arriving = fold(arrives(("k", "0"), ("k", "t")), ("k", "m"), None, [weak_own], one("left"))
    assert arriving == Folded(("k", "t"), None, ())
    weak = arrives(("k", "0"), ("k", "t"), weak=True)
    assert fold(weak, ("k", "m"), None, [own(("k", "0"), ("k", "m"))], one("right")) == Folded(("k", "m"), None, ())


def test_weak_is_more_than_a_null_of_an_insert() -> None:
    """A user's insert without a value does not hide what an initial sync carries."""
    weak_own = own(None, ("k", "m"), weak=True)
    assert folded(fold(arrives(None, ("k", None)), ("k", "m"), None, [weak_own], one("right"))).row == ("k", "m")
    weak = arrives(("k", "0"), ("k", "t"), weak=True)
    assert folded(fold(weak, ("k", None), None, [own(None, ("k", None))], one("left"))).row == ("k", "t")


def test_weak_update_keeps_nothing_alive() -> None:
    """A weak update neither revives a deleted record nor defends one."""
    weak = arrives(("k", "0"), ("k", "t"), weak=True)
    gone = own(("k", "0"), None)
    result = fold(weak, None, None, [gone], one("left"), {}, here(3))
    assert result == Folded(None, Hidden(("k", "t"), here(3)), ())
    touched = own(("k", "0"), ("k", "m"), weak=True)
    result = fold(arrives(("k", "0"), None), ("k", "m"), None, [touched], one("left"), {}, here(3))
    assert result == Folded(None, Hidden(("k", "m"), here(3)), ())


def stays(rows: str, deleted: float, updated: float, deleter: Side) -> bool:
    """Update against delete at the left side: does the record stay?"""
    if deleter is RIGHT:
        window = [own(("k", "0"), ("k", "m"), at=updated)]
        result = fold(arrives(("k", "0"), None, at=deleted), ("k", "m"), None, window, rules(NAME, rows=rows))
    else:
        window = [own(("k", "0"), None, at=deleted)]
        result = fold(arrives(("k", "0"), ("k", "t"), at=updated), None, None, window, rules(NAME, rows=rows))
    losses = folded(result).losses
    alive = folded(result).row is not None
    assert [loss.unit for loss in losses] == ["row" if alive else "*"]
    assert losses[0].policy == rows
    assert losses[0].winner is (deleter.other if alive else deleter)
    return alive


@pytest.mark.parametrize("deleter", [LEFT, RIGHT])
@pytest.mark.parametrize(
    ("rows", "deleted", "updated", "expected"),
    [
        ("keep", 9, 1, True),
        ("delete", 1, 9, False),
        ("newest", 1, 9, True),
        ("newest", 9, 1, False),
    ],
)
def test_update_against_delete(rows: str, deleted: float, updated: float, expected: bool, deleter: Side) -> None:
    """The row policy decides, the same wherever the delete was made."""
    assert stays(rows, deleted, updated, deleter) is expected


@pytest.mark.parametrize("deleter", [LEFT, RIGHT])
def test_update_against_delete_by_side(deleter: Side) -> None:
    """With ``left`` or ``right`` that side has its way; a tie of ``newest`` is the left's."""
    assert stays("left", 1, 9, deleter) is (deleter is RIGHT)
    assert stays("right", 1, 9, deleter) is (deleter is LEFT)
    assert stays("newest", 5, 5, deleter) is (deleter is RIGHT)


def test_latest_touch_counts() -> None:
    """Against a delete the latest of the target's updates counts, wherever it stands."""
    window = [own(("k", "0"), ("k", "1"), at=9, place=1), own(("k", "1"), ("k", "2"), at=3, place=2)]
    result = folded(fold(arrives(("k", "0"), None, at=5), ("k", "2"), None, window, rules(NAME, rows="newest")))
    assert result.row == ("k", "2")
    assert result.losses[0].beats == here(1)


def test_delete_that_wins_logs_and_hides() -> None:
    """A delete that overrules updates logs each of them and keeps the row under it."""
    window = [own(("k", "0"), ("k", "1"), place=1), own(("k", "1"), ("k", "2"), place=2)]
    result = fold(arrives(("k", "0"), None, place=7), ("k", "2"), None, window, rules(NAME, rows="delete"), {}, here(4))
    lost = tuple(
        Loss("*", "delete", RIGHT, {LEFT: change.after, RIGHT: None}, change.before, change.position, there(7))
        for change in window
    )
    assert result == Folded(None, Hidden(("k", "2"), here(4)), lost)


def test_both_deleted() -> None:
    """Both deleted the record: it is gone, nothing is logged, and a row that is still there is hidden."""
    window = [own(("k", "0"), None)]
    assert fold(arrives(("k", "0"), None), None, None, window, one("left")) == Folded(None, None, ())
    result = fold(arrives(("k", "0"), None), ("k", "9"), None, window, one("left"), {}, here(4))
    assert result == Folded(None, Hidden(("k", "9"), here(4)), ())


def test_delete_of_an_absent_record_keeps_what_is_hidden() -> None:
    """A second delete does not uncover the row under the first."""
    hidden = Hidden(("k", "9"), here(2))
    window = [own(("k", "0"), None)]
    assert folded(fold(arrives(("k", "0"), None), None, hidden, window, one("left"))).hidden == hidden


def test_new_record_beats_the_delete_of_the_old() -> None:
    """Deleted and made anew stays, wherever the other delete was made, and whatever the row policy."""
    window = [own(("k", "0"), None, place=1), own(None, ("k", "1"), place=2)]
    result = folded(fold(arrives(("k", "0"), None), ("k", "1"), None, window, rules(NAME, rows="delete")))
    assert result.row == ("k", "1")
    assert [(loss.unit, loss.policy, loss.winner, loss.beats) for loss in result.losses] == [
        ("row", "insert", LEFT, here(2))
    ]
    result = folded(fold(arrives(None, ("k", "t")), None, None, window[:1], rules(NAME, rows="delete")))
    assert result.row == ("k", "t")
    assert [(loss.unit, loss.policy, loss.winner, loss.loser) for loss in result.losses] == [
        ("row", "insert", RIGHT, here(1))
    ]


def test_overruled_delete_gives_the_row_back() -> None:
    """An update that beats a delete writes its columns into the row that the delete removed."""
    units = (NAME, Unit("more", (2,), None, "left"))
    window = [own(("k", "0", "x"), None)]
    result = fold(arrives(("k", "0", "0"), ("k", "t", "0")), None, None, window, rules(*units))
    assert folded(result).row == ("k", "t", "x")


def test_hidden_row_comes_before_the_image_of_a_delete() -> None:
    """The hidden row is newer than the own delete's image, unless own users have made and deleted the record since."""
    window = [own(("k", "0"), None, place=2)]
    units = (NAME, Unit("more", (2,), None, "left"))
    operation = arrives(("k", "0", "0"), ("k", "t", "0"))
    window = [own(("k", "0", "image"), None, place=2)]
    for after, more in ((here(2), "hidden"), (here(1), "image"), (None, "image"), (Position("old", (9,)), "image")):
        result = fold(operation, None, Hidden(("k", "9", "hidden"), after), window, rules(*units))
        assert folded(result).row == ("k", "t", more)


def test_update_finds_the_hidden_row() -> None:
    """An update whose record was deleted meanwhile by an overtaking delete brings back the hidden row."""
    hidden = Hidden(("k", "9"), here(2))
    assert fold(arrives(("k", "0"), ("k", "t")), None, hidden, [], one("left")) == Folded(("k", "t"), None, ())


def test_delete_without_image_gives_back_what_arrives() -> None:
    """Where the own delete's image is not known, the record is made of what the update brings."""
    gone = Change("map", DELETE, ("k",), None, None, 5, here(1))
    result = fold(arrives(("k", "0", "x"), ("k", "t", "x")), None, None, [gone], rules(NAME))
    assert folded(result).row == ("k", "t", "x")


def test_update_without_image_writes_everything() -> None:
    """An update whose image before is not known wrote every column that it carries, on either side."""
    blind = Operation(UPDATE, None, ("k", "t"), 10, there(1))
    assert folded(fold(blind, ("k", "m"), None, [], one("left"))).row == ("k", "t")
    change = Change("map", UPDATE, ("k",), None, ("k", "m"), 5, here(1))
    assert folded(fold(arrives(("k", "0"), ("k", "t")), ("k", "m"), None, [change], one("left"))).row == ("k", "m")


def test_delete_that_stays_takes_columns_under_it() -> None:
    """Where the delete stays, later updates find the columns of the earlier ones."""
    window = [own(("k", "0"), None)]
    result = fold(arrives(("k", "0"), ("k", "t")), None, None, window, rules(NAME, rows="delete"))
    assert (folded(result).row, folded(result).hidden) == (None, Hidden(("k", "t"), here(1)))


def test_delete_undone_counts_no_more() -> None:
    """An own update behind an own delete means that the row had been brought back: it is a touched record."""
    window = [own(("k", "0"), None, place=1), own(("k", "1"), ("k", "2"), place=2)]
    result = folded(fold(arrives(("k", "0"), None), ("k", "2"), None, window, rules(NAME, rows="delete"), {}, here(2)))
    assert result.row is None
    assert [(loss.unit, loss.loser) for loss in result.losses] == [("*", here(2))]
    assert folded(fold(arrives(("k", "0"), None), ("k", "2"), None, window, rules(NAME))).row == ("k", "2")


def test_living_record_has_nothing_under_it() -> None:
    """What was hidden ends when the record lives again, also when its own users made it."""
    hidden = Hidden(("k", "old"), here(1))
    assert folded(fold(arrives(("k", "1"), ("k", "2")), ("k", "1"), hidden, [], one("left"))).hidden is None
    assert folded(fold(arrives(("k", "1"), None), ("k", "1"), hidden, [], one("left"))).hidden is None


def test_update_of_nothing_is_an_alarm() -> None:
    """An update of a record that is not there, with nothing that says why, is what the rules exclude."""
    result = fold(arrives(("k", "0"), ("k", "t")), None, None, [], one("left"))
    assert isinstance(result, Alarm)
    assert result.code == "bypassed"
    assert "left" in result.reason


def test_insert_enters_a_record_that_is_there() -> None:
    """A record that comes back into its filter overwrites the other side's, and says what it overwrote."""
    units = (
        NAME,
        Unit("same", (2,), None, "left"),
        Unit("theirs", (3,), RIGHT, "left"),
        Unit("empty", (4,), None, "left"),
    )
    row = ("k", "old", "SAME", "old", None)
    result = fold(arrives(None, ("k", "new", "same", "new", "new"), place=7), row, None, [], rules(*units))
    loss = Loss("name", "entered", RIGHT, {LEFT: ("old",), RIGHT: ("new",)}, None, there(7), there(7))
    assert result == Folded(("k", "new", "same", "new", "new"), None, (loss,))


def test_insert_of_null_says_what_it_overwrote() -> None:
    """A value that an entering record empties is lost too, and logged."""
    result = folded(fold(arrives(None, ("k", None)), ("k", "old"), None, [], one("left")))
    assert (result.row, [loss.policy for loss in result.losses]) == (("k", None), ["entered"])


def test_insert_over_a_hidden_row_enters_nothing() -> None:
    """Only a record that is there is entered: what is hidden was deleted."""
    hidden = Hidden(("k", "old"), here(1))
    assert fold(arrives(None, ("k", "new")), None, hidden, [], one("left")) == Folded(("k", "new"), None, ())


CELLS: tuple[tuple[Value, Value], ...] = (("a", "x"), ("b", "x"), ("b", None), ("a", "y"))
PAIR = rules(Unit("name", (1,), None, "left"), Unit("more", (2,), None, "left"))


def one_by_one(operations: list[Operation], row: Row | None) -> Row | None:
    """Fold them in order; a record that was there before keeps what is not carried to it when it is made anew."""
    first = row
    for operation in operations:
        row = folded(fold(operation, row, None, [], PAIR)).row
    if row is None or first is None:
        return row
    return tuple(kept if cell is ABSENT else cell for cell, kept in zip(row, first, strict=True))


def at_once(operations: list[Operation], row: Row | None) -> Row | None:
    """Fold the coalesced operation."""
    merged = coalesce(operations)
    assert merged is not None
    assert merged.position == operations[-1].position
    return folded(fold(merged, row, None, [], PAIR)).row


def histories(start: Row | None, length: int) -> list[list[Row | None]]:
    """All ways for a record of the source to go on from ``start``: rows and absences, one after the other."""
    rows = [None, *(("k", *cells) for cells in CELLS)]
    return [
        list(way)
        for way in product(rows, repeat=length)
        if all(a is not None or b is not None for a, b in pairwise((start, *way)))
    ]


@pytest.mark.parametrize("start", [None, ("k", "a", "x")])
@pytest.mark.parametrize("length", [1, 2, 3, 4])
def test_coalesced_is_one_by_one(start: Row | None, length: int) -> None:
    """Every short history of a record has the same end in one step as in several."""
    for way in histories(start, length):
        steps = [arrives(a, b, place=n) for n, (a, b) in enumerate(pairwise((start, *way)))]
        assert at_once(steps, start) == one_by_one(steps, start), way


@pytest.mark.parametrize("length", [1, 2, 3])
def test_coalesced_with_unknown_cells(length: int) -> None:
    """The same where a lookup is not known at times."""
    values: tuple[Value | type[ABSENT], ...] = ("x", "y", ABSENT)  # type: ignore[valid-type]
    for cells in product(values, repeat=length):
        rows: list[Row] = [("k", "a", cell) for cell in ("x", *cells)]  # type: ignore[misc]
        steps = [arrives(a, b, place=n) for n, (a, b) in enumerate(pairwise(rows))]
        for ways in (steps, [arrives(None, rows[0]), *steps]):
            before = ("k", "a", "x") if ways is steps else None
            assert at_once(ways, before) == one_by_one(ways, before), cells


@pytest.mark.parametrize("row", [None, ("k", "old", "old")])
@pytest.mark.parametrize("length", [1, 2, 3])
def test_coalesced_into_a_record_that_is_there(row: Row | None, length: int) -> None:
    """A record that entered its filter ends the same where the target had one, also when it is deleted again."""
    made = ("k", "a", "x")
    for way in histories(made, length):
        steps = [arrives(a, b, place=n) for n, (a, b) in enumerate(pairwise((None, made, *way)))]
        assert at_once(steps, row) == one_by_one(steps, row), way


def test_coalesced_re_entry() -> None:
    """An update, then out of the filter unnoticed and in again: every column is written, as an insert does."""
    steps = [arrives(("k", "a", "x"), ("k", "b", ABSENT)), arrives(None, ("k", ABSENT, "x"))]
    merged = coalesce(steps)
    assert merged is not None
    assert (merged.kind, merged.after) == (INSERT, ("k", "b", "x"))
    assert at_once(steps, ("k", "a", "old")) == one_by_one(steps, ("k", "a", "old"))


@pytest.mark.parametrize(
    ("rows", "kind", "before", "after"),
    [
        ([("k", "a"), ("k", "b"), ("k", "c")], UPDATE, ("k", "a"), ("k", "c")),
        ([("k", "a"), None, ("k", "c")], UPDATE, ("k", "a"), ("k", "c")),
        ([("k", "a"), ("k", "b"), None], DELETE, ("k", "a"), None),
        ([None, ("k", "b"), ("k", "c")], INSERT, None, ("k", "c")),
        ([None, ("k", "b"), None], DELETE, None, None),
        ([None, ("k", "b"), None, ("k", "c")], INSERT, None, ("k", "c")),
    ],
)
def test_coalesced_images(rows: list[Row | None], kind: Kind, before: Row | None, after: Row | None) -> None:
    """First before, last after; what was deleted and made anew is an update of the old row."""
    merged = coalesce([arrives(a, b, at=n, place=n) for n, (a, b) in enumerate(pairwise(rows))])
    assert merged == Operation(kind, before, after, len(rows) - 2, there(len(rows) - 2))


def test_coalesced_without_before_images() -> None:
    """Updates whose images before are not known write everything, together as well as one by one."""
    steps = [
        Operation(UPDATE, None, ("k", "b", ABSENT), 1, there(1)),
        Operation(UPDATE, None, ("k", "c", "y"), 2, there(2)),
    ]
    assert at_once(steps, ("k", "a", "x")) == one_by_one(steps, ("k", "a", "x")) == ("k", "c", "y")
    steps[1] = Operation(INSERT, None, ("k", ABSENT, "y"), 2, there(2))
    assert at_once(steps, ("k", "a", "x")) == one_by_one(steps, ("k", "a", "x")) == ("k", "b", "y")


def test_coalesced_weak_only_when_all_are() -> None:
    """A user's change among weak ones makes a user's change."""
    weak, strong = arrives(None, ("k", "a"), weak=True), arrives(("k", "a"), ("k", "b"))
    assert [found and found.weak for found in (coalesce([weak]), coalesce([weak, strong]), coalesce([]))] == [
        True,
        False,
        None,
    ]
