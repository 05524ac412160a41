"""What an SQLite file lacks to be linked, each with its remedy.  Writes nothing, creates nothing."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path as FilePath

from dualwrite.connectors._sqlite_capture import (
    Names,
    current_shapes,
    is_installed,
    is_older,
    is_outdated,
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
            found.append(Problem("sqlite-unreadable", error.message, error.remedy))
    return [_of(problem, side) for problem in found]


def _of(problem: Problem, side: Side) -> Problem:
    return Problem(problem.code, problem.message, problem.remedy, problem.level, side=str(side))


def _file_problems(file: File) -> Iterator[Problem]:
    path = FilePath(file.path)
    if not path.exists():
        yield Problem("sqlite-missing", f"{path} does not exist", "correct the url, or create the database first")
    elif not path.is_file():
        yield Problem("sqlite-not-a-file", f"{path} is not a file", "correct the url")
    else:
        for place in (path, path.parent):
            if not os.access(place, os.W_OK):
                remedy = "give this user write permission (WAL mode needs it for the folder, too)"
                yield Problem("sqlite-read-only", f"{place} is read-only for this user", remedy)
    kind = _file_system(path)
    if kind in _NETWORK:
        message = f"{path} lies on a network file system ({kind}), where WAL mode is not safe"
        remedy = "move the file to a local disk of the machine that writes to it"
        yield Problem("sqlite-network", message, remedy, "warning")


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
        yield Problem("sqlite-not-wal", message, f"{_RUN} and switches the file to WAL mode", "warning")
    catalog = load(connection)
    try:
        wanted = plans(catalog, views)
    except DualwriteError as error:
        yield Problem("sqlite-capture", error.message, error.remedy)
        return
    for table in wanted:
        if catalog.facts[table].expression_index:
            message = f"{table} has a unique index over an expression: rows that REPLACE deletes by it are not seen"
            remedy = "do not use INSERT OR REPLACE against that index, or set PRAGMA recursive_triggers = ON"
            yield Problem("sqlite-expression-index", message, remedy, "warning")
    if not is_installed(connection, names):
        return
    shapes, triggers = current_shapes(connection, names), own_triggers(connection, names)
    for table in wanted:
        shape, facts, present = shapes.get(table), catalog.facts[table], triggers.get(table, {})
        if shape is None or is_outdated(names, present, shape, facts):
            message = f"{file.path}: the triggers on {table} are missing or outdated"
            yield Problem("sqlite-triggers", message, _RUN, "warning")
        elif is_older(present, facts):
            message = f"{file.path}: {table} has triggers that are newer than ours and so run before them"
            remedy = "`dualwrite run` makes its triggers the newest again"
            yield Problem("sqlite-trigger-order", message, remedy, "warning")
