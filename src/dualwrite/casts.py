"""From one column's type to another's: the cast, what it can lose, and the form in which both sides compare.

Casts are functions over canonical text (see ``canonical``), never called with null.  What would lose data raises
CastError; what is harmless (float noise, parts of a second) rounds silently.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, tzinfo
from decimal import Decimal
from functools import partial
from typing import Final
from zoneinfo import ZoneInfo

from dualwrite.canonical import (
    NUMBERS,
    CastError,
    add,
    canonical,
    check_range,
    clipped,
    denoised,
    identity,
    kind_of,
    local,
    no_value,
    number,
    order_key,
    plain,
    rounded,
    scale_of,
    show,
    spelled,
    spelled_json,
    spelled_moment,
    utc,
)
from dualwrite.losses import DATED, PLAIN, incompatible, loses
from dualwrite.model import Value
from dualwrite.schema import Column, ColumnType, TypeName

__all__ = [
    "CastError",
    "add",
    "canonical",
    "cast",
    "choice_numbers",
    "common_form",
    "identity",
    "incompatible",
    "kind_of",
    "loses",
    "order_key",
]

Text = Callable[[str], str]

_INFINITE: Final = frozenset({"infinity", "-infinity"})
_ZONED = re.compile(r".*:.*(?:Z|[+-]\d\d(?::?\d\d){0,2})\s*", re.ASCII | re.IGNORECASE)
_BOOLEAN = canonical(ColumnType(TypeName.BOOLEAN))
_TIMESTAMP = canonical(ColumnType(TypeName.TIMESTAMP))
_TIMESTAMPTZ = canonical(ColumnType(TypeName.TIMESTAMPTZ))


def cast(
    source: Column, target: Column, *, truncate: bool = False, round_: bool = False, timezone: str = "UTC"
) -> Text:
    """The function from the source's canonical text to the target's; ``identity`` where there is nothing to do.

    ``truncate`` cuts text that is too long, ``round_`` drops digits and, into a date, the time of day.  ``timezone``
    says what moments without a time zone mean.  Any other loss raises CastError.
    """
    if (sentence := incompatible(source, target)) is not None:
        return partial(_refuse, sentence)
    if _nothing_to_do(source, target):
        return identity
    match target.type.name:
        case TypeName.TEXT | TypeName.OTHER:
            return _to_text(source, target, truncate)
        case TypeName.INTEGER | TypeName.NUMERIC | TypeName.FLOAT:
            return _to_number(source, target, round_)
        case TypeName.BOOLEAN:
            return _to_boolean(source)
        case TypeName.CHOICE:
            return _to_choice(source, target)
        case TypeName.DATE | TypeName.TIMESTAMP | TypeName.TIMESTAMPTZ:
            return _to_moment(source.type.name, target.type, round_, _zone(timezone))
        case TypeName.TIME:
            return partial(_to_time, target.type.scale)
        case TypeName.BYTES:
            return partial(_to_bytes, target.type.length)
        case _:
            return canonical(target.type)


def _refuse(sentence: str, text: str) -> str:
    raise CastError("not_a_value", f"{show(text)}: {sentence}")


def _within(inner: int | None, outer: int | None) -> bool:
    return outer is None or (inner is not None and inner <= outer)


def _nothing_to_do(source: Column, target: Column) -> bool:
    """Is every canonical text of the source one of the target?"""
    have, want = source.type, target.type
    if TypeName.CHOICE in (have.name, want.name):
        return _same_choice(source, target)
    if have == want:
        return True
    if have.name is not want.name:
        free = want.name in PLAIN and want.length is None and have.name is not TypeName.BOOLEAN
        return free or (have.name is TypeName.INTEGER and want == ColumnType(TypeName.NUMERIC))
    match want.name:
        case TypeName.TEXT | TypeName.OTHER | TypeName.BYTES:
            return _within(have.length, want.length)
        case TypeName.INTEGER:
            return _within(have.bits, want.bits)
        case TypeName.NUMERIC:
            return scale_of(have) == scale_of(want) and _within(have.precision, want.precision)
        case TypeName.TIME | TypeName.TIMESTAMP | TypeName.TIMESTAMPTZ:
            return _within(have.scale, want.scale)
        case _:
            return True


def _same_choice(source: Column, target: Column) -> bool:
    if target.type.name in PLAIN:
        return target.type.length is None
    wordless = source.type.name in PLAIN | {TypeName.CHOICE} and target.type.name is TypeName.CHOICE
    return wordless and (source.choices == target.choices or not choice_numbers(source, target))


# into text


def _to_text(source: Column, target: Column, truncate: bool) -> Text:
    limit = target.type.length
    words = {"t": "true", "f": "false"} if source.type.name is TypeName.BOOLEAN else {}
    cuttable = truncate and source.type.name in PLAIN | {TypeName.CHOICE, TypeName.JSON}

    def convert(text: str) -> str:
        text = words.get(text, text)
        if limit is None or len(text) <= limit:
            return text
        if cuttable or not text[limit:].strip(" "):  # SQL lets blanks beyond the length go, too
            return text[:limit]
        raise CastError("too_long", f"{show(text)} has {len(text)} characters, {target.name} takes {limit}")

    return convert


# into numbers, choices and booleans


def choice_numbers(*columns: Column) -> Mapping[str, str]:
    """Choice name → number, the first column's list first; names also in folded case."""
    numbers: dict[str, str] = {}
    for column in columns:
        for name, value in column.choices:
            numbers.setdefault(name, value)
            numbers.setdefault(name.casefold(), value)
    return numbers


def _chosen(numbers: Mapping[str, str], text: str) -> str:
    return numbers.get(text) or numbers.get(text.casefold(), text)


def _reader(source: Column, target: Column) -> Callable[[str], Decimal]:
    """The number that a value of the source stands for."""
    boolean = source.type.name is TypeName.BOOLEAN
    numbers = {"t": "1", "f": "0"} if boolean else choice_numbers(source, target)
    if numbers:
        return lambda text: number(_chosen(numbers, text))
    return number


def _to_number(source: Column, target: Column, round_: bool) -> Text:
    read, kind = _reader(source, target), target.type
    if kind.name is TypeName.FLOAT:
        write = canonical(kind)
        return lambda text: write(str(read(text)))
    scale = 0 if kind.name is TypeName.INTEGER else scale_of(kind)
    noisy = source.type.name is TypeName.FLOAT
    room = _room(source, kind)

    def convert(text: str) -> str:
        if room and (parts := plain(text)) is not None and len(parts[0]) <= room and len(parts[1]) <= (scale or 0):
            return f"{parts[0]}.{parts[1].ljust(scale, '0')}" if scale else parts[0]
        value = read(text)
        if not value.is_finite() and kind.name is TypeName.INTEGER:
            raise no_value(text, "an integer")
        if scale is not None and value.is_finite():
            value = _fitted(value, scale, noisy, round_, target)
        check_range(value, kind)
        return spelled(value, scale)

    return convert


def _room(source: Column, kind: ColumnType) -> int:
    """How many characters before the point surely fit, so that a value needs no arithmetic; 0 where all need it."""
    if source.type.name not in (TypeName.INTEGER, TypeName.NUMERIC):
        return 0
    if kind.name is TypeName.INTEGER:
        return 1_000_000 if kind.bits is None else {16: 4, 32: 9, 64: 18}.get(kind.bits, 0)
    return 0 if kind.precision is None else kind.precision - (kind.scale or 0)


def _fitted(value: Decimal, scale: int, noisy: bool, round_: bool, target: Column) -> Decimal:
    fitted = rounded(value, scale)
    if fitted != value and noisy:
        value = denoised(value)
        fitted = rounded(value, scale)
    if fitted != value and not round_:
        raise CastError(
            "digits_lost", f"{show(spelled(value))} has more than the {scale} decimal digits of {target.name}"
        )
    return fitted


def _to_boolean(source: Column) -> Text:
    numbers = choice_numbers(source)

    def convert(text: str) -> str:
        if source.type.name in NUMBERS:
            return _BOOLEAN(spelled(number(text)))
        try:
            return _BOOLEAN(text)
        except CastError:
            return _BOOLEAN(_chosen(numbers, text)) if numbers else _BOOLEAN(text)

    return convert


def _to_choice(source: Column, target: Column) -> Text:
    numbers = choice_numbers(target, source)
    known = frozenset(numbers.values())
    kind = source.type.name

    def convert(text: str) -> str:
        if kind is TypeName.BOOLEAN:
            return "1" if text == "t" else "0"
        if kind in NUMBERS:
            return spelled(number(text))
        return text if text in known else _chosen(numbers, text)

    return convert


# into dates and times


def _zone(name: str) -> tzinfo:
    return UTC if name.upper() == "UTC" else ZoneInfo(name)


def _to_moment(source: TypeName, target: ColumnType, round_: bool, zone: tzinfo) -> Text:
    if source in DATED:
        slow = partial(_moment, source, target, round_, zone)
        return _relabelled(source, target, slow) if zone is UTC and target.scale is None else slow

    def convert(text: str) -> str:
        if _ZONED.fullmatch(text):
            return _moment(TypeName.TIMESTAMPTZ, target, round_, zone, _TIMESTAMPTZ(text))
        return _moment(TypeName.TIMESTAMP, target, round_, zone, _TIMESTAMP(text))

    return convert


def _relabelled(source: TypeName, target: ColumnType, slow: Text) -> Text:
    """Between moments with and without a time zone in UTC only the ending differs."""
    if (source, target.name) == (TypeName.TIMESTAMP, TypeName.TIMESTAMPTZ):
        return lambda text: f"{text}+00" if text[-1:].isdigit() else slow(text)
    if (source, target.name) == (TypeName.TIMESTAMPTZ, TypeName.TIMESTAMP):
        return lambda text: text[:-3] if text.endswith("+00") else slow(text)
    return slow


def _moment(source: TypeName, target: ColumnType, round_: bool, zone: tzinfo, text: str) -> str:
    if text in _INFINITE:
        return text
    zoned = target.name is TypeName.TIMESTAMPTZ
    same = source is target.name  # no detour over the zone: it has an hour twice a year
    moment = local(text, UTC if same else zone)
    if zoned and not same:
        moment = utc(moment, zone)
    if target.name is TypeName.DATE:
        if not round_ and moment.time() != datetime.min.time():
            raise CastError("time_lost", f"{show(text)} has a time of day, a date has none")
        return moment.date().isoformat()
    if target.scale is not None:
        moment = _clipped(moment, target.scale)
    return f"{spelled_moment(moment)}+00" if zoned else spelled_moment(moment)


def _clipped(moment: datetime, scale: int) -> datetime:
    try:
        return clipped(moment, scale)
    except OverflowError:
        raise CastError("out_of_range", f"{moment} rounds beyond the year 9999") from None


def _to_time(scale: int | None, text: str) -> str:
    time = canonical(ColumnType(TypeName.TIME))(text)
    if scale is None or "." not in time:
        return time
    moment = clipped(datetime.fromisoformat(f"2000-01-01 {time}"), scale)
    return spelled_moment(moment)[11:] if moment.day == 1 else "24:00:00"


def _to_bytes(limit: int | None, text: str) -> str:
    hexed = canonical(ColumnType(TypeName.BYTES))(text)
    size = len(hexed) // 2 - 1
    if limit is not None and size > limit:
        raise CastError("too_long", f"{size} bytes do not fit into {limit}")
    return hexed


# the form in which both sides compare


def common_form(column: Column, other: Column, *, timezone: str = "UTC") -> Callable[[Value], Value]:
    """The function from a value of ``column`` to the coarser form of the pair; equal results mean agreement.

    Coarser is: the smaller scale, fewer digits of a second, the date of a moment, fifteen digits where a float takes
    part, null for empty, and no letter case or trailing blanks, where one of the two is so.  ``identity`` where both
    are alike.  It never fails: what is no value of the type compares as written.
    """
    meeting = _meeting(column, other)
    spell = _common_spelling(column, other, meeting, timezone)
    text = meeting in PLAIN or meeting is TypeName.CHOICE
    blanks = text and (column.ignore_trailing_blanks or other.ignore_trailing_blanks)
    fold = text and (column.ignore_case or other.ignore_case)
    empty = column.empty_is_null or other.empty_is_null
    if spell is identity and not (blanks or fold or empty):
        return identity

    def form(value: Value) -> Value:
        if value is None:
            return None
        if blanks:
            value = value.rstrip(" ")
        if empty and not value:
            return None
        value = spell(value)
        return value.casefold() if fold else value

    return form


def _meeting(column: Column, other: Column) -> TypeName:
    """The type in which the two compare."""
    mine, theirs = column.type.name, other.type.name
    kinds = {mine, theirs}
    if len(kinds) == 1:
        return mine
    if incompatible(column, other):
        return TypeName.OTHER
    if kinds & PLAIN:
        return next(iter(kinds - PLAIN), TypeName.TEXT)
    if kinds <= DATED:
        return TypeName.DATE if TypeName.DATE in kinds else TypeName.TIMESTAMP
    if kinds == {TypeName.BOOLEAN, TypeName.CHOICE}:
        return TypeName.BOOLEAN
    return TypeName.FLOAT if TypeName.FLOAT in kinds else TypeName.NUMERIC


def _common_spelling(column: Column, other: Column, meeting: TypeName, timezone: str) -> Text:
    match meeting:
        case TypeName.INTEGER | TypeName.NUMERIC | TypeName.FLOAT:
            return _common_number(column, other, meeting)
        case TypeName.DATE | TypeName.TIMESTAMP | TypeName.TIMESTAMPTZ | TypeName.TIME:
            return _common_moment(column, other, meeting, timezone)
        case TypeName.BOOLEAN:
            return identity if column.type.name is TypeName.BOOLEAN else _or_itself(_to_boolean(column))
        case TypeName.CHOICE:
            numbers = choice_numbers(column, other)
            return partial(_chosen, numbers) if numbers else identity
        case TypeName.JSON:
            return _or_itself(spelled_json)
        case TypeName.UUID | TypeName.BYTES if column.type.name is not meeting:
            return _or_itself(canonical(ColumnType(meeting)))
        case _:
            return identity


def _or_itself(convert: Text) -> Text:
    def form(text: str) -> str:
        try:
            return convert(text)
        except CastError:
            return text

    return form


def _scale(column: Column) -> int | None:
    return 0 if column.type.name is TypeName.INTEGER else scale_of(column.type)


def _coarser(scales: Iterable[int | None]) -> int | None:
    return min((scale for scale in scales if scale is not None), default=None)


def _common_number(column: Column, other: Column, meeting: TypeName) -> Text:
    scale = _coarser(_scale(each) for each in (column, other) if each.type.name in NUMBERS)
    alike = column.type.name is other.type.name and _scale(column) == _scale(other)
    if alike and scale is not None and meeting is not TypeName.FLOAT:
        return identity
    read, noisy = _reader(column, other), meeting is TypeName.FLOAT

    def form(text: str) -> str:
        if scale is not None and not noisy and (parts := plain(text)) is not None:
            digits = parts[1].rstrip("0")
            if len(digits) <= scale:
                return f"{parts[0]}.{digits}" if digits else parts[0]
        value = read(text)
        if noisy and value.is_finite():
            value = denoised(value)
        return spelled(value if scale is None else rounded(value, scale))

    return _or_itself(form)


def _common_moment(column: Column, other: Column, meeting: TypeName, timezone: str) -> Text:
    have, scale = column.type, _coarser((column.type.scale, other.type.scale))
    if have.name is meeting and (scale is None or have.scale == scale):
        return identity
    if meeting is TypeName.TIME:
        return _or_itself(partial(_to_time, scale))
    return _or_itself(_to_moment(have.name, ColumnType(meeting, scale=scale), True, _zone(timezone)))
