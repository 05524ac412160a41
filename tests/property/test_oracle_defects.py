"""The test of the test: an engine with a rule taken away must be found out by the oracle.

Each defect is put in by the test, never by the product.  A bounded, repeatable search over random links must find a
program that the oracle condemns; without the defect the same program is fine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from dualwrite.connectors._memory import log as memory_log
from dualwrite.connectors.memory import MemoryTransaction
from dualwrite.engine import apply, contest, flow, initial, link, window
from dualwrite.model import Position

from .oracle_programs import links
from .oracle_world import run

Patch = Callable[[pytest.MonkeyPatch], None]
MOST = 600
"""Programs tried for one defect."""


class Found(Exception):
    """A program that shows the defect."""

    def __init__(self, program: Any) -> None:
        super().__init__()
        self.program = program


def condemned(allowed: Iterable[str]) -> Any:
    """A link and a program that the oracle condemns, None if the search finds none."""

    @settings(
        max_examples=MOST,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )
    @given(links(tuple(allowed)))
    def search(found) -> None:
        design, _, program = found
        try:
            faults = run(design, program)
        except Exception:  # an engine that breaks down is found out as well
            raise Found((design, program)) from None
        if faults:
            raise Found((design, program))

    try:
        search()
    except Found as found:
        return found.program
    return None


def late_marker(monkeypatch: pytest.MonkeyPatch) -> None:
    """R1: a change right behind a commit of ours does not know of it yet."""
    known: dict[Any, list[Any]] = {}
    tag = flow.Flow._tag

    def late(self, change):
        seen = known.setdefault((id(self.link.journal), self.source), [])
        if not seen or seen[-1] != change.seen:
            seen.append(change.seen)
        return tag(self, replace(change, seen=seen[-2] if len(seen) > 1 else change.seen))

    monkeypatch.setattr(flow.Flow, "_tag", late)


def parked_counts_as_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """R2: what is parked on a side passes for seen there."""
    monkeypatch.setattr(flow.Flow, "_tag", lambda _self, change: change)


def forgotten_once_carried(monkeypatch: pytest.MonkeyPatch) -> None:
    """R3: a side's changes are forgotten as soon as they are carried."""
    learn = flow.Flow._learn

    def forget(self, ledger):
        learn(self, ledger)
        if self.committed is not None:
            self._from.windows.forget(self.committed, lambda _name, _key: False)

    monkeypatch.setattr(flow.Flow, "_learn", forget)


def no_barrier(monkeypatch: pytest.MonkeyPatch) -> None:
    """R4: decisions are made with what happens to have been read."""
    monkeypatch.setattr(MemoryTransaction, "since", lambda _self, _after: ())
    monkeypatch.setattr(flow.Flow, "_catch_up", lambda _self: None)


def winner_not_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    """R6: where the target's own change wins, its value is not put back over an earlier loser's."""
    decide = contest._decide

    def decided(case, unit, value, row):
        verdict = decide(case, unit, value, row)
        if verdict.losses and not verdict.open and verdict.losses[-1].winner is case.rules.target:
            return replace(verdict, value=tuple(row[index] for index in unit.indexes))
        return verdict

    monkeypatch.setattr(contest, "_decide", decided)


def loser_not_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    """R11: the losing value is dropped without a word."""
    monkeypatch.setattr(apply.Application, "conflict", lambda *_args, **_named: None)


def no_hidden_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """R7: nothing is kept under a delete."""
    monkeypatch.setattr(apply.Application, "hide", lambda *_args: None)


def second_thoughts(monkeypatch: pytest.MonkeyPatch) -> None:
    """R8: the two flows follow different decisions: each the last that was made when it looked."""
    decisions = link.Link.decisions

    def last(self, map_name, key):
        return {unit: found[::-1] for unit, found in decisions(self, map_name, key).items()}

    monkeypatch.setattr(link.Link, "decisions", last)


def snapshot_behind_live_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """R10: differences found by an initial sync are written over what users did meanwhile."""
    place = contest._weight

    def weight(change, *args, **named):
        return place(replace(change, weak=False), *args, **named) if change.weak else place(change, *args, **named)

    monkeypatch.setattr(contest, "_weight", weight)


def boundary_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """R10: changes that the snapshot contains are carried once more."""
    monkeypatch.setattr(window.Windows, "floor_of", lambda _self, _name: None)


def boundary_too_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """A snapshot claims to contain what was committed after it was read."""
    compare = initial.InitialSync.compare

    def late(self):
        boundaries = compare(self)
        for side, at in list(boundaries.items()):
            later = Position(at.feed, (at.place[0] + 1,))
            self.link.sides[side].windows.floor(self.compiled.name, later, None)
        return boundaries

    monkeypatch.setattr(initial.InitialSync, "compare", late)


def no_compare_and_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two engines: nobody looks whether the position is where it was left."""
    begin = flow.Flow.begin

    def blind(self):
        self.committed = self._to.connector.positions()[self.stream][0]
        return begin(self)

    monkeypatch.setattr(flow.Flow, "begin", blind)


def coalesced_wrongly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several changes of a record only the last one is looked at."""
    monkeypatch.setattr(apply.Plan, "merged", lambda self: self.changes[-1])


def echo_not_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What we wrote ourselves comes out of the feed as a change of users."""
    monkeypatch.setattr(memory_log.Ledger, "wrote", memory_log.Ledger.caused)


DEFECTS: tuple[tuple[Patch, tuple[str, ...]], ...] = (
    (late_marker, ()),
    (parked_counts_as_seen, ("refusals",)),
    (forgotten_once_carried, ()),
    (no_barrier, ()),
    (winner_not_restored, ("clocks",)),
    (loser_not_logged, ()),
    (no_hidden_rows, ("clocks",)),
    (second_thoughts, ("manual",)),
    (snapshot_behind_live_changes, ()),
    (boundary_ignored, ("sum",)),
    (boundary_too_late, ()),
    (no_compare_and_set, ("twins", "sum")),
    (coalesced_wrongly, ()),
    (echo_not_removed, ()),
)


@pytest.mark.parametrize(("patch", "allowed"), DEFECTS, ids=[patch.__name__ for patch, _ in DEFECTS])
def test_defect_is_found_out(monkeypatch: pytest.MonkeyPatch, patch: Patch, allowed: tuple[str, ...]) -> None:
    """With the defect the oracle condemns a program; without it the same program is fine."""
    with monkeypatch.context() as patched:
        patch(patched)
        found = condemned(allowed)
    assert found is not None
    assert run(*found) == []


