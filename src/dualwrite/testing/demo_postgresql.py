# ruff: noqa: S608  (names go through quote())
"""The demo's databases on PostgreSQL: the same tables, rows and maps, many of whose cells lie behind references."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from dualwrite.connectors._sql import quote
from dualwrite.demo.data import LEFT, RIGHT, build
from dualwrite.testing.postgresql import Database

_TYPES = {"DATETIME": "timestamp", "TEXT": "text", "BOOLEAN": "boolean", "INTEGER": "integer"}


def build_on_postgresql(folder: Path, left: Database, right: Database, *, customers: int) -> None:
    """Fill two empty databases, and write the demo's project over them into a folder."""
    build(folder, customers=customers)
    project = folder / "dualwrite.yaml"
    text = project.read_text(encoding="utf-8")
    for file, database in ((LEFT, left), (RIGHT, right)):
        with closing(sqlite3.connect(folder / file)) as given:
            _copy(given, database)
        (folder / file).unlink()
        text = text.replace(f"sqlite:///{file}", database.url)
    project.write_text(text, encoding="utf-8")


def _copy(given: sqlite3.Connection, database: Database) -> None:
    names = [name for (name,) in given.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    for name in names:
        database.run(_table(given, name))
        _fill(given, database, name)
    for name in names:
        for statement in _rest(given, name):
            database.run(statement)
    database.run("ANALYZE")


def _columns(given: sqlite3.Connection, table: str) -> list[tuple[Any, ...]]:
    """Each with its number, name, type, whether it may not be null, its default, and its place in the primary key."""
    return given.execute(f"PRAGMA table_info({quote(table)})").fetchall()


def _table(given: sqlite3.Connection, table: str) -> str:
    columns = _columns(given, table)
    parts = []
    for _, name, kind, is_needed, default, _ in columns:
        part = f"{quote(name)} {_TYPES.get(kind, kind)}" + " NOT NULL" * is_needed
        if default is not None:
            part += f" DEFAULT {_default(kind, default)}"
        parts.append(part)
    key = [quote(name) for place, name in sorted((column[5], column[1]) for column in columns) if place]
    return f"CREATE TABLE {quote(table)} ({', '.join(parts)}, PRIMARY KEY ({', '.join(key)}))"


def _default(kind: str, default: str) -> str:
    if "randomblob" in default:
        return "replace(gen_random_uuid()::text, '-', '')"
    return str(default == "1").lower() if kind == "BOOLEAN" else default


def _fill(given: sqlite3.Connection, database: Database, table: str) -> None:
    columns = _columns(given, table)
    flags = [place for place, column in enumerate(columns) if column[2] == "BOOLEAN"]
    named = ", ".join(quote(column[1]) for column in columns)
    with database.connect() as connection, connection.cursor() as cursor:
        with cursor.copy(f"COPY {quote(table)} ({named}) FROM STDIN".encode()) as copy:
            for row in given.execute(f"SELECT {named} FROM {quote(table)}"):
                cells = list(row)
                for place in flags:
                    cells[place] = None if cells[place] is None else bool(cells[place])
                copy.write_row(cells)
        connection.commit()


def _rest(given: sqlite3.Connection, table: str) -> list[str]:
    """The indexes and foreign keys."""
    found = []
    for _, index, is_unique, origin, _ in given.execute(f"PRAGMA index_list({quote(table)})").fetchall():
        if origin != "pk":
            named = ", ".join(quote(row[2]) for row in given.execute(f"PRAGMA index_info({quote(index)})"))
            found.append(f"CREATE{' UNIQUE' * is_unique} INDEX ON {quote(table)} ({named})")
    for _, _, parent, own, to, *_ in given.execute(f"PRAGMA foreign_key_list({quote(table)})").fetchall():
        reference = f"FOREIGN KEY ({quote(own)}) REFERENCES {quote(parent)} ({quote(to)})"
        found.append(f"ALTER TABLE {quote(table)} ADD {reference}")
    return found
