"""What ``relink`` and ``reset`` print."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from dualwrite.connectors.base import Installation
from dualwrite.engine.relink import Prospect
from dualwrite.engine.reset import Survey
from dualwrite.model import Side
from dualwrite.printing.problems import told
from dualwrite.printing.terminal import said, show, table


def prospect(found: Prospect) -> None:
    """What relinking a side would mean."""
    said(f"{found.side}: {found.url}")
    said(f"  {found.sentence}")
    said(f"  was {found.was or 'nothing'}, is {found.now}")
    told(found.problems)
    made = table("map", "#equal", "#different", "#only left", "#only right")
    for each in found.data:
        made.add_row(each.map, *map(str, (each.equal, each.different, each.left_only, each.right_only)))
    show(made)


def relinked(found: Prospect, waits: Side | None) -> None:
    """What was done, and what comes next."""
    said(f"{found.side} is now {found.now}; every map is stopped")
    if waits is not None:
        said(f"the {waits} side is still that of the original folder, and nothing runs before it is another one:")
        said(f"  write its url into dualwrite.yaml, then dualwrite relink {waits}")
    elif found.is_same_data:
        said("both sides hold the same: dualwrite start --no-initial-sync, then dualwrite run, before anybody writes")
    else:
        said("both sides differ: look at dualwrite plan, then dualwrite start --master with the better side")
    if found.leaves:
        said(f"the system that was the {found.side} side keeps its log for this link; if it goes on, run this there:")
        said(found.leaves)


def survey(found: Survey, forget: Collection[Side]) -> None:
    """Everything that a reset would remove."""
    for side, there in found.sides.items():
        if side in forget:
            said(f"{side}: left as it is")
        elif not isinstance(there, Installation):
            said(f"{side}: {there.message}")
        else:
            said(f"{side}: {len(there.objects)} object(s)")
            for name in there.objects:
                said(f"  {name}")
    for path in found.files:
        said(f"  file {path}")


def reset_done(place: Path | None, scripts: Mapping[Side, str]) -> None:
    """What was exported, and what a person still has to do."""
    if place is not None:
        said(f"exported to {place}")
    said("removed: the project's files are as they were")
    for side, script in scripts.items():
        said(f"{side} was left as it is; once it can be reached, run this there:")
        said(script)
