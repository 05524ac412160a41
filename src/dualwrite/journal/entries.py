"""What stands in the journal, as frozen values, and changes as text.

Keys are the text of a record's common-form key throughout; times are seconds since the epoch (UTC).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import compress, count
from operator import ne
from typing import Any, Final, Literal, TypeAlias, TypedDict

from dualwrite.journal.layout import Layout
from dualwrite.model import ABSENT, Change, Kind, Position, Row, Side

Desired: TypeAlias = Literal["running", "paused", "stopped"]
State: TypeAlias = Literal["not running", "initializing", "running", "paused", "resuming", "stopped", "needs attention"]
Initial: TypeAlias = Literal["none", "pending", "skipped", "done"]
Boundaries: TypeAlias = Mapping[Side, Position | None]
"""Per side the boundary of the snapshot that a map's initial sync has read; None before."""


@dataclass(frozen=True, slots=True)
class MapState:
    """What is wanted of a map and what it does.  ``since`` is when its ``state`` last changed, ``asked`` when what is
    ``desired`` did.

    ``version`` and ``publisher`` are those with which an engine last took it up; empty before.
    """

    map: str
    desired: Desired = "stopped"
    state: State = "not running"
    reason: str = ""
    master: Literal["left", "right"] | None = None
    initial: Initial = "none"
    boundaries: Boundaries = field(default_factory=lambda: {Side.LEFT: None, Side.RIGHT: None})
    since: float = 0.0
    version: str = ""
    publisher: str = ""
    asked: float = 0.0


class MapChanges(TypedDict, total=False):
    """The members of a ``MapState`` that can be set."""

    desired: Desired
    state: State
    reason: str
    master: Literal["left", "right"] | None
    initial: Initial
    boundaries: Boundaries
    version: str
    publisher: str


@dataclass(frozen=True, slots=True)
class MapVersion:
    """What a map's file said when it became this version of this publisher."""

    map: str
    version: str
    publisher: str
    text: str
    at: float
    who: str = ""


KINDS: Final = ("state", "mapping", "sync", "parked", "conflict", "undo", "alert", "link")
"""What the lines of the activity log are about."""
_TELLING: Final[tuple[tuple[str, str], ...]] = (
    ("without initial sync", "state"),
    ("undo", "undo"),
    ("conflict", "conflict"),
    ("initial sync", "sync"),
    ("repaired", "sync"),
    ("parked", "parked"),
    ("one-way", "parked"),
    ("alert", "alert"),
    ("mapping", "mapping"),
    ("version", "mapping"),
    ("schema", "mapping"),
    ("uninstalled", "link"),
    ("reset", "link"),
    ("relink", "link"),
    ("answer", "link"),
)
"""Words of ``Event.what`` that tell its kind: the first that is found counts."""


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the activity log."""

    id: int
    at: float
    who: str
    map: str
    what: str
    detail: Mapping[str, object]

    @property
    def kind(self) -> str:
        """One of ``KINDS``: that of the states of maps where no word tells another."""
        return next((kind for word, kind in _TELLING if word in self.what), KINDS[0])


@dataclass(frozen=True, slots=True)
class ParkedKey:
    """A record whose changes could not be applied at ``side``, and why.

    ``code`` and ``column`` are stable, ``reason`` is for people; ``waits_table`` and ``waits_key`` name the missing
    parent that it waits for.  ``layout`` is that of the rows of the changes that come with it.
    """

    side: Side
    map: str
    key: str
    shown_key: str
    code: str
    reason: str
    column: str = ""
    waits_table: str = ""
    waits_key: str = ""
    layout: Layout | None = None


@dataclass(frozen=True, slots=True)
class Parked:
    """A parked record as people see it: ``changes`` counts its queue, ``attempts`` how often it was tried."""

    id: int
    map: str
    side: Side
    key: str
    shown_key: str
    code: str
    reason: str
    column: str
    attempts: int
    since: float
    changes: int
    waits_table: str
    waits_key: str


@dataclass(frozen=True, slots=True)
class Conflict:
    """What two sides did to one unit of a record without knowing of each other, and how it was decided at ``side``.

    ``unit`` is the column, the lookup, or what stands for the whole record; ``left``, ``right`` and ``base`` are its
    cells, None where there was no record.  ``loser`` and ``beats`` are the positions of the two changes; with ``map``,
    ``key`` and ``unit`` they identify the conflict.  ``winner`` is empty while it is ``open``, and where what waited
    for a person was dropped undecided.  ``id`` is the journal's; ``layout`` that of the side's rows (None where an
    earlier program did not say it), and ``number`` that of the commit there which decided it.
    """

    map: str
    side: Side
    key: str
    shown_key: str
    unit: str
    left: Row | None
    right: Row | None
    base: Row | None
    winner: Literal["left", "right", ""]
    policy: str
    at: float
    loser: Position | None
    beats: Position | None
    open: bool = False
    id: int = 0
    layout: Layout | None = None
    number: int = field(default=0, compare=False)

    @property
    def verdict(self) -> str:
        """How it was decided, in words."""
        return f"{self.winner} wins" if self.winner else "open" if self.open else "dropped undecided"


@dataclass(frozen=True, slots=True)
class Decision:
    """A person's word on one unit of a record, for every pair of changes at or before the positions it covers."""

    id: int
    map: str
    key: str
    unit: str
    winner: Side
    covers: Mapping[Side, Position]
    who: str
    at: float


@dataclass(frozen=True, slots=True)
class Request:
    """What another command asks of the running engine."""

    id: int
    command: str
    arguments: Mapping[str, object]
    at: float


@dataclass(frozen=True, slots=True)
class Notice:
    """A message of an alert that is to be sent by an ``action`` of its rule.

    ``due`` is when it is tried next, ``error`` why it could not be sent the last time.
    """

    at: float
    rule: str
    action: str
    message: str
    attempts: int = 0
    due: float = 0.0
    error: str = ""
    id: int = 0


@dataclass(frozen=True, slots=True)
class Tally:
    """How much of a map is parked: records, the changes in their queues, and its open conflicts."""

    parked: int = 0
    changes: int = 0
    conflicts: int = 0


_LINE: Final = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode


def change_text(change: Change) -> str:
    """A change as one line of ASCII text; nothing of it is lost.

    Of an update, the cells that it has edited stand behind their numbers instead of the whole row.
    """
    before, after = change.before, change.after
    is_edit = before is not None and after is not None and len(before) == len(after)
    members = {
        "view": change.view,
        "kind": change.kind.value,
        "key": change.key,
        "before": _cells(before),
        **({"edits": _edits(before or (), after or ())} if is_edit else {"after": _cells(after)}),
        "at": change.at,
        "position": str(change.position),
        "seen": None if change.seen is None else str(change.seen),
        "mark": change.mark,
        "weak": change.weak,
        "xid": change.xid,
    }
    return _LINE(members)


def change_from(text: str) -> Change:
    """The inverse of ``change_text``, and of what an earlier program wrote, which knew no edits."""
    members = json.loads(text)
    before = _row(members["before"])
    return Change(
        view=members["view"],
        kind=_KINDS[members["kind"]],
        key=tuple(members["key"]),
        before=before,
        after=_edited(before or (), members["edits"]) if "edits" in members else _row(members["after"]),
        at=members["at"],
        position=Position.parse(members["position"]),
        seen=None if members["seen"] is None else Position.parse(members["seen"]),
        mark=members["mark"],
        weak=members["weak"],
        xid=members.get("xid", 0),
    )


_KINDS: Final = {kind.value: kind for kind in Kind}


def _cells(row: Row | None) -> Sequence[object] | None:
    return row if row is None or ABSENT not in row else [False if cell is ABSENT else cell for cell in row]


def _row(cells: list[str | bool | None] | None) -> Row | None:
    if cells is None:
        return None
    return tuple([ABSENT if cell is False else cell for cell in cells])  # type: ignore[misc]


def _edits(before: Row, after: Row) -> list[object]:
    """Numbers of the cells that differ, each with what it has become."""
    cells = compress(count(), map(ne, before, after))
    return [each for index in cells for each in (index, False if after[index] is ABSENT else after[index])]


def _edited(before: Row, edits: list[Any]) -> Row:
    row = list(before)
    for index, cell in zip(edits[::2], edits[1::2], strict=True):
        row[index] = ABSENT if cell is False else cell
    return tuple(row)
