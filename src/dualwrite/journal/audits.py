"""The audit in the journal: blocks are appended, looked through, and let go when they are old (see ``audit``)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from itertools import islice
from typing import Final

from sqlalchemy import ColumnElement, Connection, Select, and_, delete, func, insert, or_, select

from dualwrite.journal.audit import Audited, Block, Carrier, Retention, lines_of, mentions, order_of, packed_number
from dualwrite.journal.database import Database
from dualwrite.journal.layout import Layout
from dualwrite.journal.tables import audit, can_be
from dualwrite.journal.tables import carrier as carriers
from dualwrite.journal.writer import AUDIT, block_values
from dualwrite.model import Key, Side

DAY: Final = 86_400.0
PRUNED: Final = 200
PRUNED_BYTES: Final = 1 << 23
"""Blocks, and about how many bytes, that go at once."""
_CARRIER: Final = ("map", "version", "publisher", "left", "right")


class Audits:
    """What was applied.  ``numbers`` as in ``Journal``: blocks of commits behind them do not count."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock

    def carrier(self, carrier: Carrier) -> int:
        """The number under which lines name it."""
        values = {name: str(getattr(carrier, name)) for name in _CARRIER}
        known = select(carriers.c.row).where(*(carriers.c[name] == value for name, value in values.items()))
        with self._database.writing() as connection:
            if connection.scalar(known) is None:
                connection.execute(insert(carriers).values(values))
            return int(connection.scalar(known) or 0)

    def append(self, block: Block) -> None:
        """As ``Writer.audit``, without waiting for the disk (see ``Database.append``)."""
        self._database.append(AUDIT, block_values(block))

    def lines(
        self,
        numbers: Mapping[Side, int],
        map: str | None = None,
        key: Key | None = None,
        *,
        since: float | None = None,
        limit: int | None = None,
    ) -> list[Audited]:
        """As ``each``, at once."""
        return list(islice(self.each(numbers, map, key, since=since), limit))

    def each(
        self,
        numbers: Mapping[Side, int],
        map: str | None = None,
        key: Key | None = None,
        *,
        since: float | None = None,
    ) -> Iterator[Audited]:
        """What was applied, newest first: of a map, of a record (and of what it was called before, or became), since a
        time, as far as given.  A block is unpacked when its turn comes."""
        wanted = select(audit.c.row).where(_counts(numbers)).order_by(audit.c.row.desc())
        if since is not None:
            wanted = wanted.where(audit.c.at >= since)
        with self._database.reading() as connection:
            of = _carriers(connection)
            lines = (
                line for id in _mentioning(connection, wanted, key) for line in reversed(_lines(connection, id, of))
            )
            yield from (line for line in lines if _is_wanted(line, map, key))

    def one(self, numbers: Mapping[Side, int], id: str) -> Audited | None:
        """The line with an id; None where it is not there (any more).  Raises ValueError for what is no id."""
        block, line = order_of(id)
        if not can_be(block):
            return None
        with self._database.reading() as connection:
            if connection.scalar(select(audit.c.row).where(audit.c.row == block, _counts(numbers))) is None:
                return None
            lines = _lines(connection, block, _carriers(connection))
        return lines[line - 1] if 0 < line <= len(lines) else None

    def before(self, side: Side, number: int) -> int:
        """The last block that was written up to a commit of ours in a side; 0 where there is none."""
        of_side = select(func.max(audit.c.row)).where(audit.c.side == side.value, audit.c.number <= number)
        with self._database.reading() as connection:
            return int(connection.scalar(of_side) or 0)

    def size(self) -> tuple[int, int]:
        """How many blocks there are, and about how many bytes they take."""
        with self._database.reading() as connection:
            return int(connection.scalar(select(func.count()).select_from(audit)) or 0), _held(connection)

    def prune(self, retention: Retention) -> bool:
        """Let some of what is kept for longer than it should be go, the oldest first; False where nothing was left."""
        oldest = select(audit.c.row, audit.c.at, audit.c.total).order_by(audit.c.row).limit(PRUNED)
        with self._database.reading() as connection:
            first = connection.execute(oldest).all()
            beyond = _held(connection) - retention.size
        age = self._clock() - retention.days * DAY
        start = first[0].total if first else 0
        few = [row for row in first if row.total - start <= PRUNED_BYTES]
        gone = [row.row for row in few if row.at < age or row.total - start < beyond]
        if not gone:
            return False
        with self._database.writing() as connection:
            connection.execute(delete(audit).where(audit.c.row.in_(gone)))
        return True


def _is_wanted(line: Audited, map: str | None, key: Key | None) -> bool:
    return map in (None, line.carrier.map) and (key is None or key in (line.key, line.new_key))


def _counts(numbers: Mapping[Side, int]) -> ColumnElement[bool]:
    """The blocks that count when that many of our commits are done in each side."""
    known = [and_(audit.c.side == side.value, audit.c.number <= number) for side, number in numbers.items()]
    return or_(*known, audit.c.side.not_in([side.value for side in numbers]))


def _carriers(connection: Connection) -> Callable[[int], Carrier]:
    def find(id: int) -> Carrier:
        row = connection.execute(select(carriers).where(carriers.c.row == id)).one()
        return Carrier(row.map, row.version, row.publisher, Layout.parse(row.left), Layout.parse(row.right))

    return cache(find)


def _mentioning(connection: Connection, wanted: Select[tuple[int]], key: Key | None) -> Iterator[int]:
    """The blocks that may be about a record."""
    if key is None:
        yield from connection.execute(wanted).scalars()
        return
    number = packed_number(key)
    for row, keys in connection.execute(wanted.add_columns(audit.c["keys"])):
        if mentions(keys, number):
            yield row


def _lines(connection: Connection, id: int, of: Callable[[int], Carrier]) -> list[Audited]:
    row = connection.execute(select(audit).where(audit.c.row == id)).one()
    values = row._mapping
    block = Block(Side(row.side), row.number, row.at, row.changes, values["keys"], values["lines"])
    return list(lines_of(id, block, of))


def _held(connection: Connection) -> int:
    """The bytes between the oldest block and the newest."""
    totals = select(audit.c.total).limit(1)
    last = connection.scalar(totals.order_by(audit.c.row.desc())) or 0
    return int(last) - int(connection.scalar(totals.order_by(audit.c.row)) or 0)
