"""Random links under random programs, judged by the oracle."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from itertools import count
from random import Random

import pytest
from hypothesis import HealthCheck, Phase, event, given, settings
from hypothesis import strategies as st

from .oracle_programs import FEATURES, Chance
from .oracle_sqlite import SqliteSystem
from .oracle_world import Design, Make, in_memory, run, shrink

QUICK = settings(
    max_examples=100,
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.generate],  # ``shrink`` knows what a line of a program is
    suppress_health_check=list(HealthCheck),
)
FILES = [feature for feature in FEATURES if feature != "refusals"]
"""What links between database files may have: a file cannot refuse what we write and take what users write."""
SOAK, SEED = "DUALWRITE_SOAK_SECONDS", "DUALWRITE_SOAK_SEED"


def check(design: Design, program: Sequence[str], make: Make = in_memory) -> None:
    """The oracle finds no fault; where it does, the shortest program that shows it is told."""
    if run(design, program, make):
        short = shrink(program, lambda shorter: bool(run(design, shorter, make)))
        pytest.fail("\n".join([repr(design), "", *short, "", *run(design, short, make)]), pytrace=False)


@QUICK
@given(st.randoms(use_true_random=False))
def test_random_links_agree_and_lose_nothing(random: Random) -> None:
    """Whatever people do on both sides, and wherever the engine dies: at rest both sides agree, and nothing is lost."""
    chance = Chance(random)
    for feature in sorted(chance.has):
        event(feature)
    check(chance.design, chance.program())


@pytest.mark.parametrize("number", range(5))
def test_random_links_between_files(number: int) -> None:
    """The same holds for two SQLite files, with their real triggers and transactions."""
    chance = Chance(Random(number), FILES)
    check(chance.design, chance.program(), SqliteSystem)


def test_random_links_cover_every_feature() -> None:
    """Every feature of maps and programs comes up among the random links."""
    covered: set[str] = set()

    @QUICK
    @given(st.randoms(use_true_random=False))
    def look(random: Random) -> None:
        covered.update(Chance(random).has)

    look()
    assert covered == set(FEATURES)


def check_for_long(make: Make, allowed: Sequence[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Other links each time, for as long as the environment says (a minute by default).

    Each number is a link and a program; the first one is the environment's, or the time.
    """
    end = time.monotonic() + float(os.environ.get(SOAK, "60"))
    first = int(os.environ.get(SEED, time.time_ns()))
    for number in count(first):
        if time.monotonic() > end:
            break
        chance = Chance(Random(number), allowed)
        try:
            check(chance.design, chance.program(40 if number % 3 else 100), make)
        except pytest.fail.Exception as fault:
            pytest.fail(f"{SEED}={number}\n{fault}", pytrace=False)
    with capsys.disabled():
        print(f"\n{number - first} random links judged, from {SEED}={first} on")


@pytest.mark.soak
@pytest.mark.parametrize(("make", "allowed"), [(in_memory, FEATURES), (SqliteSystem, FILES)], ids=["memory", "files"])
def test_random_links_for_long(make: Make, allowed: Sequence[str], capsys: pytest.CaptureFixture[str]) -> None:
    """The same with other links each time, for as long as the environment says."""
    check_for_long(make, allowed, capsys)
