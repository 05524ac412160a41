"""The fold in the world of ``convergence_model``: exhaustively over small histories, randomly over long ones."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from dualwrite.engine import contest
from dualwrite.mapping.tablemap import POLICIES, ROW_POLICIES
from dualwrite.model import Side

from .convergence_model import CLOCKS, LEFT, RIGHT, RULES, Setup, explore, wander

COUNTER = {"values": (("1", None), ("1",)), "inserts": (("1", None), ("4", "1"), (None, "1"))}
COLUMNS: dict[str, dict[str, Any]] = {
    "left and right": {"columns": ("left", "right"), "values": (("0", "1", "2"), ("1",))},
    "newest": {"columns": ("newest", "newest"), "values": (("0", "1", "2"), ("1",))},
    "max and min": {"columns": ("max", "min"), "values": (("0", "1", None), ("1",))},
    "sum": {"columns": ("sum", "newest"), **COUNTER},
    "manual": {"columns": ("manual", "newest"), "inserts": (("1", None),), "decides": True},
    "one-way": {"columns": ("to right", "to left"), "values": (("1",), ("1",))},
}


def setups() -> list[Any]:
    """Every column policy with every row policy, under every clock where one is looked at."""
    return [
        pytest.param(Setup(rows=rows, clock=clock, **columns), id=f"{name}-{rows}-{clock}")
        for name, columns in COLUMNS.items()
        for rows in ROW_POLICIES
        for clock in clocks(name, rows)
    ]


def clocks(name: str, rows: str) -> tuple[str, ...]:
    """The clocks under which these policies are explored."""
    timed = rows == "newest" or (name in ("newest", "sum") and rows in ("keep", "delete"))
    return tuple(CLOCKS) if timed and name != "manual" else ("true",)


def syncs() -> list[Any]:
    """An initial sync first: rows that differ, and rows on one side only."""
    return [
        pytest.param(
            Setup(
                columns=("newest", "sum"), rows=rows, start=start, other=other, values=(("5",), ("1",)),
                inserts=(("1", None), ("4", "1")), master=master,
            ),
            id=f"{name}-{Side.LEFT if master == LEFT else Side.RIGHT}-{rows}",
        )
        for rows in ROW_POLICIES
        for master in (LEFT, RIGHT)
        for name, start, other in (
            ("differ", ("1", "2"), ("3", "2")), ("left only", ("1", "2"), None), ("right only", None, ("1", None))
        )
    ]  # fmt: skip


def holds(setup: Setup) -> int:
    """Explore, expect no fault, return the number of states."""
    found = explore(setup)
    assert not found.faults, "\n".join([*found.way, *found.faults])
    assert found.rests
    return found.states


def fails(setup: Setup, word: str = "") -> None:
    """Explore with one rule broken: a fault of this kind must be found."""
    found = explore(setup)
    assert found.faults, f"{found.states} states, and nobody noticed"
    assert any(fault.startswith(word) for fault in found.faults), "\n".join([*found.way, *found.faults])


def test_setups_cover_all_policies() -> None:
    """What is explored names every policy that a map can name."""
    explored = {policy for columns in COLUMNS.values() for policy in columns["columns"]}
    assert explored >= set(POLICIES)


@pytest.mark.parametrize("setup", setups())
def test_small_histories(setup: Setup) -> None:
    """Up to three edits in every interleaving: both sides end equal and nothing is lost without a word."""
    assert holds(setup) > 1000


@pytest.mark.parametrize("setup", syncs())
def test_initial_sync(setup: Setup) -> None:
    """Users edit before, between and behind the two snapshots of an initial sync: the same holds."""
    holds(replace(setup, edits=2))


@pytest.mark.parametrize("rows", ROW_POLICIES)
def test_parked(rows: str) -> None:
    """A target that rejects everything for a while: what was parked is folded with the window as it is then."""
    holds(Setup(columns=("newest", "left"), rows=rows, values=(("1",), ("1",)), inserts=(("1", None),), refuses=True))


@pytest.mark.parametrize("policy", [policy for policy in POLICIES if policy != "manual"])
def test_four_edits_of_one_column(policy: str) -> None:
    """One column goes four edits deep, deletes and inserts among them."""
    values = (("1", None),) if policy == "sum" else (("0", "1"),)
    holds(Setup(columns=(policy,), rows="newest", start=("0",), values=values, inserts=(("1",), (None,)), edits=4))


@pytest.mark.parametrize(
    "setup",
    [
        Setup(rows="newest", clock="backwards", values=(("1", "2"), ("1",))),
        pytest.param(Setup(columns=("sum", "left"), rows="delete", **COUNTER), marks=pytest.mark.soak),
    ],
    ids=["newest", "sum"],
)
def test_four_edits_of_two_columns(setup: Setup) -> None:
    """Two columns go four edits deep."""
    holds(replace(setup, edits=4))


def random_setup(seed: int) -> Setup:
    """Any policies, clocks, refusals, initial syncs and numbers of edits at once."""
    chance = random.Random(seed)
    size = chance.choice((1, 2, 3))
    master = chance.choice((None, None, LEFT, RIGHT))
    others = (None, ("1", "2", "0")[:size], ("0", "1", None)[:size])
    inserts = (("1", None, "2"), ("2", "1", None), ("0", "3", "1"), (None, None, None))
    kinds = ("update insert delete", "update", "update update insert delete", "insert delete")
    return Setup(
        columns=tuple(chance.choice((*POLICIES, "to right", "to left")) for _ in range(size)),
        rows=chance.choice(ROW_POLICIES),
        start=None if chance.random() < 0.2 else ("0",) * size,
        other="same" if master is None else chance.choice(others),
        values=(("0", "1", "2", None),) * size,
        inserts=tuple(row[:size] for row in inserts),
        kinds=tuple(chance.choice(kinds).split()),
        clock=chance.choice(tuple(CLOCKS)),
        edits=chance.randint(4, 20),
        refuses=chance.random() < 0.3,
        decides=True,
        master=master,
    )


def wanders(seeds: range) -> None:
    """Random histories, expecting no fault in any; the seed is in the message."""
    for seed in seeds:
        found = wander(random_setup(seed), seed)
        assert not found.faults, "\n".join([f"seed {seed}: {random_setup(seed)}", *found.way, *found.faults])


def test_random_histories() -> None:
    """Histories of up to twenty edits with everything mixed."""
    wanders(range(2000))


@pytest.mark.soak
@pytest.mark.parametrize("share", range(10))
def test_many_random_histories(share: int) -> None:
    """As above, many more: existence has corners that only long histories reach."""
    wanders(range(1_000_000 + share * 30_000, 1_000_000 + (share + 1) * 30_000))


@pytest.mark.soak
@pytest.mark.parametrize("setup", setups())
def test_four_edits_everywhere(setup: Setup) -> None:
    """As above with up to four edits."""
    holds(replace(setup, edits=3 if setup.decides else 4))


@pytest.mark.soak
@pytest.mark.parametrize("setup", syncs())
def test_initial_sync_long(setup: Setup) -> None:
    """As above with up to three edits."""
    holds(setup)


# What the world does for the fold: each rule switched off, and the trace of its absence.
ONE = Setup(columns=("left",), start=("0",), values=(("0", "1", "2"),), inserts=(("1",),), kinds=("update",))
FRESH = replace(ONE, fresh=True)
ABLATIONS = {
    "barrier": (ONE, "differs"),
    "retain": (FRESH, "differs"),
    "marker inside": (FRESH, "differs"),
    "restore the winner": (replace(FRESH, columns=("newest",), clock="backwards"), "differs"),
    "hidden row": (
        Setup(rows="newest", values=(("1",), ("1",)), kinds=("update", "delete")),
        "differs",
    ),
    "parked is not seen": (
        Setup(columns=("newest",), start=("0",), values=(("1",),), inserts=(("1",),), refuses=True),
        "impossible",
    ),
    "first decision": (
        Setup(columns=("manual",), start=("0",), values=(("1", "2"),), kinds=("update",), decides=True),
        "differs",
    ),
    "weak comes first": (replace(FRESH, start=("1",), other=("0",), master=LEFT), "differs"),
}


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_of_the_world_is_needed(rule: str) -> None:
    """Without the rule the search finds a fault, and with it none in the same setup."""
    setup, word = ABLATIONS[rule]
    holds(setup)
    fails(replace(setup, without=frozenset([rule])), word)


def arriving_wins_ties(self: Any, own: Any) -> Side:
    """A tie is not given to the left but to whoever arrives."""
    return self.source if self.operation.at >= own.at else self.rules.target


def no_touch(window: Any) -> Any:
    """Updates do not keep a record alive."""
    return replace(contest_fate(window), touch=None)


def counts_all_deletes(window: Any) -> Any:
    """A delete counts although the row had been brought back."""
    fate = contest_fate(window)
    return replace(fate, touch=None) if fate.delete is not None else fate


def forgets_insert(window: Any) -> Any:
    """A record made anew is just a touched one."""
    fate = contest_fate(window)
    return replace(fate, insert=None, touch=fate.touch or fate.insert)


def latest_is_last(window: Any) -> Any:
    """The touch time is that of the last update, not of the latest."""
    fate = contest_fate(window)
    updates = [change for change in window if change.kind.value == "update"]
    return replace(fate, touch=updates[-1]) if fate.touch is not None else fate


def first_write(window: Any, unit: Any, rules: Any) -> Any:
    """The first own write of a column is looked at instead of the last."""
    writes = [(own, contest_written(own, unit, rules)) for own in window]
    return next(((own, value) for own, value in writes if value is not None), None)


def null_wins(found: Any, unit: Any, value: Any, theirs: Any) -> Side:
    """The arriving null wins a max or min."""
    return found.source if value == (None,) else contest_extreme(found, unit, value, theirs)


def insert_replaces_sum(found: Any, unit: Any, value: Any, row: Any, *, contested: bool) -> Any:
    """An insert forgets the target's own part of a sum."""
    return (
        value if found.operation.kind.value == "insert" else contest_sum(found, unit, value, row, contested=contested)
    )


def sum_is_overwritten(*wrote: Any, **_: Any) -> Any:
    """A sum takes the arriving value although the target's users had added something."""
    return wrote[2]


def own_part_of_everything(found: Any, _: Any, index: int) -> Any:
    """The own part of a sum does not start anew when the target's users delete and insert the record."""
    deltas = [
        int(change.after[index] or 0) - int((change.before or ("0",))[index] or 0)
        for change in found.window
        if change.after is not None
    ]
    return str(sum(deltas)) if deltas else None


contest_fate, contest_written = contest._fate, contest._written
contest_extreme, contest_sum = contest._extreme, contest._sum
SMALL = Setup(columns=("newest",), start=("0",), values=(("1", "2"),), inserts=(("1",),))
DEFECTS: dict[str, tuple[str, Callable[..., Any], Setup]] = {
    "ties go to the left": ("_Contest.newer", arriving_wins_ties, replace(SMALL, clock="tie")),
    "an update keeps a row": ("_fate", no_touch, SMALL),
    "a delete that was undone is over": ("_fate", counts_all_deletes, replace(SMALL, edits=4)),
    "an insert beats a delete": ("_fate", forgets_insert, replace(SMALL, rows="delete")),
    "the latest touch counts": ("_fate", latest_is_last, replace(SMALL, rows="newest", clock="backwards")),
    "the last own write counts": ("_last_write", first_write, SMALL),
    "null loses": ("_extreme", null_wins, replace(SMALL, columns=("max",), values=(("1", None),))),
    "an insert keeps the own part": ("_sum", insert_replaces_sum, replace(SMALL, columns=("sum",), start=None)),
    "deltas add": ("_sum", sum_is_overwritten, replace(SMALL, columns=("sum",), kinds=("update",))),
    "the own part starts at the insert": (
        "_own_part", own_part_of_everything, replace(SMALL, columns=("sum",), start=None, edits=4),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DEFECTS)
def test_every_rule_of_the_fold_is_needed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one line of the fold replaced by a plausible wrong one the search finds a fault."""
    place, defect, setup = DEFECTS[name]
    holds(setup)
    monkeypatch.setattr(f"dualwrite.engine.contest.{place}", defect)
    fails(setup)
