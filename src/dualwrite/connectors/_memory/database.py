"""The database behind the memory connector: users, constraints, references' actions, triggers, transactions.

Everything that has to survive a crash of dualwrite lives here; a crash only throws the connector away.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from threading import Condition, Lock, get_ident
from typing import Literal, TypeAlias
from zlib import crc32

from dualwrite.connectors._memory.log import Capture, Commit, Ledger, Link, Witness
from dualwrite.connectors._memory.tables import Lens, Record, Rows, Spot, Tables, World
from dualwrite.model import Kind, Value
from dualwrite.schema import Reference, Schema, Table, TypeName

Action: TypeAlias = Literal["cascade", "set null", "restrict"]
Trigger: TypeAlias = "Callable[[User, Kind, Record | None, Record | None], None]"


class Refused(Exception):
    """The database refuses a statement.  ``code`` is one of ``model.Rejected``'s, ``reason`` is for people."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code
        self.reason = reason


class Session:
    """One open transaction in a database: checks, references' actions, triggers, and savepoints to go back to."""

    def __init__(self, database: MemoryDatabase, link: str = "") -> None:
        start = database.tables
        self.world = World(start)
        self.ledger: Ledger | None = None
        self.witnesses: dict[str, Witness] = {}
        self._database = database
        self._undo: list[tuple[World, Spot, Record | None]] = []
        for name, installed in database.links.items():
            if name == link:
                self.ledger = Ledger(installed.capture, start)
            else:
                self.witnesses[name] = Witness(installed.capture, start)

    @contextmanager
    def statement(self) -> Iterator[None]:
        """All of what is done inside, or nothing of it."""
        savepoint = self.savepoint()
        try:
            yield
        except Refused:
            self.rollback(savepoint)
            raise

    def savepoint(self) -> tuple[int, World | None, list[int]]:
        """A place to roll back to."""
        ours = self.ledger.ours if self.ledger else None
        return len(self._undo), ours, [len(witness.operations) for witness in self.witnesses.values()]

    def rollback(self, savepoint: tuple[int, World | None, list[int]]) -> None:
        """Undo what was done since the savepoint."""
        undo, ours, lengths = savepoint
        while len(self._undo) > undo:
            world, spot, record = self._undo.pop()
            world.put(spot, record)
        if self.ledger:
            self.ledger.ours = ours
        for witness, length in zip(self.witnesses.values(), lengths, strict=True):
            del witness.operations[length:]

    def insert(self, table: str, values: Record, *, own: bool = False) -> Spot:
        """Add a record; columns that are not given are null, or generated."""
        record = dict.fromkeys(column.name for column in self._database.schema.tables[table].columns)
        if unknown := set(values) - set(record):
            raise ValueError(f"table {table} has no column {', '.join(sorted(unknown))}")
        record.update(values)
        generated = self._database.generate(table, record)
        spot = table, next(self._database.numbers)
        if own and self.ledger and generated:
            self.ledger.generated(spot, generated)
        self.change(spot, record, record if own else None)
        return spot

    def change(self, spot: Spot, new: Record | None, own: Record | None = None) -> None:
        """Give a record other values, or delete it.

        ``own`` are the columns that a link's transaction sets with it, None for everybody else's changes; whoever
        gives them calls ``clashes`` when all is written.
        """
        old = self.world.get(spot)
        if old == new:
            return
        if new is not None:
            self._check_values(spot[0], new)
            self._check_references(spot[0], new)
        self._put(spot, old, new, own)
        if own is None:
            self._check_unique(spot, old)
        self._act_on_references(spot[0], old, new)
        kind = Kind.INSERT if old is None else Kind.DELETE if new is None else Kind.UPDATE
        for trigger in self._database.triggers.get(spot[0], ()):
            trigger(User(self), kind, old, new)

    def mirror(self, spot: Spot, old: Record | None, new: Record | None, own: Record) -> None:
        """Do the same in the tables as our writes alone would leave them."""
        ours = self.ledger.ours if self.ledger else None
        if ours is None:
            return
        record = ours.get(spot)
        if record is None and old is not None:
            return  # something that we caused has made it: nothing in it counts as ours
        self._undo.append((ours, spot, record))
        ours.put(spot, new and {**(record or new), **own})

    def _put(self, spot: Spot, old: Record | None, new: Record | None, own: Record | None) -> None:
        images = [(witness, witness.before(self.world, spot, old, new)) for witness in self.witnesses.values()]
        if self.ledger and own is None:
            self.ledger.caused(self.world, spot, old, new)
        elif self.ledger and own is not None:
            self.ledger.wrote(self.world, spot, old, new)
            self.mirror(spot, old, new, own)
        self._undo.append((self.world, spot, old))
        self.world.put(spot, new)
        for witness, before in images:
            witness.after(self.world, before)

    def _check_values(self, table: str, record: Record) -> None:
        for column in self._database.schema.tables[table].columns:
            value, length = record[column.name], column.type.length
            if value is None and not column.nullable:
                raise Refused("required", f"{table}.{column.name} must not be null")
            if value is not None and length is not None and column.type.name is TypeName.TEXT and len(value) > length:
                raise Refused("value", f"{table}.{column.name} takes {length} characters, not {len(value)}")

    def _check_references(self, table: str, record: Record) -> None:
        for reference in self._database.schema.tables[table].references:
            if (table, reference.name) in self._database.actions:
                pointer = self._database.lens.pointer(table, record, reference)
                if reference.table == table and pointer == tuple(record[name] for name in reference.to):
                    continue
                if pointer and not self.world.tables[reference.table].find(reference.to, pointer):
                    raise Refused(
                        "reference", f"{table}.{reference.name}: no {reference.table} {', '.join(map(str, pointer))}"
                    )

    def _check_unique(self, spot: Spot, old: Record | None) -> None:
        """Does another record hold a unique value of this one (that ``old`` did not hold)?"""
        for columns in self._database.uniques[spot[0]]:
            if self.clashes(columns, spot, old):
                raise Refused("unique", f"another {spot[0]} holds this {', '.join(columns)}")

    def clashes(self, columns: tuple[str, ...], spot: Spot, old: Record | None) -> list[int]:
        """The other records that hold the same unique value; none where it has not changed."""
        record = self.world.get(spot)
        if record is None or None in (values := [record[name] for name in columns]):
            return []
        if old is not None and values == [old[name] for name in columns]:
            return []
        return [number for number in self.world.tables[spot[0]].find(columns, values) if number != spot[1]]

    def _act_on_references(self, table: str, old: Record | None, new: Record | None) -> None:
        for child, reference, action in self._database.inbound.get(table, ()) if old is not None else ():
            assert old is not None
            held = tuple(old[name] for name in reference.to)
            if None in held or (new is not None and held == tuple(new[name] for name in reference.to)):
                continue
            if self.world.tables[table].find(reference.to, held):
                continue
            for number in self.world.tables[child].find(reference.columns, held):
                self._act((child, number), reference, action, new)

    def _act(self, spot: Spot, reference: Reference, action: Action, parent: Record | None) -> None:
        record = self.world.get(spot)
        if record is None:  # an earlier action has removed it
            return
        if action == "restrict":
            raise Refused("reference", f"{spot[0]} still refers to this {reference.table} by {reference.name}")
        if action == "cascade" and parent is None:
            self.change(spot, None)
            return
        held = [parent[name] if parent and action == "cascade" else None for name in reference.to]
        self.change(spot, {**record, **dict(zip(reference.columns, held, strict=True))})


class User:
    """What a user (or an application's trigger) may do inside one transaction.  ``Refused`` undoes the statement."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def insert(self, table: str, values: Record) -> Record:
        """Add a record; returns it with what was generated."""
        with self._session.statement():
            spot = self._session.insert(table, values)
        return self._session.world.get(spot) or {}

    def update(self, table: str, match: Record, values: Record) -> int:
        """Set columns of all records that hold the values of ``match``; returns how many."""
        with self._session.statement():
            spots = self._matching(table, match)
            for spot in spots:
                if (record := self._session.world.get(spot)) is not None:
                    self._session.change(spot, {**record, **values})
        return len(spots)

    def delete(self, table: str, match: Record) -> int:
        """Delete all records that hold the values of ``match``; returns how many."""
        with self._session.statement():
            spots = self._matching(table, match)
            for spot in spots:
                self._session.change(spot, None)
        return len(spots)

    def rows(self, table: str, match: Record | None = None) -> list[dict[str, Value]]:
        """All records, or those that hold the values of ``match``, oldest first."""
        return [dict(self._session.world.get(spot) or {}) for spot in self._matching(table, match or {})]

    def _matching(self, table: str, match: Record) -> list[Spot]:
        rows = self._session.world.tables[table]
        numbers: Iterable[int] = rows.find(tuple(match), list(match.values())) if match else rows.records
        wanted = match.items()
        return [(table, n) for n in sorted(numbers) if all(rows.records[n][name] == value for name, value in wanted)]


@dataclass(frozen=True, slots=True)
class Backup:
    """A database as it was once."""

    tables: Tables
    links: Mapping[str, Link]


class MemoryDatabase:
    """A database of a Python process: any threads, one writer at a time, readers never wait.

    ``actions`` says what happens to the records that refer to one that goes away, per (table, reference); references
    that are not named there are not enforced at all and may dangle.  Primary keys that are not given are generated
    for integer and uuid columns with a default, differently in each database.  ``now`` is the clock, to be replaced
    by tests; ``offline`` makes every connector raise Unavailable.
    """

    def __init__(self, schema: Schema, name: str, actions: Mapping[tuple[str, str], Action] | None = None) -> None:
        self.schema = schema
        self.name = name
        self.actions = dict(actions or {})
        self.now: Callable[[], float] = time.time
        self.offline = False
        self.lens = Lens(schema)
        self.tables: Tables = {t.name: Rows({c.name: c for c in t.columns}) for t in schema.tables.values()}
        self.links: dict[str, Link] = {}
        self.triggers: dict[str, list[Trigger]] = {}
        self.uniques = {name: _uniques(table) for name, table in schema.tables.items()}
        self.inbound: dict[str, list[tuple[str, Reference, Action]]] = {}
        for (child, reference_name), action in self.actions.items():
            reference = self.lens.references[child, reference_name]
            self.inbound.setdefault(reference.table, []).append((child, reference, action))
        self.numbers = count(1)
        self.changed = Condition()
        self._incarnations = count(1)
        self._ids: dict[str, Iterator[int]] = {}
        self._writing = Lock()
        self._writer: int | None = None

    @contextmanager
    def user(self, at: float | None = None) -> Iterator[User]:
        """One user's transaction: committed at the end (at time ``at``), rolled back when anything is raised."""
        self.begin()
        try:
            session = Session(self)
            yield User(session)
            with self.changed:
                self.publish(session, self.now() if at is None else at)
        finally:
            self.release()

    def trigger(self, table: str, function: Trigger) -> None:
        """Run a function (user, kind, old, new) after each change of a record of the table, whoever made it."""
        self.triggers.setdefault(table, []).append(function)

    def copy(self) -> Backup:
        """A backup of everything, the links' logs included."""
        with self.changed:
            return Backup(self.tables, {name: link.copy() for name, link in self.links.items()})

    def restore(self, backup: Backup) -> None:
        """Put back everything as it was; the feeds are the same incarnations, only shorter."""
        self.begin()
        try:
            with self.changed:
                self.tables = backup.tables
                self.links = {name: link.copy() for name, link in backup.links.items()}
                self.changed.notify_all()
        finally:
            self.release()

    def begin(self) -> None:
        """Become the one writer; waits for the other."""
        if self._writer == get_ident():
            raise RuntimeError(f"this thread has a transaction open in the memory database {self.name} already")
        self._writing.acquire()
        self._writer = get_ident()

    def release(self) -> None:
        """Stop being the writer."""
        self._writer = None
        self._writing.release()

    def publish(self, session: Session, at: float) -> None:
        """Make a session's tables the database's, and log it for the links that did not make it (holds ``changed``)."""
        self.tables = session.world.tables
        for name, witness in session.witnesses.items():
            if witness.operations:
                self.links[name].log.append(Commit(at, None, tuple(witness.operations)))
        self.changed.notify_all()

    def install(self, name: str, capture: Capture) -> None:
        """Capture for a link from now on."""
        self.begin()
        try:
            with self.changed:
                if name in self.links:
                    self.links[name].capture = capture
                else:
                    self.links[name] = Link(f"{self.name}/{name}/{next(self._incarnations)}", capture)
        finally:
            self.release()

    def uninstall(self, name: str) -> None:
        """Forget a link."""
        self.begin()
        try:
            with self.changed:
                self.links.pop(name, None)
                self.changed.notify_all()
        finally:
            self.release()

    def generate(self, table: str, record: dict[str, Value]) -> set[str]:
        """Fill in the primary key's columns that have a default; returns which."""
        filled = set()
        for name in self.schema.tables[table].primary_key:
            column = self.lens.columns[table, name]
            if record[name] is None and column.has_default and column.type.name in (TypeName.INTEGER, TypeName.UUID):
                record[name] = self._next_id(table, column.type.name)
                filled.add(name)
        return filled

    def _next_id(self, table: str, type_name: TypeName) -> str:
        salt = crc32(f"{self.name}.{table}".encode())  # so that an id that leaks to the other side means nothing there
        number = next(self._ids.setdefault(table, count(1)))
        if type_name is TypeName.INTEGER:
            return str(salt % 9000 + 1000 + number)
        return f"{salt:08x}-0000-4000-8000-{number:012x}"


def _uniques(table: Table) -> tuple[tuple[str, ...], ...]:
    return tuple(dict.fromkeys((table.primary_key, *table.uniques) if table.primary_key else table.uniques))
