"""What ``dualwrite explain`` prints."""

from __future__ import annotations

from collections.abc import Mapping

from rich.markup import escape

from dualwrite.engine.explain import Compared, Explanation, Reason
from dualwrite.model import ABSENT, Side, show_path
from dualwrite.printing.terminal import cell, said, show, stamp, table, when

_ARROWS = {"both": "=", "to right": ">", "to left": "<"}


def explained_json(found: Explanation) -> Mapping[str, object]:
    """Why a record is, or is not, in step."""
    return {
        "map": found.map,
        "key": found.key,
        "agrees": found.agrees,
        "records": {str(side): count for side, count in found.rows.items()},
        "columns": [compared_json(each) for each in found.columns],
        "reasons": [reason_json(each) for each in found.reasons],
        "verdict": found.verdict,
        "next": found.next_step,
    }


def compared_json(each: Compared) -> Mapping[str, object]:
    """One line of the map."""
    paths = {str(side): None if path is None else show_path(path) for side, path in each.paths.items()}
    values = {str(side): None if value is ABSENT else value for side, value in each.cells.items()}
    return {"paths": paths, "values": values, "way": each.way, "differs": each.differs}


def reason_json(each: Reason) -> Mapping[str, object]:
    """Something that keeps the record from being in step."""
    side = None if each.side is None else str(each.side)
    since = None if each.since is None else stamp(each.since)
    return {"code": each.code, "side": side, "text": each.text, "remedy": each.remedy, "since": since}


def explained(found: Explanation) -> None:
    """Both rows, the reasons, and one sentence at the end."""
    made = table("", "left", "", "right", "", title=f"{found.map}, {found.key}")
    for each in found.columns:
        left, right = (
            "" if (path := each.paths[side]) is None else f"{escape(show_path(path))}: {cell(each.cells[side])}"
            for side in Side
        )
        way = "" if each.way == "both" else "one-way"
        made.add_row("≠" if each.differs else "", left, _ARROWS[each.way], right, way)
    show(made)
    for reason in found.reasons:
        since = "" if reason.since is None else f" (since {when(reason.since)})"
        said(f"{reason.code}: {reason.text}{since}")
        said(f"      → {reason.remedy}")
    said(f"{found.verdict} — {found.next_step}")
