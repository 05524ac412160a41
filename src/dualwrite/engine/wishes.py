"""What people, or rules, want of maps: written down here, made so by an engine.

Needs the journal alone, so it works while a system does not answer, and beside an engine in another process.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final, Literal, TypeAlias

from dualwrite.engine.lifecycle import (
    ATTENTION,
    PAUSED,
    RUNNING,
    STOPPED,
    TRANSITIONS,
    Command,
    after,
    pending,
    refuse_unless_allowed,
)
from dualwrite.journal import Journal, MapState, Writer
from dualwrite.model import Side

Skip: TypeAlias = Literal["", "preserve", "discard"]
"""What becomes of a queue instead of being carried: it is parked for a retry, or dropped."""
FORCED: Final = frozenset(state for state, step in TRANSITIONS if step == "stop")
"""The states from which a map is stopped."""
RECONCILE: Final = "reconcile"
"""The request that makes a running engine look at what is wanted."""


def states_of(journal: Journal, names: Sequence[str]) -> list[MapState]:
    """The states of some maps, those that never ran included."""
    known = journal.states()
    return [known.get(name) or MapState(name) for name in names]


def start(journal: Journal, names: Sequence[str], *, master: Side | None, initial_sync: bool, who: str) -> None:
    """Wish maps to run that do not.  Raises Usage for all of them where one cannot."""
    refuse_unless_allowed("start", states_of(journal, names))
    detail = {"initial_sync": initial_sync, "master": None if master is None else str(master)}
    with journal.batch() as batch:
        for name in names:
            batch.set_state(
                name,
                desired=RUNNING,
                initial="none" if initial_sync else "skipped",
                reason="",
                master=None if master is None else master.value,
            )
            batch.log("start wanted", map=name, who=who, detail=detail)


def stop(journal: Journal, names: Sequence[str], *, who: str) -> None:
    """Wish maps not to run; what is queued for them is dropped then.  Raises Usage as ``start``."""
    states = states_of(journal, names)
    refuse_unless_allowed("stop", states)
    with journal.batch() as batch:
        for state in states:
            batch.set_state(state.map, desired=STOPPED)
            if state.state == ATTENTION:
                batch.set_state(state.map, state=after(state.state, "stop"), reason="")
            _log(batch, journal, "stop", state.map, who, {})


def force_stop(journal: Journal, names: Sequence[str], *, who: str) -> None:
    """Take maps for stopped without waiting for any system; what is left of them there goes when an engine opens.

    Raises Usage where one cannot be stopped, or an engine goes on with them: to be asked before.
    """
    states = states_of(journal, names)
    refuse_unless_allowed("stop", [replace(state, desired=RUNNING) for state in states if pending(state) == "stop"])
    refuse_unless_allowed("stop", [state for state in states if pending(state) != "stop"])
    with journal.batch() as batch:
        for state in states:
            batch.set_state(
                state.map,
                desired=STOPPED,
                state=after(state.state, "stop") if state.state in FORCED else state.state,
                reason="",
                initial="none",
                boundaries=dict.fromkeys(Side),
            )
            _log(batch, journal, "stop", state.map, who, {"forced": True})


def pause(journal: Journal, names: Sequence[str], *, who: str, why: str = "") -> None:
    """Wish the changes of maps to queue.  Raises Usage as ``start``."""
    refuse_unless_allowed("pause", states_of(journal, names))
    with journal.batch() as batch:
        for name in names:
            batch.set_state(name, desired=PAUSED)
            batch.put(f"skip.{name}", None)
            _log(batch, journal, "pause", name, who, {"why": why} if why else {})


def resume(journal: Journal, names: Sequence[str], *, who: str, skip: Skip = "") -> None:
    """Wish what is queued to be carried, or to be skipped, and maps to run then.  Raises Usage as ``start``."""
    refuse_unless_allowed("resume", states_of(journal, names))
    with journal.batch() as batch:
        for name in names:
            batch.set_state(name, desired=RUNNING)
            batch.put(f"skip.{name}", skip or None)
            _log(batch, journal, "resume", name, who, {"skip": skip} if skip else {})


def tell(journal: Journal) -> int:
    """Let an engine look at what is wanted, at once where one is running; returns the request's id."""
    return journal.request(RECONCILE, {})


def _log(batch: Writer, journal: Journal, command: Command, name: str, who: str, detail: Mapping[str, object]) -> None:
    """Who wants it, and what was queued then."""
    found = journal.backlogs.queued(name).get(name, {})
    queued = {"queued": {str(side): queued.changes for side, queued in found.items()}} if found else {}
    batch.log(f"{command} wanted", map=name, who=who, detail={**detail, **queued})
