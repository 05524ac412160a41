"""The activity log tells who did what, and when: on the screen, as JSON and as CSV."""

from __future__ import annotations

import csv
import getpass
import io
from datetime import UTC, datetime

import pytest

from dualwrite.cli.history import moment
from dualwrite.errors import Usage
from dualwrite.journal import KINDS

NARROW = "  - status >< state: {values: {open: 0, held: 1}}\n"


def whats(answer):
    """What happened, oldest first."""
    return [entry["what"] for entry in reversed(answer.json())]


def test_the_administrators_story(shop):
    """Stop a running map, add a column mapping, start it without initial sync: the log tells all of it, who did it,
    and what the map says differently."""
    file = shop.folder / "maps" / "customers.yaml"
    whole = file.read_text()
    file.write_text(whole.replace(NARROW, ""))
    with shop.engine():
        assert shop.call("stop", "customers", "--yes").code == 0
        file.write_text(whole)
        assert shop.call("start", "customers", "--no-initial-sync").code == 0
        shop.sql(shop.left, "UPDATE customers SET status = 'held' WHERE account = 'C2'")
        shop.until(lambda: shop.rights()["C2"][-1] == 1)
    entries = list(reversed(shop.call("log", "--json").json()))
    told = [entry["what"] for entry in entries]
    wanted = ["initial sync done; running", "stop wanted", "stopped", "start wanted", "mapping changed"]
    places = [told.index(what) for what in wanted]
    assert places == sorted(places)
    assert told.index("started without initial sync") > places[3]
    assert {e["who"] for e in entries if e["what"] in ("stop wanted", "start wanted")} == {getpass.getuser()}
    (changed,) = shop.call("log", "--json", "--kind", "mapping").json()
    assert changed["who"] == getpass.getuser()
    assert changed["detail"]["was"] != changed["detail"]["version"]
    (difference,) = changed["detail"]["differences"]
    assert "status – state: added" in difference
    assert difference in " ".join(shop.call("log").out.split())


def test_the_log_reads_well_on_a_narrow_screen(shop, monkeypatch):
    """At 80 columns no line is wider, and words are not cut."""
    monkeypatch.setattr("dualwrite.printing.terminal.console.width", 80)
    shop.sync()
    shown = shop.call("log").out
    assert max(map(len, shown.splitlines())) <= 80
    assert "customers  initial sync done; running\n    " in shown
    assert "created: left 1, right 1" in shown


def test_the_log_can_be_narrowed_and_exported(shop):
    """By map, time, person and kind; as CSV with the same entries as JSON, all of them."""
    shop.sync()
    shop.call("stop", "--yes")
    everything = shop.call("log", "--json").json()
    rows = list(csv.DictReader(io.StringIO(shop.call("log", "--csv").out)))
    assert [row["what"] for row in rows] == [entry["what"] for entry in everything]
    assert [int(row["id"]) for row in rows] == [entry["id"] for entry in everything]
    assert whats(shop.call("log", "--json", "--who", getpass.getuser())) == ["stop wanted"]
    assert all("sync" in what for what in whats(shop.call("log", "--json", "--kind", "sync")))
    assert whats(shop.call("log", "--json", "--since", "2999-01-01")) == []
    assert shop.call("log", "--json", "--since", "1h").json() == everything
    assert len(shop.call("log", "--json", "--limit", "1").json()) == 1
    assert "there is no kind 'sink'" in shop.call("log", "--kind", "sink").err
    assert shop.call("log", "--since", "soon").code == 2


def test_the_log_can_be_read_whatever_the_files_say(shop):
    """Neither an error in the settings nor a database that is away keeps anybody from reading what has happened."""
    shop.sync()
    told = shop.call("log").out
    assert "customers" in told
    shop.left.rename(shop.left.with_suffix(".away"))
    assert shop.call("log").out == told
    settings = shop.folder / "dualwrite.yaml"
    settings.write_text(settings.read_text() + "lnik: shop\n")
    assert shop.call("check").code != 0
    assert shop.call("log", "--map", "CUSTOMERS").out == told
    assert "no map is called" in shop.call("log", "--map", "orders").err
    settings.unlink()
    assert shop.call("log").code == 2


def test_who_can_be_told(shop, monkeypatch):
    """Where one account serves several people, a variable of the environment says who it is."""
    shop.sync()
    monkeypatch.setenv("DUALWRITE_USER", "ann")
    shop.call("stop", "--yes")
    assert whats(shop.call("log", "--json", "--who", "ann")) == ["stop wanted"]


def test_times_as_people_write_them():
    """Spans count back from now; dates and times are UTC unless they say otherwise."""
    now = datetime(2026, 11, 28, 12, tzinfo=UTC)
    assert moment("12h", now) == datetime(2026, 11, 28, tzinfo=UTC).timestamp()
    assert moment("7d", now) == datetime(2026, 11, 21, 12, tzinfo=UTC).timestamp()
    assert moment("2026-11-28T14:30") == datetime(2026, 11, 28, 14, 30, tzinfo=UTC).timestamp()
    assert moment("2026-11-28T14:30+02:00") == datetime(2026, 11, 28, 12, 30, tzinfo=UTC).timestamp()
    for text in ("yesterday", "999999w"):
        with pytest.raises(Usage, match="no time"):
            moment(text)


def test_every_kind_is_told_by_something(shop):
    """The kinds that can be asked for are those that entries have."""
    shop.sync()
    assert {entry["kind"] for entry in shop.call("log", "--json").json()} <= set(KINDS)
