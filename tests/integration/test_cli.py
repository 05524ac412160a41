"""A new user's way through every command, on two real SQLite files."""

from __future__ import annotations

import re
import signal
import sqlite3
from contextlib import closing, nullcontext

import pytest

from dualwrite import printing
from dualwrite.engine import commands

MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def moments(entries, name):
    """Are all of these times in ISO 8601, UTC?"""
    return all(MOMENT.fullmatch(entry[name]) for entry in entries)


# ------------------------------------------------------------------------------------------------ the first steps


def test_without_a_command_there_is_help(shop):
    """Help names every command; asking for nothing is wrong usage."""
    nothing, helped = shop.call(), shop.call("--help")
    assert nothing.code == 2
    assert helped.code == 0
    for command in ("init", "check", "plan", "run", "start", "stop", "status", "verify", "log", "uninstall", "demo"):
        assert f"\n  {command} " in helped.out
        assert f"\n  {command} " in nothing.err


def test_the_version(shop):
    """The program says which version it is."""
    assert re.fullmatch(r"dualwrite \d+\.\d+\.\d+\n", shop.call("--version").out)


def test_a_project_is_proposed(shop):
    """``init`` looks at both databases; what it writes passes ``check`` as it stands."""
    with closing(sqlite3.connect("other.db")) as database:
        database.execute("CREATE TABLE customer (account TEXT PRIMARY KEY, name TEXT, city TEXT)")
    made = shop.call("init", "new", "--left", "sqlite:///erp.db", "--right", "sqlite:///other.db")
    assert made.code == 0
    assert "wrote new/maps/customers-customer.yaml" in made.out
    assert "dualwrite check -C new" in made.out
    assert "account = account" in (shop.folder / "new/maps/customers-customer.yaml").read_text()
    assert shop.call("check", "-C", "new").code == 0


def test_what_is_proposed_can_be_narrowed(shop):
    """``--include`` leaves out tables that do not match; what is left out is said."""
    made = shop.call("init", "new", "--left", "sqlite:///erp.db", "--right", "sqlite:///erp.db", "--include", "x*")
    assert "0 map(s) proposed" in made.out
    assert list((shop.folder / "new/maps").iterdir()) == []


def test_a_project_is_never_overwritten(shop):
    """A second ``init`` in the same folder changes nothing."""
    before = (shop.folder / "dualwrite.yaml").read_text()
    refused = shop.call("init", ".", "--left", "sqlite:///erp.db", "--right", "sqlite:///crm.db")
    assert refused.code == 2
    assert "exists already" in refused.err
    assert (shop.folder / "dualwrite.yaml").read_text() == before


def test_check_examines_both_sides(shop):
    """Warnings before the first run, none of them an error; nothing is written to the databases."""
    before = (shop.left.read_bytes(), shop.right.read_bytes())
    found = shop.call("check", "--json")
    assert found.code == 0
    problems = found.json()["problems"]
    assert {(each["code"], each["side"]) for each in problems} >= {
        ("sqlite_not_wal", "left"),
        ("sqlite_not_wal", "right"),
    }
    assert {each["level"] for each in problems} == {"warning"}
    assert all(each["remedy"] for each in problems)
    assert (shop.left.read_bytes(), shop.right.read_bytes()) == before
    assert "0 error(s)" in shop.call("check").out


def test_check_reads_the_data(shop):
    """With ``--data``, records that would be parked are counted; nothing is written to the databases."""
    assert shop.call("check", "--data").code == 0
    with closing(sqlite3.connect(shop.left)) as database, database:
        database.execute("INSERT INTO customers VALUES ('', 'x', 1, 'open')")
    before = (shop.left.read_bytes(), shop.right.read_bytes())
    found = shop.call("check", "--data", "--json")
    assert found.code == 1
    (problem,) = [each for each in found.json()["problems"] if each["level"] == "error"]
    assert (problem["code"], problem["side"], problem["map"]) == ("empty_key", "left", "customers")
    assert "1 record:" in problem["message"]
    assert (shop.left.read_bytes(), shop.right.read_bytes()) == before


def test_the_plan_says_what_would_happen(shop):
    """Inserts and updates per side with old and new values; nothing is written to the databases."""
    before = (shop.left.read_bytes(), shop.right.read_bytes())
    answer = shop.call("plan", "--json")
    assert answer.code == 0
    (plan,) = answer.json()["maps"]
    assert (plan["map"], plan["master"]) == ("customers", "left")
    assert (plan["insert"], plan["update"]) == ({"left": 1, "right": 1}, {"left": 0, "right": 1})
    rows = {(row["side"], *row["key"]): row for row in plan["rows"]}
    assert rows["right", "C1"]["columns"] == {"title": {"old": "Contoso Ltd", "new": "Contoso"}}
    assert rows["left", "C3"]["action"] == "insert"
    assert rows["left", "C3"]["columns"]["number"] == {"old": None, "new": "C3"}
    assert (shop.left.read_bytes(), shop.right.read_bytes()) == before
    shown = shop.call("plan", "customers")
    assert "title: Contoso Ltd → Contoso" in shown.out
    assert "nothing was written" in shown.out


def test_the_plan_heeds_the_master(shop):
    """With the right side as master its values win."""
    (plan,) = shop.call("plan", "--json", "--master", "right").json()["maps"]
    assert (plan["master"], plan["update"]) == ("right", {"left": 1, "right": 0})


# ------------------------------------------------------------------------------------------------ running


def test_a_first_run_brings_both_sides_together(shop):
    """Records of one side are created on the other, differing values come from the left, then both agree."""
    ran = shop.sync()
    assert ran.code == 0
    assert shop.lefts() == {
        "C1": ["Contoso", 1000, "open"],
        "C2": ["Fabrikam", 500, "open"],
        "C3": ["Northwind", 50, "open"],
    }
    assert shop.rights() == {"C1": ["Contoso", 1000, 0], "C2": ["Fabrikam", 500, 0], "C3": ["Northwind", 50, 0]}
    verified = shop.call("verify", "--json")
    assert verified.code == 0
    assert verified.json() == {
        "maps": [
            {
                "map": "customers",
                "equal": 3,
                "different": 0,
                "left_only": 0,
                "right_only": 0,
                "detached": 0,
                "unusable": 0,
                "rows": [],
            }
        ]
    }
    assert "both sides agree" in shop.call("verify").out


def test_a_later_run_goes_on_without_an_initial_sync(shop):
    """What was committed while nothing ran is carried, as changes; only the first run compared the tables."""
    shop.sync()
    shop.sql(shop.left, "UPDATE customers SET credit = 7 WHERE account = 'C1'")
    shop.sql(shop.right, "UPDATE accounts SET state = 1 WHERE number = 'C1'")
    shop.sql(shop.right, "DELETE FROM accounts WHERE number = 'C3'")
    shop.sync()
    assert shop.lefts() == {"C1": ["Contoso", 7, "held"], "C2": ["Fabrikam", 500, "open"]}
    assert shop.rights() == {"C1": ["Contoso", 7, 1], "C2": ["Fabrikam", 500, 0]}
    assert [each["what"] for each in shop.call("log", "--json").json()].count("initial sync started") == 1


def test_a_map_that_runs_carries_both_ways(shop):
    """While an engine runs, edits of either side arrive on the other; ``verify`` waits for what is in flight."""
    with shop.engine() as engine:
        shop.sql(shop.left, "INSERT INTO customers VALUES ('C4', 'Adatum', 1, 'held')")
        shop.until(lambda: "C4" in shop.rights())
        shop.sql(shop.right, "UPDATE accounts SET title = 'Adatum AG' WHERE number = 'C4'")
        assert shop.agree()
        assert shop.lefts()["C4"] == ["Adatum AG", 1, "held"]
        ended = shop.end(engine, signal.SIGTERM)
    assert (ended.code, ended.err) == (0, "")


def test_ctrl_c_ends_cleanly(shop):
    """Ctrl-C ends the engine with exit code 0; the next one goes on."""
    with shop.engine() as engine:
        assert shop.end(engine, signal.SIGINT).code == 0
    assert shop.call("status", "--json").json()["engine"] is None
    shop.sql(shop.left, "UPDATE customers SET credit = 8 WHERE account = 'C1'")
    shop.sync()
    assert shop.rights()["C1"] == ["Contoso", 8, 0]


@pytest.mark.parametrize(("words", "code"), [([], 0), (["--until-idle"], 1)], ids=["run", "until idle"])
def test_an_initial_sync_can_be_interrupted(shop, words, code):
    """A signal during an initial sync ends it; the next run goes on, and both sides agree.

    Who wanted everything to be carried learns from the exit code that it is not.
    """
    with closing(sqlite3.connect(shop.left)) as database, database:
        rows = ((f"N{number}", "somebody", number, "open") for number in range(20_000))
        database.executemany("INSERT INTO customers VALUES (?, ?, ?, ?)", rows)
    process = shop.start("run", *words)
    shop.until(lambda: shop.call("status", "--json").json()["maps"][0]["state"] == "initializing")
    ended = shop.end(process)
    assert ended.code == code
    assert shop.sync().code == 0
    assert shop.agree()
    assert len(shop.rights()) == 20_003


def test_a_second_engine_is_refused(shop):
    """Only one engine runs a link; the other is told which one, with exit code 2, and so is ``uninstall``."""
    with shop.engine() as engine:
        for refused in (shop.call("run"), shop.call("uninstall", "--yes")):
            assert refused.code == 2
            assert f"process {engine.pid} " in refused.err
        assert shop.state() == "running"


def test_what_the_systems_keep_is_shown_against_its_budget(shop):
    """``status`` and ``check`` warn where a system keeps more of its log than it may, and it is no error."""
    settings = shop.folder / "dualwrite.yaml"
    settings.write_text(f"{settings.read_text()}limits: {{retained: 9kB}}\n")
    shop.sync()
    assert shop.call("status", "--json").json()["problems"] == []
    for number in range(100):
        shop.sql(shop.left, "INSERT INTO customers VALUES (?, ?, 1, 'open')", f"N{number}", "x" * 20)
    shop.sql(shop.left, "UPDATE customers SET status = 'held'")
    stood = shop.call("status", "--json")
    assert (stood.code, [(p["code"], p["level"], p["side"]) for p in stood.json()["problems"]]) == (
        0,
        [("retained", "warning", "left")],
    )
    assert stood.json()["retained"]["left"] > 9 << 10 > stood.json()["retained"]["right"]
    assert "of its log for this link, and limits.retained is 9216 bytes" in shop.call("check").out
    assert "kept for this link: left" in shop.call("status").out
    shop.sync()
    assert shop.call("status", "--json").json()["problems"] == []


def test_status_tells_how_the_link_stands(shop):
    """State, counts and lag per map, and who runs the engine."""
    before = shop.call("status", "--json").json()
    assert before["engine"] is None
    assert [each["state"] for each in before["maps"]] == ["not running"]
    shop.sync()
    shop.sql(shop.left, "UPDATE customers SET credit = 7 WHERE account = 'C1'")
    (found,) = shop.call("status", "--json").json()["maps"]
    lag, since, asked = found.pop("lag_seconds"), found.pop("since"), found.pop("asked")
    assert found == {
        "map": "customers",
        "state": "running",
        "desired": "running",
        "reason": "",
        "parked": 0,
        "conflicts": 0,
        "queued": 0,
        "queued_bytes": 0,
        "pending": "",
        "waits_for": "",
        "version": "1.0.0.0",
        "publisher": "",
        "edited": False,
        "sync": None,
    }
    assert lag > 0
    assert MOMENT.fullmatch(since)
    assert asked == since
    shown = shop.call("status").out
    assert "customers" in shown
    assert "no engine is running" in shown


# ------------------------------------------------------------------------------------------------ start and stop


def test_a_map_is_stopped_and_started_while_an_engine_runs(shop):
    """Both commands reach the running engine, and are done when they return."""
    with shop.engine():
        assert shop.call("stop", "--yes", "customers").code == 0
        assert shop.state() == "stopped"
        shop.sql(shop.right, "UPDATE accounts SET creditlimit = 9 WHERE number = 'C2'")
        assert shop.lefts()["C2"][1] == 500
        assert shop.call("start", "--master", "right", "CUSTOMERS").code == 0
        assert shop.state() == "running"
        assert shop.lefts()["C2"][1] == 9
    entries = shop.call("log", "--json").json()
    assert moments(entries, "at")
    assert [each["what"] for each in reversed(entries)] == [
        "initial sync started",
        "initial sync done; running",
        "stop wanted",
        "stopped",
        "start wanted",
        "initial sync started",
        "initial sync done; running",
    ]
    assert {each["what"]: bool(each["who"]) for each in entries}["stop wanted"]


def test_a_map_is_stopped_and_started_while_none_runs(shop):
    """What is tracked for the map ends at once; the start is left to the next engine, and said so."""
    shop.sync()
    assert shop.call("stop", "--yes").code == 0
    assert shop.state() == "stopped"
    assert not [name for name in shop.traces(shop.left) if "customers" in name]
    assert shop.sync().code == 0
    assert shop.state() == "stopped"
    started = shop.call("start")
    assert started.code == 0
    assert "stopped → running" in started.out
    assert "no engine is running" in started.out
    shop.sync()
    assert shop.state() == "running"


def test_a_map_can_start_without_initial_sync(shop):
    """Then only what changes from now on is carried."""
    assert shop.call("start", "--no-initial-sync").code == 0
    shop.sync()
    assert shop.rights()["C1"][0] == "Contoso Ltd"
    shop.sql(shop.left, "UPDATE customers SET credit = 7 WHERE account = 'C1'")
    shop.sync()
    assert shop.rights() == {"C1": ["Contoso Ltd", 7, 0], "C3": ["Northwind", 50, 0]}


def test_without_initial_sync_keys_are_looked_at_first(shop):
    """Where a key is empty or occurs twice, nothing starts without the word of a person."""
    shop.sql(shop.right, "INSERT INTO accounts (number, title) VALUES ('', 'Nobody')")
    asked = shop.call("start", "--no-initial-sync")
    assert asked.code == 2
    assert "empty_key" in asked.err
    assert "add --yes" in asked.err
    assert shop.state() == "not running"
    assert shop.call("start", "--no-initial-sync", "--yes").code == 0
    shop.sync()
    assert shop.state() == "running"


def test_maps_that_were_never_started_can_be_left_alone(shop):
    """``run --no-start`` starts nothing by itself."""
    assert shop.call("run", "--until-idle", "--no-start").code == 0
    assert shop.state() == "not running"
    assert "C2" not in shop.rights()


def test_what_a_map_cannot_do_is_refused(shop):
    """Starting what runs and stopping what does not are wrong usage, and say what is possible."""
    assert "(start is possible)" in shop.call("stop", "--yes").err
    shop.sync()
    refused = shop.call("start")
    assert refused.code == 2
    assert "(stop or pause is possible)" in refused.err


def test_what_is_parked_fits_a_narrow_terminal(shop, monkeypatch):
    """Reason and remedy stand below the record, in lines of at most 80 columns."""
    shop.sync()
    shop.sql(shop.left, "INSERT INTO customers VALUES (?, 'a name of more than twenty letters', 1, 'open')", "K" * 60)
    shop.sync()
    monkeypatch.setattr(printing.terminal.console, "_width", 80)
    told = shop.call("parked", "list").out
    assert max(map(len, told.splitlines())) <= 80
    assert "too_long" in told
    assert "→ shorten it, or say `truncate: true` for the column, then retry it" in told


def test_many_deletes_wait_for_a_word(shop):
    """More deletes than the limit are carried only when a person says so."""
    settings = shop.folder / "dualwrite.yaml"
    settings.write_text(settings.read_text() + "limits: {deletes: 1}\n")
    shop.sync()
    shop.sql(shop.right, "DELETE FROM accounts")
    waiting = shop.sync()
    assert waiting.code == 1
    assert "3 delete(s) wait" in " ".join(waiting.out.split())
    assert len(shop.lefts()) == 3
    assert shop.call("parked", "list", "--code", "too_long").code == 0
    assert len(shop.call("parked", "list", "--map", "customers", "--code", "many_deletes", "--json").json()) == 3
    refused = shop.call("parked", "retry", "--all", "--code", "many_deletes")
    assert (refused.code, "say which ones" in refused.err) == (2, True)
    assert shop.call("parked", "retry", "--code", "many_deletes").code == 0
    assert not shop.lefts()
    assert shop.agree()


@pytest.mark.parametrize(
    "arguments",
    [("stop",), ("uninstall",), ("verify", "--repair", "left"), ("parked", "discard", "--all")],
    ids=" ".join,
)
def test_what_cannot_be_undone_asks(shop, arguments):
    """Without a terminal only --yes is an answer; nothing happens."""
    shop.sync()
    shop.sql(shop.left, "UPDATE customers SET name = 'a name of more than twenty letters' WHERE account = 'C1'")
    shop.sync()
    refused = shop.call(*arguments)
    assert refused.code == 2
    assert "add --yes" in refused.err
    assert shop.state() == "running"
    assert len(shop.call("parked", "list", "--json").json()) == 1


# ------------------------------------------------------------------------------------------------ parked


@pytest.fixture
def parked(shop):
    """A shop where one record could not be carried, and another one could."""
    shop.sync()
    shop.sql(shop.left, "UPDATE customers SET name = 'a name of more than twenty letters' WHERE account = 'C1'")
    shop.sql(shop.left, "UPDATE customers SET credit = 7 WHERE account = 'C2'")
    assert shop.sync().code == 1
    return shop


def test_what_cannot_be_carried_is_parked_alone(parked):
    """The reason is told with all fields; other records flow on."""
    listed = parked.call("parked", "list", "--json")
    assert listed.code == 1
    (entry,) = listed.json()
    assert {name: entry[name] for name in ("map", "side", "key", "code", "column", "attempts", "changes")} == {
        "map": "customers",
        "side": "right",
        "key": "C1",
        "code": "too_long",
        "column": "name",
        "attempts": 1,
        "changes": 1,
    }
    assert "has 34 characters, title takes 20" in entry["reason"]
    assert "truncate: true" in entry["remedy"]
    assert MOMENT.fullmatch(entry["since"])
    assert parked.rights()["C2"] == ["Fabrikam", 7, 0]
    assert parked.call("status", "--json").json()["maps"][0]["parked"] == 1
    assert "too_long" in parked.call("parked", "list").out
    differ = parked.call("verify")
    assert differ.code == 1
    assert "1 record(s) are parked" in differ.out


def test_a_parked_record_is_shown_with_its_changes(parked):
    """Before and after of every waiting change, in the source's columns."""
    parked.sql(parked.left, "UPDATE customers SET credit = 3 WHERE account = 'C1'")
    parked.sync()
    shown = parked.call("parked", "show", "1", "--json")
    assert shown.code == 0
    found = shown.json()
    assert found["changes"] == 2
    first, second = found["queue"]
    assert (first["kind"], first["before"]["name"], first["after"]["name"]) == (
        "update",
        "Contoso",
        "a name of more than twenty letters",
    )
    assert (second["before"]["credit"], second["after"]["credit"]) == ("1000.00", "3.00")
    assert moments(found["queue"], "at")
    told = parked.call("parked", "show", "1").out
    assert "update by the left side" in told
    assert "say `truncate: true`" in told


def test_a_corrected_record_goes_through_by_itself(parked):
    """As it is, it stays parked, also when it is retried; once the source is corrected its changes go through."""
    again = parked.call("parked", "retry", "--all", "--json")
    assert (again.code, again.json()) == (1, {"tried": 1, "freed": 0})
    assert parked.call("parked", "list", "--json").json()[0]["attempts"] == 2
    assert parked.sync().code == 1
    assert parked.call("parked", "list", "--json").json()[0]["attempts"] == 2
    parked.sql(parked.left, "UPDATE customers SET name = 'a short name' WHERE account = 'C1'")
    assert parked.sync().code == 0
    assert parked.rights()["C1"][0] == "a short name"
    assert parked.call("parked", "list").out == "nothing is parked\n"
    assert parked.agree()


def test_a_parked_record_is_corrected_where_it_came_from(parked):
    """The value is written on the source's side, everything that waits goes through, and the log says who did it."""
    done = parked.call("parked", "edit", "1", "name=a short name", "--null", "credit", "--json")
    assert (done.code, done.json()["freed"], done.json()["side"]) == (0, True, "left")
    assert done.json()["columns"]["name"] == ["a name of more than twenty letters", "a short name"]
    assert parked.rights()["C1"][0] == "a short name"
    assert parked.call("parked", "list").out == "nothing is parked\n"
    assert parked.agree()
    (event,) = [each for each in parked.call("log", "--json").json() if each["what"] == "parked record edited"]
    assert "name: a name of more than twenty letters → a short name" in event["detail"]["columns"]
    assert event["who"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("7", "name=x"), "nothing is parked under 7"),
        (("1", "naem=x"), "did you mean 'name'?"),
        (("1", "account=C9"), "a part of the key"),
        (("1", "name"), "is not COLUMN=VALUE"),
        (("1", "name=a name of more than twenty letters"), "holds these values already"),
        (("1", "name=another name of more than twenty letters"), "it would be parked again"),
        (("1", "name=short", "credit=a lot"), "credit: 'a lot' is not a number"),
    ],
)
def test_an_edit_that_cannot_be_is_refused(parked, words, told):
    """With the reason; the record stays as it is."""
    before = parked.lefts()
    refused = parked.call("parked", "edit", *words)
    assert refused.code == 2
    assert told in refused.err
    assert parked.lefts() == before
    assert len(parked.call("parked", "list", "--json").json()) == 1


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (("--side", "right"), 1),
        (("--side", "left"), 0),
        (("--column", "name"), 1),
        (("--column", "credit"), 0),
        (("--key", "C1"), 1),
        (("--key", "C2"), 0),
        (("--before", "1h"), 0),
        (("--before", "2999-01-01"), 1),
        (("--map", "customers", "--code", "too_long", "--side", "right"), 1),
    ],
)
def test_parked_records_are_chosen_by_what_is_known_of_them(parked, words, found):
    """All commands about parked records take the same filters."""
    assert len(parked.call("parked", "list", *words, "--json").json()) == found
    assert parked.call("parked", "retry", *words, "--json").json()["tried"] == found
    assert parked.call("parked", "discard", *words, "--yes").out == f"{found} discarded\n"


def test_a_corrected_map_lets_changes_through(parked):
    """``truncate: true`` in the map and a new run: the text is cut, and both sides agree."""
    text = parked.map.read_text().replace("= title", "= title: {truncate: true}")
    parked.map.write_text(text)
    assert parked.sync().code == 0
    assert parked.rights()["C1"][0] == "a name of more than "
    assert parked.agree()


def test_a_map_whose_lines_have_changed_order_puts_parked_values_into_their_columns(shop):
    """They are shown, and carried, by the columns in which they were parked, wherever these stand in the map by now."""
    shop.sync()
    shop.sql(shop.right, "CREATE TABLE e (code TEXT PRIMARY KEY NOT NULL, x VARCHAR(2), y VARCHAR(5))")
    shop.sql(shop.left, "CREATE TABLE c (code TEXT PRIMARY KEY NOT NULL, a TEXT, b TEXT)")
    lines = ["  - code = code", "  - a = x", "  - b = y"]
    other = shop.folder / "maps" / "codes.yaml"
    head = ["map: codes", "left: c", "right: e", "key: [code]", "columns:"]
    other.write_text("\n".join([*head, *lines, ""]))
    shop.sync()
    shop.sql(shop.left, "INSERT INTO c VALUES ('1', 'aaa', 'bbb')")
    assert shop.sync().code == 1
    other.write_text("\n".join([*head, lines[2], lines[1] + ": {truncate: true}", lines[0], ""]))
    (entry,) = shop.call("parked", "list", "--json").json()
    shown = shop.call("parked", "show", str(entry["id"]), "--json").json()["queue"]
    assert [change["after"] for change in shown] == [{"code": "1", "a": "aaa", "b": "bbb"}]
    assert shop.call("parked", "retry", "--all").code == 0
    assert shop.sql(shop.right, "SELECT code, x, y FROM e") == [("1", "aa", "bbb")]
    assert shop.agree()


def test_parked_changes_can_be_dropped(parked):
    """What was dropped is in the log, ``verify`` finds the difference, and later changes of the record flow again."""
    assert parked.call("parked", "discard", "1", "--yes").out == "1 discarded\n"
    assert parked.call("parked", "list", "--json").json() == []
    assert any(each["what"] == "parked changes discarded" for each in parked.call("log", "--json").json())
    (row,) = parked.call("verify", "--json").json()["maps"][0]["rows"]
    assert (row["key"], row["columns"]) == (["C1"], ["title"])
    parked.sql(parked.left, "UPDATE customers SET name = 'a short name' WHERE account = 'C1'")
    parked.sync()
    assert parked.rights()["C1"][0] == "a short name"


def test_a_running_engine_retries_when_asked(parked):
    """The command is done by the engine that runs; so is an edit."""
    with parked.engine():
        assert parked.call("parked", "retry", "1", "--json").json() == {"tried": 1, "freed": 0}
        assert parked.call("parked", "list", "--json").json()[0]["attempts"] == 2
        assert parked.call("parked", "edit", "1", "name=a short name").code == 0
        assert parked.rights()["C1"][0] == "a short name"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("parked", "show", "99"), "nothing is parked under 99"),
        (("parked", "retry", "99"), "nothing is parked under 99"),
        (("parked", "retry"), "say which ones"),
        (("parked", "retry", "1", "--all"), "say which ones"),
        (("parked", "list", "--map", "custmers"), "did you mean 'customers'?"),
        (("conflicts", "resolve", "99", "left"), "there is no conflict 99"),
        (("conflicts", "resolve", "1", "up"), "'up' is not one of"),
        (("plan", "custmers"), "did you mean 'customers'?"),
        (("plan", "--rows", "many"), "valid integer"),
        (("plan", "--nothing"), "see dualwrite plan --help"),
        (("nothing",), "No such command 'nothing'"),
        (("status", "-C", "nowhere"), "there is no dualwrite.yaml in nowhere"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_wrong_usage_is_told(shop, arguments, told):
    """Exit code 2, and what is possible."""
    answer = shop.call(*arguments)
    assert answer.code == 2
    assert told in answer.err
    assert answer.out == ""


# ------------------------------------------------------------------------------------------------ conflicts


def edit_both(shop):
    """Both sides set another credit, and the right side a name, while nothing runs."""
    shop.sql(shop.left, "UPDATE customers SET credit = 1 WHERE account = 'C1'")
    shop.sql(shop.right, "UPDATE accounts SET creditlimit = 2, title = 'Both' WHERE number = 'C1'")


def test_the_later_edit_wins_and_the_other_is_kept(shop):
    """Columns merge one by one; the conflict log has both values, and what was there before."""
    shop.sync()
    edit_both(shop)
    assert shop.sync().code == 0
    assert shop.lefts()["C1"] == ["Both", 2, "open"]
    assert shop.rights()["C1"] == ["Both", 2, 0]
    listed = shop.call("conflicts", "list", "--json")
    assert listed.code == 0
    (entry,) = listed.json()
    assert MOMENT.fullmatch(entry.pop("at"))
    assert entry == {
        "id": 1,
        "map": "customers",
        "key": "C1",
        "column": "creditlimit",
        "left": "1.00",
        "right": "2.00",
        "base": "1000.00",
        "winner": "right",
        "policy": "newest",
        "open": False,
    }
    assert shop.call("conflicts", "list", "--open", "--json").json() == []
    assert "1 conflict(s)" in shop.call("conflicts", "list").out


def test_a_person_decides(shop):
    """With policy ``manual`` both values stay until a person says which one wins; then both sides get it."""
    shop.map.write_text(shop.map.read_text().replace("= creditlimit", "= creditlimit: {conflict: manual}"))
    shop.sync()
    edit_both(shop)
    assert shop.sync().code == 1
    assert (shop.lefts()["C1"][1], shop.rights()["C1"][1]) == (1, 2)
    (entry,) = shop.call("conflicts", "list", "--open", "--json").json()
    assert (entry["winner"], entry["open"], entry["policy"]) == (None, True, "manual")
    assert {each["code"] for each in shop.call("parked", "list", "--json").json()} == {"conflict"}
    decided = shop.call("conflicts", "resolve", str(entry["id"]), "left")
    assert (decided.code, decided.out) == (0, "conflict 1: left wins\n")
    assert shop.lefts()["C1"] == ["Both", 1, "open"]
    assert shop.rights()["C1"] == ["Both", 1, 0]
    assert shop.agree()
    again = shop.call("conflicts", "resolve", "1", "right")
    assert again.code == 2
    assert "already decided" in again.err


# ------------------------------------------------------------------------------------------------ verify, uninstall


def test_verify_finds_and_repairs(shop):
    """What bypassed the capture is found; ``--repair`` makes both sides agree with the side that is named."""
    shop.sync()
    with closing(sqlite3.connect(shop.right)) as database, database:
        triggers = database.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for name, _ in triggers:
            database.execute(f'DROP TRIGGER "{name}"')
        database.execute("UPDATE accounts SET title = 'unseen' WHERE number = 'C1'")
        database.execute("DELETE FROM accounts WHERE number = 'C2'")
        for _, text in triggers:
            database.execute(text)
    found = shop.call("verify", "--json")
    assert found.code == 1
    (report,) = found.json()["maps"]
    assert (report["equal"], report["different"], report["left_only"], report["right_only"]) == (1, 1, 1, 0)
    rows = {row["key"][0]: row for row in report["rows"]}
    assert (rows["C1"]["columns"], rows["C1"]["only"]) == (["title"], None)
    assert (rows["C2"]["only"], rows["C2"]["right"]) == ("left", None)
    repaired = shop.call("verify", "--repair", "left", "--yes")
    assert repaired.code == 0
    assert "both sides agree" in repaired.out
    assert shop.rights()["C1"][0] == "Contoso"
    assert shop.rights()["C2"] == ["Fabrikam", 500, 0]


def test_only_maps_that_run_are_repaired(shop):
    """Whoever asks for another one hears so at once, before anything is compared."""
    refused = shop.call("verify", "--repair", "left", "--yes")
    assert (refused.code, refused.out) == (2, "")
    assert "map customers is not running" in refused.err
    shop.sync()
    assert shop.call("pause", "customers").code == 0
    refused = shop.call("verify", "--repair", "left", "--yes")
    assert (refused.code, refused.out) == (2, "")
    assert "changes of map customers are queued" in refused.err


def test_uninstall_leaves_no_trace(shop):
    """Both databases hold what the application created, and nothing else; the project can start anew."""
    with closing(sqlite3.connect(shop.left)) as database:
        before = database.execute("SELECT type, name, sql FROM sqlite_master ORDER BY name").fetchall()
    shop.sync()
    assert shop.traces(shop.left)
    assert shop.call("uninstall", "--yes").out == "removed from both databases\n"
    assert shop.traces(shop.left) == shop.traces(shop.right) == []
    with closing(sqlite3.connect(shop.left)) as database:
        after = database.execute(
            "SELECT type, name, sql FROM sqlite_master WHERE name <> 'sqlite_sequence' ORDER BY name"
        ).fetchall()
        assert database.execute("SELECT * FROM sqlite_sequence").fetchall() == []
    assert after == before
    assert shop.state() == "not running"
    shop.sql(shop.left, "UPDATE customers SET credit = 7 WHERE account = 'C1'")
    assert shop.sync().code == 0
    assert shop.rights()["C1"][1] == 7


def test_the_log_can_be_cut(shop):
    """Newest first, as many as asked for, of one map."""
    shop.sync()
    (last,) = shop.call("log", "--json", "--limit", "1", "--map", "Customers").json()
    assert set(last) == {"id", "at", "who", "map", "kind", "what", "detail"}
    assert last["what"] == "initial sync done; running"
    assert last["detail"]["created"] == {"left": 1, "right": 1}
    assert "initial sync done; running" in shop.call("log").out


def test_triggers_that_undo_each_other_do_not_keep_an_engine_going(shop):
    """``run --until-idle`` ends, with the record parked under what keeps changing it; ``limits.rounds`` says when."""
    settings = shop.folder / "dualwrite.yaml"
    settings.write_text(f"{settings.read_text()}limits: {{rounds: 3}}\n")
    shop.sync()
    for file, table, column, how in (
        (shop.left, "customers", "name", "upper"),
        (shop.right, "accounts", "title", "lower"),
    ):
        shop.make(
            file,
            f"CREATE TRIGGER spelled AFTER UPDATE OF {column} ON {table} WHEN new.{column} <> {how}(new.{column}) "
            f"BEGIN UPDATE {table} SET {column} = {how}(new.{column}) WHERE rowid = new.rowid; END;",
        )
    shop.sql(shop.left, "UPDATE customers SET name = 'Adatum' WHERE account = 'C1'")
    assert shop.call("run", "--until-idle").code == 1
    (parked,) = shop.call("parked", "list", "--json").json()
    assert (parked["code"], parked["column"]) == ("loop", "title")
    assert "'ADATUM' ⇄ 'adatum'" in parked["reason"]


@pytest.mark.parametrize("beside", [True, False])
def test_many_parked_records_are_taken_some_at_a_time(shop, monkeypatch, beside):
    """A running engine carries other changes in between, and each of them is tried or discarded once."""
    monkeypatch.setattr(commands, "IN_A_PART", 2)
    names, unfit = [f"N{number}" for number in range(5)], "a name that is too long"
    for name in names:
        shop.sql(shop.left, "INSERT INTO customers VALUES (?, ?, 1, 'open')", name, unfit)
    shop.sync()
    assert {each["key"] for each in shop.call("parked", "list", "--json").json()} == set(names)
    with shop.engine() if beside else nullcontext():
        assert shop.call("parked", "retry", "--all").out == "0 of 5 went through\n"
        assert shop.call("parked", "retry", "--key", "none").out == "0 of 0 went through\n"
        assert shop.call("parked", "discard", "--code", "too_long", "--yes").out == "5 discarded\n"
    asked = shop.sql(shop.folder / ".dualwrite" / "journal.db", "SELECT command FROM request WHERE command <> 'drain'")
    assert [what for (what,) in asked] == (["retry"] * 4 + ["discard"] * 3 if beside else [])
