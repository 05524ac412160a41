"""Rows in COPY's text format: what goes in comes out, whatever is in the cells."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualwrite.connectors._pg_copy import lines_of, rows_of
from dualwrite.connectors._pg_values import BadTextError, copy_lines
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
    lines = lines_of(rows)
    assert rows_of([line + b"\n" for line in lines.split(b"\n")[:-1]], len(rows[0])) == rows


@given(rows=tables())
def test_both_ways_to_make_lines_agree(rows: list[tuple[str | None, ...]]) -> None:
    """By rows or by columns, the lines are the same."""
    assert lines_of(rows) == copy_lines(list(zip(*rows, strict=True)))


@pytest.mark.parametrize("bad", ["a\0", "\0N", "\ud800"])
@pytest.mark.parametrize("other", ["x", None, "\\"])
def test_what_postgresql_cannot_hold_is_refused(bad: str, other: str | None) -> None:
    """A zero character and half of a character are refused, beside nulls as well."""
    with pytest.raises(BadTextError):
        lines_of([("a", other), (other, bad)])


@pytest.mark.parametrize("other", ["x", None, "\\"])
def test_a_cell_that_is_not_known_is_refused(other: str | None) -> None:
    """What is to be left alone has no place in a line."""
    with pytest.raises(BadTextError):
        lines_of([("a", other), (other, ABSENT)])
