"""``dualwrite explain``: why a record is, or is not, in step."""

from __future__ import annotations

from typing import Annotated

import typer

from dualwrite import printing
from dualwrite.cli.session import HERE, Folder, Json, finish, workspace
from dualwrite.engine.explain import explain as explain_record


def explain(
    name: Annotated[str, typer.Argument(help="Name of a map.", metavar="MAP")],
    key: Annotated[
        list[str],
        typer.Argument(
            help="Members of the record's key, with commas or one by one: in the map's order, or as NAME=VALUE.",
            metavar="KEY",
        ),
    ],
    folder: Folder = HERE,
    as_json: Json = False,
) -> None:
    """Tell why a record is, or is not, in step.

    Shows both rows side by side, what keeps one from following the other, and what to do next.  Nothing is written.
    """
    with workspace(folder) as work:
        (compiled,) = work.chosen([name])
        found = explain_record(work, compiled, key)
        if as_json:
            printing.json_out(printing.explaining.explained_json(found))
        else:
            printing.explaining.explained(found)
        finish(found.is_clean)
