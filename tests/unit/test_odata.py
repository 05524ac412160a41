"""Filters in OData: read, refused with a place, and written back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualwrite.expression import ALWAYS, NEVER, And, Column, Compare, Literal, Not, OneOf, Or, simplify
from dualwrite.mapping.odata import FilterError, parse
from dualwrite.mapping.odata_text import print_odata
from dualwrite.schema import Column as SchemaColumn
from dualwrite.schema import ColumnType, TypeName


def is_(operator, value, *path):
    """A comparison, of ``a`` unless a path is given."""
    return Compare(operator, Column(path or ("a",)), Literal(value))


A, B = is_("eq", "1"), is_("eq", "2", "b")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a eq 1", A),
        ("  a  EQ  1 ", A),
        ("(a eq 1)", A),
        ("a eq 1 and b eq 2", And((A, B))),
        ("a eq 1 and (b eq 2 and a eq 1)", And((A, B, A))),
        ("a eq 1 or b eq 2 and a eq 1", Or((A, And((B, A))))),
        ("(a eq 1 or b eq 2) and a eq 1", And((Or((A, B)), A))),
        ("(a eq 1)and(b eq 2)", And((A, B))),
        ("not (a eq 1)", Not(A)),
        ("not(a eq 1)", Not(A)),
        ("not a eq 1 and b eq 2", And((Not(A), B))),
        ("not contains(a,'x')", Not(is_("contains", "x"))),
        ("a ne null", is_("ne", None)),
        ("null eq a", is_("eq", None)),
        ("5 lt a", is_("gt", "5")),
        ("5 ge a", is_("le", "5")),
        ("5 gt a", is_("lt", "5")),
        ("5 le a", is_("ge", "5")),
        ("5 ne a", is_("ne", "5")),
        ("1 eq a", A),
        ("a gt -5", is_("gt", "-5")),
        ("a gt - 5", is_("gt", "-5")),
        ("a gt 1.50", is_("gt", "1.50")),
        ("a gt 1e3", is_("gt", "1e3")),
        ("a eq 007", is_("eq", "007")),
        ("a eq 'O''Brien'", is_("eq", "O'Brien")),
        ("a eq ''", is_("eq", "")),
        ("a eq 'x and (y'", is_("eq", "x and (y")),
        ("a eq true", is_("eq", "t")),
        ("a eq False", is_("eq", "f")),
        ("a", is_("eq", "t")),
        ("not a", Not(is_("eq", "t"))),
        ("true", ALWAYS),
        ("false or a eq 1", Or((NEVER, A))),
        ("startswith(x/y, 'q')", is_("startswith", "q", "x", "y")),
        ("endswith(x.y.z, 'q')", is_("endswith", "q", "x", "y", "z")),
        ("x/y.z eq 1", is_("eq", "1", "x", "y", "z")),
        ("matchesPattern(a, '^x.y.*$')", is_("like", "x?y*")),
        ("matchesPattern(a, '^x.*$')", is_("startswith", "x")),
        ("matchesPattern(a, 'x')", is_("contains", "x")),
        (r"matchesPattern(a, '^\.\*')", is_("startswith", ".*")),
        ("matchesPattern(a, null)", is_("like", None)),
        ("a in (1)", OneOf(Column(("a",)), (Literal("1"),))),
        ("a in ('x', null)", OneOf(Column(("a",)), (Literal("x"), Literal(None)))),
        ("a in (1) and b eq 2", And((OneOf(Column(("a",)), (Literal("1"),)), B))),
        ("a eq 2024-01-31", is_("eq", "2024-01-31")),
        ("a eq 2024-01-31T13:45:00.50Z", is_("eq", "2024-01-31 13:45:00.5+00")),
        ("a eq 2024-01-31T13:45:00+02:00", is_("eq", "2024-01-31 11:45:00+00")),
        ("a eq 2024-01-31T13:45:00", is_("eq", "2024-01-31 13:45:00")),
        ("a eq 13:45:00", is_("eq", "13:45:00")),
        (
            "a eq 6F9619FF-8B86-D011-B42D-00C04FC964FF",
            is_("eq", "6F9619FF-8B86-D011-B42D-00C04FC964FF"),
        ),
        ("a eq Microsoft.Dynamics.DataEntities.NoYes'Yes'", is_("eq", "Yes")),
        ("anything eq 1", is_("eq", "1", "anything")),
        ("allow/anyone eq 1", is_("eq", "1", "allow", "anyone")),
        ("nullable eq 1 and trueish eq 1", And((is_("eq", "1", "nullable"), is_("eq", "1", "trueish")))),
        ("any eq 1", is_("eq", "1", "any")),
        ("[Item #] eq 1", is_("eq", "1", "Item #")),
        ("[a]]b]/[c.d].e eq 1", is_("eq", "1", "a]b", "c.d", "e")),
        ("[null] eq null", is_("eq", None, "null")),
        ("été eq 1", is_("eq", "1", "été")),
    ],
    ids=str,
)
def test_parse(text, wanted):
    """A filter is read as OData means it, and printed so that it reads the same again."""
    assert parse(text) == wanted
    assert parse(print_odata(wanted)) == wanted


@pytest.mark.parametrize(
    ("text", "column", "words"),
    [
        ("", 0, "empty"),
        ("  ", 0, "empty"),
        ("(a eq 1", 1, "never closed"),
        ("a eq 1 and ((b eq 2)", 12, "never closed"),
        ("a eq 1)", 7, "closes none"),
        ("a equals 1", 3, "equals is no operator: there are eq, ne"),
        ("a eq", 3, "eq has no value behind it"),
        ("eq 1", 1, "eq has no column before it"),
        ("a eq 1 and", 8, "and has no value behind it"),
        ("a == 1", 3, "use eq"),
        ("a = 1", 3, "use eq"),
        ("a <> 1", 3, "use ne"),
        ("a >= 1", 3, "use ge"),
        ("a eq 1 && b eq 2", 8, "use and"),
        ("a eq 1 b eq 2", 8, "b is no operator"),
        ("a eq 'x", 6, "no closing quote"),
        ('a eq "x"', 6, "single quotes"),
        ("[a eq 1", 1, "no closing bracket"),
        ("a eq $x", 6, "$ cannot stand here"),
        ("1 eq 2", 1, "both sides are values"),
        ("null eq null", 0, "both sides are values"),
        ("a eq b", 6, "'b'"),
        ("a eq Organization", 6, "text stands in single quotes: 'Organization'"),
        ("tolower(a) eq 'x'", 1, "tolower"),
        ("foo(a)", 1, "foo is not supported: there are contains"),
        ("a eq 1 and Contains(a, 'x')", 12, "Contains is not supported"),
        ("contains('x', a)", 1, "column first"),
        ("contains(a)", 1, "a column and a text"),
        ("matchesPattern(a)", 1, "a column and a text"),
        ("matchesPattern(a, '^[ab]$')", 19, "^ $ . and .* alone"),
        ("(" * 60 + "a eq 1" + ")" * 60, 51, "nested deeper than 50 levels"),
        ("not " * 60 + "a", 201, "nested deeper than 50 levels"),
        ("a" + "/b" * 60 + " eq 1", 102, "nested deeper than 50 levels"),
        ("a eq 1" + " or a eq 1" * 6000, 50_001, "longer than 50000 characters"),
        ("a add 1 eq 2", 1, "arithmetic"),
        ("a eq 1 eq 2", 1, "a condition stands where"),
        ("a in ()", 7, ")"),
        ("1 in (1)", 1, "a value stands where a column belongs"),
        ("a in (b)", 7, "value belongs"),
        ("x/any(d:d/q eq 1)", 6, "cannot stand here"),
        ("'x'", 1, "no condition"),
        ("(1, 2)", 0, "a list is no condition"),
        ("a eq duration'P1D'", 1, "a duration"),
        ("a eq 2024-02-31T00:00:00Z", 6, "not a timestamp"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_parse_refuses_with_a_place(text, column, words):
    """What cannot be read is told in words, with the character where it stands."""
    with pytest.raises(FilterError) as caught:
        parse(text)
    assert words in caught.value.message
    assert caught.value.column == column
    assert (f"(at character {column})" in str(caught.value)) == bool(column)


def test_parse_reads_long_chains():
    """Length alone is no nesting."""
    assert len(parse(" or ".join(["a eq 1"] * 4000)).parts) == 4000


def test_parse_refuses_unknown_paths():
    """A path that is not known is named, with its place."""
    with pytest.raises(FilterError, match=r"there is no column look\.c \(at character 12\)"):
        parse("a eq 1 and look/c eq 2", known={("a",), ("look", "b")}.__contains__)
    assert parse("look/b eq 2", known={("look", "b")}.__contains__) == is_("eq", "2", "look", "b")


@pytest.mark.parametrize(
    ("expression", "kind", "wanted"),
    [
        (A, None, "a eq 1"),
        (A, TypeName.TEXT, "a eq '1'"),
        (A, TypeName.CHOICE, "a eq 1"),
        (is_("eq", "007"), None, "a eq '007'"),
        (is_("eq", "Yes"), TypeName.CHOICE, "a eq 'Yes'"),
        (is_("eq", "t"), None, "a eq true"),
        (is_("eq", "t"), TypeName.BOOLEAN, "a eq true"),
        (is_("eq", "t"), TypeName.TEXT, "a eq 't'"),
        (is_("eq", "2024-01-31"), TypeName.DATE, "a eq 2024-01-31"),
        (is_("eq", "2024-01-31"), None, "a eq '2024-01-31'"),
        (is_("eq", "2024-01-31 13:45:00.5+00"), TypeName.TIMESTAMPTZ, "a eq 2024-01-31T13:45:00.5Z"),
        (is_("eq", "2024-01-31 13:45:00"), TypeName.TIMESTAMP, "a eq 2024-01-31T13:45:00"),
        (is_("contains", "'"), TypeName.TEXT, "contains(a, '''')"),
        (Or((And((A, B)), Not(B))), None, "(a eq 1 and b eq 2) or not (b eq 2)"),
        (OneOf(Column(("a",)), ()), None, "false"),
        (is_("eq", None, "Item #", "x.y", "and"), None, "[Item #]/[x.y]/[and] eq null"),
    ],
    ids=str,
)
def test_print_spells_for_the_type(expression, kind, wanted):
    """With the column's type known, literals are spelled as other systems want them; all of it reads back."""
    column = None if kind is None else SchemaColumn("a", ColumnType(kind))
    text = print_odata(expression, lambda _: column)
    assert text == wanted
    assert simplify(parse(text)) == simplify(expression)


NAMES = st.text(min_size=1, max_size=8) | st.sampled_from(["a", "any", "all", "not", "and", "or", "in", "eq", "add"])
PATHS = st.lists(NAMES | st.sampled_from(["a", "b_1", "été"]), min_size=1, max_size=3).map(tuple)
VALUES = st.none() | st.text(max_size=8) | st.decimals(allow_nan=False).map(str) | st.sampled_from(["t", "f", "-0"])
COMPARES = st.builds(
    Compare,
    st.sampled_from(["eq", "ne", "gt", "ge", "lt", "le", "contains", "startswith", "endswith"]),
    PATHS.map(Column),
    VALUES.map(Literal),
)
ONE_OFS = st.builds(OneOf, PATHS.map(Column), st.lists(VALUES.map(Literal), min_size=1, max_size=3).map(tuple))


def flat(kind):
    """Joins of at least two parts, none of them the same kind of join, as a parser builds them."""

    def parts(inner):
        usable = inner.filter(lambda part: not isinstance(part, kind) or not part.parts)
        return st.lists(usable, min_size=2, max_size=3).map(lambda found: kind(tuple(found)))

    return parts


EXPRESSIONS = st.recursive(
    COMPARES | ONE_OFS | st.sampled_from([ALWAYS, NEVER]),
    lambda inner: flat(And)(inner) | flat(Or)(inner) | inner.map(Not),
    max_leaves=8,
)


@given(EXPRESSIONS)
def test_print_and_parse_are_inverse(expression):
    """Whatever is printed reads back as the same expression, whatever its names and values."""
    assert parse(print_odata(expression)) == expression


def understood(text):
    """The expression that a text spells, or the error that says why it spells none."""
    try:
        return parse(text)
    except FilterError as error:
        return error


@given(st.text(alphabet="ab '()=<>,/[]\\1.-!&|\"eqandornotinull$#:", max_size=30))
def test_any_text_is_read_or_refused(text):
    """No text makes the parser fail otherwise than with a message; what it reads it can print."""
    match understood(text):
        case FilterError(message=message, column=column):
            assert message
            assert 0 <= column <= len(text) + 1
        case expression:
            assert parse(print_odata(expression)) == expression
