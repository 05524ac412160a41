"""Two PostgreSQL databases under one engine, while people write on both sides."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import psycopg
import pytest

from dualwrite.connectors._pg_transaction import PostgresqlTransaction
from dualwrite.connectors.base import NO_LIMIT
from dualwrite.connectors.postgresql import open_postgresql
from dualwrite.engine import wishes
from dualwrite.engine.agreeing import AGREE
from dualwrite.engine.apply import Application
from dualwrite.engine.commands import execute
from dualwrite.engine.doing import Notes, doing
from dualwrite.engine.flow import LAGGING, Flow
from dualwrite.engine.ledger import Plan
from dualwrite.engine.restore import Restorer
from dualwrite.engine.runner import Runner
from dualwrite.engine.spool import Weak
from dualwrite.engine.stage import Stage
from dualwrite.engine.supervisor import Engine
from dualwrite.errors import Busy, Unavailable, Usage
from dualwrite.journal import Journal
from dualwrite.mapping.compile import CompiledMap, compile_map
from dualwrite.mapping.notation import read_map
from dualwrite.model import Batch, Position, Side
from dualwrite.testing.postgresql import Database, Server

from .conftest import PATIENCE, Terminal

LEFT = """
CREATE TABLE customers (
  account text PRIMARY KEY, name text, points int NOT NULL DEFAULT 0, tier text DEFAULT 'gold', terms text)
"""
RIGHT = """
CREATE TABLE accounts (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(), number text NOT NULL UNIQUE, name text, points int, tier text,
  terms text)
"""
MAP = """
map: customers
left: customers
right: accounts
key: [number]
columns:
  - account = number
  - name = name
  - points = points: {conflict: sum}
  - tier > tier
  - terms = terms: {conflict: manual}
"""
TIERS = "SELECT number, tier FROM accounts ORDER BY 1"


@pytest.fixture
def databases(postgresql: Server) -> Iterator[dict[Side, Database]]:
    """The two sides."""
    with ExitStack() as stack:
        yield {
            side: stack.enter_context(postgresql.database(script))
            for side, script in ((Side.LEFT, LEFT), (Side.RIGHT, RIGHT))
        }


@pytest.fixture
def engine(databases: dict[Side, Database]) -> Iterator[Engine]:
    """An engine whose one map runs, with a record in step."""
    databases[Side.LEFT].run("INSERT INTO customers VALUES ('C1', 'Contoso', 0)")
    with ExitStack() as stack:
        connectors = {side: open_postgresql(databases[side].url, link="test", side=side) for side in Side}
        for connector in connectors.values():
            stack.callback(connector.close)
        compiled = compile_map(read_map(MAP, ""), *(connectors[side].schema() for side in Side))
        journal = Journal.open("sqlite://")
        stack.callback(journal.close)
        journal.set_state("customers", desired="running")
        engine = Engine("test", connectors, [compiled], journal)
        engine.open()
        stack.callback(engine.close)
        engine.reconcile()
        engine.drain()
        yield engine


@pytest.mark.parametrize("is_read", [False, True], ids=["unread", "read by the other flow"])
def test_an_edit_that_overtakes_a_transaction_is_merged(
    databases: dict[Side, Database], engine: Engine, is_read: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user commits behind our decision and before our write: no increment is lost, none counts twice."""
    write, overtaken = Stage.upserts, list[str]()

    def late(self: Stage) -> None:
        if self.source is Side.LEFT and not overtaken:
            overtaken.append("once")
            databases[Side.RIGHT].run("UPDATE accounts SET points = points + 10")
            while is_read and not engine.flows[Side.RIGHT]._read(1).changes:
                pass
        write(self)

    monkeypatch.setattr(Stage, "upserts", late)
    databases[Side.LEFT].run("UPDATE customers SET points = points + 1")
    while not overtaken:
        engine.flows[Side.LEFT].turn(1)
    engine.flows[Side.RIGHT].reopen()
    engine.drain()
    assert databases[Side.LEFT].run("SELECT points FROM customers") == [(11,)]
    assert databases[Side.RIGHT].run("SELECT points FROM accounts") == [(11,)]
    assert not engine.journal.parked({})


def test_users_who_never_rest_cannot_overtake_for_ever(
    databases: dict[Side, Database], engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who overtakes us when we write, and once more when we have looked, waits then for our locks."""
    prepare, edits = Stage._prepare, list[str]()

    def late(self: Stage, plans: Sequence[Plan]) -> None:
        if self.source is Side.LEFT:
            assert len(edits) < 20, "it is overtaken again and again"
            try:
                databases[Side.RIGHT].run("SET lock_timeout = 100; UPDATE accounts SET points = points + 10")
            except psycopg.errors.LockNotAvailable:
                edits.append("waits")
            else:
                edits.append("overtakes")
        prepare(self, plans)

    monkeypatch.setattr(Stage, "_prepare", late)
    databases[Side.LEFT].run("UPDATE customers SET points = points + 1")
    engine.drain()
    assert edits == ["overtakes", "overtakes", "waits"]
    assert databases[Side.LEFT].run("SELECT points FROM customers") == [(21,)]
    assert databases[Side.RIGHT].run("SELECT points FROM accounts") == [(21,)]


def test_records_that_nobody_has_touched_for_long_need_no_second_look(
    databases: dict[Side, Database], engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The age of the target's record says so; one that a user has just edited is looked at, and merged."""
    looks: list[Position] = []
    since = PostgresqlTransaction.since

    def counted(self: PostgresqlTransaction, after: Position, limit: int = NO_LIMIT) -> Batch:
        looks.append(after)
        return since(self, after, limit)

    monkeypatch.setattr(PostgresqlTransaction, "since", counted)
    for number in range(1, 4):  # what our own last transaction wrote is young as well
        databases[Side.LEFT].run("INSERT INTO customers VALUES (%s, 'new', 0)", f"N{number}")
        engine.drain()
    looks.clear()
    databases[Side.LEFT].run("UPDATE customers SET points = points + 1 WHERE account = 'N1'")
    engine.drain()
    assert not looks
    databases[Side.RIGHT].run("UPDATE accounts SET points = points + 10 WHERE number = 'N1'")
    databases[Side.LEFT].run("UPDATE customers SET points = points + 1 WHERE account = 'N1'")
    while not looks:
        engine.flows[Side.LEFT].turn(1)
    engine.drain()
    for side, table in ((Side.LEFT, "customers"), (Side.RIGHT, "accounts")):
        assert (12,) in databases[side].run(f"SELECT points FROM {table}")


def test_a_locked_record_does_not_hold_up_those_before_it(
    databases: dict[Side, Database], engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch that does not get its locks is divided, until it is one record alone that waits for its user."""
    monkeypatch.setattr("dualwrite.engine.giving_way.PATIENCE", 4)
    databases[Side.LEFT].run("INSERT INTO customers VALUES ('C2', 'Fabrikam', 0)")
    engine.drain()
    with databases[Side.RIGHT].connect() as user:
        user.execute("BEGIN")
        user.execute("SELECT FROM accounts WHERE number = 'C2' FOR UPDATE")
        for account in ("C1", "C2"):
            databases[Side.LEFT].run(f"UPDATE customers SET points = points + 1 WHERE account = '{account}'")
        with pytest.raises(Busy, match="lock"):
            engine.drain()
        query = "SELECT number, points FROM accounts ORDER BY number"
        assert databases[Side.RIGHT].run(query) == [("C1", 1), ("C2", 0)]
        user.execute("ROLLBACK")
    engine.drain()
    assert databases[Side.RIGHT].run(query) == [("C1", 1), ("C2", 1)]


@contextmanager
def locked(database: Database, account: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A user keeps an account locked until the engine says what it waits for; gives what it has said."""
    tell, said = Notes.tell, list[str]()

    def told(self: Notes, what: str) -> None:
        tell(self, what)
        if what:
            said.extend(each.what for each in doing(self._journal))
            user.execute("ROLLBACK")

    with database.connect() as user:
        user.execute("BEGIN")
        user.execute("SELECT FROM accounts WHERE number = %s FOR UPDATE", (account,))
        monkeypatch.setattr(Notes, "tell", told)
        yield said


def test_what_is_written_back_waits_for_a_user_who_keeps_the_record(
    databases: dict[Side, Database], engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gives way as all that is carried does, and says so."""
    databases[Side.RIGHT].run("UPDATE accounts SET tier = 'mine'")
    with locked(databases[Side.RIGHT], "C1", monkeypatch) as said:
        engine.drain()
    assert databases[Side.RIGHT].run(TIERS) == [("C1", "gold")]
    assert [each.partition(": ")[0] for each in said] == ["waits for others' locks in right"]
    assert not doing(engine.journal)


def test_a_locked_record_does_not_keep_others_from_being_written_back(
    databases: dict[Side, Database], engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of many records only the locked one waits."""
    monkeypatch.setattr("dualwrite.engine.giving_way.PATIENCE", 4)
    databases[Side.LEFT].run("INSERT INTO customers VALUES ('C2', 'Fabrikam', 0), ('C3', 'Adatum', 0)")
    engine.drain()
    databases[Side.RIGHT].run("UPDATE accounts SET tier = 'mine'")
    with databases[Side.RIGHT].connect() as user:
        user.execute("BEGIN")
        user.execute("SELECT FROM accounts WHERE number = 'C3' FOR UPDATE")
        with pytest.raises(Busy, match="lock"):
            engine.drain()
        assert databases[Side.RIGHT].run(TIERS) == [("C1", "gold"), ("C2", "gold"), ("C3", "mine")]
        user.execute("ROLLBACK")
    engine.drain()
    assert databases[Side.RIGHT].run(TIERS) == [("C1", "gold"), ("C2", "gold"), ("C3", "gold")]


def test_a_locked_record_does_not_keep_an_initial_sync_from_the_others(
    databases: dict[Side, Database], engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it has found to differ is divided as well, and carried but for the locked record."""
    monkeypatch.setattr("dualwrite.engine.giving_way.PATIENCE", 4)
    engine.journal.set_state("customers", desired="stopped")
    engine.reconcile()
    databases[Side.LEFT].run("INSERT INTO customers VALUES ('C2', 'left', 0), ('C3', 'left', 0)")
    databases[Side.RIGHT].run("INSERT INTO accounts (number, name) VALUES ('C2', 'right'), ('C3', 'right')")
    engine.journal.set_state("customers", desired="running", master="left")
    query, carry = "SELECT count(*) FROM accounts WHERE name = 'left'", Flow.carry_weak
    with databases[Side.RIGHT].connect() as user, monkeypatch.context() as patch:

        def late(self: Flow, weak: Weak) -> None:
            user.execute("BEGIN")
            user.execute("SELECT FROM accounts WHERE number = 'C3' FOR UPDATE")
            carry(self, weak)

        patch.setattr(Flow, "carry_weak", late)
        with pytest.raises(Busy, match="lock"):
            engine.reconcile()
        assert databases[Side.RIGHT].run(query) == [(1,)]
        user.execute("ROLLBACK")
    engine.close()
    engine.open()
    engine.reconcile()
    engine.drain()
    assert databases[Side.RIGHT].run(query) == [(2,)]


@pytest.mark.parametrize("wish", ["pause", "stop"])
def test_an_engine_that_waits_for_a_lock_takes_orders(
    databases: dict[Side, Database], engine: Engine, wish: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A map can be paused, and the engine stopped, while a user keeps a record into which something is written back."""
    monkeypatch.setattr("dualwrite.engine.giving_way.PATIENCE", 8)
    databases[Side.RIGHT].run("UPDATE accounts SET tier = 'mine'")
    runner = Runner(engine, execute)
    running = threading.Thread(target=runner.run, daemon=True)
    with databases[Side.RIGHT].connect() as user:
        user.execute("BEGIN")
        user.execute("SELECT FROM accounts FOR UPDATE")
        running.start()
        Terminal.until(lambda: doing(engine.journal))
        if wish == "pause":
            engine.journal.set_state("customers", desired="paused")
            assert engine.journal.await_answer(wishes.tell(engine.journal), PATIENCE) is not None
            assert engine.journal.states()["customers"].state == "paused"
        runner.stop.set()
        running.join(PATIENCE)
        assert not running.is_alive()
        user.execute("ROLLBACK")
    engine.open()
    engine.journal.set_state("customers", desired="running")
    engine.reconcile()
    engine.drain()
    assert databases[Side.RIGHT].run(TIERS) == [("C1", "gold")]


def test_a_change_is_taken_back_once_a_user_lets_go_of_the_record(
    databases: dict[Side, Database], engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Taking back waits for locks, and is refused in the end without hindering the engine."""
    databases[Side.RIGHT].run("UPDATE accounts SET name = 'Typo'")
    engine.drain()
    (line,) = engine.journal.audits.lines({}, map="customers", limit=1)
    with monkeypatch.context() as patch:
        patch.setattr("dualwrite.engine.giving_way.PATIENCE", 2)
        with locked(databases[Side.RIGHT], "C1", patch), pytest.raises(Usage, match="locked"):
            execute(engine, "undo", {"change": line.id})
    with locked(databases[Side.RIGHT], "C1", monkeypatch) as said:
        execute(engine, "undo", {"change": line.id})
    assert said
    assert [event.what for event in engine.journal.events("customers")][:3] == [
        "change undone",
        "undo came to nothing",
        "change undone",
    ]
    assert databases[Side.LEFT].run("SELECT name FROM customers") == [("Contoso",)]


@pytest.mark.parametrize("reopens", [False, True])
def test_a_decision_is_carried_once_a_user_lets_go_of_the_record(
    databases: dict[Side, Database], engine: Engine, reopens: bool
) -> None:
    """It keeps nobody waiting, and needs no second word, nor after a restart."""
    for side, table in ((Side.LEFT, "customers"), (Side.RIGHT, "accounts")):
        databases[side].run(f"UPDATE {table} SET terms = '{side}'")
    engine.drain()
    (conflict,) = engine.journal.conflicts({})
    decide = {"id": conflict.id, "winner": "left"}
    with databases[Side.RIGHT].connect() as user:
        user.execute("BEGIN")
        user.execute("SELECT FROM accounts FOR UPDATE")
        execute(engine, "resolve", decide)
        assert [entry.side for entry in engine.journal.parked({})] == [Side.RIGHT]
        user.execute("ROLLBACK")
    if reopens:
        engine.close()
        engine.open()
    engine.drain()
    assert databases[Side.RIGHT].run("SELECT terms FROM accounts") == [("left",)]
    with pytest.raises(Usage, match="already decided"):
        execute(engine, "resolve", decide)


def test_a_locked_record_keeps_no_other_parked_one(databases: dict[Side, Database], engine: Engine) -> None:
    """Of many that are taken again, all but the one that a user keeps go through, while nobody waits; that one follows
    by itself."""
    left, right = databases[Side.LEFT], databases[Side.RIGHT]
    left.run("INSERT INTO customers SELECT 'N' || n, 'old' FROM generate_series(1, 60) n")
    engine.drain()
    right.run("ALTER TABLE accounts ADD CONSTRAINT no CHECK (name <> 'new')")
    left.run("UPDATE customers SET name = 'new' WHERE account LIKE 'N%'")
    engine.drain()
    assert len(engine.journal.parked({})) == 60
    right.run("ALTER TABLE accounts DROP CONSTRAINT no")
    with right.connect() as user:
        user.execute("BEGIN")
        user.execute("SELECT FROM accounts WHERE number = 'N30' FOR UPDATE")
        assert execute(engine, "retry", {}) == {"tried": 60, "freed": 59}
        left.run("UPDATE customers SET name = 'other' WHERE account = 'C1'")
        engine.drain()
        assert right.run("SELECT name FROM accounts WHERE number = 'C1'") == [("other",)]
        assert [entry.shown_key for entry in engine.journal.parked({})] == ["N30"]
        user.execute("ROLLBACK")
    engine.drain()
    assert right.run("SELECT count(*) FROM accounts WHERE name = 'new'") == [(60,)]
    assert not engine.journal.parked({})


def test_a_repair_that_meets_a_lock_is_given_up_and_all_else_flows_on(
    databases: dict[Side, Database], engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has asked for it is told; it is not tried again and again while the link stands still."""
    monkeypatch.setattr("dualwrite.engine.giving_way.PATIENCE", 3)
    left, right = databases[Side.LEFT], databases[Side.RIGHT]
    left.run("INSERT INTO customers (account, name) VALUES ('C2', 'Second')")
    engine.drain()
    right.run("ALTER TABLE accounts ADD CONSTRAINT no CHECK (name <> 'new')")
    left.run("UPDATE customers SET name = 'new' WHERE account = 'C1'")
    engine.drain()
    execute(engine, "discard", {})
    right.run("ALTER TABLE accounts DROP CONSTRAINT no")
    runner = Runner(engine, execute)
    running = threading.Thread(target=runner.run, daemon=True)
    running.start()
    with right.connect() as user:
        user.execute("BEGIN")
        user.execute("SELECT FROM accounts WHERE number = 'C1' FOR UPDATE")
        keys = {"left": [["C1"]], "right": [["C1"]]}
        asked = engine.journal.request(AGREE, {"map": "customers", "master": "left", "keys": keys})
        answer = engine.journal.await_answer(asked, PATIENCE)
        assert answer is not None
        assert "users keep a record locked" in str(answer["error"])
        left.run("UPDATE customers SET name = 'Other' WHERE account = 'C2'")
        Terminal.until(lambda: right.run("SELECT name FROM accounts WHERE number = 'C2'") == [("Other",)])
        user.execute("ROLLBACK")
    asked = engine.journal.request(AGREE, {"map": "customers", "master": "left", "keys": keys})
    answer = engine.journal.await_answer(asked, PATIENCE)
    assert answer is not None
    assert "error" not in answer
    assert right.run("SELECT name FROM accounts WHERE number = 'C1'") == [("new",)]
    runner.stop.set()
    running.join(PATIENCE)
    assert not running.is_alive()


def test_an_engine_that_is_to_end_waits_for_no_lock(
    databases: dict[Side, Database], engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long a user keeps a record: what is left undone is done by the next one."""
    monkeypatch.setattr("dualwrite.engine.giving_way.PATIENCE", 1_000_000)
    runner = Runner(engine, execute)
    running = threading.Thread(target=runner.run, daemon=True)
    with databases[Side.RIGHT].connect() as user:
        user.execute("BEGIN")
        user.execute("SELECT FROM accounts FOR UPDATE")
        databases[Side.LEFT].run("UPDATE customers SET name = 'new'")
        running.start()
        Terminal.until(lambda: doing(engine.journal))
        runner.stop.set()
        running.join(PATIENCE)
        assert not running.is_alive()
        user.execute("ROLLBACK")
    runner.stop.clear()
    engine.open()
    engine.drain()
    assert databases[Side.RIGHT].run("SELECT name FROM accounts") == [("new",)]


def test_a_table_that_has_just_been_altered_does_not_keep_a_map_from_being_stopped(
    databases: dict[Side, Database], engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is kept for the map is dropped in a transaction that begins anew."""
    monkeypatch.setattr(Restorer, "run", lambda _self: None)
    databases[Side.RIGHT].run("UPDATE accounts SET tier = 'mine'")
    engine.flows[Side.RIGHT].turn(PATIENCE)
    assert engine.link.sides[Side.LEFT].restore
    databases[Side.LEFT].run("ALTER TABLE customers ADD COLUMN more text")
    engine.journal.set_state("customers", desired="stopped")
    engine.reconcile()
    assert not engine.link.sides[Side.LEFT].restore


@pytest.mark.parametrize("is_empty", [False, True], ids=["both sides have records", "one side is empty"])
@pytest.mark.parametrize("times", [1, 2])
def test_a_user_who_deletes_while_an_initial_sync_inserts_is_not_overlooked(
    databases: dict[Side, Database], engine: Engine, times: int, is_empty: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user inserts and deletes records just before they are created from the other side: both sides agree after.

    Nobody has written at the left since the map ran before: what is carried has not been seen for all that.
    """
    engine.journal.set_state("customers", desired="stopped")
    engine.reconcile()
    if is_empty:
        databases[Side.RIGHT].run("DELETE FROM accounts")
    databases[Side.LEFT].run("INSERT INTO customers SELECT 'N' || n, 'new', 0 FROM generate_series(1, 60) n")
    untouched, late = Application._is_untouched, list[str]()

    def overtaken(self: Application, compiled: CompiledMap) -> bool:
        found = untouched(self, compiled)
        if self.source is Side.LEFT and len(late) < times:
            late.append("once more")
            databases[Side.RIGHT].run(
                "INSERT INTO accounts (number, name) SELECT 'N' || n, 'mine' FROM generate_series(1, 60) n"
            )
            databases[Side.RIGHT].run("DELETE FROM accounts WHERE number LIKE 'N%'")
        return found

    monkeypatch.setattr(Application, "_is_untouched", overtaken)
    engine.journal.set_state("customers", desired="running")
    engine.reconcile()
    engine.drain()
    assert len(late) == times
    found = {
        Side.LEFT: databases[Side.LEFT].run("SELECT account, name, points FROM customers ORDER BY 1"),
        Side.RIGHT: databases[Side.RIGHT].run("SELECT number, name, points FROM accounts ORDER BY 1"),
    }
    assert found[Side.LEFT] == found[Side.RIGHT]
    assert len(found[Side.LEFT]) in (60, 61)


def test_a_large_transaction_that_overtakes_ours_is_read_in_parts(
    databases: dict[Side, Database], engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much users commit behind our decision, no more of it than a part is in memory at once."""
    write, since = Stage.upserts, PostgresqlTransaction.since
    overtaken, parts = list[str](), list[int]()

    def late(self: Stage) -> None:
        if self.source is Side.LEFT and not overtaken:
            overtaken.append("once")
            databases[Side.RIGHT].run(
                "INSERT INTO accounts (number, points) SELECT 'N' || g, g FROM generate_series(1, 30000) g;"
                "UPDATE accounts SET points = points + 10 WHERE number = 'C1'"
            )
        write(self)

    def counted(self: PostgresqlTransaction, after: Position, limit: int = NO_LIMIT) -> Batch:
        batch = since(self, after, limit)
        parts.append(len(batch.changes))
        return batch

    monkeypatch.setattr(Stage, "upserts", late)
    monkeypatch.setattr(PostgresqlTransaction, "since", counted)
    databases[Side.LEFT].run("UPDATE customers SET points = points + 1")
    while not overtaken:
        engine.flows[Side.LEFT].turn(1)
    assert databases[Side.RIGHT].run("SELECT points FROM accounts WHERE number = 'C1'") == [(11,)]
    assert 0 < max(parts) <= LAGGING


def test_users_do_not_wait_for_an_engine_that_is_frozen(
    databases: dict[Side, Database], engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server ends a transaction of ours that says nothing for long, and its locks are free."""
    monkeypatch.setattr("dualwrite.connectors._pg_transaction.SILENT", 100)
    connector, view = engine.connectors[Side.RIGHT], engine.link.maps["customers"].views[Side.RIGHT]
    connector.close()
    with connector.transaction("left>right", [view]) as transaction:
        assert transaction.fetch(view, [("C1",)])
        databases[Side.RIGHT].run("UPDATE accounts SET points = 5")
        with pytest.raises(Unavailable):
            transaction.commit(None)
    engine.drain()
    assert databases[Side.LEFT].run("SELECT points FROM customers") == [(5,)]
