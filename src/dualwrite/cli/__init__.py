"""The command line: parse, call, print.

Exit codes: 0 done and clean, 1 found problems (differences, parked rows, failed checks), 2 wrong usage.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from dualwrite import printing
from dualwrite.cli import environments, exchange, explaining, pausing, running, watching
from dualwrite.cli.alerts import alerts_app
from dualwrite.cli.conflicts import conflicts_app
from dualwrite.cli.history import log
from dualwrite.cli.logs import log_lines
from dualwrite.cli.maps import maps_app
from dualwrite.cli.parked import parked_app
from dualwrite.cli.session import (
    HERE,
    SIDE,
    Folder,
    Json,
    Maps,
    Yes,
    confirm,
    finish,
    is_halted,
    unbroken,
    who,
    workspace,
)
from dualwrite.cli.syncs import syncs_app
from dualwrite.cli.undo import undo
from dualwrite.connectors import connect
from dualwrite.connectors.base import Connector
from dualwrite.engine import brakes, commands
from dualwrite.engine.clocks import apart, difference
from dualwrite.engine.initial_syncs import master_of
from dualwrite.engine.lifecycle import ATTENTION
from dualwrite.engine.plan import Planner
from dualwrite.engine.retention import retained_by
from dualwrite.engine.samples import sampler
from dualwrite.engine.status import status_of, stuck, warnings
from dualwrite.engine.verify import verify as verify_map
from dualwrite.engine.workspace import Workspace, examine
from dualwrite.errors import DualwriteError, Invalid, Usage
from dualwrite.mapping.compile import CompiledMap
from dualwrite.mapping.propose import no_rows, propose
from dualwrite.model import Side
from dualwrite.project import create, link_name, load_readable
from dualwrite.settings import expanded

app = typer.Typer(
    name="dualwrite",
    help="Keep the tables of two business systems in step, both ways.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(parked_app, name="parked")
app.add_typer(conflicts_app, name="conflicts")
app.add_typer(maps_app, name="maps")
app.add_typer(alerts_app, name="alerts")
for command in (environments.relink, environments.reset, environments.uninstall):
    app.command()(command)
app.add_typer(syncs_app, name="syncs")
app.command()(explaining.explain)
app.command()(pausing.pause)
app.command()(pausing.resume)


def main() -> NoReturn:
    """Run the command line; every error is one clear message."""
    log_lines()
    try:
        sys.exit(app(prog_name="dualwrite", standalone_mode=False) or 0)
    except Invalid as invalid:
        printing.problems.problems(invalid.problems)
        sys.exit(1)
    except Usage as usage:
        printing.error(usage)
        sys.exit(2)
    except DualwriteError as trouble:
        printing.error(trouble)
        sys.exit(1)
    except typer.Exit as ended:
        sys.exit(ended.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(0)
    except Exception as wrong:
        if not hasattr(wrong, "format_message"):
            raise
        printing.misused(wrong.format_message(), getattr(wrong, "ctx", None))
        sys.exit(2)


def show_version(wanted: bool) -> None:
    """Print the version and end."""
    if wanted:
        printing.said(f"dualwrite {version('dualwrite')}")
        raise typer.Exit


@app.callback()
def everywhere(
    _: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=show_version)
    ] = False,
) -> None:
    """Keep the tables of two business systems in step, both ways."""


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="The folder of the new project.", metavar="DIR")],
    left: Annotated[str, typer.Option(help="URL of the left system.", metavar="URL")],
    right: Annotated[str, typer.Option(help="URL of the right system.", metavar="URL")],
    link: Annotated[str | None, typer.Option(help="Name of the link; the folder's by default.", metavar="NAME")] = None,
    left_schema: Annotated[str | None, typer.Option(help="Database schema of the left tables.", metavar="NAME")] = None,
    right_schema: Annotated[
        str | None, typer.Option(help="Database schema of the right tables.", metavar="NAME")
    ] = None,
    include: Annotated[
        list[str] | None, typer.Option(help="Only tables that match, e.g. 'sales*'.", metavar="PATTERN")
    ] = None,
    no_values: Annotated[
        bool, typer.Option("--no-values", help="Look at names and types alone, not at any records.")
    ] = False,
) -> None:
    """Start a project.

    Looks at both systems and proposes a map for every pair of tables that match by name, type and values.
    """
    name = link or link_name(folder)
    where = {Side.LEFT: left_schema, Side.RIGHT: right_schema}
    with ExitStack() as stack:
        connectors: dict[Side, Connector] = {}
        for side, url in ((Side.LEFT, left), (Side.RIGHT, right)):
            connectors[side] = connect(expanded(url), link=name, side=side, schema=where[side])
            stack.callback(connectors[side].close)
        schemas = {side: connector.schema() for side, connector in connectors.items()}
        read = no_rows if no_values else sampler(connectors)
        proposal = propose(schemas[Side.LEFT], schemas[Side.RIGHT], include or (), read)
    empty = [side for side in Side if not schemas[side].tables]
    remarks = {each: [str(remark) for remark in found] for each, found in proposal.remarks.items()}
    printing.projects.created(create(folder, name, left, right, proposal.maps, where, remarks), proposal, empty)


@app.command()
def check(
    exports: Annotated[
        list[Path] | None,
        typer.Argument(help="JSON exports of Dual-write: they are examined by themselves.", metavar="FILE"),
    ] = None,
    keys: exchange.KeysFile = None,
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


@app.command()
def plan(
    maps: Maps = None,
    folder: Folder = HERE,
    as_json: Json = False,
    master: Annotated[Side | None, typer.Option(help="The side whose values win.", metavar=SIDE)] = None,
    rows: Annotated[int, typer.Option(help="Rows shown per map and action.", metavar="N")] = 10,
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


def refuse_broken(work: Workspace) -> None:
    """Raises Invalid where a map has errors."""
    errors = [problem for problem in work.problems if problem.level == "error"]
    if errors:
        raise Invalid(errors)


app.command()(running.run)


@app.command()
def start(
    maps: Maps = None,
    folder: Folder = HERE,
    master: Annotated[
        Side | None, typer.Option(help="The side whose values win; left by default.", metavar=SIDE)
    ] = None,
    no_initial_sync: Annotated[
        bool, typer.Option("--no-initial-sync", help="Carry only what changes from now on.")
    ] = False,
    allow_changes: Annotated[
        int | None, typer.Option(help="Let the initial sync change so many records of a side.", metavar="N", min=1)
    ] = None,
    yes: Yes = False,
    with_parents: pausing.Related = False,
) -> None:
    """Start maps.

    A running engine starts them before this returns; otherwise the next one does.
    """
    with workspace(folder) as work:
        refuse_broken(work)
        names = [one.name for one in work.chosen(maps or ())]
        chosen = work.chosen(pausing.with_related(work.maps, work.states(), names, "start", with_parents))
        if no_initial_sync:
            accept_keys(work, chosen, yes)
        if allow_changes is not None:
            brakes.allow(work.journal, [one.name for one in chosen], allow_changes, who())
        wish = partial(commands.start, work, master=master, initial_sync=not no_initial_sync, who=who())
        wish(chosen)
        if let := let_through(work, chosen):
            wish(let)
        report = status_of(work)
        printing.states.statuses(report)
        printing.states.engine(work.lease.owner())
        finish(not is_halted(report, [one.name for one in chosen]))


def accept_keys(work: Workspace, maps: Sequence[CompiledMap], yes: bool) -> None:
    """Look whether every record can be told by its key, as no initial sync will; where not, ask."""
    with printing.progress.progress() as bars:
        problems = commands.key_problems(work, maps, bars)
    printing.problems.problems(problems)
    if problems:
        confirm("Start all the same? Each change of these records will be parked.", yes)


def let_through(work: Workspace, chosen: Sequence[CompiledMap]) -> list[CompiledMap]:
    """On a terminal, ask about each map that would change too much; those that may."""
    states, let = work.states(), []
    for one in chosen if sys.stdin.isatty() else ():
        count = brakes.braked(work.journal, one.name)
        if count is None or states[one.name].state != ATTENTION:
            continue
        if typer.confirm(f"{one.name}: {states[one.name].reason}\nChange {count} records?"):
            brakes.allow(work.journal, [one.name], count, who())
            let.append(one)
    return let


@app.command()
def stop(
    maps: Maps = None,
    folder: Folder = HERE,
    force: Annotated[
        bool, typer.Option("--force", help="Without waiting for a system that does not answer, or for the engine.")
    ] = False,
    yes: Yes = False,
) -> None:
    """Stop maps.

    Changes of a stopped map are not tracked: its next start needs an initial sync.
    """
    if force:
        pausing.force_stop(folder, maps, yes)
        return
    with workspace(folder) as work:
        chosen = work.chosen(maps or ())
        waits = sum(
            each.changes for one in chosen for each in work.journal.backlogs.queued(one.name).get(one.name, {}).values()
        )
        dropped = f" {waits} queued change(s) are dropped." if waits else ""
        confirm(f"Stop {len(chosen)} map(s)? Their changes are not tracked while they are stopped.{dropped}", yes)
        commands.stop(work, chosen, who=who())
        printing.states.statuses(status_of(work))
        printing.states.engine(work.lease.owner())


@app.command()
def status(
    folder: Folder = HERE,
    as_json: Json = False,
    watch: Annotated[bool, typer.Option("--watch", help="Show it again and again, until Ctrl-C.")] = False,
    every: Annotated[float, typer.Option(help="Seconds between two looks with --watch.", metavar="N", min=0.1)] = 2.0,
) -> None:
    """Show the state of every map."""
    with unbroken(folder, patient=True) as work:
        if watch:
            watching.watch(work, every, as_json)
            return
        report, owner = status_of(work), work.lease.owner()
        hindered, retained = stuck(work, owner), retained_by(work.answering)
        problems = [*hindered, *warnings(work, owner, retained)]
        problems += [] if work.absent else apart(difference(work.connectors))
        if as_json:
            printing.json_out(printing.states.status_json(report, owner, retained, problems))
        else:
            printing.states.statuses(report)
            printing.states.engine(owner)
            printing.states.retained(retained)
            printing.problems.told(problems)
        finish(not hindered and not is_halted(report))


@app.command()
def verify(
    maps: Maps = None,
    folder: Folder = HERE,
    as_json: Json = False,
    repair: Annotated[
        Side | None, typer.Option(help="Make both sides agree; this side's values win.", metavar=SIDE)
    ] = None,
    rows: Annotated[int, typer.Option(help="Records shown per map.", metavar="N")] = 10,
    yes: Yes = False,
) -> None:
    """Compare every record of both sides.

    While an engine runs, records that differ are looked at again once it has carried everything.
    """
    with workspace(folder) as work:
        refuse_broken(work)
        chosen = work.chosen(maps or ())
        settle = commands.settle_with(work)
        reports = [verify_map(one, work.connectors, settle) for one in chosen]
        total = sum(len(report.differences) for report in reports)
        if repair is not None and total:
            confirm(f"Repair {total} record(s) with the values of the {repair} side?", yes)
            names = [report.map for report in reports if report.differences]
            commands.ask(work, "repair", {"maps": names, "master": repair.value, "who": who()})
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


app.command()(log)
app.command()(undo)


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where to build it.")] = Path("demo"),
    keep: Annotated[bool, typer.Option("--keep", help="Leave live sync running.")] = False,
    customers: Annotated[int, typer.Option(help="How many customers.", metavar="N")] = 5_000,
) -> None:
    """Show the main job on two new databases.

    Builds them, brings them together, edits both sides at once, and proves that they agree.
    """
    from dualwrite.demo.show import show

    finish(show(folder, keep=keep, customers=customers))
