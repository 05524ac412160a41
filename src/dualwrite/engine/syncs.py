"""What is told of initial syncs: while they run to whoever watches, in this process or another one, and afterwards."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Final, TypeAlias

from dualwrite.engine.compare import Tally
from dualwrite.engine.link import key_of
from dualwrite.errors import DualwriteError, Halted
from dualwrite.journal import Count, Journal, Progress
from dualwrite.journal.syncs import Why
from dualwrite.mapping.compile import CompiledMap
from dualwrite.model import Kind, Position, Side

Watch: TypeAlias = Callable[[str, str, int, int], None]
"""Called with the map, the step (``compare``, ``left``, ``right``), how much is done and how much there is (0: not
known)."""

TELL_EVERY: Final = 0.5
"""Seconds between two times that the journal is told how far an initial sync is."""


def quiet(_map: str, _step: str, _done: int, _total: int) -> None:
    """Report nothing."""


class Recorder:
    """Tells of one initial sync; a ``Watch``.  ``counts`` is what it has done, once that is known."""

    def __init__(self, journal: Journal, id: int, watch: Watch) -> None:
        self.id = id
        self.counts: Sequence[Count] = ()
        self._journal = journal
        self._watch = watch
        self._step, self._since, self._told = "", 0.0, 0.0

    def __call__(self, map_name: str, step: str, done: int, total: int) -> None:
        """So far it is."""
        self._watch(map_name, step, done, total)
        now = time.time()
        is_new = step != self._step
        if is_new:
            self._step, self._since = step, now
        if is_new or not 0 <= now - self._told < TELL_EVERY:
            self._told = now
            self._journal.syncs.tell(self.id, Progress(step, done, total, self._since, now))


@contextmanager
def recorded(
    journal: Journal,
    compiled: CompiledMap,
    master: Side,
    why: Why,
    watch: Watch,
    companies: Sequence[str] | None = None,
    resumed: int | None = None,
) -> Iterator[Recorder]:
    """An initial sync in the journal, from its beginning to its end, whatever that is; one that is ``resumed`` goes on.

    Where the process dies, the next opening notes that it was interrupted.
    """
    if resumed is None:
        recorder = Recorder(journal, journal.syncs.begin(compiled.name, why, master, companies), watch)
    else:
        recorder = Recorder(journal, resumed, watch)
        journal.syncs.resume(resumed)
    try:
        yield recorder
    except (Exception, KeyboardInterrupt) as trouble:
        with suppress(DualwriteError):  # it may be the journal that is in trouble
            reason = trouble.message if isinstance(trouble, DualwriteError) else str(trouble) or "somebody ended it"
            journal.syncs.end(recorder.id, "stopped" if isinstance(trouble, Halted) else "interrupted", reason)
        raise
    journal.syncs.end(recorder.id, "done", counts=recorder.counts)


def counts(
    journal: Journal,
    compiled: CompiledMap,
    tally: Tally,
    first: Mapping[Side, Position] | None,
    is_part: bool,
) -> list[Count]:
    """What an initial sync has done, per side and company.

    ``is_part``: it was for some companies alone.  What it carried begins at ``first`` (None: it has carried nothing).
    """
    failed = {
        side: _failed(journal, compiled, side, tally.member, None if first is None else first[side.other])
        for side in Side
    }
    companies = {*tally.companies, *(company for side in Side for company, _ in failed[side] if not is_part)}
    return [
        _count(side, company, tally.companies.get(company, Counter()), failed[side])
        for company in sorted(companies)
        for side in Side
    ]


def _count(side: Side, company: str, found: Counter[str], failed: Counter[tuple[str, str]]) -> Count:
    inserts, updates = (failed[company, kind.value] for kind in (Kind.INSERT, Kind.UPDATE))
    return Count(
        side=side,
        company=company,
        read=found[f"read {side}"],
        inserted=found[f"created {side}"] - inserts,
        updated=found[f"changed {side}"] - updates,
        unchanged=found["unchanged"],
        detached=found[f"detached {side}"],
        failed=inserts + updates + failed[company, ""],
    )


def _failed(
    journal: Journal, compiled: CompiledMap, side: Side, member: int | None, first: Position | None
) -> Counter[tuple[str, str]]:
    """Per company and kind (empty: it was not even tried), how many records of a map are parked at a side."""
    found: Counter[tuple[str, str]] = Counter()
    for text, change in journal.syncs.parked(side, compiled.name):
        key = key_of(text)
        company = "" if member is None or member >= len(key) else key[member] or ""
        at = change.position
        carried = first is not None and change.weak and at.feed == first.feed and first <= at
        found[company, change.kind.value if carried else ""] += 1
    return found
