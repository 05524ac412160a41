"""What an engine is at, and since when: for whoever wonders why nothing else is done.

Kept in the journal, so that other processes can tell; of an engine that has died, it means nothing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final

from dualwrite.engine.lifecycle import STOPPED
from dualwrite.engine.syncs import Watch
from dualwrite.errors import Stopped, Unavailable
from dualwrite.journal import Journal

LOOK_EVERY: Final = 0.5
"""Seconds between two looks whether a map is still to be brought together."""


@dataclass(frozen=True, slots=True)
class Doing:
    """What an engine does (in the words of "the engine, which ..."), since a time in seconds since the epoch."""

    what: str
    since: float


class Notes:
    """What a part of an engine is at: its own thread, or one of its two flows."""

    def __init__(self, journal: Journal, part: str = "") -> None:
        self._journal = journal
        self._name = f"doing.{part}" if part else "doing"
        self._now: str | None = ""  # as in the journal; empty: an engine that has died may have left something there

    def tell(self, what: str) -> None:
        """It is at this from now on; empty: at nothing that takes long."""
        if what or self._now is not None:
            self._put(json.dumps([what, time.time()]) if what else None)

    @contextmanager
    def at(self, what: str) -> Iterator[None]:
        """It is at this inside, and behind it at what it was before."""
        before = self._now or None
        self.tell(what)
        try:
            yield
        finally:
            with suppress(Unavailable):  # it may be the journal that is in trouble
                self._put(before)

    def _put(self, text: str | None) -> None:
        self._journal.put(self._name, text)
        self._now = text


def doing(journal: Journal) -> list[Doing]:
    """What the engine that runs is at: itself first, then its flows."""
    texts = (journal.get(name) for name in ("doing", "doing.left", "doing.right"))
    return [Doing(*json.loads(text)) for text in texts if text is not None]


def unless_stopped(journal: Journal, watch: Watch) -> Watch:
    """The same watch; it raises Stopped as soon as the map that it is told of is to be stopped."""
    looked = 0.0

    def look(name: str, step: str, done: int, total: int) -> None:
        nonlocal looked
        watch(name, step, done, total)
        if time.monotonic() - looked > LOOK_EVERY:
            looked = time.monotonic()
            state = journal.states().get(name)
            if state is not None and state.desired == STOPPED:
                raise Stopped(name, "its initial sync was ended, because it is to be stopped")

    return look
