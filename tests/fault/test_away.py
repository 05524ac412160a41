"""One system does not answer for a while: the engine stays up, maps can be paused, and nothing is lost or doubled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dualwrite.model import Side
from dualwrite.testing.proxy import Proxy

from .postgresql_world import Engine, System, World, Writer

Proxies = dict[Side, Proxy]


def let_go(system: System) -> int:
    """Up to where the server need not keep its log for the link."""
    return int(system.rows("SELECT confirmed_flush_lsn - '0/0'::pg_lsn FROM pg_replication_slots")[0][0])


def wal(system: System) -> int:
    """Where the server's log ends."""
    return int(system.rows("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn")[0][0])


def grows(world: World, engine: Engine, by: int) -> None:
    """Wait until so many more changes wait."""
    wanted = world.queued() + by
    world.until(lambda: world.queued() >= wanted, engine)


def in_order(told: list[str], *wanted: str) -> bool:
    """Do these entries stand in the activity log, in this order?"""
    rest = iter(told)
    return all(what in rest for what in wanted)


def away(world: World, proxies: Proxies, lasts: Callable[[World, Engine, tuple[Writer, Writer]], Any]) -> None:
    """Under load the right side goes away and the map is paused; it is resumed, the engine is killed, and the side
    comes back."""
    world.counters()
    world.sync()
    with world.load(pause=0.02) as writers:
        with world.engine() as engine:
            world.moves(engine)
            proxies[Side.RIGHT].cut(refuse=True)
            world.until(lambda: "right does not answer" in world.told(), engine)
            world.asks("pause")
            world.until(lambda: world.state() == "paused", engine)
            end = wal(world.left)
            lasts(world, engine, writers)
            world.until(lambda: let_go(world.left) >= end, engine)
            world.asks("resume")
            found = world.status()
            assert (found["state"], found["pending"]) == ("paused", "resume")
            assert found["waits_for"] == "right, which does not answer"
            assert [problem["code"] for problem in found["problems"]] == ["connection"]
            engine.kill()
        with world.engine() as engine:
            grows(world, engine, 50)
            assert "unavailable retry_in=" in engine.said()
            proxies[Side.RIGHT].resume()
            world.until(lambda: world.state() == "running", engine)
    with world.engine() as engine:
        world.carried(engine)
        assert engine.end() == 0
    world.proves()
    assert in_order(
        world.told(),
        "right does not answer",
        "pause wanted",
        "paused",
        "resume wanted",
        "right does not answer",
        "right answers again",
        "catching up",
        "caught up; running",
    ), world.told()


def test_a_map_is_paused_while_the_other_side_is_away(pair: World, proxies: Proxies) -> None:
    """Its changes queue, its log is let go, and a resumed map waits until the side is back; also behind ``kill -9``."""
    away(pair, proxies, lambda world, engine, _: grows(world, engine, 100))


@pytest.mark.soak
def test_the_other_side_is_away_for_long(pair: World, proxies: Proxies) -> None:
    """The same for some minutes of work on both sides."""

    def lasts(world: World, engine: Engine, writers: tuple[Writer, Writer]) -> None:
        done = [writer.commits for writer in writers]
        world.until(lambda: all(w.commits > d + 5_000 for w, d in zip(writers, done, strict=True)), engine)

    away(pair, proxies, lasts)


def test_started_while_a_system_is_away(pair: World, proxies: Proxies) -> None:
    """An engine that has never seen it waits for it, and begins as soon as it answers; one that is to end does not."""
    pair.counters()
    proxies[Side.LEFT].cut(refuse=True)
    with pair.engine() as engine:
        pair.until(lambda: "does not answer" in engine.said(), engine)
        refused = pair.call("run", "--until-idle")
        assert refused.returncode == 1
        assert "does not answer" in refused.stderr
        assert "→" in refused.stderr
        proxies[Side.LEFT].resume()
        pair.carried(engine)
        assert engine.end() == 0
    pair.proves()
    proxies[Side.LEFT].cut(refuse=True)
    assert pair.call("run", "--until-idle").returncode == 1
    with pair.engine() as engine:
        pair.until(lambda: "left does not answer" in pair.told(), engine)
        assert pair.status()["problems"]
        assert engine.end() == 0
