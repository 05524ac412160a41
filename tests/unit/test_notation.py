"""The notation of map files: what each line means, and what is said of every mistake."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dualwrite.errors import Invalid, Problem
from dualwrite.expression import Column, Compare, Literal
from dualwrite.mapping.notation import read_map
from dualwrite.mapping.tablemap import (
    Case,
    ColumnMapping,
    Company,
    Default,
    Direction,
    Formula,
    Round,
    TableMap,
    Transform,
    Trim,
    Truncate,
    Unread,
    ValueMap,
    Written,
)
from dualwrite.mapping.writing import write_map
from dualwrite.model import Side

EXAMPLE = """\
map: Customers V3 (accounts)
version: 1.0.0.0
publisher: Contoso
left: CustomersV3
right: accounts
company: DATAAREAID = msdyn_company.cdm_companycode       # company-specific
key: [accountnumber]                                       # right-hand paths
filter:
  left: "PARTYTYPE eq 'Organization'"                      # OData on both sides
columns:
  - CUSTOMERACCOUNT = accountnumber
  - SALESCURRENCYCODE = transactioncurrencyid.isocurrencycode
  - ONHOLDSTATUS >< msdyn_onholdstatus: {values: {no: 806380000, invoice: 806380001}}
  - none >> customertypecode: {default: 3}
  - PARTYTYPE << none: {default: Organization}
  - CREDITLIMIT = creditlimit: {conflict: max}
  - {left: "Item #", direction: both, right: item_no}      # long form for names that are not plain words
"""


def with_columns(*lines: str) -> str:
    """A map file with these column lines, the first of them on line 5."""
    return "map: m\nleft: L\nright: R\ncolumns:\n" + "\n".join(f"  {line}" for line in lines) + "\n"


def column(line: str) -> ColumnMapping:
    """What one column line means."""
    return replace(read_map(with_columns(f"- {line}"), "m.yaml").columns[0], line=0)


def problems(text: str) -> list[Problem]:
    """What is wrong with a map file."""
    with pytest.raises(Invalid) as caught:
        read_map(text, "m.yaml")
    return list(caught.value.problems)


def problem(*lines: str) -> Problem:
    """The one thing that is wrong with these column lines."""
    found = problems(with_columns(*lines))
    assert len(found) == 1, found
    return found[0]


def test_the_whole_example():
    """Every part of a map file arrives where it belongs, with its line."""
    found = read_map(EXAMPLE, "maps/customers.yaml")
    both, right, left = Direction.BOTH, Direction.TO_RIGHT, Direction.TO_LEFT
    assert found == TableMap(
        name="Customers V3 (accounts)",
        left="CustomersV3",
        right="accounts",
        version="1.0.0.0",
        publisher="Contoso",
        company=Company(("DATAAREAID",), ("msdyn_company", "cdm_companycode"), 6),
        key=(("accountnumber",),),
        filters={Side.LEFT: Compare("eq", Column(("PARTYTYPE",)), Literal("Organization"))},
        columns=(
            ColumnMapping(("CUSTOMERACCOUNT",), both, ("accountnumber",), line=11),
            ColumnMapping(("SALESCURRENCYCODE",), both, ("transactioncurrencyid", "isocurrencycode"), line=12),
            ColumnMapping(
                ("ONHOLDSTATUS",),
                both,
                ("msdyn_onholdstatus",),
                (ValueMap((("no", "806380000"), ("invoice", "806380001"))),),
                line=13,
            ),
            ColumnMapping(None, right, ("customertypecode",), (Default("3"),), line=14),
            ColumnMapping(("PARTYTYPE",), left, None, (Default("Organization"),), line=15),
            ColumnMapping(("CREDITLIMIT",), both, ("creditlimit",), (), "max", line=16),
            ColumnMapping(("Item #",), both, ("item_no",), line=17),
        ),
        file="maps/customers.yaml",
        lines={
            "map": 1,
            "version": 2,
            "publisher": 3,
            "left": 4,
            "right": 5,
            "company": 6,
            "key": 7,
            "filter": 8,
            "columns": 10,
        },
    )


@pytest.mark.parametrize(
    ("line", "direction"),
    [
        ("a = b", Direction.BOTH),
        ("a > b", Direction.TO_RIGHT),
        ("a < b", Direction.TO_LEFT),
        ("a   =    b", Direction.BOTH),
    ],
)
def test_symbols_without_transform(line: str, direction: Direction):
    """The single symbols say the direction; blanks do not count."""
    assert column(line) == ColumnMapping(("a",), direction, ("b",))


@pytest.mark.parametrize(
    ("line", "direction"),
    [("a ><  b", Direction.BOTH), ("a >> b", Direction.TO_RIGHT), ("a << b", Direction.TO_LEFT)],
)
def test_symbols_with_transform(line: str, direction: Direction):
    """The doubled symbols say the direction and that values change."""
    assert column(f"{line}: {{default: x}}") == ColumnMapping(("a",), direction, ("b",), (Default("x"),))


@pytest.mark.parametrize(
    ("options", "transforms"),
    [
        ("{default: null}", (Default(None),)),
        ('{default: "null"}', (Default("null"),)),
        ("{default: }", (Default(None),)),
        ("{default: ~}", (Default(None),)),
        ('{default: ""}', (Default(""),)),
        ("{default: no}", (Default("no"),)),
        ("{default: 001}", (Default("001"),)),
        ("{default: 1e3}", (Default("1e3"),)),
        ("{default: 1.0000000000}", (Default("1.0000000000"),)),
        ("{default: 2024-01-01}", (Default("2024-01-01"),)),
        ("{values: {a: null, null: b}}", (ValueMap((("a", None), (None, "b"))),)),
        ("{values: {}, else: keep}", (ValueMap((), "keep"),)),
        ("{values: {a: b}, else: park}", (ValueMap((("a", "b"),), "park"),)),
        ('{values: {a: b}, else: "park"}', (ValueMap((("a", "b"),), "=park"),)),
        ("{values: {a: b}, else: 7}", (ValueMap((("a", "b"),), "=7"),)),
        ('{values: {a: b}, else: ""}', (ValueMap((("a", "b"),), "="),)),
        ("{values: [[a, b], [a, c]]}", (ValueMap((("a", "b"), ("a", "c"))),)),
        ("{truncate: true}", (Truncate(),)),
        ("{values: {a: b}, reverse: {b: a, c: a}}", (ValueMap((("a", "b"),), None, (("b", "a"), ("c", "a"))),)),
        (
            "{reverse: [[b, a], [b, null]], else: keep, values: {}}",
            (ValueMap((), "keep", (("b", "a"), ("b", None))),),
        ),
        ("{trim: true, upper: yes, lower: no}", (Trim(), Case("upper"))),
        ("[{lower: true}, {values: {a: b}}, {lower: true}]", (Case("lower"), ValueMap((("a", "b"),)), Case("lower"))),
        ("{truncate: yes, round: no, default: 1}", (Truncate(), Default("1"))),
        ("{default: 1, values: {a: b}, round: true}", (Default("1"), ValueMap((("a", "b"),)), Round())),
        (
            "[{values: {a: b}}, {values: {b: c}, else: keep}]",
            (ValueMap((("a", "b"),)), ValueMap((("b", "c"),), "keep")),
        ),
    ],
)
def test_transforms(options: str, transforms: tuple[Transform, ...]):
    """Options become transforms in their order, and every value is the text that was written."""
    assert column(f"a >< b: {options}").transforms == transforms


@pytest.mark.parametrize("symbol", ["=", ">", "<"])
def test_truncate_round_and_conflict_fit_any_symbol(symbol: str):
    """What does not translate values needs no doubled symbol."""
    found = column(f"a {symbol} b: {{truncate: true, round: true, conflict: left}}")
    assert (found.transforms, found.conflict) == ((Truncate(), Round()), "left")


@pytest.mark.parametrize(
    ("line", "left", "right"),
    [
        ("{left: a.b, direction: both, right: c}", ("a", "b"), ("c",)),
        ("{left: [a.b, c], direction: both, right: My column}", ("a.b", "c"), ("My column",)),
        ('{left: [none], direction: both, right: "none"}', ("none",), ("none",)),
        ("{left: none, direction: right, right: c, default: 1}", None, ("c",)),
    ],
)
def test_long_form(line: str, left: tuple[str, ...] | None, right: tuple[str, ...]):
    """The long form takes any name: a path may be a list, and quotes make ``none`` a name."""
    found = column(line)
    assert (found.left, found.right) == (left, right)


def test_a_formula_stands_where_no_column_is():
    """What is computed names its columns itself."""
    found = column("""none >> c: {expr: "A & ' ' & [b #]", default: x, trim: true}""")
    assert found == ColumnMapping(None, Direction.TO_RIGHT, ("c",), (Formula("A & ' ' & [b #]"), Default("x"), Trim()))


def test_long_form_takes_every_option():
    """Options of the long form stand beside its ends, several steps under ``transforms``."""
    found = column("{left: a, direction: left, right: b, values: {x: y}, else: keep, conflict: sum}")
    assert found == ColumnMapping(("a",), Direction.TO_LEFT, ("b",), (ValueMap((("x", "y"),), "keep"),), "sum")
    found = column("{left: a, direction: left, right: b, transforms: [{default: x}, {default: y}]}")
    assert found.transforms == (Default("x"), Default("y"))


def test_options_in_block_style():
    """Options may stand below their line."""
    found = column("a >< b:\n        values:\n          x: 1\n        else: park")
    assert found.transforms == (ValueMap((("x", "1"),), "park"),)


def test_settings_and_extra():
    """Settings other than the usual, and unknown ``x-`` entries, are kept."""
    text = (
        with_columns("- a = b")
        + "conflict: newest\nrows: delete\ndeletes: no\non_leave: delete\nx-own: {a: [1, null]}\n"
    )
    found = read_map(text, "m.yaml")
    assert (found.conflict, found.rows, found.deletes, found.on_leave) == ("newest", "delete", False, "delete")
    assert found.extra == {"x-own": {"a": ["1", None]}}


@pytest.mark.parametrize(
    ("lines", "code", "remedy"),
    [
        (["- a <> b"], "bad_symbol", "did you mean ><?"),
        (["- a == b"], "bad_symbol", "did you mean =?"),
        (["- a -> b"], "bad_symbol", "did you mean >?"),
        (["- a >>> b"], "bad_symbol", "known are: = > < >< >> <<"),
        (["- a=b"], "bad_line", "blanks around the symbol"),
        (["- My column = b"], "bad_line", "long form"),
        (["- a"], "bad_line", "LEFT = right"),
        (["- [a, b]"], "bad_line", "LEFT = right"),
        (["- a# = b"], "bad_path", "long form"),
        (["- a. = b"], "bad_path", "long form"),
        (["- {left: a..b, direction: both, right: c}"], "bad_path", "[a..b]"),
        (["- a = b: {default: 1}"], "bad_symbol", "write ><"),
        (["- a > b: {values: {a: b}}"], "bad_symbol", "write >>"),
        (["- a < b: {values: {a: b}}"], "bad_symbol", "write <<"),
        (["- a >< b"], "bad_symbol", "write =,"),
        (["- a << b: {conflict: left}"], "bad_symbol", "write <,"),
        (["- none = b"], "bad_symbol", "written with >>"),
        (["- a > none"], "bad_symbol", "written with <<"),
        (["- none >> b: {truncate: true}"], "bad_line", "add {default: VALUE}"),
        (["- none >> none: {default: 1}"], "bad_line", "name the column"),
        (["- a = b:", "  conflict: max"], "bad_line", "indent the options"),
        (["- a > b: {upper: true}"], "bad_symbol", "write >>"),
        (["- a >> b: {uper: true}"], "unknown_key", "did you mean 'upper'?"),
        (["- a >> b: {upper: [a]}"], "bad_entry", "true or false"),
        (["- a >> b: {reverse: {a: b}}"], "bad_line", "add values:"),
        (["- a >> b: {values: {a: b}, reverse: c}"], "bad_entry", "{RIGHT: LEFT, …}"),
        (["- a >> b: {expr: a}"], "bad_line", "write none for the column"),
        (["- none >> b: [{expr: a}, {expr: b}]"], "bad_line", "put both into one"),
        (["- none > b: {expr: a}"], "bad_symbol", "write >>"),
        (["- none >> b: {expr: a b}"], "bad_expr", "an expr looks like"),
        (["- none >> b: {expr: [a]}"], "bad_entry", "write one value"),
        (["- a = b: {conflct: max}"], "unknown_key", "did you mean 'conflict'?"),
        (["- a = b: {conflict: maxi}"], "bad_entry", "did you mean 'max'?"),
        (["- a = b: {truncate: perhaps}"], "bad_entry", "true or false"),
        (["- a = b: {truncate: true, else: x}"], "bad_line", "add values:"),
        (["- a >< b: {values: {a: b}, else: null}"], "bad_entry", "park, keep or a value"),
        (["- a >< b: {values: x}"], "bad_entry", "{LEFT: RIGHT, …}"),
        (["- a >< b: {values: [[a, b, c]]}"], "bad_entry", "[[LEFT, RIGHT], …]"),
        (["- a >< b: {values: {a: [b]}}"], "bad_entry", "write the value itself"),
        (["- a >< b: {default: [1]}"], "bad_entry", "write the value itself"),
        (["- {left: a, direction: both}"], "missing_key", "add right: none"),
        (["- {left: a, right: b}"], "missing_key", "add direction: both"),
        (["- {left: a, direction: up, right: b}"], "bad_entry", "both, right, left"),
        (["- {left: a, direction: both, right: b, valus: {}}"], "unknown_key", "did you mean 'values'?"),
        (["- {left: , direction: both, right: b}"], "bad_entry", "write one value"),
        (["- a >< b: {values: {a: b, a: c}}"], "duplicate_key", "remove one"),
        (["- a = &x"], "bad_path", "long form"),
        (["- !x a = b"], "yaml", "quote the value"),
        (["- &x a = b"], "yaml", "quote the value"),
        (["- a = b: {conflict: max"], "yaml", "mind indentation"),
        (["- a = b: {default: x #1}"], "yaml", "put quotes"),
    ],
)
def test_a_wrong_column_line(lines: list[str], code: str, remedy: str):
    """Every mistake in a column line has its code, its line and a remedy."""
    found = problem(*lines)
    assert found.code == code
    assert remedy in found.remedy
    assert found.file == "m.yaml"
    assert found.line in ((5, 6) if code == "yaml" else (5,))


@pytest.mark.parametrize(
    ("text", "lost"),
    [
        (with_columns("- a = b #c"), "#c"),
        (with_columns("- a = b #"), "#"),
        (with_columns("- a = b  #c"), "#c"),
        (with_columns("- a = b # c"), "# c"),
        (with_columns("- a >< b:", "    default: x #1"), "#1"),
        (with_columns("- a = b").replace("right: R", "right: Item #"), "#"),
        (with_columns("- a = b").replace("map: m", "map: m #2"), "#2"),
        (with_columns("- a = b") + "filter:\n  left: a eq 'x' #1\n", "#1"),
    ],
)
def test_a_swallowed_sign(text: str, lost: str):
    """A # that may have cut off part of a name or value is refused, with what it cut off and what to do."""
    found = [each for each in problems(text) if each.code == "swallowed"]
    assert len(found) == 1
    assert repr(lost) in found[0].message
    assert "quote the value, or use the long form" in found[0].remedy


def test_a_comment_beyond_doubt():
    """Two blanks before the # and one behind it make a comment; so does any place where nothing can be lost."""
    text = with_columns("# first", "- a = b  # second", '- {left: "a", direction: both, right: c} #third')
    assert len(read_map(text, "m.yaml").columns) == 2


def test_what_is_not_known_of_a_column_is_kept():
    """Entries of one's own stand beside the options of a line, in both forms, and are written back."""
    text = with_columns(
        "- a = b: {x-own: {n: 1}, conflict: max}",
        "- {left: c, direction: both, right: 'd e', x-own: [1]}",
        "- f >< g: [{values: {1: 2}}, {values: {2: 3}, x-own: null}]",
    )
    found = read_map(text, "")
    assert [mapping.extra for mapping in found.columns] == [{"x-own": {"n": "1"}}, {"x-own": ["1"]}, {"x-own": None}]
    assert [mapping.extra for mapping in read_map(write_map(found), "").columns] == [e.extra for e in found.columns]


def test_a_filter_that_cannot_be_read_is_kept_word_for_word():
    """One that names its language is an expression where it can be read, else its own text."""
    text = "filter: {left: {odata: 'a eq 1'}, right: {odata: 'length(a) eq 1'}}\n"
    found = read_map(text + with_columns("- a = b"), "")
    assert found.filters == {Side.LEFT: Compare("eq", Column(("a",)), Literal("1"))}
    assert found.unread == {Side.RIGHT: Unread("odata", "length(a) eq 1")}
    assert found.unread[Side.RIGHT].reason
    assert read_map(write_map(found), "").unread == found.unread


def test_all_problems_at_once_in_the_order_of_the_file():
    """One reading reports everything, each with its own line and the map's name."""
    text = (
        "map: orders\nverson: 1\nversion: 1.0\nright: R\nright: S\nkey: a\ncompany: A > b\n"
        "filter: {left: 'x eq', middle: x}\nrows: kept\ncolumns:\n  - a <> b\n  - c = d: {else: 1}\ndeletes: 3\n"
    )
    found = problems(text)
    assert [(each.line, each.code) for each in found] == [
        (1, "missing_key"),
        (2, "unknown_key"),
        (3, "bad_entry"),
        (5, "duplicate_key"),
        (6, "bad_entry"),
        (7, "bad_line"),
        (8, "unknown_key"),
        (8, "bad_filter"),
        (9, "bad_entry"),
        (11, "bad_symbol"),
        (12, "bad_line"),
        (13, "bad_entry"),
    ]
    assert {each.map for each in found} == {"orders"}
    assert str(found[1]) == "m.yaml:2: error unknown_key: a map has no entry 'verson' — did you mean 'version'?"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "this is not a map"),
        ("- a", "this is not a map"),
        ("just words", "this is not a map"),
        ("a: [", "this is not YAML"),
        ("a: \x00", "this is not YAML"),
        ("map: m\n---\nmap: n", "a second document starts here"),
        ("%YAML 1.1\n---\nmap: m", "YAML directives are not used here"),
        ("[" * 100 + "]" * 100, "nested deeper than"),
        ("map: m\nx: *a", "*a is a YAML alias"),
        ("? [a]\n: b", "a key must be text"),
        ("map: m\n: b", "this is not YAML"),
        ("map: m\n? \n: b", "has an empty key"),
        ("map: m\ncolumns: []", "must be a list that is not empty"),
        ("map: m\ncolumns: a = b", "must be a list"),
        ("map: {a: b}", "map must be a text"),
        ("left:", "left is empty"),
        ("filter:\n  left:", "filter left is empty"),
        ("filter: a eq b", "filter must be a mapping"),
        ("filter: {left: 'a eq'}", "filter left"),
        ("filter: {left: {sql: 'a = b'}}", "has no entry 'sql'"),
        ("filter: {left: {odata: 'a', xpp: 'b'}}", "must be one filter"),
        ("filter: {left: {}}", "must be one filter"),
        ("filter: {left: {xpp: [a]}}", "filter left must be a text"),
        ("version: 1.2.3", "version '1.2.3' is not four numbers"),
        ("version: 1.2.3.four", "is not four numbers"),
        ("company: a = none", "the company is the same column on both sides"),
        ("company: {left: a}", "company needs left and right"),
        ("key: [[]]", "key must be a list"),
        ("on_leave: forget", "on_leave cannot be 'forget'"),
        ("x-a: {null: b}", "has an empty key"),
    ],
)
def test_a_wrong_file(text: str, message: str):
    """Whatever is not a map says so."""
    assert any(message in each.message for each in problems(text))


def test_company_in_long_form():
    """A company's paths may hold names that are not plain words, too."""
    text = with_columns("- a = b") + "company: {left: Data area, right: [firm, a.b]}\n"
    assert read_map(text, "m.yaml").company == Company(("Data area",), ("firm", "a.b"), 6)


def test_writing_the_example():
    """A written map reads like one written by hand."""
    assert (
        write_map(read_map(EXAMPLE, "m.yaml"))
        == """\
map: Customers V3 (accounts)
version: 1.0.0.0
publisher: Contoso
left: CustomersV3
right: accounts
company: DATAAREAID = msdyn_company.cdm_companycode
key: [accountnumber]
filter:
  left: "PARTYTYPE eq 'Organization'"
columns:
  - CUSTOMERACCOUNT   =  accountnumber
  - SALESCURRENCYCODE =  transactioncurrencyid.isocurrencycode
  - ONHOLDSTATUS      >< msdyn_onholdstatus: {values: {no: 806380000, invoice: 806380001}}
  - none              >> customertypecode: {default: 3}
  - PARTYTYPE         << none: {default: Organization}
  - CREDITLIMIT       =  creditlimit: {conflict: max}
  - {left: "Item #", direction: both, right: item_no}
"""
    )


@pytest.mark.parametrize(
    "written",
    [
        """'((PartyType == "Organization") && (D <= 23\\06\\2021))'""",
        '"(Name == \\"O\'Brien\\")"',
        "'(this is no X++'",
    ],
)
def test_a_filter_in_xpp_is_kept_as_written(written: str):
    """X++ stands beside OData, and whatever it says comes back letter by letter."""
    text = with_columns("- a = b") + f"filter:\n  left: {{xpp: {written}}}\n  right: a eq 1\n"
    found = read_map(text, "m.yaml")
    assert found.filters[Side.RIGHT] == Compare("eq", Column(("a",)), Literal("1"))
    assert (Side.LEFT in found.unread) == ("no X++" in written)
    assert f"  left: {{xpp: {written}}}\n" in write_map(found)
    again = read_map(write_map(found), "m.yaml")
    assert (again.filters, again.unread) == (found.filters, found.unread)


def test_xpp_that_does_not_say_so_is_told_how_to():
    """A filter that is X++ all over gets the remedy that fits."""
    (found,) = problems(with_columns("- a = b") + "filter:\n  left: '((a == \"x\") && (b > 1))'\n")
    assert found.code == "bad_filter"
    assert found.remedy == """this is X++, so say so: {xpp: '((a == "x") && (b > 1))'}"""


def test_a_filter_in_xpp_says_what_it_means():
    """What X++ says is read beside its words, and what it cannot say is told with its place."""
    text = with_columns("- a = b") + "filter: {left: {xpp: '(a = 1)'}, right: {xpp: '(a == b)'}}\n"
    found = read_map(text, "m.yaml")
    assert found.filters == {Side.LEFT: Written("xpp", "(a = 1)", Compare("eq", Column(("a",)), Literal("1")))}
    assert "at character 7" in found.unread[Side.RIGHT].reason


def test_writing_breaks_long_lines():
    """A long value map is written one pair per line."""
    pairs = tuple((f"value number {number}", f"80638000{number}") for number in range(6))
    mapping = ColumnMapping(("a",), Direction.BOTH, ("b",), (ValueMap(pairs, "=park"), Default(None)))
    text = write_map(TableMap("m", "L", "R", (mapping,)))
    assert text.endswith(
        "columns:\n  - a >< b:\n      values:\n"
        + "".join(f"        {left}: {right}\n" for left, right in pairs)
        + '      else: "park"\n      default: null\n'
    )
    assert read_map(text, "").columns[0].transforms == mapping.transforms
