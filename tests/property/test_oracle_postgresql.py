"""Random links under random programs between PostgreSQL databases, and with SQLite files, judged by the oracle."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest

from dualwrite.testing.postgresql import Server

from .oracle_postgresql import PostgresqlWorlds
from .oracle_programs import FEATURES, Chance
from .test_oracle import FILES, check, check_for_long

SERVERS = [feature for feature in FEATURES if feature != "twins"]
"""What links between servers may have: a second engine cannot read a slot as long as the first one does."""
MIXED = [feature for feature in SERVERS if feature in FILES]
PAIRS = {"both": SERVERS, "left": MIXED, "right": MIXED}
"""Which sides are PostgreSQL (the other one is a SQLite file), and what such links may have."""


@pytest.fixture(scope="module")
def worlds(postgresql: Server) -> Iterator[PostgresqlWorlds]:
    """What makes systems on the server."""
    made = PostgresqlWorlds(postgresql)
    yield made
    made.close()


@pytest.mark.parametrize("number", range(8))
@pytest.mark.parametrize("pair", PAIRS)
def test_random_links_with_servers(worlds: PostgresqlWorlds, pair: str, number: int) -> None:
    """Whatever people do on both sides, and wherever the engine dies: at rest both sides agree, and nothing is lost."""
    chance = Chance(Random(number), PAIRS[pair])
    check(chance.design, chance.program(20), getattr(worlds, pair))


@pytest.mark.soak
@pytest.mark.parametrize("pair", PAIRS)
def test_random_links_with_servers_for_long(
    worlds: PostgresqlWorlds, pair: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same with other links each time, for as long as the environment says."""
    check_for_long(getattr(worlds, pair), PAIRS[pair], capsys)
