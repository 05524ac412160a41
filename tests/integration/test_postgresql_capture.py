"""What a link needs in PostgreSQL is installed, extended, shrunk, mended and removed, whatever happens in between."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from threading import Thread

import psycopg
import pytest

from dualwrite.connectors._pg_capture import Capture
from dualwrite.connectors._pg_catalog import read_catalog
from dualwrite.connectors._pg_health import CODES, inspect
from dualwrite.connectors._pg_installed import Installed, Names, read_installed
from dualwrite.connectors._pg_session import Connection
from dualwrite.connectors._pg_session import Database as Access
from dualwrite.errors import Denied, Halted, PositionLost, Problem, Unavailable, Usage
from dualwrite.model import Side
from dualwrite.schema import View
from dualwrite.testing.postgresql import Database, Server
from dualwrite.testing.sqlite import view

SCRIPT = """
CREATE TABLE terms (id int PRIMARY KEY, name text UNIQUE NOT NULL);
CREATE TABLE customers (account text PRIMARY KEY, name text, terms_id int REFERENCES terms);
CREATE SCHEMA "Other";
CREATE TABLE "Other"."Odd ""Name'" (code text NOT NULL, v text);
CREATE UNIQUE INDEX "Odd Key" ON "Other"."Odd ""Name'" (code);
ALTER TABLE "Other"."Odd ""Name'" REPLICA IDENTITY USING INDEX "Odd Key";
CREATE TABLE keyless (v text);
ALTER TABLE keyless REPLICA IDENTITY NOTHING;
CREATE TABLE bare (v text);
CREATE TABLE whole (v text);
ALTER TABLE whole REPLICA IDENTITY FULL;
CREATE TABLE parts (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10);
CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (10) TO (20);
INSERT INTO terms VALUES (1, 'N30');
INSERT INTO customers VALUES ('C1', 'Contoso', 1);
INSERT INTO bare VALUES ('a');
INSERT INTO parts VALUES (1, 'a'), (11, 'b');
"""
CUSTOMERS = view("customers", "account", "name", "terms_id.name")
BARE, KEYLESS, WHOLE, PARTS = (view(name, "v") for name in ("bare", "keyless", "whole", "parts"))
ODD = view("Other.Odd \"Name'", "code", "v")
ALL = (CUSTOMERS, BARE, KEYLESS, WHOLE, PARTS, ODD)
CAPTURED = {"terms", "customers", "bare", "keyless", "whole", "parts", "Odd \"Name'"}
STATE = """
SELECT 'slot', slot_name, plugin FROM pg_replication_slots WHERE database = current_database()
UNION ALL SELECT 'publication', pubname, oid::text FROM pg_publication
UNION ALL SELECT 'origin', roname, '' FROM pg_replication_origin
UNION ALL SELECT 'schema', nspname, nspacl::text FROM pg_namespace
UNION ALL SELECT 'relation', relname, concat_ws(' ', oid, relreplident, relacl) FROM pg_class WHERE oid >= 16384
UNION ALL SELECT 'index', indexrelid::regclass::text, indisreplident::text FROM pg_index WHERE indexrelid >= 16384
UNION ALL SELECT 'type', typname, '' FROM pg_type WHERE oid >= 16384
UNION ALL SELECT 'function', proname, '' FROM pg_proc WHERE oid >= 16384
UNION ALL SELECT 'trigger', tgname, '' FROM pg_trigger
ORDER BY 1, 2, 3"""
WAITS = "SELECT pid FROM pg_stat_activity WHERE query LIKE 'SELECT pg_create_logical%' AND wait_event_type = 'Lock'"
MEMBERS = "SELECT relname FROM pg_publication_rel JOIN pg_class c ON c.oid = prrelid"
APPLICATION = """
UPDATE bare SET v = v || 'x'; UPDATE customers SET name = name || 'x'; UPDATE parts SET v = v || 'x';
UPDATE "Other"."Odd ""Name'" SET v = 'x'; DELETE FROM terms WHERE id = 9"""


@pytest.fixture
def database(each_postgresql: Server) -> Iterator[Database]:
    """A database with all kinds of tables."""
    with each_postgresql.database(SCRIPT) as database:
        yield database


def access(database: Database, link: str = "lab", user: str = "postgres") -> Access:
    """The database as a link reaches it."""
    return Access.of(database.server.url(database.name, user), link)


def install(database: Database, *views: View, link: str = "lab", user: str = "postgres", patience: float = 20) -> None:
    """Install exactly these views."""
    Capture(access(database, link, user), patience).install(read_catalog, views)


def uninstall(database: Database, link: str = "lab", user: str = "postgres", patience: float = 20) -> None:
    """Remove the link."""
    Capture(access(database, link, user), patience).uninstall()


def installed(database: Database, link: str = "lab") -> Installed:
    """What is there."""
    with access(database, link).connect() as connection:
        return read_installed(connection, Names.of(connection, link))


def health(database: Database, *views: View, user: str = "postgres") -> list[Problem]:
    """What is wrong, whatever the servers of the tests are set to."""
    found = inspect(access(database, user=user), Side.LEFT, views, read_catalog)
    assert all(problem.code in CODES and problem.side == "left" and problem.remedy for problem in found)
    return [problem for problem in found if problem.code != "pg_unlimited"]


def codes(database: Database, *views: View, user: str = "postgres") -> list[str]:
    """The codes of what is wrong."""
    return [problem.code for problem in health(database, *views, user=user)]


def state(database: Database) -> list[tuple[str, ...]]:
    """Everything that a link could leave behind."""
    return database.run(STATE)


def members(database: Database) -> set[str]:
    """The tables in publications."""
    return {name for (name,) in database.run(MEMBERS)}


def identities(database: Database) -> dict[str, str]:
    """The replica identities of tables that hold rows."""
    return dict(database.run("SELECT relname, relreplident FROM pg_class WHERE oid >= 16384 AND relkind = 'r'"))


# -- there and back --------------------------------------------------------------------------------------------------


def test_uninstall_leaves_the_database_as_it_was(database: Database) -> None:
    """Slot, publication, origin, schema and every kind of replica identity come and go; twice is as good as once."""
    before = state(database)
    uninstall(database)
    assert state(database) == before
    install(database, *ALL)
    assert members(database) == CAPTURED
    captured = CAPTURED - {"parts"} | {"parts_1", "parts_2"}
    assert {name for name, identity in identities(database).items() if identity == "f"} == captured
    there = installed(database)
    assert there.is_complete
    assert there.feed
    assert there.has_origin
    assert there.slot is not None
    assert there.slot.is_ours
    assert codes(database, *ALL) == []
    database.run(APPLICATION)
    uninstall(database)
    uninstall(database)
    assert state(database) == before
    assert codes(database, *ALL) == []


def test_install_again_changes_nothing(database: Database) -> None:
    """The second call finds everything in place: the same feed, the same memberships, no lock taken on any table."""
    install(database, *ALL)
    first, objects = installed(database), state(database)
    with database.connect() as application:
        application.execute("BEGIN")
        application.execute("UPDATE customers SET name = 'y'")  # would be in the way
        install(database, *ALL, patience=1)
    assert state(database) == objects
    assert installed(database).meta == first.meta


def test_install_extends_and_shrinks_to_exactly_the_views(database: Database) -> None:
    """Tables come into the publication, and leave it with the replica identity that they had; the feed goes on."""
    install(database, BARE)
    feed = installed(database).feed
    install(database, CUSTOMERS, PARTS)
    assert members(database) == {"customers", "terms", "parts"}
    assert identities(database)["bare"] == "d"
    install(database, ODD, KEYLESS)
    assert members(database) == {"Odd \"Name'", "keyless"}
    found = identities(database)
    assert {found[name] for name in ("customers", "terms", "parts_1", "parts_2")} == {"d"}
    install(database)
    assert members(database) == set()
    assert identities(database)["Odd \"Name'"] == "i"
    assert identities(database)["keyless"] == "n"
    install(database, BARE)  # left for a while and come again, it is new
    assert installed(database).feed == feed


def test_new_partitions_are_captured_too(database: Database) -> None:
    """A partition that came later is published at once; its former rows are from the next install on."""
    before = state(database)
    install(database, PARTS)
    database.run("CREATE TABLE parts_3 PARTITION OF parts FOR VALUES FROM (20) TO (30)")
    assert codes(database, PARTS) == ["pg_partition"]
    feed = installed(database).feed
    install(database, PARTS)
    assert identities(database)["parts_3"] == "f"
    assert installed(database).feed == feed
    assert codes(database, PARTS) == []
    database.run("DROP TABLE parts_3")
    uninstall(database)
    assert state(database) == before


def test_a_table_without_partitions_is_captured_too(database: Database) -> None:
    """A partitioned table need not have any partitions yet; it comes and goes like others."""
    database.run("CREATE TABLE hollow (v text) PARTITION BY LIST (v)")
    hollow = view("hollow", "v")
    install(database, hollow, BARE)
    assert members(database) == {"hollow", "bare"}
    install(database, BARE)
    assert members(database) == {"bare"}


def test_a_former_index_may_be_gone(database: Database) -> None:
    """Where the index of the former identity was dropped meanwhile, the table gets the default one."""
    install(database, ODD)
    database.run('DROP INDEX "Other"."Odd Key"')
    uninstall(database)
    assert identities(database)["Odd \"Name'"] == "d"


def test_what_somebody_else_changed_meanwhile_stays(database: Database) -> None:
    """An identity that is not ours any more is left alone, and so is a table that was dropped."""
    install(database, BARE, KEYLESS)
    database.run("ALTER TABLE bare REPLICA IDENTITY NOTHING; DROP TABLE keyless")
    uninstall(database)
    assert identities(database)["bare"] == "n"


def test_nothing_that_is_not_ours_is_dropped(database: Database) -> None:
    """A table that somebody has put into our schema keeps it from being dropped, and is named."""
    install(database, BARE)
    database.run("CREATE TABLE dualwrite_lab.mine (x int)")
    with pytest.raises(Denied, match="other objects"):
        uninstall(database)
    database.run("DROP TABLE dualwrite_lab.mine")
    uninstall(database)


# -- several links ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [("one", "two"), ("two", "one")])
def test_two_links_share_a_table(database: Database, order: tuple[str, str]) -> None:
    """The replica identity is put back by the last one to go, and is the one from before both."""
    before = state(database)
    install(database, BARE, ODD, link="one")
    install(database, ODD, link="two")
    uninstall(database, order[0])
    assert identities(database)["Odd \"Name'"] == "f"
    assert installed(database, order[1]).is_complete
    uninstall(database, order[1])
    assert state(database) == before


def test_two_databases_of_a_cluster_do_not_meet(each_postgresql: Server) -> None:
    """The same link's name in two databases: each has its slot and its origin."""
    with each_postgresql.database(SCRIPT) as one, each_postgresql.database(SCRIPT) as two:
        before = state(two)
        install(one, BARE)
        install(two, BARE)
        uninstall(two)
        assert [row for row in state(two) if row[0] != "origin"] == [row for row in before if row[0] != "origin"]
        assert installed(one).is_complete
        uninstall(one)
        assert state(two) == before


def test_installs_at_the_same_time_follow_one_another(database: Database) -> None:
    """Several processes that install and remove links on the same tables end where one after the other would."""
    before = state(database)
    for action in (lambda link: install(database, *ALL, link=link), lambda link: uninstall(database, link)):
        failures: list[Exception] = []

        def act(link: str, action: Callable[[str], None] = action, failures: list[Exception] = failures) -> None:
            try:
                action(link)
            except Exception as error:
                failures.append(error)

        rivals = [Thread(target=act, args=(link,)) for link in ("one", "two", "one", "two")]
        for rival in rivals:
            rival.start()
        for rival in rivals:
            rival.join()
        assert failures == []
    assert state(database) == before


def test_names_keep_within_the_limits_of_postgresql(database: Database) -> None:
    """The longest name of a link still makes valid names; what no slot may be called is refused."""
    before = state(database)
    longest = "x" * 42
    install(database, BARE, link=longest)
    assert installed(database, longest).is_complete
    uninstall(database, longest)
    assert state(database) == before
    for link in ("x" * 43, "Lab", "a-b", ""):
        with pytest.raises(Usage, match="name of a link"):
            install(database, BARE, link=link)


def test_a_copy_of_a_linked_database_is_noticed(database: Database) -> None:
    """A database restored from a backup holds the link's tables, but nothing works with them; uninstall cleans up."""
    install(database, BARE, ODD)
    copy = f"{database.name}_copy"
    with database.server.connect() as administration:
        administration.execute(f"CREATE DATABASE {copy} TEMPLATE {database.name}")
    try:
        restored = Database(database.server, copy)
        assert codes(restored, BARE) == ["pg_backup"]
        with pytest.raises(Denied, match="backup"):
            install(restored, BARE)
        uninstall(restored)
        assert {name: identities(restored)[name] for name in ("bare", "Odd \"Name'")} == {
            "bare": "d",
            "Odd \"Name'": "i",
        }
        assert members(restored) == set()
        assert installed(database).is_complete
        install(restored, BARE)
        uninstall(restored)
    finally:
        with database.server.connect() as administration:
            administration.execute(f"DROP DATABASE {copy} WITH (FORCE)")


# -- crashes ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Failing:
    """A database whose sessions die before one of their statements."""

    inner: Access
    link: str
    shown: str
    left: list[int] = field(default_factory=list)

    def connect(self, *, replication: bool = False) -> Connection:
        """A session that will die."""
        connection = self.inner.connect(replication=replication)
        execute = connection.execute

        def failing(*args: object, **options: object) -> object:
            if self.left[0] == 0:
                connection.close()
            self.left[0] -= 1
            return execute(*args, **options)  # type: ignore[arg-type]

        connection.execute = failing  # type: ignore[method-assign]
        return connection

    def errors(self) -> object:
        """As of the database."""
        return self.inner.errors()


def failing(database: Database, after: int) -> Capture:
    """A capture whose session dies after so many statements."""
    inner = access(database)
    return Capture(Failing(inner, inner.link, inner.shown, [after]), 20)  # type: ignore[arg-type]


def crash_everywhere(database: Database, action: str, views: Sequence[View] = ALL) -> Iterator[int]:
    """Let an action crash after 0, 1, 2 … statements until it comes to its end."""
    for after in range(200):
        capture = failing(database, after)
        try:
            if action == "install":
                capture.install(read_catalog, views)
            else:
                capture.uninstall()
        except (Unavailable, psycopg.OperationalError):
            yield after
        except PositionLost:
            return
        else:
            assert after > 10
            return
    pytest.fail("it never ends")


def test_install_can_be_repeated_after_a_crash_at_each_step(database: Database) -> None:
    """Whatever a crash has left: the application is not hindered, and install or uninstall complete the work."""
    before, views = state(database), (BARE, PARTS, ODD)
    for after in crash_everywhere(database, "install", views):
        database.run(APPLICATION)
        if after % 2:
            install(database, *views)
            assert codes(database, *views) == []
            assert installed(database).is_complete
            database.run(APPLICATION)
        uninstall(database)
        assert state(database) == before


def test_install_goes_on_where_it_crashed(database: Database) -> None:
    """One crash after the other, each a statement later, ends in the same place."""
    for _ in crash_everywhere(database, "install"):
        pass
    assert members(database) == CAPTURED
    assert codes(database, *ALL) == []
    assert installed(database).is_complete


def test_uninstall_can_be_repeated_after_a_crash_at_each_step(database: Database) -> None:
    """Whatever a crash has left: the application is not hindered, and the next call removes the rest."""
    before = state(database)
    install(database, *ALL)
    for _ in crash_everywhere(database, "uninstall"):
        database.run(APPLICATION)
    assert state(database) == before


# -- others in the way -----------------------------------------------------------------------------------------------


def test_an_open_writer_is_waited_for_and_named(database: Database) -> None:
    """A table comes into a live publication only when nobody is writing to it: what was written would be lost."""
    install(database, BARE)
    with database.connect() as application:
        application.execute("SET application_name = 'till 7'")
        application.execute("BEGIN")
        application.execute("UPDATE customers SET name = 'y'")
        with pytest.raises(Unavailable, match=rf"process {application.info.backend_pid} .*till 7"):
            install(database, BARE, CUSTOMERS, patience=0.5)
        assert "customers" not in members(database)
        waiting = Thread(target=install, args=(database, BARE, CUSTOMERS))
        waiting.start()
        application.execute("COMMIT")
        waiting.join()
    assert members(database) == {"bare", "customers", "terms"}


def test_the_slot_waits_for_writers_but_not_for_ever(database: Database) -> None:
    """Writers anywhere in the cluster keep a slot from being made; they are named, and nothing is left of the try."""
    with database.connect() as application:
        application.execute("BEGIN")
        application.execute("CREATE TABLE new (x int)")
        with pytest.raises(Unavailable, match=rf"process {application.info.backend_pid} "):
            install(database, BARE, patience=0.5)
        assert installed(database).slot is None
        assert not installed(database).feed
    install(database, BARE)
    assert installed(database).is_complete


def test_a_killed_process_leaves_nobody_in_the_way(database: Database) -> None:
    """The server gives up what it was waiting for on behalf of a process that was killed."""
    program = (
        "import sys; from dualwrite.connectors._pg_capture import Capture; "
        "from dualwrite.connectors._pg_catalog import read_catalog; "
        "from dualwrite.connectors._pg_session import Database; "
        "from dualwrite.testing.sqlite import view; "
        "Capture(Database.of(sys.argv[1], 'lab'), 600).install(read_catalog, [view('bare', 'v')])"
    )
    with database.connect() as application:
        application.execute("BEGIN")
        application.execute("CREATE TABLE new (x int)")
        process = subprocess.Popen([sys.executable, "-c", program, database.url])
        while not database.run(WAITS):
            assert process.poll() is None
        process.kill()
        process.wait()
        while database.run(WAITS):
            pass
    install(database, BARE)
    assert installed(database).is_complete


def test_a_killed_server_leaves_something_to_go_on_from(each_postgresql: Server) -> None:
    """A server that was killed while it made the slot has none afterwards, and install completes the work."""
    server = Server(settings={"fsync": "on"}, programs=each_postgresql.programs)
    try:
        server.start()
        with server.database(SCRIPT) as database:
            before = state(database)
            application = database.connect()
            application.execute("BEGIN")
            application.execute("CREATE TABLE new (x int)")
            failures: list[Exception] = []

            def work() -> None:
                try:
                    install(database, BARE)
                except Unavailable as error:
                    failures.append(error)

            thread = Thread(target=work)
            thread.start()
            while not database.run(WAITS):
                assert thread.is_alive()
            server.kill()
            thread.join()
            application.close()
            assert failures
            server.start()
            assert installed(database).slot is None
            install(database, BARE)
            assert installed(database).is_complete
            uninstall(database)
            assert state(database) == before
    finally:
        server.remove()


def test_a_prepared_transaction_in_the_way_is_named(database: Database) -> None:
    """Nobody's session holds it, so it is told as what it is."""
    database.run("BEGIN; CREATE TABLE new (x int); PREPARE TRANSACTION 'forgotten'")
    try:
        with pytest.raises(Unavailable, match="a prepared transaction"):
            install(database, BARE, patience=0.5)
    finally:
        database.run("ROLLBACK PREPARED 'forgotten'")
    install(database, BARE)


def test_uninstall_ends_who_still_reads_the_slot(database: Database) -> None:
    """A reader that died without a word does not keep its slot for a minute."""
    before = state(database)
    install(database, BARE)
    slot = f'"dualwrite_lab_{installed(database).database.partition(".")[2]}"'
    with access(database).connect(replication=True) as reader:
        options = "(proto_version '1', publication_names 'dualwrite_lab')"
        reader.execute(f"START_REPLICATION SLOT {slot} LOGICAL 0/0 {options}".encode())
        uninstall(database)
        assert state(database) == before
        reader.close()


def test_uninstall_says_when_the_origin_is_held(database: Database) -> None:
    """A writer at work keeps its origin; when it has ended, the rest goes."""
    before = state(database)
    install(database, BARE)
    with access(database).connect() as writer:
        name = Names.of(writer, "lab").slot
        writer.execute("SELECT pg_replication_origin_session_setup($1)", [name])
        with pytest.raises(Unavailable, match=r"origin .* is held"):
            uninstall(database, patience=0.3)
    uninstall(database)
    assert state(database) == before


# -- refusals --------------------------------------------------------------------------------------------------------


def refused(database: Database, code: str, *views: View, user: str = "postgres") -> str:
    """Install refuses and leaves nothing, check says the same: the message and the remedy."""
    before = state(database)
    found = [problem for problem in health(database, *views, user=user) if problem.code == code]
    with pytest.raises(Denied) as caught:
        install(database, *views, user=user)
    assert state(database) == before
    assert found
    assert found[0].level == "error"
    assert found[0].message in caught.value.message
    assert found[0].remedy in caught.value.remedy
    return str(caught.value)


def test_a_column_list_of_any_publication_is_refused(database: Database) -> None:
    """It would make the application's UPDATE fail: on the table, or on a partition; not where only inserts go out."""
    database.run("CREATE PUBLICATION theirs FOR TABLE customers (account)")
    assert "list of columns for customers" in refused(database, "pg_column_list", CUSTOMERS)
    database.run("DROP PUBLICATION theirs; CREATE PUBLICATION theirs FOR TABLE parts_2 (id)")
    assert "list of columns for parts" in refused(database, "pg_column_list", PARTS)
    database.run("DROP PUBLICATION theirs")
    database.run("CREATE PUBLICATION theirs FOR TABLE parts (id) WITH (publish_via_partition_root)")
    assert "list of columns for parts" in refused(database, "pg_column_list", PARTS)
    database.run("ALTER PUBLICATION theirs SET (publish = 'insert')")
    install(database, PARTS)
    database.run(APPLICATION)


def test_other_publications_are_no_hindrance(database: Database) -> None:
    """Others may publish the same tables, all or some, with row filters too."""
    database.run(
        "CREATE PUBLICATION theirs FOR TABLE customers WHERE (account > 'A'), parts; "
        "CREATE PUBLICATION all_tables FOR ALL TABLES"
    )
    install(database, CUSTOMERS, PARTS)
    database.run("UPDATE customers SET name = 'y'; UPDATE parts SET v = 'y'")
    assert codes(database, CUSTOMERS, PARTS) == []


def test_generated_columns(database: Database) -> None:
    """Stored ones are captured from 18 on, before that refused where a map shows them; virtual ones are refused."""
    database.run("CREATE TABLE g (id int PRIMARY KEY, a int, s int GENERATED ALWAYS AS (a * 2) STORED)")
    database.run("INSERT INTO g VALUES (1, 1)")
    shown, hidden = view("g", "id", "s"), view("g", "id", "a")
    with database.connect() as session:
        is_new = session.info.server_version >= 180000
    install(database, hidden)
    database.run("UPDATE g SET a = 2")
    if not is_new:
        assert "does not tell of generated columns" in refused(database, "pg_generated", shown)
        return
    install(database, shown)
    database.run("UPDATE g SET a = 3")
    uninstall(database)
    database.run("CREATE PUBLICATION theirs FOR ALL TABLES")
    assert "publication theirs leaves out generated columns" in refused(database, "pg_generated", hidden)
    database.run("ALTER PUBLICATION theirs SET (publish_generated_columns = stored)")
    install(database, shown)
    database.run("UPDATE g SET a = 4")
    database.run("CREATE TABLE v (id int PRIMARY KEY, a int, s int GENERATED ALWAYS AS (a * 2) VIRTUAL)")
    assert "virtual" in refused(database, "pg_generated", shown, view("v", "id", "a"))


def test_tables_without_a_log_are_refused(database: Database) -> None:
    """Unlogged tables are refused; foreign and temporary ones, and views, are none."""
    database.run("CREATE UNLOGGED TABLE u (x int); CREATE VIEW w AS SELECT 1 AS x")
    assert 'ALTER TABLE "public"."u" SET LOGGED' in refused(database, "pg_unlogged", view("u", "x"))
    for table in ("w", "nowhere"):
        assert codes(database, view(table, "x")) == ["pg_capture"]
        with pytest.raises(Usage, match="does not exist"):
            install(database, view(table, "x"))


def test_tables_with_children_are_refused(database: Database) -> None:
    """Rows of inheriting tables would show in the table, and never come out of the feed as its own."""
    database.run("CREATE TABLE base (x int); CREATE TABLE child () INHERITS (base)")
    assert "inherit" in refused(database, "pg_inheritance", view("base", "x"))


def test_row_level_security_that_hides_rows_is_refused(database: Database) -> None:
    """A role that does not see all rows would take the others for deleted."""
    database.run("CREATE ROLE hidden LOGIN REPLICATION; GRANT ALL ON bare TO hidden")
    try:
        database.run("ALTER TABLE bare ENABLE ROW LEVEL SECURITY")
        assert 'ALTER ROLE "hidden" BYPASSRLS' in refused(database, "pg_row_security", BARE, user="hidden")
        install(database, BARE)
    finally:
        database.run("DROP OWNED BY hidden; DROP ROLE hidden")


def test_a_server_that_lacks_what_is_needed_is_refused(each_postgresql: Server) -> None:
    """Without logical log, free slots or senders nothing is installed; warnings come before that.

    An origin counts only when it is in use, which we cannot see: many of them are a warning.
    """
    server = Server(settings={"wal_level": "replica", "max_replication_slots": "2"}, programs=each_postgresql.programs)
    try:
        server.start()
        with server.database(SCRIPT) as database:
            assert "SET wal_level = 'logical'" in refused(database, "pg_wal_level", BARE)
            server.stop()
            server.settings |= {"wal_level": "logical", "max_wal_senders": "0"}
            server.start()
            assert "max_wal_senders = 10" in refused(database, "pg_exhausted", BARE)
            server.stop()
            server.settings |= {"max_wal_senders": "9", "max_slot_wal_keep_size": "1GB"}
            server.start()
            database.run("SELECT pg_create_physical_replication_slot('first')")
            assert ("pg_exhausted", "warning") in [(problem.code, problem.level) for problem in health(database, BARE)]
            database.run("SELECT pg_create_physical_replication_slot('second')")
            assert "max_replication_slots = 12" in refused(database, "pg_exhausted", BARE)
            database.run("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")
            database.run("SELECT pg_replication_origin_create('other' || n) FROM generate_series(1, 12) n")
            found = health(database, BARE)
            assert {(problem.code, problem.level) for problem in found} == {("pg_exhausted", "warning")}
            assert any("replication origin" in problem.message for problem in found)
            install(database, BARE)
            assert inspect(access(database), Side.LEFT, [BARE], read_catalog) == []
    finally:
        server.remove()


def test_a_newer_layout_is_refused(database: Database) -> None:
    """An old dualwrite does not touch what a newer one has made."""
    install(database, BARE)
    database.run("UPDATE dualwrite_lab.meta SET value = '99' WHERE name = 'schema'")
    assert codes(database, BARE) == ["pg_newer"]
    for action in (lambda: install(database, BARE), lambda: uninstall(database)):
        with pytest.raises(Denied, match="newer dualwrite"):
            action()
    assert installed_slot(database)


def installed_slot(database: Database) -> bool:
    """Is there a slot of the database?"""
    return bool(database.run("SELECT slot_name FROM pg_replication_slots WHERE database = current_database()"))


def test_a_slot_of_somebody_else_is_left_alone(database: Database) -> None:
    """One that has our name by chance, for another plugin, is told and never dropped."""
    ((oid,),) = database.run("SELECT oid FROM pg_database WHERE datname = current_database()")
    database.run(f"SELECT pg_create_physical_replication_slot('dualwrite_lab_{oid}')")
    try:
        with pytest.raises(Denied, match="not one that dualwrite has made"):
            install(database, BARE)
        uninstall(database)
    finally:
        database.run(f"SELECT pg_drop_replication_slot('dualwrite_lab_{oid}')")


# -- changes that may have been missed -------------------------------------------------------------------------------

DROP_SLOT = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = current_database()"
HIDDEN = {
    "the slot was dropped": DROP_SLOT,
    "the publication was dropped": "DROP PUBLICATION dualwrite_lab",
    "another publication has its name": "DROP PUBLICATION dualwrite_lab; "
    "CREATE PUBLICATION dualwrite_lab FOR TABLE bare",
    "the publication leaves out deletes": "ALTER PUBLICATION dualwrite_lab SET (publish = 'insert')",
}
HIDDEN_OF_ONE = {
    "the table was taken out": "ALTER PUBLICATION dualwrite_lab DROP TABLE bare",
    "the table was out for a while": "ALTER PUBLICATION dualwrite_lab DROP TABLE bare; "
    "ALTER PUBLICATION dualwrite_lab ADD TABLE bare",
    "the table has a filter": "ALTER PUBLICATION dualwrite_lab SET TABLE bare WHERE (v = 'a'), customers, terms",
    "the table was created anew": "DROP TABLE bare; CREATE TABLE bare (v text)",
    "the table is another": "ALTER TABLE bare RENAME TO old; CREATE TABLE bare (v text)",
    "the identity was changed": "ALTER TABLE bare REPLICA IDENTITY NOTHING",
}


@pytest.mark.parametrize("what", HIDDEN_OF_ONE)
def test_what_may_have_hidden_changes_of_one_map_stops_that_one(database: Database, what: str) -> None:
    """Check tells, install names the view and does nothing; without it, the feed of the others goes on."""
    install(database, BARE, CUSTOMERS)
    before = installed(database)
    with database.connect() as session:
        for statement in HIDDEN_OF_ONE[what].split("; "):
            session.execute(statement.encode())
    assert codes(database, BARE, CUSTOMERS) == ["pg_interrupted"]
    for _ in range(2):
        with pytest.raises(Halted, match="may have been missed") as raised:
            install(database, BARE, CUSTOMERS)
        assert raised.value.map == BARE.name
    assert installed(database).meta == before.meta
    install(database, CUSTOMERS)
    assert members(database) == {"customers", "terms"}
    assert codes(database, CUSTOMERS) == []
    install(database, BARE, CUSTOMERS)
    assert installed(database).feed == before.feed
    assert codes(database, BARE, CUSTOMERS) == []
    assert identities(database)["bare"] == "f"
    assert members(database) == {"bare", "customers", "terms"}
    uninstall(database)


@pytest.mark.parametrize("what", HIDDEN)
def test_what_may_have_hidden_changes_is_told_and_mended(database: Database, what: str) -> None:
    """Check tells, install mends and raises PositionLost, once: the feed is another one from then on."""
    install(database, BARE, CUSTOMERS)
    feed = installed(database).feed
    with database.connect() as session:
        for statement in HIDDEN[what].split("; "):
            session.execute(statement.encode())
    assert codes(database, BARE, CUSTOMERS) == ["pg_interrupted"]
    with pytest.raises(PositionLost, match="may have been missed"):
        install(database, BARE, CUSTOMERS)
    there = installed(database)
    assert there.is_complete
    assert there.feed != feed
    assert codes(database, BARE, CUSTOMERS) == []
    assert identities(database)["bare"] == "f"
    assert members(database) == {"bare", "customers", "terms"}
    install(database, BARE, CUSTOMERS)
    assert installed(database).meta == there.meta
    uninstall(database)


@pytest.mark.parametrize(
    "what", ["the slot was dropped", "the publication leaves out deletes", "the publication was dropped"]
)
def test_what_may_have_hidden_changes_is_not_forgotten_in_a_crash(database: Database, what: str) -> None:
    """However far the mending has come: nobody reads on from before as if nothing had been missed."""
    install(database, BARE)
    feed = installed(database).feed
    with database.connect() as session:
        session.execute(HIDDEN[what].encode())
    for _ in crash_everywhere(database, "install", (BARE,)):
        assert installed(database).feed != feed or codes(database, BARE) == ["pg_interrupted"]
    assert installed(database).feed not in (feed, "")


def test_a_slot_that_lost_its_log_is_made_anew(each_postgresql: Server) -> None:
    """When the server had to let go of what the slot kept, check tells why, and install makes another one."""
    settings = {"max_slot_wal_keep_size": "1MB", "min_wal_size": "32MB", "max_wal_size": "32MB"}
    server = Server(settings=settings, programs=each_postgresql.programs)
    try:
        server.start()
        with server.database(SCRIPT) as database:
            install(database, BARE)
            database.run("SELECT pg_switch_wal()")
            (warning,) = health(database, BARE)
            assert (warning.code, warning.level) == ("pg_retained", "warning")
            assert "lets go after 0 MB more" in warning.message
            for _ in range(3):
                database.run("SELECT pg_switch_wal()")
                database.run("CREATE TABLE filler AS SELECT repeat('x', 100) FROM generate_series(1, 1000)")
                database.run("DROP TABLE filler")
                database.run("CHECKPOINT")
            assert [problem.code for problem in health(database, BARE)] == ["pg_interrupted"]
            assert "wal_removed" in health(database, BARE)[0].message
            with pytest.raises(PositionLost, match="wal_removed"):
                install(database, BARE)
            assert codes(database, BARE) == []
    finally:
        server.remove()


def test_an_unreachable_database_is_a_finding(database: Database) -> None:
    """Check goes on, and tells."""
    gone = Database(database.server, "nowhere")
    assert codes(gone, BARE) == ["pg_unreachable"]
