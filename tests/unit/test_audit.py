"""The audit holds every change that was applied, once, with what was there before and after, and how it was decided."""

from __future__ import annotations

import json

import pytest

from dualwrite.engine.supervisor import Engine
from dualwrite.journal import Audited, Journal, Retention
from dualwrite.model import Side

from .test_engine_stories import ITEM_MAP, WITH_GROUP, Crash, L, R, Story

POINTS = ("after read", "after begin", "after map", "before journal", "before commit", "after commit")


def audited(story: Story, code: str | None = None) -> list[Audited]:
    """The lines of the audit, oldest first, as other processes see them."""
    numbers = {side: database.links["link"].number for side, database in story.databases.items()}
    key = None if code is None else (code,)
    return list(reversed(story.journal.audits.lines(numbers, key=key)))


def told(line: Audited) -> tuple[str, str, str]:
    """What a line is about, in short."""
    return str(line.side), line.what, line.verdict


def test_every_change_is_there_with_both_images() -> None:
    """An insert, an update and a delete: what was at both sides before and after, and where it comes from."""
    story = Story(ITEM_MAP).start()
    story.insert(L, code="a", name="one")
    story.drain()
    story.update(R, "a", name="two")
    story.drain()
    story.delete(L, "a")
    story.drain()
    insert, update, delete = audited(story, "a")
    assert [told(line) for line in (insert, update, delete)] == [
        ("right", "insert", "carried"),
        ("left", "update", "carried"),
        ("right", "delete", "carried"),
    ]
    assert insert.images(L) is not None
    assert insert.images(L)["name"][1] == insert.images(R)["name"][1] == "one"
    assert update.images(R) == update.images(L) == {"name": ("one", "two")}
    assert delete.images(L)["name"][0] == delete.images(R)["name"][0] == "two"
    assert update.position is not None
    assert update.position.feed == story.databases[R].links["link"].feed
    assert insert.made < update.made < delete.made
    assert (insert.carrier.map, insert.carrier.version) == ("Items", "1.0.0.0")


def test_what_went_in_one_write_with_a_later_change_says_so() -> None:
    """Its values were never at the other side: what was written there stands at the later one."""
    story = Story(ITEM_MAP).start()
    story.insert(L, code="a", name="one")
    story.drain()
    story.update(L, "a", name="two")
    story.update(L, "a", name="three")
    story.drain()
    first, second = audited(story, "a")[1:]
    assert told(first) == ("right", "update", "carried with a later change")
    assert (first.images(L), first.images(R)) == ({"name": ("one", "two")}, None)
    assert told(second) == ("right", "update", "carried")
    assert second.images(R) == {"name": ("one", "three")}


def test_updates_that_are_kept_together_are_told_one_by_one() -> None:
    """Of many records in one transaction each has its line, with its own key, place, images and id."""
    story = Story(ITEM_MAP).start()
    for code in "abcd":
        story.insert(L, code=code, name=f"old {code}", note="x")
    story.drain()
    for code in "abc":
        story.update(L, code, name=f"new {code}")
    story.update(L, "d", note="y")
    story.update(L, "a", note="z")
    story.drain()
    numbers = {side: database.links["link"].number for side, database in story.databases.items()}
    lines = audited(story)[4:]
    assert len({line.number for line in lines}) == 1
    assert [(line.key, line.natural, line.images(R)) for line in lines if line.key in (("b",), ("c",))] == [
        ((code,), (code,), {"name": (f"old {code}", f"new {code}")}) for code in "bc"
    ]
    assert [line.images(L) for line in lines if line.key == ("d",)] == [{"note": ("x", "y")}]
    places = [line.position for line in lines]
    assert all(place is not None for place in places)
    assert len(set(map(str, places))) == len(lines) == 5
    assert [story.journal.audits.one(numbers, line.id) for line in lines] == lines
    assert [line.key for line in audited(story, "c")[1:]] == [("c",)]


def test_what_met_an_edit_of_the_other_side_says_how_it_was_decided() -> None:
    """Edits of different columns are merged; of the same column, the winner's line names it."""
    story = Story(ITEM_MAP, conflict="left").start()
    story.insert(L, code="a", name="one", note="x")
    story.drain()
    story.update(L, "a", name="left")
    story.update(R, "a", note="right")
    story.drain()
    assert {told(line) for line in audited(story)[1:]} == {("right", "update", "merged"), ("left", "update", "merged")}
    story.update(L, "a", name="L")
    story.update(R, "a", name="R")
    story.drain()
    (line,) = audited(story)[3:]
    assert told(line) == ("right", "update", "conflict: name won (left)")
    assert line.images(R) == {"name": ("R", "L")}


def test_an_initial_sync_is_counted_and_what_it_overwrites_is_audited() -> None:
    """Records that it creates are not in the audit; values that it overwrites are, with what was there."""
    story = Story(ITEM_MAP)
    story.insert(L, code="a", name="one")
    story.insert(L, code="b", name="same")
    story.insert(R, code="b", name="other")
    story.start()
    (line,) = audited(story)
    assert told(line) == ("right", "update", "carried")
    assert line.images(R) == {"name": ("other", "same")}
    assert line.images(L) is None


def test_the_way_of_a_parked_record_is_there() -> None:
    """Parked with its reason, and when it went through or was dropped."""
    story = Story(WITH_GROUP).start()
    for group in ("g", "h"):
        story.insert(L, "groups", code=group)
    story.insert(L, code="a", grp="g")
    story.insert(L, code="b", grp="h")
    story.drain()
    story.insert(R, "families", id="1", code="g")
    story.drain()
    story.engine.retry({R: [("Items", ("a",))]})
    story.engine.discard({R: [("Items", ("b",))]})
    assert [told(line)[1:] for line in audited(story, "a")][1:] == [("insert", "carried"), ("freed", "retried")]
    parked, freed = audited(story, "b")
    assert parked.what == "parked"
    assert parked.verdict.startswith("missing_parent: families has no record h")
    assert told(freed) == ("right", "freed", "discarded")


def test_the_audit_can_be_off() -> None:
    """Nothing is kept then."""
    story = Story(ITEM_MAP)
    made = story.new_engine

    def without() -> Engine:
        engine = made()
        engine.retention = None
        return engine

    story.new_engine = without  # type: ignore[method-assign]
    story.start()
    story.insert(L, code="a")
    story.drain()
    assert audited(story) == []


@pytest.mark.parametrize("point", POINTS)
def test_killed_anywhere_nothing_is_missing_and_nothing_is_there_twice(point: str) -> None:
    """Whatever the moment at which the engine dies, the audit holds exactly the changes that were applied."""
    story = Story(ITEM_MAP).start()
    story.insert(L, code="a", name="one")
    story.drain()
    story.update(L, "a", name="two")
    story.insert(R, code="b", name="right")
    story.crash_at = point
    with pytest.raises(Crash):
        story.drain()
    applied = {code for (code, name) in story.rows(R, "code", "name") if name == "two"}
    found = [line for line in audited(story, "a") if line.what == "update"]
    assert len(found) == len(applied), "what is not committed does not count, what is counts"
    story.resume()
    assert story.both("code", "name") == {("a", "two"), ("b", "right")}
    assert [line.what for line in audited(story, "a")] == ["insert", "update"]
    assert [line.what for line in audited(story, "b")] == ["insert"]
    numbers = [(line.side, line.number) for line in audited(story)]
    assert len(set(numbers)) == len(numbers)


def test_a_commit_that_never_happened_leaves_no_line() -> None:
    """What was written for it does not count, and the next commit under its number takes its place."""
    story = Story(ITEM_MAP).start()
    story.insert(L, code="a", name="one")
    story.crash_at = "before commit"
    with pytest.raises(Crash):
        story.drain()
    assert story.journal.audits.size()[0] == 1
    assert audited(story) == []
    story.resume()
    assert [line.what for line in audited(story)] == ["insert"]
    assert story.journal.audits.size()[0] == 1


def test_one_way_columns_that_are_put_back_are_there() -> None:
    """A user's edit of a column that belongs to the other side is overwritten, which the audit tells."""
    story = Story(ITEM_MAP.replace("name = name", "name > name")).start()
    story.insert(L, code="a", name="ours")
    story.drain()
    story.update(R, "a", name="theirs")
    story.drain()
    *_, line = audited(story, "a")
    assert told(line) == ("right", "restored", "carried")
    assert line.images(R) == {"name": ("theirs", "ours")}


def test_the_oldest_goes_first() -> None:
    """Lines older than the days that they are kept go, and the oldest beyond the size; the others stay."""
    now = [1_000_000.0]
    with Journal.open("sqlite://", clock=lambda: now[0]) as journal:
        story = Story(ITEM_MAP)
        story.journal = journal
        story.start()
        for number in range(5):
            story.engine.link.audit._clock = lambda: now[0]  # type: ignore[union-attr]
            story.insert(L, code=f"a{number}")
            story.drain()
            now[0] += 86_400
        assert not journal.audits.prune(Retention(days=6))
        assert journal.audits.prune(Retention(days=3))
        assert [line.key for line in audited(story)] == [("a2",), ("a3",), ("a4",)]
        _, size = journal.audits.size()
        assert journal.audits.prune(Retention(days=100, size=size - 1))
        assert [line.key for line in audited(story)] == [("a3",), ("a4",)]
        assert not journal.audits.prune(Retention(days=100, size=size))


def test_a_record_is_found_by_the_key_that_it_had() -> None:
    """A renamed record's history is found under both keys."""
    story = Story(ITEM_MAP).start()
    story.insert(L, code="a", name="one")
    story.drain()
    story.update(L, "a", code="b")
    story.drain()
    assert [line.what for line in audited(story, "a")] == ["insert", "update"]
    assert [line.what for line in audited(story, "b")] == ["update"]


def test_a_line_is_found_by_its_id() -> None:
    """Ids stay valid; what is not there is nothing."""
    story = Story(ITEM_MAP).start()
    story.insert(L, code="a", name="one")
    story.insert(L, code="b", name="two")
    story.drain()
    numbers: dict[Side, int] = {}
    for line in audited(story):
        found = story.journal.audits.one(numbers, line.id)
        assert found == line
        assert json.loads(json.dumps(found.key if found else None)) == list(line.key)
    assert story.journal.audits.one(numbers, "99.1") is None
