"""Odd values, odd columns and odd tables through a whole link: what a person wrote is what the other side holds."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import psycopg
import pytest

from dualwrite.mapping.tablemap import ColumnMapping, Direction, TableMap
from dualwrite.mapping.writing import write_map
from dualwrite.testing.postgresql import Database, Server

TYPES = """
CREATE EXTENSION IF NOT EXISTS citext;
CREATE TYPE mood AS ENUM ('sad', 'so, so', 'Very "happy"');
CREATE TYPE pair AS (a int, b text);
CREATE DOMAIN price AS numeric(8,2) CHECK (VALUE >= 0);
CREATE DOMAIN feeling AS mood;
CREATE DOMAIN feelings AS mood[];
CREATE DOMAIN span AS int4range;
"""
LONG = "".join(f"{number:x}é" for number in range(30_000))
VALUES: dict[str, tuple[str, ...]] = {
    "smallint": ("-32768", "32767"),
    "bigint": ("-9223372036854775808", "9223372036854775807"),
    "real": ("1.1", "-1e+20", "NaN", "Infinity", "-Infinity"),
    "double precision": ("0.30000000000000004", "1e+300", "-0", "NaN"),
    "numeric": ("1.00", "1.0", "-0.001", "123456789012345678901234567890.5", "NaN"),
    "numeric(12,2)": ("0.10", "-1234567890.12"),
    "price": ("2.00", "0.00"),
    "money": ("$1,234.50", "-$0.01"),
    "boolean": ("t", "f"),
    "text": (" tab\t line\n back\\slash \\N ", "", "Ünï©ode 🎉 'x' \"y\" $1 {x} ;--", LONG),
    "char(6)": ("ab", "abcdef", ""),
    "citext": ("MiXed", "mixed"),
    "mood": ("so, so", 'Very "happy"'),
    "feeling": ("sad", 'Very "happy"'),
    "feelings": ('{sad,"so, so"}', "{}"),
    "span": ("[1,10)", "empty"),
    "date": ("2024-02-29", "infinity", "-infinity", "0044-03-15 BC", "12345-06-07"),
    "time": ("24:00:00", "12:34:56.123456"),
    "timetz": ("12:34:56+02", "00:00:00-11"),
    "timestamp": ("2024-02-29 12:34:56.1", "infinity", "0044-03-15 10:00:00 BC"),
    "timestamptz": ("2024-02-29 12:34:56.123456+00", "-infinity", "4713-01-01 00:00:00+00 BC"),
    "timestamp(0)": ("2024-02-29 12:34:56",),
    "interval": ("1 day", "24:00:00", "1 mon 2 days -03:04:05.5", "-00:00:01"),
    "uuid": ("c56a4180-65aa-42ec-a945-5fd21dec0538",),
    "bytea": ("\\x", "\\x00ff27225c0a"),
    "json": ('{"b":1,  "a":"\\\\ \\"q\\"", "b":2}', "null", "[1.0,2]"),
    "jsonb": ('{"a": 1.00, "b": "é"}', "null"),
    "int[]": ("{}", "{1,NULL,3}", "{{1,2},{3,4}}", "[2:3]={1,2}", "[-1:0][5:5]={{1},{2}}"),
    "text[]": ('{"a,b","c\\"d","e\\\\f",NULL,"NULL",""}',),
    "mood[]": ('{sad,"so, so"}',),
    "int4range": ("empty", "[1,10)", "[1,)"),
    "nummultirange": ("{}", "{[1.0,1.50),(2,3]}"),
    "tstzrange": ('["2024-01-01 00:00:00+00",infinity)',),
    "pair": ("(1,x)", '(,"a,""b")'),
    "point": ("(1,2)", "(-0.5,1e+20)"),
    "inet": ("10.0.0.1", "10.0.0.0/8", "::1"),
    "cidr": ("10.0.0.0/8",),
    "macaddr": ("08:00:2b:01:02:03",),
    "bit(4)": ("0101",),
    "varbit(5)": ("1", "01010"),
    "tsvector": ("'fat':2 'rat'",),
    "name": ("x",),
    '"char"': ("x",),
    "xml": ("<a>é &amp; <b/></a>",),
}
IN_SQLITE = {
    "smallint": "SMALLINT",
    "bigint": "BIGINT",
    "boolean": "BOOLEAN",
    "date": "DATE",
    "timestamp": "TIMESTAMP",
    "bytea": "BLOB",
    "uuid": "TEXT",
}
"""The type of a column in SQLite that takes values of a type; text takes those of all others."""
BEYOND = ("date", "timestamp", "timestamptz", "double precision")
"""Types with values that the same column in SQLite does not hand on."""
OPTIONS = "-c datestyle=ISO -c timezone=UTC -c intervalstyle=postgres -c bytea_output=hex -c extra_float_digits=1"


def equal_map(name: str, columns: list[str], key: str = "code") -> str:
    """A map of two tables of that name, with columns of the same names."""
    mappings = tuple(ColumnMapping((column,), Direction.BOTH, (column,)) for column in columns)
    return write_map(TableMap(name, name, name, mappings, key=((key,),)))


class Kinds:
    """Tables with a column of each type, in two PostgreSQL databases that are linked, maybe by way of a SQLite file."""

    def __init__(self, near: Database, far: Database, pair, file: Path | None) -> None:
        """Make the tables and the links."""
        has_xml = _knows_xml(near)
        self.types = [name for name in VALUES if name != "xml" or has_xml]
        self.names = [f"c{number}" for number in range(len(self.types))]
        self.near, self.far = near, far
        self.values = {kind: VALUES[kind] for kind in self.types}
        if file is not None:  # dates in text lie in the years 1 to 9999, and zero in text has no sign
            self.values |= {kind: values[:2] for kind, values in VALUES.items() if kind in BEYOND}
        columns = ", ".join(f"{name} {kind}" for name, kind in zip(self.names, self.types, strict=True))
        for database in (near, far):
            database.run(f"{TYPES} CREATE TABLE kinds (code text PRIMARY KEY, {columns})")
        maps = {"kinds": equal_map("kinds", ["code", *self.names])}
        if file is None:
            self.links = [pair({"left": near.url, "right": far.url}, maps)]
            return
        columns = ", ".join(
            f"{name} {IN_SQLITE.get(kind, 'TEXT')}" for name, kind in zip(self.names, self.types, strict=True)
        )
        with closing(sqlite3.connect(file)) as between:
            between.execute("PRAGMA journal_mode = WAL")
            between.execute(f"CREATE TABLE kinds (code TEXT PRIMARY KEY NOT NULL, {columns})")
        url = f"sqlite:///{file}"
        self.links = [pair({"left": near.url, "right": url}, maps), pair({"left": url, "right": far.url}, maps)]

    def row(self, number: int) -> list[str]:
        """The values of a row: each column in turn takes all of its type's."""
        return [self.values[kind][number % len(self.values[kind])] for kind in self.types]

    def insert(self, database: Database, code: str, number: int) -> None:
        """What an application does."""
        places = ", ".join(["%s"] * (len(self.names) + 1))
        self.run(database, f"INSERT INTO kinds VALUES ({places})", code, *self.row(number))

    def update(self, database: Database, code: str, number: int) -> None:
        """The same, of all columns of a row."""
        sets = ", ".join(f"{name} = %s" for name in self.names)
        self.run(database, f"UPDATE kinds SET {sets} WHERE code = %s", *self.row(number), code)

    @staticmethod
    def run(database: Database, statement: str, *values: object) -> list[tuple]:
        """With settings under which text is what the tests write."""
        with database.connect() as connection:
            connection.execute(
                "SELECT set_config(split_part(s, '=', 1), split_part(s, '=', 2), false) FROM unnest(%s::text[]) s",
                [OPTIONS.replace("-c ", "").split(" ")],
            )
            cursor = connection.execute(statement, values or None)
            return [] if cursor.description is None else cursor.fetchall()

    def rows(self, database: Database) -> dict[tuple[str, str], str | None]:
        """All cells by code and type, as text; the zeros behind a number without a scale are no part of its value."""
        shown = ", ".join(
            f"trim_scale({name})::text" if kind == "numeric" else f"{name}::text"
            for name, kind in zip(self.names, self.types, strict=True)
        )
        found = self.run(database, f"SELECT code, {shown} FROM kinds")
        return {(row[0], kind): cell for row in found for kind, cell in zip(self.types, row[1:], strict=True)}

    def sync(self) -> None:
        """Carry everything from one end to the other, and back."""
        for link in (*self.links, *self.links[-2::-1]):
            answer = link.call("run", "--until-idle")
            assert answer.code == 0, link.call("parked", "list").out


def _knows_xml(database: Database) -> bool:
    """Was the server built with libxml?"""
    try:
        return database.run("SELECT xml '<a/>' IS NOT NULL") == [(True,)]
    except psycopg.errors.FeatureNotSupported:
        return False


@pytest.fixture(params=["directly", "through SQLite"])
def kinds(request: pytest.FixtureRequest, each_postgresql: Server, pair, tmp_path: Path) -> Iterator[Kinds]:
    """Two ends that have never been in step."""
    file = tmp_path / "between.db" if request.param == "through SQLite" else None
    with each_postgresql.database() as near, each_postgresql.database() as far:
        yield Kinds(near, far, pair, file)


def test_values_of_every_type_stay_what_they_are(kinds: Kinds) -> None:
    """Through initial sync, inserts, updates and deletes of either end, to the last digit and blank."""
    near, far = kinds.near, kinds.far
    most = max(map(len, VALUES.values()))
    for number in range(most):
        kinds.insert(near, f"N{number}", number)
        kinds.insert(far, f"F{number}", number)
    kinds.run(near, "INSERT INTO kinds (code) VALUES ('empty')")
    before = kinds.rows(near) | kinds.rows(far)
    kinds.sync()
    assert kinds.rows(near) == kinds.rows(far) == before
    for number in range(most):
        kinds.insert(far, f"new{number}", number)
        kinds.update(near, f"F{number}", number + 1)
        kinds.update(far, f"N{number}", number + 2)
    kinds.run(near, "DELETE FROM kinds WHERE code = 'new1'")
    kinds.run(near, "DELETE FROM kinds WHERE code = 'empty'")
    made = {at: cell for at, cell in kinds.rows(far).items() if at[0].startswith(("N", "new"))}
    made |= {at: cell for at, cell in kinds.rows(near).items() if at[0].startswith("F")}
    kinds.sync()
    assert kinds.rows(near) == kinds.rows(far) == made
    text = kinds.names[kinds.types.index("text")]
    kinds.run(near, f"UPDATE kinds SET c0 = 1, c2 = NULL WHERE length({text}) > 1000")  # the text itself is not sent
    kinds.sync()
    assert kinds.rows(far) == kinds.rows(near) != made


# -- columns that fill themselves --------------------------------------------------------------------------------------

NUMBERED = """
CREATE TABLE a (id serial PRIMARY KEY, code text UNIQUE NOT NULL, v int DEFAULT 7);
CREATE TABLE b (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, code text UNIQUE NOT NULL, v int);
CREATE TABLE c (id int GENERATED BY DEFAULT AS IDENTITY (INCREMENT -1) PRIMARY KEY, code text UNIQUE NOT NULL, v int);
CREATE TABLE d (id int GENERATED BY DEFAULT AS IDENTITY (INCREMENT 2) PRIMARY KEY, code text UNIQUE NOT NULL, v int);
CREATE TABLE e (id int GENERATED BY DEFAULT AS IDENTITY (MAXVALUE 1000) PRIMARY KEY, code text UNIQUE NOT NULL, v int);
"""


@pytest.fixture
def numbered(each_postgresql: Server, pair) -> Iterator[tuple]:
    """A link of two such databases: left, right and the project."""
    with ExitStack() as stack:
        left, right = (stack.enter_context(each_postgresql.database(NUMBERED)) for _ in range(2))
        maps = {name: equal_map(name, ["id", "code", "v"]) for name in "abcde"}
        yield left, right, pair({"left": left.url, "right": right.url}, maps)


def test_the_next_number_is_free_on_the_other_side(numbered) -> None:
    """Whether numbers came with an initial sync or one by one, and whichever way a sequence counts."""
    left, right, project = numbered
    for name in "abc":
        left.run(f"INSERT INTO {name} (code) SELECT 'L' || g FROM generate_series(1, 300) g")
    assert project.call("run", "--until-idle").code == 0
    for name, last in (("a", 301), ("b", 301), ("c", -301)):
        right.run(f"INSERT INTO {name} (code) VALUES ('R1')")
        assert right.run(f"SELECT id FROM {name} WHERE code = 'R1'") == [(last,)]
    assert project.call("run", "--until-idle").code == 0
    for name, last in (("a", 302), ("b", 302), ("c", -302)):
        left.run(f"INSERT INTO {name} (code) VALUES ('L301')")
        assert left.run(f"SELECT id FROM {name} WHERE code = 'L301'") == [(last,)]
    assert project.call("run", "--until-idle").code == 0
    assert right.run("SELECT count(*), sum(v) FROM a") == [(302, 302 * 7)]
    assert project.call("verify").code == 0


def test_numbers_of_both_sides_do_not_meet(numbered) -> None:
    """Odd stays odd and even even, and a sequence with a limit of its own does not leave its range."""
    left, right, project = numbered
    right.run("ALTER TABLE d ALTER id RESTART WITH 2")
    right.run("ALTER TABLE e ALTER id SET MAXVALUE 2000000 RESTART WITH 1001")
    for number in range(3):
        left.run("INSERT INTO d (code) SELECT %s || g FROM generate_series(1, 40) g", f"L{number}-")
        left.run("INSERT INTO e (code) VALUES (%s)", f"L{number}")
        for name in "de":
            right.run(f"INSERT INTO {name} (code) VALUES (%s)", f"R{number}")
        assert project.call("run", "--until-idle").code == 0
    assert right.run("SELECT count(*) FROM d WHERE (id % 2 = 0) <> (code LIKE 'R%')") == [(0,)]
    assert right.run("SELECT count(*) FROM d") == left.run("SELECT count(*) FROM d") == [(123,)]
    assert left.run("SELECT code, id FROM e ORDER BY id") == [
        *((f"L{number}", number + 1) for number in range(3)),
        *((f"R{number}", number + 1001) for number in range(3)),
    ]
