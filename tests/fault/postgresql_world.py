"""A link between real databases, applications that write to both sides, and a ``dualwrite`` in a process of its own.

Whatever an application does, it notes in a table of its own database, ``tally``, in the same transaction.  So it is
known exactly what has been committed, also where a commit's answer was lost with the server or the network.
"""

from __future__ import annotations

import io
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import psycopg

from dualwrite import cli
from dualwrite.journal import Journal
from dualwrite.model import Side
from dualwrite.testing.postgresql import Database

COUNTERS = 5
PATIENCE = 240.0
LINK = "faulty"
Names = tuple[str, str, str, str, str]

ITEM: Names = ("item", "code", "name", "qty", "note")
PRODUCT: Names = ("product", "number", "title", "quantity", "remark")
LEFT = """
CREATE TABLE item (code text PRIMARY KEY NOT NULL, name varchar(40), qty integer, note text);
CREATE TABLE tally (id integer PRIMARY KEY GENERATED ALWAYS AS IDENTITY, code text, what text, name text);
"""
RIGHT = """
CREATE TABLE product (productid uuid PRIMARY KEY DEFAULT gen_random_uuid(), number text NOT NULL UNIQUE,
    title varchar(40), quantity integer, remark text);
CREATE TABLE tally (id integer PRIMARY KEY GENERATED ALWAYS AS IDENTITY, code text, what text, name text);
"""
SQLITE = """
PRAGMA journal_mode = WAL;
CREATE TABLE product (productid TEXT PRIMARY KEY DEFAULT (lower(hex(randomblob(16)))), number TEXT NOT NULL UNIQUE,
    title VARCHAR(40), quantity INTEGER, remark TEXT);
CREATE TABLE tally (id INTEGER PRIMARY KEY, code TEXT, what TEXT, name TEXT);
"""
MAP = """
map: items
left: item
right: product
key: [number]
columns:
  - code = number
  - name = title
  - qty = quantity: {conflict: sum}
  - note = remark
"""


# -- databases -------------------------------------------------------------------------------------------------------


class Session(Protocol):
    """An application's connection, in autocommit mode."""

    def do(self, *statements: tuple[str, Sequence[object]]) -> None:
        """Statements in one transaction; ``?`` are the places of values."""

    def close(self) -> None:
        """End it."""


@dataclass
class PostgresqlSession:
    """See ``Session``."""

    connection: psycopg.Connection[tuple[Any, ...]]

    def do(self, *statements: tuple[str, Sequence[object]]) -> None:
        """See ``Session``."""
        with self.connection.transaction():
            for statement, values in statements:
                self.connection.execute(statement.replace("?", "%s").encode(), values)

    def close(self) -> None:
        """See ``Session``."""
        self.connection.close()


@dataclass
class SqliteSession:
    """See ``Session``."""

    connection: sqlite3.Connection

    def do(self, *statements: tuple[str, Sequence[object]]) -> None:
        """See ``Session``."""
        with self.connection:
            self.connection.execute("BEGIN IMMEDIATE")
            for statement, values in statements:
                self.connection.execute(statement, tuple(values))

    def close(self) -> None:
        """See ``Session``."""
        self.connection.close()


@dataclass
class System:
    """One side: a PostgreSQL database, or a SQLite file.  ``url`` may lead around it, through a proxy for instance."""

    side: Side
    names: Names
    database: Database | None = None
    file: Path = Path()
    url: str = ""

    def __post_init__(self) -> None:
        """Its own url unless told otherwise."""
        self.url = self.url or (self.database.url if self.database else f"sqlite:///{self.file}")

    def session(self) -> Session:
        """An application's connection, around any proxy."""
        if self.database is not None:
            return PostgresqlSession(self.database.connect())
        return SqliteSession(sqlite3.connect(self.file, timeout=PATIENCE, isolation_level=None))

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        """What a query tells."""
        if self.database is not None:
            return self.database.run(statement)
        with closing(sqlite3.connect(self.file, timeout=PATIENCE)) as database:
            return database.execute(statement).fetchall()

    def records(self) -> dict[str, tuple[Any, ...]]:
        """The mapped records by key: name, quantity, note."""
        table, key, name, quantity, note = self.names
        return {row[0]: row[1:] for row in self.rows(f"SELECT {key}, {name}, {quantity}, {note} FROM {table}")}

    def commits(self) -> int:
        """The number of our last commit here."""
        meta = f"dualwrite_{LINK}.meta" if self.database is not None else f"dualwrite_{LINK}_meta"
        return int(self.rows(f"SELECT value FROM {meta} WHERE name = 'commits'")[0][0])

    def wal(self) -> int:
        """Where the server's log ends."""
        return int(self.rows("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn")[0][0])

    def let_go(self) -> int:
        """Up to where the server need not keep its log for the link."""
        slots = (
            "SELECT confirmed_flush_lsn - '0/0'::pg_lsn FROM pg_replication_slots WHERE database = current_database()"
        )
        return int(self.rows(slots)[0][0])

    def insert(self, code: str, name: str, quantity: int = 0) -> None:
        """An application adds a record, and notes it."""
        table, key, title, amount, _ = self.names
        with closing(self.session()) as session:
            session.do(
                (f"INSERT INTO {table} ({key}, {title}, {amount}) VALUES (?, ?, ?)", (code, name, quantity)),
                (TALLY, (code, "name", name)),
            )


TALLY = "INSERT INTO tally (code, what, name) VALUES (?, ?, ?)"


# -- applications ----------------------------------------------------------------------------------------------------


class Writer(threading.Thread):
    """An application: inserts, edits, deletes and counts with plain SQL until told to stop.

    It opens a new connection where one was lost, for as long as ``forgiving``.
    """

    def __init__(
        self,
        system: System,
        prefix: str,
        seed: int,
        forgiving: bool = False,
        pause: float = 0.03,
        counting: bool = True,
    ) -> None:
        super().__init__(daemon=True)
        self.system, self.prefix, self.forgiving, self.pause = system, prefix, forgiving, pause
        self.counting = counting
        self.random = random.Random(seed)
        self.stop = threading.Event()
        self.codes: list[str] = []
        self.commits = 0
        self.lost = 0
        self.trouble: BaseException | None = None

    def run(self) -> None:
        """Write until told to stop."""
        try:
            while not self.stop.is_set():
                self._connected()
        except BaseException as trouble:
            self.trouble = trouble

    def _connected(self) -> None:
        try:
            with closing(self.system.session()) as session:
                while not self.stop.is_set():
                    session.do(*self.act())
                    self.commits += 1
                    self.stop.wait(self.pause)  # a busy application, not a benchmark: others need their turns
        except psycopg.OperationalError:
            self.lost += 1
            if not self.forgiving:
                raise
            self.stop.wait(0.05)

    def act(self) -> list[tuple[str, Sequence[object]]]:
        """One transaction."""
        table, key, name, quantity, note = self.system.names
        choice, text = self.random.random(), f"{self.prefix} {self.random.randrange(10**6)}"
        if choice < 0.4 and self.counting:
            code = f"counter{self.random.randrange(COUNTERS)}"
            return [
                (f"UPDATE {table} SET {quantity} = {quantity} + 1 WHERE {key} = ?", (code,)),
                (TALLY, (code, "count", None)),
            ]
        if choice < 0.65 or len(self.codes) < 5:
            self.codes.append(f"{self.prefix}{len(self.codes)}")
            return [
                (f"INSERT INTO {table} ({key}, {name}, {quantity}) VALUES (?, ?, 0)", (self.codes[-1], text)),
                (TALLY, (self.codes[-1], "name", text)),
            ]
        code = self.random.choice(self.codes)
        if choice < 0.95:
            return [
                (f"UPDATE {table} SET {name} = ?, {note} = 'n' WHERE {key} = ?", (text, code)),
                (TALLY, (code, "edit", text)),
            ]
        return [(f"DELETE FROM {table} WHERE {key} = ?", (code,)), (TALLY, (code, "gone", None))]


def in_order(told: Sequence[str], *wanted: str) -> bool:
    """Do these stand there, in this order?"""
    rest = iter(told)
    return all(what in rest for what in wanted)


# -- the link --------------------------------------------------------------------------------------------------------


@dataclass
class Engine:
    """A ``dualwrite`` that runs as a process of its own; what it says goes to a file."""

    process: subprocess.Popen[bytes]
    output: Path

    def said(self) -> str:
        """Everything that it has said so far."""
        return self.output.read_text()

    def is_alive(self) -> bool:
        """Does it run?"""
        return self.process.poll() is None

    def kill(self) -> None:
        """``kill -9`` of it and whatever it may have started."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def end(self, number: int = signal.SIGTERM) -> int:
        """Ask it to end; its exit code."""
        self.process.send_signal(number)
        return self.finished()

    def finished(self) -> int:
        """Wait until it has ended by itself; its exit code."""
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"it does not end: {self.said()}") from None
        finally:
            assert "Traceback" not in self.said(), self.said()


@dataclass(frozen=True)
class Answer:
    """What a command has said at its end."""

    returncode: object
    stdout: str
    stderr: str


@dataclass
class World:
    """A project folder and its two systems."""

    folder: Path
    left: System
    right: System
    environment: Mapping[str, str] = field(default_factory=dict)
    runs: int = 0

    def __post_init__(self) -> None:
        """Write the project."""
        (self.folder / "maps").mkdir(parents=True, exist_ok=True)
        (self.folder / "maps" / "items.yaml").write_text(MAP)
        self.settle()

    def settle(self) -> None:
        """Write down where both systems are now."""
        lines = [f'{system.side}: {{name: {system.side}, url: "{system.url}"}}\n' for system in self.systems]
        (self.folder / "dualwrite.yaml").write_text(f"link: {LINK}\n{''.join(lines)}")

    @property
    def systems(self) -> tuple[System, System]:
        """Both sides."""
        return self.left, self.right

    def counters(self) -> None:
        """Records that both sides will count with."""
        for number in range(COUNTERS):
            self.left.insert(f"counter{number}", "counter")

    # -- commands

    def command(self, *words: str) -> list[str]:
        """The words of a command line."""
        return [sys.executable, "-m", "dualwrite.cli", *words, "-C", str(self.folder)]

    def call(self, *words: str) -> Answer:
        """A command, run to its end in this process; one that hangs is interrupted."""
        out, err, code = io.StringIO(), io.StringIO(), None
        watchdog = threading.Timer(PATIENCE, os.kill, (os.getpid(), signal.SIGINT))
        watchdog.daemon = True
        watchdog.start()
        try:
            with self._as_called(*words), redirect_stdout(out), redirect_stderr(err):
                cli.main()
        except SystemExit as ended:
            code = ended.code
        finally:
            watchdog.cancel()
        return Answer(code, out.getvalue(), err.getvalue())

    @contextmanager
    def _as_called(self, *words: str) -> Iterator[None]:
        argv, environment = sys.argv, dict(os.environ)
        sys.argv = ["dualwrite", *words, "-C", str(self.folder)]
        os.environ.update(self.environment, COLUMNS="400")
        try:
            yield
        finally:
            sys.argv = argv
            os.environ.clear()
            os.environ.update(environment)

    def asks(self, *words: str) -> str:
        """A command that must go well; what it says."""
        done = self.call(*words)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def status(self) -> dict[str, Any]:
        """What ``status`` says of the map, with the ``problems`` of the link."""
        told = json.loads(self.call("status", "--json").stdout)
        return {**told["maps"][0], "problems": told["problems"]}

    @cached_property
    def journal(self) -> Journal:
        """The link's journal."""
        return Journal.open(self.folder)

    def state(self) -> str:
        """The state of the map, as the journal has it."""
        state = self.journal.states().get("items")
        return "" if state is None else state.state

    def queued(self) -> int:
        """How many changes wait, as the journal has it."""
        return sum(each.changes for each in self.journal.backlogs.queued("items").get("items", {}).values())

    def grows(self, engine: Engine, by: int) -> None:
        """Wait until so many more changes wait."""
        wanted = self.queued() + by
        self.until(lambda: self.queued() >= wanted, engine)

    def told(self) -> list[str]:
        """The activity log, oldest first."""
        return [event.what for event in reversed(self.journal.events(limit=10_000))]

    def moved(self) -> None:
        """Say that folder and systems are the same as before, at another place."""
        done = self.call("relink", "--moved", "--yes")
        assert done.returncode == 0, done.stdout + done.stderr

    def sync(self) -> None:
        """Carry everything; it must go well."""
        done = self.call("run", "--until-idle")
        assert done.returncode == 0, done.stdout + done.stderr

    def start(self, *words: str) -> Engine:
        """An engine in a group of its own, so that a kill meets whatever it may have started."""
        self.runs += 1
        output = self.folder / f"run{self.runs}.txt"
        environment = os.environ | dict(self.environment) | {"PYTHONUNBUFFERED": "1", "COLUMNS": "400"}
        with output.open("wb") as out:
            process = subprocess.Popen(
                self.command("run", *words), stdout=out, stderr=subprocess.STDOUT, process_group=0, env=environment
            )
        return Engine(process, output)

    @contextmanager
    def running(self) -> Iterator[Engine]:
        """The same, once the map runs for the first time."""
        with self.engine() as engine:
            self.until(lambda: self.state() == "running", engine)
            yield engine

    @contextmanager
    def engine(self, *words: str) -> Iterator[Engine]:
        """A running engine, ended with the block."""
        engine = self.start(*words)
        try:
            yield engine
        finally:
            if engine.is_alive():
                engine.kill()

    # -- load

    @contextmanager
    def load(
        self, forgiving: bool = False, pause: float = 0.03, counting: bool = True
    ) -> Iterator[tuple[Writer, Writer]]:
        """Applications that write on both sides for as long as the block lasts."""
        writers = (
            Writer(self.left, "L", 1, forgiving, pause, counting),
            Writer(self.right, "R", 2, forgiving, pause, counting),
        )
        for writer in writers:
            writer.start()
        try:
            yield writers
        finally:
            for writer in writers:
                writer.stop.set()
                writer.join(PATIENCE)
        for writer in writers:
            assert writer.trouble is None, writer.trouble
            assert not writer.is_alive()

    def moves(self, engine: Engine, sides: Sequence[System] = ()) -> None:
        """Wait until the engine has committed on these sides (both) again."""
        before = [(system, system.commits()) for system in sides or self.systems]
        self.until(lambda: all(system.commits() > count for system, count in before), engine)

    @staticmethod
    def until(condition: Callable[[], object], engine: Engine | None = None, every: float = 0.1) -> None:
        """Wait until something holds, while the engine lives."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            told = engine.said() if engine else ""
            assert engine is None or engine.is_alive(), told
            assert time.monotonic() < deadline, f"it does not come about; {told}"
            time.sleep(every)

    def carried(self, engine: Engine) -> None:
        """Wait until a running engine has brought both sides together, once the applications rest."""
        self.until(lambda: self.left.records() == self.right.records(), engine, 0.3)

    # -- what must hold

    def expected(self) -> dict[str, tuple[str | None, int]]:
        """Name and quantity of each record, from what the applications have noted."""
        found: dict[str, tuple[str | None, int]] = {}
        for system in self.systems:
            for code, what, name in system.rows("SELECT code, what, name FROM tally ORDER BY id"):
                former, quantity = found.get(code, (None, 0))
                if what == "name" or (what == "edit" and code in found):
                    found[code] = name, quantity
                elif what == "count":
                    found[code] = former, quantity + 1
                elif what == "gone":
                    found.pop(code, None)
        return found

    def proves(self) -> None:
        """Both sides hold exactly what the applications did, by our own look and by ``verify``; nothing is parked."""
        left, right = self.left.records(), self.right.records()
        apart = {code: (left.get(code), right.get(code)) for code in left | right if left.get(code) != right.get(code)}
        assert not apart, f"of {len(left)} and {len(right)} records, these differ: {apart}"
        assert {code: (name, quantity) for code, (name, quantity, _) in left.items()} == self.expected()
        verified = self.call("verify", "--json")
        assert verified.returncode == 0, verified.stdout + verified.stderr
        assert json.loads(verified.stdout)["maps"][0]["equal"] == len(left)
        parked = self.call("parked", "list", "--json")
        assert parked.returncode == 0, parked.stdout

    def keeps_the_masters(self) -> None:
        """Both sides agree, and hold everything that the left side's applications did, as the master of a sync."""
        self.agrees()
        wanted = {code: found for code, found in self.expected().items() if not code.startswith("R")}
        found = {code: (name, quantity) for code, (name, quantity, _) in self.left.records().items()}
        assert len(wanted) > COUNTERS
        assert wanted.items() <= found.items()

    def refused(self, *words: str) -> str:
        """What ``run`` says when it ends with exit code 1, all of ``words`` among it; it must name a remedy."""
        done = self.call("run", "--until-idle")
        assert done.returncode == 1, done.stdout + done.stderr
        for word in (*words, "→"):
            assert word in done.stderr, done.stderr
        return done.stderr

    def agrees(self) -> None:
        """Both sides hold the same records, and nothing is parked."""
        assert self.left.records() == self.right.records()
        for words in (("verify",), ("parked", "list"), ("status",)):
            done = self.call(*words)
            assert done.returncode == 0, done.stdout + done.stderr

    def start_again(self) -> None:
        """What a lost position asks for: stop the maps, and start them again, which compares both sides."""
        for words in (("stop", "--yes"), ("start",)):
            done = self.call(*words)
            assert done.returncode == 0, done.stdout + done.stderr
        self.sync()
        self.agrees()

    def lives(self) -> None:
        """Changes flow both ways."""
        self.left.insert(f"late left {self.runs}", "late")
        self.right.insert(f"late right {self.runs}", "late")
        self.sync()
        self.agrees()
        assert {f"late left {self.runs}", f"late right {self.runs}"} <= self.left.records().keys()
