"""Giving way to users who keep the locks that a transaction of ours needs: theirs come first, ours is done anew."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final, TypeVar

from dualwrite.engine.doing import Notes
from dualwrite.errors import Busy, Unavailable
from dualwrite.model import Side

Done = TypeVar("Done")

ONCE: Final = 1
DIVIDE: Final = 3
TELL: Final = 5
PATIENCE: Final = 20
"""Times that a transaction gives way where what is left undone may wait, before it is divided, before somebody is told
where it cannot be, and before it is given up."""
GIVE_WAY, LONGEST_WAY = 0.005, 0.5
"""Seconds that users have before we ask for their records again: half of the first pause, and the longest."""
log = logging.getLogger(__name__)


class GivingWay:
    """How one flow waits for others' locks, and tells of it; ``is_ending``: is the engine to end?"""

    def __init__(self, notes: Notes, stream: str, is_ending: Callable[[], bool]) -> None:
        self._notes = notes
        self._stream = stream
        self._is_ending = is_ending

    def until_done(self, side: Side, work: Callable[[], Done], patience: int | None = None) -> Done:
        """What ``work`` returns, which does something in a transaction of a side, anew while it raises Busy.

        Raises Busy when users do not let go for so many times (None: ``PATIENCE``); these are few where the work can be
        divided: of a single record they cannot keep us away by locking in another order.  Raises Unavailable when the
        engine is to end.
        """
        busy = 0
        while True:
            try:
                done = work()
            except Busy as trouble:
                busy += 1
                if busy == TELL:
                    log.warning("waits", extra={"fields": {"stream": self._stream, "reason": str(trouble)}})
                    self._notes.tell(f"waits for others' locks in {side}: {trouble.message}")
                if self._is_ending():  # not to be divided either
                    raise Unavailable(trouble.message, trouble.remedy) from trouble
                if busy >= (PATIENCE if patience is None else patience):
                    raise
                time.sleep(min(GIVE_WAY * 2**busy, LONGEST_WAY))
            else:
                self._notes.tell("")
                return done
