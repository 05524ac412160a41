"""Pausing a map and resuming it, on two in-memory systems and one thread."""

from __future__ import annotations

import pytest

from dualwrite.engine import wishes
from dualwrite.engine.lifecycle import PAUSED, RESUMING, RUNNING, STOPPED
from dualwrite.mapping.order import related
from dualwrite.model import Side

from .test_engine_stories import GROUP_MAP, ITEM_MAP, WITH_GROUP, L, R, Story


class Paused(Story):
    """A link of which the items can be paused."""

    def wish(self, desired: str, skip: str = "") -> None:
        """Want something of the items, and let the engine see to it."""
        self.journal.put("skip.Items", skip or None)
        self.journal.set_state("Items", desired=desired)  # type: ignore[arg-type]
        self.engine.reconcile()

    def pause(self) -> None:
        """Pause the items."""
        self.wish("paused")

    def catch_up(self, skip: str = "") -> None:
        """Resume the items, and carry everything."""
        self.wish("running", skip)
        self.drain()
        assert self.state() == RUNNING

    def state(self) -> str:
        """The state of the items."""
        return self.journal.states()["Items"].state

    def queued(self) -> dict[Side, int]:
        """What waits."""
        found = self.journal.backlogs.queued().get("Items", {})
        return {side: queued.changes for side, queued in found.items()}


def linked() -> Paused:
    """Items and groups on both sides, linked and running; one record of each."""
    told = Paused(ITEM_MAP, GROUP_MAP)
    told.insert(L, code="1", name="one", note="a", amount="10")
    told.insert(L, "groups", code="g", name="first")
    told.start()
    return told


@pytest.fixture
def story() -> Paused:
    """See ``linked``."""
    return linked()


def test_changes_of_a_paused_map_queue_while_others_flow(story: Paused) -> None:
    """Nothing of a paused map is carried, deletes neither; what happens to other maps is."""
    story.pause()
    story.insert(L, code="2", name="two")
    story.delete(R, "1")
    story.update(L, "g", "groups", name="second")
    story.drain()
    assert story.state() == PAUSED
    assert story.rows(L, "code") == {("1",), ("2",)}
    assert story.rows(R, "code") == set()
    assert story.rows(R, "name", where="families") == {("second",)}
    assert story.queued() == {L: 1, R: 1}


def test_a_resumed_map_carries_what_has_queued(story: Paused) -> None:
    """Both sides' changes arrive, those included that were made after the map was resumed."""
    story.pause()
    story.insert(L, code="2", name="two")
    story.update(L, "2", name="zwei")
    story.insert(R, code="3", name="three")
    story.drain()
    story.wish("running")
    assert story.state() == RESUMING
    story.insert(L, code="4", name="four")
    story.catch_up()
    assert story.both("code", "name") == {("1", "one"), ("2", "zwei"), ("3", "three"), ("4", "four")}
    assert story.queued() == {}
    story.at_rest()
    story.update(R, "4", name="vier")
    story.drain()
    assert ("4", "vier") in story.both("code", "name")


def test_edits_of_both_sides_during_the_pause_meet_column_by_column(story: Paused) -> None:
    """They are concurrent, whichever direction catches up first; the loser is in the log."""
    for first in Side:
        story.pause()
        story.update(L, "1", name=f"left {first}", amount="11")
        story.update(R, "1", name=f"right {first}", note=f"n {first}"[:10])
        story.drain()
        story.wish("running")
        for side in (first, first.other):
            story.carry(side)
        story.catch_up()
        assert {row[:2] for row in story.both("code", "name", "note")} == {("1", f"right {first}")}
        assert len(story.conflicts()) == [L, R].index(first) + 1
    story.at_rest()


def test_an_edit_after_the_catch_up_has_seen_what_was_caught_up(story: Paused) -> None:
    """It is no conflict to change again what a catch-up has brought."""
    story.pause()
    story.update(L, "1", name="left")
    story.drain()
    story.wish("running")
    story.carry(L)
    story.update(R, "1", name="after")
    story.catch_up()
    assert story.both("name") == {("after",)}
    assert not story.conflicts()
    story.at_rest()


def test_an_edit_while_a_map_is_paused_has_not_seen_what_is_queued(story: Paused) -> None:
    """Other maps' commits say nothing about it."""
    story.pause()
    story.update(L, "1", name="left")
    story.insert(L, "groups", code="h")
    story.drain()
    story.update(R, "1", name="right")
    story.insert(R, "families", code="i")
    story.drain()
    story.catch_up()
    assert story.both("name") == {("right",)}
    assert [(entry.unit, entry.winner) for entry in story.conflicts()] == [("name", "right")]
    story.at_rest()


def test_a_restart_leaves_a_paused_map_paused(story: Paused) -> None:
    """The queue is in the journal: nothing of it is lost or doubled."""
    story.pause()
    story.insert(L, code="2", name="two")
    story.drain()
    story.engine.close()
    story.update(L, "2", name="zwei")
    story.update(R, "1", name="right")
    story.resume()
    assert story.state() == PAUSED
    assert story.queued() == {L: 2, R: 1}
    story.engine.acknowledge()
    story.engine.close()
    story.resume()
    assert story.queued() == {L: 2, R: 1}
    story.catch_up()
    assert story.both("code", "name") == {("1", "right"), ("2", "zwei")}
    assert not story.conflicts()
    story.at_rest()


def test_what_is_queued_lets_go_of_the_logs(story: Paused) -> None:
    """The systems need not keep what the journal has."""
    story.drain()
    story.pause()
    for number in range(200):
        story.update(L, "1", name=str(number))
        story.update(R, "1", note=str(number))
    story.drain()
    story.engine.acknowledge()
    assert story.queued() == {L: 200, R: 200}
    for database in story.databases.values():
        assert len(database.links["link"].log) < 20
    story.catch_up()
    assert story.both("name", "note") == {("199", "199")}


def test_a_queue_can_be_set_aside(story: Paused) -> None:
    """Its changes are parked, in order; the map is live at once, and a retry brings them."""
    story.pause()
    story.insert(L, code="2", name="two")
    story.update(L, "2", name="zwei")
    story.update(R, "1", name="right")
    story.drain()
    story.catch_up("preserve")
    assert {(entry.side, entry.code, entry.changes) for entry in story.parked()} == {
        (R, "set_aside", 2),
        (L, "set_aside", 1),
    }
    story.insert(L, code="3", name="three")
    story.drain()
    assert story.rows(R, "code") == {("1",), ("3",)}
    for side in Side:
        story.engine.retry({side: [(entry.map, (entry.shown_key,)) for entry in story.parked() if entry.side is side]})
    story.drain()
    assert story.both("code", "name") == {("1", "right"), ("2", "zwei"), ("3", "three")}
    story.at_rest()


def two_parked() -> Paused:
    """An edit of record 1 is set aside; record 2 lacks a parent."""
    story = Paused(WITH_GROUP, GROUP_MAP)
    story.insert(L, code="1", name="one")
    story.start()
    story.insert(L, code="2", name="two", grp="g")
    story.drain()
    story.pause()
    story.update(L, "1", name="uno")
    story.drain()
    story.catch_up("preserve")
    return story


@pytest.mark.parametrize("key", "12")
def test_what_was_set_aside_gets_the_key_of_another_parked_record(key: str) -> None:
    """Whichever of the two is taken again, the other one is taken with it, and all arrives in its order."""
    story = two_parked()
    assert {entry.code for entry in story.parked()} == {"set_aside", "missing_parent"}
    story.update(L, "2", code="3")
    story.update(L, "1", code="2")
    story.update(L, "2", note="later")
    story.drain()
    story.engine.retry({R: [("Items", (key,))]})
    assert {(entry.shown_key, entry.code) for entry in story.parked()} == {
        ("1", "behind"),
        ("2", "missing_parent"),
        ("3", "behind"),
    }
    story.insert(R, "families", code="g")
    story.drain()
    assert story.both("code", "name", "note") == {("2", "uno", "later"), ("3", "two", None)}
    story.at_rest()


@pytest.mark.parametrize("key", "12")
def test_what_was_set_aside_waits_for_a_person_whatever_gets_its_key(key: str) -> None:
    """The other record could go by itself, but not without it: so both wait until somebody asks for one of them."""
    story = two_parked()
    story.delete(L, "2")
    story.update(L, "1", code="2")
    story.drain()
    story.insert(R, "families", code="g")
    story.drain()
    assert {entry.code for entry in story.parked()} == {"set_aside", "missing_parent"}
    assert story.rows(R, "code", "name") == {("1", "one")}
    story.engine.retry({R: [("Items", (key,))]})
    assert story.both("code", "name") == {("2", "uno")}
    story.at_rest()


def test_a_queue_can_be_discarded(story: Paused) -> None:
    """Its changes are dropped, which the log tells; later ones flow."""
    story.pause()
    story.insert(L, code="2", name="two")
    story.drain()
    story.catch_up("discard")
    assert story.queued() == {}
    assert story.rows(R, "code") == {("1",)}
    assert any(event.detail == {"discarded": {"left": 1}} for event in story.journal.events("Items"))
    story.insert(L, code="3", name="three")
    story.drain()
    assert story.rows(R, "code") == {("1",), ("3",)}


def test_a_forced_stop_leaves_nothing_behind(story: Paused) -> None:
    """The next engine that opens the systems forgets the map, and its start compares both sides."""
    story.pause()
    story.insert(L, code="2", name="two")
    story.drain()
    story.engine.close()
    wishes.force_stop(story.journal, ["Items"], who="ann")
    story.resume()
    assert story.state() == STOPPED
    assert story.queued() == {}
    assert all(entry.until for side in Side for entry in story.engine.connectors[side].remembered("queued"))
    story.wish("running")
    story.drain()
    assert story.both("code", "name") == {("1", "one"), ("2", "two")}


def test_related_maps_are_those_of_tables_that_are_looked_up() -> None:
    """Parents come with their children, and not the other way round."""
    maps = {each.name: each for each in Paused(WITH_GROUP, GROUP_MAP).maps}
    assert related(maps, ["Items"]) == ["Groups"]
    assert related(maps, ["Groups"]) == []
    assert related(maps, ["Items", "Groups"]) == []
