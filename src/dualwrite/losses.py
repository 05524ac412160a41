"""What a pair of columns can lose, in words, before any row is read: for ``check``."""

from __future__ import annotations

from typing import Final

from dualwrite.canonical import NUMBERS, scale_of
from dualwrite.schema import Column, ColumnType, TypeName

PLAIN: Final = frozenset({TypeName.TEXT, TypeName.OTHER})
NUMERIC: Final = NUMBERS | {TypeName.BOOLEAN, TypeName.CHOICE}
DATED: Final = frozenset({TypeName.DATE, TypeName.TIMESTAMP, TypeName.TIMESTAMPTZ})

_WORDS: Final = {
    TypeName.INTEGER: "an integer",
    TypeName.NUMERIC: "a number",
    TypeName.FLOAT: "a number",
    TypeName.BOOLEAN: "true or false",
    TypeName.DATE: "a date",
    TypeName.TIME: "a time of day",
    TypeName.TIMESTAMP: "a timestamp",
    TypeName.TIMESTAMPTZ: "a timestamp",
    TypeName.UUID: "a uuid",
    TypeName.BYTES: "bytes in hexadecimal digits",
    TypeName.JSON: "JSON",
}
_LONGEST: Final = {  # characters of canonical text
    TypeName.FLOAT: 24,
    TypeName.BOOLEAN: 5,
    TypeName.DATE: 10,
    TypeName.TIME: 15,
    TypeName.TIMESTAMP: 26,
    TypeName.TIMESTAMPTZ: 29,
    TypeName.UUID: 36,
}
_DIGITS: Final = {16: 5, 32: 10, 64: 19}


def name_of(type: ColumnType) -> str:
    """A type for people: an integer with its bits."""
    if type.name is TypeName.INTEGER and type.bits is not None:
        return f"int{type.bits}"
    return str(type)


def incompatible(source: Column, target: Column) -> str | None:
    """Why no value of the source can become one of the target; None when some can."""
    kinds = {source.type.name, target.type.name}
    if len(kinds) == 1 or kinds & PLAIN or kinds <= NUMERIC or kinds <= DATED:
        return None
    return f"{source.name} ({name_of(source.type)}) cannot become {target.name} ({name_of(target.type)})"


def loses(source: Column, target: Column) -> str | None:
    """How values of the source can be refused or changed on their way into the target; None when they cannot."""
    if incompatible(source, target):
        return None
    loss = _loss(source, target)
    return loss and f"{source.name} ({name_of(source.type)}) → {target.name} ({name_of(target.type)}): {loss}"


def _loss(source: Column, target: Column) -> str | None:
    have, want = source.type, target.type
    if want.name in PLAIN:
        return _text_loss(have, want)
    if have.name in PLAIN:
        return None if want.name is TypeName.CHOICE else f"text that is not {_WORDS[want.name]} is parked"
    if have.name is TypeName.CHOICE and want.name in NUMBERS | {TypeName.BOOLEAN} and not source.choices:
        return f"a choice that is not {_WORDS[want.name]} is parked"
    if want.name in NUMBERS:
        return _number_loss(have, want)
    if want.name is TypeName.BOOLEAN and have.name in NUMBERS:
        return "numbers other than 0 and 1 are parked"
    if want.name in DATED | {TypeName.TIME}:
        return _time_loss(have, want)
    if want.name is TypeName.BYTES and _more(have.length, want.length):
        return f"more than {want.length} bytes are parked"
    return None


def _more(have: int | None, want: int | None) -> bool:
    """Can there be more than the target takes?  None is unlimited."""
    return want is not None and (have is None or have > want)


def _text_loss(have: ColumnType, want: ColumnType) -> str | None:
    longest = _longest(have)
    if not _more(longest, want.length):
        return None
    size = "any length" if longest is None else f"up to {longest} characters"
    return f"text of {size} is parked beyond {want.length}"


def _longest(type: ColumnType) -> int | None:
    """The most characters of a value's text."""
    if type.name is TypeName.INTEGER:
        digits = _whole_digits(type)
        return None if digits is None else digits + 1
    if type.name is TypeName.NUMERIC:
        return None if type.precision is None else type.precision + 3  # sign, point, a leading zero
    if type.name is TypeName.BYTES:
        return None if type.length is None else 2 * type.length + 2
    return _LONGEST.get(type.name, type.length)


def _whole_digits(type: ColumnType) -> int | None:
    """The most digits before the point."""
    match type.name:
        case TypeName.BOOLEAN:
            return 1
        case TypeName.INTEGER:
            return _DIGITS.get(type.bits or 0)
        case TypeName.NUMERIC if type.precision is not None:
            return type.precision - (type.scale or 0)
        case TypeName.CHOICE:
            return _DIGITS[32]
        case _:
            return None


def _decimals(type: ColumnType) -> int | None:
    return 0 if type.name in (TypeName.INTEGER, TypeName.BOOLEAN, TypeName.CHOICE) else scale_of(type)


def _number_loss(have: ColumnType, want: ColumnType) -> str | None:
    if want.name is TypeName.FLOAT:
        return _float_loss(have)
    scale = _decimals(want)
    if _more(_decimals(have), scale):
        return f"digits behind the point beyond {scale} are parked (or rounded with `round: true`)"
    if _narrower(have, want):
        return "numbers that are too large are parked"
    return None


def _narrower(have: ColumnType, want: ColumnType) -> bool:
    if have.name is TypeName.INTEGER and want.name is TypeName.INTEGER:
        return _more(have.bits, want.bits)
    digits, room = _whole_digits(have), _whole_digits(want)
    if want.name is TypeName.INTEGER and room is not None:
        room -= have.name is not TypeName.CHOICE  # not every number of that many digits fits into the bits
    return _more(digits, room)


def _float_loss(have: ColumnType) -> str | None:
    if have.name in (TypeName.FLOAT, TypeName.BOOLEAN, TypeName.CHOICE):
        return None
    digits = have.precision if have.name is TypeName.NUMERIC else _whole_digits(have)
    return "a float keeps 15 significant digits" if _more(digits, 15) else None


def _time_loss(have: ColumnType, want: ColumnType) -> str | None:
    if have.name is TypeName.DATE:
        return None
    if want.name is TypeName.DATE:
        return "moments with a time of day are parked (or cut with `round: true`)"
    if _more(6 if have.scale is None else have.scale, want.scale):
        return f"parts of a second are rounded to {want.scale} digits"
    return None
