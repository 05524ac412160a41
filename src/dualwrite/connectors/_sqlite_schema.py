"""Reads what an SQLite database says of its tables: the schema, and the facts that only this connector needs.

What no PRAGMA tells (collations of columns, WITHOUT ROWID, conflict clauses, deferred keys) is read out of the
CREATE statements, token by token.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from dualwrite.connectors._sql import natural_key, quote
from dualwrite.schema import Column, ColumnType, Reference, Schema, Table, TypeName

OWN_PREFIX = "dualwrite_"
"""Objects of any link begin with it; they are no tables of the application."""


@dataclass(frozen=True, slots=True)
class Unique:
    """A unique index or constraint: columns with their collations, and the condition of a partial one."""

    columns: tuple[str, ...]
    collations: tuple[str, ...]
    where: str | None = None


@dataclass(frozen=True, slots=True)
class ForeignKey:
    """A declared foreign key."""

    columns: tuple[str, ...]
    table: str
    to: tuple[str, ...]
    on_update: str
    on_delete: str
    deferred: bool

    @property
    def acts(self) -> bool:
        """Do changes of the parent change or delete the children?"""
        return bool({self.on_update, self.on_delete} & {"CASCADE", "SET NULL", "SET DEFAULT"})

    @property
    def follows(self) -> bool:
        """Do children change when the parent gets another key?"""
        return self.on_update in ("CASCADE", "SET NULL", "SET DEFAULT")


@dataclass(frozen=True, slots=True)
class Trigger:
    """A trigger of the application; ``place`` tells in which order triggers were created."""

    name: str
    place: int
    sql: str


@dataclass(frozen=True, slots=True)
class Facts:
    """What only SQLite has to know of a table.

    ``rowid`` is a name by which the rowid can be read, None for tables without.  ``expression_index``: some unique
    index is over an expression.  ``overrides``: some constraint resolves conflicts by itself.
    """

    name: str
    key: tuple[str, ...]
    rowid: str | None
    affinities: Mapping[str, str]
    collations: Mapping[str, str]
    uniques: tuple[Unique, ...]
    foreign_keys: tuple[ForeignKey, ...]
    triggers: tuple[Trigger, ...]
    generated: frozenset[str]
    defaults: frozenset[str]
    indexed: tuple[tuple[str, ...], ...]
    expression_index: bool
    overrides: bool
    virtual: bool

    @property
    def identity(self) -> tuple[str, ...]:
        """What tells the rows apart: the rowid, or the primary key of a table without."""
        return (self.rowid,) if self.rowid else self.key

    @property
    def selves(self) -> tuple[ForeignKey, ...]:
        """The foreign keys by which a row's new key changes the row once more, where it refers to itself."""
        return tuple(key for key in self.foreign_keys if key.table == self.name and key.follows)

    def is_indexed(self, columns: Sequence[str]) -> bool:
        """Can rows be found by these columns without reading all of them?"""
        return any(set(index[: len(columns)]) == set(columns) for index in self.indexed) or columns == (self.rowid,)


@dataclass(frozen=True, slots=True)
class Catalog:
    """A schema with the facts of its tables, as of one ``schema_version``."""

    schema: Schema
    facts: Mapping[str, Facts]
    version: int

    def pointing_at(self, table: str) -> Iterator[tuple[Facts, ForeignKey]]:
        """The declared foreign keys that lead to a table."""
        for facts in self.facts.values():
            for key in facts.foreign_keys:
                if key.table == table:
                    yield facts, key


# -- reading CREATE statements ---------------------------------------------------------------------------------------

_TOKEN = re.compile(
    r"""\s+ | --[^\n]* | /\*.*?\*/ |
    (?P<name>"(?:[^"]|"")*" | `(?:[^`]|``)*` | \[[^\]]*\]) |
    (?P<text>'(?:[^']|'')*') | (?P<word>[^\W\d][\w$]*) | (?P<other>\d[\w.]*|.)""",
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Token:
    """One token of a statement: its text without quotes, in capitals when it is a bare word; where it starts."""

    text: str
    word: str
    start: int


def tokens(sql: str) -> list[Token]:
    """The tokens of a statement, comments and blanks left out."""
    found = []
    for match in _TOKEN.finditer(sql):
        kind, text = match.lastgroup, match.group()
        if kind == "name":
            mark = text[-1]
            found.append(Token(text[1:-1].replace(mark * 2, mark), "", match.start()))
        elif kind is not None:
            word = {"word": text.upper(), "other": text}.get(kind, "")
            found.append(Token(text, word, match.start()))
    return found


def definitions(sql: str) -> tuple[list[list[Token]], list[Token]]:
    """The parts between the outermost brackets of a CREATE TABLE, and what follows the brackets."""
    parts: list[list[Token]] = [[]]
    depth = 0
    rest: list[Token] = []
    for token in tokens(sql):
        depth += (token.word == "(") - (token.word == ")")
        if depth == 0 and token.word == ")":
            rest = []
        elif depth == 0:
            rest.append(token)
        elif depth == 1 and token.word == ",":
            parts.append([])
        elif depth > 1 or token.word != "(":
            parts[-1].append(token)
    return parts, rest


def collations(sql: str) -> dict[str, str]:
    """The collation of each column that declares one, by the column's name in small letters."""
    found = {}
    for part in definitions(sql)[0]:
        depth = 0
        for token, following in pairwise(part):
            depth += (token.word == "(") - (token.word == ")")
            if depth == 0 and token.word == "COLLATE" and token is not part[0]:
                found[part[0].text.lower()] = following.text.upper()
    return found


def partial_condition(sql: str) -> str | None:
    """What stands behind WHERE in a CREATE INDEX."""
    depth = 0
    for token in tokens(sql):
        depth += (token.word == "(") - (token.word == ")")
        if depth == 0 and token.word == "WHERE":
            return sql[token.start + len("WHERE") :].strip()
    return None


def _has_words(found: Sequence[Token], *words: str) -> bool:
    spelled = [token.word for token in found]
    return any(tuple(spelled[i : i + len(words)]) == words for i in range(len(spelled)))


# -- types -----------------------------------------------------------------------------------------------------------

_DECLARED = re.compile(r"\s*([^(]*?)\s*(?:\(\s*(\d+)\s*(?:,\s*(\d+)\s*)?\))?([^(]*)\s*$", re.DOTALL)
_FAMILIES: tuple[tuple[str, TypeName], ...] = (
    (r"TIMESTAMPTZ|DATETIMEOFFSET|WITH TIME ?ZONE|DATETIMETZ", TypeName.TIMESTAMPTZ),
    (r"DATETIME|TIMESTAMP", TypeName.TIMESTAMP),
    (r"^DATE\b", TypeName.DATE),
    (r"^TIME\b", TypeName.TIME),
    (r"UUID|GUID|UNIQUEIDENTIFIER", TypeName.UUID),
    (r"JSON", TypeName.JSON),
    (r"BOOL|^BIT$", TypeName.BOOLEAN),
    (r"(\b|BIG|SMALL|TINY|MEDIUM)INT", TypeName.INTEGER),
    (r"CHAR|CLOB|TEXT|STRING", TypeName.TEXT),
    (r"BLOB|BINARY|BYTEA|IMAGE", TypeName.BYTES),
    (r"REAL|FLOA|DOUB", TypeName.FLOAT),
    (r"DEC|NUMERIC|NUMBER|MONEY|CURRENCY", TypeName.NUMERIC),
)


def column_type(declared: str) -> ColumnType:
    """The type of a column declared like this; ``other`` for what says nothing."""
    match = _DECLARED.match(declared.upper())
    if match is None:
        return ColumnType(TypeName.OTHER)
    word = f"{match[1]} {match[4]}".strip()
    first, second = (int(digits) if digits else None for digits in (match[2], match[3]))
    name = next((name for pattern, name in _FAMILIES if re.search(pattern, word)), TypeName.OTHER)
    if name is TypeName.TEXT:
        return ColumnType(name, length=first)
    if name is TypeName.NUMERIC and first is not None:
        return ColumnType(name, precision=first, scale=second or 0)
    if name is TypeName.INTEGER:
        return ColumnType(name, bits=16 if re.search(r"TINY|SMALL|INT2", word) else 64)
    return ColumnType(name)


def affinity(declared: str) -> str:
    """SQLite's own reading of a declared type."""
    word = declared.upper()
    if "INT" in word:
        return "INTEGER"
    if any(part in word for part in ("CHAR", "CLOB", "TEXT")):
        return "TEXT"
    if not word or "BLOB" in word:
        return "BLOB"
    if any(part in word for part in ("REAL", "FLOA", "DOUB")):
        return "REAL"
    return "NUMERIC"


# -- reading the database --------------------------------------------------------------------------------------------


def read_catalog(connection: sqlite3.Connection) -> Catalog:
    """Everything that the database says of the application's tables."""
    version = int(connection.execute("PRAGMA schema_version").fetchone()[0])
    rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table' ORDER BY name").fetchall()
    found = [
        _read_table(connection, name, sql) for name, sql in rows if not name.lower().startswith(("sqlite_", OWN_PREFIX))
    ]
    by_letters = {table.name.lower(): table for table, _ in found}
    facts = {facts.name: _with_targets(facts, by_letters) for _, facts in found}
    tables = {table.name: replace(table, references=_references(facts[table.name])) for table, _ in found}
    keyed = {name: replace(table, key=natural_key(tables, name)) for name, table in tables.items()}
    return Catalog(Schema(keyed), facts, version)


def _read_table(connection: sqlite3.Connection, name: str, sql: str) -> tuple[Table, Facts]:
    virtual = bool(re.match(r"\s*CREATE\s+VIRTUAL\b", sql, re.IGNORECASE))
    info = connection.execute(f"PRAGMA table_xinfo({quote(name)})").fetchall()
    info = [row for row in info if row[6] != 1]
    collated = {} if virtual else collations(sql)
    options = [] if virtual else definitions(sql)[1]
    key = tuple(row[1] for row in sorted((row for row in info if row[5]), key=lambda row: row[5]))
    without_rowid = _has_words(options, "WITHOUT", "ROWID")
    by_name = {row[1]: row for row in info}
    indexes = connection.execute(f"PRAGMA index_list({quote(name)})").fetchall()
    has_key_index = any(row[3] == "pk" for row in indexes)  # so has INTEGER PRIMARY KEY DESC, which is no rowid
    serial = bool(key) and not without_rowid and not has_key_index and by_name[key[0]][2].upper() == "INTEGER"
    collation_of = {row[1]: collated.get(row[1].lower(), "BINARY") for row in info}
    uniques, expression_index = _uniques(connection, name, info, key if serial else ())
    generated = frozenset(row[1] for row in info if row[6] in (2, 3))
    defaults = frozenset(row[1] for row in info if row[4] is not None and row[4].upper() != "NULL")
    names = {row[1].lower() for row in info}
    rowid = next((alias for alias in ("rowid", "_rowid_", "oid") if alias not in names), None)
    facts = Facts(
        name=name,
        key=key,
        rowid=key[0] if serial else None if without_rowid else rowid,
        affinities={row[1]: affinity(row[2]) for row in info},
        collations=collation_of,
        uniques=uniques,
        foreign_keys=_foreign_keys(connection, name, sql),
        triggers=_triggers(connection, name),
        generated=generated,
        defaults=defaults | (frozenset(key) if serial else frozenset()),
        indexed=_indexed(connection, name, key),
        expression_index=expression_index,
        overrides=_has_words(tokens(sql), "ON", "CONFLICT"),
        virtual=virtual,
    )
    columns = tuple(
        Column(
            name=row[1],
            type=column_type(row[2]),
            nullable=not row[3] and (row[1] not in key or (not without_rowid and not serial)),
            has_default=row[1] in facts.defaults,
            read_only=row[1] in generated,
            ignore_case=collation_of[row[1]] == "NOCASE",
            ignore_trailing_blanks=collation_of[row[1]] == "RTRIM",
        )
        for row in info
    )
    whole = tuple(dict.fromkeys(unique.columns for unique in uniques if unique.where is None))
    return Table(name, columns, primary_key=key, uniques=whole), facts


def _uniques(
    connection: sqlite3.Connection, table: str, info: Sequence[tuple[object, ...]], serial: tuple[str, ...]
) -> tuple[tuple[Unique, ...], bool]:
    found = [Unique(serial, ("BINARY",))] if serial else []
    expression = False
    for _, index, unique, _, partial in connection.execute(f"PRAGMA index_list({quote(table)})").fetchall():
        if not unique:
            continue
        parts = [row for row in connection.execute(f"PRAGMA index_xinfo({quote(index)})") if row[5]]
        if any(row[1] < 0 or row[2] is None for row in parts):
            expression = True
            continue
        where = _index_condition(connection, index) if partial else None
        found.append(Unique(tuple(row[2] for row in parts), tuple(row[4].upper() for row in parts), where))
    order = {row[1]: row[0] for row in info}
    found.sort(key=lambda unique: [order[name] for name in unique.columns])
    return tuple(found), expression


def _index_condition(connection: sqlite3.Connection, index: str) -> str | None:
    sql = connection.execute("SELECT sql FROM sqlite_master WHERE type = 'index' AND name = ?", (index,)).fetchone()
    return partial_condition(sql[0]) if sql and sql[0] else None


def _indexed(connection: sqlite3.Connection, table: str, key: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    found = [key] if key else []
    for _, index, _, _, partial in connection.execute(f"PRAGMA index_list({quote(table)})").fetchall():
        columns = tuple(row[2] for row in connection.execute(f"PRAGMA index_info({quote(index)})"))
        if not partial and None not in columns:
            found.append(columns)
    return tuple(found)


def _triggers(connection: sqlite3.Connection, table: str) -> tuple[Trigger, ...]:
    rows = connection.execute(
        "SELECT name, rowid, sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = ? COLLATE NOCASE", (table,)
    )
    return tuple(Trigger(*row) for row in rows if not row[0].lower().startswith(OWN_PREFIX))


def _foreign_keys(connection: sqlite3.Connection, table: str, sql: str) -> tuple[ForeignKey, ...]:
    rows = connection.execute(f"PRAGMA foreign_key_list({quote(table)})").fetchall()
    deferred = _has_words(tokens(sql), "INITIALLY", "DEFERRED")  # of some key at least: checked early either way
    found = []
    for number in sorted({row[0] for row in rows}):
        mine = sorted((row for row in rows if row[0] == number), key=lambda row: row[1])
        to = tuple(row[4] for row in mine if row[4] is not None)
        found.append(ForeignKey(tuple(row[3] for row in mine), mine[0][2], to, mine[0][5], mine[0][6], deferred))
    return tuple(found)


def _with_targets(facts: Facts, tables: Mapping[str, Table]) -> Facts:
    """Foreign keys with the target's own spelling, and its primary key where none is named; without lost ones."""
    found = []
    for key in facts.foreign_keys:
        target = tables.get(key.table.lower())
        if target is None:
            continue
        spelled = {column.name.lower(): column.name for column in target.columns}
        to = tuple(spelled.get(name.lower(), name) for name in key.to) or target.primary_key
        mine = {name.lower(): name for name in facts.affinities}
        columns = tuple(mine.get(name.lower(), name) for name in key.columns)
        if len(to) == len(columns):
            found.append(replace(key, columns=columns, table=target.name, to=to))
    return replace(facts, foreign_keys=tuple(found))


def _references(facts: Facts) -> tuple[Reference, ...]:
    found: dict[str, Reference] = {}
    for key in facts.foreign_keys:
        name = "_".join(key.columns)
        found.setdefault(name, Reference(name, key.columns, key.table, key.to))
    return tuple(found.values())
