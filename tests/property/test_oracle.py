"""Random links under random programs, judged by the oracle."""

from __future__ import annotations

import os
import time

import pytest
from hypothesis import HealthCheck, Phase, event, given, note, settings

from .oracle_programs import FEATURES, designs, links
from .oracle_world import run

QUICK = settings(
    max_examples=300,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
SOAK = "DUALWRITE_SOAK_SECONDS"


@QUICK
@given(links())
def test_random_links_agree_and_lose_nothing(link) -> None:
    """Whatever people do on both sides, and wherever the engine dies: at rest both sides agree, and nothing is lost."""
    design, has, program = link
    for feature in sorted(has):
        event(feature)
    note("\n".join(program))
    assert run(design, program) == []


def test_random_links_cover_every_feature() -> None:
    """Every feature of maps and programs comes up among the random links."""
    covered: set[str] = set()

    @settings(QUICK, phases=[Phase.generate])
    @given(designs())
    def look(found) -> None:
        covered.update(found[1])

    look()
    assert covered == set(FEATURES)


@pytest.mark.soak
def test_random_links_for_long() -> None:
    """The same with other links each time, for as long as the environment says (a minute by default)."""
    end = time.monotonic() + float(os.environ.get(SOAK, "60"))
    judged = 0

    @settings(QUICK, derandomize=False, print_blob=True)
    @given(links(most=80))
    def judge(link) -> None:
        nonlocal judged
        design, _, program = link
        note("\n".join(program))
        judged += 1
        assert run(design, program) == []

    while time.monotonic() < end:
        judge()
    print(f"{judged} random links judged")
