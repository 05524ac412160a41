"""The commands about maps, on a project of two SQLite files."""

from __future__ import annotations

import pytest


def test_maps_are_listed(shop):
    """``maps list`` shows what the files say, without either system."""
    shop.left.unlink()
    shop.right.unlink()
    (listed,) = shop.call("maps", "list", "--json").json()["maps"]
    assert (listed["map"], listed["left"], listed["right"]) == ("customers", "customers", "accounts")
    assert (listed["version"], listed["publisher"], listed["file"]) == ("1.0.0.0", "", "maps/customers.yaml")
    assert listed["columns"] > 0
    assert "maps/customers.yaml" in shop.call("maps", "list").out


def test_a_broken_file_is_told_beside_the_list(shop):
    """Maps that can be read are listed all the same; the others are told, with exit code 1."""
    (shop.folder / "maps/other.yaml").write_text("map: other\n")
    listed = shop.call("maps", "list", "--json")
    assert listed.code == 1
    assert [each["map"] for each in listed.json()["maps"]] == ["customers"]
    assert "maps/other.yaml:1" in listed.err


# ---------------------------------------------------------------------------------------------------- versions


def versions(shop) -> list[tuple]:
    """The versions of the map: number, publisher, is it in the file, does it run."""
    found = shop.call("maps", "versions", "customers", "--json").json()["versions"]
    return [(each["version"], each["publisher"], each["in_file"], each["runs"]) for each in found]


def edit(shop, old: str, new: str) -> None:
    """Change the map's file."""
    text = shop.map.read_text()
    assert old in text
    shop.map.write_text(text.replace(old, new))


def test_a_map_has_a_version_once_it_has_run(shop):
    """Before that its file is told to be none yet."""
    before = shop.call("maps", "versions", "customers")
    assert "maps/customers.yaml holds what is no version yet; it becomes 1.0.0.0" in before.out
    assert not (shop.folder / ".dualwrite").exists()
    shop.sync()
    assert versions(shop) == [("1.0.0.0", "", True, True)]
    assert "in the file, runs" in shop.call("maps", "versions", "CUSTOMERS").out


def test_an_edit_without_a_new_number_gets_the_next_one(shop):
    """It is said, and the file has the number from then on; nothing else in it changes."""
    shop.sync()
    shop.map.write_text("# our map\npublisher: Contoso\n" + shop.map.read_text())
    shop.sync()
    edit(shop, "creditlimit", "creditlimit: {conflict: max}  # the larger one")
    text = shop.map.read_text()
    assert shop.call("maps", "versions", "customers", "--json").json()["becomes"] == "1.0.0.1"
    ran = shop.sync()
    assert "so it is 1.0.0.1; the file says so now" in ran.err
    assert versions(shop)[-1] == ("1.0.0.1", "Contoso", True, True)
    assert shop.map.read_text() == text.replace("map: customers\n", "map: customers\nversion: 1.0.0.1\n")
    assert shop.sync().err == ""
    assert len(versions(shop)) == 3


def test_two_texts_never_share_a_number(shop):
    """A text that is known under another number gets that one, as when a file comes back from version control."""
    first = shop.map.read_text()
    shop.sync()
    edited = first.replace("creditlimit", "creditlimit: {conflict: max}")
    for text in (edited, first, edited):
        shop.map.write_text(text)
        shop.sync()
    assert [version for version, *_ in versions(shop)] == ["1.0.0.0", "1.0.0.1"]
    assert "version: 1.0.0.1\n" in shop.map.read_text()


def test_a_file_that_cannot_be_written_is_told(shop):
    """The edit is kept under its new number all the same, and a person is asked to write it down."""
    shop.sync()
    edit(shop, "creditlimit", "creditlimit: {conflict: max}")
    shop.map.with_name(".customers.yaml.new").mkdir()  # where the new text would be written first
    before = shop.map.read_text()
    for _ in range(2):
        assert "so it is 1.0.0.1: write version: 1.0.0.1 into it" in shop.sync().err
    assert shop.map.read_text() == before
    assert versions(shop)[-1] == ("1.0.0.1", "", True, True)


def test_a_file_on_one_line_is_left_to_people(shop):
    """Where only its number cannot be changed, nothing of a file is; a switch brings it back word for word."""
    columns = "account = number, name = title, credit = creditlimit"
    shop.map.write_text(
        f"{{map: customers, version: 1.0.0.0, left: customers, right: accounts, columns: [{columns}]}}  # in short"
    )
    shop.sync()
    edit(shop, ", credit = creditlimit", "")
    before = shop.map.read_text()
    assert "write version: 1.0.0.1 into it" in shop.sync().err
    assert shop.map.read_text() == before
    shop.call("maps", "switch", "customers", "1.0.0.0")
    shop.call("maps", "switch", "customers", "1.0.0.1")
    assert shop.map.read_text() == before


def test_versions_are_compared_in_words(shop):
    """Two versions, or a version and the file; as sentences, and as fields."""
    shop.sync()
    edit(shop, "creditlimit", "creditlimit: {conflict: max}")
    told = shop.call("maps", "diff", "customers", "1.0.0.0")
    assert "credit – creditlimit: conflict is now max\n" in told.out
    assert "1 difference(s) between 1.0.0.0 and maps/customers.yaml" in told.out
    shop.sync()
    fields = shop.call("maps", "diff", "customers", "1.0.0.1", "1.0.0.0", "--json").json()
    assert (fields["a"], fields["b"]) == ("1.0.0.1", "1.0.0.0")
    (difference,) = fields["differences"]
    assert difference == {
        "what": "policy",
        "where": "credit – creditlimit: conflict",
        "was": "max",
        "now": None,
        "text": "credit – creditlimit: conflict is gone, was max",
    }
    assert "say the same" in shop.call("maps", "diff", "customers", "1.0.0.1", "file").out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("versions", "custmers"), "did you mean 'customers'?"),
        (("diff", "customers", "1.0.0.3"), "did you mean '1.0.0.0'?"),
        (("diff", "customers", "latest"), "there is no version 'latest'"),
        (("diff", "customers", "9" * 5000), "there is no version"),
        (("switch", "customers", "file"), "there is no version 'file'"),
    ],
)
def test_what_is_not_known_is_told(shop, arguments, told):
    """An unknown map or version is wrong usage, with the nearest one that there is."""
    shop.sync()
    refused = shop.call("maps", *arguments)
    assert refused.code == 2
    assert told in refused.err


def test_a_version_is_put_back(shop):
    """The file holds it, word for word; an edit that no engine has seen is kept as a version first."""
    first = "# ours\nversion: 1.0.0.0\n" + shop.map.read_text()
    shop.map.write_text(first)
    other = shop.map.with_name("other.yaml.txt")
    other.write_text("# not a map")
    shop.sync()
    edit(shop, "creditlimit", "creditlimit: {conflict: max}  # not saved")
    edited = shop.map.read_text()
    switched = shop.call("maps", "switch", "customers", "1.0.0.0")
    assert "held an edit of 1.0.0.0: it is kept as version 1.0.0.1" in switched.out
    assert "maps/customers.yaml holds version 1.0.0.0 now" in switched.out
    assert shop.map.read_text() == first
    assert "holds version 1.0.0.1 now" in shop.call("maps", "switch", "customers", "1.0.0.1").out
    assert shop.map.read_text() == edited.replace("version: 1.0.0.0", "version: 1.0.0.1")
    assert {each.name for each in shop.map.parent.iterdir()} == {"customers.yaml", "other.yaml.txt"}
    assert [event["what"] for event in shop.call("log", "--json").json()][:2] == ["version switched"] * 2


def test_several_publishers_have_versions_of_their_own(shop):
    """A number that two publishers have means the file's publisher; another one is named."""
    shop.sync()
    shop.map.write_text(
        "publisher: Contoso\n" + shop.map.read_text().replace("creditlimit", "creditlimit: {conflict: max}")
    )
    shop.sync()
    assert [(version, publisher) for version, publisher, *_ in versions(shop)] == [
        ("1.0.0.0", ""),
        ("1.0.0.0", "Contoso"),
    ]
    assert "1.0.0.0@Contoso" in shop.call("maps", "switch", "customers", "1.0.0.0").out
    assert shop.call("maps", "diff", "customers", "1.0.0.0@", "1.0.0.0@Contoso").code == 0
    assert shop.call("maps", "switch", "customers", "1.0.0.0@").code == 0
    assert "publisher" not in shop.map.read_text()
    shop.map.unlink()
    refused = shop.call("maps", "switch", "customers", "1.0.0.0")
    assert "of several publishers" in refused.err
    assert shop.call("maps", "switch", "customers", "1.0.0.0@Contoso").code == 0
    assert "publisher: Contoso" in shop.map.read_text()


def test_nothing_is_switched_beside_a_broken_file(shop):
    """The broken file may be the very map: it is told, and left as it is."""
    shop.sync()
    shop.map.write_text("map: customers\n\tleft: x\n")
    refused = shop.call("maps", "switch", "customers", "1.0.0.0")
    assert refused.code == 1
    assert "maps/customers.yaml:2" in refused.err
    assert shop.map.read_text() == "map: customers\n\tleft: x\n"


def test_a_running_map_keeps_its_version(shop):
    """What its file says meanwhile is told by ``status``, and counts once the map is started again."""
    with shop.engine():
        edit(shop, "creditlimit", "creditlimit: {conflict: max}")
        (row,) = shop.call("status", "--json").json()["maps"]
        assert (row["version"], row["publisher"], row["edited"]) == ("1.0.0.0", "", True)
        assert (
            "customers runs as 1.0.0.0: what its file says now counts from its next start on" in shop.call("status").out
        )
        assert shop.call("stop", "--yes").code == 0
        started = shop.call("start", "customers")
        assert "so it is 1.0.0.1; the file says so now" in started.err
        (row,) = shop.call("status", "--json").json()["maps"]
        assert (row["version"], row["edited"]) == ("1.0.0.1", False)
    assert versions(shop)[-1] == ("1.0.0.1", "", True, True)
