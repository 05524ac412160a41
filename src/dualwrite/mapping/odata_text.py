"""OData filters, written: ``odata.parse`` gives the same expression back.

Apart from the reading, because whoever only writes needs no grammar.
"""

from __future__ import annotations

import re
from typing import Final, assert_never

from dualwrite.expression import And, Column, Compare, Expression, Literal, Not, OneOf, Or
from dualwrite.mapping.tokens import BARE, MOMENT, WORD
from dualwrite.model import Path
from dualwrite.schema import Column as SchemaColumn
from dualwrite.schema import ColumnOf, TypeName, untyped
from dualwrite.wildcards import regex

FUNCTIONS: Final = ("contains", "startswith", "endswith")
PATTERN: Final = "matchesPattern"
"""The function that stands for ``like``; its pattern is a regular expression."""
_RESERVED: Final = frozenset({"null", "true", "false", "not", "and", "or"})


def print_odata(expression: Expression, column: ColumnOf | None = None) -> str:
    """The filter in OData; ``odata.parse`` gives the same expression back.

    With ``column`` literals are spelled as the column's type wants them (for other systems to read); without it,
    what looks like a number stands bare and ``t`` and ``f`` are ``true`` and ``false``.
    """
    return _printed(expression, column or untyped, False)


def _printed(expression: Expression, column: ColumnOf, inner: bool) -> str:
    match expression:
        case Compare(operator, Column(path), literal):
            value = _spelled(literal, column(path))
            if operator == "like":
                pattern = "null" if literal.value is None else _quoted(regex(literal.value))
                return f"{PATTERN}({_printed_path(path)}, {pattern})"
            if operator in FUNCTIONS:
                return f"{operator}({_printed_path(path)}, {value})"
            return f"{_printed_path(path)} {operator} {value}"
        case OneOf(Column(path), literals):
            members = ", ".join(_spelled(literal, column(path)) for literal in literals)
            return f"{_printed_path(path)} in ({members})" if members else "false"
        case And(parts):
            return _joined(parts, "and", column, inner) if parts else "true"
        case Or(parts):
            return _joined(parts, "or", column, inner) if parts else "false"
        case Not(part):
            return f"not ({_printed(part, column, False)})"
        case _:
            assert_never(expression)


def _joined(parts: tuple[Expression, ...], word: str, column: ColumnOf, inner: bool) -> str:
    several = len(parts) > 1
    text = f" {word} ".join(_printed(part, column, inner or several) for part in parts)
    return f"({text})" if inner and several else text


def _printed_path(path: Path) -> str:
    return "/".join(map(_printed_name, path))


def _printed_name(name: str) -> str:
    if re.fullmatch(WORD, name) and name.lower() not in _RESERVED:
        return name
    return f"[{name.replace(']', ']]')}]"


def _spelled(literal: Literal, column: SchemaColumn | None) -> str:
    value = literal.value
    if value is None:
        return "null"
    kind = column.type.name if column is not None else None
    if value in ("t", "f") and kind in (None, TypeName.BOOLEAN):
        return "true" if value == "t" else "false"
    if BARE.fullmatch(value) and kind not in (TypeName.TEXT, TypeName.OTHER):
        return value
    if kind in (TypeName.TIMESTAMP, TypeName.TIMESTAMPTZ) and (match := MOMENT.fullmatch(value)):
        return f"{match[1]}T{match[2]}{'Z' if match[3] else ''}"
    if kind is TypeName.DATE and re.fullmatch(r"[1-9]\d{3}-\d\d-\d\d", value):
        return value
    return _quoted(value)


def _quoted(value: str) -> str:
    doubled = value.replace("'", "''")
    return f"'{doubled}'"
