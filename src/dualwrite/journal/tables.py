"""The journal's tables, their number, and the steps that lift an older journal to it.

What is provisional carries ``number``, the commit of ours in ``side`` with which it begins to count, and ``gone``, the
commit with which it ceases to.  Rows of one entry share an id: the row number of the first, kept in ``origin`` by the
later ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

from sqlalchemy import (
    DDL,
    BigInteger,
    Boolean,
    Column,
    Connection,
    Dialect,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
)
from sqlalchemy.event import listen
from sqlalchemy.schema import SchemaItem

Step: TypeAlias = Callable[[Connection], None]

FIRST: Final = 1


class Words(TypeDecorator[str]):
    """Text that every database takes: what is not proper Unicode is written as an escape."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002 - SQLAlchemy's
        """What is sent for ``value``."""
        return None if value is None else spelled(value)


def spelled(value: str) -> str:
    """A text as every database takes it."""
    if value.isprintable():
        return value
    return value.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\u0000")


Counter = BigInteger().with_variant(Integer, "sqlite")
metadata = MetaData()


def _table(name: str, *parts: SchemaItem) -> Table:
    return Table(name, metadata, *parts, sqlite_autoincrement=True)


def _partial_index(index: str, table: Table, columns: str, rows: str) -> None:
    """An index of some rows, made with its table.  As text, because ``Index`` loads each dialect that is named."""
    made = DDL(f"CREATE {index} ON {table.name} ({columns}) WHERE {rows}")  # type: ignore[no-untyped-call]
    listen(table, "after_create", made)


def can_be(id: int) -> bool:
    """Can a row have this number?  Databases refuse to look for others."""
    return 0 < id < 1 << 63


def _row() -> Column[int]:
    return Column("row", Counter, primary_key=True, autoincrement=True)


def _word(name: str, optional: bool = False) -> Column[str]:
    return Column(name, Words, nullable=optional)


def _count(name: str, optional: bool = False) -> Column[int]:
    return Column(name, BigInteger, nullable=optional)


def _time(name: str) -> Column[float]:
    return Column(name, Double, nullable=False)


def _queue_columns() -> list[Column[Any]]:
    return [
        *map(_word, ("side", "map")),
        *(_word(name, optional=True) for name in ("key", "new_key")),
        _word("position"),
        _word("seen", optional=True),
        _word("change"),
        _count("size"),
        _count("layout", optional=True),
    ]


journal = Table("journal", metadata, Column("number", Integer, primary_key=True, autoincrement=False))

map_state = Table(
    "map_state",
    metadata,
    Column("map", Words, primary_key=True),
    *map(_word, ("desired", "state", "reason", "initial", "boundaries")),
    _word("master", optional=True),
    _time("since"),
    *(Column(name, Words, nullable=False, server_default="") for name in ("version", "publisher")),
    Column("asked", Double, nullable=False, server_default="0"),
)

map_version = _table(
    "map_version",
    _row(),
    *map(_word, ("map", "version", "publisher", "text", "who")),
    _time("at"),
    UniqueConstraint("map", "version", "publisher"),
)

setting = Table("setting", metadata, Column("name", Words, primary_key=True), _word("value"))

# Of what the rows of kept changes are: many changes, of one map or of several, share a layout.
layout = _table("layout", _row(), _word("text"), UniqueConstraint("text"))

event = _table(
    "event",
    _row(),
    _time("at"),
    *map(_word, ("who", "map", "key", "what", "detail")),
    Index("event_map", "map"),
    Index("event_key", "key"),
)

parked = _table(
    "parked",
    _row(),
    _count("origin", optional=True),
    *map(_word, ("side", "map", "key", "shown_key", "code", "reason", "column", "waits_table", "waits_key")),
    _count("attempts"),
    _time("since"),
    _count("number"),
    _count("gone", optional=True),
    _count("layout", optional=True),
    Column("note", Words, nullable=False, server_default=""),
)
# A record is parked once; what a commit is about to remove, or has removed, stands beside it until it is settled.
_partial_index("UNIQUE INDEX parked_live", parked, "side, map, key", "gone IS NULL")
Index("parked_number", parked.c.side, parked.c.number)
Index("parked_gone", parked.c.side, parked.c.gone)
# By its id a record that was parked again is found by the row of the first time.
_partial_index("INDEX parked_again", parked, "origin", "origin IS NOT NULL")

queue = _table(
    "queue",
    _row(),
    *map(_word, ("side", "map", "key", "change")),
    _count("number"),
    _count("gone", optional=True),
    _count("layout", optional=True),
    Index("queue_record", "side", "map", "key"),
    Index("queue_number", "side", "number"),
    Index("queue_gone", "side", "gone"),
)

conflict = _table(
    "conflict",
    _row(),
    _count("origin", optional=True),
    *map(_word, ("map", "side", "key", "shown_key", "unit")),
    *(_word(name, optional=True) for name in ("left", "right", "base")),
    *map(_word, ("winner", "policy")),
    _time("at"),
    *map(_word, ("loser", "beats")),
    Column("open", Boolean, nullable=False),
    _count("number"),
    _count("layout", optional=True),
    # Both flows may find the same conflict, each under a commit of its own that may come to nothing: one row for each.
    UniqueConstraint("map", "key", "unit", "loser", "beats", "side"),
    Index("conflict_number", "side", "number"),
)
# By its id a conflict of which only the other flow's row is left is found.
_partial_index("INDEX conflict_again", conflict, "origin", "origin IS NOT NULL")

closure = _table(
    "closure",
    _row(),
    _count("conflict"),
    *map(_word, ("side", "winner")),
    _count("number"),
    UniqueConstraint("conflict", "side"),
    Index("closure_number", "side", "number"),
)

decision = _table(
    "decision",
    _row(),
    *map(_word, ("map", "key", "unit", "winner", "covers", "who")),
    _time("at"),
    Index("decision_record", "map", "key"),
)

kept = _table(
    "kept",
    _row(),
    *map(_word, ("side", "map", "key", "position", "change")),
    _count("layout", optional=True),
    UniqueConstraint("side", "map", "key", "position"),
)

# What a side's users did to the records of a map that is paused, in feed order: nothing of it is provisional.
# ``ordinal`` and ``total`` count the changes of a map and side, and their bytes, so that the difference of two rows
# tells how many lie between them.
backlog = _table(
    "backlog",
    _row(),
    *_queue_columns(),
    *(Column(name, BigInteger, nullable=False, server_default="0") for name in ("ordinal", "total")),
    Index("backlog_lane", "side", "map", "row", "layout"),
    Index("backlog_key", "side", "map", "key"),
)
_partial_index("INDEX backlog_renamed", backlog, "side, map, new_key", "new_key IS NOT NULL")

# With which version of which map, and of what rows, the changes in the audit were carried.
carrier = _table(
    "carrier",
    _row(),
    *map(_word, ("map", "version", "publisher", "left", "right")),
    UniqueConstraint("map", "version", "publisher", "left", "right"),
)

# What each commit of ours applied, packed.  ``total`` counts all bytes written so far, so that the difference of two
# rows tells how many lie between them; ``keys`` stands before ``lines`` so that those need not be read to look at it.
audit = _table(
    "audit",
    _row(),
    _word("side"),
    _count("number"),
    _time("at"),
    _count("changes"),
    _count("total"),
    *(Column(name, LargeBinary, nullable=False) for name in ("keys", "lines")),
    UniqueConstraint("side", "number"),
)

request = _table(
    "request",
    _row(),
    *map(_word, ("command", "arguments")),
    _word("answer", optional=True),
    _time("at"),
    Index("request_at", "at"),
)

sync = _table(
    "sync",
    _row(),
    *map(_word, ("map", "why", "master", "companies", "outcome", "reason", "counts", "progress")),
    *map(_time, ("started", "ended")),
    _count("resumed"),
    Index("sync_map", "map"),
)


# Messages of alerts that are still to be sent.
notice = _table(
    "notice",
    _row(),
    _time("at"),
    *map(_word, ("rule", "action", "message", "error")),
    _count("attempts"),
    _time("due"),
)


def _keep_versions(connection: Connection) -> None:
    """Number 2: the versions of maps, and the one that each map was last taken up with."""
    for name in ("version", "publisher"):
        connection.execute(text(f"ALTER TABLE map_state ADD COLUMN {name} TEXT DEFAULT '' NOT NULL"))
    words = map(_word, ("map", "version", "publisher", "text", "who"))
    unique = UniqueConstraint("map", "version", "publisher")
    Table("map_version", MetaData(), _row(), *words, _time("at"), unique, sqlite_autoincrement=True).create(connection)


def _keep_layouts(connection: Connection) -> None:
    """Number 3: of what the rows of kept changes are.  Where an older program has kept them, nobody knows."""
    for name in ("parked", "queue", "kept"):
        connection.execute(text(f"ALTER TABLE {name} ADD COLUMN layout BIGINT"))
    connection.execute(text("ALTER TABLE parked ADD COLUMN note TEXT DEFAULT '' NOT NULL"))
    unique = UniqueConstraint("text")
    Table("layout", MetaData(), _row(), _word("text"), unique, sqlite_autoincrement=True).create(connection)


def _keep_syncs(connection: Connection) -> None:
    """Number 4: every initial sync, with what it did."""
    words = map(_word, ("map", "why", "master", "companies", "outcome", "reason", "counts", "progress"))
    times, index = map(_time, ("started", "ended")), Index("sync_map", "map")
    made = Table("sync", MetaData(), _row(), *words, *times, _count("resumed"), index, sqlite_autoincrement=True)
    made.create(connection)


def _keep_notices(connection: Connection) -> None:
    """Number 5: messages of alerts that are still to be sent."""
    words = map(_word, ("rule", "action", "message", "error"))
    made = Table(
        "notice", MetaData(), _row(), _time("at"), *words, _count("attempts"), _time("due"), sqlite_autoincrement=True
    )
    made.create(connection)


def _keep_backlogs(connection: Connection) -> None:
    """Number 6: what waits for a paused map, and since when something else is wanted of a map."""
    kind = Double().compile(connection.dialect)
    connection.execute(text(f"ALTER TABLE map_state ADD COLUMN asked {kind} DEFAULT '0' NOT NULL"))
    indexes = [
        Index("backlog_order", "side", "map", "row", "size"),
        Index("backlog_key", "side", "map", "key"),
        Index("backlog_new_key", "side", "map", "new_key"),
    ]
    Table("backlog", MetaData(), _row(), *_queue_columns(), *indexes, sqlite_autoincrement=True).create(connection)


def _keep_audit(connection: Connection) -> None:
    """Number 7: what was applied; and of what the rows of conflicts are, which nobody has said before."""
    names = ("map", "version", "publisher", "left", "right")
    unique = UniqueConstraint(*names)
    Table("carrier", MetaData(), _row(), *map(_word, names), unique, sqlite_autoincrement=True).create(connection)
    blobs = (Column(name, LargeBinary, nullable=False) for name in ("keys", "lines"))
    counts = (_count("number"), _time("at"), _count("changes"), _count("total"))
    unique = UniqueConstraint("side", "number")
    columns: list[SchemaItem] = [_row(), _word("side"), *counts, *blobs, unique]
    Table("audit", MetaData(), *columns, sqlite_autoincrement=True).create(connection)
    connection.execute(text("ALTER TABLE conflict ADD COLUMN layout BIGINT"))


def _count_backlogs(connection: Connection) -> None:
    """Number 8: how much waits for a paused map is known without counting it."""
    for name in ("ordinal", "total"):
        connection.execute(text(f"ALTER TABLE backlog ADD COLUMN {name} BIGINT DEFAULT '0' NOT NULL"))
    lane = 'OVER (PARTITION BY side, map ORDER BY "row")'
    counted = f'SELECT "row" AS n, count(*) {lane} AS ordinal, sum(size) {lane} AS total FROM backlog'  # noqa: S608
    of_each = f'FROM ({counted}) AS found WHERE found.n = backlog."row"'
    connection.execute(text(f"UPDATE backlog SET ordinal = found.ordinal, total = found.total {of_each}"))  # noqa: S608
    for index in ("order", "new_key"):
        connection.execute(text(f"DROP INDEX backlog_{index}"))
    connection.execute(text('CREATE INDEX backlog_lane ON backlog (side, map, "row", layout)'))
    renamed = "CREATE INDEX backlog_renamed ON backlog (side, map, new_key) WHERE new_key IS NOT NULL"
    connection.execute(text(renamed))


def _find_parked(connection: Connection) -> None:
    """Number 9: parked records are found by their ids."""
    connection.execute(text("CREATE INDEX parked_again ON parked (origin) WHERE origin IS NOT NULL"))


def _find_conflicts(connection: Connection) -> None:
    """Number 10: conflicts are found by their ids."""
    connection.execute(text("CREATE INDEX conflict_again ON conflict (origin) WHERE origin IS NOT NULL"))


STEPS: Final[tuple[Step, ...]] = (
    _keep_versions,
    _keep_layouts,
    _keep_syncs,
    _keep_notices,
    _keep_backlogs,
    _keep_audit,
    _count_backlogs,
    _find_parked,
    _find_conflicts,
)
"""``STEPS[n - 1]`` lifts a journal from number n to n + 1.  A released step is never changed: whoever changes a table
above appends one that does the same to the tables of older journals."""
