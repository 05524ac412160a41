"""The commands about initial syncs: ``dualwrite syncs …``."""

from __future__ import annotations

from typing import Annotated

import typer

from dualwrite import printing
from dualwrite.cli.session import HERE, SIDE, Folder, Json, Map, finish, known, who, workspace
from dualwrite.engine import brakes, commands
from dualwrite.errors import Usage
from dualwrite.model import Side

syncs_app = typer.Typer(help="Initial syncs: what each of them did, and doing them again.", no_args_is_help=True)


@syncs_app.command("list")
def syncs_list(
    folder: Folder = HERE,
    as_json: Json = False,
    name: Map = None,
    limit: Annotated[int, typer.Option(help="How many, newest first.", metavar="N", min=0)] = 20,
) -> None:
    """List initial syncs, newest first."""
    with workspace(folder) as work:
        found = work.journal.syncs.list(known(work, name), limit)
        if as_json:
            printing.json_out([printing.syncs.sync_json(run) for run in found])
        else:
            printing.syncs.syncs(found)


@syncs_app.command("show")
def syncs_show(
    number: Annotated[int, typer.Argument(metavar="ID", help="As in `syncs list`.")],
    folder: Folder = HERE,
    as_json: Json = False,
) -> None:
    """Show what an initial sync did, per side and company."""
    with workspace(folder) as work:
        run = work.journal.syncs.find(number)
        if run is None:
            raise Usage(f"there is no initial sync {number}", "see dualwrite syncs list")
        printing.json_out(printing.syncs.sync_json(run)) if as_json else printing.syncs.sync(run)


@syncs_app.command("again")
def syncs_again(
    maps: Annotated[list[str], typer.Argument(help="Names of maps that run.", metavar="MAP")],
    folder: Folder = HERE,
    as_json: Json = False,
    master: Annotated[
        Side | None, typer.Option(help="The side whose values win; as at the start.", metavar=SIDE)
    ] = None,
    leave_parked: Annotated[bool, typer.Option("--leave-parked", help="Leave aside what is parked.")] = False,
    allow_changes: Annotated[
        int | None, typer.Option(help="Let it change so many records of a side.", metavar="N", min=1)
    ] = None,
) -> None:
    """Sync maps that run once more.

    All that failed is tried again, and all that is missing or differs is carried.  The maps go on running.
    """
    with workspace(folder) as work:
        names = [one.name for one in work.chosen(maps)]
        if allow_changes is not None:
            brakes.allow(work.journal, names, allow_changes, who())
        ids = commands.sync_again(work, names, master, leave_parked=leave_parked)
        runs = [run for id in ids if (run := work.journal.syncs.find(id)) is not None]
        if as_json:
            printing.json_out([printing.syncs.sync_json(run) for run in runs])
        else:
            printing.syncs.syncs(runs)
        finish(not any(count.failed for run in runs for count in run.counts))
