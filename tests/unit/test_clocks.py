"""How far the clocks of the two systems are apart is told, where it is worth it."""

from __future__ import annotations

import pytest

from dualwrite.engine.clocks import apart, difference
from dualwrite.errors import Unavailable
from dualwrite.model import Side


class Clock:
    """A system that only tells the time."""

    def __init__(self, *times: float) -> None:
        """The times that it tells, one after the other; then it does not answer."""
        self.times = list(times)

    def clock(self) -> float:
        """The time now."""
        if not self.times:
            raise Unavailable("it does not answer")
        return self.times.pop(0)


@pytest.mark.parametrize(("right", "ahead"), [(1301.0, Side.RIGHT), (701.0, Side.LEFT)])
def test_five_minutes_apart_are_a_warning(right: float, ahead: Side) -> None:
    """Whichever side is ahead; the time that asking takes does not count."""
    (problem,) = apart(difference({Side.LEFT: Clock(1000.0, 1002.0), Side.RIGHT: Clock(right)}))
    assert (problem.code, problem.level, problem.side) == ("clocks_apart", "warning", str(ahead))
    assert "300 seconds ahead" in problem.message


def test_clocks_that_agree_or_do_not_answer_are_none() -> None:
    """Asking slowly is no difference."""
    assert apart(difference({Side.LEFT: Clock(1000.0, 1020.0), Side.RIGHT: Clock(1010.0)})) == []
    assert apart(difference({Side.LEFT: Clock(1000.0), Side.RIGHT: Clock()})) == []
