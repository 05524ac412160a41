"""One-way columns that users of the wrong side overwrote: written again from the side that owns them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress

from dualwrite.engine.link import Link, Point, chunks, key_text
from dualwrite.errors import RowProblem
from dualwrite.mapping.compile import CompiledMap
from dualwrite.model import ABSENT, Applied, Key, Row, Side, Unchanged, Write

AT_ONCE = 200
"""Records restored in one transaction."""


class Restorer:
    """Writes the target's one-way columns into ``source`` again.

    What is to be restored stands in the target's side table (``LinkSide.restore``) until ``done`` names it; a crash in
    between only writes the same once more.
    """

    def __init__(self, link: Link, source: Side, point: Point) -> None:
        self.done: set[tuple[str, Key]] = set()
        self._link = link
        self._source = source
        self._target = source.other
        self._point = point
        self._from = link.sides[source]
        self._to = link.sides[self._target]
        self._refused: dict[tuple[str, Key], Key] = {}

    def run(self) -> None:
        """Restore what waits for it."""
        for map_name in dict.fromkeys(record[0] for record in self._to.restore):
            pending = {key: natural for (name, key), natural in self._to.restore.items() if name == map_name}
            refused: dict[Key, str] = {}
            if map_name in self._link.maps:
                for chunk in chunks(list(pending.values()), AT_ONCE):
                    refused |= self._restore(map_name, chunk)
            for key, natural in pending.items():
                del self._to.restore[map_name, key]
                if natural in refused:
                    self._refused[map_name, key] = natural
                    detail = {"key": key_text(key), "side": str(self._source), "reason": refused[natural]}
                    self._link.journal.log("one-way columns could not be put back", map=map_name, detail=detail)
                else:
                    self.done.add((map_name, key))

    def again(self) -> None:
        """What could not be put back is tried once more, as it is at every start."""
        self._to.restore.update(self._refused)
        self._refused.clear()

    def _restore(self, map_name: str, naturals: Sequence[Key]) -> dict[Key, str]:
        """Returns what the source has refused, with its reason."""
        compiled = self._link.maps[map_name]
        owned = {i for unit in compiled.units[self._source] if unit.owner is self._target for i in unit.indexes}
        rows = self._to.connector.fetch(compiled.views[self._target], naturals)
        writes: dict[Key, Write] = {}
        for natural, found in rows.items():
            if len(found) != 1 or not compiled.passes(self._target, found[0]):
                continue
            with suppress(RowProblem):  # a record without a usable key has no counterpart
                row = self._known(compiled, found[0])
                wanted = tuple(cell if index in owned else ABSENT for index, cell in enumerate(row))
                key = compiled.target_key(self._target, found[0])
                writes[natural] = Write(key, (ABSENT,) * len(row), wanted)
        return self._put_back(compiled, writes) if writes else {}

    def _known(self, compiled: CompiledMap, row: Row) -> Row:
        try:
            return compiled.map_row(self._target, row)
        except RowProblem:  # whoever carries the row tells
            return compiled.map_known(self._target, row)[0]

    def _put_back(self, compiled: CompiledMap, writes: Mapping[Key, Write]) -> dict[Key, str]:
        view = compiled.views[self._source]
        with self._from.connector.transaction(self._link.stream(self._target)) as transaction:
            now = transaction.fetch(view, [write.key for write in writes.values()])
            within = {
                natural: write
                for natural, write in writes.items()
                if any(compiled.passes(self._source, row) for row in now.get(write.key, ()))
            }
            outcomes = transaction.write(view, list(within.values()))
            self._point("inside restore")
            if any(isinstance(outcome, Applied) for outcome in outcomes):
                transaction.commit(None)
        refused = zip(within, outcomes, strict=True)
        return {natural: str(found) for natural, found in refused if not isinstance(found, Applied | Unchanged)}
