"""Rules of alerts: what they count, when they fire, and what follows from it in one transaction."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from dualwrite.engine.alerts import OWN, Alerts, Window, counted, matches
from dualwrite.engine.courier import letter
from dualwrite.engine.meter import InHand, Meter
from dualwrite.errors import Invalid, Usage
from dualwrite.journal import Journal, ParkedKey
from dualwrite.model import Side
from dualwrite.settings import KINDS, AlertSettings, MailSettings, RuleSettings
from dualwrite.troubles import CODES

NOTHING = Meter().reading()
BUDGET = 1000


def rule(**given) -> RuleSettings:
    """A rule."""
    return RuleSettings(
        **{"name": "r", "errors": ["parked"], "count": 3, "interval": "1min", "actions": ["mail"]} | given
    )


def test_what_happened_between_two_readings():
    """Only what is new; conflicts, what was parked, and other incidents, by map."""
    meter = Meter()
    meter.park(Side.LEFT, [("m", "too_long")])
    before = meter.reading()
    meter.park(Side.LEFT, [("m", "too_long"), ("m", "unique")])
    meter.park(Side.RIGHT, [("m", "unique")])
    meter.count(Side.RIGHT, {("m", "conflict"): 2, ("m", "applied"): 9})
    meter.incident("connection")
    assert counted(before, meter.reading()) == {
        ("too_long", "m"): 1,
        ("unique", "m"): 2,
        ("conflicts", "m"): 2,
        ("connection", ""): 1,
    }


@pytest.mark.parametrize(
    ("errors", "counts"),
    [
        (["parked"], {"too_long", "other", "a_connector's"}),
        (["conflict"], {"conflict", "conflicts"}),
        (["loop"], {"loop"}),
        (["brake"], {"brake", "many_deletes"}),
        (["too_long", "missing_parent"], {"too_long", "missing_parent"}),
        (["connection"], {"connection"}),
        (["attention"], {"attention"}),
    ],
)
def test_what_a_rule_counts(errors, counts):
    """``parked`` means what needs a person and is no kind of its own; codes can be named one by one."""
    happens = {"too_long", "other", "a_connector's", "behind", "missing_parent", "connection", "attention", "brake"}
    happens |= {*OWN, "conflicts"}
    assert {kind for kind in happens if matches(rule(errors=errors), kind)} == counts


def test_a_rule_fires_at_its_count_and_not_before():
    """What is older than the interval counts no more, nor what it has fired for already."""
    window = Window(rule())
    two, one = Counter({("too_long", "m"): 2}), Counter({("unique", "n"): 1})
    window.add(0.0, two)
    assert window.firing(1.0, NOTHING, BUDGET) is None
    window.add(61.0, one)
    assert window.firing(61.0, NOTHING, BUDGET) is None
    window.add(62.0, two)
    found = window.firing(62.0, NOTHING, BUDGET)
    assert found is not None
    assert found.counts == {("too_long", "m"): 2, ("unique", "n"): 1}
    assert found.maps == ["m", "n"]
    assert window.firing(63.0, NOTHING, BUDGET) is None


def test_a_rule_counts_its_maps_alone():
    """Their names in any case; what concerns the link as a whole counts for all."""
    window = Window(rule(errors=["parked", "connection"], maps=["M"], count=1))
    window.add(0.0, Counter({("too_long", "n"): 5}))
    assert window.firing(1.0, NOTHING, BUDGET) is None
    window.add(1.0, Counter({("too_long", "m"): 1, ("connection", ""): 1}))
    assert window.firing(1.0, NOTHING, BUDGET).counts == {("too_long", "m"): 1, ("connection", ""): 1}


def test_what_stands_is_told_as_it_stands():
    """A change that waits for longer than the interval, and a log above its budget, whatever the count."""
    meter = Meter()
    meter.in_hand(Side.LEFT, {"m": InHand(3, 0.0)})
    meter.retained({Side.LEFT: BUDGET + 1, Side.RIGHT: BUDGET})
    found = Window(rule(errors=["lag", "retained"], count=99)).firing(1.0, meter.reading(), BUDGET)
    told = found.text("shop")
    assert "map m: a change of the left side has been waiting for" in told
    assert "kept of the logs: left 1001 bytes; limits.retained is 1000 bytes" in told
    assert "before the disk is full" in told
    assert Window(rule(errors=["parked"])).firing(1.0, meter.reading(), BUDGET) is None


class Bench:
    """Rules on a journal of their own; what they want of maps is noted."""

    def __init__(self, *rules: RuleSettings) -> None:
        self.meter = Meter()
        self.journal = Journal.open("sqlite://")
        self.first = AlertSettings.model_construct(rules=list(rules))
        self.new: list[AlertSettings | Exception] = []
        self.wanted: list[tuple[str, tuple[str, ...]]] = []
        self.alerts = self.restarted()

    def restarted(self) -> Alerts:
        """The rules in another process."""
        self.alerts = Alerts("shop", self.journal, self.meter, self.first, self._read, self._want, BUDGET)
        return self.alerts

    def _read(self):
        found = self.new.pop() if self.new else None
        if isinstance(found, Exception):
            raise found
        return found

    def _want(self, action: str, names: list[str], who: str) -> None:
        if names == ["stopped"]:
            raise Usage("cannot pause: stopped is stopped", "")
        self.wanted.append((action, tuple(names)))
        assert who == "alert r"

    @staticmethod
    def die(*_: object) -> None:
        """The process ends here."""
        raise KeyboardInterrupt

    def said(self) -> list[str]:
        """The activity log, oldest first."""
        return [event.what for event in reversed(self.journal.events())]


def test_what_follows_from_a_firing_is_written_down():
    """The activity log, a message for each way to send one, and what is wanted of the maps concerned."""
    bench = Bench(rule(count=2, actions=["mail", "webhook", "pause"]))
    bench.alerts.look()
    bench.meter.park(Side.RIGHT, [("m", "too_long"), ("stopped", "too_long")])
    bench.alerts.look()
    assert bench.said() == ["alert", "alert could not act"]
    event = bench.journal.events()[-1]
    assert event.detail["rule"] == "r"
    assert event.detail["found"] == [
        {"kind": "too_long", "map": "m", "count": 1},
        {"kind": "too_long", "map": "stopped", "count": 1},
    ]
    assert bench.wanted == [("pause", ("m",))]
    mail, hook = bench.journal.notices()
    assert (mail.action, hook.action) == ("mail", "webhook")
    told = json.loads(hook.message)
    assert (told["link"], told["rule"], told["count"], told["interval_seconds"]) == ("shop", "r", 2, 60)
    assert "map m: 1 × too_long within 1 minute(s)" in told["text"]
    assert CODES["too_long"][1] in told["text"]


def test_what_is_wanted_of_maps_survives_a_crash():
    """It is written down with the firing; the next process does what was not done."""
    bench = Bench(rule(count=1, actions=["stop"]))
    bench.alerts.look()
    bench.meter.park(Side.RIGHT, [("m", "too_long")])
    bench.alerts._want = bench.die
    with pytest.raises(KeyboardInterrupt):
        bench.alerts.look()
    assert (bench.said(), bench.wanted) == (["alert"], [])
    bench.restarted().look()
    bench.alerts.look()
    assert bench.wanted == [("stop", ("m",))]
    assert bench.journal.notices() == []


def test_a_rule_does_not_fire_again_within_its_interval():
    """Nor in the next process: when it fired is in the journal, with the line of the activity log."""
    bench = Bench(rule(count=1))
    for _ in range(2):
        bench.alerts.look()
        bench.meter.park(Side.RIGHT, [("m", "too_long")])
        bench.alerts.look()
    bench.restarted().look()
    bench.meter.park(Side.RIGHT, [("m", "too_long")])
    bench.alerts.look()
    assert bench.said() == ["alert"]
    assert len(bench.journal.notices()) == 1


def test_rules_take_effect_at_once():
    """New rules count what was parked before them; where they cannot be read, those of before go on."""
    bench = Bench(rule(count=9))
    bench.alerts.look()
    bench.meter.park(Side.RIGHT, [("m", "too_long")] * 5)
    bench.new.append(Invalid([]))
    bench.alerts.look()
    assert bench.said() == ["dualwrite.yaml cannot be read; what it said before goes on"]
    bench.meter.park(Side.RIGHT, [("m", "too_long")] * 4)
    bench.alerts.look()
    assert bench.said()[1:] == ["alert"]
    bench.new.append(AlertSettings.model_construct(rules=[rule(name="other", count=10)]))
    bench.meter.park(Side.RIGHT, [("m", "unique")])
    bench.alerts.look()
    assert bench.said()[2:] == ["alert rules read anew", "alert"]
    assert [each["count"] for each in bench.journal.events()[0].detail["found"]] == [9, 1]


def test_what_another_engine_has_parked_counts():
    """A restart loses none of it, and counts none of it twice."""
    bench = Bench(rule(count=3))
    for number in range(2):
        record = ParkedKey(Side.RIGHT, "m", f'["{number}"]', str(number), "too_long", "is too long")
        bench.journal.park(record, [], 1)
    bench.restarted().look()
    bench.alerts.look()
    assert bench.said() == []
    bench.meter.park(Side.RIGHT, [("m", "too_long")])
    bench.alerts.look()
    assert bench.said() == ["alert"]


def test_very_many_parked_records_are_remembered_by_their_number():
    """Not each of them by itself: an engine may find hundreds of thousands that the one before it has parked."""
    bench = Bench(rule(count=3_001))
    with bench.journal.batch() as journal:
        for number in range(3_000):
            record = ParkedKey(Side.RIGHT, "m", f'["{number}"]', str(number), "too_long", "is too long")
            journal.park(record, [], 1)
    bench.restarted().look()
    assert sum(count for *_, count in bench.journal.parked_since(0.0)) == 3_000
    assert len(bench.alerts._history) < 300
    bench.meter.park(Side.RIGHT, [("m", "too_long")])
    bench.alerts.look()
    assert bench.said() == ["alert"]


def test_a_mail_is_one_whatever_a_rule_is_called():
    """Line breaks in names make no headers."""
    settings = MailSettings.model_validate({"host": "h", "from": "a@b.c", "to": ["d@e.f"]})
    made = letter(settings, {"link": "shop", "rule": "x\r\nBcc: evil@example.com", "text": "Größe", "to": None})
    assert made["Bcc"] is None
    assert made["Subject"] == "dualwrite shop: x  Bcc: evil@example.com"
    assert made["To"] == "d@e.f"
    assert made.get_content() == "Größe\n"


def test_kinds_are_no_codes():
    """But for those that are both; a word means one thing."""
    assert set(KINDS) & set(CODES) <= set(OWN)
