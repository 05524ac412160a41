"""The part of the contract about transactions: what commits as one, what a crash leaves, who comes after whom."""

from __future__ import annotations

from threading import Event, Thread

import pytest

from dualwrite.connectors.base import Remembered
from dualwrite.model import ABSENT, Applied, Contested, Kind, Position, Rejected, Write
from dualwrite.testing.example import FLATS, PATIENCE, VIEWS, Example, flat, peer


def remembered(example: Example, kind: str = "parked") -> set[tuple[str, str, int, int | None]]:
    """The side table's entries of a kind: key, value, since and until."""
    return {(entry.key, entry.value, entry.since, entry.until) for entry in example.connector.remembered(kind)}


class CommitContract:
    """What commits as one, what a crash leaves, who comes after whom."""

    def test_everything_commits_as_one(self, example: Example) -> None:
        """Rows, side table, marker and position are there together, for every connector."""
        with example.connector.transaction("flow", VIEWS) as transaction:
            assert transaction.position() is None
            assert transaction.number == 1
            transaction.write(FLATS, [Write(("a",), None, flat("a"))])
            transaction.remember("parked", "flats", "k", "v")
            transaction.commit(peer(9))
        connector = example.system.connector()
        assert dict(connector.positions()) == {"flow": (peer(9), 1)}
        assert list(connector.remembered("parked")) == [Remembered("parked", "flats", "k", "v", 1, None)]
        assert connector.fetch(FLATS, [("a",)]) == {("a",): [flat("a")]}
        example.flat("b")
        assert [(change.seen, change.mark) for change in example.changes()] == [(peer(9), 1)]

    def test_an_edit_is_a_change_of_this_side(self, example: Example) -> None:
        """What is written without a marker is in the feed like a user's change: insert, update, delete."""
        example.write(FLATS, position=peer(1))
        start = example.connector.end()
        edits = [
            Write(("a",), None, flat("a", tag="x", points="1")),
            Write(("a",), flat(ABSENT, ABSENT, "x", ABSENT), flat(ABSENT, ABSENT, "y", ABSENT)),
            Write(("a",), flat("a", None, "y", "1"), None),
        ]
        assert [example.connector.edit(FLATS, each) for each in edits] == [Applied()] * 3
        changes = example.changes(start)
        kinds = [(change.kind, change.before, change.after, change.seen, change.mark) for change in changes]
        assert kinds == [
            (Kind.INSERT, None, flat("a", None, "x", "1"), peer(1), 1),
            (Kind.UPDATE, flat("a", None, "x", "1"), flat("a", None, "y", "1"), peer(1), 1),
            (Kind.DELETE, flat("a", None, "y", "1"), None, peer(1), 1),
        ]
        assert dict(example.connector.positions()) == {"flow": (peer(1), 1)}

    def test_an_edit_that_meets_something_else_leaves_nothing(self, example: Example) -> None:
        """A record that is not as expected, or not there, stays as it is."""
        example.flat("a", tag="x")
        start = example.connector.end()
        update = Write(("a",), flat(ABSENT, ABSENT, "other", ABSENT), flat(ABSENT, ABSENT, "y", ABSENT))
        assert example.connector.edit(FLATS, update) == Contested(flat("a", None, "x"))
        assert example.connector.edit(FLATS, Write(("b",), flat("b"), flat("b", tag="y"))) == Contested(None)
        assert isinstance(example.connector.edit(FLATS, Write(("b",), None, flat("b", tag="x"))), Rejected)
        assert example.rows(FLATS) == [flat("a", None, "x")]
        assert example.changes(start) == []
        with example.connector.transaction("flow", VIEWS) as transaction:
            transaction.commit(peer(2))

    @pytest.mark.parametrize("way", ["leave", "raise", "crash", "close"])
    def test_nothing_is_left_without_a_commit(self, example: Example, way: str) -> None:
        """However a transaction ends before its commit: no row, no entry, no marker, no position, no lock remains."""
        example.write(FLATS, position=peer(1))
        start = example.connector.end()
        connector = example.system.connector()
        transaction = connector.transaction("flow", VIEWS)
        transaction.write(FLATS, [Write(("a",), None, flat("a"))])
        transaction.remember("parked", "flats", "k", "v")
        match way:
            case "leave":
                transaction.__exit__(None, None, None)
            case "raise":
                with pytest.raises(RuntimeError), transaction:
                    raise RuntimeError("a bug")
            case "crash":
                example.system.crash(connector)
            case _:
                connector.close()
        assert example.rows(FLATS) == []
        assert remembered(example) == set()
        assert dict(example.connector.positions()) == {"flow": (peer(1), 1)}
        assert example.changes(start) == []
        example.flat("b")
        with example.connector.transaction("flow", VIEWS) as following:
            assert (following.position(), following.number) == (peer(1), 2)
            following.commit(peer(2))
        assert [(change.seen, change.mark) for change in example.changes(start)] == [(peer(1), 1)]

    def test_a_crash_after_the_commit_loses_nothing(self, example: Example) -> None:
        """What was committed is there although the process died right behind it."""
        connector = example.system.connector()
        transaction = connector.transaction("flow", VIEWS)
        transaction.write(FLATS, [Write(("a",), None, flat("a"))])
        transaction.commit(peer(1))
        example.system.crash(connector)
        assert example.rows(FLATS) == [flat("a")]
        assert dict(example.connector.positions()) == {"flow": (peer(1), 1)}

    def test_streams_have_positions_of_their_own(self, example: Example) -> None:
        """Each stream keeps its position; the commits are numbered through."""
        for number, stream in enumerate(["flow", "queue", "flow"], 1):
            with example.connector.transaction(stream, VIEWS) as transaction:
                assert transaction.number == number
                transaction.commit(peer(number))
        assert dict(example.connector.positions()) == {"flow": (peer(3), 3), "queue": (peer(2), 3)}

    def test_any_position_can_be_kept(self, example: Example) -> None:
        """Positions of feeds with any name and of any depth come back as they were."""
        for position in (Position("feed/with @ and 'quotes'", (1, 2, 3)), Position("x", (2**62,)), Position("", ())):
            example.write(FLATS, position=position)
            assert example.connector.positions()["flow"][0] == position

    def test_a_later_transaction_knows_the_moved_position(self, example: Example) -> None:
        """Two connectors cannot both move a stream from one old position: the second one sees what the first left."""
        first = example.connector.transaction("flow", VIEWS)
        assert first.position() is None
        begun = Event()
        found: list[tuple[Position | None, int]] = []

        def follow() -> None:
            connector = example.system.connector()
            begun.set()
            with connector.transaction("flow", VIEWS) as second:
                found.append((second.position(), second.number))
                second.commit(peer(2))
            connector.close()

        rival = Thread(target=follow, daemon=True)
        rival.start()
        begun.wait()
        first.commit(peer(1))
        first.__exit__(None, None, None)
        rival.join(PATIENCE)
        assert found == [(peer(1), 2)]
        assert dict(example.connector.positions()) == {"flow": (peer(2), 2)}

    def test_many_connectors_move_a_stream_one_by_one(self, example: Example) -> None:
        """Of several engines that count a stream upwards at the same time, none overwrites another."""

        def count() -> None:
            connector = example.system.connector()
            for _ in range(10):
                with connector.transaction("flow", VIEWS) as transaction:
                    position = transaction.position()
                    transaction.commit(peer(position.place[0] + 1 if position else 1))
            connector.close()

        rivals = [Thread(target=count) for _ in range(3)]
        for rival in rivals:
            rival.start()
        for rival in rivals:
            rival.join()
        assert dict(example.connector.positions()) == {"flow": (peer(30), 30)}

    def test_the_side_table_tells_from_when_to_when(self, example: Example) -> None:
        """An entry knows the commit that wrote it and the one that removed or replaced it."""
        steps = [("a", "1"), ("b", "2"), ("a", None), ("b", "3"), ("a", "4"), ("c", None)]
        for key, value in steps:
            with example.connector.transaction("flow", VIEWS) as transaction:
                transaction.remember("parked", "flats", key, value)
                transaction.remember("hidden", "flats", key, "other kind")
                transaction.commit(None)
        assert remembered(example) == {("a", "1", 1, 3), ("b", "2", 2, 4), ("b", "3", 4, None), ("a", "4", 5, None)}
        assert {entry.view for entry in example.connector.remembered("parked")} == {"flats"}

    def test_very_many_entries_come_in_their_order(self, example: Example) -> None:
        """However few of them are read at once, and whether or not somebody wants them all."""
        keys = [f"k{number}" for number in range(4_100)]
        for kind in ("parked", "hidden"):
            with example.connector.transaction("flow", VIEWS) as transaction:
                for key in keys:
                    transaction.remember(kind, "flats", key, f"{kind} {key}")
                transaction.commit(None)
        found = [(entry.key, entry.value) for entry in example.connector.remembered("parked")]
        assert found == [(key, f"parked {key}") for key in keys]
        assert next(example.connector.remembered("hidden")).key == "k0"
        assert example.connector.positions() == {}, "nothing is in the way of what is asked next"

    def test_removed_entries_stay_while_older_changes_do(self, example: Example) -> None:
        """A removed entry is readable as long as the feed may deliver changes from before its removal."""
        values = ["v", None]
        for value in values:
            with example.connector.transaction("flow", VIEWS) as transaction:
                transaction.remember("parked", "flats", "k", value)
                transaction.commit(None)
            example.flat(f"after {value}")
        between, behind = (change.position for change in example.changes())
        example.connector.acknowledge(between)
        assert remembered(example) == {("k", "v", 1, 2)}
        example.connector.acknowledge(behind)
        assert remembered(example) <= {("k", "v", 1, 2)}
        assert [change.key for change in example.changes()] == []

    def test_closing_twice_is_harmless(self, example: Example) -> None:
        """A connector can be closed again, and the system goes on without it."""
        connector = example.system.connector()
        connector.feed(VIEWS, None).read(1, 0)
        connector.close()
        connector.close()
        example.flat("a")
        assert [change.key for change in example.changes()] == [("a",)]

    def test_the_clock_goes_on(self, example: Example) -> None:
        """The system's time does not run backwards."""
        first = example.connector.clock()
        assert first <= example.connector.clock()
