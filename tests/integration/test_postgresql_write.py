"""Writing rows into PostgreSQL: every type, every kind of table, and what others do at the same time."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from time import monotonic

import psycopg
import pytest

from dualwrite.connectors import _pg_part
from dualwrite.connectors._pg_catalog import read_catalog
from dualwrite.connectors._pg_session import Connection
from dualwrite.connectors._pg_session import Database as Session
from dualwrite.connectors._pg_statements import Targets
from dualwrite.connectors._pg_trip import trip
from dualwrite.connectors._pg_view import Plans
from dualwrite.connectors._pg_write import BEGINNING, RowWriter
from dualwrite.errors import Unavailable
from dualwrite.model import (
    ABSENT,
    Applied,
    Cell,
    Contested,
    Key,
    MissingParent,
    Outcome,
    Rejected,
    Row,
    Unchanged,
    Value,
    Write,
)
from dualwrite.schema import Lookup, View
from dualwrite.testing.postgresql import Database

APPLIED, UNCHANGED = Applied(), Unchanged()
PATIENCE = 240.0
WAITING = "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'"


def view(table: str, *paths: str, key: int = 1, lookups: Sequence[Lookup] = ()) -> View:
    """A view on dotted paths, all of them written; the first ``key`` cells are its key."""
    split = tuple(tuple(path.split(".")) for path in paths)
    return View(table, table, split, tuple(range(key)), tuple(lookups), written=tuple(range(len(paths))))


class Ours:
    """A transaction of ours with nothing but a writer in it."""

    def __init__(
        self, session: Session, connection: Connection, targets: Targets, horizon: int | None, loud: Collection[str]
    ) -> None:
        """Begin it."""
        self._session = session
        self.connection = connection
        self.pid = connection.info.backend_pid
        catalog = read_catalog(connection)
        connection.execute("BEGIN")
        for statement in BEGINNING:
            connection.execute(statement)
        self.writer = RowWriter(connection, session, catalog, targets, horizon=horizon, loud=loud)

    def write(self, view: View, *writes: Write) -> list[Outcome]:
        """One call."""
        with self._session.errors():
            return self.writer.write(view, writes)

    def fetch(self, view: View, *keys: Key) -> dict[Key, list[Row]]:
        """The records of some keys, locked."""
        with self._session.errors():
            return self.writer.fetch(view, keys)

    def commit(self) -> None:
        """Commit it."""
        self.connection.execute("COMMIT")


class Bench:
    """A database, and transactions of ours in it."""

    def __init__(self, database: Database) -> None:
        """Nothing is connected yet."""
        self.database = database
        self.run = database.run
        self._session = Session.of(database.url, "bench")
        self._targets = Targets(Plans())

    @contextmanager
    def ours(self, horizon: int | None = None, loud: Collection[str] = ()) -> Iterator[Ours]:
        """A transaction of ours, rolled back unless committed."""
        with closing(self._session.connect()) as connection:
            yield Ours(self._session, connection, self._targets, horizon, loud)

    @contextmanager
    def theirs(self) -> Iterator[psycopg.Connection]:
        """A transaction of the application."""
        with closing(psycopg.connect(self.database.url)) as connection:
            yield connection

    def write(self, view: View, *writes: Write) -> list[Outcome]:
        """One transaction with one call."""
        with self.ours() as ours:
            outcomes = ours.write(view, *writes)
            ours.commit()
        return outcomes

    def insert(self, view: View, *rows: Row) -> list[Outcome]:
        """New records."""
        return self.write(view, *(Write(view.natural_key(row), None, row) for row in rows))

    def replace(self, view: View, before: Row, after: Row | None) -> Outcome:
        """Change or delete a record."""
        return self.write(view, Write(view.natural_key(before), before, after))[0]

    def rows(self, view: View, *keys: Key) -> list[Row]:
        """The records of some keys."""
        with self.ours() as ours:
            found = ours.fetch(view, *keys)
        return [row for key in keys for row in found.get(key, [])]

    def meanwhile(self, ours: Ours, call: Callable[[], list[Outcome]], event: Callable[[], object]) -> list[Outcome]:
        """What becomes of a call that comes to wait for a lock, when something happens then."""
        with ThreadPoolExecutor(1) as pool:
            future: Future[list[Outcome]] = pool.submit(call)
            deadline = monotonic() + PATIENCE
            while not self.run(WAITING, ours.pid):
                assert not future.done(), f"it did not wait: {future.result()}"
                assert monotonic() < deadline
            event()
            return future.result(PATIENCE)


@pytest.fixture
def bench(database: Database) -> Bench:
    """A fresh database whose server is patient with those who wait."""
    database.run(f"ALTER DATABASE {database.name} SET deadlock_timeout = '1min'")
    return Bench(database)


@pytest.fixture
def impatient(database: Database) -> Bench:
    """A fresh database whose server looks for deadlocks soon."""
    database.run(f"ALTER DATABASE {database.name} SET deadlock_timeout = '500ms'")
    return Bench(database)


# -- types -------------------------------------------------------------------------------------------------------------

TYPES = """
CREATE EXTENSION IF NOT EXISTS citext;
CREATE TYPE mood AS ENUM ('happy', 'so, so', 'sad "very"');
CREATE TYPE pair AS (a int, b text);
CREATE DOMAIN amount AS numeric(12,2) CHECK (VALUE >= 0);
CREATE DOMAIN code AS varchar(8) NOT NULL;
CREATE TABLE kinds (id int PRIMARY KEY, {columns});
"""
KINDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "small": ("smallint", ("-32768", "32767")),
    "real": ("real", ("1.5", "-1e+20", "NaN", "Infinity")),
    "free": ("numeric", ("1", "0.001", "123456789012345678901234567890.5", "NaN")),
    "enum": ("mood", ("happy", "so, so", 'sad "very"')),
    "domain": ("amount", ("0.00", "12.50")),
    "fixed": ("char(6)", ("ab", "abcdef", "")),
    "insensitive": ("citext", ("Abc", "ABC", "")),
    "interval": ("interval", ("1 day", "-00:00:01", "1 mon 2 days 03:04:05.5")),
    "timetz": ("timetz", ("12:34:56+02", "00:00:00-11")),
    "late": ("timestamptz", ("infinity", "-infinity", "4713-01-01 00:00:00+00 BC", "20000-01-01 00:00:00+00")),
    "day": ("date", ("infinity", "0044-03-15 BC")),
    "precise": ("timestamp(3)", ("2024-02-29 12:34:56.123",)),
    "bytes": ("bytea", ("\\x", "\\x00ff27225c")),
    "json": ("json", ('{"b":1,  "a":"\\\\ \\"q\\""}', "null", "[1,2]")),
    "jsonb": ("jsonb", ('{"a": 1, "b": "é"}', "null", "[1, 2]")),
    "numbers": ("int[]", ("{}", "{1,NULL,3}", "{{1,2},{3,4}}", "[2:3]={1,2}")),
    "texts": ("text[]", ("{}", '{"a,b","c\\"d","e\\\\f",NULL,"NULL"}')),
    "moods": ("mood[]", ('{happy,"so, so"}',)),
    "point": ("point", ("(1,2)", "(-0.5,1e+20)")),
    "range": ("int4range", ("empty", "[1,10)", "[1,)")),
    "pair": ("pair", ("(1,x)", '(,"a,""b")')),
    "net": ("inet", ("10.0.0.1", "10.0.0.0/8")),
    "bits": ("bit(4)", ("0101",)),
    "varbits": ("varbit(5)", ("1", "01010")),
    "uuid": ("uuid", ("c56a4180-65aa-42ec-a945-5fd21dec0538",)),
    "name": ("name", ("x",)),
    "words": ("tsvector", ("'fat' 'rat'",)),
    "char": ('"char"', ("x",)),
    "Mixed Case": ("text", ('it\'s "quoted" \\ %s $1 {x} ;--', "\\N", "NULL", "a\tb\nc\rd", " ")),
}
KIND_CASES = [(name, value) for name, (_, values) in KINDS.items() for value in values]
COLUMNS = ", ".join(f'"{name}" {kind}' for name, (kind, _) in KINDS.items())


@pytest.fixture
def kinds(postgresql) -> Iterator[Bench]:
    """A table with a column of each type."""
    with postgresql.database(TYPES.format(columns=COLUMNS)) as database:
        yield Bench(database)


@pytest.mark.parametrize(("name", "value"), KIND_CASES, ids=[f"{name}-{i}" for i, (name, _) in enumerate(KIND_CASES)])
def test_values_of_every_type_are_written(kinds: Bench, name: str, value: str) -> None:
    """A value is written by an insert, by an update and by a copy as it is read, and then is what was wanted."""
    on = View("kinds", "kinds", (("id",), (name,)), (0,), written=(0, 1))
    assert kinds.insert(on, ("1", value), ("2", None)) == [APPLIED, APPLIED]
    assert kinds.replace(on, ("2", None), ("2", value)) == APPLIED
    assert kinds.insert(on, *((str(number), value) for number in range(100, 200))) == [APPLIED] * 100
    assert kinds.rows(on, ("1",), ("2",), ("150",)) == [("1", value), ("2", value), ("150", value)]
    assert kinds.insert(on, ("1", value)) == [UNCHANGED]
    assert kinds.replace(on, ("1", None), ("1", value)) == UNCHANGED
    assert kinds.replace(on, ("1", value), ("1", None)) == APPLIED
    assert kinds.replace(on, ("2", value), None) == APPLIED
    assert kinds.rows(on, ("1",), ("2",)) == [("1", None)]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("small", "32768"),
        ("small", "x"),
        ("enum", "angry"),
        ("domain", "-1"),
        ("domain", "99999999999.00"),
        ("fixed", "abcdefg"),
        ("bits", "01"),
        ("bits", "01010"),
        ("varbits", "010101"),
        ("uuid", "x"),
        ("jsonb", "{"),
        ("late", "yesterday evening"),
        ("Mixed Case", "zero \0 character"),
        ("Mixed Case", "half of a pair \ud800"),
    ],
)
def test_what_a_column_cannot_hold_is_refused_alone(kinds: Bench, name: str, value: str) -> None:
    """A bad value refuses its own row, whether new or old; nothing is cut or rounded to fit."""
    on = View("kinds", "kinds", (("id",), (name,)), (0,), written=(0, 1))
    kinds.run("INSERT INTO kinds (id) VALUES (0)")
    outcomes = kinds.write(
        on,
        Write(("0",), ("0", None), ("0", value)),
        *(Write((str(n),), None, (str(n), value if n == 7 else None)) for n in range(1, 120)),
    )
    assert [number for number, outcome in enumerate(outcomes) if outcome != APPLIED] == [0, 7]
    assert all(isinstance(outcomes[n], Rejected) and outcomes[n].code == "value" for n in (0, 7))
    assert kinds.run(f'SELECT count(*), count("{name}") FROM kinds') == [(119, 0)]


def test_case_and_padding_alone_are_written_and_not_contested(kinds: Bench) -> None:
    """Where the column takes two texts for one, either is as expected, and the wanted one is written."""
    on = view("kinds", "id", "insensitive", "fixed")
    kinds.insert(on, ("1", "Abc", "x"))
    assert kinds.replace(on, ("1", "ABC", "x  "), ("1", "abc", "x ")) == APPLIED
    assert kinds.rows(on, ("1",)) == [("1", "abc", "x")]
    by_text = view("kinds", "insensitive", "id")
    assert kinds.replace(by_text, ("aBC", "1"), ("Abc", "1")) == APPLIED
    assert kinds.rows(by_text, ("ABC",)) == [("Abc", "1")]


# -- kinds of tables ---------------------------------------------------------------------------------------------------


def test_generated_columns_are_refused_and_identities_kept(bench: Bench) -> None:
    """A generated column is never written; ``always`` numbers can be given to new records only."""
    bench.run(
        "CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, code text UNIQUE, n int DEFAULT 7,"
        " twice int GENERATED ALWAYS AS (n * 2) STORED)"
    )
    on = view("t", "code", "id", "n")
    assert bench.insert(on, ("a", ABSENT, ABSENT), ("b", "50", "1"), ("c", ABSENT, None)) == [APPLIED] * 3
    assert bench.run("SELECT * FROM t ORDER BY code") == [(1, "a", 7, 14), (50, "b", 1, 2), (2, "c", None, None)]
    assert bench.replace(on, ("a", "1", "7"), ("a", "1", "8")) == APPLIED
    refused = bench.replace(on, ("a", "1", "8"), ("a", "3", "9"))
    assert isinstance(refused, Rejected)
    assert refused.code == "readonly"
    computed = view("t", "code", "twice")
    for outcome in (bench.replace(computed, ("a", "16"), ("a", "5")), bench.insert(computed, ("d", "5"))[0]):
        assert isinstance(outcome, Rejected)
        assert outcome.code == "readonly"
    assert bench.replace(computed, ("a", "16"), ("a", "16")) == UNCHANGED


def test_names_and_schemas_as_people_choose_them(bench: Bench) -> None:
    """Mixed case, quotes, keywords and other schemas."""
    bench.run('CREATE SCHEMA "My Shop"; CREATE TABLE "My Shop"."Or""der" ("Select" text PRIMARY KEY, "ctid x" int)')
    on = view('My Shop.Or"der', "Select", "ctid x")
    assert bench.insert(on, ("a", "1")) == [APPLIED]
    assert bench.replace(on, ("a", "1"), ("b", "2")) == APPLIED
    assert bench.rows(on, ("b",)) == [("b", "2")]
    assert bench.replace(on, ("b", "2"), None) == APPLIED


def test_partitioned_tables(bench: Bench) -> None:
    """Records are found in every partition, and move between them."""
    bench.run(
        "CREATE TABLE p (code text, area int, v int, PRIMARY KEY (code, area)) PARTITION BY LIST (area);"
        "CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1); CREATE TABLE p2 PARTITION OF p FOR VALUES IN (2)"
    )
    on = view("p", "code", "area", "v")
    rows: list[Row] = [(f"c{n}", str(n % 2 + 1), str(n)) for n in range(80)]
    assert bench.insert(on, *rows) == [APPLIED] * 80
    moved = [Write((str(row[0]),), row, (row[0], "2", "0")) for row in rows]
    assert bench.write(on, *moved) == [APPLIED] * 80
    assert bench.run("SELECT count(*), sum(v) FROM p2") == [(80, 0)]
    outcome = bench.replace(on, ("c1", "2", "0"), ("c1", "3", "0"))
    assert isinstance(outcome, Rejected)
    assert "no partition" in outcome.reason
    assert bench.write(on, *(Write((f"c{n}",), (f"c{n}", ABSENT, "0"), None) for n in range(80))) == [APPLIED] * 80


def test_tables_without_any_key(bench: Bench) -> None:
    """Records are told apart by their place; nothing is done where several hold the key."""
    bench.run("CREATE TABLE t (code text, v int); INSERT INTO t VALUES ('a', 1), ('b', 1), ('b', 1), (NULL, 1)")
    on = view("t", "code", "v")
    assert bench.replace(on, ("a", "1"), ("a", "2")) == APPLIED
    assert bench.replace(on, ("", "1"), ("", "2")) == APPLIED
    for outcome in (bench.replace(on, ("b", "1"), ("b", "2")), bench.replace(on, ("b", "1"), None)):
        assert isinstance(outcome, Rejected)
        assert outcome.code == "ambiguous"
        assert outcome.reason.startswith("2 records")
    rows: list[Row] = [(f"n{n}", "1") for n in range(100)]
    assert bench.insert(on, *rows) == [APPLIED] * 100
    assert bench.insert(on, *rows) == [UNCHANGED] * 100
    taken = bench.replace(on, ("a", "2"), ("n1", "2"))
    assert isinstance(taken, Rejected)
    assert taken.code == "unique"
    chain = [Write(("n0",), ("n0", "1"), ("m0", "1")), Write(("n1",), ("n1", "1"), ("n0", "1"))]
    assert bench.write(on, *chain) == [APPLIED, APPLIED]
    both = bench.insert(on, ("x", "1"), ("x", "2"))
    assert both == [APPLIED, Contested(("x", "1"))]
    assert bench.run("SELECT code, count(*) FROM t GROUP BY 1 HAVING count(*) > 1") == [("b", 2)]


def test_many_shapes_of_one_call_become_few_statements(bench: Bench) -> None:
    """Each row says something of other cells; what none of them mentions stays."""
    names = [f"c{n}" for n in range(70)]
    bench.run(f"CREATE TABLE wide (code text PRIMARY KEY, {', '.join(f'{name} int DEFAULT 0' for name in names)})")
    on = view("wide", "code", *names)
    bench.insert(on, *((str(n), *[ABSENT] * 70) for n in range(70)))

    def at(n: int, value: str, other: Cell = ABSENT) -> Row:
        return (ABSENT, *[value if place == n else other if place == (n + 1) % 70 else ABSENT for place in range(70)])

    writes = [Write((str(n),), at(n, "0", "9" if n == 3 else "0"), at(n, str(n + 1))) for n in range(70)]
    outcomes = bench.write(on, *writes)
    assert [number for number, outcome in enumerate(outcomes) if outcome != APPLIED] == [3]
    assert isinstance(outcomes[3], Contested)
    total = " + ".join(names)
    assert bench.run(f"SELECT code::int, {total} FROM wide ORDER BY 1") == [
        (n, 0 if n == 3 else n + 1) for n in range(70)
    ]


def test_rows_that_set_different_columns_travel_together(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """One round trip for all of them, and a bad one among them is found."""
    bench.run("CREATE TABLE t (code text PRIMARY KEY, a int CHECK (a > 0), b int, c int)")
    on = view("t", "code", "a", "b", "c")
    bench.insert(on, *((str(n), "1", "1", "1") for n in range(6)))
    trips: list[int] = []
    monkeypatch.setattr(_pg_part, "trip", lambda to, asked: (trips.append(len(asked)), trip(to, asked))[1])

    def at(n: int, value: str) -> Row:
        return (ABSENT, *[value if place == n % 3 else ABSENT for place in range(3)])

    writes = [Write((str(n),), at(n, "1"), at(n, "2")) for n in range(6)]
    assert bench.write(on, *writes) == [APPLIED] * 6
    assert len(trips) == 1
    writes = [Write((str(n),), at(n, "2"), at(n, "-1" if n == 3 else "3")) for n in range(6)]
    outcomes = bench.write(on, *writes)
    assert [number for number, outcome in enumerate(outcomes) if outcome != APPLIED] == [3]
    assert isinstance(outcomes[3], Rejected)
    assert bench.run("SELECT a, b, c FROM t ORDER BY code") == [
        (3, 1, 1), (1, 3, 1), (1, 1, 3), (2, 1, 1), (1, 3, 1), (1, 1, 3),
    ]  # fmt: skip


# -- constraints and triggers ------------------------------------------------------------------------------------------


def test_deferred_foreign_keys_are_laid_at_a_row(bench: Bench) -> None:
    """What the database would notice at the commit only is an outcome of its row."""
    bench.run(
        "CREATE TABLE parent (id int PRIMARY KEY);"
        "CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent DEFERRABLE INITIALLY DEFERRED,"
        " CHECK (id <> 13));"
        "INSERT INTO parent VALUES (1); INSERT INTO child VALUES (100, 1)"
    )
    on = view("child", "id", "parent")
    outcomes = bench.insert(on, *((str(n), "2" if n == 5 else "1") for n in range(20)))
    assert outcomes[5] == MissingParent("parent", "parent", ("2",))
    assert isinstance(outcomes[13], Rejected)
    assert outcomes[13].code == "value"
    assert [number for number, outcome in enumerate(outcomes) if outcome != APPLIED] == [5, 13]
    assert bench.replace(on, ("1", "1"), ("1", "3")) == MissingParent("parent", "parent", ("3",))
    kept = bench.replace(view("parent", "id"), ("1",), None)
    assert isinstance(kept, Rejected)
    assert kept.code == "reference"


def test_triggers_refuse_rows_or_leave_them_out(bench: Bench) -> None:
    """An exception in the application's function refuses its row; a row that it drops is told as refused."""
    bench.run(
        """CREATE TABLE t (code text PRIMARY KEY, v int);
        CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF NEW.v = 1 THEN RAISE EXCEPTION 'not one'; END IF;
            IF NEW.v = 2 THEN RETURN NULL; END IF;
            IF NEW.v = 3 THEN PERFORM missing(); END IF;
            RETURN NEW; END $$;
        CREATE TRIGGER f BEFORE INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION f()"""
    )
    on = view("t", "code", "v")
    for _ in range(2):
        outcomes = bench.insert(on, *((f"c{n}", str(n)) for n in range(6)))
        assert [number for number, outcome in enumerate(outcomes) if isinstance(outcome, Rejected)] == [1, 2, 3]
        assert all(outcomes[n].code == "other" for n in (1, 2, 3))
        assert outcomes[1].reason == "not one"
    assert set(outcomes) - {outcomes[1], outcomes[2], outcomes[3]} == {UNCHANGED}
    held = [Write((f"c{n}",), (f"c{n}", str(n)), (f"c{n}", str(6 - n))) for n in (0, 4, 5)]
    outcomes = bench.write(on, *held)
    assert [getattr(outcome, "reason", "")[:8] for outcome in outcomes] == ["", "the data", "not one"]
    assert bench.run("SELECT * FROM t ORDER BY 1") == [("c0", 6), ("c4", 4), ("c5", 5)]


def test_triggers_on_columns_fire_for_those_that_are_set(bench: Bench) -> None:
    """A statement names no column but those that its rows set."""
    bench.run(
        """CREATE TABLE t (code text PRIMARY KEY, a int, b int, told int DEFAULT 0);
        CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.told := NEW.told + 1; RETURN NEW; END';
        CREATE TRIGGER f BEFORE UPDATE OF b ON t FOR EACH ROW EXECUTE FUNCTION f();
        INSERT INTO t SELECT 'c' || n, 0, 0 FROM generate_series(0, 9) n"""
    )
    on = view("t", "code", "a", "b")
    given = [(ABSENT, "1", ABSENT), (ABSENT, ABSENT, "1"), (ABSENT, "1", "1"), ("c3", "1", ABSENT), ("c4", ABSENT, "1")]
    writes = [Write((f"c{n}",), (ABSENT, ABSENT, "0"), row) for n, row in enumerate(given)]
    assert bench.write(on, *writes) == [APPLIED] * 5
    assert bench.run("SELECT told FROM t ORDER BY code LIMIT 5") == [(0,), (1,), (1,), (0,), (1,)]


def test_unchanged_records_get_no_new_version(bench: Bench) -> None:
    """What holds the wanted row already is not written at all, and a trigger does not fire for it."""
    bench.run("CREATE TABLE t (code text PRIMARY KEY, v numeric); INSERT INTO t VALUES ('a', 1.00), ('b', 1)")
    before = bench.run("SELECT ctid::text FROM t ORDER BY 1")
    on = view("t", "code", "v")
    writes = [Write((code,), expect, (code, "1")) for code, expect in (("a", ("a", "5")), ("b", None))]
    assert bench.write(on, *writes) == [UNCHANGED, UNCHANGED]
    assert bench.run("SELECT ctid::text FROM t ORDER BY 1") == before


def test_parents_and_children_of_one_table_in_one_call(bench: Bench) -> None:
    """A record that refers to another of the same call finds it, in whatever order they come."""
    bench.run("CREATE TABLE n (id serial PRIMARY KEY, code text UNIQUE NOT NULL, up int REFERENCES n)")
    on = view("n", "code", "up.code", lookups=[Lookup("up", ((("code",), 1),), (1,))])
    rows: list[Row] = [("c", "b"), ("b", "a"), ("a", None), ("x", "y")]
    assert bench.insert(on, *rows) == [APPLIED, APPLIED, APPLIED, MissingParent("up", "n", ("y",))]
    swapped = [Write(("a",), ("a", None), ("a", "c")), Write(("b",), ("b", "a"), ("b", None))]
    assert bench.write(on, *swapped) == [APPLIED, APPLIED]
    assert bench.rows(on, ("a",), ("b",), ("c",)) == [("a", "c"), ("b", None), ("c", "b")]
    leave = [Write((code,), (code, ABSENT), None) for code in "bca"]
    assert bench.write(on, *leave) == [APPLIED] * 3


def test_records_are_found_before_their_references_are_followed(bench: Bench) -> None:
    """However many these are: otherwise each call would read the whole table."""
    parents = [f"p{number}" for number in range(12)]
    bench.run(
        "".join(
            f"CREATE TABLE {parent} (id int PRIMARY KEY, name text UNIQUE);"
            f"INSERT INTO {parent} SELECT g, 'n' || g FROM generate_series(1, 50) g;"
            for parent in parents
        )
        + f"CREATE TABLE t (i text PRIMARY KEY, fresh text, {', '.join(f'{p} int REFERENCES {p}' for p in parents)});"
        f"INSERT INTO t SELECT 'c' || g, 'x', {', '.join('g % 50 + 1' for _ in parents)} "
        "FROM generate_series(1, 5000) g;"
        "ANALYZE"
    )
    lookups = [Lookup(parent, ((("name",), place),), (place,)) for place, parent in enumerate(parents, 2)]
    on = view("t", "i", "fresh", *(f"{parent}.name" for parent in parents), lookups=lookups)

    def row(key: str, value: str, parent: str) -> Row:
        return key, value, *[parent] * len(parents)

    with bench.ours(horizon=_horizon(bench)) as ours:
        assert ours.fetch(on, ("c7",), ("c8",), ("z",)) == {
            ("c7",): [row("c7", "x", "n8")],
            ("c8",): [row("c8", "x", "n9")],
        }
        edit = Write(("c7",), row("c7", "x", "n8"), row("c7", "y", "n3"))
        assert ours.write(on, edit, Write(("z",), None, row("z", "x", "n1"))) == [APPLIED, APPLIED]
        assert ours.write(on, Write(("c8",), row("c8", "x", "n8"), None)) == [Contested(row("c8", "x", "n9"))]
        assert ours.write(on, Write(("c8",), row("c8", "x", "n9"), None)) == [APPLIED]
        read = ours.connection.execute("SELECT seq_tup_read FROM pg_stat_xact_user_tables WHERE relname = 't'")
        assert read.fetchall() == [("0",)]
        ours.commit()
    assert bench.rows(on, ("c7",), ("z",)) == [row("c7", "y", "n3"), row("z", "x", "n1")]


def test_references_do_not_matter_while_they_stay(bench: Bench) -> None:
    """A record whose reference is ambiguous or lost can be changed as long as the reference is not."""
    bench.run(
        "CREATE TABLE g (id int PRIMARY KEY, name text); INSERT INTO g VALUES (1, 'twin'), (2, 'twin'), (3, 'one');"
        "CREATE TABLE t (code text PRIMARY KEY, g int REFERENCES g, v int); INSERT INTO t VALUES ('a', 2, 1)"
    )
    on = view("t", "code", "g.name", "v", lookups=[Lookup("g", ((("name",), 1),), (1,))])
    assert bench.replace(on, ("a", "twin", "1"), ("a", "twin", "2")) == APPLIED
    assert bench.run("SELECT g, v FROM t") == [(2, 2)]
    assert bench.replace(on, ("a", "twin", "2"), ("a", "one", "2")) == APPLIED
    refused = bench.replace(on, ("a", "one", "2"), ("a", "twin", "2"))
    assert isinstance(refused, Rejected)
    assert refused.code == "ambiguous"


@pytest.mark.parametrize("size", [1, 99, 300])
def test_a_key_twice_in_one_call(bench: Bench, size: int) -> None:
    """The later write sees what the earlier one did."""
    bench.run("CREATE TABLE t (code text PRIMARY KEY, v int)")
    on = view("t", "code", "v")
    first = [Write((f"c{n}",), None, (f"c{n}", "1")) for n in range(size)]
    second = [Write((f"c{n}",), (f"c{n}", "1"), (f"c{n}", "2")) for n in range(size)]
    third = [Write((f"c{n}",), (f"c{n}", "1"), None) for n in range(size)]
    outcomes = bench.write(on, *first, *second, *third)
    assert outcomes == [APPLIED] * (2 * size) + [Contested((f"c{n}", "2")) for n in range(size)]


# -- others at the same time -------------------------------------------------------------------------------------------

SHOP = """
CREATE TABLE grp (id serial PRIMARY KEY, name text UNIQUE NOT NULL);
CREATE TABLE item (code text PRIMARY KEY, grp int REFERENCES grp ON DELETE RESTRICT, a int, b int);
INSERT INTO grp (name) VALUES ('one'), ('two');
INSERT INTO item SELECT 'c' || n, 1, 0, 0 FROM generate_series(0, 99) n;
"""
ITEMS = view("item", "code", "grp.name", "a", "b", lookups=[Lookup("grp", ((("name",), 1),), (1,))])
PLAIN = view("item", "code", "a", "b")


@pytest.mark.parametrize(
    ("statement", "current", "outcome"),
    [
        ("UPDATE item SET b = 5 WHERE code = 'c1'", (0, 5), APPLIED),
        ("UPDATE item SET a = 5 WHERE code = 'c1'", (5, 0), Contested(("c1", "5", "0"))),
        ("UPDATE item SET a = 1 WHERE code = 'c1'", (1, 0), UNCHANGED),
        ("DELETE FROM item WHERE code = 'c1'", None, Contested(None)),
        ("UPDATE item SET code = 'moved' WHERE code = 'c1'", None, Contested(None)),
    ],
)
@pytest.mark.parametrize("alone", [True, False])
def test_a_record_that_somebody_is_changing(
    bench: Bench, statement: str, current: tuple[int, int] | None, outcome: Outcome, alone: bool
) -> None:
    """We wait, and judge what the other has left; what the other did to other columns stays."""
    bench.run(SHOP)
    writes = [Write((f"c{n}",), (ABSENT, "0", ABSENT), (ABSENT, "1", ABSENT)) for n in ([1] if alone else range(100))]
    with bench.theirs() as theirs, bench.ours() as ours:
        theirs.execute(statement.encode())
        outcomes = bench.meanwhile(ours, lambda: ours.write(PLAIN, *writes), theirs.commit)
        ours.commit()
    assert outcomes == [outcome if write.key == ("c1",) else APPLIED for write in writes]
    found = bench.run("SELECT a, b FROM item WHERE code = 'c1'")
    assert found == ([] if current is None else [(1, current[1]) if outcome == APPLIED else current])


def test_a_record_that_moves_to_a_parent_of_its_own(bench: Bench) -> None:
    """After the wait the row is told as a whole: also a parent that was not there when we began."""
    bench.run(SHOP)
    with bench.theirs() as theirs, bench.ours() as ours:
        theirs.execute("INSERT INTO grp VALUES (77, 'new')")
        theirs.execute("UPDATE item SET grp = 77 WHERE code = 'c1'")
        write = Write(("c1",), (ABSENT, "one", ABSENT, ABSENT), (ABSENT, "two", ABSENT, ABSENT))
        outcomes = bench.meanwhile(ours, lambda: ours.write(ITEMS, write), theirs.commit)
    assert outcomes == [Contested(("c1", "new", "0", "0"))]


@pytest.mark.parametrize("size", [1, 80])
@pytest.mark.parametrize("commits", [True, False])
def test_a_key_that_somebody_is_inserting(bench: Bench, size: int, commits: bool) -> None:
    """We wait for the other's end; a record that came to be is contested, the rest of ours goes in."""
    bench.run(SHOP)
    writes = [Write((f"n{n}",), None, (f"n{n}", "1", "1")) for n in range(size)]
    with bench.theirs() as theirs, bench.ours() as ours:
        theirs.execute("INSERT INTO item VALUES ('n0', 1, 2, 2)")
        end = theirs.commit if commits else theirs.rollback
        outcomes = bench.meanwhile(ours, lambda: ours.write(PLAIN, *writes), end)
        ours.commit()
    assert outcomes == [Contested(("n0", "2", "2")) if commits else APPLIED, *[APPLIED] * (size - 1)]


@pytest.mark.parametrize("commits", [True, False])
def test_a_parent_that_somebody_is_deleting(bench: Bench, commits: bool) -> None:
    """The lookup that found it finds nothing after the wait."""
    bench.run(SHOP)
    with bench.theirs() as theirs, bench.ours() as ours:
        theirs.execute("DELETE FROM grp WHERE name = 'two'")
        write = Write(("n0",), None, ("n0", "two", "1", "1"))
        end = theirs.commit if commits else theirs.rollback
        outcomes = bench.meanwhile(ours, lambda: ours.write(ITEMS, write), end)
    assert outcomes == [MissingParent("grp", "grp", ("two",)) if commits else APPLIED]


def test_we_give_way_to_who_keeps_a_lock(impatient: Bench) -> None:
    """A lock that is not to be had soon makes us try again later; the other never notices."""
    impatient.run(SHOP)
    with impatient.theirs() as theirs, impatient.ours() as ours:
        theirs.execute("UPDATE item SET a = 9 WHERE code = 'c1'")
        with pytest.raises(Unavailable, match="lock"):
            ours.write(PLAIN, Write(("c1",), (ABSENT, "0", ABSENT), (ABSENT, "1", ABSENT)))
        theirs.commit()


def test_the_application_is_never_the_victim_of_a_deadlock(impatient: Bench) -> None:
    """Whoever locks in another order than we do goes on, and we try again later."""
    impatient.run(SHOP)
    with impatient.theirs() as theirs, impatient.ours() as ours, ThreadPoolExecutor(1) as pool:
        theirs.execute("UPDATE item SET a = 9 WHERE code = 'c2'")
        change = (ABSENT, "1", ABSENT)
        ours.write(PLAIN, Write(("c1",), (ABSENT, "0", ABSENT), change))
        waiting = pool.submit(theirs.execute, "UPDATE item SET a = 9 WHERE code = 'c1'")
        with pytest.raises(Unavailable):
            ours.write(PLAIN, Write(("c2",), (ABSENT, "0", ABSENT), change))
        ours.connection.execute("ROLLBACK")
        waiting.result(PATIENCE)
        theirs.commit()
    assert impatient.run("SELECT code, a FROM item WHERE a <> 0 ORDER BY 1") == [("c1", 9), ("c2", 9)]


def test_fetched_records_stay_as_they_are(impatient: Bench) -> None:
    """What we have read in our transaction nobody changes before its end."""
    impatient.run(SHOP)
    with impatient.theirs() as theirs, impatient.ours() as ours:
        assert ours.fetch(PLAIN, ("c1",), ("none",)) == {("c1",): [("c1", "0", "0")]}
        with pytest.raises(psycopg.errors.LockNotAvailable):
            theirs.execute("SELECT FROM item WHERE code = 'c1' FOR UPDATE NOWAIT")


# -- what users may just have done -------------------------------------------------------------------------------------


def _horizon(bench: Bench) -> int:
    return int(bench.run("SELECT pg_snapshot_xmin(pg_current_snapshot())::text")[0][0])


def test_records_that_users_may_just_have_changed_are_told(bench: Bench) -> None:
    """By the age of their last version, savepoints included; what is not there may just have gone."""
    bench.run(SHOP)
    horizon = _horizon(bench)
    with bench.theirs() as theirs:
        theirs.execute("UPDATE item SET b = 1 WHERE code = 'c1'")
        with theirs.transaction():
            theirs.execute("UPDATE item SET b = 1 WHERE code = 'c2'")
        theirs.execute("UPDATE item SET a = 7 WHERE code = 'c3'")
        theirs.execute("UPDATE item SET a = 1 WHERE code = 'c4'")
        theirs.commit()
    change: tuple[Row, Row] = (ABSENT, "0", ABSENT), (ABSENT, "1", ABSENT)
    with bench.ours(horizon) as ours:
        outcomes = ours.write(PLAIN, *(Write((f"c{n}",), *change) for n in range(6)))
        assert outcomes == [APPLIED] * 3 + [Contested(("c3", "7", "0")), UNCHANGED, APPLIED]
        assert ours.writer.ledger.touched["item"] == {("c1",), ("c2",), ("c3",), ("c4",)}
        ours.write(PLAIN, Write(("new",), None, ("new", "1", "1")), Write(("gone",), (ABSENT,) * 3, None))
        renamed = Write(("c7",), ("c7", "0", "0"), ("m7", "0", "0"))
        assert ours.write(PLAIN, renamed, Write(("c8",), ("c8", "0", "0"), None)) == [APPLIED, APPLIED]
        added: set[tuple[Value, ...]] = {("new",), ("gone",), ("m7",)}
        assert ours.writer.ledger.touched["item"] == {("c1",), ("c2",), ("c3",), ("c4",)} | added
        ours.write(PLAIN, Write(("c0",), (ABSENT, "1", ABSENT), (ABSENT, "2", ABSENT)))
        assert ("c0",) not in ours.writer.ledger.touched["item"]
        ours.commit()
    with bench.ours(_horizon(bench)) as ours:
        ours.write(PLAIN, *(Write((f"c{n}",), (ABSENT,) * 3, (ABSENT, "5", ABSENT)) for n in range(4)))
        assert ours.writer.ledger.touched["item"] == set()


def test_records_that_we_wrote_last_ourselves_do_not_count(bench: Bench) -> None:
    """However young they are, inserted or updated; until a user changes them again."""
    bench.run(SHOP)
    horizon = _horizon(bench)
    update = Write(("c1",), (ABSENT,) * 3, (ABSENT, "5", ABSENT)), Write(("new",), (ABSENT,) * 3, (ABSENT, "6", ABSENT))
    with bench.ours(horizon) as ours:
        written = ours.writer.ledger.ours
        ours.write(
            PLAIN, Write(("c1",), (ABSENT,) * 3, (ABSENT, "4", ABSENT)), Write(("new",), None, ("new", "1", "1"))
        )
        ours.commit()
    with bench.ours(horizon) as ours:
        ours.write(PLAIN, *update)
        assert ours.writer.ledger.touched["item"] == {("c1",), ("new",)}
    with bench.ours(horizon) as ours:
        ours.writer.ledger.ours += written
        ours.write(PLAIN, *update)
        assert ours.writer.ledger.touched["item"] == set()
    bench.run("UPDATE item SET b = 9 WHERE code = 'new'")
    with bench.ours(horizon) as ours:
        ours.writer.ledger.ours += written
        ours.write(PLAIN, *update)
        assert ours.writer.ledger.touched["item"] == {("new",)}


def test_without_a_horizon_every_record_counts(bench: Bench) -> None:
    """Nothing is known to be old."""
    bench.run(SHOP)
    with bench.ours() as ours:
        ours.write(PLAIN, Write(("c1",), (ABSENT,) * 3, (ABSENT, "5", ABSENT)))
        assert ours.writer.ledger.touched["item"] == {("c1",)}


# -- what readers of the feed have to know -----------------------------------------------------------------------------


def test_what_was_written_to_loud_tables_is_told(bench: Bench) -> None:
    """Each record with its primary key before and after, and the columns as we set them."""
    bench.run(
        """CREATE TABLE g (id serial PRIMARY KEY, name text UNIQUE); INSERT INTO g (name) VALUES ('one'), ('two');
        CREATE TABLE t (area int DEFAULT 1, id int GENERATED ALWAYS AS IDENTITY, code text UNIQUE NOT NULL,
            g int REFERENCES g, v int, PRIMARY KEY (area, id));
        CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.v := NEW.v + 100; RETURN NEW; END';
        CREATE TRIGGER f BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION f()"""
    )
    on = view("t", "code", "g.name", "v", "area", lookups=[Lookup("g", ((("name",), 1),), (1,))])
    with bench.ours(loud={"t"}) as ours:
        new: list[Row] = [(f"c{n}", "one", str(n), ABSENT) for n in range(60)]
        assert ours.write(on, *(Write(on.natural_key(row), None, row) for row in new)) == [APPLIED] * 60
        told = ours.writer.ledger.written
        assert [each.values for each in told] == [{"g": "1", "code": f"c{n}", "v": str(n)} for n in range(60)]
        held = {code: (area, key) for code, area, key in ours.connection.execute("SELECT code, area, id FROM t")}
        assert [each.after for each in told] == [held[f"c{n}"] for n in range(60)]
        assert {each.before for each in told} == {None}
        told.clear()
        change = Write(("c3",), ("c3", "one", "3", ABSENT), ("c3", "two", "3", "7"))
        wrong = Write(("c4",), ("c4", "two", "3", ABSENT), ("c4", "two", "3", "7"))
        same = Write(("c5",), ("c5", "two", "3", ABSENT), ("c5", "one", "5", ABSENT))
        leave = Write(("c6",), ("c6", "one", "6", ABSENT), None)
        outcomes = ours.write(on, change, wrong, same, leave)
        assert outcomes == [APPLIED, Contested(("c4", "one", "4", "1")), UNCHANGED, APPLIED]
        left, changed = told
        assert (left.before, left.after, left.values) == (held["c6"], None, {})
        assert (changed.before, changed.after) == (held["c3"], ("7", held["c3"][1]))
        assert changed.values == {"g": "2", "code": "c3", "v": "3", "area": "7"}
