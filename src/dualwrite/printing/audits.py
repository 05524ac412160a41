"""What is printed of the audit: applied changes, and the history of a record."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rich.markup import escape
from rich.padding import Padding

from dualwrite.engine.history import Step
from dualwrite.journal import Audited, Images
from dualwrite.model import ABSENT, Cell, show_key
from dualwrite.printing.events import circumstances, csv_out
from dualwrite.printing.terminal import cell, console, said, stamp, when

FIELDS = (
    *("id", "at", "side", "map", "version", "key", "what", "decision", "made", "position", "transaction"),
    *("source", "target"),
)


def applied_json(line: Audited) -> Mapping[str, object]:
    """One line of the audit."""
    return {
        "id": line.id,
        "at": stamp(line.at),
        "side": str(line.side),
        "map": line.carrier.map,
        "version": line.carrier.version,
        "key": show_key(line.key),
        "what": line.what,
        "decision": line.verdict,
        "made": stamp(line.made),
        "position": None if line.position is None else str(line.position),
        "transaction": line.transaction or None,
        "source": ends(line.source),
        "target": ends(line.target),
    }


def ends(images: Images | None) -> Mapping[str, object] | None:
    """Old and new values by column; what was not there, or is not known, is left out."""
    if images is None:
        return None
    both = {path: {"old": old, "new": new} for path, (old, new) in images.items()}
    return {path: {end: value for end, value in each.items() if value is not ABSENT} for path, each in both.items()}


def changes_csv(found: Iterable[Audited]) -> None:
    """Lines of the audit as CSV with a header line; images are JSON."""
    csv_out(FIELDS, map(applied_json, found))


def changes(found: Sequence[Audited]) -> None:
    """Lines of the audit: one for each change, the values at the side where it was applied below it."""
    for line in found:
        where = " · ".join(escape(word) for word in (line.carrier.map, show_key(line.key)))
        told = f"[bold]{line.id}[/bold]  [dim]{when(line.at)}[/dim]  {where}  {line.what} at {line.side}"
        console.print(f"{told}  [dim]{escape(line.verdict)}[/dim]")
        _values(line.target or line.source or {}, 4)
    if not found:
        said("nothing is in the audit")


def step_json(step: Step) -> Mapping[str, object]:
    """One thing that happened to a record."""
    return {
        "at": stamp(step.at),
        "side": None if step.side is None else str(step.side),
        "who": step.who,
        "what": step.what,
        "decision": step.verdict,
        "id": step.id or None,
        "columns": ends(step.columns),
        "detail": step.detail,
    }


def history(steps: Sequence[Step], is_audited: bool) -> None:
    """A record's history."""
    for step in steps:
        side = f"  [cyan]{step.side}[/cyan]" if step.side else ""
        id = f"  [bold]{step.id}[/bold]" if step.id else ""
        verdict = f"  [dim]{escape(step.verdict)}[/dim]" if step.verdict else ""
        console.print(f"[dim]{when(step.at)}[/dim]{side}  {escape(step.who)}  {step.what}{id}{verdict}")
        _values(step.columns, 4)
        detail = {name: _plain(value) for name, value in step.detail.items() if name not in ("key", "shown_key")}
        for told in circumstances(detail):
            console.print(Padding(escape(told), (0, 0, 0, 4), expand=False))
    if not steps:
        said("nothing is known of this record" + ("" if is_audited else ": the audit is off"))


def _plain(value: object) -> object:
    if isinstance(value, tuple):
        return ", ".join("null" if each is None else "…" if each is ABSENT else str(each) for each in value)
    return value


def _values(images: Images, indent: int) -> None:
    """Old and new values: those that differ, or the whole record where it came or went."""
    told = [f"{escape(path)}: {_both(old, new)}" for path, (old, new) in images.items()]
    if told:
        console.print(Padding("; ".join(told), (0, 0, 0, indent), expand=False))


def _both(old: Cell, new: Cell) -> str:
    if old is ABSENT:
        return cell(new)
    return cell(old) if new is ABSENT else f"{cell(old)} → {cell(new)}"


def undone(answer: Mapping[str, object], what: str) -> None:
    """What an undo has written."""
    columns = answer["columns"]
    assert isinstance(columns, Mapping)
    kind = {"insert": "the record is back", "delete": "the record is deleted"}.get(str(answer["kind"]), "taken back")
    said(f"{what}: {kind} at the {answer['side']} side, and carried")
    if answer["kind"] == "update":
        for path, (old, new) in columns.items():
            said(f"    {path}: {old} → {new}")
