"""What ``log`` prints: the activity log for people, and as JSON and CSV for programs."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence

from rich.markup import escape
from rich.padding import Padding

from dualwrite.journal import Event
from dualwrite.printing.terminal import console, said, stamp, when

FIELDS = ("id", "at", "who", "map", "kind", "what", "detail")
_HIDDEN = ("key", "shown_key")
"""Of a detail: how the journal spells a record, and people; only the latter is shown, under the first one's name."""


def event_json(event: Event) -> Mapping[str, object]:
    """One line of the activity log."""
    return {
        "id": event.id,
        "at": stamp(event.at),
        "who": event.who,
        "map": event.map,
        "kind": event.kind,
        "what": event.what,
        "detail": event.detail,
    }


def events_csv(found: Iterable[Event]) -> None:
    """The activity log as CSV with a header line; details are JSON."""
    csv_out(FIELDS, map(event_json, found))


def csv_out(fields: Sequence[str], rows: Iterable[Mapping[str, object]]) -> None:
    """Rows as CSV with a header line; what is more than a word or a number is JSON."""
    writer = csv.DictWriter(sys.stdout, fields, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        plain = {name: value for name, value in row.items() if not isinstance(value, Mapping)}
        nested = {name: json.dumps(row[name], ensure_ascii=False) for name in row.keys() - plain.keys()}
        writer.writerow(plain | nested)


def events(found: Sequence[Event]) -> None:
    """The activity log: a line each, the circumstances indented below it."""
    for event in found:
        what = f"[bold]{escape(event.what)}[/bold]"
        told = "  ".join(filter(None, (escape(event.map), what)))
        who = f"  [cyan]{escape(event.who)}[/cyan]" if event.who else ""
        console.print(f"[dim]{when(event.at)}[/dim]{who}  {told}")
        for line in circumstances(event.detail):
            console.print(Padding(escape(line), (0, 0, 0, 4), expand=False))
    if not found:
        said("nothing is in the log")


def circumstances(detail: Mapping[str, object]) -> Iterator[str]:
    """The detail of an event in words: what is short on one line, lists of sentences one below the other."""
    shown = {name: value for name, value in detail.items() if name not in _HIDDEN and value not in (None, "")}
    if "key" in detail:
        shown = {"record": detail.get("shown_key") or _key(detail["key"]), **shown}
    short = [_told(name, value) for name, value in shown.items() if not isinstance(value, list)]
    if short:
        yield "; ".join(short)
    for value in shown.values():
        if isinstance(value, list):
            yield from map(_said, value)


def _said(each: object) -> str:
    if isinstance(each, Mapping):
        return "; ".join(_told(name, value) for name, value in each.items() if value not in (None, ""))
    return str(each)


def _key(text: object) -> str:
    """The journal's spelling of a key, for people."""
    try:
        members = json.loads(str(text))
    except ValueError:
        return str(text)
    return ", ".join("()" if member is None else str(member) for member in members)


def _told(name: str, value: object) -> str:
    words = name.replace("_", " ")
    if isinstance(value, bool):
        return f"{words} {'yes' if value else 'no'}"
    if isinstance(value, Mapping):
        return f"{words}: " + ", ".join(f"{key} {each}" for key, each in value.items())
    return f"{words} {value}" if isinstance(value, int | float) else f"{words}: {value}"
