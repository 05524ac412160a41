"""The one spelling of each value: PostgreSQL's text output under ISO dates, UTC, hex bytea and full float digits.

What PostgreSQL can hold and Python's calendar cannot (infinity, years before 1 or after 9999) passes as written.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, tzinfo
from decimal import MAX_EMAX, MIN_EMIN, ROUND_HALF_UP, Context, Decimal, DecimalException
from functools import partial
from typing import Final, TypeVar
from uuid import UUID

from dualwrite.model import Value
from dualwrite.schema import ColumnType, TypeName

_T = TypeVar("_T")
NUMBERS: Final = frozenset({TypeName.INTEGER, TypeName.NUMERIC, TypeName.FLOAT})

# PostgreSQL's numeric holds 131072 digits before and 16383 behind the point; ties round away from zero as there.
_WHOLE_DIGITS, _DECIMAL_DIGITS = 131_072, 16_383
_EXACT = Context(prec=_WHOLE_DIGITS + _DECIMAL_DIGITS, rounding=ROUND_HALF_UP, Emax=MAX_EMAX, Emin=MIN_EMIN)
_FLOAT = Context(prec=15, rounding=ROUND_HALF_UP)  # digits that a double surely keeps

_NUMBER = re.compile(r"\s*[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?\s*", re.ASCII | re.IGNORECASE)
_PLAIN = re.compile(r"(?!-0(?:\.0*)?$)(-?(?:0|[1-9]\d*))(?:\.(\d+))?", re.ASCII)
_INTEGER = re.compile(r"0|-?[1-9]\d*", re.ASCII)
_SPECIAL = {
    spelling: value
    for value, spellings in {
        "NaN": ("nan",),
        "Infinity": ("infinity", "+infinity", "inf", "+inf"),
        "-Infinity": ("-infinity", "-inf"),
    }.items()
    for spelling in spellings
}
_TRUTH = dict.fromkeys(("t", "true", "1", "yes", "y", "on"), "t") | dict.fromkeys(
    ("f", "false", "0", "no", "n", "off"), "f"
)
_CLOCK = r"(\d\d?):(\d\d)(?::(\d\d)(?:[.,](\d+))?)?"
_MOMENT = re.compile(
    rf"\s*(\d{{4}})-(\d\d?)-(\d\d?)(?:[T ]\s*{_CLOCK}\s*(Z|[+-]\d\d(?::?\d\d(?::?\d\d)?)?)?)?\s*",
    re.ASCII | re.IGNORECASE,
)
_TIME = re.compile(rf"\s*{_CLOCK}(?:Z|\+00(?::?00)?)?\s*", re.ASCII | re.IGNORECASE)
_BEYOND = re.compile(  # what only PostgreSQL's calendar knows, in its own spelling
    r"-?infinity|(?:\d{5,7}-\d\d-\d\d(?: \d\d:\d\d:\d\d(?:\.\d{1,6})?(?:\+00)?)?"
    r"|\d{4,7}-\d\d-\d\d(?: \d\d:\d\d:\d\d(?:\.\d{1,6})?(?:\+00)?)? BC)",
    re.ASCII,
)
_DAY = (  # every day but 29 February, whose year must be looked at
    r"(?!0000)\d{4}-(?:(?:0[1-9]|1[0-2])-(?:0[1-9]|1\d|2[0-8])|(?:0[13578]|1[02])-(?:29|3[01])|(?:0[469]|11)-(?:29|30))"
)
_CANONICAL_DATE = re.compile(_DAY, re.ASCII)
_CANONICAL_MOMENT = {
    suffix: re.compile(rf"{_DAY} (?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{{0,5}}[1-9])?{re.escape(suffix)}", re.ASCII)
    for suffix in ("", "+00")
}
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_BYTES = re.compile(r"[\\0]x((?:[0-9a-fA-F]{2})*)")


class CastError(ValueError):
    """A value cannot become one of a type.

    ``code`` is stable: ``not_a_value``, ``too_long``, ``out_of_range``, ``digits_lost``, ``time_lost``, and for a
    formula ``not_computed``.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def identity(value: _T) -> _T:
    """The value itself; ``f is identity`` tells callers that they may skip ``f``."""
    return value


def show(text: str) -> str:
    """A value for messages, shortened."""
    return repr(text) if len(text) <= 40 else f"{text[:40]!r}…"


def no_value(text: str, kind: str) -> CastError:
    """The error for a text that spells no value of a kind (a word with its article: ``an integer``)."""
    return CastError("not_a_value", f"{show(text)} is not {kind}")


# numbers


def number(text: str, kind: str = "a number") -> Decimal:
    """The number that a text spells, exactly; ``kind`` is what the error says that it is not."""
    if not _NUMBER.fullmatch(text):
        special = _SPECIAL.get(text.strip().lower())
        if special is None:
            raise no_value(text, kind)
        return Decimal(special)
    try:
        value = Decimal(text.strip())
    except DecimalException:
        raise CastError("out_of_range", f"{show(text)} is beyond all limits") from None
    if not value:
        return Decimal(0)
    if not -_DECIMAL_DIGITS <= value.adjusted() < _WHOLE_DIGITS:
        raise CastError("out_of_range", f"{show(text)} has too many digits")
    return value


def plain(text: str) -> tuple[str, str] | None:
    """The digits before and behind the point of a number in plain spelling; None for any other text.

    The short way for the many values that need no arithmetic.
    """
    match = _PLAIN.fullmatch(text)
    return None if match is None else (match[1], match[2] or "")


def rounded(value: Decimal, scale: int) -> Decimal:
    """The number with that many decimal digits, ties away from zero."""
    return _EXACT.quantize(value, Decimal(1).scaleb(-scale)) if value.is_finite() else value


def denoised(value: Decimal) -> Decimal:
    """The number as a float surely keeps it: fifteen significant digits."""
    return _FLOAT.plus(value)


def spelled(value: Decimal, scale: int | None = None) -> str:
    """A number as text: padded to the scale, never cut; without a scale no trailing zeros, and no ``-0``."""
    if not value.is_finite():
        return "NaN" if value.is_nan() else str(value)
    whole, _, digits = format(value, "f").partition(".")
    digits = digits.rstrip("0").ljust(scale or 0, "0")
    text = f"{whole}.{digits}" if digits else whole
    return text if value else text.removeprefix("-")


def spelled_float(value: float) -> str:
    """A float as PostgreSQL writes it: the shortest digits that give it back."""
    if 1e-4 <= abs(value) < 1e15:
        return repr(value).removesuffix(".0")
    if value == 0:
        return "0"
    exact = Decimal(repr(value))
    if not exact.is_finite():
        return spelled(exact)
    digits = "".join(map(str, exact.as_tuple().digits)).rstrip("0")
    point = "." if len(digits) > 1 else ""
    return f"{'-' if value < 0 else ''}{digits[0]}{point}{digits[1:]}e{exact.adjusted():+03d}"


def scale_of(type: ColumnType) -> int | None:
    """The decimal digits of a numeric type: ``numeric(10)`` has none, ``numeric`` any number."""
    return 0 if type.scale is None and type.precision is not None else type.scale


def _integer(text: str) -> str:
    if _INTEGER.fullmatch(text):
        return text
    value = number(text, "an integer")
    if not value.is_finite() or value != value.to_integral_value():
        raise no_value(text, "an integer")
    return spelled(value)


def _numeric(scale: int | None, text: str) -> str:
    parts = plain(text)
    if parts is not None and (parts[1][-1:] != "0" if scale is None else len(parts[1]) == scale):
        return text
    return spelled(number(text), scale)


def _float(text: str) -> str:
    exact = number(text)
    value = float(exact)
    if exact.is_finite() and value in (float("inf"), float("-inf")):
        raise CastError("out_of_range", f"{show(text)} is beyond what a float holds")
    return spelled_float(value)


def _boolean(text: str) -> str:
    value = _TRUTH.get(text) or _TRUTH.get(text.strip().lower())
    if value is None:
        raise no_value(text, "true or false")
    return value


# dates and times


def spelled_moment(moment: datetime) -> str:
    """A naive moment as text, without trailing zeros in the fraction."""
    text = moment.isoformat(" ")
    return text.rstrip("0") if moment.microsecond else text


def clipped(moment: datetime, scale: int) -> datetime:
    """The moment with that many digits of a second, rounded."""
    unit: int = 10 ** (6 - min(scale, 6))
    micros = (moment.microsecond + unit // 2) // unit * unit
    return moment.replace(microsecond=0) + timedelta(microseconds=micros)


def _fraction(digits: str | None) -> timedelta:
    if not digits:
        return timedelta()
    return timedelta(microseconds=int(digits[:6].ljust(6, "0")) + (digits[6:7] >= "5"))


def _offset(zone: str | None) -> timedelta:
    if not zone or zone in "Zz":
        return timedelta()
    digits = zone[1:].replace(":", "").ljust(6, "0")
    size = timedelta(hours=int(digits[:2]), minutes=int(digits[2:4]), seconds=int(digits[4:]))
    return -size if zone[0] == "-" else size


def _parsed(text: str, kind: str) -> tuple[datetime, timedelta]:
    """What a text says of a moment, as written, and its offset from UTC."""
    match = _MOMENT.fullmatch(text)
    if match is None:
        raise no_value(text, kind)
    *parts, digits, zone = match.groups()
    try:
        return datetime(*(int(part or 0) for part in parts)) + _fraction(digits), _offset(zone)  # type: ignore[arg-type]
    except ValueError:
        raise no_value(text, kind) from None
    except OverflowError:
        raise CastError("out_of_range", f"{show(text)} is beyond the year 9999") from None


def _date(text: str) -> str:
    if _CANONICAL_DATE.fullmatch(text):
        return text
    if _BEYOND.fullmatch(text) and ":" not in text:
        return text
    moment, _ = _parsed(text, "a date")
    if moment.time() != datetime.min.time():
        raise CastError("time_lost", f"{show(text)} has a time of day, a date has none")
    return moment.date().isoformat()


def _timestamp(suffix: str, text: str) -> str:
    if _CANONICAL_MOMENT[suffix].fullmatch(text) or _BEYOND.fullmatch(text):
        return text
    moment, offset = _parsed(text, "a timestamp")
    try:
        return spelled_moment(moment - offset) + suffix
    except OverflowError:
        raise CastError("out_of_range", f"{show(text)} is beyond the calendar in UTC") from None


def _time(text: str) -> str:
    match = _TIME.fullmatch(text)
    if match is None:
        raise no_value(text, "a time of day")
    hours, minutes, seconds, digits = match.groups()
    if (int(hours), int(minutes), int(seconds or 0), int(digits or 0)) == (24, 0, 0, 0):
        return "24:00:00"
    try:
        moment = datetime(2000, 1, 1, int(hours), int(minutes), int(seconds or 0)) + _fraction(digits)
    except ValueError:
        raise no_value(text, "a time of day") from None
    return spelled_moment(moment)[11:] if moment.day == 1 else "24:00:00"


# the rest


def _uuid(text: str) -> str:
    if _UUID.fullmatch(text):
        return text
    try:
        return str(UUID(text.strip()))
    except ValueError:
        raise no_value(text, "a uuid") from None


def _bytes(text: str) -> str:
    match = _BYTES.fullmatch(text)
    if match is None:
        raise no_value(text, r"bytes in hexadecimal digits (\x00ff)")
    return rf"\x{match[1].lower()}"


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is no JSON")


def _parsed_json(text: str) -> object:
    try:
        return json.loads(text, parse_int=number, parse_float=number, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise no_value(text, "JSON") from None


def _json(text: str) -> str:
    _parsed_json(text)
    return text


def spelled_json(text: str) -> str:
    """One spelling for all JSON texts of one value: sorted members, no blanks, plain numbers."""
    return _written(_parsed_json(text))


def _written(value: object) -> str:
    match value:
        case Decimal():
            return spelled(value)
        case dict():
            members = ",".join(f"{json.dumps(name)}:{_written(value[name])}" for name in sorted(value))
            return f"{{{members}}}"
        case list():
            return f"[{','.join(map(_written, value))}]"
        case _:
            return json.dumps(value)


_CANONICAL: Final[dict[TypeName, Callable[[str], str]]] = {
    TypeName.INTEGER: _integer,
    TypeName.FLOAT: _float,
    TypeName.BOOLEAN: _boolean,
    TypeName.DATE: _date,
    TypeName.TIME: _time,
    TypeName.TIMESTAMP: partial(_timestamp, ""),
    TypeName.TIMESTAMPTZ: partial(_timestamp, "+00"),
    TypeName.UUID: _uuid,
    TypeName.BYTES: _bytes,
    TypeName.JSON: _json,
}


def canonical(type: ColumnType) -> Callable[[str], str]:
    """A function from any reasonable spelling of a value of the type to the canonical one; it raises CastError.

    It judges the spelling, not the limits: a longer text or more digits than declared come back whole.  Moments
    without an offset count as UTC; those with one become UTC, also where the type has no time zone.
    """
    if type.name is TypeName.NUMERIC:
        return partial(_numeric, scale_of(type))
    return _CANONICAL.get(type.name, identity)


def local(text: str, zone: tzinfo) -> datetime:
    """A canonical date or moment as a naive datetime; one with a time zone as the clocks of ``zone`` show it."""
    try:
        moment = datetime.fromisoformat(text)
        return moment if moment.tzinfo is None else moment.astimezone(zone).replace(tzinfo=None)
    except (ValueError, OverflowError):
        raise CastError("out_of_range", f"{show(text)} is beyond the years 1 to 9999") from None


def utc(moment: datetime, zone: tzinfo) -> datetime:
    """What the clocks of ``zone`` show, as a naive datetime in UTC."""
    try:
        return moment.replace(tzinfo=zone).astimezone(UTC).replace(tzinfo=None)
    except OverflowError:
        raise CastError("out_of_range", f"{moment} is beyond the calendar in UTC") from None


# order and sums


def kind_of(type: ColumnType) -> str:
    """How values of a type order and add: ``number`` or ``text``."""
    return "number" if type.name in NUMBERS else "text"


def order_key(kind: str) -> Callable[[str], Decimal | str]:
    """A sort key for canonical values of a kind; it never fails: what is no number comes first, NaN last."""
    return _number_key if kind == "number" else identity


def _number_key(text: str) -> Decimal:
    try:
        value = Decimal(text)
    except DecimalException:
        return Decimal("-Infinity")
    return Decimal("Infinity") if value.is_nan() else value


def add(a: Value, b: Value, minus: Value, type: ColumnType) -> str:
    """``a + b - minus``, null counting as 0, exact and canonical in the type; raises CastError beyond its limits."""
    first, second, third = (Decimal(0) if value is None else number(value) for value in (a, b, minus))
    if not (first.is_finite() and second.is_finite() and third.is_finite()):
        raise CastError("out_of_range", "infinity and NaN do not add")
    total = _EXACT.subtract(_EXACT.add(first, second), third)
    check_range(total, type)
    if type.name is TypeName.FLOAT:
        return _float(str(total))
    return spelled(total, scale_of(type))


def check_range(value: Decimal, type: ColumnType) -> None:
    """Raise CastError where a number is too large for the type's bits or precision."""
    fits = value.is_nan() or not value
    if type.name is TypeName.INTEGER and type.bits is not None:
        fits = fits or -(2 ** (type.bits - 1)) <= value < 2 ** (type.bits - 1)
    elif type.name is TypeName.NUMERIC and type.precision is not None:
        fits = fits or (value.is_finite() and value.adjusted() < type.precision - (type.scale or 0))
    else:
        return
    if not fits:
        kind = str(type) if type.bits is None else f"an integer of {type.bits} bits"
        raise CastError("out_of_range", f"{show(spelled(value))} is too large for {kind}")
