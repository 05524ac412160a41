"""The commands about conflicts."""

from __future__ import annotations

from typing import Annotated

import typer

from dualwrite import printing
from dualwrite.cli.session import HERE, SIDE, Folder, Json, Map, known, who, workspace
from dualwrite.cli.undo import conflicts_undo
from dualwrite.engine import commands
from dualwrite.model import Side

conflicts_app = typer.Typer(help="Columns that both sides changed.", no_args_is_help=True)
conflicts_app.command("undo")(conflicts_undo)


@conflicts_app.command("list")
def conflicts_list(
    folder: Folder = HERE,
    as_json: Json = False,
    name: Map = None,
    only_open: Annotated[bool, typer.Option("--open", help="Only those that wait for a decision.")] = False,
) -> None:
    """List columns that both sides changed."""
    with workspace(folder, patient=True) as work:
        entries = work.journal.each_conflict(work.numbers(), map=known(work, name), open_only=only_open)
        if as_json:
            printing.json_out(printing.terminal.Streamed(map(printing.conflicts.conflict_json, entries)))
        else:
            printing.conflicts.conflicts(entries)


@conflicts_app.command("resolve")
def conflicts_resolve(
    number: Annotated[int, typer.Argument(metavar="ID", help="As in `conflicts list`.")],
    winner: Annotated[Side, typer.Argument(help="The side whose value wins.", metavar=SIDE)],
    folder: Folder = HERE,
) -> None:
    """Decide a conflict of policy `manual`."""
    with workspace(folder) as work:
        answer = commands.ask(work, "resolve", {"id": number, "winner": winner.value, "who": who()})
        waits = "" if answer["freed"] else "; its record still waits: see dualwrite parked list"
        printing.said(f"conflict {number}: {winner} wins{waits}")
