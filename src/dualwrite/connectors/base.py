"""The contract between the engine and a system: what a connector promises.

A connector is I/O and dialect, nothing else.  It never sees a map, and maps never see an id: a ``View`` asks for flat
rows in natural form, in which a lookup appears as key columns of the referenced record.  Everything is blocking; a
connector may be used from several threads at once, each of the objects it hands out from one thread only.

*Echo* ends here: what our own transactions wrote never comes out of the feed.  What else they caused (triggers,
cascades) does: it is a change of this side.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from dualwrite.errors import Problem, Usage
from dualwrite.model import Batch, Key, Outcome, Position, Row, Side, Write
from dualwrite.schema import Schema, View

NO_LIMIT = 1 << 62


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a system can do, as data that engine, checks and documentation read.

    ``transactional``: rows, side table, marker and position commit as one.  ``before_images``: changes carry the row
    before them.  ``ordered``: the feed is in commit order across tables.  ``user_times``: changes carry the user's
    commit time.  ``exclusive``: while a transaction of ours is open, nobody else commits; elsewhere the engine looks
    once more behind its writes, which lock their rows (``Transaction.may_be_overtaken``).
    """

    transactional: bool = True
    before_images: bool = True
    ordered: bool = True
    user_times: bool = True
    exclusive: bool = True


@dataclass(frozen=True, slots=True)
class Remembered:
    """One entry of the side table: what is kept for a record, and between which of our commits it held.

    ``since`` is the number of the commit that wrote it, ``until`` of the one that removed it (None: still there).
    """

    kind: str
    view: str
    key: str
    value: str
    since: int
    until: int | None


@dataclass(frozen=True, slots=True)
class Installation:
    """What of a link is in a system: its ``objects`` by name, for people.

    ``is_copy``: they came there with a copy of another system (a restored backup, a template, a copied file).
    """

    objects: tuple[str, ...] = ()
    is_copy: bool = False


class Snapshot(Protocol):
    """A consistent read of one view.  ``boundary``: every change at or before it is contained, none after it.

    Places that begin with the boundary's and a zero are left free: what an initial sync carries lies there.
    """

    @property
    def boundary(self) -> Position:
        """The place in the feed that this read corresponds to."""
        ...

    def blocks(self) -> Iterator[Sequence[Row]]:
        """All rows that pass the view's filter, in blocks, each row once, in no promised order; memory stays bounded.

        A lookup whose id finds no record is ``ABSENT``.  To be read once.  A block may be a ``Lined``: where both
        sides' are, most rows never have to be taken apart.
        """
        ...

    def fetch(self, keys: Sequence[Key]) -> dict[Key, list[Row]]:
        """As ``Transaction.fetch``, of what the snapshot contains."""
        ...


class Feed(Protocol):
    """What a system's users have done, in commit order over all views, from a position on."""

    def read(self, limit: int, timeout: float) -> Batch:
        """The next changes: at least one transaction where there is one, then more up to about ``limit`` changes.

        Waits up to ``timeout`` seconds for the first; then an empty batch (heartbeat).  A transaction larger than
        ``limit`` may come in parts.  A change is delivered once per view of its table.  Its images show what lookups
        led to then, also where those records were renamed or deleted since, by users or by us.  Raises PositionLost
        when what follows the position is gone, Unavailable when the system does not answer, Halted when a view's tables
        are not what they were.
        """
        ...

    def close(self) -> None:
        """Release what the feed holds.  Idempotent."""
        ...


class Transaction(Protocol):
    """One transaction of ours in the system; a context manager that rolls back unless committed."""

    @property
    def number(self) -> int:
        """The number that this commit will have among our commits in this system (1, 2, …)."""
        ...

    def position(self) -> Position | None:
        """The stream's committed position, locked until the end; None before the first commit."""
        ...

    def since(self, after: Position, limit: int = NO_LIMIT) -> Batch:
        """This side's own changes behind ``after``, up to everything committed before this transaction commits.

        ``limit`` or more of them, or a batch that is ``cut``, mean that there may be others behind the batch's
        position, still to be read.  Without a limit it is never cut.

        The barrier (R4): nothing of this side's users can slip in between this answer and our commit for the records
        that we write.  In feed order, exactly as the feed delivers them.
        """
        ...

    def may_be_overtaken(self) -> bool:
        """May users have changed, behind what the caller ``known`` of them at the beginning, one of the records that
        this transaction has written so far or has not found?

        False is sure, and stays so until the commit; True says that it cannot be told, and ``since`` has to be asked.
        """
        ...

    def fetch(self, view: View, keys: Sequence[Key]) -> dict[Key, list[Row]]:
        """The records with these keys as they are now in this transaction, whatever the filter says.

        Keys compare as the system does and null equals empty; the answer uses the keys as given, a key without record
        is missing, several records are all given (never picked from).
        """
        ...

    def write(self, view: View, writes: Sequence[Write]) -> list[Outcome]:
        """Write set-based, one outcome per write in their order.

        A refused row leaves nothing behind and never hinders the others.  Only cells that differ are written.  A
        lookup is resolved by all its parts (``View.lookups``); a null part set means no reference.
        """
        ...

    def insert(self, view: View, rows: Sequence[Row]) -> bool:
        """Insert records that are not there, all of them or none, by the quickest way that the system has.

        False, with nothing written, where there is no quicker way than ``write``, where the system itself does not keep
        a record that is there from being overwritten or doubled, or where one of the rows is to be looked at: ``write``
        tells an outcome for each.  The rows may be a ``Lined``.
        """
        ...

    def remember(self, kind: str, view: str, key: str, value: str | None) -> None:
        """Put an entry into the side table, committed with the rows; None removes it (it stays readable, with
        ``until``, as long as the feed may still deliver changes from before)."""
        ...

    def commit(self, position: Position | None) -> None:
        """Commit rows, side table and marker; ``position`` becomes the stream's (None: unchanged).

        The marker stands in this system's feed at this commit's place.  After a crash either all of it is there or
        nothing.  Raises Superseded when another session has moved the stream.
        """
        ...

    def __enter__(self) -> Transaction: ...

    def __exit__(self, *exc: object) -> None: ...


class Connector(Protocol):
    """A system on one side of a link."""

    @property
    def capabilities(self) -> Capabilities:
        """What this system can do."""
        ...

    def identity(self) -> str:
        """A fingerprint of the real system, the same for as long as it is the same system at the same place.

        ``WHAT@PLACE``, where the place is how we reach it: a copy that takes WHAT along is found out by its place.
        """
        ...

    def installation(self) -> Installation:
        """What of the link is there by now, whoever has put it there."""
        ...

    def schema(self) -> Schema:
        """What the system says of its tables, completed by what was declared.  Read anew at each call."""
        ...

    def health(self, views: Sequence[View]) -> list[Problem]:
        """Prerequisites that are not met, each with the exact remedy.  Writes nothing."""
        ...

    def install(self, views: Sequence[View]) -> None:
        """Start (or extend, or mend) capturing for exactly these views.  Idempotent; a crash leaves it repeatable.

        Every object that it creates carries the link's name.  Changes committed after the return are captured.
        Raises PositionLost when changes may have been missed since the last time, Halted when that can only be those
        of one view, which then is to be left out: with the others it goes through.
        """
        ...

    def uninstall(self) -> None:
        """Remove every trace of the link.  Idempotent."""
        ...

    def by_hand(self) -> str:
        """The statements that remove every trace of the link, for a person to run.  Asks the system nothing."""
        ...

    def snapshot(self, view: View, *, placed: bool = True) -> AbstractContextManager[Snapshot]:
        """A consistent read of the view, with its boundary (needs ``install``, else the boundary is a null place).

        ``placed`` False: nobody asks for the boundary, which is a null place then; so it can be had beside an engine
        in another process, where only that one can read the feed.
        """
        ...

    def end(self) -> Position:
        """The position behind everything committed so far."""
        ...

    def feed(self, views: Sequence[View], after: Position | None) -> Feed:
        """What follows ``after`` (None: from the oldest that is kept).  Views must have been installed.

        Raises PositionLost when a change behind ``after`` was there and is not kept any more, when ``after`` belongs to
        another incarnation, or lies behind the feed's end.  Markers that were let go are no loss.
        """
        ...

    def acknowledge(self, position: Position) -> None:
        """Nothing at or before ``position`` will be asked for again.  Idempotent; going back is ignored.

        The last marker at or before it is kept, so that a feed from there can still tell what had been seen.
        """
        ...

    def retained(self) -> int:
        """About how many bytes of its log the system keeps for the link: what users do adds to it, and what was
        acknowledged leaves it, if not at once.  0 where the link is not installed.
        """
        ...

    def confirmed(self) -> int:
        """How far into its log the system was told that all that is complete was received and carried.

        It moves on while a transaction of which nothing can be read yet keeps the log from being let go.  0 where
        nothing but ``retained`` tells.
        """
        ...

    def let_go(self) -> Position | None:
        """The last change that is not kept any more because it was acknowledged; None where none was let go yet.

        It is in the system itself, and never goes back: unless the system was restored from a backup.
        """
        ...

    def fetch(self, view: View, keys: Sequence[Key]) -> dict[Key, list[Row]]:
        """As ``Transaction.fetch``, of what is committed now."""
        ...

    def transaction(self, stream: str, views: Sequence[View] = (), known: Position | None = None) -> Transaction:
        """Begin a transaction for this stream; waits for other writers.

        ``views`` are those that ``since`` reports; up to ``known`` the caller knows this side's own changes of them.
        """
        ...

    def edit(self, view: View, write: Write) -> Outcome:
        """Write one record as a user does, in a transaction of its own, with no marker: the feed tells it as a change
        of this side.  As ``Transaction.write`` otherwise; unless ``Applied``, nothing is left behind.
        """
        ...

    def positions(self) -> Mapping[str, tuple[Position, int]]:
        """Per stream what is committed: its position, and the number of our last commit in this system."""
        ...

    def remembered(self, kind: str) -> Iterator[Remembered]:
        """The side table's entries of a kind, removed ones included while they are kept, in the order in which they
        came.  There may be very many: nothing else is asked of the system before they are read to their end."""
        ...

    def clock(self) -> float:
        """The system's time now, in seconds since the epoch (UTC)."""
        ...

    def close(self) -> None:
        """Release everything.  Idempotent."""
        ...


def refuse_schema(side: Side, schema: str | None, what: str) -> None:
    """Raises Usage where an environment names a schema and its system knows none."""
    if schema is not None:
        raise Usage(
            f"{side}.schema is {schema!r}, but {what} has no schemas", f"take schema: out of {side}: in dualwrite.yaml"
        )
