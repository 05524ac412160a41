"""The known traces of concurrent edits, by name: each once broke a simpler rule, none breaks these.

A trace is written as it is told: ``L a=1`` is an edit on the left, ``L delete`` and ``L insert a=1`` are too, ``@5`` is
its commit time; ``L>R`` carries everything from left to right, ``L>R 1`` one edit only; ``snapshot``, ``accept``,
``retry R``, ``decide L`` are the other steps of the world in ``convergence_model``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest

from dualwrite.engine import contest

from ..property.convergence_model import LEFT, RIGHT, ImpossibleError, Model, Setup, World

SIDE = {"L": LEFT, "R": RIGHT}
START = Setup(columns=("left",), start=("0",), edits=99)
TWO = replace(START, columns=("newest", "newest"), start=("0", "0"))


def step(model: Model, world: World, words: str) -> World:
    """One step of a trace."""
    match words.split():
        case ["snapshot"]:
            return model.snapshot(world)
        case ["accept"]:
            return world._replace(refuses=False)
        case ["retry", side]:
            return made(model.retry(world, SIDE[side]), words)
        case ["decide", side]:
            return model.decide(world, 0, SIDE[side])
        case [flow, *count] if ">" in flow:
            return made(model.carry(world, SIDE[flow[2]], int(count[0]) if count else 99), words)
        case [side, *what]:
            return edit(model, world, SIDE[side], what)
    raise AssertionError(words)


def made(world: World | None, words: str) -> World:
    """The world after a step that must be possible."""
    assert world is not None, f"{words}: nothing to do"
    return world


def edit(model: Model, world: World, side: int, what: list[str]) -> World:
    """A user's edit in words: columns with values, ``insert``, ``delete``, a time."""
    at = next((int(word[1:]) for word in what if word.startswith("@")), None)
    if "delete" in what:
        return model.edit(world, side, "delete", None, at)
    row = list(world.rows[side] or (None,) * len(model.setup.columns))
    for column, value in (word.split("=") for word in what if "=" in word):
        row["ab".index(column)] = value
    return model.edit(world, side, "insert" if "insert" in what else "update", tuple(row), at)


def tell(setup: Setup, trace: str) -> tuple[Model, World]:
    """Run a trace; returns the world as it then is."""
    model = Model(setup)
    world = model.begin()
    for words in trace.split(";"):
        world = step(model, world, words)
    return model, world


def lost(world: World) -> set[str]:
    """The conflict log: side, place in its feed, column or ``row`` or ``*``."""
    names = {"column0": "a", "column1": "b"}
    return {f"{'LR'[side]}{place} {names.get(unit, unit)}" for side, place, unit in world.lost}


@dataclass(frozen=True)
class Trace:
    """A trace, the row with which both sides end, and the conflict log then."""

    setup: Setup
    steps: str
    ends: tuple[str, ...] | None
    lost: set[str]


TRACES = {
    "N1 same edit, then another": Trace(
        START, "L a=1; R a=1; L>R; R a=2; R>L", ("2",), set()
    ),
    "N2 two edits against one": Trace(
        START, "L a=1; R a=2; L>R; R a=3; R>L", ("3",), {"R0 a"}
    ),
    "N3 clock ahead": Trace(
        replace(START, columns=("newest",)), "L a=1 @0; R a=2 @101; R>L; L a=3 @2; L>R", ("3",), {"L0 a"}
    ),
    "N4 replayed middle value": Trace(
        replace(START, columns=("newest",)), "L a=1 @0; L a=2 @1; R a=1 @2; R>L; L>R 1; L>R 1", ("1",), {"L1 a"}
    ),
    "N5 newest by apply time": Trace(
        TWO, "L a=1 @0; R a=2 @1; L b=3 @2; R>L; L>R", ("2", "3"), {"L0 a"}
    ),
    "N6 newest, time per row": Trace(
        TWO, "L a=1 @0; L b=2 @1; R b=3 @2; R>L; L>R 1; L>R 1", ("1", "3"), {"L1 b"}
    ),
    "N7 max, deliberate lowering": Trace(
        replace(START, columns=("max",)), "L a=1; R a=2; R>L; L a=1; L>R", ("1",), {"L0 a"}
    ),
    "N8 there and back": Trace(
        START, "L a=1; L a=0; R a=1; R>L; L>R", ("0",), {"R0 a"}
    ),
    "N9 delete meets what it saw": Trace(
        START, "L a=1; R a=2; R>L; L delete; L>R", None, {"R0 a"}
    ),
    "N10 delete, insert, delete": Trace(
        START, "L delete; L insert a=1; R delete; L>R; R delete; R>L", None, {"R0 row"}
    ),
    "N11 re-insert, coalesced": Trace(
        replace(START, rows="delete"), "L a=1; R delete; R>L; L insert a=1; L>R", ("1",), {"L0 *"}
    ),
    "N12 sum already equal": Trace(
        replace(START, columns=("sum",)), "L a=1; R a=1; L>R; R>L", ("2",), set()
    ),
    "both deleted, and an unseen update brought one back": Trace(
        TWO,
        "L a=2; L delete; R b=1; R delete; R>L 1; L b=2; R>L 1; L>R",
        ("2", "2"),
        {"L1 row", "R1 row"},
    ),
    "own delete newer than the hidden row": Trace(
        replace(TWO, rows="newest"),
        "L delete @0; R a=1 @-1; R b=1 @-2; R>L 1; L insert a=2 b=2 @-3; L delete @-4; R>L 1; L>R",
        ("2", "1"),
        {"L2 b", "L3 row", "R0 *", "R1 *"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TRACES)
def test_trace_ends_equal(name: str) -> None:
    """Both sides end with the expected row, and the conflict log says what lost."""
    trace = TRACES[name]
    model, world = tell(trace.setup, trace.steps)
    assert model.rests(world)
    assert world.rows == (trace.ends, trace.ends)
    assert lost(world) == trace.lost
    assert not model.faults(world)


@dataclass(frozen=True)
class Needed:
    """A trace that breaks without one rule: where the sides then end, and where with it."""

    rule: str
    setup: Setup
    steps: str
    breaks: tuple[Any, Any] | None
    ends: tuple[str, ...]


NEEDED = {
    "W1 no barrier": Needed("barrier", START, "L a=1; L a=0; R a=1; R>L; L>R", (("1",), ("0",)), ("0",)),
    "W2 forgotten once carried": Needed("retain", START, "L a=1; R a=2; L>R; R>L", (("2",), ("1",)), ("1",)),
    "W3 late marker": Needed("marker inside", START, "L a=1; L>R; R a=2; R>L", (("1",), ("2",)), ("2",)),
    "W4 loser not restored": Needed(
        "restore the winner",
        replace(START, columns=("newest",)),
        "L a=1 @0; R a=2 @-1; L a=3 @-2; R>L; L>R",
        (("2",), ("1",)),
        ("2",),
    ),
    "W5 no hidden row": Needed(
        "hidden row",
        replace(TWO, rows="newest"),
        "L a=1 @0; R delete @1; L b=1 @2; R>L; L>R",
        (("1", "1"), ("0", "1")),
        ("1", "1"),
    ),
    "W6 parked counted as seen": Needed(
        "parked is not seen",
        replace(START, refuses=True),
        "L delete; L>R; R a=1; R>L; accept; retry R",
        None,
        ("1",),
    ),
    "W7 second thoughts": Needed(
        "first decision",
        replace(START, columns=("manual",)),
        "L a=1; R a=2; L>R; R>L; decide L; retry R; decide R; retry L",
        (("2",), ("1",)),
        ("1",),
    ),
    "W8 snapshot after live": Needed(
        "weak comes first",
        replace(START, start=("2",), other=("1",), master=LEFT),
        "snapshot; L a=3; snapshot; L>R; R>L",
        (("3",), ("2",)),
        ("3",),
    ),
}


@pytest.mark.parametrize("name", NEEDED)
def test_trace_needs_its_rule(name: str) -> None:
    """With the rule the trace ends equal; without it, it does not."""
    trace = NEEDED[name]
    model, world = tell(trace.setup, trace.steps)
    assert model.rests(world)
    assert world.rows == (trace.ends, trace.ends)
    assert not model.faults(world)
    broken = replace(trace.setup, without=frozenset([trace.rule]))
    if trace.breaks is None:
        with pytest.raises(ImpossibleError, match="update of a record that is not there"):
            tell(broken, trace.steps)
    else:
        assert tell(broken, trace.steps)[1].rows == trace.breaks


def test_hidden_row_under_two_deletes(monkeypatch: pytest.MonkeyPatch) -> None:
    """What both sides deleted is hidden too: without it, an unseen update brings back an older row."""
    trace = TRACES["both deleted, and an unseen update brought one back"]
    monkeypatch.setattr(contest, "_hide", lambda *_: None)
    assert tell(trace.setup, trace.steps)[1].rows == (("2", "2"), ("0", "2"))


def test_hidden_row_grows_old(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hidden row older than an own insert and delete is passed over: else the sides differ."""
    trace = TRACES["own delete newer than the hidden row"]
    monkeypatch.setattr(contest, "_reaches", lambda limit, _: limit is not None)
    left, right = tell(trace.setup, trace.steps)[1].rows
    assert (left, right) == (("1", "1"), ("2", "1"))
