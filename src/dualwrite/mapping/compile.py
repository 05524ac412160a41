"""From a table map and two schemas to functions over tuples.

(interface; see the class for what each member promises)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from dualwrite.mapping.tablemap import TableMap
from dualwrite.model import Change, Key, Row, Side, Value
from dualwrite.schema import Schema, View


@dataclass(frozen=True, slots=True)
class Unit:
    """What changes, conflicts and resolves as a whole in a target: one column, or the own parts of one lookup.

    ``indexes`` point into the target view's rows.  ``owner`` is None for a two-way unit, else the only side whose
    value counts.  ``policy`` is one of POLICIES.  ``kind`` tells how values order and add: ``number``, ``text``.
    """

    name: str
    indexes: tuple[int, ...]
    owner: Side | None
    policy: str
    kind: str = "text"


@dataclass(frozen=True)
class CompiledMap:
    """A table map bound to two schemas; everything the engine needs, as pure functions and data.

    ``views``: the view of each side, named after the map.  ``units[target]``: the units of rows of that target that
    take part in the fold (two-way or one-way into or out of it).  ``carried[source]``: is anything carried from there?
    """

    table_map: TableMap
    views: Mapping[Side, View]
    units: Mapping[Side, tuple[Unit, ...]]
    rows: str  # policy for update against delete
    deletes: bool
    on_leave: str
    parents: frozenset[str]  # tables per side are in ``references``; names of maps that feed a table this map looks up
    cyclic: Mapping[Side, frozenset[str]]  # lookups (reference names) of that side that may be written in a second pass

    @property
    def name(self) -> str: ...

    def map_row(self, source: Side, row: Row) -> Row:
        """A source row as a row of the other side's view; ABSENT where nothing is carried there.  Raises RowProblem."""
        ...

    def key(self, side: Side, row: Row) -> Key:
        """The record's key in common form: equal for both sides' rows of one record.  Raises RowProblem."""
        ...

    def target_key(self, source: Side, row: Row) -> Key:
        """The key of the other side's record, in that side's natural form (order of its ``View.key``)."""
        ...

    def common(self, side: Side, index: int, value: Value) -> Value:
        """A cell of that side's rows in common form."""
        ...

    def passes(self, side: Side, row: Row) -> bool:
        """Does the row pass that side's filter and the company scope?"""
        ...
