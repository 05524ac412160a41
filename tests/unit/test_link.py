"""What both flows of a link share stays whole when both touch it."""

from __future__ import annotations

import threading
import tracemalloc
from contextlib import suppress
from dataclasses import dataclass
from random import Random
from typing import cast

import pytest

from dualwrite.connectors.base import Connector, Remembered, Transaction
from dualwrite.engine import link
from dualwrite.engine.contest import Hidden
from dualwrite.engine.kept import KeptWindows
from dualwrite.engine.link import (
    VACANT,
    HiddenRows,
    LinkSide,
    ParkedKeys,
    Vacancies,
    Vacancy,
    hidden_from,
    hidden_text,
    parked_text,
    restore_from,
    restore_text,
    vacancy_text,
)
from dualwrite.engine.window import Windows
from dualwrite.journal import Layout
from dualwrite.model import ABSENT, Change, Key, Kind, Position, Side
from dualwrite.schema import View

AT = Position("feed", (1,))


def test_what_is_freed_while_the_other_flow_prunes_stays_free() -> None:
    """The flow out of a side forgets old intervals at the very time at which the flow into it frees the record."""
    parked = ParkedKeys()
    freeing = threading.Thread(target=parked.remove, args=("items", ("a",), 9))

    class Commit(int):
        """A commit's number that lets the other flow come in between when it is looked at."""

        def __gt__(self, other: int) -> bool:
            if not freeing.ident:
                freeing.start()
                freeing.join(0.2)  # it either comes in between, or waits until this is over
            return int(self) > other

    parked.add("items", ("a",), AT, 1)
    parked.remove("items", ("a",), Commit(5))
    parked.add("items", ("a",), AT, 7)
    parked.prune(3)
    freeing.join()
    assert ("items", ("a",)) not in parked
    assert parked.first_at("items", ("a",), 8) == AT


def test_what_stays_parked_is_not_gone_through_for_each_batch() -> None:
    """There may be very many such records."""

    class Looked(str):
        """A member of a key that counts how often its record is looked up."""

        __slots__ = ()
        count = 0

        def __hash__(self) -> int:
            Looked.count += 1
            return str.__hash__(self)

    parked = ParkedKeys()
    parked.add("items", (Looked("stays"),), AT, 1)
    parked.add("items", ("goes",), AT, 1)
    parked.remove("items", ("goes",), 2)
    before = Looked.count
    assert parked.prune(1) == []
    assert parked.prune(2, {"items"}) == []
    assert parked.prune(2) == [("items", ("goes",))]
    assert parked.prune(3) == []
    assert Looked.count == before
    assert parked.records() == [("items", ("stays",))]


def test_who_reads_waits_for_the_commits_that_the_feed_has_told_of() -> None:
    """While the caches learn a commit, earlier ones keep nobody waiting; what stands behind its own marker waits."""
    side = LinkSide(Side.LEFT, cast("Connector", None), Windows(Side.LEFT, {}), cast("KeptWindows", None))
    told: list[str] = []

    def read(mark: int) -> None:
        side.learned(mark)
        told.append(f"read behind {mark}")

    with side.committed(cast("Transaction", Committing(7)), AT):
        pass
    early, late = (threading.Thread(target=read, args=(mark,)) for mark in (7, 8))
    with side.committed(cast("Transaction", Committing(8)), AT):
        early.start()
        early.join(5)
        late.start()
        late.join(0.1)
        told.append("learned 8")
    late.join()
    assert told == ["read behind 7", "learned 8", "read behind 8"]


def made(place: int, mark: int, feed: str = "feed") -> Change:
    """A record made anew by a user, behind our commit number ``mark``."""
    return Change("items", Kind.INSERT, ("a",), None, ("a",), 0.0, Position(feed, (place,)), None, mark)


def test_who_reads_of_a_record_waits_while_a_commit_decides_about_it() -> None:
    """Then it is known whether the commit was done, and what is behind what it knew of comes behind it."""
    vacant, told = Vacancies(), list[Vacancy | None]()
    asked = threading.Event()

    def read() -> None:
        asked.set()
        told.append(vacant.before(("items", ("a",)), made(5, mark=3)))

    reading = threading.Thread(target=read)
    with vacant.deciding({("items", ("a",)): None}):
        assert vacant.before(("items", ("b",)), made(5, mark=3)) is None, "others keep nobody waiting"
        reading.start()
        asked.wait(20)
        reading.join(0.1)
        assert told == []
        vacant.add([("items", ("a",))], Vacancy(AT, 4, None))
    reading.join(20)
    assert told == [Vacancy(AT, 4, None)]
    with suppress(ValueError), vacant.deciding({("items", ("c",)): None}):
        raise ValueError
    assert vacant.before(("items", ("c",)), made(5, mark=3)) is None, "a commit that failed keeps nobody waiting"


def test_a_vacancy_matters_for_what_the_commit_did_not_know_and_the_feed_tells_before_it() -> None:
    """Not for what it knew of, what comes behind it, or another feed; the side table remembers it."""
    carried = Position("left", (9,))
    entries = [
        Remembered(VACANT, "items", '["a"]', vacancy_text(Vacancy(Position("feed", (4,)), 7, carried)), 7, 8),
        Remembered(VACANT, "items", '["b"]', vacancy_text(Vacancy(Position("feed", (4,)), 8, None)), 8, None),
    ]
    vacant = Vacancies(entries)
    assert list(vacant.lasting) == [("items", ("b",))]
    record = ("items", ("a",))
    assert vacant.before(record, made(5, mark=6)) == Vacancy(Position("feed", (4,)), 7, carried)
    for change in (made(4, mark=6), made(5, mark=7), made(5, mark=6, feed="another")):
        assert vacant.before(record, change) is None
    assert vacant.before(("items", ("b",)), made(5, mark=7)) == Vacancy(Position("feed", (4,)), 8, None)
    vacant.prune(7)
    assert vacant.before(record, made(5, mark=6)) is None
    assert vacant
    vacant.prune(8)
    assert not vacant


def test_what_a_commit_says_of_many_records_is_held_once() -> None:
    """Hundreds of thousands may be left absent: each has its key, and shares what was said of all of them."""
    text = vacancy_text(Vacancy(Position("feed", (4,)), 7, None))
    vacant = Vacancies(Remembered(VACANT, "items", f'["{key}"]', text, 7, None) for key in "abc")
    found = [vacant.before(("items", (key,)), made(5, mark=6)) for key in "abc"]
    assert found[0] == Vacancy(Position("feed", (4,)), 7, None)
    assert found[0] is found[1] is found[2]
    vacant.add([("items", ("a",))], Vacancy(Position("feed", (8,)), 8, None))
    vacant.prune(7)
    assert vacant.before(("items", ("b",)), made(9, mark=7)) is None
    assert vacant.before(("items", ("a",)), made(9, mark=7)) == Vacancy(Position("feed", (8,)), 8, None)
    vacant.prune(8)
    assert not vacant


class Counted(str):
    """A text that tells how often it was looked for."""

    asked = 0

    def __hash__(self) -> int:
        """Count and be the text."""
        Counted.asked += 1
        return super().__hash__()

    __eq__ = str.__eq__


def test_forgetting_what_was_left_absent_looks_only_at_what_is_old() -> None:
    """Both sides delete very many records at once: nothing is old before all of it is carried."""
    vacant = Vacancies()
    for number in range(1, 4):
        vacant.add([("items", (Counted(f"{number}{n}"),)) for n in range(10)], Vacancy(AT, number, None))
    vacant.add([("items", (Counted("10"),))], Vacancy(AT, 4, None))
    before = Counted.asked
    vacant.prune(0)
    assert Counted.asked == before
    vacant.prune(1)
    assert Counted.asked - before <= 2 * 10
    assert vacant.before(("items", ("10",)), made(9, mark=0)) == Vacancy(AT, 4, None)
    assert vacant.before(("items", ("11",)), made(9, mark=0)) is None
    vacant.prune(3)
    assert vacant
    vacant.prune(4)
    assert not vacant


@dataclass
class Committing:
    """A transaction with a number."""

    number: int

    def commit(self, position: Position | None) -> None:
        """It is always done."""


def view(*paths: str, key: tuple[int, ...]) -> View:
    """A view of a table."""
    return View("m", "t", tuple((path,) for path in paths), key)


@pytest.mark.parametrize("in_memory", [0, 3, 1_000], ids=["on disk", "mostly on disk", "in memory"])
@pytest.mark.parametrize("seed", range(4))
def test_hidden_rows_are_what_was_put_and_not_discarded(
    seed: int, in_memory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever they are, and whatever incarnation of the feed they speak of."""
    monkeypatch.setattr(link, "HIDDEN_IN_MEMORY", in_memory)
    random = Random(seed)
    rows, plain = HiddenRows(), dict[tuple[str, Key], Hidden]()
    assert not rows
    for number in range(400):
        record = random.choice(["items", "others"]), (str(random.randrange(12)), random.choice([None, "ä"]))
        if random.randrange(3):
            place = random.choice([(number,), (number, -1, 1 << 62), (1 << 64,), ()])
            after = random.choice([None, Position("feed", place), Position("former", place)])
            plain[record] = Hidden((str(number), None, ABSENT), after)
            rows.put(record, plain[record])
        else:
            plain.pop(record, None)
            rows.discard(record)
        assert bool(rows) == bool(plain)
        assert rows.get(record) == plain.get(record)
        seen = Position("feed", random.choice([(number - 9,), (number - 9, 1), (1 << 64, 1)]))
        passed = {r for r, h in plain.items() if h.after and h.after.feed == "feed" and h.after < seen}
        assert sorted(rows.passed(seen), key=str) == sorted(passed, key=str)
    assert {record: rows.get(record) for record in rows} == plain


def test_hidden_rows_take_no_memory() -> None:
    """Neither many of them nor large ones."""
    tracemalloc.start()
    rows = HiddenRows()
    for number in range(20_000):
        rows.put(("items", (str(number),)), Hidden((f"{number} " * 20,), Position("feed", (number,))))
    for number in range(20):
        rows.put(("large", (str(number),)), Hidden((f"{number} " * 400_000,), Position("feed", (number,))))
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert used < 5_000_000


def test_a_hidden_row_is_brought_to_the_present_view() -> None:
    """By its paths; where an earlier program did not say them, it stays as it is."""
    hidden = Hidden(("1", "x", None), Position("f", (3,)))
    text = hidden_text(hidden, view("code", "a", "b", key=(0,)))
    found, layout = hidden_from(text, view("b", "c", "code", key=(2,)))
    assert found == Hidden((None, ABSENT, "1"), Position("f", (3,)))
    assert layout == Layout("t", ("code", "a", "b"), ("code",))
    assert hidden_from(text, None)[0] == hidden
    assert hidden_from('["f@3", "[\\"1\\",\\"x\\",null]"]', view("b", key=(0,))) == (hidden, None)


def test_a_record_to_be_restored_is_found_by_the_present_key() -> None:
    """Its members by their paths; by none where one of them is not known; as it is where an earlier program kept it."""
    text = restore_text(("1", None), view("a", "b", key=(0, 1)))
    assert restore_from(text, view("a", "b", key=(1, 0))) == (None, "1")
    assert restore_from(text, view("a", "b", key=(1,))) == (None,)
    assert restore_from(text, view("a", "c", key=(0, 1))) is None
    assert restore_from(text, None) == ("1", None)
    assert restore_from('["1",null]', view("a", "b", key=(1, 0))) == ("1", None)


def test_since_when_a_record_is_parked_survives_its_new_key() -> None:
    """What the side table says about an earlier commit counts more than the commit that wrote it."""
    first = Position("f", (5,))
    entries = [
        Remembered("parked", "m", '["1"]', parked_text(first, 3), 9, None),
        Remembered("parked", "m", '["2"]', parked_text(first, None), 9, None),
    ]
    parked = ParkedKeys(entries)
    assert [parked.first_at("m", (key,), 4) for key in "12"] == [first, None]
    assert [parked.since("m", (key,)) for key in "123"] == [3, 9, None]
