"""The states of a map, the steps between them, and what may be asked of it in each.

A *command* is what people ask for; an *event* is what the engine finds on its way.  A command writes down what is
desired, and an engine, in this or another process, takes the step.  Everything about which step leads where stands in
one table.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Literal, TypeAlias

from dualwrite.errors import Usage
from dualwrite.journal import MapState, State

NOT_RUNNING: Final = "not running"
INITIALIZING: Final = "initializing"
RUNNING: Final = "running"
PAUSED: Final = "paused"
"""Its changes queue in the journal, and nothing of it is carried."""
RESUMING: Final = "resuming"
"""What has queued is carried, while new changes still queue behind it."""
STOPPED: Final = "stopped"
ATTENTION: Final = "needs attention"
"""Stopped by itself, with a reason: it must not go on without a person."""
STATES: Final[Sequence[State]] = (NOT_RUNNING, INITIALIZING, RUNNING, PAUSED, RESUMING, STOPPED, ATTENTION)

Command: TypeAlias = Literal["start", "stop", "pause", "resume"]
COMMANDS: Final[Sequence[Command]] = ("start", "stop", "pause", "resume")
Event: TypeAlias = Literal["begun", "synced", "caught up", "halted", "mended", "removed"]
EVENTS: Final[Sequence[Event]] = ("begun", "synced", "caught up", "halted", "mended", "removed")
"""An initial sync begins anew; it is done, or was left out; a queue is empty; the map must not go on; it fits its
tables again, and its changes have queued meanwhile; the link is removed from both systems."""
Step: TypeAlias = Command | Event

TRANSITIONS: Final[Mapping[tuple[State, Step], State]] = {
    (NOT_RUNNING, "start"): INITIALIZING,
    (STOPPED, "start"): INITIALIZING,
    (ATTENTION, "start"): INITIALIZING,
    (INITIALIZING, "stop"): STOPPED,
    (RUNNING, "stop"): STOPPED,
    (PAUSED, "stop"): STOPPED,
    (RESUMING, "stop"): STOPPED,
    (ATTENTION, "stop"): STOPPED,
    (RUNNING, "pause"): PAUSED,
    (RESUMING, "pause"): PAUSED,
    (PAUSED, "resume"): RESUMING,
    (RESUMING, "resume"): RESUMING,  # to say what becomes of the rest of its queue
    (INITIALIZING, "begun"): INITIALIZING,
    (RUNNING, "begun"): INITIALIZING,
    (INITIALIZING, "synced"): RUNNING,
    (RESUMING, "caught up"): RUNNING,
    (ATTENTION, "mended"): RESUMING,
    **{(state, "halted"): ATTENTION for state in STATES},
    **{(state, "removed"): NOT_RUNNING for state in STATES},
}
"""(state, step) → state.  What is not here does not happen: a command is refused, an event is a fault of ours."""


def after(state: State, step: Step) -> State:
    """The state behind a step that is possible."""
    return TRANSITIONS[state, step]


def possible(state: State) -> list[Command]:
    """What a person may ask for in a state."""
    return [command for command in COMMANDS if (state, command) in TRANSITIONS]


def pending(state: MapState) -> Command | None:
    """The step that was asked for and is not taken yet; None when the map is where it is wanted."""
    here = state.state
    if state.desired == RUNNING:
        return "start" if here in (NOT_RUNNING, STOPPED, ATTENTION) else "resume" if here == PAUSED else None
    if state.desired == PAUSED:
        return "pause" if here in (RUNNING, RESUMING) else None
    return "stop" if here in (INITIALIZING, RUNNING, PAUSED, RESUMING) else None


def heading(state: MapState) -> State:
    """The state that the map has, or is about to get."""
    step = pending(state)
    return state.state if step is None else after(state.state, step)


def refuse_unless_allowed(command: Command, states: Iterable[MapState]) -> None:
    """Raises Usage, for all maps at once, when one of them cannot do this: a mixed selection is refused whole."""
    wrong = [state for state in states if not is_allowed(command, state)]
    if wrong:
        told = ", ".join(f"{state.map} is {_shown(state)}" for state in wrong)
        raise Usage(f"cannot {command}: {told}", "choose only maps for which it is possible")


def is_allowed(command: Command, state: MapState) -> bool:
    """May a person ask for this?  A map that is about to stop has to stop first."""
    return pending(state) != "stop" and (heading(state), command) in TRANSITIONS


def _shown(state: MapState) -> str:
    step = pending(state)
    if step == "stop":
        return f"{state.state} and about to stop (nothing else is possible before)"
    told = f"{state.state} and about to {step}" if step else state.state
    return f"{told} ({' or '.join(possible(heading(state)))} is possible)"


def wants_to_run(state: MapState) -> bool:
    """Shall the map run?"""
    return state.desired == RUNNING


def has_synced(state: MapState) -> bool:
    """Has its initial sync been done, or skipped by a person?"""
    return state.initial in ("done", "skipped")


def is_live(state: MapState) -> bool:
    """Are its changes carried, or queued, so that an engine has to take it up where it was left?"""
    return state.desired != STOPPED and has_synced(state) and all(state.boundaries.values())


def is_delayed(state: MapState) -> bool:
    """Do its changes queue, or shall they?"""
    return queues(state) or state.desired == PAUSED


def queues(state: MapState) -> bool:
    """Do its changes queue?  Those of a map that must not go on do where its tables alone keep it from that."""
    return state.state in (PAUSED, RESUMING) or stands(state)


def stands(state: MapState) -> bool:
    """Do its changes queue, and is nothing of them carried?"""
    return state.state == PAUSED or (state.state == ATTENTION and is_live(state))
