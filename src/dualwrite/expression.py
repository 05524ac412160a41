"""One expression tree for filters: evaluated on rows and rendered as SQL by ``filters``, printed by the notations.

Values are canonical text, compared by the type of the column they stand beside.  Null follows OData: ``eq null`` and
``ne null`` test for null; every other comparison with null is false, and ``not`` negates plainly (two-valued logic).
Where a column's side declares ``empty_is_null``, null and the empty text are one value: the empty text, which
``ne`` any other value holds for and which ``like`` can match.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias, assert_never

from dualwrite.model import Path, Value, show_path
from dualwrite.wildcards import pattern_of, pieces_of


class Misread(ValueError):
    """A text that cannot be read.  ``column`` counts the characters up to the place, from 1; 0 is unknown."""

    def __init__(self, message: str, column: int = 0) -> None:
        super().__init__(f"{message} (at character {column})" if column else message)
        self.message = message
        self.column = column


class FilterError(Misread):
    """A filter that cannot be read, or that a language cannot express."""


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
    """``operator`` is one of eq ne gt ge lt le contains startswith endswith like.

    The literal of ``like`` is a pattern (see ``wildcards``) that no other operator can express: see ``matching``.
    """

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

ALWAYS: Final = And(())
NEVER: Final = Or(())

_WORDS: Final = {
    "eq": "is",
    "ne": "is not",
    "gt": "is more than",
    "ge": "is at least",
    "lt": "is less than",
    "le": "is at most",
    "contains": "contains",
    "startswith": "starts with",
    "endswith": "ends with",
    "like": "is like",
}


def matching(column: Column, pattern: str) -> Compare:
    """The column matches a pattern, by the simplest operator that says so."""
    pieces = pieces_of(pattern)
    match pieces:
        case ():  # not ``eq``, for which null is as empty as the empty text
            return Compare("like", column, Literal(""))
        case ((False, text),):
            return Compare("eq", column, Literal(text))
        case ((False, text), (True, "*")):
            return Compare("startswith", column, Literal(text))
        case ((True, "*"), (False, text)):
            return Compare("endswith", column, Literal(text))
        case ((True, "*"), (False, text), (True, "*")):
            return Compare("contains", column, Literal(text))
        case _:
            return Compare("like", column, Literal(pattern_of(pieces)))


def paths(expression: Expression | None) -> list[Path]:
    """The paths that an expression names, in order, each once."""
    return list(dict.fromkeys(_walk(expression))) if expression is not None else []


def _walk(expression: Expression) -> Iterator[Path]:
    match expression:
        case Compare(_, column, _) | OneOf(column, _):
            yield column.path
        case And(parts) | Or(parts):
            for part in parts:
                yield from _walk(part)
        case Not(part):
            yield from _walk(part)
        case _:
            assert_never(expression)


def simplify(expression: Expression) -> Expression:
    """The same condition without what is constant or nested for nothing."""
    match expression:
        case Compare(operator, _, Literal(None)) if operator not in ("eq", "ne"):
            return NEVER
        case OneOf(_, ()):
            return NEVER
        case OneOf(column, (literal,)):
            return Compare("eq", column, literal)
        case And(parts):
            return _joined(And, parts, NEVER)
        case Or(parts):
            return _joined(Or, parts, ALWAYS)
        case Not(part):
            return _negated(simplify(part))
        case _:
            return expression


def _joined(kind: type[And] | type[Or], parts: tuple[Expression, ...], decisive: Expression) -> Expression:
    """Parts joined flat, each once; ``decisive`` is the constant that settles the whole."""
    flat: list[Expression] = []
    for part in map(simplify, parts):
        if part == decisive:
            return decisive
        flat.extend(part.parts if isinstance(part, kind) else (part,))
    flat = list(dict.fromkeys(flat))
    return flat[0] if len(flat) == 1 else kind(tuple(flat))


def _negated(part: Expression) -> Expression:
    match part:
        case Not(inner):
            return inner
        case And(()):
            return NEVER
        case Or(()):
            return ALWAYS
        case _:
            return Not(part)


def and_(a: Expression | None, b: Expression | None) -> Expression | None:
    """Both conditions; None is no condition."""
    if a is None or b is None:
        return a if b is None else b
    return simplify(And((a, b)))


def describe(expression: Expression | None) -> str:
    """The condition in words."""
    if expression is None or expression == ALWAYS:
        return "every record"
    return "no record" if expression == NEVER else _described(expression, False)


def _described(expression: Expression, inner: bool) -> str:
    match expression:
        case Compare(operator, column, literal):
            return f"{show_path(column.path)} {_WORDS[operator]} {_said(literal)}"
        case OneOf(column, literals):
            return f"{show_path(column.path)} is one of {', '.join(map(_said, literals)) or 'nothing'}"
        case And(parts):
            return _listed(parts, "and", inner) if parts else "always"
        case Or(parts):
            return _listed(parts, "or", inner) if parts else "never"
        case Not(part):
            return f"not ({_described(part, False)})"
        case _:
            assert_never(expression)


def _listed(parts: tuple[Expression, ...], word: str, inner: bool) -> str:
    text = f" {word} ".join(_described(part, len(parts) > 1) for part in parts)
    return f"({text})" if inner and len(parts) > 1 else text


def _said(literal: Literal) -> str:
    return "null" if literal.value is None else f"'{literal.value}'"
