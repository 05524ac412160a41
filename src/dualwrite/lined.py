"""Many rows as lines of text, which most of the way nobody needs to take apart.

A line holds the cells of a row, parted by tabs: a cell's text with backslashes before what would end a cell or a line,
and ``\\N`` for null.  That is PostgreSQL's text format for COPY; the line's end belongs to it.  Rows are taken apart
and put together by few operations on long texts, with a second look only where a backslash is: a value in a cell must
never be taken for a part of the format, nor a part of the format for a value.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import repeat
from operator import itemgetter
from typing import Final, TypeAlias, TypeVar, overload

from dualwrite.model import ABSENT, Cell, Change, Row, Value

_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)
_MEANT: Final = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_WRITTEN: Final = str.maketrans({"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"})
_NOTHING: Final = frozenset(b"\t\n\\")
"""What a line may begin with whose first cell is empty or null."""
_NOTHINGS: Final = frozenset({b"", rb"\N"})
PIECE: Final = 1_000
"""Rows that are worked on at once."""
LARGEST: Final = 8 << 20
"""Characters of rows that are worked on, or wait for something, at once: rows may be large."""
_WEIGHED: Final = 8
_T = TypeVar("_T")


class BadTextError(ValueError):
    """A text holds what no line can: a zero character, half of a surrogate pair, or nothing that is known."""


def encoded(text: str) -> bytes:
    """The bytes of a text; raises BadTextError for half of a surrogate pair."""
    try:
        return text.encode()
    except UnicodeEncodeError as exc:
        raise BadTextError(str(exc)) from None


def checked(text: str) -> bytes:
    """The same; raises BadTextError for a zero character as well."""
    found = encoded(text)
    if b"\0" in found:
        raise BadTextError("a zero character")
    return found


# -- from lines to rows ----------------------------------------------------------------------------------------------


def rows_of(lines: Sequence[bytes], width: int) -> list[Row]:
    """The rows of lines, each of so many cells."""
    text = b"".join(lines).decode()
    cells: list[Value] = text.replace("\n", "\t").split("\t")  # type: ignore[assignment]  # a list of texts is one of values
    cells.pop()  # behind the last line
    if "\\" in text:
        cells = [None if cell == r"\N" else _meant(cell) if "\\" in cell else cell for cell in cells]  # type: ignore[operator,arg-type]  # they are texts still
    return list(zip(*[iter(cells)] * width, strict=True))


def _meant(cell: str) -> str:
    return _ESCAPED.sub(lambda found: _MEANT.get(found[1], found[1]), cell)


# -- from rows to lines ----------------------------------------------------------------------------------------------


def text_of(rows: Sequence[Row]) -> bytes:
    """The lines of rows (at least one cell each) in one; raises BadTextError, also for ABSENT."""
    try:
        text, nulls = _joined(rows), 0
    except TypeError:  # something is no text
        nulls = sum([row.count(None) for row in rows])
        try:
            text = _joined([["\0N" if cell is None else cell for cell in row] for row in rows])
        except TypeError:
            raise BadTextError("a cell that is not known") from None
    plain = (
        text.count("\n") == len(rows)
        and text.count("\t") == len(rows) * (len(rows[0]) - 1)
        and text.count("\0") == nulls
        and "\\" not in text
        and "\r" not in text
    )
    if not plain:
        return text_of_columns(list(zip(*rows, strict=True)))  # nothing is ABSENT
    return encoded(text.replace("\0", "\\") if nulls else text)


def _joined(rows: Sequence[Sequence[Cell]]) -> str:
    """Fails where a cell is no text."""
    return "\n".join([*map("\t".join, rows), ""])  # type: ignore[arg-type]  # so it does


def text_of_columns(columns: Sequence[Sequence[Value]]) -> bytes:
    """The same of the rows that these columns (at least one) make up."""
    cells = [_written(column) for column in columns]
    lines = map("\t".join, zip(*cells, strict=True)) if len(cells) > 1 else iter(cells[0])
    return checked("\n".join([*lines, ""]))


def _written(column: Sequence[Value]) -> Sequence[str]:
    try:
        joined = "".join(column)  # type: ignore[arg-type]  # it fails where there is a None
    except TypeError:
        return [r"\N" if value is None else value.translate(_WRITTEN) for value in column]
    if any(char in joined for char in "\\\t\n\r"):
        return [value.translate(_WRITTEN) for value in column if value is not None]
    return column  # type: ignore[return-value]  # there is no None


# -- rows that nobody has taken apart yet ----------------------------------------------------------------------------


class Later(Sequence[_T]):
    """A sequence of known length that is made when somebody looks into it."""

    def __init__(self, length: int, make: Callable[[], Sequence[_T]]) -> None:
        self._length = length
        self._make = make
        self._made: Sequence[_T] | None = None

    @property
    def _items(self) -> Sequence[_T]:
        if self._made is None:
            self._made = self._make()
        return self._made

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[_T]:
        return iter(self._items)

    @overload
    def __getitem__(self, index: int) -> _T: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[_T]: ...

    def __getitem__(self, index: int | slice) -> _T | Sequence[_T]:
        return self._items[index]


Carry: TypeAlias = Callable[[Sequence[bytes]], Sequence[bytes]]
"""Makes other lines of lines; raises BadTextError."""


class Lined(Later[Row]):
    """Rows that are lines still.

    ``cells`` tells where the cells of a line stand in a row of ``width`` cells (None: they are all of them, in order);
    the others of the row are ABSENT.
    """

    def __init__(
        self, lines: Sequence[bytes], width: int, cells: Iterable[int] | None = None, carry: Carry | None = None
    ) -> None:
        """With ``carry``, the lines are what it makes of these, a few at a time and only when they are wanted."""
        self.width = width
        self.cells = tuple(range(width) if cells is None else cells)
        self._given = lines
        self._carry = carry
        super().__init__(len(lines), partial(_rows, lines, width, self.cells, carry))

    @property
    def lines(self) -> Sequence[bytes]:
        """All lines; raises BadTextError where they cannot be made."""
        return self._given if self._carry is None else self._carry(self._given)

    def pieces(self, size: int = PIECE) -> Iterator[Lined]:
        """The same rows, a few at a time: what fits into the processor's memory is worked on much faster."""
        for start in range(0, len(self), size):
            given = self._given[start : start + size]
            yield Lined(given if self._carry is None else self._carry(given), self.width, self.cells)

    @overload
    def __getitem__(self, index: int) -> Row: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Row]: ...

    def __getitem__(self, index: int | slice) -> Row | Sequence[Row]:
        if isinstance(index, slice):
            return Lined(self._given[index], self.width, self.cells, self._carry)
        if self._made is None:
            return _rows([self._given[index]], self.width, self.cells, self._carry)[0]
        return self._made[index]

    @property
    def text(self) -> bytes:
        """All lines in one."""
        return b"".join(self.lines)

    @property
    def weight(self) -> int:
        """How many bytes the lines have from which these rows are made."""
        return sum(map(len, self._given))

    @property
    def begins(self) -> bool:
        """Has every row surely something in its first cell, neither null nor the empty text?"""
        return _NOTHING.isdisjoint(map(itemgetter(0), self.lines))

    def fills(self, cell: int) -> bool:
        """Has every row surely something in a cell?"""
        place = self.cells.index(cell)
        if not place:
            return self.begins
        return _NOTHINGS.isdisjoint(line[:-1].split(b"\t", place + 1)[place] for line in self.lines)

    def beginning(self, count: int) -> Lined:
        """The same rows; behind the first ``count`` cells of the lines, everything is ABSENT."""
        lines = [b"\t".join(line[:-1].split(b"\t", count)[:count]) + b"\n" for line in self.lines]
        return Lined(lines, self.width, self.cells[:count])

    def parted(self, count: int) -> tuple[list[bytes], list[bytes]]:
        """Of each line its first ``count`` cells, and all that is behind them."""
        return parted(self.lines, len(self.cells) - count)


def parted(lines: Sequence[bytes], cells: int) -> tuple[list[bytes], list[bytes]]:
    """Of each line what is before its last so many cells, and all behind that."""
    if not cells:
        return [line[:-1] for line in lines], [b"\n"] * len(lines)
    heads = [line.rsplit(b"\t", cells)[0] for line in lines]
    return heads, [line[len(head) :] for head, line in zip(heads, lines, strict=True)]


def _rows(lines: Sequence[bytes], width: int, cells: Sequence[int], carry: Carry | None) -> list[Row]:
    rows = rows_of(lines if carry is None else carry(lines), len(cells))
    if cells == tuple(range(width)) or not rows:
        return rows
    columns: list[Sequence[Cell] | repeat[Cell]] = [repeat(ABSENT)] * width
    for cell, column in zip(cells, zip(*rows, strict=True), strict=True):
        columns[cell] = column
    return list(zip(*columns, strict=False))  # the repeated ones have no end


def weight(rows: Sequence[Sequence[object]]) -> int:
    """About how many characters (or bytes) rows have; one of eight is looked at, as large ones seldom come alone."""
    if isinstance(rows, Lined):
        return rows.weight
    some = rows[::_WEIGHED]
    found = sum([len(cell) for row in some for cell in row if isinstance(cell, str | bytes)])
    return found * len(rows) // (len(some) or 1)


def weight_of(changes: Iterable[Change]) -> int:
    """The same of the rows that changes are about."""
    return weight([row for change in changes for row in (change.before, change.after) if row is not None])


def joined(rows: Sequence[Row], others: Sequence[Row]) -> Sequence[Row]:
    """Rows one behind the other; they stay lines if both are."""
    if not rows or not others:
        return rows or others
    if isinstance(rows, Lined) and isinstance(others, Lined) and rows.cells == others.cells:
        return Lined([*rows.lines, *others.lines], rows.width, rows.cells)
    return [*rows, *others]
