"""An initial sync that would overwrite most of a table waits for a person's word."""

from __future__ import annotations

import sys

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
