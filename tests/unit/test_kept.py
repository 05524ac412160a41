"""Windows of parked records are in the journal, whoever asks, and however little of them is held in memory."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

import pytest

from dualwrite.engine import kept
from dualwrite.engine.kept import Asked, KeptWindows
from dualwrite.engine.window import Kept
from dualwrite.journal import Journal, Layout
from dualwrite.mapping.compile import CompiledMap, compile_map
from dualwrite.mapping.notation import read_map
from dualwrite.model import Change, Key, Kind, Position, Side
from dualwrite.schema import Column, ColumnType, Schema, Table, TypeName

TEXT = ColumnType(TypeName.TEXT)
COLUMNS = (Column("code", TEXT, nullable=False), Column("area", TEXT, nullable=False), Column("name", TEXT))
SCHEMA = Schema({"items": Table("items", COLUMNS, ("code",), (("code",), ("area", "code")))})
MAP = "map: {}\nleft: items\nright: items\n{}columns:\n  - code = code\n  - area = area\n  - name = name\n"


def compiled(name: str, key: str = "key: [code]\n") -> CompiledMap:
    """A map of the table."""
    return compile_map(read_map(MAP.format(name, key), ""), SCHEMA, SCHEMA)


MAPS = {name: compiled(name) for name in ("items", "others")}


def change(number: int, code: str, view: str = "items", feed: str = "feed") -> Change:
    """An update of the record with that code."""
    rows = [(code, "north", str(name)) for name in (number - 1, number)]
    return Change(view, Kind.UPDATE, (code,), rows[0], rows[1], 0.0, Position(feed, (number,)))


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    """An empty one."""
    with Journal.open(tmp_path) as opened:
        yield opened


@pytest.mark.parametrize("in_memory", [3, 20_000], ids=["nothing stays in memory", "everything stays"])
@pytest.mark.parametrize("seed", range(4))
def test_a_window_is_what_was_kept_and_not_dropped(
    journal: Journal, seed: int, in_memory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the same is kept again, as it is when the feed is read once more, and for another process."""
    monkeypatch.setattr(kept, "IN_MEMORY", in_memory)
    monkeypatch.setattr(kept, "AT_ONCE", 3)
    random, expected = Random(seed), dict[tuple[str, Key], dict[int, Change]]()
    windows, other = (KeptWindows(side, journal, MAPS) for side in Side)
    other.keep([("items", ("a",), change(1_000, "a"))])
    records = [(name, (code,)) for name in MAPS for code in "abcd"]
    for number in range(1, 150):
        record = random.choice(records)
        match random.randrange(14):
            case 0:
                gone = [record, random.choice(records)]
                windows.drop(gone)
                expected = {known: changes for known, changes in expected.items() if known not in gone}
            case 1:
                windows.drop_map("others")
                expected = {known: changes for known, changes in expected.items() if known[0] != "others"}
            case 2:
                again = [(*known, one) for known, changes in expected.items() for one in changes.values()]
                windows.keep(again)
            case 3:
                windows = KeptWindows(Side.LEFT, journal, MAPS)
            case _:
                new = [change(10 * number + n, record[1][0], record[0]) for n in range(random.randint(1, 5))]
                windows.keep([(*record, one) for one in new])
                expected.setdefault(record, {}).update({one.position.place[0]: one for one in new})
        asked = random.sample(records, 3)
        assert windows.of(asked) == {known: [*expected.get(known, {}).values()] for known in asked}
    assert other.of([("items", ("a",))]) == {("items", ("a",)): [change(1_000, "a")]}


def test_what_somebody_else_has_kept_is_found_once_it_is_told(journal: Journal) -> None:
    """What is written together with a parked record goes into the journal by another way."""
    windows, record = KeptWindows(Side.LEFT, journal, MAPS), ("items", ("a",))
    assert windows.of([record]) == {record: []}
    journal.keep_window(Side.LEFT, [("items", '["a"]', change(1, "a"))])
    windows.forget([record])
    assert windows.of([record]) == {record: [change(1, "a")]}


def test_a_change_of_another_incarnation_of_the_feed_is_found_as_well(journal: Journal) -> None:
    """Places of two of them do not compare, and nothing is asked of both."""
    windows, record = KeptWindows(Side.LEFT, journal, MAPS), ("items", ("a",))
    windows.keep([(*record, change(5, "a"))])
    assert windows.of([record]) == {record: [change(5, "a")]}
    windows.keep([(*record, change(1, "a", feed="new"))])
    assert windows.of([record]) == {record: [change(5, "a"), change(1, "a", feed="new")]}


def test_few_windows_are_held_however_many_are_kept(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of so many records nobody asks at once."""
    monkeypatch.setattr(kept, "IN_MEMORY", 50)
    windows = KeptWindows(Side.LEFT, journal, MAPS)
    windows.keep([("items", (f"k{number}",), change(number, f"k{number}")) for number in range(1, 500)])
    for number in range(1, 500):
        record = ("items", (f"k{number}",))
        assert windows.of([record]) == {record: [change(number, f"k{number}")]}
    gc.collect()
    assert sum(isinstance(found, Change) for found in gc.get_objects()) < 200


def test_large_rows_are_not_held_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also few of them fill the memory."""
    read: list[str] = []

    def find(names: Sequence[str]) -> Iterator[tuple[str, Change]]:
        read.extend(names)
        for name in names:
            yield name, change(1, "x" * 100)

    monkeypatch.setattr(kept, "LARGEST_IN_MEMORY", 1_000)
    asked = Asked(find)
    for _ in range(3):
        asked.of(["a"])
    assert read == ["a"]
    for name in "bcdefgh":
        asked.of([name])
    asked.of(["a"])
    assert read == [*"abcdefgh", "a"]


def test_windows_follow_a_map_to_its_new_key(journal: Journal) -> None:
    """Where the kept rows tell it; where they do not, they wait until the key is what it was."""
    entries: list[Kept] = [("items", (code,), change(number, code)) for number, code in enumerate("abcde", 1)]
    KeptWindows(Side.LEFT, journal, MAPS).keep(entries)
    bare = Layout("items", ("code",), ("code",))
    row = change(9, "z")
    journal.keep_window(Side.LEFT, [("items", '["z"]', row._replace(before=("z",), after=("z",)))], {"items": bare})
    now = {"items": compiled("items", "key: [area, code]\n")}
    for _ in range(2):
        windows = KeptWindows(Side.LEFT, journal, now)
        windows.rekey(now)
        found = windows.of([("items", ("north", code)) for code in "abcde"])
        assert [[one.position.place for one in window] for window in found.values()] == [[(n,)] for n in range(1, 6)]
        assert windows.of([("items", ("a",))]) == {("items", ("a",)): []}
    assert '["z"]' in journal.kept_keys(Side.LEFT, "items")
