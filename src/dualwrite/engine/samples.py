"""Some rows of a table, to look at what it holds: never more than a person would wait for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Final

from dualwrite.connectors.base import Connector
from dualwrite.errors import DualwriteError
from dualwrite.mapping.evidence import Read
from dualwrite.model import ABSENT, Row, Side, Value
from dualwrite.schema import Table, View

ROWS: Final = 1_000
"""Rows of a table that are read at most."""


def sampler(connectors: Mapping[Side, Connector], rows: int = ROWS) -> Read:
    """Reads the first rows of a table; none of one that cannot be read (``check`` says why, once it is in a map)."""

    def read(side: Side, table: Table) -> Sequence[Sequence[Value]]:
        view = View("sample", table.name, tuple((column.name,) for column in table.columns), key=())
        try:
            with connectors[side].snapshot(view, placed=False) as snapshot:
                return _first(snapshot.blocks(), rows)
        except DualwriteError:
            return []

    return read


def _first(blocks: Iterator[Sequence[Row]], count: int) -> list[list[Value]]:
    rows = islice(chain.from_iterable(blocks), count)
    return [[None if value is ABSENT else value for value in row] for row in rows]
