"""The commands about initial syncs: ``dualwrite syncs …``."""

from __future__ import annotations

from typing import Annotated

import typer

from dualwrite import printing
from dualwrite.cli.session import HERE, Folder, Json, Map, known, workspace
from dualwrite.errors import Usage

syncs_app = typer.Typer(help="Initial syncs: what each of them did.", no_args_is_help=True)


@syncs_app.command("list")
def syncs_list(
    folder: Folder = HERE,
    as_json: Json = False,
    name: Map = None,
    limit: Annotated[int, typer.Option(help="How many, newest first.", metavar="N")] = 20,
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
