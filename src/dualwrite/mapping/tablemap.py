"""A table map: what a person says about one left table and one right table.  Frozen, no I/O, no schema.

``notation`` reads and writes it as YAML, ``check`` holds it against two schemas, ``compile`` turns it into functions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeAlias

from dualwrite.expression import Expression
from dualwrite.model import Path, Side, Value


class Direction(str, Enum):
    """Which way a column is carried."""

    BOTH = "both"
    TO_RIGHT = "right"
    TO_LEFT = "left"

    def carries(self, source: Side) -> bool:
        """Is the column carried from this side?"""
        if self is Direction.BOTH:
            return True
        return (self is Direction.TO_RIGHT) == (source is Side.LEFT)


POLICIES = ("left", "right", "newest", "manual", "max", "min", "sum")
"""How a contested column is decided."""
ROW_POLICIES = ("keep", "delete", "left", "right", "newest")
"""How an update against a delete is decided."""


@dataclass(frozen=True, slots=True)
class Default:
    """The value used when the source has none (null); with no source column, a constant."""

    value: Value


@dataclass(frozen=True, slots=True)
class ValueMap:
    """Left value → right value, and back.  ``otherwise``: None (decide by type), ``park``, ``keep`` or ``=VALUE``.

    ``reverse`` says right value → left value where the way back is another one (None: it is the same).
    """

    pairs: tuple[tuple[Value, Value], ...]
    otherwise: str | None = None
    reverse: tuple[tuple[Value, Value], ...] | None = None


@dataclass(frozen=True, slots=True)
class Truncate:
    """Cut text to the target's length instead of parking the row."""


@dataclass(frozen=True, slots=True)
class Round:
    """Round to the target's digits instead of parking the row."""


@dataclass(frozen=True, slots=True)
class Case:
    """Write text in capitals or small letters; ``to`` is ``upper`` or ``lower``.  One way only."""

    to: str


@dataclass(frozen=True, slots=True)
class Trim:
    """Take off the blanks before and behind a text.  One way only."""


@dataclass(frozen=True, slots=True)
class Formula:
    """A value computed from columns of the source's record (see ``formula``).  One way only."""

    text: str


Transform: TypeAlias = Default | ValueMap | Truncate | Round | Case | Trim | Formula


def called(transform: Transform) -> str:
    """The option by which people write a transform."""
    match transform:
        case ValueMap():
            return "values"
        case Formula():
            return "expr"
        case Case(to=to):
            return to
        case _:
            return type(transform).__name__.lower()


@dataclass(frozen=True, slots=True)
class ColumnMapping:
    """One line of a map: left path, direction, right path, transforms in order, policy when contested.

    A path is None for ``none``.  ``line`` is where it stands in the map file.  ``extra`` keeps what we do not know
    (``x-…``).
    """

    left: Path | None
    direction: Direction
    right: Path | None
    transforms: tuple[Transform, ...] = ()
    conflict: str | None = None
    line: int = 0
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def path(self, side: Side) -> Path | None:
        """The path on that side."""
        return self.left if side is Side.LEFT else self.right


@dataclass(frozen=True, slots=True)
class Company:
    """The pair of paths that say which company a record belongs to."""

    left: Path
    right: Path
    line: int = 0


@dataclass(frozen=True, slots=True)
class Written:
    """A filter in X++ as it was written, and what it says."""

    language: str
    text: str
    expression: Expression


@dataclass(frozen=True, slots=True)
class Unread:
    """A filter that says more than an expression can: kept word for word, so that nothing is lost.

    ``language`` is ``odata`` or ``xpp``.  A map that has one does not run.
    """

    language: str
    text: str
    reason: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class TableMap:
    """A table map as written.

    ``key`` are right-hand paths (None: derive it).  A side has one of ``filters``, or one that is ``unread``, or none.
    ``conflict`` is the policy for columns (None: the project's), ``rows`` for update against delete, ``on_leave`` what
    happens when a record leaves its filter (``detach`` or ``delete``).  ``extra`` keeps what we do not know (``x-…``).
    ``lines`` tells where each top-level entry stands.
    """

    name: str
    left: str
    right: str
    columns: tuple[ColumnMapping, ...]
    version: str = "1.0.0.0"
    publisher: str = ""
    company: Company | None = None
    key: tuple[Path, ...] | None = None
    filters: Mapping[Side, Expression | Written] = field(default_factory=dict)
    unread: Mapping[Side, Unread] = field(default_factory=dict)
    conflict: str | None = None
    rows: str = "keep"
    deletes: bool = True
    on_leave: str = "detach"
    extra: Mapping[str, Any] = field(default_factory=dict)
    file: str = ""
    lines: Mapping[str, int] = field(default_factory=dict)

    def table(self, side: Side) -> str:
        """The table on that side."""
        return self.left if side is Side.LEFT else self.right
