"""Random links under random programs between PostgreSQL databases, and with SQLite files, judged by the oracle."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from random import Random

import pytest

from dualwrite.testing.postgresql import Server

from .oracle import Line, MapIdea
from .oracle_postgresql import PostgresqlWorlds
from .oracle_programs import FEATURES, Chance
from .oracle_world import ITEMS, Design, run
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


PLAIN = MapIdea(ITEMS, "item", "thing", tuple([Line(name, "=", name) for name in ("code", "a", "b")]))
PAST_ALL_LOCKS = {
    "deleted in an initial sync": ["L insert 3 a=2", "R insert 3 {}", "at after begin: R delete 3", "start left"],
    "deleted before an initial sync": ["L insert 3 a=2", "R insert 3 {}", "at after read: R delete 3", "start left"],
    "updated and deleted": ["start left", "L insert 3 a=1", "drain", "L update 3 a=2", "R delete 3", "L>R 1"],
    "deleted on both sides": ["start left", "L insert 3 a=1", "drain", "L delete 3", "R delete 3", "L>R 1"],
    "deleted by us, and theirs": [
        "start left",
        "L insert 3 a=1",
        "drain",
        "R delete 3",
        "L update 3 a=2",
        "L delete 3",
        "L>R",
    ],
}
"""Records about which one of our transactions decides that they are not there; nothing of them is there to be locked."""


@pytest.mark.parametrize("dies", [False, True])
@pytest.mark.parametrize("place", ["before journal", "before commit"])
@pytest.mark.parametrize("rows", ["keep", "delete", "newest", "left", "right"])
@pytest.mark.parametrize("what", PAST_ALL_LOCKS)
def test_record_made_anew_between_a_decision_and_its_commit(
    worlds: PostgresqlWorlds, what: str, rows: str, place: str, dies: bool
) -> None:
    """Whoever makes it there again is not kept from it; also when the engine dies just behind its commit."""
    for cells in ("", "b=1"):
        program = [step.format(cells) for step in PAST_ALL_LOCKS[what]]
        crash = ["crash after commit 1"] if dies else []
        program[-1:-1] = [f"at {place}: R insert 3 {cells}", *crash]
        assert run(Design((replace(PLAIN, rows=rows),)), program, worlds.both) == []


WITH_ONE_WAY = replace(PLAIN, lines=(*PLAIN.lines, Line("c", ">", "c")))
NOTHING_TO_WRITE = {
    "an edit that is not carried": ["R update 1 c=1"],
    "an edit that is taken back": ["R update 1 a=2", "R update 1 a=1"],
}
"""What people do on the right of which nothing is to be written on the left."""


@pytest.mark.parametrize("policy", ["right", "newest"])
@pytest.mark.parametrize("rows", ["keep", "newest", "left"])
@pytest.mark.parametrize("theirs", ["L delete 1", "L update 1 a=3"])
@pytest.mark.parametrize("what", NOTHING_TO_WRITE)
def test_nothing_is_written_of_an_edit_that_meets_another(
    worlds: PostgresqlWorlds, what: str, theirs: str, rows: str, policy: str
) -> None:
    """It counts against what the other side did, which nothing has kept from being done."""
    idea = replace(WITH_ONE_WAY, rows=rows, policy=policy)
    for meeting in ([theirs, *NOTHING_TO_WRITE[what]], [f"at before commit: {theirs}", *NOTHING_TO_WRITE[what]]):
        program = ["L insert 1 a=1", "start left", "drain", *meeting, "R>L 3"]
        assert run(Design((idea,)), program, worlds.both) == []


def test_table_changed_before_a_transaction_that_writes_nothing(worlds: PostgresqlWorlds) -> None:
    """It begins at its end only, and is done anew as any other."""
    program = ["start right", "L insert 1", "L delete 1", "block R 1", "L>R 1"]
    assert run(Design((PLAIN,)), program, worlds.both) == []


@pytest.mark.soak
@pytest.mark.parametrize("pair", PAIRS)
def test_random_links_with_servers_for_long(
    worlds: PostgresqlWorlds, pair: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same with other links each time, for as long as the environment says."""
    check_for_long(getattr(worlds, pair), PAIRS[pair], capsys)
