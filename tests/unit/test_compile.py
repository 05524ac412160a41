"""Compiled maps: views, keys, lookups, the functions over rows, units, and the order of maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualwrite.errors import Invalid, RowProblem
from dualwrite.expression import And, Column, Compare, Literal, OneOf
from dualwrite.mapping.compile import CompiledMap, Unit, compile_map, cyclic, order_maps
from dualwrite.mapping.notation import read_map
from dualwrite.mapping.tablemap import TableMap
from dualwrite.model import ABSENT, Cell, Path, Row, Side
from dualwrite.schema import Column as SchemaColumn
from dualwrite.schema import ColumnType, Lookup, Reference, Schema, Table, TypeName

LEFT, RIGHT = Side.LEFT, Side.RIGHT
TEXT = ColumnType(TypeName.TEXT)
NUMBER = ColumnType(TypeName.NUMERIC, precision=12, scale=2)
INTEGER = ColumnType(TypeName.INTEGER, bits=64)
BOOLEAN = ColumnType(TypeName.BOOLEAN)
CHOICE = ColumnType(TypeName.CHOICE)


def column(name: str, type: ColumnType = TEXT, **flags: object) -> SchemaColumn:
    """A nullable column unless said otherwise."""
    return SchemaColumn(name, type, **flags)  # type: ignore[arg-type]


def table(name: str, *columns: SchemaColumn | str, **more: object) -> Table:
    """A table whose plain names are text columns."""
    found = tuple(column(each) if isinstance(each, str) else each for each in columns)
    return Table(name, found, **more)  # type: ignore[arg-type]


def schema(*tables: Table) -> Schema:
    """A schema of these tables."""
    return Schema({each.name: each for each in tables})


def ids(name: str, *columns: SchemaColumn | str, **more: object) -> Table:
    """A right table with a generated id and a unique index over the columns called ``unique``."""
    unique = more.pop("unique", ())
    return table(name, column("id", INTEGER, nullable=False, has_default=True), *columns, primary_key=("id",),
                 uniques=(("id",), unique) if unique else (("id",),), **more)  # fmt: skip


COMPANY = ("company_id", "code")
COMPANY_REFERENCE = Reference("company_id", ("company_id",), "companies", ("id",))
COMPANY_COLUMN = column("company_id", INTEGER)

LEFT_SCHEMA = schema(
    table("Groups", "AREA", "GROUP", "NAME", primary_key=("AREA", "GROUP"), uniques=(("AREA", "GROUP"),)),
    table(
        "Customers",
        "AREA",
        "ACCOUNT",
        column("LIMIT", NUMBER),
        column("GROUP", nullable=False, has_default=True, empty_is_null=True),
        "INVOICE",
        column("HOLD", CHOICE, choices=(("no", "0"), ("all", "1"))),
        column("CITY", empty_is_null=True, nullable=False, has_default=True),
        "KIND",
        "NOTE",
        "CATEGORY",
        "HIERARCHY",
        primary_key=("AREA", "ACCOUNT"),
        uniques=(("AREA", "ACCOUNT"),),
        references=(Reference("group", ("AREA", "GROUP"), "Groups", ("AREA", "GROUP")),),
    ),
)
RIGHT_SCHEMA = schema(
    ids("companies", "code", "name", unique=("code",)),
    ids("groups", "groupid", "name", COMPANY_COLUMN, unique=("groupid", "company_id"), company=COMPANY,
        references=(COMPANY_REFERENCE,)),
    ids("hierarchies", "name", unique=("name",)),
    ids("categories", "name", column("hierarchy", INTEGER), unique=("name", "hierarchy"),
        references=(Reference("hierarchy", ("hierarchy",), "hierarchies", ("id",)),)),
    ids(
        "accounts",
        "number",
        COMPANY_COLUMN,
        column("limit", ColumnType(TypeName.NUMERIC, precision=10, scale=1)),
        column("group", INTEGER),
        column("billing", INTEGER),
        column("hold", CHOICE, choices=(("none", "800"), ("everything", "801"))),
        column("city", ColumnType(TypeName.TEXT, length=5)),
        column("type", INTEGER),
        column("flag", BOOLEAN),
        "note",
        column("category", INTEGER),
        "status",
        unique=("number", "company_id"),
        company=COMPANY,
        references=(
            COMPANY_REFERENCE,
            Reference("group_link", ("group",), "groups", ("id",)),
            Reference("billing", ("billing",), "accounts", ("id",)),
            Reference("category", ("category",), "categories", ("id",)),
        ),
    ),
)  # fmt: skip

HEAD = "map: Customers\nleft: Customers\nright: accounts\ncompany: AREA = company_id.code\n"


def read(columns: Sequence[str], head: str = HEAD) -> TableMap:
    """The map with these column lines."""
    return read_map(head + "columns:\n" + "".join(f"  - {line}\n" for line in columns), "maps/test.yaml")


def compiled(
    *columns: str, head: str = HEAD, left: Schema = LEFT_SCHEMA, right: Schema = RIGHT_SCHEMA, **more: object
) -> CompiledMap:
    """The compiled map with these column lines."""
    return compile_map(read(columns, head), left, right, **more)  # type: ignore[arg-type]


def row(found: CompiledMap, side: Side, **cells: Cell) -> Row:
    """A row of that side's view; cells by the last step of their path, the others null."""
    known = {path: cells.pop("__".join(path)) for path in found.views[side].paths if "__".join(path) in cells}
    assert not cells, f"no such paths: {cells}"
    return tuple(known.get(path) for path in found.views[side].paths)


def cells(found: CompiledMap, side: Side, values: Row) -> dict[str, Cell]:
    """A row as a mapping."""
    return dict(zip(map("__".join, found.views[side].paths), values, strict=True))


def left_of(found: CompiledMap, **values: Cell) -> Row:
    """A left row with a key."""
    return row(found, LEFT, **{"AREA": "usmf", "ACCOUNT": "C1", **values})


def right_of(found: CompiledMap, **values: Cell) -> Row:
    """A right row with a key."""
    return row(found, RIGHT, **{"company_id__code": "usmf", "number": "C1", **values})


KEY = "ACCOUNT = number"


# -- views ------------------------------------------------------------------------------------------------------------


def test_view_has_key_first_then_mapped_then_filter_paths() -> None:
    """Cells stand in a stable order: the key, the company, the mapped columns, what only the filter names."""
    head = HEAD + "filter:\n  right: \"status eq 'open'\"\n"
    found = compiled("LIMIT = limit", KEY, head=head)
    assert found.views[LEFT].paths == (("ACCOUNT",), ("AREA",), ("LIMIT",))
    assert found.views[RIGHT].paths == (("number",), COMPANY, ("limit",), ("status",))
    assert found.views[RIGHT].key == (0, 1)
    assert found.views[RIGHT].written == (0, 1, 2)
    assert found.views[RIGHT].name == found.views[LEFT].name == found.name == "Customers"


def test_names_match_without_letter_case_and_lookups_by_their_column() -> None:
    """Names are found by their letters; a lookup answers to its reference's name and to its column."""
    head = HEAD.replace("right: accounts", "right: ACCOUNTS")
    for path in ("group_link.groupid", "group.groupid", "GROUP.GROUPID"):
        found = compiled("account = Number", f"GROUP = {path}", head=head)
        assert found.views[RIGHT].paths[2] == ("group_link", "groupid")
        assert found.views[RIGHT].table == "accounts"


def test_company_belongs_to_key_and_lookups_by_itself() -> None:
    """The company is carried without a line of its own, is the key's last member, and completes lookups."""
    found = compiled(KEY, "GROUP = group.groupid")
    assert found.views[RIGHT].lookups == (
        Lookup("group_link", ((("groupid",), 2), (COMPANY, 1)), own=(2,)),
        Lookup("company_id", ((("code",), 1),), own=(1,)),
    )
    mapped = found.map_row(LEFT, left_of(found, GROUP="G"))
    assert cells(found, RIGHT, mapped) == {"number": "C1", "company_id__code": "usmf", "group_link__groupid": "G"}


def test_company_is_found_by_where_it_leads_when_the_parent_declares_none() -> None:
    """A key member that ends in the company's own column is the company, declared or not."""
    groups = replace(RIGHT_SCHEMA.tables["groups"], company=None)
    right = Schema({**RIGHT_SCHEMA.tables, "groups": groups})
    found = compiled(KEY, "GROUP = group.groupid", right=right)
    assert found.views[RIGHT].lookups[0].parts == ((("groupid",), 2), (COMPANY, 1))


def test_composite_lookup_takes_a_part_of_several_steps() -> None:
    """All parts of a key make one lookup, also those that lie two steps away."""
    found = compiled(KEY, "CATEGORY = category.name", "HIERARCHY = category.hierarchy.name")
    lookup = next(each for each in found.views[RIGHT].lookups if each.reference == "category")
    assert lookup == Lookup("category", ((("name",), 2), (("hierarchy", "name"), 3)), own=(2, 3))


def test_lookup_through_another_unique_than_the_declared_key() -> None:
    """A lookup may name its record by any unique index, not only by the key of the table."""
    categories = replace(RIGHT_SCHEMA.tables["categories"], key=(("name",), ("hierarchy", "name")))
    categories = replace(categories, uniques=(*categories.uniques, ("name",)))
    right = Schema({**RIGHT_SCHEMA.tables, "categories": categories})
    found = compiled(KEY, "CATEGORY = category.name", right=right)
    assert found.views[RIGHT].lookups[0].parts == ((("name",), 2),)


def test_path_that_is_only_read_makes_no_lookup() -> None:
    """A column of a referenced record may be carried out of it; nothing is ever written through that path."""
    found = compiled(KEY, "NOTE < group.name")
    assert ("group_link", "name") in found.views[RIGHT].paths
    assert [lookup.reference for lookup in found.views[RIGHT].lookups] == ["company_id"]


def test_scope_and_filter_become_one_condition() -> None:
    """The companies of the link are part of both views' filters, in each side's own paths."""
    head = HEAD + "filter:\n  left: \"kind eq 'x'\"\n"
    found = compiled(KEY, head=head, companies=["usmf", "demf"])
    codes = (Literal("usmf"), Literal("demf"))
    kind = Compare("eq", Column(("KIND",)), Literal("x"))
    assert found.views[LEFT].filter == And((OneOf(Column(("AREA",)), codes), kind))
    assert found.views[RIGHT].filter == OneOf(Column(COMPANY), codes)
    assert found.passes(LEFT, left_of(found, KIND="x"))
    assert not found.passes(LEFT, left_of(found, KIND="y"))
    assert not found.passes(LEFT, left_of(found, KIND="x", AREA="dat"))
    assert found.passes(RIGHT, right_of(found))
    assert not found.passes(RIGHT, right_of(found, company_id__code=None))


def test_without_company_there_is_no_scope() -> None:
    """A shared table is not narrowed by the companies of the link."""
    head = "map: G\nleft: Groups\nright: hierarchies\nkey: [name]\n"
    found = compiled("GROUP = name", head=head, companies=["usmf"])
    assert found.views[LEFT].filter is None
    assert found.passes(LEFT, ("any",))


@pytest.mark.parametrize(
    ("text", "passing"),
    [
        ('(CITY == "")', ["", None]),
        ('(Customers.City == "")', ["", None]),
        ('(CITY != "")', ["x", "y"]),
        ('(CITY != "x")', ["", None, "y"]),
        ('!(CITY == "x")', ["", None, "y"]),
        ('(CITY like "*")', ["", None, "x", "y"]),
        ('((CITY == "x") || (CITY == ""))', ["", None, "x"]),
        ("(HOLD == CustVendorBlocked::All)", ["x", "y"]),
    ],
)
def test_nothing_is_null_in_xpp(text: str, passing: list[Cell]) -> None:
    """Where empty text means null, X++ finds both as its users mean: an empty text differs from every other one."""
    found = compiled(KEY, head=f"{HEAD}filter: {{left: {{xpp: '{text}'}}}}\n")
    assert [
        cell for cell in ("", None, "x", "y") if found.passes(LEFT, left_of(found, **_named(text, cell)))
    ] == passing


@pytest.mark.parametrize(
    ("text", "passing"),
    [
        ("(OPEN == true)", ["yes", "1"]),
        ("(OPEN == false)", ["No", "0"]),
        ("(OPEN == NoYes::Yes)", ["yes", "1"]),
        (r"(SINCE == 01\01\1900)", ["1900-01-01", None]),
        (r"(SINCE != 01\01\1900)", ["2024-01-31"]),
        (r"(SINCE > 01\01\1900)", ["2024-01-31"]),
    ],
)
def test_yes_and_no_and_the_empty_date_in_xpp(text: str, passing: list[Cell]) -> None:
    """X++ may say true or false of a choice of no and yes, and 1 January 1900 of a date that is empty."""
    cells = [None, "yes", "No", "0", "1"] if "OPEN" in text else [None, "1900-01-01", "2024-01-31"]
    flags = table(
        "Flags",
        "ID",
        column("OPEN", CHOICE, choices=(("No", "0"), ("yes", "1")), ignore_case=True),
        column("SINCE", ColumnType(TypeName.DATE)),
        primary_key=("ID",),
        uniques=(("ID",),),
    )
    text = f"map: F\nleft: Flags\nright: flags\nfilter: {{left: {{xpp: '{text}'}}}}\ncolumns: [ID = ID]\n"
    found = compile_map(read_map(text, "f.yaml"), schema(flags), schema(replace(flags, name="flags")))
    name = "OPEN" if "OPEN" in text else "SINCE"
    rows = {cell: tuple({"ID": "1", name: cell}.get(path[0]) for path in found.views[LEFT].paths) for cell in cells}
    assert {cell for cell, row in rows.items() if found.passes(LEFT, row)} == set(passing)


def _named(text: str, cell: Cell) -> dict[str, Cell]:
    held = {"x": "1", "y": "all"}  # a choice by its number, and by its name
    return {"HOLD": held.get(str(cell))} if "HOLD" in text else {"CITY": cell}


def test_filter_literals_are_canonical() -> None:
    """A filter may spell a value as people do; connectors get the canonical one."""
    head = HEAD + "filter:\n  right: \"flag eq 'False' and hold eq 'EVERYTHING'\"\n"
    found = compiled(KEY, head=head)
    flag = Compare("eq", Column(("flag",)), Literal("f"))
    hold = Compare("eq", Column(("hold",)), Literal("everything"))
    assert found.views[RIGHT].filter == And((flag, hold))


# -- the integration key ----------------------------------------------------------------------------------------------


def test_key_is_derived_from_the_unique_index_in_natural_form() -> None:
    """A unique index over an id of another record identifies by that record's key."""
    found = compiled(KEY)
    paths = found.views[RIGHT].paths
    assert [paths[index] for index in found.views[RIGHT].key] == [("number",), COMPANY]


def test_key_with_a_lookup_member() -> None:
    """A lookup can be part of the key."""
    head = HEAD + "key: [group.groupid, number]\n"
    found = compiled(KEY, "GROUP = group.groupid", head=head)
    paths = found.views[RIGHT].paths
    assert [paths[index] for index in found.views[RIGHT].key] == [("group_link", "groupid"), ("number",), COMPANY]
    assert found.target_key(LEFT, left_of(found, GROUP="g")) == ("g", "C1", "usmf")
    assert found.target_key(RIGHT, right_of(found, group_link__groupid="g")) == ("g", "C1", "usmf")


def test_key_falls_back_to_the_left_table() -> None:
    """Where the right table offers nothing that is mapped, the left table's key identifies."""
    right = schema(table("plain", "a", "b", "c"))
    head = "map: P\nleft: Groups\nright: plain\n"
    found = compiled("NAME = b", "GROUP = a", "AREA = c", head=head, right=right)
    assert [found.views[RIGHT].paths[index] for index in found.views[RIGHT].key] == [("c",), ("a",)]


def test_derived_key_is_one_that_is_carried_everywhere() -> None:
    """A unique column that flows one way only cannot identify records for both sides."""
    accounts = RIGHT_SCHEMA.tables["accounts"]
    accounts = replace(accounts, uniques=(("note",), *accounts.uniques))
    found = compiled("NOTE > note", "LIMIT = limit", KEY, right=Schema({**RIGHT_SCHEMA.tables, "accounts": accounts}))
    assert [found.views[RIGHT].paths[index] for index in found.views[RIGHT].key] == [("number",), COMPANY]


def test_both_sides_share_the_key_in_common_form() -> None:
    """Letter case and trailing blanks that one side ignores, and empty for null, are no difference."""
    left = schema(table("L", column("CODE", ignore_case=True), "PART", primary_key=("CODE", "PART")))
    right = schema(table("R", "code", "part", primary_key=("code", "part")))
    found = compiled("CODE = code", "PART = part", head="map: M\nleft: L\nright: R\n", left=left, right=right)
    assert found.key(LEFT, ("Ab", "")) == found.key(RIGHT, ("aB", None)) == ("ab", None)


def test_key_meets_in_the_form_of_the_right_column() -> None:
    """A key that changes its type or goes through a value map is one key on both sides."""
    left = schema(table("L", column("CODE", INTEGER), "KIND", primary_key=("CODE", "KIND")))
    right = schema(table("R", "code", column("kind", INTEGER), primary_key=("code", "kind")))
    lines = ("CODE = code", "KIND >< kind: {values: {a: 1, b: 2}}")
    found = compiled(*lines, head="map: M\nleft: L\nright: R\n", left=left, right=right)
    assert found.key(LEFT, ("7", "b")) == found.key(RIGHT, ("7", "2")) == ("7", "2")
    assert found.target_key(RIGHT, ("7", "1")) == ("7", "a")


def test_key_of_a_one_way_map_works_from_both_sides() -> None:
    """Also the side that nothing is carried from has keys, and finds its counterparts."""
    for symbol in (">", "<"):
        found = compiled(f"ACCOUNT {symbol} number", f"NOTE {symbol} note")
        assert found.key(LEFT, left_of(found)) == found.key(RIGHT, right_of(found)) == ("C1", "usmf")
        assert found.target_key(LEFT, left_of(found)) == found.target_key(RIGHT, right_of(found)) == ("C1", "usmf")
        source = LEFT if symbol == ">" else RIGHT
        assert found.carried == {source: True, source.other: False}


@pytest.mark.parametrize("empty", [None, ""])
def test_key_of_nothing_but_nulls_is_refused(empty: Cell) -> None:
    """A record whose key says nothing is parked, whichever way one asks."""
    found = compiled(KEY)
    values = left_of(found, ACCOUNT=empty, AREA=empty)
    for ask in (found.key, found.map_row, found.target_key):
        with pytest.raises(RowProblem) as caught:
            ask(LEFT, values)
        assert caught.value.code == "empty_key"
    assert found.key(LEFT, left_of(found, ACCOUNT=empty)) == (None, "usmf")


def test_key_that_cannot_be_resolved_is_refused() -> None:
    """A key member that leads to no record is neither null nor a value."""
    found = compiled(KEY)
    with pytest.raises(RowProblem) as caught:
        found.key(RIGHT, right_of(found, company_id__code=ABSENT))
    assert caught.value.code == "unresolved_key"
    assert caught.value.column == "company_id.code"


# -- rows -------------------------------------------------------------------------------------------------------------


def carry(line: str, value: Cell, source: Side = LEFT, **more: object) -> Cell:
    """What becomes of a value in a map with this line."""
    found = compiled(KEY, line, **more)  # type: ignore[arg-type]
    mapped = found.map_row(source, (*(left_of if source is LEFT else right_of)(found)[:2], value))
    return mapped[2]


def test_casts_between_types() -> None:
    """Values come out as the other column spells them."""
    assert carry("LIMIT = limit", "10.50") == "10.5"
    assert carry("LIMIT = limit", "10.5", RIGHT) == "10.50"
    assert carry("NOTE = flag", "Yes") == "t"


def test_absent_and_null_pass() -> None:
    """What is not known stays unknown, null stays null, with and without casts and value maps."""
    for line in ("LIMIT = limit", "NOTE = note", "HOLD >< hold: {values: {no: 800, all: 801}}"):
        assert carry(line, ABSENT) is ABSENT
        assert carry(line, None) is None


def test_default_fills_null_only() -> None:
    """A default stands in for null, in the target's own spelling, whatever transforms come before."""
    assert carry("LIMIT >> limit: {default: 7}", None) == "7.0"
    assert carry("LIMIT >> limit: {default: 7}", "8.00") == "8.0"
    assert carry("LIMIT >> limit: {default: 7}", ABSENT) is ABSENT
    assert carry("NOTE >> hold: {values: {a: 800}, default: everything}", None) == "everything"


def test_default_of_a_two_way_value_map_goes_through_it_on_the_way_back() -> None:
    """The default is a right-hand value; the left side gets its own word for it."""
    line = "HOLD >< hold: {values: {no: 800, all: 801}, default: 801}"
    assert carry(line, None) == "801"
    assert carry(line, None, RIGHT) == "all"


def test_constants() -> None:
    """A line without a column on the source writes its default."""
    found = compiled(KEY, "none >> type: {default: 3}", "KIND << none: {default: Organization}")
    assert cells(found, RIGHT, found.map_row(LEFT, left_of(found)))["type"] == "3"
    assert cells(found, LEFT, found.map_row(RIGHT, right_of(found)))["KIND"] == "Organization"


def test_empty_text_and_null() -> None:
    """A side that has no null of its own gets and gives empty text."""
    assert carry("CITY = city", "") is None
    assert carry("CITY = city", None, RIGHT) == ""
    assert carry("NOTE = note", "") == ""
    assert carry("NOTE = note", None) is None


def test_nothing_is_carried_against_its_direction() -> None:
    """One-way columns leave the other side's cell alone."""
    found = compiled(KEY, "NOTE > note", "KIND < status")
    assert cells(found, RIGHT, found.map_row(LEFT, left_of(found, NOTE="n")))["status"] is ABSENT
    assert cells(found, LEFT, found.map_row(RIGHT, right_of(found, status="s")))["NOTE"] is ABSENT


def test_truncate_and_round() -> None:
    """What would be refused is cut where the map says so."""
    assert carry("CITY >> city: {truncate: true}", "Hamburg") == "Hambu"
    assert carry("LIMIT >> limit: {round: true}", "1.25") == "1.3"


@pytest.mark.parametrize(
    ("line", "value", "code", "said"),
    [
        ("CITY > city", "Hamburg", "too_long", "truncate: true"),
        ("LIMIT > limit", "1.25", "digits_lost", "round: true"),
        ("NOTE > type", "many", "not_a_value", "values:"),
        ("HOLD >< hold: {values: {no: 800}}", "all", "value_not_mapped", "else:"),
        ("NOTE > city", "x" * 200, "too_long", "truncate: true"),
    ],
)
def test_what_cannot_be_carried(line: str, value: str, code: str, said: str) -> None:
    """The problem names code, column, value (shortened) and remedy."""
    with pytest.raises(RowProblem) as caught:
        carry(line, value)
    assert caught.value.code == code
    assert caught.value.column == line.split()[0]
    assert value[:60] in caught.value.message
    assert value[:61] not in caught.value.message or len(value) <= 60
    assert said in caught.value.remedy


# -- value maps -------------------------------------------------------------------------------------------------------


def test_value_map_both_ways() -> None:
    """Left words become right values, and back."""
    line = "HOLD >< hold: {values: {no: 800, all: 801}}"
    assert [carry(line, "no"), carry(line, "all")] == ["800", "801"]
    assert [carry(line, "800", RIGHT), carry(line, "801", RIGHT)] == ["no", "all"]


def test_value_map_members_match_by_text_then_type_then_letters() -> None:
    """A boolean's False is f, a choice's name is its number, and letter case counts only where it decides."""
    assert carry("NOTE >< flag: {values: {no: False, yes: True}}", "no") == "f"
    assert carry("NOTE >< flag: {values: {no: False, yes: True}}", "t", RIGHT) == "yes"
    assert carry("NOTE >< flag: {values: {no: False, yes: True}}", "NO") == "f"
    assert carry("HOLD >< hold: {values: {no: 800, all: 801}}", "1") == "801"
    assert carry("HOLD >< hold: {values: {no: 800, all: 801}}", "everything", RIGHT) == "all"
    assert carry("LIMIT >> note: {values: {1: one}}", "1.00") == "one"


def test_a_record_that_cannot_be_carried_costs_no_new_function(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is needed to say which cell it was is made with the first such record, and kept for all others."""
    found = compiled(KEY, "HOLD >< hold: {values: {no: 800, all: 801}}")

    def fail() -> str:
        with pytest.raises(RowProblem) as caught:
            found.map_row(LEFT, left_of(found, HOLD="other"))
        return caught.value.column

    fail()
    monkeypatch.setattr("dualwrite.mapping.rows.Text.function", None)
    assert fail() == "HOLD"


def test_a_choice_in_a_value_map_is_its_name_in_any_letters_and_its_number() -> None:
    """Dual-write writes names of enumerations in small letters; cells may hold the name or the number."""
    found = compiled(KEY, "HOLD >> note: {values: {NO: none, All: everything}}")
    given = [found.map_row(LEFT, left_of(found, HOLD=cell)) for cell in ("no", "0", "all", "1")]
    assert [cells(found, RIGHT, each)["note"] for each in given] == ["none", "none", "everything", "everything"]


def test_days_in_a_value_map_may_be_american() -> None:
    """As Dual-write writes them: month, day, year; a day that is none so is refused as before."""
    days = table("Days", "ID", column("DAY", ColumnType(TypeName.DATE)), primary_key=("ID",), uniques=(("ID",),))
    schemas = schema(days), schema(replace(days, name="days"))
    text = "map: D\nleft: Days\nright: days\ncolumns:\n  - ID = ID\n  - DAY >< DAY: {values: {1/1/1900: null}}\n"
    found = compile_map(read_map(text, "d.yaml"), *schemas)
    assert found.map_row(LEFT, ("1", "1900-01-01")) == ("1", None)
    assert found.map_row(RIGHT, ("1", None)) == ("1", "1900-01-01")
    with pytest.raises(Invalid, match="31/1/2000"):
        compile_map(read_map(text.replace("1/1/1900", "31/1/2000"), "d.yaml"), *schemas)


def test_value_map_members_that_differ_in_case_only() -> None:
    """Where letter case decides, it counts."""
    line = "NOTE >> note: {values: {a: small, A: big}, else: other}"
    assert [carry(line, "a"), carry(line, "A"), carry(line, "b")] == ["small", "big", "other"]


def test_null_as_a_member() -> None:
    """Null can be mapped to a value and back."""
    line = "NOTE >< note: {values: {x: null}}"
    assert [carry(line, "x"), carry(line, None, RIGHT)] == [None, "x"]
    line = "CITY >< city: {values: {null: none}}"
    assert [carry(line, ""), carry(line, None), carry(line, "none", RIGHT)] == ["none", "none", ""]


def test_value_outside_the_map() -> None:
    """else: decides; without it choices and booleans park, other columns carry the value as it is."""
    assert carry("NOTE >< note: {values: {a: b}}", "c") == "c"
    assert carry("LIMIT >> limit: {values: {1: 2}}", "3.50") == "3.5"
    assert carry("HOLD >> hold: {values: {no: 800}, else: keep}", "all") is ABSENT
    assert carry("HOLD >> hold: {values: {no: 800}, else: 801}", "all") == "801"
    for line in ("NOTE >< note: {values: {a: b}, else: park}", "NOTE >< flag: {values: {a: true}}"):
        with pytest.raises(RowProblem, match="value map") as caught:
            carry(line, "c")
        assert caught.value.code == "value_not_mapped"


def test_else_of_a_two_way_map_counts_unlisted_values_as_that_member() -> None:
    """On the way back an unlisted right value becomes the left word of the same member."""
    line = "HOLD >< hold: {values: {no: 800, all: 801}, else: 800}"
    assert carry(line, "?") == "800"
    assert carry(line, "999", RIGHT) == "no"


def test_value_maps_in_a_row() -> None:
    """Several value maps apply in order, and backwards in reverse order."""
    found = read([KEY, "NOTE >< note: {values: {a: b}}"])
    more = read([KEY, "NOTE >< note: {values: {b: c}}"]).columns[1].transforms
    line = replace(found.columns[1], transforms=(*found.columns[1].transforms, *more))
    both = compile_map(replace(found, columns=(found.columns[0], line)), LEFT_SCHEMA, RIGHT_SCHEMA)
    assert cells(both, RIGHT, both.map_row(LEFT, left_of(both, NOTE="a")))["note"] == "c"
    assert cells(both, LEFT, both.map_row(RIGHT, right_of(both, note="c")))["NOTE"] == "a"


# -- units ------------------------------------------------------------------------------------------------------------


# -- other transforms ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "value", "wanted"),
    [
        ("{upper: true}", "aß", "ASS"),
        ("{lower: true}", "AÉ", "aé"),
        ("{trim: true}", "  a b ", "a b"),
        ("{trim: true, upper: true}", " a ", "A"),
        ("{upper: true}", None, None),
        ("{upper: true}", ABSENT, ABSENT),
        ("{upper: true, default: x}", None, "x"),
        ("[{default: x}, {upper: true}]", None, "X"),
        ("[{upper: true}, {values: {A: b}}]", "a", "b"),
        ("[{values: {a: b}}, {upper: true}]", "a", "B"),
        ("[{default: a}, {values: {a: b}}]", None, "b"),
        ("[{values: {a: null}}, {default: c}]", "a", "c"),
        ("[{values: {a: b}}, {default: c}, {values: {c: d, b: e}}]", "q", "q"),
        ("[{values: {a: null}}, {default: c}, {values: {c: d, b: e}}]", "a", "d"),
    ],
)
def test_transforms_in_their_order(options: str, value: Cell, wanted: Cell) -> None:
    """Each step takes what the one before it has made; from right to left they are taken backwards."""
    assert carry(f"NOTE >> note: {options}", value) == wanted
    if "values" not in options:
        assert carry(f"NOTE << note: {_backwards(options)}", value, RIGHT) == wanted


def _backwards(options: str) -> str:
    steps = options.strip("[]{}").replace("}, {", ", ").split(", ")
    return f"[{', '.join(f'{{{step}}}' for step in reversed(steps))}]"


def test_an_empty_text_is_nothing_behind_trim_too() -> None:
    """Where a side takes empty text for null, so does what comes behind a step."""
    assert carry("CITY >> city: {trim: true, default: x}", "  ") == "x"
    assert carry("NOTE >> city: {trim: true, default: x}", "  ") == ""


def test_a_value_map_with_a_way_back_of_its_own() -> None:
    """Two values may become one, when it is said which of them it becomes on the way back."""
    line = "HOLD >< type: {values: {no: 1, all: 1}, reverse: {1: all, 2: no}}"
    assert [carry(line, value) for value in ("no", "0", "all")] == ["1", "1", "1"]
    assert [carry(line, value, RIGHT) for value in ("1", "2")] == ["all", "no"]
    found = compiled(KEY, line)
    for held, there in (("no", "1"), ("all", "1"), ("no", "2")):
        assert found.agree(left_of(found, HOLD=held), right_of(found, type=there)) == []
    assert found.agree(left_of(found, HOLD="all"), right_of(found, type="2")) == ["type"]
    with_default = "HOLD >< type: {values: {no: 1, all: 1}, reverse: {1: all, 2: no}, default: 2}"
    assert [carry(with_default, None), carry(with_default, None, RIGHT)] == ["2", "no"]


FULL_NAME = """none >> note: {expr: "NOTE & ' in ' & CITY", upper: true}"""


def test_a_formula_over_several_columns() -> None:
    """What is computed is carried, compared, and told as one unit of the target; its columns need no line."""
    found = compiled(KEY, FULL_NAME)
    left = left_of(found, NOTE="a", CITY="b")
    assert cells(found, RIGHT, found.map_row(LEFT, left))["note"] == "A IN B"
    assert found.map_rows(LEFT, [left]) == [found.map_row(LEFT, left)]
    assert found.agree(left, right_of(found, note="A IN B")) == []
    assert found.agree(left, right_of(found, note="a in b")) == ["note"]
    assert found.agree(left_of(found, NOTE=ABSENT), right_of(found, note="x")) == []
    assert [feed.cells for feed in found.feeds[LEFT] if feed.owned] == [
        tuple(sorted(found.views[LEFT].paths.index((name,)) for name in ("NOTE", "CITY")))
    ]
    changed, failed = found.map_known(LEFT, left)
    assert (changed, failed) == (found.map_row(LEFT, left), ())


def test_a_formula_to_the_left() -> None:
    """The other way it reads columns of the right."""
    found = compiled(KEY, "NOTE << none: {expr: \"if(flag, limit * 2 & '', group_link.groupid)\"}")
    right = right_of(found, flag="f", limit="1.5", group_link__groupid="g")
    assert cells(found, LEFT, found.map_row(RIGHT, right))["NOTE"] == "g"
    right = right_of(found, flag="t", limit="1.5", group_link__groupid="g")
    assert cells(found, LEFT, found.map_row(RIGHT, right))["NOTE"] == "3"


def test_a_formula_is_cast_like_a_column() -> None:
    """What does not fit is refused, or rounded and cut where the map says so."""
    assert compute_right("limit: {expr: LIMIT / 3, round: true}", LIMIT="1") == "0.3"
    assert compute_right("city: {expr: NOTE & NOTE, truncate: true}", NOTE="abc") == "abcab"
    assert compute_right("hold: {expr: \"if(LIMIT > 1, 'everything', 'none')\"}", LIMIT="2") in ("everything", "801")
    assert compute_right("flag: {expr: LIMIT > 1}", LIMIT="2") == "t"
    assert compute_right("note: {expr: NOTE, default: none}", NOTE=None) == "none"
    assert compute_right("note: {expr: 1 + 1}") == "2"


def compute_right(line: str, **values: Cell) -> Cell:
    """What a computed column of the right becomes."""
    found = compiled(KEY, f"none >> {line}")
    return cells(found, RIGHT, found.map_row(LEFT, left_of(found, **values)))[line.partition(":")[0]]


@pytest.mark.parametrize(
    ("line", "values", "code", "said"),
    [
        ("limit: {expr: LIMIT / LIMIT}", {"LIMIT": "0"}, "not_computed", "with LIMIT = '0', LIMIT = '0'"),
        ("limit: {expr: number(NOTE)}", {"NOTE": "x"}, "not_computed", "'x' is not a number"),
        ("limit: {expr: LIMIT / 3}", {"LIMIT": "1"}, "digits_lost", "expr: LIMIT / 3, with LIMIT = '1',"),
        ("note: {expr: 1 / 0 & ''}", {}, "not_computed", "left expr: 1 / 0 & '' cannot become right note"),
    ],
)
def test_a_record_on_which_a_formula_fails(line: str, values: dict[str, Cell], code: str, said: str) -> None:
    """The problem names the formula with its cells, and the column that it was for."""
    found = compiled(KEY, f"none >> {line}")
    left = left_of(found, **values)
    with pytest.raises(RowProblem) as caught:
        found.map_row(LEFT, left)
    assert (caught.value.code, caught.value.column) == (code, line.partition(":")[0])
    assert said.replace(", LIMIT = '0'", "") in caught.value.message
    assert caught.value.remedy
    assert found.map_rows(LEFT, [left]) == [None]
    with pytest.raises(RowProblem, match="cannot become"):
        found.agree(left, right_of(found, **{line.partition(":")[0]: "1"}))
    known, failed = found.map_known(LEFT, left)
    assert cells(found, RIGHT, known)[line.partition(":")[0]] is ABSENT
    assert bool(failed) == bool(values)


def unit(found: CompiledMap, side: Side, name: str) -> Unit:
    """The unit of that name."""
    return next(each for each in found.units[side] if each.name == name)


def test_units_own_directions_and_policies() -> None:
    """Each line is a unit on both sides, under one name, with its owner, policy and kind."""
    lines = (KEY, "LIMIT = limit: {conflict: max}", "NOTE > note", "none >> type: {default: 3}", "KIND < status")
    found = compiled(*lines, head=HEAD + "conflict: manual\n")
    places = {side: found.views[side].paths.index((name,)) for side, name in ((LEFT, "LIMIT"), (RIGHT, "limit"))}
    assert unit(found, RIGHT, "limit") == Unit("limit", (places[RIGHT],), None, "max", "number")
    assert unit(found, LEFT, "limit") == Unit("limit", (places[LEFT],), None, "max", "number")
    assert unit(found, RIGHT, "note").owner is unit(found, LEFT, "note").owner is LEFT
    assert unit(found, RIGHT, "status").owner is unit(found, LEFT, "status").owner is RIGHT
    assert unit(found, RIGHT, "type").owner is LEFT
    assert unit(found, RIGHT, "note").policy == "manual"
    assert {each.name for each in found.units[LEFT]} == {"number", "company_id.code", "limit", "note", "status"}


def test_composite_lookup_is_one_unit_on_both_sides() -> None:
    """The columns behind a lookup's parts are decided as one, also on the side that has no lookup."""
    found = compiled(KEY, "CATEGORY = category.name", "HIERARCHY = category.hierarchy.name", "GROUP = group.groupid")
    assert unit(found, RIGHT, "category").indexes == unit(found, LEFT, "category").indexes == (2, 3)
    assert unit(found, RIGHT, "group_link.groupid").indexes == (4,)


def test_number_needs_two_numbers() -> None:
    """Both sides must order values alike, so a number against a text orders as text."""
    found = compiled(KEY, "NOTE = type")
    assert unit(found, RIGHT, "type").kind == "text"


def test_inherited_policy_that_cannot_decide_gives_way() -> None:
    """A link's sum adds numbers; what is none, and the key, is decided by newest."""
    found = compiled(KEY, "LIMIT = limit", "NOTE = note", conflict="sum")
    policies = {each.name: each.policy for each in found.units[RIGHT]}
    assert policies == {"number": "newest", "company_id.code": "newest", "limit": "sum", "note": "newest"}


def test_cell_belongs_to_one_unit() -> None:
    """A column mapped twice is decided by the line that writes it."""
    found = compiled(KEY, "NOTE > status", "NOTE = note")
    indexes = [index for each in found.units[LEFT] for index in each.indexes]
    assert sorted(indexes) == sorted(set(indexes))
    assert unit(found, LEFT, "note").owner is None


# -- agreement --------------------------------------------------------------------------------------------------------


LINES = (KEY, "LIMIT = limit", "CITY = city", "NOTE > note", "KIND < status", "none >> type: {default: 3}")


def test_mapped_row_agrees() -> None:
    """A row agrees with what it becomes."""
    found = compiled(*LINES)
    left = left_of(found, LIMIT="5.00", CITY="", NOTE="n", KIND="k")
    right = right_of(found, limit="5.0", city=None, note="n", status="k", type="3")
    assert found.agree(left, right) == []


def test_agreement_in_either_direction_is_enough() -> None:
    """A value that has lost digits on the way agrees with where it came from, and so does one that cannot go there."""
    found = compiled(*LINES)
    right = right_of(found, limit="1.3", city="Berli", note=None, status=None, type="3")
    assert found.agree(left_of(found, LIMIT="1.30", CITY="Berli"), right) == []
    assert (
        found.agree(left_of(found, LIMIT="1.25", CITY="Berli"), right) == []
    )  # forward is refused, common form agrees
    assert found.agree(left_of(found, LIMIT="1.20", CITY="Berlin"), right) == ["limit", "city"]


def test_differences_by_direction() -> None:
    """One-way columns are judged by their direction, constants too; differences show both sides' cells."""
    found = compiled(*LINES)
    left, right = (
        left_of(found, NOTE="a", KIND="b", CITY="x"),
        right_of(found, note="A", status="B", type="4", city="x"),
    )
    assert found.agree(left, right) == ["note", "status", "type"]
    assert found.differences(left, right) == [
        ("note", {LEFT: ("a",), RIGHT: ("A",)}),
        ("status", {LEFT: ("b",), RIGHT: ("B",)}),
        ("type", {LEFT: (), RIGHT: ("4",)}),
    ]


def test_absent_says_nothing() -> None:
    """What is not known on either side is no difference."""
    found = compiled(KEY, "NOTE = note", "HOLD >> hold: {values: {no: 800}, else: keep}")
    assert found.agree(left_of(found, NOTE=ABSENT), right_of(found, note="x")) == []
    assert found.agree(left_of(found, NOTE="x"), right_of(found, note=ABSENT)) == []
    assert found.agree(left_of(found, HOLD="all"), right_of(found, hold="801")) == []


def test_null_and_empty_differ_unless_declared() -> None:
    """Null and empty are one value only where a column's side says so."""
    found = compiled(KEY, "NOTE = note", "CITY = city")
    assert found.agree(left_of(found, NOTE="", CITY=""), right_of(found, note=None, city=None)) == ["note"]


def test_row_that_maps_in_no_direction() -> None:
    """Agreement cannot be judged where neither value can be carried."""
    found = compiled(KEY, "HOLD >< hold: {values: {no: 800}}")
    with pytest.raises(RowProblem) as caught:
        found.agree(left_of(found, HOLD="all"), right_of(found, hold="801"))
    assert caught.value.code == "value_not_mapped"
    assert found.agree(left_of(found, HOLD="all"), right_of(found, hold="800")) == ["hold"]


def test_common_form_of_a_cell() -> None:
    """A cell compares in the coarser form of its pair."""
    found = compiled(KEY, "LIMIT = limit", "CITY = city")
    assert found.common(LEFT, 2, "1.26") == found.common(RIGHT, 2, "1.3") == "1.3"
    assert found.common(LEFT, 3, "") is None


texts = st.one_of(st.none(), st.text("aB é", max_size=3))


@given(st.text("ab", min_size=1, max_size=2), texts, st.integers(-999, 999), st.sampled_from(["no", "all", None]))
def test_round_trip(account: str, note: str | None, limit: int, hold: str | None) -> None:
    """Whatever can be carried agrees with itself, has the same key on both sides, and comes back."""
    left = left_of(ROUND_TRIP, ACCOUNT=account, NOTE=note, LIMIT=f"{limit}.00", HOLD=hold)
    right = ROUND_TRIP.map_row(LEFT, left)
    assert ROUND_TRIP.map_row(RIGHT, right) == left
    assert ROUND_TRIP.agree(left, right) == []
    assert ROUND_TRIP.key(LEFT, left) == ROUND_TRIP.key(RIGHT, right)
    assert ROUND_TRIP.target_key(LEFT, left) == tuple(right[index] for index in ROUND_TRIP.views[RIGHT].key)


ROUND_TRIP = compiled(KEY, "NOTE = note", "LIMIT = limit", "HOLD >< hold: {values: {no: 800, all: 801}}")


# -- time zones -------------------------------------------------------------------------------------------------------


def test_moments_without_a_zone_are_those_of_their_side() -> None:
    """A naive timestamp counts in the time zone of the side that it stands on."""
    left = schema(table("L", "CODE", column("AT", ColumnType(TypeName.TIMESTAMP)), primary_key=("CODE",)))
    right = schema(table("R", "code", column("at", ColumnType(TypeName.TIMESTAMPTZ)), primary_key=("code",)))
    head = "map: M\nleft: L\nright: R\n"
    zones: Mapping[Side, str] = {LEFT: "Europe/Berlin", RIGHT: "America/New_York"}
    found = compiled("CODE = code", "AT = at", head=head, left=left, right=right, timezones=zones)
    mapped = found.map_row(LEFT, ("1", "2024-07-01 12:00:00"))
    assert mapped == ("1", "2024-07-01 10:00:00+00")
    assert found.map_row(RIGHT, mapped) == ("1", "2024-07-01 12:00:00")


# -- several maps -----------------------------------------------------------------------------------------------------


def map_of(name: str, left: str, right: str, *columns: str, company: bool = True) -> CompiledMap:
    """A compiled map of these tables."""
    line = "company: AREA = company_id.code\n" if company else ""
    return compiled(*columns, head=f"map: {name}\nleft: {left}\nright: {right}\n{line}")


def test_maps_run_parents_first() -> None:
    """A map follows those whose tables it looks up on either side, however they are called."""
    left = Schema({**LEFT_SCHEMA.tables, "Areas": table("Areas", "AREA", primary_key=("AREA",))})
    areas = compile_map(
        read_map("map: Z\nleft: Areas\nright: companies\ncolumns: [AREA = code]", ""), left, RIGHT_SCHEMA
    )
    groups = map_of("Y", "Groups", "groups", "GROUP = groupid", "NAME = name")
    customers = map_of("A", "Customers", "accounts", KEY, "GROUP = group.groupid", "INVOICE = billing.number")
    assert [each.name for each in order_maps([customers, groups, areas])] == ["Z", "Y", "A"]
    assert customers.looks_up == {LEFT: frozenset({"Groups"}), RIGHT: frozenset({"groups", "accounts", "companies"})}


def test_self_reference_is_a_cycle() -> None:
    """A lookup of a table into itself may be written in a second pass; one that leads elsewhere need not."""
    groups = map_of("Y", "Groups", "groups", "GROUP = groupid", "NAME = name")
    customers = map_of("A", "Customers", "accounts", KEY, "GROUP = group.groupid", "INVOICE = billing.number")
    found = cyclic([customers, groups])
    assert found == {
        "A": {LEFT: frozenset(), RIGHT: frozenset({"billing"})},
        "Y": {LEFT: frozenset(), RIGHT: frozenset()},
    }


def ring(*names: str, nullable: Sequence[bool]) -> list[CompiledMap]:
    """Maps of right tables each of which looks up the next one's, the last one's the first's."""
    left = schema(*(table(name.upper(), "CODE", "NEXT", primary_key=("CODE",)) for name in names))
    right = schema(
        *(
            ids(name, "code", column("next", INTEGER, nullable=free), unique=("code",),
                references=(Reference("next", ("next",), names[(number + 1) % len(names)], ("id",)),))
            for number, (name, free) in enumerate(zip(names, nullable, strict=True))
        )
    )  # fmt: skip
    maps = (
        f"map: {name}\nleft: {name.upper()}\nright: {name}\ncolumns: [CODE = code, NEXT = next.code]" for name in names
    )
    return [compile_map(read_map(text, ""), left, right) for text in maps]


def test_cycle_between_maps_is_cut_where_a_reference_may_be_empty() -> None:
    """a → b → c → a: whoever may do without its reference for a while goes first."""
    maps = ring("a", "b", "c", nullable=(False, True, False))
    assert [each.name for each in order_maps(maps)] == ["b", "a", "c"]
    assert cyclic(maps)["b"] == {LEFT: frozenset(), RIGHT: frozenset({"next"})}
    assert cyclic(maps)["a"][RIGHT] == frozenset()


def test_cycle_that_cannot_be_cut_is_still_ordered() -> None:
    """Without a nullable reference the first name goes first, always the same way."""
    maps = ring("a", "b", "c", nullable=(False, False, False))
    assert [each.name for each in order_maps(maps)] == [each.name for each in order_maps(maps[::-1])]
    assert len(order_maps(maps)) == 3


def test_foreign_key_of_flat_columns_is_a_reference() -> None:
    """Flat columns under a foreign key name a parent; its key members cannot be left out, the others can."""
    found = map_of("A", "Customers", "accounts", KEY, "INVOICE = note")
    assert found.parents[LEFT] == ()
    found = map_of("A", "Customers", "accounts", KEY, "GROUP = group.groupid")
    assert [(each.reference, each.table, each.nullable) for each in found.parents[LEFT]] == [("group", "Groups", False)]


# -- refusals ---------------------------------------------------------------------------------------------------------


def test_map_with_errors_does_not_compile() -> None:
    """Everything that is wrong is told at once."""
    with pytest.raises(Invalid) as caught:
        compiled("ACCOUNT = numbr", "LIMITS = limit")
    codes = [problem.code for problem in caught.value.problems]
    assert codes.count("unknown_column") == 2


def test_nothing_a_person_wrote_becomes_code() -> None:
    """Names and values with quotes, braces and line ends are only ever data."""
    nasty: Path = ('x"} + __import__("os").abort() + {"\n',)
    left = schema(Table("L", (column(nasty[0]),), primary_key=nasty))
    right = schema(table("R", "code", primary_key=("code",)))
    found = read_map("map: M\nleft: L\nright: R\ncolumns: [a = code]", "")
    value = "{v}{n}'\"\\"
    transforms = read([KEY, f"NOTE >> note: {{values: {{'a': '{value.replace(chr(39), chr(39) * 2)}'}}}}"]).columns[1]
    line = replace(found.columns[0], left=nasty, transforms=transforms.transforms)
    line = replace(line, direction=transforms.direction)
    made = compile_map(replace(found, columns=(line,)), left, right)
    assert made.map_row(LEFT, ("a",)) == (value,)
