"""The journal: what it keeps, what counts when, and who may write it."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, event, inspect, text

from dualwrite.errors import Denied, DualwriteError, Usage
from dualwrite.journal import (
    Block,
    Conflict,
    Journal,
    KeptChange,
    Layout,
    Lease,
    MapState,
    MapVersion,
    ParkedKey,
    Tally,
    change_from,
    change_text,
)
from dualwrite.journal.database import Database, locate
from dualwrite.journal.tables import STEPS, metadata
from dualwrite.model import ABSENT, Change, Kind, Position, Side

LEFT, RIGHT = Side.LEFT, Side.RIGHT
KEY = '["10"]'


def at(*place: int, feed: str = "feed") -> Position:
    """A position."""
    return Position(feed, place)


def change(place: int, feed: str = "feed") -> Change:
    """An update at that place of the feed."""
    return Change("customers", Kind.UPDATE, ("10",), ("10", "a"), ("10", "b"), 5.0, at(place, feed=feed))


def record(key: str = KEY, side: Side = RIGHT, **changes: object) -> ParkedKey:
    """A record that was refused."""
    return replace(ParkedKey(side, "customers", key, "10", "value", "too long", "name"), **changes)


def changes_of(queue: Sequence[KeptChange]) -> list[Change]:
    """The changes of a queue, whatever their rows are of."""
    return [kept.change for kept in queue]


def contested(side: Side = RIGHT, **changes: object) -> Conflict:
    """A conflict of one column, won by the left."""
    entry = Conflict(
        map="customers",
        side=side,
        key=KEY,
        shown_key="10",
        unit="name",
        left=("a",),
        right=("b",),
        base=("c",),
        winner="left",
        policy="newest",
        at=5.0,
        loser=at(1),
        beats=at(2),
    )
    return replace(entry, **changes)  # type: ignore[arg-type]


@dataclass
class Clock:
    """A clock that is set by hand."""

    now: float = 1000.0

    def __call__(self) -> float:
        """The time."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """A clock that is set by hand."""
    return Clock()


@pytest.fixture
def journal(tmp_path: Path, clock: Clock) -> Iterator[Journal]:
    """A journal in a project folder."""
    with Journal.open(tmp_path, clock=clock) as opened:
        yield opened


def sizes(path: Path) -> dict[str, int]:
    """How many rows every table of the journal in that project has."""
    with sqlite3.connect(path / ".dualwrite" / "journal.db") as raw:
        return {name: raw.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for name in metadata.tables}


# Changes as text

cells = st.none() | st.text() | st.just(ABSENT)
places = st.builds(Position, st.text(), st.lists(st.integers(), max_size=3).map(tuple))
rows = st.none() | st.lists(cells, max_size=4).map(tuple)
changes = st.builds(
    Change,
    st.text(),
    st.sampled_from(Kind),
    st.lists(st.none() | st.text(), max_size=3).map(tuple),
    rows,
    rows,
    st.floats(allow_nan=False, allow_infinity=False),
    places,
    st.none() | places,
    st.integers(),
    st.booleans(),
    edited=st.none(),  # not kept: the images that are read again are compared
)


@given(changes)
def test_a_change_survives_as_text(original: Change) -> None:
    """Nothing of a change is lost when it is written as text and read again."""
    written = change_text(original)
    assert change_from(written) == original
    assert written.isascii()
    assert "\n" not in written


def test_text_that_is_no_proper_unicode_is_kept(journal: Journal) -> None:
    """What a system says in broken characters stops nothing, and broken cells come back as they were."""
    broken = change(1)._replace(after=("10", "\udc80\0"))
    journal.park(record(reason="bad \udc80 byte \0"), [broken], 1)
    assert journal.parked({})[0].reason == "bad \\udc80 byte \\u0000"
    assert changes_of(journal.queue(RIGHT, "customers", KEY)) == [broken]


# Maps


def test_map_state_is_set_member_by_member(journal: Journal, tmp_path: Path) -> None:
    """What is not named stays; what was set is there when the journal is opened again."""
    assert journal.states() == {}
    journal.set_state("customers", desired="running", master="left")
    journal.set_state("customers", initial="pending", boundaries={LEFT: at(3, 1), RIGHT: None})
    wanted = MapState(
        "customers",
        desired="running",
        master="left",
        initial="pending",
        boundaries={LEFT: at(3, 1), RIGHT: None},
        since=1000.0,
        asked=1000.0,
    )
    assert journal.states() == {"customers": wanted}
    with Journal.open(tmp_path) as again:
        assert again.states() == {"customers": wanted}


def test_since_is_when_the_state_last_changed(journal: Journal, clock: Clock) -> None:
    """Setting the same state again, or anything else, leaves the time of the change."""
    journal.set_state("customers", state="initializing")
    clock.now = 2000.0
    journal.set_state("customers", state="initializing", reason="still at it")
    assert journal.states()["customers"].since == 1000.0
    journal.set_state("customers", state="running", reason="")
    assert journal.states()["customers"].since == 2000.0


def test_asked_is_when_something_else_was_wanted_last(journal: Journal, clock: Clock) -> None:
    """Whatever becomes of the state, the time of the wish stays."""
    journal.set_state("customers", desired="running")
    clock.now = 2000.0
    journal.set_state("customers", desired="running", state="running")
    assert journal.states()["customers"].asked == 1000.0
    journal.set_state("customers", desired="paused")
    assert journal.states()["customers"].asked == 2000.0


# Activity log


def test_events_are_found_by_map_and_key_newest_first(journal: Journal, clock: Clock) -> None:
    """The log is read from its end, of one map or one record if asked."""
    journal.log("map started", map="customers", who="ada", detail={"master": "left"})
    clock.now = 1001.0
    journal.log("record parked", map="customers", detail={"key": KEY})
    journal.log("engine started")
    assert [event.what for event in journal.events()] == ["engine started", "record parked", "map started"]
    assert [event.what for event in journal.events(limit=1)] == ["engine started"]
    assert [event.what for event in journal.events(map="customers")] == ["record parked", "map started"]
    assert [event.what for event in journal.events(key=KEY)] == ["record parked"]
    first = journal.events()[-1]
    assert (first.at, first.who, first.map, first.detail) == (1000.0, "ada", "customers", {"master": "left"})


# Parked records


def test_parking_again_puts_changes_behind(journal: Journal, clock: Clock) -> None:
    """The first reason and time stay; later changes of the record queue up in order."""
    journal.park(record(), [change(1)], 1)
    clock.now = 2000.0
    journal.park(record(code="required", reason="another"), [change(3), change(2)], 2)
    (entry,) = journal.parked({RIGHT: 2})
    assert (entry.code, entry.reason, entry.column, entry.shown_key) == ("value", "too long", "name", "10")
    assert (entry.since, entry.attempts, entry.changes) == (1000.0, 1, 3)
    assert changes_of(journal.queue(RIGHT, "customers", KEY)) == [change(1), change(3), change(2)]
    assert list(journal.all_parked_keys(RIGHT)) == [record()]
    assert list(journal.all_parked_keys(LEFT)) == []


def test_parked_records_are_found_by_map_side_and_key(journal: Journal) -> None:
    """A listing can be narrowed, and what a record waits for is in it."""
    waiting = record(key='["11"]', waits_table="groups", waits_key='["DE"]')
    with journal.batch() as batch:
        batch.park(record(), [change(1)], 1)
        batch.park(waiting, [change(2)], 1)
        batch.park(record(side=LEFT, map="vendors"), [change(3)], 1)
    assert [entry.map for entry in journal.parked({}, map="vendors")] == ["vendors"]
    assert [entry.side for entry in journal.parked({}, side=LEFT)] == [LEFT]
    (found,) = journal.parked({}, key='["11"]')
    assert (found.waits_table, found.waits_key) == ("groups", '["DE"]')


def test_parked_records_are_found_by_their_ids(journal: Journal) -> None:
    """Those that were parked again keep theirs; nothing is read of the others."""
    records = [record(key=f'["{number}"]') for number in range(20)]
    with journal.batch() as batch:
        for each in records:
            batch.park(each, [change(1)], 1)
    before = journal.parked({})
    for each in (records[3], records[5], records[5]):
        journal.requeue(replace(each, reason="still"), [change(1)], 2)
    journal.park(record(key='["7"]', side=LEFT), [change(2)], 3)
    wanted = {entry.id: entry for entry in journal.parked({RIGHT: 2, LEFT: 3})}
    assert {entry.id for entry in before} <= wanted.keys()
    for ids in ([before[3].id], [before[5].id, before[3].id, before[9].id], list(wanted), [10_000], []):
        found = journal.parked({RIGHT: 2, LEFT: 3}, ids=ids)
        assert found == [wanted[id] for id in sorted(ids) if id in wanted]


def steps_of(journal: Journal, ask: Callable[[], object]) -> list[str]:
    """How SQLite finds what is read meanwhile."""
    asked: list[tuple[str, Sequence[object]]] = []

    def hear(_connection: object, _cursor: object, sql: str, values: Sequence[object], *_: object) -> None:
        asked.append((sql, values))

    event.listen(Engine, "before_cursor_execute", hear)
    try:
        ask()
    finally:
        event.remove(Engine, "before_cursor_execute", hear)
    with closing(sqlite3.connect(journal.name)) as raw:
        looked = [raw.execute(f"EXPLAIN QUERY PLAN {sql}", values).fetchall() for sql, values in asked if "SEL" in sql]
    return [step[3] for plan in looked for step in plan]


def test_a_parked_record_is_looked_up_not_searched_for(journal: Journal) -> None:
    """Its id leads to it and to its queue, by indexes, however many are parked."""
    journal.park(record(), [change(1)], 1)
    (entry,) = journal.parked({})
    steps = steps_of(journal, lambda: journal.parked({LEFT: 5, RIGHT: 5}, ids=[entry.id]))
    assert "SEARCH parked USING INTEGER PRIMARY KEY (rowid=?)" in steps
    assert "SEARCH parked USING INDEX parked_again (origin=?)" in steps
    assert "SEARCH queue USING INDEX queue_record (side=? AND map=? AND key=?)" in steps


def test_a_conflict_is_looked_up_not_searched_for(journal: Journal) -> None:
    """Its id leads to it and to how it was closed, by indexes, however many there are."""
    journal.conflict(contested(winner="", open=True), 1)
    (entry,) = journal.conflicts({})
    steps = steps_of(journal, lambda: journal.conflicts({LEFT: 5, RIGHT: 5}, id=entry.id))
    assert "SEARCH conflict USING INTEGER PRIMARY KEY (rowid=?)" in steps
    assert "SEARCH conflict USING INDEX conflict_again (origin=?)" in steps
    assert not any(step.startswith("SCAN") for step in steps)


def test_a_conflict_is_found_by_its_id(journal: Journal) -> None:
    """Also where only the other flow's row is left of it."""
    for side, number in ((LEFT, 3), (RIGHT, 7)):
        journal.conflict(contested(side=side), number)
    journal.conflict(contested(unit="city"), 7)
    first, other = journal.conflicts({})
    assert journal.conflicts({}, id=first.id) == [first]
    assert journal.conflicts({}, id=other.id) == [other]
    journal.settle(LEFT, 2)
    assert journal.conflicts({}, id=first.id) == [replace(first, side=RIGHT)]


@pytest.mark.parametrize("id", [0, -1, 10_000, 1 << 63, 10**30])
def test_nothing_has_an_id_that_was_never_given(journal: Journal, id: int) -> None:
    """Whatever number a person asks for: what the database cannot even look for is not there either."""
    assert journal.parked({}, ids=[id]) == []
    assert journal.conflicts({}, id=id) == []
    assert journal.syncs.find(id) is None
    assert journal.audits.one({}, f"{id}.1") is None


def test_what_is_parked_counts_with_its_commit(journal: Journal) -> None:
    """Before the target's commit is done a listing shows nothing of it; a side that is not named, everything."""
    journal.park(record(), [change(1)], 1)
    journal.park(record(), [change(2)], 2)
    assert journal.parked({RIGHT: 0}) == []
    assert journal.parked({RIGHT: 1})[0].changes == 1
    assert journal.parked({RIGHT: 2})[0].changes == 2
    assert journal.parked({LEFT: 0})[0].changes == 2
    assert changes_of(journal.queue(RIGHT, "customers", KEY, {RIGHT: 1})) == [change(1)]


def test_settle_drops_what_was_parked_for_nothing(journal: Journal) -> None:
    """Entries of a commit that never happened are gone, those of the other side are not touched."""
    journal.park(record(), [change(1)], 7)
    journal.park(record(), [change(2)], 8)
    journal.park(record(side=LEFT), [change(3)], 8)
    journal.settle(RIGHT, 7)
    assert changes_of(journal.queue(RIGHT, "customers", KEY)) == [change(1)]
    assert changes_of(journal.queue(LEFT, "customers", KEY)) == [change(3)]
    journal.settle(RIGHT, 6)
    assert list(journal.all_parked_keys(RIGHT)) == []


def test_removal_counts_with_its_commit(journal: Journal) -> None:
    """A record stays parked for people until the commit that applied it is done, and comes back when it never was."""
    journal.park(record(), [change(1)], 1)
    journal.unpark(RIGHT, "customers", KEY, 2)
    assert list(journal.all_parked_keys(RIGHT)) == []
    assert len(journal.parked({RIGHT: 1})) == 1
    assert journal.parked({RIGHT: 2}) == []
    journal.settle(RIGHT, 1)
    assert list(journal.all_parked_keys(RIGHT)) == [record()]
    assert changes_of(journal.queue(RIGHT, "customers", KEY)) == [change(1)]


def test_settle_purges_what_is_removed(journal: Journal, tmp_path: Path) -> None:
    """A settled removal leaves no row behind."""
    journal.park(record(), [change(1)], 1)
    journal.unpark(RIGHT, "customers", KEY, 2)
    assert sizes(tmp_path)["parked"] == sizes(tmp_path)["queue"] == 1
    journal.settle(RIGHT, 2)
    assert sizes(tmp_path)["parked"] == sizes(tmp_path)["queue"] == 0


def test_a_record_can_be_parked_anew_before_its_removal_is_settled(journal: Journal) -> None:
    """Its new reason is another entry; undoing both commits brings the old one back."""
    journal.park(record(), [change(1)], 1)
    journal.unpark(RIGHT, "customers", KEY, 2)
    journal.park(record(code="required"), [change(2)], 2)
    old, new = journal.parked({RIGHT: 1})[0], journal.parked({RIGHT: 2})[0]
    assert (old.code, new.code) == ("value", "required")
    assert old.id != new.id
    journal.settle(RIGHT, 1)
    assert journal.parked({}) == [old]


def test_a_failed_retry_replaces_the_queue(journal: Journal, clock: Clock) -> None:
    """The entry keeps its id and time, takes the new reason, and counts the attempt with the commit."""
    journal.park(record(), [change(1), change(2)], 1)
    before = journal.parked({RIGHT: 1})
    clock.now = 2000.0
    journal.requeue(record(code="required", reason="null", column="city"), [change(2)], 2)
    journal.requeue(record(code="required", reason="null", column="city"), [change(2)], 3)
    assert journal.parked({RIGHT: 1}) == before
    changed = replace(before[0], code="required", reason="null", column="city", changes=1)
    assert journal.parked({RIGHT: 2}) == [replace(changed, attempts=2)]
    assert journal.parked({RIGHT: 3}) == [replace(changed, attempts=3)]
    journal.settle(RIGHT, 1)
    assert journal.parked({}) == before
    assert changes_of(journal.queue(RIGHT, "customers", KEY)) == [change(1), change(2)]


def test_requeue_parks_a_record_that_is_not_parked(journal: Journal) -> None:
    """Nothing is lost when the entry is not there."""
    journal.requeue(record(), [change(1)], 1)
    assert [entry.attempts for entry in journal.parked({RIGHT: 1})] == [1]
    assert changes_of(journal.queue(RIGHT, "customers", KEY)) == [change(1)]


operations = st.lists(
    st.tuples(st.sampled_from(["park", "unpark", "requeue"]), st.sampled_from(['["1"]', '["2"]'])), max_size=4
)
commits = st.lists(st.tuples(operations, st.booleans(), st.booleans()), max_size=6)


@given(commits)
@settings(deadline=None)
def test_only_what_was_committed_is_there(history: list[tuple[list[tuple[str, str]], bool, bool]]) -> None:
    """Whatever is parked, retried and removed in commits that happen or not, the journal holds what happened."""
    places = count(1)
    with Journal.open("sqlite://") as journal:
        committed = 0
        done: dict[str, tuple[int, list[int]]] = {}
        for work, happens, settles in history:
            wanted = dict(done)
            with journal.batch() as batch:
                for what, key in work:
                    place = next(places)
                    attempts, queued = wanted.get(key, (1, []))
                    if what == "park":
                        batch.park(record(key), [change(place)], committed + 1)
                        wanted[key] = (attempts, [*queued, place])
                    elif what == "unpark":
                        batch.unpark(RIGHT, "customers", key, committed + 1)
                        wanted.pop(key, None)
                    else:
                        batch.requeue(record(key), [change(place)], committed + 1)
                        wanted[key] = (attempts + 1 if queued else 1, [place])
            assert shown(journal, {RIGHT: committed}) == done
            assert shown(journal, {}) == wanted
            if happens:
                committed, done = committed + 1, wanted
            if settles or not happens:
                journal.settle(RIGHT, committed)
            assert shown(journal, {RIGHT: committed}) == shown(journal, {}) == done


def shown(journal: Journal, numbers: dict[Side, int]) -> dict[str, tuple[int, list[int]]]:
    """Per parked key its attempts and the places of its queue."""
    found = {}
    for entry in journal.parked(numbers):
        queued = [
            change.position.place[0] for change in changes_of(journal.queue(RIGHT, "customers", entry.key, numbers))
        ]
        assert entry.changes == len(queued)
        found[entry.key] = (entry.attempts, queued)
    return found


# Conflicts and decisions


def test_a_conflict_is_recorded_once(journal: Journal) -> None:
    """The same pair of changes of the same unit is one conflict; another unit, loser or winner is another."""
    for number in (1, 2):
        journal.conflict(contested(), number)
    journal.conflict(contested(unit="city"), 2)
    journal.conflict(contested(loser=at(2), beats=at(3)), 2)
    found = journal.conflicts({RIGHT: 2})
    assert [(entry.unit, entry.loser) for entry in found] == [("name", at(1)), ("city", at(1)), ("name", at(2))]
    assert replace(found[0], id=0) == contested()


def test_a_conflict_keeps_its_cells(journal: Journal) -> None:
    """Whole rows, no row, null, unknown cells and missing positions come back as they were."""
    entry = contested(left=("a", None, ABSENT), right=None, base=(None,), loser=None, beats=None, winner="right")
    journal.conflict(entry, 1)
    journal.conflict(entry, 1)
    assert [replace(found, id=0) for found in journal.conflicts({})] == [entry]


def test_a_conflict_that_both_flows_find_outlives_one_of_their_commits(journal: Journal) -> None:
    """It is listed once, under one id, for as long as either commit stands."""
    journal.conflict(contested(side=LEFT), 5)
    journal.conflict(contested(side=RIGHT), 3)
    both = journal.conflicts({LEFT: 5, RIGHT: 3})
    assert [entry.side for entry in both] == [LEFT]
    journal.settle(LEFT, 4)
    (left_over,) = journal.conflicts({LEFT: 4, RIGHT: 3})
    assert (left_over.id, left_over.side) == (both[0].id, RIGHT)
    journal.settle(RIGHT, 2)
    assert journal.conflicts({}) == []


def test_an_open_conflict_is_closed_with_the_commit_of_its_decision(journal: Journal) -> None:
    """It stays open until that commit is done, and opens again when it never was."""
    journal.conflict(contested(winner="", open=True), 1)
    journal.conflict(contested(unit="city"), 1)
    (entry,) = journal.conflicts({RIGHT: 1}, open_only=True)
    journal.close_conflict(entry.id, "right", LEFT, 9)
    assert journal.conflicts({LEFT: 8, RIGHT: 1}, open_only=True) == [entry]
    assert journal.conflicts({LEFT: 9, RIGHT: 1}, open_only=True) == []
    assert journal.conflicts({LEFT: 9, RIGHT: 1})[0] == replace(entry, open=False, winner="right")
    journal.settle(LEFT, 8)
    assert journal.conflicts({}, open_only=True) == [entry]


def test_conflicts_are_found_by_map_and_key(journal: Journal) -> None:
    """A listing can be narrowed to a map and a record."""
    journal.conflict(contested(), 1)
    journal.conflict(contested(map="vendors", key='["11"]'), 1)
    assert [entry.map for entry in journal.conflicts({}, map="vendors")] == ["vendors"]
    assert [entry.key for entry in journal.conflicts({}, key=KEY)] == [KEY]


def test_decisions_stay_in_their_order(journal: Journal, clock: Clock) -> None:
    """Every decision about a record is kept, per unit, the first one first."""
    journal.decide("customers", KEY, "name", RIGHT, {LEFT: at(4), RIGHT: at(9)}, "ada")
    clock.now = 1001.0
    journal.decide("customers", KEY, "name", LEFT, {LEFT: at(5), RIGHT: at(9)}, "bob")
    journal.decide("customers", KEY, "city", LEFT, {LEFT: at(4)}, "ada")
    journal.decide("customers", '["11"]', "name", LEFT, {}, "ada")
    found = journal.decisions("customers", KEY)
    assert {unit: [decision.winner for decision in made] for unit, made in found.items()} == {
        "name": [RIGHT, LEFT],
        "city": [LEFT],
    }
    first = found["name"][0]
    assert (first.covers, first.who, first.at) == ({LEFT: at(4), RIGHT: at(9)}, "ada", 1000.0)
    assert [decision.key for decision in journal.all_decisions("customers")] == [KEY, KEY, KEY, '["11"]']
    assert journal.decisions("vendors", KEY) == {}


def test_the_tally_counts_per_map(journal: Journal) -> None:
    """Parked records, their changes and open conflicts, under the same numbers as listings."""
    with journal.batch() as batch:
        batch.park(record(), [change(1), change(2)], 1)
        batch.park(record(key='["11"]'), [change(3)], 2)
        batch.conflict(contested(map="vendors", winner="", open=True), 1)
        batch.conflict(contested(map="vendors", unit="city"), 1)
    assert journal.tally({RIGHT: 1}) == {"customers": Tally(1, 2, 0), "vendors": Tally(0, 0, 1)}
    assert journal.tally({RIGHT: 2})["customers"] == Tally(2, 3, 0)
    assert journal.tally({RIGHT: 0}) == {}
    (entry,) = journal.conflicts({RIGHT: 1}, open_only=True)
    journal.conflict(contested(map="vendors", side=LEFT, winner="", open=True), 1)  # the other flow's row of it
    assert journal.tally({RIGHT: 1})["vendors"] == Tally(0, 0, 1)
    journal.close_conflict(entry.id, "right", LEFT, 9)
    assert "vendors" in journal.tally({RIGHT: 1, LEFT: 8})
    assert "vendors" not in journal.tally({RIGHT: 1, LEFT: 9})


# Windows


def all_kept(journal: Journal, side: Side) -> list[tuple[str, str, KeptChange]]:
    """Everything that is kept for a side."""
    maps = sorted(journal.kept_layouts(side))
    return journal.kept_windows(side, [(name, key) for name in maps for key in journal.kept_keys(side, name)])


def test_windows_are_kept_once_and_in_feed_order(journal: Journal) -> None:
    """Keeping the same change again adds nothing, whatever the order in which changes are kept."""
    journal.keep_window(LEFT, [("customers", KEY, change(5)), ("customers", '["11"]', change(4))])
    journal.keep_window(LEFT, [("customers", KEY, change(n)) for n in (3, 5, 6)])
    journal.keep_window(RIGHT, [("customers", KEY, change(1))])
    kept = [(key, entry.change.position.place[0]) for _, key, entry in all_kept(journal, LEFT)]
    assert kept == [(KEY, 3), ('["11"]', 4), (KEY, 5), (KEY, 6)]
    assert all_kept(journal, RIGHT) == [("customers", KEY, KeptChange(change(1), None))]


def test_windows_of_different_feeds_are_kept_apart(journal: Journal) -> None:
    """The same place in another incarnation of the feed is another change."""
    journal.keep_window(LEFT, [("customers", KEY, change(5)), ("customers", KEY, change(5, feed="new"))])
    assert [entry.change.position.feed for _, _, entry in all_kept(journal, LEFT)] == ["feed", "new"]


def test_windows_are_dropped_per_record_or_map(journal: Journal) -> None:
    """Only what is named goes."""
    for map_name in ("customers", "vendors"):
        journal.keep_window(LEFT, [(map_name, KEY, change(1)), (map_name, '["11"]', change(2))])
    journal.drop_windows(LEFT, "customers", KEY)
    journal.drop_windows(RIGHT, "vendors")
    kept = {(map_name, key) for map_name, key, _ in all_kept(journal, LEFT)}
    assert kept == {("vendors", KEY), ("customers", '["11"]'), ("vendors", '["11"]')}
    journal.drop_windows(LEFT, "vendors")
    assert [m for m, _, _ in all_kept(journal, LEFT)] == ["customers"]


# Requests


def test_a_request_is_answered_by_another_process_or_thread(tmp_path: Path) -> None:
    """Who asked waits until the engine has answered, once; then the request is not pending any more."""
    asked = threading.Event()

    def serve() -> None:
        asked.wait()
        with Journal.open(tmp_path) as engine:
            (pending,) = engine.pending_requests()
            engine.answer(pending.id, {"did": pending.command, "with": pending.arguments})
            engine.answer(pending.id, {"did": "again"})

    server = threading.Thread(target=serve)
    server.start()
    with Journal.open(tmp_path) as journal:
        request = journal.request("retry", {"id": 7})
        asked.set()
        assert journal.await_answer(request, 30.0) == {"did": "retry", "with": {"id": 7}}
        server.join()
        assert journal.await_answer(request, 0.0) == {"did": "retry", "with": {"id": 7}}
        assert journal.pending_requests() == []


def test_requests_without_answer_stay_for_a_day(journal: Journal, clock: Clock, tmp_path: Path) -> None:
    """Waiting in vain ends with nothing; after a day nobody acts on the request any more, and it is purged."""
    old = journal.request("stop", {})
    assert journal.await_answer(old, 0.0) is None
    assert [request.command for request in journal.pending_requests()] == ["stop"]
    clock.now += 86_401
    assert journal.pending_requests() == []
    assert journal.request("start", {}) > old
    assert sizes(tmp_path)["request"] == 1


# Named values


def test_named_values_are_put_and_removed(journal: Journal) -> None:
    """A value is what was put last, None when there is none."""
    assert journal.get("identity.left") is None
    journal.put("identity.left", "abc")
    journal.put("identity.left", "def")
    journal.put("identity.right", "")
    assert (journal.get("identity.left"), journal.get("identity.right")) == ("def", "")
    journal.put("identity.left", None)
    assert journal.get("identity.left") is None


# Transactions


def break_off(journal: Journal) -> None:
    """A batch that is not finished."""
    with journal.batch() as batch:
        batch.put("a", "2")
        raise InterruptedError


def test_a_batch_is_one_transaction(journal: Journal) -> None:
    """Another connection sees all of a batch or nothing; after an exception there is nothing."""

    with journal.batch() as batch:
        batch.put("a", "1")
        batch.log("one")
        assert journal.get("a") is None
    with pytest.raises(InterruptedError):
        break_off(journal)
    assert (journal.get("a"), len(journal.events())) == ("1", 1)


def test_writing_nothing_takes_no_lock(tmp_path: Path) -> None:
    """An empty batch and an empty list of changes pass while another process holds the journal."""
    with Journal.open(tmp_path, wait=0.0) as journal, sqlite3.connect(tmp_path / ".dualwrite" / "journal.db") as other:
        other.execute("BEGIN IMMEDIATE")
        with journal.batch():
            pass
        journal.keep_window(LEFT, [])


def test_writing_the_same_again_changes_nothing(journal: Journal, tmp_path: Path) -> None:
    """A value, a state or a conflict that is there already touches no page of the file."""
    with sqlite3.connect(tmp_path / ".dualwrite" / "journal.db") as other:
        for expected in (True, False):
            before = other.execute("PRAGMA data_version").fetchone()
            with journal.batch() as batch:
                batch.put("a", "1")
                batch.set_state("customers", state="running")
                batch.conflict(contested(), 1)
                batch.keep_window(LEFT, [("customers", KEY, change(1))])
                batch.settle(RIGHT, 1)
            assert (other.execute("PRAGMA data_version").fetchone() != before) is expected


def test_threads_share_a_journal(journal: Journal) -> None:
    """Everything that several threads write is there, each one's changes in its order."""

    def work(side: Side, key: str) -> None:
        for place in range(20):
            journal.park(record(key, side), [change(place)], 1)

    threads = [threading.Thread(target=work, args=(side, key)) for side in Side for key in ('["1"]', '["2"]')]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(journal.parked({})) == 4
    for entry in journal.parked({}):
        assert changes_of(journal.queue(entry.side, "customers", entry.key)) == [change(place) for place in range(20)]


def test_writers_that_read_first_do_not_trip_over_each_other(tmp_path: Path) -> None:
    """Setting states and values, which looks at the old ones, never fails because another process did so too."""
    failures: list[Exception] = []

    def work(name: str) -> None:
        try:
            with Journal.open(tmp_path) as mine:
                for n in range(50):
                    mine.set_state("customers", reason=f"{name} {n}")
                    mine.put("last", f"{name} {n}")
        except DualwriteError as error:
            failures.append(error)

    Journal.open(tmp_path).close()
    threads = [threading.Thread(target=work, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_threads_share_a_journal_in_memory() -> None:
    """A journal in memory is one connection, and yet its transactions do not mix."""
    with Journal.open("sqlite://") as journal:
        threads = [threading.Thread(target=lambda: [journal.log("x") for _ in range(50)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(journal.events(limit=1000)) == 200


OPENER = """
import sys
from dualwrite.journal import Journal
sys.stdin.readline()
with Journal.open(sys.argv[1]) as journal:
    for n in range(20):
        journal.log("line", who=sys.argv[2], detail={"n": n})
"""


def test_processes_create_and_share_a_journal(tmp_path: Path) -> None:
    """Processes that open a new journal at the same moment all write to it."""
    children = [
        subprocess.Popen([sys.executable, "-c", OPENER, str(tmp_path), str(n)], stdin=subprocess.PIPE) for n in range(3)
    ]
    for child in children:
        assert child.stdin is not None
        child.stdin.write(b"\n")
        child.stdin.flush()
    for child in children:
        child.communicate()
        assert child.returncode == 0
    with Journal.open(tmp_path) as journal:
        events = journal.events(limit=1000)
    for n in range(3):
        assert [event.detail["n"] for event in reversed(events) if event.who == str(n)] == list(range(20))


# Opening


def test_a_journal_is_found_by_folder_file_or_url(tmp_path: Path) -> None:
    """A project folder has its journal in its usual place, which is created."""
    usual = tmp_path / ".dualwrite" / "journal.db"
    with Journal.open(tmp_path) as journal:
        journal.put("a", "1")
        assert journal.name == str(usual)
    for where in (str(tmp_path), usual, str(usual), f"sqlite:///{usual}"):
        with Journal.open(where) as journal:
            assert journal.get("a") == "1"
    with Journal.open(tmp_path / "new" / "other.db") as journal:
        assert journal.get("a") is None


def test_a_journal_file_is_safe_and_shared(tmp_path: Path) -> None:
    """Commits reach the disk, readers do not wait for writers."""
    Journal.open(tmp_path).close()
    database = Database(locate(tmp_path), 3.0)
    with database.reading() as connection:
        pragmas = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "synchronous")
        }
        wait = connection.exec_driver_sql("PRAGMA busy_timeout").scalar()
    database.close()
    assert (pragmas, wait) == ({"journal_mode": "wal", "synchronous": 2}, 3000)


@pytest.mark.parametrize("url", ["nonsense://user:secret@host/db", "sqlite+nonsense:///x.db", "://"])
def test_a_url_that_leads_nowhere_is_refused(url: str) -> None:
    """The message says what to write instead, and no password."""
    with pytest.raises(Usage) as refused:
        Journal.open(url)
    assert "secret" not in str(refused.value)
    assert refused.value.remedy


def add_colour(connection: Connection) -> None:
    """A step that lifts a journal."""
    connection.execute(text("ALTER TABLE setting ADD COLUMN colour TEXT NOT NULL DEFAULT 'red'"))


def fail(connection: Connection) -> None:
    """A step that begins and breaks off."""
    connection.execute(text("ALTER TABLE setting ADD COLUMN taste TEXT"))
    raise RuntimeError("broken off")


def setting_columns(where: Path) -> list[str]:
    """The columns of the named values as they are in the file."""
    database = Database(locate(where), 1.0)
    try:
        with database.reading() as connection:
            return [column["name"] for column in inspect(connection).get_columns("setting")]
    finally:
        database.close()


def test_an_older_journal_is_lifted_step_by_step(tmp_path: Path) -> None:
    """What it held stays; a step that breaks off leaves the journal as it was; each step is taken once."""
    with Journal.open(tmp_path) as journal:
        journal.put("a", "1")
    with pytest.raises(RuntimeError):
        Journal.open(tmp_path, steps=(*STEPS, add_colour, fail))
    assert setting_columns(tmp_path) == ["name", "value"]
    for _ in range(2):
        with Journal.open(tmp_path, steps=(*STEPS, add_colour)) as journal:
            assert journal.get("a") == "1"
        assert setting_columns(tmp_path) == ["name", "value", "colour"]


FIRST = """
CREATE TABLE journal (number INTEGER NOT NULL, PRIMARY KEY (number));
CREATE TABLE parked (row INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, origin BIGINT, side TEXT NOT NULL,
  map TEXT NOT NULL, key TEXT NOT NULL, shown_key TEXT NOT NULL, code TEXT NOT NULL, reason TEXT NOT NULL,
  "column" TEXT NOT NULL, waits_table TEXT NOT NULL, waits_key TEXT NOT NULL, attempts BIGINT NOT NULL,
  since DOUBLE NOT NULL, number BIGINT NOT NULL, gone BIGINT);
CREATE UNIQUE INDEX parked_live ON parked (side, map, key) WHERE gone IS NULL;
CREATE INDEX parked_number ON parked (side, number);
CREATE INDEX parked_gone ON parked (side, gone);
CREATE TABLE queue (row INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, side TEXT NOT NULL, map TEXT NOT NULL,
  key TEXT NOT NULL, change TEXT NOT NULL, number BIGINT NOT NULL, gone BIGINT);
CREATE INDEX queue_record ON queue (side, map, key);
CREATE INDEX queue_number ON queue (side, number);
CREATE INDEX queue_gone ON queue (side, gone);
CREATE TABLE kept (row INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, side TEXT NOT NULL, map TEXT NOT NULL,
  key TEXT NOT NULL, position TEXT NOT NULL, change TEXT NOT NULL, UNIQUE (side, map, key, position));
CREATE TABLE conflict (row INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, origin BIGINT, map TEXT NOT NULL,
  side TEXT NOT NULL, key TEXT NOT NULL, shown_key TEXT NOT NULL, unit TEXT NOT NULL, left TEXT, right TEXT, base TEXT,
  winner TEXT NOT NULL, policy TEXT NOT NULL, at DOUBLE NOT NULL, loser TEXT NOT NULL, beats TEXT NOT NULL,
  open BOOLEAN NOT NULL, number BIGINT NOT NULL, UNIQUE (map, key, unit, loser, beats, side));
CREATE INDEX conflict_number ON conflict (side, number);
CREATE TABLE map_state (map TEXT NOT NULL, desired TEXT NOT NULL, state TEXT NOT NULL, reason TEXT NOT NULL,
  initial TEXT NOT NULL, boundaries TEXT NOT NULL, master TEXT, since DOUBLE NOT NULL, PRIMARY KEY (map));
INSERT INTO journal VALUES (1);
INSERT INTO parked VALUES (1, NULL, 'right', 'm', '["1"]', '1', 'value', 'too long', 'x', '', '', 1, 5.0, 1, NULL);
INSERT INTO queue VALUES (1, 'right', 'm', '["1"]', '{CHANGE}', 1, NULL);
INSERT INTO kept VALUES (1, 'left', 'm', '["1"]', 'feed@1', '{CHANGE}');
INSERT INTO map_state VALUES ('m', 'running', 'running', '', 'done', '{"left": null, "right": null}', 'left', 5.0);
"""


def columns_of(file: Path) -> dict[str, list[tuple]]:
    """Every table that a step has changed, with its columns and indexes."""
    with closing(sqlite3.connect(file)) as raw:
        return {
            table: raw.execute(f"PRAGMA table_info({table})").fetchall()
            + sorted(row[1:] for row in raw.execute(f"PRAGMA index_list({table})"))
            for table in (
                "map_state",
                "map_version",
                "parked",
                "queue",
                "kept",
                "layout",
                "sync",
                "conflict",
                "carrier",
                "audit",
                "backlog",
            )
        }


def test_a_journal_of_the_first_number_is_lifted(tmp_path: Path) -> None:
    """Its maps have no version yet, nobody knows of what its rows are, and it is as if it had been made anew."""
    old, new = tmp_path / "old.db", tmp_path / "new.db"
    with closing(sqlite3.connect(old)) as raw:
        raw.executescript(FIRST.replace("{CHANGE}", change_text(change(1))))
    with Journal.open(old) as journal, Journal.open(new):
        assert journal.states()["m"] == MapState("m", "running", "running", "", "left", "done", since=5.0)
        assert journal.versions() == []
        unknown = KeptChange(change(1), None)
        assert [entry.reason for entry in journal.parked({})] == ["too long"]
        assert journal.queue(RIGHT, "m", '["1"]') == [unknown]
        assert all_kept(journal, LEFT) == [("m", '["1"]', unknown)]
    assert columns_of(old) == columns_of(new)


def test_what_an_earlier_program_has_kept_is_said_later(journal: Journal) -> None:
    """By the side whose rows they are; what is said already stays."""
    lefts, rights, others = (Layout(table, ("a", "b"), ("a",)) for table in ("l", "r", "o"))
    journal.park(record(), [change(1)], 1)
    journal.park(record(layout=others), [change(2)], 1)
    journal.park(record(map="vendors"), [change(3)], 1)
    journal.keep_window(RIGHT, [("customers", KEY, change(4))])
    for _ in range(2):
        with journal.batch() as batch:
            batch.lay_out("customers", {LEFT: lefts, RIGHT: rights})
    assert [kept.layout for kept in journal.queue(RIGHT, "customers", KEY)] == [lefts, others]
    assert [kept.layout for kept in journal.queue(RIGHT, "vendors", KEY)] == [None]
    assert [kept.layout for _, _, kept in all_kept(journal, RIGHT)] == [rights]
    assert [entry.layout for entry in journal.all_parked_keys(RIGHT)] == [lefts, None]


def test_versions_of_maps_are_kept(journal: Journal) -> None:
    """Each once, in order; one that is known gets its new text, and whoever settles sees what is known."""
    seen = []

    def settle(version: str, words: str) -> Callable[[Sequence[MapVersion]], MapVersion]:
        def decide(known: Sequence[MapVersion]) -> MapVersion:
            seen.append([each.version for each in known])
            return MapVersion("m", version, "P", words, 0.0, "ann")

        return decide

    for version, words in (("1.0.0.0", "a"), ("1.0.0.1", "b"), ("1.0.0.0", "c")):
        journal.keep_version("m", settle(version, words))
    journal.keep_version("other", lambda known: MapVersion("other", "1.0.0.0", "P", str(len(known)), 0.0))
    assert seen == [[], ["1.0.0.0"], ["1.0.0.0", "1.0.0.1"]]
    kept = journal.versions("m")
    assert [(each.version, each.publisher, each.text, each.who) for each in kept] == [
        ("1.0.0.0", "P", "c", "ann"),
        ("1.0.0.1", "P", "b", "ann"),
    ]
    assert all(each.at > 0 for each in kept)
    assert len(journal.versions()) == 3


def test_a_newer_journal_is_refused(tmp_path: Path) -> None:
    """An older program leaves it alone and says to update."""
    with Journal.open(tmp_path, steps=(*STEPS, add_colour)):
        pass
    with pytest.raises(Denied, match=r"newer dualwrite.*update dualwrite"):
        Journal.open(tmp_path)


# The lease


def test_one_engine_has_the_lease(tmp_path: Path) -> None:
    """A second one is refused and told who has it; released, it is free."""
    first, second = Lease(tmp_path), Lease(tmp_path)
    assert second.owner() is None
    assert first.acquire()
    assert first.acquire()
    assert not second.acquire()
    told = second.owner()
    assert told is not None
    assert told.startswith("process ")
    first.release()
    first.release()
    assert second.owner() is None
    assert second.acquire()
    second.release()


def test_the_lease_tells_its_last_owner(tmp_path: Path) -> None:
    """Nothing of an earlier owner, or of whatever else was in the file, is left in what is told."""
    (tmp_path / ".dualwrite").mkdir()
    (tmp_path / ".dualwrite" / "engine.lock").write_text("x" * 1000)
    lease = Lease(tmp_path)
    assert lease.acquire()
    assert f"process {os.getpid()} on " in str(lease.owner())
    lease.release()


HOLDER = """
import sys
from dualwrite.journal import Lease
lease = Lease(sys.argv[1])
print(lease.acquire(), flush=True)
sys.stdin.read()
"""


def test_a_killed_engine_has_no_lease(tmp_path: Path) -> None:
    """While it lives it is named by its process; killed, it leaves the lease to the next."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        lease = Lease(tmp_path)
        assert not lease.acquire()
        assert f"process {holder.pid} on " in str(lease.owner())
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    assert lease.owner() is None
    assert lease.acquire()
    lease.release()


def test_looking_at_the_lease_never_takes_it(tmp_path: Path) -> None:
    """However often others ask who owns it, who takes the free lease gets it."""
    lease, stop = Lease(tmp_path), threading.Event()

    def look() -> None:
        mine = Lease(tmp_path)
        while not stop.is_set():
            mine.owner()

    watchers = [threading.Thread(target=look) for _ in range(2)]
    for watcher in watchers:
        watcher.start()
    try:
        for _ in range(100):
            assert lease.acquire()
            lease.release()
    finally:
        stop.set()
        for watcher in watchers:
            watcher.join()


def test_a_lease_in_an_impossible_place_is_denied(tmp_path: Path) -> None:
    """Where no folder can be, the error says what to do."""
    (tmp_path / ".dualwrite").write_text("a file")
    with pytest.raises(Denied, match=r"engine\.lock"):
        Lease(tmp_path).acquire()


def test_what_is_appended_is_there_for_everybody(tmp_path):
    """A block of the audit is seen by other journals on the same file at once, beside what is written otherwise."""
    with Journal.open(tmp_path / "journal.db") as journal, Journal.open(tmp_path / "journal.db") as other:
        journal.audits.append(Block(RIGHT, 0, 5.0, 1, b"", b"zero"))
        journal.audits.append(Block(LEFT, 1, 5.0, 1, b"", b"one"))
        journal.log("something")
        journal.audits.append(Block(LEFT, 1, 5.0, 1, b"", b"once more"))
        journal.audits.append(Block(RIGHT, 1, 5.0, 1, b"", b"two"))
        assert other.audits.size() == (3, len(b"once more") + len(b"two"))  # behind the oldest
        other.settle(RIGHT, 0)
        assert journal.audits.size()[0] == 2
