"""What a running engine counts: for metrics, and for the rules of alerts.

Flows add to it once per transaction, and whoever looks takes a copy: neither waits for the other.  Nothing of it is
kept beyond the process.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from dualwrite.model import Side

BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the classes in which the seconds of our transactions are counted."""


@dataclass(frozen=True, slots=True)
class InHand:
    """Changes of a map that are read and not carried yet: how many, and when the oldest was committed."""

    changes: int
    oldest: float


@dataclass(frozen=True, slots=True)
class Times:
    """How long transactions took: per class of ``BUCKETS`` and one beyond, and in all."""

    classes: tuple[int, ...] = (0,) * (len(BUCKETS) + 1)
    seconds: float = 0.0

    def plus(self, seconds: float) -> Times:
        """One transaction more."""
        number = bisect_left(BUCKETS, seconds)
        classes = (*self.classes[:number], self.classes[number] + 1, *self.classes[number + 1 :])
        return Times(classes, self.seconds + seconds)


@dataclass(frozen=True, slots=True)
class Reading:
    """What was counted so far.

    ``changes`` counts by map, target and outcome; ``parked`` by map, target and code what was parked anew;
    ``incidents`` by kind and map what else went wrong.  ``lag`` is the age of the oldest change in hand by map and
    source, ``waiting`` how many there are; ``retained`` what the systems keep of their logs; ``away`` are those that do
    not answer.
    """

    changes: Mapping[tuple[str, Side, str], int]
    parked: Mapping[tuple[str, Side, str], int]
    incidents: Mapping[tuple[str, str], int]
    applied: Mapping[Side, Times]
    lag: Mapping[tuple[str, Side], float]
    waiting: Mapping[tuple[str, Side], int]
    retained: Mapping[Side, int]
    carries: bool
    away: Collection[Side]


@dataclass
class Meter:
    """Counts, from any thread."""

    _changes: Counter[tuple[str, Side, str]] = field(default_factory=Counter)
    _parked: Counter[tuple[str, Side, str]] = field(default_factory=Counter)
    _incidents: Counter[tuple[str, str]] = field(default_factory=Counter)
    _applied: dict[Side, Times] = field(default_factory=lambda: dict.fromkeys(Side, Times()))
    _in_hand: dict[Side, Mapping[str, InHand]] = field(default_factory=dict)
    _retained: Mapping[Side, int] = field(default_factory=dict)
    _clocks: dict[Side, float] = field(default_factory=dict)
    _carries: bool = False
    _away: Collection[Side] = ()
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, target: Side, outcomes: Mapping[tuple[str, str], int]) -> None:
        """Changes by map and outcome, on their way into ``target``."""
        with self._lock:
            for (name, outcome), number in outcomes.items():
                self._changes[name, target, outcome] += number

    def park(self, target: Side, found: Iterable[tuple[str, str]]) -> None:
        """Records that were parked, by map and code."""
        with self._lock:
            for name, code in found:
                self._parked[name, target, code] += 1

    def incident(self, kind: str, map_name: str = "") -> None:
        """Something else went wrong, with a map or with the link as a whole."""
        with self._lock:
            self._incidents[kind, map_name] += 1

    def applied(self, target: Side, seconds: float) -> None:
        """A transaction was committed in ``target``, so long after its beginning."""
        with self._lock:
            self._applied[target] = self._applied[target].plus(seconds)

    def in_hand(self, source: Side, found: Mapping[str, InHand]) -> None:
        """By map what a flow has read and not carried yet."""
        self._in_hand[source] = found

    def retained(self, found: Mapping[Side, int]) -> None:
        """How many bytes of their logs the systems keep."""
        self._retained = found

    def clock(self, side: Side, now: float) -> None:
        """What a side's clock shows at this moment."""
        self._clocks[side] = now - time.time()

    def carries(self, is_so: bool) -> None:
        """Does the engine carry changes, or wait for a system?"""
        self._carries = is_so

    def away(self, sides: Collection[Side]) -> None:
        """The systems that do not answer."""
        self._away = tuple(sides)

    def reading(self) -> Reading:
        """A copy of everything."""
        now = time.time()
        in_hand = {(name, side): found for side, each in self._in_hand.copy().items() for name, found in each.items()}
        lag = {
            (name, side): max(0.0, now + self._clocks.get(side, 0.0) - found.oldest)
            for (name, side), found in in_hand.items()
        }
        waiting = {place: found.changes for place, found in in_hand.items()}
        with self._lock:
            return Reading(
                dict(self._changes),
                dict(self._parked),
                dict(self._incidents),
                dict(self._applied),
                lag,
                waiting,
                self._retained,
                self._carries,
                self._away,
            )
