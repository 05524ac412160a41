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
from dualwrite.engine.meter import Meter
from dualwrite.engine.retention import retained_by
from dualwrite.errors import DualwriteError
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

    def count(self) -> None:
        """How the maps stand, as the journal knows."""
        began = time.monotonic()
        if began >= self._counts_at:
            self.standing = Standing(self._journal.states(), self._journal.tally({}))
            self._counts_at = time.monotonic() + max(COUNT_EVERY, SHARE * (time.monotonic() - began))

    def ask(self) -> None:
        """What the systems keep; while the engine carries: otherwise the question may have to wait for one of them."""
        now = time.monotonic()
        if now >= self._asks_at and self._meter.reading().carries:
            self._meter.retained(retained_by(self._connectors))
            self._asks_at = now + RETAINED_EVERY
