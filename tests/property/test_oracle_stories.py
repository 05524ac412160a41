"""Stories that random programs have told: each once made the engine lose an edit, or let the two sides part.

They are written as programs for the oracle's world (see ``oracle_world``), and judged by it; in memory, where no other
kind of system told them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from dualwrite.model import Side

from .oracle import Filter, Line, MapIdea
from .oracle_sqlite import SqliteSystem
from .oracle_world import GROUPS, ITEMS, Design, Make, in_memory, run

COMPANY = ("company", "company.code")
STORIES: dict[str, Story] = {}


@dataclass(frozen=True)
class Story:
    """A link, what happens on it, and between which systems."""

    design: Design
    program: str
    make: Make = in_memory

    @property
    def lines(self) -> list[str]:
        """The program."""
        return [line.strip() for line in self.program.strip().split("\n")]


def story(
    name: str, program: str, *more: Line, a: str = "newest", b: str = "newest", groups: bool = False, **told: Any
) -> None:
    """Register a story; ``told`` are parts of the map of items, or of the link, and ``make`` the systems."""
    make = told.pop("make", in_memory)
    link = {key: told.pop(key) for key in ("clock", "actions", "companies", "trigger") if key in told}
    lines = (Line("code", "=", "code"), Line("a", "=", "a", policy=a), Line("b", "=", "b", policy=b), *more)
    items = MapIdea(ITEMS, "item", "thing", lines, **told)
    plain = (Line("code", "=", "code"), Line("a", "=", "a"))
    families = MapIdea(GROUPS, "grp", "family", plain, company=told.get("company"))
    STORIES[name] = Story(Design((items, families) if groups else (items,), **link), program, make)


# -- initial sync ------------------------------------------------------------------------------------------------------

story(
    "record inserted on the other side while its insert is on the way",
    """
    R insert 1x b=3
    at after read: L insert 1x
    start left
    R delete 1x
    """,
    company=COMPANY,
)
story(
    "counter raised while an initial sync sets it",
    """
    L insert 1 n=5
    R insert 1 n=3
    at after read: R update 1 n=4
    start left
    """,
    Line("n", "=", "n", policy="sum"),
)
story(
    "counter that comes to be what an initial sync sets",
    """
    L insert 1 n=5
    R insert 1 n=4
    at after read: R update 1 n=5
    start left
    """,
    Line("n", "=", "n", policy="sum"),
)
story(
    "difference parked by an initial sync, then the record deleted and kept",
    """
    L insert 1 parent=2
    R insert 1
    start left
    L update 1 a=3
    R delete 1
    """,
    Line("parent", "=", "parent.code"),
    rows="left",
)

story(
    "edit of a map whose initial sync has not begun, while another one's is taken up again",
    """
    at after acknowledge: R insert 1 b=1
    crash between passes
    crash after read 2
    R>L
    ack
    start left
    R update 1 b=-
    R>L
    """,
    Line("grp", "=", "family.code"),
    groups=True,
)

# -- windows and clocks ------------------------------------------------------------------------------------------------

story(
    "window of a parked record, in the journal and in the feed",
    """
    start right
    block L 1
    L insert 1 n=2
    L>R
    L update 1 n=1
    block R 1
    R delete 1
    R insert 1
    L>R
    R update 1 n=3
    R>L 1
    R update 1 a=2
    crash before journal 2
    drain
    """,
    Line("n", "=", "n", policy="sum"),
)
story(
    "clock set back between the two halves of a decision",
    """
    start right
    clock L -50
    L insert 1 a=1
    R insert 1 a=2
    R>L
    crash before commit
    L>R
    drain
    R update 1 a=-
    """,
    clock="backwards",
)

# -- records that one side does not tell about -------------------------------------------------------------------------

story(
    "record made anew holds what its one-way columns belong to",
    """
    start left
    L insert 1 c=2
    L delete 1
    L>R
    R update 1 a=3
    """,
    Line("c", ">", "c"),
    deletes=False,
)
story(
    "record deleted outside of the filter is made anew as it was left",
    """
    start right
    R insert 1 kind=2
    R>L
    R update 1 kind=3
    L update 1 kind=-
    L>R
    R delete 1
    L update 1 a=2
    """,
    Line("kind", "=", "kind"),
    filters={Side.RIGHT: Filter("kind", "1", negated=True)},
)
story(
    "record deleted, made again outside of the filter, and deleted there",
    """
    start left
    R insert 1 a=3
    L insert 1 kind=1
    R update 1 kind=3
    L update 1 b=3
    R>L 3
    R delete 1
    R insert 1
    drain
    R delete 1
    L update 1 a=-
    """,
    a="right",
    filters={Side.LEFT: Filter("kind", "1"), Side.RIGHT: Filter("kind", "2", negated=True)},
    deletes=False,
)
story(
    "rename of a record whose counterpart has left its filter under the new key",
    """
    L insert g:g
    start right
    R insert 1 grp=g
    R>L
    L update 1 grp=h kind=1
    R insert g:h
    R update 1 grp=h kind=3
    """,
    Line("kind", "=", "kind", policy="left"),
    Line("grp", "=", "family.code", policy="left"),
    groups=True,
    key=("code", "family.code"),
    filters={Side.LEFT: Filter("kind", "2")},
    actions={Side.RIGHT: "cascade"},
)

story(
    "hidden row under an earlier delete than the one that everybody knows",
    """
    crash between passes
    start right
    L insert 2
    ack
    L update 2 b=2
    R insert 2
    R delete 2
    L>R 3
    R insert 2 a=2; update 2 b=3
    R delete 2
    R>L
    L update 2 b=-
    """,
    a="left",
    b="left",
    rows="right",
    deletes=False,
)
story(
    "record deleted after the record that it refers to, and kept",
    """
    start right
    R insert g:g
    R insert 3 grp=g
    R>L
    R delete g:g
    R delete 3
    L update 3 d=1
    """,
    Line("d", "<", None, default="8"),
    Line("grp", "=", "family.code"),
    groups=True,
)

story(
    "record deleted by one side, and again outside of its filter, while the other one edits it",
    """
    R insert 1 kind=3
    start right
    R update 1 a=3
    L delete 1
    L insert 1
    L delete 1
    drain
    L insert 1 b=1
    """,
    Line("kind", "=", "kind"),
    rows="newest",
    filters={Side.LEFT: Filter("kind", "2", negated=True)},
)
story(
    "one-way column written before the edit that brings its record back",
    """
    R insert 2
    start left
    R update 2 c=1
    L delete 2
    R>L
    R update 2 a=2
    """,
    Line("c", ">", "c"),
    rows="newest",
)

story(
    "record brought back that refers to one that is not there",
    """
    R insert 1
    start right
    L update 1 parent=3
    R delete 1
    L>R 1
    L update 1 b=2
    L>R
    R>L
    R set 1 a=1
    """,
    Line("parent", "=", "parent.code", policy="right"),
    rows="newest",
)

story(
    "record made anew and deleted outside of its filter, on a side to which an edit of the old one comes",
    """
    start left
    L insert 1 n=3 kind=1
    drain
    R delete 1
    R insert 1 n=1 kind=1
    L update 1 n=4 a=2
    L update 1 kind=3
    L delete 1
    R update 1 kind=3
    R delete 1
    L>R 1
    R>L 99
    """,
    Line("n", "=", "n", policy="sum"),
    Line("kind", "=", "kind"),
    filters={side: Filter("kind", "3", negated=True) for side in Side},
)

# -- renames -----------------------------------------------------------------------------------------------------------

story(
    "record renamed there and back and deleted, where a trigger works on it",
    """
    start right
    L insert 1 grp=g
    L update 1 grp=h; update 1 grp=g
    at after read: L delete 1
    L>R 2
    R insert g:h
    """,
    Line("grp", "=", "family.code"),
    groups=True,
    key=("code", "family.code"),
    actions={Side.RIGHT: "cascade"},
    trigger="b",
)
story(
    "constants that are to be put back into a record with another key by then",
    """
    L insert 3 grp=g
    start right
    L insert g:g
    L insert g:h
    restart
    L>R
    R update 3 grp=h
    """,
    Line("d", "<", None, default="8"),
    Line("grp", "=", "family.code"),
    groups=True,
    key=("code", "family.code"),
    actions={Side.RIGHT: "restrict"},
)

# -- what the target does by itself, in the transaction that goes on -----------------------------------------------------

story(
    "edit of a record that a cascade took earlier in the same transaction",
    """
    start left
    L insert g:g
    L insert 1 grp=g
    L insert 2
    drain
    L rename 2 3; delete g:g
    L insert 2
    L update 1 a=2
    L>R 99
    """,
    Line("grp", "=", "family.code"),
    groups=True,
    actions={Side.RIGHT: "cascade"},
)
story(
    "reference set anew that the target cleared earlier in the same transaction",
    """
    start left
    L insert g:g
    L insert g:h
    L insert 1 grp=g
    L insert 2
    drain
    L rename 2 3; delete g:g
    L insert 2
    L update 1 grp=h
    L>R 99
    """,
    Line("grp", "=", "family.code"),
    groups=True,
    actions={Side.RIGHT: "set null"},
)
story(
    "group is deleted that the target cannot let go of, as its references share the company",
    """
    R insert g:hx
    R insert 2x grp=h
    start right
    R delete g:hx
    """,
    Line("grp", "=", "family.code"),
    groups=True,
    actions={Side.LEFT: "set null"},
    company=COMPANY,
)

# -- records that we delete or rename while those that refer to them have changed ------------------------------------------

for systems in (in_memory, SqliteSystem):
    for what, ours, theirs in (
        ("record deleted, then its parent by us, before the delete is read", "delete g:g", "delete 1"),
        ("record edited, then its parent renamed by us, before the edit is read", "rename g:g g:h", "update 1 a=3"),
    ):
        story(
            f"{what}: {systems.__name__}",
            f"""
            start left
            L insert g:g
            L insert 1 grp=g
            drain
            L {ours}
            R {theirs}
            L>R
            R>L
            """,
            Line("grp", "=", "family.code"),
            groups=True,
            key=("code", "family.code"),
            actions={Side.RIGHT: "restrict"},
            make=systems,
        )

# -- bad values --------------------------------------------------------------------------------------------------------

story(
    "value that cannot be carried in a record that is deleted again",
    """
    R insert 1 d=3
    start left
    R delete 1
    R insert 3
    R rename 3 1
    """,
    Line("d", "=", "d", (("1", "one"), ("2", "two")), "park"),
)


@pytest.mark.parametrize("name", STORIES)
def test_story(name: str) -> None:
    """Both sides agree in the end, and nothing is lost."""
    told = STORIES[name]
    assert run(told.design, told.lines, told.make) == []
