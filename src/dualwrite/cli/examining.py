"""``dualwrite check``, ``plan`` and ``verify``: both systems are looked at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dualwrite import printing
from dualwrite.cli.session import (
    HERE,
    SIDE,
    Folder,
    Json,
    KeysFile,
    Maps,
    Yes,
    confirm,
    finish,
    refuse_broken,
    workspace,
)
from dualwrite.engine import commands
from dualwrite.engine.agreeing import refuse_unless_running
from dualwrite.engine.initial_syncs import master_of
from dualwrite.engine.plan import Planner
from dualwrite.engine.verify import verify as verify_map
from dualwrite.engine.workspace import Workspace, examine
from dualwrite.errors import Usage
from dualwrite.model import Side
from dualwrite.project import load_readable


def check(
    exports: Annotated[
        list[Path] | None,
        typer.Argument(help="JSON exports of Dual-write: they are examined by themselves.", metavar="FILE"),
    ] = None,
    keys: KeysFile = None,
    folder: Folder = HERE,
    as_json: Json = False,
    data: Annotated[bool, typer.Option("--data", help="Read the data of both sides, too.")] = False,
) -> None:
    """Examine both systems and all maps.

    Every problem is told at once, each with its remedy.  Nothing is written.
    """
    if exports:
        if data:
            raise Usage("--data needs the systems, and an export has none", "leave out the files, or --data")
        from dualwrite.cli import exchange  # the formats of Dual-write, which a project's own check does not need

        problems = exchange.examined(exports, keys)
    elif keys is not None:
        raise Usage("--keys belongs to exports", "name the JSON files, too")
    else:
        project, problems = load_readable(folder)
        if project is not None:
            with printing.progress.progress() as bars:
                problems += examine(project, bars if data else None)
    printing.json_out(printing.problems.problems_json(problems)) if as_json else printing.problems.checked(problems)
    finish(not any(problem.level == "error" for problem in problems))


def plan(
    maps: Maps = None,
    folder: Folder = HERE,
    as_json: Json = False,
    master: Annotated[Side | None, typer.Option(help="The side whose values win.", metavar=SIDE)] = None,
    rows: Annotated[int, typer.Option(help="Rows shown per map and action.", metavar="N", min=0)] = 10,
) -> None:
    """Show what an initial sync would do.

    A dry run: nothing is written.
    """
    with workspace(folder) as work:
        refuse_broken(work)
        chosen = work.chosen(maps or ())
        states = work.states()
        wanted = {one.name: master or master_of(states[one.name]) for one in chosen}
        plans = Planner(work.connectors, work.schemas).plan(chosen, wanted)
        printing.json_out(printing.plans.plan_json(plans)) if as_json else printing.plans.planned(plans, rows)


def verify(
    maps: Maps = None,
    folder: Folder = HERE,
    as_json: Json = False,
    repair: Annotated[
        Side | None, typer.Option(help="Make both sides agree; this side's values win.", metavar=SIDE)
    ] = None,
    rows: Annotated[int, typer.Option(help="Records shown per map.", metavar="N", min=0)] = 10,
    yes: Yes = False,
) -> None:
    """Compare every record of both sides.

    While an engine runs, records that differ are looked at again once it has carried everything.
    """
    with workspace(folder) as work:
        refuse_broken(work)
        chosen = work.chosen(maps or ())
        if repair is not None:
            states = work.states()
            refuse_unless_running(states[one.name] for one in chosen)
        settle = commands.settle_with(work)
        reports = [verify_map(one, work.connectors, settle) for one in chosen]
        total = sum(len(report.differences) for report in reports)
        if repair is not None and total:
            confirm(f"Repair {total} record(s) with the values of the {repair} side?", yes)
            commands.repair(work, [report for report in reports if report.differences], repair)
            reports = [verify_map(one, work.connectors, settle) for one in chosen]
        if as_json:
            printing.json_out(printing.reports.verify_json(reports))
        else:
            printing.reports.verified(reports, rows, waiting(work))
        finish(all(report.clean for report in reports))


def waiting(work: Workspace) -> str:
    """What is on its way, or held back, while both sides differ."""
    parked = sum(each.parked for each in work.journal.tally(work.numbers()).values())
    told = [f"{parked} record(s) are parked: see dualwrite parked list"] if parked else []
    told += [] if work.lease.owner() else ["no engine is running: what it has not carried yet counts as a difference"]
    return "; ".join(told)
