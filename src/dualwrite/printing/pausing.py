"""What ``pause`` and ``resume`` print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.markup import escape

from dualwrite.engine.lifecycle import pending
from dualwrite.journal import MapState, Queued
from dualwrite.model import Side
from dualwrite.printing.states import engine
from dualwrite.printing.terminal import COLOURS, show, table


def told(states: Sequence[MapState], queued: Mapping[str, Mapping[Side, Queued]], owner: str | None) -> None:
    """The states of some maps, and how much waits for each."""
    made = table("map", "state", "#queued left", "#queued right")
    for state in states:
        colour = COLOURS.get(state.state, "default")
        waits = queued.get(state.map, {})
        step = pending(state)
        coming = f" → {state.desired}" if step else ""
        counts = [str(waits.get(side, Queued()).changes) for side in Side]
        made.add_row(escape(state.map), f"[{colour}]{state.state}[/{colour}]{coming}", *counts)
    show(made)
    engine(owner)
