"""Comparing two tables: every record is found, whatever the order in which the rows come, and however few are kept."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest

from dualwrite.engine import compare as compare_module
from dualwrite.engine import same, spool
from dualwrite.engine.compare import Alone, Difference, Tally, compare
from dualwrite.engine.initial import AHEAD, ahead
from dualwrite.lined import Lined, text_of
from dualwrite.mapping.compile import CompiledMap, compile_map
from dualwrite.mapping.notation import read_map
from dualwrite.model import Position, Row, Side
from dualwrite.schema import Column, ColumnType, Schema, Table, TypeName

MAP = """
map: items
left: items
right: things
key: [code]
columns:
  - code = code
  - state >< state: {values: {open: o, held: h}}
"""


def compiled() -> CompiledMap:
    """A map between tables whose keys are unique."""
    columns = tuple(
        Column(name, ColumnType(TypeName.TEXT), nullable=nullable)
        for name, nullable in (("code", False), ("state", True))
    )
    sides = (Schema({name: Table(name, columns, ("code",), (("code",),))}) for name in ("items", "things"))
    return compile_map(read_map(MAP, ""), *sides)


@dataclass
class Rows:
    """A snapshot of these rows, a few in a block."""

    rows: Sequence[Row]
    lined: bool = False
    boundary = Position("feed", (1,))

    def blocks(self) -> Iterator[Sequence[Row]]:
        """Three rows at once."""
        for start in range(0, len(self.rows), 3):
            rows = self.rows[start : start + 3]
            yield Lined(text_of(rows).splitlines(keepends=True), len(rows[0])) if self.lined else list(rows)


@pytest.mark.parametrize(("kept", "characters"), [(0, 1_000), (4, 1_000), (1_000, 1_000), (1_000, 20)])
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("lined", [set[Side](), {Side.LEFT}, set(Side)], ids=["rows", "mixed", "lines"])
def test_every_record_is_compared_once(
    kept: int, characters: int, seed: int, lined: set[Side], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Equal, different, on one side only: as a comparison of two dictionaries says, of rows and of lines."""
    for each in (compare_module, same, spool):
        monkeypatch.setattr(each, "IN_MEMORY", kept)
        monkeypatch.setattr(each, "LARGEST", characters)
    monkeypatch.setattr(spool, "LARGEST_PART", characters)
    dice = random.Random(seed)
    lefts = {f"k{n}": dice.choice(["open", "held", None, "strange"]) for n in dice.sample(range(60), 40)}
    rights = {f"k{n}": dice.choice(["o", "h", None, "strange"]) for n in dice.sample(range(60), 40)}
    means = {"open": "o", "held": "h", None: None, "strange": "strange"}
    sides = {Side.LEFT: lefts, Side.RIGHT: rights}
    snapshots = {side: Rows(dice.sample(list(rows.items()), len(rows)), side in lined) for side, rows in sides.items()}
    tally, alone, different = Tally(), dict[Side, list[str]]({side: [] for side in Side}), list[str]()
    for finding in compare(compiled(), snapshots, None, tally):
        if isinstance(finding, Alone):
            alone[finding.side] += [row[0] for row in finding.rows]
        else:
            assert isinstance(finding, Difference)
            assert (finding.left, finding.right) == tuple(
                (finding.key[0], sides[side][finding.key[0]]) for side in Side
            )
            different.append(finding.key[0])
    both = lefts.keys() & rights.keys()
    assert sorted(alone[Side.LEFT]) == sorted(lefts.keys() - both)
    assert sorted(alone[Side.RIGHT]) == sorted(rights.keys() - both)
    assert sorted(different) == sorted(key for key in both if means[lefts[key]] != rights[key])
    assert tally.equal == len(both) - len(different)
    assert tally.companies[""]["unchanged"] == tally.equal
    assert [tally.companies[""][f"read {side}"] for side in Side] == [len(lefts), len(rights)]


def test_what_is_read_ahead_comes_in_order_and_ends() -> None:
    """All findings come, in their order; a reader that is let go stops, and its trouble is told."""
    findings = [Alone(Side.LEFT, [(str(n),)], [(str(n),)]) for n in range(3 * AHEAD)]
    assert list(ahead(iter(findings), AHEAD)) == findings
    taken = list[Alone]()

    def endless() -> Iterator[Alone]:
        while True:
            taken.append(findings[0])
            yield findings[0]

    reading = ahead(endless(), AHEAD)
    assert next(reading) is findings[0]
    reading.close()
    count = len(taken)
    assert count <= 2 * AHEAD + 3

    def broken() -> Iterator[Alone]:
        yield findings[0]
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError, match="gone"):
        list(ahead(broken(), AHEAD))
    assert len(taken) == count
