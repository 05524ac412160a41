"""What stands in the way of capturing tables of a PostgreSQL database: nothing is installed while any of it is there.

Tables are captured with their whole former rows (``REPLICA IDENTITY FULL``).  Where that would make the application's
own statements fail, the table is refused, with the reason.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from dualwrite.connectors._pg_installed import Installed, Names
from dualwrite.connectors._pg_schema import Catalog, Facts
from dualwrite.connectors._pg_session import Connection
from dualwrite.connectors._sql import names, needs, quote, table_of
from dualwrite.errors import Problem
from dualwrite.schema import View

OLDEST: Final = 15
"""The oldest major version that is supported."""
ORIGIN_FUNCTIONS: Final = (
    "pg_replication_origin_create(text)",
    "pg_replication_origin_drop(text)",
    "pg_replication_origin_session_setup(text)",
    "pg_replication_origin_session_reset()",
    "pg_replication_origin_xact_setup(pg_lsn, timestamptz)",
)
"""What marks our own transactions; the running role has to be allowed to call them."""
GENERATED: Final = 18
"""The version from which on the feed can carry generated columns, and has to where the identity is FULL."""


@dataclass(frozen=True, slots=True)
class Server:
    """The server and the role that we connect as.

    ``slots``, ``senders`` and ``origins`` are how many there are, and how many there may be.  ``keep_size`` is the
    most that a slot keeps, in MB (None: no limit); ``idle_timeout`` the seconds after which the server drops what an
    idle slot keeps (0: never).
    """

    version: int
    is_standby: bool
    role: str
    is_superuser: bool
    may_replicate: bool
    may_create: bool
    functions: frozenset[str]
    wal_level: str
    slots: tuple[int, int]
    senders: tuple[int, int]
    origins: tuple[int, int]
    keep_size: int | None
    idle_timeout: int


_SERVER: Final = """
    SELECT current_setting('server_version_num')::integer / 10000, pg_is_in_recovery(), rolname, rolsuper,
        rolsuper OR rolreplication, has_database_privilege(current_database(), 'CREATE'),
        to_json(ARRAY(SELECT f FROM unnest($1::text[]) AS f WHERE has_function_privilege(f, 'EXECUTE'))),
        current_setting('wal_level'),
        (SELECT count(*) FROM pg_replication_slots), current_setting('max_replication_slots'),
        (SELECT count(*) FROM pg_stat_replication), current_setting('max_wal_senders'),
        (SELECT count(*) FROM pg_replication_origin),
        coalesce(current_setting('max_active_replication_origins', true), current_setting('max_replication_slots')),
        (SELECT setting FROM pg_settings WHERE name = 'max_slot_wal_keep_size'),
        coalesce((SELECT setting FROM pg_settings WHERE name = 'idle_replication_slot_timeout'), '0')
    FROM pg_roles WHERE rolname = current_user"""


def read_server(connection: Connection) -> Server:
    """What the server says of itself, and of the session's role."""
    row = connection.execute(_SERVER.encode(), [list(ORIGIN_FUNCTIONS)]).fetchone()
    assert row is not None
    version, standby, role, superuser, replicate, create, functions, wal_level, *numbers = row
    slots, most_slots, senders, most_senders, origins, most_origins, keep, idle = map(int, numbers)
    return Server(
        int(version),
        standby == "t",
        role,
        superuser == "t",
        replicate == "t",
        create == "t",
        frozenset(json.loads(functions)),
        wal_level,
        (slots, most_slots),
        (senders, most_senders),
        (origins, most_origins),
        None if keep < 0 else keep,
        idle,
    )


def captured_tables(catalog: Catalog, views: Iterable[View]) -> list[Facts]:
    """The tables that the views look at, those that they look up included; raises Usage when one does not exist."""
    found = needs(catalog.schema, views)
    return [catalog.facts[table_of(catalog.schema, name).name] for name in sorted(found)]


# -- the server ------------------------------------------------------------------------------------------------------


def server_obstacles(server: Server, installed: Installed) -> Iterator[Problem]:
    """What the server, or the role, lacks."""
    role = quote(server.role)
    if server.version < OLDEST:
        message = f"the server is PostgreSQL {server.version}; {OLDEST} is the oldest that is supported"
        yield Problem("pg_version", message, "upgrade the server")
    if server.wal_level != "logical":
        message = f"wal_level is {server.wal_level}, so changes cannot be read from the server's log"
        yield Problem(
            "pg_wal_level", message, "as superuser: ALTER SYSTEM SET wal_level = 'logical'; then restart the server"
        )
    if not server.may_replicate:
        message = f"role {server.role} may not read the server's log"
        yield Problem("pg_replication", message, f"as superuser: ALTER ROLE {role} REPLICATION")
    missing = [function for function in ORIGIN_FUNCTIONS if function not in server.functions]
    if missing:
        message = f"role {server.role} may not mark its transactions as ours"
        remedy = f"as superuser, in this database: GRANT EXECUTE ON FUNCTION {', '.join(missing)} TO {role}"
        yield Problem("pg_origin_functions", message, remedy)
    for need in needed(server, installed):
        if need.is_exhausted:
            message = f"no {need.what} is free: {need.count} of {need.most} are in use"
            more = f"ALTER SYSTEM SET {need.setting} = {need.most + 10}"
            remedy = f"end what nobody needs, or as superuser: {more}; then restart"
            yield Problem("pg_exhausted", message, remedy)


@dataclass(frozen=True, slots=True)
class Need:
    """Something of which the link still needs one: the setting that limits it, and how many there are and may be.

    ``is_sure``: all that are there count.  Of origins only those do that were used since the server started, and only a
    superuser can see which.
    """

    what: str
    setting: str
    count: int
    most: int
    is_sure: bool = True

    @property
    def is_exhausted(self) -> bool:
        """Surely none is free."""
        return self.is_sure and self.count >= self.most


def needed(server: Server, installed: Installed) -> Iterator[Need]:
    """What the link still needs one of."""
    if installed.slot is None:
        yield Need("replication slot", "max_replication_slots", *server.slots)
    if installed.slot is None or installed.slot.holder is None:
        yield Need("WAL sender", "max_wal_senders", *server.senders)
    if not installed.has_origin:
        setting = "max_active_replication_origins" if server.version >= GENERATED else "max_replication_slots"
        yield Need("replication origin", setting, *server.origins, is_sure=False)


# -- tables ----------------------------------------------------------------------------------------------------------

_OTHERS: Final = """
    SELECT p.pubname, x.root,
        EXISTS (SELECT FROM pg_publication_rel r WHERE r.prpubid = p.oid AND r.prattrs IS NOT NULL
            AND r.prrelid IN (SELECT x.relation UNION SELECT relid FROM pg_partition_ancestors(x.relation))),
        coalesce(to_jsonb(p) ->> 'pubgencols', 's') = 's'
    FROM pg_publication p, unnest($1::oid[], $2::oid[]) AS x (relation, root)
    WHERE (pubupdate OR pubdelete) AND pubname <> $3
        AND (puballtables
            OR EXISTS (SELECT FROM pg_publication_rel r WHERE r.prpubid = p.oid
                AND r.prrelid IN (SELECT x.relation UNION SELECT relid FROM pg_partition_ancestors(x.relation)))
            OR EXISTS (SELECT FROM pg_publication_namespace s JOIN pg_class c ON c.relnamespace = s.pnnspid
                WHERE s.pnpubid = p.oid
                    AND c.oid IN (SELECT x.relation UNION SELECT relid FROM pg_partition_ancestors(x.relation))))
    ORDER BY p.pubname"""


def table_obstacles(
    connection: Connection, ours: Names, server: Server, tables: Sequence[Facts], shown: Mapping[str, set[str]]
) -> Iterator[Problem]:
    """Why tables cannot be captured; ``shown`` are the columns that the views look at, by table."""
    others = _other_publications(connection, ours, tables)
    for facts in tables:
        yield from _unsuited(server, facts, shown[facts.name])
        for publication, has_list, carries_generated in others.get(facts.oid, []):
            yield from _disturbed(server, facts, publication, has_list, carries_generated)


def _other_publications(
    connection: Connection, ours: Names, tables: Sequence[Facts]
) -> dict[int, list[tuple[str, bool, bool]]]:
    """By table the publications of others that it, or a partition, is in; column list, and generated columns?"""
    pairs = [(leaf.oid, facts.oid) for facts in tables for leaf in facts.leaves]
    relations, roots = [relation for relation, _ in pairs], [root for _, root in pairs]
    found: dict[int, dict[str, tuple[str, bool, bool]]] = {}
    for name, root, has_list, carries in connection.execute(_OTHERS.encode(), [relations, roots, ours.schema]):
        of_table = found.setdefault(int(root), {})
        of_table[name] = name, has_list == "t" or (name in of_table and of_table[name][1]), carries == "t"
    return {root: list(by_name.values()) for root, by_name in found.items()}


def _unsuited(server: Server, facts: Facts, shown: set[str]) -> Iterator[Problem]:
    """Why a table cannot be captured by itself."""
    if facts.unlogged:
        message = f"table {facts.name} is unlogged: its changes are not in the server's log"
        yield Problem("pg_unlogged", message, f"ALTER TABLE {facts.sql} SET LOGGED, or take it out of the maps")
    if facts.inherited:
        message = f"table {facts.name} shows the rows of tables that inherit from it, which are captured apart"
        yield Problem("pg_inheritance", message, "map the inheriting tables, or make it a partitioned table")
    if facts.row_security:
        message = f"row-level security hides rows of {facts.name} from role {server.role}"
        remedy = f"as superuser: ALTER ROLE {quote(server.role)} BYPASSRLS, or connect as a role without policies"
        yield Problem("pg_row_security", message, remedy)
    virtual = [column.name for column in facts.columns.values() if column.generated == "virtual"]
    stored = [column.name for column in facts.columns.values() if column.generated == "stored"]
    if virtual:
        message = (
            f"table {facts.name} has virtual generated columns ({names(virtual)}): with REPLICA IDENTITY FULL, "
            "PostgreSQL would refuse every UPDATE and DELETE"
        )
        yield Problem("pg_generated", message, "make them STORED, or take the table out of the maps")
    lost = [name for name in stored if name in shown and server.version < GENERATED]
    if lost:
        message = f"PostgreSQL {server.version} does not tell of generated columns: {facts.name} {names(lost)}"
        yield Problem("pg_generated", message, "take the columns out of the map, or upgrade the server to 18")


def _disturbed(
    server: Server, facts: Facts, publication: str, has_list: bool, carries_generated: bool
) -> Iterator[Problem]:
    """Why a table cannot be captured beside what another publication makes of it."""
    if has_list:
        message = (
            f"publication {publication} has a list of columns for {facts.name}: with REPLICA IDENTITY FULL, "
            "PostgreSQL would refuse the application's UPDATE and DELETE"
        )
        yield Problem(
            "pg_column_list", message, f"publish all columns in {quote(publication)}, or take the table out of the maps"
        )
    stored = any(column.generated == "stored" for column in facts.columns.values())
    if stored and not carries_generated and server.version >= GENERATED:
        message = (
            f"publication {publication} leaves out generated columns of {facts.name}: with REPLICA IDENTITY FULL, "
            "PostgreSQL would refuse the application's UPDATE and DELETE"
        )
        remedy = f"ALTER PUBLICATION {quote(publication)} SET (publish_generated_columns = stored)"
        yield Problem("pg_generated", message, remedy)


# -- what the running role may do ------------------------------------------------------------------------------------

_RIGHTS: Final = """
    SELECT 'GRANT USAGE ON SCHEMA ' || quote_ident(n.nspname)
        FROM pg_namespace n WHERE n.oid IN (SELECT relnamespace FROM pg_class WHERE oid = ANY ($1::oid[]))
            AND NOT has_schema_privilege(n.oid, 'USAGE')
    UNION ALL
    SELECT 'GRANT ' || string_agg(right_, ', ' ORDER BY nth) || ' ON '
            || quote_ident(n.nspname) || '.' || quote_ident(c.relname)
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace,
            unnest(CASE WHEN c.oid = ANY ($2::oid[])
                THEN ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE'] ELSE ARRAY['SELECT'] END)
                WITH ORDINALITY AS x (right_, nth)
        WHERE c.oid = ANY ($1::oid[]) AND NOT has_table_privilege(c.oid, right_)
            AND (right_ = 'DELETE' OR NOT has_any_column_privilege(c.oid, right_)) GROUP BY n.nspname, c.relname
    UNION ALL
    SELECT DISTINCT
        'GRANT USAGE, SELECT, UPDATE ON SEQUENCE ' || quote_ident(n.nspname) || '.' || quote_ident(s.relname)
        FROM pg_depend d JOIN pg_class s ON s.oid = d.objid JOIN pg_namespace n ON n.oid = s.relnamespace
        WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass
            AND d.refobjid = ANY ($2::oid[]) AND (d.deptype = 'a' OR d.deptype = 'i' AND EXISTS (
                SELECT FROM unnest($3::oid[], $4::text[]) AS w (oid, name)
                    JOIN pg_attribute m ON m.attrelid = w.oid AND m.attname = w.name
                WHERE w.oid = d.refobjid AND m.attnum = d.refobjsubid))
            AND CASE s.relkind WHEN 'S' THEN NOT has_sequence_privilege(s.oid, 'UPDATE') END"""


def missing_rights(connection: Connection, catalog: Catalog, views: Sequence[View], role: str) -> list[str]:
    """The statements that let the role read the views' tables, and write what the link writes."""
    tables = [facts.oid for facts in captured_tables(catalog, views)]
    written = [catalog.facts[view.table].oid for view in views if view.written]
    cells = [(catalog.facts[view.table].oid, view.paths[index][0]) for view in views for index in view.written]
    bound = [tables, written, [oid for oid, _ in cells], [name for _, name in cells]]
    rows = connection.execute(_RIGHTS.encode(), bound).fetchall()
    return [f"{statement} TO {quote(role)}" for (statement,) in rows]
