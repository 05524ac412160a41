"""``kill -9`` of dualwrite and of PostgreSQL servers under load: nothing is lost, nothing is applied twice."""

from __future__ import annotations

import json
import random
import time

import pytest

from dualwrite.testing.postgresql import Server

from .postgresql_world import COUNTERS, World

READING = "SELECT FROM pg_replication_slots WHERE active AND database = current_database()"
KILLS = {"postgresql": 20, "sqlite": 4}


def test_killed_again_and_again_under_load(world: World) -> None:
    """Killed twenty times while two applications write, the engine loses nothing and doubles nothing."""
    world.counters()
    world.sync()
    pauses = random.Random(3)
    with world.load():
        for _ in range(KILLS["sqlite" if world.right.database is None else "postgresql"]):
            with world.engine() as engine:
                world.moves(engine)
                time.sleep(pauses.random() * 0.2)  # so that the kill falls into another moment of its work each time
                engine.kill()
    world.sync()
    world.proves()


def test_killed_during_the_initial_sync(pair: World) -> None:
    """An initial sync that is cut off anywhere goes on, and loses nothing of what either side writes meanwhile."""
    assert pair.left.database is not None
    pair.counters()
    pair.left.database.run(
        "WITH made AS (INSERT INTO item SELECT 'old' || n, 'old', 0 FROM generate_series(1, 20000) n RETURNING code) "
        "INSERT INTO tally (code, what, name) SELECT code, 'name', 'old' FROM made"
    )
    pauses = random.Random(4)
    with pair.load(counting=False):
        for _ in range(4):
            with pair.engine() as engine:
                pair.until(lambda: pair.left.rows(READING), engine)
                time.sleep(pauses.random() * 1.5)
                engine.kill()
    pair.sync()
    pair.proves()
    counts = {count["side"]: count for count in json.loads(pair.call("syncs", "list", "--json").stdout)[0]["counts"]}
    assert counts["right"]["inserted"] >= 20_000 + COUNTERS


@pytest.mark.parametrize("number", [0, pytest.param(1, marks=pytest.mark.soak)], ids=["left", "right"])
def test_a_killed_server_is_waited_for(apart: World, servers: tuple[Server, Server], number: int) -> None:
    """The same engine goes on when a server comes back that was killed under load, again and again."""
    apart.counters()
    apart.sync()
    with apart.engine() as engine:
        with apart.load(forgiving=True) as writers:
            for life in range(3):
                apart.moves(engine)
                servers[number].kill()
                apart.until(lambda life=life: engine.said().count("unavailable") > life, engine)
                servers[number].start()
        assert writers[number].lost >= 3
        apart.carried(engine)
        assert engine.end() == 0
    apart.proves()


def test_both_servers_killed_at_once(apart: World, servers: tuple[Server, Server]) -> None:
    """Wherever the engine stood between its two databases, it finds its place again."""
    apart.counters()
    apart.sync()
    with apart.engine() as engine:
        with apart.load(forgiving=True):
            for _ in range(3):
                apart.moves(engine)
                for server in servers:
                    server.kill()
                for server in servers:
                    server.start()
        apart.carried(engine)
        assert engine.end() == 0
    apart.proves()
