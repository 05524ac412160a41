"""The control store of a link: map states and versions, activity log, parked changes, conflicts, decisions, requests.

Everything that is written goes through a ``Writer`` in one transaction; every method that writes is a batch of one.
What belongs to a commit in a target is *provisional* until that commit is done: listings take ``numbers``, the number
of our last commit in each side, and leave out what is behind it.  A side that ``numbers`` does not name is shown as
last written: so the engine itself looks, which alone writes such entries.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, Final, Literal, Unpack

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Double,
    LargeBinary,
    Row,
    ScalarSelect,
    Select,
    Table,
    and_,
    case,
    cast,
    delete,
    false,
    func,
    insert,
    or_,
    select,
    true,
    update,
)

from dualwrite.journal.audits import Audits
from dualwrite.journal.backlog import Backlogs
from dualwrite.journal.database import Database, locate
from dualwrite.journal.entries import (
    Conflict,
    Decision,
    Event,
    MapChanges,
    MapState,
    MapVersion,
    Notice,
    Parked,
    ParkedKey,
    Request,
    Tally,
    change_from,
)
from dualwrite.journal.layout import KeptChange, Layout, layout_from
from dualwrite.journal.syncs import Syncs
from dualwrite.journal.tables import (
    STEPS,
    Step,
    can_be,
    closure,
    conflict,
    decision,
    event,
    kept,
    layout,
    map_state,
    map_version,
    metadata,
    notice,
    parked,
    queue,
    request,
    setting,
)
from dualwrite.journal.writer import ASKED_AT_ONCE, Writer, chunked
from dualwrite.model import Change, Position, Side, decode

activity = logging.getLogger("dualwrite.activity")
"""Where every line of the activity log is logged as well."""
DAY: Final = 86_400.0
_ALL_COMMITS: Final = 1 << 62
_FAR: Final = 1e11  # seconds; what lies further away is no moment
NOW: Final[Mapping[Side, int]] = {}
"""The numbers under which everything is shown as last written."""


class Journal:
    """One link's control store; several threads and processes may use it at once.

    Raises Unavailable when its database is locked, full or unreachable, Denied when it refuses: never anything of the
    database's own.
    """

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock
        self.backlogs = Backlogs(database)
        self.syncs = Syncs(database, clock)
        self.audits = Audits(database, clock)
        self._empty_at: dict[str, int] = {}  # the journal's version at which a table had nothing for who looks there

    @classmethod
    def exists(cls, where: str | Path) -> bool:
        """Is there one in a project folder or in a file?  Opening creates it where not."""
        return Path(locate(where).database or "").is_file()

    @classmethod
    def open(
        cls,
        where: str | Path,
        *,
        wait: float = 10.0,
        clock: Callable[[], float] = time.time,
        steps: Sequence[Step] = STEPS,
    ) -> Journal:
        """Open, create or upgrade a journal: of a project folder, in a file, or at a URL.

        ``sqlite://`` is one in memory, gone when closed.  ``wait`` seconds are spent on a locked file.
        """
        database = Database(locate(where), wait)
        try:
            database.prepare(steps)
        except BaseException:
            database.close()
            raise
        return cls(database, clock)

    @property
    def name(self) -> str:
        """The file, or the URL without its password."""
        return self._database.name

    @property
    def home(self) -> str | None:
        """The folder that it is in, wherever links lead; None where it is no file."""
        return self._database.home

    def close(self) -> None:
        """Close the journal.  Idempotent."""
        self._database.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @contextmanager
    def batch(self) -> Iterator[Writer]:
        """Gather writes; at the end they are written in one transaction, after an exception not at all."""
        writer = Writer(self._clock)
        yield writer
        if writer:
            with self._database.writing() as connection:
                writer.write(connection)
            for what, about in writer.logged:
                activity.info(what, extra={"fields": about})

    # Maps

    def states(self) -> dict[str, MapState]:
        """The state of every map that has one."""
        with self._database.reading() as connection:
            rows = connection.execute(select(map_state).order_by(map_state.c.map)).all()
        return {row.map: _map_state(row) for row in rows}

    def set_state(self, map: str, **changes: Unpack[MapChanges]) -> None:
        """As ``Writer.set_state``."""
        with self.batch() as batch:
            batch.set_state(map, **changes)

    # Versions of maps

    def versions(self, map: str | None = None) -> list[MapVersion]:
        """The versions of maps, of one if given, in the order in which they were kept."""
        with self._database.reading() as connection:
            return _versions(connection, map)

    def keep_version(self, map: str, settle: Callable[[Sequence[MapVersion]], MapVersion]) -> MapVersion:
        """Keep what ``settle`` makes of a map's known versions, and return it; one that is known gets its new text.

        Nobody else writes between the look and the write.
        """
        with self._database.writing() as connection:
            kept = settle(_versions(connection, map))
            same = [map_version.c[name] == getattr(kept, name) for name in ("map", "version", "publisher")]
            if connection.execute(update(map_version).where(*same).values(text=kept.text)).rowcount == 0:
                values = {name: getattr(kept, name) for name in ("map", "version", "publisher", "text", "who")}
                connection.execute(insert(map_version).values(values | {"at": self._clock()}))
        return kept

    # Activity log

    def log(self, what: str, *, map: str = "", who: str = "", detail: Mapping[str, object] | None = None) -> None:
        """As ``Writer.log``."""
        with self.batch() as batch:
            batch.log(what, map=map, who=who, detail=detail)

    def events(
        self,
        map: str | None = None,
        limit: int | None = 100,
        key: str | None = None,
        *,
        since: float | None = None,
        who: str | None = None,
        kind: str | None = None,
    ) -> list[Event]:
        """The last events, newest first, as far as given of a map, a record, a person and a kind, and since a time."""
        found = select(event).where(*_equal(event, map=map, key=key, who=who))
        if since is not None:
            found = found.where(event.c.at >= since)
        with self._database.reading() as connection:
            rows = connection.execute(found.order_by(event.c.row.desc()))
            events = (Event(row.row, row.at, row.who, row.map, row.what, json.loads(row.detail)) for row in rows)
            return list(islice((each for each in events if kind in (None, each.kind)), limit))

    # Parked records

    def park(self, record: ParkedKey, changes: Sequence[Change], number: int) -> None:
        """As ``Writer.park``."""
        with self.batch() as batch:
            batch.park(record, changes, number)

    def requeue(self, record: ParkedKey, changes: Sequence[Change], number: int) -> None:
        """As ``Writer.requeue``."""
        with self.batch() as batch:
            batch.requeue(record, changes, number)

    def unpark(self, side: Side, map: str, key: str, number: int) -> None:
        """As ``Writer.unpark``."""
        with self.batch() as batch:
            batch.unpark(side, map, key, number)

    def queue(self, side: Side, map: str, key: str, numbers: Mapping[Side, int] = NOW) -> list[KeptChange]:
        """The changes of a parked record, in the order in which they are to be applied."""
        return self.queues(side, [(map, key)], numbers).get((map, key), [])

    def queues(
        self, side: Side, records: Iterable[tuple[str, str]], numbers: Mapping[Side, int] = NOW
    ) -> dict[tuple[str, str], list[KeptChange]]:
        """As ``queue``, of many records (map, key); one without changes is not named."""
        rows = self._of_records(_with_layout(queue, queue), queue, side, records, _counts(queue, numbers), queue.c.row)
        found: dict[tuple[str, str], list[KeptChange]] = {}
        for row in rows:
            kept = KeptChange(change_from(row.change), layout_from(row.layout_text))
            found.setdefault((row.map, row.key), []).append(kept)
        return found

    def _of_records(
        self,
        wanted: Select[Any],
        table: Table,
        side: Side,
        records: Iterable[tuple[str, str]],
        counts: ColumnElement[bool],
        order: ColumnElement[int],
    ) -> list[Row[Any]]:
        """The rows of records (map, key) at a side, those of each record in this order."""
        keys: dict[str, list[str]] = {}
        for map_name, key in records:
            keys.setdefault(map_name, []).append(key)
        rows: list[Row[Any]] = []
        with self._database.reading() as connection:
            for map_name, some in keys.items():
                for part in chunked(some, ASKED_AT_ONCE):
                    of_records = (*_equal(table, side=side.value, map=map_name), table.c.key.in_(part), counts)
                    rows += connection.execute(wanted.where(*of_records).order_by(order)).all()
        return rows

    def last_changes(self, side: Side) -> Iterator[tuple[str, str, KeptChange]]:
        """Map, key and last change of every record parked at a side that has changes, as last written.  Read as
        ``all_parked_keys``."""
        live = (queue.c.side == side.value, queue.c.gone.is_(None))
        last = select(func.max(queue.c.row)).where(*live).group_by(queue.c.map, queue.c.key)
        with self._database.reading() as connection:
            for row in _flowing(connection).execute(_with_layout(queue, queue).where(queue.c.row.in_(last))):
                yield row.map, row.key, KeptChange(change_from(row.change), layout_from(row.layout_text))

    def parked(
        self,
        numbers: Mapping[Side, int],
        map: str | None = None,
        side: Side | None = None,
        key: str | None = None,
        *,
        code: str | None = None,
        ids: Collection[int] | None = None,
    ) -> list[Parked]:
        """The parked records, of a map, a side, a key, a code and with these ids if given, in the order in which they
        were parked."""
        if ids is None:
            return list(self.each_parked(numbers, map, side, key, code=code))
        found = _parked_records(numbers).where(*_equal(parked, map=map, side=side, key=key, code=code))
        rows: list[Row[Any]] = []
        with self._database.reading() as connection:
            for some in chunked(sorted(filter(can_be, set(ids))), ASKED_AT_ONCE):
                rows += connection.execute(found.where(_with_ids(parked, some))).all()
        return sorted([_parked(row) for row in rows], key=lambda entry: entry.id)

    def each_parked(
        self,
        numbers: Mapping[Side, int],
        map: str | None = None,
        side: Side | None = None,
        key: str | None = None,
        *,
        code: str | None = None,
        column: str | None = None,
        shown_key: str | None = None,
        before: float | None = None,
        after: int | None = None,
        until: int | None = None,
    ) -> Iterator[Parked]:
        """As ``parked``, one after the other; also by the column at fault and the key as it is shown, those that were
        parked before a time, and with ids behind ``after`` and up to ``until``."""
        wanted = _equal(parked, map=map, side=side, key=key, code=code, column=column, shown_key=shown_key)
        if before is not None:
            wanted.append(parked.c.since < before)
        if after is not None:
            wanted.append(_id(parked) > after)
        if until is not None:
            wanted.append(_id(parked) <= until)
        with self._database.reading() as connection:
            chosen = select(parked.c.row).where(*wanted, _counts(parked, numbers)).order_by(_id(parked))
            rows = connection.execute(chosen).scalars().all()
        yield from (_parked(row) for row in self._each(_parked_records(numbers), parked, rows))

    def _each(self, wanted: Select[Any], table: Table, rows: Sequence[int]) -> Iterator[Row[Any]]:
        """Those of these rows that are still there, in their order.  No transaction stays open meanwhile: whoever takes
        them may be slow."""
        for some in chunked(rows, ASKED_AT_ONCE):
            with self._database.reading() as connection:
                found = {row.row: row for row in connection.execute(wanted.where(table.c.row.in_(some)))}
            yield from (found[row] for row in some if row in found)

    def parked_keys(self, side: Side, records: Iterable[tuple[str, str]]) -> list[ParkedKey]:
        """Those of these records (map, key) that are parked at a side, as last written."""
        live = parked.c.gone.is_(None)
        rows = self._of_records(_with_layout(parked, parked), parked, side, records, live, _id(parked))
        return [_parked_key(row) for row in rows]

    def all_parked_keys(self, side: Side) -> Iterator[ParkedKey]:
        """All records parked at a side, as last written, in the order in which they were parked.  There may be very
        many: nothing is written before they are read to their end."""
        wanted = _with_layout(parked, parked).where(parked.c.side == side.value, parked.c.gone.is_(None))
        with self._database.reading() as connection:
            for row in _flowing(connection).execute(wanted.order_by(_id(parked))):
                yield _parked_key(row)

    def parked_layouts(self, side: Side) -> dict[str, set[Layout]]:
        """Per map of which records are parked at a side, of what their rows are, as far as that was said."""
        return self._layouts(parked, side, parked.c.gone.is_(None))

    def _layouts(self, table: Table, side: Side, *which: ColumnElement[bool]) -> dict[str, set[Layout]]:
        found = select(table.c.map, layout.c.text).outerjoin(layout, table.c.layout == layout.c.row).distinct()
        layouts: dict[str, set[Layout]] = {}
        with self._database.reading() as connection:
            for name, text in connection.execute(found.where(table.c.side == side.value, *which)).tuples():
                known = layout_from(text)
                layouts.setdefault(name, set()).update(() if known is None else (known,))
        return layouts

    def tally(self, numbers: Mapping[Side, int]) -> dict[str, Tally]:
        """Per map with anything to count, how much of it is parked, waits in queues and is open."""
        with self._database.reading() as connection:
            records, changes = (
                dict(connection.execute(_count_by_map(table).where(_counts(table, numbers))).tuples().all())
                for table in (parked, queue)
            )
            undecided = select(conflict.c.map, func.count(_id(conflict).distinct())).group_by(conflict.c.map)
            conflicts = dict(connection.execute(undecided.where(*_open(numbers))).tuples().all())
        maps = sorted({*records, *changes, *conflicts})
        return {name: Tally(records.get(name, 0), changes.get(name, 0), conflicts.get(name, 0)) for name in maps}

    def settle(self, side: Side, committed: int) -> None:
        """As ``Writer.settle``; at the start, and whenever a commit in ``side`` has come to nothing."""
        with self.batch() as batch:
            batch.settle(side, committed)

    # Conflicts and decisions

    def conflict(self, entry: Conflict, number: int) -> None:
        """As ``Writer.conflict``."""
        with self.batch() as batch:
            batch.conflict(entry, number)

    def close_conflict(self, id: int, winner: Literal["left", "right"], side: Side, number: int) -> None:
        """As ``Writer.close_conflict``."""
        with self.batch() as batch:
            batch.close_conflict(id, winner, side, number)

    def conflicts(
        self,
        numbers: Mapping[Side, int],
        map: str | None = None,
        open_only: bool = False,
        key: str | None = None,
        *,
        id: int | None = None,
    ) -> list[Conflict]:
        """The conflicts, of a map, a record and with this id if given, each once, in the order in which they were
        found; a closed one has its winner, unless it was dropped undecided."""
        return list(self.each_conflict(numbers, map, open_only, key, id=id))

    def each_conflict(
        self,
        numbers: Mapping[Side, int],
        map: str | None = None,
        open_only: bool = False,
        key: str | None = None,
        *,
        id: int | None = None,
    ) -> Iterator[Conflict]:
        """As ``conflicts``, one after the other."""
        wanted = _equal(conflict, map=map, key=key)
        wanted += _open(numbers) if open_only else [_counts(conflict, numbers)]
        if id is not None:
            wanted.append(_with_ids(conflict, [id]) if can_be(id) else false())
        with self._database.reading() as connection:
            chosen = select(func.min(conflict.c.row)).where(*wanted).group_by(_id(conflict)).order_by(_id(conflict))
            rows = connection.execute(chosen).scalars().all()
        found = _with_layout(conflict, conflict, _decided(numbers).label("decided"))
        yield from (_conflict(row) for row in self._each(found, conflict, rows))

    def decide(self, map: str, key: str, unit: str, winner: Side, covers: Mapping[Side, Position], who: str) -> None:
        """As ``Writer.decide``."""
        with self.batch() as batch:
            batch.decide(map, key, unit, winner, covers, who)

    def decisions(self, map: str, key: str) -> dict[str, list[Decision]]:
        """What people decided about a record, per unit, first decision first."""
        units: dict[str, list[Decision]] = {}
        for entry in self._decisions(map, key):
            units.setdefault(entry.unit, []).append(entry)
        return units

    def all_decisions(self, map: str | None = None) -> list[Decision]:
        """Every decision, of a map if given, in the order in which they were made."""
        return self._decisions(map, None)

    def _decisions(self, map: str | None, key: str | None) -> list[Decision]:
        found = select(decision).where(*_equal(decision, map=map, key=key)).order_by(decision.c.row)
        with self._database.reading() as connection:
            rows = connection.execute(found).all()
        return [_decision(row) for row in rows]

    # Windows of parked records

    def keep_window(
        self, side: Side, changes: Iterable[tuple[str, str, Change]], layouts: Mapping[str, Layout] | None = None
    ) -> None:
        """As ``Writer.keep_window``."""
        with self.batch() as batch:
            batch.keep_window(side, changes, layouts)

    def kept_windows(self, side: Side, records: Iterable[tuple[str, str]]) -> list[tuple[str, str, KeptChange]]:
        """Map, key and change of what is kept for records (map, key) of a side, in feed order."""
        rows = self._of_records(_with_layout(kept, kept), kept, side, records, true(), kept.c.row)
        changes = [
            (row.map, row.key, KeptChange(change_from(row.change), layout_from(row.layout_text))) for row in rows
        ]
        places = [entry.change.position for _, _, entry in changes]
        feeds = {feed: order for order, feed in enumerate(dict.fromkeys(place.feed for place in places))}
        return sorted(changes, key=lambda e: (feeds[e[2].change.position.feed], e[2].change.position.place))

    def kept_layouts(self, side: Side) -> dict[str, set[Layout]]:
        """Per map of which anything is kept for a side, of what its rows are, as far as that was said."""
        return self._layouts(kept, side)

    def kept_keys(self, side: Side, map: str) -> list[str]:
        """The records of a map of which anything is kept for a side."""
        found = select(kept.c.key).where(*_equal(kept, side=side.value, map=map)).distinct().order_by(kept.c.key)
        with self._database.reading() as connection:
            return list(connection.scalars(found))

    def drop_windows(self, side: Side, map: str, key: str | None = None) -> None:
        """As ``Writer.drop_windows``."""
        with self.batch() as batch:
            batch.drop_windows(side, map, key)

    # Alerts

    def notices(self) -> list[Notice]:
        """The messages of alerts that are still to be sent, in the order in which they were written."""
        rows = self._looked_for(select(notice).order_by(notice.c.row), notice)
        return [
            Notice(row.at, row.rule, row.action, row.message, row.attempts, row.due, row.error, row.row) for row in rows
        ]

    def parked_since(self, at: float) -> list[tuple[str, str, float, int]]:
        """How much was parked since, and still is, by map, code and time: second by second, oldest first, for there may
        be very many."""
        by_second = (parked.c.map, parked.c.code, cast(parked.c.since, BigInteger))
        last = func.max(parked.c.since)
        found = select(parked.c.map, parked.c.code, last, func.count())
        found = found.where(parked.c.since > at, parked.c.gone.is_(None)).group_by(*by_second).order_by(last)
        with self._database.reading() as connection:
            return [(row[0], row[1], row[2], row[3]) for row in connection.execute(found)]

    # Requests to the running engine

    def request(self, command: str, arguments: Mapping[str, object]) -> int:
        """Ask something of the running engine; returns the id to wait for.  Purges those of more than a day ago."""
        now = self._clock()
        values = {"command": command, "arguments": json.dumps(dict(arguments), default=str), "at": now}
        with self._database.writing() as connection:
            connection.execute(delete(request).where(request.c.at < now - DAY))
            key = connection.execute(insert(request).values(values)).inserted_primary_key
        return int(key[0]) if key is not None else 0

    def pending_requests(self) -> list[Request]:
        """The requests of the last day that have no answer yet, oldest first."""
        recent = request.c.at >= self._clock() - DAY
        found = select(request).where(request.c.answer.is_(None), recent).order_by(request.c.row)
        rows = self._looked_for(found, request)
        return [Request(row.row, row.command, json.loads(row.arguments), row.at) for row in rows]

    def _looked_for(self, wanted: Select[Any], table: Table) -> Sequence[Row[Any]]:
        """The rows that are wanted of a table in which there seldom are any: it is not read again as long as nobody has
        written to the journal."""
        version = self._database.version()
        if version is not None and self._empty_at.get(table.name) == version:
            return ()
        with self._database.reading() as connection:
            rows = connection.execute(wanted).all()
        if not rows and version is not None:
            self._empty_at[table.name] = version
        return rows

    def answer(self, id: int, result: Mapping[str, object]) -> None:
        """As ``Writer.answer``."""
        with self.batch() as batch:
            batch.answer(id, result)

    def await_answer(self, id: int, timeout: float) -> Mapping[str, object] | None:
        """The answer to a request; None when it has not come in time (the request stays)."""
        deadline = time.monotonic() + timeout
        while True:
            with self._database.reading() as connection:
                text = connection.scalar(select(request.c.answer).where(request.c.row == id))
            if text is not None:
                answer: Mapping[str, object] = json.loads(text)
                return answer
            if time.monotonic() >= deadline:
                return None
            time.sleep(0.02)

    # Everything

    def dump(self) -> Iterator[tuple[str, Iterator[dict[str, object]]]]:
        """Every table by name with all its rows, for people: moments as ISO 8601 in UTC, what is JSON as such; without
        what is packed (see ``audits``)."""
        for table in metadata.sorted_tables:
            yield table.name, self._rows(table)

    def _rows(self, table: Table) -> Iterator[dict[str, object]]:
        told = [column for column in table.columns if not isinstance(column.type, LargeBinary)]
        with self._database.reading() as connection:
            for row in connection.execution_options(yield_per=1000).execute(select(*told)):
                yield {name: _told(table, name, value) for name, value in row._mapping.items()}

    # Named values

    def get(self, name: str) -> str | None:
        """A named value; None when it was never put."""
        with self._database.reading() as connection:
            return connection.scalar(select(setting.c.value).where(setting.c.name == name))

    def put(self, name: str, value: str | None) -> None:
        """As ``Writer.put``."""
        with self.batch() as batch:
            batch.put(name, value)


def _told(table: Table, name: str, value: object) -> object:
    """A cell of the journal for people."""
    if isinstance(table.c[name].type, Double) and isinstance(value, float):
        return datetime.fromtimestamp(value, UTC).isoformat(timespec="milliseconds") if abs(value) < _FAR else None
    if isinstance(value, str) and value[:1] in ("{", "["):
        with suppress(ValueError):
            return json.loads(value)
    return value


def _equal(table: Table, **wanted: str | None) -> list[ColumnElement[bool]]:
    return [table.c[name] == str(value) for name, value in wanted.items() if value is not None]


def _counts(table: Table, numbers: Mapping[Side, int]) -> ColumnElement[bool]:
    """The rows that count when that many of our commits are done in each side; as last written, where it is not said.

    Nothing that a database would look for by an index: what is wanted else is fewer.
    """
    left, right = (numbers.get(side, _ALL_COMMITS) for side in Side)
    committed = case((table.c.side == Side.LEFT.value, left), else_=right)
    is_there = or_(table.c.gone.is_(None), table.c.gone > committed) if "gone" in table.c else true()
    return and_(table.c.number <= committed, is_there)


def _id(table: Table) -> ColumnElement[int]:
    return func.coalesce(table.c.origin, table.c.row)


def _with_ids(table: Table, ids: Sequence[int]) -> ColumnElement[bool]:
    return or_(and_(table.c.row.in_(ids), table.c.origin.is_(None)), table.c.origin.in_(ids))


def _decided(numbers: Mapping[Side, int]) -> ScalarSelect[str]:
    """The side that won a conflict which was open; null while it is."""
    closed = (closure.c.conflict == _id(conflict), _counts(closure, numbers))
    return select(closure.c.winner).where(*closed).order_by(closure.c.row).limit(1).scalar_subquery()


def _open(numbers: Mapping[Side, int]) -> list[ColumnElement[bool]]:
    """The conflicts that wait for a person."""
    return [conflict.c.open, _counts(conflict, numbers), _decided(numbers).is_(None)]


def _parked_records(numbers: Mapping[Side, int]) -> Select[Any]:
    """Parked records, each with how many changes wait in its queue."""
    of_record = (queue.c[name] == parked.c[name] for name in ("side", "map", "key"))
    queued = select(func.count()).where(*of_record, _counts(queue, numbers)).scalar_subquery()
    return select(parked, queued.label("changes")).where(_counts(parked, numbers))


def _flowing(connection: Connection) -> Connection:
    """The same; what is asked for arrives by and by."""
    return connection.execution_options(yield_per=ASKED_AT_ONCE)


def _with_layout(table: Table, *wanted: ColumnElement[Any] | Table) -> Select[Any]:
    """What is wanted of a table, with the text of each row's layout."""
    return select(*wanted, layout.c.text.label("layout_text")).select_from(
        table.outerjoin(layout, table.c.layout == layout.c.row)
    )


def _count_by_map(table: Table) -> Select[tuple[str, int]]:
    return select(table.c.map, func.count()).group_by(table.c.map)


def _map_state(row: Row[Any]) -> MapState:
    boundaries = {Side(s): None if at is None else Position.parse(at) for s, at in json.loads(row.boundaries).items()}
    return MapState(
        row.map,
        row.desired,
        row.state,
        row.reason,
        row.master,
        row.initial,
        boundaries,
        row.since,
        row.version,
        row.publisher,
        row.asked,
    )


def _versions(connection: Connection, map: str | None) -> list[MapVersion]:
    found = select(map_version).where(*_equal(map_version, map=map)).order_by(map_version.c.row)
    return [
        MapVersion(row.map, row.version, row.publisher, row.text, row.at, row.who) for row in connection.execute(found)
    ]


def _parked_key(row: Row[Any]) -> ParkedKey:
    return ParkedKey(
        Side(row.side),
        row.map,
        row.key,
        row.shown_key,
        row.code,
        row.reason,
        row.column,
        row.waits_table,
        row.waits_key,
        layout_from(row.layout_text),
    )


def _parked(row: Row[Any]) -> Parked:
    return Parked(
        id=row.row if row.origin is None else row.origin,
        map=row.map,
        side=Side(row.side),
        key=row.key,
        shown_key=row.shown_key,
        code=row.code,
        reason=f"{row.reason}; {row.note}" if row.note else row.reason,
        column=row.column,
        attempts=row.attempts,
        since=row.since,
        changes=row.changes,
        waits_table=row.waits_table,
        waits_key=row.waits_key,
    )


def _conflict(row: Row[Any]) -> Conflict:
    return Conflict(
        map=row.map,
        side=Side(row.side),
        key=row.key,
        shown_key=row.shown_key,
        unit=row.unit,
        left=decode(row.left),
        right=decode(row.right),
        base=decode(row.base),
        winner=row.decided if row.open and row.decided else row.winner,
        policy=row.policy,
        at=row.at,
        loser=Position.parse(row.loser) if row.loser else None,
        beats=Position.parse(row.beats) if row.beats else None,
        open=row.open and row.decided is None,
        id=row.row if row.origin is None else row.origin,
        layout=layout_from(row.layout_text),
        number=row.number,
    )


def _decision(row: Row[Any]) -> Decision:
    covers = {Side(side): Position.parse(at) for side, at in json.loads(row.covers).items()}
    return Decision(row.row, row.map, row.key, row.unit, Side(row.winner), covers, row.who, row.at)
