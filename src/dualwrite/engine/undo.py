"""Taking a change back: its previous values, written as a user's change of the side where it was made.

So nothing is new to the flows: the undo is read from that side's feed, carried like every other change, merged or
contested with what others do at the same moment, and audited.  It is refused where something newer has come to the
same columns, which is looked for where all of it is known: in the audit, once everything has been carried, and in the
record itself, in the very statement that writes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from dualwrite.engine.as_user import blank, current_row, images_of, in_words, running_map, write_as_user
from dualwrite.engine.link import key_of, key_text
from dualwrite.engine.supervisor import Engine
from dualwrite.errors import Usage
from dualwrite.journal import Audited, Conflict, Images, Layout
from dualwrite.mapping.compile import CompiledMap
from dualwrite.mapping.units import Unit
from dualwrite.model import (
    ABSENT,
    Cell,
    Key,
    Position,
    Row,
    Side,
    Write,
    show_key,
    show_path,
)
from dualwrite.schema import View

SEE: Final = "see dualwrite log --key"
_WHOLE: Final = ("insert", "delete")


@dataclass(frozen=True, slots=True)
class Undone:
    """What was written, and where."""

    side: Side
    write: Write
    columns: Images

    @property
    def kind(self) -> str:
        """What it is to the record."""
        return "delete" if self.write.row is None else "insert" if self.write.expect is None else "update"


def undo(engine: Engine, id: str, who: str) -> Undone:
    """Take an applied change back.  Raises Usage where that cannot be done, with the reason."""
    line = _line(engine, id)
    compiled = running_map(engine, line.carrier.map)
    engine.drain()
    _refuse_parked(engine, compiled, line.new_key)
    side = line.side if line.source is None else line.side.other
    images = line.images(side)
    if images is None or line.what == "restored":
        raise Usage(f"there is nothing to take back in {id}: {line.what}", "name a change of a side's users")
    newer = [each for each in _since(engine, line) if _touches(each.images(side), each, line, images)]
    _refuse_newer(newer, f"to what {id} changed")
    undone = Undone(side, _reverse(engine, compiled, side, line, images), _turned(images))
    detail = {"key": key_text(line.key), "change": id, "side": str(side), "columns": in_words(undone.columns)}
    _write(engine, compiled, undone, "change undone", who, detail)
    return undone


def undo_conflict(engine: Engine, number: int, who: str) -> Undone:
    """Let the other value of a decided conflict count.  Raises Usage where that cannot be done, with the reason."""
    found = next(iter(engine.journal.conflicts({}, id=number)), None)
    if found is None:
        raise Usage(f"there is no conflict {number}", "see dualwrite conflicts list")
    if found.open:
        raise Usage(f"conflict {number} is not decided yet", "decide it: dualwrite conflicts resolve")
    if not found.winner:
        raise Usage(
            f"conflict {number} was dropped undecided, so nothing was written for it", "write the value by hand"
        )
    compiled = running_map(engine, found.map)
    engine.drain()
    if found.layout != Layout.of(compiled.views[found.side]):
        raise Usage(f"the map has other columns than when conflict {number} was found", "write the value by hand")
    key = key_of(found.key)
    _refuse_parked(engine, compiled, key)
    undone = _other_value(engine, compiled, found)
    _refuse_newer(_after(engine, compiled, found, key), f"since conflict {number}")
    detail = {"key": found.key, "conflict": number, "side": str(found.side), "columns": in_words(undone.columns)}
    _write(engine, compiled, undone, "conflict undone", who, detail)
    return undone


# -- what is to be taken back -----------------------------------------------------------------------------------------


def _line(engine: Engine, id: str) -> Audited:
    try:
        line = engine.journal.audits.one({}, id)
    except ValueError:
        line = None
    if line is None:
        raise Usage(f"there is no change {id} in the audit", "see dualwrite log --changes; old ones are let go")
    return line


def _refuse_parked(engine: Engine, compiled: CompiledMap, key: Key) -> None:
    for side, state in engine.link.sides.items():
        if (compiled.name, key) in state.parked:
            raise Usage(
                f"changes of {compiled.name} {show_key(key)} are parked at the {side} side",
                "retry or discard them first: dualwrite parked list",
            )


def _refuse_newer(newer: Sequence[Audited], where: str) -> None:
    if newer:
        told = "; ".join(f"{each.id} ({each.what}, {_when(each.at)})" for each in newer)
        raise Usage(f"something newer came {where}: {told}", "take that back first, the newest first")


# -- what has come since ----------------------------------------------------------------------------------------------


def _since(engine: Engine, line: Audited) -> Iterator[Audited]:
    """What was applied to the record behind a line, oldest first, whatever it was called."""
    found = engine.journal.audits.lines({}, map=line.carrier.map, key=line.new_key)
    for each in reversed(found):
        if each.order > line.order and line.new_key in (each.key, each.new_key):
            yield each


def _touches(newer: Images | None, each: Audited, line: Audited, images: Images) -> bool:
    """Has a newer line to do with what a line changed?"""
    if newer is None:
        return False
    return each.what in _WHOLE or line.what in _WHOLE or not newer.keys().isdisjoint(images)


def _after(engine: Engine, compiled: CompiledMap, found: Conflict, key: Key) -> list[Audited]:
    """What has come to the contested columns since, besides the two changes that met."""
    unit = next((each for each in compiled.units[found.side] if each.name == found.unit), None)
    columns = None if unit is None else {show_path(compiled.views[found.side].paths[i]) for i in unit.indexes}
    start = engine.journal.audits.before(found.side, found.number)
    newer = []
    for each in engine.journal.audits.lines({}, map=compiled.name, key=key):
        images = each.images(found.side)
        if each.order[0] <= start or images is None or _is_of(each.position, found):
            continue
        if columns is None or each.what in _WHOLE or not columns.isdisjoint(images):
            newer.append(each)
    return newer


def _is_of(position: Position | None, found: Conflict) -> bool:
    """Is it one of the two changes that met, or older than its side's?"""
    met = [each for each in (found.loser, found.beats) if each is not None]
    return position is not None and any(each.feed == position.feed and position <= each for each in met)


# -- what is to be written --------------------------------------------------------------------------------------------


def _reverse(engine: Engine, compiled: CompiledMap, side: Side, line: Audited, images: Images) -> Write:
    view = compiled.whole[side]
    places = {show_path(path): index for index, path in enumerate(view.paths)}
    if unknown := images.keys() - places.keys():
        raise Usage(f"map {compiled.name} has no column {', '.join(sorted(unknown))} any more", "write it by hand")
    old, new = (_row(view, places, {path: pair[end] for path, pair in images.items()}) for end in (0, 1))
    if line.what == "insert":
        if not compiled.deletes:
            raise Usage(
                f"map {compiled.name} carries no deletes: the record would stay on the other side", "delete it by hand"
            )
        return Write(view.natural_key(new), new, None)
    if line.what == "delete":
        _refuse_twin(engine, compiled, side, old)
        return Write(view.natural_key(old), None, old)
    key = tuple(
        member if new[index] is ABSENT else _value(new[index])
        for index, member in zip(view.key, line.natural, strict=True)
    )
    cells = _owned(compiled, side, [places[path] for path in images])
    return _update(engine, compiled, side, key, {index: (new[index], old[index]) for index in cells})


def _owned(compiled: CompiledMap, side: Side, cells: Sequence[int]) -> list[int]:
    """Of these cells those that this side's users may write, and that count."""
    theirs = compiled.owned_elsewhere(side)
    found = [index for index in cells if index in compiled.whole[side].written and index not in theirs]
    if not found:
        raise Usage(f"the {side} side cannot be given back these columns: it does not write them", SEE)
    return found


def _update(
    engine: Engine, compiled: CompiledMap, side: Side, key: Key, edits: Mapping[int, tuple[Cell, Cell]]
) -> Write:
    """A write of some cells of the record with a key, from what they must hold to what they shall; all parts of a
    lookup together."""
    view = compiled.whole[side]
    current = current_row(engine, compiled, side, key)
    expect, row = list(blank(view)), list(blank(view))
    for index, (now, then) in edits.items():
        if then is ABSENT:
            raise Usage(f"what {show_path(view.paths[index])} held before is not known", "write it by hand")
        if not _same(compiled, side, index, now, current[index]):
            held = f"{show_path(view.paths[index])} is {_shown(current[index])} now, not {_shown(now)}"
            raise Usage(f"something newer has happened: {held}", SEE)
        expect[index], row[index] = current[index], then
    for index in view.with_lookups(edits) - edits.keys():
        expect[index] = row[index] = current[index]
    return Write(key, tuple(expect), tuple(row))


def _other_value(engine: Engine, compiled: CompiledMap, found: Conflict) -> Undone:
    """The value that lost, or a record whose fate was decided otherwise."""
    side, view = found.side, compiled.whole[found.side]
    rows = {Side.LEFT: found.left, Side.RIGHT: found.right}
    winner = Side(found.winner)
    won, lost = rows[winner], rows[winner.other]
    if found.unit == "*":
        if lost is None:
            raise Usage(f"conflict {found.id} does not tell what was edited", "write it by hand")
        _refuse_twin(engine, compiled, side, lost)
        return Undone(side, Write(view.natural_key(lost), None, lost), images_of(view, None, lost))
    if found.unit == "row":
        if won is None or not compiled.deletes:
            raise Usage(f"map {compiled.name} carries no deletes", "delete the record by hand")
        key = view.natural_key(won)
        current = current_row(engine, compiled, side, key)
        return Undone(side, Write(key, current, None), images_of(view, current, None))
    unit = next((each for each in compiled.units[side] if each.name == found.unit), None)
    if unit is None or won is None or lost is None or len(lost) != len(unit.indexes):
        raise Usage(f"map {compiled.name} has no column {found.unit} any more", "write the value by hand")
    write = _update(engine, compiled, side, _natural(engine, compiled, found), _pairs(unit, won, lost))
    return Undone(side, write, {show_path(view.paths[i]): pair for i, pair in _pairs(unit, won, lost).items()})


def _pairs(unit: Unit, won: Row, lost: Row) -> dict[int, tuple[Cell, Cell]]:
    return {index: (now, then) for index, now, then in zip(unit.indexes, won, lost, strict=True)}


def _natural(engine: Engine, compiled: CompiledMap, found: Conflict) -> Key:
    """The record's key as its side has it: as the audit tells, else the journal's own spelling, mostly the same."""
    key = key_of(found.key)
    for each in engine.journal.audits.lines({}, map=compiled.name, key=key):
        if each.side is not found.side and each.source is not None:
            return each.natural
    return key


# -- writing ----------------------------------------------------------------------------------------------------------


def _write(
    engine: Engine, compiled: CompiledMap, undone: Undone, what: str, who: str, detail: Mapping[str, object]
) -> None:
    failed = "undo came to nothing"
    if reason := write_as_user(engine, compiled, undone.side, undone.write, what, failed, who, detail):
        raise Usage(f"it cannot be taken back: {reason}", SEE)


def _refuse_twin(engine: Engine, compiled: CompiledMap, side: Side, row: Row) -> None:
    """A record that came back by itself, on either side, is newer than its delete."""
    keys = {side: compiled.whole[side].natural_key(row), side.other: compiled.target_key(side, row)}
    for where, key in keys.items():
        if engine.connectors[where].fetch(compiled.views[where], [key]):
            raise Usage(f"the {where} side has a record {show_key(key)} again", SEE)


def _row(view: View, places: Mapping[str, int], cells: Mapping[str, Cell]) -> Row:
    row = list(blank(view))
    for path, cell in cells.items():
        row[places[path]] = cell
    return tuple(row)


def _value(cell: Cell) -> str | None:
    return None if cell is ABSENT else cell


def _same(compiled: CompiledMap, side: Side, index: int, one: Cell, other: Cell) -> bool:
    if one is ABSENT or other is ABSENT or one == other:
        return one == other
    return compiled.common(side, index, one) == compiled.common(side, index, other)


def _shown(cell: Cell) -> str:
    return "null" if cell is None else "not known" if cell is ABSENT else repr(cell)


def _turned(images: Images) -> Images:
    return {path: (new, old) for path, (old, new) in images.items()}


def _when(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")
