"""What an application does to an SQLite database is captured, whatever SQL it uses."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import closing

import pytest

from dualwrite.connectors import _sqlite_onlookers
from dualwrite.connectors._sqlite_log import Entries
from dualwrite.connectors._sqlite_order import Entry
from dualwrite.connectors.sqlite import open_sqlite
from dualwrite.errors import Denied, Halted, PositionLost
from dualwrite.lined import LARGEST
from dualwrite.model import ABSENT, Applied, Position, Side, Write
from dualwrite.schema import Lookup
from dualwrite.testing.example import parts_since
from dualwrite.testing.sqlite import Laboratory, view

TERMS = "CREATE TABLE terms (id INTEGER PRIMARY KEY, name TEXT UNIQUE, days INTEGER, note TEXT);"
TERMS_VIEW = view("terms", "name", "days")
NOTES = "CREATE TABLE notes (text TEXT PRIMARY KEY);"
NOTES_VIEW = view("notes", "text")
Lab = Callable[..., Laboratory]


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


# -- REPLACE -----------------------------------------------------------------------------------------------------------


def test_replace_by_primary_key_is_an_update(lab: Lab) -> None:
    """REPLACE of a row with the same natural key is told as the update that it is, with the row before it."""
    it = lab(TERMS + "INSERT INTO terms VALUES (1, 'N30', 30, NULL);", TERMS_VIEW)
    it.app.execute("REPLACE INTO terms (id, name, days) VALUES (1, 'N30', 31)")
    assert it.told() == [("update", ("N30", "30"), ("N30", "31"))]


def test_replace_by_another_unique_column_deletes_the_other_row(lab: Lab) -> None:
    """A row that loses its place to a row with another key is told as deleted, though no delete trigger fires."""
    it = lab(TERMS + "INSERT INTO terms VALUES (1, 'N30', 30, NULL), (2, 'N60', 60, NULL);", TERMS_VIEW)
    it.app.execute("INSERT OR REPLACE INTO terms (id, name, days) VALUES (1, 'N60', 61)")
    assert it.told() == [("delete", ("N30", "30"), None), ("update", ("N60", "60"), ("N60", "61"))]
    assert it.rows(TERMS_VIEW) == [("N60", "61")]


def test_replace_without_clash_is_an_insert(lab: Lab) -> None:
    """REPLACE of what was not there is an insert, also behind ones that replaced."""
    it = lab(TERMS + "INSERT INTO terms VALUES (1, 'N30', 30, NULL);", TERMS_VIEW)
    it.app.execute("REPLACE INTO terms (id, name, days) VALUES (1, 'N30', 31), (2, 'N60', 60)")
    assert it.told() == [("update", ("N30", "30"), ("N30", "31")), ("insert", None, ("N60", "60"))]


def test_update_or_replace_deletes_the_other_row(lab: Lab) -> None:
    """UPDATE OR REPLACE that takes another row's unique value is a delete and an update."""
    it = lab(TERMS + "INSERT INTO terms VALUES (1, 'N30', 30, NULL), (2, 'N60', 60, NULL);", TERMS_VIEW)
    it.app.execute("UPDATE OR REPLACE terms SET name = 'N60' WHERE id = 1")
    assert sorted(it.told()) == [("delete", ("N60", "60"), None), ("update", ("N30", "30"), ("N60", "30"))]


def test_replace_with_recursive_triggers_is_not_told_twice(lab: Lab) -> None:
    """Where delete triggers fire for replaced rows, the row is told as gone once."""
    it = lab(TERMS + "INSERT INTO terms VALUES (1, 'N30', 30, NULL), (2, 'N60', 60, NULL);", TERMS_VIEW)
    it.app.execute("PRAGMA recursive_triggers = ON")
    it.app.execute("REPLACE INTO terms (id, name, days) VALUES (1, 'N60', 61)")
    told = it.told()
    assert [kind for kind, *_ in told].count("delete") <= 2
    state = {("N30", "30"), ("N60", "60")}
    for _, before, after in told:
        state = (state - {before}) | ({after} if after else set())
    assert state == {("N60", "61")}


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT OR IGNORE INTO terms (id, name, days) VALUES (1, 'N30', 99)",
        "INSERT INTO terms (id, name, days) VALUES (1, 'N30', 99) ON CONFLICT DO NOTHING",
    ],
)
def test_ignored_inserts_leave_nothing_behind(lab: Lab, statement: str) -> None:
    """What an ignored insert would have clashed with is not told as gone, then or by a later statement."""
    it = lab(TERMS + "INSERT INTO terms VALUES (1, 'N30', 30, NULL);", TERMS_VIEW)
    it.app.execute(statement)
    it.app.execute("UPDATE terms SET days = 31 WHERE id = 1")
    it.app.execute("DELETE FROM terms WHERE id = 1")
    it.app.execute("INSERT INTO terms (id, name, days) VALUES (2, 'N60', 60)")
    assert it.told() == [
        ("update", ("N30", "30"), ("N30", "31")),
        ("delete", ("N30", "31"), None),
        ("insert", None, ("N60", "60")),
    ]


def test_an_upsert_is_told_as_what_it_did(lab: Lab) -> None:
    """ON CONFLICT DO UPDATE is an update where there was a row and an insert where there was none."""
    it = lab(TERMS + "INSERT INTO terms VALUES (1, 'N30', 30, NULL);", TERMS_VIEW)
    upsert = "INSERT INTO terms (name, days) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET days = excluded.days"
    it.app.executemany(upsert, [("N30", 31), ("N60", 60), ("N60", 61)])
    assert it.told() == [
        ("update", ("N30", "30"), ("N30", "31")),
        ("insert", None, ("N60", "60")),
        ("update", ("N60", "60"), ("N60", "61")),
    ]


def test_replace_in_a_table_without_rowid(lab: Lab) -> None:
    """Tables WITHOUT ROWID are captured by their primary key, REPLACE included."""
    script = "CREATE TABLE rate (c TEXT, d TEXT, v REAL, u TEXT UNIQUE, PRIMARY KEY (c, d)) WITHOUT ROWID;"
    rates = view("rate", "c", "d", "v", key=2)
    it = lab(script + "INSERT INTO rate VALUES ('EUR', '1', 1.5, 'a'), ('USD', '1', 2, 'b');", rates)
    it.app.execute("REPLACE INTO rate VALUES ('EUR', '1', 3, 'b')")
    assert sorted(it.told()) == [
        ("delete", ("USD", "1", "2"), None),
        ("update", ("EUR", "1", "1.5"), ("EUR", "1", "3")),
    ]


def test_replace_by_a_partial_index(lab: Lab) -> None:
    """A partial unique index counts only where its condition holds."""
    index = "CREATE UNIQUE INDEX one_default ON terms (note) WHERE days > 50;"
    it = lab(TERMS + index + "INSERT INTO terms VALUES (1, 'A', 60, 'd'), (2, 'B', 10, 'd');", TERMS_VIEW)
    it.app.execute("REPLACE INTO terms VALUES (3, 'C', 70, 'd')")
    assert it.told() == [("delete", ("A", "60"), None), ("insert", None, ("C", "70"))]


def test_replace_by_an_index_of_another_collation(lab: Lab) -> None:
    """A clash is one by the index's collation, not by the column's."""
    index = "CREATE UNIQUE INDEX any_case ON terms (note COLLATE NOCASE);"
    it = lab(TERMS + index + "INSERT INTO terms VALUES (1, 'A', 60, 'x');", TERMS_VIEW)
    it.app.execute("REPLACE INTO terms VALUES (3, 'C', 70, 'X')")
    assert it.told() == [("delete", ("A", "60"), None), ("insert", None, ("C", "70"))]


# -- updates -----------------------------------------------------------------------------------------------------------


def test_a_change_of_letter_case_is_a_change(lab: Lab) -> None:
    """A column that ignores case in comparisons still tells when the case changes."""
    it = lab("CREATE TABLE t (id INTEGER PRIMARY KEY, n TEXT COLLATE NOCASE);", view("t", "id", "n"))
    it.app.execute("INSERT INTO t VALUES (1, 'abc')")
    it.app.execute("UPDATE t SET n = 'ABC'")
    assert it.told()[1:] == [("update", ("1", "abc"), ("1", "ABC"))]


def test_a_descending_integer_key_is_no_rowid(lab: Lab) -> None:
    """INTEGER PRIMARY KEY DESC names no rowid and may be null: such rows are told apart all the same."""
    numbers = view("numbers", "v", "id")
    it = lab("CREATE TABLE numbers (id INTEGER PRIMARY KEY DESC, v TEXT);", numbers)
    it.app.execute("INSERT INTO numbers VALUES (NULL, 'a'), (NULL, 'b'), (7, 'c')")
    it.app.execute("REPLACE INTO numbers VALUES (7, 'd')")
    assert it.told()[3:] == [("delete", ("c", "7"), None), ("insert", None, ("d", "7"))]
    assert it.write(numbers, Write(("b",), ("b", None), ("b", "8"))) == [Applied()]
    assert it.rows(numbers) == [("a", None), ("b", "8"), ("d", "7")]
    assert it.told() == []


@pytest.mark.parametrize("name", ["rowid", "_rowid_", "oid", "id"])
def test_a_changed_rowid_is_a_rename(lab: Lab, name: str) -> None:
    """However an application spells the rowid, changing it is told as a change of the key."""
    it = lab(TERMS + "INSERT INTO terms VALUES (1, 'N30', 30, NULL);", view("terms", "id", "name"))
    it.app.execute(f"UPDATE terms SET {name} = 7")
    assert it.told() == [("update", ("1", "N30"), ("7", "N30"))]


def test_columns_that_nobody_maps_are_not_told(lab: Lab) -> None:
    """An update of other columns only, or to the same values, tells nothing."""
    it = lab(TERMS + "INSERT INTO terms VALUES (1, 'N30', 30, NULL);", TERMS_VIEW)
    it.app.execute("UPDATE terms SET note = 'x'")
    it.app.execute("UPDATE terms SET days = 30")
    assert it.told() == []


def test_a_generated_column_tells_its_new_value(lab: Lab) -> None:
    """A generated column changes though no statement names it."""
    it = lab(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, a INTEGER, b INTEGER GENERATED ALWAYS AS (a * 2) STORED);"
        "INSERT INTO t (id, a) VALUES (1, 1);",
        view("t", "id", "b"),
    )
    it.app.execute("UPDATE t SET a = 2")
    assert it.told() == [("update", ("1", "2"), ("1", "4"))]


# -- triggers and foreign keys of the application ----------------------------------------------------------------------


STAMP = """CREATE TRIGGER stamp AFTER UPDATE OF days ON terms
BEGIN UPDATE terms SET note = 'was ' || OLD.days WHERE id = NEW.id; END;"""
STAMPED = view("terms", "name", "days", "note")


def test_older_triggers_of_the_application_come_behind(lab: Lab) -> None:
    """What a trigger does is told behind what it reacts to."""
    it = lab(TERMS + STAMP + "INSERT INTO terms VALUES (1, 'N30', 30, NULL);", STAMPED)
    it.app.execute("UPDATE terms SET days = 31")
    assert it.told() == [
        ("update", ("N30", "30", None), ("N30", "31", None)),
        ("update", ("N30", "31", None), ("N30", "31", "was 30")),
    ]


def test_newer_triggers_of_the_application_are_put_in_order(lab: Lab) -> None:
    """A trigger that the application adds later runs before ours; its work is told behind what it reacts to."""
    it = lab(TERMS + "INSERT INTO terms VALUES (1, 'N30', 30, NULL);", STAMPED)
    it.app.executescript(STAMP)
    it.app.execute("UPDATE terms SET days = 31")
    told = it.told()
    assert told[0][1] == ("N30", "30", None)
    assert told[-1][2] == ("N30", "31", "was 30")
    assert [before for _, before, _ in told[1:]] == [after for _, _, after in told[:-1]]


BOXES = "CREATE TABLE box (id INTEGER PRIMARY KEY, no TEXT UNIQUE, v TEXT, n INTEGER DEFAULT 0, m TEXT);" + TERMS
BOXES_VIEW = view("box", "no", "v", "n", "m")


@pytest.mark.parametrize(
    ("event", "body", "statement", "told"),
    [
        (
            "UPDATE OF v",
            "UPDATE box SET n = n + 1 WHERE id = 1; UPDATE terms SET days = 1; UPDATE box SET m = 'm' WHERE id = 1;",
            "UPDATE box SET v = 'y'",
            [("x", "0", None), ("y", "0", None), ("y", "1", None), ("y", "1", "m")],
        ),
        (
            "UPDATE OF v",
            "UPDATE box SET v = OLD.v WHERE id = NEW.id AND NEW.v = 'y';",
            "UPDATE box SET v = 'y'",
            [("x", "0", None), ("y", "0", None), ("x", "0", None)],
        ),
        (
            "INSERT",
            "UPDATE box SET n = 7 WHERE id = NEW.id;",
            "INSERT INTO box (no, v) VALUES ('b', 'y')",
            [None, ("y", "0", None), ("y", "7", None)],
        ),
        (
            "UPDATE OF v",
            "DELETE FROM box WHERE id = NEW.id;",
            "UPDATE box SET v = 'y'",
            [("x", "0", None), ("y", "0", None), None],
        ),
    ],
)
def test_the_work_of_a_newer_trigger_is_put_behind_its_cause(
    lab: Lab, event: str, body: str, statement: str, told: list[tuple | None]
) -> None:
    """Whatever a trigger that is newer than ours does to the row that it reacts to, and in how many steps."""
    it = lab(BOXES + "INSERT INTO box (id, no, v) VALUES (1, 'a', 'x'); INSERT INTO terms (name) VALUES ('N30');",
             BOXES_VIEW, TERMS_VIEW)  # fmt: skip
    it.app.execute(f"CREATE TRIGGER newer AFTER {event} ON box BEGIN {body} END")
    it.app.execute(statement)
    steps = [change for change in it.told() if len(change[1] or change[2] or ()) == 4]
    assert [step[1] and step[1][1:] for step in steps] == told[:-1]
    assert [step[2] and step[2][1:] for step in steps] == told[1:]


def test_the_work_of_a_newer_trigger_there_and_back_is_put_in_order_by_what_follows(lab: Lab) -> None:
    """Where a row ends as it began, and its images fit both ways, the next statement tells which way it was."""
    it = lab(BOXES + "INSERT INTO box (no, v) VALUES ('a', 'x!');", view("box", "no", "v"))
    it.app.execute("CREATE TRIGGER newer AFTER UPDATE OF v ON box BEGIN UPDATE box SET v = NEW.v || '!'; END")
    for at, value in enumerate(("x", "y")):
        it.app.create_function("julianday", 1, lambda _, at=at: 2461373.5 + at)
        it.app.execute("UPDATE box SET v = ?", (value,))
    told = [(before[1], after[1]) for _, before, after in it.told()]
    assert told == [("x!", "x"), ("x", "x!"), ("x!", "y"), ("y", "y!")]


def test_a_feed_makes_our_triggers_the_newest_again(lab: Lab) -> None:
    """A trigger that the application adds runs before ours only until a feed sees it."""
    it = lab(TERMS + "INSERT INTO terms VALUES (1, 'N30', 30, 'x');", TERMS_VIEW)
    it.app.execute("CREATE TRIGGER newer AFTER UPDATE ON terms BEGIN UPDATE terms SET note = 'y'; END")
    assert [problem.code for problem in it.connector.health([TERMS_VIEW])] == ["sqlite_trigger_order"]
    with closing(it.connector.feed([TERMS_VIEW], it.connector.end())) as feed:
        it.app.execute("BEGIN IMMEDIATE")
        feed.read(10, 0)
        it.app.execute("COMMIT")
        assert it.connector.health([TERMS_VIEW]) != []
        feed.read(10, 0)
    assert it.connector.health([TERMS_VIEW]) == []


def test_install_makes_our_triggers_the_newest_again(lab: Lab) -> None:
    """Health reports newer triggers of the application; installing again mends it."""
    it = lab(TERMS, STAMPED)
    it.app.executescript(STAMP)
    assert [problem.code for problem in it.connector.health(it.views)] == ["sqlite_trigger_order"]
    it.connector.install(it.views)
    assert it.connector.health(it.views) == []


def test_cascades_are_told_children_first(lab: Lab) -> None:
    """Rows that a foreign key deletes are told with the keys of the records that they belonged to."""
    script = """
        CREATE TABLE head (id INTEGER PRIMARY KEY, no TEXT UNIQUE);
        CREATE TABLE line (id INTEGER PRIMARY KEY, head INTEGER REFERENCES head ON DELETE CASCADE, n TEXT);
        INSERT INTO head VALUES (1, 'H1'); INSERT INTO line VALUES (1, 1, 'a'), (2, 1, 'b');
    """
    lines = view("line", "head.no", "n", key=2, lookups=[Lookup("head", ((("no",), 0),), (0,))])
    it = lab(script, view("head", "no"), lines)
    it.app.execute("PRAGMA foreign_keys = ON")
    it.app.execute("DELETE FROM head")
    told = it.told()
    assert sorted(told[:2]) == [("delete", ("H1", "a"), None), ("delete", ("H1", "b"), None)]
    assert told[2] == ("delete", ("H1",), None)


def test_a_self_referencing_cascade_is_told(lab: Lab) -> None:
    """A cascade within one table tells every row."""
    script = "CREATE TABLE n (id INTEGER PRIMARY KEY, c TEXT, up INTEGER REFERENCES n ON DELETE CASCADE);"
    it = lab(script + "INSERT INTO n VALUES (1, 'a', NULL), (2, 'b', 1), (3, 'c', 2);", view("n", "c", "up.c"))
    it.app.execute("PRAGMA foreign_keys = ON")
    it.app.execute("DELETE FROM n WHERE id = 1")
    assert sorted(it.told()) == [
        ("delete", ("a", None), None),
        ("delete", ("b", "a"), None),
        ("delete", ("c", "b"), None),
    ]


def test_a_trigger_that_deletes_children_still_names_their_parent(lab: Lab) -> None:
    """Children deleted by a trigger behind their parent are told with the parent's key all the same."""
    script = """
        CREATE TABLE head (id INTEGER PRIMARY KEY, no TEXT UNIQUE);
        CREATE TABLE line (id INTEGER PRIMARY KEY, head INTEGER REFERENCES head, n TEXT);
        CREATE TRIGGER sweep AFTER DELETE ON head BEGIN DELETE FROM line WHERE head = OLD.id; END;
        INSERT INTO head VALUES (1, 'H1'); INSERT INTO line VALUES (1, 1, 'a');
    """
    lines = view("line", "head.no", "n", key=2, lookups=[Lookup("head", ((("no",), 0),), (0,))])
    it = lab(script, view("head", "no"), lines)
    it.app.execute("DELETE FROM head")
    assert sorted(it.told()) == [("delete", ("H1",), None), ("delete", ("H1", "a"), None)]


def test_a_conflict_clause_of_the_statement_does_not_reach_the_log(lab: Lab) -> None:
    """OR IGNORE and OR REPLACE also govern what triggers do; the log must not lose entries by it."""
    it = lab(TERMS, TERMS_VIEW)
    it.app.execute("INSERT OR IGNORE INTO terms (name, days) VALUES ('A', 1), ('A', 2), ('B', 3)")
    it.app.execute("INSERT OR REPLACE INTO terms (name, days) VALUES ('C', 4)")
    it.app.execute("INSERT OR ABORT INTO terms (name, days) VALUES ('D', 5)")
    assert [after for _, _, after in it.told()] == [("A", "1"), ("B", "3"), ("C", "4"), ("D", "5")]


# -- images as of their place ------------------------------------------------------------------------------------------

LOOKED_UP = """
    CREATE TABLE head (id INTEGER PRIMARY KEY, no TEXT UNIQUE);
    CREATE TABLE line (id INTEGER PRIMARY KEY, head INTEGER, n TEXT UNIQUE, FOREIGN KEY (head) REFERENCES head (id));
    INSERT INTO head VALUES (1, 'H1'), (2, 'H2'); INSERT INTO line VALUES (1, 1, 'a'), (2, 2, 'b');
"""
HEADS = view("head", "no")
LINES = view("line", "n", "head.no", lookups=[Lookup("head", ((("no",), 1),), (1,))])


def test_lookups_are_read_as_of_their_place(lab: Lab) -> None:
    """A reader that comes late still sees what each lookup led to when the change was made."""
    it = lab(LOOKED_UP, HEADS, LINES)
    it.app.execute("UPDATE line SET head = 2 WHERE id = 1")
    it.app.execute("UPDATE head SET no = 'H2b' WHERE id = 2")
    it.app.execute("UPDATE line SET head = 1 WHERE id = 1")
    it.app.execute("UPDATE head SET no = 'H1b' WHERE id = 1")
    assert it.told() == [
        ("update", ("a", "H1"), ("a", "H2")),
        ("update", ("H2",), ("H2b",)),
        ("update", ("a", "H2"), ("a", "H2b")),
        ("update", ("b", "H2"), ("b", "H2b")),
        ("update", ("a", "H2b"), ("a", "H1")),
        ("update", ("H1",), ("H1b",)),
        ("update", ("a", "H1"), ("a", "H1b")),
    ]


def test_many_children_of_a_renamed_record_come_in_parts(lab: Lab) -> None:
    """A rename that reaches more children than the limit is told in parts, none lost and none doubled."""
    it = lab(LOOKED_UP, HEADS, LINES)
    it.app.executemany("INSERT INTO line (head, n) VALUES (1, ?)", [(f"n{i}",) for i in range(50)])
    it.changes()
    position = it.connector.end()
    it.app.execute("UPDATE head SET no = 'new' WHERE id = 1")
    seen = []
    while position < it.connector.end():
        feed = it.connector.feed(it.views, position)
        batch = feed.read(7, 0)
        feed.close()
        assert len(batch.changes) <= 8
        seen += [change.after[0] for change in batch.changes if change.view == "line"]
        position = batch.position
    assert sorted(seen) == sorted(["a", *(f"n{i}" for i in range(50))])


@pytest.mark.parametrize("renamed", [1, 40])
def test_what_is_behind_renamed_records_is_gone_through_once(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, renamed: int
) -> None:
    """However many reads it takes to tell of all that look them up, and of each just what is told then."""
    it = lab(LOOKED_UP, HEADS, LINES)
    monkeypatch.setattr(_sqlite_onlookers, "CHUNK", 20)
    it.app.executemany("INSERT INTO head VALUES (?, ?)", [(i, f"h{i}") for i in range(10, 10 + renamed)])
    lines = [(10 + i % renamed, f"n{i}") for i in range(400)]
    it.app.executemany("INSERT INTO line (head, n) VALUES (?, ?)", lines)
    it.changes()
    start = it.connector.end()
    it.app.execute("UPDATE head SET no = no || 'x' WHERE id >= 10")
    it.app.execute("UPDATE line SET head = 1 WHERE id >= 3")
    it.app.execute("UPDATE line SET n = n || 'y' WHERE id >= 3")
    read: Counter[str] = Counter()
    scan, one = Entries.scan, Entries.one

    def scanned(entries: Entries, after: int, tables: Collection[str]) -> Iterator[Entry]:
        for entry in scan(entries, after, tables):
            read["line"] += set(tables) == {"line"}
            yield entry

    def told(entries: Entries, id_: int) -> Entry:
        read["one"] += 1
        return one(entries, id_)

    monkeypatch.setattr(Entries, "scan", scanned)
    monkeypatch.setattr(Entries, "one", told)
    feed, found = it.connector.feed(it.views, start), []
    while len(found) < renamed + 3 * 400:
        found += feed.read(7, 0).changes
    feed.close()
    onlookers = [(change.before, change.after) for change in found if change.view == "line"][:400]
    assert sorted(onlookers) == sorted(((n, f"h{head}"), (n, f"h{head}x")) for head, n in lines)
    assert read["line"] <= 1.5 * 800
    assert read["one"] <= 4 * 400


def test_a_transaction_does_not_read_very_many_large_rows_at_once(lab: Lab) -> None:
    """Whoever asks what users did asks by number, whatever the size: it is told that there is more."""
    it = lab(NOTES, NOTES_VIEW)
    start = it.connector.end()
    it.app.executemany(
        "INSERT INTO notes VALUES (?)", [(f"{number}" + "x" * (LARGEST // 50),) for number in range(300)]
    )
    with it.connector.transaction("flow", it.views) as transaction:
        found = [len(batch.changes) for batch in parts_since(transaction, start, 1_000)]
    assert sum(found) == 300
    assert max(found) <= 100


def test_a_record_that_arrives_late_completes_those_that_look_it_up(lab: Lab) -> None:
    """Rows that refer to a record before it exists are told again when it comes."""
    it = lab(LOOKED_UP, HEADS, LINES)
    it.app.execute("INSERT INTO line VALUES (9, 9, 'z')")
    assert it.told() == [("insert", None, ("z", ABSENT))]
    it.app.execute("INSERT INTO head VALUES (9, 'H9')")
    assert it.told() == [("insert", None, ("H9",)), ("update", ("z", ABSENT), ("z", "H9"))]


def test_our_own_rows_are_not_told_when_their_parent_is_read_late(lab: Lab) -> None:
    """A user's record that we refer to before the feed has read it does not make our row a change of this side."""
    it = lab(LOOKED_UP, HEADS, LINES)
    it.app.execute("INSERT INTO head VALUES (9, 'H9')")
    it.write(LINES, Write(("y",), None, ("y", "H9")))
    assert it.told() == [("insert", None, ("H9",))]


def test_a_record_renamed_by_what_it_is_referred_to_is_found_by_earlier_changes(lab: Lab) -> None:
    """Where others hold the very key that we rename, what they did before is told with what they held then."""
    script = """CREATE TABLE head (no TEXT PRIMARY KEY, title TEXT) WITHOUT ROWID; INSERT INTO head VALUES ('H', 'old');
        CREATE TABLE line (n TEXT PRIMARY KEY, head TEXT REFERENCES head ON UPDATE CASCADE);"""
    heads, lines = view("head", "no", "title"), view("line", "n", "head.title")
    it = lab(script, heads, lines)
    it.app.execute("INSERT INTO line VALUES ('a', 'H')")
    it.app.execute("DELETE FROM line")
    it.write(heads, Write(("H",), ("H", "old"), ("K", "new")))
    assert it.told() == [("insert", None, ("a", "old")), ("delete", ("a", "old"), None)]


def test_all_replaced_rows_are_told_where_one_refers_to_another(lab: Lab) -> None:
    """A foreign key that acts in the middle of a REPLACE hides none of the rows whose places are taken."""
    script = """CREATE TABLE grp (
            id INTEGER PRIMARY KEY, code TEXT UNIQUE, boss INTEGER REFERENCES grp ON DELETE SET NULL);
        INSERT INTO grp VALUES (2, 'B', NULL), (3, 'C', 2);"""
    it = lab(script, view("grp", "code", "boss.code"))
    it.app.execute("PRAGMA foreign_keys = ON")
    it.app.execute("INSERT OR REPLACE INTO grp VALUES (2, 'C', NULL)")
    assert [(kind, (before or after)[0]) for kind, before, after in it.told()] == [
        ("delete", "B"),
        ("update", "C"),
        ("update", "C"),
    ]
    assert it.rows(it.views[0]) == [("C", None)]


def test_a_row_that_is_replaced_by_another_one_shows_in_those_that_refer_to_it(lab: Lab) -> None:
    """Where no foreign key is enforced, a REPLACE is a rename to them, whatever they refer to by now."""
    script = """CREATE TABLE head (id INTEGER PRIMARY KEY, no TEXT); INSERT INTO head VALUES (1, 'A'), (2, 'B');
        CREATE TABLE line (n TEXT PRIMARY KEY, head INTEGER REFERENCES head);
        INSERT INTO line VALUES ('a', 1), ('b', 1);"""
    it = lab(script, view("line", "n", "head.no"))
    it.app.execute("INSERT OR REPLACE INTO head VALUES (1, 'C')")
    it.app.execute("UPDATE line SET head = 2 WHERE n = 'b'")
    assert it.told() == [
        ("update", ("a", "A"), ("a", "C")),
        ("update", ("b", "A"), ("b", "C")),
        ("update", ("b", "C"), ("b", "B")),
    ]


def test_a_row_that_refers_to_itself_is_told_once(lab: Lab) -> None:
    """Its own new key is seen by itself in the same change; also where a foreign key carries it along."""
    script = """CREATE TABLE grp (code TEXT PRIMARY KEY, boss TEXT REFERENCES grp ON UPDATE CASCADE) WITHOUT ROWID;
        CREATE TABLE item (id INTEGER PRIMARY KEY, code TEXT, boss INTEGER REFERENCES item);
        INSERT INTO grp VALUES ('A', 'A'); INSERT INTO item VALUES (1, 'x', 1);"""
    it = lab(script, view("grp", "code", "boss"), view("item", "code", "boss.code"))
    it.app.execute("PRAGMA foreign_keys = ON")
    it.app.execute("UPDATE item SET code = 'y'")
    assert it.told() == [("update", ("x", "x"), ("y", "y"))]
    it.app.execute("UPDATE grp SET code = 'B'")
    assert it.told() == [("update", ("A", "A"), ("B", "A")), ("update", ("B", "A"), ("B", "B"))]


def test_what_is_noted_of_our_deletes_goes_with_what_needs_it(lab: Lab) -> None:
    """The note of what we deleted is trimmed with the changes before it, and is itself no change that could be lost."""
    it = lab(LOOKED_UP, HEADS, LINES)
    it.app.execute("DELETE FROM line WHERE head = 2")
    read = it.connector.end()
    it.write(HEADS, Write(("H2",), ("H2",), None))
    it.connector.acknowledge(it.connector.end())
    it.connector.feed(it.views, read).close()
    it.connector.trim()
    it.connector.feed(it.views, read).close()
    assert it.app.execute("SELECT op FROM dualwrite_lab_log").fetchall() == [("M",)]


# -- installing --------------------------------------------------------------------------------------------------------


def test_install_is_idempotent(lab: Lab) -> None:
    """Installing the same views again touches nothing."""
    it = lab(LOOKED_UP, HEADS, LINES)
    version = it.app.execute("PRAGMA schema_version").fetchone()
    it.connect().install(it.views)
    assert it.app.execute("PRAGMA schema_version").fetchone() == version


def test_a_feed_goes_on_where_another_engine_has_ended_the_capture_of_a_table(lab: Lab) -> None:
    """Whoever still reads views of that table is told what the log holds, and looks for no onlookers in it."""
    it = lab(LOOKED_UP, HEADS, LINES)
    it.app.execute("INSERT INTO line VALUES (9, 9, 'z')")
    start = it.connector.end()
    it.app.execute("UPDATE line SET n = 'y' WHERE id = 9")
    feed = it.connector.feed(it.views, start)
    it.connect().install([HEADS])
    it.app.execute("INSERT INTO head VALUES (9, 'H9')")
    assert [change.view for change in feed.read(10, 0).changes] == ["line", "head"]
    feed.close()


def test_install_narrows_and_widens(lab: Lab) -> None:
    """Tables that are not viewed any more lose their triggers; new ones are captured."""
    it = lab(LOOKED_UP + TERMS, LINES)
    it.connector.install([TERMS_VIEW])
    triggers = [name for name in it.objects() if name.endswith("insert")]
    assert triggers == ["dualwrite_lab:terms:insert", "dualwrite_lab:terms:stash_insert"]


def test_columns_that_were_not_captured_then_are_absent(lab: Lab) -> None:
    """Changes from before a column was mapped stay readable; what they do not tell is ABSENT, not null."""
    it = lab(TERMS, view("terms", "name"))
    it.app.execute("INSERT INTO terms (name, days) VALUES ('A', 1)")
    it.views = (TERMS_VIEW,)
    it.connector.install(it.views)
    it.app.execute("INSERT INTO terms (name, days) VALUES ('B', 2)")
    assert it.told() == [("insert", None, ("A", ABSENT)), ("insert", None, ("B", "2"))]


def test_a_column_that_the_application_adds_does_not_disturb(lab: Lab) -> None:
    """ALTER TABLE ADD COLUMN and RENAME COLUMN of others leave capture as it is."""
    it = lab(TERMS, TERMS_VIEW)
    it.app.execute("ALTER TABLE terms ADD COLUMN extra TEXT")
    it.app.execute("ALTER TABLE terms RENAME COLUMN note TO remark")
    it.app.execute("INSERT INTO terms (name, days) VALUES ('A', 1)")
    assert it.told() == [("insert", None, ("A", "1"))]


def test_a_table_that_was_created_anew_is_not_passed_over(lab: Lab) -> None:
    """Dropping a table takes our triggers along; the feed says that changes may be missing."""
    it = lab(TERMS, TERMS_VIEW)
    feed = it.connector.feed(it.views, it.connector.end())
    it.app.executescript(f"DROP TABLE terms; {TERMS} INSERT INTO terms (name, days) VALUES ('A', 1);")
    with pytest.raises(Halted, match="table terms was created anew"):
        feed.read(10, 0)
    feed.close()
    with pytest.raises(Halted, match="table terms was created anew"):
        it.connector.transaction("flow", it.views)
    assert [problem.code for problem in it.connector.health(it.views)] == ["sqlite_interrupted"]


def test_triggers_that_are_switched_off_are_noticed(lab: Lab) -> None:
    """Whoever makes our triggers silent makes all changes of the link doubtful: told by feed, health and install."""
    it = lab(TERMS, TERMS_VIEW)
    before = it.connector.end()
    feed = it.connector.feed(it.views, before)
    it.app.execute("UPDATE dualwrite_lab_mode SET mode = 2")
    it.app.execute("INSERT INTO terms (name, days) VALUES ('A', 1)")
    assert [problem.code for problem in it.connector.health(it.views)] == ["sqlite_switched_off"]
    it.app.execute("CREATE TABLE other (a)")
    with pytest.raises(PositionLost, match="switched the triggers"):
        feed.read(10, 0)
    feed.close()
    with pytest.raises(PositionLost, match="switched the triggers"):
        it.connector.install(it.views)
    it.connector.install(it.views)
    with pytest.raises(PositionLost, match="not kept"):
        it.connector.feed(it.views, before)
    it.app.execute("INSERT INTO terms (name, days) VALUES ('B', 1)")
    feed = it.connector.feed(it.views, None)
    assert [change.after[0] for change in feed.read(10, 0).changes] == ["B"]
    feed.close()


def recreate(it: Laboratory) -> None:
    """What a migration does to change a table, and what may come in between."""
    rows = it.app.execute("SELECT * FROM terms").fetchall()
    it.app.execute("DROP TABLE terms")
    it.app.execute(TERMS)
    it.app.executemany("INSERT INTO terms VALUES (?, ?, ?, ?)", rows)
    it.app.execute("UPDATE terms SET days = 99")


@pytest.mark.parametrize(
    "meanwhile",
    [
        recreate,
        lambda it: it.app.execute("ALTER TABLE terms RENAME TO conditions"),
        lambda it: it.app.execute("ALTER TABLE terms RENAME COLUMN days TO period"),
    ],
)
def test_a_gap_in_capture_stays_until_its_view_is_left_out(lab: Lab, meanwhile: Callable[[Laboratory], None]) -> None:
    """Nobody reads on as if nothing was, however often it is tried; the other tables never notice."""
    it = lab(TERMS + NOTES + "INSERT INTO terms VALUES (1, 'N30', 30, NULL);", TERMS_VIEW, NOTES_VIEW)
    it.app.execute("UPDATE terms SET note = 'x'")
    before = it.connector.end()
    it.app.execute("INSERT INTO notes VALUES ('seen')")
    meanwhile(it)
    table, columns = it.app.execute(
        "SELECT m.name, group_concat(c.name) FROM sqlite_master m, pragma_table_info(m.name) c WHERE m.type = 'table' "
        "AND m.name IN ('terms', 'conditions') GROUP BY 1"
    ).fetchone()
    now = view(table, "name", columns.split(",")[2])
    for _ in range(2):
        with pytest.raises(Halted, match=r"renamed|created anew|had another name") as halted:
            it.connector.install([NOTES_VIEW, now])
        assert halted.value.map == now.name
    it.connector.install([NOTES_VIEW])
    feed = it.connector.feed([NOTES_VIEW], before)
    assert [change.after for change in feed.read(10, 0).changes] == [("seen",)]
    feed.close()
    it.connector.install([NOTES_VIEW, now])
    start = it.connector.end()
    it.app.execute(f"UPDATE {table} SET name = 'N31'")
    feed = it.connector.feed([NOTES_VIEW, now], start)
    assert [change.after[0] for change in feed.read(10, 0).changes] == ["N31"]
    feed.close()
    it.connector.uninstall()
    assert it.objects() == []
    it.app.execute(f"UPDATE {table} SET name = 'N32'")


def test_a_table_that_is_only_looked_up_is_watched_too(lab: Lab) -> None:
    """Dropping our triggers from a referenced table is noticed, as its renames would be missed."""
    it = lab(LOOKED_UP, LINES)
    (table,) = {reference.table for reference in it.connector.schema().tables[LINES.table].references}
    it.app.execute(f'DROP TRIGGER "dualwrite_lab:{table}:update"')
    with pytest.raises(Halted, match=table):
        it.told()


def test_uninstall_follows_a_renamed_table(lab: Lab) -> None:
    """Triggers that went with their table to another name are found, or the application could not write any more."""
    it = lab(TERMS, TERMS_VIEW)
    it.app.execute("ALTER TABLE terms RENAME TO conditions")
    it.app.execute("INSERT INTO conditions (name) VALUES ('N30')")
    it.connector.uninstall()
    it.app.execute("INSERT INTO conditions (name) VALUES ('N60')")
    assert it.objects() == []


def test_a_unique_index_that_the_application_adds_is_watched_from_then_on(lab: Lab) -> None:
    """Capture goes on, and a feed makes the triggers look at what REPLACE takes by the added index."""
    it = lab(TERMS + "INSERT INTO terms VALUES (1, 'N30', 30, 'x');", TERMS_VIEW)
    it.app.execute("CREATE UNIQUE INDEX by_note ON terms (note)")
    it.app.execute("INSERT INTO terms VALUES (2, 'N60', 60, 'y')")
    assert it.told() == [("insert", None, ("N60", "60"))]
    assert it.connector.health([TERMS_VIEW]) == []
    it.app.execute("INSERT OR REPLACE INTO terms VALUES (3, 'N90', 90, 'x')")
    it.app.execute("UPDATE OR REPLACE terms SET note = 'x' WHERE id = 2")
    assert it.told() == [
        ("delete", ("N30", "30"), None),
        ("insert", None, ("N90", "90")),
        ("delete", ("N90", "90"), None),
    ]


def test_names_of_triggers_never_meet(lab: Lab) -> None:
    """Tables and links whose names end and begin alike have triggers of their own."""
    both = TERMS + TERMS.replace("terms", "terms_stash") + TERMS.replace("terms", "more_terms")
    it = lab(both, TERMS_VIEW, view("terms_stash", "name"), view("more_terms", "name"))
    other = open_sqlite(f"sqlite:///{it.path}", link="lab_more", side=Side.LEFT)
    other.install([TERMS_VIEW])
    other.uninstall()
    other.close()
    it.app.execute("INSERT INTO terms (name) VALUES ('N30')")
    it.app.execute("INSERT INTO terms_stash (name) VALUES ('N60')")
    assert len(it.changes()) == 2


def test_uninstall_leaves_no_trace_and_no_other_link(lab: Lab, tmp_path) -> None:
    """Uninstalling removes every object of the link, and none of a link whose name begins alike."""
    it = lab(LOOKED_UP, HEADS, LINES)
    other = Laboratory(tmp_path, "", link="lab_two")
    other.install(HEADS, LINES)
    it.connector.uninstall()
    it.connector.uninstall()
    assert it.objects()
    assert all(name.startswith(("dualwrite_lab_two_", "dualwrite_lab_two:")) for name in it.objects())
    other.connector.uninstall()
    assert it.objects() == []
    other.close()


def test_names_of_any_kind_are_quoted(lab: Lab) -> None:
    """Tables, columns and links may be called whatever SQLite allows."""
    script = 'CREATE TABLE "select ""x"" [y]" ("from" INTEGER PRIMARY KEY, "a b" TEXT UNIQUE, "o0" TEXT, "é\'" TEXT);'
    odd = view('select "x" [y]', "a b", "o0", "é'")
    it = lab(script, odd, link="my 'link\"")
    it.app.execute("""INSERT INTO "select ""x"" [y]" VALUES (1, 'k', 'v', 'w')""")
    it.write(odd, Write(("k",), ("k", "v", "w"), ("k", "V", "W")))
    assert it.told() == [("insert", None, ("k", "v", "w"))]
    assert it.rows(odd) == [("k", "V", "W")]
    it.connector.uninstall()
    assert it.objects() == []


def test_the_triggers_use_old_sql_only(lab: Lab) -> None:
    """The application's SQLite may be old: no JSON, no upsert, no RETURNING, no row values in what runs inside it."""
    it = lab(LOOKED_UP + TERMS, HEADS, LINES, TERMS_VIEW)
    rows = it.app.execute("SELECT sql FROM sqlite_master WHERE type = 'trigger' AND name LIKE 'dualwrite%'").fetchall()
    assert len(rows) == 15
    for (sql,) in rows:
        assert not re.search(r"json|RETURNING|ON CONFLICT|ROW_NUMBER|WITH |FILTER|unixepoch", sql, re.IGNORECASE), sql


def test_values_keep_their_storage_class_in_the_log(lab: Lab) -> None:
    """Whatever a column holds comes out as a snapshot shows it."""
    it = lab("CREATE TABLE t (id INTEGER PRIMARY KEY, v);", view("t", "id", "v"))
    values = [1, 1.5, "1", b"\x00\xff", None, 2**62, "", -0.0]
    it.app.executemany("INSERT INTO t VALUES (?, ?)", enumerate(values))
    assert [after for _, _, after in it.told()] == sorted(it.rows(it.views[0]), key=lambda row: int(row[0]))


def test_ids_of_the_log_never_restart(lab: Lab) -> None:
    """After trimming everything, positions go on where they were."""
    it = lab(TERMS, TERMS_VIEW)
    it.app.execute("INSERT INTO terms (name) VALUES ('A')")
    assert len(it.changes()) == 1
    end = it.connector.end()
    it.connector.acknowledge(end)
    it.connector.close()
    it.app.execute("VACUUM")
    assert it.app.execute("SELECT count(*) FROM dualwrite_lab_log").fetchone() == (0,)
    it.app.execute("INSERT INTO terms (name) VALUES ('B')")
    assert it.connector.end() > end
    assert [change.after for change in it.changes()] == [("B", None)]


def test_a_file_restored_from_a_backup_is_noticed(lab: Lab) -> None:
    """A position beyond the log's end is lost, with a word about backups."""
    it = lab(TERMS, TERMS_VIEW)
    with pytest.raises(PositionLost, match="backup"):
        it.connector.feed(it.views, Position(it.connector.end().feed, (99,)))


def test_objects_of_a_newer_version_are_refused(lab: Lab) -> None:
    """What a newer dualwrite has installed is left alone."""
    it = lab(TERMS, TERMS_VIEW)
    it.app.execute("UPDATE dualwrite_lab_meta SET value = 99 WHERE name = 'schema'")
    with pytest.raises(Denied, match="newer"):
        it.connector.install(it.views)


def test_savepoints_that_are_rolled_back_are_not_told(lab: Lab) -> None:
    """Only what is committed comes out, also of parts of a transaction."""
    it = lab(TERMS, TERMS_VIEW)
    it.app.executescript(
        "BEGIN; INSERT INTO terms (name) VALUES ('A'); SAVEPOINT s; INSERT INTO terms (name) VALUES ('B');"
        "ROLLBACK TO s; INSERT INTO terms (name) VALUES ('C'); COMMIT;"
    )
    assert [after for _, _, after in it.told()] == [("A", None), ("C", None)]


def test_text_that_is_no_utf8_is_carried_as_bytes(lab: Lab) -> None:
    """A text that no encoding explains neither stops the feed nor the snapshot."""
    it = lab("CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT);", view("t", "id", "v"))
    it.app.execute("INSERT INTO t VALUES (1, CAST(x'ff41' AS TEXT)), (2, 'fine')")
    assert it.rows(it.views[0]) == [("1", r"\xff41"), ("2", "fine")]
    assert [after for _, _, after in it.told()] == [("1", r"\xff41"), ("2", "fine")]
