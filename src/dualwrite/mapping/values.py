"""Values that a person wrote in a map, as columns hold them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from dualwrite.casts import CastError, canonical, cast
from dualwrite.model import Value
from dualwrite.schema import Column, ColumnType, TypeName

_DAYS = (TypeName.DATE, TypeName.TIMESTAMP, TypeName.TIMESTAMPTZ)
_AMERICAN = re.compile(r"(\d{1,2})/(\d{1,2})/(\d{4})", re.ASCII)
"""A day as it stands in the value maps of Dual-write: month, day, year."""
_ANY_TEXT = Column("the map's value", ColumnType(TypeName.TEXT))
REMEDIES: Mapping[str, str] = {
    "too_long": "shorten it, or say truncate: true for the column",
    "digits_lost": "round it, or say round: true for the column",
    "time_lost": "take off the time of day, or say round: true for the column",
    "out_of_range": "correct the value, or widen the column",
    "not_a_value": "correct the value, or map it with values:",
    "not_computed": "correct the record's values, or let the expr: take care of them with if(…)",
    "value_not_mapped": "add it to values:, or say with else: what happens to values that are not listed",
}
"""What to do about a CastError, by its code."""


def literal(column: Column, text: str) -> str:
    """A value that a person wrote in a map, as the column holds it; raises CastError where it is none of its values."""
    if not column.choices:
        day = _AMERICAN.fullmatch(text) if column.type.name in _DAYS else None
        return cast(_ANY_TEXT, column)(f"{day[3]}-{day[1]:0>2}-{day[2]:0>2}" if day else text)
    for name, number in column.choices:
        if text in (name, number):
            return text
    folded = [name for name, _ in column.choices if name.casefold() == text.casefold()]
    if len(folded) == 1:
        return folded[0]
    if (truth := _as_truth(column, text)) is not None:
        return truth
    names = ", ".join(name for name, _ in column.choices[:20])
    raise CastError("not_a_value", f"{text!r} is no choice of {column.name} ({names})")


def _as_truth(column: Column, text: str) -> str | None:
    """The choice that a truth value means, where the choices are no and yes, as in Finance & Operations."""
    names = {name.casefold(): name for name, _ in column.choices}
    word = {"t": "yes", "true": "yes", "f": "no", "false": "no"}.get(text.casefold())
    return names[word] if word is not None and names.keys() == {"no", "yes"} else None


def spellings(column: Column, text: str) -> Iterator[str]:
    """The texts by which a value that a person wrote may stand in the column, the likeliest first."""
    yield text
    try:
        meant = literal(column, text)
    except CastError:
        return
    yield meant
    for choice in column.choices:
        if meant in choice:
            yield from choice


def as_written(column: Column, value: Value) -> Value:
    """``literal`` of a value, itself where that fails (``check`` has told)."""
    try:
        return None if value is None else literal(column, value)
    except CastError:
        return value


def sought(column: Column, text: str, operator: str) -> str:
    """A value that a filter looks for; raises CastError where it can never be found."""
    if operator in ("eq", "ne"):
        return literal(column, text) if column.choices else canonical(column.type)(text)
    return text
