"""Random links and random programs for them, drawn so that Hypothesis can shrink them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hypothesis import strategies as st

from .oracle import Line, MapIdea
from .oracle_world import COMPANIES, GROUPS, ITEMS, POINTS, Design

Draw = Callable[[st.SearchStrategy], object]
CODES = "123"
VALUES = ("1", "2", "3", "-")


@st.composite
def simple_designs(draw) -> Design:
    """One map, all columns both ways, any policies, any clock."""
    policies = ("left", "right", "newest", "max", "min")
    lines = [Line("code", "=", "code")]
    lines += [Line(name, "=", name, policy=draw(st.sampled_from((*policies, "newest")))) for name in "ab"]
    if draw(st.booleans()):
        lines.append(Line("n", "=", "n", policy="sum"))
    rows = draw(st.sampled_from(("keep", "delete", "left", "right", "newest")))
    idea = MapIdea(ITEMS, "item", "thing", tuple(lines), rows=rows)
    return Design((idea,), draw(st.sampled_from(("true", "tie", "right ahead", "left ahead", "backwards"))))


@st.composite
def programs(draw, design: Design, most: int = 40) -> list[str]:
    """A program for a link."""
    before = draw(st.lists(edits(design), max_size=4))
    master = draw(st.sampled_from(("left", "right")))
    return [*before, f"start {master}", *draw(st.lists(steps(design), min_size=1, max_size=most))]


@st.composite
def edits(draw, design: Design) -> str:
    """A user's transaction on a side."""
    side = draw(st.sampled_from("LR"))
    count = draw(st.sampled_from((1, 1, 1, 1, 2, 3)))
    return f"{side} " + "; ".join(draw(statements(design)) for _ in range(count))


@st.composite
def statements(draw, design: Design) -> str:
    """What a user does to one record."""
    verb = draw(st.sampled_from(("update",) * 6 + ("insert",) * 3 + ("delete",) * 2))
    target = draw(targets(design))
    if verb == "delete":
        return f"delete {target}"
    columns = [line.left for line in design.items.lines if line.left and line.left not in ("code", "company")]
    chosen = draw(st.lists(st.sampled_from(columns), min_size=verb == "update", max_size=3, unique=True))
    return " ".join([verb, target, *(f"{name}={draw(st.sampled_from(VALUES))}" for name in sorted(chosen))])


def targets(design: Design) -> st.SearchStrategy[str]:
    """A record of the items."""
    return st.sampled_from(CODES)


@st.composite
def steps(draw, design: Design) -> str:
    """One line of a program."""
    kind = draw(st.sampled_from(("edit",) * 10 + ("turn",) * 6 + ("drain", "ack", "restart", "crash", "at", "retry")))
    if kind == "edit":
        return draw(edits(design))
    if kind == "turn":
        return f"{draw(st.sampled_from(('L>R', 'R>L')))} {draw(st.sampled_from((1, 2, 3, 99)))}"
    if kind == "crash":
        return f"crash {draw(st.sampled_from(POINTS))} {draw(st.sampled_from((1, 1, 2)))}"
    if kind == "at":
        return f"at {draw(st.sampled_from(POINTS))}: {draw(edits(design))}"
    return kind
