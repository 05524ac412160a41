"""A small world in which the real ``fold`` is judged: two sides, one record, users, flows, a person, an initial sync.

Each side has the record and a log in commit order.  An entry of a log is an ``Edit`` of its users or a marker: the
number of the other side's entries that our transaction at this place brought this side to.  Carrying is one atomic
step.  ``Model`` makes every step that is possible in a ``World``; ``explore`` goes through all of them breadth first,
``wander`` through long random ones, and ``faults`` says what is wrong once everything has come to rest.  The world's
own rules (reading the window, tagging, retaining …) can be switched off one by one with ``Setup.without``; the product
has no such switch.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from dualwrite.engine.contest import Alarm, Decision, Folded, Hidden, Loss, Operation, Rules, Window, fold
from dualwrite.mapping.units import Unit
from dualwrite.model import ABSENT, Change, Kind, Position, Row, Side

LEFT, RIGHT = 0, 1
SIDES = (Side.LEFT, Side.RIGHT)
ONE_WAY = {"to right": LEFT, "to left": RIGHT}
WEAK_TIME = -9999


class Edit(NamedTuple):
    """A change by the users of a side, at ``place`` in its log; it had seen ``seen`` entries of the other log."""

    side: int
    place: int
    kind: str
    before: tuple | None
    after: tuple | None
    at: int
    seen: int
    weak: bool = False

    def __str__(self) -> str:
        weak = "weak " if self.weak else ""
        return f"{weak}{self.kind} {self.before} -> {self.after} t={self.at} seen={self.seen}"


class World(NamedTuple):
    """Everything that two databases and a journal hold, as one value.

    ``carried[t]`` is how much of the other log side t contains, ``hidden[t]`` the row under its delete with the length
    of its log then, ``parked[t]`` the operations that wait there, ``read[t]`` how far its log has been read.
    """

    rows: tuple
    logs: tuple = ((), ())
    carried: tuple = (0, 0)
    hidden: tuple = (None, None)
    parked: tuple = ((), ())
    decisions: tuple = ()
    lost: frozenset = frozenset()
    edits: int = 0
    refuses: bool = False
    snapshots: tuple = ()
    bounds: tuple = (0, 0)
    read: tuple = (0, 0)


@dataclass(frozen=True)
class Setup:
    """What a world allows.  ``columns`` are policies, or ``to right``/``to left`` for one-way columns."""

    columns: tuple[str, ...] = ("newest", "newest")
    rows: str = "keep"
    start: tuple | None = ("0", "0")
    other: tuple | str | None = "same"  # the right side's row, where it begins different
    values: tuple[tuple, ...] = (("1", "2"), ("1",))  # what an update writes; for a sum: what it adds
    inserts: tuple[tuple, ...] = (("1", None), ("2", "1"))
    kinds: tuple[str, ...] = ("update", "insert", "delete")
    clock: str = "true"
    edits: int = 3
    batches: tuple[int, ...] = (1, 99)
    refuses: bool = False  # the right side rejects every write at first
    decides: bool = False  # a person decides manual conflicts
    master: int | None = None  # an initial sync comes first
    fresh: bool = False  # every update writes a new value
    without: frozenset[str] = frozenset()


CLOCKS: dict[str, Callable[[int, int], int]] = {
    "true": lambda count, _: count,
    "tie": lambda *_: 0,
    "right ahead": lambda count, side: count + 100 * side,
    "left ahead": lambda count, side: count + 100 * (1 - side),
    "backwards": lambda count, _: -count,
}


class ImpossibleError(Exception):
    """A state that the rules exclude."""


def swap(pair: tuple, index: int, value: object) -> tuple:
    """The pair with one member replaced."""
    return (value, pair[1]) if index == LEFT else (pair[0], value)


def number(cell: str | None) -> int:
    """A counter's cell; null counts as nothing."""
    return int(cell or 0)


def wrote(edit: Edit, column: int) -> bool:
    """Did the edit write the column?"""
    if edit.kind == "insert":
        return True
    return edit.kind == "update" and edit.before[column] != edit.after[column]


def saw(later: Edit, earlier: Edit) -> bool:
    """Was the earlier edit known at the later one's side when that was made?"""
    return earlier.place < (later.place if later.side == earlier.side else later.seen)


@dataclass
class Model:
    """The steps of a world under one setup."""

    setup: Setup
    _folds: dict = field(default_factory=dict)
    _changes: dict = field(default_factory=dict)
    _operations: dict = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.on = {rule: rule not in self.setup.without for rule in RULES}
        self.units = tuple(
            Unit(
                f"column{index}",
                (index,),
                SIDES[ONE_WAY[policy]] if policy in ONE_WAY else None,
                "newest" if policy in ONE_WAY else policy,
                "number" if policy in ("sum", "max", "min") else "text",
            )
            for index, policy in enumerate(self.setup.columns)
        )
        self.rules = tuple(Rules(side, self.units, self.setup.rows, lambda _, value: value) for side in SIDES)

    def begin(self) -> World:
        """The world before anything has happened."""
        setup = self.setup
        other = setup.start if setup.other == "same" else setup.other
        return World((setup.start, other), refuses=setup.refuses, snapshots=() if setup.master is not None else (0, 0))

    def edits(self, world: World) -> Iterator[tuple[int, str, tuple | None]]:
        """Every edit that a user may make now: side, kind, the row after it."""
        if world.edits >= self.setup.edits:
            return
        for side in (LEFT, RIGHT):
            row = world.rows[side]
            if row is None:
                if "insert" in self.setup.kinds:
                    yield from ((side, "insert", new) for new in self.setup.inserts)
                continue
            if "update" in self.setup.kinds:
                yield from ((side, "update", new) for new in self._updates(world, row))
            if "delete" in self.setup.kinds:
                yield side, "delete", None

    def _updates(self, world: World, row: tuple) -> Iterator[tuple]:
        for column, values in enumerate(self.setup.values):
            for value in (str(world.edits + 1),) if self.setup.fresh else values:
                if self.setup.columns[column] == "sum" and value is not None:
                    value = str(number(row[column]) + number(value))
                if value != row[column]:
                    yield (*row[:column], value, *row[column + 1 :])

    def edit(self, world: World, side: int, kind: str, after: tuple | None, at: int | None = None) -> World:
        """A user's edit."""
        time = CLOCKS[self.setup.clock](world.edits, side) if at is None else at
        log = world.logs[side]
        made = Edit(side, len(log), kind, world.rows[side], after, time, self._seen(world, side))
        return world._replace(
            rows=swap(world.rows, side, after), logs=swap(world.logs, side, (*log, made)), edits=world.edits + 1
        )

    def _seen(self, world: World, side: int) -> int:
        """What an edit of this side, made now, will have seen of the other: R1 and R2."""
        log = world.logs[side]
        if world.parked[side] and self.on["parked is not seen"]:
            return world.parked[side][0].place
        if not self.on["marker inside"] and log and isinstance(log[-1], int):
            return max((entry for entry in log[:-1] if isinstance(entry, int)), default=0)
        return world.carried[side]

    def snapshot(self, world: World) -> World:
        """Read the next side's record; after the second, what differs becomes a weak edit at its side's boundary."""
        side = len(world.snapshots)
        place = len(world.logs[side])
        world = world._replace(
            snapshots=(*world.snapshots, world.rows[side]),
            bounds=swap(world.bounds, side, place),
            carried=swap(world.carried, 1 - side, place),
            logs=swap(world.logs, side, (*world.logs[side], None)),
        )
        return world if side == LEFT else self._compared(world)

    def _compared(self, world: World) -> World:
        left, right = world.snapshots
        if left == right:
            return world
        side = (LEFT if right is None else RIGHT) if left is None or right is None else self.setup.master
        mine, theirs = (left, right) if side == LEFT else (right, left)
        log, place = world.logs[side], world.bounds[side]
        if not self.on["weak comes first"]:
            place = len(log)
        kind = "insert" if theirs is None else "update"
        weak = Edit(side, place, kind, theirs, mine, WEAK_TIME, world.bounds[1 - side], weak=True)
        return world._replace(logs=swap(world.logs, side, (*log[:place], weak, *log[place + 1 :])))

    def carry(self, world: World, target: int, count: int) -> World | None:
        """Carry the next edits into a side, in one transaction with the position; None when only echoes wait."""
        if len(world.snapshots) < 2:
            return None
        source, end, taken = world.logs[1 - target], 0, []
        for place in range(world.carried[target], len(source)):
            if len(taken) == count:
                break
            if isinstance(source[place], Edit):
                taken.append(source[place])
                end = place + 1
            elif source[place] is None:
                end = place + 1
        if not end:
            return None
        for edit in taken:
            world = self._take(world, target, edit)
            if world is None:
                return None
        return world._replace(
            carried=swap(world.carried, target, end),
            logs=swap(world.logs, target, (*world.logs[target], end)),
        )

    def retry(self, world: World, target: int) -> World | None:
        """Take what is parked again, in order; None when nothing came of it."""
        queue = world.parked[target]
        again = world._replace(parked=swap(world.parked, target, ()))
        for edit in queue:
            again = self._take(again, target, edit)
        if again.parked[target] == queue:
            return None
        return again._replace(logs=swap(again.logs, target, (*again.logs[target], again.carried[target])))

    def _take(self, world: World, target: int, edit: Edit) -> World | None:
        """One operation, or behind the parked one; None when the row shows an edit that is still unread (no R4)."""
        waiting = world.parked[target]
        if waiting or (target == RIGHT and world.refuses):
            return world._replace(parked=swap(world.parked, target, (*waiting, edit)))
        window = self._window(world, target, edit)
        row = world.rows[target]
        if not self._expected(edit, row, window):
            if not self.on["barrier"]:
                return None
            raise ImpossibleError(f"nothing unseen, yet {row} is not the before of {edit}")
        result = self._fold(world, target, edit, window)
        if result is None:
            return world._replace(parked=swap(world.parked, target, (edit,)))
        row, hidden, lost = result
        return world._replace(
            rows=swap(world.rows, target, row),
            hidden=swap(world.hidden, target, hidden),
            lost=world.lost | lost,
        )

    def _window(self, world: World, target: int, edit: Edit) -> tuple[Edit, ...]:
        """The target's own edits that this one had not seen: R3, R4."""
        first, end = max(edit.seen, world.bounds[target]), len(world.logs[target])
        if not self.on["barrier"]:
            end = world.read[target]
        if not self.on["retain"]:
            first = max(first, world.carried[1 - target])
        return tuple(entry for entry in world.logs[target][first:end] if isinstance(entry, Edit))

    def _expected(self, edit: Edit, row: tuple | None, window: tuple[Edit, ...]) -> bool:
        """The theorem of R5: with nothing unseen, the target holds the row before the edit, where that is two-way.

        Without the barrier this is asked of columns that no known own edit wrote: there an unknown one shows itself.
        """
        if not self.on["barrier"]:
            return (
                row is None
                or edit.before is None
                or all(
                    row[column] in (edit.before[column], edit.after[column])
                    for column in range(len(row))
                    if edit.after is not None and wrote(edit, column) and not any(wrote(own, column) for own in window)
                )
            )
        if window or self.setup.without:
            return True
        if row is None or edit.before is None:
            return row is edit.before
        return all(
            row[column] == edit.before[column]
            for column, policy in enumerate(self.setup.columns)
            if policy not in ONE_WAY and (edit.kind != "update" or wrote(edit, column))
        )

    def _fold(self, world: World, target: int, edit: Edit, window: tuple[Edit, ...]) -> tuple | None:
        """What the real fold makes of it: row, hidden, losses; None when a person has to decide."""
        hidden = world.hidden[target] if self.on["hidden row"] else None
        asked = (target, edit, world.rows[target], hidden, window, len(world.logs[target]), world.decisions)
        if asked not in self._folds:
            self._folds[asked] = self._answer(*asked)
        answer = self._folds[asked]
        if isinstance(answer, str):
            raise ImpossibleError(answer)
        return answer

    def _answer(
        self, target: int, edit: Edit, row: tuple | None, hidden: tuple | None, window: tuple, end: int, words: tuple
    ) -> tuple | str | None:
        result = fold(
            self._operation(edit, target),
            row,
            None if hidden is None else Hidden(hidden[0], position(target, hidden[1])),
            Window([self._change(own) for own in window]),
            self.rules[target],
            self._decisions(words),
            position(target, end),
        )
        if isinstance(result, Alarm):
            return f"{result.reason}: {edit}, window {window}"
        if not isinstance(result, Folded):
            return None
        lost = frozenset(self._lost(loss) for loss in result.losses)
        folded = self._unrestored(edit, row, result)
        under = result.hidden
        return (
            None if folded is None else tuple(None if cell is ABSENT else cell for cell in folded),
            None if under is None else (under.row, under.after.place[0]),
            lost,
        )

    def _unrestored(self, edit: Edit, row: tuple | None, result: Folded) -> Row | None:
        """With R6's last line switched off: where the operation lost a column, the row is left as it was."""
        if self.on["restore the winner"] or row is None or result.row is None:
            return result.row
        left = {loss.unit for loss in result.losses if loss.loser == position(edit.side, edit.place + 1)}
        return tuple(
            old if unit.name in left else new for unit, old, new in zip(self.units, row, result.row, strict=True)
        )

    def _lost(self, loss: Loss) -> tuple[int, int, str]:
        return SIDES.index(Side(loss.loser.feed)), loss.loser.place[0] - 1, loss.unit

    def _operation(self, edit: Edit, target: int) -> Operation:
        """The edit as it arrives: columns that are not carried this way are ABSENT."""
        key = (edit, target)
        if key not in self._operations:
            self._operations[key] = Operation(
                Kind(edit.kind),
                self._carried(edit.before, target),
                self._carried(edit.after, target),
                float(edit.at),
                position(edit.side, edit.place + 1),
                edit.weak,
            )
        return self._operations[key]

    def _carried(self, row: tuple | None, target: int) -> Row | None:
        if row is None:
            return None
        return tuple(
            ABSENT if ONE_WAY.get(policy) == target else cell
            for policy, cell in zip(self.setup.columns, row, strict=True)
        )

    def _change(self, edit: Edit) -> Change:
        if edit not in self._changes:
            self._changes[edit] = Change(
                "map",
                Kind(edit.kind),
                ("k",),
                edit.before,
                edit.after,
                float(edit.at),
                position(edit.side, edit.place + 1),
                weak=edit.weak,
            )
        return self._changes[edit]

    def undecided(self, world: World) -> list[int]:
        """Manual columns of parked operations that no decision covers entirely."""
        if not self.setup.decides or not (world.parked[LEFT] or world.parked[RIGHT]):
            return []
        return [c for c, policy in enumerate(self.setup.columns) if policy == "manual" and self._is_open(world, c)]

    def _is_open(self, world: World, column: int) -> bool:
        made = [covers for of, _, covers in world.decisions if of == column]
        if not made or (not self.on["first decision"] and len(made) < 2):
            return True
        return any(edit.place >= made[-1][edit.side] for edit in user_edits(world))

    def decide(self, world: World, column: int, winner: int) -> World:
        """A person looks at both sides as they are and says which one is right."""
        word = (column, winner, (len(world.logs[LEFT]), len(world.logs[RIGHT])))
        return world._replace(decisions=(*world.decisions, word))

    def _decisions(self, words: tuple) -> dict[str, list[Decision]]:
        decisions: dict[str, list[Decision]] = {}
        for column, winner, ends in words if self.on["first decision"] else reversed(words):
            covers = {SIDES[side]: position(side, ends[side]) for side in (LEFT, RIGHT)}
            decisions.setdefault(f"column{column}", []).append(Decision(SIDES[winner], covers))
        return decisions

    def steps(self, world: World) -> Iterator[tuple[str, World]]:
        """Everything that can happen next, with a word for it."""
        for side, kind, after in self.edits(world):
            yield f"{SIDES[side]} {kind} {after}", self.edit(world, side, kind, after)
        if len(world.snapshots) < 2:
            yield "snapshot", self.snapshot(world)
            return
        for target in (LEFT, RIGHT):
            for count in self.setup.batches:
                if (after := self.carry(world, target, count)) is not None:
                    yield f"carry {count} to {SIDES[target]}: {after.rows[target]}", after
            if world.parked[target] and (after := self.retry(world, target)) is not None:
                yield f"retry at {SIDES[target]}: {after.rows[target]}", after
        if world.refuses:
            yield "right accepts again", world._replace(refuses=False)
        if not self.on["barrier"]:
            yield from self._reads(world)
        for column in self.undecided(world):
            yield f"left wins column {column}", self.decide(world, column, LEFT)
            yield f"right wins column {column}", self.decide(world, column, RIGHT)

    def _reads(self, world: World) -> Iterator[tuple[str, World]]:
        for side in (LEFT, RIGHT):
            if world.read[side] < len(world.logs[side]):
                yield f"read {SIDES[side]}", world._replace(read=swap(world.read, side, len(world.logs[side])))

    def rests(self, world: World) -> bool:
        """Has everything been carried, with nothing parked?"""
        waits = world.refuses or len(world.snapshots) < 2 or world.parked[LEFT] or world.parked[RIGHT]
        unread = not self.on["barrier"] and any(world.read[side] < len(world.logs[side]) for side in (LEFT, RIGHT))
        return not waits and not unread and all(self.carry(world, side, 99) is None for side in (LEFT, RIGHT))

    def faults(self, world: World) -> list[str]:
        """What is wrong with a world at rest: sides that differ, edits lost without a word, wrong sums."""
        left, right = world.rows
        if (left is None) != (right is None):
            return [f"differs: left {left}, right {right}"]
        edits = user_edits(world)
        found = [] if left is None else [*self._differences(world), *self._wrong_sums(world, edits)]
        for edit in edits:
            found += self._losses(world, edit, [later for later in edits if later is not edit and saw(later, edit)])
        return found

    def _differences(self, world: World) -> Iterator[str]:
        left, right = world.rows
        for column, policy in enumerate(self.setup.columns):
            if left[column] == right[column]:
                continue
            if policy in ONE_WAY and self._written_by(world, 1 - ONE_WAY[policy], column):
                continue  # its target's users wrote it: the next change of the owner, or a comparison, mends it
            yield f"differs: column {column}: left {left[column]}, right {right[column]}"

    def _written_by(self, world: World, side: int, column: int) -> bool:
        return any(isinstance(entry, Edit) and wrote(entry, column) for entry in world.logs[side])

    def _losses(self, world: World, edit: Edit, later: list[Edit]) -> Iterator[str]:
        """An edit must be visible, replaced by one that had seen it, or in the conflict log."""
        row = world.rows[LEFT]
        if edit.kind == "delete":
            if row is not None and not later and (edit.side, edit.place, "row") not in world.lost:
                yield f"lost: {SIDES[edit.side]} {edit}"
            return
        for column, policy in enumerate(self.setup.columns):
            if policy in ONE_WAY or policy == "sum" or not wrote(edit, column):
                continue
            value = edit.after[column]
            replaced = any(after.kind == "delete" or wrote(after, column) for after in later)
            visible = row is not None and row[column] == value
            logged = any((edit.side, edit.place, unit) in world.lost for unit in (f"column{column}", "*"))
            if not (replaced or visible or logged or (value is None and edit.kind == "insert")):
                yield f"lost: {SIDES[edit.side]} {edit}, column {column}"

    def _wrong_sums(self, world: World, edits: list[Edit]) -> Iterator[str]:
        if any(edit.kind != "update" for edit in edits):
            return
        for column, policy in enumerate(self.setup.columns):
            if policy != "sum":
                continue
            wanted = number(self._counted_from(world)[column])
            wanted += sum(number(edit.after[column]) - number(edit.before[column]) for edit in edits)
            if any(number(row[column]) != wanted for row in world.rows):
                yield f"sum: column {column}: {world.rows}, wanted {wanted}"

    def _counted_from(self, world: World) -> tuple:
        if self.setup.master is None:
            return self.setup.start
        of_master, of_other = world.snapshots[self.setup.master], world.snapshots[1 - self.setup.master]
        return of_other if of_master is None else of_master


RULES = (
    "marker inside",
    "parked is not seen",
    "retain",
    "barrier",
    "restore the winner",
    "hidden row",
    "first decision",
    "weak comes first",
)


def position(side: int, place: int) -> Position:
    """A place in a side's log, as the product names it."""
    return Position(SIDES[side].value, (place,))


def user_edits(world: World) -> list[Edit]:
    """The users' edits that the feeds carry (what came before a snapshot is in the snapshot)."""
    return [
        entry
        for side in (LEFT, RIGHT)
        for entry in world.logs[side][world.bounds[side] :]
        if isinstance(entry, Edit) and not entry.weak
    ]


class Found(NamedTuple):
    """What a search found: how much it saw, and the first fault with the way to it."""

    states: int
    rests: int
    faults: list[str]
    way: list[str]


def explore(setup: Setup, limit: int = 2_000_000) -> Found:
    """Every interleaving, breadth first, so that the first fault comes with a shortest way to it."""
    model = Model(setup)
    layer = [model.begin()]
    came: dict[int, tuple[int, str]] = {hash(layer[0]): (0, "")}
    rests = 0
    while layer:
        following = []
        for world in layer:
            here = hash(world)
            try:
                if model.rests(world):
                    rests += 1
                    if faults := model.faults(world):
                        return Found(len(came), rests, faults, way_to(came, here))
                for word, after in model.steps(world):
                    there = hash(after)
                    if there not in came:
                        came[there] = (here, word)
                        following.append(after)
            except ImpossibleError as error:
                return Found(len(came), rests, [f"impossible: {error}"], way_to(came, here))
        if len(came) > limit:
            raise AssertionError(f"more than {limit} states: {setup}")
        layer = following
    return Found(len(came), rests, [], [])


def way_to(came: dict[int, tuple[int, str]], here: int) -> list[str]:
    """The steps that led to a state."""
    way = []
    while came[here][0]:
        here, word = came[here]
        way.append(word)
    return way[::-1]


def wander(setup: Setup, seed: int | str) -> Found:
    """One long random history, until everything rests."""
    chance, model = random.Random(seed), Model(setup)
    world, way, count = model.begin(), [], 0
    lazy = 0.03 + 0.97 * chance.random()  # how rarely the flows run: pauses and backlogs
    while True:
        count += 1
        possible = list(model.edits(world))
        if possible and chance.random() < lazy:
            side, kind, after = chance.choice(possible)
            world = model.edit(world, side, kind, after)
            way.append(f"{SIDES[side]} {kind} {after}")
            continue
        try:
            word, world = stumble(model, world, chance)
            way += [word] if word else []
            if not possible and model.rests(world):
                return Found(count, 1, model.faults(world), way)
        except ImpossibleError as error:
            return Found(count, 0, [f"impossible: {error}"], way)


def stumble(model: Model, world: World, chance: random.Random) -> tuple[str, World]:
    """One random step of anything but a user."""
    target, dice = chance.choice((LEFT, RIGHT)), chance.random()
    if len(world.snapshots) < 2:
        return ("snapshot", model.snapshot(world)) if dice < 0.3 else ("", world)
    if dice < 0.15 and world.refuses:
        return "right accepts again", world._replace(refuses=False)
    if dice < 0.35 and world.parked[target]:
        return f"retry at {SIDES[target]}", model.retry(world, target) or world
    if dice < 0.45 and (columns := model.undecided(world)):
        return f"{SIDES[target]} wins", model.decide(world, chance.choice(columns), target)
    count = chance.choice((1, 2, 3, 99))
    after = model.carry(world, target, count)
    return ("", world) if after is None else (f"carry {count} to {SIDES[target]}: {after.rows[target]}", after)
