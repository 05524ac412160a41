"""Notices records that keep changing on both sides: what we carry to a side, something there changes back, for ever.

A change *answers* one of ours when its side had seen what we carried there for the same record, and it changes the same
columns.  Answers that come from both sides in turn are counted.  People who edit a record in turn do so a few times;
two triggers, or two applications, do it without end.  Whoever has answered too often within a while is parked by
whichever flow carries the record next.

Most transactions have no record in common with the last ones of the other direction, and cost a look at two sets.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from dualwrite.errors import RowProblem
from dualwrite.mapping.compile import CompiledMap
from dualwrite.model import Cell, Change, Position, Record, Side
from dualwrite.settings import ROUNDS

LOOP: Final = "loop"
"""The code under which such records are parked."""
WITHIN: Final = 300.0
"""Seconds within which they count."""
RECENT: Final = 20_000
"""Records of each direction that are remembered, once or twice as many."""
RECORD: Final = "the record"
"""What changes where a record comes or goes."""
Cells: TypeAlias = Mapping[str, tuple[Cell, ...]]


@dataclass(frozen=True, slots=True)
class Loop:
    """What there is to say of a record that was found, and one of the columns at fault."""

    reason: str
    column: str = ""


@dataclass
class _Recent:
    """Where the last change of each record stood that one direction carried; the older half is dropped now and then."""

    most: int
    new: dict[Record, Position] = field(default_factory=dict)
    old: dict[Record, Position] = field(default_factory=dict)

    def add(self, touched: Mapping[Record, Change]) -> None:
        self.new.update((record, change.position) for record, change in touched.items())
        if len(self.new) > self.most:
            self.new, self.old = {}, self.new

    def common(self, touched: Mapping[Record, Change]) -> Iterable[Record]:
        return (self.new.keys() & touched.keys()) | (self.old.keys() & touched.keys())

    def get(self, record: Record) -> Position | None:
        return self.new.get(record) or self.old.get(record)


@dataclass(slots=True)
class _Chain:
    """The answers of one record: when they came, what each side wrote the last time, and which side did so last.

    There are thousands of them, with a few answers each.
    """

    times: list[float] = field(default_factory=list)
    wrote: dict[Side, Cells] = field(default_factory=dict)
    last: Side | None = None


class LoopGuard:
    """Shared by both flows.  ``rounds``, from one side to the other and back, are a loop."""

    def __init__(self, rounds: int = ROUNDS, clock: Callable[[], float] = time.monotonic, recent: int = RECENT) -> None:
        self.found: dict[Record, Loop] = {}
        self._rounds = rounds
        self._clock = clock
        self._most = recent
        self._recent = {side: _Recent(recent) for side in Side}
        self._chains: dict[Record, _Chain] = {}
        self._lock = threading.Lock()

    def carried(self, source: Side, maps: Mapping[str, CompiledMap], touched: Mapping[Record, Change]) -> None:
        """A transaction has carried changes of these records out of ``source``."""
        with self._lock:
            for record in self._recent[source.other].common(touched):
                change, carried = touched[record], self._recent[source.other].get(record)
                if carried is not None and _answers(change, carried) and record[0] in maps:
                    self._answered(record, source, _written(maps[record[0]], source, change))
            self._recent[source].add(touched)

    def _answered(self, record: Record, source: Side, cells: Cells) -> None:
        if not cells:
            return
        chain = self._chains.setdefault(record, _Chain())
        others, former = chain.wrote.get(source.other), chain.last
        chain.wrote[source], chain.last = cells, source
        if former is source:  # nothing there has answered: a trigger that follows a busy application
            return
        if others is not None and not others.keys() & cells.keys():
            return
        self._count(record, chain, 1)

    def restored(self, records: Iterable[Record], side: Side) -> None:
        """One-way columns of these records were written back to ``side``, whose users had changed them."""
        with self._lock:
            for record in records:
                self._count(record, self._chains.setdefault(record, _Chain()), 2, side)

    def _count(self, record: Record, chain: _Chain, answers: int, restored: Side | None = None) -> None:
        now = self._clock()
        chain.times = [at for at in chain.times if at > now - WITHIN] + [now] * answers
        if len(chain.times) > 2 * self._rounds:
            self.found[record] = _loop(chain, now - chain.times[0], restored)
            del self._chains[record]
        elif len(self._chains) > self._most:
            self._forget(now)

    def _forget(self, now: float) -> None:
        old = [record for record, chain in self._chains.items() if not chain.times or chain.times[-1] <= now - WITHIN]
        for record in old or list(self._chains)[: self._most // 2]:
            del self._chains[record]

    def parked(self, record: Record) -> None:
        """What was found is parked by now; once it is retried, it counts anew."""
        self.found.pop(record, None)


def _answers(change: Change, carried: Position) -> bool:
    """Had the change's side received the other's change?"""
    seen = change.seen
    return not change.weak and seen is not None and seen.feed == carried.feed and carried <= seen


def _written(compiled: CompiledMap, source: Side, change: Change) -> Cells:
    """What a change writes on the other side, by unit; but sums, to which both sides' applications add all day."""
    if change.before is None or change.after is None:
        return {RECORD: ("exists" if change.before is None else "deleted",)}
    with suppress(RowProblem):
        before, after = (compiled.map_row(source, row) for row in (change.before, change.after))
        return {
            unit.name: tuple(after[index] for index in unit.indexes)
            for unit in compiled.units[source.other]
            if unit.policy != "sum" and any(before[index] != after[index] for index in unit.indexes)
        }
    return {}


def _loop(chain: _Chain, seconds: float, restored: Side | None) -> Loop:
    """Which columns, both values, how often: whoever reads it looks for the triggers that do it."""
    rounds = len(chain.times) // 2
    how = f"{rounds} times within {max(seconds, 1.0):.0f} s"
    if restored is not None:
        reason = f"one-way columns were written back to the {restored} side {how}, and changed there again each time"
        return Loop(f"{reason}: a trigger or an application there overwrites them")
    left, right = (chain.wrote.get(side, {}) for side in Side)
    units = [name for name in left if name in right] or [*left, *right]
    told = "; ".join(f"{name}: {_shown(left.get(name))} ⇄ {_shown(right.get(name))}" for name in units)
    reason = f"the record keeps changing on both sides ({how}), each side answering the other"
    return Loop(f"{reason}: {told} (what left writes ⇄ what right writes)", units[0] if units else "")


def _shown(cells: tuple[Cell, ...] | None) -> str:
    return "?" if cells is None else ", ".join("null" if cell is None else f"{str(cell)[:40]!r}" for cell in cells)
