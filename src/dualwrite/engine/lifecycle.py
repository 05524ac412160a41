"""The states of a map, and what may be asked of it in each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from dualwrite.errors import Usage
from dualwrite.journal import MapState

NOT_RUNNING: Final = "not running"
INITIALIZING: Final = "initializing"
RUNNING: Final = "running"
STOPPED: Final = "stopped"
ATTENTION: Final = "needs attention"
"""Stopped by itself, with a reason: it must not go on without a person."""

ALLOWED: Final[Mapping[str, frozenset[str]]] = {
    NOT_RUNNING: frozenset({"start"}),
    INITIALIZING: frozenset({"stop"}),
    RUNNING: frozenset({"stop"}),
    STOPPED: frozenset({"start"}),
    ATTENTION: frozenset({"start", "stop"}),
}
"""State → what a person may ask for."""


def refuse_unless_allowed(action: str, states: Iterable[MapState]) -> None:
    """Raises Usage, for all maps at once, when one of them cannot do this: a mixed selection is refused whole."""
    wrong = [state for state in states if action not in ALLOWED[state.state]]
    if wrong:
        told = ", ".join(
            f"{state.map} is {state.state} ({' or '.join(sorted(ALLOWED[state.state])) or 'nothing'} is possible)"
            for state in wrong
        )
        raise Usage(f"cannot {action}: {told}", "choose only maps for which it is possible")


def wants_to_run(state: MapState) -> bool:
    """Shall the map run?"""
    return state.desired == RUNNING


def has_synced(state: MapState) -> bool:
    """Has its initial sync been done, or skipped by a person?"""
    return state.initial in ("done", "skipped")


def is_live(state: MapState) -> bool:
    """Does it carry changes, so that an engine has to take it up where it was left?"""
    return wants_to_run(state) and has_synced(state) and all(state.boundaries.values())
