"""Rules of alerts, held against what a running engine counts.

A rule fires when what it counts within its interval reaches its number, and then not again within its interval.  What
follows from it is written down in one transaction: the line of the activity log, the messages to be sent (see
``courier``), and what is wanted of maps from then on.  So a crash neither loses a message nor sends it for nothing.
"""

from __future__ import annotations

import json
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from dualwrite.engine import wishes
from dualwrite.engine.loops import LOOP
from dualwrite.engine.meter import Meter, Reading
from dualwrite.engine.release import MANY_DELETES
from dualwrite.engine.retention import size
from dualwrite.errors import DualwriteError, Usage
from dualwrite.journal import Journal, Notice
from dualwrite.project import FILE
from dualwrite.settings import MESSAGES, AlertSettings, RuleSettings
from dualwrite.troubles import remedy_of

ITSELF: Final = "alert"
"""Who does what a rule asks for, in the activity log."""
OWN: Final[Mapping[str, str]] = {"conflict": "conflict", LOOP: LOOP, MANY_DELETES: "brake"}
"""Codes of parked changes that are a kind of trouble of their own."""
BY_THEMSELVES: Final = frozenset({"behind", "missing_parent"})
"""Codes of parked changes that mostly settle without a person: only a rule that names them counts them."""
REMEMBERED: Final = 86_400.0
"""Seconds for which what has happened is kept for rules that are changed; no interval is longer."""
log = logging.getLogger(__name__)

Counts = Counter[tuple[str, str]]
"""How often something happened, by kind or code, and map (empty: the link as a whole)."""


@dataclass(frozen=True, slots=True)
class Firing:
    """What a rule tells: what happened how often within its interval, by kind and map; or, of what is no count, how it
    stands."""

    rule: RuleSettings
    at: float
    counts: Mapping[tuple[str, str], int]
    standing: Mapping[str, str] = field(default_factory=dict)

    @property
    def maps(self) -> list[str]:
        """The maps that it is about."""
        return sorted({name for _, name in self.counts if name})

    def text(self, link: str) -> str:
        """What happened, where, and what to do next."""
        minutes = f"{self.rule.interval / 60:g} minute(s)"
        lines = [f"Link {link}: the rule {self.rule.name!r} has fired.", ""]
        for (kind, name), count in sorted(self.counts.items()):
            where = f"map {name}: " if name else ""
            told = self.standing.get(f"{kind} {name}", f"{count} × {kind} within {minutes}")
            lines.append(f"- {where}{told}")
            if remedy := _remedy(kind):
                lines.append(f"  → {remedy}")
        if acts := [action for action in self.rule.actions if action not in MESSAGES]:
            lines += ["", f"Asked for by the rule: {', '.join(acts)} {', '.join(self.maps)}"]
        return "\n".join([*lines, "", "See `dualwrite status` and `dualwrite log`."])


_REMEDIES: Final = {
    "connection": "see `dualwrite status` for the system that does not answer, and why",
    "conflict": "see `dualwrite conflicts list`",
    "brake": "see `dualwrite status`: it waits for a person's word",
    "attention": "see `dualwrite status` for the reason, and what to do",
    "drift": "see `dualwrite log` for what has changed, and `dualwrite status` for maps that need attention",
    "lag": "see `dualwrite status`: is a system slow, or does it not answer?",
    "retained": "run dualwrite until it has caught up, before the disk is full",
}


def _remedy(kind: str) -> str:
    return _REMEDIES.get(kind) or remedy_of(kind) or "see `dualwrite parked list`"


def counted(before: Reading | None, now: Reading) -> Counts:
    """What has happened between two readings."""
    found: Counts = Counter()
    for (name, _, code), count in now.parked.items():
        found[code, name] += count
    for (name, _, outcome), count in now.changes.items():
        if outcome == "conflict":
            found["conflicts", name] += count
    for (kind, name), count in now.incidents.items():
        found[kind, name] += count
    return found - counted(None, before) if before is not None else found


def matches(rule: RuleSettings, kind: str) -> bool:
    """Does a rule count this kind or code?"""
    if kind in rule.errors:
        return True
    if kind == "conflicts":  # those that were decided at once
        return "conflict" in rule.errors
    return OWN.get(kind, "parked") in rule.errors and kind not in BY_THEMSELVES | _INCIDENTS


_INCIDENTS: Final = frozenset({"connection", "attention", "brake", "drift"})


class Window:
    """What one rule has counted within its interval."""

    def __init__(self, rule: RuleSettings, known: Iterable[tuple[float, Counts]] = ()) -> None:
        self.rule = rule
        self._found: deque[tuple[float, Counts]] = deque()
        self._maps = None if rule.maps is None else {name.casefold() for name in rule.maps}
        for at, counts in known:
            self.add(at, counts)

    def add(self, at: float, counts: Counts) -> None:
        """Something has happened."""
        mine = Counter({place: count for place, count in counts.items() if self._is_meant(*place)})
        if mine:
            self._found.append((at, mine))

    def _is_meant(self, kind: str, name: str) -> bool:
        return matches(self.rule, kind) and self._covers(name)

    def _covers(self, name: str) -> bool:
        return self._maps is None or not name or name.casefold() in self._maps

    def firing(self, now: float, reading: Reading, budget: int) -> Firing | None:
        """What there is to tell, if anything; what was counted for it counts no more."""
        while self._found and self._found[0][0] <= now - self.rule.interval:
            self._found.popleft()
        total: Counts = Counter()
        for _, counts in self._found:
            total.update(counts)
        if sum(total.values()) < self.rule.count:
            total = Counter()
        standing = {**self._lag(reading), **self._retained(reading, budget)}
        if not total and not standing:
            return None
        self._found.clear()
        found = dict(total) | dict.fromkeys(standing, 1)
        told = {f"{kind} {name}": text for (kind, name), text in standing.items()}
        return Firing(self.rule, now, found, told)

    def _lag(self, reading: Reading) -> dict[tuple[str, str], str]:
        if "lag" not in self.rule.errors:
            return {}
        return {
            ("lag", name): f"a change of the {side} side has been waiting for {age:.0f} seconds"
            for (name, side), age in reading.lag.items()
            if age > self.rule.interval and self._covers(name)
        }

    def _retained(self, reading: Reading, budget: int) -> dict[tuple[str, str], str]:
        kept = {side: found for side, found in reading.retained.items() if found > budget}
        if "retained" not in self.rule.errors or not kept:
            return {}
        told = ", ".join(f"{side} {size(found)}" for side, found in kept.items())
        return {("retained", ""): f"kept of the logs: {told}; limits.retained is {size(budget)}"}


class Alerts:
    """The rules of a link, looked at again and again by ``look``.

    ``read`` gives other ones where they have changed; it raises what is wrong with their file, and those of before go
    on.  ``want`` writes down that maps shall pause or stop.
    """

    def __init__(
        self,
        link: str,
        journal: Journal,
        meter: Meter,
        settings: AlertSettings,
        read: Callable[[], AlertSettings | None],
        want: Callable[[str, Sequence[str], str], None],
        budget: int,
    ) -> None:
        self._link = link
        self._journal = journal
        self._meter = meter
        self._read = read
        self._want = want
        self._budget = budget
        self._before: Reading | None = None
        earlier = journal.parked_since(time.time() - REMEMBERED)  # by another engine, before this one began
        self._history = deque((at, Counter({(code, name): count})) for name, code, at, count in earlier)
        self._windows = self._counting(settings)

    def look(self) -> None:
        """Hold every rule against what has happened since the last look."""
        self._take_rules()
        now, reading = time.time(), self._meter.reading()
        new = counted(self._before, reading)
        self._before = reading
        self._remember(now, new)
        for window in self._windows:
            window.add(now, new)
            if self._may_fire(window.rule, now) and (found := window.firing(now, reading, self._budget)):
                self._fire(found)
        self._act()

    def _take_rules(self) -> None:
        """Take rules that were changed."""
        try:
            settings = self._read()
        except DualwriteError as wrong:
            self._journal.log(f"{FILE} cannot be read; what it said before goes on", detail={"reason": str(wrong)})
            log.warning(f"{FILE} cannot be read", extra={"fields": {"reason": str(wrong)}})
            return
        if settings is not None:
            self._journal.log("alert rules read anew", detail={"rules": [rule.name for rule in settings.rules]})
            self._windows = self._counting(settings)

    def _counting(self, settings: AlertSettings) -> list[Window]:
        """The rules; they count what happened before as well."""
        return [Window(rule, self._history) for rule in settings.rules]

    def _remember(self, now: float, new: Counts) -> None:
        if new:
            self._history.append((now, new))
        while self._history and self._history[0][0] < now - REMEMBERED:
            self._history.popleft()

    def _may_fire(self, rule: RuleSettings, now: float) -> bool:
        last = fired_at(self._journal, rule)
        return now - last >= rule.interval or now < last

    def _fire(self, firing: Firing) -> None:
        rule, text = firing.rule, firing.text(self._link)
        detail = {"rule": rule.name, "found": _found(firing), "actions": list(rule.actions)}
        log.warning("alert", extra={"fields": detail})
        with self._journal.batch() as batch:
            batch.put(_fired(rule), repr(firing.at))
            batch.log("alert", map=firing.maps[0] if len(firing.maps) == 1 else "", who=ITSELF, detail=detail)
            for action in rule.actions:
                told = message(self._link, firing.at, rule, text, detail) if action in MESSAGES else self._meant(firing)
                batch.notify(Notice(firing.at, rule.name, action, told))

    def _meant(self, firing: Firing) -> str:
        """The maps that a rule pauses or stops: those that had the trouble, or all of its own."""
        return json.dumps(firing.maps or list(firing.rule.maps or self._journal.states()))

    def _act(self) -> None:
        """Do what rules that have fired want of maps; what another process did not come to as well."""
        for notice in self._journal.notices():
            if notice.action not in MESSAGES:
                for name in json.loads(notice.message):
                    self._act_on(notice, name)
                with self._journal.batch() as batch:
                    batch.drop_notice(notice.id)

    def _act_on(self, notice: Notice, name: str) -> None:
        try:
            self._want(notice.action, [name], f"alert {notice.rule}")
        except Usage as refused:  # it does not run, say
            detail = {"rule": notice.rule, "action": notice.action, "reason": refused.message}
            self._journal.log("alert could not act", map=name, who=ITSELF, detail=detail)


def fired_at(journal: Journal, rule: RuleSettings) -> float:
    """When a rule fired last; 0 where it never did."""
    return float(journal.get(_fired(rule)) or 0.0)


def _fired(rule: RuleSettings) -> str:
    return f"alert.{rule.name}"


def _found(firing: Firing) -> list[dict[str, object]]:
    return [{"kind": kind, "map": name, "count": count} for (kind, name), count in sorted(firing.counts.items())]


def message(link: str, at: float, rule: RuleSettings, text: str, detail: Mapping[str, object]) -> str:
    """What is sent, as JSON: the body of a web hook, and what a mail is made of."""
    told = {"link": link, "rule": rule.name, "at": at, "count": rule.count, "interval_seconds": rule.interval}
    return json.dumps({**told, **detail, "to": rule.to, "text": text}, ensure_ascii=False)


def trial(link: str, rule: RuleSettings) -> str:
    """A message that only shows that messages arrive."""
    text = f"Link {link}: this is a test of the rule {rule.name!r}. Nothing has happened."
    return message(link, time.time(), rule, text, {"found": [], "actions": list(rule.actions), "test": True})


def want(journal: Journal) -> Callable[[str, Sequence[str], str], None]:
    """Writes down that maps shall pause or stop, and lets the engine look."""

    def wish(action: str, names: Sequence[str], who: str) -> None:
        (wishes.pause if action == "pause" else wishes.stop)(journal, names, who=who)
        wishes.tell(journal)

    return wish
