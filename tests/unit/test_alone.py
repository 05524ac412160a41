"""One system of two does not answer, on in-memory systems; and what is stopped in the middle of an initial sync."""

from __future__ import annotations

from dataclasses import replace
from threading import Event
from types import SimpleNamespace
from typing import cast

import pytest

from dualwrite.connectors.base import Connector
from dualwrite.engine import wishes
from dualwrite.engine.alone import Alone
from dualwrite.engine.backlog import Backlog
from dualwrite.engine.continuity import check_kept
from dualwrite.engine.doing import Notes, doing
from dualwrite.engine.lifecycle import PAUSED, RUNNING, STOPPED
from dualwrite.engine.outage import Outage, Trouble, trouble_of
from dualwrite.engine.remembered import remember, remembered
from dualwrite.engine.supervisor import Engine
from dualwrite.errors import PositionLost, Stopped, Unavailable, Usage
from dualwrite.journal import Journal
from dualwrite.model import Position, Side

from .test_engine_stories import GROUP_MAP, LEFT_SCHEMA, RIGHT_SCHEMA, WITH_GROUP, L, R, Story
from .test_pausing import Paused, linked


@pytest.fixture
def story() -> Paused:
    """Items and groups on both sides, linked and running; one record of each, and the right side away."""
    told = linked()
    told.engine.acknowledge()
    told.engine.close()
    told.databases[R].offline = True
    return told


def listen(story: Paused, *names: str) -> None:
    """Let the left side be alone for a moment; these maps are to be paused."""
    if names:
        wishes.pause(story.journal, names, who="Ann")
    alone = Alone(story.engine, L)
    alone.look()
    alone.turn(0)
    alone.acknowledge()
    alone.close()


def back(story: Paused) -> None:
    """The right side is there again."""
    story.databases[R].offline = False
    story.resume()


def test_a_map_is_paused_while_the_other_side_is_away(story: Paused) -> None:
    """What the users of the side that answers do queues at once, what those of the other one did later; nothing of it
    is carried, and all of it once the map is resumed, edits of both sides being concurrent."""
    story.update(L, "1", name="left", amount="11")
    listen(story, "Items")
    story.insert(L, code="2", name="two")
    listen(story)
    assert story.state() == PAUSED
    assert story.queued() == {L: 2}
    story.databases[R].offline = False
    story.update(R, "1", name="right")
    back(story)
    assert story.state() == PAUSED
    assert story.queued() == {L: 2, R: 1}
    assert story.rows(R, "code", "name") == {("1", "right")}
    story.catch_up()
    assert story.both("code", "name", "note") == {("1", "right", "a"), ("2", "two", None)}
    assert [(entry.unit, entry.winner) for entry in story.conflicts()] == [("name", "right")]
    story.at_rest()


def test_what_had_been_received_before_is_not_carried_again(story: Paused) -> None:
    """The feed is kept from its oldest change on, because windows may be wanted; the position tells what waits."""
    back(story)
    story.update(L, "1", name="carried")
    story.carry(L)
    story.engine.close()
    story.databases[R].offline = True
    listen(story, "Items")
    back(story)
    assert story.queued() == {}
    story.catch_up()
    assert story.both("name") == {("carried",)}
    story.at_rest()


def test_a_log_is_let_go_up_to_what_other_maps_need(story: Paused) -> None:
    """A change of a map that is not paused stays in it, and so does all behind it, until that one is paused, too."""
    log = story.databases[L].links["link"].log
    for number in range(50):
        story.update(L, "1", name=str(number))
    listen(story, "Items")
    assert len(log) < 5
    story.update(L, "g", "groups", name="second")
    for number in range(50):
        story.update(L, "1", name=str(number))
    listen(story)
    assert len(log) > 50
    listen(story, "Groups")
    assert len(log) < 5
    back(story)
    assert story.rows(R, "name", where="families") == {("first",)}
    wishes.resume(story.journal, ["Items", "Groups"], who="Ann")
    story.engine.reconcile()
    story.drain()
    assert story.rows(R, "name", where="families") == {("second",)}
    assert story.both("name") == {("49",)}
    story.at_rest()


def test_a_map_that_was_edited_waits_for_both_sides(story: Paused) -> None:
    """What was captured is of another version."""
    items = story.engine.maps["Items"]
    story.engine.maps["Items"] = replace(items, table_map=replace(items.table_map, version="2.0.0.0"))
    with pytest.raises(Usage, match="was edited since it ran"):
        listen(story, "Items")
    assert story.queued() == {}


def test_a_side_that_lacks_what_is_queued_was_restored(story: Paused) -> None:
    """An opening does not take its feed for the one that the queue came from."""
    end = story.engine.connectors[L].end()
    lane = cast(Backlog, SimpleNamespace(map="Items", kept_to=end))
    check_kept(L, story.engine.connectors[L], [lane])
    for wrong in (Position(end.feed, (end.place[0] + 1, 0)), Position("another", end.place)):
        with pytest.raises(PositionLost, match="restored from a backup"):
            check_kept(L, story.engine.connectors[L], [cast(Backlog, SimpleNamespace(map="Items", kept_to=wrong))])


def test_an_engine_waits_and_says_so(story: Paused) -> None:
    """It pauses what is to be paused meanwhile, answers whoever asks for that, and tells who was away and for whom it
    waits."""
    outage = Outage(story.engine, Event())
    wishes.pause(story.journal, ["Items"], who="Ann")
    asked = wishes.tell(story.journal)
    story.update(L, "1", name="left")
    waits: list[Trouble | None] = []

    def answer() -> None:
        waits.append(trouble_of(story.journal))
        story.databases[R].offline = False

    story.at_point["after queue"] = answer
    outage.wait(Unavailable("it is away", "look after it"))
    assert waits[0] is not None
    assert (waits[0].message, waits[0].remedy, waits[0].sides) == ("it is away", "look after it", ["right"])
    assert story.journal.await_answer(asked, 0) == {"synced": 0}
    assert story.engine.meter.reading().away == (R,)
    outage.over()
    assert trouble_of(story.journal) is None
    assert story.engine.meter.reading().away == ()
    told = [event.what for event in reversed(story.journal.events(limit=None))]
    assert {event.what for event in story.journal.events(kind="link")} == {told[-1], told[-3]}
    assert told[-4:] == ["pause wanted", "right does not answer", "paused", "right answers again"]
    back(story)
    assert story.queued() == {L: 1}


def test_an_engine_that_is_to_end_does_not_wait_for_ever(story: Paused) -> None:
    """It gives up with the reason."""
    outage, away = Outage(story.engine, Event()), Unavailable("it is away")
    outage.wait(away, patience=0.05)
    with pytest.raises(Unavailable, match="it is away"):
        outage.wait(away, patience=0.05)


def test_schemas_are_remembered_as_they_are() -> None:
    """And what another program has written counts for nothing."""
    journal = Journal.open("sqlite://")
    assert remembered(journal, L) is None
    remember(journal, {L: LEFT_SCHEMA, R: RIGHT_SCHEMA})
    assert remembered(journal, L) == LEFT_SCHEMA
    assert remembered(journal, R) == RIGHT_SCHEMA
    journal.put("schema.left", '{"tables": {"item": {}}}')
    assert remembered(journal, L) is None


def test_a_stop_ends_an_initial_sync() -> None:
    """The map is stopped in the middle of it; another one that waits for its own goes on."""
    story = Story(WITH_GROUP, GROUP_MAP)
    story.insert(L, "groups", code="g", name="first")
    story.insert(L, code="1", name="one", grp="g")
    for name in ("Groups", "Items"):
        story.journal.set_state(name, desired="running", master="left")

    def stop(name: str, _step: str, _done: int, _total: int) -> None:
        if name == "Groups":
            wishes.stop(story.journal, ["Groups"], who="Ann")

    connectors = {side: cast(Connector, story.engine.connectors[side]) for side in Side}
    engine = Engine("link", connectors, story.maps, story.journal, progress=stop)
    engine.open()
    with pytest.raises(Stopped) as stopped:
        engine.reconcile()
    engine.close()
    engine.halt(stopped.value)
    engine.open()
    engine.reconcile()
    states = story.journal.states()
    assert (states["Groups"].state, states["Items"].state) == (STOPPED, RUNNING)
    assert [event.what for event in story.journal.events("Groups")][:2] == ["stopped", "stop wanted"]


def test_what_an_engine_is_at_is_told_while_it_is() -> None:
    """What is inside counts; and nothing of an engine that has died."""
    journal = Journal.open("sqlite://")
    Notes(journal).tell("was killed")
    notes, flow = Notes(journal), Notes(journal, "left")
    with notes.at("takes up the link"):
        with notes.at("installs the capture in left"):
            assert [each.what for each in doing(journal)] == ["installs the capture in left"]
        flow.tell("waits for others' locks in right")
        assert [each.what for each in doing(journal)] == ["takes up the link", "waits for others' locks in right"]
    flow.tell("")
    assert doing(journal) == []
