"""Parked records go through by themselves once their cause is gone, and cost little for as long as it is not."""

from __future__ import annotations

from contextlib import suppress

import pytest

from dualwrite.connectors.memory import MemoryConnector, MemoryDatabase
from dualwrite.engine.commands import execute
from dualwrite.engine.supervisor import Engine
from dualwrite.journal import Journal
from dualwrite.mapping.compile import compile_map
from dualwrite.mapping.notation import read_map
from dualwrite.model import Side
from dualwrite.schema import Schema, Table

from .test_engine_stories import GROUP_MAP, ITEM_MAP, WITH_GROUP, Crash, L, R, Story, text

LONG = "far too long for the other side"
SHORT_NOTES = ITEM_MAP.replace("note = note", "kind = note")


def plain(*names: str, key: str) -> tuple[dict[Side, MemoryDatabase], Journal, Engine]:
    """Two tables without constraints, linked and running; on the left records of these names with the key 1."""
    schema = Schema({"plain": Table("plain", (text("code"), text("name")))})
    databases = {side: MemoryDatabase(schema, f"plain {side}") for side in Side}
    lines = f"map: Plain\nleft: plain\nright: plain\nkey: [{key}]\ncolumns:\n  - code = code\n  - name = name"
    with databases[L].user() as user:
        for name in names:
            user.insert("plain", {"code": "1", "name": name})
    journal = Journal.open("sqlite://")
    journal.set_state("Plain", desired="running")
    connectors = {side: MemoryConnector(database) for side, database in databases.items()}
    engine = Engine("link", connectors, [compile_map(read_map(lines, "map.yaml"), schema, schema)], journal)
    engine.open()
    engine.reconcile()
    engine.drain()
    return databases, journal, engine


def codes(story: Story) -> list[tuple[str, str]]:
    """What is parked: keys and codes."""
    return [(entry.shown_key, entry.code) for entry in story.parked()]


@pytest.fixture
def poisoned() -> Story:
    """A record that does not fit, parked."""
    story = Story(SHORT_NOTES).start()
    story.insert(L, code="1", name="one", kind=LONG)
    story.drain()
    assert codes(story) == [("1", "too_long")]
    return story


def test_a_correction_at_the_source_lets_a_record_go(poisoned: Story) -> None:
    """No retry is needed: the later change brings everything with it that waited before it."""
    poisoned.update(L, "1", name="uno")
    poisoned.drain()
    assert [(entry.changes, entry.attempts) for entry in poisoned.parked()] == [(2, 1)]
    poisoned.update(L, "1", kind="fits")
    poisoned.drain()
    assert poisoned.rows(R, "code", "name", "note") == {("1", "uno", "fits")}
    poisoned.at_rest()


def test_a_change_that_mends_nothing_costs_nothing(poisoned: Story) -> None:
    """As long as the value at fault is what it was, nothing is written in the target."""
    before = poisoned.commits()
    for name in "abc":
        poisoned.update(L, "1", name=name)
        poisoned.drain()
    assert [entry.attempts for entry in poisoned.parked()] == [1]
    queued = 3
    assert poisoned.commits()[1] == before[1] + queued  # each is put behind it, in a transaction of its own


def test_a_record_that_is_deleted_lets_go(poisoned: Story) -> None:
    """What never arrived, and is gone, leaves nothing."""
    poisoned.delete(L, "1")
    poisoned.drain()
    assert poisoned.both("code") == set()
    poisoned.at_rest()


def test_a_new_fault_is_told(poisoned: Story) -> None:
    """A later change that mends one column and spoils another one is told by the one that is at fault now."""
    poisoned.update(L, "1", kind="fits", tag="t")
    poisoned.insert(R, code="x", tag="t")
    poisoned.drain()
    assert ("1", "unique") in codes(poisoned)


@pytest.mark.parametrize("point", ["after commit", "inside retry", "before commit", "after journal"])
def test_a_crash_on_the_way(poisoned: Story, point: str) -> None:
    """Whether the process dies when the correction is queued or when it is taken: it goes through after the restart."""
    poisoned.update(L, "1", kind="fits")
    poisoned.crash_at = point
    with suppress(Crash):
        poisoned.drain()
    poisoned.crash_at = ""
    poisoned.resume()
    assert poisoned.rows(R, "code", "note") == {("1", "fits")}
    poisoned.at_rest()


def test_a_corrected_map_lets_records_go(poisoned: Story) -> None:
    """An engine that starts with another map looks at what is parked again, and takes only what that lets through."""
    poisoned.insert(L, code="2", kind="fits", amount="1")
    poisoned.engine.close()
    poisoned.resume()
    assert [entry.attempts for entry in poisoned.parked()] == [1]
    poisoned.engine.close()
    changed = Story(SHORT_NOTES.replace("= note", "= note: {truncate: true}"))
    poisoned.maps = changed.maps
    poisoned.resume()
    assert poisoned.rows(R, "code", "note") == {("1", LONG[:10]), ("2", "fits")}
    poisoned.at_rest()


def test_what_stands_in_the_way_goes() -> None:
    """A record that the target refused for another one's unique value follows when that one gives it up."""
    story = Story(ITEM_MAP + 'filter:\n  right: "kind eq null"\n').start()
    story.insert(R, code="x", tag="t", kind="outside")
    story.insert(L, code="1", tag="t")
    story.drain()
    assert codes(story) == [("1", "unique")]
    story.update(R, "x", tag="free")
    story.drain()
    assert not story.parked()
    assert ("1", "t") in story.rows(R, "code", "tag")


def test_children_are_taken_when_their_parent_comes_and_not_before() -> None:
    """Other parents wake nobody; the right one wakes its children alone."""
    story = Story(WITH_GROUP, GROUP_MAP).start()
    story.insert(L, code="1", grp="g")
    story.insert(L, code="2", grp="h")
    story.drain()
    for other in "abc":
        story.insert(L, "groups", code=other)
        story.drain()
    assert [entry.attempts for entry in story.parked()] == [1, 1]
    story.insert(R, "families", code="h")
    story.drain()
    assert codes(story) == [("1", "missing_parent")]
    assert [entry.attempts for entry in story.parked()] == [1]
    assert ("2", "h") in story.names(R, "grp")


def test_deletes_that_wait_for_a_person_go_when_the_record_is_back() -> None:
    """Another delete lets nothing go; a record that its users have made again flows."""
    story = Story(ITEM_MAP, delete_limit=1)
    for code in "123":
        story.insert(L, code=code)
    story.start()
    with story.user(L) as user:
        user.delete("items", {})
    story.drain()
    assert codes(story) == [(code, "many_deletes") for code in "123"]
    story.insert(L, code="2", name="again")
    story.drain()
    assert codes(story) == [("1", "many_deletes"), ("3", "many_deletes")]
    assert story.rows(R, "code", "name") == {("1", None), ("2", "again"), ("3", None)}


def test_a_record_gets_its_key() -> None:
    """What was parked for its empty key is done with once none of its records is without, and not before."""
    databases, journal, engine = plain(key="code")
    with journal:
        with databases[L].user() as user:
            user.insert("plain", {"name": "one"})
            user.insert("plain", {"name": "two"})
        engine.drain()
        assert [entry.code for entry in journal.parked({})] == ["empty_key"]
        for code, name in (("1", "one"), ("2", "two")):
            assert [entry.code for entry in journal.parked({})] == ["empty_key"]
            with databases[L].user() as user:
                user.update("plain", {"name": name}, {"code": code})
            engine.drain()
            with databases[R].user() as user:
                assert (code, name) in {(row["code"], row["name"]) for row in user.rows("plain")}
        assert not journal.parked({})


def test_what_only_a_person_can_settle_waits() -> None:
    """A conflict that a person decides is not tried again by later changes."""
    story = Story(ITEM_MAP.replace("name = name", "name = name: {conflict: manual}"))
    story.insert(L, code="1", name="one")
    story.start()
    story.update(L, "1", name="left")
    story.update(R, "1", name="right")
    story.drain()
    attempts = [entry.attempts for entry in story.parked()]
    story.update(L, "1", note="later")
    story.drain()
    assert [entry.attempts for entry in story.parked()] == attempts
    [conflict] = story.conflicts()
    execute(story.engine, "resolve", {"id": conflict.id, "winner": "left"})
    story.drain()
    assert story.both("name", "note") == {("left", "later")}
    story.at_rest()


def test_thousands_are_taken_together() -> None:
    """Retrying many asks the journal for many at once."""
    story = Story(SHORT_NOTES).start()
    with story.user(L) as user:
        for number in range(450):
            user.insert("items", {"code": str(number), "kind": LONG})
    story.drain()
    assert len(story.parked()) == 450
    asked = 0
    reading = story.journal._database.reading  # type: ignore[attr-defined]

    def counted():
        nonlocal asked
        asked += 1
        return reading()

    story.journal._database.reading = counted  # type: ignore[method-assign]
    execute(story.engine, "retry", {})
    assert asked < 30


def test_a_duplicate_is_removed() -> None:
    """When one of two records with the same key goes, the other one follows once a person has said so."""
    databases, journal, engine = plain("first", "second", key="code")
    with journal:
        assert [entry.code for entry in journal.parked({})] == ["duplicate_key"]
        with databases[L].user() as user:
            user.delete("plain", {"name": "first"})
        engine.drain()
        assert [entry.code for entry in journal.parked({})] == ["duplicate_key"]
        execute(engine, "retry", {})
        assert not journal.parked({})
        with databases[R].user() as user:
            assert [row["name"] for row in user.rows("plain")] == ["second"]


@pytest.mark.parametrize("reopened", [False, True])
@pytest.mark.parametrize("lives", [1, 2])
def test_a_rename_from_one_parked_record_to_another_links_them(lives: int, reopened: bool) -> None:
    """Without the change by which one becomes the other, what follows would be taken for that other one's."""
    story = Story(WITH_GROUP.replace("name = name", "name = name: {conflict: manual}"), GROUP_MAP)
    story.insert(L, code="1", name="one")
    story.start()
    story.update(L, "1", name="left")
    story.update(R, "1", name="right")
    story.insert(L, code="2", grp="g")
    story.drain()
    assert set(codes(story)) == {("1", "conflict"), ("2", "missing_parent")}
    story.delete(L, "2")
    for _ in range(1, lives):
        story.insert(L, code="2", name="again")
        story.delete(L, "2")
    story.update(L, "1", code="2")
    if reopened:
        story.carry(L)
        story.engine.close()
        story.resume()
    story.update(L, "2", note="later")
    story.drain()
    for _ in range(2):
        parked = {entry.shown_key: entry.code for entry in story.parked() if entry.side is R}
        assert parked.keys() == {"1", "2"}
        assert parked["2"] == "behind"
        assert story.rows(R, "code", "name") == {("1", "right")}
        execute(story.engine, "retry", {"map": "Items", "key": "2"})
