"""Maps whose changes queue in the journal: paused ones, those that catch up, and those that are held.

Both flows stand still while a map is paused, resumed or joined to the others again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from dualwrite.connectors.base import Connector
from dualwrite.engine.backlog import Backlog
from dualwrite.engine.continuity import check_kept
from dualwrite.engine.lifecycle import after, queues, stands
from dualwrite.engine.link import QUEUED, Link, Point
from dualwrite.journal import Journal, MapState, State
from dualwrite.model import Side

if TYPE_CHECKING:
    from dualwrite.engine.flow import Flow


class Pauses:
    """Those of one link; to be given the link and its flows whenever these are opened."""

    def __init__(self, journal: Journal, connectors: Mapping[Side, Connector], point: Point) -> None:
        self._journal = journal
        self._connectors = connectors
        self._point = point
        self._link: Link
        self._flows: Mapping[Side, Flow]

    def open(self, link: Link, flows: Mapping[Side, Flow], states: Mapping[str, MapState]) -> set[str]:
        """Work with these from here on, and take up what is kept of delayed maps; returns all maps of which something
        is."""
        self._link, self._flows = link, flows
        entries = {side: list(self._connectors[side.other].remembered(QUEUED)) for side in Side}
        kept = self._journal.backlogs.maps() | {entry.view for found in entries.values() for entry in found}
        for name, compiled in link.maps.items():
            if name not in kept and not queues(states[name]):
                continue
            for side, state in link.sides.items():
                mine = [entry for entry in entries[side] if entry.view == name]
                lane = Backlog(compiled, side, self._journal, mine, state.windows.late)
                state.backlogs[name] = lane
                check_kept(side, state.connector, [lane])
                if lane.kept_to is not None:
                    state.windows.keep_elsewhere(name, lane.kept_to)
            if stands(states[name]):
                link.standing.add(name)
        self.read_skips()
        return kept

    def pause(self, name: str) -> None:
        """From here on the map's changes queue in the journal, those of both sides."""
        self._journal.set_state(name, state=after(self._state(name), "pause"), reason="")
        self._point("between pauses")
        for side, each in self._link.sides.items():
            if name not in each.backlogs:
                each.backlogs[name] = Backlog(self._link.maps[name], side, self._journal, (), each.windows.late)
        self.delay(name)
        self._link.standing.add(name)
        for flow in self._flows.values():
            flow.reopen()
        self._journal.log("paused", map=name)

    def _state(self, name: str) -> State:
        return self._journal.states()[name].state

    def delay(self, name: str) -> None:
        """Tell both sides that the map is delayed, where they have not been told yet."""
        for side, state in self._link.sides.items():
            lane, carried = state.backlogs[name], self._flows[side].carried
            assert carried is not None, "flows are open"
            if not lane.is_delayed:
                self._flows[side].delays.delay(lane, carried)
                self._point("between pauses")

    def resume(self, name: str) -> None:
        """From here on what has queued is carried, and new changes queue behind it."""
        self._journal.set_state(name, state=after(self._state(name), "resume"), reason="")
        self._journal.log("catching up", map=name, detail={"queued": self.queued(name)})
        self._link.standing.discard(name)

    def queued(self, name: str) -> dict[str, int]:
        """How many changes of a map wait, by the side that they come from."""
        found = self._journal.backlogs.queued(name).get(name, {})
        return {str(side): queued.changes for side, queued in found.items()}

    def read_skips(self) -> None:
        """Learn what people want to become of queues."""
        for state in self._link.sides.values():
            for name, lane in state.backlogs.items():
                lane.skip = self._journal.get(f"skip.{name}") or ""

    def is_catching_up(self) -> bool:
        """Does a map carry what has queued?"""
        lanes = (item for state in self._link.sides.values() for item in state.backlogs.items())
        return any(lane.is_delayed and name not in self._link.standing for name, lane in lanes)

    # -- back among the others ------------------------------------------------------------------------------------

    def may_settle(self) -> bool:
        """Is it worth a look whether a map can flow with the others again?  For any thread."""
        for name in list(self._link.sides[Side.LEFT].backlogs):
            lanes = [state.backlogs[name] for state in self._link.sides.values()]
            if all(lane.is_over for lane in lanes):
                return True
            if name not in self._link.standing and all(lane.is_empty for lane in lanes):
                return True
        return False

    def settle(self) -> None:
        """Let maps flow with the others again of which nothing waits any more, and forget what they needed."""
        for name in [name for name in self._link.maps if name in self._link.sides[Side.LEFT].backlogs]:
            lanes = {side: state.backlogs[name] for side, state in self._link.sides.items()}
            if any(lane.is_delayed for lane in lanes.values()):
                if name not in self._link.standing:
                    self._join(name, lanes)
            elif all(lane.is_over for lane in lanes.values()):
                for state in self._link.sides.values():
                    del state.backlogs[name]
                    state.windows.lend({})

    def _join(self, name: str, lanes: Mapping[Side, Backlog]) -> None:
        flows = self._flows
        if not all(flows[side].delays.is_caught_up(lane, flows[side].carried) for side, lane in lanes.items()):
            return
        for side, lane in lanes.items():
            carried = flows[side].carried
            if lane.is_delayed and carried is not None:
                flows[side].delays.join(lane, carried)
                self._point("between joins")
        self._journal.set_state(name, state=after(self._state(name), "caught up"))
        self._journal.put(f"skip.{name}", None)
        discarded = {str(side): lane.discarded for side, lane in lanes.items() if lane.discarded}
        self._journal.log("caught up; running", map=name, detail={"discarded": discarded} if discarded else None)
