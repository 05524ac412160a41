"""Pausing and catching up with PostgreSQL, under load: engines that are killed, connections that are cut."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from dualwrite.model import Side
from dualwrite.testing.proxy import DOWN, UP, Proxy

from .postgresql_world import System, World, in_order
from .test_postgresql_network import WRITING

BULK = 800


def bulk(system: System) -> None:
    """An application adds many records at once."""
    assert system.database is not None
    system.database.run(
        "WITH made AS (INSERT INTO item "
        f"SELECT 'bulk' || n, 'a name of some length', 0 FROM generate_series(1, {BULK}) n RETURNING code, name) "
        "INSERT INTO tally (code, what, name) SELECT code, 'name', name FROM made"
    )


@pytest.mark.parametrize("world", [pytest.param("postgresql", marks=pytest.mark.soak), "sqlite"], indirect=True)
def test_killed_while_paused_and_while_catching_up(world: World) -> None:
    """What both sides do meanwhile queues, deletes too; the logs are let go, and nothing is lost or doubled."""
    world.counters()
    with ExitStack() as stack:
        engine = stack.enter_context(world.running())
        with world.load():
            world.asks("pause")
            assert world.state() == "paused"
            bulk(world.left)
            world.grows(engine, 50)
            for system in world.systems:
                if system.database is not None:
                    end = system.wal()
                    world.until(lambda system=system, end=end: system.let_go() >= end, engine)
            engine.kill()
            engine = stack.enter_context(world.engine())
            world.grows(engine, 20)
            assert world.state() == "paused"
            world.asks("resume")
            world.until(lambda: world.state() == "resuming", engine, 0.01)
            engine.kill()
            assert world.queued() > 0
            engine = stack.enter_context(world.engine())
            world.until(lambda: world.state() == "running", engine)
            world.moves(engine)
        world.carried(engine)
        assert engine.end() == 0
    world.proves()
    wanted = ("pause wanted", "paused", "resume wanted", "catching up", "caught up; running")
    assert in_order(world.told(), *wanted), world.told()


def test_cut_in_the_middle_of_a_catch_up(pair: World, proxies: dict[Side, Proxy]) -> None:
    """In the middle of a batch of the queue, and of the answer to its commit: it goes on where it was."""
    pair.counters()
    with pair.running() as engine:
        with pair.load():
            pair.asks("pause")
            bulk(pair.left)
            pair.grows(engine, BULK)
            proxy = proxies[Side.RIGHT]
            done = proxy.cut_after(12_000, UP, WRITING, anew=True)
            pair.asks("resume")
            pair.until(done.is_set, engine, 0.01)
            assert pair.state() == "resuming"
            done = proxy.cut_after(0, DOWN, b"COMMIT", anew=True)  # it may have been done, or not
            pair.until(done.is_set, engine, 0.01)
            pair.until(lambda: pair.state() == "running", engine)
        pair.carried(engine)
        assert engine.end() == 0
    pair.proves()
    assert in_order(pair.told(), "resume wanted", "catching up", "caught up; running"), pair.told()
