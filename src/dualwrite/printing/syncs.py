"""What the commands about initial syncs print, and how far the one under way is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from rich.markup import escape

from dualwrite.journal import Count, Progress, SyncRun
from dualwrite.journal.syncs import UNDER_WAY
from dualwrite.printing.terminal import said, show, stamp, table, when

NUMBERS = ("read", "inserted", "updated", "unchanged", "detached", "failed")
OUTCOMES = {UNDER_WAY: "cyan", "done": "green", "interrupted": "yellow", "stopped": "red"}


def sync_json(run: SyncRun) -> Mapping[str, object]:
    """An initial sync, with what it did per side and company."""
    return {
        "id": run.id,
        "map": run.map,
        "why": run.why,
        "master": str(run.master),
        "companies": run.companies,
        "started": stamp(run.started),
        "ended": stamp(run.ended),
        "outcome": run.outcome,
        "reason": run.reason,
        "resumed": run.resumed,
        "counts": [{**asdict(count), "side": str(count.side)} for count in run.counts],
        "progress": progress_json(run.progress),
    }


def progress_json(progress: Progress | None) -> Mapping[str, object] | None:
    """How far an initial sync is; None where none is under way."""
    if progress is None:
        return None
    return {
        "step": progress.step,
        "done": progress.done,
        "total": progress.total or None,
        "rate": round(progress.rate, 1),
        "at": stamp(progress.at),
    }


def _sum(counts: Sequence[Count], name: str) -> int:
    return sum(getattr(count, name) for count in counts)


def syncs(found: Sequence[SyncRun]) -> None:
    """Initial syncs, a line for each."""
    made = table("#id", "map", "why", "master", "started", "ended", "outcome", *(f"#{name}" for name in NUMBERS))
    for run in found:
        numbers = [str(_sum(run.counts, name)) for name in NUMBERS] if run.counts else [""] * len(NUMBERS)
        colour = OUTCOMES.get(run.outcome, "default")
        outcome = f"[{colour}]{run.outcome}[/{colour}]"
        made.add_row(
            str(run.id),
            escape(run.map),
            run.why,
            str(run.master),
            when(run.started),
            when(run.ended),
            outcome,
            *numbers,
        )
    show(made)


def sync(run: SyncRun) -> None:
    """One initial sync."""
    said(f"initial sync {run.id} of {run.map}: {run.outcome}" + (f" ({run.reason})" if run.reason else ""))
    for name, value in (
        ("why", run.why),
        ("master", str(run.master)),
        ("companies", "" if run.companies is None else ", ".join(run.companies)),
        ("started", when(run.started)),
        ("ended", when(run.ended)),
        ("resumed", f"{run.resumed} time(s)" if run.resumed else ""),
        ("step", f"{run.progress}" if run.outcome != "done" else ""),
    ):
        if value:
            said(f"  {name}: {value}")
    made = table("side", "company", *(f"#{name}" for name in NUMBERS))
    for count in run.counts:
        made.add_row(str(count.side), escape(count.company), *(str(getattr(count, name)) for name in NUMBERS))
    show(made)
    if _sum(run.counts, "failed"):
        said(f"what failed, and why: dualwrite parked list --map '{run.map}'")
