"""Between what SQLite stores and canonical text."""

from __future__ import annotations

from itertools import product

import pytest

from dualwrite.connectors._sqlite_values import Source, pair_maker, row_maker
from dualwrite.schema import Column, ColumnType, TypeName

STORED = (None, 0, 1, 0.0, -0.0, 1.0, 1.5, 10**16, 1e16, "", "0", "1", "1.50", "a", b"", b"1")


@pytest.mark.parametrize("name", TypeName)
def test_the_images_of_an_update_are_spelled_as_each_alone(name: TypeName) -> None:
    """What is decoded once for both images never takes the spelling of an equal value of another kind."""
    column = Column("c", ColumnType(name, scale=2 if name is TypeName.NUMERIC else None))
    sources = (Source(1, column), None, Source(0, column), Source(0, column, flag=2))
    row, pair = row_maker(sources, 3), pair_maker(sources, 3)
    for old, new in product(STORED, STORED):
        images = [(old, new, 0), (new, new, 1)]
        assert list(pair(*images)) == row(images), images
