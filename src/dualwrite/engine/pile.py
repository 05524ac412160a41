"""Findings on disk: what may be as many as a table has rows."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import IO, Generic, TypeVar

from dualwrite.engine.spool import BLOCK, scratch
from dualwrite.lined import LARGEST

Item = TypeVar("Item")


class Pile(Generic[Item]):
    """Items in the order in which they came; the last ones are in memory, the others on disk.

    It may be read as often as is wanted, but not added to meanwhile.
    """

    def __init__(self) -> None:
        self._last: list[Item] = []
        self._size = 0  # bytes of the last ones, as far as is known
        self._file: IO[bytes] | None = None
        self._blocks = self._count = 0

    def append(self, item: Item, size: int = 0) -> None:
        """Add an item of about so many bytes."""
        self._last.append(item)
        self._count += 1
        self._size += size
        if len(self._last) >= BLOCK or self._size >= LARGEST:
            self._put_down()

    def _put_down(self) -> None:
        if self._file is None:
            self._file = scratch(self)
        self._file.seek(0, 2)
        pickle.dump(self._last, self._file)
        self._blocks += 1
        self._last, self._size = [], 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Item]:
        for block in self.blocks():
            yield from block

    def blocks(self) -> Iterator[list[Item]]:
        """All items, in lists of at most ``BLOCK``."""
        where = 0
        for _ in range(self._blocks):
            assert self._file is not None, "there are blocks"
            self._file.seek(where)  # somebody else may read as well
            block: list[Item] = pickle.load(self._file)
            where = self._file.tell()
            yield block
        if self._last:
            yield list(self._last)

    def close(self) -> None:
        """Give the disk space back."""
        if self._file is not None:
            self._file.close()
