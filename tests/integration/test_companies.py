"""Companies that come into a running link, and leave it, on both databases."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from dualwrite.engine.supervisor import Engine
from dualwrite.journal import Journal
from dualwrite.mapping.compile import compile_map
from dualwrite.mapping.notation import read_map
from dualwrite.model import Side

from .conftest import Pair
from .test_keys_and_companies import CUSTOMERS, World
from .test_keys_and_companies import world as world  # the fixture

L, R = Side.LEFT, Side.RIGHT
CUSTOMER = "SELECT area, account, name FROM customer ORDER BY area, account"
ACCOUNT = "SELECT code, number, name FROM account JOIN company c ON c.id = company ORDER BY code, number"


class Crash(BaseException):
    """The process dies here."""


def started(world: World, *companies: str, crash: str = "", text: str = CUSTOMERS, paused: bool = False) -> None:
    """Restart the link with these companies, perhaps with its map paused; perhaps it dies at a point."""
    engine = getattr(world, "_engine", None)
    if engine is not None:
        engine.close()
    schemas = [world._connectors[side].schema() for side in Side]
    world.compiled = compile_map(read_map(text, "map.yaml"), *schemas, companies=companies or None)
    wanted = "paused" if paused else "running"
    world.journal.set_state(world.compiled.name, desired=wanted, master="left")

    def point(name: str) -> None:
        if name == crash:
            world._engine.close()
            raise Crash

    world._engine = Engine("test", world._connectors, [world.compiled], world.journal, point=point, folder=world.folder)
    world._stack.callback(world._engine.close)
    world._engine.open()
    world._engine.reconcile()
    world._engine.drain()


@pytest.fixture
def linked(world: World, tmp_path: Path) -> World:
    """A link with one company; the other one has records on both sides, and they differ."""
    world.folder = tmp_path / "syncs"
    for area in ("usmf", "demf"):
        for number in (1, 2, 3):
            world.run[L](f"INSERT INTO customer VALUES ('{area}', 'C{number}', 'left')")
    world.run[R]("INSERT INTO account VALUES (90, 'right', 2, 'C1'), (91, 'right', 2, 'C2'), (92, 'right', 2, 'C9')")
    started(world, "usmf")
    return world


def last(world: World) -> tuple[str, tuple[str, ...] | None, dict[tuple[Side, str], tuple[int, ...]]]:
    """Why the last initial sync was, for whom, and what it did: read, inserted, updated, unchanged."""
    run = world.journal.syncs.list()[0]
    counts = {(c.side, c.company): (c.read, c.inserted, c.updated, c.unchanged) for c in run.counts}
    return run.why, run.companies, counts


def test_a_company_that_comes_in_is_synced_alone(linked: World) -> None:
    """What was written to its records before does not count; the others' changes are carried as ever."""
    linked.run[L]("UPDATE customer SET name = 'later' WHERE area = 'usmf' AND account = 'C1'")
    linked.run[L]("UPDATE customer SET name = 'left too' WHERE area = 'demf' AND account = 'C1'")
    linked.run[L]("DELETE FROM customer WHERE area = 'demf' AND account = 'C2'")
    linked.run[R]("DELETE FROM account WHERE number = 'C3' AND company = 1")
    started(linked, "usmf", "demf")
    assert linked.verdict().clean
    wanted = [
        ("demf", "C1", "left too"),
        ("demf", "C2", "right"),  # nobody had taken the company into the link when it was deleted
        ("demf", "C3", "left"),
        ("demf", "C9", "right"),
        ("usmf", "C1", "later"),
        ("usmf", "C2", "left"),
    ]
    assert linked.run[L](CUSTOMER) == linked.run[R](ACCOUNT) == wanted
    why, companies, counts = last(linked)
    assert (why, companies) == ("companies", ("demf",))
    assert counts == {(L, "demf"): (2, 2, 0, 0), (R, "demf"): (3, 1, 1, 0)}
    assert {"companies added", "companies brought together"} <= {e.what for e in linked.journal.events()}
    linked.run[R]("UPDATE account SET name = 'from the right' WHERE number = 'C9'")
    linked.run[L]("DELETE FROM customer WHERE area = 'demf' AND account = 'C1'")
    assert linked.verdict().clean
    assert linked.run[L](CUSTOMER) == linked.run[R](ACCOUNT)
    assert ("demf", "C9", "from the right") in linked.run[L](CUSTOMER)


@pytest.mark.parametrize("crash", ["before commit", "after commit", "between chunks", "between passes"])
def test_a_company_whose_sync_is_killed_comes_in_all_the_same(linked: World, crash: str) -> None:
    """What users write meanwhile on either side is carried."""
    with suppress(Crash):
        started(linked, "usmf", "demf", crash=crash)
    linked.run[R]("UPDATE account SET name = 'meanwhile' WHERE number = 'C9'")
    linked.run[L]("UPDATE customer SET name = 'meanwhile' WHERE area = 'demf' AND account = 'C3'")
    linked.run[L]("DELETE FROM customer WHERE area = 'demf' AND account = 'C1'")
    started(linked, "usmf", "demf")
    assert linked.verdict().clean
    both = linked.run[L](CUSTOMER)
    assert both == linked.run[R](ACCOUNT)
    assert [row for row in both if row[0] == "demf"] == [
        ("demf", "C2", "left"),
        ("demf", "C3", "meanwhile"),
        ("demf", "C9", "meanwhile"),
    ]
    assert [run.outcome for run in linked.journal.syncs.list()] == ["done", "done"]
    assert linked.journal.syncs.list()[0].resumed == 1


@pytest.mark.parametrize("crash", ["before acknowledge", "after acknowledge"])
def test_what_was_done_before_a_company_came_in_does_not_come_back(linked: World, crash: str) -> None:
    """However often the feeds are read again, which know of it until both sides have let go of it."""
    linked.run[R]("DELETE FROM account WHERE number = 'C9'")  # nothing of the company goes from right to left
    linked.run[R]("UPDATE account SET name = 'before' WHERE company = 2")
    with suppress(Crash):
        started(linked, "usmf", "demf", crash=crash)
    linked.run[L]("UPDATE customer SET name = 'behind' WHERE area = 'demf' AND account = 'C2'")
    with suppress(Crash):
        started(linked, "usmf", "demf", crash=crash)
    started(linked, "usmf", "demf")
    both = linked.run[L](CUSTOMER)
    assert both == linked.run[R](ACCOUNT)
    assert [row[1:] for row in both if row[0] == "demf"] == [("C1", "left"), ("C2", "behind"), ("C3", "left")]
    assert not linked.journal.conflicts({})
    assert linked.verdict().clean


def test_a_company_comes_in_while_its_map_is_paused(linked: World) -> None:
    """What was written to its records does not queue: they are brought together once the map runs again."""
    started(linked, "usmf", paused=True)
    linked.run[L]("UPDATE customer SET name = 'outside' WHERE area = 'demf'")
    started(linked, "usmf", "demf", paused=True)
    linked.run[L]("UPDATE customer SET name = 'left too' WHERE area = 'demf' AND account = 'C1'")
    linked.run[L]("UPDATE customer SET name = 'queued' WHERE area = 'usmf' AND account = 'C1'")
    linked.run[R]("UPDATE account SET name = 'right too' WHERE number = 'C2' AND company = 2")
    linked.run[R]("DELETE FROM account WHERE number = 'C1' AND company = 2")
    linked._engine.drain()
    started(linked, "usmf", "demf")
    assert not linked.journal.parked({})
    both = linked.run[L](CUSTOMER)
    assert both == linked.run[R](ACCOUNT)
    assert [row for row in both if row[0] == "demf" or row[1] == "C1"] == [
        ("demf", "C1", "left too"),
        ("demf", "C2", "outside"),
        ("demf", "C3", "outside"),
        ("demf", "C9", "right"),
        ("usmf", "C1", "queued"),
    ]
    assert linked.verdict().clean


def test_a_map_is_paused_behind_a_companys_sync_that_was_killed(linked: World) -> None:
    """Once all of the company is carried, what users write is in the queue, and nothing of it is lost."""
    with suppress(Crash):
        started(linked, "usmf", "demf", crash="between passes")
    started(linked, "usmf", "demf", paused=True)
    linked.run[L]("UPDATE customer SET name = 'behind' WHERE area = 'demf' AND account = 'C1'")
    linked.run[R]("UPDATE account SET name = 'behind' WHERE number = 'C9'")
    linked._engine.drain()
    started(linked, "usmf", "demf")
    both = linked.run[L](CUSTOMER)
    assert both == linked.run[R](ACCOUNT)
    assert {("demf", "C1", "behind"), ("demf", "C9", "behind")} <= set(both)
    assert not linked.journal.parked({})
    assert linked.verdict().clean


def test_a_company_that_leaves_is_detached(linked: World) -> None:
    """Its records stay on both sides, nothing of them flows, and when it comes back they are synced again."""
    started(linked, "usmf", "demf")
    started(linked, "usmf")
    linked.run[L]("UPDATE customer SET name = 'alone' WHERE area = 'demf'")
    linked.run[R]("UPDATE account SET name = 'alone too' WHERE number = 'C9'")
    assert linked.verdict().clean
    assert ("demf", "C3", "left") in linked.run[R](ACCOUNT)
    assert linked.journal.events()[0].what == "companies removed: detached"
    started(linked, "demf", "usmf")
    assert linked.verdict().clean
    assert ("demf", "C9", "alone") in linked.run[R](ACCOUNT)
    assert last(linked)[1] == ("demf",)


def test_a_wider_filter_brings_the_rest_along(linked: World) -> None:
    """A map whose filter has changed is compared once more."""
    narrow = CUSTOMERS + "filter:\n  left: \"name ne 'left'\"\n"
    linked.run[L]("UPDATE customer SET name = 'other' WHERE account = 'C1'")
    linked.verdict()
    started(linked, "usmf", "demf", text=narrow)
    assert last(linked)[0] == "filters"
    assert ("demf", "C3", "left") not in linked.run[R](ACCOUNT)
    started(linked, "usmf", "demf")
    assert last(linked)[0] == "filters"
    assert linked.verdict().clean
    assert ("demf", "C3", "left") in linked.run[R](ACCOUNT)


TWO = """
CREATE TABLE customer (area TEXT NOT NULL, account TEXT NOT NULL, name TEXT, PRIMARY KEY (area, account));
INSERT INTO customer VALUES ('usmf', 'C1', 'one'), ('demf', 'C1', 'two'), ('frmf', 'C1', 'three');
"""
MAP = """\
map: customers
left: customer
right: customer
company: area = area
key: [account]
columns:
  - area = area
  - account = account
  - name = name
"""


@pytest.fixture
def two(tmp_path: Path, pair) -> Iterator[Pair]:
    """A project on two files, for one company."""
    for file, script in (("left.db", TWO), ("right.db", TWO.partition("INSERT")[0])):
        with closing(sqlite3.connect(tmp_path / file)) as database:
            database.executescript(script)
    urls = {str(side): f"sqlite:///{tmp_path / side}.db" for side in Side}
    project = pair(urls, {"customers": MAP})
    project.settings = project.folder / "dualwrite.yaml"
    project.plain = project.settings.read_text()
    project.settings.write_text(f"{project.plain}companies: [usmf]\n")
    return project


def areas(project: Pair) -> list[str]:
    """The companies whose records have come to the right side."""
    with closing(sqlite3.connect(project.folder.parent / "right.db", timeout=60)) as database:
        return [area for (area,) in database.execute("SELECT area FROM customer ORDER BY area")]


def told(project: Pair) -> list[str]:
    """The activity log, newest first."""
    with Journal.open(project.folder) as journal:  # commands refuse a project whose file is wrong
        return [event.what for event in journal.events()]


def test_a_running_engine_takes_companies_from_its_file(two: Pair) -> None:
    """Others go on meanwhile; what cannot be read changes nothing, and a company that leaves is detached."""
    with two.engine() as engine:
        two.until(lambda: areas(two) == ["usmf"])
        two.settings.write_text(f"{two.plain}companies: [usmf, demf]\n")
        two.until(lambda: "companies brought together" in told(two))
        assert areas(two) == ["demf", "usmf"]
        two.settings.write_text(f"{two.plain}companies: 7\n")
        two.until(lambda: told(two)[0] == "dualwrite.yaml cannot be read; what it said before goes on")
        two.settings.write_text(f"{two.plain}companies: [demf]\n")
        two.until(lambda: told(two)[0] == "companies removed: detached")
        with closing(sqlite3.connect(two.folder.parent / "left.db", timeout=60)) as database, database:
            database.execute("UPDATE customer SET name = 'alone' WHERE area = 'usmf'")
            database.execute("UPDATE customer SET name = 'carried' WHERE area = 'demf'")
        two.until(two.agree)
        assert engine.poll() is None
        assert "alert rules read anew" not in told(two)
        assert two.end(engine).code == 0
    with closing(sqlite3.connect(two.folder.parent / "right.db")) as database:
        assert database.execute("SELECT name FROM customer ORDER BY area").fetchall() == [("carried",), ("one",)]


def test_a_record_of_a_company_is_asked_for_by_names(two: Pair) -> None:
    """Of either side, in any order; one that was asked for in another order is not there, by these names."""
    two.sync()
    assert two.call("explain", "customers", "area=usmf", "account=C1").code == 0
    assert two.call("explain", "customers", "C1,usmf").code == 0
    wrong = two.call("explain", "customers", "usmf", "C1", "--json")
    assert wrong.json()["verdict"].startswith("neither side has a record with account 'usmf', area 'C1'")
