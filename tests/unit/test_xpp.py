"""Filters in X++: read, refused with a place, and written back."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualwrite.expression import ALWAYS, NEVER, And, Column, Compare, FilterError, Literal, Not, OneOf, Or, matching
from dualwrite.mapping import odata, odata_text
from dualwrite.mapping.xpp import parse, show
from dualwrite.schema import Column as SchemaColumn
from dualwrite.schema import ColumnType, TypeName
from dualwrite.wildcards import from_regex, matcher, pattern_of, pieces_of, regex


def is_(operator, value, *path):
    """A comparison, of ``a`` unless a path is given."""
    return Compare(operator, Column(path or ("a",)), Literal(value))


A, B = is_("eq", "1"), is_("eq", "2", "b")
NO_DATE = OneOf(Column(("a",)), (Literal("1900-01-01"), Literal(None)))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("(a == 1)", A),
        ("a == 1", A),
        ("((a) == (1))", A),
        ("(a = 1)", A),
        ("(1 == a)", A),
        ("(a != 1)", is_("ne", "1")),
        ("(a < 1)", is_("lt", "1")),
        ("(1 < a)", is_("gt", "1")),
        ("(a <= 1.50)", is_("le", "1.50")),
        ("(a > -1)", is_("gt", "-1")),
        ("(a >= 1e3)", is_("ge", "1e3")),
        ('(a == "x")', is_("eq", "x")),
        ("(a == 'x')", is_("eq", "x")),
        (r'(a == "a\"b\\c\d")', is_("eq", r'a"b\c\d')),
        ("""(a == 'say "x"')""", is_("eq", 'say "x"')),
        ('(a == "")', is_("eq", "")),
        ('(a == "x && (y")', is_("eq", "x && (y")),
        ("(Account == AccountType::Customer)", is_("eq", "Customer", "Account")),
        ("(a == NoYes::Yes)", is_("eq", "Yes")),
        ("(a == true)", is_("eq", "t")),
        (r"(a <= 23\06\2021)", is_("le", "2021-06-23")),
        (r"(a <= 1\6\2021)", is_("le", "2021-06-01")),
        (r"(a == 1\1\1900)", NO_DATE),
        (r"(01\01\1900 == a)", NO_DATE),
        (r"(a != 01\01\1900)", Not(NO_DATE)),
        (r"(a > 01\01\1900)", is_("gt", "1900-01-01")),
        ('(a == "1900-01-01")', is_("eq", "1900-01-01")),
        ("(a == 1900-01-01T00:00:00)", OneOf(Column(("a",)), (Literal("1900-01-01 00:00:00"), Literal(None)))),
        ("(a <= 2010-01-10T14:00:00)", is_("le", "2010-01-10 14:00:00")),
        ("(a <= 2010-01-10T14:00:00Z)", is_("le", "2010-01-10 14:00:00+00")),
        ("(CustTable.AccountNum == 1)", is_("eq", "1", "CustTable", "AccountNum")),
        ("((a == 1) && (b == 2))", And((A, B))),
        ("a == 1 && b == 2", And((A, B))),
        ("((a == 1) || (b == 2) || (a == 1))", Or((A, B, A))),
        ("((a == 1) && ((b == 2) && (a == 1)))", And((A, B, A))),
        ("(((a == 1) && (b == 2)) || (a == 1))", Or((And((A, B)), A))),
        ("!(a == 1)", Not(A)),
        ("(!(a == 1) && !!(b == 2))", And((Not(A), Not(Not(B))))),
        ('(a like "A*")', is_("startswith", "A")),
        ('(a like "*A")', is_("endswith", "A")),
        ('(a like "*A*")', is_("contains", "A")),
        ('(a like "**A**")', is_("contains", "A")),
        ('(a like "A")', is_("eq", "A")),
        ('(a like "")', is_("like", "")),
        ('(a like "A?B**C")', is_("like", "A?B*C")),
        ('(a like "*")', is_("like", "*")),
        (r'(a like "\*A\?\\*")', is_("startswith", r"*A?\ "[:-1])),
        (r'(a like "\*A?")', is_("like", r"\*A?")),
        ("(1 == 1)", ALWAYS),
        ("(1 != 1)", NEVER),
        ("(1 == 0)", NEVER),
        ("  ( a==1 )  ", A),
        ("(été == 1)", is_("eq", "1", "été")),
    ],
    ids=str,
)
def test_parse(text, wanted):
    """A range is read as X++ means it, and printed, in X++ and in OData, so that it reads the same again."""
    assert parse(text) == wanted
    assert parse(show(wanted)) == wanted
    assert odata.parse(odata_text.print_odata(wanted)) == wanted


@pytest.mark.parametrize(
    ("text", "column", "words"),
    [
        ("", 0, "empty"),
        ("  ", 0, "empty"),
        ("(a == 1", 1, "never closed"),
        ("((a == 1) && (b == 2)", 1, "never closed"),
        ("(a == 1))", 9, "closes none"),
        ("(a == )", 7, "cannot stand here"),
        ("(a ==", 6, "ends where a field, a value or a parenthesis is missing"),
        ("(== 1)", 2, "no field or value before it"),
        ("(a <> 1)", 4, "use !="),
        ("(a eq 1)", 4, "use =="),
        ("(a == 1) and (b == 2)", 10, "use &&"),
        ("(a == 1) & (b == 2)", 10, "use &&"),
        ("not (a == 1)", 1, "use !( )"),
        ("!a == 1", 1, "into parentheses"),
        ("a == 1 && b == 2 || a == 1", 18, "need parentheses"),
        ("(a == 1 == 1)", 9, "two sides"),
        ("((a == 1) == 1)", 2, "a condition stands where"),
        ("(a)", 1, "compared with nothing"),
        ("(1)", 1, "a value is no condition"),
        ('("x" == "y")', 2, "both sides are values"),
        ("(1 < 2)", 2, "both sides are values"),
        ("(a == b)", 7, "double quotes"),
        ("(a == null)", 7, 'empty text ""'),
        ('(a == "x)', 7, "no closing quote"),
        ("(a == 1..5)", 7, "(FIELD >= FROM) && (FIELD <= TO)"),
        ("(a == 1 + 1)", 9, "do not compute"),
        ("(day(a) == 1)", 2, "the function day"),
        ("(a == currentUserId())", 7, "the function currentUserId"),
        ("(a like 1)", 9, "a text stands behind like"),
        ('("x" like "y")', 2, "a field stands before like"),
        (r"(a == 31\02\2021)", 7, r"dd\mm\yyyy"),
        ("(a == 2021-13-01T00:00:00)", 7, "not a timestamp"),
        ("(a == 5x)", 7, "cannot stand here"),
        ("(a == $x)", 7, "cannot stand here"),
        ("(" * 60 + "a == 1" + ")" * 60, 52, "nested deeper than 50 levels"),
        ("!" * 60 + "(a == 1)", 52, "nested deeper than 50 levels"),
        ("a" * 60_000, 50_001, "longer than 50000 characters"),
        ("(a == " + '"\\' * 20_000, 7, "no closing quote"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_parse_refuses_with_a_place(text, column, words):
    """What cannot be read, or not be expressed, is told in words, with the character where it stands."""
    with pytest.raises(FilterError) as caught:
        parse(text)
    assert words in caught.value.message
    assert caught.value.column == column


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        (is_("eq", None), "no null"),
        (OneOf(Column(("a",)), (Literal("1"), Literal(None))), "no null"),
        (is_("startswith", ""), "startswith of nothing"),
        (is_("contains", None), "contains of nothing"),
        (is_("eq", "1", "Item #"), "'Item #' is not a plain word"),
        (is_("eq", "1", "like"), "'like' is not a plain word"),
    ],
    ids=str,
)
def test_show_refuses_what_xpp_cannot_say(expression, words):
    """What X++ has no words for is told, never written as something else."""
    with pytest.raises(FilterError, match=re.escape(words)):
        show(expression)


@pytest.mark.parametrize(
    ("expression", "kind", "wanted"),
    [
        (A, None, "(a == 1)"),
        (A, TypeName.TEXT, '(a == "1")'),
        (is_("eq", "t"), None, "(a == true)"),
        (is_("eq", "t"), TypeName.TEXT, '(a == "t")'),
        (is_("le", "2021-06-23"), TypeName.DATE, r"(a <= 23\06\2021)"),
        (is_("le", "2021-06-23"), TypeName.TEXT, '(a <= "2021-06-23")'),
        (is_("le", "2021-06-31"), None, '(a <= "2021-06-31")'),
        (is_("le", "2021-06-23 01:02:03+00"), TypeName.TIMESTAMPTZ, "(a <= 2021-06-23T01:02:03)"),
        (is_("le", "2021-06-23 01:02:03"), None, "(a <= 2021-06-23T01:02:03)"),
        (OneOf(Column(("a",)), (Literal("x"), Literal("2"))), None, '((a == "x") || (a == 2))'),
        (OneOf(Column(("a",)), ()), None, "(1 == 0)"),
        (Or((And((A, B)), Not(B))), None, "(((a == 1) && (b == 2)) || !(b == 2))"),
        (Not(Not(A)), None, "(!(!(a == 1)))"),
        (is_("endswith", '*"?\\'), None, r'(a like "*\*\"\?\\")'),
    ],
    ids=str,
)
def test_show(expression, kind, wanted):
    """The whole and its parts stand in parentheses, and literals are spelled for the column where it is known."""
    column = None if kind is None else SchemaColumn("a", ColumnType(kind))
    assert show(expression, lambda _: column) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("(AssociatedContactType = 1)", "AssociatedContactType eq 1"),
        ('((CURRENCYCODE != "999"))', "CURRENCYCODE ne 999"),
        ('((TypeId == "Note") || (TypeId == "URL"))', "TypeId eq 'Note' or TypeId eq 'URL'"),
        ('((PartyType == "Organization"))', "PartyType eq 'Organization'"),
        ("(IsB2BProspect == 1)", "IsB2BProspect eq 1"),
        ('(SalesOrderNumber != "")', "SalesOrderNumber ne ''"),
        ("(accounttype == '3')", "accounttype eq 3"),
        (
            "((numberofemployees > 1000) && (numberofemployees <= 2000))",
            "numberofemployees gt 1000 and numberofemployees le 2000",
        ),
    ],
)
def test_published_filters_read_in_both_languages(text, wanted):
    """The filters of published maps, and of the documentation, mean the same in X++ and in OData."""
    assert odata_text.print_odata(parse(text)) == wanted


NAMES = st.sampled_from(["a", "b_1", "été", "likely"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map(tuple)
VALUES = (
    st.text(max_size=8)
    | st.text(alphabet="a*?\\\"'", max_size=6)
    | st.decimals(allow_nan=False).map(str)
    | st.dates().map(str)
    | st.datetimes().map(str)
    | st.sampled_from(["t", "f", "-0", "2021-02-30", "2021-01-01 10:00:00+00"])
)
COMPARES = st.builds(
    Compare, st.sampled_from(["eq", "ne", "gt", "ge", "lt", "le"]), PATHS.map(Column), VALUES.map(Literal)
) | st.builds(matching, PATHS.map(Column), st.text(alphabet="ab*?\\\"' ", max_size=6))


def flat(kind):
    """Joins of at least two parts, none of them the same kind of join, as a parser builds them."""

    def parts(inner):
        usable = inner.filter(lambda part: not isinstance(part, kind) or not part.parts)
        return st.lists(usable, min_size=2, max_size=3).map(lambda found: kind(tuple(found)))

    return parts


EXPRESSIONS = st.recursive(
    COMPARES | st.sampled_from([ALWAYS, NEVER]),
    lambda inner: flat(And)(inner) | flat(Or)(inner) | inner.map(Not),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("expression", "wanted"),
    [
        (NO_DATE, r"(a == 01\01\1900)"),
        (Not(NO_DATE), r"(a != 01\01\1900)"),
        (is_("eq", "1900-01-01"), r"((a >= 01\01\1900) && (a <= 01\01\1900))"),
        (is_("ne", "1900-01-01"), r"((a < 01\01\1900) || (a > 01\01\1900))"),
    ],
    ids=str,
)
def test_the_empty_date(expression, wanted):
    """The first of January 1900 means an empty date behind == and != alone; the day itself is written as a range."""
    assert show(expression, lambda _: SchemaColumn("a", ColumnType(TypeName.DATE))) == wanted


def test_an_empty_date_belongs_to_dates():
    """What asks for an empty date is not written for a column of text, where it would mean another thing."""
    with pytest.raises(FilterError, match="a holds no dates"):
        show(NO_DATE, lambda _: SchemaColumn("a", ColumnType(TypeName.TEXT)))


@given(EXPRESSIONS)
def test_show_and_parse_are_inverse(expression):
    """What is written, in either language, reads back as the same expression."""
    assert parse(show(expression)) == expression
    assert odata.parse(odata_text.print_odata(expression)) == expression


def understood(text):
    """The expression that a text spells, or the error that says why it spells none."""
    try:
        return parse(text)
    except FilterError as error:
        return error


@given(st.text(alphabet="ab '()=<>!&|\"\\1.-:*?likeTnu0", max_size=30) | st.text(max_size=20))
def test_any_text_is_read_or_refused(text):
    """No text makes the parser fail otherwise than with a message; what it reads it can write, in both languages."""
    match understood(text):
        case FilterError(message=message, column=column):
            assert message
            assert 0 <= column <= len(text) + 1
        case expression:
            assert parse(show(expression)) == expression
            assert odata.parse(odata_text.print_odata(expression)) == expression


SIGNS = st.text(alphabet="ab*?\\.[%_^$\n", max_size=6)


@given(SIGNS)
def test_patterns_have_one_spelling(pattern):
    """A pattern taken apart and put together is the same pattern, and so is one that went through OData's spelling."""
    pieces = pieces_of(pattern)
    assert pieces_of(pattern_of(pieces)) == pieces
    assert from_regex(regex(pattern)) == pattern_of(pieces)


@given(SIGNS, SIGNS)
def test_patterns_match_what_their_signs_say(pattern, text):
    """``*`` takes any characters and ``?`` one: the same as trying every way to cut the text."""

    def matches(pieces, rest):
        if not pieces:
            return not rest
        (wild, sign), *others = pieces
        if wild and sign == "*":
            return any(matches(others, rest[at:]) for at in range(len(rest) + 1))
        size = len(sign)
        return len(rest) >= size and (wild or rest[:size] == sign) and matches(others, rest[size:])

    assert matcher(pattern)(text) is matches(pieces_of(pattern), text)
    assert matcher(pattern)(text.replace("a", "b")) is matches(pieces_of(pattern), text.replace("a", "b"))
