"""What is found wrong with maps: every code, with file, line, side and remedy."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import pytest

from dualwrite import document
from dualwrite.connectors import _pg_health, _sqlite_health
from dualwrite.dipv import NUMBERS, WITHOUT
from dualwrite.engine import data
from dualwrite.errors import Problem
from dualwrite.mapping import d365, offline
from dualwrite.mapping.check import CODES, check_map, check_maps
from dualwrite.mapping.notation import read_map
from dualwrite.mapping.tablemap import ColumnMapping, Default, Direction, TableMap, Unread
from dualwrite.model import Side
from dualwrite.schema import Branch, Column, ColumnType, Polymorphic, Reference, Schema, Table, TypeName

TEXT = ColumnType(TypeName.TEXT)
INTEGER = ColumnType(TypeName.INTEGER, bits=64)


def column(name: str, type: ColumnType = TEXT, **flags: object) -> Column:
    """A nullable column unless said otherwise."""
    return Column(name, type, **flags)  # type: ignore[arg-type]


ITEMS = Table(
    "Items",
    (
        column("AREA"),
        column("ITEM"),
        column("NAME"),
        column("SIZE", ColumnType(TypeName.NUMERIC, precision=10, scale=4)),
        column("KIND", ColumnType(TypeName.CHOICE), choices=(("small", "0"), ("big", "1"))),
        column("MADE", ColumnType(TypeName.DATE)),
        column("TOTAL", INTEGER, read_only=True),
        column("GROUP"),
        column("BRAND"),
    ),
    primary_key=("AREA", "ITEM"),
    uniques=(("AREA", "ITEM"),),
)
COMPANIES = Table("companies", (column("id", INTEGER, has_default=True), column("code")), ("id",), (("id",), ("code",)))
COMPANY = Reference("company", ("company",), "companies", ("id",))
GROUPS = Table(
    "groups",
    (column("id", INTEGER, has_default=True), column("name"), column("brand"), column("title")),
    primary_key=("id",),
    uniques=(("id",), ("name", "brand")),
)
PRODUCTS = Table(
    "products",
    (
        column("id", INTEGER, has_default=True, nullable=False),
        column("number"),
        column("company", INTEGER),
        column("name", ColumnType(TypeName.TEXT, length=20)),
        column("size", ColumnType(TypeName.NUMERIC, precision=10, scale=2)),
        column("kind", ColumnType(TypeName.CHOICE), choices=(("s", "10"), ("b", "11"))),
        column("made", ColumnType(TypeName.UUID)),
        column("group", INTEGER),
        column("twin", INTEGER),
        column("flag", ColumnType(TypeName.BOOLEAN)),
        column("stamp", INTEGER, read_only=True),
        column("note"),
    ),
    primary_key=("id",),
    uniques=(("id",), ("number", "company")),
    references=(COMPANY, Reference("group", ("group",), "groups", ("id",))),
    company=("company", "code"),
)
LEFT = Schema({"Items": ITEMS})
RIGHT = Schema({"companies": COMPANIES, "groups": GROUPS, "products": PRODUCTS})

HEAD = "map: Products\nleft: Items\nright: products\ncompany: AREA = company.code\n"
KEY = "ITEM = number"


def read(*lines: str, head: str = HEAD, file: str = "maps/products.yaml") -> TableMap:
    """A map of these column lines; the first one stands behind the head and ``columns:``."""
    return read_map(head + "columns:\n" + "".join(f"  - {line}\n" for line in lines), file)


@dataclass(frozen=True, slots=True)
class Case:
    """A mistake: its code, the column lines, and what is said about it."""

    code: str
    lines: tuple[str, ...]
    said: str = ""
    remedy: str = ""
    side: str = ""
    level: str = "error"
    head: str = HEAD
    entry: str = ""
    left: Schema = LEFT
    right: Schema = RIGHT

    def line(self) -> int:
        """Where it is to be found: at an entry of the head, else at the last column line."""
        text = self.head + "columns:\n"
        if self.entry:
            return next(n for n, line in enumerate(text.splitlines(), 1) if line.startswith(self.entry))
        return text.count("\n") + len(self.lines)


def with_column(table: Table, *columns: Column) -> Table:
    """The table with columns added or replaced."""
    known = {each.name: each for each in (*table.columns, *columns)}
    return replace(table, columns=tuple(known.values()))


def left_with(**flags: object) -> Schema:
    """The left schema with another Items table."""
    return Schema({"Items": replace(ITEMS, **flags)})  # type: ignore[arg-type]


def right_with(*columns: Column, **flags: object) -> Schema:
    """The right schema with another products table."""
    return Schema({**RIGHT.tables, "products": replace(with_column(PRODUCTS, *columns), **flags)})  # type: ignore[arg-type]


NO_COMPANY = "map: Products\nleft: Items\nright: products\nkey: [number]\n"

OWNED = Schema(
    {
        **RIGHT.tables,
        "groups": replace(
            with_column(GROUPS, column("owner", INTEGER)),
            uniques=(("id",), ("name",)),
            references=(Reference("owner", ("owner",), "companies", ("id",)),),
        ),
        "products": replace(
            PRODUCTS,
            references=(
                *PRODUCTS.references,
                Reference("any.group", ("group",), "groups", ("id",)),
                Reference("any.company", ("twin",), "companies", ("id",)),
            ),
            polymorphic=(
                Polymorphic(
                    "any", (Branch("group", "any.group", "group"), Branch("company", "any.company", "company"))
                ),
            ),
        ),
    }
)
"""Groups have owners, and products a lookup that may lead to a group or a company."""

_OWNED = OWNED.tables["products"]
TWINS = Schema(
    {
        **OWNED.tables,
        "products": replace(_OWNED, references=(*_OWNED.references, Reference("twin", ("twin",), "products", ("id",)))),
    }
)
"""The same, and products have twins."""

CASES = (
    Case("bad_formula", (KEY, 'none >> name: {expr: "NAME & NAM"}'),
         "expr: NAME & NAM: Items has no column 'NAM': did you mean 'NAME'? (at character 8)", "at the character",
         "left"),
    Case("bad_formula", (KEY, "none >> name: {expr: NAME + 1}"), "+ takes a number, and NAME is a text", side="left"),
    Case("bad_formula", (KEY, "NAME << none: {expr: number - 1}"), "number is a text", side="right"),
    Case("circular", (KEY, "NAME >> note: {upper: true}", "NAME << note: {lower: true}"),
         "note is made of what is made of it", "leave one of them out", "left"),
    Case("circular", (KEY, "NAME = name", "BRAND << none: {expr: name & note}", "none >> note: {expr: BRAND & NAME}"),
         "note is made of what is made of it", side="right"),
    Case("no_way_back", (KEY, "NAME >< name: {upper: true}"), "upper has no way back", "one way"),
    Case("no_way_back", (KEY, "NAME >< name: {trim: true}"), "trim has no way back", "one way"),
    Case("transform_on_key", ("ITEM >> number: {trim: true}",), "the key column number goes through trim"),
    Case("incompatible_types", (KEY, "SIZE >> name: {lower: true}"), "lower changes texts, and SIZE is numeric",
         "take it off", "left"),
    Case("incompatible_types", (KEY, "none >> made: {expr: SIZE * 2}"), "cannot become made", side="right"),
    Case("may_lose_data", (KEY, "none >> size: {expr: SIZE / 3}"), "beyond 2", "round: true", "right", "warning"),
    Case("value_map_not_reversible", (KEY, "KIND >< kind: {values: {small: s}, reverse: {s: small, b: big}}"),
         "'big' is not listed in values:", side="left"),
    Case("value_map_not_reversible", (KEY, "KIND >< kind: {values: {small: s, big: b}, reverse: {s: small}}"),
         "'b' is not listed in reverse:", side="right"),
    Case("value_map_ambiguous", (KEY, "KIND >< kind: {values: {small: s}, reverse: [[s, small], [10, big]]}"),
         "'10' is listed twice", side="right"),
    Case("bad_value", (KEY, "KIND >< kind: {values: {small: s}, reverse: {s: small, x: small}}"), "'x' is no value",
         side="right"),
    Case("bad_value", (KEY, "NAME >> size: [{default: x}, {upper: true}]"), "default: it cannot be carried to size",
         side="right"),
    Case("unknown_table", (KEY,), "'Itms'", "'Items'", "left", head=HEAD.replace("Items", "Itms"), entry="left"),
    Case("unknown_table", (KEY,), "'product'", "'products'", "right", head=HEAD.replace("products", "product"),
         entry="right"),
    Case("unknown_column", (KEY, "NAMES = name"), "Items has no column 'NAMES'", "'NAME'", "left"),
    Case("unknown_column", (KEY, "NAME = nam"), "products has no column 'nam'", "'name'", "right"),
    Case("unknown_column", (KEY, "GROUP = group.nam"), "groups has no column 'nam'", "'name'", "right"),
    Case("unknown_column", (KEY, "NAME = boss"), "no column 'boss'", "it is a lookup: name a column of groups, as in "
         "boss.name", "right", right=right_with(references=(COMPANY, Reference("boss", ("twin",), "groups", ("id",))))),
    Case("unknown_lookup", (KEY, "GROUP = grup.name"), "products has no lookup 'grup'", "'group'", "right"),
    Case("unknown_lookup", (KEY, "GROUP = twin.name"), "column 'twin' of products is no lookup", "declare", "right"),
    Case("unknown_table", (KEY, "GROUP = far.name"), "points to 'grups'", "'groups'", "right",
         right=right_with(references=(COMPANY, Reference("far", ("twin",), "grups", ("id",))))),
    Case("unknown_lookup", (KEY, "GROUP = twin.name"), "several lookups", "one, two", "right",
         right=right_with(references=(COMPANY, Reference("one", ("twin",), "groups", ("id",)),
                                      Reference("two", ("twin",), "groups", ("id",))))),
    Case("unknown_filter_column", (KEY,), "no column 'statee'", "", "right",
         head=HEAD + "filter:\n  right: statee eq '1'\n", entry="filter"),
    Case("key_unmapped", (KEY,), "key column name", head=HEAD + "key: [number, name]\n", entry="key", side="right"),
    Case("unknown_column", (KEY,), "no column 'numbr'", "'number'", head=HEAD + "key: [numbr]\n", entry="key",
         side="right"),
    Case("no_key", ("NAME = name",), "nothing identifies a record of products", "map number, company.code",
         entry="right"),
    Case("duplicate_target", (KEY, "NAME > note", "GROUP > note"), "note is written by line 7", side="right"),
    Case("duplicate_target", (KEY, "GROUP > group.name", "BRAND > group.brand", "SIZE > group"), "group is written",
         side="right"),
    Case("source_twice", (KEY, "NAME = name", "NAME = note"), "NAME of Items is mapped both ways in line 7",
         side="left", level="warning"),
    Case("incompatible_types", (KEY, "MADE > made"), "MADE (date) cannot become made (uuid)", side="right"),
    Case("may_lose_data", (KEY, "NAME > name"), "beyond 20", "truncate: true", "right", "warning"),
    Case("may_lose_data", (KEY, "SIZE = size"), "beyond 2", "round: true", "right", "warning"),
    Case("read_only_target", (KEY, "SIZE > stamp"), "stamp of products cannot be written", side="right"),
    Case("read_only_target", (KEY, "TOTAL = size"), "TOTAL of Items", side="left"),
    Case("mandatory_unmapped", (KEY,), "products needs weight", "default:", "right", entry="columns",
         right=right_with(column("weight", nullable=False))),
    Case("mandatory_may_be_null", (KEY, "NAME = note"), "NAME may be empty, products needs a value", "default: VALUE",
         "right", "warning", right=right_with(column("note", nullable=False))),
    Case("mandatory_may_be_null", (KEY, "BRAND = group.brand", "GROUP = group.name"), "GROUP may be empty",
         side="right",
         level="warning", right=right_with(column("group", INTEGER, nullable=False))),
    Case("key_one_way", ("NAME = note", "ITEM > number"), "number is not carried to the left side, but note is",
         side="left"),
    Case("key_may_be_absent", ("NAME = note", "ITEM >< number: {values: {a: b}, else: keep}"), "else: keep"),
    Case("key_polymorphic", (KEY, "GROUP = any.group(name).company(code)"), "may lead to several tables", "name other",
         "right", head=HEAD + "key: [number, any.group(name).company(code)]\n", entry="", right=OWNED),
    Case("lookup_polymorphic", (KEY, "GROUP > twin.any.group(name).company(code)"), "no record of products can be told",
         "carry it the other way only", "right", right=TWINS),
    Case("no_unique_index", (KEY,), "products has no unique index on number, company",
         "products_key on products (number, company)", "right", "warning", right=right_with(uniques=(("id",),)),
         head=HEAD + "key: [number]\n", entry="key"),
    Case("no_unique_index", (KEY,), "Items has no unique index on ITEM, AREA", "Items_key", "left", "warning",
         left=left_with(uniques=(), primary_key=()), head=HEAD + "key: [number]\n", entry="key"),
    Case("several_keys", (KEY, "NAME = note"), "told apart by number, company.code; note would do", "key:",
         right=right_with(uniques=(("number", "company"), ("note",))), entry="right"),
    Case("several_keys", (KEY, "NAME = note"), "told apart by number, company.code; note would do", "key:",
         level="warning", right=right_with(uniques=(("number", "company"), ("note",)),
                                           key=(("number",), ("company", "code"))), entry="right"),
    Case("lookup_key_unmapped", (KEY, "GROUP = group.name"), "group.brand is missing", "map group.brand too", "right"),
    Case("lookup_key_unmapped", (KEY, "BRAND < group.brand", "GROUP = group.name"), "group.brand is missing",
         side="right"),
    Case("lookup_key_unmapped", (KEY, "GROUP = group.name"), "no such key or unique index", "declare the key of groups",
         "right", right=Schema({**RIGHT.tables, "groups": replace(GROUPS, primary_key=(), uniques=())})),
    Case("lookup_not_key", (KEY, "GROUP = group.name", "BRAND = group.brand", "NAME = group.title"),
         "group.title is not part of the key", side="right"),
    Case("lookup_may_find_several", (KEY, "GROUP = group.owner.code"), "several records of groups", "map a key",
         "right", "warning", right=OWNED),
    Case("lookup_mixed_directions", (KEY, "GROUP = group.name", "BRAND > group.brand"),
         "group: group.name, group.brand",
         side="right", level="warning"),
    Case("unit_policies_differ", (KEY, "GROUP = group.name: {conflict: left}",
         "BRAND = group.brand: {conflict: right}"),
         "left or right"),
    Case("value_map_not_reversible", (KEY, "KIND >< kind: {values: {small: 10, big: 10}}"), "'10' is listed twice",
         side="right"),
    Case("value_map_not_reversible", (KEY, "KIND >< kind: {values: {small: 10, '0': 11}}"), "'0' is listed twice",
         side="left"),
    Case("value_map_not_reversible", (KEY, "NAME >< kind: {values: {a: 10}, else: 11}"), "no way back"),
    Case("value_map_ambiguous", (KEY, "KIND >> kind: {values: {small: 10, '0': 11}}"), "'0' is listed twice",
         side="left"),
    Case("bad_value", (KEY, "none >> kind: {default: huge}"), "no choice of kind (s, b)", side="right"),
    Case("bad_value", (KEY, "KIND >> size: {values: {small: tiny}}"), "'tiny' is not a number", side="right"),
    Case("bad_value", (KEY, "KIND >> kind: {values: {tiny: 10}}"), "no choice of KIND", side="left", level="warning"),
    Case("bad_value", (KEY, "KIND >> kind: {values: {small: 10}, else: 99}"), "else: '99'", side="right"),
    Case("bad_value", (KEY,), "filter on kind: 'x' is no choice", side="right", entry="filter",
         head=HEAD + "filter:\n  right: kind eq 'x'\n"),
    Case("bad_value", (KEY,), "filter on size: 'x' is not a number", side="right", entry="filter",
         head=HEAD + "filter:\n  right: size gt 'x'\n"),
    Case("bad_value", (KEY,), "filter on size: contains needs text", side="right", entry="filter",
         head=HEAD + "filter:\n  right: contains(size, '1')\n"),
    Case("company_missing", (KEY,), "products belong to companies (company.code)", side="right", level="warning",
         head=NO_COMPANY, entry="right"),
    Case("company_mismatch", (KEY,), "products belong to companies (company.code), the map has no company; those of",
         side="right", head=NO_COMPANY, entry="right",
         left=Schema({**left_with(company=None).tables, "Sites": replace(ITEMS, name="Sites", company=("AREA",))})),
    Case("company_differs", (KEY,), "names AREA, but the company of Items is GROUP", side="left", level="warning",
         left=left_with(company=("GROUP",)), entry="company"),
    Case("sum_not_number", (KEY, "NAME = name: {conflict: sum}"), "name cannot be decided by sum"),
    Case("sum_not_number", ("SIZE = size", "ITEM = number: {conflict: sum}"), "number"),
    Case("sum_not_number", (KEY, "SIZE = size", "NAME = note"), "note", head=HEAD + "conflict: sum\n",
         entry="conflict"),
    Case("policy_not_shared", (KEY, "KIND >< kind: {values: {small: 10, big: 11}, conflict: max}"), "kind"),
)  # fmt: skip


def found_in(case: Case) -> list[Problem]:
    """All that is said about a case."""
    return check_map(read(*case.lines, head=case.head), case.left, case.right)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.code}-{case.said[:30]}")
def test_mistake_is_found(case: Case) -> None:
    """Each mistake is told with its code, place, words and remedy."""
    found = [problem for problem in found_in(case) if problem.code == case.code]
    assert found, f"only found: {found_in(case)}"
    match = [problem for problem in found if case.said in problem.message]
    assert match, f"said instead: {found}"
    problem = match[0]
    assert problem.remedy
    assert case.remedy in problem.remedy
    assert (problem.level, problem.side) == (case.level, case.side)
    assert (problem.file, problem.line, problem.map) == ("maps/products.yaml", case.line(), "Products")


CLEAN = (KEY, "NAME >< note: {truncate: true}", "KIND >< kind: {values: {small: 10, big: 11}}", "GROUP = group.name",
         "BRAND = group.brand", "SIZE >> size: {round: true}")  # fmt: skip


@pytest.mark.parametrize(
    ("extra", "label", "found"),
    [
        ({}, "Released items", True),
        ({}, "released ITEMS", True),
        ({"leg": {"sourceSchemaDistinctName": "ITEMS"}}, "", True),
        ({"leg": {"destinationSchemaDistinctName": "Items"}, "flipped": "true"}, "", True),
        ({"leg": {"destinationSchemaDistinctName": "Items"}}, "", False),
        ({}, "", False),
    ],
)
def test_a_table_is_found_by_its_label(extra: dict[str, object], label: str, found: bool) -> None:
    """Exports call tables by their labels: a declared label, or the name that the export has beside it, finds them."""
    table_map = read(KEY, head=HEAD.replace("Items", "Released items"))
    table_map = replace(table_map, name="Released items (products)", extra={"x-d365": extra})
    problems = check_map(table_map, left_with(label=label), RIGHT)
    assert ("unknown_table" not in [problem.code for problem in problems]) is found


def test_the_name_beside_a_label_counts_for_that_label_alone() -> None:
    """A map whose table was renamed by a person is not led to the table that it had in the export."""
    table_map = read(KEY, head=HEAD.replace("Items", "Others"))
    kept = {"x-d365": {"leg": {"sourceSchemaDistinctName": "Items"}}}
    table_map = replace(table_map, name="Released items (products)", extra=kept)
    assert [problem.code for problem in check_map(table_map, LEFT, RIGHT)] == ["unknown_table"]


def test_an_unknown_table_is_guessed_by_its_columns() -> None:
    """Where no name comes near, the table that has most of the columns is named, with the way to declare its label."""
    (problem,) = check_map(read(KEY, "NAME = name", head=HEAD.replace("Items", "Released")), LEFT, RIGHT)
    assert problem.remedy.startswith("did you mean 'Items', which has 2 of 2 columns? name it, or declare label: Rel")


def test_sound_map_has_no_problems() -> None:
    """Nothing is said about a map that is in order."""
    assert check_map(read(*CLEAN), LEFT, RIGHT) == []


def test_one_mistake_is_told_once() -> None:
    """A wrong name does not raise a crowd of findings that follow from it."""
    assert [problem.code for problem in check_map(read(*CLEAN, "NAMES > name"), LEFT, RIGHT)] == ["unknown_column"]


def test_all_problems_come_at_once_in_the_order_of_lines() -> None:
    """Everything that is wrong with a map is told together."""
    found = check_map(read("ITEM > number", "NAMES = name", "NAME = nam", "MADE = made"), LEFT, RIGHT)
    assert [(problem.line, problem.code) for problem in found] == [
        (6, "key_one_way"),
        (7, "unknown_column"),
        (8, "unknown_column"),
        (9, "incompatible_types"),
        (9, "incompatible_types"),
    ]


@pytest.mark.parametrize(
    ("change", "code", "remedy"),
    [
        ({"conflict": "newst"}, "unknown_policy", "'newest'"),
        ({"rows": "kep"}, "unknown_row_policy", "'keep'"),
        ({"on_leave": "detatch"}, "unknown_on_leave", "'detach'"),
    ],
)
def test_unknown_words(change: dict[str, str], code: str, remedy: str) -> None:
    """A word that is not known is told with the nearest one that is."""
    found = check_map(replace(read(*CLEAN), **change), LEFT, RIGHT)  # type: ignore[arg-type]
    assert [problem.code for problem in found] == [code]
    assert remedy in found[0].remedy


def test_unknown_policy_of_a_column() -> None:
    """Column policies are checked like the map's."""
    table_map = read(*CLEAN)
    columns = (*table_map.columns[:-1], replace(table_map.columns[-1], conflict="latest"))
    found = check_map(replace(table_map, columns=columns), LEFT, RIGHT)
    assert [(problem.code, problem.line) for problem in found] == [("unknown_policy", 11)]


def test_map_without_columns() -> None:
    """A map must carry something."""
    found = check_map(replace(read(*CLEAN), columns=(), key=(("number",),)), LEFT, RIGHT)
    assert [problem.code for problem in found] == ["key_unmapped", "no_columns"]


@pytest.mark.parametrize(
    "mapping",
    [
        ColumnMapping(None, Direction.TO_RIGHT, ("size",), line=99),
        ColumnMapping(None, Direction.BOTH, ("flag",), (Default("1"),), line=99),
        ColumnMapping(("NAME",), Direction.TO_RIGHT, None, line=99),
        ColumnMapping(None, Direction.BOTH, None, line=99),
    ],
    ids=["nothing to give", "no way back", "nowhere to go", "nothing at all"],
)
def test_line_that_carries_nothing(mapping: ColumnMapping) -> None:
    """Each direction of a line needs something to carry and a place for it."""
    table_map = read(*CLEAN)
    found = check_map(replace(table_map, columns=(*table_map.columns, mapping)), LEFT, RIGHT)
    assert {(problem.code, problem.line) for problem in found} == {("no_source", 99)}


def test_null_source_is_no_worry_where_something_stands_in() -> None:
    """A default, a value for null, or a side without null fill a mandatory column."""
    right = right_with(column("note", nullable=False))
    for line in ("NAME >> note: {default: x}", "NAME >> note: {values: {null: x}}"):
        assert check_map(read(KEY, line), LEFT, right) == []
    left = Schema({"Items": with_column(ITEMS, column("NAME", empty_is_null=True))})
    assert check_map(read(KEY, "NAME > note"), left, right) == []


# -- several maps -----------------------------------------------------------------------------------------------------

OTHER = HEAD.replace("map: Products", "map: Others")


def codes(*maps: TableMap) -> list[tuple[str, str, str]]:
    """What is said of several maps: code, level, side."""
    return [(problem.code, problem.level, problem.side) for problem in check_maps(maps, LEFT, RIGHT)]


def test_two_maps_of_one_table_write_one_column() -> None:
    """Two maps that write a column of the same records are refused, per side on which they do."""
    one, two = read(*CLEAN), read(KEY, "NAME > note", head=OTHER, file="maps/others.yaml")
    found = check_maps([one, two], LEFT, RIGHT)
    assert [(problem.code, problem.side, problem.file, problem.line) for problem in found] == [
        ("maps_share_records", "left", "maps/others.yaml", 6),
        ("two_maps_one_column", "right", "maps/others.yaml", 7),
    ]
    assert "'Products' writes note of products too" in found[1].message


def test_filters_on_both_maps_make_it_a_warning() -> None:
    """Where both maps have filters there, only a person can say whether they overlap."""
    filtered = "filter:\n  left: NAME eq 'a'\n  right: note eq 'a'\n"
    one, two = read(*CLEAN, head=HEAD + filtered), read(KEY, "NAME = note", head=OTHER + filtered)
    assert codes(one, two) == [("filters_overlap", "warning", "left"), ("filters_overlap", "warning", "right")]


@pytest.mark.parametrize(
    ("one", "other", "apart"),
    [
        ("NAME eq 'a'", "NAME eq 'b'", True),
        ("NAME eq 'a'", "NAME ne 'a'", True),
        ("NAME eq 'a'", "not (NAME eq 'a')", True),
        ("NAME eq null", "NAME ne null", True),
        ("NAME eq null", "NAME ne 'a'", True),
        ("NAME in ('a', 'b')", "NAME in ('c', 'd') and ITEM ne null", True),
        ("NAME eq 'a' or NAME eq 'b'", "NAME eq 'c'", True),
        ("NAME eq 'a'", "ITEM eq 'b'", False),
        ("NAME eq 'a' or ITEM eq 'x'", "NAME eq 'c'", False),
        ("NAME in ('a', 'b')", "NAME in ('b', 'c')", False),
        ("NAME ne 'a'", "NAME ne 'b'", False),
        ("NAME ne 'a'", "not (NAME ne 'a')", False),
    ],
)
def test_filters_that_exclude_each_other(one: str, other: str, apart: bool) -> None:
    """Where a column would have to hold two values at once, nobody is warned."""
    second = read(KEY, "NAME < name", head=OTHER + f'filter: {{left: "{other}"}}\n')
    first = read(KEY, "NAME < name", head=HEAD + f'filter: {{left: "{one}"}}\n')
    found = check_maps([first, second], LEFT, RIGHT)
    overlap = any(problem.code == "filters_overlap" and problem.side == "left" for problem in found)
    assert overlap is not apart


def test_maps_of_one_name() -> None:
    """Maps are known by their names, so a name is given once."""
    assert ("duplicate_map", "error", "") in codes(read(*CLEAN), read(*CLEAN))


def test_maps_that_read_one_column_are_fine() -> None:
    """One table may feed several maps."""
    left = Schema({**LEFT.tables})
    right = Schema({**RIGHT.tables, "copies": replace(PRODUCTS, name="copies")})
    copies = read("ITEM > number", "NAME > note", head=OTHER.replace("right: products", "right: copies"))
    assert check_maps([read(*CLEAN), copies], left, right) == []


# -- the codes --------------------------------------------------------------------------------------------------------


def test_codes_are_stable_words_with_cause_and_remedy() -> None:
    """Documentation is made from the table of codes."""
    for code, (cause, remedy) in CODES.items():
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", code)
        assert cause.endswith(".")
        assert remedy
        assert not remedy.endswith(".")


def test_a_filter_that_cannot_be_read_keeps_the_map_from_running() -> None:
    """It is told with its own words."""
    unread = {Side.RIGHT: Unread("odata", "length(number) eq 3", "length is not known")}
    found = check_map(replace(read(*CLEAN), unread=unread), LEFT, RIGHT)
    assert [(problem.code, problem.level, problem.side) for problem in found] == [("unread_filter", "error", "right")]
    assert "'length(number) eq 3' cannot be read: length is not known" in found[0].message


def test_what_is_kept_of_an_export_without_being_done_is_told() -> None:
    """A transform of an unknown kind keeps the map from running; a field mapping that no line can say does not."""
    clean = read(*CLEAN)
    kept = {"x-d365": {"valueTransforms": [{"unread": {"transformType": "Truncate"}}]}}
    columns = (replace(clean.columns[0], extra=kept), *clean.columns[1:])
    unread = {"x-d365": {"unread": [{"at": "1", "entry": {"syncDirection": "7"}}]}}
    found = check_map(replace(clean, columns=columns, extra=unread), LEFT, RIGHT)
    assert {(problem.code, problem.level) for problem in found} == {
        ("bad_field_mapping", "warning"),
        ("unread_transform", "error"),
    }
    assert any("'Truncate' is not known" in problem.message for problem in found)
    assert any('{"syncDirection": 7}' in problem.message for problem in found)


def test_codes_name_the_numbers_of_dual_write() -> None:
    """A problem that Dual-write would tell carries its number, wherever it is told."""
    (found,) = check_map(replace(read(*CLEAN), left="nowhere"), LEFT, RIGHT)
    assert found.dipv == ("DIPV1018", "DIPV1020")
    assert "error unknown_table (DIPV1018, DIPV1020): " in str(found)
    known = {*CODES, *d365.CODES, *offline.CODES, *document.CODES, *data.CODES, "connection"}
    assert set(NUMBERS) <= {*known, *_sqlite_health.CODES, *_pg_health.CODES}
    numbers = {number for numbers in NUMBERS.values() for number in numbers}
    assert not numbers & WITHOUT.keys()
    assert numbers | WITHOUT.keys() == {f"DIPV{number}" for number in range(1000, 1032)}


def test_every_code_is_tested() -> None:
    """No code is listed without a case that shows it."""
    shown = {case.code for case in CASES}
    shown |= {"unknown_policy", "unknown_row_policy", "unknown_on_leave", "no_columns", "no_source", "unread_filter"}
    shown |= {"bad_field_mapping", "unread_transform"}
    shown |= {"two_maps_one_column", "maps_share_records", "filters_overlap", "duplicate_map"}
    assert shown == set(CODES)
