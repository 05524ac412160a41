"""The queues of paused maps: what each side's users did to their records, in feed order.

A queued change is a fact: it stands in its side's feed, whatever becomes of any commit of ours.  So nothing here is
provisional; what is written a second time after a crash is told by its position.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    bindparam,
    delete,
    insert,
    literal,
    or_,
    select,
    tuple_,
    update,
)

from dualwrite.journal.database import Database
from dualwrite.journal.entries import change_from, change_text
from dualwrite.journal.layout import KeptChange, Layout, layout_from
from dualwrite.journal.tables import backlog, layout, setting, spelled
from dualwrite.journal.writer import put_settings
from dualwrite.model import Position, Side

_KEYS_AT_ONCE: Final = 400
_PASSED: Final = "passed"
_COLUMNS: Final = (
    "side",
    "map",
    "key",
    "new_key",
    "position",
    "seen",
    "change",
    "size",
    "layout",
    "ordinal",
    "total",
)


@dataclass(frozen=True, slots=True)
class Delayed:
    """A change that waits, or waited, in a paused map's queue.

    ``key`` is the text of its record's common-form key (None where it has no usable one), ``new_key`` that of the one
    which it gives the record.  ``seen`` is how far its side had received the other side's changes of the map.
    """

    change: KeptChange
    key: str | None
    new_key: str | None
    seen: Position | None
    number: int = 0
    size: int = 0

    @property
    def position(self) -> Position:
        """Its place in its side's feed."""
        return self.change.change.position


@dataclass(frozen=True, slots=True)
class Place:
    """Where a change stands in a queue and in its side's feed, and whose it is."""

    number: int
    position: Position
    key: str | None
    new_key: str | None


@dataclass(frozen=True, slots=True)
class Queued:
    """How much of a map waits in the queue of one side: changes, and their bytes in the journal."""

    changes: int = 0
    size: int = 0


class Backlogs:
    """The queues in a journal.  Each is written by the flow out of its side alone, in feed order."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def append(self, side: Side, map: str, entries: Sequence[Delayed], found: Layout) -> None:
        """Put changes behind those that are there; their rows are of that layout."""
        with self._database.writing() as connection:
            number = _layout_number(connection, found)
            last = connection.execute(_counted(side, map).order_by(backlog.c.row.desc())).first()
            ordinal, total = (0, 0) if last is None else (last.ordinal, last.total)
            rows = []
            for entry in entries:
                ordinal += 1
                text = change_text(entry.change.change)
                total += len(text)
                rows.append((side.value, spelled(map), *_values(entry), text, len(text), number, ordinal, total))
            self._database.insert_all(connection, backlog, _COLUMNS, rows)

    def last(self, side: Side, map: str) -> tuple[int, Position] | None:
        """Number and position of the last change; None where there is none."""
        found = select(backlog.c.row, backlog.c.position).where(*_lane(side, map))
        with self._database.reading() as connection:
            row = connection.execute(found.order_by(backlog.c.row.desc()).limit(1)).first()
        return None if row is None else (row.row, Position.parse(row.position))

    def count(self, side: Side, map: str) -> int:
        """How many changes there are, those included that do not wait any more."""
        with self._database.reading() as connection:
            return _queued(connection, side, map, 0).changes

    def read(self, side: Side, map: str, after: int, limit: int) -> list[Delayed]:
        """The changes behind a number, in order, at most so many."""
        return self._find(_whole().where(*_lane(side, map), backlog.c.row > after).order_by(backlog.c.row).limit(limit))

    def of(self, side: Side, map: str, keys: Iterable[str]) -> Iterator[Delayed]:
        """The changes of some records, those of each in order."""
        wanted = list(dict.fromkeys(keys))
        for start in range(0, len(wanted), _KEYS_AT_ONCE):
            some = wanted[start : start + _KEYS_AT_ONCE]
            either = or_(backlog.c.key.in_(some), backlog.c.new_key.in_(some))
            yield from self._find(_whole().where(*_lane(side, map), either).order_by(backlog.c.row))

    def places(self, side: Side, map: str, after: int, limit: int) -> list[Place]:
        """Where the changes behind a number are, in order, at most so many."""
        columns = (backlog.c.row, backlog.c.position, backlog.c.key, backlog.c.new_key)
        found = select(*columns).where(*_lane(side, map), backlog.c.row > after).order_by(backlog.c.row).limit(limit)
        with self._database.reading() as connection:
            return [
                Place(row, Position.parse(at), key, new) for row, at, key, new in connection.execute(found).tuples()
            ]

    def drop(self, side: Side, map: str, until: int | None = None) -> None:
        """Remove the changes up to a number; without one, the queue is gone."""
        numbers = () if until is None else (backlog.c.row <= until,)
        with self._database.writing() as connection:
            connection.execute(delete(backlog).where(*_lane(side, map), *numbers))
            if until is None:
                put_settings(connection, [(_passed(side, map), None)])

    def passed(self, side: Side, map: str) -> int:
        """The number up to which the changes do not wait any more."""
        with self._database.reading() as connection:
            text = connection.scalar(select(setting.c.value).where(setting.c.name == _passed(side, map)))
        return int(text or 0)

    def set_passed(self, side: Side, map: str, number: int) -> None:
        """The changes up to a number do not wait any more."""
        with self._database.writing() as connection:
            put_settings(connection, [(_passed(side, map), str(number))])

    def queued(self, map: str | None = None) -> dict[str, dict[Side, Queued]]:
        """Per map, and side whose users made them, how many changes wait; those of which none does are left out."""
        found: dict[str, dict[Side, Queued]] = {}
        with self._database.reading() as connection:
            for side, name in _lanes(connection) if map is None else [(side, map) for side in Side]:
                passed = connection.scalar(select(setting.c.value).where(setting.c.name == _passed(side, name)))
                queued = _queued(connection, side, name, int(passed or 0))
                if queued.changes:
                    found.setdefault(name, {})[side] = queued
        return found

    def maps(self) -> set[str]:
        """The maps of which anything is kept."""
        with self._database.reading() as connection:
            return {map for _, map in _lanes(connection)}

    def layouts(self, side: Side, map: str) -> set[Layout]:
        """Of what the rows of the changes are."""
        known = select(layout.c.text).where(layout.c.row.in_(select(backlog.c.layout).where(*_lane(side, map))))
        with self._database.reading() as connection:
            return {Layout.parse(text) for text in connection.scalars(known)}

    def rekey(self, entries: Sequence[Delayed]) -> None:
        """Note the keys by which the records of these changes are known now."""
        rows = [{"b_row": entry.number, "b_key": entry.key, "b_new": entry.new_key} for entry in entries]
        changed = update(backlog).where(backlog.c.row == bindparam("b_row"))
        if rows:
            with self._database.writing() as connection:
                connection.execute(changed.values(key=bindparam("b_key"), new_key=bindparam("b_new")), rows)

    def _find(self, wanted: Select[Any]) -> list[Delayed]:
        with self._database.reading() as connection:
            return [_delayed(row) for row in connection.execute(wanted).all()]


def _lane(side: Side, map: str) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return (backlog.c.side == side.value, backlog.c.map == map)


def _counted(side: Side, map: str) -> Select[tuple[int, int, int]]:
    return select(backlog.c.ordinal, backlog.c.total, backlog.c.size).where(*_lane(side, map)).limit(1)


def _queued(connection: Connection, side: Side, map: str, after: int) -> Queued:
    """What stands behind a number: the first and the last row tell."""
    counted = _counted(side, map).where(backlog.c.row > after)
    first = connection.execute(counted.order_by(backlog.c.row)).first()
    last = connection.execute(counted.order_by(backlog.c.row.desc())).first()
    if first is None or last is None:
        return Queued()
    return Queued(last.ordinal - first.ordinal + 1, last.total - first.total + first.size)


def _lanes(connection: Connection) -> Iterator[tuple[Side, str]]:
    """The sides and maps of which anything is kept, without reading all there is of them."""
    lane = tuple_(backlog.c.side, backlog.c.map)
    found = select(backlog.c.side, backlog.c.map).order_by(backlog.c.side, backlog.c.map).limit(1)
    row = connection.execute(found).first()
    while row is not None:
        yield Side(row.side), row.map
        row = connection.execute(found.where(lane > tuple_(literal(row.side), literal(row.map)))).first()


def _passed(side: Side, map: str) -> str:
    return f"{_PASSED}.{side}.{map}"


def _whole() -> Select[Any]:
    columns = (backlog.c[name] for name in ("key", "new_key", "seen", "size"))
    return select(backlog.c.row, backlog.c.change, layout.c.text, *columns).select_from(
        backlog.outerjoin(layout, backlog.c.layout == layout.c.row)
    )


def _layout_number(connection: Connection, found: Layout) -> int:
    known = select(layout.c.row).where(layout.c.text == str(found))
    number = connection.scalar(known)
    if number is None:
        connection.execute(insert(layout).values(text=str(found)))
        number = connection.scalar(known)
    assert number is not None
    return int(number)


def _values(entry: Delayed) -> tuple[str | None, ...]:
    key, new_key = (None if text is None else spelled(text) for text in (entry.key, entry.new_key))
    return key, new_key, str(entry.position), None if entry.seen is None else str(entry.seen)


def _delayed(row: Row[Any]) -> Delayed:
    number, text, layout_text, key, new_key, seen, size = row
    kept = KeptChange(change_from(text), layout_from(layout_text))
    return Delayed(kept, key, new_key, _position(seen), number, size)


@lru_cache(maxsize=256)
def _position(text: str | None) -> Position | None:
    return None if text is None else Position.parse(text)
