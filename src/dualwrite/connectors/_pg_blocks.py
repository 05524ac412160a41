"""A long row of items, cut into blocks: the newest in memory, older ones in scratch files that vanish with the process.

So neither a large transaction nor a long backlog needs more memory (some 300 bytes per thousand rows apart).  Blocks
know from where to where they reach and what kinds of items are in them, so that few of them need be looked at.

Not thread-safe: whoever owns them holds a lock.
"""

from __future__ import annotations

import marshal
import os
import tempfile
from bisect import bisect_right
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass
from typing import IO, Any, Final, TypeAlias

from dualwrite.connectors._pg_entries import Committed, Place

HELD: Final = 20_000
"""Items held in memory."""
HELD_BYTES: Final = 32 << 20
"""Bytes of them: rows may be large."""
BLOCK: Final = 1_000
"""Items that are written to disk, and read from there, as one."""
BLOCK_BYTES: Final = 1 << 20
"""Bytes from which on fewer make a block."""
_SEGMENT: Final = 64 << 20
_LOADED: Final = 3  # blocks from disk that are kept: one for each of several readers

Item: TypeAlias = tuple[int, Any]
"""A number that says what it is, and what belongs to it."""


@dataclass(slots=True)
class _Segment:
    """A scratch file, and how many blocks in it are still needed."""

    file: IO[bytes]
    size: int = 0
    blocks: int = 0


class Block:
    """Items that follow one another, in memory or on disk, up to the place ``last``.

    ``head`` is the transaction that is open where the block begins, ``n`` how many entries it had so far; ``tags`` are
    the numbers by which its items can be wanted.  ``begins`` are the places of its transactions' beginnings among the
    items, while these are in memory.
    """

    __slots__ = ("begins", "bytes", "head", "items", "last", "n", "offset", "rows", "segment", "size", "tags")

    def __init__(self, head: Committed | None, n: int) -> None:
        self.head = head
        self.n = n
        self.items: list[Item] | None = []
        self.last: Place = ()
        self.tags: set[int] = set()
        self.begins: list[tuple[int, int]] = []  # commit LSN, index
        self.rows = 0
        self.bytes = 0
        self.segment: _Segment | None = None
        self.offset = 0
        self.size = 0


def _last(block: Block) -> Place:
    return block.last


def _begun(begin: tuple[int, int]) -> int:
    return begin[0]


class Blocks:
    """The items; ``most`` of them are held in memory."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._blocks = [Block(None, 0)]
        self._warm: deque[Block] = deque()
        self._held = 0
        self._held_bytes = 0
        self._segment: _Segment | None = None
        self._loaded: deque[tuple[Block, list[Item]]] = deque(maxlen=_LOADED)
        self.stored = 0
        """Bytes of scratch files."""

    @property
    def held(self) -> int:
        """Items in memory, those read from disk included."""
        return self._held + sum(len(items) for _, items in self._loaded)

    # -- putting in -----------------------------------------------------------------------------------------------

    def add(self, items: list[Item], tags: Collection[int], size: int, last: Place, begun: int | None = None) -> None:
        """Put items, of so many bytes, behind the others; the last one stands at a place.

        ``begun``: where they begin a transaction, the LSN of its commit.
        """
        block = self._blocks[-1]
        assert block.items is not None, "the newest block is in memory"
        if begun is not None:
            block.begins.append((begun, len(block.items)))
        block.items += items
        block.tags.update(tags)
        block.rows += len(items)
        block.bytes += size
        block.last = last
        self._held += len(items)
        self._held_bytes += size

    @property
    def is_due(self) -> bool:
        """Is the newest block as large as blocks are?"""
        block = self._blocks[-1]
        return block.rows >= BLOCK or block.bytes >= BLOCK_BYTES

    def seal(self, head: Committed | None, n: int) -> None:
        """Begin another block, within a transaction that had so many entries."""
        self._warm.append(self._blocks[-1])
        self._blocks.append(Block(head, n))
        while self._warm and (self._held > self._most or self._held_bytes > HELD_BYTES):
            self._spill(self._warm.popleft())

    def _spill(self, block: Block) -> None:
        packed = marshal.dumps(block.items)
        segment = self._segment
        if segment is None or segment.size > _SEGMENT:
            segment = self._segment = _Segment(tempfile.TemporaryFile(prefix="dualwrite-"))  # noqa: SIM115 (kept open)
        block.segment, block.offset, block.size = segment, segment.size, len(packed)
        segment.file.seek(segment.size)
        segment.file.write(packed)
        segment.file.flush()
        segment.size += len(packed)
        self.stored += len(packed)
        segment.blocks += 1
        block.items, block.begins = None, []
        self._held -= block.rows
        self._held_bytes -= block.bytes

    # -- taking out -----------------------------------------------------------------------------------------------

    def after(self, place: Place, wanted: Collection[int] | None = None) -> Block | None:
        """The first block that reaches beyond a place, and has one of the wanted tags in it (None: any block)."""
        for index in range(bisect_right(self._blocks, place, hi=self._filled, key=_last), self._filled):
            block = self._blocks[index]
            if wanted is None or not block.tags.isdisjoint(wanted):
                return block
        return None

    @property
    def _filled(self) -> int:
        return len(self._blocks) - (not self._blocks[-1].items)

    def items(self, block: Block) -> list[Item]:
        """The items of a block."""
        if block.items is not None:
            return block.items
        for loaded, items in self._loaded:
            if loaded is block:
                return items
        assert block.segment is not None, "a block is in memory or on disk"
        found: list[Item] = marshal.loads(os.pread(block.segment.file.fileno(), block.size, block.offset))
        self._loaded.append((block, found))
        return found

    @staticmethod
    def start(block: Block, place: Place) -> int:
        """The index of an item of the block before which nothing lies behind the place."""
        known = bisect_right(block.begins, place[0], key=_begun)
        return block.begins[known - 1][1] if known else 0

    # -- letting go -----------------------------------------------------------------------------------------------

    def reaches(self, until: Place) -> bool:
        """Is there something in the newest block, and nothing of it behind this place?"""
        last = self._blocks[-1]
        return bool(last.items) and last.last <= until

    def trim(self, until: Place) -> Place | None:
        """Forget the sealed blocks with nothing behind this place; where the last of them ended."""
        gone = bisect_right(self._blocks, until, hi=self._filled, key=_last)
        for block in self._blocks[:gone]:
            self._forget(block)
        last = self._blocks[gone - 1].last if gone else None
        del self._blocks[:gone]
        return last

    def _forget(self, block: Block) -> None:
        if block.segment is None:
            self._warm.remove(block)  # the oldest: found at once
            self._held -= block.rows
            self._held_bytes -= block.bytes
            return
        for index, (loaded, _) in enumerate(self._loaded):
            if loaded is block:
                del self._loaded[index]
                break
        block.segment.blocks -= 1
        if not block.segment.blocks:
            self.stored -= block.segment.size
            block.segment.file.close()
            if block.segment is self._segment:
                self._segment = None

    def close(self) -> None:
        """Give memory and disk space back.  Idempotent."""
        for block in self._blocks:
            if block.segment is not None:
                block.segment.file.close()
        self._segment, self.stored = None, 0
        self._warm, self._blocks = deque(), [Block(None, 0)]
        self._loaded.clear()
        self._held = self._held_bytes = 0
