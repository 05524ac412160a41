"""Filters of views, evaluated on rows."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, assert_never

from dualwrite.connectors._memory.tables import column_at, fold
from dualwrite.expression import And, Compare, Expression, Not, OneOf, Or
from dualwrite.model import ABSENT, Row, Value
from dualwrite.schema import Column, Schema, TypeName, View


def passes(view: View, schema: Schema, row: Row) -> bool:
    """Does a row pass the view's filter?"""
    return view.filter is None or _holds(view.filter, view, schema, row)


def _holds(expression: Expression, view: View, schema: Schema, row: Row) -> bool:
    match expression:
        case And(parts):
            return all(_holds(part, view, schema, row) for part in parts)
        case Or(parts):
            return any(_holds(part, view, schema, row) for part in parts)
        case Not(part):
            return not _holds(part, view, schema, row)
        case OneOf(column, literals):
            parts = tuple(Compare("eq", column, literal) for literal in literals)
            return any(_holds(part, view, schema, row) for part in parts)
        case Compare(sign, column, literal):
            cell = row[view.paths.index(column.path)]
            return cell is not ABSENT and _compare(sign, column_at(schema, view, column.path), cell, literal.value)
        case _:
            assert_never(expression)


def _compare(sign: str, column: Column, cell: Value, literal: Value) -> bool:
    if column.empty_is_null:
        cell, literal = cell or None, literal or None
    if literal is None or cell is None:
        return (sign == "eq" and cell is literal) or (sign == "ne" and literal is None and cell is not None)
    left, right = _comparable(column, cell), _comparable(column, literal)
    if type(left) is not type(right):
        left, right = cell, literal
    return _OPERATORS[sign](left, right)


def _comparable(column: Column, value: str) -> Decimal | str:
    if column.type.name in (TypeName.INTEGER, TypeName.NUMERIC, TypeName.FLOAT, TypeName.CHOICE):
        try:
            return Decimal(value)
        except InvalidOperation:
            return value
    return fold(column, value)


_OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "gt": operator.gt,
    "ge": operator.ge,
    "lt": operator.lt,
    "le": operator.le,
    "contains": lambda text, part: str(part) in str(text),
    "startswith": lambda text, part: str(text).startswith(str(part)),
    "endswith": lambda text, part: str(text).endswith(str(part)),
}
