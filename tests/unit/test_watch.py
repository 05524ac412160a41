"""Looking after a running engine: a log that grows while nothing of it arrives."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest

from dualwrite.engine import watch
from dualwrite.engine.meter import Meter
from dualwrite.engine.watch import RETAINED_EVERY, Gauges, stalled
from dualwrite.journal import Journal
from dualwrite.model import Side


@dataclass
class Watched:
    """An engine that carries, with systems that say what they keep, and a clock that goes by rounds."""

    journal: Journal
    kept: dict[Side, int] = field(default_factory=lambda: dict.fromkeys(Side, 0))
    confirmed: int = 0
    meter: Meter = field(default_factory=Meter)
    now: float = 1000.0

    def __post_init__(self) -> None:
        """Begin to look."""
        systems = {
            side: SimpleNamespace(retained=lambda side=side: self.kept[side], confirmed=lambda: self.confirmed)
            for side in Side
        }
        self.gauges = Gauges(self.journal, systems, self.meter)  # type: ignore[arg-type]
        self.meter.carries(True)

    def rounds(self, number: int, grows: int = 0, arrive: int = 0) -> list[str]:
        """So many looks, before each of which the left log grows and changes of it arrive; the sides that stall."""
        for _ in range(number):
            self.now += RETAINED_EVERY
            self.kept[Side.LEFT] += grows
            if arrive:
                self.meter.count(Side.RIGHT, {("map", "insert"): arrive})
            self.gauges.ask()
        return [str(problem.side) for problem in stalled(self.journal)]


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A journal and a clock of its own."""
    with Journal.open(tmp_path) as journal:
        made = Watched(journal)
        monkeypatch.setattr(watch.time, "monotonic", lambda: made.now)
        yield made


def test_a_log_that_grows_while_nothing_arrives_is_told(watched: Watched) -> None:
    """After a minute, for that side alone; what arrives ends it."""
    assert watched.rounds(3, grows=100) == []
    assert watched.rounds(3, grows=100) == ["left"]
    assert "nothing of it arrives" in stalled(watched.journal)[0].message
    assert watched.rounds(1, grows=100, arrive=1) == []


def test_a_log_that_is_let_go_advances(watched: Watched) -> None:
    """Also where nothing in it is for any map."""
    assert watched.rounds(6, grows=100) == ["left"]
    assert watched.rounds(1, grows=-50) == []
    assert watched.rounds(10) == []


def test_a_log_that_is_kept_for_an_open_transaction_advances(watched: Watched) -> None:
    """As long as all else in it is confirmed, and no longer."""
    for _ in range(10):
        watched.confirmed += 100
        assert watched.rounds(1, grows=100) == []
    assert watched.rounds(6, grows=100) == ["left"]


def test_a_busy_link_advances(watched: Watched) -> None:
    """However much its users are ahead of it."""
    assert watched.rounds(20, grows=1000, arrive=5) == []


def test_what_an_earlier_engine_said_is_over(watched: Watched) -> None:
    """Another one begins to look anew."""
    assert watched.rounds(6, grows=100) == ["left"]
    assert Watched(watched.journal, now=watched.now).rounds(0) == ["left"]
    again = Watched(watched.journal, now=watched.now)
    again.gauges.ask()
    assert stalled(watched.journal) == []
