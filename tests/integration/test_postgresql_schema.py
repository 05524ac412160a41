"""What PostgreSQL's tables are said to be, and how their values are read, on every version at hand."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from dualwrite.connectors._pg_catalog import are_current, read_catalog
from dualwrite.connectors._pg_schema import Catalog, Facts
from dualwrite.connectors._pg_session import Database as Access
from dualwrite.connectors.postgresql import PostgresqlConnector, open_postgresql
from dualwrite.declared import Declared, DeclaredColumn, DeclaredTable
from dualwrite.errors import Denied, Unavailable, Usage
from dualwrite.expression import Column as Cell
from dualwrite.expression import Compare, Literal
from dualwrite.model import ABSENT, Row, Side
from dualwrite.schema import ColumnType, Reference, Table, TypeName, View
from dualwrite.testing.postgresql import Database, Server


@pytest.fixture
def database(each_postgresql: Server) -> Iterator[Database]:
    """An empty database with citext."""
    with each_postgresql.database("CREATE EXTENSION citext") as database:
        yield database


@pytest.fixture
def connector(database: Database) -> Iterator[PostgresqlConnector]:
    """A connector to it."""
    connector = open_postgresql(database.url, link="lab", side=Side.LEFT)
    yield connector
    connector.close()


def catalog(database: Database, default: str = "public") -> Catalog:
    """What its catalog says."""
    with Access.of(database.url, "lab").connect() as connection:
        return read_catalog(connection, default)


def table(database: Database, script: str, name: str = "t") -> tuple[Table, Facts]:
    """A table after a script."""
    database.run(script)
    found = catalog(database)
    return found.schema.tables[name], found.facts[name]


def view(table: str, *paths: str, key: int = 1, filter: Compare | None = None) -> View:
    """A view on dotted paths; the first ``key`` cells are its key."""
    split = tuple(tuple(path.split(".")) for path in paths)
    return View(table, table, split, tuple(range(key)), filter=filter, written=tuple(range(len(paths))))


def rows(connector: PostgresqlConnector, view: View) -> list[Row]:
    """All rows of a view, sorted."""
    with connector.snapshot(view) as snapshot:
        return sorted((row for block in snapshot.blocks() for row in block), key=repr)


def kind(name: TypeName, **limits: int) -> ColumnType:
    """A column's type."""
    return ColumnType(name, **limits)


OTHER = kind(TypeName.OTHER)
TYPES = """
CREATE TYPE mood AS ENUM ('sad', 'so so', 'Happy');
CREATE TYPE pair AS (a int, b text);
CREATE DOMAIN short AS varchar(5);
CREATE DOMAIN price AS numeric(8,2) NOT NULL DEFAULT 1 CHECK (VALUE >= 0);
CREATE DOMAIN discount AS price CHECK (VALUE < 100);
CREATE DOMAIN feeling AS mood;
"""
COLUMNS = [
    ("boolean", kind(TypeName.BOOLEAN)),
    ("smallint", kind(TypeName.INTEGER, bits=16)),
    ("integer", kind(TypeName.INTEGER, bits=32)),
    ("bigint", kind(TypeName.INTEGER, bits=64)),
    ("real", kind(TypeName.FLOAT)),
    ("double precision", kind(TypeName.FLOAT)),
    ("numeric", kind(TypeName.NUMERIC)),
    ("numeric(9)", kind(TypeName.NUMERIC, precision=9, scale=0)),
    ("numeric(12,2)", kind(TypeName.NUMERIC, precision=12, scale=2)),
    ("numeric(4,-2)", kind(TypeName.NUMERIC, precision=4, scale=-2)),
    ("text", kind(TypeName.TEXT)),
    ("varchar", kind(TypeName.TEXT)),
    ("varchar(20)", kind(TypeName.TEXT, length=20)),
    ("char(3)", kind(TypeName.TEXT, length=3)),
    ("name", kind(TypeName.TEXT, length=63)),
    ("citext", kind(TypeName.TEXT)),
    ("date", kind(TypeName.DATE)),
    ("time", kind(TypeName.TIME)),
    ("time(3)", kind(TypeName.TIME, scale=3)),
    ("timestamp", kind(TypeName.TIMESTAMP)),
    ("timestamp(0)", kind(TypeName.TIMESTAMP, scale=0)),
    ("timestamptz", kind(TypeName.TIMESTAMPTZ)),
    ("timestamptz(3)", kind(TypeName.TIMESTAMPTZ, scale=3)),
    ("uuid", kind(TypeName.UUID)),
    ("bytea", kind(TypeName.BYTES)),
    ("json", kind(TypeName.JSON)),
    ("jsonb", kind(TypeName.JSON)),
    ("mood", kind(TypeName.CHOICE)),
    ("feeling", kind(TypeName.CHOICE)),
    ("short", kind(TypeName.TEXT, length=5)),
    ("price", kind(TypeName.NUMERIC, precision=8, scale=2)),
    ("discount", kind(TypeName.NUMERIC, precision=8, scale=2)),
    *((name, OTHER) for name in ("timetz", "interval", "money", "xml", "point", "inet", "cidr", "bit(3)", "int[]")),
    *((name, OTHER) for name in ("text[]", "mood[]", "int4range", "nummultirange", "tsvector", "pair", "oid")),
]


def test_every_type_is_told(database: Database) -> None:
    """Types come with their limits, domains as what they are made of, enums as choices, the rest as text."""
    columns = ", ".join(f"c{number} {name}" for number, (name, _) in enumerate(COLUMNS))
    found, facts = table(database, f"{TYPES} CREATE TABLE t ({columns})")
    assert [(name, column.type) for (name, _), column in zip(COLUMNS, found.columns, strict=True)] == COLUMNS
    by_type = dict(zip((name for name, _ in COLUMNS), found.columns, strict=True))
    labels = (("sad", "sad"), ("so so", "so so"), ("Happy", "Happy"))
    assert [by_type[name].choices for name in ("mood", "feeling", "text")] == [labels, labels, ()]
    assert [name for name, column in by_type.items() if column.ignore_case] == ["citext"]
    assert [name for name, column in by_type.items() if column.ignore_trailing_blanks] == ["char(3)"]
    assert [name for name, column in by_type.items() if not column.nullable] == ["price", "discount"]
    assert [name for name, column in by_type.items() if column.has_default] == ["price", "discount"]
    own = dict(zip(by_type, facts.columns.values(), strict=True))
    assert [name for name, column in own.items() if not column.equality] == ["json", "xml", "point", "pair"]
    spelled = {name: (own[name].sql, own[name].plain) for name in ("char(3)", "citext", "discount", "varchar(20)")}
    assert spelled == {
        "char(3)": ("character(3)", "bpchar"),
        "citext": ("public.citext", "public.citext"),
        "discount": ("public.discount", "numeric"),
        "varchar(20)": ("character varying(20)", "text"),
    }


def test_a_collation_that_ignores_letter_case_is_told(database: Database) -> None:
    """A column whose collation takes letters of both cases for equal says so."""
    if not database.run("SELECT FROM pg_collation WHERE collname = 'und-x-icu'"):
        pytest.skip("this server was built without ICU, which alone has such collations")
    found, _ = table(
        database,
        "CREATE COLLATION anycase (provider = icu, locale = 'und-u-ks-level2', deterministic = false); "
        "CREATE TABLE t (a text COLLATE anycase, b text)",
    )
    assert [column.ignore_case for column in found.columns] == [True, False]


VALUES = [
    ("numeric", "1.500", "1.5"),
    ("numeric", "100", "100"),
    ("numeric", "-0.0", "0"),
    ("numeric", "NaN", "NaN"),
    ("numeric", "1e40", "1" + "0" * 40),
    ("numeric(12,2)", "1.5", "1.50"),
    ("numeric(4,-2)", "1234", "1200"),
    ("price", "2", "2.00"),
    ("real", "1.1", "1.1"),
    ("double precision", "0.1", "0.1"),
    ("double precision", "1e300", "1e+300"),
    ("double precision", "-Infinity", "-Infinity"),
    ("double precision", "0.30000000000000004", "0.30000000000000004"),
    ("boolean", "yes", "t"),
    ("char(3)", "a", "a"),
    ("char(3)", "", ""),
    ("text", " tab\t line\n back\\slash \\N ", " tab\t line\n back\\slash \\N "),
    ("text", "Ünï©ode 🎉", "Ünï©ode 🎉"),
    ("citext", "MiXed", "MiXed"),
    ("mood", "so so", "so so"),
    ("date", "2024-02-29", "2024-02-29"),
    ("date", "infinity", "infinity"),
    ("date", "0044-03-15 BC", "0044-03-15 BC"),
    ("date", "12345-06-07", "12345-06-07"),
    ("time", "24:00", "24:00:00"),
    ("timestamp", "2024-02-29 12:30:00.500", "2024-02-29 12:30:00.5"),
    ("timestamp", "-infinity", "-infinity"),
    ("timestamptz", "2024-02-29 12:30:00+05:30", "2024-02-29 07:00:00+00"),
    ("timestamptz", "infinity", "infinity"),
    ("timetz", "12:30:00+02", "12:30:00+02"),
    ("interval", "1 mon 2 days 03:04:05", "1 mon 2 days 03:04:05"),
    ("uuid", "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    ("bytea", "\\x00FF", "\\x00ff"),
    ("json", '{"b": 1,  "a": [1.0]}', '{"b": 1,  "a": [1.0]}'),
    ("jsonb", '{"b": 1,  "a": [1.0]}', '{"a": [1.0], "b": 1}'),
    ("int[]", "{1,NULL,3}", "{1,NULL,3}"),
    ("text[]", '{"a b","",NULL}', '{"a b","",NULL}'),
    ("int4range", "[1,5]", "[1,6)"),
    ("point", "(1,2)", "(1,2)"),
    ("pair", '(1,"a b")', '(1,"a b")'),
    ("inet", "10.0.0.1", "10.0.0.1"),
    ("bit(3)", "101", "101"),
]
RIVALS = """
ALTER ROLE postgres SET datestyle = 'SQL, DMY'; ALTER ROLE postgres SET timezone = 'America/New_York';
ALTER ROLE postgres SET intervalstyle = 'iso_8601'; ALTER ROLE postgres SET extra_float_digits = -5;
ALTER ROLE postgres SET bytea_output = 'escape'; ALTER ROLE postgres SET statement_timeout = '1ms';
"""


@pytest.mark.parametrize("way", ["fetch", "snapshot"])
def test_values_are_read_in_canonical_text(database: Database, connector: PostgresqlConnector, way: str) -> None:
    """Every type's values come in the one spelling, whatever server and role are set to, and null as null."""
    columns = ", ".join(f"c{number} {name}" for number, (name, _, _) in enumerate(VALUES))
    database.run(f"{TYPES} CREATE TABLE t (k int PRIMARY KEY, {columns.replace(' price', ' numeric(8,2)')})")
    places = ", ".join(["%s"] * len(VALUES))
    with database.connect() as application:
        application.execute("SET timezone = 'UTC'")
        application.execute("SET datestyle = 'ISO, YMD'")
        application.execute(f"INSERT INTO t VALUES (1, {places})", [given for _, given, _ in VALUES])
        application.execute("INSERT INTO t (k) VALUES (2)")
    asked = view("t", "k", *(f"c{number}" for number in range(len(VALUES))))
    with database.connect() as earlier:  # which keeps its own settings: a later one would have a millisecond
        earlier.execute(RIVALS.encode())
        try:
            if way == "snapshot":
                found = rows(connector, asked)
            else:
                fetched = connector.fetch(asked, [("1",), ("2",)])
                found = fetched[("1",)] + fetched[("2",)]
        finally:
            earlier.execute("ALTER ROLE postgres RESET ALL")
    assert [(name, cell) for (name, _, _), cell in zip(VALUES, found[0][1:], strict=True)] == [
        (name, wanted) for name, _, wanted in VALUES
    ]
    assert found[1] == ("2", *[None] * len(VALUES))


def test_what_the_log_tells_becomes_canonical_too(database: Database) -> None:
    """Of PostgreSQL's own text of a value, the facts of its column know what canonical text leaves out."""
    _, facts = table(database, "CREATE TABLE t (a numeric, b numeric(5,2), c char(4), d text)")
    told = {"a": "1.500", "b": "1.50", "c": "x   ", "d": "y  "}
    assert {name: facts.columns[name].canonical(text) for name, text in told.items()} == {
        "a": "1.5",
        "b": "1.50",
        "c": "x",
        "d": "y  ",
    }
    assert [facts.columns["a"].canonical(text) for text in ("100", "10.00", "NaN", "0.0")] == ["100", "10", "NaN", "0"]


KEYS = [
    ("numeric", "1.50", ["1.5", "1.500", "1.50"], ["1.51", "x", "NaN"]),
    ("numeric(5,2)", "1.50", ["1.5", "1.50"], ["1.501"]),
    ("integer", "7", ["7", "7.0", "07"], ["7.5", "99999999999", "seven"]),
    ("citext", "Abc", ["Abc", "ABC"], ["ab"]),
    ("char(5)", "ab", ["ab", "ab   "], ["abc"]),
    ("varchar(5)", "ab", ["ab"], ["ab ", "AB", "a\0b"]),
    ("mood", "Happy", ["Happy"], ["happy", "merry"]),
    ("uuid", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", ["A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11"], ["a0"]),
    ("date", "2024-02-29", ["2024-02-29"], ["2024-02-30", "9999999-01-01"]),
    ("date", "0044-03-15 BC", ["0044-03-15 BC"], ["0045-03-15 BC"]),
    ("timestamptz", "2024-02-29 00:00:00+00", ["2024-02-29 00:00:00+00", "2024-02-29 01:00+01"], ["infinity"]),
    ("double precision", "0.5", ["0.5", "0.50"], ["1e999"]),
    ("boolean", "t", ["t", "true"], ["f", "maybe"]),
    ("bytea", "\\x00ff", ["\\x00FF"], ["\\x00f"]),
    ("inet", "10.0.0.1", ["10.0.0.1"], ["10.0.0", "nowhere"]),
    ("json", '{"a": 1}', ['{"a": 1}'], ["{}"]),
    ("name", "n" * 63, ["n" * 63], ["n" * 64]),
]


@pytest.mark.parametrize(("type_", "held", "found", "missed"), KEYS, ids=[f"{k[0]} {k[1][:8]}" for k in KEYS])
def test_keys_of_any_type_are_found(
    database: Database, connector: PostgresqlConnector, type_: str, held: str, found: list[str], missed: list[str]
) -> None:
    """Keys compare by their column's type; what is no value of it finds nothing, and hinders no other key."""
    database.run(f"{TYPES} CREATE TABLE t (k {type_}, v int)")
    database.run("INSERT INTO t VALUES (%s, 1), (NULL, 2)", held)
    answer = connector.fetch(view("t", "k", "v"), [(key,) for key in [*missed, *found, None, ""]])
    assert {key: [row[1] for row in rows] for (key,), rows in answer.items()} == {
        **{key: ["1"] for key in found},
        None: ["2"],
        "": ["2"],
    }


def test_generated_values_are_told(database: Database) -> None:
    """Sequences and identities count as defaults, computed columns cannot be written."""
    found, facts = table(
        database,
        "CREATE TABLE t (a serial, b bigint GENERATED BY DEFAULT AS IDENTITY, c int GENERATED ALWAYS AS IDENTITY, "
        "d int DEFAULT 5, e int GENERATED ALWAYS AS (d * 2) STORED, f text NOT NULL)",
    )
    flags = {column.name: (column.has_default, column.read_only, column.nullable) for column in found.columns}
    assert flags == {
        "a": (True, False, False),
        "b": (True, False, False),
        "c": (True, False, False),
        "d": (True, False, True),
        "e": (False, True, True),
        "f": (False, False, False),
    }
    assert [column.identity for column in facts.columns.values()] == ["", "default", "always", "", "", ""]
    assert [column.sequence for column in facts.columns.values()] == [
        "public.t_a_seq",
        "public.t_b_seq",
        "public.t_c_seq",
        None,
        None,
        None,
    ]
    assert facts.columns["e"].generated == "stored"


def test_virtual_columns_are_told(database: Database) -> None:
    """A column that is computed when it is read cannot be written either."""
    if database.run("SHOW server_version_num")[0][0] < "180000":
        pytest.skip("PostgreSQL has virtual columns from 18 on")
    found, facts = table(database, "CREATE TABLE t (a int, b int GENERATED ALWAYS AS (a + 1) VIRTUAL)")
    assert found.columns[1].read_only
    assert facts.columns["b"].generated == "virtual"


def test_schemas_and_spellings_of_names(database: Database) -> None:
    """Maps write plain names in their own schema, others with it; whatever a name is made of, its rows are read."""
    database.run(
        'CREATE SCHEMA "App"; CREATE TABLE "App"."Order Lines" ("Item #" text, "50%" int, "say ""hi""" text); '
        'CREATE TABLE "a.b" (x int); CREATE SCHEMA a; CREATE TABLE a.b (x int); CREATE TEMP TABLE gone (x int); '
        "CREATE SCHEMA dualwrite_lab; CREATE TABLE dualwrite_lab.position (x int); CREATE VIEW v AS SELECT 1 AS x"
    )
    assert set(catalog(database).schema.tables) == {"App.Order Lines", 'public."a.b"', "a.b"}
    assert set(catalog(database, "App").schema.tables) == {"Order Lines", 'public."a.b"', "a.b"}
    database.run("""INSERT INTO "App"."Order Lines" VALUES ('1', 2, '3'), ('%', 4, '$1')""")
    connector = open_postgresql(database.url, link="lab", side=Side.LEFT, schema="App")
    asked = view("Order Lines", "Item #", "50%", 'say "hi"')
    assert rows(connector, asked) == [("%", "4", "$1"), ("1", "2", "3")]
    filtered = view("Order Lines", "Item #", "50%", filter=Compare("gt", Cell(("50%",)), Literal("3")))
    assert rows(connector, filtered) == [("%", "4")]
    assert connector.fetch(asked, [("%",)]) == {("%",): [("%", "4", "$1")]}
    connector.close()


PARTITIONED = """
CREATE TABLE t (k int, v text, part int, PRIMARY KEY (k, part)) PARTITION BY RANGE (part);
CREATE TABLE t_low PARTITION OF t FOR VALUES FROM (0) TO (10);
CREATE SCHEMA aside;
CREATE TABLE aside.t_high PARTITION OF t FOR VALUES FROM (10) TO (30) PARTITION BY LIST (part);
CREATE TABLE aside.leaf PARTITION OF aside.t_high DEFAULT;
INSERT INTO t VALUES (1, 'a', 1), (2, 'b', 11), (2, 'c', 12);
CREATE TABLE child (t_k int, t_part int, FOREIGN KEY (t_k, t_part) REFERENCES t ON DELETE CASCADE);
"""


def test_a_partitioned_table_is_one_table(database: Database, connector: PostgresqlConnector) -> None:
    """Partitions are not tables of their own; all that hold rows are known, and their numbers lead to the whole."""
    found, facts = table(database, PARTITIONED)
    whole = catalog(database)
    assert set(whole.schema.tables) == {"t", "child"}
    assert found.primary_key == ("k", "part")
    assert facts.partitioned
    assert [leaf.sql for leaf in facts.leaves] == ['"public"."t_low"', '"aside"."leaf"']
    assert {whole.names[leaf.oid] for leaf in facts.leaves} == {"t"}
    assert whole.schema.tables["child"].references == (Reference("t_k_t_part", ("t_k", "t_part"), "t", ("k", "part")),)
    assert [(facts.name, key.acts) for facts, key in whole.pointing_at("t")] == [("child", True)]
    asked = view("t", "k", "v")
    assert rows(connector, asked) == [("1", "a"), ("2", "b"), ("2", "c")]
    assert sorted(connector.fetch(asked, [("2",)])[("2",)]) == [("2", "b"), ("2", "c")]


def test_a_table_without_primary_key(database: Database, connector: PostgresqlConnector) -> None:
    """It has no key and its rows are read, equal ones each for themselves."""
    found, facts = table(database, "CREATE TABLE t (a int, b text); INSERT INTO t VALUES (1, 'x'), (1, 'x')")
    assert (found.primary_key, found.uniques, found.key, facts.key) == ((), (), (), ())
    assert rows(connector, view("t", "a", "b")) == [("1", "x"), ("1", "x")]


def test_what_keeps_records_apart_is_told(database: Database) -> None:
    """Uniques come as columns; partial ones, ones over expressions and late ones are facts."""
    found, facts = table(
        database,
        "CREATE TABLE t (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, a int, b text, c int, "
        "UNIQUE NULLS NOT DISTINCT (c), UNIQUE (b, a) DEFERRABLE); "
        "CREATE UNIQUE INDEX ON t (a) WHERE c > 0; CREATE UNIQUE INDEX ON t (lower(b)); CREATE INDEX ON t (c, a); "
        "CREATE UNIQUE INDEX ON t (a, c) INCLUDE (b)",
    )
    assert found.primary_key == ("id",)
    assert found.uniques == (("id",), ("a", "c"), ("b", "a"), ("c",))
    assert found.key == (("a",), ("c",))
    assert facts.expression_index
    assert {unique.columns: unique.where for unique in facts.uniques if unique.where} == {("a",): "(c > 0)"}
    assert [unique.columns for unique in facts.uniques if unique.nulls_equal] == [("c",)]
    assert [unique.columns for unique in facts.uniques if unique.deferrable] == [("b", "a")]
    assert facts.is_indexed(("a", "c"))
    assert facts.is_indexed(("c",))
    assert not facts.is_indexed(("b", "c"))


def test_what_acts_by_itself_is_told(database: Database) -> None:
    """Foreign keys with their actions, and triggers that fire with their events, are facts."""
    _, facts = table(
        database,
        "CREATE TABLE p (id int PRIMARY KEY, c text UNIQUE); CREATE TABLE t (a int REFERENCES p ON DELETE SET NULL, "
        "b text REFERENCES p (c) ON UPDATE CASCADE DEFERRABLE, d int, e int, f int, "
        "FOREIGN KEY (d) REFERENCES p ON DELETE RESTRICT); "
        "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; "
        "CREATE TRIGGER one BEFORE INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION f(); "
        "CREATE TRIGGER two AFTER TRUNCATE ON t FOR EACH STATEMENT EXECUTE FUNCTION f(); "
        "CREATE TRIGGER off AFTER DELETE ON t FOR EACH ROW EXECUTE FUNCTION f(); ALTER TABLE t DISABLE TRIGGER off",
    )
    keys = [(key.columns, key.to, key.on_update, key.on_delete, key.clears, key.deferrable, key.acts)
            for key in facts.foreign_keys]  # fmt: skip
    assert keys == [
        (("a",), ("id",), "no action", "set null", ("a",), False, True),
        (("b",), ("c",), "cascade", "no action", (), True, True),
        (("d",), ("id",), "no action", "restrict", (), False, False),
    ]
    assert [(each.name, each.before, each.each_row, each.events) for each in facts.triggers] == [
        ("one", True, True, {"insert", "update"}),
        ("two", False, False, {"truncate"}),
    ]


def test_what_hinders_capture_is_told(database: Database) -> None:
    """Unlogged tables, rules, heirs, replica identities and policies that hide rows are facts."""
    database.run(
        "CREATE UNLOGGED TABLE u (a int); CREATE TABLE r (a int); "
        "CREATE RULE nothing AS ON DELETE TO r DO INSTEAD NOTHING; "
        "CREATE TABLE parent (a int); CREATE TABLE heir (b int) INHERITS (parent); "
        "CREATE TABLE whole (a int); ALTER TABLE whole REPLICA IDENTITY FULL; "
        "CREATE TABLE hidden (a int); ALTER TABLE hidden ENABLE ROW LEVEL SECURITY; "
        "CREATE ROLE clerk LOGIN; GRANT ALL ON ALL TABLES IN SCHEMA public TO clerk"
    )
    try:
        facts = catalog(database).facts
        assert facts["u"].unlogged
        assert facts["r"].rules
        assert facts["parent"].inherited
        assert not facts["heir"].inherited
        assert [facts[name].leaves[0].identity for name in ("whole", "u")] == ["f", "d"]
        assert not facts["hidden"].row_security
        as_clerk = Access.of(database.server.url(database.name, "clerk"), "lab")
        with as_clerk.connect() as connection:
            assert read_catalog(connection).facts["hidden"].row_security
    finally:
        database.run("DROP OWNED BY clerk; DROP ROLE clerk")


CHANGES = [
    "ALTER TABLE t ADD COLUMN z int",
    "ALTER TABLE t RENAME v TO w",
    "ALTER TABLE t ALTER v TYPE varchar(9)",
    "ALTER TABLE t ALTER v SET DEFAULT 'x'",
    "ALTER TABLE t ALTER v SET NOT NULL",
    "ALTER TABLE t DROP COLUMN v",
    "ALTER TABLE t REPLICA IDENTITY FULL",
    "ALTER TABLE t ENABLE ROW LEVEL SECURITY",
    "ALTER TABLE t_low REPLICA IDENTITY FULL",
    "ALTER TABLE t DETACH PARTITION t_low",
    "CREATE TABLE t_new PARTITION OF t DEFAULT",
    "CREATE UNIQUE INDEX ON t (k, v, part)",
    "ALTER TABLE t ADD CHECK (k > 0)",
    "CREATE TRIGGER x BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    "ALTER TYPE mood ADD VALUE 'mad'",
    "ALTER DOMAIN short SET NOT NULL",
    "DROP TABLE t CASCADE",
    "DROP TABLE t CASCADE; CREATE TABLE t (k int, v varchar(5), m mood, s short, part int)",
]
OF_PARTS = ("t_low", "t_new")
CHANGED = "CREATE TABLE t (k int, v varchar(5), m mood, s short, part int)"
CHANGED_IN_PARTS = f"{CHANGED} PARTITION BY RANGE (part); CREATE TABLE t_low PARTITION OF t FOR VALUES FROM (0) TO (10)"
CHANGING = [(CHANGED_IN_PARTS, change) for change in CHANGES]
CHANGING += [(CHANGED, change) for change in CHANGES if not any(part in change for part in OF_PARTS)]


@pytest.mark.parametrize(("table", "change"), CHANGING)
def test_a_change_of_a_table_is_noticed(database: Database, table: str, change: str) -> None:
    """Whatever is altered about a table or its parts, it is not current any more; other tables are."""
    database.run(f"{TYPES}; {table}; CREATE TABLE other (a int)")
    with Access.of(database.url, "lab").connect() as connection:
        facts = read_catalog(connection).facts
        database.run("CREATE TABLE new (a int); ANALYZE t")
        database.run("INSERT INTO t (k, part) SELECT 1, 1 FROM generate_series(1, 10)")
        assert are_current(connection, [facts["t"], facts["other"]])
        database.run("DELETE FROM t")
        database.run(change)
        assert not are_current(connection, [facts["t"]])
        assert are_current(connection, [facts["other"]])


def test_reading_goes_on_after_a_change_of_type(database: Database, connector: PostgresqlConnector) -> None:
    """Statements that were prepared before a column changed its type are made anew."""
    database.run("CREATE TABLE t (k int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 10)")
    asked = view("t", "k", "v")
    for _ in range(10):
        assert connector.fetch(asked, [("1",)]) == {("1",): [("1", "10")]}
    database.run("ALTER TABLE t ALTER v TYPE numeric USING v / 4.0")
    assert rows(connector, asked) == [("1", "2.5")]
    for _ in range(10):
        assert connector.fetch(asked, [("1",)]) == {("1",): [("1", "2.5")]}
    database.run("ALTER TABLE t ALTER v TYPE int")
    assert connector.fetch(asked, [("1",)]) == {("1",): [("1", "3")]}
    database.run("ALTER TABLE t DROP COLUMN v")
    with pytest.raises(Usage, match="t has no v"):
        connector.fetch(asked, [("1",)])


def test_a_table_created_later_is_read(database: Database, connector: PostgresqlConnector) -> None:
    """A view on a table that came after the catalog was read works."""
    assert connector.schema().tables == {}
    database.run("CREATE TABLE t (k int); INSERT INTO t VALUES (1)")
    assert rows(connector, view("t", "k")) == [("1",)]


def test_declared_references_may_pair_different_types(database: Database) -> None:
    """A declared lookup is followed from a number to a text, to the first of several, and shows where it dangles."""
    database.run(
        "CREATE TABLE p (code text, name text, id int PRIMARY KEY); INSERT INTO p VALUES ('1', 'one', 2), "
        "('1', 'uno', 1), ('3', 'three', 3); CREATE TABLE t (k int, p int); "
        "INSERT INTO t VALUES (1, 1), (2, 2), (3, NULL)"
    )
    declared = Declared(tables={"t": DeclaredTable("t", references=(Reference("parent", ("p",), "p", ("code",)),))})
    connector = open_postgresql(database.url, link="lab", side=Side.LEFT, declared=declared)
    asked = view("t", "k", "parent.name")
    assert rows(connector, asked) == [("1", "uno"), ("2", ABSENT), ("3", None)]
    by_name = View("t", "t", asked.paths, (1,))
    assert connector.fetch(by_name, [("uno",), ("one",), (None,)]) == {("uno",): [("1", "uno")], (None,): [("3", None)]}
    connector.close()


def test_filters_on_columns_that_are_declared_otherwise(database: Database) -> None:
    """Choices kept as numbers or words, and letter case that does not count, filter as on paper."""
    database.run(
        "CREATE TABLE t (k int, status int, word text, label citext); "
        "INSERT INTO t VALUES (1, 10, '5', 'Straße'), (2, 9, 'x', 'STRASSE'), (3, NULL, '12', NULL)"
    )
    choices = (("open", "10"), ("held", "9"))
    columns = (DeclaredColumn("status", choices=choices), DeclaredColumn("word", type=kind(TypeName.INTEGER)))
    declared = Declared(tables={"t": DeclaredTable("t", columns=columns)})
    connector = open_postgresql(database.url, link="lab", side=Side.LEFT, declared=declared)
    wanted = {
        ("eq", "status", "open"): "1",
        ("ge", "status", "9"): "12",
        ("gt", "word", "5"): "3",
        ("eq", "label", "strasse"): "12",
        ("contains", "label", "aß"): "12",
    }
    found = {
        (operator, column, value): "".join(
            str(row[0])
            for row in rows(
                connector,
                view("t", "k", "status", "word", "label", filter=Compare(operator, Cell((column,)), Literal(value))),
            )
        )
        for operator, column, value in wanted
    }
    assert found == wanted
    connector.close()


def test_a_lost_session_is_replaced(database: Database, connector: PostgresqlConnector) -> None:
    """When the server has ended our idle session the next call connects anew."""
    assert connector.clock() > 1.7e9
    ended = database.run(
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE application_name = 'dualwrite_lab'"
    )
    assert ended == [(True,)]
    assert connector.clock() > 1.7e9


TROUBLES = [
    ("BEGIN READ ONLY; CREATE TABLE x (a int)", Unavailable),
    ("SET statement_timeout = 1; SELECT pg_sleep(10)", Unavailable),
    ("SET ROLE pg_monitor; CREATE TABLE public.x (a int)", Denied),
    ("SELECT * FROM nowhere", Denied),
    ("INSERT INTO t VALUES ('x')", psycopg.DataError),
    ("INSERT INTO t VALUES (1)", psycopg.IntegrityError),
    ("DO $$ BEGIN RAISE 'no'; END $$", psycopg.Error),
]


@pytest.mark.parametrize(("statement", "error"), TROUBLES)
def test_errors_are_sorted_by_what_is_done_about_them(
    database: Database, statement: str, error: type[Exception]
) -> None:
    """Trouble that passes is told apart from refusals; what concerns single rows is left to those who write them."""
    database.run("CREATE TABLE t (a int PRIMARY KEY); INSERT INTO t VALUES (1)")
    access = Access.of(database.url, "lab")
    with access.connect() as session, pytest.raises(error), access.errors():
        session.execute(statement)


def test_a_session_reads_committed_data(database: Database) -> None:
    """Whatever isolation a role prefers, our statements see what is committed when they begin."""
    database.run("ALTER ROLE postgres SET default_transaction_isolation = 'serializable'")
    try:
        with Access.of(database.url, "lab").connect() as session:
            assert session.execute("SHOW transaction_isolation").fetchone() == ("read committed",)
    finally:
        database.run("ALTER ROLE postgres RESET ALL")


def test_the_identity_is_the_databases(database: Database, connector: PostgresqlConnector) -> None:
    """It stays, and that of another database of the same server differs."""
    assert connector.identity() == connector.identity()
    with database.server.database() as other:
        elsewhere = open_postgresql(other.url, link="lab", side=Side.LEFT)
        assert elsewhere.identity() != connector.identity()
        elsewhere.close()


def test_refusals_are_told_without_secrets(database: Database) -> None:
    """A wrong database, role or port, and what is no url at all, are told apart; no message shows the password."""
    server = database.server
    secret = "s3cr:t%40"
    urls = {
        f"postgresql://postgres:{secret}@127.0.0.1:{server.port}/nowhere": Denied,
        f"postgresql://nobody:{secret}@127.0.0.1:{server.port}/{database.name}": Denied,
        f"postgresql://postgres:{secret}@127.0.0.1:1/{database.name}": Unavailable,
    }
    for url, error in urls.items():
        connector = open_postgresql(url, link="lab", side=Side.LEFT)
        assert "s3cr" not in repr(connector._database)
        with pytest.raises(error) as caught:
            connector.schema()
        assert "s3cr" not in str(caught.value)
        connector.close()
    with pytest.raises(Usage, match=r"\*\*\*"):
        open_postgresql(f"postgresql://a:{secret}@host:port/x", link="lab", side=Side.LEFT)
