"""The contract, kept by SQLite: with declared references that may dangle, and with foreign keys."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from dualwrite.canonical import canonical
from dualwrite.connectors.base import Connector
from dualwrite.connectors.sqlite import File, SqliteConnector
from dualwrite.declared import Declared, DeclaredTable
from dualwrite.model import Side, Value
from dualwrite.schema import Schema, TypeName
from dualwrite.testing.contract import ConnectorContract
from dualwrite.testing.example import DECLARED, SCHEMA, Example, create_sql, quote

WITHOUT_REFERENCES = Schema({name: replace(table, references=()) for name, table in SCHEMA.tables.items()})
REFERENCES = Declared(
    tables={
        name: DeclaredTable(name, references=table.references, polymorphic=table.polymorphic)
        for name, table in SCHEMA.tables.items()
    }
)
CAPITALS = """
CREATE TRIGGER capitals_{event} AFTER {event} ON item WHEN NEW.name <> upper(NEW.name)
BEGIN UPDATE item SET name = upper(NEW.name) WHERE id = NEW.id; END
"""


@dataclass(frozen=True)
class WatchedFile(File):
    """A file that knows its connections, so that they can be broken."""

    connections: list[sqlite3.Connection] = field(default_factory=list)

    def connect(self) -> sqlite3.Connection:
        """As ``File.connect``."""
        connection = super().connect()
        self.connections.append(connection)
        return connection


class SqliteUser:
    """One transaction of an application."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        """Work on an open transaction."""
        self._connection = connection

    def insert(self, table: str, values: Mapping[str, Value]) -> Mapping[str, Value]:
        """See ``ExampleUser``."""
        stored = [_stored(table, *item) for item in values.items()]
        names, places = ", ".join(map(quote, values)), ", ".join("?" * len(values))
        cursor = self._connection.execute(f"INSERT INTO {quote(table)} ({names}) VALUES ({places})", stored)
        return {"id": str(cursor.lastrowid), **values}

    def update(self, table: str, match: Mapping[str, Value], values: Mapping[str, Value]) -> int:
        """See ``ExampleUser``."""
        sets = ", ".join(f"{quote(name)} = ?" for name in values)
        bound = [_stored(table, *item) for item in (*values.items(), *match.items())]
        return self._connection.execute(f"UPDATE {quote(table)} SET {sets} WHERE {_same(match)}", bound).rowcount

    def delete(self, table: str, match: Mapping[str, Value]) -> int:
        """See ``ExampleUser``."""
        bound = [_stored(table, *item) for item in match.items()]
        return self._connection.execute(f"DELETE FROM {quote(table)} WHERE {_same(match)}", bound).rowcount

    def rows(self, table: str, match: Mapping[str, Value] | None = None) -> Sequence[Mapping[str, Value]]:
        """See ``ExampleUser``."""
        bound = [_stored(table, *item) for item in (match or {}).items()]
        cursor = self._connection.execute(f"SELECT * FROM {quote(table)} WHERE {_same(match or {})}", bound)
        names = [column[0] for column in cursor.description]
        return [{name: _text(table, name, value) for name, value in zip(names, row, strict=True)} for row in cursor]


def _same(match: Mapping[str, Value]) -> str:
    return " AND ".join(f"{quote(name)} IS ?" for name in match) or "1"


def _stored(table: str, name: str, value: Value) -> str | int | bytes | None:
    column = SCHEMA.tables[table].column(name)
    if value is None or column is None:
        return value
    if column.type.name is TypeName.BOOLEAN:
        return int(value == "t")
    return bytes.fromhex(value[2:]) if column.type.name is TypeName.BYTES else value


def _text(table: str, name: str, value: object) -> Value:
    column = SCHEMA.tables[table].column(name)
    if value is None or column is None:
        return None
    if column.type.name is TypeName.BOOLEAN:
        return "t" if value else "f"
    if column.type.name is TypeName.NUMERIC:
        return f"{value:.{column.type.scale}f}"
    return rf"\x{value.hex()}" if isinstance(value, bytes) else canonical(column.type)(str(value))


class SqliteSystem:
    """A database file with the example's tables."""

    def __init__(self, folder: Path, *, enforced: bool) -> None:
        """Create the file."""
        self._path = folder / "example.db"
        self._enforced = enforced
        self._files: dict[int, WatchedFile] = {}
        features = {"restrict", "set null"} if enforced else {"dangling"}
        self.features = frozenset({"length", "trigger", "links", *features})
        with closing(sqlite3.connect(self._path)) as connection:
            for statement in create_sql(SCHEMA if enforced else WITHOUT_REFERENCES):
                connection.execute(statement)

    def connector(self, link: str = "contract") -> Connector:
        """See ``System``."""
        file = WatchedFile(str(self._path))
        connector = SqliteConnector(file, link, Side.LEFT, DECLARED if self._enforced else REFERENCES)
        self._files[id(connector)] = file
        return connector

    @contextmanager
    def user(self) -> Iterator[SqliteUser]:
        """See ``System``."""
        with closing(sqlite3.connect(self._path, isolation_level=None, timeout=20)) as connection:
            connection.execute(f"PRAGMA foreign_keys = {int(self._enforced)}")
            connection.execute("BEGIN IMMEDIATE")
            yield SqliteUser(connection)
            connection.execute("COMMIT")

    def add_trigger(self) -> None:
        """See ``System``."""
        with closing(sqlite3.connect(self._path)) as connection:
            for event in ("INSERT", "UPDATE"):
                connection.execute(CAPITALS.format(event=event))

    def crash(self, connector: Connector) -> None:
        """See ``System``."""
        for connection in self._files[id(connector)].connections:
            connection.close()

    def traces(self) -> list[str]:
        """See ``System``."""
        with closing(sqlite3.connect(self._path)) as connection:
            return [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE name LIKE 'dualwrite%'")]


class SqliteContract(ConnectorContract):
    """The contract, but that a change bears the time of its statement: no trigger can know that of the commit."""

    def test_one_transaction_is_told_in_its_order(self, example: Example) -> None:
        """What one transaction did to several records comes in the order of its statements and of their times."""
        with example.system.user() as user:
            for code in ("c", "a", "b"):
                user.insert("flat", {"code": code})
            user.update("flat", {"code": "c"}, {"tag": "1"})
            user.delete("flat", {"code": "a"})
        found = example.changes()
        assert [change.key for change in found] == [("c",), ("a",), ("b",), ("c",), ("a",)]
        assert [change.at for change in found] == sorted(change.at for change in found)


class TestSqlite(SqliteContract):
    """A database that declares no foreign keys."""

    @pytest.fixture
    def system(self, tmp_path) -> SqliteSystem:
        """References may dangle."""
        return SqliteSystem(tmp_path, enforced=False)


class TestSqliteWithForeignKeys(SqliteContract):
    """A database that enforces references."""

    @pytest.fixture
    def system(self, tmp_path) -> SqliteSystem:
        """Deleting a record clears, or is refused by, what refers to it."""
        return SqliteSystem(tmp_path, enforced=True)
