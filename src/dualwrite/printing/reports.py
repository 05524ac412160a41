"""What ``verify`` prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain, islice

from rich.markup import escape

from dualwrite.engine.compare import Difference, Unusable
from dualwrite.engine.verify import Report
from dualwrite.model import Side, show_key
from dualwrite.printing.terminal import Streamed, plain, said, show, table


def verify_json(reports: Sequence[Report]) -> Mapping[str, object]:
    """All reports with every record that differs."""
    return {
        "maps": [
            {
                "map": report.map,
                "equal": report.tally.equal,
                "different": report.count(None),
                "left_only": report.count(Side.LEFT),
                "right_only": report.count(Side.RIGHT),
                "detached": report.tally.detached,
                "unusable": len(report.unusable),
                "rows": Streamed(chain(map(difference_json, report.differences), map(unusable_json, report.unusable))),
            }
            for report in reports
        ]
    }


def difference_json(difference: Difference) -> Mapping[str, object]:
    """One record that differs."""
    return {
        "key": list(difference.key),
        "only": None if difference.only is None else str(difference.only),
        "columns": list(difference.units),
        "left": plain(difference.left),
        "right": plain(difference.right),
    }


def unusable_json(unusable: Unusable) -> Mapping[str, object]:
    """One record that cannot be compared."""
    key, side = list(unusable.key), str(unusable.side)
    return {"key": key, "side": side, "code": unusable.code, "reason": unusable.reason}


def verified(reports: Sequence[Report], limit: int, waiting: str = "") -> None:
    """Counts of all maps, then the first records that differ; ``waiting`` tells what may explain them."""
    made = table("map", "#equal", "#different", "#left only", "#right only", "#detached", "#unusable")
    for report in reports:
        counts = (report.tally.equal, *map(report.count, (None, Side.LEFT, Side.RIGHT)), report.tally.detached)
        made.add_row(escape(report.map), *map(str, counts), str(len(report.unusable)))
    show(made)
    for report in reports:
        for difference in islice(report.differences, limit):
            only, units = difference.only, ", ".join(difference.units)
            what = f"only on the {only} side" if only else f"differs in {units}"
            said(f"  {report.map}: {show_key(difference.key)} {what}")
        for unusable in islice(report.unusable, limit):
            said(f"  {report.map}: {show_key(unusable.key)} {unusable.reason}")
    clean = all(report.clean for report in reports)
    if waiting and not clean:
        said(waiting)
    if clean:
        said("both sides agree")
    elif any(report.differences for report in reports):
        said("the sides differ: dualwrite verify --repair left|right makes them agree")
    else:
        said("some records cannot be compared: correct them on the side that is named")
