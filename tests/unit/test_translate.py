"""Changes become the same writes by the short way, cell by cell, as by the one that looks at whole units."""

from __future__ import annotations

from random import Random

import pytest

from dualwrite.engine.translate import Translation
from dualwrite.errors import RowProblem
from dualwrite.mapping.compile import CompiledMap, compile_map
from dualwrite.mapping.notation import read_map
from dualwrite.model import ABSENT, Cell, Change, Kind, Position, Side, Write
from dualwrite.schema import Column, ColumnType, Schema, Table, TypeName

TEXT, SHORT = ColumnType(TypeName.TEXT), ColumnType(TypeName.TEXT, length=3)
NAMES = ("code", "plain", "word", "short", "mine", "theirs", "both", "unmapped")
LEFT = Table(
    "items", (Column("code", TEXT, nullable=False), *(Column(n, TEXT) for n in NAMES[1:])), ("code",), (("code",),)
)
RIGHT = Table(
    "things",
    (
        Column("number", TEXT, nullable=False),
        *(Column(n, SHORT if n == "short" else TEXT) for n in (*NAMES[1:], "twice")),
    ),
    ("number",),
    (("number",),),
)
MAP = """
map: items
left: items
right: things
columns:
  - code = number
  - plain = plain
  - word >< word: {values: {no: false, yes: true}}
  - short > short: {truncate: true}
  - mine > mine
  - theirs < theirs
  - both = both
  - both > twice
"""
VALUES = ("", "a", "b", "abcd", "abce", "yes", "no", None, ABSENT)


@pytest.fixture
def compiled() -> CompiledMap:
    """A map with lines of every kind."""
    return compile_map(read_map(MAP, ""), Schema({"items": LEFT}), Schema({"things": RIGHT}))


def written(translation: Translation, change: Change) -> Write | str | None:
    """The write, or why there is none."""
    try:
        return translation.write(change)
    except RowProblem as problem:
        return problem.code


def test_both_ways_make_the_same_writes(compiled: CompiledMap, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random updates of random cells, with what cannot be carried, is not known, or makes no difference."""
    random, found = Random(1), set[str]()
    short, long = Translation(compiled, Side.LEFT), Translation(compiled, Side.LEFT)
    monkeypatch.setattr(long, "_alone", lambda _edited: None)
    width = len(compiled.views[Side.LEFT].paths)
    for _ in range(3000):
        before: list[Cell] = [random.choice(VALUES) for _ in range(width)]
        for index in compiled.views[Side.LEFT].key:
            before[index] = random.choice(("k1", "k2"))
        after = list(before)
        for _ in range(random.randint(1, 3)):
            index = random.randrange(width)
            after[index] = "k3" if index in compiled.views[Side.LEFT].key else random.choice(VALUES)
        change = Change("items", Kind.UPDATE, ("k",), tuple(before), tuple(after), 0.0, Position("feed", (1,)))
        one, other = written(short, change), written(long, change)
        found.add(str(isinstance(one, Write) and one.cells is not None))
        if isinstance(one, Write) and one.cells is not None:
            assert one.row is not None
            assert one.cells == tuple(index for index, cell in enumerate(one.row) if cell is not ABSENT)
            one = one._replace(cells=None)
        assert one == other
    assert found == {"True", "False"}
