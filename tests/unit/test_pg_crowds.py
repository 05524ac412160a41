"""Rows that may be very many: in memory and on disk they are the same."""

from __future__ import annotations

import random
from collections.abc import Mapping

import pytest

from dualwrite.connectors import _pg_crowds
from dualwrite.connectors._pg_crowds import Crowd, Fold, Folds, Later
from dualwrite.connectors._pg_entries import Place
from dualwrite.connectors._pg_events import Image
from dualwrite.connectors._pg_wire import UNCHANGED
from dualwrite.errors import Unavailable
from dualwrite.model import ABSENT


@pytest.mark.parametrize("held", [1, 7, 1_000])
def test_a_crowd_has_each_row_once_and_in_the_order_of_keys(held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Letters come as texts compare; what is not there comes first."""
    monkeypatch.setattr(_pg_crowds, "HELD", held)
    dice, crowd = random.Random(held), Crowd()
    assert not crowd
    known: dict[Image, Image] = {}
    for number in range(300):
        key = (dice.choice([None, "", "a", "ab", "b", "é", "\U0001f600", "\uffff"]), dice.choice([None, "1", "2"]))
        if dice.random() < 0.1:
            crowd.discard(key)
            known.pop(key, None)
        else:
            known[key] = (*key, str(number), UNCHANGED, ABSENT)
            crowd.put(key, known[key])
    order = sorted(known, key=lambda key: [(cell is not None, cell or "") for cell in key])
    assert list(crowd) == [known[key] for key in order]
    assert list(crowd) == list(crowd)


def test_few_rows_of_a_crowd_are_in_memory() -> None:
    """However many there are, and of large ones fewer."""
    crowd = Crowd()
    for number in range(10_000):
        crowd.put((f"{number}",), (f"{number}",))
        assert len(crowd._held) <= _pg_crowds.HELD
    for number in range(20):
        crowd.put((f"{number}",), ("x" * _pg_crowds.LARGEST,))
        assert len(crowd._held) <= 1


@pytest.mark.parametrize("held", [1, 7, 1_000])
def test_what_rows_were_at_a_place(held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the log tells it from there on: rows come, go, and refer to other records."""
    monkeypatch.setattr(_pg_crowds, "HELD", held)
    dice, later = random.Random(held), Later((5,))
    assert not later
    now: dict[Image, Image] = {(name,): (name, dice.choice("XYZ")) for name in "abc"}
    states: list[tuple[Place, Mapping[Image, Image]]] = [((5,), dict(now))]
    told: set[Image] = set()
    later.refer("by", _second)
    for lsn in range(10, 600, 10):
        for n in range(1, dice.randint(2, 5)):
            key = (dice.choice("abcdef"),)
            old, new = now.get(key), None if key in now and dice.random() < 0.3 else (*key, dice.choice("XYZ"))
            later.add(key, (lsn, n), old, new)
            told.add(key)
            now.pop(key, None)
            now |= {} if new is None else {key: new}
            states.append(((lsn, n), dict(now)))
        states.append(((lsn + 5,), dict(now)))
        if lsn == 300:
            later.refer("again", _second)
        place, state = dice.choice(states)
        assert [later.knows((name,)) for name in "abcdef"] == [(name,) in told for name in "abcdef"]
        for held_by in "XYZ":
            wanted = {key: row for key, row in state.items() if key in told and row[1] == held_by}
            for name in ("by", "again") if lsn > 300 else ("by",):
                found = [row for row in later.referring(name, (held_by,), place) if row[1] == held_by]
                assert {(row[0],): row for row in found} == wanted
                assert len(found) == len(wanted)


def _second(image: Image) -> tuple[str, ...] | None:
    return None if not isinstance(image[1], str) else (image[1],)


def test_what_is_passed_is_read_again_rather_than_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a reader that is never quite at the end would keep all that there ever was."""
    monkeypatch.setattr(_pg_crowds, "_COUNTED", 10)
    later = Later((5,))
    for lsn in range(10, 1_010):
        later.add((str(lsn),), (lsn, 1), None, (str(lsn),))
        later.scanned = (lsn, 1)
    assert not later.is_over((400,), 100)
    assert later.is_over((600,), 100)
    assert not later.is_over((600,), 10_000)
    assert later.is_over((1_010,), 10_000)


def test_a_full_disk_is_told() -> None:
    """What cannot be kept would be read wrongly."""
    crowd = Crowd()
    crowd.put(("a",), ("x" * _pg_crowds.LARGEST,))
    crowd.put(("b",), ("x",))
    with crowd._scratch.database() as database:
        database.execute("PRAGMA max_page_count = 2")
    with pytest.raises(Unavailable, match=r"cannot be kept.* — free some disk space"):
        crowd.put(("c",), ("x" * 2 * _pg_crowds.LARGEST,))


@pytest.mark.parametrize("held", [1, 7, 1_000])
def test_what_became_of_records_comes_in_the_order_of_entries(held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is taken out is out, wherever it lies."""
    monkeypatch.setattr(_pg_crowds, "HELD", held)
    dice, folds = random.Random(held), Folds()
    known: dict[tuple[str, tuple[str | None]], Fold] = {}
    for n in range(500):
        table, key = dice.choice("ab"), (dice.choice([None, *"12345"]),)
        assert folds.pop(table, key) == known.pop((table, key), None)
        if dice.random() < 0.7:
            known[table, key] = Fold(n, 1, (key,), None, (str(n), UNCHANGED))
            folds.put(table, key, known[table, key])
        if not n % 50:
            assert list(folds) == sorted(known.values(), key=lambda fold: fold.n)
    assert len(folds._held) <= held
