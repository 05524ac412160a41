"""Files of a project that nobody would write on purpose: each is told with file, line and remedy, quickly."""

from __future__ import annotations

import os

import pytest

MAP = "map: m\nleft: customers\nright: accounts\ncolumns:\n"


def problems(shop) -> list[dict]:
    """The errors of ``check``."""
    found = shop.call("check", "--json")
    assert found.code == 1
    return [each for each in found.json()["problems"] if each["level"] == "error"]


@pytest.mark.parametrize("name", ["maps/customers.yaml", "dualwrite.yaml", "schema/left.yaml"])
@pytest.mark.parametrize(
    ("content", "line", "told"),
    [
        ("map: caf\xe9\n".encode("latin-1"), 1, "save it as UTF-8"),
        (b"map: m\nleft: \xff\xfe\n", 2, "save it as UTF-8"),
        ("map: m\n".encode("utf-16"), 1, "save it as UTF-8"),
        (b"map: m\0\n", 0, "not YAML"),
        (b"map: m\n\tleft: x\n", 2, "not YAML"),
        (b"link: {a: 1\n", 2, "not YAML"),
        (b"a: 1\na: 2\n", 2, "stands here twice"),
        (b"a: &x 1\nb: *x\n", 1, "YAML anchor"),
        (b"- a\n- b\n", 1, ""),
        (b"x: " + b"[" * 200_000, 1, "brackets"),
        (b"x: 1\n" * 400_000, 0, "divide it"),
        (b"a" * 2_000_000, 0, "divide it"),
    ],
    ids=["latin-1", "bytes", "utf-16", "nul", "tab", "bracket", "twice", "anchor", "list", "deep", "long", "word"],
)
def test_what_is_no_such_file_is_told(shop, name, content, line, told):
    """Wrong encodings, no YAML, YAML of the wrong kind, and files that are far too large."""
    (shop.folder / "schema").mkdir()
    (shop.folder / name).write_bytes(content)
    found = [each for each in problems(shop) if each["file"].endswith(name)]
    assert found
    assert any(each["line"] == line and told in each["message"] + each["remedy"] for each in found)
    assert all(each["remedy"] for each in found if each["code"] != "unknown_key")


def test_a_file_full_of_mistakes_is_told_in_part(shop):
    """Of thousands of problems the first ones are told, and that there are more."""
    shop.map.write_text(MAP + "  - wrong\n" * 3_000)
    found = [each["code"] for each in problems(shop)]
    assert found.count("bad_line") == 200
    assert found.count("and_more") == 1


@pytest.mark.parametrize("kind", ["folder", "pipe", "loop"])
@pytest.mark.parametrize("name", ["maps/other.yaml", "schema/left.yaml"])
def test_what_is_no_file_at_all_is_told(shop, name, kind):
    """A folder, a pipe that nobody writes to, a link that leads to itself: nothing waits for them."""
    place = shop.folder / name
    place.parent.mkdir(exist_ok=True)
    {"folder": place.mkdir, "pipe": lambda: os.mkfifo(place), "loop": lambda: place.symlink_to(place)}[kind]()
    (found,) = problems(shop)
    assert (found["code"], bool(found["remedy"])) == ("unreadable", True)
    assert found["file"].endswith(name)


@pytest.mark.parametrize(
    ("lines", "line", "told"),
    [
        (["account = number", "account.code = title"], 6, "the column 'account' of customers is no lookup"),
        (["account = number", "name = title.code"], 6, "the column 'title' of accounts is no lookup"),
        (["account = number", "name = owner.code"], 6, "accounts has no lookup 'owner'"),
        (["account = number", "account = number"], 6, "in line 5 already"),
        (["account = number", "name >< title"], 6, "write =, or add values:"),
        (["account = number", "name <> title"], 6, "did you mean ><?"),
        (["account = number", "name = title: {truncat: true}"], 6, "did you mean 'truncate'?"),
        (["account = number", "name = title: {conflict: newset}"], 6, "did you mean 'newest'?"),
        (["account = number", "none = title"], 6, "a constant is written with >> and a default"),
        (["account = number", "none >> none: {default: 1}"], 6, "name the column that receives the constant"),
        (["account = number", "name > title", "name < title"], 0, ""),
    ],
)
def test_contradictions_in_a_map_are_told(shop, lines, line, told):
    """Lookups to nowhere, lines that stand twice, unknown symbols and options: each in its line, with what to write."""
    shop.map.write_text(MAP + "".join(f"  - {each}\n" for each in lines))
    found = shop.call("check", "--json").json()["problems"]
    if told:
        texts = [f"{each['message']} {each['remedy']}" for each in found if each["line"] == line]
        assert any(told in text for text in texts), texts
    assert all(each["remedy"] for each in found)
