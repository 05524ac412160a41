"""What ``plan`` prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice

from rich.markup import escape

from dualwrite.engine.plan import MapPlan
from dualwrite.engine.planned import MissingParents, PlannedRow
from dualwrite.model import Side, show_key
from dualwrite.printing import terminal
from dualwrite.printing.terminal import Streamed, cell, said, show, table

ACTIONS = ("insert", "update", "skip")


def plan_json(plans: Sequence[MapPlan]) -> Mapping[str, object]:
    """All plans with every row."""
    return {
        "maps": [
            {
                "map": plan.map,
                "master": str(plan.master),
                **{action: {str(side): plan.count(action, side) for side in Side} for action in ACTIONS},
                "equal": plan.tally.equal,
                "detached": plan.tally.detached,
                "missing": Streamed(map(missing_json, plan.missing())),
                "rows": Streamed(map(planned_json, plan.rows())),
            }
            for plan in plans
        ]
    }


def missing_json(missing: MissingParents) -> Mapping[str, object]:
    """One parent that is not there."""
    return {
        "side": str(missing.side),
        "table": missing.table,
        "key": list(missing.key),
        "records": missing.records,
        "examples": [list(key) for key in missing.examples],
    }


def planned_json(row: PlannedRow) -> Mapping[str, object]:
    """One planned row."""
    return {
        "side": str(row.side),
        "action": row.action,
        "key": list(row.key),
        "columns": {name: {"old": old, "new": new} for name, (old, new) in row.columns.items()},
        "code": row.code,
        "reason": row.reason,
    }


def planned(plans: Sequence[MapPlan], limit: int) -> None:
    """Counts of all maps, then the first rows of each."""
    counted = ("#insert left", "#insert right", "#update left", "#update right", "#skip", "#equal", "#detached")
    made = table("map", *counted)
    for plan in plans:
        made.add_row(
            escape(plan.map),
            *(str(plan.count(action, side)) for action in ("insert", "update") for side in Side),
            str(plan.count("skip", *Side)),
            str(plan.tally.equal),
            str(plan.tally.detached),
        )
    show(made)
    for plan in plans:
        _missing_parents(plan, limit)
        for action in ("update", "skip", "insert"):
            _planned_rows(plan, action, limit)
    said("nothing was written")


def _missing_parents(plan: MapPlan, limit: int) -> None:
    """The parents that are not there, those first that most records need."""
    count = plan.count_missing()
    if not count:
        return
    cut = f" (first {limit} of {count})" if count > limit else ""
    terminal.console.print(f"\n[bold]{escape(plan.map)}[/bold] · missing parents{cut}", soft_wrap=True)
    for missing in plan.missing(limit):
        what = "1 record needs" if missing.records == 1 else f"{missing.records} records need"
        examples = "; ".join(map(show_key, missing.examples))
        said(f"  {missing.side} {missing.table} {show_key(missing.key)}  {what} it, such as {examples}")


def _planned_rows(plan: MapPlan, action: str, limit: int) -> None:
    told = action == "insert"  # that a record is created need not be told one by one
    rows = list(islice(plan.rows(action, told=told), limit))
    count = plan.count_told(action) if told else plan.count(action, *Side)
    if not count:
        return
    cut = f" (first {limit} of {count})" if count > limit else ""
    terminal.console.print(f"\n[bold]{escape(plan.map)}[/bold] · {action}{cut}", soft_wrap=True)
    for row in rows:
        changes = ", ".join(f"{escape(name)}: {cell(old)} → {cell(new)}" for name, (old, new) in row.columns.items())
        said_of_it = [changes] if action == "update" else []
        said_of_it += [f"[dim]{escape(row.reason)}[/dim]"] if row.reason else []
        terminal.console.print(f"  {row.side} {escape(show_key(row.key))}  {'  '.join(said_of_it)}", soft_wrap=True)
