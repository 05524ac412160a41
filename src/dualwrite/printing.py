"""What the command line prints: tables for people (Rich), JSON for programs.

The fields of the JSON are documented in ``docs/commands.md`` and stable.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path as FilePath

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from dualwrite.engine.compare import Difference, Unusable
from dualwrite.engine.plan import MapPlan, MissingParents, PlannedRow
from dualwrite.engine.retention import size
from dualwrite.engine.status import MapStatus
from dualwrite.engine.troubles import remedy_of
from dualwrite.engine.verify import Report
from dualwrite.engine.versions import History, Switched, called
from dualwrite.errors import DualwriteError, Problem
from dualwrite.journal import Conflict, Event, KeptChange, MapVersion, Parked
from dualwrite.mapping.difference import Difference as MapDifference
from dualwrite.mapping.notation import filter_in, write_map
from dualwrite.mapping.propose import LEVELS, Proposal
from dualwrite.mapping.tablemap import TableMap, Unread, Written
from dualwrite.model import ABSENT, Cell, Row, Side, Value, show_key, show_path
from dualwrite.project import Created

PIPED = 120
"""Columns of a table that goes into a file or another program."""
console = Console(highlight=False, width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else PIPED)
COLOURS = {"running": "green", "initializing": "cyan", "needs attention": "red", "error": "red", "warning": "yellow"}


def said(text: str) -> None:
    """One plain line."""
    console.print(escape(text), soft_wrap=True)


def error(trouble: DualwriteError) -> None:
    """One error on the error stream: what happened, what to do next."""
    print(f"dualwrite: {trouble.message}", file=sys.stderr)
    if trouble.remedy:
        print(f"  → {trouble.remedy}", file=sys.stderr)


def note(text: str) -> None:
    """One plain line on the error stream, beside the result."""
    print(text, file=sys.stderr)


def misused(message: str, context: object) -> None:
    """A command line that cannot be read, on the error stream; help stands for itself."""
    if message.startswith("Usage:"):
        print(message, file=sys.stderr)
        return
    print(f"dualwrite: {message}", file=sys.stderr)
    print(f"  → see {getattr(context, 'command_path', 'dualwrite')} --help", file=sys.stderr)


def problems(found: Iterable[Problem]) -> None:
    """Problems of files, on the error stream."""
    for problem in found:
        print(problem, file=sys.stderr)


def verbatim(text: str) -> None:
    """A text as it stands."""
    print(text, end="")


def json_out(value: object) -> None:
    """A value as JSON."""
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def when(at: float) -> str:
    """A time for people, UTC."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S") if at > 0 else ""


def stamp(at: float) -> str | None:
    """A time for programs: ISO 8601, UTC; None when it is not known."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z") if at > 0 else None


def table(*columns: str, title: str = "") -> Table:
    """A plain table."""
    made = Table(title=title or None, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in columns:
        made.add_column(column, justify="right" if column.startswith("#") else "left", overflow="fold")
    return made


def show(made: Table) -> None:
    """Print a table if it has rows."""
    if made.row_count:
        for column in made.columns:
            column.header = str(column.header).removeprefix("#")
        console.print(made)


def cell(value: Cell) -> str:
    """A value for people."""
    return "[dim]null[/dim]" if value is None else "[dim]…[/dim]" if value is ABSENT else escape(value)


# -- check and init ---------------------------------------------------------------------------------------------------


def problems_json(found: Iterable[Problem]) -> Mapping[str, object]:
    """Problems with all their fields."""
    names = (*Problem.__slots__, "dipv")
    return {"problems": [{name: getattr(problem, name) for name in names} for problem in found]}


def checked(found: Sequence[Problem]) -> None:
    """The result of ``check``."""
    told(sorted(found, key=lambda p: (p.level != "error", p.file, p.line)))
    errors = sum(problem.level == "error" for problem in found)
    warnings = len(found) - errors
    said(f"{errors} error(s), {warnings} warning(s)" if found else "all checks passed")


def told(found: Iterable[Problem]) -> None:
    """Problems with their remedies."""
    for problem in found:
        where = f"{problem.file}:{problem.line} " if problem.line else f"{problem.file} " if problem.file else ""
        side = f"{problem.side}: "
        of = side if problem.side and not where and not problem.message.startswith(side) else ""
        colour, code = COLOURS[problem.level], escape(f"[{problem.called}]")
        message = escape(f"{where}{of}{problem.message}")
        console.print(f"[{colour}]{problem.level}[/{colour}] {message} [dim]{code}[/dim]", soft_wrap=True)
        if problem.remedy:
            said(f"    → {problem.remedy}")


def created(made: Created, proposal: Proposal, empty: Sequence[Side]) -> None:
    """The result of ``init``; ``empty`` are the sides that have no tables."""
    for side in empty:
        said(f"the {side} database has no tables yet, or the URL leads to another one than you mean")
    for sentence in proposal.skipped:
        console.print(f"[dim]{escape(sentence)}[/dim]", soft_wrap=True)
    proposed(proposal)
    for file in made.files:
        said(f"wrote {file}")
    for variable in made.variables:
        said(f"set {variable} in the environment: its URL holds a password, which no file keeps")
    folder = folder_of(made.files)
    there = "" if folder == FilePath() else f" -C {folder}"
    said(f"{len(proposal.maps)} map(s) proposed; next: look at them, then dualwrite check{there}")


def proposed(proposal: Proposal) -> None:
    """How sure the columns of the proposed maps are, and what to look at in each."""
    made = table("map", *(f"#{level}" for level in LEVELS))
    for one in proposal.maps:
        counts = Counter(remark.confidence for remark in proposal.remarks[one.name])
        made.add_row(escape(one.name), *(str(counts[level]) for level in LEVELS))
    show(made)
    for one in proposal.maps:
        for mapping, remark in zip(one.columns, proposal.remarks[one.name], strict=True):
            if remark.confidence != LEVELS[0]:
                ends = " – ".join(show_path(path) for path in (mapping.left, mapping.right) if path)
                said(f"  {one.name}: {ends} {remark}")


def folder_of(files: Sequence[FilePath]) -> FilePath:
    """The project folder of files just written."""
    return next(file.parent for file in files if file.name == "dualwrite.yaml")


# -- maps -------------------------------------------------------------------------------------------------------------


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


# -- plan -------------------------------------------------------------------------------------------------------------


def plan_json(plans: Sequence[MapPlan]) -> Mapping[str, object]:
    """All plans with every row."""
    return {
        "maps": [
            {
                "map": plan.map,
                "master": str(plan.master),
                "insert": {str(side): plan.count("insert", side) for side in Side},
                "update": {str(side): plan.count("update", side) for side in Side},
                "skip": {str(side): plan.count("skip", side) for side in Side},
                "equal": plan.tally.equal,
                "detached": plan.tally.detached,
                "missing": [missing_json(missing) for missing in plan.missing],
                "rows": [planned_json(row) for row in plan.rows],
            }
            for plan in plans
        ]
    }


def missing_json(missing: MissingParents) -> Mapping[str, object]:
    """One parent that is not there."""
    return {
        "side": str(missing.side),
        "table": missing.table,
        "key": list(missing.key),
        "records": missing.records,
        "examples": [list(key) for key in missing.examples],
    }


def planned_json(row: PlannedRow) -> Mapping[str, object]:
    """One planned row."""
    return {
        "side": str(row.side),
        "action": row.action,
        "key": list(row.key),
        "columns": {name: {"old": old, "new": new} for name, (old, new) in row.columns.items()},
        "code": row.code,
        "reason": row.reason,
    }


def planned(plans: Sequence[MapPlan], limit: int) -> None:
    """Counts of all maps, then the first rows of each."""
    counted = ("#insert left", "#insert right", "#update left", "#update right", "#skip", "#equal", "#detached")
    made = table("map", *counted)
    for plan in plans:
        skips = sum(plan.count("skip", side) for side in Side)
        made.add_row(
            escape(plan.map),
            *(str(plan.count(action, side)) for action in ("insert", "update") for side in Side),
            str(skips),
            str(plan.tally.equal),
            str(plan.tally.detached),
        )
    show(made)
    for plan in plans:
        _missing_parents(plan, limit)
        for action in ("update", "skip", "insert"):
            _planned_rows(plan, action, limit)
    said("nothing was written")


def _missing_parents(plan: MapPlan, limit: int) -> None:
    """The parents that are not there, those first that most records need."""
    if not plan.missing:
        return
    cut = f" (first {limit} of {len(plan.missing)})" if len(plan.missing) > limit else ""
    console.print(f"\n[bold]{escape(plan.map)}[/bold] · missing parents{cut}", soft_wrap=True)
    for missing in sorted(plan.missing, key=lambda missing: -missing.records)[:limit]:
        what = "1 record needs" if missing.records == 1 else f"{missing.records} records need"
        examples = "; ".join(map(show_key, missing.examples))
        said(f"  {missing.side} {missing.table} {show_key(missing.key)}  {what} it, such as {examples}")


def _planned_rows(plan: MapPlan, action: str, limit: int) -> None:
    rows = [row for row in plan.rows if row.action == action and (action != "insert" or row.reason)]
    if not rows:
        return
    cut = f" (first {limit} of {len(rows)})" if len(rows) > limit else ""
    console.print(f"\n[bold]{escape(plan.map)}[/bold] · {action}{cut}", soft_wrap=True)
    for row in rows[:limit]:
        changes = ", ".join(f"{escape(name)}: {cell(old)} → {cell(new)}" for name, (old, new) in row.columns.items())
        told = [changes] if action == "update" else []
        told += [f"[dim]{escape(row.reason)}[/dim]"] if row.reason else []
        console.print(f"  {row.side} {escape(show_key(row.key))}  {'  '.join(told)}", soft_wrap=True)


# -- status and verify ------------------------------------------------------------------------------------------------


def status_json(
    report: Sequence[MapStatus], engine: str | None, kept: Mapping[Side, int], found: Iterable[Problem]
) -> Mapping[str, object]:
    """The states of all maps, who runs the engine, what the systems keep, and what is wrong with the link."""
    maps = [{**row, "since": stamp(row["since"])} for row in report]
    retained = {str(side): kept.get(side) for side in Side}
    return {"engine": engine, "maps": maps, "retained": retained, **problems_json(found)}


def retained(kept: Mapping[Side, int]) -> None:
    """How much of its log each system keeps for the link."""
    said("kept for this link: " + ", ".join(f"{side} {size(kept[side]) if side in kept else '?'}" for side in Side))


def statuses(report: Sequence[MapStatus]) -> None:
    """The states of all maps."""
    made = table("map", "version", "state", "#parked", "#conflicts", "#queued", "#lag s", "reason")
    for row in report:
        colour = COLOURS.get(row["state"], "default")
        made.add_row(
            escape(row["map"]),
            row["version"] + (" (edited)" if row["edited"] else ""),
            f"[{colour}]{row['state']}[/{colour}]" + coming(row),
            str(row["parked"]),
            str(row["conflicts"]),
            str(row["queued"]),
            f"{row['lag_seconds']:.1f}",
            escape(row["reason"]),
        )
    show(made)
    for row in report:
        if row["edited"]:
            said(f"{row['map']} runs as {row['version']}: what its file says now counts from its next start on")


def coming(row: MapStatus) -> str:
    """What an engine will do about a map's state as soon as one runs."""
    starts = row["desired"] == "running" and row["state"] in ("not running", "stopped", "needs attention")
    return " → running" if starts else ""


def engine(owner: str | None) -> None:
    """Who runs the engine."""
    said(f"engine: {owner}" if owner else "no engine is running: dualwrite run starts one")


def verify_json(reports: Sequence[Report]) -> Mapping[str, object]:
    """All reports with every record that differs."""
    return {
        "maps": [
            {
                "map": report.map,
                "equal": report.tally.equal,
                "different": report.count(None),
                "left_only": report.count(Side.LEFT),
                "right_only": report.count(Side.RIGHT),
                "detached": report.tally.detached,
                "unusable": len(report.unusable),
                "rows": [
                    *(difference_json(difference) for difference in report.differences),
                    *(unusable_json(unusable) for unusable in report.unusable),
                ],
            }
            for report in reports
        ]
    }


def difference_json(difference: Difference) -> Mapping[str, object]:
    """One record that differs."""
    return {
        "key": list(difference.key),
        "only": None if difference.only is None else str(difference.only),
        "columns": list(difference.units),
        "left": plain(difference.left),
        "right": plain(difference.right),
    }


def unusable_json(unusable: Unusable) -> Mapping[str, object]:
    """One record that cannot be compared."""
    key, side = list(unusable.key), str(unusable.side)
    return {"key": key, "side": side, "code": unusable.code, "reason": unusable.reason}


def plain(row: Row | None) -> list[Value] | None:
    """A row for JSON."""
    return None if row is None else [None if value is ABSENT else value for value in row]


def verified(reports: Sequence[Report], limit: int, waiting: str = "") -> None:
    """Counts of all maps, then the first records that differ; ``waiting`` tells what may explain them."""
    made = table("map", "#equal", "#different", "#left only", "#right only", "#detached", "#unusable")
    for report in reports:
        counts = (report.tally.equal, *map(report.count, (None, Side.LEFT, Side.RIGHT)), report.tally.detached)
        made.add_row(escape(report.map), *map(str, counts), str(len(report.unusable)))
    show(made)
    for report in reports:
        for difference in report.differences[:limit]:
            only, units = difference.only, ", ".join(difference.units)
            what = f"only on the {only} side" if only else f"differs in {units}"
            said(f"  {report.map}: {show_key(difference.key)} {what}")
        for unusable in report.unusable[:limit]:
            said(f"  {report.map}: {show_key(unusable.key)} {unusable.reason}")
    clean = all(report.clean for report in reports)
    if waiting and not clean:
        said(waiting)
    if clean:
        said("both sides agree")
    elif any(report.differences for report in reports):
        said("the sides differ: dualwrite verify --repair left|right makes them agree")
    else:
        said("some records cannot be compared: correct them on the side that is named")


# -- parked, conflicts, log -------------------------------------------------------------------------------------------


def parked_json(entry: Parked) -> dict[str, object]:
    """A parked record."""
    return {
        "id": entry.id,
        "map": entry.map,
        "side": str(entry.side),
        "key": entry.shown_key,
        "code": entry.code,
        "reason": entry.reason,
        "remedy": remedy_of(entry.code),
        "column": entry.column,
        "attempts": entry.attempts,
        "changes": entry.changes,
        "since": stamp(entry.since),
    }


def changes_json(changes: Sequence[KeptChange], paths: Sequence[str]) -> list[Mapping[str, object]]:
    """The waiting changes of a parked record; ``paths`` are those of rows that do not say it themselves."""

    def named(row: Row | None, kept: KeptChange) -> Mapping[str, Value] | None:
        if row is None:
            return None
        return {path: value for path, value in zip(_paths(kept, paths), row, strict=False) if value is not ABSENT}

    return [
        {
            "kind": str(kept.change.kind),
            "at": stamp(kept.change.at),
            "before": named(kept.change.before, kept),
            "after": named(kept.change.after, kept),
        }
        for kept in changes
    ]


def _paths(kept: KeptChange, paths: Sequence[str]) -> Sequence[str]:
    return paths if kept.layout is None else kept.layout.paths


def parked(entries: Sequence[Parked]) -> None:
    """The list of parked records."""
    parked_table(entries)
    said(f"{len(entries)} parked" if entries else "nothing is parked")


def parked_table(entries: Sequence[Parked]) -> None:
    """Parked records as a table, with reason and remedy below each."""
    names = ("#id", "map", "side", "key", "code", "#tries", "since")
    rows = [
        (str(e.id), escape(e.map), str(e.side), escape(e.shown_key), e.code, str(e.attempts), when(e.since))
        for e in entries
    ]
    if not rows:
        return
    widths = fitting([[name.removeprefix("#") for name in names], *rows], console.width, ("map", "key"), names)
    console.print(one_line(names, widths))
    for row, entry in zip(rows, entries, strict=True):
        console.print(one_line(names, widths, row))
        remedy = remedy_of(entry.code)
        told = "\n".join([entry.reason, *([f"→ {remedy}"] if remedy else [])])
        console.print(Padding(escape(told), (0, 0, 0, 6)))


def one_line(names: Sequence[str], widths: Sequence[int], row: Sequence[str] | None = None) -> Table:
    """A row of a table that is printed row by row; the header without one."""
    line = table(*names)
    line.show_header = row is None
    for column, width in zip(line.columns, widths, strict=True):
        column.width = width
        column.header = str(column.header).removeprefix("#")
    if row is not None:
        line.add_row(*row)
    return line


def fitting(rows: Sequence[Sequence[str]], space: int, giving: Sequence[str], names: Sequence[str]) -> list[int]:
    """The columns' widths so that they fit into the space; those that give way lose first, down to eight."""
    widths = [max(Text.from_markup(cell).cell_len for cell in column) for column in zip(*rows, strict=True)]
    for index in (names.index(name) for name in giving):
        widths[index] -= max(0, min(widths[index] - 8, sum(widths) + 2 * (len(widths) - 1) - space))
    return widths


def parked_one(entry: Parked, changes: Sequence[KeptChange], paths: Sequence[str]) -> None:
    """A parked record with its waiting changes, and what to do; ``paths`` as for ``changes_json``."""
    parked_table([entry])
    for kept in changes:
        change = kept.change
        console.print(f"\n{change.kind} by the {entry.side.other} side {when(change.at)}")
        made = table("column", "before", "after")
        width = max(len(row) for row in (change.before, change.after) if row is not None)
        for index, path in enumerate(_paths(kept, paths)[:width]):
            before, after = (None if row is None else row[index] for row in (change.before, change.after))
            if before != after:
                shown = ("" if row is None else cell(row[index]) for row in (change.before, change.after))
                made.add_row(escape(path), *shown)
        show(made)


def conflict_json(entry: Conflict) -> Mapping[str, object]:
    """A conflict; cells of a lookup with several parts are a list."""

    def value(row: Row | None) -> object:
        cells = plain(row)
        return cells[0] if cells is not None and len(cells) == 1 else cells

    return {
        "id": entry.id,
        "map": entry.map,
        "key": entry.shown_key,
        "column": entry.unit,
        "left": value(entry.left),
        "right": value(entry.right),
        "base": value(entry.base),
        "winner": entry.winner or None,
        "policy": entry.policy,
        "open": entry.open,
        "at": stamp(entry.at),
    }


def cells(row: Row | None, whole: bool) -> str:
    """The cells of a unit for people."""
    if row is None:
        return "[dim]deleted[/dim]" if whole else "[dim]–[/dim]"
    return "[dim]row[/dim]" if whole else ", ".join(map(cell, row))


def conflicts(entries: Sequence[Conflict]) -> None:
    """The conflict log."""
    made = table("#id", "map", "key", "column", "left", "right", "base", "winner", "policy", "at")
    for e in entries:
        whole = e.unit in ("row", "*")
        winner = e.winner or "[yellow]open[/yellow]"
        values = (cells(row, whole) for row in (e.left, e.right, e.base))
        what = (escape(e.map), escape(e.shown_key), escape(e.unit))
        made.add_row(str(e.id), *what, *values, winner, e.policy, when(e.at))
    show(made)
    said(f"{len(entries)} conflict(s)" if entries else "no conflicts")


def event_json(event: Event) -> Mapping[str, object]:
    """One line of the activity log."""
    said_by = {"id": event.id, "at": stamp(event.at), "who": event.who}
    return said_by | {"map": event.map, "what": event.what, "detail": event.detail}


def events(found: Sequence[Event]) -> None:
    """The activity log."""
    made = table("at", "who", "map", "what", "detail")
    for e in found:
        detail = json.dumps(e.detail, ensure_ascii=False, default=str) if e.detail else ""
        made.add_row(when(e.at), escape(e.who), escape(e.map), escape(e.what), escape(detail))
    show(made)


# -- progress ---------------------------------------------------------------------------------------------------------


STEPS = {"compare": "comparing", "left": "writing left", "right": "writing right"}
"""What is shown of the steps of an initial sync."""


@contextmanager
def progress() -> Iterator[Callable[[str, str, int, int], None]]:
    """Progress bars of what takes long, one per map, on a terminal only."""
    words = (SpinnerColumn(), TextColumn("{task.description}"))
    numbers = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    tasks: dict[str, TaskID] = {}
    with Progress(*words, *numbers, console=console, disable=not console.is_terminal) as bars:

        def report(map_name: str, step: str, done: int, total: int) -> None:
            doing = f"{escape(map_name)} · {STEPS.get(step, step)}"
            if map_name not in tasks:
                finish(bars)
                tasks[map_name] = bars.add_task(doing, total=None)
            bars.update(tasks[map_name], description=doing, completed=done, total=total or None)

        yield report
        finish(bars)


def finish(bars: Progress) -> None:
    """Nothing more comes for the bars so far; what only was counted has all been read."""
    for task in bars.tasks:
        bars.update(task.id, total=task.completed)
