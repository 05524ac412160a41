"""How a link stands: per map its state, what waits, and how far the target is behind."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from typing import TypedDict

from dualwrite.engine.clocks import shown
from dualwrite.engine.continuity import obstacles
from dualwrite.engine.courier import undelivered
from dualwrite.engine.doing import doing
from dualwrite.engine.lifecycle import INITIALIZING, RESUMING, RUNNING, has_synced, pending, wants_to_run
from dualwrite.engine.outage import Trouble, trouble_of
from dualwrite.engine.release import MANY_DELETES
from dualwrite.engine.retention import over_budget, short_of_room
from dualwrite.engine.runner import IN_HAND
from dualwrite.engine.versions import differs
from dualwrite.engine.watch import stalled
from dualwrite.engine.workspace import Workspace
from dualwrite.errors import DualwriteError, Problem
from dualwrite.journal import MapState, MapVersion, Progress, SyncRun
from dualwrite.mapping.tablemap import TableMap
from dualwrite.model import Side


class _Version(TypedDict):
    version: str
    publisher: str
    edited: bool


class MapStatus(_Version):
    """One line of ``dualwrite status``; times in seconds (lag) or seconds since the epoch (since).

    ``version`` and ``publisher`` are those that run, else those of the file; ``edited``: the file says something else
    than what runs.  ``queued`` counts the changes that wait, for a paused map or behind parked ones,
    ``queued_bytes`` is what those of a paused map take in the journal.  ``pending`` is what was asked for and is not
    done yet, ``asked`` since when, ``waits_for`` what comes first.  ``sync`` is how far the map's initial sync is,
    while it is under way.
    """

    map: str
    state: str
    desired: str
    reason: str
    parked: int
    conflicts: int
    queued: int
    queued_bytes: int
    lag_seconds: float
    since: float
    sync: Progress | None
    pending: str
    asked: float
    waits_for: str


def status_of(workspace: Workspace) -> list[MapStatus]:
    """The state of every map of the project, in the order in which they run."""
    held = Counter(entry.map for entry in workspace.journal.each_parked(workspace.numbers(), code=MANY_DELETES))
    tally = workspace.journal.tally(workspace.numbers())
    lag = lag_by_map(workspace)
    states = workspace.states()
    names = [*workspace.maps, *(name for name in states if name not in workspace.maps)]
    files = {table_map.name: table_map for table_map in workspace.project.maps}
    known = {(each.map, each.version, each.publisher): each for each in workspace.journal.versions()}
    syncing = workspace.journal.syncs.under_way() if workspace.lease.owner() else None
    queued = waiting_for_sync(workspace, states, syncing)
    backlogs = workspace.journal.backlogs.queued()
    report: list[MapStatus] = []
    for name in names:
        state, counts = states[name], tally.get(name)
        delayed = backlogs.get(name, {}).values()
        waits = f"{held[name]} delete(s) wait: see dualwrite parked list" if held[name] else ""
        report.append(
            MapStatus(
                map=name,
                state=state.state,
                desired=state.desired,
                reason=state.reason or waits or queued.get(name, ""),
                parked=counts.parked if counts else 0,
                conflicts=counts.conflicts if counts else 0,
                queued=(counts.changes if counts else 0) + sum(each.changes for each in delayed),
                queued_bytes=sum(each.size for each in delayed),
                lag_seconds=lag.get(name, 0.0),
                since=state.since,
                sync=syncing.progress if syncing is not None and syncing.map == name else None,
                pending=step_of(state),
                asked=state.asked if step_of(state) else state.since,
                waits_for=waits_of(workspace, state, queued),
                **_version(state, files.get(name), known),
            )
        )
    return report


def waiting_for_sync(
    workspace: Workspace, states: Mapping[str, MapState], syncing: SyncRun | None
) -> Mapping[str, str]:
    """What there is to say of the map whose initial sync is under way, and of those whose turn comes after it."""
    if syncing is None:
        return {}
    told = {syncing.map: str(syncing.progress)}
    before = [syncing.map]
    for name in workspace.maps:
        if name != syncing.map and wants_to_run(states[name]) and not has_synced(states[name]):
            told[name] = f"waits for the initial sync of {', '.join(before)}"
            before.append(name)
    return told


def step_of(state: MapState) -> str:
    """What was asked for of a map and is not done yet; empty where it is where it is wanted."""
    return pending(state) or {INITIALIZING: "start", RESUMING: "resume"}.get(state.state, "")


def waits_of(workspace: Workspace, state: MapState, syncing: Mapping[str, str]) -> str:
    """What comes before a map is where it is wanted; empty where it is."""
    if not step_of(state):
        return ""
    if workspace.lease.owner() is None:
        return "an engine: dualwrite run starts one"
    trouble = _trouble(workspace)
    if trouble is not None:
        return " and ".join(f"{side}, which does not answer" for side in trouble.sides) or trouble.message
    if syncing:
        return "an initial sync" if state.map in syncing else f"the initial sync of {next(iter(syncing))}"
    at = "; ".join(f"the engine, which {each.what} (since {shown(each.since)})" for each in doing(workspace.journal))
    return at or ("its queue" if state.state == RESUMING else "the engine's next look")


def _version(state: MapState, file: TableMap | None, known: Mapping[tuple[str, str, str], MapVersion]) -> _Version:
    """Which version of a map runs, and whether its file says something else."""
    if state.state in (RUNNING, INITIALIZING) or file is None:
        runs = known.get((state.map, state.version, state.publisher))
        return {
            "version": state.version,
            "publisher": state.publisher,
            "edited": file is not None and runs is not None and differs(file, runs),
        }
    return {"version": file.version, "publisher": file.publisher, "edited": False}


def waits_for(workspace: Workspace) -> list[Problem]:
    """What a running engine waits for: a system that does not answer."""
    told = _trouble(workspace)
    if told is not None:
        return [
            Problem(
                "connection",
                f"since {shown(told.since)} the engine waits, and tries again: {told.message}",
                told.remedy,
            )
        ]
    return [Problem("connection", why.message, why.remedy, side=str(side)) for side, why in workspace.absent.items()]


def stuck(workspace: Workspace, owner: str | None) -> list[Problem]:
    """Why the link cannot go on; ``owner`` runs its engine."""
    return waits_for(workspace) if owner else obstacles(workspace.journal, workspace.connectors)


def warnings(workspace: Workspace, owner: str | None, retained: Mapping[Side, int]) -> list[Problem]:
    """What else there is to see to; ``retained`` is what the systems keep of their logs."""
    limits = workspace.project.limits
    found = [*over_budget(retained, limits.retained), *undelivered(workspace.journal)]
    return [*found, *short_of_room(workspace.project.folder), *(stalled(workspace.journal) if owner else [])]


def _trouble(workspace: Workspace) -> Trouble | None:
    return trouble_of(workspace.journal) if workspace.lease.owner() is not None else None


def lag_by_map(workspace: Workspace) -> Mapping[str, float]:
    """Per map the age of the oldest change that is committed and not yet carried; a map that is not named has none.

    A running engine tells it; otherwise the feeds are looked into.  It is not known while a system does not answer.
    """
    if workspace.absent:
        return {}
    return _lag_of_feeds(workspace) if workspace.lease.owner() is None else _lag_of_engine(workspace)


def _lag_of_engine(workspace: Workspace) -> Mapping[str, float]:
    lag: dict[str, float] = {}
    for side, oldest in json.loads(workspace.journal.get(IN_HAND) or "{}").items():
        if oldest:
            with suppress(DualwriteError):
                now = workspace.connectors[Side(side)].clock()
                lag.update({name: max(lag.get(name, 0.0), round(now - at, 3)) for name, at in oldest.items()})
    return lag


def _lag_of_feeds(workspace: Workspace) -> Mapping[str, float]:
    live = [c for c in workspace.maps.values() if workspace.states()[c.name].state == "running"]
    lag: dict[str, float] = {}
    for source in Side if live else ():
        connector = workspace.connectors[source]
        found = workspace.connectors[source.other].positions().get(f"{source}>{source.other}")
        if found is None:
            continue
        try:
            feed = connector.feed([compiled.views[source] for compiled in live], found[0])
            try:
                batch = feed.read(1_000, 0)
            finally:
                feed.close()
        except DualwriteError:  # told by check and by the engine; a status must not fail for it
            continue
        now = connector.clock()
        for change in batch.changes:
            lag[change.view] = max(lag.get(change.view, 0.0), round(now - change.at, 3))
    return lag
