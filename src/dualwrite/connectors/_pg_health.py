"""What a PostgreSQL database lacks to be linked, each with its remedy.  Writes nothing, creates nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Final

from dualwrite.connectors._pg_capture import PROMOTE, REMEDY, interrupted_views, interruption, obstacles, standby_told
from dualwrite.connectors._pg_ddl import Group, Inventory, ask, owner_groups, owner_script, release_groups
from dualwrite.connectors._pg_installed import Installed, Names
from dualwrite.connectors._pg_obstacles import Server, captured_tables, needed, read_server
from dualwrite.connectors._pg_schema import Catalog, Facts
from dualwrite.connectors._pg_session import Connection, Database
from dualwrite.errors import DualwriteError, Problem
from dualwrite.model import Side
from dualwrite.schema import View

_FEW: Final = 3  # free slots, senders or origins that are told as nearly none
_MENDS: Final = "`dualwrite run` mends it when it starts"

CODES: Final[Mapping[str, tuple[str, str]]] = {
    "pg_backup": (
        "The database was restored from a backup of another one, which was linked.",
        "`dualwrite uninstall`, then start anew",
    ),
    "pg_capture": ("A map cannot be captured, because a table or column of it does not exist.", "correct the map"),
    "pg_column_list": (
        "Another publication has a list of columns for a table of a map: with whole former rows in the log, PostgreSQL "
        "would refuse the application's UPDATE and DELETE.",
        "publish all columns there, or take the table out of the maps",
    ),
    "pg_exhausted": (
        "No replication slot, WAL sender or replication origin is free, or few are.",
        "end what nobody needs, or raise the setting that the message names and restart the server",
    ),
    "pg_generated": (
        "A generated column cannot be captured, or makes PostgreSQL refuse the application's UPDATE and DELETE when "
        "whole former rows are in the log.",
        "do what the message says: make it stored, publish it in the other publication, or leave it out of the map",
    ),
    "pg_idle_slot": (
        "The server drops what idle replication slots keep, so a pause of dualwrite may cost an initial sync.",
        "set `idle_replication_slot_timeout` to 0, or to longer than any pause",
    ),
    "pg_inheritance": (
        "Other tables inherit from a table of a map, and their rows show in it.",
        "map the inheriting tables, or make it a partitioned table",
    ),
    "pg_interrupted": (
        "Changes may have been missed: slot or publication were dropped, a table was created anew or taken out of the "
        "publication, its replica identity was changed, or a standby has taken the server's place.",
        "stop the maps of this link and start them again with an initial sync",
    ),
    "pg_leftover": (
        "Tables that no map uses any more are still captured, because our role is not their owner.",
        "let the owner run the statements of the message",
    ),
    "pg_newer": ("The link's objects are of a newer dualwrite.", "upgrade dualwrite on this machine"),
    "pg_origin_functions": (
        "The role may not mark its transactions as ours.",
        "let a superuser run the GRANT of the message",
    ),
    "pg_owner": (
        "The role does not own the tables, so their owner has to prepare them, or it lacks rights on them.",
        "let the owner, or a superuser, run the statements of the message once",
    ),
    "pg_partition": (
        "A partition is new, and its former rows are not in the log yet: updates and deletes in it may be missed, or, "
        "without a primary key, refused.",
        "nothing where `dualwrite run` is started next; else run the statements of the message",
    ),
    "pg_replication": ("The role may not read the server's log.", "let a superuser run `ALTER ROLE … REPLICATION`"),
    "pg_retained": (
        "The server will soon let go of what it keeps of its log for us: dualwrite does not run, or cannot keep up.",
        "run dualwrite before that, or raise `max_slot_wal_keep_size`: else the link needs an initial sync",
    ),
    "pg_row_security": (
        "Row-level security hides rows of a table from our role, so they would be taken for deleted.",
        "`ALTER ROLE … BYPASSRLS`, or connect as a role without policies",
    ),
    "pg_standby": ("The server is a standby, which takes no writes.", PROMOTE),
    "pg_unlimited": (
        "Nothing limits how much of its log the server keeps for a slot: while dualwrite stands still, the disk fills.",
        "set `max_slot_wal_keep_size`, and watch the slot",
    ),
    "pg_unlogged": ("A table is unlogged: its changes are not in the server's log.", "`ALTER TABLE … SET LOGGED`"),
    "pg_unreachable": ("The database cannot be reached or read.", "do what the message says"),
    "pg_version": ("The server is too old.", "upgrade it"),
    "pg_wal_level": (
        "The server's log does not tell of rows.",
        "set `wal_level = logical`, and restart the server",
    ),
}
"""What each code means, and what to do about it."""


def inspect(
    database: Database,
    side: Side,
    views: Sequence[View],
    load: Callable[[Connection], Catalog],
) -> list[Problem]:
    """All findings about a database and the capture of these views."""
    found: list[Problem] = []
    try:
        with closing(database.connect()) as connection, database.errors():
            found += _problems(database, connection, views, load)
    except DualwriteError as error:
        found.append(Problem("pg_unreachable", error.message, error.remedy))
    return [replace(problem, side=str(side)) for problem in found]


def _problems(
    database: Database,
    connection: Connection,
    views: Sequence[View],
    load: Callable[[Connection], Catalog],
) -> Iterator[Problem]:
    server = read_server(connection)
    if server.is_standby:
        yield Problem("pg_standby", *standby_told(database))
        return
    names, catalog = Names.of(connection, database.link), load(connection)
    try:
        wanted = captured_tables(catalog, views)
    except DualwriteError as error:
        yield Problem("pg_capture", error.message, error.remedy)
        return
    try:
        inventory = Inventory.read(connection, names, wanted)
    except DualwriteError as error:
        yield Problem("pg_newer", error.message, error.remedy)
        return
    installed = inventory.installed
    if installed.is_copied:
        message = f"{database.shown} holds link {names.link} of another database, from a backup"
        yield Problem("pg_backup", message, "run `dualwrite uninstall`, then start anew")
        return
    yield from obstacles(connection, names, catalog, views, server, installed)
    script = owner_script(connection, names, catalog, views, server, inventory)
    if script:
        message = f"role {server.role} may not do all that link {names.link} needs"
        yield Problem("pg_owner", message, ask(script))
    yield from _shortages(server, installed)
    yield from _slot_risks(server, installed)
    reason = interruption(inventory)
    for halted in interrupted_views(inventory, catalog, views):
        yield Problem("pg_interrupted", f"{database.shown}: {halted.message}", halted.remedy, map=halted.map)
    if reason:
        yield Problem("pg_interrupted", f"{database.shown}: {reason}, so changes may have been missed", REMEDY)
    elif "token" in installed.meta:
        yield from _drift(names, inventory, wanted, server)


def _shortages(server: Server, installed: Installed) -> Iterator[Problem]:
    """What the link needs one of, and is nearly used up."""
    for need in needed(server, installed):
        if need.most - need.count < _FEW and not need.is_exhausted:
            message = f"nearly no {need.what} is free: there are {need.count}, and {need.most} can be in use"
            remedy = f"as superuser: raise {need.setting}, and restart the server"
            yield Problem("pg_exhausted", message, remedy, "warning")


def _slot_risks(server: Server, installed: Installed) -> Iterator[Problem]:
    """What threatens the slot, or what the slot threatens."""
    slot = installed.slot
    if server.keep_size is None:
        message = "max_slot_wal_keep_size is -1: while dualwrite stands still, the server's log grows without limit"
        remedy = "as superuser: ALTER SYSTEM SET max_slot_wal_keep_size = '…GB'; SELECT pg_reload_conf()"
        yield Problem("pg_unlimited", message, remedy, "warning")
    if server.idle_timeout:
        message = f"idle_replication_slot_timeout is {server.idle_timeout} s: a longer pause costs an initial sync"
        remedy = "as superuser: ALTER SYSTEM SET idle_replication_slot_timeout = 0; SELECT pg_reload_conf()"
        yield Problem("pg_idle_slot", message, remedy, "warning")
    if slot is None or slot.lost or slot.safe is None:
        return
    if slot.safe < slot.retained:
        left = max(slot.safe, 0) >> 20
        message = (
            f"the server keeps {slot.retained >> 20} MB of its log for this link, and lets go after {left} MB more"
        )
        yield Problem("pg_retained", message, CODES["pg_retained"][1], "warning")


def _drift(names: Names, inventory: Inventory, wanted: Sequence[Facts], server: Server) -> Iterator[Problem]:
    """What has changed around a link that is installed, and is no loss."""
    installed = inventory.installed
    _, members = installed.published
    for facts in wanted:
        held = installed.captured.get(facts.oid)
        known = held.leaves.keys() if held is not None else set()
        new = [leaf for leaf in facts.leaves if leaf.oid not in known]
        if facts.oid in members and any(inventory.tables[leaf.oid].identity != "FULL" for leaf in new):
            groups = owner_groups(names, inventory, [facts], server.version)
            message = f"{facts.name} has new partitions, of which former rows are not in the log yet"
            yield Problem("pg_partition", message, f"{_MENDS}; or as owner: {_line(groups)}", "warning")
    extra = installed.captured.keys() - {facts.oid for facts in wanted} - members.keys()
    if extra:
        tables = ", ".join(sorted(installed.captured[oid].sql for oid in extra))
        groups = release_groups(names, inventory, extra)
        yield Problem("pg_leftover", f"no map uses {tables} any more", f"as owner: {_line(groups)}", "warning")


def _line(groups: Sequence[Group]) -> str:
    return "; ".join(statement for group in groups for statement in group.statements)
