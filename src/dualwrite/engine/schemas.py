"""What becomes of a map whose tables, or whose file, are not what they were when an engine took it up.

Nothing is lost as long as the log tells of every value that has changed.  So a map goes on where nothing else can have
happened; where its file names what is gone, its changes queue until the file is mended, as those of a paused map do;
and it stops where values may have changed of which no log tells.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from dualwrite.connectors.base import Connector
from dualwrite.engine.drift import (
    Difference,
    Meaning,
    Seen,
    differences,
    lost_paths,
    seen_from,
    seen_text,
    told,
    without_lost,
    worst,
)
from dualwrite.engine.lifecycle import ATTENTION, PAUSED, RUNNING, after, is_live
from dualwrite.engine.meter import Meter
from dualwrite.engine.versions import as_it_ran
from dualwrite.errors import Drifted, DualwriteError, Halted, Invalid, Problem
from dualwrite.journal import Journal, MapState
from dualwrite.mapping.compile import CompiledMap
from dualwrite.mapping.tablemap import TableMap
from dualwrite.model import Side, show_path
from dualwrite.schema import Schema

Schemas: TypeAlias = Mapping[Side, Schema]
Compile: TypeAlias = Callable[[TableMap, Schemas], CompiledMap]
"""A map as the systems are now; raises Invalid."""
RUNS_ON: Final = frozenset({"mandatory_unmapped"})
"""Problems that keep a map from being started, and not from going on: single records are parked for them."""
EDIT: Final = "edit the map's file (see `dualwrite check`), then `dualwrite maps refresh`: its changes queue meanwhile"
SYNC: Final = "correct the map if need be (see `dualwrite check`), then start it: it compares both sides"
LAST_VERSION: Final = "its file has errors, so it goes on as its last version says"
"""How the reason of a map's state begins that goes on without its file."""
SEEN, HELD = "seen.", "held."
"""Named values of the journal, by map: what was seen of its tables; how it is held."""
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a map: it goes on, or is held, as ``compiled``; or it stops.  ``file``: what is wrong with its
    file, where it goes on without it."""

    step: Literal["goes on", "is held", "stops"]
    compiled: CompiledMap | None
    differences: Sequence[Difference] = ()
    reason: str = ""
    remedy: str = ""
    file: str = ""


@dataclass(frozen=True, slots=True)
class Hold:
    """How a map is held: the paths whose changes queue, by side; ``was_paused``: by a person, before that."""

    paths: Mapping[Side, Sequence[str]]
    was_paused: bool

    def __str__(self) -> str:
        return json.dumps({"paths": {side.value: list(paths) for side, paths in self.paths.items()},
                           "was_paused": self.was_paused})  # fmt: skip

    @classmethod
    def of(cls, compiled: CompiledMap, was_paused: bool) -> Hold:
        """A map that is held as this one."""
        return cls(
            {side: [show_path(path) for path in view.paths] for side, view in compiled.views.items()}, was_paused
        )

    @classmethod
    def read(cls, journal: Journal, name: str) -> Hold | None:
        """How a map is held; None where it is not."""
        text = journal.get(HELD + name)
        if text is None:
            return None
        found = json.loads(text)
        return cls({Side(side): paths for side, paths in found["paths"].items()}, found["was_paused"])


def seen(journal: Journal, name: str) -> dict[Side, Seen] | None:
    """What an engine has seen of a map's tables; None where none has written it down."""
    text = journal.get(SEEN + name)
    return None if text is None else seen_from(text)


def changes(before: Mapping[Side, Seen], schemas: Schemas, compiled: CompiledMap | None) -> list[Difference]:
    """What has changed in the tables of a map, on both sides."""
    return [
        found
        for side in Side
        for found in differences(side, before[side], schemas[side], compiled.views[side] if compiled else None)
    ]


class Judge:
    """Tells what becomes of maps; asks the journal, and writes nothing.

    ``compile`` None: a map that is there is as its tables are now.  ``broken`` says why maps of the project are not
    among those that are there.
    """

    def __init__(self, journal: Journal, schemas: Schemas, compile: Compile | None, broken: Mapping[str, str]) -> None:
        self._journal = journal
        self._schemas = schemas
        self._compile = compile
        self._broken = broken

    def verdict(self, state: MapState, there: CompiledMap | None, trouble: Halted | None) -> Verdict:
        """What becomes of a live map; ``there`` is what its file says, ``trouble`` what a feed told of its tables."""
        before, hold = seen(self._journal, state.map), Hold.read(self._journal, state.map)
        wrong = self._broken.get(state.map, "")
        now, wrong = (None, wrong) if wrong else self._now(there)
        last = as_it_ran(self._journal, state) if now is None and wrong else None
        if now is None and last is not None:
            now, _ = self._again(last)
        if before is None:
            return Verdict("goes on", now, file=wrong) if now else Verdict("stops", None, (), wrong, SYNC)
        found = changes(before, self._schemas, now)
        if worst(found) == "sync":
            return self._stops(found)
        if now is None:
            return self._held(last or (there.table_map if there else None), found, wrong)
        if hold is not None and (lost := lost_paths(now, before, hold.paths)):
            why = f"{', '.join(lost)} could not be followed meanwhile, so changes may have been missed"
            return Verdict("stops", None, found, "; ".join(filter(None, [told(found), why])), SYNC)
        if trouble is not None and trouble.message and not found:
            return Verdict("stops", None, (), trouble.message, trouble.remedy)
        return Verdict("goes on", now, found, file=wrong)

    def _now(self, there: CompiledMap | None) -> tuple[CompiledMap | None, str]:
        if there is None or self._compile is None:
            return there, ""
        return self._again(there.table_map)

    def _again(self, table_map: TableMap) -> tuple[CompiledMap | None, str]:
        assert self._compile is not None
        try:
            return self._compile(table_map, self._schemas), ""
        except Invalid as invalid:
            return None, "; ".join(f"{each.code}: {each.message}" for each in invalid.problems)

    @staticmethod
    def _stops(found: Sequence[Difference]) -> Verdict:
        why = next(each.why for each in found if each.meaning == "sync")
        return Verdict("stops", None, found, f"{told(found)}: {why}", SYNC)

    def _held(self, table_map: TableMap | None, found: Sequence[Difference], wrong: str) -> Verdict:
        reason = told(each for each in found if each.meaning == "edit") or wrong
        if table_map is not None and self._compile is not None:
            with suppress(Invalid):
                try:
                    self._compile(table_map, self._schemas)
                except Invalid as invalid:
                    less = without_lost(table_map, invalid.problems)
                    return Verdict("is held", self._compile(less, self._schemas), found, reason, EDIT)
        return Verdict("stops", None, found, reason, SYNC)


@dataclass(frozen=True, slots=True)
class Refreshed:
    """A map, what has changed in its tables since an engine looked at them, and what that means for it."""

    map: str
    differences: Sequence[Difference]

    @property
    def meaning(self) -> Meaning:
        """What all of it means together."""
        return worst(self.differences)


def report(
    journal: Journal, schemas: Schemas, maps: Mapping[str, CompiledMap], names: Iterable[str]
) -> list[Refreshed]:
    """Of maps that an engine has taken up, what has changed in their tables; ``maps`` are those without errors."""
    found = []
    for name in names:
        before = seen(journal, name)
        if before is not None:
            found.append(Refreshed(name, changes(before, schemas, maps.get(name))))
    return found


def schema_changed(name: str, found: Difference) -> Problem:
    """A difference as ``dualwrite check`` tells it."""
    message = f"{found.what}: {found.why}" if found.why else found.what
    remedy = {
        "harmless": "nothing: the next `dualwrite run`, or `dualwrite maps refresh`, goes by it",
        "edit": EDIT,
        "sync": SYNC,
    }[found.meaning]
    level = "warning" if found.meaning == "harmless" else "error"
    return Problem("schema_changed", message, remedy, level, map=name, side=str(found.side))


class Tables:
    """The tables of the maps that run, and what was seen of them."""

    def __init__(
        self,
        journal: Journal,
        connectors: Mapping[Side, Connector],
        compile: Compile | None,
        broken: Mapping[str, str],
        meter: Meter,
    ) -> None:
        """See ``Judge``."""
        self._journal = journal
        self._connectors = connectors
        self._compile = compile
        self._broken = broken
        self._meter = meter

    def _now(self) -> Schemas:
        return {side: connector.schema() for side, connector in self._connectors.items()}

    def look(self, maps: dict[str, CompiledMap], told: dict[str, Drifted]) -> list[Halted]:
        """Hold the maps that run against their tables as they are now: those that go on, or are held, are put into
        ``maps`` as they do; returns the others.  ``told``, by map, is emptied."""
        live = [state for state in self._journal.states().values() if is_live(state)]
        schemas = self._now() if live else {}
        judge, halted = Judge(self._journal, schemas, self._compile, self._broken), []
        for state in live:
            name, before = state.map, self._journal.get(SEEN + state.map)
            verdict = judge.verdict(state, maps.pop(name, None), told.pop(name, None))
            if not (verdict.step == "is held" and state.state == ATTENTION):  # it was told
                self._tell(name, verdict)
            if verdict.compiled is None:
                halted.append(Halted(name, verdict.reason, verdict.remedy))
                continue
            maps[name] = verdict.compiled
            if verdict.step == "is held":
                self._hold(state, verdict, verdict.compiled)
                continue
            self._go_on(state, verdict)
            if (now := seen_text(schemas, verdict.compiled)) != before:
                self._journal.put(SEEN + name, now)
        return halted

    def _tell(self, name: str, verdict: Verdict) -> None:
        if not verdict.differences:
            return
        changes = [f"{each}: {each.why}" if each.why else str(each) for each in verdict.differences]
        self._journal.log(f"tables changed; {verdict.step}", map=name, detail={"changes": changes})
        self._meter.incident("drift", name)
        log.warning("tables changed", extra={"fields": {"map": name, "changes": changes}})

    def _go_on(self, state: MapState, verdict: Verdict) -> None:
        name, reason = state.map, ""
        if state.state == ATTENTION:
            hold, now = Hold.read(self._journal, name), after(state.state, "mended")
            was_paused = hold is not None and hold.was_paused
            with self._journal.batch() as batch:
                batch.set_state(name, state=after(now, "pause") if was_paused else now)
                batch.set_state(name, desired=PAUSED if was_paused else RUNNING)
                batch.put(HELD + name, None)
                batch.log("fits its tables again; goes on where it stood", map=name)
        if verdict.file:
            reason = f"{LAST_VERSION}: {verdict.file}"
            log.warning("goes on with its last version", extra={"fields": {"map": name, "reason": verdict.file}})
        if reason == state.reason or not (reason or state.reason.startswith(LAST_VERSION) or state.state == ATTENTION):
            return
        self._journal.set_state(name, reason=reason)
        if reason:
            self._journal.log("goes on with its last version", map=name, detail={"reason": verdict.file})

    def _hold(self, state: MapState, verdict: Verdict, compiled: CompiledMap) -> None:
        """Let a map's changes queue until it fits its tables again."""
        if state.state == ATTENTION:  # for long
            return
        name, detail = state.map, {"reason": verdict.reason, "remedy": verdict.remedy}
        with self._journal.batch() as batch:
            batch.put(HELD + name, str(Hold.of(compiled, state.desired == PAUSED)))
            reason = f"{verdict.reason}; {verdict.remedy}"
            batch.set_state(name, desired=PAUSED, state=after(state.state, "halted"), reason=reason)
            batch.log("stopped by itself; needs attention", map=name, detail=detail)
        self._meter.incident("attention", name)
        log.warning("needs attention", extra={"fields": {"map": name, **detail}})

    def take_up(self, maps: dict[str, CompiledMap], names: Sequence[str], but: Collection[str]) -> None:
        """Maps that are started go by their tables as they are now, ``but`` those that go on as they are."""
        schemas = self._now()
        for name in names:
            if self._compile is not None and name not in but:
                maps[name] = self._compile(maps[name].table_map, schemas)
            self._journal.put(SEEN + name, seen_text(schemas, maps[name]))

    def told(self, compiled: CompiledMap) -> str:
        """What has changed in the tables of a map since they were looked at; empty for nothing."""
        before = seen(self._journal, compiled.name)
        return "" if before is None else told(changes(before, self._now(), compiled))

    def besides(self, trouble: Halted, compiled: CompiledMap | None) -> str:
        """What else there is to say of a map that stops: what has changed in its tables."""
        before = seen(self._journal, trouble.map)
        if before is None:
            return ""
        with suppress(DualwriteError):
            found = changes(before, self._now(), compiled)
            return told(each for each in found if each.what not in str(trouble))
        return ""
