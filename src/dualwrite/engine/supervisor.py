"""The engine: brings the maps of a link to the states people want and keeps both flows going.

``Engine`` works on connectors, compiled maps and a journal; it knows no files and no command line.  It does
everything in the caller's thread, step by step; ``runner`` gives each flow a thread of its own.

A crash at any point loses only caches: ``open`` finds everything in the two databases and the journal.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import TypeAlias

from dualwrite.connectors.base import Connector
from dualwrite.engine.audit import Auditor
from dualwrite.engine.brakes import note
from dualwrite.engine.continuity import HOME, check_home, check_identity
from dualwrite.engine.doing import Notes, unless_stopped
from dualwrite.engine.flow import Flow
from dualwrite.engine.initial import Outcome
from dualwrite.engine.initial_syncs import InitialSyncs
from dualwrite.engine.kept import KeptWindows
from dualwrite.engine.lifecycle import (
    ATTENTION,
    PAUSED,
    RUNNING,
    STOPPED,
    Step,
    after,
    has_synced,
    is_live,
    pending,
    queues,
    wants_to_run,
)
from dualwrite.engine.link import (
    ClockOffset,
    Link,
    Point,
    clocks_from,
    clocks_text,
    load_side,
    no_point,
)
from dualwrite.engine.loops import LoopGuard
from dualwrite.engine.meter import Meter
from dualwrite.engine.pauses import Pauses
from dualwrite.engine.schemas import HELD, LAST_VERSION, Compile, Tables
from dualwrite.engine.scope import keep, notice, scope_of
from dualwrite.engine.syncs import Watch, quiet
from dualwrite.engine.versions import log_change
from dualwrite.errors import Braked, Denied, Drifted, Flooded, Halted, Invalid, PositionLost, Stopped, Usage
from dualwrite.journal import Journal, Layout, MapState, Retention
from dualwrite.mapping.compile import CompiledMap, cyclic, order_maps
from dualwrite.model import Key, Position, Side, show_path
from dualwrite.settings import CHANGES, ROUNDS

USUAL = Retention()
SAME_CLOCK = 0.1
"""Seconds between two clocks that are only the time between the two questions."""
CLOCK_TOLERANCE = 1.0
"""Seconds by which the clocks may drift before their difference is measured anew."""
HOPS = 50
"""Times that what is carried may bring about something else, before what still comes is taken for what users have done
since: as a rule, more than a record may go to and fro."""


Reload: TypeAlias = Callable[[Collection[str]], Mapping[str, CompiledMap]]
"""The maps of the project that have no errors, by name, as they are now; called with those that are about to start."""
Renew: TypeAlias = Callable[[], tuple[Sequence[CompiledMap], Mapping[str, str]]]
"""The maps as the systems have them, and what is wrong with those that are not among them."""
log = logging.getLogger(__name__)


class Engine:
    """Runs one link.  ``maps`` are all maps of the project, whatever their state."""

    def __init__(
        self,
        name: str,
        connectors: Mapping[Side, Connector],
        maps: Sequence[CompiledMap],
        journal: Journal,
        *,
        delete_limit: int | None = None,
        share: float = CHANGES,
        updates: float | None = None,
        rounds: int = ROUNDS,
        audit: Retention | None = USUAL,
        point: Point = no_point,
        progress: Watch = quiet,
        broken: Mapping[str, str] | None = None,
        reload: Reload | None = None,
        renew: Renew | None = None,
        compile: Compile | None = None,
        rescoped: Callable[[], bool] = lambda: False,
        folder: Path | None = None,
    ) -> None:
        """``audit`` is for how long what was applied is kept, None for not at all; ``broken`` says why maps of the
        project are not among ``maps``; ``reload`` reads those that are to be started anew from the project, as they are
        by then; ``renew``, where ``maps`` are of systems as they were earlier, makes them anew before anything is
        carried; ``compile`` binds maps that run to their tables as they are by then; ``rescoped`` tells, once, that
        these have other companies since; ``folder`` is where initial syncs keep what they have found, so that they can
        go on after a crash."""
        self.name = name
        self.connectors = connectors
        self.journal = journal
        self._know(maps)
        self.progress = unless_stopped(journal, progress)
        self.notes = Notes(journal)
        self.meter = Meter()
        self.retention = audit
        self._delete_limit = delete_limit
        self._updates = updates
        self._rounds = rounds
        self._broken = dict(broken or {})
        self._reload = reload
        self._renew = renew
        self.is_rescoped = rescoped
        self._tables = Tables(journal, connectors, compile, self._broken, self.meter)
        self._drifted: dict[str, Drifted] = {}  # maps of whose tables something was told since they were looked at
        self.syncs = InitialSyncs(journal, connectors, folder, share, self.progress)
        self.pauses = Pauses(journal, connectors, point)
        self._is_fresh = True  # the maps are those of the project as it is now
        self.point = point
        self.is_ending: Callable[[], bool] = lambda: False  # then it waits for nobody's locks
        self.link: Link
        self.flows: dict[Side, Flow] = {}

    def _know(self, maps: Sequence[CompiledMap]) -> None:
        """These are the maps from here on, parents first."""
        self.maps = {compiled.name: compiled for compiled in order_maps(maps)}
        self._cyclic = cyclic(list(self.maps.values()))

    # -- opening and closing --------------------------------------------------------------------------------------

    def open(self) -> None:
        """Take up the link where both databases and the journal left it; maps that ran are live again.

        Maps that must not go on without a person are left out, see ``halt``.  Raises Denied when a system is not the
        one the link was made for, PositionLost when a feed has a gap.
        """
        if self._renew is not None:
            maps, broken = self._renew()
            self._broken.clear()
            self._broken.update(broken)
            self._know(maps)
            self._renew = None
        while True:
            try:
                with self.notes.at("takes up the link"):
                    return self._open()
            except Halted as halted:  # its tables have changed since they were installed
                self.close()
                self.halt(halted)

    def _open(self) -> None:
        live = self._installed()
        states = self.journal.states()
        self._settle_journal()
        self.journal.syncs.interrupt_all()
        clocks = self._measure_clocks()
        self._lay_out(live, states)
        known = live | {name: self.maps[name] for name in self.syncs.interrupted}
        sides = {
            side: load_side(KeptWindows(side, self.journal, live), self.connectors[side], live, known) for side in Side
        }
        for state in sides.values():
            state.kept.rekey(known)
        self.link = Link(self.name, sides, self.journal, live, self._cyclic, self._delete_limit, clocks=clocks)
        self.link.meter = self.meter
        self.link.is_ending = lambda: self.is_ending()
        self.link.updates = self._updates
        self.link.loops = LoopGuard(self._rounds)
        self.link.audit = None if self.retention is None else Auditor(self.journal, live)
        self.link.read_decisions()
        for name in live:
            for side in Side:
                boundary = states[name].boundaries.get(side)
                if boundary is not None:
                    sides[side].windows.floor(name, boundary)
        self.flows = {source: Flow(self.link, source, self.point) for source in Side}
        self.syncs.open(self.link, self.flows)
        for compiled in live.values():
            self.syncs.hold_late(compiled, notice(self.journal, compiled))
        kept = self.pauses.open(self.link, self.flows, states)
        for flow in self.flows.values():
            flow.open()
        for flow in self.flows.values():
            flow.retries.learn()
            flow.move_records()
            flow.retries.look_again()
        for name in {*kept, *(record[0] for side in sides.values() for record in side.records())} - known.keys():
            self._forget(name)
        for name in live:
            if queues(states[name]):
                self.pauses.delay(name)
            elif states[name].state != RUNNING:
                self.journal.set_state(name, state=RUNNING, reason="")
        self._tell_versions(live)

    def _installed(self) -> dict[str, CompiledMap]:
        """Capture what the maps that ran look at; returns those that can go on."""
        for side, connector in self.connectors.items():
            check_identity(self.journal, side, connector)
        check_home(self.journal)
        for name, state in self.journal.states().items():
            if is_live(state) and name not in self.maps and name not in self._broken:
                why = "the project has no such map any more"
                self.halt(Halted(name, why, "correct the map (see dualwrite check), then start it"))
        for halted in self._tables.look(self.maps, self._drifted):
            self.halt(halted)
        self._know(list(self.maps.values()))
        while True:
            states = self.journal.states()
            live = {name: each for name, each in self.maps.items() if name in states and is_live(states[name])}
            self.syncs.find(self.maps, states)
            try:
                self._install(live | {name: self.maps[name] for name in self.syncs.interrupted})
            except Halted as halted:
                self.halt(halted)
            except PositionLost:
                if not self.syncs.interrupted:
                    raise
                self.syncs.begin_anew()
            else:
                return live

    # -- tables that are not what they were ------------------------------------------------------------------------

    def refresh(self, names: Sequence[str]) -> None:
        """Take maps that run as their tables are now, and those that are held as their files are.

        Raises Drifted where one of them has to be taken up anew for that: what ``open`` does then is what is meant.
        """
        states = self.journal.states()
        for name in names:
            compiled = self.link.maps.get(name)
            if compiled is None:
                continue
            if states[name].state == ATTENTION or states[name].reason.startswith(LAST_VERSION):
                found = {} if self._reload is None else self._reload([name])
                if name in found:
                    self.maps[name] = found[name]
                    self._broken.pop(name, None)
                    raise Drifted(name, "")
            elif told := self._tables.told(compiled):
                raise Drifted(name, told)

    def look_again(self) -> None:
        """Take everything again that is parked and may go now."""
        for flow in self.flows.values():
            flow.retries.look_again()
        while self._release():
            pass

    def halt(self, trouble: Halted) -> None:
        """Stop one map that must not go on, and say why; to be taken up by ``open``, with all others as they were.

        Where only its tables have changed, ``open`` finds out whether it must stop.
        """
        if isinstance(trouble, Stopped):
            if self._state(trouble.map).state != STOPPED:  # by force
                self._put_down(trouble.map, "stop")
            self.journal.log("stopped", map=trouble.map, detail={"why": trouble.message})
            return
        if isinstance(trouble, Flooded):
            self._pause_flooded(trouble)
            return
        if isinstance(trouble, Drifted) and is_live(self._state(trouble.map)):
            self._drifted[trouble.map] = trouble
            return
        if not isinstance(trouble, Braked) and (more := self._tables.besides(trouble, self.maps.get(trouble.map))):
            trouble.message = f"{trouble.message} ({more})"
        reason = f"{trouble.message}; {trouble.remedy}" if trouble.remedy else trouble.message
        self._put_down(trouble.map, "halted", reason)
        detail = {"reason": trouble.message, "remedy": trouble.remedy}
        self.journal.log("stopped by itself; needs attention", map=trouble.map, detail=detail)
        note(self.journal, trouble)
        self.meter.incident("brake" if isinstance(trouble, Braked) else "attention", trouble.map)
        log.warning("needs attention", extra={"fields": {"map": trouble.map, **detail}})

    def _pause_flooded(self, trouble: Flooded) -> None:
        """Let the rest of what people have changed queue until somebody says what becomes of it."""
        reason = f"{trouble.message}; {trouble.remedy}"
        state = after(self._state(trouble.map).state, "pause")
        with self.journal.batch() as batch:
            batch.set_state(trouble.map, desired=PAUSED, state=state, reason=reason)
            batch.log("paused by itself", map=trouble.map, detail={"reason": trouble.message, "remedy": trouble.remedy})
        self.meter.incident("brake", trouble.map)
        log.warning("paused by itself", extra={"fields": {"map": trouble.map, "reason": trouble.message}})

    def misfits(self) -> list[Drifted]:
        """The live maps of which a table or column is not there any more: whoever asked for it before the feed told so
        was refused."""
        found: list[Drifted] = []
        for side, connector in self.connectors.items():
            schema = connector.schema()
            for name, compiled in self.link.maps.items():
                view = compiled.views[side]
                if view.table not in schema.tables:
                    lost = [f"table {view.table}"]
                else:
                    gone = (path for path in view.paths if schema.resolve(view.table, path) is None)
                    lost = [f"column {view.table}.{show_path(path)}" for path in gone]
                if lost:
                    message = f"{side}: {', '.join(lost)} was dropped or renamed while the map was running"
                    found.append(Drifted(name, message, "adapt the map (see dualwrite check), then start it"))
        return found

    def _put_down(self, name: str, step: Step, reason: str = "") -> None:
        """A map's changes are not tracked from here on: its next start compares both sides."""
        self.syncs.drop(name)
        self.journal.put(HELD + name, None)
        state = after(self._state(name).state, step)
        self.journal.set_state(
            name, desired=STOPPED, state=state, reason=reason, initial="none", boundaries=dict.fromkeys(Side)
        )

    def _state(self, name: str) -> MapState:
        return self.journal.states().get(name) or MapState(name)

    def _install(self, live: Mapping[str, CompiledMap]) -> None:
        for side, connector in self.connectors.items():
            try:
                with self.notes.at(f"takes up the link, and examines the capture in {side}"):
                    connector.install([compiled.views[side] for compiled in live.values()])
            except PositionLost:  # everything is installed all the same
                if live:
                    raise
            self.journal.put(f"identity.{side}", connector.identity())
        if self.journal.get(HOME) is None:
            self.journal.put(HOME, self.journal.home)

    def _settle_journal(self) -> None:
        for side, connector in self.connectors.items():
            self.journal.settle(side, max((number for _, number in connector.positions().values()), default=0))

    def _lay_out(self, live: Mapping[str, CompiledMap], states: Mapping[str, MapState]) -> None:
        """What an earlier program has kept is of the columns of the version that was carried last."""
        with self.journal.batch() as batch:
            for name, compiled in live.items():
                now, last = compiled.table_map, states[name]
                if (now.version, now.publisher) == (last.version, last.publisher):
                    batch.lay_out(name, {side: Layout.of(view) for side, view in compiled.views.items()})

    def _measure_clocks(self) -> list[ClockOffset]:
        """The clocks' offsets; where they have drifted, another one holds from here on."""
        left, right = (self._clock(side) for side in Side)
        measured, clocks = right - left, clocks_from(self.journal.get("clock.offsets"))
        if not clocks:
            clocks = [ClockOffset(measured if abs(measured) > SAME_CLOCK else 0.0)]
        elif abs(measured - clocks[-1].seconds) > CLOCK_TOLERANCE:
            clocks.append(ClockOffset(measured, self.connectors[Side.RIGHT].end()))
        self.journal.put("clock.offsets", clocks_text(clocks))
        return clocks

    def _clock(self, side: Side) -> float:
        now = self.connectors[side].clock()
        self.meter.clock(side, now)
        return now

    def close(self) -> None:
        """Let go of the feeds; the databases keep everything for the next ``open``."""
        for flow in self.flows.values():
            flow.close_feed()

    # -- maps -----------------------------------------------------------------------------------------------------

    def reconcile(self) -> list[Outcome]:
        """Bring every map to the state that is wanted: start, with an initial sync where one is due, or stop, pause or
        resume."""
        self._let_go_held()
        self._refresh()
        self.pauses.read_skips()
        known = self.journal.states()
        states = {name: known.get(name) or MapState(name) for name in self.maps}
        for name, state in states.items():
            match pending(state):
                case "stop":  # also one that ran under an earlier engine, and was stopped since
                    with self.notes.at(f"stops {name}"):
                        self._stop(name)
                case "pause" if name in self.link.maps:
                    with self.notes.at(f"pauses {name}"):
                        self.pauses.pause(name)
                case "resume" if name in self.link.maps:
                    self.pauses.resume(name)
        starting = [name for name, state in states.items() if wants_to_run(state) and name not in self.link.maps]
        if not starting:
            return self.syncs.take_in()
        with self._halting(starting):
            self._go_live(starting)
        outcomes = []
        starting.sort(key=lambda name: name not in self.syncs.interrupted)  # before anything moves the streams on
        for name in starting:
            resumed = self.syncs.go_on(self.maps[name])
            if resumed is not None:
                outcomes.append(resumed)
                continue
            self._forget(name)
            if has_synced(states[name]):
                self._skip_sync(name)
            else:
                outcomes.append(self.syncs.start(self.maps[name], self._state(name)))
        return [*outcomes, *self.syncs.take_in()]

    def _let_go_held(self) -> None:
        """Maps that were held, and are to be started anew or stopped: what queues for them is dropped."""
        states = self.journal.states()
        wanted = [name for name in self.link.maps if pending(states[name]) == "start" or states[name].state == STOPPED]
        for name in wanted:
            self._forget(name)
            del self.link.maps[name]
            self.journal.put(HELD + name, None)
        if wanted:
            self._views_changed()

    def _refresh(self) -> None:
        """Take maps that are to be started as the project has them by now; those that run stay as they are."""
        is_fresh, self._is_fresh = self._is_fresh, False
        wanted = [name for name, state in self.journal.states().items() if wants_to_run(state)]
        starting = [name for name in wanted if name not in self.link.maps]
        if is_fresh or self._reload is None or not starting:
            return
        with self._halting(starting):
            found = self._reload(starting)
        for name in starting:
            if name not in found:
                raise Halted(name, "the map has errors", "see dualwrite check")
        kept = {name: each for name, each in self.maps.items() if name not in starting}
        added = {name: found[name] for name in starting}
        for name in starting:
            self._broken.pop(name, None)
        self._know([*kept.values(), *added.values()])
        self.link.cyclic = self._cyclic

    @contextmanager
    def _halting(self, starting: Sequence[str]) -> Iterator[None]:
        """Where other maps run, what refuses those that are to be started stops them alone."""
        others = self.link.maps.keys() - set(starting)
        try:
            yield
        except (Denied, Usage, Invalid) as refused:
            if not others:
                raise
            for name in starting[1:]:
                self.halt(Halted(name, refused.message, refused.remedy))
            raise Halted(starting[0], refused.message, refused.remedy) from refused

    def _stop(self, name: str) -> None:
        """Changes of a stopped map are not tracked: what waits for it is dropped, and its next start syncs anew."""
        queued = self.pauses.queued(name)
        self._forget(name)
        if self.link.maps.pop(name, None) is not None:
            self._views_changed()
        self._put_down(name, "stop")
        self.journal.log("stopped", map=name, detail={"dropped": queued} if queued else None)

    def _forget(self, name: str) -> None:
        """Drop everything that is parked, hidden, queued or waiting for a map."""
        self.link.standing.discard(name)
        for flow in self.flows.values():
            flow.forget_map(name)
        for state in self.link.sides.values():
            state.windows.drop(name)
            state.kept.drop_map(name)

    # -- starting -------------------------------------------------------------------------------------------------

    def _go_live(self, names: Sequence[str]) -> None:
        """Put maps into both feeds and flows; nothing of them is carried before they have their boundaries."""
        self._tables.take_up(self.maps, names, self.syncs.interrupted)
        ordered = {name: self.maps[name] for name in self.maps if name in self.link.maps or name in names}
        self.link.maps.clear()
        self.link.maps.update(ordered)
        for state in self.link.sides.values():
            for name in names:
                if name in self.syncs.interrupted:
                    state.windows.floor(name, self.syncs.interrupted[name].boundaries[state.side])
                else:
                    state.windows.hold(name, state.connector.end().feed)
        self._views_changed()
        self._tell_versions(names)
        for name in names:
            if name not in self.syncs.interrupted:
                keep(self.journal, name, scope_of(self.maps[name]))

    def _tell_versions(self, names: Iterable[str]) -> None:
        """Note the versions with which maps are carried from here on."""
        states = self.journal.states()
        with self.journal.batch() as batch:
            for table_map in (self.maps[name].table_map for name in names):
                if table_map.name in states:
                    log_change(self.journal, batch, states[table_map.name], table_map)
                batch.set_state(table_map.name, version=table_map.version, publisher=table_map.publisher)

    def _views_changed(self) -> None:
        for side, connector in self.connectors.items():
            with self.notes.at(f"installs the capture in {side}"):
                connector.install(self.link.views(side))
            self.journal.put(f"identity.{side}", connector.identity())
        for flow in self.flows.values():
            flow.reopen()

    def _skip_sync(self, name: str) -> None:
        boundaries: dict[Side, Position | None] = {s: connector.end() for s, connector in self.connectors.items()}
        for side, boundary in boundaries.items():
            assert boundary is not None
            self.link.sides[side].windows.floor(name, boundary)
        state = after(after(self._state(name).state, "start"), "synced")
        self.journal.set_state(name, state=state, reason="", initial="skipped", boundaries=boundaries)
        self.journal.log("started without initial sync", map=name)

    def settle_delays(self) -> None:
        """Let maps flow with the others again of which nothing waits any more; companies that came in meanwhile follow.

        Both flows stand still meanwhile.
        """
        self.pauses.settle()
        self.syncs.take_in()

    # -- carrying -------------------------------------------------------------------------------------------------

    def drain(self) -> None:
        """Carry, in this thread, until both feeds are empty and nothing is left to do.

        Where users do not stop writing, everything that was committed by now, and what came of it.
        """
        for hop in count(1):
            is_quiet = not self.carry_committed() or hop >= HOPS
            if is_quiet and not self.pauses.is_catching_up() and not self._release():
                break
            self.settle_delays()
        self.settle_delays()
        self.acknowledge()

    def carry_committed(self) -> bool:
        """Carry everything that is committed by now; False where there was nothing."""
        ends = {side: connector.end() for side, connector in self.connectors.items()}
        has_moved = False
        while True:
            moved = [flow.turn(0) for flow in self.flows.values()]
            has_moved = has_moved or any(moved)
            if all(
                flow.carried is not None
                and flow.carried >= ends[side]
                and not any(name not in self.link.standing for name, _ in self.link.sides[side.other].restore)
                for side, flow in self.flows.items()
            ):
                return has_moved

    def _release(self) -> bool:
        """Take parked records again that may go; True if one of them is free."""
        freed = [flow.settle(idle=True, hurried=True) for flow in self.flows.values()]
        return any(freed)

    def acknowledge(self) -> None:
        """Let both systems forget what neither flow needs any more."""
        for source, flow in self.flows.items():
            flow.acknowledge(self.flows[source.other].passed)

    def prune(self) -> bool:
        """Let some of the audit go that has been kept for long enough; False where there was nothing."""
        return self.retention is not None and self.journal.audits.prune(self.retention)

    # -- parked records and decisions -----------------------------------------------------------------------------

    def retry(self, records: Mapping[Side, Sequence[tuple[str, Key]]]) -> int:
        """Take parked records again; returns how many are free now."""
        freed = sum(self.flows[target.other].retries.retry(chosen) for target, chosen in records.items())
        for flow in self.flows.values():
            flow.restorer.again()
        while self._release():
            pass
        return freed

    def discard(self, records: Mapping[Side, Sequence[tuple[str, Key]]]) -> int:
        """Drop parked changes for good."""
        return sum(self.flows[target.other].retries.discard(chosen) for target, chosen in records.items())
