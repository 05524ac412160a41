"""A project moves to another pair of systems by copying its folder."""

from __future__ import annotations

import shutil

import pytest

from .conftest import LEFT, RIGHT, SETTINGS


@pytest.fixture
def moved(shop, monkeypatch):
    """A project that has run, and its copy beside two other databases; which pair is meant, the environment says."""
    settings = SETTINGS.replace("sqlite:///erp.db", "${ERP}").replace("sqlite:///crm.db", "${CRM}")
    (shop.folder / "dualwrite.yaml").write_text(settings)
    other = shop.folder.parent / f"{shop.folder.name}-production"

    def go_to(place):
        monkeypatch.setenv("ERP", f"sqlite:///{place}/erp.db")
        monkeypatch.setenv("CRM", f"sqlite:///{place}/crm.db")

    go_to(shop.folder)
    shop.sync()
    other.mkdir()
    for name in ("dualwrite.yaml", "maps"):
        (shutil.copytree if name == "maps" else shutil.copy)(shop.folder / name, other / name)
    for file, script in ((other / "erp.db", LEFT), (other / "crm.db", RIGHT)):
        shop.make(file, script)
    go_to(other)
    yield other
    shutil.rmtree(other)


def test_a_copied_folder_is_the_same_link_elsewhere(shop, moved):
    """``check`` finds everything there, and the maps run under the versions that their files name."""
    assert shop.call("check", "-C", str(moved)).code == 0
    assert shop.call("run", "--until-idle", "-C", str(moved)).code == 0
    assert shop.call("verify", "-C", str(moved)).code == 0
    (version,) = shop.call("maps", "versions", "customers", "-C", str(moved), "--json").json()["versions"]
    assert (version["version"], version["in_file"], version["runs"]) == ("1.0.0.0", True, True)


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("ALTER TABLE accounts RENAME COLUMN creditlimit TO credit_limit", "did you mean 'credit_limit'?"),
        ("ALTER TABLE accounts RENAME TO account", "did you mean 'account'?"),
        ("ALTER TABLE accounts RENAME COLUMN number TO no", "accounts has no column 'number'"),
    ],
)
def test_what_is_missing_elsewhere_is_told_exactly(shop, moved, statement, told):
    """A table or column that the other system does not have is named, with file, line, and the nearest one there."""
    shop.sql(moved / "crm.db", statement)
    found = shop.call("check", "-C", str(moved))
    assert found.code == 1
    assert "maps/customers.yaml:" in found.out
    assert told in found.out


def test_a_key_that_is_missing_elsewhere_is_told(shop, moved):
    """Where the other system has no unique index behind the key, ``check`` warns before anything runs."""
    (moved / "crm.db").unlink()
    shop.make(moved / "crm.db", RIGHT.replace("number TEXT NOT NULL UNIQUE", "number TEXT NOT NULL"))
    problems = shop.call("check", "-C", str(moved), "--json").json()["problems"]
    assert [each["side"] for each in problems if each["code"] == "no_unique_index"] == ["right"]


@pytest.mark.parametrize("are_running", [True, False])
def test_a_copied_journal_is_refused(shop, moved, are_running):
    """It belongs to the other pair: nothing runs with it, nothing is written, and what to do is said; done, it runs."""
    if not are_running:
        shop.call("stop", "--yes")
    shutil.copytree(shop.folder / ".dualwrite", moved / ".dualwrite")
    before = [(moved / name).read_bytes() for name in ("erp.db", "crm.db")]
    for command in (["check"], ["status"], ["run", "--until-idle"]):
        refused = shop.call(*command, "-C", str(moved))
        assert refused.code == 1
        assert "but the link was made with" in refused.out + refused.err
        assert "remove .dualwrite" in refused.out + refused.err
    assert [(moved / name).read_bytes() for name in ("erp.db", "crm.db")] == before
    shutil.rmtree(moved / ".dualwrite")
    assert shop.call("run", "--until-idle", "-C", str(moved)).code == 0
