"""``dualwrite pause`` and ``dualwrite resume``: they need the journal alone, so they work while a system is down."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from typing import Annotated

import typer

from dualwrite import printing
from dualwrite.cli.session import HERE, Folder, Maps, Yes, confirm, who
from dualwrite.engine import commands, wishes
from dualwrite.engine.doing import doing
from dualwrite.engine.lifecycle import Command, is_allowed
from dualwrite.engine.outage import trouble_of
from dualwrite.engine.workspace import named, opened
from dualwrite.errors import Unavailable, Usage
from dualwrite.journal import Journal, Lease, MapState
from dualwrite.mapping.compile import CompiledMap
from dualwrite.mapping.order import related
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


Related = Annotated[
    bool, typer.Option("--related", help="Also the maps of tables that these maps look up; a terminal asks.")
]


def with_related(
    compiled: Mapping[str, CompiledMap], states: Mapping[str, MapState], names: list[str], command: Command, take: bool
) -> list[str]:
    """These maps and the related ones of which the same can be asked, in their order; without --related, a terminal
    asks, and elsewhere they are named."""
    found = [name for name in related(compiled, names) if is_allowed(command, states[name])]
    if not found:
        return names
    if not take and sys.stdin.isatty():
        take = typer.confirm(f"Also {command} {', '.join(found)}, which they look up?")
    elif not take:
        printing.note(f"they look up {', '.join(found)}: add --related to {command} those, too")
    return [name for name in compiled if name in names or name in found] if take else names


def pause(maps: Maps = None, folder: Folder = HERE, with_parents: Related = False) -> None:
    """Pause maps.

    Their changes queue, those of both sides, deletes too, until they are resumed; other maps flow on.
    """
    project = load(folder)
    names = named([each.name for each in project.maps], maps or ())
    if with_parents or sys.stdin.isatty():
        try:
            with opened(project) as work:
                names = with_related(work.maps, work.states(), names, "pause", with_parents)
        except Unavailable:  # what they look up cannot be told while a system is down
            if with_parents:
                raise
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


def force_stop(folder: Folder, maps: Maps, yes: bool) -> None:
    """``stop --force``: for when a system does not come back."""
    project = load(folder)
    names = named([each.name for each in project.maps], maps or ())
    confirm(f"Take {len(names)} map(s) for stopped? What is queued and parked for them is dropped.", yes)
    with desk(project) as (journal, lease):
        if lease.owner() is not None and trouble_of(journal) is None:
            at = " and ".join(each.what for each in doing(journal))
            raise Usage(
                f"the engine is at work{': it ' if at else ''}{at}",
                "stop them without --force; if it does nothing at all, end it first (kill -9 loses nothing)",
            )
        wishes.force_stop(journal, names, who=who())
        printing.pausing.told(wishes.states_of(journal, names), {}, lease.owner())
