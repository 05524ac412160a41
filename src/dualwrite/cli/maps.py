"""The commands about maps themselves: ``dualwrite maps …``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from dualwrite import printing
from dualwrite.cli.session import HERE, Folder, Json, Maps, finish, is_halted, unbroken, who
from dualwrite.engine import commands, versions
from dualwrite.engine.schemas import report
from dualwrite.engine.status import status_of
from dualwrite.engine.versions import called, version_of
from dualwrite.engine.workspace import named
from dualwrite.errors import Invalid, Usage
from dualwrite.journal import Journal, MapVersion
from dualwrite.mapping.difference import differences
from dualwrite.mapping.notation import read_map
from dualwrite.mapping.tablemap import TableMap
from dualwrite.names import guess
from dualwrite.project import Project, load_readable

maps_app = typer.Typer(help="Table maps: their files and versions.", no_args_is_help=True)
Map = Annotated[str, typer.Argument(help="Name of a map.", metavar="MAP")]
VERSION = "Like 1.0.0.0, or 1.0.0.0@publisher where several publishers have that number."
FILE = "file"
"""What stands for the map's file where a version is asked for."""


def readable(folder: Path) -> Project:
    """The project in a folder; what is wrong with some of its files is told.  Raises Invalid without settings."""
    project, problems = load_readable(folder)
    if project is None:
        raise Invalid(problems)
    printing.problems.problems(problems)
    return project


@contextmanager
def kept(project: Project) -> Iterator[Journal | None]:
    """The journal of a project; None where there is none yet."""
    if not Journal.exists(project.folder):
        yield None
        return
    with Journal.open(project.folder) as journal:
        yield journal


def meant(project: Project, journal: Journal | None, name: str) -> str:
    """A map's name as its file or the journal spells it; raises Usage for an unknown one."""
    names = [each.name for each in project.maps] + [each.map for each in (journal.versions() if journal else ())]
    found = {each.casefold(): each for each in reversed(names)}
    if name.casefold() not in found:
        raise Usage(f"no map is called {name!r}", guess(name, list(found.values())) or "see dualwrite maps list")
    return found[name.casefold()]


@maps_app.command("list")
def maps_list(folder: Folder = HERE, as_json: Json = False) -> None:
    """List the maps of the project.

    Reads files only; neither system is asked.
    """
    project, problems = load_readable(folder)
    if project is None:
        raise Invalid(problems)
    printing.problems.problems(problems)
    printing.json_out(printing.maps.maps_json(project.maps)) if as_json else printing.maps.maps(project.maps)
    finish(not problems)


@maps_app.command("versions")
def maps_versions(name: Map, folder: Folder = HERE, as_json: Json = False) -> None:
    """List the versions of a map.

    Tells which one its file holds, and which one runs.
    """
    project = readable(folder)
    with kept(project) as journal:
        found = versions.history(journal, project, meant(project, journal, name))
        printing.json_out(printing.maps.history_json(found)) if as_json else printing.maps.history(found)


def end_of(known: Sequence[MapVersion], current: TableMap | None, wanted: str) -> tuple[str, TableMap]:
    """What a version of a map is called, and what it says."""
    if wanted == FILE and current is not None:
        return current.file, current
    found = version_of(known, current, wanted)
    return called(found), read_map(found.text, f"version {called(found)}")


@maps_app.command("diff")
def maps_diff(
    name: Map,
    before: Annotated[str, typer.Argument(help=f"{VERSION} The word `file` for what the file says.", metavar="A")],
    after: Annotated[str, typer.Argument(help="As A; the file by default.", metavar="B")] = FILE,
    folder: Folder = HERE,
    as_json: Json = False,
) -> None:
    """Tell what differs between two versions of a map.

    Column by column, in words.
    """
    project = readable(folder)
    with kept(project) as journal:
        known_name = meant(project, journal, name)
        current = next((each for each in project.maps if each.name == known_name), None)
        known = journal.versions(known_name) if journal else []
    ends = [end_of(known, current, wanted) for wanted in (before, after)]
    found = differences(*(end for _, end in ends))
    names = [shown for shown, _ in ends]
    printing.json_out(printing.maps.differences_json(names, found)) if as_json else printing.maps.differences(
        names, found
    )


@maps_app.command("refresh")
def maps_refresh(names: Maps = None, folder: Folder = HERE, as_json: Json = False) -> None:
    """Look at the tables of maps anew, and go by them.

    Tells what has changed since an engine looked at them, and what it means for each map.  Maps that can go on do so;
    parked records that may pass by now are taken again.
    """
    with unbroken(folder) as work:
        chosen = named(list(work.states()), names or [])
        found = report(work.journal, work.schemas, work.maps, chosen)
        before = len(work.journal.parked(work.numbers()))
        commands.ask(work, "refresh", {"maps": chosen})
        freed = max(0, before - len(work.journal.parked(work.numbers())))
        states = [row for row in status_of(work) if row["map"] in chosen]
        if as_json:
            printing.json_out(printing.drift.refreshed_json(found, states, freed))
        else:
            printing.drift.refreshed(found, states, freed)
        finish(not is_halted(states))


@maps_app.command("switch")
def maps_switch(
    name: Map,
    version: Annotated[str, typer.Argument(help=VERSION, metavar="VERSION")],
    folder: Folder = HERE,
) -> None:
    """Put another version of a map into its file.

    What the file holds is kept as a version first.  A map that runs goes on as it is until it is started again.
    """
    project, problems = load_readable(folder)
    if project is None or problems:
        raise Invalid(problems)
    with kept(project) as journal:
        if journal is None:
            raise Usage("no map has versions yet", "a map has them once an engine has run it")
        known_name = meant(project, journal, name)
        done = versions.switch(journal, project, known_name, version, who())
        printing.maps.switched(done, versions.history(journal, project, known_name))
