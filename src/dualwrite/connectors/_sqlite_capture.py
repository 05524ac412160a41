# ruff: noqa: S608  (names go through quote(), values are bound)
"""What a link puts into an SQLite database: a log, the triggers that fill it, and four small tables.

    dualwrite_LINK_log       one wide row per change: o0… the captured columns before it, n0… after it, as stored
    dualwrite_LINK_shape     which columns of which table o0… and n0… are; a table whose captured columns change gets
                             a new shape, so that older entries stay readable
    dualwrite_LINK_position  the committed position of each stream
    dualwrite_LINK_side      what the engine remembers about records
    dualwrite_LINK_meta      schema number, incarnation of the log, number of our commits, how far the log is trimmed
    dualwrite_LINK_mode      one row: 0 log as somebody's change, 1 log as our own, 2 do not log
    dualwrite_LINK_stash     rows that the running INSERT or UPDATE may be about to replace

The triggers run inside the application's SQLite, so their SQL is old (3.6.19).  Three traps shaped them:

* REPLACE deletes rows without firing delete triggers (unless ``recursive_triggers`` is on).  A BEFORE trigger stashes
  the rows whose unique values are about to be taken; the AFTER trigger logs those that are gone as ``X``.
* AFTER triggers fire newest first.  Ours have to be newer than the application's, or what its triggers do besides
  would be logged before what they react to.
* ``IS NOT`` compares with the column's collation, so a change of letter case would not be one: hence COLLATE BINARY.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

from dualwrite.connectors._sql import literal, needs, quote
from dualwrite.connectors._sqlite_schema import Catalog, Facts, Unique
from dualwrite.connectors.base import Installation
from dualwrite.errors import Denied, Halted, Usage
from dualwrite.schema import View

SCHEMA_NUMBER = 1
TABLES = ("log", "shape", "position", "side", "meta", "mode", "stash")
INSERT, UPDATE, DELETE, REPLACED, MARKER, GONE, NOTICE, GAP = "I", "U", "D", "X", "M", "G", "N", "L"
"""What an entry of the log is: ``X`` a row that another one replaced, ``M`` a commit of ours.  Two are notes about our
own work and no changes: ``G`` what a record was that we deleted (what users did before, and effects, may name it),
``N`` a record that we renamed or brought, by which those that look it up look different (the note tells which).
``L``: what came before is lost."""
IS_LOSS = f"op NOT IN ('{MARKER}', '{GONE}')"
"""Entries of which somebody who has not read them must hear: all but those that only tell of us."""
NORMAL, OWN, SILENT = 0, 1, 2
REMEDY = "stop the maps of this link and start them again with an initial sync"
START_AGAIN = "correct the map if need be (`dualwrite check` tells), then start it: it compares both sides"
Triggers: TypeAlias = Mapping[str, tuple[int, str]]
"""Triggers of a table: place and text by name."""


@dataclass(frozen=True, slots=True)
class Names:
    """The names of a link's objects, quoted."""

    link: str

    def __getattr__(self, what: str) -> str:
        """The table ``what``."""
        if what not in TABLES:
            raise AttributeError(what)
        return quote(self.plain(what))

    def plain(self, what: str) -> str:
        """The table's name without quotes."""
        return f"dualwrite_{self.link}_{what}"

    def trigger(self, table: str, what: str) -> str:
        """A trigger's name without quotes."""
        return f"dualwrite_{self.link}:{table}:{what}"


# -- what has to be captured -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Plan:
    """What is captured of a table: ``columns`` in the order of o0…, and which of them somebody looks at and how."""

    table: str
    columns: tuple[str, ...]
    shown: tuple[str, ...]
    followed: tuple[str, ...]


def plans(catalog: Catalog, views: Iterable[View]) -> dict[str, Plan]:
    """What to capture for these views, per table.

    Besides what the views look at: the primary key, and every unique column (a REPLACE of it has to be seen).
    """
    found = {}
    for name, need in needs(catalog.schema, views).items():
        table, facts = catalog.schema.tables[name], catalog.facts[name]
        if facts.virtual:
            raise Usage(f"table {name} is virtual: SQLite has no triggers for it", "map an ordinary table instead")
        wanted = need.shown | need.followed | set(table.primary_key)
        wanted = wanted.union(*(unique.columns for unique in facts.uniques))
        in_order = [column.name for column in table.columns]
        found[name] = Plan(
            name,
            tuple(column for column in in_order if column in wanted),
            tuple(column for column in in_order if column in need.shown),
            tuple(column for column in in_order if column in need.followed),
        )
    return found


# -- shapes ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Shape:
    """A numbered plan; the log's entries carry the number."""

    number: int
    plan: Plan
    current: bool


def read_shapes(connection: sqlite3.Connection, names: Names) -> dict[int, Shape]:
    """All shapes that entries of the log may have."""
    rows = connection.execute(f"SELECT number, tbl, columns, shown, followed, current FROM {names.shape}")
    return {row[0]: _shape(*row) for row in rows}


@lru_cache(maxsize=4_096)  # each of our transactions asks for all of them
def _shape(number: int, table: str, columns: str, shown: str, followed: str, current: int) -> Shape:
    plan = Plan(table, *(tuple(json.loads(text)) for text in (columns, shown, followed)))
    return Shape(number, plan, bool(current))


def current_shapes(connection: sqlite3.Connection, names: Names) -> dict[str, Shape]:
    """The shapes that the triggers log in, by table."""
    return {shape.plan.table: shape for shape in read_shapes(connection, names).values() if shape.current}


# -- triggers --------------------------------------------------------------------------------------------------------


def trigger_texts(names: Names, shape: Shape, facts: Facts) -> dict[str, str]:
    """The triggers of a captured table by name, in the order in which they have to be created."""
    return _Texts(names, shape, facts).all()


class _Texts:
    def __init__(self, names: Names, shape: Shape, facts: Facts) -> None:
        self._names = names
        self._number = shape.number
        self._columns = shape.plan.columns
        self._facts = facts
        self._table = quote(facts.name)
        self._place = {name: index for index, name in enumerate(self._columns)}
        self._identity = () if facts.rowid else facts.key

    def all(self) -> dict[str, str]:
        found: dict[str, str] = {}
        moved = self._unique_columns()
        if moved:
            found |= self._text("stash_insert", "BEFORE INSERT", [], self._stash(""))
            found |= self._text("stash_update", self._update_of("BEFORE", moved), moved, self._stash(self._other()))
        found |= self._text("insert", "AFTER INSERT", [], [*self._replaced(), self._log(INSERT)])
        watched = list(dict.fromkeys((*self._columns, *moved)))
        event = self._update_of("AFTER", watched)
        found |= self._text("update", event, watched, [*self._replaced(is_update=True), self._log(UPDATE)])
        unstash = f"DELETE FROM {self._names.stash} WHERE shape = {self._number} AND {self._same('', 'OLD')}"
        body = [unstash] if self._facts.uniques else []
        return found | self._text("delete", "AFTER DELETE", [], [*body, self._log(DELETE)])

    def _text(self, what: str, event: str, changed: Sequence[str], body: Sequence[str]) -> dict[str, str]:
        name = self._names.trigger(self._facts.name, what)
        when = f"(SELECT mode FROM {self._names.mode}) IS NOT {SILENT}"
        if changed:
            when += f" AND ({' OR '.join(map(self._differs, changed))})"
        statements = "".join(f"  {statement};\n" for statement in body)
        text = f"CREATE TRIGGER {quote(name)} {event} ON {self._table}\nWHEN {when}\nBEGIN\n{statements}END"
        return {name: text}

    def _differs(self, column: str) -> str:
        return f"OLD.{quote(column)} COLLATE BINARY IS NOT NEW.{quote(column)}"

    def _update_of(self, time: str, columns: Sequence[str]) -> str:
        if self._facts.generated.intersection(columns):
            return f"{time} UPDATE"  # what changes a generated column does not name it
        taken = {name.lower() for name in self._facts.affinities}
        rowids = [name for name in ("rowid", "_rowid_", "oid") if name not in taken]  # "SET rowid =" names no column
        return f"{time} UPDATE OF {', '.join([*map(quote, columns), *(rowids if self._facts.rowid else [])])}"

    def _log(self, operation: str) -> str:
        """Insert one entry; of an update whose captured columns are the same only its replaced rows count."""
        names, places = [], []
        if operation != INSERT:
            names += [f"o{i}" for i in range(len(self._columns))]
            places += [f"OLD.{quote(column)}" for column in self._columns]
        if operation != DELETE:
            names += [f"n{i}" for i in range(len(self._columns))]
            places += [f"NEW.{quote(column)}" for column in self._columns]
        rid = self._rid("NEW" if operation == INSERT else "OLD")
        return self._insert(operation, rid, names, places)

    def _insert(self, operation: str, rid: str, names: Sequence[str], values: Sequence[str]) -> str:
        return (
            f"INSERT INTO {self._names.log} (shape, op, at, own, rid, {', '.join(names)}) "
            f"SELECT {self._number}, '{operation}', julianday('now'), (SELECT mode FROM {self._names.mode}), {rid}, "
            f"{', '.join(values)}"
        )

    def _rid(self, of: str) -> str:
        return f"{of}.{quote(self._facts.rowid)}" if self._facts.rowid else "NULL"

    # -- replaced rows

    def _unique_columns(self) -> list[str]:
        """Those of an index that is newer than the shape may not be captured."""
        used = {name for unique in self._facts.uniques for name in unique.columns}
        return [name for name in self._facts.affinities if name in used]

    def _stash(self, other: str) -> list[str]:
        clashes = " OR ".join(self._clash(unique) for unique in self._facts.uniques)
        names = ", ".join(f"o{i}" for i in range(len(self._columns)))
        values = ", ".join(f"t.{quote(column)}" for column in self._columns)
        return [
            f"DELETE FROM {self._names.stash} WHERE shape = {self._number}",
            f"INSERT INTO {self._names.stash} (shape, rid, {names}) SELECT {self._number}, {self._rid('t')}, {values} "
            f"FROM {self._table} AS t WHERE ({clashes}){other}",
        ]

    def _clash(self, unique: Unique) -> str:
        pairs = zip(unique.columns, unique.collations, strict=True)
        same = " AND ".join(f"t.{quote(name)} = NEW.{quote(name)} COLLATE {quote(how)}" for name, how in pairs)
        return f"({same} AND ({unique.where}))" if unique.where else f"({same})"

    def _other(self) -> str:
        return f" AND NOT ({self._same('t', 'OLD')})"

    def _same(self, one: str, other: str) -> str:
        """Is it the same row?  ``one`` is ``t`` for the table or nothing for the stash."""
        if self._facts.rowid:
            return f"{'t.' + quote(self._facts.rowid) if one else 'rid'} = {self._of(other, None)}"
        mine = [f"t.{quote(name)}" if one else f"o{self._place[name]}" for name in self._identity]
        theirs = [self._of(other, name) for name in self._identity]
        return " AND ".join(f"{a} = {b}" for a, b in zip(mine, theirs, strict=True))

    def _of(self, row: str, column: str | None) -> str:
        if row == "stash":
            return f"s.o{self._place[column]}" if column else "s.rid"
        return f"{row}.{quote(column or self._facts.rowid or '')}"

    def _replaced(self, *, is_update: bool = False) -> list[str]:
        """Log the stashed rows that are gone: their place was taken, or there is no such row any more.

        An update that takes nobody's place leaves the others: a foreign key may act in the middle of what stashed them.
        """
        if not self._facts.uniques:
            return []
        names = [f"o{i}" for i in range(len(self._columns))]
        left = f"NOT EXISTS (SELECT 1 FROM {self._table} AS t WHERE {self._same('t', 'stash')})"
        gone = f"({self._same('', 'NEW')} OR {left})"
        if is_update:  # an upsert has stashed the very row that it updates
            gone = f"NOT ({self._same('', 'OLD')}) AND {gone}"
        log = self._insert(REPLACED, "s.rid", names, [f"s.{name}" for name in names])
        found = f"FROM {self._names.stash} AS s WHERE s.shape = {self._number} AND {gone}"
        done = ""
        if is_update:
            takes = " OR ".join(map(self._differs, self._unique_columns()))
            done = f" AND ({takes} OR rowid IN (SELECT s.rowid {found}))"
        return [f"{log} {found}", f"DELETE FROM {self._names.stash} WHERE shape = {self._number}{done}"]


# -- installing ------------------------------------------------------------------------------------------------------


class Capture:
    """A link's objects in one database; ``connection`` is the one that may write."""

    def __init__(self, connection: sqlite3.Connection, names: Names) -> None:
        self._connection = connection
        self._names = names

    def install(self, catalog: Catalog, views: Sequence[View]) -> bool:
        """Create, extend or mend everything, inside the caller's transaction.

        Returns whether capture was switched off for all tables since the last time: then nobody may read on from
        before.  Raises Halted, with nothing done, for a view of whose tables changes may have been missed.
        """
        wanted = plans(catalog, views)
        self._create()
        check_number(self._connection, self._names)
        halted = interrupted_view(self._connection, self._names, catalog, views)
        if halted is not None:
            raise halted
        self._widen(max((len(plan.columns) for plan in wanted.values()), default=0))
        known = current_shapes(self._connection, self._names)
        present = own_triggers(self._connection, self._names)
        is_interrupted = is_switched_off(self._connection, self._names)
        if is_interrupted:
            self._lose()
            self._connection.execute(f"DELETE FROM {self._names.mode}")
            self._connection.execute(f"INSERT INTO {self._names.mode} VALUES ({NORMAL})")
        for table in set(known) - set(wanted):
            self._retire(known[table])
        for table, plan in wanted.items():
            shape = known.get(table)
            if shape is None or shape.plan.columns != plan.columns:
                shape = self._shape(plan)
            elif shape.plan != plan:
                self._describe(shape.number, plan)
            self._triggers(shape, catalog.facts[table], present.get(table, {}))
        for table in set(present) - set(wanted):
            self._drop(present[table])
        return is_interrupted

    def note_place(self, path: str) -> None:
        """Remember where the file is, so that a copy of it can be told."""
        if read_meta(self._connection, self._names).get("place") != path:
            sql = f"INSERT OR REPLACE INTO {self._names.meta} VALUES ('place', ?)"
            self._connection.execute(sql, (path,))

    def mend(self, catalog: Catalog) -> None:
        """Bring the triggers of captured tables to what the tables are now, inside the caller's transaction."""
        present, shapes = own_triggers(self._connection, self._names), current_shapes(self._connection, self._names)
        for table in set(shapes) - set(not_captured(catalog, present, shapes, shapes)):
            self._triggers(shapes[table], catalog.facts[table], present[table])

    def uninstall(self) -> None:
        """Drop everything, inside the caller's transaction."""
        for triggers in own_triggers(self._connection, self._names).values():
            self._drop(triggers)
        for what in TABLES:
            self._connection.execute(f"DROP TABLE IF EXISTS {quote(self._names.plain(what))}")

    def _create(self) -> None:
        if is_installed(self._connection, self._names):
            return
        n, execute = self._names, self._connection.execute
        execute(
            f"CREATE TABLE {n.log} (id INTEGER PRIMARY KEY AUTOINCREMENT, shape INTEGER, op TEXT, at REAL, "
            "own INTEGER, rid, note TEXT, o0, n0)"
        )
        execute(
            f"CREATE TABLE {n.shape} (number INTEGER PRIMARY KEY AUTOINCREMENT, tbl TEXT, columns TEXT, shown TEXT, "
            "followed TEXT, current INTEGER)"
        )
        execute(f"CREATE TABLE {n.position} (stream TEXT PRIMARY KEY, position TEXT)")
        execute(f"CREATE TABLE {n.side} (kind TEXT, view TEXT, key TEXT, value TEXT, since INTEGER, until INTEGER)")
        execute(f"CREATE INDEX {quote(n.plain('side_key'))} ON {n.side} (kind, view, key)")
        execute(f"CREATE TABLE {n.meta} (name TEXT PRIMARY KEY, value)")
        execute(f"CREATE TABLE {n.mode} (mode INTEGER)")
        execute(f"CREATE TABLE {n.stash} (shape INTEGER, rid, o0)")
        execute(f"INSERT INTO {n.mode} VALUES ({NORMAL})")
        values = {"schema": SCHEMA_NUMBER, "incarnation": secrets.token_hex(8), "commits": 0, "trimmed": 0, "lost": 0}
        self._connection.executemany(f"INSERT INTO {n.meta} VALUES (?, ?)", values.items())

    def _widen(self, width: int) -> None:
        for table, letters in ((self._names.log, "on"), (self._names.stash, "o")):
            have = {row[1] for row in self._connection.execute(f"PRAGMA table_info({table})")}
            for name in (f"{letter}{i}" for i in range(width) for letter in letters):
                if name not in have:
                    self._connection.execute(f"ALTER TABLE {table} ADD COLUMN {name}")

    def _shape(self, plan: Plan) -> Shape:
        self._connection.execute(f"UPDATE {self._names.shape} SET current = 0 WHERE tbl = ?", (plan.table,))
        texts = [json.dumps(part) for part in (plan.columns, plan.shown, plan.followed)]
        cursor = self._connection.execute(
            f"INSERT INTO {self._names.shape} (tbl, columns, shown, followed, current) VALUES (?, ?, ?, ?, 1)",
            (plan.table, *texts),
        )
        return Shape(int(cursor.lastrowid or 0), plan, current=True)

    def _describe(self, number: int, plan: Plan) -> None:
        self._connection.execute(
            f"UPDATE {self._names.shape} SET shown = ?, followed = ? WHERE number = ?",
            (json.dumps(plan.shown), json.dumps(plan.followed), number),
        )

    def _retire(self, shape: Shape) -> None:
        self._connection.execute(f"UPDATE {self._names.shape} SET current = 0 WHERE number = ?", (shape.number,))

    def _lose(self) -> None:
        """Leave a gap in the log: everything before this place is lost to those who have not read it."""
        place = self._connection.execute(f"INSERT INTO {self._names.log} (op, own) VALUES ('{GAP}', 0)").lastrowid
        self._connection.execute(f"UPDATE {self._names.meta} SET value = ? WHERE name = 'lost'", (place,))

    def _triggers(self, shape: Shape, facts: Facts, present: Triggers) -> None:
        is_disordered = is_older(present, facts)
        if is_disordered:  # what was logged until now may stand behind what it caused
            sql = f"INSERT OR REPLACE INTO {self._names.meta} SELECT 'disordered', coalesce(max(id), 0) FROM "
            self._connection.execute(sql + self._names.log)
        if is_disordered or is_outdated(self._names, present, shape, facts):
            self._drop(present)
            for text in trigger_texts(self._names, shape, facts).values():
                self._connection.execute(text)

    def _drop(self, triggers: Triggers) -> None:
        for name in triggers:
            self._connection.execute(f"DROP TRIGGER {quote(name)}")


def own_triggers(connection: sqlite3.Connection, names: Names) -> Mapping[str, Triggers]:
    """Our triggers by table, whatever the table was called when they were made."""
    found: dict[str, dict[str, tuple[int, str]]] = {}
    sql = "SELECT tbl_name, name, rowid, sql FROM sqlite_master WHERE type = 'trigger' AND instr(sql, ?)"
    for table, name, place, text in connection.execute(sql, (f"FROM {names.mode})",)):
        found.setdefault(table, {})[name] = (place, text)
    return found


def is_outdated(names: Names, present: Triggers, shape: Shape, facts: Facts) -> bool:
    """Do the triggers not fit the table any more (which got another unique index, for example)?"""
    return {name: sql for name, (_, sql) in present.items()} != trigger_texts(names, shape, facts)


def is_older(present: Triggers, facts: Facts) -> bool:
    """Has the application created a trigger after ours?  It would fire first."""
    return any(trigger.place > place for trigger in facts.triggers for place, _ in present.values())


def wants_mending(catalog: Catalog, names: Names, present: Mapping[str, Triggers], shapes: Mapping[str, Shape]) -> bool:
    """Are any triggers outdated, or older than the application's?"""
    return any(
        is_outdated(names, present[table], shape, catalog.facts[table])
        or is_older(present[table], catalog.facts[table])
        for table, shape in shapes.items()
        if table in present and table in catalog.facts
    )


def is_switched_off(connection: sqlite3.Connection, names: Names) -> bool:
    """Has somebody told the triggers, in a transaction of their own, not to log, or to log as we do?"""
    return [tuple(row) for row in connection.execute(f"SELECT mode FROM {names.mode}")] != [(NORMAL,)]


def interrupted_view(
    connection: sqlite3.Connection, names: Names, catalog: Catalog, views: Iterable[View]
) -> Halted | None:
    """The first view of whose tables not every change since it was installed is in the log, and why."""
    known, present = current_shapes(connection, names), own_triggers(connection, names)
    for view in views:
        needed = _named(catalog, view)
        lost = not_captured(catalog, present, known, sorted(needed & known.keys()))
        told = [_why(names, catalog, present, known[table]) for table in lost]
        told += [f"{table} had another name" for table in sorted(present.keys() & needed - known.keys())]
        if told:
            return Halted(view.name, f"{'; '.join(told)}, so changes may have been missed", START_AGAIN)
    return None


def _named(catalog: Catalog, view: View) -> frozenset[str]:
    """The tables that a view needs; at least its own, where others cannot be told any more."""
    try:
        return frozenset(needs(catalog.schema, [view]))
    except Usage:
        return frozenset([view.table])


def _why(names: Names, catalog: Catalog, present: Mapping[str, Triggers], shape: Shape) -> str:
    """What was done to a table that is not captured any more."""
    table, name = shape.plan.table, names.trigger(shape.plan.table, "insert")
    elsewhere = next((other for other, triggers in present.items() if name in triggers and other != table), None)
    if table not in catalog.facts:
        return f"table {table} was renamed to {elsewhere}" if elsewhere else f"table {table} was dropped"
    gone = [column for column in shape.plan.columns if column not in catalog.facts[table].affinities]
    if elsewhere or not present.get(table):
        return f"table {table} was created anew, or the triggers on it were dropped" + _without(table, gone)
    return _without(table, gone).removeprefix(": ") or f"triggers on {table} were dropped or replaced"


def _without(table: str, gone: Sequence[str]) -> str:
    return f": column {', '.join(f'{table}.{column}' for column in gone)} was dropped or renamed" if gone else ""


def not_captured(
    catalog: Catalog, present: Mapping[str, Triggers], shapes: Mapping[str, Shape], tables: Iterable[str]
) -> list[str]:
    """Those of the tables of which not every change comes into the log: dropped, created anew, columns renamed."""
    return [table for table in tables if not _is_captured(catalog, present.get(table, {}), table, shapes.get(table))]


def _is_captured(catalog: Catalog, present: Triggers, table: str, shape: Shape | None) -> bool:
    if shape is None or table not in catalog.facts:
        return False
    texts = [sql for _, sql in present.values()]
    logging = (f"SELECT {shape.number}, '{op}', " for op in (INSERT, UPDATE, DELETE))
    columns = catalog.facts[table].affinities.keys()
    return columns >= set(shape.plan.columns) and all(any(one in text for text in texts) for one in logging)


def is_installed(connection: sqlite3.Connection, names: Names) -> bool:
    """Does the link's log exist?"""
    sql = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?"
    return connection.execute(sql, (names.plain("meta"),)).fetchone() is not None


def installation(connection: sqlite3.Connection, names: Names, path: str) -> Installation:
    """What of the link is in the file at a path."""
    present = {name for triggers in own_triggers(connection, names).values() for name in triggers}
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    objects = [f"table {names.plain(what)}" for what in TABLES if names.plain(what) in tables]
    is_there = is_installed(connection, names)
    is_copy = is_there and read_meta(connection, names).get("place", path) != path
    return Installation((*objects, *(f"trigger {name}" for name in sorted(present))), is_copy)


def by_hand(names: Names) -> str:
    """What removes the link, in SQLite's shell."""
    triggers = (
        "SELECT 'DROP TRIGGER \"' || replace(name, '\"', '\"\"') || '\";' FROM sqlite_master "
        f"WHERE type = 'trigger' AND instr(sql, {literal(f'FROM {names.mode}')});"
    )
    drops = "".join(f"DROP TABLE IF EXISTS {quote(names.plain(what))};\n" for what in TABLES)
    return f"-- run what this prints\n{triggers}\n-- then\n{drops}"


def read_meta(connection: sqlite3.Connection, names: Names) -> dict[str, str]:
    """The link's own facts."""
    return {name: str(value) for name, value in connection.execute(f"SELECT name, value FROM {names.meta}")}


def check_number(connection: sqlite3.Connection, names: Names) -> None:
    """Refuse objects that a newer dualwrite has made."""
    number = int(read_meta(connection, names)["schema"])
    if number > SCHEMA_NUMBER:
        raise Denied(
            f"the objects of link {names.link} are of a newer dualwrite (schema {number}, known {SCHEMA_NUMBER})",
            "upgrade dualwrite on this machine",
        )
