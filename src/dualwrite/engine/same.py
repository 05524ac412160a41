"""Records that are the same on both sides, told by their lines: nearly all of them, in most comparisons.

Where the beginnings of two lines are equal, so are all cells that pass from side to side as they stand, the key among
them.  Of what is left of two such lines, each pair is looked at once, however often it comes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import compress, repeat
from operator import not_

from dualwrite.engine.spool import IN_MEMORY
from dualwrite.lined import LARGEST, Later, Lined
from dualwrite.mapping.compile import CompiledMap
from dualwrite.model import Key, Side

REMEMBERED = 20_000
"""Pairs of what is left of lines that are known to agree."""


class Same:
    """Brings lines of both sides together; those that do not meet for long are let go."""

    def __init__(self, compiled: CompiledMap) -> None:
        self._compiled = compiled
        self._count = compiled.passing.count
        self._waiting: dict[Side, dict[bytes, bytes]] = {side: {} for side in Side}
        self._agreeing: dict[Side, set[tuple[bytes, bytes]]] = {side: set() for side in Side}
        self._most = 0

    def meet(self, side: Side, rows: Lined) -> tuple[Sequence[Key | None], Mapping[Side, Lined]]:
        """The keys of those rows that are the same as ones of the other side, which were waiting; and the rows of both
        sides of which that cannot be told."""
        self._most = min(IN_MEMORY, LARGEST * len(rows) // rows.weight)
        mine, others, agreeing = self._waiting[side], self._waiting[side.other], self._agreeing[side]
        heads, rests = rows.parted(self._count)
        found = list(map(others.pop, heads, repeat(None)))
        agrees = list(map(agreeing.__contains__, zip(rests, found, strict=True)))
        same = list(compress(heads, agrees))
        left = list(compress(zip(heads, rests, found, strict=True), map(not_, agrees)))
        mine.update([(head, rest) for head, rest, other in left if other is None])
        unsure = [(head, rest, other) for head, rest, other in left if other is not None]
        if unsure:
            self._learn(side, unsure)
            same += [head for head, *pair in unsure if tuple(pair) in agreeing]
            unsure = [each for each in unsure if each[1:] not in agreeing]
        keys = Later(
            len(same), lambda: self._compiled.keys(side, self._lined(side, [h + b"\n" for h in same], self._count))
        )
        return keys, {
            side: self._lined(side, [head + rest for head, rest, _ in unsure]),
            side.other: self._lined(side.other, [head + other for head, _, other in unsure]),
        }

    def _learn(self, side: Side, pairs: Sequence[tuple[bytes, bytes, bytes]]) -> None:
        """Which of these rests, behind equal beginnings, agree."""
        samples = {(rest, other): head for head, rest, other in pairs}
        rows = {
            side: self._lined(side, [head + rest for (rest, _), head in samples.items()]),
            side.other: self._lined(side.other, [head + other for (_, other), head in samples.items()]),
        }
        agree = self._compiled.surely_agree(rows[Side.LEFT], rows[Side.RIGHT])
        if len(self._agreeing[side]) > REMEMBERED:
            for known in self._agreeing.values():
                known.clear()
        found = [pair for pair, agrees in zip(samples, agree, strict=True) if agrees]
        self._agreeing[side].update(found)
        self._agreeing[side.other].update((other, rest) for rest, other in found)

    def let_go(self, *, most: int | None = None) -> Iterator[tuple[Side, Lined]]:
        """The rows that wait, if they are more than these, or too many if they are like the last ones."""
        if sum(map(len, self._waiting.values())) > (self._most if most is None else most):
            for side, waiting in self._waiting.items():
                lines = [head + rest for head, rest in waiting.items()]
                waiting.clear()
                yield side, self._lined(side, lines)

    def _lined(self, side: Side, lines: Sequence[bytes], cells: int | None = None) -> Lined:
        width = len(self._compiled.views[side].paths)
        return Lined(lines, width, None if cells is None else range(cells))
