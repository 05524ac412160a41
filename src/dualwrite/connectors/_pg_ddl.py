# ruff: noqa: S608  (names go through quote(), texts through literal())
"""The statements by which a link's objects come into being and go away: what the owner of the tables has to run.

They come in transactions that each leave a consistent state, so that a crash between any two is harmless, and are made
from what is there: where nothing is missing there are none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from dualwrite.connectors._pg_installed import (
    SCHEMA_NUMBER,
    TABLE,
    Captured,
    Installed,
    Kept,
    Names,
    Publication,
    kept_by_name,
    kept_by_oid,
    kept_by_others,
    read_installed,
    set_meta,
)
from dualwrite.connectors._pg_obstacles import GENERATED, Server, captured_tables, missing_rights
from dualwrite.connectors._pg_schema import OWN_PREFIX, Catalog, Facts
from dualwrite.connectors._pg_session import Connection
from dualwrite.connectors._sql import literal, quote
from dualwrite.schema import View


@dataclass(frozen=True, slots=True)
class Group:
    """Statements of one transaction, for somebody who owns the tables; ``locks`` are those it locks."""

    statements: tuple[str, ...]
    locks: tuple[int, ...] = ()

    def text(self) -> str:
        """As a script."""
        return "".join(f"{line};\n" for line in ("BEGIN", *self.statements, "COMMIT"))


@dataclass(frozen=True, slots=True)
class Inventory:
    """What is there, read at one time: the link's objects, and the tables that matter to it.

    ``former`` are replica identities that other links have changed and will put back.
    """

    installed: Installed
    tables: Mapping[int, Kept]
    former: Mapping[int, str]

    @classmethod
    def read(cls, connection: Connection, names: Names, wanted: Sequence[Facts] = ()) -> Inventory:
        """Read it; ``wanted`` are the tables that are to be captured."""
        installed = read_installed(connection, names)
        oids = {oid for table in installed.captured.values() for oid in table.leaves} | set(installed.captured)
        oids |= {oid for facts in wanted for oid in (facts.oid, *(leaf.oid for leaf in facts.leaves))}
        if installed.is_copied:
            oids = set()
        return cls(installed, kept_by_oid(connection, oids), kept_by_others(connection, names))


def owner_groups(names: Names, inventory: Inventory, wanted: Sequence[Facts], version: int) -> list[Group]:
    """What is missing for these tables."""
    installed = inventory.installed
    first = [*_create_schema(names, installed), *_create_publication(names, installed.publication, version)]
    found = [Group(tuple(first))] if first else []
    return found + [group for facts in wanted if (group := _capture(names, inventory, facts)) is not None]


def _create_schema(names: Names, installed: Installed) -> Iterator[str]:
    if not installed.has_schema:
        yield f"CREATE SCHEMA {quote(names.schema)}"
    if "position" not in installed.tables:
        yield f"CREATE TABLE {names.table('position')} (stream text PRIMARY KEY, position text NOT NULL)"
    if "side" not in installed.tables:
        yield (
            f"CREATE TABLE {names.table('side')} (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, "
            "kind text NOT NULL, view text NOT NULL, key text NOT NULL, value text NOT NULL, "
            "since bigint NOT NULL, until bigint)"
        )
        yield f"CREATE INDEX side_key ON {names.table('side')} (kind, view, key)"
    if "meta" not in installed.tables:
        yield f"CREATE TABLE {names.table('meta')} (name text PRIMARY KEY, value text NOT NULL)"
        yield (
            f"INSERT INTO {names.table('meta')} VALUES ('schema', '{SCHEMA_NUMBER}'), ('commits', '0'), "
            f"('database', {literal(installed.database)})"
        )


def _create_publication(names: Names, publication: Publication | None, version: int) -> Iterator[str]:
    generated = ", publish_generated_columns = stored" if version >= GENERATED else ""
    options = f"(publish = 'insert, update, delete, truncate', publish_via_partition_root = false{generated})"
    if publication is None:
        yield f"CREATE PUBLICATION {quote(names.schema)} WITH {options}"
    elif not publication.is_complete:
        yield f"ALTER PUBLICATION {quote(names.schema)} SET {options}"


def _capture(names: Names, inventory: Inventory, facts: Facts) -> Group | None:
    """The transaction that brings a table into the publication, with its whole former rows; None when it is there."""
    publication = inventory.installed.publication
    is_member = publication is not None and facts.oid in publication.members
    held = inventory.installed.captured.get(facts.oid)
    kept = held.leaves if held is not None else {}
    leaves = {leaf.oid: kept.get(leaf.oid) or _as_it_was(inventory, leaf.oid) for leaf in facts.leaves}
    bare = [inventory.tables[oid].sql for oid in leaves if inventory.tables[oid].identity != "FULL"]
    statements = [f"ALTER TABLE ONLY {sql} REPLICA IDENTITY FULL" for sql in bare]
    if not is_member:
        mode = "ACCESS EXCLUSIVE" if bare else "SHARE"  # at once what is needed: raising it later invites deadlocks
        statements.insert(0, f"LOCK TABLE {facts.sql} IN {mode} MODE")
        statements += [
            *_leave(names, inventory, facts),
            f"ALTER PUBLICATION {quote(names.schema)} ADD TABLE {facts.sql}",
        ]
    if held is None or leaves.keys() != kept.keys():
        statements += [set_meta(names, f"{TABLE}{facts.oid}", Captured(facts.sql, leaves).text())]
    return Group(tuple(statements), (facts.oid, *leaves)) if statements else None


def _leave(names: Names, inventory: Inventory, facts: Facts) -> list[str]:
    """Where somebody has given the table a filter or a list of columns in our publication, it has to come in anew."""
    publication = inventory.installed.publication
    if publication is None or facts.oid not in publication.altered:
        return []
    return [f"ALTER PUBLICATION {quote(names.schema)} DROP TABLE {facts.sql}"]


def _as_it_was(inventory: Inventory, oid: int) -> tuple[str, str]:
    """A partition's name, and the replica identity that it had before any link came."""
    kept = inventory.tables[oid]
    return kept.sql, inventory.former.get(oid, kept.identity)


def release_groups(names: Names, inventory: Inventory, unwanted: Iterable[int]) -> list[Group]:
    """What lets captured tables go, each as it was before."""
    publication = inventory.installed.publication
    groups = []
    for oid in unwanted:
        here = inventory.tables.get(oid)
        leaves = inventory.installed.captured[oid].leaves
        statements = []
        if here is not None and publication is not None and oid in publication.members.keys() | publication.altered:
            statements.append(f"ALTER PUBLICATION {quote(names.schema)} DROP TABLE {here.sql}")
        ours = leaves.keys() & inventory.tables.keys() - inventory.former.keys()
        statements += [_put_back(inventory.tables[leaf], leaves[leaf][1]) for leaf in sorted(ours)]
        statements.append(f"DELETE FROM {names.table('meta')} WHERE name = '{TABLE}{oid}'")
        groups.append(Group(tuple(filter(None, statements)), tuple(leaves)))
    return groups


def _put_back(kept: Kept, former: str) -> str:
    """Nothing where somebody else has given the table another identity meanwhile, or where it was FULL before."""
    if kept.identity != "FULL" or former == "FULL":
        return ""
    index = former.removeprefix("USING INDEX ")
    identity = former if index == former or index in kept.indexes else "DEFAULT"
    return f"ALTER TABLE ONLY {kept.sql} REPLICA IDENTITY {identity}"


def adopted(connection: Connection, inventory: Inventory) -> Inventory:
    """In a copy of another database, what was captured there, with the oids that its tables have here."""
    installed = inventory.installed
    if not installed.is_copied:
        return inventory
    leaves = [leaf for table in installed.captured.values() for leaf in table.leaves.values()]
    tables = kept_by_name(connection, [sql for sql, _ in leaves])
    captured = {
        oid: Captured(
            table.sql, {tables[sql].oid: (sql, former) for sql, former in table.leaves.values() if sql in tables}
        )
        for oid, table in installed.captured.items()
    }
    return replace(
        inventory,
        installed=replace(installed, captured=captured),
        tables={kept.oid: kept for kept in tables.values()},
    )


def ask(script: str) -> str:
    """The remedy where somebody else has to run statements."""
    return f"let the owner of the tables, or a superuser, run this in the database:\n{script}"


def grants(names: Names, role: str) -> Group:
    """What lets a role that is not the owner work with the link's tables."""
    statements = (
        f"GRANT USAGE ON SCHEMA {quote(names.schema)} TO {quote(role)}",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {quote(names.schema)} TO {quote(role)}",
    )
    return Group(statements)


def removal_groups(names: Names, inventory: Inventory) -> list[Group]:
    """What removes everything that the owner has made: the publication first, or the application would be refused."""
    installed = inventory.installed
    groups = [Group((f"DROP PUBLICATION {quote(names.schema)}",))] if installed.publication is not None else []
    if installed.has_schema:
        gone = replace(inventory, installed=replace(installed, publication=None))
        groups += release_groups(names, gone, installed.captured)
        own = [name for name in ("position", "side", "meta") if name in installed.tables]
        drops = [f"DROP TABLE {names.table(name)}" for name in own]
        groups.append(Group((*drops, f"DROP SCHEMA {quote(names.schema)}")))
    return groups


def by_hand(link: str) -> str:
    """What removes a link, in ``psql``, by a superuser or by the owners: all but the slot is found by its name."""
    schema = f"{OWN_PREFIX}{link}"
    number = "(SELECT oid FROM pg_database WHERE datname = current_database())"
    return (
        f"SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots "
        f"WHERE slot_name = {literal(f'{schema}_')} || {number};\n"
        f"SELECT pg_replication_origin_drop(roname) FROM pg_replication_origin "
        f"WHERE roname = {literal(f'{schema}_')} || {number};\n"
        f"DROP PUBLICATION IF EXISTS {quote(schema)};\n"
        "-- what tables were before they were captured\n"
        f"SELECT 'ALTER TABLE ONLY ' || (v ->> 0) || ' REPLICA IDENTITY ' || (v ->> 1) FROM {quote(schema)}.meta, "
        f"json_each(value::json -> 'leaves') AS x (k, v) WHERE name LIKE '{TABLE}%' \\gexec\n"
        f"DROP SCHEMA IF EXISTS {quote(schema)} CASCADE;\n"
    )


def may_own(server: Server, inventory: Inventory, tables: Iterable[int]) -> bool:
    """May the role do what the owner of the link's objects, and of these tables, may?"""
    installed = inventory.installed
    if server.is_superuser:
        return True
    has_schema = installed.is_owned if installed.has_schema else server.may_create
    publication = installed.publication
    has_publication = publication.is_owned if publication is not None else server.may_create
    leaves = {oid for table in tables for oid in (table, *_leaves(installed, table))}
    return (
        has_schema and has_publication and all(kept.is_owned for oid, kept in inventory.tables.items() if oid in leaves)
    )


def _leaves(installed: Installed, table: int) -> Iterable[int]:
    return installed.captured[table].leaves if table in installed.captured else ()


def owner_script(
    connection: Connection,
    names: Names,
    catalog: Catalog,
    views: Sequence[View],
    server: Server,
    inventory: Inventory,
) -> str:
    """What somebody else has to run before the role can install these views; empty when it can by itself."""
    installed = inventory.installed
    if installed.has_schema and not installed.is_usable and not installed.is_owned:
        return grants(names, server.role).text()  # what is missing beyond can be told when meta can be read
    wanted = captured_tables(catalog, views)
    groups = owner_groups(names, inventory, wanted, server.version)
    rights = missing_rights(connection, catalog, views, server.role)
    touched = {oid for group in groups for oid in group.locks}
    if may_own(server, inventory, touched):
        groups = []
    elif not installed.is_usable:
        groups = [*groups, grants(names, server.role)]
    if rights:
        groups = [*groups, Group(tuple(rights))]
    return "".join(group.text() for group in groups)
