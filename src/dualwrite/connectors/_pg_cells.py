# ruff: noqa: S608  (names go through quote(), values are bound)
"""The pieces of which statements that write are made: cells as they compare, and rows that come as arrays."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from dualwrite.connectors._pg_schema import ColumnFacts, column_type
from dualwrite.connectors._pg_view import Pattern
from dualwrite.schema import Column, TypeName

_DIRECT: Final = frozenset(
    {"bool", "int2", "int4", "int8", "numeric", "float4", "float8", "date", "time", "timestamp", "timestamptz", "uuid"}
)
"""Types whose arrays hold them as they are; the others come as text."""
_EXACT: Final = (_DIRECT - {"float4", "float8"}) | {"bytea"}
"""Types of which equal values are spelled alike; enums are so, too."""
_ROUNDED: Final = frozenset({"numeric", "time", "timetz", "timestamp", "timestamptz", "interval"})
"""Types whose limits say how values are rounded: they compare as they would be stored."""
MASK_BITS: Final = 62
"""Cells that one number tells the presence of."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of a view as it is compared; ``empty_is_null``: null and the empty text are one here."""

    place: int
    column: Column
    facts: ColumnFacts
    sql: str
    flag: int | None
    empty_is_null: bool

    @property
    def is_text(self) -> bool:
        """Is it compared letter by letter?"""
        return not self.facts.equality or column_type(self.facts.base, -1).name is TypeName.TEXT

    @property
    def cast(self) -> str:
        """The type that a value takes before it is compared and stored."""
        if self.is_text and self.facts.base != "bpchar":
            return "text"
        return self.facts.sql if self.facts.base in _ROUNDED else self.facts.plain

    def differs(self, value: str) -> str:
        """The test whether ``c`` holds something else."""
        return self._unknown(
            f"{self._compared('c.c' + str(self.place))} IS DISTINCT FROM {self._compared(value)}", "OR"
        )

    def unlike(self, value: str) -> str:
        """The test whether ``c`` surely holds something else, with letter case and blanks as the column has it."""
        here, there = (self._compared(each, fold=True) for each in (f"c.c{self.place}", value))
        return self._unknown(f"{here} IS DISTINCT FROM {there}", "AND NOT")

    def _compared(self, value: str, *, fold: bool = False) -> str:
        if not self.is_text:
            is_exact = fold or self.facts.base in _EXACT or self.facts.labels
            return self.facts.bared(value) if is_exact else f'{value}::text COLLATE "C"'  # a month is thirty days
        text = f"{value}::text"
        if fold and self.column.ignore_trailing_blanks:
            text = f"rtrim({text}, ' ')"
        if fold and self.column.ignore_case:
            text = f"lower({text})"
        if self.empty_is_null:
            text = f"nullif({text}, '')"
        return f'{text} COLLATE "C"'

    def _unknown(self, test: str, otherwise: str) -> str:
        """A cell behind a reference that leads nowhere is not known."""
        if self.flag is None:
            return test
        return f"(c.f{self.flag} OR {test})" if otherwise == "OR" else f"(NOT c.f{self.flag} AND {test})"


@dataclass(frozen=True, slots=True)
class Shape:
    """What the rows of one statement have in common.

    ``given`` are the cells that some rows set, ``expected`` those that some expect a value of, ``lookups`` those
    that some resolve; ``mixed``: not all rows do, so masks tell which.  ``columns`` are those that an insert fills or
    that are looked up.  Without ``writes`` an update is only judged.  With a ``horizon``, the first parameter, records
    are told that were written since, unless by transactions in the second one.  A ``loud`` statement tells of every
    record that it writes, with what tells it apart.
    """

    pattern: Pattern | None
    given: tuple[int, ...] = ()
    expected: tuple[int, ...] = ()
    lookups: tuple[int, ...] = ()
    mixed: bool = False
    columns: tuple[str, ...] = ()
    writes: bool = True
    horizon: bool = False
    loud: bool = False


@dataclass
class Arrays:
    """The parameters of a statement and what they are called in it."""

    first: int = 1
    types: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    selected: list[str] = field(default_factory=list)

    def add(self, name: str, cast: str = "text", base: str = "text") -> None:
        """One array; its members take the type ``cast``."""
        direct = base in _DIRECT
        self.types.append(f"${self.first + len(self.types)}::{base if direct else 'text'}[]")
        self.names.append(name)
        self.selected.append(
            f"s.{name}" if cast == "text" or (direct and cast == base) else f"s.{name}::{cast} AS {name}"
        )

    @property
    def sql(self) -> str:
        """The rows, as ``s``."""
        chosen = ", ".join(["s.i", *self.selected])
        return (
            f"s AS MATERIALIZED (SELECT {chosen} FROM unnest({', '.join(self.types)}) "
            f"WITH ORDINALITY AS s ({', '.join([*self.names, 'i'])}))"
        )


def stored_as(facts: ColumnFacts) -> str:
    """The type that a value takes before it is put into a column, whose limits are then checked, not cut to."""
    if facts.base in ("varchar", "name", "text"):
        return "text"
    return facts.plain


@dataclass(frozen=True, slots=True)
class Masks:
    """Which cells a row speaks of, where not all rows of a statement speak of the same."""

    shape: Shape

    @property
    def words(self) -> int:
        """How many numbers it takes."""
        count = len(self.shape.given) + len(self.shape.expected)
        return -(-count // MASK_BITS) if self.shape.mixed else 0

    def tell(self, prefix: str, place: int, test: str) -> str:
        """The test, for rows that speak of the cell."""
        if not self.shape.mixed:
            return f"({test})"
        places = self.shape.given if prefix == "n" else self.shape.expected
        bit = places.index(place) + (0 if prefix == "n" else len(self.shape.given))
        return f"(s.m{bit // MASK_BITS} & {1 << bit % MASK_BITS} <> 0 AND {test})"
