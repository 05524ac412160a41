"""Random work on tables that refer to themselves and to each other: the feed tells every state of all that is shown."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Sequence

import pytest

from dualwrite.model import ABSENT, Change, Row
from dualwrite.schema import View
from dualwrite.testing.sqlite import Laboratory, view

SCRIPT = """
CREATE TABLE grp (
    id INTEGER PRIMARY KEY, code TEXT NOT NULL UNIQUE, name TEXT,
    boss INTEGER REFERENCES grp ON UPDATE CASCADE DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE item (
    id INTEGER PRIMARY KEY, code TEXT NOT NULL UNIQUE, v TEXT,
    grp INTEGER REFERENCES grp ON DELETE {action} ON UPDATE CASCADE DEFERRABLE INITIALLY DEFERRED,
    parent INTEGER REFERENCES item ON DELETE SET NULL ON UPDATE CASCADE);
"""
NAMED = """
CREATE TABLE grp (
    code TEXT PRIMARY KEY, name TEXT,
    boss TEXT REFERENCES grp ON UPDATE CASCADE DEFERRABLE INITIALLY DEFERRED) WITHOUT ROWID;
CREATE TABLE item (
    code TEXT PRIMARY KEY, v TEXT,
    grp TEXT REFERENCES grp ON DELETE {action} ON UPDATE CASCADE DEFERRABLE INITIALLY DEFERRED,
    parent TEXT REFERENCES item ON DELETE SET NULL ON UPDATE CASCADE) WITHOUT ROWID;
"""
TRIGGERS = (
    "",
    "CREATE TRIGGER t AFTER UPDATE OF name ON grp BEGIN UPDATE item SET v = 'h' || NEW.name WHERE grp = NEW.{id}; END",
    "CREATE TRIGGER t AFTER INSERT ON item BEGIN UPDATE grp SET name = 'n' || NEW.code WHERE {id} = NEW.grp; END",
    """CREATE TRIGGER t AFTER DELETE ON grp BEGIN
        UPDATE item SET grp = (SELECT min({id}) FROM grp WHERE {id} <> OLD.{id}) WHERE grp = OLD.{id}; END""",
)
VIEWS = (
    view("grp", "code", "name", "boss.code", "boss.name"),
    view("item", "code", "v", "grp.code", "grp.name", "parent.code", "parent.v", "parent.grp.code", "grp.boss.code"),
)
POOLS = {
    "c": ["A", "B", "C"],
    "d": ["w", "x", "y", "z"],
    "g": [1, 2, 3],
    "h": [1, 2, 3, None],
    "i": [1, 2, 3, 4],
    "k": [1, 2, 3, 4, None],
    "n": ["1", "2", "3", None],
}
BY_ID = [
    "INSERT INTO grp VALUES (:g, :c, :n, :h)",
    "INSERT OR REPLACE INTO grp VALUES (:g, :c, :n, :h)",
    "UPDATE grp SET code = :c WHERE id = :g",
    "UPDATE OR REPLACE grp SET code = :c, name = :n WHERE id = :g",
    "UPDATE grp SET name = :n WHERE id = :g",
    "UPDATE grp SET boss = :h WHERE id = :g",
    "UPDATE grp SET id = :h WHERE id = :g AND :h IS NOT NULL",
    "DELETE FROM grp WHERE id = :g",
    "INSERT INTO item VALUES (:i, :d, :n, :h, :k)",
    "UPDATE item SET grp = :h WHERE id = :i",
    "UPDATE item SET grp = :h",
    "UPDATE item SET parent = :k, v = :n WHERE id = :i",
    "UPDATE item SET code = :d, v = :n WHERE id = :i",
    "UPDATE item SET id = :k WHERE id = :i AND :k IS NOT NULL",
    "DELETE FROM item WHERE id = :i",
]
BY_NAME = [
    "INSERT INTO grp VALUES (:g, :n, :h)",
    "INSERT OR REPLACE INTO grp VALUES (:g, :n, :h)",
    "UPDATE grp SET code = :h WHERE code = :g AND :h IS NOT NULL",
    "UPDATE grp SET name = :n WHERE code = :g",
    "UPDATE grp SET boss = :h WHERE code = :g",
    "DELETE FROM grp WHERE code = :g",
    "INSERT INTO item VALUES (:i, :n, :h, :k)",
    "UPDATE item SET grp = :h WHERE code = :i",
    "UPDATE item SET parent = :k, v = :n WHERE code = :i",
    "UPDATE item SET code = :k WHERE code = :i AND :k IS NOT NULL",
    "DELETE FROM item WHERE code = :i",
]


class Told:
    """What a reader of the feed believes; a cell that is told as not known leaves nothing to compare with."""

    def __init__(self) -> None:
        self._rows: dict[str, dict[str, Row]] = {one.name: {} for one in VIEWS}

    def follow(self, change: Change) -> None:
        """Take a change that must fit what was told before."""
        rows = self._rows[change.view]
        held = rows.pop(str(change.key[0]), None)
        assert (held is None) == (change.before is None), change
        assert held is None or change.before is None or agree(held, change.before), (held, change)
        if change.after is not None:
            code = str(change.after[0])
            assert code not in rows, change
            rows[code] = change.after

    def check(self, view: View, shown: Sequence[Row]) -> None:
        """The table shows this."""
        held = self._rows[view.name]
        assert held.keys() == {row[0] for row in shown}
        for row in shown:
            assert agree(row, held[str(row[0])]), (row, held[str(row[0])])


def agree(one: Row, other: Row) -> bool:
    """Are the cells that both know the same?"""
    return all(a == b or ABSENT in (a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("seed", range(24))
def test_the_feed_tells_what_lookups_lead_to(tmp_path, monkeypatch: pytest.MonkeyPatch, seed: int, named: bool) -> None:
    """Read at once or late, the changes of each transaction lead from what was shown before it to what is behind."""
    monkeypatch.setattr("dualwrite.connectors._sqlite_onlookers.CHUNK", seed % 3 or 1000)
    monkeypatch.setattr("dualwrite.connectors._sqlite_onlookers._MANY", 1 + seed % 3)
    run(Laboratory(tmp_path, script(seed, named)), random.Random(f"{seed} {named}"), named)


def script(seed: int, named: bool) -> str:
    """The tables of a history."""
    tables = (NAMED if named else SCRIPT).format(action=("CASCADE", "SET NULL", "NO ACTION")[seed % 3])
    return f"{tables}{TRIGGERS[seed % 4].format(id='code' if named else 'id')};"


def run(it: Laboratory, chance: random.Random, named: bool) -> None:
    """One random history."""
    it.install(*VIEWS)
    it.app.execute("PRAGMA foreign_keys = ON")
    told = Told()
    states: list[tuple[int, list[list[Row]]]] = []
    position = it.connector.end()
    for _ in range(25):
        work(it.app, chance, BY_NAME if named else BY_ID)
        states.append((it.connector.end().place[0], [it.rows(one) for one in VIEWS]))
        if chance.random() < 0.5:
            continue
        changes: list[Change] = []
        while position < it.connector.end():
            feed = it.connector.feed(VIEWS, position)
            batch = feed.read(chance.choice([1, 2, 3, 100]), 0)
            feed.close()
            changes += batch.changes
            position = batch.position
        for end, shown in states:
            while changes and changes[0].position.place[0] < end:
                told.follow(changes.pop(0))
            for one, rows in zip(VIEWS, shown, strict=True):
                told.check(one, rows)
        states = []
    it.close()


def work(app: sqlite3.Connection, chance: random.Random, statements: Sequence[str]) -> None:
    """One transaction of some statements; what the database refuses is tried in vain."""
    app.execute("BEGIN IMMEDIATE")
    for _ in range(chance.randint(1, 4)):
        try:
            app.execute(chance.choice(statements), {name: chance.choice(pool) for name, pool in POOLS.items()})
        except sqlite3.IntegrityError:
            continue
    try:
        app.execute("COMMIT")
    except sqlite3.IntegrityError:
        app.execute("ROLLBACK")
