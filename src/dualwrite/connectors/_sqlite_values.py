"""Between what SQLite stores and canonical text.

SQLite lets any column hold anything.  A stored value that is no value of its column's declared type passes as its
plain text, so that nothing is lost on the way; what a column could not give back as it was written is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias
from uuid import UUID

from dualwrite.canonical import CastError, canonical, number, scale_of, show, spelled, spelled_float
from dualwrite.model import ABSENT, Row
from dualwrite.schema import Column, ColumnType, TypeName

Storage: TypeAlias = int | float | str | bytes | None
Decode: TypeAlias = Callable[[Any], str]
"""From a stored value other than null to canonical text."""
Encode: TypeAlias = Callable[[str], Storage]
"""From canonical text to what is bound; raises CastError."""

_NUMBER = re.compile(r"\s*[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?\s*", re.ASCII)
_SURE_DIGITS = 15  # a double surely keeps them
_TEXTUAL = frozenset({TypeName.TEXT, TypeName.OTHER, TypeName.CHOICE, TypeName.JSON})
_NUMERIC = frozenset({TypeName.INTEGER, TypeName.NUMERIC, TypeName.FLOAT})
_TRUTHS = (("1", "0"), ("true", "false"), ("True", "False"), ("TRUE", "FALSE"), ("t", "f"), ("T", "F"), ("yes", "no"),
           ("Yes", "No"), ("YES", "NO"), ("y", "n"), ("Y", "N"))  # fmt: skip


# -- from storage to text --------------------------------------------------------------------------------------------


def plain(value: Storage) -> str:
    """A stored value as text, whatever its column says."""
    if isinstance(value, float):
        return spelled_float(value)
    return rf"\x{value.hex()}" if isinstance(value, bytes) else str(value)


def decoder(column: Column) -> Decode:
    """The function that turns a column's stored values into canonical text."""
    name = column.type.name
    if name in _TEXTUAL or name is TypeName.BYTES:
        return plain
    if name is TypeName.UUID:
        return _uuid
    if name is TypeName.BOOLEAN:
        return _truth
    if name is TypeName.NUMERIC:
        return _decimal(scale_of(column.type))
    return _by_spelling(canonical(column.type))


def _by_spelling(spell: Callable[[str], str]) -> Decode:
    def decode(value: Storage) -> str:
        text = plain(value)
        if isinstance(value, bytes):
            return text
        try:
            return spell(text)
        except CastError:
            return text

    return decode


def _uuid(value: Storage) -> str:
    if isinstance(value, bytes) and len(value) == 16:
        return str(UUID(bytes=value))
    return _by_spelling(canonical(ColumnType(TypeName.UUID)))(value)


def _truth(value: Storage) -> str:
    if value in (0, 1):
        return "t" if value else "f"
    text = plain(value)
    lowered = text.strip().lower()
    for true, false in _TRUTHS:
        if lowered in (true, false):
            return "t" if lowered == true else "f"
    return text


def _decimal(scale: int | None) -> Decode:
    zeros = f".{'0' * scale}" if scale else ""
    spelling = f"%.{scale or 0}f"

    def decode(value: Storage) -> str:
        if isinstance(value, float) and scale is not None:
            text = spelling % value
            if float(text) == value != 0.0:  # nearly always
                return text
            if float(text) == float(f"{value:.15g}"):  # what differs behind the fifteenth digit is noise of the float
                return text if float(text) else text.removeprefix("-")
        if isinstance(value, int):
            return f"{value}{zeros}"
        if isinstance(value, bytes):
            return plain(value)
        try:
            return spelled(number(repr(value) if isinstance(value, float) else str(value)), scale)
        except CastError:
            return plain(value)

    return decode


# -- from text to storage --------------------------------------------------------------------------------------------


def encoder(column: Column, affinity: str, sample: Storage = None) -> Encode:
    """The function that turns canonical text into what the column stores, in the manner of the ``sample`` it holds."""
    name = column.type.name
    if name is TypeName.BOOLEAN:
        return _truth_writer(affinity, sample)
    if name is TypeName.BYTES:
        return _bytes
    if name is TypeName.UUID and isinstance(sample, bytes):
        return _uuid_bytes
    if name is TypeName.TIMESTAMPTZ:
        return _like(sample, lambda text: f"{text}:00" if text.endswith("+00") else text)
    if name in (TypeName.TIMESTAMP, TypeName.DATE):
        return _like(sample, str)
    is_text = affinity == "TEXT" or (affinity == "BLOB" and not isinstance(sample, int | float))
    if column.choices:
        return _choice_writer(column, sample, is_text=is_text)
    if is_text:
        return str
    return exact_number if name in _NUMERIC else _text_among_numbers


def _choice_writer(column: Column, sample: Storage, *, is_text: bool) -> Encode:
    """Choices by number where the column holds numbers, by name where it holds names, else as they come."""
    numbers = dict(column.choices)
    if not is_text:
        return lambda text: _text_among_numbers(numbers.get(text, text))
    if sample in numbers:
        names = {number: name for name, number in column.choices}
        return lambda text: names.get(text, text)
    return (lambda text: numbers.get(text, text)) if sample in numbers.values() else str


def _truth_writer(affinity: str, sample: Storage) -> Encode:
    pairs: Mapping[str, Storage] = {"t": 1, "f": 0}
    if isinstance(sample, str):
        pairs = next(({"t": true, "f": false} for true, false in _TRUTHS if sample in (true, false)), pairs)
    elif sample is None and affinity == "TEXT":
        pairs = {"t": "t", "f": "f"}
    return _Spellings(pairs).__getitem__


class _Spellings(dict[str, Storage]):
    """What is not listed is spelled as it is."""

    def __missing__(self, text: str) -> Storage:
        return text


def _uuid_bytes(text: str) -> Storage:
    try:
        return UUID(text).bytes
    except ValueError:
        return text


def _bytes(text: str) -> Storage:
    try:
        return bytes.fromhex(text[2:]) if text.startswith("\\x") else text
    except ValueError:
        return text


def _like(sample: Storage, spell: Callable[[str], str]) -> Encode:
    """Moments with a T in the middle where the column has them so."""
    if isinstance(sample, str) and sample[10:11] == "T":
        zulu = sample.endswith("Z")
        return lambda text: spell(text).replace(" ", "T", 1).replace("+00:00", "Z" if zulu else "+00:00")
    return spell


def exact_number(text: str) -> Storage:
    """A number as SQLite stores it without losing a digit."""
    if len(text) <= _SURE_DIGITS and "e" not in text and "E" not in text:
        return text  # the column's affinity does it, without losing anything
    try:
        value = number(text)
    except CastError:
        return text
    if not value.is_finite():
        return text
    if value == value.to_integral_value() and -(2**63) <= value < 2**63:
        return int(value)
    if number(repr(float(value))) != value:
        raise CastError("digits_lost", f"{show(text)} has more digits than an SQLite number keeps")
    return float(value)


def _text_among_numbers(text: str) -> Storage:
    """Text for a column that makes numbers of what looks like one."""
    if not _NUMBER.fullmatch(text):
        return text
    value = exact_number(text)
    kept = value if not isinstance(value, str) else int(value) if value.lstrip("+-").isdigit() else float(value)
    if plain(kept) != text:
        raise CastError("digits_lost", f"{show(text)} would be stored as the number {plain(kept)} by the column's type")
    return value


# -- rows ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Source:
    """Where a cell comes from: the index in the raw row, its column, and the index of the flag of a dangling lookup."""

    index: int
    column: Column
    flag: int | None = None


@lru_cache(maxsize=1024)
def row_maker(sources: tuple[Source | None, ...], width: int) -> Callable[[Sequence[tuple[Any, ...]]], list[Row]]:
    """A function from raw rows of that width to rows; generated, because it runs for every row that is read.

    A cell without a source is ABSENT.
    """
    scope = _scope(sources)
    cells = ["A" if source is None else _sourced(source, place, "v") for place, source in enumerate(sources)]
    exec(f"def make(block):\n    return [{_tuple(cells)} for {_pattern(sources, width, 'v')} in block]", scope)
    make: Callable[[Sequence[tuple[Any, ...]]], list[Row]] = scope["make"]
    return make


@lru_cache(maxsize=1024)
def pair_maker(
    sources: tuple[Source | None, ...], width: int
) -> Callable[[tuple[Any, ...], tuple[Any, ...]], tuple[Row, Row]]:
    """As ``row_maker``, for the two images of an update: what is stored alike in both becomes text once."""
    scope = _scope(sources)
    lines = [f"{_pattern(sources, width, 'o')} = old", f"{_pattern(sources, width, 'n')} = new"]
    for place, source in enumerate(sources):
        if source is not None:
            old, new = f"o{source.index}", f"n{source.index}"
            alike = f"{old} == {new} and {old}.__class__ is {new}.__class__"
            alike += f" and o{source.flag} == n{source.flag}" if source.flag is not None else ""
            lines.append(f"a{place} = {_sourced(source, place, 'n')}")
            lines.append(f"b{place} = a{place} if {alike} else {_sourced(source, place, 'o')}")
    rows = [
        _tuple(["A" if source is None else f"{name}{place}" for place, source in enumerate(sources)]) for name in "ba"
    ]
    exec("\n    ".join(["def make(old, new):", *lines, f"return {', '.join(rows)}"]), scope)
    make: Callable[[tuple[Any, ...], tuple[Any, ...]], tuple[Row, Row]] = scope["make"]
    return make


def _scope(sources: Sequence[Source | None]) -> dict[str, Any]:
    """The objects that generated functions name."""
    scope: dict[str, Any] = {"S": str, "I": int, "F": float, "A": ABSENT, "P": plain}
    return scope | {f"d{place}": decoder(source.column) for place, source in enumerate(sources) if source is not None}


def _pattern(sources: Sequence[Source | None], width: int, name: str) -> str:
    """What unpacks a raw row into variables."""
    used = {index for source in sources if source for index in (source.index, source.flag)}
    return f"[{', '.join(f'{name}{i}' if i in used else '_' for i in range(width))}]"


def _tuple(cells: Sequence[str]) -> str:
    return f"({''.join(f'{cell}, ' for cell in cells)})"


def _sourced(source: Source, place: int, name: str) -> str:
    """The expression of a cell over the variables of a raw row."""
    cell = f"({_cell(f'{name}{source.index}', f'd{place}', source.column)})"
    return cell if source.flag is None else f"A if {name}{source.flag} else {cell}"


@lru_cache(maxsize=1024)
def storage_maker(
    targets: tuple[tuple[int, Encode | None, Storage], ...], width: int
) -> Callable[[Sequence[Row]], list[tuple[Storage, ...]]]:
    """A function from rows of that width to stored values: of each target the cell, how it is stored (None: as it is),
    and what null is stored as; generated as ``row_maker`` is.

    Raises CastError for a value that cannot be stored.  A cell that is ABSENT stays so, which SQLite refuses to bind.
    """
    scope: dict[str, Any] = {"S": str}
    cells = []
    for place, (index, encode, null) in enumerate(targets):
        scope[f"e{place}"], scope[f"n{place}"] = encode, null
        value, sure = f"v{index}", f"e{place}(v{index})"
        if encode is exact_number:  # as it begins
            sure = (
                f"{value} if len({value}) <= {_SURE_DIGITS} and 'e' not in {value} and 'E' not in {value} else {sure}"
            )
        known = f"({sure}) if {value}.__class__ is S else n{place} if {value} is None else {value}"
        cells.append(value if encode is None else known)
    used = {index for index, _, _ in targets}
    pattern = "".join(f"v{i}, " if i in used else "_, " for i in range(width))
    exec(f"def make(rows):\n    return [({''.join(f'{c}, ' for c in cells)}) for {pattern} in rows]", scope)
    make: Callable[[Sequence[Row]], list[tuple[Storage, ...]]] = scope["make"]
    return make


def _cell(value: str, decode: str, column: Column) -> str:
    name = column.type.name
    if name in _TEXTUAL:
        return f"{value} if {value} is None or {value}.__class__ is S else P({value})"
    if name is TypeName.INTEGER:
        return f"None if {value} is None else S({value}) if {value}.__class__ is I else {decode}({value})"
    if name is TypeName.NUMERIC and (scale := scale_of(column.type)) is not None:  # as its decoder, for most values
        spelled = f"t if {value}.__class__ is F and F(t := '%.{scale}f' % {value}) == {value} != 0.0"
        return f"None if {value} is None else {spelled} else {decode}({value})"
    return f"None if {value} is None else {decode}({value})"
