"""Text that carries many values to PostgreSQL at once: array literals."""

from __future__ import annotations

from collections.abc import Sequence

from dualwrite.lined import BadTextError, checked
from dualwrite.model import Value


def is_storable(values: Sequence[Value]) -> bool:
    """Can PostgreSQL hold these texts?"""
    try:
        checked("".join([value for value in values if value]))
    except BadTextError:
        return False
    return True


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
    checked(literal)
    return literal


def _escaped(value: str) -> str:
    if "\\" in value or '"' in value:
        return value.replace("\\", r"\\").replace('"', r"\"")
    return value
