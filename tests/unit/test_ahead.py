"""Reading a feed one batch ahead."""

from __future__ import annotations

import threading

import pytest

from dualwrite.engine.ahead import WORTH_IT, Ahead
from dualwrite.errors import PositionLost
from dualwrite.model import Batch, Change, Kind, Position


class Slow:
    """A feed of ``size`` changes at each reading; ``last`` readings, then what ``end`` raises, or nothing more."""

    def __init__(self, last: int, end: Exception | None = None, size: int = WORTH_IT) -> None:
        self.last, self.end, self.size = last, end, size
        self.number = 0
        self.timeouts: list[float] = []
        self.began: dict[int, threading.Event] = {n: threading.Event() for n in range(1, last + 3)}
        self.closed = False

    def read(self, _limit: int, timeout: float) -> Batch:
        """The next."""
        assert not self.closed
        self.timeouts.append(timeout)
        self.number = min(self.number + 1, self.last + 1)
        self.began[self.number].set()
        position = Position("f", (self.number,))
        if self.number > self.last:
            if self.end is not None:
                raise self.end
            return Batch((), position)
        return Batch((Change("v", Kind.DELETE, ("k",), ("k",), None, 0.0, position),) * self.size, position)

    def close(self) -> None:
        """Nothing is read behind this."""
        self.closed = True


def test_the_next_batch_is_read_while_one_is_in_hand() -> None:
    """As soon as it may, though nobody has asked for it yet; it comes when somebody does, in order, and not twice."""
    slow = Slow(3)
    ahead = Ahead(slow, "test")
    found = []
    for number in (1, 2, 3):
        found.append(ahead.read(10, 5.0).position.place)
        assert not slow.began[number + 1].is_set()
        ahead.go_on()
        assert slow.began[number + 1].wait(10)
        ahead.go_on()  # once is enough
    assert ahead.read(10, 5.0).changes == ()
    assert found == [(1,), (2,), (3,)]
    assert slow.timeouts == [5.0, 0.0, 0.0, 0.0, 5.0]  # ahead, nobody waits; who asks and finds nothing does
    ahead.close()
    assert slow.closed


def test_what_reading_ahead_meets_is_raised_to_who_asks() -> None:
    """Not before: the batch in hand is still to be applied."""
    slow = Slow(1, PositionLost("gone"))
    ahead = Ahead(slow, "test")
    assert ahead.read(10, 0).changes
    ahead.go_on()
    assert slow.began[2].wait(10)
    with pytest.raises(PositionLost, match="gone"):
        ahead.read(10, 0)
    ahead.close()


def test_behind_a_few_changes_nothing_is_read_ahead() -> None:
    """Whoever asks next reads for himself."""
    slow = Slow(3, size=WORTH_IT - 1)
    ahead = Ahead(slow, "test")
    for _ in range(3):
        assert ahead.read(10, 5.0).changes
        ahead.go_on()
    assert slow.timeouts == [5.0, 5.0, 5.0]
    ahead.close()
