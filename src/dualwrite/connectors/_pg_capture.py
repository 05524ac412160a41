# ruff: noqa: S608  (names go through quote(), texts through literal(), other values are bound)
"""Installs a link's objects in a PostgreSQL database, extends and shrinks them, and removes them.

The tables' owner does most of it, in transactions that each leave a consistent state: the schema, the publication, then
table by table its replica identity, its membership in the publication, and a note in ``meta`` of what it was before.
The running role does the rest: the origin, the slot, and last the token that makes the feed readable.  A role that is
not the owner is told what the owner has to run; everything else happens once that was done.

A crash in between leaves something that the next call completes.  Nothing waits for ever: locks are asked for in short
attempts, so that the application's statements never queue behind us for long, and whoever is in the way is named.

A writer whose transaction is open while its table comes into a publication would be lost with all that it wrote
before: neither a snapshot nor the feed has it.  So the table is locked against writers until the membership commits.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from threading import Event
from time import monotonic
from typing import Final

import psycopg

from dualwrite.connectors._pg_ddl import (
    Group,
    Inventory,
    adopted,
    ask,
    may_own,
    owner_groups,
    owner_script,
    release_groups,
    removal_groups,
)
from dualwrite.connectors._pg_installed import ALLOWED, Installed, Names, read_installed, read_slot, set_meta
from dualwrite.connectors._pg_obstacles import Server, captured_tables, read_server, server_obstacles, table_obstacles
from dualwrite.connectors._pg_schema import Catalog, Facts
from dualwrite.connectors._pg_session import Connection, Database
from dualwrite.connectors._sql import literal, needs
from dualwrite.errors import Denied, Halted, PositionLost, Problem, Unavailable
from dualwrite.schema import View

PATIENCE: Final = 30.0
"""Seconds to wait for others who are in the way."""
ATTEMPT: Final = 0.3
"""Seconds of one attempt to get a lock: as long may an application's statement queue behind us."""
PROMOTE: Final = "promote it, or correct the url so that it leads to the primary server"
DIVERTED: Final = "a standby has taken the server's place, or it was restored to an earlier time"
"""Why changes may have been missed where the server's timeline is another one."""
ADVANCED: Final = "its replication slot was made anew, or advanced, by somebody else"
REMEDY: Final = "stop the maps of this link and start them again with an initial sync"
START_AGAIN: Final = "start the map again: it compares both sides"

_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 2.0  # so that who waits behind our attempts is mostly not waiting
_IN_THE_WAY: Final = (
    psycopg.errors.LockNotAvailable,
    psycopg.errors.DeadlockDetected,
    psycopg.errors.ObjectInUse,
)
_SETTINGS: Final = """
    SELECT set_config('lock_timeout', $1, false), set_config('default_transaction_isolation', 'read committed', false),
        set_config('default_transaction_read_only', 'off', false),
        set_config('default_transaction_deferrable', 'off', false),
        CASE WHEN version() LIKE '%linux%' -- when we are killed, the server does not go on for us
            THEN set_config('client_connection_check_interval', '1s', false) END"""
_END_HOLDER: Final = """
    SELECT pg_terminate_backend(a.pid) FROM pg_replication_slots s JOIN pg_stat_activity a ON a.pid = s.active_pid
    WHERE a.pid = $1 AND s.slot_name = $2
        AND (pg_has_role(a.usesysid, 'USAGE') OR pg_has_role('pg_signal_backend', 'USAGE'))"""
_WHO: Final = """
    coalesce('process ' || l.pid || coalesce(' of ' || a.usename, '') || coalesce(' in ' || a.datname, '')
        || coalesce(' (' || nullif(a.application_name, '') || ')', ''), 'a prepared transaction')"""
_LOCKERS: Final = f"""
    SELECT DISTINCT {_WHO} FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid
    WHERE l.granted AND l.pid IS DISTINCT FROM pg_backend_pid() AND l.relation = ANY ($1::oid[])
        AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"""
_WRITERS: Final = f"""
    SELECT DISTINCT {_WHO} FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid
    WHERE l.granted AND l.pid IS DISTINCT FROM pg_backend_pid() AND l.locktype = 'transactionid'"""


# -- installing ------------------------------------------------------------------------------------------------------


def obstacles(
    connection: Connection, names: Names, catalog: Catalog, views: Sequence[View], server: Server, installed: Installed
) -> list[Problem]:
    """Everything that keeps these views from being captured, whoever installs."""
    shown = {name: need.shown | need.followed for name, need in needs(catalog.schema, views).items()}
    tables = captured_tables(catalog, views)
    return [
        *server_obstacles(server, installed),
        *table_obstacles(connection, names, server, tables, shown),
    ]


def interruption(inventory: Inventory) -> str:
    """Why changes of any table may have been missed since the token was made; empty when none were, or there is none
    yet."""
    installed = inventory.installed
    if "token" not in installed.meta:
        return ""
    if installed.is_diverted:
        return DIVERTED
    slot, publication = installed.slot, installed.publication
    if slot is None or not slot.is_ours:
        return "its replication slot was dropped"
    if installed.is_advanced:
        return ADVANCED
    if slot.lost:
        return f"its replication slot has lost a part of the server's log ({slot.lost})"
    if publication is None or publication.oid != installed.published[0]:
        return "its publication was dropped"
    return "" if publication.is_complete else "its publication was altered"


def interrupted_views(inventory: Inventory, catalog: Catalog, views: Sequence[View]) -> Iterator[Halted]:
    """The views of which changes may have been missed since the token was made, though not of the others."""
    if "token" not in inventory.installed.meta or interruption(inventory):
        return
    for view in views:
        tables = captured_tables(catalog, [view])
        reason = next((told for facts in tables if (told := _missed(inventory, facts))), "")
        if reason:
            yield Halted(view.name, f"{reason}, so changes may have been missed", START_AGAIN)


def _missed(inventory: Inventory, facts: Facts) -> str:
    """Why changes of a table may have been missed."""
    installed = inventory.installed
    _, members = installed.published
    assert installed.publication is not None
    if facts.oid not in members:
        named = {installed.captured[oid].sql for oid in members if oid in installed.captured}
        return f"table {facts.name} was created anew" if facts.sql in named else ""
    if installed.publication.members.get(facts.oid) != members[facts.oid]:
        return f"table {facts.name} was taken out of its publication"
    held = installed.captured.get(facts.oid)
    leaves = held.leaves if held is not None else {}
    changed = any(inventory.tables[oid].identity != "FULL" for oid in leaves if oid in inventory.tables)
    return f"the replica identity of {facts.name} was changed" if changed else ""


class Capture:
    """Installs and uninstalls; each call has a session of its own.  ``patience`` is in seconds."""

    def __init__(self, database: Database, patience: float = PATIENCE) -> None:
        self._database = database
        self._patience = patience

    def install(self, load: Callable[[Connection], Catalog], views: Sequence[View]) -> None:
        """Create, extend, shrink or mend everything for exactly these views; ``load`` reads the catalog.

        Raises Denied where something stands in the way, or the tables' owner has to run something first; Unavailable
        where somebody holds a lock or a transaction for too long; PositionLost, though everything is installed, when
        changes of any table may have been missed; Halted, with nothing done, when changes of one view's tables may have
        been, which then is to be left out.
        """
        with self._session() as (connection, names):
            catalog = load(connection)
            server = read_server(connection)
            refuse_standby(self._database, server.is_standby)
            wanted = captured_tables(catalog, views)
            inventory = Inventory.read(connection, names, wanted)
            self._check(connection, names, catalog, views, server, inventory.installed)
            for halted in interrupted_views(inventory, catalog, views):
                raise halted
            reason = interruption(inventory)
            if reason:  # first of all: what is mended below cannot be noticed again after a crash
                connection.execute(f"DELETE FROM {names.table('meta')} WHERE name = 'token'".encode())
            script = owner_script(connection, names, catalog, views, server, inventory)
            if script:
                message = f"role {server.role} may not install link {names.link} by itself"
                raise Denied(f"{self._database.shown}: {message}", ask(script))
            for group in owner_groups(names, inventory, wanted, server.version):
                self._run(connection, group)
            self._start(connection, names, wanted)
            inventory = Inventory.read(connection, names, wanted)
            extra = inventory.installed.captured.keys() - {facts.oid for facts in wanted}
            if may_own(server, inventory, extra):
                for group in release_groups(names, inventory, extra):
                    self._run(connection, group)
        if reason:
            raise PositionLost(
                f"{self._database.shown}: link {self._database.link}: {reason}, so changes may have been missed", REMEDY
            )

    def extend(self, load: Callable[[Connection], Catalog], views: Sequence[View]) -> None:
        """Complete what is missing for the tables of these views, of which a link is installed, if the role may.

        Raises Unavailable where somebody holds a lock.
        """
        with self._session() as (connection, names):
            wanted = captured_tables(load(connection), views)
            server, inventory = read_server(connection), Inventory.read(connection, names, wanted)
            if may_own(server, inventory, [facts.oid for facts in wanted]):
                for group in owner_groups(names, inventory, wanted, server.version):
                    self._run(connection, group)

    @contextmanager
    def _session(self) -> Iterator[tuple[Connection, Names]]:
        """A session in which nobody else installs or uninstalls a link in this database."""
        with closing(self._database.connect()) as connection, self._database.errors():
            names = Names.of(connection, self._database.link)
            connection.execute(_SETTINGS.encode(), [f"{self._patience:.3f}s"])
            connection.execute("SELECT pg_advisory_lock(hashtextextended('dualwrite', 0))")
            yield connection, names

    def _check(
        self,
        connection: Connection,
        names: Names,
        catalog: Catalog,
        views: Sequence[View],
        server: Server,
        installed: Installed,
    ) -> None:
        """Refuse what cannot be installed, whoever does it."""
        if installed.is_copied:
            raise Denied(
                f"{self._database.shown} holds link {names.link} of another database, from a backup",
                "run `dualwrite uninstall`, then start anew",
            )
        problems = obstacles(connection, names, catalog, views, server, installed)
        if problems:
            remedies = dict.fromkeys(problem.remedy for problem in problems)
            message = "; ".join(problem.message for problem in problems)
            raise Denied(f"{self._database.shown}: {message}", "; ".join(remedies))

    def _start(self, connection: Connection, names: Names, wanted: Sequence[Facts]) -> None:
        """What the running role does: origin, slot, and last the token, which says that all of it is there."""
        installed = read_installed(connection, names)
        publication, slot = installed.publication, installed.slot
        assert publication is not None
        if not installed.has_origin:
            connection.execute("SELECT pg_replication_origin_create($1)", [names.slot])
        is_stale = slot is not None and bool(
            slot.lost or publication.oid != (installed.published[0] or publication.oid)
        )
        if slot is not None and not slot.is_ours:
            raise Denied(
                f"{self._database.shown}: the replication slot {names.slot} is not one that dualwrite has made",
                f"if nobody needs it: SELECT pg_drop_replication_slot({literal(names.slot)})",
            )
        if is_stale:
            self._drop_slot(connection, names)
        if slot is None or is_stale or not slot.is_ready:
            self._create_slot(connection, names)
        members = {str(facts.oid): publication.members[facts.oid] for facts in wanted}
        values = {"published": json.dumps({"publication": publication.oid, "members": members})}
        if installed.timeline is not None:
            values["timeline"] = installed.timeline
        if "token" not in installed.meta:
            slot = read_slot(connection, names)
            assert slot is not None
            values |= {"token": secrets.token_hex(8), ALLOWED: str(slot.confirmed)}
        with connection.transaction():
            for name, value in values.items():
                connection.execute(set_meta(names, name, value).encode())

    # -- the slot

    def _create_slot(self, connection: Connection, names: Names) -> None:
        """Create it; the server waits for every transaction that writes to end first, we not for ever."""
        connection.execute(f"SET statement_timeout = '{self._patience:.3f}s'".encode())
        try:
            connection.execute("SELECT pg_create_logical_replication_slot($1, 'pgoutput')", [names.slot])
        except (psycopg.errors.QueryCanceled, psycopg.errors.LockNotAvailable) as exc:
            raise Unavailable(
                f"{self._database.shown}: the replication slot waits for open transactions: {_writers(connection)}",
                "end them, or try again later",
            ) from exc
        except psycopg.errors.DuplicateObject as exc:  # a session that is dead by now has begun with it
            slot = read_slot(connection, names)
            if slot is None or not slot.is_ready:
                raise Unavailable(
                    f"{self._database.shown}: another session is creating the replication slot", "try again"
                ) from exc
        finally:
            connection.execute("SET statement_timeout = 0")

    def _drop_slot(self, connection: Connection, names: Names) -> None:
        """Drop it; who still reads it, a session that died without a word for instance, is ended."""

        def drop() -> None:
            slot = read_slot(connection, names)
            if slot is None or not slot.is_ours:
                return
            if slot.holder is not None:
                connection.execute(_END_HOLDER, [slot.holder, names.slot])
            connection.execute("SELECT pg_drop_replication_slot($1)", [names.slot])

        self._patiently(drop, lambda: f"the replication slot {names.slot} is held by another session")

    # -- groups

    def _run(self, connection: Connection, group: Group) -> None:
        def run() -> None:
            with connection.transaction():
                connection.execute(f"SET LOCAL lock_timeout = '{min(ATTEMPT, self._patience):.3f}s'".encode())
                for statement in group.statements:
                    connection.execute(statement.encode())

        self._patiently(run, lambda: f"others hold locks on tables of the link: {_lockers(connection, group.locks)}")

    def _patiently(self, action: Callable[[], None], told: Callable[[], str]) -> None:
        deadline, pause = monotonic() + self._patience, _PAUSE
        while True:
            try:
                return action()
            except _IN_THE_WAY as exc:
                if monotonic() > deadline:
                    raise Unavailable(f"{self._database.shown}: {told()}", "end them, or try again later") from exc
                Event().wait(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)

    # -- uninstalling

    def uninstall(self) -> None:
        """Remove everything, in an order in which the application is never hindered.  Idempotent.

        Raises Denied where the tables' owner has to run something, Unavailable where somebody holds a lock, the slot
        or the origin for too long.
        """
        with self._session() as (connection, names):
            server = read_server(connection)
            refuse_standby(self._database, server.is_standby)
            inventory = adopted(connection, Inventory.read(connection, names))
            self._drop_slot(connection, names)
            self._patiently(
                lambda: _drop_origin(connection, names),
                lambda: f"the replication origin {names.slot} is held by another session",
            )
            groups = removal_groups(names, inventory)
            if groups and not may_own(server, inventory, inventory.installed.captured):
                script = "".join(group.text() for group in groups)
                raise Denied(
                    f"{self._database.shown}: role {server.role} may not remove all of link {names.link} by itself",
                    ask(script),
                )
            for group in groups:
                self._run(connection, group)


def refuse_standby(database: Database, is_standby: bool) -> None:
    """Raises Unavailable for a server that takes no writes: what it lacks of the link says nothing about the link."""
    if is_standby:
        raise Unavailable(*standby_told(database))


def standby_told(database: Database) -> tuple[str, str]:
    """What is said of a standby, and what to do about it."""
    return f"{database.shown} is a standby, which takes no writes", PROMOTE


def _drop_origin(connection: Connection, names: Names) -> None:
    if read_installed(connection, names).has_origin:
        connection.execute("SELECT pg_replication_origin_drop($1)", [names.slot])


def _lockers(connection: Connection, tables: Sequence[int]) -> str:
    """Who holds locks on tables, for people."""
    return _told(connection.execute(_LOCKERS.encode(), [list(tables)]).fetchall())


def _writers(connection: Connection) -> str:
    """Whose transactions have written something, anywhere in the cluster, for people."""
    return _told(connection.execute(_WRITERS.encode()).fetchall())


def _told(rows: Sequence[tuple[str]]) -> str:
    return ", ".join(who for (who,) in rows) or "they have just ended"
