"""One side of a link while the other one does not answer: what its users do to paused maps goes into the journal.

Nothing is written into either system, and nothing is taken over.  What needs the other side is left to the next
opening of the link, which finds all of this as after a crash: how far that side has received a map, whether it is the
one that it was, and whether somebody else has committed there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dualwrite.engine.backlog import Backlog
from dualwrite.engine.continuity import acknowledged, check_alone, check_home, check_identity, check_kept, keep_let_go
from dualwrite.engine.flow import Flow
from dualwrite.engine.kept import KeptWindows
from dualwrite.engine.lifecycle import after, has_synced, is_live, pending, queues, wants_to_run
from dualwrite.engine.link import QUEUED, Link, LinkSide, load_side
from dualwrite.engine.pace import LARGEST
from dualwrite.engine.window import Windows
from dualwrite.errors import Usage
from dualwrite.journal import MapState
from dualwrite.mapping.compile import CompiledMap
from dualwrite.model import Position, Side

if TYPE_CHECKING:
    from dualwrite.engine.supervisor import Engine


class Alone:
    """The side of an engine's link that answers.  The engine itself is closed meanwhile."""

    def __init__(self, engine: Engine, side: Side, limit: int = LARGEST) -> None:
        """``limit``: about so many changes are put into the journal at once."""
        self.side = side
        self._engine = engine
        self._limit = limit
        self._journal = engine.journal
        self._connector = engine.connectors[side]
        self._flow: Flow | None = None
        self._delayed: frozenset[str] = frozenset()
        self._read_to: Position | None = None
        self._held: Position | None = None  # up to here nothing is for anybody else than the paused maps
        self._lets_go = True

    def look(self) -> None:
        """Pause the maps that are to be paused by now, and listen for all that are.

        Raises Usage, Denied or PositionLost where the side must not be taken up, Halted where one map must not.
        """
        for name, state in self._journal.states().items():
            if pending(state) == "pause" and is_live(state) and name in self._engine.maps:
                self._journal.set_state(name, state=after(state.state, "pause"), reason="")
                self._journal.log("paused", map=name, detail={"meanwhile": f"{self.side.other} does not answer"})
        states = self._journal.states()
        live = {name: each for name, each in self._engine.maps.items() if name in states and is_live(states[name])}
        delayed = frozenset(name for name in live if queues(states[name]))
        if delayed != self._delayed:
            self.close()
            self._lets_go = not any(_needs_all(state) and state.map not in live for state in states.values())
            if delayed:
                self._flow = self._listen(live, delayed, {name: states[name] for name in live})
            self._delayed = delayed

    def _listen(self, live: dict[str, CompiledMap], delayed: frozenset[str], states: dict[str, MapState]) -> Flow:
        """The flow out of the side, which only reads, from the oldest that the side keeps."""
        _refuse_edited(live, states)
        check_identity(self._journal, self.side, self._connector)
        check_home(self._journal)
        kept = {side: KeptWindows(side, self._journal, live) for side in Side}
        here = load_side(kept[self.side], self._connector, live, live)
        other = self.side.other
        there = LinkSide(other, self._engine.connectors[other], Windows(other, live), kept[other])
        received = list(self._connector.remembered(QUEUED))
        for name in delayed:
            here.backlogs[name] = Backlog(live[name], here.side, self._journal, None, here.windows.late)
            mine = [entry for entry in received if entry.view == name]
            there.backlogs[name] = Backlog(live[name], there.side, self._journal, mine, there.windows.late)
        for name, state in states.items():
            boundary = state.boundaries[self.side]
            if boundary is not None:
                here.windows.floor(name, boundary)
        link = Link(self._engine.name, {here.side: here, there.side: there}, self._journal, live)
        check_alone(self._journal, self.side, self._connector, link.views(self.side))
        check_kept(self.side, self._connector, here.backlogs.values())
        self._read_to = self._held = None
        flow = Flow(link, self.side, self._engine.point)
        flow.pace.limit = self._limit
        flow.reopen()
        return flow

    def turn(self, timeout: float) -> bool:
        """Put what has come into the journal; False where there is nothing to listen for."""
        if self._flow is None:
            return False
        batch = self._flow.listen(timeout)
        self._read_to = batch.position
        if self._held is None:
            others = (change.position for change in batch.changes if change.view not in self._delayed)
            first = next(others, None)
            self._held = None if first is None else first.just_before()
        return True

    def acknowledge(self) -> None:
        """Let the side forget what only paused maps needed: the journal has it.

        The other side's commits are those that were noted last: of what came behind them, nothing is let go that is not
        in the journal.  So it is found out as ever, should that side be restored from a backup.
        """
        allowed = self._read_to if self._held is None else self._held
        if allowed is None or not self._lets_go:
            return
        before, commits = acknowledged(self._journal, self.side)
        if before is not None and before.feed == allowed.feed and before >= allowed:
            return
        self._journal.put(f"acknowledged.{self.side}", f"{allowed} {commits}")
        self._engine.point("before acknowledge")
        self._connector.acknowledge(allowed)
        keep_let_go(self._journal, self.side, self._connector)

    def close(self) -> None:
        """Let go of the feed."""
        if self._flow is not None:
            self._flow.close_feed()
            self._flow = None
        self._delayed = frozenset()


def _needs_all(state: MapState) -> bool:
    """Does the map need what its side keeps: is it carried, or is its initial sync under way?"""
    return is_live(state) or (wants_to_run(state) and not has_synced(state))


def _refuse_edited(live: dict[str, CompiledMap], states: dict[str, MapState]) -> None:
    """Raises Usage where what is captured may not be what a map asks for by now."""
    for name, compiled in live.items():
        now, last = compiled.table_map, states[name]
        if (now.version, now.publisher) != (last.version, last.publisher):
            raise Usage(
                f"map {name} was edited since it ran: what was captured is of another version",
                "nothing queues before both systems answer",
            )
