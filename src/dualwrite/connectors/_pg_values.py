"""Text that carries many values to PostgreSQL at once: array literals, and lines for COPY."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from dualwrite.model import Value

_COPY: Final = str.maketrans({"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"})


class BadTextError(ValueError):
    """A text holds what no text of PostgreSQL can: a zero character, or half of a surrogate pair."""


def is_storable(values: Sequence[Value]) -> bool:
    """Can PostgreSQL hold these texts?"""
    try:
        _checked("".join([value for value in values if value]))
    except BadTextError:
        return False
    return True


def encoded(text: str) -> bytes:
    """The bytes of a text; raises BadTextError for half of a surrogate pair."""
    try:
        return text.encode()
    except UnicodeEncodeError as exc:
        raise BadTextError(str(exc)) from None


def _checked(text: str) -> bytes:
    found = encoded(text)
    if b"\0" in found:
        raise BadTextError("a zero character")
    return found


def array(values: Sequence[Value]) -> str:
    """The literal of a one-dimensional array of these values; raises BadTextError."""
    if not values:
        return "{}"
    try:
        joined = '","'.join(values)  # type: ignore[arg-type]  # it fails where there is a None
    except TypeError:
        members = ["NULL" if value is None else f'"{_escaped(value)}"' for value in values]
        literal = f"{{{','.join(members)}}}"
    else:
        if "\\" in joined or joined.count('"') != 2 * (len(values) - 1):
            joined = '","'.join([_escaped(value) for value in values if value is not None])
        literal = f'{{"{joined}"}}'
    _checked(literal)
    return literal


def _escaped(value: str) -> str:
    if "\\" in value or '"' in value:
        return value.replace("\\", r"\\").replace('"', r"\"")
    return value


def copy_lines(columns: Sequence[Sequence[Value]]) -> bytes:
    """The rows of these columns (at least one) in COPY's text format; raises BadTextError."""
    cells = [_copied(column) for column in columns]
    lines = map("\t".join, zip(*cells, strict=True)) if len(cells) > 1 else iter(cells[0])
    return _checked("\n".join([*lines, ""]))


def _copied(column: Sequence[Value]) -> Sequence[str]:
    try:
        joined = "".join(column)  # type: ignore[arg-type]  # it fails where there is a None
    except TypeError:
        return [r"\N" if value is None else value.translate(_COPY) for value in column]
    if any(char in joined for char in "\\\t\n\r"):
        return [value.translate(_COPY) for value in column if value is not None]
    return column  # type: ignore[return-value]  # there is no None
