"""What ``plan`` prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.markup import escape

from dualwrite.engine.plan import MapPlan, MissingParents, PlannedRow
from dualwrite.model import Side, show_key
from dualwrite.printing import terminal
from dualwrite.printing.terminal import cell, said, show, table


def plan_json(plans: Sequence[MapPlan]) -> Mapping[str, object]:
    """All plans with every row."""
    return {
        "maps": [
            {
                "map": plan.map,
                "master": str(plan.master),
                "insert": {str(side): plan.count("insert", side) for side in Side},
                "update": {str(side): plan.count("update", side) for side in Side},
                "skip": {str(side): plan.count("skip", side) for side in Side},
                "equal": plan.tally.equal,
                "detached": plan.tally.detached,
                "missing": [missing_json(missing) for missing in plan.missing],
                "rows": [planned_json(row) for row in plan.rows],
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
        skips = sum(plan.count("skip", side) for side in Side)
        made.add_row(
            escape(plan.map),
            *(str(plan.count(action, side)) for action in ("insert", "update") for side in Side),
            str(skips),
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
    if not plan.missing:
        return
    cut = f" (first {limit} of {len(plan.missing)})" if len(plan.missing) > limit else ""
    terminal.console.print(f"\n[bold]{escape(plan.map)}[/bold] · missing parents{cut}", soft_wrap=True)
    for missing in sorted(plan.missing, key=lambda missing: -missing.records)[:limit]:
        what = "1 record needs" if missing.records == 1 else f"{missing.records} records need"
        examples = "; ".join(map(show_key, missing.examples))
        said(f"  {missing.side} {missing.table} {show_key(missing.key)}  {what} it, such as {examples}")


def _planned_rows(plan: MapPlan, action: str, limit: int) -> None:
    rows = [row for row in plan.rows if row.action == action and (action != "insert" or row.reason)]
    if not rows:
        return
    cut = f" (first {limit} of {len(rows)})" if len(rows) > limit else ""
    terminal.console.print(f"\n[bold]{escape(plan.map)}[/bold] · {action}{cut}", soft_wrap=True)
    for row in rows[:limit]:
        changes = ", ".join(f"{escape(name)}: {cell(old)} → {cell(new)}" for name, (old, new) in row.columns.items())
        told = [changes] if action == "update" else []
        told += [f"[dim]{escape(row.reason)}[/dim]"] if row.reason else []
        terminal.console.print(f"  {row.side} {escape(show_key(row.key))}  {'  '.join(told)}", soft_wrap=True)
