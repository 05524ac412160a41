"""The part of the contract about lookups that lead far, or to one of several tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from dualwrite.model import ABSENT, Applied, Cell, Contested, Kind, MissingParent, Row, Unchanged, Value, Write
from dualwrite.testing.contract_write import rejected
from dualwrite.testing.example import CALLS, COMPANIES, DEEP, GROUPS, ITEMS, Example, System, item

APPLIED = Applied()


def call(code: Cell, subject: Cell = None, owner: Cell = None, note: Cell = None, company: Cell = "usmf") -> Row:
    """A row of the view ``CALLS``."""
    return (company, code, subject, owner, note)


class _Calls(Example):
    """The example with calls about groups and items: ``retail`` and ``1000`` of the company ``usmf``."""

    def __init__(self, system: System) -> None:
        super().__init__(system, (COMPANIES, GROUPS, ITEMS, CALLS, DEEP))
        self.usmf = self.company()
        self.grp = self.group(self.usmf)
        self.thing = self.item(self.usmf, grp=self.grp)

    def call(self, code: str, **values: Value) -> None:
        """A user adds a call."""
        with self.system.user() as user:
            user.insert("call", {"company": self.usmf, "code": code, **values})

    def told(self, after: object) -> Sequence[tuple[Kind, Row | None]]:
        """The kinds of what the feed tells of calls, and the rows behind them."""
        assert after is not None
        return [(change.kind, change.after) for change in self.changes(after) if change.view == "calls"]  # type: ignore[arg-type]


class LookupContract:
    """Polymorphic lookups, and such as go over several tables."""

    @pytest.fixture
    def calls(self, system: System) -> Iterator[_Calls]:
        """The system with views whose lookups lead far."""
        calls = _Calls(system)
        yield calls
        calls.connector.close()

    def test_a_polymorphic_lookup_is_read_by_its_type(self, calls: _Calls) -> None:
        """Of the tables that may hold the record, the one counts that the column of the type names."""
        calls.call("1", subject_id=calls.grp, subject_type="G")
        calls.call("2", subject_id=calls.thing, subject_type="I")
        calls.call("3")
        wanted = [call("1", "retail"), call("2", "1000"), call("3")]
        assert calls.rows(CALLS) == sorted(wanted, key=repr)
        assert calls.fetch(CALLS, "usmf", "2") == [call("2", "1000")]

    def test_a_polymorphic_lookup_is_read_by_the_column_that_is_filled(self, calls: _Calls) -> None:
        """Where each table has a column of its own, the one that holds something leads."""
        calls.call("1", owner_grp=calls.grp)
        calls.call("2", owner_item=calls.thing)
        wanted = [call("1", None, "retail"), call("2", None, "1000")]
        assert calls.rows(CALLS) == sorted(wanted, key=repr)

    def test_what_a_polymorphic_lookup_leads_to_may_not_be_known(self, calls: _Calls) -> None:
        """A type that no path names, an id that finds nothing, and two columns filled at once are ABSENT."""
        calls.call("1", subject_id=calls.grp, subject_type="other")
        calls.call("2", subject_id="424242", subject_type="G")
        calls.call("3", owner_grp=calls.grp, owner_item=calls.thing)
        wanted = [call("1", ABSENT), call("2", ABSENT), call("3", None, ABSENT)]
        assert calls.rows(CALLS) == sorted(wanted, key=repr)

    def test_a_polymorphic_lookup_is_written_to_where_the_record_is(self, calls: _Calls) -> None:
        """A row in natural form gets the id and the type of the record, or the column of its table."""
        rows = [call("1", "retail", "1000"), call("2", "1000", "retail"), call("3")]
        assert calls.write(CALLS, *(Write(calls.key(CALLS, row), None, row) for row in rows)) == [APPLIED] * 3
        held = {record["code"]: record for record in calls.records("call")}
        assert [(held[c]["subject_id"], held[c]["subject_type"]) for c in "123"] == [
            (calls.grp, "G"),
            (calls.thing, "I"),
            (None, None),
        ]
        owners = [(held[c]["owner_grp"], held[c]["owner_item"]) for c in "123"]
        assert owners == [(None, calls.thing), (calls.grp, None), (None, None)]
        assert calls.rows(CALLS) == sorted(rows, key=repr)

    def test_a_polymorphic_lookup_moves_between_tables(self, calls: _Calls) -> None:
        """An update leads to a record of another table, and to none; ABSENT leaves the lookup alone."""
        calls.insert(CALLS, call("1", "retail", "retail"))
        steps = [
            call("1", "1000", "1000"),
            call("1", "retail", "1000", "note"),
            call("1", "retail", None),
            call("1"),
        ]
        before = call("1", "retail", "retail")
        for after in steps:
            assert calls.replace(CALLS, before, after) == APPLIED
            assert calls.rows(CALLS) == [after]
            before = after
        assert [(r["subject_id"], r["subject_type"]) for r in calls.records("call")] == [(None, None)]
        calls.replace(CALLS, before, call("1", "1000", "retail"))
        assert calls.replace(CALLS, call("1", "1000", "retail"), call("1", ABSENT, ABSENT, "new")) == APPLIED
        assert calls.rows(CALLS) == [call("1", "1000", "retail", "new")]

    def test_an_update_finds_the_company_of_a_polymorphic_lookup(self, calls: _Calls) -> None:
        """A row that says nothing of its company looks the record up in the one that it has."""
        other = calls.company("demf")
        calls.group(other, "retail")
        calls.insert(CALLS, call("1"))
        assert calls.write(CALLS, Write(("usmf", "1"), call("1"), call(ABSENT, "retail", company=ABSENT))) == [APPLIED]
        assert calls.records("call")[0]["subject_id"] == calls.grp

    def test_what_is_there_already_is_not_written_again(self, calls: _Calls) -> None:
        """A call that leads where it should is left alone, and no echo comes of what was written."""
        start = calls.connector.end()
        calls.insert(CALLS, call("1", "retail", "1000"))
        row = call("1", "retail", "1000")
        assert calls.replace(CALLS, row, row) == Unchanged()
        assert calls.insert(CALLS, call("1", "1000")) == Contested(row)
        assert calls.told(start) == []

    def test_a_polymorphic_lookup_must_lead_to_what_is_expected(self, calls: _Calls) -> None:
        """A call that leads elsewhere, or that leads to something although nothing is expected, is told."""
        calls.insert(CALLS, call("1", "retail", "1000"))
        calls.insert(CALLS, call("2"))
        held = {"1": call("1", "retail", "1000"), "2": call("2")}
        for believed in (
            call("1", "1000", "1000"),
            call("1", "retail", "retail"),
            call("1", None, "1000"),
            call("1", "retail"),
            call("2", "retail"),
            call("2", None, "1000"),
        ):
            wanted = (*believed[:4], "new")
            assert calls.replace(CALLS, believed, wanted) == Contested(held[str(believed[1])])
        assert calls.replace(CALLS, held["1"], call("1", "1000", None, "new")) == APPLIED
        assert calls.replace(CALLS, call("2", "nobody", ABSENT), call("2", None, "retail")) == APPLIED

    def test_a_polymorphic_lookup_without_a_record_names_all_its_tables(self, calls: _Calls) -> None:
        """Where none of the tables holds the record, its row is not written, and the others are."""
        rows = [call("1", "nobody"), call("2", "retail")]
        outcomes = calls.write(CALLS, *(Write(calls.key(CALLS, row), None, row) for row in rows))
        assert outcomes == [MissingParent("subject", "grp", ("nobody", "usmf"), ("item",)), APPLIED]
        assert calls.rows(CALLS) == [call("2", "retail")]

    def test_a_polymorphic_lookup_that_finds_two_records_is_refused(self, calls: _Calls) -> None:
        """Where two of the tables hold the key, none is picked."""
        calls.group(calls.usmf, "1000")
        assert rejected(calls.insert(CALLS, call("1", "1000")), "ambiguous")
        assert rejected(calls.insert(CALLS, call("1", None, "1000")), "ambiguous")
        assert calls.rows(CALLS) == []

    def test_the_feed_tells_where_a_polymorphic_lookup_leads(self, calls: _Calls) -> None:
        """What users do to ids and types comes out in natural form."""
        start = calls.connector.end()
        calls.call("1", subject_id=calls.grp, subject_type="G", owner_item=calls.thing)
        calls.update("call", {"code": "1"}, subject_id=calls.thing, subject_type="I")
        calls.update("call", {"code": "1"}, owner_item=None)
        calls.update("call", {"code": "1"}, subject_id=None, subject_type=None)
        calls.delete("call", code="1")
        assert calls.told(start) == [
            (Kind.INSERT, call("1", "retail", "1000")),
            (Kind.UPDATE, call("1", "1000", "1000")),
            (Kind.UPDATE, call("1", "1000")),
            (Kind.UPDATE, call("1")),
            (Kind.DELETE, None),
        ]

    def test_a_renamed_record_reaches_those_that_lead_to_it(self, calls: _Calls) -> None:
        """A new key shows in the calls about the record, and in no call about a record of another table."""
        calls.call("1", subject_id=calls.grp, subject_type="G")
        calls.call("2", subject_id=calls.thing, subject_type="I")
        start = calls.connector.end()
        calls.update("grp", {"id": calls.grp}, name="trade")
        assert calls.told(start) == [(Kind.UPDATE, call("1", "trade"))]

    def test_a_lookup_goes_over_several_tables(self, calls: _Calls) -> None:
        """A path follows references to where they end, whether or not they belong to keys."""
        calls.item(calls.usmf, "2000", parent=calls.thing)
        wanted: list[Row] = [("usmf", "1000", None, None, None), ("usmf", "2000", "1000", "usmf", None)]
        assert calls.rows(DEEP) == sorted(wanted, key=repr)

    def test_a_record_is_found_over_several_tables(self, calls: _Calls) -> None:
        """All parts of a lookup count together, those included that lead over other tables."""
        row: Row = ("usmf", "3000", "1000", "usmf", None)
        with calls.system.user() as user:
            user.update("item", {"id": calls.thing}, {"name": "the first"})
        found = calls.write(DEEP, Write(("usmf", "1000"), (ABSENT,) * 5, (ABSENT, ABSENT, "1000", "usmf", "x")))
        assert found == [APPLIED]
        assert calls.records("item")[0]["parent"] == calls.thing
        missing = calls.write(DEEP, Write(("usmf", "1000"), (ABSENT,) * 5, (ABSENT, ABSENT, "1000", "demf", "x")))
        assert missing == [MissingParent("parent", "item", ("1000", "demf", "usmf"))]
        assert rejected(calls.insert(DEEP, row), "required")  # items need names
        assert item("usmf", "3000") not in calls.rows(ITEMS)
