"""Two systems with users, an engine between them, and programs that drive all of it step by step.

A program is a list of lines, so that it can be written by hand, drawn at random, shrunk, and read:

``L insert 1x a=2 grp=g; delete 2x @30``  one transaction of a user on the left; ``1x`` is code and company, ``g:1`` a
                                          group, ``-`` null, ``@`` the commit time; ``set`` inserts or updates
``L>R 2``            one turn of the flow out of the left with that batch size
``drain`` ``ack``    carry everything · let both systems forget
``start right``      wish all maps to run, with that master;  ``stop``  wish them not to
``pause items``      queue that map's changes, all maps' without a name;  ``resume`` ``resume preserve``  go on with all
``alone L 2``        for so many turns the left is alone, because the right does not answer;  ``alone L 2 pause`` ``resume``
                     as wished meanwhile
``restart``          close everything and open it again
``crash before commit 2``  the process dies when it passes that point for the second time
``at after read: R delete 1``  a user's transaction at that point
``block R 1``        that system refuses whatever the engine writes of this record;  ``unblock``
``retry`` ``resolve left``  what people do with parked records and open conflicts
``clock R 50``       a system's clock jumps ahead
``twin`` ``twin L>R``  a second engine takes over while the first is believed dead · the first goes on
"""

from __future__ import annotations

import json
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path as FilePath
from tempfile import TemporaryDirectory
from threading import get_ident
from typing import Any, Protocol, cast

from dualwrite.connectors.base import Connector, Feed, Remembered, Snapshot
from dualwrite.connectors.memory import Action, MemoryConnector, MemoryDatabase, Refused, User
from dualwrite.engine import wishes
from dualwrite.engine.agreeing import agree
from dualwrite.engine.alone import Alone
from dualwrite.engine.commands import execute
from dualwrite.engine.lifecycle import is_allowed
from dualwrite.engine.supervisor import Engine
from dualwrite.errors import PositionLost, Superseded
from dualwrite.expression import Column as Named
from dualwrite.expression import Compare, Expression, Literal
from dualwrite.journal import Journal, MapState, Parked
from dualwrite.mapping.compile import CompiledMap, compile_map
from dualwrite.mapping.tablemap import (
    ColumnMapping,
    Company,
    Default,
    Direction,
    TableMap,
    Transform,
    ValueMap,
)
from dualwrite.model import Kind, Path, Position, Side, Value
from dualwrite.schema import Column, ColumnType, Reference, Schema, Table, TypeName, View

from .oracle import Cell, Edit, Facts, Key, Line, MapIdea, Record, Special, judge

L, R = Side.LEFT, Side.RIGHT
SIDES = {"L": L, "R": R}
ITEMS, GROUPS = "items", "groups"
PLAIN = ("a", "b", "c", "d", "kind")
NUMBERS = ("n",)
COMPANIES = ("x", "y", "z")
POINTS = (
    "after read",
    "after begin",
    "after map",
    "before journal",
    "before commit",
    "after commit",
    "before acknowledge",
    "after acknowledge",
    "between chunks",
    "between passes",
    "inside restore",
    "inside retry",
    "after queue",
    "after chunk",
    "between pauses",
    "between joins",
)
HELD = ("reference", "required")
"""Why a system refuses to delete what others refer to: it says so, or cannot empty the company with the reference."""
PATIENCE = 3_000
"""So many points passed in one step mean that the engine never comes to rest."""


# -- what a link looks like --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Design:
    """A link: its maps in the oracle's words, and what the two systems do by themselves.

    ``actions`` say what each side does to records whose reference goes away (None: nothing, they dangle).  ``echoing``
    names a column of right-hand items that a trigger there fills from ``a``.
    """

    maps: tuple[MapIdea, ...] = (
        MapIdea(ITEMS, "item", "thing", (Line("code", "=", "code"), Line("a", "=", "a"), Line("b", "=", "b"))),
    )
    clock: str = "true"
    actions: Mapping[Side, Action] = field(default_factory=dict)
    companies: tuple[str, ...] | None = None
    trigger: str = ""

    @property
    def items(self) -> MapIdea:
        """The map of items."""
        return next(idea for idea in self.maps if idea.name == ITEMS)

    @property
    def has_company(self) -> bool:
        """Do records belong to companies?"""
        return self.items.company is not None

    def uses(self, column: str) -> bool:
        """Does a line of the items' map name this left-hand column?"""
        return any(line.left == column for line in self.items.lines)

    @property
    def quiet(self) -> bool:
        """Does neither system change anything by itself?  A renamed parent makes its children look different."""
        return not (self.trigger or self.actions or self.uses("grp") or self.uses("parent"))


def _text(name: str, *, required: bool = False) -> Column:
    return Column(name, ColumnType(TypeName.TEXT), nullable=not required)


def _number(name: str, *, required: bool = False) -> Column:
    return Column(name, ColumnType(TypeName.INTEGER, bits=64), nullable=not required)


ID = Column("id", ColumnType(TypeName.INTEGER, bits=64), nullable=False, has_default=True)


def left_schema(design: Design) -> Schema:
    """Natural keys and plain columns, as an ERP has them."""
    scope = ("company",) if design.has_company else ()
    own = [_text("company", required=True)] if scope else []
    key = (*scope, "code", *(("grp",) if "family.code" in design.items.key else ()))
    references = [
        Reference(name, (*scope, name), table, (*scope, "code"))
        for name, table in (("grp", "grp"), ("parent", "item"))
        if design.uses(name)
    ]
    lookups = [_text(name, required=name in key) for name in ("grp", "parent") if design.uses(name)]
    values = [*map(_text, PLAIN), *map(_number, NUMBERS)]
    item = Table("item", (_text("code", required=True), *own, *lookups, *values), key, (key,), tuple(references))
    grp_key = (*scope, "code")
    grp = Table("grp", (_text("code", required=True), *own, _text("a")), grp_key, (grp_key,))
    return Schema({"item": item, "grp": grp})


def right_schema(design: Design) -> Schema:
    """Generated ids and lookups, as a CRM has them."""
    scope = ("company",) if design.has_company else ()
    own = [_number("company")] if scope else []
    key = ("code", *scope, *(("family",) if "family.code" in design.items.key else ()))
    tables = {"company": "company", "family": "family", "parent": "thing"}
    lookups = [name for left, name in (("grp", "family"), ("parent", "parent")) if design.uses(left)]
    references = [Reference(name, (name,), tables[name], ("id",)) for name in (*scope, *lookups)]
    values = [*map(_text, PLAIN), *map(_number, NUMBERS)]
    pointers = [_number(name, required=name in key) for name in lookups]
    columns = (ID, _text("code", required=True), *own, *pointers, *values)
    thing = Table("thing", columns, ("id",), (("id",), key), tuple(references))
    family_key = ("code", *scope)
    family_columns = (ID, _text("code", required=True), *own, _text("a"))
    family = Table("family", family_columns, ("id",), (("id",), family_key), tuple(references[: len(scope)]))
    company = Table("company", (ID, _text("code", required=True)), ("id",), (("id",), ("code",)))
    return Schema({"thing": thing, "family": family, "company": company})


def path_of(text: str | None) -> Path | None:
    """A path as the product has it."""
    return tuple(text.split(".")) if text else None


def table_map(idea: MapIdea) -> TableMap:
    """The product's table map for the oracle's idea of it."""
    directions = {"=": Direction.BOTH, ">": Direction.TO_RIGHT, "<": Direction.TO_LEFT}
    columns = [
        ColumnMapping(path_of(line.left), directions[line.sign], path_of(line.right), _transforms(line), line.policy)
        for line in idea.lines
    ]
    company = idea.company and Company(path_of(idea.company[0]) or (), path_of(idea.company[1]) or ())
    return TableMap(
        idea.name,
        idea.left,
        idea.right,
        tuple(columns),
        company=company or None,
        key=tuple(path_of(path) or () for path in idea.key),
        filters={side: _filter(found.column, found.value, found.negated) for side, found in idea.filters.items()},
        conflict=idea.policy,
        rows=idea.rows,
        deletes=idea.deletes,
        on_leave=idea.on_leave,
    )


def _transforms(line: Line) -> tuple[Transform, ...]:
    found: list[Transform] = []
    if line.values:
        found.append(ValueMap(line.values, line.otherwise))
    if line.default is not None:
        found.append(Default(line.default))
    return tuple(found)


def _filter(column: str, value: str, negated: bool) -> Expression:
    return Compare("ne" if negated else "eq", Named(path_of(column) or ()), Literal(value))


# -- the systems -------------------------------------------------------------------------------------------------------


class UserLike(Protocol):
    """One user's transaction."""

    def insert(self, table: str, values: Mapping[str, Value]) -> Any:
        """Add a record."""

    def update(self, table: str, match: Mapping[str, Value], values: Mapping[str, Value]) -> int:
        """Change records."""

    def delete(self, table: str, match: Mapping[str, Value]) -> int:
        """Delete records."""

    def rows(self, table: str, match: Mapping[str, Value] | None = None) -> Sequence[Mapping[str, Value]]:
        """Look."""


class Watcher(Protocol):
    """What is asked of a system beside the engine; each as in ``Connector``."""

    def end(self) -> Position:
        """The position behind everything committed so far."""

    def feed(self, views: Sequence[View], after: Position | None) -> Feed:
        """What follows a position."""

    def positions(self) -> Mapping[str, tuple[Position, int]]:
        """Per stream what is committed."""

    def remembered(self, kind: str) -> list[Remembered]:
        """The side table's entries."""


class System(Protocol):
    """One of the two systems of a world."""

    schema: Schema

    def connector(self) -> Connector:
        """A fresh connector, as after a restart."""

    def watcher(self) -> Watcher:
        """Looks at the system beside the engine."""

    def user(self, at: float) -> AbstractContextManager[UserLike]:
        """One user's transaction, committed at that time.  Raises Waits where it would have to wait for the engine."""

    def busy(self) -> bool:
        """Is a transaction of the engine open, so that every user would have to wait?"""

    def refuse(self, code: str | None, engine: Callable[[], bool]) -> None:
        """Refuse what the engine writes of items with this code; None: of none."""

    def close(self) -> None:
        """Clean up."""


class MemorySystem:
    """An in-memory system."""

    def __init__(
        self, schema: Schema, name: str, actions: Mapping[tuple[str, str], Action], clock: Callable[[], float]
    ):
        """Empty, with these actions of its references."""
        self.schema = schema
        self.database = MemoryDatabase(schema, name, actions)
        self.database.now = clock
        self._refused: str | None = None
        self._engine: Callable[[], bool] = bool
        for table in ("item", "thing"):
            if table in schema.tables:
                self.database.trigger(table, self._guard)

    def connector(self) -> Connector:
        """See ``System``."""
        return MemoryConnector(self.database)

    def watcher(self) -> Watcher:
        """See ``System``."""
        return MemoryConnector(self.database)

    def user(self, at: float) -> AbstractContextManager[UserLike]:
        """See ``System``."""
        return self.database.user(at)

    def busy(self) -> bool:
        """See ``System``."""
        return self.database._writer == get_ident()

    def refuse(self, code: str | None, engine: Callable[[], bool]) -> None:
        """See ``System``."""
        self._refused, self._engine = code, engine

    def fill(self, column: str) -> None:
        """A trigger on right-hand items: ``column`` is filled from ``a`` whenever that is set."""

        def run(user: User, kind: Kind, old: Any, new: Any) -> None:
            if new is not None and (old is None or old["a"] != new["a"]) and new[column] != f"t{new['a']}":
                user.update("thing", {"id": new["id"]}, {column: f"t{new['a']}"})

        self.database.trigger("thing", run)

    def _guard(self, user: User, kind: Kind, old: Any, new: Any) -> None:
        if self._refused is not None and (new or old)["code"] == self._refused and self._engine():
            raise Refused("value", "not now")

    def close(self) -> None:
        """See ``System``."""


class Silent:
    """A connector that must not be asked anything."""

    def __getattr__(self, name: str) -> object:
        raise AssertionError(f"{name} of a system that does not answer was asked for")


class Watching:
    """A connector that tells when a snapshot is taken; everything else goes straight through."""

    def __init__(self, connector: Connector, told: Callable[[str], None]) -> None:
        """Tell ``told`` the view's name."""
        self._connector = connector
        self._told = told

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connector, name)

    @contextmanager
    def snapshot(self, view: View, *, placed: bool = True) -> Iterator[Snapshot]:
        """See ``Connector``."""
        with self._connector.snapshot(view, placed=placed) as snapshot:
            self._told(view.name)
            yield snapshot


# -- the world ---------------------------------------------------------------------------------------------------------


class Crash(BaseException):
    """The process dies here."""


class Endless(Exception):
    """The engine does not come to rest."""


class Waits(Exception):
    """A user waits for the engine."""


class Alarm(Exception):
    """The engine believes that something wrote past the capture."""


Make = Callable[[Side, Schema, Mapping[tuple[str, str], Action], Callable[[], float]], System]


def in_memory(
    side: Side, schema: Schema, actions: Mapping[tuple[str, str], Action], clock: Callable[[], float]
) -> System:
    """An in-memory system for a side."""
    return MemorySystem(schema, str(side), actions, clock)


class World:
    """Two systems, a journal, perhaps an engine, and everything that was watched so far."""

    def __init__(self, design: Design, make: Make = in_memory) -> None:
        """Empty systems; nothing is linked yet."""
        self.design = design
        self.schemas = {L: left_schema(design), R: right_schema(design)}
        self.ticks = 0
        self.ahead = {L: 0.0, R: 0.0}
        self.jumped = False
        self.systems: dict[Side, System] = {
            side: make(side, self.schemas[side], self._actions(side), lambda side=side: self._now(side))
            for side in Side
        }
        self.ideas = {idea.name: idea for idea in design.maps}
        self.maps: list[CompiledMap] = [
            compile_map(table_map(idea), self.schemas[L], self.schemas[R], companies=design.companies)
            for idea in design.maps
        ]
        self.journal = Journal.open("sqlite://", clock=lambda: 0.0)
        self.watchers = {side: system.watcher() for side, system in self.systems.items()}
        self.folder = TemporaryDirectory(prefix="dualwrite-oracle-")
        self.engine: Engine | None = None
        self.twin: Engine | None = None
        self.opened: list[Engine] = []
        self.master = L
        self.edits: list[Edit] = []
        self.numbers = count(1)
        self.since: dict[str, dict[Side, int]] = {name: {L: 0, R: 0} for name in self.ideas}
        self.synced: dict[str, dict[Side, dict[Key, Record]]] = {name: {L: {}, R: {}} for name in self.ideas}
        self.wandered: set[tuple[str, Key]] = set()
        self.strayed: set[tuple[str, Key, Side]] = set()
        self.moved: list[tuple[int, Side, str, Key, set[tuple[str, Key]]]] = []
        self.crashes: dict[str, int] = {}
        self.armed: dict[str, list[str]] = {}
        self.engaged = False
        self.repairing = False
        self.given_up: set[tuple[str, Key]] = set()
        self.passed = 0
        self.faults: list[str] = []
        self.seen: Counter[str] = Counter()
        self._ends: dict[Side, Position] = {}
        self._prepare()

    def _actions(self, side: Side) -> dict[tuple[str, str], Action]:
        action = self.design.actions.get(side)
        if action is None:
            return {}
        table = "item" if side is L else "thing"
        names = [r.name for r in self.schemas[side].tables[table].references if r.name != "company"]
        return {(table, name): action for name in names}

    def _prepare(self) -> None:
        if self.design.has_company:
            with self.systems[R].user(0.0) as user:
                for code in COMPANIES:
                    user.insert("company", {"code": code})
        if self.design.trigger:
            self.systems[R].fill(self.design.trigger)  # type: ignore[attr-defined]

    # -- time ---------------------------------------------------------------------------------------------------------

    def _now(self, side: Side) -> float:
        """A system's clock."""
        clock = self.design.clock
        if clock == "tie":
            return 1000.0
        base = 1000.0 - self.ticks if clock == "backwards" else 1000.0 + self.ticks
        apart = {"right ahead": {R: 100.0}, "left ahead": {L: 100.0}}.get(clock, {})
        return base + apart.get(side, 0.0) + self.ahead[side]

    # -- looking ------------------------------------------------------------------------------------------------------

    def rows(self, side: Side, name: str, user: UserLike | None = None) -> dict[Key, Record]:
        """A side's records of a map, as the oracle sees them."""
        if user is None:
            with self.systems[side].user(0.0) as reader:
                return self.rows(side, name, reader)
        idea = self.ideas[name]
        found: dict[Key, Record] = {}
        for record in self._natural(side, idea, user):
            key = idea.identify(side, record)
            if key is not None:
                assert key not in found, f"two {side} records of {name} have the key {key}"
                found[key] = record
        return found

    def _natural(self, side: Side, idea: MapIdea, user: UserLike) -> Iterator[Record]:
        paths = sorted(idea.paths(side))
        table = self.schemas[side].tables[idea.table(side)]
        codes = {
            reference.name: {row["id"]: row["code"] for row in user.rows(reference.table)}
            for reference in table.references
            if side is R
        }
        for row in user.rows(table.name):
            yield {path: self._cell(row, path, codes) for path in paths}

    @staticmethod
    def _cell(row: Mapping[str, Value], path: str, codes: Mapping[str, Mapping[Value, Value]]) -> Cell:
        column, dot, _ = path.partition(".")
        if not dot or row[column] is None:
            return row[column]
        return codes[column].get(row[column], Special.UNKNOWN)

    def look(self, side: Side, user: UserLike) -> dict[str, dict[Key, Record]]:
        """All maps' records of a side."""
        return {name: self.rows(side, name, user) for name in self.ideas}

    # -- users --------------------------------------------------------------------------------------------------------

    def edit(self, side: Side, text: str) -> None:
        """A user's transaction; what the system refuses is left out."""
        words, _, when = text.partition("@")
        self.ticks += 1
        at = float(when) if when.strip() else self._now(side)
        made: list[tuple[str, Key, Record | None, Record | None]] = []
        moved: list[tuple[str, Key, set[tuple[str, Key]]]] = []
        start = self.watchers[side].end()
        received, parked = self._received(side)
        delayed = self._delayed(side)
        with self.systems[side].user(at) as user:
            before = self.look(side, user)
            for statement in words.split(";"):
                self._statement(side, user, statement.split())
                after = self.look(side, user)
                here = self._differences(before, after)
                here = self._leaving(side, here)
                gone = {(name, key) for name, key, _, now in here if now is None}
                moved += [(name, key, gone) for name, key, was, _ in here if was is None and gone]
                made += here
                before = after
        end = self.watchers[side].end()
        for name, key, was, now in made:
            seen = delayed.get(name, received)
            self._note(side, name, key, was, now, at, start, end, seen, parked.get((name, key)))
        self.moved += [(next(self.numbers), side, name, key, earlier) for name, key, earlier in moved]
        self._wander()

    def _leaving(
        self, side: Side, made: list[tuple[str, Key, Record | None, Record | None]]
    ) -> list[tuple[str, Key, Record | None, Record | None]]:
        """What a statement did; a record that left the filter together with its key has left, and was not deleted.

        Where records that leave are detached, nothing flows then: the other side keeps its record, alone.
        """
        found = list(made)
        for name, idea in self.ideas.items():
            gone = [entry for entry in made if entry[0] == name and entry[3] is None]
            new = [entry for entry in made if entry[0] == name and entry[2] is None]
            if len(gone) != 1 or len(new) != 1 or idea.on_leave != "detach":
                continue
            (_, key, was, _), (_, _, _, now) = gone[0], new[0]
            if idea.inside(side, was or {}, self.design.companies) and not idea.inside(
                side, now or {}, self.design.companies
            ):
                found[found.index(gone[0])] = (name, key, was, now)
                self.strayed.add((name, key, side))
        return found

    def _statement(self, side: Side, user: UserLike, words: list[str]) -> None:
        verb, target, *rest = words
        table, match = self._target(side, user, target)
        if verb == "set":
            verb = "update" if user.rows(table, match) else "insert"
        with suppress(Refused):  # what a system refuses has not happened
            if verb == "insert":
                user.insert(table, {**match, **self._values(side, user, table, match, rest)})
            elif verb == "delete":
                self._each(user, table, match, lambda one: user.delete(table, one))
            elif verb == "rename":
                _, new = self._target(side, user, rest[0])
                self._each(user, table, match, lambda one: user.update(table, one, new))
            else:
                values = self._values(side, user, table, match, rest)
                self._each(user, table, match, lambda one: user.update(table, one, values))

    def _each(
        self, user: UserLike, table: str, match: Mapping[str, Value], act: Callable[[Mapping[str, Value]], Any]
    ) -> None:
        """On the first record that is meant."""
        for row in list(user.rows(table, match))[:1]:
            key = self.schemas[L if table in ("item", "grp") else R].tables[table].primary_key
            act({name: row[name] for name in key})

    def _target(self, side: Side, user: UserLike, text: str) -> tuple[str, dict[str, Value]]:
        """A record's table, and what it is found by."""
        group, _, name = text.rpartition(":")
        table = {L: ("grp", "item"), R: ("family", "thing")}[side][not group]
        match: dict[str, Value] = {"code": name[0]}
        if self.design.has_company:
            company = name[1:] or COMPANIES[0]
            match["company"] = company if side is L else user.rows("company", {"code": company})[0]["id"]
        return table, match

    def _values(
        self, side: Side, user: UserLike, table: str, match: Mapping[str, Value], words: Sequence[str]
    ) -> dict[str, Value]:
        """Assignments as columns of the side; a lookup takes the code that it leads to."""
        found: dict[str, Value] = {}
        for word in words:
            name, _, text = word.partition("=")
            value = None if text == "-" else text
            if side is R and name in ("grp", "parent"):
                name, target = ("family", "family") if name == "grp" else ("parent", "thing")
                if value is not None:
                    scope = {"company": match["company"]} if self.design.has_company else {}
                    rows = user.rows(target, {"code": value, **scope})
                    value = rows[0]["id"] if rows else None
            if self.schemas[side].tables[table].column(name) is not None:
                found[name] = value
        return found

    @staticmethod
    def _differences(
        before: Mapping[str, Mapping[Key, Record]], after: Mapping[str, Mapping[Key, Record]]
    ) -> list[tuple[str, Key, Record | None, Record | None]]:
        """What changed, deletes first."""
        made = [
            (name, key, rows.get(key), after[name].get(key))
            for name, rows in before.items()
            for key in {**rows, **after[name]}
            if rows.get(key) != after[name].get(key)
        ]
        return sorted(made, key=lambda entry: entry[3] is not None)

    def _received(self, side: Side) -> tuple[Position | None, dict[tuple[str, Key], Position]]:
        """How far a side has received the other by now, and what waits there for which record."""
        watcher = self.watchers[side]
        found = watcher.positions().get(f"{side.other}>{side}")
        parked = {
            (entry.view, tuple(json.loads(entry.key))): Position.parse(entry.value)
            for entry in watcher.remembered("parked")
            if entry.until is None
        }
        return (found[0] if found else None), parked

    def _delayed(self, side: Side) -> dict[str, Position]:
        """How far a side has received the other's changes of maps that are paused, or not quite resumed."""
        entries = self.watchers[side].remembered("queued")
        return {entry.view: Position.parse(entry.value) for entry in entries if entry.until is None}

    def _note(
        self,
        side: Side,
        name: str,
        key: Key,
        was: Record | None,
        now: Record | None,
        at: float,
        start: Position,
        end: Position,
        seen: Position | None,
        parked: Position | None,
        caused: bool = False,
    ) -> None:
        """Remember an edit as its map sees it: entering the filter is an insert."""
        idea, companies = self.ideas[name], self.design.companies
        was_in = was is not None and idea.inside(side, was, companies)
        now_in = now is not None and idea.inside(side, now, companies)
        if (was is not None and not was_in) or (now is not None and not now_in):
            self.wandered.add((name, key))
        if was is not None and not was_in and now is None:
            self.strayed.add((name, key, side))
        if not was_in and not now_in:
            return
        if now_in:
            self.strayed.discard((name, key, side))
        if now_in and (not was_in or self._carries(side, idea, was or {}, now or {})):  # it brings the record back
            self.strayed.discard((name, key, side.other))
        if not now_in and now is not None:
            if idea.on_leave == "detach":
                return
            now = None
        if not was_in:
            was = None
        if end.feed:
            self.edits.append(Edit(side, next(self.numbers), name, key, was, now, at, start, end, seen, parked, caused))

    @staticmethod
    def _carries(side: Side, idea: MapIdea, was: Record, now: Record) -> bool:
        """Did an edit change anything that its map carries out of the side?"""
        paths = [line.path(side) for line in idea.lines if line.carries(side)]
        return any(path is not None and was[path] != now[path] for path in paths)

    def _wander(self) -> None:
        """Note the records that are outside of their filters."""
        for name, idea in self.ideas.items():
            if idea.filters or (idea.company and self.design.companies):
                for side in Side:
                    if self.systems[side].busy():
                        continue
                    for key, row in self.rows(side, name).items():
                        if not idea.inside(side, row, self.design.companies):
                            self.wandered.add((name, key))

    # -- the engine ---------------------------------------------------------------------------------------------------

    def point(self, name: str) -> None:
        """What the engine calls at each place that matters."""
        self.passed += 1
        if self.passed > PATIENCE:
            raise Endless
        if not self.design.quiet and name in ("after commit", "before acknowledge"):
            self._watch_systems()
        waiting = self.armed.get(name, [])
        if waiting and not self.design.quiet:
            self._watch_systems()
        while waiting and not self.systems[SIDES[waiting[0][0]]].busy():
            text = waiting[0]
            engaged, self.engaged = self.engaged, False
            try:
                self.edit(SIDES[text[0]], text[2:])
            except Waits:
                self.seen["waits"] += 1
                break
            finally:
                self.engaged = engaged
            del waiting[0]
            self._mark_ends()
        if name in self.crashes:
            self.crashes[name] -= 1
            if not self.crashes[name]:
                del self.crashes[name]
                self.seen[f"crash {name}"] += 1
                raise Crash(name)

    @contextmanager
    def _engaged(self) -> Iterator[None]:
        """A step of the engine: it may die in it."""
        self.ticks += 1
        self.passed = 0
        self.engaged = True
        self._mark_ends()
        try:
            yield
        except Crash:
            self._lose()
        except Superseded:
            self.seen["superseded"] += 1
            self._lose()
        finally:
            self.engaged = False
            if not self.design.quiet:
                self._watch_systems()
            self._wander()
            self._alarms()

    def _lose(self) -> None:
        """The engine is gone; so are its scratch files."""
        for engine in self.opened:
            if engine is not self.twin:
                engine.close()
        self.opened = [engine for engine in self.opened if engine is self.twin]
        self.engine = None

    def _mark_ends(self) -> None:
        self._ends = {side: watcher.end() for side, watcher in self.watchers.items()}

    def _watch_systems(self) -> None:
        """Take down what triggers and cascades did within the engine's transactions."""
        for side, watcher in self.watchers.items():
            after, end = self._ends.get(side), watcher.end()
            if after is None or end == after:
                continue
            self._ends[side] = end
            try:
                feed = watcher.feed([compiled.views[side] for compiled in self.maps], after if after.feed else None)
            except PositionLost:  # a map was stopped, and its tables were not captured: an initial sync comes
                continue
            for change in feed.read(10_000, 0).changes:
                start = after if after.feed else Position(end.feed, ())
                self._caused(side, change.view, change.before, change.after, change.at, start, end, change.seen)
            feed.close()

    def _caused(
        self, side: Side, name: str, before: Any, after: Any, at: float, start: Position, end: Position, seen: Any
    ) -> None:
        seen = self._delayed(side).get(name, seen)
        compiled = next(one for one in self.maps if one.name == name)
        paths = [".".join(path) for path in compiled.views[side].paths]
        idea = self.ideas[name]
        rows = [
            None
            if row is None
            else {p: c if c is None or isinstance(c, str) else Special.UNKNOWN for p, c in zip(paths, row, strict=True)}
            for row in (before, after)
        ]
        keys = [None if row is None else idea.identify(side, row) for row in rows]
        was, now = rows
        if keys[0] == keys[1] or None in rows:
            key = keys[0] or keys[1]
            if key is not None:
                self._note(side, name, key, was, now, at, start, end, seen, None, caused=True)
            return
        if keys[0] is not None:
            self._note(side, name, keys[0], was, None, at, start, end, seen, None, caused=True)
        if keys[1] is not None:
            self._note(side, name, keys[1], None, now, at, start, end, seen, None, caused=True)

    def _alarms(self) -> None:
        """Nothing here ever bypasses the capture: an alarm is a fault."""
        if not any(entry.until is None for w in self.watchers.values() for entry in w.remembered("parked")):
            return
        for entry in self.journal.parked(self.committed()):
            self.seen[f"parked {entry.code}"] += 1
            if entry.code in ("bypassed", "other"):
                self.faults.append(f"alarm: {entry}")
                raise Alarm

    def committed(self) -> dict[Side, int]:
        """The number of the last commit in each system."""
        return {
            side: max((number for _, number in watcher.positions().values()), default=0)
            for side, watcher in self.watchers.items()
        }

    def _new_engine(self) -> Engine:
        connectors = {
            side: Watching(system.connector(), lambda name, side=side: self._snapshot(side, name))
            for side, system in self.systems.items()
        }
        folder = FilePath(self.folder.name)
        return Engine("link", connectors, self.maps, self.journal, point=self.point, folder=folder)  # type: ignore[arg-type]

    def _snapshot(self, side: Side, name: str) -> None:
        if self.repairing:
            return
        self.since[name][side] = next(self.numbers)
        self.synced[name][side] = self.rows(side, name)

    def running(self) -> Engine:
        """The engine, opened first if there is none."""
        if self.engine is None:
            engine = self._new_engine()
            self.opened.append(engine)
            engine.open()
            self.engine = engine
            engine.reconcile()
        return self.engine

    # -- programs -----------------------------------------------------------------------------------------------------

    def do(self, line: str) -> None:
        """One step of a program."""
        word, _, rest = line.partition(" ")
        if word in SIDES:
            self.edit(SIDES[word], rest)
        elif word == "at":
            point, _, text = rest.partition(": ")
            self.armed.setdefault(point, []).append(text)
        elif word == "crash":
            point, nth = (rest[:-2], int(rest[-1])) if rest[-1].isdigit() else (rest, 1)
            self.crashes[point] = nth
        elif word == "block":
            side, code = rest.split()
            self.systems[SIDES[side]].refuse(code, lambda: self.engaged)
        elif word == "unblock":
            self._unblock()
        elif word == "clock":
            side, seconds = rest.split()
            self.ahead[SIDES[side]] += float(seconds)
            self.jumped = True
        else:
            with self._engaged():
                self._engine_step(word, rest)

    def _engine_step(self, word: str, rest: str) -> None:
        if word == "twin":
            self._twin(rest)
            return
        if word == "alone":
            self._alone(*rest.split())
            return
        if word == "restart":
            self._lose()
        if word in ("start", "stop", "pause", "resume"):
            self._wish(word, rest)
        engine = self.running()
        if word in ("start", "stop", "pause", "resume"):
            engine.reconcile()
        elif word == "drain":
            engine.drain()
        elif word == "ack":
            engine.acknowledge()
        elif word == "retry":
            execute(engine, "retry", {})
        elif word == "resolve":
            for entry in [entry for entry in self.journal.conflicts({}) if entry.open][:1]:
                execute(engine, "resolve", {"id": entry.id, "winner": rest})
        elif ">" in word:
            self._turn(engine, word, rest)

    @staticmethod
    def _turn(engine: Engine, word: str, rest: str) -> None:
        flow = engine.flows[SIDES[word[0]]]
        flow.pace.limit = int(rest or 10_000)
        flow.turn(0)

    def _alone(self, side: str, turns: str, wish: str = "") -> None:
        """The engine waits for one side; nobody may ask that one anything."""
        self._lose()
        if wish:
            self._wish(wish, "")
        engine = self._new_engine()
        engine.connectors = {**engine.connectors, SIDES[side].other: cast("Connector", Silent())}
        alone = Alone(engine, SIDES[side], limit=2)
        try:
            alone.look()
            for _ in range(int(turns)):
                self.seen["alone"] += alone.turn(0)
                alone.acknowledge()
        finally:
            alone.close()

    def _wish(self, word: str, rest: str) -> None:
        for name in self.ideas:
            if word == "stop":
                self.journal.set_state(name, desired="stopped")
            elif word in ("pause", "resume"):
                self._delay(name, word, rest)
            elif self.journal.states().get(name) is None or self.journal.states()[name].desired == "stopped":
                self.master = Side(rest or "left")
                self.journal.set_state(name, desired="running", master=self.master.value)

    def _delay(self, name: str, word: str, rest: str) -> None:
        """Pause or resume a map, where it can be."""
        state = self.journal.states().get(name) or MapState(name)
        if word == "pause" and rest in ("", name) and is_allowed("pause", state):
            wishes.pause(self.journal, [name], who="")
        elif word == "resume" and is_allowed("resume", state):
            wishes.resume(self.journal, [name], who="", skip=rest)  # type: ignore[arg-type]
        else:
            return
        self.seen[f"{word} {rest}".strip()] += 1

    def _twin(self, rest: str) -> None:
        """The running engine is believed dead; another one takes over, and the first goes on later."""
        if not rest:
            self.twin, self.engine = self.running(), None
            self.running()
        elif self.twin is not None:
            twin, engine = self.twin, self.engine
            try:
                self._turn(twin, *(rest.split() + ["1"])[:2])
            except (Superseded, PositionLost):  # the other engine has carried, or let the system forget
                self.seen["twin superseded"] += 1
                self.twin = None
            finally:
                self.engine = engine

    def _unblock(self) -> None:
        for system in self.systems.values():
            system.refuse(None, bool)

    # -- the end ------------------------------------------------------------------------------------------------------

    def finish(self) -> list[str]:
        """Remove what the program put in the way, carry everything, judge."""
        self._unblock()
        self.crashes.clear()
        self.armed.clear()
        self.twin = None
        try:
            self.do(f"start {self.master}")
            self.do("resume")
            self._mend()
            self.do("retry")  # one-way columns that were refused are put back
            self._give_up()
            self.do("drain")
            self._rests()
        except Endless:
            return [*self.faults, "the engine never comes to rest"]
        return [*self.faults, *judge(self.facts())]

    def _give_up(self) -> None:
        """Records that only a person can put right are let go of, and made to agree anew."""
        parked = self.journal.parked({})
        if not parked and not self.given_up:
            return
        stuck = [entry for entry in parked if entry.code not in ("rename", "behind") and not self._waits(entry, parked)]
        self.faults += [f"parked for no reason any more: {entry}" for entry in stuck]
        self._adopt()
        self._correct()
        self.do("drain")
        parked += self.journal.parked({})
        self.given_up.update((entry.map, tuple(json.loads(entry.key))) for entry in parked)
        self.repairing = True
        with self._engaged():
            engine = self.running()
            execute(engine, "discard", {})
            for compiled in self.maps:
                agree(self.journal, engine.connectors, compiled, self.master, "repair", partial(execute, engine))
        self.repairing = False

    def _waits(self, entry: Parked, parked: Sequence[Parked]) -> bool:
        """Does a record wait for a parent that waits for a person itself?"""
        return entry.code == "missing_parent" and any(
            (self.ideas[other.map].table(entry.side), other.shown_key) == (entry.waits_table, entry.waits_key)
            for other in parked
        )

    def _mend(self) -> None:
        """Decide every conflict, take away what parks records, and retry, until nothing changes any more."""
        before: object = None
        for turn in range(30):
            self.do("drain")
            parked = self.journal.parked({})
            state = [(p.id, p.changes, p.code) for p in parked], len(self.journal.all_decisions())
            if not parked or (state == before and turn > 5):
                return
            before = state
            while any(entry.open for entry in self.journal.conflicts({})):
                self.do(f"resolve {'left' if turn % 2 else 'right'}")
            if turn:
                for entry in parked:
                    self._relieve(entry, turn)
            self.do("retry")

    def _relieve(self, entry: Parked, turn: int) -> None:
        """What a person would do about a parked record: put right what it speaks of, in the end let go of it."""
        if entry.code == "missing_parent":
            self._adopt()
            if turn > 2:  # the parent that it had for a while, or one whose delete was not carried
                group = "g:" if entry.waits_table in ("grp", "family") else ""
                members = sorted(entry.waits_key.split(", "), key=lambda member: member in COMPANIES)  # any order
                self.edit(entry.side.other, f"set {group}{''.join(members)} a={turn}")
        elif entry.code == "value_not_mapped":
            self._correct(entry)
        elif entry.code in HELD:
            self._let_go(entry)
            self._adopt()
        elif entry.code == "unique":
            self._clear(entry)
        else:
            return
        side, idea = entry.side.other, self.ideas[entry.map]
        record = self.rows(side, entry.map).get(tuple(json.loads(entry.key)))
        is_out = record is None or not idea.inside(side, record, self.design.companies)
        if entry.code in HELD:  # a delete that is refused has a target
            there = tuple(json.loads(entry.key)) in self.rows(entry.side, entry.map)
            is_hopeless = is_out and not there and turn > 3
        elif entry.code == "unique":  # a new key must be free, and a record outside of its filter may hold it
            is_hopeless = turn > 3 and (len(idea.key) > 1 or bool(idea.filters) or self.design.companies is not None)
        else:
            is_hopeless = (is_out and turn > 3) or turn > 8
        if is_hopeless:
            self._discard(entry)

    def _correct(self, but: Parked | None = None) -> None:
        """Users replace values that a value map parks, and the one that a parked change speaks of."""
        for idea in self.design.maps:
            for line in idea.lines:
                if line.otherwise != "park":
                    continue
                for side in Side:
                    column, known = line.path(side) or "", [pair[side is R] for pair in line.values]
                    for key, record in self.rows(side, idea.name).items():
                        meant = but is not None and (side, idea.name, key) == (
                            but.side.other,
                            but.map,
                            tuple(json.loads(but.key)),
                        )
                        if meant or record[column] not in (None, *known):
                            value = next(value for value in known if value != record[column])
                            self.edit(side, f"update {self._designator(idea.name, json.dumps(key))} {column}={value}")

    def _clear(self, entry: Parked) -> None:
        """Users delete records outside of the filter: one of them may hold the key that another one is to get."""
        idea = self.ideas[entry.map]
        for key, record in self.rows(entry.side, entry.map).items():
            if not idea.inside(entry.side, record, self.design.companies):
                self.edit(entry.side, f"delete {self._designator(entry.map, json.dumps(key))}")

    def _discard(self, entry: Parked) -> None:
        for other in self.journal.parked({}, map=entry.map, side=entry.side):
            if other.id == entry.id or (other.code, other.waits_key) == ("behind", entry.key):
                self.given_up.add((entry.map, tuple(json.loads(other.key))))
        execute(self.running(), "discard", {"ids": [entry.id]})

    def _designator(self, name: str, key: str) -> str:
        """A record as statements name it, by its common key."""
        idea = self.ideas[name]
        held = dict(zip(idea.key_paths(R), json.loads(key), strict=True))
        return f"{'g:' if name == GROUPS else ''}{held['code']}{held.get('company.code', '')}"

    def _adopt(self) -> None:
        """Left users make the parents that their records speak of; right users drop references that lead nowhere."""
        for name in ("grp", "parent"):
            if not self.design.uses(name):
                continue
            with self.systems[L].user(0.0) as user:
                table = "grp" if name == "grp" else "item"
                there = {(row["code"], row.get("company")) for row in user.rows(table)}
                wanted = sorted({(row[name] or "", row.get("company") or "") for row in user.rows("item") if row[name]})
            shown = "" if name == "grp" or L not in self.design.items.filters else self.design.items.filters[L]
            kind = f" kind={'3' if shown.negated else shown.value}" if shown else ""
            for code, company in wanted:
                if kind or (code, company or None) not in there:
                    self.edit(L, f"set {'g:' if name == 'grp' else ''}{code}{company}{kind}")
            path = "family.code" if name == "grp" else "parent.code"
            for key, row in self.rows(R, ITEMS).items():
                if row[path] is Special.UNKNOWN:
                    self.edit(R, f"update {self._designator(ITEMS, json.dumps(key))} {name}=-")

    def _let_go(self, entry: Parked) -> None:
        """Users drop the references to a record that is to go."""
        code = json.loads(entry.key)[0]
        name = "grp" if entry.map == GROUPS else "parent"
        path = name if entry.side is L else f"{'family' if name == 'grp' else name}.code"
        for key, row in self.rows(entry.side, ITEMS).items():
            if row.get(path) == code:
                record = self._designator(ITEMS, json.dumps(key))
                is_key = "family.code" in self.design.items.key and name == "grp"
                self.edit(entry.side, f"delete {record}" if is_key else f"update {record} {name}=-")

    def _rests(self) -> None:
        """Carrying again writes nothing; after a restart only the mark of the engine that takes over."""
        before = self.committed()
        self.do("drain")
        if self.committed() != before:
            self.faults.append(f"a second drain writes: {before} -> {self.committed()}")
        self.faults += [f"still parked: {entry}" for entry in self.journal.parked({})]
        before = self.committed()
        self.do("restart")
        self.do("drain")
        if self.committed() != {side: number + 1 for side, number in before.items()}:
            self.faults.append(f"a drain after a restart writes: {before} -> {self.committed()}")

    def _left_behind(self) -> None:
        """A counterpart outside of its filter keeps its old key when a record gets another one."""
        for number, side, name, key, earlier in self.moved:
            since = [e for e in self.edits if (e.map, e.key, e.side) == (name, key, side.other) and e.number > number]
            if earlier & self.wandered and not since:
                self.wandered.add((name, key))
                self.strayed.add((name, key, side.other))

    def facts(self) -> Facts:
        """What the judge has to know."""
        self._left_behind()
        numbers = self.committed()
        edits = [edit for edit in self.edits if edit.number > self.since[edit.map][edit.side]]
        noisy = {(ITEMS, self.design.trigger)} if self.design.trigger else set()
        return Facts(
            self.design.maps,
            self.design.companies,
            self.edits,
            edits,
            {name: {side: self.rows(side, name) for side in Side} for name in self.ideas},
            self.synced,
            self.master,
            self.journal.conflicts(numbers),
            self.given_up,
            self.wandered,
            self.strayed,
            {watcher.end().feed: side for side, watcher in self.watchers.items()},
            frozenset(noisy),
            None if self.jumped else {"right ahead": 100.0, "left ahead": -100.0}.get(self.design.clock, 0.0),
        )

    def close(self) -> None:
        """Clean up."""
        self.twin = None
        self._lose()
        self.journal.close()
        self.folder.cleanup()
        for system in self.systems.values():
            system.close()


def run(design: Design, program: Sequence[str], make: Make = in_memory) -> list[str]:
    """The faults of a program; none when all is well."""
    world = World(design, make)
    try:
        for line in program:
            world.do(line)
        return world.finish()
    except Alarm:
        return world.faults
    except Exception as trouble:
        where = traceback.extract_tb(trouble.__traceback__)
        return [f"{type(trouble).__name__}: {trouble}", *(f"    {f.filename}:{f.lineno} {f.name}" for f in where[-6:])]
    finally:
        world.close()


def shrink(program: Sequence[str], fails: Callable[[Sequence[str]], bool]) -> list[str]:
    """The program without what its failure does not need: lines first, then statements, then words."""
    small = list(program)
    size = max(len(small) // 2, 1)
    while True:
        start, before = 0, len(small)
        while start < len(small):
            shorter = small[:start] + small[start + size :]
            if shorter and fails(shorter):
                small = shorter
            else:
                start += size
        if size == 1 and len(small) == before:
            break
        size = max(size // 2, 1)
    for number, line in enumerate(small):
        small[number] = _thinner(line, lambda thin, n=number: fails([*small[:n], thin, *small[n + 1 :]]))
    return small


def _thinner(line: str, fails: Callable[[str], bool]) -> str:
    """A line without needless statements, then without needless assignments."""
    for parting in ("; ", " "):
        parts = line.split(parting)
        for index in reversed(range(len(parts))):
            if parting == " " and "=" not in parts[index]:
                continue
            fewer = parts[:index] + parts[index + 1 :]
            if index == 0 and parting == "; " and len(parts) > 1:
                fewer[0] = f"{line[0]} {fewer[0]}"
            if fewer and fails(parting.join(fewer)):
                parts = fewer
        line = parting.join(parts)
    return line
