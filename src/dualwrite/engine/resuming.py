"""What of an initial sync outlives the process that began it, so that the next one goes on where that was killed.

An initial sync carries *weak* changes out of each side, numbered, at places just behind the two boundaries.  The stream
positions in the two systems say how many of them are there already.  So the weak changes themselves are all that has to
be kept: they are written to files before they are carried, and what stands there is what a sync that was never killed
would have carried.  Where a side is carried as it is read, the rest of it is read anew, and taken back to what it was
at the boundary, by what the feed tells since: every other way of telling edits from what was there would be a guess.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final, TypeAlias

from dualwrite.connectors.base import Connector, Snapshot
from dualwrite.engine.compare import Tally, Unusable
from dualwrite.engine.pile import Pile
from dualwrite.engine.spool import FORMAT, IN_MEMORY, Partitioned, Spool, parts_of, read_rows, write_rows
from dualwrite.errors import DualwriteError
from dualwrite.journal import Journal
from dualwrite.lined import LARGEST, weight
from dualwrite.mapping.compile import CompiledMap
from dualwrite.model import Key, Position, Row, Side
from dualwrite.schema import View

KEPT: Final = "initial sync."
"""What the name of a value in the journal begins with, before the map's: an initial sync that can go on."""
CHANGED: Final = 500_000
"""Records of a side that is carried as it is read, changed since its boundary, above which all is compared anew."""
Restores: TypeAlias = Pile[tuple[Key, Key]]
"""Records whose one-way columns are to be restored, each with the key by which their owner's side finds it."""


class CannotGoOn(Exception):
    """What was kept of an initial sync does not do: it has to begin anew."""

    def __init__(self) -> None:
        super().__init__("it could not go on, and began anew")


@dataclass
class Kept:
    """An initial sync that can go on.  ``id`` is its number in the journal, ``before`` how many weak changes of others
    lie at the same places, ``streams`` the side that is carried as it is read.  ``is_carried``: all of them are."""

    id: int
    master: Side
    fingerprint: str
    boundaries: Mapping[Side, Position]
    before: Mapping[Side, int]
    streams: Side | None
    is_carried: bool = False
    tally: Tally = field(default_factory=Tally)

    def __str__(self) -> str:
        tally = self.tally
        return json.dumps(
            {
                "id": self.id,
                "master": self.master.value,
                "fingerprint": self.fingerprint,
                "boundaries": {side.value: str(at) for side, at in self.boundaries.items()},
                "before": {side.value: count for side, count in self.before.items()},
                "streams": None if self.streams is None else self.streams.value,
                "is_carried": self.is_carried,
                "read": {side.value: count for side, count in tally.read.items()},
                "counted": [tally.equal, tally.detached, tally.member, tally.companies],
            }
        )

    @classmethod
    def parse(cls, text: str) -> Kept:
        """The inverse of ``str``."""
        found = json.loads(text)
        equal, detached, member, companies = found["counted"]
        read = {Side(side): count for side, count in found["read"].items()}
        counted = {company: Counter(counts) for company, counts in companies.items()}
        return cls(
            id=found["id"],
            master=Side(found["master"]),
            fingerprint=found["fingerprint"],
            boundaries={Side(side): Position.parse(at) for side, at in found["boundaries"].items()},
            before={Side(side): count for side, count in found["before"].items()},
            streams=None if found["streams"] is None else Side(found["streams"]),
            is_carried=found["is_carried"],
            tally=Tally(read=read, equal=equal, detached=detached, member=member, companies=counted),
        )

    def carried(self, source: Side, connector: Connector, stream: str) -> int:
        """How many of the weak changes out of ``source`` are in the other system, ``connector``.

        Raises CannotGoOn where the stream has gone on without them.
        """
        position, boundary = connector.positions().get(stream, (None, 0))[0], self.boundaries[source]
        if position is None or position.feed != boundary.feed:
            raise CannotGoOn
        if position.place[:-1] == (*boundary.place, 0):
            return max(0, position.place[-1] - self.before[source])
        if boundary < position and not self.is_carried:
            raise CannotGoOn
        return 0


def fingerprint(compiled: CompiledMap) -> str:
    """Says whether a map still is what it was: the rows, what is made of them, and how they are kept."""
    views = [repr(compiled.views[side]) for side in Side]
    said = repr((FORMAT, views, compiled.table_map.version, compiled.table_map.publisher))
    return hashlib.sha256(said.encode()).hexdigest()


class Nothing:
    """A snapshot of a side that held nothing at the boundary."""

    def __init__(self, boundary: Position) -> None:
        self.boundary = boundary

    def blocks(self) -> Iterator[Sequence[Row]]:
        """See ``Snapshot``."""
        return iter(())


class Keeper:
    """Keeps the initial sync of one map, in files and in the journal."""

    def __init__(self, journal: Journal, folder: Path, compiled: CompiledMap, id: int) -> None:
        self._journal = journal
        self._folder = folder
        self._compiled = compiled
        self.id = id

    def _path(self, what: str) -> Path:
        return self._folder / f"{self.id}-{what}.rows"

    def spool(self, side: Side) -> Spool:
        """An empty one, for what is carried out of a side."""
        self._folder.mkdir(parents=True, exist_ok=True)
        return Spool(self._compiled, side, self._path(side.value).open("w+b"))

    def spool_again(self, side: Side) -> Spool:
        """That of an initial sync that was interrupted.  Raises CannotGoOn where there is none."""
        spool = Spool(self._compiled, side, self._again(side.value))
        spool.recover()
        return spool

    def _again(self, what: str) -> IO[bytes]:
        try:
            return self._path(what).open("r+b")
        except OSError as error:
            raise CannotGoOn from error

    def save(self, kept: Kept, unusable: Pile[Unusable], restores: Mapping[Side, Restores]) -> None:
        """From here on the sync can go on."""
        counts = {side.value: len(pairs) for side, pairs in restores.items()}
        path = self._path("rest")
        with path.with_suffix(".new").open("wb") as file:
            write_rows(file, [len(unusable), counts], ())
            for some in unusable.blocks():
                said = [(each.key, each.side.value, each.code, each.reason, len(each.rows)) for each in some]
                write_rows(file, [None, *said], [row for each in some for row in each.rows])
            for side, pairs in restores.items():
                for block in pairs.blocks():
                    write_rows(file, [side.value, *(key for key, _ in block)], [natural for _, natural in block])
        os.replace(path.with_suffix(".new"), path)
        self._journal.put(KEPT + self._compiled.name, str(kept))

    def rest(self) -> tuple[Pile[Unusable], dict[Side, Restores]]:
        """What ``save`` kept besides.  Raises CannotGoOn where it is not whole."""
        unusable: Pile[Unusable] = Pile()
        restores: dict[Side, Restores] = {side: Pile() for side in Side}
        with self._again("rest") as file:
            head = read_rows(file)
            if head is None:
                raise CannotGoOn
            expected, counts = head[0]
            while found := read_rows(file):
                (restored, *said), held = found
                if restored is not None:
                    naturals: Sequence[Key] = held  # type: ignore[assignment]  # keys, of which no cell is ABSENT
                    for pair in zip(said, naturals, strict=True):
                        restores[Side(restored)].append(pair)
                    continue
                start = 0
                for key, side, code, reason, count in said:
                    rows = tuple(held[start : start + count])
                    unusable.append(Unusable(key, Side(side), code, reason, rows), weight(rows))
                    start += count
        if len(unusable) != expected or any(len(restores[Side(side)]) != count for side, count in counts.items()):
            raise CannotGoOn
        return unusable, restores


def drop(journal: Journal, folder: Path | None, name: str) -> None:
    """What was kept of a map's initial sync is of no use any more."""
    text = journal.get(KEPT + name)
    if text is None:
        return
    journal.put(KEPT + name, None)
    if folder is not None:
        for path in folder.glob(f"{json.loads(text)['id']}-*"):
            path.unlink(missing_ok=True)


def tidy(journal: Journal, folder: Path | None, names: Sequence[str]) -> None:
    """Remove files that belong to no initial sync that can go on; ``names`` are those of all maps."""
    if folder is None or not folder.is_dir():
        return
    kept = [text for name in names if (text := journal.get(KEPT + name)) is not None]
    wanted = {str(json.loads(text)["id"]) for text in kept}
    for path in folder.glob("*-*"):
        if path.name.split("-")[0] not in wanted:
            path.unlink(missing_ok=True)


def interrupted(
    journal: Journal, folder: Path | None, compiled: CompiledMap, connectors: Mapping[Side, Connector]
) -> Kept | None:
    """The initial sync of a map that was interrupted and can go on; None where it has to begin anew.

    Looks at what was kept and at how far the streams are; whether the feeds still hold the rest is not looked at.
    """
    text = journal.get(KEPT + compiled.name)
    if text is None or folder is None:
        return None
    try:
        kept = Kept.parse(text)
        keeper = Keeper(journal, folder, compiled, kept.id)
        keeper.rest()
        if kept.fingerprint != fingerprint(compiled):
            return None
        for source in Side:
            carried = kept.carried(source, connectors[source.other], f"{source}>{source.other}")
            spool = keeper.spool_again(source)
            try:
                if spool.count < carried:  # the machine lost what it had not written yet
                    return None
            finally:
                spool.close()
    except (CannotGoOn, DualwriteError, ValueError, KeyError, TypeError, EOFError):
        return None
    return kept


# -- what a side was at the boundary ----------------------------------------------------------------------------------


class Rest:
    """A snapshot of a side as it was at ``boundary``, without the records that a spool holds already."""

    def __init__(
        self, snapshot: Snapshot, originals: Mapping[Key, Row | None], spool: Spool, view: View, tally: Tally
    ) -> None:
        """``originals`` are the records changed since the boundary, as they were then (None: not in the view)."""
        self._snapshot = snapshot
        self._originals = originals
        self._spool = spool
        self._view = view
        self._tally = tally

    @property
    def boundary(self) -> Position:
        """See ``Snapshot``; of no use here."""
        return self._snapshot.boundary

    def blocks(self) -> Iterator[Sequence[Row]]:
        """See ``Snapshot``."""
        mine, others = self._taken_back(), self._spooled()
        known: set[Key] = set()
        waiting: dict[Key, Row] = {}
        parts: tuple[Partitioned, Partitioned] | None = None
        done = read = 0
        reading = True
        for rows in mine:
            read += len(rows)
            while reading and done < read:
                keys = next(others, None)
                if keys is None:
                    reading = False
                    break
                done += len(keys)
                known.update(key for key in keys if waiting.pop(key, None) is None)
            new = {}
            for key, row in zip(self._view.natural_keys(rows), rows, strict=True):
                if key in known:
                    known.discard(key)
                else:
                    new[key] = row
            if not reading and parts is None:
                if waiting:
                    yield list(waiting.values())
                    waiting = {}
                if new:
                    yield list(new.values())
                continue
            waiting |= new
            most = min(IN_MEMORY, LARGEST * len(rows) // (weight(rows) or 1))  # rows may be large
            if len(known) + len(waiting) > most:
                parts = parts or (Partitioned(), Partitioned())
                _set_aside(parts, known, waiting)
        for keys in others:
            known.update(key for key in keys if waiting.pop(key, None) is None)
            if len(known) + len(waiting) > IN_MEMORY:
                parts = parts or (Partitioned(), Partitioned())
                _set_aside(parts, known, waiting)
        if parts is None:
            if waiting:
                yield list(waiting.values())
            return
        _set_aside(parts, known, waiting)
        for gone, here in parts_of(*parts):
            there = {key for key, _ in gone}
            left = [row for key, row in here if key not in there]
            if left:
                yield left

    def _taken_back(self) -> Iterator[Sequence[Row]]:
        """The side's rows as they were at the boundary."""
        originals = self._originals
        for block in self._snapshot.blocks():
            if originals:
                keys = self._view.natural_keys(block)
                block = [row for key, row in zip(keys, block, strict=True) if key not in originals]
            if block:
                yield block
        before = [row for row in originals.values() if row is not None]
        if before:
            yield before

    def _spooled(self) -> Iterator[list[Key]]:
        """The keys of the records that the spool holds; they count as read, and as created."""
        compiled, side, tally = self._spool.compiled, self._spool.side, self._tally
        for rows in self._spool.reread():
            keys = compiled.keys(side, rows)
            tally.read[side] += len(rows)
            tally.count(f"read {side}", keys)
            tally.count(f"created {side.other}", keys)
            yield self._view.natural_keys(rows)


def _set_aside(parts: tuple[Partitioned, Partitioned], known: set[Key], waiting: dict[Key, Row]) -> None:
    parts[0].add(list(known), list(known))
    parts[1].add(list(waiting), list(waiting.values()))
    known.clear()
    waiting.clear()


def originals(connector: Connector, view: View, after: Position, until: Position) -> dict[Key, Row | None]:
    """What the records that were changed in a part of a feed were before it, by key; None for those that were not.

    Raises CannotGoOn where they are too many, or the feed tells of something that no change can.
    """
    found: dict[Key, Row | None] = {}
    feed = connector.feed([view], after)
    try:
        position = after
        while position < until:
            batch = feed.read(10_000, 0.05)
            if batch.halts or len(found) > CHANGED:
                raise CannotGoOn
            for change in batch.changes:
                if change.position <= until:
                    for row, was_there in ((change.before, True), (change.after, False)):
                        if row is not None:
                            found.setdefault(view.natural_key(row), row if was_there else None)
            position = batch.position
    finally:
        feed.close()
    return found
