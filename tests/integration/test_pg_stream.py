"""Replication slots of real servers, read into the log: what comes, in which order, and what happens when it ends."""

from __future__ import annotations

import os
import random
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from time import monotonic
from urllib.parse import quote

import psycopg
import pytest

from dualwrite.connectors import _pg_blocks, _pg_session, _pg_stream
from dualwrite.connectors._pg_entries import Done, Emptied, Entry, Note, Place, Row
from dualwrite.connectors._pg_log import Log
from dualwrite.connectors._pg_stream import Stream, flushed_end
from dualwrite.errors import Denied, PositionLost, Unavailable
from dualwrite.model import Kind
from dualwrite.testing.postgresql import Database, Server, programs

FIFTEEN = Path("/usr/lib/postgresql/15/bin")
OURS = "dualwrite_lab"
PATIENCE = 240.0
TABLES = """
    CREATE TABLE items (id int PRIMARY KEY, name text, note text);
    CREATE TABLE parts (id int PRIMARY KEY, item int);
    CREATE TABLE beside (id int);
    ALTER TABLE items REPLICA IDENTITY FULL;
    ALTER TABLE items ALTER note SET STORAGE external;
    ALTER TABLE parts REPLICA IDENTITY FULL;
    CREATE PUBLICATION lab FOR TABLE items, parts;
"""


@pytest.fixture(scope="module", params=["18", "15"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server of each version."""
    folder = FIFTEEN if request.param == "15" else programs()
    if not (folder / "postgres").exists():
        pytest.skip(f"PostgreSQL {request.param} is not installed here")
    server = Server(programs=folder)
    try:
        server.start()
        yield server
    finally:
        server.remove()


class Laboratory:
    """A database with a slot, and the streams that read it."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.slot = f"lab_{database.name}"
        self.run(f"SELECT pg_create_logical_replication_slot('{self.slot}', 'pgoutput')")
        self.port = database.server.port
        self.streams: list[Stream] = []
        self._control: _pg_session.Connection | None = None

    def run(self, statement: str, *values: object) -> list[tuple]:
        """What an application does."""
        return self.database.run(statement, *values)

    @property
    def control(self) -> _pg_session.Connection:
        """A session of dualwrite's, in autocommit mode."""
        if self._control is None or self._control.closed:
            self._control = self.session()
        return self._control

    def session(self) -> _pg_session.Connection:
        """Another one."""
        return self.reached().connect()

    def reached(self, options: str = "", user: str = "postgres") -> _pg_session.Database:
        """The database as dualwrite reaches it."""
        url = f"postgresql://{user}@127.0.0.1:{self.port}/{self.database.name}"
        return _pg_session.Database.of(f"{url}?options={quote(options)}", "lab")

    def open(self, start: int | None = None, **settings) -> Stream:
        """Open a stream."""
        keep = {name: settings.pop(name) for name in ("held", "room") if name in settings}
        stream = Stream(
            self.reached(settings.pop("options", ""), settings.pop("user", "postgres")),
            settings.pop("slot", self.slot),
            settings.pop("publication", "lab"),
            lambda at: Log(at, OURS, ["us"], **keep),
            start=start,
            **settings,
        )
        self.streams.append(stream)
        return stream

    def reach(self, stream: Stream) -> None:
        """Wait until the log has everything up to now."""
        stream.reach(flushed_end(self.control), PATIENCE)

    def entries(self, stream: Stream, after: Place | None = None) -> list[Entry]:
        """Everything up to now."""
        self.reach(stream)
        return stream.log.read(after or (stream.start,), 1_000_000).entries

    def confirmed(self) -> int:
        """Up to where the server may forget."""
        ((lsn,),) = self.run(
            "SELECT (confirmed_flush_lsn - '0/0')::bigint FROM pg_replication_slots WHERE slot_name = %s", self.slot
        )
        return int(lsn)

    def fill(self, transactions: int) -> None:
        """Insert 2,000 rows of 1,000 bytes by each of some transactions."""
        statement = "INSERT INTO items SELECT g, 'x', repeat('x', 1000) FROM generate_series(%s::int, %s::int) g"
        for number in range(transactions):
            self.run(statement, number * 2000 + 1, number * 2000 + 2000)

    def hear_for(self, seconds: float) -> None:
        """Wait until one and the same stream has spoken to the server for as long as that."""
        slot = "pg_replication_slots ON active_pid = pid WHERE slot_name = %s"
        ((pid, start),) = self.run(f"SELECT pid, now()::text FROM pg_stat_replication JOIN {slot}", self.slot)
        query = f"SELECT pid, reply_time > %s::timestamptz + %s * interval '1 s' FROM pg_stat_replication JOIN {slot}"
        until(lambda: self.run(query, start, seconds, self.slot) == [(pid, True)])

    def close(self) -> None:
        """Leave nothing open."""
        for stream in self.streams:
            stream.close()
            stream.log.close()
        if self._control is not None:
            self._control.close()


@pytest.fixture
def lab(server: Server) -> Iterator[Laboratory]:
    """A fresh one."""
    with server.database(TABLES) as database:
        laboratory = Laboratory(database)
        try:
            yield laboratory
        finally:
            laboratory.close()


class Wire:
    """A line to the server that can be cut, or go dead without a word."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._heard = socket.create_server(("127.0.0.1", 0))
        self.port = self._heard.getsockname()[1]
        self._ends: list[socket.socket] = []
        self._is_alive = threading.Event()
        self._is_alive.set()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._heard.accept()
                far = socket.create_connection(("127.0.0.1", self._port))
                self._ends += [near, far]
                for pair in ((near, far), (far, near)):
                    self._threads.append(threading.Thread(target=self._carry, args=pair))
                    self._threads[-1].start()

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                self._is_alive.wait()
                target.sendall(data)
            target.shutdown(socket.SHUT_RDWR)

    def die(self) -> None:
        """Carry nothing more; both ends believe that they are connected."""
        self._is_alive.clear()

    def cut(self) -> None:
        """End all connections."""
        for end in self._ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Take it away."""
        self._is_alive.set()
        self.cut()
        with suppress(OSError):
            self._heard.shutdown(socket.SHUT_RDWR)
        self._heard.close()
        for thread in self._threads:
            thread.join()
        for end in self._ends:
            end.close()


@pytest.fixture
def wire(lab: Laboratory) -> Iterator[Wire]:
    """A line to the laboratory's server, which its streams then use."""
    wire = Wire(lab.database.server.port)
    lab.port = wire.port
    try:
        yield wire
    finally:
        wire.close()


def until(condition: Callable[[], bool]) -> None:
    """Wait for what the server or another thread does."""
    deadline = monotonic() + PATIENCE
    pause = threading.Event()
    while not condition():
        assert monotonic() < deadline
        pause.wait(0.01)


def rows(entries: list[Entry]) -> list[tuple]:
    """The rows among entries: kind, table, before, after."""
    return [(row.kind.value, row.relation.name, *row.images()) for row in entries if isinstance(row, Row)]


# -- what comes ---------------------------------------------------------------------------------------------------


def _work(database: Database, seed: int) -> None:
    """Random transactions on a few rows, with savepoints and rollbacks."""
    chance = random.Random(seed)
    with database.connect() as connection:
        for _ in range(40):
            with suppress(psycopg.errors.DeadlockDetected, psycopg.Rollback), connection.transaction():
                for _ in range(chance.randrange(1, 5)):
                    with connection.transaction() as inner:
                        item = chance.randrange(8)
                        if chance.random() < 0.3:
                            connection.execute("DELETE FROM items WHERE id = %s", [item])
                        else:
                            connection.execute(
                                "INSERT INTO items VALUES (%s, %s) ON CONFLICT (id) DO UPDATE SET name = excluded.name",
                                [item, f"{seed}.{chance.random()}"],
                            )
                        if chance.random() < 0.2:
                            raise psycopg.Rollback(inner)
                if chance.random() < 0.2:
                    raise psycopg.Rollback


def test_what_concurrent_writers_commit_comes_in_commit_order(lab: Laboratory) -> None:
    """Each row's image before is what the entries in front of it say, and in the end they say what the table holds."""
    stream = lab.open()
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(_work, lab.database, seed) for seed in range(4)]:
            done.result()
    state: dict[str, tuple] = {}
    entries = lab.entries(stream)
    for _, _, before, after in rows(entries):
        key = (before or after)[0]
        assert state.get(key) == before
        state[key] = after
    table = lab.run("SELECT id::text, name, note FROM items")
    assert sorted(table) == sorted(row for row in state.values() if row is not None)
    places = [entry.place for entry in entries]
    assert places == sorted(set(places))
    assert len([entry for entry in entries if isinstance(entry, Done)]) > 50


def test_values_of_all_sizes(lab: Laboratory) -> None:
    """Large values come whole, and stay known where an update leaves them alone."""
    stream = lab.open()
    lab.run("INSERT INTO items VALUES (1, E'a\\t\\\\Ünal\\n', repeat('0123456789', 1000000)), (2, '', NULL)")
    lab.run("UPDATE items SET name = 'b' WHERE id = 1")
    big = "0123456789" * 1_000_000
    assert rows(lab.entries(stream)) == [
        ("insert", "items", None, ("1", "a\t\\Ünal\n", big)),
        ("insert", "items", None, ("2", "", None)),
        ("update", "items", ("1", "a\t\\Ünal\n", big), ("1", "b", big)),
    ]


def test_truncation_names_its_tables(lab: Laboratory) -> None:
    """Among the rows, at its place."""
    stream = lab.open()
    lab.run("INSERT INTO items VALUES (1); TRUNCATE items, parts; INSERT INTO items VALUES (1)")
    first, emptied, last, _ = lab.entries(stream)
    assert isinstance(emptied, Emptied)
    assert sorted(relation.name for relation in emptied.relations) == ["items", "parts"]
    assert (first.place[1], emptied.place[1], last.place[1]) == (1, 2, 3)


def test_shapes_follow_what_is_done_to_the_tables(lab: Laboratory) -> None:
    """Between transactions and within one; each row has the columns of its moment."""
    stream = lab.open()
    lab.run("INSERT INTO parts VALUES (1, 1)")
    lab.run(
        "INSERT INTO parts VALUES (2, 2); ALTER TABLE parts ADD more text DEFAULT 'x';"
        "INSERT INTO parts VALUES (3, 3); ALTER TABLE parts DROP item; UPDATE parts SET more = 'y' WHERE id = 1"
    )
    lab.run("ALTER TABLE parts RENAME TO pieces; DELETE FROM pieces WHERE id = 1")
    found = [row for row in lab.entries(stream) if isinstance(row, Row)]
    assert [(tuple(column.name for column in row.relation.columns), row.images()) for row in found] == [
        (("id", "item"), (None, ("1", "1"))),
        (("id", "item"), (None, ("2", "2"))),
        (("id", "item", "more"), (None, ("3", "3", "x"))),
        (("id", "more"), (("1", "x"), ("1", "y"))),
        (("id", "more"), (("1", "y"), None)),
    ]
    assert [row.relation.name for row in found] == ["parts"] * 4 + ["pieces"]
    assert len({row.relation.oid for row in found}) == 1
    assert [row.version for row in found] == [0, 0, 1, 2, 3]


def test_origins_and_messages(lab: Laboratory) -> None:
    """A transaction of ours says who it is, when its user committed, and what it wants to be known."""
    ((oid,),) = lab.run("SELECT oid FROM pg_database WHERE datname = current_database()")
    name = f"dualwrite_lab_{oid}"
    stream = lab.open()
    lab.run("SELECT pg_replication_origin_create(%s)", name)
    with lab.session() as session, session.transaction():
        session.execute("SELECT pg_replication_origin_session_setup($1)", [name])
        session.execute("SELECT pg_replication_origin_xact_setup('0/ABC', '2024-02-29 12:00:00.5+00')")
        session.execute("SELECT pg_logical_emit_message(true, $1, 'seen')", [OURS])
        session.execute("INSERT INTO items VALUES (1)")
        session.execute("SELECT pg_logical_emit_message(true, 'another', 'x')")
        session.execute("SELECT pg_logical_emit_message(false, $1, 'outside')", [OURS])
        session.execute("SELECT pg_logical_emit_message(true, $1, 'wrote')", [OURS])
    lab.run("INSERT INTO items VALUES (2)")
    first, row, last, done, other, _ = lab.entries(stream)
    assert isinstance(first, Note)
    assert isinstance(last, Note)
    assert (first.content, first.place[1], row.place[1], last.content, last.place[1]) == ("seen", 1, 2, "wrote", 3)
    assert (done.transaction.origin, done.transaction.at) == (name, 1709208000.5)
    assert other.transaction.origin == ""
    ((xid,),) = lab.run("SELECT (xmin::text::bigint) FROM items WHERE id = 1")
    assert done.transaction.xid == xid


# -- how far it is ------------------------------------------------------------------------------------------------


def test_the_barrier_passes_commits_that_are_not_flushed(lab: Laboratory) -> None:
    """What another session could see before it is in the log behind it, also when nobody waited for the disk."""
    stream = lab.open()
    with lab.database.connect() as application, lab.session() as ours:
        application.execute("SET synchronous_commit = off")
        application.execute("INSERT INTO items VALUES (1, '0')")
        for turn in range(1, 101):
            application.execute("UPDATE items SET name = %s WHERE id = 1", [str(turn)])
            ours.execute("BEGIN")
            row = ours.execute("UPDATE items SET note = note WHERE id = 1 RETURNING name").fetchone()
            after = stream.log.read((stream.start,), 1_000_000).place
            lab.reach(stream)
            ours.execute("ROLLBACK")
            found = rows(stream.log.read((stream.start,), 1_000_000).entries)
            assert row == (found[-1][3][1],) == (str(turn),)
            assert after <= stream.log.read(after, 1_000_000).place


def test_the_barrier_flushes_whatever_the_session_is_set_to(lab: Laboratory) -> None:
    """``synchronous_commit`` of the role or database does not matter."""
    lab.run(f"ALTER DATABASE {lab.database.name} SET synchronous_commit = off")
    with lab.session() as session:
        assert session.execute("SHOW synchronous_commit").fetchone() == ("off",)
        end = flushed_end(session)
        row = session.execute("SELECT pg_current_wal_flush_lsn() - '0/0'::pg_lsn").fetchone()
        assert row is not None
        assert int(row[0]) >= end


def test_a_slot_follows_what_others_write(lab: Laboratory) -> None:
    """While nothing is pending the server may forget; what is pending stays until it is acknowledged."""
    stream = lab.open()
    lab.run("INSERT INTO beside SELECT generate_series(1, 1000)")
    target = flushed_end(lab.control)
    until(lambda: lab.confirmed() >= target)
    lab.run("INSERT INTO items VALUES (1)")
    done = lab.entries(stream)[-1]
    lab.run("INSERT INTO beside VALUES (1)")
    lab.reach(stream)
    target = stream.log.reached
    assert target > done.place[0]
    assert stream.confirmed <= done.transaction.lsn
    assert lab.confirmed() <= done.transaction.lsn
    stream.acknowledge(done.place[0])
    until(lambda: lab.confirmed() >= target)


def test_a_slot_that_does_not_follow_moves_by_word_only(lab: Laboratory) -> None:
    """The owner keeps account of what may be forgotten; more than was sent cannot be."""
    stream = lab.open(follow=False)
    lab.run("INSERT INTO items VALUES (1)")
    end = lab.entries(stream)[-1].place[0]
    lab.run("INSERT INTO beside VALUES (1)")
    lab.reach(stream)
    assert lab.confirmed() == stream.start
    stream.acknowledge(end)
    until(lambda: lab.confirmed() == end)
    stream.acknowledge(end - 1)
    stream.acknowledge(1 << 60)
    until(lambda: lab.confirmed() > end)
    assert lab.confirmed() <= stream.log.reached


def test_commits_that_wait_for_us_are_answered_at_once(lab: Laboratory) -> None:
    """As a synchronous standby: what is beside the link never waits, what is ours until it is acknowledged."""
    stream = lab.open()
    with lab.database.connect() as admin, ThreadPoolExecutor(1) as pool:
        admin.execute("ALTER SYSTEM SET synchronous_standby_names = 'dualwrite_lab'")
        admin.execute("SELECT pg_reload_conf()")
        try:
            until(lambda: lab.run("SELECT sync_state FROM pg_stat_replication WHERE sync_state = 'sync'") != [])
            for _ in range(5):
                lab.run("INSERT INTO beside VALUES (1)")
            waiting = pool.submit(lab.run, "INSERT INTO items VALUES (1)")
            stream.log.read((stream.start,), 10, PATIENCE)
            row, done = lab.entries(stream)
            assert lab.run("SELECT id FROM items") == []
            assert not waiting.done()
            stream.acknowledge(done.place[0])
            waiting.result(PATIENCE)
            assert isinstance(row, Row)
        finally:
            admin.execute("ALTER SYSTEM RESET synchronous_standby_names")
            admin.execute("SELECT pg_reload_conf()")


def test_reading_again_begins_at_what_was_confirmed(lab: Laboratory) -> None:
    """The same entries at the same places; the slot is free at once."""
    first = lab.open()
    lab.run("INSERT INTO items VALUES (1)")
    lab.run("INSERT INTO items VALUES (2); INSERT INTO parts VALUES (3, 3)")
    entries = lab.entries(first)
    first.acknowledge(entries[1].place[0])
    first.close()
    second = lab.open(patience=0)
    again = lab.entries(second)
    assert [(entry.place, entry.transaction) for entry in again] == [
        (entry.place, entry.transaction) for entry in entries[2:]
    ]
    assert rows(again) == rows(entries[2:])
    second.close()
    third = lab.open(again[-1].place[0])
    assert lab.entries(third) == []


# -- how much of it there is --------------------------------------------------------------------------------------


def test_a_large_transaction_needs_little_memory(lab: Laboratory) -> None:
    """It can be read while it arrives, and only some rows of it are in memory at any time."""
    stream = lab.open()
    lab.run("INSERT INTO items SELECT g, 'item ' || g, repeat('x', 100) FROM generate_series(1, 300000) g")
    most, count, is_done, after = 0, 0, False, (stream.start,)
    while not is_done:
        reading = stream.log.read(after, 1000, PATIENCE)
        for entry in reading.entries:
            if isinstance(entry, Row):
                count += 1
                assert entry.n == count
                if count % 1000 == 0:
                    assert entry.images() == (None, (f"{count}", f"item {count}", "x" * 100))
            is_done = isinstance(entry, Done)
        most = max(most, stream.log.held)
        after = reading.place
    assert count == 300_000
    assert stream.log.stored > 20_000_000
    assert most <= _pg_blocks.HELD + 6 * _pg_blocks.BLOCK
    stream.log.trim(after)
    assert (stream.log.stored, stream.log.held) == (0, 0)


def test_a_full_log_stops_the_server_and_keeps_the_stream(lab: Laboratory, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server hears from us all the while, so it does not give us up, and goes on when there is room again."""
    monkeypatch.setattr(_pg_stream, "STATUS", 0.1)
    stream = lab.open(held=0, room=0)
    lab.fill(5)
    until(lambda: stream.log.is_full)
    lab.hear_for(1)
    count, after = 0, (stream.start,)
    assert len(stream.log.read(after, 1_000_000).entries) < 10_000
    while count < 10_000:
        reading = stream.log.read(after, 1000, PATIENCE)
        count += sum(isinstance(entry, Row) for entry in reading.entries)
        after = reading.place
        stream.log.trim(after)
    assert stream.log.error is None


def test_a_full_log_takes_what_somebody_needs(lab: Laboratory) -> None:
    """Who must know everything to go on would wait for room that he alone can make."""
    stream = lab.open(held=0, room=0)
    lab.fill(5)
    until(lambda: stream.log.is_full)
    assert sum(isinstance(entry, Row) for entry in lab.entries(stream)) == 10_000
    lab.run("UPDATE items SET id = -id")
    assert sum(isinstance(entry, Row) for entry in lab.entries(stream)) == 20_000


# -- how it ends --------------------------------------------------------------------------------------------------


def test_a_killed_server_is_unavailable_and_goes_on_where_it_was(lab: Laboratory) -> None:
    """Nothing that was not acknowledged is lost, nothing comes at another place."""
    stream = lab.open()
    lab.run("INSERT INTO items VALUES (1)")
    lab.run("INSERT INTO items VALUES (2)")
    entries = lab.entries(stream)
    lab.control.close()
    lab.database.server.kill()
    with pytest.raises(Unavailable):
        stream.log.wait(1 << 60, PATIENCE)
    with pytest.raises(Unavailable):
        lab.open()
    lab.database.server.start()
    assert stream.log.read((stream.start,), 100).entries == entries
    with pytest.raises(Unavailable):
        stream.log.read(entries[-1].place, 100)
    again = lab.open()
    lab.run("INSERT INTO items VALUES (3)")
    found = lab.entries(again)
    assert [entry.place for entry in found[:4]] == [entry.place for entry in entries]
    assert rows(found)[2:] == [("insert", "items", None, ("3", None, None))]


def test_a_server_that_shuts_down_does_not_wait_for_us(lab: Laboratory) -> None:
    """It ends the stream in order; so do we."""
    stream = lab.open()
    lab.run("INSERT INTO items VALUES (1)")
    lab.reach(stream)
    lab.control.close()
    lab.database.server.stop()
    with pytest.raises(Unavailable):
        stream.log.wait(1 << 60, PATIENCE)
    lab.database.server.start()
    assert len(lab.entries(lab.open())) == 2


def test_a_server_that_shuts_down_does_not_wait_for_a_full_log(lab: Laboratory) -> None:
    """Which cannot hear what it says."""
    stream = lab.open(held=0, room=0)
    lab.fill(10)
    until(lambda: stream.log.is_full)
    lab.database.server.stop()
    with pytest.raises(Unavailable, match="shutting down"):
        stream.log.wait(1 << 60, PATIENCE)
    lab.database.server.start()
    assert len(lab.entries(lab.open())) == 20_010


def test_an_ended_backend_is_unavailable(lab: Laboratory) -> None:
    """Somebody, or the server itself, has ended our session: the slot may still be there."""
    stream = lab.open()
    lab.run("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = %s", lab.slot)
    with pytest.raises(Unavailable):
        stream.log.wait(1 << 60, PATIENCE)
    stream.close()
    lab.run("INSERT INTO items VALUES (1)")
    assert len(lab.entries(lab.open())) == 2


def test_a_cut_in_the_middle_of_a_transaction(lab: Laboratory, wire: Wire) -> None:
    """It comes again from its beginning, at the same places; a reader goes on where it was."""
    stream = lab.open()
    lab.run("INSERT INTO items SELECT g, repeat('x', 200) FROM generate_series(1, 50000) g")
    first = stream.log.read((stream.start,), 1000, PATIENCE)
    wire.cut()
    with pytest.raises(Unavailable):
        stream.log.wait(1 << 60, PATIENCE)
    got = stream.log.read((stream.start,), 1_000_000).entries
    assert first.entries[-1] in got
    again = lab.open()
    found = lab.entries(again)
    assert rows(found[: len(got)]) == rows(got)
    assert [entry.place for entry in found] == [*((got[0].place[0], n) for n in range(1, 50_001)), found[-1].place]
    assert again.log.read(got[-1].place, 1_000_000).entries == found[len(got) :]


def test_a_dead_line_is_noticed(lab: Laboratory, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that has nothing to say is asked now and then; one that does not answer is gone."""
    monkeypatch.setattr(_pg_stream, "SILENCE", 4)
    monkeypatch.setattr(_pg_stream, "STATUS", 0.1)
    stream = lab.open()
    lab.hear_for(5)
    assert stream.log.error is None
    monkeypatch.setattr(_pg_stream, "SILENCE", 0.4)
    wire.die()
    with pytest.raises(Unavailable, match="is silent"):
        stream.log.wait(1 << 60, PATIENCE)


def test_a_slot_in_use_is_waited_for(lab: Laboratory) -> None:
    """Until the other session lets it go, or patience ends."""
    first = lab.open()
    with pytest.raises(Unavailable, match=r"is held by another session \(process \d+\)"):
        lab.open(patience=0)
    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(lab.open)
        first.close()
        lab.run("INSERT INTO items VALUES (1)")
        assert len(lab.entries(second.result())) == 2


def test_what_was_forgotten_is_lost(lab: Laboratory) -> None:
    """The server would skip in silence what lies between an older start and what was confirmed."""
    stream = lab.open()
    lab.run("INSERT INTO items VALUES (1)")
    end = lab.entries(stream)[-1].place[0]
    stream.acknowledge(end)
    until(lambda: lab.confirmed() >= end)
    stream.close()
    with pytest.raises(PositionLost, match=r"are gone: slot lab_test\d+ .*initial sync"):
        lab.open(stream.start)


def test_what_is_missing_is_lost(lab: Laboratory) -> None:
    """A slot or publication that is gone, or is not ours."""
    with pytest.raises(PositionLost, match=r"slot nowhere of .* does not exist"):
        lab.open(slot="nowhere")
    with pytest.raises(PositionLost, match=r"publication nowhere of .* does not exist"):
        lab.open(publication="nowhere")
    other = f"{lab.slot}_other"
    lab.run("SELECT pg_create_physical_replication_slot(%s)", other)
    try:
        with pytest.raises(PositionLost, match="is not one that dualwrite has made"):
            lab.open(slot=other)
    finally:
        lab.run("SELECT pg_drop_replication_slot(%s)", other)


def test_a_dropped_publication_is_lost_at_the_next_start(lab: Laboratory) -> None:
    """Later servers send nothing then and do not say so; older ones stop."""
    stream = lab.open()
    lab.run("DROP PUBLICATION lab; INSERT INTO items VALUES (1)")
    if int(lab.run("SHOW server_version_num")[0][0]) < 180000:
        with pytest.raises(PositionLost, match='publication "lab" does not exist'):
            stream.log.wait(1 << 60, PATIENCE)
    else:
        assert lab.entries(stream) == []
    stream.close()
    with pytest.raises(PositionLost, match=r"publication lab of .* does not exist"):
        lab.open()


def test_a_slot_whose_log_was_removed_is_lost(lab: Laboratory) -> None:
    """The server was told not to keep more than a budget."""
    with lab.database.connect() as admin:
        admin.execute("ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'")
        admin.execute("SELECT pg_reload_conf()")
        try:
            until(lambda: lab.run("SHOW max_slot_wal_keep_size") == [("1MB",)])
            for _ in range(3):
                admin.execute("INSERT INTO beside VALUES (1)")
                admin.execute("SELECT pg_switch_wal()")
            admin.execute("CHECKPOINT")
            query = "SELECT wal_status FROM pg_replication_slots WHERE slot_name = %s"
            until(lambda: lab.run(query, lab.slot) == [("lost",)])
            with pytest.raises(PositionLost, match="has lost what follows"):
                lab.open()
        finally:
            admin.execute("ALTER SYSTEM RESET max_slot_wal_keep_size")
            admin.execute("SELECT pg_reload_conf()")


def test_a_role_that_may_not_replicate_is_denied(lab: Laboratory) -> None:
    """It says so, and does not try again."""
    role = f"weak_{os.getpid()}_{lab.database.name}"
    lab.run(f"CREATE ROLE {role} LOGIN")
    try:
        with pytest.raises(Denied):
            lab.open(user=role)
    finally:
        lab.run(f"DROP ROLE {role}")


def test_a_log_that_cannot_be_written_ends_the_stream(lab: Laboratory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No disk space: readers are told."""

    def refuse(**_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_pg_blocks.tempfile, "TemporaryFile", refuse)
    stream = lab.open(held=0)
    lab.run("INSERT INTO items SELECT g FROM generate_series(1, 5000) g")
    with pytest.raises(Unavailable, match="No space left on device"):
        stream.log.wait(1 << 60, PATIENCE)


def test_rows_of_updates_and_deletes_carry_both_images(lab: Laboratory) -> None:
    """Changes of the key too."""
    stream = lab.open()
    lab.run("INSERT INTO parts VALUES (1, 1); UPDATE parts SET id = 2; DELETE FROM parts")
    assert [row.kind for row in lab.entries(stream) if isinstance(row, Row)] == [Kind.INSERT, Kind.UPDATE, Kind.DELETE]
    assert [row[2:] for row in rows(lab.entries(stream))] == [
        (None, ("1", "1")),
        (("1", "1"), ("2", "1")),
        (("2", "1"), None),
    ]
