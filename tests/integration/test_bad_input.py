"""What people get wrong and what machines do to them: a clear message, the right exit code, and nothing lost."""

from __future__ import annotations

import os
import shutil
import sqlite3
import sys
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from dualwrite.journal import Journal

UNPRIVILEGED = """
import ctypes, os, sys
CAP_DAC_OVERRIDE, PR_CAPBSET_DROP = 1, 24
if os.geteuid() == 0 and ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, 0, 0, 0):
    sys.exit("cannot give up the right to write everywhere")
os.execv(sys.argv[1], sys.argv[1:])
"""
"""Runs a program for which file modes count, even for root."""


def plain_user():
    """The command before a command that makes file modes count."""
    return [sys.executable, "-c", UNPRIVILEGED]


@contextmanager
def made_read_only(*places):
    """Nobody may write to these places."""
    modes = [place.stat().st_mode for place in places]
    for place in places:
        place.chmod(place.stat().st_mode & ~0o222)
    try:
        yield
    finally:
        for place, mode in zip(places, modes, strict=True):
            place.chmod(mode)


@contextmanager
def locked(file, kind="IMMEDIATE"):
    """Another program holds a transaction open."""
    with closing(sqlite3.connect(file, isolation_level=None)) as database:
        database.execute(f"BEGIN {kind}")
        yield database
        database.execute("ROLLBACK")


# ------------------------------------------------------------------------------------------------ files people write


@pytest.mark.parametrize(
    ("wrong", "right", "code", "line", "told"),
    [
        ("columns:", "columns: [", "yaml", 6, "not YAML"),
        ("  - status", "\t- status", "yaml", 9, "not YAML"),
        ("account = number", "Account # = number", "swallowed", 6, "quote the value"),
        ("status >< state", "status state", "bad_line", 9, "LEFT = right"),
        ("name    = title", "name    == title", "bad_symbol", 7, "did you mean =?"),
        ("name    = title", "nam     = title", "unknown_column", 7, "did you mean 'name'?"),
        ("right: accounts", "right: acounts", "unknown_table", 3, "did you mean 'accounts'?"),
        ("right: accounts", "rihgt: accounts", "unknown_key", 3, "did you mean 'right'?"),
        ("{open: 0, held: 1}", "{open: 0, held: 0}", "value_map_not_reversible", 9, "one way"),
        ("{open: 0, held: 1}", "{open: 0, held: maybe}", "bad_value", 9, "column can hold"),
    ],
    ids=lambda value: str(value).strip(),
)
def test_a_wrong_map_is_told_with_its_line(shop, wrong, right, code, line, told):
    """``check`` names file, line and remedy; ``run`` refuses to begin, and writes nothing."""
    shop.map.write_text(shop.map.read_text().replace(wrong, right))
    found = shop.call("check", "--json")
    assert found.code == 1
    problem = next(each for each in found.json()["problems"] if each["code"] == code)
    assert (Path(problem["file"]).name, problem["line"]) == ("customers.yaml", line)
    assert told in problem["remedy"] + problem["message"]
    before = (shop.left.read_bytes(), shop.right.read_bytes())
    refused = shop.sync()
    assert refused.code == 1
    assert code in refused.err
    assert (shop.left.read_bytes(), shop.right.read_bytes()) == before


@pytest.mark.parametrize(
    ("wrong", "right", "told"),
    [
        ("link: shop", "link: the shop", "link 'the shop' is not a plain word"),
        ("link: shop", "lnk: shop", "did you mean 'link'?"),
        ("sqlite:///erp.db", "erp.db", "is not a URL"),
        ("sqlite:///erp.db", "${ERP_URL}", "the environment variable ERP_URL is not set"),
        ("sqlite:///erp.db", "mysql://me:hunter2@host/erp", "holds a password"),
        ("sqlite:///erp.db", "mysql://host/erp", "no connector for 'mysql'"),
        ('"sqlite:///erp.db"', '"sqlite:///erp.db", schema: public', "an SQLite database has no schemas"),
        ("right:", "rigth:", "right is missing"),
    ],
)
def test_wrong_settings_are_told(shop, wrong, right, told):
    """Everything wrong in ``dualwrite.yaml`` is said, and never a password."""
    settings = shop.folder / "dualwrite.yaml"
    settings.write_text(settings.read_text().replace(wrong, right))
    found = shop.call("check")
    assert found.code == 1
    assert told in found.out
    assert "hunter2" not in found.out
    assert shop.sync().code in (1, 2)


def test_files_maps_and_systems_are_told_together(shop):
    """A file that cannot be read hides neither what is wrong with the other maps nor with the systems."""
    (shop.folder / "maps" / "broken.yaml").write_text("map: [")
    (shop.folder / "maps" / "other.yaml").write_text(shop.map.read_text().replace("accounts", "acounts"))
    shop.sync()
    found = {problem["code"] for problem in shop.call("check", "--json").json()["problems"]}
    assert {"yaml", "duplicate_map", "sqlite_not_wal"} <= found
    (shop.folder / "maps" / "other.yaml").unlink()
    shop.map.write_text(shop.map.read_text().replace("accounts", "acounts"))
    shop.right.unlink()
    found = {problem["code"] for problem in shop.call("check", "--json").json()["problems"]}
    assert {"yaml", "sqlite_missing"} <= found


def test_a_folder_without_a_project(shop):
    """The command says how to get one."""
    answer = shop.call("status", "-C", "maps")
    assert answer.code == 2
    assert "dualwrite init" in answer.err


def test_a_project_without_maps(shop):
    """A project without the folder of its maps is told to create it."""
    shutil.rmtree(shop.folder / "maps")
    found = shop.call("check")
    assert found.code == 1
    assert "no_maps" in found.out


# ------------------------------------------------------------------------------------------------ data


def test_a_value_that_is_too_long(shop):
    """Parked alone, the value shown, the remedy named; everything else flows."""
    shop.sync()
    shop.sql(shop.left, "INSERT INTO customers VALUES ('L', 'a name of more than twenty letters', 1, 'open')")
    shop.sql(shop.left, "INSERT INTO customers VALUES ('S', 'short', 1, 'open')")
    assert shop.sync().code == 1
    assert "S" in shop.rights()
    (entry,) = shop.call("parked", "list", "--json").json()
    assert (entry["code"], entry["key"]) == ("too_long", "L")


def test_a_value_outside_the_value_map(shop):
    """Parked with the value named; once the map lists it, a retry carries it."""
    shop.map.write_text(shop.map.read_text().replace("held: 1}", "held: 1}, else: park"))
    shop.sql(shop.left, "UPDATE customers SET status = 'closed' WHERE account = 'C2'")
    (plan,) = shop.call("plan", "--json").json()["maps"]
    assert [(row["action"], row["code"]) for row in plan["rows"] if row["key"] == ["C2"]] == [
        ("skip", "value_not_mapped")
    ]
    assert shop.sync().code == 1
    (entry,) = shop.call("parked", "list", "--json").json()
    assert (entry["code"], entry["key"], entry["side"]) == ("value_not_mapped", "C2", "right")
    assert "'closed'" in entry["reason"]
    shop.map.write_text(shop.map.read_text().replace("held: 1", "held: 1, closed: 2"))
    assert shop.call("parked", "retry", "--all").code == 0
    assert shop.rights()["C2"] == ["Fabrikam", 500, 2]
    assert shop.agree()


def test_a_duplicate_key_on_one_side(shop):
    """Never picked from: told by ``check``, ``plan`` and ``verify``, parked, and settled by a person."""
    shop.sql(shop.right, "DROP TABLE accounts")
    columns = "id INTEGER PRIMARY KEY, number TEXT, title TEXT, creditlimit NUMERIC(12,2), state INTEGER DEFAULT 0"
    shop.sql(shop.right, f"CREATE TABLE accounts ({columns})")
    shop.sql(shop.right, "INSERT INTO accounts (number, title) VALUES ('C1', 'one'), ('C1', 'other'), ('C3', 'three')")
    assert "no_unique_index" in shop.call("check").out
    assert "2 records on the right side hold this key" in shop.call("plan").out
    assert shop.sync().code == 1
    (entry,) = shop.call("parked", "list", "--json").json()
    assert (entry["code"], entry["key"], entry["side"]) == ("duplicate_key", "C1", "left")
    (report,) = shop.call("verify", "--json").json()["maps"]
    assert (report["equal"], report["unusable"]) == (2, 1)
    assert (report["rows"][0]["code"], report["rows"][0]["side"]) == ("duplicate_key", "right")
    assert shop.lefts()["C1"] == ["Contoso", 1000, "open"]
    shop.sql(shop.right, "DELETE FROM accounts WHERE title = 'other'")
    shop.sync()
    assert shop.call("parked", "discard", "--all", "--yes").code == 0
    assert shop.call("verify", "--repair", "left", "--yes").code == 0
    assert shop.rights()["C1"] == ["Contoso", 1000, 0]


# ------------------------------------------------------------------------------------------------ database files


def test_a_database_file_that_is_missing(shop):
    """Told by name, never created; once it is there everything goes on."""
    shop.sync()
    away = shop.folder / "away.db"
    shop.right.rename(away)
    checked = shop.call("check", "--json")
    assert [(p["code"], p["side"]) for p in checked.json()["problems"]] == [("sqlite_missing", "right")]
    for answer in (shop.call("check"), shop.sync(), shop.call("status"), shop.call("plan")):
        assert answer.code == 1
        assert f"{shop.right} does not exist" in answer.out + answer.err
    assert not shop.right.exists()
    shop.sql(shop.left, "UPDATE customers SET credit = 7 WHERE account = 'C1'")
    away.rename(shop.right)
    assert shop.sync().code == 0
    assert shop.rights()["C1"][1] == 7


def test_a_file_that_is_no_database(shop):
    """Told by name and left as it is."""
    shop.right.write_bytes(b"This is a letter, not a database. " * 100)
    before = shop.right.read_bytes()
    for answer in (shop.call("check"), shop.sync()):
        assert answer.code == 1
        assert "is not an SQLite database" in answer.out + answer.err
    assert shop.right.read_bytes() == before


@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_database_that_is_read_only(shop, what):
    """``check`` and ``run`` say so and what to do; nothing is lost meanwhile."""
    shop.sync()
    shop.sql(shop.left, "UPDATE customers SET credit = 7 WHERE account = 'C1'")
    inner = shop.folder / "inner"
    inner.mkdir()
    shop.right = shop.right.rename(inner / "crm.db")
    settings = shop.folder / "dualwrite.yaml"
    settings.write_text(settings.read_text().replace("sqlite:///crm.db", "sqlite:///inner/crm.db"))
    assert shop.call("relink", "--moved", "--yes").code == 0
    with made_read_only(shop.right if what == "file" else inner):
        checked = shop.finished(shop.start("check", under=plain_user()))
        ran = shop.finished(shop.start("run", "--until-idle", under=plain_user()))
    assert checked.code == 1
    assert "is read-only for this user" in checked.out
    assert "write permission" in checked.out
    assert ran.code == 1
    assert "permission" in ran.err
    assert shop.sync().code == 0
    assert shop.rights()["C1"][1] == 7


def test_a_database_that_is_locked(shop):
    """A running engine waits for the application's transaction, however long it takes, and fails nothing."""
    with shop.engine() as engine:
        with locked(shop.right) as application:
            shop.sql(shop.left, "UPDATE customers SET credit = 7 WHERE account = 'C1'")
            shop.until(lambda: shop.call("status", "--json").json()["maps"][0]["lag_seconds"] > 1)
            application.execute("UPDATE accounts SET title = 'locked' WHERE number = 'C1'")
            application.execute("COMMIT")
            application.execute("BEGIN")
        assert shop.agree()
        assert shop.lefts()["C1"] == ["locked", 7, "open"]
        ended = shop.end(engine)
    assert (ended.code, ended.err) == (0, "")


def test_a_database_that_stays_locked(shop):
    """A command that cannot even read says who is in its way."""
    with locked(shop.right, "EXCLUSIVE"):
        answer = shop.call("plan")
    assert answer.code == 1
    assert "another process holds its lock" in answer.err


def edit_and_restore(shop, file):
    """Carry two edits of the left side, then take a database back to what it was before them."""
    with closing(sqlite3.connect(file)) as database, closing(sqlite3.connect("backup.db")) as backup:
        database.backup(backup)
    for credit in (7, 8):
        shop.sql(shop.left, "UPDATE customers SET credit = ? WHERE account = 'C1'", credit)
        shop.sync()
    for part in shop.folder.glob(f"{file.name}*"):
        part.unlink()
    Path("backup.db").rename(file)


def test_a_database_restored_from_a_backup(shop):
    """Noticed at the next start and never carried on from; a new start compares both sides."""
    shop.sync()
    edit_and_restore(shop, shop.left)
    checked = shop.call("check", "--json")
    errors = [p for p in checked.json()["problems"] if p["level"] == "error"]
    assert (checked.code, {p["code"] for p in errors}) == (1, {"position_lost"})
    assert all("erp.db: the log ends" in p["message"] or "left: it holds" in p["message"] for p in errors)
    status = shop.call("status", "--json")
    assert (status.code, {p["code"] for p in status.json()["problems"]}) == (1, {"position_lost"})
    assert "restored from a backup" in shop.call("status").out
    refused = shop.sync()
    assert refused.code == 1
    assert "restored from a backup" in refused.err
    assert "start them again" in refused.err
    assert shop.rights()["C1"][1] == 8
    assert shop.call("stop", "--yes").code == 0
    assert shop.call("start", "--master", "right").code == 0
    assert shop.sync().code == 0
    assert shop.lefts()["C1"][1] == 8
    assert shop.agree()


def test_a_restored_target_is_told_by_check_and_status(shop):
    """The side that was restored holds fewer commits of ours than it had: everybody says so."""
    shop.sync()
    edit_and_restore(shop, shop.right)
    for answer in (shop.call("check"), shop.call("status")):
        assert answer.code == 1
        assert "right: it holds" in answer.out
        assert "restored from a backup" in answer.out
        assert "start them again" in answer.out


def test_a_database_that_is_replaced_while_the_engine_runs(shop):
    """The engine ends and says so, rather than going on with a file that nobody else sees."""
    with shop.engine() as engine:
        shop.sql(shop.left, "UPDATE customers SET credit = 7 WHERE account = 'C1'")
        shop.until(lambda: shop.rights()["C1"][1] == 7)
        with closing(sqlite3.connect(shop.left)) as database, closing(sqlite3.connect("backup.db")) as backup:
            database.backup(backup)
        Path("backup.db").rename(shop.left)
        ended = shop.finished(engine)
    assert ended.code == 1
    assert "was replaced by another file" in ended.err
    shop.sql(shop.left, "UPDATE customers SET credit = 8 WHERE account = 'C1'")
    shop.sync()
    assert shop.rights()["C1"][1] == 8


def test_another_database_in_its_place(shop):
    """A link refuses to run against a database that is not the one it was made with."""
    shop.sync()
    with closing(sqlite3.connect(shop.right)) as database:
        database.execute("PRAGMA journal_mode = DELETE")
        schema = database.execute("SELECT sql FROM sqlite_master WHERE name = 'accounts'").fetchone()[0]
    shop.right.unlink()
    with closing(sqlite3.connect(shop.right)) as database:
        database.execute(schema)
    assert [p["code"] for p in shop.call("status", "--json").json()["problems"]] == ["other_system"]
    assert "the link was made with" in shop.call("check").out
    refused = shop.sync()
    assert refused.code == 1
    assert "the link was made with" in refused.err
    assert len(shop.lefts()) == 3


# ------------------------------------------------------------------------------------------------ the journal


def test_a_disk_that_is_full(shop):
    """When the journal cannot grow the engine says so and waits; nothing is lost, and later all of it is there."""
    shop.sync()
    with closing(sqlite3.connect(shop.left)) as database, database:
        rows = ((f"X{number}", "n" * 39 + "x" * 3000, 1, "open") for number in range(100))
        database.executemany("INSERT INTO customers VALUES (?, ?, ?, ?)", rows)
    limit = max(file.stat().st_size for file in (shop.right, shop.folder / ".dualwrite/journal.db")) // 1024 + 100
    process = shop.start("run", under=["bash", "-c", f'ulimit -f {limit}; exec "$@"', "bash"])
    assert process.stderr is not None
    warning = process.stderr.readline()
    assert "the journal .dualwrite/journal.db cannot be" in warning
    assert "free space" in warning
    ended = shop.end(process)
    assert ended.code == 0
    assert shop.call("parked", "list", "--json").json() == []
    assert shop.sync().code == 1
    parked = shop.call("parked", "list", "--json").json()
    assert [each["code"] for each in parked] == ["too_long"] * 100
    assert len(shop.rights()) == 3


@pytest.mark.parametrize("what", ["not a database", "read-only", "a folder"])
def test_a_journal_that_cannot_be_used(shop, what):
    """Told by name; nothing is carried without it."""
    shop.sync()
    journal = shop.folder / ".dualwrite" / "journal.db"
    kept = journal.read_bytes()
    under = []
    if what == "not a database":
        journal.write_bytes(b"not a journal " * 300)
    elif what == "a folder":
        journal.unlink()
        journal.mkdir()
    else:
        under = plain_user()
    shop.sql(shop.left, "UPDATE customers SET credit = 7 WHERE account = 'C1'")
    with made_read_only(*([journal, journal.parent] if under else [])):
        refused = shop.finished(shop.start("run", "--until-idle", under=under))
    assert refused.code == 1
    assert ".dualwrite" in refused.err
    assert "→" in refused.err
    assert shop.rights()["C1"][1] == 1000
    if journal.is_dir():
        journal.rmdir()
    journal.write_bytes(kept)
    assert shop.sync().code == 0
    assert shop.rights()["C1"][1] == 7


BEYOND = "9" * 30
"""A number that no database takes."""


ASKED_OF_THE_ENGINE = [
    ("parked", "retry", BEYOND),
    ("parked", "discard", "--yes", BEYOND),
    ("parked", "edit", BEYOND, "name=x"),
    ("conflicts", "resolve", BEYOND, "left"),
    ("conflicts", "undo", BEYOND),
    ("undo", f"{BEYOND}.1"),
]


@pytest.mark.parametrize(
    "command",
    [
        *ASKED_OF_THE_ENGINE,
        *((what, "show", BEYOND) for what in ("parked", "syncs")),
        *((what, "--rows", "-1") for what in ("plan", "verify")),
        *(("log", *more, "--limit", "-1") for more in ((), ("--changes",), ("--changes", "--json"))),
        ("syncs", "list", "--limit", "-1"),
        ("log", "--since", "999999w"),
        ("parked", "list", "--before", "999999w"),
    ],
)
def test_a_number_that_means_nothing(shop, command):
    """It is refused in words."""
    shop.sync()
    assert shop.call(*command).code == 2


def test_a_running_engine_goes_on_after_a_number_that_means_nothing(shop):
    """It refuses as a command does that is done without it."""
    with shop.engine() as engine:
        for command in ASKED_OF_THE_ENGINE:
            assert (command, shop.call(*command).code) == (command, 2)
        assert shop.running(engine)


def test_a_request_that_ends_an_engine_ends_no_other(shop):
    """What no engine can do, through a fault of ours, is answered before it ends, and not done again by the next."""
    shop.sync()
    with Journal.open(shop.folder) as journal:
        number = journal.request("edit", {"id": 1})
        with pytest.raises(KeyError):
            shop.sync()
        answer = journal.await_answer(number, 0)
    assert "KeyError" in answer["error"]
    assert shop.sync().code == 0


def test_a_pipe_that_closes(shop):
    """``dualwrite log | head`` ends without complaint."""
    shop.sync()
    read, write = os.pipe()
    os.close(read)
    try:
        ended = shop.finished(shop.start("log", "--json", out=write))
    finally:
        os.close(write)
    assert ended.err == ""
