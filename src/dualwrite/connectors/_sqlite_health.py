"""What an SQLite file lacks to be linked, each with its remedy.  Writes nothing, creates nothing."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path as FilePath
from typing import Final

from dualwrite.connectors._sqlite_capture import (
    REMEDY,
    Names,
    current_shapes,
    interrupted_view,
    is_installed,
    is_older,
    is_outdated,
    is_switched_off,
    own_triggers,
    plans,
)
from dualwrite.connectors._sqlite_schema import Catalog
from dualwrite.connectors._sqlite_session import File
from dualwrite.errors import DualwriteError, Problem
from dualwrite.model import Side
from dualwrite.schema import View

_NETWORK = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "fuse.sshfs", "9p", "afs", "ceph", "glusterfs", "davfs"})
_RUN = "`dualwrite run` installs capture before it reads anything"

CODES: Final[Mapping[str, tuple[str, str]]] = {
    "sqlite_capture": ("A table of a map cannot be captured, such as a virtual one.", "map an ordinary table"),
    "sqlite_expression_index": (
        "A unique index stands over an expression: rows that REPLACE deletes by it are not seen.",
        "do not use INSERT OR REPLACE against it, or set `PRAGMA recursive_triggers = ON` in the application",
    ),
    "sqlite_interrupted": (
        "Changes of a table may have been missed: it was dropped, renamed or created anew, or the triggers on it were "
        "dropped.",
        "run `dualwrite run`, which stops its maps alone; then start them again",
    ),
    "sqlite_missing": ("The database file does not exist.", "correct the URL, or create the database first"),
    "sqlite_network": (
        "The file lies on a network file system, where WAL mode is not safe.",
        "move it to a local disk of the machine that writes to it",
    ),
    "sqlite_not_a_file": ("The URL names something that is not a file.", "correct the URL"),
    "sqlite_not_wal": (
        "The file is not in WAL mode, so readers and writers would block each other.",
        "nothing: `dualwrite run` switches it",
    ),
    "sqlite_read_only": (
        "The file, or its folder, cannot be written.",
        "give this user write permission to both",
    ),
    "sqlite_switched_off": (
        "Somebody has switched the link's triggers off, so changes of any table may have been missed.",
        "stop the maps of this link and start them again with an initial sync",
    ),
    "sqlite_trigger_order": (
        "The application has created triggers that are newer than ours, and so run before them.",
        "nothing: `dualwrite run` makes ours the newest again",
    ),
    "sqlite_triggers": (
        "Triggers of ours do not fit their table any more, which got another index, for example.",
        "nothing: `dualwrite run` mends them",
    ),
    "sqlite_unreadable": (
        "The file is locked, damaged, encrypted, or no SQLite database.",
        "do what the message says",
    ),
}
"""What each code means, and what to do about it."""


def inspect(
    file: File, names: Names, side: Side, views: Sequence[View], load: Callable[[sqlite3.Connection], Catalog]
) -> list[Problem]:
    """All findings about a file and the capture of these views."""
    found = list(_file_problems(file))
    if not any(problem.level == "error" for problem in found):
        try:
            with closing(file.connect()) as connection, file.errors():
                found += _database_problems(file, connection, names, views, load)
        except DualwriteError as error:
            found.append(Problem("sqlite_unreadable", error.message, error.remedy))
    return [_of(problem, side) for problem in found]


def _of(problem: Problem, side: Side) -> Problem:
    return replace(problem, side=str(side))


def _file_problems(file: File) -> Iterator[Problem]:
    path = FilePath(file.path)
    if not path.exists():
        yield Problem("sqlite_missing", f"{path} does not exist", "correct the url, or create the database first")
    elif not path.is_file():
        yield Problem("sqlite_not_a_file", f"{path} is not a file", "correct the url")
    else:
        for place in (path, path.parent):
            if not os.access(place, os.W_OK):
                remedy = "give this user write permission (WAL mode needs it for the folder, too)"
                yield Problem("sqlite_read_only", f"{place} is read-only for this user", remedy)
    kind = _file_system(path)
    if kind in _NETWORK:
        message = f"{path} lies on a network file system ({kind}), where WAL mode is not safe"
        remedy = "move the file to a local disk of the machine that writes to it"
        yield Problem("sqlite_network", message, remedy, "warning")


def _file_system(path: FilePath) -> str:
    """The kind of file system that holds a path, where the system tells."""
    try:
        mounts = [line.split() for line in FilePath("/proc/self/mounts").read_text().splitlines()]
    except OSError:
        return ""
    holding = [mount for mount in mounts if path.is_relative_to(mount[1].replace("\\040", " "))]
    return max(holding, key=lambda mount: len(mount[1]))[2] if holding else ""


def _database_problems(
    file: File,
    connection: sqlite3.Connection,
    names: Names,
    views: Sequence[View],
    load: Callable[[sqlite3.Connection], Catalog],
) -> Iterator[Problem]:
    if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        message = f"{file.path} is not in WAL mode, so readers and writers would block each other"
        yield Problem("sqlite_not_wal", message, f"{_RUN} and switches the file to WAL mode", "warning")
    catalog = load(connection)
    try:
        wanted = plans(catalog, views)
    except DualwriteError as error:
        yield Problem("sqlite_capture", error.message, error.remedy)
        return
    for table in wanted:
        if catalog.facts[table].expression_index:
            message = f"{table} has a unique index over an expression: rows that REPLACE deletes by it are not seen"
            remedy = "do not use INSERT OR REPLACE against that index, or set PRAGMA recursive_triggers = ON"
            yield Problem("sqlite_expression_index", message, remedy, "warning")
    if not is_installed(connection, names):
        return
    if is_switched_off(connection, names):
        message = f"{file.path}: somebody has switched the triggers of link {names.link} off"
        yield Problem("sqlite_switched_off", message, REMEDY)
    for view in views:
        halted = interrupted_view(connection, names, catalog, [view])
        if halted is not None:
            message = f"{file.path}: {halted.message}"
            yield Problem("sqlite_interrupted", message, CODES["sqlite_interrupted"][1], map=halted.map)
    shapes, triggers = current_shapes(connection, names), own_triggers(connection, names)
    for table in wanted:
        shape, facts, present = shapes.get(table), catalog.facts[table], triggers.get(table, {})
        if shape is None or not present:
            continue  # not captured yet, or told already
        if is_outdated(names, present, shape, facts):
            message = f"{file.path}: the triggers on {table} are outdated"
            yield Problem("sqlite_triggers", message, _RUN, "warning")
        elif is_older(present, facts):
            message = f"{file.path}: {table} has triggers that are newer than ours and so run before them"
            remedy = "`dualwrite run` makes its triggers the newest again"
            yield Problem("sqlite_trigger_order", message, remedy, "warning")
