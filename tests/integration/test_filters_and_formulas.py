"""Filters and formulas over columns outside of the map and over lookups, on both databases, in both directions."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from dualwrite.connectors.base import Connector
from dualwrite.connectors.postgresql import open_postgresql
from dualwrite.connectors.sqlite import open_sqlite
from dualwrite.engine.supervisor import Engine
from dualwrite.engine.verify import verify
from dualwrite.journal import Journal
from dualwrite.mapping.compile import CompiledMap, compile_map
from dualwrite.mapping.notation import read_map
from dualwrite.model import Side
from dualwrite.testing.postgresql import Server

L, R = Side.LEFT, Side.RIGHT
SCRIPT = """
CREATE TABLE region (code text PRIMARY KEY, zone text);
CREATE TABLE town (code text PRIMARY KEY, title text, region text REFERENCES region (code));
CREATE TABLE shop (code text PRIMARY KEY, name text, state text, rank integer, town text REFERENCES town (code));
INSERT INTO region VALUES ('N', 'eu'), ('S', 'us');
INSERT INTO town VALUES ('a', 'Aachen', 'N'), ('b', 'Boston', 'S'), ('c', NULL, NULL);
"""
"""One schema for both sides; a shop's zone is two lookups away."""

Run = Callable[..., list[tuple[object, ...]]]


class World:
    """Two databases of one kind, with people who write, and an engine between them."""

    def __init__(self, stack: ExitStack, runs: dict[Side, Run], connectors: dict[Side, Connector]) -> None:
        """``runs`` execute statements as people do."""
        self.run = runs
        self._stack = stack
        self._connectors = connectors
        self.journal = Journal.open("sqlite://")
        stack.callback(self.journal.close)

    def start(self, text: str, master: Side = L) -> None:
        """Compile a map of the shops and let it run."""
        text = f"map: shops\nleft: shop\nright: shop\nkey: [code]\n{text}"
        self.compiled: CompiledMap = compile_map(
            read_map(text, "shops.yaml"), *(self._connectors[side].schema() for side in Side)
        )
        self.journal.set_state("shops", desired="running", master=master.value)
        self.engine = Engine("test", self._connectors, [self.compiled], self.journal)
        self._stack.callback(self.engine.close)
        self.engine.open()
        self.engine.reconcile()
        self.engine.drain()

    def shops(self, side: Side, columns: str = "code, name") -> list[tuple[object, ...]]:
        """What people see there."""
        self.engine.drain()
        return self.run[side](f"SELECT {columns} FROM shop ORDER BY code")  # columns of the test's own

    def is_clean(self) -> bool:
        """Nothing is parked, and both sides agree."""
        self.engine.drain()
        return not self.journal.parked({}) and verify(self.compiled, self._connectors).clean


def _sqlite(stack: ExitStack, folder: Path) -> World:
    runs: dict[Side, Run] = {}
    connectors: dict[Side, Connector] = {}
    for side in Side:
        file = folder / f"{side}.db"
        people = stack.enter_context(closing(sqlite3.connect(file, isolation_level=None)))
        people.executescript(f"PRAGMA journal_mode = WAL; {SCRIPT}")
        runs[side] = lambda sql, people=people: people.execute(sql).fetchall()
        connectors[side] = open_sqlite(f"sqlite:///{file}", link="test", side=side)
        stack.callback(connectors[side].close)
    return World(stack, runs, connectors)


def _postgresql(stack: ExitStack, server: Server) -> World:
    runs: dict[Side, Run] = {}
    connectors: dict[Side, Connector] = {}
    for side in Side:
        database = stack.enter_context(server.database(SCRIPT))
        runs[side] = database.run
        connectors[side] = open_postgresql(database.url, link="test", side=side)
        stack.callback(connectors[side].close)
    return World(stack, runs, connectors)


@pytest.fixture(params=["sqlite", "postgresql"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """Each kind of database in turn."""
    with ExitStack() as stack:
        if request.param == "sqlite":
            yield _sqlite(stack, tmp_path)
        else:
            yield _postgresql(stack, request.getfixturevalue("postgresql"))


def insert(code: str, name: str, state: str = "open", rank: int = 1, town: str = "a") -> str:
    """The statement for a new shop."""
    return f"INSERT INTO shop VALUES ('{code}', '{name}', '{state}', {rank}, '{town}')"


@pytest.mark.parametrize(
    ("side", "written", "enters", "leaves"),
    [
        (L, "state eq 'open' and rank gt 0", "state = 'open'", "state = 'shut'"),
        (R, """{xpp: '((shop.state == "open") && (Shop.rank > 0))'}""", "rank = 2", "rank = 0"),
        (L, """{xpp: '(state like "o?e*")'}""", "state = 'oqe'", "state = 'o'"),
        (R, "town/title eq 'Aachen'", "town = 'a'", "town = 'b'"),
        (L, "town/region/zone eq 'eu'", "town = 'a'", "town = 'b'"),
        (R, "startswith(town/region/zone, 'e') or town eq null", "town = NULL", "town = 'c'"),
    ],
)
def test_a_filter_decides_what_is_carried(world: World, side: Side, written: str, enters: str, leaves: str) -> None:
    """In the initial sync and afterwards, records inside of the filter are carried, and none outside of it."""
    run, there = world.run[side], side.other
    run(insert("1", "in"))
    run(insert("2", "out"))
    run(f"UPDATE shop SET {leaves} WHERE code = '2'")
    world.start(f"filter:\n  {side}: {written}\ncolumns:\n  - code = code\n  - name = name\n")
    assert world.shops(there) == [("1", "in")]
    run(insert("3", "in"))
    run("UPDATE shop SET name = 'still out' WHERE code = '2'")
    assert world.shops(there) == [("1", "in"), ("3", "in")]
    run(f"UPDATE shop SET {enters} WHERE code = '2'")
    run(f"UPDATE shop SET {leaves} WHERE code = '1'")
    run("UPDATE shop SET name = 'detached' WHERE code = '1'")
    assert world.shops(there) == [("1", "in"), ("2", "still out"), ("3", "in")]
    world.run[there]("UPDATE shop SET name = 'back' WHERE code = '2'")
    assert ("2", "back") in world.shops(side)
    assert world.is_clean()


@pytest.mark.parametrize("side", Side)
def test_a_filter_follows_the_record_that_it_looks_up(world: World, side: Side) -> None:
    """What a parent lets into the filter of its children is carried; what it bars is detached."""
    run, there = world.run[side], side.other
    run(insert("1", "in"))
    run(insert("2", "out", town="b"))
    world.start(f"filter:\n  {side}: town/region/zone eq 'eu'\ncolumns:\n  - code = code\n  - name = name\n")
    assert world.shops(there) == [("1", "in")]
    run("UPDATE region SET zone = 'eu' WHERE code = 'S'")
    assert world.shops(there) == [("1", "in"), ("2", "out")]
    run("UPDATE town SET region = NULL WHERE code = 'a'")
    run("UPDATE shop SET name = 'detached' WHERE code = '1'")
    assert world.shops(there) == [("1", "in"), ("2", "out")]
    assert world.is_clean()


FORMULA = """
columns:
  - code = code
  - rank = rank
  - none >> name: {expr: "upper(name) & ' in ' & coalesce(town.title, '?') & ', ' & town.region.zone"}
  - none >> state: {expr: "if(rank > 5, 'top', state)", trim: true}
"""


def test_what_is_computed_follows_its_columns(world: World) -> None:
    """Columns outside of the map and over lookups are computed with, and edits on either side are followed."""
    left, right = world.run[L], world.run[R]
    left(insert("1", "x", state=" open "))
    right(insert("2", "mine", rank=9))
    world.start(FORMULA)
    columns = "code, name, state, rank"
    assert world.shops(R, columns) == [("1", "X in Aachen, eu", "open", 1), ("2", " in ?, ", "top", 9)]
    left("UPDATE shop SET town = 'b', name = 'y' WHERE code = '1'")
    right("UPDATE shop SET rank = 6 WHERE code = '1'")
    assert world.shops(R, columns)[0] == ("1", "Y in Boston, us", "top", 6)
    right("UPDATE shop SET name = 'mine', state = 'mine' WHERE code = '1'")
    assert world.shops(R, columns)[0] == ("1", "Y in Boston, us", "top", 6)
    assert world.is_clean()
    left("UPDATE town SET title = 'Bath' WHERE code = 'b'")
    left("UPDATE region SET zone = 'uk' WHERE code = 'S'")
    assert world.shops(R, columns)[0] == ("1", "Y in Bath, uk", "top", 6)
    assert world.is_clean()


CHAIN = """
columns:
  - code = code
  - name << name: {default: none}
  - none >> state: {expr: name & '!'}
"""


def test_what_is_written_back_feeds_what_is_made_of_it(world: World) -> None:
    """A chain of one-way columns to and fro is followed to its end."""
    world.run[L](insert("1", "mine"))
    world.run[R](insert("2", "x", state="?"))
    world.start(CHAIN)
    assert world.shops(L) == [("1", "none"), ("2", "x")]
    assert world.shops(R, "code, name, state") == [("1", None, "none!"), ("2", "x", "x!")]
    world.run[R]("UPDATE shop SET name = 'y' WHERE code = '1'")
    world.run[L]("UPDATE shop SET name = 'mine' WHERE code = '2'")
    assert world.shops(R, "code, state") == [("1", "y!"), ("2", "x!")]
    assert world.shops(L) == [("1", "y"), ("2", "x")]
    assert world.is_clean()
