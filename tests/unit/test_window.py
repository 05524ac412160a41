"""Windows are the same however little of them is held in memory."""

from __future__ import annotations

from random import Random

import pytest

from dualwrite.engine import spool, window
from dualwrite.engine.window import Kept, Windows, is_renamed, record_keys
from dualwrite.mapping.compile import CompiledMap, compile_map
from dualwrite.mapping.notation import read_map
from dualwrite.model import Change, Key, Kind, Position, Side
from dualwrite.schema import Column, ColumnType, Schema, Table, TypeName

TEXT = ColumnType(TypeName.TEXT)
ITEMS = Table("items", (Column("code", TEXT, nullable=False), Column("name", TEXT)), ("code",), (("code",),))
MAP = "map: items\nleft: items\nright: items\ncolumns:\n  - code = code\n  - name = name\n"
CODES = ("busy", "busy", "busy", "calm", "idle")


@pytest.fixture
def compiled() -> CompiledMap:
    """A map of one table."""
    schema = Schema({"items": ITEMS})
    return compile_map(read_map(MAP, ""), schema, schema)


def place(number: int) -> Position:
    """A position of the feed."""
    return Position("feed", (number,))


def change(number: int, code: str) -> Change:
    """An update of the record with that code."""
    return Change("items", Kind.UPDATE, (code,), (code, str(number - 1)), (code, str(number)), 0.0, place(number))


def test_windows_on_disk_are_those_in_memory(compiled: CompiledMap, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a record's window holds, what is given back when it is forgotten, and what is the oldest: all the same."""
    random, seen = Random(1), 0
    large = Windows(Side.LEFT, {"items": compiled})
    small = Windows(Side.LEFT, {"items": compiled})
    monkeypatch.setattr(spool, "MANY", 3)

    def keep(_: str, key: Key) -> bool:
        return key == ("calm",)

    for number in range(1, 400):
        made = change(number, random.choice(CODES))
        for windows, most in ((large, 10_000), (small, 20)):
            monkeypatch.setattr(window, "IN_MEMORY", most)
            windows.extend([made], place(number))
        if number % 7 == 0:
            seen = random.randint(seen, number)
            held: dict[Windows, list[Kept]] = {large: [], small: []}
            for windows in held:
                windows.forget(place(seen), keep, held[windows].extend)
            assert held[large] == held[small]
        for code in set(CODES):
            behind = place(random.randint(0, number))
            one, other = (w.of("items", (code,), behind) for w in (large, small))
            assert [c.position.place for c in one] == [c.position.place for c in other]
            assert one == other
            for windows in (large, small):
                is_known = (code,) in windows.known_among("items", [(code,), ("none",)])
                assert is_known >= bool(windows.of("items", (code,), None))
        assert large.oldest() == small.oldest()
        assert len(large) == len(small)


def test_what_nobody_holds_back_is_forgotten_without_a_question(compiled: CompiledMap) -> None:
    """Without ``keep`` it is as if it always said no: changes behind the place stay, of the same records as well."""
    asked, unasked = (Windows(Side.LEFT, {"items": compiled}) for _ in range(2))
    for windows in (asked, unasked):
        windows.extend([change(number, CODES[number % 5]) for number in range(1, 20)], place(19))
    held: list[Kept] = []
    asked.forget(place(12), lambda _name, _key: False, held.extend)
    unasked.forget(place(12), None, held.extend)
    assert held == []
    for code in set(CODES):
        assert asked.of("items", (code,), None) == unasked.of("items", (code,), None)
    assert len(asked) == len(unasked) == 7


@pytest.mark.parametrize("in_memory", [10, 10_000], ids=["mostly on disk", "in memory"])
@pytest.mark.parametrize("seed", range(6))
def test_windows_are_what_was_added_and_not_forgotten(
    compiled: CompiledMap, seed: int, in_memory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also among deletes and changes of keys; what was held back is elsewhere, and lent to whoever asks."""
    monkeypatch.setattr(spool, "MANY", 3)
    monkeypatch.setattr(window, "IN_MEMORY", in_memory)
    random, seen = Random(seed), 0
    windows = Windows(Side.LEFT, {"items": compiled})
    plain: dict[tuple[Key, Position], Change] = {}
    elsewhere: list[Kept] = []

    def keep(_: str, key: Key) -> bool:
        return key == ("calm",)

    for number in range(1, 300):
        made = change(number, random.choice(CODES))
        match random.randrange(12):
            case 0:
                made = made._replace(kind=Kind.DELETE, after=None)
            case 1:
                made = made._replace(after=(random.choice(CODES), str(number)))
        windows.extend([made], place(number))
        plain |= {(key, made.position): made for key in record_keys(compiled, Side.LEFT, made)}
        if number % 5 == 0:
            seen = random.randint(seen, number)
            windows.forget(place(seen), keep, elsewhere.extend)
            plain = {(k, at): c for (k, at), c in plain.items() if at > place(seen) or keep("items", k)}
        windows.lend({("items", ("calm",)): [c for _, key, c in elsewhere if key == ("calm",)]})
        for code in set(CODES):
            behind = random.choice([None, place(random.randint(0, number))])
            mine = sorted((c for (key, _), c in plain.items() if key == (code,)), key=lambda c: c.position)
            expected = [c for c in mine if behind is None or c.position > behind]
            assert windows.of("items", (code,), behind) == expected
            if any(c.kind is Kind.DELETE or is_renamed(compiled, Side.LEFT, c) for c in expected):
                assert windows.has_turned("items", (code,), behind)


def test_that_a_whole_table_was_deleted_takes_no_memory(compiled: CompiledMap, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not known of each record any more counts as possible, until it is seen."""
    monkeypatch.setattr(window, "IN_MEMORY", 10)
    windows = Windows(Side.LEFT, {"items": compiled})
    changes = [change(number, f"k{number}")._replace(kind=Kind.DELETE, after=None) for number in range(1, 100)]
    changes.append(change(100, "updated"))
    windows.extend(changes, place(100))
    assert len(windows._turned) <= 10
    for number in range(1, 100):
        assert windows.has_turned("items", (f"k{number}",), place(number - 1))
    assert not windows.has_turned("items", ("updated",), place(99))
    windows.forget(place(100))
    assert not windows.has_turned("items", ("k1",), None)


@pytest.mark.parametrize("together", [1, 2, 5])
def test_large_rows_are_moved_to_disk_however_few_they_are(
    compiled: CompiledMap, together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They come in small batches, whose size is bounded in characters."""
    monkeypatch.setattr(window, "LARGEST_IN_MEMORY", 4_000)
    windows = Windows(Side.LEFT, {"items": compiled})
    for first in range(1, 60, together):
        changes = [
            change(number, f"k{number}")._replace(before=None, after=(f"k{number}", "x" * 1_000))
            for number in range(first, first + together)
        ]
        windows.extend(changes, changes[-1].position)
        assert sum(map(len, windows._records.values())) <= 4
        assert len(windows) == changes[-1].position.place[0]


def test_a_record_that_was_only_updated_has_not_turned(compiled: CompiledMap) -> None:
    """What it once was more counts no more than what is seen."""
    windows = Windows(Side.LEFT, {"items": compiled})
    gone = change(1, "busy")._replace(kind=Kind.DELETE, after=None)
    windows.extend([gone, *(change(number, "busy") for number in range(2, 9))], place(8))
    assert windows.has_turned("items", ("busy",), None)
    assert not windows.has_turned("items", ("busy",), place(1))
    windows.forget(place(8))
    assert not windows.has_turned("items", ("busy",), None)
