"""Applications lock in the other order, and at the strictest levels: they are never the victim, and all is carried."""

from __future__ import annotations

import random
import threading
from contextlib import closing

import psycopg
import pytest

from .postgresql_world import COUNTERS, PATIENCE, TALLY, System, World

LEVELS = ("READ COMMITTED", pytest.param("REPEATABLE READ", marks=pytest.mark.soak), "SERIALIZABLE")


class Clerk(threading.Thread):
    """Counts several records in one transaction, the last key first: dualwrite locks them the other way round."""

    def __init__(self, system: System, level: str, seed: int) -> None:
        super().__init__(daemon=True)
        self.system, self.level, self.random = system, level, random.Random(seed)
        self.stop = threading.Event()
        self.done = self.again = 0
        self.trouble: BaseException | None = None

    def run(self) -> None:
        """Work until told to stop."""
        assert self.system.database is not None
        try:
            with closing(self.system.database.connect()) as session:
                session.execute(f"SET default_transaction_isolation = '{self.level.lower()}'".encode())
                while not self.stop.is_set():
                    self._attempt(session)
        except BaseException as trouble:
            self.trouble = trouble

    def _attempt(self, session: psycopg.Connection) -> None:
        table, key, _, quantity, _ = self.system.names
        codes = sorted(self.random.sample([f"counter{n}" for n in range(COUNTERS)], 3), reverse=True)
        try:
            with session.transaction():
                for code in codes:
                    session.execute(
                        f"UPDATE {table} SET {quantity} = {quantity} + 1 WHERE {key} = %s".encode(), (code,)
                    )
                    session.execute(TALLY.replace("?", "%s").encode(), (code, "count", None))
                    self.stop.wait(self.random.random() * 0.03)  # it holds its locks while it thinks
            self.done += 1
        except psycopg.errors.SerializationFailure:
            self.again += 1  # as its level asks of every application
        self.stop.wait(0.01)


@pytest.mark.parametrize("level", LEVELS)
def test_the_application_is_never_the_victim(pair: World, level: str) -> None:
    """Two clerks on each side and the engine want the same few records all the time."""
    pair.counters()
    pair.sync()
    clerks = [Clerk(system, level, seed) for seed, system in enumerate(pair.systems * 2)]
    with pair.engine() as engine:
        for clerk in clerks:
            clerk.start()
        try:
            for _ in range(4):
                pair.moves(engine)
            pair.until(lambda: all(clerk.done > 20 or clerk.trouble for clerk in clerks), engine)
        finally:
            for clerk in clerks:
                clerk.stop.set()
                clerk.join(PATIENCE)
        assert [clerk.trouble for clerk in clerks] == [None] * len(clerks)
        pair.carried(engine)
        assert engine.end() == 0
    for system in pair.systems:
        query = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        assert system.rows(query) == [(0,)]
    pair.proves()


def test_a_record_that_somebody_keeps_locked(pair: World) -> None:
    """The rest waits behind it without hindering anybody, and goes through when the lock is gone."""
    pair.counters()
    pair.sync()
    assert pair.right.database is not None
    with pair.engine() as engine:
        with pair.right.database.connect() as session:
            session.execute("BEGIN")
            session.execute("SELECT FROM product WHERE number = 'counter0' FOR UPDATE")
            with closing(pair.left.session()) as clerk:
                clerk.do(
                    ("UPDATE item SET qty = qty + 1 WHERE code = 'counter0'", ()), (TALLY, ("counter0", "count", None))
                )
            pair.until(lambda: "a lock cannot be had" in engine.said(), engine)
            pair.right.insert("beside", "beside")
            session.execute("UPDATE product SET quantity = quantity + 1 WHERE number = 'counter0'")
            session.execute(TALLY.replace("?", "%s").encode(), ("counter0", "count", None))
            session.execute("COMMIT")
        pair.carried(engine)
        assert engine.end() == 0
    pair.proves()
