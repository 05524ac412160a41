"""What referenced records were behind a place, in memory and on disk."""

from __future__ import annotations

import random

import pytest

from dualwrite.connectors._pg_events import Event, Events
from dualwrite.connectors._pg_wire import UNCHANGED
from dualwrite.errors import Unavailable

TARGETS = (("parent", ("id",)), ("parent", ("code", "company")))


@pytest.mark.parametrize("held", [1, 7, 1_000])
def test_the_first_event_behind_a_place(held: int) -> None:
    """Wherever it lies, of that record alone; a place within a transaction lies behind the one of its beginning."""
    dice, events = random.Random(held), Events(held)
    told: list[tuple[int, str, Event]] = []
    for lsn in range(10, 500, 10):
        for n in range(1, dice.randint(1, 6)):
            target, name = dice.randrange(2), dice.choice("abc")
            image = None if dice.random() < 0.2 else (name, None, UNCHANGED, f"{lsn}.{n}")
            told.append((target, name, Event((lsn, n), image)))
            events.add(TARGETS[target], (name,), told[-1][2])
        for place in [(dice.randrange(500),), (dice.randrange(10, 500, 10), dice.randrange(5))]:
            for target, name in [(0, "a"), (1, "b"), (1, "z")]:
                behind = [event for t, i, event in told if (t, i) == (target, name) and event.place > place]
                assert events.following(TARGETS[target], (name,), place) == (behind[0] if behind else None)
    events.passed((480,))
    assert events.following(TARGETS[0], ("a",), (0,)) is not None
    events.passed((490, 6))
    assert events.following(TARGETS[0], ("a",), (0,)) is None
    again = Event((600, 1), ("again",))
    events.add(TARGETS[0], ("a",), again)
    assert events.following(TARGETS[0], ("a",), (0,)) == again


def test_records_are_told_by_what_they_are() -> None:
    """On disk as in memory: equal texts may be one object here and two there."""
    events, text = Events(1), "same"
    event = Event((1, 1), ("image",))
    events.add(TARGETS[1], (text, text), event)
    events.add(TARGETS[0], ("another",), Event((2, 1), None))
    for one, other in ((text, text), (text, "".join(["sa", "me"]))):
        assert events.following(TARGETS[1], (one, other), (0,)) == event


def test_few_are_in_memory() -> None:
    """However many there are."""
    events = Events(100)
    for n in range(10_000):
        events.add(TARGETS[0], (f"{n}",), Event((n, 1), ("x" * 1_000,)))
    assert sum(map(len, events._held.values())) <= 100


def test_a_full_disk_is_told() -> None:
    """What cannot be kept would be read wrongly later."""
    events = Events(1)
    for n in (1, 2):
        events.add(TARGETS[0], ("a",), Event((n, 1), None))
    with events._scratch.database() as database:
        database.execute("PRAGMA max_page_count = 2")
    events.add(TARGETS[0], ("b",), Event((3, 1), ("x" * 100_000,)))
    with pytest.raises(Unavailable, match=r"cannot be kept.* — free some disk space"):
        events.add(TARGETS[0], ("b",), Event((4, 1), None))
