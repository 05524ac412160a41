"""``dualwrite explain`` finds each reason for which a record is not in step, and says what to do next."""

from __future__ import annotations

import pytest

from .conftest import LEFT, MAP, RIGHT

WITH_FILTER = """filter:
  left: "status eq 'open' and credit gt 10"
"""


def told(shop, *key: str) -> dict:
    """What is said of a record; people are told the same."""
    found = shop.call("explain", "customers", *(key or ("C1",)), "--json").json()
    said = " ".join(shop.call("explain", "customers", *(key or ("C1",))).out.split())
    assert " ".join(found["verdict"].split()) in said
    assert all(reason["code"] in said for reason in found["reasons"])
    return found


def codes(found: dict) -> list[str]:
    """The reasons."""
    return [reason["code"] for reason in found["reasons"]]


@pytest.fixture
def running(shop):
    """A shop that is in step."""
    shop.sync()
    return shop


def test_a_record_in_step(running):
    """Both rows stand side by side, each line with its direction; nothing is to be done."""
    answer = running.call("explain", "customers", "C1", "--json")
    assert answer.code == 0
    found = answer.json()
    assert (found["agrees"], found["records"], found["reasons"]) == (True, {"left": 1, "right": 1}, [])
    names = {column["paths"]["left"]: column for column in found["columns"]}
    assert names["name"]["values"] == {"left": "Contoso", "right": "Contoso"}
    assert names["status"]["values"] == {"left": "open", "right": "0"}
    assert not any(column["differs"] for column in found["columns"])
    assert "both sides agree" in running.call("explain", "customers", "C1").out


def test_a_map_that_does_not_run(shop):
    """Before the first run nothing is captured."""
    assert codes(told(shop)) == ["not_captured"]
    assert told(shop, "C2")["verdict"].startswith("only the left side has the record")


def test_a_parked_record(running):
    """Which column, the reason, since when, how much waits behind it, and what differs by now."""
    running.sql(running.left, "UPDATE customers SET name = 'a name of more than twenty letters' WHERE account = 'C1'")
    running.sync()
    found = told(running)
    (reason,) = found["reasons"]
    assert (reason["code"], reason["side"]) == ("too_long", "right")
    assert "column name" in reason["text"]
    assert "1 change(s) wait" in reason["text"]
    assert reason["since"]
    assert [column["paths"]["left"] for column in found["columns"] if column["differs"]] == ["name"]
    assert "truncate: true" in found["next"]


def test_a_filter(shop):
    """The part of the filter that fails, and the value that it fails on; company or filter are told apart."""
    shop.map.write_text(shop.map.read_text() + WITH_FILTER)
    shop.sync()
    shop.sql(shop.left, "INSERT INTO customers VALUES ('C9', 'small', 5, 'open')")
    shop.sync()
    (reason,) = told(shop, "C9")["reasons"]
    assert reason["code"] == "filtered"
    assert "credit is more than '10'; credit is '5.00'" in reason["text"]
    assert "status" not in reason["text"]


def test_a_paused_map(running):
    """It is paused, and the record's change waits in its queue."""
    running.call("pause", "customers")
    running.sql(running.left, "UPDATE customers SET name = 'new' WHERE account = 'C1'")
    running.sync()
    assert codes(told(running)) == ["paused", "queued"]


def test_an_open_conflict(shop):
    """A person has to decide; which column, and by which command."""
    shop.map.write_text(shop.map.read_text().replace("= title", "= title: {conflict: manual}"))
    shop.sync()
    shop.sql(shop.left, "UPDATE customers SET name = 'left' WHERE account = 'C1'")
    shop.sql(shop.right, "UPDATE accounts SET title = 'right' WHERE number = 'C1'")
    shop.sync()
    found = told(shop)
    assert set(codes(found)) == {"conflict"}
    assert any("dualwrite conflicts resolve" in reason["remedy"] for reason in found["reasons"])


def test_what_is_not_carried_yet(running):
    """No engine runs: the change waits for one."""
    running.sql(running.left, "UPDATE customers SET name = 'new' WHERE account = 'C1'")
    found = told(running)
    assert (codes(found), found["next"]) == (["no_engine"], "dualwrite run")


def test_beside_a_running_engine(running):
    """It works while an engine runs; a record that was written past the capture is told to be so."""
    with running.engine():
        assert running.call("explain", "customers", "C1").code == 0


def test_a_record_that_is_nowhere(running):
    """Neither side has it; the key needs as many members as the map's."""
    found = running.call("explain", "customers", "nobody", "--json")
    assert found.code == 1
    assert found.json()["records"] == {"left": 0, "right": 0}
    assert found.json()["verdict"] == "neither side has a record with account 'nobody': it was deleted, or never was"
    refused = running.call("explain", "customers", "a", "b")
    assert refused.code == 2
    assert "1 member(s), not 2" in refused.err


def test_before_the_map_was_started(shop):
    """Without initial sync, what was there before differs for good."""
    shop.call("start", "--no-initial-sync", "--yes")
    shop.sync()
    with shop.engine():
        assert codes(told(shop, "C2")) == ["not_captured"]


def test_several_reasons_at_once(pair, each_postgresql):
    """On PostgreSQL: the state, what is parked, what has queued, the filter: the first to be settled first."""
    left, right = LEFT, RIGHT.replace("INTEGER PRIMARY KEY", "integer GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY")
    with each_postgresql.database(left) as erp, each_postgresql.database(right) as crm:
        filtered = MAP + "filter:\n  left: \"status eq 'open'\"\n"
        running = pair({"left": erp.url, "right": crm.url}, {"customers": filtered})
        running.sync()
        erp.run("UPDATE customers SET name = 'a name of more than twenty letters' WHERE account = 'C1'")
        assert running.sync().code == 1
        running.call("pause", "customers")
        running.sync()
        erp.run("UPDATE customers SET credit = 1 WHERE account = 'C1'")
        erp.run("UPDATE customers SET status = 'held' WHERE account = 'C1'")
        running.sync()
        found = told(running)
        assert codes(found) == ["paused", "too_long", "queued", "filtered"]
        assert found["verdict"] == "both sides have the record, and they differ"
        assert found["next"] == "dualwrite resume customers"
        running.call("uninstall", "--yes")
