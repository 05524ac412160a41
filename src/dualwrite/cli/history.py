"""The activity log and the audit: who did what, and when; what happened to a record."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from dualwrite import printing
from dualwrite.cli.session import HERE, Folder, Json, Map, known, named, workspace
from dualwrite.engine.history import history, spelled
from dualwrite.errors import Usage
from dualwrite.journal import KINDS, Journal
from dualwrite.names import guess
from dualwrite.project import load_readable

SHOWN = 50
"""Entries on a screen, where nobody says how many."""
_AGO = re.compile(r"(?P<count>\d{1,6}) ?(?P<unit>[mhdw])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}

Since = Annotated[
    str | None,
    typer.Option(
        help="Only what is newer: a date or time (UTC) like 2026-11-28T14:30, or 30m, 12h, 7d.", metavar="TIME"
    ),
]
Limit = Annotated[
    int | None,
    typer.Option(
        help=f"How many entries, newest first; {SHOWN} by default, all of them as JSON and CSV.", metavar="N", min=0
    ),
]


def log(
    folder: Folder = HERE,
    as_json: Json = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV instead of tables.")] = False,
    name: Map = None,
    since: Since = None,
    who: Annotated[str | None, typer.Option(help="Only what this person did.", metavar="NAME")] = None,
    kind: Annotated[str | None, typer.Option(help=f"Only one of {', '.join(KINDS)}.", metavar="KIND")] = None,
    changes: Annotated[
        bool, typer.Option("--changes", help="Every change that was applied, instead of what people did.")
    ] = False,
    key: Annotated[
        str | None,
        typer.Option(
            help="What happened to this record, on both sides; with --map where there are several.", metavar="KEY"
        ),
    ] = None,
    limit: Limit = None,
) -> None:
    """Show who did what, and when.

    With --key what happened to a record, oldest first; with --changes all that was applied, newest first.
    """
    if key is not None or changes:
        if who is not None or kind is not None or (key is not None and (changes or as_csv or since or limit)):
            raise Usage("these options do not go together", "see dualwrite log --help")
        if key is not None:
            _record(folder, name, key, as_json)
        else:
            _changes(folder, name, since, limit, as_json, as_csv)
        return
    if kind is not None and kind not in KINDS:
        raise Usage(f"there is no kind {kind!r}", guess(kind, KINDS) or f"it is one of {', '.join(KINDS)}")
    most = SHOWN if limit is None and not (as_json or as_csv) else limit
    after = None if since is None else moment(since)
    project, _ = load_readable(folder)
    with Journal.open(folder) as journal:  # it tells what has happened, whatever the files and the systems are like now
        maps = [*journal.states(), *(each.name for each in (project.maps if project else ()))]
        found = journal.events(named(maps, name), most, since=after, who=who, kind=kind)
        if as_json:
            printing.json_out(printing.terminal.Streamed(map(printing.events.event_json, found)))
        elif as_csv:
            printing.events.events_csv(found)
        else:
            printing.events.events(found)


def _record(folder: Path, name: str | None, key: str, as_json: bool) -> None:
    with workspace(folder, patient=True) as work:
        if name is None and len(work.maps) != 1:
            raise Usage("of which map is this record?", "add --map")
        (compiled,) = work.chosen([] if name is None else [name])
        steps = history(work, compiled, spelled(compiled, key))
        if as_json:
            printing.json_out([printing.audits.step_json(step) for step in steps])
        else:
            printing.audits.history(steps, work.project.audit is not None)


def _changes(folder: Path, name: str | None, since: str | None, limit: int | None, as_json: bool, as_csv: bool) -> None:
    most = SHOWN if limit is None and not (as_json or as_csv) else limit
    with workspace(folder, patient=True) as work:
        after = None if since is None else moment(since)
        found = islice(work.journal.audits.each(work.numbers(), known(work, name), since=after), most)
        if as_json:
            printing.json_out(printing.terminal.Streamed(map(printing.audits.applied_json, found)))
        elif as_csv:
            printing.audits.changes_csv(found)
        else:
            printing.audits.changes(list(found))


def moment(text: str, now: datetime | None = None) -> float:
    """A time as people write it, in seconds since the epoch; raises Usage for anything else."""
    ago = _AGO.fullmatch(text.strip())
    try:
        if ago:
            return ((now or datetime.now(UTC)) - timedelta(**{_UNITS[ago["unit"]]: int(ago["count"])})).timestamp()
        found = datetime.fromisoformat(text.strip())
    except (ValueError, OverflowError):  # the latter before the year 1
        raise Usage(
            f"{text!r} is no time", "write a date or time (UTC) like 2026-11-28T14:30, or 30m, 12h, 7d"
        ) from None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
