"""Waiting while a system does not answer.

The engine stays up: it asks again with growing pauses, says so (in the log lines, the activity log, ``status`` and the
metrics), and pauses maps where that is wanted, as long as one of the two systems answers (``alone``).
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass
from typing import Final

from dualwrite.connectors.base import Connector
from dualwrite.engine.alone import Alone
from dualwrite.engine.supervisor import Engine
from dualwrite.engine.wishes import RECONCILE
from dualwrite.errors import Denied, DualwriteError, Halted, PositionLost, Unavailable, Usage
from dualwrite.journal import Journal
from dualwrite.model import Side

log = logging.getLogger(__name__)

BACKOFF: Final = (0.2, 0.5, 1.0, 2.0, 5.0)
"""Seconds between attempts while a system does not answer."""
RECOVERED: Final = 60.0
"""Seconds of work after which a system that does not answer again is a new trouble."""
WORTH_TELLING: Final = 2
"""Seconds of waiting for something else than a system that the activity log tells of."""
LOOK_EVERY: Final = 1.0
"""Seconds between two looks at what is wanted, and between two times that the side that answers may forget."""
READ_TIMEOUT: Final = 0.1
"""Seconds that it waits for changes before it looks up."""
_TROUBLE: Final = "trouble"


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why the engine waits, since when (in seconds since the epoch), and for which sides, where these do not answer."""

    message: str
    remedy: str
    since: float
    sides: Sequence[str] = ()


def trouble_of(journal: Journal) -> Trouble | None:
    """What the engine that runs waits for; None where it does not."""
    text = journal.get(_TROUBLE)
    return None if text is None else Trouble(*json.loads(text))


class Outage:
    """Where an engine, which is closed by then, waits for its systems.  ``until`` ends the waiting."""

    def __init__(self, engine: Engine, until: threading.Event) -> None:
        self._engine = engine
        self._journal = engine.journal
        self._until = until
        self._attempt = 0
        self._began = self._looks_at = 0.0
        self._waits: Trouble | None = None
        self._is_told = True  # an earlier engine may have said that it waits
        self._away: dict[Side, float] = {}

    def over(self) -> None:
        """Everything is taken up again."""
        self._engine.meter.away(())
        if self._is_told:
            self._journal.put(_TROUBLE, None)
            self._is_told = False
        for side, since in self._away.items():
            self._journal.log(f"{side} answers again", detail={"seconds": round(time.time() - since)})
        if self._waits is not None and not self._away:  # for the journal, which could not tell it then, or for a lock
            seconds = round(time.time() - self._waits.since)
            if seconds >= WORTH_TELLING:
                self._journal.log("waited", detail={"reason": self._waits.message, "seconds": seconds})
        self._away.clear()
        self._waits = None

    def wait(self, trouble: Unavailable, worked: float = 0.0, patience: float = float("inf")) -> None:
        """Let time pass until it is worth another try; ``worked``: for how long all went well before.

        Raises the trouble again when it has lasted for so many seconds.
        """
        now = time.monotonic()
        if worked > RECOVERED:
            self._attempt = 0
        if self._attempt == 0 or worked > 0:
            self._began = now
        if now - self._began > patience:
            raise trouble
        silent = {side: why for side, each in self._engine.connectors.items() if (why := silence(each)) is not None}
        pause = self._tell(trouble, silent)
        self._note(silent)
        if len(silent) == 1:
            (side,) = silent
            self._stand_in(side, pause, self._began + patience)
        else:
            self._until.wait(pause)

    def _tell(self, trouble: Unavailable, silent: Iterable[Side]) -> float:
        """Say why there is a pause, and how long it is: that long it is."""
        pause = BACKOFF[min(self._attempt, len(BACKOFF) - 1)]
        self._attempt += 1
        self._engine.meter.incident("connection")
        about = {"retry_in": pause, "reason": trouble.message, "remedy": trouble.remedy}
        log.warning("unavailable", extra={"fields": about})
        since = time.time() - (time.monotonic() - self._began)
        told = Trouble(trouble.message, trouble.remedy, since, [str(side) for side in silent])
        self._waits = self._waits or told
        with suppress(Unavailable):  # it may be the journal that does not answer
            self._journal.put(_TROUBLE, json.dumps(astuple(told)))
            self._is_told = True
        return pause

    def _note(self, silent: Mapping[Side, Unavailable]) -> None:
        """Say in the activity log who does not answer, once."""
        self._engine.meter.away(silent)
        for side, why in silent.items():
            if side not in self._away:
                with suppress(Unavailable):
                    detail = {"reason": why.message, "remedy": why.remedy}
                    self._journal.log(f"{side} does not answer", detail=detail)
                    self._away[side] = time.time()

    # -- as long as the other side answers ------------------------------------------------------------------------

    def _stand_in(self, silent: Side, pause: float, end: float) -> None:
        """See to what can be done alone, until the silent side answers or the other one does not any more."""
        alone = Alone(self._engine, silent.other)
        with self._asking(silent, pause) as answers:
            try:
                while not self._is_over(answers, end):
                    if not self._turn(alone):
                        answers.wait(READ_TIMEOUT)
            except (Usage, Denied, PositionLost) as refused:  # the opening says so again, to whom it concerns
                log.warning("nothing queues meanwhile", extra={"fields": {"reason": str(refused)}})
                while not self._is_over(answers, end):
                    answers.wait(READ_TIMEOUT)
            except Unavailable:  # of this side, or of the journal
                self._until.wait(pause)
            finally:
                alone.close()

    def _is_over(self, answers: threading.Event, end: float) -> bool:
        return answers.is_set() or self._until.is_set() or time.monotonic() > end

    def _turn(self, alone: Alone) -> bool:
        """See to what is wanted, and keep what has come; False where there is nothing to keep."""
        try:
            if time.monotonic() >= self._looks_at:
                self._looks_at = time.monotonic() + LOOK_EVERY
                alone.look()
                alone.acknowledge()
            for request in self._journal.pending_requests():
                if request.command == RECONCILE:  # other commands wait for the other side
                    alone.look()
                    self._journal.answer(request.id, {"synced": 0})
            return alone.turn(READ_TIMEOUT)
        except Halted as halted:
            alone.close()
            self._engine.halt(halted)
            return True

    @contextmanager
    def _asking(self, silent: Side, pause: float) -> Iterator[threading.Event]:
        """Ask a side again and again, in a thread of its own: an answer may be long in coming.  Sets the event then."""
        answers, end = threading.Event(), threading.Event()

        def ask() -> None:
            wait = pause
            while not end.wait(wait):
                why = silence(self._engine.connectors[silent])
                if why is None:
                    answers.set()
                    return
                if not end.is_set():
                    wait = self._tell(why, (silent,))

        threading.Thread(target=ask, name=f"asking {silent}", daemon=True).start()
        try:
            yield answers
        finally:
            end.set()


def silence(connector: Connector) -> Unavailable | None:
    """Why a system does not answer; None where it does, if only to refuse us."""
    why = None
    for _ in range(2):  # a session that has died since is told by the first answer
        try:
            connector.clock()
        except Unavailable as trouble:
            why = trouble
        except DualwriteError:
            return None
        else:
            return None
    return why
