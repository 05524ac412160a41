"""The network between dualwrite and PostgreSQL fails in the middle of things: nothing is lost, nothing doubled."""

from __future__ import annotations

import random

import pytest

from dualwrite.model import Side
from dualwrite.testing.proxy import DOWN, UP, Proxy

from .postgresql_world import World

WRITING = b"BEGIN\0"  # how only our transactions begin
READING = b"REPEATABLE READ"
STREAMING = b"START_REPLICATION"
Proxies = dict[Side, Proxy]


def fill(world: World, rows: int) -> None:
    """Records that are there before the link is."""
    assert world.left.database is not None
    world.left.database.run(
        "WITH made AS (INSERT INTO item "
        f"SELECT 'old' || n, 'a name of some length', 0 FROM generate_series(1, {rows}) n RETURNING code, name) "
        "INSERT INTO tally (code, what, name) SELECT code, 'name', name FROM made"
    )


def test_cut_in_the_middle_of_transactions(pair: World, proxies: Proxies) -> None:
    """Cut anywhere in what we write to a database, and in its answers, that of the commit included."""
    pair.counters()
    pair.sync()
    chance = random.Random(5)
    with pair.engine() as engine:
        with pair.load():
            for turn in range(6):
                proxy = proxies[chance.choice([*Side])]
                if turn % 2:
                    done = proxy.cut_after(0, DOWN, b"COMMIT", anew=True)  # it may have been done, or not
                else:
                    done = proxy.cut_after(chance.randrange(6000), UP, WRITING, anew=True)
                pair.until(done.is_set, engine)
                pair.moves(engine)
        pair.carried(engine)
        assert engine.end() == 0
    pair.proves()


def test_cut_in_the_middle_of_the_stream(pair: World, proxies: Proxies) -> None:
    """Cut anywhere in the replication stream, both sides' at once included."""
    pair.counters()
    pair.sync()
    chance = random.Random(6)
    with pair.engine() as engine:
        with pair.load():
            for turn in range(4):
                chosen = [*Side] if turn % 4 == 3 else [chance.choice([*Side])]
                cuts = [proxies[side].cut_after(chance.randrange(8000), DOWN, STREAMING) for side in chosen]
                pair.until(lambda cuts=cuts: all(done.is_set() for done in cuts), engine)
                pair.moves(engine)
        pair.carried(engine)
        assert engine.end() == 0
    pair.proves()


@pytest.mark.parametrize(
    ("side", "direction", "mention"), [(Side.LEFT, DOWN, READING), (Side.RIGHT, UP, WRITING)], ids=["read", "write"]
)
def test_cut_in_the_middle_of_an_initial_sync(
    pair: World, proxies: Proxies, side: Side, direction: str, mention: bytes
) -> None:
    """Cut while many rows are read, and while they are written: the sync begins anew, in the same process."""
    fill(pair, 10_000)
    pair.counters()
    cut = proxies[side].cut_after(150_000, direction, mention)
    with pair.load(pause=0.02, counting=False), pair.engine() as engine:
        pair.until(cut.is_set, engine)
        second = proxies[side].cut_after(250_000, direction, mention)
        pair.until(second.is_set, engine)
        pair.moves(engine)
        assert engine.end() == 0
    pair.sync()
    pair.keeps_the_masters()


@pytest.mark.parametrize("counting", [False, pytest.param(True, marks=pytest.mark.soak)], ids=["apart", "together"])
def test_a_network_that_falls_silent_and_comes_back(pair: World, proxies: Proxies, counting: bool) -> None:
    """Nothing gets through for a while and no connection ends: everything goes on behind it, or after the cut.

    Where all want the same records (``counting``), users wait at most until the server ends our transaction.
    """
    pair.counters()
    pair.sync()
    with pair.engine() as engine:
        with pair.load(counting=counting) as writers:
            for end in ("resume", "cut", "resume"):
                pair.moves(engine)
                for proxy in proxies.values():
                    proxy.silence()
                done = [writer.commits for writer in writers]
                pair.until(
                    lambda done=done: all(w.commits > d + 30 for w, d in zip(writers, done, strict=True)), engine
                )
                for proxy in proxies.values():
                    if end == "cut":
                        proxy.cut(refuse=True)
                    proxy.resume()
        pair.carried(engine)
        assert engine.end() == 0
    pair.proves()


def test_a_database_that_cannot_be_reached_is_waited_for(pair: World, proxies: Proxies) -> None:
    """Connections are cut and refused: the reason is said, the pauses grow, and the link goes on by itself."""
    pair.counters()
    pair.sync()
    with pair.engine() as engine:
        with pair.load(pause=0.02):
            pair.moves(engine)
            proxies[Side.RIGHT].cut(refuse=True)
            pair.until(lambda: "retry_in=1.0" in engine.said(), engine)
            proxies[Side.RIGHT].resume()
            pair.moves(engine)
        pair.carried(engine)
        assert engine.end() == 0
    assert "unavailable retry_in=0.2" in engine.said()
    pair.proves()
