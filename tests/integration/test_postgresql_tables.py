"""Odd tables through a whole link of PostgreSQL databases: names, keys, partitions, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from dualwrite.mapping.tablemap import ColumnMapping, Direction, TableMap
from dualwrite.mapping.writing import write_map
from dualwrite.testing.postgresql import Database, Server

NAMES = ("Item #", 'say "hi"', "naïve 日本", "select", "Mixed Case", "mixed case", "a.b", "%s $1 {x}", "it's")
"""Names that people give to tables and columns."""


def quoted(name: str) -> str:
    """A name as SQL writes it."""
    return '"{}"'.format(name.replace('"', '""'))


def map_of(table: str, columns: dict[str, str], key: str, name: str = "odd", shown: str = "") -> dict[str, str]:
    """A map of a table whose name may be shown otherwise, with pairs of columns; its text by its name."""
    mappings = tuple(ColumnMapping((left,), Direction.BOTH, (right,)) for left, right in columns.items())
    return {name: write_map(TableMap(name, shown or table, shown or table, mappings, key=((key,),)))}


@pytest.fixture
def linked(each_postgresql: Server, pair):
    """Makes a link of two databases in which a script has run: left, right and the project."""

    @contextmanager
    def make(script: str, maps: dict[str, str]) -> Iterator[tuple]:
        with ExitStack() as stack:
            left, right = (stack.enter_context(each_postgresql.database(script)) for _ in range(2))
            yield left, right, pair({"left": left.url, "right": right.url}, maps)

    return make


def carry(project) -> None:
    """Carry everything; nothing may be parked, and both sides must agree."""
    answer = project.call("run", "--until-idle")
    assert answer.code == 0, (answer.err, project.call("parked", "list").out, project.call("status").out)
    assert project.agree()


def test_names_as_people_choose_them(linked) -> None:
    """Blanks, quotes, keywords, letters of the world and letter case, in tables, columns and schemas."""
    for table, columns in ((NAMES[0], NAMES[1:]), (NAMES[1], NAMES[2:] + NAMES[:1]), (NAMES[4], NAMES[:4])):
        made = ", ".join(f"{quoted(name)} text" for name in columns)
        script = f'CREATE SCHEMA "My Shop"; CREATE TABLE "My Shop".{quoted(table)} ({made}'
        script += f", PRIMARY KEY ({quoted(columns[0])}))"
        maps = map_of(table, dict(zip(columns, columns, strict=True)), columns[0], shown=f"My Shop.{table}")
        with linked(script, maps) as (left, right, project):
            where, values = f'"My Shop".{quoted(table)}', list(columns)
            places = ", ".join(["%s"] * len(columns))
            left.run(f"INSERT INTO {where} VALUES ({places})", *values)
            carry(project)
            second = quoted(columns[1]).replace("%", "%%")
            right.run(f"UPDATE {where} SET {second} = %s", 'new "value"')
            right.run(f"INSERT INTO {where} VALUES ({places})", *values[::-1])
            carry(project)
            found = left.run(f"SELECT * FROM {where}")
            assert sorted(found) == sorted([(values[0], 'new "value"', *values[2:]), tuple(values[::-1])])
            left.run(f"DELETE FROM {where}")
            carry(project)
            assert right.run(f"SELECT * FROM {where}") == []


@pytest.mark.parametrize("unique", ["UNIQUE", "UNIQUE NULLS NOT DISTINCT", "NOT NULL"])
def test_tables_without_a_primary_key(linked, unique: str) -> None:
    """The map's key tells records apart, whether the database keeps it unique or not."""
    script = f"CREATE TABLE t (code text {unique}, v int, note text)"
    with linked(script, map_of("t", {"code": "code", "v": "v", "note": "note"}, "code")) as (left, right, project):
        left.run("INSERT INTO t SELECT 'c' || g, g FROM generate_series(1, 100) g")
        carry(project)
        right.run("UPDATE t SET note = 'right' WHERE v > 50")
        left.run("UPDATE t SET v = -v WHERE v % 2 = 0")
        left.run("DELETE FROM t WHERE code = 'c1'")
        right.run("INSERT INTO t VALUES ('new', 1)")
        carry(project)
        every = "SELECT * FROM t ORDER BY code"
        assert left.run(every) == right.run(every)
        assert left.run("SELECT count(*), count(note), sum(v) FROM t") == [(100, 50, -50)]


KEYS = (
    ("text UNIQUE", "a", "b"),
    ("text NOT NULL UNIQUE", "a", "b"),
    ("text", "a", "b"),
    ("char(5) PRIMARY KEY", "a", "b"),
    ("boolean PRIMARY KEY", "true", "false"),
    ("inet PRIMARY KEY", "10.0.0.1", "10.0.0.2"),
)
"""Columns that tell records apart, with two values of each; some are spelled otherwise when they are cast to text."""
CAPITALS = """
CREATE FUNCTION capitals() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.note := upper(NEW.note); RETURN NEW; END';
CREATE TRIGGER capitals BEFORE INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION capitals()"""


@pytest.mark.parametrize(("column", "one", "other"), KEYS, ids=[column for column, *_ in KEYS])
def test_what_a_trigger_makes_of_our_rows_is_carried_back(linked, column: str, one: str, other: str) -> None:
    """Whatever tells the records apart; and what users write there is not taken for a write past the capture."""
    script = f"CREATE TABLE t (code {column}, v int, note text)"
    with linked(script, map_of("t", {"code": "code", "v": "v", "note": "note"}, "code")) as (left, right, project):
        right.run(CAPITALS)
        left.run("INSERT INTO t VALUES (%s, 1, 'made')", one)
        carry(project)
        assert left.run("SELECT v, note FROM t") == [(1, "MADE")]
        left.run("UPDATE t SET note = 'edited'")
        carry(project)
        assert left.run("SELECT v, note FROM t") == [(1, "EDITED")]
        left.run("INSERT INTO t VALUES (%s, 2, 'made')", other)
        right.run("UPDATE t SET v = 3")
        carry(project)
        assert left.run("SELECT v, note FROM t ORDER BY v") == [(2, "MADE"), (3, "EDITED")]
        right.run("DELETE FROM t WHERE v = 2")
        carry(project)
        assert left.run("SELECT v, note FROM t") == [(3, "EDITED")]


def test_network_addresses_as_keys(linked) -> None:
    """An address alone is spelled without its mask, and found all the same."""
    maps = map_of("t", {"code": "code", "v": "v"}, "code")
    with linked("CREATE TABLE t (code inet PRIMARY KEY, v int)", maps) as (left, right, project):
        left.run("INSERT INTO t VALUES ('10.0.0.1', 1), ('10.0.0.0/8', 1), ('::1', 1)")
        carry(project)
        left.run("UPDATE t SET v = 2")
        carry(project)
        right.run("UPDATE t SET v = 3 WHERE code <> '::1'")
        right.run("DELETE FROM t WHERE code = '::1'")
        carry(project)
        every = "SELECT code::text, v FROM t ORDER BY code"
        assert left.run(every) == right.run(every) == [("10.0.0.0/8", 3), ("10.0.0.1/32", 3)]


PARTITIONED = """
CREATE TABLE p (code text, area int, v int, PRIMARY KEY (code, area)) PARTITION BY LIST (area);
CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1);
CREATE TABLE p2 PARTITION OF p FOR VALUES IN (2) PARTITION BY RANGE (code);
CREATE TABLE p2a PARTITION OF p2 FOR VALUES FROM ('a') TO ('n');
"""


def test_partitions_come_and_go_while_the_link_runs(linked) -> None:
    """Records move between partitions, into new and attached ones; those of a detached one are no records any more."""
    columns = {name: name for name in ("code", "area", "v")}
    mappings = tuple(ColumnMapping((name,), Direction.BOTH, (name,)) for name in columns)
    maps = {"p": write_map(TableMap("p", "p", "p", mappings, key=(("code",), ("area",))))}
    with linked(PARTITIONED, maps) as (left, right, project):
        left.run("INSERT INTO p SELECT 'c' || g, g % 2 + 1, g FROM generate_series(1, 20) g")
        carry(project)
        with project.engine() as process:

            def settled(count: int) -> None:
                """Wait until both sides hold the same, of so many records."""
                every = "SELECT code, area, v FROM p ORDER BY 1, 2"
                project.until(
                    lambda: (
                        process.poll() is not None
                        or (
                            len(left.run(every)) == len(right.run(every)) == count
                            and left.run(every) == right.run(every)
                        )
                    )
                )
                assert process.poll() is None, process.communicate()

            left.run("UPDATE p SET area = 2, v = -v WHERE area = 1 AND v < 10")
            settled(20)
            for side in (right, left):
                side.run("CREATE TABLE p3 PARTITION OF p FOR VALUES IN (3)")
                side.run("CREATE TABLE p2z PARTITION OF p2 FOR VALUES FROM ('n') TO ('zz')")
            left.run("INSERT INTO p VALUES ('new', 3, 1), ('z', 2, 2)")
            right.run("UPDATE p SET area = 3 WHERE code IN ('c1', 'c2')")
            settled(22)
            right.run("UPDATE p SET v = v + 1000 WHERE area = 3")
            left.run("DELETE FROM p WHERE code = 'z'")
            settled(21)
            assert left.run("SELECT count(*) FROM p WHERE v > 900 AND area = 3") == [(3,)]
        assert project.agree()


REFUSED = {
    "unlogged": ("CREATE UNLOGGED TABLE t (code text PRIMARY KEY, v int)", "pg_unlogged"),
    "inherited": (
        "CREATE TABLE t (code text PRIMARY KEY, v int); CREATE TABLE child () INHERITS (t)",
        "pg_inheritance",
    ),
    "a column list": (
        "CREATE TABLE t (code text PRIMARY KEY, v int); CREATE PUBLICATION theirs FOR TABLE t (code)",
        "pg_column_list",
    ),
    "virtual": (
        "CREATE TABLE t (code text PRIMARY KEY, v int, twice int GENERATED ALWAYS AS (v * 2) VIRTUAL)",
        "pg_generated",
    ),
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_cannot_be_captured_is_refused_and_left_alone(linked, each_postgresql: Server, why: str) -> None:
    """``check`` and ``run`` say why and what to do; the application goes on as before."""
    script, code = REFUSED[why]
    if why == "virtual":
        with each_postgresql.connect() as connection:
            if connection.info.server_version < 180000:
                pytest.skip("virtual generated columns need PostgreSQL 18")
    with linked(script, map_of("t", {"code": "code", "v": "v"}, "code")) as (left, right, project):
        found = project.call("check", "--json")
        assert found.code == 1
        told = [problem["code"] for problem in found.json()["problems"]]
        assert code in told, told
        assert project.call("run", "--until-idle").code != 0
        for side in (left, right):
            side.run("INSERT INTO t (code, v) VALUES ('a', 1); UPDATE t SET v = 2; DELETE FROM t")
            assert not side.run("SELECT FROM pg_publication_tables WHERE tablename = 't' AND pubname <> 'theirs'")
            assert side.run("SELECT relreplident::text FROM pg_class WHERE relname = 't'") == [("d",)]


def test_stored_generated_columns_are_left_to_the_database(linked) -> None:
    """A table that has one is carried, whether former rows tell of it or not."""
    script = "CREATE TABLE t (code text PRIMARY KEY, v int, twice int GENERATED ALWAYS AS (v * 2) STORED)"
    with linked(script, map_of("t", {"code": "code", "v": "v"}, "code")) as (left, right, project):
        left.run("INSERT INTO t SELECT 'c' || g, g FROM generate_series(1, 10) g")
        carry(project)
        right.run("UPDATE t SET v = v + 100")
        carry(project)
        assert left.run("SELECT sum(twice) FROM t") == [(2 * (1000 + 55),)]
        left.run("DELETE FROM t WHERE v < 105")
        carry(project)
        assert right.run("SELECT count(*) FROM t") == [(6,)]


def test_columns_that_nobody_maps_disturb_nothing(linked) -> None:
    """They are added, filled, changed and dropped while the engine runs; not a change is lost, no map stops."""
    script = "CREATE TABLE t (code text PRIMARY KEY, v int)"
    with linked(script, map_of("t", {"code": "code", "v": "v"}, "code")) as (left, right, project):
        left.run("INSERT INTO t VALUES ('a', 0)")
        carry(project)
        with project.engine() as process:
            changes = (
                "ALTER TABLE t ADD COLUMN extra int DEFAULT 5",
                "ALTER TABLE t ADD COLUMN more text; UPDATE t SET more = 'x'",
                "ALTER TABLE t ALTER extra TYPE text",
                "ALTER TABLE t RENAME extra TO other",
                "ALTER TABLE t DROP COLUMN other; ALTER TABLE t ALTER v SET DEFAULT 9",
                "CREATE INDEX ON t (v); ALTER TABLE t ADD CHECK (v > -1)",
            )

            def reaches(side: Database, value: int) -> None:
                """Wait until a side has it."""
                found = "SELECT v FROM t WHERE code = 'a'"
                project.until(lambda: side.run(found) == [(value,)] or process.poll() is not None)

            for number, change in enumerate(changes, 1):
                left.run(f"{change}; UPDATE t SET v = {number} WHERE code = 'a'")
                left.run("INSERT INTO t (code, v) VALUES (%s, 1)", f"n{number}")
                reaches(right, number)
                right.run(f"UPDATE t SET v = {number + 100} WHERE code = 'a'")
                reaches(left, number + 100)
            assert project.state() == "running"
            assert process.poll() is None
        assert project.agree()
        assert left.run("SELECT count(*) FROM t") == right.run("SELECT count(*) FROM t") == [(7,)]
