"""Two PostgreSQL servers that wait for the disk as real ones do, and pairs of databases on them."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import which

from bench.tables import FLAGS, LEFT, MAP, NUMBERS, RIGHT_COLUMNS, TEXTS, rows
from dualwrite.testing.postgresql import Server

SETTINGS = {
    "fsync": "on",
    "full_page_writes": "on",
    "shared_buffers": "512MB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "30min",
    "autovacuum_naptime": "1min",
}
RIGHT = f"""
CREATE TABLE accounts (accountnumber VARCHAR(20) PRIMARY KEY,
  {", ".join(f"text{n} VARCHAR(60)" for n in range(TEXTS))},
  {", ".join(f"amount{n} DECIMAL(18,2)" for n in range(NUMBERS))},
  {", ".join(f"flag{n} BOOLEAN" for n in range(FLAGS))});
"""
EMPTY = LEFT + RIGHT
"""Each side's database: dualwrite's table of the side, and for the peers, which cannot map, the left one on both."""
INTO_ACCOUNTS = f"COPY accounts ({', '.join(RIGHT_COLUMNS)}) FROM STDIN"
PATIENCE = 900.0


@dataclass(frozen=True)
class Database:
    """A database on one of the servers."""

    server: Server
    name: str

    @property
    def url(self) -> str:
        """Its url."""
        return self.server.url(self.name)

    def run(self, statement: str) -> list[tuple[object, ...]]:
        """What an application does."""
        with self.server.connect(self.name) as connection:
            cursor = connection.execute(statement.encode())
            return [] if cursor.description is None else cursor.fetchall()

    def wait(self, query: str, wanted: object = 1) -> None:
        """Wait until a query finds what is wanted."""
        deadline = time.monotonic() + PATIENCE
        with self.server.connect(self.name) as connection:
            while (found := connection.execute(query.encode()).fetchone()) is None or found[0] != wanted:
                if time.monotonic() > deadline:
                    raise SystemExit(f"{query} gives {found}, not {wanted}")
                time.sleep(0.002)


class Servers:
    """The two servers; databases are copies of templates, which are made when they are first needed."""

    def __init__(self, left: Server, right: Server, scratch: Path) -> None:
        self.left = left
        self.right = right
        self.scratch = scratch
        self._templates: set[tuple[int, str]] = set()
        self._count = 0

    def _template(self, server: Server, count: int, differing: bool) -> str:
        """A template whose tables have so many rows; ``differing``: one of a hundred accounts is not as on the left."""
        name = f"rows_{count}{'_differing' * differing}"
        if (id(server), name) in self._templates:
            return name
        with server.connect() as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        with server.connect(name) as connection:
            connection.execute(EMPTY.encode())
            for statement in ("COPY customers FROM STDIN", INTO_ACCOUNTS) if count else ():
                with connection.cursor().copy(statement.encode()) as copy:
                    for row in rows(count):
                        copy.write_row(row)
            if differing:
                connection.execute(b"UPDATE accounts SET text0 = 'different' WHERE right(accountnumber, 2) = '00'")
            connection.execute(b"VACUUM (FREEZE, ANALYZE)")
        self._templates.add((id(server), name))
        return name

    @contextmanager
    def pair(self, left: int, right: int, *, differing: bool = False) -> Iterator[tuple[Database, Database]]:
        """Two fresh databases with so many rows in their tables."""
        templates = self._template(self.left, left, False), self._template(self.right, right, differing)
        self._count += 1
        with ExitStack() as stack:
            databases = []
            for server, template in zip((self.left, self.right), templates, strict=True):
                database = Database(server, f"bench_{self._count}")
                with server.connect() as connection:
                    copied = f"CREATE DATABASE {database.name} TEMPLATE {template} STRATEGY file_copy"
                    connection.execute(copied.encode())
                    connection.execute(b"CHECKPOINT")
                stack.callback(_drop, database)
                databases.append(database)
            for database in databases:  # before either is dropped: a subscription would hold the other's slot
                stack.callback(_unsubscribe, database)
            yield databases[0], databases[1]

    def project(self, left: Database, right: Database) -> Path:
        """A project that links them."""
        folder = self.scratch / left.name
        (folder / "maps").mkdir(parents=True)
        sides = "".join(
            f'{side}: {{name: {side}, url: "{database.url}"}}\n'
            for side, database in (("left", left), ("right", right))
        )
        (folder / "dualwrite.yaml").write_text(f"link: bench\n{sides}")
        (folder / "maps" / "customers.yaml").write_text(MAP)
        return folder


def _unsubscribe(database: Database) -> None:
    """Remove the subscriptions of a database; their slots stay."""
    for (name,) in database.run(
        "SELECT subname FROM pg_subscription WHERE subdbid = (SELECT oid FROM pg_database "
        "WHERE datname = current_database())"
    ):
        database.run(f"ALTER SUBSCRIPTION {name} DISABLE")
        database.run(f"ALTER SUBSCRIPTION {name} SET (slot_name = NONE)")
        database.run(f"DROP SUBSCRIPTION {name}")


def _drop(database: Database) -> None:
    """Remove a database with the slots and origins of links and subscriptions in it."""
    with database.server.connect() as connection:
        end = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = %s"
        connection.execute(end, [database.name])
        connection.execute(
            "SELECT pg_replication_origin_drop(roname) FROM pg_replication_origin WHERE roname LIKE 'dualwrite%%'"
        )
        connection.execute(f"DROP DATABASE {database.name} WITH (FORCE)".encode())


@contextmanager
def started(scratch: Path) -> Iterator[Servers]:
    """Both servers, removed at the end."""
    with ExitStack() as stack:
        found = []
        for _ in range(2):
            server = Server(SETTINGS)
            stack.callback(server.remove)
            server.start()
            found.append(server)
        yield Servers(found[0], found[1], scratch)


def program(name: str) -> str:
    """A client program of PostgreSQL."""
    found = which(name)
    if found is None:
        raise SystemExit(f"{name} is needed: install PostgreSQL's client programs")
    return found


def copy_out(database: Database, table: str) -> None:
    """Read a table as ``psql`` does, and throw it away."""
    _finish(_psql(database, f"COPY {table} TO STDOUT", stdout=subprocess.DEVNULL))


def pipe(left: Database, right: Database) -> None:
    """The limit of an initial copy: ``psql`` copies out into ``psql`` that copies in."""
    reader = _psql(left, "COPY customers TO STDOUT", stdout=subprocess.PIPE)
    writer = _psql(right, INTO_ACCOUNTS, stdin=reader.stdout)
    _finish(reader)
    _finish(writer)


def _psql(database: Database, command: str, **streams: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen([program("psql"), "-XqAt", "-d", database.url, "-c", command], **streams)  # type: ignore[call-overload,no-any-return]


def _finish(process: subprocess.Popen[bytes]) -> None:
    if process.wait() != 0:
        raise SystemExit("psql failed")


def subscribe(publisher: Database, subscriber: Database, *, copy: bool, options: str = "") -> None:
    """PostgreSQL's own logical replication of ``customers`` from one database to the other."""
    name = f"native_{subscriber.name}_{id(subscriber) % 10_000}"
    publisher.run("CREATE PUBLICATION native FOR TABLE customers")
    publisher.run(f"SELECT pg_create_logical_replication_slot('{name}', 'pgoutput')")
    subscriber.run(
        f"CREATE SUBSCRIPTION {name} CONNECTION '{publisher.url}' PUBLICATION native "
        f"WITH (create_slot = false, slot_name = '{name}', copy_data = {str(copy).lower()}{options})"
    )


def copied(subscriber: Database) -> None:
    """Wait until the initial copy of a subscription is done."""
    subscriber.wait("SELECT count(*) FROM pg_subscription_rel WHERE srsubstate IN ('f', 's', 'r')")
