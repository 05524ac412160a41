"""Taking back: of an applied change, and of what became of a conflict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import typer

from dualwrite import printing
from dualwrite.cli.session import HERE, Folder, Json, who, workspace
from dualwrite.engine import commands


def undo(
    change: Annotated[str, typer.Argument(metavar="CHANGE", help="As in `log --key` and `log --changes`.")],
    folder: Folder = HERE,
    as_json: Json = False,
) -> None:
    """Take an applied change back.

    Its previous values are written as a user's change of the side where it was made, and carried to the other.  Refused
    where something newer has come to the same columns.
    """
    with workspace(folder) as work:
        answer = commands.ask(work, "undo", {"change": change, "who": who()})
        tell(answer, f"change {change}", as_json)


def conflicts_undo(
    number: Annotated[int, typer.Argument(metavar="ID", help="As in `conflicts list`.")],
    folder: Folder = HERE,
    as_json: Json = False,
) -> None:
    """Let the value that lost a conflict count.

    It is written as a user's change, and carried to the other side.  Refused where something newer has come since.
    """
    with workspace(folder) as work:
        answer = commands.ask(work, "undo", {"conflict": number, "who": who()})
        tell(answer, f"conflict {number}", as_json)


def tell(answer: Mapping[str, object], what: str, as_json: bool) -> None:
    """What was written."""
    if as_json:
        printing.json_out(answer)
    else:
        printing.audits.undone(answer, what)
