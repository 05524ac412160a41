"""Opening, reflecting and checking SQLite files of every sort, and reading snapshots of them."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from dualwrite.connectors import connect
from dualwrite.connectors._sqlite_session import COMPANY, COURTESY, Courtesy
from dualwrite.connectors.sqlite import SqliteConnector, open_sqlite
from dualwrite.declared import Declared, DeclaredTable
from dualwrite.errors import Denied, Unavailable, Usage
from dualwrite.expression import Column as ColumnPath
from dualwrite.expression import Compare, Literal
from dualwrite.model import ABSENT, Side
from dualwrite.schema import Lookup, Reference, TypeName, View
from dualwrite.testing.sqlite import Laboratory, view

Lab = Callable[..., Laboratory]
ITEM = "CREATE TABLE item (code TEXT PRIMARY KEY, name TEXT);"
ITEMS = view("item", "code", "name")


@pytest.fixture
def lab(tmp_path) -> Iterator[Lab]:
    """Makes a laboratory with these tables."""
    made = []

    def make(script: str, **options) -> Laboratory:
        made.append(Laboratory(tmp_path, script, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def opened(path: Path) -> SqliteConnector:
    """A connector to a path."""
    return open_sqlite(f"sqlite:///{path}", link="l", side=Side.RIGHT)


# -- files -------------------------------------------------------------------------------------------------------------


def test_connectors_are_found_by_scheme(tmp_path) -> None:
    """The url's scheme picks the connector; an unknown one names those that are known."""
    assert isinstance(connect(f"sqlite:///{tmp_path}/a.db", link="l", side=Side.LEFT), SqliteConnector)
    with pytest.raises(Usage, match=r"left side: no connector for 'oracle' \(known: .*sqlite:"):
        connect("oracle://host/db", link="l", side=Side.LEFT)


def test_looking_up_records_leaves_the_schema_read(lab: Lab) -> None:
    """A temporary table that a read took along with its end would make SQLite read the whole schema anew each time."""
    item = lab(ITEM + "INSERT INTO item VALUES ('a', 'A')")
    with closing(open_sqlite(f"sqlite:///{item.path}", link="lab", side=Side.LEFT)) as connector:
        for _ in range(2):
            assert connector.fetch(ITEMS, [("a",)]) == {("a",): [("a", "A")]}
        reader = connector._reader
        assert reader is not None
        assert reader.execute("SELECT count(*) FROM sqlite_temp_master").fetchone() == (1,)


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite:a.db"])
def test_a_url_without_a_file_is_refused(url: str) -> None:
    """A database in memory, or no path at all, cannot be linked."""
    with pytest.raises(Usage, match="not the url of an SQLite file"):
        open_sqlite(url, link="l", side=Side.LEFT)


def test_a_schema_is_refused(tmp_path) -> None:
    """SQLite has no schemas, so a project that names one is told to take it out."""
    with pytest.raises(Usage, match=r"left\.schema is 'public', but an SQLite database has no schemas") as refused:
        connect(f"sqlite:///{tmp_path}/a.db", link="l", side=Side.LEFT, schema="public")
    assert "dualwrite.yaml" in refused.value.remedy


def test_a_missing_file_is_reported_and_never_created(tmp_path) -> None:
    """Neither opening nor checking makes a file that is not there."""
    path = tmp_path / "missing.db"
    connector = opened(path)
    assert [problem.code for problem in connector.health([])] == ["sqlite_missing"]
    with pytest.raises(Denied, match="does not exist"):
        connector.schema()
    with pytest.raises(Denied, match="does not exist"):
        connector.install([ITEMS])
    assert not path.exists()


def test_a_file_that_is_no_database_is_reported(tmp_path) -> None:
    """Any other file is refused with a word about the url."""
    path = tmp_path / "letter.txt"
    path.write_text("Dear Sir or Madam, " * 100)
    connector = opened(path)
    (problem,) = connector.health([])
    assert (problem.code, problem.side) == ("sqlite_unreadable", "right")
    assert "not an SQLite database" in problem.message
    with pytest.raises(Denied, match="not an SQLite database"):
        connector.schema()


def test_a_folder_is_reported(tmp_path) -> None:
    """A folder is no file."""
    assert [problem.code for problem in opened(tmp_path).health([])] == ["sqlite_not_a_file"]


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only for the superuser")
def test_a_read_only_file_is_reported(lab: Lab) -> None:
    """A file that may not be written is found by the check."""
    it = lab(ITEM)
    it.path.chmod(0o444)
    assert "sqlite_read_only" in [problem.code for problem in it.connector.health([])]


def test_a_database_that_refuses_to_be_written_is_denied(lab: Lab) -> None:
    """What SQLite itself holds for read-only stops the link with a remedy."""
    it = lab(ITEM)
    it.connector.install([ITEMS])
    it.connector._writer.execute("PRAGMA query_only = ON")
    with pytest.raises(Denied, match="read-only"):
        it.connector.install([])
    it.connector._writer.execute("PRAGMA query_only = OFF")


def test_a_locked_file_is_waited_for_when_installing(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Switching to WAL waits for readers and writers, and gives up with Unavailable."""
    monkeypatch.setattr("dualwrite.connectors._sqlite_session.PATIENCE", 0.05)
    it = lab(ITEM)
    it.app.execute("BEGIN EXCLUSIVE")
    with pytest.raises(Unavailable, match="busy"):
        it.connector.install([ITEMS])
    it.app.execute("ROLLBACK")
    it.connector.install([ITEMS])
    with closing(it.application()) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_health_before_and_after_installing(lab: Lab) -> None:
    """Before installing only WAL mode is missing; afterwards nothing is."""
    it = lab(ITEM)
    assert [(problem.code, problem.level) for problem in it.connector.health([ITEMS])] == [
        ("sqlite_not_wal", "warning")
    ]
    it.connector.install([ITEMS])
    assert it.connector.health([ITEMS]) == []


def test_health_warns_of_what_replace_would_hide(lab: Lab) -> None:
    """A unique index over an expression cannot be watched for REPLACE."""
    it = lab(ITEM + "CREATE UNIQUE INDEX lowered ON item (lower(name));")
    it.connector.install([ITEMS])
    assert [problem.code for problem in it.connector.health([ITEMS])] == ["sqlite_expression_index"]


def test_health_names_what_cannot_be_captured(lab: Lab) -> None:
    """Missing tables and columns, and virtual tables, are errors of the check."""
    it = lab(ITEM + "CREATE VIRTUAL TABLE words USING fts5(word);")
    for wrong in (view("nowhere", "a"), view("item", "nothing"), view("item", "code.name"), view("words", "word")):
        errors = [problem.code for problem in it.connector.health([wrong]) if problem.level == "error"]
        assert errors == ["sqlite_capture"], wrong
        with pytest.raises(Usage):
            it.connector.install([wrong])
    assert it.objects() == []


def test_identity_stays_with_the_file(lab: Lab, tmp_path) -> None:
    """Once installed, a file tells what it is wherever it is moved, and where; and that it was moved or copied."""
    it = lab(ITEM)
    it.connector.install([ITEMS])
    identity = it.connector.identity()
    it.close()
    moved = it.path.rename(tmp_path / "moved.db")
    connector = open_sqlite(f"sqlite:///{moved}", link="lab", side=Side.LEFT)
    assert connector.identity() == identity.partition("@")[0] + f"@{moved}"
    assert connector.installation().is_copy
    connector.install([ITEMS])
    assert not connector.installation().is_copy
    connector.close()


# -- schema ------------------------------------------------------------------------------------------------------------

DECLARED_TYPES = {
    "INTEGER": ("integer", None),
    "int": ("integer", None),
    "SMALLINT": ("integer", None),
    "VARCHAR(20)": ("text", 20),
    "nvarchar (40)": ("text", 40),
    "TEXT": ("text", None),
    "CLOB": ("text", None),
    "DECIMAL(18,2)": ("numeric(18,2)", None),
    "NUMERIC(9)": ("numeric(9,0)", None),
    "MONEY": ("numeric", None),
    "DOUBLE PRECISION": ("float", None),
    "REAL": ("float", None),
    "BOOLEAN": ("boolean", None),
    "BIT": ("boolean", None),
    "DATE": ("date", None),
    "TIME": ("time", None),
    "DATETIME": ("timestamp", None),
    "TIMESTAMP": ("timestamp", None),
    "TIMESTAMP WITH TIME ZONE": ("timestamptz", None),
    "TIMESTAMPTZ": ("timestamptz", None),
    "UUID": ("uuid", None),
    "UNIQUEIDENTIFIER": ("uuid", None),
    "JSON": ("json", None),
    "BLOB": ("bytes", None),
    "VARBINARY(16)": ("bytes", None),
    "": ("other", None),
    "POINT": ("other", None),
}


def test_declared_types_are_understood(lab: Lab) -> None:
    """What people call their columns becomes a type."""
    columns = ", ".join(f"c{number} {declared}" for number, declared in enumerate(DECLARED_TYPES))
    found = lab(f"CREATE TABLE t ({columns});").connector.schema().tables["t"].columns
    shown = {
        declared: (str(column.type).split("(")[0] if column.type.name is TypeName.TEXT else str(column.type))
        for declared, column in zip(DECLARED_TYPES, found, strict=True)
    }
    assert shown == {declared: name for declared, (name, _) in DECLARED_TYPES.items()}
    lengths = [column.type.length for column in found]
    assert lengths == [length for _, length in DECLARED_TYPES.values()]


def test_the_schema_tells_what_only_the_statement_says(lab: Lab) -> None:
    """Collations, generated columns, defaults and nullability are read, through comments and odd quoting."""
    it = lab(
        """CREATE TABLE "t" (  -- a comment, with a comma
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            [a] TEXT NOT NULL COLLATE NOCASE DEFAULT 'x, COLLATE y', /* COLLATE RTRIM */
            `b` VARCHAR(3) CHECK (b <> ')') COLLATE rtrim,
            "collate" TEXT,
            d INT GENERATED ALWAYS AS (id * 2) VIRTUAL,
            UNIQUE (a, b)
        );"""
    )
    table = it.connector.schema().tables["t"]
    flags = {
        column.name: (
            column.nullable,
            column.has_default,
            column.read_only,
            column.ignore_case,
            column.ignore_trailing_blanks,
        )
        for column in table.columns
    }
    assert flags == {
        "id": (False, True, False, False, False),
        "a": (False, True, False, True, False),
        "b": (True, False, False, False, True),
        "collate": (True, False, False, False, False),
        "d": (True, False, True, False, False),
    }
    assert table.primary_key == ("id",)
    assert set(table.uniques) == {("id",), ("a", "b")}


def test_keys_for_people_are_derived(lab: Lab) -> None:
    """The natural key is the unique index that is no surrogate, with ids followed to the keys that they stand for."""
    it = lab(
        """CREATE TABLE company (id INTEGER PRIMARY KEY, code TEXT NOT NULL UNIQUE);
        CREATE TABLE term (id TEXT PRIMARY KEY DEFAULT (hex(randomblob(8))), company INTEGER REFERENCES company,
            name TEXT, UNIQUE (company, name));
        CREATE TABLE cust (no TEXT PRIMARY KEY, term TEXT, FOREIGN KEY (term) REFERENCES term (id));
        CREATE TABLE log (id INTEGER PRIMARY KEY, what TEXT);"""
    )
    tables = it.connector.schema().tables
    assert {name: table.key for name, table in tables.items()} == {
        "company": (("code",),),
        "term": (("company", "code"), ("name",)),
        "cust": (("no",),),
        "log": (("id",),),
    }
    assert tables["cust"].references == (Reference("term", ("term",), "term", ("id",)),)


def test_our_own_tables_are_no_part_of_the_schema(lab: Lab) -> None:
    """Neither our objects nor SQLite's own, nor views, are offered for mapping."""
    it = lab(ITEM + "CREATE TABLE seq (id INTEGER PRIMARY KEY AUTOINCREMENT); CREATE VIEW seen AS SELECT * FROM item;")
    it.connector.install([ITEMS])
    assert set(it.connector.schema().tables) == {"item", "seq"}


def test_the_schema_is_read_anew(lab: Lab) -> None:
    """A table that the application adds is seen at once."""
    it = lab(ITEM)
    assert "more" not in it.connector.schema().tables
    it.app.execute("CREATE TABLE more (id INTEGER PRIMARY KEY)")
    assert "more" in it.connector.schema().tables


# -- snapshots ---------------------------------------------------------------------------------------------------------


def test_a_snapshot_stands_still(lab: Lab) -> None:
    """What is written while a snapshot is read lies behind its boundary, and not in it."""
    it = lab(ITEM)
    it.install(ITEMS)
    it.app.executemany("INSERT INTO item VALUES (?, 'x')", [(f"{i:05}",) for i in range(5000)])
    with it.connector.snapshot(ITEMS) as snapshot:
        it.app.execute("INSERT INTO item VALUES ('later', 'y')")
        rows = [row for block in snapshot.blocks() for row in block]
        boundary = snapshot.boundary
    assert len(rows) == len(set(rows)) == 5000
    feed = it.connector.feed([ITEMS], boundary)
    assert [change.key for change in feed.read(10, 0).changes] == [("later",)]
    feed.close()


def test_a_boundary_does_not_move_back_when_the_log_is_trimmed(lab: Lab) -> None:
    """An empty log still knows where it is."""
    it = lab(ITEM)
    it.install(ITEMS)
    it.app.execute("INSERT INTO item VALUES ('a', '')")
    end = it.connector.end()
    it.connector.acknowledge(end)
    it.connector.close()
    with it.connect().snapshot(ITEMS) as snapshot:
        assert snapshot.boundary == end


def test_a_reference_to_what_is_not_unique_shows_each_row_once(lab: Lab) -> None:
    """A declared reference that finds several records takes the oldest, in snapshots and in the feed alike."""
    reference = Reference("grp", ("grp",), "grp", ("name",))
    declared = Declared(tables={"cust": DeclaredTable("cust", references=(reference,))})
    script = """CREATE TABLE grp (id INTEGER PRIMARY KEY, name TEXT, title TEXT);
        CREATE TABLE cust (no TEXT PRIMARY KEY, grp TEXT);
        INSERT INTO grp (name, title) VALUES ('g', 'first'), ('g', 'second');"""
    it = lab(script, declared=declared)
    customers = view("cust", "no", "grp.title")
    it.install(customers)
    it.app.execute("INSERT INTO cust VALUES ('1', 'g'), ('2', 'none'), ('3', NULL)")
    wanted = [("1", "first"), ("2", ABSENT), ("3", None)]
    assert it.rows(customers) == wanted
    assert [after for _, _, after in it.told()] == wanted


def test_a_filter_is_evaluated_by_the_database(lab: Lab) -> None:
    """Only rows that pass are read, also by cells behind a lookup; fetch finds the others, too."""
    script = """CREATE TABLE grp (id INTEGER PRIMARY KEY, name TEXT UNIQUE);
        CREATE TABLE cust (no TEXT PRIMARY KEY, grp INTEGER REFERENCES grp, n NUMERIC);
        INSERT INTO grp VALUES (1, 'in'), (2, 'out');
        INSERT INTO cust VALUES ('a', 1, 9), ('b', 2, 10), ('c', 1, 10.0);"""
    it = lab(script)
    paths = (("no",), ("grp", "name"), ("n",))
    lookups = (Lookup("grp", ((("name",), 1),), (1,)),)
    by_name = Compare("eq", ColumnPath(("grp", "name")), Literal("in"))
    inside = View("cust", "cust", paths, (0,), lookups, by_name)
    assert it.rows(inside) == [("a", "in", "9"), ("c", "in", "10")]
    assert it.fetch(inside, "b") == [("b", "out", "10")]


def test_health_does_not_write(lab: Lab) -> None:
    """Checking leaves the file as it is, byte by byte."""
    it = lab(ITEM)
    before = it.path.read_bytes()
    it.connector.health([ITEMS])
    it.connector.schema()
    it.connector.identity()
    assert it.path.read_bytes() == before
    with closing(sqlite3.connect(it.path)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)


# -- other writers -----------------------------------------------------------------------------------------------------


class Clock:
    """Time that passes only when told."""

    def __init__(self) -> None:
        """Somewhere."""
        self.now = 1000.0

    def monotonic(self) -> float:
        """See ``time.monotonic``."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """See ``time.sleep``."""
        self.now += seconds


def test_transactions_that_follow_each_other_closely_let_others_in_between(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever looks every 25 ms finds the lock free within 128 ms; who has left it free anyway does not wait."""
    clock = Clock()
    monkeypatch.setattr("dualwrite.connectors._sqlite_session.time", clock)
    for held, idle in ((0.05, 0.001), (0.01, 0.001), (0.05, 0.02), (0.02, 0.05)):
        courtesy = Courtesy()
        courtesy.begin(1)
        courtesy.begin(2)  # somebody else has committed in between
        ended, since, longest = clock.now, clock.now, 0.0
        for _ in range(40):
            courtesy.begin()
            if clock.now - ended >= 0.025:
                since = clock.now
            clock.now += held
            courtesy.end()
            ended = clock.now
            longest = max(longest, ended - since)
            clock.now += idle
            if idle > COURTESY:
                now = clock.now
                courtesy.begin()
                assert clock.now == now
                courtesy.end()
        assert 0 < longest < 0.128


def test_who_works_alone_seldom_waits_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without company the lock is left free every half second; the first commit of somebody else makes company."""
    clock = Clock()
    monkeypatch.setattr("dualwrite.connectors._sqlite_session.time", clock)
    courtesy = Courtesy()

    def slept(version: int) -> bool:
        before = clock.now
        courtesy.begin(version)
        waited = clock.now > before
        clock.now += 0.06
        courtesy.end()
        return waited

    alone = [slept(1) for _ in range(20)]
    assert sum(alone) == 2
    assert [slept(2) for _ in range(4)].count(True) >= 3
    clock.now += COMPANY
    assert not any(slept(2) for _ in range(8))
