"""The commands about maps themselves: ``dualwrite maps …``."""

from __future__ import annotations

import typer

from dualwrite import printing
from dualwrite.cli.session import HERE, Folder, Json, finish
from dualwrite.errors import Invalid
from dualwrite.project import load_readable

maps_app = typer.Typer(help="Table maps: their files and versions.", no_args_is_help=True)


@maps_app.command("list")
def maps_list(folder: Folder = HERE, as_json: Json = False) -> None:
    """List the maps of the project.

    Reads files only; neither system is asked.
    """
    project, problems = load_readable(folder)
    if project is None:
        raise Invalid(problems)
    printing.problems(problems)
    printing.json_out(printing.maps_json(project.maps)) if as_json else printing.maps(project.maps)
    finish(not problems)
