"""A change that is taken back leaves both sides in agreement, with the values that were there before it."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dualwrite.engine.commands import execute
from dualwrite.engine.undo import undo, undo_conflict
from dualwrite.errors import Usage
from dualwrite.journal import Audited
from dualwrite.model import Side

from .test_audit import audited
from .test_engine_stories import ITEM_MAP, WITH_GROUP, Crash, L, R, Story

PLAIN = ITEM_MAP.replace(": {conflict: sum}", "")


def changes(story: Story, code: str = "a") -> list[Audited]:
    """The record's lines that tell of a change, oldest first."""
    return [line for line in audited(story, code) if line.what in ("insert", "update", "delete")]


def values(story: Story) -> set[tuple[str | None, ...]]:
    """What both sides hold."""
    return story.both("code", "name", "note", "amount")


@pytest.mark.parametrize("side", Side)
def test_an_update_is_taken_back(side: Side) -> None:
    """The old value is back on both sides, the undo is audited as a change of the side where it was made, and the
    activity log says who did it."""
    story = Story(PLAIN).start()
    story.insert(L, code="a", name="one", note="x")
    story.drain()
    story.update(side, "a", name="two")
    story.drain()
    *_, line = changes(story)
    undo(story.engine, line.id, "ann")
    assert values(story) == {("a", "one", "x", None)}
    *_, back = changes(story)
    assert (back.side, back.what, back.verdict) == (side.other, "update", "carried")
    assert back.images(side) == {"name": ("two", "one")}
    (event,) = [each for each in story.journal.events() if each.kind == "undo"]
    assert (event.who, event.what, event.detail["change"]) == ("ann", "change undone", line.id)
    story.at_rest()


def test_an_undo_is_a_change_that_can_be_taken_back() -> None:
    """Taking it back brings the value that was there before it."""
    story = Story(PLAIN).start()
    story.insert(L, code="a", name="one")
    story.drain()
    story.update(L, "a", name="two")
    story.drain()
    undo(story.engine, changes(story)[-1].id, "")
    undo(story.engine, changes(story)[-1].id, "")
    assert values(story) == {("a", "two", None, None)}


def test_an_insert_is_taken_back_by_a_delete() -> None:
    """Both sides are without the record; a map that carries no deletes refuses."""
    story = Story(PLAIN).start()
    story.insert(R, code="a", name="one")
    story.drain()
    undo(story.engine, changes(story)[0].id, "")
    assert values(story) == set()
    keeps = Story(PLAIN + "deletes: false\n").start()
    keeps.insert(R, code="a", name="one")
    keeps.drain()
    with pytest.raises(Usage, match="carries no deletes"):
        undo(keeps.engine, changes(keeps)[0].id, "")
    assert values(keeps) == {("a", "one", None, None)}


def test_a_delete_is_taken_back_by_an_insert() -> None:
    """The record is back on both sides with all that the map carries, lookups too."""
    story = Story(WITH_GROUP).start()
    story.insert(L, "groups", code="g")
    story.insert(R, "families", id="1", code="g")
    story.insert(L, code="a", name="one", note="x", grp="g")
    story.drain()
    story.delete(R, "a")
    story.drain()
    undo(story.engine, changes(story)[-1].id, "")
    assert story.both("code", "name", "note") == {("a", "one", "x")}
    assert story.names(L, "grp") == story.names(R, "grp") == {("a", "g")}
    with pytest.raises(Usage, match="something newer"):
        undo(story.engine, changes(story)[-2].id, "")


def test_what_is_newer_is_never_overwritten() -> None:
    """An edit of the same column since, on either side, carried or not, refuses the undo; one of others does not."""
    story = Story(PLAIN).start()
    story.insert(L, code="a", name="one", note="x")
    story.drain()
    story.update(L, "a", name="two")
    story.drain()
    line = changes(story)[-1]
    story.update(R, "a", note="y")
    story.drain()
    story.update(R, "a", name="three")
    with pytest.raises(Usage, match=r"something newer came to what .* changed: \d+\.1 \(update"):
        undo(story.engine, line.id, "")
    assert values(story) == {("a", "three", "y", None)}
    undo(story.engine, changes(story)[-1].id, "")
    assert values(story) == {("a", "two", "y", None)}


def test_what_cannot_be_taken_back_says_why() -> None:
    """Unknown changes, maps that do not run, records that are parked."""
    story = Story(WITH_GROUP).start()
    for id in ("7.1", "no id"):
        with pytest.raises(Usage, match=f"no change {id}"):
            undo(story.engine, id, "")
    story.insert(L, code="a", name="one")
    story.drain()
    (line,) = changes(story)
    story.insert(L, "groups", code="g")
    story.update(L, "a", grp="g")
    story.drain()
    with pytest.raises(Usage, match="parked at the right side"):
        undo(story.engine, line.id, "")
    story.journal.set_state("Items", desired="stopped")
    story.engine.reconcile()
    with pytest.raises(Usage, match="not running"):
        undo(story.engine, line.id, "")


def test_what_an_initial_sync_has_overwritten_comes_back() -> None:
    """It is written where it was overwritten, and carried from there."""
    story = Story(PLAIN)
    story.insert(L, code="a", name="left")
    story.insert(R, code="a", name="right")
    story.start()
    undo(story.engine, changes(story)[0].id, "")
    assert values(story) == {("a", "right", None, None)}


@pytest.mark.parametrize("winner", Side)
def test_a_decided_conflict_is_taken_back(winner: Side) -> None:
    """The value that lost counts now on both sides, whichever it was; refused where the column was edited since."""
    story = Story(PLAIN, conflict=winner.value).start()
    story.insert(L, code="a", name="one")
    story.drain()
    story.update(L, "a", name="left")
    story.update(R, "a", name="right")
    story.drain()
    assert values(story) == {("a", winner.value, None, None)}
    (found,) = story.conflicts()
    story.update(L, "a", note="other")
    done = undo_conflict(story.engine, found.id, "ann")
    assert values(story) == {("a", winner.other.value, "other", None)}
    assert done.columns == {"name": (winner.value, winner.other.value)}
    assert [each.what for each in story.journal.events() if each.kind == "undo"] == ["conflict undone"]
    with pytest.raises(Usage, match="something newer"):
        undo_conflict(story.engine, found.id, "ann")
    story.at_rest()


def test_an_overruled_delete_counts_after_all() -> None:
    """An update won over a delete: taking that back deletes the record on both sides."""
    story = Story(PLAIN).start()
    story.insert(L, code="a", name="one")
    story.drain()
    story.delete(L, "a")
    story.update(R, "a", name="two")
    story.drain()
    assert values(story) == {("a", "two", None, None)}
    (found,) = story.conflicts()
    assert found.unit == "row"
    undo_conflict(story.engine, found.id, "")
    assert values(story) == set()


def test_an_edit_that_lost_to_a_delete_counts_after_all() -> None:
    """A delete won over an update: taking that back brings the record with the edit."""
    story = Story(PLAIN + "rows: delete\n").start()
    story.insert(L, code="a", name="one", note="x")
    story.drain()
    story.delete(L, "a")
    story.update(R, "a", name="two")
    story.drain()
    assert values(story) == set()
    found = story.conflicts()[0]
    assert found.unit == "*"
    undo_conflict(story.engine, found.id, "")
    assert values(story) == {("a", "two", "x", None)}


def test_an_open_conflict_is_to_be_decided() -> None:
    """There is nothing to take back before that."""
    story = Story(PLAIN, conflict="manual").start()
    story.insert(L, code="a", name="one")
    story.drain()
    story.update(L, "a", name="left")
    story.update(R, "a", name="right")
    story.drain()
    (found,) = story.conflicts()
    with pytest.raises(Usage, match="resolve"):
        undo_conflict(story.engine, found.id, "")
    execute(story.engine, "resolve", {"id": found.id, "winner": "left"})
    story.drain()
    undo_conflict(story.engine, found.id, "")
    assert values(story) == {("a", "right", None, None)}


@pytest.mark.parametrize("point", ["after begin", "before journal", "before commit", "after commit"])
def test_killed_while_it_is_carried_an_undo_arrives_once(point: str) -> None:
    """The undo is committed at its side: whatever happens to the engine then, the other side gets it."""
    story = Story(PLAIN).start()
    story.insert(L, code="a", name="one")
    story.drain()
    story.update(L, "a", name="two")
    story.drain()
    line = changes(story)[-1]
    story.crash_at = point
    with pytest.raises(Crash):
        undo(story.engine, line.id, "ann")
    story.resume()
    assert values(story) == {("a", "one", None, None)}
    with pytest.raises(Usage, match="something newer"):
        undo(story.engine, line.id, "ann")
    assert values(story) == {("a", "one", None, None)}
    assert len(changes(story)) == 3


EDITS = st.lists(
    st.tuples(
        st.sampled_from(Side),
        st.sampled_from(["insert", "update", "delete"]),
        st.sampled_from(["name", "note", "tag"]),
        st.sampled_from(["1", "2", None]),
        st.booleans(),
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(edits=EDITS, pick=st.integers(0, 20))
def test_after_an_undo_both_sides_agree_and_hold_the_previous_values(edits, pick) -> None:
    """Whatever was edited where, and however it met: an undo that is not refused leaves both sides in agreement, its
    columns as they were before the change, all others untouched; one that is refused changes nothing."""
    columns = ("code", "name", "note", "tag")
    story = Story(PLAIN).start()
    for side, kind, column, value, carry in edits:
        there = bool(story.rows(side, "code"))
        if kind == "insert" and not there:
            story.insert(side, code="a", **{column: value})
        elif kind == "update" and there:
            story.update(side, "a", **{column: value})
        elif kind == "delete" and there:
            story.delete(side, "a")
        if carry:
            story.drain()
    story.drain()
    lines = changes(story)
    if not lines:
        return
    line = lines[pick % len(lines)]
    before = story.both(*columns)
    try:
        undone = undo(story.engine, line.id, "")
    except Usage:
        assert story.both(*columns) == before
        return
    after = story.both(*columns)
    story.at_rest()
    side = line.side.other
    images = line.images(side)
    assert images is not None
    if line.what == "insert":
        assert after == set()
    elif line.what == "delete":
        assert after == {tuple(images[name][0] for name in columns)}
    else:
        ((*held,),), ((*now,),) = before, after
        wanted = {name: images[name][0] if name in images else held[i] for i, name in enumerate(columns)}
        assert tuple(now) == tuple(wanted[name] for name in columns)
        assert undone.kind == "update"
