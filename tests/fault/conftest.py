"""Links between databases that tests put into trouble."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from dualwrite.model import Side
from dualwrite.testing.postgresql import Server
from dualwrite.testing.proxy import Proxy

from .postgresql_world import ITEM, LEFT, PRODUCT, RIGHT, SQLITE, System, World


def sqlite_system(folder: Path) -> System:
    """The right side as a SQLite file."""
    file = folder / "right.db"
    with closing(sqlite3.connect(file)) as database:
        database.executescript(SQLITE)
    return System(Side.RIGHT, PRODUCT, file=file)


@pytest.fixture(params=["postgresql", "sqlite"])
def world(request: pytest.FixtureRequest, postgresql: Server, tmp_path: Path) -> Iterator[World]:
    """A link from PostgreSQL to PostgreSQL, and one to SQLite, on the server of all tests."""
    with ExitStack() as stack:
        left = System(Side.LEFT, ITEM, stack.enter_context(postgresql.database(LEFT)))
        if request.param == "sqlite":
            right = sqlite_system(tmp_path)
        else:
            right = System(Side.RIGHT, PRODUCT, stack.enter_context(postgresql.database(RIGHT)))
        yield World(tmp_path, left, right)


@pytest.fixture
def pair(postgresql: Server, tmp_path: Path) -> Iterator[World]:
    """A link from PostgreSQL to PostgreSQL, on the server of all tests."""
    with postgresql.database(LEFT) as left, postgresql.database(RIGHT) as right:
        yield World(tmp_path, System(Side.LEFT, ITEM, left), System(Side.RIGHT, PRODUCT, right))


@pytest.fixture
def proxies(pair: World) -> Iterator[dict[Side, Proxy]]:
    """The same link with a network between dualwrite and its databases; the applications need none."""
    with ExitStack() as stack:
        made: dict[Side, Proxy] = {}
        for system in pair.systems:
            assert system.database is not None
            proxy = made[system.side] = stack.enter_context(Proxy("127.0.0.1", system.database.server.port))
            system.url = f"postgresql://postgres@127.0.0.1:{proxy.port}/{system.database.name}"
        pair.settle()
        yield made


@pytest.fixture
def servers() -> Iterator[tuple[Server, Server]]:
    """Two servers of a test's own, not started yet."""
    with ExitStack() as stack:
        made = Server(), Server()
        for server in made:
            stack.callback(server.remove)
        yield made


@pytest.fixture
def apart(servers: tuple[Server, Server], tmp_path: Path) -> Iterator[World]:
    """A link between databases of two servers of its own."""
    for server in servers:
        server.start()
    with servers[0].database(LEFT) as left, servers[1].database(RIGHT) as right:
        yield World(tmp_path, System(Side.LEFT, ITEM, left), System(Side.RIGHT, PRODUCT, right))
