"""The initial syncs of a link's maps: begun, gone on with after a crash, of companies that come in, and done again.

``initial`` compares and writes; here is what surrounds that: what is asked for before, what is recorded and kept, and
when a map is live.  Both flows stand still meanwhile, except for what the initial sync lets them carry.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from dualwrite.connectors.base import Connector
from dualwrite.engine.brakes import allowed, refuse_changes, used
from dualwrite.engine.flow import Flow
from dualwrite.engine.initial import InitialSync, Outcome
from dualwrite.engine.lifecycle import INITIALIZING, RUNNING, after, wants_to_run
from dualwrite.engine.link import Link
from dualwrite.engine.resuming import CannotGoOn, Keeper, Kept, drop, interrupted, tidy
from dualwrite.engine.scope import Floors, Late, Part, Scope, keep, scope_of
from dualwrite.engine.syncs import Recorder, Watch, recorded
from dualwrite.journal import Count, Journal, MapState
from dualwrite.journal.syncs import Why
from dualwrite.mapping.compile import CompiledMap
from dualwrite.model import Position, Side

DEFAULT_MASTER: Final = Side.LEFT


def master_of(state: MapState) -> Side:
    """The side whose values win in a map's initial sync."""
    return Side(state.master or DEFAULT_MASTER)


class InitialSyncs:
    """Those of one link; to be given the link and its flows whenever these are opened.

    ``folder`` is where they keep what they have found, None for nowhere; ``share`` is how much of a table they may
    change without asking.  ``interrupted`` are the maps whose initial sync goes on.
    """

    def __init__(
        self,
        journal: Journal,
        connectors: Mapping[Side, Connector],
        folder: Path | None,
        share: float,
        progress: Watch,
    ) -> None:
        self.interrupted: dict[str, Kept] = {}
        self._journal = journal
        self._connectors = connectors
        self.folder = folder
        self._share = share
        self._progress = progress
        self._scopes: dict[str, Scope] = {}  # of maps that have more records to bring together than they had before
        self._link: Link
        self._flows: dict[Side, Flow]

    def open(self, link: Link, flows: dict[Side, Flow]) -> None:
        """Work with these from here on."""
        self._link, self._flows = link, flows
        self._scopes = {}

    # -- after a crash --------------------------------------------------------------------------------------------

    def find(self, maps: Mapping[str, CompiledMap], states: Mapping[str, MapState]) -> None:
        """Find the initial syncs that go on where they were killed."""
        tidy(self._journal, self.folder, list(maps))
        found = {
            name: interrupted(self._journal, self.folder, compiled, self._connectors)
            for name, compiled in maps.items()
            if name in states and wants_to_run(states[name]) and states[name].initial == "pending"
        }
        self.interrupted = {name: kept for name, kept in found.items() if kept is not None}

    def begin_anew(self) -> None:
        """Those that were interrupted cannot go on."""
        for name in self.interrupted:
            self.drop(name)

    def drop(self, name: str) -> None:
        """Let go of what a map's initial sync had found."""
        drop(self._journal, self.folder, name)

    def go_on(self, compiled: CompiledMap) -> Outcome | None:
        """An initial sync that was interrupted, to its end; None where there is none, or it has to begin anew."""
        kept = self.interrupted.pop(compiled.name, None)
        keeper = None if kept is None else self._keeper(compiled, kept.id)
        if kept is None or keeper is None:
            return None
        self._journal.set_state(compiled.name, state=INITIALIZING, reason="")
        try:
            with recorded(self._journal, compiled, kept.master, "start", self._progress, resumed=kept.id) as recorder:
                sync = InitialSync(self._link, self._flows, compiled, kept.master, recorder, keeper, kept)
                recorder.counts, outcome = _carried(sync, sync.go_on)
        except CannotGoOn:
            return None
        return self._synced(compiled, outcome)

    # -- from the beginning ---------------------------------------------------------------------------------------

    def start(self, compiled: CompiledMap, state: MapState) -> Outcome:
        """Initial sync, then live; ``state`` is the map's."""
        name, here, master = compiled.name, state.state, master_of(state)
        self.drop(name)
        begun = after(here, "begun" if here in (INITIALIZING, RUNNING) else "start")
        self._journal.set_state(name, state=begun, initial="pending", reason="")
        self._journal.log("initial sync started", map=name, detail={"master": str(master)})
        with recorded(self._journal, compiled, master, "start", self._progress) as recorder:
            keeper = self._keeper(compiled, recorder.id)
            sync = self._sync(compiled, master, recorder, keeper)
            recorder.counts, outcome = _carried(sync, sync.compare)
        return self._synced(compiled, outcome)

    def _sync(
        self,
        compiled: CompiledMap,
        master: Side,
        recorder: Recorder,
        keeper: Keeper | None,
        part: Part | None = None,
    ) -> InitialSync:
        allowance = partial(self._refuse_changes, compiled.name)
        return InitialSync(self._link, self._flows, compiled, master, recorder, keeper, allowance=allowance, part=part)

    def _refuse_changes(self, name: str, changed: Mapping[Side, int], read: Mapping[Side, int]) -> None:
        refuse_changes(name, changed, read, self._share, allowed(self._journal, name))

    def _keeper(self, compiled: CompiledMap, id: int) -> Keeper | None:
        return None if self.folder is None else Keeper(self._journal, self.folder, compiled, id)

    def _synced(self, compiled: CompiledMap, outcome: Outcome) -> Outcome:
        """It has gone through: the map is live."""
        used(self._journal, compiled.name)
        detail = {
            "read": {str(side): count for side, count in outcome.tally.read.items()},
            "created": {str(side): count for side, count in outcome.created.items()},
            "changed": {str(side): count for side, count in outcome.changed.items()},
            "equal": outcome.tally.equal,
        }
        self._journal.set_state(compiled.name, state=after(INITIALIZING, "synced"), initial="done")
        self._journal.log("initial sync done; running", map=compiled.name, detail=detail)
        self.drop(compiled.name)
        return outcome

    # -- of live maps ---------------------------------------------------------------------------------------------

    def hold_late(self, compiled: CompiledMap, scope: Scope) -> None:
        """Companies of a live map that came in later were outside of it before; those whose records are still to be
        brought together are so until then."""
        if not scope.is_settled:
            self._scopes[compiled.name] = scope
        floors = dict(scope.floors)
        if scope.pending:
            floors |= dict.fromkeys(scope.pending, self._pending_floors(compiled))
        self._hold(compiled, floors)

    def _pending_floors(self, compiled: CompiledMap) -> Floors:
        kept = interrupted(self._journal, self.folder, compiled, self._connectors)
        if kept is not None and kept.is_carried:  # both sides have them: from there on, what users do is carried
            return kept.boundaries
        return {side: Position(connector.end().feed, (1 << 62,)) for side, connector in self._connectors.items()}

    def _hold(self, compiled: CompiledMap, floors: Mapping[str, Floors]) -> None:
        for side, state in self._link.sides.items():
            mine = {company: found[side] for company, found in floors.items()}
            state.windows.hold_late(compiled.name, Late(compiled, side, mine) if mine else None)

    def take_in(self) -> list[Outcome]:
        """Bring together what has come into live maps since they were carried last."""
        outcomes = []
        for name, scope in list(self._scopes.items()):
            if name in self._link.maps:
                if name in self._link.sides[Side.LEFT].backlogs:  # paused, or catching up: later
                    continue
                outcomes += [self._take_in_companies(name, scope.pending)] if scope.pending else []
                if scope.is_whole:
                    outcomes.append(self.again(self._link.maps[name], self._master(name), "filters"))
                keep(self._journal, name, replace(scope_of(self._link.maps[name]), floors=self._scopes[name].floors))
            del self._scopes[name]
        return outcomes

    def _master(self, name: str) -> Side:
        return master_of(self._journal.states()[name])

    def _take_in_companies(self, name: str, companies: tuple[str, ...]) -> Outcome:
        """An initial sync of the records of some companies; one that was interrupted goes on."""
        compiled = self._link.maps[name]

        def settled(boundaries: Floors) -> None:
            scope = self._scopes[name]
            self._scopes[name] = replace(scope, floors={**scope.floors, **dict.fromkeys(companies, boundaries)})
            self._hold(compiled, self._scopes[name].floors)

        part = Part(compiled, companies, settled)
        kept = interrupted(self._journal, self.folder, compiled, self._connectors)
        outcome = None if kept is None else self._part_on(part, kept)
        outcome = outcome or self._part_anew(part)
        self._journal.log("companies brought together", map=name, detail={"companies": list(companies)})
        self.drop(name)
        return outcome

    def _part_on(self, part: Part, kept: Kept) -> Outcome | None:
        with suppress(CannotGoOn), self._recorded(part, kept.master, kept.id) as recorder:
            keeper = self._keeper(part.compiled, kept.id)
            sync = InitialSync(self._link, self._flows, part.compiled, kept.master, recorder, keeper, kept, part=part)
            recorder.counts, outcome = _carried(sync, sync.go_on)
            return outcome
        return None

    def _part_anew(self, part: Part) -> Outcome:
        compiled, master = part.compiled, self._master(part.compiled.name)
        self.drop(compiled.name)
        with self._recorded(part, master) as recorder:
            sync = self._sync(compiled, master, recorder, self._keeper(compiled, recorder.id), part)
            recorder.counts, outcome = _carried(sync, sync.compare)
        used(self._journal, compiled.name)
        return outcome

    def _recorded(self, part: Part, master: Side, resumed: int | None = None) -> AbstractContextManager[Recorder]:
        return recorded(self._journal, part.compiled, master, "companies", self._progress, part.companies, resumed)

    def again(self, compiled: CompiledMap, master: Side, why: Why) -> Outcome:
        """Make the existing records of a live map agree; differing values are taken from ``master``.

        What users did meanwhile is carried as ever, and what is parked stays so.  Raises Braked, with nothing written,
        where that would change too much.
        """
        allowance = partial(self._refuse_changes, compiled.name)
        with recorded(self._journal, compiled, master, why, self._progress) as recorder:
            sync = InitialSync(self._link, self._flows, compiled, master, recorder, allowance=allowance, is_live=True)
            recorder.counts, outcome = _carried(sync, sync.compare)
        used(self._journal, compiled.name)
        return outcome


def _carried(sync: InitialSync, find: Callable[[], None]) -> tuple[Sequence[Count], Outcome]:
    try:
        find()
        outcome = sync.apply()
    finally:
        sync.close()
    return outcome.counts, outcome
