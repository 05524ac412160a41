"""What the link writes into an SQLite database: rows alone at fault, echo and effects, locks and crashes."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from dualwrite.declared import read_declared
from dualwrite.errors import Denied, Superseded, Unavailable, Usage
from dualwrite.model import ABSENT, Applied, Contested, MissingParent, Position, Rejected, Unchanged, Write
from dualwrite.schema import Lookup
from dualwrite.testing.sqlite import Laboratory, view

Lab = Callable[..., Laboratory]
TAG = "CREATE TABLE tag (id INTEGER PRIMARY KEY, code TEXT NOT NULL UNIQUE, rank INTEGER UNIQUE, note TEXT);"
TAGS = view("tag", "code", "rank", "note")
APPLIED = Applied()


@pytest.fixture
def lab(tmp_path) -> Iterator[Lab]:
    """Makes a laboratory with these tables and captures these views."""
    made = []

    def make(script: str, *views, **options) -> Laboratory:
        made.append(Laboratory(tmp_path, script, **options))
        made[-1].install(*views)
        return made[-1]

    yield make
    for one in made:
        one.close()


def insert(*row) -> Write:
    """A row whose first cell is its key, to be added."""
    return Write((row[0],), None, row)


def change(old: tuple, new: tuple) -> Write:
    """A row that is expected to be there, to be changed."""
    return Write((old[0],), old, new)


# -- rows that are refused ---------------------------------------------------------------------------------------------


def test_refused_rows_are_alone_and_leave_nothing(lab: Lab) -> None:
    """Among many rows each bad one gets the database's own reason; all others are written."""
    script = "CREATE TABLE t (c TEXT PRIMARY KEY, n INTEGER NOT NULL, v TEXT CHECK (v <> 'bad'), u TEXT UNIQUE) STRICT;"
    rows = view("t", "c", "n", "v", "u")
    it = lab(script + "INSERT INTO t VALUES ('x', 0, 'v', 'taken');", rows)
    good = [insert(f"g{i}", str(i), "v", f"u{i}") for i in range(50)]
    bad = [insert("b1", None, "v", None), insert("b2", "1", "bad", None), insert("b3", "x", "v", None)]
    bad.append(insert("b4", "1", "v", "taken"))
    mixed = [*good[:10], bad[0], *good[10:20], bad[1], bad[2], *good[20:], bad[3]]
    outcomes = dict(zip((write.key[0] for write in mixed), it.write(rows, *mixed), strict=True))
    assert {key: outcome for key, outcome in outcomes.items() if key.startswith("g")} == {
        f"g{i}": APPLIED for i in range(50)
    }
    refused = {key: (outcome.code, outcome.reason) for key, outcome in outcomes.items() if key.startswith("b")}
    assert {key: code for key, (code, _) in refused.items()} == {
        "b1": "required",
        "b2": "value",
        "b3": "value",
        "b4": "unique",
    }
    assert refused["b1"][1] == "NOT NULL constraint failed: t.n"
    assert len(it.rows(rows)) == 51


def test_numbers_that_sqlite_cannot_keep_are_refused(lab: Lab) -> None:
    """A number with more digits than the column gives back is refused, not rounded."""
    rows = view("t", "c", "n", "s", "i")
    it = lab("CREATE TABLE t (c TEXT PRIMARY KEY, n DECIMAL(38,10), s STRING, i INTEGER);", rows)
    outcomes = it.write(
        rows,
        insert("a", "123456789012345678.1234567890", "x", "1"),
        insert("b", "1.5000000000", "007", "1"),
        insert("c", "1.5000000000", "7", "9223372036854775808"),
        insert("d", "1234567.1234567000", "7", "9223372036854775807"),
    )
    assert [outcome.code if isinstance(outcome, Rejected) else None for outcome in outcomes[:2]] == ["value", "value"]
    assert isinstance(outcomes[2], Rejected)
    assert outcomes[3] == APPLIED
    assert it.rows(rows) == [("d", "1234567.1234567000", "7", "9223372036854775807")]


def test_a_generated_column_cannot_be_written(lab: Lab) -> None:
    """A row that sets a generated column is refused as read-only; one that leaves it alone is written."""
    rows = view("t", "c", "d")
    it = lab("CREATE TABLE t (c TEXT PRIMARY KEY, d TEXT AS (upper(c)));", rows)
    outcomes = it.write(rows, insert("a", "X"), insert("b", ABSENT))
    assert outcomes == [Rejected("readonly", "t.d is generated and cannot be written"), APPLIED]


def test_a_duplicate_key_is_never_picked_from(lab: Lab) -> None:
    """Two records of one key are reported, whatever is asked for."""
    it = lab("CREATE TABLE t (c TEXT, v TEXT);", view("t", "c", "v"))
    it.app.execute("INSERT INTO t VALUES ('a', '1'), ('a', '2')")
    (outcome,) = it.write(it.views[0], Write(("a",), ("a", "1"), ("a", "3")))
    assert outcome == Rejected("ambiguous", "2 records of t hold the key a")
    assert len(it.fetch(it.views[0], "a")) == 2


def test_two_rows_of_one_call_never_share_a_key(lab: Lab) -> None:
    """Without a unique index the second of two rows with one new key is refused all the same."""
    rows = view("t", "c", "v")
    it = lab("CREATE TABLE t (c TEXT, v TEXT); INSERT INTO t VALUES ('a', '1'), ('b', '2');", rows)
    outcomes = it.write(rows, change(("a", "1"), ("c", "1")), insert("c", "3"), change(("b", "2"), ("b", "9")))
    assert outcomes[0] == APPLIED
    assert isinstance(outcomes[1], Rejected)
    assert outcomes[2] == APPLIED


# -- unique values that move -------------------------------------------------------------------------------------------


def test_unique_values_change_places(lab: Lab) -> None:
    """Two rows that swap a unique value, and three that rotate theirs, are all written."""
    it = lab(TAG + "INSERT INTO tag (code, rank) VALUES ('a', 1), ('b', 2), ('c', 3), ('d', 4), ('e', 5);", TAGS)
    pairs = [("a", "1", "2"), ("b", "2", "1"), ("c", "3", "4"), ("d", "4", "5"), ("e", "5", "3")]
    writes = [change((code, old, None), (code, new, None)) for code, old, new in pairs]
    assert it.write(TAGS, *writes) == [APPLIED] * 5
    assert [row[1] for row in it.rows(TAGS)] == ["2", "1", "4", "5", "3"]
    assert it.told() == []


def test_a_value_that_another_row_gives_up_may_be_taken(lab: Lab) -> None:
    """Order within a call does not matter: deletes and moves make room first."""
    it = lab(TAG + "INSERT INTO tag (code, rank) VALUES ('a', 1), ('b', 2), ('c', 3);", TAGS)
    outcomes = it.write(
        TAGS,
        insert("n", "3", None),
        change(("a", "1", None), ("a", "2", None)),
        change(("b", "2", None), ("b", "9", None)),
        Write(("c",), ("c", "3", None), None),
    )
    assert outcomes == [APPLIED] * 4
    assert it.rows(TAGS) == [("a", "2", None), ("b", "9", None), ("n", "3", None)]


def test_a_swap_that_cannot_be_is_refused_and_undone(lab: Lab) -> None:
    """Rows whose values are held by a third row keep theirs; the others swap."""
    it = lab(TAG + "INSERT INTO tag (code, rank) VALUES ('a', 1), ('b', 2), ('c', 3), ('x', 9);", TAGS)
    outcomes = it.write(
        TAGS,
        change(("a", "1", None), ("a", "2", None)),
        change(("b", "2", None), ("b", "1", None)),
        change(("c", "3", None), ("c", "9", None)),
    )
    assert outcomes[:2] == [APPLIED, APPLIED]
    assert isinstance(outcomes[2], Rejected)
    assert [row[1] for row in it.rows(TAGS)] == ["2", "1", "3", "9"]


# -- references --------------------------------------------------------------------------------------------------------

TREE = """CREATE TABLE node (id INTEGER PRIMARY KEY, code TEXT NOT NULL UNIQUE,
          up INTEGER REFERENCES node {deferred}, v TEXT);"""
NODES = view("node", "code", "up.code", "v", lookups=[Lookup("up", ((("code",), 1),), (1,))])


def test_rows_of_one_call_may_refer_to_each_other(lab: Lab) -> None:
    """Parents and children of one table are written together, in whatever order they come."""
    it = lab(TREE.format(deferred=""), NODES)
    assert it.write(NODES, insert("c", "b", ""), insert("b", "a", ""), insert("a", None, "")) == [APPLIED] * 3
    assert it.write(NODES, insert("z", "y", "")) == [MissingParent("up", "node", ("y",))]


def test_a_flat_reference_names_the_missing_parent(lab: Lab) -> None:
    """A foreign key over a plain column says which record is missing."""
    script = """CREATE TABLE grp (code TEXT PRIMARY KEY);
                CREATE TABLE cust (no TEXT PRIMARY KEY, grp TEXT REFERENCES grp);"""
    customers = view("cust", "no", "grp")
    it = lab(script, customers)
    outcomes = it.write(customers, insert("1", "g"), insert("2", None))
    assert outcomes == [MissingParent("grp", "grp", ("g",)), APPLIED]


def test_deferred_foreign_keys_are_checked_row_by_row(lab: Lab) -> None:
    """What the database would refuse at the commit, with everything else, is refused alone."""
    deferred = "DEFERRABLE INITIALLY DEFERRED"
    flat = view("node", "id", "up", "v")
    it = lab(TREE.format(deferred=deferred) + "INSERT INTO node VALUES (1, 'a', NULL, ''), (2, 'b', 1, '');", flat)
    flat_up = view("node", "code", "up", "v")
    outcomes = it.write(
        flat_up,
        insert("x", "77", ""),
        insert("y", "1", ""),
        Write(("a",), ("a", None, ""), None),
        change(("b", "1", ""), ("b", "78", "")),
    )
    assert outcomes[0] == MissingParent("up", "node", ("77",))
    assert outcomes[1] == APPLIED
    assert isinstance(outcomes[2], Rejected)
    assert outcomes[2].code == "reference"
    assert outcomes[3] == MissingParent("up", "node", ("78",))


def test_a_lookup_through_a_duplicate_key_is_refused(lab: Lab) -> None:
    """Where two records hold the key that a lookup names, the row is refused and none is picked."""
    script = """CREATE TABLE grp (id INTEGER PRIMARY KEY, name TEXT); INSERT INTO grp VALUES (1, 'g'), (2, 'g');
                CREATE TABLE cust (no TEXT PRIMARY KEY, grp INTEGER REFERENCES grp);"""
    customers = view("cust", "no", "grp.name", lookups=[Lookup("grp", ((("name",), 1),), (1,))])
    it = lab(script, customers)
    assert it.write(customers, insert("1", "g")) == [Rejected("ambiguous", "2 records of grp hold the key g")]


# -- triggers of the application ---------------------------------------------------------------------------------------


def test_a_trigger_that_rolls_back_everything_loses_its_row_only(lab: Lab) -> None:
    """RAISE(ROLLBACK) undoes our whole transaction; what was written before is written again, the row is refused."""
    guard = (
        "CREATE TRIGGER guard BEFORE INSERT ON tag WHEN NEW.note = 'no' BEGIN SELECT RAISE(ROLLBACK, 'not this'); END;"
    )
    other = view("other", "k", "v")
    it = lab(TAG + guard + "CREATE TABLE other (k TEXT PRIMARY KEY, v TEXT);", TAGS, other)
    with it.connector.transaction("flow", it.views) as transaction:
        assert transaction.write(other, [insert("first", "1")]) == [APPLIED]
        transaction.remember("parked", "tag", "k", "v")
        outcomes = transaction.write(TAGS, [insert("a", None, ""), insert("b", None, "no"), insert("c", None, "")])
        transaction.commit(Position("peer", (1,)))
    assert outcomes == [APPLIED, Rejected("other", "not this"), APPLIED]
    assert it.rows(other) == [("first", "1")]
    assert [row[0] for row in it.rows(TAGS)] == ["a", "c"]
    assert [entry.key for entry in it.connector.remembered("parked")] == ["k"]
    assert it.told() == []


def test_a_trigger_that_fails_leaves_nothing_of_its_row(lab: Lab) -> None:
    """RAISE(FAIL) in an AFTER trigger leaves the row there; we take it back."""
    guard = "CREATE TRIGGER guard AFTER INSERT ON tag WHEN NEW.note = 'no' BEGIN SELECT RAISE(FAIL, 'not this'); END;"
    it = lab(TAG + guard, TAGS)
    outcomes = it.write(TAGS, insert("a", None, ""), insert("b", None, "no"), insert("c", None, ""))
    assert outcomes == [APPLIED, Rejected("other", "not this"), APPLIED]
    assert [row[0] for row in it.rows(TAGS)] == ["a", "c"]


def test_a_trigger_that_ignores_a_row_is_noticed(lab: Lab) -> None:
    """RAISE(IGNORE) makes the statement succeed and write nothing: that is a refusal."""
    guard = "CREATE TRIGGER guard BEFORE INSERT ON tag WHEN NEW.note = 'no' BEGIN SELECT RAISE(IGNORE); END;"
    it = lab(TAG + guard, TAGS)
    outcomes = it.write(TAGS, insert("a", None, ""), insert("b", None, "no"))
    assert outcomes[0] == APPLIED
    assert isinstance(outcomes[1], Rejected)
    assert [row[0] for row in it.rows(TAGS)] == ["a"]


def test_constraints_that_replace_by_themselves_are_told(lab: Lab) -> None:
    """UNIQUE ON CONFLICT REPLACE deletes another row by our write: a change of this side."""
    script = "CREATE TABLE t (id INTEGER PRIMARY KEY, c TEXT UNIQUE, u TEXT UNIQUE ON CONFLICT REPLACE);"
    rows = view("t", "c", "u")
    it = lab(script + "INSERT INTO t VALUES (1, 'old', 'x');", rows)
    assert it.write(rows, insert("new", "x")) == [APPLIED]
    assert it.rows(rows) == [("new", "x")]
    assert it.told() == [("delete", ("old", "x"), None)]


def test_work_of_a_trigger_on_other_tables_is_told(lab: Lab) -> None:
    """A trigger that keeps a total elsewhere changes that side's record; our own rows stay echo."""
    script = """CREATE TABLE head (no TEXT PRIMARY KEY, total INTEGER);
        CREATE TABLE line (k TEXT PRIMARY KEY, head TEXT, n INTEGER);
        CREATE TRIGGER add_up AFTER INSERT ON line
        BEGIN UPDATE head SET total = total + NEW.n WHERE no = NEW.head; END;
        INSERT INTO head VALUES ('h', 0);"""
    lines, heads = view("line", "k", "head", "n"), view("head", "no", "total")
    it = lab(script, lines, heads)
    it.write(lines, insert("1", "h", "3"), insert("2", "h", "4"))
    assert it.told() == [("update", ("h", "0"), ("h", "7"))]


def test_defaults_of_the_database_are_told(lab: Lab) -> None:
    """Columns that we left out and the database filled are a change of this side, what we wrote is not."""
    script = "CREATE TABLE t (id INTEGER PRIMARY KEY, c TEXT UNIQUE, v TEXT, state TEXT DEFAULT 'new');"
    rows = view("t", "c", "v", "state")
    it = lab(script, rows)
    it.write(rows, insert("a", "1", ABSENT), insert("b", "2", "old"))
    assert it.told() == [("update", ("a", "1", None), ("a", "1", "new"))]


def test_cascades_of_our_writes_are_told(lab: Lab) -> None:
    """Children that a foreign key changes because of our write are changes of this side."""
    script = """PRAGMA foreign_keys = ON; CREATE TABLE head (no TEXT PRIMARY KEY);
        CREATE TABLE line (k TEXT PRIMARY KEY, head TEXT REFERENCES head ON UPDATE CASCADE ON DELETE SET NULL);
        INSERT INTO head VALUES ('h'), ('g'); INSERT INTO line VALUES ('1', 'h'), ('2', 'g');"""
    heads, lines = view("head", "no"), view("line", "k", "head")
    it = lab(script, heads, lines)
    it.write(heads, change(("h",), ("H",)), Write(("g",), ("g",), None))
    assert sorted(it.told()) == [("update", ("1", "h"), ("1", "H")), ("update", ("2", "g"), ("2", None))]


def test_a_child_that_we_wrote_ourselves_is_not_told_of_its_parents_rename(lab: Lab) -> None:
    """Of the children of a record that we rename only those are told that we did not write in the transaction."""
    script = """CREATE TABLE head (id INTEGER PRIMARY KEY, no TEXT UNIQUE);
        CREATE TABLE line (id INTEGER PRIMARY KEY, k TEXT UNIQUE, head INTEGER REFERENCES head);
        INSERT INTO head VALUES (1, 'h'); INSERT INTO line VALUES (1, 'a', 1), (2, 'b', 1);"""
    heads = view("head", "no")
    lines = view("line", "k", "head.no", lookups=[Lookup("head", ((("no",), 1),), (1,))])
    it = lab(script, heads, lines)
    with it.connector.transaction("flow", it.views) as transaction:
        assert transaction.write(heads, [change(("h",), ("H",))]) == [APPLIED]
        assert transaction.write(lines, [insert("c", "H"), change(("a", "h"), ("a", "H"))]) == [APPLIED, Unchanged()]
        transaction.commit(None)
    assert it.told() == [("update", ("b", "h"), ("b", "H"))]


# -- what is expected --------------------------------------------------------------------------------------------------


def test_texts_compare_exactly_in_expectations_and_by_collation_in_keys(lab: Lab) -> None:
    """A key finds its record whatever its case where the column says so; values are written as they are."""
    rows = view("t", "c", "v")
    it = lab("CREATE TABLE t (c TEXT COLLATE NOCASE PRIMARY KEY, v TEXT); INSERT INTO t VALUES ('Ab', 'x');", rows)
    assert it.write(rows, Write(("AB",), ("ab", "X"), ("ab", "y"))) == [Contested(("Ab", "x"))]
    assert it.write(rows, Write(("AB",), ("ab", "x"), ("ab", "y"))) == [APPLIED]
    assert it.rows(rows) == [("ab", "y")]


def test_only_cells_that_differ_are_written(lab: Lab) -> None:
    """A trigger that watches one column is not woken by a write of another."""
    watch = "CREATE TRIGGER watch BEFORE UPDATE OF rank ON tag BEGIN SELECT RAISE(ABORT, 'rank was written'); END;"
    it = lab(TAG + watch + "INSERT INTO tag (code, rank) VALUES ('a', 1);", TAGS)
    assert it.write(TAGS, change(("a", "1", None), ("a", "1", "new"))) == [APPLIED]


def test_existing_spellings_are_followed(lab: Lab) -> None:
    """Moments and truth values are written in the manner of those that a column holds already."""
    rows = view("t", "c", "at", "ok", "zoned")
    script = "CREATE TABLE t (c TEXT PRIMARY KEY, at DATETIME, ok BOOLEAN, zoned TIMESTAMPTZ);"
    it = lab(script + "INSERT INTO t VALUES ('a', '2024-01-02T03:04:05', 'Yes', '2024-01-02T03:04:05Z');", rows)
    assert it.rows(rows) == [("a", "2024-01-02 03:04:05", "t", "2024-01-02 03:04:05+00")]
    it.write(rows, insert("b", "2025-01-02 03:04:05", "f", "2025-01-02 03:04:05+00"))
    stored = it.app.execute("SELECT at, ok, zoned FROM t WHERE c = 'b'").fetchone()
    assert stored == ("2025-01-02T03:04:05", "No", "2025-01-02T03:04:05Z")


@pytest.mark.parametrize(
    ("declared", "sample", "written", "stored"),
    [
        ("INTEGER", None, "held", 1),
        ("INTEGER", 0, "1", 1),
        ("INTEGER", 0, "other", "other"),
        ("TEXT", "open", "1", "held"),
        ("TEXT", "0", "held", "1"),
        ("TEXT", None, "held", "held"),
    ],
)
def test_choices_are_stored_as_the_column_has_them(lab: Lab, declared, sample, written, stored) -> None:
    """A column of numbers gets the choice's number, a column of names its name, whichever the map says."""
    rows = view("t", "c", "state")
    names = read_declared("tables: {t: {columns: {state: {choices: {open: 0, held: 1}}}}}", "left.yaml")
    it = lab(f"CREATE TABLE t (c TEXT PRIMARY KEY, state {declared});", rows, declared=names)
    if sample is not None:
        it.app.execute("INSERT INTO t VALUES ('a', ?)", (sample,))
    it.told()
    assert it.write(rows, insert("b", written)) == [APPLIED]
    assert it.app.execute("SELECT state FROM t WHERE c = 'b'").fetchone() == (stored,)
    assert it.told() == []


# -- transactions ------------------------------------------------------------------------------------------------------


def test_a_busy_database_is_waited_for(lab: Lab) -> None:
    """A writer that holds the lock for a while delays us, and nothing fails."""
    it = lab(TAG, TAGS)
    other = it.application()
    other.execute("BEGIN IMMEDIATE")
    done = threading.Event()

    def write() -> None:
        it.write(TAGS, insert("a", None, None))
        done.set()

    thread = threading.Thread(target=write)
    thread.start()
    assert not done.wait(0.2)
    other.execute("COMMIT")
    thread.join(20)
    assert done.is_set()
    other.close()


def test_a_database_that_stays_busy_is_unavailable(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a long wait the engine is told to try again later."""
    monkeypatch.setattr("dualwrite.connectors._sqlite_session.PATIENCE", 0.05)
    it = lab(TAG, TAGS)
    it.app.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unavailable, match="busy"):
        it.connector.transaction("flow")
    it.app.execute("ROLLBACK")
    assert it.write(TAGS, insert("a", None, None)) == [APPLIED]


def test_a_full_disk_is_unavailable_and_loses_nothing(lab: Lab) -> None:
    """When the file cannot grow, the transaction is gone as a whole and can be tried again."""
    it = lab(TAG, TAGS)
    it.write(TAGS, insert("a", None, None))
    writer = it.connector._writer
    writer.execute("PRAGMA max_page_count = 1")
    with pytest.raises(Unavailable, match="full"):
        it.write(TAGS, *(insert(f"b{i}", None, "x" * 1000) for i in range(100)))
    writer.execute("PRAGMA max_page_count = 100000")
    assert [row[0] for row in it.rows(TAGS)] == ["a"]
    assert it.write(TAGS, insert("b", None, None)) == [APPLIED]
    assert it.told() == []


def test_another_session_that_moves_the_stream_is_noticed(lab: Lab) -> None:
    """A connector whose stream was moved by somebody else may not commit over it."""
    it = lab(TAG, TAGS)
    it.write(TAGS, position=Position("peer", (1,)))
    other = it.connect()
    with other.transaction("flow") as transaction:
        transaction.commit(Position("peer", (2,)))
    with it.connector.transaction("flow") as transaction, pytest.raises(Superseded):
        transaction.commit(Position("peer", (3,)))
    with it.connector.transaction("flow") as transaction:
        assert transaction.position() == Position("peer", (2,))
        transaction.commit(Position("peer", (3,)))
    other.close()


def test_a_link_that_is_not_installed_says_so(tmp_path) -> None:
    """Transactions and feeds of a link that was never installed are refused with what to do."""
    it = Laboratory(tmp_path, TAG)
    with pytest.raises(Usage, match="not installed"):
        it.connector.transaction("flow")
    with pytest.raises(Usage, match="not installed"):
        it.connector.feed([TAGS], None)
    assert it.connector.positions() == {}
    it.close()


KILLED = """
import sys, time
from dualwrite.model import Position, Side, Write
from dualwrite.testing.sqlite import view
from dualwrite.connectors.sqlite import open_sqlite
tags = view("tag", "code", "rank", "note")
connector = open_sqlite("sqlite:///" + sys.argv[1], link="lab", side=Side.LEFT, declared=None)
transaction = connector.transaction("flow", [tags])
transaction.write(tags, [Write(("x",), None, ("x", None, None))])
transaction.remember("parked", "tag", "x", "y")
print("written", flush=True)
time.sleep(60)
"""


def test_a_kill_before_the_commit_leaves_nothing(lab: Lab) -> None:
    """A process that dies in the middle leaves no row, no marker, no entry, and capture as it was."""
    it = lab(TAG, TAGS)
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(it.path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "written\n"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    it.app.execute("INSERT INTO tag (code) VALUES ('after')")
    assert it.told() == [("insert", None, ("after", None, None))]
    assert list(it.connector.remembered("parked")) == []
    with it.connector.transaction("flow") as transaction:
        assert transaction.number == 1


# -- trimming ----------------------------------------------------------------------------------------------------------


def test_an_idle_link_ends_trimmed(lab: Lab) -> None:
    """What was acknowledged is gone from the file when the connector is closed, but the last marker."""
    it = lab(TAG, TAGS)
    it.app.executemany("INSERT INTO tag (code) VALUES (?)", [(f"{i}",) for i in range(10)])
    it.write(TAGS, position=Position("peer", (5,)))
    it.connector.acknowledge(it.connector.end())
    assert it.app.execute("SELECT count(*) FROM dualwrite_lab_log").fetchone() == (11,)
    it.connector.close()
    assert it.app.execute("SELECT op FROM dualwrite_lab_log").fetchall() == [("M",)]
    it.app.execute("INSERT INTO tag (code) VALUES ('later')")
    feed = it.connect().feed([TAGS], None)
    (told,) = feed.read(10, 0).changes
    assert (told.seen, told.mark) == (Position("peer", (5,)), 1)
    feed.close()


def test_a_long_log_is_trimmed_in_slices(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trimming lets other writers in between, and what a crash leaves is trimmed the next time."""
    monkeypatch.setattr("dualwrite.connectors._sqlite_log.SLICE", 100)
    it = lab(TAG, TAGS)
    it.app.executemany("INSERT INTO tag (code) VALUES (?)", [(f"{i}",) for i in range(1500)])
    end = it.connector.end()
    slices = []
    begin = it.connector._file.begin

    def counted(_: object, connection: sqlite3.Connection, patience: float) -> None:
        slices.append(None)
        if len(slices) == 4:
            raise Unavailable("somebody else is at work")
        begin(connection, patience)

    monkeypatch.setattr(type(it.connector._file), "begin", counted)
    it.connector.acknowledge(end)
    assert it.app.execute("SELECT count(*) FROM dualwrite_lab_log").fetchone() == (1200,)
    it.connector.acknowledge(end)
    assert it.app.execute("SELECT count(*) FROM dualwrite_lab_log").fetchone() == (0,)
    assert len(slices) == 4 + 12


def test_a_damaged_deferred_key_at_the_commit_is_told(lab: Lab) -> None:
    """A trigger that breaks a deferred foreign key makes the commit fail: that stops the link with a reason."""
    script = """CREATE TABLE a (k TEXT PRIMARY KEY, v TEXT);
        CREATE TABLE b (k TEXT PRIMARY KEY, a TEXT REFERENCES a DEFERRABLE INITIALLY DEFERRED);
        CREATE TRIGGER breaks AFTER INSERT ON a BEGIN INSERT INTO b VALUES (NEW.k, 'nobody'); END;"""
    rows = view("a", "k", "v")
    it = lab(script, rows)
    with it.connector.transaction("flow", [rows]) as transaction:
        transaction.write(rows, [insert("1", "2")])
        with pytest.raises(Denied, match="deferred"):
            transaction.commit(None)
    assert it.rows(rows) == []
