"""One system does not answer for a while: the engine stays up, maps can be paused, and nothing is lost or doubled."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

import pytest

from dualwrite.model import Side
from dualwrite.testing.proxy import Proxy

from .postgresql_world import Engine, World, Writer, in_order

Proxies = dict[Side, Proxy]
RULE = """
alerts:
  rules:
    - {name: away, errors: [connection], count: 2, interval: 15min, actions: [pause]}
"""


def away(world: World, proxies: Proxies, lasts: Callable[[Engine, tuple[Writer, Writer]], None]) -> None:
    """Under load the right side goes away and a rule pauses the map; it is resumed, the engine is killed, and the side
    comes back."""
    world.counters()
    with (world.folder / "dualwrite.yaml").open("a") as file:
        file.write(RULE)
    with ExitStack() as stack:
        engine = stack.enter_context(world.running())
        with world.load() as writers:
            proxies[Side.RIGHT].cut(refuse=True)
            world.until(lambda: "right does not answer" in world.told(), engine)
            world.until(lambda: world.state() == "paused", engine)
            end = world.left.wal()
            lasts(engine, writers)
            world.until(lambda: world.left.let_go() >= end, engine)
            world.asks("resume")
            assert "right does not answer" in world.asks("log")
            found = world.status()
            assert (found["state"], found["pending"]) == ("paused", "resume")
            assert found["waits_for"] == "right, which does not answer"
            assert [problem["code"] for problem in found["problems"]] == ["connection"]
            engine.kill()
            engine = stack.enter_context(world.engine())
            world.grows(engine, 20)
            assert "unavailable retry_in=" in engine.said()
            proxies[Side.RIGHT].resume()
            world.until(lambda: world.state() == "running", engine)
        world.carried(engine)
        assert engine.end() == 0
    world.proves()
    wanted = ("right does not answer", "alert", "pause wanted", "paused", "resume wanted", "right does not answer")
    back = ("right answers again", "catching up", "caught up; running")
    assert in_order(world.told(), *wanted, *back), world.told()


def test_a_map_is_paused_while_the_other_side_is_away(pair: World, proxies: Proxies) -> None:
    """Its changes queue, its log is let go, and a resumed map waits until the side is back; also behind ``kill -9``."""
    away(pair, proxies, lambda engine, _: pair.grows(engine, 50))


@pytest.mark.soak
def test_the_other_side_is_away_for_long(pair: World, proxies: Proxies) -> None:
    """The same for some minutes of work on both sides."""

    def lasts(engine: Engine, writers: tuple[Writer, Writer]) -> None:
        done = [writer.commits for writer in writers]
        pair.until(lambda: all(w.commits > d + 5_000 for w, d in zip(writers, done, strict=True)), engine)

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
