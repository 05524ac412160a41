"""What may be as many as a table has rows is kept on disk, and read as it came."""

from __future__ import annotations

import tracemalloc

import pytest

from dualwrite.engine import pile, planned
from dualwrite.engine.parents import Wanted
from dualwrite.engine.pile import Pile
from dualwrite.engine.planned import Planned, PlannedRow
from dualwrite.model import ABSENT, Key, Row, Side

L, R = Side.LEFT, Side.RIGHT
MANY = 20_000
MOST = 3_000_000
"""Bytes; all of them in memory would take several times as many."""


@pytest.mark.parametrize("count", [0, 1, 3, 4, 11])
def test_items_come_as_they_were_put_and_as_often_as_wanted(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Also by two readers at once, and behind a large one."""
    monkeypatch.setattr(pile, "BLOCK", 3)
    kept: Pile[tuple[int, Row]] = Pile()
    items = [(number, (str(number), None, ABSENT)) for number in range(count)]
    for item in items:
        kept.append(item, pile.LARGEST if item[0] == 1 else 10)
    assert len(kept) == count
    assert list(zip(kept, kept, strict=True)) == [(item, item) for item in items]
    kept.append((-1, ()))
    assert [item for block in kept.blocks() for item in block] == [*items, (-1, ())]
    assert all(len(block) <= 3 for block in kept.blocks())


def test_a_pile_takes_no_memory() -> None:
    """However many items there are."""
    tracemalloc.start()
    kept: Pile[Row] = Pile()
    for number in range(MANY):
        kept.append((f"some text {number}", f"another text {number}", f"a third text {number}"))
    assert sum(1 for _ in kept) == MANY
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < MOST


def parent(number: str) -> Wanted:
    """A record of the table that is referred to."""
    return Wanted("parents", (("code",),), (number,))


def test_a_plan_takes_no_memory() -> None:
    """However many rows are planned, and parents missing."""
    tracemalloc.start()
    found = Planned()
    for number in range(MANY):
        found.add(PlannedRow("map", R, "insert", (str(number),), {"name": (None, f"a value of row {number}")}))
        found.needs(R, [parent(str(number))])
    found.look(lambda *_: {})
    assert found.count("map", "insert", R) == found.count_missing("map") == MANY
    assert sum(1 for _ in found.rows("map")) == sum(1 for _ in found.missing("map")) == MANY
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < MOST


def test_what_is_asked_of_a_plan_takes_no_memory_for_the_rest() -> None:
    """However many rows that wait for a parent stand between two that are read together."""
    found = Planned()
    for number in range(MANY):
        action = "insert" if 0 < number < MANY - 1 else "update"
        found.add(PlannedRow("map", R, action, (str(number),), {}))
        found.needs(R, [parent(str(number))])
    found.look(lambda *_: {})
    tracemalloc.start()
    assert [row.reason for row in found.rows("map", "update")] == [
        f"waits for parents {number}, which is missing" for number in (0, MANY - 1)
    ]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < MOST / 10


@pytest.mark.parametrize("at_once", [1, 2, 1_000])
def test_what_a_plan_says_does_not_depend_on_how_it_is_kept(monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    """Rows, their order and what they wait for; parents that are there, or that come, are not missing."""
    monkeypatch.setattr(planned, "AT_ONCE", at_once)
    asked: list[Key] = []

    def fetch(_side: Side, _view: object, keys: list[Key]) -> dict[Key, list[Row]]:
        asked.extend(keys)
        return {("there",): [("there",)]} if ("there",) in keys else {}

    found = Planned()
    for number, needed in enumerate(["there", "gone", "comes", "gone", None, "lost", "gone", "gone"]):
        action = "update" if number == 3 else "insert"
        found.add(
            PlannedRow("map", R, action, (str(number),), {"parent": (None, needed)}, reason="why" * (number == 6))
        )
        if needed is not None:
            found.needs(R, [parent(needed)])
    found.add(PlannedRow("others", R, "insert", ("comes",), {"code": (None, "comes")}))
    found.comes(R, "parents", [(("code",), "comes")])
    found.add(PlannedRow("others", L, "skip", ("x",), {}, "code", "reason"))
    found.look(fetch)
    assert sorted(asked) == [("gone",), ("lost",), ("there",)]
    assert [row.key for row in found.rows("map")] == [(str(number),) for number in range(8)]
    waits = "waits for parents gone, which is missing"
    assert {row.key[0]: row.reason for row in found.rows("map") if row.code == "missing_parent"} == {
        "1": waits, "3": waits, "5": "waits for parents lost, which is missing", "6": f"why; {waits}", "7": waits,
    }  # fmt: skip
    assert [row.key for row in found.rows("map", "insert", told=True)] == [("1",), ("5",), ("6",), ("7",)]
    assert found.count_told("map", "insert") == 4
    assert [(each.key, each.records, each.examples) for each in found.missing("map")] == [
        (("gone",), 4, (("1",), ("3",), ("6",))),
        (("lost",), 1, (("5",),)),
    ]
    assert [each.key for each in found.missing("map", 1)] == [("gone",)]
    assert (found.count_missing("map"), found.count_missing("others")) == (2, 0)
    assert (found.count("map", "insert", R), found.count("map", "update", R), found.count("others", "skip", L)) == (
        7,
        1,
        1,
    )
    assert [(row.action, row.code, row.reason) for row in found.rows("others", "skip")] == [("skip", "code", "reason")]
