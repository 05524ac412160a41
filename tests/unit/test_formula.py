"""Formulas: read, held against the columns' types, and computed over records."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualwrite.canonical import CastError, canonical
from dualwrite.mapping.compute import Computed, compile_formula
from dualwrite.mapping.formula import FUNCTIONS, FormulaError, fields, parse
from dualwrite.mapping.paths import End
from dualwrite.model import ABSENT
from dualwrite.schema import Column, ColumnType, TypeName

COLUMNS = {
    name: Column(name, ColumnType(kind), **flags)
    for name, kind, flags in (
        ("FIRST", TypeName.TEXT, {}),
        ("LAST", TypeName.TEXT, {"empty_is_null": True}),
        ("CODE", TypeName.TEXT, {"ignore_case": True}),
        ("AMOUNT", TypeName.NUMERIC, {}),
        ("QTY", TypeName.INTEGER, {}),
        ("RATE", TypeName.FLOAT, {}),
        ("DAY", TypeName.DATE, {}),
        ("AT", TypeName.TIMESTAMP, {}),
        ("OK", TypeName.BOOLEAN, {}),
        ("STATE", TypeName.CHOICE, {"choices": (("Open", "1"), ("Done", "2"))}),
        ("Item #", TypeName.TEXT, {}),
    )
}
RECORD = {
    "FIRST": "Ann",
    "LAST": "Lee",
    "CODE": "ab",
    "AMOUNT": "10.50",
    "QTY": "3",
    "RATE": "0.1",
    "DAY": "2024-02-29",
    "AT": "2024-02-29 13:45:00",
    "OK": "t",
    "STATE": "2",
    "Item #": "i",
}


def made(text: str) -> Computed:
    """The formula over these columns."""
    node = parse(text)
    for field in fields(node):
        if field.path[0] not in COLUMNS:
            raise FormulaError("there is no such column", field.at)
    return compile_formula(node, text, {f.path: End(f.path, COLUMNS[f.path[0]]) for f in fields(node)})


def compute(text: str, **cells: object) -> object:
    """What the formula makes of the record, in which these cells are other ones."""
    found, record = made(text), {**RECORD, **cells}
    return found.function(*[record[path[0]] for path in found.paths])


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("FIRST & ' ' & LAST", "Ann Lee"),
        ('FIRST & " " & LAST', "Ann Lee"),
        ("concat(FIRST, QTY, OK, DAY)", "Ann3true2024-02-29"),
        ('\'O\'\'Brien\' & "say ""x"""', 'O\'Briensay "x"'),
        ("AMOUNT + QTY * 2 - 1", "15.5"),
        ("(AMOUNT + QTY) * 2", "27"),
        ("10 - 3 - 2", "5"),
        ("12 / 3 / 2", "2"),
        ("-QTY", "-3"),
        ("2 - -QTY", "5"),
        ("AMOUNT / QTY", "3.5"),
        ("QTY / 7", "0.428571428571429"),
        ("12345678901234567 / 1", "12345678901234567"),
        ("12345678901234567 / 3", "4115226300411522.3333"),
        ("1 / 1024", "0.0009765625"),
        ("RATE * 3", "0.3"),
        ("mod(QTY, 2)", "1"),
        ("round(2.345, 2)", "2.35"),
        ("round(-2.5)", "-3"),
        ("round(1234, -2)", "1200"),
        ("round(0.004, 2)", "0"),
        ("floor(-2.5) & ceiling(2.1) & abs(-1)", "-331"),
        ("number('12') + 1", "13"),
        ("text(AMOUNT) & '!'", "10.5!"),
        ("substring(FIRST, 2)", "nn"),
        ("substring(FIRST, 1, 2)", "An"),
        ("substring(FIRST, 0, 2)", "A"),
        ("substring(FIRST, 9)", ""),
        ("substring(FIRST, 2, -1)", ""),
        ("left(FIRST, 1) & right(FIRST, 2) & right(FIRST, 9)", "AnnAnn"),
        ("left(FIRST, -1) & right(FIRST, 0)", ""),
        ("upper(FIRST) & lower(FIRST) & trim('  x ')", "ANNannx"),
        ("replace(FIRST, 'n', 'mm') & replace(FIRST, '', 'x')", "AmmmmAnn"),
        ("length(FIRST)", "3"),
        ("year(DAY) & '/' & month(DAY) & '/' & day(AT)", "2024/2/29"),
        ("date(AT)", "2024-02-29"),
        ("if(QTY > 2, 'many', 'few')", "many"),
        ("if(QTY > 5, 'many', QTY > 2, 'some', 'few')", "some"),
        ("if(QTY = 0, 0, AMOUNT / QTY)", "3.5"),
        ("if(OK, 1, 0)", "1"),
        ("if(OK and not (QTY = 1) or false, 'a', 'b')", "a"),
        ("QTY >= 3 and QTY <= 3 and QTY != 4 and QTY <> 4 and QTY < 4", "t"),
        ("DAY > '2024-01-01'", "t"),
        ("'2024-1-1' < DAY", "t"),
        ("AT = '2024-02-29T13:45:00'", "t"),
        ("if(true, DAY, '2020-01-01')", "2024-02-29"),
        ("STATE = 'done'", "t"),
        ("STATE = 2", "t"),
        ("STATE & ''", "Done"),
        ("CODE = 'AB'", "t"),
        ("FIRST = 'ann'", "f"),
        ("contains(FIRST, 'n') and startswith(FIRST, 'A') and endswith(FIRST, 'n')", "t"),
        ("[Item #] & 1", "i1"),
        ("coalesce(null, LAST, FIRST)", "Lee"),
        ("isblank(FIRST)", "f"),
        ("null", None),
        ("true", "t"),
        ("'x'", "x"),
    ],
)
def test_compute(text: str, wanted: str | None) -> None:
    """Formulas compute what their words say; what they make is in canonical text."""
    assert compute(text) == wanted


@pytest.mark.parametrize(
    ("text", "cells", "wanted"),
    [
        ("FIRST & LAST", {"FIRST": None}, "Lee"),
        ("upper(FIRST)", {"FIRST": None}, None),
        ("AMOUNT + 1", {"AMOUNT": None}, None),
        ("QTY > 1", {"QTY": None}, "f"),
        ("not (QTY > 1)", {"QTY": None}, "t"),
        ("QTY != 1", {"QTY": None}, "t"),
        ("QTY = null", {"QTY": None}, "t"),
        ("if(OK, 1, 0)", {"OK": None}, "0"),
        ("not OK", {"OK": None}, "t"),
        ("LAST = ''", {"LAST": ""}, "t"),
        ("LAST = ''", {"LAST": None}, "t"),
        ("LAST = null", {"LAST": ""}, "t"),
        ("coalesce(LAST, FIRST)", {"LAST": ""}, "Ann"),
        ("FIRST = ''", {"FIRST": None}, "f"),
        ("isblank(FIRST)", {"FIRST": None}, "t"),
        ("isblank(FIRST)", {"FIRST": ""}, "t"),
        ("FIRST & LAST", {"LAST": ABSENT}, ABSENT),
        ("if(QTY = 0, 0, AMOUNT / QTY)", {"QTY": "0"}, "0"),
    ],
)
def test_nothing(text: str, cells: dict[str, object], wanted: object) -> None:
    """What becomes of null, of an empty text that means null, and of what is not known."""
    assert compute(text, **cells) == wanted


@pytest.mark.parametrize(
    ("text", "cells", "words"),
    [
        ("AMOUNT / (QTY - 3)", {}, "divides by zero"),
        ("mod(AMOUNT, 0)", {}, "divides by zero"),
        ("number(FIRST)", {}, "'Ann' is not a number"),
        ("AMOUNT + 1", {"AMOUNT": "NaN"}, "NaN is no number to compute with"),
        ("AMOUNT + 1", {"AMOUNT": "1" * 120}, "hundred digits"),
        ("substring(FIRST, 1.5)", {}, "1.5 is no place of a character"),
        ("round(1, 1000)", {}, "no number of digits"),
        ("replace(FIRST, 'n', FIRST)", {"FIRST": "n" * 2000}, "more than 1000000 characters"),
        ("concat(FIRST, FIRST)", {"FIRST": "n" * 600_000}, "more than 1000000 characters"),
        ("year(DAY)", {"DAY": "infinity"}, "beyond the years"),
    ],
)
def test_a_record_on_which_it_fails(text: str, cells: dict[str, object], words: str) -> None:
    """What cannot be computed says why."""
    with pytest.raises(CastError) as caught:
        compute(text, **cells)
    assert caught.value.code == "not_computed"
    assert words in caught.value.message


@pytest.mark.parametrize(
    ("text", "column", "words"),
    [
        ("", 0, "empty"),
        ("1 +", 4, "ends where a value"),
        ("(1", 1, "never closed"),
        ("upper(FIRST", 6, "never closed"),
        ("1)", 2, "closes none"),
        ("'x", 1, "no closing quote"),
        ("[x", 1, "no closing bracket"),
        ("FIRST LAST", 7, "texts are joined with &"),
        ("FIRST && LAST", 7, "use and"),
        ("FIRST || LAST", 7, "use or"),
        ("QTY eq 3", 5, "use ="),
        ("QTY % 3", 5, "use mod(A, B)"),
        ("1 = 1 = 1", 7, "two sides"),
        ("* 2", 1, "cannot stand here"),
        ("uper(FIRST)", 1, "did you mean 'upper'?"),
        ("__import__('os')", 1, "no function __import__"),
        ("upper()", 1, "upper takes a text"),
        ("if(OK, 1)", 1, "if takes a condition"),
        ("if(OK, 1, OK, 2)", 1, "if takes a condition"),
        ("FIRST + 1", 1, "+ takes a number, and FIRST is a text: write number(…)"),
        ("FIRST + LAST", 1, "number(…), or the number without quotes; & joins texts"),
        ("upper(QTY)", 7, "upper takes a text, and QTY is a number: write text(…)"),
        ("year(QTY)", 6, "year takes a date"),
        ("if(QTY, 1, 2)", 4, "a condition belongs here, and QTY is a number"),
        ("not QTY", 5, "a condition belongs here"),
        ("if(OK, 1, 'x')", 11, "1, a number, stands beside 'x', a text"),
        ("FIRST = 5", 9, "FIRST, a text, is compared with 5, a number"),
        ("DAY > 'soon'", 7, "'soon' is not a date"),
        ("OK < true", 4, "true and false have no order"),
        ("STATE = 'x'", 9, "'x' is no choice of STATE (Open, Done)"),
        ("DAY = AT", 7, "a date, is compared with AT, a moment"),
        ("(" * 40 + "1" + ")" * 40, 31, "nested deeper than 30 levels"),
        ("not " * 40 + "OK", 121, "nested deeper than 30 levels"),
        ("-" * 40 + "1", 31, "nested deeper than 30 levels"),
        ("1" * 60_000, 50_001, "longer than 50000 characters"),
    ],
)
def test_refused_with_a_place(text: str, column: int, words: str) -> None:
    """What cannot be read, or does not go together, is told in words, with the character where it stands."""
    with pytest.raises(FormulaError) as caught:
        made(text)
    assert words in caught.value.message
    assert caught.value.column == column


def test_a_long_formula() -> None:
    """Length alone is no nesting."""
    assert compute("QTY" + " + QTY" * 5000) == "15003"
    assert compute("FIRST" + " & FIRST" * 5000) == "Ann" * 5001
    assert compute("OK" + " and OK" * 5000) == "t"


PIECES = st.sampled_from(
    [
        *(f"{name}(" for name in FUNCTIONS),
        *COLUMNS,
        *"()+-*/&,<=>'\"[]",
        " ",
        "and ",
        "or ",
        "not ",
        "null",
        "true",
        "'x'",
        "1",
        "2.5",
        "0",
    ]
)
CELLS = {
    TypeName.TEXT: st.none() | st.text(max_size=4),
    TypeName.NUMERIC: st.none() | st.decimals(allow_nan=False, allow_infinity=False, places=3).map(str),
    TypeName.INTEGER: st.none() | st.integers(-9, 9).map(str),
    TypeName.FLOAT: st.none() | st.floats(allow_nan=False, allow_infinity=False).map(str),
    TypeName.DATE: st.none() | st.dates().map(str),
    TypeName.TIMESTAMP: st.none() | st.datetimes().map(str),
    TypeName.BOOLEAN: st.none() | st.sampled_from(["t", "f"]),
    TypeName.CHOICE: st.none() | st.sampled_from(["1", "Open", "2", "9"]),
}
RECORDS = st.fixed_dictionaries({name: CELLS[column.type.name] for name, column in COLUMNS.items()})


def result(text: str, record: dict[str, object]) -> tuple[str, object]:
    """What becomes of a formula: refused, failed on the record, or computed."""
    try:
        found = made(text)
    except FormulaError as error:
        return "refused", error
    try:
        return "computed", (found.result, found.function(*[record[path[0]] for path in found.paths]))
    except CastError as error:
        return "failed", error


@settings(max_examples=200)
@given(st.lists(PIECES, max_size=12).map("".join) | st.text(max_size=20), RECORDS)
def test_any_text_is_computed_or_refused(text: str, record: dict[str, object]) -> None:
    """No text and no record makes a formula fail otherwise than with a message; results are canonical text."""
    match result(text, record):
        case "refused", FormulaError(message=message, column=column):
            assert message
            assert 0 <= column <= len(text) + 1
        case "failed", CastError(message=message):
            assert message
        case _, (column, value):
            assert value is None or canonical(column.type)(value) == value


SUMS = st.recursive(
    st.integers(-99, 99).map(lambda n: (f"({n})", n)),
    lambda inner: st.tuples(inner, st.sampled_from("+-*"), inner).map(
        lambda three: (
            f"({three[0][0]} {three[1]} {three[2][0]})",
            {"+": int.__add__, "-": int.__sub__, "*": int.__mul__}[three[1]](three[0][1], three[2][1]),
        )
    ),
    max_leaves=6,
)


@given(SUMS)
def test_arithmetic_is_exact(sum_: tuple[str, int]) -> None:
    """Whole numbers compute as whole numbers do."""
    assert compute(sum_[0]) == str(sum_[1])
