"""Records that keep changing on both sides are noticed and parked; whatever people do, is not."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from dualwrite.connectors.memory import User
from dualwrite.engine.loops import WITHIN, LoopGuard
from dualwrite.model import Change, Kind, Position, Side
from dualwrite.settings import ROUNDS

L, R = Side.LEFT, Side.RIGHT


def _stories():
    spec = importlib.util.spec_from_file_location("stories", Path(__file__).parent / "test_engine_stories.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["stories"] = module
    spec.loader.exec_module(module)
    return module


stories = _stories()
Story, ITEM_MAP = stories.Story, stories.ITEM_MAP


def rewrites(story, side: Side, how, column: str = "name") -> None:
    """A trigger of a side that writes a column its own way."""
    table = stories.MAIN[side]

    def fired(user: User, kind: Kind, _old, new) -> None:
        if kind is not Kind.DELETE and new[column] is not None and how(new[column]) != new[column]:
            user.update(table, {"code": new["code"]}, {column: how(new[column])})

    story.databases[side].trigger(table, fired)


def looping(*maps: str):
    """One side writes names in capitals, the other in small letters."""
    story = Story(*(maps or (ITEM_MAP,))).start()
    rewrites(story, L, str.upper)
    rewrites(story, R, str.lower)
    return story


def turns(story, most: int) -> int:
    """Turns of both flows until nothing moves any more; how many it took, ``most`` when it has no end."""
    for number in range(most):
        moved = [story.engine.flows[side].turn(0) for side in Side]
        if not any(moved):
            return number
    return most


def test_two_triggers_that_undo_each_other_end_in_a_parked_record():
    """The record is parked with the column and both values; everything else goes on."""
    story = looping()
    story.insert(L, code="1", name="Contoso")
    assert turns(story, 10 * ROUNDS) < 10 * ROUNDS
    (parked,) = story.parked()
    assert (parked.code, parked.column, parked.map) == ("loop", "name", "Items")
    assert "name: 'CONTOSO' ⇄ 'contoso'" in parked.reason
    story.update(L, "1", note="x")
    story.insert(L, code="2", name=None)
    story.drain()
    assert story.rows(R, "code") == {("1",), ("2",)}
    assert [entry.changes for entry in story.parked()] == [2]


def test_a_record_that_is_retried_counts_anew():
    """While both triggers are there it is parked again; without one of them it goes through."""
    story = looping()
    story.insert(L, code="1", name="Contoso")
    turns(story, 10 * ROUNDS)
    story.engine.retry({R: [("Items", ("1",))]})
    assert turns(story, 10 * ROUNDS) < 10 * ROUNDS
    assert [entry.code for entry in story.parked()] == ["loop"]
    story.databases[R].triggers.clear()
    for side in Side:
        story.engine.retry({side: [("Items", ("1",))]})
    assert turns(story, 10 * ROUNDS) < 10 * ROUNDS
    assert not story.parked()
    assert story.both("name") == {("CONTOSO",)}


def test_a_loop_survives_a_crash():
    """It is counted anew after a restart, and ends all the same."""
    story = looping()
    story.insert(L, code="1", name="Contoso")
    turns(story, ROUNDS)
    assert not story.parked()
    story.engine.close()
    story.resume(drain=False)
    assert turns(story, 10 * ROUNDS) < 10 * ROUNDS
    assert [entry.code for entry in story.parked()] == ["loop"]


def test_a_one_way_column_that_is_overwritten_for_ever():
    """What is written back to a side, and changed there again each time, ends, too."""
    story = Story(ITEM_MAP.replace("name = name", "name > name")).start()
    rewrites(story, R, str.lower)
    story.insert(L, code="1", name="Contoso")
    assert turns(story, 10 * ROUNDS) < 10 * ROUNDS
    (parked,) = story.parked()
    assert parked.code == "loop"
    assert "written back to the right side" in parked.reason


@pytest.mark.parametrize("side", Side)
def test_a_trigger_of_one_side_is_no_loop(side):
    """It changes what arrives, the other side takes it, and that is all."""
    story = Story(ITEM_MAP).start()
    rewrites(story, side, str.upper)
    for number in range(ROUNDS + 5):
        story.insert(side.other, code=str(number), name="x")
        story.update(side.other, str(number), name="y")
    story.drain()
    assert not story.parked()
    assert {name for (name,) in story.both("name")} == {"Y"}


def test_a_trigger_that_follows_a_busy_record_is_no_loop():
    """It answers each change of an application that never waits for what it answers."""
    story = Story(ITEM_MAP).start()

    def noted(user: User, kind: Kind, _old, new) -> None:
        if kind is Kind.UPDATE and new["note"] != new["name"]:
            user.update(stories.MAIN[R], {"code": "1"}, {"note": new["name"]})

    story.insert(L, code="1", name="0")
    story.drain()
    story.databases[R].trigger(stories.MAIN[R], noted)
    for number in range(3 * ROUNDS):
        story.update(L, "1", name=f"first {number}")
        story.engine.flows[L].turn(0)
        story.update(L, "1", name=f"second {number}")
        story.engine.flows[R].turn(0)
    story.drain()
    assert not story.parked()
    assert story.both("name", "note") == {(f"second {number}", f"second {number}")}


def test_a_busy_record_is_no_loop():
    """An application that counts on one side, and one that counts another column on the other."""
    story = Story(ITEM_MAP).start()
    story.insert(L, code="1", name="0", note="0")
    story.drain()
    for number in range(ROUNDS + 5):
        story.update(L, "1", name=str(number))
        story.drain()
        story.update(R, "1", note=str(number))
        story.drain()
    assert not story.parked()


class Clock:
    """A clock that is set."""

    now = 0.0

    def __call__(self) -> float:
        """The time."""
        return self.now


def test_what_takes_long_is_no_loop():
    """People who edit the same column in turn, for hours."""
    story, clock = Story(ITEM_MAP).start(), Clock()
    story.engine.link.loops = LoopGuard(clock=clock)
    story.insert(L, code="1", name="0")
    story.drain()
    for number in range(ROUNDS + 5):
        for side in Side:
            story.update(side, "1", name=f"{side}{number}")
            story.drain()
        clock.now += WITHIN / (ROUNDS - 1)
    assert not story.parked()


def test_what_is_remembered_stays_small():
    """However many records come by, and even where all of them are answered."""
    guard = LoopGuard(recent=100)
    maps = {"Items": Story(ITEM_MAP).maps[0]}

    def change(side: Side, number: int, round_: int) -> Change:
        row = (str(number), f"{side}{round_}", None, None, None)
        seen = Position(str(side.other), (round_ + 1,))
        before, at = (*row[:1], "x", *row[2:]), Position(str(side), (round_,))
        return Change("Items", Kind.UPDATE, ("k",), before, row, 0.0, at, seen)

    for round_ in range(4):
        for start in range(0, 300, 50):
            for side in Side:
                touched = {("Items", (str(n),)): change(side, n, round_) for n in range(start, start + 50)}
                guard.carried(side, maps, touched)
    assert not guard.found
    assert all(len(recent.new) + len(recent.old) <= 300 for recent in guard._recent.values())
    assert len(guard._chains) <= 101
