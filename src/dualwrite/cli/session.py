"""What all commands share: their usual options, the project that they open, how they ask and end."""

from __future__ import annotations

import getpass
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from dualwrite import printing
from dualwrite.engine.lifecycle import ATTENTION, RUNNING
from dualwrite.engine.status import MapStatus
from dualwrite.engine.workspace import Workspace, opened
from dualwrite.errors import Invalid, Problem, Usage
from dualwrite.names import guess
from dualwrite.project import Project, load, load_readable

Folder = Annotated[Path, typer.Option("--directory", "-C", help="The project folder.", metavar="DIR")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
Map = Annotated[str | None, typer.Option("--map", help="Only this map.", metavar="MAP")]
Maps = Annotated[list[str] | None, typer.Argument(help="Names of maps; all when none is given.", metavar="MAP")]
KeysFile = Annotated[
    Path | None,
    typer.Option("--keys", help="JSON with integration keys: a connection set, or columns by table.", metavar="FILE"),
]
Include = Annotated[list[str] | None, typer.Option(help="Only tables that match, e.g. 'sales*'.", metavar="PATTERN")]
NoValues = Annotated[bool, typer.Option("--no-values", help="Look at names and types alone, not at any records.")]
HERE = Path()
SIDE = "left|right"
"""How help spells a side."""


def who() -> str:
    """The person at the keyboard, for the activity log: the system's user, or who ``DUALWRITE_USER`` says it is."""
    try:
        return os.environ.get("DUALWRITE_USER") or getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


@contextmanager
def workspace(folder: Path, patient: bool = False) -> Iterator[Workspace]:
    """The project in a folder, open; ``patient`` as in ``opened``."""
    with opened(load(folder), who(), printing.note, patient=patient) as work:
        yield work


@contextmanager
def unbroken(folder: Path, patient: bool = False) -> Iterator[Workspace]:
    """The same, where files of maps may have errors as well: what an engine runs by then is their last version."""
    project, problems = load_readable(folder)
    if project is None or any(not is_of_map(project, each) for each in problems):
        raise Invalid(problems)
    with opened(project, who(), printing.note, problems, patient=patient) as work:
        yield work


def refuse_broken(work: Workspace) -> None:
    """Raises Invalid where a map has errors."""
    errors = [problem for problem in work.problems if problem.level == "error"]
    if errors:
        raise Invalid(errors)


def is_of_map(project: Project, problem: Problem) -> bool:
    """Is it the file of a map that has this problem?"""
    return Path(problem.file).parent == project.folder / project.place


def known(work: Workspace, name: str | None) -> str | None:
    """A map's name as the project spells it; raises Usage for one that it does not have."""
    return named(work.states(), name)


def named(maps: Iterable[str], name: str | None) -> str | None:
    """The name of one of these maps as it is spelled; raises Usage where it is none of them."""
    if name is None:
        return None
    names = {each.casefold(): each for each in maps}
    if name.casefold() not in names:
        raise Usage(f"no map is called {name!r}", guess(name, list(names.values())) or "see dualwrite status")
    return names[name.casefold()]


def finish(clean: bool) -> None:
    """Exit with 1 where problems were found."""
    if not clean:
        raise typer.Exit(1)


def confirm(question: str, yes: bool) -> None:
    """Ask before something that cannot be undone; without a terminal, only --yes is an answer."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise Usage(f"this needs an answer: {question}", "add --yes if that is meant")
    if not typer.confirm(question):
        raise typer.Exit(1)


def is_halted(report: Sequence[MapStatus], names: Sequence[str] | None = None) -> bool:
    """Does one of these maps (of all, where none are named) need attention?"""
    return any(
        row["state"] == ATTENTION and row["desired"] != RUNNING and (names is None or row["map"] in names)
        for row in report
    )


@contextmanager
def interrupted_by_signals(stop: threading.Event) -> Iterator[None]:
    """The first Ctrl-C or SIGTERM sets ``stop``; the second ends the process at once, which loses nothing either."""

    def handle(number: int, _frame: object) -> None:
        stop.set()
        signal.signal(number, signal.SIG_DFL)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
