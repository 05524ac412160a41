"""What no change can tell, or was done to a table behind the link's back, stops its maps alone, with the reason."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import monotonic, sleep

import pytest

from dualwrite.connectors import _pg_feed
from dualwrite.engine import commands
from dualwrite.engine.runner import Runner
from dualwrite.engine.status import status_of
from dualwrite.engine.verify import verify
from dualwrite.engine.workspace import Workspace, opened
from dualwrite.errors import PositionLost
from dualwrite.journal import MapState
from dualwrite.model import Side
from dualwrite.project import load
from dualwrite.testing.postgresql import Database, Server

LEFT, RIGHT = Side.LEFT, Side.RIGHT
TABLES = """
CREATE TABLE terms (code text PRIMARY KEY, days int);
CREATE TABLE customers (account text PRIMARY KEY, name text, terms text REFERENCES terms ON DELETE SET NULL);
CREATE TABLE items (code text PRIMARY KEY, name text, extra text);
INSERT INTO terms VALUES ('N30', 30);
INSERT INTO customers VALUES ('C1', 'Contoso', 'N30');
INSERT INTO items VALUES ('I1', 'Bolt'), ('I2', 'Nut');
"""
MAPS = {
    "terms": "key: [code]\ncolumns:\n  - code = code\n  - days = days\n",
    "customers": "key: [account]\ncolumns:\n  - account = account\n  - name = name\n  - terms.code = terms.code\n",
    "items": "key: [code]\ncolumns:\n  - code = code\n  - name = name\n",
}
PATIENCE = 240.0


def until(condition: Callable[[], object]) -> None:
    """Wait until something holds."""
    deadline = monotonic() + PATIENCE
    while not condition():
        assert monotonic() < deadline, "it does not come about"
        sleep(0.02)


def is_there(state: MapState) -> bool:
    """Does the map run, if it is wanted to?"""
    return state.state in ("running", "needs attention") or state.desired == "stopped"


class Pair:
    """A project on two databases, with one map for each table."""

    def __init__(self, folder: Path, databases: dict[Side, Database]) -> None:
        """Write the project."""
        self.folder, self.databases = folder, databases
        (folder / "maps").mkdir()
        for name in MAPS:
            self.write_map(name)
        urls = (f'{side}: {{name: {side}, url: "{databases[side].url}"}}\n' for side in Side)
        (folder / "dualwrite.yaml").write_text("link: pair\n" + "".join(urls))

    def write_map(self, name: str, text: str = "") -> None:
        """Write a map's file."""
        (self.folder / "maps" / f"{name}.yaml").write_text(
            f"map: {name}\nleft: {name}\nright: {name}\n{text or MAPS[name]}"
        )

    def run_all(self, side: Side, statements: str) -> None:
        """Several statements, each a transaction."""
        with self.databases[side].connect() as session:
            for statement in filter(None, statements.split("; ")):
                session.execute(statement.encode())

    def sql(self, side: Side, statement: str) -> list[tuple]:
        """What an application does."""
        return self.databases[side].run(statement)

    @contextmanager
    def work(self) -> Iterator[Workspace]:
        """The project as a command opens it."""
        with opened(load(self.folder)) as work:
            yield work

    def state(self, name: str) -> tuple[str, str]:
        """A map's state, and the reason for it."""
        with self.work() as work:
            return next((row["state"], row["reason"]) for row in status_of(work) if row["map"] == name)

    def start(self, *names: str) -> None:
        """``dualwrite start``."""
        with self.work() as work:
            commands.start(work, work.chosen(names), master=None, initial_sync=True, who="test")

    def refresh(self, *names: str) -> None:
        """``dualwrite maps refresh``."""
        with self.work() as work:
            commands.ask(work, "refresh", {"maps": list(names)})

    def told(self, name: str, what: str) -> str:
        """What the activity log says of a map under some words, newest first."""
        with self.work() as work:
            return "\n".join(str(event.detail) for event in work.journal.events(name) if event.what == what)

    def syncs(self, name: str) -> int:
        """How many initial syncs a map has had."""
        with self.work() as work:
            return len(work.journal.syncs.list(name, 100))

    def parked(self) -> bool:
        """Is anything parked?"""
        with self.work() as work:
            return bool(work.journal.parked(work.numbers()))

    @contextmanager
    def engine(self) -> Iterator[None]:
        """An engine at work; what ends it is raised."""
        trouble: list[BaseException] = []
        with self.work() as work:
            assert work.lease.acquire()
            for name in work.maps:
                if name not in work.journal.states():
                    work.journal.set_state(name, desired="running")
            engine = work.engine()
            engine.open()
            runner = Runner(engine, commands.execute)

            def run() -> None:
                try:
                    runner.run()
                except BaseException as exc:
                    trouble.append(exc)

            thread = threading.Thread(target=run)
            thread.start()
            try:
                until(lambda: trouble or all(map(is_there, work.journal.states().values())))
                yield
            finally:
                runner.stop.set()
                thread.join()
                engine.close()
        if trouble:
            raise trouble[0]

    def arrives(self, table: str, key: str, column: str) -> None:
        """An edit on either side comes to the other one."""
        (name, *_) = MAPS[table].split("[")[1].split("]")
        for side in Side:
            word = f"{side} {monotonic()}"
            self.sql(side, f"UPDATE {table} SET {column} = '{word}' WHERE {name} = '{key}'")
            query = f"SELECT {column} FROM {table} WHERE {name} = '{key}'"
            until(lambda side=side, query=query, word=word: self.sql(side.other, query) == [(word,)])

    def agree(self) -> bool:
        """Do both sides agree?"""
        with self.work() as work:
            settle = commands.settle_with(work)
            return all(verify(one, work.connectors, settle).clean for one in work.maps.values())


@pytest.fixture
def pair(postgresql: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pair]:
    """Two databases with the same content; what feeds depend on is looked at all the time."""
    monkeypatch.setattr(_pg_feed, "_EXAMINE", 0.1)
    monkeypatch.setattr(_pg_feed, "_EXAMINE_BUSY", 0.1)
    with ExitStack() as stack:
        yield Pair(tmp_path, {side: stack.enter_context(postgresql.database(TABLES)) for side in Side})


ITEMS = "CREATE TABLE items (code text PRIMARY KEY, name text)"
DONE = {
    "TRUNCATE items": "emptied by TRUNCATE",
    "ALTER TABLE items DROP name": "column items.name was dropped",
    "ALTER TABLE items RENAME name TO title": "column items.name was dropped or renamed",
    "ALTER TABLE items ALTER name TYPE varchar(60)": "column items.name was changed from text to",
    "DROP TABLE items": "table items was dropped",
    f"BEGIN; DROP TABLE items; {ITEMS}; COMMIT": "table items was created anew",
    "ALTER PUBLICATION dualwrite_pair DROP TABLE items": "was taken out of its publication",
    "ALTER TABLE items REPLICA IDENTITY DEFAULT": "the replica identity of items was changed",
}
MENDED = {
    "ALTER TABLE items DROP name": "ALTER TABLE items ADD name text",
    "ALTER TABLE items RENAME name TO title": "ALTER TABLE items RENAME title TO name",
    "DROP TABLE items": ITEMS,
}


def test_a_running_link_stops_the_map_that_is_touched(pair: Pair) -> None:
    """The others go on; once it is mended, starting the map compares both sides, beside the running engine."""
    with pair.engine():
        for done, told in DONE.items():
            pair.run_all(LEFT, done)
            until(lambda: pair.state("items")[0] == "needs attention")
            assert told in pair.state("items")[1]
            assert pair.state("customers") == ("running", "")
            pair.run_all(LEFT, MENDED.get(done, ""))
            pair.start("items")
            assert pair.state("items") == ("running", "")
            pair.arrives("items", "I1", "name")
        pair.arrives("customers", "C1", "name")
        assert pair.agree()
    with pair.work() as work:
        events = [event for event in reversed(work.journal.events("items")) if "needs attention" in event.what]
        assert [told in str(event.detail["reason"]) for event, told in zip(events, DONE.values(), strict=True)]


def test_the_next_run_stops_the_map_that_was_touched_meanwhile(pair: Pair) -> None:
    """Also where no engine saw it happen."""
    for done in DONE:
        if done in MENDED:
            continue
        with pair.engine():
            if pair.state("items")[0] != "running":
                pair.start("items")
            pair.arrives("items", "I1", "name")
        pair.run_all(RIGHT, done)
        with pair.engine():
            until(lambda: pair.state("items")[0] == "needs attention")
            pair.arrives("customers", "C1", "name")
    with pair.engine():
        pair.start("items")
        pair.arrives("items", "I1", "name")
        assert pair.agree()


def test_a_map_whose_file_has_become_wrong_goes_on_as_it_was(pair: Pair) -> None:
    """Its last version is carried, and the status says so until the file is mended."""
    with pair.engine():
        pass
    pair.write_map("items", MAPS["items"].replace("- name = name", "- nam = name"))
    with pair.engine():
        state, reason = pair.state("items")
        assert state == "running"
        assert "goes on as its last version says" in reason
        assert "nam" in reason
        pair.arrives("items", "I1", "name")
        pair.write_map("items")
        pair.refresh("items")
        assert pair.state("items") == ("running", "")
        pair.arrives("items", "I1", "name")
    assert pair.syncs("items") == 1


def test_a_column_that_takes_more_stops_nothing(pair: Pair) -> None:
    """The map goes on by itself, and carries what fits now; what takes less stops it, and says why."""
    pair.run_all(RIGHT, "ALTER TABLE items ALTER name TYPE varchar(10)")
    with pair.engine():
        pair.sql(RIGHT, "ALTER TABLE items ALTER name TYPE varchar(60)")
        until(lambda: "text(60)" in pair.told("items", "tables changed; goes on"))
        pair.sql(LEFT, "UPDATE items SET name = 'longer than ten letters' WHERE code = 'I1'")
        until(lambda: pair.sql(RIGHT, "SELECT name FROM items WHERE code = 'I1'") == [("longer than ten letters",)])
    pair.sql(RIGHT, "ALTER TABLE items ALTER name TYPE varchar(80)")
    with pair.engine():
        assert "text(80)" in pair.told("items", "tables changed; goes on")
        assert pair.syncs("items") == 1
        pair.sql(RIGHT, "ALTER TABLE items ALTER name TYPE varchar(30) USING left(name, 30)")
        until(lambda: pair.state("items")[0] == "needs attention")
        assert "right: column items.name was changed from text(80) to text(30)" in pair.state("items")[1]
        pair.start("items")
        pair.sql(RIGHT, "ALTER TABLE items ALTER name TYPE varchar(50) USING upper(name)")
        until(lambda: pair.state("items")[0] == "needs attention")
        assert "written anew" in pair.state("items")[1]
        pair.arrives("customers", "C1", "name")


def test_a_map_whose_column_is_dropped_goes_on_where_it_stood(pair: Pair) -> None:
    """Once its file does not name it any more: what people did meanwhile has queued, and there is no initial sync."""
    pair.write_map("items", f"{MAPS['items']}  - extra = extra\n")
    with pair.engine():
        pair.sql(LEFT, "ALTER TABLE items DROP extra")
        until(lambda: pair.state("items")[0] == "needs attention")
        assert "left: column items.extra was dropped or renamed" in pair.state("items")[1]
        pair.sql(LEFT, "UPDATE items SET name = 'meanwhile' WHERE code = 'I1'")
        pair.sql(RIGHT, "INSERT INTO items VALUES ('I3', 'new')")
        pair.refresh("items")
        assert pair.state("items")[0] == "needs attention"
    with pair.engine():
        pair.sql(RIGHT, "DELETE FROM items WHERE code = 'I2'")
        pair.arrives("customers", "C1", "name")
        assert pair.sql(RIGHT, "SELECT name FROM items WHERE code = 'I1'") == [("Bolt",)]
        pair.write_map("items")
        pair.refresh("items")
        until(lambda: pair.state("items") == ("running", ""))
        until(
            lambda: pair.sql(LEFT, "SELECT code, name FROM items ORDER BY code") == [("I1", "meanwhile"), ("I3", "new")]
        )
        pair.arrives("items", "I1", "name")
        assert pair.agree()
    assert pair.syncs("items") == 1


def test_a_column_that_comes_back_was_not_followed(pair: Pair) -> None:
    """The map does not simply go on: what happened to the column meanwhile nobody knows."""
    pair.write_map("items", f"{MAPS['items']}  - extra = extra\n")
    with pair.engine():
        pass
    pair.sql(LEFT, "ALTER TABLE items RENAME extra TO other")
    with pair.engine():
        assert pair.state("items")[0] == "needs attention"
        pair.sql(RIGHT, "UPDATE items SET extra = 'not followed' WHERE code = 'I1'")
        pair.arrives("customers", "C1", "name")
        pair.sql(LEFT, "ALTER TABLE items RENAME other TO extra")
        pair.refresh("items")
        assert "extra could not be followed" in pair.state("items")[1]
        pair.start("items")
        assert pair.agree()


def test_a_column_that_must_be_filled_parks_records_alone(pair: Pair) -> None:
    """Where nobody fills it; once it has a default, ``maps refresh`` takes them again."""
    with pair.engine():
        pass
    pair.run_all(RIGHT, "ALTER TABLE items ADD must int NOT NULL DEFAULT 0; ALTER TABLE items ALTER must DROP DEFAULT")
    with pair.engine():
        assert pair.state("items")[0] == "running"
        assert "must not be empty and has no default" in pair.told("items", "tables changed; goes on")
        pair.arrives("items", "I1", "name")
        pair.sql(LEFT, "INSERT INTO items VALUES ('I3', 'new')")
        until(pair.parked)
        pair.sql(RIGHT, "ALTER TABLE items ALTER must SET DEFAULT 7")
        pair.refresh("items")
        assert not pair.parked()
        assert pair.sql(RIGHT, "SELECT name, must FROM items WHERE code = 'I3'") == [("new", 7)]


def test_a_start_that_is_refused_stops_nothing_else(pair: Pair) -> None:
    """A map that cannot be captured says why; the others never notice."""
    with pair.engine():
        with pair.work() as work:
            commands.stop(work, work.chosen(["items"]), who="test")
        pair.sql(LEFT, "CREATE PUBLICATION others FOR TABLE items (code)")
        pair.start("items")
        state, reason = pair.state("items")
        assert state == "needs attention"
        assert "columns" in reason
        pair.arrives("customers", "C1", "name")
        pair.sql(LEFT, "DROP PUBLICATION others")
        pair.start("items")
        pair.arrives("items", "I1", "name")


def test_all_maps_of_an_emptied_table_stop(pair: Pair) -> None:
    """Those that look it up as well; when they start again, the emptying lies behind them for good."""
    with pair.engine():
        pair.sql(LEFT, "TRUNCATE terms CASCADE")
        until(lambda: {pair.state(name)[0] for name in ("terms", "customers")} == {"needs attention"})
        pair.arrives("items", "I1", "name")
        pair.start("terms", "customers")
        assert pair.sql(LEFT, "SELECT * FROM terms") == [("N30", 30)]
        pair.arrives("customers", "C1", "name")
    with pair.engine():
        assert {pair.state(name)[0] for name in MAPS} == {"running"}
        pair.arrives("customers", "C1", "name")
        assert pair.agree()


def test_a_lost_link_tells_the_whole(pair: Pair) -> None:
    """Where changes of any table may have been missed, the engine ends; nothing goes on as if nothing had happened."""

    def lose() -> None:
        with pair.engine():
            pair.sql(LEFT, "DROP PUBLICATION dualwrite_pair")
            until(lambda: not [each for each in threading.enumerate() if each.name.startswith("flow ")])

    with pytest.raises(PositionLost, match="its publication was dropped"):
        lose()
