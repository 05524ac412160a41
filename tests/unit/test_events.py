"""The activity log in words."""

from __future__ import annotations

from dualwrite.printing.events import circumstances


def test_circumstances_are_told_in_words() -> None:
    """What is short stands on one line; of lists, each entry on its own, also where it has parts."""
    found = [{"kind": "value", "map": "items", "count": 3}, {"kind": "lag", "map": "", "count": 1}]
    told = list(circumstances({"rule": "bad", "found": found, "actions": ["mail", "pause"], "key": '["a", null]'}))
    assert told == [
        "record: a, (); rule: bad",
        "kind: value; map: items; count 3",
        "kind: lag; count 1",
        "mail",
        "pause",
    ]
