"""The clocks of two servers are minutes apart: the newest edit is the one that was made last."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from dualwrite.model import Side
from dualwrite.testing.postgresql import Server

from .postgresql_world import ITEM, LEFT, PRODUCT, RIGHT, System, World

APART = 300
RECORDS = 20


@pytest.fixture
def skewed(servers: tuple[Server, Server], tmp_path: Path) -> Iterator[World]:
    """A link to a server whose clock is five minutes ahead."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler, to make a clock run ahead")
    servers[1].set_ahead(APART, compiler)
    for server in servers:
        server.start()
    with servers[0].database(LEFT) as left, servers[1].database(RIGHT) as right:
        yield World(tmp_path, System(Side.LEFT, ITEM, left), System(Side.RIGHT, PRODUCT, right))


def rename(system: System, code: str, name: str) -> None:
    """An application's edit."""
    table, key, column = system.names[:3]
    assert system.database is not None
    system.database.run(f"UPDATE {table} SET {column} = %s WHERE {key} = %s", name, code)


def test_clocks_five_minutes_apart(skewed: World) -> None:
    """Whichever side edits last wins, live and after a pause; ``check`` and ``status`` tell how far the clocks are
    apart."""
    left, right = skewed.systems
    assert left.database is not None
    skewed.counters()
    for number in range(RECORDS):
        left.insert(f"r{number}", "old")
    skewed.sync()
    for turn in ("first", "last"):
        for number in range(RECORDS):
            system = skewed.systems[(number + (turn == "last")) % 2]
            rename(system, f"r{number}", f"{turn} {system.side}")
        left.database.run("SELECT pg_sleep(1)")  # clocks are measured by asking, which may take a moment
    skewed.sync()
    found = {code: name for code, (name, *_) in left.records().items() if code.startswith("r")}
    assert found == {f"r{number}": f"last {'right' if number % 2 == 0 else 'left'}" for number in range(RECORDS)}
    assert left.records() == right.records()
    told = json.loads(skewed.call("check", "--json").stdout)
    (clocks,) = [problem for problem in told["problems"] if problem["code"] == "clocks_apart"]
    assert any(f"right: its clock is {seconds} seconds ahead" in clocks["message"] for seconds in range(299, 302))
    assert "seconds ahead of the left one" in skewed.call("status").stdout
    with skewed.load(), skewed.engine() as engine:
        skewed.moves(engine)
        skewed.moves(engine)
        assert engine.end() == 0
    skewed.sync()
    skewed.agrees()
