"""An initial sync that is killed goes on where it was, and edits made meanwhile are merged as if it had never been."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from dualwrite.connectors import memory
from dualwrite.connectors.memory import MemoryDatabase, MemorySnapshot, MemoryTransaction, User
from dualwrite.engine import agreeing, flow, initial, pile
from dualwrite.engine.commands import execute
from dualwrite.engine.compare import Tally
from dualwrite.engine.initial import InitialSync
from dualwrite.engine.link import RESTORE
from dualwrite.engine.resuming import Rest, originals
from dualwrite.engine.spool import Spool, Weak
from dualwrite.engine.supervisor import Engine
from dualwrite.engine.verify import verify
from dualwrite.journal import SyncRun
from dualwrite.mapping.compile import compile_map
from dualwrite.mapping.notation import read_map
from dualwrite.model import Kind, Outcome, Row, Side, Value, Write
from dualwrite.schema import Schema, Table, View

from .test_engine_stories import GROUP_MAP, ITEM_MAP, Crash, Story, text

L, R = Side.LEFT, Side.RIGHT
ROWS = 6


class Resumed(Story):
    """A story whose initial syncs keep what they have found."""

    def __init__(self, folder: Path, *maps: str) -> None:
        self.folder = folder
        super().__init__(*(maps or (ITEM_MAP,)))

    def new_engine(self) -> Engine:
        """As ever, with a folder."""
        engine = super().new_engine()
        engine.syncs.folder = self.folder
        return engine

    def crash(self, point: str) -> None:
        """Start, and die at a point."""
        self.crash_at = point
        with suppress(Crash):
            self.start(drain=False)
        assert not self.crash_at, "the engine passes this point"

    def crash_at_nth(self, point: str, nth: int) -> int:
        """Start, and die when a point is passed for the n-th time; returns how often it was, which may be less."""
        passed = 0

        def again() -> None:
            nonlocal passed
            passed += 1
            if passed < nth:
                self.at_point[point] = again
            else:
                self.crash_at = point

        self.at_point[point] = again
        with suppress(Crash):
            self.start(drain=False)
        return passed

    def run(self) -> SyncRun:
        """The last initial sync."""
        return self.journal.syncs.list()[0]

    def counted(self) -> dict[Side, tuple[int, ...]]:
        """What it did: read, inserted, updated, unchanged, failed."""
        return {
            count.side: (count.read, count.inserted, count.updated, count.unchanged, count.failed)
            for count in self.run().counts
        }


@pytest.fixture
def story(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Resumed:
    """Six records on the left, one of them and two more on the right; they are carried two at a time."""
    monkeypatch.setattr(flow, "LOADED", 2)
    monkeypatch.setattr(flow.Flow, "weak_limit", property(lambda _: 2))
    told = Resumed(tmp_path)
    for number in range(ROWS):
        told.insert(L, code=str(number), name=f"left {number}", amount="1")
    told.insert(R, code="0", name="right 0")
    told.insert(R, code="x", name="right x")
    told.insert(R, code="long", note="n", name="right long")
    return told


@pytest.fixture
def streaming(story: Resumed, monkeypatch: pytest.MonkeyPatch) -> Resumed:
    """The right side is empty, and may be written to while the left one is read: what that holds is carried as it is
    read."""
    monkeypatch.setattr(InitialSync, "_may_stream", lambda *_: True)
    for code in ("0", "x", "long"):
        story.delete(R, code)
    return story


@pytest.mark.parametrize("edits", [False, True])
def test_what_comes_back_is_let_go_meanwhile(streaming: Resumed, monkeypatch: pytest.MonkeyPatch, edits: bool) -> None:
    """The target need not keep until the end what is written to it; but what its users do is carried behind it."""
    story, kept = streaming, list[int]()
    monkeypatch.setattr(initial, "LET_GO_EVERY", 0.0)

    def look() -> None:
        kept.append(story.engine.connectors[R].retained())
        if edits and len(kept) == 1:
            story.insert(R, code="y", name="right y")
        story.at_point["between chunks"] = look

    story.at_point["between chunks"] = look
    story.start()
    assert len(kept) >= 3
    assert (kept[-1] > kept[0]) is edits
    assert ("y" in {code for (code,) in story.rows(L, "code")}) is edits
    assert len(story.rows(L, "code")) == len(story.rows(R, "code")) == ROWS + edits


def test_the_next_chunk_is_made_ready_while_one_is_carried(streaming: Resumed, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is on disk before the one that is carried is committed."""
    story = streaming
    passing, carry, second = Spool.passing, flow.Flow.carry_weak, threading.Event()
    met = list[bool]()

    def told(spool: Spool, rows: Sequence[Row]) -> Weak:
        weak = passing(spool, rows)
        if weak.start > 1:
            second.set()
        return weak

    def carried(mine: flow.Flow, weak: Weak) -> None:
        if weak.start == 1:
            story.at_point["before commit"] = lambda: met.append(second.wait(20))
        carry(mine, weak)

    monkeypatch.setattr(Spool, "passing", told)
    monkeypatch.setattr(flow.Flow, "carry_weak", carried)
    story.start()
    assert met == [True]
    assert len(story.rows(R, "code")) == ROWS


@pytest.mark.parametrize("kills", [0, 1, 2])
def test_what_was_read_ahead_of_a_kill_counts_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kills: int) -> None:
    """Where one side is empty, the run counts what it would have if it had never been killed: the detached ones too."""
    monkeypatch.setattr(InitialSync, "_may_stream", lambda *_: True)
    monkeypatch.setattr(flow.Flow, "weak_limit", property(lambda _: 1))
    monkeypatch.setattr(memory, "BLOCK", 2)
    story = Resumed(tmp_path, ITEM_MAP.replace("columns:", "filter: {right: \"code ne 'hidden'\"}\ncolumns:"))
    for code in ("hidden", "1", "2", "3"):
        story.insert(L, code=code, name=code)
    story.insert(R, code="hidden", name="hidden")
    for kill in range(kills):
        story.crash_at = "between chunks"
        with suppress(Crash):
            story.resume() if kill else story.start(drain=False)
        assert not story.crash_at, "it was killed"
    story.resume() if kills else story.start()
    assert story.run().resumed == kills
    assert story.counted() == {L: (4, 0, 0, 0, 0), R: (0, 3, 0, 0, 0)}
    assert [count.detached for count in story.run().counts] == [0, 1]


POINTS = (
    "after map",
    "before journal",
    "before commit",
    "after commit",
    "between chunks",
    "all carried",
    "between passes",
)
COUNTS = {L: (6, 2, 0, 0, 0), R: (3, 5, 1, 0, 0)}


@pytest.mark.parametrize("nth", [1, 2, 3, 5])
@pytest.mark.parametrize("point", POINTS)
def test_wherever_it_is_killed_it_goes_on(story: Resumed, point: str, nth: int) -> None:
    """The same run in the journal, with the same counts; edits of both sides made meanwhile are all there."""
    both = edited_while_dead(story, point, nth)
    assert both["0"] == "left 0"
    assert story.counted() == COUNTS


@pytest.mark.parametrize("nth", [1, 2, 3])
@pytest.mark.parametrize("point", POINTS)
def test_wherever_one_is_killed_that_carries_as_it_reads_it_goes_on(streaming: Resumed, point: str, nth: int) -> None:
    """The same into an empty side, where chunks that are ready may not have been carried."""
    edited_while_dead(streaming, point, nth)
    assert streaming.counted() == {L: (ROWS, 0, 0, 0, 0), R: (0, ROWS, 0, 0, 0)}


def edited_while_dead(story: Resumed, point: str, nth: int) -> dict[str | None, str | None]:
    """Killed when it passes a point for the n-th time, edited on both sides, and gone on with; what both hold then."""
    seen = story.crash_at_nth(point, nth)
    is_killed = seen == nth
    if is_killed:  # else it has fewer points than that
        known = {row[0] for row in story.rows(R, "code")}
        for code in ("1", "3", "5"):
            if code in known:
                story.update(R, code, name=f"edited {code}")
        story.update(L, "2", amount="5")
        story.delete(L, "4")
        story.insert(R, code="new", name="new")
        story.resume()
    else:
        story.drain()
    both = dict(story.both("code", "name"))
    if is_killed:
        assert "4" not in both
        assert both["new"] == "new"
        assert {both[code] for code in ("1", "3", "5") if code in known} == {
            f"edited {code}" for code in ("1", "3", "5") if code in known
        }
        assert ("2", "5") in story.both("code", "amount")
    assert story.run().outcome == "done"
    assert [run.why for run in story.journal.syncs.list()] == ["start"]
    assert not list(story.folder.iterdir())
    assert not story.conflicts()
    story.at_rest()
    return both


@pytest.fixture
def owning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Resumed:
    """Names belong to the right side: of six records on the left, it has two, with other names."""
    monkeypatch.setattr(flow, "LOADED", 2)
    monkeypatch.setattr(flow.Flow, "weak_limit", property(lambda _: 2))
    monkeypatch.setattr(initial, "BLOCK", 2)
    monkeypatch.setattr(pile, "BLOCK", 2)
    told = Resumed(tmp_path, ITEM_MAP.replace("name = name", "name < name"))
    for number in range(ROWS):
        told.insert(L, code=str(number), name=f"left {number}", note="n" if number else "left", amount="1")
    for number in range(2):
        told.insert(R, code=str(number), name=f"right {number}", note="n")
    told.databases[R].trigger("products", filling)
    return told


def filling(user: User, kind: object, _old: object, new: Mapping[str, Value] | None) -> None:
    """What the right side does: it names a record that comes without a name, but for one."""
    if kind is Kind.INSERT and new is not None and new["name"] is None and new["code"] != "2":
        user.update("products", {"code": new["code"]}, {"name": f"filled {new['code']}"})


OWNED = {
    ("0", "right 0"),
    ("1", "right 1"),
    ("2", None),
    *((str(number), f"filled {number}") for number in range(3, ROWS)),
}


@pytest.mark.parametrize("nth", [1, 2, 3])
@pytest.mark.parametrize("point", [*POINTS, "between restores", "inside restore"])
def test_wherever_it_is_killed_one_way_columns_are_as_their_owner_has_them(
    owning: Resumed, point: str, nth: int
) -> None:
    """Those that differed, and those of records that the owner's side has got, and has filled or not."""
    owning.crash_at_nth(point, nth)
    owning.resume()
    assert owning.both("code", "name") == OWNED
    assert owning.counted()[L] == (ROWS, 0, ROWS, 0, 0)
    assert not list(owning.folder.iterdir())
    owning.at_rest()


def test_restoring_keeps_nothing_per_record(owning: Resumed) -> None:
    """However many one-way columns an initial sync restores, neither memory nor a side's own table knows of more than
    those at hand."""
    points, most = ("between chunks", "between restores", "all carried"), 0

    def look() -> None:
        nonlocal most
        owning.at_point.update(dict.fromkeys(points, look))
        state = owning.engine.link.sides[R]
        kept = [entry for entry in state.connector.remembered(RESTORE) if entry.until is None]
        done = owning.engine.flows[L].restorer.done
        most = max(most, len(state.restore) + len(done), len(kept))

    owning.at_point.update(dict.fromkeys(points, look))
    owning.start()
    assert owning.both("code", "name") == OWNED
    assert most <= 2


@pytest.mark.parametrize("share", [50, 90])
def test_it_costs_what_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: int) -> None:
    """Killed at a half or at nine tenths, it compares nothing anew and writes nothing twice, on either side."""
    monkeypatch.setattr(flow, "LOADED", 2)
    monkeypatch.setattr(flow.Flow, "weak_limit", property(lambda _: 2))
    story = Resumed(tmp_path)
    for number in range(60):
        story.insert(L, code=str(number), name=f"left {number}", note="n", amount="1")
    for number in range(40):  # so that both sides are compared, and nothing is carried while it is read
        story.insert(R, code=str(number), name=f"left {number}", note="n", amount="1")
    for number in range(40, 60, 2):
        story.insert(R, code=str(number), name="other", note="n", amount="1")
    cost: Counter[str] = Counter()
    snapshot_blocks, write = MemorySnapshot.blocks, MemoryTransaction.write

    def blocks(self: MemorySnapshot) -> Iterator[list[Row]]:
        for rows in snapshot_blocks(self):
            cost["read"] += len(rows)
            yield rows

    def written(self: MemoryTransaction, view: View, writes: Sequence[Write]) -> list[Outcome]:
        cost["written"] += len(writes)
        return write(self, view, writes)

    monkeypatch.setattr(MemorySnapshot, "blocks", blocks)
    monkeypatch.setattr(MemoryTransaction, "write", written)
    carried = 0

    def chunk_done() -> None:
        nonlocal carried
        carried += 2
        if carried < 20 * share // 100:
            story.at_point["between chunks"] = chunk_done
        else:
            story.crash_at = "between chunks"

    story.at_point["between chunks"] = chunk_done
    with suppress(Crash):
        story.start(drain=False)
    assert not story.crash_at, "it was killed"
    assert cost == {"read": 110, "written": 20 * share // 100}
    cost.clear()
    story.resume()
    assert cost == {"written": 20 - 20 * share // 100}
    assert story.run().resumed == 1
    assert {row[1] for row in story.both("code", "name")} == {f"left {number}" for number in range(60)}
    story.at_rest()


def test_what_was_parked_before_the_crash_is_parked_once(story: Resumed) -> None:
    """A row that failed waits with its reason after the crash too, and counts as failed."""
    story.update(L, "1", note="x" * 10)
    story.insert(L, code="bad", tag="t")
    story.insert(R, code="other", tag="t")
    story.crash("all carried")
    before = [(entry.key, entry.changes) for entry in story.parked()]
    assert len(before) == 2
    story.resume()
    assert [(entry.key, entry.changes) for entry in story.parked()] == before
    assert [count.failed for count in story.run().counts] == [1, 1]
    assert story.run().resumed == 1


@pytest.mark.parametrize("nth", range(1, 6))
def test_many_that_cannot_be_told_apart_are_parked_a_few_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nth: int
) -> None:
    """Killed between them, each is parked once all the same: also where several without a key have the same."""
    monkeypatch.setattr(initial, "BLOCK", 1)
    monkeypatch.setattr(pile, "BLOCK", 2)
    schema = Schema({"plain": Table("plain", (text("code"), text("name")))})
    story = Resumed(tmp_path)
    story.databases = {side: MemoryDatabase(schema, f"plain {side}") for side in Side}
    lines = "map: Plain\nleft: plain\nright: plain\nkey: [code]\ncolumns:\n  - code = code\n  - name = name"
    story.maps = [compile_map(read_map(lines, "map.yaml"), schema, schema)]
    codes = ("1", None, "2", "1", "2", None, "3", "3", "fine", None)
    for number, code in enumerate(codes):
        story.insert(L, "plain", code=code, name=str(number))
    parks = story.crash_at_nth("before commit", nth)
    story.resume()
    assert {(entry.key, entry.code, entry.changes) for entry in story.parked()} == {
        ('["1"]', "duplicate_key", 2),
        ('["2"]', "duplicate_key", 2),
        ('["3"]', "duplicate_key", 2),
        ("[null]", "empty_key", 3),
    }
    assert story.rows(R, "code", where="plain") == {("fine",)}
    assert parks == min(nth, 4)  # the one that is fine, two blocks, and those without a key


def test_a_changed_map_begins_anew(story: Resumed) -> None:
    """What was found is of no use for another map; the run that was cut short says so."""
    story.crash("between chunks")
    story.maps = Story(ITEM_MAP.replace("  - tag = tag\n", "")).maps
    story.resume()
    assert [run.outcome for run in story.journal.syncs.list()] == ["done", "interrupted"]
    assert len(story.both("code", "name")) == ROWS + 2


def test_files_that_are_damaged_are_not_used(story: Resumed) -> None:
    """After a power failure the files may lack what the other system has: all is compared again."""
    story.crash("between chunks")
    for file in story.folder.glob("*-left.rows"):
        file.write_bytes(file.read_bytes()[:-1])
    story.resume()
    assert [run.outcome for run in story.journal.syncs.list()] == ["done", "interrupted"]
    assert len(story.both("code", "name")) == ROWS + 2


def test_an_interrupted_map_that_is_stopped_keeps_nothing(story: Resumed) -> None:
    """Its next start compares both sides."""
    story.crash("between chunks")
    story.journal.set_state("Items", desired="stopped")
    story.resume()
    assert not list(story.folder.iterdir())
    story.journal.set_state("Items", desired="running", initial="none")
    story.engine.reconcile()
    story.drain()
    assert len(story.both("code", "name")) == ROWS + 2


def test_the_other_maps_go_on_behind_it(tmp_path: Path) -> None:
    """The initial sync that was interrupted comes first, then those that have not begun."""
    story = Resumed(tmp_path, GROUP_MAP, ITEM_MAP)
    story.insert(L, "groups", code="g", name="group")
    for number in range(3):
        story.insert(L, code=str(number), name="left")
    story.crash("between chunks")
    story.insert(R, "families", code="h", name="family")
    story.resume()
    assert story.rows(L, "code", where="groups") == {("g",), ("h",)}
    assert len(story.both("code")) == 3
    assert [(run.map, run.outcome) for run in story.journal.syncs.list()] == [("Items", "done"), ("Groups", "done")]
    story.at_rest()


def test_a_side_is_taken_back_to_what_it_was(tmp_path: Path) -> None:
    """What users did since the boundary is undone in what is read anew, and what was read before is left out."""
    story = Story(ITEM_MAP)
    for number in range(8):
        story.insert(L, code=str(number), name=f"name {number}")
    story.start()
    (compiled,) = story.maps
    view, connector = compiled.views[L], story.engine.connectors[L]
    with connector.snapshot(view) as snapshot:
        boundary = snapshot.boundary
        was = sorted(row for block in snapshot.blocks() for row in block)
    with (tmp_path / "rows").open("w+b") as file:
        spool = Spool(compiled, L, file)
        spool.add(was[:3], insert=True)
        spool.seal(boundary, boundary)
        spool.recover()
        story.update(L, "1", name="changed")
        story.update(L, "6", name="changed")
        story.update(L, "6", name="twice")
        story.update(L, "7", code="seven")
        story.delete(L, "4")
        story.insert(L, code="4", name="again")
        story.insert(L, code="9", name="new")
        story.delete(L, "5")
        with connector.snapshot(view) as snapshot:
            before = originals(connector, view, boundary, snapshot.boundary)
            tally = Tally()
            found = sorted(row for block in Rest(snapshot, before, spool, view, tally).blocks() for row in block)
    assert found == was[3:]
    assert tally.read[L] == 3


# -- once more, on a map that runs -------------------------------------------------------------------------------------


def past_the_capture(story: Story, side: Side, code: str, /, **values: str | None) -> None:
    """Change a record with nobody told."""
    table = story.databases[side].tables["items" if side is L else "products"]
    (number,) = table.find(("code",), (code,))
    table.put(number, {**table.records[number], **values})


def test_a_sync_done_again_leaves_to_the_flows_what_is_on_its_way(story: Resumed) -> None:
    """What differs is taken from the master, but what users have just written is carried to both sides."""
    story.start()
    for code in ("1", "3"):
        past_the_capture(story, R, code, name="past")
    story.update(R, "2", name="just now")
    story.insert(R, code="newer", name="newer")
    story.delete(L, "5")
    outcome = story.engine.syncs.again(story.maps[0], L, "again")
    both = dict(story.both("code", "name"))
    assert (both["1"], both["2"], both["3"], both["newer"]) == ("left 1", "just now", "left 3", "newer")
    assert "5" not in both
    assert outcome.changed == {L: 0, R: 2}
    story.at_rest()


@pytest.mark.parametrize("finds", [True, False])
def test_records_agree_some_at_a_time(story: Resumed, monkeypatch: pytest.MonkeyPatch, finds: bool) -> None:
    """What users do between two portions counts, and all of them are one initial sync."""
    monkeypatch.setattr(agreeing, "IN_A_PART", 2)
    story.insert(L, code="6", name="left 6")
    story.start()
    codes = "123456"
    for code in codes:
        past_the_capture(story, R, code, name="past")
    past_the_capture(story, R, codes[0], code="elsewhere")
    report = verify(story.maps[0], story.engine.connectors) if finds else None
    parts: list[int] = []

    def do(command: str, arguments: Mapping[str, object]) -> Mapping[str, object]:
        answer = execute(story.engine, command, json.loads(json.dumps(arguments)))
        if command == agreeing.AGREE:
            parts.append(len(arguments["keys"]["left"]))  # type: ignore[index]
            if len(parts) == 1:
                story.update(R, codes[-1], note="theirs")
                story.update(L, codes[-2], note="mine")
        return answer

    id, done = agreeing.agree(story.journal, story.engine.connectors, story.maps[0], L, "repair", do, report=report)
    assert len(parts) >= 4
    assert (done.created, done.changed[L]) == ({L: 1, R: 1}, 0)
    both = {code: (name, note) for code, name, note in story.both("code", "name", "note")}
    assert both[codes[-1]][1] == "theirs"
    assert both[codes[-2]] == ("left 5", "mine")
    assert [both[code][0] for code in codes[:4]] == [f"left {code}" for code in codes[:4]]
    (run,) = story.journal.syncs.list(limit=1)
    assert (run.id, run.why, run.outcome) == (id, "repair", "done")
    assert sum(count.inserted for count in run.counts) == 2
    assert sum(count.updated for count in run.counts if count.side is R) == done.changed[R]
    story.at_rest()
