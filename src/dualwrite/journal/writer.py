"""What is written to the journal, gathered first and then written in one transaction."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias, TypeVar, Unpack

from sqlalchemy import (
    ColumnElement,
    Connection,
    Insert,
    Row,
    Table,
    bindparam,
    delete,
    func,
    insert,
    literal,
    select,
    text,
    update,
)
from sqlalchemy.sql.elements import BindParameter

from dualwrite.journal.audit import Block
from dualwrite.journal.entries import Conflict, MapChanges, MapState, Notice, ParkedKey, change_text
from dualwrite.journal.layout import Layout
from dualwrite.journal.tables import (
    audit,
    backlog,
    closure,
    conflict,
    decision,
    event,
    kept,
    layout,
    map_state,
    metadata,
    notice,
    parked,
    queue,
    request,
    setting,
)
from dualwrite.model import Change, Position, Side, encode

Values: TypeAlias = dict[str, object]
Operation: TypeAlias = Callable[[Connection, list[Any]], None]
Item = TypeVar("Item")

ASKED_AT_ONCE: Final = 500
"""Keys that one statement asks for."""

_RECORD: Final = ("side", "map", "key")
_HEADER: Final = (*_RECORD, "shown_key", "code", "reason", "column", "waits_table", "waits_key")
_PARKED: Final = ("origin", *_HEADER, "attempts", "since", "number")
_IDENTITY: Final = ("map", "key", "unit", "loser", "beats")
_CELLS: Final = ("left", "right", "base")
_PLAIN: Final = ("shown_key", "winner", "policy", "at", "open")
_CONFLICT: Final = (*_IDENTITY, "side", *_CELLS, *_PLAIN, "number")


class Writer:
    """Gathers what is to be written; nothing reaches the journal before the whole of it does.

    ``number`` is what the target's commit will have (``Transaction.number``): parked changes and conflicts are written
    before that commit and count once it is done.  When it comes to nothing, ``settle`` with the number before it must
    come before anything is written under the same number again, in the same batch or earlier.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._work: list[tuple[Operation, list[Any]]] = []
        self._layouts: dict[Layout | None, None] = {}
        self.logged: list[tuple[str, Mapping[str, object]]] = []

    def __bool__(self) -> bool:
        return bool(self._work)

    def write(self, connection: Connection) -> None:
        """Do all of it, in order."""
        layouts = [{"b_text": str(found)} for found in self._layouts if found is not None]
        if layouts:
            connection.execute(_LAYOUT, layouts)
        for operation, rows in self._work:
            operation(connection, rows)

    def _add(self, operation: Operation, rows: Sequence[object]) -> None:
        if not rows:
            return
        if self._work and self._work[-1][0] is operation:
            self._work[-1][1].extend(rows)
        else:
            self._work.append((operation, list(rows)))

    def set_state(self, map: str, **changes: Unpack[MapChanges]) -> None:
        """Change what is wanted or known of a map; what is not named stays.  ``since`` follows the state."""
        values: Values = dict(changes)
        if "boundaries" in changes:
            values["boundaries"] = _positions_text(changes["boundaries"])
        self._add(_set_states, [(map, values, self._clock())])

    def log(self, what: str, *, map: str = "", who: str = "", detail: Mapping[str, object] | None = None) -> None:
        """Add a line to the activity log; the ``key`` of a detail is what ``events`` can be asked for."""
        text = json.dumps(dict(detail or {}), default=str)
        key = str((detail or {}).get("key", ""))
        row = {"at": self._clock(), "who": who, "map": map, "key": key, "what": what, "detail": text}
        self._add(_log, [row])
        self.logged.append((what, {"map": map, "who": who, **(detail or {})}))

    def park(self, record: ParkedKey, changes: Sequence[Change], number: int) -> None:
        """Park a record with these changes, or put them behind those that are parked already (whose reason stays)."""
        self._layouts[record.layout] = None
        self._add(_park, [(self._header(record, number), _queued(record, changes, number))])

    def requeue(self, record: ParkedKey, changes: Sequence[Change], number: int) -> None:
        """Put these changes in place of a parked record's queue after a retry that failed for this reason."""
        self._layouts[record.layout] = None
        self._add(_requeue, [(self._header(record, number), _queued(record, changes, number))])

    def unpark(self, side: Side, map: str, key: str, number: int) -> None:
        """Remove a parked record with its queue, because its changes were applied or are given up."""
        self._add(_unpark, [{"b_side": side.value, "b_map": map, "b_key": key, "b_number": number}])

    def notes(self, side: Side, notes: Mapping[tuple[str, str], str]) -> None:
        """What people must know of records (map, key) parked at a side besides their reason; of all others nothing."""
        rows = [
            {"b_side": side.value, "b_map": map, "b_key": key, "b_note": note} for (map, key), note in notes.items()
        ]
        self._add(_notes, [(side.value, rows)])

    def lay_out(self, map: str, layouts: Mapping[Side, Layout]) -> None:
        """Of what each side's rows of a map are, where an earlier program has kept them and did not say it."""
        self._layouts |= dict.fromkeys(layouts.values())
        self._add(_lay_out, [(map, side, str(found)) for side, found in layouts.items()])

    def conflict(self, entry: Conflict, number: int) -> None:
        """Record a conflict; the same one again changes nothing."""
        self._layouts[entry.layout] = None
        self._add(_conflicts, [_conflict_values(entry, number)])

    def close_conflict(self, id: int, winner: Literal["left", "right"], side: Side, number: int) -> None:
        """An open conflict was decided, and the decision is applied by this commit in ``side``."""
        self._add(_close, [{"b_conflict": id, "b_winner": winner, "b_side": side.value, "b_number": number}])

    def end_conflicts(self, map: str, key: str, side: Side, number: int) -> None:
        """By this commit in ``side`` nothing of a record waits for a decision any more: its open conflicts are closed,
        and nobody has won them."""
        self._add(_end_conflicts, [{"b_map": map, "b_key": key, "b_side": side.value, "b_number": number}])

    def decide(self, map: str, key: str, unit: str, winner: Side, covers: Mapping[Side, Position], who: str) -> None:
        """Record a person's decision.  Decisions are never changed or removed: the first that covers a pair holds."""
        values = {"map": map, "key": key, "unit": unit, "winner": winner.value, "covers": _positions_text(covers)}
        self._add(_decide, [{**values, "who": who, "at": self._clock()}])

    def keep_window(
        self, side: Side, changes: Iterable[tuple[str, str, Change]], layouts: Mapping[str, Layout] | None = None
    ) -> None:
        """Keep own changes of ``side`` (map, key, change) for as long as their record is parked at it; each once.

        ``layouts`` are those of the maps' rows.
        """
        known = layouts or {}
        rows = [_kept_values(side, map, key, change, known.get(map)) for map, key, change in changes]
        self._layouts |= dict.fromkeys(known.values())
        self._add(_keep, rows)

    def drop_windows(self, side: Side, map: str, key: str | None = None) -> None:
        """Drop what is kept for a record, or for a whole map.  To be written after the commit that made it useless."""
        self._add(_drop_windows, [(side.value, map, key)])

    def notify(self, message: Notice) -> None:
        """A message of an alert is to be sent."""
        names = ("at", "rule", "action", "message", "attempts", "due", "error")
        self._add(_notify, [{name: getattr(message, name) for name in names}])

    def delay_notice(self, id: int, due: float, error: str) -> None:
        """A message could not be sent, and is tried again at ``due``."""
        self._add(_delay_notices, [{"b_row": id, "b_due": due, "b_error": error}])

    def drop_notice(self, id: int) -> None:
        """A message was sent, or is given up."""
        self._add(_drop_notices, [{"b_row": id}])

    def put(self, name: str, value: str | None) -> None:
        """Set a named value; None removes it."""
        self._add(put_settings, [(name, value)])

    def answer(self, id: int, result: Mapping[str, object]) -> None:
        """Answer a request; only the first answer counts."""
        self._add(_answer, [{"b_row": id, "b_answer": json.dumps(dict(result), default=str)}])

    def audit(self, block: Block) -> None:
        """Keep what a commit has applied; again under the same number, it takes the place of the earlier one."""
        self._add(_audit, [block_values(block)])

    def settle(self, side: Side, committed: int) -> None:
        """Undo what was written for commits behind ``committed`` (they never happened); purge what is removed."""
        self._add(_settle, [(side.value, committed)])

    def part(self, side: Side) -> None:
        """The system of a side was replaced: what is parked there goes, and what is queued for paused maps; all else
        counts, whatever its commits were."""
        self._add(_part, [side.value])

    def _header(self, record: ParkedKey, number: int) -> Values:
        values: Values = {f"b_{name}": getattr(record, name) for name in _HEADER}
        values |= {"b_side": record.side.value, "b_origin": None, "b_number": number}
        return {**values, "b_attempts": 1, "b_since": self._clock(), "b_layout": _text(record.layout)}


def _given(table: Table, name: str) -> BindParameter[Any]:
    return bindparam(f"b_{name}", type_=table.c[name].type)


def _same(table: Table, names: Sequence[str]) -> list[ColumnElement[bool]]:
    return [table.c[name] == _given(table, name) for name in names]


def _numbered() -> ColumnElement[Any]:
    """The number of the layout with a text; null for None."""
    return (
        select(layout.c.row).where(layout.c.text == bindparam("b_layout", type_=layout.c.text.type)).scalar_subquery()
    )


def _insert_new(
    table: Table, names: Sequence[str], identity: Sequence[str], also: Mapping[str, ColumnElement[Any]] | None = None
) -> Insert:
    """Insert what is given unless a live row of that identity is there."""
    live = [table.c.gone.is_(None)] if "gone" in table.c else []
    there = select(table.c.row).where(*_same(table, identity), *live).exists()
    more = dict(also or {})
    values = [_given(table, name) for name in names]
    return insert(table).from_select([*names, *more], select(*values, *more.values()).where(~there))


_GONE: Final = [
    update(table)
    .where(*_same(table, _RECORD), table.c.gone.is_(None))
    .values(gone=bindparam("b_number", type_=table.c.gone.type))
    for table in (parked, queue)
]
_PARK: Final = _insert_new(parked, _PARKED, _RECORD, {"layout": _numbered()})
_QUEUE: Final = insert(queue).values(
    {name: _given(queue, name) for name in (*_RECORD, "change", "number")} | {"layout": _numbered()}
)
_LAYOUT: Final = _insert_new(layout, ("text",), ("text",))
_NOTE: Final = (
    update(parked).where(*_same(parked, _RECORD), parked.c.gone.is_(None)).values(note=_given(parked, "note"))
)
_GONE_WITH: Final = ("b_side", "b_map", "b_key", "b_number")
_FIRST_ROW: Final = (
    select(func.min(func.coalesce(conflict.c.origin, conflict.c.row)))
    .where(*_same(conflict, _IDENTITY))
    .scalar_subquery()
)
_ADD_CONFLICT: Final = _insert_new(
    conflict, _CONFLICT, (*_IDENTITY, "side"), {"origin": _FIRST_ROW, "layout": _numbered()}
)
_CLOSE: Final = _insert_new(closure, ("conflict", "winner", "side", "number"), ("conflict", "side"))
_CLOSED: Final = func.coalesce(conflict.c.origin, conflict.c.row)
_END: Final = insert(closure).from_select(
    ("conflict", "winner", "side", "number"),
    select(_CLOSED, literal(""), _given(closure, "side"), _given(closure, "number"))
    .where(*_same(conflict, ("map", "key")), conflict.c.open)
    .where(~select(closure.c.row).where(closure.c.conflict == _CLOSED).exists())
    .distinct(),
)
_KEEP: Final = _insert_new(kept, (*_RECORD, "position", "change"), (*_RECORD, "position"), {"layout": _numbered()})
_DROP_WINDOW: Final = delete(kept).where(*_same(kept, _RECORD))
_ANSWER: Final = (
    update(request)
    .where(request.c.row == _given(request, "row"), request.c.answer.is_(None))
    .values(answer=_given(request, "answer"))
)


def _log(connection: Connection, rows: list[Values]) -> None:
    connection.execute(insert(event), rows)


def _park(connection: Connection, rows: list[tuple[Values, list[Values]]]) -> None:
    connection.execute(_PARK, [header for header, _ in rows])
    changes = [change for _, queued in rows for change in queued]
    if changes:
        connection.execute(_QUEUE, changes)


def _notes(connection: Connection, rows: list[tuple[str, list[Values]]]) -> None:
    for side, notes in rows:
        connection.execute(update(parked).where(parked.c.side == side, parked.c.note != "").values(note=""))
        if notes:
            connection.execute(_NOTE, notes)


def _lay_out(connection: Connection, rows: list[tuple[str, Side, str]]) -> None:
    for map_name, side, spelled in rows:
        for table, where in ((parked, side.other), (queue, side.other), (kept, side)):
            unsaid = (table.c.side == where.value, table.c.map == map_name, table.c.layout.is_(None))
            connection.execute(update(table).where(*unsaid).values(layout=_numbered()), {"b_layout": spelled})


def _unpark(connection: Connection, rows: list[Values]) -> None:
    for statement in _GONE:
        connection.execute(statement, rows)


def chunked(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """Slices of at most ``size``."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _requeue(connection: Connection, rows: list[tuple[Values, list[Values]]]) -> None:
    for part in _distinct(rows):
        old = _live(connection, [header for header, _ in part])
        _unpark(connection, [{name: header[name] for name in _GONE_WITH} for header, _ in part])
        _park(connection, [(header | old.get(_identity(header), {}), queued) for header, queued in part])


def _distinct(rows: list[tuple[Values, list[Values]]]) -> Iterator[list[tuple[Values, list[Values]]]]:
    """The rows in order, in parts that name each record once."""
    part: dict[tuple[object, ...], tuple[Values, list[Values]]] = {}
    for row in rows:
        if len(part) == ASKED_AT_ONCE or _identity(row[0]) in part:
            yield list(part.values())
            part = {}
        part[_identity(row[0])] = row
    yield list(part.values())


def _identity(header: Values) -> tuple[object, ...]:
    return tuple(header[f"b_{name}"] for name in _RECORD)


def _live(connection: Connection, headers: Sequence[Values]) -> dict[tuple[object, ...], Values]:
    """What those of these records that are parked hand on when they are parked again."""
    keys: dict[tuple[object, object], list[object]] = {}
    for header in headers:
        side, map_name, key = _identity(header)
        keys.setdefault((side, map_name), []).append(key)
    found: dict[tuple[object, ...], Values] = {}
    for (side, map_name), some in keys.items():
        live = (parked.c.side == side, parked.c.map == map_name, parked.c.key.in_(some), parked.c.gone.is_(None))
        for row in connection.execute(select(parked).where(*live)):
            found[row.side, row.map, row.key] = _taken_over(row)
    return found


def _taken_over(old: Row[Any]) -> Values:
    origin = old.row if old.origin is None else old.origin
    return {"b_origin": origin, "b_attempts": old.attempts + 1, "b_since": old.since}


def _conflicts(connection: Connection, rows: list[Values]) -> None:
    connection.execute(_ADD_CONFLICT, rows)


def _close(connection: Connection, rows: list[Values]) -> None:
    connection.execute(_CLOSE, rows)


def _end_conflicts(connection: Connection, rows: list[Values]) -> None:
    connection.execute(_END, rows)


def _decide(connection: Connection, rows: list[Values]) -> None:
    connection.execute(insert(decision), rows)


def _keep(connection: Connection, rows: list[Values]) -> None:
    connection.execute(_KEEP, rows)


def _drop_windows(connection: Connection, rows: list[tuple[str, str, str | None]]) -> None:
    for side, map_name, key in rows:
        if key is None:
            connection.execute(delete(kept).where(kept.c.side == side, kept.c.map == map_name))
    records = [{"b_side": side, "b_map": name, "b_key": key} for side, name, key in rows if key is not None]
    if records:
        connection.execute(_DROP_WINDOW, records)


AUDIT: Final = (
    "INSERT INTO audit (side, number, at, changes, total, keys, lines) VALUES (:side, :number, :at, :changes, "
    'coalesce((SELECT total FROM audit ORDER BY "row" DESC LIMIT 1), 0) + :size, :keys, :lines) '
    "ON CONFLICT (side, number) DO UPDATE SET at = excluded.at, changes = excluded.changes, "
    "total = audit.total - length(audit.keys) - length(audit.lines) + :size, "
    "keys = excluded.keys, lines = excluded.lines"
)
"""Keeps a block, with the values of ``block_values``."""


def block_values(block: Block) -> Values:
    """The values of ``AUDIT``."""
    return {
        "side": block.side.value,
        "number": block.number,
        "at": block.at,
        "changes": block.changes,
        "size": len(block.keys) + len(block.lines),
        "keys": block.keys,
        "lines": block.lines,
    }


def _audit(connection: Connection, rows: list[Values]) -> None:
    for values in rows:
        connection.execute(text(AUDIT), values)


def _answer(connection: Connection, rows: list[Values]) -> None:
    connection.execute(_ANSWER, rows)


def _notify(connection: Connection, rows: list[Values]) -> None:
    connection.execute(insert(notice), rows)


def _delay_notices(connection: Connection, rows: list[Values]) -> None:
    values = {"due": _given(notice, "due"), "error": _given(notice, "error"), "attempts": notice.c.attempts + 1}
    connection.execute(update(notice).where(*_same(notice, ("row",))).values(values), rows)


def _drop_notices(connection: Connection, rows: list[Values]) -> None:
    connection.execute(delete(notice).where(*_same(notice, ("row",))), rows)


def put_settings(connection: Connection, rows: Sequence[tuple[str, str | None]]) -> None:
    """Set named values, where they are not the same already; None removes one."""
    for name, value in rows:
        here = setting.c.name == name
        if connection.execute(select(setting.c.value).where(here)).scalar() == value:
            continue
        connection.execute(delete(setting).where(here))
        if value is not None:
            connection.execute(insert(setting).values(name=name, value=value))


def _set_states(connection: Connection, rows: list[tuple[str, Values, float]]) -> None:
    for map_name, values, now in rows:
        here = map_state.c.map == map_name
        found = connection.execute(select(map_state).where(here)).mappings().first()
        old = _fresh_state(map_name, now) if found is None else {str(name): value for name, value in found.items()}
        changed = {name: values.get(name, old[name]) != old[name] for name in ("state", "desired")}
        times = {
            "since": now if changed["state"] else old["since"],
            "asked": now if changed["desired"] else old["asked"],
        }
        new = {**old, **values, **times}
        if found is None:
            connection.execute(insert(map_state).values(new))
        elif new != old:
            connection.execute(update(map_state).where(here).values(new))


def _fresh_state(map_name: str, now: float) -> Values:
    state = MapState(map_name)
    plain = ("map", "desired", "state", "reason", "master", "initial", "version", "publisher")
    values: Values = {name: getattr(state, name) for name in plain}
    return {**values, "boundaries": _positions_text(state.boundaries), "since": now, "asked": now}


def _settle(connection: Connection, rows: list[tuple[str, int]]) -> None:
    for side, committed in rows:
        for table in (parked, queue, conflict, closure, audit):
            connection.execute(delete(table).where(table.c.side == side, table.c.number > committed))
        for table in (parked, queue):
            connection.execute(delete(table).where(table.c.side == side, table.c.gone <= committed))
            connection.execute(update(table).where(table.c.side == side, table.c.gone > committed).values(gone=None))


def _part(connection: Connection, rows: list[str]) -> None:
    connection.execute(delete(backlog))
    for side in rows:
        for table in (parked, queue, kept):
            connection.execute(delete(table).where(table.c.side == side))
        for table in metadata.tables.values():
            if {"side", "number"} <= set(table.c.keys()):
                connection.execute(update(table).where(table.c.side == side).values(number=-table.c.row))


def _positions_text(positions: Mapping[Side, Position | None]) -> str:
    return json.dumps({side.value: None if at is None else str(at) for side, at in positions.items()})


def _queued(record: ParkedKey, changes: Sequence[Change], number: int) -> list[Values]:
    base: Values = {"b_side": record.side.value, "b_map": record.map, "b_key": record.key, "b_number": number}
    return [{**base, "b_change": change_text(change), "b_layout": _text(record.layout)} for change in changes]


def _text(found: Layout | None) -> str | None:
    return None if found is None else str(found)


def _kept_values(side: Side, map_name: str, key: str, change: Change, found: Layout | None) -> Values:
    return {
        "b_side": side.value,
        "b_map": map_name,
        "b_key": key,
        "b_position": str(change.position),
        "b_change": change_text(change),
        "b_layout": _text(found),
    }


def _conflict_values(entry: Conflict, number: int) -> Values:
    values: Values = {f"b_{name}": getattr(entry, name) for name in ("map", "key", "unit", *_PLAIN)}
    values |= {f"b_{name}": encode(getattr(entry, name)) for name in _CELLS}
    # No position is written as nothing: in a unique constraint nulls would all differ.
    positions = {"b_loser": entry.loser, "b_beats": entry.beats}
    values |= {name: "" if at is None else str(at) for name, at in positions.items()}
    return {**values, "b_side": entry.side.value, "b_number": number, "b_layout": _text(entry.layout)}
