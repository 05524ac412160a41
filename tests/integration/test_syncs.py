"""Initial syncs as an administrator sees them: progress, counts, what failed, and doing them again."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

NUMBERS = ("read", "inserted", "updated", "unchanged", "detached", "failed")


def counts(run):
    """What an initial sync did, per side and company, as tuples in the order of ``NUMBERS``."""
    return {(each["side"], each["company"]): tuple(each[name] for name in NUMBERS) for each in run["counts"]}


def last(shop, *words):
    """The last initial sync."""
    return shop.call("syncs", "list", "--json", *words).json()[0]


def fill(shop, number, prefix="N", name="somebody"):
    """Give the left side more customers."""
    with closing(sqlite3.connect(shop.left)) as database, database:
        rows = ((f"{prefix}{each}", name, each, "open") for each in range(number))
        database.executemany("INSERT INTO customers VALUES (?, ?, ?, ?)", rows)


def test_what_an_initial_sync_did_is_kept(shop):
    """Per side: read, inserted, updated, unchanged and failed, and each failed row is parked with its reason."""
    fill(shop, 7, "long", "a name of more than twenty letters")
    fill(shop, 3)
    shop.sql(shop.right, "INSERT INTO accounts (number, title, creditlimit) VALUES ('C2', 'Fabrikam', 500)")
    assert shop.sync().code == 1
    run = last(shop)
    assert {name: run[name] for name in ("map", "why", "master", "outcome", "companies", "resumed")} == {
        "map": "customers",
        "why": "start",
        "master": "left",
        "outcome": "done",
        "companies": None,
        "resumed": 0,
    }
    assert counts(run) == {("left", ""): (12, 1, 0, 1, 0, 0), ("right", ""): (3, 3, 1, 1, 0, 7)}
    parked = shop.call("parked", "list", "--json").json()
    assert len(parked) == 7
    assert {entry["code"] for entry in parked} == {"too_long"}
    assert shop.call("status", "--json").json()["maps"][0]["state"] == "running"
    shown = shop.call("syncs", "show", str(run["id"]))
    assert shown.code == 0
    assert "what failed, and why: dualwrite parked list --map 'customers'" in shown.out
    assert shop.call("syncs", "show", str(run["id"]), "--json").json() == run
    assert "customers" in shop.call("syncs", "list", "--map", "Customers").out


def test_an_unknown_initial_sync_is_told(shop):
    """Its number is not there."""
    found = shop.call("syncs", "show", "7")
    assert found.code == 2
    assert "there is no initial sync 7" in found.err


def test_how_far_an_initial_sync_is_can_be_seen_from_elsewhere(shop):
    """``status`` in another process tells step, numbers and rate, and who waits for it; what is cut short says so."""
    fill(shop, 40_000)
    (shop.folder / "maps" / "other.yaml").write_text(
        "map: zz other\nleft: things\nright: others\nkey: [number]\ncolumns:\n  - account = number\n"
    )
    shop.sql(shop.left, "CREATE TABLE things (account TEXT PRIMARY KEY NOT NULL)")
    shop.sql(shop.right, "CREATE TABLE others (number TEXT PRIMARY KEY NOT NULL)")
    seen = []

    def is_writing():
        seen.append(shop.call("status", "--json").json()["maps"])
        sync = seen[-1][0]["sync"]
        return sync and sync["step"] == "right" and sync["done"] > 0

    engine = shop.start("run")
    shop.until(is_writing)
    assert shop.end(engine).code == 0
    first, second = seen[-1]
    assert first["state"] == "initializing"
    assert 0 < first["sync"]["done"] <= first["sync"]["total"] == 40_002
    assert first["reason"].startswith("writing right: ")
    assert second["reason"] == "waits for the initial sync of customers"
    assert shop.call("status", "--json").json()["maps"][0]["sync"] is None  # nobody is at it
    assert last(shop)["outcome"] == "interrupted"
    assert shop.sync().code == 0
    assert last(shop, "--map", "customers")["outcome"] == "done"


@pytest.mark.parametrize("aside", [(), ("--leave-parked",)])
def test_an_initial_sync_is_done_again_beside_a_running_engine(shop, aside):
    """What failed is tried again, or left aside, and doubles nowhere; the map goes on running."""
    fill(shop, 3, "long", "a name of more than twenty letters")
    assert shop.sync().code == 1
    with shop.engine():
        again = shop.call("syncs", "again", "customers", *aside, "--json")
        assert again.code == 1
        (run,) = again.json()
        assert (run["why"], run["outcome"]) == ("again", "done")
        assert counts(run)["right", ""] == (3, 0, 0, 3, 0, 3)
        assert [entry["changes"] for entry in shop.call("parked", "list", "--json").json()] == [1, 1, 1]
        shop.sql(shop.left, "UPDATE customers SET name = 'short' WHERE account LIKE 'long%'")
        shop.until(lambda: shop.call("syncs", "again", "customers", *aside).code == 0)
        assert shop.state() == "running"
    assert shop.agree()
    assert shop.rights()["long1"] == ["short", 1, 0]


def test_only_a_map_that_runs_is_synced_again(shop):
    """Another one is to be started."""
    refused = shop.call("syncs", "again", "customers")
    assert refused.code == 2
    assert "map customers is not running" in refused.err
