"""One expression tree for filters: evaluated on rows, rendered as SQL, printed back by the notations.

Values are canonical text, compared by the type of the column they stand beside.  Null follows OData: ``eq null`` and
``ne null`` test for null; every other comparison with null is false, and ``not`` negates plainly (two-valued logic).
Where a column's side declares ``empty_is_null``, null and the empty text are one value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from dualwrite.model import Path, Value


@dataclass(frozen=True, slots=True)
class Column:
    """A path of the view."""

    path: Path


@dataclass(frozen=True, slots=True)
class Literal:
    """A constant, as canonical text; None is null."""

    value: Value


@dataclass(frozen=True, slots=True)
class Compare:
    """``operator`` is one of eq ne gt ge lt le contains startswith endswith."""

    operator: str
    column: Column
    literal: Literal


@dataclass(frozen=True, slots=True)
class OneOf:
    """The column holds one of the values."""

    column: Column
    literals: tuple[Literal, ...]


@dataclass(frozen=True, slots=True)
class And:
    """All parts hold; true when there is none."""

    parts: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """One part holds; false when there is none."""

    parts: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The part does not hold."""

    part: Expression


Expression: TypeAlias = Compare | OneOf | And | Or | Not
