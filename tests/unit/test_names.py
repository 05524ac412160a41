"""Names as people write them."""

from __future__ import annotations

from dualwrite.names import guess, match, nearest


def test_match_is_exact_before_it_is_lenient():
    """The same name wins; another letter case is taken only when it is the only one."""
    assert match("Name", ["name", "Name", "NAME"]) == "Name"
    assert match("nAME", ["Name", "other"]) == "Name"
    assert match("nAME", ["Name", "NAME"]) is None
    assert match("names", ["name"]) is None


def test_nearest_name():
    """The closest name is found whatever its letter case, nothing when none is close."""
    assert nearest("acountnumber", ["ACCOUNTNUMBER", "name"]) == "ACCOUNTNUMBER"
    assert nearest("xyz", ["ACCOUNTNUMBER"]) is None


def test_guess_says_what_is_known():
    """Without a close name the known ones are listed when they are few."""
    assert guess("nam", ["name", "number"]) == "did you mean 'name'?"
    assert guess("x", ["name", "number"]) == "known are: name, number"
    assert guess("x", [f"column{number}" for number in range(21)]) == ""
