"""What the commands about maps print."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

from rich.markup import escape

from dualwrite.engine.versions import History, Switched, called
from dualwrite.journal import MapVersion
from dualwrite.mapping.difference import Difference as MapDifference
from dualwrite.mapping.languages import filter_in
from dualwrite.mapping.tablemap import TableMap, Unread, Written
from dualwrite.mapping.writing import write_map
from dualwrite.model import Side, show_path
from dualwrite.printing.terminal import said, show, stamp, table, verbatim, when


def maps_json(found: Sequence[TableMap]) -> Mapping[str, object]:
    """The maps of a project, as their files have them."""
    return {"maps": [map_json(table_map) for table_map in found]}


def map_json(table_map: TableMap) -> Mapping[str, object]:
    """One map: what it is called, and which tables it pairs."""
    return {
        "map": table_map.name,
        "left": table_map.left,
        "right": table_map.right,
        "version": table_map.version,
        "publisher": table_map.publisher,
        "columns": len(table_map.columns),
        "file": table_map.file,
    }


def maps(found: Sequence[TableMap]) -> None:
    """The list of maps."""
    made = table("map", "left", "right", "version", "publisher", "#columns", "file")
    for one in found:
        texts = (one.name, one.left, one.right, one.version, one.publisher, str(len(one.columns)), one.file)
        made.add_row(*map(escape, texts))
    show(made)
    if not found:
        said("no maps: dualwrite init proposes some")


def map_shown_json(table_map: TableMap) -> Mapping[str, object]:
    """A map with all that its file says."""
    conditions = {side.value: filter_text(table_map, side) for side in Side}
    company = table_map.company
    return {
        **map_json(table_map),
        "key": [show_path(path) for path in table_map.key] if table_map.key is not None else None,
        "company": {"left": show_path(company.left), "right": show_path(company.right)} if company else None,
        "filter": conditions,
        "text": write_map(table_map),
    }


def filter_text(table_map: TableMap, side: Side) -> str | None:
    """A filter as its file has it."""
    found = table_map.unread.get(side) or table_map.filters.get(side)
    if found is None:
        return None
    return found.text if isinstance(found, Unread | Written) else filter_in("odata", found)


def map_shown(table_map: TableMap) -> None:
    """A map with all that its file says, in the notation of map files."""
    said(f"# {table_map.file}")
    verbatim(
        write_map(replace(table_map, extra={}, columns=tuple(replace(each, extra={}) for each in table_map.columns)))
    )


def export_text(rows: Sequence[Mapping[str, object]], *, bare: bool) -> str:
    """Rows of stored maps as JSON, or the stored maps alone: the only one by itself, several as a list."""
    stored = [json.loads(str(row["msdyn_mapping"])) for row in rows]
    value: object = {"value": rows} if not bare else stored[0] if len(stored) == 1 else stored
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def history_json(found: History) -> Mapping[str, object]:
    """The versions of a map, oldest first."""
    return {
        "map": found.map,
        "file": found.current.file if found.current else None,
        "edited": found.edited,
        "becomes": found.becomes,
        "versions": [version_json(each, found) for each in found.versions],
    }


def version_json(version: MapVersion, found: History) -> Mapping[str, object]:
    """One version of a map."""
    return {
        "version": version.version,
        "publisher": version.publisher,
        "at": stamp(version.at),
        "who": version.who,
        "in_file": version == found.here,
        "runs": version == found.runs,
    }


def history(found: History) -> None:
    """The versions of a map, oldest first."""
    made = table("version", "publisher", "since", "who", "")
    for each in found.versions:
        marks = ["in the file"] if each == found.here else []
        marks += ["runs"] if each == found.runs else []
        made.add_row(each.version, escape(each.publisher), when(each.at), escape(each.who), ", ".join(marks))
    show(made)
    if found.current is None:
        said("no file holds this map: dualwrite maps switch brings a version back")
    elif found.edited:
        said(f"{found.current.file} holds what is no version yet; it becomes {found.becomes} when the map is started")


def differences_json(ends: Sequence[str], found: Sequence[MapDifference]) -> Mapping[str, object]:
    """What differs between two versions."""
    a, b = ends
    return {"a": a, "b": b, "differences": [map_difference_json(each) for each in found]}


def map_difference_json(found: MapDifference) -> Mapping[str, object]:
    """One difference between two versions."""
    members = {name: getattr(found, name) for name in ("what", "where", "was", "now")}
    return {**members, "text": str(found)}


def differences(ends: Sequence[str], found: Sequence[MapDifference]) -> None:
    """What differs between two versions, a sentence each."""
    for each in found:
        said(str(each))
    a, b = ends
    said(f"{len(found)} difference(s) between {a} and {b}" if found else f"{a} and {b} say the same")


def switched(done: Switched, found: History) -> None:
    """The result of a switch."""
    if done.kept and done.kept.was != done.kept.table_map.version:
        said(f"{done.file} held an edit of {done.kept.was}: it is kept as version {done.kept.table_map.version}")
    said(f"{done.file} holds version {called(done.now)} now")
    if found.runs and found.runs != found.here:
        said(f"the map runs as {called(found.runs)} until it is started again")
