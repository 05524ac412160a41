# ruff: noqa: S608  (names go through quote(), values are bound)
"""What a link has in a PostgreSQL database.

    schema dualwrite_LINK      with three tables:
        position               the committed position of each stream
        side                   what the engine remembers about records
        meta                   schema number, token of the feed, number of our commits, and what is captured
    publication dualwrite_LINK the captured tables, lookups included, with REPLICA IDENTITY FULL
    slot dualwrite_LINK_DBOID  the place in the server's log up to which everything was read
    origin dualwrite_LINK_DBOID  the mark of our own transactions

Slots and origins belong to the whole cluster, so their names carry the database's number.  The publication names
partitions by themselves (``publish_via_partition_root = false``): only so is the truncation of a partition sent.

What ``meta`` holds, by name:

    schema         the number of this layout
    commits, seen  number and source position of our last commit
    database       SYSTEMID.DBOID, the database that all this was made in
    token          made anew whenever changes may have been missed; ``feed`` names are made of it
    timeline       the server's timeline that the token speaks of
    allowed        the LSN beyond which we confirm nothing before we have said so here
    published      which publication, and which membership of each table, the token speaks of
    table.OID      a captured table, and the replica identity that each of its partitions had before
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from dualwrite.connectors._pg_schema import OWN_PREFIX
from dualwrite.connectors._pg_session import Connection
from dualwrite.connectors._sql import literal, quote
from dualwrite.connectors.base import Installation
from dualwrite.errors import Denied, Usage

SCHEMA_NUMBER: Final = 1
ALLOWED: Final = "allowed"
TABLE: Final = "table."
"""How the names of meta's entries about captured tables begin."""

_LINK: Final = re.compile(r"[a-z0-9_]{1,42}")  # what a slot may be called: 63 with the prefix and a number


@dataclass(frozen=True, slots=True)
class Names:
    """The names of a link's objects in one database, without quotes; ``database`` is its oid."""

    link: str
    database: int

    @classmethod
    def of(cls, connection: Connection, link: str) -> Names:
        """The names in the database that the session is connected to; raises Usage when they cannot be made."""
        if not _LINK.fullmatch(link):
            raise Usage(
                f"{link!r} cannot be the name of a link in PostgreSQL", "write at most 42 of a-z, 0-9 and _ instead"
            )
        return cls(link, int(_one(connection, "SELECT oid FROM pg_database WHERE datname = current_database()")))

    @property
    def schema(self) -> str:
        """The schema, the publication, and the prefix of our messages."""
        return f"{OWN_PREFIX}{self.link}"

    @property
    def slot(self) -> str:
        """The replication slot, and the origin."""
        return f"{self.schema}_{self.database}"

    def table(self, name: str) -> str:
        """A table of the schema, quoted."""
        return f"{quote(self.schema)}.{quote(name)}"


@dataclass(frozen=True, slots=True)
class Slot:
    """A replication slot; ``lost`` tells why it cannot be read any more, ``retained`` the bytes of WAL it keeps.

    ``is_ours``: it is one for this database and made for ``pgoutput``.  ``holder`` is the process that uses it.
    ``is_ready``: its creation has ended.  What committed before the LSN ``confirmed`` is not sent any more.
    """

    is_ours: bool
    is_ready: bool
    confirmed: int
    holder: int | None
    lost: str
    retained: int
    safe: int | None
    """Bytes that can still be written before the slot is in danger, where the server limits what slots keep."""


@dataclass(frozen=True, slots=True)
class Publication:
    """Our publication: its oid, whether its options are as they have to be, and its tables.

    ``members`` are the oids of its rows in ``pg_publication_rel`` by table: a table that was taken out and put back
    has another one.  ``altered`` are tables to which somebody has given a row filter or a column list.
    """

    oid: int
    is_complete: bool
    members: Mapping[int, int]
    altered: frozenset[int]
    is_owned: bool


@dataclass(frozen=True, slots=True)
class Captured:
    """A table that was prepared: its name in SQL, and of each partition the name and the former replica identity.

    Partitions are known by oid; the names are for databases that were restored from a backup, whose oids are others.
    """

    sql: str
    leaves: Mapping[int, tuple[str, str]]

    def text(self) -> str:
        """As ``meta`` holds it."""
        return json.dumps({"table": self.sql, "leaves": {str(oid): leaf for oid, leaf in self.leaves.items()}})

    @classmethod
    def parse(cls, text: str) -> Captured:
        """The inverse of ``text``."""
        held = json.loads(text)
        return cls(held["table"], {int(oid): (sql, former) for oid, (sql, former) in held["leaves"].items()})


@dataclass(frozen=True, slots=True)
class Kept:
    """A table that exists: its name in SQL, and its replica identity as REPLICA IDENTITY spells it.

    ``is_owned``: the session's role may do what its owner may.  ``indexes`` are its unique ones.
    """

    oid: int
    sql: str
    identity: str
    is_owned: bool
    indexes: frozenset[str]


@dataclass(frozen=True, slots=True)
class Installed:
    """What of the link is there.  ``database`` is SYSTEMID.DBOID as it is now, ``timeline`` the server's; a standby has
    none of its own.

    ``tables`` are those of the schema; ``is_usable``: the session's role may read and write them, ``is_owned``: it may
    do everything with the schema.
    """

    database: str
    timeline: str | None
    has_schema: bool
    tables: frozenset[str]
    is_usable: bool
    is_owned: bool
    meta: Mapping[str, str]
    publication: Publication | None
    slot: Slot | None
    has_origin: bool
    captured: Mapping[int, Captured] = field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        """Was everything created, and a token made?"""
        return "token" in self.meta and self.slot is not None and self.publication is not None

    @property
    def is_copied(self) -> bool:
        """Were the tables restored from another database's backup?  Their oids mean nothing then."""
        return self.meta.get("database", self.database) != self.database

    @property
    def is_diverted(self) -> bool:
        """Has the server left the way that the token speaks of?  What was read may never have happened there."""
        return self.timeline is not None and self.meta.get("timeline", self.timeline) != self.timeline

    @property
    def is_advanced(self) -> bool:
        """Is the slot further on than we have brought it?"""
        return self.slot is not None and ALLOWED in self.meta and self.slot.confirmed > int(self.meta[ALLOWED])

    @property
    def feed(self) -> str:
        """The name of the feed's incarnation; empty as long as nothing is installed."""
        return f"{self.database}.{self.meta['token']}" if "token" in self.meta else ""

    @property
    def published(self) -> tuple[int, Mapping[int, int]]:
        """The publication, and the members by table, that the token speaks of."""
        held = json.loads(self.meta.get("published", '{"publication": 0, "members": {}}'))
        return int(held["publication"]), {int(table): int(member) for table, member in held["members"].items()}


_PLACES: Final = """
    SELECT (SELECT system_identifier FROM pg_control_system()),
        CASE WHEN NOT pg_is_in_recovery() THEN left(pg_walfile_name(pg_current_wal_lsn()), 8) END,
        n.oid, pg_has_role(n.nspowner, 'USAGE'),
        to_json(ARRAY(SELECT relname FROM pg_class c WHERE c.relnamespace = n.oid AND c.relkind = 'r')),
        has_schema_privilege(n.oid, 'USAGE')
            AND (SELECT coalesce(bool_and(has_table_privilege(oid, needed)), true)
                FROM pg_class c, unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS needed
                WHERE c.relnamespace = n.oid AND c.relkind = 'r'),
        EXISTS (SELECT FROM pg_replication_origin WHERE roname = $2)
    FROM (SELECT) AS one LEFT JOIN pg_namespace n ON n.nspname = $1"""
_PUBLICATION: Final = """
    SELECT p.oid, pubinsert AND pubupdate AND pubdelete AND pubtruncate AND NOT pubviaroot AND NOT puballtables
            AND coalesce(to_jsonb(p) ->> 'pubgencols', 's') = 's',
        pg_has_role(p.pubowner, 'USAGE'),
        (SELECT coalesce(json_object_agg(r.prrelid, r.oid), '{}') FROM pg_publication_rel r
            WHERE r.prpubid = p.oid AND r.prqual IS NULL AND r.prattrs IS NULL),
        to_json(ARRAY(SELECT r.prrelid::bigint FROM pg_publication_rel r
            WHERE r.prpubid = p.oid AND (r.prqual IS NOT NULL OR r.prattrs IS NOT NULL)))
    FROM pg_publication p WHERE pubname = $1"""
_SLOT: Final = """
    SELECT coalesce(database = current_database() AND plugin = 'pgoutput' AND NOT temporary AND NOT two_phase, false),
        confirmed_flush_lsn IS NOT NULL, coalesce(confirmed_flush_lsn - '0/0'::pg_lsn, 0), active_pid,
        CASE WHEN wal_status = 'lost' THEN coalesce(to_jsonb(s) ->> 'invalidation_reason', 'wal_removed')
            ELSE coalesce(to_jsonb(s) ->> 'invalidation_reason', '') END,
        CASE WHEN NOT pg_is_in_recovery() AND restart_lsn IS NOT NULL
            THEN pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn) ELSE 0 END::bigint,
        safe_wal_size
    FROM pg_replication_slots s WHERE slot_name = $1"""


def read_installed(connection: Connection, names: Names) -> Installed:
    """What is there now; raises Denied when a newer dualwrite has made it."""
    row = connection.execute(_PLACES.encode(), [names.schema, names.slot]).fetchone()
    assert row is not None
    system, timeline, schema, is_owned, tables, is_usable, has_origin = row
    present = frozenset(json.loads(tables)) if schema else frozenset()
    slot = read_slot(connection, names)  # before what it may be: whoever confirms more says so there first
    meta: dict[str, str] = {}
    if is_usable == "t" and "meta" in present:
        meta = dict(connection.execute(f"SELECT name, value FROM {names.table('meta')}".encode()).fetchall())
        _check_number(names, meta)
    return Installed(
        f"{system}.{names.database}",
        timeline,
        schema is not None,
        present,
        is_usable == "t",
        is_owned == "t",
        meta,
        _publication(connection, names),
        slot,
        has_origin == "t",
        {int(name[len(TABLE) :]): Captured.parse(value) for name, value in meta.items() if name.startswith(TABLE)},
    )


def installation(connection: Connection, names: Names) -> Installation:
    """What of the link is there, by name.  A copy that takes everything along has at least no slot."""
    found = read_installed(connection, names)
    objects = [f"table {names.schema}.{name}" for name in sorted(found.tables)]
    objects += [f"schema {names.schema}"] if found.has_schema else []
    objects += [f"publication {names.schema}"] if found.publication is not None else []
    objects += [f"replication slot {names.slot}"] if found.slot is not None else []
    objects += [f"replication origin {names.slot}"] if found.has_origin else []
    objects += [f"REPLICA IDENTITY FULL of {captured.sql}" for captured in found.captured.values()]
    is_bare = "token" in found.meta and found.slot is None
    return Installation(tuple(objects), found.is_copied or is_bare)


def is_installed(connection: Connection, names: Names) -> bool:
    """Are the link's tables there?"""
    row = connection.execute("SELECT to_regclass($1) IS NOT NULL", [names.table("meta")]).fetchone()
    return row == ("t",)


def _publication(connection: Connection, names: Names) -> Publication | None:
    row = connection.execute(_PUBLICATION.encode(), [names.schema]).fetchone()
    if row is None:
        return None
    members = {int(table): int(member) for table, member in json.loads(row[3]).items()}
    return Publication(int(row[0]), row[1] == "t", members, frozenset(json.loads(row[4])), row[2] == "t")


def read_slot(connection: Connection, names: Names) -> Slot | None:
    """The link's slot as it is now."""
    row = connection.execute(_SLOT.encode(), [names.slot]).fetchone()
    if row is None:
        return None
    is_ours, is_ready, confirmed, holder, lost, retained, safe = row
    return Slot(
        is_ours == "t",
        is_ready == "t",
        int(confirmed),
        int(holder) if holder else None,
        lost,
        int(retained),
        None if safe is None else int(safe),
    )


_KEPT: Final = """
    SELECT c.oid, quote_ident(n.nspname) || '.' || quote_ident(c.relname),
        CASE c.relreplident WHEN 'd' THEN 'DEFAULT' WHEN 'f' THEN 'FULL' WHEN 'n' THEN 'NOTHING'
            ELSE coalesce((SELECT 'USING INDEX ' || quote_ident(i.relname) FROM pg_index x
                JOIN pg_class i ON i.oid = x.indexrelid WHERE x.indrelid = c.oid AND x.indisreplident), 'NOTHING') END,
        pg_has_role(c.relowner, 'USAGE'),
        to_json(ARRAY(SELECT quote_ident(i.relname) FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid
            WHERE x.indrelid = c.oid AND x.indisunique))
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"""


def kept_by_oid(connection: Connection, oids: Iterable[int]) -> dict[int, Kept]:
    """The tables with these oids, as far as they exist."""
    rows = connection.execute(f"{_KEPT} WHERE c.oid = ANY ($1::oid[])".encode(), [list(oids)]).fetchall()
    return {kept.oid: kept for kept in map(_kept, rows)}


def kept_by_name(connection: Connection, tables: Iterable[str]) -> dict[str, Kept]:
    """The tables with these names in SQL, as far as they exist."""
    statement = f"{_KEPT} WHERE quote_ident(n.nspname) || '.' || quote_ident(c.relname) = ANY ($1::text[])"
    rows = connection.execute(statement.encode(), [list(tables)]).fetchall()
    return {kept.sql: kept for kept in map(_kept, rows)}


def _kept(row: Sequence[Any]) -> Kept:
    oid, sql, identity, owned, indexes = row
    return Kept(int(oid), sql, identity, owned == "t", frozenset(json.loads(indexes)))


_OTHER_LINKS: Final = r"""
    SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname)
    FROM pg_namespace n JOIN pg_class c ON c.relnamespace = n.oid
    WHERE n.nspname LIKE 'dualwrite\_%' AND n.nspname <> $1 AND c.relname = 'meta'
        AND has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')"""


def kept_by_others(connection: Connection, names: Names) -> dict[int, str]:
    """By oid the former replica identities of what other links of this database capture, as far as we may see them."""
    found: dict[int, str] = {}
    for (meta,) in connection.execute(_OTHER_LINKS.encode(), [names.schema]).fetchall():
        statement = f"SELECT value FROM {meta} WHERE name LIKE '{TABLE}%'"
        for (text,) in connection.execute(statement.encode()).fetchall():
            found |= {oid: former for oid, (_, former) in Captured.parse(text).leaves.items()}
    return found


def _check_number(names: Names, meta: Mapping[str, str]) -> None:
    number = int(meta.get("schema", SCHEMA_NUMBER))
    if number > SCHEMA_NUMBER:
        raise Denied(
            f"the objects of link {names.link} are of a newer dualwrite (schema {number}, known {SCHEMA_NUMBER})",
            "upgrade dualwrite on this machine",
        )


def set_meta(names: Names, name: str, value: str) -> str:
    """The statement that keeps a value in ``meta``."""
    return (
        f"INSERT INTO {names.table('meta')} VALUES ({literal(name)}, {literal(value)}) "
        "ON CONFLICT (name) DO UPDATE SET value = excluded.value"
    )


def _one(connection: Connection, statement: str) -> Any:  # noqa: ANN401  (a cell is of any type)
    row = connection.execute(statement.encode()).fetchone()
    assert row is not None
    return row[0]
