"""The expression tree, and what a filter means on rows."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from dualwrite.casts import CastError
from dualwrite.expression import (
    ALWAYS,
    NEVER,
    And,
    Column,
    Compare,
    Literal,
    Not,
    OneOf,
    Or,
    and_,
    describe,
    paths,
    simplify,
)
from dualwrite.filters import SQLITE, compile_filter, prepare_sqlite, render_sql
from dualwrite.model import ABSENT
from dualwrite.schema import Column as SchemaColumn
from dualwrite.schema import ColumnType, TypeName

A, B = Column(("a",)), Column(("look", "b"))
ONE, TWO = Compare("eq", A, Literal("1")), Compare("gt", B, Literal("2"))


def kind(name, **flags):
    """A schema column of a type, with any precision."""
    scale = flags.pop("scale", None)
    return SchemaColumn("a", ColumnType(TypeName(name), scale=scale), **flags)


def ask(expression, column, *cells):
    """What a filter on the only column says of each cell."""
    test = compile_filter(expression, lambda _: (1, column))
    return [test(("other", cell)) for cell in cells]


def ask_sqlite(expression, column, stored):
    """What SQLite says of each stored value; the column has no affinity and a collation of its own."""
    sql, bound = render_sql(expression, lambda _: ("a", column), SQLITE)
    with closing(sqlite3.connect(":memory:")) as connection:
        prepare_sqlite(connection)
        connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, a COLLATE NOCASE)")
        connection.executemany("INSERT INTO t (a) VALUES (?)", [(value,) for value in stored])
        return [found for (found,) in connection.execute(f"SELECT {sql} FROM t ORDER BY id", bound)]


def is_(operator, value):
    """A comparison of the column ``a``."""
    return Compare(operator, A, Literal(value))


def test_paths_come_in_order_and_once():
    """Every path of the tree is named once, in the order of writing; no condition has none."""
    expression = And((TWO, Or((ONE, Not(TWO))), OneOf(Column(("c",)), ())))
    assert paths(expression) == [("look", "b"), ("a",), ("c",)]
    assert paths(None) == []


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (And((ONE, And((TWO, ONE)), ALWAYS)), And((ONE, TWO))),
        (And((ONE, NEVER)), NEVER),
        (Or((ONE, Or((TWO,)), NEVER)), Or((ONE, TWO))),
        (Or((ONE, ALWAYS)), ALWAYS),
        (And((Or((ONE,)),)), ONE),
        (Not(Not(ONE)), ONE),
        (Not(ALWAYS), NEVER),
        (Not(And((NEVER, ONE))), ALWAYS),
        (OneOf(A, ()), NEVER),
        (OneOf(A, (Literal("1"),)), ONE),
        (is_("gt", None), NEVER),
        (is_("contains", None), NEVER),
        (is_("ne", None), is_("ne", None)),
        (And((ONE, Or((TWO, And((ONE, TWO)))))), And((ONE, Or((TWO, And((ONE, TWO))))))),
    ],
    ids=str,
)
def test_simplify_folds_what_is_constant(given, wanted):
    """Constants, single parts and nesting vanish; the rest stays as it is."""
    assert simplify(given) == wanted
    assert simplify(wanted) == wanted


def test_and_combines_optional_conditions():
    """No condition is neutral."""
    assert and_(None, None) is None
    assert and_(ONE, None) == and_(None, ONE) == ONE
    assert and_(And((ONE, TWO)), ONE) == And((ONE, TWO))


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        (None, "every record"),
        (ALWAYS, "every record"),
        (NEVER, "no record"),
        (ONE, "a is '1'"),
        (And((ONE, Or((TWO, is_("ne", None))))), "a is '1' and (look.b is more than '2' or a is not null)"),
        (Not(is_("startswith", "x")), "not (a starts with 'x')"),
        (OneOf(A, (Literal("x"), Literal(None))), "a is one of 'x', null"),
    ],
    ids=str,
)
def test_describe_in_words(expression, words):
    """People read a condition as a sentence."""
    assert describe(expression) == words


FILTERS = [
    (is_("eq", None), kind("text"), (None, ABSENT, "", "x"), (True, True, False, False)),
    (is_("ne", None), kind("text"), (None, ABSENT, "", "x"), (False, False, True, True)),
    (is_("eq", "x"), kind("text"), (None, ABSENT, "x", "X", "x "), (False, False, True, False, False)),
    (is_("ne", "x"), kind("text"), (None, ABSENT, "x", "X"), (False, False, False, True)),
    (Not(is_("eq", "x")), kind("text"), (None, ABSENT, "x", "y"), (True, True, False, True)),
    (is_("gt", "b"), kind("text"), (None, "a", "b", "ba", "é"), (False, False, False, True, True)),
    (is_("gt", None), kind("text"), (None, "a"), (False, False)),
    (is_("eq", "X"), kind("text", ignore_case=True), ("x", "X", "y", None), (True, True, False, False)),
    (is_("endswith", "É"), kind("text", ignore_case=True), ("caffé", "CAFÉ", "e"), (True, True, False)),
    (is_("eq", "x "), kind("text", ignore_trailing_blanks=True), ("x", "x  ", " x"), (True, True, False)),
    (is_("eq", ""), kind("text", empty_is_null=True), ("", None, ABSENT, "x"), (True, True, True, False)),
    (is_("eq", None), kind("text", empty_is_null=True), ("", None, "x"), (True, True, False)),
    (is_("ne", ""), kind("text", empty_is_null=True), ("", None, "x"), (False, False, True)),
    (is_("ne", "x"), kind("text", empty_is_null=True), ("", None, ABSENT, "x", "y"), (True, True, True, False, True)),
    (Not(is_("ne", "x")), kind("text", empty_is_null=True), ("", None, "x", "y"), (False, False, True, False)),
    (is_("like", "*"), kind("text", empty_is_null=True), ("", None, "x"), (True, True, True)),
    (is_("like", "?"), kind("text", empty_is_null=True), ("", None, "x"), (False, False, True)),
    (is_("like", "*"), kind("text"), ("", None, "x"), (True, False, True)),
    (is_("like", "A?[*B"), kind("text"), ("Ax[B", "Ax[é\nB", "A[B", "ax[B", None), (True, True, False, False, False)),
    (is_("like", r"\*%_\?*?"), kind("text"), ("*%_?x", "*%_?", "x%_?x"), (True, False, False)),
    (is_("like", "É?"), kind("text", ignore_case=True), ("éa", "ÉB", "éab"), (True, True, False)),
    (is_("like", "x?"), kind("choice", choices=(("xy", "2"),)), ("xy", "2"), (True, False)),
    (is_("lt", "x"), kind("text", empty_is_null=True), ("", "a", "y"), (False, True, False)),
    (is_("eq", None), kind("integer", empty_is_null=True), ("", "0"), (True, False)),
    (is_("eq", ""), kind("text"), ("", None), (True, False)),
    (is_("contains", "b"), kind("text"), ("abc", "ac", None), (True, False, False)),
    (is_("startswith", "ab"), kind("text"), ("abc", "cab", "a", None), (True, False, False, False)),
    (is_("endswith", "ab"), kind("text"), ("cab", "abc", "b", "ab", None), (True, False, False, True, False)),
    (is_("endswith", ""), kind("text"), ("abc", "", None), (True, True, False)),
    (is_("startswith", ""), kind("text"), ("abc", "", None), (True, True, False)),
    (is_("gt", "9"), kind("integer"), ("10", "9", "-1", None), (True, False, False, False)),
    (is_("eq", "007"), kind("integer"), ("7", "8"), (True, False)),
    (is_("eq", "1e1"), kind("numeric", scale=2), ("10.00", "10.01"), (True, False)),
    (is_("ne", "1"), kind("numeric"), ("1.0", "2", "junk", None), (False, True, False, False)),
    (is_("lt", "0.5"), kind("float"), ("1e-05", "0.5", "-1e+20"), (True, False, True)),
    (is_("eq", "TRUE"), kind("boolean"), ("t", "f", None), (True, False, False)),
    (is_("ge", "2024-01-31"), kind("date"), ("2024-01-31", "2024-02-01", "2023-12-31"), (True, True, False)),
    (
        is_("gt", "2024-01-31T13:00:00Z"),
        kind("timestamptz"),
        ("2024-01-31 13:00:00+00", "2024-01-31 13:00:00.5+00"),
        (False, True),
    ),
    (OneOf(A, (Literal("1"), Literal("2"))), kind("numeric"), ("1.0", "3", None), (True, False, False)),
    (OneOf(A, (Literal("x"), Literal(None))), kind("text"), ("x", None, "y"), (True, True, False)),
    (Not(OneOf(A, (Literal("x"), Literal("y")))), kind("text"), ("x", None, "z"), (False, True, True)),
    (is_("eq", "Person"), kind("choice", choices=(("Person", "2"),)), ("Person", "2", "3"), (True, True, False)),
    (is_("ne", "2"), kind("choice", choices=(("Person", "2"),)), ("Person", "2", "3"), (False, False, True)),
    (is_("gt", "2"), kind("choice"), ("10", "2", "x"), (True, False, False)),
    (And((is_("gt", "1"), is_("lt", "5"), is_("ne", "3"))), kind("integer"), ("2", "3", "5"), (True, False, False)),
    (Or((is_("eq", "1"), is_("eq", "5"))), kind("integer"), ("1", "3", "5"), (True, False, True)),
    (ALWAYS, kind("text"), (None,), (True,)),
    (NEVER, kind("text"), (None,), (False,)),
    (None, kind("text"), (None,), (True,)),
]


@pytest.mark.parametrize(("expression", "column", "cells", "wanted"), FILTERS, ids=lambda value: str(value)[:60])
def test_filter_on_rows(expression, column, cells, wanted):
    """A filter compares by the column's type, and null only equals null."""
    assert ask(expression, column, *cells) == list(wanted)


@pytest.mark.parametrize(("expression", "column", "cells", "wanted"), FILTERS, ids=lambda value: str(value)[:60])
def test_filter_in_sql(expression, column, cells, wanted):
    """SQLite gives the answers of the function over rows."""
    stored = [None if cell is ABSENT else cell for cell in cells]
    assert ask_sqlite(expression or ALWAYS, column, stored) == list(wanted)


@pytest.mark.parametrize(
    "make",
    [
        lambda expression, column: compile_filter(expression, lambda _: (0, column)),
        lambda expression, column: render_sql(expression, lambda _: ("a", column), SQLITE),
    ],
    ids=["rows", "sql"],
)
@pytest.mark.parametrize(
    ("expression", "column", "words"),
    [
        (is_("eq", "soon"), kind("date"), ["filter on a", "'soon' is not a date"]),
        (OneOf(A, (Literal("1"), Literal("x"))), kind("integer"), ["filter on a", "'x' is not an integer"]),
        (is_("contains", "1"), kind("integer"), ["filter on a", "contains needs text", "integer"]),
        (is_("like", "12"), kind("integer"), ["filter on a", "like needs text", "integer"]),
        (is_("like", "x" * 1001), kind("text"), ["filter on a", "up to 1000 characters"]),
    ],
    ids=lambda value: str(value)[:40],
)
def test_filter_refuses_literals_of_another_type(expression, column, words, make):
    """A literal that is no value of the column's type is told when the filter is compiled, with the column's name."""
    with pytest.raises(CastError) as caught:
        make(expression, column)
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize("kind_", [And, Or], ids=["and", "or"])
def test_sql_holds_thousands_of_conditions(kind_):
    """A long condition is no deeper than databases allow."""
    expression = kind_(tuple(is_("eq", str(number)) for number in range(5000)))
    assert ask_sqlite(expression, kind("integer"), ["7"]) == [kind_ is Or]


def test_sql_binds_every_value():
    """No literal stands in the SQL text."""
    sql, bound = render_sql(
        And((is_("eq", "'; DROP"), OneOf(B, (Literal("x"), Literal(None))), is_("endswith", "?"))),
        lambda path: (f'"{path[-1]}"', kind("text")),
        SQLITE,
    )
    assert bound == ["'; DROP", "x", "?"]
    assert sql.count("?") == 3
    assert "DROP" not in sql


@pytest.mark.parametrize(
    ("expression", "column", "stored", "wanted"),
    [
        (is_("eq", "5"), kind("integer"), [5, 5.0, "5", "5.0", "junk", None, b"5"], [1, 1, 1, 1, 0, 0, 1]),
        (is_("eq", "0"), kind("integer"), [0, "junk", "", None], [1, 0, 0, 0]),
        (is_("eq", "9007199254740993"), kind("integer"), [9007199254740993, 9007199254740992], [1, 0]),
        (is_("eq", "12.5"), kind("numeric", scale=2), [12.5, "12.50", 12], [1, 1, 0]),
        (is_("eq", "true"), kind("boolean"), [1, "true", "T", 0, None, "junk"], [1, 1, 1, 0, 0, 0]),
        (
            is_("eq", "2024-01-31 13:45:00+00"),
            kind("timestamptz"),
            ["2024-01-31T13:45:00.000Z", "2024-01-31 14:45:00+01:00", "2024-01-31 13:45:01", "junk"],
            [1, 1, 0, 0],
        ),
        (is_("eq", r"\x00ff"), kind("bytes"), [b"\x00\xff", b"\x00"], [1, 0]),
        (is_("eq", "É"), kind("text", ignore_case=True), ["é", "É", "e"], [1, 1, 0]),
        (is_("eq", "x"), kind("text"), ["x", "X"], [1, 0]),
        (is_("eq", "3"), kind("choice"), [3, "3", 4], [1, 1, 0]),
    ],
    ids=lambda value: str(value)[:40],
)
def test_sql_reads_values_as_sqlite_may_hold_them(expression, column, stored, wanted):
    """Whatever storage class SQLite keeps a value in, the filter sees the value; a column's collation does not leak."""
    assert ask_sqlite(expression, column, stored) == wanted
