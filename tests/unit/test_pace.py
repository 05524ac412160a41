"""How many changes a transaction gets."""

from __future__ import annotations

from dualwrite.engine.pace import LARGEST, Pace


def test_what_held_locks_for_too_long_is_followed_by_less() -> None:
    """Users wait for these locks."""
    pace = Pace(limit=1_000, smallest=50)
    pace.took(1.0, 1_000, target=0.1)
    assert pace.limit == 100
    pace.took(10.0, 100, target=0.1)
    assert pace.limit == 50


def test_it_grows_again_though_no_batch_is_as_large_as_the_limit() -> None:
    """Of what is read, half may be echoes: one slow moment must not leave small transactions for ever."""
    pace = Pace(limit=100, smallest=50)
    for _ in range(4):
        pace.took(0.001, pace.limit // 2, target=0.1)
    assert pace.limit == 1_600


def test_it_grows_as_far_as_the_rate_allows() -> None:
    """Twofold at a time, and up to a bound."""
    pace = Pace(limit=100, smallest=50)
    pace.took(0.05, 60, target=0.1)
    assert pace.limit == 120
    pace.took(0.0, 100_000, target=0.1)
    assert pace.limit == 240
    for _ in range(20):
        pace.took(0.001, 100_000, target=0.1)
    assert pace.limit == LARGEST


def test_single_changes_say_nothing_about_many() -> None:
    """Most of their time is that of the transaction."""
    pace = Pace(limit=500, smallest=50)
    pace.took(0.01, 1, target=0.1)
    assert pace.limit == 500
