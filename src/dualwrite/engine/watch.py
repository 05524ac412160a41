"""Looks after a running engine, from a thread of its own: what only the journal and the systems can tell, now and then.

Neither flow waits for it, and it goes on while a system does not answer.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
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


class Watch:
    """A context manager: inside, what it watches is looked at again and again."""

    def __init__(
        self,
        journal: Journal,
        connectors: Mapping[Side, Connector],
        meter: Meter,
        also: Sequence[Callable[[], None]] = (),
    ) -> None:
        """``also`` is done at every look."""
        self.standing = Standing()
        self._journal = journal
        self._connectors = connectors
        self._meter = meter
        self._duties = [self._count, self._retained, *also]
        self._next = dict.fromkeys(("count", "retained"), 0.0)
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="watch", daemon=True)

    def __enter__(self) -> Watch:
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
                    log.warning(
                        "cannot be looked at", extra={"fields": {"reason": trouble.message, "remedy": trouble.remedy}}
                    )

    def _is_due(self, what: str) -> bool:
        return time.monotonic() >= self._next[what]

    def _count(self) -> None:
        if not self._is_due("count"):
            return
        began = time.monotonic()
        self.standing = Standing(self._journal.states(), self._journal.tally({}))
        took = time.monotonic() - began
        self._next["count"] = time.monotonic() + max(COUNT_EVERY, SHARE * took)

    def _retained(self) -> None:
        """While the engine carries: otherwise the question may have to wait for a system that does not answer."""
        if self._meter.reading().carries and self._is_due("retained"):
            self._meter.retained(retained_by(self._connectors))
            self._next["retained"] = time.monotonic() + RETAINED_EVERY
