"""The audit: which changes were applied, a compressed block for each commit of ours.

A block belongs to a commit in one side and is written just before it, so it is provisional like all such entries.  It
is one row of the journal, whatever it holds: the lines of the block as JSON, compressed, and beside them a number for
each record that they are about, by which a record's lines are found without unpacking the others.

A *line* is a list, so that thousands can be written at once:

- a change: ``[kind, carrier, key, new key, natural key, origin, place, verdict, source, target]``; ``origin`` is the
  number of the block's origin (feed, commit time, transaction), ``source`` and ``target`` are the images at the side
  where it was made and where it was applied: a row for ``insert`` and ``delete``, else cells that differ as index, old,
  new, index, …;
- updates that follow one another and differ in their keys and values only: ``["updates", carrier, natural keys (or null
  where they are the keys), origin, place but its last number, verdict, last numbers, source, target, keys]``, of which
  ``source`` and ``target`` are the index of a cell, a list of what it was and one of what it is, the next index, …;
- ``["parked", carrier, key, code, reason]`` and ``["freed", carrier, key, how]``.
"""

from __future__ import annotations

import json
import zlib
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final, TypeAlias

from dualwrite.journal.layout import Layout
from dualwrite.model import ABSENT, Cell, Key, Position, Side

Line: TypeAlias = list[object]
PARKED: Final = "parked"
FREED: Final = "freed"
UPDATES: Final = "updates"
LEVEL: Final = 1


@dataclass(frozen=True, slots=True)
class Carrier:
    """With which version of which map something was carried, and of what each side's rows are."""

    map: str
    version: str
    publisher: str
    left: Layout
    right: Layout

    def layout(self, side: Side) -> Layout:
        """Of what the rows of a side are."""
        return self.left if side is Side.LEFT else self.right


@dataclass(frozen=True, slots=True)
class Retention:
    """How long the audit is kept: lines older than ``days`` go, and the oldest beyond ``size`` bytes."""

    days: int = 90
    size: int = 1 << 30


@dataclass(frozen=True, slots=True)
class Block:
    """What one commit of ours in ``side`` did, as the journal keeps it."""

    side: Side
    number: int
    at: float
    changes: int
    keys: bytes
    lines: bytes


Images: TypeAlias = Mapping[str, tuple[Cell, Cell]]
"""By path a record's cells before and after; ``ABSENT`` for what was not known, or not there."""


@dataclass(frozen=True, slots=True)
class Audited:
    """One line of the audit.  ``side`` is where it was applied, ``at`` when.

    ``what`` is ``insert``, ``update``, ``delete``, ``restored`` (one-way columns put back from the other side), or
    ``parked`` and ``freed``, of which the ``verdict`` says why.  ``natural`` is the record's key before the change, as
    the side has it where the change was made (of one that an initial sync found, where it was applied).  ``made`` is
    when the change was committed at the other side, ``position`` where it stands in that side's feed, ``transaction``
    that system's own number for it (0: it has none).  ``source`` and ``target`` are the images there and here.
    """

    id: str
    at: float
    side: Side
    number: int
    carrier: Carrier
    key: Key
    new_key: Key
    natural: Key
    what: str
    verdict: str
    made: float = 0.0
    position: Position | None = None
    transaction: int = 0
    source: Images | None = None
    target: Images | None = None

    @property
    def order(self) -> tuple[int, int]:
        """Its place among all lines."""
        return order_of(self.id)

    def images(self, side: Side) -> Images | None:
        """The images at a side."""
        return self.target if side is self.side else self.source


def order_of(id: str) -> tuple[int, int]:
    """The number of the block, and of the line in it; raises ValueError for what is no id."""
    block, _, line = id.partition(".")
    return int(block), int(line or 1)


# -- writing ----------------------------------------------------------------------------------------------------------


def key_number(key: Key) -> int:
    """The number under which a record's lines are found; others may have it as well."""
    text = "\x1f".join([member or "" for member in key]) if len(key) != 1 else key[0] or ""
    return zlib.crc32(text.encode("utf-8", "surrogatepass"))


class BlockWriter:
    """Gathers the lines of one commit."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self._keys: list[int] = []
        self._origins: dict[tuple[str, float, int], int] = {}
        self._more = 0  # changes that stand in one line with others

    def origin(self, feed: str, made: float, transaction: int) -> int:
        """The number of an origin in this block."""
        return self._origins.setdefault((feed, made, transaction), len(self._origins))

    def add(self, line: Line, key: Key, new_key: Key | None = None) -> None:
        """Add a line about a record, and about the one that it became."""
        self.lines.append(line)
        self._keys.append(key_number(key))
        if new_key is not None:
            self._keys.append(key_number(new_key))

    def updates(self, common: Line, keys: Sequence[Key]) -> None:
        """Add updates of these records, but their keys as they stand in one line."""
        self.lines.append([UPDATES, *common, keys])
        self._keys += map(key_number, keys)
        self._more += len(keys) - 1

    def block(self, side: Side, number: int, at: float) -> Block:
        """The block, packed."""
        text = _ENCODER.encode([list(self._origins), self.lines])
        packed = zlib.compress(text.encode("utf-8", "surrogatepass"), LEVEL)
        keys = array("I", sorted(set(self._keys)))
        return Block(side, number, at, len(self.lines) + self._more, keys.tobytes(), packed)


def _absent(_cell: object) -> bool:
    """What no JSON value can stand for is ``ABSENT``."""
    return False


_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=_absent, check_circular=False)


# -- reading ----------------------------------------------------------------------------------------------------------


def mentions(keys: bytes, wanted: bytes) -> bool:
    """May a block with these keys be about a record?  ``wanted`` is its number as four bytes (``packed_number``)."""
    place = keys.find(wanted)
    while place > 0 and place % 4:
        place = keys.find(wanted, place + 1)
    return place >= 0


def packed_number(key: Key) -> bytes:
    """A record's number as blocks hold it."""
    return array("I", [key_number(key)]).tobytes()


def lines_of(id: int, block: Block, carrier: Callable[[int], Carrier]) -> Iterator[Audited]:
    """The lines of a block, in the order in which they were applied; ``id`` is the block's number in the journal."""
    origins, lines = json.loads(zlib.decompress(block.lines).decode("utf-8", "surrogatepass"))
    for number, line in enumerate(chain.from_iterable(map(_singly, lines)), 1):
        yield _line(f"{id}.{number}", block, line, origins, carrier(line[1]))


def _singly(line: list[Any]) -> Iterator[list[Any]]:
    """The lines for which a line stands."""
    if line[0] != UPDATES:
        yield line
        return
    _, carrier, naturals, origin, place, verdict, *columns = line
    lasts, source, target, keys = map(_list, columns)
    sources, targets = (zip(*_whole(cells, len(keys)), strict=True) for cells in (source, target))
    each = zip(keys, _list(naturals or keys), lasts, sources, targets, strict=True)
    for key, natural, last, mine, theirs in each:
        known = None if natural == key else natural
        yield ["update", carrier, key, None, known, origin, [*_list(place), last], verdict, [*mine], [*theirs]]


def _whole(columns: list[Any], count: int) -> Iterator[list[Any]]:
    """The columns, those too of which one value stands for all."""
    return (column if isinstance(column, list) else [column] * count for column in columns)


def _line(id: str, block: Block, line: Sequence[object], origins: Sequence[Sequence[object]], of: Carrier) -> Audited:
    what, _, key, *rest = line
    record = _key(key)
    if what in (PARKED, FREED):
        verdict = ": ".join(map(str, rest))
        return Audited(id, block.at, block.side, block.number, of, record, record, record, str(what), verdict)
    new_key, natural, origin, place, decided, source, target = rest
    feed, made, transaction = origins[int(str(origin))] if origin is not None else ("", 0.0, 0)
    return Audited(
        id,
        block.at,
        block.side,
        block.number,
        of,
        record,
        record if new_key is None else _key(new_key),
        record if natural is None else _key(natural),
        str(what),
        str(decided),
        float(str(made)),
        Position(str(feed), tuple(_list(place))) if place is not None else None,
        int(str(transaction)),
        _images(str(what), source, of.layout(block.side.other)),
        _images(str(what), target, of.layout(block.side)),
    )


def _key(value: object) -> Key:
    assert isinstance(value, list)
    return tuple(value)


def _list(value: object) -> list[Any]:
    assert isinstance(value, list)
    return value


def _images(what: str, cells: object, layout: Layout) -> Images | None:
    if cells is None:
        return None
    assert isinstance(cells, list)
    known = [ABSENT if cell is False else cell for cell in cells]
    if what == "insert":
        return {path: (ABSENT, cell) for path, cell in zip(layout.paths, known, strict=False) if cell is not ABSENT}
    if what == "delete":
        return {path: (cell, ABSENT) for path, cell in zip(layout.paths, known, strict=False) if cell is not ABSENT}
    edits = zip(cells[0::3], known[1::3], known[2::3], strict=True)
    return {layout.paths[index]: (old, new) for index, old, new in edits}
