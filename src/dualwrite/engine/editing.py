"""Editing a parked record: another value, written as a user's change of the side that the parked change came from.

Nothing that is parked is altered.  The edit is read from that side's feed behind the parked changes; then all of them
are taken together, as they are whenever somebody corrects the record at its source.  So both sides agree by the
ordinary rules, and the audit knows of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dualwrite.canonical import CastError, canonical
from dualwrite.engine.as_user import current_row, images_of, in_words, running_map, write_as_user
from dualwrite.engine.link import key_of
from dualwrite.engine.supervisor import Engine
from dualwrite.errors import RowProblem, Usage
from dualwrite.journal import Images, Parked
from dualwrite.mapping.compile import CompiledMap
from dualwrite.model import ABSENT, Cell, Key, Row, Side, Write, show_key, show_path
from dualwrite.names import guess, match
from dualwrite.schema import Schema

SHOW = "see dualwrite parked show"


@dataclass(frozen=True, slots=True)
class Edited:
    """What was written where; ``is_free``: is the record parked no more?"""

    side: Side
    columns: Images
    is_free: bool


def edit(engine: Engine, entry: Parked, values: Mapping[str, str | None], who: str) -> Edited:
    """Write these values (by column) into the record at its source.

    Raises Usage where that cannot be done, with the reason; then nothing is written.
    """
    compiled, side = running_map(engine, entry.map), entry.side.other
    view = compiled.whole[side]
    key = _source_key(engine, compiled, entry, side)
    wanted = _cells(compiled, side, engine.connectors[side].schema(), values)
    current = current_row(engine, compiled, side, key)
    touched = view.with_lookups(wanted)
    expect = tuple([cell if index in touched else ABSENT for index, cell in enumerate(current)])
    row = tuple([wanted.get(index, cell) for index, cell in enumerate(expect)])
    columns = images_of(view, expect, row)  # all parts of a lookup are written together, and not all of them change
    if not columns:
        raise Usage(f"the {side} side's record {show_key(key)} holds these values already", SHOW)
    _refuse_hopeless(compiled, side, tuple([wanted.get(index, cell) for index, cell in enumerate(current)]))
    detail: dict[str, object] = {"key": entry.key, "side": str(side), "parked": entry.id, "columns": in_words(columns)}
    write = Write(key, expect, row)
    what, failed = "parked record edited", "edit came to nothing"
    if reason := write_as_user(engine, compiled, side, write, what, failed, who, detail):
        raise Usage(f"the {side} side did not take it: {reason}", SHOW)
    return Edited(side, columns, (entry.map, key_of(entry.key)) not in engine.link.sides[entry.side].parked)


def _refuse_hopeless(compiled: CompiledMap, side: Side, row: Row) -> None:
    """What the map cannot carry would be parked again."""
    try:
        compiled.map_row(side, row)
    except RowProblem as problem:
        raise Usage(f"it would be parked again: {problem.message}", "choose another value") from problem


def _source_key(engine: Engine, compiled: CompiledMap, entry: Parked, side: Side) -> Key:
    """The key of the record at its source, by its last waiting change."""
    waiting = engine.journal.queue(entry.side, entry.map, entry.key)
    row = waiting[-1].change.after if waiting else None
    if row is None:
        raise Usage(f"nothing can be edited: what waits under {entry.id} is a delete", SHOW)
    layout, view = waiting[-1].layout, compiled.views[side]
    row = row if layout is None else layout.row(row, view)
    if any(row[index] is ABSENT for index in view.key):
        raise Usage(f"the map has another key than when {entry.id} was parked", "correct the record at its source")
    return view.natural_key(row)


def _cells(compiled: CompiledMap, side: Side, schema: Schema, values: Mapping[str, str | None]) -> dict[int, Cell]:
    """The values by their places in the rows of the side's view, spelled as their columns' types have them.

    Not every system refuses what its column's type does not know.
    """
    view = compiled.whole[side]
    places = {show_path(path): index for index, path in enumerate(view.paths)}
    owned = compiled.owned_elsewhere(side)
    found: dict[int, Cell] = {}
    for name, value in values.items():
        column = match(name, places)
        if column is None:
            raise Usage(f"the {side} side of map {compiled.name} has no column {name!r}", guess(name, places))
        index = places[column]
        if index in view.key:
            raise Usage(f"{column} is a part of the key, by which the record is known", "change it at its source")
        if index in owned or index not in view.written:
            raise Usage(f"the {side} side does not write {column}", "edit a column that flows from this side")
        end = schema.resolve(view.table, view.paths[index])
        assert end is not None
        try:
            found[index] = None if value is None else canonical(end.type)(value)
        except CastError as error:
            raise Usage(f"{column}: {error.message}", f"the column is of the type {end.type}") from error
    return found
