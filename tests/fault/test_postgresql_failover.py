"""A standby takes the place of a server: told with a remedy, and the remedy brings the link back.

The standby may lack what the server had committed, and the link had carried, last of all.  It writes other
transactions at the same places of its log, so where its slot is as good as the server's, only its timeline tells.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from dualwrite.model import Side
from dualwrite.testing.postgresql import Server

from .postgresql_world import System, World

Servers = tuple[Server, Server]

REASON = "a standby has taken the server's place"
SYNCHRONISES = 17
"""The version from which on a standby can have the server's logical slots."""
VERSION = "SELECT current_setting('server_version_num')::int / 10000"
SLOTS = "SELECT slot_name FROM pg_replication_slots WHERE slot_type = 'logical'"
IS_READY = f"SELECT count(*) > 0 AND bool_and(NOT temporary) FROM ({SLOTS.replace('slot_name', '*')}) AS s"


@contextmanager
def standby_of(primary: Server, **settings: str) -> Iterator[Server]:
    """A running standby, which follows a server without making it wait."""
    standby = Server({"hot_standby_feedback": "on", **settings}, primary.programs)
    try:
        shutil.rmtree(standby.data)
        how = ("--write-recovery-conf", "--create-slot", "--slot=standby", "--checkpoint=fast", "--no-sync")
        standby.run("pg_basebackup", "-d", primary.url(), "-D", str(standby.data), *how)
        standby.start()
        yield standby
    finally:
        standby.remove()


def asked(server: Server, query: str, *values: object) -> object:
    """The one value that a query tells."""
    with server.connect() as session:
        row = session.execute(query.encode(), values or None).fetchone()
    assert row is not None
    return row[0]


def follows(standby: Server, primary: Server) -> None:
    """Wait until the standby has everything that the server has now."""
    end = asked(primary, "SELECT pg_current_wal_flush_lsn()::text")
    World.until(lambda: asked(standby, "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", end))


def synchronised(standby: Server, primary: Server, world: World, system: System) -> None:
    """The standby has the link's slot as well, as far as it was confirmed."""
    slot = asked(primary, SLOTS)
    with psycopg.connect(primary.url(), replication="database", autocommit=True) as session:
        session.execute(f'ALTER_REPLICATION_SLOT "{slot}" (FAILOVER true)'.encode())
    while not asked(standby, IS_READY):  # the slot has to get as far as the standby was when it heard of it
        system.insert(f"old{len(system.records())}", "old")
        world.sync()
        asked(primary, "SELECT pg_log_standby_snapshot()")
        follows(standby, primary)


def fail_over(primary: Server, standby: Server) -> None:
    """The server is lost, and its standby comes up at its address."""
    primary.kill()
    standby.start()
    standby.run("pg_ctl", "promote", "-D", str(standby.data))
    standby.stop()
    standby.port = primary.port
    standby.start()


def parts(world: World, servers: Servers, side: Side) -> tuple[Server, System, System]:
    """The server of a side, the side, and the other one."""
    return (servers[0], *world.systems) if side is Side.LEFT else (servers[1], *world.systems[::-1])


BOTH = [Side.LEFT, pytest.param(Side.RIGHT, marks=pytest.mark.soak)]


@pytest.mark.parametrize("side", BOTH)
def test_a_standby_with_the_links_slot(apart: World, servers: Servers, side: Side) -> None:
    """A running engine has carried what the standby never got: it ends, instead of passing over what comes there."""
    primary, system, other = parts(apart, servers, side)
    if asked(primary, VERSION) < SYNCHRONISES:
        pytest.skip(f"a standby has no logical slots before PostgreSQL {SYNCHRONISES}")
    apart.counters()
    apart.sync()
    with standby_of(primary, sync_replication_slots="on") as standby:
        synchronised(standby, primary, apart, system)
        standby.stop()
        with apart.running() as engine:
            system.insert("gone", "gone")
            apart.until(lambda: "gone" in other.records(), engine, 0.01)
            fail_over(primary, standby)
            system.insert("new", "new")
            assert engine.finished() == 1
            assert REASON in engine.said()
        apart.refused("start them again")
        apart.start_again()
        assert {"gone", "new"} <= system.records().keys()
        apart.lives()


@pytest.mark.parametrize("side", BOTH)
def test_a_standby_that_is_not_promoted_yet(apart: World, servers: Servers, side: Side) -> None:
    """Who connects too early is told to wait for a server that takes writes, and of no loss; of one loss afterwards."""
    primary, system, other = parts(apart, servers, side)
    apart.counters()
    apart.sync()
    with standby_of(primary) as standby:
        follows(standby, primary)
        standby.stop()
        for number, each in enumerate((system, other)):
            each.insert(f"late {number}", "late")
        apart.sync()
        primary.kill()
        standby.port = primary.port
        standby.start()
        for command in ("check", "status"):
            done = apart.call(command)
            said = done.stdout + done.stderr
            assert done.returncode == 1
            assert said.count("is a standby, which takes no writes") == 1, said
            assert "start them again" not in said
            assert "backup" not in said
        standby.run("pg_ctl", "promote", "-D", str(standby.data))
        for command in ("check", "status"):
            assert apart.call(command).stdout.count(REASON) == 1
        apart.refused(REASON, "start them again")
        apart.start_again()
        apart.lives()


@pytest.mark.parametrize("side", BOTH)
def test_a_running_engine_waits_for_a_standby_to_be_promoted(apart: World, servers: Servers, side: Side) -> None:
    """It takes the side for one that is down: it says so, goes on when the server is back, and ends at a promotion."""
    primary, system, other = parts(apart, servers, side)
    apart.counters()
    apart.sync()
    with standby_of(primary) as standby, apart.running() as engine:
        follows(standby, primary)
        standby.stop()
        primary.kill()
        beside, standby.port = standby.port, primary.port
        standby.start()
        apart.until(lambda: "is a standby, which takes no writes" in engine.said(), engine)
        apart.until(lambda: f"{side} does not answer" in apart.call("log").stdout, engine)
        assert "the engine waits, and tries again" in apart.call("status").stdout
        other.insert("meanwhile", "meanwhile")
        standby.stop()
        primary.start()
        system.insert("back", "back")
        apart.until(lambda: "meanwhile" in system.records() and "back" in other.records(), engine)
        standby.port = beside
        standby.start()
        follows(standby, primary)
        standby.stop()
        fail_over(primary, standby)
        assert engine.finished() == 1
        assert REASON in engine.said()
