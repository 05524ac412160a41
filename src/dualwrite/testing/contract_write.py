"""The part of the contract about writing: what becomes of rows, and what each outcome means."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dualwrite.lined import Lined, text_of
from dualwrite.model import (
    ABSENT,
    Applied,
    Contested,
    Key,
    MissingParent,
    Outcome,
    Rejected,
    Row,
    Unchanged,
    Value,
    Write,
)
from dualwrite.testing.example import ALL_KINDS, COMPANIES, FLATS, GROUPS, ITEMS, PRICES, VIEWS, Example, flat, item

APPLIED, UNCHANGED = Applied(), Unchanged()
NOTHING = item(
    ABSENT, ABSENT, name=ABSENT, amount=ABSENT, active=ABSENT, day=ABSENT, grp=ABSENT, parent=ABSENT, note=ABSENT
)

NASTY: dict[str, tuple[Value, ...]] = {
    "text": (
        "",
        " ",
        " both ends ",
        "tab\tnewline\nreturn\rend",
        'it\'s "quoted" \\ `ticked` %s ? :name {x}',
        "Ünïcödé — 中文 — العربية",
        "emoji 👩‍👩‍👧‍👦 and combining e\u0301",
        "00012",
        "1e3",
        "12345678901234567890123456789",
        "NULL",
        "\\N",
        "false",
        "; DROP TABLE kinds; --",
        "x" * 5000,
    ),
    "integer": ("0", "-1", "42", "2147483648", "9223372036854775807", "-9223372036854775808"),
    "numeric": ("0.0000", "0.1000", "-0.0001", "1.0000", "99999999999.9999", "-99999999999.9999", "12345678.9000"),
    "float": ("0", "1", "-2.5", "0.1", "1e+100", "1.5e-07", "123456789.123"),
    "boolean": ("t", "f"),
    "date": ("2024-02-29", "1752-09-14", "1899-12-31", "0001-01-01", "9999-12-31"),
    "time": ("00:00:00", "23:59:59", "12:34:56.789"),
    "timestamp": ("2024-02-29 12:34:56", "1850-03-04 05:06:07", "1999-12-31 23:59:59.123456"),
    "timestamptz": ("2024-02-29 12:34:56+00", "1850-03-04 05:06:07+00", "1999-12-31 23:59:59.5+00"),
    "uuid": ("00000000-0000-0000-0000-000000000000", "c56a4180-65aa-42ec-a945-5fd21dec0538"),
    "bytes": ("\\x", "\\x00", "\\x00ff0a5c27"),
    "json": ("null", '{"a": [1, "é", null]}', '"text"', "[]"),
}
CASES = [(column, value) for column, values in NASTY.items() for value in (None, *values)]


def kinds(code: str, column: str, value: Value) -> Row:
    """A row of the view ``ALL_KINDS`` with one value."""
    return tuple(code if path == ("code",) else value if path == (column,) else None for path in ALL_KINDS.paths)


def rejected(outcome: Outcome, code: str) -> bool:
    """Was the row refused for this, with words of the system?"""
    return isinstance(outcome, Rejected) and outcome.code == code and bool(outcome.reason)


class WriteContract:
    """What becomes of rows, and what each outcome means."""

    @pytest.fixture
    def company(self, example: Example) -> Value:
        """A company ``usmf`` with a group ``retail``."""
        company = example.company()
        example.group(company)
        return company

    def test_an_insert_resolves_its_lookups(self, example: Example, company: Value) -> None:
        """A row in natural form becomes a record that holds the ids of what it refers to."""
        parent = example.item(company, "1")
        assert example.insert(ITEMS, item("usmf", "2", grp="retail", parent="1")) == APPLIED
        (record,) = example.records("item", code="2")
        assert (record["company"], record["parent"]) == (company, parent)
        assert record["grp"] == example.records("grp")[0]["id"]
        assert example.fetch(ITEMS, "usmf", "2") == [item("usmf", "2", grp="retail", parent="1")]

    def test_an_insert_leaves_absent_cells_to_the_system(self, example: Example) -> None:
        """ABSENT cells of a new record get what the system gives them by itself."""
        assert example.insert(FLATS, flat("a", "x", ABSENT, ABSENT)) == APPLIED
        assert example.fetch(FLATS, "a") == [flat("a", "x")]

    def test_an_update_leaves_absent_cells_alone(self, example: Example, company: Value) -> None:
        """Only the cells that are given change; absent lookups stay as well."""
        example.item(company, "1", grp=example.records("grp")[0]["id"], note="old")
        key: Key = ("usmf", "1")
        change = (*key, *NOTHING[2:8], "new")
        assert example.write(ITEMS, Write(key, NOTHING, change)) == [APPLIED]
        assert example.fetch(ITEMS, *key) == [item("usmf", "1", grp="retail", note="new")]

    def test_an_update_does_not_undo_what_it_does_not_mention(self, example: Example) -> None:
        """A cell that is neither expected nor written keeps what somebody else has put there."""
        example.flat("a", grp="x", points="1")
        example.update("flat", {"code": "a"}, points="2")
        before, after = flat("a", "x", ABSENT, ABSENT), flat("a", "y", ABSENT, ABSENT)
        assert example.write(FLATS, Write(("a",), before, after)) == [APPLIED]
        assert example.fetch(FLATS, "a") == [flat("a", "y", None, "2")]

    def test_cells_that_are_only_read_are_never_written(self, example: Example) -> None:
        """What the view does not list as written stays, whatever the row says."""
        view = replace(FLATS, written=(0, 1))
        example.flat("a", grp="x", points="1")
        assert example.replace(view, flat("a", "x", None, "1"), flat("a", "y", "t", "2")) == APPLIED
        assert example.fetch(FLATS, "a") == [flat("a", "y", None, "1")]

    def test_a_rename_keeps_the_record(self, example: Example, company: Value) -> None:
        """A row with another key moves the record; what refers to it goes along."""
        parent = example.item(company, "1")
        example.item(company, "2", parent=parent)
        assert example.replace(ITEMS, item("usmf", "1"), item("usmf", "one")) == APPLIED
        assert example.records("item", id=parent)[0]["code"] == "one"
        assert example.fetch(ITEMS, "usmf", "2") == [item("usmf", "2", parent="one")]

    def test_a_delete_removes_the_record(self, example: Example) -> None:
        """A write without a row deletes; deleting what is not there changes nothing."""
        example.flat("a")
        delete = Write(("a",), flat("a"), None)
        assert example.write(FLATS, delete) == [APPLIED]
        assert example.rows(FLATS) == []
        assert example.write(FLATS, delete) == [UNCHANGED]

    def test_what_is_there_already_is_not_written(self, example: Example, company: Value) -> None:
        """A record that holds the wanted row is left alone, whatever was expected."""
        example.item(company, "1", grp=example.records("grp")[0]["id"])
        start = example.connector.end()
        row = item("usmf", "1", grp="retail")
        key: Key = ("usmf", "1")
        for expect in (row, None, item("usmf", "1", note="something else")):
            assert example.write(ITEMS, Write(key, expect, row)) == [UNCHANGED]
        assert example.write(ITEMS, Write(key, row, NOTHING)) == [UNCHANGED]
        assert example.changes(start) == []

    def test_a_record_where_none_was_expected_is_contested(self, example: Example) -> None:
        """An insert that meets another record leaves it alone and tells its row."""
        example.flat("a", grp="x")
        assert example.insert(FLATS, flat("a", "y")) == Contested(flat("a", "x"))
        assert example.rows(FLATS) == [flat("a", "x")]

    def test_a_record_that_holds_something_else_is_contested(self, example: Example) -> None:
        """Updates and deletes that expected another row leave the record alone and tell its row."""
        example.flat("a", grp="x")
        for wanted in (flat("a", "z"), None):
            assert example.replace(FLATS, flat("a", "y"), wanted) == Contested(flat("a", "x"))
        assert example.rows(FLATS) == [flat("a", "x")]

    def test_null_and_empty_are_different_values(self, example: Example) -> None:
        """Outside of keys an expected null is not the empty text, and either can be written over the other."""
        example.flat("a", grp="")
        assert example.replace(FLATS, flat("a"), flat("a", "x")) == Contested(flat("a", ""))
        assert example.replace(FLATS, flat("a", ""), flat("a")) == APPLIED
        assert example.records("flat")[0]["grp"] is None
        assert example.replace(FLATS, flat("a"), flat("a", "")) == APPLIED
        assert example.records("flat")[0]["grp"] == ""

    @pytest.mark.parametrize("first", [0, 1])
    @pytest.mark.parametrize("whole", [False, True], ids=["written", "inserted"])
    def test_new_records_may_fill_different_columns(self, example: Example, first: int, whole: bool) -> None:
        """Of records that are written together, each fills what it speaks of, whatever another one is silent about."""
        rows: list[Row] = [flat("a", ABSENT, "t", "1"), flat("b", "x", ABSENT, "2"), flat("c", "y", "u", "3")]
        rows = [*rows[first:], *rows[:first]]
        with example.connector.transaction("stream", [FLATS]) as transaction:
            if not whole or not transaction.insert(FLATS, rows):
                writes = [Write(example.key(FLATS, row), None, row) for row in rows]
                assert transaction.write(FLATS, writes) == [APPLIED] * len(rows)
            transaction.commit(None)
        wanted = [tuple(None if cell is ABSENT else cell for cell in row) for row in rows]
        assert example.rows(FLATS) == sorted(wanted, key=repr)

    @pytest.mark.parametrize("key", ["c", ""])
    def test_new_records_may_be_lines(self, example: Example, key: str) -> None:
        """Rows that are lines still are inserted as what they say, whatever is in them; or none of them is."""
        rows: list[Row] = [flat("a", "x\t\\N\n", None, "1"), flat("b", "", "\\", "2"), flat(key, "y\r", "u", "3")]
        lined = Lined(text_of(rows).splitlines(keepends=True), len(rows[0]))
        with example.connector.transaction("stream", [FLATS]) as transaction:
            done = transaction.insert(FLATS, lined)
            transaction.commit(None)
        assert example.rows(FLATS) == (sorted(rows, key=repr) if done else [])

    def test_an_expected_record_that_is_gone_is_contested(self, example: Example) -> None:
        """An update of a record that is not there tells that there is none."""
        assert example.replace(FLATS, flat("a"), flat("a", "x")) == Contested(None)
        assert example.rows(FLATS) == []

    def test_expected_lookups_are_compared_in_natural_form(self, example: Example, company: Value) -> None:
        """A reference to another record than expected is contested, the expected one is written over."""
        trade = example.group(company, "trade")
        example.item(company, "1", grp=trade)
        held = item("usmf", "1", grp="trade")
        assert example.replace(ITEMS, item("usmf", "1", grp="retail"), item("usmf", "1")) == Contested(held)
        assert example.replace(ITEMS, held, item("usmf", "1", grp="retail")) == APPLIED
        assert example.fetch(ITEMS, "usmf", "1") == [item("usmf", "1", grp="retail")]

    def test_a_missing_parent_is_named(self, example: Example, company: Value) -> None:
        """A lookup that finds no record tells which; its row is not written, the others are."""
        example.item(company, "3")
        orphan = Write(("usmf", "2"), None, item("usmf", "2", grp="unknown"))
        lost = Write(("usmf", "3"), item("usmf", "3"), item("usmf", "3", parent="nobody"))
        alien = Write(("demf", "4"), None, item("demf", "4"))
        sound = Write(("usmf", "1"), None, item("usmf", "1", grp="retail"))
        assert example.write(ITEMS, orphan, lost, alien, sound) == [
            MissingParent("grp", "grp", ("unknown", "usmf")),
            MissingParent("parent", "item", ("nobody", "usmf")),
            MissingParent("company", "company", ("demf",)),
            APPLIED,
        ]
        assert example.rows(ITEMS) == sorted([item("usmf", "1", grp="retail"), item("usmf", "3")], key=repr)

    def test_a_lookup_is_resolved_by_all_its_parts(self, example: Example, company: Value) -> None:
        """Of two parents of one name, the one in the row's company is meant."""
        other = example.company("demf")
        group = example.group(other)
        assert example.insert(ITEMS, item("demf", "1", grp="retail")) == APPLIED
        assert [record["grp"] for record in example.records("item")] == [group]
        assert example.replace(ITEMS, item("demf", "1", grp="retail"), item("usmf", "1", grp="retail")) == APPLIED
        assert [record["company"] for record in example.records("item")] == [company]
        assert [record["grp"] for record in example.records("item")] != [group]

    def test_a_null_lookup_clears_the_reference(self, example: Example, company: Value) -> None:
        """Null means no record, ABSENT leaves the reference alone."""
        example.item(company, "1", grp=example.records("grp")[0]["id"])
        held = item("usmf", "1", grp="retail")
        assert example.replace(ITEMS, held, item("usmf", "1", grp=ABSENT, note="x")) == APPLIED
        assert example.records("item")[0]["grp"] is not None
        assert example.replace(ITEMS, item("usmf", "1", grp="retail", note="x"), item("usmf", "1")) == APPLIED
        assert example.records("item")[0]["grp"] is None

    def test_a_reference_over_several_columns_is_written(self, example: Example) -> None:
        """Of a natural reference only the own part is written; clearing it leaves the company."""
        with example.system.user() as user:
            for name in ("summer", "winter"):
                user.insert("list", {"company": "usmf", "name": name})
        first, second, third = (("usmf", "1", name, "1.00") for name in ("summer", "winter", None))
        assert example.insert(PRICES, first) == APPLIED
        assert example.replace(PRICES, first, second) == APPLIED
        assert example.records("price")[0]["list"] == "winter"
        assert example.replace(PRICES, second, third) == APPLIED
        assert [(record["company"], record["list"]) for record in example.records("price")] == [("usmf", None)]
        missing = example.replace(PRICES, third, ("usmf", "1", "autumn", "1.00"))
        assert missing == MissingParent("company_list", "list", ("usmf", "autumn"))

    def test_parent_and_child_go_in_one_transaction(self, example: Example) -> None:
        """A parent that was written is found by a later write of the same transaction."""
        with example.connector.transaction("flow") as transaction:
            assert transaction.write(COMPANIES, [Write(("usmf",), None, ("usmf", None))]) == [APPLIED]
            assert transaction.write(GROUPS, [Write(("usmf", "g"), None, ("usmf", "g"))]) == [APPLIED]
            first = Write(("usmf", "1"), None, item("usmf", "1", grp="g"))
            second = Write(("usmf", "2"), None, item("usmf", "2", parent="1"))
            assert transaction.write(ITEMS, [first]) + transaction.write(ITEMS, [second]) == [APPLIED] * 2
            transaction.commit(None)
        assert example.fetch(ITEMS, "usmf", "2") == [item("usmf", "2", parent="1")]

    def test_records_may_refer_to_each_other(self, example: Example) -> None:
        """A cycle is written in two passes: the records first, then the references between them."""
        example.company()
        rows = {"1": item("usmf", "1", parent="2"), "2": item("usmf", "2", parent="1")}
        bare = {code: item("usmf", code) for code in rows}
        with example.connector.transaction("flow") as transaction:
            assert transaction.write(ITEMS, [Write(("usmf", c), None, row) for c, row in bare.items()]) == [APPLIED] * 2
            second = [Write(("usmf", code), bare[code], row) for code, row in rows.items()]
            assert transaction.write(ITEMS, second) == [APPLIED] * 2
            transaction.commit(None)
        assert example.rows(ITEMS) == list(rows.values())

    def test_a_unique_value_of_another_record_is_refused(self, example: Example) -> None:
        """A row whose unique value is taken is refused, on insert and on update."""
        example.flat("a", tag="t")
        example.flat("b")
        assert rejected(example.insert(FLATS, flat("c", None, "t")), "unique")
        assert rejected(example.replace(FLATS, flat("b"), flat("b", None, "t")), "unique")
        assert rejected(example.replace(FLATS, flat("b"), flat("a", None, "u")), "unique")
        assert example.rows(FLATS) == [flat("a", None, "t"), flat("b")]

    def test_a_missing_mandatory_value_is_refused(self, example: Example, company: Value) -> None:
        """Null in a mandatory column is refused, on insert and on update."""
        example.item(company, "1")
        assert rejected(example.insert(ITEMS, item("usmf", "2", name=None)), "required")
        assert rejected(example.replace(ITEMS, item("usmf", "1"), item("usmf", "1", name=None)), "required")
        assert example.rows(ITEMS) == [item("usmf", "1")]

    def test_too_long_a_text_is_refused(self, example: Example, company: Value) -> None:
        """A value beyond its column's limits is refused, never cut."""
        example.need("length")
        example.item(company, "1")
        assert rejected(example.insert(ITEMS, item("usmf", "2", name="x" * 21)), "value")
        assert rejected(example.replace(ITEMS, item("usmf", "1"), item("usmf", "1", name="x" * 21)), "value")
        assert example.rows(ITEMS) == [item("usmf", "1")]

    def test_a_record_that_others_need_is_not_deleted(self, example: Example, company: Value) -> None:
        """A delete that a reference forbids is refused."""
        example.need("restrict")
        example.item(company, "1")
        assert rejected(example.replace(COMPANIES, ("usmf", "USMF"), None), "reference")
        assert example.rows(COMPANIES) == [("usmf", "USMF")]

    def test_several_records_of_a_key_are_refused(self, example: Example) -> None:
        """Where several records hold the key, none of them is written or deleted."""
        view = replace(FLATS, key=(1,))
        example.flat("a", grp="x")
        example.flat("b", grp="x")
        wanted = flat(ABSENT, "x", None, "1")
        anything = (ABSENT,) * 4
        outcomes = example.write(view, Write(("x",), anything, wanted), Write(("x",), None, wanted))
        assert all(rejected(outcome, "ambiguous") for outcome in outcomes)
        assert rejected(example.write(view, Write(("x",), anything, None))[0], "ambiguous")
        assert example.rows(FLATS) == [flat("a", "x"), flat("b", "x")]

    def test_a_lookup_that_finds_several_records_is_refused(self, example: Example) -> None:
        """A reference is never set to one of several candidates."""
        for _ in range(2):
            example.group(None, "twin")
        outcome = example.insert(ITEMS, item(None, "1", grp="twin"))
        assert rejected(outcome, "ambiguous")
        assert example.rows(ITEMS) == []

    @pytest.mark.parametrize("bad", [0, 50, 99])
    def test_one_bad_row_leaves_the_others(self, example: Example, bad: int) -> None:
        """Of a hundred rows with a refused one, ninety-nine are written, and nothing is left of the bad one."""
        example.flat("taken", tag="t")
        rows = [flat(f"{number:02}", "x", "t" if number == bad else None) for number in range(100)]
        outcomes = example.write(FLATS, *(Write(example.key(FLATS, row), None, row) for row in rows))
        assert [outcome == APPLIED for outcome in outcomes] == [number != bad for number in range(100)]
        assert rejected(outcomes[bad], "unique")
        assert example.rows(FLATS) == [
            *(row for number, row in enumerate(rows) if number != bad),
            flat("taken", None, "t"),
        ]
        assert example.changes(example.connector.end()) == []

    def test_many_kinds_of_trouble_stay_apart(self, example: Example, company: Value) -> None:
        """Every row of one call gets its own outcome, in their order."""
        example.item(company, "there")
        example.item(company, "same")
        rows = [
            item("usmf", "1"),
            item("usmf", "2", name=None),
            item("usmf", "there", note="x"),
            item("usmf", "3", grp="unknown"),
            item("usmf", "same"),
            item("usmf", "4", grp="retail"),
        ]
        outcomes = example.write(ITEMS, *(Write(example.key(ITEMS, row), None, row) for row in rows))
        assert outcomes[0] == APPLIED
        assert rejected(outcomes[1], "required")
        assert outcomes[2:] == [
            Contested(item("usmf", "there")),
            MissingParent("grp", "grp", ("unknown", "usmf")),
            UNCHANGED,
            APPLIED,
        ]

    def test_unique_values_can_be_swapped(self, example: Example) -> None:
        """Two records exchange their unique values in one call, three pass theirs on."""
        for code in "abc":
            example.flat(code, tag=code.upper())
        for tags in ("BAC", "ACB", "BAC"):
            held = {code: example.fetch(FLATS, code)[0] for code in "abc"}
            wanted = {code: flat(code, None, tag) for code, tag in zip("abc", tags, strict=True)}
            outcomes = example.write(FLATS, *(Write((code,), held[code], wanted[code]) for code in "abc"))
            assert Applied() in outcomes
            assert all(outcome in (APPLIED, UNCHANGED) for outcome in outcomes)
            assert example.rows(FLATS) == list(wanted.values())

    def test_a_swap_survives_a_bad_neighbour(self, example: Example) -> None:
        """Rows that exchange unique values are written although another row of the call is refused."""
        for code in "abc":
            example.flat(code, tag=code.upper())
        rows = [flat("a", None, "B"), flat("x", None, "C"), flat("b", None, "A")]
        held = [flat("a", None, "A"), None, flat("b", None, "B")]
        outcomes = example.write(
            FLATS, *(Write(example.key(FLATS, row), expect, row) for row, expect in zip(rows, held, strict=True))
        )
        assert (outcomes[0], outcomes[2]) == (APPLIED, APPLIED)
        assert rejected(outcomes[1], "unique")
        assert example.rows(FLATS) == [flat("a", None, "B"), flat("b", None, "A"), flat("c", None, "C")]

    def test_a_value_can_be_taken_over(self, example: Example) -> None:
        """A unique value that one row gives up is free for another row of the same call."""
        example.flat("a", tag="t")
        outcomes = example.write(
            FLATS, Write(("b",), None, flat("b", None, "t")), Write(("a",), flat("a", None, "t"), flat("a"))
        )
        assert outcomes == [APPLIED, APPLIED]
        assert example.rows(FLATS) == [flat("a"), flat("b", None, "t")]

    def test_nothing_to_write_is_fine(self, example: Example) -> None:
        """An empty call has no outcomes."""
        assert example.write(FLATS) == []

    @pytest.mark.parametrize("bad", ["", "a record that is there", "a key that comes twice", "a value that is refused"])
    def test_all_or_none_are_inserted(self, example: Example, bad: str) -> None:
        """Where the quick way inserts, all records are there; where it does not, none, and they can be written."""
        example.flat("there")
        rows = [flat(code, None, f"tab\t{code}\\N\n", None) for code in ("a", "b", "c")]
        if bad:
            there, twice, refused = flat("there"), flat("a"), flat("d", None, "x", "no number")
            rows.append({"a record that is there": there, "a key that comes twice": twice}.get(bad, refused))
        with example.connector.transaction("flow", VIEWS) as transaction:
            done = transaction.insert(FLATS, rows)
            assert not (done and bad)
            if not done:
                writes = [Write(example.key(FLATS, row), None, row) for row in rows[:3]]
                assert transaction.write(FLATS, writes) == [APPLIED] * 3
            transaction.commit(None)
        assert example.rows(FLATS) == sorted([*rows[:3], flat("there")], key=repr)
        assert {change.key for change in example.changes()} == {("there",)}

    @pytest.mark.parametrize("column", NASTY)
    def test_what_is_inserted_at_once_is_what_was_given(self, example: Example, column: str) -> None:
        """Every value of every type, null among them, survives the quick way."""
        rows = [kinds(f"{number:02}", column, value) for number, value in enumerate([None, *NASTY[column]])]
        with example.connector.transaction("flow", VIEWS) as transaction:
            done = transaction.insert(ALL_KINDS, rows)
            transaction.commit(None)
        assert example.rows(ALL_KINDS) == (rows if done else [])

    @pytest.mark.parametrize(("column", "value"), CASES, ids=[str(number) for number in range(len(CASES))])
    def test_values_survive_both_ways(self, example: Example, column: str, value: Value) -> None:
        """Every value of every type is read as users wrote it and written as it is read, in its one spelling."""
        with example.system.user() as user:
            user.insert("kinds", {"code": "theirs", column: value})
        theirs, ours = kinds("theirs", column, value), kinds("ours", column, value)
        assert example.fetch(ALL_KINDS, "theirs") == [theirs]
        assert [change.after for change in example.changes()] == [theirs]
        assert example.insert(ALL_KINDS, ours) == APPLIED
        assert example.insert(ALL_KINDS, ours) == UNCHANGED
        assert example.rows(ALL_KINDS) == [ours, theirs]
        assert example.records("kinds", code="ours")[0][column] == value
        assert example.replace(ALL_KINDS, theirs, None) == APPLIED
