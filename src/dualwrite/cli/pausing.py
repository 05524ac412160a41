"""``dualwrite pause`` and ``dualwrite resume``: they need the journal alone, so they work while a system is down."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from typing import Annotated

import typer

from dualwrite import printing
from dualwrite.cli.session import HERE, Folder, Maps, Yes, confirm, who
from dualwrite.engine import commands, wishes
from dualwrite.engine.workspace import named
from dualwrite.journal import Journal, Lease
from dualwrite.project import Project, load


class Skipped(str, Enum):
    """What becomes of a queue that is not carried."""

    PRESERVE = "preserve"
    DISCARD = "discard"


@contextmanager
def desk(project: Project) -> Iterator[tuple[Journal, Lease]]:
    """The journal and the lease of a project; neither system is asked."""
    with Journal.open(project.folder) as journal:
        yield journal, Lease(project.folder)


def pause(maps: Maps = None, folder: Folder = HERE) -> None:
    """Pause maps.

    Their changes queue, those of both sides, deletes too, until they are resumed; other maps flow on.
    """
    project = load(folder)
    names = named([each.name for each in project.maps], maps or ())
    with desk(project) as (journal, lease):
        wishes.pause(journal, names, who=who())
        commands.make_so(journal, lease)
        printing.pausing.told(wishes.states_of(journal, names), journal.backlogs.queued(), lease.owner())


def resume(
    maps: Maps = None,
    folder: Folder = HERE,
    skip: Annotated[
        Skipped | None,
        typer.Option(
            help="Carry nothing of the queue: park it for a retry, or drop it for good.", metavar="preserve|discard"
        ),
    ] = None,
    yes: Yes = False,
) -> None:
    """Resume paused maps.

    Carries what has queued, in order; new changes queue behind it until nothing waits.  With `--skip`, the map is live
    at once, also in the middle of that.
    """
    project = load(folder)
    names = named([each.name for each in project.maps], maps or ())
    with desk(project) as (journal, lease):
        if skip is Skipped.DISCARD:
            waits = sum(each.changes for name in names for each in journal.backlogs.queued(name).get(name, {}).values())
            confirm(f"Drop {waits} queued change(s) for good? Both sides will differ in them.", yes)
        wishes.resume(journal, names, who=who(), skip="" if skip is None else skip.value)
        commands.make_so(journal, lease)
        printing.pausing.told(wishes.states_of(journal, names), journal.backlogs.queued(), lease.owner())
