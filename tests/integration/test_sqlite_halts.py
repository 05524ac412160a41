"""What was done to an SQLite table behind the link's back stops its maps alone, with the reason."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from .conftest import PATIENCE, Pair

TABLES = """
CREATE TABLE terms (code TEXT PRIMARY KEY, days INTEGER);
CREATE TABLE customers (account TEXT PRIMARY KEY, name VARCHAR(40), terms TEXT REFERENCES terms);
CREATE TABLE items (code TEXT PRIMARY KEY, name TEXT);
INSERT INTO terms VALUES ('N30', 30);
INSERT INTO customers VALUES ('C1', 'Contoso', 'N30');
INSERT INTO items VALUES ('I1', 'Bolt');
"""
MAPS = {
    "terms": "map: terms\nleft: terms\nright: terms\nkey: [code]\ncolumns:\n  - code = code\n  - days = days\n",
    "customers": "map: customers\nleft: customers\nright: customers\nkey: [account]\ncolumns:\n"
    "  - account = account\n  - name = name\n  - terms.code = terms.code\n",
    "items": "map: items\nleft: items\nright: items\nkey: [code]\ncolumns:\n  - code = code\n  - name = name\n",
}
DONE = {
    "DROP TABLE items; CREATE TABLE items (code TEXT PRIMARY KEY, name TEXT);": "table items was created anew",
    "ALTER TABLE items RENAME TO things;": "table items was renamed to things",
    'DROP TRIGGER "dualwrite_lot:items:update";': "triggers on items were dropped or replaced",
}
MENDED = {"ALTER TABLE items RENAME TO things;": "ALTER TABLE things RENAME TO items;"}


class Lot(Pair):
    """A project on two SQLite files, with one map for each table."""

    def app(self, script: str, side: str = "left") -> None:
        """What an application does."""
        with closing(sqlite3.connect(self.folder / f"{side}.db", timeout=PATIENCE)) as database:
            database.executescript(script)

    def right(self, query: str) -> object:
        """What a query tells of the right side."""
        with closing(sqlite3.connect(self.folder / "right.db", timeout=PATIENCE)) as database:
            return database.execute(query).fetchone()[0]

    def states(self) -> dict[str, tuple[str, str]]:
        """Per map its state and the reason."""
        return {each["map"]: (each["state"], each["reason"]) for each in self.call("status", "--json").json()["maps"]}

    def flows(self, word: str) -> None:
        """An edit of a customer arrives."""
        self.app(f"UPDATE customers SET name = '{word}';")
        self.until(lambda: self.right("SELECT name FROM customers") == word)


@pytest.fixture
def lot(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Lot:
    """The project, brought together once."""
    urls = {side: f"sqlite:///{side}.db" for side in ("left", "right")}
    made = Lot(tmp_path / "lot", capsys, monkeypatch, urls, MAPS)
    for side in urls:
        made.app(TABLES, side)
    assert made.sync().code == 0
    return made


def test_a_running_link_stops_the_map_that_is_touched(lot: Lot) -> None:
    """The others go on; once it is mended, starting the map compares both sides, beside the running engine."""
    with lot.engine():
        for number, (done, told) in enumerate(DONE.items()):
            lot.app(done)
            lot.until(lambda: lot.states()["items"][0] == "needs attention")
            assert told in lot.states()["items"][1]
            assert lot.states()["customers"] == ("running", "")
            lot.flows(f"beside {number}")
            lot.app(MENDED.get(done, ""))
            assert lot.call("start", "items").code == 0
            lot.app(f"INSERT OR REPLACE INTO items VALUES ('I1', 'name {number}');")
            lot.until(lambda number=number: lot.right("SELECT name FROM items") == f"name {number}")
        assert lot.agree()
    events = [e for e in reversed(lot.call("log", "--map", "items", "--json").json()) if "needs attention" in e["what"]]
    assert all(told in e["detail"]["reason"] for e, told in zip(events, DONE.values(), strict=True))


def test_the_next_run_stops_the_map_that_was_touched_meanwhile(lot: Lot) -> None:
    """Also where no engine saw it happen: ``check`` tells before, the run stops it alone, and a start mends it."""
    for done, told in DONE.items():
        if done in MENDED:
            continue
        lot.app(done, "right")
        found = lot.call("check", "--json").json()["problems"]
        assert told in " ".join(each["message"] for each in found if each["code"] == "sqlite_interrupted")
        lot.app(f"UPDATE customers SET name = 'behind {len(told)}';")
        assert lot.sync().code == 1
        assert lot.states()["items"][0] == "needs attention"
        assert lot.right("SELECT name FROM customers") == f"behind {len(told)}"
        assert lot.call("start", "items").code == 0
        assert lot.sync().code == 0
        assert lot.agree()


def test_what_was_done_to_a_table_is_told_exactly(lot: Lot) -> None:
    """Column by column, by ``check`` and by the run that stops its map alone; a column that is added stops nothing."""
    for side in ("left", "right"):
        lot.app("ALTER TABLE items ADD COLUMN added TEXT;", side)
    assert lot.sync().code == 0
    (told,) = [
        e["detail"]["changes"] for e in lot.call("log", "--map", "items", "--json").json() if "tables" in e["what"]
    ]
    assert told == [f"{side}: column items.added was added: the map does not read it" for side in ("left", "right")]
    lot.app(
        "CREATE TABLE anew (code TEXT PRIMARY KEY, name VARCHAR(20), added TEXT); INSERT INTO anew SELECT * FROM items;"
        "DROP TABLE items; ALTER TABLE anew RENAME TO items;",
        "right",
    )
    problems = lot.call("check", "--json").json()["problems"]
    found = [(each["code"], each["level"], each["map"], each["side"]) for each in problems]
    assert ("schema_changed", "error", "items", "right") in found
    assert lot.sync().code == 1
    state, reason = lot.states()["items"]
    assert state == "needs attention"
    assert "right: column items.name was changed from text to text(20): values may have been cut" in reason
    refreshed = lot.call("maps", "refresh", "--json")
    assert refreshed.code == 1
    (items,) = [each for each in refreshed.json()["maps"] if each["map"] == "items"]
    assert [(each["side"], each["meaning"]) for each in items["changes"]] == [("right", "sync")]
    assert lot.call("start", "items").code == 0
    assert lot.sync().code == 0
    assert lot.agree()


def test_a_file_that_cannot_be_read_keeps_no_map_from_going_on(lot: Lot) -> None:
    """Its last version is carried; commands that need the file say what is wrong, and once mended it counts."""
    file = lot.folder / "maps" / "items.yaml"
    file.write_text(MAPS["items"].replace("columns:", "columns"))
    lot.app("UPDATE items SET name = 'with a typo';")
    ran = lot.sync()
    assert ran.code == 1
    assert "items.yaml" in ran.out + ran.err
    assert lot.right("SELECT name FROM items") == "with a typo"
    state, reason = lot.states()["items"]
    assert state == "running"
    assert "goes on as its last version says" in reason
    file.write_text(MAPS["items"])
    lot.app("UPDATE items SET name = 'mended';")
    assert lot.sync().code == 0
    assert lot.states()["items"] == ("running", "")
    assert lot.right("SELECT name FROM items") == "mended"
    assert [run["map"] for run in lot.call("syncs", "list", "--json").json()].count("items") == 1
