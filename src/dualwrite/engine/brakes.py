"""What is too much to be done unasked: many deletes in a minute, an initial sync that overwrites most of a table."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from dualwrite.errors import Braked, Flooded, Halted
from dualwrite.journal import Journal
from dualwrite.model import Change, Key, Kind, Position, Side

WITHIN: Final = 60
"""Seconds of the users' time within which deletes count together."""
FEW: Final = 1_000
"""Records that an initial sync may change unasked, whatever their share of the table."""


def refuse_changes(
    name: str,
    changed: Mapping[Side, int],
    read: Mapping[Side, int],
    share: float,
    allowed: int | None,
    command: str = "start",
) -> None:
    """Raises Braked where an initial sync would change more than that share of a side's table, and nobody let it;
    ``command`` lets it."""
    for side in Side:
        count, rows = changed[side], read[side]
        if count > FEW and count > share * rows and (allowed is None or count > allowed):
            let = "" if allowed is None else f", and --allow-changes let {allowed}"
            most = f"more than limits.changes ({share:.0%}) allows{let}"
            raise Braked(
                name,
                f"the initial sync would change {count} of {rows} records of the {side} side, {most}",
                f"nothing was written; see `dualwrite plan`; if it is meant: `dualwrite {command} {name!r} "
                f"--allow-changes {count}`; "
                f"if the {side} side has the better values: `dualwrite {command} {name!r} --master {side}`; "
                f"where these are in columns of the other side (one-way lines), turn the direction of their lines",
                count,
            )


def allow(journal: Journal, names: Iterable[str], count: int, who: str) -> None:
    """Let the next initial sync of these maps change so many records of a side."""
    with journal.batch() as batch:
        for name in names:
            batch.put(_allowed(name), str(count))
            batch.log("changes allowed", map=name, who=who, detail={"changes": count})


def allowed(journal: Journal, name: str) -> int | None:
    """How many a person has let the next initial sync of a map change; None where nobody has."""
    found = journal.get(_allowed(name))
    return None if found is None else int(found)


def braked(journal: Journal, name: str) -> int | None:
    """How many records a map would have changed when it was stopped for it; None where it was not."""
    found = journal.get(_braked(name))
    return None if found is None else int(found)


def note(journal: Journal, trouble: Halted) -> None:
    """A map was stopped: for changing too much, or for something else."""
    journal.put(_braked(trouble.map), str(trouble.count) if isinstance(trouble, Braked) else None)


def used(journal: Journal, name: str) -> None:
    """The initial sync has gone through: the next one is another matter."""
    with journal.batch() as batch:
        batch.put(_allowed(name), None)
        batch.put(_braked(name), None)


def _allowed(name: str) -> str:
    return f"allowed.{name}"


def _braked(name: str) -> str:
    return f"braked.{name}"


class Updates:
    """The records that users have changed within a minute, by map, in one direction; ``rows`` counts those of a map.

    What queues while a map is paused is not counted: a person has let it through.
    """

    def __init__(self, share: float, rows: Callable[[str], int]) -> None:
        self._share = share
        self._rows = rows
        self._most: dict[str, int] = {}
        self._known: dict[str, tuple[float, set[Key]]] = {}

    def refuse_floods(self, side: Side, changes: Iterable[Change]) -> None:
        """Raises Flooded where a map's users have changed more records than the link takes unasked."""
        for change in changes:
            if change.kind is not Kind.UPDATE:
                continue
            began, keys = self._known.get(change.view, (0.0, set()))
            if not began <= change.at <= began + WITHIN:
                began, keys = self._known[change.view] = change.at, set()
            keys.add(change.key)
            if len(keys) > self._most.get(change.view, FEW):
                self._refuse(side, change.view, len(keys))

    def _refuse(self, side: Side, name: str, count: int) -> None:
        rows = self._rows(name)
        self._most[name] = max(FEW, int(self._share * rows))
        if count > self._most[name]:
            raise Flooded(
                name,
                f"{side}: {count} of {rows} records were changed within a minute, and maybe more: more than "
                f"limits.updates ({self._share:.0%}) allows; what came before is carried, the rest queues",
                f"if it is meant: `dualwrite resume {name!r}`; else `dualwrite resume {name!r} --skip discard`, then "
                f"`dualwrite verify {name!r} --repair {side.other}`",
            )


class Deletes:
    """The deletes of the last minute, by map, in one direction; the journal has them, so a restart forgets none.

    What is counted is written before it is carried, with the place up to which it is: after a crash it is read again,
    and not counted again.
    """

    def __init__(self, journal: Journal, stream: str, limit: int | None) -> None:
        self._journal = journal
        self._name = f"deletes.{stream}"
        self._limit = limit
        self._counts: dict[str, Counter[int]] = {}
        self._counted: Position | None = None
        if limit is not None:
            self._load()

    def _load(self) -> None:
        kept = json.loads(self._journal.get(self._name) or "{}")
        if kept:
            self._counted = Position.parse(kept["counted"])
            self._counts = {
                name: Counter({int(second): count for second, count in counts.items()})
                for name, counts in kept["counts"].items()
            }

    def over_limit(self, changes: Iterable[Change]) -> frozenset[str]:
        """The maps of which users have deleted more records within a minute than the link allows unasked."""
        if self._limit is None:
            return frozenset()
        deletes = [change for change in changes if change.after is None]
        if not deletes:
            return frozenset()
        for change in deletes:
            if not self._is_counted(change):
                self._counts.setdefault(change.view, Counter())[int(change.at)] += 1
        over = frozenset(
            name
            for name, second in {(change.view, int(change.at)): None for change in deletes}
            if self._within(name, second) > self._limit
        )
        self._keep(deletes[-1].position)
        return over

    def _is_counted(self, change: Change) -> bool:
        at, counted = change.position, self._counted
        return counted is not None and counted.feed == at.feed and at <= counted

    def _within(self, name: str, last: int) -> int:
        return sum(count for second, count in self._counts[name].items() if last - WITHIN <= second <= last)

    def _keep(self, position: Position) -> None:
        counted = self._counted
        if counted is not None and counted.feed == position.feed and position <= counted:
            return
        self._counted = position
        for name, counts in list(self._counts.items()):
            newest = max(counts)
            self._counts[name] = Counter({at: count for at, count in counts.items() if at >= newest - WITHIN})
        self._journal.put(self._name, json.dumps({"counted": str(position), "counts": self._counts}))


Allowance = Callable[[Mapping[Side, int], Mapping[Side, int]], None]
"""Called with how many records an initial sync would change, and how many it has read, by side; raises Braked."""


def unasked(_changed: Mapping[Side, int], _read: Mapping[Side, int]) -> None:
    """Whoever asked for it has just seen what it does."""
