"""Our own transactions in PostgreSQL: what commits as one, what a crash leaves, who gives way to whom."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from threading import Event, Thread

import psycopg
import pytest

from dualwrite.connectors._pg_capture import Capture
from dualwrite.connectors._pg_catalog import read_catalog
from dualwrite.connectors._pg_echo import Marker, Wrote
from dualwrite.connectors._pg_installed import Names
from dualwrite.connectors._pg_ledger import Written
from dualwrite.connectors._pg_session import Connection
from dualwrite.connectors._pg_session import Database as Access
from dualwrite.connectors._pg_transaction import Work, Writer, forget, positions, remembered
from dualwrite.connectors._pg_trip import Asked, go_ahead, trip
from dualwrite.connectors._pg_wire import Begin, Message, Origin, decode
from dualwrite.connectors.base import Remembered
from dualwrite.errors import Denied, Superseded, Unavailable, Usage
from dualwrite.model import Applied, Batch, Key, Outcome, Position, Row, Write
from dualwrite.schema import View
from dualwrite.testing.postgresql import Database, Server
from dualwrite.testing.sqlite import view

SCRIPT = """
CREATE TABLE items (name text PRIMARY KEY, other text REFERENCES items DEFERRABLE INITIALLY DEFERRED)
"""
ITEMS = view("items", "name", "other")
WROTE = Wrote(frozenset({"items"}), [Written("items", None, ("a",), {"name": "a"})])


def since(after: Position, _limit: int) -> Batch:
    """No feed here."""
    raise AssertionError(after)


def plain(connection: Connection) -> Work:
    """Reads and inserts rows of the table."""

    def fetch(_view: View, keys: Sequence[Key]) -> dict[Key, list[Row]]:
        found = "SELECT name, other FROM items WHERE name = ANY ($1::text[])"
        rows = connection.execute(found, [[key[0] for key in keys]])
        return {(name,): [(name, other)] for name, other in rows}

    def write(_view: View, writes: Sequence[Write]) -> list[Outcome]:
        go_ahead(connection)
        for each in writes:
            assert each.row is not None
            connection.execute("INSERT INTO items VALUES ($1, $2)", list(each.row))
        return [Applied()] * len(writes)

    return Work(since, fetch, write, lambda: None, lambda: True)


def in_trips(connection: Connection) -> Work:
    """The same, in trips: a transaction begins with its first write."""

    def write(_view: View, writes: Sequence[Write]) -> list[Outcome]:
        rows = [list(each.row) for each in writes if each.row is not None]
        trip(connection, [Asked("INSERT INTO items VALUES ($1, $2)", cells) for cells in rows])
        return [Applied()] * len(writes)

    return replace(plain(connection), write=write)


class Lab:
    """A database with the link installed."""

    def __init__(self, database: Database) -> None:
        """Install it."""
        self.database = database
        self.access = Access.of(database.url, "lab")
        Capture(self.access).install(read_catalog, [ITEMS])
        self.writers: list[Writer] = []
        self.writer = self.another()

    def another(self, patience: float = 20) -> Writer:
        """Another connector's writer."""
        self.writers.append(Writer(self.access, patience))
        return self.writers[-1]

    def names(self) -> list[str]:
        """What the table holds."""
        return [name for (name,) in self.database.run("SELECT name FROM items ORDER BY name")]

    def positions(self) -> dict[str, tuple[Position, int]]:
        """What is committed."""
        with self.access.connect() as connection:
            return dict(positions(connection, Names.of(connection, "lab")))

    def remembered(self, kind: str = "parked") -> list[Remembered]:
        """The side table."""
        with self.access.connect() as connection:
            return list(remembered(connection, Names.of(connection, "lab"), kind))

    def told(self) -> list[object]:
        """What a reader of the slot is told of transactions."""
        rows = self.database.run(
            "SELECT data FROM pg_replication_slots, pg_logical_slot_peek_binary_changes(slot_name, NULL, NULL, "
            "'proto_version', '1', 'publication_names', 'dualwrite_lab', 'messages', 'true') "
            "WHERE database = current_database() AND confirmed_flush_lsn IS NOT NULL"
        )
        return [decode(bytes(data)) for (data,) in rows]

    def markers(self) -> list[Marker]:
        """The markers, each of which must stand in a transaction with our origin."""
        found, origin = [], ""
        for message in self.told():
            match message:
                case Begin():
                    origin = ""
                case Origin(_, name):
                    origin = name
                case Message(True, _, "dualwrite_lab", content):
                    with self.access.connect() as connection:
                        assert origin == Names.of(connection, "lab").slot
                    found.append(Marker.parse(content.decode() if isinstance(content, bytes) else content))
        return found


@pytest.fixture
def lab(each_postgresql: Server) -> Iterator[Lab]:
    """An installed link."""
    with each_postgresql.database(SCRIPT) as database:
        lab = Lab(database)
        yield lab
        for writer in lab.writers:
            writer.close()


def begin(writer: Writer, stream: str = "flow", work: Callable[[Connection], Work] = plain):
    """A transaction of the flow."""
    transaction = writer.begin(stream, lambda connection, *_: work(connection), None)
    try:
        assert transaction.number  # it begins with the first thing that is asked of it
    except BaseException:
        transaction.rollback()
        raise
    return transaction


def at(number: int) -> Position:
    """A position of the other side."""
    return Position("peer with @ and 'quotes'", (number, 7))


def row(name: str, other: str | None = None) -> Write:
    """Insert a row."""
    return Write((name,), None, (name, other))


def test_everything_commits_as_one(lab: Lab) -> None:
    """Rows, side table, number and position are there together; the feed holds the marker in our transaction."""
    with begin(lab.writer, work=lambda connection: replace(plain(connection), wrote=lambda: WROTE)) as transaction:
        assert transaction.position() is None
        assert transaction.number == 1
        assert transaction.write(ITEMS, [row("a")]) == [Applied()]
        assert transaction.fetch(ITEMS, [("a",), ("b",)]) == {("a",): [("a", None)]}
        transaction.remember("parked", "items", "k", "v")
        assert lab.names() == []
        transaction.commit(at(9))
    assert lab.names() == ["a"]
    assert lab.positions() == {"flow": (at(9), 1)}
    assert lab.remembered() == [Remembered("parked", "items", "k", "v", 1, None)]
    assert lab.markers() == [Marker(1, at(9), None, WROTE)]


def test_a_marker_repeats_what_was_seen(lab: Lab) -> None:
    """A commit that moves no position has still seen what an earlier one, of any stream, brought."""
    for stream, position in (("flow", None), ("flow", at(1)), ("queue", None), ("queue", at(2)), ("flow", None)):
        with begin(lab.writer, stream) as transaction:
            transaction.commit(position)
    assert [marker.seen for marker in lab.markers()] == [None, at(1), at(1), at(2), at(2)]
    assert [marker.former for marker in lab.markers()] == [None, None, at(1), at(1), at(2)]
    assert [marker.number for marker in lab.markers()] == [1, 2, 3, 4, 5]
    assert lab.positions() == {"flow": (at(1), 5), "queue": (at(2), 5)}


def test_commits_carry_their_own_time(lab: Lab) -> None:
    """What triggers do inside our transaction is of that time, not of the one before."""
    for number in (1, 2):
        before = lab.database.run("SELECT extract(epoch FROM clock_timestamp())")[0][0]
        with begin(lab.writer) as transaction:
            transaction.commit(at(number))
        after = lab.database.run("SELECT extract(epoch FROM clock_timestamp())")[0][0]
        times = [message.at for message in lab.told() if isinstance(message, Begin)]
        assert float(before) - 0.001 <= times[-1] <= float(after) + 0.001


@pytest.mark.parametrize("way", ["leave", "raise", "rollback", "close", "backend"])
def test_nothing_is_left_without_a_commit(lab: Lab, way: str) -> None:
    """However a transaction ends before its commit: no row, no entry, no marker, no position; the next one works."""
    other = lab.another()
    transaction = begin(other)
    transaction.write(ITEMS, [row("a")])
    transaction.remember("parked", "items", "k", "v")
    match way:
        case "leave":
            transaction.__exit__(None, None, None)
        case "raise":
            with pytest.raises(RuntimeError), transaction:
                raise RuntimeError("a bug")
        case "rollback":
            transaction.rollback()
            transaction.rollback()
        case "close":
            other.close()
        case _:
            lab.database.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE state LIKE 'idle in trans%'")
            with pytest.raises(Unavailable), transaction:
                transaction.commit(at(1))
    assert (lab.names(), lab.remembered(), lab.positions(), lab.markers()) == ([], [], {}, [])
    with begin(lab.writer) as following:
        assert (following.position(), following.number) == (None, 1)
        following.commit(at(2))
    if way != "close":
        with begin(other) as following:  # with a new session where the last one broke
            assert (following.position(), following.number) == (at(2), 2)
            following.write(ITEMS, [row("a")])
            following.commit(at(3))
        assert lab.names() == ["a"]


def test_a_killed_server_leaves_nothing(each_postgresql: Server) -> None:
    """After the server was killed in the middle, what was committed is there, the rest is not, and work goes on."""
    server = Server(settings={"fsync": "on"}, programs=each_postgresql.programs)
    try:
        server.start()
        with server.database(SCRIPT) as database:
            lab = Lab(database)
            with begin(lab.writer) as transaction:
                transaction.write(ITEMS, [row("a")])
                transaction.commit(at(1))
            transaction = begin(lab.writer)
            transaction.write(ITEMS, [row("b")])
            server.kill()
            with pytest.raises(Unavailable), transaction:
                transaction.commit(at(2))
            with pytest.raises(Unavailable):
                begin(lab.writer)
            server.start()
            assert (lab.names(), lab.positions()) == (["a"], {"flow": (at(1), 1)})
            with begin(lab.writer) as transaction:
                assert (transaction.position(), transaction.number) == (at(1), 2)
                transaction.commit(at(2))
            assert [marker.number for marker in lab.markers()] == [1, 2]
            lab.writer.close()
    finally:
        server.remove()


def test_a_transaction_is_over_after_its_end(lab: Lab) -> None:
    """Nothing can be done in it any more."""
    with begin(lab.writer) as transaction:
        transaction.commit(at(1))
        for action in (
            transaction.position,
            lambda: transaction.commit(at(2)),
            lambda: transaction.remember("parked", "items", "k", "v"),
            lambda: transaction.fetch(ITEMS, []),
            lambda: transaction.write(ITEMS, []),
            lambda: transaction.since(at(1)),
        ):
            with pytest.raises(RuntimeError, match="has ended"):
                action()


# -- several writers -------------------------------------------------------------------------------------------------


def test_writers_of_a_link_follow_one_another(lab: Lab) -> None:
    """Of several that count a stream upwards at the same time, none overwrites another."""

    def count(writer: Writer) -> None:
        for _ in range(10):
            with begin(writer) as transaction:
                position = transaction.position()
                transaction.commit(at(position.place[0] + 1 if position else 1))

    rivals = [Thread(target=count, args=(lab.another(),)) for _ in range(3)]
    for rival in rivals:
        rival.start()
    for rival in rivals:
        rival.join()
    assert lab.positions() == {"flow": (at(30), 30)}
    assert [marker.number for marker in lab.markers()] == list(range(1, 31))


def test_one_who_holds_the_origin_is_told(lab: Lab) -> None:
    """A session that does not end is waited for, not for ever; in the same process, too."""
    with begin(lab.writer):
        with pytest.raises(Unavailable, match="another session writes for this link"):
            begin(lab.another(patience=0.1))
        lab.writer._patience = 0.1
        with pytest.raises(Unavailable, match="of this process does not end"):
            begin(lab.writer)


def test_one_who_holds_the_origin_is_told_to_a_first_write(lab: Lab) -> None:
    """A transaction that begins with a write waits as well, and says why; nothing of it was written."""
    rival = lab.another(patience=0.1)
    with (
        begin(lab.writer),
        rival.begin("flow", lambda connection, *_: in_trips(connection), None) as refused,
        pytest.raises(Unavailable, match="another session writes for this link"),
    ):
        refused.write(ITEMS, [row("a")])
    with rival.begin("flow", lambda connection, *_: in_trips(connection), None) as transaction:
        transaction.write(ITEMS, [row("a")])
        transaction.commit(at(1))
    assert lab.names() == ["a"]


def test_a_dead_writer_lets_go(lab: Lab) -> None:
    """The origin of a session that is just dying is waited for."""
    first = begin(lab.another())
    waiting = Event()
    done: list[int] = []

    def follow() -> None:
        waiting.set()
        with begin(lab.writer) as transaction:
            done.append(transaction.number)
            transaction.commit(at(1))

    rival = Thread(target=follow)
    rival.start()
    waiting.wait()
    lab.database.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE state LIKE 'idle in trans%'")
    rival.join()
    assert done == [1]
    with pytest.raises(Unavailable):
        first.commit(at(2))
    first.rollback()
    assert lab.positions() == {"flow": (at(1), 1)}


def test_a_position_that_somebody_else_moved_is_superseded(lab: Lab) -> None:
    """Who has not looked again since another engine moved the stream must not move it; who has, may."""
    with begin(lab.writer) as transaction:
        transaction.commit(at(1))
    with begin(lab.another()) as transaction:
        transaction.commit(at(5))
    with begin(lab.writer) as transaction:
        transaction.write(ITEMS, [row("a")])
        with pytest.raises(Superseded, match="another engine"):
            transaction.commit(at(2))
    assert (lab.names(), lab.positions()) == ([], {"flow": (at(5), 2)})
    with begin(lab.writer) as transaction:
        assert transaction.position() == at(5)
        transaction.commit(at(6))


def test_nothing_works_where_the_link_is_not_installed(each_postgresql: Server) -> None:
    """It is said what to do; also where it was removed while we were connected."""
    with each_postgresql.database(SCRIPT) as database:
        writer = Writer(Access.of(database.url, "lab"))
        with pytest.raises(Usage, match="not installed"):
            begin(writer)
        lab = Lab(database)
        with begin(writer) as transaction:
            transaction.commit(at(1))
        Capture(lab.access).uninstall()
        with pytest.raises(Usage, match="not installed"):
            begin(writer)
        writer.close()


# -- the application -------------------------------------------------------------------------------------------------


def test_the_application_is_never_the_victim(lab: Lab) -> None:
    """In a deadlock we give way, long before the server looks for one."""
    lab.database.run("INSERT INTO items VALUES ('a'), ('b')")
    update = "UPDATE items SET other = NULL WHERE name = $1"
    blocked = Event()

    def locking(connection: Connection) -> Work:
        def write(_view: View, writes: Sequence[Write]) -> list[Outcome]:
            for each in writes:
                connection.execute(update, list(each.key))
            return [Applied()]

        return replace(plain(connection), write=write)

    with begin(lab.writer, work=locking) as transaction, lab.database.connect() as application:
        application.execute("BEGIN")
        application.execute("UPDATE items SET other = NULL WHERE name = 'b'")
        transaction.write(ITEMS, [row("a")])

        def wait() -> None:
            blocked.set()
            application.execute("UPDATE items SET other = NULL WHERE name = 'a'")
            application.execute("COMMIT")

        thread = Thread(target=wait)
        thread.start()
        blocked.wait()
        began = time.monotonic()
        with pytest.raises(Unavailable, match="a lock cannot be had"):
            transaction.write(ITEMS, [row("b")])
        assert time.monotonic() - began < 0.9
        transaction.rollback()
        thread.join()
        assert application.info.transaction_status == psycopg.pq.TransactionStatus.IDLE


def test_settings_of_the_role_do_not_matter(lab: Lab) -> None:
    """What others have set for the role or the database neither loosens nor hardens our transactions."""
    settings = (
        "default_transaction_isolation = 'serializable'",
        "default_transaction_read_only = on",
        "synchronous_commit = off",
        "lock_timeout = 1",
    )
    with lab.database.connect() as session:
        for setting in settings:
            session.execute(f"ALTER DATABASE {lab.database.name} SET {setting}".encode())
    shown: list[str] = []

    def looking(connection: Connection) -> Work:
        def fetch(_view: View, _keys: Sequence[Key]) -> dict[Key, list[Row]]:
            for name in ("transaction_isolation", "transaction_read_only", "synchronous_commit", "lock_timeout"):
                rows = connection.execute(f"SHOW {name}".encode()).fetchall()
                shown.append(rows[0][0])
            return {}

        return replace(plain(connection), fetch=fetch)

    with begin(lab.another(), work=looking) as transaction:
        transaction.fetch(ITEMS, [])
        transaction.commit(at(1))
    assert shown == ["read committed", "off", "local", "300ms"]
    Capture(lab.access).uninstall()
    Capture(lab.access).install(read_catalog, [ITEMS])


def test_a_broken_deferred_constraint_is_told(lab: Lab) -> None:
    """What a trigger breaks at the commit undoes all of it, and stops the link with a reason."""

    def deferring(connection: Connection) -> Work:
        def write(view: View, writes: Sequence[Write]) -> list[Outcome]:
            connection.execute("SET CONSTRAINTS ALL DEFERRED")  # as a trigger could
            return plain(connection).write(view, writes)

        return replace(plain(connection), write=write)

    with begin(lab.writer, work=deferring) as transaction:
        transaction.write(ITEMS, [row("a", "nobody")])
        with pytest.raises(Denied, match="items_other_fkey"):
            transaction.commit(at(1))
    assert (lab.names(), lab.positions(), lab.markers()) == ([], {}, [])
    with begin(lab.writer) as transaction:
        assert transaction.number == 1
        transaction.commit(at(1))


# -- the side table --------------------------------------------------------------------------------------------------


def test_the_side_table_tells_from_when_to_when(lab: Lab) -> None:
    """An entry knows the commit that wrote it and the one that removed or replaced it; ended ones can be forgotten."""
    steps = [("a", "1"), ("b", "2"), ("a", None), ("b", "3"), ("a", "4"), ("c", None)]
    for key, value in steps:
        with begin(lab.writer) as transaction:
            transaction.remember("parked", "items", key, "never mind")
            transaction.remember("parked", "items", key, value)
            transaction.remember("hidden", "items", key, "other kind \x01")
            transaction.commit(None)

    def entries() -> list[tuple[str, str, int, int | None]]:
        return [(entry.key, entry.value, entry.since, entry.until) for entry in lab.remembered()]

    assert entries() == [("a", "1", 1, 3), ("b", "2", 2, 4), ("b", "3", 4, None), ("a", "4", 5, None)]
    assert [(entry.key, entry.since) for entry in lab.remembered("hidden") if entry.until is None] == [
        ("b", 4),
        ("a", 5),
        ("c", 6),
    ]
    with lab.access.connect() as connection:
        forget(connection, Names.of(connection, "lab"), 3)
    assert entries() == [("b", "2", 2, 4), ("b", "3", 4, None), ("a", "4", 5, None)]
