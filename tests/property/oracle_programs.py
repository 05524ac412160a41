"""Random links, and random programs for them."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random

from dualwrite.mapping.tablemap import ROW_POLICIES
from dualwrite.model import Side

from .oracle import Filter, Line, MapIdea
from .oracle_world import GROUPS, ITEMS, POINTS, SIDES, Design

L, R = Side.LEFT, Side.RIGHT
FEATURES = (
    "manual",
    "sum",
    "max and min",
    "newest rows",
    "to the right",
    "to the left",
    "constant",
    "default",
    "value map",
    "lookup",
    "self reference",
    "lookup in key",
    "company",
    "some companies",
    "filter left",
    "filter right",
    "detach",
    "leaving deletes",
    "no deletes",
    "rename",
    "left actions",
    "right actions",
    "trigger",
    "clocks",
    "refusals",
    "twins",
    "stops",
    "pauses",
)
"""What a link, or a program, may have besides one map with plain columns."""
CLOCKS = ("tie", "right ahead", "left ahead", "backwards")
GROUP_CODES = "gh"
VALUES = ("1", "2", "3", "-")
WAYS = (
    ("to the right", Line("c", ">", "c")),
    ("to the left", Line("d", "<", "d")),
    ("constant", Line(None, ">", "c", default="7")),
    ("constant", Line("d", "<", None, default="8")),
    ("default", Line("c", "=", "c", default="3")),
    ("value map", Line("d", "=", "d", (("1", "one"), ("2", "two")), "park")),
    ("value map", Line("d", "=", "d", (("1", "2"), ("2", "1"), ("3", "3")))),
    ("value map", Line("c", ">", "c", (("1", "one"), ("2", "one")), "keep")),
)
"""How the columns c and d may be carried, with the feature that it is."""


class Chance:
    """Draws a link and programs for it out of a source of randomness: a seed's, or Hypothesis'.

    Every draw is one of equals among a few (``_one_in`` and not ``random.random()``), because Hypothesis likes the ends
    of long ranges best.
    """

    def __init__(self, random: Random, allowed: Iterable[str] = FEATURES, needed: Iterable[str] = ()) -> None:
        """A link has some of the allowed features, and all of the needed ones."""
        self.random = random
        self.has = self._features(sorted(allowed), needed)
        self.design = self._design()
        self.codes = self.random.choice(("1", "1", "1", "12", "12", "123"))

    def _one_in(self, number: int) -> bool:
        return self.random.choice(range(number)) == 0

    # -- links --------------------------------------------------------------------------------------------------------

    def _features(self, allowed: list[str], needed: Iterable[str]) -> frozenset[str]:
        """A few features that go together."""
        count = self.random.randint(0, min(6, len(allowed)))
        found = {*needed, *self.random.sample(allowed, count)}
        if "lookup in key" in found:
            found.add("lookup")
            found.discard("self reference")
        if "some companies" in found:
            found.add("company")
        if found & {"left actions", "right actions"} and "self reference" not in found:
            found.add("lookup")
        if "filter left" in found or "filter right" in found:
            found.discard("leaving deletes" if "detach" in found else "detach")
        else:
            found -= {"detach", "leaving deletes"}
        return frozenset(found)

    def _policy(self) -> str:
        names = ["left", "right", "newest", "newest"]
        names += ["max", "min"] * ("max and min" in self.has) + ["manual"] * ("manual" in self.has)
        return self.random.choice(names)

    def _design(self) -> Design:
        random, has = self.random, self.has
        company = ("company", "company.code") if "company" in has else None
        groups = MapIdea(GROUPS, "grp", "family", (Line("code", "=", "code"), Line("a", "=", "a")), company=company)
        items = MapIdea(
            ITEMS,
            "item",
            "thing",
            tuple(self._lines()),
            ("code", "family.code") if "lookup in key" in has else ("code",),
            company,
            {side: self._filter() for side in Side if f"filter {side}" in has},
            rows="newest" if "newest rows" in has else random.choice(ROW_POLICIES),
            deletes="no deletes" not in has,
            on_leave="delete" if "leaving deletes" in has else "detach",
        )
        acting, ways = {side for side in Side if f"{side} actions" in has}, ["cascade", "restrict", "set null"]
        if "lookup in key" in has:  # without its group a record would have no key
            acting, ways = acting | {R}, ways[:2]
        actions = {side: random.choice(ways) for side in Side if side in acting}
        return Design(
            (items, groups) if "lookup" in has else (items,),
            random.choice(CLOCKS) if "clocks" in has else "true",
            actions,  # type: ignore[arg-type]
            ("x", "y") if "some companies" in has else None,
            "b" if "trigger" in has else "",
        )

    def _lines(self) -> list[Line]:
        has = self.has
        lines = [Line("code", "=", "code"), *(Line(name, "=", name, policy=self._policy()) for name in "ab")]
        ways = [line for feature, line in WAYS if feature in has]
        self.random.shuffle(ways)
        lines += {line.left or line.right: line for line in ways}.values()  # one for each column
        if "sum" in has:
            lines.append(Line("n", "=", "n", policy="sum"))
        if "lookup" in has:
            lines.append(Line("grp", "=", "family.code", policy=self._policy()))
        if "self reference" in has:
            lines.append(Line("parent", "=", "parent.code", policy=self._policy()))
        if has & {"filter left", "filter right"} and self._one_in(2):
            lines.append(Line("kind", "=", "kind", policy=self._policy()))
        return lines

    def _filter(self) -> Filter:
        return Filter("kind", self.random.choice("12"), self._one_in(2))

    # -- programs -----------------------------------------------------------------------------------------------------

    def program(self, most: int = 40) -> list[str]:
        """A program: few records, so that edits meet; most of them are there and in step from the start."""
        random = self.random
        before = [f"{random.choice('LR')} {self._statement('set', code)}" for code in self.codes]
        before += [self._edit() for _ in range(random.choice((0, 0, 1, 2)))]
        meanwhile = [self._at() if self._one_in(2) else self._crash()] if self._one_in(3) else []
        start = f"start {random.choice(('left', 'right'))}"
        drain = [] if self._one_in(3) else ["drain"]
        return [*before, *meanwhile, start, *drain, *(self._step() for _ in range(random.randint(4, most)))]

    def _step(self) -> str:
        has, random = self.has, self.random
        kinds = ["edit"] * 12 + ["turn"] * 9 + ["drain", "ack", "ack", "restart", "crash", "crash", "at", "retry"]
        kinds += ["resolve", "resolve"] * ("manual" in has) + ["block", "block", "unblock"] * ("refusals" in has)
        kinds += ["clock"] * ("clocks" in has) + ["twin"] * (3 * ("twins" in has))
        kinds += ["stop", "start"] * ("stops" in has)
        kinds += ["pause", "pause", "pause", "resume", "resume", "alone", "alone", "alone"] * ("pauses" in has)
        match random.choice(kinds):
            case "edit":
                return self._edit()
            case "turn":
                return f"{random.choice(('L>R', 'R>L'))} {random.choice((1, 2, 3, 99, 99))}"
            case "crash":
                return self._crash()
            case "at":
                return self._at()
            case "twin":
                return random.choice(("twin", "twin L>R", "twin R>L"))
            case "resolve" | "start" as kind:
                return f"{kind} {random.choice(('left', 'right'))}"
            case "pause":
                return random.choice(("pause", "pause items"))
            case "resume":
                return random.choice(("resume", "resume", "resume preserve"))
            case "alone":
                return (
                    f"alone {random.choice('LR')} {random.choice((1, 2, 9))}{random.choice(('', ' pause', ' resume'))}"
                )
            case "block":
                return f"block {random.choice('LR')} {random.choice(self.codes)}"
            case "clock":
                return f"clock {random.choice('LR')} {random.choice((50, -50))}"
            case kind:
                return kind

    def _crash(self) -> str:
        return f"crash {self.random.choice(POINTS)} {self.random.choice((1, 1, 2))}"

    def _at(self) -> str:
        return f"at {self.random.choice(POINTS)}: {self._edit()}"

    def _edit(self) -> str:
        """A user's transaction on a side."""
        side = self.random.choice("LR")
        count = self.random.choice((1, 1, 1, 1, 1, 2))
        return f"{side} " + "; ".join(self._statement(side=side) for _ in range(count))

    def _statement(self, verb: str = "", code: str = "", side: str = "L") -> str:
        """What a user does to one record."""
        random, has = self.random, self.has
        group = not verb and "lookup" in has and self._one_in(3)
        verb = verb or random.choice(["set"] * 10 + ["insert"] + ["delete"] * 2 + ["rename"] * ("rename" in has))
        target = self._target(code or random.choice(GROUP_CODES if group else self.codes), group)
        if verb == "delete":
            return f"delete {target}"
        if verb == "rename":
            return f"rename {target} {self._target(random.choice(GROUP_CODES if group else '123'), group)}"
        columns = ["a"] if group else ["a", "b", *self._columns()]
        chosen = set(random.choices(columns, k=random.choice((1, 1, 2, 3))))
        chosen |= {"grp"} if "lookup in key" in has and not group and not self._one_in(5) else set()
        values = {name: self._value(name, side) for name in sorted(chosen)}
        if values.get("parent") == target[0]:  # a record that refers to itself cannot be renamed: see the limitations
            values["parent"] = "-"
        return " ".join([verb, target, *(f"{name}={value}" for name, value in values.items())])

    def _target(self, code: str, group: bool) -> str:
        companies = "xxxyz" if "some companies" in self.has else "xxxy" if "company" in self.has else [""]
        return f"{'g:' if group else ''}{code}{self.random.choice(companies)}"

    def _columns(self) -> list[str]:
        lines = self.design.items.lines
        named = {path for line in lines for path in (line.left, line.right) if path and "." not in path}
        named |= {line.left for line in lines if line.left}
        found = sorted(named - {"a", "b", "code", "company"})
        return [*found, *(["kind"] * (2 if self.design.items.filters else 0))]

    def _value(self, column: str, side: str) -> str:
        line = next((line for line in self.design.items.lines if line.path(SIDES[side]) == column), None)
        if line is not None and line.values:
            return self.random.choice((*(pair[side == "R"] for pair in line.values), *VALUES[2:]))
        return self.random.choice((*GROUP_CODES, "-") if column == "grp" else VALUES)
