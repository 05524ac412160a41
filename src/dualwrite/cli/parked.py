"""Parked records: what could not be applied, why, and what may be done about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import typer

from dualwrite import printing
from dualwrite.cli.history import moment
from dualwrite.cli.session import HERE, SIDE, Folder, Json, Map, Yes, confirm, finish, known, who, workspace
from dualwrite.engine import commands
from dualwrite.engine.workspace import Workspace
from dualwrite.errors import Usage
from dualwrite.journal import Layout
from dualwrite.model import Side

parked_app = typer.Typer(help="Changes that could not be applied.", no_args_is_help=True)
Id = Annotated[int, typer.Argument(metavar="ID", help="As in `parked list`.")]
Ids = Annotated[list[int] | None, typer.Argument(metavar="ID", help="As in `parked list`.")]
All = Annotated[bool, typer.Option("--all", help="Everything that is parked.")]
Code = Annotated[str | None, typer.Option("--code", help="Only this code.", metavar="CODE")]
At = Annotated[Side | None, typer.Option("--side", help="Only what was to be applied there.", metavar=SIDE)]
Column = Annotated[str | None, typer.Option("--column", help="Only where this column is at fault.", metavar="COLUMN")]
Key = Annotated[str | None, typer.Option("--key", help="Only this record, as the list shows it.", metavar="KEY")]
Before = Annotated[
    str | None,
    typer.Option(
        "--before", help="Only what was parked before: a date or time (UTC), or 30m, 12h, 7d ago.", metavar="TIME"
    ),
]


def filters(
    work: Workspace,
    name: str | None,
    code: str | None,
    side: Side | None,
    column: str | None,
    key: str | None,
    before: str | None,
) -> dict[str, object]:
    """Which parked records are meant; raises Usage for what cannot be."""
    return {
        "map": known(work, name),
        "code": code,
        "side": None if side is None else side.value,
        "column": column,
        "key": key,
        "before": None if before is None else moment(before),
    }


def selection(ids: Sequence[int] | None, everything: bool, found: Mapping[str, object]) -> dict[str, object]:
    """Those with these ids, those that pass the filters, or all; one of the three is needed."""
    is_filtered = any(value is not None for value in found.values())
    if [bool(ids), everything, is_filtered].count(True) != 1:
        raise Usage("say which ones", "give their ids, or filters such as --map and --code, or --all")
    return {**found, "ids": list(ids) if ids else None}


@parked_app.command("list")
def parked_list(
    folder: Folder = HERE,
    as_json: Json = False,
    name: Map = None,
    code: Code = None,
    side: At = None,
    column: Column = None,
    key: Key = None,
    before: Before = None,
) -> None:
    """List what is parked, with reasons."""
    with workspace(folder, patient=True) as work:
        which = filters(work, name, code, side, column, key, before)
        entries = commands.chosen_of(work.journal, work.numbers(), which)
        if as_json:
            found = printing.terminal.Streamed(map(printing.parking.parked_json, entries))
            is_clean = not found
            printing.json_out(found)
        else:
            listed = list(entries)
            is_clean = not listed
            printing.parking.parked(listed)
        finish(is_clean)


@parked_app.command("show")
def parked_show(number: Id, folder: Folder = HERE, as_json: Json = False) -> None:
    """Show a parked record and its changes."""
    with workspace(folder, patient=True) as work:
        entry = next(iter(work.journal.parked(work.numbers(), ids=[number])), None)
        if entry is None:
            raise Usage(f"nothing is parked under {number}", "see dualwrite parked list")
        changes = work.journal.queue(entry.side, entry.map, entry.key)
        compiled = work.maps.get(entry.map)
        paths = Layout.of(compiled.views[entry.side.other]).paths if compiled else ()
        if as_json:
            queue = printing.parking.changes_json(changes, paths)
            printing.json_out(printing.parking.parked_json(entry) | {"queue": queue})
        else:
            printing.parking.parked_one(entry, changes, paths)


@parked_app.command("edit")
def parked_edit(
    number: Id,
    values: Annotated[list[str], typer.Argument(metavar="COLUMN=VALUE", help="Columns of the side it came from.")],
    null: Annotated[list[str] | None, typer.Option("--null", help="Make this column null.", metavar="COLUMN")] = None,
    folder: Folder = HERE,
    as_json: Json = False,
) -> None:
    """Correct a parked record, and try it again.

    The values are written into the record on the side that its change came from, as a user's change.  What waits goes
    through with it.
    """
    wanted = {**_pairs(values), **dict.fromkeys(null or ())}
    with workspace(folder) as work:
        answer = commands.ask(work, "edit", {"id": number, "values": wanted, "who": who()})
        printing.json_out(answer) if as_json else printing.parking.edited(answer, number)
        finish(answer["freed"] is True)


def _pairs(values: Sequence[str]) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for text in values:
        name, sign, value = text.partition("=")
        if not sign or not name.strip():
            raise Usage(f"{text!r} is not COLUMN=VALUE", "write for example name='Contoso'")
        found[name.strip()] = value
    return found


@parked_app.command("retry")
def parked_retry(
    ids: Ids = None,
    everything: All = False,
    name: Map = None,
    code: Code = None,
    side: At = None,
    column: Column = None,
    key: Key = None,
    before: Before = None,
    folder: Folder = HERE,
    as_json: Json = False,
) -> None:
    """Try parked changes again."""
    with workspace(folder) as work:
        which = selection(ids, everything, filters(work, name, code, side, column, key, before))
        answer = commands.ask_in_parts(work, "retry", {**which, "who": who()})
        printing.json_out(answer) if as_json else printing.said(f"{answer['freed']} of {answer['tried']} went through")
        finish(answer["freed"] == answer["tried"])


@parked_app.command("discard")
def parked_discard(
    ids: Ids = None,
    everything: All = False,
    name: Map = None,
    code: Code = None,
    side: At = None,
    column: Column = None,
    key: Key = None,
    before: Before = None,
    folder: Folder = HERE,
    yes: Yes = False,
) -> None:
    """Drop parked changes for good.

    What changes later flows again.
    """
    with workspace(folder) as work:
        which = selection(ids, everything, filters(work, name, code, side, column, key, before))
        confirm("Drop these changes for good?", yes)
        answer = commands.ask_in_parts(work, "discard", {**which, "who": who()})
        printing.said(f"{answer['discarded']} discarded")
