"""A record written as its side's users do: the feed tells of it, and the ordinary flow carries it to the other side."""

from __future__ import annotations

from collections.abc import Mapping

from dualwrite.engine.supervisor import Engine
from dualwrite.errors import Busy, DualwriteError, Unavailable, Usage
from dualwrite.journal import Images
from dualwrite.mapping.compile import CompiledMap
from dualwrite.model import (
    ABSENT,
    Applied,
    Cell,
    Contested,
    Key,
    MissingParent,
    Outcome,
    Rejected,
    Row,
    Side,
    Write,
    show_key,
    show_path,
)
from dualwrite.schema import View


def running_map(engine: Engine, name: str) -> CompiledMap:
    """A map whose changes are carried now; raises Usage for another one."""
    compiled = engine.link.maps.get(name)
    if name in engine.link.standing:
        raise Usage(f"map {name} is paused, so this would not be carried", "resume it first")
    if compiled is None:
        raise Usage(f"map {name} is not running, so this would not be carried", "start it first")
    return compiled


def current_row(engine: Engine, compiled: CompiledMap, side: Side, key: Key) -> Row:
    """The record as it is; raises Usage unless there is exactly one."""
    found = engine.connectors[side].fetch(compiled.whole[side], [key]).get(key, [])
    if len(found) != 1:
        raise Usage(f"the {side} side has {len(found) or 'no'} record(s) {show_key(key)}", "see dualwrite log --key")
    return found[0]


def write_as_user(
    engine: Engine,
    compiled: CompiledMap,
    side: Side,
    write: Write,
    what: str,
    failed: str,
    who: str,
    detail: Mapping[str, object],
) -> str:
    """Write a record; why it came to nothing, or empty.

    ``what`` is told in the activity log before it is done, so that a crash between leaves no change that nobody knows
    of; ``failed`` is told where it came to nothing.  Raises what the system says.
    """

    def tell(what: str, reason: str) -> None:
        engine.journal.log(what, map=compiled.name, who=who, detail={"key": detail["key"], "reason": reason})

    engine.journal.log(what, map=compiled.name, who=who, detail=detail)
    connector, giving_way = engine.connectors[side], engine.flows[side.other].giving_way
    try:
        outcome = giving_way.until_done(side, lambda: connector.edit(compiled.whole[side], write))
    except Busy as trouble:
        tell(failed, trouble.message)
        raise Usage(f"somebody keeps the record locked: {trouble.message}", trouble.remedy) from trouble
    except Unavailable as trouble:
        tell("nobody knows whether it was written", trouble.message)
        raise
    except DualwriteError as trouble:
        tell(failed, trouble.message)
        raise
    if isinstance(outcome, Applied):
        engine.drain()
        return ""
    reason = _why(outcome)
    tell(failed, reason)
    return reason


def _why(outcome: Outcome) -> str:
    """Why a write came to nothing, in words."""
    match outcome:
        case Contested(current=None):
            return "the record is not there any more"
        case Contested():
            return "somebody has changed the record this very moment"
        case MissingParent():
            return f"{outcome.table} has no record {show_key(outcome.key)} for the lookup {outcome.lookup}"
        case Rejected():
            return outcome.reason
        case _:
            return "the record holds these values already"


# -- what is written, by column and in words ---------------------------------------------------------------------------


def blank(view: View) -> Row:
    """A row that says nothing of any cell."""
    return (ABSENT,) * len(view.paths)


def images_of(view: View, before: Row | None, after: Row | None) -> Images:
    """What differs between two rows of a view, by column: old and new value."""
    nothing = blank(view)
    pairs = zip(map(show_path, view.paths), before or nothing, after or nothing, strict=True)
    return {path: (old, new) for path, old, new in pairs if old != new}


def in_words(images: Images) -> list[str]:
    """Old and new values for the activity log."""
    return [f"{path}: {shown(old)} → {shown(new)}" for path, (old, new) in images.items()]


def shown(cell: Cell) -> str:
    """A value in words."""
    return "null" if cell is None else "–" if cell is ABSENT else cell
