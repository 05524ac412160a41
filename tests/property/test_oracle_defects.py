"""The test of the test: every rule that the engine keeps, broken on purpose, must be noticed by the oracle.

Each defect has a program in which it shows: the oracle finds nothing without the defect, and something with it.  Most
are also looked for at random, so that the programs which ``test_oracle`` draws are known to reach them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import pytest

from dualwrite.connectors import memory
from dualwrite.connectors._memory import log
from dualwrite.engine import contest, initial
from dualwrite.engine.alone import Alone
from dualwrite.engine.backlog import Backlog
from dualwrite.engine.flow import Flow
from dualwrite.engine.ledger import Ledger, Plan
from dualwrite.engine.link import ClockOffset
from dualwrite.engine.restore import Restorer
from dualwrite.engine.stage import Stage
from dualwrite.engine.supervisor import Engine
from dualwrite.engine.window import Windows
from dualwrite.model import Batch, Position, Side

from .oracle import Line, MapIdea
from .oracle_programs import Chance
from .oracle_world import ITEMS, Design, run

Patch = Callable[[pytest.MonkeyPatch], None]
DEFECTS: dict[str, Defect] = {}
USUAL = ("clocks", "max and min", "stops")
"""Features that any random link may have here."""
RANDOM_PROGRAMS = 1_000
"""So many random programs at most are drawn for a defect."""


@dataclass(frozen=True)
class Defect:
    """A broken rule: how it is broken, a link and a program in which that shows, what it takes to meet it at random.

    ``ways`` are further lines of the map; ``features`` all random links have, besides a few usual ones.  What is not
    ``sought`` at random shows in so few programs that no bearable number of them is sure to hold one.
    """

    patch: Patch
    program: str
    policies: tuple[str, ...] = ("newest", "newest")
    rows: str = "keep"
    clock: str = "true"
    counts: bool = False
    features: tuple[str, ...] = ()
    ways: tuple[Line, ...] = ()
    sought: bool = True

    @property
    def design(self) -> Design:
        """The link."""
        lines = [Line("code", "=", "code")]
        lines += [Line(name, "=", name, policy=policy) for name, policy in zip("ab", self.policies, strict=True)]
        lines += [Line("n", "=", "n", policy="sum")] if self.counts else []
        lines += self.ways
        return Design((MapIdea(ITEMS, "item", "thing", tuple(lines), rows=self.rows),), self.clock)

    @property
    def lines(self) -> list[str]:
        """The program."""
        return [line.strip() for line in self.program.strip().split("\n")]


def defect(name: str, **told: Any) -> Callable[[Patch], Patch]:
    """Register a defect under a name."""

    def register(patch: Patch) -> Patch:
        DEFECTS[name] = Defect(patch, **told)
        return patch

    return register


BOTH = """
    L insert 1 a=3 b=3
    start left
    drain
"""


# -- markers, windows, barrier ----------------------------------------------------------------------------------------


@defect(
    "marker comes late",
    policies=("left", "left"),
    program=BOTH
    + """
    L update 1 a=1
    L>R
    R update 1 a=2
    R>L
""",
)
def marker_comes_late(patch: pytest.MonkeyPatch) -> None:
    """R1: the marker tells what had been received before this commit, not with it."""

    before: dict[int, tuple[Any, Position | None]] = {}  # the link itself is held, so that its number stays its own
    commit = memory.MemoryTransaction.commit

    def late(self: Any, position: Position | None) -> None:
        link = self._link
        _, earlier = before.get(id(link), (link, link.seen))
        commit(self, position)
        last = link.log[-1]
        before[id(link)] = link, link.seen
        link.log[-1] = replace(last, marker=log.Marker(last.marker.number, earlier))

    patch.setattr(memory.MemoryTransaction, "commit", late)


@defect(
    "parked counts as seen",
    features=("refusals",),
    program="""
    L insert 1 a=3
    start left
    drain
    block R 1
    L delete 1
    L>R
    R update 1 a=1
    R>L
    unblock
""",
)
def parked_counts_as_seen(patch: pytest.MonkeyPatch) -> None:
    """R2: a change is tagged as if its side had received what is parked there."""
    patch.setattr(Flow, "_tag", lambda self, change: change)


@defect(
    "windows forgotten once carried",
    policies=("left", "left"),
    program=BOTH
    + """
    L update 1 a=1
    R update 1 a=2
    L>R
    R>L
""",
)
def forgotten_once_carried(patch: pytest.MonkeyPatch) -> None:
    """R3: a side's own changes are remembered only until they are carried, not until they are seen."""
    advance = Flow._advance

    def forgetful(self: Flow, position: Position) -> None:
        advance(self, position)
        self._from.windows.forget(position)

    patch.setattr(Flow, "_advance", forgetful)


@defect(
    "feed trimmed once carried",
    policies=("left", "left"),
    program=BOTH
    + """
    L update 1 a=1
    R update 1 a=2
    L>R
    ack
    restart
    R>L
""",
)
def trimmed_once_carried(patch: pytest.MonkeyPatch) -> None:
    """R3: a feed is let go of as soon as it is carried, so that no window can be read again."""
    patch.setattr(Windows, "oldest", lambda self: None)


@defect(
    "no barrier",
    policies=("left", "left"),
    program="""
    L insert 1 a=2
    start left
    drain
    L update 1 a=1
    R update 1 a=3
    R>L
""",
)
def no_barrier(patch: pytest.MonkeyPatch) -> None:
    """R4: what the target's users committed since their feed was read is not looked at."""
    patch.setattr(memory.MemoryTransaction, "since", lambda self, after, limit: Batch((), after))


@defect(
    "windows are not looked at",
    policies=("left", "left"),
    program=BOTH
    + """
    L update 1 a=1
    R update 1 a=2
    R>L
    L>R
""",
)
def no_windows(patch: pytest.MonkeyPatch) -> None:
    """R5: every record counts as touched by nobody else."""
    patch.setattr(Windows, "of", lambda self, name, key, seen: [])


# -- the fold ----------------------------------------------------------------------------------------------------------


@defect(
    "winner not restored",
    features=("clocks",),
    program="""
    L insert 1 a=3
    start left
    drain
    L update 1 a=1 @50
    R update 1 a=2 @40
    L update 1 a=9 @30
    R>L
    L>R
""",
)
def winner_not_restored(patch: pytest.MonkeyPatch) -> None:
    """R6: a loser is merely not written, where the winner ought to be written again."""
    decide = contest._decide

    def careless(found: Any, unit: Any, value: Any, row: Any) -> Any:
        verdict = decide(found, unit, value, row)
        lost = any(loss.winner is found.rules.target for loss in verdict.losses)
        return replace(verdict, value=contest._part(row, unit)) if lost else verdict

    patch.setattr(contest, "_decide", careless)


@defect(
    "loser not logged",
    program=BOTH
    + """
    L update 1 a=1
    R update 1 a=2
""",
)
def loser_not_logged(patch: pytest.MonkeyPatch) -> None:
    """R6: what loses is gone without a trace."""
    patch.setattr(Ledger, "conflict", lambda self, plan, loss, *, is_open=False: None)


@defect(
    "clocks measured anew for what was decided before",
    clock="backwards",
    features=("clocks",),
    sought=False,
    program="""
    start right
    clock L -50
    L insert 1 a=1
    R insert 1 a=2
    R>L
    restart
    L>R
""",
)
def clocks_measured_anew(patch: pytest.MonkeyPatch) -> None:
    """R6: the two halves of a decision compare times by different offsets of the clocks."""
    patch.setattr(ClockOffset, "holds_at", lambda self, position: True)


@defect(
    "wrong winner",
    program=BOTH
    + """
    L update 1 a=1
    R update 1 a=2
""",
)
def wrong_winner(patch: pytest.MonkeyPatch) -> None:
    """R6: the older edit wins, on both sides alike."""
    newer = contest._Contest.newer
    patch.setattr(contest._Contest, "newer", lambda self, own: newer(self, own).other)


@defect(
    "nulls of inserts count",
    policies=("right", "right"),
    program="""
    start left
    drain
    L insert 1 a=1
    R insert 1 b=1
""",
)
def nulls_count(patch: pytest.MonkeyPatch) -> None:
    """R6: what an insert left empty is an edit like another."""
    patch.setattr(contest, "_weight", lambda change, value, *, unset=False: 1 if change.weak else 2)


@defect(
    "contested changes are joined",
    policies=("left", "left"),
    program=BOTH
    + """
    L update 1 a=1
    L update 1 a=3
    R update 1 a=2
    L>R
""",
)
def contested_are_joined(patch: pytest.MonkeyPatch) -> None:
    """R5: changes of a record that the other side has edited are coalesced as well."""
    fold = Stage._fold

    def joined(self: Stage, plan: Plan, *, surprised: bool = False) -> None:
        fold(self, plan.left([plan.merged()]) if plan.is_plain else plan, surprised=surprised)

    patch.setattr(Stage, "_fold", joined)


@defect(
    "no hidden rows",
    rows="newest",
    features=("newest rows",),
    sought=False,
    program="""
    L insert 1 a=3 b=3
    start left
    drain
    L update 1 a=1
    R delete 1
    L update 1 b=1
    R>L
    L>R 1
    L>R 1
""",
)
def no_hidden_rows(patch: pytest.MonkeyPatch) -> None:
    """R7: the row under a delete is not kept."""
    patch.setattr(Ledger, "hide", lambda self, map_name, key, hidden: None)


@defect(
    "second thoughts",
    policies=("manual", "newest"),
    features=("manual",),
    program="""
    L insert 1 a=3
    start left
    drain
    L update 1 a=1
    R update 1 a=2
    L>R
    R>L
    block L 1
    resolve left
    unblock
    drain
    R update 1 a=3
    L update 1 a=2
    drain
    resolve right
""",
)
def second_thoughts(patch: pytest.MonkeyPatch) -> None:
    """R8: the last decision holds instead of the first."""
    decided = contest._decided

    def fickle(found: Any, unit: Any, own: Any) -> Side | None:
        wanted = {name: tuple(reversed(of)) for name, of in found.decisions.items()}
        covers = {
            side: Position(at.feed, (1 << 60,)) for of in wanted.values() for d in of for side, at in d.covers.items()
        }
        late = {name: tuple(replace(d, covers=covers) for d in of) for name, of in wanted.items()}
        return decided(replace(found, decisions=late), unit, own)

    patch.setattr(contest, "_decided", fickle)


@defect(
    "rename over an edit",
    features=("rename",),
    program="""
    L insert 1 a=3
    start left
    drain
    R update 1 a=1
    L rename 1 2
    L>R
    R>L
""",
)
def rename_over_an_edit(patch: pytest.MonkeyPatch) -> None:
    """R9: a change of key is carried without looking at what the other side did to the record."""
    contested = Stage._is_contested
    patch.setattr(Stage, "_is_contested", lambda self, plan: not plan.renames and contested(self, plan))
    patch.setattr(Stage, "_is_renamed", lambda self, plan: False)


# -- initial sync ------------------------------------------------------------------------------------------------------


@defect(
    "snapshot rows after live changes",
    program="""
    L insert 1 a=2
    R insert 1 a=1
    at after read: R update 1 a=3
    start left
""",
)
def snapshot_rows_after_live_changes(patch: pytest.MonkeyPatch) -> None:
    """R10: what an initial sync found is written as if it were newer than what users did meanwhile."""
    carry = Flow.carry_weak

    def late(self: Flow, changes: Any) -> Any:
        end = self._to.connector.end()
        return carry(self, [change._replace(seen=end, weak=False, at=1e9) for change in changes])

    patch.setattr(Flow, "carry_weak", late)


@defect(
    "differences count as edits",
    policies=("left", "left"),
    program="""
    L insert 1 a=2
    R insert 1 a=1
    at after read: R update 1 a=3
    start left
""",
)
def differences_count(patch: pytest.MonkeyPatch) -> None:
    """R10: what an initial sync found does not yield to what users did meanwhile."""
    weight = contest._weight
    patch.setattr(
        contest, "_weight", lambda change, value, *, unset=False: 2 * bool(weight(change, value, unset=unset))
    )


@defect(
    "boundary ignored",
    program="""
    start left
    drain
    R insert 1 a=1
    L insert 1 a=0
    stop
    start left
    drain
""",
)
def boundary_ignored(patch: pytest.MonkeyPatch) -> None:
    """R10: changes that a snapshot contains are carried once more, behind it."""
    patch.setattr(Windows, "floor_of", lambda self, name: None)


@defect(
    "snapshot older than its boundary",
    program="""
    L insert 1 a=2
    start left
    drain
    stop
    L update 1 a=3
    start right
""",
)
def snapshot_older_than_its_boundary(patch: pytest.MonkeyPatch) -> None:
    """A snapshot says that it contains a change which it does not contain."""
    before: dict[int, tuple[Any, Any]] = {}
    publish = memory.MemoryDatabase.publish
    snapshot = memory.MemorySnapshot.__init__

    def publishing(self: Any, session: Any, at: float) -> None:
        before[id(self.schema)] = self.schema, self.tables
        publish(self, session, at)

    def stale(self: Any, view: Any, lens: Any, tables: Any, boundary: Any) -> None:
        snapshot(self, view, lens, before.get(id(lens.schema), (None, tables))[1], boundary)

    patch.setattr(memory.MemoryDatabase, "publish", publishing)
    patch.setattr(memory.MemorySnapshot, "__init__", stale)


# -- transactions ------------------------------------------------------------------------------------------------------


@defect(
    "position not compared",
    counts=True,
    features=("sum", "twins"),
    program="""
    L insert 1 n=0
    start left
    drain
    L update 1 n=1
    twin
    L>R
    R update 1 n=5
    twin L>R
""",
)
def position_not_compared(patch: pytest.MonkeyPatch) -> None:
    """Two engines do not notice one another."""
    patch.setattr(Flow, "_check_alone", lambda _self, _transaction: None)


@defect(
    "position in a second transaction",
    counts=True,
    features=("sum",),
    program="""
    L insert 1 n=0
    start left
    drain
    L update 1 n=1
    R update 1 n=4
    crash after commit
    L>R
    L>R
""",
)
def position_in_a_second_transaction(patch: pytest.MonkeyPatch) -> None:
    """Rows are committed first, the position after them."""
    end = Flow._end

    def twice(self: Flow, transaction: Any, ledger: Any, position: Position | None) -> None:
        end(self, transaction, ledger, None)
        if position is not None:
            with self._to.connector.transaction(self.stream) as second:
                second.commit(position)
            self.committed = position

    patch.setattr(Flow, "_end", twice)


@defect(
    "journal entries of commits that never were",
    counts=True,
    features=("refusals", "sum"),
    program="""
    L insert 1 n=0
    start left
    drain
    block R 1
    L update 1 n=1
    R update 1 n=4
    crash before commit
    L>R
    unblock
    L>R
""",
)
def journal_not_settled(patch: pytest.MonkeyPatch) -> None:
    """What was written to the journal for a commit that did not come counts all the same."""
    patch.setattr(Engine, "_settle_journal", lambda self: None)


@defect(
    "coalescing forgets the first change",
    program=BOTH
    + """
    L update 1 a=1
    L update 1 b=1
    L>R
""",
)
def last_change_only(patch: pytest.MonkeyPatch) -> None:
    """Of several changes of a record only the last one is written."""
    patch.setattr(Plan, "merged", lambda self: self.changes[-1])


@defect(
    "echo comes back",
    policies=("right", "right"),
    program=BOTH
    + """
    L update 1 a=1
    L>R
    L update 1 a=2
    L>R
""",
)
def echo_comes_back(patch: pytest.MonkeyPatch) -> None:
    """What we wrote ourselves comes out of the feed as if users had done it."""
    wrote = log.Ledger.wrote

    def remembering(self: Any, world: Any, spot: Any, old: Any, new: Any) -> None:
        wrote(self, world, spot, old, new)
        self._suspects[spot] = None

    def earlier(self: Any, spot: Any, _world: Any) -> Any:
        return self._capture.image(spot, self._start[spot[0]].records.get(spot[1]), self._start)

    patch.setattr(log.Ledger, "wrote", remembering)
    patch.setattr(log.Ledger, "_wanted", earlier)


@defect(
    "initial sync never applied",
    program="""
    L insert 1 a=2
    start left
""",
)
def nothing_applied(patch: pytest.MonkeyPatch) -> None:
    """An initial sync compares, and writes nothing."""
    patch.setattr(initial.Spool, "chunks", lambda self, size: iter(()))


@defect(
    "one-way columns stay overwritten",
    ways=(Line("c", ">", "c"), Line("d", "<", "d")),
    features=("to the right", "to the left"),
    program="""
    L insert 1 c=3
    R insert 1 d=3
    start left
    drain
    R update 1 c=1
    L update 1 d=2
""",
)
def one_way_stays_overwritten(patch: pytest.MonkeyPatch) -> None:
    """What users write into a column that belongs to the other side is left there."""
    patch.setattr(Restorer, "run", lambda self: self._to.restore.clear())


# -- one side alone ----------------------------------------------------------------------------------------------------


@defect(
    "alone, a side is heard from its end on",
    features=("pauses",),
    program="""
    L insert 1
    start left
    drain
    L update 1 a=3
    alone L 2 pause
    resume
""",
)
def alone_from_the_end(patch: pytest.MonkeyPatch) -> None:
    """What users did before the other side went away is not put into the queue of a paused map."""
    listen = Alone._listen

    def late(self: Alone, *arguments: Any) -> Flow:
        flow = listen(self, *arguments)
        assert flow._feed is not None
        flow._feed.read(10_000, 0)
        return flow

    patch.setattr(Alone, "_listen", late)


@defect(
    "what was received before the side was alone waits",
    policies=("left", "left"),
    features=("pauses",),
    program="""
    L insert 1
    start left
    drain
    L update 1 a=3
    L>R 99
    alone L 2 pause
    R update 1 a=1
    resume
""",
)
def received_waits(patch: pytest.MonkeyPatch) -> None:
    """What the queue holds for its windows alone is carried once more."""
    patch.setattr(Backlog, "pass_received", lambda self: None)


# -- the tests ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DEFECTS)
def test_program_is_sound_without_the_defect(name: str) -> None:
    """The programs below show defects, not mistakes of the oracle."""
    broken = DEFECTS[name]
    assert run(broken.design, broken.lines) == []


@pytest.mark.parametrize("name", DEFECTS)
def test_defect_shows_in_its_program(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the rule broken the oracle finds fault with the program."""
    broken = DEFECTS[name]
    broken.patch(monkeypatch)
    assert run(broken.design, broken.lines)


@pytest.mark.soak
@pytest.mark.parametrize("name", [name for name, broken in DEFECTS.items() if broken.sought])
def test_defect_is_found_at_random(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random programs reach the rule: among a bounded number of them is one that shows it broken."""
    broken = DEFECTS[name]
    broken.patch(monkeypatch)
    for number in range(RANDOM_PROGRAMS):
        chance = Chance(Random(number), USUAL, needed=broken.features)
        if run(chance.design, chance.program()):
            return
    pytest.fail(f"{RANDOM_PROGRAMS} random programs do not show that the rule is broken")
