"""Pausing and resuming by command, with an engine in another process and without one."""

from __future__ import annotations


def whats(shop) -> list[str]:
    """What the activity log says, oldest first."""
    return [each["what"] for each in reversed(shop.call("log", "--json").json())]


def change(shop, file, number: int) -> None:
    """Somebody edits the first record of a side."""
    if file == shop.left:
        shop.sql(file, "UPDATE customers SET credit = ? WHERE account = 'C1'", number)
    else:
        shop.sql(file, "UPDATE accounts SET creditlimit = ? WHERE number = 'C2'", number)


def test_a_map_is_paused_and_resumed_while_an_engine_runs(shop):
    """Both commands reach the running engine; what happens in between is queued, shown, and carried afterwards."""
    with shop.engine():
        assert shop.call("pause", "customers").code == 0
        assert shop.state() == "paused"
        change(shop, shop.left, 71)
        change(shop, shop.right, 72)
        shop.until(lambda: shop.call("status", "--json").json()["maps"][0]["queued"] == 2)
        (found,) = shop.call("status", "--json").json()["maps"]
        assert found["queued_bytes"] > 0
        assert found["pending"] == ""
        refused = shop.call("pause", "customers")
        assert refused.code == 2
        assert "customers is paused (stop or resume is possible)" in refused.err
        forced = shop.call("stop", "--force", "--yes")
        assert forced.code == 2
        assert "the engine is at work" in forced.err
        assert shop.call("resume").code == 0
        shop.until(lambda: shop.state() == "running")
        assert shop.call("status", "--json").json()["maps"][0]["queued"] == 0
        assert shop.agree()
    assert shop.rights()["C1"][1] == 71
    assert shop.lefts()["C2"][1] == 72
    told = whats(shop)
    assert told[told.index("pause wanted") :] == [
        "pause wanted",
        "paused",
        "resume wanted",
        "catching up",
        "caught up; running",
    ]


def test_a_wish_is_kept_for_the_next_engine(shop):
    """Without an engine, status says what the command waits for; nothing is carried before the map is paused."""
    shop.sync()
    paused = shop.call("pause")
    assert paused.code == 0
    assert "running → paused" in paused.out
    change(shop, shop.left, 71)
    (found,) = shop.call("status", "--json").json()["maps"]
    assert (found["pending"], found["state"]) == ("pause", "running")
    assert "dualwrite run" in found["waits_for"]
    shop.sync()
    assert shop.state() == "paused"
    assert shop.rights()["C1"][1] != 71
    shop.call("resume")
    shop.sync()
    assert shop.state() == "running"
    assert shop.rights()["C1"][1] == 71


def test_a_queue_is_set_aside_or_dropped_only_as_told(shop):
    """``--skip`` asks before it drops; what was set aside waits for a retry."""
    shop.sync()
    shop.call("pause")
    change(shop, shop.left, 71)
    shop.sync()
    refused = shop.call("resume", "--skip", "discard")
    assert refused.code == 2
    assert "Drop 1 queued change(s)" in refused.err
    assert shop.call("resume", "--skip", "preserve").code == 0
    shop.sync()
    (entry,) = shop.call("parked", "list", "--json").json()
    assert entry["code"] == "set_aside"
    assert shop.call("parked", "retry", "--code", "set_aside").code == 0
    assert shop.rights()["C1"][1] == 71
    shop.call("pause")
    change(shop, shop.left, 72)
    shop.sync()
    assert shop.call("resume", "--skip", "discard", "--yes").code == 0
    shop.sync()
    assert shop.rights()["C1"][1] == 71
    assert "caught up; running" in whats(shop)[-1]
    assert shop.call("log", "--json").json()[0]["detail"] == {"discarded": {"left": 1}}


def test_a_stop_drops_what_is_queued(shop):
    """It says how much, and the next start compares both sides."""
    shop.sync()
    shop.call("pause")
    change(shop, shop.left, 71)
    shop.sync()
    asked = shop.call("stop")
    assert asked.code == 2
    assert "1 queued change(s)" in asked.err
    assert shop.call("stop", "--yes").code == 0
    assert shop.state() == "stopped"
    assert shop.call("status", "--json").json()["maps"][0]["queued"] == 0
    assert not [name for name in shop.traces(shop.left) if "customers" in name]
    shop.call("start")
    shop.sync()
    assert shop.rights()["C1"][1] == 71
