"""Values in canonical text, their way from type to type, and the form in which both sides compare."""

from __future__ import annotations

import random
import re

import pytest

from dualwrite.casts import (
    CastError,
    add,
    canonical,
    cast,
    common_form,
    identity,
    incompatible,
    kind_of,
    loses,
    order_key,
)
from dualwrite.schema import Column, ColumnType, TypeName

T = TypeName


def column(name, length=None, precision=None, scale=None, bits=None, **flags):
    """A column of a type, named after it."""
    return Column(name.value, ColumnType(name, length, precision, scale, bits), **flags)


TEXT, INT, INT16, INT32, INT64 = column(T.TEXT), column(T.INTEGER), *(column(T.INTEGER, bits=n) for n in (16, 32, 64))
NUMERIC, MONEY = column(T.NUMERIC), column(T.NUMERIC, precision=18, scale=2)
PRICE, FLOAT, BOOLEAN = column(T.NUMERIC, precision=18, scale=4), column(T.FLOAT), column(T.BOOLEAN)
DATE, TIME, NAIVE, ZONED = column(T.DATE), column(T.TIME), column(T.TIMESTAMP), column(T.TIMESTAMPTZ)
UUID, BYTES, JSON, OTHER = column(T.UUID), column(T.BYTES), column(T.JSON), column(T.OTHER)
PARTY = column(T.CHOICE, choices=(("Organization", "1"), ("Person", "2")))
ALL = (TEXT, INT32, INT64, NUMERIC, MONEY, FLOAT, BOOLEAN, DATE, TIME, NAIVE, ZONED, UUID, BYTES, JSON, OTHER, PARTY)


def text_of(length):
    """A text column of that length."""
    return column(T.TEXT, length)


def code_of(function, *arguments):
    """The code of the CastError that a call raises."""
    with pytest.raises(CastError) as caught:
        function(*arguments)
    assert caught.value.message
    return caught.value.code


CANONICAL = [
    (TEXT, " As It Is ", " As It Is "),
    (OTHER, "1 mon", "1 mon"),
    (INT, "7", "7"),
    (INT, "007", "7"),
    (INT, "+5", "5"),
    (INT, "-0", "0"),
    (INT, "1e3", "1000"),
    (INT, "12.00", "12"),
    (INT, "123456789012345678901234567890", "123456789012345678901234567890"),
    (NUMERIC, "12.50", "12.5"),
    (NUMERIC, "1e3", "1000"),
    (NUMERIC, "1e-7", "0.0000001"),
    (NUMERIC, "-0.00", "0"),
    (NUMERIC, ".5", "0.5"),
    (NUMERIC, "5.", "5"),
    (NUMERIC, " 100 ", "100"),
    (NUMERIC, "nan", "NaN"),
    (NUMERIC, "-inf", "-Infinity"),
    (MONEY, "12.5", "12.50"),
    (MONEY, "12", "12.00"),
    (MONEY, "-0", "0.00"),
    (MONEY, "12.500", "12.50"),
    (MONEY, "12.555", "12.555"),
    (column(T.NUMERIC, precision=5), "12.0", "12"),
    (FLOAT, "5.0", "5"),
    (FLOAT, "0.1", "0.1"),
    (FLOAT, "-0.0", "0"),
    (FLOAT, "1e15", "1e+15"),
    (FLOAT, "1234567890123456", "1.234567890123456e+15"),
    (FLOAT, "999999999999999", "999999999999999"),
    (FLOAT, "0.0001", "0.0001"),
    (FLOAT, "0.00001", "1e-05"),
    (FLOAT, "-1.5E-300", "-1.5e-300"),
    (FLOAT, "Infinity", "Infinity"),
    (BOOLEAN, "TRUE", "t"),
    (BOOLEAN, "Yes", "t"),
    (BOOLEAN, "1", "t"),
    (BOOLEAN, "f", "f"),
    (BOOLEAN, "no", "f"),
    (BOOLEAN, "0", "f"),
    (DATE, "2024-01-31", "2024-01-31"),
    (DATE, "2024-1-3", "2024-01-03"),
    (DATE, "2024-02-29", "2024-02-29"),
    (DATE, "2024-12-31", "2024-12-31"),
    (DATE, "2024-01-31T00:00:00Z", "2024-01-31"),
    (DATE, "infinity", "infinity"),
    (DATE, "0044-03-15 BC", "0044-03-15 BC"),
    (NAIVE, "2024-01-31 13:45:00.500000", "2024-01-31 13:45:00.5"),
    (NAIVE, "2024-01-31T13:45", "2024-01-31 13:45:00"),
    (NAIVE, "2024-01-31", "2024-01-31 00:00:00"),
    (NAIVE, "2024-01-31T13:45:00.000Z", "2024-01-31 13:45:00"),
    (NAIVE, "2024-01-31T00:30:00+02:00", "2024-01-30 22:30:00"),
    (NAIVE, "2024-12-31 23:59:59.9999999", "2025-01-01 00:00:00"),
    (NAIVE, "12024-01-31 00:00:00", "12024-01-31 00:00:00"),
    (ZONED, "2024-01-31T13:45:00Z", "2024-01-31 13:45:00+00"),
    (ZONED, "2024-01-31 13:45:00+00", "2024-01-31 13:45:00+00"),
    (ZONED, "2024-01-31 13:45:00.1230-0530", "2024-01-31 19:15:00.123+00"),
    (ZONED, "2024-01-31 13:45:00", "2024-01-31 13:45:00+00"),
    (TIME, "7:05", "07:05:00"),
    (TIME, "07:05:09.250", "07:05:09.25"),
    (TIME, "24:00:00", "24:00:00"),
    (UUID, "{6F9619FF-8B86-D011-B42D-00C04FC964FF}", "6f9619ff-8b86-d011-b42d-00c04fc964ff"),
    (BYTES, r"\x00FF", r"\x00ff"),
    (BYTES, "0x00FF", r"\x00ff"),
    (JSON, '{"b": 1.0}', '{"b": 1.0}'),
    (PARTY, "Organization", "Organization"),
]


@pytest.mark.parametrize(("kind", "given", "wanted"), CANONICAL, ids=lambda value: str(value)[:30])
def test_canonical_spelling(kind, given, wanted):
    """Any reasonable spelling comes to the one of PostgreSQL, and that one stays."""
    spell = canonical(kind.type)
    assert spell(given) == wanted
    assert spell(wanted) == wanted


@pytest.mark.parametrize(
    ("kind", "given", "code"),
    [
        (INT, "", "not_a_value"),
        (INT, "1.5", "not_a_value"),
        (INT, "1_000", "not_a_value"),
        (INT, "٣", "not_a_value"),
        (INT, "NaN", "not_a_value"),
        (NUMERIC, "12,5", "not_a_value"),
        (NUMERIC, "1e999999999", "out_of_range"),
        (NUMERIC, "1e99999999999999999999999999", "out_of_range"),
        (FLOAT, "1e400", "out_of_range"),
        (FLOAT, "abc", "not_a_value"),
        (BOOLEAN, "2", "not_a_value"),
        (BOOLEAN, "", "not_a_value"),
        (DATE, "2024-02-30", "not_a_value"),
        (DATE, "2024-04-31", "not_a_value"),
        (DATE, "2023-02-29", "not_a_value"),
        (DATE, "0000-01-01", "not_a_value"),
        (NAIVE, "2024-06-31 00:00:00", "not_a_value"),
        (DATE, "31.01.2024", "not_a_value"),
        (DATE, "2024-01-31 13:45", "time_lost"),
        (NAIVE, "2024-01-31 25:00", "not_a_value"),
        (NAIVE, "1706708700", "not_a_value"),
        (ZONED, "0001-01-01T00:00:00+02:00", "out_of_range"),
        (ZONED, "9999-12-31 23:59:59.9999999", "out_of_range"),
        (TIME, "13:61", "not_a_value"),
        (TIME, "24:00:01", "not_a_value"),
        (UUID, "6f9619ff", "not_a_value"),
        (BYTES, r"\x0", "not_a_value"),
        (JSON, "{'a': 1}", "not_a_value"),
        (JSON, "[NaN]", "not_a_value"),
        (JSON, "[" * 100_000, "not_a_value"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_canonical_refuses(kind, given, code):
    """What is no value of the type is refused with a code and a short message."""
    assert code_of(canonical(kind.type), given) == code
    with pytest.raises(CastError) as caught:
        canonical(kind.type)(given)
    assert len(caught.value.message) < 120


CASTS = [
    (BOOLEAN, TEXT, {}, "t", "true"),
    (BOOLEAN, INT32, {}, "f", "0"),
    (BOOLEAN, MONEY, {}, "t", "1.00"),
    (BOOLEAN, PARTY, {}, "t", "1"),
    (BOOLEAN, FLOAT, {}, "t", "1"),
    (INT32, BOOLEAN, {}, "1", "t"),
    (MONEY, BOOLEAN, {}, "0.00", "f"),
    (TEXT, BOOLEAN, {}, "Yes", "t"),
    (column(T.CHOICE, choices=(("On hold", "1"), ("Free", "0"))), BOOLEAN, {}, "On hold", "t"),
    (column(T.CHOICE, choices=(("No", "0"), ("Yes", "1"))), BOOLEAN, {}, "No", "f"),
    (INT64, INT32, {}, "2147483647", "2147483647"),
    (INT32, MONEY, {}, "5", "5.00"),
    (INT64, FLOAT, {}, "123", "123"),
    (INT32, text_of(5), {}, "12345", "12345"),
    (MONEY, PRICE, {}, "12.50", "12.5000"),
    (PRICE, MONEY, {}, "12.5000", "12.50"),
    (PRICE, MONEY, {"round_": True}, "12.3450", "12.35"),
    (PRICE, MONEY, {"round_": True}, "-12.3450", "-12.35"),
    (PRICE, MONEY, {"round_": True}, "-0.0010", "0.00"),
    (MONEY, NUMERIC, {}, "12.50", "12.5"),
    (MONEY, INT32, {}, "12.00", "12"),
    (MONEY, INT32, {"round_": True}, "12.50", "13"),
    (FLOAT, MONEY, {}, "0.30000000000000004", "0.30"),
    (FLOAT, NUMERIC, {}, "1e+20", "100000000000000000000"),
    (FLOAT, INT64, {}, "3.0000000000000004", "3"),
    (FLOAT, INT64, {}, "9.007199254740991e+15", "9007199254740991"),
    (NUMERIC, FLOAT, {}, "0.1234567890123456789", "0.12345678901234568"),
    (TEXT, INT32, {}, " 007 ", "7"),
    (TEXT, MONEY, {}, "1e1", "10.00"),
    (TEXT, PARTY, {}, "organization", "1"),
    (TEXT, PARTY, {}, "2", "2"),
    (TEXT, PARTY, {}, "Alien", "Alien"),
    (PARTY, INT32, {}, "Person", "2"),
    (PARTY, INT32, {}, "2", "2"),
    (INT32, PARTY, {}, "2", "2"),
    (MONEY, PARTY, {}, "2.00", "2"),
    (PARTY, text_of(20), {}, "Person", "Person"),
    (column(T.CHOICE, choices=(("Org", "7"),)), PARTY, {}, "Org", "7"),
    (TEXT, text_of(3), {"truncate": True}, "abcdef", "abc"),
    (TEXT, text_of(3), {}, "abc  ", "abc"),
    (TEXT, text_of(2), {}, "äö", "äö"),
    (DATE, NAIVE, {}, "2024-01-31", "2024-01-31 00:00:00"),
    (DATE, ZONED, {"timezone": "Europe/Berlin"}, "2024-07-01", "2024-06-30 22:00:00+00"),
    (NAIVE, DATE, {}, "2024-01-31 00:00:00", "2024-01-31"),
    (NAIVE, DATE, {"round_": True}, "2024-01-31 23:59:00", "2024-01-31"),
    (NAIVE, ZONED, {}, "2024-01-31 13:45:00.5", "2024-01-31 13:45:00.5+00"),
    (ZONED, NAIVE, {}, "2024-01-31 13:45:00.5+00", "2024-01-31 13:45:00.5"),
    (NAIVE, ZONED, {"timezone": "Europe/Berlin"}, "2024-07-01 00:30:00", "2024-06-30 22:30:00+00"),
    (ZONED, NAIVE, {"timezone": "Europe/Berlin"}, "2024-01-31 23:30:00+00", "2024-02-01 00:30:00"),
    (ZONED, DATE, {"timezone": "Europe/Berlin"}, "2024-06-30 22:00:00+00", "2024-07-01"),
    (NAIVE, ZONED, {}, "infinity", "infinity"),
    (NAIVE, column(T.TIMESTAMP, scale=0), {}, "2024-12-31 23:59:59.5", "2025-01-01 00:00:00"),
    (NAIVE, column(T.TIMESTAMP, scale=3), {}, "2024-12-31 23:59:59.1235", "2024-12-31 23:59:59.124"),
    (
        ZONED,
        column(T.TIMESTAMPTZ, scale=0),
        {"timezone": "Europe/Berlin"},
        "2024-10-27 01:30:00.2+00",
        "2024-10-27 01:30:00+00",
    ),
    (TIME, column(T.TIME, scale=0), {}, "23:59:59.7", "24:00:00"),
    (TEXT, TIME, {}, "7:05", "07:05:00"),
    (TEXT, DATE, {}, "2024-01-31T00:00:00", "2024-01-31"),
    (TEXT, NAIVE, {"timezone": "Europe/Berlin"}, "2024-07-01T00:00:00Z", "2024-07-01 02:00:00"),
    (TEXT, ZONED, {"timezone": "Europe/Berlin"}, "2024-07-01 00:00", "2024-06-30 22:00:00+00"),
    (TEXT, UUID, {}, "6F9619FF-8B86-D011-B42D-00C04FC964FF", "6f9619ff-8b86-d011-b42d-00c04fc964ff"),
    (UUID, text_of(36), {}, "6f9619ff-8b86-d011-b42d-00c04fc964ff", "6f9619ff-8b86-d011-b42d-00c04fc964ff"),
    (TEXT, BYTES, {}, r"\xAB", r"\xab"),
    (BYTES, column(T.BYTES, length=2), {}, r"\xabcd", r"\xabcd"),
    (TEXT, JSON, {}, "[1, 2]", "[1, 2]"),
]


@pytest.mark.parametrize(("source", "target", "options", "given", "wanted"), CASTS, ids=lambda value: str(value)[:30])
def test_cast(source, target, options, given, wanted):
    """A value that fits arrives in the target's canonical text."""
    assert cast(source, target, **options)(given) == wanted


@pytest.mark.parametrize(
    ("source", "target", "options", "given", "code"),
    [
        (TEXT, text_of(3), {}, "abcd", "too_long"),
        (INT32, text_of(3), {"truncate": True}, "1234", "too_long"),
        (BYTES, column(T.BYTES, length=1), {}, r"\xabcd", "too_long"),
        (INT64, INT32, {}, "2147483648", "out_of_range"),
        (INT64, INT32, {}, "-2147483649", "out_of_range"),
        (INT32, INT16, {}, "40000", "out_of_range"),
        (NUMERIC, column(T.NUMERIC, precision=4, scale=2), {}, "100", "out_of_range"),
        (NUMERIC, column(T.NUMERIC, precision=4, scale=2), {"round_": True}, "99.995", "out_of_range"),
        (NUMERIC, MONEY, {}, "Infinity", "out_of_range"),
        (NUMERIC, FLOAT, {}, "1e309", "out_of_range"),
        (FLOAT, INT64, {}, "NaN", "not_a_value"),
        (PRICE, MONEY, {}, "12.3450", "digits_lost"),
        (FLOAT, MONEY, {}, "0.125", "digits_lost"),
        (MONEY, INT32, {}, "12.50", "digits_lost"),
        (TEXT, INT32, {}, "", "not_a_value"),
        (TEXT, INT32, {}, "twelve", "not_a_value"),
        (INT32, BOOLEAN, {}, "2", "not_a_value"),
        (PARTY, INT32, {}, "Alien", "not_a_value"),
        (PARTY, BOOLEAN, {}, "Person", "not_a_value"),
        (NAIVE, DATE, {}, "2024-01-31 00:00:00.1", "time_lost"),
        (ZONED, DATE, {"timezone": "Europe/Berlin"}, "2024-07-01 00:00:00+00", "time_lost"),
        (TEXT, ZONED, {}, "soon", "not_a_value"),
        (NAIVE, ZONED, {"timezone": "Europe/Berlin"}, "0001-01-01 00:00:00", "out_of_range"),
        (NAIVE, column(T.TIMESTAMP, scale=0), {}, "9999-12-31 23:59:59.9", "out_of_range"),
        (BYTES, DATE, {}, r"\x00", "not_a_value"),
        (TEXT, JSON, {}, "{", "not_a_value"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_cast_refuses_what_would_lose_data(source, target, options, given, code):
    """What does not fit is refused with the code of its kind of loss."""
    assert code_of(cast(source, target, **options), given) == code


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: str(kind.type))
def test_cast_between_equal_types_is_identity(kind):
    """Equal columns need no cast, and callers can see it."""
    assert cast(kind, kind) is identity
    assert loses(kind, kind) is None
    assert incompatible(kind, kind) is None


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (text_of(20), text_of(60)),
        (text_of(20), TEXT),
        (INT32, INT64),
        (INT32, INT),
        (INT32, NUMERIC),
        (INT32, TEXT),
        (DATE, OTHER),
        (PARTY, TEXT),
        (TEXT, column(T.CHOICE)),
        (MONEY, column(T.NUMERIC, precision=20, scale=2)),
        (column(T.TIMESTAMP, scale=0), NAIVE),
    ],
    ids=lambda value: str(value.type),
)
def test_cast_into_more_room_is_identity(source, target):
    """A target that takes every text of the source as it is needs no cast."""
    assert cast(source, target) is identity
    assert loses(source, target) is None


@pytest.mark.parametrize(
    ("source", "target", "word"),
    [
        (text_of(60), text_of(20), "up to 60 characters"),
        (TEXT, text_of(20), "any length"),
        (PRICE, MONEY, "behind the point"),
        (NUMERIC, MONEY, "behind the point"),
        (column(T.NUMERIC, precision=20, scale=2), MONEY, "too large"),
        (INT64, INT32, "too large"),
        (INT, INT32, "too large"),
        (INT64, column(T.NUMERIC, precision=10, scale=2), "too large"),
        (column(T.NUMERIC, precision=10, scale=0), INT32, "too large"),
        (FLOAT, NUMERIC, None),
        (FLOAT, MONEY, "behind the point"),
        (FLOAT, INT64, "behind the point"),
        (INT64, FLOAT, "15 significant"),
        (INT32, FLOAT, None),
        (MONEY, FLOAT, "15 significant"),
        (INT32, BOOLEAN, "0 and 1"),
        (BOOLEAN, INT32, None),
        (BOOLEAN, text_of(4), "up to 5"),
        (INT32, text_of(11), None),
        (INT32, text_of(10), "up to 11"),
        (MONEY, text_of(21), None),
        (UUID, text_of(35), "up to 36"),
        (BYTES, column(T.BYTES, length=5), "more than 5 bytes"),
        (TEXT, INT32, "not an integer"),
        (TEXT, DATE, "not a date"),
        (TEXT, PARTY, None),
        (column(T.CHOICE), INT32, "not an integer"),
        (PARTY, INT32, None),
        (NAIVE, DATE, "time of day"),
        (DATE, NAIVE, None),
        (NAIVE, column(T.TIMESTAMP, scale=0), "rounded to 0"),
        (NAIVE, ZONED, None),
    ],
    ids=lambda value: str(getattr(value, "type", value)),
)
def test_loses_says_how(source, target, word):
    """The check is told in words how a pair can lose data, and nothing where it cannot."""
    sentence = loses(source, target)
    if word is None:
        assert sentence is None
    else:
        assert sentence is not None
        assert word in sentence


@pytest.mark.parametrize(
    ("source", "target"),
    [(BYTES, DATE), (UUID, INT32), (DATE, MONEY), (TIME, NAIVE), (NAIVE, TIME), (JSON, BOOLEAN), (BOOLEAN, DATE)],
    ids=lambda value: str(value.type),
)
def test_incompatible_pairs(source, target):
    """A pair that makes no sense is named, and its cast refuses every value."""
    sentence = incompatible(source, target)
    assert sentence is not None
    assert str(source.name) in sentence
    assert loses(source, target) is None
    assert code_of(cast(source, target), "0") == "not_a_value"


SAMPLES = {
    T.TEXT: ["", "abc", "Abc ", "12", "12.50", "true", "2024-01-31", "Person", "é" * 30],
    T.OTHER: ["1 mon", ""],
    T.INTEGER: ["0", "1", "-5", "40000", "9007199254740993"],
    T.NUMERIC: ["0", "12.5", "12.345", "-0.001", "NaN", "123456789012345678"],
    T.FLOAT: ["0", "0.1", "0.30000000000000004", "1e+20", "Infinity", "3.0000000000000004", "9007199254740991"],
    T.BOOLEAN: ["t", "f"],
    T.DATE: ["2024-01-31", "infinity", "0001-01-01"],
    T.TIME: ["13:45:00.5", "24:00:00"],
    T.TIMESTAMP: ["2024-01-31 13:45:00.5", "2024-07-01 00:00:00", "9999-12-31 23:59:59.9", "infinity"],
    T.TIMESTAMPTZ: ["2024-01-31 13:45:00.5+00", "2024-06-30 22:00:00+00", "2024-10-27 00:30:00+00"],
    T.UUID: ["6f9619ff-8b86-d011-b42d-00c04fc964ff"],
    T.BYTES: [r"\x", r"\x00ff"],
    T.JSON: ['{"a": 1.0, "b": [true, null]}', "5"],
    T.CHOICE: ["Person", "1", "Alien"],
}
TARGETS = (
    *ALL,
    text_of(8),
    INT16,
    PRICE,
    column(T.TIMESTAMP, scale=0),
    column(T.TIMESTAMPTZ, scale=3),
    column(T.TIME, scale=0),
    column(T.CHOICE),
)


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin"])
@pytest.mark.parametrize("round_", [False, True])
@pytest.mark.parametrize("source", TARGETS, ids=lambda value: str(value.type))
def test_whatever_a_cast_carries_agrees_in_common_form(source, round_, zone):
    """A value and what the cast made of it are canonical and equal in the pair's common form."""
    carried = 0
    for target in TARGETS:
        convert = cast(source, target, round_=round_, timezone=zone)
        mine, theirs = (common_form(*pair, timezone=zone) for pair in ((source, target), (target, source)))
        within = cast(column(source.type.name), source, round_=True)
        for value in SAMPLES[source.type.name]:
            try:
                value = within(canonical(source.type)(value))
                result = convert(value)
            except CastError:
                continue
            carried += 1
            assert canonical(target.type)(result) == result, (target, value)
            if not (source.type.name is T.DATE and result.startswith("0001")):
                assert theirs(result) == mine(value), (target, value, result)
    assert carried >= len(SAMPLES[source.type.name])


BLANK = column(T.TEXT, ignore_trailing_blanks=True)
NOCASE = column(T.TEXT, ignore_case=True)
EMPTY = column(T.TEXT, empty_is_null=True)


@pytest.mark.parametrize(
    ("column_", "other", "value", "wanted"),
    [
        (MONEY, PRICE, "12.50", "12.5"),
        (PRICE, MONEY, "12.4950", "12.5"),
        (PRICE, MONEY, "12.4949", "12.49"),
        (NUMERIC, NUMERIC, "1.0", "1"),
        (NUMERIC, NUMERIC, "-0", "0"),
        (FLOAT, FLOAT, "0.30000000000000004", "0.3"),
        (NUMERIC, FLOAT, "0.1234567890123456789", "0.123456789012346"),
        (MONEY, INT32, "3.00", "3"),
        (TEXT, INT32, "007", "7"),
        (TEXT, INT32, "abc", "abc"),
        (BOOLEAN, INT32, "t", "1"),
        (BOOLEAN, INT32, "?", "?"),
        (TEXT, BOOLEAN, "Yes", "t"),
        (PARTY, BOOLEAN, "Organization", "t"),
        (PARTY, INT32, "Person", "2"),
        (PARTY, TEXT, "Person", "2"),
        (TEXT, PARTY, "person", "2"),
        (NAIVE, column(T.TIMESTAMP, scale=0), "2024-01-31 13:45:00.5", "2024-01-31 13:45:01"),
        (NAIVE, DATE, "2024-01-31 13:45:00", "2024-01-31"),
        (ZONED, NAIVE, "2024-01-31 13:45:00+00", "2024-01-31 13:45:00"),
        (TEXT, UUID, "6F9619FF-8B86-D011-B42D-00C04FC964FF", "6f9619ff-8b86-d011-b42d-00c04fc964ff"),
        (JSON, JSON, '{"b": [1.0, null], "a": "é"}', '{"a":"\\u00e9","b":[1,null]}'),
        (JSON, JSON, "{broken", "{broken"),
        (TEXT, BLANK, "a b  ", "a b"),
        (BLANK, TEXT, "a\t ", "a\t"),
        (NOCASE, TEXT, "STRAßE", "strasse"),
        (TEXT, NOCASE, "Abc", "abc"),
        (TEXT, EMPTY, "", None),
        (EMPTY, INT32, "", None),
        (EMPTY, TEXT, " ", " "),
        (BLANK, EMPTY, "  ", None),
        (NOCASE, MONEY, "NaN", "NaN"),
        (BYTES, DATE, r"\x00", r"\x00"),
    ],
    ids=lambda value: str(getattr(value, "type", value))[:30],
)
def test_common_form(column_, other, value, wanted):
    """A value comes to the coarser of the pair's forms; null stays null."""
    form = common_form(column_, other)
    assert form(value) == wanted
    assert form(None) is None


@pytest.mark.parametrize("kind", [k for k in ALL if k not in (NUMERIC, FLOAT, JSON, PARTY)], ids=lambda k: str(k.type))
def test_common_form_of_equal_types_is_identity(kind):
    """Where a type has one spelling for a value there is nothing to bring into a form."""
    assert common_form(kind, kind) is identity


def test_order_key_orders_numbers_as_numbers_and_never_fails():
    """Numbers order by size, junk comes first and NaN last; text orders as it is."""
    values = ["10", "9", "-3.5", "NaN", "junk", "9.50"]
    assert sorted(values, key=order_key("number")) == ["junk", "-3.5", "9", "9.50", "10", "NaN"]
    assert sorted(["b", "a", "B"], key=order_key("text")) == ["B", "a", "b"]
    assert [kind_of(kind.type) for kind in (MONEY, INT, FLOAT, DATE, TEXT)] == ["number"] * 3 + ["text"] * 2


@pytest.mark.parametrize(
    ("arguments", "kind", "wanted"),
    [
        (("5", "3", "1"), INT32, "7"),
        ((None, "3", None), INT32, "3"),
        ((None, None, None), MONEY, "0.00"),
        (("0.10", "0.20", None), MONEY, "0.30"),
        (("0.1", "0.2", "0.3"), FLOAT, "0"),
        (("1e+20", "1", None), FLOAT, "1e+20"),
        (("123456789012345678901234567890.01", "0.01", None), NUMERIC, "123456789012345678901234567890.02"),
        (("5", "1", "7"), TEXT, "-1"),
    ],
    ids=str,
)
def test_add_is_exact(arguments, kind, wanted):
    """Sums are exact, count null as nothing and come out canonical."""
    assert add(*arguments, kind.type) == wanted


def test_add_refuses_what_the_type_does_not_hold():
    """A sum beyond the type's limits, or of what is no number, is refused."""
    assert code_of(add, "32767", "1", None, INT16.type) == "out_of_range"
    assert code_of(add, "99.99", "0.01", None, ColumnType(T.NUMERIC, precision=4, scale=2)) == "out_of_range"
    assert code_of(add, "Infinity", "1", None, NUMERIC.type) == "out_of_range"
    assert code_of(add, "one", "1", None, INT32.type) == "not_a_value"


def test_float_spelling_gives_the_same_float_back():
    """The canonical text of a float is the shortest that reads back as it, in PostgreSQL's notation."""
    generator, spell = random.Random(7), canonical(FLOAT.type)
    for _ in range(3000):
        value = generator.uniform(-1, 1) * 10.0 ** generator.randint(-300, 300)
        text = spell(repr(value))
        assert float(text) == value
        digits = [re.sub(r"e.*|[^0-9e]", "", each).strip("0") for each in (text, repr(value))]
        assert digits[0] == digits[1]
        assert ("e" in text) == (not 1e-4 <= abs(value) < 1e15)
