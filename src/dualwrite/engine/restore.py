"""One-way columns that users of the wrong side overwrote: written again from the side that owns them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from dualwrite.engine.giving_way import DIVIDE, GivingWay
from dualwrite.engine.link import Link, Point, chunks, key_text
from dualwrite.errors import Busy, RowProblem
from dualwrite.mapping.compile import CompiledMap
from dualwrite.model import ABSENT, Applied, Key, Outcome, Row, Side, Unchanged, Write

AT_ONCE = 500
"""Records restored in one transaction."""


class Restorer:
    """Writes the target's one-way columns into ``source`` again.

    What is to be restored stands in the target's side table (``LinkSide.restore``) until ``done`` names it; a crash in
    between only writes the same once more.
    """

    def __init__(self, link: Link, source: Side, point: Point, giving_way: GivingWay) -> None:
        self.done: set[tuple[str, Key]] = set()
        self._link = link
        self._source = source
        self._target = source.other
        self._point = point
        self._giving_way = giving_way
        self._to = link.sides[self._target]
        self._refused: dict[tuple[str, Key], Key] = {}

    def run(self) -> None:
        """Restore what waits for it."""
        names = dict.fromkeys(record[0] for record in self._to.restore)
        for map_name in (name for name in names if name not in self._link.standing):
            pending = {key: natural for (name, key), natural in self._to.restore.items() if name == map_name}
            refused = self.put_back(map_name, pending) if map_name in self._link.maps else set()
            self._link.loops.restored([(map_name, key) for key in pending], self._source)
            for key, natural in pending.items():
                del self._to.restore[map_name, key]
                if key in refused:
                    self._refused[map_name, key] = natural
                else:
                    self.done.add((map_name, key))

    def put_back(self, map_name: str, records: Mapping[Key, Key]) -> set[Key]:
        """Restore these records at once; each with the key by which the target finds it.

        Returns those of which this was not possible; the activity log tells why.
        """
        refused: dict[Key, str] = {}
        for chunk in chunks(list(records.values()), AT_ONCE):
            refused |= self._restore(map_name, chunk)
        found = {key: refused[natural] for key, natural in records.items() if natural in refused}
        if found:
            with self._link.journal.batch() as journal:
                for key, reason in found.items():
                    detail = {"key": key_text(key), "side": str(self._source), "reason": reason}
                    journal.log("one-way columns could not be put back", map=map_name, detail=detail)
        return set(found)

    def again(self) -> None:
        """What could not be put back is tried once more, as it is at every start."""
        self._to.restore.update(self._refused)
        self._refused.clear()

    def _restore(self, map_name: str, naturals: Sequence[Key]) -> dict[Key, str]:
        """Returns what the source has refused, or the map cannot carry, with the reason.

        What is written back may feed columns that belong to the source, and they others again: the target gets these at
        once, to and fro as long as anything changes.  Lines do not feed each other in a circle (``check`` sees to it).
        """
        compiled = self._link.maps[map_name]
        owned = compiled.owned_elsewhere(self._source)
        keys = self._copy(compiled, self._target, naturals, owned)
        refused = {natural: why for natural, found in keys.items() if (why := found.reason or found.misfit)}
        fed = _fed(compiled, self._source, owned)
        while fed and keys:
            back = self._copy(compiled, self._source, [found.key for found in keys.values() if not found.reason], fed)
            changed = [found.key for found in back.values() if found.is_new]
            owned = _fed(compiled, self._target, fed)
            keys = self._copy(compiled, self._target, changed, owned) if owned and changed else {}
            fed = _fed(compiled, self._source, owned) if any(found.is_new for found in keys.values()) else frozenset()
        return refused

    def _copy(
        self, compiled: CompiledMap, giver: Side, naturals: Sequence[Key], cells: frozenset[int]
    ) -> dict[Key, _Copied]:
        """Write these cells of the other side's records as they are at ``giver``; by the keys of its records."""
        writes: dict[Key, Write] = {}
        misfits: dict[Key, str] = {}
        for natural, found in self._link.sides[giver].connector.fetch(compiled.views[giver], naturals).items():
            if len(found) != 1 or not compiled.passes(giver, found[0]):
                continue
            with suppress(RowProblem):  # a record without a usable key has no counterpart
                row, misfit = _known(compiled, giver, found[0])
                if any(row[index] is ABSENT for index in cells):
                    misfits[natural] = misfit
                wanted = tuple(cell if index in cells else ABSENT for index, cell in enumerate(row))
                writes[natural] = Write(compiled.target_key(giver, found[0]), (ABSENT,) * len(row), wanted)
        return self._write(compiled, giver, writes, misfits) if writes else {}

    def _write(
        self, compiled: CompiledMap, giver: Side, writes: Mapping[Key, Write], misfits: Mapping[Key, str]
    ) -> dict[Key, _Copied]:
        """Write in one transaction; in smaller ones where only these get the locks."""
        is_divisible = len(writes) > 1
        try:
            return self._giving_way.until_done(
                giver.other,
                lambda: self._attempt(compiled, giver, writes, misfits),
                DIVIDE if is_divisible else None,
            )
        except Busy:
            if not is_divisible:
                raise
        halves = chunks(list(writes.items()), (len(writes) + 1) // 2)
        written = [self._write(compiled, giver, dict(half), misfits) for half in halves]
        return {natural: copied for half in written for natural, copied in half.items()}

    def _attempt(
        self, compiled: CompiledMap, giver: Side, writes: Mapping[Key, Write], misfits: Mapping[Key, str]
    ) -> dict[Key, _Copied]:
        taker = giver.other
        view = compiled.views[taker]
        with self._link.sides[taker].connector.transaction(self._link.stream(giver)) as transaction:
            now = transaction.fetch(view, [write.key for write in writes.values()])
            within = {
                natural: write
                for natural, write in writes.items()
                if any(compiled.passes(taker, row) for row in now.get(write.key, ()))
            }
            outcomes = transaction.write(view, list(within.values()))
            self._point("inside restore")
            if any(isinstance(outcome, Applied) for outcome in outcomes):
                self._audit(compiled, giver, transaction.number, within.values(), outcomes, now)
                with self._link.sides[taker].committed(transaction, None):
                    pass
        return {
            natural: _Copied(
                write.key,
                isinstance(found, Applied),
                "" if isinstance(found, Applied | Unchanged) else str(found),
                misfits.get(natural, ""),
            )
            for (natural, write), found in zip(within.items(), outcomes, strict=True)
        }

    def _audit(
        self,
        compiled: CompiledMap,
        giver: Side,
        number: int,
        writes: Iterable[Write],
        outcomes: Sequence[Outcome],
        now: Mapping[Key, Sequence[Row]],
    ) -> None:
        if self._link.audit is None:
            return
        taker = giver.other
        done = [
            (write, now[write.key][0])
            for write, outcome in zip(writes, outcomes, strict=True)
            if isinstance(outcome, Applied)
        ]
        written = [(compiled.key(taker, row), write, row) for write, row in done]
        self._link.journal.audits.append(self._link.audit.restored(taker, number, compiled, written))


@dataclass(frozen=True, slots=True)
class _Copied:
    """What became of a record: its key where it was written, whether anything is new there, and why it was refused.

    ``misfit`` says why the map cannot carry some of what was to be written.
    """

    key: Key
    is_new: bool
    reason: str
    misfit: str


def _fed(compiled: CompiledMap, side: Side, cells: frozenset[int]) -> frozenset[int]:
    """The cells of the other side that belong to this one and are made of some of its cells."""
    feeds = (feed for feed in compiled.feeds[side] if feed.owned and not cells.isdisjoint(feed.cells))
    return frozenset(index for feed in feeds for index in feed.indexes)


def _known(compiled: CompiledMap, side: Side, row: Row) -> tuple[Row, str]:
    """What a row becomes on the other side as far as it can be carried, and why some of it cannot."""
    try:
        return compiled.map_row(side, row), ""
    except RowProblem as problem:
        return compiled.map_known(side, row)[0], problem.message
