"""What ``check --data`` finds in the data of both sides: counted, with examples, by stable codes."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from dualwrite.connectors.memory import MemoryConnector, MemoryDatabase
from dualwrite.connectors.polymorphic import Polymorphic as WithPolymorphic
from dualwrite.engine import data
from dualwrite.engine.data import CODES, DataCheck
from dualwrite.engine.supervisor import Engine
from dualwrite.errors import Problem
from dualwrite.journal import Journal
from dualwrite.mapping.compile import compile_map
from dualwrite.mapping.notation import read_map
from dualwrite.model import Side, Value
from dualwrite.schema import Branch, Column, ColumnType, Polymorphic, Reference, Schema, Table, TypeName

L, R = Side.LEFT, Side.RIGHT
NUMBER = ColumnType(TypeName.INTEGER, bits=64)
ID = Column("id", NUMBER, nullable=False, has_default=True)


def text(name: str, length: int | None = None, *, nullable: bool = True) -> Column:
    """A column of text."""
    return Column(name, ColumnType(TypeName.TEXT, length=length), nullable=nullable)


LEFT = Schema(
    {
        "Groups": Table("Groups", (ID, text("NAME")), ("id",), (("id",),), key=(("NAME",),)),
        "Items": Table(
            "Items",
            (
                ID,
                *(text(name) for name in ("AREA", "ITEM", "NAME", "KIND", "GROUP", "OWNER", "NOTE")),
                Column("SIZE", ColumnType(TypeName.NUMERIC)),
                Column("MADE", ColumnType(TypeName.TIMESTAMP)),
                Column("COUNT", NUMBER),
            ),
            ("id",),
            (("id",),),
            key=(("AREA",), ("ITEM",)),
        ),
    }
)
RIGHT = Schema(
    {
        "groups": Table("groups", (ID, text("name")), ("id",), (("id",), ("name",))),
        "people": Table("people", (ID, text("code")), ("id",), (("id",), ("code",))),
        "items": Table(
            "items",
            (
                ID,
                text("area"),
                text("number"),
                text("name", 10),
                Column("kind", ColumnType(TypeName.CHOICE), choices=(("small", "1"), ("big", "2"))),
                Column("group", NUMBER),
                Column("owner", NUMBER),
                text("owner_type"),
                text("note", nullable=False),
                Column("size", ColumnType(TypeName.NUMERIC, precision=6, scale=2)),
                Column("made", ColumnType(TypeName.DATE)),
                Column("count", ColumnType(TypeName.INTEGER, bits=16)),
            ),
            ("id",),
            (("id",),),
            references=(
                Reference("group", ("group",), "groups", ("id",)),
                Reference("owner.group", ("owner",), "groups", ("id",)),
                Reference("owner.person", ("owner",), "people", ("id",)),
            ),
            key=(("area",), ("number",)),
            polymorphic=(
                Polymorphic(
                    "owner",
                    (Branch("group", "owner.group", "group"), Branch("person", "owner.person", "person")),
                    "owner_type",
                ),
            ),
        ),
    }
)
ITEMS = """
map: Items
left: Items
right: items
company: AREA = area
key: [number]
columns:
  - ITEM = number
  - NAME = name
  - KIND >< kind: {values: {s: small, b: big}}
  - GROUP = group.name
  - OWNER = owner.group(name).person(code)
  - NOTE = note
  - SIZE = size
  - MADE > made
  - COUNT = count
"""
GROUPS = """
map: Groups
left: Groups
right: groups
columns:
  - NAME = name
"""


class Data:
    """Two systems that hold something, and the maps between them."""

    def __init__(self, *maps: str, companies: Sequence[str] | None = None) -> None:
        """Empty."""
        self.databases = {L: MemoryDatabase(LEFT, "left"), R: MemoryDatabase(RIGHT, "right")}
        self.connectors = {side: WithPolymorphic(MemoryConnector(each)) for side, each in self.databases.items()}
        self.maps = [
            compile_map(read_map(each, "maps/map.yaml"), LEFT, RIGHT, companies=companies)
            for each in maps or (ITEMS, GROUPS)
        ]

    def put(self, side: Side, name: str, /, **values: Value) -> Value:
        """Add a record; returns its id."""
        with self.databases[side].user() as user:
            return user.insert(name, values)["id"]

    def item(self, number: Value = "1", /, **values: Value) -> None:
        """Add an item on the left that goes through, but for these values."""
        self.put(L, "Items", **{"AREA": "usmf", "ITEM": number, "NOTE": "x", **values})

    def check(self) -> DataCheck:
        """The look at both."""
        return DataCheck(self.connectors, {L: LEFT, R: RIGHT}, self.maps)

    def found(self) -> dict[tuple[str, str], Problem]:
        """What is found, by code and side."""
        problems = list(self.check().problems())
        return {(problem.code, problem.side): problem for problem in problems}

    def only(self, code: str, side: Side = L) -> str:
        """What is said of the one thing that is found."""
        found = self.found()
        assert list(found) == [(code, str(side))]
        problem = found[code, str(side)]
        assert problem.remedy == CODES[code][1]
        assert (problem.map, problem.file) == ("Items", "maps/map.yaml")
        assert problem.level == ("warning" if code in data.MILD else "error")
        return problem.message

    def parked(self) -> set[tuple[str, Value]]:
        """What an initial sync parks."""
        journal = Journal.open("sqlite://")
        engine = Engine("link", self.connectors, self.maps, journal)
        engine.open()
        for compiled in self.maps:
            journal.set_state(compiled.name, desired="running", master="left")
        engine.reconcile()
        engine.drain()
        return {(entry.code, entry.shown_key) for entry in journal.parked({})}


def test_sound_data_has_no_findings() -> None:
    """Rows that go through are told of by nothing, parents included that a map would bring."""
    rows = Data()
    rows.put(L, "Groups", NAME="g")
    rows.put(R, "people", code="p")
    rows.item(
        "1", GROUP="g", OWNER="g", NAME="ten signs.", KIND="s", SIZE="12.5", COUNT="7", MADE="2024-01-01 00:00:00"
    )
    rows.item("2", OWNER="p")
    assert rows.found() == {}
    assert rows.parked() == set()


@pytest.mark.parametrize(
    ("code", "values", "said"),
    [
        ("too_long", {"NAME": "eleven sign"}, "NAME: 2 records"),
        ("value_not_mapped", {"KIND": "huge"}, "KIND: 2 records"),
        ("digits_lost", {"SIZE": "1.234"}, "SIZE: 2 records"),
        ("out_of_range", {"SIZE": "12345.5"}, "SIZE: 2 records"),
        ("out_of_range", {"COUNT": "40000"}, "COUNT: 2 records"),
        ("time_lost", {"MADE": "2024-01-01 10:00:00"}, "MADE: 2 records"),
        ("required", {"NOTE": None}, "note: 2 records"),
        ("missing_parent", {"GROUP": "nobody"}, "group: 2 records"),
        ("missing_parent", {"OWNER": "nobody"}, "owner: 2 records"),
    ],
)
def test_values_that_do_not_go_through_are_counted(code: str, values: dict[str, Value], said: str) -> None:
    """What an initial sync would park is told before: how many records, which, and the value."""
    rows = Data()
    rows.item("good")
    rows.item("1", **values)
    rows.item("2", **values)
    message = rows.only(code)
    assert said in message
    assert "such as usmf, 1" in message or "such as 1, usmf" in message
    value = next(iter(values.values()))
    assert value is None or repr(value)[1:-1] in message
    assert {each for each, _ in rows.parked()} == {code}


def test_records_on_which_a_formula_fails_are_counted() -> None:
    """With the column that it is computed for; the cells that it is made of may be several."""
    rows = Data(ITEMS.replace("  - NOTE = note\n", '  - none >> note: {expr: "NOTE & 1 / SIZE"}\n'), GROUPS)
    rows.item("1", SIZE="0.00")
    rows.item("2", SIZE="2.00")
    message = rows.only("not_computed")
    assert "note: 1 record: an expr: of the map fails on a record" in message
    assert message.endswith(("such as usmf, 1", "such as 1, usmf"))
    assert rows.parked() == {("not_computed", "1, usmf")}


def test_keys_can_be_looked_at_alone() -> None:
    """Keys that occur twice or are empty are told, on both sides, and nothing else that is wrong with a row."""
    rows = Data()
    rows.item("1", NAME="eleven sign", GROUP="nobody")
    rows.item("2")
    rows.item("2", KIND="huge")
    rows.put(L, "Items", NAME="no key")
    rows.put(R, "items", note="no key")
    told = {(each.side, each.code): each.message for each in rows.check().keys(rows.maps[0])}
    assert sorted(told) == [("left", "duplicate_key"), ("left", "empty_key"), ("right", "empty_key")]
    message = told["left", "duplicate_key"]
    assert "2 records" in message
    assert "usmf" in message


def test_everything_wrong_with_a_row_is_told() -> None:
    """A record with several troubles counts in each of them."""
    rows = Data()
    rows.item("1", NAME="much too long a name", SIZE="1.234", KIND="huge")
    assert {code for code, _ in rows.found()} == {"too_long", "digits_lost", "value_not_mapped"}


def test_a_key_that_cannot_be_carried_counts_once() -> None:
    """It is told as what is wrong with its value, not as a record without a key besides."""
    rows = Data(ITEMS.replace("key: [number]", "key: [name]"), GROUPS)
    rows.item("1", NAME="eleven sign")
    rows.item("2", NAME="well")
    assert "NAME: 1 record:" in rows.only("too_long")


def test_a_key_whose_lookup_leads_nowhere_is_told() -> None:
    """Records are parked for it: it is more than a column that is left alone."""
    rows = Data(ITEMS.replace("key: [number]", "key: [number, group.name]"), GROUPS)
    rows.put(R, "items", area="usmf", number="1", note="x", group="4711")
    rows.put(R, "items", area="usmf", number="2", note="x")
    found = rows.found()
    assert "group.name: 1 record:" in found["unresolved_key", "right"].message
    assert {code for code, _ in rows.parked()} == {"unresolved_key"}


@pytest.mark.parametrize("side", Side)
def test_keys_that_occur_twice_are_named(side: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    """On either side, and however few keys are held in memory at once."""
    monkeypatch.setattr(data, "SORTED", 5)
    rows = Data()
    for number in [*range(20), 3, 3, 7]:
        if side is L:
            rows.item(str(number))
        else:
            rows.put(R, "items", area="usmf", number=str(number), note="x")
    message = rows.only("duplicate_key", side)
    assert "5 records" in message
    assert "such as 3, usmf (3 records); 7, usmf (2 records)" in message
    assert rows.parked() == {("duplicate_key", "3, usmf"), ("duplicate_key", "7, usmf")}


def test_empty_keys_are_counted() -> None:
    """A record with every member of its key empty."""
    rows = Data(ITEMS.replace("company: AREA = area\n", ""))
    rows.item("")
    rows.item(None)
    assert "2 records" in rows.only("empty_key")


def test_records_of_other_companies_are_counted_apart() -> None:
    """What the link's companies leave out is counted, and nothing else is said of it."""
    rows = Data(companies=["usmf", "demf"])
    rows.item("1")
    for number in range(4):
        rows.item(str(number), AREA="frrt", NAME="much too long a name")
    message = rows.only("other_company")
    assert "AREA: 4 records" in message
    assert "'frrt'" in message


def test_records_without_a_company_are_counted() -> None:
    """A company-specific record that belongs to none."""
    rows = Data(companies=["usmf"])
    rows.item("1", AREA=None)
    rows.item("2", AREA="")
    assert "AREA: 2 records" in rows.only("no_company")


def test_a_company_without_any_record_is_told() -> None:
    """It may be misspelled, by letter case even; a record of either side will do."""
    rows = Data(companies=["usmf", "demf", "usmff"])
    rows.item("1", AREA="USMF")
    rows.put(R, "items", area="demf", number="2", note="x")
    found = DataCheck(rows.connectors, {L: LEFT, R: RIGHT}, rows.maps, companies=["usmf", "demf", "usmff"]).problems()
    assert [each.message.split(":")[0] for each in found if each.code == "no_such_company"] == ["usmf", "usmff"]


def test_a_lookup_that_finds_two_records_is_told() -> None:
    """A polymorphic lookup whose key is held in two tables."""
    rows = Data()
    rows.put(R, "groups", name="both")
    rows.put(R, "people", code="both")
    rows.item("1", OWNER="both")
    found = rows.found()
    assert "owner: 1 record" in found["ambiguous", "left"].message
    assert ("ambiguous", "1, usmf") in rows.parked()


def test_references_that_lead_nowhere_are_told() -> None:
    """An id without a record, on the side that holds ids."""
    rows = Data()
    rows.put(R, "items", area="usmf", number="1", note="x", group="4711")
    assert "group.name: 1 record" in rows.only("leads_nowhere", R)


def test_the_line_of_the_map_is_told() -> None:
    """A finding leads to the line of the column."""
    rows = Data()
    rows.item("1", NAME="eleven sign", GROUP="nobody")
    lines = {code: problem.line for (code, _), problem in rows.found().items()}
    text_lines = ITEMS.splitlines()
    assert text_lines[lines["too_long"] - 1].strip() == "- NAME = name"
    assert text_lines[lines["missing_parent"] - 1].strip() == "- GROUP = group.name"


def test_what_was_told_is_stable() -> None:
    """Codes that park a record are those under which it is parked."""
    from dualwrite.troubles import CODES as PARKING

    assert set(CODES) - data.MILD <= set(PARKING)
    assert all(meaning.endswith(".") and remedy and not remedy.endswith(".") for meaning, remedy in CODES.values())
