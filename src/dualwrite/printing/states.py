"""What ``status``, ``start`` and ``stop`` print."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rich.markup import escape
from rich.table import Table

from dualwrite.engine.retention import size
from dualwrite.engine.status import MapStatus
from dualwrite.errors import Problem
from dualwrite.model import Side
from dualwrite.printing.problems import problems_json
from dualwrite.printing.syncs import progress_json
from dualwrite.printing.terminal import COLOURS, said, show, stamp, table


def status_json(
    report: Sequence[MapStatus], engine: str | None, kept: Mapping[Side, int], found: Iterable[Problem]
) -> Mapping[str, object]:
    """The states of all maps, who runs the engine, what the systems keep, and what is wrong with the link."""
    maps = [
        {
            **row,
            "since": stamp(row["since"]),
            "asked": stamp(row["asked"]),
            "sync": progress_json(row["sync"]),
        }
        for row in report
    ]
    retained = {str(side): kept.get(side) for side in Side}
    return {"engine": engine, "maps": maps, "retained": retained, **problems_json(found)}


def retained(kept: Mapping[Side, int]) -> None:
    """How much of its log each system keeps for the link."""
    said("kept for this link: " + ", ".join(f"{side} {size(kept[side]) if side in kept else '?'}" for side in Side))


def states_table(report: Sequence[MapStatus]) -> Table:
    """The states of all maps."""
    made = table("map", "version", "state", "#parked", "#conflicts", "#queued", "#lag s", "reason")
    for row in report:
        colour = COLOURS.get(row["state"], "default")
        made.add_row(
            escape(row["map"]),
            row["version"] + (" (edited)" if row["edited"] else ""),
            f"[{colour}]{row['state']}[/{colour}]" + coming(row),
            str(row["parked"]),
            str(row["conflicts"]),
            str(row["queued"]),
            f"{row['lag_seconds']:.1f}",
            escape(row["reason"]),
        )
    return made


def statuses(report: Sequence[MapStatus]) -> None:
    """The states of all maps, and which of their files say something else by now."""
    show(states_table(report))
    for row in report:
        if row["waits_for"]:
            said(f"{row['map']} is to {row['pending']} since {stamp(row['asked'])}, and waits for {row['waits_for']}")
        if row["queued_bytes"]:
            said(f"{row['map']}: its queue takes {size(row['queued_bytes'])} of the journal")
        if row["edited"]:
            said(f"{row['map']} runs as {row['version']}: what its file says now counts from its next start on")


def coming(row: MapStatus) -> str:
    """What an engine will do about a map's state as soon as one runs."""
    return f" → {row['desired']}" if row["pending"] else ""


def engine(owner: str | None) -> None:
    """Who runs the engine."""
    said(f"engine: {owner}" if owner else "no engine is running: dualwrite run starts one")
