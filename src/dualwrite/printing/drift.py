"""What ``maps refresh`` prints: what has changed in the tables of maps, and what that means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.markup import escape

from dualwrite.engine.drift import MEANINGS
from dualwrite.engine.schemas import Refreshed
from dualwrite.engine.status import MapStatus
from dualwrite.printing.terminal import said, show, table

COLOURS = {"harmless": "green", "edit": "red", "sync": "red"}


def refreshed_json(found: Sequence[Refreshed], states: Sequence[MapStatus], freed: int) -> Mapping[str, object]:
    """Per map what has changed, what it means, and how the map stands now."""
    changes = {
        each.map: [
            {"side": str(one.side), "what": one.what, "meaning": one.meaning, "why": one.why}
            for one in each.differences
        ]
        for each in found
    }
    maps = [
        {"map": row["map"], "state": row["state"], "reason": row["reason"], "changes": changes.get(row["map"], [])}
        for row in states
    ]
    return {"maps": maps, "freed": freed}


def refreshed(found: Sequence[Refreshed], states: Sequence[MapStatus], freed: int) -> None:
    """The same, for people."""
    made = table("map", "side", "what has changed", "what it means")
    for each in found:
        for one in each.differences:
            colour = COLOURS[one.meaning]
            means = f"[{colour}]{MEANINGS[one.meaning]}[/{colour}]" + (f": {escape(one.why)}" if one.why else "")
            made.add_row(escape(each.map), str(one.side), escape(one.what), means)
    if made.row_count:
        show(made)
    else:
        said("no map's tables have changed since an engine looked at them")
    for row in states:
        if made.row_count or row["reason"]:
            said(f"{row['map']}: {row['state']}" + (f": {row['reason']}" if row["reason"] else ""))
    if freed:
        said(f"{freed} parked record(s) went through")
