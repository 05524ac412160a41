"""What happened to a record, on both sides: its users' changes and ours, parked ones, conflicts, people's commands."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from dualwrite.engine.link import key_text
from dualwrite.engine.workspace import Workspace
from dualwrite.errors import Usage
from dualwrite.journal import Audited, Conflict, Event, Images, Parked
from dualwrite.mapping.compile import CompiledMap
from dualwrite.model import Key, Side

Shown: TypeAlias = Mapping[str, object]
US = "dualwrite"


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that happened to a record.

    ``id`` is that of the change (``dualwrite undo``) or of the conflict; ``who`` is a person, the users of a side, or
    dualwrite; ``columns`` are old and new values by path; ``verdict`` says how it was decided, or why.
    """

    at: float
    side: Side | None
    who: str
    what: str
    verdict: str = ""
    id: str = ""
    columns: Images = field(default_factory=dict)
    detail: Shown = field(default_factory=dict)


def spelled(compiled: CompiledMap, text: str) -> Key:
    """The record that people call so: its members separated by commas, ``()`` for one that is empty.

    Raises Usage where the map's key has another number of members.
    """
    members = [part.strip() for part in text.split(",")]
    named = [None if member in ("()", "") else member for member in members]
    key = compiled.spelled(named) or compiled.spelled([text])
    if key is None:
        names = ", ".join(".".join(path) for path in compiled.table_map.key or ())
        raise Usage(f"{text!r} is no key of {compiled.name}", f"write all its members, separated by commas: {names}")
    return key


def history(work: Workspace, compiled: CompiledMap, key: Key) -> list[Step]:
    """Everything that is known of a record, oldest first."""
    journal, numbers, text = work.journal, work.numbers(), key_text(key)
    steps = [step for line in journal.audits.lines(numbers, map=compiled.name, key=key) for step in steps_of(line)]
    steps += map(_conflict, journal.conflicts(numbers, map=compiled.name, key=text))
    steps += map(_event, journal.events(map=compiled.name, key=text, limit=None))
    steps += _unknown(journal.parked(numbers, map=compiled.name, key=text), steps)
    return sorted(steps, key=lambda step: step.at)


def steps_of(line: Audited) -> Iterator[Step]:
    """A line of the audit as what happened where: the users' change, and what we made of it."""
    if line.source is not None:
        source = line.side.other
        yield Step(line.made, source, f"users of {source}", line.what, id=line.id, columns=line.source)
    id = line.id if line.source is None and line.target is not None else ""
    what = line.what if line.source is None else "applied"
    if line.source is None or line.target is not None:
        yield Step(line.at, line.side, US, what, line.verdict, id, line.target or {})


def _conflict(found: Conflict) -> Step:
    detail = {"column": found.unit, "left": found.left, "right": found.right, "base": found.base}
    return Step(found.at, found.side, US, "conflict", f"{found.verdict} ({found.policy})", str(found.id), detail=detail)


def _event(found: Event) -> Step:
    return Step(found.at, None, found.who or US, found.what, detail=found.detail)


def _unknown(parked: Iterable[Parked], known: Iterable[Step]) -> Iterator[Step]:
    """What is parked, where the audit does not tell."""
    told = {step.side for step in known if step.what == "parked"}
    for entry in parked:
        if entry.side not in told:
            yield Step(entry.since, entry.side, US, "parked", f"{entry.code}: {entry.reason}")
