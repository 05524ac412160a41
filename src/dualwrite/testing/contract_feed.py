"""The part of the contract about the feed: what it delivers, in which order, from which places, and what it keeps."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from random import Random
from threading import Event, Thread
from time import monotonic

import pytest

from dualwrite.errors import PositionLost
from dualwrite.lined import LARGEST
from dualwrite.model import Applied, Batch, Change, Key, Kind, Position, Row, Write
from dualwrite.schema import View
from dualwrite.testing.example import (
    COMPANIES,
    FLATS,
    GROUPS,
    ITEMS,
    PATIENCE,
    PRICES,
    VIEWS,
    Example,
    drain,
    flat,
    item,
    peer,
)

APPLIED = Applied()
INSERT, UPDATE, DELETE = Kind.INSERT, Kind.UPDATE, Kind.DELETE


def seen_of(changes: list[Change]) -> list[tuple[Position | None, int]]:
    """How far each change's side had received the other, and its mark."""
    return [(change.seen, change.mark) for change in changes]


def replay(rows: dict[Key, Row], changes: list[Change]) -> None:
    """Do to rows, by key, what the changes say; each must fit what is there."""
    for change in changes:
        assert rows.pop(change.key, None) == change.before, change
        if change.after is not None:
            key = Example.key(ITEMS, change.after)
            assert key not in rows, change
            rows[key] = change.after


class FeedContract:
    """What a feed delivers, in which order, from which places, and what it keeps."""

    def test_changes_come_in_commit_order_across_tables(self, example: Example) -> None:
        """Changes of all tables arrive in the order in which they were made, with their images."""
        company = example.company()
        example.flat("a", grp="x")
        group = example.group(company)
        example.update("flat", {"code": "a"}, grp=None, points="7")
        example.item(company, "1", grp=group)
        example.delete("flat", code="a")
        wanted = [
            ("companies", INSERT, ("usmf",), None, ("usmf", "USMF")),
            ("flats", INSERT, ("a",), None, flat("a", "x")),
            ("groups", INSERT, ("usmf", "retail"), None, ("usmf", "retail")),
            ("flats", UPDATE, ("a",), flat("a", "x"), flat("a", None, None, "7")),
            ("items", INSERT, ("usmf", "1"), None, item("usmf", "1", grp="retail")),
            ("flats", DELETE, ("a",), flat("a", None, None, "7"), None),
        ]
        found = example.changes()
        assert [(c.view, c.kind, c.key, c.before, c.after) for c in found] == wanted
        assert [c.position for c in found] == sorted({c.position for c in found})

    def test_where_a_feed_tells_which_cells_differ_they_do(self, example: Example) -> None:
        """``edited`` holds the cells in which both images differ, all of them, in their order."""
        example.flat("a", grp="x", tag="1")
        example.update("flat", {"code": "a"}, tag="2", grp="y")
        example.update("flat", {"code": "a"}, grp="Y", points="7")
        example.update("flat", {"code": "a"}, code="b", tag=None)
        found = example.changes()
        assert [change.kind for change in found] == [INSERT, UPDATE, UPDATE, UPDATE]
        assert found[0].edited is None
        for change in found[1:]:
            assert change.before is not None
            assert change.after is not None
            cells = enumerate(zip(change.before, change.after, strict=True))
            assert change.edited in (None, tuple(index for index, (was, now) in cells if was != now))

    def test_one_transaction_is_told_in_its_order(self, example: Example) -> None:
        """What one transaction did to several records comes in the order of its statements, at one commit time."""
        with example.system.user() as user:
            for code in ("c", "a", "b"):
                user.insert("flat", {"code": code})
            user.update("flat", {"code": "c"}, {"tag": "1"})
            user.delete("flat", {"code": "a"})
        found = example.changes()
        assert [change.key for change in found] == [("c",), ("a",), ("b",), ("c",), ("a",)]
        assert len({change.at for change in found}) == 1

    def test_changes_carry_the_users_commit_time(self, example: Example) -> None:
        """The time of a change is that of its commit, by the system's own clock, within a second."""
        before = example.connector.clock()
        example.flat("a")
        after = example.connector.clock()
        (change,) = example.changes()
        assert before - 1 <= change.at <= after + 1

    def test_what_was_rolled_back_is_not_told(self, example: Example) -> None:
        """A transaction that fails leaves nothing in the feed."""
        example.flat("taken")
        with suppress(ZeroDivisionError), example.system.user() as user:
            user.insert("flat", {"code": "a"})
            user.update("flat", {"code": "taken"}, {"tag": str(1 // 0)})
        example.flat("b")
        assert [change.key for change in example.changes()] == [("taken",), ("b",)]

    def test_an_emptied_and_refilled_record_is_told_step_by_step(self, example: Example) -> None:
        """There and back again, deleting and adding anew are changes of their own, when committed apart."""
        example.flat("a", points="1")
        example.update("flat", {"code": "a"}, points="0")
        example.update("flat", {"code": "a"}, points="1")
        example.delete("flat", code="a")
        example.flat("a", points="1")
        assert [change.kind for change in example.changes()] == [INSERT, UPDATE, UPDATE, DELETE, INSERT]

    def test_a_new_key_is_an_update_from_the_old_one(self, example: Example) -> None:
        """A rename carries the old key, and the new one in its image."""
        example.flat("a", points="1")
        start = example.connector.end()
        example.update("flat", {"code": "a"}, code="b")
        found = [(c.kind, c.key, c.before, c.after) for c in example.changes(start)]
        assert found == [(UPDATE, ("a",), flat("a", points="1"), flat("b", points="1"))]

    def test_each_view_of_a_table_gets_its_own_change(self, example: Example) -> None:
        """Two views of one table are told apart, each with its own cells; filters do not hold changes back."""
        narrow = replace(FLATS, name="narrow", paths=(("code",), ("tag",)), written=(0, 1))
        example.connector.install([*VIEWS, narrow])
        start = example.connector.end()
        example.flat("a", grp="x", tag="t")
        found = {change.view: change.after for change in example.changes(start, [FLATS, narrow])}
        assert found == {"flats": flat("a", "x", "t"), "narrow": ("a", "t")}
        assert [change.view for change in example.changes(start, [narrow])] == ["narrow"]

    def test_other_views_are_not_told(self, example: Example) -> None:
        """A feed holds the changes of the views that it was asked for; its place moves past the others."""
        example.company()
        example.flat("a")
        assert [change.view for change in example.changes(None, [FLATS])] == ["flats"]
        assert example.batches(None, [GROUPS])[-1].position == example.connector.end()

    def test_images_show_lookups_in_natural_form(self, example: Example) -> None:
        """Setting, changing and clearing a lookup show the keys of the records that it led to."""
        company = example.company()
        groups = [example.group(company, name) for name in ("retail", "trade")]
        example.item(company, "1", grp=groups[0])
        example.update("item", {"code": "1"}, grp=groups[1])
        example.update("item", {"code": "1"}, grp=None)
        found = [change for change in example.changes() if change.view == "items"]
        rows = [item("usmf", "1", grp=name) for name in ("retail", "trade", None)]
        assert [(change.before, change.after) for change in found] == [
            (None, rows[0]),
            (rows[0], rows[1]),
            (rows[1], rows[2]),
        ]

    def test_a_reference_over_several_columns_is_told(self, example: Example) -> None:
        """A lookup that shares the company column is told by its own part."""
        with example.system.user() as user:
            user.insert("list", {"company": "usmf", "name": "summer"})
            user.insert("price", {"company": "usmf", "item": "1", "list": "summer"})
        example.update("price", {"item": "1"}, list=None)
        found = [(change.before, change.after) for change in example.changes() if change.view == "prices"]
        rows = [("usmf", "1", "summer", None), ("usmf", "1", None, None)]
        assert found == [(None, rows[0]), (rows[0], rows[1])]
        assert example.rows(PRICES) == rows[1:]

    def test_what_left_together_is_told_in_full(self, example: Example) -> None:
        """A record deleted in one transaction with those that it referred to still shows its whole key and row."""
        company = example.company()
        group = example.group(company)
        example.item(company, "1", grp=group)
        start = example.connector.end()
        with example.system.user() as user:
            user.delete("item", {"code": "1"})
            user.delete("grp", {"id": group})
            user.delete("company", {"id": company})
        found = [(change.view, change.key, change.before) for change in example.changes(start)]
        assert found == [
            ("items", ("usmf", "1"), item("usmf", "1", grp="retail")),
            ("groups", ("usmf", "retail"), ("usmf", "retail")),
            ("companies", ("usmf",), ("usmf", "USMF")),
        ]

    def test_renaming_a_parent_reaches_its_children(self, example: Example) -> None:
        """Records that show a renamed record's key are told as changed, right behind it."""
        company = example.company()
        group = example.group(company)
        example.item(company, "1", grp=group)
        example.item(company, "2")
        start = example.connector.end()
        example.update("grp", {"id": group}, name="trade")
        found = [(c.view, c.kind, c.key, c.before, c.after) for c in example.changes(start)]
        assert found == [
            ("groups", UPDATE, ("usmf", "retail"), ("usmf", "retail"), ("usmf", "trade")),
            ("items", UPDATE, ("usmf", "1"), item("usmf", "1", grp="retail"), item("usmf", "1", grp="trade")),
        ]

    def test_renaming_a_company_renames_everything_in_it(self, example: Example) -> None:
        """Where the parent's key is part of the children's keys, the children are renamed as well."""
        company = example.company()
        group = example.group(company)
        example.item(company, "1", grp=group)
        start = example.connector.end()
        example.update("company", {"id": company}, code="demf")
        found = example.changes(start)
        assert found[0].view == "companies"
        assert {(c.view, c.key, c.after) for c in found[1:]} == {
            ("groups", ("usmf", "retail"), ("demf", "retail")),
            ("items", ("usmf", "1"), item("demf", "1", grp="retail")),
        }

    def test_a_change_of_a_parent_that_children_do_not_show_stays_there(self, example: Example) -> None:
        """A parent's column that no child shows reaches nobody else."""
        company = example.company()
        example.item(company, "1")
        start = example.connector.end()
        example.update("company", {"id": company}, title="other")
        assert [change.view for change in example.changes(start)] == ["companies"]

    @pytest.mark.parametrize("seed", range(5))
    def test_replaying_the_feed_gives_the_table(self, example: Example, seed: int) -> None:
        """Each change fits what the changes before it left, and together they give what the snapshot shows."""
        random = Random(seed)
        company = example.company()
        groups = [example.group(company, name) for name in ("retail", "trade", "export")]
        for number in range(40):
            code, values = str(random.randrange(6)), {"grp": random.choice([None, *groups]), "note": str(number)}
            with example.system.user() as user:
                match random.choice(["write", "write", "delete", "group"]):
                    case "write" if user.rows("item", {"code": code}):
                        user.update("item", {"code": code}, values)
                    case "write":
                        user.insert("item", {"company": company, "code": code, "name": "n", **values})
                    case "delete":
                        user.delete("item", {"code": code})
                    case _:
                        user.update("grp", {"id": random.choice(groups)}, {"name": f"g{number}"})
        rows: dict[Key, Row] = {}
        replay(rows, [change for change in example.changes() if change.view == "items"])
        assert sorted(rows.values(), key=repr) == example.rows(ITEMS)

    @pytest.mark.parametrize("limit", [1, 2, 7, 1000])
    def test_reading_goes_on_from_any_place(self, example: Example, limit: int) -> None:
        """From the position of every batch a new feed delivers exactly the rest."""
        for start in range(0, 12, 3):
            with example.system.user() as user:
                for number in range(start, start + 3):
                    user.insert("flat", {"code": str(number)})
        everything = example.changes()
        batches = example.batches(limit=limit)
        assert [change for batch in batches for change in batch.changes] == everything
        for number, batch in enumerate(batches):
            assert all(change.position <= batch.position for change in batch.changes)
            rest = [change for later in batches[number + 1 :] for change in later.changes]
            assert example.changes(batch.position) == rest

    def test_a_limit_keeps_batches_small(self, example: Example) -> None:
        """Batches of many small transactions hold about as many changes as were asked for."""
        for number in range(30):
            example.flat(str(number))
        assert max(len(batch.changes) for batch in example.batches(limit=10)) <= 20

    def test_a_large_transaction_arrives_whole(self, example: Example) -> None:
        """A transaction larger than the limit loses and doubles nothing, in parts or not."""
        with example.system.user() as user:
            for number in range(500):
                user.insert("flat", {"code": f"{number:03}"})
        found = [change for batch in example.batches(limit=50) for change in batch.changes]
        assert [change.key for change in found] == [(f"{number:03}",) for number in range(500)]

    def test_a_quiet_feed_says_so_in_time(self, example: Example) -> None:
        """Without changes an empty batch comes when the time is over, at an unmoved place."""
        feed = example.connector.feed(VIEWS, example.connector.end())
        place = drain(feed, example.connector.end())[-1].position
        for timeout in (0, 0.05):
            begun = monotonic()
            batch = feed.read(10, timeout)
            assert (batch.changes, batch.position) == ((), place)
            assert timeout <= monotonic() - begun + 0.02 < PATIENCE
        feed.close()

    def test_a_commit_wakes_a_waiting_reader(self, example: Example) -> None:
        """A reader that waits gets a commit when it happens, long before its time is over."""
        feed = example.connector.feed(VIEWS, example.connector.end())
        found: list[Batch] = []
        begun = Event()

        def read() -> None:
            begun.set()
            while not (found and found[-1].changes):
                found.append(feed.read(10, 10 * PATIENCE))

        reader = Thread(target=read, daemon=True)
        reader.start()
        begun.wait()
        example.flat("a")
        reader.join(PATIENCE)
        assert not reader.is_alive()
        assert [change.key for change in found[-1].changes] == [("a",)]
        feed.close()

    def test_a_reader_sees_the_commits_of_a_writer_in_order(self, example: Example) -> None:
        """While one thread commits, another reads the same commits, in the same order, each once."""
        codes = [f"{number:02}" for number in range(50)]
        writer = Thread(target=lambda: example.flats(codes))
        feed = example.connector.feed(VIEWS, example.connector.end())
        writer.start()
        found: list[Key] = []
        deadline = monotonic() + PATIENCE
        while len(found) < len(codes) and monotonic() < deadline:
            found += [change.key for change in feed.read(7, 1.0).changes]
        writer.join()
        assert found == [(code,) for code in codes]
        feed.close()

    def test_closing_a_feed_twice_is_harmless(self, example: Example) -> None:
        """A closed feed can be closed again, and hinders nobody."""
        feed = example.connector.feed(VIEWS, None)
        feed.close()
        feed.close()
        example.flat("a")
        assert [change.key for change in example.changes()] == [("a",)]

    # -- our own work -----------------------------------------------------------------------------------------------

    def test_our_own_writes_are_not_told(self, example: Example) -> None:
        """Inserts, updates, renames and deletes of the link leave the feed empty; its place still moves on."""
        example.company()
        start = example.connector.end()
        example.insert(FLATS, flat("a", "x"))
        example.replace(FLATS, flat("a", "x"), flat("a", "y"))
        example.replace(FLATS, flat("a", "y"), flat("b", "y"))
        example.replace(FLATS, flat("b", "y"), None)
        example.insert(ITEMS, item("usmf", "1"))
        batches = example.batches(start)
        assert [change for batch in batches for change in batch.changes] == []
        assert batches[-1].position == example.connector.end() > start
        assert example.rows(ITEMS) == [item("usmf", "1")]

    def test_our_rename_of_a_parent_reaches_its_children(self, example: Example) -> None:
        """Records that show a record which we rename look different by it: that is told, behind our marker."""
        example.company()
        example.insert(ITEMS, item("usmf", "1"))
        start = example.connector.end()
        example.replace(COMPANIES, ("usmf", "USMF"), ("demf", "USMF"))
        changes = [change for batch in example.batches(start) for change in batch.changes]
        assert [(change.view, change.before, change.after) for change in changes] == [
            ("items", item("usmf", "1"), item("demf", "1"))
        ]
        assert changes[0].mark == 2

    def test_users_changes_name_what_we_have_deleted_since(self, example: Example) -> None:
        """A change shows the records that it led to, though the link deletes them before anybody reads it."""
        company = example.company()
        group = example.group(company)
        example.item(company, "1", grp=group)
        start = example.connector.end()
        example.item(company, "2", grp=group)
        example.update("item", {"code": "2"}, grp=None)
        example.delete("item", code="1")
        example.delete("item", code="2")
        told = example.changes(start)
        assert [change.before for change in told][2:] == [item("usmf", "1", grp="retail"), item("usmf", "2")]
        assert example.replace(GROUPS, ("usmf", "retail"), None) == APPLIED
        assert example.replace(COMPANIES, ("usmf", "USMF"), None) == APPLIED
        assert example.changes(start) == told

    def test_users_changes_name_what_we_have_renamed_since(self, example: Example) -> None:
        """A change shows the keys that its lookups led to, though the link renames them before anybody reads it."""
        company = example.company()
        group = example.group(company)
        start = example.connector.end()
        example.item(company, "1", grp=group)
        example.update("item", {"code": "1"}, note="new")
        told = example.changes(start)
        assert example.replace(GROUPS, ("usmf", "retail"), ("usmf", "trade")) == APPLIED
        assert example.replace(COMPANIES, ("usmf", "USMF"), ("demf", "USMF")) == APPLIED
        found = example.changes(start)
        assert found[:2] == told
        assert [change.after for change in found if change.view == "items"][-1] == item(
            "demf", "1", grp="trade", note="new"
        )

    def test_users_changes_between_our_writes_are_told(self, example: Example) -> None:
        """Echo removal takes ours alone: a user's change of the very same value is told."""
        example.insert(FLATS, flat("a", "x"))
        example.update("flat", {"code": "a"}, grp="y")
        example.replace(FLATS, flat("a", "y"), flat("a", "x"))
        example.update("flat", {"code": "a"}, grp="y")
        found = [(change.before, change.after) for change in example.changes()]
        assert found == [(flat("a", "x"), flat("a", "y"))] * 2

    def test_another_links_writes_are_told(self, example: Example) -> None:
        """Only the link's own writes are echo; what another link writes is a change like every other."""
        example.need("links")
        other = example.system.connector("another")
        other.install(VIEWS)
        with other.transaction("flow", VIEWS) as transaction:
            transaction.write(FLATS, [Write(("a",), None, flat("a"))])
            transaction.commit(peer(1))
        (change,) = example.changes()
        assert (change.kind, change.after, change.seen, change.mark) == (INSERT, flat("a"), None, 0)

    def test_what_a_trigger_makes_of_our_write_is_told_behind_it(self, example: Example) -> None:
        """What a trigger of the application does to our write is a change of this side, that has seen our commit."""
        example.need("trigger")
        example.company()
        example.system.add_trigger()
        start = example.connector.end()
        example.write(ITEMS, Write(("usmf", "1"), None, item("usmf", "1", name="Abc")), position=peer(7))
        (change,) = example.changes(start)
        assert (change.kind, change.before) == (UPDATE, item("usmf", "1", name="Abc"))
        assert change.after == item("usmf", "1", name="ABC")
        assert (change.seen, change.mark) == (peer(7), 1)
        assert example.fetch(ITEMS, "usmf", "1") == [item("usmf", "1", name="ABC")]

    def test_a_trigger_that_agrees_with_our_write_is_not_told(self, example: Example) -> None:
        """Where the trigger leaves what we wrote, there is nothing to tell."""
        example.need("trigger")
        example.company()
        example.system.add_trigger()
        start = example.connector.end()
        example.insert(ITEMS, item("usmf", "1", name="ABC"))
        example.replace(ITEMS, item("usmf", "1", name="ABC"), item("usmf", "1", name="ABC", note="x"))
        assert example.changes(start) == []

    def test_writing_what_a_trigger_has_made_is_not_told(self, example: Example) -> None:
        """What we write over a trigger's work in the same transaction wins, and is ours."""
        example.need("trigger")
        example.company()
        example.system.add_trigger()
        start = example.connector.end()
        with example.connector.transaction("flow", VIEWS) as transaction:
            transaction.write(ITEMS, [Write(("usmf", "1"), None, item("usmf", "1", name="Abc"))])
            capitals = item("usmf", "1", name="ABC")
            transaction.write(ITEMS, [Write(("usmf", "1"), capitals, item("usmf", "1", name="ABC", note="x"))])
            transaction.commit(None)
        assert example.changes(start) == []
        assert example.fetch(ITEMS, "usmf", "1") == [item("usmf", "1", name="ABC", note="x")]

    def test_a_trigger_on_a_users_write_is_told(self, example: Example) -> None:
        """The last image of a user's change shows the trigger's work."""
        example.need("trigger")
        company = example.company()
        example.system.add_trigger()
        example.item(company, "1", name="Abc")
        assert example.changes()[-1].after == item("usmf", "1", name="ABC")

    def test_what_our_delete_does_to_others_is_told(self, example: Example) -> None:
        """References that the system clears because we deleted their target are changes of this side."""
        example.need("set null")
        company = example.company()
        group = example.group(company)
        example.item(company, "1", grp=group)
        start = example.connector.end()
        example.write(GROUPS, Write(("usmf", "retail"), ("usmf", "retail"), None), position=peer(3))
        (change,) = example.changes(start)
        assert (change.kind, change.before, change.after) == (
            UPDATE,
            item("usmf", "1", grp="retail"),
            item("usmf", "1"),
        )
        assert (change.seen, change.mark) == (peer(3), 1)

    # -- markers ----------------------------------------------------------------------------------------------------

    def test_changes_tell_how_far_their_side_had_received(self, example: Example) -> None:
        """Every change bears the position and the number of the link's last commit before it."""
        example.flat("a")
        for number in (1, 2):
            example.write(FLATS, Write((f"ours{number}",), None, flat(f"ours{number}")), position=peer(10 * number))
            example.flat(f"b{number}")
            example.flat(f"c{number}")
        assert seen_of(example.changes()) == [(None, 0), (peer(10), 1), (peer(10), 1), (peer(20), 2), (peer(20), 2)]
        last = example.batches()[-1]
        assert (last.seen, last.mark) == (peer(20), 2)

    def test_a_commit_without_position_marks_too(self, example: Example) -> None:
        """A commit that leaves the stream where it is counts, and says the same position again."""
        example.write(FLATS, position=peer(5))
        example.write(FLATS)
        example.flat("a")
        assert seen_of(example.changes()) == [(peer(5), 2)]
        assert example.connector.positions() == {"flow": (peer(5), 2)}

    def test_a_marker_alone_moves_the_feed(self, example: Example) -> None:
        """A batch without changes still tells the last marker."""
        start = example.connector.end()
        example.write(FLATS, position=peer(5))
        last = example.batches(start)[-1]
        assert (last.changes, last.seen, last.mark) == ((), peer(5), 1)

    def test_what_was_seen_does_not_depend_on_where_reading_began(self, example: Example) -> None:
        """A feed that begins behind a marker knows it all the same."""
        example.write(FLATS, position=peer(5))
        start = example.connector.end()
        example.flat("a")
        assert seen_of(example.changes(start)) == [(peer(5), 1)]
        (batch,) = example.batches(example.connector.end())
        assert (batch.seen, batch.mark) == (peer(5), 1)

    # -- the barrier ------------------------------------------------------------------------------------------------

    def test_a_transaction_reads_the_same_changes(self, example: Example) -> None:
        """What a transaction reads behind a position is what the feed delivers there, tags and all."""
        example.flat("before")
        start = example.connector.end()
        company = example.company()
        example.write(FLATS, Write(("ours",), None, flat("ours")), position=peer(4))
        example.item(company, "1", grp=example.group(company))
        example.update("flat", {"code": "ours"}, grp="x")
        views: list[View] = [ITEMS, FLATS]
        with example.connector.transaction("flow", views) as transaction:
            transaction.write(FLATS, [Write(("new",), None, flat("new"))])
            assert list(transaction.since(start).changes) == example.changes(start, views)
            assert list(transaction.since(example.connector.end()).changes) == []

    def test_a_transaction_reads_no_more_than_it_is_asked_to(self, example: Example) -> None:
        """Fewer changes than the limit are all there are; otherwise reading goes on behind those that came."""
        start = example.connector.end()
        for number in range(5):
            example.flat(str(number))
        expected = example.changes(start, [FLATS])
        with example.connector.transaction("flow", [FLATS]) as transaction:
            assert list(transaction.since(start, 6).changes) == expected
            found, place = list[Change](), start
            while len(found) < len(expected):
                batch = transaction.since(place, 2)
                assert batch.changes
                found += batch.changes
                place = batch.position
        assert found == expected

    def test_a_transaction_says_where_it_reads_less_because_rows_are_large(self, example: Example) -> None:
        """Reading goes on behind those that came; without a limit all of them come."""
        start = example.connector.end()
        for number in range(5):
            example.flat(str(number), grp="x" * (LARGEST // 2))
        expected = example.changes(start, [FLATS])
        with example.connector.transaction("flow", [FLATS]) as transaction:
            assert list(transaction.since(start).changes) == expected
            found, place, is_cut = list[Change](), start, True
            while is_cut:
                batch = transaction.since(place, 1_000)
                found, place, is_cut = [*found, *batch.changes], batch.position, batch.cut
        assert found == expected

    def test_nobody_slips_in_between_the_barrier_and_the_commit(self, example: Example) -> None:
        """A user's change of a record that we write is either known to the transaction or behind its marker."""
        example.flat("a", points="0")
        for number in range(1, 11):
            begun = Event()

            def edit(value: str, begun: Event) -> None:
                begun.set()
                example.update("flat", {"code": "a"}, points=value)

            start = example.connector.end()
            user = Thread(target=edit, args=(str(number), begun))
            user.start()
            begun.wait()
            with example.connector.transaction("flow", VIEWS) as transaction:
                known = list(transaction.since(start).changes)
                row = transaction.fetch(FLATS, [("a",)])["a",][0]
                transaction.write(FLATS, [Write(("a",), row, flat("a", str(number), None, row[3]))])
                known += [change for change in transaction.since(start).changes if change not in known]
                ours = transaction.number
                transaction.commit(peer(number))
            user.join()
            (change,) = example.changes(start)
            assert (change in known) == (change.mark < ours)

    # -- keeping ----------------------------------------------------------------------------------------------------

    def test_what_is_acknowledged_is_forgotten(self, example: Example) -> None:
        """Behind an acknowledged position reading goes on, before it the feed is lost; nothing else changes."""
        example.flat("a")
        early = example.batches()[-1].position
        example.flat("b")
        middle = example.batches()[-1].position
        example.flat("c")
        example.connector.acknowledge(middle)
        example.connector.acknowledge(middle)
        example.connector.acknowledge(early)
        assert [change.key for change in example.changes(middle)] == [("c",)]
        assert [change.key for change in example.changes()] == [("c",)]
        with pytest.raises(PositionLost):
            example.connector.feed(VIEWS, early).read(10, 0)
        with pytest.raises(PositionLost), example.connector.transaction("flow", VIEWS) as transaction:
            transaction.since(early)
        assert len(example.rows(FLATS)) == 3

    def test_what_is_kept_for_a_link_is_counted(self, example: Example) -> None:
        """What users do adds to it; a link that is not installed costs nothing."""
        before = example.connector.retained()
        for number in range(20):
            example.flat(f"code {number}")
        assert example.connector.retained() > before
        other = example.system.connector("absent")
        assert other.retained() == 0
        other.close()

    def test_what_was_let_go_never_goes_back(self, example: Example) -> None:
        """The system itself knows how far it has forgotten changes: no farther than it was allowed to."""
        assert example.connector.let_go() is None
        known = [Position("", ())]
        for key in ("a", "b", "c"):
            example.flat(key)
            end = example.batches()[-1].position
            example.connector.acknowledge(end)
            found = example.connector.let_go()
            if found is not None:  # it may forget later than it is allowed to
                assert known[-1].feed in ("", end.feed)
                assert known[-1].place <= found.place <= end.place
                known.append(found)

    def test_the_last_marker_is_kept(self, example: Example) -> None:
        """Changes behind an acknowledged marker still tell what their side had seen."""
        example.write(FLATS, position=peer(1))
        example.write(FLATS, position=peer(2))
        example.flat("a")
        end = example.connector.end()
        example.flat("b")
        example.connector.acknowledge(end)
        assert seen_of(example.changes()) == [(peer(2), 2)]
        example.connector.acknowledge(example.connector.end())
        (batch,) = example.batches()
        assert (batch.changes, batch.seen, batch.mark) == ((), peer(2), 2)
        assert example.connector.positions() == {"flow": (peer(2), 2)}

    def test_a_running_feed_survives_trimming(self, example: Example) -> None:
        """Acknowledging what a feed has delivered does not disturb it."""
        example.flat("a")
        feed = example.connector.feed(VIEWS, None)
        example.connector.acknowledge(drain(feed, example.connector.end())[-1].position)
        example.flat("b")
        found = [change.key for batch in drain(feed, example.connector.end()) for change in batch.changes]
        assert found == [("b",)]
        feed.close()

    def test_a_feed_that_somebody_else_has_trimmed_tells_the_right_places(self, example: Example) -> None:
        """Where only our own commits lay between it may go on behind them; else it is lost."""
        feed = example.connector.feed(VIEWS, example.connector.end())
        for number in range(3):
            example.write(FLATS, position=peer(number + 1))
        example.connector.acknowledge(example.connector.end())
        example.flat("a")
        (known,) = example.changes()
        with suppress(PositionLost):
            found = [change for batch in drain(feed, example.connector.end()) for change in batch.changes]
            assert [(change.position, change.seen, change.mark) for change in found] == [(known.position, peer(3), 3)]
        feed.close()

    def test_places_of_another_feed_are_lost(self, example: Example) -> None:
        """A position of another incarnation, or beyond the end as after restoring a backup, is refused."""
        example.flat("a")
        end = example.connector.end()
        beyond = Position(end.feed, (end.place[0] + 1_000_000, *end.place[1:]))
        for lost in (Position("another", end.place), beyond):
            with pytest.raises(PositionLost):
                example.connector.feed(VIEWS, lost).read(10, 0)
