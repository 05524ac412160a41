"""What PostgreSQL's ``pgoutput`` plugin (protocol version 1) says, from bytes to values.  Pure.

A transaction arrives whole, after its commit: ``Begin``, its ``Origin`` if another system's, then ``Relation``,
``RowChange``, ``Truncate`` and ``Message`` in the order of the work, and ``Commit``.  A ``Relation`` comes before the
first row of its table and again whenever the table has changed its shape: it holds for the rows behind it.

Log sequence numbers (LSNs) are integers, times are seconds since the epoch (UTC).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from itertools import compress, count
from operator import ne
from struct import Struct
from typing import Final, NamedTuple, TypeAlias

from dualwrite.model import Kind

BEGIN: Final = 0x42
COMMIT: Final = 0x43
ORIGIN: Final = 0x4F
RELATION: Final = 0x52
TYPE: Final = 0x59
INSERT: Final = 0x49
UPDATE: Final = 0x55
DELETE: Final = 0x44
TRUNCATE: Final = 0x54
MESSAGE: Final = 0x4D
KINDS: Final = {INSERT: Kind.INSERT, UPDATE: Kind.UPDATE, DELETE: Kind.DELETE}
"""What happened to a row, by the first byte of its message."""


class Unsent(Enum):
    """What stands for a cell that the server has not sent."""

    UNCHANGED = "unchanged"

    def __repr__(self) -> str:
        return "UNCHANGED"


UNCHANGED: Final = Unsent.UNCHANGED
"""In a new image: a large value that is as it was; in an old one: a column that is not part of the identity."""

Cell: TypeAlias = str | Unsent | None
Image: TypeAlias = tuple[Cell, ...]
"""A row's cells as PostgreSQL's text, in the order of its relation's columns."""


@dataclass(frozen=True, slots=True)
class Begin:
    """A transaction follows whose commit stands at ``commit``; ``at`` is its time, or what its origin said it is."""

    commit: int
    at: float
    xid: int


@dataclass(frozen=True, slots=True)
class Commit:
    """The transaction is complete; the next one commits at ``end`` or behind it."""

    commit: int
    end: int
    at: float


@dataclass(frozen=True, slots=True)
class Origin:
    """The transaction repeats what another system did, which had it at ``lsn``."""

    lsn: int
    name: str


@dataclass(frozen=True, slots=True)
class Column:
    """A published column.  ``key``: part of the replica identity."""

    name: str
    type: int
    modifier: int
    key: bool


@dataclass(frozen=True, slots=True)
class Relation:
    """A table's shape for the rows that follow.  ``identity`` is ``d``efault, ``n``othing, ``f``ull or ``i``ndex."""

    oid: int
    schema: str
    name: str
    identity: str
    columns: tuple[Column, ...]


@dataclass(frozen=True, slots=True)
class Type:
    """The name of a type that is not built in."""

    oid: int
    schema: str
    name: str


class RowChange(NamedTuple):
    """One row was inserted, updated or deleted.

    ``old`` is None for an insert, and for an update of a table without full identity whose key stays.  ``full``:
    ``old`` is the whole row, and ``new`` has no UNCHANGED cells; otherwise only the key cells of ``old`` mean something
    (the others arrive as null).  ``edited`` are the cells in which two whole rows differ, where that is known.
    """

    kind: Kind
    relation: int
    old: Image | None
    new: Image | None
    full: bool
    edited: Sequence[int] | None = None


@dataclass(frozen=True, slots=True)
class Truncate:
    """Tables were emptied."""

    relations: tuple[int, ...]
    cascade: bool
    restart: bool


@dataclass(frozen=True, slots=True)
class Message:
    """What somebody has put into the log; ``transactional``: as a part of this transaction."""

    transactional: bool
    lsn: int
    prefix: str
    content: bytes


Wire: TypeAlias = Begin | Commit | Origin | Relation | Type | RowChange | Truncate | Message

_EPOCH: Final = 946_684_800  # 2000-01-01, where PostgreSQL's microseconds begin
_begin: Final = Struct(">QqI").unpack_from
_commit: Final = Struct(">QQq").unpack_from
_long: Final = Struct(">Q").unpack_from
_int: Final = Struct(">I").unpack_from
_short: Final = Struct(">H").unpack_from
_column: Final = Struct(">Ii").unpack_from
_NEW: Final = 0x4E
_FULL: Final = 0x4F
_NULL: Final = 0x6E
_TEXT: Final = 0x74
_TOAST: Final = 0x75


def decode(data: bytes) -> Wire:
    """The message that these bytes are; raises ValueError for what protocol version 1 does not have."""
    match data[0]:
        case 0x49 | 0x55 | 0x44:
            return row_change(data)
        case 0x42:
            return Begin(*begin_of(data))
        case 0x43:
            commit, end, at = _commit(data, 2)
            return Commit(commit, end, _time(at))
        case 0x52:
            return _relation(data)
        case 0x4F:
            return Origin(_long(data, 1)[0], _text(data, 9)[0])
        case 0x4D:
            return _message(data)
        case 0x54:
            (count,), options = _int(data, 1), data[5]
            relations = tuple(_int(data, 6 + 4 * index)[0] for index in range(count))
            return Truncate(relations, bool(options & 1), bool(options & 2))
        case 0x59:
            schema, at = _text(data, 5)
            return Type(_int(data, 1)[0], schema or "pg_catalog", _text(data, at)[0])
        case tag:
            raise ValueError(f"pgoutput message {chr(tag)!r} is not part of protocol version 1")


def begin_of(data: bytes) -> tuple[int, float, int]:
    """What a ``Begin`` consists of: there is one for each transaction."""
    commit, at, xid = _begin(data, 1)
    return commit, _time(at), xid


def end_of(data: bytes) -> int:
    """The ``end`` of a ``Commit``."""
    return int.from_bytes(data[10:18])


def relation_of(data: bytes) -> int:
    """The oid of the table that a row's message is about, without decoding the row."""
    return int.from_bytes(data[1:5])


def row_change(data: bytes) -> RowChange:
    """The same as ``decode`` for the bytes of an insert, update or delete."""
    old, new, edited = row_images(data)
    return RowChange(KINDS[data[0]], relation_of(data), old, new, is_full(data), edited)


def is_full(data: bytes) -> bool:
    """Is the old image of a row's message the whole row?"""
    return data[5] == _FULL


def row_images(data: bytes) -> tuple[Image | None, Image | None, Sequence[int] | None]:
    """The images of a row's message, and in which cells they differ, as in ``RowChange``."""
    tag, what = data[0], data[5]
    if tag == INSERT:
        return None, _only_image(data), None
    if tag == DELETE:
        return _only_image(data), None, None
    both = _both_images(data) if what == _FULL else None
    if both is not None:
        return both
    old, at, _ = (None, 5, True) if what == _NEW else _image(data, 6)
    new, _, complete = _image(data, at + 1)
    if not complete and what == _FULL and old is not None:
        new = tuple(was if cell is UNCHANGED else cell for was, cell in zip(old, new, strict=True))
    return old, new, None


# -- rows of short cells -----------------------------------------------------------------------------------------------
#
# A text of fewer than 256 bytes is sent as ``t``, its length in four bytes, and itself.  No text holds a zero byte, so
# these four bytes without the last one stand where such a cell begins, and nowhere else: a message is cut up there at
# once.  Each part begins with a length; what lies behind as many bytes are nulls, or cells that are no short texts.

_SHORT: Final = b"t\0\0\0"


def _only_image(data: bytes) -> Image:
    """The one image of an insert or delete."""
    parts = data[8:].split(_SHORT)
    if len(parts) - 1 == data[6] << 8 | data[7]:  # nothing but short texts
        return tuple([part[1:].decode() for part in parts[1:]])
    return _image(data, 6)[0]


def _both_images(data: bytes) -> tuple[Image, Image, Sequence[int]] | None:
    """Both images of an update and the cells in which they differ, which alone are decoded twice.

    None where one of them has other cells than short texts and nulls, or the nulls are not the same ones.
    """
    before, *parts = data[8:].split(_SHORT)
    middle = len(parts) // 2
    ending = b"N" + data[6:8] + before  # the zero byte of the count tells the end of the old image from any text
    if data[6] or not parts or len(parts) % 2 or not parts[middle - 1].endswith(ending):
        return None
    parts[middle - 1] = parts[middle - 1][: -len(ending)]
    olds, news = parts[:middle], parts[middle:]
    edited = list(compress(count(), map(ne, olds, news)))
    if middle == data[7]:
        old: list[Cell] = [part[1:].decode() for part in olds]
        new = old.copy()
        for index in edited:
            new[index] = news[index][1:].decode()
        return tuple(old), tuple(new), edited
    return _both_with_nulls(before, olds, news, edited)


def _both_with_nulls(
    before: bytes, olds: Sequence[bytes], news: Sequence[bytes], edited: Sequence[int]
) -> tuple[Image, Image, Sequence[int]] | None:
    """As ``_both_images``, of parts with nulls behind their texts (and ``before`` the first one)."""
    if before.strip(b"n"):
        return None
    old: list[Cell] = [None] * len(before)
    places = []
    for part in olds:
        places.append(len(old))
        end = part[0] + 1
        old.append(part[1:end].decode())
        nulls = part[end:]
        if nulls:
            if nulls.strip(b"n"):
                return None
            old += [None] * len(nulls)
    new = old.copy()
    for index in edited:
        was, now = olds[index], news[index]
        end = now[0] + 1
        if was[was[0] + 1 :] != now[end:]:
            return None
        new[places[index]] = now[1:end].decode()
    return tuple(old), tuple(new), [places[index] for index in edited]


def _image(data: bytes, at: int) -> tuple[Image, int, bool]:
    """The cells from there on, where they end, and whether all were sent.

    The hottest loop of capture: no call without need.
    """
    cells: list[Cell] = []
    add = cells.append
    complete = True
    count = data[at] << 8 | data[at + 1]
    at += 2
    for _ in range(count):
        tag = data[at]
        if tag == _TEXT:
            size = data[at + 4]
            if data[at + 3] or data[at + 2] or data[at + 1]:  # few values have more than 255 bytes
                size = int.from_bytes(data[at + 1 : at + 5])
            start = at + 5
            at = start + size
            add(data[start:at].decode())
        elif tag == _NULL:
            add(None)
            at += 1
        elif tag == _TOAST:
            add(UNCHANGED)
            complete = False
            at += 1
        else:
            raise ValueError(f"pgoutput cell of kind {chr(tag)!r} is not text")
    return tuple(cells), at, complete


def _time(micros: int) -> float:
    return _EPOCH + micros / 1_000_000


def _text(data: bytes, at: int) -> tuple[str, int]:
    end = data.index(0, at)
    return data[at:end].decode(), end + 1


def _message(data: bytes) -> Message:
    prefix, at = _text(data, 10)
    return Message(bool(data[1] & 1), _long(data, 2)[0], prefix, data[at + 4 : at + 4 + _int(data, at)[0]])


@lru_cache(maxsize=10_000)  # the same description comes again and again
def _relation(data: bytes) -> Relation:
    schema, at = _text(data, 5)
    name, at = _text(data, at)
    identity, (count,) = chr(data[at]), _short(data, at + 1)
    at += 3
    columns = []
    for _ in range(count):
        flags = data[at]
        column, at = _text(data, at + 1)
        type_oid, modifier = _column(data, at)
        at += 8
        columns.append(Column(column, type_oid, modifier, bool(flags & 1)))
    return Relation(_int(data, 1)[0], schema or "pg_catalog", name, identity, tuple(columns))
