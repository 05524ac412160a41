"""Slot and origin are still held by somebody who is dead, or may be: waited for, told why, and then gone on."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from dualwrite.model import Side
from dualwrite.testing.proxy import Proxy

from .postgresql_world import World


def keep_senders(world: World) -> None:
    """The servers never give up a silent client by themselves, so that the tests decide when."""
    for system in world.systems:
        assert system.database is not None
        system.database.run(f"ALTER DATABASE {system.database.name} SET wal_sender_timeout = 0")


@contextmanager
def frozen(world: World) -> Iterator[int]:
    """An engine that is stopped in its tracks, holding everything it held; the number of its process group."""
    keep_senders(world)
    with world.engine() as engine, world.load(pause=0.02):
        world.moves(engine)
        os.killpg(engine.process.pid, signal.SIGSTOP)
        yield engine.process.pid


def elsewhere(world: World) -> World:
    """The same project in another folder, as on a machine that takes over."""
    shutil.copytree(world.folder, world.folder / "elsewhere", ignore=shutil.ignore_patterns("elsewhere", "*.txt"))
    other = replace(world, folder=world.folder / "elsewhere", runs=0)
    other.moved()
    return other


def test_a_connection_that_nobody_has_told_the_server_about(pair: World, proxies: dict[Side, Proxy]) -> None:
    """The machine died, the network did not say so: the next engine waits until the server lets the slot go."""
    keep_senders(pair)
    pair.counters()
    pair.sync()
    with pair.load(pause=0.02):
        with pair.engine() as dead:
            pair.moves(dead)
            for proxy in proxies.values():
                proxy.silence()
            dead.kill()
        for system in pair.systems:
            assert system.database is not None
            system.url = system.database.url
        pair.settle()
        pair.moved()  # they are reached in another way now
        with pair.engine() as engine:
            pair.until(lambda: "a dead session lets go" in engine.said(), engine)
            assert "another dualwrite may run this link" in engine.said()
            for proxy in proxies.values():
                proxy.cut()
                proxy.resume()
            pair.moves(engine)
            assert engine.end() == 0, engine.said()
    pair.sync()
    pair.proves()


def test_an_engine_that_is_frozen_keeps_its_folder(pair: World) -> None:
    """It may go on at any moment, so another one is refused, with its process, until it has been ended."""
    pair.counters()
    pair.sync()
    with frozen(pair) as group:
        done = pair.call("run", "--until-idle")
        assert done.returncode == 2
        assert f"process {group}" in done.stderr
        os.killpg(group, signal.SIGKILL)
    pair.sync()
    pair.proves()


@pytest.mark.soak
def test_an_engine_that_is_frozen_elsewhere(pair: World) -> None:
    """Another machine takes over: it waits for the slot, says whose it is, and goes on when that one has gone."""
    pair.counters()
    pair.sync()
    with frozen(pair) as group:
        other = elsewhere(pair)
        with other.engine() as engine:
            other.until(lambda: engine.said().count("a dead session lets go") > 1, engine)
            os.killpg(group, signal.SIGKILL)
            other.moves(engine)
            assert engine.end() == 0, engine.said()
    other.sync()
    other.proves()


def test_an_engine_that_wakes_up_after_another_took_over(pair: World) -> None:
    """Its connections were ended meanwhile: it finds the slot held, or the position moved, and does no harm."""
    pair.counters()
    pair.sync()
    with frozen(pair) as group:
        other = elsewhere(pair)
        ((now,),) = pair.left.rows("SELECT now()::text")
        with other.engine() as engine:
            other.until(lambda: "a dead session lets go" in engine.said(), engine)
            for system in pair.systems:
                system.rows(
                    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = current_database() "
                    f"AND application_name LIKE 'dualwrite%' AND backend_start < '{now}'"
                )
            other.moves(engine)
            os.killpg(group, signal.SIGCONT)
            other.moves(engine)
            other.moves(engine)
            os.killpg(group, signal.SIGKILL)
            assert engine.end() == 0, engine.said()
    other.sync()
    other.proves()
