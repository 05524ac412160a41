"""The queues of paused maps in the journal: what waits is known without counting it, old journals included."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from dualwrite.journal import Delayed, Journal, KeptChange, Layout, change_from, change_text
from dualwrite.journal.backlog import Place, Queued
from dualwrite.journal.tables import STEPS
from dualwrite.model import ABSENT, Change, Kind, Position, Side

LEFT, RIGHT = Side.LEFT, Side.RIGHT
LAYOUT = Layout("t", ("code", "name"), ("code",))


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    """A journal in a file."""
    with Journal.open(tmp_path) as found:
        yield found


def edit(place: int, key: str = "1") -> Change:
    """An update of one cell."""
    return Change("t", Kind.UPDATE, (key,), (key, "a"), (key, f"b{place}"), 5.0, Position("feed", (place,)))


def test_rows_of_one_layout_share_its_text() -> None:
    """There may be very many that are kept at once."""
    same = Layout("t", (*LAYOUT.paths,), ("code",))
    assert str(same) is str(LAYOUT)
    assert Layout.parse(str(same)) == LAYOUT
    assert str(Layout("t", ("code", "name"), ("name",))) != str(LAYOUT)


def keep(journal: Journal, side: Side, map_name: str, *changes: Change) -> None:
    """Queue changes."""
    entries = [Delayed(KeptChange(each, LAYOUT), json.dumps(each.key), None, None) for each in changes]
    journal.backlogs.append(side, map_name, entries, LAYOUT)


def size(*changes: Change) -> int:
    """The bytes of changes in the journal."""
    return sum(len(change_text(each)) for each in changes)


def test_queues_are_counted_each_for_itself(journal: Journal) -> None:
    """However they take turns, and whatever was passed or dropped of one of them."""
    backlogs = journal.backlogs
    for place in range(1, 7):
        keep(journal, LEFT, "a", edit(place), edit(10 * place))
        keep(journal, RIGHT, "b", edit(place))
    numbers = [found.number for found in backlogs.places(LEFT, "a", 0, 100)]
    assert backlogs.count(LEFT, "a") == 12
    assert backlogs.maps() == {"a", "b"}
    whole = [each for place in range(1, 7) for each in (edit(place), edit(10 * place))]
    for passed, dropped in ((0, 0), (3, 0), (5, 5), (11, 7)):
        backlogs.set_passed(LEFT, "a", numbers[passed - 1] if passed else 0)
        if dropped:
            backlogs.drop(LEFT, "a", numbers[dropped - 1])
        waits = whole[passed:]
        assert backlogs.queued("a") == {"a": {LEFT: Queued(len(waits), size(*waits))}}
        assert backlogs.queued()["b"] == {RIGHT: Queued(6, sum(size(edit(place)) for place in range(1, 7)))}
        assert backlogs.count(LEFT, "a") == 12 - dropped
    backlogs.set_passed(LEFT, "a", numbers[-1])
    assert "a" not in backlogs.queued()
    backlogs.drop(LEFT, "a")
    assert (backlogs.maps(), backlogs.queued("a"), backlogs.count(LEFT, "a")) == ({"b"}, {}, 0)
    keep(journal, LEFT, "a", edit(99))
    assert backlogs.queued("a") == {"a": {LEFT: Queued(1, size(edit(99)))}}


def test_queued_changes_come_back_as_they_went_in(journal: Journal) -> None:
    """In order, with their place, their keys and what they had seen; strange names of maps and keys included."""
    strange = "m\ud800\0"
    seen = Position("other", (4, 1))
    entries = [
        Delayed(KeptChange(edit(1, "k\ud800"), LAYOUT), '["k\ud800"]', '["new"]', seen),
        Delayed(KeptChange(edit(2), LAYOUT), None, None, None),
    ]
    journal.backlogs.append(LEFT, strange, entries, LAYOUT)
    found = journal.backlogs.read(LEFT, strange, 0, 10)
    assert [each.change for each in found] == [each.change for each in entries]
    assert [each.seen for each in found] == [seen, None]
    assert [each.change for each in journal.backlogs.of(LEFT, strange, ['["k\ud800"]'])] == [entries[0].change]
    assert [each.change for each in journal.backlogs.of(LEFT, strange, ['["new"]'])] == [entries[0].change]
    places = journal.backlogs.places(LEFT, strange, found[0].number, 10)
    assert places == [Place(found[1].number, Position("feed", (2,)), None, None)]


def test_a_journal_from_before_queues_were_counted_is_lifted() -> None:
    """Every queue is counted by then, and nothing else has changed."""
    engine, steps = create_engine("sqlite://"), {step.__name__: step for step in STEPS}
    insert = text("INSERT INTO backlog (side, map, position, change, size) VALUES (:side, :map, 'feed@1', 'x', :size)")
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE map_state (map TEXT)"))
        steps["_keep_backlogs"](connection)
        for side, name, bytes_ in (("left", "a", 3), ("right", "a", 5), ("left", "a", 4), ("left", "b", 1)):
            connection.execute(insert, {"side": side, "map": name, "size": bytes_})
        steps["_count_backlogs"](connection)
        found = connection.execute(text('SELECT side, map, ordinal, total FROM backlog ORDER BY "row"')).tuples().all()
    assert found == [("left", "a", 1, 3), ("right", "a", 1, 5), ("left", "a", 2, 7), ("left", "b", 1, 1)]


def test_changes_that_an_earlier_program_has_kept_are_read() -> None:
    """It wrote both rows of an update in full."""
    members = json.loads(change_text(edit(3)))
    del members["edits"]
    for cells, row in ((["1", "b3"], ("1", "b3")), ([None, False], (None, ABSENT)), (None, None)):
        assert change_from(json.dumps({**members, "after": cells})).after == row


def test_an_update_is_kept_without_what_it_left_alone() -> None:
    """Its text grows with what it has edited, not with the row twice."""
    row = tuple(f"cell {number}" for number in range(200))
    edited = Change("t", Kind.UPDATE, ("1",), row, ("one", *row[1:-1], None), 5.0, Position("feed", (1,)))
    assert len(change_text(edited)) < len(json.dumps(row)) + 300
    assert change_from(change_text(edited)) == edited
