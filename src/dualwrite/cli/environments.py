"""The commands about the systems of a link as a whole: ``dualwrite relink``, ``reset`` and ``uninstall``."""

from __future__ import annotations

from typing import Annotated

import typer

from dualwrite import printing
from dualwrite.cli.session import HERE, SIDE, Folder, Yes, confirm, finish, who
from dualwrite.engine import relink as relinking
from dualwrite.engine import reset as resetting
from dualwrite.engine.workspace import opened
from dualwrite.errors import Usage
from dualwrite.journal import Journal
from dualwrite.model import Side
from dualwrite.printing import environments
from dualwrite.project import Project, load, pointed, repoint


def relink(
    side: Annotated[Side | None, typer.Argument(help="The side that is another system now.", metavar="SIDE")] = None,
    url: Annotated[
        str | None, typer.Argument(help="Its new URL; without, the one in dualwrite.yaml.", metavar="URL")
    ] = None,
    folder: Folder = HERE,
    moved: Annotated[
        bool, typer.Option("--moved", help="Folder and systems were only moved, or are reached in another way.")
    ] = False,
    yes: Yes = False,
) -> None:
    """Point the link to another system.

    Tells what the new one is, and whether it holds the same data.  The journal stays; every map is stopped.
    """
    if moved == (side is not None):
        raise Usage("say what has changed", "dualwrite relink left or right, or dualwrite relink --moved")
    project = load(folder)
    with resetting.held(project):
        if side is None:
            note_moved(project, yes)
        else:
            take_up(project, side, url, yes)


def note_moved(project: Project, yes: bool) -> None:
    """``relink --moved``."""

    def sure(told: str) -> None:
        printing.said(told)
        confirm("Was this only moved, so that nothing uses the old place any more?", yes)

    with opened(project, who()) as work:
        told = relinking.moved(work.journal, work.connectors, who(), sure)
    printing.said("the link goes on where it stood" if told else "nothing has moved")


def take_up(project: Project, side: Side, url: str | None, yes: bool) -> None:
    """``relink SIDE``."""
    with opened(project if url is None else pointed(project, side, url), who()) as work:
        found = relinking.examine(work, side)
        environments.prospect(found)
        confirm(f"Take this as the {side} side? All maps are stopped, and what is parked for them is dropped.", yes)
        if url is not None:
            repoint(project, side, url)
        relinking.relink(work, found, who())
        environments.relinked(found, relinking.missing_side(work.journal))


def reset(
    folder: Folder = HERE,
    forget: Annotated[
        list[Side] | None, typer.Option("--forget", help="Leave this side as it is: it is gone.", metavar=SIDE)
    ] = None,
    yes: Yes = False,
) -> None:
    """Remove the link altogether, after an export of all it knows.

    From both databases and from the project folder; the project's files and your tables stay.
    """
    project, left = load(folder), frozenset(forget or ())
    with resetting.held(project):
        found = resetting.survey(project)
        if found.is_empty:
            printing.said("there is nothing to remove")
            return
        environments.survey(found, left)
        for side, there in found.sides.items():
            if side not in left and isinstance(there, Exception):
                remedy = f"try again once it answers; if it is gone for good: dualwrite reset --forget {side}"
                raise Usage(f"{side} cannot be reached: {there}", remedy)
        confirm("Export everything that the link knows, then remove all of this?", yes)
        remove(project, left)


def remove(project: Project, left: frozenset[Side]) -> None:
    """Export, uninstall, and delete the journal last: until then the same command can be given again."""
    place = None
    if Journal.exists(project.folder):
        with Journal.open(project.folder) as journal:
            for side in (side for side in Side if side not in left):
                with resetting.connected(project, side) as connector:
                    resetting.check_own(journal, side, connector)
            journal.log("reset", who=who(), detail={"forgotten": sorted(map(str, left))})
            place = resetting.export(project, journal)
            refusals = resetting.uninstall(project, journal, who(), left)
    else:
        refusals = resetting.uninstall(project, None, who(), left)
    for refusal in refusals:
        printing.error(refusal)
    finish(not refusals)
    resetting.remove_journal(project)
    environments.reset_done(place, {side: resetting.by_hand(project, side) for side in sorted(left)})


def uninstall(folder: Folder = HERE, yes: Yes = False) -> None:
    """Remove the link from both databases.

    Everything that was created there goes, and the link's state with it; the project's files stay.
    """
    project = load(folder)
    confirm("Remove the link from both databases, with everything that is parked, the conflict log and the audit?", yes)
    with resetting.held(project), Journal.open(project.folder) as journal:
        refusals = resetting.uninstall(project, journal, who())
    for refusal in refusals:
        printing.error(refusal)
    finish(not refusals)
    printing.said("removed from both databases")
