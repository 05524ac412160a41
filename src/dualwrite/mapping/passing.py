"""What of a map's rows passes from one side to the other as it stands, so that lines need not be taken apart.

Such cells come first in the rows of both sides, in the same order: those of the key, then the others.  So the same
beginning of two lines is a proof that these cells agree, and what is left of them mostly has few different values.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import add
from typing import Final, TypeAlias

from dualwrite.casts import CastError
from dualwrite.lined import PIECE, BadTextError, Lined, parted, text_of
from dualwrite.mapping.binding import SIDES, Binding, Pair
from dualwrite.mapping.cells import AS_IT_IS, carrier
from dualwrite.model import Row, Side

MOST: Final = 500
"""Different things that may be behind the beginnings of the rows that are mapped at once."""
MapRows: TypeAlias = Callable[[Sequence[Row]], Sequence[Row]]


def passing_pairs(binding: Binding, timezones: Mapping[Side, str]) -> Sequence[Pair]:
    """The pairs that carry a cell of their own as it is, those of the key first; none where one of the key does not."""
    used = {side: Counter(path for pair in binding.pairs for path in pair.reads(side)) for side in SIDES}

    def passes(pair: Pair, sources: Sequence[Side]) -> bool:
        alone = all(side in pair.ends and used[side][pair.ends[side].path] == 1 for side in SIDES)
        return (
            alone and bool(sources) and all(carrier(pair, side, timezones).expression == AS_IT_IS for side in sources)
        )

    loose = any(end.column.ignore_trailing_blanks for pair in binding.key for end in pair.ends.values())
    if loose or not all(passes(pair, SIDES) for pair in binding.key):
        return ()
    others = (pair for pair in binding.pairs if all(pair is not member for member in binding.key))
    return (*binding.key, *(pair for pair in others if passes(pair, [side for side in SIDES if pair.carries(side)])))


@dataclass(frozen=True, slots=True)
class Passing:
    """The first ``count`` cells of both sides' rows hold the same, the first ``members`` of them the key.

    ``sources`` are the sides from which all of these are carried, ``behind[source]`` the other cells of the other side
    that are, ``widths`` those of the rows.
    """

    members: int
    count: int
    sources: frozenset[Side]
    behind: Mapping[Side, tuple[int, ...]]
    widths: Mapping[Side, int]

    def has_keys(self, rows: Lined) -> bool:
        """Has each of these rows surely a key?"""
        return self.count > 0 and rows.cells[: self.count] == tuple(range(self.count)) and rows.begins

    def mapped(self, source: Side, rows: Lined, map_rows: MapRows) -> Lined | None:
        """The rows as those of the other side; None where they have to be taken apart for it.

        It may turn out only when somebody wants the lines that some of them have to, which raises BadTextError.
        """
        if source not in self.sources or len(rows.cells) < rows.width or not self.has_keys(rows):
            return None
        carry = _Carry(map_rows, rows.width, rows.width - self.count, self.behind[source])
        try:
            carry(rows.lines[:PIECE])
        except BadTextError:
            return None
        return Lined(rows.lines, self.widths[source.other], (*range(self.count), *self.behind[source]), carry)


class _Carry:
    """Leaves the beginnings of lines as they are, and puts behind them what has to be mapped.

    ``rest`` of the ``width`` cells of a line are no beginning, ``behind`` are the cells that belong behind it.
    """

    def __init__(self, map_rows: MapRows, width: int, rest: int, behind: Sequence[int]) -> None:
        self._map_rows = map_rows
        self._width = width
        self._rest = rest
        self._behind = behind
        self._known: dict[bytes, bytes] = {}

    def __call__(self, lines: Sequence[bytes]) -> Sequence[bytes]:
        known = self._known
        heads, rests = parted(lines, self._rest)
        new = set(rests).difference(known)
        if new:
            self._learn({rest: line for rest, line in zip(rests, lines, strict=True) if rest in new})
        return list(map(add, heads, map(known.__getitem__, rests)))

    def _learn(self, samples: Mapping[bytes, bytes]) -> None:
        """What becomes of what is behind the beginnings of these lines."""
        if len(self._known) + len(samples) > MOST:
            raise BadTextError("too many different ones for this to be of use")
        try:
            rows = self._map_rows(Lined([*samples.values()], self._width))
        except CastError as error:
            raise BadTextError(str(error)) from error
        self._known.update(zip(samples, _behind(rows, self._behind), strict=True))


def _behind(rows: Sequence[Row], cells: Sequence[int]) -> list[bytes]:
    """What lines hold of these cells, behind others."""
    if not cells:
        return [b"\n"] * len(rows)
    lines = text_of([tuple([row[cell] for cell in cells]) for row in rows])
    return [b"\t" + line for line in lines.splitlines(keepends=True)]
