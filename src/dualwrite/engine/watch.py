"""Looks after a running engine, from threads of its own: what only the journal and the systems can tell, now and then.

Neither flow waits for them, and they go on while a system does not answer.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from dualwrite.connectors.base import Connector
from dualwrite.engine.clocks import shown
from dualwrite.engine.meter import Meter, Reading
from dualwrite.engine.retention import retained_by
from dualwrite.errors import DualwriteError, Problem
from dualwrite.journal import Journal, MapState, Tally
from dualwrite.model import Side

TICK: Final = 1.0
"""Seconds between two looks."""
COUNT_EVERY: Final = 5.0
"""Seconds between two countings of what waits in the journal; longer where counting takes long."""
SHARE: Final = 20
"""So many times as long as a counting takes, none follows."""
RETAINED_EVERY: Final = 15.0
"""Seconds between two questions to the systems of what they keep of their logs."""
STALLED_AFTER: Final = 60.0
"""Seconds in which a system's log grows while nothing of it arrives, before somebody is told."""
_STALLED: Final = "stalled."
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Standing:
    """How the maps of a link stand, as the journal knew it a moment ago."""

    states: Mapping[str, MapState] = field(default_factory=dict)
    tally: Mapping[str, Tally] = field(default_factory=dict)


class Rounds:
    """A context manager: inside, a thread does its duties again and again; one that cannot be done is told."""

    def __init__(self, name: str, *duties: Callable[[], None]) -> None:
        self._duties = duties
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._loop, name=name, daemon=True)

    def __enter__(self) -> Rounds:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._end.set()
        self._thread.join()

    def _loop(self) -> None:
        while not self._end.wait(TICK):
            for duty in self._duties:
                try:
                    duty()
                except DualwriteError as trouble:
                    about = {"reason": trouble.message, "remedy": trouble.remedy}
                    log.warning("cannot be looked at", extra={"fields": about})


class Gauges:
    """What is looked up now and then."""

    def __init__(self, journal: Journal, connectors: Mapping[Side, Connector], meter: Meter) -> None:
        self.standing = Standing()
        self._journal = journal
        self._connectors = connectors
        self._meter = meter
        self._counts_at = self._asks_at = 0.0
        self._kept: Mapping[Side, int] = {}
        self._arrived: dict[Side, int] = {}
        self._confirmed: dict[Side, int] = {}
        self._still: dict[Side, float] = {}  # since when nothing arrives of a log that grows
        self._told: set[Side] = set(Side)  # an earlier engine may have said so

    def count(self) -> None:
        """How the maps stand, as the journal knows."""
        began = time.monotonic()
        if began >= self._counts_at:
            self.standing = Standing(self._journal.states(), self._journal.tally({}))
            self._counts_at = time.monotonic() + max(COUNT_EVERY, SHARE * (time.monotonic() - began))

    def ask(self) -> None:
        """What the systems keep; while the engine carries: otherwise the question may have to wait for one of them."""
        now = time.monotonic()
        if now >= self._asks_at and (reading := self._meter.reading()).carries:
            kept = retained_by(self._connectors)
            self._meter.retained(kept)
            self._asks_at = now + RETAINED_EVERY
            for side in kept:
                self._advances(side, kept[side], self._connectors[side].confirmed(), reading, now)
            self._kept = kept

    def _advances(self, side: Side, kept: int, confirmed: int, reading: Reading, now: float) -> None:
        """Notice where a system's log grows and nothing of it arrives: the capture, or what receives it, may hang.

        What is only kept for a transaction that has not ended is not: all else is confirmed meanwhile.
        """
        arrived = sum(reading.applied[side.other].classes) + sum(
            number for (_, target, _), number in reading.changes.items() if target is side.other
        )
        grows = kept > self._kept.get(side, kept)
        comes = arrived != self._arrived.get(side, arrived) or confirmed != self._confirmed.get(side, confirmed)
        if comes or kept < self._kept.get(side, kept) or not kept:
            self._still.pop(side, None)
        elif grows:
            self._still.setdefault(side, now)
        self._arrived[side], self._confirmed[side] = arrived, confirmed
        is_stalled = now - self._still.get(side, now) >= STALLED_AFTER
        if is_stalled and side not in self._told:
            self._journal.put(_STALLED + side, str(time.time() - (now - self._still[side])))
            self._told.add(side)
            log.warning("nothing arrives", extra={"fields": {"side": str(side), "kept": kept}})
        elif not is_stalled and side in self._told:
            self._journal.put(_STALLED + side, None)
            self._told.discard(side)


def stalled(journal: Journal) -> list[Problem]:
    """A warning for each side whose log grows while nothing of it arrives, as the engine that runs has noticed."""
    found = []
    for side in Side:
        since = journal.get(_STALLED + side)
        if since is not None:
            told = f"{side}: its log has been growing since {shown(float(since))}, and nothing of it arrives"
            remedy = (
                "look at what the engine says (`dualwrite status`, its log lines), and start it again; it may also be "
                "that the server is still reading a very large transaction"
            )
            found.append(Problem("capture_stalled", told, remedy, "warning", side=str(side)))
    return found
