"""What the log of a PostgreSQL database tells, transaction by transaction, and where each of it stands.

A *place* is ``(commit, n)`` for the n-th entry of the transaction whose commit stands at that LSN, and ``(end,)``
behind the transaction: ``(commit, n) < (end,) < (next commit, 1)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from dualwrite.connectors._pg_wire import KINDS, UNCHANGED, Image, Relation, is_full, row_images
from dualwrite.model import Kind

Place: TypeAlias = tuple[int, ...]


class Committed(NamedTuple):
    """A transaction: the LSN of its commit, its top-level id, its user's commit time, and its origin ('' = none)."""

    lsn: int
    xid: int
    at: float
    origin: str


class Row(NamedTuple):
    """A row was inserted, updated or deleted.

    ``version`` numbers the shapes of all tables within one log: the same number, the same ``relation``.
    """

    transaction: Committed
    n: int
    version: int
    relation: Relation
    data: bytes

    @property
    def place(self) -> Place:
        """Where it stands."""
        return self.transaction.lsn, self.n

    @property
    def kind(self) -> Kind:
        """What happened to the row."""
        return KINDS[self.data[0]]

    def images(self) -> tuple[Image | None, Image | None]:
        """The row before and after, decoded at each call.

        UNCHANGED is what the server did not send: of the old row all that is no key unless the table's identity is
        full, of the new one then also large values that stayed.
        """
        old, new, _ = self.edits()
        return old, new

    def edits(self) -> tuple[Image | None, Image | None, Sequence[int] | None]:
        """The same, with the cells in which the images differ, where these are known beforehand."""
        old, new, edited = row_images(self.data)
        if edited is None and old is not None and not is_full(self.data):
            columns = self.relation.columns
            old = tuple(cell if column.key else UNCHANGED for column, cell in zip(columns, old, strict=True))
        return old, new, edited


class Note(NamedTuple):
    """A message with our prefix: what a transaction said of itself.  Anybody can write one: look at the origin."""

    transaction: Committed
    n: int
    content: str

    @property
    def place(self) -> Place:
        """Where it stands."""
        return self.transaction.lsn, self.n


class Emptied(NamedTuple):
    """Tables were truncated."""

    transaction: Committed
    n: int
    relations: tuple[Relation, ...]

    @property
    def place(self) -> Place:
        """Where it stands."""
        return self.transaction.lsn, self.n


class Done(NamedTuple):
    """The transaction is complete."""

    transaction: Committed
    end: int

    @property
    def place(self) -> Place:
        """The place behind the transaction."""
        return (self.end,)


Entry: TypeAlias = Row | Note | Emptied | Done


def lsn_text(lsn: int) -> str:
    """An LSN as PostgreSQL writes it: ``16/B374D848``."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"


def lsn_of(text: str) -> int:
    """The inverse of ``lsn_text``."""
    high, low = text.split("/")
    return int(high, 16) << 32 | int(low, 16)


def shown(place: Place) -> str:
    """A place for people."""
    return lsn_text(place[0]) if place else "the beginning"
