"""The commands about maps, on a project of two SQLite files."""

from __future__ import annotations


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
