"""A filter says the same on rows and in SQL, whatever the types, the values and the nulls."""

from __future__ import annotations

import sqlite3
from datetime import UTC, date, datetime, time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dualwrite.casts import canonical
from dualwrite.connectors._pg_session import Database, written_out
from dualwrite.expression import And, Column, Compare, FilterError, Literal, Not, OneOf, Or, simplify
from dualwrite.filters import POSTGRESQL, SQLITE, compile_filter, never_both, prepare_sqlite, render_sql
from dualwrite.mapping import odata, odata_text, xpp
from dualwrite.schema import Column as SchemaColumn
from dualwrite.schema import ColumnType, TypeName

ORDERS = ("eq", "ne", "gt", "ge", "lt", "le")
SEARCHES = ("contains", "startswith", "endswith")
CHOICES = (("Organization", "1"), ("Person", "2"), ("10", "3"))

letters = st.text(alphabet="aAéÉ ", max_size=4)  # few, so that one text often contains another
words = letters | letters | st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\0"), max_size=4)
patterns = st.text(alphabet="aAé *?\\%_[", max_size=5)
decimals = st.decimals(min_value=-(10**9), max_value=10**9, places=3, allow_nan=False).map(str)
moments = st.datetimes(min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30)) | st.just(datetime(1900, 1, 1))
few = st.sampled_from
days = st.dates().map(date.isoformat) | few(["2024-01-31", "1900-01-01"])

COLUMNS = {
    "text": (SchemaColumn("text", ColumnType(TypeName.TEXT)), words),
    "nocase": (SchemaColumn("nocase", ColumnType(TypeName.TEXT), ignore_case=True), words),
    "char": (
        SchemaColumn(
            "char", ColumnType(TypeName.TEXT), ignore_trailing_blanks=True, empty_is_null=True, ignore_case=True
        ),
        words,
    ),
    "blank": (
        SchemaColumn("blank", ColumnType(TypeName.TEXT), ignore_trailing_blanks=True, empty_is_null=True),
        words,
    ),
    "void": (SchemaColumn("void", ColumnType(TypeName.TEXT), empty_is_null=True), words),
    "number": (SchemaColumn("number", ColumnType(TypeName.INTEGER, bits=64)), st.integers(-5, 5).map(str)),
    "big": (SchemaColumn("big", ColumnType(TypeName.INTEGER)), st.integers(-(2**63), 2**63 - 1).map(str)),
    "money": (SchemaColumn("money", ColumnType(TypeName.NUMERIC, precision=15, scale=3)), decimals | few(["0", "1.5"])),
    "real": (
        SchemaColumn("real", ColumnType(TypeName.FLOAT)),
        st.floats(allow_nan=False, allow_infinity=False).map(str) | few(["0", "1.5", "-0.0"]),
    ),
    "flag": (SchemaColumn("flag", ColumnType(TypeName.BOOLEAN)), few(["t", "f"])),
    "day": (SchemaColumn("day", ColumnType(TypeName.DATE)), days),
    "hour": (SchemaColumn("hour", ColumnType(TypeName.TIME)), st.times().map(time.isoformat) | few(["13:00:00"])),
    "moment": (SchemaColumn("moment", ColumnType(TypeName.TIMESTAMP)), moments.map(datetime.isoformat)),
    "instant": (
        SchemaColumn("instant", ColumnType(TypeName.TIMESTAMPTZ)),
        moments.map(lambda moment: moment.replace(tzinfo=UTC).isoformat()),
    ),
    "id": (SchemaColumn("id", ColumnType(TypeName.UUID)), st.uuids().map(str)),
    "blob": (SchemaColumn("blob", ColumnType(TypeName.BYTES)), st.binary(max_size=2).map(lambda b: rf"\x{b.hex()}")),
    "party": (
        SchemaColumn("party", ColumnType(TypeName.CHOICE), choices=CHOICES),
        few(["Organization", "Person", "1", "2", "3", "10", "other"]),
    ),
}
"""Columns by name, each with what its cells and literals may be, in any spelling."""
NAMES = tuple(COLUMNS)
AFFINITY = {"number": "INTEGER", "big": "INTEGER", "money": "NUMERIC", "real": "REAL", "flag": "BOOLEAN"}


def cells(name):
    """A cell of the column in canonical text, or null."""
    column, values = COLUMNS[name]
    return st.none() | values.map(canonical(column.type))


@st.composite
def compares(draw, names=NAMES):
    """A comparison that the column's type allows."""
    name = draw(few(names))
    column, values = COLUMNS[name]
    textual = column.type.name in (TypeName.TEXT, TypeName.CHOICE)
    operator = draw(few((*ORDERS, *SEARCHES, "like") if textual else ORDERS))
    if operator == "like":
        return Compare(operator, Column((name,)), Literal(draw(st.none() | patterns)))
    return Compare(operator, Column((name,)), Literal(draw(st.none() | values)))


@st.composite
def one_ofs(draw, names=NAMES):
    """A list of values for a column."""
    name = draw(few(names))
    values = draw(st.lists(st.none() | COLUMNS[name][1], max_size=3))
    return OneOf(Column((name,)), tuple(map(Literal, values)))


def conditions(names):
    """Conditions of any depth on these columns."""
    return st.recursive(
        compares(names) | one_ofs(names),
        lambda inner: (
            st.lists(inner, max_size=3).map(lambda parts: And(tuple(parts)))
            | st.lists(inner, max_size=3).map(lambda parts: Or(tuple(parts)))
            | inner.map(Not)
        ),
        max_leaves=8,
    )


expressions = conditions(NAMES)
rows = st.tuples(*(cells(name) for name in NAMES))


def stored(name, cell):
    """What an application would hand to the database for the cell."""
    if cell is None:
        return None
    return {"blob": lambda text: bytes.fromhex(text[2:]), "real": float}.get(name, str)(cell)


@pytest.fixture(scope="module")
def connection():
    """A database with one table that has a column of each kind."""
    connection = sqlite3.connect(":memory:")
    prepare_sqlite(connection)
    columns = ", ".join(f'"{name}" {AFFINITY.get(name, "TEXT")}' for name in NAMES if name != "blob")
    connection.execute(f'CREATE TABLE t ({columns}, "blob" BLOB)')
    yield connection
    connection.close()


def ask_sql(connection, expression, row):
    """Does SQL find the row, and what does it say of the bare condition?"""
    connection.execute("DELETE FROM t")
    names = ", ".join(f'"{name}"' for name in NAMES)
    places = ", ".join("?" * len(NAMES))
    values = [stored(name, cell) for name, cell in zip(NAMES, row, strict=True)]
    connection.execute(f"INSERT INTO t ({names}) VALUES ({places})", values)
    sql, bound = render_sql(expression, lambda path: (f't."{path[0]}"', COLUMNS[path[0]][0]), SQLITE)
    (condition,) = connection.execute(f"SELECT {sql} FROM t", bound).fetchone()
    found = connection.execute(f"SELECT 1 FROM t WHERE {sql}", bound).fetchone() is not None
    assert condition in (0, 1)
    assert found == bool(condition)
    return found


@settings(max_examples=200, deadline=None)
@given(expressions, rows)
def test_rows_and_sql_agree(connection, expression, row):
    """The compiled function and SQLite give one answer, and it is true or false, never null."""
    test = compile_filter(expression, lambda path: (NAMES.index(path[0]), COLUMNS[path[0]][0]))
    assert test(row) is ask_sql(connection, expression, row)


POSTGRESQL_TYPES = {
    "text": "text",
    "blank": "text",
    "void": "varchar(9)",
    "number": "bigint",
    "big": "bigint",
    "money": "numeric(15,3)",
    "real": "double precision",
    "flag": "boolean",
    "day": "date",
    "hour": "time",
    "moment": "timestamp",
    "instant": "timestamptz",
    "id": "uuid",
    "blob": "bytea",
    "party": "integer",
}
NUMBERS = dict(CHOICES)


@pytest.fixture(scope="module")
def session(postgresql):
    """A session in a PostgreSQL database with a table of these columns."""
    columns = ", ".join(f'"{name}" {kind}' for name, kind in POSTGRESQL_TYPES.items())
    with (
        postgresql.database(f"CREATE TABLE t ({columns})") as database,
        Database.of(database.url, "lab").connect() as it,
    ):
        yield it


@settings(max_examples=150, deadline=None)
@given(conditions(tuple(POSTGRESQL_TYPES)), rows)
def test_rows_and_postgresql_agree(session, expression, row):
    """The compiled function and PostgreSQL give one answer, and it is true or false, never null."""
    names = tuple(POSTGRESQL_TYPES)
    sql, bound = render_sql(expression, lambda path: (f't."{path[0]}"', COLUMNS[path[0]][0]), POSTGRESQL)
    places = ", ".join(f"${number}" for number in range(1, len(names) + 1))
    session.execute("DELETE FROM t")
    given = [row[NAMES.index(name)] for name in names]
    given[names.index("party")] = NUMBERS.get(row[NAMES.index("party")])
    session.execute(f"INSERT INTO t VALUES ({places})", given)
    *cells, found = session.execute(f"SELECT t.*, {written_out(sql, bound)} FROM t").fetchone()
    test = compile_filter(expression, lambda path: (names.index(path[0]), COLUMNS[path[0]][0]))
    assert found == ("t" if test(tuple(cells)) else "f")  # the cells as the server spells them: of a float, two may do


@settings(max_examples=200, deadline=None)
@given(compares() | one_ofs(), rows)
def test_a_single_condition_and_its_opposite_split_all_rows(connection, expression, row):
    """A condition or its negation holds for every row, in both places."""
    resolve = lambda path: (NAMES.index(path[0]), COLUMNS[path[0]][0])  # noqa: E731  # short and used once
    assert compile_filter(expression, resolve)(row) is not compile_filter(Not(expression), resolve)(row)
    assert ask_sql(connection, expression, row) is not ask_sql(connection, Not(expression), row)


def answer(expression, row):
    """The tree's answer by the definitions of ``And``, ``Or`` and ``Not`` alone, its leaves compiled."""
    match expression:
        case And(parts):
            return all(answer(part, row) for part in parts)
        case Or(parts):
            return any(answer(part, row) for part in parts)
        case Not(part):
            return not answer(part, row)
        case _:
            return compile_filter(expression, lambda path: (NAMES.index(path[0]), COLUMNS[path[0]][0]))(row)


@settings(max_examples=150, deadline=None)
@given(expressions, rows)
@example(Compare("like", Column(("char",)), Literal("")), (None,) * len(NAMES))
def test_what_is_written_means_the_same(expression, row):
    """A condition that is written in OData or in X++, and read again, gives the same answer of every row."""
    wanted = answer(expression, row)
    assert answer(odata.parse(odata_text.print_odata(expression)), row) is wanted
    assert answer(odata.parse(odata_text.print_odata(expression, lambda path: COLUMNS[path[0]][0])), row) is wanted
    for column in (None, lambda path: COLUMNS[path[0]][0]):
        assert reread(expression, column, row) in (wanted, None)


def reread(expression, column, row):
    """The answer of what X++ makes of a condition; None where it has no words for it."""
    try:
        text = xpp.show(expression, column)
    except FilterError:
        return None
    return answer(xpp.parse(text), row)


@settings(max_examples=200, deadline=None)
@given(expressions, rows)
def test_simplifying_changes_no_answer(expression, row):
    """A simplified condition, and a compiled one, mean what the tree means part by part."""
    assert answer(simplify(expression), row) is answer(expression, row)
    compiled = compile_filter(expression, lambda path: (NAMES.index(path[0]), COLUMNS[path[0]][0]))
    assert compiled(row) is answer(expression, row)


@settings(max_examples=150, deadline=None)
@given(few(NAMES).flatmap(lambda name: st.tuples(st.just(name), cells(name), cells(name))), few(ORDERS))
def test_cells_that_are_there_compare_by_value(connection, triple, operator):
    """Of two values one is smaller, larger or equal, and each operator says so in Python's own terms."""
    name, cell, value = triple
    if cell is None or value is None or name in ("nocase", "char", "blank", "void", "party"):
        return
    own = {
        "number": int,
        "big": int,
        "money": float,
        "real": float,
        "day": date.fromisoformat,
        "hour": time.fromisoformat,
        "moment": datetime.fromisoformat,
        "instant": datetime.fromisoformat,
    }.get(name, str)
    expression = Compare(operator, Column((name,)), Literal(value))
    row = tuple(cell if each == name else None for each in NAMES)
    wanted = getattr(own(cell), f"__{operator}__")(own(value))
    assert compile_filter(expression, lambda path: (NAMES.index(path[0]), COLUMNS[path[0]][0]))(row) is wanted
    assert ask_sql(connection, expression, row) is wanted


def test_the_columns_cover_every_type():
    """A type that is added must be tried here, too."""
    tried = {column.type.name for column, _ in COLUMNS.values()}
    assert tried | {TypeName.JSON, TypeName.OTHER} == set(TypeName)


APART = ("party", "void", "money")
apart = st.recursive(
    st.builds(
        lambda name, operator, values: (
            OneOf(Column((name,)), tuple(map(Literal, values)))
            if operator == "in"
            else Compare(operator, Column((name,)), Literal(values[0]))
        ),
        few(APART),
        few(("eq", "eq", "ne", "in", "ge")),
        st.lists(st.none() | few(("1", "2", "3", "10")), min_size=1, max_size=2),
    ),
    lambda inner: (
        st.lists(inner, min_size=1, max_size=2).map(lambda parts: And(tuple(parts)))
        | st.lists(inner, min_size=1, max_size=2).map(lambda parts: Or(tuple(parts)))
        | inner.map(Not)
    ),
    max_leaves=4,
)
close = st.none() | few(("", "1", "2", "3", "10", "Person", "Organization"))


@settings(max_examples=200, deadline=None)
@given(apart, apart, st.lists(st.tuples(*[close] * len(APART)), min_size=20, max_size=20))
def test_what_is_never_both_passes_no_row(one, other, rows):
    """No row passes two conditions that are proved to exclude each other."""
    if never_both(one, other, lambda path: COLUMNS[path[0]][0]):
        tests = [
            compile_filter(each, lambda path: (APART.index(path[0]), COLUMNS[path[0]][0])) for each in (one, other)
        ]
        assert not any(all(test(row) for test in tests) for row in rows)
