"""Connections to a PostgreSQL database, and the one place where its errors become ours.

Every session speaks canonical text: its settings fix how values are written, whatever the server, the role or the
application are set to, and results of every type arrive as that text (``True`` as ``"t"``, numbers as digits).
Statements number what is bound: ``$1``, ``$2`` ….

Passwords, certificates and the like come from the url, the environment (``PGPASSWORD``, ``PGSSLMODE`` …) or
``~/.pgpass``, as for every PostgreSQL client, and are shown nowhere.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from select import POLLIN, poll
from typing import Any, Final, TypeAlias

import psycopg
from psycopg import RawCursor
from psycopg.adapt import AdaptersMap
from psycopg.conninfo import conninfo_to_dict
from psycopg.types.string import TextLoader

from dualwrite.connectors._sql import literal
from dualwrite.errors import Busy, Denied, DualwriteError, Unavailable, Usage
from dualwrite.filters import POSTGRESQL
from dualwrite.urls import mask

Connection: TypeAlias = psycopg.Connection[tuple[Any, ...]]

SETTINGS: Final = {
    "datestyle": "ISO,YMD",
    "intervalstyle": "postgres",
    "timezone": "UTC",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "standard_conforming_strings": "on",
    "xmlbinary": "base64",
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
    "lock_timeout": "0",
    "default_transaction_isolation": r"read\ committed",
}
"""What every session is set to, whatever its role is; the first seven decide how values are spelled."""

_DEFAULTS: Final = {
    "connect_timeout": "10",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",  # milliseconds; a network that was cut is noticed
}

_LATER: Final = {
    "25P03": ("ended the session: its transaction was idle for too long", "try again"),
    "25P04": ("ended the session: its transaction took too long", "try again"),
    "25006": ("takes no writes for now", "connect to the primary server"),
    "40001": ("could not serialize a transaction with others", "try again"),
    "40P01": ("ended a deadlock with others", "try again"),
    "53100": ("cannot grow: the disk is full", "free some space on the server"),
    "53200": ("has no memory left", "free some memory on the server"),
    "53300": ("takes no more connections", "close some, or raise max_connections"),
    "53400": ("has reached a limit of its configuration", "run `dualwrite check`, which names the setting to raise"),
    "55006": ("is busy: an object is in use", "wait for, or end, the session that uses it"),
    "55P03": ("is busy: a lock cannot be had", "find the session that keeps a transaction open"),
    "57014": ("cancelled a statement", "try again"),
    "57P03": ("is starting, or shutting down", "try again"),
}
_BUSY: Final = ("40001", "40P01", "55P03")
"""Of these, those that a transaction meets which others are in the way of."""
_NEVER: Final = {
    "3D000": ("does not exist", "correct the url, or create the database"),
    "42501": ("does not permit this", "grant the privilege, see docs/privileges.md"),
    "57P04": ("was dropped", "correct the url, or restore the database"),
}
_CLASSES_LATER: Final = {
    "08": ("does not answer", "check the url, the server and the network"),
    "53": ("has no resources left", "look into the server's log"),
    "57": ("ended the session", "try again"),
    "58": ("has trouble with its system", "look into the server's log"),
}
_ROWS: Final = ("22", "23", "44", "P0")
"""Classes of errors that concern single rows."""
_BUGS: Final = ("25", "34")
_REFUSED_LOGIN: Final = re.compile(  # a refused connection tells no code
    r"authentication failed|no password supplied|no pg_hba\.conf entry|pg_hba\.conf rejects|role .* does not exist"
    r"|role .* is not permitted to log in|permission denied|certificate|SSL was required|does not support SSL"
    r"|must be superuser or replication role|could not translate host name .* Name or service not known",
    re.IGNORECASE,
)
_WRONG: Final = re.compile(r"\binvalid (?:\w+ value|port number|connection option)\b", re.IGNORECASE)
"""What libpq says of parameters before it connects to anything."""
_LOGIN: Final = ("refuses the login", "correct the url, PGPASSWORD or ~/.pgpass, or what the server permits")
_STATEMENT: Final = ("refuses a statement", "the tables may have changed: run `dualwrite check`")


def _text_of_every_type() -> AdaptersMap:
    adapters = AdaptersMap(psycopg.adapters)
    for info in adapters.types:
        adapters.register_loader(info.oid, TextLoader)
        if info.array_oid:
            adapters.register_loader(info.array_oid, TextLoader)
    return adapters


TEXT: Final = _text_of_every_type()
"""What makes psycopg return every value as the server spells it."""


def written_out(sql: str, values: Sequence[object]) -> str:
    """The statement with its placeholders (``filters.POSTGRESQL``) replaced by literals: COPY takes no bound values."""
    parts = sql.split(POSTGRESQL.placeholder)
    return parts[0] + "".join(_literal(value) + part for value, part in zip(values, parts[1:], strict=True))


def _literal(value: object) -> str:
    if isinstance(value, str):
        return "E" + literal(value.replace("\\", r"\\"))  # the same whatever the session makes of a backslash
    return f"{literal(str(value))}::numeric"


@dataclass(frozen=True, slots=True)
class Database:
    """A PostgreSQL database as one link reaches it.  ``shown`` names it for people, without secrets."""

    parameters: Mapping[str, Any] = field(repr=False)
    shown: str
    link: str

    @classmethod
    def of(cls, url: str, link: str) -> Database:
        """The database of a url like ``postgresql://user@host/name?sslmode=require``; raises Usage for others."""
        scheme, mark, rest = url.partition("://")
        try:
            parameters = conninfo_to_dict(f"{scheme.partition('+')[0].lower()}{mark}{rest}")
            if not re.fullmatch(r"[\d,]*", str(parameters.get("port") or "")):
                raise psycopg.ProgrammingError("the port is no number")
            if "@" in str(parameters.get("host") or ""):
                raise psycopg.ProgrammingError("the host begins with a part of the password")
        except psycopg.Error:  # its words may hold a part of the password
            raise Usage(
                f"{mask(url)!r} is not the url of a PostgreSQL database",
                "write postgresql://user@host:port/database, with %40 for an @ in a name or password",
            ) from None
        host, port = parameters.get("host"), parameters.get("port")
        place = f" at {host}" if host else ""
        shown = f"{parameters.get('dbname') or 'database'}{place}{f':{port}' if port else ''}"
        return cls(_DEFAULTS | parameters, shown, link)

    @property
    def place(self) -> str:
        """How the database is reached: by which host and port, wherever these are said."""
        found = {**os.environ, **{f"PG{name.upper()}": value for name, value in self.parameters.items() if value}}
        service = found.get("PGSERVICE")
        host = found.get("PGHOST") or found.get("PGHOSTADDR") or (f"service {service}" if service else "localhost")
        return f"{host}:{found.get('PGPORT') or ('' if service else '5432')}"

    def connect(self, *, replication: bool = False) -> Connection:
        """A new session in autocommit mode; ``replication``: one that takes replication commands as well."""
        parameters: dict[str, Any] = {"application_name": f"dualwrite_{self.link}", **self.parameters}
        fixed = " ".join(f"-c {name}={value}" for name, value in SETTINGS.items())
        parameters["options"] = f"{parameters.get('options') or ''} {fixed}".strip()  # the last of two holds
        if replication:
            parameters["replication"] = "database"
        with self.errors():
            connection = psycopg.connect(
                "",
                autocommit=True,
                cursor_factory=psycopg.Cursor if replication else RawCursor,
                context=TEXT,
                client_encoding="UTF8",
                prepare_threshold=None,  # psycopg loses track of what it prepared in a pipeline that is cut off
                **parameters,
            )
            if connection.info.server_version >= 170000:
                connection.execute("SET transaction_timeout = 0")
            return connection

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turn PostgreSQL's errors about the system into ours; those about single rows and our bugs pass."""
        try:
            yield
        except psycopg.Error as exc:
            ours = self.translated(exc)
            if ours is None:
                raise
            raise ours from exc

    def translated(self, exc: psycopg.Error) -> DualwriteError | None:
        """What an error means for the link; None where it concerns single rows, or is a bug of ours."""
        code = exc.sqlstate
        if code is None:
            return self._without_code(exc)
        if code not in _LATER and code[:2] in _ROWS + _BUGS:
            return None
        words = exc.diag.message_primary or str(exc)
        if code in _LATER or (code not in _NEVER and code[:2] in _CLASSES_LATER):
            what, remedy = _LATER.get(code) or _CLASSES_LATER[code[:2]]
            return (Busy if code in _BUSY else Unavailable)(f"{self.shown} {what} ({words})", remedy)
        what, remedy = _NEVER.get(code) or (_LOGIN if code[:2] == "28" else _STATEMENT)
        return Denied(f"{self.shown} {what} ({words})", remedy)

    def _without_code(self, exc: psycopg.Error) -> DualwriteError | None:
        """An error that did not come from the server's statement: the connection failed, or we use it wrongly."""
        if not isinstance(exc, psycopg.OperationalError):
            return None
        words = " ".join(str(exc).split())
        if re.search(r'database "?.*"? does not exist', words):
            what, remedy = _NEVER["3D000"]
            return Denied(f"{self.shown} {what} ({words})", remedy)
        if _REFUSED_LOGIN.search(words):
            what, remedy = _LOGIN
            return Denied(f"{self.shown} {what} ({words})", remedy)
        if _WRONG.search(words):
            return Denied(
                f"{self.shown} cannot be reached like this ({words})", "correct the url, or the PG… variables"
            )
        what, remedy = _CLASSES_LATER["08"]
        return Unavailable(f"{self.shown} {what} ({words})", remedy)


def is_usable(connection: Connection) -> bool:
    """Is an idle session still there?  What its server or the network have ended is not noticed by itself."""
    if connection.closed:
        return False
    waiting = poll()
    waiting.register(connection.pgconn.socket, POLLIN)
    while not connection.closed and waiting.poll(0):
        try:
            connection.pgconn.consume_input()  # a notice, or the end
        except psycopg.OperationalError:
            return False
    return not connection.closed
