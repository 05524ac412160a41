"""An initial sync that would overwrite most of a table waits for a person's word."""

from __future__ import annotations

import sqlite3
import sys
from contextlib import closing

import pytest

from dualwrite.engine.brakes import FEW

ROWS = FEW + 200


def filled(shop, differing: int) -> None:
    """Records on both sides, so many of which differ."""
    for file, table, names in (
        (shop.left, "customers", "account, status, name"),
        (shop.right, "accounts", "number, state, title"),
    ):
        numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
        state = "'open'" if file == shop.left else "0"
        row = f"'N' || i, {state}, CASE WHEN i <= ? THEN '{table}' ELSE 'same' END"
        shop.sql(file, f"INSERT INTO {table} ({names}) {numbers} SELECT {row} FROM n", ROWS, differing)


def test_an_initial_sync_that_changes_too_much_stops(shop):
    """The map needs attention, with the counts and the command; nothing was written; a word lets it through."""
    filled(shop, FEW + 1)
    before = shop.rights()
    ended = shop.call("run", "--until-idle")
    assert ended.code == 1
    (row,) = shop.call("status", "--json").json()["maps"]
    assert row["state"] == "needs attention"
    changed = FEW + 2  # and the one that differs anyway
    assert f"would change {changed} of {ROWS + 2} records of the right side" in row["reason"]
    assert f"dualwrite start 'customers' --allow-changes {changed}" in row["reason"]
    assert shop.rights() == before
    assert shop.call("start", "customers", "--allow-changes", str(changed)).code == 0
    assert shop.sync().code == 0
    assert shop.agree()
    events = {event["what"]: event for event in shop.call("log", "--json").json()}
    assert events["changes allowed"]["detail"] == {"changes": changed}


def test_what_was_allowed_is_allowed_once(shop):
    """And not for more than was said."""
    filled(shop, FEW + 1)
    assert shop.call("start", "customers", "--allow-changes", str(FEW + 1)).code == 0
    assert shop.call("run", "--until-idle").code == 1
    assert f"let {FEW + 1}" in shop.call("status", "--json").json()["maps"][0]["reason"]
    shop.call("start", "customers", "--allow-changes", str(FEW + 2))
    assert shop.sync().code == 0
    shop.call("stop", "--yes")
    shop.sql(shop.left, "UPDATE customers SET name = 'other'")
    shop.call("start", "customers")
    assert shop.call("run", "--until-idle").code == 1


@pytest.mark.parametrize(("limit", "differing"), [("50%", FEW - 1), ("100%", FEW + 1), (None, FEW - 1)])
def test_what_is_few_or_allowed_goes_through(shop, limit, differing):
    """Up to a thousand records whatever their share; more where the settings let them."""
    filled(shop, differing)
    if limit:
        settings = shop.folder / "dualwrite.yaml"
        settings.write_text(f"{settings.read_text()}limits: {{changes: {limit}}}\n")
    assert shop.sync().code == 0
    assert shop.agree()


def test_new_records_whose_columns_belong_to_the_other_side_are_told_and_counted(shop):
    """What they hold would be gone, as their owner has nothing there: the plan says so, and the brake asks first."""
    shop.map.write_text(shop.map.read_text().replace("credit  = creditlimit", "credit  < creditlimit"))
    numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
    new = "SELECT 'N' || i, 'new', 'open', CASE WHEN i > 2 THEN 7 END FROM n"
    shop.sql(shop.left, f"INSERT INTO customers (account, name, status, credit) {numbers} {new}", ROWS)
    (plan,) = shop.call("plan", "--json").json()["maps"]
    overwritten = ROWS - 2 + 1  # two have no credit; C2 is new at the right side as well
    assert plan["update"] == {"left": overwritten, "right": 1}
    rows = {tuple(row["key"]): row for row in plan["rows"] if row["side"] == "left" and row["action"] == "update"}
    assert rows["N3",]["columns"] == {"creditlimit": {"old": "7.00", "new": None}}
    assert "unless that side fills in something else" in rows["N3",]["reason"]
    assert ("N2",) not in rows
    assert shop.call("run", "--until-idle").code == 1
    (row,) = shop.call("status", "--json").json()["maps"]
    assert f"would change {overwritten} of {ROWS + 2} records of the left side" in row["reason"]
    assert shop.sql(shop.left, "SELECT count(*) FROM customers WHERE credit = 7") == [(ROWS - 2,)]
    assert shop.call("start", "customers", "--allow-changes", str(overwritten)).code == 0
    assert shop.sync().code == 0
    assert shop.sql(shop.left, "SELECT count(*) FROM customers WHERE credit = 7") == [(0,)]
    assert shop.agree()


def test_a_terminal_is_asked(shop, monkeypatch):
    """Beside a running engine, ``start`` asks, with the counts; yes lets it through."""
    asked = []
    with shop.engine():
        shop.call("stop", "--yes")
        filled(shop, FEW + 1)
        monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
        monkeypatch.setattr("typer.confirm", lambda question: not asked.append(question))
        assert shop.call("start", "customers").code == 0
        assert shop.state() == "running"
    (question,) = asked
    assert f"would change {FEW + 1} of {ROWS + 3}" in question
    assert shop.agree()


def test_doing_it_again_passes_the_same_brake(shop):
    """It is refused with the counts and the command, and the map goes on; a word lets it through."""
    assert shop.sync().code == 0
    rows = [f"N{number}" for number in range(ROWS)]
    shop.sql(shop.left, f"INSERT INTO customers (account, status, name) VALUES {', '.join('(?, ?, ?)' for _ in rows)}",
             *(cell for row in rows for cell in (row, "open", "same")))  # fmt: skip
    assert shop.sync().code == 0
    past_capture(shop, "UPDATE accounts SET title = 'other'")
    again = shop.call("syncs", "again", "customers")
    assert again.code == 2
    assert f"dualwrite syncs again 'customers' --allow-changes {ROWS + 3}" in " ".join(again.err.split())
    assert shop.state() == "running"
    assert shop.call("verify").code == 1
    assert shop.call("syncs", "again", "customers", "--allow-changes", str(ROWS + 3)).code == 0
    assert shop.agree()


def test_doing_it_again_counts_what_one_way_lines_overwrite(shop):
    """In records that both sides have, and in new ones."""
    shop.map.write_text(shop.map.read_text().replace("credit  = creditlimit", "credit  < creditlimit"))
    numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
    new = "SELECT 'N' || i, 'new', 'open' FROM n"
    shop.sql(shop.left, f"INSERT INTO customers (account, name, status) {numbers} {new}", ROWS)
    assert shop.call("start", "--allow-changes", "2").code == 0
    assert shop.sync().code == 0
    past_capture(shop, f"UPDATE accounts SET creditlimit = 5 WHERE number LIKE 'N%' AND number <> 'N{ROWS}'")
    past_capture(shop, f"DELETE FROM accounts WHERE number = 'N{ROWS}'")
    again = shop.call("syncs", "again", "customers")
    assert again.code == 2
    assert f"would change {ROWS - 1} of {ROWS + 3} records of the left side" in " ".join(again.err.split())
    assert shop.sql(shop.left, "SELECT count(*) FROM customers WHERE credit = 5") == [(0,)]
    assert shop.call("syncs", "again", "customers", "--allow-changes", str(ROWS)).code == 0
    assert shop.sql(shop.left, "SELECT count(*) FROM customers WHERE credit = 5") == [(ROWS - 1,)]
    assert shop.agree()


def test_a_flood_of_changes_pauses_the_map(shop):
    """What is behind the limit queues, with the counts and the commands, until a person says what becomes of it."""
    settings = shop.folder / "dualwrite.yaml"
    settings.write_text(f"{settings.read_text()}limits: {{updates: 90%}}\n")
    filled(shop, 0)
    assert shop.sync().code == 0
    shop.sql(shop.left, "UPDATE customers SET name = 'few' WHERE rowid <= ?", FEW)
    assert shop.sync().code == 0
    assert shop.state() == "running"
    shop.sql(shop.left, "UPDATE customers SET name = 'all'")
    shop.sync()
    (row,) = shop.call("status", "--json").json()["maps"]
    assert row["state"] == "paused"
    assert f"of {ROWS + 3} records were changed within a minute" in row["reason"]
    assert row["queued"] > 0
    shop.sql(shop.right, "UPDATE accounts SET creditlimit = 7 WHERE number = 'N5'")
    assert shop.call("resume", "customers").code == 0
    assert shop.sync().code == 0
    assert shop.state() == "running"
    assert shop.agree()
    assert {title for title, *_ in shop.rights().values()} == {"all"}
    assert [event["what"] for event in shop.call("log", "--json").json()].count("paused by itself") == 1


def past_capture(shop, statement: str) -> None:
    """What nobody is told of, as the restoring of some rows."""
    names = [name for (name,) in shop.sql(shop.right, "SELECT name FROM sqlite_master WHERE type = 'table'")]
    (table,) = [name for name in names if name.startswith("dualwrite_") and name.endswith("_mode")]
    with closing(sqlite3.connect(shop.right)) as database, database:  # in one transaction, so that nobody sees it
        database.execute(f"UPDATE {table} SET mode = 2")
        database.execute(statement)
        database.execute(f"UPDATE {table} SET mode = 0")
