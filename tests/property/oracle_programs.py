"""Random links and random programs for them."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import strategies as st

from dualwrite.mapping.tablemap import ROW_POLICIES
from dualwrite.model import Side

from .oracle import Filter, Line, MapIdea
from .oracle_world import GROUPS, ITEMS, POINTS, SIDES, Design

L, R = Side.LEFT, Side.RIGHT
FEATURES = (
    "manual",
    "sum",
    "max and min",
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
)
"""What a link, or a program, may have besides one map with plain columns."""
CLOCKS = ("tie", "right ahead", "left ahead", "backwards")
CODES, GROUP_CODES = "123", "gh"
VALUES = ("1", "2", "3", "-")


@st.composite
def feature_sets(draw, allowed: Iterable[str] = FEATURES) -> frozenset[str]:
    """A few features that go together."""
    found = set(draw(st.lists(st.sampled_from(sorted(allowed)), max_size=6, unique=True)))
    if "lookup in key" in found:
        found.add("lookup")
        found.discard("self reference")
    if "some companies" in found:
        found.add("company")
    if "filter left" in found or "filter right" in found:
        found.discard("leaving deletes" if "detach" in found else "detach")
    else:
        found -= {"detach", "leaving deletes"}
    return frozenset(found)


@st.composite
def designs(draw, allowed: Iterable[str] = FEATURES) -> tuple[Design, frozenset[str]]:
    """A link with a few features."""
    has = draw(feature_sets(allowed))
    policies = ["left", "right", "newest", *(["max", "min"] if "max and min" in has else ())]
    policies += ["manual"] if "manual" in has else []
    pick = st.sampled_from(policies)
    lines = [Line("code", "=", "code"), Line("a", "=", "a", policy=draw(pick)), Line("b", "=", "b", policy=draw(pick))]
    lines += _special(draw, has)
    if "sum" in has:
        lines.append(Line("n", "=", "n", policy="sum"))
    if "lookup" in has:
        lines.append(Line("grp", "=", "family.code", policy=draw(pick)))
    if "self reference" in has:
        lines.append(Line("parent", "=", "parent.code", policy=draw(pick)))
    filters = {side: draw(_filters()) for side in Side if f"filter {side}" in has}
    if filters and draw(st.booleans()):
        lines.append(Line("kind", "=", "kind", policy=draw(pick)))
    company = ("company", "company.code") if "company" in has else None
    items = MapIdea(
        ITEMS,
        "item",
        "thing",
        tuple(lines),
        ("code", "family.code") if "lookup in key" in has else ("code",),
        company,
        filters,
        rows=draw(st.sampled_from(ROW_POLICIES)),
        deletes="no deletes" not in has,
        on_leave="delete" if "leaving deletes" in has else "detach",
    )
    groups = MapIdea(GROUPS, "grp", "family", (Line("code", "=", "code"), Line("a", "=", "a")), company=company)
    actions = {
        side: draw(st.sampled_from(("cascade", "set null", "restrict"))) for side in Side if f"{side} actions" in has
    }
    if "lookup in key" in has:  # without its group a record would have no key
        actions[R] = draw(st.sampled_from(("cascade", "restrict")))
    design = Design(
        (items, groups) if "lookup" in has else (items,),
        draw(st.sampled_from(CLOCKS)) if "clocks" in has else "true",
        actions if "lookup" in has or "self reference" in has else {},
        ("x", "y") if "some companies" in has else None,
        "b" if "trigger" in has else "",
    )
    return design, has


def _special(draw, has: frozenset[str]) -> list[Line]:
    """The columns c and d, which may be carried in special ways."""
    ways = [
        (name, line)
        for name, line in (
            ("to the right", Line("c", ">", "c")),
            ("to the left", Line("d", "<", "d")),
            ("constant", Line(None, ">", "c", default="7")),
            ("constant", Line("d", "<", None, default="8")),
            ("default", Line("c", "=", "c", default="3")),
            ("value map", Line("d", "=", "d", (("1", "one"), ("2", "two")), "park")),
            ("value map", Line("d", "=", "d", (("1", "2"), ("2", "1"), ("3", "3")))),
            ("value map", Line("c", ">", "c", (("1", "one"), ("2", "one")), "keep")),
        )
        if name in has
    ]
    chosen: dict[str, Line] = {}
    for _, line in draw(st.permutations(ways)):
        chosen.setdefault(line.left or line.right or "", line)
    return [chosen[name] for name in sorted(chosen)]


def _filters() -> st.SearchStrategy[Filter]:
    return st.builds(Filter, st.just("kind"), st.sampled_from("12"), st.booleans())


# -- programs ----------------------------------------------------------------------------------------------------------


@st.composite
def links(draw, allowed: Iterable[str] = FEATURES, most: int = 40) -> tuple[Design, frozenset[str], list[str]]:
    """A link and a program for it."""
    design, has = draw(designs(allowed))
    return design, has, draw(programs(design, has, most))


@st.composite
def programs(draw, design: Design, has: frozenset[str], most: int = 40) -> list[str]:
    """A program for a link: few records, so that edits meet; most of them are there and in step from the start."""
    codes = draw(st.sampled_from(("1", "1", "1", "12", "12", "123")))
    before = [draw(edits(design, has, codes, verb="insert")) for _ in codes] + draw(
        st.lists(edits(design, has, codes), max_size=2)
    )
    start = [f"start {draw(st.sampled_from(('left', 'right')))}", *draw(st.sampled_from((["drain"], ["drain"], [])))]
    length = draw(st.integers(4, most))
    return [*before, *start, *(draw(steps(design, has, codes)) for _ in range(length))]


@st.composite
def steps(draw, design: Design, has: frozenset[str], codes: str) -> str:
    """One line of a program."""
    kinds = ["edit"] * 12 + ["turn"] * 8 + ["drain", "drain", "ack", "restart", "crash", "at", "retry", "again"]
    kinds += ["resolve"] * (2 * ("manual" in has)) + ["block", "unblock"] * ("refusals" in has)
    kinds += ["clock"] * ("clocks" in has) + ["twin"] * (2 * ("twins" in has)) + ["stop", "start"] * ("stops" in has)
    kind = draw(st.sampled_from(kinds))
    side = draw(st.sampled_from("LR"))
    if kind == "edit":
        return draw(edits(design, has, codes))
    if kind == "turn":
        return f"{draw(st.sampled_from(('L>R', 'R>L')))} {draw(st.sampled_from((1, 2, 3, 99)))}"
    if kind == "crash":
        return f"crash {draw(st.sampled_from(POINTS))} {draw(st.sampled_from((1, 1, 2)))}"
    if kind == "at":
        return f"at {draw(st.sampled_from(POINTS))}: {draw(edits(design, has, codes))}"
    if kind == "twin":
        return draw(st.sampled_from(("twin", "twin L>R", "twin R>L")))
    if kind in ("resolve", "start"):
        return f"{kind} {draw(st.sampled_from(('left', 'right')))}"
    detail = {"block": f"{side} {draw(st.sampled_from(codes))}", "clock": f"{side} {draw(st.sampled_from((50, -50)))}"}
    return f"{kind} {detail[kind]}" if kind in detail else "drain" if kind == "again" else kind


@st.composite
def edits(draw, design: Design, has: frozenset[str], codes: str, verb: str = "") -> str:
    """A user's transaction on a side."""
    side = draw(st.sampled_from("LR"))
    count = draw(st.sampled_from((1, 1, 1, 1, 1, 2)))
    return f"{side} " + "; ".join(draw(statements(design, has, codes, side, verb)) for _ in range(count))


@st.composite
def statements(draw, design: Design, has: frozenset[str], codes: str, side: str, verb: str) -> str:
    """What a user does to one record."""
    group = "lookup" in has and draw(st.sampled_from((True, False, False)))
    verbs = ["update"] * 8 + ["insert"] * 3 + ["delete"] * 2 + ["rename"] * ("rename" in has)
    verb = verb or draw(st.sampled_from(verbs))
    target = draw(targets(has, codes, group))
    if verb == "delete":
        return f"delete {target}"
    if verb == "rename":
        return f"rename {target} {draw(targets(has, CODES, group))}"
    columns = ["a"] if group else ["a", "b", *_columns(design)]
    chosen = set(draw(st.lists(st.sampled_from(columns), min_size=verb == "update", max_size=3, unique=True)))
    chosen |= {"grp"} if verb == "insert" and "lookup in key" in has and not group else set()
    return " ".join([verb, target, *(f"{name}={draw(_values(design, name, side))}" for name in sorted(chosen))])


def _columns(design: Design) -> list[str]:
    named = {path for line in design.items.lines for path in (line.left, line.right) if path and "." not in path}
    found = sorted((named | {line.left or "" for line in design.items.lines}) - {"a", "b", "code", "", "company"})
    return [*found, *(["kind"] * (2 if design.items.filters else 0))]


def _values(design: Design, column: str, side: str) -> st.SearchStrategy[str]:
    line = next((line for line in design.items.lines if line.path(SIDES[side]) == column), None)
    if line is not None and line.values:
        return st.sampled_from((*(pair[side == "R"] for pair in line.values), *VALUES[2:]))
    return st.sampled_from((*GROUP_CODES, "-") if column == "grp" else (*CODES, "-") if column == "parent" else VALUES)


@st.composite
def targets(draw, has: frozenset[str], codes: str, group: bool) -> str:
    """A record: a group or an item, in a company."""
    code = draw(st.sampled_from(GROUP_CODES if group else codes))
    company = draw(st.sampled_from("xxxyz" if "some companies" in has else "xxxy")) if "company" in has else ""
    return f"{'g:' if group else ''}{code}{company}"
