"""What ``log`` prints."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from rich.markup import escape

from dualwrite.journal import Event
from dualwrite.printing.terminal import show, stamp, table, when


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
