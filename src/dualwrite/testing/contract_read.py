"""The part of the contract about schema, installing, snapshots and fetching."""

from __future__ import annotations

from dataclasses import replace
from threading import Thread

import pytest

from dualwrite.errors import PositionLost
from dualwrite.expression import And, Column, Compare, Expression, Literal, Not, OneOf, Or
from dualwrite.model import ABSENT, Kind, Position, Row, Value, Write
from dualwrite.testing.example import (
    COMPANIES,
    FLATS,
    GROUPS,
    ITEMS,
    PRICES,
    SCHEMA,
    VIEWS,
    Example,
    System,
    drain,
    flat,
    item,
    peer,
)


def _is(operator: str, column: str, value: Value) -> Compare:
    return Compare(operator, Column((column,)), Literal(value))


FILTERED = {
    "a": flat("a", "x", "t1", "9"),
    "b": flat("b", "y", None, "10"),
    "c": flat("c", "", "T3", None),
    "d": flat("d"),
}
FILTERS: list[tuple[Expression, str]] = [
    (And(()), "abcd"),
    (Or(()), ""),
    (_is("eq", "grp", "x"), "a"),
    (_is("ne", "grp", "x"), "bc"),
    (_is("eq", "grp", None), "d"),
    (_is("ne", "grp", None), "abc"),
    (_is("eq", "grp", ""), "c"),
    (Not(_is("eq", "grp", "x")), "bcd"),
    (_is("gt", "points", "9"), "b"),
    (_is("ge", "points", "9"), "ab"),
    (_is("lt", "points", "10"), "a"),
    (_is("le", "points", "10"), "ab"),
    (_is("contains", "tag", "1"), "a"),
    (_is("startswith", "tag", "T"), "c"),
    (_is("endswith", "tag", "3"), "c"),
    (_is("contains", "tag", "%"), ""),
    (OneOf(Column(("code",)), (Literal("a"), Literal("d"), Literal("z"))), "ad"),
    (And((_is("ne", "grp", None), Or((_is("eq", "code", "a"), _is("eq", "code", "d"))))), "a"),
]


class ReadContract:
    """Schema, installing, snapshots and fetching."""

    def test_the_schema_says_what_the_tables_are(self, example: Example) -> None:
        """Columns come with their types, limits and whether they may be null."""
        found = example.connector.schema()
        for name, table in SCHEMA.tables.items():
            columns = {c.name: (c.type.name, c.nullable) for c in found.tables[name].columns}
            assert columns == {c.name: (c.type.name, c.nullable) for c in table.columns}
        types = {c.name: c.type for c in found.tables["item"].columns}
        assert types["name"].length == 20
        assert (types["amount"].precision, types["amount"].scale) == (12, 2)

    def test_the_schema_says_how_records_are_identified(self, example: Example) -> None:
        """Primary keys, unique sets of columns and references are those of the system."""
        found = example.connector.schema()
        for name, table in SCHEMA.tables.items():
            assert found.tables[name].primary_key == table.primary_key
            assert {frozenset(u) for u in found.tables[name].uniques} == {frozenset(u) for u in table.uniques}

    def test_the_schema_says_what_records_refer_to(self, example: Example) -> None:
        """References bear the names of their columns and lead to the right ones."""
        found = example.connector.schema()
        for name, table in SCHEMA.tables.items():
            assert set(found.tables[name].references) == set(table.references)

    def test_the_system_stays_the_same_system(self, example: Example) -> None:
        """Its identity outlives connectors and changes of data."""
        identity = example.connector.identity()
        example.flat("a")
        assert example.system.connector().identity() == identity

    def test_a_sound_system_has_no_findings(self, example: Example) -> None:
        """Health finds nothing where every prerequisite is met, before and after installing."""
        assert example.connector.health(VIEWS) == []
        example.connector.uninstall()
        assert example.connector.health(VIEWS) == []

    def test_installing_again_changes_nothing(self, example: Example) -> None:
        """A change is captured once, however often capture was installed, and what was captured stays."""
        example.flat("a")
        example.system.connector().install(VIEWS)
        example.flat("b")
        assert [change.key for change in example.changes()] == [("a",), ("b",)]

    def test_installing_other_views_extends_and_reduces_the_capture(self, system: System) -> None:
        """Exactly the tables of the last call are captured from then on."""
        connector = system.connector()
        connector.install([FLATS])
        example = Example(system)
        start = example.connector.end()
        example.company()
        assert [change.view for change in example.changes(start)] == ["companies"]
        connector.install([COMPANIES])
        start = example.connector.end()
        example.flat("late")
        example.company("demf")
        assert [change.view for change in example.changes(start, [COMPANIES])] == ["companies"]

    def test_uninstalling_leaves_no_trace(self, example: Example) -> None:
        """Everything of the link is gone, users go on, and a new installation knows nothing of the old one."""
        example.flat("a")
        with example.connector.transaction("flow") as transaction:
            transaction.remember("kind", "flats", "key", "value")
            transaction.commit(peer(1))
        old = example.connector.end()
        example.connector.uninstall()
        example.connector.uninstall()
        assert list(example.system.traces()) == []
        example.flat("b")
        example.connector.install(VIEWS)
        assert dict(example.connector.positions()) == {}
        assert list(example.connector.remembered("kind")) == []
        assert example.changes() == []
        assert [row[0] for row in example.rows(FLATS)] == ["a", "b"]
        with pytest.raises(PositionLost):
            example.connector.feed(VIEWS, old).read(10, 0)

    def test_a_snapshot_holds_every_row_once(self, example: Example) -> None:
        """All rows of a larger table arrive, in blocks, each of them once."""
        with example.system.user() as user:
            for number in range(2500):
                user.insert("flat", {"code": f"{number:05}"})
        with example.connector.snapshot(FLATS) as snapshot:
            blocks = list(snapshot.blocks())
        assert len(blocks) > 1
        assert sorted(str(row[0]) for block in blocks for row in block) == [f"{n:05}" for n in range(2500)]

    def test_rows_can_be_read_beside_whoever_reads_the_feed(self, example: Example) -> None:
        """A snapshot that needs no place waits for nobody, however few may read the feed."""
        example.flat("a")
        assert len(example.changes()) == 1
        other = example.system.connector()
        with other.snapshot(FLATS, placed=False) as snapshot:
            assert [row for block in snapshot.blocks() for row in block] == [flat("a")]
        other.close()

    def test_an_empty_table_is_read(self, example: Example) -> None:
        """A snapshot without rows is no error."""
        assert example.rows(FLATS) == []

    def test_lookups_are_read_in_natural_form(self, example: Example) -> None:
        """Rows show the key columns of the records that they refer to, and null where they refer to none."""
        company = example.company()
        group = example.group(company)
        parent = example.item(company, "1")
        example.item(company, "2", grp=group, parent=parent)
        example.item(None, "3")
        assert example.rows(GROUPS) == [("usmf", "retail")]
        assert example.rows(ITEMS) == sorted(
            [item("usmf", "1"), item("usmf", "2", grp="retail", parent="1"), item(None, "3")], key=repr
        )

    def test_a_reference_over_several_columns_is_read(self, example: Example) -> None:
        """A natural reference that shares the company column is null when its own part is."""
        with example.system.user() as user:
            user.insert("list", {"company": "usmf", "name": "summer"})
            user.insert("price", {"company": "usmf", "item": "1", "list": "summer", "value": "1.00"})
            user.insert("price", {"company": "usmf", "item": "2", "list": None, "value": None})
        assert example.rows(PRICES) == [("usmf", "1", "summer", "1.00"), ("usmf", "2", None, None)]

    def test_a_lookup_that_leads_nowhere_is_absent(self, example: Example) -> None:
        """A dangling reference is neither a value nor null: ABSENT, wherever rows are read."""
        example.need("dangling")
        company = example.company()
        group = example.group(company)
        example.item(company, "1", grp=group)
        example.delete("grp", id=group)
        wanted = item("usmf", "1", grp=ABSENT)
        assert example.rows(ITEMS) == [wanted]
        assert example.fetch(ITEMS, "usmf", "1") == [wanted]
        start = example.connector.end()
        example.update("item", {"code": "1"}, note="new")
        assert [change.after for change in example.changes(start)] == [item("usmf", "1", grp=ABSENT, note="new")]

    @pytest.mark.parametrize(("condition", "wanted"), FILTERS, ids=[str(number) for number in range(len(FILTERS))])
    def test_a_snapshot_holds_what_passes_the_filter(
        self, example: Example, condition: Expression, wanted: str
    ) -> None:
        """Filters mean in the system what they mean on paper; fetching ignores them."""
        for row in FILTERED.values():
            code, *values = row
            assert isinstance(code, str)
            named = zip(("grp", "tag", "points"), values, strict=True)
            example.flat(code, **{name: value for name, value in named if value is not ABSENT})
        view = replace(FLATS, filter=condition)
        assert example.rows(view) == [FILTERED[code] for code in wanted]
        assert [example.fetch(view, code) for code in "abcd"] == [[row] for row in FILTERED.values()]

    def test_a_filter_sees_through_lookups(self, example: Example) -> None:
        """A path to a referenced record can be filtered, and compared by the type of its column."""
        for code in ("usmf", "demf"):
            example.item(example.company(code), "1", amount="10.00" if code == "usmf" else "9.00")
        by_company = Compare("eq", Column(("company", "code")), Literal("demf"))
        assert example.rows(replace(ITEMS, filter=by_company)) == [item("demf", "1", amount="9.00")]
        assert example.rows(replace(ITEMS, filter=_is("gt", "amount", "9"))) == [item("usmf", "1", amount="10.00")]

    def test_a_change_is_in_the_snapshot_or_behind_its_boundary(self, example: Example) -> None:
        """What is committed while a snapshot is read is not in it, and follows its boundary in the feed."""
        with example.system.user() as user:
            for number in range(2500):
                user.insert("flat", {"code": f"{number:05}"})
        with example.connector.snapshot(FLATS) as snapshot:
            blocks = snapshot.blocks()
            rows = list(next(blocks))
            example.flat("00000a")
            example.flat("z")
            example.update("flat", {"code": "02499"}, grp="late")
            example.update("flat", {"code": "00000"}, grp="late")
            example.delete("flat", code="02498")
            rows += [row for block in blocks for row in block]
            boundary = snapshot.boundary
        assert sorted(rows, key=repr) == [flat(f"{number:05}") for number in range(2500)]
        assert [(change.kind, change.key) for change in example.changes(boundary)] == [
            (Kind.INSERT, ("00000a",)),
            (Kind.INSERT, ("z",)),
            (Kind.UPDATE, ("02499",)),
            (Kind.UPDATE, ("00000",)),
            (Kind.DELETE, ("02498",)),
        ]

    def test_a_snapshot_finds_records_as_they_were(self, example: Example) -> None:
        """By their keys, whatever the filter says; what is committed since is not in it."""
        example.flat("a", grp="before")
        with example.connector.snapshot(replace(FLATS, filter=_is("eq", "grp", "other"))) as snapshot:
            assert snapshot.fetch([("a",)]) == {("a",): [flat("a", "before")]}
            example.update("flat", {"code": "a"}, grp="after")
            example.flat("b")
            assert snapshot.fetch([("a",), ("b",)]) == {("a",): [flat("a", "before")]}

    def test_snapshots_and_feed_fit_while_others_write(self, example: Example) -> None:
        """Whenever a snapshot is taken: its rows with the feed behind its boundary make the final table."""
        codes = [f"{number:03}" for number in range(60)]
        writer = Thread(target=lambda: example.flats(codes, points="1"))
        writer.start()
        taken: list[tuple[Position, list[Row]]] = []
        while writer.is_alive() or not taken:
            with example.connector.snapshot(FLATS) as snapshot:
                taken.append((snapshot.boundary, [row for block in snapshot.blocks() for row in block]))
        writer.join()
        for boundary, rows in taken[:: max(1, len(taken) // 10)]:
            behind = [change.after for change in example.changes(boundary)]
            assert sorted([*rows, *behind], key=repr) == [flat(code, points="1") for code in codes]

    def test_fetching_finds_records_by_their_key(self, example: Example) -> None:
        """The answer holds the keys as they were asked, without those that no record has."""
        company = example.company()
        example.item(company, "1")
        example.item(None, "1", name="of no company")
        found = example.connector.fetch(ITEMS, [("usmf", "1"), (None, "1"), ("usmf", "2"), ("demf", "1")])
        assert found == {("usmf", "1"): [item("usmf", "1")], (None, "1"): [item(None, "1", name="of no company")]}
        assert example.connector.fetch(ITEMS, []) == {}

    def test_null_and_empty_are_one_in_keys(self, example: Example) -> None:
        """A key with null finds the record that holds the empty text, and the other way round."""
        view = replace(FLATS, key=(1, 0))
        example.flat("a", grp="")
        example.flat("b", grp=None)
        found = example.connector.fetch(view, [(None, "a"), ("", "b"), ("", "a"), (None, "b"), ("x", "a")])
        rows: dict[str, Row] = {"a": flat("a", ""), "b": flat("b")}
        assert found == {(grp, code): [rows[code]] for grp, code in [(None, "a"), ("", "b"), ("", "a"), (None, "b")]}

    def test_all_records_of_a_key_are_fetched(self, example: Example) -> None:
        """Where several records hold a key, none is picked."""
        for code in ("a", "b", "c"):
            example.flat(code, grp="x" if code < "c" else "y")
        found = example.connector.fetch(replace(FLATS, key=(1,)), [("x",), ("y",)])
        assert {key: sorted(str(row[0]) for row in rows) for key, rows in found.items()} == {
            ("x",): ["a", "b"],
            ("y",): ["c"],
        }

    def test_a_transaction_fetches_its_own_writes(self, example: Example) -> None:
        """Inside the transaction its writes are visible, outside they are not before it commits."""
        with example.connector.transaction("flow") as transaction:
            transaction.write(FLATS, [Write(("a",), None, flat("a"))])
            assert transaction.fetch(FLATS, [("a",)]) == {("a",): [flat("a")]}
            assert example.connector.fetch(FLATS, [("a",)]) == {}
            transaction.commit(None)
        assert example.fetch(FLATS, "a") == [flat("a")]

    def test_the_end_is_behind_everything(self, example: Example) -> None:
        """The end moves with commits and is a place to read on from."""
        first = example.connector.end()
        example.flat("a")
        second = example.connector.end()
        assert first < second
        feed = example.connector.feed(VIEWS, first)
        assert [change.key for batch in drain(feed, second) for change in batch.changes] == [("a",)]
        assert example.changes(second) == []
