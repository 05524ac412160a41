"""Two PostgreSQL databases under one engine, while people write on both sides."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import psycopg
import pytest

from dualwrite.connectors._pg_transaction import PostgresqlTransaction
from dualwrite.connectors.base import NO_LIMIT
from dualwrite.connectors.postgresql import open_postgresql
from dualwrite.engine.apply import Application
from dualwrite.engine.flow import LAGGING
from dualwrite.engine.ledger import Plan
from dualwrite.engine.stage import Stage
from dualwrite.engine.supervisor import Engine
from dualwrite.errors import Busy, Unavailable
from dualwrite.journal import Journal
from dualwrite.mapping.compile import CompiledMap, compile_map
from dualwrite.mapping.notation import read_map
from dualwrite.model import Batch, Position, Side
from dualwrite.testing.postgresql import Database, Server

LEFT = "CREATE TABLE customers (account text PRIMARY KEY, name text, points int NOT NULL DEFAULT 0)"
RIGHT = """
CREATE TABLE accounts (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(), number text NOT NULL UNIQUE, name text, points int)
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
"""


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
    monkeypatch.setattr("dualwrite.engine.flow.PATIENCE", 4)
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
