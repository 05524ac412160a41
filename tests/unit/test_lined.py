"""Rows as lines of text: what goes in comes out, whatever is in the cells."""

from __future__ import annotations

from operator import add

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualwrite.lined import BadTextError, Lined, joined, parted, rows_of, text_of, text_of_columns
from dualwrite.model import ABSENT

AWKWARD = st.sampled_from(["", "\\", "\\N", "N", "\t", "\n", "\r", "\\t", "\b\f\v", "\\\\N", "é\u2028", "\\.", " "])
CELLS = st.none() | AWKWARD | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5)


@st.composite
def tables(draw: st.DrawFn) -> list[tuple[str | None, ...]]:
    """Some rows of one width."""
    width = draw(st.integers(1, 4))
    return draw(st.lists(st.tuples(*[CELLS] * width), min_size=1, max_size=6))


@given(rows=tables())
def test_rows_come_back_as_they_were(rows: list[tuple[str | None, ...]]) -> None:
    """Whatever is in the cells: the lines hold these rows and nothing else."""
    lines = text_of(rows)
    assert rows_of(lines.splitlines(keepends=True), len(rows[0])) == rows


@given(rows=tables())
def test_both_ways_to_make_lines_agree(rows: list[tuple[str | None, ...]]) -> None:
    """By rows or by columns, the lines are the same."""
    assert text_of(rows) == text_of_columns(list(zip(*rows, strict=True)))


@pytest.mark.parametrize("bad", ["a\0", "\0N", "\ud800"])
@pytest.mark.parametrize("other", ["x", None, "\\"])
def test_what_postgresql_cannot_hold_is_refused(bad: str, other: str | None) -> None:
    """A zero character and half of a character are refused, beside nulls as well."""
    with pytest.raises(BadTextError):
        text_of([("a", other), (other, bad)])


@pytest.mark.parametrize("other", ["x", None, "\\"])
def test_a_cell_that_is_not_known_is_refused(other: str | None) -> None:
    """What is to be left alone has no place in a line."""
    with pytest.raises(BadTextError):
        text_of([("a", other), (other, ABSENT)])


@given(rows=tables(), data=st.data())
def test_lines_are_the_rows_that_they_hold(rows: list[tuple[str | None, ...]], data: st.DataObject) -> None:
    """Looked at one by one, in parts or as a whole, joined or in pieces, they are the same rows."""
    width = len(rows[0])
    lined = Lined(text_of(rows).splitlines(keepends=True), width)
    at, count = data.draw(st.integers(0, len(rows) - 1)), data.draw(st.integers(1, width))
    assert (lined[at], lined[-1]) == (rows[at], rows[-1])
    assert list(lined[at:]) == rows[at:]
    assert list(joined(lined[:at], lined[at:])) == list(lined) == rows
    assert [row for piece in lined.pieces(2) for row in piece] == rows
    assert list(lined.beginning(count)) == [(*row[:count], *[ABSENT] * (width - count)) for row in rows]
    heads, rests = lined.parted(count)
    assert rows_of([head + b"\n" for head in heads], count) == [row[:count] for row in rows]
    assert [head + rest for head, rest in zip(heads, rests, strict=True)] == lined.lines
    assert not lined.fills(count - 1) or all(row[count - 1] for row in rows)


@given(rows=tables())
def test_lines_may_hold_some_cells_in_another_order(rows: list[tuple[str | None, ...]]) -> None:
    """Cells stand where they are said to, and what is not held is not known."""
    width = len(rows[0])
    lined = Lined(text_of(rows).splitlines(keepends=True), 2 * width, range(2 * width - 1, 0, -2))
    assert [row[::-2] for row in lined] == rows
    assert {cell for row in lined for cell in row[::2]} == {ABSENT}


@given(rows=tables())
def test_lines_that_are_made_when_they_are_wanted(rows: list[tuple[str | None, ...]]) -> None:
    """The rows are those that the lines become."""
    lines, width = text_of(rows).splitlines(keepends=True), len(rows[0])
    carried = Lined(lines, width, carry=lambda given: list(map(add, *parted(given, width - 1)))[::-1])
    assert list(carried) == rows[::-1]
    assert carried.text == b"".join(lines[::-1])
