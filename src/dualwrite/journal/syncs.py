"""The initial syncs of a link: one row for each, with how far it is and what it has done."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, TypeAlias

from sqlalchemy import Row, func, insert, select, update

from dualwrite.journal.database import Database
from dualwrite.journal.entries import change_from
from dualwrite.journal.tables import can_be, queue, sync
from dualwrite.model import Change, Side

Why: TypeAlias = Literal["start", "again", "companies", "filters", "repair"]
Ended: TypeAlias = Literal["done", "interrupted", "stopped"]
UNDER_WAY: Final = "under way"
"""The outcome of an initial sync that has none yet."""
AT_ONCE: Final = 500
"""Parked records that are read at once."""


@dataclass(frozen=True, slots=True)
class Count:
    """What an initial sync has done to the records of one company (empty: the map has none) on one side.

    ``failed`` are those that are parked; they count as neither inserted nor updated.
    """

    side: Side
    company: str
    read: int = 0
    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    detached: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an initial sync is: of a step (``compare``, ``left``, ``right``), how much is done and how much there is
    (0: not known), since when, and when that was told."""

    step: str = ""
    done: int = 0
    total: int = 0
    since: float = 0.0
    at: float = 0.0

    @property
    def rate(self) -> float:
        """Records a second; 0 where that cannot be told."""
        return self.done / (self.at - self.since) if self.at > self.since else 0.0

    def __str__(self) -> str:
        if not self.step:
            return ""
        doing = "comparing" if self.step == "compare" else f"writing {self.step}"
        of = f" of {self.total:,}" if self.total else ""
        return f"{doing}: {self.done:,}{of} records" + (f", {self.rate:,.0f} a second" if self.rate else "")


@dataclass(frozen=True, slots=True)
class SyncRun:
    """An initial sync.  ``companies`` are those it was for (None: all of the map); ``resumed`` says how often it was
    taken up again after a crash; ``ended`` is 0 while it is under way."""

    id: int
    map: str
    why: str
    master: Side
    companies: tuple[str, ...] | None
    started: float
    ended: float
    outcome: str
    reason: str
    resumed: int
    counts: tuple[Count, ...]
    progress: Progress


class Syncs:
    """The initial syncs in a journal."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock

    def begin(self, map: str, why: Why, master: Side, companies: Sequence[str] | None = None) -> int:
        """An initial sync begins; returns its id."""
        values = {
            "map": map,
            "why": why,
            "master": master.value,
            "companies": json.dumps(None if companies is None else list(companies)),
            "started": self._clock(),
            "ended": 0.0,
            "outcome": UNDER_WAY,
            "reason": "",
            "resumed": 0,
            "counts": "[]",
            "progress": "{}",
        }
        with self._database.writing() as connection:
            here = (sync.c.map == map, sync.c.outcome == UNDER_WAY)  # whoever began it has died
            connection.execute(update(sync).where(*here).values(outcome="interrupted", ended=self._clock()))
            key = connection.execute(insert(sync).values(values)).inserted_primary_key
        return int(key[0]) if key is not None else 0

    def resume(self, id: int) -> None:
        """One that was interrupted goes on."""
        values = {"outcome": UNDER_WAY, "reason": "", "ended": 0.0, "resumed": sync.c.resumed + 1}
        self._change(id, values)

    def tell(self, id: int, progress: Progress) -> None:
        """How far it is."""
        self._change(id, {"progress": json.dumps(asdict(progress))})

    def end(self, id: int, outcome: Ended, reason: str = "", counts: Sequence[Count] = ()) -> None:
        """It has ended, and this is what it did."""
        said = json.dumps([asdict(count) for count in counts])
        self._change(id, {"outcome": outcome, "reason": reason, "counts": said, "ended": self._clock()})

    def interrupt_all(self) -> None:
        """Those that seem under way are not: their engine has died."""
        with self._database.writing() as connection:
            values = {"outcome": "interrupted", "reason": "its engine ended", "ended": self._clock()}
            connection.execute(update(sync).where(sync.c.outcome == UNDER_WAY).values(values))

    def _change(self, id: int, values: Mapping[str, Any]) -> None:
        with self._database.writing() as connection:
            connection.execute(update(sync).where(sync.c.row == id).values(**values))

    def list(self, map: str | None = None, limit: int = 50) -> list[SyncRun]:
        """The last ones, of a map if given, newest first."""
        found = select(sync).order_by(sync.c.row.desc()).limit(limit)
        with self._database.reading() as connection:
            rows = connection.execute(found if map is None else found.where(sync.c.map == map)).all()
        return [_run(row) for row in rows]

    def find(self, id: int) -> SyncRun | None:
        """The one with an id."""
        if not can_be(id):
            return None
        with self._database.reading() as connection:
            row = connection.execute(select(sync).where(sync.c.row == id)).first()
        return None if row is None else _run(row)

    def under_way(self) -> SyncRun | None:
        """The one that is under way: a link has one at a time."""
        found = select(sync).where(sync.c.outcome == UNDER_WAY).order_by(sync.c.row.desc())
        with self._database.reading() as connection:
            row = connection.execute(found).first()
        return None if row is None else _run(row)

    def parked(self, side: Side, map: str) -> Iterator[tuple[str, Change]]:
        """The keys of a map's records that are parked at a side, as last written, each with its first change."""
        here = (queue.c.side == side.value, queue.c.map == map, queue.c.gone.is_(None))
        with self._database.reading() as connection:
            first = connection.execute(select(func.min(queue.c.row)).where(*here).group_by(queue.c.key)).scalars().all()
        for start in range(0, len(first), AT_ONCE):
            some = select(queue.c.key, queue.c.change).where(queue.c.row.in_(first[start : start + AT_ONCE]))
            with self._database.reading() as connection:
                rows = connection.execute(some).all()
            for row in rows:
                yield row.key, change_from(row.change)


def _run(row: Row[Any]) -> SyncRun:
    companies = json.loads(row.companies)
    return SyncRun(
        id=row.row,
        map=row.map,
        why=row.why,
        master=Side(row.master),
        companies=None if companies is None else tuple(companies),
        started=row.started,
        ended=row.ended,
        outcome=row.outcome,
        reason=row.reason,
        resumed=row.resumed,
        counts=tuple(Count(**{**count, "side": Side(count["side"])}) for count in json.loads(row.counts)),
        progress=Progress(**json.loads(row.progress)),
    )
