"""A disk of a PostgreSQL server is full: the link waits, says so, and loses nothing once there is room again."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import psycopg
import pytest

from dualwrite.testing.postgresql import Server

from .postgresql_world import World
from .small_disk import MB, disk

Servers = tuple[Server, Server]


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """What ends with the test, before the servers do."""
    with ExitStack() as stack:
        yield stack


def test_the_targets_tables_are_full(apart: World, servers: Servers, stack: ExitStack) -> None:
    """Nothing is parked for it, and the engine goes on by itself when somebody has made room."""
    target = servers[1]
    small = stack.enter_context(disk(target.folder / "small", 8 * MB))
    stack.callback(target.kill)
    assert apart.right.database is not None
    with target.connect() as session:
        session.execute(f"CREATE TABLESPACE small LOCATION '{small.path}'".encode())
    apart.right.database.run("ALTER TABLE product SET TABLESPACE small")
    apart.counters()
    apart.sync()
    with apart.engine() as engine:
        with apart.load(forgiving=True, pause=0.02):
            apart.moves(engine)
            small.fill()
            apart.until(lambda: "the disk is full" in engine.said(), engine)
            small.free()
            apart.moves(engine)
        apart.carried(engine)
        assert engine.end() == 0
    apart.proves()


@pytest.mark.parametrize("number", [0, pytest.param(1, marks=pytest.mark.soak)], ids=["left", "right"])
def test_no_room_for_the_servers_log(apart: World, servers: Servers, stack: ExitStack, number: int) -> None:
    """The server breaks down, as PostgreSQL does then; the engine waits until somebody has started it again."""
    server = servers[number]
    server.stop()
    small = stack.enter_context(disk(server.folder / "log-disk", 96 * MB))
    stack.callback(server.kill)
    wal = server.data / "pg_wal"
    subprocess.run(["cp", "-a", f"{wal}/.", str(small.path)], check=True)
    shutil.rmtree(wal)
    wal.symlink_to(small.path)
    server.settings |= {"min_wal_size": "32MB", "max_wal_size": "32MB"}
    server.start()
    apart.counters()
    apart.sync()
    with apart.engine() as engine:
        with apart.load(forgiving=True, pause=0.02) as writers:
            apart.moves(engine)
            small.fill()
            with suppress(psycopg.OperationalError), server.connect() as session:
                session.execute(
                    "CREATE TABLE filler AS SELECT repeat(md5(random()::text), 100) FROM generate_series(1, 99999)"
                )
                session.execute("INSERT INTO filler TABLE filler")
            apart.until(lambda: "unavailable" in engine.said(), engine)
            assert writers[number].lost
            small.free()
            server.kill()
            server.start()
            apart.moves(engine)
        apart.carried(engine)
        assert engine.end() == 0
    apart.proves()


def test_no_room_for_what_the_source_has_to_sort_out(apart: World, servers: Servers, stack: ExitStack) -> None:
    """A large transaction is written to the source's disk before it is sent: it comes once there is room for that."""
    source = servers[0]
    source.stop()
    small = stack.enter_context(disk(source.folder / "data-disk", 400 * MB))
    stack.callback(source.kill)
    subprocess.run(["cp", "-a", f"{source.data}/.", str(small.path)], check=True)
    source.data = small.path
    source.settings |= {"logical_decoding_work_mem": "64kB"}
    source.start()
    apart.counters()
    apart.sync()
    assert apart.left.database is not None
    with apart.engine() as engine:
        with apart.left.database.connect() as session, session.transaction():
            session.execute(
                "WITH made AS (INSERT INTO item SELECT 'big' || n, 'big', 0, repeat('x', 500) "
                "FROM generate_series(1, 5000) n RETURNING code) "
                "INSERT INTO tally (code, what, name) SELECT code, 'name', 'big' FROM made"
            )
            small.fill(free=MB)
        apart.until(lambda: "the disk is full" in engine.said(), engine)
        small.free()
        apart.carried(engine)
        assert engine.end() == 0
    apart.proves()
