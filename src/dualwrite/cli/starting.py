"""``dualwrite start`` and ``dualwrite stop``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from typing import Annotated

import typer

from dualwrite import printing
from dualwrite.cli import pausing
from dualwrite.cli.session import (
    HERE,
    SIDE,
    Folder,
    Maps,
    Yes,
    confirm,
    finish,
    is_halted,
    refuse_broken,
    who,
    workspace,
)
from dualwrite.engine import brakes, commands
from dualwrite.engine.lifecycle import ATTENTION
from dualwrite.engine.status import status_of
from dualwrite.engine.workspace import Workspace
from dualwrite.mapping.compile import CompiledMap
from dualwrite.model import Side


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
