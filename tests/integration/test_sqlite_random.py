"""Random work of an application and of the link: the feed always tells exactly what becomes of the tables."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Sequence

import pytest

from dualwrite.connectors._sqlite_feed import SqliteFeed
from dualwrite.model import Applied, Change, Kind, Rejected, Row, Write
from dualwrite.schema import Lookup, View
from dualwrite.testing.example import drain
from dualwrite.testing.sqlite import Laboratory, view

SCRIPT = """
CREATE TABLE head (id INTEGER PRIMARY KEY, no TEXT NOT NULL UNIQUE, title TEXT COLLATE NOCASE, tag TEXT UNIQUE);
CREATE TABLE line (
    id INTEGER PRIMARY KEY, head INTEGER NOT NULL REFERENCES head ON DELETE CASCADE ON UPDATE CASCADE,
    n TEXT NOT NULL, v TEXT, ref INTEGER REFERENCES head ON DELETE SET NULL ON UPDATE CASCADE, UNIQUE (head, n));
CREATE TABLE rate (a TEXT, b TEXT, v NUMERIC(9,2), u TEXT UNIQUE, PRIMARY KEY (a, b)) WITHOUT ROWID;
"""
TRIGGERS = {
    "": "",
    "before": """CREATE TRIGGER stamp AFTER UPDATE OF title ON head
        BEGIN UPDATE line SET v = 'h:' || NEW.title WHERE head = NEW.id AND n = 'a'; END;""",
    "after": """CREATE TRIGGER stamp AFTER UPDATE OF v ON line WHEN NEW.v IS NOT NULL AND NEW.v NOT LIKE '%!'
        BEGIN UPDATE line SET v = NEW.v || '!' WHERE id = NEW.id; END;""",
    "steps": """CREATE TRIGGER stamp AFTER UPDATE OF v ON line WHEN NEW.v IS NOT NULL AND NEW.v NOT LIKE '%!'
        BEGIN UPDATE line SET v = NEW.v || '!' WHERE id = NEW.id; UPDATE head SET title = NEW.v WHERE id = NEW.head;
        UPDATE line SET v = v || '!' WHERE id = NEW.id; END;""",
}
LATE = ("after", "steps")  # triggers that are newer than ours
HEADS = view("head", "no", "title", "tag")
LINES = view(
    "line",
    "head.no",
    "n",
    "v",
    "ref.no",
    key=2,
    lookups=[Lookup("head", ((("no",), 0),), (0,)), Lookup("ref", ((("no",), 3),), (3,))],
)
RATES = view("rate", "a", "b", "v", "u", key=2)
VIEWS = (HEADS, LINES, RATES)


class Application:
    """Random statements; what the database refuses is tried in vain."""

    def __init__(self, connection: sqlite3.Connection, chance: random.Random) -> None:
        self._connection = connection
        self._chance = chance

    def work(self) -> str:
        """One transaction of some statements."""
        chance = self._chance
        statements = [chance.choice(STATEMENTS) for _ in range(chance.randint(1, 4))]
        self._connection.execute("BEGIN IMMEDIATE")
        for statement in statements:
            values = {name: chance.choice(pool) for name, pool in POOLS.items()}
            try:
                self._connection.execute(statement, values)
            except sqlite3.IntegrityError:
                continue
        self._connection.execute("COMMIT" if chance.random() < 0.9 else "ROLLBACK")
        return "; ".join(statements)


POOLS = {
    "id": [1, 2, 3, 4],
    "other": [1, 2, 3, 4, None],
    "no": ["A", "B", "C", "D"],
    "title": ["x", "X", "y", None],
    "tag": ["t1", "t2", None],
    "n": ["a", "b"],
    "line": [1, 2, 3, 4, 5],
    "v": [None, "1", "2.50", "2.5"],
}
STATEMENTS = [
    "INSERT INTO head (id, no, title, tag) VALUES (:id, :no, :title, :tag)",
    "INSERT OR REPLACE INTO head (id, no, title, tag) VALUES (:id, :no, :title, :tag)",
    "INSERT OR IGNORE INTO head (id, no, title, tag) VALUES (:id, :no, :title, :tag)",
    "INSERT INTO head (no, title) VALUES (:no, :title) ON CONFLICT (no) DO UPDATE SET title = excluded.title",
    "UPDATE head SET no = :no WHERE id = :id",
    "UPDATE head SET title = :title WHERE id = :id",
    "UPDATE OR REPLACE head SET no = :no, tag = :tag WHERE id = :id",
    "UPDATE head SET id = :other WHERE id = :id AND :other IS NOT NULL",
    "DELETE FROM head WHERE id = :id",
    "INSERT INTO line (head, n, v, ref) VALUES (:id, :n, :v, :other)",
    "INSERT OR REPLACE INTO line (id, head, n, v, ref) VALUES (:line, :id, :n, :v, :other)",
    "UPDATE line SET v = :v WHERE n = :n",
    "UPDATE OR REPLACE line SET n = :n, head = :id WHERE id = :line",
    "UPDATE line SET ref = :other WHERE id = :line",
    "DELETE FROM line WHERE id = :line",
    "INSERT OR REPLACE INTO rate VALUES (:no, :n, :v, :tag)",
    "UPDATE OR REPLACE rate SET a = :no, u = :tag WHERE b = :n AND a = 'A'",
    "UPDATE rate SET v = :v",
    "DELETE FROM rate WHERE a = :no",
]


class Replica:
    """What a reader of snapshot and feed believes to be in the tables."""

    def __init__(self, it: Laboratory, chance: random.Random) -> None:
        self._it = it
        self._chance = chance
        self._position = self._kept = it.connector.end()
        self._told: list[Change] = []
        self.rows: dict[str, dict[tuple, Row]] = {
            one.name: {self.key(one, row): row for row in it.rows(one)} for one in VIEWS
        }

    @staticmethod
    def key(view: View, row: Row) -> tuple:
        """The key of a row."""
        return tuple(row[index] for index in view.key)

    def drain(self) -> None:
        """Follow the feed in pieces, with restarts and trimming; every change must fit what was there."""
        end = self._it.connector.end()
        while self._position < end:
            if self._chance.random() < 0.1:
                self._it.connector.close()
                self._it.connector = self._it.connect()
            feed = self._it.connector.feed(VIEWS, self._position)
            batch = feed.read(self._chance.choice([1, 2, 3, 100]), 0)
            feed.close()
            self._follow(batch.changes)
            self._told += batch.changes
            self._position = batch.position
            if self._chance.random() < 0.03:
                self._it.connector.acknowledge(self._position)
                self._it.connector.trim()
                self._kept, self._told = self._position, []

    def _follow(self, changes: Sequence[Change]) -> None:
        by_name = {one.name: one for one in VIEWS}
        for change in changes:
            held = self.rows[change.view]
            assert change.before == held.pop(change.key, None), change
            assert (change.before is None) == (change.kind is Kind.INSERT), change
            if change.after is not None:
                key = self.key(by_name[change.view], change.after)
                assert key not in held, change
                held[key] = change.after

    def check_again(self) -> None:
        """What users did to a record is told as before, whatever has been written behind it."""
        feed = self._it.connector.feed(VIEWS, self._kept)
        again = [change for batch in drain(feed, self._it.connector.end()) for change in batch.changes]
        feed.close()
        told = direct(self._told)
        assert direct(again)[: len(told)] == told

    def check(self) -> None:
        """The tables hold what the feed has told."""
        for one in VIEWS:
            assert sorted(self.rows[one.name].values(), key=repr) == self._it.rows(one), one.name


def direct(changes: Sequence[Change]) -> list[Change]:
    """Changes of records themselves, not of those that look them up (which may have gone since)."""
    return [change for change in changes if len(change.position.place) == 2]


def our_work(it: Laboratory, replica: Replica, chance: random.Random) -> None:
    """One transaction of ours with random writes, most of them expecting what is there."""
    target = chance.choice((HEADS, *VIEWS))
    rows = list(replica.rows[target.name].values())
    writes = []
    for row in chance.sample(rows, min(len(rows), chance.randint(0, 2))):
        wanted = None if chance.random() < 0.2 else changed(target, row, chance)
        writes.append(Write(replica.key(target, row), row, wanted))
    if chance.random() < 0.5:
        row = random_row(target, chance)
        writes.append(Write(replica.key(target, row), None, row))
    keys = {write.key for write in writes}
    if len(keys) < len(writes):
        return
    held = replica.rows[target.name]
    outcomes = it.write(target, *writes)
    for write, outcome in zip(writes, outcomes, strict=True):
        if isinstance(outcome, Applied):
            held.pop(write.key, None)
    for write, outcome in zip(writes, outcomes, strict=True):
        if isinstance(outcome, Applied) and write.row is not None:
            held[replica.key(target, write.row)] = write.row
        assert not isinstance(outcome, Rejected) or outcome.code in ("unique", "reference", "required"), outcome


def random_row(target: View, chance: random.Random) -> Row:
    """A row of any view."""
    pools = {
        "head": ["no", "title", "tag"],
        "line": ["no", "n", "v", "no"],
        "rate": ["no", "n", "v", "tag"],
    }[target.name]
    row = [chance.choice(POOLS[name]) for name in pools]
    if target is RATES and row[2] is not None:
        row[2] = {"1": "1.00", "2.50": "2.50", "2.5": "2.50"}[row[2]]
    return tuple(row)


def changed(target: View, row: Row, chance: random.Random) -> Row:
    """The row with one or two cells of another."""
    other = random_row(target, chance)
    indexes = {chance.randrange(len(row)) for _ in range(chance.randint(1, 2))}
    return tuple(other[i] if i in indexes else cell for i, cell in enumerate(row))


@pytest.mark.parametrize("trigger", list(TRIGGERS))
@pytest.mark.parametrize("seed", range(12))
def test_the_feed_tells_what_becomes_of_the_tables(
    tmp_path, monkeypatch: pytest.MonkeyPatch, seed: int, trigger: str
) -> None:
    """Whatever users, triggers, cascades and the link itself do, snapshot and feed together show the tables."""
    monkeypatch.setattr("dualwrite.connectors._sqlite_onlookers.CHUNK", seed % 3 or 1000)
    monkeypatch.setattr("dualwrite.connectors._sqlite_onlookers._MANY", 1 + seed % 3)
    if seed % 2:  # triggers that stay newer than ours
        monkeypatch.setattr(SqliteFeed, "_mend", lambda _: None)
    run(tmp_path, seed, trigger)


def run(tmp_path, seed: int, trigger: str) -> None:
    """One random history."""
    chance = random.Random(f"{seed}{trigger}")
    it = Laboratory(tmp_path, SCRIPT + (TRIGGERS[trigger] if trigger not in LATE else ""))
    it.install(*VIEWS)
    if trigger in LATE:
        it.app.executescript(TRIGGERS[trigger])
    it.app.execute("PRAGMA foreign_keys = ON")
    application = Application(it.app, chance)
    replica = Replica(it, chance)
    for _ in range(40):
        application.work()
        if chance.random() < 0.6:
            replica.drain()
            replica.check()
            if chance.random() < 0.5:
                our_work(it, replica, chance)
                if trigger not in LATE:  # there, what a row is now decides on orders in doubt
                    replica.check_again()
                replica.drain()
                replica.check()
    it.close()
