"""Copies are refused until they are re-pointed, and a link is taken back without a trace, after an export."""

from __future__ import annotations

import json
import shutil
import sqlite3

import pytest

from dualwrite.engine import reset as resetting

from .conftest import MAP, SETTINGS


def copied(shop, name="copy"):
    """A copy of the whole folder beside it: project, journal and databases."""
    place = shop.folder.parent / f"{shop.folder.name}-{name}"
    shutil.copytree(shop.folder, place)
    return place


def run_script(file, told):
    """Do by hand what was printed, and removes a link from a database."""
    script = told[told.index("run this there:") :].splitlines()
    with sqlite3.connect(file) as database:
        select = next(line for line in script if line.startswith("SELECT"))
        for (drop,) in database.execute(select).fetchall():
            database.execute(drop)
        for drop in (line for line in script if line.startswith("DROP TABLE")):
            database.execute(drop)


def test_a_copy_of_everything_is_refused_until_both_sides_are_its_own(shop):
    """Neither the folder nor a database file is taken for the original; relinked, it goes on without initial sync."""
    shop.sync()
    place = copied(shop)
    here = ("-C", str(place))
    for command in (["check"], ["status"], ["run", "--until-idle"]):
        refused = shop.call(*command, *here)
        assert refused.code == 1
        assert "relink" in refused.out + refused.err
    codes = {each["code"] for each in shop.call("status", "--json", *here).json()["problems"]}
    assert codes == {"other_home", "other_system"}
    left = shop.call("relink", "left", "--yes", *here)
    assert left.code == 0
    assert "it is a copy of the system that the link was made with" in left.out
    assert "the right side is still that of the original folder" in left.out
    assert "run this there" not in left.out  # the original goes on
    assert shop.call("run", "--until-idle", *here).code == 1
    right = shop.call("relink", "right", "--yes", *here)
    assert "both sides hold the same: dualwrite start --no-initial-sync" in right.out
    assert shop.call("start", "--no-initial-sync", *here).code == 0
    assert shop.call("run", "--until-idle", *here).code == 0
    shop.sql(place / "erp.db", "UPDATE customers SET credit = 77 WHERE account = 'C1'")
    assert shop.call("run", "--until-idle", *here).code == 0
    assert shop.call("verify", *here).code == 0
    assert shop.sql(place / "crm.db", "SELECT creditlimit FROM accounts WHERE number = 'C1'") == [(77,)]
    told = [each["what"] for each in shop.call("log", "--json", *here).json()]
    assert told.count("relinked") == 2
    assert "initial sync done; running" in told  # the journal was kept
    shop.sql(shop.left, "UPDATE customers SET credit = 5 WHERE account = 'C1'")
    assert shop.sync().code == 0
    assert shop.rights()["C1"][1] == 5
    shutil.rmtree(place)


def test_a_copy_that_shares_a_side_with_the_original_never_runs(shop):
    """A test copy of the project with one database of its own would write into production: it says so, and stops."""
    settings = SETTINGS.replace("sqlite:///crm.db", f"sqlite:///{shop.right}")
    (shop.folder / "dualwrite.yaml").write_text(settings)
    shop.sync()
    place = copied(shop)
    here = ("-C", str(place))
    before = shop.rights()
    assert shop.call("relink", "left", "--yes", *here).code == 0
    shop.sql(place / "erp.db", "UPDATE customers SET credit = 99 WHERE account = 'C1'")
    refused = shop.call("run", "--until-idle", *here)
    assert refused.code == 1
    assert "it was copied or moved" in refused.err
    same = shop.call("relink", "right", "--yes", *here)
    assert same.code == 2
    assert "nothing has to be relinked" in same.err
    for command in ("reset", "uninstall"):
        refused = shop.call(command, "--yes", *here)
        assert refused.code == 1
        assert "it was copied or moved" in refused.err
    assert shop.rights() == before
    assert shop.sync().code == 0
    shutil.rmtree(place)


def test_a_moved_folder_goes_on_where_it_stood(shop):
    """Moved with its files, it is refused until somebody says so; then nothing is compared anew."""
    shop.sync()
    place = shop.folder.parent / f"{shop.folder.name}-moved"
    shutil.move(shop.folder, place)
    shop.folder.mkdir()
    here = ("-C", str(place))
    assert shop.call("run", "--until-idle", *here).code == 1
    moved = shop.call("relink", "--moved", "--yes", *here)
    assert moved.code == 0
    assert f"{place}" in moved.out
    shop.sql(place / "erp.db", "UPDATE customers SET credit = 8 WHERE account = 'C1'")
    assert shop.call("run", "--until-idle", *here).code == 0
    assert shop.sql(place / "crm.db", "SELECT creditlimit FROM accounts WHERE number = 'C1'") == [(8,)]
    assert shop.call("relink", "--moved", "--yes", *here).out == "nothing has moved\n"
    told = [each["what"] for each in shop.call("log", "--json", *here).json()]
    assert told.count("initial sync started") == 1
    shutil.rmtree(place)


def test_a_side_is_pointed_to_another_system(shop):
    """What differs is told before; the URL gets into the file, comments stay, and the maps wait for a start."""
    settings = f"# ours\n{SETTINGS}"
    (shop.folder / "dualwrite.yaml").write_text(settings)
    shop.sync()
    other = shop.folder / "other.db"
    schema = shop.sql(shop.right, "SELECT sql FROM sqlite_master WHERE name = 'accounts'")[0][0]
    shop.make(other, f"{schema}; INSERT INTO accounts (number, title) VALUES ('C9', 'Else');")
    told = shop.call("relink", "right", "sqlite:///other.db")
    assert told.code == 2  # it asks
    assert "it is another system, and new to this link" in told.out
    assert (shop.folder / "dualwrite.yaml").read_text() == settings
    relinked = shop.call("relink", "right", "sqlite:///other.db", "--yes")
    assert relinked.code == 0
    assert (shop.folder / "dualwrite.yaml").read_text() == settings.replace("crm.db", "other.db")
    assert shop.state() == "stopped"
    assert shop.call("start", "--master", "left").code == 0
    assert shop.sync().code == 0
    assert shop.agree()
    assert {row[0] for row in shop.sql(other, "SELECT number FROM accounts")} == {"C1", "C2", "C3", "C9"}
    assert shop.traces(shop.right)
    run_script(shop.right, relinked.out)
    assert shop.traces(shop.right) == []


def test_a_linked_system_is_not_taken_over(shop, tmp_path):
    """A system that a link of this name is installed in may be production."""
    shop.sync()
    place = tmp_path / "second"
    (place / "maps").mkdir(parents=True)
    (place / "maps" / "customers.yaml").write_text(MAP)
    for file in ("erp.db", "crm.db"):
        shutil.copy(shop.folder / file, place / file)
    (place / "dualwrite.yaml").write_text(SETTINGS)
    here = ("-C", str(place))
    assert shop.call("uninstall", "--yes", *here).code == 0
    assert shop.call("run", "--until-idle", *here).code == 0
    refused = shop.call("relink", "right", f"sqlite:///{shop.right}", "--yes", *here)
    assert refused.code == 2
    assert "this may be production" in refused.err
    assert shop.sync().code == 0


# ------------------------------------------------------------------------------------------------------------ reset


def exported(shop):
    """The folder of the last export."""
    return sorted(shop.folder.glob("reset-*"))[-1]


def lines(file):
    """The objects of a file of an export."""
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_reset_exports_everything_and_leaves_no_trace(shop):
    """What it removes is named, file by file and object by object; it asks; users' tables and files stay."""
    shop.sql(shop.left, "INSERT INTO customers VALUES ('C7', 'A name that is far too long there', 1, 'open')")
    shop.sync()
    shown = shop.call("reset")
    assert shown.code == 2
    for name in ("table dualwrite_shop_log", "trigger dualwrite_shop:customers:insert", "journal.db"):
        assert name in shown.out
    before = shop.lefts(), shop.rights(), (shop.folder / "dualwrite.yaml").read_text(), shop.map.read_text()
    assert shop.call("reset", "--yes").code == 0
    assert (shop.lefts(), shop.rights(), (shop.folder / "dualwrite.yaml").read_text(), shop.map.read_text()) == before
    assert shop.traces(shop.left) == shop.traces(shop.right) == []
    assert not (shop.folder / ".dualwrite").exists()
    place = exported(shop)
    assert (place / "project" / "maps" / "customers.yaml").read_text() == shop.map.read_text()
    assert (place / "versions" / "customers" / "1.0.0.0.yaml").exists()
    (parked,) = lines(place / "journal" / "parked.jsonl")
    assert (parked["shown_key"], parked["code"]) == ("C7", "too_long")
    assert "initial sync done; running" in {each["what"] for each in lines(place / "journal" / "event.jsonl")}
    assert {(e["what"], e["key"][0]) for e in lines(place / "journal" / "changes.jsonl")} >= {
        ("update", "C1"),
        ("parked", "C7"),
    }
    assert shop.call("reset", "--yes").out == "there is nothing to remove\n"
    assert shop.sync().code == 1  # C7 is still too long
    assert shop.rights().keys() == {"C1", "C2", "C3"}


class KilledError(BaseException):
    """Where the process ends."""


@pytest.mark.parametrize("step", ["export", "uninstall", "remove_journal"])
def test_reset_goes_on_where_it_was_killed(shop, monkeypatch, step):
    """Half way through, at any step: the same command finishes it."""
    shop.sync()
    real = getattr(resetting, step)

    def killed(*arguments):
        if step == "uninstall":
            with resetting.connected(arguments[0], next(iter(arguments[0].environments))) as connector:
                connector.uninstall()
        raise KilledError

    monkeypatch.setattr(resetting, step, killed)
    with pytest.raises(KilledError):
        shop.call("reset", "--yes")
    monkeypatch.setattr(resetting, step, real)
    assert shop.call("reset", "--yes").code == 0
    assert shop.traces(shop.left) == shop.traces(shop.right) == []
    assert not (shop.folder / ".dualwrite").exists()
    assert "initial sync done; running" in {e["what"] for e in lines(exported(shop) / "journal" / "event.jsonl")}


def test_reset_without_a_side_that_is_gone(shop):
    """It is refused until the side is named; then the rest goes, and the statements for that side are told."""
    shop.sync()
    away = shop.folder / "away.db"
    shop.right.rename(away)
    refused = shop.call("reset", "--yes")
    assert refused.code == 2
    assert "--forget right" in refused.err
    assert shop.traces(shop.left)
    done = shop.call("reset", "--yes", "--forget", "right")
    assert done.code == 0
    assert shop.traces(shop.left) == []
    run_script(away, done.out)
    assert shop.traces(away) == []


def test_reset_is_refused_beside_an_engine(shop):
    """And so is relinking."""
    with shop.engine():
        for words in (["reset"], ["relink", "left"], ["relink", "--moved"]):
            refused = shop.call(*words, "--yes")
            assert refused.code == 2
            assert "an engine runs this link" in refused.err
