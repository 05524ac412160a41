"""What differs between two texts of a map, in words."""

from __future__ import annotations

from dualwrite.mapping.difference import differences
from dualwrite.mapping.notation import read_map

HEAD = "map: m\nleft: L\nright: R\n"


def told(before: str, after: str, head: str = HEAD) -> list[str]:
    """The differences between two lists of columns, as sentences."""
    return [str(each) for each in differences(*(read_map(f"{head}{text}", "") for text in (before, after)))]


def columns(*lines: str) -> str:
    """Column lines."""
    return "columns:\n" + "".join(f"  - {line}\n" for line in lines)


def test_the_same_map_has_no_differences():
    """Comments, quotes, versions and publishers are no differences."""
    same = "columns:  # all of them\n  - 'A = a'\n"
    assert told(columns("A = a"), f"version: 2.0.0.0\npublisher: P\n{same}") == []


def test_columns_come_and_go():
    """A line that is new, one that is gone, and one whose column is paired with another one."""
    assert told(columns("A = a", "B = b", "C = c"), columns("A = a", "B = x", "D >> d: {default: 3}")) == [
        "B – b is now B – x",
        "C – c: removed, was both ways",
        "D – d: added, left to right, {default: 3}",
    ]


def test_a_column_that_could_be_either_is_gone():
    """Where a column stood twice, no line is taken for the other one's successor."""
    assert told(columns("A > a", "A > b"), columns("A > c", "A > d")) == [
        "A – a: removed, was left to right",
        "A – b: removed, was left to right",
        "A – c: added, left to right",
        "A – d: added, left to right",
    ]


def test_directions_and_options_are_told_apart():
    """Direction, value map entry by entry, default, policy and switches."""
    before = columns("A >< a: {values: {no: 0, yes: 1}}", "B >> b: {default: 1}", "C = c", "D > d: {truncate: true}")
    after = columns(
        "A >< a: {values: {no: 0, yes: 2, all: 3}, else: park}", "B >> b: {default: null}", "C > c", "D > d"
    )
    assert told(before, after) == [
        "A – a: values is now yes → 2, was yes → 1",
        "A – a: values is now all → 3",
        "A – a: else is now park",
        "B – b: default is now null, was 1",
        "C – c: direction is now left to right, was both ways",
        "D – d: truncate is gone, was true",
    ]
    assert told(columns("C = c: {conflict: max}"), columns("C = c: {conflict: min}")) == [
        "C – c: conflict is now min, was max"
    ]


def test_entries_of_the_map_are_told():
    """Key, filters per side, tables, company and settings."""
    before = "key: [a]\nfilter: {left: A eq 1, right: b eq 2}\ncompany: X = x\n" + columns("A = a")
    after = "key: [a, b]\nfilter: {left: A eq 2}\ndeletes: false\n" + columns("A = a")
    assert set(told(before, after)) == {
        "key is now [a, b], was [a]",
        "filter left is now A eq 2, was A eq 1",
        "filter right is gone, was b eq 2",
        "company is gone, was X = x",
        "deletes is now false",
    }


def test_another_order_of_columns_is_told():
    """The same lines in another order say the same; it is told all the same."""
    assert told(columns("A = a", "B = b"), columns("B = b", "A = a")) == [
        "the columns stand in another order, which changes nothing"
    ]


def test_several_transforms_are_told_whole():
    """Where a transform comes twice, the list of them is what changed."""
    before = columns("{left: A, direction: right, right: a, transforms: [{default: 1}, {default: 2}]}")
    assert told(before, columns("A >> a: {default: 1}")) == [
        "A – a: transforms is now [{default: 1}], was [{default: 1}, {default: 2}]"
    ]
