"""The four numbers of a map's version."""

from __future__ import annotations

import pytest

from dualwrite.mapping.notation import read_map
from dualwrite.mapping.numbering import number_of, with_version

TEXT = "map: m\nversion: {version}\nleft: L\nright: R\ncolumns: [{columns}]\n"


def a_map(version: str, columns: str = "A = a"):
    """A map of that version."""
    return read_map(TEXT.format(version=version, columns=columns), "")


@pytest.mark.parametrize(
    ("mine", "known", "number"),
    [
        (("1.0.0.0", "A = a"), [], "1.0.0.0"),
        (("1.0.0.0", "A = a"), [("1.0.0.0", "A = a")], "1.0.0.0"),
        (("2.0.0.0", "A = a"), [("1.0.0.0", "A = a")], "2.0.0.0"),
        (("1.0.0.0", "A > a"), [("1.0.0.0", "A = a")], "1.0.0.1"),
        (("1.0.0.0", "A > a"), [("1.0.0.0", "A = a"), ("1.0.0.9", "A < a"), ("1.0.1.30", "A < a")], "1.0.0.10"),
        (("1.0.0.0", "A > a"), [("1.0.0.0", "A = a"), ("1.0.0.1", "A > a"), ("1.0.0.2", "A < a")], "1.0.0.1"),
        (("1.0.0.0", "A > a"), [("1.0.0.0", "A = a"), ("1.0.0.9", "A > a"), ("1.0.0.10", "A > a")], "1.0.0.10"),
        (("01.0.0.0", "A = a"), [("1.0.0.0", "A = a")], "1.0.0.0"),
        (("01.0.0.0", "A > a"), [("1.0.0.0", "A = a")], "1.0.0.1"),
    ],
)
def test_a_number_never_stands_for_two_texts(mine, known, number):
    """A free number is taken as it is; a taken one only by the text that it stands for."""
    assert number_of(a_map(*mine), [a_map(*each) for each in known]) == number


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("map: m\nversion: 1.0.0.0\n", "map: m\nversion: 1.0.0.7\n"),
        ("map: m\nversion:   '1.0.0.0'  # ours\n", "map: m\nversion: 1.0.0.7  # ours\n"),
        ('map: m\n"version": "1.0.0.0"\n', 'map: m\n"version": 1.0.0.7\n'),
        ("map: m  # the map\n", "map: m  # the map\nversion: 1.0.0.7\n"),
        ("map: m\r\nversion: 1.0.0.0\r\n", "map: m\r\nversion: 1.0.0.7\r\n"),
        ("map: >-\n  m\n", None),
        ("version:\n  1.0.0.0\nmap: m\n", None),
    ],
)
def test_only_the_number_is_changed_in_a_file(before, after):
    """All else stays as it stands, comments and line ends too; where that is not sure, nothing is done."""
    rest = "left: L\nright: R\ncolumns:\n  - A = a  # kept\n"
    assert with_version(before + rest, "1.0.0.7") == (None if after is None else after + rest)


def test_a_map_on_one_line_is_left_alone():
    """A file whose version stands among other entries of a line is not changed."""
    assert with_version("{map: m, version: 1.0.0.0, left: L, right: R, columns: [A = a]}", "1.0.0.7") is None
