"""Slot or publication are gone, or the slot has lost its log: told with a remedy, which brings the link back."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from dualwrite.model import Side
from dualwrite.testing.postgresql import Database, Server

from .postgresql_world import ITEM, LEFT, LINK, PRODUCT, RIGHT, System, World

AGAIN = "stop the maps of this link and start them again with an initial sync"
SLOT = "SELECT slot_name FROM pg_replication_slots WHERE database = current_database()"
END = "SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots WHERE slot_name = '{0}'"
DROP = "SELECT pg_drop_replication_slot('{0}')"


def drop_slot(database: Database) -> None:
    """As an administrator who needs the disk space, whoever reads from the slot."""
    ((slot,),) = database.run(SLOT)
    for _ in range(50):
        database.run(END.format(slot))
        try:
            database.run(DROP.format(slot))
        except psycopg.errors.ObjectInUse:
            continue
        return
    raise AssertionError("the slot is always in use")


def drop_publication(database: Database) -> None:
    """As an administrator who does not know what it is for."""
    database.run(f"DROP PUBLICATION dualwrite_{LINK}")


def database_of(world: World, side: Side) -> Database:
    """The PostgreSQL database of a side."""
    database = {Side.LEFT: world.left, Side.RIGHT: world.right}[side].database
    assert database is not None
    return database


@pytest.mark.parametrize(
    ("side", "drop", "reason"),
    [
        (Side.LEFT, drop_slot, "its replication slot was dropped"),
        (Side.RIGHT, drop_publication, "its publication was dropped"),
        pytest.param(Side.RIGHT, drop_slot, "its replication slot was dropped", marks=pytest.mark.soak),
        pytest.param(Side.LEFT, drop_publication, "its publication was dropped", marks=pytest.mark.soak),
    ],
    ids=["left slot", "right publication", "right slot", "left publication"],
)
def test_dropped_while_nothing_runs(pair: World, side: Side, drop, reason: str) -> None:
    """What changed on both sides meanwhile is told to be missed, by every command, and found by the next start."""
    pair.counters()
    pair.sync()
    pair.left.insert("before left", "a")
    pair.right.insert("before right", "b")
    drop(database_of(pair, side))
    pair.left.insert("behind left", "c")
    pair.right.insert("behind right", "d")
    for command in ("check", "status"):
        done = pair.call(command)
        assert done.returncode == 1
        assert "stop the maps" in done.stdout + done.stderr
    pair.refused(reason, "changes may have been missed", AGAIN)
    pair.refused("stop the maps")  # for as long as nobody has done it
    pair.start_again()
    pair.lives()


@pytest.mark.parametrize("side", [Side.LEFT, pytest.param(Side.RIGHT, marks=pytest.mark.soak)])
def test_the_remedy_needs_no_run_before(pair: World, side: Side) -> None:
    """Who has read the remedy in ``check`` follows it at once."""
    pair.counters()
    pair.sync()
    drop_slot(database_of(pair, side))
    pair.left.insert("behind left", "c")
    pair.start_again()
    pair.lives()


@pytest.mark.parametrize("drop", [drop_slot, drop_publication], ids=["slot", "publication"])
def test_dropped_under_a_running_engine(pair: World, drop) -> None:
    """The engine ends with exit code 1 and the remedy, whatever it was doing."""
    pair.counters()
    pair.sync()
    with pair.engine() as engine:
        with pair.load(pause=0.02):
            pair.moves(engine)
            drop(database_of(pair, Side.LEFT))
            assert engine.finished() == 1
        assert "start them again with an initial sync" in engine.said()
    pair.start_again()
    pair.lives()


def test_an_invalidated_slot(tmp_path: Path) -> None:
    """The server removed log that the link still needed, as it was told to: ``max_slot_wal_keep_size``."""
    server = Server({"max_slot_wal_keep_size": "16MB", "min_wal_size": "32MB", "max_wal_size": "32MB"})
    try:
        server.start()
        with server.database(LEFT) as left, server.database(RIGHT) as right:
            world = World(tmp_path, System(Side.LEFT, ITEM, left), System(Side.RIGHT, PRODUCT, right))
            world.counters()
            world.sync()
            world.left.insert("unread", "lost")
            for _ in range(4):
                left.run("CREATE TABLE filler AS SELECT 1; SELECT pg_switch_wal(); DROP TABLE filler")
            left.run("CHECKPOINT")
            assert left.run("SELECT DISTINCT wal_status FROM pg_replication_slots") == [("lost",)]
            world.refused("has lost a part of the server's log (wal_removed)", AGAIN)
            world.start_again()
            assert "unread" in world.right.records()
            world.lives()
    finally:
        server.remove()
