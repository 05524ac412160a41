"""The values that everything else speaks of: rows, keys, positions, changes, writes and their outcomes.

All of them are frozen and none does I/O; a change and a write are tuples, which are made in a fraction of the time.
A row is a tuple of canonical text (see ``schema``) in the order of a ``View``'s paths; ``None`` is null and ``ABSENT``
is "not known, leave alone".
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from enum import Enum
from sys import intern
from typing import Final, Literal, NamedTuple, NoReturn, TypeAlias


class Side(str, Enum):
    """One of the two linked systems."""

    LEFT = "left"
    RIGHT = "right"

    @property
    def other(self) -> Side:
        """The side across the link."""
        return _OTHER[self]  # asked for with every row: the way to a member through its class takes five times as long

    def __str__(self) -> str:
        return self.value


_OTHER = {Side.LEFT: Side.RIGHT, Side.RIGHT: Side.LEFT}


class Absent(Enum):
    """The type of ``ABSENT``; an enum so that type checkers can narrow it away."""

    ABSENT = "absent"

    def __repr__(self) -> str:
        return "ABSENT"


ABSENT: Final = Absent.ABSENT

Value: TypeAlias = str | None
"""Canonical text, or null."""
Cell: TypeAlias = str | Literal[Absent.ABSENT] | None
Row: TypeAlias = tuple[Cell, ...]
Key: TypeAlias = tuple[Value, ...]
Record: TypeAlias = tuple[str, Key]
"""A map and the key of one of its records, in common form."""
Path: TypeAlias = tuple[str, ...]
"""A column ``("name",)`` or a lookup followed to a column of the referenced table ``("paymentterm", "name")``.

A polymorphic lookup ends in what it leads to in each table: ``("customerid", "Account(number).Contact(code)")``."""


@dataclass(frozen=True, slots=True)
class Position:
    """A place in one incarnation of one feed.

    ``feed`` names the incarnation: positions of different incarnations do not compare (a restored or re-created
    source is another incarnation).  ``place`` grows in commit order; a longer tuple lies *inside* what its prefix
    names, behind it: ``(17,) < (17, 1) < (18,)``.
    """

    feed: str
    place: tuple[int, ...]

    def __lt__(self, other: Position) -> bool:
        return self.place < (other.place if self.feed == other.feed else self._refuse(other))

    def __le__(self, other: Position) -> bool:
        return self.place <= (other.place if self.feed == other.feed else self._refuse(other))

    def __gt__(self, other: Position) -> bool:
        return self.place > (other.place if self.feed == other.feed else self._refuse(other))

    def __ge__(self, other: Position) -> bool:
        return self.place >= (other.place if self.feed == other.feed else self._refuse(other))

    def _refuse(self, other: Position) -> NoReturn:
        raise ValueError(f"positions of different feeds do not compare: {self} and {other}")

    def just_before(self) -> Position:
        """A position before this one and behind everything else that is before it."""
        *outer, last = self.place
        return Position(self.feed, (*outer, last - 1, 1 << 62))

    def __str__(self) -> str:
        return f"{self.feed}@{'.'.join(map(str, self.place))}"

    @classmethod
    def parse(cls, text: str) -> Position:
        """The inverse of ``str``; raises ValueError for anything else."""
        feed, at, place = text.rpartition("@")
        if not at:
            raise ValueError(f"not a position: {text!r}")
        return cls(intern(feed), tuple(map(int, place.split("."))) if place else ())  # very many are of one feed


class Kind(str, Enum):
    """What happened to a record."""

    INSERT = "insert"
    UPDATE = "update"
    DELETE = "delete"

    def __str__(self) -> str:
        return self.value


class Change(NamedTuple):
    """One committed operation of a side's own users on one record of one view.

    ``key`` is the record's natural key *before* the change (for an insert, after it); an update whose ``after`` holds
    another key is a rename.  ``seen`` is how far this side had received the other side when the change was committed,
    and ``mark`` the number of our last commit in this side before it (0 = none): both come from the markers.
    ``at`` is the user's commit time in seconds since the epoch (UTC) by the side's own clock.  A *weak* change stands
    for a difference found by an initial sync: it yields to every user's change.  ``xid`` is the system's own number
    for the transaction, 0 where it has none.  ``edited`` are the cells in which both images differ, in their order,
    where the feed knows them; whoever puts other images in their place takes ``with_images``.
    """

    view: str
    kind: Kind
    key: Key
    before: Row | None
    after: Row | None
    at: float
    position: Position
    seen: Position | None = None
    mark: int = 0
    weak: bool = False
    xid: int = 0
    edited: tuple[int, ...] | None = None

    def with_images(self, before: Row | None, after: Row | None) -> Change:
        """The same with these images, of which it is not known where they differ."""
        return self._replace(before=before, after=after, edited=None)

    def having_seen(self, seen: Position | None) -> Change:
        """The same, made by a side that had received the other so far."""
        if seen is self.seen or seen == self.seen:
            return self
        return self._replace(seen=seen)


@dataclass(frozen=True, slots=True)
class Halt:
    """Something in a feed that no change can tell: from there on the view cannot be followed without a person."""

    view: str
    position: Position
    reason: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Batch:
    """Changes in commit order, and the position after them.

    ``seen`` and ``mark`` are those of the last marker read so far.  A batch without changes is a heartbeat; its
    position may still have moved (only our own transactions, or unmapped tables, were there).  ``halts`` stand beside
    the changes: what matters of them depends on where the view's snapshot was read.  ``cut``: it ends before its limit,
    because its rows are large.
    """

    changes: tuple[Change, ...]
    position: Position
    seen: Position | None = None
    mark: int = 0
    halts: tuple[Halt, ...] = ()
    cut: bool = False


class Write(NamedTuple):
    """What a record of the target shall become.

    ``row`` None deletes; a row with another key renames.  ``expect`` is what the target must hold now: None when no
    record may be there, cells that do not matter are ``ABSENT``.  ``ABSENT`` cells of ``row`` are left alone.
    ``cells``, where they are given, are those of ``row`` that are not; ``expect`` speaks of no others then.
    """

    key: Key
    expect: Row | None
    row: Row | None
    cells: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Applied:
    """The target's record was changed."""


@dataclass(frozen=True, slots=True)
class Unchanged:
    """The target held the wanted row already (or, for a delete, no record): nothing was written."""


@dataclass(frozen=True, slots=True)
class Contested:
    """The target does not hold what was expected.  ``current`` is its row, None when there is none."""

    current: Row | None


@dataclass(frozen=True, slots=True)
class MissingParent:
    """A lookup finds no record: ``lookup`` names it, ``table`` and ``key`` the record that is missing.

    ``others`` are further tables in which it could be.
    """

    lookup: str
    table: str
    key: Key
    others: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Rejected:
    """The system refused the row.  ``code`` is ours (stable), ``reason`` the system's own words.

    Codes: ``unique`` (another record holds a unique value), ``reference`` (a foreign key forbids it), ``required``
    (a mandatory column is null), ``value`` (type, length or check constraint), ``ambiguous`` (several records hold
    the key), ``readonly``, ``other``.
    """

    code: str
    reason: str


Outcome: TypeAlias = Applied | Unchanged | Contested | MissingParent | Rejected


def encode(cells: Row | Key | None) -> str | None:
    """A row or key as JSON text (``ABSENT`` becomes ``false``), for the journal and side tables."""
    if cells is None:
        return None
    return json.dumps([False if cell is ABSENT else cell for cell in cells], ensure_ascii=False, separators=(",", ":"))


def decode(text: str | None) -> Row | None:
    """The inverse of ``encode``."""
    if text is None:
        return None
    return tuple(ABSENT if cell is False else cell for cell in json.loads(text))


def show_key(key: Key) -> str:
    """A key for people: its members separated by commas, null as an empty pair of brackets."""
    return ", ".join("()" if member is None else member for member in key)


def show_path(path: Path) -> str:
    """A path in the notation of map files."""
    return ".".join(path)


_DOT: Final = re.compile(r"\.(?![^()]*\))")
_TARGET: Final = re.compile(r"(?P<word>[^()]+)\((?P<path>[^()]+)\)")


def read_path(text: str) -> Path:
    """The inverse of ``show_path``, where no name holds a dot: the targets of a polymorphic lookup are one step."""
    steps = _DOT.split(text)
    plain = next((number for number, step in enumerate(steps) if _TARGET.fullmatch(step)), len(steps))
    last = steps[plain:]
    return (*steps[:plain], ".".join(last)) if last and all(map(_TARGET.fullmatch, last)) else tuple(steps)


def targets_of(path: Path) -> tuple[tuple[str, Path], ...]:
    """The targets that the end of a polymorphic path names, each with the path there; empty for other paths.

    ``customerid.Account(accountnumber).Contact(number)`` may end in two tables.
    """
    found = [_TARGET.fullmatch(step) for step in _DOT.split(path[-1])] if len(path) > 1 and "(" in path[-1] else []
    if not found or None in found:
        return ()
    return tuple((target["word"], read_path(target["path"])) for target in found if target is not None)
